//! `durable`: persistent sessions, publishers, optionally a broker that is killed in between, and a verdict on every promise.
//!
//! ```text
//! args -> terms (who, what, where) -> stages -> run (turns) -> links (sockets, MQTT machines)
//!                                               world (what was sent, answered, received) -> judge -> report
//! ```
//!
//! One thread: who sends, who kills and who judges see the same order of events. It is not for a million connections at once, but for
//! any number of sessions, whose clients come in turns.

mod args;
mod commands;
mod left;
mod links;
mod report;
mod run;
mod stages;
mod terms;
mod world;

pub use args::DurableArgs;

use crate::clock;
use crate::cost::Processes;
use anyhow::{Result, ensure};
use left::Left;
use run::Run;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use terms::Terms;
use world::World;

/// Runs the scenario; says whether every promise was kept.
///
/// # Errors
/// If the request makes no sense, or the machine or a command fails.
pub fn durable(args: &DurableArgs) -> Result<bool> {
    let left = args.resume.as_deref().map(Left::read).transpose()?;
    let args = &left.as_ref().map_or_else(|| args.clone(), |left| left.adapt(args));
    let terms = Arc::new(Terms::new(args, left.as_ref())?);
    let processes = Processes::new(args.broker_pid.clone(), args.broker_tree);
    if let Some(pid) = processes.missing() {
        anyhow::bail!("--broker-pid {pid}: there is no such process");
    }
    ensure!(args.queued.is_none() || args.kill.is_none(), "--queued and --kill do not go together");
    let lanes =
        left.as_ref().map_or_else(|| Terms::lanes(terms.groups(), terms.publishers.max(1)), Left::lanes);
    let mut world = World::new(Arc::clone(&terms), &lanes);
    if let Some(left) = left {
        left.restore(&mut world)?;
    }
    let interrupt = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second one ends the process at once.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&interrupt))?;
        signal_hook::flag::register(signal, Arc::clone(&interrupt))?;
    }
    let began = clock::now();
    let mut run =
        Run::new(Arc::clone(&terms), world, args.connecting, args.churn, args.report.quiet, interrupt)?;
    let outcome = stages::drive(&mut run, args, &processes)?;
    let report = report::report(args, &run, &outcome, &processes, clock::now() - began);
    args.report.print(&report.json, report::table)?;
    Ok(report.passed)
}
