//! The abuse list: what hostile or broken clients do, against the real binary, with a witness that measures meanwhile.
//!
//! `cargo test --release --test abuse -- --full [name…]` runs each case at full size on a broker of its own and prints a table;
//! without `--full` all run small, one after another, on one broker. After each a normal round trip
//! has to work in every version, the log has to name the cause, and the broker's memory has to come back.
//!
//! No assertion is about time: the witness's round trips are reported. Both ends are on this machine, so they include what the
//! attack itself takes of the cores.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command that reports")]
#![allow(clippy::disallowed_types, reason = "these tests run in real time, against a real process")]

mod arena;
#[path = "../it/broker.rs"]
#[allow(dead_code, reason = "shared with the other tests of the binary")]
mod broker;
mod cases;
mod crowd;
mod page;
#[path = "../it/wire.rs"]
#[allow(dead_code, reason = "shared with the other tests of the binary")]
mod wire;
mod witness;

use arena::{Arena, Report};
use std::process::ExitCode;
use std::time::Duration;

/// How long anything may take on a busy machine before the test gives up.
const DEADLINE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let mut full = false;
    let mut names = Vec::new();
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--full" => full = true,
            // What cargo and its friends pass to every test.
            "--list" => return ExitCode::SUCCESS,
            name if !name.starts_with('-') => names.push(name.to_owned()),
            _ => {}
        }
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| name.contains(wanted.as_str()));
    let cases = cases::ALL.iter().filter(|case| wanted(case.name));
    if full {
        println!("{}", Report::HEAD);
        for case in cases {
            let arena = Arena::new(true, case.settings);
            println!("{}", arena.run(case));
            arena.end();
        }
    } else {
        let arena = Arena::new(false, cases::SETTINGS_SMALL);
        for case in cases {
            println!("{}", arena.run(case));
        }
        arena.end();
    }
    ExitCode::SUCCESS
}
