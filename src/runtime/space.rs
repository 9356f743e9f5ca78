//! How much space is left on the data directory's disk, to be held against `disk_free_limit.absolute`.
//!
//! Cost: one system call a second.

use nix::sys::statvfs::statvfs;
use std::path::Path;

/// Short of space below the limit; no longer only above 17/16 of it, so that it does not flutter.
const RELIEF_SHARE: u64 = 16;

/// Bytes that this process may still write to the file system `path` is on; `None` if that is not to be had.
#[must_use]
pub fn free_bytes(path: &Path) -> Option<u64> {
    let found = statvfs(path).ok()?;
    found.blocks_available().checked_mul(found.fragment_size())
}

/// Whether space is short, given that it `was`.
#[must_use]
pub fn is_short(was: bool, free_bytes: u64, free_bytes_min: u64) -> bool {
    let relief = if was { free_bytes_min / RELIEF_SHARE } else { 0 };
    free_bytes < free_bytes_min.saturating_add(relief)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_what_the_system_says() {
        assert!(free_bytes(Path::new("/")).is_some_and(|bytes| bytes > 0));
        assert_eq!(free_bytes(Path::new("/proc")), Some(0));
        assert_eq!(free_bytes(Path::new("/nonexistent")), None);
    }

    #[test]
    fn relief_comes_a_little_above_the_limit() {
        assert!(is_short(false, 1599, 1600) && !is_short(false, 1600, 1600));
        assert!(is_short(true, 1699, 1600) && !is_short(true, 1700, 1600));
        assert!(!is_short(false, 0, 0) && !is_short(true, 0, 0));
    }
}
