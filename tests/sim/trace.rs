//! What happened, as a hash (two runs of a seed must agree) and, for one seed, as text.

use std::fmt::{self, Write as _};

/// The trace of one run.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: Fnv,
    is_printed: bool,
}

#[derive(Debug)]
struct Fnv(u64);

impl fmt::Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}

impl Fnv {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }
}

impl Trace {
    pub(crate) fn new(is_printed: bool) -> Self {
        Self { hash: Fnv(0xCBF2_9CE4_8422_2325), is_printed }
    }

    /// One line.
    #[allow(clippy::print_stderr, reason = "the trace of one seed is for people")]
    pub(crate) fn line(&mut self, at: u64, text: fmt::Arguments<'_>) {
        writeln!(self.hash, "{at} {text}").expect("a hash takes everything");
        if self.is_printed {
            eprintln!("{:>10} {text}", at);
        }
    }

    /// Bytes that went over the network.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.hash.bytes(bytes);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash.0
    }
}
