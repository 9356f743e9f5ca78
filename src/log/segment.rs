//! Segment files: their header, and what each is good for.
//!
//! ```text
//! a file:    (new) ──Create──> Ready ──first write──> Live ──all dead, and that is on disk──> Empty ──> Live, in a new life
//!                                                                                           └──> removed
//! ```
//!
//! Segments in use form a chain by sequence number. They leave it only at its old end, so whatever refers to a record is at most
//! as old as the record, and leaves with it or later: an acknowledgement can be forgotten together with its segment.
//!
//! The header is written twice, in two blocks, together with the first commit of each life:
//!
//! ```text
//!  0  magic            [u8; 8]   "QUELEALG"
//!  8  version          u32       of the format; this place and the checksum's never move
//! 12  previous_crc     u32       checksum of the last frame of the segment before
//! 16  sequence         u64       place in the chain, never used twice
//! 24  tag              u64       what every frame of this life begins with
//! 32  first            u64       the oldest segment in use
//! 40  next_commit      u64       the first commit in this segment
//! 48  next_message     u64       no message before has this number or a larger one
//! 56  next_generation  u32       nor a stream this generation
//! 60  previous_end     u32       where the segment before ends: all before that was on disk when this was written
//! 4092 checksum        u32       CRC32C of the bytes before
//! ```

use super::disk::SegmentId;
use super::frame::{BLOCK, u32_at, u64_at};

/// The format this code writes, and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;
/// Where a segment's first commit begins.
pub(super) const DATA_START: u32 = 2 * BLOCK;

const MAGIC: &[u8; 8] = b"QUELEALG";
const CHECKSUM_AT: usize = BLOCK as usize - 4;

/// The start of a segment's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct SegmentHeader {
    pub(super) version: u32,
    pub(super) previous_crc: u32,
    pub(super) sequence: u64,
    pub(super) tag: u64,
    pub(super) first: u64,
    pub(super) next_commit: u64,
    pub(super) next_message: u64,
    pub(super) next_generation: u32,
    pub(super) previous_end: u32,
}

/// What the first two blocks of a file say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Headers {
    /// A header; `is_damaged` if only one of the two is good.
    Good { header: SegmentHeader, is_damaged: bool },
    /// A header of a format that is not known here.
    Newer { version: u32 },
    /// Zeros: the file was never used.
    Blank,
    /// Neither is a header.
    Bad,
}

impl SegmentHeader {
    /// Both copies.
    pub(super) fn write(&self, out: &mut [u8]) {
        let mut bytes = Vec::with_capacity(BLOCK as usize);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&self.previous_crc.to_le_bytes());
        for value in [self.sequence, self.tag, self.first, self.next_commit, self.next_message] {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes.extend_from_slice(&self.next_generation.to_le_bytes());
        bytes.extend_from_slice(&self.previous_end.to_le_bytes());
        bytes.resize(CHECKSUM_AT, 0);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        for copy in out.chunks_exact_mut(BLOCK as usize) {
            copy.copy_from_slice(&bytes);
        }
    }

    /// Reads both copies.
    pub(super) fn read(bytes: &[u8]) -> Headers {
        let mut copies = bytes.chunks_exact(BLOCK as usize).map(Self::read_copy);
        let (first, second) = (copies.next().flatten(), copies.next().flatten());
        let Some(header) = first.max_by_sequence(second) else {
            return if bytes.iter().all(|byte| *byte == 0) { Headers::Blank } else { Headers::Bad };
        };
        if header.version > FORMAT_VERSION {
            return Headers::Newer { version: header.version };
        }
        Headers::Good { header, is_damaged: first != second }
    }

    fn read_copy(bytes: &[u8]) -> Option<Self> {
        let is_ours = bytes.get(..8)? == MAGIC;
        let checksum = crc32c::crc32c(bytes.get(..CHECKSUM_AT)?);
        if !is_ours || u32_at(bytes, CHECKSUM_AT)? != checksum {
            return None;
        }
        Some(Self {
            version: u32_at(bytes, 8)?,
            previous_crc: u32_at(bytes, 12)?,
            sequence: u64_at(bytes, 16)?,
            tag: u64_at(bytes, 24)?,
            first: u64_at(bytes, 32)?,
            next_commit: u64_at(bytes, 40)?,
            next_message: u64_at(bytes, 48)?,
            next_generation: u32_at(bytes, 56)?,
            previous_end: u32_at(bytes, 60)?,
        })
    }
}

/// Of two copies the one of the later life.
trait Later {
    fn max_by_sequence(self, other: Self) -> Self;
}

impl Later for Option<SegmentHeader> {
    fn max_by_sequence(self, other: Self) -> Self {
        [self, other].into_iter().flatten().max_by_key(|header| header.sequence)
    }
}

/// What a file is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Use {
    /// There is no such file.
    None,
    /// It is being made for later.
    Creating,
    /// It is free. If it had a life before, it may be overwritten once a commit is safe that no longer counts it in.
    Empty { last: Option<u64> },
    /// It is part of the chain.
    Live { sequence: u64, tag: u64, end: u32 },
    /// It is being deleted.
    Removing,
    /// It holds what could not be read. Not used again.
    Quarantined,
}

/// One file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) bytes: u32,
    pub(super) used: Use,
    /// Reads that are outstanding: until they are answered the file is not overwritten.
    pub(super) reads: u32,
    /// The file is there.
    pub(super) is_made: bool,
}

impl Segment {
    pub(super) const NONE: Self = Self { bytes: 0, used: Use::None, reads: 0, is_made: false };
}

/// All files by number.
#[derive(Default, Debug)]
pub(super) struct Segments {
    files: Vec<Segment>,
}

impl Segments {
    pub(super) fn at(&self, segment: SegmentId) -> &Segment {
        &self.files[segment.index()]
    }

    pub(super) fn at_mut(&mut self, segment: SegmentId) -> &mut Segment {
        &mut self.files[segment.index()]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SegmentId, &Segment)> {
        (0..).map(SegmentId).zip(&self.files)
    }

    /// Makes room in the table for a file.
    pub(super) fn add(&mut self, segment: SegmentId, file: Segment) {
        if self.files.len() <= segment.index() {
            self.files.resize(segment.index() + 1, Segment::NONE);
        }
        self.files[segment.index()] = file;
    }

    /// A number no file has; `None` if there are 65,536.
    pub(super) fn unused(&self) -> Option<SegmentId> {
        let is_unused = |(_, file): &(SegmentId, &Segment)| file.used == Use::None;
        let next = u16::try_from(self.files.len()).ok().map(SegmentId);
        self.iter().find(is_unused).map(|(segment, _)| segment).or(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(sequence: u64, version: u32) -> Vec<u8> {
        let mut bytes = vec![0; DATA_START as usize];
        SegmentHeader { version, sequence, tag: 9, previous_end: 8192, ..SegmentHeader::default() }
            .write(&mut bytes);
        bytes
    }

    #[test]
    fn one_good_copy_is_enough() {
        let good = written(3, FORMAT_VERSION);
        for byte in [0, 8, 20, 60, 4000, 4095] {
            for copy in [0, 4096] {
                let mut bytes = good.clone();
                bytes[byte + copy] ^= 4;
                let read = SegmentHeader::read(&bytes);
                assert!(
                    matches!(read, Headers::Good { header, is_damaged: true } if header.sequence == 3),
                    "{read:?}"
                );
            }
            let mut bytes = good.clone();
            bytes[byte] ^= 4;
            bytes[byte + 4096] ^= 4;
            assert_eq!(SegmentHeader::read(&bytes), Headers::Bad);
        }
        assert_eq!(SegmentHeader::read(&vec![0; DATA_START as usize]), Headers::Blank);
    }

    #[test]
    fn the_later_life_counts_and_a_newer_format_is_told() {
        let mut bytes = written(3, FORMAT_VERSION);
        bytes[..4096].copy_from_slice(&written(8, FORMAT_VERSION)[..4096]);
        assert!(
            matches!(SegmentHeader::read(&bytes), Headers::Good { header, is_damaged: true } if header.sequence == 8)
        );
        assert_eq!(SegmentHeader::read(&written(1, 2)), Headers::Newer { version: 2 });
    }
}
