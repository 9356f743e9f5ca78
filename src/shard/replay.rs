//! Retained messages to new subscriptions.
//!
//! A replay asks the homes of the retained messages that may match, one after the other, for one batch at a time, and the next
//! one when the subscriber has room: paced, and it always finishes. Two things keep it true to "the last value a subscriber sees
//! is the retained value":
//!
//! - A home answers only after it has applied every retained message this shard knows to have been sent to it (the counts
//!   travel with live messages and with [`InterestSettled`](super::peer::PeerMessage::InterestSettled)), so a replay is never older than
//!   what was seen live before.
//! - Topics delivered live with RETAIN while the replay runs are noted and skipped. When too many are noted, live messages of
//!   the subscription wait until the replay is through.

use super::Shard;
use super::connection::Links;
use super::peer::{PeerMessage, Scan};
use super::routing::{Routing, Target};
use crate::base::topic::{has_wildcard, matches};
use crate::base::{Message, MessageRef, QoS, SessionId, ShardId, VhostId};
use crate::queue::{GroupRef, Identifiers};
use crate::route::Subscriber;
use crate::route::retained::Cursor;
use hashbrown::HashSet;
use std::collections::VecDeque;
use std::sync::Arc;

/// A replay to be started.
#[derive(Debug)]
pub(super) struct NewReplay {
    pub(super) vhost: VhostId,
    pub(super) filter: Box<str>,
    pub(super) qos: QoS,
    pub(super) subscription_id: u32,
}

/// A replay that runs.
#[derive(Debug)]
pub(super) struct Replay {
    session: SessionId,
    what: NewReplay,
    /// Shards not asked to the end yet; the last one is asked now.
    homes: Vec<ShardId>,
    /// Where the current home goes on; `None` while it is being asked.
    cursor: Option<Box<Cursor>>,
    batch: VecDeque<Arc<Message>>,
    noted: HashSet<u64>,
    /// Too many topics were noted: live messages wait for the end.
    parking: bool,
}

impl Replay {
    /// Whether it may have something of this message's topic.
    fn matches(&self, message: &MessageRef<'_>) -> bool {
        self.what.vhost == message.head.vhost && matches(&self.what.filter, message.topic)
    }
}

/// A session's live messages that wait for replays, in order.
#[derive(Debug, Default)]
pub(super) struct Parking {
    parked: Vec<Parked>,
    /// Of `parked`: what comes after them has to wait too.
    topics: HashSet<u64>,
}

/// One of them.
#[derive(Debug)]
struct Parked {
    target: Target,
    message: Arc<Message>,
    group: Option<GroupRef>,
}

/// A question that waits for retained messages still on their way here.
#[derive(Debug)]
pub(super) struct HeldScan {
    from: ShardId,
    scan: Box<Scan>,
}

impl Shard {
    pub(super) fn start_replay(&mut self, session: SessionId, what: NewReplay) {
        // What waits may have come to a subscription that was gone for a while: what is retained by now is newer.
        self.release_parked(session);
        let homes: Vec<ShardId> = if has_wildcard(&what.filter) {
            (0..self.shards).map(ShardId).collect()
        } else {
            vec![self.retained_home(self.trie.topic_hash(what.vhost, &what.filter))]
        };
        let replay = Replay {
            session,
            what,
            homes,
            cursor: Some(Box::default()),
            batch: VecDeque::new(),
            noted: HashSet::new(),
            parking: false,
        };
        let token = self.replays.insert(replay);
        self.step_replay(token);
        // Most are through at once, and the session need not know of them.
        if self.replays.get(token.0, token.1).is_some()
            && let Some(entry) = self.sessions.get_mut(session)
        {
            entry.extra().replays.push(token.0);
        }
    }

    /// Goes on with a session's replays, as far as it has room.
    pub(super) fn step_replays(&mut self, session: u32) {
        let Some(extra) = self.sessions.at(session).and_then(|entry| entry.extra.as_ref()) else { return };
        if extra.replays.is_empty() {
            return;
        }
        for slot in extra.replays.clone() {
            if let Some(generation) = self.replays.generation_at(slot) {
                self.step_replay((slot, generation));
            }
        }
    }

    fn step_replay(&mut self, token: (u32, u32)) {
        loop {
            let Some(replay) = self.replays.get_mut(token.0, token.1) else { return };
            if let Some(message) = replay.batch.front() {
                let message = Arc::clone(message);
                let (session, qos) = (replay.session.slot, replay.what.qos.min(message.head().qos));
                if !self.has_room(session, qos) {
                    return;
                }
                self.replay_one(token, &message);
                continue;
            }
            if replay.homes.is_empty() {
                return self.finish_replay(token);
            }
            if !self.ask(token) {
                return;
            }
        }
    }

    /// Asks the current home for a batch; `false`: the answer will come later.
    fn ask(&mut self, token: (u32, u32)) -> bool {
        let Some(replay) = self.replays.get_mut(token.0, token.1) else { return false };
        let Some(home) = replay.homes.last().copied() else { return false };
        let Some(cursor) = replay.cursor.take() else { return false };
        let (vhost, filter) = (replay.what.vhost, replay.what.filter.clone());
        let after = self.mesh.retained_after(home);
        let scan = Box::new(Scan { replay: token, vhost, filter, cursor, after });
        if home != self.id {
            self.mesh.to(home).push(PeerMessage::Scan(scan));
            return false;
        }
        if !self.mesh.has_applied(&scan.after) {
            self.held_scans.push_back(HeldScan { from: home, scan });
            return false;
        }
        let (messages, cursor, finished) = self.scan(*scan);
        self.take_batch(token, messages, cursor, finished);
        true
    }

    /// Another shard asks for retained messages.
    pub(super) fn on_scan(&mut self, from: ShardId, scan: Box<Scan>) {
        if !self.mesh.has_applied(&scan.after) {
            self.held_scans.push_back(HeldScan { from, scan });
            return;
        }
        let replay = scan.replay;
        let (messages, cursor, finished) = self.scan(*scan);
        if from == self.id {
            self.on_scanned(replay, messages, cursor, finished);
        } else {
            self.mesh.to(from).push(PeerMessage::Scanned { replay, messages, cursor, finished });
        }
    }

    fn scan(&mut self, scan: Scan) -> (Vec<Arc<Message>>, Box<Cursor>, bool) {
        let (mut messages, mut cursor) = (Vec::new(), scan.cursor);
        let wall = self.now.wall;
        let batch = self.options.budgets.replay_batch;
        let finished = self.retained.scan(scan.vhost, &scan.filter, &mut cursor, batch, wall, &mut messages);
        (messages, cursor, finished)
    }

    /// More retained messages have been applied here: questions that waited for them are answered.
    pub(super) fn retry_held_scans(&mut self) {
        for _ in 0..self.held_scans.len() {
            if let Some(held) = self.held_scans.pop_front() {
                self.on_scan(held.from, held.scan);
            }
        }
    }

    pub(super) fn on_scanned(
        &mut self,
        token: (u32, u32),
        messages: Vec<Arc<Message>>,
        cursor: Box<Cursor>,
        finished: bool,
    ) {
        self.take_batch(token, messages, cursor, finished);
        self.step_replay(token);
    }

    fn take_batch(
        &mut self,
        token: (u32, u32),
        messages: Vec<Arc<Message>>,
        cursor: Box<Cursor>,
        finished: bool,
    ) {
        let Some(replay) = self.replays.get_mut(token.0, token.1) else { return };
        replay.batch.extend(messages);
        if finished {
            replay.homes.pop();
            replay.cursor = Some(Box::default());
        } else {
            replay.cursor = Some(cursor);
        }
    }

    /// Delivers the first message of the batch, unless its topic was delivered live meanwhile.
    fn replay_one(&mut self, token: (u32, u32), message: &Arc<Message>) {
        let message_ref = message.as_ref().as_ref();
        let hash = self.trie.topic_hash(message_ref.head.vhost, message_ref.topic);
        let Some(replay) = self.replays.get_mut(token.0, token.1) else { return };
        replay.batch.pop_front();
        if replay.noted.contains(&hash) || message_ref.is_expired(self.now.wall) {
            return;
        }
        let target = Target {
            subscriber: Subscriber(replay.session.slot),
            qos: replay.what.qos.min(message_ref.head.qos),
            // [MQTT-3.3.1-8]
            retain: true,
            identifiers: match replay.what.subscription_id {
                0 => Identifiers::None,
                id => Identifiers::One(id),
            },
        };
        let session = replay.session;
        if self.sessions.get_mut(session).is_none() {
            return;
        }
        self.scratch.encoded.v3.clear();
        self.scratch.encoded.v5.clear();
        let message_ref = message.as_ref().as_ref();
        let topic_hash = self.trie.topic_hash(message_ref.head.vhost, message_ref.topic);
        let shared = Some(Arc::clone(message));
        let mut routing = Routing::new(&message_ref, topic_hash, shared);
        let outcome = self.deliver_now(session.slot, &target, &mut routing, None);
        self.keep_for(None, &mut routing, outcome);
    }

    /// A replay of the session is over: delivers what waits, if no other replay holds it back.
    fn deliver_parked(&mut self, session: SessionId) {
        let Some(entry) = self.sessions.get_mut(session) else { return };
        let Some(extra) = &entry.extra else { return };
        let is_parking = |slot: &u32| self.replays.at(*slot).is_some_and(|replay| replay.parking);
        if !extra.replays.iter().any(is_parking) {
            self.release_parked(session);
        }
    }

    /// Delivers what waits. Replays that run note all of it, however much that is: what they have of its topics is older.
    fn release_parked(&mut self, session: SessionId) {
        let Some(entry) = self.sessions.get_mut(session) else { return };
        let Some(parking) = entry.extra.as_mut().and_then(|extra| extra.parking.take()) else { return };
        entry.drop_empty_extra();
        for Parked { target, message, group } in parking.parked {
            if self.sessions.get_mut(session).is_none() {
                continue;
            }
            self.scratch.encoded.v3.clear();
            self.scratch.encoded.v5.clear();
            let message_ref = message.as_ref().as_ref();
            let topic_hash = self.trie.topic_hash(message_ref.head.vhost, message_ref.topic);
            self.note_for_replays(session, &message_ref, topic_hash);
            let shared = Some(Arc::clone(&message));
            let mut routing = Routing::new(&message_ref, topic_hash, shared);
            let outcome = self.deliver_now(session.slot, &target, &mut routing, group);
            if outcome.is_refusal() {
                self.settle_group(group);
            }
            // Its session may be on disk by now.
            self.keep_for(None, &mut routing, outcome);
        }
    }

    fn note_for_replays(&mut self, session: SessionId, message: &MessageRef<'_>, topic_hash: u64) {
        let extra = self.sessions.get_mut(session).and_then(|entry| entry.extra.as_ref());
        for slot in extra.map_or(&[][..], |extra| &extra.replays) {
            if let Some(replay) = self.replays.at_mut(*slot)
                && message.head.retain
                && replay.matches(message)
            {
                replay.noted.insert(topic_hash);
            }
        }
    }

    fn has_room(&self, session: u32, qos: QoS) -> bool {
        let Some(entry) = self.sessions.at(session) else { return true };
        let link = entry.connection().and_then(|link| self.links.at(link));
        // Without a client there is nobody to wait for: what has a queue goes there, the rest is dropped.
        let Some(connection) = link else { return true };
        if Links::backlog(connection).bytes >= self.options.budgets.out_bytes_high {
            return false;
        }
        qos == QoS::AtMostOnce
            || entry
                .outgoing
                .as_ref()
                .is_none_or(|outgoing| outgoing.queue.len() < self.options.budgets.replay_queue_high)
    }

    /// Whether a live message has to wait for a replay; notes its topic otherwise.
    pub(super) fn replay_intercepts(
        &mut self,
        session: u32,
        target: &Target,
        routing: &mut Routing<'_>,
        group: Option<GroupRef>,
    ) -> bool {
        let Some(entry) = self.sessions.at(session) else { return false };
        // What is kept on disk is one record of its shard, under one origin, and never waits in memory.
        let is_kept = target.qos > QoS::AtMostOnce && entry.durable.is_some();
        let Some(extra) = entry.extra.as_ref() else { return false };
        let message = routing.message;
        let mut parks = !is_kept
            && extra.parking.as_ref().is_some_and(|parking| parking.topics.contains(&routing.topic_hash));
        for slot in &extra.replays {
            let Some(replay) = self.replays.at_mut(*slot) else { continue };
            if !replay.matches(message) {
                continue;
            }
            if message.head.retain {
                if is_kept || replay.noted.len() < self.options.budgets.replay_noted_max {
                    replay.noted.insert(routing.topic_hash);
                } else {
                    replay.parking |= !replay.noted.contains(&routing.topic_hash);
                }
            }
            parks |= replay.parking && !is_kept;
        }
        if parks && let Some(entry) = self.sessions.at_mut(session) {
            let parking = entry.extra().parking.get_or_insert_default();
            parking.topics.insert(routing.topic_hash);
            let parked = Parked { target: target.clone(), message: routing.share(), group };
            if let Some(parking) =
                self.sessions.at_mut(session).and_then(|entry| entry.extra().parking.as_mut())
            {
                parking.parked.push(parked);
            }
        }
        parks
    }

    fn finish_replay(&mut self, token: (u32, u32)) {
        let Some(replay) = self.replays.remove(token.0, token.1) else { return };
        self.unlist_replay(replay.session.slot, token.0);
        self.deliver_parked(replay.session);
    }

    /// The session ends: what waited for a replay and came through a group goes to another member.
    pub(super) fn cancel_replays(&mut self, session: u32) {
        let Some(extra) = self.sessions.at_mut(session).and_then(|entry| entry.extra.as_mut()) else {
            return;
        };
        let parking = extra.parking.take();
        for slot in std::mem::take(&mut extra.replays) {
            if let Some(generation) = self.replays.generation_at(slot) {
                self.replays.remove(slot, generation);
            }
        }
        for Parked { message, group, .. } in parking.map(|parking| parking.parked).unwrap_or_default() {
            if let Some(group) = group {
                self.return_to_group(group, message, None);
            }
        }
    }

    /// The session unsubscribes from a filter. What waited for the replay was matched before, perhaps by other filters too.
    pub(super) fn cancel_replays_of(&mut self, session: u32, filter: &str) {
        let Some(extra) = self.sessions.at(session).and_then(|entry| entry.extra.as_ref()) else { return };
        for slot in extra.replays.clone() {
            let is_it = self.replays.at(slot).is_some_and(|replay| *replay.what.filter == *filter);
            if is_it && let Some(generation) = self.replays.generation_at(slot) {
                self.unlist_replay(session, slot);
                if let Some(replay) = self.replays.remove(slot, generation) {
                    self.deliver_parked(replay.session);
                }
            }
        }
    }

    /// Messages of shared subscriptions that wait for replays.
    pub(super) fn parked_for_groups(&self) -> u64 {
        let extras = self.sessions.iter().filter_map(|(_, session)| session.extra.as_ref());
        let parked = extras.filter_map(|extra| extra.parking.as_ref()).flat_map(|parking| &parking.parked);
        parked.filter(|parked| parked.group.is_some()).count() as u64
    }

    fn unlist_replay(&mut self, session: u32, slot: u32) {
        if let Some(entry) = self.sessions.at_mut(session)
            && let Some(extra) = &mut entry.extra
        {
            extra.replays.retain(|s| *s != slot);
            entry.drop_empty_extra();
        }
    }
}
