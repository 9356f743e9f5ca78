//! The network rings of one shard: one at first, more when its descriptor table fills up.
//!
//! The first ring is where the shard waits; a further one reports there through the shard's event descriptor. Each ring has
//! receive buffers of its own: what is published cannot be taken back, so a ring could starve beside an idle one that has all. It is given few at
//! first, and twice as many whenever a turn used more than half: the kernel takes them in turn, so all it has become resident.

use crate::runtime::mailbox::RINGS_MAX;
use crate::runtime::net::{Buffer, Completion, NetRing, ReceiveBuffers, RingFd, RingOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// Smaller buffers cost a third in fan-in, larger ones gain nothing.
const BUFFER_SIZE: u32 = 4096;
/// Receive buffers of the first ring: 4 MiB, which most shards never exceed.
const BUFFERS_FIRST: u16 = 1024;
/// Receive buffers of a further ring: 256 KiB.
const BUFFERS_FURTHER: u16 = 64;
/// Of these, those a ring has from the start.
const GRANT_FIRST: usize = 64;
const GRANT_FURTHER: usize = 16;

/// Of a further ring: it serves fewer connections than the first.
const FURTHER: (u32, u32) = (1024, 4096);

/// With fewer free descriptors than this another ring is opened (half of a smaller table): other shards hand connections over
/// without asking, and may be many turns ahead.
const FREE_MIN: u32 = 1024;

#[derive(Debug)]
pub(super) struct Rings {
    rings: Vec<NetRing>,
    /// For each ring, the receive buffers it has not needed yet.
    reserves: Vec<Vec<Buffer>>,
    event: Arc<OwnedFd>,
    options: RingOptions,
    count_max: usize,
}

impl Rings {
    /// The first ring, watching `event`; up to `count_max` may be opened, each with `descriptors` slots.
    pub(super) fn new(descriptors: u32, count_max: usize, event: Arc<OwnedFd>) -> io::Result<Self> {
        let options = RingOptions { descriptors, ..RingOptions::default() };
        let (mut first, reserve) = with_buffers(options, BUFFERS_FIRST, GRANT_FIRST)?;
        first.watch(Arc::clone(&event));
        let reserves = vec![reserve];
        Ok(Self { rings: vec![first], reserves, event, options, count_max: count_max.clamp(1, RINGS_MAX) })
    }

    /// Opens a further ring; gives its index.
    pub(super) fn open(&mut self) -> io::Result<usize> {
        let (submissions, completions) = FURTHER;
        let options = RingOptions { submissions, completions, ..self.options };
        let (mut ring, reserve) = with_buffers(options, BUFFERS_FURTHER, GRANT_FURTHER)?;
        ring.report_to(&self.event)?;
        self.rings.push(ring);
        self.reserves.push(reserve);
        Ok(self.rings.len() - 1)
    }

    pub(super) fn len(&self) -> usize {
        self.rings.len()
    }

    /// Slots of each ring.
    pub(super) fn descriptors(&self) -> u32 {
        self.options.descriptors
    }

    pub(super) fn at(&mut self, ring: usize) -> &mut NetRing {
        &mut self.rings[ring]
    }

    pub(super) fn ring_fd(&self, ring: usize) -> RingFd {
        self.rings[ring].ring_fd()
    }

    /// Receive buffers of all rings, in bytes.
    pub(super) fn receive_buffer_bytes(&self) -> u64 {
        let further = (self.rings.len() as u64 - 1) * u64::from(BUFFERS_FURTHER);
        (u64::from(BUFFERS_FIRST) + further) * u64::from(BUFFER_SIZE)
    }

    /// What was received into `buffer` of `ring`.
    pub(super) fn bytes<'a>(&'a self, ring: usize, buffer: &'a Buffer) -> &'a [u8] {
        self.rings[ring].buffers().bytes(buffer)
    }

    /// The ring with most free descriptors, and how many these are.
    pub(super) fn roomiest(&self) -> (usize, u32) {
        let free = self.rings.iter().map(NetRing::descriptors_free).enumerate();
        // The first of equals, so that a shard that fits into one ring uses one.
        free.rev().max_by_key(|(_, free)| *free).expect("there is a first ring")
    }

    /// Sockets in all rings together, once no further one can be opened.
    pub(super) fn descriptors_max(&self) -> Option<usize> {
        let all = self.rings.len().saturating_mul(self.options.descriptors as usize);
        (self.rings.len() >= self.count_max).then_some(all)
    }

    /// Gives the pages of receive buffers back that hold nothing: they are resident again where traffic is.
    pub(super) fn release_buffers(&mut self) {
        for (ring, reserve) in self.rings.iter_mut().zip(&self.reserves) {
            ring.release_buffers(reserve.len());
        }
    }

    /// Whether another ring should be opened, and may.
    pub(super) fn should_open(&self) -> bool {
        let (_, free) = self.roomiest();
        free < FREE_MIN.min(self.options.descriptors / 2) && self.rings.len() < self.count_max
    }

    /// Gives up opening more: the system refused.
    pub(super) fn stop_opening(&mut self) {
        self.count_max = self.rings.len();
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

/// A ring that has `grant` of `count` buffers, and the others.
fn with_buffers(options: RingOptions, count: u16, grant: usize) -> io::Result<(NetRing, Vec<Buffer>)> {
    let (buffers, mut reserve) = ReceiveBuffers::new(count, BUFFER_SIZE);
    let mut ring = NetRing::new(options, buffers)?;
    reserve.drain(..grant.min(reserve.len())).for_each(|token| ring.publish(token));
    Ok((ring, reserve))
}
