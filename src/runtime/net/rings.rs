//! The network rings of one shard: one at first, more when its descriptor table fills up.
//!
//! The first ring is where the shard waits; a further one reports there through the shard's event descriptor. Each ring has
//! receive buffers of its own: what is published cannot be taken back, so a ring could starve beside an idle one that has all. It is given few at
//! first, and twice as many whenever a turn used more than half: the kernel takes them in turn, so all it has become resident.

use super::buffers::{Buffer, ReceiveBuffers};
use super::completion::Completion;
use super::ring::{NetRing, RingFd, RingOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// With fewer free descriptors than this another ring is opened (half of a smaller table): other shards hand connections over
/// without asking, and may be many turns ahead.
const FREE_MIN: u32 = 1024;

/// Free descriptors that are not for accepts, at most half of those that are left: connections that other shards hand over are on
/// their way, and an accept that finds no descriptor loses its client.
const HAND_OVERS: u32 = 16;

/// The sizes of a shard's rings.
#[derive(Clone, Copy, Debug)]
pub struct RingsOptions {
    /// Of the first.
    pub first: RingShare,
    /// Of each further one: it serves fewer connections than the first.
    pub further: RingShare,
    /// Sockets of each ring at most; the process's descriptor limit bounds it.
    pub descriptors: u32,
    /// Bytes of a receive buffer.
    pub buffer_size: u32,
    /// How many rings may be opened, at least 1.
    pub count_max: usize,
}

/// What one ring has.
#[derive(Clone, Copy, Debug)]
pub struct RingShare {
    /// Operations between two submissions.
    pub submissions: u32,
    /// Completions between two reaps.
    pub completions: u32,
    /// Receive buffers, a power of two.
    pub buffers: u16,
    /// Of these, those it has from the start.
    pub granted: usize,
}

/// All rings of a shard.
#[derive(Debug)]
pub struct Rings {
    rings: Vec<NetRing>,
    /// For each ring, the receive buffers it has not needed yet.
    reserves: Vec<Vec<Buffer>>,
    event: Arc<OwnedFd>,
    options: RingsOptions,
}

impl Rings {
    /// The first ring, watching `event`; on the thread that uses them.
    ///
    /// # Errors
    /// Whatever the kernel says to its set-up.
    pub fn new(options: RingsOptions, event: Arc<OwnedFd>) -> io::Result<Self> {
        let mut rings = Self { rings: Vec::new(), reserves: Vec::new(), event, options };
        let event = Arc::clone(&rings.event);
        rings.add(options.first)?.watch(event);
        Ok(rings)
    }

    /// Opens a further ring; gives its index.
    ///
    /// # Errors
    /// Whatever the kernel says to its set-up: mostly that the process has no descriptor left.
    pub fn open(&mut self) -> io::Result<usize> {
        let event = Arc::clone(&self.event);
        self.add(self.options.further)?.report_to(&event)?;
        Ok(self.rings.len() - 1)
    }

    fn add(&mut self, share: RingShare) -> io::Result<&mut NetRing> {
        let RingShare { submissions, completions, buffers, granted } = share;
        let RingsOptions { descriptors, buffer_size, .. } = self.options;
        let (buffers, mut reserve) = ReceiveBuffers::new(buffers, buffer_size);
        let mut ring = NetRing::new(RingOptions { submissions, completions, descriptors }, buffers)?;
        reserve.drain(..granted.min(reserve.len())).for_each(|token| ring.publish(token));
        self.reserves.push(reserve);
        Ok(self.rings.push_mut(ring))
    }

    /// How many rings are open.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "there is always a first ring")]
    pub fn len(&self) -> usize {
        self.rings.len()
    }

    /// Slots of each ring.
    #[must_use]
    pub fn descriptors(&self) -> u32 {
        self.options.descriptors
    }

    /// One of them, by index.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use]
    pub fn at(&mut self, ring: usize) -> &mut NetRing {
        &mut self.rings[ring]
    }

    /// The name under which other rings of the process reach one.
    #[must_use]
    pub fn ring_fd(&self, ring: usize) -> RingFd {
        self.rings[ring].ring_fd()
    }

    /// Receive buffers of all rings, in bytes.
    #[must_use]
    pub fn receive_buffer_bytes(&self) -> u64 {
        let count: u64 = self.rings.iter().map(|ring| u64::from(ring.buffers().count())).sum();
        count * u64::from(self.options.buffer_size)
    }

    /// Of the receive buffers of `ring`, those it has not needed yet.
    #[must_use]
    pub fn reserved(&self, ring: usize) -> usize {
        self.reserves[ring].len()
    }

    /// What was received into `buffer` of `ring`.
    #[must_use]
    pub fn bytes<'a>(&'a self, ring: usize, buffer: &'a Buffer) -> &'a [u8] {
        self.rings[ring].buffers().bytes(buffer)
    }

    /// The ring with most room for accepts, and how much that is: its free descriptors but for those that its accepts in flight
    /// may take, and a few for hand-overs.
    #[must_use]
    pub fn roomiest(&self) -> (usize, u32) {
        let room = self.rings.iter().map(|ring| {
            let free = ring.descriptors_free();
            let accepts = u32::try_from(ring.accepts()).unwrap_or(u32::MAX);
            free.saturating_sub(HAND_OVERS.min(free / 2)).saturating_sub(accepts)
        });
        // The first of equals, so that a shard that fits into one ring uses one.
        room.enumerate().rev().max_by_key(|(_, room)| *room).expect("there is a first ring")
    }

    /// Sockets in all rings together, once no further one can be opened.
    #[must_use]
    pub fn descriptors_max(&self) -> Option<usize> {
        let all = self.rings.len().saturating_mul(self.options.descriptors as usize);
        (self.rings.len() >= self.options.count_max).then_some(all)
    }

    /// Gives the pages of receive buffers back that hold nothing: they are resident again where traffic is.
    pub fn release_buffers(&mut self) {
        for (ring, reserve) in self.rings.iter_mut().zip(&self.reserves) {
            ring.release_buffers(reserve.len());
        }
    }

    /// Whether another ring should be opened, and may.
    #[must_use]
    pub fn should_open(&self) -> bool {
        let (ring, _) = self.roomiest();
        self.rings[ring].descriptors_free() < FREE_MIN.min(self.options.descriptors / 2) && self.may_open()
    }

    /// Whether another ring may be opened.
    #[must_use]
    pub fn may_open(&self) -> bool {
        self.rings.len() < self.options.count_max
    }

    /// Gives up opening more: the system refused.
    pub fn stop_opening(&mut self) {
        self.options.count_max = self.rings.len();
    }

    /// Submits every ring's operations, without waiting.
    ///
    /// # Errors
    /// Only what cannot be mended by trying again.
    pub fn submit(&mut self) -> io::Result<()> {
        self.rings.iter_mut().try_for_each(NetRing::submit)
    }

    /// Submits, then waits on the first ring; not at all if a further one has something. [`collect`](Self::collect) follows.
    ///
    /// # Errors
    /// Only what cannot be mended by trying again.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let (first, further) = self.rings.split_first_mut().expect("there is a first ring");
        further.iter_mut().try_for_each(NetRing::submit)?;
        // What completes after this look writes to the event descriptor, which the first ring reads.
        if further.iter_mut().any(|ring| ring.is_complete() || ring.is_pending()) {
            return first.submit();
        }
        first.wait(timeout)
    }

    /// Runs what the kernel has deferred on further rings, which the wait on the first did not.
    ///
    /// # Errors
    /// Only what cannot be mended by trying again.
    pub fn collect(&mut self) -> io::Result<()> {
        self.rings.iter_mut().skip(1).try_for_each(NetRing::submit)
    }

    /// Appends what completed in `ring` since the last time, in order.
    pub fn reap(&mut self, ring: usize, completions: &mut Vec<Completion>) {
        self.rings[ring].reap(completions);
        self.grant(ring);
    }

    /// Gives a ring more buffers if more than half of those it has are in use.
    fn grant(&mut self, ring: usize) {
        let (ring, reserve) = (&mut self.rings[ring], &mut self.reserves[ring]);
        if reserve.is_empty() {
            return;
        }
        let granted = usize::from(ring.buffers().count()) - reserve.len();
        if usize::from(ring.published()) < granted / 2 {
            let rest = reserve.len().saturating_sub(granted);
            reserve.drain(rest..).for_each(|buffer| ring.publish(buffer));
        }
    }
}
