//! Everybody's side of a durable run: what was sent and answered, what came. Acts on nothing; the [`Run`](super::run::Run) does.
//!
//! Cost: a publish and a delivery allocate nothing in steady state.

use super::terms::{CHANGES, Origin, Role, Terms};
use crate::engine::Latency;
use crate::judge::{Arrival, Force, Found, Lane, Probed, RetainedLane, Stream};
use crate::payload::{Payloads, Stamp};
use quelea::base::{PacketId, ReasonCode};
use quelea::client::{Client, Incoming, Message, Publication};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// A publisher with retained topics publishes there every so manieth time.
const RETAINED_EVERY: u64 = 8;
/// In place of a changing session: what was published cleared a retained message.
const CLEARED: u32 = u32::MAX;

/// Something a client's stage depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Note {
    Connected { session_present: bool },
    Refused(ReasonCode),
    Subscribed(ReasonCode),
    Unsubscribed(ReasonCode),
    Disconnected(ReasonCode),
}

/// What is counted as it happens.
#[derive(Clone, Default, Debug)]
pub struct Tally {
    pub published: u64,
    pub acknowledged: u64,
    pub refused: u64,
    /// Sessions of publishers that were gone with messages in flight.
    pub abandoned: u64,
    pub received: u64,
    pub corrupted: u64,
    pub misrouted: u64,
    pub wrong_qos: u64,
    pub wrong_retain: u64,
    pub foreign: u64,
    pub sessions_lost: u64,
    pub retained_checked: u64,
    pub retained_wrong: u64,
    pub retained_lost: u64,
    pub probes: u64,
}

/// A publish whose last acknowledgement has not come.
#[derive(Clone, Copy, Debug)]
struct Pending {
    packet_id: PacketId,
    origin: Origin,
    sequence: u64,
    sent: u64,
    /// PUBREC came: the broker answers for it.
    received: bool,
}

/// One publisher.
#[derive(Default, Debug)]
pub struct Publisher {
    lanes: Vec<u32>,
    retained: Vec<u32>,
    /// Publishes on lanes, and all.
    laned: u64,
    sent: u64,
    pending: VecDeque<Pending>,
    queued: bool,
}

/// What one session got.
#[derive(Default, Debug)]
struct Hearing {
    streams: Vec<Stream>,
    /// Different messages.
    received: u64,
    is_complete: bool,
}

/// A session whose subscriptions change.
#[derive(Default, Debug)]
pub struct Changer {
    pub probed: [Probed; CHANGES as usize],
    /// The request that waits for its answer: which filter, and whether it is a SUBSCRIBE.
    pub request: Option<(u32, bool)>,
}

/// What the reader finds.
#[derive(Default, Debug)]
pub struct Reading {
    floors: Vec<Option<u64>>,
    found: BTreeMap<u32, Found>,
}

/// Everybody.
pub struct World {
    pub terms: Arc<Terms>,
    payloads: Payloads,
    payload: Vec<u8>,
    topic: String,
    pub lanes: Vec<Lane>,
    /// The group of each lane, and the first lane of each group.
    groups: Vec<u32>,
    bases: Vec<u32>,
    hearings: Vec<Hearing>,
    publishers: Vec<Publisher>,
    retained: Vec<RetainedLane>,
    pub changers: Vec<Changer>,
    reading: Reading,
    probing: VecDeque<(u32, u32)>,
    clearing: VecDeque<u32>,
    probe_pending: VecDeque<(PacketId, u32, u32)>,
    pub tally: Tally,
    pub notes: Vec<(u32, Note)>,
    /// Publishers that may have room.
    pub pumps: Vec<u32>,
    /// Sessions that have all they are due, newly.
    pub complete: Vec<u32>,
    pub complete_count: u32,
    /// Nothing is published any more: sessions are looked at as things arrive.
    pub is_draining: bool,
    /// Kills so far. Every other retained topic is left alone between one and the next: what a new subscriber finds there
    /// was kept, not published again.
    pub epoch: u32,
    /// From when until when publishes have their latency counted.
    pub measure: Range<u64>,
    pub ack_latency: Latency,
    pub latency: Latency,
    pub last_arrival: u64,
}

impl World {
    /// Nothing has happened. `lanes` are the publishers of each group.
    pub fn new(terms: Arc<Terms>, lanes: &[Vec<u32>]) -> Self {
        let mut publishers: Vec<Publisher> = (0..terms.publishers).map(|_| Publisher::default()).collect();
        let (mut groups, mut bases) = (Vec::new(), vec![0]);
        for (group, members) in (0..).zip(lanes) {
            for &publisher in members {
                if let Some(publisher) = publishers.get_mut(publisher as usize) {
                    publisher.lanes.push(groups.len() as u32);
                }
                groups.push(group);
            }
            bases.push(groups.len() as u32);
        }
        for number in 0..terms.retained {
            publishers[(number % terms.publishers) as usize].retained.push(number);
        }
        let hearings = (0..terms.sessions)
            .map(|session| {
                let group = (session / terms.fan) as usize;
                let count = bases[group + 1] - bases[group];
                Hearing { streams: (0..count).map(|_| Stream::default()).collect(), ..Hearing::default() }
            })
            .collect();
        Self {
            payloads: Payloads::new(terms.size),
            payload: Vec::new(),
            topic: String::new(),
            lanes: vec![Lane::default(); groups.len()],
            groups,
            bases,
            hearings,
            publishers,
            retained: vec![RetainedLane::default(); terms.retained as usize],
            changers: (0..terms.changers).map(|_| Changer::default()).collect(),
            reading: Reading::default(),
            probing: VecDeque::new(),
            clearing: VecDeque::new(),
            probe_pending: VecDeque::new(),
            tally: Tally::default(),
            notes: Vec::new(),
            pumps: Vec::new(),
            complete: Vec::new(),
            complete_count: 0,
            is_draining: false,
            epoch: 0,
            measure: u64::MAX..u64::MAX,
            ack_latency: Latency::new(),
            latency: Latency::new(),
            last_arrival: 0,
            terms,
        }
    }

    /// Something arrived for the client in `slot`.
    #[inline]
    pub fn on_incoming(&mut self, slot: u32, now: u64, incoming: &Incoming<'_>) {
        let note = match *incoming {
            Incoming::Message(ref message) => return self.on_message(slot, now, message),
            Incoming::Received { packet_id, .. } => return self.on_received(slot, packet_id, now),
            Incoming::Acknowledged { packet_id, reason } => {
                return self.on_acknowledged(slot, packet_id, reason, now);
            }
            Incoming::Connected(connack) => Note::Connected { session_present: connack.session_present },
            Incoming::Refused(connack) => Note::Refused(connack.reason),
            Incoming::Subscribed(suback) => {
                let worst = suback.codes().max_by_key(|code| code.byte());
                Note::Subscribed(worst.unwrap_or(ReasonCode::UnspecifiedError))
            }
            Incoming::Unsubscribed(unsuback) => {
                Note::Unsubscribed(unsuback.codes().next().unwrap_or(ReasonCode::Success))
            }
            Incoming::Disconnected { reason } => Note::Disconnected(reason),
            Incoming::Released { .. } | Incoming::Pong | Incoming::Auth(_) => return,
        };
        self.notes.push((slot, note));
    }

    fn on_message(&mut self, slot: u32, now: u64, message: &Message<'_>) {
        let role = self.terms.role(slot);
        if role == Role::Reader && message.payload.is_empty() {
            return self.on_clear(now, message.topic);
        }
        let Ok(stamp) = self.payloads.read(message.payload) else {
            self.tally.corrupted += 1;
            return;
        };
        if stamp.run != self.terms.run {
            self.tally.foreign += 1;
            return;
        }
        let origin = self.terms.origin(stamp.publisher, self.lanes.len() as u32);
        let mut topic = std::mem::take(&mut self.topic);
        if let Some(origin) = origin {
            let group = if let Origin::Lane(lane) = origin { self.groups[lane as usize] } else { 0 };
            self.terms.topic(origin, group, &mut topic);
        }
        let is_right = origin.is_some() && topic == message.topic;
        self.topic = topic;
        match (role, origin) {
            (Role::Session(session), Some(Origin::Lane(lane))) if is_right && self.hears(session, lane) => {
                self.on_delivery(session, lane, now, stamp, message);
            }
            (Role::Changer(changer), Some(Origin::Probe(of, change))) if is_right && of == changer => {
                self.changers[changer as usize].probed[change as usize].take(stamp.sequence);
                self.last_arrival = now;
            }
            // What changes meanwhile may come live instead of as retained: the last counts.
            (Role::Reader, Some(Origin::Retained(number))) if is_right => {
                self.reading.found.insert(number, Found::Message(stamp.sequence));
                self.last_arrival = now;
            }
            _ => self.tally.misrouted += 1,
        }
    }

    /// A retained message was cleared while the reader was there.
    fn on_clear(&mut self, now: u64, topic: &str) {
        let number = topic.strip_prefix(&self.terms.prefix).and_then(|rest| rest.strip_prefix("/r/"));
        match number.and_then(|number| number.parse().ok()).filter(|&number| number < self.terms.retained) {
            Some(number) => drop(self.reading.found.insert(number, Found::Nothing)),
            None => self.tally.misrouted += 1,
        }
        self.last_arrival = now;
    }

    fn hears(&self, session: u32, lane: u32) -> bool {
        self.groups[lane as usize] == session / self.terms.fan
    }

    fn on_delivery(&mut self, session: u32, lane: u32, now: u64, stamp: Stamp, message: &Message<'_>) {
        self.tally.wrong_qos += u64::from(message.qos != self.terms.delivery_qos());
        self.tally.wrong_retain += u64::from(message.retain);
        self.last_arrival = now;
        let base = self.bases[(session / self.terms.fan) as usize];
        let hearing = &mut self.hearings[session as usize];
        if hearing.streams[(lane - base) as usize].take(stamp.sequence) == Arrival::Again {
            return;
        }
        hearing.received += 1;
        self.tally.received += 1;
        if self.is_draining {
            self.look(session);
        }
        if self.terms.is_steady && session < self.terms.online && self.measure.contains(&stamp.intended) {
            self.latency.record(now.saturating_sub(stamp.intended));
        }
    }

    /// Publishes are over: notes whether a session has all it is due.
    pub fn look(&mut self, session: u32) {
        let group = (session / self.terms.fan) as usize;
        let lanes = self.bases[group] as usize..self.bases[group + 1] as usize;
        let hearing = &mut self.hearings[session as usize];
        let due: u64 = self.lanes[lanes.clone()].iter().map(Lane::due).sum();
        if hearing.is_complete || hearing.received < due {
            return;
        }
        // What is uncertain may have come, and something that is due not.
        if self.lanes[lanes].iter().zip(&hearing.streams).all(|(lane, stream)| lane.lost(stream) == 0) {
            hearing.is_complete = true;
            self.complete_count += 1;
            self.complete.push(session);
        }
    }

    fn on_received(&mut self, slot: u32, packet_id: PacketId, now: u64) {
        let Role::Publisher(publisher) = self.terms.role(slot) else { return };
        let pending = &mut self.publishers[publisher as usize].pending;
        let Some(pending) = pending.iter_mut().find(|pending| pending.packet_id == packet_id) else { return };
        if !std::mem::replace(&mut pending.received, true) {
            let pending = *pending;
            self.answered(pending, now);
        }
    }

    fn on_acknowledged(&mut self, slot: u32, packet_id: PacketId, reason: ReasonCode, now: u64) {
        let publisher = match self.terms.role(slot) {
            Role::Publisher(publisher) => publisher,
            Role::Prober => return self.on_probed(packet_id, reason),
            Role::Session(_) | Role::Changer(_) | Role::Reader => return,
        };
        let of = &mut self.publishers[publisher as usize];
        let index = of.pending.iter().position(|pending| pending.packet_id == packet_id);
        let Some(pending) = index.and_then(|index| of.pending.remove(index)) else { return };
        if !pending.received {
            if reason.is_error() {
                self.tally.refused += 1;
                self.unsure(pending);
            } else {
                self.answered(pending, now);
            }
        }
        self.pump(publisher);
    }

    /// The broker answers for a message from now on.
    fn answered(&mut self, pending: Pending, now: u64) {
        self.tally.acknowledged += 1;
        if self.measure.contains(&pending.sent) {
            self.ack_latency.record(now.saturating_sub(pending.sent));
        }
        if let Origin::Retained(number) = pending.origin {
            self.retained[number as usize].acknowledge(pending.sequence);
        }
    }

    fn unsure(&mut self, pending: Pending) {
        if let Origin::Lane(lane) = pending.origin {
            self.lanes[lane as usize].uncertain.insert(pending.sequence);
        }
    }

    /// The session of a publisher is gone, or the run is over: nobody answers for what is in flight.
    pub fn abandon(&mut self, publisher: u32) {
        let pending = std::mem::take(&mut self.publishers[publisher as usize].pending);
        for pending in pending.into_iter().filter(|pending| !pending.received) {
            self.tally.abandoned += 1;
            self.unsure(pending);
        }
        self.pump(publisher);
    }

    /// Publishes of all that wait for an answer.
    pub fn pending(&self) -> usize {
        self.publishers.iter().map(|publisher| publisher.pending.len()).sum()
    }

    /// Puts a publisher among those that may have room.
    pub fn pump(&mut self, publisher: u32) {
        if !std::mem::replace(&mut self.publishers[publisher as usize].queued, true) {
            self.pumps.push(publisher);
        }
    }

    /// The publisher is about to publish what it may.
    pub fn unqueue(&mut self, publisher: u32) {
        self.publishers[publisher as usize].queued = false;
    }

    /// A publisher publishes its next message, unless `queued` are on each of its lanes. Says whether it did.
    pub fn publish(&mut self, publisher: u32, client: &mut Client, now: u64, queued: Option<u64>) -> bool {
        let of = &mut self.publishers[publisher as usize];
        let is_enough = queued.is_some_and(|queued| of.laned >= queued * of.lanes.len() as u64);
        let is_retained = !of.retained.is_empty() && of.sent % RETAINED_EVERY == RETAINED_EVERY - 1;
        if is_enough || of.lanes.is_empty() || !client.can_publish() {
            return false;
        }
        let turn = (of.sent / RETAINED_EVERY) as usize;
        let retained = || of.retained.get(turn % of.retained.len()).copied();
        let retained = is_retained.then(retained).flatten();
        let origin = match retained.filter(|number| (number + self.epoch).is_multiple_of(2)) {
            Some(number) => Origin::Retained(number),
            None => {
                let lane = of.lanes[(of.laned % of.lanes.len() as u64) as usize];
                of.laned += 1;
                Origin::Lane(lane)
            }
        };
        of.sent += 1;
        let (sequence, group) = match origin {
            Origin::Lane(lane) => (self.lanes[lane as usize].publish(), self.groups[lane as usize]),
            Origin::Retained(number) => (self.retained[number as usize].publish(), 0),
            Origin::Probe(..) => unreachable!("publishers do not probe"),
        };
        let packet_id = self.send(client, origin, group, sequence, now);
        let pending = Pending { packet_id, origin, sequence, sent: now, received: false };
        self.publishers[publisher as usize].pending.push_back(pending);
        self.tally.published += 1;
        true
    }

    fn send(&mut self, client: &mut Client, origin: Origin, group: u32, sequence: u64, now: u64) -> PacketId {
        let publisher = self.terms.publisher(origin, self.lanes.len() as u32);
        let stamp = Stamp { run: self.terms.run, publisher, sequence, intended: now };
        let is_retained = matches!(origin, Origin::Retained(_));
        self.payload.clear();
        if !(is_retained && RetainedLane::is_clear(sequence)) {
            self.payloads.write(stamp, &mut self.payload);
        }
        self.terms.topic(origin, group, &mut self.topic);
        let mut publication = Publication::new(&self.topic, &self.payload, self.terms.qos);
        publication.retain = is_retained;
        let sent = client.publish(crate::clock::mqtt(now), &publication);
        sent.expect("there was room").expect("QoS 1 and 2 have a packet id")
    }

    /// The reader is about to subscribe.
    pub fn begin_reading(&mut self) {
        self.reading.found.clear();
        self.reading.floors = self.retained.iter().map(RetainedLane::floor).collect();
    }

    /// Whether something retained must still come to the reader.
    pub fn is_reading(&self) -> bool {
        (0..).zip(self.reading.floors.iter().zip(&self.retained)).any(|(number, (&floor, lane))| {
            !self.reading.found.contains_key(&number) && !lane.may_be_nothing(floor)
        })
    }

    /// What the reader found is what it is.
    pub fn end_reading(&mut self) {
        for (number, (&floor, lane)) in (0..).zip(self.reading.floors.iter().zip(&self.retained)) {
            let found = self.reading.found.get(&number).copied().unwrap_or(Found::Nothing);
            self.tally.retained_checked += 1;
            if lane.is_right(floor, found) {
                continue;
            }
            match found {
                Found::Message(_) => self.tally.retained_wrong += 1,
                Found::Nothing => self.tally.retained_lost += 1,
            }
        }
    }

    /// Every changing subscription is to be probed.
    pub fn begin_probing(&mut self) {
        let changers = 0..self.terms.changers;
        self.probing =
            changers.flat_map(|changer| (0..CHANGES).map(move |change| (changer, change))).collect();
    }

    /// Publishes the next probe, if there is one and room. Says whether it did.
    pub fn probe(&mut self, client: &mut Client, now: u64) -> bool {
        if !client.can_publish() {
            return false;
        }
        if let Some(number) = self.clearing.pop_front() {
            self.terms.topic(Origin::Retained(number), 0, &mut self.topic);
            let mut publication = Publication::new(&self.topic, &[], self.terms.qos);
            publication.retain = true;
            let sent = client.publish(crate::clock::mqtt(now), &publication);
            let packet_id = sent.expect("there was room").expect("QoS 1 and 2 have a packet id");
            self.probe_pending.push_back((packet_id, CLEARED, number));
            return true;
        }
        let Some((changer, change)) = self.probing.pop_front() else { return false };
        let sequence = self.changers[changer as usize].probed[change as usize].probe();
        let packet_id = self.send(client, Origin::Probe(changer, change), 0, sequence, now);
        self.probe_pending.push_back((packet_id, changer, change));
        self.tally.probes += 1;
        true
    }

    /// Every retained message is to be cleared.
    pub fn begin_clearing(&mut self) {
        self.clearing = (0..self.terms.retained).collect();
    }

    /// Whether clears must still be sent or answered.
    pub fn is_clearing(&self) -> bool {
        !self.clearing.is_empty() || !self.probe_pending.is_empty()
    }

    fn on_probed(&mut self, packet_id: PacketId, reason: ReasonCode) {
        let index = self.probe_pending.iter().position(|(other, ..)| *other == packet_id);
        let Some((_, changer, change)) = index.and_then(|index| self.probe_pending.remove(index)) else {
            return;
        };
        if reason.is_error() && changer != CLEARED {
            self.changers[changer as usize].probed[change as usize].unsure();
        }
    }

    /// Whether probes must still be sent, answered or delivered.
    pub fn is_probing(&self) -> bool {
        !self.probing.is_empty()
            || !self.probe_pending.is_empty()
            || self.changers.iter().flat_map(|changer| &changer.probed).any(Probed::is_waiting)
    }

    /// The prober's connection ended, or it had long enough.
    pub fn end_probing(&mut self) {
        self.probing.clear();
        let pending = std::mem::take(&mut self.probe_pending).into_iter();
        for (_, changer, change) in pending.filter(|(_, changer, _)| *changer != CLEARED) {
            self.changers[changer as usize].probed[change as usize].unsure();
        }
    }

    /// An answer to a changing session's request; `None` if its connection ended first.
    pub fn on_changed(&mut self, changer: u32, reason: Option<ReasonCode>) {
        let changer = &mut self.changers[changer as usize];
        let Some((change, is_subscribe)) = changer.request.take() else { return };
        changer.probed[change as usize].force = match reason {
            None => Force::Uncertain,
            Some(reason) if reason.is_error() => Force::Uncertain,
            Some(_) if is_subscribe => Force::On,
            Some(_) => Force::Off,
        };
    }

    /// The session of a changer is gone: nothing is known any more.
    pub fn on_changer_lost(&mut self, changer: u32) {
        let changer = &mut self.changers[changer as usize];
        changer.request = None;
        changer.probed.iter_mut().for_each(|probed| probed.force = Force::Off);
    }

    /// Due, received, lost, again, out of order, over all sessions.
    pub fn deliveries(&self) -> Deliveries {
        let mut all = Deliveries::default();
        for (session, hearing) in self.hearings.iter().enumerate() {
            let base = self.bases[session / self.terms.fan as usize] as usize;
            for (lane, stream) in self.lanes[base..].iter().zip(&hearing.streams) {
                all.due += lane.due();
                all.lost += lane.lost(stream);
                all.duplicated += stream.duplicated();
                all.out_of_order += stream.out_of_order();
            }
        }
        all.uncertain = self.lanes.iter().map(|lane| lane.uncertain.len() as u64).sum();
        let probed = || self.changers.iter().flat_map(|changer| &changer.probed);
        all.subscriptions_lost = probed().map(Probed::lost).sum();
        all.subscriptions_back = probed().map(|probed| probed.phantoms).sum();
        all
    }
}

/// What it came to.
#[derive(Clone, Copy, Default, Debug)]
pub struct Deliveries {
    pub due: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub out_of_order: u64,
    /// Messages that nobody answers for.
    pub uncertain: u64,
    pub subscriptions_lost: u64,
    pub subscriptions_back: u64,
}
