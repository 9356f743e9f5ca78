//! What an operator can set about queues.

/// What happens to a message that finds a session's queue full.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Overflow {
    /// The oldest waiting message makes room.
    #[default]
    DropHead,
    /// The new message is refused; its publisher is told where the version has a way (0x97).
    RejectPublish,
}

/// Bounds of the queue types.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// `mqtt.mailbox_soft_limit`: QoS 0 messages that may wait for one connection; 0 leaves only the bound in bytes.
    pub qos0_messages_max: u32,
    /// `quelea.qos0.max_bytes`: QoS 0 bytes that may wait for one connection.
    ///
    /// A QoS 0 message is dropped when the socket is busy and either both bounds are exceeded, or four times this one is.
    pub qos0_bytes_max: u32,
    /// `quelea.session.queue_qos0`: whether QoS 0 messages are kept for a session whose client is away.
    pub queue_qos0_offline: bool,
    /// `quelea.session.queue.max_messages`: messages that may wait in one session's queue; `None` is unbounded.
    pub session_messages_max: Option<u32>,
    /// `quelea.session.queue.max_bytes`: bytes that may wait in one session's queue; `None` is unbounded.
    pub session_bytes_max: Option<u64>,
    /// `quelea.session.queue.overflow`: `drop-head` or `reject-publish`.
    pub overflow: Overflow,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            qos0_messages_max: 1000,
            qos0_bytes_max: 1 << 20,
            queue_qos0_offline: false,
            session_messages_max: None,
            session_bytes_max: None,
            overflow: Overflow::DropHead,
        }
    }
}
