//! The rings of one thread: one at first, another whenever the descriptor tables of all are full.
//!
//! The thread waits on the first ring; the others report there through an event descriptor. Receive buffers are one pool, given
//! out a few at a time as traffic asks for them, so that a thread with idle clients touches few.

use anyhow::{Context, Result};
use nix::sys::eventfd::EventFd;
use quelea::runtime::net::{Buffer, Completion, NetRing, ReceiveBuffers, RingFd, RingOptions};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Receive buffers of a thread: at least 4 MiB in 4 KiB pieces, resident as far as they were ever used.
const BUFFERS: u16 = 1024;
/// Receive buffers for each ring, if that is more.
const BUFFERS_A_RING: u32 = 128;
/// Buffers that a pool can have.
const BUFFERS_MAX: u16 = 32_768;
const BUFFER_SIZE: u32 = 4096;
/// Buffers a ring gets when it opens.
const GRANT_FIRST: usize = 32;
const GRANT_FURTHER: usize = 4;
/// Buffers a ring gets at a time when receives wait for them.
const GRANT: usize = 32;

/// The rings of one thread.
pub struct Rings {
    rings: Vec<NetRing>,
    /// Clients given to each ring.
    assigned: Vec<u32>,
    buffers: Rc<ReceiveBuffers>,
    reserve: Vec<Buffer>,
    /// All there are, with rings, reserve and worker.
    buffers_total: usize,
    /// For each ring, clients whose receive found no buffer.
    starved: Vec<VecDeque<u32>>,
    event: Arc<OwnedFd>,
    options: RingOptions,
}

impl Rings {
    /// The first ring, for `clients` in tables of at most `descriptors`.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn new(clients: u32, descriptors: u32) -> Result<Self> {
        let rings = clients.div_ceil(descriptors.max(1));
        let count = rings.saturating_mul(BUFFERS_A_RING).clamp(BUFFERS.into(), BUFFERS_MAX.into()) as u16;
        let (buffers, reserve) = ReceiveBuffers::new(count, BUFFER_SIZE);
        let table = clients.next_power_of_two().clamp(64, descriptors.max(64)).min(descriptors);
        let options = RingOptions { submissions: 1024, completions: 8192, descriptors: table };
        let event = Arc::new(OwnedFd::from(EventFd::new().context("no event descriptor")?));
        let mut rings = Self {
            rings: Vec::new(),
            assigned: Vec::new(),
            buffers_total: reserve.len(),
            buffers,
            reserve,
            starved: Vec::new(),
            event,
            options,
        };
        rings.open()?;
        Ok(rings)
    }

    fn open(&mut self) -> Result<()> {
        let is_first = self.rings.is_empty();
        let mut ring = NetRing::new(self.options, Rc::clone(&self.buffers))
            .context("the kernel refuses an io_uring (Linux 6.11 or later, and not switched off by sysctl or seccomp?)")?;
        if is_first {
            ring.watch(Arc::clone(&self.event));
        } else {
            ring.report_to(&self.event).context("a further ring cannot report")?;
        }
        let grant = if is_first { GRANT_FIRST } else { GRANT_FURTHER };
        for buffer in self.reserve.drain(self.reserve.len().saturating_sub(grant)..) {
            ring.publish(buffer);
        }
        self.rings.push(ring);
        self.assigned.push(0);
        self.starved.push(VecDeque::new());
        Ok(())
    }

    /// A ring with room for one more client, which is taken.
    ///
    /// # Errors
    /// If another ring is needed and the kernel refuses it.
    pub fn assign(&mut self) -> Result<usize> {
        let last = self.rings.len() - 1;
        let ring = if self.assigned[last] < self.options.descriptors {
            last
        } else if let Some(ring) = self.assigned.iter().position(|&count| count < self.options.descriptors) {
            ring
        } else {
            self.open()?;
            last + 1
        };
        self.assigned[ring] += 1;
        Ok(ring)
    }

    /// A client of `ring` is gone, its socket closed.
    pub fn release(&mut self, ring: usize) {
        self.assigned[ring] -= 1;
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.rings.len()
    }

    /// One of them.
    pub fn at(&mut self, ring: usize) -> &mut NetRing {
        &mut self.rings[ring]
    }

    /// Where the thread waits.
    pub fn ring_fd(&self) -> RingFd {
        self.rings[0].ring_fd()
    }

    /// The memory received into.
    pub fn buffers(&self) -> Rc<ReceiveBuffers> {
        Rc::clone(&self.buffers)
    }

    /// The receive of the client in `slot` found no buffer on `ring`: it waits for one. To ask again at once would fail again, and with
    /// thousands who do so the ring does nothing else.
    pub fn starve(&mut self, ring: usize, slot: u32) {
        self.starved[ring].push_back(slot);
    }

    /// A client of `ring` that waited for a buffer, if there is one for it now; `taken` are promised to others.
    pub fn next_starved(&mut self, ring: usize, taken: usize) -> Option<u32> {
        let missing = (self.starved[ring].len() + taken).saturating_sub(self.rings[ring].published().into());
        for buffer in self.reserve.drain(self.reserve.len().saturating_sub(missing.min(GRANT))..) {
            self.rings[ring].publish(buffer);
        }
        if usize::from(self.rings[ring].published()) <= taken {
            return None;
        }
        self.starved[ring].pop_front()
    }

    /// A buffer was read: back to `ring`, or to the reserve if `ring` has plenty and others may need it.
    pub fn publish(&mut self, ring: usize, buffer: Buffer) {
        let plenty = self.buffers_total / self.rings.len();
        if self.rings.len() > 1 && usize::from(self.rings[ring].published()) >= plenty {
            self.reserve.push(buffer);
        } else {
            self.rings[ring].publish(buffer);
        }
    }

    /// Submits on every ring, then waits on the first; not at all if another has something.
    ///
    /// # Errors
    /// If the kernel does not serve the rings any more.
    pub fn wait(&mut self, timeout: Duration) -> Result<()> {
        let (first, further) = self.rings.split_first_mut().expect("there is a first ring");
        further.iter_mut().try_for_each(NetRing::submit)?;
        if timeout.is_zero() || further.iter_mut().any(|ring| ring.is_complete() || ring.is_pending()) {
            first.submit()?;
        } else {
            first.wait(Some(timeout))?;
        }
        // What the kernel has deferred there, the wait on the first did not run.
        further.iter_mut().try_for_each(NetRing::submit)?;
        Ok(())
    }

    /// Takes what completed on `ring`.
    pub fn reap(&mut self, ring: usize, completions: &mut Vec<Completion>) {
        self.rings[ring].reap(completions);
    }
}
