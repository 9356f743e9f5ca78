//! What the threads of a run share: the phase, the times, and counters that each thread writes and others read.
//!
//! Counters of one thread share no cache line with another's. [`Shared::seen`] is the exception: a subscriber on another thread
//! counts there for a publisher whose window depends on it.

use quelea::runtime::net::RingFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// What the run is doing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Phase {
    /// Threads open their rings.
    Prepare,
    /// Clients connect and subscribe.
    Setup,
    /// Publishers publish.
    Run,
    /// Nobody publishes; what is under way arrives. Idle clients are asked whether they live.
    Drain,
    /// Clients leave.
    Close,
}

/// What all threads see.
#[derive(Debug)]
pub struct Shared {
    phase: AtomicU8,
    /// When publishing begins, when measuring begins, when both end: nanoseconds of the monotonic clock.
    pub start: AtomicU64,
    pub measure_from: AtomicU64,
    pub stop: AtomicU64,
    /// Deliveries of each publisher's messages, each counted once.
    pub seen: Box<[AtomicU64]>,
    pub threads: Box<[ThreadShared]>,
}

/// One thread's part. Counters only grow, but for `sockets`.
#[derive(Default, Debug)]
#[repr(align(128))]
pub struct ThreadShared {
    /// Where the thread waits.
    pub ring: OnceLock<RingFd>,
    /// Whether it waits, or is about to.
    pub sleeping: AtomicBool,
    /// Clients that are ready, or will never be.
    pub settled: AtomicU64,
    /// Clients that became ready.
    pub ready: AtomicU64,
    /// Of these, connections that died.
    pub died: AtomicU64,
    /// Idle clients that were asked, and those that answered.
    pub asked: AtomicU64,
    pub alive: AtomicU64,
    /// Pings that were answered.
    pub pongs: AtomicU64,
    /// Idle clients that heard the message for them.
    pub heard: AtomicU64,
    /// Sockets that are open now: the one number here that falls.
    pub sockets: AtomicU64,
    pub published: AtomicU64,
    pub acknowledged: AtomicU64,
    /// Deliveries, each counted once.
    pub received: AtomicU64,
    /// The latency that half and 99 in 100 messages so far did not exceed, in microseconds; looked at once a second.
    pub p50: AtomicU64,
    pub p99: AtomicU64,
}

/// Sums over all threads.
#[derive(Clone, Copy, Default, Debug)]
pub struct Totals {
    pub settled: u64,
    pub ready: u64,
    pub died: u64,
    pub asked: u64,
    pub alive: u64,
    pub pongs: u64,
    pub heard: u64,
    pub sockets: u64,
    pub published: u64,
    pub acknowledged: u64,
    pub received: u64,
    /// The worst thread's.
    pub p50_micros: f64,
    pub p99_micros: f64,
}

impl Shared {
    /// For so many publishers and threads.
    pub fn new(publishers: u32, threads: u32) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Prepare as u8),
            start: AtomicU64::new(u64::MAX),
            measure_from: AtomicU64::new(u64::MAX),
            stop: AtomicU64::new(u64::MAX),
            seen: (0..publishers).map(|_| AtomicU64::new(0)).collect(),
            threads: (0..threads).map(|_| ThreadShared::default()).collect(),
        }
    }

    /// What the run is doing.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Prepare,
            1 => Phase::Setup,
            2 => Phase::Run,
            3 => Phase::Drain,
            _ => Phase::Close,
        }
    }

    /// Goes on to `phase`.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Sums, read without stopping anybody.
    pub fn totals(&self) -> Totals {
        let sum = |counter: fn(&ThreadShared) -> &AtomicU64| {
            self.threads.iter().map(|thread| counter(thread).load(Ordering::Acquire)).sum()
        };
        let max = |counter: fn(&ThreadShared) -> &AtomicU64| {
            self.threads.iter().map(|thread| counter(thread).load(Ordering::Relaxed)).max().unwrap_or(0)
                as f64
        };
        Totals {
            settled: sum(|thread| &thread.settled),
            ready: sum(|thread| &thread.ready),
            died: sum(|thread| &thread.died),
            asked: sum(|thread| &thread.asked),
            alive: sum(|thread| &thread.alive),
            pongs: sum(|thread| &thread.pongs),
            heard: sum(|thread| &thread.heard),
            sockets: sum(|thread| &thread.sockets),
            published: sum(|thread| &thread.published),
            acknowledged: sum(|thread| &thread.acknowledged),
            received: sum(|thread| &thread.received),
            p50_micros: max(|thread| &thread.p50),
            p99_micros: max(|thread| &thread.p99),
        }
    }
}
