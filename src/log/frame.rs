//! Frames: what a commit is made of, and how they are found again.
//!
//! A commit is one write of one or more frames. Each frame starts at a block and is padded with zeros to the end of its last:
//!
//! ```text
//!  0  tag       u64  the life of the segment this frame belongs to; what else lies there is not of this life
//!  8  commit    u64  the number of the commit, counted over the whole log
//! 16  synced    u64  the last commit that was safe on disk when this one was written
//! 24  first     u64  the oldest segment in use then; what is older may be overwritten once this commit is safe
//! 32  index     u16  place of the frame in its commit
//! 34  count     u16  frames of the commit
//! 36  len       u32  bytes of records behind this header
//! 40  previous  u32  checksum of the frame before, also across segments
//! 44  checksum  u32  CRC32C of this header's other bytes and the records
//! ```
//!
//! The tag is drawn under a secret for each life of a segment. So nothing of a former life is taken for a frame of this one, and
//! no payload a client chose is, wherever a block boundary falls in it.

use std::ops::Range;

/// What disks are written and read by, in bytes.
pub(super) const BLOCK: u32 = 4096;
/// Bytes before a frame's records.
pub(super) const FRAME_HEADER: u32 = 48;

const CHECKSUM_AT: usize = 44;

/// What a frame says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct FrameHeader {
    pub(super) tag: u64,
    pub(super) commit: u64,
    pub(super) synced: u64,
    pub(super) first: u64,
    pub(super) index: u16,
    pub(super) count: u16,
    pub(super) len: u32,
    pub(super) previous: u32,
    pub(super) checksum: u32,
}

impl FrameHeader {
    /// Writes the header in front of its records and gives its checksum. `frame` is header space and records, without padding.
    pub(super) fn seal(mut self, frame: &mut [u8]) -> u32 {
        let (head, records) = frame.split_at_mut(FRAME_HEADER as usize);
        self.len = u32::try_from(records.len()).expect("segments are below 4 GiB");
        let mut bytes = Vec::with_capacity(FRAME_HEADER as usize);
        for value in [self.tag, self.commit, self.synced, self.first] {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes.extend_from_slice(&self.index.to_le_bytes());
        bytes.extend_from_slice(&self.count.to_le_bytes());
        bytes.extend_from_slice(&self.len.to_le_bytes());
        bytes.extend_from_slice(&self.previous.to_le_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes), records);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        head.copy_from_slice(&bytes);
        checksum
    }

    /// Reads a header without looking at the records. `None` if it is not of this life.
    pub(super) fn peek(bytes: &[u8], tag: u64) -> Option<Self> {
        if u64_at(bytes, 0)? != tag {
            return None;
        }
        Some(Self {
            tag,
            commit: u64_at(bytes, 8)?,
            synced: u64_at(bytes, 16)?,
            first: u64_at(bytes, 24)?,
            index: u16_at(bytes, 32)?,
            count: u16_at(bytes, 34)?,
            len: u32_at(bytes, 36)?,
            previous: u32_at(bytes, 40)?,
            checksum: u32_at(bytes, CHECKSUM_AT)?,
        })
    }

    /// Bytes of the frame with its padding; `None` if no segment could hold it.
    pub(super) fn padded(&self) -> Option<u32> {
        pad(self.len.checked_add(FRAME_HEADER)?)
    }

    /// Whether `frame`, which begins with this header, is whole.
    fn holds(&self, frame: &[u8]) -> bool {
        let len = FRAME_HEADER as usize + self.len as usize;
        let (Some(head), Some(records)) = (frame.get(..CHECKSUM_AT), frame.get(FRAME_HEADER as usize..len))
        else {
            return false;
        };
        crc32c::crc32c_append(crc32c::crc32c(head), records) == self.checksum
    }
}

/// Up to whole blocks; `None` beyond 4 GiB.
pub(super) fn pad(bytes: u32) -> Option<u32> {
    bytes.checked_next_multiple_of(BLOCK)
}

/// A frame that was found: its header, where it begins, and where in the scanner's buffer its records are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub(super) header: FrameHeader,
    pub(super) offset: u32,
    pub(super) records: Range<usize>,
}

impl Found {
    /// Where the frame ends, with its padding.
    pub(super) fn end(&self) -> u32 {
        self.offset.saturating_add(self.header.padded().unwrap_or(u32::MAX))
    }
}

/// What a scan wants or has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// More of the file: so many bytes from here, then [`Scanner::feed`].
    Need { offset: u32, bytes: u32 },
    /// A whole frame.
    Frame(Found),
    /// No whole frame begins at this block. `is_torn` if one of this life began there.
    Junk { offset: u32, is_torn: bool },
    /// All is scanned.
    End,
}

/// Walks a segment from frame to frame; where one is damaged, from block to block until the next.
#[derive(Debug)]
pub(super) struct Scanner {
    tag: u64,
    /// Where the next frame should begin.
    at: u32,
    end: u32,
    chunk: u32,
    buffer: Vec<u8>,
    buffer_at: u32,
}

impl Scanner {
    /// Scans `range` of a segment, reading at least `chunk` bytes at a time.
    pub(super) fn new(tag: u64, range: Range<u32>, chunk: u32) -> Self {
        Self { tag, at: range.start, end: range.end, chunk, buffer: Vec::new(), buffer_at: range.start }
    }

    /// The next step. After `Need`, not before it was fed.
    pub(super) fn step(&mut self) -> Step {
        if self.at >= self.end {
            return Step::End;
        }
        let offset = self.at;
        let start = (offset.saturating_sub(self.buffer_at)) as usize;
        let rest = self.buffer.get(start..).unwrap_or_default();
        if rest.len() < BLOCK as usize {
            return self.need(BLOCK);
        }
        let size = FrameHeader::peek(rest, self.tag)
            .and_then(|header| Some((header, header.padded()?)))
            .filter(|(_, size)| *size <= self.end.saturating_sub(offset));
        let Some((header, size)) = size else { return self.junk() };
        if rest.len() < size as usize {
            return self.need(size);
        }
        if !header.holds(rest) {
            return self.junk();
        }
        self.at = offset.saturating_add(size);
        let records = start.saturating_add(FRAME_HEADER as usize);
        Step::Frame(Found { header, offset, records: records..records.saturating_add(header.len as usize) })
    }

    /// The bytes asked for.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Records of a frame found since the last `Need`.
    pub(super) fn records(&self, found: &Found) -> &[u8] {
        self.buffer.get(found.records.clone()).unwrap_or_default()
    }

    fn junk(&mut self) -> Step {
        let offset = self.at;
        self.at = offset.saturating_add(BLOCK);
        let start = offset.saturating_sub(self.buffer_at) as usize;
        let block = self.buffer.get(start..).unwrap_or_default();
        Step::Junk { offset, is_torn: FrameHeader::peek(block, self.tag).is_some() }
    }

    /// Forgets what is behind and asks for the rest of `size` bytes from here, or a chunk.
    fn need(&mut self, size: u32) -> Step {
        let done = (self.at.saturating_sub(self.buffer_at) as usize).min(self.buffer.len());
        self.buffer.drain(..done);
        self.buffer_at = self.at;
        let have = u32::try_from(self.buffer.len()).unwrap_or(u32::MAX);
        let offset = self.at.saturating_add(have);
        let missing = size.saturating_sub(have).max(self.chunk);
        Step::Need { offset, bytes: missing.min(self.end.saturating_sub(offset)) }
    }
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tag: u64, records: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; FRAME_HEADER as usize];
        bytes.extend_from_slice(records);
        FrameHeader { tag, commit: 1, count: 1, ..FrameHeader::default() }.seal(&mut bytes);
        bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
        bytes
    }

    /// Offsets of the frames and of the junk, reading `chunk` bytes at a time.
    fn scan(file: &[u8], chunk: u32) -> (Vec<u32>, Vec<u32>) {
        let mut scanner = Scanner::new(7, 0..u32::try_from(file.len()).unwrap(), chunk);
        let (mut frames, mut junk) = (Vec::new(), Vec::new());
        loop {
            match scanner.step() {
                Step::Need { offset, bytes } => {
                    let at = offset as usize;
                    scanner.feed(&file[at..at + bytes as usize]);
                }
                Step::Frame(found) => {
                    let expected = 100 + 5000 * frames.len();
                    assert_eq!(scanner.records(&found).len(), expected);
                    frames.push(found.offset);
                }
                Step::Junk { offset, .. } => junk.push(offset),
                Step::End => return (frames, junk),
            }
        }
    }

    #[test]
    fn frames_are_found_whatever_the_size_of_a_read() {
        let mut file: Vec<u8> =
            (0..3).flat_map(|n| frame(7, &vec![n; 100 + 5000 * usize::from(n)])).collect();
        for chunk in [4096, 8192, 1 << 20] {
            assert_eq!(scan(&file, chunk), (vec![0, 4096, 12288], vec![]));
        }
        file.extend(frame(8, &[1; 10]));
        assert_eq!(scan(&file, 4096), (vec![0, 4096, 12288], vec![24576]));
    }

    #[test]
    fn any_flipped_bit_of_header_or_records_spoils_a_frame() {
        let file = frame(7, &[5; 100]);
        for byte in 0..(FRAME_HEADER as usize + 100) {
            let mut damaged = file.clone();
            damaged[byte] ^= 1 << (byte % 8);
            assert_eq!(scan(&damaged, 4096), (vec![], vec![0]), "byte {byte}");
        }
    }
}
