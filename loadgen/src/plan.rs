//! A run, completely decided: arguments checked, names resolved, limits asked. What is refused is refused here.

use crate::addresses::{self, Limits};
use crate::args::{Common, Protocol};
use crate::clock;
use crate::payload;
use crate::scenario::Topology;
use anyhow::{Context, Result, ensure};
use quelea::base::{QoS, Version};
use quelea::client::Options;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;

/// Clients for which a thread of its own pays.
const CLIENTS_PER_THREAD: u64 = 16;

/// When publishers publish.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Pace {
    /// So many messages a second, of all publishers together, whatever the broker does.
    Open {
        /// Messages a second.
        rate: f64,
    },
    /// As soon as the subscribers have seen all but so many.
    Closed {
        /// Messages ahead of the subscribers.
        inflight: u64,
    },
}

/// How clients go in the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leave {
    /// With DISCONNECT.
    GoodBye,
    /// Their sockets are closed, as fast as that can be done.
    Drop,
}

/// What a run does.
#[derive(Clone, Debug)]
pub struct Plan {
    pub scenario: &'static str,
    pub topology: Topology,
    pub target: SocketAddr,
    pub sources: Vec<IpAddr>,
    pub limits: Limits,
    /// How every client connects.
    pub options: Arc<Options>,
    pub qos: QoS,
    pub sub_qos: QoS,
    pub size: usize,
    pub pace: Pace,
    /// QoS 1 and 2 publishes in flight of one publisher.
    pub unacknowledged_max: usize,
    /// Tells this run's messages and clients from others'.
    pub run: u32,
    pub prefix: String,
    pub threads: u32,
    /// Cores to pin to, used in turn; empty is anywhere.
    pub cpus: Vec<usize>,
    pub connect_rate: Option<f64>,
    pub connecting_max: u32,
    // Nanoseconds.
    pub timeout: u64,
    pub warmup: u64,
    pub measured: u64,
    pub drain: u64,
    pub broker_pids: Vec<u32>,
    pub broker_tree: bool,
    pub strict: bool,
    pub leave: Leave,
}

impl Plan {
    /// The plan of a scenario's arguments.
    ///
    /// # Errors
    /// Whatever cannot be done, with the reason.
    pub fn new(scenario: &'static str, topology: Topology, args: &Common) -> Result<Self> {
        let target = addresses::resolve(&args.host, args.port)?;
        let sources = args.source.as_deref().map(addresses::parse_sources).transpose()?.unwrap_or_default();
        let limits = Limits::probe();
        limits.check(topology.clients(), &sources, target)?;
        ensure!(
            args.size >= payload::SIZE_MIN && args.size <= 200_000_000,
            "--size {}: a payload has at least {} bytes, for its numbers, and at most 200000000",
            args.size,
            payload::SIZE_MIN
        );
        for (name, secs) in
            [("secs", args.secs), ("warmup", args.warmup), ("timeout", args.timeout), ("drain", args.drain)]
        {
            ensure!((0.0..=1e6).contains(&secs), "--{name} {secs}: seconds from 0 to 1000000");
        }
        for (name, rate) in [("rate", args.rate), ("connect-rate", args.connect_rate)] {
            ensure!(
                rate.is_none_or(|rate| rate > 0.0 && rate <= 1e9),
                "--{name}: above 0, at most 1000000000"
            );
        }
        let qos = qos(args.qos);
        let run = run_number();
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as u32;
        let enough = topology.clients().div_ceil(CLIENTS_PER_THREAD).min(u64::from(u32::MAX)) as u32;
        let inflight = args.inflight.unwrap_or(if args.qos == 0 { 64 } else { 256 });
        ensure!(inflight > 0, "--inflight 0: nothing would ever be published");
        Ok(Self {
            scenario,
            target,
            sources,
            limits,
            options: Arc::new(options(args)?),
            qos,
            sub_qos: args.sub_qos.map_or(qos, self::qos),
            size: args.size,
            pace: args.rate.map_or(Pace::Closed { inflight }, |rate| Pace::Open { rate }),
            unacknowledged_max: usize::from(args.unacknowledged),
            run,
            prefix: args.prefix.clone().unwrap_or_else(|| format!("loadgen/{run:08x}")),
            threads: args.threads.unwrap_or_else(|| cores.min(enough)),
            cpus: args.cpus.as_deref().map(parse_cpus).transpose()?.unwrap_or_default(),
            connect_rate: args.connect_rate,
            connecting_max: args.connecting,
            timeout: clock::from_secs(args.timeout),
            warmup: clock::from_secs(if topology.publishers == 0 { 0.0 } else { args.warmup }),
            measured: clock::from_secs(args.secs),
            drain: clock::from_secs(args.drain),
            broker_pids: args.broker_pid.clone(),
            broker_tree: args.broker_tree,
            strict: args.strict,
            leave: Leave::GoodBye,
            topology,
        })
    }

    /// Where the topics of idle clients are.
    pub fn idle_prefix(&self) -> String {
        format!("{}/idle", self.prefix)
    }

    /// QoS of deliveries.
    pub fn delivery_qos(&self) -> QoS {
        self.qos.min(self.sub_qos)
    }
}

fn options(args: &Common) -> Result<Options> {
    let version = match args.protocol {
        Protocol::V310 => Version::V310,
        Protocol::V311 => Version::V311,
        Protocol::V5 => Version::V5,
    };
    let mut options = Options::new(version);
    ensure!(
        args.session_expiry.is_none() || version.is_v5(),
        "--session-expiry needs --protocol 5.0; before, --clean-start false keeps the session"
    );
    ensure!(
        args.password.is_none() || args.username.is_some() || version.is_v5(),
        "--password without --username needs --protocol 5.0"
    );
    options.clean_start = args.clean_start;
    options.session_expiry = args.session_expiry;
    options.keep_alive_secs = args.keep_alive;
    options.username = args.username.clone();
    options.password = args.password.clone().map(String::into_bytes);
    options.in_flight_max = NonZeroU16::new(args.unacknowledged).context("--unacknowledged is at least 1")?;
    Ok(options)
}

/// The QoS of an argument.
pub fn qos(level: u8) -> QoS {
    QoS::from_bits(level).expect("the command line takes 0 to 2")
}

/// Differs from run to run, also of processes that start at the same moment.
pub fn run_number() -> u32 {
    let seed = clock::now() ^ u64::from(std::process::id()).rotate_left(40);
    (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32
}

/// A list such as `0,2-3`.
fn parse_cpus(list: &str) -> Result<Vec<usize>> {
    let mut cpus = Vec::new();
    for item in list.split(',') {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let parse = |text: &str| {
            text.trim().parse::<usize>().with_context(|| format!("`{text}` in `{list}` is no core"))
        };
        let (first, last) = (parse(first)?, parse(last)?);
        ensure!(first <= last && last < 1024, "`{item}` is no range of cores");
        cpus.extend(first..=last);
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores() {
        assert_eq!(parse_cpus("0,2-4").unwrap(), [0, 2, 3, 4]);
        for bad in ["", "x", "3-1", "0-99999"] {
            assert!(parse_cpus(bad).is_err(), "{bad}");
        }
    }
}
