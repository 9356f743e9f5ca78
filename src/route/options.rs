//! What an operator can set about routing.

/// How a shared subscription's home shard picks the member that gets a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Strategy {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The one with the fewest unacknowledged deliveries.
    LeastInFlight,
    /// The same one until it goes.
    Sticky,
    /// By hash of the publisher's client id.
    HashClientId,
    /// By hash of the topic name.
    HashTopic,
}

/// Bounds and choices of the routing layer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// `mqtt.retained_message_store.max_messages`: a virtual host; `None` is `infinity`.
    pub retained_messages_max: Option<u64>,
    /// `mqtt.retained_message_store.max_size_bytes`: topics, properties and payloads, a virtual host; `None` is `infinity`.
    pub retained_bytes_max: Option<u64>,
    /// `quelea.shared_subscription.strategy`.
    pub strategy: Strategy,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            retained_messages_max: Some(100_000),
            retained_bytes_max: Some(1 << 30),
            strategy: Strategy::RoundRobin,
        }
    }
}
