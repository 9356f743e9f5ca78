//! Target `session`: operations of clients, sockets, mailboxes and the clock, through whole shards.
//!
//! Besides that nothing panics: every client gets what `peer` says; everything comes to rest; who is connected in the end has
//! its answers; and when all are gone and time has passed, the shards hold nothing.

use crate::input::Input;
use crate::peer::{Step, Terms};
use crate::world::World;
use quelea::base::{PacketId, QoS, ReasonCode, Version};
use quelea::codec::{
    self, AckKind, Auth, Connect, Delivery, Disconnect, MessageProperties, RetainHandling, SubscribeFilter,
    Will, properties,
};
use quelea::queue::options::Overflow;
use quelea::shard::Options;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

const VERSIONS: [Version; 3] = [Version::V5, Version::V311, Version::V310];
const CLIENT_IDS: [&str; 4] = ["a", "b", "c", ""];
const TOPICS: [&str; 8] =
    ["a", "a/b", "b", "a//b", "$SYS/x", "a/b/c/d", "/", "b/long/topic/name/with/levels"];
const FILTERS: [&str; 12] = [
    "a",
    "a/b",
    "#",
    "+",
    "a/+",
    "+/b/#",
    "$share/g/a/#",
    "$share/g/#",
    "$share/h/a",
    "$SYS/#",
    "/",
    "$share/",
];
const SOCKETS_MAX: usize = 40;

/// Byte 0: shards, options, how it ends. The rest are operations.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.byte();
    let shards = u16::from(choice % 3) + 1;
    let mut world = World::new(shards, &options(choice));
    while !input.is_empty() {
        step(&mut world, &mut input);
    }
    world.heal();
    for socket in 0..world.sockets.len() {
        if world.is_read(socket) && world.sockets[socket].peer.is_connected() {
            let before = world.sockets[socket].peer.pings;
            world.sockets[socket].peer.pings = before + 1;
            let mut bytes = Vec::new();
            codec::encode_pingreq(&mut bytes);
            world.send(socket, &bytes);
        }
    }
    world.settle();
    for socket in 0..world.sockets.len() {
        if world.is_read(socket) {
            world.sockets[socket].peer.check_answered();
        }
    }
    end(&mut world, choice & 0x80 != 0);
}

fn end(world: &mut World, by_shutdown: bool) {
    if by_shutdown {
        world.shut_down();
        world.settle();
    }
    for socket in 0..world.sockets.len() {
        world.drop_socket(socket);
    }
    world.settle();
    // Sessions end after a day at the latest, wills at most a day after them.
    for _ in 0..12 {
        world.advance(Duration::from_secs(6 * 3600));
        world.settle();
    }
    world.check_idle();
    for shard in world.shards.iter().filter(|_| !by_shutdown) {
        assert_eq!(shard.session_count(), 0, "{:?}", shard.session_views().collect::<Vec<_>>());
        assert_eq!((shard.subscription_count(), shard.interest_count()), (0, 0));
    }
}

fn options(choice: u8) -> Options {
    let mut options = Options::default();
    if choice & 0x08 != 0 {
        options.session.receive_maximum = 3;
        options.session.prefetch = 2;
        options.session.topic_alias_maximum = 2;
        options.session.subscriptions_max = 4;
        options.route.retained_messages_max = Some(4);
    }
    if choice & 0x10 != 0 {
        options.queue.qos0_messages_max = 1;
        options.queue.qos0_bytes_max = 64;
        options.queue.queue_qos0_offline = true;
    }
    if choice & 0x20 != 0 {
        options.queue.session_messages_max = Some(2);
        options.queue.overflow =
            if choice & 0x40 == 0 { Overflow::DropHead } else { Overflow::RejectPublish };
    }
    options
}

fn step(world: &mut World, input: &mut Input<'_>) {
    let operation = input.byte();
    if world.sockets.is_empty() || operation.is_multiple_of(16) {
        if world.sockets.len() < SOCKETS_MAX {
            world.open(usize::from(operation >> 4) % world.shards.len());
        }
        return;
    }
    let socket = usize::from(operation >> 4) % world.sockets.len();
    match operation % 16 {
        1 => connect(world, socket, input),
        2 | 3 => publish(world, socket, input),
        4 => subscribe(world, socket, input),
        5 => unsubscribe(world, socket, input),
        6 => settle_delivery(world, socket, input),
        7 => acknowledge_anything(world, socket, input),
        8 => disconnect(world, socket, input),
        9 => raw(world, socket, input),
        10 => world.drop_socket(socket),
        11 => {
            let stalls = input.byte() & 1 != 0;
            world.stall(socket, stalls);
        }
        12 => {
            let by = input.pick(&[1, 64, 1_000, 9_999, 60_000, 3_600_000, 100_000_000]);
            world.advance(Duration::from_millis(by));
        }
        13 => {
            world.mail(usize::from(input.byte()));
        }
        14 => world.settle(),
        _ => rare(world, socket, input),
    }
}

fn rare(world: &mut World, socket: usize, input: &mut Input<'_>) {
    let mut bytes = Vec::new();
    match input.byte() % 8 {
        0 => world.pressure(true),
        1 => world.pressure(false),
        2 => world.fails_hand_over = true,
        3 => world.shut_down(),
        4 => {
            let mut auth = Auth::new(ReasonCode::ReAuthenticate);
            auth.method = Some("method");
            auth.encode(&mut bytes);
        }
        _ => {
            codec::encode_pingreq(&mut bytes);
            world.sockets[socket].peer.pings += 1;
        }
    }
    if !bytes.is_empty() {
        world.send(socket, &bytes);
    }
}

fn connect(world: &mut World, socket: usize, input: &mut Input<'_>) {
    let flags = input.byte();
    let more = input.byte();
    let version = VERSIONS[usize::from(flags % 3)];
    let client_id = CLIENT_IDS[usize::from(flags >> 2 & 3)];
    let keep_alive = if flags & 0x10 == 0 { 0 } else { 10 };
    let mut connect = Connect::new(version, client_id, flags & 0x20 != 0, keep_alive);
    let v5 = version.is_v5();
    if flags & 0x40 != 0 {
        let expiry = v5.then_some(90);
        connect.will = Some(Will {
            qos: QoS::from_bits(more % 3).expect("below 3"),
            retain: more & 0x04 != 0,
            topic: input.pick(&TOPICS),
            payload: input.take(usize::from(more & 0x08)),
            delay: if v5 { input.pick(&[0, 1, 100, 1_000_000]) } else { 0 },
            expiry,
            properties: MessageProperties::EMPTY,
        });
    }
    if v5 {
        connect.session_expiry = [None, Some(1), Some(100), Some(u32::MAX)][usize::from(more >> 4 & 3)];
        connect.receive_maximum = if more & 0x40 == 0 { None } else { NonZeroU16::new(2) };
        connect.packet_size_max = if more & 0x80 == 0 { None } else { NonZeroU32::new(40) };
        connect.topic_alias_maximum = input.pick(&[0, 1, 65_535]);
    }
    let peer = &mut world.sockets[socket].peer;
    if peer.terms.is_none() {
        peer.terms = Some(Terms {
            version,
            receive_maximum: connect.receive_maximum.map_or(65_535, |max| usize::from(max.get())),
            packet_size_max: connect.packet_size_max.map_or(usize::MAX, |max| max.get() as usize),
            alias_max: connect.topic_alias_maximum,
        });
    }
    let mut bytes = Vec::new();
    connect.encode(&mut bytes);
    world.send(socket, &bytes);
}

/// The version to speak; a client that has not said CONNECT speaks MQTT 5 all the same.
fn version(world: &World, socket: usize) -> Version {
    world.sockets[socket].peer.terms.map_or(Version::V5, |terms| terms.version)
}

fn packet_id(input: &mut Input<'_>) -> PacketId {
    PacketId::new(u16::from(input.byte() % 6) + 1).expect("above 0")
}

fn publish(world: &mut World, socket: usize, input: &mut Input<'_>) {
    let flags = input.byte();
    let version = version(world, socket);
    let qos = QoS::from_bits(flags % 3).expect("below 3");
    let packet_id = (qos != QoS::AtMostOnce).then(|| packet_id(input));
    let topic_alias = if flags & 0x10 == 0 { None } else { NonZeroU16::new(u16::from(input.byte() % 4)) };
    let is_short = version.is_v5() && topic_alias.is_some() && flags & 0x20 != 0;
    let mut forwarded = Vec::new();
    if flags & 0x40 != 0 {
        properties::push_user_property(&mut forwarded, "name", "value");
    }
    let size = input.pick(&[0, 1, 20, 300, 5_000]);
    let delivery = Delivery {
        dup: flags & 0x04 != 0 && packet_id.is_some(),
        qos,
        retain: flags & 0x08 != 0,
        topic: if is_short { "" } else { input.pick(&TOPICS) },
        topic_alias,
        packet_id,
        expiry: if flags & 0x80 == 0 { None } else { Some(u32::from(input.byte())) },
        subscription_ids: &[],
        properties: &forwarded,
        payload: &vec![flags; size],
    };
    let mut bytes = Vec::new();
    delivery.encode(version, &mut bytes);
    if let Some(id) = packet_id {
        world.sockets[socket].peer.publish(id.value());
    }
    world.send(socket, &bytes);
}

fn subscribe(world: &mut World, socket: usize, input: &mut Input<'_>) {
    let version = version(world, socket);
    let id = packet_id(input);
    let count = input.byte();
    let filters: Vec<SubscribeFilter<'_>> = (0..count % 3 + 1)
        .map(|_| {
            let options = input.byte();
            let handling = [RetainHandling::SendAlways, RetainHandling::SendIfNew, RetainHandling::Never];
            SubscribeFilter {
                filter: input.pick(&FILTERS),
                qos: QoS::from_bits(options % 3).expect("below 3"),
                no_local: options & 0x10 != 0,
                retain_as_published: options & 0x20 != 0,
                retain_handling: handling[usize::from(options >> 6) % 3],
            }
        })
        .collect();
    let subscription_id = NonZeroU32::new(u32::from(count >> 6));
    let mut bytes = Vec::new();
    codec::encode_subscribe(id, subscription_id, &filters, version, &mut bytes);
    *world.sockets[socket].peer.subscribes.entry(id.value()).or_default() += 1;
    world.send(socket, &bytes);
}

fn unsubscribe(world: &mut World, socket: usize, input: &mut Input<'_>) {
    let version = version(world, socket);
    let id = packet_id(input);
    let filters = [input.pick(&FILTERS), input.pick(&FILTERS)];
    let mut bytes = Vec::new();
    codec::encode_unsubscribe(id, &filters, version, &mut bytes);
    *world.sockets[socket].peer.unsubscribes.entry(id.value()).or_default() += 1;
    world.send(socket, &bytes);
}

/// The next step of one delivery that the client has got.
fn settle_delivery(world: &mut World, socket: usize, input: &mut Input<'_>) {
    let choice = input.byte();
    let version = version(world, socket);
    let peer = &mut world.sockets[socket].peer;
    let Some((&id, &step)) =
        peer.in_flight.iter().nth(usize::from(choice & 0x0F) % peer.in_flight.len().max(1))
    else {
        return;
    };
    let is_refused = choice & 0x80 != 0 && version.is_v5();
    let (kind, is_done) = match step {
        Step::Qos1 => (AckKind::PubAck, true),
        Step::Qos2 => (AckKind::PubRec, is_refused),
        Step::Released => (AckKind::PubComp, true),
    };
    if is_done {
        peer.in_flight.remove(&id);
    }
    let reason = if is_refused && kind != AckKind::PubComp {
        ReasonCode::UnspecifiedError
    } else {
        ReasonCode::Success
    };
    let mut bytes = Vec::new();
    let id = PacketId::new(id).expect("identifiers are above 0");
    codec::encode_ack(kind, id, reason, None, version, &mut bytes);
    world.send(socket, &bytes);
}

fn acknowledge_anything(world: &mut World, socket: usize, input: &mut Input<'_>) {
    let version = version(world, socket);
    let kind = input.pick(&[AckKind::PubRel, AckKind::PubAck, AckKind::PubRec, AckKind::PubComp]);
    let id = packet_id(input);
    let peer = &mut world.sockets[socket].peer;
    if kind == AckKind::PubRel {
        *peer.releases.entry(id.value()).or_default() += 1;
    } else {
        peer.is_lax = true;
    }
    let mut bytes = Vec::new();
    codec::encode_ack(kind, id, ReasonCode::Success, None, version, &mut bytes);
    world.send(socket, &bytes);
}

fn disconnect(world: &mut World, socket: usize, input: &mut Input<'_>) {
    let version = version(world, socket);
    let choice = input.byte();
    let reason = if choice & 1 == 0 { ReasonCode::Success } else { ReasonCode::DisconnectWithWill };
    let mut disconnect = Disconnect::new(reason);
    disconnect.session_expiry = [None, Some(0), Some(50), Some(u32::MAX)][usize::from(choice >> 6)];
    let mut bytes = Vec::new();
    disconnect.encode(version, &mut bytes);
    world.send(socket, &bytes);
}

fn raw(world: &mut World, socket: usize, input: &mut Input<'_>) {
    let count = usize::from(input.byte() % 64);
    let bytes = input.take(count);
    world.sockets[socket].peer.is_raw = true;
    world.send(socket, bytes);
}
