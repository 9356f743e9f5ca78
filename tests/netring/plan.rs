//! What each client is going to do, and the bytes it does it with: all of it from the seed.

use crate::rng::{Rng, mix};

/// The first byte of a connection: what the server is asked for.
pub(crate) const ECHO: u8 = b'E';
/// The server echoes, and leaves in the middle of something.
pub(crate) const ABORT: u8 = b'A';

/// One client's plan.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    seed: u64,
    /// [`ECHO`] or [`ABORT`].
    pub(crate) command: u8,
    /// Bytes to send and to get back.
    pub(crate) len: usize,
    /// Bytes of a write at most.
    pub(crate) write_max: usize,
    /// Bytes of a read at most.
    pub(crate) read_max: usize,
    /// How often, out of 1000 reads, it stops reading for a while.
    pub(crate) pauses: usize,
    /// When it resets the connection, if it does.
    pub(crate) reset: Option<Reset>,
    /// What the kernel keeps for it unread, in bytes, before it stops the sender.
    pub(crate) receive_buffer: usize,
}

/// When a client resets its connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reset {
    /// When so much was written, whatever was read.
    Written(usize),
    /// When so much was read.
    Read(usize),
}

impl Plan {
    /// The plan of client `number` in the run of this seed.
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        let mut rng = Rng::stream(seed, 1000 + number);
        // Most are small; some are far more than all buffers on the way together. Those with little room for what comes back are
        // small: a window that closes is probed by the kernel's slow timers. Who is left is to be stuck by then.
        let command = if rng.chance(140) { ABORT } else { ECHO };
        let (len, receive_buffer) = match rng.size(0, 9) {
            0 => (rng.size(24 << 10, 64 << 10), 64 << 10),
            _ if command == ABORT => (rng.size(12 << 10, 24 << 10), 1 << 10),
            1..4 => (rng.size(1, 3 << 10), 1 << 10),
            _ => (rng.size(1, 6 << 10), 32 << 10),
        };
        let reset = match rng.size(0, 9) {
            0 => Some(Reset::Written(rng.size(0, len))),
            1 => Some(Reset::Read(rng.size(1, len))),
            _ => None,
        };
        Self {
            seed: rng.next(),
            command,
            len,
            write_max: [1, 7, 300, 5_000, 100_000][rng.size(0, 4)].max(len / 200),
            read_max: [3, 100, 2_000, 100_000][rng.size(0, 3)].max(len / 200),
            pauses: if command == ABORT { 400 } else { [0, 20, 200][rng.size(0, 2)] },
            reset: if command == ECHO { reset } else { None },
            receive_buffer,
        }
    }

    /// The byte at this place of the stream, there and back.
    pub(crate) fn byte(&self, at: usize) -> u8 {
        if at == 0 { self.command } else { mix(self.seed ^ at as u64).to_le_bytes()[0] }
    }

    /// The bytes of a range.
    pub(crate) fn bytes(&self, from: usize, to: usize) -> Vec<u8> {
        (from..to).map(|at| self.byte(at)).collect()
    }
}
