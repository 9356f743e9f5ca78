//! More than can be kept: subscribers that do not read or acknowledge, and stores that are full.

use crate::arena::Arena;
use crate::crowd::{connect_from, exchange, make_deaf};
use crate::wire::{Wire, connect, packet, publish, subscribe, text};

/// Subscribers at QoS 0 that never read while a publisher floods: each keeps its bound and no more.
pub(crate) fn never_read(arena: &Arena) -> String {
    // Few messages have to be large: the kernel takes megabytes for each socket before the broker has to keep anything.
    let (count, messages, size) = arena.pick((500, 20_000, 1000), (10, 600, 16_000));
    let message = publish(4, "deaf", &vec![0; size]);
    let crowd: Vec<_> = (0..count)
        .map(|n| {
            let stream = connect_from(n, arena.address());
            make_deaf(&stream);
            assert!(exchange(&stream, &connect(4, &format!("deaf-{n}")), &mut [0; 4]));
            assert!(exchange(&stream, &subscribe(4, 1, "deaf", 0), &mut [0; 5]));
            stream
        })
        .collect();
    let idle = arena.resident_kb();
    let mut publisher = Wire::connected(arena.address(), 4, "deaf-p");
    for n in 0..messages {
        publisher.send(&message);
        // So that nobody is ahead of the broker by more than its own socket.
        if n % 100 == 99 {
            publisher.send(&[0xC0, 0]);
            assert_eq!(publisher.receive().expect("PINGRESP").first, 0xD0);
        }
    }
    let grown = arena.resident_kb().saturating_sub(idle);
    drop(crowd);
    format!(
        "{count} subscribers that never read, {messages} messages of {size} B to all; {} MiB kept",
        grown / 1024
    )
}

/// Subscribers at QoS 1 that read and never acknowledge: a window, a queue up to its bound, and the oldest are dropped.
pub(crate) fn never_acknowledge(arena: &Arena) -> String {
    let (count, messages) = arena.pick((200, 10_000), (10, 400));
    let crowd: Vec<_> = (0..count)
        .map(|n| {
            let stream = connect_from(n, arena.address());
            assert!(exchange(&stream, &connect(4, &format!("mute-{n}")), &mut [0; 4]));
            assert!(exchange(&stream, &subscribe(4, 1, "mute", 1), &mut [0; 5]));
            stream
        })
        .collect();
    let idle = arena.resident_kb();
    let mut publisher = Wire::connected(arena.address(), 4, "mute-p");
    let message = packet(0x32, &[&text("mute")[..], &[0, 1], &[0; 200]].concat());
    for _ in 0..messages {
        publisher.send(&message);
        assert_eq!(publisher.receive().expect("PUBACK").first, 0x40);
    }
    let grown = arena.resident_kb().saturating_sub(idle);
    drop(crowd);
    format!(
        "{count} subscribers that never acknowledge, {messages} messages to all; {} MiB kept",
        grown / 1024
    )
}

/// Retained messages to ever new topics, past the bound; then all are cleared.
pub(crate) fn retained(arena: &Arena) -> String {
    let count = arena.pick(100_000, 1_000);
    let mut publisher = Wire::connected(arena.address(), 5, "retained-p");
    let mut refused = 0;
    let mut publish = |topic: String, payload: &[u8]| {
        publisher.send(&packet(0x33, &[&text(&topic)[..], &[0, 1, 0], payload].concat()));
        let puback = publisher.receive().expect("PUBACK");
        assert_eq!(puback.first, 0x40);
        puback.body.get(2).copied().unwrap_or(0)
    };
    for n in 0..count {
        match publish(format!("retained/{n}"), &[1; 100]) {
            0x97 => refused += 1,
            code => assert!(matches!(code, 0 | 0x10), "{code:#x}"),
        }
    }
    assert!(refused > 0, "the bound is reached");
    for n in 0..count {
        publish(format!("retained/{n}"), &[]);
    }
    format!("{count} retained messages, {refused} over the bound; all cleared")
}
