//! Reading slowly: what becomes of connections that publish while the process is over its memory watermark.
//!
//! They are paused whole, and their keep alive is suspended. But a client with deliveries in flight has to be heard, or what it
//! was sent is never settled, and memory not freed. Such a connection is read a little now and then:
//!
//! | packet | what becomes of it |
//! |---|---|
//! | acknowledgements, PINGREQ | as always |
//! | PUBLISH with QoS 0 | dropped, and counted |
//! | PUBLISH with QoS 1 or 2, v5 | answered 0x97 |
//! | the same, v3 | kept until memory is back: the version cannot say no. Past [`HELD_BYTES_MAX`] the connection is paused whole again |
//! | SUBSCRIBE, UNSUBSCRIBE behind something kept | kept behind it, so that they stay in order |
//! | DISCONNECT behind something kept | first what is kept is handled |
//!
//! Invariants: a connection that is listed here has `slow` set, and the other way round; what is kept is whole packets, all of them older
//! than the beginning of a packet that may be there; nothing behind kept packets is handled before them but acknowledgements and pings.
//! Cost: a look at each paused connection ten times a second, as long as memory is short; nothing otherwise.

use super::Shard;
use super::connection::{PAUSED_OVERLOAD, Phase};
use super::limit::Limit;
use crate::base::{Mono, Version};
use crate::codec::{self, PacketType, RawPacket, Sender};

/// Between two looks at paused connections.
const LOOK_EVERY_MS: u64 = 100;
/// What is kept for a client of version 3: 64 KiB, and the packet that goes over it.
pub(super) const HELD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of kept packets handled in one go once there is memory again.
const RELEASE_STEP_BYTES: usize = 1 << 20;

/// A connection that is read slowly.
#[derive(Debug, Default)]
pub(super) struct Slow {
    /// Packets that wait for memory.
    pub(super) held: Vec<u8>,
    /// They reached the bound: everything behind them waits too.
    is_full: bool,
}

impl Slow {
    /// Memory held, in bytes.
    pub(super) fn memory(&self) -> usize {
        self.held.capacity()
    }
}

impl Shard {
    /// The process went over its memory watermark, or is below it again.
    pub(super) fn set_pressure(&mut self, over: bool) {
        if self.pressure == over {
            return;
        }
        self.pressure = over;
        if over {
            // Whose packets were not handled yet since the last time.
            let links = &self.links;
            let paused = |slot: &u32| links.at(*slot).is_some_and(|c| c.paused & PAUSED_OVERLOAD != 0);
            let ids = links.slow.keys().copied().filter(paused).filter_map(|slot| links.id_at(slot));
            self.paused.extend(ids);
            self.look_later();
            return;
        }
        let empty = self.links.slow.iter().filter(|(_, slow)| slow.held.is_empty());
        for slot in empty.map(|(slot, _)| *slot).collect::<Vec<_>>() {
            self.end_slow(slot);
        }
        self.resume_publishers();
    }

    /// When [`step_slow`](Self::step_slow) has something to do.
    pub(super) fn slow_deadline(&self) -> Option<Mono> {
        if self.pressure {
            return (self.look_at != Mono::NEVER).then_some(self.look_at);
        }
        (!self.links.slow.is_empty()).then_some(self.now.mono)
    }

    /// Over the watermark: lets paused connections with deliveries in flight be read for a moment, if it is time. Below it: handles
    /// some of what was kept.
    pub(super) fn step_slow(&mut self) {
        if self.pressure {
            if self.look_at <= self.now.mono {
                self.look_at = Mono::NEVER;
                self.look_at_paused();
            }
            return;
        }
        if self.links.slow.is_empty() {
            return;
        }
        let mut budget = RELEASE_STEP_BYTES;
        while budget > 0
            && let Some((slot, slow)) = self.links.slow.first_key_value()
        {
            budget = budget.saturating_sub(slow.held.len().max(1));
            let slot = *slot;
            self.release_held(slot);
            self.read_again(slot);
        }
        if self.links.slow.is_empty() {
            self.resume_publishers();
        }
    }

    /// A connection was paused while memory is short.
    pub(super) fn look_later(&mut self) {
        if !self.paused.is_empty() {
            self.look_at = self.look_at.min(self.now.mono.plus_ms(LOOK_EVERY_MS));
        }
    }

    fn look_at_paused(&mut self) {
        let mut paused = std::mem::take(&mut self.paused);
        paused.retain(|id| {
            let Some(connection) = self.links.get(*id) else { return false };
            if connection.paused & PAUSED_OVERLOAD == 0 {
                return false;
            }
            let is_full = self.links.slow.get(&id.slot).is_some_and(|slow| slow.is_full);
            if is_full || !self.has_deliveries_in_flight(id.slot) {
                return true;
            }
            self.links.begin_slow(id.slot);
            self.read_again(id.slot);
            false
        });
        self.paused = paused;
        self.look_later();
    }

    fn has_deliveries_in_flight(&self, slot: u32) -> bool {
        let Some(Phase::Established { session }) = self.links.at(slot).map(|c| &c.phase) else {
            return false;
        };
        let outgoing = self.sessions.at(*session).and_then(|entry| entry.outgoing.as_ref());
        outgoing.is_some_and(|outgoing| outgoing.window.in_flight() > 0)
    }

    /// Whether a packet of a slow connection has to wait; then it is kept. `whole` are its bytes.
    pub(super) fn holds(&mut self, slot: u32, raw: RawPacket<'_>, whole: &[u8], version: Version) -> bool {
        let Some(slow) = self.links.slow.get(&slot).filter(|_| !version.is_v5()) else { return false };
        let waits = match raw.packet_type() {
            _ if slow.is_full => true,
            // What cannot be decoded does not wait to be found out.
            PacketType::Publish => {
                let is_dropped = self.pressure && raw.first_byte & QOS_BITS == 0;
                !is_dropped && codec::decode(raw, version, Sender::Client).is_ok()
            }
            PacketType::Disconnect => {
                self.release_held(slot);
                false
            }
            PacketType::Subscribe | PacketType::Unsubscribe => !slow.held.is_empty(),
            PacketType::PubAck
            | PacketType::PubRec
            | PacketType::PubRel
            | PacketType::PubComp
            | PacketType::PingReq
            // What a client may not send there and then does not wait either.
            | PacketType::Connect
            | PacketType::ConnAck
            | PacketType::SubAck
            | PacketType::UnsubAck
            | PacketType::PingResp
            | PacketType::Auth => false,
        };
        if waits {
            // Counted when it is handled.
            self.counters.packets_in -= 1;
            self.hold(slot, whole);
        }
        waits
    }

    fn hold(&mut self, slot: u32, whole: &[u8]) {
        let size = self.links.hold(slot, whole);
        if size >= HELD_BYTES_MAX || self.links.held_bytes as u64 > self.partial_bytes_max() {
            if let Some(slow) = self.links.slow.get_mut(&slot) {
                slow.is_full = true;
            }
            self.met(Limit::MemoryForPublish);
            self.pause_publisher(slot);
        } else {
            self.pause_if_flooded(slot);
        }
    }

    /// Handles what was kept of a connection, which is read as always from here.
    fn release_held(&mut self, slot: u32) {
        let Some(held) = self.links.end_slow(slot) else { return };
        let partial = self.links.take_partial(slot);
        self.read(slot, &held);
        if let Some(partial) = partial {
            self.links.keep_partial(slot, partial);
        }
    }

    fn end_slow(&mut self, slot: u32) {
        drop(self.links.end_slow(slot));
        self.read_again(slot);
    }

    /// Reads again from a connection that was paused for overload. Its keep alive counts from now: what it sent in the meantime
    /// could not be seen.
    pub(super) fn read_again(&mut self, slot: u32) {
        if let Some(connection) = self.links.at_mut(slot) {
            connection.last_packet_at = self.now.mono;
        }
        self.links.resume(slot, PAUSED_OVERLOAD);
    }
}

/// Where the first byte of a PUBLISH has its QoS.
const QOS_BITS: u8 = 0b0110;
