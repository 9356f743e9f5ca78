//! The mailboxes, from one shard's side: taking, posting, ringing.

use super::Driver;
use crate::base::ShardId;
use crate::runtime::mailbox::Mail;

/// Mail taken from one shard in a turn; what is left keeps the shard awake.
const MAIL_A_TURN: usize = 16;

impl Driver {
    /// Hands in what other shards posted, and gives emptied batches back.
    pub(super) fn take_mail(&mut self) {
        for from in self.mesh.others(self.id) {
            while let Some(batch) = self.mesh.returned(self.id, from) {
                self.shard.handle_batch_returned(from, batch);
            }
            for _ in 0..MAIL_A_TURN {
                let Some((mail, is_awaited)) = self.mesh.take(from, self.id) else { break };
                if is_awaited {
                    self.will_ring(from);
                }
                match mail {
                    Mail::Batch(batch) => {
                        self.spare.count_batch(batch.len());
                        let batch = self.shard.handle_peer(self.now, from, batch);
                        self.mesh.give_back(from, self.id, batch);
                    }
                    Mail::Arrival(arrival) => self.on_arrival(*arrival),
                }
            }
        }
    }

    /// Posts what waits for other shards, as far as there is room; says whether anything was.
    pub(super) fn post_mail(&mut self) -> bool {
        let mut posted = false;
        for to in self.mesh.others(self.id) {
            while let Some(mail) = self.waiting[to.index()].pop_front() {
                if let Err(mail) = self.mesh.post(self.id, to, mail) {
                    self.waiting[to.index()].push_front(mail);
                    break;
                }
                self.will_ring(to);
            }
            while self.waiting[to.index()].is_empty() && self.mesh.has_room(self.id, to) {
                let Some(batch) = self.shard.poll_peer(to) else { break };
                // Only this shard posts to the line, so the room is still there.
                if let Err(mail) = self.mesh.post(self.id, to, Mail::Batch(batch)) {
                    self.waiting[to.index()].push_back(mail);
                }
                self.will_ring(to);
                posted = true;
            }
        }
        posted
    }

    /// Wakes those that sleep and have mail, or the room they wait for: once a turn each.
    pub(super) fn ring_doorbells(&mut self) {
        while self.bells != 0 {
            let shard = ShardId(u16::try_from(self.bells.trailing_zeros()).expect("less than 64"));
            self.bells &= self.bells - 1;
            if self.mesh.must_ring(shard)
                && let Some(ring) = self.mesh.doorbell(shard)
            {
                self.rings.at(0).ring_doorbell(ring);
            }
        }
    }

    fn will_ring(&mut self, shard: ShardId) {
        assert!(shard.0 < 64, "at most 64 shards");
        self.bells |= 1 << shard.0;
    }
}
