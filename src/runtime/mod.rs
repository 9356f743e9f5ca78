//! Layer 4, the shell: sockets, files, clocks, threads. The only place that touches the operating system.
//!
//! Each shard is one thread pinned to a core, running one glommio executor whose driver task owns the shard's network rings
//! ([`net`]) and its [`Shard`](crate::shard::Shard). Shards meet in their mailboxes and nowhere else.

pub mod machine;
pub mod net;
