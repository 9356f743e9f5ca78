//! Brokers that refuse, stall, reset, answer garbage or die: the run ends by itself, says why, with exit code 1.

use crate::faulty::{Fault, Faulty};
use crate::run::run;

fn check(fault: Fault, args: &str, says: &str) {
    let broker = Faulty::start(fault);
    let run = run(broker.address(), args);
    assert_eq!((run.code, run.verdict()), (1, "broken"), "{fault:?}: {}", run.report);
    assert!(run.broken().contains(says), "{fault:?}: {}", run.broken());
}

const PAIRS: &str = "pair --clients 6 --secs 0.3 --warmup 0 --drain 0.3 --timeout 0.5";

#[test]
fn refused() {
    check(Fault::NotAuthorized, PAIRS, "6 clients could not connect (CONNACK: NotAuthorized)");
    check(Fault::NoSubscriptions, PAIRS, "3 clients could not connect (SUBACK: UnspecifiedError)");
}

#[test]
fn nobody_listens() {
    let address = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let run = run(address, PAIRS);
    assert_eq!((run.code, run.verdict()), (1, "broken"));
    assert!(
        run.broken().contains("6 clients could not connect (connect: Connection refused)"),
        "{}",
        run.broken()
    );
}

#[test]
fn stalled() {
    check(Fault::Silent, PAIRS, "6 clients could not connect (waited for CONNACK for 0.5 s)");
    // The second hundred is not tried.
    check(Fault::Silent, "conn --clients 300 --threads 1 --timeout 0.5", "200 clients were not tried");
}

#[test]
fn reset_and_garbage() {
    check(Fault::Reset, PAIRS, "6 clients could not connect (receive: Connection reset by peer)");
    check(Fault::Garbage, PAIRS, "6 clients could not connect (malformed packet");
}

#[test]
fn dead_midway() {
    for qos in 0..=2 {
        let broker = Faulty::start(Fault::DieMidway);
        let run = run(broker.address(), &format!("{PAIRS} --secs=30 --qos {qos}"));
        assert_eq!((run.code, run.verdict()), (1, "broken"), "{}", run.report);
        // A socket closed with bytes unread is reset: which of the two causes a client saw is chance.
        assert_eq!(run.lost_connections(), 6, "QoS {qos}: {}", run.broken());
    }
}

#[test]
fn idle_clients_that_are_not_answered() {
    check(
        Fault::NoPong,
        "conn --clients 20 --secs 0.1 --drain 0.3",
        "20 idle clients of 20 did not answer a ping",
    );
    check(
        Fault::NoPong,
        "conn --clients 20 --secs 8 --keep-alive 1 --drain 0.3",
        "20 clients lost their connection (no answer to PINGREQ)",
    );
}
