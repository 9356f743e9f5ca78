//! One message to one session: drop, queue or encode.

use super::Shard;
use super::connection::{Connection, Links, Phase};
use super::limit::Limit;
use super::routing::{Encoded, Routing, Target};
use super::sessions::Kept;
use crate::base::buffer::SHARE_MIN;
use crate::base::{Message, MessageRef, PacketId, QoS, Version, Wall};
use crate::codec::Delivery;
use crate::queue::{GroupRef, Item, Pushed, qos0};
use crate::session::Outcome;
use crate::session::aliases::Naming;
use std::sync::Arc;

/// What a delivery has of its own, besides the message.
#[derive(Clone, Copy)]
pub(super) struct Envelope<'a> {
    pub(super) dup: bool,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) packet_id: Option<PacketId>,
    pub(super) subscription_ids: &'a [u32],
}

const TAKEN: Outcome = Outcome {
    matched: true,
    taken: true,
    refused: false,
    not_retained: false,
    kept: false,
    refused_durably: false,
    failed: false,
    unkept: false,
    forgotten: false,
};

impl Shard {
    /// A message for a session that subscribes to it.
    pub(super) fn deliver_to_session(
        &mut self,
        session: u32,
        target: &Target,
        routing: &mut Routing<'_>,
        group: Option<GroupRef>,
    ) -> Outcome {
        let Some(entry) = self.sessions.at(session).filter(|entry| !entry.ended) else {
            return Outcome::default();
        };
        if entry.extra.as_ref().is_some_and(|extra| !extra.replays.is_empty())
            && self.replay_intercepts(session, target, routing, group)
        {
            return TAKEN;
        }
        self.deliver_now(session, target, routing, group)
    }

    /// The same, past any replay that runs.
    pub(super) fn deliver_now(
        &mut self,
        session: u32,
        target: &Target,
        routing: &mut Routing<'_>,
        group: Option<GroupRef>,
    ) -> Outcome {
        let entry = self.sessions.at(session);
        let link = entry.and_then(super::sessions::Session::connection);
        if target.qos == QoS::AtMostOnce {
            // [MQTT-4.6.0-6]
            let has_older = self.options.queue.queue_qos0_offline
                && entry.and_then(|entry| entry.outgoing.as_ref()).is_some_and(|out| out.queue.has_qos0());
            match link.filter(|_| !has_older) {
                Some(link) => self.deliver_qos0(link, target, routing),
                None if self.options.queue.queue_qos0_offline => {
                    self.enqueue(session, target, routing, group);
                }
                None => self.counters.dropped_offline += 1,
            }
            return TAKEN;
        }
        self.enqueue(session, target, routing, group)
    }

    /// Straight into the connection's out-buffer, or dropped.
    fn deliver_qos0(&mut self, link: u32, target: &Target, routing: &mut Routing<'_>) {
        let Some(connection) = self.links.at_mut(link) else { return };
        if !qos0::admits(Links::backlog(connection), &self.options.queue) {
            let session = match connection.phase {
                Phase::Established { session } => Some(session),
                Phase::Connecting(_) | Phase::Closing => None,
            };
            self.counters.dropped_qos0 += 1;
            self.met_by(Limit::Qos0, session);
            return;
        }
        if is_plain(connection, target, routing.message) {
            let version = connection.version;
            let size_max = connection.packet_size_max as usize;
            let bytes = encoded(&mut self.scratch.encoded, routing, version);
            if bytes.len() > size_max {
                self.counters.dropped_too_large += 1;
                return;
            }
            connection.qos0_waiting += 1;
            self.links.out(link).bytes_for(bytes.len()).extend_from_slice(bytes);
            self.counters.delivered.count(version, QoS::AtMostOnce, bytes.len());
            return;
        }
        let envelope = Envelope {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: target.retain,
            packet_id: None,
            subscription_ids: target.identifiers.as_slice(),
        };
        let shared = is_large(routing.message).then(|| routing.share());
        if self.encode(link, routing.message, routing.topic_hash, envelope, shared)
            && let Some(connection) = self.links.at_mut(link)
        {
            connection.qos0_waiting += 1;
        }
    }

    /// Into the window if it has room and nothing is before it, else into the queue.
    fn enqueue(
        &mut self,
        session: u32,
        target: &Target,
        routing: &mut Routing<'_>,
        group: Option<GroupRef>,
    ) -> Outcome {
        let kept = self.sessions.at(session).and_then(|entry| entry.durable.as_ref());
        if let Some(stream) = kept.filter(|_| target.qos > QoS::AtMostOnce).map(|kept| kept.stream) {
            return self.hold_delivery(session, stream, target, group, routing);
        }
        if target.qos > QoS::AtMostOnce && self.window_has_room(session) {
            let keeps = group.is_some() || self.sessions.at(session).is_some_and(|entry| entry.is_durable());
            let item = keeps.then(|| item(target, routing.share(), group));
            let shared = is_large(routing.message).then(|| routing.share());
            self.send_new(session, routing.message, routing.topic_hash, target, item, shared);
            return TAKEN;
        }
        let item = item(target, routing.share(), group);
        let Some(entry) = self.sessions.at_mut(session) else { return Outcome::default() };
        let outgoing = entry.outgoing.get_or_insert_default();
        match outgoing.queue.push(item, &self.options.queue) {
            Pushed::Queued => TAKEN,
            Pushed::Dropped(items) => {
                self.counters.dropped_head += items.len() as u64;
                for dropped in items {
                    self.settle_in_log(session, dropped.number);
                    self.settle_group(dropped.group);
                }
                self.met_by(Limit::QueueDropped, Some(session));
                TAKEN
            }
            Pushed::Refused => {
                self.counters.refused += 1;
                self.met_by(Limit::QueueRefused, Some(session));
                Outcome { matched: true, refused: true, ..Outcome::default() }
            }
        }
    }

    /// Whether a new delivery can leave at once.
    fn window_has_room(&self, session: u32) -> bool {
        let Some(entry) = self.sessions.at(session) else { return false };
        let Some(connection) = entry.connection().and_then(|link| self.links.at(link)) else { return false };
        let backlog = Links::backlog(connection);
        if backlog.socket_busy && backlog.bytes >= self.options.budgets.out_bytes_high {
            return false;
        }
        entry.outgoing.as_ref().is_none_or(|outgoing| {
            outgoing.queue.is_empty()
                && !outgoing.window.has_resends()
                && outgoing.window.in_flight() < usize::from(connection.window)
        })
    }

    /// Sends a delivery for the first time. What is too large for the client is dropped, and counts as settled.
    pub(super) fn send_new(
        &mut self,
        session: u32,
        message: &MessageRef<'_>,
        topic_hash: u64,
        target: &Target,
        item: Option<Item>,
        shared: Option<Arc<Message>>,
    ) {
        let group = item.as_ref().and_then(|item| item.group);
        let Some(entry) = self.sessions.at_mut(session) else { return };
        let Some(link) = entry.connection() else { return };
        let window = &mut entry.outgoing.get_or_insert_default().window;
        let packet_id =
            (target.qos != QoS::AtMostOnce).then(|| window.begin(target.qos, item.map(Kept::in_memory)));
        let envelope = Envelope {
            dup: false,
            qos: target.qos,
            retain: target.retain,
            packet_id,
            subscription_ids: target.identifiers.as_slice(),
        };
        if self.encode(link, message, topic_hash, envelope, shared) {
            return;
        }
        if packet_id.is_some()
            && let Some(outgoing) = self.sessions.at_mut(session).and_then(|entry| entry.outgoing.as_mut())
        {
            outgoing.window.forget_last();
        }
        self.settle_group(group);
    }

    /// Encodes one PUBLISH; `false` if it is larger than the client takes. [MQTT-3.1.2-24]
    pub(super) fn encode(
        &mut self,
        link: u32,
        message: &MessageRef<'_>,
        topic_hash: u64,
        envelope: Envelope<'_>,
        shared: Option<Arc<Message>>,
    ) -> bool {
        let Some(connection) = self.links.at_mut(link) else { return false };
        let version = connection.version;
        let mut delivery = Delivery {
            dup: envelope.dup,
            qos: envelope.qos,
            retain: envelope.retain,
            topic: message.topic,
            topic_alias: None,
            packet_id: envelope.packet_id,
            expiry: remaining(message.head.expires_at, self.now.wall),
            subscription_ids: envelope.subscription_ids,
            properties: message.properties,
            payload: message.payload,
        };
        if connection.packet_size_max != u32::MAX
            && delivery.size(version) + ALIAS_SIZE_MAX > connection.packet_size_max as usize
        {
            // Without an alias it may just fit.
            if delivery.size(version) > connection.packet_size_max as usize {
                self.counters.dropped_too_large += 1;
                return false;
            }
        } else if let Some(aliases) = connection.aliases.as_deref_mut() {
            match aliases.outgoing.name(topic_hash) {
                Naming::Topic => {}
                Naming::Define(alias) => delivery.topic_alias = Some(alias),
                Naming::Alias(alias) => {
                    delivery.topic_alias = Some(alias);
                    delivery.topic = "";
                }
            }
        }
        let out = self.links.out(link);
        let before = out.len();
        let tail_size = delivery.tail_size(version);
        match shared.filter(|_| tail_size >= SHARE_MIN) {
            Some(message) => {
                delivery.encode_head(version, out.bytes_mut());
                out.push_tail(message, tail_size);
            }
            None => delivery.encode(version, out.bytes_mut()),
        }
        if envelope.dup {
            self.counters.redelivered[version.index()] += 1;
        } else {
            self.counters.delivered.count(version, envelope.qos, out.len() - before);
        }
        true
    }
}

/// What a topic alias adds to a packet: the property, and the property length's second byte.
const ALIAS_SIZE_MAX: usize = 4;

/// Whether the message is sent from where it is, at least to subscribers that get its properties.
pub(super) fn is_large(message: &MessageRef<'_>) -> bool {
    message.properties.len() + message.payload.len() >= SHARE_MIN
}

/// Whether the subscriber gets the same bytes as others of its version.
fn is_plain(connection: &Connection, target: &Target, message: &MessageRef<'_>) -> bool {
    if target.retain || message.payload.len() >= SHARE_MIN {
        return false;
    }
    !connection.version.is_v5()
        || (!is_large(message)
            && connection.aliases.is_none()
            && target.identifiers.as_slice().is_empty()
            && message.head.expires_at == Wall::NEVER)
}

/// The message as a QoS 0 packet of `version`, encoded at the first use.
fn encoded<'a>(cache: &'a mut Encoded, routing: &Routing<'a>, version: Version) -> &'a [u8] {
    let message = routing.message;
    let bytes = match (version.is_v5(), routing.verbatim) {
        (false, Some(verbatim)) => return verbatim,
        (false, None) => &mut cache.v3,
        (true, _) => &mut cache.v5,
    };
    if bytes.is_empty() {
        let delivery = Delivery {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: message.topic,
            topic_alias: None,
            packet_id: None,
            expiry: None,
            subscription_ids: &[],
            properties: message.properties,
            payload: message.payload,
        };
        delivery.encode(version, bytes);
    }
    bytes
}

/// What is left of a message's expiry, in seconds, rounded up; never 0, since an expired one is not sent. [MQTT-3.3.2-6]
fn remaining(expires_at: Wall, now: Wall) -> Option<u32> {
    if expires_at == Wall::NEVER {
        return None;
    }
    let secs = expires_at.0.saturating_sub(now.0).div_ceil(1000).max(1);
    Some(u32::try_from(secs).unwrap_or(u32::MAX))
}

pub(super) fn item(target: &Target, message: Arc<Message>, group: Option<GroupRef>) -> Item {
    Item {
        message,
        qos: target.qos,
        retain: target.retain,
        identifiers: target.identifiers.clone(),
        group,
        number: 0,
    }
}
