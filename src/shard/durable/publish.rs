//! QoS 2 in: packet identifiers that came, and the origins by which other shards know a repetition.
//!
//! A publisher's packet identifier is kept once all targets have the message and before PUBREC; a crash in between leaves copies
//! with their origin, which answer a repetition without taking it again. PUBREL has the origins forgotten everywhere, and the
//! identifier with them, before PUBCOMP: from there the client may use it for another message.

use super::{Shard, Wait, format};
use crate::base::{ConnectionId, PacketId, QoS, SessionId, ShardId};
use crate::log::{Health, Origin, Refused, Sequence, StateId, StateKind};
use crate::session::{Outcome, Ready};
use crate::shard::peer::PeerMessage;
use hashbrown::HashMap;

/// An origin that is being forgotten everywhere, and who waits for that.
#[derive(Debug)]
pub(in crate::shard) struct Completing {
    session: SessionId,
    packet_id: PacketId,
    missing: u32,
    then: Then,
}

#[derive(Clone, Copy, Debug)]
enum Then {
    /// PUBCOMP leaves. `known`: the identifier was in use.
    Complete { connection: ConnectionId, known: bool },
    /// A PUBREC that refuses leaves: the client may use the identifier again from there.
    Refuse { sequence: u64 },
}

/// PUBRELs of identifiers that are not in use that wait for the disks of all shards; more are answered at once.
const UNKNOWN_MAX: usize = 4096;

impl Shard {
    /// The origin of a publish: of a session that outlives its connection, with QoS 2.
    pub(in crate::shard) fn origin(&self, session: u32, packet_id: PacketId, qos: QoS) -> Option<Origin> {
        let kept = self.sessions.at(session)?.durable.as_ref()?;
        (qos == QoS::ExactlyOnce)
            .then_some(Origin { publisher: kept.publisher, packet_id: packet_id.value() })
    }

    /// Keeps a packet identifier: whether its PUBREC has to wait for that.
    ///
    /// # Errors
    /// If the log has failed: what the client is told.
    pub(in crate::shard) fn keep_received(
        &mut self,
        session: u32,
        sequence: u64,
        packet_id: PacketId,
    ) -> Result<bool, Outcome> {
        let Some(id) = self.sessions.id_at(session) else { return Ok(false) };
        match self.write_received(session, packet_id) {
            Ok(None) => Ok(false),
            Ok(Some(commit)) => {
                self.after_commit(commit, Wait::Received(id, sequence));
                Ok(true)
            }
            Err(Refused::Full) => {
                // All targets have it: the client waits until there is space.
                if let Some(durable) = &mut self.durable {
                    durable.unrecorded.push((id, sequence, packet_id));
                }
                Ok(true)
            }
            Err(refused) => Err(self.refused(refused)),
        }
    }

    fn write_received(&mut self, session: u32, packet_id: PacketId) -> Result<Option<Sequence>, Refused> {
        let Some(entry) = self.sessions.at_mut(session) else { return Ok(None) };
        let (Some(durable), Some(kept)) = (&mut self.durable, &mut entry.durable) else { return Ok(None) };
        if kept.received.iter().any(|(of, _)| *of == packet_id.value()) {
            return Ok(Some(durable.log.last()));
        }
        format::put_packet_id(packet_id.value(), &mut durable.value);
        let owner = Some(kept.stream);
        let (state, commit) = durable.log.put(StateKind::Received, entry.vhost, owner, &durable.value)?;
        kept.received.push((packet_id.value(), state));
        Ok(Some(commit))
    }

    /// There may be space again.
    pub(super) fn record_unrecorded(&mut self) {
        let Some(durable) = &mut self.durable else { return };
        if durable.unrecorded.is_empty() || durable.log.health() != Health::Good {
            return;
        }
        for (session, sequence, packet_id) in std::mem::take(&mut durable.unrecorded) {
            if self.sessions.get_mut(session).is_none() {
                continue;
            }
            match self.keep_received(session.slot, sequence, packet_id) {
                Ok(true) => {}
                Ok(false) => self.settle_ack(session, sequence, Outcome::default()),
                Err(outcome) => self.settle_ack(session, sequence, outcome),
            }
        }
    }

    pub(super) fn write_received_again(&mut self, state: StateId) -> bool {
        let found = self.sessions.iter().find_map(|(slot, entry)| {
            let kept = entry.durable.as_ref()?;
            kept.received.iter().find(|(_, of)| *of == state).map(|(packet_id, _)| (slot, *packet_id))
        });
        let Some((session, packet_id)) = found else { return false };
        let Some(vhost) = self.sessions.at(session).map(|entry| entry.vhost) else { return false };
        if let Some(durable) = &mut self.durable {
            format::put_packet_id(packet_id, &mut durable.value);
            let _ = durable.log.replace(state, StateKind::Received, vhost, &durable.value);
        }
        true
    }

    /// PUBREL of a session on disk: has the identifier and its origins forgotten. `false` if PUBCOMP need not wait.
    pub(in crate::shard) fn release(
        &mut self,
        slot: u32,
        session: u32,
        packet_id: PacketId,
        known: bool,
    ) -> bool {
        if !known && self.completing.len() >= UNKNOWN_MAX {
            return false;
        }
        let Some(origin) = self.origin(session, packet_id, QoS::ExactlyOnce) else { return false };
        let (Some(id), Some(connection)) = (self.sessions.id_at(session), self.links.id_at(slot)) else {
            return false;
        };
        let entry = self.sessions.at_mut(session).expect("has an id");
        let Some(kept) = &mut entry.durable else { return false };
        let at = kept.received.iter().position(|(of, _)| *of == packet_id.value());
        let state = at.map(|at| kept.received.swap_remove(at).1);
        self.clear_state(state);
        self.forget_everywhere(id, origin, packet_id, Then::Complete { connection, known });
        true
    }

    fn forget_everywhere(&mut self, session: SessionId, origin: Origin, packet_id: PacketId, then: Then) {
        let others: Vec<ShardId> = self.mesh.others().collect();
        let missing = 1 + u32::try_from(others.len()).expect("shards are u16");
        let token = self.completing.insert(Completing { session, packet_id, missing, then });
        for shard in others {
            self.mesh.to(shard).push(PeerMessage::Forget { origin, token: Some(token) });
        }
        let commit = self.forget_origin(origin);
        self.after_commit(commit, Wait::Complete(token));
    }

    /// An origin is released: gives the commit after which that is safe.
    fn forget_origin(&mut self, origin: Origin) -> Sequence {
        let Some(durable) = &mut self.durable else { return Sequence::default() };
        let _ = durable.log.forget(origin);
        durable.log.flush().unwrap_or(Sequence(u64::MAX))
    }

    /// Another shard's publisher has released an origin.
    pub(in crate::shard) fn on_forget(&mut self, from: ShardId, origin: Origin, token: Option<(u32, u32)>) {
        let Some(token) = token else { return self.forget_for_good(origin) };
        // Its publisher waited only for those who had to have it.
        self.drop_origin(origin);
        let Some(durable) = &mut self.durable else {
            return self.mesh.to(from).push(PeerMessage::Forgotten { token });
        };
        let known = durable.log.forget(origin).unwrap_or(true);
        // Forgotten before, it may not be on disk yet.
        let last = durable.log.last();
        let commit = if known { durable.log.flush().unwrap_or(Sequence(u64::MAX)) } else { last };
        self.after_commit(commit, Wait::Forgotten(from, token));
    }

    /// What a session on disk has published and not released: its origins.
    pub(super) fn unreleased(&self, session: u32) -> Box<[Origin]> {
        let Some(entry) = self.sessions.at(session) else { return Box::default() };
        let Some(publisher) = entry.durable.as_ref().map(|kept| kept.publisher) else {
            return Box::default();
        };
        let received = entry.incoming.iter().flat_map(|incoming| incoming.received.iter());
        let strays = entry.extra.iter().flat_map(|extra| extra.strays.iter().copied());
        received.chain(strays).map(|id| Origin { publisher, packet_id: id.value() }).collect()
    }

    /// A publisher's session is over, on disk too: no crash brings it back to repeat what it has not released.
    pub(super) fn forget_publisher(&mut self, origins: &[Origin]) {
        for origin in origins {
            for shard in self.mesh.others() {
                self.mesh.to(shard).push(PeerMessage::Forget { origin: *origin, token: None });
            }
            self.forget_for_good(*origin);
        }
    }

    fn forget_for_good(&mut self, origin: Origin) {
        self.drop_origin(origin);
        if let Some(durable) = &mut self.durable {
            // Lazy: after a crash it is found unclaimed.
            let _ = durable.log.forget(origin);
        }
    }

    /// After a start: publishers' sessions may be over, or may end before they say what they have not released.
    pub(super) fn claim_origins(&mut self) {
        let Some(durable) = &self.durable else { return };
        let origins: Vec<Origin> = durable.log.origins().collect();
        self.pass_on_unclaimed(self.id, origins);
    }

    /// Takes out the origins whose publisher is here, and passes the rest on.
    pub(in crate::shard) fn on_unclaimed(&mut self, shard: ShardId, origins: Vec<Origin>) {
        if shard == self.id {
            // All have seen it.
            return origins.into_iter().for_each(|origin| self.forget_for_good(origin));
        }
        self.pass_on_unclaimed(shard, origins);
    }

    fn pass_on_unclaimed(&mut self, shard: ShardId, origins: Vec<Origin>) {
        if origins.is_empty() {
            return;
        }
        let mut unclaimed: HashMap<u64, Vec<PacketId>> = HashMap::new();
        for Origin { publisher, packet_id } in origins {
            unclaimed.entry(publisher).or_default().extend(PacketId::new(packet_id));
        }
        let publishers: Vec<(u32, u64)> = self
            .sessions
            .iter()
            .filter_map(|(slot, entry)| Some((slot, entry.durable.as_ref()?.publisher)))
            .filter(|(_, publisher)| unclaimed.contains_key(publisher))
            .collect();
        for (slot, publisher) in publishers {
            let strays = unclaimed.remove(&publisher).unwrap_or_default();
            if let Some(entry) = self.sessions.at_mut(slot) {
                entry.extra().strays.extend(strays);
            }
        }
        let origins = unclaimed.into_iter().flat_map(|(publisher, packet_ids)| {
            packet_ids.into_iter().map(move |id| Origin { publisher, packet_id: id.value() })
        });
        let origins: Vec<Origin> = origins.collect();
        let next = ShardId((self.id.0 + 1) % self.shards);
        if next == self.id {
            self.on_unclaimed(shard, origins);
        } else {
            self.mesh.to(next).push(PeerMessage::Unclaimed { shard, origins });
        }
    }

    /// One of the things a PUBCOMP waits for has happened.
    pub(in crate::shard) fn complete_step_done(&mut self, token: (u32, u32)) {
        let Some(waiting) = self.completing.get_mut(token.0, token.1) else { return };
        waiting.missing -= 1;
        if waiting.missing > 0 {
            return;
        }
        let Some(done) = self.completing.remove(token.0, token.1) else { return };
        let Some(entry) = self.sessions.get_mut(done.session) else { return };
        let (connection, known) = match done.then {
            Then::Complete { connection, known } => (connection, known),
            Then::Refuse { sequence } => {
                let forgotten = Outcome { forgotten: true, ..Outcome::default() };
                return self.settle_ack(done.session, sequence, forgotten);
            }
        };
        if let Some(incoming) = &mut entry.incoming {
            incoming.received.remove(done.packet_id);
        }
        if entry.connection() == Some(connection.slot) && self.links.get(connection).is_some() {
            self.send_pubcomp(connection.slot, done.packet_id, known);
        }
    }

    /// One of the things an acknowledgement waits for has happened.
    pub(in crate::shard) fn settle_ack(&mut self, session: SessionId, sequence: u64, outcome: Outcome) {
        if self.sessions.get_mut(session).is_none() {
            return;
        }
        self.settle_ack_outcome(session.slot, sequence, outcome);
        self.flush_acks(session.slot);
    }

    /// The same, before anything is sent.
    pub(in crate::shard) fn settle_ack_outcome(&mut self, session: u32, sequence: u64, outcome: Outcome) {
        let incoming = self.sessions.at_mut(session).and_then(|entry| entry.incoming.as_mut());
        let Some(ready) = incoming.and_then(|incoming| incoming.acks.settle(sequence, outcome)) else {
            return;
        };
        if self.is_recorded(session, &ready) {
            return self.forget_refused(session, sequence, &ready);
        }
        let kept = self.keep_received(session, sequence, ready.packet_id);
        let incoming = self.sessions.at_mut(session).and_then(|entry| entry.incoming.as_mut());
        let acks = &mut incoming.expect("had this acknowledgement").acks;
        match kept {
            Ok(true) => acks.wait_for_more(sequence),
            Ok(false) => {}
            Err(outcome) => drop(acks.settle(sequence, outcome)),
        }
    }

    /// A publish is refused that somebody may have kept: before the client hears of it, nobody may take another message with
    /// its packet identifier for this one.
    fn forget_refused(&mut self, session: u32, sequence: u64, ready: &Ready) {
        let is_failed = self.durable.as_ref().is_none_or(|durable| durable.is_failed);
        if !ready.outcome.is_refusal() || ready.outcome.forgotten || is_failed {
            return;
        }
        let Some(origin) = self.origin(session, ready.packet_id, ready.qos) else { return };
        let Some(id) = self.sessions.id_at(session) else { return };
        if let Some(incoming) = self.sessions.at_mut(session).and_then(|entry| entry.incoming.as_mut()) {
            incoming.acks.wait_for_more(sequence);
        }
        self.forget_everywhere(id, origin, ready.packet_id, Then::Refuse { sequence });
    }

    /// Whether nothing of this publish has to be kept before it is acknowledged.
    pub(in crate::shard) fn is_recorded(&self, session: u32, ready: &Ready) -> bool {
        if ready.qos != QoS::ExactlyOnce || ready.outcome.is_refusal() {
            return true;
        }
        let Some(entry) = self.sessions.at(session) else { return true };
        let Some(kept) = entry.durable.as_ref().filter(|_| entry.is_durable()) else { return true };
        kept.received.iter().any(|(of, _)| *of == ready.packet_id.value())
    }
}
