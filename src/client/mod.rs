//! A small MQTT client machine: load generator, simulation, tests.
//!
//! Pure: bytes in, bytes and events out, time as an argument. It speaks all versions and all of QoS 0, 1 and 2 in both
//! directions, keeps what a session keeps over reconnects, and holds the server to the rules: a server that breaks one is an
//! [`Error`]. It is not a library for applications: nothing is queued while there is no connection, and nothing reconnects by
//! itself.
//!
//! ```text
//!                connect            CONNACK 0x00
//! disconnected ----------> connecting ----------> connected
//!      ^                       |                      |
//!      +-----------------------+----------------------+
//!        handle_disconnected, disconnect, an error, CONNACK with an error, DISCONNECT from the server
//! ```
//!
//! Contract: `now` never goes back. After any call the driver takes what is in [`out_mut`](Client::out_mut) (or
//! [`take_out`](Client::take_out)) and sends it. When the connection is gone, for whatever reason, it says so with
//! [`handle_disconnected`](Client::handle_disconnected); the next [`connect`](Client::connect) begins a new one.
//!
//! Cost: an idle client is one struct (under 300 bytes, tested) and its client identifier; buffers exist while they hold
//! something. A received QoS 0 message given to a visitor, or a sent one, allocates nothing in steady state.

mod alias;
mod error;
mod event;
mod ids;
mod options;
mod receive;
mod send;
#[cfg(test)]
mod tests;
mod window;

pub use error::{Error, Refusal, Violation};
pub use event::{Event, Incoming, Message, OwnedMessage};
pub use options::{Options, Will};
pub use send::Publication;

use crate::base::{Mono, Now, PacketId, QoS, ReasonCode, Version};
use crate::codec::{self, ConnAck};
use alias::{IncomingAliases, OutgoingAliases};
use ids::PacketIds;
use std::collections::VecDeque;
use std::sync::Arc;
use window::Window;

/// The largest packet there can be: a remaining length of 268,435,455 and its fixed header.
const PACKET_SIZE_MAX: u32 = 268_435_460;

/// One MQTT client.
#[derive(Debug)]
pub struct Client {
    options: Arc<Options>,
    client_id: Box<str>,
    /// Bytes to be sent.
    out: Vec<u8>,
    /// The beginning of a packet.
    partial: Vec<u8>,
    /// What [`poll_event`](Self::poll_event) gives.
    events: VecDeque<Event>,

    // The session: outlives the connection.
    window: Window,
    /// QoS 2 messages given to the application and not released yet, sorted.
    received: Vec<PacketId>,
    packet_ids: PacketIds,

    // The connection.
    /// SUBSCRIBE and UNSUBSCRIBE that wait for their answer.
    requests: Vec<Request>,
    incoming_aliases: IncomingAliases,
    outgoing_aliases: OutgoingAliases,
    server: Server,
    last_sent: Mono,
    /// When PINGRESP is due; [`Mono::NEVER`] if none is.
    pong_deadline: Mono,
    /// QoS 1 and 2 messages received on this connection and not acknowledged to the end.
    unacknowledged: u16,
    state: State,
    /// Clean Start of this connection.
    clean_start: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Disconnected,
    Connecting,
    Connected,
}

/// A request that waits for its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Request {
    packet_id: PacketId,
    /// SUBSCRIBE, not UNSUBSCRIBE.
    is_subscribe: bool,
    filter_count: u32,
}

/// What the server takes and offers, from its CONNACK.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Server {
    /// The largest packet, in bytes.
    pub packet_size_max: u32,
    /// QoS 1 and 2 publishes in flight.
    pub receive_maximum: u16,
    /// Topic aliases.
    pub topic_alias_maximum: u16,
    /// The keep alive in force, in seconds; 0 is none.
    pub keep_alive_secs: u16,
    /// The highest QoS.
    pub maximum_qos: QoS,
    /// Whether it keeps retained messages.
    pub retain_available: bool,
    /// Whether the session outlives the connection.
    pub keeps_session: bool,
}

impl Server {
    fn new(connack: &ConnAck<'_>, options: &Options, clean_start: bool) -> Self {
        let expiry_override = connack.session_expiry.map(|secs| secs > 0);
        Self {
            packet_size_max: connack
                .packet_size_max
                .map_or(PACKET_SIZE_MAX, |size| size.get().min(PACKET_SIZE_MAX)),
            receive_maximum: connack.receive_maximum.map_or(u16::MAX, std::num::NonZeroU16::get),
            topic_alias_maximum: connack.topic_alias_maximum.unwrap_or(0),
            // [MQTT-3.1.2-21] [MQTT-3.2.2-21]
            keep_alive_secs: connack.server_keep_alive.unwrap_or(options.keep_alive_secs),
            maximum_qos: connack.maximum_qos.unwrap_or(QoS::ExactlyOnce),
            retain_available: connack.retain_available.unwrap_or(true),
            keeps_session: expiry_override.unwrap_or_else(|| options.keeps_session(clean_start)),
        }
    }
}

impl Client {
    /// A client that is not connected. Clients of one kind share their options.
    #[must_use]
    pub fn new(options: impl Into<Arc<Options>>, client_id: &str) -> Self {
        let options = options.into();
        let server = Server::new(&ConnAck::new(false, ReasonCode::Success), &options, options.clean_start);
        Self {
            client_id: client_id.into(),
            out: Vec::new(),
            partial: Vec::new(),
            events: VecDeque::new(),
            window: Window::default(),
            received: Vec::new(),
            packet_ids: PacketIds::new(),
            requests: Vec::new(),
            incoming_aliases: IncomingAliases::default(),
            outgoing_aliases: OutgoingAliases::default(),
            server,
            last_sent: Mono::default(),
            pong_deadline: Mono::NEVER,
            unacknowledged: 0,
            state: State::Disconnected,
            clean_start: options.clean_start,
            options,
        }
    }

    /// Begins a connection with the Clean Start of the options: sends CONNECT.
    ///
    /// # Panics
    /// If there is a connection already.
    pub fn connect(&mut self, now: Now) {
        self.connect_with(now, self.options.clean_start);
    }

    /// Begins a connection: sends CONNECT.
    ///
    /// # Panics
    /// If there is a connection already.
    pub fn connect_with(&mut self, now: Now, clean_start: bool) {
        assert!(self.state == State::Disconnected, "one connection at a time");
        self.handle_disconnected();
        self.out.clear();
        if clean_start {
            // [MQTT-3.1.2-4]
            self.discard_session();
        }
        self.clean_start = clean_start;
        self.state = State::Connecting;
        self.options.encode_connect(&self.client_id, clean_start, &mut self.out);
        self.last_sent = now.mono;
    }

    /// The connection is gone. What belongs to the session is kept if the session is. Does no harm when repeated.
    pub fn handle_disconnected(&mut self) {
        self.state = State::Disconnected;
        self.partial = Vec::new();
        self.requests = Vec::new();
        self.incoming_aliases.clear();
        self.outgoing_aliases.clear();
        self.unacknowledged = 0;
        self.pong_deadline = Mono::NEVER;
        self.window.rewind();
        if !self.server.keeps_session {
            self.discard_session();
        }
    }

    fn discard_session(&mut self) {
        self.window.clear();
        self.received = Vec::new();
    }

    /// Time passed; call at [`next_deadline`](Self::next_deadline) or later. Sends PINGREQ when it is due.
    ///
    /// # Errors
    /// [`Error::KeepAliveTimeout`] if the last PINGREQ was not answered within the keep alive; the connection is over.
    pub fn handle_timeout(&mut self, now: Now) -> Result<(), Error> {
        if self.state != State::Connected {
            return Ok(());
        }
        if now.mono >= self.pong_deadline {
            return Err(self.fail(Error::KeepAliveTimeout));
        }
        if self.ping_deadline().is_some_and(|deadline| now.mono >= deadline) {
            // [MQTT-3.1.2-20]
            self.send_ping(now);
        }
        Ok(())
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due; `None` if nothing waits for time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        if self.state != State::Connected {
            return None;
        }
        let pong = Some(self.pong_deadline).filter(|&deadline| deadline != Mono::NEVER);
        pong.into_iter().chain(self.ping_deadline()).min()
    }

    fn ping_deadline(&self) -> Option<Mono> {
        let secs = self.server.keep_alive_secs;
        (secs > 0).then(|| self.last_sent.plus_secs(u32::from(secs)))
    }

    /// Sends PINGREQ now.
    ///
    /// # Errors
    /// [`Refusal::NotConnected`].
    pub fn ping(&mut self, now: Now) -> Result<(), Refusal> {
        self.check_connected()?;
        self.send_ping(now);
        Ok(())
    }

    fn send_ping(&mut self, now: Now) {
        codec::encode_pingreq(&mut self.out);
        self.last_sent = now.mono;
        if self.pong_deadline == Mono::NEVER && self.server.keep_alive_secs > 0 {
            self.pong_deadline = now.mono.plus_secs(u32::from(self.server.keep_alive_secs));
        }
    }

    fn check_connected(&self) -> Result<(), Refusal> {
        if self.state == State::Connected { Ok(()) } else { Err(Refusal::NotConnected) }
    }

    /// Ends the connection because of `error`: MQTT 5 says why.
    fn fail(&mut self, error: Error) -> Error {
        if self.options.version.is_v5() && self.state != State::Disconnected {
            codec::Disconnect::new(error.reason()).encode(Version::V5, &mut self.out);
        }
        self.state = State::Disconnected;
        error
    }

    /// Bytes to be sent; the driver clears what it has sent.
    pub fn out_mut(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Takes the bytes to be sent, with their memory.
    pub fn take_out(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// The next thing that happened in [`handle_bytes`](Self::handle_bytes).
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if event.is_none() && self.events.capacity() > 0 {
            self.events = VecDeque::new();
        }
        event
    }

    /// Whether CONNACK came and the connection is not over.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// Whether CONNECT was sent and the connection is not over.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.state != State::Disconnected
    }

    /// What the server takes and offers; of the last connection if there is none now.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The client identifier, the assigned one once there is one.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Publishes in flight, in order: of the session, so also while there is no connection.
    pub fn in_flight(&self) -> impl Iterator<Item = PacketId> {
        self.window.ids()
    }

    /// How it connects and behaves.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }
}
