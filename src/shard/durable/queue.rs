//! Messages to records, and back when a session has room for them.
//!
//! A publish is one record a shard, whoever holds it: deliveries gather while it is matched, and one append takes them all. A
//! session whose client is there and keeps up has its messages in memory too, and is given them after the commit; one that is
//! away or behind has their places in the log only, and reads them back in batches.

use super::{Shard, Wait, format};
use crate::base::{Message, MessageHead, MessageRef, Publisher, SessionId, ShardId, Wall};
use crate::log::{
    FetchId, Fetched, Health, Holder, MessageNumber, NewMessage, Origin, Refused, Sequence, Stored, StreamId,
};
use crate::queue::{GroupRef, Item, Overflow};
use crate::session::{Outcome, Stage};
use crate::shard::limit::Limit;
use crate::shard::routing::{Routing, Target};
use crate::shard::sessions::Kept;
use hashbrown::HashMap;
use std::sync::Arc;

/// Messages kept in memory for a session whose client is there; more wait in the log only.
const LOADED_MAX: usize = 1_000;
/// Bytes of them.
const LOADED_BYTES_MAX: u64 = 1 << 20;
/// Messages read back in one go.
const FETCH_MESSAGES: usize = 128;
/// Bytes read back in one go.
const FETCH_BYTES: u64 = 256 << 10;
/// What a message's head has besides the message's own bytes and what is counted for each delivery, at most.
const HEAD_SIZE_MAX: usize = 128;
/// No group's slot.
const UNKNOWN_SLOT: u32 = u32::MAX;

/// Deliveries of the message that is being matched, to sessions on disk. Whoever delivers has them appended
/// ([`keep_here`](Shard::keep_here)), or kept for later ([`take`](Self::take)): they are never dropped.
#[derive(Debug, Default)]
pub(in crate::shard) struct Held {
    deliveries: Vec<Delivery>,
}

impl Drop for Held {
    fn drop(&mut self) {
        debug_assert!(self.deliveries.is_empty(), "what was gathered is appended");
    }
}

/// One of them.
#[derive(Debug)]
pub(in crate::shard) struct Delivery {
    session: u32,
    stream: StreamId,
    target: Target,
    group: Option<GroupRef>,
}

/// What became of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(in crate::shard) struct Appended {
    /// Besides what waits for the commit.
    pub(in crate::shard) outcome: Outcome,
    /// What they wait for.
    pub(in crate::shard) commit: Option<Sequence>,
}

impl Held {
    /// What was gathered before.
    pub(in crate::shard) fn of(deliveries: Vec<Delivery>) -> Self {
        Self { deliveries }
    }

    pub(in crate::shard) fn take(&mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.deliveries)
    }

    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }
}

/// What is said once the commit is through.
pub(in crate::shard) const KEPT: Outcome = Outcome {
    matched: true,
    taken: true,
    kept: true,
    refused: false,
    refused_durably: false,
    not_retained: false,
    failed: false,
    unkept: false,
    forgotten: false,
};

impl Shard {
    /// A delivery to a session on disk: gathers until [`append_held`](Self::append_held), or is refused.
    pub(in crate::shard) fn hold_delivery(
        &mut self,
        session: u32,
        stream: StreamId,
        target: &Target,
        group: Option<GroupRef>,
        routing: &mut Routing<'_>,
    ) -> Outcome {
        let health = self.log_health().unwrap_or_default();
        if health != Health::Good {
            return self.refused(if health == Health::Full { Refused::Full } else { Refused::Poisoned });
        }
        if self.options.queue.overflow == Overflow::RejectPublish
            && !self.has_queue_room(session, stream, routing.message.size())
        {
            self.counters.refused += 1;
            self.met_by(Limit::QueueRefused, Some(session));
            return Outcome { matched: true, refused_durably: true, ..Outcome::default() };
        }
        let deliveries = &mut routing.held.deliveries;
        if deliveries.capacity() == 0 {
            *deliveries = std::mem::take(&mut self.spare_deliveries);
        }
        deliveries.push(Delivery { session, stream, target: target.clone(), group });
        Outcome { matched: true, ..Outcome::default() }
    }

    /// Whether the message has to wait for a segment: none that was gathered now may be kept before those that wait already.
    pub(in crate::shard) fn must_wait_for_segment(&mut self, routing: &Routing<'_>) -> bool {
        let (size, deliveries) = (routing.message.size(), &routing.held.deliveries);
        !deliveries.is_empty() && (!self.waiting.is_empty() || self.is_short_of_segment(size, deliveries))
    }

    /// Whether there is no segment yet for a message of so many bytes and everybody who was gathered.
    pub(in crate::shard) fn is_short_of_segment(&mut self, size: usize, deliveries: &[Delivery]) -> bool {
        let Some(durable) = &mut self.durable else { return false };
        let identifiers = deliveries.iter().map(|delivery| delivery.target.identifiers.as_slice().len());
        let more = (3 * deliveries.len() + identifiers.sum::<usize>()) * size_of::<u32>();
        durable.log.must_wait(size + HEAD_SIZE_MAX + more, deliveries.len())
    }

    /// Appends the message to the log for everybody who was gathered.
    pub(in crate::shard) fn append_held(&mut self, routing: &mut Routing<'_>) -> Appended {
        let mut appended = Appended::default();
        let mut waiting = routing.held.take();
        let mut origin = routing.origin;
        if let Some(durable) =
            self.durable.as_ref().filter(|durable| origin.is_some_and(|o| durable.log.has_origin(o)))
        {
            // Published before a crash, and sent again. Members of groups get it again: that somebody here has it does not say
            // that the member has whom it was given to then, on another shard perhaps.
            appended.commit = Some(durable.log.last());
            origin = None;
            waiting.retain(|delivery| delivery.group.is_some());
        }
        while !waiting.is_empty() {
            // A session holds a message once a record: what came to it through a group too is another one, and a later one, as
            // the first has the origin, by which it is known that everybody without a group has it.
            waiting.sort_by_key(|delivery| (delivery.stream, delivery.group.is_some()));
            let mut seen = None;
            let is_second = |delivery: &mut Delivery| seen.replace(delivery.stream) == Some(delivery.stream);
            let second: Vec<Delivery> = waiting.extract_if(.., is_second).collect();
            self.append_once(&mut waiting, routing, origin.take(), &mut appended);
            self.spare_deliveries = std::mem::replace(&mut waiting, second);
            self.spare_deliveries.clear();
        }
        appended
    }

    fn append_once(
        &mut self,
        deliveries: &mut Vec<Delivery>,
        routing: &mut Routing<'_>,
        origin: Option<Origin>,
        appended: &mut Appended,
    ) {
        self.give_back_gone(deliveries, routing);
        let Some(durable) = &mut self.durable else { return };
        if deliveries.is_empty() {
            return;
        }
        durable.more.clear();
        durable.holders.clear();
        for delivery in &*deliveries {
            let target = &delivery.target;
            let group = delivery.group.map_or(0, |group| group.hash);
            let note =
                format::put_note(target.qos, target.retain, &target.identifiers, group, &mut durable.more);
            durable.holders.push(Holder { stream: delivery.stream, note, tag: 0 });
        }
        let message = routing.message;
        format::put_head(message, &durable.more, &mut durable.value);
        let record = NewMessage {
            vhost: message.head.vhost,
            expires_at: message.head.expires_at,
            origin,
            head: &durable.value,
            payload: message.payload,
        };
        match durable.log.append(&record, &mut durable.holders) {
            Ok((number, commit)) => {
                durable.has_expiring |= message.head.expires_at != Wall::NEVER;
                let after = number.0 + 1;
                match durable.numbers.back_mut() {
                    Some(last) if last.0 == commit => last.1 = after,
                    _ => durable.numbers.push_back((commit, after)),
                }
                appended.commit = Some(commit);
                self.counters.log_messages += 1;
                for delivery in &*deliveries {
                    self.hand_to_session(delivery, number.0, commit, routing);
                }
            }
            Err(refused) => {
                appended.outcome = appended.outcome.and(self.refused(refused));
                deliveries.iter().for_each(|delivery| self.settle_group(delivery.group));
            }
        }
    }

    /// Sessions may be over by now: what came to them through groups is other members'.
    fn give_back_gone(&mut self, deliveries: &mut Vec<Delivery>, routing: &mut Routing<'_>) {
        let Some(durable) = &self.durable else { return };
        let is_gone = |delivery: &mut Delivery| !durable.log.is_open(delivery.stream);
        let gone: Vec<Delivery> = deliveries.extract_if(.., is_gone).collect();
        for group in gone.into_iter().filter_map(|delivery| delivery.group) {
            let gather = self.gather_for(routing);
            self.return_to_group(group, routing.share(), gather);
        }
    }

    /// A message is in the log: it is also in memory if the session's client is there and keeps up.
    fn hand_to_session(
        &mut self,
        delivery: &Delivery,
        number: u64,
        commit: Sequence,
        routing: &mut Routing<'_>,
    ) {
        let session = delivery.session;
        let Some(entry) = self.sessions.at_mut(session) else { return };
        let is_online = entry.connection().is_some();
        let Some(kept) = entry.durable.as_mut().filter(|kept| kept.stream == delivery.stream) else { return };
        if is_online && !kept.is_behind {
            let queue = &mut entry.outgoing.get_or_insert_default().queue;
            if queue.len() < LOADED_MAX && queue.bytes() < LOADED_BYTES_MAX {
                let mut item = crate::shard::deliver::item(&delivery.target, routing.share(), delivery.group);
                item.number = number;
                queue.push_kept(item);
            } else {
                (kept.is_behind, kept.next) = (true, number);
            }
        } else if !kept.is_behind {
            (kept.is_behind, kept.next) = (true, number);
        }
        if is_online {
            self.wake_at(session, commit);
        }
        if self.options.queue.overflow == Overflow::DropHead {
            self.drop_heads(session, delivery.stream);
        }
    }

    /// The session is pumped after this commit.
    pub(in crate::shard) fn wake_at(&mut self, session: u32, commit: Sequence) {
        let Some(id) = self.sessions.id_at(session) else { return };
        let Some(kept) = self.sessions.at_mut(session).and_then(|entry| entry.durable.as_mut()) else {
            return;
        };
        if kept.wake < commit {
            kept.wake = commit;
            self.after_commit(commit, Wait::Pump(id));
        }
    }

    /// Messages of a session that wait, not those its client has been sent.
    fn waiting_in_log(&self, session: u32, stream: StreamId) -> u64 {
        let held = self.durable.as_ref().map_or(0, |durable| durable.log.len(stream));
        let outgoing = self.sessions.at(session).and_then(|entry| entry.outgoing.as_ref());
        held.saturating_sub(outgoing.map_or(0, |outgoing| outgoing.window.len())) as u64
    }

    fn has_queue_room(&self, session: u32, stream: StreamId, size: usize) -> bool {
        let options = &self.options.queue;
        let bytes = self.durable.as_ref().map_or(0, |durable| durable.log.bytes(stream));
        options.session_messages_max.is_none_or(|max| self.waiting_in_log(session, stream) < u64::from(max))
            && options.session_bytes_max.is_none_or(|max| bytes + size as u64 <= max)
    }

    /// Drops the oldest messages of a session that wait until it is within its bounds.
    fn drop_heads(&mut self, session: u32, stream: StreamId) {
        let options = &self.options.queue;
        if options.session_messages_max.is_none() && options.session_bytes_max.is_none() {
            return;
        }
        let (messages_max, bytes_max) = (options.session_messages_max, options.session_bytes_max);
        loop {
            let Some(durable) = &self.durable else { return };
            let too_many =
                messages_max.is_some_and(|max| self.waiting_in_log(session, stream) > u64::from(max));
            let too_large = bytes_max.is_some_and(|max| durable.log.bytes(stream) > max);
            if !too_many && !too_large || !self.drop_head(session, stream) {
                return;
            }
        }
    }

    fn drop_head(&mut self, session: u32, stream: StreamId) -> bool {
        let Some(entry) = self.sessions.at_mut(session) else { return false };
        let Some(durable) = &mut self.durable else { return false };
        let Some(kept) = &mut entry.durable else { return false };
        let loaded = entry.outgoing.as_mut().and_then(|outgoing| outgoing.queue.pop());
        let (number, group) = match &loaded {
            Some(item) => (item.number, item.group),
            None => match durable.log.first_from(stream, MessageNumber(kept.next)) {
                Some(number) => (number.0, None),
                None => return false,
            },
        };
        let _ = durable.log.acknowledge(stream, MessageNumber(number));
        self.counters.dropped_head += 1;
        self.settle_group(group);
        self.met_by(Limit::QueueDropped, Some(session));
        true
    }

    /// A session's client went away: what is in the log need not be in memory.
    pub(super) fn unload(&mut self, session: u32) {
        let Some(entry) = self.sessions.at_mut(session) else { return };
        let (Some(kept), Some(outgoing)) = (&mut entry.durable, &mut entry.outgoing) else { return };
        if let Some(first) = outgoing.queue.drop_kept() {
            (kept.is_behind, kept.next) = (true, first);
        }
        for in_flight in outgoing.window.iter_mut() {
            if let Some(delivery) = in_flight.item.as_mut().filter(|delivery| delivery.number != 0) {
                delivery.item = None;
            }
        }
        if let Some(fetch) = kept.fetch.take()
            && let Some(durable) = &mut self.durable
        {
            durable.fetches.remove(&fetch);
        }
        if outgoing.queue.is_empty() && outgoing.window.is_empty() {
            entry.outgoing = None;
        }
    }

    /// Whether a session's messages from this one on are not committed yet.
    pub(in crate::shard) fn is_uncommitted(&self, number: u64) -> bool {
        self.durable.as_ref().is_some_and(|durable| number >= durable.committed_below)
    }

    /// Reads back what a session has room for: from the first that is not in its window already, as a batch may hold nothing else.
    pub(in crate::shard) fn fetch_next(&mut self, session: u32) {
        let kept = self.sessions.at(session).and_then(|entry| entry.durable.as_ref());
        let Some((kept, durable)) =
            kept.filter(|kept| kept.is_behind && kept.fetch.is_none()).zip(self.durable.as_ref())
        else {
            return;
        };
        let first = durable.log.first_from(kept.stream, MessageNumber(kept.next));
        self.fetch_from(session, first.map_or(kept.next, |first| first.0));
    }

    /// Reads back messages of a session from this one on.
    pub(in crate::shard) fn fetch_from(&mut self, session: u32, number: u64) {
        let Some(id) = self.sessions.id_at(session) else { return };
        let Some(durable) = &mut self.durable else { return };
        let Some(kept) = self.sessions.at_mut(session).and_then(|entry| entry.durable.as_mut()) else {
            return;
        };
        if kept.fetch.is_some() {
            return;
        }
        let fetch = durable.log.fetch(kept.stream, MessageNumber(number), FETCH_MESSAGES, FETCH_BYTES);
        kept.fetch = Some(fetch);
        durable.fetches.insert(fetch, id);
    }

    pub(super) fn on_fetched(&mut self, id: FetchId, stream: StreamId, messages: Vec<Fetched>) {
        let session = self.durable.as_mut().and_then(|durable| durable.fetches.remove(&id));
        let Some(session) = session else { return self.on_ending_fetched(id, stream, messages) };
        let Some(slot) = self.session_of(session, stream) else { return };
        let kept = self.sessions.at_mut(slot).and_then(|entry| entry.durable.as_mut()).expect("has a stream");
        kept.fetch = None;
        let (mut next, is_behind) = (kept.next, kept.is_behind);
        // Read for deliveries that had begun: what waits before them is not to be passed over.
        let waits =
            self.durable.as_ref().and_then(|durable| durable.log.first_from(stream, MessageNumber(next)));
        let loads =
            is_behind && waits.zip(messages.first()).is_none_or(|(waits, first)| first.number <= waits);
        let in_window = self.places_in_window(slot, &messages);
        let mut unreadable = Vec::new();
        for fetched in messages {
            let number = fetched.number.0;
            let item = match fetched.stored {
                Ok(stored) => self.item_of(slot, &stored, number),
                Err(damage) => {
                    tracing::error!(?damage, "a message of a session cannot be read back and is lost");
                    None
                }
            };
            let Some(item) = item else {
                self.lose(slot, stream, number, fetched.tag);
                unreadable.push(number);
                continue;
            };
            let entry = self.sessions.at_mut(slot).expect("found above");
            let outgoing = entry.outgoing.get_or_insert_default();
            let place = in_window.get(&number).and_then(|at| outgoing.window.iter_mut().nth(*at));
            if let Some(delivery) = place.and_then(|in_flight| in_flight.item.as_mut()) {
                delivery.item = Some(item);
            } else if loads && number >= next && fetched.tag == 0 {
                outgoing.queue.push_kept(item);
                next = number + 1;
            }
        }
        self.after_fetch(slot, stream, next, &unreadable);
    }

    /// Where messages that were read back are in flight, by number: one look at the window for all of them.
    fn places_in_window(&self, session: u32, messages: &[Fetched]) -> HashMap<u64, usize> {
        let (Some(first), Some(last)) = (messages.first(), messages.last()) else { return HashMap::new() };
        let read = first.number.0..=last.number.0;
        let outgoing = self.sessions.at(session).and_then(|entry| entry.outgoing.as_ref());
        let window = outgoing.into_iter().flat_map(|outgoing| outgoing.window.iter()).enumerate();
        let unreleased = window.filter(|(_, in_flight)| in_flight.stage == Stage::Published);
        let numbers = unreleased.filter_map(|(at, in_flight)| Some((in_flight.item.as_ref()?.number, at)));
        numbers.filter(|(number, _)| read.contains(number)).collect()
    }

    fn after_fetch(&mut self, session: u32, stream: StreamId, next: u64, unreadable: &[u64]) {
        let Some(durable) = &self.durable else { return };
        let has_more = durable.log.first_from(stream, MessageNumber(next)).is_some();
        let Some(entry) = self.sessions.at_mut(session) else { return };
        let Some(kept) = &mut entry.durable else { return };
        if kept.is_behind {
            (kept.next, kept.is_behind) = (next, has_more);
        }
        // What waits to be sent again and is not in the log any more cannot be; a log that has failed holds what it cannot read.
        let is_gone =
            |number: u64| unreadable.contains(&number) || !durable.log.holds(stream, MessageNumber(number));
        let is_lost = |delivery: &&Kept| delivery.item.is_none() && is_gone(delivery.number);
        if let Some(outgoing) = &mut entry.outgoing
            && let Some(first) = outgoing.window.peek_unsent().filter(|first| first.stage == Stage::Published)
            && let Some(lost) = first.item.as_deref().filter(is_lost)
        {
            let was_sent = lost.was_sent;
            outgoing.window.lose_unsent(was_sent);
        }
        self.pump(session);
    }

    /// A message cannot be read back. If its delivery has begun, its identifier is the client's until PUBCOMP.
    fn lose(&mut self, session: u32, stream: StreamId, number: u64, tag: u64) {
        let Some(durable) = &mut self.durable else { return };
        let outgoing = self.sessions.at_mut(session).and_then(|entry| entry.outgoing.as_mut());
        let mut window = outgoing.into_iter().flat_map(|outgoing| outgoing.window.iter_mut());
        let in_flight = window.find(|entry| entry.item.as_ref().is_some_and(|kept| kept.number == number));
        let kept = in_flight.as_ref().and_then(|entry| entry.item.as_ref());
        let is_released = in_flight.as_ref().is_some_and(|entry| entry.stage == Stage::Released);
        if is_released || kept.is_some_and(|kept| kept.item.is_some()) {
            return;
        }
        self.counters.log_lost += 1;
        let was_sent = kept.is_some_and(|kept| kept.was_sent);
        let Some((in_flight, (packet_id, _))) = in_flight.zip(format::untag(tag)).filter(|_| was_sent) else {
            let _ = durable.log.acknowledge(stream, MessageNumber(number));
            return;
        };
        in_flight.stage = Stage::Released;
        let marked = durable.log.mark(stream, MessageNumber(number), format::tag(packet_id, true));
        let commit = marked.unwrap_or(Sequence(u64::MAX));
        if let Some(kept) = &mut in_flight.item {
            kept.ready = commit;
        }
        drop(window);
        self.wake_at(session, commit);
    }

    /// A message read back, as a delivery.
    pub(super) fn item_of(&self, session: u32, stored: &Stored, number: u64) -> Option<Item> {
        let member = self.sessions.id_at(session)?;
        let (message, delivery) = message_of(stored)?;
        let group = (delivery.group != 0).then(|| GroupRef {
            shard: self.group_shard(delivery.group),
            slot: UNKNOWN_SLOT,
            hash: delivery.group,
            member,
        });
        let (qos, retain, identifiers) = (delivery.qos, delivery.retain, delivery.identifiers);
        Some(Item { message: Arc::new(message), qos, retain, identifiers, group, number })
    }
}

/// A message read back, and how it is delivered.
pub(super) fn message_of(stored: &Stored) -> Option<(Message, format::DeliveryNote)> {
    let (value, delivery) = format::head(&stored.head, stored.note)?;
    // No session has this id: nobody is taken for the publisher.
    let nobody = SessionId { slot: u32::MAX, generation: u32::MAX, shard: ShardId(u16::MAX) };
    let publisher = Publisher { session: nobody, client_hash: value.client_hash };
    let head = MessageHead {
        vhost: stored.vhost,
        qos: value.qos,
        retain: value.retain,
        expires_at: stored.expires_at,
        publisher: (value.client_hash != 0).then_some(publisher),
    };
    let message =
        MessageRef { head, topic: value.topic, properties: value.properties, payload: &stored.payload };
    Some((Message::new(&message), delivery))
}
