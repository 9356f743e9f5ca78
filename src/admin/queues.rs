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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ConnectionId, HashKey, Mono, Now, PacketId, QoS, ShardId, Version, Wall};
    use crate::codec::{Connect, Delivery, SubscribeFilter, encode_subscribe};
    use crate::shard::{Accepted, Options};

    const NOW: Now = Now { mono: Mono(1), wall: Wall(1) };

    fn connect(shard: &mut Shard, client_id: &str, session_expiry: Option<u32>) -> ConnectionId {
        let peer = "127.0.0.1:1".parse().unwrap();
        let id = shard.handle_accepted(NOW, Accepted { peer, local: peer, at: NOW.mono }).unwrap();
        let mut bytes = Vec::new();
        Connect { session_expiry, ..Connect::new(Version::V5, client_id, true, 0) }.encode(&mut bytes);
        shard.handle_bytes(NOW, id, &bytes);
        id
    }

    fn subscribe(shard: &mut Shard, client: ConnectionId, filter: &str, qos: QoS) {
        let mut bytes = Vec::new();
        let filters = [SubscribeFilter::new(filter, qos)];
        encode_subscribe(PacketId::FIRST, None, &filters, Version::V5, &mut bytes);
        shard.handle_bytes(NOW, client, &bytes);
    }

    fn publish(shard: &mut Shard, client: ConnectionId, topic: &str, payload: &[u8]) {
        let delivery = Delivery {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic,
            topic_alias: None,
            packet_id: Some(PacketId::FIRST),
            expiry: None,
            subscription_ids: &[],
            properties: &[],
            payload,
        };
        let mut bytes = Vec::new();
        delivery.encode(Version::V5, &mut bytes);
        shard.handle_bytes(NOW, client, &bytes);
    }

    #[test]
    fn a_session_shows_as_no_one_or_two_queues() {
        let mut shard = Shard::new(Options::default(), ShardId(0), 1, HashKey { k0: 1, k1: 2 }, NOW);
        connect(&mut shard, "none", None);
        let one = connect(&mut shard, "one", None);
        subscribe(&mut shard, one, "a", QoS::AtMostOnce);
        let two = connect(&mut shard, "two", Some(60));
        subscribe(&mut shard, two, "a", QoS::AtMostOnce);
        subscribe(&mut shard, two, "b", QoS::ExactlyOnce);
        let publisher = connect(&mut shard, "publisher", None);
        publish(&mut shard, publisher, "b", b"unsettled");
        shard.handle_closed(NOW, two, None);
        publish(&mut shard, publisher, "b", b"waiting");

        let mut shown: Vec<QueueView> = queues(&shard).collect();
        shown.sort_by(|a, b| a.name.cmp(&b.name));
        let queue = |name: &str, queue_type, durable| QueueView {
            name: format!("mqtt-subscription-{name}"),
            vhost: VhostId(0),
            queue_type,
            durable,
            messages_ready: 0,
            messages_unacknowledged: 0,
            message_bytes_ready: 0,
        };
        let expected = [
            queue("oneqos0", QueueType::Qos0, false),
            queue("twoqos0", QueueType::Qos0, true),
            QueueView {
                messages_ready: 1,
                messages_unacknowledged: 1,
                message_bytes_ready: 8,
                ..queue("twoqos1", QueueType::Session, true)
            },
        ];
        assert_eq!(shown, expected);
    }
}
