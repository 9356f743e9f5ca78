//! The run as it goes: who should be connected, who is, and what each does next. One turn after the other, on one thread.
//!
//! ```text
//! Down --queue--> Coming --CONNACK--> [Subscribing --SUBACK-->] Up --> Leaving --> Down
//!   ^                +-------------------+---------------------+--- whatever ends the connection
//!   +-- again after a moment, if the client is wanted
//! ```

use super::commands::Commands;
use super::links::{End, Links, Route};
use super::terms::{CHANGES, Role, Terms};
use super::world::{Note, World};
use crate::clock::{self, MILLISECOND, SECOND};
use crate::judge::Force;
use anyhow::{Result, anyhow};
use quelea::base::ReasonCode;
use quelea::codec::SubscribeFilter;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Before a connection that failed is tried again.
const AGAIN: u64 = 20 * MILLISECOND;
/// Clients that find out whether a broker that was killed is back.
const SCOUTS: u32 = 8;
/// What is not done every turn.
const TICK: u64 = 5 * MILLISECOND;
/// So long a client that said DISCONNECT waits for the broker to close.
const LEAVING_MAX: u64 = 2 * SECOND;
/// Failures in a row after which a client stays away.
const FAILURES_MAX: u8 = 5;
/// Bytes that wait for one socket at most before its publisher waits.
const OUT_MAX: usize = 256 << 10;
/// Messages a publisher publishes before others have their turn.
const RUN_MAX: u32 = 256;

/// How far a client is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Down,
    Coming,
    Subscribing,
    Up,
    Leaving,
}

/// One client.
#[derive(Clone, Copy, Debug)]
struct Seat {
    stage: Stage,
    /// It is to be connected.
    wanted: bool,
    /// The broker has acknowledged something that its session must remember.
    sure: bool,
    failures: u8,
    since: u64,
}

/// What ended a run before its end, by the broker's fault.
#[derive(Debug)]
pub struct Stopped(pub String);

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Stopped {}

/// The run.
pub struct Run {
    pub terms: Arc<Terms>,
    pub links: Links,
    pub world: World,
    pub commands: Commands,
    seats: Vec<Seat>,
    queue: VecDeque<u32>,
    again: VecDeque<(u64, u32)>,
    /// Clients between connect and being up, or leaving.
    in_transit: u32,
    in_transit_max: u32,
    /// Clients that are up.
    pub up: u32,
    /// Clients that are wanted and not up.
    pub missing: u32,
    /// How often somebody became up, or left for good.
    pub came: u64,
    pub now: u64,
    next_tick: u64,
    next_second: u64,
    /// Publishers publish, so many on each lane at most.
    pub loading: bool,
    pub queued: Option<u64>,
    /// Changing sessions make no requests.
    pub holding: bool,
    /// The broker is about to be killed: connections may end.
    pub expecting: bool,
    /// It was, and has not answered since; it was seen to be down then.
    pub is_down: bool,
    down_since: u64,
    /// Clients come only to end their sessions.
    cleaning: bool,
    churn: f64,
    churned: u64,
    pub random: Random,
    /// Why connections ended, or did not begin, though nobody was killed.
    pub lost: BTreeMap<String, u64>,
    pub failures: BTreeMap<String, u64>,
    /// A line a second, unless quiet.
    pub said: String,
    quiet: bool,
    interrupt: Arc<AtomicBool>,
}

impl Run {
    /// Everybody is down.
    ///
    /// # Errors
    /// If the kernel refuses a ring.
    pub fn new(
        terms: Arc<Terms>,
        world: World,
        connecting: u32,
        churn: f64,
        quiet: bool,
        interrupt: Arc<AtomicBool>,
    ) -> Result<Self> {
        let route = Route { target: terms.target, sources: terms.sources.clone(), ports: terms.limits.ports };
        let descriptors = terms.limits.ring_descriptors() as u32;
        let mut links = Links::new(route, terms.clients().min(20_000), descriptors)?;
        for slot in 0..terms.clients() {
            links.add(terms.client(slot, false));
        }
        let now = clock::now();
        let seat = Seat { stage: Stage::Down, wanted: false, sure: false, failures: 0, since: now };
        Ok(Self {
            seats: vec![seat; terms.clients() as usize],
            links,
            world,
            commands: Commands::default(),
            queue: VecDeque::new(),
            again: VecDeque::new(),
            in_transit: 0,
            in_transit_max: connecting,
            up: 0,
            missing: 0,
            came: 0,
            now,
            next_tick: now,
            next_second: now + SECOND,
            loading: false,
            queued: None,
            holding: true,
            expecting: false,
            is_down: false,
            down_since: 0,
            cleaning: false,
            churn,
            churned: 0,
            random: Random(u64::from(terms.run) << 20 | 1),
            lost: BTreeMap::new(),
            failures: BTreeMap::new(),
            said: String::new(),
            quiet,
            interrupt,
            terms,
        })
    }

    /// One turn.
    ///
    /// # Errors
    /// If the kernel does not serve the rings any more, a command fails, or the user ends it.
    pub fn turn(&mut self) -> Result<()> {
        let more = self.pump();
        let wait = self.next_tick.saturating_sub(clock::now());
        let wait = if more { Duration::ZERO } else { Duration::from_nanos(wait) };
        let world = &mut self.world;
        self.links.turn(wait, &mut |slot, now, incoming| world.on_incoming(slot, now, incoming))?;
        self.now = clock::now();
        self.take_notes();
        self.take_ends();
        self.open_more()?;
        if self.now >= self.next_tick {
            self.next_tick = self.now + TICK;
            self.commands.look()?;
            self.change();
            self.churn();
            if self.now >= self.next_second {
                self.next_second = self.now + SECOND;
                self.look_at_all();
                self.say();
            }
            if self.interrupt.load(Ordering::Relaxed) {
                return Err(anyhow!(Interrupted));
            }
        }
        Ok(())
    }

    /// Turns until `done`, at most until `until`. Says whether it is done.
    ///
    /// # Errors
    /// As [`turn`](Self::turn).
    pub fn turn_until(&mut self, until: u64, mut done: impl FnMut(&mut Self) -> bool) -> Result<bool> {
        loop {
            if done(self) {
                return Ok(true);
            }
            if self.now >= until {
                return Ok(false);
            }
            self.turn()?;
        }
    }

    /// The clients of these slots are to be connected.
    pub fn want(&mut self, slots: Range<u32>) {
        for slot in slots {
            let seat = &mut self.seats[slot as usize];
            if seat.wanted {
                continue;
            }
            (seat.wanted, seat.failures) = (true, 0);
            self.missing += u32::from(seat.stage != Stage::Up);
            if seat.stage == Stage::Down {
                self.queue.push_back(slot);
            }
        }
    }

    /// The client is to be connected no longer.
    pub fn release(&mut self, slot: u32) {
        let seat = &mut self.seats[slot as usize];
        if !std::mem::take(&mut seat.wanted) {
            return;
        }
        if seat.stage == Stage::Up {
            self.leave(slot);
        } else {
            self.missing -= 1;
        }
    }

    /// The clients of these slots come once, to subscribe or to end their session, and leave.
    pub fn visit(&mut self, slots: Range<u32>) {
        self.queue.extend(slots);
    }

    /// Whether nobody is on the way.
    pub fn is_settled(&self) -> bool {
        self.queue.is_empty() && self.in_transit == 0 && self.again.is_empty() && self.missing == 0
    }

    /// Whether the client is connected and ready.
    pub fn is_up(&self, slot: u32) -> bool {
        self.seats[slot as usize].stage == Stage::Up
    }

    /// Whether every connection to the broker that was killed has ended.
    pub fn is_dead(&self) -> bool {
        let survives = |seat: &Seat| {
            matches!(seat.stage, Stage::Coming | Stage::Subscribing | Stage::Up)
                && seat.since < self.down_since
        };
        self.is_down && !self.seats.iter().any(survives)
    }

    /// Sessions are known to the broker: another run made them.
    pub fn assume_sessions(&mut self) {
        let sessions = self.terms.sessions as usize;
        self.seats[..sessions].iter_mut().for_each(|seat| seat.sure = true);
    }

    /// From now on clients come only to end their sessions.
    pub fn begin_cleaning(&mut self) {
        self.cleaning = true;
        self.queue.clear();
        self.again.clear();
        for slot in 0..self.terms.clients() {
            self.release(slot);
        }
    }

    fn set(&mut self, slot: u32, stage: Stage) {
        let in_transit = |stage: Stage| !matches!(stage, Stage::Down | Stage::Up);
        let seat = &mut self.seats[slot as usize];
        let before = std::mem::replace(&mut seat.stage, stage);
        seat.since = self.now;
        self.in_transit = self.in_transit - u32::from(in_transit(before)) + u32::from(in_transit(stage));
        self.up = self.up - u32::from(before == Stage::Up) + u32::from(stage == Stage::Up);
        if seat.wanted {
            self.missing = self.missing + u32::from(before == Stage::Up) - u32::from(stage == Stage::Up);
        }
    }

    fn leave(&mut self, slot: u32) {
        self.set(slot, Stage::Leaving);
        self.links.leave(slot);
    }

    fn open_more(&mut self) -> Result<()> {
        while self.again.front().is_some_and(|&(at, _)| at <= self.now) {
            let (_, slot) = self.again.pop_front().expect("there is a first");
            self.queue.push_back(slot);
        }
        // Whether the broker is back, a few find out for all; one alone may wait for a second, if it knocks when nobody listens yet.
        let most = if self.is_down { SCOUTS.min(self.in_transit_max) } else { self.in_transit_max };
        while self.in_transit < most {
            let Some(slot) = self.queue.pop_front() else { break };
            let seat = self.seats[slot as usize];
            if seat.stage != Stage::Down {
                continue;
            }
            if !self.links.is_closed(slot) {
                self.again.push_back((self.now + AGAIN, slot));
                continue;
            }
            if self.cleaning {
                self.links.replace(slot, self.terms.client(slot, true));
            }
            self.set(slot, Stage::Coming);
            let clean_start = self.cleaning || !self.terms.is_persistent(slot);
            self.links.open(slot, clean_start)?;
        }
        Ok(())
    }

    fn take_notes(&mut self) {
        let notes = std::mem::take(&mut self.world.notes);
        for &(slot, note) in &notes {
            // The connection may have ended in the same turn; what was acknowledged before holds all the same.
            match note {
                Note::Connected { session_present } => self.on_connected(slot, session_present),
                Note::Refused(reason) => self.links.cut(slot, &format!("CONNACK: {reason:?}")),
                Note::Subscribed(reason) => self.on_subscribed(slot, reason),
                Note::Unsubscribed(reason) => {
                    if let Role::Changer(changer) = self.terms.role(slot) {
                        self.world.on_changed(changer, Some(reason));
                    }
                }
                Note::Disconnected(reason) => self.links.cut(slot, &format!("DISCONNECT: {reason:?}")),
            }
        }
        if self.world.notes.is_empty() {
            self.world.notes = notes;
            self.world.notes.clear();
        }
    }

    fn on_connected(&mut self, slot: u32, session_present: bool) {
        // What was under way when the broker died says nothing about the next.
        self.is_down &= self.seats[slot as usize].since < self.down_since;
        if self.seats[slot as usize].stage != Stage::Coming {
            return;
        }
        if self.cleaning {
            self.came += 1;
            return self.leave(slot);
        }
        let tells = self.terms.persistent.version != quelea::base::Version::V310;
        let role = self.terms.role(slot);
        if tells && !session_present && self.terms.is_persistent(slot) {
            if std::mem::take(&mut self.seats[slot as usize].sure) {
                self.world.tally.sessions_lost += 1;
            }
            match role {
                Role::Publisher(publisher) => self.world.abandon(publisher),
                Role::Changer(changer) => self.world.on_changer_lost(changer),
                Role::Session(_) | Role::Reader | Role::Prober => {}
            }
        }
        let filter = match role {
            Role::Session(session) if !self.seats[slot as usize].sure => {
                Some(format!("{}/g/{}", self.terms.prefix, session / self.terms.fan))
            }
            Role::Reader => {
                self.world.begin_reading();
                Some(format!("{}/r/+", self.terms.prefix))
            }
            Role::Session(_) | Role::Publisher(_) | Role::Changer(_) | Role::Prober => None,
        };
        let Some(filter) = filter else { return self.become_up(slot) };
        self.set(slot, Stage::Subscribing);
        let filters = [SubscribeFilter::new(&filter, self.terms.sub_qos)];
        let refused = self.links.client(slot).subscribe(clock::mqtt(self.now), &filters, None).err();
        self.links.touch(slot);
        if let Some(refusal) = refused {
            self.links.cut(slot, &format!("SUBSCRIBE: {refusal}"));
        }
    }

    fn on_subscribed(&mut self, slot: u32, reason: ReasonCode) {
        let is_granted = !reason.is_error() && reason.byte() >= self.terms.sub_qos.bits();
        match self.terms.role(slot) {
            Role::Changer(changer) => {
                self.seats[slot as usize].sure |= is_granted;
                self.world.on_changed(changer, Some(reason));
            }
            Role::Session(_) | Role::Reader if is_granted => {
                self.seats[slot as usize].sure = true;
                if self.seats[slot as usize].stage == Stage::Subscribing {
                    self.become_up(slot);
                }
            }
            _ => self.links.cut(slot, &format!("SUBACK: {reason:?}")),
        }
    }

    fn become_up(&mut self, slot: u32) {
        self.set(slot, Stage::Up);
        self.came += 1;
        self.seats[slot as usize].failures = 0;
        match self.terms.role(slot) {
            Role::Publisher(publisher) => self.world.pump(publisher),
            Role::Session(session) if self.world.is_draining => self.world.look(session),
            Role::Session(_) | Role::Changer(_) | Role::Reader | Role::Prober => {}
        }
        if !self.seats[slot as usize].wanted {
            self.leave(slot);
        }
    }

    fn take_ends(&mut self) {
        for End { slot, reason, is_planned } in std::mem::take(&mut self.links.ended) {
            let Seat { stage, wanted, .. } = self.seats[slot as usize];
            self.set(slot, Stage::Down);
            match self.terms.role(slot) {
                Role::Publisher(publisher) if !self.terms.is_persistent(slot) => {
                    self.world.abandon(publisher)
                }
                Role::Changer(changer) => self.world.on_changed(changer, None),
                Role::Prober => self.world.end_probing(),
                Role::Session(_) | Role::Publisher(_) | Role::Reader => {}
            }
            if self.expecting && !is_planned {
                if !std::mem::replace(&mut self.is_down, true) {
                    self.down_since = self.now;
                }
            } else if !is_planned {
                let counts = if stage == Stage::Up { &mut self.lost } else { &mut self.failures };
                *counts.entry(reason).or_default() += 1;
                let seat = &mut self.seats[slot as usize];
                seat.failures += 1;
                if seat.failures >= FAILURES_MAX {
                    self.release(slot);
                    continue;
                }
            }
            if wanted || (!is_planned && stage != Stage::Leaving) {
                self.again.push_back((self.now + AGAIN, slot));
            }
        }
    }

    /// Publishers publish. Says whether there is more to do at once.
    fn pump(&mut self) -> bool {
        let prober = self.terms.slot(Role::Prober);
        if self.is_up(prober) {
            while self.world.probe(self.links.client(prober), self.now) {}
            self.links.touch(prober);
        }
        if !self.loading {
            return false;
        }
        let mut again = Vec::new();
        for publisher in std::mem::take(&mut self.world.pumps) {
            self.world.unqueue(publisher);
            let slot = self.terms.slot(Role::Publisher(publisher));
            if !self.is_up(slot) {
                continue;
            }
            let mut count = 0;
            let client = self.links.client(slot);
            while count < RUN_MAX
                && client.out_mut().len() < OUT_MAX
                && self.world.publish(publisher, client, self.now, self.queued)
            {
                count += 1;
            }
            if count == RUN_MAX {
                again.push(publisher);
            }
            self.links.touch(slot);
        }
        let more = !again.is_empty();
        again.into_iter().for_each(|publisher| self.world.pump(publisher));
        more
    }

    /// Changing sessions without a request make one.
    fn change(&mut self) {
        if self.holding {
            return;
        }
        for changer in 0..self.terms.changers {
            let slot = self.terms.slot(Role::Changer(changer));
            if !self.is_up(slot) || self.world.changers[changer as usize].request.is_some() {
                continue;
            }
            let change = (self.random.next() % u64::from(CHANGES)) as u32;
            let filter = format!("{}/c/{changer}/{change}", self.terms.prefix);
            let of = &mut self.world.changers[changer as usize];
            let is_subscribe = match of.probed[change as usize].force {
                Force::On => false,
                Force::Off => true,
                Force::Uncertain => self.random.next().is_multiple_of(2),
            };
            of.request = Some((change, is_subscribe));
            let (now, client) = (clock::mqtt(self.now), self.links.client(slot));
            let sent = if is_subscribe {
                client.subscribe(now, &[SubscribeFilter::new(&filter, self.terms.sub_qos)], None)
            } else {
                client.unsubscribe(now, &[&filter])
            };
            if sent.is_err() {
                self.world.changers[changer as usize].request = None;
            }
            self.links.touch(slot);
        }
    }

    /// Sessions come and go.
    fn churn(&mut self) {
        if self.churn <= 0.0 || !self.loading || self.expecting || self.terms.sessions == 0 {
            self.churned = self.now;
            return;
        }
        let step = (SECOND as f64 / self.churn) as u64;
        while self.churned + step <= self.now {
            self.churned += step;
            let slot = (self.random.next() % u64::from(self.terms.sessions)) as u32;
            match self.seats[slot as usize].stage {
                Stage::Up => self.release(slot),
                Stage::Down => self.want(slot..slot + 1),
                Stage::Coming | Stage::Subscribing | Stage::Leaving => {}
            }
        }
    }

    /// Once a second: who has taken too long, and who must say something to stay.
    fn look_at_all(&mut self) {
        for slot in 0..self.terms.clients() {
            let Seat { stage, since, .. } = self.seats[slot as usize];
            let age = self.now.saturating_sub(since);
            match stage {
                Stage::Down => {}
                Stage::Coming if age > self.terms.timeout => {
                    self.links.cut(slot, "waited for CONNACK too long")
                }
                Stage::Subscribing if age > self.terms.timeout => {
                    self.links.cut(slot, "waited for SUBACK too long");
                }
                Stage::Leaving if age > LEAVING_MAX => self.links.cut(slot, ""),
                Stage::Coming | Stage::Subscribing | Stage::Leaving => {}
                Stage::Up => {
                    let result = self.links.client(slot).handle_timeout(clock::mqtt(self.now));
                    self.links.touch(slot);
                    if let Err(error) = result {
                        self.links.cut(slot, &error.to_string());
                    }
                }
            }
        }
    }

    fn say(&self) {
        if self.quiet {
            return;
        }
        let tally = &self.world.tally;
        let line = format!(
            "{:>8}  {} up, {} on their way; {} published, {} acknowledged, {} delivered",
            self.said, self.up, self.in_transit, tally.published, tally.acknowledged, tally.received
        );
        let _ = std::io::Write::write_all(&mut std::io::stderr(), (line + "\n").as_bytes());
    }
}

/// The user ended the run.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the run was interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Random enough for moments and choices (xorshift).
pub struct Random(u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    /// From 0 to 1.
    pub fn share(&mut self) -> f64 {
        (self.next() % (1 << 30)) as f64 / f64::from(1 << 30)
    }
}
