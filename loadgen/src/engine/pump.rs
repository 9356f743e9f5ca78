//! Publishing: when each message is due, and whether its publisher has room.
//!
//! Open loop: message `n` of publisher `p` is due at `start + (n x publishers + p) / rate`, so the messages of all publishers are
//! evenly spaced over all threads. What cannot be sent when it is due is sent later, and its latency counts from when it was due.
//!
//! Closed loop: a publisher publishes until it is `inflight` messages ahead of its subscribers (in the mean of its subscribers,
//! if there are many). If nothing is seen for a second, what is out is forgiven: lost messages must not stop the loop.

use super::connection::Stage;
use super::publisher::Publisher;
use super::worker::{Worker, lend, reclaim};
use crate::clock::{self, SECOND};
use crate::payload::Stamp;
use crate::plan::{Pace, Plan};
use crate::scenario::{Share, Wiring};
use quelea::base::QoS;
use quelea::client::Publication;
use std::ops::Range;

/// Bytes that wait for one socket at most before its publisher waits: beyond, the broker is the slower one.
const OUT_MAX: usize = 256 << 10;

/// Messages a publisher publishes before others have their turn.
const RUN_MAX: u32 = 1024;

/// When messages are due.
pub struct Schedule {
    pace: Pace,
    /// Publishers of this thread, by number in the run.
    own: Range<u32>,
    publishers: u64,
    /// Messages due: each round has one of each publisher.
    round: u64,
    next: u32,
    start: u64,
    stop: u64,
    pub published: u64,
}

impl Schedule {
    /// Nothing is due before [`begin`](Self::begin).
    pub fn new(plan: &Plan, share: &Share) -> Self {
        Self {
            pace: plan.pace,
            own: share.publishers.clone(),
            publishers: u64::from(plan.topology.publishers),
            round: 0,
            next: share.publishers.start,
            start: u64::MAX,
            stop: u64::MAX,
            published: 0,
        }
    }

    /// Publishing is from `start` to `stop`.
    pub fn begin(&mut self, start: u64, stop: u64) {
        (self.start, self.stop) = (start, stop);
    }

    /// Publishing is over.
    pub fn end(&mut self) {
        self.start = u64::MAX;
    }

    pub fn is_closed(&self) -> bool {
        matches!(self.pace, Pace::Closed { .. })
    }

    /// When a message is due.
    fn intended(&self, round: u64, publisher: u32, now: u64) -> u64 {
        match self.pace {
            Pace::Closed { .. } => now.max(self.start),
            Pace::Open { rate } => {
                let before = (round * self.publishers + u64::from(publisher)) as f64;
                self.start.saturating_add((before * (SECOND as f64 / rate)) as u64)
            }
        }
    }

    /// Messages of one publisher of an open loop that are due before the end.
    fn due_in_all(&self, publisher: u32) -> u64 {
        let Pace::Open { rate } = self.pace else { return 0 };
        let slots = self.stop.saturating_sub(self.start) as f64 * rate / SECOND as f64;
        let mut count = ((slots - f64::from(publisher)) / self.publishers as f64).ceil().max(0.0) as u64;
        // Rounding must not make a difference to `intended`.
        while self.intended(count, publisher, 0) < self.stop {
            count += 1;
        }
        while count > 0 && self.intended(count - 1, publisher, 0) >= self.stop {
            count -= 1;
        }
        count
    }

    /// When the thread has to publish next though nothing happens; `None` if never.
    pub fn due(&self) -> Option<u64> {
        if self.start == u64::MAX || self.own.is_empty() {
            return None;
        }
        match self.pace {
            Pace::Closed { .. } => None,
            Pace::Open { .. } => Some(self.intended(self.round, self.next, 0)).filter(|&due| due < self.stop),
        }
    }

    fn advance(&mut self) {
        self.next += 1;
        if self.next == self.own.end {
            self.next = self.own.start;
            self.round += 1;
        }
    }
}

impl Worker {
    /// Lets publishers publish what is due. Says whether there is more to do at once.
    pub(super) fn keep_publishing(&mut self) -> bool {
        self.now = clock::now();
        // An open loop goes on after the end with what was due before.
        let is_over = self.now >= self.schedule.stop && self.schedule.is_closed();
        if self.now < self.schedule.start || is_over {
            return false;
        }
        while let Some(due) = self.schedule.due().filter(|&due| due <= self.now) {
            self.lag.record(self.now - due);
            self.roles.queue(self.schedule.next - self.schedule.own.start);
            self.schedule.advance();
        }
        if self.roles.is_heard_elsewhere() && self.schedule.is_closed() {
            for index in 0..self.roles.publishers.len() {
                self.roles.queue(index as u32);
            }
        }
        for _ in 0..self.roles.pumps.len() {
            let Some(index) = self.roles.pumps.pop() else { break };
            self.roles.publishers[index as usize].queued = false;
            if self.pump(index) {
                self.roles.queue(index);
                // Its turn comes after the others'.
                let last = self.roles.pumps.len() - 1;
                self.roles.pumps.swap(0, last);
            }
        }
        !self.roles.pumps.is_empty()
    }

    /// Publishes what publisher `index` may. Says whether it may publish more at once.
    fn pump(&mut self, index: u32) -> bool {
        let publisher = &mut self.roles.publishers[index as usize];
        let Some(slot) = publisher.slot else { return false };
        let connection = &mut self.connections[slot as usize];
        if connection.stage != Stage::Ready {
            return false;
        }
        lend(&mut self.spare, &mut connection.client);
        let mut room = self.room(index);
        let publisher = &mut self.roles.publishers[index as usize];
        let connection = &mut self.connections[slot as usize];
        let acknowledged = self.plan.qos != QoS::AtMostOnce;
        let mqtt = clock::mqtt(self.now);
        let mut published = 0;
        while published < RUN_MAX && room > 0 {
            let intended = self.schedule.intended(publisher.sequence, publisher.id, self.now);
            if intended > self.now
                || intended >= self.schedule.stop
                || connection.client.out_mut().len() >= OUT_MAX
                || acknowledged && publisher.pending() >= self.plan.unacknowledged_max
            {
                break;
            }
            let (topic, sequence, lane) = address(&self.plan, publisher, &mut self.topic);
            let stamp = Stamp { run: self.plan.run, publisher: publisher.id, sequence, intended };
            self.payload.clear();
            let payload = &mut self.payload;
            self.roles.payloads.write(stamp, payload);
            let publication = Publication::new(topic, payload, self.plan.qos);
            let Ok(packet_id) = connection.client.publish(mqtt, &publication) else { break };
            publisher.on_published(packet_id, self.now);
            if let Some(next) = publisher.lanes.get_mut(lane) {
                *next += 1;
            }
            published += 1;
            room -= 1;
        }
        reclaim(&mut self.spare, &mut connection.client);
        self.schedule.published += u64::from(published);
        self.touch(slot);
        published == RUN_MAX && room > 0
    }

    /// Messages that publisher `index` may publish, as far as its subscribers go.
    fn room(&self, index: u32) -> u64 {
        let Pace::Closed { inflight } = self.plan.pace else { return u64::MAX };
        let publisher = &self.roles.publishers[index as usize];
        let fan = self.plan.topology.fan();
        let gone = self.roles.seen(publisher.id) + publisher.forgiven;
        (inflight * fan).saturating_sub((publisher.sequence * fan).saturating_sub(gone)) / fan
    }

    /// Whether a subscriber on another thread has made room since the last look.
    pub(super) fn has_room_again(&self) -> bool {
        let waits = self.roles.is_heard_elsewhere()
            && self.schedule.is_closed()
            && (self.schedule.start..self.schedule.stop).contains(&self.now);
        waits
            && self.roles.publishers.iter().enumerate().any(|(index, publisher)| {
                let slot = publisher.slot.map(|slot| &self.connections[slot as usize]);
                slot.is_some_and(|connection| connection.stage == Stage::Ready && !connection.sending)
                    && publisher.pending() < self.plan.unacknowledged_max
                    && self.room(index as u32) > 0
            })
    }

    /// Once a second: what was out all the time and never seen is not waited for any more.
    pub(super) fn forgive(&mut self) {
        if !self.schedule.is_closed() || self.now >= self.schedule.stop {
            return;
        }
        for index in 0..self.roles.publishers.len() {
            let is_blocked = self.room(index as u32) == 0;
            let id = self.roles.publishers[index].id;
            let seen = self.roles.seen(id);
            let fan = self.plan.topology.fan();
            let publisher = &mut self.roles.publishers[index];
            if is_blocked && publisher.was_blocked && seen == publisher.last_seen {
                publisher.forgiven = (publisher.sequence * fan).saturating_sub(seen);
                self.roles.queue(index as u32);
            }
            let publisher = &mut self.roles.publishers[index];
            publisher.was_blocked = is_blocked;
            publisher.last_seen = seen;
        }
    }

    /// Publishing is over: what was due and not sent is counted.
    pub(super) fn finish_publishing(&mut self) {
        for publisher in &self.roles.publishers {
            let due = self.schedule.due_in_all(publisher.id);
            self.roles.counts.unsent += due.saturating_sub(publisher.sequence);
        }
        self.schedule.end();
    }
}

/// Where a publisher's next message goes: topic, number, and the lane that the number belongs to.
#[inline]
fn address<'a>(plan: &Plan, publisher: &'a Publisher, buffer: &'a mut String) -> (&'a str, u64, usize) {
    let Wiring::Topics(topics) = plan.topology.wiring else {
        return (&publisher.topic, publisher.sequence, 0);
    };
    let subscriber = topics.subscriber(publisher.id, publisher.sequence);
    let sequence = publisher.lanes[subscriber as usize];
    topics.write(&plan.prefix, topics.pick(publisher.id, subscriber, sequence), buffer);
    (buffer, sequence, subscriber as usize)
}
