//! Abuse of sessions: fights, floods, wills.

use crate::arena::Arena;
use crate::crowd::{connect_from, exchange, reset};
use crate::wire::{Wire, connect_with, packet, subscribe, text};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Clients that take one session over from each other, again and again, while messages come for it.
pub(crate) fn id_fight(arena: &Arena) -> String {
    let time = arena.pick(Duration::from_secs(60), Duration::from_millis(500));
    let connect = connect_with(4, "fight", 0, &[]);
    let mut first = Wire::open(arena.address());
    first.send(&connect);
    assert_eq!(first.receive().expect("CONNACK").body, [0, 0]);
    first.send(&subscribe(4, 1, "fight", 1));
    assert_eq!(first.receive().expect("SUBACK").first, 0x90);
    let (taken, started) = (AtomicUsize::new(0), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while started.elapsed() < time {
                    let mut wire = Wire::open(arena.address());
                    wire.send(&connect);
                    // The other one may be faster.
                    if let Some(connack) = wire.receive() {
                        assert_eq!(
                            (connack.first, &connack.body[..]),
                            (0x20, &[1, 0][..]),
                            "the session is there"
                        );
                        taken.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        scope.spawn(|| {
            let mut publisher = Wire::connected(arena.address(), 4, "fight-p");
            while started.elapsed() < time {
                publisher.send(&packet(0x32, &[&text("fight")[..], &[0, 1], b"x"].concat()));
                assert_eq!(publisher.receive().expect("PUBACK").first, 0x40);
                crate::crowd::pace(Duration::from_millis(5));
            }
        });
    });
    // Its last owner, and then it goes with all it has.
    drop(Wire::connected(arena.address(), 4, "fight"));
    format!("{} takeovers of one session by two clients in {time:?}", taken.into_inner())
}

/// Persistent sessions of clients that never come back, each with a subscription; they expire after seconds.
pub(crate) fn session_flood(arena: &Arena) -> String {
    let count = arena.pick(50_000, 500);
    for n in 0..count {
        let stream = connect_from(n, arena.address());
        // Session Expiry Interval: 2 s.
        let id = format!("flood-{n}");
        let head = [&text("MQTT")[..], &[5, 2, 0, 60, 5, 0x11, 0, 0, 0, 2], &text(&id)].concat();
        let mut first = [0; 2];
        assert!(exchange(&stream, &packet(0x10, &head), &mut first) && first[0] == 0x20);
        let mut rest = vec![0; usize::from(first[1])];
        assert!(exchange(&stream, &[], &mut rest) && rest[1] == 0, "accepted");
        assert!(exchange(&stream, &subscribe(5, 1, &format!("flood/{n}/#"), 1), &mut [0; 6]));
        reset(stream);
    }
    format!("{count} persistent sessions with a subscription each, which expire by themselves")
}

/// All clients go at once, each with a will that somebody waits for.
pub(crate) fn wills(arena: &Arena) -> String {
    let count = arena.pick(10_000, 200);
    let mut subscriber = Wire::connected(arena.address(), 4, "wills-s");
    subscriber.send(&subscribe(4, 1, "wills/#", 1));
    assert_eq!(subscriber.receive().expect("SUBACK").first, 0x90);
    let crowd: Vec<_> = (0..count)
        .map(|n| {
            let stream = connect_from(n, arena.address());
            let will = [&text(&format!("wills/{n}"))[..], &text(&"w".repeat(200))].concat();
            assert!(exchange(&stream, &connect_with(4, &format!("will-{n}"), 0x0E, &will), &mut [0; 4]));
            stream
        })
        .collect();
    crowd.into_iter().for_each(reset);
    let mut seen = std::collections::HashSet::new();
    while seen.len() < count {
        let will = subscriber.receive().expect("a will");
        assert_eq!(will.first & 0xF0, 0x30);
        let size = usize::from(u16::from_be_bytes([will.body[0], will.body[1]]));
        subscriber.send(&packet(0x40, &will.body[2 + size..4 + size]));
        assert!(seen.insert(will.body[2..2 + size].to_vec()), "each once");
    }
    format!("{count} clients reset at once; every will came, once")
}
