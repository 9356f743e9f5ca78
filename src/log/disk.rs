//! What the log asks of the disk, and what the disk answers. The log itself never touches one.
//!
//! Writes and reads are whole blocks of 4 KiB at multiples of 4 KiB. At most one of `Write` and `Sync` is outstanding; reads,
//! `Create` and `Remove` are independent of them and of each other.

use std::fmt;
use std::sync::Arc;

/// A segment file of one shard's log. Numbers are small and are used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SegmentId(pub u16);

impl SegmentId {
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:05}.log", self.0)
    }
}

/// Names a read, so that its answer finds whoever waits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReadId(pub u64);

/// An operation the owner carries out. Each is answered by one [`DiskReply`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Disk {
    /// Make a file of `bytes` zeros, written and not sparse; sync it and its directory. What a failed attempt left may be
    /// overwritten.
    Create {
        /// The file.
        segment: SegmentId,
        /// Its size.
        bytes: u32,
    },
    /// Write all of `bytes`.
    Write {
        /// The file.
        segment: SegmentId,
        /// Where, from the start of the file.
        offset: u32,
        /// What; the log keeps its reference until the answer, to serve reads from it.
        bytes: Arc<Vec<u8>>,
    },
    /// Make what was written to the file survive a power cut (fdatasync).
    Sync {
        /// The file.
        segment: SegmentId,
    },
    /// Read exactly so many bytes.
    Read {
        /// Comes back with the answer.
        id: ReadId,
        /// The file.
        segment: SegmentId,
        /// Where, from the start of the file.
        offset: u32,
        /// How many.
        bytes: u32,
    },
    /// Delete the file.
    Remove {
        /// The file.
        segment: SegmentId,
    },
}

/// Why an operation failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DiskError {
    /// No space left (ENOSPC, EDQUOT). Of a write: nothing was promised yet, and the same write is asked for again later.
    #[error("no space left on the device")]
    Full,
    /// Anything else. Of a write or a sync: what the file holds is unknown, so the log is poisoned and never tries again.
    #[error("the disk failed")]
    Failed,
}

/// What became of an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskReply {
    /// Of [`Disk::Create`].
    Created {
        /// The file.
        segment: SegmentId,
        /// Whether it is there.
        result: Result<(), DiskError>,
    },
    /// Of [`Disk::Write`]. A short write is a failed one.
    Written {
        /// Whether all is written.
        result: Result<(), DiskError>,
    },
    /// Of [`Disk::Sync`].
    Synced {
        /// Whether all that was written before is safe.
        result: Result<(), DiskError>,
    },
    /// Of [`Disk::Read`]. A short read is a failed one.
    Read {
        /// Which.
        id: ReadId,
        /// The bytes.
        result: Result<Vec<u8>, DiskError>,
    },
    /// Of [`Disk::Remove`]. If it failed, the file stays and is found again at the next start.
    Removed {
        /// The file.
        segment: SegmentId,
        /// Whether it is gone.
        result: Result<(), DiskError>,
    },
}
