//! What the machine has: asks the operating system once, at start, so that the configuration can stay pure.
//!
//! Containers count: of the machine's memory and the limits of the process's control groups the smallest is taken.
//! Cost: a handful of small reads under `/proc` and `/sys`.

use crate::config::Machine;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// The cores and the memory this process may use.
#[must_use]
pub fn probe() -> Machine {
    let core_count = std::thread::available_parallelism().map_or(1, usize::from);
    let total = read_to_string("/proc/meminfo").ok().and_then(|text| total_bytes(&text));
    let limits = read_to_string("/proc/self/cgroup").map(|text| limit_files(&text)).unwrap_or_default();
    let limits = limits.iter().filter_map(|path| limit_bytes(&read_to_string(path).ok()?));
    Machine { core_count, memory_bytes: limits.chain(total).min() }
}

/// `MemTotal` of `/proc/meminfo`.
fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The files that can hold a limit of a process whose `/proc/self/cgroup` this is: of its group and of each above it.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // In a container the group's path is often not visible, but the root then is the container's own group.
        for group in Path::new(group.trim_start_matches('/')).ancestors() {
            files.push(Path::new(root).join(group).join(file));
        }
    }
    files
}

/// The limit in such a file; `max` is none.
fn limit_bytes(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_total() {
        assert_eq!(total_bytes("MemTotal:       24689764 kB\nMemFree: 1 kB\n"), Some(24_689_764 * 1024));
        for text in
            ["", "MemFree: 1 kB", "MemTotal: x kB", "MemTotal: 1 MB", "MemTotal: 99999999999999999999 kB"]
        {
            assert_eq!(total_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn group_limits() {
        let files =
            |text: &str| limit_files(text).iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        assert_eq!(
            files("0::/a/b\n"),
            ["/sys/fs/cgroup/a/b/memory.max", "/sys/fs/cgroup/a/memory.max", "/sys/fs/cgroup/memory.max"]
        );
        assert_eq!(files("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
        assert_eq!(
            files("5:cpu,memory:/\n4:pids:/x\nnonsense\n"),
            ["/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        );
        assert_eq!(limit_bytes("1073741824\n"), Some(1 << 30));
        assert_eq!(limit_bytes("max\n"), None);
    }

    #[test]
    fn this_machine_has_cores_and_memory() {
        let machine = probe();
        assert!(machine.core_count >= 1);
        assert!(machine.memory_bytes.is_some_and(|bytes| bytes > 1 << 20), "{machine:?}");
    }
}
