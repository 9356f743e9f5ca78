//! How much memory the process has in use, to be held against `quelea.memory.max_bytes`.
//!
//! Cost: one small read under `/proc` a second.
#![allow(unsafe_code, reason = "the allocator's interface is C")]

use std::fs;

/// Short of memory from the bound on; no longer only below 15/16 of it, so that it does not flutter.
const RELIEF_SHARE: (u64, u64) = (15, 16);
const PAGE_SIZE: u64 = 4096;

/// Resident memory that is the process's own, in bytes: without pages of files and what is shared with others.
#[must_use]
pub fn own_bytes() -> Option<u64> {
    parse(&fs::read_to_string("/proc/self/statm").ok()?)
}

/// All resident memory, pages of files and shared ones too, in bytes.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()? * PAGE_SIZE)
}

/// Has the allocator give the calling thread's free memory back to the system. Looks at all of the thread's pages: about a
/// millisecond for 100 MiB.
pub fn collect() {
    // SAFETY: may be called at any time on any thread; it touches only what is free.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// Whether memory is short, given that it `was`.
#[must_use]
pub fn is_short(was: bool, own_bytes: u64, bytes_max: u64) -> bool {
    let (share, of) = RELIEF_SHARE;
    if was { own_bytes > bytes_max / of * share } else { own_bytes > bytes_max }
}

/// `/proc/self/statm`: pages in all, resident, shared, and more.
fn parse(statm: &str) -> Option<u64> {
    let mut fields = statm.split_ascii_whitespace().skip(1).map(str::parse::<u64>);
    let (resident, shared) = (fields.next()?.ok()?, fields.next()?.ok()?);
    Some(resident.saturating_sub(shared) * PAGE_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_memory_grows_with_use() {
        assert_eq!(parse("5000 300 100 20 0 400 0\n"), Some(200 * 4096));
        assert_eq!(parse("5000"), None);
        let before = own_bytes().unwrap();
        let used = vec![1u8; 64 << 20];
        assert!(own_bytes().unwrap() > before + (32 << 20));
        assert!(resident_bytes().unwrap() >= own_bytes().unwrap());
        drop(used);
    }

    #[test]
    fn relief_comes_a_little_below_the_bound() {
        assert!(!is_short(false, 1600, 1600) && is_short(false, 1601, 1600));
        assert!(is_short(true, 1501, 1600) && !is_short(true, 1500, 1600));
    }
}
