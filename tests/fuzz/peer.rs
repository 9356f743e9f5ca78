//! What one client may expect of the broker, checked on every packet that it gets.
//!
//! A client that has sent bytes of no sense (`is_raw`) only expects well-formed packets; one that has acknowledged what it
//! did not get (`is_lax`) gives up on packet identifiers.

use quelea::base::{QoS, ReasonCode, Version};
use quelea::codec::{self, Frame, Packet, Publish, Sender};
use std::collections::BTreeMap;

/// What the client said in CONNECT.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) version: Version,
    pub(crate) receive_maximum: usize,
    pub(crate) packet_size_max: usize,
    pub(crate) alias_max: u16,
}

/// How far a delivery with QoS 1 or 2 is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Qos1,
    Qos2,
    /// PUBREL came.
    Released,
}

/// A client's view of its connection.
#[derive(Default, Debug)]
pub(crate) struct Peer {
    pub(crate) terms: Option<Terms>,
    pub(crate) is_raw: bool,
    pub(crate) is_lax: bool,
    is_accepted: bool,
    is_over: bool,
    partial: Vec<u8>,
    /// Deliveries that the client has not settled.
    pub(crate) in_flight: BTreeMap<u16, Step>,
    aliases: BTreeMap<u16, String>,
    /// Publishes by packet identifier: answers that may come, and whether one came since the last was sent. A publish under
    /// an identifier whose acknowledgement is on its way gets none of its own.
    publishes: BTreeMap<u16, (usize, bool)>,
    /// What else the client sent and waits for the answer of: how often, by packet identifier.
    pub(crate) releases: BTreeMap<u16, usize>,
    pub(crate) subscribes: BTreeMap<u16, usize>,
    pub(crate) unsubscribes: BTreeMap<u16, usize>,
    pub(crate) pings: usize,
}

impl Peer {
    /// CONNACK with success came, and nothing since has ended the connection.
    pub(crate) fn is_connected(&self) -> bool {
        self.is_accepted && !self.is_over
    }

    /// The client publishes with QoS 1 or 2.
    pub(crate) fn publish(&mut self, id: u16) {
        let (count, is_answered) = self.publishes.entry(id).or_default();
        *count += 1;
        *is_answered = false;
    }

    /// Bytes from the broker.
    pub(crate) fn handle_bytes(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        let bytes = std::mem::take(&mut self.partial);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match codec::frame(rest, u32::MAX) {
                Ok(Frame::Complete(raw)) => {
                    let size = raw.size;
                    let versions = match self.terms {
                        Some(terms) if !self.is_raw => vec![terms.version],
                        _ => vec![Version::V5, Version::V311, Version::V310],
                    };
                    let packet =
                        versions.iter().find_map(|version| codec::decode(raw, *version, Sender::Server).ok());
                    let packet = packet.unwrap_or_else(|| panic!("malformed: {:02x?}", &rest[..size]));
                    self.check(&packet, size);
                    rest = &rest[size..];
                }
                Ok(Frame::Incomplete { .. }) => break,
                Err(malformed) => panic!("{malformed}: {rest:02x?}"),
            }
        }
        self.partial = rest.to_vec();
    }

    /// The client waits for nothing.
    pub(crate) fn check_answered(&self) {
        if self.is_raw || !self.is_connected() {
            return;
        }
        let sent = [&self.releases, &self.subscribes, &self.unsubscribes];
        assert!(sent.iter().all(|waiting| waiting.is_empty()), "not answered: {self:?}");
        assert!(self.publishes.values().all(|(_, is_answered)| *is_answered), "not acknowledged: {self:?}");
        assert_eq!(self.pings, 0, "no PINGRESP");
        assert!(self.partial.is_empty(), "half a packet");
    }

    fn check(&mut self, packet: &Packet<'_>, size: usize) {
        if self.is_raw {
            return;
        }
        assert!(!self.is_over, "{packet:?} after the end");
        let terms = self.terms.unwrap_or_else(|| panic!("{packet:?} before CONNECT"));
        assert!(size <= terms.packet_size_max, "{packet:?} is {size} bytes");
        assert_eq!(matches!(packet, Packet::ConnAck(_)), !self.is_accepted, "{packet:?}");
        match packet {
            Packet::ConnAck(connack) => {
                self.is_accepted = true;
                self.is_over = connack.reason != ReasonCode::Success;
            }
            Packet::Publish(publish) => self.check_publish(publish, terms),
            Packet::PubRel(rel) => {
                let step = self.in_flight.insert(rel.packet_id.value(), Step::Released);
                assert!(self.is_lax || step != Some(Step::Qos1), "PUBREL for QoS 1");
            }
            Packet::PubAck(ack) | Packet::PubRec(ack) => {
                let waiting = self.publishes.get_mut(&ack.packet_id.value()).filter(|(count, _)| *count > 0);
                let (count, is_answered) = waiting.unwrap_or_else(|| panic!("{packet:?} answers nothing"));
                *count -= 1;
                *is_answered = true;
            }
            Packet::PubComp(ack) => answered(&mut self.releases, ack.packet_id.value(), packet),
            Packet::SubAck(ack) => answered(&mut self.subscribes, ack.packet_id.value(), packet),
            Packet::UnsubAck(ack) => answered(&mut self.unsubscribes, ack.packet_id.value(), packet),
            Packet::PingResp => {
                self.pings = self.pings.checked_sub(1).expect("PINGRESP for a PINGREQ");
            }
            Packet::Disconnect(_) => self.is_over = true,
            Packet::Auth(_) => panic!("no method was agreed on"),
            Packet::Connect(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::PingReq => {
                unreachable!("the codec knows directions")
            }
        }
    }

    fn check_publish(&mut self, publish: &Publish<'_>, terms: Terms) {
        if let Some(alias) = publish.topic_alias {
            assert!(alias.get() <= terms.alias_max, "alias {alias}");
            if !publish.topic.is_empty() {
                self.aliases.insert(alias.get(), publish.topic.to_owned());
            }
            assert!(self.aliases.contains_key(&alias.get()), "alias {alias} is unknown");
        }
        if self.is_lax {
            return;
        }
        if let Some(id) = publish.packet_id {
            let step = if publish.qos == QoS::AtLeastOnce { Step::Qos1 } else { Step::Qos2 };
            let old = self.in_flight.insert(id.value(), step);
            assert_eq!(old, None, "packet identifier {id:?} is in use");
            assert!(self.in_flight.len() <= terms.receive_maximum, "over Receive Maximum");
        }
    }
}

fn answered(waiting: &mut BTreeMap<u16, usize>, id: u16, packet: &Packet<'_>) {
    let count = waiting.get_mut(&id).unwrap_or_else(|| panic!("{packet:?} answers nothing"));
    *count -= 1;
    if *count == 0 {
        waiting.remove(&id);
    }
}
