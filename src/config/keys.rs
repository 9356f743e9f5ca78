//! The one table of keys: name, form, bounds, meaning, field. Parsing, `--help`, the nearest-key hint and the check of
//! `tuning.md` read nothing else.
//!
//! Defaults are not in it: they are what the modules' own `Options::default()` say.

use super::draft::Draft;
use super::level::LogLevel;
use super::slot::{Named, Slot};
use crate::{log, queue, route};

/// One key an operator can set.
pub struct Key {
    /// As written in a file; `<name>` stands for a word of the operator's choice.
    pub name: &'static str,
    /// What its value looks like.
    pub form: Form,
    /// One sentence: what it does.
    pub meaning: &'static str,
    /// What the default is, in words, where it depends on the machine.
    derived_default: Option<&'static str>,
    slot: fn(&mut Draft) -> Slot<'_>,
}

/// What a value looks like.
pub enum Form {
    /// A decimal integer, of bytes with suffix.
    Number {
        /// The smallest allowed.
        min: u64,
        /// The largest allowed.
        max: u64,
        /// What is counted.
        unit: Unit,
        /// Whether `infinity` is allowed: no bound.
        infinity: bool,
    },
    /// `true` or `false`.
    Boolean,
    /// One of these names.
    Choice(fn() -> Vec<&'static str>),
    /// Any text that is not empty.
    Text {
        /// Its size in bytes.
        size_max: usize,
    },
    /// A path; a relative one starts at the working directory.
    Path,
    /// One value, until there are more.
    Only {
        /// Why.
        because: &'static str,
    },
    /// Where to listen.
    Listener,
    /// `none`: nowhere.
    NoListeners,
    /// One address to listen on, of this machine only unless an address is named; or `none`.
    Address,
    /// A port, or `none`.
    Port,
    /// An address of this machine.
    Ip,
}

/// What a number counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Things the key names.
    Count,
    /// Bytes; suffixes allowed.
    Bytes,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
}

impl Key {
    /// The default as text that sets it, or in words where it depends on the machine.
    #[must_use]
    pub fn default_text(&self) -> String {
        self.derived_default.map_or_else(|| self.slot(&mut Draft::of_defaults()).show(), str::to_owned)
    }

    /// Whether the default depends on the machine.
    #[must_use]
    pub fn is_derived(&self) -> bool {
        self.derived_default.is_some()
    }

    /// What is allowed, as the end of the sentence "is not …".
    #[must_use]
    pub fn allowed_text(&self) -> String {
        match self.form {
            Form::Number { min, max, unit, infinity } => {
                let what = match unit {
                    Unit::Count => "an integer",
                    Unit::Bytes => "a size in bytes",
                    Unit::Milliseconds => "milliseconds",
                    Unit::Seconds => "seconds",
                };
                let infinity = if infinity { " or infinity" } else { "" };
                format!("{what} from {min} to {max}{infinity}")
            }
            Form::Boolean => "true or false".to_owned(),
            Form::Choice(names) => format!("one of: {}", names().join(", ")),
            Form::Text { size_max } => format!("a text of 1 to {size_max} bytes"),
            Form::Path => "a path".to_owned(),
            Form::Only { because } => format!("{}: {because}", self.default_text()),
            Form::Listener | Form::Address => "port, ip:port, [ipv6]:port or none".to_owned(),
            Form::NoListeners => "none".to_owned(),
            Form::Port => "a port from 0 to 65535 or none".to_owned(),
            Form::Ip => "an IPv4 or IPv6 address".to_owned(),
        }
    }

    pub(super) fn slot<'a>(&self, draft: &'a mut Draft) -> Slot<'a> {
        (self.slot)(draft)
    }
}

/// All keys, in the order of help and `tuning.md`.
#[must_use]
pub fn all() -> &'static [Key] {
    KEYS
}

/// The key's place in the table and, of a family, the word that stands for `<name>`.
pub(super) fn find(key: &str) -> Option<(usize, Option<&str>)> {
    KEYS.iter().enumerate().find_map(|(index, known)| match known.name.strip_suffix("<name>") {
        Some(family) => {
            key.strip_prefix(family).filter(|name| !name.contains('.')).map(|name| (index, Some(name)))
        }
        None => (known.name == key).then_some((index, None)),
    })
}

/// What to write instead of a key that RabbitMQ itself has dropped.
pub(super) fn replaced(key: &str) -> Option<&'static str> {
    REPLACED.iter().find(|(old, _)| *old == key).map(|(_, new)| *new)
}

/// The known key that `key` was probably meant to be.
pub(super) fn nearest(key: &str) -> Option<&'static str> {
    /// Below this two keys have too little in common for a hint.
    const SIMILARITY_MIN: f64 = 0.7;
    /// The comparison costs the product of both lengths.
    const SIZE_MAX: usize = 128;
    if key.len() > SIZE_MAX {
        return None;
    }
    if let Some(known) =
        KEYS.iter().find(|known| known.name.strip_suffix(key).is_some_and(|rest| rest.ends_with('.')))
    {
        return Some(known.name);
    }
    let similarity = |known: &Key| match (known.name.strip_suffix("<name>"), key.rsplit_once('.')) {
        // The word of the operator's choice says nothing.
        (Some(family), Some((path, _))) => {
            strsim::normalized_damerau_levenshtein(family.trim_end_matches('.'), path)
        }
        _ => strsim::normalized_damerau_levenshtein(known.name, key),
    };
    let best = KEYS.iter().map(|known| (similarity(known), known.name)).max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(similarity, _)| *similarity >= SIMILARITY_MIN).map(|(_, name)| name)
}

/// Keys that RabbitMQ once had, and their successors here.
const REPLACED: &[(&str, &str)] = &[
    ("mqtt.default_pass", "default_pass"),
    ("mqtt.default_user", "default_user"),
    ("mqtt.subscription_ttl", "mqtt.max_session_expiry_interval_seconds"),
];

/// The largest packet MQTT can express: a fixed header of 5 bytes and 268,435,455 behind it.
const PACKET_SIZE_MAX: u64 = 268_435_460;
/// The smallest CONNECT, version 3.1.1 with an empty client identifier.
const CONNECT_SIZE_MIN: u64 = 14;
/// The largest seconds below 0xFFFFFFFF, which MQTT 5.0 reserves for "never"; that is written `infinity` here.
const EXPIRY_SECS_MAX: u64 = 0xFFFF_FFFE;

const fn number(min: u64, max: u64, unit: Unit) -> Form {
    Form::Number { min, max, unit, infinity: false }
}

const fn bound(min: u64, max: u64, unit: Unit) -> Form {
    Form::Number { min, max, unit, infinity: true }
}

const fn key(name: &'static str, form: Form, slot: fn(&mut Draft) -> Slot<'_>, meaning: &'static str) -> Key {
    Key { name, form, meaning, derived_default: None, slot }
}

const fn derived(
    name: &'static str,
    form: Form,
    slot: fn(&mut Draft) -> Slot<'_>,
    default: &'static str,
    meaning: &'static str,
) -> Key {
    Key { name, form, meaning, derived_default: Some(default), slot }
}

const KEYS: &[Key] = &[
    key(
        "mqtt.listeners.tcp.<name>",
        Form::Listener,
        |_| Slot::Listener,
        "Where plain MQTT is listened for. A bare port means all IPv4 interfaces, port 0 picks a free one; any such key replaces the default.",
    ),
    derived(
        "mqtt.listeners.tcp",
        Form::NoListeners,
        |_| Slot::Listener,
        "not set",
        "Takes back every mqtt.listeners.tcp.<name> set before it, and the default; those set after it count.",
    ),
    key(
        "quelea.http",
        Form::Address,
        |draft| Slot::Address(&mut draft.http),
        "Where health, metrics and status are served over HTTP. A bare port means 127.0.0.1, port 0 picks a free one.",
    ),
    key(
        "prometheus.tcp.port",
        Form::Port,
        |draft| Slot::Port(&mut draft.prometheus_port),
        "The same under RabbitMQ's key: the port for Prometheus. RabbitMQ's plugin has 15692.",
    ),
    key(
        "prometheus.tcp.ip",
        Form::Ip,
        |draft| Slot::Ip(&mut draft.prometheus_ip),
        "The address that goes with prometheus.tcp.port; without that it does nothing.",
    ),
    derived(
        "quelea.shards",
        number(1, 64, Unit::Count),
        |draft| Slot::Number(&mut draft.config.shards),
        "the number of cores, at most 64",
        "Shards: threads that each own a part of the sessions.",
    ),
    key(
        "quelea.data_dir",
        Form::Path,
        |draft| Slot::Path(&mut draft.config.data_dir),
        "Where the process keeps what outlives it; created if it does not exist.",
    ),
    derived(
        "quelea.memory.max_bytes",
        bound(64 << 20, 1 << 50, Unit::Bytes),
        |draft| Slot::Number(&mut draft.config.shard.process.memory_max_bytes),
        "60 % of the machine's memory",
        "Messages, queues and buffers of the whole process; above it publishers are paused or read slowly, new clients and subscriptions are refused.",
    ),
    key(
        "quelea.log.sync",
        Form::Choice(log::SyncMode::names),
        |draft| Slot::Choice(&mut draft.config.shard.log.sync),
        "When what is acknowledged is on disk: before (commit), within an interval, or when the system writes it (none).",
    ),
    key(
        "quelea.log.sync_interval",
        number(1, 3_600_000, Unit::Milliseconds),
        |draft| Slot::Number(&mut draft.config.shard.log_sync_interval_ms),
        "Time between two syncs where quelea.log.sync is interval: what a power cut may take.",
    ),
    key(
        "quelea.log.segment_size",
        number(1 << 20, 1 << 30, Unit::Bytes),
        |draft| Slot::Number(&mut draft.config.shard.log.segment_bytes),
        "Bytes of a new file of the durable log, rounded up to 4 KiB.",
    ),
    key(
        "disk_free_limit.absolute",
        number(0, 1 << 60, Unit::Bytes),
        |draft| Slot::Number(&mut draft.config.free_bytes_min),
        "Free bytes on the disk of quelea.data_dir below which durable messages are refused; 0 is no limit.",
    ),
    key(
        "mqtt.max_connections",
        bound(1, u32::MAX as u64, Unit::Count),
        |draft| Slot::Number(&mut draft.config.shard.process.connections_max),
        "Connections of the whole process; one more is refused.",
    ),
    key(
        "mqtt.vhost",
        Form::Only { because: "the only virtual host there is so far" },
        |_| Slot::Fixed("/"),
        "The virtual host of clients that name none.",
    ),
    key(
        "mqtt.allow_anonymous",
        Form::Boolean,
        |draft| Slot::Boolean(&mut draft.config.shard.auth.allow_anonymous),
        "Whether a client without user name may connect; only from this machine.",
    ),
    key(
        "default_user",
        Form::Text { size_max: 65_535 },
        |draft| Slot::Text(&mut draft.config.shard.auth.default_user),
        "The name of the one user there is; only from this machine.",
    ),
    key(
        "default_pass",
        Form::Text { size_max: 65_535 },
        |draft| Slot::Text(&mut draft.config.shard.auth.default_pass),
        "That user's password.",
    ),
    key(
        "mqtt.login_timeout",
        number(1, 86_400_000, Unit::Milliseconds),
        |draft| Slot::Number(&mut draft.config.shard.session.login_timeout_ms),
        "From accept to a complete CONNECT; then the connection is closed.",
    ),
    key(
        "mqtt.max_packet_size_unauthenticated",
        number(CONNECT_SIZE_MIN, PACKET_SIZE_MAX, Unit::Bytes),
        |draft| Slot::Number(&mut draft.config.shard.session.packet_size_max_unauthenticated),
        "The largest packet before CONNECT is accepted.",
    ),
    key(
        "mqtt.max_packet_size_authenticated",
        number(CONNECT_SIZE_MIN, PACKET_SIZE_MAX, Unit::Bytes),
        |draft| Slot::Number(&mut draft.config.shard.session.packet_size_max),
        "The largest packet after that; announced in CONNACK.",
    ),
    key(
        "mqtt.max_session_expiry_interval_seconds",
        bound(0, EXPIRY_SECS_MAX, Unit::Seconds),
        |draft| Slot::Number(&mut draft.config.shard.session.session_expiry_max_secs),
        "The longest a session outlives its connection; 0 ends every session with its connection.",
    ),
    key(
        "quelea.mqtt.keep_alive_max",
        number(0, 65_535, Unit::Seconds),
        |draft| Slot::Number(&mut draft.config.shard.session.keep_alive_max_secs),
        "A client that asks for a longer keep alive, or for none, gets this one; 0 is no bound.",
    ),
    key(
        "quelea.mqtt.client_id_size_max",
        number(23, 65_535, Unit::Bytes),
        |draft| Slot::Number(&mut draft.config.shard.session.client_id_size_max),
        "The longest client identifier.",
    ),
    key(
        "quelea.mqtt.subscriptions_max",
        number(1, u32::MAX as u64, Unit::Count),
        |draft| Slot::Number(&mut draft.config.shard.session.subscriptions_max),
        "Subscriptions a session.",
    ),
    key(
        "mqtt.prefetch",
        number(1, 65_535, Unit::Count),
        |draft| Slot::Number(&mut draft.config.shard.session.prefetch),
        "QoS 1 and 2 deliveries in flight a session; the client's Receive Maximum bounds it further.",
    ),
    key(
        "quelea.mqtt.receive_maximum",
        number(1, 65_535, Unit::Count),
        |draft| Slot::Number(&mut draft.config.shard.session.receive_maximum),
        "QoS 1 and 2 publishes in flight from a client; announced, and enforced with 0x93.",
    ),
    key(
        "mqtt.topic_alias_maximum",
        number(0, 65_535, Unit::Count),
        |draft| Slot::Number(&mut draft.config.shard.session.topic_alias_maximum),
        "Topic aliases a connection, each way; 0 turns them off.",
    ),
    key(
        "mqtt.mailbox_soft_limit",
        number(0, u32::MAX as u64, Unit::Count),
        |draft| Slot::Number(&mut draft.config.shard.queue.qos0_messages_max),
        "QoS 0 messages that may wait for one connection whose socket is busy; 0 leaves only the bound in bytes.",
    ),
    key(
        "quelea.qos0.max_bytes",
        // Its fourfold is the hard bound, and has to fit 32 bits.
        number(1024, 1 << 29, Unit::Bytes),
        |draft| Slot::Number(&mut draft.config.shard.queue.qos0_bytes_max),
        "QoS 0 bytes that may wait for one connection; dropped when both bounds are exceeded, or four times this one.",
    ),
    key(
        "quelea.session.queue_qos0",
        Form::Boolean,
        |draft| Slot::Boolean(&mut draft.config.shard.queue.queue_qos0_offline),
        "Whether QoS 0 messages are kept for a session whose client is away.",
    ),
    key(
        "quelea.session.queue.max_messages",
        bound(1, u32::MAX as u64, Unit::Count),
        |draft| Slot::Number(&mut draft.config.shard.queue.session_messages_max),
        "Messages that may wait in one session's queue.",
    ),
    key(
        "quelea.session.queue.max_bytes",
        bound(1024, 1 << 50, Unit::Bytes),
        |draft| Slot::Number(&mut draft.config.shard.queue.session_bytes_max),
        "Bytes that may wait in one session's queue.",
    ),
    key(
        "quelea.session.queue.overflow",
        Form::Choice(queue::Overflow::names),
        |draft| Slot::Choice(&mut draft.config.shard.queue.overflow),
        "What happens when such a queue is full: the oldest message makes room, or the new one is refused.",
    ),
    key(
        "mqtt.retained_message_store.max_messages",
        bound(0, u32::MAX as u64, Unit::Count),
        |draft| Slot::Number(&mut draft.config.shard.route.retained_messages_max),
        "Retained messages a virtual host.",
    ),
    key(
        "mqtt.retained_message_store.max_size_bytes",
        bound(0, 1 << 50, Unit::Bytes),
        |draft| Slot::Number(&mut draft.config.shard.route.retained_bytes_max),
        "Topics, properties and payloads of the retained messages a virtual host.",
    ),
    key(
        "quelea.shared_subscription.strategy",
        Form::Choice(route::Strategy::names),
        |draft| Slot::Choice(&mut draft.config.shard.route.strategy),
        "Which member of a shared subscription gets a message.",
    ),
    key(
        "quelea.mailbox.capacity",
        number(2, 65_536, Unit::Count),
        |draft| Slot::Number(&mut draft.config.shard.process.mailbox_capacity),
        "Batches that may wait between two shards before the sender keeps them in an overflow list.",
    ),
    key(
        "log.console.level",
        Form::Choice(LogLevel::names),
        |draft| Slot::Choice(&mut draft.config.log_level),
        "The least important thing that is written to standard error.",
    ),
];
