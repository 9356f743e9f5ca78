//! Runs the binary and reads its report.

use serde_json::Value;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

/// What a run said.
#[derive(Debug)]
pub(crate) struct Run {
    /// Exit code.
    pub(crate) code: i32,
    /// The JSON report.
    pub(crate) report: Value,
}

/// Runs a scenario against `target`; the arguments are separated by spaces. It must end by itself.
pub(crate) fn run(target: SocketAddr, args: &str) -> Run {
    run_with(target, &args.split_whitespace().collect::<Vec<_>>())
}

/// The same with arguments that may hold spaces.
pub(crate) fn run_with(target: SocketAddr, args: &[&str]) -> Run {
    let output = Command::new("timeout")
        .arg(DEADLINE.as_secs().to_string())
        .arg(env!("CARGO_BIN_EXE_quelea-loadgen"))
        .args(args)
        .args([
            "--quiet",
            "--json=-",
            "--host",
            &target.ip().to_string(),
            "--port",
            &target.port().to_string(),
        ])
        .output()
        .expect("the binary under test starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code().expect("it ends by itself");
    assert_ne!(code, 124, "{args:?}: not over within {DEADLINE:?}: {stderr}");
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{args:?}: exit code {code}, no report ({error}): {stderr}"));
    Run { code, report }
}

/// However loaded the machine is.
const DEADLINE: Duration = Duration::from_secs(60);

impl Run {
    /// A count of messages.
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.report["messages"][name].as_u64().unwrap_or_else(|| panic!("no count {name}: {}", self.report))
    }

    /// `exact`, `kept` or `broken`.
    pub(crate) fn verdict(&self) -> &str {
        self.report["verdict"].as_str().expect("a report has a verdict")
    }

    /// Clients that lost their connection, of whatever cause: one broken promise `N clients lost their connection (cause)` a cause.
    pub(crate) fn lost_connections(&self) -> u64 {
        let broken = self.report["broken"].as_array().expect("a report lists what was broken");
        let causes =
            broken.iter().filter_map(|line| line.as_str()?.split_once(" clients lost their connection ("));
        causes.map(|(count, _)| count.parse::<u64>().expect("a count of clients")).sum()
    }

    /// The broken promises, joined.
    pub(crate) fn broken(&self) -> String {
        self.report["broken"].to_string()
    }
}
