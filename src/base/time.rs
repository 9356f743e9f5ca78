//! Time as an argument: nothing below `runtime/` reads a clock.

use std::ops::Add;
use std::time::Duration;

/// Milliseconds of a clock that never goes back; its zero means nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Mono(pub u64);

/// Milliseconds since the Unix epoch. Deadlines that outlive the process are wall time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Wall(pub u64);

/// Both clocks, read at the same moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// For timers.
    pub mono: Mono,
    /// For deadlines that outlive the process.
    pub wall: Wall,
}

impl Mono {
    /// A moment no timer reaches.
    pub const NEVER: Self = Self(u64::MAX);

    /// Milliseconds from `earlier` to here; 0 if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This moment and so many seconds.
    #[must_use]
    pub fn plus_secs(self, secs: u32) -> Self {
        Self(self.0.saturating_add(u64::from(secs) * 1000))
    }

    /// This moment and so many milliseconds.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

impl Wall {
    /// A moment no deadline reaches.
    pub const NEVER: Self = Self(u64::MAX);

    /// This moment and so many seconds.
    #[must_use]
    pub fn plus_secs(self, secs: u32) -> Self {
        Self(self.0.saturating_add(u64::from(secs) * 1000))
    }
}

impl Add<Duration> for Now {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        let ms = u64::try_from(rhs.as_millis()).unwrap_or(u64::MAX);
        Self { mono: Mono(self.mono.0.saturating_add(ms)), wall: Wall(self.wall.0.saturating_add(ms)) }
    }
}
