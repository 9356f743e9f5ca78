//! The `rabbitmq.conf` dialect to one validated [`Config`]; each module below owns its `Options`, this one only fills them.
//!
//! # The dialect
//!
//! RabbitMQ's `rabbitmq.conf`, line by line:
//!
//! - `key = value`; blanks around both do not count. A key is words of letters, digits, `_` and `-`, joined by dots.
//! - `#` starts a comment, also behind a value and also without a blank before it, as in RabbitMQ.
//! - A value in single quotes is taken as it is, `#` and blanks included, up to the next single quote on the same line.
//!   There is no escape, so a value cannot hold both a line break and quotes, as in RabbitMQ.
//! - Of two lines with the same key the later counts. `mqtt.listeners.tcp.<name>` is one key a name.
//! - `--set key=value` beats the file, a later `--set` an earlier. Its value is taken literally: the shell has quotes of its own.
//! - `true` and `false`; decimal integers; `infinity` where a bound can be absent; durations in the unit the key names
//!   (milliseconds unless it says seconds); sizes in bytes, with the suffixes RabbitMQ has since 3.13: `k` `kB` `M` `MB` `G`
//!   `GB` `T` `TB` are powers of 1000, `Ki` `KiB` `Mi` `MiB` `Gi` `GiB` `Ti` `TiB` powers of 1024, upper or lower case.
//! - Different on purpose: no `include`, no escaped dots in keys, no quoted value over several lines. Each is an error, not a surprise.
//!
//! # Invariants
//!
//! - Pure: text in, [`Config`] or errors out. Who reads the file, and what the machine has, is the caller's matter.
//! - [`keys`] is the one table: parsing, `--help`, the nearest-key hint and the check of `tuning.md` all read it.
//! - Nothing is ignored: an unknown key, a malformed value and a broken relation each stop the start, and all are
//!   reported together, each with its place.
//!
//! Cost: one pass over the text, once a start.

#[cfg(feature = "runtime")]
pub mod args;
mod dialect;
mod draft;
pub mod error;
pub mod help;
pub mod keys;
pub mod level;
mod slot;
#[cfg(test)]
mod tests;
mod value;

pub use error::{Error, Place, Problem};
pub use level::LogLevel;

use crate::shard;
use draft::Draft;
use std::net::SocketAddr;
use std::path::PathBuf;

/// All that a process is started with; every relation between keys holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Where plain MQTT is listened for, in the order the names were first set; never empty, no address twice (port 0 apart).
    pub listeners: Vec<SocketAddr>,
    /// Where health and metrics are served; empty is nowhere.
    pub http: Vec<HttpListener>,
    /// How many shards, 1 to 64.
    pub shards: u16,
    /// Where the process keeps what outlives it.
    pub data_dir: PathBuf,
    /// `disk_free_limit.absolute`: with fewer bytes free on the disk of `data_dir` nothing is taken that makes the log grow; 0 is
    /// no limit.
    pub free_bytes_min: u64,
    /// What is written to standard error.
    pub log_level: LogLevel,
    /// What every shard is configured with.
    pub shard: shard::Options,
}

/// Where HTTP is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HttpListener {
    /// The address.
    pub address: SocketAddr,
    /// The key that sets it, for whoever reports that it is taken.
    pub key: &'static str,
}

/// What the defaults of some keys are derived from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Machine {
    /// Cores this process may run on.
    pub core_count: usize,
    /// Bytes of memory this process may use; `None` if that is not known.
    pub memory_bytes: Option<u64>,
}

/// The text of a configuration file, and the name it is reported under.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct File<'a> {
    /// As the operator wrote it.
    pub name: &'a str,
    /// The whole of it.
    pub text: &'a str,
}

impl Config {
    /// Parses and validates `file`, then `sets` (`key=value` each), over the defaults for `machine`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, in the order it was read.
    pub fn parse(machine: Machine, file: Option<File<'_>>, sets: &[String]) -> Result<Self, Vec<Error>> {
        let mut draft = Draft::new(machine);
        let mut errors = Vec::new();
        if let Some(file) = file {
            draft.apply(dialect::parse_file(file, &mut errors), &mut errors);
        }
        draft.apply(dialect::parse_sets(sets, &mut errors), &mut errors);
        draft.finish(errors)
    }
}
