//! The judge against a broker that wrongs one message in ten: exact counts, verdict and exit code.

use crate::faulty::{Fault, Faulty};
use crate::run::{Run, run};

/// Three pairs, an open loop: 1200 messages whatever happens.
const LOAD: &str = "pair --clients 6 --rate 3000 --secs 0.4 --warmup 0 --drain 0.5 --threads 2";
const MESSAGES: u64 = 1200;

fn judged(fault: Fault, args: &str) -> (Run, u64) {
    let broker = Faulty::start(fault);
    let run = run(broker.address(), &format!("{LOAD} {args}"));
    assert_eq!(run.count("published"), MESSAGES, "{fault:?} {args}: {}", run.report);
    assert_eq!(run.count("expected"), MESSAGES);
    let injected = broker.injected();
    if fault != Fault::None {
        assert_eq!(injected, MESSAGES / 10, "{fault:?} {args}");
    }
    (run, injected)
}

/// `counts` are the only ones that are not as they should be; the given ones are as many as were injected.
fn check(fault: Fault, args: &str, counts: &[&str], verdict: &str, code: i32) {
    let (run, injected) = judged(fault, args);
    let what = format!("{fault:?} {args}: {}", run.report);
    for name in [
        "unsent",
        "refused",
        "unacknowledged",
        "acknowledged_out_of_order",
        "lost",
        "undeliverable",
        "duplicated",
        "out_of_order",
        "corrupted",
        "misrouted",
        "wrong_qos",
        "wrong_retain",
        "foreign",
    ] {
        let due = if counts.contains(&name) { injected } else { 0 };
        assert_eq!(run.count(name), due, "{name}: {what}");
    }
    let missing = run.count("lost") + run.count("undeliverable");
    assert_eq!(run.count("received") + missing, MESSAGES, "{what}");
    assert_eq!((run.verdict(), run.code), (verdict, code), "{what}");
}

#[test]
fn an_honest_broker_passes() {
    for args in
        ["", "--qos 1", "--qos 2", "--qos 2 --sub-qos 1 --protocol 5.0", "--qos 1 --protocol 3.1 --strict"]
    {
        check(Fault::None, args, &[], "exact", 0);
    }
}

#[test]
fn loss_is_counted() {
    check(Fault::Lose, "", &["lost"], "kept", 0);
    check(Fault::Lose, "--strict", &["lost"], "broken", 1);
    check(Fault::Lose, "--qos 1", &["lost"], "broken", 1);
    check(Fault::Lose, "--qos 2", &["lost"], "broken", 1);
}

#[test]
fn duplicates_are_counted() {
    check(Fault::Duplicate, "", &["duplicated"], "broken", 1);
    check(Fault::Duplicate, "--qos 1", &["duplicated"], "kept", 0);
    check(Fault::Duplicate, "--qos 2", &["duplicated"], "broken", 1);
}

#[test]
fn wrong_order_is_counted() {
    check(Fault::Swap, "", &["out_of_order"], "broken", 1);
    check(Fault::Swap, "--qos 1", &["out_of_order"], "broken", 1);
}

/// A corrupted message did not come: it is lost as well.
#[test]
fn corruption_is_counted() {
    check(Fault::CorruptFiller, "", &["corrupted", "lost"], "broken", 1);
    check(Fault::CorruptHead, "--qos 1", &["corrupted", "lost"], "broken", 1);
    check(Fault::Shorten, "--qos 1", &["corrupted", "lost"], "broken", 1);
}

#[test]
fn wrong_topics_flags_and_qos_are_counted() {
    check(Fault::Misroute, "--qos 1", &["misrouted", "lost"], "broken", 1);
    check(Fault::Retain, "", &["wrong_retain"], "broken", 1);
    check(Fault::Downgrade, "--qos 1", &["wrong_qos"], "broken", 1);
}

#[test]
fn acknowledgements_are_counted() {
    check(Fault::Unacknowledged, "--qos 1", &["unacknowledged"], "broken", 1);
    check(Fault::Refuse, "--qos 1 --protocol 5.0", &["refused", "undeliverable"], "broken", 1);
    check(Fault::SwapAcks, "--qos 1", &["acknowledged_out_of_order"], "exact", 0);
    check(Fault::SwapAcks, "--qos 1 --strict", &["acknowledged_out_of_order"], "broken", 1);
}

/// An acknowledgement of nothing, or by the wrong packet, ends the connection: the MQTT machine holds the broker to the rules.
#[test]
fn wrong_acknowledgements_end_the_connection() {
    for fault in [Fault::AcknowledgeTwice, Fault::WrongAck] {
        let broker = Faulty::start(fault);
        let run = run(broker.address(), &format!("{LOAD} --qos 1"));
        assert_eq!(run.code, 1, "{fault:?}: {}", run.report);
        assert!(
            run.broken().contains("3 clients lost their connection (protocol violation"),
            "{}",
            run.broken()
        );
        assert_eq!(run.count("lost"), 0, "{fault:?}: {}", run.report);
    }
}
