//! The engine: one thread for each core, each with its own rings and clients, led through the phases of a run.
//!
//! It knows a scenario only as the topology in its [`Plan`]. The leading thread does nothing but wait, look at counters, and sample
//! what the broker costs at the edges of the measured time.

mod connection;
mod histogram;
mod publisher;
mod pump;
mod ramp;
mod report;
mod rings;
mod roles;
mod shared;
mod socket;
mod worker;

pub use histogram::Latency;
pub use report::ThreadReport;
pub use rings::Rings;
pub use shared::{Phase, Totals};

use crate::clock::{self, MILLISECOND, SECOND};
use crate::cost::{Memory, Processes};
use crate::plan::{Pace, Plan};
use anyhow::{Context, Result, anyhow, ensure};
use shared::Shared;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use worker::Worker;

/// How often the leading thread looks.
const LOOK: u64 = 50 * MILLISECOND;
/// Between the order to publish and the first message, so that every thread has heard it.
const LEAD: u64 = 50 * MILLISECOND;
/// After everything that is due came: whatever came again would come now.
const AFTERMATH: u64 = 200 * MILLISECOND;
/// What an open loop has not sent at its end may be sent so much later.
const CATCH_UP_MAX: u64 = SECOND;
/// At most so long may arrivals go on after the last publish.
const DRAIN_MAX: u64 = 60 * SECOND;
/// And so much longer for each client: a million that are asked whether they live take a while.
const DRAIN_A_CLIENT: u64 = MILLISECOND / 2;
/// After the last client left, the broker has so long to give back memory.
const SETTLE: u64 = SECOND;

/// Counters and costs at one moment.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sample {
    pub at: u64,
    pub totals: Totals,
    /// CPU seconds of the broker and of this process.
    pub broker_cpu: f64,
    pub own_cpu: f64,
}

/// What a run gave.
pub struct Outcome {
    pub threads: Vec<ThreadReport>,
    /// From the first connection to the last.
    pub setup_nanos: u64,
    /// CPU seconds of the broker for all connections.
    pub setup_broker_cpu: f64,
    /// The edges of the measured time; equal if it never came.
    pub from: Sample,
    pub to: Sample,
    pub end: Totals,
    /// Before the first connection, when all were there and the load was on, and after the last had left.
    pub before: Memory,
    pub peak: Option<Memory>,
    pub after: Memory,
    /// The user ended it early.
    pub interrupted: bool,
}

/// Is told what happens.
pub trait Observer {
    /// Called often; `elapsed` and `total` are of the phase, in nanoseconds (0: not known).
    fn progress(&mut self, phase: Phase, totals: &Totals, clients: u64, elapsed: u64, total: u64);
}

/// Takes part in a run when all clients were held and asked.
pub trait Finale {
    /// Nobody leaves before this returns.
    ///
    /// # Errors
    /// If what it needs cannot be had.
    fn before_leaving(&mut self, watch: &Watch<'_>) -> Result<()>;

    /// Called often while clients leave, and afterwards (all have `left`) until it says that it is done.
    fn is_done(&mut self, watch: &Watch<'_>, left: bool) -> bool;
}

/// What a [`Finale`] may look at.
pub struct Watch<'a> {
    shared: &'a Shared,
    processes: &'a Processes,
    interrupt: &'a AtomicBool,
    /// Before the first connection.
    pub before: &'a Memory,
}

impl Watch<'_> {
    /// Sums over all threads, now.
    pub fn totals(&self) -> Totals {
        self.shared.totals()
    }

    /// What the broker holds now.
    pub fn memory(&self) -> Memory {
        self.processes.memory()
    }

    /// The user ends it early.
    pub fn is_interrupted(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed)
    }
}

/// Runs a plan to its end.
///
/// # Errors
/// If the machine refuses what is needed; a broker's failures are in the [`Outcome`].
pub fn run(
    plan: &Arc<Plan>,
    observer: &mut dyn Observer,
    finale: Option<&mut dyn Finale>,
) -> Result<Outcome> {
    let interrupt = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second one ends the process at once.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&interrupt))?;
        signal_hook::flag::register(signal, Arc::clone(&interrupt))?;
    }
    let processes = Processes::new(plan.broker_pids.clone(), plan.broker_tree);
    if let Some(pid) = processes.missing() {
        return Err(anyhow!("--broker-pid {pid}: there is no such process"));
    }
    let shared = Arc::new(Shared::new(plan.topology.publishers, plan.threads));
    let mut leader = Leader { plan, shared, processes, interrupt, observer, handles: Vec::new() };
    leader.spawn()?;
    leader.lead(finale)
}

struct Leader<'a> {
    plan: &'a Arc<Plan>,
    shared: Arc<Shared>,
    processes: Processes,
    interrupt: Arc<AtomicBool>,
    observer: &'a mut dyn Observer,
    handles: Vec<JoinHandle<Result<ThreadReport>>>,
}

impl Leader<'_> {
    fn spawn(&mut self) -> Result<()> {
        for index in 0..self.plan.threads as usize {
            let (plan, shared) = (Arc::clone(self.plan), Arc::clone(&self.shared));
            let handle = std::thread::Builder::new().name(format!("load-{index}")).spawn(move || {
                pin(&plan.cpus, index)?;
                // Without it the kernel may wake a thread 50 us late.
                let _ = nix::sys::prctl::set_timerslack(1);
                Worker::new(plan, shared, index)?.run()
            });
            self.handles.push(handle.context("no thread")?);
        }
        Ok(())
    }

    fn lead(mut self, mut finale: Option<&mut dyn Finale>) -> Result<Outcome> {
        while self.shared.threads.iter().any(|thread| thread.ring.get().is_none()) {
            self.check_threads()?;
            self.wait_until(clock::now() + MILLISECOND);
        }
        let before = self.processes.memory();
        self.shared.enter(Phase::Setup);
        let began = clock::now();
        let broker_cpu = self.processes.cpu();
        self.set_up()?;
        let setup_nanos = clock::now() - began;
        let setup_broker_cpu = self.processes.cpu() - broker_cpu;
        let mut from = self.sample();
        let mut to = from;
        let mut peak = None;
        if self.is_worth_running() {
            (from, to) = self.measure()?;
            peak = Some(self.processes.memory());
            self.drain()?;
            if let Some(finale) = &mut finale {
                finale.before_leaving(&self.watch_with(&before))?;
            }
        } else {
            finale = None;
        }
        let end = self.shared.totals();
        self.close(&before, finale);
        let mut threads = Vec::new();
        for handle in std::mem::take(&mut self.handles) {
            threads.push(handle.join().map_err(|_| anyhow!("a thread panicked"))??);
        }
        self.wait_until(clock::now() + if self.processes.is_empty() { 0 } else { SETTLE });
        let after = self.processes.memory();
        let interrupted = self.interrupt.load(Ordering::Relaxed);
        Ok(Outcome {
            threads,
            setup_nanos,
            setup_broker_cpu,
            from,
            to,
            end,
            before,
            peak,
            after,
            interrupted,
        })
    }

    /// Until every client is ready or will never be.
    fn set_up(&mut self) -> Result<()> {
        let clients = self.plan.topology.clients();
        let began = clock::now();
        loop {
            let totals = self.shared.totals();
            self.observer.progress(Phase::Setup, &totals, clients, clock::now() - began, 0);
            if totals.settled >= clients || self.is_interrupted() {
                return Ok(());
            }
            self.check_threads()?;
            self.wait_until(clock::now() + LOOK / 5);
        }
    }

    /// Whether there is anybody to run with.
    fn is_worth_running(&self) -> bool {
        let totals = self.shared.totals();
        totals.ready > totals.died && !self.is_interrupted()
    }

    /// Publishing, from warm-up to end.
    fn measure(&mut self) -> Result<(Sample, Sample)> {
        let start = clock::now() + LEAD;
        let from = start + self.plan.warmup;
        let stop = from + self.plan.measured;
        self.shared.start.store(start, Ordering::Release);
        self.shared.measure_from.store(from, Ordering::Release);
        self.shared.stop.store(stop, Ordering::Release);
        self.shared.enter(Phase::Run);
        self.watch(start, from, stop)?;
        let first = self.sample();
        self.watch(start, stop, stop)?;
        let last = self.sample();
        self.catch_up(stop - start);
        Ok((first, last))
    }

    /// An open loop has a moment for what was due before the end and is not sent yet.
    fn catch_up(&self, nanos: u64) {
        let Pace::Open { rate } = self.plan.pace else { return };
        let due = (nanos as f64 * rate / SECOND as f64) as u64;
        let until = clock::now() + CATCH_UP_MAX.min(self.plan.drain);
        let is_late = || {
            let totals = self.shared.totals();
            totals.published < due && totals.died == 0 && totals.ready == self.plan.topology.clients()
        };
        while is_late() && clock::now() < until && !self.is_interrupted() {
            self.wait_until(clock::now() + LOOK / 10);
        }
    }

    /// Waits until `until`, or until nobody is left or the user ends it.
    fn watch(&mut self, start: u64, until: u64, stop: u64) -> Result<()> {
        let clients = self.plan.topology.clients();
        loop {
            let now = clock::now();
            let totals = self.shared.totals();
            let elapsed = now.saturating_sub(start);
            self.observer.progress(Phase::Run, &totals, clients, elapsed, stop - start);
            if now >= until || self.is_interrupted() || totals.died >= totals.ready {
                return Ok(());
            }
            self.check_threads()?;
            self.wait_until(until.min(now + LOOK));
        }
    }

    /// Until everything came that is due, or nothing comes any more.
    fn drain(&mut self) -> Result<()> {
        self.shared.enter(Phase::Drain);
        let began = clock::now();
        let mut last = self.shared.totals();
        let mut progress = began;
        let mut complete_since = None;
        let clients = self.plan.topology.clients();
        // Threads publish to the end of the turn in which they hear of the new phase.
        self.wait_until(began + LOOK);
        loop {
            let totals = self.shared.totals();
            let now = clock::now();
            if (totals.received, totals.acknowledged, totals.alive, totals.asked)
                != (last.received, last.acknowledged, last.alive, last.asked)
            {
                progress = now;
            }
            last = totals;
            self.observer.progress(Phase::Drain, &totals, clients, now - began, 0);
            let complete = self.is_complete(&totals);
            complete_since = if complete { complete_since.or(Some(now)) } else { None };
            let is_over = complete_since.is_some_and(|since| now - since >= AFTERMATH)
                || now - progress >= self.plan.drain.max(AFTERMATH)
                || now - began >= DRAIN_MAX + clients * DRAIN_A_CLIENT
                || totals.died >= totals.ready
                || self.is_interrupted();
            if is_over {
                return Ok(());
            }
            self.check_threads()?;
            self.wait_until(now + LOOK / 5);
        }
    }

    /// Until every thread has let its clients go, and the finale is done.
    fn close(&mut self, before: &Memory, mut finale: Option<&mut dyn Finale>) {
        self.shared.enter(Phase::Close);
        let began = clock::now();
        loop {
            let left = self.handles.iter().all(JoinHandle::is_finished);
            let watch = self.watch_with(before);
            let done = finale.as_mut().is_none_or(|finale| finale.is_done(&watch, left));
            if left && (done || self.is_interrupted()) {
                return;
            }
            let (totals, clients) = (self.shared.totals(), self.plan.topology.clients());
            self.observer.progress(Phase::Close, &totals, clients, clock::now() - began, 0);
            self.wait_until(clock::now() + LOOK / 10);
        }
    }

    fn watch_with<'b>(&'b self, before: &'b Memory) -> Watch<'b> {
        Watch { shared: &self.shared, processes: &self.processes, interrupt: &self.interrupt, before }
    }

    fn is_complete(&self, totals: &Totals) -> bool {
        let due = totals.published * self.plan.topology.fan();
        let acknowledged =
            self.plan.qos == quelea::base::QoS::AtMostOnce || totals.acknowledged >= totals.published;
        let idle = u64::from(self.plan.topology.idle);
        let asked = idle == 0 || totals.asked + totals.died >= totals.ready.min(idle);
        totals.received >= due && acknowledged && asked && totals.alive >= totals.asked
    }

    fn sample(&self) -> Sample {
        let (totals, at) = (self.shared.totals(), clock::now());
        Sample { at, totals, broker_cpu: self.processes.cpu(), own_cpu: clock::process_cpu() }
    }

    fn is_interrupted(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed)
    }

    fn wait_until(&self, until: u64) {
        loop {
            let now = clock::now();
            if now >= until {
                return;
            }
            std::thread::park_timeout(Duration::from_nanos(until - now));
        }
    }

    /// A thread that ended before it was told to has failed.
    fn check_threads(&mut self) -> Result<()> {
        let Some(index) = self.handles.iter().position(JoinHandle::is_finished) else { return Ok(()) };
        let result = self.handles.swap_remove(index).join().map_err(|_| anyhow!("a thread panicked"))?;
        self.shared.enter(Phase::Close);
        result?;
        Err(anyhow!("a thread ended early"))
    }
}

/// Keeps the calling thread on its core.
fn pin(cpus: &[usize], index: usize) -> Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    let cpu = cpus[index % cpus.len()];
    let mut set = nix::sched::CpuSet::new();
    ensure!(set.set(cpu).is_ok(), "core {cpu} does not exist");
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)
        .with_context(|| format!("a thread cannot be kept on core {cpu}"))
}
