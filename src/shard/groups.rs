//! Shared subscriptions: the members' side, and the home's, which picks the member that gets a message.
//!
//! A group stands in its home's trie as one subscriber. What a member has not settled goes back to the home when the member's
//! session ends, and to another member; a QoS 2 delivery that was sent stays with its session. [MQTT-4.8.2-4] [MQTT-4.8.2-5]

use super::Shard;
use super::durable::GatherRef;
use super::peer::{CommitRef, Join, PeerMessage};
use super::routing::{Routing, Target};
use super::sessions::Outgoing;
use super::subscribe::Settles;
use crate::base::hash::home;
use crate::base::{Message, MessageRef, QoS, SessionId, ShardId, VhostId};
use crate::queue::{GroupRef, Identifiers};
use crate::route::{Delta, MemberId, PickInput, Subscriber, SubscriptionOptions, group_hash};
use crate::session::Outcome;
use std::sync::Arc;

/// Marks a subscriber of the trie as a group's slot.
pub(super) const GROUP_TAG: u32 = 1 << 29;

/// A token nobody waits for.
const NO_TOKEN: (u32, u32) = (u32::MAX, u32::MAX);

pub(super) fn group_slot(subscriber: Subscriber) -> u32 {
    subscriber.0 & !GROUP_TAG
}

fn member_id(session: SessionId) -> MemberId {
    MemberId { shard: session.shard, session }
}

impl Shard {
    fn group_home(&self, vhost: VhostId, group: &str, filter: &str) -> ShardId {
        home(group_hash(self.topics, vhost, group, filter), self.shards)
    }

    /// What deliveries of a group call it, on every shard.
    pub(super) fn group_hash(&self, session: u32, group: &str, filter: &str) -> u64 {
        let vhost = self.sessions.at(session).map_or(super::VHOST, |entry| entry.vhost);
        group_hash(self.topics, vhost, group, filter)
    }

    /// Tells the group's home that a session joins. `token`: the SUBSCRIBE that waits for it.
    pub(super) fn join_group(
        &mut self,
        session: u32,
        group: &str,
        filter: &str,
        options: SubscriptionOptions,
        token: (u32, u32),
    ) {
        let Some(member) = self.sessions.id_at(session) else { return };
        let Some(entry) = self.sessions.at(session) else { return };
        let (vhost, online) = (entry.vhost, entry.connection().is_some());
        let join = Join { vhost, group: group.into(), filter: filter.into(), member, options };
        let home = self.group_home(vhost, group, filter);
        if home == self.id {
            self.on_join(self.id, &join, token, online);
        } else {
            self.mesh.to(home).push(PeerMessage::Join { join: Box::new(join), token, online });
        }
    }

    /// A session's durability changed: its groups' homes hear of it.
    pub(super) fn refresh_groups(&mut self, session: u32) {
        let Some(entry) = self.sessions.at_mut(session) else { return };
        let durable = entry.is_durable();
        let Some(extra) = &mut entry.extra else { return };
        for shared in &mut extra.shared {
            shared.options.durable = durable;
        }
        let all: Vec<_> =
            extra.shared.iter().map(|s| (s.group.clone(), s.filter.clone(), s.options)).collect();
        for (group, filter, options) in all {
            self.join_group(session, &group, &filter, options, NO_TOKEN);
        }
    }

    /// A session joins a group whose home is here.
    pub(super) fn on_join(&mut self, from: ShardId, join: &Join, token: (u32, u32), online: bool) {
        let slot = self.groups.open(join.vhost, &join.group, &join.filter);
        if let Some(group) = self.groups.get_mut(slot) {
            group.join(member_id(join.member), join.options);
            group.set_online(member_id(join.member), online);
        }
        self.show_group(slot);
        self.when_settled(Settles::Join(from, token));
    }

    /// Puts a group into the trie as it is now, and tells the other shards what that changed.
    fn show_group(&mut self, slot: u32) {
        let Some((vhost, _, filter)) = self.groups.name(slot) else { return };
        let Some(group) = self.groups.get(slot) else { return };
        let options = SubscriptionOptions {
            qos: QoS::ExactlyOnce,
            no_local: false,
            retain_as_published: true,
            subscription_id: 0,
            durable: group.durable_count() > 0,
        };
        let inserted = self.trie.insert(vhost, filter, Subscriber(slot | GROUP_TAG), options);
        if inserted.replaced.is_none() {
            self.fan_outs.note_subscription(Subscriber(slot | GROUP_TAG), inserted.filter);
        }
        self.announce(inserted.filter, inserted.change);
    }

    /// A session unsubscribes from a group; `false` if it was not in it.
    pub(super) fn leave_group(&mut self, session: u32, group: &str, filter: &str) -> bool {
        let Some(entry) = self.sessions.at_mut(session) else { return false };
        let Some(extra) = &mut entry.extra else { return false };
        let at = extra.shared.iter().position(|s| *s.group == *group && *s.filter == *filter);
        let Some(at) = at else { return false };
        let shared = extra.shared.swap_remove(at);
        entry.drop_empty_extra();
        entry.count_filter(shared.options.qos, -1);
        self.clear_state(shared.state);
        self.tell_leave(session, &shared.group, &shared.filter, shared.options);
        true
    }

    /// The session ends.
    pub(super) fn leave_groups(&mut self, session: u32) {
        let extra = self.sessions.at_mut(session).and_then(|entry| entry.extra.as_mut());
        for shared in extra.map(|extra| std::mem::take(&mut extra.shared)).unwrap_or_default() {
            self.tell_leave(session, &shared.group, &shared.filter, shared.options);
        }
    }

    fn tell_leave(&mut self, session: u32, group: &str, filter: &str, options: SubscriptionOptions) {
        let Some(member) = self.sessions.id_at(session) else { return };
        let vhost = self.sessions.at(session).map_or(super::VHOST, |entry| entry.vhost);
        let join = Join { vhost, group: group.into(), filter: filter.into(), member, options };
        let home = self.group_home(vhost, group, filter);
        if home == self.id {
            self.on_leave(&join);
        } else {
            self.mesh.to(home).push(PeerMessage::Leave { join: Box::new(join) });
        }
    }

    /// A session leaves a group whose home is here; the last one takes the group with it.
    pub(super) fn on_leave(&mut self, join: &Join) {
        let Some(slot) = self.groups.find(join.vhost, &join.group, &join.filter) else { return };
        let Some(group) = self.groups.get_mut(slot) else { return };
        group.leave(member_id(join.member));
        if !group.is_empty() {
            self.show_group(slot);
            return;
        }
        self.finish_begun();
        self.groups.close(slot);
        let filter = self.trie.find(join.vhost, &join.filter);
        if let Some(removed) = filter.and_then(|id| self.trie.remove(id, Subscriber(slot | GROUP_TAG)))
            && self.shards > 1
        {
            self.broadcast(&Delta::new(self.topics, join.vhost, &join.filter, removed.change));
        }
    }

    /// A session's client came or went: groups prefer members whose client is there.
    pub(super) fn set_member_online(&mut self, session: u32, online: bool) {
        let Some(member) = self.sessions.id_at(session) else { return };
        let Some(entry) = self.sessions.at(session) else { return };
        let vhost = entry.vhost;
        let all: Vec<_> = entry.shared().iter().map(|s| (s.group.clone(), s.filter.clone())).collect();
        for (group, filter) in all {
            let home = self.group_home(vhost, &group, &filter);
            if home == self.id {
                self.on_member_online(member, vhost, &group, &filter, online);
            } else {
                let message = PeerMessage::MemberOnline { member, vhost, group, filter, online };
                self.mesh.to(home).push(message);
            }
        }
    }

    pub(super) fn on_member_online(
        &mut self,
        member: SessionId,
        vhost: VhostId,
        group: &str,
        filter: &str,
        online: bool,
    ) {
        let slot = self.groups.find(vhost, group, filter);
        if let Some(group) = slot.and_then(|slot| self.groups.get_mut(slot)) {
            group.set_online(member_id(member), online);
        }
    }

    /// Gives a message to one member of a group whose home is here.
    pub(super) fn deliver_to_group(&mut self, slot: u32, routing: &mut Routing<'_>) -> Outcome {
        let head = &routing.message.head;
        let input = PickInput {
            client_hash: head.publisher.map_or(0, |publisher| u64::from(publisher.client_hash)),
            topic_hash: routing.topic_hash,
        };
        let Some((vhost, name, filter)) = self.groups.name(slot) else { return Outcome::default() };
        let hash = group_hash(self.topics, vhost, name, filter);
        let Some(group) = self.groups.get_mut(slot) else { return Outcome::default() };
        let Some(member) = group.pick(self.options.route.strategy, input) else { return Outcome::default() };
        let Some(options) = group.get(member).map(|member| member.options) else { return Outcome::default() };
        let qos = options.qos.min(head.qos);
        if qos > QoS::AtMostOnce {
            group.assigned(member);
        }
        let group = GroupRef { shard: self.id, slot, hash, member: member.session };
        if member.shard == self.id {
            return self.deliver_assigned(group, options, routing);
        }
        let head = *head;
        let is_kept = options.durable && qos > QoS::AtMostOnce;
        let gather = if is_kept { self.gather_for(routing) } else { None };
        let assign = |body| PeerMessage::Assign { head, body, group, options, gather };
        self.mesh.to(member.shard).push_with(routing.message, &mut routing.shared, assign);
        Outcome { matched: true, taken: true, ..Outcome::default() }
    }

    /// A message the home of a group gave to a session here, which is a member.
    pub(super) fn deliver_assigned(
        &mut self,
        group: GroupRef,
        options: SubscriptionOptions,
        routing: &mut Routing<'_>,
    ) -> Outcome {
        let head = &routing.message.head;
        let qos = options.qos.min(head.qos);
        let target = Target {
            subscriber: Subscriber(group.member.slot),
            qos,
            retain: options.retain_as_published && head.retain,
            identifiers: match options.subscription_id {
                0 => Identifiers::None,
                id => Identifiers::One(id),
            },
        };
        let counted = (qos > QoS::AtMostOnce).then_some(group);
        let outcome = self.deliver_to_session(group.member.slot, &target, routing, counted);
        if outcome.refused || outcome.refused_durably {
            self.settle_group(counted);
        }
        outcome
    }

    /// A message from another shard's group. The session may have left while it was on its way: nothing may be added for it
    /// after UNSUBACK, so another member gets it. [MQTT-3.10.4-2]
    pub(super) fn on_assign(
        &mut self,
        group: GroupRef,
        options: SubscriptionOptions,
        message: &MessageRef<'_>,
        gather: Option<GatherRef>,
    ) {
        let is_counted = options.qos.min(message.head.qos) > QoS::AtMostOnce;
        let entry = self.sessions.get_mut(group.member);
        let shared = entry.and_then(|entry| entry.shared().iter().find(|shared| shared.hash == group.hash));
        let Some(current) = shared.map(|shared| shared.options) else {
            if is_counted {
                self.return_to_group(group, message.to_shared(), gather);
            } else if let Some(gather) = gather {
                self.gathered(gather, Outcome::default());
            }
            return;
        };
        // It may have subscribed anew meanwhile, with other options.
        let options = SubscriptionOptions { qos: current.qos.min(options.qos), ..current };
        if is_counted && options.qos == QoS::AtMostOnce {
            self.settle_group(Some(group));
        }
        self.scratch.encoded.v3.clear();
        self.scratch.encoded.v5.clear();
        let topic_hash = self.trie.topic_hash(message.head.vhost, message.topic);
        let mut routing = Routing::new(message, topic_hash, None);
        let outcome = self.deliver_assigned(group, options, &mut routing);
        self.keep_for(gather, &mut routing, outcome);
    }

    /// Puts a message on disk that was delivered to one member, and answers whoever waits for that.
    pub(super) fn keep_for(
        &mut self,
        gather: Option<GatherRef>,
        routing: &mut Routing<'_>,
        outcome: Outcome,
    ) {
        routing.commit = gather.map(|gather| (gather.shard, CommitRef::Gather(gather.token)));
        let (outcome, asked) = self.keep_here(routing, outcome);
        if let Some((from, commit)) = routing.commit.filter(|_| asked.missing == 0) {
            self.report(from, commit, outcome);
        }
    }

    /// A delivery that came through a group is settled.
    pub(super) fn settle_group(&mut self, group: Option<GroupRef>) {
        let Some(group) = group else { return };
        if group.shard == self.id {
            self.on_settled(group);
        } else {
            self.mesh.to(group.shard).push(PeerMessage::Settled { group });
        }
    }

    pub(super) fn on_settled(&mut self, group: GroupRef) {
        let slot = self.slot_of(group);
        if let Some(found) = slot.and_then(|slot| self.groups.get_mut(slot)) {
            found.settled(member_id(group.member));
        }
    }

    /// What a session that ends leaves unsettled of shared subscriptions goes to other members, in order.
    ///
    /// What is on disk comes from there.
    pub(super) fn give_back(&mut self, mut outgoing: Outgoing) {
        let in_flight: Vec<_> = outgoing.window.drain().collect();
        for entry in in_flight {
            // [MQTT-4.8.2-5]
            if entry.qos == QoS::AtLeastOnce
                && let Some(kept) = entry.item.filter(|kept| kept.number == 0)
                && let Some(item) = kept.item
                && let Some(group) = item.group
            {
                self.return_to_group(group, item.message, None);
            }
        }
        while let Some(item) = outgoing.queue.pop() {
            if let Some(group) = item.group.filter(|_| item.number == 0) {
                self.return_to_group(group, item.message, None);
            }
        }
    }

    pub(super) fn return_to_group(
        &mut self,
        group: GroupRef,
        message: Arc<Message>,
        gather: Option<GatherRef>,
    ) {
        if group.shard == self.id {
            self.on_return(group, message, gather);
        } else {
            self.mesh.to(group.shard).push(PeerMessage::Return { group, message, gather });
        }
    }

    /// A member's session ended before it acknowledged. Whoever waits until the message is kept hears of it.
    pub(super) fn on_return(&mut self, group: GroupRef, message: Arc<Message>, gather: Option<GatherRef>) {
        let Some(slot) = self.slot_of(group) else {
            // Nobody is left in it.
            if let Some(gather) = gather {
                self.gathered(gather, Outcome::default());
            }
            return;
        };
        self.on_settled(group);
        self.scratch.encoded.v3.clear();
        self.scratch.encoded.v5.clear();
        let shared = Arc::clone(&message);
        let message = message.as_ref().as_ref();
        let topic_hash = self.trie.topic_hash(message.head.vhost, message.topic);
        let mut routing = Routing::new(&message, topic_hash, Some(shared));
        routing.passed_on = gather;
        let outcome = self.deliver_to_group(slot, &mut routing);
        let answers = routing.passed_on.take();
        self.keep_for(answers, &mut routing, outcome);
    }

    /// Where the group is now: what was read back from disk does not know, and a slot may be another group's by now.
    fn slot_of(&self, group: GroupRef) -> Option<u32> {
        let is_it = |(vhost, name, filter)| group_hash(self.topics, vhost, name, filter) == group.hash;
        if self.groups.name(group.slot).is_some_and(is_it) {
            return Some(group.slot);
        }
        self.groups.find_hash(group.hash)
    }
}
