//! From the reports of many runs to medians, spread and ratios, as Markdown and as JSON.

use super::Target;
use super::suite::{Case, Metric};
use serde_json::{Value, json};
use std::fmt::Write;

/// What runs of one case against one broker gave for one number.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Spread {
    median: f64,
    lowest: f64,
    highest: f64,
}

impl Spread {
    /// Of the runs that kept their promises; none if there is none, or the number was not measured.
    fn of(metric: Metric, reports: &[Value]) -> Option<Self> {
        let kept = reports.iter().filter(|report| report["verdict"] != "broken");
        let mut values: Vec<f64> = kept
            .filter_map(|report| report.pointer(metric.pointer)?.as_f64())
            .map(|value| value * metric.factor)
            .collect();
        values.sort_by(f64::total_cmp);
        let (&lowest, &highest) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, lowest, highest })
    }
}

/// How many times as good as the baseline: above 1 is better, whatever the number counts.
fn ratio(metric: Metric, value: Spread, baseline: Spread) -> Option<f64> {
    let (good, bad) =
        if metric.more_is_better { (value.median, baseline.median) } else { (baseline.median, value.median) };
    (bad > 0.0 && good > 0.0).then(|| good / bad)
}

/// The worst verdict of some runs.
fn verdict(reports: &[Value]) -> String {
    let broken = reports.iter().filter(|report| report["verdict"] == "broken").count();
    let kept = reports.iter().any(|report| report["verdict"] == "kept");
    match broken {
        0 if kept => "kept".to_owned(),
        0 => "exact".to_owned(),
        _ => format!("BROKEN in {broken} of {}", reports.len()),
    }
}

fn is_limited(reports: &[Value]) -> bool {
    reports.iter().any(|report| report["generator"]["was_bottleneck"] == true)
}

/// A table: a row for each number of each case, a column for each broker.
pub(super) fn markdown(
    cases: &[Case],
    targets: &[Target],
    baseline: usize,
    reports: &[Vec<Vec<Value>>],
) -> String {
    let mut out = String::from("| |");
    for target in targets {
        let _ = write!(out, " {} |", target.name);
    }
    let _ = writeln!(out, "\n|---|{}", "---|".repeat(targets.len()));
    for (case, reports) in cases.iter().zip(reports) {
        let _ = write!(out, "| **{}** |", case.name);
        for reports in reports {
            let limited = if is_limited(reports) { ", generator-bound" } else { "" };
            let _ = write!(out, " {}{limited} |", verdict(reports));
        }
        out.push('\n');
        for &metric in case.metrics {
            let spreads: Vec<Option<Spread>> =
                reports.iter().map(|reports| Spread::of(metric, reports)).collect();
            if spreads.iter().all(Option::is_none) {
                continue;
            }
            let _ = write!(out, "| {} |", metric.name);
            for (index, spread) in spreads.iter().enumerate() {
                let _ = write!(
                    out,
                    " {} |",
                    cell(metric, *spread, spreads[baseline].filter(|_| index != baseline))
                );
            }
            out.push('\n');
        }
    }
    let _ = writeln!(
        out,
        "\nMedian (lowest..highest) of the runs that kept their promises; x: how many times as good as {}.",
        targets[baseline].name
    );
    out
}

fn cell(metric: Metric, spread: Option<Spread>, baseline: Option<Spread>) -> String {
    let Some(spread) = spread else { return "-".to_owned() };
    let mut text = readable(spread.median);
    if spread.lowest < spread.highest {
        let _ = write!(text, " ({}..{})", readable(spread.lowest), readable(spread.highest));
    }
    if let Some(ratio) = baseline.and_then(|baseline| ratio(metric, spread, baseline)) {
        let _ = write!(text, " **{ratio:.2}x**");
    }
    text
}

fn readable(value: f64) -> String {
    match value.abs() {
        v if v >= 10_000.0 => crate::table::count(value),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The same for programs, and every report in full.
pub(super) fn summary(
    cases: &[Case],
    targets: &[Target],
    baseline: usize,
    reports: &[Vec<Vec<Value>>],
) -> Value {
    let cases = cases.iter().zip(reports).map(|(case, reports)| {
        let brokers = targets.iter().zip(reports).map(|(target, runs)| {
            let metrics = case.metrics.iter().filter_map(|&metric| {
                let spread = Spread::of(metric, runs)?;
                let baseline = Spread::of(metric, &reports[baseline]);
                let ratio = baseline.and_then(|baseline| ratio(metric, spread, baseline));
                Some(json!({
                    "name": metric.name, "median": spread.median, "lowest": spread.lowest,
                    "highest": spread.highest, "times_as_good": ratio,
                }))
            });
            json!({"name": target.name, "verdict": verdict(runs), "metrics": metrics.collect::<Vec<_>>(), "runs": runs})
        });
        json!({"name": case.name, "args": case.args, "brokers": brokers.collect::<Vec<_>>()})
    });
    Value::Array(cases.collect())
}

#[cfg(test)]
mod tests {
    use super::super::suite::Suite;
    use super::*;

    fn report(rate: f64, cpu: f64, verdict: &str) -> Value {
        json!({
            "verdict": verdict, "measured": {"delivered_per_sec": rate}, "broker": {"cpu_secs_per_million": cpu},
            "generator": {"was_bottleneck": false},
        })
    }

    fn target(name: &str) -> Target {
        Target { name: name.to_owned(), host: "h".to_owned(), port: 1, pids: Vec::new() }
    }

    #[test]
    fn medians_spread_and_ratios() {
        let cases = vec![Suite::Quick.cases(1.0, 10).remove(1)];
        let targets = [target("a"), target("b")];
        let a = vec![report(300.0, 2.0, "exact"), report(100.0, 4.0, "exact"), report(9.0, 9.0, "broken")];
        let b = vec![report(100.0, 6.0, "kept")];
        let reports = vec![vec![a, b]];
        let text = markdown(&cases, &targets, 1, &reports);
        assert!(text.contains("| **50 pairs QoS 0, flat out** | BROKEN in 1 of 3 | kept |"), "{text}");
        assert!(text.contains("| delivered per second | 200 (100..300) **2.00x** | 100 |"), "{text}");
        assert!(
            text.contains("| broker CPU, s per million | 3.00 (2.00..4.00) **2.00x** | 6.00 |"),
            "{text}"
        );
        assert!(!text.contains("generator CPU"), "what nobody measured has no row: {text}");
        let summary = summary(&cases, &targets, 1, &reports);
        assert_eq!(summary.pointer("/0/brokers/0/metrics/0/times_as_good"), Some(&json!(2.0)));
        assert_eq!(summary.pointer("/0/brokers/0/runs/2/verdict"), Some(&json!("broken")));
    }
}
