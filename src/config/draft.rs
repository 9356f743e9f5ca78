//! A configuration while settings are applied to it; only [`finish`](Draft::finish) makes a [`Config`] of it.

use super::dialect::Setting;
use super::error::{Error, Place, Problem, quotable};
use super::keys::{self, Form};
use super::level::LogLevel;
use super::slot::Slot;
use super::{Config, HttpListener, Machine, value};
use crate::shard;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// MQTT's registered port, listened on unless a listener is configured.
pub(super) const DEFAULT_PORT: u16 = 1883;
/// The most shards there can be: interest masks are 64 bits wide.
const SHARDS_MAX: u16 = 64;
/// Memory that is assumed at least, so that a tiny machine still has a valid default.
const MEMORY_BYTES_MIN: u64 = 64 << 20;

/// As in RabbitMQ.
const FREE_BYTES_MIN: u64 = 50_000_000;
/// Segments are whole blocks: what is set is rounded up.
const BLOCK_SIZE: u32 = 4096;

/// Pairs of keys of which the first must not be larger than the second.
const RELATIONS: &[(&str, &str)] = &[
    ("mqtt.max_packet_size_unauthenticated", "mqtt.max_packet_size_authenticated"),
    ("mqtt.max_packet_size_authenticated", "quelea.memory.max_bytes"),
    ("quelea.qos0.max_bytes", "quelea.memory.max_bytes"),
];

/// Defaults, and what has been set over them so far.
pub(super) struct Draft {
    /// All but the listeners is its field here.
    pub(super) config: Config,
    listeners: Vec<Listener>,
    /// `quelea.http`.
    pub(super) http: Option<SocketAddr>,
    /// `prometheus.tcp.port` and `prometheus.tcp.ip`.
    pub(super) prometheus_port: Option<u16>,
    pub(super) prometheus_ip: IpAddr,
    /// Where each key of the table was set last.
    origins: Vec<Origin>,
}

/// `mqtt.listeners.tcp.<name>`.
struct Listener {
    name: String,
    /// `None` is `none`.
    address: Option<SocketAddr>,
    place: Place,
}

#[derive(Clone)]
enum Origin {
    Default,
    Set(Place),
    /// Set, but not to a valid value: what it contradicts is not known.
    Bad,
}

impl Draft {
    /// The defaults for `machine`.
    pub(super) fn new(machine: Machine) -> Self {
        let shards = u16::try_from(machine.core_count).unwrap_or(SHARDS_MAX).clamp(1, SHARDS_MAX);
        let mut shard = shard::Options::default();
        // Divided first: the product could overflow.
        shard.process.memory_max_bytes =
            machine.memory_bytes.map(|bytes| (bytes / 5 * 3).max(MEMORY_BYTES_MIN));
        let config = Config {
            listeners: Vec::new(),
            http: Vec::new(),
            shards,
            data_dir: PathBuf::from("./quelea-data"),
            free_bytes_min: FREE_BYTES_MIN,
            log_level: LogLevel::default(),
            shard,
        };
        Self {
            config,
            listeners: Vec::new(),
            http: None,
            prometheus_port: None,
            prometheus_ip: Ipv4Addr::LOCALHOST.into(),
            origins: vec![Origin::Default; keys::all().len()],
        }
    }

    /// The defaults as far as they do not depend on the machine.
    pub(super) fn of_defaults() -> Self {
        Self::new(Machine { core_count: 1, memory_bytes: None })
    }

    /// Applies `settings` in order; those that cannot be go to `errors`.
    pub(super) fn apply(&mut self, settings: Vec<Setting>, errors: &mut Vec<Error>) {
        for setting in settings {
            if let Err(problem) = self.apply_one(&setting) {
                errors.push(Error { place: setting.place, problem });
            }
        }
    }

    /// The configuration, or everything that is wrong in the order it was read.
    pub(super) fn finish(mut self, mut errors: Vec<Error>) -> Result<Config, Vec<Error>> {
        self.check_relations(&mut errors);
        self.finish_listeners(&mut errors);
        self.finish_http();
        let segment_bytes = &mut self.config.shard.log.segment_bytes;
        *segment_bytes = segment_bytes.next_multiple_of(BLOCK_SIZE);
        errors.sort_by(|a, b| a.place.cmp(&b.place));
        if errors.is_empty() { Ok(self.config) } else { Err(errors) }
    }

    fn apply_one(&mut self, setting: &Setting) -> Result<(), Problem> {
        let key = &setting.key;
        let Some((index, name)) = keys::find(key) else {
            let nearest = keys::nearest(key);
            return Err(match keys::replaced(key) {
                Some(instead) => Problem::Replaced { key: quotable(key), instead },
                None => Problem::UnknownKey { key: quotable(key), nearest },
            });
        };
        let known = &keys::all()[index];
        let is_valid = match (&known.form, name) {
            (Form::Listener, Some(name)) => self.set_listener(name, setting),
            (Form::NoListeners, _) => self.drop_listeners(setting),
            _ => known.slot(self).set(&known.form, &setting.value),
        };
        if !is_valid {
            self.origins[index] = Origin::Bad;
            let (key, value) = (quotable(key), quotable(&setting.value));
            return Err(Problem::BadValue { key, value, expected: known.allowed_text() });
        }
        if !matches!(self.origins[index], Origin::Bad) {
            self.origins[index] = Origin::Set(setting.place.clone());
        }
        Ok(())
    }

    fn set_listener(&mut self, name: &str, setting: &Setting) -> bool {
        let address = match setting.value.as_str() {
            "none" => None,
            text => match value::listener(text) {
                Some(address) => Some(address),
                None => return false,
            },
        };
        let place = setting.place.clone();
        match self.listeners.iter_mut().find(|listener| listener.name == name) {
            Some(listener) => (listener.address, listener.place) = (address, place),
            None => self.listeners.push(Listener { name: name.to_owned(), address, place }),
        }
        true
    }

    fn drop_listeners(&mut self, setting: &Setting) -> bool {
        if setting.value != "none" {
            return false;
        }
        // One that listens nowhere stands for the default.
        self.listeners = vec![Listener { name: String::new(), address: None, place: setting.place.clone() }];
        true
    }

    /// One listener where both keys name the same.
    fn finish_http(&mut self) {
        let prometheus = self.prometheus_port.map(|port| SocketAddr::new(self.prometheus_ip, port));
        let both = [(self.http, "quelea.http"), (prometheus, "prometheus.tcp.port and prometheus.tcp.ip")];
        for (address, key) in both {
            let Some(address) = address else { continue };
            let is_new = self.config.http.iter().all(|known| known.address != address || address.port() == 0);
            if is_new {
                self.config.http.push(HttpListener { address, key });
            }
        }
    }

    fn check_relations(&mut self, errors: &mut Vec<Error>) {
        for &(key, other) in RELATIONS {
            let (Some(value), Some(other_value)) = (self.number(key), self.number(other)) else { continue };
            if value <= other_value {
                continue;
            }
            let place = match (self.origin(key), self.origin(other)) {
                (Origin::Bad, _) | (_, Origin::Bad) => continue,
                (Origin::Set(place), _) | (_, Origin::Set(place)) => place,
                (Origin::Default, Origin::Default) => Place::Default,
            };
            errors.push(Error { place, problem: Problem::Larger { key, value, other, other_value } });
        }
    }

    fn finish_listeners(&mut self, errors: &mut Vec<Error>) {
        if matches!(self.origin("mqtt.listeners.tcp.<name>"), Origin::Bad) {
            return;
        }
        let Some(last) = self.listeners.last().map(|listener| listener.place.clone()) else {
            self.config.listeners = vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT))];
            return;
        };
        let mut taken: Vec<(&str, SocketAddr)> = Vec::new();
        for Listener { name, address, place } in &self.listeners {
            let Some(address) = *address else { continue };
            let same = taken.iter().find(|(_, earlier)| *earlier == address && address.port() != 0);
            if let Some((other, _)) = same {
                let problem =
                    Problem::SameAddress { name: name.clone(), other: (*other).to_owned(), address };
                errors.push(Error { place: place.clone(), problem });
            }
            taken.push((name, address));
        }
        if taken.is_empty() {
            errors.push(Error { place: last, problem: Problem::NoListener });
        }
        self.config.listeners = taken.into_iter().map(|(_, address)| address).collect();
    }

    /// The number a key of the table stands at; `None` if it is unbounded.
    fn number(&mut self, name: &str) -> Option<u64> {
        let (index, _) = keys::find(name).expect("relations are between keys of the table");
        match keys::all()[index].slot(self) {
            Slot::Number(number) => number.load(),
            _ => unreachable!("relations are between numbers"),
        }
    }

    fn origin(&self, name: &str) -> Origin {
        let (index, _) = keys::find(name).expect("only keys of the table are asked for");
        self.origins[index].clone()
    }
}
