//! What a client asks for when it connects, and how it behaves.

use crate::base::{QoS, Version};
use crate::codec::{self, MessageProperties, UserProperties};
use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};

/// How a client connects. One value serves any number of clients: the client identifier is not in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// Protocol version.
    pub version: Version,
    /// Clean Start (Clean Session before MQTT 5) of [`connect`](super::Client::connect).
    pub clean_start: bool,
    /// MQTT 5: how long the server keeps the session without a connection, in seconds; `None` is 0.
    pub session_expiry: Option<u32>,
    /// Keep alive, in seconds; 0 is none.
    pub keep_alive_secs: u16,
    /// User name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Vec<u8>>,
    /// Will.
    pub will: Option<Will>,
    /// MQTT 5: QoS 1 and 2 messages taken unacknowledged; announced, and the server is held to it.
    pub receive_maximum: Option<NonZeroU16>,
    /// The largest packet taken, in bytes; MQTT 5 announces it. `None` is no limit.
    pub packet_size_max: Option<NonZeroU32>,
    /// MQTT 5: topic aliases taken from the server; announced, and the server is held to it.
    pub topic_alias_maximum: u16,
    /// MQTT 5: whether topics are published by alias as far as the server takes aliases.
    pub use_topic_aliases: bool,
    /// MQTT 5: Request Response Information.
    pub request_response_information: bool,
    /// MQTT 5: Request Problem Information.
    pub request_problem_information: bool,
    /// MQTT 5: Authentication Method and first Authentication Data.
    pub authentication: Option<(String, Vec<u8>)>,
    /// MQTT 5: User Properties of CONNECT, encoded by [`push_user_property`](codec::properties::push_user_property).
    pub user_properties: Vec<u8>,
    /// Whether received messages are acknowledged only by [`acknowledge`](super::Client::acknowledge).
    pub manual_ack: bool,
    /// QoS 1 and 2 publishes in flight at most; the server's Receive Maximum bounds them further.
    pub in_flight_max: NonZeroU16,
}

/// The will of [`Options`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Will {
    /// Topic name.
    pub topic: String,
    /// Application message.
    pub payload: Vec<u8>,
    /// QoS.
    pub qos: QoS,
    /// RETAIN flag.
    pub retain: bool,
    /// MQTT 5: Will Delay Interval, in seconds.
    pub delay: u32,
    /// MQTT 5: Message Expiry Interval, in seconds.
    pub expiry: Option<u32>,
    /// MQTT 5: properties that travel with the message, encoded as those of a publish.
    pub properties: Vec<u8>,
}

impl Options {
    /// A clean start with a keep alive of a minute, and nothing else.
    #[must_use]
    pub fn new(version: Version) -> Self {
        Self {
            version,
            clean_start: true,
            session_expiry: None,
            keep_alive_secs: 60,
            username: None,
            password: None,
            will: None,
            receive_maximum: None,
            packet_size_max: None,
            topic_alias_maximum: 0,
            use_topic_aliases: false,
            request_response_information: false,
            request_problem_information: true,
            authentication: None,
            user_properties: Vec::new(),
            manual_ack: false,
            in_flight_max: NonZeroU16::MAX,
        }
    }

    /// Whether the session outlives a connection that was made with this Clean Start.
    pub(super) fn keeps_session(&self, clean_start: bool) -> bool {
        match self.version {
            Version::V5 => self.session_expiry.unwrap_or(0) > 0,
            Version::V310 | Version::V311 => !clean_start,
        }
    }

    /// Appends the CONNECT.
    pub(super) fn encode_connect(&self, client_id: &str, clean_start: bool, out: &mut Vec<u8>) {
        let mut connect = codec::Connect::new(self.version, client_id, clean_start, self.keep_alive_secs);
        connect.will = self.will.as_ref().map(|will| codec::Will {
            qos: will.qos,
            retain: will.retain,
            topic: &will.topic,
            payload: &will.payload,
            delay: will.delay,
            expiry: will.expiry,
            properties: MessageProperties::from_encoded(&will.properties),
        });
        connect.username = self.username.as_deref();
        connect.password = self.password.as_deref();
        connect.session_expiry = self.session_expiry;
        connect.receive_maximum = self.receive_maximum;
        connect.packet_size_max = self.packet_size_max;
        connect.topic_alias_maximum = self.topic_alias_maximum;
        connect.request_response_information = self.request_response_information;
        connect.request_problem_information = self.request_problem_information;
        connect.authentication_method = self.authentication.as_ref().map(|(method, _)| &method[..]);
        connect.authentication_data = self.authentication.as_ref().map(|(_, data)| &data[..]);
        connect.user_properties = UserProperties::from_encoded(&self.user_properties);
        connect.encode(out);
    }
}

impl fmt::Debug for Options {
    /// Leaves password and authentication data out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("version", &self.version)
            .field("clean_start", &self.clean_start)
            .field("session_expiry", &self.session_expiry)
            .field("keep_alive_secs", &self.keep_alive_secs)
            .field("username", &self.username)
            .field("will", &self.will)
            .field("manual_ack", &self.manual_ack)
            .finish_non_exhaustive()
    }
}
