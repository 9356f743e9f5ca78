//! SIGTERM and SIGINT: the first asks the process to leave, the second ends it.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;

/// Calls `leave` at the first signal; at the second the process ends at once, with status 1.
///
/// # Errors
/// If the handlers or the thread that waits for them cannot be had.
pub fn watch(leave: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let mut leave = Some(leave);
    let wait = move || {
        for _ in signals.forever() {
            let Some(leave) = leave.take() else { std::process::exit(1) };
            leave();
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(wait).map(drop)
}
