//! Bytes to packets, packets to handlers.
//!
//! A packet that arrives in one piece is decoded where it lies. The beginning of one that does not is copied, and grows as its
//! bytes arrive (never by what its length field promises), up to the size limit, which is checked on the fixed header.

use super::Shard;
use super::cause::Cause;
use super::connection::{PAUSED_OUT, PAUSED_OVERLOAD, Phase};
use super::limit::Limit;
use super::run::Behind;
use crate::base::{ReasonCode, Version};
use crate::codec::{self, Disconnect, Frame, Packet, PacketType, RawPacket, Sender};
use crate::session::{Violation, expiry_on_disconnect};

/// The longest fixed header: type, and a length of four bytes.
const FIXED_HEADER_SIZE_MAX: usize = 5;

/// The first byte of CONNECT.
const CONNECT_BYTE: u8 = 0x10;

/// Whether to go on with the bytes behind a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// The connection goes on.
    Continue,
    /// It was closed or handed over.
    Stop,
}

impl Shard {
    /// Reads whatever has arrived on a connection.
    pub(super) fn read(&mut self, slot: u32, mut bytes: &[u8]) {
        if let Some(partial) = self.links.take_partial(slot) {
            match self.complete(slot, *partial, bytes) {
                Some(rest) => bytes = rest,
                None => return,
            }
        }
        // So many bytes are no run.
        let mut single = 0usize;
        while !bytes.is_empty() {
            let size_max = self.packet_size_max(slot);
            match codec::frame(bytes, size_max) {
                Ok(Frame::Complete(raw)) => {
                    let (size, fixed_size) = (raw.size, raw.size - raw.body.len());
                    if self.packet(slot, raw, bytes) == Flow::Stop {
                        return;
                    }
                    let (first, rest) = bytes.split_at(size);
                    bytes = rest;
                    single = single.saturating_sub(size);
                    if single == 0 {
                        match self.read_run(slot, first, fixed_size, rest) {
                            Behind::Done(size) => bytes = &rest[size..],
                            Behind::Single(size) => single = size,
                        }
                    }
                }
                Ok(Frame::Incomplete { .. }) => return self.keep_partial(slot, bytes.to_vec()),
                Err(malformed) => return self.violate(slot, malformed.into()),
            }
        }
    }

    /// Goes on with a packet whose beginning came before. Gives the bytes behind it, or `None` if there is nothing to go on with.
    fn complete<'a>(&mut self, slot: u32, mut partial: Vec<u8>, mut bytes: &'a [u8]) -> Option<&'a [u8]> {
        loop {
            match codec::frame(&partial, self.packet_size_max(slot)) {
                Ok(Frame::Complete(raw)) => {
                    let size = raw.size;
                    debug_assert_eq!(size, partial.len(), "no more is copied than one packet has");
                    let flow = if self.is_connecting(slot) {
                        // CONNECT may move to another shard, with everything behind it.
                        partial.extend_from_slice(bytes);
                        let Ok(Frame::Complete(raw)) = codec::frame(&partial, u32::MAX) else { return None };
                        self.packet(slot, raw, &partial)
                    } else {
                        self.packet(slot, raw, &partial)
                    };
                    return (flow == Flow::Continue).then_some(bytes);
                }
                Ok(Frame::Incomplete { size }) => {
                    let wanted = size.unwrap_or_else(|| (partial.len() + 1).min(FIXED_HEADER_SIZE_MAX));
                    let (now, later) = bytes.split_at((wanted - partial.len()).min(bytes.len()));
                    partial.extend_from_slice(now);
                    bytes = later;
                    if partial.len() < wanted {
                        self.keep_partial(slot, partial);
                        return None;
                    }
                }
                Err(malformed) => {
                    self.violate(slot, malformed.into());
                    return None;
                }
            }
        }
    }

    /// Keeps the beginning of a packet until more arrives, as long as all that are kept are within their bound. A stranger's that
    /// is no beginning of CONNECT is not waited for: another protocol's client would wait as well. [MQTT-3.1.0-1]
    fn keep_partial(&mut self, slot: u32, partial: Vec<u8>) {
        if self.is_connecting(slot) && partial.first() != Some(&CONNECT_BYTE) {
            return self.violate(slot, Violation::NotConnected);
        }
        self.links.keep_partial(slot, Box::new(partial));
        if self.links.partial_bytes as u64 > self.partial_bytes_max() {
            self.met(Limit::Partial);
            self.violate(slot, Violation::ServerFull);
        }
    }

    /// This shard's share of a quarter of the memory bound, and room for one packet in any case: clients that begin large
    /// packets and never end them must not bring the process to its bound, from where only their going would free it.
    pub(super) fn partial_bytes_max(&self) -> u64 {
        let share = self.options.process.memory_max_bytes.map(|max| max / 4 / u64::from(self.shards));
        // Twice: a packet in the making is at most half full.
        share.map_or(u64::MAX, |share| share.max(2 * u64::from(self.options.session.packet_size_max)))
    }

    fn packet_size_max(&self, slot: u32) -> u32 {
        if self.is_connecting(slot) {
            self.options.session.packet_size_max_unauthenticated
        } else {
            self.options.session.packet_size_max
        }
    }

    fn is_connecting(&self, slot: u32) -> bool {
        self.links.at(slot).is_some_and(|connection| matches!(connection.phase, Phase::Connecting(_)))
    }

    /// One whole packet; `unread` are the bytes from its first one on.
    fn packet(&mut self, slot: u32, raw: RawPacket<'_>, unread: &[u8]) -> Flow {
        self.counters.packets_in += 1;
        let Some(connection) = self.links.at_mut(slot) else { return Flow::Stop };
        // Whole packets, not bytes. [MQTT-3.1.2-22]
        connection.last_packet_at = self.now.mono;
        let (version, session) = match connection.phase {
            Phase::Closing => return Flow::Stop,
            Phase::Connecting(_) => return self.first_packet(slot, raw, unread),
            Phase::Established { session } => (connection.version, session),
        };
        if connection.slow {
            if self.holds(slot, raw, &unread[..raw.size], version) {
                return Flow::Continue;
            }
            // What was kept may have closed it.
            if !self.links.at(slot).is_some_and(|c| matches!(c.phase, Phase::Established { .. })) {
                return Flow::Stop;
            }
        }
        let result = if raw.packet_type() == PacketType::Publish {
            self.on_publish(slot, session, raw, &unread[..raw.size], version)
        } else {
            self.on_packet(slot, session, raw, version)
        };
        match result {
            Ok(Flow::Continue) => {
                self.pause_if_flooded(slot);
                Flow::Continue
            }
            Ok(Flow::Stop) => Flow::Stop,
            Err(violation) => {
                self.violate(slot, violation);
                Flow::Stop
            }
        }
    }

    fn first_packet(&mut self, slot: u32, raw: RawPacket<'_>, unread: &[u8]) -> Flow {
        // [MQTT-3.1.0-1]
        if raw.packet_type() != PacketType::Connect {
            self.violate(slot, Violation::NotConnected);
            return Flow::Stop;
        }
        match codec::decode(raw, Version::V5, Sender::Client) {
            Ok(Packet::Connect(connect)) => self.on_connect(slot, &connect, unread),
            Ok(_) => unreachable!("decoded as its type"),
            Err(malformed) => {
                // A CONNECT that cannot be decoded is still answered in its own version, where that can be seen.
                if let Some(version) = codec::answer_version(&raw)
                    && let Some(connection) = self.links.at_mut(slot)
                {
                    connection.version = version;
                }
                self.violate(slot, malformed.into());
                Flow::Stop
            }
        }
    }

    fn on_packet(
        &mut self,
        slot: u32,
        session: u32,
        raw: RawPacket<'_>,
        version: Version,
    ) -> Result<Flow, Violation> {
        if raw.packet_type() == PacketType::Connect {
            // Whatever else is wrong with it: DISCONNECT could not say so. [MQTT-3.1.0-2]
            return Err(Violation::ConnectedTwice);
        }
        match codec::decode(raw, version, Sender::Client)? {
            Packet::PubAck(ack) => self.on_puback(session, &ack)?,
            Packet::PubRec(ack) => self.on_pubrec(slot, session, &ack)?,
            Packet::PubRel(ack) => self.on_pubrel(slot, session, &ack),
            Packet::PubComp(ack) => self.on_pubcomp(session, &ack)?,
            Packet::Subscribe(subscribe) => self.on_subscribe(slot, session, &subscribe)?,
            Packet::Unsubscribe(unsubscribe) => self.on_unsubscribe(slot, session, &unsubscribe),
            Packet::PingReq => {
                // [MQTT-3.12.4-1]
                codec::encode_pingresp(self.links.out(slot).bytes_mut());
            }
            Packet::Disconnect(disconnect) => return self.on_disconnect(slot, session, &disconnect),
            // No authentication method was agreed on. [MQTT-4.12.0-6]
            Packet::Auth(_) => return Err(Violation::UnexpectedAuth),
            Packet::Publish(_) | Packet::Connect(_) => unreachable!("have their own way"),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                return Err(Violation::ServerPacket);
            }
        }
        Ok(Flow::Continue)
    }

    fn on_disconnect(
        &mut self,
        slot: u32,
        session: u32,
        disconnect: &Disconnect<'_>,
    ) -> Result<Flow, Violation> {
        let entry = self.sessions.at_mut(session).expect("the connection's session exists");
        let expiry =
            expiry_on_disconnect(entry.expiry_secs, disconnect.session_expiry, &self.options.session)?;
        self.set_expiry(session, expiry);
        let is_normal = disconnect.reason == ReasonCode::Success;
        let cause = if is_normal { Cause::Disconnect } else { Cause::DisconnectWithWill };
        self.detach(slot, session, cause, None);
        // What came before it is still answered, CONNACK above all. [MQTT-3.1.4-5]
        self.close_after_sending(slot);
        Ok(Flow::Stop)
    }

    /// A client that does not read its answers, or publishes while others are behind, is not read from for a while.
    pub(super) fn pause_if_flooded(&mut self, slot: u32) {
        let Some(connection) = self.links.at(slot) else { return };
        let Phase::Established { session } = connection.phase else { return };
        let backlog = super::connection::Links::backlog(connection).bytes;
        if backlog >= self.options.budgets.out_bytes_pause && connection.paused & PAUSED_OUT == 0 {
            self.links.pause(slot, PAUSED_OUT);
        }
        let overloaded = self.pressure
            || (self.shards > 1 && self.mesh.backlog() > self.options.budgets.backlog_batches_max)
            || self.is_ahead(session);
        let disk_behind = self.is_disk_behind();
        if disk_behind {
            self.met(Limit::DiskBehind);
        }
        if overloaded || disk_behind {
            self.pause_publisher(slot);
        }
    }

    pub(super) fn pause_publisher(&mut self, slot: u32) {
        let Some(connection) = self.links.at(slot) else { return };
        if connection.publishes && connection.paused & PAUSED_OVERLOAD == 0 {
            self.paused.extend(self.links.id_at(slot));
            self.links.pause(slot, PAUSED_OVERLOAD);
            self.look_later();
        }
    }

    /// Reads again from everybody who was paused for overload and is not ahead of others; those who still flood are paused again by
    /// their next packet.
    pub(super) fn resume_publishers(&mut self) {
        if self.pressure {
            return;
        }
        let mut paused = std::mem::take(&mut self.paused);
        paused.retain(|id| {
            let Some(connection) = self.links.get(*id) else { return false };
            if let Phase::Established { session } = connection.phase
                && self.is_ahead(session)
            {
                return true;
            }
            // Slow ones first have what was kept of them handled.
            if !connection.slow {
                self.read_again(id.slot);
            }
            false
        });
        self.paused = paused;
    }
}
