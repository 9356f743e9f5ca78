//! The end of a log after a crash: which of the last segment's frames count, what is a torn tail, what is damage.
//!
//! Every frame says which commit was safe when it was written. What is missing from a commit that some later frame calls safe is
//! damage: it was on disk, and perhaps acknowledged. What is missing from a later commit was never promised: the log ends before
//! that commit, whatever of it or behind it did reach the disk. So a commit is there whole, or not at all.

use super::frame::{Found, FrameHeader};
use super::segment::{DATA_START, SegmentHeader};
use std::ops::Range;

/// What counts of a segment's frames.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Verdict {
    /// How many frames, from the first on.
    pub(super) keep: usize,
    /// Stretches that should be frames and are not.
    pub(super) damage: Vec<Range<u32>>,
    /// Where the next commit may begin.
    pub(super) end: u32,
    /// The last frame's checksum.
    pub(super) crc: u32,
    /// The last commit.
    pub(super) commit: u64,
    /// The last commit that is known to be safe.
    pub(super) synced: u64,
    /// The oldest segment in use.
    pub(super) first: u64,
    /// Whether frames were cut off.
    pub(super) is_cut: bool,
}

/// Judges the frames found in the last segment, by offset.
pub(super) fn judge(header: &SegmentHeader, frames: &[Found]) -> Verdict {
    let before = header.next_commit.saturating_sub(1);
    let synced = frames.iter().map(|frame| frame.header.synced).fold(before, u64::max);
    let mut damage = Vec::new();
    let mut keep = 0_usize;
    let mut end = DATA_START;
    let mut whole = before;
    for frame in frames {
        let FrameHeader { commit, index, count, .. } = frame.header;
        if frame.offset > end {
            // The first commit of which something is missing.
            if whole + 1 > synced {
                break;
            }
            damage.push(end..frame.offset);
        }
        keep += 1;
        end = frame.end();
        // Of a commit with damage inside, what is left counts.
        whole = if index.saturating_add(1) == count { commit } else { commit.saturating_sub(1) };
    }
    // The last commit, if it is not whole.
    let last = keep.checked_sub(1).and_then(|at| frames.get(at)).map_or(before, |frame| frame.header.commit);
    if last > whole && last > synced {
        let is_last = |frame: &&Found| frame.header.commit == last;
        keep -= frames.iter().take(keep).filter(is_last).count();
        end = frames.get(keep).map_or(end, |frame| frame.offset);
    }
    let kept = keep.checked_sub(1).and_then(|at| frames.get(at)).map(|frame| frame.header);
    Verdict {
        keep,
        damage,
        end,
        crc: kept.map_or(header.previous_crc, |header| header.checksum),
        commit: kept.map_or(before, |header| header.commit),
        synced,
        first: kept.map_or(header.first, |header| header.first),
        is_cut: keep < frames.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of one block each: (block, commit, index, count, synced).
    fn judged(frames: &[(u32, u64, u16, u16, u64)]) -> (usize, Vec<(u32, u32)>, u64) {
        let header = SegmentHeader { next_commit: 10, ..SegmentHeader::default() };
        let found: Vec<Found> = frames
            .iter()
            .map(|(block, commit, index, count, synced)| Found {
                header: FrameHeader {
                    commit: *commit,
                    index: *index,
                    count: *count,
                    synced: *synced,
                    len: 8,
                    ..FrameHeader::default()
                },
                offset: DATA_START + block * 4096,
                records: 0..0,
            })
            .collect();
        let verdict = judge(&header, &found);
        let block = |at: u32| (at - DATA_START) / 4096;
        let blocks = verdict.damage.iter().map(|range| (block(range.start), block(range.end)));
        assert_eq!(verdict.is_cut, verdict.keep < frames.len());
        (verdict.keep, blocks.collect(), verdict.commit)
    }

    #[test]
    fn a_whole_log_is_kept() {
        assert_eq!(judged(&[]), (0, vec![], 9));
        assert_eq!(judged(&[(0, 10, 0, 1, 9), (1, 11, 0, 2, 10), (2, 11, 1, 2, 10)]), (3, vec![], 11));
    }

    #[test]
    fn a_commit_that_is_not_whole_is_cut() {
        assert_eq!(judged(&[(0, 10, 0, 1, 9), (1, 11, 0, 2, 10)]), (1, vec![], 10), "its end is missing");
        assert_eq!(judged(&[(0, 10, 0, 1, 9), (2, 11, 1, 2, 10)]), (1, vec![], 10), "its start is missing");
        assert_eq!(judged(&[(1, 10, 1, 2, 9)]), (0, vec![], 9), "the first of a segment");
    }

    #[test]
    fn what_a_later_commit_calls_safe_is_damage() {
        assert_eq!(judged(&[(0, 10, 0, 1, 9), (2, 12, 0, 1, 11)]), (2, vec![(1, 2)], 12));
        let inside = judged(&[(0, 10, 0, 3, 9), (2, 10, 2, 3, 9), (3, 11, 0, 1, 10)]);
        assert_eq!(inside, (3, vec![(1, 2)], 11));
    }

    #[test]
    fn without_syncs_a_gap_cuts_all_that_follows() {
        assert_eq!(judged(&[(0, 10, 0, 1, 9), (2, 12, 0, 1, 9), (3, 13, 0, 1, 9)]), (1, vec![], 10));
        let synced_later = judged(&[(0, 10, 0, 1, 9), (2, 12, 0, 1, 9), (3, 13, 0, 1, 12)]);
        assert_eq!(synced_later, (3, vec![(1, 2)], 13));
    }
}
