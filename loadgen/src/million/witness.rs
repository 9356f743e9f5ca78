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
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Messages a second.
const RATE: u64 = 200;
/// After the last message, how long its arrival is waited for.
const PATIENCE: u64 = 5 * SECOND;

/// A message that came: when it was due, and how much later it came, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub due: u64,
    pub latency: u64,
}

/// The pair, at work on two threads.
pub struct Witness {
    stop: Arc<AtomicBool>,
    publisher: JoinHandle<Result<u64>>,
    subscriber: JoinHandle<Result<Vec<Seen>>>,
}

/// What the witness saw.
pub struct Testimony {
    pub published: u64,
    pub seen: Vec<Seen>,
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
        let is_over = Arc::clone(&stop);
        let subscriber = spawn("witness-hears", move || hear(&mut hears, &is_over))?;
        Ok(Self { stop, publisher, subscriber })
    }

    /// Ends it.
    ///
    /// # Errors
    /// If one of the two lost its connection.
    pub fn finish(self) -> Result<Testimony> {
        self.stop.store(true, Ordering::Release);
        let published = self.publisher.join().map_err(|_| anyhow!("the witness panicked"))??;
        let seen = self.subscriber.join().map_err(|_| anyhow!("the witness panicked"))??;
        Ok(Testimony { published, seen })
    }
}

/// Until the end, and then as long as something comes; at most [`PATIENCE`].
fn hear(link: &mut Link, is_over: &AtomicBool) -> Result<Vec<Seen>> {
    let payloads = Payloads::new(SIZE_MIN);
    let mut seen: Vec<Seen> = Vec::new();
    let mut last = clock::now();
    let mut over_since = None;
    loop {
        let came = link.receive(clock::now() + SECOND / 10, &mut |incoming| {
            let Incoming::Message(message) = incoming else { return };
            if let Ok(stamp) = payloads.read(message.payload) {
                let latency = clock::now().saturating_sub(stamp.intended);
                seen.push(Seen { due: stamp.intended, latency });
            }
        })?;
        let now = clock::now();
        if came {
            last = now;
        }
        if is_over.load(Ordering::Acquire) {
            let since = *over_since.get_or_insert(now);
            if now - last > SECOND / 2 || now - since > PATIENCE {
                return Ok(seen);
            }
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
        let testimony = Testimony { published: 200, seen };
        assert_eq!(
            testimony.latency(100, 200),
            json!({"count": 100, "p50": 50.0, "p99": 99.0, "max": 100.0})
        );
        assert_eq!(testimony.latency(7, 8), json!({"count": 1, "p50": 8.0, "p99": 8.0, "max": 8.0}));
        assert_eq!(testimony.latency(200, 300), Value::Null);
    }
}
