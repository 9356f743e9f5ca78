//! The ends: of connections, of sessions, of the process; and the timers that bring them.

use super::Shard;
use super::cause::Cause;
use super::connection::{Connection, Phase};
use super::durable::Then;
use super::peer::{CommitRef, PeerMessage};
use super::sessions::{NONE, Offline};
use crate::base::{Mono, QoS, Wheel};
use crate::codec::{ConnAck, Disconnect};
use crate::route::Subscriber;
use crate::session::{EXPIRY_NEVER, Outcome, Violation, Will};

/// How long a connection that is being closed may take to read its last bytes.
const LINGER_MS: u64 = 5_000;
/// Violations logged a second and shard.
const LOGS_A_SECOND: u32 = 10;
/// Between two sweeps for expired retained messages there is at least this.
const SWEEP_EVERY_MS: u64 = 100;
/// Retained messages looked at in one sweep for expired ones.
pub(super) const SWEEP_BUDGET: usize = 1_000;

/// What a timer is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Timer {
    /// CONNECT is overdue.
    Login = 0,
    /// Nothing may have arrived for too long.
    KeepAlive = 1,
    /// A connection that is being closed has had its time.
    Linger = 2,
    /// A session's delayed will, or its end.
    Session = 3,
}

/// A timer's token: what for, which slot, which incarnation (its low 30 bits).
pub(super) fn token(timer: Timer, slot: u32, generation: u32) -> u64 {
    (timer as u64) << 62 | u64::from(generation & GENERATION_MASK) << 32 | u64::from(slot)
}

const GENERATION_MASK: u32 = (1 << 30) - 1;

/// What [`token`] was made of.
#[allow(clippy::cast_possible_truncation, reason = "takes the word apart")]
fn parts(token: u64) -> (u64, u32, u32) {
    (token >> 62, token as u32, (token >> 32) as u32 & GENERATION_MASK)
}

/// When the keep alive of a connection runs out: one and a half times its interval after the last whole packet. [MQTT-3.1.2-22]
pub(super) fn keep_alive_deadline(connection: &Connection) -> Mono {
    if connection.keep_alive_secs == 0 {
        return Mono::NEVER;
    }
    connection.last_packet_at.plus_ms(u64::from(connection.keep_alive_secs) * 1500)
}

impl Shard {
    /// The client broke a rule, or has to go: it is told what its version and the moment allow, and closed.
    pub(super) fn violate(&mut self, slot: u32, violation: Violation) {
        let Some(connection) = self.links.at(slot) else { return };
        let session = match connection.phase {
            Phase::Established { session } => Some(session),
            Phase::Connecting(_) => None,
            Phase::Closing => return,
        };
        self.counters.violations += 1;
        self.log_violation(slot, violation);
        self.say_goodbye(slot, violation);
        match session {
            Some(session) => self.detach(slot, session, Cause::of(violation), None),
            None => self.counters.refused_connections.count(Cause::of_stranger(violation)),
        }
        self.close_after_sending(slot);
    }

    fn log_violation(&mut self, slot: u32, violation: Violation) {
        if !violation.is_logged() || !self.may_log() {
            return;
        }
        let client_id = match self.links.at(slot).map(|connection| &connection.phase) {
            Some(Phase::Established { session }) => self.sessions.at(*session).map(|s| &*s.client_id),
            _ => None,
        };
        let reason = violation.reason().byte();
        let client_id = client_id.unwrap_or("-");
        match violation.key() {
            Some(key) => {
                tracing::info!(client_id, reason, "closing a connection: {violation}; its bound is {key}");
            }
            None => tracing::info!(client_id, reason, "closing a connection: {violation}"),
        }
    }

    /// Whether one more line about clients may be logged this second.
    pub(super) fn may_log(&mut self) -> bool {
        let (left, since) = &mut self.log_allowance;
        if self.now.mono.since(*since) >= 1000 {
            (*left, *since) = (LOGS_A_SECOND, self.now.mono);
        }
        let may = *left > 0;
        *left = left.saturating_sub(1);
        may
    }

    /// The last packet the client gets: CONNACK before it was accepted, DISCONNECT (v5 only) after that.
    pub(super) fn say_goodbye(&mut self, slot: u32, violation: Violation) {
        let Some(connection) = self.links.at(slot) else { return };
        let version = connection.version;
        match connection.phase {
            Phase::Connecting(_) if violation.is_answered_before_connect(version) => {
                let packet_size_max = connection.packet_size_max;
                let mut answer = Vec::new();
                ConnAck::new(false, violation.connack_reason(version)).encode(version, &mut answer);
                // [MQTT-3.1.2-24]
                if answer.len() <= packet_size_max as usize {
                    self.links.out(slot).bytes_mut().extend_from_slice(&answer);
                }
            }
            Phase::Established { .. } if version.is_v5() => {
                // [MQTT-4.13.1-1]
                Disconnect::new(violation.reason()).encode(version, self.links.out(slot).bytes_mut());
            }
            _ => {}
        }
    }

    /// Closes once what waits has been sent, or the client has taken too long to read it.
    pub(super) fn close_after_sending(&mut self, slot: u32) {
        let Some(id) = self.links.id_at(slot) else { return };
        let connection = self.links.at_mut(slot).expect("has an id");
        connection.phase = Phase::Closing;
        if connection.out.is_none() && !connection.sending {
            self.links.close(slot);
            return;
        }
        let deadline = self.now.mono.plus_ms(LINGER_MS);
        self.wheel.insert(deadline, token(Timer::Linger, slot, id.generation));
    }

    /// What waits for a connection's socket has become less.
    pub(super) fn after_sent(&mut self, slot: u32) {
        let Some(connection) = self.links.at(slot) else { return };
        match connection.phase {
            Phase::Closing => {
                if connection.out.is_none() {
                    self.links.close(slot);
                }
            }
            Phase::Established { session } => {
                if connection.paused & super::connection::PAUSED_OUT != 0 {
                    self.links.resume(slot, super::connection::PAUSED_OUT);
                }
                self.pump(session);
            }
            Phase::Connecting(_) => {}
        }
    }

    /// The network took the connection away.
    pub(super) fn lost(&mut self, slot: u32) {
        match self.links.at(slot).map(|connection| &connection.phase) {
            Some(Phase::Established { session }) => self.detach(slot, *session, Cause::Lost, None),
            Some(Phase::Connecting(_)) => self.counters.refused_connections.count(Cause::Lost),
            Some(Phase::Closing) | None => {}
        }
        self.links.close(slot);
    }

    /// Takes a session off its connection, which ends for `cause`. `taken_over`: by a CONNECT with this Clean Start.
    pub(super) fn detach(&mut self, slot: u32, session: u32, cause: Cause, taken_over: Option<bool>) {
        let Some(entry) = self.sessions.at_mut(session) else { return };
        debug_assert_eq!(entry.connection, slot, "session and connection name each other");
        entry.connection = NONE;
        self.established -= 1;
        self.counters.closed_connections.count(cause);
        // [MQTT-3.14.4-3]
        let with_will = !matches!(cause, Cause::Disconnect | Cause::ShuttingDown);
        if let Some(incoming) = &mut entry.incoming {
            incoming.acks.mute();
            incoming.unacknowledged = 0;
        }
        let expiry = entry.expiry_secs;
        if cause == Cause::ShuttingDown && entry.durable.is_some() && expiry > 0 {
            // On disk it stays connected, and its will is due after the next start.
            return;
        }
        let will = if with_will { entry.will.take() } else { None };
        entry.will = None;
        let delay = will.as_ref().map_or(0, |will| will.delay_secs.min(expiry));
        let is_kept = entry.durable.is_some();
        if delay > 0 && taken_over != Some(false) {
            // Kept until the delay has passed or the session ends, whichever is first. [MQTT-3.1.2-8]
            entry.will = will;
        } else if delay == 0
            && let Some(will) = will
        {
            self.publish_will(&will, is_kept);
        }
        if expiry == 0 {
            self.end_session(session);
        } else {
            self.go_offline(session, delay);
        }
    }

    fn go_offline(&mut self, session: u32, will_delay_secs: u32) {
        let now = self.now.mono;
        let Some(id) = self.sessions.id_at(session) else { return };
        let entry = self.sessions.at_mut(session).expect("has an id");
        let will_at = if entry.will.is_some() { now.plus_secs(will_delay_secs) } else { Mono::NEVER };
        let expires_at =
            if entry.expiry_secs == EXPIRY_NEVER { Mono::NEVER } else { now.plus_secs(entry.expiry_secs) };
        let has_state = will_at != Mono::NEVER || expires_at != Mono::NEVER;
        if has_state {
            entry.extra().offline = Some(Offline { will_at, expires_at });
        }
        self.wheel.insert(will_at.min(expires_at), token(Timer::Session, session, id.generation));
        self.keep_offline(session);
        self.set_member_online(session, false);
        self.step_replays(session);
    }

    /// The session is over: its subscriptions go, what it did not settle of shared subscriptions goes back, its will is due.
    pub(super) fn end_session(&mut self, session: u32) {
        // On disk they end with their stream: were each taken out by itself, a crash might bring back a session with some of them.
        let states = self.take_subscription_states(session);
        // Taken first: taking each out of a long list by itself would be quadratic.
        let filters = self.sessions.at_mut(session).map(|entry| std::mem::take(&mut entry.filters));
        for filter in filters.unwrap_or_default().as_slice() {
            self.remove_subscription(session, *filter);
        }
        self.leave_groups(session);
        self.cancel_replays(session);
        let is_kept = self.sessions.at(session).is_some_and(|entry| entry.durable.is_some());
        self.end_stream(session, states);
        self.sessions.unlist(session);
        let Some(entry) = self.sessions.at_mut(session) else { return };
        entry.ended = true;
        let will = entry.will.take();
        let outgoing = entry.outgoing.take();
        entry.incoming = None;
        if let Some(outgoing) = outgoing {
            self.give_back(*outgoing);
        }
        if self.fan_outs.has_begun() {
            self.ended.push(session);
        } else {
            self.sessions.remove(session);
        }
        // [MQTT-3.1.3-9]
        if let Some(will) = will {
            self.publish_will(&will, is_kept);
        }
    }

    /// A session goes on: the will of its last connection is published first if it was due. One without a delay waits for its
    /// timer only after a start, with all the others.
    pub(super) fn publish_overdue_will(&mut self, session: u32) {
        let now = self.now.mono;
        let Some(entry) = self.sessions.at_mut(session).filter(|entry| entry.connection().is_none()) else {
            return;
        };
        let will_at = entry
            .extra
            .as_ref()
            .and_then(|extra| extra.offline)
            .map_or(Mono::NEVER, |offline| offline.will_at);
        let will = entry.will.take_if(|will| will.delay_secs == 0 || will_at <= now);
        if let Some(will) = will {
            self.publish_will(&will, true);
        }
    }

    /// `is_kept`: of a session on disk. Its will leaves there with this publish, and is there again until other shards have it.
    pub(super) fn publish_will(&mut self, will: &Will, is_kept: bool) {
        self.counters.wills += 1;
        let message = will.publish(self.now);
        if !is_kept || message.head.qos == QoS::AtMostOnce {
            self.route(&message, None, None, None);
            return;
        }
        let gather = self.gather(Then::Published(None), 1);
        let (_, asked) = self.route(&message, None, Some(CommitRef::Gather(gather.token)), None);
        if asked.missing > asked.local {
            let copy = self.keep_copy_of_will(will, message.head.vhost);
            self.gather_then(gather, Then::Published(copy));
        }
        for _ in 0..asked.missing {
            self.gather_more(gather);
        }
        self.gathered(gather, Outcome::default());
    }

    /// Sets the session expiry in force; sessions that outlive their connection count as durable.
    pub(super) fn set_expiry(&mut self, session: u32, expiry_secs: u32) {
        let Some(entry) = self.sessions.at_mut(session) else { return };
        let was = entry.is_durable();
        entry.expiry_secs = expiry_secs;
        let is = entry.is_durable();
        if was != is {
            for filter in self.filter_ids(session) {
                let change = self.trie.set_durable(filter, Subscriber(session), is);
                self.announce(filter, change);
            }
            self.refresh_groups(session);
        }
    }

    pub(super) fn on_timeout(&mut self) {
        self.step_fan_outs();
        self.step_walk();
        self.step_slow();
        self.upkeep_log();
        let mut due = std::mem::take(&mut self.due);
        self.wheel.poll(self.now.mono, &mut due);
        for token in due.drain(..) {
            self.on_timer(token);
        }
        self.due = due;
        self.swept_at = self.now.mono;
        self.retained.expire(self.now.wall, SWEEP_BUDGET);
        self.clear_freed_retained();
    }

    /// When the next retained message expires; a little later if the last sweep was just now.
    pub(super) fn sweep_deadline(&self) -> Option<Mono> {
        let left = self.retained.next_expiry()?.0.saturating_sub(self.now.wall.0);
        Some(self.now.mono.plus_ms(left).max(self.swept_at.plus_ms(SWEEP_EVERY_MS)))
    }

    /// Gives memory back after many have gone; says whether it was much.
    pub(super) fn give_back_memory(&mut self) -> bool {
        // Filters, retained messages and what waited may go while their sessions stay. Each looks only if much has gone.
        self.trie.shrink();
        self.interest.shrink();
        self.retained.shrink();
        self.groups.shrink();
        self.mesh.shrink();
        self.subscribing.shrink();
        self.replays.shrink();
        self.settling.shrink_to(2 * self.settling.len());
        self.scratch = Default::default();
        let mut is_much = self.links.shrink();
        is_much |= self.sessions.shrink();
        if !is_much {
            return false;
        }
        let mut wheel = std::mem::replace(&mut self.wheel, Wheel::new(Mono::default()));
        wheel.retain(|token| self.is_timer_wanted(token));
        self.wheel = wheel;
        self.due = Vec::new();
        self.paused.shrink_to_fit();
        self.ended.shrink_to_fit();
        true
    }

    /// Whether whom the timer is for still exists.
    fn is_timer_wanted(&self, token: u64) -> bool {
        let (timer, slot, generation) = parts(token);
        let current = if timer == Timer::Session as u64 {
            self.sessions.id_at(slot).map(|id| id.generation)
        } else {
            self.links.id_at(slot).map(|id| id.generation)
        };
        current.is_some_and(|current| current & GENERATION_MASK == generation)
    }

    fn on_timer(&mut self, token: u64) {
        let (timer, slot, generation) = parts(token);
        if timer == Timer::Session as u64 {
            if self.sessions.id_at(slot).is_some_and(|id| id.generation & GENERATION_MASK == generation) {
                self.on_session_timer(slot);
            }
            return;
        }
        let Some(id) = self.links.id_at(slot).filter(|id| id.generation & GENERATION_MASK == generation)
        else {
            return;
        };
        let connection = self.links.at(slot).expect("has an id");
        match connection.phase {
            Phase::Connecting(_) if timer == Timer::Login as u64 => {
                self.violate(slot, Violation::LoginTimeout)
            }
            Phase::Established { .. } if timer == Timer::KeepAlive as u64 => {
                let deadline = keep_alive_deadline(connection);
                if deadline > self.now.mono {
                    self.wheel.insert(deadline, self::token(Timer::KeepAlive, slot, id.generation));
                } else if connection.slow || connection.paused & super::connection::PAUSED_OVERLOAD != 0 {
                    // Whoever is not read from, or now and then only, cannot be seen to be alive.
                    let later = self.now.mono.plus_ms(u64::from(connection.keep_alive_secs) * 1500);
                    self.wheel.insert(later, self::token(Timer::KeepAlive, slot, id.generation));
                } else {
                    self.violate(slot, Violation::KeepAliveTimeout);
                }
            }
            Phase::Closing if timer == Timer::Linger as u64 => self.links.close(slot),
            _ => {}
        }
    }

    fn on_session_timer(&mut self, session: u32) {
        let now = self.now.mono;
        let Some(id) = self.sessions.id_at(session) else { return };
        let entry = self.sessions.at_mut(session).expect("has an id");
        if entry.connection().is_some() || entry.ended {
            return;
        }
        let Some(offline) = entry.extra.as_mut().and_then(|extra| extra.offline.as_mut()) else { return };
        let expired = offline.expires_at <= now;
        let will_due = offline.will_at <= now;
        if will_due {
            offline.will_at = Mono::NEVER;
        }
        let next = offline.will_at.min(offline.expires_at);
        let will = if will_due && !expired { entry.will.take() } else { None };
        let is_kept = entry.durable.is_some();
        if let Some(will) = will {
            self.publish_will(&will, is_kept);
            // After it: in one commit, or published twice.
            let _ = self.keep_will(session);
        }
        if expired {
            self.counters.sessions_expired += 1;
            self.end_session(session);
        } else {
            self.wheel.insert(next, token(Timer::Session, session, id.generation));
        }
    }

    /// Publishes every will, tells the other shards, and closes once all have done the same: so wills reach who is connected.
    pub(super) fn leave(&mut self) {
        if self.leaving {
            return;
        }
        self.leaving = true;
        let sessions: Vec<u32> = self.sessions.iter().map(|(slot, _)| slot).collect();
        for session in sessions {
            // Of those that end with the process; the others' are on disk.
            let entry =
                self.sessions.at_mut(session).filter(|entry| entry.durable.is_none() || !entry.is_durable());
            let will = entry.and_then(|entry| entry.will.take());
            if let Some(will) = will {
                self.publish_will(&will, false);
            }
        }
        self.finish_fan_outs();
        for shard in self.mesh.others() {
            self.mesh.to(shard).push(PeerMessage::Leaving);
        }
        self.mesh.left[self.id.index()] = true;
        self.close_all_if_left();
    }

    pub(super) fn close_all_if_left(&mut self) {
        if !self.leaving || self.mesh.left.contains(&false) {
            return;
        }
        for slot in self.links.slots() {
            if let Some(Phase::Established { session }) =
                self.links.at(slot).map(|connection| &connection.phase)
            {
                let session = *session;
                self.say_goodbye(slot, Violation::ShuttingDown);
                self.detach(slot, session, Cause::ShuttingDown, None);
            } else if self.links.at(slot).is_some_and(|c| matches!(c.phase, Phase::Connecting(_))) {
                self.counters.refused_connections.count(Cause::ShuttingDown);
            }
            self.close_after_sending(slot);
        }
        self.flush_log();
    }
}
