//! Queries and replies: queues, connections, counters. Pure: the control thread asks, a shard's views answer.

pub mod queues;

pub use queues::{QueueType, QueueView, queues};
