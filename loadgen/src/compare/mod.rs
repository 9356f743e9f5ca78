//! `compare`: the same cases against several brokers in alternation, medians, spread, and ratios to a baseline.
//!
//! Each run is a process of its own (this program again), so that one run's memory, ports and histograms are not another's. The
//! order is A B A B: what changes slowly on the machine hits all brokers alike. A run that breaks a promise is shown as such
//! in the table, and its numbers are not used.

mod suite;
mod table;

use crate::clock;
use crate::table::count;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use suite::{Case, Suite};

/// Arguments of `compare`.
#[derive(clap::Args, Clone, Debug)]
pub struct CompareArgs {
    /// What to run
    #[arg(default_value = "quick")]
    pub suite: Suite,
    /// A broker, as NAME=HOST:PORT (repeatable)
    #[arg(long, required = true, value_name = "NAME=HOST:PORT")]
    pub target: Vec<String>,
    /// The process of a broker, as NAME=PID, to measure its CPU and memory (repeatable)
    #[arg(long, value_name = "NAME=PID")]
    pub pid: Vec<String>,
    /// Whom the others are compared with [default: the last target]
    #[arg(long, value_name = "NAME")]
    pub baseline: Option<String>,
    /// How often each case runs against each broker
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Seconds measured in each run
    #[arg(long, default_value_t = 2.0)]
    pub secs: f64,
    /// Idle clients in the memory case
    #[arg(long, default_value_t = 15_000, value_name = "N")]
    pub idle_clients: u32,
    /// Only cases whose name holds this (repeatable)
    #[arg(long, value_name = "TEXT")]
    pub only: Vec<String>,
    /// Passed on to every run, such as --args "--source 127.0.0.1-127.0.0.8 --cpus 2-3"
    #[arg(long, default_value = "", allow_hyphen_values = true, value_name = "ARGS")]
    pub args: String,
    /// Write all reports and the summary there
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the table there
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}

/// A broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    pub name: String,
    pub host: String,
    pub port: u16,
    pub pids: Vec<u32>,
}

/// Compares; says whether every promise was kept.
///
/// # Errors
/// If the request makes no sense, or a run could not be made at all.
pub fn compare(args: &CompareArgs) -> Result<bool> {
    let targets = targets(args)?;
    let baseline = args.baseline.as_deref().unwrap_or(&targets[targets.len() - 1].name);
    let baseline = targets.iter().position(|target| target.name == baseline);
    let baseline =
        baseline.with_context(|| format!("no target has the baseline's name {:?}", args.baseline))?;
    let cases: Vec<Case> = args.suite.cases(args.secs, args.idle_clients);
    let cases: Vec<Case> = cases
        .into_iter()
        .filter(|case| args.only.is_empty() || args.only.iter().any(|part| case.name.contains(part)))
        .collect();
    ensure!(!cases.is_empty(), "no case has a name with {:?}", args.only);
    let mut reports: Vec<Vec<Vec<Value>>> = vec![vec![Vec::new(); targets.len()]; cases.len()];
    for (case, reports) in cases.iter().zip(&mut reports) {
        for round in 0..case.rounds.unwrap_or(args.rounds) {
            for (target, reports) in targets.iter().zip(reports.iter_mut()) {
                reports.push(run(case, target, round, &args.args)?);
            }
        }
    }
    let text = table::markdown(&cases, &targets, baseline, &reports);
    write!(std::io::stdout(), "{text}")?;
    if let Some(path) = &args.markdown {
        std::fs::write(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &args.json {
        let value = json!({
            "suite": args.suite.name(),
            "baseline": targets[baseline].name,
            "cases": table::summary(&cases, &targets, baseline, &reports),
        });
        std::fs::write(path, serde_json::to_string_pretty(&value)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(reports.iter().flatten().flatten().all(|report| report["verdict"] != "broken"))
}

fn targets(args: &CompareArgs) -> Result<Vec<Target>> {
    let mut targets: Vec<Target> = Vec::new();
    for text in &args.target {
        let (name, address) = text.split_once('=').unwrap_or((text, text));
        let (host, port) = address.rsplit_once(':').with_context(|| format!("`{text}`: NAME=HOST:PORT"))?;
        let port = port.parse().with_context(|| format!("`{text}`: `{port}` is no port"))?;
        ensure!(targets.iter().all(|other| other.name != name), "two targets are called {name}");
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        targets.push(Target { name: name.to_owned(), host, port, pids: Vec::new() });
    }
    for text in &args.pid {
        let (name, pid) = text.split_once('=').with_context(|| format!("`{text}`: NAME=PID"))?;
        let pid = pid.parse().with_context(|| format!("`{text}`: `{pid}` is no process"))?;
        let Some(target) = targets.iter_mut().find(|target| target.name == name) else {
            bail!("--pid {text}: no target is called {name}");
        };
        target.pids.push(pid);
    }
    Ok(targets)
}

/// One run, as a process of its own.
fn run(case: &Case, target: &Target, round: u32, more: &str) -> Result<Value> {
    let began = clock::now();
    let mut command = Command::new(std::env::current_exe().context("where this program is")?);
    command.args(case.args.split_whitespace());
    command.args(["--host", &target.host, "--port", &target.port.to_string()]);
    command.args(["--quiet", "--json", "-", "--broker-tree"]);
    for pid in &target.pids {
        command.args(["--broker-pid", &pid.to_string()]);
    }
    command.args(more.split_whitespace());
    let output = command.stderr(Stdio::inherit()).output().context("this program cannot be run again")?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{} against {}: no report", case.name, target.name))?;
    let secs = (clock::now() - began) as f64 / clock::SECOND as f64;
    let rate = report["measured"]["delivered_per_sec"].as_f64().unwrap_or(0.0);
    writeln!(
        std::io::stderr(),
        "{:<28} {:<12} round {}: {:>6}/s, {} ({secs:.1} s)",
        case.name,
        target.name,
        round + 1,
        count(rate),
        report["verdict"].as_str().unwrap_or("?"),
    )?;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn parse(args: &[&str]) -> Result<Vec<Target>> {
        let cli = crate::args::Cli::parse_from([&["quelea-loadgen", "compare"], args].concat());
        let crate::args::Command::Compare(args) = cli.command else { panic!("compare was asked for") };
        targets(&args)
    }

    #[test]
    fn targets_and_their_processes() {
        let targets = parse(&[
            "--target",
            "a=127.0.0.1:1883",
            "--target",
            "b=[::1]:1884",
            "--pid",
            "b=7",
            "--pid",
            "b=8",
        ])
        .unwrap();
        assert_eq!(
            (&targets[0].host[..], targets[0].port, &targets[0].pids[..]),
            ("127.0.0.1", 1883, &[][..])
        );
        assert_eq!((&targets[1].host[..], targets[1].port, &targets[1].pids[..]), ("::1", 1884, &[7, 8][..]));
        for bad in [
            &["--target", "a"][..],
            &["--target", "a=h:x"],
            &["--target", "a=h:1", "--target", "a=h:2"],
            &["--target", "a=h:1", "--pid", "b=1"],
            &["--target", "a=h:1", "--pid", "a=x"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
