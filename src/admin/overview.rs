//! What there is to show of a whole process: each shard's last report, and what the runtime knows besides. Plain values; the
//! views in [`metrics`](super::metrics) and [`status`](super::status) turn them into text.

use crate::shard::{Census, Counters, Report};

/// Upper bounds of the loop lag's buckets, in microseconds.
pub const LAG_BOUNDS_US: [u64; 10] = [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000];

/// How long shards took to take up a question.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lag {
    /// Samples by bucket; the last is of those over all bounds.
    pub buckets: [u64; LAG_BOUNDS_US.len() + 1],
    /// All samples together, in microseconds.
    pub sum_us: u64,
}

impl Lag {
    /// Takes a sample in.
    pub fn record(&mut self, lag_us: u64) {
        self.buckets[LAG_BOUNDS_US.partition_point(|bound| *bound < lag_us)] += 1;
        self.sum_us += lag_us;
    }
}

/// One shard, as the control thread sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ShardState {
    /// Its last report; older than a moment if it does not answer.
    pub report: Report,
    /// For how long a question has waited, in milliseconds, where that is too long.
    pub silent_ms: Option<u64>,
    /// Receive buffers of its rings, in bytes.
    pub receive_buffer_bytes: u64,
    /// Rings it has opened.
    pub rings: u64,
    /// How long it took to take up the last question, in microseconds.
    pub lag_us: u64,
}

/// The process around the shards.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Process {
    /// A name for it: the product's at the machine's.
    pub node: String,
    /// Milliseconds since it began to serve.
    pub uptime_ms: u64,
    /// Resident memory, in bytes; `None` if the system does not say.
    pub resident_bytes: Option<u64>,
    /// `quelea.memory.max_bytes`.
    pub memory_max_bytes: Option<u64>,
    /// Whether it is over that bound.
    pub is_short_of_memory: bool,
    /// Whether it is on its way out.
    pub is_leaving: bool,
    /// Descriptors in use, and how many there may be.
    pub descriptors: Option<(u64, u64)>,
}

/// Everything.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Overview {
    /// The process.
    pub process: Process,
    /// Its shards, in order.
    pub shards: Vec<ShardState>,
    /// The lag of all of them.
    pub lag: Lag,
}

impl Overview {
    /// What all shards have counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        self.shards.iter().for_each(|shard| sum.add(&shard.report.counters));
        sum
    }

    /// What all walks added up.
    #[must_use]
    pub fn census(&self) -> Census {
        let mut sum = Census::default();
        self.shards.iter().for_each(|shard| sum.add(&shard.report.census));
        sum
    }

    /// A number of each report, added up.
    #[must_use]
    pub fn sum(&self, of: impl Fn(&Report) -> u64) -> u64 {
        self.shards.iter().map(|shard| of(&shard.report)).sum()
    }
}
