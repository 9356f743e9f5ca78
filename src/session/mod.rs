//! One client's MQTT state: connect, keep alive, windows, QoS 1 and 2 tables, aliases, will.
//!
//! Pieces without a home of their own: they know no trie, no socket, no other session. `shard` composes them.

pub mod acks;
pub mod aliases;
pub mod connect;
pub mod options;
pub mod received;
pub mod violation;
pub mod will;
pub mod window;

pub use acks::{Acks, Outcome, Ready};
pub use connect::{EXPIRY_NEVER, Terms, delivery_qos, expiry_on_disconnect, terms};
pub use options::Options;
pub use received::Received;
pub use violation::Violation;
pub use will::Will;
pub use window::{Entry as InFlight, Stage, Window};
