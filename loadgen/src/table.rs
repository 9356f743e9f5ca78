//! Reports for people.

use serde_json::Value;
use std::fmt::Write;

/// The table of one run's report.
pub fn table(report: &Value) -> String {
    let mut out = String::new();
    let settings = &report["settings"];
    let mut row = |name: &str, text: String| {
        let _ = writeln!(out, "{name:<24} {text}");
    };
    row("scenario", format!("{} on {}", text(&report["scenario"]), text(&report["target"])));
    let clients = &report["clients"];
    row(
        "clients",
        format!(
            "{} ready of {} in {:.2} s ({}/s), {} asked, {} alive",
            clients["ready"],
            clients["wanted"],
            number(&clients["setup_secs"]),
            count(number(&clients["ready_per_sec"])),
            clients["asked"],
            clients["alive"],
        ),
    );
    if settings["publishers"] != 0 {
        messages(report, &mut row);
    }
    costs(report, &mut row);
    let verdict = text(&report["verdict"]);
    row("verdict", verdict.to_owned());
    for broken in report["broken"].as_array().into_iter().flatten() {
        row("  broken", text(broken).to_owned());
    }
    out
}

fn messages(report: &Value, row: &mut impl FnMut(&str, String)) {
    let (counts, measured) = (&report["messages"], &report["measured"]);
    row(
        "rate",
        format!(
            "{}/s published, {}/s delivered",
            count(number(&measured["published_per_sec"])),
            count(number(&measured["delivered_per_sec"]))
        ),
    );
    for (name, key) in [("latency", "latency_us"), ("acknowledged after", "ack_latency_us")] {
        if !report[key].is_null() {
            row(name, latency(&report[key]));
        }
    }
    row(
        "messages",
        format!(
            "{} published, {} due, {} received",
            counts["published"], counts["expected"], counts["received"]
        ),
    );
    let rest: Vec<String> = counts
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, count)| {
            !["published", "expected", "received", "acknowledged"].contains(&&name[..]) && **count != 0
        })
        .map(|(name, count)| format!("{count} {}", name.replace('_', " ")))
        .collect();
    if !rest.is_empty() {
        row("  of these", rest.join(", "));
    }
}

fn costs(report: &Value, row: &mut impl FnMut(&str, String)) {
    let (broker, memory, generator) = (&report["broker"], &report["memory"], &report["generator"]);
    if !broker.is_null() {
        if let Some(cpu) = broker["cpu_secs_per_million"].as_f64() {
            row("broker CPU", format!("{cpu:.2} s per million messages"));
        }
        if let Some(cpu) = report["clients"]["broker_cpu_us_per_client"].as_f64() {
            row("broker CPU, connecting", format!("{cpu:.0} us a client"));
        }
        let kib = |value: &Value| number(value) / 1024.0;
        if !memory["peak"].is_null() {
            row(
                "broker RSS (PSS)",
                format!(
                    "{:.2} ({:.2}) KiB a client",
                    kib(&broker["rss_per_client"]),
                    kib(&broker["pss_per_client"])
                ),
            );
        }
    }
    if !memory["peak"].is_null() {
        memory_rows(memory, row);
    }
    if let Some(cpu) = generator["cpu_us_per_message"].as_f64() {
        row("generator CPU", format!("{cpu:.2} us a message"));
    }
    generator_rows(generator, row);
}

fn memory_rows(memory: &Value, row: &mut impl FnMut(&str, String)) {
    row(
        "kernel, both ends",
        format!(
            "{:.1} KiB TCP buffers + {:.1} KiB slab a client",
            number(&memory["kernel_tcp_buffers_per_client"]) / 1024.0,
            number(&memory["kernel_slab_per_client"]) / 1024.0
        ),
    );
    row(
        "generator memory",
        format!("{:.0} bytes a client", number(&memory["generator_anonymous_per_client"])),
    );
}

fn generator_rows(generator: &Value, row: &mut impl FnMut(&str, String)) {
    row(
        "generator threads",
        format!(
            "busiest {:.0} %, without a core {:.0} % of the time",
            number(&generator["busiest_thread"]) * 100.0,
            number(&generator["longest_waiting_thread"]) * 100.0
        ),
    );
    if !generator["loop_lag_us"].is_null() {
        row("generator loop lag", latency(&generator["loop_lag_us"]));
    }
    for reason in generator["bottleneck"].as_array().into_iter().flatten() {
        row("  BOTTLENECK", format!("the generator limited this result: {}", text(reason)));
    }
}

fn latency(value: &Value) -> String {
    let micros = |key: &str| micros(number(&value[key]));
    format!("p50 {}, p99 {}, p99.9 {}, max {}", micros("p50"), micros("p99"), micros("p99_9"), micros("max"))
}

/// A time in microseconds, readable.
pub fn micros(micros: f64) -> String {
    match micros {
        m if m < 1000.0 => format!("{m:.0} us"),
        m if m < 1e6 => format!("{:.2} ms", m / 1e3),
        m => format!("{:.2} s", m / 1e6),
    }
}

/// A count, readable.
pub fn count(count: f64) -> String {
    match count {
        c if c < 10_000.0 => format!("{c:.0}"),
        c if c < 10_000_000.0 => format!("{:.0}k", c / 1e3),
        c => format!("{:.1}M", c / 1e6),
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
