//! A log back to sessions, subscriptions and retained messages.
//!
//! ```text
//! handle_recovered ──> filters are told to the other shards ──> is_ready, on every shard ──> handle_ready ──> listeners open
//! ```
//!
//! What damage on a disk can leave twice, as the record that ended the first one is lost, is there once afterwards: the later one counts,
//! the other is ended here.
//!
//! The clocks of sessions run from `handle_ready`: before it a will would miss subscribers that are not known everywhere yet.
//! Bodies stay on disk until somebody wants them.

use super::format::{self, SessionValue, Standing, SubscriptionValue};
use super::{Durable, DurableSession, Shard, ending};
use crate::base::hash::home;
use crate::base::{HashKey, Mono, Now, PacketId, QoS, ShardId, VhostId, Wall};
use crate::log::{
    MessageNumber, Recovered, RecoveredState, RecoveredStream, Sequence, StateId, StateKind, StreamId,
    StreamKind,
};
use crate::route::{Limits, Subscriber, SubscriptionOptions};
use crate::session::{EXPIRY_NEVER, InFlight, Stage, Will};
use crate::shard::lifecycle::{Timer, token};
use crate::shard::sessions::{Kept, NONE, Offline, Session, SharedSubscription};
use hashbrown::{HashMap, HashSet};
use std::collections::VecDeque;
use std::sync::Arc;

/// The token of joins made here.
pub(in crate::shard) const JOIN_TOKEN: (u32, u32) = (u32::MAX, 0);
/// Wills and ends that are due at the start are spread: so many a millisecond.
const DUE_PER_MS: u64 = 10;

/// What waits for all shards to be ready.
#[derive(Debug, Default)]
pub(super) struct Recovering {
    sessions: Vec<(u32, Standing)>,
    endings: Vec<StreamId>,
    /// Whose they are: an earlier session of such a client is over too.
    ended: HashSet<(VhostId, Box<str>)>,
    /// Wills that were on their way.
    wills: Vec<(Will, StateId)>,
    joins_missing: usize,
}

impl Shard {
    /// Takes its log, once, before anything else is handed in. Without a log nothing is durable.
    pub fn handle_recovered(&mut self, now: Now, recovered: Recovered) {
        self.now = now;
        let Recovered { log, streams, states, report: _ } = recovered;
        let committed_below = log.next_number().0;
        let has_expiring = log.has_expiring();
        self.durable = Some(Box::new(Durable {
            sync: log.sync_mode(),
            log,
            waits: VecDeque::new(),
            numbers: VecDeque::new(),
            committed_below,
            fetches: HashMap::new(),
            endings: Default::default(),
            unrecorded: Vec::new(),
            recovering: Some(Recovering::default()),
            has_expiring,
            is_failed: false,
            upkept_at: now.mono,
            synced_at: now.mono,
            synced: Sequence::default(),
            value: Vec::new(),
            more: Vec::new(),
            holders: Vec::new(),
        }));
        let mut slots = HashMap::with_capacity(streams.len());
        // The last one first: of two sessions of one client it is the one that counts.
        for stream in streams.iter().rev() {
            if let Some(slot) = self.recover_stream(stream) {
                slots.insert(stream.id, slot);
            }
        }
        for state in states {
            self.recover_state(&state, &slots);
        }
        for (stream, slot) in slots {
            self.recover_messages(slot, stream);
        }
    }

    /// Whether all its sessions are back and all shards know their filters.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let joins = self.durable.as_ref().and_then(|durable| durable.recovering.as_ref());
        joins.is_none_or(|recovering| recovering.joins_missing == 0)
            && self.mesh.settled_everywhere() >= self.mesh.delta_sequence
    }

    /// All shards are ready: the clocks of recovered sessions run from here, and clients may come.
    pub fn handle_ready(&mut self, now: Now) {
        self.now = now;
        let recovering = self.durable.as_mut().and_then(|durable| durable.recovering.take());
        let Some(Recovering { sessions, endings, wills, .. }) = recovering else { return };
        for (will, state) in wills {
            self.publish_will(&will, true);
            self.clear_state(Some(state));
        }
        let mut due = 0;
        for (slot, standing) in sessions {
            self.start_clock(slot, standing, &mut due);
        }
        for stream in endings {
            self.begin_ending(stream, ending::nobody(self.id));
        }
        self.claim_origins();
    }

    fn start_clock(&mut self, slot: u32, standing: Standing, due: &mut u64) {
        let now = self.now;
        let Some(id) = self.sessions.id_at(slot) else { return };
        let entry = self.sessions.at_mut(slot).expect("has an id");
        if entry.connection().is_some() || entry.ended {
            return;
        }
        let mono = |wall: Wall| match wall {
            Wall::NEVER => Mono::NEVER,
            wall => now.mono.plus_ms(wall.0.saturating_sub(now.wall.0)),
        };
        let (mut will_at, mut expires_at) = match standing {
            Standing::Offline { expires_at, will_at } => (mono(will_at), mono(expires_at)),
            Standing::Connected | Standing::Ended => {
                let delay = entry.will.as_ref().map_or(0, |will| will.delay_secs.min(entry.expiry_secs));
                let is_endless = entry.expiry_secs == EXPIRY_NEVER;
                let expires_at = if is_endless { Mono::NEVER } else { now.mono.plus_secs(entry.expiry_secs) };
                (now.mono.plus_secs(delay), expires_at)
            }
        };
        if entry.will.is_none() {
            will_at = Mono::NEVER;
        }
        if will_at.min(expires_at) == Mono::NEVER {
            return;
        }
        if will_at.min(expires_at) <= now.mono {
            *due += 1;
            let later = now.mono.plus_ms(*due / DUE_PER_MS);
            (will_at, expires_at) = (will_at.max(later), expires_at.max(later));
        }
        entry.extra().offline = Some(Offline { will_at, expires_at });
        self.wheel.insert(will_at.min(expires_at), token(Timer::Session, slot, id.generation));
    }

    fn recover_stream(&mut self, stream: &RecoveredStream) -> Option<u32> {
        if stream.kind != StreamKind::Session {
            return None;
        }
        let Some(value) = format::session(&stream.value) else {
            tracing::error!(stream = ?stream.id, "a session's record makes no sense; it is left on disk");
            return None;
        };
        let durable = self.durable.as_mut()?;
        let recovering = durable.recovering.as_mut()?;
        if value.standing == Standing::Ended {
            recovering.endings.push(stream.id);
            recovering.ended.insert((stream.vhost, value.client_id.into()));
            return None;
        }
        let ended = &recovering.ended;
        let is_ended = !ended.is_empty() && ended.contains(&(stream.vhost, value.client_id.into()));
        if is_ended || self.sessions.find(stream.vhost, value.client_id).is_some() {
            tracing::warn!(stream = ?stream.id, "a client has a later session: this one, whose end is damaged, is over");
            if value.has_groups {
                recovering.endings.push(stream.id);
                format::put_session(&SessionValue { standing: Standing::Ended, ..value }, &mut durable.value);
                let _ = durable.log.reopen(stream.id, &durable.value);
            } else {
                let _ = durable.log.close(stream.id);
            }
            return None;
        }
        let mut kept = DurableSession::new(stream.id, value.publisher);
        kept.has_groups = value.has_groups;
        let session = self.recovered_session(stream, &value, kept);
        let slot = self.sessions.insert(session);
        if let Some(recovering) = self.durable.as_mut().and_then(|durable| durable.recovering.as_mut()) {
            recovering.sessions.push((slot, value.standing));
        }
        Some(slot)
    }

    fn recovered_session(
        &self,
        stream: &RecoveredStream,
        value: &SessionValue<'_>,
        kept: DurableSession,
    ) -> Session {
        Session {
            client_id: value.client_id.into(),
            filters: Default::default(),
            outgoing: None,
            incoming: None,
            will: None,
            extra: None,
            durable: Some(Box::new(kept)),
            connection: NONE,
            incarnation: 0,
            expiry_secs: value.expiry_secs,
            client_hash: self.sessions.client_hash(stream.vhost, value.client_id),
            qos0_filters: 0,
            acked_filters: 0,
            vhost: stream.vhost,
            version: value.version,
            ended: false,
        }
    }

    fn recover_state(&mut self, state: &RecoveredState, slots: &HashMap<StreamId, u32>) {
        let session = state.owner.and_then(|owner| slots.get(&owner)).copied();
        let is_known = match (state.kind, session) {
            (StateKind::Retained, _) => self.recover_retained(state),
            (StateKind::Subscription, Some(session)) => self.recover_subscription(session, state),
            (StateKind::Will, Some(session)) => self.recover_will(session, state),
            (StateKind::Received, Some(session)) => self.recover_received(session, state),
            (StateKind::Will, None) if state.owner.is_none() => self.recover_copy_of_will(state),
            // Of a session that is over.
            (_, None) => true,
            (StateKind::Binding, Some(_)) => false,
        };
        if !is_known {
            tracing::error!(kind = ?state.kind, "a record in the log makes no sense; it is left on disk");
        }
    }

    fn recover_retained(&mut self, state: &RecoveredState) -> bool {
        let Some(message) = format::retained(state.vhost, &state.value) else { return false };
        let borrowed = message.as_ref();
        let (vhost, topic) = (state.vhost, borrowed.topic.to_owned());
        if borrowed.is_expired(self.now.wall) {
            self.clear_state(Some(state.id));
            self.retained.clear(vhost, &topic);
            self.clear_freed_retained();
            return true;
        }
        let earlier = self.retained.note(vhost, &topic).map(StateId);
        // What is there was taken within the bounds of its time.
        if self.retained.set(Arc::new(message), &Limits::default()).is_ok() {
            self.retained.set_note(vhost, &topic, state.id.0);
            self.clear_state(earlier);
        }
        true
    }

    fn recover_subscription(&mut self, session: u32, state: &RecoveredState) -> bool {
        let Some(value) = format::subscription(&state.value) else { return false };
        let Some(entry) = self.sessions.at(session) else { return true };
        let options = SubscriptionOptions { durable: entry.is_durable(), ..value.options };
        let earlier = if value.group.is_empty() {
            self.recover_plain(session, value.filter, options, state)
        } else {
            self.recover_shared(session, &value, options, state.id)
        };
        self.clear_state(earlier);
        if let Some(entry) = self.sessions.at_mut(session) {
            entry.count_filter(options.qos, 1);
        }
        true
    }

    /// Gives where an earlier subscription to the same filter is kept.
    fn recover_plain(
        &mut self,
        session: u32,
        filter: &str,
        options: SubscriptionOptions,
        state: &RecoveredState,
    ) -> Option<StateId> {
        let inserted = self.trie.insert(state.vhost, filter, Subscriber(session), options);
        let earlier = inserted.replaced.and_then(|_| self.subscription_state(session, inserted.filter));
        if let Some(entry) = self.sessions.at_mut(session) {
            match inserted.replaced {
                Some(replaced) => entry.count_filter(replaced.qos, -1),
                None => entry.filters.push(inserted.filter),
            }
        }
        self.note_subscription(session, inserted.filter, state.id);
        self.announce(inserted.filter, inserted.change);
        earlier
    }

    /// The same for a shared one.
    fn recover_shared(
        &mut self,
        session: u32,
        value: &SubscriptionValue<'_>,
        options: SubscriptionOptions,
        state: StateId,
    ) -> Option<StateId> {
        let &SubscriptionValue { group, filter, .. } = value;
        let hash = self.group_hash(session, group, filter);
        let entry = self.sessions.at_mut(session)?;
        let shared = &mut entry.extra().shared;
        let at = shared.iter().position(|shared| *shared.group == *group && *shared.filter == *filter);
        let earlier = at.map(|at| shared.swap_remove(at));
        let state = Some(state);
        shared.push(SharedSubscription { group: group.into(), filter: filter.into(), hash, options, state });
        if let Some(earlier) = &earlier {
            entry.count_filter(earlier.options.qos, -1);
        }
        if let Some(recovering) = self.durable.as_mut().and_then(|durable| durable.recovering.as_mut()) {
            recovering.joins_missing += 1;
        }
        self.join_group(session, group, filter, options, JOIN_TOKEN);
        earlier.and_then(|earlier| earlier.state)
    }

    /// A join made in recovery is in force.
    pub(in crate::shard) fn recovery_joined(&mut self) {
        if let Some(recovering) = self.durable.as_mut().and_then(|durable| durable.recovering.as_mut()) {
            recovering.joins_missing -= 1;
        }
    }

    fn recover_will(&mut self, session: u32, state: &RecoveredState) -> bool {
        let Some(will) = format::will(state.vhost, &state.value) else { return false };
        let Some(entry) = self.sessions.at_mut(session) else { return true };
        entry.will = Some(Box::new(will));
        let earlier = entry.durable.as_mut().and_then(|kept| kept.will.replace(state.id));
        self.clear_state(earlier);
        true
    }

    fn recover_copy_of_will(&mut self, state: &RecoveredState) -> bool {
        let Some(will) = format::will(state.vhost, &state.value) else { return false };
        if let Some(recovering) = self.durable.as_mut().and_then(|durable| durable.recovering.as_mut()) {
            recovering.wills.push((will, state.id));
        }
        true
    }

    fn recover_received(&mut self, session: u32, state: &RecoveredState) -> bool {
        let Some(packet_id) = format::packet_id(&state.value) else { return false };
        let Some(entry) = self.sessions.at_mut(session) else { return true };
        let is_known = !entry.incoming.get_or_insert_default().received.insert(packet_id);
        if is_known {
            self.clear_state(Some(state.id));
        } else if let Some(kept) = &mut entry.durable {
            kept.received.push((packet_id.value(), state.id));
        }
        true
    }

    /// Deliveries that had begun go into the window, without their bodies; the rest waits to be read back.
    fn recover_messages(&mut self, slot: u32, stream: StreamId) {
        let Some(durable) = &mut self.durable else { return };
        let Some(entry) = self.sessions.at_mut(slot) else { return };
        let Some(kept) = &mut entry.durable else { return };
        let mut begun = Vec::new();
        for (number, tag) in durable.log.messages(stream) {
            if tag == 0 {
                if !kept.is_behind {
                    (kept.is_behind, kept.next) = (true, number.0);
                }
                continue;
            }
            begun.extend(format::untag(tag).map(|(packet_id, is_released)| (number, packet_id, is_released)));
        }
        // Of two with one identifier the earlier was settled: what said so is damaged.
        let mut later = HashSet::with_capacity(begun.len());
        begun.reverse();
        let is_earlier = |(_, packet_id, _): &mut (MessageNumber, PacketId, bool)| !later.insert(*packet_id);
        for (number, ..) in begun.extract_if(.., is_earlier) {
            let _ = durable.log.acknowledge(stream, number);
        }
        for (number, packet_id, is_released) in begun.into_iter().rev() {
            let delivery = Kept { item: None, number: number.0, ready: Sequence::default(), was_sent: true };
            let stage = if is_released { Stage::Released } else { Stage::Published };
            let window = &mut entry.outgoing.get_or_insert_default().window;
            let item = Some(Box::new(delivery));
            window.restore(InFlight { packet_id, qos: QoS::ExactlyOnce, stage, item });
        }
    }

    pub(super) fn write_retained_again(&mut self, state: StateId) -> bool {
        let found = self.retained.noted().find(|(note, _)| *note == state.0);
        let Some(message) = found.map(|(_, message)| Arc::clone(message)) else { return false };
        if let Some(durable) = &mut self.durable {
            let message = message.as_ref().as_ref();
            format::put_retained(&message, &mut durable.value);
            let _ = durable.log.replace(state, StateKind::Retained, message.head.vhost, &durable.value);
        }
        true
    }
}

/// The shard a stream belongs to when there are so many; `None` if its value makes no sense. `key` is the process's secret.
pub(super) fn home_of_stream(key: HashKey, shards: u16, stream: &RecoveredStream) -> Option<ShardId> {
    let value = format::session(&stream.value)?;
    Some(crate::shard::connect::home_of_client(key, shards, stream.vhost, value.client_id))
}

/// The same of a state that belongs to nobody; that of a stream goes with it.
pub(super) fn home_of_state(key: HashKey, shards: u16, state: &RecoveredState) -> Option<ShardId> {
    let message = format::retained(state.vhost, &state.value)?;
    let topics = crate::shard::topics_key(key);
    Some(home(topics.hash(state.vhost, message.topic_bytes()), shards))
}
