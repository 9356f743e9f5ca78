//! Suites: which cases are run, and which of their numbers stand in the table.

use clap::ValueEnum;

/// Which cases.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Suite {
    /// Memory of idle clients, pairs, fan-in, fan-out flat out, and two open loops: about a minute for each broker
    Quick,
}

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    /// Scenario and arguments, separated by spaces.
    pub args: String,
    /// How often it runs, if not as often as the others.
    pub rounds: Option<u32>,
    pub metrics: &'static [Metric],
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

const fn metric(name: &'static str, pointer: &'static str, factor: f64, more_is_better: bool) -> Metric {
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

const FLAT_OUT: &[Metric] = &[
    metric("delivered per second", "/measured/delivered_per_sec", 1.0, true),
    metric("broker CPU, s per million", "/broker/cpu_secs_per_million", 1.0, false),
    metric("generator CPU, us a message", "/generator/cpu_us_per_message", 1.0, false),
];

const OPEN: &[Metric] = &[
    metric("delivered per second", "/measured/delivered_per_sec", 1.0, true),
    metric("latency p50, us", "/latency_us/p50", 1.0, false),
    metric("latency p99, us", "/latency_us/p99", 1.0, false),
    metric("latency p99.9, us", "/latency_us/p99_9", 1.0, false),
    metric("broker CPU, s per million", "/broker/cpu_secs_per_million", 1.0, false),
    metric("generator loop lag p99, us", "/generator/loop_lag_us/p99", 1.0, false),
];

impl Suite {
    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
        }
    }

    /// Its cases; `secs` are measured in each.
    pub fn cases(self, secs: f64, idle_clients: u32) -> Vec<Case> {
        let case = |name, args: &str, metrics| Case {
            name,
            args: format!("{args} --secs {secs} --warmup 1 --size 64"),
            rounds: None,
            metrics,
        };
        match self {
            Self::Quick => vec![
                Case {
                    name: "idle clients",
                    args: format!("conn --clients {idle_clients} --secs 1 --keep-alive 900"),
                    rounds: Some(1),
                    metrics: MEMORY,
                },
                case("50 pairs QoS 0, flat out", "pair --clients 100 --inflight 64", FLAT_OUT),
                case("50 pairs QoS 1, flat out", "pair --clients 100 --qos 1 --inflight 256", FLAT_OUT),
                case("fan-in 50 to 1 QoS 0, flat out", "fanin --clients 51 --inflight 64", FLAT_OUT),
                case("fan-out 1 to 1000 QoS 0, flat out", "fanout --clients 1001 --inflight 64", FLAT_OUT),
                case("open loop 20,000/s QoS 0", "pair --clients 100 --rate 20000", OPEN),
                case("open loop 5,000/s QoS 1", "pair --clients 100 --qos 1 --rate 5000", OPEN),
            ],
        }
    }
}
