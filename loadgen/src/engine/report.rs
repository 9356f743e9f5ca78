//! What a thread knows at its end, and what it waited for.

use super::histogram::Latency;
use super::ramp::Ramp;
use super::roles::Roles;
use crate::clock;
use crate::judge::{Counts, PublisherEnd, SubscriberEnd};
use std::collections::BTreeMap;

/// One thread's part of the result.
pub struct ThreadReport {
    pub publishers: Vec<PublisherEnd>,
    pub subscribers: Vec<SubscriberEnd>,
    pub counts: Counts,
    pub latency: Latency,
    pub ack_latency: Latency,
    pub connect_latency: Latency,
    pub lag: Latency,
    pub ready: u64,
    pub not_attempted: u64,
    pub failures: BTreeMap<String, u64>,
    pub lost: BTreeMap<String, u64>,
    /// Share of the run it computed, and share of the run it was ready to and had no core, 0 to 1.
    pub busy: f64,
    pub waiting: f64,
}

/// CPU time of a thread, and time it waited for a core, during the run.
#[derive(Clone, Copy, Default, Debug)]
pub struct Waits {
    began: u64,
    cpu: u64,
    queued: u64,
    wall: u64,
}

impl Waits {
    /// From now on.
    pub fn begin() -> Self {
        Self { began: clock::now(), cpu: clock::thread_cpu(), queued: run_queue(), wall: 0 }
    }

    /// Until now.
    pub fn end(&mut self) {
        self.wall = clock::now() - self.began;
        self.cpu = clock::thread_cpu().saturating_sub(self.cpu);
        self.queued = run_queue().saturating_sub(self.queued);
    }

    fn shares(&self) -> (f64, f64) {
        let wall = self.wall.max(1) as f64;
        (self.cpu as f64 / wall, self.queued as f64 / wall)
    }
}

/// Nanoseconds the calling thread has waited for a core, if the kernel counts them.
fn run_queue() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
}

impl ThreadReport {
    pub(super) fn new(
        roles: Roles,
        ramp: Ramp,
        lost: BTreeMap<String, u64>,
        lag: Latency,
        waits: &Waits,
    ) -> Self {
        let publishers = roles
            .publishers
            .into_iter()
            .map(|mut publisher| {
                let lanes = std::mem::take(&mut publisher.lanes);
                let (published, is_dead) =
                    (publisher.sequence, publisher.is_dead || publisher.slot.is_none());
                let (unacknowledged, refused) = publisher.end();
                PublisherEnd { published, is_dead, unacknowledged, refused, lanes }
            })
            .collect();
        let subscribers = roles
            .subscribers
            .into_iter()
            .map(|subscriber| SubscriberEnd {
                first_publisher: subscriber.hears.start,
                is_dead: subscriber.is_dead,
                streams: subscriber.streams,
            })
            .collect();
        // Counted by the judge, from the streams.
        let counts = Counts { received: 0, ..roles.counts };
        let (busy, waiting) = waits.shares();
        Self {
            publishers,
            subscribers,
            counts,
            latency: roles.latency,
            ack_latency: roles.ack_latency,
            connect_latency: ramp.latency,
            lag,
            ready: ramp.ready,
            not_attempted: ramp.not_attempted,
            failures: ramp.failures,
            lost,
            busy,
            waiting,
        }
    }
}
