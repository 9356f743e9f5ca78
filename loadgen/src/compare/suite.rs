//! Suites: which cases are run, and which of their numbers stand in the table.

use super::goal::Goal;
use super::{full, growth};
use clap::ValueEnum;

/// Which cases.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Suite {
    /// Memory of idle clients, pairs, fan-in, fan-out flat out, and two open loops: about a minute for each broker
    Quick,
    /// Everything that there is a goal for, with the goals: about 25 minutes for four brokers
    Full,
    /// How the cost grows with clients and filters, as charts: about ten minutes for two brokers
    Growth,
}

/// Where a case stands in a chart.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Point {
    /// The chart's title, with the unit of what is measured.
    pub chart: &'static str,
    /// What x counts.
    pub axis: &'static str,
    pub x: f64,
    /// The number that is drawn, by where it stands in the report.
    pub pointer: &'static str,
}

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    /// Scenario and arguments, separated by spaces.
    pub args: String,
    /// How often it runs at most, if not as often as the others.
    pub rounds: Option<u32>,
    /// Targets for which this is fewer, by name; 0 is not at all.
    pub limits: &'static [(&'static str, u32)],
    pub metrics: &'static [Metric],
    /// What numbers have to be, by where they stand in the report.
    pub goals: Vec<(&'static str, Goal)>,
    /// The echo floor is measured beside it.
    pub with_floor: bool,
    /// If it is part of a chart.
    pub point: Option<Point>,
}

/// A number of a report.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    /// Where it stands in the report.
    pub pointer: &'static str,
    /// What it is multiplied by for the table.
    pub factor: f64,
    /// Whether more is better.
    pub more_is_better: bool,
}

pub const fn metric(name: &'static str, pointer: &'static str, factor: f64, more_is_better: bool) -> Metric {
    Metric { name, pointer, factor, more_is_better }
}

const KIB: f64 = 1.0 / 1024.0;

const MEMORY: &[Metric] = &[
    metric("ready", "/clients/ready", 1.0, true),
    metric("broker RSS, KiB a client", "/broker/rss_per_client", KIB, false),
    metric("broker PSS, KiB a client", "/broker/pss_per_client", KIB, false),
    metric(
        "kernel TCP buffers, both ends, KiB a client",
        "/memory/kernel_tcp_buffers_per_client",
        KIB,
        false,
    ),
    metric("kernel slab, both ends, KiB a client", "/memory/kernel_slab_per_client", KIB, false),
    metric("connects per second", "/clients/ready_per_sec", 1.0, true),
    metric("broker CPU, us a connect", "/clients/broker_cpu_us_per_client", 1.0, false),
    metric("generator memory, bytes a client", "/memory/generator_anonymous_per_client", 1.0, false),
];

/// Of closed loops.
pub const FLAT_OUT: &[Metric] = &[
    metric("delivered per second", "/measured/delivered_per_sec", 1.0, true),
    metric("broker CPU, s per million", "/broker/cpu_secs_per_million", 1.0, false),
    metric("generator CPU, us a message", "/generator/cpu_us_per_message", 1.0, false),
];

/// Of open loops.
pub const OPEN: &[Metric] = &[
    metric("delivered per second", "/measured/delivered_per_sec", 1.0, true),
    metric("latency p50, us", "/latency_us/p50", 1.0, false),
    metric("latency p99, us", "/latency_us/p99", 1.0, false),
    metric("latency p99.9, us", "/latency_us/p99_9", 1.0, false),
    metric("broker CPU, s per million", "/broker/cpu_secs_per_million", 1.0, false),
    metric("generator loop lag p99, us", "/generator/loop_lag_us/p99", 1.0, false),
];

/// How large and long cases are.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Seconds measured.
    pub secs: f64,
    /// Idle clients of every broker.
    pub idle_clients: u32,
    /// Idle clients, and subscribers, of brokers that need no descriptor for each.
    pub many_clients: u32,
}

impl Case {
    /// One that runs as often as asked, with every target, and has no goal.
    pub fn new(name: &str, args: String, metrics: &'static [Metric]) -> Self {
        Self {
            name: name.to_owned(),
            args,
            rounds: None,
            limits: &[],
            metrics,
            goals: Vec::new(),
            with_floor: false,
            point: None,
        }
    }

    /// How often it runs against a target.
    pub fn rounds_of(&self, target: &str, wanted: u32) -> u32 {
        let limit = self.limits.iter().find(|(name, _)| *name == target).map(|&(_, rounds)| rounds);
        wanted.min(self.rounds.unwrap_or(wanted)).min(limit.unwrap_or(wanted))
    }

    /// The goals of one number.
    pub fn goals_of(&self, metric: Metric) -> impl Iterator<Item = Goal> + use<'_> {
        self.goals.iter().filter(move |(pointer, _)| *pointer == metric.pointer).map(|&(_, goal)| goal)
    }
}

impl Suite {
    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Full => "full",
            Self::Growth => "growth",
        }
    }

    /// How often each case runs and seconds measured, if nobody says.
    pub fn defaults(self) -> (u32, f64) {
        match self {
            Self::Quick => (2, 2.0),
            Self::Full => (3, 3.0),
            Self::Growth => (3, 2.0),
        }
    }

    /// Whether only runs count in which every message came, once; what a broker breaks is a result then, and no failure.
    pub fn needs_exact(self) -> bool {
        self != Self::Quick
    }

    /// Its cases.
    pub fn cases(self, scale: Scale) -> Vec<Case> {
        match self {
            Self::Quick => quick(scale),
            Self::Full => full::cases(scale),
            Self::Growth => growth::cases(scale),
        }
    }
}

fn quick(Scale { secs, idle_clients, .. }: Scale) -> Vec<Case> {
    let case = |name, args: &str, metrics| {
        Case::new(name, format!("{args} --secs {secs} --warmup 1 --size 64"), metrics)
    };
    let idle = format!("conn --clients {idle_clients} --secs 1 --keep-alive 900");
    vec![
        Case { rounds: Some(1), ..Case::new("idle clients", idle, MEMORY) },
        case("50 pairs QoS 0, flat out", "pair --clients 100 --inflight 64", FLAT_OUT),
        case("50 pairs QoS 1, flat out", "pair --clients 100 --qos 1 --inflight 256", FLAT_OUT),
        case("fan-in 50 to 1 QoS 0, flat out", "fanin --clients 51 --inflight 64", FLAT_OUT),
        case("fan-out 1 to 1000 QoS 0, flat out", "fanout --clients 1001 --inflight 64", FLAT_OUT),
        case("open loop 20,000/s QoS 0", "pair --clients 100 --rate 20000", OPEN),
        case("open loop 5,000/s QoS 1", "pair --clients 100 --qos 1 --rate 5000", OPEN),
    ]
}
