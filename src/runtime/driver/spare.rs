//! Giving memory back: to the allocator when many clients have gone, to the system when a shard is quiet again; and whole rings that have
//! had no sockets for a while.
//!
//! Looked at every few seconds while anything happens at all; a shard where nothing happens is not woken for it.

use super::Driver;
use crate::base::Mono;
use crate::runtime::memory;

/// Between two looks.
const EVERY_MS: u64 = 5_000;
/// A shard with fewer turns between two looks is quiet: 20 a second.
const QUIET_TURNS: u32 = 100;
/// With so many bytes between two looks it was busy all the same: few packets can leave much behind. 256 KiB is far less than what
/// is worth giving back.
const QUIET_BYTES: u64 = 256 << 10;
/// What a message from another shard counts as.
const PEER_MESSAGE_BYTES: u64 = 64;
/// A queue of the driver's that is longer than this is given back when it is empty.
const KEPT_LEN: usize = 1024;

/// When there was time, and what for.
#[derive(Debug, Default)]
pub(super) struct SpareTime {
    /// The next look, if something has happened since the last one.
    at: Option<Mono>,
    /// The turn of the last look.
    turn: u32,
    /// What had come and gone until then, in bytes.
    moved: u64,
    /// What other shards have sent, in bytes, about.
    from_peers: u64,
    /// It was busy since memory was last given back to the system.
    was_busy: bool,
}

impl SpareTime {
    /// A batch of so many messages came from another shard.
    pub(super) fn count_batch(&mut self, messages: usize) {
        self.from_peers += messages as u64 * PEER_MESSAGE_BYTES;
    }

    /// When there is something to do though nothing happens.
    pub(super) fn at(&self) -> Option<Mono> {
        self.at
    }
}

impl Driver {
    /// At the end of a turn: gives memory back if it is time to.
    pub(super) fn use_spare_time(&mut self) {
        let Some(at) = self.spare.at else {
            self.spare.at = Some(self.now.mono.plus_ms(EVERY_MS));
            return;
        };
        if at > self.now.mono {
            return;
        }
        let counters = self.shard.counters();
        let moved = counters.bytes_in + counters.bytes_out + self.spare.from_peers;
        let is_quiet = self.turn.wrapping_sub(self.spare.turn) < QUIET_TURNS;
        let was_quiet = is_quiet && moved - self.spare.moved < QUIET_BYTES;
        (self.spare.turn, self.spare.moved) = (self.turn, moved);
        let freed_much = self.shard.handle_spare_time(self.now);
        self.shrink_queues();
        self.sockets.shrink();
        self.spare.was_busy |= !was_quiet;
        let ends_being_busy = is_quiet && self.spare.was_busy;
        let finds_unused = self.leaving.is_none() && self.rings.look_for_unused();
        let closed_some = finds_unused && self.close_rings();
        let is_much = freed_much || ends_being_busy || closed_some;
        if self.rings.look_for_buffers() || is_much {
            self.rings.release_buffers();
        }
        if is_much {
            memory::collect();
        }
        if is_quiet {
            self.spare.was_busy = false;
        }
        // Once more after it was busy, to see whether it has become quiet, and until rings without sockets are closed.
        self.spare.at = (self.spare.was_busy || finds_unused).then(|| self.now.mono.plus_ms(EVERY_MS));
    }

    /// Closes further rings that have had no sockets for a while; says whether there were any.
    fn close_rings(&mut self) -> bool {
        let before = self.rings.count();
        while let Some(ring) = self.rings.closable() {
            if !self.mesh.withdraw_ring(self.id, ring) {
                // A connection is on its way there.
                break;
            }
            self.rings.close(ring);
        }
        let rings = self.rings.count();
        if rings < before {
            tracing::debug!(
                shard = self.id.0,
                rings,
                "closed {} network rings without sockets",
                before - rings
            );
            self.limit_clients();
        }
        rings < before
    }

    fn shrink_queues(&mut self) {
        if self.closing.is_empty() && self.closing.capacity() > KEPT_LEN {
            self.closing.shrink_to_fit();
        }
        if self.moves.is_empty() && self.moves.capacity() > KEPT_LEN {
            self.moves.shrink_to_fit();
        }
        for queue in [&mut self.rearm, &mut self.throttled] {
            queue.shrink_to(KEPT_LEN);
        }
        self.starved.shrink_to(KEPT_LEN);
        self.ends.shrink_to(KEPT_LEN);
        self.lingering.shrink_to(KEPT_LEN);
        self.stalled.shrink_to(KEPT_LEN);
        self.completions.shrink_to(KEPT_LEN);
        for queue in &mut self.waiting {
            queue.shrink_to(KEPT_LEN);
        }
    }
}
