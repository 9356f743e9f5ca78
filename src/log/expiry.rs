//! Expiry: messages whose time is over are dropped from the streams, also while nobody reads them.
//!
//! Nothing is written: recovery meets the same deadlines again. What is marked has begun and is left alone.

use super::{Dropped, Log, StreamId};
use crate::base::Wall;

impl Log {
    /// Looks at the messages of streams, about `budget` of them, going on where the last call ended, and drops what has expired.
    /// Up to a second late: what is read back carries its exact deadline. Gives what each stream lost.
    pub fn expire(&mut self, wall: Wall, budget: usize) -> Vec<(StreamId, Dropped)> {
        let mut all = Vec::new();
        let mut left = budget;
        for _ in 0..self.index.streams.end() {
            if left == 0 {
                break;
            }
            if self.expiry_slot >= self.index.streams.end() {
                self.expiry_slot = 0;
            }
            let slot = self.expiry_slot;
            self.expiry_slot += 1;
            let Some(id) = self.index.streams.id_at(slot) else { continue };
            left = left.saturating_sub(1 + self.len(id));
            let dropped = self.expire_in(id, wall);
            if dropped.count > 0 {
                all.push((id, dropped));
            }
        }
        all
    }

    /// Drops what has expired in one stream: before it is read back, or asked for its length.
    pub fn expire_in(&mut self, id: StreamId, wall: Wall) -> Dropped {
        let mut dropped = Dropped::default();
        let Some(stream) = self.index.streams.get(id) else { return dropped };
        let is_due = |slot: &u32| {
            let body = self.index.bodies.at(*slot);
            body.is_expired(wall) && stream.tag(body.number()) == 0
        };
        let due: Vec<usize> =
            (0..).zip(stream.entries()).filter(|(_, slot)| is_due(slot)).map(|(at, _)| at).collect();
        for at in due.into_iter().rev() {
            let stream = self.index.streams.get(id).expect("found above");
            let size = self.index.bodies.at(stream.entries()[at]).location().size;
            dropped.count += 1;
            dropped.bytes += u64::from(size);
            self.index.drop_entry(id, at);
        }
        dropped
    }
}
