//! Topic tries, interest index, shared groups, retained store, matching.
//!
//! Knows no sessions: subscribers are opaque handles that the shard gives meaning.

pub mod groups;
pub mod interest;
pub mod mask;
pub mod options;
mod order;
pub mod retained;
pub mod shared;
mod slots;
pub mod subscription;
mod table;
mod text;
pub mod trie;
mod wildcard;

pub use groups::{Groups, group_hash};
pub use interest::{Delta, DeltaFilter, Interest};
pub use mask::{Masks, SHARDS_MAX, ShardMask};
pub use options::Options;
pub use options::Strategy;
pub use retained::{Cursor, Limits, Retained, RetainedFull, SetOutcome};
pub use shared::{Group, Member, MemberId, PickInput};
pub use subscription::{Subscriber, Subscription, SubscriptionOptions};
pub use trie::{Change, FilterId, Inserted, Removed, Trie};
