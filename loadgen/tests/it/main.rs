//! The binary, against a broker that misbehaves on demand and against the real one.

mod broken;
mod durable;
mod faulty;
mod forgetful;
mod judged;
mod run;
mod smoke;

use std::process::Command;

/// What cannot be done is refused before the first connection, with the arithmetic and exit code 2.
#[test]
fn impossible_requests_are_refused() {
    for (args, says) in [
        (&["conn", "--clients", "16000000"][..], "1 source address(es) x"),
        (&["conn", "--source", "127.0.0.2-127.0.0.1"], "comes before the last"),
        (&["pair", "--clients", "3"], "even number of clients"),
        (&["pair", "--size", "27"], "at least 28 bytes"),
        (&["fanin", "--clients", "1"], "--clients 1 - --subscribers 1"),
        (&["pair", "--session-expiry", "5"], "needs --protocol 5.0"),
        (&["durable", "--sessions", "3", "--online", "4"], "--online 4: there are 3"),
        (&["durable", "--resume", "/dev/null"], "/dev/null is no JSON"),
        (&["conn", "--broker-pid", "4294967295"], "no such process"),
        (&["compare", "--target=a=h:1", "--secs=-1"], "--secs -1: seconds from 0"),
        (&["compare", "--target=a=h:1", "--many-clients=0"], "0 is not in 1..=16000000"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_quelea-loadgen")).args(args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?}: {stderr}");
    }
}
