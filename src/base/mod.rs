//! Layer 0, the ground everything stands on: ids, time, neutral messages, topics, keyed hashes, slab, timer wheel, buffers.
//!
//! Nothing here knows MQTT packets, sessions or sockets, reads a clock or draws randomness: both come in as arguments.

pub mod buffer;
pub mod hash;
pub mod ids;
pub mod message;
pub mod qos;
pub mod reason;
pub mod slab;
pub mod time;
pub mod topic;
pub mod version;
pub mod wheel;

pub use buffer::{BufferPool, OutBuffer};
pub use hash::HashKey;
pub use ids::{ConnectionId, PacketId, SessionId, ShardId, VhostId};
pub use message::{Message, MessageHead, MessageRef, Publisher};
pub use qos::QoS;
pub use reason::ReasonCode;
pub use slab::Slab;
pub use time::{Mono, Now, Wall};
pub use version::Version;
pub use wheel::Wheel;
