//! The real binary on loopback, with the clients of others and with raw sockets.
//!
//! Every test starts its own broker on port 0 with its own data folder, and ends it. Nothing sleeps: what is waited for is a
//! condition with a deadline, and "nothing more arrives" is shown by a later message that does. A client whose tool is not
//! installed is skipped and says so; with `CI=true` that is a failure.

#![allow(clippy::disallowed_types, reason = "these tests run in real time, against a real process")]

mod bad_input;
mod broker;
mod client;
mod driver;
mod durable;
mod families;
mod hops;
mod life;
mod log_tool;
mod mosquitto;
mod rumqtt;
mod scenarios;
mod tools;
mod watch;
mod wire;

use std::time::Duration;

/// How long anything may take on a busy machine before the test gives up. Nothing is ever waited for this long when all is well.
const DEADLINE: Duration = Duration::from_secs(30);
