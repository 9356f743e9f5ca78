//! The growth suite: the same work with ever more clients and filters, each number a point of a chart. Whoever runs it starts a broker
//! for each number of shards.

use super::suite::{Case, FLAT_OUT, Metric, Point, Scale, metric};

/// Brokers with a descriptor for each client cannot take part, and it is not about them.
const ALONE: &[(&str, u32)] = &[("mosquitto", 0), ("rabbitmq", 0)];

const CPU: &str = "/broker/cpu_secs_per_million";
const BYTES: &str = "/broker/rss_over_least_per_client";

const IDLE: &[Metric] = &[
    metric("broker RSS, bytes a client", BYTES, 1.0, false),
    metric("connects per second", "/clients/ready_per_sec", 1.0, true),
    metric("broker CPU, us a connect", "/clients/broker_cpu_us_per_client", 1.0, false),
];

/// Filters of one subscriber, so all in one shard; no more than one session may have by default (`quelea.mqtt.subscriptions_max`).
const FILTERS: [u32; 4] = [1, 100, 10_000, 50_000];

/// All cases, in their order: idle clients first, and fewer before more, as memory counts from the least that a broker held.
pub fn cases(Scale { secs, many_clients, .. }: Scale) -> Vec<Case> {
    let mut sizes: Vec<u32> = [1000, 10_000, 100_000].map(|clients: u32| clients.min(many_clients)).to_vec();
    sizes.dedup();
    let mut cases = Vec::new();
    let mut add = |name: String, args: String, metrics, point| {
        let mut case = Case::new(&name, format!("{args} --source 127.0.0.1-127.0.0.16"), metrics);
        case.limits = ALONE;
        case.point = Some(point);
        cases.push(case);
    };
    let by_clients =
        |chart, clients: u32, pointer| Point { chart, axis: "clients", x: f64::from(clients), pointer };
    for &clients in &sizes {
        let point = by_clients("bytes of user memory an idle client, one subscription each", clients, BYTES);
        let args = format!("conn --clients {clients} --subscribe --secs 1 --keep-alive 900");
        add(format!("{clients} idle clients with a QoS 0 subscription"), args, IDLE, point);
    }
    for &clients in &sizes {
        let point = by_clients("µs of CPU a message, pairs QoS 0, one in flight each", clients, CPU);
        let args = format!("pair --clients {clients} --inflight 1 --secs {secs} --warmup 1");
        add(format!("{clients} clients in pairs QoS 0, one in flight each"), args, FLAT_OUT, point);
    }
    for &clients in &sizes {
        let point = by_clients("µs of CPU a delivery, fan-out QoS 0", clients, CPU);
        let inflight = (1_600_000 / clients).clamp(1, 64);
        let args = format!("fanout --clients {} --inflight {inflight} --secs {secs} --warmup 1", clients + 1);
        add(format!("fan-out 1 to {clients} QoS 0"), args, FLAT_OUT, point);
    }
    for filters in FILTERS {
        let point = Point {
            chart: "µs of CPU a message, 50 to 1 QoS 0, random topics, 5 % wildcards",
            axis: "filters in a shard",
            x: f64::from(filters),
            pointer: CPU,
        };
        let args = format!(
            "topics --clients 51 --subscribers 1 --filters {filters} --wildcards 5 --inflight 64 --secs {secs} --warmup 1"
        );
        add(format!("{filters} filters, random topics QoS 0"), args, FLAT_OUT, point);
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn every_case_can_be_asked_for_and_is_a_point() {
        let cases = cases(Scale { secs: 2.0, idle_clients: 1, many_clients: 100_000 });
        assert_eq!(cases.len(), 3 + 3 + 3 + FILTERS.len());
        for case in &cases {
            let words = ["quelea-loadgen"].into_iter().chain(case.args.split_whitespace());
            assert!(crate::args::Cli::try_parse_from(words).is_ok(), "{}", case.args);
            let point = case.point.unwrap();
            assert!(case.metrics.iter().any(|metric| metric.pointer == point.pointer), "{}", case.name);
        }
    }
}
