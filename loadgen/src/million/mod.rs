//! `million`: as many clients as there may be, with a subscription each; held with keep alive, then one in a hundred is written to, then all are
//! dropped at once while a witness pair goes on, and the broker's memory is watched until it is back.
//!
//! ```text
//! connect, subscribe -> hold (PINGREQ) -> ask all -> write to some -> witness -> drop all -> broker back at its idle memory
//! ```
//!
//! One process, one broker. What is measured is held against goals, but only a broken promise makes the run fail.

mod finale;
mod link;
mod report;
mod witness;

use crate::args::{Cli, Command, Common};
use crate::output::SummaryArgs;
use crate::plan::{Leave, Plan};
use crate::progress::Progress;
use crate::{engine, scenario::ConnArgs};
use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use finale::Finale;
use std::sync::Arc;

/// Arguments of `million`.
#[derive(clap::Args, Clone, Debug)]
pub struct MillionArgs {
    /// The broker's name or address
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// The broker's port
    #[arg(long, default_value_t = 1883)]
    pub port: u16,
    /// A process of the broker: its memory is what is looked at (repeatable)
    #[arg(long, required = true, value_name = "PID")]
    pub broker_pid: Vec<u32>,
    /// Clients, with a subscription each
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    pub clients: u32,
    /// Source addresses; with the default a million fit
    #[arg(long, default_value = "127.0.0.1-127.0.0.40", value_name = "LIST")]
    pub source: String,
    /// Keep alive of the clients
    #[arg(long, default_value_t = 60, value_name = "SECS")]
    pub keep_alive: u16,
    /// How long all are held before they are written to
    #[arg(long, default_value_t = 300.0, value_name = "SECS")]
    pub hold: f64,
    /// Percent of the clients that are written to
    #[arg(long, default_value_t = 1.0, value_name = "PERCENT")]
    pub share: f64,
    /// After the drop, how long the broker may take to be back at its idle memory
    #[arg(long, default_value_t = 60.0, value_name = "SECS")]
    pub settle: f64,
    #[command(flatten)]
    pub summary: SummaryArgs,
}

impl MillionArgs {
    /// As the clients of `conn`.
    fn conn(&self) -> Result<ConnArgs> {
        let mut words = vec!["quelea-loadgen".to_owned(), "conn".to_owned(), "--subscribe".to_owned()];
        let mut add = |name: &str, value: String| words.extend([name.to_owned(), value]);
        add("--host", self.host.clone());
        add("--port", self.port.to_string());
        add("--clients", self.clients.to_string());
        add("--source", self.source.clone());
        add("--keep-alive", self.keep_alive.to_string());
        add("--secs", self.hold.to_string());
        for pid in &self.broker_pid {
            add("--broker-pid", pid.to_string());
        }
        words.extend(self.summary.words());
        let cli = Cli::try_parse_from(words).context("--args")?;
        let Command::Conn(conn) = cli.command else { bail!("--args {}: not of conn", self.summary.args) };
        Ok(conn)
    }
}

/// Runs it; says whether every promise was kept.
///
/// # Errors
/// If the request makes no sense, or the machine cannot do it.
pub fn million(args: &MillionArgs) -> Result<bool> {
    ensure!((0.0..=100.0).contains(&args.share), "--share {}: percent, from 0 to 100", args.share);
    ensure!((0.0..=1e6).contains(&args.settle), "--settle {}: seconds from 0 to 1000000", args.settle);
    let conn = args.conn()?;
    let common: &Common = &conn.common;
    let mut plan = Plan::new("million", conn.topology()?, common)?;
    plan.leave = Leave::Drop;
    let plan = Arc::new(plan);
    let mut progress = Progress::new(args.summary.report.quiet);
    let mut finale = Finale::new(Arc::clone(&plan), args.share, args.settle);
    let outcome = engine::run(&plan, &mut progress, Some(&mut finale))?;
    progress.finish();
    let settled = finale.finish();
    let report = report::report(args, &plan, &outcome, settled.as_ref());
    args.summary.save_table(&report::markdown(&report.json))?;
    args.summary.report.print(&report.json, report::markdown)?;
    Ok(report.passed)
}
