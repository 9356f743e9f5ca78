//! What a shard counts. Read by queries; the names it is shown under are `admin`'s.
//!
//! Plain numbers in the shard's own memory: counting is one addition, reading is a copy when somebody asks.

use super::cause::{CAUSES, Cause};
use crate::base::{QoS, Version};

/// Messages that went one way, and the bytes of their PUBLISH packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flow {
    /// PUBLISH packets.
    pub messages: u64,
    /// Their size, fixed headers included.
    pub bytes: u64,
}

/// Flows by protocol version and QoS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic([[Flow; 3]; 3]);

impl Traffic {
    /// Counts one PUBLISH of so many bytes.
    pub(super) fn count(&mut self, version: Version, qos: QoS, bytes: usize) {
        self.count_all(version, qos, 1, bytes);
    }

    /// Counts so many PUBLISH packets of so many bytes together.
    pub(super) fn count_all(&mut self, version: Version, qos: QoS, messages: usize, bytes: usize) {
        let flow = &mut self.0[version.index()][usize::from(qos.bits())];
        flow.messages += messages as u64;
        flow.bytes += bytes as u64;
    }

    /// What went in this version with this QoS.
    #[must_use]
    pub fn of(&self, version: Version, qos: QoS) -> Flow {
        self.0[version.index()][usize::from(qos.bits())]
    }

    /// Adds what another shard counted.
    pub fn add(&mut self, other: &Self) {
        for (flow, other) in self.0.iter_mut().flatten().zip(other.0.iter().flatten()) {
            flow.messages += other.messages;
            flow.bytes += other.bytes;
        }
    }
}

/// How connections ended, by cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends([u64; CAUSES]);

impl Default for Ends {
    fn default() -> Self {
        Self([0; CAUSES])
    }
}

impl Ends {
    pub(super) fn count(&mut self, cause: Cause) {
        self.0[cause as usize] += 1;
    }

    /// How many ended for this cause.
    #[must_use]
    pub fn of(&self, cause: Cause) -> u64 {
        self.0[cause as usize]
    }

    /// How many ended.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds what another shard counted.
    pub fn add(&mut self, other: &Self) {
        add_each(&mut self.0, &other.0);
    }
}

/// Adds table to table.
pub(super) fn add_each(to: &mut [u64], from: &[u64]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters since the start.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Counters {
            /// PUBLISH received.
            pub received: Traffic,
            /// PUBLISH put on the way to a client for the first time.
            pub delivered: Traffic,
            /// PUBLISH sent again after a client came back, by version.
            pub redelivered: [u64; 3],
            /// QoS 1 and 2 publishes answered with PUBACK or PUBREC, by version.
            pub confirmed: [u64; 3],
            /// QoS 1 and 2 deliveries the client has settled, by version.
            pub settled: [u64; 3],
            /// Connections that ended before their CONNECT was accepted.
            pub refused_connections: Ends,
            /// Connections that ended after that.
            pub closed_connections: Ends,
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Adds what another shard counted.
            pub fn add(&mut self, other: &Self) {
                self.received.add(&other.received);
                self.delivered.add(&other.delivered);
                add_each(&mut self.redelivered, &other.redelivered);
                add_each(&mut self.confirmed, &other.confirmed);
                add_each(&mut self.settled, &other.settled);
                self.refused_connections.add(&other.refused_connections);
                self.closed_connections.add(&other.closed_connections);
                $(self.$name += other.$name;)*
            }
        }
    };
}

counters! {
    /// Bytes received from clients.
    bytes_in,
    /// Bytes handed to the network for clients.
    bytes_out,
    /// Packets received from clients, whole ones.
    packets_in,
    /// Publishes that nobody subscribed to.
    unroutable,
    /// QoS 0 messages dropped because the client's socket was busy and its backlog over the bound.
    dropped_qos0,
    /// Messages dropped from the head of a full session queue.
    dropped_head,
    /// Messages a full session queue refused.
    refused,
    /// Messages that expired before they were delivered.
    expired,
    /// Messages larger than the client's Maximum Packet Size.
    dropped_too_large,
    /// Messages a client refused with a negative PUBACK or PUBREC.
    refused_by_client,
    /// QoS 0 messages for a session whose client was away.
    dropped_offline,
    /// QoS 0 publishes dropped because the process was short of memory.
    dropped_overload,
    /// QoS 1 and 2 publishes refused because the process was short of memory.
    refused_overload,
    /// Retained messages that found the store full.
    not_retained,
    /// Messages appended to the log, however many sessions hold each.
    log_messages,
    /// Records the log did not take.
    log_refused,
    /// Places in the log that could not be read any more.
    log_damaged,
    /// Messages of sessions lost to damage of the log.
    log_lost,
    /// Connections accepted by the socket.
    accepted,
    /// Connections another shard handed over.
    handed_over,
    /// CONNECT accepted.
    connected,
    /// Connections ended by a violation.
    violations,
    /// Sessions that expired.
    sessions_expired,
    /// Wills published.
    wills,
}
