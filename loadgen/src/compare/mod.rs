//! `compare`: the same cases against several brokers in alternation, medians, spread, and ratios to a baseline.
//!
//! Each run is a process of its own (this program again), so that one run's memory, ports and histograms are not another's. The
//! order is A B C, B C A: what changes slowly on the machine hits all brokers alike, and nobody always comes first. No run begins
//! while brokers still work for the one before, if they end that within half a minute. A run that breaks a promise is shown as such in the table, and its numbers are not
//! used. What was measured so far is written after every case.

mod chart;
mod full;
mod goal;
mod growth;
mod suite;
mod table;

use crate::clock;
use crate::cost::Processes;
use crate::machine;
use crate::output::{SummaryArgs, write_file};
use crate::table::count;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use suite::{Case, Scale, Suite};
use table::Results;

/// Brokers that take no more of a core than this, all together, over this time, are at rest.
const REST_CPU_MAX: f64 = 0.1;
const REST_LOOK: Duration = Duration::from_millis(500);
/// How long that is waited for, in nanoseconds.
const REST_MAX: u64 = 30 * clock::SECOND;

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
    /// How many shards a broker has, as NAME=N, for goals that ask (repeatable)
    #[arg(long, value_name = "NAME=N")]
    pub shards: Vec<String>,
    /// What a broker is, as NAME=TEXT, such as its version: stands above the table (repeatable)
    #[arg(long, value_name = "NAME=TEXT")]
    pub about: Vec<String>,
    /// How often each case runs against each broker [default: quick 2, others 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: Option<u32>,
    /// Seconds measured in each run [default: full 3, others 2]
    #[arg(long)]
    pub secs: Option<f64>,
    /// Idle clients in the memory cases
    #[arg(long, default_value_t = 15_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    pub idle_clients: u32,
    /// Idle clients and subscribers of brokers that need no descriptor for each (full, growth)
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    pub many_clients: u32,
    /// Only cases whose name holds this (repeatable)
    #[arg(long, value_name = "TEXT")]
    pub only: Vec<String>,
    #[command(flatten)]
    pub summary: SummaryArgs,
    /// Write the charts there as SVG (growth)
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// A broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    pub name: String,
    pub host: String,
    pub port: u16,
    pub pids: Vec<u32>,
    /// How many shards, if that is known.
    pub shards: Option<u32>,
    /// Version and settings, if somebody said.
    pub about: Option<String>,
}

/// Compares; says whether every promise was kept. But for the quick suite every broker is measured to the end, and what it breaks is a
/// result like any other.
///
/// # Errors
/// If the request makes no sense, or a run could not be made at all.
pub fn compare(args: &CompareArgs) -> Result<bool> {
    let targets = targets(args)?;
    let baseline = args.baseline.as_deref().unwrap_or(&targets[targets.len() - 1].name);
    let baseline = targets.iter().position(|target| target.name == baseline);
    let baseline =
        baseline.with_context(|| format!("no target has the baseline's name {:?}", args.baseline))?;
    let (rounds, secs) = args.suite.defaults();
    let (rounds, secs) = (args.rounds.unwrap_or(rounds), args.secs.unwrap_or(secs));
    ensure!((0.0..=1e6).contains(&secs), "--secs {secs}: seconds from 0 to 1000000");
    let scale = Scale { secs, idle_clients: args.idle_clients, many_clients: args.many_clients };
    let mut cases = args.suite.cases(scale);
    cases.retain(|case| args.only.is_empty() || args.only.iter().any(|part| case.name.contains(part)));
    ensure!(!cases.is_empty(), "no case has a name with {:?}", args.only);
    let machine = machine::facts();
    let mut reports: Vec<Vec<Vec<Value>>> = vec![vec![Vec::new(); targets.len()]; cases.len()];
    let mut floors = Vec::new();
    let mut runner = Runner { args, targets: &targets, least: vec![u64::MAX; targets.len()] };
    for number in 0..cases.len() {
        runner.case(&cases[number], rounds, &mut reports[number], &mut floors)?;
        let results = Results {
            suite: args.suite.name(),
            cases: &cases,
            targets: &targets,
            baseline,
            reports: &reports,
            floors: &floors,
            machine: &machine,
            needs_exact: args.suite.needs_exact(),
        };
        write(args, &results, number + 1 == cases.len())?;
    }
    let is_broken = reports.iter().flatten().flatten().any(|report| report["verdict"] == "broken");
    Ok(!is_broken || args.suite.needs_exact())
}

/// Writes what there is so far; at the end prints it too.
fn write(args: &CompareArgs, results: &Results<'_>, is_last: bool) -> Result<()> {
    let (text, report) = (results.markdown(), results.to_json());
    args.summary.save_table(&text)?;
    if let (Some(path), Some(charts)) = (&args.svg, chart::svg(results)) {
        write_file(path, &charts)?;
    }
    if is_last { args.summary.report.print(&report, |_| text) } else { args.summary.report.save(&report) }
}

fn targets(args: &CompareArgs) -> Result<Vec<Target>> {
    let mut targets: Vec<Target> = Vec::new();
    for text in &args.target {
        let (name, address) = text.split_once('=').unwrap_or((text, text));
        let (host, port) = address.rsplit_once(':').with_context(|| format!("`{text}`: NAME=HOST:PORT"))?;
        let port = port.parse().with_context(|| format!("`{text}`: `{port}` is no port"))?;
        ensure!(targets.iter().all(|other| other.name != name), "two targets are called {name}");
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        targets.push(Target {
            name: name.to_owned(),
            host,
            port,
            pids: Vec::new(),
            shards: None,
            about: None,
        });
    }
    let mut of = |option: &str, text: &str, set: &mut dyn FnMut(&mut Target, &str) -> Result<()>| {
        let (name, value) = text.split_once('=').with_context(|| format!("`{text}`: NAME=..."))?;
        let Some(target) = targets.iter_mut().find(|target| target.name == name) else {
            bail!("--{option} {text}: no target is called {name}");
        };
        set(target, value)
    };
    for text in &args.pid {
        of("pid", text, &mut |target, pid| {
            target.pids.push(pid.parse().with_context(|| format!("`{text}`: `{pid}` is no process"))?);
            Ok(())
        })?;
    }
    for text in &args.shards {
        of("shards", text, &mut |target, shards| {
            target.shards =
                Some(shards.parse().with_context(|| format!("`{text}`: `{shards}` is no number"))?);
            Ok(())
        })?;
    }
    for text in &args.about {
        of("about", text, &mut |target, about| {
            target.about = Some(about.to_owned());
            Ok(())
        })?;
    }
    Ok(targets)
}

/// Makes the runs.
struct Runner<'a> {
    args: &'a CompareArgs,
    targets: &'a [Target],
    /// The least resident memory that was seen of each broker, in bytes.
    least: Vec<u64>,
}

impl Runner<'_> {
    /// All rounds of one case, the targets in turn.
    fn case(
        &mut self,
        case: &Case,
        rounds: u32,
        reports: &mut [Vec<Value>],
        floors: &mut Vec<Value>,
    ) -> Result<()> {
        for round in 0..rounds {
            if case.with_floor {
                floors.push(self.run("echo --rounds 1 --quiet --json -", &[])?);
            }
            for index in turns(self.targets.len(), round) {
                let target = &self.targets[index];
                if round >= case.rounds_of(&target.name, rounds) {
                    continue;
                }
                self.wait_for_rest()?;
                let began = clock::now();
                let mut report = self.against(case, target)?;
                self.count_from_least(index, &mut report);
                let secs = (clock::now() - began) as f64 / clock::SECOND as f64;
                if !self.args.summary.report.quiet {
                    say(case, target, round, &report, secs)?;
                }
                reports[index].push(report);
            }
        }
        Ok(())
    }

    /// What one broker still does for the run before must not be the next one's burden.
    fn wait_for_rest(&self) -> Result<()> {
        let pids = self.targets.iter().flat_map(|target| &target.pids).copied().collect();
        let brokers = Processes::new(pids, true);
        let until = clock::now() + REST_MAX;
        let mut before = brokers.cpu();
        while !brokers.is_empty() {
            std::thread::park_timeout(REST_LOOK);
            let now = brokers.cpu();
            if now - before <= REST_LOOK.as_secs_f64() * REST_CPU_MAX {
                break;
            }
            before = now;
            if clock::now() > until {
                writeln!(std::io::stderr(), "brokers do not come to rest; the next run begins all the same")?;
                break;
            }
        }
        Ok(())
    }

    /// One run. One that gives no report is a broken one.
    fn against(&self, case: &Case, target: &Target) -> Result<Value> {
        let mut more =
            vec!["--host".to_owned(), target.host.clone(), "--port".to_owned(), target.port.to_string()];
        more.extend(["--quiet", "--json", "-", "--broker-tree"].map(str::to_owned));
        for pid in &target.pids {
            more.extend(["--broker-pid".to_owned(), pid.to_string()]);
        }
        more.extend(self.args.summary.words());
        match self.run(&case.args, &more) {
            Err(error) if self.args.suite.needs_exact() => {
                Ok(json!({"verdict": "broken", "broken": [format!("{error:#}")]}))
            }
            result => result.with_context(|| format!("{} against {}", case.name, target.name)),
        }
    }

    /// This program again, as a process of its own: its report.
    fn run(&self, args: &str, more: &[String]) -> Result<Value> {
        let mut command = Command::new(std::env::current_exe().context("where this program is")?);
        command.args(args.split_whitespace()).args(more);
        let output = command.stderr(Stdio::inherit()).output().context("this program cannot be run again")?;
        serde_json::from_slice(&output.stdout).context("no report")
    }

    /// Memory over the least that this broker ever held: what stays of a run is not taken for nothing in the next.
    fn count_from_least(&mut self, index: usize, report: &mut Value) {
        let Some(before) = report.pointer("/memory/before/broker_rss").and_then(Value::as_u64) else {
            return;
        };
        let least = &mut self.least[index];
        *least = before.min(*least);
        let peak = report.pointer("/memory/peak/broker_rss").and_then(Value::as_f64);
        let ready = report.pointer("/clients/ready").and_then(Value::as_f64);
        if let (Some(peak), Some(ready)) = (peak, ready.filter(|&ready| ready > 0.0)) {
            report["broker"]["rss_over_least_per_client"] = json!((peak - *least as f64) / ready);
        }
    }
}

/// All targets, beginning with another one each round.
fn turns(count: usize, round: u32) -> impl Iterator<Item = usize> {
    (0..count).map(move |turn| (turn + round as usize) % count)
}

fn say(case: &Case, target: &Target, round: u32, report: &Value, secs: f64) -> Result<()> {
    let delivered = report["measured"]["delivered_per_sec"].as_f64().unwrap_or(0.0);
    writeln!(
        std::io::stderr(),
        "{:<28} {:<12} round {}: {:>6}/s, {} ({secs:.1} s)",
        case.name,
        target.name,
        round + 1,
        count(delivered),
        report["verdict"].as_str().unwrap_or("?"),
    )?;
    Ok(())
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
    fn nobody_always_comes_first() {
        let rounds: Vec<Vec<usize>> = (0..4).map(|round| turns(3, round).collect()).collect();
        assert_eq!(rounds, [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
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
            &["--target", "a=h:1", "--shards", "a=x"],
            &["--target", "a=h:1", "--about", "b=1.0"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
