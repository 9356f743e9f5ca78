//! The disk under the durable log: carries out what a shard's [`Log`](crate::log::Log) asks for ([`log::Disk`](crate::log::Disk)).
//!
//! ```text
//! <data dir>/log/meta             the format and the number of shards ([`layout`])
//! <data dir>/log/000/00000.log    a segment of shard 0's log ([`volume`])
//! ```
//!
//! | who | what | where |
//! |---|---|---|
//! | [`LogDisk`] | writes, syncs and reads of one shard | in the shard's own network ring, on its thread |
//! | [`Maker`] | new files (zeros, synced) and deletions of all shards | a thread of its own: they block for long |
//! | [`recover`] | reading a log back at start | on the shard's thread, before it serves |
//! | `rehome` | moving everything when the number of shards has changed | on the main thread, before that |
//!
//! # Why the network ring, and not glommio's DMA files
//!
//! A shard that waits for a commit and for its sockets waits in one place, with one system call; and a commit (write, then
//! fdatasync, linked in the kernel) is one submission and one completion. Measured for a lone commit of 4 KiB on the development
//! machine (ext4, a disk without FUA), medians: 75 to 105 µs and 40 to 80 µs of CPU in a ring of its own; 140 to 160 µs and 120 to
//! 157 µs with glommio. A write with RWF_DSYNC, which would be one operation, took 4 ms there: its flush waits for a kernel work
//! queue that a busy shard keeps off the core.
//!
//! # Invariants
//!
//! - Files are written past the page cache (O_DIRECT), in whole blocks. Where a file system has no such thing, through it: the
//!   promises are the same, and a warning says so.
//! - A segment's file appears under its name only when all of it is there and safe.
//! - Every operation is answered once, whatever happens to it.
//!
//! Cost: nothing while nothing is durable. A commit copies its bytes once, into aligned memory that is kept.

mod layout;
mod log_disk;
pub mod logs;
mod maker;
pub mod recover;
mod rehome;
mod volume;

#[cfg(test)]
mod tests;

pub use layout::{Layout, Unopened};
pub use log_disk::LogDisk;
pub use logs::{Logs, ShardLog};
pub use maker::{Maker, Making, create_segment};
pub use volume::Volume;
