//! What a run ran on: without it no absolute number means anything.

use serde_json::{Value, json};
use std::fs::read_to_string;

/// What is known about this machine, from `/proc`. What cannot be read is empty or 0.
pub fn facts() -> Value {
    let cpuinfo = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpuinfo.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
    let meminfo = read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let memory = memory.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    let line = |path: &str| read_to_string(path).unwrap_or_default().trim().to_owned();
    let descriptors = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    let ports = line("/proc/sys/net/ipv4/ip_local_port_range");
    json!({
        "cpu": model.map_or("", |(_, model)| model.trim()),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory_bytes": memory.unwrap_or(0) * 1024,
        "kernel": line("/proc/sys/kernel/osrelease"),
        "load_average_before": line("/proc/loadavg"),
        "descriptors": descriptors.map_or(0, |(_, hard)| hard),
        "local_ports": ports.split_whitespace().collect::<Vec<_>>().join(" to "),
        "generator": concat!("quelea-loadgen ", env!("CARGO_PKG_VERSION")),
    })
}

/// In one sentence.
pub fn sentence(facts: &Value) -> String {
    let text = |key: &str| facts[key].as_str().unwrap_or("?").to_owned();
    let gib = facts["memory_bytes"].as_u64().unwrap_or(0) as f64 / f64::from(1 << 30);
    format!(
        "{} cores ({}), {gib:.1} GiB, Linux {}, `ulimit -n {}`, load average before {}",
        facts["cores"],
        text("cpu"),
        text("kernel"),
        facts["descriptors"],
        text("load_average_before"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known() {
        let facts = facts();
        assert!(
            facts["cores"].as_u64() > Some(0) && facts["memory_bytes"].as_u64() > Some(1 << 20),
            "{facts}"
        );
        assert!(facts["kernel"].as_str().is_some_and(|kernel| kernel.contains('.')), "{facts}");
        assert!(sentence(&facts).contains(" cores ("));
    }
}
