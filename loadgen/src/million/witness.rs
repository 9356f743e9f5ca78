//! The witness: a pair of clients that goes on while everything else is dropped. Its messages are due at fixed times, so their latency
//! counts whatever the broker does meanwhile.

use super::link::Link;
use crate::clock::{self, SECOND};
use crate::payload::{Payloads, SIZE_MIN, Stamp};
use crate::plan::Plan;
use anyhow::{Result, anyhow};
use quelea::base::QoS;
use quelea::client::Incoming;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Messages a second.
const RATE: u64 = 200;
/// After the last message, how long the arrival of all is waited for.
const PATIENCE: u64 = 5 * SECOND;
/// The publisher has not ended.
const NOT_OVER: u64 = u64::MAX;

/// A message that came: when it was due, and how much later it came, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub due: u64,
    pub latency: u64,
}

/// The pair, at work on two threads.
pub struct Witness {
    stop: Arc<AtomicBool>,
    /// How many messages there are to come, once that is known.
    published: Arc<AtomicU64>,
    publisher: JoinHandle<Result<u64>>,
    subscriber: JoinHandle<Result<Testimony>>,
}

/// What the witness saw.
#[derive(Default)]
pub struct Testimony {
    pub published: u64,
    /// Every message once.
    pub seen: Vec<Seen>,
    /// Messages that came again, after a later one, or changed.
    pub strange: u64,
    /// The number of the message that comes next.
    next: u64,
}

impl Witness {
    /// Begins to publish.
    ///
    /// # Errors
    /// If the broker refuses one of the two.
    pub fn start(plan: &Plan) -> Result<Self> {
        let topic = format!("{}/witness", plan.prefix);
        let mut hears = Link::open(plan.target, &plan.options, &format!("lg{:08x}ws", plan.run))?;
        hears.subscribe(&topic, QoS::AtMostOnce)?;
        let mut says = Link::open(plan.target, &plan.options, &format!("lg{:08x}wp", plan.run))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (run, is_over, began) = (plan.run, Arc::clone(&stop), clock::now());
        let publisher = spawn("witness-says", move || {
            let payloads = Payloads::new(SIZE_MIN);
            let mut payload = Vec::new();
            let mut sequence = 0;
            while !is_over.load(Ordering::Acquire) {
                let intended = began + sequence * SECOND / RATE;
                while let Some(left) = intended.checked_sub(clock::now()).filter(|&left| left > 0) {
                    std::thread::park_timeout(Duration::from_nanos(left));
                }
                payloads.write(Stamp { run, publisher: 0, sequence, intended }, &mut payload);
                says.publish(&topic, &payload, QoS::AtMostOnce)?;
                sequence += 1;
            }
            Ok(sequence)
        })?;
        let published = Arc::new(AtomicU64::new(NOT_OVER));
        let due = Arc::clone(&published);
        let subscriber = spawn("witness-hears", move || hear(&mut hears, run, &due))?;
        Ok(Self { stop, published, publisher, subscriber })
    }

    /// Ends it.
    ///
    /// # Errors
    /// If one of the two lost its connection.
    pub fn finish(self) -> Result<Testimony> {
        self.stop.store(true, Ordering::Release);
        let published =
            self.publisher.join().map_err(|_| anyhow!("the witness panicked")).and_then(|ended| ended);
        self.published.store(published.as_ref().map_or(0, |&published| published), Ordering::Release);
        let testimony = self.subscriber.join().map_err(|_| anyhow!("the witness panicked"))??;
        Ok(Testimony { published: published?, ..testimony })
    }
}

/// Until everything that is `due` has come; what has not come by [`PATIENCE`] after the end is lost.
fn hear(link: &mut Link, run: u32, due: &AtomicU64) -> Result<Testimony> {
    let payloads = Payloads::new(SIZE_MIN);
    let mut testimony = Testimony::default();
    let mut over_since = None;
    loop {
        link.receive(clock::now() + SECOND / 10, &mut |incoming| {
            if let Incoming::Message(message) = incoming {
                testimony
                    .take(payloads.read(message.payload).ok().filter(|stamp| stamp.run == run), clock::now());
            }
        })?;
        let due = due.load(Ordering::Acquire);
        let now = clock::now();
        let is_late = due != NOT_OVER && now - *over_since.get_or_insert(now) > PATIENCE;
        if is_late || testimony.seen.len() as u64 >= due {
            return Ok(testimony);
        }
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<JoinHandle<Result<T>>> {
    let work = move || {
        // Without it the kernel may wake the thread 50 us late.
        let _ = nix::sys::prctl::set_timerslack(1);
        work()
    };
    Ok(std::thread::Builder::new().name(name.to_owned()).spawn(work)?)
}

impl Testimony {
    /// A message came, at `now`; what is not this run's says nothing.
    fn take(&mut self, stamp: Option<Stamp>, now: u64) {
        let Some(stamp) = stamp.filter(|stamp| stamp.sequence >= self.next) else {
            self.strange += 1;
            return;
        };
        self.next = stamp.sequence + 1;
        self.seen.push(Seen { due: stamp.intended, latency: now.saturating_sub(stamp.intended) });
    }

    /// Latencies of what was due in a time, in microseconds; nothing if nothing was.
    pub fn latency(&self, from: u64, to: u64) -> Value {
        let due = self.seen.iter().filter(|seen| (from..to).contains(&seen.due));
        let mut micros: Vec<f64> = due.map(|seen| seen.latency as f64 / 1e3).collect();
        micros.sort_by(f64::total_cmp);
        let Some(&max) = micros.last() else { return Value::Null };
        let at = |share: f64| micros[((micros.len() as f64 * share).ceil() as usize).max(1) - 1];
        json!({"count": micros.len(), "p50": at(0.5), "p99": at(0.99), "max": max})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_of_a_part() {
        let seen = (0..200).map(|at| Seen { due: at, latency: (at % 100 + 1) * 1000 }).collect();
        let testimony = Testimony { published: 200, seen, ..Testimony::default() };
        assert_eq!(
            testimony.latency(100, 200),
            json!({"count": 100, "p50": 50.0, "p99": 99.0, "max": 100.0})
        );
        assert_eq!(testimony.latency(7, 8), json!({"count": 1, "p50": 8.0, "p99": 8.0, "max": 8.0}));
        assert_eq!(testimony.latency(200, 300), Value::Null);
    }

    /// What came again does not make up for what was lost.
    #[test]
    fn every_message_counts_once() {
        let mut testimony = Testimony::default();
        let stamp = |sequence| Stamp { run: 1, publisher: 0, sequence, intended: sequence * 10 };
        for come in [Some(stamp(0)), Some(stamp(0)), None, Some(stamp(3)), Some(stamp(2)), Some(stamp(4))] {
            testimony.take(come, 45);
        }
        let seen: Vec<(u64, u64)> = testimony.seen.iter().map(|seen| (seen.due, seen.latency)).collect();
        assert_eq!((seen, testimony.strange), (vec![(0, 45), (30, 15), (40, 5)], 3));
    }
}
