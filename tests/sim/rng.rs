//! Seeded randomness: one stream for each purpose, so that a draw more in one does not reshuffle the others.
//!
//! SplitMix64; it is not secret and need not be.

/// One stream.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// The stream of a seed for this purpose.
    pub(crate) fn stream(seed: u64, purpose: &str) -> Self {
        let mut state = seed.wrapping_mul(0xA076_1D64_78BD_642F) ^ 0xCBF2_9CE4_8422_2325;
        for byte in purpose.bytes() {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
        let mut stream = Self(state);
        stream.next();
        stream
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// `0..end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "nothing to draw from");
        let scaled = (u128::from(self.next()) * u128::from(end)) >> 64;
        u64::try_from(scaled).expect("less than end")
    }

    /// `low..=high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// `low..=high`.
    pub(crate) fn size(&mut self, low: usize, high: usize) -> usize {
        usize::try_from(self.between(low as u64, high as u64)).expect("between two sizes")
    }

    /// `low..=high`.
    pub(crate) fn short(&mut self, low: u16, high: u16) -> u16 {
        u16::try_from(self.between(u64::from(low), u64::from(high))).expect("between two u16")
    }

    /// `true` this often out of 1000.
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.size(0, of.len() - 1)]
    }
}
