//! What shards say to each other.

/// Messages from one shard to another, in order. An emptied batch goes back to be filled again.
#[derive(Default, Debug)]
pub struct PeerBatch {}
