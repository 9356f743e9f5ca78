//! `durable` against a broker that forgets something when it is killed: each broken promise is found, and nothing else.

use crate::forgetful::{Forgetful, Forgets};
use crate::run::{Run, run_with};

const LOAD: &str = "durable --sessions 6 --publishers 3 --window 8 --secs 0.3 --warmup 0 --drain 0.5 --timeout 1 --restart-timeout 1";

/// Promises by the names of their counts.
const COUNTS: [&str; 12] = [
    "refused",
    "lost",
    "out_of_order",
    "corrupted",
    "misrouted",
    "wrong_qos",
    "wrong_retain",
    "sessions_lost",
    "retained_lost",
    "retained_wrong",
    "subscriptions_lost",
    "subscriptions_back",
];

fn killed(forgets: Forgets, args: &str) -> (Run, u64) {
    let broker = Forgetful::start(forgets);
    let [kill, start] = broker.commands();
    let args: Vec<&str> = LOAD.split(' ').chain(args.split_whitespace()).collect();
    let run = run_with(broker.address(), &[&args[..], &["--kill", &kill, "--start", &start]].concat());
    assert!(run.count("acknowledged") > 0, "{forgets:?}: {}", run.report);
    (run, broker.injected())
}

/// `broken` is the one count that is not 0; as many as were injected if `exactly`.
fn check(forgets: Forgets, args: &str, broken: &str, exactly: bool) {
    let (run, injected) = killed(forgets, args);
    let what = format!("{forgets:?} {args}: {}", run.report);
    assert!(injected > 0, "{what}");
    for name in COUNTS {
        assert_eq!(run.count(name) > 0, name == broken, "{name}: {what}");
    }
    if exactly {
        assert_eq!(run.count(broken), injected, "{what}");
    }
    assert_eq!((run.verdict(), run.code), ("broken", 1), "{what}");
}

#[test]
fn an_honest_broker_keeps_everything() {
    for args in [
        "--qos 1 --online 2 --churn 50 --retained 4 --changing 3 --cycles 3",
        "--qos 2 --online 2 --churn 50 --retained 4 --changing 3 --cycles 3 --protocol 5.0",
        "--qos 2 --sub-qos 1 --fan 3 --online 6",
        "--qos 1 --clean-publishers --publishers 9 --fan 2",
    ] {
        let (run, _) = killed(Forgets::Nothing, args);
        let what = format!("{args}: {}", run.report);
        assert!(COUNTS.iter().all(|name| run.count(name) == 0), "{what}");
        assert!(run.count("duplicated") == 0 || !args.starts_with("--qos 2 --online"), "{what}");
        assert_eq!(run.code, 0, "{what}");
        assert!(run.count("received") >= run.count("due") && run.count("due") > 0, "{what}");
        if args.contains("--changing") {
            assert!(run.count("retained_checked") == 16 && run.count("subscriptions_probed") == 48, "{what}");
        }
    }
}

#[test]
fn a_lost_message_is_found() {
    check(Forgets::Message, "--qos 1", "lost", true);
    check(Forgets::Message, "--qos 2 --protocol 5.0", "lost", true);
}

#[test]
fn a_doubled_message_is_found() {
    let (once, injected) = killed(Forgets::Queued, "--qos 2");
    assert_eq!(once.count("duplicated"), injected, "{}", once.report);
    assert!(once.code == 1 && once.broken().contains("6 QoS 2 messages came again"), "{}", once.report);
    // QoS 1 promises no more.
    let (often, injected) = killed(Forgets::Queued, "--qos 1");
    assert!(often.count("duplicated") >= injected && injected == 6, "{}", often.report);
    assert_eq!((often.code, often.verdict()), (0, "kept"), "{}", often.report);
}

#[test]
fn wrong_order_is_found() {
    check(Forgets::Order, "--qos 1", "out_of_order", true);
    check(Forgets::Order, "--qos 2", "out_of_order", true);
}

#[test]
fn retained_messages_that_are_not_what_they_were_are_found() {
    // Each is looked at after the restart and again in the end.
    check(Forgets::Retained, "--retained 6 --secs 0.6", "retained_lost", false);
    check(Forgets::RetainedChange, "--retained 6 --secs 0.6", "retained_wrong", false);
}

#[test]
fn subscriptions_that_are_not_what_they_were_are_found() {
    check(Forgets::Subscribe, "--changing 8", "subscriptions_lost", false);
    check(Forgets::Unsubscribe, "--changing 8", "subscriptions_back", false);
}

#[test]
fn lost_sessions_are_found() {
    let (run, _) = killed(Forgets::Sessions, "--qos 2");
    assert!(run.count("sessions_lost") >= 6 && run.count("lost") > 0, "{}", run.report);
    assert_eq!(run.code, 1, "{}", run.report);
}

#[test]
fn a_broker_that_does_not_come_back_is_told() {
    let (run, _) = killed(Forgets::Everything, "");
    assert!(run.broken().contains("the broker did not answer CONNECT within 1 s"), "{}", run.report);
    assert_eq!(run.code, 1, "{}", run.report);
}

/// Two processes: what the first leaves the second finds; and what was lost between them.
#[test]
fn what_is_left_is_found_again() {
    let broker = Forgetful::start(Forgets::Nothing);
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("left-{}", std::process::id()));
    let name = file.to_str().expect("a name");
    let leave = ["durable", "--sessions", "50", "--publishers", "3", "--queued", "7", "--leave", name];
    let left = run_with(broker.address(), &leave);
    assert_eq!((left.code, left.count("due"), left.count("received")), (0, 350, 0), "{}", left.report);
    let resume = ["durable", "--resume", name, "--at-once", "10", "--drain", "0.5"];
    let kept = run_with(broker.address(), &[&resume[..], &["--no-cleanup"]].concat());
    assert_eq!((kept.code, kept.count("due"), kept.count("received")), (0, 350, 350), "{}", kept.report);
    let nothing = run_with(broker.address(), &resume);
    assert_eq!((nothing.code, nothing.count("lost")), (1, 350), "{}", nothing.report);
    let _ = std::fs::remove_file(file);
}

/// Without a kill it measures: acknowledged a second, latencies.
#[test]
fn throughput_is_measured() {
    let broker = Forgetful::start(Forgets::Nothing);
    for args in ["--online 6 --publishers 6 --window 1", "--sessions 4 --size 1024", "--qos 2"] {
        let args: Vec<&str> = LOAD.split(' ').chain(args.split_whitespace()).collect();
        let run = run_with(broker.address(), &args);
        assert_eq!((run.code, run.verdict()), (0, "exact"), "{args:?}: {}", run.report);
        let measured = &run.report["measured"];
        assert!(measured["acknowledged_per_sec"].as_f64() > Some(0.0), "{}", run.report);
        assert!(run.report["ack_latency_us"]["p99"].as_f64() > Some(0.0), "{}", run.report);
    }
}
