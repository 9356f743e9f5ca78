//! Layer 4, the shell: sockets, files, clocks, threads. The only place that touches the operating system.
//!
//! Each shard is one thread pinned to a core, running one glommio executor whose driver task owns the shard's network rings
//! ([`net`]) and its [`Shard`](crate::shard::Shard). Shards meet in their mailboxes and nowhere else.

pub mod clock;
pub mod control;
pub mod data_dir;
pub mod desk;
pub mod disk;
mod driver;
pub mod gate;
pub mod listener;
pub mod log_tool;
pub mod machine;
pub mod mailbox;
pub mod memory;
pub mod net;
pub mod signal;
pub mod space;
pub mod start;
mod watch;

pub use start::{RunConfig, run};
