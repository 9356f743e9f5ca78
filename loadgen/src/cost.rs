//! What the broker costs: CPU and memory of its processes, and what the kernel holds for the sockets of both ends.
//!
//! Read from `/proc`. CPU time comes in hundredths of a second, so a window of some seconds is exact to a percent or so.

use serde_json::{Value, json};
use std::fs::read_to_string;

/// Memory at one moment, in bytes. What cannot be read is 0.
#[derive(Clone, Copy, Default, Debug)]
pub struct Memory {
    /// Of the broker's processes.
    pub rss: u64,
    /// The same with shared pages counted in parts.
    pub pss: u64,
    /// TCP buffers of the whole machine.
    pub tcp: u64,
    /// Slab of the whole machine: sockets, their files, timers.
    pub slab: u64,
    /// Of this process.
    pub own_rss: u64,
    /// Of this process, what is no file's.
    pub own_anonymous: u64,
}

/// The processes of the broker.
#[derive(Clone, Debug)]
pub struct Processes {
    roots: Vec<u32>,
    tree: bool,
}

impl Processes {
    /// `roots`, and with `tree` all their descendants.
    pub fn new(roots: Vec<u32>, tree: bool) -> Self {
        Self { roots, tree }
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// The first that does not exist.
    pub fn missing(&self) -> Option<u32> {
        self.roots.iter().copied().find(|pid| stat(*pid).is_none())
    }

    fn all(&self) -> Vec<u32> {
        let mut pids = self.roots.clone();
        if !self.tree {
            return pids;
        }
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let processes: Vec<(u32, u32)> = entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, stat(pid)?.parent)))
            .collect();
        let mut next = 0;
        while let Some(&parent) = pids.get(next) {
            next += 1;
            let children = processes.iter().filter(|&&(_, of)| of == parent).map(|&(pid, _)| pid);
            let new: Vec<u32> = children.filter(|pid| !pids.contains(pid)).collect();
            pids.extend(new);
        }
        pids
    }

    /// CPU seconds of all, since each began.
    pub fn cpu(&self) -> f64 {
        self.all().into_iter().filter_map(stat).map(|stat| stat.ticks as f64 / 100.0).sum()
    }

    /// Bytes all of them have caused to be written to disks, as far as that can be read.
    pub fn written(&self) -> u64 {
        let text = |pid| read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        self.all().into_iter().map(|pid| parse_field(&text(pid), "write_bytes:") / 1024).sum()
    }

    /// Memory now.
    pub fn memory(&self) -> Memory {
        let mut memory = Memory { tcp: tcp_buffers(), slab: meminfo("Slab:"), ..Memory::default() };
        for pid in self.all() {
            memory.rss += field(&format!("/proc/{pid}/status"), "VmRSS:");
            memory.pss += field(&format!("/proc/{pid}/smaps_rollup"), "Pss:");
        }
        memory.own_rss = field("/proc/self/status", "VmRSS:");
        memory.own_anonymous = field("/proc/self/status", "RssAnon:");
        memory
    }
}

impl Memory {
    /// For the report, in bytes.
    pub fn to_json(self, with_broker: bool) -> Value {
        let mut value = json!({
            "kernel_tcp_buffers": self.tcp,
            "kernel_slab": self.slab,
            "generator_rss": self.own_rss,
            "generator_anonymous": self.own_anonymous,
        });
        if with_broker {
            value["broker_rss"] = self.rss.into();
            value["broker_pss"] = self.pss.into();
        }
        value
    }
}

struct Stat {
    parent: u32,
    ticks: u64,
}

/// What `/proc/PID/stat` says; times are in ticks, of which Linux shows 100 a second on every machine.
fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name stands in parentheses and may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat { parent: number(1)? as u32, ticks: number(11)? + number(12)? })
}

/// A field in KiB, as bytes.
fn field(path: &str, name: &str) -> u64 {
    parse_field(&read_to_string(path).unwrap_or_default(), name)
}

fn parse_field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn meminfo(name: &str) -> u64 {
    field("/proc/meminfo", name)
}

/// Pages of TCP buffers, as bytes.
fn tcp_buffers() -> u64 {
    parse_sockstat(&read_to_string("/proc/net/sockstat").unwrap_or_default()) * 4096
}

fn parse_sockstat(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("TCP:")).unwrap_or_default();
    line.split_whitespace()
        .skip_while(|word| *word != "mem")
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_proc() {
        let stat =
            parse_stat("12 (a (b) c) S 7 12 12 0 -1 4194304 1 2 3 4 150 50 0 0 20 0 1 0 99 1 1").unwrap();
        assert_eq!((stat.parent, stat.ticks), (7, 200));
        assert!(parse_stat("12 (a) S").is_none());
        assert_eq!(parse_field("VmSize:\t 5 kB\nVmRSS:\t  12 kB\n", "VmRSS:"), 12 * 1024);
        assert_eq!(parse_field("", "VmRSS:"), 0);
        assert_eq!(
            parse_sockstat("sockets: used 9\nTCP: inuse 5 orphan 0 tw 1 alloc 9 mem 3\nUDP: inuse 1 mem 7\n"),
            3
        );
    }

    #[test]
    fn this_process_and_its_children() {
        let own = Processes::new(vec![std::process::id()], false);
        assert!(own.missing().is_none());
        assert!(own.memory().rss > 1 << 20);
        assert!(own.memory().pss > 0 && own.memory().slab > 0);
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let tree = Processes::new(vec![std::process::id()], true);
        assert!(tree.all().contains(&child.id()));
        assert!(!own.all().contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(Processes::new(vec![u32::MAX], false).missing(), Some(u32::MAX));
    }
}
