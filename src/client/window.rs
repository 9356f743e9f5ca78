//! Outgoing QoS 1 and 2 publishes in flight: part of the session, so they outlive the connection.
//!
//! Entries stand in the order of publishing. Acknowledgements mostly come in that order too, so looking one up is one step; out
//! of order it is linear. A publish whose session ends with the connection is not kept: its entry holds no bytes.

use crate::base::{PacketId, ReasonCode, Version};
use crate::codec::{self, AckKind};
use std::collections::VecDeque;

#[derive(Debug)]
struct Entry {
    packet_id: PacketId,
    /// PUBACK, PUBREC or PUBCOMP.
    awaited: AckKind,
    /// Whether it was sent (or PUBREL was) on this connection.
    sent: bool,
    /// The PUBLISH, without alias; empty if it will never be sent again.
    packet: Box<[u8]>,
}

/// What is in flight.
#[derive(Default, Debug)]
pub(super) struct Window {
    entries: VecDeque<Entry>,
    /// How many entries are sent on this connection; all others stand behind them, or are fewer than the server takes.
    sent_count: usize,
}

impl Window {
    /// Publishes in flight, in order.
    pub(super) fn ids(&self) -> impl Iterator<Item = PacketId> {
        self.entries.iter().map(|entry| entry.packet_id)
    }

    /// Whether a new publish may be sent: fewer than `maximum` are, and none waits from before.
    pub(super) fn has_room(&self, maximum: u16) -> bool {
        // [MQTT-3.3.4-7]
        self.sent_count == self.entries.len() && self.sent_count < usize::from(maximum)
    }

    /// A publish was sent.
    pub(super) fn push(&mut self, packet_id: PacketId, awaited: AckKind, packet: Box<[u8]>) {
        debug_assert!(self.find(packet_id).is_none(), "packet ids in flight are distinct");
        self.entries.push_back(Entry { packet_id, awaited, sent: true, packet });
        self.sent_count += 1;
    }

    fn find(&self, packet_id: PacketId) -> Option<usize> {
        self.entries.iter().position(|entry| entry.packet_id == packet_id)
    }

    /// The acknowledgement that `packet_id` waits for, if it is in flight and was sent on this connection.
    pub(super) fn awaited(&self, packet_id: PacketId) -> Option<AckKind> {
        let entry = &self.entries[self.find(packet_id)?];
        entry.sent.then_some(entry.awaited)
    }

    /// PUBREC came: PUBCOMP is next, and the message will not be sent again.
    pub(super) fn received(&mut self, packet_id: PacketId) {
        if let Some(index) = self.find(packet_id) {
            let entry = &mut self.entries[index];
            entry.awaited = AckKind::PubComp;
            entry.packet = Box::default();
        }
    }

    /// The publish is done.
    pub(super) fn remove(&mut self, packet_id: PacketId) {
        if let Some(entry) = self.find(packet_id).and_then(|index| self.entries.remove(index)) {
            self.sent_count -= usize::from(entry.sent);
        }
        if self.entries.is_empty() && self.entries.capacity() > 64 {
            self.entries = VecDeque::new();
        }
    }

    /// A new connection: nothing is sent on it yet.
    pub(super) fn rewind(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.sent = false);
        self.sent_count = 0;
    }

    /// The session is gone.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Sends again what was in flight on an earlier connection, in order, as far as `maximum` allows; PUBREL always.
    pub(super) fn resend(&mut self, maximum: u16, version: Version, out: &mut Vec<u8>) {
        if self.sent_count == self.entries.len() {
            return;
        }
        // [MQTT-4.4.0-1] [MQTT-4.6.0-1]
        for entry in self.entries.iter_mut().filter(|entry| !entry.sent) {
            if entry.awaited == AckKind::PubComp {
                let success = ReasonCode::Success;
                codec::encode_ack(AckKind::PubRel, entry.packet_id, success, None, version, out);
            } else if self.sent_count < usize::from(maximum) {
                let start = out.len();
                out.extend_from_slice(&entry.packet);
                // [MQTT-3.3.1-1]
                out[start] |= 0x08;
            } else {
                continue;
            }
            entry.sent = true;
            self.sent_count += 1;
        }
    }
}
