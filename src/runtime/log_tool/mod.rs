//! `quelea log`: what an operator asks a durable log, without a broker.
//!
//! | command | what | writes |
//! |---|---|---|
//! | `inspect` | what each shard's log holds, how much of it lives, what is damaged | no |
//! | `verify` | the same, and every value and message is read and understood | no |
//! | `dump --client-id ID` | one session: subscriptions, will, identifiers, messages | no |
//! | `compact` | copies what lives together and gives the rest back | yes: takes the directory's lock |
//!
//! What only reads takes no lock and may run beside a broker. Files come, go and are written to meanwhile: what looks damaged is looked at
//! again a moment later, and counts only if it stays. A tail that is being written looks like one a crash has torn; that is no damage.
//!
//! Cost: a read of all segments in use, as at start; `verify` reads each message again.

mod compact;
mod dump;
mod inspect;
mod look;

#[cfg(test)]
mod tests;

use super::data_dir::{DataDir, Unusable};
use super::disk::recover::Unrecovered;
use super::disk::{Layout, Unopened};
use crate::admin::json::Json;
use crate::config::args::{LogCommand, LogRequest};
use look::Look;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// How it went, as the exit status says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// 0: what was asked for is done, and all that was read is sound.
    Sound,
    /// 2: something that should be there cannot be read. The broker serves the rest.
    Damaged,
}

/// Why it was not done; exit status 1.
#[derive(Debug, thiserror::Error)]
pub enum Undone {
    /// There is no log.
    #[error(
        "{0} holds no durable log: name the broker's directory with --data-dir, or its configuration with --config"
    )]
    NoLog(PathBuf),
    /// The log's folder is being replaced, or the broker died while it was.
    #[error(
        "{0} is half replaced by one for another number of shards: the next start of the broker finishes that"
    )]
    HalfReplaced(PathBuf),
    /// No session has this client identifier.
    #[error("there is no session of client {0:?}")]
    NoSession(String),
    /// A segment is of a newer format.
    #[error(transparent)]
    Unopened(#[from] Unopened),
    /// A segment is of a newer format, or the folder not readable.
    #[error(transparent)]
    Unrecovered(#[from] Unrecovered),
    /// The lock is not to be had.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// A write or a sync failed.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was said.
        error: io::Error,
    },
    /// Standard output is gone.
    #[error("the result cannot be written: {0}")]
    Output(#[from] io::Error),
}

/// Does what `request` asks of the logs below `data_dir`; the result goes to `out`.
///
/// # Errors
/// If it cannot be done.
pub fn run(data_dir: &Path, request: &LogRequest, out: &mut impl Write) -> Result<Verdict, Undone> {
    let (answer, verdict) = match &request.command {
        LogCommand::Inspect => inspect::inspect(&Look::open(data_dir)?, false)?,
        LogCommand::Verify => inspect::inspect(&Look::open(data_dir)?, true)?,
        LogCommand::Dump { client_id } => dump::dump(&Look::open(data_dir)?, client_id)?,
        LogCommand::Compact => {
            Look::open(data_dir)?;
            let _lock = DataDir::open(data_dir)?;
            compact::compact(&Layout::open(data_dir, 1)?)?
        }
    };
    if request.json {
        writeln!(out, "{}", answer.json)?;
    } else {
        out.write_all(answer.text.as_bytes())?;
    }
    Ok(verdict)
}

/// What is said, for machines and for people.
#[derive(Debug)]
struct Answer {
    json: Json,
    text: String,
}
