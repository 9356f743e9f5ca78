//! A session's end, when it was a member of shared subscriptions: what it has not settled of them goes to other members, and its
//! stream ends only when they have it on disk. Until then the stream's value says that the session is over. What a full disk refuses
//! is handed on again every second.

use super::format::{self, SessionValue, Standing};
use super::gather::Then;
use super::queue::message_of;
use super::{Shard, Wait};
use crate::base::{QoS, SessionId, ShardId};
use crate::log::{FetchId, Fetched, MessageNumber, Origin, Sequence, StateId, StreamId};
use crate::queue::GroupRef;
use crate::session::Outcome;
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// Messages read back in one go.
const BATCH_MESSAGES: usize = 128;
/// Bytes read back in one go.
const BATCH_BYTES: u64 = 1 << 20;

/// A stream whose session is over.
#[derive(Debug)]
pub(super) struct Ending {
    member: SessionId,
    /// The first message of this batch and the last.
    first: u64,
    last: u64,
    fetch: Option<FetchId>,
    /// Messages of this batch that others have: a log that has failed does not forget them.
    handed_on: Vec<MessageNumber>,
    /// Messages of this batch that are on their way to others.
    missing: u32,
    /// A disk refused one of them.
    is_refused: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Endings {
    streams: HashMap<StreamId, Ending>,
    /// Those of which a disk refused something: it is handed on again when there may be space.
    refused: Vec<StreamId>,
    /// Clients whose session's end is not on disk yet, by their hash, and the commits it is in, in order.
    clients: HashMap<u32, Sequence>,
    commits: VecDeque<(Sequence, u32)>,
}

impl Endings {
    fn note(&mut self, client_hash: u32, commit: Sequence) {
        self.clients.insert(client_hash, commit);
        self.commits.push_back((commit, client_hash));
    }

    /// Everything up to here is on disk.
    pub(super) fn committed(&mut self, committed: Sequence) {
        while let Some((commit, client)) = self.commits.pop_front_if(|(commit, _)| *commit <= committed) {
            // It may have ended again since.
            if self.clients.get(&client) == Some(&commit) {
                self.clients.remove(&client);
            }
        }
    }

    /// Whether some wait for space.
    pub(super) fn wait(&self) -> bool {
        !self.refused.is_empty()
    }
}

impl Shard {
    /// The session is over: so is its stream, at once or when others have what it held of groups.
    /// `states`: what is kept of its subscriptions.
    pub(in crate::shard) fn end_stream(&mut self, session: u32, states: Vec<StateId>) {
        let Some(member) = self.sessions.id_at(session) else { return };
        let unreleased = self.unreleased(session);
        let Some(entry) = self.sessions.at_mut(session) else { return };
        let Some(kept) = entry.durable.take() else { return };
        let client_hash = entry.client_hash;
        let Some(durable) = &mut self.durable else { return };
        if let Some(fetch) = kept.fetch {
            durable.fetches.remove(&fetch);
        }
        if !kept.has_groups || durable.log.is_empty(kept.stream) {
            self.close_stream(kept.stream);
            return self.note_end(client_hash, unreleased);
        }
        let value = SessionValue {
            client_id: &entry.client_id,
            publisher: kept.publisher,
            expiry_secs: entry.expiry_secs,
            standing: Standing::Ended,
            has_groups: true,
            version: entry.version,
        };
        format::put_session(&value, &mut durable.value);
        let _ = durable.log.reopen(kept.stream, &durable.value);
        self.note_end(client_hash, unreleased);
        states.into_iter().chain(kept.will).for_each(|state| self.clear_state(Some(state)));
        self.begin_ending(kept.stream, member);
    }

    fn note_end(&mut self, client_hash: u32, unreleased: Box<[Origin]>) {
        let Some(durable) = self.durable.as_mut().filter(|durable| !durable.is_failed) else { return };
        let commit = durable.log.last();
        durable.endings.note(client_hash, commit);
        if !unreleased.is_empty() {
            self.after_commit(commit, Wait::ForgetPublisher(unreleased));
        }
    }

    /// Whether a crash now would bring back a session this client has had, and which is over.
    pub(in crate::shard) fn may_come_back(&self, session: u32) -> bool {
        let clients = self.durable.as_ref().map(|durable| &durable.endings.clients);
        let entry = self.sessions.at(session);
        clients.zip(entry).is_some_and(|(clients, entry)| clients.contains_key(&entry.client_hash))
    }

    /// Gives back what a stream holds of groups, batch by batch. What others have on disk is settled here.
    pub(super) fn begin_ending(&mut self, stream: StreamId, member: SessionId) {
        let Some(durable) = &mut self.durable else { return };
        let ending = Ending {
            member,
            first: 0,
            last: 0,
            fetch: None,
            handed_on: Vec::new(),
            missing: 0,
            is_refused: false,
        };
        durable.endings.streams.insert(stream, ending);
        self.fetch_ending(stream, 0);
    }

    fn fetch_ending(&mut self, stream: StreamId, from: u64) {
        let Some(durable) = &mut self.durable else { return };
        let Some(ending) = durable.endings.streams.get_mut(&stream) else { return };
        ending.is_refused = false;
        ending.fetch = Some(durable.log.fetch(stream, MessageNumber(from), BATCH_MESSAGES, BATCH_BYTES));
    }

    pub(super) fn on_ending_fetched(&mut self, id: FetchId, stream: StreamId, messages: Vec<Fetched>) {
        let Some(durable) = &mut self.durable else { return };
        let ending = durable.endings.streams.get_mut(&stream).filter(|ending| ending.fetch == Some(id));
        let Some(ending) = ending else { return };
        let (Some(first), Some(last)) = (messages.first(), messages.last()) else {
            durable.endings.streams.remove(&stream);
            return self.close_stream(stream);
        };
        // One answer is this function's own: all of the batch are on their way.
        (ending.first, ending.last, ending.missing) = (first.number.0, last.number.0, 1);
        let member = ending.member;
        for fetched in messages {
            // A QoS 2 delivery that was sent stays with its session. [MQTT-4.8.2-5]
            let Some(stored) = fetched.stored.ok().filter(|_| fetched.tag == 0) else { continue };
            let Some((message, delivery)) = message_of(&stored) else { continue };
            if delivery.group == 0 || delivery.qos == QoS::AtMostOnce {
                continue;
            }
            let Some(ending) = self.ending(stream) else { return };
            if ending.handed_on.contains(&fetched.number) {
                continue;
            }
            ending.missing += 1;
            let shard = self.group_shard(delivery.group);
            let group = GroupRef { shard, slot: u32::MAX, hash: delivery.group, member };
            let gather = self.gather(Then::Settle(stream, fetched.number), 1);
            self.return_to_group(group, Arc::new(message), Some(gather));
        }
        self.ending_step_done(stream);
    }

    /// What became of a message that was handed on.
    pub(super) fn handed_on(&mut self, stream: StreamId, number: MessageNumber, outcome: Outcome) {
        if outcome.unkept {
            if let Some(ending) = self.ending(stream) {
                ending.is_refused = true;
            }
        } else if let Some(durable) = &mut self.durable {
            let is_forgotten = durable.log.acknowledge(stream, number).is_ok();
            if !is_forgotten && let Some(ending) = durable.endings.streams.get_mut(&stream) {
                ending.handed_on.push(number);
            }
        }
        self.ending_step_done(stream);
    }

    fn ending_step_done(&mut self, stream: StreamId) {
        let Some(ending) = self.ending(stream) else { return };
        ending.missing -= 1;
        let (next, is_refused) = (ending.last + 1, ending.is_refused);
        if ending.missing > 0 {
            return;
        }
        if !is_refused {
            ending.handed_on.clear();
            self.fetch_ending(stream, next);
        } else if let Some(durable) = &mut self.durable {
            durable.endings.refused.push(stream);
        }
    }

    fn ending(&mut self, stream: StreamId) -> Option<&mut Ending> {
        self.durable.as_mut()?.endings.streams.get_mut(&stream)
    }

    /// There may be space for what a disk refused.
    pub(super) fn retry_endings(&mut self) {
        let refused = self.durable.as_mut().map(|durable| std::mem::take(&mut durable.endings.refused));
        for stream in refused.unwrap_or_default() {
            if let Some(first) = self.ending(stream).map(|ending| ending.first) {
                self.fetch_ending(stream, first);
            }
        }
    }

    pub(super) fn close_stream(&mut self, stream: StreamId) {
        if let Some(durable) = &mut self.durable {
            let _ = durable.log.close(stream);
        }
    }

    /// The home of a group.
    pub(in crate::shard) fn group_shard(&self, hash: u64) -> ShardId {
        crate::base::hash::home(hash, self.shards)
    }
}

/// A member that is no session any more.
pub(super) fn nobody(shard: ShardId) -> SessionId {
    SessionId { slot: u32::MAX, generation: u32::MAX, shard }
}
