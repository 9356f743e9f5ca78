//! One message to everybody who subscribes, here and on other shards.
//!
//! Consecutive messages of one topic are matched once. A message with few subscribers is delivered at once; one with many
//! is worked off in steps, as a [fan-out](super::fan_out).

use super::Shard;
use super::durable::{Appended, GatherRef, Held, KEPT, Then, Wait};
use super::fan_out::publisher_of;
use super::groups::{GROUP_TAG, group_slot};
use super::lifecycle::SWEEP_BUDGET;
use super::limit::Limit;
use super::peer::{CommitRef, PeerMessage};
use crate::base::hash::home;
use crate::base::{Message, MessageRef, QoS, ShardId, VhostId};
use crate::log::Origin;
use crate::queue::Identifiers;
use crate::route::{FilterId, Limits, Masks, Subscriber, Subscription};
use crate::session::Outcome;
use std::sync::Arc;

/// Memory that is used again for every message.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The filters that match `topic`, as of `generation`.
    pub(super) filters: Vec<FilterId>,
    topic: String,
    vhost: VhostId,
    topic_hash: u64,
    generation: Option<u64>,
    /// The other shards that want `topic`, as of so many deltas heard.
    masks: Option<(u64, Masks)>,
    subscriptions: Vec<Subscription>,
    /// Connections that take a run.
    pub(super) links: Vec<u32>,
    pub(super) properties: Vec<u8>,
    pub(super) encoded: Encoded,
}

/// The current message, encoded for subscribers that need nothing of their own in it.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    pub(super) v3: Vec<u8>,
    pub(super) v5: Vec<u8>,
}

/// One receiver of a message.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) subscriber: Subscriber,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) identifiers: Identifiers,
}

/// Answers a publish waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Asked {
    pub(super) missing: u32,
    /// Of them: those that come with a commit of this shard's log.
    pub(super) local: u32,
}

impl Asked {
    const NOTHING: Self = Self { missing: 0, local: 0 };
    const COMMIT: Self = Self { missing: 1, local: 1 };

    fn elsewhere(missing: u32) -> Self {
        Self { missing, local: 0 }
    }

    fn and(self, other: Self) -> Self {
        Self { missing: self.missing + other.missing, local: self.local + other.local }
    }
}

/// A message being routed.
pub(super) struct Routing<'a> {
    pub(super) message: &'a MessageRef<'a>,
    pub(super) topic_hash: u64,
    /// The packet as it came in, if v3 subscribers can have it as it is.
    pub(super) verbatim: Option<&'a [u8]>,
    /// Those of its targets so far that are on disk.
    pub(super) held: Held,
    /// Made when somebody has to keep the message.
    pub(super) shared: Option<Arc<Message>>,
    /// Of a QoS 2 publish by a session on disk.
    pub(super) origin: Option<Origin>,
    /// Who is told when the message is kept wherever it has to be.
    pub(super) commit: Option<(ShardId, CommitRef)>,
    /// Made when members of groups on other shards are to answer too.
    pub(super) gather: Option<GatherRef>,
    /// Who is told by whoever keeps the message: it is one member's, and may be passed on.
    pub(super) passed_on: Option<GatherRef>,
}

impl<'a> Routing<'a> {
    /// A message that nobody waits for.
    pub(super) fn new(message: &'a MessageRef<'a>, topic_hash: u64, shared: Option<Arc<Message>>) -> Self {
        Self {
            message,
            topic_hash,
            verbatim: None,
            held: Held::default(),
            shared,
            origin: None,
            commit: None,
            gather: None,
            passed_on: None,
        }
    }

    pub(super) fn share(&mut self) -> Arc<Message> {
        Arc::clone(self.shared.get_or_insert_with(|| self.message.to_shared()))
    }
}

impl Shard {
    /// Routes a message published here. Gives what is known at once, and which answers to `commit` are still to come.
    pub(super) fn route(
        &mut self,
        message: &MessageRef<'_>,
        verbatim: Option<&[u8]>,
        commit: Option<CommitRef>,
        origin: Option<Origin>,
    ) -> (Outcome, Asked) {
        let topic_hash = self.match_topic(message.head.vhost, message.topic);
        let mut routing = Routing::new(message, topic_hash, None);
        routing.verbatim = verbatim;
        routing.origin = origin;
        routing.commit = commit.map(|commit| (self.id, commit));
        let (mut outcome, mut asked) = self.route_here(&mut routing);
        if message.head.retain {
            let (kept, also) = self.retain(&mut routing, commit);
            outcome = outcome.and(kept);
            asked = asked.and(also);
        }
        if self.shards > 1 {
            let (matched, missing) = self.route_elsewhere(&mut routing, commit);
            outcome.matched |= matched;
            asked = asked.and(Asked::elsewhere(missing));
        }
        if !outcome.matched {
            self.counters.unroutable += 1;
        }
        (outcome, asked)
    }

    /// Routes a message that another shard published to the subscribers here.
    pub(super) fn route_from(
        &mut self,
        from: ShardId,
        message: &MessageRef<'_>,
        topic_hash: u64,
        commit: Option<CommitRef>,
        origin: Option<Origin>,
    ) -> (Outcome, Asked) {
        let hash = self.match_topic(message.head.vhost, message.topic);
        debug_assert_eq!(hash, topic_hash, "all shards hash topics alike");
        let mut routing = Routing::new(message, topic_hash, None);
        routing.origin = origin;
        routing.commit = commit.map(|commit| (from, commit));
        self.route_here(&mut routing)
    }

    /// Finds the filters that match, unless they are known from the message before.
    pub(super) fn match_topic(&mut self, vhost: VhostId, topic: &str) -> u64 {
        let scratch = &mut self.scratch;
        let generation = self.trie.generation();
        if scratch.generation == Some(generation) && scratch.vhost == vhost && scratch.topic == topic {
            return scratch.topic_hash;
        }
        scratch.generation = Some(generation);
        scratch.masks = None;
        scratch.vhost = vhost;
        scratch.topic.clear();
        scratch.topic.push_str(topic);
        scratch.topic_hash = self.trie.topic_hash(vhost, topic);
        scratch.filters.clear();
        self.trie.matches(vhost, topic, scratch.topic_hash, &mut scratch.filters);
        scratch.topic_hash
    }

    fn route_here(&mut self, routing: &mut Routing<'_>) -> (Outcome, Asked) {
        self.scratch.encoded.v3.clear();
        self.scratch.encoded.v5.clear();
        let filters = std::mem::take(&mut self.scratch.filters);
        let total: usize = filters.iter().map(|filter| self.trie.subscriptions(*filter).len()).sum();
        let by = publisher_of(routing.message);
        let result = if self.is_to_wait(by, total, routing.message.size()) {
            self.queue_fan_out(routing);
            let outcome = Outcome { matched: true, ..Outcome::default() };
            (outcome, Asked::elsewhere(u32::from(routing.commit.is_some())))
        } else if let [filter] = filters[..] {
            let outcome = self.deliver_filter(filter, routing);
            self.keep_here(routing, outcome)
        } else {
            let mut outcome = Outcome::default();
            if total > 0 {
                let number = self.fan_outs.number_now();
                for target in self.targets(&filters, routing.message, number) {
                    outcome = outcome.and(self.deliver(&target, routing));
                }
            }
            self.keep_here(routing, outcome)
        };
        self.scratch.filters = filters;
        result
    }

    /// Puts a message that was matched on disk for those who are, and sees that its publisher hears of it. Gives what is known
    /// at once, and whether the rest will be reported.
    pub(super) fn keep_here(&mut self, routing: &mut Routing<'_>, outcome: Outcome) -> (Outcome, Asked) {
        if routing.held.is_empty() && routing.gather.is_none() {
            return (outcome, Asked::NOTHING);
        }
        if self.must_wait_for_segment(routing) {
            let asked = Asked::elsewhere(u32::from(routing.commit.is_some()));
            self.wait_for_segment(routing, outcome);
            return (outcome, asked);
        }
        self.keep_now(routing, outcome)
    }

    pub(super) fn keep_now(&mut self, routing: &mut Routing<'_>, outcome: Outcome) -> (Outcome, Asked) {
        let appended = self.append_held(routing);
        let mut outcome = outcome.and(appended.outcome);
        let Some((from, commit)) = routing.commit else { return (outcome, Asked::NOTHING) };
        let waiting = self.uncommitted(appended.commit);
        if appended.commit.is_some() && waiting.is_none() {
            outcome = outcome.and(KEPT);
        }
        match (routing.gather, waiting) {
            (None, None) => (outcome, Asked::NOTHING),
            (None, Some(sequence)) => {
                self.after_commit(sequence, Wait::Report(from, commit, outcome.and(KEPT)));
                (outcome, Asked::COMMIT)
            }
            (Some(gather), sequence) => {
                // One answer is this shard's own.
                match sequence {
                    Some(sequence) => self.after_commit(sequence, Wait::Gathered(gather, outcome.and(KEPT))),
                    None => self.gathered(gather, outcome),
                }
                (outcome, Asked::elsewhere(1))
            }
        }
    }

    /// The gathering of a message that somebody waits for, made at the first use.
    pub(super) fn gather_for(&mut self, routing: &mut Routing<'_>) -> Option<GatherRef> {
        if let Some(gather) = routing.passed_on.take() {
            return Some(gather);
        }
        let (from, commit) = routing.commit?;
        let gather = match routing.gather {
            Some(gather) => gather,
            None => self.gather(Then::Report(from, commit), 1),
        };
        routing.gather = Some(gather);
        self.gather_more(gather);
        Some(gather)
    }

    /// The common case: one filter matches.
    fn deliver_filter(&mut self, filter: FilterId, routing: &mut Routing<'_>) -> Outcome {
        let mut outcome = Outcome::default();
        let mut index = 0;
        while let Some(subscription) = self.trie.subscriptions(filter).get(index).copied() {
            index += 1;
            if let Some(target) = self.target(subscription, routing.message) {
                outcome = outcome.and(self.deliver(&target, routing));
            }
        }
        outcome
    }

    /// What one subscription makes of a message; `None` if No Local keeps it away. [MQTT-3.8.3-3]
    pub(super) fn target(&self, subscription: Subscription, message: &MessageRef<'_>) -> Option<Target> {
        let subscriber = subscription.subscriber();
        let options = subscription.options();
        if options.no_local && self.is_publisher(subscriber, message) {
            return None;
        }
        Some(Target {
            subscriber,
            qos: options.qos.min(message.head.qos),
            // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
            retain: options.retain_as_published && message.head.retain,
            identifiers: match options.subscription_id {
                0 => Identifiers::None,
                id => Identifiers::One(id),
            },
        })
    }

    /// Every receiver once: the highest QoS of its matching subscriptions, and all their identifiers. [MQTT-3.3.4-2]
    /// `number`: of the fan-out it is.
    pub(super) fn targets(
        &mut self,
        filters: &[FilterId],
        message: &MessageRef<'_>,
        number: u64,
    ) -> Vec<Target> {
        let mut all = std::mem::take(&mut self.scratch.subscriptions);
        all.clear();
        for filter in filters {
            let subscriptions = self.trie.subscriptions(*filter).iter().copied();
            all.extend(
                subscriptions.filter(|subscription| {
                    self.fan_outs.has_part(subscription.subscriber(), *filter, number)
                }),
            );
        }
        if filters.len() > 1 {
            // Stable, so that identifiers come in the order the filters were found.
            all.sort_by_key(|subscription| subscription.subscriber());
        }
        let mut targets: Vec<Target> = Vec::with_capacity(all.len());
        for subscription in &all {
            let Some(target) = self.target(*subscription, message) else { continue };
            match targets.last_mut() {
                Some(last) if last.subscriber == target.subscriber => merge(last, &target),
                _ => targets.push(target),
            }
        }
        self.scratch.subscriptions = all;
        targets
    }

    fn is_publisher(&self, subscriber: Subscriber, message: &MessageRef<'_>) -> bool {
        message.head.publisher.is_some_and(|publisher| {
            subscriber.0 & GROUP_TAG == 0 && self.sessions.id_at(subscriber.0) == Some(publisher.session)
        })
    }

    pub(super) fn deliver(&mut self, target: &Target, routing: &mut Routing<'_>) -> Outcome {
        if target.subscriber.0 & GROUP_TAG != 0 {
            return self.deliver_to_group(group_slot(target.subscriber), routing);
        }
        self.deliver_to_session(target.subscriber.0, target, routing, None)
    }

    /// Sends a message once to every other shard that has a subscriber. Those with a durable one answer to `commit`.
    fn route_elsewhere(&mut self, routing: &mut Routing<'_>, commit: Option<CommitRef>) -> (bool, u32) {
        let message = routing.message;
        let masks = self.interested(message, routing.topic_hash);
        if masks.any.is_empty() {
            return (false, 0);
        }
        let retained_sequence = if message.head.retain {
            self.mesh.retained_sent[self.retained_home(routing.topic_hash).index()]
        } else {
            0
        };
        let (mut asked, origin) = (0, routing.origin);
        for shard in masks.any.iter() {
            let commit = commit.filter(|_| masks.durable.contains(shard));
            asked += u32::from(commit.is_some());
            let topic_hash = routing.topic_hash;
            let head = message.head;
            self.mesh.to(shard).push_with(message, &mut routing.shared, |body| PeerMessage::Publish {
                head,
                topic_hash,
                body,
                commit,
                // Also if nobody there has to have it: who is just subscribing may be given it, and may not be again.
                origin,
                retained_sequence,
            });
        }
        (true, asked)
    }

    /// The other shards that want the message that was matched last.
    pub(super) fn interested(&mut self, message: &MessageRef<'_>, topic_hash: u64) -> Masks {
        let heard = self.mesh.deltas_heard;
        match self.scratch.masks {
            Some((as_of, masks)) if as_of == heard => masks,
            _ => {
                let masks = self.interest.lookup(message.head.vhost, message.topic, topic_hash);
                self.scratch.masks = Some((heard, masks));
                masks
            }
        }
    }

    /// The shard that keeps the retained message of a topic.
    pub(super) fn retained_home(&self, topic_hash: u64) -> ShardId {
        home(topic_hash, self.shards)
    }

    /// Hands a retained message to its home. [MQTT-3.3.1-5] [MQTT-3.3.1-6]
    fn retain(&mut self, routing: &mut Routing<'_>, commit: Option<CommitRef>) -> (Outcome, Asked) {
        let home = self.retained_home(routing.topic_hash);
        self.mesh.retained_sent[home.index()] += 1;
        let message = routing.share();
        if home == self.id {
            let appended = self.set_retained(message);
            return match (commit, self.uncommitted(appended.commit)) {
                (Some(commit), Some(sequence)) => {
                    self.after_commit(sequence, Wait::Report(home, commit, appended.outcome));
                    (appended.outcome, Asked::COMMIT)
                }
                _ => (appended.outcome, Asked::NOTHING),
            };
        }
        self.mesh.to(home).push(PeerMessage::Retain { message, commit });
        (Outcome::default(), Asked::elsewhere(u32::from(commit.is_some())))
    }

    /// Reports a publish when its commit is through, or now.
    pub(super) fn report_after(&mut self, from: ShardId, commit: CommitRef, appended: Appended) {
        match appended.commit {
            Some(sequence) => self.after_commit(sequence, Wait::Report(from, commit, appended.outcome)),
            None => self.report(from, commit, appended.outcome),
        }
    }

    pub(super) fn set_retained(&mut self, message: Arc<Message>) -> Appended {
        if let Some(outcome) = self.refuses_retained() {
            return Appended { outcome, commit: None };
        }
        let share = |max: Option<u64>| max.map(|max| max.div_ceil(u64::from(self.shards)));
        let options = &self.options.route;
        let limits = Limits {
            messages_max: share(options.retained_messages_max),
            bytes_max: share(options.retained_bytes_max),
        };
        let mut full = self.retained.set(Arc::clone(&message), &limits).is_err();
        // What has expired need not stand in the way of what is new.
        while full && self.retained.next_expiry().is_some_and(|at| at <= self.now.wall) {
            self.retained.expire(self.now.wall, SWEEP_BUDGET);
            full = self.retained.set(Arc::clone(&message), &limits).is_err();
        }
        if full {
            self.counters.not_retained += 1;
            self.met(Limit::Retained);
            let outcome = Outcome { not_retained: true, ..Outcome::default() };
            return Appended { outcome, commit: None };
        }
        self.keep_retained(&message)
    }

    /// Tells the publisher's shard what became of a publish.
    pub(super) fn report(&mut self, from: ShardId, commit: CommitRef, outcome: Outcome) {
        if from == self.id {
            self.committed(commit, outcome);
        } else {
            self.mesh.to(from).push(PeerMessage::Committed { commit, outcome });
        }
    }
}

fn merge(into: &mut Target, other: &Target) {
    into.qos = into.qos.max(other.qos);
    into.retain |= other.retain;
    if other.identifiers != Identifiers::None {
        let ids: Vec<u32> =
            into.identifiers.as_slice().iter().chain(other.identifiers.as_slice()).copied().collect();
        into.identifiers = Identifiers::from_slice(&ids);
    }
}
