//! Clocks: nanoseconds of the monotonic clock, and the CPU time of a thread or of this process.
//!
//! Cost: 25 ns for the monotonic clock; a system call for the others.

use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};
use quelea::base::{Mono, Now, Wall};
use std::time::Duration;

/// A second, in nanoseconds.
pub const SECOND: u64 = 1_000_000_000;
/// A millisecond, in nanoseconds.
pub const MILLISECOND: u64 = 1_000_000;

/// Nanoseconds of a clock that never goes back; its zero means nothing.
pub fn now() -> u64 {
    read(ClockId::CLOCK_MONOTONIC)
}

/// CPU time of the calling thread, in nanoseconds.
pub fn thread_cpu() -> u64 {
    read(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU seconds of this process, in user and in system mode.
pub fn process_cpu() -> f64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return 0.0 };
    let secs = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    secs(usage.user_time()) + secs(usage.system_time())
}

/// The moment `now`, as the MQTT machine takes it.
pub fn mqtt(now: u64) -> Now {
    Now { mono: Mono(now / MILLISECOND), wall: Wall(0) }
}

/// Seconds, as nanoseconds.
pub fn from_secs(secs: f64) -> u64 {
    (secs.max(0.0) * SECOND as f64) as u64
}

fn read(clock: ClockId) -> u64 {
    let time: Duration = clock_gettime(clock).expect("the clocks exist").into();
    u64::try_from(time.as_nanos()).expect("before the year 2500")
}
