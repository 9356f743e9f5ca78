//! The network rings of one shard: one at first, more when its descriptor table fills up.
//!
//! The first ring is where the shard waits; a further one reports there through the shard's event descriptor. Receive buffers
//! are one pool for all: the first ring gets half of it at once, each ring a few when it opens, and the rest where buffers
//! run out; after that a ring with more than its part gives up what it gets back.

use crate::runtime::mailbox::RINGS_MAX;
use crate::runtime::net::{Buffer, Completion, NetRing, ReceiveBuffers, RingFd, RingOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Receive buffers of a shard: 4 MiB in 4 KiB pieces (smaller ones cost a third in fan-in, larger ones gain nothing).
const BUFFERS: u16 = 1024;
const BUFFER_SIZE: u32 = 4096;
/// Buffers a ring gets when it opens, and when it runs out.
const GRANT_FIRST: usize = BUFFERS as usize / 2;
const GRANT: usize = 8;
/// Every ring can be given its first grant.
const _: () = assert!(GRANT_FIRST + (RINGS_MAX - 1) * GRANT <= BUFFERS as usize);

/// Of a further ring: it serves fewer connections than the first.
const FURTHER: (u32, u32) = (1024, 4096);

/// A table this full, in 1/8, has another ring opened beside it.
const NEARLY_FULL: u32 = 7;

#[derive(Debug)]
pub(super) struct Rings {
    rings: Vec<NetRing>,
    buffers: Rc<ReceiveBuffers>,
    reserve: Vec<Buffer>,
    /// The ring that ran out of buffers last, when nothing was in reserve.
    hungry: Option<usize>,
    event: Arc<OwnedFd>,
    options: RingOptions,
    count_max: usize,
}

impl Rings {
    /// The first ring, watching `event`; up to `count_max` may be opened, each with `descriptors` slots.
    pub(super) fn new(descriptors: u32, count_max: usize, event: Arc<OwnedFd>) -> io::Result<Self> {
        let (buffers, reserve) = ReceiveBuffers::new(BUFFERS, BUFFER_SIZE);
        let options = RingOptions { descriptors, ..RingOptions::default() };
        let count_max = count_max.clamp(1, RINGS_MAX);
        let mut rings = Self { rings: Vec::new(), buffers, reserve, hungry: None, event, options, count_max };
        rings.open()?;
        Ok(rings)
    }

    /// Opens a ring; gives its index.
    pub(super) fn open(&mut self) -> io::Result<usize> {
        let index = self.rings.len();
        let mut ring = if index == 0 {
            let mut ring = NetRing::new(self.options, Rc::clone(&self.buffers))?;
            ring.watch(Arc::clone(&self.event));
            ring
        } else {
            let (submissions, completions) = FURTHER;
            let options = RingOptions { submissions, completions, ..self.options };
            let mut ring = NetRing::new(options, Rc::clone(&self.buffers))?;
            ring.report_to(&self.event)?;
            ring
        };
        let grant = if index == 0 { GRANT_FIRST } else { GRANT };
        for buffer in self.reserve.drain(self.reserve.len().saturating_sub(grant)..) {
            ring.publish(buffer);
        }
        self.rings.push(ring);
        Ok(index)
    }

    pub(super) fn len(&self) -> usize {
        self.rings.len()
    }

    pub(super) fn at(&mut self, ring: usize) -> &mut NetRing {
        &mut self.rings[ring]
    }

    pub(super) fn ring_fd(&self, ring: usize) -> RingFd {
        self.rings[ring].ring_fd()
    }

    pub(super) fn buffers(&self) -> &ReceiveBuffers {
        &self.buffers
    }

    /// The ring with most free descriptors, and how many these are.
    pub(super) fn roomiest(&self) -> (usize, u32) {
        let free = self.rings.iter().map(NetRing::descriptors_free).enumerate();
        // The first of equals, so that a shard that fits into one ring uses one.
        free.rev().max_by_key(|(_, free)| *free).expect("there is a first ring")
    }

    /// Whether another ring should be opened, and may.
    pub(super) fn should_open(&self) -> bool {
        let (_, free) = self.roomiest();
        free < self.options.descriptors - self.options.descriptors / 8 * NEARLY_FULL
            && self.rings.len() < self.count_max
    }

    /// Gives up opening more: the system refused.
    pub(super) fn stop_opening(&mut self) {
        self.count_max = self.rings.len();
    }

    /// A buffer that `ring` filled has been read: back to it, unless another needs it more.
    pub(super) fn publish(&mut self, ring: usize, buffer: Buffer) {
        let part = usize::from(BUFFERS) / self.rings.len();
        let to = match self.hungry {
            Some(hungry) if usize::from(self.rings[ring].published()) > GRANT => {
                if usize::from(self.rings[hungry].published()) + 1 >= part {
                    self.hungry = None;
                }
                hungry
            }
            _ => ring,
        };
        self.rings[to].publish(buffer);
    }

    /// `ring` ran out of buffers: it gets some of what is in reserve, or of what others get back.
    pub(super) fn feed(&mut self, ring: usize) {
        if self.reserve.is_empty() {
            self.hungry = Some(ring);
        }
        for buffer in self.reserve.drain(self.reserve.len().saturating_sub(GRANT)..) {
            self.rings[ring].publish(buffer);
        }
    }

    /// Submits every ring's operations, without waiting.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        self.rings.iter_mut().try_for_each(NetRing::submit)
    }

    /// Submits, then waits on the first ring; not at all if a further one has something.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let (first, further) = self.rings.split_first_mut().expect("there is a first ring");
        further.iter_mut().try_for_each(NetRing::submit)?;
        // What completes after this look writes to the event descriptor, which the first ring reads.
        if further.iter_mut().any(|ring| ring.is_complete() || ring.is_pending()) {
            return first.submit();
        }
        first.wait(timeout)
    }

    /// Runs what the kernel has deferred on further rings, which the wait on the first did not.
    pub(super) fn collect(&mut self) -> io::Result<()> {
        self.rings.iter_mut().skip(1).try_for_each(NetRing::submit)
    }

    pub(super) fn reap(&mut self, ring: usize, completions: &mut Vec<Completion>) {
        self.rings[ring].reap(completions);
    }
}
