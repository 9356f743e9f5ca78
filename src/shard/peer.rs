//! What shards say to each other, and the batches it travels in.
//!
//! Messages between a pair of shards arrive in the order they were sent; control and data share that order. A batch that was
//! handled goes back to its sender empty, so that in steady state nothing is allocated.

use super::durable::GatherRef;
use super::options::Budgets;
use super::run::Run;
use crate::base::{Message, MessageHead, MessageRef, SessionId, ShardId, VhostId};
use crate::log::Origin;
use crate::queue::GroupRef;
use crate::route::retained::Cursor;
use crate::route::{Delta, SubscriptionOptions};
use crate::session::Outcome;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Messages of at most this size, in bytes, travel inside the batch; larger ones by reference count.
const INLINE_SIZE_MAX: usize = 256;
/// Packets of a run between shards are at most so large, with their topic: larger ones travel by reference count.
pub(super) const RUN_PACKET_SIZE_MAX: usize = 2 * INLINE_SIZE_MAX;
/// Emptied batches a shard keeps for each other shard.
const SPARE_BATCHES: usize = 8;

/// Where the answer to a publish goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CommitRef {
    /// An acknowledgement of a session.
    Ack { session: SessionId, sequence: u64 },
    /// A gathering of the shard that published it: of what the broker publishes itself.
    Gather((u32, u32)),
}

/// A message's bytes on their way between shards.
#[derive(Debug)]
pub(super) enum Body {
    /// In the batch: topic, properties and payload behind each other.
    Inline { at: u32, topic: u16, properties: u16, payload: u16 },
    /// In a message that both shards hold.
    Shared(Arc<Message>),
}

/// A member of a shared subscription, as its home knows it.
#[derive(Clone, Debug)]
pub(super) struct Join {
    pub(super) vhost: VhostId,
    pub(super) group: Box<str>,
    pub(super) filter: Box<str>,
    pub(super) member: SessionId,
    pub(super) options: SubscriptionOptions,
}

/// One thing a shard tells another.
#[derive(Debug)]
pub(super) enum PeerMessage {
    /// A message somebody there subscribes to.
    Publish {
        head: MessageHead,
        topic_hash: u64,
        body: Body,
        commit: Option<CommitRef>,
        /// Of a QoS 2 publish by a session on disk.
        origin: Option<Origin>,
        /// If it was published with RETAIN: how many the sender has sent to the topic's retained home, this one included.
        retained_sequence: u64,
    },
    /// QoS 0 packets in the batch's bytes from `at` on, that somebody there subscribes to.
    Run {
        head: MessageHead,
        topic_hash: u64,
        at: u32,
        size: u32,
        packet_size: u16,
        head_size: u16,
        topic_at: u16,
    },
    /// A publish is done on a target.
    Committed { commit: CommitRef, outcome: Outcome },
    /// A filter came or went on the sender.
    Interest { delta: Box<Delta>, sequence: u64 },
    /// All deltas up to this one are in force. With it, how many retained messages the sender has sent to each shard.
    InterestSettled { sequence: u64, retained_sent: Box<[u64]> },
    /// A session joins a shared subscription whose home is here; answered by `Joined`.
    Join { join: Box<Join>, token: (u32, u32), online: bool },
    /// The join of this token is in force everywhere.
    Joined { token: (u32, u32) },
    /// A session leaves a shared subscription.
    Leave { join: Box<Join> },
    /// A member's client came or went.
    MemberOnline { member: SessionId, vhost: VhostId, group: Box<str>, filter: Box<str>, online: bool },
    /// A message a shared subscription's home gives to a member.
    Assign {
        head: MessageHead,
        body: Body,
        group: GroupRef,
        options: SubscriptionOptions,
        /// Told when it is kept, if the member outlives its connection.
        gather: Option<GatherRef>,
    },
    /// A member settled a delivery with QoS 1 or 2.
    Settled { group: GroupRef },
    /// A member's session ended before it acknowledged: give it to another.
    Return { group: GroupRef, message: Arc<Message>, gather: Option<GatherRef> },
    /// An answer that is gathered there.
    Gathered { gather: GatherRef, outcome: Outcome },
    /// A QoS 2 publish is released: its origin is to be forgotten; answered by `Forgotten` if there is a token.
    Forget { origin: Origin, token: Option<(u32, u32)> },
    /// It is, safely.
    Forgotten { token: (u32, u32) },
    /// Origins on `shard` after a start, round all shards: each takes out those whose publisher's session it has.
    Unclaimed { shard: ShardId, origins: Vec<Origin> },
    /// Set or clear a retained message; its home is here.
    Retain { message: Arc<Message>, commit: Option<CommitRef> },
    /// Asks for a batch of retained messages.
    Scan(Box<Scan>),
    /// A batch of retained messages.
    Scanned { replay: (u32, u32), messages: Vec<Arc<Message>>, cursor: Box<Cursor>, finished: bool },
    /// The sender cannot keep up with what this publisher of yours sends: read no more of it.
    Hold { publisher: SessionId },
    /// It has.
    Release { publisher: SessionId },
    /// The sender has published its last will: it is leaving.
    Leaving,
}

/// A question for retained messages.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) replay: (u32, u32),
    pub(super) vhost: VhostId,
    pub(super) filter: Box<str>,
    pub(super) cursor: Box<Cursor>,
    /// Answer only after so many retained messages of each shard have been applied.
    pub(super) after: Box<[u64]>,
}

/// Messages from one shard to another, in order.
#[derive(Default, Debug)]
pub struct PeerBatch {
    pub(super) messages: Vec<PeerMessage>,
    pub(super) data: Vec<u8>,
}

impl PeerBatch {
    /// How many messages it carries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether it carries none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Copies a message's bytes in; gives what to call them by.
    fn inline(&mut self, message: &MessageRef<'_>) -> Body {
        let small = |size: usize| u16::try_from(size).expect("at most INLINE_SIZE_MAX");
        let at = u32::try_from(self.data.len()).expect("bounded by Budgets::batch_bytes");
        self.data.extend_from_slice(message.topic.as_bytes());
        self.data.extend_from_slice(message.properties);
        self.data.extend_from_slice(message.payload);
        Body::Inline {
            at,
            topic: small(message.topic.len()),
            properties: small(message.properties.len()),
            payload: small(message.payload.len()),
        }
    }

    fn clear(&mut self) {
        self.messages.clear();
        self.data.clear();
    }
}

/// The bytes of a message that travelled, borrowed again.
///
/// # Panics
/// If the ranges are not the batch's: shards trust each other, and half a broker is worse than a restart.
pub(super) fn borrow<'a>(head: MessageHead, body: &'a Body, data: &'a [u8]) -> MessageRef<'a> {
    match body {
        Body::Shared(message) => MessageRef { head, ..message.as_ref().as_ref() },
        Body::Inline { at, topic, properties, payload } => {
            let cut = |from: usize, size: u16| -> (Range<usize>, usize) {
                let end = from + usize::from(size);
                (from..end, end)
            };
            let (topic, end) = cut(*at as usize, *topic);
            let (properties, end) = cut(end, *properties);
            let (payload, _) = cut(end, *payload);
            let topic = std::str::from_utf8(&data[topic]).expect("was a string on the other shard");
            MessageRef { head, topic, properties: &data[properties], payload: &data[payload] }
        }
    }
}

/// What waits to be sent to one other shard.
#[derive(Debug)]
#[allow(clippy::vec_box, reason = "batches move between shards as one word")]
pub(super) struct Outbox {
    bytes_max: usize,
    messages_max: usize,
    waiting: VecDeque<Box<PeerBatch>>,
    spare: Vec<Box<PeerBatch>>,
}

impl Outbox {
    fn new(budgets: &Budgets) -> Self {
        let (bytes_max, messages_max) = (budgets.batch_bytes, budgets.batch_messages);
        Self { bytes_max, messages_max, waiting: VecDeque::new(), spare: Vec::new() }
    }

    /// Puts a message without bytes at the end.
    pub(super) fn push(&mut self, message: PeerMessage) {
        self.last().messages.push(message);
    }

    /// Puts a message with bytes at the end: they go into the batch that the message goes into, or are shared.
    pub(super) fn push_with(
        &mut self,
        message: &MessageRef<'_>,
        shared: &mut Option<Arc<Message>>,
        make: impl FnOnce(Body) -> PeerMessage,
    ) {
        let batch = self.last();
        let body = if message.size() > INLINE_SIZE_MAX {
            Body::Shared(Arc::clone(shared.get_or_insert_with(|| message.to_shared())))
        } else {
            batch.inline(message)
        };
        // Into this very batch, full or not by now: the bytes are here.
        batch.messages.push(make(body));
    }

    /// Puts a run at the end.
    pub(super) fn push_run(&mut self, head: MessageHead, topic_hash: u64, run: Run<'_>) {
        let small = |size: usize| u16::try_from(size).expect("at most RUN_PACKET_SIZE_MAX");
        let long = |size: usize| u32::try_from(size).expect("bounded by Budgets::batch_bytes");
        let batch = self.last();
        let message = PeerMessage::Run {
            head,
            topic_hash,
            at: long(batch.data.len()),
            size: long(run.bytes.len()),
            packet_size: small(run.packet_size),
            head_size: small(run.head_size),
            topic_at: small(run.topic_at),
        };
        batch.data.extend_from_slice(run.bytes);
        batch.messages.push(message);
    }

    /// The next batch to send.
    pub(super) fn poll(&mut self) -> Option<Box<PeerBatch>> {
        self.waiting.pop_front()
    }

    /// Frees the spare batches.
    fn shrink(&mut self) {
        self.spare = Vec::new();
        self.waiting.shrink_to(2 * self.waiting.len());
    }

    /// Batches that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// A batch came back.
    pub(super) fn put_back(&mut self, mut batch: Box<PeerBatch>) {
        debug_assert!(batch.is_empty(), "a batch comes back empty");
        batch.clear();
        if self.spare.len() < SPARE_BATCHES {
            self.spare.push(batch);
        }
    }

    fn last(&mut self) -> &mut PeerBatch {
        let is_full = |batch: &PeerBatch| {
            batch.data.len() >= self.bytes_max || batch.messages.len() >= self.messages_max
        };
        if self.waiting.back().is_none_or(|batch| is_full(batch)) {
            let batch = self.spare.pop().unwrap_or_default();
            self.waiting.push_back(batch);
        }
        self.waiting.back_mut().expect("pushed above")
    }
}

/// All other shards, as this one sees them.
#[derive(Debug)]
pub(super) struct Mesh {
    id: ShardId,
    outboxes: Vec<Outbox>,
    /// Deltas sent; each shard has acknowledged up to `settled`.
    pub(super) delta_sequence: u64,
    settled: Vec<u64>,
    /// Deltas of others that are in force here.
    pub(super) deltas_heard: u64,
    /// Retained messages sent to each home.
    pub(super) retained_sent: Vec<u64>,
    /// Retained messages applied here, by sender.
    pub(super) retained_applied: Vec<u64>,
    /// `[from][home]`: how many retained messages `from` had sent to `home` when it last told us.
    retained_seen: Vec<Vec<u64>>,
    /// Who has published its last will.
    pub(super) left: Vec<bool>,
}

impl Mesh {
    pub(super) fn new(id: ShardId, shards: u16, budgets: &Budgets) -> Self {
        let n = usize::from(shards);
        Self {
            id,
            outboxes: (0..n).map(|_| Outbox::new(budgets)).collect(),
            delta_sequence: 0,
            settled: vec![0; n],
            deltas_heard: 0,
            retained_sent: vec![0; n],
            retained_applied: vec![0; n],
            retained_seen: vec![vec![0; n]; n],
            left: vec![false; n],
        }
    }

    pub(super) fn to(&mut self, shard: ShardId) -> &mut Outbox {
        debug_assert_ne!(shard, self.id, "a shard does not write to itself");
        &mut self.outboxes[shard.index()]
    }

    /// Every other shard.
    pub(super) fn others(&self) -> impl Iterator<Item = ShardId> + use<> {
        let id = self.id;
        (0..u16::try_from(self.outboxes.len()).expect("shards are u16"))
            .map(ShardId)
            .filter(move |shard| *shard != id)
    }

    /// Gives memory back that nobody needs.
    pub(super) fn shrink(&mut self) {
        self.outboxes.iter_mut().for_each(Outbox::shrink);
    }

    /// The delta that every other shard has in force.
    pub(super) fn settled_everywhere(&self) -> u64 {
        let id = self.id;
        let others = self.settled.iter().enumerate().filter(|(shard, _)| *shard != id.index());
        others.map(|(_, sequence)| *sequence).min().unwrap_or(self.delta_sequence)
    }

    pub(super) fn settle(&mut self, from: ShardId, sequence: u64, retained_sent: &[u64]) {
        let settled = &mut self.settled[from.index()];
        *settled = (*settled).max(sequence);
        for (home, sent) in retained_sent.iter().enumerate() {
            self.see_retained(from, ShardId(u16::try_from(home).expect("shards are u16")), *sent);
        }
    }

    /// `from` has sent `sequence` retained messages to `home`.
    pub(super) fn see_retained(&mut self, from: ShardId, home: ShardId, sequence: u64) {
        let seen = &mut self.retained_seen[from.index()][home.index()];
        *seen = (*seen).max(sequence);
    }

    /// What `home` must have applied, by sender, before its answer is not older than what was seen here.
    pub(super) fn retained_after(&self, home: ShardId) -> Box<[u64]> {
        self.retained_seen.iter().map(|by_home| by_home[home.index()]).collect()
    }

    /// Whether everything asked for in `after` has been applied here.
    pub(super) fn has_applied(&self, after: &[u64]) -> bool {
        let id = self.id.index();
        after
            .iter()
            .zip(&self.retained_applied)
            .enumerate()
            .all(|(from, (want, have))| from == id || want <= have)
    }

    /// Batches that wait for all other shards together.
    pub(super) fn backlog(&self) -> usize {
        self.outboxes.iter().map(Outbox::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{QoS, Wall};

    #[test]
    fn a_message_and_its_bytes_travel_in_one_batch() {
        let head = MessageHead {
            vhost: VhostId(0),
            qos: QoS::AtMostOnce,
            retain: false,
            expires_at: Wall::NEVER,
            publisher: None,
        };
        let mut outbox = Outbox::new(&Budgets::default());
        let payloads: Vec<Vec<u8>> = (0..2000usize).map(|n| vec![n.to_le_bytes()[0]; n % 300]).collect();
        for payload in &payloads {
            let message = MessageRef { head, topic: "some/topic", properties: &[], payload };
            outbox.push_with(&message, &mut None, |body| PeerMessage::Publish {
                head,
                topic_hash: 0,
                body,
                commit: None,
                origin: None,
                retained_sequence: 0,
            });
        }
        assert!(outbox.len() > 2, "batches fill up by bytes");
        let mut came = Vec::new();
        while let Some(batch) = outbox.poll() {
            for message in &batch.messages {
                let PeerMessage::Publish { head, body, .. } = message else { panic!("only publishes") };
                let message = borrow(*head, body, &batch.data);
                assert_eq!(message.topic, "some/topic");
                came.push(message.payload.to_vec());
            }
        }
        assert_eq!(came, payloads);
    }
}
