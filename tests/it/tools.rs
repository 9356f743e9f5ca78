//! The tools of others: found, or installed under `target/` through their own package managers, once a run.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// A tool's path, or why it is not there.
pub(crate) type Found = Result<PathBuf, String>;

/// The Python of an environment that has paho-mqtt.
pub(crate) static PAHO_PYTHON: LazyLock<Found> = LazyLock::new(|| {
    const PACKAGE: &str = "paho-mqtt==2.1.0";
    let folder = folder("python");
    let python = folder.join("bin/python");
    if !python.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    }
    let has_package = run(Command::new(&python).args(["-c", "import paho.mqtt.client"])).is_ok();
    if !has_package {
        run(Command::new(&python).args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            PACKAGE,
        ]))?;
    }
    Ok(python)
});

/// The Python of an environment that has the parser of Prometheus's own client library.
pub(crate) static PROMETHEUS_PYTHON: LazyLock<Found> = LazyLock::new(|| {
    const PACKAGE: &str = "prometheus-client==0.23.1";
    let folder = folder("python-prometheus");
    let python = folder.join("bin/python");
    if !python.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    }
    if run(Command::new(&python).args(["-c", "import prometheus_client.parser"])).is_err() {
        let options = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE];
        run(Command::new(&python).args(options))?;
    }
    Ok(python)
});

/// A folder whose `node_modules` have mqtt.js.
pub(crate) static MQTT_JS_FOLDER: LazyLock<Found> = LazyLock::new(|| {
    const PACKAGE: &str = "mqtt@5.14.1";
    let folder = folder("node");
    run(Command::new("node").arg("--version"))?;
    if !folder.join("node_modules/mqtt/package.json").exists() {
        let options = ["install", "--no-audit", "--no-fund", "--no-save", "--loglevel=error"];
        run(Command::new("npm").args(options).arg("--prefix").arg(&folder).arg(PACKAGE))?;
    }
    Ok(folder.join("node_modules"))
});

/// mosquitto_pub; mosquitto_sub comes with it.
pub(crate) static MOSQUITTO: LazyLock<Found> = LazyLock::new(|| {
    for name in ["mosquitto_pub", "mosquitto_sub"] {
        // Both end their help with status 1.
        Command::new(name).arg("--help").output().map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(PathBuf::from("mosquitto_pub"))
});

/// The tool, or `None` after saying that the test is skipped.
///
/// # Panics
///
/// With `CI=true`, where every tool has to be there.
pub(crate) fn need(tool: &'static LazyLock<Found>) -> Option<&'static Path> {
    match &**tool {
        Ok(path) => Some(path),
        Err(error) => {
            let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!is_ci, "a tool is missing: {error}");
            // Not by `println`, which the test harness hides when a test passes.
            writeln!(std::io::stderr(), "skipped: {error}").expect("standard error can be written");
            None
        }
    }
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("tools").join(name)
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = format!("{command:?}");
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
}
