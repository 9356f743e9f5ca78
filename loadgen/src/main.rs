//! `quelea-loadgen`: drives an MQTT broker with up to a million clients, judges every message, and reports what it measured, what
//! it cost the broker, and whether the generator itself was the limit.
//!
//! ```text
//! args -> scenario -> plan -> engine (threads, rings, clients) -> judge -> report -> table, JSON, exit code
//! ```

mod addresses;
mod args;
mod clock;
mod compare;
mod cost;
mod durable;
mod echo;
mod engine;
mod judge;
mod machine;
mod million;
mod output;
mod payload;
mod plan;
mod progress;
mod report;
mod scenario;
mod table;

use anyhow::Result;
use args::{Cli, Command, Common};
use clap::Parser;
use plan::Plan;
use progress::Progress;
use scenario::Topology;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

/// The request makes no sense, or the machine cannot do it.
const IMPOSSIBLE: u8 = 2;

fn main() -> ExitCode {
    match execute(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "quelea-loadgen: {error:#}");
            ExitCode::from(IMPOSSIBLE)
        }
    }
}

/// Says whether every promise was kept.
fn execute(command: Command) -> Result<bool> {
    match command {
        Command::Conn(args) => scenario("conn", args.topology()?, &args.common),
        Command::Pair(args) => scenario("pair", args.topology()?, &args.common),
        Command::Fanin(args) => scenario("fanin", args.topology()?, &args.common),
        Command::Fanout(args) => scenario("fanout", args.topology()?, &args.common),
        Command::Topics(args) => scenario("topics", args.topology()?, &args.common),
        Command::Compare(args) => compare::compare(&args),
        Command::Durable(args) => durable::durable(&args),
        Command::Million(args) => million::million(&args),
        Command::Echo(args) => echo::echo(&args),
    }
}

fn scenario(name: &'static str, topology: Topology, args: &Common) -> Result<bool> {
    let plan = Arc::new(Plan::new(name, topology, args)?);
    let mut progress = Progress::new(args.report.quiet);
    let outcome = engine::run(&plan, &mut progress, None)?;
    progress.finish();
    let report = report::report(&plan, &outcome);
    args.report.print(&report.json, table::table)?;
    Ok(report.passed)
}
