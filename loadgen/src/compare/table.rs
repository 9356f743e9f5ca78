//! From the reports of many runs to medians, spread, ratios and goals, as Markdown and as JSON.

use super::suite::{Case, Metric};
use super::{Target, goal};
use crate::machine;
use serde_json::{Value, json};
use std::fmt::Write;

/// Everything that was measured.
pub struct Results<'a> {
    pub suite: &'static str,
    pub cases: &'a [Case],
    pub targets: &'a [Target],
    /// Whom the others are compared with.
    pub baseline: usize,
    /// The reports of a case against a target.
    pub reports: &'a [Vec<Vec<Value>>],
    /// Reports of the echo floor.
    pub floors: &'a [Value],
    pub machine: &'a Value,
    /// Runs in which something was lost or doubled do not count, whatever the QoS promises.
    pub needs_exact: bool,
}

/// What runs of one case against one broker gave for one number.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Spread {
    median: f64,
    lowest: f64,
    highest: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
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

/// The worst verdict of some runs, and in how many it was if not in all.
fn verdict(reports: &[Value]) -> String {
    let all = reports.len();
    let count = |verdict: &str| reports.iter().filter(|report| report["verdict"] == verdict).count();
    match (count("broken"), count("kept")) {
        _ if all == 0 => "-".to_owned(),
        (0, 0) => "exact".to_owned(),
        (0, kept) if kept == all => "kept".to_owned(),
        (0, kept) => format!("kept in {kept} of {all}, else exact"),
        (broken, _) => format!("BROKEN in {broken} of {all}"),
    }
}

fn is_limited(reports: &[Value]) -> bool {
    reports.iter().any(|report| report["generator"]["was_bottleneck"] == true)
}

impl Results<'_> {
    /// Of the runs that count; none if there is none, or the number was not measured.
    fn spread(&self, case: usize, metric: Metric, target: usize) -> Option<Spread> {
        let counts = |report: &&Value| {
            if self.needs_exact { report["verdict"] == "exact" } else { report["verdict"] != "broken" }
        };
        let runs = self.reports[case][target].iter().filter(counts);
        let values = runs.filter_map(|report| report.pointer(metric.pointer)?.as_f64());
        Spread::of(values.map(|value| value * metric.factor).collect())
    }

    /// What one number came to.
    pub fn median(&self, case: usize, metric: Metric, target: usize) -> Option<f64> {
        Some(self.spread(case, metric, target)?.median)
    }

    /// The same with the lowest and the highest run.
    pub fn range(&self, case: usize, metric: Metric, target: usize) -> Option<[f64; 3]> {
        let Spread { median, lowest, highest } = self.spread(case, metric, target)?;
        Some([median, lowest, highest])
    }

    fn floor_spread(&self) -> Option<Spread> {
        Spread::of(self.floors.iter().filter_map(|report| report["cpu_us"].as_f64()).collect())
    }

    /// The echo floor, in microseconds of CPU a message.
    pub fn floor(&self) -> Option<f64> {
        Some(self.floor_spread()?.median)
    }

    fn has_goals(&self) -> bool {
        self.cases.iter().any(|case| !case.goals.is_empty())
    }

    /// What it ran on, and a table: a row for each number of each case, a column for each broker, and if there are goals, these.
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "{}", machine::sentence(self.machine));
        for target in self.targets {
            if let Some(about) = &target.about {
                let _ = writeln!(out, "- {}: {about}", target.name);
            }
        }
        out.push_str("\n| |");
        for target in self.targets {
            let _ = write!(out, " {} |", target.name);
        }
        let goal_columns = if self.has_goals() { 2 } else { 0 };
        out.push_str(if self.has_goals() { " goal | |" } else { "" });
        let _ = writeln!(out, "\n|---|{}", "---|".repeat(self.targets.len() + goal_columns));
        for case in 0..self.cases.len() {
            self.case_rows(case, &mut out);
        }
        let counting =
            if self.needs_exact { "in which every message came once" } else { "that kept their promises" };
        let _ = writeln!(
            out,
            "\nMedian (lowest..highest) of the runs {counting}; x: how many times as good as {}.",
            self.targets[self.baseline].name
        );
        if self.has_goals() {
            let [met, missed, unknown] = goal::sum(self);
            let _ = writeln!(
                out,
                "Goals: {met} met, {missed} missed, {unknown} not measured, of all brokers together."
            );
        }
        out
    }

    fn case_rows(&self, case: usize, out: &mut String) {
        let reports = &self.reports[case];
        if reports.iter().all(Vec::is_empty) {
            return;
        }
        let goal_columns = |goal: &str, met: &str| {
            if self.has_goals() { format!(" {goal} | {met} |") } else { String::new() }
        };
        let _ = write!(out, "| **{}** |", self.cases[case].name);
        for reports in reports {
            let limited = if is_limited(reports) { ", generator-bound" } else { "" };
            let _ = write!(out, " {}{limited} |", verdict(reports));
        }
        let _ = writeln!(out, "{}", goal_columns("", ""));
        for &metric in self.cases[case].metrics {
            let spreads: Vec<Option<Spread>> =
                (0..self.targets.len()).map(|target| self.spread(case, metric, target)).collect();
            if spreads.iter().all(Option::is_none) {
                continue;
            }
            let _ = write!(out, "| {} |", metric.name);
            for (index, spread) in spreads.iter().enumerate() {
                let baseline = spreads[self.baseline].filter(|_| index != self.baseline);
                let _ = write!(out, " {} |", cell(metric, *spread, baseline));
            }
            let (goal, met) = goal::cells(self, case, metric);
            let _ = writeln!(out, "{}", goal_columns(&goal, &met));
        }
        if let Some(floor) = self.floor_spread().filter(|_| self.cases[case].with_floor) {
            let text = format!("{} us", spread_text(floor));
            let columns = " |".repeat(self.targets.len() - 1);
            let _ = writeln!(
                out,
                "| echo floor: CPU to receive 64 bytes and send them back | {text} |{columns}{}",
                goal_columns("", "")
            );
        }
    }

    /// The same for programs, and every report in full.
    pub fn to_json(&self) -> Value {
        let cases = self.cases.iter().enumerate().map(|(number, case)| {
            let brokers = self.targets.iter().enumerate().map(|(index, target)| {
                let runs = &self.reports[number][index];
                let metrics = case.metrics.iter().filter_map(|&metric| {
                    let spread = self.spread(number, metric, index)?;
                    let baseline = self.spread(number, metric, self.baseline);
                    let ratio = baseline.and_then(|baseline| ratio(metric, spread, baseline));
                    Some(json!({
                        "name": metric.name, "median": spread.median, "lowest": spread.lowest,
                        "highest": spread.highest, "times_as_good": ratio,
                    }))
                });
                json!({"name": target.name, "verdict": verdict(runs), "metrics": metrics.collect::<Vec<_>>(), "runs": runs})
            });
            let goals = case.metrics.iter().flat_map(|&metric| goal::to_json(self, number, metric));
            json!({
                "name": case.name, "args": case.args, "goals": goals.collect::<Vec<_>>(),
                "brokers": brokers.collect::<Vec<_>>(),
            })
        });
        let targets = self.targets.iter().map(|target| {
            json!({"name": target.name, "about": target.about, "shards": target.shards, "port": target.port})
        });
        json!({
            "suite": self.suite,
            "machine": self.machine,
            "targets": targets.collect::<Vec<_>>(),
            "baseline": self.targets[self.baseline].name,
            "echo_floor": self.floors,
            "cases": cases.collect::<Vec<_>>(),
        })
    }
}

fn cell(metric: Metric, spread: Option<Spread>, baseline: Option<Spread>) -> String {
    let Some(spread) = spread else { return "-".to_owned() };
    let mut text = spread_text(spread);
    if let Some(ratio) = baseline.and_then(|baseline| ratio(metric, spread, baseline)) {
        let _ = write!(text, " **{ratio:.2}x**");
    }
    text
}

fn spread_text(spread: Spread) -> String {
    let mut text = readable(spread.median);
    if spread.lowest < spread.highest {
        let _ = write!(text, " ({}..{})", readable(spread.lowest), readable(spread.highest));
    }
    text
}

/// A number with three digits or so.
pub fn readable(value: f64) -> String {
    match value.abs() {
        v if v >= 10_000.0 => crate::table::count(value),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::suite::{Scale, Suite};
    use super::*;

    const SCALE: Scale = Scale { secs: 1.0, idle_clients: 10, many_clients: 20 };

    fn report(rate: f64, cpu: f64, verdict: &str) -> Value {
        json!({
            "verdict": verdict, "measured": {"delivered_per_sec": rate}, "broker": {"cpu_secs_per_million": cpu},
            "generator": {"was_bottleneck": false},
        })
    }

    fn target(name: &str, shards: u32) -> Target {
        Target {
            name: name.to_owned(),
            host: "h".to_owned(),
            port: 1,
            pids: Vec::new(),
            shards: Some(shards),
            about: None,
        }
    }

    fn results<'a>(
        cases: &'a [Case],
        targets: &'a [Target],
        reports: &'a [Vec<Vec<Value>>],
        rest: (&'a [Value], bool),
    ) -> Results<'a> {
        Results {
            suite: "test",
            cases,
            targets,
            baseline: targets.len() - 1,
            reports,
            floors: rest.0,
            machine: &Value::Null,
            needs_exact: rest.1,
        }
    }

    #[test]
    fn medians_spread_and_ratios() {
        let cases = vec![Suite::Quick.cases(SCALE).remove(1)];
        let targets = [target("a", 2), target("b", 2)];
        let a = vec![report(300.0, 2.0, "exact"), report(100.0, 4.0, "exact"), report(9.0, 9.0, "broken")];
        let b = vec![report(100.0, 6.0, "kept")];
        let reports = vec![vec![a, b]];
        let results = results(&cases, &targets, &reports, (&[], false));
        let text = results.markdown();
        assert!(text.contains("| **50 pairs QoS 0, flat out** | BROKEN in 1 of 3 | kept |\n"), "{text}");
        assert!(text.contains("| delivered per second | 200 (100..300) **2.00x** | 100 |\n"), "{text}");
        assert!(
            text.contains("| broker CPU, s per million | 3.00 (2.00..4.00) **2.00x** | 6.00 |"),
            "{text}"
        );
        assert!(!text.contains("generator CPU"), "what nobody measured has no row: {text}");
        assert!(!text.contains("goal"), "{text}");
        let json = results.to_json();
        assert_eq!(json.pointer("/cases/0/brokers/0/metrics/0/times_as_good"), Some(&json!(2.0)));
        assert_eq!(json.pointer("/cases/0/brokers/0/runs/2/verdict"), Some(&json!("broken")));
    }

    /// Pairs, then topics and one in flight, which refer to these and to the floor.
    #[test]
    fn goals() {
        let names =
            ["50 pairs QoS 0, flat out", "1000 pairs QoS 0, one in flight each", "100,000 subscriptions"];
        let all = Suite::Full.cases(SCALE);
        let find = |name: &&str| all.iter().find(|case| case.name.starts_with(*name)).unwrap().clone();
        let cases: Vec<Case> = names.iter().map(find).collect();
        let targets = [target("two", 2), target("one", 1), target("mosquitto", 0)];
        let exact = |rate, cpu| vec![report(rate, cpu, "exact")];
        let reports = vec![
            vec![
                exact(3000.0, 1.0),
                exact(2700.0, 0.5),
                vec![report(1e9, 40.0, "kept"), report(100.0, 40.0, "exact")],
            ],
            vec![exact(1.0, 14.0), exact(1.0, 14.0), exact(1.0, 9.0)],
            vec![exact(1.0, 2.5), exact(1.0, 1.0), Vec::new()],
        ];
        let floors = [json!({"cpu_us": 10.0}), json!({"cpu_us": 1.0}), json!({"cpu_us": 11.0})];
        let results = results(&cases, &targets, &reports, (&floors, true));
        let text = results.markdown();
        for line in [
            "| 30x mosquitto; 90x rabbitmq | two **met**, one *missed by 10 %* (27.0x); two not measured, one not measured |",
            "| 40x mosquitto | two **met**, one **met** |",
            "| ≤ 1.25 times the echo floor with 1 shard, ≤ 1.5 with more | two **met**, one *missed by 12 %* (1.40x) |",
            "| ≤ 2 times `50 pairs QoS 0, flat out` | two *missed by 25 %* (2.50x), one **met** |",
            "| 10.0 (1.00..11.0) us |",
            "Goals: 5 met, 3 missed, 2 not measured",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        let json = results.to_json();
        assert_eq!(json.pointer("/cases/1/goals/1/met"), Some(&json!(false)));
        assert_eq!(json.pointer("/cases/0/goals/2/value"), Some(&Value::Null));
    }
}
