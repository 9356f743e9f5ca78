//! One run of a seed, from the first connection to the last trace of it.

use crate::clients::Client;
use crate::clients::polite::{Phase, Polite, filter};
use crate::oracle::{OBSERVER, is_retained_topic};
use crate::rng::Rng;
use crate::swarm::Swarm;
use crate::workload::{message, observer};
use crate::world::{Event, World};
use quelea::base::QoS;
use quelea::shard::Shard;
use std::collections::BTreeMap;

/// What empty tables may keep of their memory, in bytes.
const TABLES_KEEP: usize = 512;
/// How long the world may take to settle once faults have stopped, in milliseconds: the poll budget of the liveness phase.
const SETTLE_MS: u64 = 240_000;

/// Runs a seed; gives the hash of its trace.
pub(crate) fn run(seed: u64, swarm: Swarm, is_printed: bool) -> Result<u64, String> {
    let mut world = World::new(seed, swarm, is_printed);
    let drawn = format!("{:?}", world.swarm);
    world.note(format_args!("{drawn}"));
    world.populate(seed);
    world.start_observer()?;
    world.be_busy()?;
    world.heal()?;
    world.judge()?;
    world.restart_quietly()?;
    world.check_retained(seed)?;
    world.end()?;
    world.check_logs_are_empty()?;
    Ok(world.trace.hash())
}

impl World {
    pub(crate) fn start_observer(&mut self) -> Result<(), String> {
        if self.swarm.disk.is_some() {
            self.restart();
            self.wait("the shards are ready", |world| world.is_serving)?;
        }
        self.with_polite(OBSERVER, |polite, world| {
            polite.connect(world, true);
            Ok(())
        });
        self.wait("the observer is up", |world| {
            world.polite(OBSERVER).is_some_and(|p| p.phase == Phase::Up)
        })?;
        self.with_polite(OBSERVER, |polite, world| {
            polite.subscribe(world, None, filter("#", QoS::ExactlyOnce), None);
            Ok(())
        });
        self.wait("the observer is subscribed", |world| world.oracle.subscriptions[0].granted.is_some())
    }

    fn be_busy(&mut self) -> Result<(), String> {
        self.plan_crashes();
        for client in 0..self.clients.len() {
            // The observer has nothing to do but to come back after a crash.
            if client != OBSERVER || self.swarm.disk.is_some() {
                let wait = self.schedule_rng.below(1000);
                self.after(wait, Event::Act(client));
            }
        }
        if self.swarm.pressure {
            self.after(1500, Event::Pressure(true));
        }
        let busy = self.swarm.busy_ms;
        self.run(busy, |_| false).map(|_| ())
    }

    /// Faults stop; everything must settle.
    fn heal(&mut self) -> Result<(), String> {
        self.note(format_args!("faults stop"));
        self.is_healing = true;
        self.swarm.network.delay_ms_max = self.swarm.network.delay_ms_max.min(2);
        self.swarm.mailbox.delay_ms_max = self.swarm.mailbox.delay_ms_max.min(2);
        self.heal_network();
        self.heal_disks();
        self.wait("everything settles", Self::is_settled)?;
        self.probe()?;
        // Wills that were delayed have had their time, and nothing comes of what was on its way.
        self.run(20_000, |_| false)?;
        self.wait("everything stays settled", Self::is_settled)?;
        self.check_shared()
    }

    /// Nobody was forgotten: whoever is there is read from, and everything works.
    fn probe(&mut self) -> Result<(), String> {
        for client in 0..self.clients.len() {
            if matches!(self.clients[client], Some(Client::Polite(_))) {
                self.with_polite(client, |polite, world| {
                    polite.publish(world, message("t/0/0".into(), QoS::ExactlyOnce, false, None), false, 0);
                    polite.publish(world, message("t/1/1".into(), QoS::AtLeastOnce, false, None), false, 0);
                    Ok(())
                });
            }
        }
        self.wait("what is published after all has settled arrives", Self::is_settled)
    }

    /// Homes and members of shared subscriptions agree on what is not settled.
    fn check_shared(&self) -> Result<(), String> {
        let views = || self.shards.iter().map(Shard::shared_view);
        let (assigned, held): (u64, u64) =
            (views().map(|view| view.assigned).sum(), views().map(|view| view.held).sum());
        // What is on disk only is not counted.
        if assigned != held && !self.swarm.load.members_leave && self.swarm.disk.is_none() {
            return Err(format!(
                "homes count {assigned} deliveries of shared subscriptions, members hold {held}"
            ));
        }
        Ok(())
    }

    /// Runs until something is so.
    pub(crate) fn wait(&mut self, what: &str, until: impl Fn(&Self) -> bool) -> Result<(), String> {
        if self.run(SETTLE_MS, until)? {
            return Ok(());
        }
        Err(format!("it does not happen that {what}: {}", self.describe()))
    }

    pub(crate) fn is_settled(&self) -> bool {
        let done = |client: &Option<Client>| match client {
            Some(Client::Polite(polite)) if polite.is_finished => polite.socket.is_none(),
            Some(Client::Polite(polite)) => polite.phase == Phase::Up && polite.machine.is_idle(),
            Some(Client::Rude(rude)) => rude.socket.is_none(),
            None => false,
        };
        self.clients.iter().all(done) && self.is_quiet() && self.has_delivered()
    }

    /// Nothing waits for a client that is there.
    pub(crate) fn has_delivered(&self) -> bool {
        self.shards.iter().all(|shard| {
            let mut views = shard.session_views().filter(|view| view.connected);
            views.all(|view| view.ready == 0 && view.unacknowledged == 0 && view.qos0_ready == 0)
        })
    }

    /// What is not settled.
    fn describe(&self) -> String {
        let mut out = String::new();
        for (index, client) in self.clients.iter().enumerate() {
            match client {
                Some(Client::Polite(p)) if p.phase != Phase::Up || !p.machine.is_idle() => {
                    out += &format!("client {index} {:?} {}; ", p.phase, p.machine.describe());
                }
                Some(Client::Rude(rude)) if rude.socket.is_some() => out += &format!("rude {index}; "),
                _ => {}
            }
        }
        for (index, shard) in self.shards.iter().enumerate() {
            out += &format!("shard {index} {:?}; ", shard.residue());
            for view in shard.session_views().filter(|v| v.connected && v.ready + v.unacknowledged > 0) {
                out += &format!("{} {} {}; ", view.client_id, view.ready, view.unacknowledged);
            }
        }
        out += &self.network.describe();
        out + if self.network.is_idle() { "network idle" } else { "network busy" }
    }

    /// A client nobody has seen before.
    fn newcomer(&mut self, seed: u64, name: &str) -> Result<usize, String> {
        let client = self.clients.len();
        let profile = crate::clients::polite::Profile { client_id: name.into(), ..observer() };
        let polite = Polite::new(client, profile, Rng::stream(seed, name));
        self.clients.push(Some(Client::Polite(Box::new(polite))));
        self.with_polite(client, |polite, world| {
            polite.connect(world, true);
            Ok(())
        });
        self.wait("a newcomer is up", |world| world.polite(client).is_some_and(|p| p.phase == Phase::Up))?;
        Ok(client)
    }

    fn seen_by(&self, client: usize) -> BTreeMap<String, usize> {
        let all =
            self.oracle.last_seen.iter().filter(|((c, topic), _)| *c == client && is_retained_topic(topic));
        all.filter_map(|((_, topic), value)| value.map(|value| (topic.clone(), value))).collect()
    }

    /// New subscribers get what is retained: by wildcard, and topic by topic.
    fn check_retained(&mut self, seed: u64) -> Result<(), String> {
        let truth = self.seen_by(OBSERVER);
        let by_wildcard = self.newcomer(seed, "by-wildcard")?;
        self.with_polite(by_wildcard, |polite, world| {
            polite.subscribe(world, None, filter("#", QoS::ExactlyOnce), None);
            Ok(())
        });
        self.wait("retained messages come", Self::is_settled)?;
        let by_topic = self.newcomer(seed, "by-topic")?;
        let topics: Vec<String> = (0..self.clients.len())
            .flat_map(|client| [format!("r/{client}/0"), format!("r/{client}/1")])
            .collect();
        self.with_polite(by_topic, |polite, world| {
            for topic in &topics {
                polite.subscribe(world, None, filter(topic, QoS::ExactlyOnce), None);
            }
            Ok(())
        });
        self.wait("retained messages come", Self::is_settled)?;
        if !self.crashes.is_empty() || self.swarm.disk_refuses() {
            return self.check_retained_after_crash(by_wildcard, by_topic);
        }
        for client in [by_wildcard, by_topic] {
            let seen = self.seen_by(client);
            let is_exact = !self.swarm.has_queue_limits() && !self.drops_qos0();
            if is_exact && seen != truth {
                return Err(format!("retained are {seen:?}, last seen live were {truth:?}"));
            }
        }
        Ok(())
    }

    /// Two newcomers see the same, and it is what may be there.
    fn check_retained_after_crash(&self, one: usize, other: usize) -> Result<(), String> {
        if self.swarm.has_queue_limits() || self.drops_qos0() {
            return Ok(());
        }
        let (seen, too) = (self.seen_by(one), self.seen_by(other));
        if seen != too {
            return Err(format!("retained are {seen:?}, or {too:?}"));
        }
        let published = self.oracle.publications.iter().map(|p| &p.topic).filter(|t| is_retained_topic(t));
        let topics: std::collections::BTreeSet<&String> = published.collect();
        topics.into_iter().try_for_each(|topic| self.judge_retained(topic, seen.get(topic).copied()))
    }

    fn end(&mut self) -> Result<(), String> {
        if self.swarm.ends_by_shutdown {
            return self.end_by_shutdown();
        }
        self.clear_retained()?;
        for client in 0..self.clients.len() {
            if matches!(self.clients[client], Some(Client::Polite(_))) {
                let is_kept = self.swarm.disk.is_some();
                self.with_polite(client, |polite, world| {
                    let ends = is_kept && polite.profile.version.is_v5() && polite.profile.expiry_secs > 0;
                    polite.goodbye(world, false, ends.then_some(0));
                    polite.is_finished = true;
                    Ok(())
                });
            }
        }
        self.wait("everybody is gone", Self::is_settled)?;
        let forever = 3 * 86_400_000;
        // What a disk or another shard has to say may make a timer necessary again.
        let is_over = |world: &Self| {
            world.shards.iter().all(|shard| shard.next_deadline().is_none()) && world.is_settled()
        };
        self.run(forever, is_over)?;
        self.check_nothing_is_left()
    }

    /// Every retained message a newcomer was told of is cleared.
    fn clear_retained(&mut self) -> Result<(), String> {
        let topics: Vec<String> = self.oracle.retained_topics.iter().cloned().collect();
        self.with_polite(OBSERVER, |polite, world| {
            for topic in topics {
                polite.publish(world, message(topic, QoS::AtLeastOnce, true, None), true, 0);
            }
            Ok(())
        });
        self.wait("retained messages are cleared", Self::is_settled)
    }

    fn check_nothing_is_left(&self) -> Result<(), String> {
        for (index, shard) in self.shards.iter().enumerate() {
            let counts = [
                ("sessions", shard.session_count()),
                ("connections", shard.connection_count()),
                ("subscriptions", shard.subscription_count()),
                ("interest", shard.interest_count()),
                ("clients", shard.residue().clients),
                ("timers", usize::from(shard.next_deadline().is_some())),
            ];
            if let Some((what, count)) = counts.iter().find(|(_, count)| *count > 0) {
                return Err(format!("shard {index} is left with {count} {what}"));
            }
            // Limits may have kept what is retained from being seen, and so from being cleared.
            let may_retain = self.swarm.has_queue_limits() || self.drops_qos0();
            let retained = shard.retained_count();
            if retained > 0 && !may_retain {
                return Err(format!("shard {index} is left with {retained} retained messages"));
            }
            let (memory, fresh) = (shard.memory(), self.fresh_memory);
            let grew = memory.trie > fresh.trie + TABLES_KEEP
                || memory.interest > fresh.interest + TABLES_KEEP
                || (memory.retained > fresh.retained + TABLES_KEEP && !may_retain);
            if grew {
                return Err(format!("shard {index} keeps {memory:?} of nothing, {fresh:?} when it was new"));
            }
        }
        Ok(())
    }

    /// Every connection is closed, and the shards do no more.
    fn end_by_shutdown(&mut self) -> Result<(), String> {
        self.note(format_args!("shutdown"));
        for client in 0..self.clients.len() {
            if let Some(Client::Polite(polite)) = &mut self.clients[client] {
                polite.is_finished = true;
            }
        }
        for shard in 0..self.shards.len() {
            let now = self.now;
            self.shards[shard].handle_shutdown(now);
            self.wake(shard);
        }
        self.wait("every connection is closed", |world| {
            world.shards.iter().all(|shard| shard.connection_count() == 0) && world.network.is_idle()
        })?;
        let not_told = (0..self.clients.len()).find(|client| {
            self.polite(*client).is_some_and(|p| p.profile.version.is_v5() && !p.was_told_of_shutdown)
        });
        not_told.map_or(Ok(()), |client| Err(format!("client {client} got no DISCONNECT 0x8B")))
    }
}
