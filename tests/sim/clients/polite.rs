//! A well-behaved client: its profile, its connections, and what the oracle hears from it.
//!
//! What it does and when is in `workload.rs`.

use super::Client;
use super::engine::Engine;
use super::library::Library;
use super::machine::{Happening, Limits, Machine, Outgoing};
use crate::disk::Kind;
use crate::oracle::{self, Publication};
use crate::rng::Rng;
use crate::world::World;
use quelea::base::{QoS, ReasonCode, Version};
use quelea::codec::{Connect, MessageProperties, RetainHandling, SubscribeFilter, Will};
use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32};

/// How long a client waits for CONNACK.
const CONNECT_TIMEOUT_MS: u64 = 20_000;
/// Timers fire late by a tick, and drivers call late.
pub(crate) const SLACK_MS: u64 = 1_500;

/// A session is without its connection this much earlier than the connection is closed, at most: its last bytes linger.
pub(crate) const LINGER_MS: u64 = 5_000;

/// What a client is like, drawn once.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) client_id: String,
    pub(crate) version: Version,
    /// 0: the session ends with the connection.
    pub(crate) expiry_secs: u32,
    pub(crate) receive_maximum: Option<NonZeroU16>,
    pub(crate) topic_alias_maximum: u16,
    pub(crate) keep_alive_secs: u16,
    pub(crate) packet_size_max: Option<NonZeroU32>,
    /// One delivery in so many is refused; 0 is none.
    pub(crate) refuse_every: u32,
    pub(crate) is_lazy: bool,
    /// It uses packet identifiers again as soon as they are free.
    pub(crate) reuses_ids: bool,
    /// It is driven by `quelea::client`.
    pub(crate) is_library: bool,
    pub(crate) will: Option<WillProfile>,
    /// The shared subscription it may be in: group and filter.
    pub(crate) group: (&'static str, &'static str),
    /// All its subscriptions to retained topics have this QoS, so that order is kept between them.
    pub(crate) retained_qos: QoS,
    /// All of them have Retain As Published, or none: replays can be told from live messages then.
    pub(crate) retained_as_published: bool,
    pub(crate) may_fail: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct WillProfile {
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) delay_secs: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    Away { until: u64 },
    Connecting { since: u64 },
    Up,
}

/// How a connection ended, from the client's side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Open,
    /// DISCONNECT was sent.
    Goodbye {
        with_will: bool,
    },
    Lost,
}

/// One connection attempt.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) socket: usize,
    pub(crate) at_ms: u64,
    pub(crate) clean_start: bool,
    pub(crate) accepted_ms: Option<u64>,
    pub(crate) accepted_step: u64,
    pub(crate) end: End,
    /// Its session's expiry at the end; `None` if a DISCONNECT that changed it may not have arrived.
    pub(crate) expiry_secs: Option<u32>,
    /// Tag and delay.
    pub(crate) will: Option<(usize, u32)>,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Polite {
    pub(crate) index: usize,
    pub(crate) profile: Profile,
    pub(crate) machine: Engine,
    pub(crate) rng: Rng,
    pub(crate) phase: Phase,
    pub(crate) socket: Option<usize>,
    pub(crate) incarnation: u32,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) last_sent_ms: u64,
    /// Subscriptions a SUBSCRIBE or UNSUBSCRIBE is about.
    requests: BTreeMap<usize, Vec<usize>>,
    next_request: usize,
    /// Filters it has subscribed to so far.
    pub(crate) wishes: usize,
    /// Takeovers still to come in a storm.
    pub(crate) storm: u64,
    /// A retained message came live: subscribe again at once.
    pub(crate) races: bool,
    pub(crate) is_finished: bool,
    /// When a disk may have lost something of its session; until it has connected anew.
    pub(crate) hit_ms: Option<u64>,
    pub(crate) was_told_of_shutdown: bool,
}

impl Polite {
    pub(crate) fn new(index: usize, profile: Profile, rng: Rng) -> Self {
        let machine = if profile.is_library {
            Engine::Library(Box::new(Library::new()))
        } else {
            let mut machine = Machine::new(profile.version);
            machine.is_lazy = profile.is_lazy;
            machine.reuses_ids = profile.reuses_ids;
            machine.refuse_every = profile.refuse_every;
            Engine::Strict(Box::new(machine))
        };
        Self {
            index,
            profile,
            machine,
            rng,
            phase: Phase::Away { until: 0 },
            socket: None,
            incarnation: 0,
            attempts: Vec::new(),
            last_sent_ms: 0,
            requests: BTreeMap::new(),
            next_request: 0,
            wishes: 0,
            storm: 0,
            races: false,
            is_finished: false,
            hit_ms: None,
            was_told_of_shutdown: false,
        }
    }

    /// Connects anew. A connection there is is left alone: the broker ends it.
    pub(crate) fn connect(&mut self, world: &mut World, clean_start: bool) {
        let now = world.now_ms();
        if let (Some(_), Some(last)) = (self.socket, self.attempts.last_mut()) {
            last.end = End::Lost;
        }
        if clean_start || self.may_end(world) {
            world.oracle.member_may_end(self.index);
        }
        if world.swarm.load.changing_sessions && self.profile.may_fail {
            self.profile.expiry_secs = *self.rng.pick(&[0, 86_400]);
        }
        let socket = world.open_socket(self.index, self.profile.may_fail);
        self.socket = Some(socket);
        self.phase = Phase::Connecting { since: now };
        let profile = self.profile.clone();
        // MQTT 3 has one flag for both.
        let clean_start = if profile.version.is_v5() { clean_start } else { profile.expiry_secs == 0 };
        let mut connect =
            Connect::new(profile.version, &profile.client_id, clean_start, profile.keep_alive_secs);
        let will_tag = profile.will.map(|will| self.will_publication(world, will));
        let (topic, body) = (format!("w/{}", self.index), oracle::payload(will_tag.unwrap_or(0), 0));
        connect.will = profile.will.map(|will| Will {
            qos: will.qos,
            retain: will.retain,
            topic: &topic,
            payload: &body,
            delay: will.delay_secs,
            expiry: None,
            properties: MessageProperties::EMPTY,
        });
        if profile.version.is_v5() {
            connect.session_expiry = (profile.expiry_secs > 0).then_some(profile.expiry_secs);
            connect.receive_maximum = profile.receive_maximum;
            connect.packet_size_max = profile.packet_size_max;
            connect.topic_alias_maximum = profile.topic_alias_maximum;
            if let (Some(will), Some(tag)) = (&mut connect.will, will_tag) {
                will.properties = MessageProperties::from_encoded(&world.oracle.publications[tag].properties);
            }
        }
        let limits = Limits {
            receive_maximum: connect.receive_maximum.map_or(u16::MAX, NonZeroU16::get),
            topic_alias_maximum: connect.topic_alias_maximum,
            packet_size_max: connect.packet_size_max.map_or(usize::MAX, |max| max.get() as usize),
        };
        self.machine.connect(&connect, limits);
        let delay = profile.will.map_or(0, |will| will.delay_secs.min(profile.expiry_secs));
        self.attempts.push(Attempt {
            socket,
            at_ms: now,
            clean_start,
            accepted_ms: None,
            accepted_step: 0,
            end: End::Open,
            expiry_secs: Some(profile.expiry_secs),
            will: will_tag.map(|tag| (tag, delay)),
        });
        world.note(format_args!("client {} connects, clean {clean_start}", self.index));
        self.flush(world);
    }

    fn will_publication(&self, world: &mut World, will: WillProfile) -> usize {
        let properties = self.properties(world);
        world.oracle.publication(Publication {
            publisher: self.index,
            number: 0,
            topic: format!("w/{}", self.index),
            qos: will.qos,
            is_clear: false,
            is_will: true,
            is_large: false,
            expiry: None,
            properties,
            sent: None,
            attempts: 0,
            acked: None,
            is_ambiguous: false,
        })
    }

    /// Properties for the message that is named next; they tell messages apart.
    fn properties(&self, world: &World) -> Vec<u8> {
        let tag = world.oracle.publications.len();
        if !world.swarm.load.properties || !self.profile.version.is_v5() {
            return Vec::new();
        }
        oracle::properties(tag)
    }

    /// Publishes what `message` says, with a payload of its own; an empty one if it clears a retained message.
    pub(crate) fn publish(
        &mut self,
        world: &mut World,
        mut message: Outgoing,
        is_clear: bool,
        padding: usize,
    ) {
        message.properties = self.properties(world);
        let tag = world.oracle.publication(Publication {
            publisher: self.index,
            number: 0,
            topic: message.topic.clone(),
            qos: message.qos,
            is_clear,
            is_will: false,
            is_large: padding > 0,
            expiry: message.expiry,
            properties: message.properties.clone(),
            sent: None,
            attempts: 0,
            acked: None,
            is_ambiguous: false,
        });
        let (index, topic, qos) = (self.index, &message.topic, message.qos);
        world.note(format_args!("client {index} publishes m{tag} {topic} {qos:?} clear {is_clear}"));
        message.tag = tag;
        message.payload = if is_clear { Vec::new() } else { oracle::payload(tag, padding) };
        self.machine.publish(message);
    }

    pub(crate) fn subscribe(
        &mut self,
        world: &mut World,
        group: Option<&str>,
        filter: SubscribeFilter<'_>,
        id: Option<u32>,
    ) {
        self.subscribe_all(world, &[(group, filter)], id);
    }

    /// One SUBSCRIBE with several filters.
    pub(crate) fn subscribe_all(
        &mut self,
        world: &mut World,
        filters: &[(Option<&str>, SubscribeFilter<'_>)],
        id: Option<u32>,
    ) {
        let about = filters.iter().map(|(group, filter)| self.wish(world, *group, *filter, id)).collect();
        self.wishes += filters.len();
        let tag = self.request(about);
        let texts: Vec<String> =
            filters.iter().map(|(group, filter)| wire_filter(*group, filter.filter)).collect();
        let wire: Vec<SubscribeFilter<'_>> = filters
            .iter()
            .zip(&texts)
            .map(|((_, filter), text)| SubscribeFilter { filter: text, ..*filter })
            .collect();
        world.note(format_args!("client {} subscribes {texts:?}", self.index));
        self.machine.subscribe(tag, &wire, id);
    }

    /// Tells the oracle of one filter of a SUBSCRIBE.
    fn wish(
        &self,
        world: &mut World,
        group: Option<&str>,
        filter: SubscribeFilter<'_>,
        id: Option<u32>,
    ) -> usize {
        let is_v5 = self.profile.version.is_v5();
        let step = world.step;
        for old in world.oracle.subscriptions.iter_mut() {
            if old.client == self.index && old.filter == filter.filter && old.group.as_deref() == group {
                old.dropped.get_or_insert(step);
            }
        }
        world.oracle.subscriptions.push(oracle::Subscription {
            client: self.index,
            incarnation: self.incarnation,
            filter: filter.filter.into(),
            group: group.map(Into::into),
            qos: filter.qos,
            no_local: filter.no_local && is_v5,
            retain_as_published: filter.retain_as_published && is_v5,
            id: id.filter(|_| is_v5),
            takes_small_only: self.profile.packet_size_max.is_some(),
            // Only if it was so all the time.
            is_durable: self.profile.expiry_secs > 0 && !world.swarm.load.changing_sessions,
            asked: step,
            granted: None,
            dropped: None,
            is_cancelled: false,
            gone: None,
        });
        world.oracle.subscriptions.len() - 1
    }

    /// One UNSUBSCRIBE for the filters of these subscriptions.
    pub(crate) fn unsubscribe(&mut self, world: &mut World, subscriptions: &[usize]) {
        let mut about = Vec::new();
        let mut texts: Vec<String> = Vec::new();
        for subscription in subscriptions {
            let (text, mut same) = self.unwish(world, *subscription);
            about.append(&mut same);
            texts.push(text);
        }
        let tag = self.request(about);
        world.note(format_args!("client {} unsubscribes {texts:?}", self.index));
        self.machine.unsubscribe(tag, &texts.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Tells the oracle of one filter of an UNSUBSCRIBE; gives it, and the subscriptions it ends.
    fn unwish(&self, world: &mut World, subscription: usize) -> (String, Vec<usize>) {
        let step = world.step;
        let all = &mut world.oracle.subscriptions;
        let (group, filter) = (all[subscription].group.clone(), all[subscription].filter.clone());
        if group.is_some() {
            // What is on its way to it goes to another member, out of order.
            world.oracle.member_may_end(self.index);
        }
        let all = &mut world.oracle.subscriptions;
        let mut same = Vec::new();
        for (index, other) in all.iter_mut().enumerate() {
            if other.client == self.index && other.filter == filter && other.group == group {
                other.dropped.get_or_insert(step);
                if other.gone.is_none() {
                    other.is_cancelled = true;
                    same.push(index);
                }
            }
        }
        (wire_filter(group.as_deref(), &filter), same)
    }

    fn request(&mut self, about: Vec<usize>) -> usize {
        self.next_request += 1;
        self.requests.insert(self.next_request, about);
        self.next_request
    }

    /// DISCONNECT and close.
    pub(crate) fn goodbye(&mut self, world: &mut World, with_will: bool, expiry_secs: Option<u32>) {
        let reason = if with_will { ReasonCode::DisconnectWithWill } else { ReasonCode::Success };
        world.note(format_args!(
            "client {} disconnects, will {with_will}, expiry {expiry_secs:?}",
            self.index
        ));
        self.machine.disconnect(reason, expiry_secs);
        self.flush(world);
        let socket = self.socket.take().expect("connected");
        world.close_up(socket);
        let last = self.attempts.last_mut().expect("connected");
        last.end = End::Goodbye { with_will };
        if expiry_secs.is_some() {
            last.expiry_secs = None;
        }
        world.oracle.member_may_end(self.index);
        self.away(world, 50, 3_000);
    }

    /// Sends what was written.
    pub(crate) fn flush(&mut self, world: &mut World) -> bool {
        let bytes = self.machine.take_out();
        if bytes.is_empty() {
            return false;
        }
        self.last_sent_ms = world.now_ms();
        if let Some(socket) = self.socket {
            world.send_up(socket, &bytes);
        }
        true
    }

    fn away(&mut self, world: &World, least: u64, most: u64) {
        let until = world.now_ms() + self.rng.between(least, most);
        self.phase = Phase::Away { until };
    }

    /// Whether its session may end with the connection, or soon after.
    pub(crate) fn may_end(&self, world: &World) -> bool {
        self.profile.expiry_secs < 100 || world.swarm.load.changing_sessions
    }

    /// The connection is over.
    pub(crate) fn closed(&mut self, world: &mut World) {
        self.socket = None;
        self.storm = 0;
        if self.may_end(world) {
            world.oracle.member_may_end(self.index);
        }
        let last = self.attempts.last_mut().expect("a socket is an attempt's");
        if last.end == End::Open {
            last.end = End::Lost;
        }
        let was_up = last.accepted_ms.is_some();
        if world.network.sockets[last.socket].has_crashed {
            return self.away(world, 1, if self.index.is_multiple_of(3) { 3_000 } else { 300 });
        }
        // What hangs in a hand-over has been through before the next attempt.
        self.away(world, if was_up { 10 } else { 3_000 }, 5_000);
    }

    pub(crate) fn check_connect_timeout(&mut self, world: &mut World, since: u64) {
        if since + CONNECT_TIMEOUT_MS < world.now_ms() {
            let socket = self.socket.expect("connecting");
            world.close_up(socket);
            self.closed(world);
        }
    }

    /// Tells the oracle what happened in the machine. `false`: the client closes the connection.
    pub(crate) fn tell(&mut self, world: &mut World) -> Result<(), String> {
        let step = world.step;
        for happening in self.machine.take_happenings() {
            match happening {
                Happening::Connected { session_present } => self.on_connected(world, session_present)?,
                Happening::Refused(reason) => {
                    world.note(format_args!("client {} refused: {reason:?}", self.index));
                    let has_failed =
                        reason == ReasonCode::ImplementationSpecificError && world.may_fail_disk();
                    if reason != ReasonCode::QuotaExceeded && !has_failed && self.profile.version.is_v5() {
                        return Err(format!("client {} refused with {reason:?}", self.index));
                    }
                }
                Happening::Message(message) => {
                    world.note(format_args!(
                        "client {} gets {} {:?} retain {} dup {}: {}",
                        self.index,
                        message.topic,
                        message.qos,
                        message.retain,
                        message.dup,
                        String::from_utf8_lossy(&message.payload[..message.payload.len().min(12)])
                    ));
                    let is_v5 = self.profile.version.is_v5();
                    world.oracle.check_properties(&message, is_v5)?;
                    world.oracle.delivered(self.index, self.incarnation, step, &message)?;
                    self.races |= oracle::is_retained_topic(&message.topic);
                }
                Happening::Sent { tag } => world.oracle.sent(tag, step),
                Happening::Acked { tag, reason } => {
                    world.note(format_args!("client {} acked m{tag} {reason:?}", self.index));
                    if oracle::is_retained_topic(&world.oracle.publications[tag].topic) {
                        world.aim_at(Kind::Retained);
                    }
                    let swarm = &world.swarm;
                    let limited = swarm.has_queue_limits() || swarm.pressure || swarm.disk_refuses();
                    world.oracle.acked(tag, step, reason, limited)?;
                }
                Happening::Subscribed { tag, codes } => self.on_subscribed(world, tag, &codes)?,
                Happening::Unsubscribed { tag } => {
                    world.note(format_args!("client {} unsubscribed", self.index));
                    for index in self.requests.remove(&tag).unwrap_or_default() {
                        world.oracle.subscriptions[index].gone.get_or_insert(step);
                    }
                }
                Happening::Goodbye(reason) => {
                    world.note(format_args!("client {} is sent away: {reason:?}", self.index));
                    self.was_told_of_shutdown |= reason == ReasonCode::ServerShuttingDown;
                    let has_failed =
                        reason == ReasonCode::ImplementationSpecificError && world.may_fail_disk();
                    // UNSUBACK cannot say that there is no space.
                    let is_full = reason == ReasonCode::QuotaExceeded && world.swarm.disk_refuses();
                    if !has_failed
                        && !is_full
                        && !matches!(
                            reason,
                            ReasonCode::SessionTakenOver
                                | ReasonCode::KeepAliveTimeout
                                | ReasonCode::ServerShuttingDown
                        )
                    {
                        return Err(format!("client {} sent away with {reason:?}", self.index));
                    }
                }
            }
        }
        Ok(())
    }

    fn on_subscribed(&mut self, world: &mut World, tag: usize, codes: &[ReasonCode]) -> Result<(), String> {
        world.note(format_args!("client {} subscribed {codes:?}", self.index));
        let is_v5 = self.profile.version.is_v5();
        let refusal = if is_v5 { ReasonCode::QuotaExceeded } else { ReasonCode::UnspecifiedError };
        for (index, code) in self.requests.remove(&tag).unwrap_or_default().into_iter().zip(codes) {
            let subscription = &mut world.oracle.subscriptions[index];
            let has_failed = *code == ReasonCode::ImplementationSpecificError && world.swarm.disk_refuses();
            if has_failed || (*code == refusal && (world.swarm.pressure || world.swarm.disk_refuses())) {
                // Short of memory: it is not subscribed to anything new.
                continue;
            }
            if code.byte() != subscription.qos.bits() {
                return Err(format!(
                    "granted {code:?} for {:?} of {}",
                    subscription.qos, subscription.filter
                ));
            }
            subscription.granted = Some(world.step);
        }
        Ok(())
    }

    fn on_connected(&mut self, world: &mut World, session_present: bool) -> Result<(), String> {
        let now = world.now_ms();
        self.phase = Phase::Up;
        self.requests.clear();
        let mut expected = self.expected_session(world);
        if self.profile.version == Version::V310 && expected == Expected::Either {
            // CONNACK has no such flag there.
            expected = Expected::Unclear;
        }
        let is_clean = self.attempts.last().is_some_and(|attempt| attempt.clean_start);
        if world.may_fail_disk() && !world.crashes.is_empty() && !is_clean {
            // A log that has failed did not keep what became of the session.
            expected = Expected::Unclear;
        }
        if let Some(hit) = self.hit_ms {
            // What arrives late was said before.
            if self.attempts.last().is_some_and(|attempt| attempt.at_ms > hit) {
                self.hit_ms = None;
            }
            if !is_clean {
                expected = Expected::Unclear;
            }
        }
        if expected == Expected::Either && session_present && self.has_forgotten() {
            expected = Expected::Unclear;
        }
        world.note(format_args!("client {} is up, session {session_present} ({expected:?})", self.index));
        let session_present = if self.profile.version == Version::V310 {
            expected != Expected::Absent
        } else {
            session_present
        };
        let wrong = match expected {
            Expected::Present => !session_present,
            Expected::Absent => session_present,
            Expected::Either | Expected::Unclear => false,
        };
        if wrong {
            return Err(format!(
                "client {}: session present {session_present}, expected {expected:?}",
                self.index
            ));
        }
        let step = world.step;
        let attempt = self.attempts.last_mut().expect("connecting");
        (attempt.accepted_ms, attempt.accepted_step) = (Some(now), step);
        if !session_present {
            self.incarnation += 1;
            world.oracle.session_over(self.index, step);
        } else if expected == Expected::Unclear {
            self.incarnation += 1;
            for subscription in world.oracle.subscriptions.iter_mut().filter(|s| s.client == self.index) {
                subscription.dropped.get_or_insert(step);
            }
            world.oracle.ended_members += 1;
            self.machine.forget_received();
            for publication in world.oracle.publications.iter_mut() {
                publication.is_ambiguous |=
                    publication.publisher == self.index && publication.acked.is_none();
            }
        }
        for tag in self.machine.begin(session_present)? {
            world.oracle.publications[tag].is_ambiguous = true;
        }
        self.tell(world)
    }

    /// Whether its session must be on disk, and is the one it knows.
    pub(crate) fn has_kept_session(&self) -> bool {
        let last = self.attempts.last().filter(|_| !self.is_finished && self.hit_ms.is_none());
        last.is_some_and(|last| {
            last.accepted_ms.is_some() && last.expiry_secs.is_some_and(|expiry| expiry > 1_000)
        })
    }

    /// The library forgets its session with a DISCONNECT that shortens it, which may not have arrived.
    fn has_forgotten(&self) -> bool {
        let (_, before) = self.attempts.split_last().expect("connecting");
        let last = before.iter().rfind(|attempt| attempt.accepted_ms.is_some());
        self.profile.is_library && last.is_some_and(|last| last.expiry_secs.is_none())
    }

    /// What CONNACK has to say about the session.
    fn expected_session(&self, world: &World) -> Expected {
        let now = world.now_ms();
        let (this, before) = self.attempts.split_last().expect("connecting");
        if this.clean_start {
            return Expected::Absent;
        }
        let last = before.iter().rposition(|attempt| attempt.accepted_ms.is_some());
        // Attempts nobody answered may have got through.
        let unanswered = &before[last.map_or(0, |last| last + 1)..];
        let Some(last) = last.map(|last| &before[last]) else {
            return if unanswered.is_empty() { Expected::Absent } else { Expected::Unclear };
        };
        let ended = world.network.sockets[last.socket].server_end;
        let lives = |at: u64| {
            let expiry = last.expiry_secs?;
            if expiry == 0 {
                return Some(false);
            }
            // What the client has left may linger on the other side.
            let Some(ended) = ended else {
                // What the client has left may linger, and its session have ended.
                let is_short = u64::from(expiry) * 1000 < SLACK_MS + LINGER_MS;
                return (!is_short || last.end == End::Open).then_some(true);
            };
            let deadline = ended + u64::from(expiry) * 1000;
            // Of who was connected at a crash the clock begins anew.
            let latest = world.clock_ms(ended) + u64::from(expiry) * 1000;
            if at + SLACK_MS + LINGER_MS < deadline {
                Some(true)
            } else if at > latest + SLACK_MS {
                Some(false)
            } else {
                None
            }
        };
        if !unanswered.is_empty() {
            // One that asked for a shorter session has ended it.
            let harmless = unanswered
                .iter()
                .all(|attempt| !attempt.clean_start && attempt.expiry_secs >= last.expiry_secs);
            return if harmless && lives(now) == Some(true) { Expected::Present } else { Expected::Unclear };
        }
        match (lives(this.at_ms), lives(now)) {
            (Some(true), Some(true)) => Expected::Present,
            (Some(false), _) => Expected::Absent,
            _ => Expected::Either,
        }
    }
}

/// What the client can know about its session before CONNACK.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expected {
    Present,
    Absent,
    /// CONNACK tells.
    Either,
    /// CONNACK cannot tell: the session may be one the client never heard of.
    Unclear,
}

fn wire_filter(group: Option<&str>, filter: &str) -> String {
    group.map_or_else(|| filter.to_string(), |group| format!("$share/{group}/{filter}"))
}

/// What a subscription asks for.
pub(crate) fn filter(text: &str, qos: QoS) -> SubscribeFilter<'_> {
    SubscribeFilter { retain_handling: RetainHandling::SendAlways, ..SubscribeFilter::new(text, qos) }
}

impl World {
    /// Runs `with` on a well-behaved client, and tells the oracle what came of it.
    pub(crate) fn with_polite(
        &mut self,
        client: usize,
        with: impl FnOnce(&mut Polite, &mut Self) -> Result<(), String>,
    ) {
        let Some(Client::Polite(mut polite)) = self.clients[client].take() else {
            panic!("client {client} is well-behaved")
        };
        polite.machine.set_now(self.now);
        let result = with(&mut polite, self).and_then(|()| polite.tell(self));
        if std::mem::take(&mut polite.races) {
            polite.race(self);
        }
        // Answers leave at once; what is lazy is held back in the machine.
        polite.flush(self);
        let result = result.and_then(|()| polite.tell(self));
        self.clients[client] = Some(Client::Polite(polite));
        if let Err(error) = result {
            self.fail(format!("client {client}: {error}"));
        }
    }
}
