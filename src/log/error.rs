//! What can go wrong with a log: all of it the world's fault.

use super::disk::SegmentId;

/// Why a record is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// A write or a sync failed before: nothing is promised any more. Restart on a sound disk.
    #[error("the log is poisoned: a write or a sync failed before")]
    Poisoned,
    /// No space. What shrinks the log (acknowledgements, clears, closes) is still taken, and so is everything again once space
    /// returns.
    #[error("the log is full: no space left on the device")]
    Full,
    /// Over 256 MiB with its holders.
    #[error("the record is too large")]
    TooLarge,
    /// The stream is closed.
    #[error("no such stream")]
    NoStream,
}

/// How a log is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Health {
    /// Everything is taken.
    #[default]
    Good,
    /// Only what shrinks the log is taken.
    Full,
    /// Nothing is taken; reads are served.
    Poisoned,
}

/// Why a log cannot be opened. Nothing was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unreadable {
    /// A newer broker wrote it.
    #[error(
        "{segment} has format version {version}, and this broker reads up to {known}: start the broker that wrote it"
    )]
    NewerFormat {
        /// The file.
        segment: SegmentId,
        /// Its version.
        version: u32,
        /// The newest this code knows.
        known: u32,
    },
}

/// Bytes that should hold records and do not. They are skipped; everything else is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// A stretch of a file.
    Bytes {
        /// The file.
        segment: SegmentId,
        /// Where, from the start of the file.
        offset: u32,
        /// How many.
        bytes: u32,
    },
    /// A whole segment of the chain is missing: its file is gone, or both its headers are damaged.
    Missing {
        /// Its place in the chain.
        sequence: u64,
    },
    /// A record with a valid checksum that makes no sense.
    Record {
        /// The file.
        segment: SegmentId,
        /// Where, from the start of the file.
        offset: u32,
    },
}
