//! What the system says of the process. Cost: a handful of small reads under `/proc`, when somebody asks.

use crate::admin::overview::Process;
use crate::runtime::control::Control;
use crate::runtime::{memory, space};
use nix::sys::resource::{Resource, getrlimit};
use std::path::PathBuf;
use tokio::time::Instant;

/// What does not change, and when it began.
#[derive(Debug)]
pub(in crate::runtime) struct ProcessFacts {
    node: String,
    memory_max: Option<u64>,
    data_dir: PathBuf,
    free_bytes_min: u64,
    since: Instant,
}

impl ProcessFacts {
    /// From now on.
    pub(in crate::runtime) fn new(memory_max: Option<u64>, data_dir: PathBuf, free_bytes_min: u64) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = if host.trim().is_empty() { "localhost" } else { host.trim() };
        Self { node: format!("quelea@{host}"), memory_max, data_dir, free_bytes_min, since: Instant::now() }
    }

    /// The process as it is now.
    pub(super) fn look(&self, control: &Control) -> Process {
        Process {
            node: self.node.clone(),
            uptime_ms: u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            resident_bytes: memory::resident_bytes(),
            memory_max_bytes: self.memory_max,
            is_short_of_memory: control.is_short_of_memory(),
            free_bytes: space::free_bytes(&self.data_dir),
            free_bytes_min: self.free_bytes_min,
            is_short_of_space: control.is_short_of_space(),
            is_leaving: control.is_leaving(),
            descriptors: descriptors(),
        }
    }
}

fn descriptors() -> Option<(u64, u64)> {
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    Some((open, soft))
}
