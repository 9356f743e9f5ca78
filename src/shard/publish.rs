//! PUBLISH in, and its acknowledgements.

use super::Shard;
use super::durable::GatherRef;
use super::limit::Limit;
use super::peer::CommitRef;
use super::read::Flow;
use super::routing::Asked;
use crate::base::{MessageHead, MessageRef, PacketId, Publisher, QoS, ReasonCode, Version, Wall};
use crate::codec::{self, Ack, AckKind, Packet, RawPacket, Sender};
use crate::session::{Outcome, Ready, Violation};
use std::num::NonZeroU16;
use std::rc::Rc;

impl Shard {
    /// A PUBLISH; `whole` are its bytes.
    pub(super) fn on_publish(
        &mut self,
        slot: u32,
        session: u32,
        raw: RawPacket<'_>,
        whole: &[u8],
        version: Version,
    ) -> Result<Flow, Violation> {
        let Packet::Publish(publish) = codec::decode(raw, version, Sender::Client)? else {
            unreachable!("decoded as its type")
        };
        let alias = match publish.topic_alias {
            Some(alias) => Some(self.resolve_alias(slot, alias, publish.topic)?),
            None => None,
        };
        let mut refuses = self.pressure;
        if let Some(connection) = self.links.at_mut(slot) {
            connection.publishes = true;
            refuses &= connection.slow;
        }
        self.counters.received.count(version, publish.qos, whole.len());
        let expires_at = publish.expiry.map_or(Wall::NEVER, |secs| self.now.wall.plus_secs(secs));
        let mut scratch = std::mem::take(&mut self.scratch.properties);
        let message = MessageRef {
            head: self.head_of(session, publish.qos, publish.retain, expires_at),
            topic: alias.as_deref().unwrap_or(publish.topic),
            properties: publish.properties.forward(&mut scratch),
            payload: publish.payload,
        };
        let result = match publish.packet_id {
            None if refuses => {
                self.counters.dropped_overload += 1;
                self.met_by(Limit::MemoryForPublish, Some(session));
                Ok(())
            }
            None => {
                // What a v3 client sends with QoS 0 is, byte for byte, what a v3 subscriber gets.
                let verbatim = (!version.is_v5() && !publish.retain).then_some(whole);
                self.route(&message, verbatim, None, None);
                Ok(())
            }
            Some(packet_id) => self.accept(slot, session, packet_id, &message, refuses),
        };
        // The next one is small, most likely.
        scratch.clear();
        scratch.shrink_to(PROPERTIES_KEPT_MAX);
        self.scratch.properties = scratch;
        result?;
        // Refusing a publish may have closed the connection.
        let open = self.links.at(slot).is_some_and(|c| !matches!(c.phase, super::connection::Phase::Closing));
        Ok(if open { Flow::Continue } else { Flow::Stop })
    }

    pub(super) fn head_of(&self, session: u32, qos: QoS, retain: bool, expires_at: Wall) -> MessageHead {
        let entry = self.sessions.at(session).expect("the connection's session exists");
        let id = self.sessions.id_at(session).expect("the connection's session exists");
        MessageHead {
            vhost: entry.vhost,
            qos,
            retain,
            expires_at,
            publisher: Some(Publisher { session: id, client_hash: entry.client_hash }),
        }
    }

    fn resolve_alias(&mut self, slot: u32, alias: NonZeroU16, topic: &str) -> Result<Rc<str>, Violation> {
        let maximum = self.options.session.topic_alias_maximum;
        let connection = self.links.at_mut(slot).expect("the packet came from it");
        connection.aliases_mut().incoming.resolve(alias, topic, maximum)
    }

    /// A publish with QoS 1 or 2: routed once, acknowledged when its targets are done.
    fn accept(
        &mut self,
        slot: u32,
        session: u32,
        packet_id: PacketId,
        message: &MessageRef<'_>,
        refuses: bool,
    ) -> Result<(), Violation> {
        let id = self.sessions.id_at(session).expect("the connection's session exists");
        let entry = self.sessions.at_mut(session).expect("the connection's session exists");
        let is_v5 = entry.version.is_v5();
        let incoming = entry.incoming.get_or_insert_default();
        let qos = message.head.qos;
        let follows_refused = !is_v5 && incoming.acks.has_refused();
        if !incoming.acks.is_empty()
            && incoming.acks.repeat(Ready { packet_id, qos, outcome: Outcome::default() })
        {
            // Its acknowledgement is on the way.
            return Ok(());
        }
        let repeated = qos == QoS::ExactlyOnce && incoming.received.contains(packet_id);
        if !repeated {
            // [MQTT-3.3.4-7]
            if is_v5 && incoming.unacknowledged >= u32::from(self.options.session.receive_maximum) {
                return Err(Violation::ReceiveMaximum);
            }
            incoming.unacknowledged = incoming.unacknowledged.saturating_add(1);
            // What is refused begins nothing that a repetition could be part of.
            if qos == QoS::ExactlyOnce && !refuses && !follows_refused {
                incoming.received.insert(packet_id);
            }
        }
        let sequence = incoming.acks.next_sequence();
        let (outcome, asked) = if repeated {
            // [MQTT-4.3.3-10]
            (Outcome { matched: true, taken: true, ..Outcome::default() }, Asked::default())
        } else if follows_refused {
            (Outcome { refused: true, ..Outcome::default() }, Asked::default())
        } else if refuses {
            self.counters.refused_overload += 1;
            self.met_by(Limit::MemoryForPublish, Some(session));
            (Outcome { refused: true, ..Outcome::default() }, Asked::default())
        } else {
            let origin = self.origin(session, packet_id, qos);
            self.route(message, None, Some(CommitRef::Ack { session: id, sequence }), origin)
        };
        let mut ready = Ready { packet_id, qos, outcome };
        let mut missing = asked.missing;
        // In this shard's commit or a later one: what is kept of the packet identifier never comes before the message.
        if missing == asked.local && !self.is_recorded(session, &ready) {
            match self.keep_received(session, sequence, packet_id) {
                Ok(waits) => missing += u32::from(waits),
                Err(refused) => ready.outcome = ready.outcome.and(refused),
            }
        }
        let entry = self.sessions.at_mut(session).expect("routing ends no connected session");
        let incoming = entry.incoming.get_or_insert_default();
        if missing == 0 && incoming.acks.is_empty() {
            self.acknowledge(slot, session, ready);
        } else {
            incoming.acks.push(ready, missing);
        }
        Ok(())
    }

    /// A target of a publish is done.
    pub(super) fn committed(&mut self, commit: CommitRef, outcome: Outcome) {
        match commit {
            CommitRef::Ack { session, sequence } => self.settle_ack(session, sequence, outcome),
            CommitRef::Gather(token) => self.gathered(GatherRef { shard: self.id, token }, outcome),
        }
    }

    /// Sends the acknowledgements that nothing holds back any more.
    pub(super) fn flush_acks(&mut self, session: u32) {
        loop {
            let Some(entry) = self.sessions.at_mut(session) else { return };
            let link = entry.connection();
            let Some(incoming) = &mut entry.incoming else { return };
            let Some((ready, is_heard)) = incoming.acks.pop_ready() else { return };
            match link.filter(|_| is_heard) {
                Some(link) => self.acknowledge(link, session, ready),
                None if ready.outcome.is_refusal() => {
                    // The client sends it again, and then it is a publish like any other.
                    incoming.received.remove(ready.packet_id);
                }
                None => {}
            }
        }
    }

    fn acknowledge(&mut self, slot: u32, session: u32, ready: Ready) {
        let Some(connection) = self.links.at(slot) else { return };
        let version = connection.version;
        let reason = reason(ready.outcome);
        if reason.is_error() && !version.is_v5() && ready.outcome.is_refusal() {
            // The version cannot say no, and silence would leave the client's window hanging. When it is sent again it is a publish
            // like any other.
            if let Some(incoming) = self.sessions.at_mut(session).and_then(|entry| entry.incoming.as_mut()) {
                incoming.received.remove(ready.packet_id);
            }
            return self.violate(slot, Violation::PublishRefused);
        }
        let kind = if ready.qos == QoS::AtLeastOnce { AckKind::PubAck } else { AckKind::PubRec };
        let ends = reason.is_error() && version.is_v5();
        if (ends || kind == AckKind::PubAck)
            && let Some(incoming) = self.sessions.at_mut(session).and_then(|entry| entry.incoming.as_mut())
        {
            incoming.unacknowledged = incoming.unacknowledged.saturating_sub(1);
            if kind == AckKind::PubRec {
                // The exchange ends here. [MQTT-4.3.3-9]
                incoming.received.remove(ready.packet_id);
            }
        }
        // [MQTT-3.1.2-29] [MQTT-3.4.2-2] [MQTT-3.5.2-2]
        let fits = |text: &&str| text.len() + ACK_SIZE_MAX <= connection.packet_size_max as usize;
        let text = reason_text(reason).filter(|_| connection.problem_information).filter(fits);
        self.counters.confirmed[version.index()] += 1;
        codec::encode_ack(kind, ready.packet_id, reason, text, version, self.links.out(slot).bytes_mut());
    }

    /// PUBREL releases the packet identifier. [MQTT-4.3.3-11]
    pub(super) fn on_pubrel(&mut self, slot: u32, session: u32, ack: &Ack<'_>) {
        if self.links.at(slot).is_none() {
            return;
        }
        let incoming = self.sessions.at_mut(session).and_then(|entry| entry.incoming.as_mut());
        let known = incoming.is_some_and(|incoming| {
            // Also by a PUBCOMP for what an earlier connection sent (section 4.9).
            incoming.unacknowledged = incoming.unacknowledged.saturating_sub(1);
            incoming.received.contains(ack.packet_id)
        });
        // Not known here, it may be known to the targets: a crash may have come between our commit and theirs.
        if self.release(slot, session, ack.packet_id, known) {
            return;
        }
        let incoming = self.sessions.at_mut(session).and_then(|entry| entry.incoming.as_mut());
        if let Some(incoming) = incoming.filter(|_| known) {
            incoming.received.remove(ack.packet_id);
        }
        self.send_pubcomp(slot, ack.packet_id, known);
    }

    pub(super) fn send_pubcomp(&mut self, slot: u32, packet_id: PacketId, known: bool) {
        let Some(version) = self.links.at(slot).map(|connection| connection.version) else { return };
        let reason = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
        let out = self.links.out(slot).bytes_mut();
        codec::encode_ack(AckKind::PubComp, packet_id, reason, None, version, out);
    }
}

/// PUBACK or PUBREC without the text of its reason string, at most: both lengths in one byte each.
const ACK_SIZE_MAX: usize = 9;
/// Memory for properties that had to be copied, kept for the next publish, in bytes.
const PROPERTIES_KEPT_MAX: usize = 64 << 10;

/// What the publisher is told.
fn reason(outcome: Outcome) -> ReasonCode {
    if outcome.failed && (outcome.is_refusal() || outcome.not_retained) {
        ReasonCode::ImplementationSpecificError
    } else if outcome.is_refusal() || outcome.not_retained {
        ReasonCode::QuotaExceeded
    } else if outcome.matched {
        ReasonCode::Success
    } else {
        ReasonCode::NoMatchingSubscribers
    }
}

fn reason_text(reason: ReasonCode) -> Option<&'static str> {
    (reason == ReasonCode::QuotaExceeded)
        .then_some("over a limit of a queue, of the retained message store or of memory")
}
