//! The report of a run: as JSON, and from that as a table. Whatever the table says stands in the JSON.

use crate::clock::SECOND;
use crate::cost::Memory;
use crate::engine::{Latency, Outcome, ThreadReport};
use crate::judge::{self, Counts, PublisherEnd, Verdict};
use crate::plan::{Pace, Plan};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A thread that computes for this share of the time has nothing in hand.
const BUSY_MAX: f64 = 0.9;
/// A loop that is so late at one message in a hundred measures itself (nanoseconds).
const LAG_MAX_MICROS: f64 = 1000.0;

/// The finished report.
pub struct Report {
    pub json: Value,
    /// Nothing was broken, everybody connected and stayed.
    pub passed: bool,
}

/// Merges the threads, judges, and says what it comes to.
pub fn report(plan: &Plan, outcome: &Outcome) -> Report {
    let mut counts = Counts::default();
    outcome.threads.iter().for_each(|thread| counts.add(&thread.counts));
    judge_all(plan, &outcome.threads, &mut counts);
    let clients = Clients::new(plan, outcome);
    let mut broken = counts.broken(plan.delivery_qos(), plan.strict);
    broken.extend(clients.broken());
    if outcome.interrupted {
        broken.push("the run was interrupted".to_owned());
    }
    let verdict = match counts.verdict(plan.delivery_qos(), plan.strict) {
        _ if !broken.is_empty() => Verdict::Broken,
        verdict => verdict,
    };
    let fields: serde_json::Map<String, Value> =
        counts.fields().into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
    let json = json!({
        "scenario": plan.scenario,
        "target": plan.target.to_string(),
        "settings": settings(plan),
        "verdict": verdict.name(),
        "broken": broken,
        "clients": clients.to_json(plan, outcome),
        "messages": fields,
        "measured": measured(outcome),
        "latency_us": merged(outcome, |thread| &thread.latency).to_json(),
        "ack_latency_us": merged(outcome, |thread| &thread.ack_latency).to_json(),
        "broker": broker(plan, outcome),
        "memory": memory(plan, outcome),
        "generator": generator(plan, outcome),
    });
    Report { passed: broken.is_empty(), json }
}

fn judge_all(plan: &Plan, threads: &[ThreadReport], counts: &mut Counts) {
    // Publishers in the order of their numbers: threads have contiguous shares.
    let publishers: Vec<&PublisherEnd> = threads.iter().flat_map(|thread| &thread.publishers).collect();
    debug_assert_eq!(publishers.len(), plan.topology.publishers as usize);
    let subscribers: Vec<_> = threads.iter().flat_map(|thread| &thread.subscribers).collect();
    judge::judge(&publishers, &subscribers, plan.delivery_qos(), counts);
}

/// Who connected, who did not, who was lost, and why.
struct Clients {
    wanted: u64,
    ready: u64,
    not_attempted: u64,
    failures: BTreeMap<String, u64>,
    lost: BTreeMap<String, u64>,
    asked: u64,
    alive: u64,
}

impl Clients {
    fn new(plan: &Plan, outcome: &Outcome) -> Self {
        let sum = |reasons: fn(&ThreadReport) -> &BTreeMap<String, u64>| {
            let mut all = BTreeMap::new();
            for (reason, count) in outcome.threads.iter().flat_map(reasons) {
                *all.entry(reason.clone()).or_insert(0) += count;
            }
            all
        };
        Self {
            wanted: plan.topology.clients(),
            ready: outcome.threads.iter().map(|thread| thread.ready).sum(),
            not_attempted: outcome.threads.iter().map(|thread| thread.not_attempted).sum(),
            failures: sum(|thread| &thread.failures),
            lost: sum(|thread| &thread.lost),
            asked: outcome.end.asked,
            alive: outcome.end.alive,
        }
    }

    fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (reason, count) in &self.failures {
            broken.push(format!("{count} clients could not connect ({reason})"));
        }
        if self.not_attempted > 0 {
            broken.push(format!(
                "{} clients were not tried: the broker had stopped answering",
                self.not_attempted
            ));
        }
        for (reason, count) in &self.lost {
            broken.push(format!("{count} clients lost their connection ({reason})"));
        }
        if self.alive < self.asked {
            broken.push(format!(
                "{} idle clients of {} did not answer a ping",
                self.asked - self.alive,
                self.asked
            ));
        }
        broken
    }

    fn to_json(&self, plan: &Plan, outcome: &Outcome) -> Value {
        let secs = outcome.setup_nanos as f64 / SECOND as f64;
        let cpu = (!plan.broker_pids.is_empty() && self.ready > 0)
            .then(|| outcome.setup_broker_cpu * 1e6 / self.ready as f64);
        json!({
            "wanted": self.wanted,
            "ready": self.ready,
            "failures": self.failures,
            "not_attempted": self.not_attempted,
            "lost": self.lost,
            "asked": self.asked,
            "alive": self.alive,
            "setup_secs": secs,
            "ready_per_sec": self.ready as f64 / secs,
            "ready_latency_us": merged(outcome, |thread| &thread.connect_latency).to_json(),
            "broker_cpu_us_per_client": cpu,
        })
    }
}

fn settings(plan: &Plan) -> Value {
    let (rate, inflight) = match plan.pace {
        Pace::Open { rate } => (Some(rate), None),
        Pace::Closed { inflight } => (None, Some(inflight)),
    };
    json!({
        "idle": plan.topology.idle,
        "publishers": plan.topology.publishers,
        "subscribers": plan.topology.subscribers,
        "qos": plan.qos.bits(),
        "sub_qos": plan.sub_qos.bits(),
        "size": plan.size,
        "protocol_level": plan.options.version.level(),
        "rate": rate,
        "inflight": inflight,
        "unacknowledged": plan.unacknowledged_max,
        "secs": plan.measured as f64 / SECOND as f64,
        "warmup": plan.warmup as f64 / SECOND as f64,
        "threads": plan.threads,
        "keep_alive": plan.options.keep_alive_secs,
        "strict": plan.strict,
    })
}

/// What went through in the measured time.
fn measured(outcome: &Outcome) -> Value {
    let secs = outcome.to.at.saturating_sub(outcome.from.at) as f64 / SECOND as f64;
    let published = outcome.to.totals.published - outcome.from.totals.published;
    let delivered = outcome.to.totals.received - outcome.from.totals.received;
    let per_sec = |count: u64| if secs > 0.0 { count as f64 / secs } else { 0.0 };
    json!({
        "secs": secs,
        "published": published,
        "delivered": delivered,
        "published_per_sec": per_sec(published),
        "delivered_per_sec": per_sec(delivered),
    })
}

fn delivered(outcome: &Outcome) -> f64 {
    (outcome.to.totals.received - outcome.from.totals.received) as f64
}

fn broker(plan: &Plan, outcome: &Outcome) -> Value {
    if plan.broker_pids.is_empty() {
        return Value::Null;
    }
    let cpu = outcome.to.broker_cpu - outcome.from.broker_cpu;
    let delivered = delivered(outcome);
    let of = per_client(outcome);
    json!({
        "cpu_secs": cpu,
        "cpu_secs_per_million": (delivered > 0.0).then(|| cpu * 1e6 / delivered),
        "rss_per_client": of(|memory| memory.rss),
        "pss_per_client": of(|memory| memory.pss),
    })
}

/// What a client added to some memory, in bytes; nothing if there never was a peak.
fn per_client(outcome: &Outcome) -> impl Fn(fn(&Memory) -> u64) -> Option<f64> + '_ {
    let clients = outcome.end.ready.max(1) as f64;
    move |of| Some((of(outcome.peak.as_ref()?) as f64 - of(&outcome.before) as f64) / clients)
}

fn memory(plan: &Plan, outcome: &Outcome) -> Value {
    let with_broker = !plan.broker_pids.is_empty();
    let of = per_client(outcome);
    json!({
        "before": outcome.before.to_json(with_broker),
        "peak": outcome.peak.map(|peak| peak.to_json(with_broker)),
        "after": outcome.after.to_json(with_broker),
        "kernel_tcp_buffers_per_client": of(|memory| memory.tcp),
        "kernel_slab_per_client": of(|memory| memory.slab),
        "generator_anonymous_per_client": of(|memory| memory.own_anonymous),
    })
}

/// What the measuring itself took, and whether it was what limited the result.
fn generator(plan: &Plan, outcome: &Outcome) -> Value {
    let cpu = outcome.to.own_cpu - outcome.from.own_cpu;
    let delivered = delivered(outcome);
    let lag = merged(outcome, |thread| &thread.lag);
    let busy = outcome.threads.iter().map(|thread| thread.busy).fold(0.0, f64::max);
    let waiting = outcome.threads.iter().map(|thread| thread.waiting).fold(0.0, f64::max);
    let is_open = matches!(plan.pace, Pace::Open { .. });
    let reasons = bottleneck(busy, (is_open && lag.count() > 0).then(|| lag.micros(0.99)));
    let shares = outcome.threads.iter().map(|thread| json!({"busy": thread.busy, "waiting": thread.waiting}));
    json!({
        "cpu_secs": cpu,
        "cpu_us_per_message": (delivered > 0.0).then(|| cpu * 1e6 / delivered),
        "loop_lag_us": lag.to_json(),
        "busiest_thread": busy,
        "longest_waiting_thread": waiting,
        "threads": shares.collect::<Vec<_>>(),
        "was_bottleneck": !reasons.is_empty(),
        "bottleneck": reasons,
    })
}

/// Why the generator itself was the limit: the share of the time its busiest thread computed, and in an open loop how late one message
/// in a hundred was, in microseconds. Empty if it was not.
fn bottleneck(busy: f64, lag_p99: Option<f64>) -> Vec<String> {
    let mut reasons = Vec::new();
    if busy >= BUSY_MAX {
        reasons.push(format!("a thread computed {:.0} % of the time", busy * 100.0));
    }
    if let Some(lag) = lag_p99.filter(|&lag| lag >= LAG_MAX_MICROS) {
        reasons.push(format!("one message in a hundred was sent {lag:.0} us late by its own loop"));
    }
    reasons
}

fn merged(outcome: &Outcome, of: fn(&ThreadReport) -> &Latency) -> Latency {
    let mut all = Latency::new();
    outcome.threads.iter().for_each(|thread| all.add(of(thread)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_limit_when_it_is_busy_or_late() {
        assert_eq!(bottleneck(0.89, None), [""; 0]);
        assert_eq!(bottleneck(0.89, Some(999.0)), [""; 0]);
        assert_eq!(bottleneck(0.9, None), ["a thread computed 90 % of the time"]);
        assert_eq!(
            bottleneck(1.0, Some(1000.0)),
            [
                "a thread computed 100 % of the time",
                "one message in a hundred was sent 1000 us late by its own loop"
            ]
        );
    }
}
