//! Messages whose routing goes on later: they wait for their turn behind a wide one, or for a segment of the log.
//!
//! What a [`Routing`] has come to is kept without what it borrows, and a routing is made of it again for as long as that goes on. Who it
//! waits for is not said here: [`fan_out`](super::fan_out) and [`durable`](super::durable) have a queue each.
//!
//! Invariant: what was gathered for sessions on disk is in one place, here or in the routing that goes on.
//!
//! Cost: one reference to the message, and about 100 bytes.

use super::Shard;
use super::durable::{Delivery, GatherRef, Held};
use super::peer::CommitRef;
use super::routing::{Asked, Routing};
use crate::base::{Message, ShardId};
use crate::log::Origin;
use crate::session::Outcome;
use std::sync::Arc;

/// A message on its way.
#[derive(Debug)]
pub(super) struct Deferred {
    message: Arc<Message>,
    topic_hash: u64,
    /// What it has come to so far.
    outcome: Outcome,
    origin: Option<Origin>,
    commit: Option<(ShardId, CommitRef)>,
    gather: Option<GatherRef>,
    held: Vec<Delivery>,
}

impl Deferred {
    /// What this routing has come to; nothing of it goes on but here.
    pub(super) fn new(routing: &mut Routing<'_>, outcome: Outcome) -> Self {
        debug_assert!(routing.passed_on.is_none(), "who is told by one member is told by its routing");
        Self {
            message: routing.share(),
            topic_hash: routing.topic_hash,
            outcome,
            origin: routing.origin,
            commit: routing.commit,
            gather: routing.gather.take(),
            held: routing.held.take(),
        }
    }

    pub(super) fn message(&self) -> &Message {
        &self.message
    }

    /// Those of its receivers so far that are on disk.
    pub(super) fn held(&self) -> &[Delivery] {
        &self.held
    }

    /// This origin is released, and may be another message's from now on.
    pub(super) fn drop_origin(&mut self, origin: Origin) {
        self.origin = self.origin.filter(|of| *of != origin);
    }

    /// Goes on, and keeps what comes of it.
    pub(super) fn resume<T>(&mut self, go_on: impl FnOnce(&mut Routing<'_>, Outcome) -> (Outcome, T)) -> T {
        let message = self.message.as_ref().as_ref();
        let mut routing = Routing::new(&message, self.topic_hash, Some(Arc::clone(&self.message)));
        (routing.origin, routing.commit, routing.gather) = (self.origin, self.commit, self.gather);
        routing.held = Held::of(std::mem::take(&mut self.held));
        let (outcome, result) = go_on(&mut routing, self.outcome);
        (self.gather, self.held) = (routing.gather, routing.held.take());
        self.outcome = outcome;
        result
    }
}

impl Shard {
    /// The message is matched: `keep` puts it on disk for those who are, and its publisher hears of it, now if nothing is missing.
    pub(super) fn end_deferred(
        &mut self,
        mut deferred: Deferred,
        keep: fn(&mut Self, &mut Routing<'_>, Outcome) -> (Outcome, Asked),
    ) {
        let asked = deferred.resume(|routing, outcome| keep(self, routing, outcome));
        if let Some((from, commit)) = deferred.commit.filter(|_| asked.missing == 0) {
            self.report(from, commit, deferred.outcome);
        }
    }
}
