//! SUBSCRIBE and UNSUBSCRIBE, and when SUBACK may leave: once every shard sends matching messages here, so that a publish
//! after SUBACK is never missed.

use super::Shard;
use super::durable::{RECOVERY_TOKEN, Wait};
use super::limit::Limit;
use super::peer::PeerMessage;
use super::replay::NewReplay;
use super::sessions::SharedSubscription;
use crate::base::topic::{Filter, parse_filter};
use crate::base::{PacketId, QoS, ReasonCode, SessionId, ShardId};
use crate::codec::{self, RetainHandling, Subscribe, SubscribeFilter, Unsubscribe};
use crate::log::Refused;
use crate::route::{Change, Delta, FilterId, Subscriber, SubscriptionOptions};
use crate::session::Violation;
use std::num::NonZeroU32;

/// A SUBSCRIBE that waits for its filters to be in force.
#[derive(Debug)]
pub(super) struct Subscribing {
    session: SessionId,
    incarnation: u32,
    packet_id: PacketId,
    codes: Vec<ReasonCode>,
    /// Shared subscriptions not joined yet, and 1 for the deltas of this shard.
    missing: u32,
    replays: Vec<NewReplay>,
}

/// Something that waits for a delta to be in force on every shard; in the order of the deltas.
#[derive(Debug)]
pub(super) struct Settling {
    sequence: u64,
    what: Settles,
}

/// What goes on then.
#[derive(Debug, Clone, Copy)]
pub(super) enum Settles {
    /// A SUBSCRIBE of this shard.
    Subscribe((u32, u32)),
    /// A join of a shared subscription whose home is here.
    Join(ShardId, (u32, u32)),
}

impl Shard {
    pub(super) fn on_subscribe(
        &mut self,
        slot: u32,
        session: u32,
        subscribe: &Subscribe<'_>,
    ) -> Result<(), Violation> {
        let no_local_on_shared = |filter: SubscribeFilter<'_>| {
            filter.no_local && matches!(parse_filter(filter.filter), Some(Filter::Shared { .. }))
        };
        if subscribe.filters().any(no_local_on_shared) {
            // [MQTT-3.8.3-4]
            return Err(Violation::NoLocalOnShared);
        }
        let Some(id) = self.sessions.id_at(session) else { return Ok(()) };
        let incarnation = self.sessions.at(session).map_or(0, |entry| entry.incarnation);
        let packet_id = subscribe.packet_id;
        let token = self.subscribing.insert(Subscribing {
            session: id,
            incarnation,
            packet_id,
            codes: Vec::new(),
            missing: 1,
            replays: Vec::new(),
        });
        // [MQTT-3.8.4-5]
        for filter in subscribe.filters() {
            let code = self.subscribe_one(session, filter, subscribe.subscription_id, token);
            let waiting =
                self.subscribing.get_mut(token.0, token.1).expect("inserted above, and waits for this shard");
            waiting.codes.push(code);
        }
        debug_assert!(self.links.at(slot).is_some(), "subscribing closes nothing");
        self.when_kept(session, token);
        self.when_settled(Settles::Subscribe(token));
        Ok(())
    }

    /// SUBACK of a session on disk waits until its subscriptions are, too.
    fn when_kept(&mut self, session: u32, token: (u32, u32)) {
        let is_kept = self.sessions.at(session).is_some_and(|entry| entry.durable.is_some());
        let last = self.last_commit();
        if is_kept
            && let Some(commit) = self.uncommitted(Some(last))
            && let Some(waiting) = self.subscribing.get_mut(token.0, token.1)
        {
            waiting.missing += 1;
            self.after_commit(commit, Wait::Subscribe(token));
        }
    }

    /// The log has failed, or there is no space: whether the subscriptions will be there after the next start nobody knows.
    pub(super) fn fail_subscribe(&mut self, token: (u32, u32), code: ReasonCode) {
        if let Some(waiting) = self.subscribing.get_mut(token.0, token.1) {
            waiting.codes.fill(code);
            waiting.replays.clear();
        }
        self.subscribe_step_done(token);
    }

    fn subscribe_one(
        &mut self,
        session: u32,
        filter: SubscribeFilter<'_>,
        id: Option<NonZeroU32>,
        token: (u32, u32),
    ) -> ReasonCode {
        let Some(entry) = self.sessions.at(session) else { return ReasonCode::UnspecifiedError };
        let options = SubscriptionOptions {
            qos: filter.qos,
            no_local: filter.no_local,
            retain_as_published: filter.retain_as_published,
            subscription_id: id.map_or(0, NonZeroU32::get),
            durable: entry.is_durable(),
        };
        let over_max = entry.subscription_count() as u64 >= u64::from(self.options.session.subscriptions_max);
        let limit = if over_max { Limit::Subscriptions } else { Limit::MemoryForSubscription };
        let full = over_max || self.pressure;
        match parse_filter(filter.filter) {
            None => return ReasonCode::TopicFilterInvalid,
            Some(Filter::Plain(text)) => {
                if full && !self.is_subscribed(session, text) {
                    return self.refuse_subscription(limit);
                }
                let handling = filter.retain_handling;
                if let Err(refused) = self.subscribe_plain(session, text, options, handling, token) {
                    return self.refused_subscription(refused);
                }
            }
            Some(Filter::Shared { group, filter: text }) => {
                let known =
                    entry.shared().iter().any(|shared| *shared.group == *group && *shared.filter == *text);
                if full && !known {
                    return self.refuse_subscription(limit);
                }
                if let Err(refused) = self.subscribe_shared(session, group, text, options, token) {
                    return self.refused_subscription(refused);
                }
            }
        }
        match filter.qos {
            QoS::AtMostOnce => ReasonCode::Success,
            QoS::AtLeastOnce => ReasonCode::GrantedQos1,
            QoS::ExactlyOnce => ReasonCode::GrantedQos2,
        }
    }

    fn refuse_subscription(&mut self, limit: Limit) -> ReasonCode {
        self.met(limit);
        ReasonCode::QuotaExceeded
    }

    fn refused_subscription(&mut self, refused: Refused) -> ReasonCode {
        let failed = self.refused(refused).failed;
        if failed { ReasonCode::ImplementationSpecificError } else { ReasonCode::QuotaExceeded }
    }

    fn is_subscribed(&self, session: u32, filter: &str) -> bool {
        let vhost = self.sessions.at(session).map_or(super::VHOST, |entry| entry.vhost);
        self.trie.find(vhost, filter).is_some_and(|id| self.trie.get(id, Subscriber(session)).is_some())
    }

    fn subscribe_plain(
        &mut self,
        session: u32,
        text: &str,
        options: SubscriptionOptions,
        retain_handling: RetainHandling,
        token: (u32, u32),
    ) -> Result<(), Refused> {
        let vhost = self.sessions.at(session).map_or(super::VHOST, |entry| entry.vhost);
        let old = self.trie.find(vhost, text).and_then(|filter| self.subscription_state(session, filter));
        let state = self.keep_subscription(session, "", text, options, old)?;
        let inserted = self.trie.insert(vhost, text, Subscriber(session), options);
        if let Some(state) = state {
            self.note_subscription(session, inserted.filter, state);
        }
        let Some(entry) = self.sessions.at_mut(session) else { return Ok(()) };
        match inserted.replaced {
            // [MQTT-3.8.4-3]
            Some(old) => entry.count_filter(old.qos, -1),
            None => {
                entry.filters.push(inserted.filter);
                self.fan_outs.note_subscription(Subscriber(session), inserted.filter);
            }
        }
        entry.count_filter(options.qos, 1);
        self.announce(inserted.filter, inserted.change);
        let wants_retained = match retain_handling {
            RetainHandling::SendAlways => true,
            RetainHandling::SendIfNew => inserted.replaced.is_none(),
            RetainHandling::Never => false,
        };
        if wants_retained && let Some(waiting) = self.subscribing.get_mut(token.0, token.1) {
            let subscription_id = options.subscription_id;
            waiting.replays.push(NewReplay { vhost, filter: text.into(), qos: options.qos, subscription_id });
        }
        Ok(())
    }

    fn subscribe_shared(
        &mut self,
        session: u32,
        group: &str,
        filter: &str,
        options: SubscriptionOptions,
        token: (u32, u32),
    ) -> Result<(), Refused> {
        let hash = self.group_hash(session, group, filter);
        let Some(entry) = self.sessions.at(session) else { return Ok(()) };
        let known = entry.shared().iter().find(|s| *s.group == *group && *s.filter == *filter);
        let old = known.and_then(|shared| shared.state);
        let state = self.keep_subscription(session, group, filter, options, old)?;
        let Some(entry) = self.sessions.at_mut(session) else { return Ok(()) };
        let known = entry.extra().shared.iter_mut().find(|s| *s.group == *group && *s.filter == *filter);
        let old = known.map(|shared| std::mem::replace(&mut shared.options, options));
        match old {
            Some(old) => entry.count_filter(old.qos, -1),
            None => {
                entry.extra().shared.push(SharedSubscription {
                    group: group.into(),
                    filter: filter.into(),
                    hash,
                    options,
                    state,
                });
            }
        }
        entry.count_filter(options.qos, 1);
        if let Some(waiting) = self.subscribing.get_mut(token.0, token.1) {
            waiting.missing += 1;
        }
        self.join_group(session, group, filter, options, token);
        Ok(())
    }

    /// Goes on with `what` once the deltas sent so far are in force everywhere.
    pub(super) fn when_settled(&mut self, what: Settles) {
        if self.mesh.settled_everywhere() >= self.mesh.delta_sequence {
            self.go_on(what);
        } else {
            self.settling.push_back(Settling { sequence: self.mesh.delta_sequence, what });
        }
    }

    /// Other shards have more of this one's deltas in force.
    pub(super) fn check_settled(&mut self) {
        let settled = self.mesh.settled_everywhere();
        while self.settling.front().is_some_and(|settling| settling.sequence <= settled)
            && let Some(settling) = self.settling.pop_front()
        {
            self.go_on(settling.what);
        }
    }

    fn go_on(&mut self, what: Settles) {
        match what {
            Settles::Subscribe(token) => self.subscribe_step_done(token),
            Settles::Join(to, token) if to == self.id => self.subscribe_step_done(token),
            Settles::Join(to, token) => self.mesh.to(to).push(PeerMessage::Joined { token }),
        }
    }

    /// One of the things a SUBSCRIBE waits for has happened; after the last one SUBACK leaves.
    pub(super) fn subscribe_step_done(&mut self, token: (u32, u32)) {
        if token == RECOVERY_TOKEN {
            return self.recovery_joined();
        }
        let Some(waiting) = self.subscribing.get_mut(token.0, token.1) else { return };
        waiting.missing -= 1;
        if waiting.missing > 0 {
            return;
        }
        let Some(done) = self.subscribing.remove(token.0, token.1) else { return };
        let Some(entry) = self.sessions.get_mut(done.session) else { return };
        let (same, link) = (entry.incarnation == done.incarnation, entry.connection());
        let Some(link) = link.filter(|_| same) else { return };
        let Some(version) = self.links.at(link).map(|connection| connection.version) else { return };
        // [MQTT-3.8.4-1] [MQTT-3.8.4-2]
        codec::encode_suback(done.packet_id, &done.codes, None, version, self.links.out(link).bytes_mut());
        for replay in done.replays {
            // UNSUBSCRIBE may have come before SUBACK could leave.
            if self.is_subscribed(done.session.slot, &replay.filter) {
                self.start_replay(done.session, replay);
            }
        }
    }

    pub(super) fn on_unsubscribe(&mut self, slot: u32, session: u32, unsubscribe: &Unsubscribe<'_>) {
        // Nothing may be added for delivery after this. [MQTT-3.10.4-2]
        self.finish_begun();
        let mut codes = Vec::new();
        for filter in unsubscribe.filters() {
            let existed = match parse_filter(filter) {
                None => false,
                Some(Filter::Plain(text)) => self.unsubscribe_plain(session, text),
                Some(Filter::Shared { group, filter }) => self.leave_group(session, group, filter),
            };
            codes.push(if existed { ReasonCode::Success } else { ReasonCode::NoSubscriptionExisted });
        }
        let Some(version) = self.links.at(slot).map(|connection| connection.version) else { return };
        let is_kept = self.sessions.at(session).is_some_and(|entry| entry.durable.is_some());
        let last = self.last_commit();
        if is_kept && let (Some(commit), Some(id)) = (self.uncommitted(Some(last)), self.links.id_at(slot)) {
            let mut packet = Vec::new();
            codec::encode_unsuback(unsubscribe.packet_id, &codes, version, &mut packet);
            return self.after_commit(commit, Wait::Send(id, packet.into()));
        }
        // [MQTT-3.10.4-4] [MQTT-3.10.4-5]
        codec::encode_unsuback(unsubscribe.packet_id, &codes, version, self.links.out(slot).bytes_mut());
    }

    fn unsubscribe_plain(&mut self, session: u32, text: &str) -> bool {
        let Some(vhost) = self.sessions.at(session).map(|entry| entry.vhost) else { return false };
        let Some(filter) = self.trie.find(vhost, text) else { return false };
        self.cancel_replays_of(session, text);
        self.remove_subscription(session, filter)
    }

    /// Takes a session off a filter; `false` if it was not on it.
    pub(super) fn remove_subscription(&mut self, session: u32, filter: FilterId) -> bool {
        let text = if self.shards > 1 { self.filter_text(filter) } else { None };
        self.forget_subscription(session, filter);
        let Some(removed) = self.trie.remove(filter, Subscriber(session)) else { return false };
        if let Some(entry) = self.sessions.at_mut(session) {
            entry.filters.remove(filter);
            entry.count_filter(removed.options.qos, -1);
        }
        if let Some((vhost, text)) = text {
            self.broadcast(&Delta::new(self.topics, vhost, &text, removed.change));
        }
        true
    }

    fn filter_text(&self, filter: FilterId) -> Option<(crate::base::VhostId, String)> {
        let mut text = String::new();
        let vhost = self.trie.filter_text(filter, &mut text)?;
        Some((vhost, text))
    }

    /// Tells the other shards what this shard's subscribers to a filter have come to.
    pub(super) fn announce(&mut self, filter: FilterId, change: Change) {
        if self.shards > 1
            && !change.is_none()
            && let Some((vhost, text)) = self.filter_text(filter)
        {
            self.broadcast(&Delta::new(self.topics, vhost, &text, change));
        }
    }

    pub(super) fn broadcast(&mut self, delta: &Delta) {
        if delta.change.is_none() {
            return;
        }
        self.mesh.delta_sequence += 1;
        let sequence = self.mesh.delta_sequence;
        for shard in self.mesh.others() {
            let delta = Box::new(delta.clone());
            self.mesh.to(shard).push(PeerMessage::Interest { delta, sequence });
        }
    }
}
