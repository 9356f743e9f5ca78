//! Messages to so many that they are worked off in steps, and what waits behind them.
//!
//! A wide message is delivered when it is its turn: some deliveries a step, so that everything else has its turn too. What its publisher
//! sends meanwhile queues up behind it, so that order is kept; what others send does not. Publishers take turns, message by
//! message. Somebody who publishes faster than this shard can deliver is not read from until all is delivered, also if
//! his session lives on another shard: then that shard is told.
//!
//! Invariants: at most one fan-out has begun, and only that one names subscribers; a message goes to those who were subscribed when it
//! came; a shard that was told to hold a publisher is told when it need not any more.
//!
//! Cost: a message that waits is one reference and about 150 bytes, however many it goes to.

use super::Shard;
use super::deferred::Deferred;
use super::peer::PeerMessage;
use super::routing::{Routing, Target};
use crate::base::buffer::SHARE_MIN;
use crate::base::{MessageRef, SessionId, ShardId};
use crate::log::Origin;
use crate::route::{FilterId, Subscriber};
use crate::session::Outcome;
use hashbrown::HashMap;
use std::collections::VecDeque;

/// So many bytes of a message cost nothing to speak of.
const BYTES_FREE: usize = 256;
/// A copy of so many bytes more costs as much as a delivery, if the memory was not in use: a thousand bytes for somebody who does not
/// read have cost 5 µs on a virtual machine, most of it page faults.
const BYTES_A_DELIVERY: usize = 48;

/// A message on its way to many.
#[derive(Debug)]
pub(super) struct FanOut {
    deferred: Deferred,
    /// Its place among all fan-outs of this shard.
    number: u64,
    /// Found when its turn comes.
    targets: Option<Vec<Target>>,
    at: usize,
}

/// The client that published, by the hash of its identifier: its order is kept over all its sessions. Where two clients have one
/// hash they share a queue. `None` are messages of the broker itself.
pub(super) type By = Option<u32>;

/// Who published a message.
pub(super) fn publisher_of(message: &MessageRef<'_>) -> By {
    message.head.publisher.map(|publisher| publisher.client_hash)
}

/// All fan-outs of a shard.
#[derive(Debug, Default)]
pub(super) struct FanOuts {
    /// Those that have not begun.
    queues: HashMap<By, VecDeque<FanOut>>,
    /// Whose turn it is, and who is next.
    turns: VecDeque<By>,
    /// The one that is worked on; `None` inside while that is going on.
    begun: Option<(By, Option<FanOut>)>,
    len: usize,
    /// Fan-outs there have been.
    count: u64,
    /// Subscriptions made while fan-outs waited, and the first fan-out they are part of.
    late: HashMap<(Subscriber, FilterId), u64>,
    /// Publishers of other shards that these shards were told to hold.
    told: Vec<SessionId>,
    /// Publishers of this shard that others want to be held, a bit each.
    held: HashMap<SessionId, u64>,
}

impl FanOuts {
    /// Fan-outs that are not through.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether one has begun: it names subscribers by their slots.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// How many of this publisher's are not through.
    pub(super) fn len_of(&self, by: By) -> usize {
        if self.len == 0 {
            return 0;
        }
        let begun = self.begun.as_ref().is_some_and(|(begun_by, _)| *begun_by == by);
        self.queues.get(&by).map_or(0, VecDeque::len) + usize::from(begun)
    }

    /// Whether more of this publisher's wait than should. Where many have something waiting, none may have much.
    fn has_too_many(&self, by: By, max: usize) -> bool {
        let own = self.len_of(by);
        own > max || (own > 0 && self.len > max)
    }

    fn push(&mut self, by: By, fan_out: FanOut) {
        let queue = self.queues.entry(by).or_default();
        if queue.is_empty() {
            self.turns.push_back(by);
        }
        queue.push_back(fan_out);
        self.len += 1;
        self.count += 1;
    }

    /// The one to go on with; [`put_back`](Self::put_back) or [`end`](Self::end) follows.
    fn take(&mut self) -> Option<FanOut> {
        if let Some((_, begun)) = &mut self.begun {
            return begun.take();
        }
        let by = self.turns.pop_front()?;
        let queue = self.queues.get_mut(&by).expect("who has a turn has a queue");
        let next = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&by);
        } else {
            self.turns.push_back(by);
        }
        self.begun = Some((by, None));
        next
    }

    fn put_back(&mut self, fan_out: FanOut) {
        self.begun.as_mut().expect("was taken").1 = Some(fan_out);
    }

    fn end(&mut self) {
        self.begun = None;
        self.len -= 1;
    }

    /// This origin is released, and may be another message's from now on.
    pub(super) fn drop_origin(&mut self, origin: Origin) {
        if self.len == 0 {
            return;
        }
        let begun = self.begun.iter_mut().filter_map(|(_, begun)| begun.as_mut());
        for fan_out in self.queues.values_mut().flatten().chain(begun) {
            fan_out.deferred.drop_origin(origin);
        }
    }

    /// A subscription is new: it has no part in what was published before it.
    pub(super) fn note_subscription(&mut self, subscriber: Subscriber, filter: FilterId) {
        if self.len > 0 {
            self.late.insert((subscriber, filter), self.count);
        }
    }

    /// Whether a subscription has a part in the fan-out of this number.
    pub(super) fn has_part(&self, subscriber: Subscriber, filter: FilterId, number: u64) -> bool {
        self.late.is_empty() || self.late.get(&(subscriber, filter)).is_none_or(|first| *first <= number)
    }

    /// The number of a message that is delivered at once.
    pub(super) fn number_now(&self) -> u64 {
        self.count
    }
}

/// What a delivery of a message counts, in deliveries of a small one.
pub(super) fn weight(size: usize) -> usize {
    1 + size.min(SHARE_MIN).saturating_sub(BYTES_FREE) / BYTES_A_DELIVERY
}

impl Shard {
    /// Whether a message to `total` subscribers has to wait for its turn.
    pub(super) fn is_to_wait(&mut self, by: By, total: usize, size: usize) -> bool {
        let budgets = &self.options.budgets;
        self.spent += total.saturating_sub(budgets.narrow).saturating_mul(weight(size));
        let is_wide =
            total > budgets.fan_out_step || (total > budgets.narrow && self.spent > budgets.turn_deliveries);
        is_wide || (total > 0 && self.fan_outs.len_of(by) > 0)
    }

    /// Queues a message up. Its publisher's shard is told if that is too much.
    pub(super) fn queue_fan_out(&mut self, routing: &mut Routing<'_>) {
        let by = publisher_of(routing.message);
        let session = routing.message.head.publisher.map(|publisher| publisher.session);
        let deferred = Deferred::new(routing, Outcome { matched: true, ..Outcome::default() });
        let fan_out = FanOut { deferred, number: self.fan_outs.count, targets: None, at: 0 };
        self.fan_outs.push(by, fan_out);
        if let Some(publisher) = session.filter(|session| session.shard != self.id)
            && self.fan_outs.has_too_many(by, self.options.budgets.fan_outs_max)
            && !self.fan_outs.told.contains(&publisher)
        {
            self.fan_outs.told.push(publisher);
            self.mesh.to(publisher.shard).push(PeerMessage::Hold { publisher });
        }
    }

    /// Whether this publisher is ahead of those who deliver what it publishes.
    pub(super) fn is_ahead(&self, session: u32) -> bool {
        if self.fan_outs.is_empty() && self.fan_outs.held.is_empty() {
            return false;
        }
        let Some(id) = self.sessions.id_at(session) else { return false };
        let by = self.sessions.at(session).map(|entry| entry.client_hash);
        self.fan_outs.held.contains_key(&id)
            || self.fan_outs.has_too_many(by, self.options.budgets.fan_outs_max)
    }

    /// Another shard cannot keep up with a publisher of this one.
    pub(super) fn on_hold(&mut self, from: ShardId, publisher: SessionId) {
        *self.fan_outs.held.entry(publisher).or_default() |= 1 << from.index();
        let link = self.sessions.get_mut(publisher).and_then(|entry| entry.connection());
        if let Some(link) = link {
            self.pause_publisher(link);
        }
    }

    /// It has.
    pub(super) fn on_release(&mut self, from: ShardId, publisher: SessionId) {
        if let Some(shards) = self.fan_outs.held.get_mut(&publisher) {
            *shards &= !(1 << from.index());
            if *shards == 0 {
                self.fan_outs.held.remove(&publisher);
                self.resume_publishers();
            }
        }
    }

    /// Goes on with the fan-outs that wait, for one step.
    pub(super) fn step_fan_outs(&mut self) {
        self.work_off(self.options.budgets.fan_out_step);
    }

    /// Makes all deliveries that wait.
    pub(super) fn finish_fan_outs(&mut self) {
        self.work_off(usize::MAX);
    }

    /// Makes the deliveries of the fan-out that has begun: what comes next changes whom it names.
    pub(super) fn finish_begun(&mut self) {
        if self.fan_outs.has_begun() {
            self.advance_fan_out(usize::MAX);
            self.after_fan_outs();
        }
    }

    fn work_off(&mut self, mut budget: usize) {
        if self.fan_outs.is_empty() {
            return;
        }
        while budget > 0
            && let Some(spent) = self.advance_fan_out(budget)
        {
            budget = budget.saturating_sub(spent);
        }
        self.after_fan_outs();
    }

    /// Goes on with one fan-out, as far as the budget allows; gives what it has cost.
    fn advance_fan_out(&mut self, budget: usize) -> Option<usize> {
        let mut fan_out = self.fan_outs.take()?;
        let weight = weight(fan_out.deferred.message().size());
        let made = self.deliver_some(&mut fan_out, (budget / weight).max(1));
        if fan_out.targets.as_ref().is_some_and(|targets| fan_out.at < targets.len()) {
            self.fan_outs.put_back(fan_out);
        } else {
            self.end_deferred(fan_out.deferred, Self::keep_here);
            self.fan_outs.end();
            for session in std::mem::take(&mut self.ended) {
                self.sessions.remove(session);
            }
        }
        Some(made.saturating_mul(weight).max(1))
    }

    /// If nothing waits any more, publishers go on.
    fn after_fan_outs(&mut self) {
        if !self.fan_outs.is_empty() {
            return;
        }
        self.fan_outs.late.clear();
        for publisher in std::mem::take(&mut self.fan_outs.told) {
            self.mesh.to(publisher.shard).push(PeerMessage::Release { publisher });
        }
        self.resume_publishers();
    }

    /// Makes so many deliveries at most; gives how many.
    fn deliver_some(&mut self, fan_out: &mut FanOut, count_max: usize) -> usize {
        let FanOut { deferred, number, targets, at } = fan_out;
        let targets = match targets {
            Some(targets) => targets,
            None => targets.insert(self.targets_of(deferred, *number)),
        };
        self.scratch.encoded.v3.clear();
        self.scratch.encoded.v5.clear();
        let begin = *at;
        *at = targets.len().min(begin.saturating_add(count_max));
        deferred.resume(|routing, mut outcome| {
            for target in &targets[begin..*at] {
                outcome = outcome.and(self.deliver(target, routing));
            }
            (outcome, ())
        });
        *at - begin
    }

    /// Who was subscribed when the fan-out of this number was queued up, and still is.
    fn targets_of(&mut self, deferred: &Deferred, number: u64) -> Vec<Target> {
        let message = deferred.message().as_ref();
        self.match_topic(message.head.vhost, message.topic);
        let filters = std::mem::take(&mut self.scratch.filters);
        let targets = self.targets(&filters, &message, number);
        self.scratch.filters = filters;
        targets
    }
}
