//! What must hold on every connection of every vector, whatever the vector is about: the broker keeps to what the client
//! announced, begins with CONNACK, and ends with DISCONNECT.

use crate::canon::{self, Canon};
use crate::token::Token;
use quelea::base::Version;
use std::collections::{BTreeMap, BTreeSet};

/// One network connection, as its client sees it.
#[derive(Debug)]
pub(crate) struct Track {
    /// The version of its CONNECT.
    pub version: Version,
    packet_size_max: usize,
    topic_alias_maximum: u32,
    receive_maximum: usize,
    aliases: BTreeMap<u32, Vec<u8>>,
    /// Identifiers of deliveries that the client has not completed.
    in_flight: BTreeSet<u32>,
    connack: bool,
    over: bool,
}

/// A packet from the broker.
#[derive(Debug)]
pub(crate) struct Received {
    /// As it came.
    pub bytes: Vec<u8>,
    /// Taken apart.
    pub canon: Canon,
    /// The topic name, aliases resolved.
    pub topic: Option<Vec<u8>>,
}

impl Track {
    /// A connection that has sent nothing yet.
    pub(crate) fn new(version: Version) -> Self {
        Self {
            version,
            packet_size_max: usize::MAX,
            topic_alias_maximum: 0,
            receive_maximum: 65_535,
            aliases: BTreeMap::new(),
            in_flight: BTreeSet::new(),
            connack: false,
            over: false,
        }
    }

    /// The client sends a packet.
    pub(crate) fn sent(&mut self, tokens: &[Token], bytes: &[u8]) {
        let number = |key: &str| {
            let token = tokens.iter().find(|t| t.key.as_deref() == Some(key))?;
            crate::token::number(token.text().ok()?).ok()
        };
        match bytes {
            [0x10, ..] => {
                // 0 is a protocol error and promises nothing.
                let size_max = number("maximum-packet-size").filter(|n| *n > 0);
                self.packet_size_max = size_max.map_or(usize::MAX, |n| n as usize);
                self.topic_alias_maximum = number("topic-alias-maximum").unwrap_or(0);
                self.receive_maximum = number("receive-maximum").map_or(65_535, |n| n as usize);
            }
            [0x40 | 0x70, _, high, low, ..] => {
                self.in_flight.remove(&u32::from(u16::from_be_bytes([*high, *low])));
            }
            [0x50, _, high, low, code, ..] if *code >= 0x80 => {
                self.in_flight.remove(&u32::from(u16::from_be_bytes([*high, *low])));
            }
            _ => {}
        }
    }

    /// Whether the broker has answered CONNECT.
    pub(crate) fn is_connected(&self) -> bool {
        self.connack
    }

    /// The broker sent a whole packet.
    pub(crate) fn received(&mut self, bytes: &[u8]) -> Result<Received, String> {
        let canon = canon::disassemble(bytes, self.version)?;
        if self.over {
            return Err(format!("{canon} after the last packet"));
        }
        if bytes.len() > self.packet_size_max {
            return Err(format!("{canon} is larger than the client's Maximum Packet Size"));
        }
        let is_connack = canon.name == "CONNACK";
        if is_connack == self.connack && canon.name != "AUTH" {
            return Err(format!("{canon} as {} packet", if is_connack { "a later" } else { "the first" }));
        }
        self.connack |= is_connack;
        self.over = canon.name == "DISCONNECT" || (is_connack && canon.number("code") != Some(0));
        let mut topic = None;
        if canon.name == "PUBLISH" {
            topic = Some(self.resolve(&canon)?);
            self.deliver(&canon)?;
        }
        Ok(Received { bytes: bytes.to_vec(), canon, topic })
    }

    fn resolve(&mut self, canon: &Canon) -> Result<Vec<u8>, String> {
        let topic = canon.get("topic").unwrap_or_default().to_vec();
        let Some(alias) = canon.number("topic-alias") else {
            return if topic.is_empty() { Err(format!("{canon} names no topic")) } else { Ok(topic) };
        };
        if alias == 0 || alias > self.topic_alias_maximum {
            return Err(format!("{canon}: the client takes aliases up to {}", self.topic_alias_maximum));
        }
        if !topic.is_empty() {
            self.aliases.insert(alias, topic);
        }
        self.aliases.get(&alias).cloned().ok_or_else(|| format!("{canon}: an alias that means nothing"))
    }

    fn deliver(&mut self, canon: &Canon) -> Result<(), String> {
        let dup = canon.number("dup") == Some(1);
        let Some(id) = canon.number("id") else {
            return if dup { Err(format!("{canon}: QoS 0 with DUP")) } else { Ok(()) };
        };
        if id == 0 || !self.in_flight.insert(id) {
            return Err(format!("{canon}: the identifier is 0 or in use"));
        }
        if self.in_flight.len() > self.receive_maximum {
            return Err(format!("{canon}: the client's Receive Maximum is {}", self.receive_maximum));
        }
        Ok(())
    }
}
