//! Latencies: histograms of nanoseconds, from 1 us to 2 minutes, to three digits. Threads have their own; they add up.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// The longest that is told apart.
const LONGEST: u64 = 120_000_000_000;

/// A histogram of times in nanoseconds.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

impl Latency {
    /// An empty one; 150 KiB.
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1000, LONGEST, 3).expect("the bounds are in order"))
    }

    /// Counts one.
    #[inline]
    pub fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos);
    }

    /// Adds another thread's.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the bounds are the same");
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that a share of all does not exceed, in microseconds.
    pub fn micros(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1e3
    }

    /// For the report, in microseconds; nothing if nothing was counted.
    pub fn to_json(&self) -> Value {
        if self.0.is_empty() {
            return Value::Null;
        }
        json!({
            "count": self.0.len(),
            "min": self.0.min() as f64 / 1e3,
            "mean": self.0.mean() / 1e3,
            "p50": self.micros(0.5),
            "p90": self.micros(0.9),
            "p99": self.micros(0.99),
            "p99_9": self.micros(0.999),
            "p99_99": self.micros(0.9999),
            "max": self.0.max() as f64 / 1e3,
        })
    }
}
