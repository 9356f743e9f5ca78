//! Queries and replies: queues, connections, counters. Pure: the control thread asks, a shard's views answer.

pub mod exposition;
pub mod json;
pub mod metrics;
pub mod overview;
pub mod queues;
pub mod status;
#[cfg(test)]
mod tests;

pub use overview::Overview;
pub use queues::{QueueType, QueueView, queues};
