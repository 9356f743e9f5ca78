//! A session's queue into its window, and the client's acknowledgements out of it.

use super::Shard;
use super::connection::Links;
use super::deliver::Envelope;
use super::routing::Target;
use crate::base::buffer::SHARE_MIN;
use crate::base::{PacketId, QoS, ReasonCode};
use crate::codec::{self, Ack, AckKind};
use crate::queue::Item;
use crate::route::Subscriber;
use crate::session::{Stage, Violation};
use std::sync::Arc;

/// The next thing a session's window has to send.
enum Next {
    /// PUBREL again.
    Release(PacketId),
    /// PUBLISH again.
    Again(PacketId, QoS, Item),
    /// An entry of which nothing was kept.
    Nothing,
    /// The head of the queue.
    New(Item),
}

impl Shard {
    /// Sends what the window and the socket have room for.
    pub(super) fn pump(&mut self, session: u32) {
        while let Some((link, next)) = self.next_delivery(session) {
            match next {
                Next::Release(packet_id) => {
                    // [MQTT-4.4.0-1]
                    let Some(version) = self.links.at(link).map(|connection| connection.version) else {
                        return;
                    };
                    let out = self.links.out(link).bytes_mut();
                    codec::encode_ack(AckKind::PubRel, packet_id, ReasonCode::Success, None, version, out);
                }
                Next::Again(packet_id, qos, item) => self.send_again(session, link, packet_id, qos, &item),
                Next::Nothing => self.forget_resend(session),
                Next::New(item) => self.send_queued(session, item),
            }
        }
    }

    fn next_delivery(&mut self, session: u32) -> Option<(u32, Next)> {
        let entry = self.sessions.at_mut(session)?;
        let link = entry.connection()?;
        let connection = self.links.at(link)?;
        let outgoing = entry.outgoing.as_mut()?;
        let backlog = Links::backlog(connection);
        if backlog.socket_busy && backlog.bytes >= self.options.budgets.out_bytes_high {
            return None;
        }
        // [MQTT-3.3.4-9]
        if outgoing.window.in_flight() >= usize::from(connection.window) {
            return None;
        }
        if let Some(entry) = outgoing.window.next_resend() {
            let next = match (entry.stage, &entry.item) {
                (Stage::Released, _) => Next::Release(entry.packet_id),
                (Stage::Published, Some(item)) => Next::Again(entry.packet_id, entry.qos, item.clone()),
                (Stage::Published, None) => Next::Nothing,
            };
            return Some((link, next));
        }
        // [MQTT-3.3.2-5]
        let expired = outgoing.queue.drop_expired(self.now.wall);
        let next = outgoing.queue.pop().map(|item| (link, Next::New(item)));
        self.counters.expired += expired.len() as u64;
        for item in expired {
            self.settle_group(item.group);
        }
        next
    }

    fn send_again(&mut self, session: u32, link: u32, packet_id: PacketId, qos: QoS, item: &Item) {
        let message = item.message.as_ref().as_ref();
        let envelope = Envelope {
            // [MQTT-3.3.1-1]
            dup: true,
            qos,
            retain: item.retain,
            packet_id: Some(packet_id),
            subscription_ids: item.identifiers.as_slice(),
        };
        let shared = (message.payload.len() >= SHARE_MIN).then(|| Arc::clone(&item.message));
        let hash = self.trie.topic_hash(message.head.vhost, message.topic);
        if !self.encode(link, &message, hash, envelope, shared) {
            self.forget_resend(session);
        }
    }

    fn forget_resend(&mut self, session: u32) {
        let outgoing = self.sessions.at_mut(session).and_then(|entry| entry.outgoing.as_mut());
        let group =
            outgoing.and_then(|outgoing| outgoing.window.forget_last()).and_then(|entry| entry.item?.group);
        self.settle_group(group);
    }

    fn send_queued(&mut self, session: u32, item: Item) {
        let target = Target {
            subscriber: Subscriber(session),
            qos: item.qos,
            retain: item.retain,
            identifiers: item.identifiers.clone(),
        };
        let message = Arc::clone(&item.message);
        let message_ref = message.as_ref().as_ref();
        let shared = (message_ref.payload.len() >= SHARE_MIN).then(|| Arc::clone(&message));
        let hash = self.trie.topic_hash(message_ref.head.vhost, message_ref.topic);
        let keeps = item.group.is_some() || self.sessions.at(session).is_some_and(|entry| entry.is_durable());
        self.send_new(session, &message_ref, hash, &target, keeps.then_some(item), shared);
    }

    /// PUBACK settles a QoS 1 delivery, also a negative one. [MQTT-4.3.2-5]
    pub(super) fn on_puback(&mut self, session: u32, ack: &Ack<'_>) -> Result<(), Violation> {
        let Some(outgoing) = self.outgoing(session) else { return Ok(()) };
        if let Some(entry) = outgoing.window.puback(ack.packet_id)? {
            self.settled(session, ack.reason, entry.item);
        }
        Ok(())
    }

    /// PUBREC is answered with PUBREL, or settles the delivery if it is negative. [MQTT-4.3.3-4]
    pub(super) fn on_pubrec(&mut self, slot: u32, session: u32, ack: &Ack<'_>) -> Result<(), Violation> {
        let Some(version) = self.links.at(slot).map(|connection| connection.version) else { return Ok(()) };
        let mut reason = ReasonCode::PacketIdentifierNotFound;
        if let Some(outgoing) = self.outgoing(session) {
            if ack.reason.is_error() {
                if let Some(entry) = outgoing.window.pubrec_refused(ack.packet_id)? {
                    self.settled(session, ack.reason, entry.item);
                }
                return Ok(());
            }
            if let Some(item) = outgoing.window.pubrec(ack.packet_id)? {
                reason = ReasonCode::Success;
                self.settle_group(item.and_then(|item| item.group));
            }
        } else if ack.reason.is_error() {
            return Ok(());
        }
        let out = self.links.out(slot).bytes_mut();
        codec::encode_ack(AckKind::PubRel, ack.packet_id, reason, None, version, out);
        Ok(())
    }

    /// PUBCOMP settles a QoS 2 delivery.
    pub(super) fn on_pubcomp(&mut self, session: u32, ack: &Ack<'_>) -> Result<(), Violation> {
        let Some(outgoing) = self.outgoing(session) else { return Ok(()) };
        if let Some(entry) = outgoing.window.pubcomp(ack.packet_id)? {
            self.settled(session, ReasonCode::Success, entry.item);
        }
        Ok(())
    }

    fn outgoing(&mut self, session: u32) -> Option<&mut super::sessions::Outgoing> {
        self.sessions.at_mut(session)?.outgoing.as_deref_mut()
    }

    fn settled(&mut self, session: u32, reason: ReasonCode, item: Option<Item>) {
        if let Some(entry) = self.sessions.at(session) {
            self.counters.settled[entry.version.index()] += 1;
        }
        self.counters.refused_by_client += u64::from(reason.is_error());
        self.settle_group(item.and_then(|item| item.group));
        self.pump(session);
        self.step_replays(session);
    }
}
