//! Every bound that clients meet: as much as it allows, one more, and the line in the log that names its key. More about those of
//! memory, sockets and other clients is in `limits` and `slow`.

use super::{World, delivery, encoded};
use crate::base::{QoS, Version};
use crate::codec::{AckKind, Connect};
use crate::queue::Overflow;
use crate::shard::Options;
use std::fmt::{Debug, Write as _};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};

/// One bound: the key that sets it, what a client sees that goes as far as it allows (`false`) or one further, and what it is to
/// see of the last step.
struct Bound {
    key: &'static str,
    go: fn(bool) -> Vec<String>,
    at: &'static [&'static str],
    past: &'static [&'static str],
}

const BOUNDS: &[Bound] = &[
    Bound {
        key: "mqtt.max_packet_size_unauthenticated",
        go: connect_size,
        at: &["CONNACK Success false"],
        past: &["closed"],
    },
    Bound {
        key: "mqtt.max_packet_size_authenticated",
        go: publish_size,
        at: &["PUBACK 1 NoMatchingSubscribers"],
        past: &["DISCONNECT PacketTooLarge", "closed"],
    },
    Bound {
        key: "quelea.mqtt.client_id_size_max",
        go: client_id_size,
        at: &["CONNACK Success false"],
        past: &["CONNACK ClientIdentifierNotValid false", "closed"],
    },
    Bound {
        key: "quelea.mqtt.subscriptions_max",
        go: subscriptions,
        at: &["SUBACK 7 [Success]"],
        past: &["SUBACK 7 [QuotaExceeded]"],
    },
    Bound {
        key: "quelea.mqtt.receive_maximum",
        go: receive_maximum,
        at: &["PUBREC 2 NoMatchingSubscribers"],
        past: &["DISCONNECT ReceiveMaximumExceeded", "closed"],
    },
    Bound {
        key: "mqtt.topic_alias_maximum",
        go: topic_alias,
        at: &["PUBACK 1 NoMatchingSubscribers"],
        past: &["DISCONNECT TopicAliasInvalid", "closed"],
    },
    Bound { key: "mqtt.login_timeout", go: login, at: &["CONNACK Success false"], past: &["closed"] },
    Bound {
        key: "mqtt.max_connections",
        go: connections,
        at: &["CONNACK Success false"],
        past: &["CONNACK QuotaExceeded false", "closed"],
    },
    Bound {
        key: "mqtt.retained_message_store.max_messages",
        go: retained_messages,
        at: &["PUBACK 1 NoMatchingSubscribers"],
        past: &["PUBACK 1 QuotaExceeded"],
    },
    Bound {
        key: "max_size_bytes",
        go: retained_bytes,
        at: &["PUBACK 1 NoMatchingSubscribers"],
        past: &["PUBACK 1 QuotaExceeded"],
    },
    Bound {
        key: "quelea.session.queue.max_messages",
        go: |past| queue(past, Overflow::DropHead, false),
        at: &["PUBLISH t 1 q1 id=1", "PUBLISH t 2 q1 id=2"],
        past: &["PUBLISH t 2 q1 id=1", "PUBLISH t 3 q1 id=2"],
    },
    Bound {
        key: "max_bytes",
        go: |past| queue(past, Overflow::DropHead, true),
        at: &["PUBLISH t 1 q1 id=1", "PUBLISH t 2 q1 id=2"],
        past: &["PUBLISH t 2 q1 id=1", "PUBLISH t 3 q1 id=2"],
    },
    Bound {
        key: "quelea.session.queue.max_messages",
        go: |past| queue(past, Overflow::RejectPublish, false),
        at: &["PUBLISH t 1 q1 id=1", "PUBLISH t 2 q1 id=2"],
        past: &["PUBLISH t 1 q1 id=1", "PUBLISH t 2 q1 id=2"],
    },
    Bound {
        key: "a client is refused: the process is over quelea.memory.max_bytes",
        go: |past| client_while(|world| world.shards[0].handle_pressure(world.now, past)),
        at: &["CONNACK Success false"],
        past: &["CONNACK QuotaExceeded false", "closed"],
    },
    Bound {
        key: "a subscription is refused: the process is over quelea.memory.max_bytes",
        go: subscription_while_short,
        at: &["SUBACK 7 [Success]"],
        past: &["SUBACK 7 [QuotaExceeded]"],
    },
    Bound {
        key: "raise the descriptor limit",
        go: |past| client_while(|world| world.shards[0].handle_sockets_max(Some(if past { 0 } else { 1 }))),
        at: &["CONNACK Success false"],
        past: &["CONNACK QuotaExceeded false", "closed"],
    },
    Bound {
        key: "the disk of quelea.data_dir does not keep up",
        go: disk_backlog,
        at: &["is read", "PUBACK 1 Success", "PUBACK 2 Success", "is read"],
        past: &["waits", "PUBACK 1 Success", "PUBACK 2 Success", "is read"],
    },
    Bound { key: "quelea.qos0.max_bytes", go: qos0, at: &["3 of 3"], past: &["3 of 4"] },
];

#[test]
fn each_bound_allows_what_it_says_and_the_log_names_it_one_further() {
    for bound in BOUNDS {
        for (past, expected) in [(false, bound.at), (true, bound.past)] {
            let named = Arc::new(AtomicUsize::new(0));
            let log = Log { key: bound.key, named: Arc::clone(&named) };
            let got = tracing::subscriber::with_default(log, || (bound.go)(past));
            assert_eq!(got, expected, "{}, past {past}", bound.key);
            let named = named.load(Ordering::Relaxed);
            assert_eq!(named, usize::from(past), "lines that name {}", bound.key);
        }
    }
}

/// Who has said nothing yet counts too, beyond `mqtt.max_connections`; the runtime accepts no more, and says why.
#[test]
fn strangers_are_taken_up_to_their_bound() {
    let mut options = Options::default();
    assert_eq!(World::new(1, &options).shards[0].room_for_strangers(), usize::MAX);
    options.process.connections_max = Some(3);
    // Of three connections for two shards, each may have two.
    for (shards, room) in [(1, 1027), (2, 1026)] {
        let mut world = World::new(shards, &options);
        assert_eq!(world.shards[0].room_for_strangers(), room);
        let clients: Vec<_> = (0..room).map(|_| world.open(0, Version::V5)).collect();
        assert_eq!(world.shards[0].room_for_strangers(), 0);
        world.drop_connection(clients[0]);
        assert_eq!(world.shards[0].room_for_strangers(), 1);
    }
}

/// The smaller value is in force, and MQTT 5 clients are told which: nothing is refused.
#[test]
fn where_the_smaller_value_is_in_force() {
    let mut options = Options::default();
    options.session.keep_alive_max_secs = 10;
    options.session.session_expiry_max_secs = Some(20);
    options.session.prefetch = 2;
    for more in [0, 1] {
        let mut world = World::new(1, &options);
        let mut connect = Connect::new(Version::V5, "c", true, 10 + more);
        connect.session_expiry = Some(20 + u32::from(more));
        connect.receive_maximum = NonZeroU16::new(2 + more);
        let client = world.connect_with(0, &connect);
        let connack = world.clients[client].received.clone();
        // Server Keep Alive is property 0x13, Session Expiry Interval 0x11.
        assert_eq!(connack.windows(3).any(|bytes| bytes == [0x13, 0, 10]), more == 1, "{connack:x?}");
        assert_eq!(connack.windows(5).any(|bytes| bytes == [0x11, 0, 0, 0, 20]), more == 1, "{connack:x?}");
        world.take(client);
        world.subscribe(client, "t", QoS::AtLeastOnce);
        let publisher = world.connect_with(0, &Connect::new(Version::V5, "p", true, 10));
        for n in 1..=3 {
            world.publish(publisher, "t", &n.to_string(), QoS::AtLeastOnce, n, false);
        }
        assert_eq!(world.take(client), ["PUBLISH t 1 q1 id=1", "PUBLISH t 2 q1 id=2"], "two in flight");
        // Silent for one and a half times its keep alive, then away for as long as its session may last.
        world.advance(14_000);
        assert!(!world.clients[client].closed);
        world.advance(2_000);
        assert_eq!(world.take(client), ["DISCONNECT KeepAliveTimeout"]);
        world.advance(18_000);
        assert_eq!(world.shards[0].session_views().filter(|view| view.client_id == "c").count(), 1);
        world.advance(3_000);
        assert_eq!(world.shards[0].session_views().filter(|view| view.client_id == "c").count(), 0);
    }
}

fn seen(world: &mut World, client: usize) -> Vec<String> {
    let mut seen = world.take(client);
    seen.extend(world.clients[client].closed.then(|| "closed".to_owned()));
    seen
}

fn publish(topic: &str, payload: &[u8], qos: QoS, id: u16) -> Vec<u8> {
    encoded(&delivery(topic, payload, qos, id), Version::V5)
}

fn connect_size(past: bool) -> Vec<String> {
    let connect = |size: usize| {
        let mut bytes = Vec::new();
        Connect::new(Version::V5, &"c".repeat(size), true, 0).encode(&mut bytes);
        bytes
    };
    let mut options = Options::default();
    options.session.packet_size_max_unauthenticated = u32::try_from(connect(50).len()).unwrap();
    let mut world = World::new(1, &options);
    let client = world.open(0, Version::V5);
    world.send(client, &connect(50 + usize::from(past)));
    seen(&mut world, client)
}

fn publish_size(past: bool) -> Vec<String> {
    let mut options = Options::default();
    options.session.packet_size_max =
        u32::try_from(publish("t", &[0; 50], QoS::AtLeastOnce, 1).len()).unwrap();
    let mut world = World::new(1, &options);
    let client = world.connect(0, Version::V5, "c");
    world.send(client, &publish("t", &vec![0; 50 + usize::from(past)], QoS::AtLeastOnce, 1));
    seen(&mut world, client)
}

fn client_id_size(past: bool) -> Vec<String> {
    let mut options = Options::default();
    options.session.client_id_size_max = 30;
    let mut world = World::new(1, &options);
    let id = "c".repeat(30 + usize::from(past));
    let client = world.connect_with(0, &Connect::new(Version::V5, &id, true, 0));
    seen(&mut world, client)
}

fn subscriptions(past: bool) -> Vec<String> {
    let mut options = Options::default();
    options.session.subscriptions_max = if past { 1 } else { 2 };
    let mut world = World::new(1, &options);
    let client = world.connect(0, Version::V5, "c");
    world.subscribe(client, "1", QoS::AtMostOnce);
    world.subscribe(client, "2", QoS::AtMostOnce)
}

fn receive_maximum(past: bool) -> Vec<String> {
    let mut options = Options::default();
    options.session.receive_maximum = if past { 1 } else { 2 };
    let mut world = World::new(1, &options);
    let client = world.connect(0, Version::V5, "c");
    world.send(client, &publish("t", b"", QoS::ExactlyOnce, 1));
    world.take(client);
    world.send(client, &publish("t", b"", QoS::ExactlyOnce, 2));
    seen(&mut world, client)
}

fn topic_alias(past: bool) -> Vec<String> {
    let mut options = Options::default();
    options.session.topic_alias_maximum = 3;
    let mut world = World::new(1, &options);
    let client = world.connect(0, Version::V5, "c");
    // PUBLISH to `t` with QoS 1 and Topic Alias 3 or 4.
    world.send(client, &[0x32, 9, 0, 1, b't', 0, 1, 3, 0x23, 0, 3 + u8::from(past)]);
    seen(&mut world, client)
}

fn login(past: bool) -> Vec<String> {
    let mut options = Options::default();
    options.session.login_timeout_ms = 5_000;
    let mut world = World::new(1, &options);
    let client = world.open(0, Version::V5);
    world.advance(if past { 5_500 } else { 4_900 });
    let mut bytes = Vec::new();
    Connect::new(Version::V5, "c", true, 0).encode(&mut bytes);
    world.send(client, &bytes);
    seen(&mut world, client)
}

fn connections(past: bool) -> Vec<String> {
    let mut options = Options::default();
    options.process.connections_max = Some(if past { 1 } else { 2 });
    let mut world = World::new(1, &options);
    world.connect(0, Version::V5, "1");
    let client = world.connect_with(0, &Connect::new(Version::V5, "2", true, 0));
    seen(&mut world, client)
}

fn client_while(so: impl Fn(&mut World)) -> Vec<String> {
    let mut world = World::new(1, &Options::default());
    so(&mut world);
    let client = world.connect_with(0, &Connect::new(Version::V5, "c", true, 0));
    seen(&mut world, client)
}

fn subscription_while_short(past: bool) -> Vec<String> {
    let mut world = World::new(1, &Options::default());
    let client = world.connect(0, Version::V5, "c");
    world.shards[0].handle_pressure(world.now, past);
    world.subscribe(client, "t", QoS::AtMostOnce)
}

fn retained_messages(past: bool) -> Vec<String> {
    let mut options = Options::default();
    options.route.retained_messages_max = Some(if past { 1 } else { 2 });
    retain_two(&options)
}

fn retained_bytes(past: bool) -> Vec<String> {
    let mut options = Options::default();
    // Two topics of one byte, two payloads of ten.
    options.route.retained_bytes_max = Some(22 - u64::from(past));
    retain_two(&options)
}

fn retain_two(options: &Options) -> Vec<String> {
    let mut world = World::new(1, options);
    let client = world.connect(0, Version::V5, "c");
    world.publish(client, "1", "1234567890", QoS::AtLeastOnce, 1, true);
    world.take(client);
    world.publish(client, "2", "1234567890", QoS::AtLeastOnce, 1, true);
    seen(&mut world, client)
}

/// A message is on its way to the disk and another waits, together as large as what may wait there or one byte larger; then the
/// disk takes them.
fn disk_backlog(past: bool) -> Vec<String> {
    let publish = |max: usize| {
        let mut options = Options::default();
        options.budgets.disk_backlog_bytes_max = max;
        let mut world = World::durable(1, &options);
        let (subscriber, _) = world.connect_durable(0, "s", true);
        world.subscribe(subscriber, "t", QoS::AtLeastOnce);
        let publisher = world.connect(0, Version::V5, "p");
        world.hold_disks(true);
        world.publish(publisher, "t", "1", QoS::AtLeastOnce, 1, false);
        world.publish(publisher, "t", "2", QoS::AtLeastOnce, 2, false);
        (world, publisher)
    };
    let size = publish(usize::MAX).0.shards[0].log().expect("there is one").backlog();
    let (mut world, publisher) = publish(size - usize::from(past));
    let read = |world: &World| if world.clients[publisher].paused { "waits" } else { "is read" }.to_owned();
    let mut seen = vec![read(&world)];
    world.hold_disks(false);
    seen.extend(world.take(publisher));
    seen.push(read(&world));
    seen
}

/// Two messages, or three, wait for a client that is away, where there is room for two.
fn queue(past: bool, overflow: Overflow, in_bytes: bool) -> Vec<String> {
    let mut options = Options::default();
    options.queue.overflow = overflow;
    let mut connect = Connect::new(Version::V5, "c", false, 0);
    connect.session_expiry = Some(1000);
    if in_bytes {
        // A topic and a payload of one byte each.
        options.queue.session_bytes_max = Some(4);
    } else {
        options.queue.session_messages_max = Some(2);
    }
    let mut world = World::new(1, &options);
    let client = world.connect_with(0, &connect);
    world.subscribe(client, "t", QoS::AtLeastOnce);
    world.drop_connection(client);
    let publisher = world.connect(0, Version::V5, "p");
    for n in 1..=2 + u16::from(past) {
        world.publish(publisher, "t", &n.to_string(), QoS::AtLeastOnce, n, false);
        let refused = n > 2 && overflow == Overflow::RejectPublish;
        let answer = if refused { "QuotaExceeded" } else { "Success" };
        assert_eq!(world.take(publisher), [format!("PUBACK {n} {answer}")]);
    }
    let client = world.connect_with(0, &connect);
    let mut got = world.take(client);
    assert_eq!(got.remove(0), "CONNACK Success true");
    world.ack(client, AckKind::PubAck, 1);
    got
}

/// One message is on its way and two wait behind it, where there is room for two; a further one finds none.
fn qos0(past: bool) -> Vec<String> {
    let mut options = Options::default();
    options.queue.qos0_messages_max = 2;
    options.queue.qos0_bytes_max = 20;
    let mut world = World::new(1, &options);
    let publisher = world.connect(0, Version::V5, "p");
    let slow = world.connect(0, Version::V5, "slow");
    world.subscribe(slow, "t", QoS::AtMostOnce);
    let (_, from) = world.clients[publisher].place.unwrap();
    let count = 3 + u64::from(past);
    let mut on_its_way = None;
    for _ in 0..count {
        world.shards[0].handle_bytes(world.now, from, &publish("t", &[0; 10], QoS::AtMostOnce, 0));
        on_its_way = on_its_way.or_else(|| world.shards[0].poll_send());
    }
    assert!(on_its_way.is_some());
    vec![format!("{} of {count}", count - world.shards[0].counters().dropped_qos0)]
}

/// Counts the lines that name a key.
struct Log {
    key: &'static str,
    named: Arc<AtomicUsize>,
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            write!(self.0, "{value:?}").unwrap();
        }
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.named.fetch_add(usize::from(line.0.contains(self.key)), Ordering::Relaxed);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
