//! What holds after every turn of a shard: cheap, and drawing no randomness.

use crate::world::World;
use std::collections::BTreeSet;

/// Sessions are looked at this often, in steps.
const SESSIONS_EVERY: u64 = 64;

impl World {
    /// Right after the driver has taken everything the shard had for it.
    pub(crate) fn check_shard(&mut self, index: usize) {
        let shard = &self.shards[index];
        let sockets = self.network.count_on(index);
        if sockets != shard.connection_count() {
            let count = shard.connection_count();
            return self.fail(format!("shard {index} has {count} connections, the network {sockets}"));
        }
        let residue = shard.residue();
        let counters = *shard.counters();
        if counters.connected > counters.accepted + self.network.sockets.len() as u64 {
            return self.fail(format!("shard {index}: more connected than accepted"));
        }
        if residue.partial_bytes > 16 << 20 {
            return self.fail(format!("shard {index}: {} bytes of partial packets", residue.partial_bytes));
        }
        if self.step.is_multiple_of(SESSIONS_EVERY) {
            self.check_sessions();
        }
    }

    fn check_sessions(&mut self) {
        let mut seen = BTreeSet::new();
        // On disk, what is in flight with QoS 1 counts as waiting once the client is away.
        let limit = self.swarm.options.queue.session_messages_max.filter(|_| self.swarm.disk.is_none());
        let window = u64::from(self.swarm.options.session.prefetch.max(1));
        let mut errors = Vec::new();
        for (index, shard) in self.shards.iter().enumerate() {
            let mut sessions = 0;
            for view in shard.session_views() {
                sessions += 1;
                if limit.is_some_and(|limit| view.ready > u64::from(limit)) {
                    errors.push(format!("{} has {} messages over the limit", view.client_id, view.ready));
                }
                if (view.ready == 0) != (view.ready_bytes == 0) {
                    errors.push(format!(
                        "{} has {} messages of {} bytes",
                        view.client_id, view.ready, view.ready_bytes
                    ));
                }
                // What was settled right before a crash may count once more: what is settled is written lazily.
                if view.unacknowledged > window && self.crashes.is_empty() {
                    errors.push(format!(
                        "{} has {} in flight of {window}",
                        view.client_id, view.unacknowledged
                    ));
                }
                if !seen.insert(view.client_id.clone()) {
                    errors.push(format!("{} has two sessions", view.client_id));
                }
            }
            if sessions != shard.session_count() {
                errors.push(format!("shard {index} counts {} sessions of {sessions}", shard.session_count()));
            }
        }
        errors.into_iter().for_each(|error| self.fail(error));
    }
}
