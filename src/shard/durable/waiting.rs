//! Messages that were matched and wait for a segment of the log that is being made: kept when it is there, refused when it cannot be.
//!
//! In order: none is kept before those that wait already. They count with what waits for the disk.

use super::Shard;
use super::gather::GatherRef;
use super::queue::{Delivery, Held};
use crate::base::{Message, ShardId};
use crate::log::Origin;
use crate::session::Outcome;
use crate::shard::peer::CommitRef;
use crate::shard::routing::Routing;
use std::sync::Arc;

/// One of them.
#[derive(Debug)]
pub(in crate::shard) struct Waiting {
    message: Arc<Message>,
    topic_hash: u64,
    commit: Option<(ShardId, CommitRef)>,
    outcome: Outcome,
    origin: Option<Origin>,
    held: Vec<Delivery>,
    gather: Option<GatherRef>,
}

impl Shard {
    /// A message waits, matched, until there is a segment for it.
    pub(in crate::shard) fn wait_for_segment(&mut self, routing: &mut Routing<'_>, outcome: Outcome) {
        let waiting = Waiting {
            message: routing.share(),
            topic_hash: routing.topic_hash,
            commit: routing.commit,
            outcome,
            origin: routing.origin,
            held: routing.held.take(),
            gather: routing.gather.take(),
        };
        self.waiting_bytes += waiting.message.size();
        self.waiting.push_back(waiting);
    }

    /// Nobody will repeat this publish: what waits here yet is kept without its origin.
    pub(super) fn drop_origin(&mut self, origin: Origin) {
        self.fan_outs.drop_origin(origin);
        for message in &mut self.waiting {
            message.origin = message.origin.filter(|of| *of != origin);
        }
    }

    /// Keeps the messages for which there is a segment now, or none to be had.
    pub(super) fn work_waiting(&mut self) {
        while let Some(mut first) = self.waiting.pop_front() {
            let size = first.message.size();
            if self.is_short_of_segment(size, &first.held) {
                return self.waiting.push_front(first);
            }
            self.waiting_bytes -= size;
            let message = first.message.as_ref().as_ref();
            let mut routing = Routing::new(&message, first.topic_hash, Some(Arc::clone(&first.message)));
            (routing.origin, routing.commit, routing.gather) = (first.origin, first.commit, first.gather);
            routing.held = Held::of(std::mem::take(&mut first.held));
            let (outcome, asked) = self.keep_now(&mut routing, first.outcome);
            if let Some((from, commit)) = first.commit.filter(|_| asked.missing == 0) {
                self.report(from, commit, outcome);
            }
        }
    }
}
