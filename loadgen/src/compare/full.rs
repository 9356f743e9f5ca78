//! The full suite: every kind of work that there is a goal for, and some without.
//!
//! Brokers with a descriptor for each client are not asked for more clients than `--idle-clients`; RabbitMQ, which takes up to a
//! minute for some cases, runs those once.
//!
//! Idle clients come first, fewer before more: memory counts from the least that a broker ever held in this comparison, so that what
//! stays of one run is not taken for nothing in the next.

use super::goal::Goal::{self, Bound, OfCase, OfFloor, Times};
use super::suite::{Case, FLAT_OUT, Metric, OPEN, Scale, metric};

/// User memory of an idle client, in bytes.
const CLIENT_BYTES_MAX: f64 = 512.0;
/// Clients a second, from connect to SUBACK.
const CONNECTS_MIN: f64 = 25_000.0;

const RATE: &str = "/measured/delivered_per_sec";
const CPU: &str = "/broker/cpu_secs_per_million";
const P50: &str = "/latency_us/p50";
const P99: &str = "/latency_us/p99";
const BYTES: &str = "/broker/rss_over_least_per_client";
const CONNECTS: &str = "/clients/ready_per_sec";

const PAIRS: &str = "50 pairs QoS 0, flat out";
const ONE_IN_FLIGHT: &str = "1000 pairs QoS 0, one in flight each";

/// Cases that take RabbitMQ long.
const ONCE: &[(&str, u32)] = &[("rabbitmq", 1)];
/// Cases that others have no descriptors for.
const MANY: &[(&str, u32)] = &[("mosquitto", 0), ("rabbitmq", 0)];
/// A hundred thousand subscriptions would take RabbitMQ minutes.
const WITHOUT_RABBITMQ: &[(&str, u32)] = &[("rabbitmq", 0)];

const IDLE: &[Metric] = &[
    metric("ready", "/clients/ready", 1.0, true),
    metric("broker RSS, bytes a client", BYTES, 1.0, false),
    metric("connects per second", CONNECTS, 1.0, true),
    metric("broker CPU, us a connect", "/clients/broker_cpu_us_per_client", 1.0, false),
    metric("kernel slab, both ends, bytes a client", "/memory/kernel_slab_per_client", 1.0, false),
];

fn mosquitto(factor: f64) -> Goal {
    Times { peer: "mosquitto", factor }
}

fn rabbitmq(factor: f64) -> Goal {
    Times { peer: "rabbitmq", factor }
}

/// All cases, in their order.
pub fn cases(scale: Scale) -> Vec<Case> {
    let mut cases = idle(scale);
    cases.extend(flat_out(scale.secs));
    cases.extend(open(scale.secs));
    cases.extend(parted(scale.secs));
    cases.extend(without_goal(scale));
    cases
}

fn load(name: &str, args: &str, secs: f64, metrics: &'static [Metric]) -> Case {
    Case::new(name, format!("{args} --secs {secs} --warmup 1 --size 64"), metrics)
}

fn idle(scale: Scale) -> Vec<Case> {
    let mut cases = Vec::new();
    for (clients, limits) in [(scale.idle_clients, ONCE), (scale.many_clients, MANY)] {
        // Tried out with so few, all brokers have descriptors for all.
        if clients == scale.many_clients && !cases.is_empty() && clients == scale.idle_clients {
            break;
        }
        for (what, args) in [
            ("without a subscription", ""),
            ("with a QoS 0 subscription", "--subscribe"),
            ("with a QoS 1 subscription", "--subscribe --sub-qos 1"),
        ] {
            let args = format!(
                "conn --clients {clients} {args} --secs 1 --keep-alive 900 --source 127.0.0.1-127.0.0.16"
            );
            let mut case = Case::new(&format!("{} idle clients {what}", grouped(clients)), args, IDLE);
            case.limits = limits;
            // Of few clients, what each shard has once counts in.
            if clients == scale.many_clients {
                case.goals.push((BYTES, Bound(CLIENT_BYTES_MAX)));
            }
            if clients == scale.many_clients && case.args.contains("--subscribe") {
                case.goals.push((CONNECTS, Bound(CONNECTS_MIN)));
            }
            cases.push(case);
        }
    }
    cases
}

fn flat_out(secs: f64) -> Vec<Case> {
    let case = |name, args, goals: &[(&'static str, Goal)]| {
        let mut case = load(name, args, secs, FLAT_OUT);
        case.goals = goals.to_vec();
        case
    };
    vec![
        case(
            PAIRS,
            "pair --clients 100 --inflight 64",
            &[(RATE, mosquitto(30.0)), (RATE, rabbitmq(90.0)), (CPU, mosquitto(40.0))],
        ),
        case(
            "50 pairs QoS 1, flat out",
            "pair --clients 100 --qos 1 --inflight 256",
            &[(RATE, mosquitto(30.0)), (RATE, rabbitmq(110.0))],
        ),
        case(
            "fan-in 50 to 1 QoS 0, flat out",
            "fanin --clients 51 --inflight 64",
            &[(RATE, mosquitto(45.0))],
        ),
        case(
            "fan-in 50 to 1 QoS 1, flat out",
            "fanin --clients 51 --qos 1 --inflight 256",
            &[(RATE, mosquitto(50.0))],
        ),
        case(
            "fan-out 1 to 1000 QoS 0, flat out",
            "fanout --clients 1001 --inflight 64",
            &[(RATE, mosquitto(50.0))],
        ),
    ]
}

fn open(secs: f64) -> Vec<Case> {
    let mut cases = Vec::new();
    for rate in [20_000, 5_000] {
        for qos in [0, 1] {
            let args = format!("pair --clients 100 --qos {qos} --rate {rate}");
            let mut case = load(&format!("open loop {}/s QoS {qos}", grouped(rate)), &args, secs, OPEN);
            case.limits = ONCE;
            case.goals = vec![(P50, mosquitto(1.0)), (P99, mosquitto(1.0)), (CPU, mosquitto(1.0 / 0.9))];
            cases.push(case);
        }
    }
    cases
}

/// Where messages of one connection do not come together.
fn parted(secs: f64) -> Vec<Case> {
    let mut pairs = load(ONE_IN_FLIGHT, "pair --clients 2000 --inflight 1", secs, FLAT_OUT);
    pairs.limits = ONCE;
    pairs.goals = vec![(CPU, OfFloor { one_shard: 1.25, more: 1.5 })];
    pairs.with_floor = true;
    let topics = |name, args, case| {
        let mut topics = load(name, args, secs, FLAT_OUT);
        topics.limits = WITHOUT_RABBITMQ;
        topics.goals = vec![(CPU, OfCase { case, factor: 2.0 })];
        topics
    };
    vec![
        pairs,
        topics(
            "100,000 subscriptions, 5 % wildcards, random topics, flat out",
            "topics --clients 100 --filters 100000 --wildcards 5 --inflight 64",
            PAIRS,
        ),
        topics(
            "100,000 subscriptions, 5 % wildcards, random topics, one in flight each",
            "topics --clients 2000 --filters 100000 --wildcards 5 --inflight 1",
            ONE_IN_FLIGHT,
        ),
    ]
}

fn without_goal(Scale { secs, idle_clients, many_clients }: Scale) -> Vec<Case> {
    let wide = 10_000.min(idle_clients);
    let fanout = |name: String, clients: u32, limits| {
        // So many deliveries under way at most, and 100 MB or so of them in buffers.
        let inflight = (1_600_000 / clients).clamp(1, 64);
        let args =
            format!("fanout --clients {} --inflight {inflight} --source 127.0.0.1-127.0.0.16", clients + 1);
        Case { limits, rounds: Some(2), ..load(&name, &args, secs, FLAT_OUT) }
    };
    let pairs = |name, args| Case { limits: ONCE, rounds: Some(2), ..load(name, args, secs, FLAT_OUT) };
    vec![
        pairs("50 pairs QoS 0, MQTT 5.0, flat out", "pair --clients 100 --inflight 64 --protocol 5.0"),
        pairs(
            "50 pairs QoS 1, MQTT 5.0, flat out",
            "pair --clients 100 --qos 1 --inflight 256 --protocol 5.0",
        ),
        fanout(format!("fan-out 1 to {} QoS 0, flat out", grouped(wide)), wide, ONCE),
        fanout(format!("fan-out 1 to {} QoS 0, flat out, many", grouped(many_clients)), many_clients, MANY),
    ]
}

/// A number with commas.
fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    const SCALE: Scale = Scale { secs: 3.0, idle_clients: 15_000, many_clients: 100_000 };

    #[test]
    fn numbers_with_commas() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (15_000, "15,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn every_case_can_be_asked_for() {
        let cases = cases(SCALE);
        for case in &cases {
            let words = ["quelea-loadgen"].into_iter().chain(case.args.split_whitespace());
            assert!(crate::args::Cli::try_parse_from(words).is_ok(), "{}", case.args);
            assert_eq!(cases.iter().filter(|other| other.name == case.name).count(), 1, "{}", case.name);
        }
    }

    #[test]
    fn every_goal_is_of_a_number_that_stands_in_the_table() {
        let cases = cases(SCALE);
        assert_eq!(cases.iter().map(|case| case.goals.len()).sum::<usize>(), 3 + 2 + 3 + 12 + 1 + 2 + 3 + 2);
        for case in &cases {
            for (pointer, goal) in &case.goals {
                assert!(case.metrics.iter().any(|metric| metric.pointer == *pointer), "{}", case.name);
                if let OfCase { case, .. } = goal {
                    assert!(cases.iter().any(|other| other.name == *case), "{case}");
                }
            }
        }
    }
}
