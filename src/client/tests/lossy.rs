//! A server of a page, and a connection that is cut anywhere: QoS 1 arrives at least once, QoS 2 exactly once, in order, both
//! ways.

use super::*;
use crate::codec::{AckKind, Delivery, Frame, Packet, Sender};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeSet, VecDeque};

/// The server's side of one session: what it got, and what it wants to deliver.
#[derive(Default)]
struct ServerSide {
    version: Option<Version>,
    input: Vec<u8>,
    out: Vec<u8>,
    known: bool,
    /// QoS 2 packet ids not released.
    received: BTreeSet<PacketId>,
    got: Vec<(QoS, Vec<u8>)>,
    /// Packet id, QoS, number in the payload, whether PUBREC came. Sent in order, one after the other.
    deliveries: VecDeque<(PacketId, QoS, u8, bool)>,
}

impl ServerSide {
    fn version(&self) -> Version {
        self.version.unwrap()
    }

    /// Sends the first delivery (again).
    fn deliver(&mut self, dup: bool) {
        let Some(&(packet_id, qos, number, received)) = self.deliveries.front() else { return };
        if received {
            return self.ack(AckKind::PubRel, packet_id);
        }
        let delivery = Delivery {
            dup,
            qos,
            retain: false,
            topic: "down",
            topic_alias: None,
            packet_id: Some(packet_id),
            expiry: None,
            subscription_ids: &[],
            properties: &[],
            payload: &[number],
        };
        delivery.encode(self.version(), &mut self.out);
    }

    fn ack(&mut self, kind: AckKind, packet_id: PacketId) {
        codec::encode_ack(kind, packet_id, ReasonCode::Success, None, self.version(), &mut self.out);
    }

    fn done(&mut self, packet_id: PacketId) {
        if self.deliveries.front().is_some_and(|delivery| delivery.0 == packet_id) {
            self.deliveries.pop_front();
            self.deliver(false);
        }
    }

    fn handle(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while let Frame::Complete(raw) = codec::frame(rest, u32::MAX).unwrap() {
            rest = &rest[raw.size..];
            self.handle_packet(&codec::decode(raw, self.version(), Sender::Client).unwrap());
        }
        self.input = rest.to_vec();
    }

    fn handle_packet(&mut self, packet: &Packet<'_>) {
        match *packet {
            Packet::Connect(_) => {
                let present = self.known && self.version() != Version::V310;
                ConnAck::new(present, ReasonCode::Success).encode(self.version(), &mut self.out);
                let dup = self.known;
                self.known = true;
                self.deliver(dup);
            }
            Packet::Publish(publish) => {
                let packet_id = publish.packet_id.unwrap();
                let two = publish.qos == QoS::ExactlyOnce;
                if !two || self.received.insert(packet_id) {
                    self.got.push((publish.qos, publish.payload.to_vec()));
                } else {
                    assert!(publish.dup, "sent again without DUP");
                }
                self.ack(if two { AckKind::PubRec } else { AckKind::PubAck }, packet_id);
            }
            Packet::PubRel(ack) => {
                self.received.remove(&ack.packet_id);
                self.ack(AckKind::PubComp, ack.packet_id);
            }
            Packet::PubRec(ack) => {
                if let Some(delivery) = self.deliveries.front_mut().filter(|d| d.0 == ack.packet_id) {
                    delivery.3 = true;
                }
                self.ack(AckKind::PubRel, ack.packet_id);
            }
            Packet::PubAck(ack) | Packet::PubComp(ack) => self.done(ack.packet_id),
            ref other => panic!("unexpected {other:?}"),
        }
    }
}

/// Without the copies that QoS 1 allows: a message and what was sent behind it may come again, but nothing is left out.
fn in_order_at_least_once(got: &[u8], count: u8) -> bool {
    let mut next = 0;
    for &number in got {
        if number > next {
            return false;
        }
        next = next.max(number + 1);
    }
    next == count
}

proptest! {
    #[test]
    fn nothing_is_lost_or_doubled(
        version in prop::sample::select(&VERSIONS[..]),
        ups in vec(prop::bool::ANY, 0..12), downs in vec(prop::bool::ANY, 0..12),
        // How many bytes of each turn get through, from client and from server; then the connection is cut.
        cuts in vec((0..60_usize, 0..60_usize, 1..4_usize), 0..12),
    ) {
        let qos = |two: &bool| if *two { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
        let mut server = ServerSide { version: Some(version), ..ServerSide::default() };
        for (number, two) in (0..).zip(&downs) {
            server.deliveries.push_back((id(u16::from(number) + 1), qos(two), number, false));
        }
        let options = Options {
            clean_start: false,
            session_expiry: Some(1000),
            in_flight_max: std::num::NonZeroU16::new(4).unwrap(),
            ..Options::new(version)
        };
        let mut client = Client::new(options, "c");
        let (mut published, mut acknowledged) = (0_usize, 0);
        let mut seen: Vec<(QoS, u8)> = Vec::new();
        for (up_bytes, down_bytes, turns) in cuts.into_iter().chain([(usize::MAX, usize::MAX, 1000)]) {
            client.handle_disconnected();
            server.input.clear();
            server.out.clear();
            client.connect(at(0));
            let (mut up_bytes, mut down_bytes) = (up_bytes, down_bytes);
            for _ in 0..turns {
                while client.can_publish() && published < ups.len() {
                    let payload = [u8::try_from(published).unwrap()];
                    client.publish(at(0), &Publication::new("up", &payload, qos(&ups[published]))).unwrap();
                    published += 1;
                }
                let mut bytes = client.take_out();
                bytes.truncate(up_bytes);
                up_bytes -= bytes.len();
                server.handle(&bytes);
                let mut bytes = std::mem::take(&mut server.out);
                bytes.truncate(down_bytes);
                down_bytes -= bytes.len();
                client.handle_bytes(at(0), &bytes).unwrap();
                while let Some(event) = client.poll_event() {
                    match event {
                        Event::Message(message) => seen.push((message.qos, message.payload[0])),
                        Event::Acknowledged { .. } => acknowledged += 1,
                        _ => {}
                    }
                }
            }
        }
        prop_assert_eq!((published, client.in_flight().count()), (ups.len(), 0));
        prop_assert!(acknowledged <= ups.len());
        let numbers: Vec<u8> = seen.iter().map(|message| message.1).collect();
        prop_assert!(in_order_at_least_once(&numbers, u8::try_from(downs.len()).unwrap()), "{:?}", seen);
        let got: Vec<u8> = server.got.iter().map(|message| message.1[0]).collect();
        prop_assert!(in_order_at_least_once(&got, u8::try_from(ups.len()).unwrap()), "{:?}", server.got);
        for (number, two) in (0_u8..).zip(&downs) {
            let copies = seen.iter().filter(|message| message.1 == number).count();
            prop_assert!(copies == 1 || !two, "{} came {} times", number, copies);
        }
        for (number, two) in (0_u8..).zip(&ups) {
            let copies = server.got.iter().filter(|message| message.1[0] == number).count();
            prop_assert!(copies == 1 || !two, "{} went {} times", number, copies);
        }
    }
}
