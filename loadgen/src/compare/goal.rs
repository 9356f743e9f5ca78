//! Goals: what a number of a suite has to be, and whether it is.
//!
//! A goal is for the brokers under test, which are all but the peers (targets called `mosquitto` or `rabbitmq`). It is judged by medians.

use super::suite::Metric;
use super::table::Results;
use serde_json::{Value, json};
use std::fmt::Write;

/// Targets that goals are not for.
pub const PEERS: [&str; 2] = ["mosquitto", "rabbitmq"];

/// What a number has to be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Goal {
    /// At least so many times as good as this peer's in the same case.
    Times { peer: &'static str, factor: f64 },
    /// No more than this, or if more is better, no less.
    Bound(f64),
    /// At most so many times what the same broker takes in another case.
    OfCase { case: &'static str, factor: f64 },
    /// At most so many times the echo floor of the same run.
    OfFloor { one_shard: f64, more: f64 },
}

/// How far a broker has come.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Judged {
    /// What the goal counts: times as good, the number itself, or times the other.
    pub value: f64,
    /// 1 is just met, more is better.
    pub share: f64,
    /// What is missing of what it has to be at least, or over what it may be at most, as a share of that; of one that is met below 0.
    pub missed_by: f64,
}

impl Judged {
    /// Whether it is met.
    pub fn is_met(self) -> bool {
        self.share >= 1.0
    }
}

impl Goal {
    /// In words.
    pub fn text(self, metric: Metric) -> String {
        match self {
            Self::Times { peer, factor: 1.0 } => format!("as good as {peer}"),
            Self::Times { peer, factor } if metric.more_is_better || factor >= 2.0 => {
                format!("{factor:.0}x {peer}")
            }
            Self::Times { peer, factor } => format!("≤ {:.2} of {peer}", 1.0 / factor),
            Self::Bound(bound) if metric.more_is_better => format!("≥ {bound}"),
            Self::Bound(bound) => format!("≤ {bound}"),
            Self::OfCase { case, factor } => format!("≤ {factor} times `{case}`"),
            Self::OfFloor { one_shard, more } => {
                format!("≤ {one_shard} times the echo floor with 1 shard, ≤ {more} with more")
            }
        }
    }

    /// How far `target` has come in a number of a case; nothing if something that it takes was not measured.
    pub fn judge(self, results: &Results<'_>, case: usize, metric: Metric, target: usize) -> Option<Judged> {
        let value = results.median(case, metric, target)?;
        let at_most =
            |value: f64, most: f64| Judged { value, share: most / value, missed_by: value / most - 1.0 };
        let at_least = |value: f64, least: f64| {
            let share = value / least;
            Judged { value, share, missed_by: 1.0 - share }
        };
        match self {
            Self::Times { peer, factor } => {
                let peer = results.targets.iter().position(|target| target.name == peer)?;
                let peer = results.median(case, metric, peer)?;
                let (good, bad) = if metric.more_is_better { (value, peer) } else { (peer, value) };
                (bad > 0.0).then(|| at_least(good / bad, factor))
            }
            Self::Bound(bound) if metric.more_is_better => Some(at_least(value, bound)),
            Self::Bound(bound) => Some(at_most(value, bound)),
            Self::OfCase { case, factor } => {
                let other = results.cases.iter().position(|other| other.name == case)?;
                let other = results.median(other, metric, target)?;
                (other > 0.0).then(|| at_most(value / other, factor))
            }
            Self::OfFloor { one_shard, more } => {
                let factor = if results.targets[target].shards? == 1 { one_shard } else { more };
                Some(at_most(value / results.floor()?, factor))
            }
        }
    }
}

/// For one number of one case: its goals, and who meets them. Both empty if there is no goal.
pub fn cells(results: &Results<'_>, case: usize, metric: Metric) -> (String, String) {
    let (mut goals, mut met) = (String::new(), String::new());
    for goal in results.cases[case].goals_of(metric) {
        let separator = if goals.is_empty() { "" } else { "; " };
        let _ = write!(goals, "{separator}{}", goal.text(metric));
        let judged: Vec<String> = under_test(results)
            .map(|target| {
                let name = &results.targets[target].name;
                match goal.judge(results, case, metric, target) {
                    None => format!("{name} not measured"),
                    Some(judged) if judged.is_met() => format!("{name} **met**"),
                    Some(Judged { value, missed_by, .. }) => {
                        let unit = if matches!(goal, Goal::Bound(_)) { "" } else { "x" };
                        let value = super::table::readable(value);
                        format!("{name} *missed by {:.0} %* ({value}{unit})", missed_by.max(0.01) * 100.0)
                    }
                }
            })
            .collect();
        let _ = write!(met, "{separator}{}", judged.join(", "));
    }
    (goals, met)
}

/// The same for programs.
pub fn to_json(results: &Results<'_>, case: usize, metric: Metric) -> Vec<Value> {
    let goals = results.cases[case].goals_of(metric);
    let judged = goals.flat_map(|goal| {
        under_test(results).map(move |target| {
            let judged = goal.judge(results, case, metric, target);
            json!({
                "metric": metric.name,
                "goal": goal.text(metric),
                "broker": results.targets[target].name,
                "value": judged.map(|judged| judged.value),
                "share": judged.map(|judged| judged.share),
                "met": judged.map(Judged::is_met),
            })
        })
    });
    judged.collect()
}

/// How many goals are met, missed, and not measured.
pub fn sum(results: &Results<'_>) -> [u64; 3] {
    let mut sum = [0; 3];
    for (number, case) in results.cases.iter().enumerate() {
        for goal in case.metrics.iter().flat_map(|&metric| to_json(results, number, metric)) {
            sum[match goal["met"].as_bool() {
                Some(true) => 0,
                Some(false) => 1,
                None => 2,
            }] += 1;
        }
    }
    sum
}

fn under_test<'a>(results: &'a Results<'_>) -> impl Iterator<Item = usize> + use<'a> {
    let of_case = |target: &usize| !PEERS.contains(&&results.targets[*target].name[..]);
    (0..results.targets.len()).filter(of_case)
}
