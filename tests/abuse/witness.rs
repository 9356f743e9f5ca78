//! A well-behaved pair of clients that exchange messages while others misbehave, and how long each took.

use crate::wire::{Wire, publish, subscribe};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two messages.
const EVERY: Duration = Duration::from_millis(2);

/// A thread that measures until it is told to finish.
pub(crate) struct Witness {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Witness {
    /// Two connections, and a round trip every few milliseconds.
    pub(crate) fn start(broker: SocketAddr) -> Self {
        let mut subscriber = Wire::connected(broker, 4, "witness-s");
        subscriber.send(&subscribe(4, 1, "witness", 0));
        assert_eq!(subscriber.receive().expect("SUBACK").first, 0x90);
        let mut publisher = Wire::connected(broker, 4, "witness-p");
        let ends = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            let mut took = Vec::new();
            while !until.load(Ordering::Relaxed) {
                let started = Instant::now();
                publisher.send(&publish(4, "witness", b"?"));
                let message = subscriber.receive().expect("the witness is never closed");
                took.push(started.elapsed());
                assert_eq!(message.body.last(), Some(&b'?'));
                crate::crowd::pace(EVERY);
            }
            took
        });
        Self { ends, thread }
    }

    /// Median, longest, and how many.
    pub(crate) fn finish(self) -> (Duration, Duration, usize) {
        self.ends.store(true, Ordering::Relaxed);
        let mut took = self.thread.join().expect("the witness has seen nothing wrong");
        took.sort_unstable();
        let median = took.get(took.len() / 2).copied().unwrap_or_default();
        (median, took.last().copied().unwrap_or_default(), took.len())
    }
}
