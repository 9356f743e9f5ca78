//! CONNECT: the session's home, the terms, takeover, resume.

use super::cause::Cause;
use super::connection::{Aliases, Phase};
use super::limit::Limit;
use super::read::Flow;
use super::sessions::{NONE, Session};
use super::{Accepted, HandOver, Output, Shard, VHOST};
use crate::auth::{self, Credentials, Denied};
use crate::base::hash::home;
use crate::base::{ConnectionId, HashKey, ReasonCode, ShardId, Version, VhostId};
use crate::codec::{self, ConnAck, Connect, Frame, Packet, Sender};
use crate::log::Refused;
use crate::session::{self, Terms, Violation, Will, aliases};
use std::num::{NonZeroU16, NonZeroU32};

/// Sockets a shard takes beyond its share of `mqtt.max_connections`, to tell their clients that they are too many.
const STRANGERS_MAX: u64 = 1024;
/// CONNACK says nothing about a packet size this large: the codec's own limit.
const PACKET_SIZE_UNLIMITED: u32 = 268_435_460;
/// No CONNACK is larger: 24 bytes, and an assigned client identifier of 22 with 3 in front.
const CONNACK_SIZE_MAX: u32 = 64;

impl Shard {
    pub(super) fn open(&mut self, accepted: Accepted) -> ConnectionId {
        let id = self.links.insert(accepted);
        let deadline = accepted.at.plus_ms(self.options.session.login_timeout_ms);
        self.wheel.insert(
            deadline,
            super::lifecycle::token(super::lifecycle::Timer::Login, id.slot, id.generation),
        );
        id
    }

    /// Each shard has its share of `mqtt.max_connections`; connections spread by hash, so shares fill about evenly.
    fn connections_max(&self) -> Option<u64> {
        self.options.process.connections_max.map(|max| max.div_ceil(u64::from(self.shards)))
    }

    /// How many more sockets are taken that have not said who they are: a client over the limit is answered, but not any
    /// number of them at once.
    pub(super) fn strangers_room(&self) -> usize {
        let Some(max) = self.connections_max() else { return usize::MAX };
        let room = max.saturating_add(STRANGERS_MAX).saturating_sub(self.links.len() as u64);
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// Whether one more client is over `mqtt.max_connections`. One that takes its own session over is not.
    fn clients_full(&mut self, client_id: &str) -> bool {
        let full = self.connections_max().is_some_and(|max| self.established as u64 >= max);
        if !full || self.is_connected(client_id) {
            return false;
        }
        self.met(Limit::Connections);
        true
    }

    /// Whether there is no socket for one more client: what is left is for telling them so.
    fn tables_full(&mut self, client_id: &str) -> bool {
        if self.sockets_max.is_none_or(|max| self.established < max) || self.is_connected(client_id) {
            return false;
        }
        self.met(Limit::Sockets);
        true
    }

    fn is_connected(&self, client_id: &str) -> bool {
        let slot = self.sessions.find(VHOST, client_id);
        slot.and_then(|slot| self.sessions.at(slot)).is_some_and(|session| session.connection().is_some())
    }

    /// Which shard a client's session lives on.
    pub(super) fn home_of(&self, client_id: &str) -> ShardId {
        home_of_client(self.key, self.shards, VHOST, client_id)
    }

    pub(super) fn on_connect(&mut self, slot: u32, connect: &Connect<'_>, unread: &[u8]) -> Flow {
        if let Some(connection) = self.links.at_mut(slot) {
            connection.version = connect.version;
            connection.packet_size_max = connect.packet_size_max.map_or(u32::MAX, NonZeroU32::get);
        }
        if !connect.client_id.is_empty() {
            let home = self.home_of(connect.client_id);
            if home != self.id {
                return self.hand_over(slot, home, unread);
            }
        }
        match self.admit(slot, connect) {
            Ok(terms) => self.establish(slot, connect, &terms),
            Err(violation) => {
                self.violate(slot, violation);
                Flow::Stop
            }
        }
    }

    fn hand_over(&mut self, slot: u32, to: ShardId, unread: &[u8]) -> Flow {
        let Some(Phase::Connecting(accepted)) = self.links.at(slot).map(|connection| &connection.phase)
        else {
            return Flow::Stop;
        };
        let hand_over = HandOver { accepted: **accepted, bytes: unread.to_vec() };
        if let Some(connection) = self.links.forget(slot) {
            self.links.outputs.push_back(Output::HandOver { connection, to, hand_over });
        }
        Flow::Stop
    }

    /// A connection that could not be moved to its home is refused from here.
    pub(super) fn refuse_unread(&mut self, slot: u32, unread: &[u8]) {
        if let Ok(Frame::Complete(raw)) = codec::frame(unread, u32::MAX)
            && let Ok(Packet::Connect(connect)) = codec::decode(raw, Version::V5, Sender::Client)
            && let Some(connection) = self.links.at_mut(slot)
        {
            connection.version = connect.version;
            connection.packet_size_max = connect.packet_size_max.map_or(u32::MAX, NonZeroU32::get);
        }
        self.met(Limit::Sockets);
        self.violate(slot, Violation::ServerFull);
    }

    fn admit(&mut self, slot: u32, connect: &Connect<'_>) -> Result<Terms, Violation> {
        if self.leaving {
            return Err(Violation::ShuttingDown);
        }
        if self.clients_full(connect.client_id) {
            return Err(Violation::Quota);
        }
        if self.tables_full(connect.client_id) || self.is_under_pressure() {
            return Err(Violation::ServerFull);
        }
        let terms = session::terms(connect, &self.options.session)?;
        let Some(Phase::Connecting(accepted)) = self.links.at(slot).map(|connection| &connection.phase)
        else {
            return Err(Violation::ConnectedTwice);
        };
        let credentials = Credentials { username: connect.username, password: connect.password };
        auth::check(&self.options.auth, accepted.peer.ip(), credentials).map_err(|denied| match denied {
            Denied::BadCredentials => Violation::BadCredentials,
            Denied::NotAuthorized => Violation::NotAuthorized,
        })?;
        Ok(terms)
    }

    fn is_under_pressure(&mut self) -> bool {
        if self.pressure {
            self.met(Limit::MemoryForClient);
        }
        self.pressure
    }

    fn establish(&mut self, slot: u32, connect: &Connect<'_>, terms: &Terms) -> Flow {
        let assigned = connect.client_id.is_empty().then(|| self.assign_client_id());
        if !self.answer_fits(terms, assigned.as_deref()) {
            self.violate(slot, Violation::PacketSizeMaxTooSmall);
            return Flow::Stop;
        }
        let client_id = assigned.as_deref().unwrap_or(connect.client_id);
        let was_there = self.sessions.find(VHOST, client_id).is_some();
        let existing = self.take_over(client_id, connect.clean_start);
        let session_present = existing.is_some();
        if let Some(session) = existing {
            self.publish_overdue_will(session);
        }
        let session = existing.unwrap_or_else(|| self.new_session(client_id));
        let entry = self.sessions.at_mut(session).expect("found or made above");
        entry.connection = slot;
        entry.incarnation = entry.incarnation.wrapping_add(1);
        entry.version = terms.version;
        // [MQTT-3.1.2-7]
        entry.will = connect.will.as_ref().map(|will| Box::new(Will::new(VHOST, will)));
        if let Some(extra) = &mut entry.extra {
            extra.offline = None;
            entry.drop_empty_extra();
        }
        if let Some(outgoing) = &mut entry.outgoing {
            outgoing.window.resume();
        }
        self.set_expiry(session, terms.session_expiry_secs);
        self.equip(slot, session, terms);
        self.established += 1;
        self.counters.connected += 1;
        match self.keep_session(session) {
            Ok(()) => {}
            // What is on disk is served, also when nothing can be added to it.
            Err(Refused::Poisoned) if session_present => {}
            Err(refused) => return self.refuse_session(slot, session, session_present, refused),
        }
        self.answer_connect(slot, terms, session_present, assigned.as_deref());
        // Who has nothing on disk, and had nothing, does not wait for it.
        let is_kept = self.sessions.at(session).is_some_and(|entry| entry.durable.is_some());
        let waits = is_kept || was_there || self.may_come_back(session);
        if let Some(connection) = self.links.id_at(slot).filter(|_| waits) {
            self.hold_connack(connection);
        }
        if session_present {
            self.set_member_online(session, true);
            let commit = self.last_commit();
            self.wake_at(session, commit);
            self.pump(session);
        }
        Flow::Continue
    }

    /// The session cannot be put on disk: the client is refused, and what it had stays as it was.
    fn refuse_session(&mut self, slot: u32, session: u32, existed: bool, refused: Refused) -> Flow {
        let outcome = self.refused(refused);
        let violation = if outcome.failed { Violation::LogFailed } else { Violation::DiskFull };
        self.take_back_connack(slot, session, violation);
        if !existed {
            self.end_session(session);
        }
        Flow::Stop
    }

    /// Not accepted after all: CONNACK says so, instead of what was to be sent.
    pub(super) fn take_back_connack(&mut self, slot: u32, session: u32, violation: Violation) {
        let Some(connection) = self.links.at(slot) else { return };
        let (version, packet_size_max) = (connection.version, connection.packet_size_max);
        let mut answer = Vec::new();
        ConnAck::new(false, violation.connack_reason(version)).encode(version, &mut answer);
        self.links.out(slot).clear();
        if answer.len() <= packet_size_max as usize {
            self.links.out(slot).bytes_mut().extend_from_slice(&answer);
        }
        if let Some(entry) = self.sessions.at_mut(session) {
            entry.will = None;
        }
        self.detach(slot, session, Cause::of(violation), None);
        self.close_after_sending(slot);
    }

    /// Ends whatever connection the client's session has. Gives the session if it goes on. [MQTT-3.1.4-3]
    fn take_over(&mut self, client_id: &str, clean_start: bool) -> Option<u32> {
        let session = self.sessions.find(VHOST, client_id)?;
        let old = self.sessions.at(session).and_then(Session::connection);
        if let Some(old) = old {
            self.say_goodbye(old, Violation::TakenOver);
            self.detach(old, session, Cause::TakenOver, Some(clean_start));
            self.close_after_sending(old);
        }
        // The session may have ended with its connection.
        let session = self.sessions.find(VHOST, client_id)?;
        // One that was to end with a connection that a crash has ended is not to be resumed, however soon its client is back.
        let is_over = self.sessions.at(session).is_some_and(|entry| !entry.is_durable());
        if clean_start || is_over {
            // [MQTT-3.1.2-4]
            self.end_session(session);
            return None;
        }
        Some(session)
    }

    fn new_session(&mut self, client_id: &str) -> u32 {
        let client_hash = self.sessions.client_hash(VHOST, client_id);
        self.sessions.insert(Session {
            client_id: client_id.into(),
            filters: Default::default(),
            outgoing: None,
            incoming: None,
            will: None,
            extra: None,
            durable: None,
            connection: NONE,
            incarnation: 0,
            expiry_secs: 0,
            client_hash,
            qos0_filters: 0,
            acked_filters: 0,
            vhost: VHOST,
            version: Version::V311,
            ended: false,
        })
    }

    /// Gives the connection what the terms say.
    fn equip(&mut self, slot: u32, session: u32, terms: &Terms) {
        let Some(id) = self.links.id_at(slot) else { return };
        let connection = self.links.at_mut(slot).expect("has an id");
        connection.phase = Phase::Established { session };
        connection.version = terms.version;
        connection.window = terms.window;
        connection.packet_size_max = terms.packet_size_max;
        connection.keep_alive_secs = terms.keep_alive_secs;
        connection.problem_information = terms.problem_information;
        connection.aliases = (terms.topic_alias_maximum > 0).then(|| {
            Box::new(Aliases {
                incoming: aliases::Incoming::default(),
                outgoing: aliases::Outgoing::new(terms.topic_alias_maximum),
            })
        });
        let deadline = super::lifecycle::keep_alive_deadline(connection);
        self.wheel.insert(
            deadline,
            super::lifecycle::token(super::lifecycle::Timer::KeepAlive, slot, id.generation),
        );
        self.links.outputs.push_back(Output::Established { connection: id });
    }

    fn answer_connect(&mut self, slot: u32, terms: &Terms, session_present: bool, assigned: Option<&str>) {
        let answer = self.connack(terms, session_present, assigned);
        answer.encode(terms.version, self.links.out(slot).bytes_mut());
    }

    /// Whether the client takes a packet of CONNACK's size. [MQTT-3.1.2-24]
    fn answer_fits(&self, terms: &Terms, assigned: Option<&str>) -> bool {
        if terms.packet_size_max >= CONNACK_SIZE_MAX {
            return true;
        }
        let mut bytes = Vec::new();
        self.connack(terms, false, assigned).encode(terms.version, &mut bytes);
        bytes.len() <= terms.packet_size_max as usize
    }

    fn connack<'a>(&self, terms: &Terms, session_present: bool, assigned: Option<&'a str>) -> ConnAck<'a> {
        let options = &self.options.session;
        let mut answer = ConnAck::new(session_present && terms.version != Version::V310, ReasonCode::Success);
        // [MQTT-3.2.2-3]
        if terms.version.is_v5() {
            answer.session_expiry = terms.session_expiry_is_servers.then_some(terms.session_expiry_secs);
            answer.receive_maximum = NonZeroU16::new(options.receive_maximum);
            answer.packet_size_max =
                NonZeroU32::new(options.packet_size_max).filter(|max| max.get() < PACKET_SIZE_UNLIMITED);
            // [MQTT-3.2.2-16]
            answer.assigned_client_id = assigned;
            answer.topic_alias_maximum = Some(options.topic_alias_maximum).filter(|max| *max > 0);
            // [MQTT-3.1.2-21]
            answer.server_keep_alive = terms.keep_alive_is_servers.then_some(terms.keep_alive_secs);
        }
        answer
    }

    /// A client identifier nobody can guess, whose home is this shard.
    fn assign_client_id(&mut self) -> String {
        loop {
            self.assigned += 1;
            let id = assigned_client_id(self.key, self.id, self.assigned);
            if self.home_of(&id) == self.id && self.sessions.find(VHOST, &id).is_none() {
                return id;
            }
        }
    }
}

/// Which of so many shards a client's session lives on; `key` is the process's secret.
pub(super) fn home_of_client(key: HashKey, shards: u16, vhost: VhostId, client_id: &str) -> ShardId {
    home(home_key(key).hash(vhost, client_id.as_bytes()), shards)
}

fn home_key(key: HashKey) -> HashKey {
    key.derive("session home")
}

/// 132 bits of a keyed hash over (shard, count), as 22 characters of the base64url alphabet, like RabbitMQ's.
///
/// The count starts anew with the process; a resumed session of that name is stepped over, and the name is not reused while
/// its session exists.
fn assigned_client_id(key: HashKey, shard: ShardId, count: u64) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let key = key.derive("assigned client ids");
    let mut seed = [0; 10];
    seed[..2].copy_from_slice(&shard.0.to_le_bytes());
    seed[2..].copy_from_slice(&count.to_le_bytes());
    let halves = [key.hash(VHOST, &seed), HashKey { k0: key.k1, k1: key.k0 }.hash(VHOST, &seed)];
    let mut out = String::with_capacity(22);
    for half in halves {
        for digit in 0..11 {
            let index = usize::try_from((half >> (6 * digit)) & 63).expect("six bits");
            out.push(char::from(ALPHABET[index]));
        }
    }
    out
}
