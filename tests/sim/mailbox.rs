//! Mailboxes between shards: FIFO for each ordered pair, any interleaving between pairs, few batches in each.
//!
//! A full mailbox is not polled; emptied batches come back late.

use crate::world::{Event, World};
use quelea::base::ShardId;
use quelea::shard::PeerBatch;
use std::collections::VecDeque;

/// All ordered pairs.
#[derive(Debug)]
pub(crate) struct Mailboxes {
    shards: usize,
    waiting: Vec<VecDeque<Box<PeerBatch>>>,
    returning: Vec<VecDeque<Box<PeerBatch>>>,
}

impl Mailboxes {
    pub(crate) fn new(shards: usize) -> Self {
        let pairs = || (0..shards * shards).map(|_| VecDeque::new()).collect();
        Self { shards, waiting: pairs(), returning: pairs() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.iter().chain(&self.returning).all(VecDeque::is_empty)
    }

    fn pair(&self, from: usize, to: usize) -> usize {
        from * self.shards + to
    }
}

pub(crate) fn shard_id(shard: usize) -> ShardId {
    ShardId(u16::try_from(shard).expect("a few shards"))
}

impl World {
    /// Takes what fits out of a shard.
    pub(crate) fn poll_peers(&mut self, from: usize) {
        for to in (0..self.shards.len()).filter(|to| *to != from) {
            let pair = self.mailboxes.pair(from, to);
            while self.mailboxes.waiting[pair].len() < self.swarm.mailbox.capacity {
                let Some(batch) = self.shards[from].poll_peer(shard_id(to)) else { break };
                self.trace.line(self.now_ms(), format_args!("{from} -> {to}: {} messages", batch.len()));
                self.mailboxes.waiting[pair].push_back(batch);
                let delay = self.mailbox_rng.between(0, self.swarm.mailbox.delay_ms_max);
                self.after(delay, Event::Mail { from, to });
            }
        }
    }

    /// The oldest batch of a pair arrives.
    pub(crate) fn on_mail(&mut self, from: usize, to: usize) {
        let pair = self.mailboxes.pair(from, to);
        let batch = self.mailboxes.waiting[pair].pop_front().expect("one event a batch");
        let now = self.now;
        let empty = self.shards[to].handle_peer(now, shard_id(from), batch);
        assert!(empty.is_empty(), "a handled batch is empty");
        self.mailboxes.returning[pair].push_back(empty);
        let delay = self.mailbox_rng.between(0, self.swarm.mailbox.return_delay_ms_max);
        self.after(delay, Event::BatchReturned { from, to });
        self.wake(to);
        // There is room again.
        self.wake(from);
    }

    pub(crate) fn on_batch_returned(&mut self, from: usize, to: usize) {
        let pair = self.mailboxes.pair(from, to);
        let batch = self.mailboxes.returning[pair].pop_front().expect("one event a batch");
        self.shards[from].handle_batch_returned(shard_id(to), batch);
    }
}
