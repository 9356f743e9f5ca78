//! What every message carries: who published it, its sequence number, when it was meant to be sent, and a filler that shows
//! every changed bit.
//!
//! ```text
//! | run (4) | publisher (4) | sequence (8) | intended time, ns (8) | check (4) | filler |
//! ```
//!
//! All numbers are little endian. The check covers the numbers and the size; the filler is a run of a fixed pattern that begins
//! elsewhere for each sequence number, so a payload mixed from two messages is seen.
//!
//! Cost: writing or checking 64 bytes, a few nanoseconds, no allocation.

/// The numbers without filler.
pub const SIZE_MIN: usize = 28;

/// How many places the filler begins at.
const OFFSETS: u64 = 64;

/// What a payload says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Tells one run's messages from another's.
    pub run: u32,
    /// The publisher, counted over the whole run.
    pub publisher: u32,
    /// Counted from 0 for each publisher.
    pub sequence: u64,
    /// When it was meant to be sent: nanoseconds of the monotonic clock.
    pub intended: u64,
}

/// The payload is none that was sent, in this size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Corrupt;

/// Writes and checks payloads of one size.
#[derive(Debug)]
pub struct Payloads {
    size: usize,
    pattern: Box<[u8]>,
}

impl Payloads {
    /// For payloads of `size` bytes, which is at least [`SIZE_MIN`].
    pub fn new(size: usize) -> Self {
        assert!(size >= SIZE_MIN, "a payload holds its numbers");
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let pattern = (0..size + OFFSETS as usize)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect();
        Self { size, pattern }
    }

    /// Writes the payload over what is in `out`.
    pub fn write(&self, stamp: Stamp, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&stamp.run.to_le_bytes());
        out.extend_from_slice(&stamp.publisher.to_le_bytes());
        out.extend_from_slice(&stamp.sequence.to_le_bytes());
        out.extend_from_slice(&stamp.intended.to_le_bytes());
        out.extend_from_slice(&check(stamp, self.size).to_le_bytes());
        out.extend_from_slice(self.filler(stamp.sequence));
    }

    /// What `payload` says.
    ///
    /// # Errors
    /// [`Corrupt`] if a bit or the size differs from what was sent.
    pub fn read(&self, payload: &[u8]) -> Result<Stamp, Corrupt> {
        let (head, filler) = payload.split_first_chunk::<SIZE_MIN>().ok_or(Corrupt)?;
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| head[at + byte]));
        let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| head[at + byte]));
        let stamp = Stamp { run: half(0), publisher: half(4), sequence: word(8), intended: word(16) };
        let fine = payload.len() == self.size
            && half(24) == check(stamp, self.size)
            && filler == self.filler(stamp.sequence);
        if fine { Ok(stamp) } else { Err(Corrupt) }
    }

    fn filler(&self, sequence: u64) -> &[u8] {
        let from = (sequence % OFFSETS) as usize;
        &self.pattern[from..][..self.size - SIZE_MIN]
    }
}

/// Changes with every single bit of its input: each product is of an odd constant, and keeps its upper half.
fn check(stamp: Stamp, size: usize) -> u32 {
    let from = (u64::from(stamp.run) << 32 | u64::from(stamp.publisher)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let sequence = stamp.sequence.wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
    let intended = (stamp.intended ^ (size as u64).rotate_left(40)).wrapping_mul(0x1656_67B1_9E37_79F9);
    ((from ^ sequence ^ intended) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(sequence: u64) -> Stamp {
        Stamp { run: 7, publisher: 3, sequence, intended: 1_234_567_890_123 }
    }

    #[test]
    fn payloads_come_back() {
        for size in [SIZE_MIN, 29, 64, 5000] {
            let payloads = Payloads::new(size);
            let mut bytes = Vec::new();
            for sequence in [0, 1, 63, 64, u64::MAX] {
                payloads.write(stamp(sequence), &mut bytes);
                assert_eq!(bytes.len(), size);
                assert_eq!(payloads.read(&bytes), Ok(stamp(sequence)));
            }
        }
    }

    #[test]
    fn every_changed_bit_is_seen() {
        let payloads = Payloads::new(64);
        let mut bytes = Vec::new();
        for sequence in [0, 1, 1000, 1 << 40] {
            payloads.write(stamp(sequence), &mut bytes);
            for bit in 0..bytes.len() * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(payloads.read(&bytes), Err(Corrupt), "bit {bit}");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn mixtures_and_other_sizes_are_seen() {
        let payloads = Payloads::new(64);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        payloads.write(stamp(1), &mut first);
        payloads.write(stamp(2), &mut second);
        let mixture = [&first[..SIZE_MIN], &second[SIZE_MIN..]].concat();
        assert_eq!(payloads.read(&mixture), Err(Corrupt));
        assert_eq!(payloads.read(&first[..63]), Err(Corrupt));
        assert_eq!(payloads.read(&[]), Err(Corrupt));
        first.push(0);
        assert_eq!(payloads.read(&first), Err(Corrupt));
    }
}
