//! The kill -9 loop: the real binary under load, killed at random moments and started again, with the load generator's `durable` as judge.
//!
//! `cargo test --release --test durable -- --cycles 200` kills so often, in rounds of ten, each with another mix of QoS, version, windows, fan-out
//! and sessions that come and go; `--seed N` begins elsewhere. Without arguments a few cycles of each kind, in seconds. One broker directory
//! lives through all rounds, so what one leaves the next one's recovery reads.
//!
//! Not a test of power cuts: what was written and not synced survives the death of a process. The simulator has the disk for that.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command that reports")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::Duration;

/// Kills in one round.
const ROUND: u32 = 10;

fn main() -> ExitCode {
    let mut cycles = None;
    let mut seed = 1;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|text| text.parse().ok()).expect("a number follows");
        match arg.as_str() {
            "--cycles" => cycles = Some(number()),
            "--seed" => seed = number(),
            // What cargo and its friends pass to every test.
            "--list" => return ExitCode::SUCCESS,
            _ => {}
        }
    }
    let generator = generator();
    let broker = Broker::start();
    let rounds: Vec<(u32, Mix)> = match cycles {
        None => vec![(2, Mix::new(0, 0.3)), (2, Mix::new(1, 0.3))],
        Some(cycles) => {
            let full = std::iter::repeat_n(ROUND, (cycles / ROUND) as usize);
            let rest = Some(cycles % ROUND).filter(|rest| *rest > 0);
            full.chain(rest).zip(seed..).map(|(cycles, seed)| (cycles, Mix::new(seed, 1.0))).collect()
        }
    };
    let mut killed = 0;
    for (cycles, mix) in rounds {
        let args = mix.args(cycles);
        let output = broker.judge(&generator, &args);
        let report = String::from_utf8_lossy(&output.stdout);
        killed += cycles;
        println!("{killed:>4} killed: {}", args.join(" "));
        for line in report.lines().filter(|line| {
            ["kills", "messages", "verdict", "  broken"].iter().any(|wanted| line.starts_with(wanted))
        }) {
            println!("      {line}");
        }
        if !output.status.success() {
            eprintln!("{report}{}", String::from_utf8_lossy(&output.stderr));
            eprintln!(
                "a promise was broken; the broker's files and its log are in {}",
                broker.keep().display()
            );
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// What one round is like.
struct Mix {
    seed: u32,
    secs: f64,
}

impl Mix {
    fn new(seed: u32, secs: f64) -> Self {
        Self { seed, secs }
    }

    /// Arguments of the load generator. Seeds that follow each other differ in everything.
    fn args(&self, cycles: u32) -> Vec<String> {
        let pick = |salt: u32, choices: &[&str]| {
            let mixed = u64::from(self.seed * 16 + salt).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
            choices[(mixed % choices.len() as u64) as usize].to_owned()
        };
        let qos = self.seed % 2 + 1;
        let window = pick(1, &["1", "8", "64", "200"]);
        // With a wide window what is queued is more than can be drained in seconds.
        let fan = pick(2, if matches!(&*window, "1" | "8") { &["1", "3", "20"] } else { &["1", "1", "3"] });
        let size = pick(3, &["64", "64", "1024", "9000"]);
        let churn = pick(4, &["0", "20", "100"]);
        let protocol = pick(5, &["3.1.1", "5.0"]);
        let text = format!(
            "durable --sessions 20 --online 10 --publishers 5 --qos {qos} --window {window} --fan {fan} --size {size} \
             --churn {churn} --protocol {protocol} --retained 10 --changing 6 --warmup 0 --drain 20 --secs {} --cycles {cycles}",
            self.secs
        );
        text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }
}

/// The load generator's binary, of the same profile as the broker's and up to date.
fn generator() -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_quelea")).parent().expect("a binary is in a folder");
    let mut build = Command::new(env!("CARGO"));
    // The profile that this test was built with: what it has built already is not built again.
    build.args(["build", "--quiet", "--package", "quelea-loadgen"]);
    build.args(["--profile", if folder.ends_with("release") { "release" } else { "test" }]);
    assert!(build.status().expect("cargo is there").success(), "the load generator does not build");
    folder.join("quelea-loadgen")
}

/// The broker under test: killed and started by commands, the first time by this process.
struct Broker {
    first: Child,
    folder: PathBuf,
    port: u16,
}

impl Broker {
    fn start() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("durable-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder under target/ can be made");
        let free = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
        let port = free.local_addr().expect("a listener has an address").port();
        drop(free);
        let start = start_command(&folder, port);
        let first =
            Command::new("sh").args(["-c", &start]).stdin(Stdio::null()).spawn().expect("sh is there");
        let broker = Self { first, folder, port };
        while !broker.log().contains("ready ") {
            assert!(Path::new(&format!("/proc/{}", broker.first.id())).exists(), "{}", broker.log());
            std::thread::park_timeout(Duration::from_millis(5));
        }
        broker
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// One run of the load generator against it.
    fn judge(&self, generator: &Path, args: &[String]) -> Output {
        let pid = self.folder.join("pid");
        // A dead process may stay a zombie until its parent looks; its lock is gone then.
        let kill = format!(
            "P=$(cat {}); kill -9 $P; while grep -qs 'State:.[^Z]' /proc/$P/status; do sleep 0.005; done",
            pid.display()
        );
        Command::new(generator)
            .args(args)
            .args(["--port", &self.port.to_string(), "--kill", &kill])
            .args(["--start", &start_command(&self.folder, self.port)])
            .stdin(Stdio::null())
            .output()
            .expect("the load generator starts")
    }

    /// Leaves the files there; gives the folder.
    fn keep(&self) -> PathBuf {
        let kept = self.folder.with_extension("broken");
        let _ = std::fs::remove_dir_all(&kept);
        self.end();
        std::fs::rename(&self.folder, &kept).expect("a folder can be renamed");
        kept
    }

    fn end(&self) {
        let pid = std::fs::read_to_string(self.folder.join("pid")).unwrap_or_default();
        if let Ok(pid) = pid.trim().parse() {
            use nix::sys::signal::{Signal, kill};
            // It fails only if the process has ended, which is what it is for.
            let _ = kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.end();
        let _ = self.first.kill();
        let _ = self.first.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn start_command(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    format!(
        "echo $$ > {folder}/pid; exec {} --set mqtt.listeners.tcp.default=127.0.0.1:{port} --set quelea.shards=2 \
         --set quelea.data_dir={folder}/data 2>> {folder}/log",
        env!("CARGO_BIN_EXE_quelea")
    )
}
