//! Connecting: how many at once, how fast, how long each may take, and when to give up.

use super::connection::{Connection, Stage};
use super::histogram::Latency;
use super::worker::{Worker, id};
use crate::clock;
use crate::plan::Plan;
use anyhow::Result;
use quelea::client::Client;
use quelea::runtime::net::Source;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Clients of one thread on their way to being ready.
pub struct Ramp {
    clients: u32,
    begun: u32,
    /// Slots under way, and when they began.
    under_way: Vec<(u32, u64)>,
    under_way_max: usize,
    rate: Option<f64>,
    since: u64,
    /// When a client last became ready.
    progress: u64,
    pub settled: u64,
    pub ready: u64,
    /// Never begun, because the broker had stopped answering.
    pub not_attempted: u64,
    /// Why clients did not become ready.
    pub failures: BTreeMap<String, u64>,
    pub latency: Latency,
}

impl Ramp {
    /// For one thread's clients.
    pub fn new(plan: &Plan, clients: u32) -> Self {
        Self {
            clients,
            begun: 0,
            under_way: Vec::new(),
            under_way_max: plan.connecting_max.div_ceil(plan.threads) as usize,
            rate: plan.connect_rate.map(|rate| rate / f64::from(plan.threads)),
            since: 0,
            progress: 0,
            settled: 0,
            ready: 0,
            not_attempted: 0,
            failures: BTreeMap::new(),
            latency: Latency::new(),
        }
    }

    /// Connecting begins.
    pub fn begin(&mut self, now: u64) {
        (self.since, self.progress) = (now, now);
    }

    fn may_begin(&self, now: u64) -> bool {
        let allowed = self.rate.is_none_or(|rate| {
            f64::from(self.begun) <= (now - self.since) as f64 / clock::SECOND as f64 * rate
        });
        self.begun < self.clients && self.under_way.len() < self.under_way_max && allowed
    }

    /// A client is ready, or will never be.
    pub fn settle(&mut self, slot: u32, now: u64, failure: Option<String>) {
        let Some(index) = self.under_way.iter().position(|&(other, _)| other == slot) else { return };
        let (_, began) = self.under_way.swap_remove(index);
        self.settled += 1;
        if let Some(reason) = failure {
            *self.failures.entry(reason).or_default() += 1;
        } else {
            self.ready += 1;
            self.progress = now;
            self.latency.record(now - began);
        }
    }

    /// Nobody became ready for `timeout`: the rest is not tried.
    fn give_up(&mut self) {
        let rest = u64::from(self.clients - self.begun);
        self.not_attempted += rest;
        self.settled += rest;
        self.begun = self.clients;
    }
}

impl Worker {
    /// Begins connections as rate and number allow.
    pub(super) fn keep_connecting(&mut self) -> Result<bool> {
        while self.ramp.may_begin(self.now) {
            let slot = self.ramp.begun;
            self.ramp.begun += 1;
            self.ramp.under_way.push((slot, self.now));
            let role = self.role(slot);
            let (letter, number) = self.number(role);
            let client_id = format!("lg{:08x}{letter}{number}", self.plan.run);
            let client = Client::new(Arc::clone(&self.plan.options), &client_id);
            let ring = self.rings.assign()?;
            self.connections.push(Connection::new(client, role, ring as u16));
            self.sockets += 1;
            let source = self.source(slot);
            self.rings.at(ring).connect(id(slot), self.plan.target, source);
        }
        let own = &self.shared.threads[self.index];
        own.ready.store(self.ramp.ready, Ordering::Release);
        own.settled.store(self.ramp.settled, Ordering::Release);
        Ok(false)
    }

    /// Source addresses are used in turn, over all threads.
    fn source(&self, slot: u32) -> Option<Source> {
        let sources = &self.plan.sources;
        let nth = u64::from(slot) * u64::from(self.plan.threads) + self.index as u64;
        let source = sources.get((nth % sources.len().max(1) as u64) as usize)?;
        Some(Source { address: *source, ports: self.plan.limits.ports })
    }

    /// Gives up what takes too long.
    pub(super) fn expire_connecting(&mut self) {
        let timeout = self.plan.timeout;
        let expired: Vec<u32> = self
            .ramp
            .under_way
            .iter()
            .filter(|&&(_, began)| self.now.saturating_sub(began) >= timeout)
            .map(|&(slot, _)| slot)
            .collect();
        if !expired.is_empty() && self.now - self.ramp.progress >= timeout {
            self.ramp.give_up();
        }
        for slot in expired {
            let waits_for = self.connections[slot as usize].stage.waits_for();
            let secs = timeout as f64 / clock::SECOND as f64;
            self.end(slot, format!("waited for {waits_for} for {secs} s"));
        }
    }

    /// The client in `slot` is ready.
    pub(super) fn become_ready(&mut self, slot: u32) {
        self.connections[slot as usize].stage = Stage::Ready;
        self.ramp.settle(slot, self.now, None);
    }
}
