//! What a shard keeps on disk: its log, and who waits for it.
//!
//! | file | what |
//! |---|---|
//! | `format` | what values, heads, notes and tags in the log mean |
//! | `session` | sessions, subscriptions and wills to records |
//! | `queue` | messages to records, and back when a session has room |
//! | `publish` | QoS 2 packet identifiers that came in, and their origins |
//! | `retained` | retained messages to records |
//! | `gather` | answers of several to one who waits |
//! | `ending` | a session's end, when others are to get what it held |
//! | `waiting` | messages for which there is no segment yet |
//! | `recover` | a log back to sessions |
//! | `rehome` | logs of other shards to these |
//!
//! An acknowledgement that says "kept" waits here for the commit it depends on: [`Shard::after_commit`]. What waits is in the order
//! of the commits. After a failed write or sync nothing is committed any more: everybody who waits is told so, once.

mod ending;
pub mod format;
mod gather;
mod publish;
mod queue;
mod recover;
mod rehome;
mod retained;
mod session;
mod waiting;

pub(super) use gather::{Gather, GatherRef, Then};
pub(super) use publish::Completing;
pub(super) use queue::{Appended, Delivery, Held, KEPT};
pub(super) use recover::JOIN_TOKEN as RECOVERY_TOKEN;
pub use rehome::Rehoming;
pub(super) use session::DurableSession;

use super::Shard;
use super::connection::Phase;
use super::peer::{CommitRef, PeerMessage};
use crate::base::{ConnectionId, Mono, Now, PacketId, ReasonCode, SessionId, ShardId};
use crate::log::{self, Disk, DiskReply, Event, FetchId, Health, Log, Origin, Refused, Sequence, SyncMode};
use crate::session::{Outcome, Violation};
use ending::Endings;
use hashbrown::HashMap;
use recover::Recovering;
use std::collections::VecDeque;

/// How often what had no space is tried again, and what has expired is looked for.
const UPKEEP_EVERY_MS: u64 = 1_000;
/// Messages looked at for expiry in one go.
const EXPIRY_BUDGET: usize = 10_000;

/// What a failed log has to say.
const FAILED: Outcome = Outcome {
    matched: true,
    taken: false,
    refused: false,
    not_retained: false,
    kept: false,
    refused_durably: true,
    failed: true,
    unkept: true,
    forgotten: false,
};

/// What goes on at a commit.
#[derive(Debug)]
pub(super) enum Wait {
    /// A publish is kept: its shard hears so.
    Report(ShardId, CommitRef, Outcome),
    /// A part of something larger is done.
    Gathered(GatherRef, Outcome),
    /// A QoS 2 packet identifier is kept.
    Received(SessionId, u64),
    /// One of the things a SUBSCRIBE waits for.
    Subscribe((u32, u32)),
    /// CONNACK may leave, and what is behind it.
    Connack(ConnectionId),
    /// A packet may leave.
    Send(ConnectionId, Box<[u8]>),
    /// PUBREL may leave.
    Release(ConnectionId, PacketId),
    /// One of the things a PUBCOMP waits for.
    Complete((u32, u32)),
    /// A publisher's session is over: what it has not released is nobody's any more.
    ForgetPublisher(Box<[Origin]>),
    /// An origin is forgotten: the publisher's shard hears so.
    Forgotten(ShardId, (u32, u32)),
    /// A session's messages may be delivered.
    Pump(SessionId),
}

/// A shard's log and what goes with it.
#[derive(Debug)]
pub(super) struct Durable {
    pub(super) log: Log,
    sync: SyncMode,
    waits: VecDeque<(Sequence, Wait)>,
    /// The number after the last message of each commit that is not through.
    numbers: VecDeque<(Sequence, u64)>,
    /// Messages with smaller numbers are committed.
    committed_below: u64,
    fetches: HashMap<FetchId, SessionId>,
    endings: Endings,
    /// QoS 2 packet identifiers for which there was no space.
    unrecorded: Vec<(SessionId, u64, PacketId)>,
    recovering: Option<Recovering>,
    /// Some message in the log expires.
    has_expiring: bool,
    /// Everybody was told that the log is poisoned.
    is_failed: bool,
    upkept_at: Mono,
    synced_at: Mono,
    synced: Sequence,
    /// Records put together here.
    value: Vec<u8>,
    more: Vec<u32>,
    holders: Vec<log::Holder>,
}

impl Shard {
    /// The next operation for the disk. To be polled until `None` after every turn, before the other polls: what it finds
    /// committed may add to them.
    pub fn poll_disk(&mut self) -> Option<Disk> {
        self.durable.as_ref()?;
        self.work_events();
        let output = self.durable.as_mut()?.log.poll_output();
        if output.is_none() {
            self.work_commits();
        }
        output
    }

    /// The disk answered.
    pub fn handle_disk(&mut self, now: Now, reply: DiskReply) {
        self.now = now;
        let Some(durable) = &mut self.durable else { return };
        durable.log.handle_disk(reply);
        self.work_commits();
        self.work_events();
        self.work_waiting();
        if !self.paused.is_empty() && !self.is_disk_behind() {
            self.resume_publishers();
        }
    }

    /// The disk has less space left than `disk_free_limit.absolute`, or enough again: below it only what shrinks the log is taken.
    pub fn handle_disk_space(&mut self, now: Now, is_over_watermark: bool) {
        self.now = now;
        if let Some(durable) = &mut self.durable {
            durable.log.set_over_watermark(is_over_watermark);
            self.work_waiting();
            self.record_unrecorded();
        }
    }

    /// How the log is; `None` without one.
    #[must_use]
    pub fn log_health(&self) -> Option<Health> {
        self.durable.as_ref().map(|durable| durable.log.health())
    }

    /// The log, to look at.
    #[must_use]
    pub fn log(&self) -> Option<&Log> {
        self.durable.as_ref().map(|durable| &durable.log)
    }

    /// Whether everything is on disk that should be, or as much as there is space for: then a shard that has left may end. What has
    /// no space was acknowledged to nobody.
    #[must_use]
    pub fn is_disk_idle(&self) -> bool {
        self.durable
            .as_ref()
            .is_none_or(|durable| durable.is_failed || durable.log.is_at_rest() && self.waiting.is_empty())
    }

    /// Something goes on when this commit is through; at once if it is.
    pub(super) fn after_commit(&mut self, sequence: Sequence, wait: Wait) {
        let Some(durable) = &mut self.durable else { return };
        if durable.is_failed {
            self.fail_wait(wait);
        } else if sequence > durable.log.committed() {
            durable.waits.push_back((sequence, wait));
        } else {
            self.go_on_after_commit(wait);
        }
    }

    /// The last commit that is through.
    pub(super) fn last_committed(&self) -> Sequence {
        self.durable.as_ref().map_or_else(Sequence::default, |durable| durable.log.committed())
    }

    /// A commit that is still to be waited for.
    pub(super) fn uncommitted(&self, sequence: Option<Sequence>) -> Option<Sequence> {
        let committed = self.durable.as_ref().map_or(Sequence(u64::MAX), |durable| durable.log.committed());
        sequence.filter(|sequence| *sequence > committed)
    }

    /// The last commit so far: what waits for it waits for everything appended up to now.
    pub(super) fn last_commit(&self) -> Sequence {
        self.durable.as_ref().map_or_else(Sequence::default, |durable| durable.log.last())
    }

    /// Whether so much waits for the disk that publishers are to be paused: not for one that is full or has failed, which refuses.
    pub(super) fn is_disk_behind(&self) -> bool {
        let max = self.options.budgets.disk_backlog_bytes_max;
        self.durable.as_ref().is_some_and(|durable| {
            durable.log.backlog() + self.waiting_bytes > max && durable.log.health() == Health::Good
        })
    }

    /// Everybody goes on whose commit is through.
    fn work_commits(&mut self) {
        let Some(durable) = &mut self.durable else { return };
        let committed = durable.log.committed();
        while let Some((_, number)) = durable.numbers.pop_front_if(|(sequence, _)| *sequence <= committed) {
            durable.committed_below = number;
        }
        durable.endings.committed(committed);
        if durable.log.health() == Health::Poisoned && !durable.is_failed {
            durable.is_failed = true;
            return self.fail_waits();
        }
        while let Some(durable) = &mut self.durable
            && let Some((_, wait)) = durable.waits.pop_front_if(|(sequence, _)| *sequence <= committed)
        {
            self.go_on_after_commit(wait);
        }
    }

    fn go_on_after_commit(&mut self, wait: Wait) {
        match wait {
            Wait::Report(from, commit, outcome) => self.report(from, commit, outcome),
            Wait::Gathered(gather, outcome) => self.gathered(gather, outcome),
            Wait::Received(session, sequence) => self.settle_ack(session, sequence, Outcome::default()),
            Wait::Subscribe(token) => self.subscribe_step_done(token),
            Wait::Connack(connection) => self.links.let_go(connection),
            Wait::Send(connection, bytes) => {
                if self.links.established(connection).is_some() {
                    self.links.out(connection.slot).bytes_mut().extend_from_slice(&bytes);
                }
            }
            Wait::Release(connection, packet_id) => self.send_release(connection, packet_id),
            Wait::Complete(token) => self.complete_step_done(token),
            Wait::ForgetPublisher(origins) => self.forget_publisher(&origins),
            Wait::Forgotten(from, token) => self.mesh.to(from).push(PeerMessage::Forgotten { token }),
            Wait::Pump(session) => {
                if self.sessions.get_mut(session).is_some() {
                    self.pump(session.slot);
                }
            }
        }
    }

    /// The log is poisoned: who waits for it is told that nothing is kept. What is never going to leave is let go: its
    /// connection is closed.
    fn fail_waits(&mut self) {
        tracing::error!(
            "the log has failed: nothing is acknowledged as kept any more; restart on a sound disk"
        );
        let Some(durable) = &mut self.durable else { return };
        let waits = std::mem::take(&mut durable.waits);
        let unrecorded = std::mem::take(&mut durable.unrecorded);
        for (_, wait) in waits {
            self.fail_wait(wait);
        }
        for (session, sequence, _) in unrecorded {
            self.settle_ack(session, sequence, FAILED);
        }
    }

    /// There is no space for this commit and what follows: who can be told so is. What they wait for is written all the same when
    /// there is space. What shrinks the log and what is never refused goes on waiting.
    fn refuse_waits(&mut self, from: Sequence) {
        let Some(durable) = &mut self.durable else { return };
        let is_refused = |(sequence, wait): &(Sequence, Wait)| {
            let can_be_told = matches!(
                wait,
                Wait::Report(..)
                    | Wait::Gathered(..)
                    | Wait::Subscribe(_)
                    | Wait::Connack(_)
                    | Wait::Send(..)
            );
            *sequence >= from && can_be_told
        };
        let waits = std::mem::take(&mut durable.waits);
        let (refused, kept): (VecDeque<_>, VecDeque<_>) = waits.into_iter().partition(is_refused);
        durable.waits = kept;
        for (_, wait) in refused {
            match wait {
                Wait::Report(from, commit, _) => {
                    let outcome = self.refused(Refused::Full);
                    self.report(from, commit, outcome);
                }
                Wait::Gathered(gather, _) => {
                    let outcome = self.refused(Refused::Full);
                    self.gathered(gather, outcome);
                }
                Wait::Subscribe(token) => self.fail_subscribe(token, ReasonCode::QuotaExceeded),
                Wait::Connack(connection) => self.refuse_connack(connection),
                Wait::Send(connection, _) => self.fail_connection(connection, Violation::DiskFull),
                Wait::Received(..) | Wait::Release(..) | Wait::Complete(_) => unreachable!("not taken out"),
                Wait::ForgetPublisher(_) | Wait::Forgotten(..) | Wait::Pump(_) => {
                    unreachable!("not taken out")
                }
            }
        }
    }

    fn refuse_connack(&mut self, connection: ConnectionId) {
        let phase = self.links.get(connection).map(|found| &found.phase);
        if let Some(Phase::Established { session }) = phase {
            let session = *session;
            self.links.let_go(connection);
            self.take_back_connack(connection.slot, session, Violation::DiskFull);
        }
    }

    fn fail_wait(&mut self, wait: Wait) {
        match wait {
            Wait::Report(from, commit, _) => self.report(from, commit, FAILED),
            Wait::Gathered(gather, _) => self.gathered(gather, FAILED),
            Wait::Received(session, sequence) => self.settle_ack(session, sequence, FAILED),
            Wait::Subscribe(token) => self.fail_subscribe(token, ReasonCode::ImplementationSpecificError),
            Wait::Connack(connection) | Wait::Send(connection, _) => {
                self.fail_connection(connection, Violation::LogFailed);
            }
            // PUBREL and PUBCOMP are waited for until the client gives up; deliveries that wait are kept back.
            Wait::Release(..)
            | Wait::Complete(_)
            | Wait::ForgetPublisher(_)
            | Wait::Forgotten(..)
            | Wait::Pump(_) => {}
        }
    }

    fn fail_connection(&mut self, connection: ConnectionId, violation: Violation) {
        if self.links.get(connection).is_some() {
            self.links.let_go(connection);
            self.violate(connection.slot, violation);
        }
    }

    /// What the log has to say.
    fn work_events(&mut self) {
        while let Some(durable) = &mut self.durable
            && let Some(event) = durable.log.poll_event()
        {
            match event {
                Event::Fetched { id, stream, messages } => self.on_fetched(id, stream, messages),
                Event::NoSpace(from) => self.refuse_waits(from),
                Event::Damaged(damage) => {
                    self.counters.log_damaged += 1;
                    tracing::error!(?damage, "the log cannot be read here any more; the rest is served");
                }
                Event::LostMessage { stream, number } => {
                    self.counters.log_lost += 1;
                    tracing::error!(?stream, number = number.0, "a message is lost to damage of the log");
                }
                Event::LostState(state) => self.write_state_again(state),
                Event::LostStream(stream) => self.write_session_again(stream),
            }
        }
    }

    /// What is done from time to time.
    pub(super) fn upkeep_log(&mut self) {
        let now = self.now;
        let interval = self.options.log_sync_interval_ms;
        let Some(durable) = &mut self.durable else { return };
        if durable.sync == SyncMode::Interval
            && durable.synced != durable.log.last()
            && now.mono.since(durable.synced_at) >= interval
        {
            durable.synced_at = now.mono;
            durable.synced = durable.log.last();
            durable.log.sync();
        }
        if now.mono.since(durable.upkept_at) < UPKEEP_EVERY_MS {
            return;
        }
        durable.upkept_at = now.mono;
        if durable.log.wants_retry() {
            durable.log.retry();
        }
        // What clients have acknowledged is written with what comes next, but does not wait for long.
        let _ = durable.log.flush();
        if durable.has_expiring {
            // Nothing is left to look at.
            durable.has_expiring = durable.log.message_count() > 0;
            let dropped = durable.log.expire(now.wall, EXPIRY_BUDGET);
            durable.has_expiring = durable.log.message_count() > 0;
            self.counters.expired += dropped.iter().map(|(_, dropped)| u64::from(dropped.count)).sum::<u64>();
        }
        self.record_unrecorded();
        self.retry_endings();
    }

    /// When [`upkeep_log`](Self::upkeep_log) is due.
    pub(super) fn upkeep_deadline(&self) -> Option<Mono> {
        let durable = self.durable.as_ref()?;
        let sync = (durable.sync == SyncMode::Interval && durable.synced != durable.log.last())
            .then(|| durable.synced_at.plus_ms(self.options.log_sync_interval_ms));
        let has_upkeep = durable.has_expiring
            || (durable.log.has_lazy() && !durable.is_failed)
            || !durable.unrecorded.is_empty()
            || (durable.endings.wait() && !durable.is_failed)
            || durable.log.wants_retry();
        let upkeep = has_upkeep.then(|| durable.upkept_at.plus_ms(UPKEEP_EVERY_MS));
        [sync, upkeep].into_iter().flatten().min()
    }

    /// Writes and syncs everything: the process is about to end.
    pub(super) fn flush_log(&mut self) {
        if let Some(durable) = &mut self.durable {
            // Poisoned: there is nothing to be done.
            let _ = durable.log.flush();
            durable.log.sync();
        }
    }

    /// A record was refused: counts it and says what to do.
    pub(super) fn refused(&mut self, refused: Refused) -> Outcome {
        use super::limit::Limit;
        self.counters.log_refused += 1;
        match refused {
            Refused::Full => self.met(Limit::DiskFull),
            Refused::Poisoned => self.met(Limit::LogFailed),
            Refused::TooLarge | Refused::NoStream => {}
        }
        let failed = refused == Refused::Poisoned;
        Outcome { matched: true, refused_durably: true, unkept: true, failed, ..Outcome::default() }
    }
}
