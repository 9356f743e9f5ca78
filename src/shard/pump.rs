//! A session's queue into its window, and the client's acknowledgements out of it.

use super::Shard;
use super::connection::Links;
use super::deliver::{Envelope, is_large};
use super::durable::{Wait, format};
use super::routing::Target;
use super::sessions::Kept;
use crate::base::{ConnectionId, PacketId, QoS, ReasonCode};
use crate::codec::{self, Ack, AckKind};
use crate::log::{MessageNumber, Sequence};
use crate::queue::Item;
use crate::route::Subscriber;
use crate::session::{Stage, Violation};
use std::sync::Arc;

/// So many deliveries of a session on disk may be in flight however large they are, as far as its window goes.
const HEAVY_WINDOW: usize = 256;
/// More only if they have not more bytes than this, by the size of the next.
const WINDOW_BYTES_MAX: usize = 16 << 20;

/// The next thing a session's window has to send.
enum Next {
    /// PUBREL again.
    Release(PacketId),
    /// PUBLISH, for the first time or again.
    Again(PacketId, QoS, Item, bool),
    /// An entry of which nothing was kept.
    Nothing,
    /// The head of the queue.
    New(Item),
    /// The head of the queue is in the window now.
    Reserved,
}

impl Shard {
    /// Sends what the window and the socket have room for. What leaves makes room for replays.
    pub(super) fn pump(&mut self, session: u32) {
        self.send_waiting(session);
        self.step_replays(session);
    }

    fn send_waiting(&mut self, session: u32) {
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
                Next::Again(packet_id, qos, item, dup) => {
                    self.send_in_window(session, link, packet_id, qos, &item, dup);
                }
                Next::Nothing => self.forget_resend(session),
                Next::New(item) => self.send_queued(session, item),
                Next::Reserved => {}
            }
        }
    }

    fn next_delivery(&mut self, session: u32) -> Option<(u32, Next)> {
        let entry = self.sessions.at_mut(session)?;
        let link = entry.connection()?;
        let connection = self.links.at(link)?;
        if entry.outgoing.is_none() && entry.durable.as_ref().is_some_and(|kept| kept.is_behind()) {
            entry.outgoing = Some(Box::default());
        }
        let outgoing = entry.outgoing.as_mut()?;
        let backlog = Links::backlog(connection);
        if backlog.socket_busy && backlog.bytes >= self.options.budgets.out_bytes_high {
            return None;
        }
        // [MQTT-3.3.4-9]
        let window = usize::from(connection.window);
        if outgoing.window.in_flight() >= window {
            return None;
        }
        if outgoing.window.has_resends() {
            return self.next_in_window(session).map(|next| (link, next));
        }
        // [MQTT-3.3.2-5]
        let expired = outgoing.queue.drop_expired(self.now.wall);
        let is_durable = entry.durable.is_some();
        self.counters.expired += expired.len() as u64;
        for item in expired {
            self.settle_in_log(session, item.number);
            self.settle_group(item.group);
        }
        if is_durable {
            return self.next_kept(session, window).map(|next| (link, next));
        }
        let outgoing = self.sessions.at_mut(session)?.outgoing.as_mut()?;
        outgoing.queue.pop().map(|item| (link, Next::New(item)))
    }

    /// What waits in the window to be sent, if it may be now.
    fn next_in_window(&mut self, session: u32) -> Option<Next> {
        let committed = self.last_committed();
        let window = &mut self.sessions.at_mut(session)?.outgoing.as_mut()?.window;
        let entry = window.peek_unsent()?;
        let is_ready = entry.item.as_ref().is_none_or(|kept| kept.ready <= committed);
        if !is_ready {
            return None;
        }
        let next = match (entry.stage, &entry.item) {
            (Stage::Released, _) => Next::Release(entry.packet_id),
            (Stage::Published, None) => Next::Nothing,
            (Stage::Published, Some(kept)) => match &kept.item {
                Some(item) => Next::Again(entry.packet_id, entry.qos, item.clone(), kept.was_sent),
                None => {
                    let number = kept.number;
                    self.fetch_from(session, number);
                    return None;
                }
            },
        };
        let entry = window.next_resend()?;
        if let Some(kept) = &mut entry.item {
            kept.was_sent = true;
        }
        Some(next)
    }

    /// The head of a queue that is on disk too: into the window, and from there to the client once it may.
    fn next_kept(&mut self, session: u32, window: usize) -> Option<Next> {
        let outgoing = self.sessions.at_mut(session)?.outgoing.as_mut()?;
        let Some(first) = outgoing.queue.front() else {
            self.fetch_next(session);
            return None;
        };
        let in_flight = outgoing.window.len();
        // Their messages are kept in memory until they are settled.
        let is_heavy = in_flight >= HEAVY_WINDOW && in_flight * first.message.size() > WINDOW_BYTES_MAX;
        let is_full = in_flight >= window || is_heavy;
        let (number, qos) = (first.number, first.qos);
        if number == 0 {
            return outgoing.queue.pop().map(Next::New);
        }
        if is_full || self.is_uncommitted(number) {
            return None;
        }
        let entry = self.sessions.at_mut(session)?;
        let stream = entry.durable.as_ref()?.stream;
        let outgoing = entry.outgoing.as_mut()?;
        let item = outgoing.queue.pop()?;
        let kept = Kept { item: Some(item), number, ready: Sequence::default(), was_sent: false };
        let packet_id = outgoing.window.reserve(qos, Some(Box::new(kept)));
        if qos == QoS::ExactlyOnce {
            let tag = format::tag(packet_id, false);
            let marked = self.durable.as_mut()?.log.mark(stream, MessageNumber(number), tag);
            // A failed log marks nothing: what must not be sent twice is not sent at all.
            self.wait_in_window(session, packet_id, marked.unwrap_or(Sequence(u64::MAX)));
        }
        Some(Next::Reserved)
    }

    /// A delivery in the window goes on after this commit.
    fn wait_in_window(&mut self, session: u32, packet_id: PacketId, commit: Sequence) {
        let window = self.sessions.at_mut(session).and_then(|entry| entry.outgoing.as_mut());
        let Some(window) = window.map(|outgoing| &mut outgoing.window) else { return };
        if let Some(kept) = window.get_mut(packet_id).and_then(|entry| entry.item.as_mut()) {
            kept.ready = commit;
        }
        self.wake_at(session, commit);
    }

    /// A delivery is settled: its message need not be kept for this session.
    pub(super) fn settle_in_log(&mut self, session: u32, number: u64) {
        if number == 0 {
            return;
        }
        let stream =
            self.sessions.at(session).and_then(|entry| entry.durable.as_ref()).map(|kept| kept.stream);
        if let (Some(durable), Some(stream)) = (&mut self.durable, stream) {
            // Refused only if the log is poisoned: then it is delivered again after the next start.
            let _ = durable.log.acknowledge(stream, MessageNumber(number));
        }
    }

    fn send_in_window(
        &mut self,
        session: u32,
        link: u32,
        packet_id: PacketId,
        qos: QoS,
        item: &Item,
        dup: bool,
    ) {
        let message = item.message.as_ref().as_ref();
        let envelope = Envelope {
            // [MQTT-3.3.1-1]
            dup,
            qos,
            retain: item.retain,
            packet_id: Some(packet_id),
            subscription_ids: item.identifiers.as_slice(),
        };
        let shared = is_large(&message).then(|| Arc::clone(&item.message));
        let hash = self.trie.topic_hash(message.head.vhost, message.topic);
        if !self.encode(link, &message, hash, envelope, shared) {
            self.forget_resend(session);
        }
    }

    fn forget_resend(&mut self, session: u32) {
        let outgoing = self.sessions.at_mut(session).and_then(|entry| entry.outgoing.as_mut());
        let forgotten = outgoing.and_then(|outgoing| outgoing.window.forget_last());
        self.settle_kept(session, forgotten.and_then(|entry| entry.item));
    }

    /// What was kept of a delivery is not needed any more.
    fn settle_kept(&mut self, session: u32, kept: Option<Box<Kept>>) {
        let Some(kept) = kept else { return };
        self.settle_in_log(session, kept.number);
        self.settle_group(kept.item.and_then(|item| item.group));
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
        let shared = is_large(&message_ref).then(|| Arc::clone(&message));
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
            if let Some(kept) = outgoing.window.pubrec(ack.packet_id)? {
                reason = ReasonCode::Success;
                let (number, group) = match kept {
                    Some(kept) => (kept.number, kept.item.take().and_then(|item| item.group)),
                    None => (0, None),
                };
                if number == 0 {
                    *kept = None;
                }
                self.settle_group(group);
                if number != 0 {
                    self.release_after_commit(slot, session, ack.packet_id, number);
                    return Ok(());
                }
            }
        } else if ack.reason.is_error() {
            return Ok(());
        }
        let out = self.links.out(slot).bytes_mut();
        codec::encode_ack(AckKind::PubRel, ack.packet_id, reason, None, version, out);
        Ok(())
    }

    /// PUBREC has come: PUBREL leaves when that is on disk. [MQTT-4.3.3-4]
    fn release_after_commit(&mut self, slot: u32, session: u32, packet_id: PacketId, number: u64) {
        let Some(connection) = self.links.id_at(slot) else { return };
        let stream =
            self.sessions.at(session).and_then(|entry| entry.durable.as_ref()).map(|kept| kept.stream);
        let (Some(durable), Some(stream)) = (&mut self.durable, stream) else { return };
        let tag = format::tag(packet_id, true);
        // A failed log marks nothing: the client sends PUBREC again after the next start.
        let Ok(commit) = durable.log.mark(stream, MessageNumber(number), tag) else { return };
        self.wait_in_window(session, packet_id, commit);
        self.after_commit(commit, Wait::Release(connection, packet_id));
    }

    pub(super) fn send_release(&mut self, connection: ConnectionId, packet_id: PacketId) {
        let Some(version) = self.links.established(connection).map(|found| found.version) else { return };
        let out = self.links.out(connection.slot).bytes_mut();
        codec::encode_ack(AckKind::PubRel, packet_id, ReasonCode::Success, None, version, out);
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

    fn settled(&mut self, session: u32, reason: ReasonCode, kept: Option<Box<Kept>>) {
        if let Some(entry) = self.sessions.at(session) {
            self.counters.settled[entry.version.index()] += 1;
        }
        self.counters.refused_by_client += u64::from(reason.is_error());
        self.settle_kept(session, kept);
        self.pump(session);
    }
}
