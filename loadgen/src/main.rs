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
mod payload;
mod plan;
mod progress;
mod report;
mod scenario;
mod table;

use anyhow::{Context, Result};
use args::{Cli, Command, Common};
use clap::Parser;
use plan::Plan;
use progress::Progress;
use scenario::Topology;
use std::io::Write;
use std::path::Path;
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
    let mut progress = Progress::new(args.quiet);
    let outcome = engine::run(&plan, &mut progress, None)?;
    progress.finish();
    let report = report::report(&plan, &outcome);
    print(&report.json, table::table, args.json.as_deref(), args.quiet)?;
    Ok(report.passed)
}

/// Prints a report as a table, and writes it where it is wanted as JSON.
fn print(
    report: &serde_json::Value,
    table: fn(&serde_json::Value) -> String,
    path: Option<&Path>,
    quiet: bool,
) -> Result<()> {
    let is_stdout = path.is_some_and(|path| path.as_os_str() == "-");
    if !quiet && !is_stdout {
        write!(std::io::stdout(), "{}", table(report))?;
    }
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(report)? + "\n";
    if is_stdout {
        std::io::stdout().write_all(text.as_bytes())?;
        return Ok(());
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
