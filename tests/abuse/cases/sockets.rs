//! Abuse of the connection, before or without much MQTT.

use crate::arena::Arena;
use crate::crowd::{connect_from, exchange, is_closed, poke, reset};
use crate::wire::connect_with;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Each sends a byte a second: half of them never come to the end of CONNECT, half are in and never end a PUBLISH, with a keep
/// alive of three seconds. The broker is to close all.
pub(crate) fn drip(arena: &Arena) -> String {
    let count = arena.pick(10_000, 100);
    let connect = |n: usize| {
        let mut bytes = connect_with(4, &format!("drip-{n}"), 2, &[]);
        // Keep alive: two bytes behind name, level and flags.
        bytes[10..12].copy_from_slice(&3u16.to_be_bytes());
        bytes
    };
    let mut open: Vec<(TcpStream, Vec<u8>, usize)> = Vec::new();
    for n in 0..count {
        let stream = connect_from(n, arena.address());
        if n % 2 == 0 {
            open.push((stream, connect_with(4, &"slow".repeat(50), 2, &[]), 0));
        } else {
            assert!(exchange(&stream, &connect(n), &mut [0; 4]));
            open.push((stream, [&[0x30, 0xFF, 0x7F][..], &[0; 200]].concat(), 0));
        }
    }
    let started = Instant::now();
    let mut sent = 0;
    while !open.is_empty() {
        assert!(started.elapsed() < crate::DEADLINE, "{} are still open", open.len());
        let second = Instant::now();
        open.retain_mut(|(stream, bytes, at)| {
            *at += 1;
            sent += 1;
            poke(stream, &bytes[*at - 1..*at]) && *at < bytes.len()
        });
        crate::crowd::pace(Duration::from_secs(1).saturating_sub(second.elapsed()));
    }
    format!("{count} connections, a byte a second each, {sent} in all; the broker closed every one")
}

/// Connections that are reset before, in or right behind CONNECT.
pub(crate) fn half_open(arena: &Arena) -> String {
    let count = arena.pick(50_000, 500);
    let mut held = std::collections::VecDeque::new();
    for n in 0..count {
        let stream = connect_from(n, arena.address());
        let connect = connect_with(4, &format!("half-{}", n % 100), 2, &[]);
        match n % 3 {
            0 => {}
            1 => drop(poke(&stream, &connect[..n % connect.len()])),
            _ => drop(poke(&stream, &connect)),
        }
        held.push_back(stream);
        if held.len() > 1000 {
            held.pop_front().into_iter().for_each(reset);
        }
    }
    held.into_iter().for_each(reset);
    format!("{count} connections reset before, in or behind CONNECT, 1000 open at a time")
}

/// Connects and disconnects as it should be, and that very often.
pub(crate) fn churn(arena: &Arena) -> String {
    const THREADS: usize = 4;
    let count = arena.pick(100_000, 1_000);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for n in (thread..count).step_by(THREADS) {
                    let stream = connect_from(n, arena.address());
                    assert!(exchange(&stream, &connect_with(4, &format!("churn-{n}"), 2, &[]), &mut [0; 4]));
                    assert!(exchange(&stream, &[0xE0, 0], &mut []));
                    reset(stream);
                }
            });
        }
    });
    format!("{count} clients connected and disconnected")
}

/// What other programs say when they find an open port.
pub(crate) fn other_protocols(arena: &Arena) -> String {
    let mut random = 1u64;
    let mut noise = || {
        let byte = |_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 56) as u8
        };
        (0..2000).map(byte).collect::<Vec<u8>>()
    };
    let rounds = arena.pick(500, 10);
    let mut silent = Vec::new();
    for round in 0..rounds {
        let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3][..], &noise()[..500]].concat();
        let openings: [&[u8]; 8] = [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"POST /mqtt HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            &hello,
            b"SSH-2.0-OpenSSH_9.9\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\x1f\x90\x07\x5b",
            b"AMQP\0\0\x09\x01",
            &noise(),
        ];
        for opening in openings {
            // What is no beginning of a packet is closed at once, the rest when its time is over.
            let stream = connect_from(round, arena.address());
            poke(&stream, opening);
            silent.push(stream);
        }
        silent.push(connect_from(round, arena.address()));
    }
    for stream in &silent {
        let started = Instant::now();
        while !is_closed(stream) {
            assert!(started.elapsed() < crate::DEADLINE, "the silent are closed");
            crate::crowd::pace(Duration::from_millis(20));
        }
    }
    format!("{rounds} times HTTP/1 and 2, TLS, SSH, PROXY, AMQP, noise and silence; each was closed")
}
