//! The process dies and starts again: shards, sockets and mailboxes are gone, what is on disk is not.

use crate::disk::{CrashPlan, Drive, Kind, Moment};
use crate::mailbox::Mailboxes;
use crate::oracle::OBSERVER;
use crate::world::{Event, World};
use quelea::base::ShardId;
use quelea::log::{Health, Recovery};
use quelea::shard::Shard;
use std::collections::BTreeMap;

/// One end of the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crash {
    pub(crate) at_ms: u64,
    pub(crate) step: u64,
    /// When listeners opened again.
    pub(crate) ready_ms: Option<u64>,
}

impl World {
    /// The process dies if it was to die at this moment. Gives whether it does.
    pub(crate) fn aim(&mut self, shard: usize, number: u64, moment: Moment) -> bool {
        if self.is_healing || !self.is_busy {
            return false;
        }
        let shards = self.shards.len();
        let Some(faults) = &mut self.swarm.disk else { return false };
        let is_it = |plan: &CrashPlan| match plan {
            CrashPlan::Operation { shard: of, number: at, moment: when } => {
                (usize::from(*of) % shards, *at, *when) == (shard, number, moment)
            }
            CrashPlan::At(_) | CrashPlan::Packet { .. } | CrashPlan::Ending { .. } => false,
        };
        let Some(found) = faults.crashes.iter().position(is_it) else { return false };
        faults.crashes.swap_remove(found);
        if moment == Moment::Told {
            let wait = self.disk_rng.below(4);
            self.after(wait, Event::Crash);
        } else {
            self.is_dying = true;
        }
        true
    }

    /// The same of packets that leave for a client.
    pub(crate) fn aim_at_packets(&mut self, client: usize, bytes: &[u8]) {
        if self.swarm.disk.is_none() || !self.may_aim() || !self.is_on_disk(client) {
            return;
        }
        Kind::all_of(bytes).into_iter().for_each(|kind| self.aim_at(kind));
    }

    /// The same of one packet.
    pub(crate) fn aim_at(&mut self, kind: Kind) {
        if self.swarm.disk.is_none() || !self.may_aim() {
            return;
        }
        let count = self.packets.entry(kind).or_default();
        *count += 1;
        let number = *count;
        if self.take_plan(&CrashPlan::Packet { kind, number }) {
            self.note(format_args!("dies with {kind:?} on its way"));
            (self.is_dying, self.is_told) = (true, true);
        }
    }

    /// The same of ends of connections.
    pub(crate) fn aim_at_ending(&mut self, client: usize) {
        if self.swarm.disk.is_none() || !self.may_aim() || !self.is_on_disk(client) {
            return;
        }
        self.endings += 1;
        let plans = self.swarm.disk.iter().flat_map(|faults| &faults.crashes);
        let found = plans.copied().find_map(|plan| match plan {
            CrashPlan::Ending { number, wait_ms } if number == self.endings => Some((plan, wait_ms)),
            _ => None,
        });
        if let Some((plan, wait_ms)) = found {
            self.take_plan(&plan);
            self.after(wait_ms, Event::Crash);
        }
    }

    fn may_aim(&self) -> bool {
        self.is_busy && !self.is_healing
    }

    fn is_on_disk(&self, client: usize) -> bool {
        client != OBSERVER && self.polite(client).is_some_and(|polite| polite.profile.expiry_secs > 0)
    }

    fn take_plan(&mut self, plan: &CrashPlan) -> bool {
        let Some(faults) = &mut self.swarm.disk else { return false };
        let found = faults.crashes.iter().position(|of| of == plan);
        found.map(|found| faults.crashes.swap_remove(found)).is_some()
    }

    /// Crashes that come by the clock, and disks that fail.
    pub(crate) fn plan_crashes(&mut self) {
        self.is_busy = true;
        let Some(faults) = self.swarm.disk.clone() else { return };
        for plan in &faults.crashes {
            if let CrashPlan::At(ms) = plan {
                self.after(*ms, Event::Crash);
            }
        }
        if faults.fills {
            self.after(2_000, Event::Space(true));
        }
        if faults.watermark {
            self.after(2_500, Event::Watermark(true));
        }
        self.plan_failure();
    }

    pub(crate) fn on_crash(&mut self) {
        if !self.is_healing {
            let cuts_power = self.swarm.disk.as_ref().is_some_and(|faults| faults.cuts_power);
            self.crash(cuts_power);
        }
    }

    /// Everything that is not on disk is gone.
    pub(crate) fn crash(&mut self, cuts_power: bool) {
        self.is_dying = false;
        self.note(format_args!("crash, power cut {cuts_power}"));
        self.crashes.push(Crash { at_ms: self.now_ms(), step: self.step, ready_ms: None });
        self.oracle.crashes += 1;
        self.crash_disks(cuts_power);
        self.rot_disks();
        self.forget_events(Event::is_of_process);
        self.packets.clear();
        self.endings = 0;
        if self.swarm.disk.as_ref().is_some_and(|faults| faults.reshards) && self.disk_rng.chance(500) {
            self.swarm.shards = self.disk_rng.short(1, 5);
        }
        let count = self.swarm.shards;
        let (options, key, now) = (&self.swarm.options, self.key, self.now);
        self.shards =
            (0..count).map(|id| Shard::new(options.clone(), ShardId(id), count, key, now)).collect();
        self.mailboxes = Mailboxes::new(self.shards.len());
        self.reset_turns();
        self.crash_network();
        self.is_told = false;
        self.is_serving = false;
        let most = self.swarm.disk.as_ref().map_or(0, |faults| faults.down_ms_max);
        let down = (*self.disk_rng.pick(&[0, 20, 300, 4_000])).min(most);
        let down = self.disk_rng.between(0, down);
        self.after(down, Event::Restart);
    }

    /// The process starts: logs are read, and filters are told to the other shards.
    pub(crate) fn restart(&mut self) {
        self.note(format_args!("restart"));
        if self.drives.len() != self.shards.len()
            && let Err(error) = self.rehome()
        {
            return self.fail(error);
        }
        for shard in 0..self.shards.len() {
            let recovery = self.recovery(shard);
            match recover(recovery, &mut self.drives[shard]) {
                Ok(recovered) => {
                    if let Err(error) = self.check_damage(shard, &recovered.report) {
                        return self.fail(error);
                    }
                    let now = self.now;
                    self.shards[shard].handle_recovered(now, recovered);
                    self.wake(shard);
                }
                Err(error) => return self.fail(format!("shard {shard}: {error}")),
            }
        }
    }

    /// Listeners open when all shards are ready.
    pub(crate) fn serve(&mut self) {
        let has_logs = self.shards.iter().all(|shard| shard.log().is_some());
        if self.is_serving || !has_logs || !self.shards.iter().all(Shard::is_ready) {
            return;
        }
        self.note(format_args!("ready"));
        self.is_serving = true;
        self.check_kept();
        let now = self.now;
        for shard in 0..self.shards.len() {
            self.shards[shard].handle_ready(now);
            self.wake(shard);
        }
        if let Some(last) = self.crashes.last_mut() {
            last.ready_ms = Some(now.mono.0);
        }
    }

    /// What clients were told of is there: their sessions, and what they subscribe to.
    fn check_kept(&mut self) {
        if self.may_fail_disk() {
            return;
        }
        let views: BTreeMap<String, u32> = self
            .shards
            .iter()
            .flat_map(Shard::session_views)
            .map(|view| (view.client_id, view.qos0_subscriptions + view.acked_subscriptions))
            .collect();
        for client in 0..self.clients.len() {
            let Some(polite) = self.polite(client).filter(|polite| polite.has_kept_session()) else {
                continue;
            };
            let mine = self.oracle.subscriptions.iter().filter(|subscription| {
                (subscription.client, subscription.incarnation) == (client, polite.incarnation)
            });
            let granted = mine.filter(|s| s.granted.is_some() && s.dropped.is_none()).count();
            let kept = views.get(&polite.profile.client_id).map(|kept| *kept as usize);
            if kept.is_none_or(|kept| kept < granted) {
                self.fail(format!(
                    "client {client} was told of {granted} subscriptions, and {kept:?} are kept"
                ));
            }
        }
    }

    /// Sound disks; who runs a broker whose log has failed starts it again.
    pub(crate) fn heal_disks(&mut self) {
        self.drives.iter_mut().for_each(Drive::heal);
        if let Some(faults) = &mut self.swarm.disk {
            faults.delay_ms_max = faults.delay_ms_max.min(2);
        }
        if self.shards.iter().any(|shard| shard.log_health() == Some(Health::Poisoned)) {
            self.crash(false);
        }
    }

    /// Whether the process has died between these times, both included.
    pub(crate) fn crashes_between(&self, from_ms: u64, to_ms: u64) -> usize {
        self.crashes.iter().filter(|crash| (from_ms..=to_ms).contains(&crash.at_ms)).count()
    }

    /// When clocks of sessions that began to run at `from_ms` may have begun to run anew for the last time.
    pub(crate) fn clock_ms(&self, from_ms: u64) -> u64 {
        let ready =
            self.crashes.iter().filter(|crash| crash.at_ms >= from_ms).filter_map(|crash| crash.ready_ms);
        ready.max().unwrap_or(from_ms)
    }
}

impl World {
    /// A restart while nothing is going on changes nothing that is on disk.
    pub(crate) fn restart_quietly(&mut self) -> Result<(), String> {
        if self.swarm.disk.is_none() || self.may_fail_disk() {
            return Ok(());
        }
        let before = self.kept();
        let cuts_power = self.swarm.disk.as_ref().is_some_and(|faults| faults.cuts_power);
        self.crash(cuts_power);
        self.wait("the shards are ready again", |world| world.is_serving)?;
        let after = self.kept();
        if before != after {
            return Err(format!("on disk was {before:?}, and is {after:?} after a quiet restart"));
        }
        self.wait("everything settles after a quiet restart", Self::is_settled)?;
        // Wills of those who were connected fire.
        self.run(20_000, |_| false)?;
        self.wait("everything stays settled after a quiet restart", Self::is_settled)?;
        self.judge()
    }

    /// Sessions that outlive their connection, with what they subscribe to and what waits for them; and what is retained.
    ///
    /// Not what waits: acknowledgements of it go to disk with what comes next.
    fn kept(&self) -> (BTreeMap<String, (u32, u32, u32)>, u64) {
        let views = self.shards.iter().flat_map(Shard::session_views);
        let kept = views.filter(|view| view.expiry_secs > 0).map(|view| {
            let (qos0, more) = (view.qos0_subscriptions, view.acked_subscriptions);
            (view.client_id, (view.expiry_secs, qos0, more))
        });
        (kept.collect(), self.shards.iter().map(Shard::retained_count).sum())
    }

    /// Everybody has gone and nothing is retained: then nothing is on disk, and a start finds nothing.
    pub(crate) fn check_logs_are_empty(&mut self) -> Result<(), String> {
        // Limits and a disk that refuses keep what is retained from being cleared.
        if self.swarm.disk.is_none() || self.swarm.ends_by_shutdown || self.may_keep_some() {
            return Ok(());
        }
        self.check_logs("at the end")?;
        self.crash(false);
        self.wait("the shards are ready for the last time", |world| world.is_serving)?;
        self.check_logs("after the last start")
    }

    fn may_keep_some(&self) -> bool {
        self.swarm.has_queue_limits() || self.drops_qos0() || self.swarm.disk_refuses()
    }

    fn check_logs(&self, when: &str) -> Result<(), String> {
        for (index, shard) in self.shards.iter().enumerate() {
            let log = shard.log().expect("there are disks");
            let left = (log.streams().count(), log.state_count(), log.message_count(), log.origins().count());
            if left != (0, 0, 0, 0) {
                return Err(format!(
                    "{when} the log of shard {index} has streams, states, messages, origins {left:?}"
                ));
            }
        }
        Ok(())
    }
}

pub(crate) fn recover(mut recovery: Recovery, drive: &mut Drive) -> Result<quelea::log::Recovered, String> {
    while let Some(operation) = recovery.poll_output() {
        recovery.handle_disk(drive.carry_out(&operation)).map_err(|error| error.to_string())?;
    }
    Ok(recovery.finish())
}
