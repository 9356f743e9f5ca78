//! Quelea: an MQTT broker for one big machine.

pub mod admin;
pub mod auth;
pub mod base;
pub mod client;
pub mod codec;
pub mod config;
pub mod queue;
pub mod route;
#[cfg(feature = "runtime")]
pub mod runtime;
pub mod session;
pub mod shard;
