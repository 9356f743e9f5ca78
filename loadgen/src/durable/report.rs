//! The report of a durable run: which promises were kept, how fast, at what cost. Whatever the table says stands in the JSON.

use super::args::DurableArgs;
use super::run::Run;
use super::stages::{Outcome, Restart};
use super::world::Deliveries;
use crate::clock::SECOND;
use crate::cost::Processes;
use crate::report::Report;
use crate::table::{count, micros};
use quelea::base::QoS;
use serde_json::{Value, json};
use std::fmt::Write;

/// Judges, and says what it comes to.
pub fn report(
    args: &DurableArgs,
    run: &Run,
    outcome: &Outcome,
    processes: &Processes,
    elapsed: u64,
) -> Report {
    let deliveries = run.world.deliveries();
    // Sessions were never resumed: what they hold, the run that resumes them judges.
    let is_left = args.leave.is_some() || outcome.stopped.is_some();
    let broken = broken(run, outcome, &deliveries, is_left);
    let tally = &run.world.tally;
    let is_exact = deliveries.duplicated == 0 && deliveries.uncertain == 0 && tally.foreign == 0;
    let verdict = match (broken.is_empty(), is_exact) {
        (false, _) => "broken",
        (true, true) => "exact",
        (true, false) => "kept",
    };
    let json = json!({
        "scenario": "durable",
        "target": run.terms.target.to_string(),
        "settings": settings(args, run),
        "verdict": verdict,
        "broken": broken,
        "stopped": outcome.stopped,
        "messages": messages(run, &deliveries, is_left),
        "measured": measured(outcome),
        "ack_latency_us": run.world.ack_latency.to_json(),
        "latency_us": run.world.latency.to_json(),
        "restarts": restarts(&outcome.restarts),
        "resume": {
            "secs": secs(outcome.resume_nanos),
            "delivered": outcome.resumed,
            "delivered_per_sec": per_sec(outcome.resumed, outcome.resume_nanos),
            "complete": outcome.complete,
        },
        "clients": {
            "come_secs": secs(outcome.come_nanos),
            "lost": run.lost,
            "failures": run.failures,
            "cleanup_failures": outcome.cleanup,
        },
        "broker": broker(args, run, outcome, processes),
        "generator": {
            "cpu_secs": outcome.to.own_cpu - outcome.from.own_cpu,
            "busy": (outcome.to.own_cpu - outcome.from.own_cpu)
                / secs(outcome.to.at.saturating_sub(outcome.from.at)).max(1e-9),
        },
        "elapsed_secs": secs(elapsed),
    });
    Report { passed: broken.is_empty(), json }
}

/// The promises that were broken, in words.
fn broken(run: &Run, outcome: &Outcome, deliveries: &Deliveries, is_left: bool) -> Vec<String> {
    let tally = &run.world.tally;
    let is_once = run.terms.delivery_qos() == QoS::ExactlyOnce;
    let mut broken: Vec<String> = [
        (deliveries.lost, !is_left, "acknowledged messages were lost"),
        (deliveries.duplicated, is_once, "QoS 2 messages came again"),
        (deliveries.out_of_order, true, "messages came after a later one of the same publisher and topic"),
        (tally.corrupted, true, "messages were corrupted"),
        (tally.misrouted, true, "messages came where they do not belong"),
        (tally.wrong_qos, true, "messages came with a wrong QoS"),
        (tally.wrong_retain, true, "live messages came as retained"),
        (tally.refused, true, "publishes were refused"),
        (tally.sessions_lost, true, "sessions that had been acknowledged were gone"),
        (tally.retained_lost, true, "retained messages were gone"),
        (tally.retained_wrong, true, "retained messages were older than the last acknowledged"),
        (
            deliveries.subscriptions_lost,
            !is_left,
            "times a subscription acknowledged by SUBACK was not in force",
        ),
        (deliveries.subscriptions_back, true, "times a subscription taken back by UNSUBACK was in force"),
    ]
    .into_iter()
    .filter(|&(count, is_promise, _)| count > 0 && is_promise)
    .map(|(count, _, what)| format!("{count} {what}"))
    .collect();
    broken.extend(run.lost.iter().map(|(reason, count)| format!("{count} connections were lost ({reason})")));
    broken.extend(
        run.failures.iter().map(|(reason, count)| format!("{count} clients could not connect ({reason})")),
    );
    broken.extend(outcome.stopped.clone());
    broken
}

fn settings(args: &DurableArgs, run: &Run) -> Value {
    let terms = &run.terms;
    json!({
        "run": format!("{:08x}", terms.run),
        "sessions": terms.sessions,
        "fan": terms.fan,
        "online": terms.online,
        "publishers": terms.publishers,
        "window": args.window,
        "clean_publishers": terms.clean_publishers,
        "qos": terms.qos.bits(),
        "sub_qos": terms.sub_qos.bits(),
        "size": terms.size,
        "retained": terms.retained,
        "changing": terms.changers,
        "churn": args.churn,
        "queued": args.queued,
        "secs": args.secs,
        "kill": args.kill,
        "start": args.start,
        "cycles": args.kill.as_ref().map(|_| args.cycles),
        "protocol_level": terms.persistent.version.level(),
        "left": args.leave.is_some(),
        "resumed": args.resume.is_some(),
    })
}

fn messages(run: &Run, deliveries: &Deliveries, is_left: bool) -> Value {
    let tally = &run.world.tally;
    json!({
        "published": tally.published,
        "acknowledged": tally.acknowledged,
        "refused": tally.refused,
        "uncertain": deliveries.uncertain,
        "due": deliveries.due,
        "received": tally.received,
        "lost": if is_left { Value::Null } else { deliveries.lost.into() },
        "duplicated": deliveries.duplicated,
        "out_of_order": deliveries.out_of_order,
        "corrupted": tally.corrupted,
        "misrouted": tally.misrouted,
        "wrong_qos": tally.wrong_qos,
        "wrong_retain": tally.wrong_retain,
        "foreign": tally.foreign,
        "sessions_lost": tally.sessions_lost,
        "publishes_abandoned": tally.abandoned,
        "retained_checked": tally.retained_checked,
        "retained_lost": tally.retained_lost,
        "retained_wrong": tally.retained_wrong,
        "subscriptions_probed": tally.probes,
        "subscriptions_lost": deliveries.subscriptions_lost,
        "subscriptions_back": deliveries.subscriptions_back,
    })
}

fn measured(outcome: &Outcome) -> Value {
    let (from, to) = (&outcome.from, &outcome.to);
    let nanos = to.at.saturating_sub(from.at);
    let acknowledged = to.acknowledged.saturating_sub(from.acknowledged);
    let delivered = to.received.saturating_sub(from.received);
    json!({
        "secs": secs(nanos),
        "acknowledged": acknowledged,
        "acknowledged_per_sec": per_sec(acknowledged, nanos),
        "delivered": delivered,
        "delivered_per_sec": per_sec(delivered, nanos),
        "settle_secs": secs(outcome.settle_nanos),
    })
}

fn restarts(restarts: &[Restart]) -> Value {
    if restarts.is_empty() {
        return Value::Null;
    }
    let most = |of: fn(&Restart) -> u64| restarts.iter().map(of).max().unwrap_or(0);
    let all: Vec<Value> = restarts
        .iter()
        .map(|restart| json!({"answered_secs": secs(restart.answered), "complete_secs": secs(restart.complete)}))
        .collect();
    json!({
        "count": restarts.len(),
        "answered_secs_max": secs(most(|restart| restart.answered)),
        "complete_secs_max": secs(most(|restart| restart.complete)),
        "each": all,
    })
}

fn broker(args: &DurableArgs, run: &Run, outcome: &Outcome, processes: &Processes) -> Value {
    if processes.is_empty() {
        return Value::Null;
    }
    let (from, to) = (&outcome.from, &outcome.to);
    let acknowledged = to.acknowledged.saturating_sub(from.acknowledged);
    let payload = acknowledged * run.terms.size as u64;
    let written = to.written.saturating_sub(from.written);
    let cpu = to.broker_cpu - from.broker_cpu;
    let queued = outcome.left.rss.saturating_sub(outcome.before.rss);
    json!({
        "cpu_secs": cpu,
        "cpu_secs_per_million_acknowledged": (acknowledged > 0).then(|| cpu * 1e6 / acknowledged as f64),
        "disk_written": written,
        "disk_written_per_payload_byte": (payload > 0).then(|| written as f64 / payload as f64),
        "rss_before": outcome.before.rss,
        "rss_loaded": outcome.left.rss,
        "rss_added": queued,
        "processes": args.broker_pid,
    })
}

fn secs(nanos: u64) -> f64 {
    nanos as f64 / SECOND as f64
}

fn per_sec(count: u64, nanos: u64) -> f64 {
    if nanos == 0 { 0.0 } else { count as f64 / secs(nanos) }
}

/// The table of a report.
pub fn table(report: &Value) -> String {
    let mut out = String::new();
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut row = |name: &str, text: String| {
        let _ = writeln!(out, "{name:<24} {text}");
    };
    let (settings, counts, measured) = (&report["settings"], &report["messages"], &report["measured"]);
    row("scenario", format!("durable on {}", text(&report["target"])));
    row(
        "clients",
        format!(
            "{} sessions ({} online, {} a topic), {} publishers with a window of {}, QoS {}, {} bytes",
            settings["sessions"],
            settings["online"],
            settings["fan"],
            settings["publishers"],
            settings["window"],
            settings["qos"],
            settings["size"]
        ),
    );
    row(
        "rate",
        format!(
            "{}/s acknowledged, {}/s delivered meanwhile",
            count(number(&measured["acknowledged_per_sec"])),
            count(number(&measured["delivered_per_sec"]))
        ),
    );
    for (name, key) in [("acknowledged after", "ack_latency_us"), ("delivered after", "latency_us")] {
        if let Some(latency) = report[key].as_object() {
            let at = |name: &str| micros(number(&latency[name]));
            row(
                name,
                format!("p50 {}, p99 {}, p99.9 {}, max {}", at("p50"), at("p99"), at("p99_9"), at("max")),
            );
        }
    }
    stage_rows(report, &mut row);
    let nonzero = counts.as_object().into_iter().flatten().filter(|(_, count)| number(count) > 0.0);
    let nonzero: Vec<String> =
        nonzero.map(|(name, count)| format!("{count} {}", name.replace('_', " "))).collect();
    row("messages", nonzero.join(", "));
    broker_rows(report, &mut row);
    row("verdict", text(&report["verdict"]));
    for broken in report["broken"].as_array().into_iter().flatten() {
        row("  broken", text(broken));
    }
    out
}

fn stage_rows(report: &Value, row: &mut impl FnMut(&str, String)) {
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let resume = &report["resume"];
    if number(&resume["delivered"]) > 0.0 {
        row(
            "resumed",
            format!(
                "{} delivered in {:.2} s ({}/s), {} sessions complete",
                resume["delivered"],
                number(&resume["secs"]),
                count(number(&resume["delivered_per_sec"])),
                resume["complete"]
            ),
        );
    }
    let restarts = &report["restarts"];
    if !restarts.is_null() {
        row(
            "kills",
            format!(
                "{}; CONNECT answered after {:.2} s, everybody back after {:.2} s at most",
                restarts["count"],
                number(&restarts["answered_secs_max"]),
                number(&restarts["complete_secs_max"])
            ),
        );
    }
}

fn broker_rows(report: &Value, row: &mut impl FnMut(&str, String)) {
    let (broker, generator) = (&report["broker"], &report["generator"]);
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    if !broker.is_null() {
        row(
            "broker",
            format!(
                "{:.2} s of CPU a million acknowledged, {:.2} bytes written to disk a byte of payload, RSS {:.1} MiB, loaded {:.1} MiB",
                number(&broker["cpu_secs_per_million_acknowledged"]),
                number(&broker["disk_written_per_payload_byte"]),
                number(&broker["rss_before"]) / f64::from(1 << 20),
                number(&broker["rss_loaded"]) / f64::from(1 << 20)
            ),
        );
    }
    row("generator thread", format!("busy {:.0} %", number(&generator["busy"]) * 100.0));
}
