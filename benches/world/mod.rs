//! A shard with clients for the benches: bytes in, bytes out, no sockets.

use quelea::base::{ConnectionId, HashKey, Mono, Now, PacketId, QoS, ShardId, Version, Wall};
use quelea::codec::{self, Connect, Delivery, SubscribeFilter};
use quelea::shard::{Accepted, Options, Shard};

/// One shard, and the time.
pub(crate) struct World {
    pub(crate) shard: Shard,
    pub(crate) now: Now,
}

impl World {
    pub(crate) fn new() -> Self {
        let now = Now { mono: Mono(1_000_000), wall: Wall(1_700_000_000_000) };
        let key = HashKey { k0: 0x1234_5678_9abc_def0, k1: 0x0fed_cba9_8765_4321 };
        Self { shard: Shard::new(Options::default(), ShardId(0), 1, key, now), now }
    }

    pub(crate) fn connect(&mut self, version: Version, client_id: &str) -> ConnectionId {
        let peer = "127.0.0.1:1".parse().expect("an address");
        let accepted = Accepted { peer, local: peer, at: self.now.mono };
        let id = self.shard.handle_accepted(self.now, accepted).expect("no limit is near");
        let mut bytes = Vec::new();
        Connect::new(version, client_id, true, 0).encode(&mut bytes);
        self.shard.handle_bytes(self.now, id, &bytes);
        self.turn();
        id
    }

    pub(crate) fn subscribe(&mut self, client: ConnectionId, version: Version, filter: &str, qos: QoS) {
        let mut bytes = Vec::new();
        codec::encode_subscribe(
            PacketId::FIRST,
            None,
            &[SubscribeFilter::new(filter, qos)],
            version,
            &mut bytes,
        );
        self.shard.handle_bytes(self.now, client, &bytes);
        self.turn();
    }

    /// Everything the shard wants done, done; gives the bytes sent.
    pub(crate) fn turn(&mut self) -> usize {
        let mut sent = 0;
        while self.shard.poll_output().is_some() {}
        while let Some((id, buffer)) = self.shard.poll_send() {
            sent += buffer.len();
            self.shard.handle_sent(self.now, id, buffer);
        }
        sent
    }
}

/// A PUBLISH as a client sends it.
pub(crate) fn publish(version: Version, topic: &str, qos: QoS, id: u16, payload: &[u8]) -> Vec<u8> {
    let delivery = Delivery {
        dup: false,
        qos,
        retain: false,
        topic,
        topic_alias: None,
        packet_id: PacketId::new(id).filter(|_| qos > QoS::AtMostOnce),
        expiry: None,
        subscription_ids: &[],
        properties: &[],
        payload,
    };
    let mut bytes = Vec::new();
    delivery.encode(version, &mut bytes);
    bytes
}
