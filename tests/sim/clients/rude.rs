//! Clients that do not follow the protocol, byte by byte. The broker must survive them, close them in time, and nobody else
//! may notice. What they are answered is not looked at.

use super::Client;
use super::polite::{LINGER_MS, SLACK_MS};
use crate::rng::Rng;
use crate::world::World;
use quelea::base::{PacketId, QoS, ReasonCode, Version};
use quelea::codec::{self, AckKind, Connect, Delivery, MessageProperties, SubscribeFilter, Will};
use std::num::{NonZeroU16, NonZeroU32};

/// What a rude client is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manner {
    /// Packets well-formed, cut and changed; acknowledges what it was not sent, and not what it was.
    Garbage,
    /// Breaks one rule after CONNECT: it has to be closed for it.
    Violates,
    /// Never gets to the end of CONNECT: the login timeout has to end it.
    Silent,
    /// Connects and is not heard of again: keep alive has to end it.
    HalfOpen,
    /// Subscribes to everything, and never reads nor acknowledges.
    Deaf,
    /// Takes one client identifier over, against others of its kind, and leaves its connections open.
    Fighter,
    /// Closes in the middle of packets; it has a will.
    Abrupt,
}

impl Manner {
    pub(crate) const ALL: [Self; 7] = [
        Self::Garbage,
        Self::Violates,
        Self::Silent,
        Self::HalfOpen,
        Self::Deaf,
        Self::Fighter,
        Self::Abrupt,
    ];
}

/// Why the broker has to close a connection, and how long after the last byte it may take.
#[derive(Clone, Copy, Debug)]
struct MustClose {
    why: Manner,
    after_ms: u64,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Rude {
    pub(crate) index: usize,
    pub(crate) rng: Rng,
    pub(crate) socket: Option<usize>,
    /// Left open when it connected anew.
    left_open: Vec<usize>,
    version: Version,
    manner: Manner,
    must_close: Option<MustClose>,
}

impl Rude {
    pub(crate) fn new(index: usize, manners: &[Manner], mut rng: Rng) -> Self {
        let version = *rng.pick(&[Version::V310, Version::V311, Version::V5]);
        let manner = *rng.pick(manners);
        Self { index, rng, socket: None, left_open: Vec::new(), version, manner, must_close: None }
    }

    /// Does something.
    fn act(&mut self, world: &mut World) {
        let Some(socket) = self.socket else { return self.connect(world) };
        let mut bytes = Vec::new();
        match self.manner {
            Manner::Garbage => {
                for _ in 0..self.rng.between(1, 4) {
                    let valid = self.rng.chance(700);
                    self.packet(&mut bytes, valid);
                }
                if self.rng.chance(100) {
                    bytes.truncate(self.rng.size(0, bytes.len()));
                }
            }
            Manner::Violates if self.must_close.is_none() => {
                if self.rng.chance(500) {
                    self.packet(&mut bytes, true);
                }
                bytes.extend(violation(&mut self.rng, self.version));
                self.must_close = Some(MustClose { why: self.manner, after_ms: LINGER_MS });
            }
            Manner::Violates | Manner::Silent | Manner::HalfOpen => {}
            Manner::Deaf => codec::encode_pingreq(&mut bytes),
            Manner::Fighter => {
                self.left_open.push(socket);
                return self.connect(world);
            }
            Manner::Abrupt => {
                self.packet(&mut bytes, true);
                bytes.truncate(self.rng.size(0, bytes.len()));
                self.send(world, socket, &bytes);
                world.close_up(socket);
                self.socket = None;
                return;
            }
        }
        self.send(world, socket, &bytes);
        let leaves = matches!(self.manner, Manner::Garbage | Manner::Deaf);
        if leaves && self.rng.chance(60) {
            world.close_up(socket);
            self.socket = None;
        }
    }

    fn connect(&mut self, world: &mut World) {
        let socket = world.open_socket(self.index, true);
        self.socket = Some(socket);
        self.must_close = None;
        let mut bytes = Vec::new();
        let id = match self.manner {
            Manner::Fighter => "fighter".into(),
            _ => format!("rude{}", self.index),
        };
        let keep_alive = if self.manner == Manner::HalfOpen { self.rng.short(1, 3) } else { 0 };
        let mut connect = Connect::new(self.version, &id, self.rng.chance(500), keep_alive);
        if matches!(self.manner, Manner::Fighter | Manner::Abrupt) {
            connect.will = Some(Will {
                qos: *self.rng.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]),
                retain: false,
                topic: "x/will",
                payload: b"rude",
                delay: if self.version.is_v5() { *self.rng.pick(&[0, 1, 5]) } else { 0 },
                expiry: None,
                properties: MessageProperties::EMPTY,
            });
            connect.session_expiry = Some(*self.rng.pick(&[0, 2, 60])).filter(|_| self.version.is_v5());
        }
        if self.manner != Manner::Garbage || self.rng.chance(850) {
            connect.encode(&mut bytes);
        }
        match self.manner {
            Manner::Silent => {
                bytes.truncate(self.rng.size(0, bytes.len() - 1));
                let after_ms = world.swarm.options.session.login_timeout_ms + LINGER_MS;
                self.must_close = Some(MustClose { why: self.manner, after_ms });
            }
            Manner::HalfOpen => {
                let after_ms = u64::from(keep_alive) * 1500 + LINGER_MS;
                self.must_close = Some(MustClose { why: self.manner, after_ms });
                self.packet(&mut bytes, true);
            }
            Manner::Deaf => {
                let everything = [
                    SubscribeFilter::new("#", QoS::AtMostOnce),
                    SubscribeFilter::new("t/#", QoS::ExactlyOnce),
                ];
                codec::encode_subscribe(packet_id(1), None, &everything, self.version, &mut bytes);
                world.stop_reading(socket);
            }
            Manner::Garbage | Manner::Abrupt if self.rng.chance(700) => self.packet(&mut bytes, true),
            _ => {}
        }
        self.send(world, socket, &bytes);
    }

    fn send(&self, world: &mut World, socket: usize, bytes: &[u8]) {
        if !bytes.is_empty() {
            world.send_up(socket, bytes);
        }
    }

    /// A packet: well-formed, or with a byte changed, or no packet at all. It subscribes and never acknowledges, or
    /// acknowledges what it was not sent.
    fn packet(&mut self, out: &mut Vec<u8>, valid: bool) {
        let start = out.len();
        let version = self.version;
        let id = packet_id(self.rng.short(1, 9));
        let kinds = [AckKind::PubAck, AckKind::PubRec, AckKind::PubRel, AckKind::PubComp];
        match self.rng.below(9) {
            0 | 1 => {
                let filter = *self.rng.pick(&["t/#", "#", "t/+/1", "r/#", "$share/rude/t/#", "x", "bad/#/x"]);
                let qos = *self.rng.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
                codec::encode_subscribe(id, None, &[SubscribeFilter::new(filter, qos)], version, out);
            }
            2 | 3 => self.publish(id, out),
            4 => {
                let kind = *self.rng.pick(&kinds);
                codec::encode_ack(kind, id, ReasonCode::Success, None, version, out);
            }
            5 => codec::encode_unsubscribe(id, &["t/#", "x"], version, out),
            6 => codec::encode_pingreq(out),
            7 if !valid => Connect::new(version, "again", true, 0).encode(out),
            _ if !valid => {
                for _ in 0..self.rng.between(1, 30) {
                    out.push(u8::try_from(self.rng.below(256)).expect("a byte"));
                }
            }
            _ => {}
        }
        if !valid && out.len() > start {
            let at = self.rng.size(start, out.len() - 1);
            out[at] ^= 1 << self.rng.below(8);
        }
    }

    fn publish(&mut self, id: PacketId, out: &mut Vec<u8>) {
        let qos = *self.rng.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
        let topic = *self.rng.pick(&["t/1/1", "x/y", "t/0/0"]);
        let retain = self.rng.chance(100);
        message(topic, qos, id, retain).encode(self.version, out);
    }
}

fn packet_id(id: u16) -> PacketId {
    PacketId::new(id).expect("from 1")
}

fn message(topic: &str, qos: QoS, id: PacketId, retain: bool) -> Delivery<'_> {
    Delivery {
        dup: false,
        qos,
        retain,
        topic,
        topic_alias: None,
        packet_id: Some(id).filter(|_| qos > QoS::AtMostOnce),
        expiry: None,
        subscription_ids: &[],
        properties: &[],
        payload: b"rude",
    }
}

/// What no version allows a client that is connected.
fn violation(rng: &mut Rng, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    let is_v5 = version.is_v5();
    // The zero behind the topics is the property length, or payload before MQTT 5.
    let fixed: [&[u8]; 14] = [
        // PINGRESP, CONNACK, SUBACK: packets of a server.
        &[0xD0, 0],
        &[0x20, 2, 0, 0],
        &[0x90, 4, 0, 1, 0, 0],
        // SUBSCRIBE, PUBREL with wrong flags.
        &[0x80, 2, 0, 1],
        &[0x60, 2, 0, 1],
        // QoS 3; DUP with QoS 0; a wildcard in a topic name; packet identifier 0; a topic that is not UTF-8.
        &[0x36, 6, 0, 1, b'a', 0, 1, 0],
        &[0x38, 4, 0, 1, b'a', 0],
        &[0x30, 5, 0, 2, b'a', b'#', 0],
        &[0x32, 6, 0, 1, b'a', 0, 0, 0],
        &[0x30, 5, 0, 2, 0xC3, 0x28, 0],
        // Packet type 0; PINGREQ with a body; a length of five bytes; AUTH, or packet type 15.
        &[0, 0],
        &[0xC0, 1, 0],
        &[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 1],
        &[0xF0, 0],
    ];
    match rng.below(18) {
        0 => Connect::new(version, "again", true, 0).encode(&mut out),
        1 if is_v5 => {
            let id = NonZeroU32::new(7);
            let shared =
                SubscribeFilter { no_local: true, ..SubscribeFilter::new("$share/g/t", QoS::AtLeastOnce) };
            codec::encode_subscribe(packet_id(1), id, &[shared], version, &mut out);
        }
        2 if is_v5 => {
            let delivery = message("t/1/1", QoS::AtMostOnce, packet_id(1), false);
            Delivery { topic_alias: NonZeroU16::new(u16::MAX), ..delivery }.encode(version, &mut out);
        }
        3 => out.extend(if is_v5 { &[0xA2, 3, 0, 1, 0][..] } else { &[0xA2, 2, 0, 1] }),
        _ => out.extend(*rng.pick(&fixed)),
    }
    out
}

impl World {
    pub(crate) fn act_rude(&mut self, client: usize) {
        let Some(Client::Rude(mut rude)) = self.clients[client].take() else {
            panic!("client {client} is rude")
        };
        if self.is_healing {
            for socket in rude.left_open.drain(..).chain(rude.socket.take()) {
                if self.network.sockets[socket].client_open {
                    self.close_up(socket);
                }
            }
        } else {
            self.check_rude(&rude);
            rude.act(self);
            let pause = rude.rng.between(5, 800);
            self.after(pause, crate::world::Event::Act(client));
        }
        self.clients[client] = Some(Client::Rude(rude));
    }

    /// Whoever broke a rule is closed in time, as long as the broker reads from it.
    fn check_rude(&mut self, rude: &Rude) {
        let (Some(socket), Some(MustClose { why, after_ms })) = (rude.socket, rude.must_close) else {
            return;
        };
        let Some(idle_ms) = self.idle_ms(socket) else { return };
        if idle_ms > after_ms + SLACK_MS {
            let index = rude.index;
            self.fail(format!(
                "client {index}, which is {why:?}, is not closed {idle_ms} ms after its last byte"
            ));
        }
    }
}
