//! What an operator can set about the log.

use super::frame::BLOCK;
use super::segment::DATA_START;

/// What is promised when [`Log::committed`](super::Log::committed) passes a sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SyncMode {
    /// `commit`: the record survives a power cut.
    #[default]
    Commit,
    /// `interval`: it survives the process; a power cut may take what came after the last sync, which the owner asks for by
    /// [`Log::sync`](super::Log::sync).
    Interval,
    /// `none`: it survives the process. Segments are synced only where the log itself depends on it, before one is reused.
    None,
}

/// Sizes and promises of one shard's log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// `quelea.log.sync`.
    pub sync: SyncMode,
    /// Bytes of a segment file, a multiple of 4 KiB, at least [`SEGMENT_BYTES_MIN`]. Files that exist keep their size. A record
    /// that does not fit gets a larger segment of its own.
    pub segment_bytes: u32,
    /// The oldest segment is compacted once less than this share of all segments in use is live; 1 to 90.
    ///
    /// At 50 the disk holds at most about twice what lives, and each byte written causes at most one byte to be copied.
    pub live_percent_min: u8,
    /// Segments in use below which nothing is compacted.
    pub segments_min: u16,
    /// Empty segments kept for reuse; more are removed.
    pub spare_segments_max: u16,
}

/// The smallest segment: its headers and 14 blocks.
pub const SEGMENT_BYTES_MIN: u32 = 16 * BLOCK;

const _: () = assert!(SEGMENT_BYTES_MIN > DATA_START + 2 * BLOCK);

impl Default for Options {
    fn default() -> Self {
        Self {
            sync: SyncMode::Commit,
            segment_bytes: 64 << 20,
            live_percent_min: 50,
            segments_min: 4,
            spare_segments_max: 8,
        }
    }
}
