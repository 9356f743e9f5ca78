//! What a durable run is, completely decided: who there is, who hears whom, and every name.

use super::args::DurableArgs;
use super::left::Left;
use crate::addresses::{self, Limits};
use crate::args::Protocol;
use crate::clock;
use crate::payload;
use crate::plan;
use anyhow::{Context, Result, ensure};
use quelea::base::{QoS, Version};
use quelea::client::{Client, Options};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::ops::Range;
use std::sync::Arc;

/// Filters that a changing session subscribes to and unsubscribes from.
pub const CHANGES: u32 = 4;

/// Who a client is; numbers are counted for each kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// A persistent session with one subscription.
    Session(u32),
    /// Publishes.
    Publisher(u32),
    /// A persistent session whose subscriptions change.
    Changer(u32),
    /// Subscribes, newly each time, to find what is retained.
    Reader,
    /// Publishes what shows which subscriptions are in force.
    Prober,
}

/// What a payload was published as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// On a lane of the sessions.
    Lane(u32),
    /// On a topic with a retained message.
    Retained(u32),
    /// To find out about a changing session's subscription.
    Probe(u32, u32),
}

/// The run.
#[derive(Debug)]
pub struct Terms {
    pub target: SocketAddr,
    pub sources: Vec<IpAddr>,
    pub limits: Limits,
    pub run: u32,
    pub prefix: String,
    pub sessions: u32,
    pub fan: u32,
    pub online: u32,
    pub publishers: u32,
    pub retained: u32,
    pub changers: u32,
    pub clean_publishers: bool,
    /// Connections stay: what is delivered late is late by the broker.
    pub is_steady: bool,
    pub qos: QoS,
    pub sub_qos: QoS,
    pub size: usize,
    /// Of persistent sessions, and of clients that leave none.
    pub persistent: Arc<Options>,
    pub passing: Arc<Options>,
    // Nanoseconds.
    pub timeout: u64,
    pub drain: u64,
}

impl Terms {
    /// The terms of these arguments, or of those that `left` was made with.
    ///
    /// # Errors
    /// Whatever cannot be done, with the reason.
    pub fn new(args: &DurableArgs, left: Option<&Left>) -> Result<Self> {
        let target = addresses::resolve(&args.host, args.port)?;
        let sources = args.source.as_deref().map(addresses::parse_sources).transpose()?.unwrap_or_default();
        let limits = Limits::probe();
        let run = left.map_or_else(plan::run_number, |left| left.run);
        let at_once = args.at_once.max(args.online).min(args.sessions);
        let clients = u64::from(at_once) + u64::from(args.publishers) + u64::from(args.changing) + 2;
        limits.check(clients, &sources, target)?;
        ensure!(
            args.size >= payload::SIZE_MIN && args.size <= 200_000_000,
            "--size {}: a payload has at least {} bytes, for its numbers, and at most 200000000",
            args.size,
            payload::SIZE_MIN
        );
        ensure!(args.online <= args.sessions, "--online {}: there are {}", args.online, args.sessions);
        for (name, secs) in
            [("secs", args.secs), ("warmup", args.warmup), ("timeout", args.timeout), ("drain", args.drain)]
        {
            ensure!((0.0..=1e6).contains(&secs), "--{name} {secs}: seconds from 0 to 1000000");
        }
        ensure!(args.sessions > 0 || args.changing > 0, "nobody would get anything: --sessions 0");
        ensure!((0.0..=1e6).contains(&args.churn), "--churn {}: from 0 to 1000000", args.churn);
        let persistent = options(args)?;
        let passing = Options { clean_start: true, session_expiry: None, ..persistent.clone() };
        let qos = plan::qos(args.qos);
        Ok(Self {
            target,
            sources,
            limits,
            run,
            prefix: format!("durable/{run:08x}"),
            sessions: args.sessions,
            fan: args.fan,
            online: args.online,
            publishers: if left.is_some() { 0 } else { args.publishers },
            retained: args.retained,
            changers: args.changing,
            clean_publishers: args.clean_publishers,
            is_steady: args.kill.is_none() && args.churn == 0.0,
            qos,
            sub_qos: args.sub_qos.map_or(qos, plan::qos),
            size: args.size,
            persistent: Arc::new(persistent),
            passing: Arc::new(passing),
            timeout: clock::from_secs(args.timeout),
            drain: clock::from_secs(args.drain),
        })
    }

    /// QoS of deliveries.
    pub fn delivery_qos(&self) -> QoS {
        self.qos.min(self.sub_qos)
    }

    /// Topics that sessions subscribe to.
    pub fn groups(&self) -> u32 {
        self.sessions.div_ceil(self.fan)
    }

    /// The lanes of a group: one for each publisher that publishes there, as `publishers` there were. Every publisher serves a group, and every group
    /// has a publisher.
    pub fn lanes(groups: u32, publishers: u32) -> Vec<Vec<u32>> {
        (0..groups)
            .map(|group| {
                if publishers >= groups {
                    (group..publishers).step_by(groups as usize).collect()
                } else {
                    vec![group % publishers]
                }
            })
            .collect()
    }

    /// All clients.
    pub fn clients(&self) -> u32 {
        self.sessions + self.publishers + self.changers + 2
    }

    /// Who the client in `slot` is.
    pub fn role(&self, slot: u32) -> Role {
        let changers = self.sessions + self.publishers;
        if slot < self.sessions {
            Role::Session(slot)
        } else if slot < changers {
            Role::Publisher(slot - self.sessions)
        } else if slot < changers + self.changers {
            Role::Changer(slot - changers)
        } else if slot == changers + self.changers {
            Role::Reader
        } else {
            Role::Prober
        }
    }

    /// Where the client is.
    pub fn slot(&self, role: Role) -> u32 {
        match role {
            Role::Session(session) => session,
            Role::Publisher(publisher) => self.sessions + publisher,
            Role::Changer(changer) => self.sessions + self.publishers + changer,
            Role::Reader => self.sessions + self.publishers + self.changers,
            Role::Prober => self.sessions + self.publishers + self.changers + 1,
        }
    }

    /// Slots of sessions, of publishers, of changers.
    pub fn slots(&self) -> [Range<u32>; 3] {
        let (first, second) = (self.sessions, self.sessions + self.publishers);
        [0..first, first..second, second..second + self.changers]
    }

    /// A new client for the slot; `passing` leaves no session.
    pub fn client(&self, slot: u32, passing: bool) -> Client {
        let (letter, number) = match self.role(slot) {
            Role::Session(session) => ('s', session),
            Role::Publisher(publisher) => ('p', publisher),
            Role::Changer(changer) => ('c', changer),
            Role::Reader => ('r', 0),
            Role::Prober => ('t', 0),
        };
        let options = if passing || !self.is_persistent(slot) { &self.passing } else { &self.persistent };
        Client::new(Arc::clone(options), &format!("ld{:08x}{letter}{number}", self.run))
    }

    /// Whether the client in `slot` has a session that outlives its connections.
    pub fn is_persistent(&self, slot: u32) -> bool {
        match self.role(slot) {
            Role::Session(_) | Role::Changer(_) => true,
            Role::Publisher(_) => !self.clean_publishers,
            Role::Reader | Role::Prober => false,
        }
    }

    /// The topic of what has this origin; `group` is that of a lane.
    pub fn topic(&self, origin: Origin, group: u32, out: &mut String) {
        out.clear();
        let prefix = &self.prefix;
        let _ = match origin {
            Origin::Lane(_) => write!(out, "{prefix}/g/{group}"),
            Origin::Retained(number) => write!(out, "{prefix}/r/{number}"),
            Origin::Probe(changer, change) => write!(out, "{prefix}/c/{changer}/{change}"),
        };
    }

    /// What `publisher` of a stamp stands for, if there are so many lanes.
    pub fn origin(&self, publisher: u32, lanes: u32) -> Option<Origin> {
        let Some(rest) = publisher.checked_sub(lanes) else { return Some(Origin::Lane(publisher)) };
        let Some(rest) = rest.checked_sub(self.retained) else { return Some(Origin::Retained(rest)) };
        (rest < self.changers * CHANGES).then_some(Origin::Probe(rest / CHANGES, rest % CHANGES))
    }

    /// The number of an origin in a stamp.
    pub fn publisher(&self, origin: Origin, lanes: u32) -> u32 {
        match origin {
            Origin::Lane(lane) => lane,
            Origin::Retained(number) => lanes + number,
            Origin::Probe(changer, change) => lanes + self.retained + changer * CHANGES + change,
        }
    }
}

fn options(args: &DurableArgs) -> Result<Options> {
    let version = match args.protocol {
        Protocol::V310 => Version::V310,
        Protocol::V311 => Version::V311,
        Protocol::V5 => Version::V5,
    };
    ensure!(args.session_expiry > 0, "--session-expiry 0: such a session ends with its connection");
    ensure!(
        args.password.is_none() || args.username.is_some() || version.is_v5(),
        "--password without --username needs --protocol 5.0"
    );
    let mut options = Options::new(version);
    options.clean_start = false;
    options.session_expiry = version.is_v5().then_some(args.session_expiry);
    options.keep_alive_secs = args.keep_alive;
    options.username = args.username.clone();
    options.password = args.password.clone().map(String::into_bytes);
    options.in_flight_max = NonZeroU16::new(args.window).context("--window is at least 1")?;
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_has_a_publisher_and_every_publisher_a_group() {
        for (groups, publishers) in [(1, 1), (20, 4), (4, 20), (7, 3), (3, 7), (100, 100)] {
            let lanes = Terms::lanes(groups, publishers);
            assert_eq!(lanes.len() as u32, groups);
            assert!(lanes.iter().all(|group| !group.is_empty()));
            let mut all: Vec<u32> = lanes.into_iter().flatten().collect();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all, (0..publishers.min(all.len() as u32)).collect::<Vec<_>>());
            assert_eq!(all.len() as u32, publishers);
        }
    }
}
