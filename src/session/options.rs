//! What an operator can set about sessions.

/// Limits and defaults of every session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// `mqtt.max_packet_size_unauthenticated`: the largest packet before CONNECT is accepted, in bytes.
    pub packet_size_max_unauthenticated: u32,
    /// `mqtt.max_packet_size_authenticated`: the largest packet after that, in bytes; announced in CONNACK.
    pub packet_size_max: u32,
    /// `mqtt.login_timeout`: from accept to a complete CONNECT, in milliseconds.
    pub login_timeout_ms: u64,
    /// `mqtt.max_session_expiry_interval_seconds`: `None` is `infinity`, 0 forces sessions to end with their connection.
    pub session_expiry_max_secs: Option<u32>,
    /// `mqtt.prefetch`: deliveries in flight a session; the client's Receive Maximum bounds it further.
    pub prefetch: u16,
    /// `quelea.mqtt.receive_maximum`: QoS 1 and 2 publishes in flight from a client; announced, and enforced with 0x93.
    pub receive_maximum: u16,
    /// `mqtt.topic_alias_maximum`: aliases a connection, each way; 0 turns them off.
    pub topic_alias_maximum: u16,
    /// `quelea.mqtt.keep_alive_max`: a client that asks for more (or for none) is told this one, in seconds; 0 is no bound.
    pub keep_alive_max_secs: u16,
    /// `quelea.mqtt.client_id_size_max`: the longest client identifier, in bytes.
    pub client_id_size_max: usize,
    /// `quelea.mqtt.subscriptions_max`: subscriptions a session.
    pub subscriptions_max: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            packet_size_max_unauthenticated: 65_536,
            packet_size_max: 16_777_216,
            login_timeout_ms: 10_000,
            session_expiry_max_secs: Some(86_400),
            prefetch: 8192,
            receive_maximum: 256,
            topic_alias_maximum: 16,
            keep_alive_max_secs: 0,
            client_id_size_max: 65_535,
            subscriptions_max: 65_536,
        }
    }
}
