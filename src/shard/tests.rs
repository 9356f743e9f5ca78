//! Tests of the shard, through its contract only: a world of shards without sockets, and clients that speak bytes.

mod bounds;
mod durable;
mod fan_out;
mod limits;
mod properties;
mod replays;
mod runs;
mod slow;

use super::{Accepted, Options, Output, Shard};
use crate::base::{ConnectionId, HashKey, Mono, Now, PacketId, QoS, ReasonCode, ShardId, Version, Wall};
use crate::codec::{
    self, Ack, AckKind, ConnAck, Connect, Delivery, Disconnect, Frame, Packet, Sender, SubscribeFilter, Will,
};
use std::num::NonZeroU32;

/// Shards that pass on everything at once, in order.
struct World {
    shards: Vec<Shard>,
    now: Now,
    /// By client: where it is, and what it has received; `None` once it was closed.
    clients: Vec<Client>,
    /// By shard, where shards have logs.
    disks: Vec<durable::Drive>,
}

struct Client {
    place: Option<(usize, ConnectionId)>,
    received: Vec<u8>,
    version: Version,
    closed: bool,
    /// The shard has asked not to read from it.
    paused: bool,
}

fn accepted(now: Now) -> Accepted {
    let local = "127.0.0.1:1883".parse().unwrap();
    Accepted { peer: "127.0.0.1:40000".parse().unwrap(), local, at: now.mono }
}

impl World {
    fn new(shards: u16, options: &Options) -> Self {
        let now = Now { mono: Mono(1_000_000), wall: Wall(1_700_000_000_000) };
        let key = HashKey { k0: 1, k1: 2 };
        let shards =
            (0..shards).map(|id| Shard::new(options.clone(), ShardId(id), shards, key, now)).collect();
        Self { shards, now, clients: Vec::new(), disks: Vec::new() }
    }

    /// A client connects to shard `entry`'s listener.
    fn open(&mut self, entry: usize, version: Version) -> usize {
        let id = self.shards[entry].handle_accepted(self.now, accepted(self.now)).unwrap();
        self.clients.push(Client {
            place: Some((entry, id)),
            received: Vec::new(),
            version,
            closed: false,
            paused: false,
        });
        self.clients.len() - 1
    }

    fn send(&mut self, client: usize, bytes: &[u8]) {
        if let Some((shard, id)) = self.clients[client].place {
            self.shards[shard].handle_bytes(self.now, id, bytes);
        }
        self.settle();
    }

    /// Polls everything until nothing moves.
    fn settle(&mut self) {
        self.poll_all(true);
    }

    /// The same, but timeouts that are due are not.
    fn settle_but_for_time(&mut self) {
        self.poll_all(false);
    }

    fn poll_all(&mut self, with_timeouts: bool) {
        loop {
            let mut moved = false;
            for shard in 0..self.shards.len() {
                moved |= self.work_disk(shard);
                while let Some(output) = self.shards[shard].poll_output() {
                    moved = true;
                    self.on_output(shard, output);
                }
                while let Some((id, buffer)) = self.shards[shard].poll_send() {
                    moved = true;
                    let bytes: Vec<u8> =
                        buffer.slices(0, usize::MAX).iter().flat_map(|s| s.to_vec()).collect();
                    if let Some(client) = self.client_at(shard, id) {
                        self.clients[client].received.extend(bytes);
                    }
                    self.shards[shard].handle_sent(self.now, id, buffer);
                }
                for to in (0..self.shards.len()).filter(|to| *to != shard) {
                    let to_id = ShardId(u16::try_from(to).unwrap());
                    let from_id = ShardId(u16::try_from(shard).unwrap());
                    while let Some(batch) = self.shards[shard].poll_peer(to_id) {
                        moved = true;
                        let empty = self.shards[to].handle_peer(self.now, from_id, batch);
                        self.shards[shard].handle_batch_returned(to_id, empty);
                    }
                }
                if with_timeouts && self.shards[shard].next_deadline().is_some_and(|at| at <= self.now.mono) {
                    self.shards[shard].handle_timeout(self.now);
                    moved |= self.shards[shard].next_deadline().is_none_or(|at| at > self.now.mono)
                        || self.shards[shard].residue().fan_outs > 0;
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn on_output(&mut self, shard: usize, output: Output) {
        match output {
            Output::Close { connection } => {
                if let Some(client) = self.client_at(shard, connection) {
                    self.clients[client].place = None;
                    self.clients[client].closed = true;
                }
            }
            Output::HandOver { connection, to, hand_over } => {
                let client = self.client_at(shard, connection).unwrap();
                let id = self.shards[to.index()].handle_handed_over(self.now, hand_over).unwrap();
                self.clients[client].place = Some((to.index(), id));
            }
            Output::Pause { connection } => self.set_paused(shard, connection, true),
            Output::Resume { connection } => self.set_paused(shard, connection, false),
            Output::Established { .. } => {}
        }
    }

    fn set_paused(&mut self, shard: usize, id: ConnectionId, paused: bool) {
        if let Some(client) = self.client_at(shard, id) {
            assert_ne!(self.clients[client].paused, paused, "Pause and Resume take turns");
            self.clients[client].paused = paused;
        }
    }

    fn client_at(&self, shard: usize, id: ConnectionId) -> Option<usize> {
        self.clients.iter().position(|client| client.place == Some((shard, id)))
    }

    fn advance(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(100) {
            self.now = Now { mono: self.now.mono.plus_ms(100), wall: Wall(self.now.wall.0 + 100) };
            for shard in &mut self.shards {
                shard.handle_timeout(self.now);
            }
            self.settle();
        }
    }

    fn drop_connection(&mut self, client: usize) {
        if let Some((shard, id)) = self.clients[client].place {
            self.shards[shard].handle_closed(self.now, id, None);
        }
        self.settle();
    }

    /// Everything a client has received, as text, one packet a line.
    fn take(&mut self, client: usize) -> Vec<String> {
        let bytes = std::mem::take(&mut self.clients[client].received);
        let version = self.clients[client].version;
        let mut rest = &bytes[..];
        let mut out = Vec::new();
        while let Ok(Frame::Complete(raw)) = codec::frame(rest, u32::MAX) {
            let size = raw.size;
            out.push(show(&codec::decode(raw, version, Sender::Server).unwrap()));
            rest = &rest[size..];
        }
        assert!(rest.is_empty(), "whole packets only");
        out
    }

    fn connect_with(&mut self, entry: usize, connect: &Connect<'_>) -> usize {
        let client = self.open(entry, connect.version);
        let mut bytes = Vec::new();
        connect.encode(&mut bytes);
        self.send(client, &bytes);
        client
    }

    fn connect(&mut self, entry: usize, version: Version, client_id: &str) -> usize {
        let client = self.connect_with(entry, &Connect::new(version, client_id, true, 0));
        assert!(self.take(client)[0].starts_with("CONNACK Success"), "{client_id} connects");
        client
    }

    fn subscribe(&mut self, client: usize, filter: &str, qos: QoS) -> Vec<String> {
        self.subscribe_with(client, SubscribeFilter::new(filter, qos), None)
    }

    fn subscribe_with(&mut self, client: usize, filter: SubscribeFilter<'_>, id: Option<u32>) -> Vec<String> {
        let mut bytes = Vec::new();
        let version = self.clients[client].version;
        let id = id.and_then(NonZeroU32::new);
        codec::encode_subscribe(packet_id(7), id, &[filter], version, &mut bytes);
        self.send(client, &bytes);
        self.take(client)
    }

    fn publish(&mut self, client: usize, topic: &str, payload: &str, qos: QoS, id: u16, retain: bool) {
        let delivery = Delivery { retain, ..delivery(topic, payload.as_bytes(), qos, id) };
        let bytes = encoded(&delivery, self.clients[client].version);
        self.send(client, &bytes);
    }

    fn ack(&mut self, client: usize, kind: AckKind, id: u16) {
        let mut bytes = Vec::new();
        codec::encode_ack(
            kind,
            packet_id(id),
            ReasonCode::Success,
            None,
            self.clients[client].version,
            &mut bytes,
        );
        self.send(client, &bytes);
    }
}

fn packet_id(id: u16) -> PacketId {
    PacketId::new(id).unwrap()
}

/// A PUBLISH with nothing special to it, which others are made of; `id` is left out with QoS 0.
fn delivery<'a>(topic: &'a str, payload: &'a [u8], qos: QoS, id: u16) -> Delivery<'a> {
    Delivery {
        dup: false,
        qos,
        retain: false,
        topic,
        topic_alias: None,
        packet_id: PacketId::new(id).filter(|_| qos > QoS::AtMostOnce),
        expiry: None,
        subscription_ids: &[],
        properties: &[],
        payload,
    }
}

fn encoded(delivery: &Delivery<'_>, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    delivery.encode(version, &mut bytes);
    bytes
}

/// A SUBSCRIBE with packet identifier 7.
fn subscribe_bytes<const N: usize>(filters: [&str; N], qos: QoS, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_subscribe(
        packet_id(7),
        None,
        &filters.map(|filter| SubscribeFilter::new(filter, qos)),
        version,
        &mut bytes,
    );
    bytes
}

fn show(packet: &Packet<'_>) -> String {
    let ack = |name: &str, ack: &Ack<'_>| format!("{name} {} {:?}", ack.packet_id, ack.reason);
    match packet {
        Packet::ConnAck(ConnAck { session_present, reason, .. }) => {
            format!("CONNACK {reason:?} {session_present}")
        }
        Packet::Publish(p) => {
            let ids: Vec<u32> = p.subscription_ids.iter().map(NonZeroU32::get).collect();
            let payload = String::from_utf8_lossy(p.payload);
            let flags = [(p.dup, " dup"), (p.retain, " retain")]
                .map(|(on, text)| if on { text } else { "" })
                .concat();
            let id = p.packet_id.map(|id| format!(" id={id}")).unwrap_or_default();
            let ids = if ids.is_empty() { String::new() } else { format!(" ids={ids:?}") };
            let expiry = p.expiry.map(|secs| format!(" expiry={secs}")).unwrap_or_default();
            format!("PUBLISH {} {payload} q{}{id}{flags}{ids}{expiry}", p.topic, p.qos.bits())
        }
        Packet::PubAck(a) => ack("PUBACK", a),
        Packet::PubRec(a) => ack("PUBREC", a),
        Packet::PubRel(a) => ack("PUBREL", a),
        Packet::PubComp(a) => ack("PUBCOMP", a),
        Packet::SubAck(s) => format!("SUBACK {} {:?}", s.packet_id, s.codes().collect::<Vec<_>>()),
        Packet::UnsubAck(s) => format!("UNSUBACK {} {:?}", s.packet_id, s.codes().collect::<Vec<_>>()),
        Packet::Disconnect(d) => format!("DISCONNECT {:?}", d.reason),
        other => format!("{other:?}"),
    }
}

/// Runs `test` on one shard and on four, whose listeners the clients use in turn.
fn on_worlds(test: impl Fn(&mut World, &dyn Fn(usize) -> usize)) {
    for shards in [1u16, 4] {
        let mut world = World::new(shards, &Options::default());
        test(&mut world, &|client| client % usize::from(shards));
    }
}

#[test]
fn a_publish_reaches_subscribers_at_every_qos_and_version() {
    on_worlds(|world, entry| {
        let versions = [Version::V310, Version::V311, Version::V5];
        for (n, version) in versions.into_iter().enumerate() {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                let name = format!("sub{n}{qos:?}");
                let subscriber = world.connect(entry(n), version, &name);
                let topic = format!("t/{n}/{}", qos.bits());
                let answer = world.subscribe(subscriber, &format!("t/{n}/+"), qos);
                assert!(answer[0].starts_with("SUBACK 7"), "{answer:?}");
                let publisher = world.connect(entry(n + 1), Version::V5, &format!("pub{n}{qos:?}"));
                world.publish(publisher, &topic, "hello", qos, 1, false);
                let bits = qos.bits();
                let id = if bits > 0 { " id=1" } else { "" };
                assert_eq!(world.take(subscriber), [format!("PUBLISH {topic} hello q{bits}{id}")]);
                match qos {
                    QoS::AtMostOnce => assert!(world.take(publisher).is_empty()),
                    QoS::AtLeastOnce => {
                        world.ack(subscriber, AckKind::PubAck, 1);
                        assert_eq!(world.take(publisher), ["PUBACK 1 Success"]);
                    }
                    QoS::ExactlyOnce => {
                        assert_eq!(world.take(publisher), ["PUBREC 1 Success"]);
                        world.ack(publisher, AckKind::PubRel, 1);
                        assert_eq!(world.take(publisher), ["PUBCOMP 1 Success"]);
                        world.ack(subscriber, AckKind::PubRec, 1);
                        assert_eq!(world.take(subscriber), ["PUBREL 1 Success"]);
                        world.ack(subscriber, AckKind::PubComp, 1);
                        assert!(world.take(subscriber).is_empty());
                    }
                }
                world.drop_connection(subscriber);
                world.drop_connection(publisher);
            }
        }
        assert_eq!(world.shards.iter().map(Shard::session_count).sum::<usize>(), 0);
        assert_eq!(world.shards.iter().map(Shard::interest_count).sum::<usize>(), 0);
    });
}

#[test]
fn a_session_keeps_messages_and_resends_with_dup_in_order() {
    on_worlds(|world, entry| {
        let mut connect = Connect::new(Version::V5, "keeper", false, 0);
        connect.session_expiry = Some(100);
        let client = world.connect_with(entry(0), &connect);
        assert_eq!(world.take(client), ["CONNACK Success false"]);
        world.subscribe(client, "a/#", QoS::ExactlyOnce);
        let publisher = world.connect(entry(1), Version::V311, "p");
        world.publish(publisher, "a/1", "one", QoS::AtLeastOnce, 1, false);
        world.publish(publisher, "a/2", "two", QoS::ExactlyOnce, 2, false);
        assert_eq!(world.take(client), ["PUBLISH a/1 one q1 id=1", "PUBLISH a/2 two q2 id=2"]);
        world.ack(client, AckKind::PubRec, 2);
        assert_eq!(world.take(client), ["PUBREL 2 Success"]);
        world.drop_connection(client);
        world.publish(publisher, "a/3", "three", QoS::AtLeastOnce, 3, false);
        world.publish(publisher, "a/4", "lost", QoS::AtMostOnce, 0, false);
        let again = world.connect_with(entry(3), &connect);
        let expected = [
            "CONNACK Success true",
            "PUBLISH a/1 one q1 id=1 dup",
            "PUBREL 2 Success",
            "PUBLISH a/3 three q1 id=3",
        ];
        assert_eq!(world.take(again), expected);
        world.ack(again, AckKind::PubAck, 1);
        world.ack(again, AckKind::PubComp, 2);
        world.ack(again, AckKind::PubAck, 3);
        world.drop_connection(again);
        world.advance(101_000);
        let fresh = world.connect_with(entry(2), &connect);
        assert_eq!(world.take(fresh), ["CONNACK Success false"]);
    });
}

#[test]
fn taking_over_ends_the_older_connection() {
    on_worlds(|world, entry| {
        let old = world.connect(entry(0), Version::V5, "same");
        let new = world.connect(entry(1), Version::V5, "same");
        assert_eq!(world.take(old), ["DISCONNECT SessionTakenOver"]);
        assert!(world.clients[old].closed);
        assert!(!world.clients[new].closed);
    });
}

#[test]
fn overlapping_subscriptions_give_one_copy_with_all_identifiers() {
    on_worlds(|world, entry| {
        let client = world.connect(entry(0), Version::V5, "c");
        world.subscribe_with(client, SubscribeFilter::new("a/b", QoS::AtMostOnce), Some(1));
        world.subscribe_with(client, SubscribeFilter::new("a/+", QoS::AtLeastOnce), Some(2));
        let publisher = world.connect(entry(1), Version::V5, "p");
        world.publish(publisher, "a/b", "x", QoS::ExactlyOnce, 1, false);
        let got = world.take(client);
        assert!(
            got == ["PUBLISH a/b x q1 id=1 ids=[1, 2]"] || got == ["PUBLISH a/b x q1 id=1 ids=[2, 1]"],
            "{got:?}"
        );
    });
}

#[test]
fn retained_messages_come_to_wildcards_and_are_cleared() {
    on_worlds(|world, entry| {
        let publisher = world.connect(entry(0), Version::V5, "p");
        for n in 0..200 {
            world.publish(publisher, &format!("r/{n}"), "v", QoS::AtLeastOnce, 1, true);
        }
        world.publish(publisher, "r/7", "", QoS::AtMostOnce, 0, true);
        let client = world.connect(entry(1), Version::V311, "c");
        let got = world.subscribe(client, "r/#", QoS::AtMostOnce);
        assert_eq!(got.len(), 200, "SUBACK and 199 messages");
        assert!(got[1..].iter().all(|line| line.ends_with("v q0 retain")), "{:?}", &got[..3]);
        let exact = world.subscribe(client, "r/9", QoS::AtMostOnce);
        assert_eq!(exact, ["SUBACK 7 [Success]", "PUBLISH r/9 v q0 retain"]);
        world.drop_connection(publisher);
        world.drop_connection(client);
        for shard in &world.shards {
            assert_eq!(shard.residue(), super::view::Residue::default());
        }
    });
}

#[test]
fn a_will_is_published_when_the_connection_is_lost_and_not_on_disconnect() {
    on_worlds(|world, entry| {
        let watcher = world.connect(entry(0), Version::V5, "w");
        world.subscribe(watcher, "will/+", QoS::AtLeastOnce);
        let will = |delay| Will {
            qos: QoS::AtLeastOnce,
            retain: true,
            topic: "will/x",
            payload: b"gone",
            delay,
            expiry: None,
            properties: codec::MessageProperties::EMPTY,
        };
        let mut connect = Connect::new(Version::V5, "x", true, 0);
        connect.will = Some(will(0));
        let client = world.connect_with(entry(1), &connect);
        world.drop_connection(client);
        assert_eq!(world.take(watcher), ["PUBLISH will/x gone q1 id=1"]);
        let client = world.connect_with(entry(1), &connect);
        let mut bytes = Vec::new();
        Disconnect::new(ReasonCode::Success).encode(Version::V5, &mut bytes);
        world.send(client, &bytes);
        assert!(world.take(watcher).is_empty());
        // Delayed: cancelled by coming back, else published when the delay is over.
        connect.will = Some(will(10));
        connect.session_expiry = Some(60);
        connect.clean_start = false;
        let client = world.connect_with(entry(1), &connect);
        world.drop_connection(client);
        world.advance(5_000);
        assert!(world.take(watcher).is_empty());
        let client = world.connect_with(entry(1), &connect);
        world.advance(20_000);
        assert!(world.take(watcher).is_empty());
        world.drop_connection(client);
        world.advance(11_000);
        assert_eq!(world.take(watcher), ["PUBLISH will/x gone q1 id=2"]);
        let late = world.connect(entry(2), Version::V5, "late");
        assert_eq!(world.subscribe(late, "will/x", QoS::AtMostOnce)[1], "PUBLISH will/x gone q0 retain");
    });
}

#[test]
fn a_shared_subscription_takes_turns_and_passes_on_what_was_not_acknowledged() {
    on_worlds(|world, entry| {
        let a = world.connect(entry(0), Version::V5, "a");
        let b = world.connect(entry(1), Version::V5, "b");
        for client in [a, b] {
            assert_eq!(world.subscribe(client, "$share/g/s/#", QoS::AtLeastOnce), ["SUBACK 7 [GrantedQos1]"]);
        }
        let publisher = world.connect(entry(2), Version::V5, "p");
        for n in 0..4 {
            world.publish(publisher, "s/1", &format!("m{n}"), QoS::AtLeastOnce, 1, false);
        }
        let (got_a, got_b) = (world.take(a), world.take(b));
        assert_eq!((got_a.len(), got_b.len()), (2, 2), "{got_a:?} {got_b:?}");
        world.drop_connection(a);
        let passed_on = world.take(b);
        assert_eq!(passed_on.len(), 2, "{passed_on:?}");
        world.drop_connection(b);
        assert_eq!(world.shards.iter().map(Shard::interest_count).sum::<usize>(), 0);
    });
}

#[test]
fn bytes_may_come_one_at_a_time() {
    on_worlds(|world, entry| {
        let client = world.open(entry(1), Version::V311);
        let mut bytes = Vec::new();
        Connect::new(Version::V311, "slow", true, 0).encode(&mut bytes);
        codec::encode_pingreq(&mut bytes);
        for byte in bytes {
            world.send(client, &[byte]);
        }
        assert_eq!(world.take(client), ["CONNACK Success false", "PingResp"]);
    });
}

#[test]
fn keep_alive_and_login_time_out() {
    on_worlds(|world, entry| {
        let silent = world.open(entry(0), Version::V311);
        let client = world.connect_with(entry(1), &Connect::new(Version::V5, "k", true, 10));
        world.take(client);
        world.advance(9_900);
        assert!(!world.clients[silent].closed);
        world.advance(300);
        assert!(world.clients[silent].closed);
        world.advance(4_500);
        assert!(!world.clients[client].closed);
        world.advance(500);
        assert_eq!(world.take(client), ["DISCONNECT KeepAliveTimeout"]);
        assert!(world.clients[client].closed);
    });
}

#[test]
fn a_wide_fan_out_reaches_everybody_in_order() {
    let mut world = World::new(1, &Options::default());
    let clients: Vec<usize> = (0..17_000)
        .map(|n| {
            let client = world.connect(0, Version::V311, &format!("c{n}"));
            world.subscribe(client, "wide", QoS::AtLeastOnce);
            client
        })
        .collect();
    let publisher = world.connect(0, Version::V5, "p");
    world.publish(publisher, "wide", "1", QoS::AtLeastOnce, 1, false);
    world.publish(publisher, "wide", "2", QoS::AtLeastOnce, 2, false);
    assert_eq!(world.take(publisher), ["PUBACK 1 Success", "PUBACK 2 Success"]);
    for client in clients {
        assert_eq!(world.take(client), ["PUBLISH wide 1 q1 id=1", "PUBLISH wide 2 q1 id=2"]);
    }
}

#[test]
fn the_hot_structs_grow_by_decision_only() {
    use super::connection::Connection;
    use super::sessions::Session;
    assert_eq!(size_of::<Connection>(), 72);
    assert_eq!(size_of::<Session>(), 104);
    assert_eq!(size_of::<crate::route::Subscription>(), 8);
}

#[test]
fn a_slow_subscriber_loses_qos_0_and_holds_up_nobody() {
    let mut options = Options::default();
    options.queue.qos0_bytes_max = 10_000;
    options.queue.qos0_messages_max = 10;
    let mut world = World::new(1, &options);
    let slow = world.connect(0, Version::V311, "slow");
    world.subscribe(slow, "t", QoS::AtMostOnce);
    let fast = world.connect(0, Version::V311, "fast");
    world.subscribe(fast, "t", QoS::AtMostOnce);
    let publisher = world.connect(0, Version::V311, "p");
    // The slow client's socket takes one buffer and then nothing.
    let (_, slow_id) = world.clients[slow].place.unwrap();
    let mut stuck = None;
    let packet = "x".repeat(1000);
    for _ in 0..100 {
        let place = world.clients[publisher].place.unwrap();
        let bytes = encoded(&delivery("t", packet.as_bytes(), QoS::AtMostOnce, 0), Version::V311);
        world.shards[0].handle_bytes(world.now, place.1, &bytes);
        while let Some((id, buffer)) = world.shards[0].poll_send() {
            if id == slow_id {
                assert!(stuck.replace(buffer).is_none(), "one send in flight");
            } else {
                let client = world.client_at(0, id).unwrap();
                world.clients[client].received.extend(buffer.contiguous().unwrap());
                world.shards[0].handle_sent(world.now, id, buffer);
            }
        }
    }
    assert_eq!(world.take(fast).len(), 100);
    let dropped = world.shards[0].counters().dropped_qos0;
    assert_eq!(dropped, 100 - 1 - 10, "one on its way, ten waiting");
    world.shards[0].handle_sent(world.now, slow_id, stuck.unwrap());
    world.settle();
    assert_eq!(world.take(slow).len(), 10);
}

#[test]
fn nothing_retained_comes_after_unsuback() {
    on_worlds(|world, entry| {
        let publisher = world.connect(entry(0), Version::V5, "p");
        world.publish(publisher, "r/1", "v", QoS::AtLeastOnce, 1, true);
        for n in 0..8 {
            let client = world.connect(entry(n), Version::V311, &format!("c{n}"));
            let mut bytes = Vec::new();
            let filter = SubscribeFilter::new("r/#", QoS::AtMostOnce);
            codec::encode_subscribe(packet_id(1), None, &[filter], Version::V311, &mut bytes);
            codec::encode_unsubscribe(packet_id(2), &["r/#"], Version::V311, &mut bytes);
            world.send(client, &bytes);
            let got = world.take(client);
            let unsuback = got.iter().position(|line| line.starts_with("UNSUBACK 2")).unwrap();
            assert!(got[unsuback..].iter().all(|line| !line.starts_with("PUBLISH")), "{got:?}");
        }
    });
}

#[test]
fn a_member_gets_nothing_after_unsuback() {
    on_worlds(|world, entry| {
        let publisher = world.connect(entry(0), Version::V5, "p");
        for n in 0..16 {
            let client = world.connect(entry(n), Version::V311, &format!("c{n}"));
            let filter = format!("$share/g{n}/s/#");
            world.subscribe(client, &filter, QoS::AtLeastOnce);
            let mut bytes = Vec::new();
            codec::encode_unsubscribe(packet_id(2), &[&filter], Version::V311, &mut bytes);
            // The publish is on its way to the group's home when the client leaves.
            let (shard, id) = world.clients[publisher].place.unwrap();
            let publish = publish_bytes("s/1", "x");
            world.shards[shard].handle_bytes(world.now, id, &publish);
            world.send(client, &bytes);
            let got = world.take(client);
            let unsuback = got.iter().position(|line| line.starts_with("UNSUBACK 2")).unwrap();
            assert!(got[unsuback..].iter().all(|line| !line.starts_with("PUBLISH")), "{n}: {got:?}");
            world.drop_connection(client);
        }
        assert_eq!(world.shards.iter().map(Shard::interest_count).sum::<usize>(), 0);
    });
}

fn publish_bytes(topic: &str, payload: &str) -> Vec<u8> {
    encoded(&delivery(topic, payload.as_bytes(), QoS::AtMostOnce, 0), Version::V5)
}

#[test]
fn qos_0_that_waited_for_the_client_is_not_overtaken() {
    let options = Options {
        queue: crate::queue::Options { queue_qos0_offline: true, ..crate::queue::Options::default() },
        ..Options::default()
    };
    let mut world = World::new(1, &options);
    let mut connect = Connect::new(Version::V5, "c", false, 0);
    connect.session_expiry = Some(100);
    connect.receive_maximum = std::num::NonZeroU16::new(1);
    let client = world.connect_with(0, &connect);
    world.subscribe(client, "t", QoS::AtLeastOnce);
    world.drop_connection(client);
    let publisher = world.connect(0, Version::V5, "p");
    world.publish(publisher, "t", "a", QoS::AtLeastOnce, 1, false);
    world.publish(publisher, "t", "b", QoS::AtMostOnce, 0, false);
    let client = world.connect_with(0, &connect);
    world.publish(publisher, "t", "c", QoS::AtMostOnce, 0, false);
    assert_eq!(world.take(client), ["CONNACK Success true", "PUBLISH t a q1 id=1"]);
    world.ack(client, AckKind::PubAck, 1);
    assert_eq!(world.take(client), ["PUBLISH t b q0", "PUBLISH t c q0"]);
    world.publish(publisher, "t", "d", QoS::AtMostOnce, 0, false);
    assert_eq!(world.take(client), ["PUBLISH t d q0"]);
}
