//! Bad input over raw sockets: the offender is told where its version has a way and closed, everyone else is undisturbed.

use crate::broker::Broker;
use crate::wire::{Packet, Wire, connect, connect_with, packet, publish, subscribe, text};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::time::{Duration, Instant};

/// Two well-behaved clients that have to be able to talk after every offence.
struct Witness {
    subscriber: Wire,
    publisher: Wire,
    said: u32,
}

impl Witness {
    fn new(broker: &Broker) -> Self {
        let mut subscriber = Wire::connected(broker.address(), 4, "witness-subscriber");
        subscriber.send(&subscribe(4, 1, "witness", 0));
        assert_eq!(subscriber.receive(), Some(Packet { first: 0x90, body: vec![0, 1, 0] }));
        Self { subscriber, publisher: Wire::connected(broker.address(), 4, "witness-publisher"), said: 0 }
    }

    fn assert_undisturbed(&mut self) {
        self.said += 1;
        let payload = self.said.to_be_bytes();
        self.publisher.send(&publish(4, "witness", &payload));
        let body = [&text("witness")[..], &payload].concat();
        assert_eq!(self.subscriber.receive(), Some(Packet { first: 0x30, body }));
    }
}

/// DISCONNECT of version 5.0 with this reason code.
fn assert_disconnected(mut wire: Wire, reason: u8) {
    let disconnect = wire.receive().unwrap_or_else(|| panic!("closed without DISCONNECT {reason:#x}"));
    assert_eq!((disconnect.first, disconnect.body.first()), (0xE0, Some(&reason)));
    wire.assert_closed();
}

#[test]
fn one_byte_at_a_time() {
    for shards in [1, 4] {
        let broker = Broker::with_shards(shards);
        for level in [3, 4, 5] {
            let mut wire = Wire::open(broker.address());
            let send_slowly =
                |wire: &mut Wire, bytes: &[u8]| bytes.chunks(1).for_each(|byte| wire.send(byte));
            send_slowly(&mut wire, &connect(level, "slow"));
            assert_eq!(wire.receive().map(|connack| (connack.first, connack.body[1])), Some((0x20, 0)));
            send_slowly(&mut wire, &subscribe(level, 7, "slow/#", 1));
            assert_eq!(
                wire.receive().map(|suback| (suback.first, suback.body.last().copied())),
                Some((0x90, Some(1)))
            );
            send_slowly(&mut wire, &publish(level, "slow/x", b"payload"));
            let expected = publish(level, "slow/x", b"payload");
            assert_eq!(wire.receive(), Some(Packet { first: 0x30, body: expected[2..].to_vec() }));
            send_slowly(&mut wire, &[0xC0, 0]);
            assert_eq!(wire.receive(), Some(Packet { first: 0xD0, body: Vec::new() }));
            send_slowly(&mut wire, &[0xE0, 0]);
            wire.assert_closed();
        }
        broker.stop();
    }
}

#[test]
fn many_packets_in_one_segment() {
    let broker = Broker::with_shards(4);
    for level in [3, 4, 5] {
        let mut wire = Wire::open(broker.address());
        let mut bytes = connect(level, "fast");
        bytes.extend(subscribe(level, 7, "fast/#", 0));
        for number in 0..100 {
            bytes.extend(publish(level, "fast/x", &[number]));
        }
        bytes.extend([0xC0, 0]);
        wire.send(&bytes);
        assert_eq!(wire.receive().map(|packet| packet.first), Some(0x20));
        // SUBACK waits for all shards, messages and PINGRESP do not wait for it.
        let mut answers: Vec<Packet> = (0..102).map(|_| wire.receive().expect("an answer to each")).collect();
        let mut take =
            |first| answers.iter().position(|packet| packet.first == first).map(|at| answers.remove(at));
        assert!(take(0x90).is_some() && take(0xD0).is_some(), "SUBACK and PINGRESP");
        let payloads = answers.iter().map(|publish| (publish.first, publish.body.last().copied()));
        assert!(payloads.eq((0..100).map(|number| (0x30, Some(number)))), "in order: {answers:x?}");
    }
    broker.stop();
}

#[test]
fn what_is_no_connect_is_closed() {
    let broker = Broker::with_shards(2);
    let mut witness = Witness::new(&broker);
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), // a TLS ClientHello
        vec![0; 64],
        vec![0xFF; 64],
        publish(4, "before/connect", b"x"),
        vec![0xC0, 0],                                       // PINGREQ
        vec![0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0x01],            // a length of five bytes
        packet(0x11, &connect(4, "reserved")[2..]),          // a reserved flag
        packet(0x10, &[0, 4, b'M', b'Q', b'T', b'X', 4, 2]), // a protocol nobody speaks
        connect_with(4, "reserved", 0x03, &[]),              // a reserved bit of the connect flags
        packet(0x10, &[0x10, 0, 0, 0]),                      // a name that is longer than the packet
    ] {
        let mut wire = Wire::open(broker.address());
        wire.send(&bytes);
        // Version 5.0 may be answered with CONNACK; none of these is of it.
        assert_eq!(wire.receive(), None, "{bytes:x?}");
        witness.assert_undisturbed();
    }
    broker.stop();
}

#[test]
fn an_unknown_version_is_told() {
    let broker = Broker::with_shards(1);
    let mut wire = Wire::open(broker.address());
    wire.send(&packet(0x10, &[&text("MQTT")[..], &[6, 2, 0, 60, 0], &text("x")].concat()));
    let connack = wire.receive().expect("CONNACK with a reason");
    assert_eq!(connack.first, 0x20);
    // [MQTT-3.1.2-2] of 5.0: 0x84; return code 1 where the answer is of 3.1.1.
    assert!(matches!(connack.body[1], 0x84 | 1), "{connack:?}");
    wire.assert_closed();
    broker.stop();
}

#[test]
fn silence_is_closed_after_the_login_timeout() {
    const TIMEOUT: Duration = Duration::from_millis(300);
    let broker = Broker::start(&["quelea.shards=2", "mqtt.login_timeout=300"]);
    let mut witness = Witness::new(&broker);
    let whole = connect(4, "never");
    for sent in [&[][..], &whole[..1], &whole[..whole.len() - 1]] {
        let start = Instant::now();
        let mut wire = Wire::open(broker.address());
        wire.send(sent);
        wire.assert_closed();
        assert!(start.elapsed() >= TIMEOUT, "closed after {:?}, too early", start.elapsed());
        witness.assert_undisturbed();
    }
    broker.stop();
}

#[test]
fn oversized_packets_are_refused_before_they_arrive() {
    let broker = Broker::start(&[
        "quelea.shards=2",
        "mqtt.max_packet_size_unauthenticated=1000",
        "mqtt.max_packet_size_authenticated=2000",
    ]);
    let mut witness = Witness::new(&broker);
    // Only the fixed header is sent: waiting for the rest would be a hang.
    let mut wire = Wire::open(broker.address());
    wire.send(&[0x10, 0xE8, 0x07]);
    wire.assert_closed();
    witness.assert_undisturbed();

    let mut wire = Wire::connected(broker.address(), 5, "large");
    wire.send(&[0x30, 0xD0, 0x0F]);
    assert_disconnected(wire, 0x95);
    witness.assert_undisturbed();

    let mut wire = Wire::connected(broker.address(), 4, "large");
    wire.send(&[0x30, 0xD0, 0x0F]);
    wire.assert_closed();
    witness.assert_undisturbed();

    // The largest that is allowed goes through.
    let mut wire = Wire::connected(broker.address(), 4, "large");
    wire.send(&subscribe(4, 1, "large", 0));
    assert_eq!(wire.receive().map(|suback| suback.first), Some(0x90));
    let largest = publish(4, "large", &vec![7; 2000 - 3 - 7]);
    assert_eq!(largest.len(), 2000);
    wire.send(&largest);
    assert_eq!(wire.receive().map(|publish| publish.body.len()), Some(2000 - 3));
    broker.stop();
}

#[test]
fn broken_rules_after_connect() {
    let broker = Broker::with_shards(2);
    let mut witness = Witness::new(&broker);
    let malformed = 0x81;
    let protocol_error = 0x82;
    let publish_qos = |first: u8, behind: &[u8]| packet(first, &[&text("t")[..], behind].concat());
    for (bytes, reason) in [
        (connect(5, "twice"), protocol_error),
        (vec![0x00, 0], malformed),                           // type 0
        (vec![0xC1, 0], malformed),                           // a reserved flag of PINGREQ
        (publish_qos(0x36, &[0, 1, 0]), malformed),           // QoS 3
        (publish_qos(0x32, &[0, 0, 0]), protocol_error),      // packet identifier 0
        (packet(0x80, &[0, 1, 0, 0, 1, b'a', 0]), malformed), // flags of SUBSCRIBE
        (packet(0x82, &[0, 1, 0]), protocol_error),           // SUBSCRIBE without filter
        (packet(0x30, &[0, 1, 0xFF, 0]), malformed),          // a topic that is not UTF-8
        (packet(0x30, &[0, 3, b'a', b'/', b'#', 0]), 0x90),   // a topic name with a wildcard
        (packet(0x20, &[0, 0, 0]), protocol_error),           // CONNACK from a client
    ] {
        let mut wire = Wire::connected(broker.address(), 5, "offender");
        wire.send(&bytes);
        let disconnect = wire.receive().unwrap_or_else(|| panic!("{bytes:x?}: closed without DISCONNECT"));
        assert_eq!(disconnect.first, 0xE0, "{bytes:x?}");
        // The specification leaves the choice between these two to the server in most of these cases.
        let allowed = if reason == 0x90 {
            vec![0x90, malformed, protocol_error]
        } else {
            vec![malformed, protocol_error]
        };
        assert!(allowed.contains(&disconnect.body[0]), "{bytes:x?}: {disconnect:x?}, expected {reason:x}");
        wire.assert_closed();
        witness.assert_undisturbed();
    }
    let mut wire = Wire::connected(broker.address(), 4, "offender");
    wire.send(&connect(4, "twice"));
    wire.assert_closed();
    witness.assert_undisturbed();
    broker.stop();
}

#[test]
fn wrong_credentials_are_told() {
    let broker = Broker::start(&["quelea.shards=2", "default_user=alice", "default_pass=right"]);
    let login = |user: &str, pass: &str| [text(user), text(pass)].concat();
    for (level, user, pass, code) in [
        (4, "alice", "right", 0),
        (4, "alice", "wrong", 4),
        (4, "guest", "guest", 4),
        (5, "alice", "right", 0),
        (5, "alice", "wrong", 0x86),
        (5, "bob", "right", 0x86),
    ] {
        let mut wire = Wire::open(broker.address());
        wire.send(&connect_with(level, "login", 0xC2, &login(user, pass)));
        let connack = wire.receive().expect("CONNACK");
        assert_eq!((connack.first, connack.body[1]), (0x20, code), "{level} {user} {pass}");
        if code != 0 {
            wire.assert_closed();
        }
    }
    broker.stop();

    let broker = Broker::start(&["quelea.shards=1", "mqtt.allow_anonymous=false"]);
    for (level, codes) in [(4, [4, 5]), (5, [0x86, 0x87])] {
        let mut wire = Wire::open(broker.address());
        wire.send(&connect(level, "anonymous"));
        let connack = wire.receive().expect("CONNACK");
        assert!(codes.contains(&connack.body[1]), "{connack:x?}");
        wire.assert_closed();
    }
    broker.stop();
}

#[test]
fn one_connection_too_many_is_told() {
    let broker = Broker::start(&["quelea.shards=1", "mqtt.max_connections=3"]);
    let mut kept: Vec<Wire> =
        (0..3).map(|n| Wire::connected(broker.address(), 5, &format!("kept-{n}"))).collect();
    let mut wire = Wire::open(broker.address());
    wire.send(&connect(5, "one-too-many"));
    // Refused with a word or, when even that costs too much, without.
    if let Some(connack) = wire.receive() {
        assert_eq!((connack.first, connack.body[1]), (0x20, 0x97));
        wire.assert_closed();
    }
    for wire in &mut kept {
        wire.send(&[0xC0, 0]);
        assert_eq!(wire.receive().map(|pong| pong.first), Some(0xD0));
    }
    broker.stop();
}

/// One over `mqtt.max_connections` is answered, but not any number of them at once: the kernel keeps the others waiting.
#[test]
fn strangers_beyond_their_bound_are_accepted_when_others_have_gone() {
    raise_descriptor_limit();
    let settings = ["quelea.shards=1", "mqtt.max_connections=1", "mqtt.login_timeout=600000"];
    let broker = Broker::start(&settings);
    let waits = "accepting waits: too many clients over mqtt.max_connections";
    let mut silent: Vec<Wire> = (0..1024).map(|_| Wire::open(broker.address())).collect();
    // At the bound: this one is heard.
    let mut last = Wire::connected(broker.address(), 4, "last");
    broker.wait_for_line(0, waits);
    let mut beyond = Wire::open(broker.address());
    beyond.send(&connect(4, "beyond"));
    last.send(&[0xC0, 0]);
    assert_eq!(last.receive().map(|pong| pong.first), Some(0xD0));
    assert!(!beyond.hears_within(Duration::from_millis(300)), "nobody has heard it yet");
    silent.pop();
    let connack = beyond.receive().expect("it is heard now");
    assert_eq!((connack.first, connack.body[1]), (0x20, 5), "and is one too many");
    broker.stop();
}

/// A small table of descriptors a ring, and hardly any for further rings: what is left tells the clients.
#[test]
fn full_descriptor_tables_are_told() {
    raise_descriptor_limit();
    // Each listener takes a descriptor that a ring could have.
    let listeners: Vec<String> = (0..105)
        .map(|n| format!("mqtt.listeners.tcp.{n}=127.0.0.1:0"))
        .chain(["quelea.shards=1".into()])
        .collect();
    let broker =
        Broker::start_with_descriptors(&listeners.iter().map(String::as_str).collect::<Vec<_>>(), 128);
    let mut kept = Vec::new();
    let code = loop {
        let mut wire = Wire::open(broker.address());
        wire.send(&connect(4, &format!("kept-{}", kept.len())));
        let connack = wire.receive().expect("told, also when nothing is left");
        assert_eq!(connack.first, 0x20);
        if connack.body[1] != 0 {
            break connack.body[1];
        }
        kept.push(wire);
        assert!(kept.len() < 8192, "no end of descriptors");
    };
    // Of the last table, one for each listener and 16 more are kept for telling.
    assert_eq!((code, kept.len() % 128), (3, 128 - 106 - 16), "after {} clients", kept.len());
    broker.wait_for_line(0, "no further network ring can be opened");
    broker.wait_for_line(
        0,
        "the descriptor tables of its shard are full; raise the descriptor limit (`ulimit -n`",
    );
    // One goes, another comes.
    let mut first = kept.remove(0);
    first.send(&[0xE0, 0]);
    first.assert_closed();
    kept.push(Wire::connected(broker.address(), 4, "another"));
    for wire in &mut kept {
        wire.send(&[0xC0, 0]);
        assert_eq!(wire.receive().map(|pong| pong.first), Some(0xD0));
    }
    broker.stop();
}

/// So many connections need more descriptors than some systems give a process unasked.
fn raise_descriptor_limit() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit it is allowed");
}
