//! What every client under test can do, whoever wrote it.

use std::net::SocketAddr;

/// How a client connects.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connect<'a> {
    /// The client identifier.
    pub(crate) id: &'a str,
    /// Whether the session outlives the connection: clean session off, or an expiry of some minutes.
    pub(crate) is_persistent: bool,
    /// Published for it if it goes without DISCONNECT.
    pub(crate) will: Option<Message>,
}

impl<'a> Connect<'a> {
    /// A session that ends with its connection.
    pub(crate) fn clean(id: &'a str) -> Self {
        Self { id, ..Self::default() }
    }

    /// A session that does not.
    pub(crate) fn persistent(id: &'a str) -> Self {
        Self { id, is_persistent: true, ..Self::default() }
    }
}

/// Seconds a persistent session of version 5.0 outlives its connection: longer than any test.
pub(crate) const EXPIRY_SECS: u32 = 600;

/// A message as published or as received.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) payload: Vec<u8>,
}

impl Message {
    /// A message that is not to be retained.
    pub(crate) fn new(topic: &str, qos: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self { topic: topic.to_owned(), qos, retain: false, payload: payload.into() }
    }

    /// The same, retained.
    pub(crate) fn retained(self) -> Self {
        Self { retain: true, ..self }
    }
}

/// Where the broker listens, and a client library in one of its protocol versions.
pub(crate) trait Family {
    /// Connects, and waits for CONNACK.
    fn connect(&self, broker: SocketAddr, connect: &Connect<'_>) -> Box<dyn Client>;
    /// The protocol level it speaks: 3 (MQTT 3.1), 4 (3.1.1) or 5 (5.0).
    fn level(&self) -> u8;
    /// What the library shows of a DISCONNECT with this reason code and nothing else.
    fn shown_reason(&self, reason: u8) -> Option<u8> {
        (self.level() == 5).then_some(reason)
    }
}

/// A connected client. Everything waits for the broker's answer, and panics when it is late.
pub(crate) trait Client {
    /// Whether CONNACK said that a session was there.
    fn session_present(&self) -> bool;
    /// Subscribes; the granted QoS.
    fn subscribe(&mut self, filter: &str, qos: u8) -> u8;
    /// Unsubscribes.
    fn unsubscribe(&mut self, filter: &str);
    /// Publishes; returns when the broker has acknowledged, at QoS 0 when it is sent.
    fn publish(&mut self, message: &Message);
    /// The next message that arrives.
    fn receive(&mut self) -> Message;
    /// Leaves with DISCONNECT.
    fn disconnect(self: Box<Self>);
    /// Goes without.
    fn kill(self: Box<Self>);
    /// Waits until the broker has closed the connection; the reason code of its DISCONNECT, if it sent one.
    fn wait_closed(self: Box<Self>) -> Option<u8>;
}
