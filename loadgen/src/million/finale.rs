//! What happens between holding and the end: some clients are written to, a witness begins, all are dropped, and the broker's memory is looked
//! at every second.

use super::link::Link;
use super::witness::{Testimony, Witness};
use crate::clock::{self, MILLISECOND, SECOND};
use crate::engine::{self, Watch};
use crate::payload::{Payloads, Stamp};
use crate::plan::Plan;
use crate::scenario::topic;
use anyhow::Result;
use std::sync::Arc;
use std::time::Duration;

/// How long the witness goes on before the drop, to know what is usual.
const USUAL: u64 = 2 * SECOND;
/// Memory is looked at so often.
const LOOK: u64 = SECOND;
/// Over the idle memory, what still counts as back.
pub const BACK: f64 = 1.1;

/// What was seen.
pub struct Settled {
    /// Who were written to, who heard it, and how long that took, in seconds.
    pub written: u64,
    pub heard: u64,
    pub heard_secs: f64,
    /// Pings answered by then.
    pub pongs: u64,
    /// When the witness began and when all were dropped, in nanoseconds; how long closing all took, in seconds.
    pub began: u64,
    pub dropped: u64,
    pub drop_secs: Option<f64>,
    /// Resident memory of the broker before anybody came, and before the drop.
    pub idle: u64,
    pub held: u64,
    /// The same afterwards: nanoseconds since the drop, bytes.
    pub samples: Vec<(u64, u64)>,
    /// When it was back, in nanoseconds since the drop.
    pub back: Option<u64>,
    /// When looking ended.
    pub ended: u64,
    pub testimony: Testimony,
    /// Promises that were broken meanwhile.
    pub broken: Vec<String>,
}

/// Takes part in the run.
pub struct Finale {
    plan: Arc<Plan>,
    share: f64,
    settle: u64,
    witness: Option<Witness>,
    next_look: u64,
    settled: Option<Settled>,
}

impl Finale {
    /// Writes to `share` percent, and gives the broker `settle` seconds.
    pub fn new(plan: Arc<Plan>, share: f64, settle: f64) -> Self {
        let settle = clock::from_secs(settle);
        Self { plan, share, settle, witness: None, next_look: 0, settled: None }
    }

    /// What was seen; nothing if it never came to that.
    pub fn finish(self) -> Option<Settled> {
        let mut settled = self.settled?;
        match self.witness.map(Witness::finish) {
            Some(Ok(testimony)) => settled.take(testimony),
            Some(Err(error)) => settled.broken.push(format!("the witness: {error:#}")),
            None => {}
        }
        Some(settled)
    }

    /// How many are written to.
    fn count(&self) -> u64 {
        (f64::from(self.plan.topology.idle) * self.share / 100.0).round() as u64
    }

    /// Publishes to so many clients, evenly spread over all. The connection has to stay until all of it has come: where something is
    /// not read, as acknowledgements are not, the end of one is a reset.
    fn write(&self, count: u64) -> Result<Link> {
        let clients = u64::from(self.plan.topology.idle);
        let mut link =
            Link::open(self.plan.target, &self.plan.options, &format!("lg{:08x}h", self.plan.run))?;
        let payloads = Payloads::new(self.plan.size);
        let mut payload = Vec::new();
        for nth in 0..count {
            let number = (nth * clients / count) as u32;
            let stamp = Stamp { run: self.plan.run, publisher: number, sequence: 0, intended: clock::now() };
            payloads.write(stamp, &mut payload);
            link.publish(&topic(&self.plan.idle_prefix(), number), &payload, self.plan.qos)?;
        }
        Ok(link)
    }
}

impl Settled {
    fn take(&mut self, testimony: Testimony) {
        if testimony.strange > 0 {
            self.broken
                .push(format!("the witness got {} messages again, late or changed", testimony.strange));
        }
        self.testimony = testimony;
    }
}

impl engine::Finale for Finale {
    fn before_leaving(&mut self, watch: &Watch<'_>) -> Result<()> {
        let mut broken = Vec::new();
        let (began, written) = (clock::now(), self.count());
        let link =
            self.write(written).map_err(|error| broken.push(format!("who writes to clients: {error:#}")));
        let mut heard_at = clock::now();
        let mut heard = watch.totals().heard;
        while heard < written && clock::now() - heard_at < self.plan.drain && !watch.is_interrupted() {
            std::thread::park_timeout(Duration::from_millis(10));
            let now = watch.totals().heard;
            if now > heard {
                (heard, heard_at) = (now, clock::now());
            }
        }
        drop(link);
        let pongs = watch.totals().pongs;
        let witness_began = clock::now();
        let witness = Witness::start(&self.plan);
        self.witness = witness.map_err(|error| broken.push(format!("the witness: {error:#}"))).ok();
        while clock::now() - witness_began < USUAL && !watch.is_interrupted() {
            std::thread::park_timeout(Duration::from_millis(50));
        }
        let held = watch.memory().rss;
        let dropped = clock::now();
        self.next_look = dropped + LOOK;
        self.settled = Some(Settled {
            written,
            heard,
            heard_secs: (heard_at - began) as f64 / SECOND as f64,
            pongs,
            began: witness_began,
            dropped,
            drop_secs: None,
            idle: watch.before.rss,
            held,
            samples: Vec::new(),
            back: None,
            ended: dropped,
            testimony: Testimony::default(),
            broken,
        });
        Ok(())
    }

    fn is_done(&mut self, watch: &Watch<'_>, left: bool) -> bool {
        let Some(settled) = &mut self.settled else { return true };
        let now = clock::now();
        if left && settled.drop_secs.is_none() {
            settled.drop_secs = Some((now - settled.dropped) as f64 / SECOND as f64);
        }
        if now >= self.next_look
            && settled.back.is_none()
            && now - settled.dropped <= self.settle + MILLISECOND * 500
        {
            self.next_look += LOOK;
            let rss = watch.memory().rss;
            settled.samples.push((now - settled.dropped, rss));
            settled.ended = now;
            // Before the last socket is closed nothing can be back, and a process that is gone is not back.
            if left && rss > 0 && rss as f64 <= settled.idle as f64 * BACK {
                settled.back = Some(now - settled.dropped);
            }
        }
        settled.back.is_some() || now - settled.dropped > self.settle + MILLISECOND * 500
    }
}
