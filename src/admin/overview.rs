//! What there is to show of a whole process: each shard's last report, and what the runtime knows besides. Plain values; the
//! views in [`metrics`](super::metrics) and [`status`](super::status) turn them into text.

use crate::log::Health;
use crate::shard::{Census, Counters, Report};

/// Upper bounds of the buckets of times, in microseconds.
pub const LAG_BOUNDS_US: [u64; 10] = [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000];

/// How long something took: shards to take up a question, a disk to make a commit safe.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lag {
    /// Samples by bucket; the last is of those over all bounds.
    pub buckets: [u64; LAG_BOUNDS_US.len() + 1],
    /// All samples together, in microseconds.
    pub sum_us: u64,
}

impl Lag {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Takes those of another in.
    pub fn add(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(sum, count)| *sum += count);
        self.sum_us += other.sum_us;
    }

    /// Takes a sample in.
    pub fn record(&mut self, lag_us: u64) {
        self.buckets[LAG_BOUNDS_US.partition_point(|bound| *bound < lag_us)] += 1;
        self.sum_us += lag_us;
    }
}

/// What a shard's disk has done so far.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DiskCounters {
    /// Commits made safe, by how long write and sync took together; where syncs are made by time, these alone.
    pub syncs: Lag,
    /// Writes.
    pub writes: u64,
    /// Their bytes.
    pub written_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Their bytes.
    pub read_bytes: u64,
}

/// A shard's durable log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogState {
    /// What its disk has done.
    pub disk: DiskCounters,
    /// Places found damaged when it was opened.
    pub damage_count: u64,
    /// Bytes of records that count.
    pub live_bytes: u64,
    /// Bytes of the files in use.
    pub used_bytes: u64,
    /// Bytes that wait for the disk.
    pub backlog_bytes: u64,
    /// Memory of its index, in bytes.
    pub memory_bytes: u64,
    /// Messages in it.
    pub messages: u64,
    /// States in it: subscriptions, retained messages, packet identifiers.
    pub states: u64,
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
    /// How its log was then; `None` without one.
    pub log_health: Option<Health>,
    /// Its log, as of the report.
    pub log: Option<LogState>,
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
    /// Bytes free on the disk of the data directory.
    pub free_bytes: Option<u64>,
    /// `disk_free_limit.absolute`.
    pub free_bytes_min: u64,
    /// Whether there are less.
    pub is_short_of_space: bool,
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

    /// A number of each log, added up.
    #[must_use]
    pub fn log_sum(&self, of: impl Fn(&LogState) -> u64) -> u64 {
        self.shards.iter().filter_map(|shard| shard.log.as_ref()).map(of).sum()
    }

    /// Shards whose log is so.
    #[must_use]
    pub fn logs_that_are(&self, health: Health) -> usize {
        self.shards.iter().filter(|shard| shard.log_health == Some(health)).count()
    }

    /// A number of each report, added up.
    #[must_use]
    pub fn sum(&self, of: impl Fn(&Report) -> u64) -> u64 {
        self.shards.iter().map(|shard| of(&shard.report)).sum()
    }
}
