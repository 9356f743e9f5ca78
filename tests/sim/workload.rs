//! What well-behaved clients are like and what they do.

use crate::clients::Client;
use crate::clients::machine::Outgoing;
use crate::clients::polite::{Phase, Polite, Profile, WillProfile, filter};
use crate::clients::rude::Rude;
use crate::oracle::{OBSERVER, Subscription};
use crate::rng::Rng;
use crate::swarm::{Load, Swarm};
use crate::world::{Event, World};
use quelea::base::{QoS, Version};
use quelea::codec::{RetainHandling, SubscribeFilter};
use std::num::{NonZeroU16, NonZeroU32};

pub(crate) const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
const FILTERS: [&str; 9] = ["t/#", "t/+/1", "t/2/+", "t/1/0", "t/0/0", "t/+/+", "t/1/+", "t/3/#", "t/1/1"];
const RETAINED_FILTERS: [&str; 4] = ["r/#", "r/+/0", "r/1/0", "r/2/+"];
/// A client is in one of them at most, so that copies can be told apart.
pub(crate) const GROUPS: [(&str, &str); 2] = [("ga", "s/#"), ("gb", "s/+/1")];

/// Publications of one run, about; and filters in SUBSCRIBEs of one client: what judging costs grows with their product.
const PUBLICATIONS_MAX: usize = 4_000;
const WISHES_MAX: usize = 80;

/// The client that sees everything: connected before all others, without faults.
pub(crate) fn observer() -> Profile {
    Profile {
        client_id: "observer".into(),
        version: Version::V5,
        expiry_secs: 0,
        receive_maximum: None,
        topic_alias_maximum: 0,
        keep_alive_secs: 0,
        packet_size_max: None,
        refuse_every: 0,
        is_lazy: false,
        reuses_ids: false,
        is_library: false,
        will: None,
        group: GROUPS[0],
        retained_qos: QoS::ExactlyOnce,
        retained_as_published: false,
        may_fail: false,
    }
}

pub(crate) fn profile(index: usize, swarm: &Swarm, rng: &mut Rng) -> Profile {
    let load = &swarm.load;
    let version = *rng.pick(&[Version::V310, Version::V311, Version::V5, Version::V5]);
    let version = if swarm.refuses() { Version::V5 } else { version };
    let is_persistent = rng.chance(650);
    let expiry_secs = match version {
        _ if !is_persistent => 0,
        Version::V5 if load.short_sessions => u32::from(rng.short(1, 8)),
        _ => 86_400,
    };
    let is_lazy = load.lazy_acks && rng.chance(500);
    let has_will = load.wills && rng.chance(600);
    let refuses = load.refusals && version.is_v5();
    // The library's options are for life, and it does not hold back.
    let may_be_library = !is_lazy && !has_will && !refuses && !load.changing_sessions;
    Profile {
        client_id: format!("client-{index}"),
        version,
        expiry_secs,
        receive_maximum: if load.small_windows { NonZeroU16::new(rng.short(1, 5)) } else { None },
        topic_alias_maximum: *rng.pick(&[0, 2, 10]),
        keep_alive_secs: *rng.pick(&[0, 5, 30]),
        packet_size_max: if load.small_packets && rng.chance(400) { NonZeroU32::new(300) } else { None },
        refuse_every: if refuses { u32::from(rng.short(2, 9)) } else { 0 },
        is_lazy,
        reuses_ids: rng.chance(700),
        is_library: may_be_library && rng.chance(400),
        will: has_will.then(|| WillProfile {
            qos: *rng.pick(&QOS),
            retain: rng.chance(300),
            delay_secs: if version.is_v5() { *rng.pick(&[0, 1, 6]) } else { 0 },
        }),
        group: *rng.pick(&GROUPS),
        retained_qos: *rng.pick(&QOS),
        retained_as_published: rng.chance(300),
        may_fail: true,
    }
}

impl World {
    /// Makes the clients: the observer, the polite, the rude.
    pub(crate) fn populate(&mut self, seed: u64) {
        // Its session outlives the process.
        let expiry_secs = if self.swarm.disk.is_some() { 86_400 } else { 0 };
        let observer =
            Polite::new(OBSERVER, Profile { expiry_secs, ..observer() }, Rng::stream(seed, "observer"));
        self.clients.push(Some(Client::Polite(Box::new(observer))));
        for index in 1..=self.swarm.polite {
            let mut rng = Rng::stream(seed, &format!("client {index}"));
            let profile = profile(index, &self.swarm, &mut rng);
            if profile.refuse_every > 0 {
                self.oracle.refusing.insert(index);
            }
            self.clients.push(Some(Client::Polite(Box::new(Polite::new(index, profile, rng)))));
        }
        for index in 0..self.swarm.rude {
            let rng = Rng::stream(seed, &format!("rude {index}"));
            self.clients.push(Some(Client::Rude(Rude::new(self.clients.len(), &self.swarm.manners, rng))));
        }
        self.oracle.deliveries = vec![Vec::new(); self.clients.len() + 2];
    }

    /// One action of a well-behaved client, and when the next one is.
    pub(crate) fn act_polite(&mut self, client: usize) {
        if self.is_healing {
            return self.act_healing(client);
        }
        let mut pause = 0;
        self.with_polite(client, |polite, world| {
            let most = world.swarm.load.pause_ms_max.min(if polite.profile.keep_alive_secs > 0 {
                1_000
            } else {
                u64::MAX
            });
            pause = polite.rng.between(1, most);
            match polite.phase {
                Phase::Away { until } if until <= world.now_ms() => {
                    let may_be_clean = world.swarm.load.clean_starts && client != OBSERVER;
                    let clean = may_be_clean && polite.rng.chance(200);
                    polite.connect(world, clean);
                }
                Phase::Away { .. } => {}
                Phase::Connecting { since } => polite.check_connect_timeout(world, since),
                Phase::Up if client == OBSERVER => {}
                Phase::Up if polite.machine.is_connected() => polite.act(world),
                Phase::Up => {}
            }
            if polite.storm > 0 {
                pause = pause.min(20);
            }
            Ok(())
        });
        self.after(pause, Event::Act(client));
    }

    /// Faults are over: come back, finish what is unfinished, stay.
    fn act_healing(&mut self, client: usize) {
        if self.is_finished(client) {
            return;
        }
        self.with_polite(client, |polite, world| {
            match polite.phase {
                Phase::Away { until } if until <= world.now_ms() => polite.connect(world, false),
                Phase::Up if polite.machine.is_connected() => {
                    polite.machine.be_prompt();
                    polite.keep_alive(world);
                }
                _ => {}
            }
            Ok(())
        });
        self.after(500, Event::Act(client));
    }
}

impl World {
    fn is_finished(&self, client: usize) -> bool {
        matches!(&self.clients[client], Some(Client::Polite(polite)) if polite.is_finished)
    }
}

/// Something a client that is connected does.
type Action = fn(&mut Polite, &mut World, &Load);

impl Polite {
    fn keep_alive(&mut self, world: &World) {
        let keep_alive = u64::from(self.profile.keep_alive_secs) * 1000;
        if keep_alive > 0 && world.now_ms() - self.last_sent_ms > keep_alive / 2 {
            self.machine.ping();
        }
    }

    fn act(&mut self, world: &mut World) {
        self.keep_alive(world);
        let held = self.rng.size(0, 3);
        self.machine.release(held);
        let load = world.swarm.load.clone();
        if self.storm > 0 {
            self.storm -= 1;
            return self.take_over(world, &load);
        }
        let is_member = load.kept_groups && self.profile.version.is_v5() && self.profile.expiry_secs > 1_000;
        if is_member && load.members_leave && self.rng.chance(15) {
            return self.goodbye(world, false, Some(0));
        }
        let weights = &load.weights;
        let actions: [(u64, Action); 6] = [
            (weights.publish, Self::publish_burst),
            (weights.subscribe, Self::subscribe_some),
            (if load.unsubscribes { weights.unsubscribe } else { 0 }, Self::unsubscribe_some),
            (if load.disconnects { weights.disconnect } else { 0 }, Self::disconnect_somehow),
            (if load.takeovers { weights.takeover } else { 0 }, Self::take_over),
            (weights.nothing, |_, _, _| {}),
        ];
        let mut drawn = self.rng.below(actions.iter().map(|(weight, _)| weight).sum());
        for (weight, action) in actions {
            if drawn < weight {
                return action(self, world, &load);
            }
            drawn -= weight;
        }
    }

    /// Connects anew while it is connected; in a storm, again and again.
    fn take_over(&mut self, world: &mut World, load: &Load) {
        if load.storms && self.storm == 0 && self.rng.chance(500) {
            self.storm = self.rng.between(2, 12);
        }
        let clean = load.clean_starts && self.rng.chance(200);
        self.connect(world, clean);
    }

    /// Subscribes to what it has just been told of: the replay meets what is still on its way.
    pub(crate) fn race(&mut self, world: &mut World) {
        let races = world.swarm.load.replay_races && self.profile.may_fail && !world.is_healing;
        if !races
            || self.wishes > WISHES_MAX
            || self.phase != Phase::Up
            || !self.machine.is_connected()
            || !self.rng.chance(300)
        {
            return;
        }
        let text = *self.rng.pick(&RETAINED_FILTERS);
        let retain_as_published = self.profile.retained_as_published;
        let filter = SubscribeFilter { retain_as_published, ..filter(text, self.profile.retained_qos) };
        self.subscribe(world, None, filter, None);
    }

    pub(crate) fn publish_burst(&mut self, world: &mut World, load: &Load) {
        // A client that is far behind waits.
        if self.machine.unsettled_count() > 60 || world.oracle.publications.len() > PUBLICATIONS_MAX {
            return;
        }
        let topics = if self.rng.chance(300) { 1 } else { 4 };
        for _ in 0..self.rng.between(1, load.burst_max) {
            let kind = self.rng.below(10);
            let (a, b) = (self.rng.below(topics), self.rng.below(2));
            let qos = *self.rng.pick(&QOS);
            let padding = match self.rng.below(10) {
                0 if load.large_payloads => *self.rng.pick(&[5_000, 100_000]),
                1 | 2 => 300,
                _ => 0,
            };
            if kind < 2 && load.retained {
                // Its own topics; one QoS each, so that their order is kept.
                let topic = format!("r/{}/{b}", self.index);
                let qos = QOS[(self.index + usize::try_from(b).expect("0 or 1")) % 3];
                let qos = if world.swarm.may_crash() { qos.max(QoS::AtLeastOnce) } else { qos };
                let is_clear = self.rng.chance(150);
                self.publish(world, message(topic, qos, true, None), is_clear, padding);
            } else if kind < 5 && load.shared {
                self.publish(world, message(format!("s/{a}/{b}"), qos, false, None), false, padding);
            } else {
                let expires = load.expiry && self.profile.version.is_v5() && self.rng.chance(400);
                let expiry = expires.then(|| u32::from(self.rng.short(1, 10)));
                self.publish(world, message(format!("t/{a}/{b}"), qos, false, expiry), false, padding);
            }
        }
    }

    pub(crate) fn subscribe_some(&mut self, world: &mut World, load: &Load) {
        if self.wishes > WISHES_MAX {
            return;
        }
        let id = self.rng.chance(400).then(|| u32::from(self.rng.short(1, 400)));
        if load.churn && load.members_leave && self.rng.chance(400) {
            let mine = self.subscriptions(world, |s| s.group.is_some());
            if !mine.is_empty() {
                return self.unsubscribe(world, &mine[..1]);
            }
        }
        let count = if load.filters_max > 1 { self.rng.between(1, load.filters_max) } else { 1 };
        let filters: Vec<_> = (0..count).map(|_| self.wished(load)).collect();
        self.subscribe_all(world, &filters, id);
    }

    /// A filter to subscribe to, and the group if it is shared.
    fn wished(&mut self, load: &Load) -> (Option<&'static str>, SubscribeFilter<'static>) {
        let kind = self.rng.below(10);
        // What only members who are away could get goes to one of them for good: without faults all are there.
        let joins = load.shared
            && (self.profile.may_fail || self.profile.expiry_secs == 0)
            && (!load.kept_groups || self.profile.expiry_secs > 1_000);
        if kind < 2 && joins {
            let (group, text) = self.profile.group;
            let qos = *self.rng.pick(&[QoS::AtLeastOnce, QoS::ExactlyOnce]);
            return (Some(group), filter(text, qos));
        }
        if kind < 4 && load.retained {
            let text = *self.rng.pick(&RETAINED_FILTERS);
            let retain_as_published = self.profile.retained_as_published;
            return (
                None,
                SubscribeFilter { retain_as_published, ..filter(text, self.profile.retained_qos) },
            );
        }
        let text = *self.rng.pick(&FILTERS);
        let options = SubscribeFilter {
            no_local: self.rng.chance(200),
            retain_as_published: self.rng.chance(300),
            retain_handling: *self.rng.pick(&[RetainHandling::SendAlways, RetainHandling::Never]),
            ..SubscribeFilter::new(text, *self.rng.pick(&QOS))
        };
        (None, options)
    }

    /// Its subscriptions of this kind.
    fn subscriptions(&self, world: &World, of: impl Fn(&Subscription) -> bool) -> Vec<usize> {
        let all = world.oracle.subscriptions.iter().enumerate();
        let mine = all.filter(|(_, s)| s.client == self.index && s.dropped.is_none() && of(s));
        mine.map(|(index, _)| index).collect()
    }

    pub(crate) fn unsubscribe_some(&mut self, world: &mut World, load: &Load) {
        let mut mine = self.subscriptions(world, |s| s.group.is_none() || load.members_leave);
        let mut chosen = Vec::new();
        for _ in 0..if load.filters_max > 1 { self.rng.between(1, load.filters_max) } else { 1 } {
            if !mine.is_empty() {
                chosen.push(mine.swap_remove(self.rng.size(0, mine.len() - 1)));
            }
        }
        if !chosen.is_empty() {
            self.unsubscribe(world, &chosen);
        }
    }

    fn disconnect_somehow(&mut self, world: &mut World, _load: &Load) {
        let is_v5 = self.profile.version.is_v5();
        if is_v5 && self.profile.expiry_secs > 0 && self.rng.chance(200) {
            let expiry = *self.rng.pick(&[0, 2, 86_400]);
            return self.goodbye(world, false, Some(expiry));
        }
        let with_will = is_v5 && self.rng.chance(300);
        self.goodbye(world, with_will, None);
    }
}

pub(crate) fn message(topic: String, qos: QoS, retain: bool, expiry: Option<u32>) -> Outgoing {
    Outgoing { tag: 0, topic, payload: Vec::new(), qos, retain, expiry, properties: Vec::new() }
}
