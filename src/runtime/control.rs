//! What the process tells its shards outside of their mailboxes: that all are ready, that it leaves, that memory or space on disk
//! is short; and how it wakes them.

use nix::sys::eventfd::EventFd;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Flags every shard looks at once a turn.
///
/// Relaxed throughout: each flag stands for itself, and the write to the event descriptor that follows wakes whoever sleeps;
/// its own turn then reads the flag (the kernel's locks order the two).
#[derive(Debug)]
pub struct Control {
    leaving: AtomicBool,
    short_of_memory: AtomicBool,
    short_of_space: AtomicBool,
    /// Shards that have not got all of their sessions back.
    opening: AtomicUsize,
    /// Shards that still have connections.
    serving: AtomicUsize,
    events: Box<[Arc<OwnedFd>]>,
}

impl Control {
    /// For so many shards, all serving.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn new(shards: u16) -> io::Result<Self> {
        let event = |_| Ok(Arc::new(OwnedFd::from(EventFd::new()?)));
        let events = (0..shards).map(event).collect::<nix::Result<_>>()?;
        Ok(Self {
            leaving: AtomicBool::new(false),
            short_of_memory: AtomicBool::new(false),
            short_of_space: AtomicBool::new(false),
            opening: AtomicUsize::new(usize::from(shards)),
            serving: AtomicUsize::new(usize::from(shards)),
            events,
        })
    }

    /// What wakes shard number `index`.
    #[must_use]
    pub fn event(&self, index: usize) -> &Arc<OwnedFd> {
        &self.events[index]
    }

    /// Every shard is to say goodbye.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        self.wake_all();
    }

    /// Whether the process leaves.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Memory is short, or no longer.
    pub fn set_short_of_memory(&self, short: bool) {
        if self.short_of_memory.swap(short, Ordering::Relaxed) != short {
            self.wake_all();
        }
    }

    /// Whether memory is short.
    #[must_use]
    pub fn is_short_of_memory(&self) -> bool {
        self.short_of_memory.load(Ordering::Relaxed)
    }

    /// The disk is short of space, or no longer.
    pub fn set_short_of_space(&self, short: bool) {
        if self.short_of_space.swap(short, Ordering::Relaxed) != short {
            self.wake_all();
        }
    }

    /// Whether the disk is short of space.
    #[must_use]
    pub fn is_short_of_space(&self) -> bool {
        self.short_of_space.load(Ordering::Relaxed)
    }

    /// A shard has all of its sessions back, and its filters are known everywhere.
    pub fn ready(&self) {
        if self.opening.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.wake_all();
        }
    }

    /// Whether every shard is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.opening.load(Ordering::Relaxed) == 0
    }

    /// A shard has closed its last connection. It goes on taking mail until all have.
    pub fn finished(&self) {
        if self.serving.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.wake_all();
        }
    }

    /// Whether every shard has finished.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.serving.load(Ordering::Relaxed) == 0
    }

    fn wake_all(&self) {
        for event in &self.events {
            // Fails only when the counter is at its end, and then whoever reads it is awake.
            let _ = nix::unistd::write(event, &1u64.to_ne_bytes());
        }
    }
}
