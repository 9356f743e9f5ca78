//! The queue view: a session shown as the 0, 1 or 2 queues RabbitMQ would have for it.
//!
//! There is no queue object behind a row: a `qos0` queue is the connection's out-buffer, a `session` queue is a part of the
//! session. Cost: one pass over the sessions.

use crate::base::VhostId;
use crate::shard::Shard;
use crate::shard::view::SessionView;

/// How a queue keeps its messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueType {
    /// The connection's out-buffer; nothing is kept.
    Qos0,
    /// Window and queue of the session.
    Session,
}

/// One queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueView {
    /// `mqtt-subscription-<client id>qos0` or `…qos1`.
    pub name: String,
    /// Virtual host.
    pub vhost: VhostId,
    /// How messages are kept.
    pub queue_type: QueueType,
    /// Whether it outlives the client's connection.
    pub durable: bool,
    /// Messages that wait.
    pub messages_ready: u64,
    /// Messages delivered and not settled.
    pub messages_unacknowledged: u64,
    /// Bytes of the messages that wait, where the broker counts them for this queue alone.
    pub message_bytes_ready: u64,
}

/// The queues of one shard, in no particular order.
pub fn queues(shard: &Shard) -> impl Iterator<Item = QueueView> {
    shard.session_views().flat_map(|session| queues_of(&session).into_iter().flatten())
}

/// A session's queues: one for its QoS 0 subscriptions, one for those with QoS 1 and 2, if it has such.
#[must_use]
pub fn queues_of(session: &SessionView) -> [Option<QueueView>; 2] {
    let durable = session.expiry_secs > 0;
    let qos0 = (session.qos0_subscriptions > 0).then(|| QueueView {
        name: format!("mqtt-subscription-{}qos0", session.client_id),
        vhost: session.vhost,
        queue_type: QueueType::Qos0,
        durable,
        messages_ready: session.qos0_ready,
        messages_unacknowledged: 0,
        message_bytes_ready: 0,
    });
    let acked = (session.acked_subscriptions > 0).then(|| QueueView {
        name: format!("mqtt-subscription-{}qos1", session.client_id),
        vhost: session.vhost,
        queue_type: QueueType::Session,
        durable,
        messages_ready: session.ready,
        messages_unacknowledged: session.unacknowledged,
        message_bytes_ready: session.ready_bytes,
    });
    [qos0, acked]
}
