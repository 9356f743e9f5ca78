//! Answers of several to one who waits: a publish whose message a group gave to a member on another shard, a session that ends.

use super::Shard;
use crate::base::ShardId;
use crate::log::{MessageNumber, StateId, StreamId};
use crate::session::Outcome;
use crate::shard::peer::{CommitRef, PeerMessage};

/// Names a gathering over the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::shard) struct GatherRef {
    pub(in crate::shard) shard: ShardId,
    pub(in crate::shard) token: (u32, u32),
}

/// What is done when all have answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::shard) enum Then {
    /// A publish is done on this shard: its own hears so.
    Report(ShardId, CommitRef),
    /// A message of a session that is over is kept by another member: it is settled in its stream.
    Settle(StreamId, MessageNumber),
    /// A will is kept wherever it has to be: the copy it left behind is not needed any more.
    Published(Option<StateId>),
}

/// Some answers that are missing.
#[derive(Debug)]
pub(in crate::shard) struct Gather {
    then: Then,
    missing: u32,
    outcome: Outcome,
}

impl Shard {
    /// Begins to wait, for `missing` answers so far.
    pub(in crate::shard) fn gather(&mut self, then: Then, missing: u32) -> GatherRef {
        let token = self.gathers.insert(Gather { then, missing, outcome: Outcome::default() });
        GatherRef { shard: self.id, token }
    }

    /// One answer more is to come. The gathering is this shard's.
    pub(in crate::shard) fn gather_more(&mut self, gather: GatherRef) {
        if let Some(found) = self.gathers.get_mut(gather.token.0, gather.token.1) {
            found.missing += 1;
        }
    }

    /// Something else is to be done. The gathering is this shard's.
    pub(in crate::shard) fn gather_then(&mut self, gather: GatherRef, then: Then) {
        if let Some(found) = self.gathers.get_mut(gather.token.0, gather.token.1) {
            found.then = then;
        }
    }

    /// An answer: to this shard's gathering or another's.
    pub(in crate::shard) fn gathered(&mut self, gather: GatherRef, outcome: Outcome) {
        if gather.shard != self.id {
            self.mesh.to(gather.shard).push(PeerMessage::Gathered { gather, outcome });
            return;
        }
        let (slot, generation) = gather.token;
        let Some(found) = self.gathers.get_mut(slot, generation) else { return };
        found.outcome = found.outcome.and(outcome);
        found.missing -= 1;
        if found.missing > 0 {
            return;
        }
        let Some(done) = self.gathers.remove(slot, generation) else { return };
        match done.then {
            Then::Report(from, commit) => self.report(from, commit, done.outcome),
            Then::Settle(stream, number) => self.handed_on(stream, number, done.outcome),
            Then::Published(state) => self.clear_state(state),
        }
    }
}
