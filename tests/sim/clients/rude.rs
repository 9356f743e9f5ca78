//! Clients that do not follow the protocol, byte by byte. The broker must survive them, close them in time, and nobody else
//! may notice. Whatever they are answered is not looked at.

use super::Client;
use crate::rng::Rng;
use crate::world::World;
use quelea::base::{PacketId, QoS, ReasonCode, Version};
use quelea::codec::{self, AckKind, Connect, Delivery, SubscribeFilter};

/// One of them.
#[derive(Debug)]
pub(crate) struct Rude {
    pub(crate) index: usize,
    pub(crate) rng: Rng,
    pub(crate) socket: Option<usize>,
    version: Version,
}

impl Rude {
    pub(crate) fn new(index: usize, mut rng: Rng) -> Self {
        let version = *rng.pick(&[Version::V310, Version::V311, Version::V5]);
        Self { index, rng, socket: None, version }
    }

    /// Does something.
    fn act(&mut self, world: &mut World) {
        let Some(socket) = self.socket else {
            let socket = world.open_socket(self.index, true);
            self.socket = Some(socket);
            let mut bytes = Vec::new();
            if self.rng.chance(850) {
                let id = format!("rude{}", self.index);
                let clean = self.rng.chance(500);
                Connect::new(self.version, &id, clean, 0).encode(&mut bytes);
                if self.rng.chance(700) {
                    self.packet(&mut bytes, true);
                }
            }
            return self.send(world, socket, bytes);
        };
        if self.rng.chance(60) {
            world.close_up(socket);
            self.socket = None;
            return;
        }
        let mut bytes = Vec::new();
        for _ in 0..self.rng.between(1, 4) {
            let valid = self.rng.chance(700);
            self.packet(&mut bytes, valid);
        }
        if self.rng.chance(100) {
            bytes.truncate(self.rng.size(0, bytes.len()));
        }
        self.send(world, socket, bytes);
    }

    fn send(&self, world: &mut World, socket: usize, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            world.send_up(socket, &bytes);
        }
    }

    /// A packet: well-formed, or with a byte changed, or no packet at all. It subscribes and never acknowledges, or
    /// acknowledges what it was not sent.
    fn packet(&mut self, out: &mut Vec<u8>, valid: bool) {
        let start = out.len();
        let version = self.version;
        let id = PacketId::new(self.rng.short(1, 9)).expect("from 1");
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
        let delivery = Delivery {
            dup: false,
            qos,
            retain: self.rng.chance(100),
            topic,
            topic_alias: None,
            packet_id: Some(id).filter(|_| qos > QoS::AtMostOnce),
            expiry: None,
            subscription_ids: &[],
            properties: &[],
            payload: b"rude",
        };
        delivery.encode(self.version, out);
    }
}

impl World {
    pub(crate) fn act_rude(&mut self, client: usize) {
        let Some(Client::Rude(mut rude)) = self.clients[client].take() else {
            panic!("client {client} is rude")
        };
        if self.is_healing {
            if let Some(socket) = rude.socket.take() {
                self.close_up(socket);
            }
        } else {
            rude.act(self);
            let pause = rude.rng.between(5, 800);
            self.after(pause, crate::world::Event::Act(client));
        }
        self.clients[client] = Some(Client::Rude(rude));
    }
}
