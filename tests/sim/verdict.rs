//! The judgements that need everything to have settled: nothing acknowledged was lost, shared messages reached one member,
//! wills fired as they must, and retained messages are the last ones accepted.

use crate::clients::Client;
use crate::clients::polite::{Attempt, End, LINGER_MS, Polite, SLACK_MS};
use crate::oracle::{Delivery, OBSERVER, Publication, Subscription, is_retained_topic};
use crate::workload::GROUPS;
use crate::world::World;
use quelea::base::QoS;
use quelea::base::topic::matches;
use std::collections::{BTreeMap, BTreeSet};

/// Longer than it takes until something is on disk.
const COMMIT_MS: u64 = 15_000;

impl World {
    /// All of them.
    pub(crate) fn judge(&self) -> Result<(), String> {
        if !self.swarm.has_queue_limits() && !self.swarm.disk_refuses() {
            self.judge_lost()?;
            self.judge_qos0()?;
            self.judge_groups()?;
            self.judge_last_seen()?;
        }
        self.judge_wills()
    }

    pub(crate) fn polite(&self, client: usize) -> Option<&Polite> {
        match self.clients.get(client) {
            Some(Some(Client::Polite(polite))) => Some(polite),
            _ => None,
        }
    }

    fn tags_of(&self, client: usize) -> BTreeSet<usize> {
        let Some(polite) = self.polite(client) else { return BTreeSet::new() };
        let mine = self.oracle.deliveries[client].iter().filter(|d| d.incarnation == polite.incarnation);
        mine.map(|d| d.tag).collect()
    }

    /// What was acknowledged to its publisher has reached every session that was subscribed all the while.
    fn judge_lost(&self) -> Result<(), String> {
        let mut got: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for subscription in self.oracle.subscriptions.iter().filter(|s| s.group.is_none()) {
            let client = subscription.client;
            let Some(polite) = self.polite(client) else { continue };
            if polite.incarnation != subscription.incarnation {
                continue;
            }
            let got = got.entry(client).or_insert_with(|| self.tags_of(client));
            for (tag, publication) in self.oracle.publications.iter().enumerate() {
                if must_come(publication, subscription)
                    && !got.contains(&tag)
                    && !self.oracle.is_excused(tag)
                    && !self.has_lost_identifiers(polite)
                {
                    let filter = &subscription.filter;
                    return Err(format!(
                        "m{tag} on {} was acknowledged, and client {client} subscribed to {filter}, but it never came",
                        publication.topic
                    ));
                }
            }
        }
        Ok(())
    }

    /// QoS 0 reaches who is there all the while, if it got through to the broker: the observer tells.
    fn judge_qos0(&self) -> Result<(), String> {
        if self.may_drop_qos0() {
            return Ok(());
        }
        let observed = self.tags_of(OBSERVER);
        for subscription in &self.oracle.subscriptions {
            let client = subscription.client;
            let Some(polite) = self.polite(client) else { continue };
            let (Some(granted), Some(last)) = (subscription.granted, polite.attempts.last()) else {
                continue;
            };
            let is_live = subscription.group.is_none() && subscription.dropped.is_none();
            if !is_live || polite.incarnation != subscription.incarnation {
                continue;
            }
            let since = granted.max(last.accepted_step);
            let got = self.tags_of(client);
            for tag in &observed {
                let publication = &self.oracle.publications[*tag];
                let must = publication.sent.is_some_and(|sent| sent > since)
                    && publication.qos.min(subscription.qos) == QoS::AtMostOnce
                    && publication.expiry.is_none()
                    && !(publication.is_large && subscription.takes_small_only)
                    && subscription.wants(publication);
                let is_excused = self.oracle.is_excused(*tag) || self.has_lost_identifiers(polite);
                if must && !got.contains(tag) && !is_excused {
                    return Err(format!("m{tag} with QoS 0 never came to client {client}, which was there"));
                }
            }
        }
        Ok(())
    }

    /// A message of a shared subscription has reached one member, and no other unless a session ended.
    fn judge_groups(&self) -> Result<(), String> {
        for (group, filter) in GROUPS {
            let members: Vec<&Subscription> =
                self.oracle.subscriptions.iter().filter(|s| s.group.as_deref() == Some(group)).collect();
            let mut receivers: BTreeMap<usize, Vec<(usize, Delivery)>> = BTreeMap::new();
            let clients: BTreeSet<usize> = members.iter().map(|s| s.client).collect();
            for client in clients {
                for delivery in &self.oracle.deliveries[client] {
                    receivers.entry(delivery.tag).or_default().push((client, *delivery));
                }
            }
            for (tag, publication) in self.oracle.publications.iter().enumerate() {
                let is_excused = self.oracle.is_excused(tag) || self.oracle.lost_with_session.contains(&tag);
                if matches(filter, &publication.topic) && !is_excused {
                    let got = receivers.get(&tag).map_or(&[][..], Vec::as_slice);
                    self.judge_shared(tag, publication, &members, got)?;
                }
            }
        }
        Ok(())
    }

    fn judge_shared(
        &self,
        tag: usize,
        publication: &Publication,
        members: &[&Subscription],
        got: &[(usize, Delivery)],
    ) -> Result<(), String> {
        let all_stayed = self.oracle.ended_members == 0;
        let clients: BTreeSet<usize> = got.iter().map(|(client, _)| *client).collect();
        let all_take = !publication.is_large || members.iter().all(|member| !member.takes_small_only);
        let waited_for = all_take
            && members.iter().any(|member| {
                self.polite(member.client).is_some_and(|p| p.incarnation == member.incarnation)
                    && !member.is_cancelled
                    && member.gone.is_none()
                    && binds(publication, member)
            });
        // QoS 2 that was sent stays with its session, and is lost with it. [MQTT-4.8.2-5]
        let is_safe = all_stayed
            || publication.qos == QoS::AtLeastOnce
            || members.iter().all(|member| member.qos == QoS::AtLeastOnce);
        // A member whose session lives in memory takes with it at a crash what it was given.
        let is_safe = is_safe && (self.crashes.is_empty() || members.iter().all(|member| member.is_durable));
        if waited_for && is_safe && clients.is_empty() {
            let group = &members[0].group;
            return Err(format!("m{tag} on {} reached no member of {group:?}", publication.topic));
        }
        let was_resent =
            publication.is_ambiguous || (publication.qos == QoS::AtLeastOnce && publication.attempts > 1);
        // To one client it may come again, in a session of which the client cannot tell whether it is the one of before.
        let takers = got.iter().filter(|(_, d)| d.qos == QoS::ExactlyOnce).map(|(client, _)| client);
        let twice_sent = takers.collect::<BTreeSet<_>>().len() > 1;
        // After a crash what had been handed on may be so again, and a repetition may go to another member.
        let may_repeat = !self.crashes.is_empty() && (!all_stayed || publication.attempts > 1);
        if clients.len() > 1 && !was_resent && !may_repeat && (all_stayed || twice_sent) {
            return Err(format!("m{tag} on {} reached members {clients:?}", publication.topic));
        }
        Ok(())
    }

    /// For one publisher a topic, the last value a subscriber saw is the retained value.
    fn judge_last_seen(&self) -> Result<(), String> {
        for ((client, topic), truth) in &self.oracle.last_seen {
            if *client != OBSERVER || !is_retained_topic(topic) || self.is_excused_topic(topic) {
                continue;
            }
            self.judge_retained(topic, *truth)?;
            for subscription in &self.oracle.subscriptions {
                self.judge_seen_by(subscription, topic, *truth)?;
            }
        }
        Ok(())
    }

    /// The library takes what comes with an identifier that a disk has lost for a repetition.
    fn has_lost_identifiers(&self, polite: &Polite) -> bool {
        polite.profile.is_library && !self.oracle.excused.is_empty() && !self.crashes.is_empty()
    }

    /// What is retained there, or somebody was to see of it, may have been lost with a disk.
    fn is_excused_topic(&self, topic: &str) -> bool {
        let mut published = self.oracle.publications.iter().enumerate().filter(|(_, p)| p.topic == topic);
        self.oracle.excused_clients.contains(&OBSERVER)
            || self.oracle.excused_topics.contains(topic)
            || published.any(|(tag, _)| self.oracle.is_excused(tag))
    }

    fn judge_seen_by(&self, by: &Subscription, topic: &str, truth: Option<usize>) -> Result<(), String> {
        let Some(polite) = self.polite(by.client) else { return Ok(()) };
        if by.takes_small_only {
            // It may not have seen the last value because it is too large.
            return Ok(());
        }
        let granted = by.granted.filter(|_| by.dropped.is_none() && by.incarnation == polite.incarnation);
        let Some(granted) = granted.filter(|_| matches(&by.filter, topic)) else { return Ok(()) };
        let values = self.oracle.publications.iter().filter(|p| p.topic == topic);
        let qos = values.clone().map(|p| p.qos).min().unwrap_or_default().min(by.qos);
        let connected = polite.attempts.iter().map(|attempt| attempt.accepted_step).max().unwrap_or(0);
        // QoS 0 is not kept for a client that is away.
        if qos == QoS::AtMostOnce && (connected > granted || self.may_drop_qos0()) {
            return Ok(());
        }
        // Who came after the clear has nothing to see, nor of what was refused since.
        let was_taken = |p: &&Publication| p.acked.is_some_and(|(_, reason)| !reason.is_error());
        let last = values.clone().filter(was_taken).filter_map(|p| p.sent).max().unwrap_or(0);
        if truth.is_none() && last <= granted {
            return Ok(());
        }
        // A replay ends with the process.
        if last <= granted && self.crashes.iter().any(|crash| crash.step >= by.asked) {
            return Ok(());
        }
        // What was not acknowledged may be gone with a crash, though somebody saw it.
        let newest = values.clone().rfind(|p| p.sent.is_some());
        if !self.crashes.is_empty() && newest.is_none_or(|newest| newest.acked.is_none()) {
            return Ok(());
        }
        let seen = self.oracle.last_seen.get(&(by.client, topic.to_string())).copied().flatten();
        // What is sent again after a crash comes late to who has subscribed since, where nothing is known of it, or not at all,
        // where it is known for others.
        let was_repeated = |tag: usize| self.oracle.publications[tag].attempts > 1;
        let is_late =
            !self.crashes.is_empty() && (seen.is_some_and(was_repeated) || truth.is_some_and(was_repeated));
        if seen != truth && !is_late {
            return Err(format!("client {} saw {seen:?} last on {topic}, which has {truth:?}", by.client));
        }
        Ok(())
    }

    /// The value is the last one that was accepted, as far as its publisher can know.
    pub(crate) fn judge_retained(&self, topic: &str, truth: Option<usize>) -> Result<(), String> {
        let mut candidates = vec![None];
        for (tag, publication) in self.oracle.publications.iter().enumerate() {
            if publication.topic == topic && publication.sent.is_some() {
                let value = (!publication.is_clear).then_some(tag);
                let refused = publication.acked.is_some_and(|(_, reason)| reason.is_error());
                // After a crash what is repeated may overwrite what came behind it and is not; what was refused, and is sent again
                // as that was not heard, comes behind what was sent later.
                let may_be_late = !self.crashes.is_empty() || self.oracle.may_refuse;
                let was_repeated = may_be_late && publication.attempts > 1;
                if publication.acked.is_some() && !refused && !was_repeated {
                    candidates.clear();
                }
                // What was refused may have been taken when it was sent before.
                if !refused || publication.attempts > 1 {
                    candidates.push(value);
                }
            }
        }
        if candidates.contains(&truth)
            || self.is_excused_topic(topic)
            || self.drops_qos0()
            || self.swarm.disk_refuses()
        {
            return Ok(());
        }
        Err(format!("{topic} has {truth:?}, accepted was one of {candidates:?}"))
    }

    fn may_drop_qos0(&self) -> bool {
        // Backlogs that reach the default bounds need large messages.
        self.drops_qos0() || self.swarm.load.large_payloads
    }

    pub(crate) fn drops_qos0(&self) -> bool {
        self.swarm.options.queue.qos0_bytes_max < 1000
    }

    /// Wills fire once or not at all, as they must; the observer sees which.
    fn judge_wills(&self) -> Result<(), String> {
        // Live, and as a retained message: that may be the one that comes live too.
        let mut fired: BTreeMap<usize, [usize; 2]> = BTreeMap::new();
        for delivery in &self.oracle.deliveries[OBSERVER] {
            fired.entry(delivery.tag).or_default()[usize::from(delivery.retain)] += 1;
        }
        for client in 0..self.clients.len() {
            let Some(polite) = self.polite(client) else { continue };
            for (index, attempt) in polite.attempts.iter().enumerate() {
                let Some((tag, delay)) = attempt.will else { continue };
                let [live, retained] = fired.get(&tag).copied().unwrap_or_default();
                let count = live.max(retained.min(1));
                let later = &polite.attempts[index + 1..];
                let fate = self.will_fate(attempt, later, delay);
                let crashes = self.crashes_near(attempt, delay);
                let fate = if crashes > 0 { self.fate_with_crash(attempt, fate) } else { fate };
                let excused = &self.oracle.excused_clients;
                let is_excused = excused.contains(&client) || excused.contains(&OBSERVER);
                let fate = if is_excused || self.oracle.is_excused(tag) { Fate::May } else { fate };
                // A crash may leave a session with its will, and the copy that was to outlive it.
                let most = 1 + 2 * crashes;
                let right = match fate {
                    Fate::Must if crashes > 0 => count <= most && (count > 0 || self.may_drop(tag)),
                    Fate::May if crashes > 0 => count <= most,
                    Fate::Must => count == 1 || (self.may_drop(tag) && count == 0),
                    Fate::Never => count == 0,
                    Fate::May => count <= 1,
                };
                if !right {
                    return Err(format!("will m{tag} of client {client} fired {count} times: {fate:?}"));
                }
            }
        }
        Ok(())
    }

    /// Crashes that may have met this will.
    fn crashes_near(&self, attempt: &Attempt, delay: u32) -> usize {
        let socket = &self.network.sockets[attempt.socket];
        let over = socket.server_end.map_or(u64::MAX, |ended| {
            let due = self.clock_ms(ended) + u64::from(delay) * 1000;
            due + COMMIT_MS
        });
        self.crashes_between(attempt.at_ms, over)
    }

    /// A will is on disk with its session, if that outlives its connection; that it is gone is there a little later.
    fn fate_with_crash(&self, attempt: &Attempt, fate: Fate) -> Fate {
        let is_kept = attempt.expiry_secs.is_some_and(|expiry| expiry > 0);
        match (fate, attempt.end) {
            (Fate::Must, _) if !is_kept => Fate::May,
            (Fate::Never, End::Goodbye { .. }) => Fate::May,
            _ => fate,
        }
    }

    fn may_drop(&self, tag: usize) -> bool {
        let qos = self.oracle.publications[tag].qos;
        // The observer is away for a while after a crash.
        let may_miss = self.drops_qos0() || !self.crashes.is_empty();
        let may_be_refused = self.swarm.has_queue_limits() || self.swarm.disk_refuses();
        if qos == QoS::AtMostOnce { may_miss } else { may_be_refused }
    }

    fn will_fate(&self, attempt: &Attempt, later: &[Attempt], delay: u32) -> Fate {
        let socket = &self.network.sockets[attempt.socket];
        if attempt.accepted_ms.is_none() {
            return Fate::May;
        }
        let Some(ended) = socket.server_end else {
            // Still connected.
            return Fate::Never;
        };
        match attempt.end {
            // A publish before DISCONNECT that the disk refuses has closed the connection.
            End::Goodbye { with_will: false } if self.swarm.disk_refuses() => return Fate::May,
            End::Goodbye { with_will: false } if socket.was_ended_by_client => return Fate::Never,
            End::Goodbye { .. } if !socket.was_ended_by_client || attempt.expiry_secs.is_none() => {
                return Fate::May;
            }
            _ => {}
        }
        if delay == 0 {
            return Fate::Must;
        }
        let due = ended + u64::from(delay) * 1000;
        // A crash may have its clock begin anew.
        let late = self.clock_ms(ended) + u64::from(delay) * 1000;
        let Some(next) = later.first() else {
            return if self.now_ms() > late + SLACK_MS { Fate::Must } else { Fate::May };
        };
        if next.clean_start && next.accepted_ms.is_some() {
            // Ends the session, or takes it over: either way the will is published.
            return Fate::Must;
        }
        match next.accepted_ms {
            Some(accepted) if accepted + SLACK_MS + LINGER_MS < due => Fate::Never,
            _ if next.at_ms > late + SLACK_MS => Fate::Must,
            _ => Fate::May,
        }
    }
}

/// What a will has to do.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Must,
    Never,
    May,
}

/// Whether a message concerns a subscription that was there when it was sent, and neither may be dropped.
fn binds(publication: &Publication, subscription: &Subscription) -> bool {
    let (Some(sent), Some((_, reason))) = (publication.sent, publication.acked) else { return false };
    let is_plain = !publication.is_clear && !publication.is_will && publication.expiry.is_none();
    let is_too_large = publication.is_large && subscription.takes_small_only;
    subscription.granted.is_some_and(|granted| granted < sent)
        && !reason.is_error()
        && is_plain
        && !is_too_large
        && publication.qos.min(subscription.qos) > QoS::AtMostOnce
        && subscription.wants(publication)
}

/// Whether a message has to have come through a subscription of a session that still lives.
fn must_come(publication: &Publication, subscription: &Subscription) -> bool {
    let Some((acked, _)) = publication.acked else { return false };
    let in_time = match subscription.dropped {
        None => true,
        // Without a commit nobody waited for it to get there; nor does the answer to a repeated QoS 2 PUBLISH wait.
        Some(dropped) => {
            let is_repeated = publication.qos == QoS::ExactlyOnce && publication.attempts > 1;
            acked < dropped && subscription.is_durable && !is_repeated
        }
    };
    in_time && binds(publication, subscription)
}
