//! Sessions that are taken over again and again: the same client identifiers connect hundreds of times, wherever the kernel has
//! them accepted, while messages for them flow.
//!
//! Connections are left in every state: before CONNACK, in the middle of deliveries, with acknowledgements on their way, open or
//! closed. The client keeps what the specification makes it keep: the QoS 2 identifiers it has seen no PUBREL for.
//!
//! Once with a ring a shard, and once with descriptor tables so small that each shard has several and sockets move between all of
//! them. `QUELEA_HOPS=50 cargo test --release --test it hops` makes it fifty times as many messages and hops.

use crate::DEADLINE;
use crate::broker::Broker;
use crate::watch::metrics;
use crate::wire::{Wire, connect_with, packet, subscribe, text};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SHARDS: u16 = 4;
const CLIENTS: usize = 32;
/// Threads that move clients, each its share of them.
const MOVERS: usize = 4;
const PUBLISHERS: usize = 2;
/// Of each publisher, to each client.
const MESSAGES: usize = 60;
/// Connections of a client, at least; more while messages flow.
const HOPS_MIN: usize = 12;

/// What is published when all else has come.
const LAST: &str = "last";
/// How long a client waits for one packet more before it leaves.
const PATIENCE: Duration = Duration::from_millis(5);

const PUBACK: u8 = 0x40;
const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;
const PINGREQ: [u8; 2] = [0xC0, 0];
const PINGRESP: u8 = 0xD0;

/// Descriptors of a process whose shards need several rings for [`IDLE`] clients.
const DESCRIPTORS_FEW: u32 = 160;
/// Clients that only hold their sockets.
const IDLE: usize = 1000;

#[test]
fn sessions_that_hop_between_shards_lose_nothing_and_get_nothing_twice() {
    let broker = Broker::with_shards(SHARDS);
    hop_about(broker.address());
    broker.stop();
}

#[test]
fn sessions_that_hop_between_rings_lose_nothing_and_get_nothing_twice() {
    let shards = format!("quelea.shards={SHARDS}");
    let broker = Broker::start_with_descriptors(&[&shards, "quelea.http=0"], DESCRIPTORS_FEW);
    let address = broker.address();
    // Twice: what the first ones left behind would be missed.
    for round in 0..2 {
        let idle: Vec<Wire> =
            (0..IDLE).map(|number| Wire::connected(address, 4, &format!("idle-{number}"))).collect();
        assert!(
            rings(&broker) >= 2.0 * f64::from(SHARDS),
            "{} rings are too few for this test",
            rings(&broker)
        );
        hop_about(address);
        for mut wire in idle {
            wire.send(&PINGREQ);
            assert_eq!(wire.receive().map(|packet| packet.first), Some(PINGRESP), "it is still there");
        }
        // They have all gone: what is empty is closed while others hop on.
        let start = Instant::now();
        while round == 0 && rings(&broker) > f64::from(SHARDS) {
            assert!(start.elapsed() < DEADLINE, "{} rings are left", rings(&broker));
            hop_about(address);
        }
    }
    broker.stop();
}

/// Network rings that are open.
fn rings(broker: &Broker) -> f64 {
    metrics(broker.http().expect("`ready` says where"))["quelea_rings"]
}

/// How often everything is done.
fn scale() -> usize {
    std::env::var("QUELEA_HOPS").map_or(1, |scale| scale.parse().expect("QUELEA_HOPS is a number"))
}

/// Clients hop, publishers publish, and in the end everybody has what was sent.
fn hop_about(address: SocketAddr) {
    let (messages, hops_min) = (MESSAGES * scale(), HOPS_MIN * scale());
    let mut clients: Vec<Client> = (0..CLIENTS).map(|number| Client::subscribed(address, number)).collect();
    let publishing = AtomicUsize::new(PUBLISHERS);
    std::thread::scope(|scope| {
        for number in 0..PUBLISHERS {
            let publishing = &publishing;
            scope.spawn(move || {
                publish_all(address, number, messages);
                publishing.fetch_sub(1, Ordering::SeqCst);
            });
        }
        for share in clients.chunks_mut(CLIENTS / MOVERS) {
            let publishing = &publishing;
            scope.spawn(move || {
                let mut hops = 0;
                while hops < hops_min || publishing.load(Ordering::SeqCst) > 0 {
                    share.iter_mut().for_each(Client::hop);
                    hops += 1;
                }
            });
        }
    });
    let hops: usize = clients.iter().map(|client| client.hops).sum();
    let resent: usize = clients.into_iter().map(|client| client.finish(messages)).sum();

    assert!(
        hops >= CLIENTS * hops_min && resent > 0,
        "{hops} hops in the middle of deliveries: {resent} resent"
    );
}

/// Publishes to every client in turn, alternating QoS 1 and 2; each message is acknowledged before the next is sent.
fn publish_all(broker: SocketAddr, number: usize, messages: usize) {
    let mut wire = Wire::connected(broker, 4, &format!("publisher-{number}"));
    for message in 0..messages {
        let qos = qos_of(message);
        for client in 0..CLIENTS {
            let payload = payload(number, message);
            let body = [&text(&topic(client))[..], &[0, 1], payload.as_bytes()].concat();
            wire.send(&packet(0x30 | (qos << 1), &body));
            if qos == 1 {
                assert_eq!(acknowledged(&mut wire), PUBACK);
                continue;
            }
            assert_eq!(acknowledged(&mut wire), PUBREC);
            wire.send(&packet(PUBREL, &[0, 1]));
            assert_eq!(acknowledged(&mut wire), PUBCOMP);
        }
    }
}

fn acknowledged(wire: &mut Wire) -> u8 {
    let packet = wire.receive().expect("the broker acknowledges");
    assert_eq!(packet.body, [0, 1], "the one identifier in use");
    packet.first
}

fn topic(client: usize) -> String {
    format!("hops/{client}")
}

fn payload(publisher: usize, message: usize) -> String {
    format!("{publisher}:{message}")
}

fn qos_of(message: usize) -> u8 {
    if message.is_multiple_of(2) { 1 } else { 2 }
}

/// A persistent session's client side.
struct Client {
    broker: SocketAddr,
    number: usize,
    /// The connection before: open until the next one is there, or gone already.
    old: Option<Wire>,
    /// Connections that were left before their CONNACK: they may come in much later.
    left: Vec<Wire>,
    /// QoS 2 identifiers of messages that were handed on and not released.
    unreleased: BTreeSet<[u8; 2]>,
    /// How often each message was handed on.
    received: BTreeMap<String, usize>,
    hops: usize,
    /// Deliveries that came again, by their DUP flag.
    resent: usize,
    random: u64,
}

impl Client {
    /// A client whose session has its subscription.
    fn subscribed(broker: SocketAddr, number: usize) -> Self {
        let mut client = Self {
            broker,
            number,
            old: None,
            left: Vec::new(),
            unreleased: BTreeSet::new(),
            received: BTreeMap::new(),
            hops: 0,
            resent: 0,
            random: number as u64,
        };
        let mut wire = client.connect();
        let connack = wire.receive().expect("CONNACK");
        assert_eq!((connack.first, &connack.body[..]), (0x20, &[0, 0][..]), "accepted, and no session yet");
        wire.send(&subscribe(4, 1, &topic(number), 2));
        assert_eq!(wire.receive().expect("SUBACK").body, [0, 1, 2]);
        client.old = Some(wire);
        client
    }

    /// Connects anew and stays for a few packets, or not even for the first.
    fn hop(&mut self) {
        self.hops += 1;
        let mut wire = self.connect();
        wire.send(&PINGREQ);
        let stay = match self.draw(8) {
            0 => 0,
            1 => usize::MAX,
            _ => 1 + self.draw(12),
        };
        let mut has_pong = false;
        for _ in 0..stay {
            // What was read back from the disk comes behind PINGRESP.
            if has_pong && !wire.hears_within(PATIENCE) {
                break;
            }
            // A connection that was left before its CONNACK may come in later than this one and take the session over.
            let Some(first) = self.take(&mut wire) else { break };
            has_pong |= first == PINGRESP;
        }
        // Half of them are still open when the next one comes.
        let closes = self.draw(2) == 0;
        if stay > 0 {
            self.old = (!closes).then_some(wire);
            return;
        }
        if closes {
            wire.end_sending();
        }
        self.left.push(wire);
        self.old = None;
    }

    /// Stays until everything is there, and makes sure that nothing is left; how many deliveries came again.
    fn finish(mut self, messages: usize) -> usize {
        // One that came in behind the last would bring the session back: each has its CONNACK, or is closed.
        self.left.drain(..).for_each(|mut wire| drop(wire.receive()));
        let started = Instant::now();
        let expected: BTreeMap<String, usize> = (0..PUBLISHERS)
            .flat_map(|number| (0..messages).map(move |message| (payload(number, message), 1)))
            .collect();
        loop {
            assert!(started.elapsed() < DEADLINE, "{} got {:?}", self.number, self.received);
            let mut wire = self.connect();
            let is_open = loop {
                // CONNACK at least.
                if self.take(&mut wire).is_none() {
                    break false;
                }
                if self.received.len() == expected.len() && self.unreleased.is_empty() {
                    break true;
                }
            };
            self.old = Some(wire);
            if is_open {
                break;
            }
        }
        self.take_last();
        for (payload, count) in &self.received {
            let message = payload.split_once(':').and_then(|(_, message)| message.parse().ok());
            let qos = qos_of(message.expect("a number"));
            assert!(qos == 1 || *count == 1, "{} got {payload} {count} times", self.number);
        }
        assert!(self.received.keys().eq(expected.keys()), "{} got {:?}", self.number, self.received);
        // With Clean Session: nothing of it stays.
        drop(Wire::connected(self.broker, 4, &format!("hopper-{}", self.number)));
        self.resent
    }

    /// One message more: whatever the session still had would come before it.
    fn take_last(&mut self) {
        let mut publisher = Wire::connected(self.broker, 4, "publisher-last");
        let body = [&text(&topic(self.number))[..], &[0, 1], LAST.as_bytes()].concat();
        publisher.send(&packet(0x32, &body));
        assert_eq!(acknowledged(&mut publisher), PUBACK);
        while !self.received.contains_key(LAST) {
            let mut wire = self.connect();
            while !self.received.contains_key(LAST) && self.take(&mut wire).is_some() {}
            self.old = Some(wire);
        }
        self.received.remove(LAST);
    }

    fn connect(&self) -> Wire {
        let mut wire = Wire::open(self.broker);
        wire.send(&connect_with(4, &format!("hopper-{}", self.number), 0, &[]));
        wire
    }

    /// Takes and answers one packet; its first byte. `None`: the connection was closed.
    fn take(&mut self, wire: &mut Wire) -> Option<u8> {
        let packet = wire.receive()?;
        match packet.first {
            0x20 => assert_eq!(packet.body, [1, 0], "the session is there"),
            PUBREL => {
                let id = [packet.body[0], packet.body[1]];
                self.unreleased.remove(&id);
                wire.send(&crate::wire::packet(PUBCOMP, &id));
            }
            PINGRESP => {}
            first => {
                assert_eq!(first & 0xF1, 0x30, "PUBLISH, not retained: {packet:?}");
                self.take_publish(wire, first, &packet.body);
            }
        }
        Some(packet.first)
    }

    fn take_publish(&mut self, wire: &mut Wire, first: u8, body: &[u8]) {
        let name = text(&topic(self.number));
        let (id, payload) = body.strip_prefix(&name[..]).expect("its own topic").split_at(2);
        let id = [id[0], id[1]];
        let qos = (first >> 1) & 3;
        self.resent += usize::from(first & 0x08 != 0);
        if qos == 1 || self.unreleased.insert(id) {
            let payload = String::from_utf8(payload.to_vec()).expect("as published");
            *self.received.entry(payload).or_default() += 1;
        }
        let answer = if qos == 1 { PUBACK } else { PUBREC };
        wire.send(&packet(answer, &id));
    }

    /// A number below `end`.
    fn draw(&mut self, end: u64) -> usize {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.random >> 33) % end).expect("small")
    }
}
