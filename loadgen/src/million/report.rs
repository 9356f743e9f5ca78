//! The report of `million`: that of any run, what came after, and the goals.

use super::MillionArgs;
use super::finale::{BACK, Settled};
use crate::clock::SECOND;
use crate::engine::Outcome;
use crate::plan::Plan;
use crate::report::Report;
use crate::table::micros;
use serde_json::{Value, json};
use std::fmt::Write;

/// User memory of a client in the broker, in bytes.
const CLIENT_BYTES_MAX: f64 = 512.0;
/// What the witness may wait for 99 of 100 messages, in microseconds.
const P99_MAX: f64 = 50_000.0;

/// Adds what came after holding to the report of the run.
pub fn report(args: &MillionArgs, plan: &Plan, outcome: &Outcome, settled: Option<&Settled>) -> Report {
    let mut report = crate::report::report(plan, outcome);
    report.json["machine"] = crate::machine::facts();
    let Some(settled) = settled else {
        report.json["goals"] = json!([]);
        return report;
    };
    let mut broken = settled.broken.clone();
    if settled.heard < settled.written {
        broken.push(format!(
            "{} of {} clients did not hear the message for them",
            settled.written - settled.heard,
            settled.written
        ));
    }
    if !broken.is_empty() {
        if let Some(all) = report.json["broken"].as_array_mut() {
            all.extend(broken.into_iter().map(Value::from));
        }
        report.json["verdict"] = "broken".into();
        report.passed = false;
    }
    report.json["after"] = after(settled);
    report.json["goals"] = goals(args, plan, &report.json, settled);
    report
}

fn after(settled: &Settled) -> Value {
    let secs = |nanos: u64| nanos as f64 / SECOND as f64;
    let until = settled.dropped + settled.back.unwrap_or(settled.ended - settled.dropped);
    let testimony = &settled.testimony;
    json!({
        "pings_answered": settled.pongs,
        "written": settled.written,
        "heard": settled.heard,
        "heard_secs": settled.heard_secs,
        "drop_secs": settled.drop_secs,
        "broker_rss_idle": settled.idle,
        "broker_rss_held": settled.held,
        "broker_rss": settled.samples.iter().map(|&(at, rss)| json!({"secs": secs(at), "bytes": rss})).collect::<Vec<_>>(),
        "broker_rss_last": settled.samples.last().map(|&(_, rss)| rss),
        "back_secs": settled.back.map(secs),
        "witness": {
            "published": testimony.published,
            "received": testimony.seen.len(),
            "latency_us_before": testimony.latency(settled.began, settled.dropped),
            "latency_us_meanwhile": testimony.latency(settled.dropped, until),
        },
    })
}

fn goals(args: &MillionArgs, plan: &Plan, report: &Value, settled: &Settled) -> Value {
    // As they were: what is passed on to the clients may have changed what was asked for.
    let clients = u64::from(plan.topology.idle);
    let (hold, keep_alive) = (plan.measured as f64 / SECOND as f64, plan.options.keep_alive_secs);
    let count = |pointer: &str| report.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64);
    let lost: u64 = report["clients"]["lost"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(_, lost)| lost.as_u64())
        .sum();
    let ready = count("/clients/ready");
    let alive = count("/clients/alive");
    let bytes = number("/broker/rss_per_client");
    let p99 = number("/after/witness/latency_us_meanwhile/p99");
    let missing = settled.testimony.published.saturating_sub(settled.testimony.seen.len() as u64);
    let rounds = settled.pongs as f64 / ready.max(1) as f64;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let last = settled.samples.last().map_or(settled.held, |&(_, rss)| rss);
    let goal = |goal: String, value: String, met: bool| json!({"goal": goal, "value": value, "met": met});
    json!([
        goal(
            format!("{clients} clients with a subscription each"),
            format!("{ready}, in {:.1} s", number("/clients/setup_secs").unwrap_or(0.0)),
            ready == clients
        ),
        goal(
            format!("{hold} s with a keep alive of {keep_alive} s, none lost"),
            format!("{lost} lost, {alive} alive, {rounds:.1} pings answered each"),
            lost == 0 && alive == clients,
        ),
        goal(
            format!("a message to {} % of them, all delivered", args.share),
            format!("{} of {} in {:.2} s", settled.heard, settled.written, settled.heard_secs),
            settled.heard == settled.written,
        ),
        goal(
            format!("≤ {CLIENT_BYTES_MAX} B a client in the broker"),
            bytes.map_or_else(|| "not measured".to_owned(), |bytes| format!("{bytes:.0} B")),
            bytes.is_some_and(|bytes| bytes <= CLIENT_BYTES_MAX),
        ),
        goal(
            format!(
                "all dropped at once: broker back at its idle memory + {:.0} % within {} s",
                (BACK - 1.0) * 100.0,
                args.settle
            ),
            format!(
                "{}: {:.1} MiB idle, {:.1} MiB held, {:.1} MiB at last",
                settled.back.map_or_else(
                    || "not back".to_owned(),
                    |at| format!("after {:.0} s", at as f64 / SECOND as f64)
                ),
                mib(settled.idle),
                mib(settled.held),
                mib(last),
            ),
            settled.back.is_some(),
        ),
        goal(
            format!("meanwhile others are served with p99 ≤ {}", micros(P99_MAX)),
            format!(
                "p50 {}, p99 {}, max {}, {missing} lost (before: p99 {})",
                time(report, "/after/witness/latency_us_meanwhile/p50"),
                time(report, "/after/witness/latency_us_meanwhile/p99"),
                time(report, "/after/witness/latency_us_meanwhile/max"),
                time(report, "/after/witness/latency_us_before/p99"),
            ),
            p99.is_some_and(|p99| p99 <= P99_MAX) && missing == 0,
        ),
    ])
}

fn time(report: &Value, pointer: &str) -> String {
    report.pointer(pointer).and_then(Value::as_f64).map_or_else(|| "-".to_owned(), micros)
}

/// Goals and what came of them.
pub fn markdown(report: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let mut out =
        format!("{}\n\n| goal | measured | |\n|---|---|---|\n", crate::machine::sentence(&report["machine"]));
    for goal in report["goals"].as_array().into_iter().flatten() {
        let met = if goal["met"] == true { "met" } else { "**missed**" };
        let _ = writeln!(out, "| {} | {} | {met} |", text(&goal["goal"]), text(&goal["value"]));
    }
    let _ = writeln!(out, "\nVerdict: {}.", text(&report["verdict"]));
    for broken in report["broken"].as_array().into_iter().flatten() {
        let _ = writeln!(out, "- {}", text(broken));
    }
    out
}
