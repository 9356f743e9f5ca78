//! The log's disk, from the driver's side.

use super::Driver;
use crate::admin::overview::LogState;
use crate::log::Recovered;
use crate::runtime::clock;
use crate::runtime::disk::LogDisk;

impl Driver {
    /// Hands the shard its log, before anything else.
    pub(in crate::runtime) fn take_log(&mut self, recovered: Recovered, disk: LogDisk) {
        let report = &recovered.report;
        self.damage_count = (report.damage.len() + report.orphan_count) as u64;
        self.disk = Some(disk);
        self.now = clock::now();
        self.shard.handle_recovered(self.now, recovered);
    }

    /// Begins what the log asks for and hands in what is answered; says whether there was anything.
    pub(super) fn work_disk(&mut self) -> bool {
        let Some(disk) = &mut self.disk else { return false };
        let mut moved = false;
        loop {
            while let Some(asked) = self.shard.poll_disk() {
                disk.start(self.rings.at(0), asked);
                moved = true;
            }
            let Some(reply) = disk.poll_reply() else { return moved };
            self.shard.handle_disk(self.now, reply);
            moved = true;
        }
    }

    /// What there is to show of the log.
    pub(super) fn log_state(&self) -> Option<LogState> {
        let (log, disk) = (self.shard.log()?, self.disk.as_ref()?);
        let (live_bytes, used_bytes) = log.disk_bytes();
        Some(LogState {
            disk: disk.counters().clone(),
            damage_count: self.damage_count,
            live_bytes,
            used_bytes,
            backlog_bytes: log.backlog() as u64,
            memory_bytes: log.memory() as u64,
            messages: log.message_count() as u64,
            states: log.state_count() as u64,
        })
    }
}
