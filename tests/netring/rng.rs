//! Seeded randomness: one stream for each purpose, so that a draw more in one does not reshuffle the others. SplitMix64.

/// One stream.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// The stream of a seed for a purpose.
    pub(crate) fn stream(seed: u64, purpose: u64) -> Self {
        let mut stream = Self(seed ^ mix(purpose));
        stream.next();
        stream
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// `low..=high`.
    pub(crate) fn size(&mut self, low: usize, high: usize) -> usize {
        assert!(low <= high, "nothing to draw from");
        let scaled = (u128::from(self.next()) * (high - low + 1) as u128) >> 64;
        low + usize::try_from(scaled).expect("less than the width")
    }

    /// `true` this often out of 1000.
    pub(crate) fn chance(&mut self, per_mille: usize) -> bool {
        self.size(0, 999) < per_mille
    }
}

const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// A bijection under which neighbours have nothing in common.
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
