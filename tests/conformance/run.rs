//! Carries cases out, and says where the broker and a vector disagree.

use crate::canon::{self, Expected};
use crate::packet;
use crate::token;
use crate::track::{Received, Track};
use crate::vector::{self, Action, Case, Step};
use crate::world::{SocketId, World};
use quelea::base::Version;
use quelea::queue::Overflow;
use quelea::shard::Options;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

/// How cases are run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode {
    /// How many shards.
    pub shards: u16,
    /// Whether clients' bytes arrive one at a time.
    pub bytewise: bool,
}

/// Runs every case in every version it names, and fails with all disagreements at once.
///
/// `CONFORMANCE=text` runs only cases whose `file:name` contains it.
pub(crate) fn all(mode: Mode) {
    let only = std::env::var("CONFORMANCE").unwrap_or_default();
    let mut failures = String::new();
    let mut count = 0;
    for case in vector::all().expect("vectors are well-formed") {
        if !format!("{}:{}", case.file, case.name).contains(&only) {
            continue;
        }
        for (version, _) in &case.covers {
            count += 1;
            if let Err(why) = run(&case, *version, mode) {
                writeln!(failures, "{}:{} ({version:?}, {mode:?}): {why}", case.file, case.name)
                    .expect("writing to a string");
            }
        }
    }
    assert!(count > 0, "no case is named like `{only}`");
    assert!(failures.is_empty(), "\n{failures}");
}

/// Whether every packet of every case can be read, in every version the case runs in.
pub(crate) fn check_lines() {
    let mut mistakes = Vec::new();
    for case in vector::all().expect("vectors are well-formed") {
        for (version, ids) in &case.covers {
            if *version == Version::V310 && !ids.is_empty() {
                mistakes.push(format!("{}:{}: MQTT 3.1 has no numbered statements", case.file, case.name));
            }
            let mut versions = BTreeMap::new();
            for step in &case.steps {
                if let Err(why) = check_step(&step.action, *version, &mut versions) {
                    mistakes.push(format!("{}:{}: {why} in {:?}", case.file, step.line, step.action));
                }
            }
        }
    }
    assert!(mistakes.is_empty(), "\n{}\n", mistakes.join("\n"));
}

fn check_step<'a>(
    action: &'a Action,
    default: Version,
    versions: &mut BTreeMap<&'a str, Version>,
) -> Result<(), String> {
    match action {
        Action::Send(name, packets) => {
            for packet in packets {
                let tokens = token::split(packet)?;
                if let Some(version) = connect_version(&tokens, default)? {
                    versions.entry(name).and_modify(|v| *v = version).or_insert(version);
                }
                packet::from_tokens(&tokens, versions.get(name.as_str()).copied().unwrap_or(default))?;
            }
            Ok(())
        }
        Action::Receive { from, packet, .. } => {
            for name in from {
                Expected::parse(packet, versions.get(name.as_str()).copied().unwrap_or(default))?;
            }
            Ok(())
        }
        Action::Open(..)
        | Action::Quiet(_)
        | Action::Closed(_)
        | Action::Drop(_)
        | Action::Stall(_)
        | Action::Read(_)
        | Action::Advance(_)
        | Action::Shutdown => Ok(()),
    }
}

/// The version a CONNECT is of; `None` if the packet is another.
fn connect_version(tokens: &[token::Token], default: Version) -> Result<Option<Version>, String> {
    if tokens.first().is_none_or(|t| t.key.is_some() || t.value != b"CONNECT") {
        return Ok(None);
    }
    let Some(word) = tokens.iter().find(|t| t.key.as_deref() == Some("version")) else {
        return Ok(Some(default));
    };
    vector::version(word.text()?).map(Some).ok_or_else(|| "no such version".into())
}

fn run(case: &Case, version: Version, mode: Mode) -> Result<(), String> {
    let mut options = Options::default();
    for (key, value) in &case.options {
        set(&mut options, key, value)?;
    }
    let world = World::new(mode.shards, &options);
    let mut play = Play { world, version, mode, clients: BTreeMap::new() };
    let mut loose: Vec<&Step> = Vec::new();
    for step in &case.steps {
        if matches!(step.action, Action::Receive { any_order: true, .. }) {
            loose.push(step);
            continue;
        }
        play.receive_loose(&mut loose)?;
        play.step(step).map_err(|why| format!("line {}: {why}", step.line))?;
    }
    play.receive_loose(&mut loose)?;
    play.end()
}

/// A case under way.
struct Play {
    world: World,
    version: Version,
    mode: Mode,
    clients: BTreeMap<String, Client>,
}

struct Client {
    socket: SocketId,
    track: Track,
    inbox: VecDeque<Received>,
    /// The vector knows that the connection is over.
    over: bool,
}

impl Play {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        match &step.action {
            Action::Open(name, address) => self.open(name, address.as_deref()),
            Action::Send(name, packets) => self.send(name, packets),
            Action::Receive { from, packet, .. } => self.receive(from, packet),
            Action::Quiet(name) => self.quiet(name),
            Action::Closed(name) => self.closed(name),
            Action::Drop(name) => {
                self.quiet(name)?;
                let client = self.client(name)?;
                client.over = true;
                let socket = client.socket;
                self.world.drop_socket(socket);
                if self.world.is_open(socket) {
                    Err("the broker keeps a lost connection".into())
                } else {
                    Ok(())
                }
            }
            Action::Stall(name) => {
                let socket = self.client(name)?.socket;
                self.world.stall(socket);
                Ok(())
            }
            Action::Read(name) => {
                let socket = self.client(name)?.socket;
                self.world.unstall(socket);
                Ok(())
            }
            Action::Advance(by) => {
                self.world.advance(*by);
                Ok(())
            }
            Action::Shutdown => {
                self.world.shut_down();
                Ok(())
            }
        }
    }

    fn client(&mut self, name: &str) -> Result<&mut Client, String> {
        self.clients.get_mut(name).ok_or_else(|| format!("{name} is not connected"))
    }

    fn open(&mut self, name: &str, address: Option<&str>) -> Result<(), String> {
        if self.clients.get(name).is_some_and(|c| !c.over) {
            return Err(format!("{name} is connected already"));
        }
        let ip: IpAddr = address.unwrap_or("127.0.0.1").parse().map_err(|_| "no address")?;
        let socket = self.world.open(SocketAddr::new(ip, 40_000));
        let track = Track::new(self.version);
        self.clients.insert(name.into(), Client { socket, track, inbox: VecDeque::new(), over: false });
        Ok(())
    }

    fn send(&mut self, name: &str, packets: &[String]) -> Result<(), String> {
        if self.clients.get(name).is_none_or(|c| c.over) {
            self.open(name, None)?;
        }
        let version = self.version;
        let client = self.client(name)?;
        let mut bytes = Vec::new();
        for packet in packets {
            let tokens = token::split(packet)?;
            if let Some(version) = connect_version(&tokens, version)?
                && !client.track.is_connected()
            {
                client.track.version = version;
            }
            let packet = packet::from_tokens(&tokens, client.track.version)?;
            client.track.sent(&tokens, &packet);
            bytes.extend_from_slice(&packet);
        }
        let socket = client.socket;
        if self.mode.bytewise {
            for byte in bytes.chunks(1) {
                self.world.send(socket, byte);
            }
        } else {
            self.world.send(socket, &bytes);
        }
        Ok(())
    }

    /// Moves what has arrived to the inboxes, packet by packet.
    fn collect(&mut self) -> Result<(), String> {
        for (name, client) in &mut self.clients {
            let bytes = self.world.received(client.socket);
            while let Some(size) = canon::frame(bytes).map_err(|why| format!("{name} got {why}"))? {
                let packet: Vec<u8> = bytes.drain(..size).collect();
                let received = client.track.received(&packet);
                client.inbox.push_back(received.map_err(|why| format!("{name} got {why}"))?);
            }
        }
        Ok(())
    }

    fn receive(&mut self, from: &[String], packet: &str) -> Result<(), String> {
        self.collect()?;
        for name in from {
            let client = self.client(name)?;
            let expected = Expected::parse(packet, client.track.version)?;
            if client.inbox.front().is_some_and(|r| expected.matches(&r.bytes, &r.canon, r.topic.as_deref()))
            {
                client.inbox.pop_front();
                return Ok(());
            }
        }
        let mut got = String::new();
        for name in from {
            let client = self.client(name)?;
            let next = client.inbox.front().map_or_else(|| "nothing".into(), |r| r.canon.to_string());
            let socket = client.socket;
            let end = if self.world.is_open(socket) { "" } else { " (closed)" };
            write!(got, "\n    {name} got {next}{end}").expect("writing to a string");
        }
        Err(format!("expected {packet}{got}"))
    }

    /// Consecutive `<~` steps: each takes the first of the waiting packets that fits.
    fn receive_loose(&mut self, steps: &mut Vec<&Step>) -> Result<(), String> {
        self.collect()?;
        for step in steps.drain(..) {
            let Action::Receive { from, packet, .. } = &step.action else { continue };
            let mut found = false;
            for name in from {
                let client = self.client(name).map_err(|why| format!("line {}: {why}", step.line))?;
                let expected = Expected::parse(packet, client.track.version)?;
                let fits = |r: &Received| expected.matches(&r.bytes, &r.canon, r.topic.as_deref());
                if let Some(index) = client.inbox.iter().position(fits) {
                    client.inbox.remove(index);
                    found = true;
                    break;
                }
            }
            if !found {
                let waiting: Vec<_> = from
                    .iter()
                    .flat_map(|n| &self.clients[n].inbox)
                    .map(|r| format!("\n    got {}", r.canon))
                    .collect();
                return Err(format!("line {}: expected {packet}{}", step.line, waiting.concat()));
            }
        }
        Ok(())
    }

    fn nothing_waits(&mut self, name: &str) -> Result<(), String> {
        self.collect()?;
        let client = self.client(name)?;
        if let Some(received) = client.inbox.front() {
            return Err(format!("{name} got {}", received.canon));
        }
        let socket = client.socket;
        let rest = self.world.received(socket);
        if rest.is_empty() { Ok(()) } else { Err(format!("{name} got half a packet: {rest:?}")) }
    }

    fn quiet(&mut self, name: &str) -> Result<(), String> {
        self.nothing_waits(name)?;
        let socket = self.client(name)?.socket;
        if self.world.is_open(socket) { Ok(()) } else { Err(format!("{name} was closed")) }
    }

    fn closed(&mut self, name: &str) -> Result<(), String> {
        self.nothing_waits(name)?;
        let client = self.client(name)?;
        client.over = true;
        let socket = client.socket;
        if self.world.is_open(socket) { Err(format!("{name} is still open")) } else { Ok(()) }
    }

    /// Nothing may be left over, and no connection may have ended without the vector knowing.
    fn end(&mut self) -> Result<(), String> {
        let names: Vec<String> = self.clients.keys().cloned().collect();
        for name in names {
            let over = self.client(&name)?.over;
            let rest = if over { self.nothing_waits(&name) } else { self.quiet(&name) };
            rest.map_err(|why| format!("at the end: {why}"))?;
        }
        let (open, counted) = self.world.connection_counts();
        if open == counted { Ok(()) } else { Err(format!("{open} sockets are open, {counted} counted")) }
    }
}

/// Sets an option by its configuration key.
fn set(options: &mut Options, key: &str, value: &str) -> Result<(), String> {
    let number = || token::number(value);
    let short = || number().and_then(|n| u16::try_from(n).map_err(|e| e.to_string()));
    match key {
        "mqtt.prefetch" => options.session.prefetch = short()?,
        "mqtt.topic_alias_maximum" => options.session.topic_alias_maximum = short()?,
        "mqtt.max_packet_size_unauthenticated" => options.session.packet_size_max_unauthenticated = number()?,
        "mqtt.max_packet_size_authenticated" => options.session.packet_size_max = number()?,
        "mqtt.login_timeout" => options.session.login_timeout_ms = number()?.into(),
        "mqtt.max_session_expiry_interval_seconds" => {
            options.session.session_expiry_max_secs =
                if value == "infinity" { None } else { Some(number()?) };
        }
        "quelea.mqtt.receive_maximum" => options.session.receive_maximum = short()?,
        "quelea.mqtt.keep_alive_max" => options.session.keep_alive_max_secs = short()?,
        "quelea.mqtt.client_id_size_max" => options.session.client_id_size_max = number()? as usize,
        "quelea.mqtt.subscriptions_max" => options.session.subscriptions_max = number()?,
        "mqtt.mailbox_soft_limit" => options.queue.qos0_messages_max = number()?,
        "quelea.qos0.max_bytes" => options.queue.qos0_bytes_max = number()?,
        "quelea.session.queue_qos0" => options.queue.queue_qos0_offline = value == "true",
        "quelea.session.queue.max_messages" => options.queue.session_messages_max = Some(number()?),
        "quelea.session.queue.overflow" if value == "reject-publish" => {
            options.queue.overflow = Overflow::RejectPublish;
        }
        "mqtt.retained_message_store.max_messages" => {
            options.route.retained_messages_max = Some(number()?.into())
        }
        "mqtt.allow_anonymous" => options.auth.allow_anonymous = value == "true",
        _ => return Err(format!("the runner knows no option `{key} {value}`")),
    }
    Ok(())
}
