//! A session's end, when it was a member of shared subscriptions: what it has not settled of them goes to other members, and its
//! stream ends only when they have it on disk. Until then the stream's value says that the session is over.

use super::Shard;
use super::format::{self, SessionValue, Standing};
use super::gather::{GatherRef, Then};
use super::queue::message_of;
use crate::base::{QoS, SessionId, ShardId};
use crate::log::{FetchId, Fetched, MessageNumber, StreamId};
use crate::queue::GroupRef;
use crate::session::Outcome;
use std::sync::Arc;

/// Messages read back in one go.
const BATCH_MESSAGES: usize = 128;
/// Bytes read back in one go.
const BATCH_BYTES: u64 = 1 << 20;

/// A stream whose session is over.
#[derive(Debug)]
pub(super) struct Ending {
    gather: GatherRef,
    fetch: FetchId,
    member: SessionId,
}

impl Shard {
    /// The session is over: so is its stream, at once or when others have what it held of groups.
    pub(in crate::shard) fn end_stream(&mut self, session: u32) {
        let Some(member) = self.sessions.id_at(session) else { return };
        let Some(entry) = self.sessions.at_mut(session) else { return };
        let Some(kept) = entry.durable.take() else { return };
        let Some(durable) = &mut self.durable else { return };
        if let Some(fetch) = kept.fetch {
            durable.fetches.remove(&fetch);
        }
        if !kept.has_groups || durable.log.is_empty(kept.stream) {
            return self.close_stream(kept.stream);
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
        let states: Vec<_> = kept.subscriptions.iter().map(|(_, state)| *state).collect();
        states.into_iter().chain(kept.will).for_each(|state| self.clear_state(Some(state)));
        self.begin_ending(kept.stream, member);
    }

    /// Gives back what a stream holds of groups.
    pub(super) fn begin_ending(&mut self, stream: StreamId, member: SessionId) {
        // One answer is its own: all has been given back.
        let gather = self.gather(Then::Close(stream), 1);
        let Some(durable) = &mut self.durable else { return };
        let fetch = durable.log.fetch(stream, MessageNumber(0), BATCH_MESSAGES, BATCH_BYTES);
        durable.endings.push(Ending { gather, fetch, member });
    }

    pub(super) fn on_ending_fetched(&mut self, id: FetchId, stream: StreamId, messages: Vec<Fetched>) {
        let Some(durable) = &mut self.durable else { return };
        let Some(at) = durable.endings.iter().position(|ending| ending.fetch == id) else { return };
        let (gather, member) = (durable.endings[at].gather, durable.endings[at].member);
        let Some(last) = messages.last().map(|fetched| fetched.number.0) else {
            durable.endings.swap_remove(at);
            return self.gathered(gather, Outcome::default());
        };
        let fetch = durable.log.fetch(stream, MessageNumber(last + 1), BATCH_MESSAGES, BATCH_BYTES);
        durable.endings[at].fetch = fetch;
        for fetched in messages {
            // A QoS 2 delivery that was sent stays with its session. [MQTT-4.8.2-5]
            let Some(stored) = fetched.stored.ok().filter(|_| fetched.tag == 0) else { continue };
            let Some((message, delivery)) = message_of(&stored) else { continue };
            if delivery.group == 0 || delivery.qos == QoS::AtMostOnce {
                continue;
            }
            let shard = self.group_shard(delivery.group);
            let group = GroupRef { shard, slot: u32::MAX, hash: delivery.group, member };
            self.gather_more(gather);
            self.return_to_group(group, Arc::new(message), Some(gather));
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
