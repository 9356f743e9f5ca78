//! What was done and what was seen, and the judgements that can be made at once.
//!
//! Order between happenings of different clients is by *step*, the number of the world's event. What can only be judged when
//! everything has settled is in `verdict.rs`.

use crate::clients::machine::Incoming;
use quelea::base::topic::matches;
use quelea::base::{QoS, ReasonCode};
use quelea::codec::properties;
use std::collections::{BTreeMap, BTreeSet};

/// The client that sees everything and never fails.
pub(crate) const OBSERVER: usize = 0;

/// One message somebody published, or a will.
#[derive(Clone, Debug)]
pub(crate) struct Publication {
    pub(crate) publisher: usize,
    /// Counts the publisher's messages.
    pub(crate) number: usize,
    pub(crate) topic: String,
    pub(crate) qos: QoS,
    /// Clears a retained message: nobody can tell it from another clear.
    pub(crate) is_clear: bool,
    pub(crate) is_will: bool,
    /// Larger than what clients with a Maximum Packet Size take.
    pub(crate) is_large: bool,
    pub(crate) expiry: Option<u32>,
    /// Encoded.
    pub(crate) properties: Vec<u8>,
    /// Step of the first PUBLISH, and how many there were.
    pub(crate) sent: Option<u64>,
    pub(crate) attempts: u32,
    pub(crate) acked: Option<(u64, ReasonCode)>,
    /// Publisher and broker may not agree on whether it was sent before.
    pub(crate) is_ambiguous: bool,
}

/// One message somebody got.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    pub(crate) tag: usize,
    pub(crate) incarnation: u32,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
}

/// One subscription, from SUBSCRIBE on.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) client: usize,
    pub(crate) incarnation: u32,
    pub(crate) filter: String,
    pub(crate) group: Option<String>,
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) id: Option<u32>,
    /// Its client has a small Maximum Packet Size.
    pub(crate) takes_small_only: bool,
    /// The session outlives its connection.
    pub(crate) is_durable: bool,
    /// Step: SUBSCRIBE sent.
    pub(crate) asked: u64,
    /// Step: SUBACK got.
    pub(crate) granted: Option<u64>,
    /// Step: UNSUBSCRIBE or another SUBSCRIBE for the filter sent, or the session ended.
    pub(crate) dropped: Option<u64>,
    /// UNSUBSCRIBE was sent.
    pub(crate) is_cancelled: bool,
    /// Step: UNSUBACK got (or the session ended): nothing may come through it any more.
    pub(crate) gone: Option<u64>,
}

impl Subscription {
    pub(crate) fn wants(&self, publication: &Publication) -> bool {
        matches(&self.filter, &publication.topic) && !(self.no_local && self.client == publication.publisher)
    }
}

/// What has to come in order: messages of one publisher, topic and QoS (as published, as delivered) to one session.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Flow {
    client: usize,
    incarnation: u32,
    publisher: usize,
    topic: String,
    qos: (QoS, QoS),
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) publications: Vec<Publication>,
    pub(crate) subscriptions: Vec<Subscription>,
    /// By client.
    pub(crate) deliveries: Vec<Vec<Delivery>>,
    /// By client and topic of retained messages: the value seen last; `None` is a clear.
    pub(crate) last_seen: BTreeMap<(usize, String), Option<usize>>,
    /// By client and topic of retained messages: the newest value that came live.
    pub(crate) newest_live: BTreeMap<(usize, String), usize>,
    /// Members of shared subscriptions whose session has ended.
    pub(crate) ended_members: usize,
    /// How often the process has died.
    pub(crate) crashes: usize,
    /// Some disk fails: its log does not keep what becomes of sessions.
    pub(crate) fails: bool,
    /// How often it started again with another number of shards.
    pub(crate) moves: usize,
    /// Messages that were in what a disk has lost, or could not give back.
    pub(crate) excused: BTreeSet<usize>,
    /// Messages that a session a disk has lost had to itself, as a member of a group.
    pub(crate) lost_with_session: BTreeSet<usize>,
    /// Topics whose retained message was.
    pub(crate) excused_topics: BTreeSet<String>,
    /// Clients something of whose session was: their QoS 2 identifiers may be known still, or not any more.
    pub(crate) excused_clients: BTreeSet<usize>,
    /// QoS 0 messages may wait: for clients that are away, or for replays.
    pub(crate) queues_qos0: bool,
    /// Full queues refuse: a refusal that is lost on the way to the publisher ends the exchange on one side only, and some
    /// queue may have taken the message.
    pub(crate) refuses: bool,
    /// Publishes are refused now and then, for whatever reason: what is sent again because its refusal was lost comes late.
    pub(crate) may_refuse: bool,
    /// Queues have bounds: what they drop may be there again after a crash, which comes before that is on disk.
    pub(crate) drops: bool,
    /// Clients that refuse some deliveries: a refusal that is lost has the delivery sent again.
    pub(crate) refusing: BTreeSet<usize>,
    /// Topics on which a newcomer got a message with RETAIN.
    pub(crate) retained_topics: BTreeSet<String>,
    pub(crate) counts: BTreeMap<usize, usize>,
    /// By client, incarnation and tag: the QoS and RETAIN it came with first.
    pub(crate) first: BTreeMap<(usize, u32, usize), (QoS, bool)>,
    /// The latest message of each flow.
    pub(crate) latest: BTreeMap<Flow, usize>,
}

/// Topics of retained messages; each has one publisher.
pub(crate) fn is_retained_topic(topic: &str) -> bool {
    topic.starts_with("r/")
}

/// The payload of a publication.
pub(crate) fn payload(tag: usize, padding: usize) -> Vec<u8> {
    let mut payload = format!("m{tag}|").into_bytes();
    payload.resize(payload.len() + padding, b'.');
    payload
}

/// Properties that no other message has, encoded: of every kind, and user properties of which some are equal.
pub(crate) fn properties(tag: usize) -> Vec<u8> {
    let mut out = Vec::new();
    if tag % 5 == 1 {
        properties::push_payload_format(&mut out, true);
        properties::push_content_type(&mut out, "text/plain");
    }
    if tag % 7 == 2 {
        properties::push_response_topic(&mut out, "answers");
        properties::push_correlation_data(&mut out, &tag.to_be_bytes());
    }
    for _ in 0..tag % 3 {
        properties::push_user_property(&mut out, "tag", &tag.to_string());
    }
    out
}

fn tag_of(payload: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(payload).ok()?.strip_prefix('m')?;
    text.split_once('|')?.0.parse().ok()
}

impl Oracle {
    /// Names a message.
    pub(crate) fn publication(&mut self, mut publication: Publication) -> usize {
        let count = self.counts.entry(publication.publisher).or_default();
        publication.number = *count;
        *count += 1;
        self.publications.push(publication);
        self.publications.len() - 1
    }

    pub(crate) fn sent(&mut self, tag: usize, step: u64) {
        let publication = &mut self.publications[tag];
        publication.sent.get_or_insert(step);
        publication.attempts += 1;
    }

    pub(crate) fn acked(
        &mut self,
        tag: usize,
        step: u64,
        reason: ReasonCode,
        limited: bool,
    ) -> Result<(), String> {
        if reason == ReasonCode::NoMatchingSubscribers && !self.excused_clients.contains(&OBSERVER) {
            return Err(format!("m{tag}: no subscriber, though the observer subscribes to everything"));
        }
        if reason.is_error() && !limited {
            return Err(format!("m{tag}: refused with {reason:?} without a limit"));
        }
        self.publications[tag].acked.get_or_insert((step, reason));
        Ok(())
    }

    /// A message may have been lost with a disk: it was there, or its publisher's identifiers were.
    pub(crate) fn is_excused(&self, tag: usize) -> bool {
        let publication = &self.publications[tag];
        let by_identifier =
            publication.qos == QoS::ExactlyOnce && self.excused_clients.contains(&publication.publisher);
        by_identifier || self.excused.contains(&tag)
    }

    /// The connection of a client is over, or will be: its session may end before anybody hears of it.
    pub(crate) fn member_may_end(&mut self, client: usize) {
        let mut all = self.subscriptions.iter();
        if all.any(|s| s.client == client && s.group.is_some() && s.gone.is_none()) {
            self.ended_members += 1;
        }
    }

    /// The session of a client is over, or may be: what it was subscribed to is not any more.
    pub(crate) fn session_over(&mut self, client: usize, step: u64) {
        for subscription in self.subscriptions.iter_mut().filter(|s| s.client == client) {
            if subscription.gone.is_none() && subscription.group.is_some() {
                self.ended_members += 1;
            }
            subscription.dropped.get_or_insert(step);
            subscription.gone.get_or_insert(step);
        }
    }

    /// Somebody got a message.
    pub(crate) fn delivered(
        &mut self,
        client: usize,
        incarnation: u32,
        step: u64,
        got: &Incoming,
    ) -> Result<(), String> {
        if got.retain {
            self.retained_topics.insert(got.topic.clone());
        }
        let Some(tag) = tag_of(&got.payload) else {
            if got.payload.is_empty() && is_retained_topic(&got.topic) {
                self.last_seen.insert((client, got.topic.clone()), None);
            }
            return Ok(());
        };
        let publication = self.publications.get(tag).ok_or_else(|| format!("m{tag} was never published"))?;
        if publication.topic != got.topic {
            return Err(format!("m{tag} of {} came as {}", publication.topic, got.topic));
        }
        if !publication.is_will && publication.sent.is_none() {
            return Err(format!("m{tag} came before it was sent"));
        }
        if got.expiry.is_some_and(|left| left == 0 || publication.expiry.is_none_or(|whole| left > whole)) {
            return Err(format!("m{tag}: expiry {:?} of {:?}", got.expiry, publication.expiry));
        }
        self.check_wanted(client, step, tag, got)?;
        let delivery = Delivery { tag, incarnation, qos: got.qos, retain: got.retain };
        if self.crashes > 0
            && self.first.contains_key(&(client, incarnation, tag))
            && got.qos == QoS::AtLeastOnce
        {
            // After a crash QoS 1 comes again, and not marked as such.
            if is_retained_topic(&got.topic) {
                self.last_seen.insert((client, got.topic.clone()), Some(tag));
            }
            self.deliveries[client].push(delivery);
            return Ok(());
        }
        if is_retained_topic(&got.topic) {
            self.first.entry((client, incarnation, tag)).or_insert((got.qos, got.retain));
            self.check_not_stale(client, tag, got)?;
            self.last_seen.insert((client, got.topic.clone()), Some(tag));
        } else {
            self.check_once_and_in_order(client, &delivery)?;
        }
        self.deliveries[client].push(delivery);
        Ok(())
    }

    /// What travels with a message comes as it was sent. [MQTT-3.3.2-17] [MQTT-3.3.2-18]
    pub(crate) fn check_properties(&self, got: &Incoming, is_v5: bool) -> Result<(), String> {
        let Some(tag) = tag_of(&got.payload) else { return Ok(()) };
        let sent = self.publications.get(tag).map_or(&[][..], |publication| &publication.properties);
        if got.properties != if is_v5 { sent } else { &[] } {
            return Err(format!("m{tag} with properties {:?}, not {sent:?}", got.properties));
        }
        Ok(())
    }

    /// A retained message that a subscription replays is not older than what came to its client live before, nor than what was
    /// accepted before the client asked.
    fn check_not_stale(&mut self, client: usize, tag: usize, got: &Incoming) -> Result<(), String> {
        let value = &self.publications[tag];
        // What a subscription that is gone asked for may still come.
        let all = self.subscriptions.iter().filter(|s| s.client == client);
        let mut matching = all.filter(|s| matches(&s.filter, &got.topic));
        let may_be_live = matching.clone().any(|s| s.retain_as_published);
        let newest = self.newest_live.entry((client, got.topic.clone())).or_default();
        if !got.retain {
            *newest = tag.max(*newest);
        }
        // After a crash what was not acknowledged comes again, also in a session that may be another.
        let comes_again = self.crashes > 0 && self.deliveries[client].iter().any(|before| before.tag == tag);
        if comes_again || self.excused_topics.contains(&got.topic) {
            return Ok(());
        }
        // Sent twice: by the broker, or to it.
        if !got.retain || got.dup || may_be_live || value.is_ambiguous || value.attempts > 1 {
            return Ok(());
        }
        // What was not acknowledged may be gone with a crash, though it was seen.
        let was_kept = match self.publications[*newest].acked {
            // What was seen may have been of an attempt that was refused, or lost, and the replay from before the next one.
            Some((_, reason)) => {
                let may_be_of_another = self.may_refuse || self.crashes > 0;
                !(reason.is_error() || may_be_of_another && self.publications[*newest].attempts > 1)
            }
            None => self.crashes == 0 && !self.may_refuse,
        };
        if *newest > tag && was_kept {
            return Err(format!("client {client} gets retained m{tag} after m{newest} live"));
        }
        if self.refuses {
            // Accepted is what some took, and the topic's home may not have.
            return Ok(());
        }
        let asked = matching.by_ref().map(|s| s.asked).min().unwrap_or(0);
        let mut later = self.publications[tag + 1..].iter().filter(|p| p.topic == got.topic);
        let is_accepted = |p: &&Publication| {
            p.attempts == 1 && p.acked.is_some_and(|(at, reason)| at < asked && !reason.is_error())
        };
        match later.find(is_accepted) {
            Some(newer) => Err(format!(
                "client {client} asked at {asked} and gets retained m{tag}, though {newer:?} was accepted before"
            )),
            None => Ok(()),
        }
    }

    /// Some subscription must want the message, and if all are certain they say how it has to come.
    fn check_wanted(&self, client: usize, step: u64, tag: usize, got: &Incoming) -> Result<(), String> {
        let publication = &self.publications[tag];
        let all: Vec<&Subscription> =
            self.subscriptions.iter().filter(|s| s.client == client && s.wants(publication)).collect();
        let sent = publication.sent.unwrap_or(0);
        let may_come = |s: &&&Subscription| match s.gone {
            None => true,
            Some(_) if self.fails && self.crashes > 0 => true,
            // That it is gone may have been in what a disk has lost.
            Some(_) if self.excused_clients.contains(&client) => true,
            // It was on its way already, and what is queued may still come. [MQTT-3.10.4-2]
            Some(gone) => (got.qos > QoS::AtMostOnce || self.queues_qos0) && sent <= gone,
        };
        let possible: Vec<&&Subscription> = all.iter().filter(may_come).collect();
        let Some(qos_max) = possible.iter().map(|s| s.qos).max() else {
            return Err(format!("m{tag} on {} to client {client}: nothing asks for it", got.topic));
        };
        if got.qos > qos_max.min(publication.qos) {
            return Err(format!("m{tag} to client {client} with {:?}", got.qos));
        }
        if is_retained_topic(&got.topic) && !got.retain && possible.iter().all(|s| s.retain_as_published) {
            return Err(format!("[MQTT-3.3.1-13] m{tag} to client {client} without RETAIN"));
        }
        let is_certain = |s: &&Subscription| s.granted.is_some_and(|at| at < sent) && s.dropped.is_none();
        let is_over = |s: &&Subscription| {
            // What a disk has lost may be that it is.
            s.gone.is_some_and(|gone| gone < sent) && !self.excused_clients.contains(&client)
        };
        let live = all.iter().filter(|s| s.gone.is_none());
        if is_retained_topic(&got.topic) || publication.is_will || all.iter().any(|s| s.group.is_some()) {
            return Ok(());
        }
        if got.retain {
            return Err(format!("m{tag} to client {client} with RETAIN"));
        }
        if live.clone().count() > 0 && all.iter().all(|s| is_over(s) || is_certain(s)) {
            let qos = live.clone().map(|s| s.qos).max().unwrap_or_default().min(publication.qos);
            if got.qos != qos {
                return Err(format!(
                    "[MQTT-3.3.4-2] m{tag} to client {client} with {:?}, not {qos:?}",
                    got.qos
                ));
            }
            let mut ids: Vec<u32> = live.filter_map(|s| s.id).collect();
            let mut got_ids = got.ids.clone();
            ids.sort_unstable();
            got_ids.sort_unstable();
            if ids != got_ids {
                return Err(format!(
                    "m{tag} to client {client} at {step}: identifiers {got_ids:?}, not {ids:?}"
                ));
            }
        }
        Ok(())
    }

    /// Not twice where that may not be, and not behind a later one.
    fn check_once_and_in_order(&mut self, client: usize, new: &Delivery) -> Result<(), String> {
        let publication = &self.publications[new.tag];
        let is_repeatable = publication.is_ambiguous
            || self.refusing.contains(&client)
            || (self.refuses && (publication.attempts > 1 || publication.is_will))
            // Until it is kept everywhere it is published again.
            || (self.crashes > 0 && publication.is_will)
            // What is known for others goes to a member again: nobody knows whether the one it was given to has it.
            || (self.crashes > 0 && publication.topic.starts_with("s/") && publication.attempts > 1)
            // What a session that ended has left to others is handed on again if that it was is not on disk.
            || (self.crashes > 0 && publication.topic.starts_with("s/") && self.ended_members > 0)
            // What was in flight on a disk that cannot be read may be so no more, or again.
            || (!self.excused.is_empty() && self.crashes > 0)
            // Origins do not all go along to other shards.
            || (self.moves > 0 && publication.attempts > 1)
            // What has no packet identifier of its own leaves no trace on disk.
            || (self.crashes > 0 && new.qos == QoS::AtMostOnce && publication.attempts > 1)
            || (publication.qos == QoS::AtLeastOnce && publication.attempts > 1)
            || new.qos == QoS::AtLeastOnce;
        if let Some((qos, retain)) = self.first.get(&(client, new.incarnation, new.tag)) {
            // A retained will comes live, and as what is retained to a subscription that was new when it came.
            let is_replayed = publication.is_will && (*retain || new.retain);
            if !is_repeatable && !is_replayed && *qos == new.qos {
                return Err(format!("m{} to client {client} twice with {:?}", new.tag, new.qos));
            }
            return Ok(());
        }
        self.first.insert((client, new.incarnation, new.tag), (new.qos, new.retain));
        if publication.is_will {
            return Ok(());
        }
        let flow = Flow {
            client,
            incarnation: new.incarnation,
            publisher: publication.publisher,
            topic: publication.topic.clone(),
            qos: (publication.qos, new.qos),
        };
        let latest = self.latest.entry(flow).or_insert(new.tag);
        let later = *latest;
        *latest = later.max(new.tag);
        let is_resent = publication.attempts > 1 && (publication.qos == QoS::AtLeastOnce || self.may_refuse);
        // A member may get its own message back when another member's session ends.
        let in_group = publication.topic.starts_with("s/") && client != OBSERVER;
        // Who subscribed between two attempts at an earlier message may get it late.
        let wanted = |s: &Subscription| {
            let was_there = s.granted.is_some_and(|at| publication.sent.is_some_and(|sent| at < sent));
            s.client == client && was_there && s.dropped.is_none() && s.wants(publication)
        };
        // What is too large for one member goes to another, which may have had a later one.
        let is_too_large = |s: &Subscription| s.group.is_some() && s.takes_small_only;
        let was_handed_on = in_group && publication.is_large && self.subscriptions.iter().any(is_too_large);
        let is_late_joiner =
            self.crashes > 0 && publication.attempts > 1 && !self.subscriptions.iter().any(wanted);
        let was_moved = self.moves > 0 && publication.attempts > 1;
        // The first copy may have been lost, or dropped; QoS 0 is not looked for among what is known.
        let is_late_qos0 = self.crashes > 0 && publication.attempts > 1 && new.qos == QoS::AtMostOnce;
        // What could not be read may be read after the next start.
        let is_found_again = self.crashes > 0 && self.excused.contains(&new.tag);
        // A mark that is lost with a disk has a delivery that had begun begin anew, behind those whose marks are there.
        let is_unmarked = self.crashes > 0 && self.excused_clients.contains(&client);
        let was_dropped = self.crashes > 0 && self.drops;
        let may_be_late = was_moved
            || was_dropped
            || is_late_qos0
            || is_found_again
            || is_unmarked
            || is_late_joiner
            || is_resent
            || publication.is_ambiguous
            || was_handed_on
            || (in_group && self.ended_members > 0)
            // What goes to a group again after a crash may go to a member that has had a later one.
            || (in_group && self.crashes > 0 && publication.attempts > 1);
        if later > new.tag && !may_be_late {
            return Err(format!("[MQTT-4.6.0-6] m{} to client {client} after m{later}", new.tag));
        }
        Ok(())
    }
}
