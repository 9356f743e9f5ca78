//! Messages that were matched and wait for a segment of the log that is being made: kept when it is there, refused when it cannot be.
//!
//! In order: none is kept before those that wait already. They count with what waits for the disk.

use super::Shard;
use crate::log::Origin;
use crate::session::Outcome;
use crate::shard::deferred::Deferred;
use crate::shard::routing::Routing;

impl Shard {
    /// A message waits, matched, until there is a segment for it.
    pub(in crate::shard) fn wait_for_segment(&mut self, routing: &mut Routing<'_>, outcome: Outcome) {
        let waiting = Deferred::new(routing, outcome);
        self.waiting_bytes += waiting.message().size();
        self.waiting.push_back(waiting);
    }

    /// Nobody will repeat this publish: what waits here yet is kept without its origin.
    pub(super) fn drop_origin(&mut self, origin: Origin) {
        self.fan_outs.drop_origin(origin);
        self.waiting.iter_mut().for_each(|waiting| waiting.drop_origin(origin));
    }

    /// Keeps the messages for which there is a segment now, or none to be had.
    pub(super) fn work_waiting(&mut self) {
        while let Some(first) = self.waiting.pop_front() {
            let size = first.message().size();
            if self.is_short_of_segment(size, first.held()) {
                return self.waiting.push_front(first);
            }
            self.waiting_bytes -= size;
            self.end_deferred(first, Self::keep_now);
        }
    }
}
