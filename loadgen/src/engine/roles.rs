//! What clients are for: publishers and subscribers of one thread, and what happens when something arrives for them.
//!
//! Cost: a delivered message is a dozen comparisons, two counters and one histogram entry; nothing is allocated.

use super::connection::Role;
use super::histogram::Latency;
use super::publisher::Publisher;
use super::shared::Shared;
use crate::judge::{Arrival, Counts, Stream};
use crate::payload::{Payloads, Stamp};
use crate::plan::Plan;
use crate::scenario::{Share, Wiring, is_topic, topic};
use quelea::base::{QoS, ReasonCode};
use quelea::client::{Incoming, Message};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What changes how far a client is; the worker acts on it after the bytes were handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Note {
    Connected,
    Refused(ReasonCode),
    Subscribed(ReasonCode),
    Pong,
    Disconnected(ReasonCode),
}

/// A subscriber of one thread.
pub struct Subscriber {
    /// Its number in the run.
    pub number: u32,
    /// Filters it has asked for.
    pub subscribed: u32,
    pub hears: Range<u32>,
    pub is_dead: bool,
    pub streams: Vec<Stream>,
}

/// Publishers and subscribers of one thread, and what was counted.
pub struct Roles {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    pub payloads: Payloads,
    delivery_qos: QoS,
    /// Publishers of this thread, by number in the run.
    own: Range<u32>,
    /// Where each thread's publishers end.
    ends: Vec<u32>,
    pub publishers: Vec<Publisher>,
    pub subscribers: Vec<Subscriber>,
    /// Publishers of this thread that may have room again.
    pub pumps: Vec<u32>,
    /// Threads whose publishers may have room again.
    pub bells: Vec<bool>,
    pub notes: Vec<Note>,
    /// Idle clients, by number in the run, that heard the message for them.
    pub heard: BTreeSet<u32>,
    /// The first idle client of this thread, and where their topics are.
    idle_start: u32,
    idle_prefix: String,
    pub counts: Counts,
    pub latency: Latency,
    pub ack_latency: Latency,
    measure: Range<u64>,
}

impl Roles {
    /// The clients of one thread.
    pub fn new(plan: Arc<Plan>, shared: Arc<Shared>, share: &Share) -> Self {
        let lanes = plan.topology.lanes();
        let publishers =
            share.publishers.clone().map(|id| Publisher::new(id, topic(&plan.prefix, id), lanes)).collect();
        let subscribers = share
            .subscribers
            .clone()
            .map(|subscriber| {
                let hears = plan.topology.hears(subscriber);
                let streams = hears.clone().map(|_| Stream::default()).collect();
                Subscriber { number: subscriber, hears, subscribed: 0, is_dead: false, streams }
            })
            .collect();
        let ends = (0..plan.threads)
            .map(|thread| plan.topology.share(thread, plan.threads).publishers.end)
            .collect();
        Self {
            payloads: Payloads::new(plan.size),
            delivery_qos: plan.delivery_qos(),
            own: share.publishers.clone(),
            ends,
            publishers,
            subscribers,
            pumps: Vec::new(),
            bells: vec![false; plan.threads as usize],
            notes: Vec::new(),
            heard: BTreeSet::new(),
            idle_start: share.idle.start,
            idle_prefix: plan.idle_prefix(),
            counts: Counts::default(),
            latency: Latency::new(),
            ack_latency: Latency::new(),
            measure: u64::MAX..u64::MAX,
            plan,
            shared,
        }
    }

    /// Messages intended in this time have their latency counted.
    pub fn measure(&mut self, from: u64, to: u64) {
        self.measure = from..to;
    }

    /// Something arrived for a client, at `now`.
    #[inline]
    pub fn on_incoming(&mut self, role: Role, now: u64, incoming: &Incoming<'_>) {
        match *incoming {
            Incoming::Message(ref message) => match role {
                Role::Subscriber(index) => self.on_message(index, now, message),
                Role::Idle(index) => self.on_idle_message(index, message),
                Role::Publisher(_) => self.counts.misrouted += 1,
            },
            Incoming::Acknowledged { packet_id, reason } => {
                if let Role::Publisher(index) = role {
                    let publisher = &mut self.publishers[index as usize];
                    let Some(acknowledged) = publisher.on_acknowledged(packet_id, reason) else { return };
                    self.counts.acknowledged += 1;
                    self.counts.refused += u64::from(reason.is_error());
                    self.counts.acknowledged_out_of_order += u64::from(acknowledged.out_of_order);
                    if self.measure.contains(&acknowledged.sent) {
                        self.ack_latency.record(now.saturating_sub(acknowledged.sent));
                    }
                    self.queue(index);
                }
            }
            Incoming::Connected(_) => self.notes.push(Note::Connected),
            Incoming::Refused(connack) => self.notes.push(Note::Refused(connack.reason)),
            Incoming::Subscribed(suback) => {
                // The worst of them: refusals are above all grants, and of these the lowest is the worst.
                let worst = suback.codes().min_by_key(|code| (!code.is_error(), code.byte()));
                self.notes.extend(worst.map(Note::Subscribed));
            }
            Incoming::Pong => self.notes.push(Note::Pong),
            Incoming::Disconnected { reason } => self.notes.push(Note::Disconnected(reason)),
            Incoming::Received { .. }
            | Incoming::Released { .. }
            | Incoming::Unsubscribed(_)
            | Incoming::Auth(_) => {}
        }
    }

    /// Who publishes to an idle client says its number, and publishes once.
    fn on_idle_message(&mut self, index: u32, message: &Message<'_>) {
        let number = self.idle_start + index;
        match self.payloads.read(message.payload) {
            Err(_) => self.counts.corrupted += 1,
            Ok(stamp) if stamp.run != self.plan.run => self.counts.foreign += 1,
            Ok(stamp) if stamp.publisher != number || !is_topic(message.topic, &self.idle_prefix, number) => {
                self.counts.misrouted += 1;
            }
            Ok(_) => {
                self.counts.wrong_qos += u64::from(message.qos != self.delivery_qos);
                self.counts.wrong_retain += u64::from(message.retain);
                self.counts.duplicated += u64::from(!self.heard.insert(number));
            }
        }
    }

    fn on_message(&mut self, index: u32, now: u64, message: &Message<'_>) {
        let Ok(stamp) = self.payloads.read(message.payload) else {
            self.counts.corrupted += 1;
            return;
        };
        if stamp.run != self.plan.run {
            self.counts.foreign += 1;
            return;
        }
        let subscriber = &mut self.subscribers[index as usize];
        let id = stamp.publisher;
        if !subscriber.hears.contains(&id) || !is_right(&self.plan, stamp, subscriber.number, message.topic) {
            self.counts.misrouted += 1;
            return;
        }
        self.counts.wrong_qos += u64::from(message.qos != self.delivery_qos);
        self.counts.wrong_retain += u64::from(message.retain);
        let stream = &mut subscriber.streams[(id - subscriber.hears.start) as usize];
        if stream.take(stamp.sequence) == Arrival::Again {
            return;
        }
        self.counts.received += 1;
        self.shared.seen[id as usize].fetch_add(1, Ordering::Release);
        if self.measure.contains(&stamp.intended) {
            self.latency.record(now.saturating_sub(stamp.intended));
        }
        if self.own.contains(&id) {
            self.queue(id - self.own.start);
        } else {
            let owner = self.ends.partition_point(|&end| end <= id);
            self.bells[owner] = true;
        }
    }

    /// Puts a publisher of this thread among those that may publish.
    #[inline]
    pub fn queue(&mut self, index: u32) {
        let publisher = &mut self.publishers[index as usize];
        if !publisher.queued {
            publisher.queued = true;
            self.pumps.push(index);
        }
    }

    /// Deliveries of a publisher's messages.
    pub fn seen(&self, publisher: u32) -> u64 {
        self.shared.seen[publisher as usize].load(Ordering::Acquire)
    }

    /// Whether subscribers of other threads hear publishers of this one.
    pub fn is_heard_elsewhere(&self) -> bool {
        self.plan.threads > 1 && self.plan.topology.wiring != Wiring::Pairs
    }
}

/// Whether a message of `subscriber` came under the topic it was published to.
#[inline]
fn is_right(plan: &Plan, stamp: Stamp, subscriber: u32, name: &str) -> bool {
    if let Wiring::Topics(topics) = plan.topology.wiring {
        return topics.is(name, &plan.prefix, topics.pick(stamp.publisher, subscriber, stamp.sequence));
    }
    is_topic(name, &plan.prefix, stamp.publisher)
}
