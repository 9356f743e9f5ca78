//! A broker, its witness, and what is asked of both after every case.

use crate::DEADLINE;
use crate::broker::Broker;
use crate::cases::Case;
use crate::page::Page;
use crate::wire::{Packet, Wire, publish, subscribe, text};
use crate::witness::Witness;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How much more than before may stay resident: a tenth, and what a few allocator pages take.
const MARGIN_KB: u64 = 3 * 1024;
/// How long memory may take to come back.
const BACK_MAX: Duration = Duration::from_secs(60);

/// Where cases run.
pub(crate) struct Arena {
    broker: Broker,
    /// Each case at its full size, on a broker of its own.
    pub(crate) full: bool,
    /// Resident memory after warming up, in KiB.
    idle_kb: u64,
}

/// What one case came to.
pub(crate) struct Report {
    name: &'static str,
    what: String,
    took: Duration,
    witness: (Duration, Duration, usize),
    /// The bound under which the loop lag stayed, which is asked for once a second; in seconds.
    lag: f64,
    /// By how much the counters that name the cause have grown.
    counts: Vec<f64>,
    idle_kb: u64,
    peak_kb: u64,
    /// Resident memory afterwards, and how long after; where it was waited for.
    back: Option<(u64, Duration)>,
}

impl Arena {
    /// A broker with these settings, warmed up: two shards, so that everything that crosses does.
    pub(crate) fn new(full: bool, settings: &[&str]) -> Self {
        let broker = Broker::start(&[&["quelea.shards=2", "quelea.http=0"], settings].concat());
        let arena = Self { broker, full, idle_kb: 0 };
        arena.assert_round_trips();
        let idle_kb = arena.resident_kb();
        Self { idle_kb, ..arena }
    }

    /// Where the broker listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.broker.address()
    }

    /// The one that goes with the size of the run.
    pub(crate) fn pick<T>(&self, full: T, small: T) -> T {
        if self.full { full } else { small }
    }

    /// What the broker has in memory, in KiB.
    pub(crate) fn resident_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.broker.process_id()));
        let status = status.expect("the broker runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
        line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
    }

    /// Runs a case and what is asked after every one.
    pub(crate) fn run(&self, case: &Case) -> Report {
        eprintln!("{}", case.name);
        let lines_before = self.broker.lines().len();
        let page_before = self.page();
        let started = Instant::now();
        let witness = Witness::start(self.address());
        let what = (case.run)(self);
        let took = started.elapsed();
        let peak_kb = self.resident_kb();
        let witness = witness.finish();
        self.assert_round_trips();
        for cause in case.causes {
            self.broker.wait_for_line(lines_before, cause);
        }
        let counts = self.wait_for_counts(case, &page_before);
        let lag = self.page().lag_bound_since(&page_before);
        let back = self.full.then(|| self.wait_until_back());
        Report { name: case.name, what, took, witness, lag, counts, idle_kb: self.idle_kb, peak_kb, back }
    }

    /// Waits until each of the case's counters has grown; by how much.
    fn wait_for_counts(&self, case: &Case, before: &Page) -> Vec<f64> {
        let started = Instant::now();
        loop {
            let page = self.page();
            let counted = |counter: &&str| page.value(counter) - before.value(counter);
            let counts: Vec<f64> = case.counters.iter().map(counted).collect();
            if counts.iter().all(|count| *count > 0.0) {
                return counts;
            }
            assert!(started.elapsed() < DEADLINE, "{:?} grew by {counts:?}", case.counters);
            crate::crowd::pace(Duration::from_millis(100));
        }
    }

    fn page(&self) -> Page {
        Page::read(self.broker.http().expect("`ready` says where"))
    }

    /// Waits for the memory, ends the broker, and asserts that it went well.
    pub(crate) fn end(self) {
        let (kb, took) = self.wait_until_back();
        println!("idle {} KiB, afterwards {kb} KiB, {took:.1?} later", self.idle_kb);
        self.broker.stop();
    }

    /// Waits until resident memory is what it was; how much that is, and how long it took.
    fn wait_until_back(&self) -> (u64, Duration) {
        let started = Instant::now();
        let bound = self.idle_kb + self.idle_kb / 10 + MARGIN_KB;
        loop {
            let kb = self.resident_kb();
            if kb <= bound {
                return (kb, started.elapsed());
            }
            let memory = || self.page().memory();
            let idle = self.idle_kb;
            assert!(
                started.elapsed() < BACK_MAX,
                "{kb} KiB stay, {idle} KiB were there before: {:#?}",
                memory()
            );
            crate::crowd::pace(Duration::from_millis(100));
        }
    }

    /// A message goes round in every version, from one connection to another, whatever has happened.
    fn assert_round_trips(&self) {
        for level in [3, 4, 5] {
            let started = Instant::now();
            let mut subscriber = Wire::connected(self.address(), level, &format!("after-s{level}"));
            subscriber.send(&subscribe(level, 1, "after", 0));
            assert_eq!(subscriber.receive().expect("SUBACK").first, 0x90);
            let mut publisher = Wire::connected(self.address(), level, &format!("after-p{level}"));
            publisher.send(&publish(level, "after", b"all is well"));
            let properties: &[u8] = if level == 5 { &[0] } else { &[] };
            let body = [&text("after")[..], properties, b"all is well"].concat();
            assert_eq!(subscriber.receive(), Some(Packet { first: 0x30, body }));
            assert!(started.elapsed() < DEADLINE);
        }
    }
}

impl Report {
    pub(crate) const HEAD: &str = "| case | what was done | took | witness: median, longest | loop lag within | counted | resident: idle, under attack, after |\n|---|---|---|---|---|---|---|";
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |kb: u64| format!("{}.{} MiB", kb / 1024, kb % 1024 * 10 / 1024);
        let (median, longest, count) = self.witness;
        write!(
            f,
            "| {} | {} | {:.1?} | {median:.2?}, {longest:.1?} of {count} ",
            self.name, self.what, self.took
        )?;
        let counts: Vec<String> = self.counts.iter().map(|count| format!("{count:.0}")).collect();
        let lag = if self.lag.is_finite() {
            format!("{:?}", Duration::from_secs_f64(self.lag))
        } else {
            "longer".to_owned()
        };
        write!(f, "| {lag} | {} ", counts.join(", "))?;
        write!(f, "| {}, {}, ", mib(self.idle_kb), mib(self.peak_kb))?;
        match self.back {
            Some((kb, took)) => write!(f, "{} {:.0} s later |", mib(kb), took.as_secs_f32().ceil()),
            None => write!(f, "- |"),
        }
    }
}
