//! The number of shards is not to be seen: the same workload without faults gives every subscriber the same messages on one
//! shard and on four (every group, for shared subscriptions).
//!
//! The workload goes in rounds, each of one kind and each settled before the next, so that what comes to whom does not
//! depend on time. With disks the process may die between rounds. What had come may come again then, so each message counts once.

use crate::clients::Client;
use crate::clients::polite::{Phase, Polite, Profile};
use crate::disk::DiskFaults;
use crate::oracle::OBSERVER;
use crate::rng::Rng;
use crate::swarm::Swarm;
use crate::workload::profile;
use crate::world::World;
use quelea::base::QoS;
use quelea::{log, queue};
use std::collections::BTreeMap;

/// By receiver (a client, or a shared subscription): what it got, sorted.
pub(crate) type Received = BTreeMap<String, Vec<String>>;

/// Rounds of one run.
const ROUNDS: u64 = 14;

#[derive(Clone, Copy, Debug)]
enum Round {
    /// Connections, takeovers, subscriptions.
    Change,
    Publish,
    /// Disconnections, with or without will.
    Leave,
    /// Everybody comes back.
    Return,
    /// The process dies and starts again.
    Crash,
}

/// What sessions are kept on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ground {
    Memory,
    Disks,
    /// Disks, and a process that dies now and then.
    Crashes,
}

/// Runs the workload of a seed.
pub(crate) fn run(seed: u64, shards: u16, ground: Ground, is_printed: bool) -> Result<Received, String> {
    let mut swarm = Swarm { shards, ..Swarm::draw(seed).without_faults() };
    if ground != Ground::Memory {
        swarm.disk = Some(DiskFaults::none());
        swarm.load.kept_groups = false;
        // Whom a will meets that is published after the start is a matter of time.
        swarm.load.wills &= ground == Ground::Disks;
        swarm.options.log = log::Options { segment_bytes: 64 << 10, ..log::Options::default() };
    }
    swarm.options.queue = queue::Options::default();
    (swarm.load.expiry, swarm.load.short_sessions) = (false, false);
    // Which member of a group takes large messages is the group's choice.
    swarm.load.small_packets = false;
    let mut world = World::new(seed, swarm, is_printed);
    world.populate(seed);
    let mut rng = Rng::stream(seed, "rounds");
    for client in 1..world.clients.len() {
        let profile = Profile {
            may_fail: false,
            is_lazy: false,
            keep_alive_secs: 0,
            ..profile(client, &world.swarm, &mut rng)
        };
        let polite = Polite::new(client, profile, Rng::stream(seed, &format!("rounds {client}")));
        world.clients[client] = Some(Client::Polite(Box::new(polite)));
    }
    world.start_observer()?;
    for round in 0..ROUNDS {
        let round = match round {
            0 => Round::Change,
            _ if round + 1 == ROUNDS => Round::Return,
            _ if ground == Ground::Crashes && rng.chance(200) => Round::Crash,
            _ => *rng.pick(&[Round::Change, Round::Publish, Round::Publish, Round::Leave]),
        };
        world.note(format_args!("{round:?}"));
        if let Round::Crash = round {
            world.die_and_return()?;
            continue;
        }
        for client in 1..world.clients.len() {
            world.with_polite(client, |polite, world| {
                polite.play(world, round);
                Ok(())
            });
        }
        world.wait("a round settles", World::is_still)?;
    }
    Ok(world.received(ground == Ground::Crashes))
}

impl Polite {
    /// Its part in a round.
    fn play(&mut self, world: &mut World, round: Round) {
        let load = world.swarm.load.clone();
        let is_up = self.phase == Phase::Up && self.machine.is_connected();
        match round {
            Round::Change if !is_up || self.rng.chance(200) => self.connect(world, false),
            Round::Return if !is_up => self.connect(world, false),
            Round::Change if is_up => {
                // Retained messages may or may not come between SUBSCRIBE and UNSUBSCRIBE.
                let unsubscribes = self.rng.chance(300);
                for _ in 0..self.rng.between(1, 4) {
                    if unsubscribes {
                        self.unsubscribe_some(world, &load);
                    } else {
                        self.subscribe_some(world, &load);
                    }
                }
            }
            Round::Publish if is_up => {
                for _ in 0..3 {
                    self.publish_burst(world, &load);
                }
            }
            Round::Leave if is_up && self.rng.chance(400) => {
                let with_will = self.profile.version.is_v5() && self.rng.chance(500);
                self.goodbye(world, with_will, None);
            }
            _ => {}
        }
    }
}

impl World {
    /// Nobody publishes before the observer is back.
    fn die_and_return(&mut self) -> Result<(), String> {
        self.crash(true);
        self.wait("the shards are ready", |world| world.is_serving)?;
        self.wait("the clients have noticed", Self::is_still)?;
        self.with_polite(OBSERVER, |polite, world| {
            polite.connect(world, false);
            Ok(())
        });
        self.wait("the observer is back", Self::is_still)
    }

    /// Everybody is either up with nothing to do, or away.
    fn is_still(&self) -> bool {
        let done = |client: &Option<Client>| match client {
            Some(Client::Polite(polite)) => match polite.phase {
                Phase::Up => polite.machine.is_idle(),
                Phase::Away { .. } => polite.socket.is_none(),
                Phase::Connecting { .. } => false,
            },
            _ => false,
        };
        self.clients.iter().all(done) && self.is_quiet() && self.has_delivered()
    }

    fn received(&self, is_once: bool) -> Received {
        let mut received = Received::new();
        for client in 0..self.clients.len() {
            let Some(polite) = self.polite(client) else { continue };
            for delivery in &self.oracle.deliveries[client] {
                let publication = &self.oracle.publications[delivery.tag];
                let (publisher, number, topic) =
                    (publication.publisher, publication.number, &publication.topic);
                let (who, how) = if topic.starts_with("s/") && client != OBSERVER {
                    // Which member gets it, and so with what QoS, may differ.
                    (polite.profile.group.0.to_string(), QoS::AtMostOnce)
                } else {
                    (format!("client {client}"), delivery.qos)
                };
                let what = format!("{publisher}.{number} {topic} {how:?}");
                received.entry(who).or_default().push(what);
            }
        }
        received.values_mut().for_each(|list| list.sort());
        if is_once {
            received.values_mut().for_each(Vec::dedup);
        }
        received
    }
}

/// Where two runs differ.
pub(crate) fn difference(one: &Received, other: &Received) -> Option<String> {
    let all: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    all.into_iter().find_map(|who| {
        let empty = Vec::new();
        let (a, b) = (one.get(who).unwrap_or(&empty), other.get(who).unwrap_or(&empty));
        let at = (0..a.len().max(b.len())).find(|at| a.get(*at) != b.get(*at))?;
        Some(format!(
            "{who} got {} messages on one shard and {} on more; the first to differ: {:?}, {:?}",
            a.len(),
            b.len(),
            a.get(at),
            b.get(at)
        ))
    })
}
