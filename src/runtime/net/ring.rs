//! [`NetRing`]: set-up, submission, waiting and reaping. What can be asked of it is in the files named after the operations.
//!
//! Invariants: one thread uses a ring (the kernel refuses others); what an operation in flight points to is owned by the ring
//! until the operation's last completion was reaped, also when the ring is dropped.
#![allow(unsafe_code, reason = "submission entries carry pointers")]

use super::accept::Accepts;
use super::buffer_ring::BufferRing;
use super::buffers::{Buffer, ReceiveBuffers};
use super::completion::Completion;
use super::connect::Connects;
use super::file::Transfers;
use super::send::Sends;
use super::tag::{Op, Tag};
use super::wake::Wakes;
use crate::base::ConnectionId;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use nix::errno::Errno;
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::Duration;
use std::{fmt, io, mem};

/// A socket in a ring's table of direct descriptors.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Descriptor(pub u32);

/// Names a ring to the other rings of the process, while it is open: then the number may be another's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingFd(pub(super) RawFd);

impl RingFd {
    /// As a number, which is not [`u32::MAX`].
    #[allow(clippy::cast_sign_loss, reason = "descriptors are not negative")]
    pub(in crate::runtime) fn bits(self) -> u32 {
        self.0 as u32
    }

    /// From what [`bits`](Self::bits) gave.
    #[allow(clippy::cast_possible_wrap, reason = "descriptors are not negative")]
    pub(in crate::runtime) fn from_bits(bits: u32) -> Self {
        Self(bits as RawFd)
    }
}

/// The sizes of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingOptions {
    /// Operations between two submissions; more are submitted early.
    pub submissions: u32,
    /// Completions between two reaps; more wait in the kernel, at a cost.
    pub completions: u32,
    /// Sockets at most; the process's descriptor limit bounds it.
    pub descriptors: u32,
}

impl Default for RingOptions {
    /// For a shard's first ring: 128 KiB and 256 KiB of queues.
    fn default() -> Self {
        Self { submissions: 2048, completions: 16_384, descriptors: 16_384 }
    }
}

/// How long a send that found the kernel short of memory waits.
/// Entries of deferred work that one call runs at most while very much has happened at once. Otherwise it is 20.
const WORK_A_CALL: usize = 512;
const RETRY: Duration = Duration::from_millis(10);

/// An io_uring with its direct descriptors, receive buffers and operations in flight.
pub struct NetRing {
    // Dropped first: what follows is shared with it.
    pub(super) ring: IoUring,
    pub(super) buffer_ring: BufferRing,
    pub(super) buffers: Rc<ReceiveBuffers>,
    pub(super) accepts: Accepts,
    pub(super) sends: Sends,
    pub(super) connects: Connects,
    pub(super) wakes: Wakes,
    pub(super) transfers: Transfers,
    /// Entries that found the submission queue full, in order.
    backlog: VecDeque<squeue::Entry>,
    /// Sends that found the kernel short of memory: asked again after the next wait.
    pub(super) retries: Vec<Tag>,
    /// Operations whose last completion was not reaped yet.
    outstanding: u32,
    /// The ring is being dropped: nothing is asked again.
    pub(super) closing: bool,
    descriptors: u32,
    descriptors_used: u32,
    raw: Vec<cqueue::Entry>,
}

impl NetRing {
    /// A ring of the calling thread, receiving into `buffers` (none is published yet).
    ///
    /// # Errors
    /// Whatever the kernel says to the set-up; [`probe`](super::probe) knows what to tell the operator.
    pub fn new(options: RingOptions, buffers: Rc<ReceiveBuffers>) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(options.completions)
            .build(options.submissions)?;
        ring.submitter().register_files_sparse(options.descriptors)?;
        let buffer_ring = BufferRing::register(&ring, &buffers)?;
        Ok(Self {
            ring,
            buffer_ring,
            buffers,
            accepts: Accepts::default(),
            sends: Sends::default(),
            connects: Connects::default(),
            wakes: Wakes::default(),
            transfers: Transfers::default(),
            backlog: VecDeque::new(),
            retries: Vec::new(),
            outstanding: 0,
            closing: false,
            descriptors: options.descriptors,
            descriptors_used: 0,
            raw: Vec::new(),
        })
    }

    /// The name under which other rings of the process reach this one.
    #[must_use]
    pub fn ring_fd(&self) -> RingFd {
        RingFd(self.ring.as_raw_fd())
    }

    /// The memory received into.
    #[must_use]
    pub fn buffers(&self) -> &Rc<ReceiveBuffers> {
        &self.buffers
    }

    /// Gives a buffer (back) to the kernel, to receive into.
    pub fn publish(&mut self, buffer: Buffer) {
        self.buffer_ring.push(&self.buffers, buffer);
    }

    /// Buffers with the kernel.
    #[must_use]
    pub fn published(&self) -> u16 {
        self.buffer_ring.published()
    }

    /// Gives the pages of the receive buffers back to the system, if nothing received waits in them: the kernel has all but
    /// `spare` that were never published. They become resident again one by one.
    ///
    /// Receives write to them only while this thread is in the kernel (DEFER_TASKRUN), and every buffer they have filled is
    /// named by a completion, here or among those that found no room and wait in the kernel: so no byte is lost.
    pub fn release_buffers(&mut self, spare: usize) {
        let empty = usize::from(self.buffer_ring.published()) + spare;
        let is_complete = self.is_complete() || self.ring.submission().cq_overflow();
        if empty == usize::from(self.buffers.count()) && !is_complete {
            self.buffers.discard();
        }
        self.raw = Vec::new();
        self.sends.shrink();
        self.connects.shrink();
    }

    /// Direct descriptors in use, as far as completions were reaped.
    #[must_use]
    pub fn descriptors_used(&self) -> u32 {
        self.descriptors_used
    }

    /// Direct descriptors that are free.
    #[must_use]
    pub fn descriptors_free(&self) -> u32 {
        self.descriptors.saturating_sub(self.descriptors_used)
    }

    /// Counts a descriptor that another ring handed over to this one.
    pub fn adopt(&mut self, descriptor: Descriptor) {
        assert!(descriptor.0 < self.descriptors, "the kernel hands out slots of the table");
        self.descriptors_used += 1;
    }

    /// Closes a socket. Its operations must be over (or about to be: the socket lives until they are).
    pub fn close(&mut self, descriptor: Descriptor) {
        self.descriptors_used =
            self.descriptors_used.checked_sub(1).expect("only open descriptors are closed");
        self.push_silent(opcode::Close::new(types::Fixed(descriptor.0)).build());
    }

    /// Ends the sending side: the peer reads the end of the stream after what was sent. One [`Completion::SendingEnded`].
    ///
    /// Runs on a kernel worker thread, which costs more than a close: only for last words that must not be lost to a reset.
    /// That thread looks the descriptor up when it gets to it: closed before, it may be another connection's by then.
    pub fn end_sending(&mut self, connection: ConnectionId, descriptor: Descriptor) {
        let entry = opcode::Shutdown::new(types::Fixed(descriptor.0), libc::SHUT_WR).build();
        self.push(Tag::of(Op::EndSending, connection), entry);
    }

    /// Whether it has no sockets and nothing to do but to accept; `spare` receive buffers were never published.
    #[must_use]
    pub fn is_unused(&self, spare: usize) -> bool {
        let has_buffers =
            usize::from(self.buffer_ring.published()) + spare == usize::from(self.buffers.count());
        let accepts_only = self.outstanding as usize == self.accepts.len() && self.sends.is_empty();
        has_buffers && accepts_only && self.descriptors_used == 0
    }

    /// Whether nothing at all is in flight, queued, or to be reaped.
    #[must_use]
    pub fn is_idle(&mut self) -> bool {
        self.outstanding == 0 && self.retries.is_empty() && !self.is_pending() && !self.is_complete()
    }

    /// Operations that have not completed for the last time.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.outstanding
    }

    /// Whether [`submit`](Self::submit) would do anything: entries wait, or the kernel has deferred work.
    /// Costs no system call.
    #[must_use]
    pub fn is_pending(&mut self) -> bool {
        let submission = self.ring.submission();
        !submission.is_empty() || submission.taskrun() || submission.cq_overflow() || !self.backlog.is_empty()
    }

    /// Whether completions wait to be reaped. Costs no system call.
    #[must_use]
    pub fn is_complete(&mut self) -> bool {
        !self.ring.completion().is_empty()
    }

    /// Submits what was asked for and runs the kernel's deferred work, without waiting.
    ///
    /// # Errors
    /// Only what cannot be mended by trying again.
    pub fn submit(&mut self) -> io::Result<()> {
        self.submit_by(|ring| ring.submit())
    }

    /// The same, and runs much more of the kernel's deferred work: 20 entries a call, or as many as are waited for, if these are
    /// more. So many are, and for no time at all, which costs a timer.
    ///
    /// # Errors
    /// Only what cannot be mended by trying again.
    pub fn submit_thoroughly(&mut self) -> io::Result<()> {
        let none = types::Timespec::new();
        let arguments = types::SubmitArgs::new().timespec(&none);
        self.submit_by(|ring| ring.submitter().submit_with_args(WORK_A_CALL, &arguments))
    }

    fn submit_by(&mut self, submit: impl FnOnce(&mut IoUring) -> io::Result<usize>) -> io::Result<()> {
        self.prepare();
        let result = if self.is_pending() { forgive(submit(&mut self.ring)) } else { Ok(()) };
        self.retry_sends();
        result
    }

    /// Submits, then waits until something completes or `timeout` (`None`: for ever) is over.
    ///
    /// # Errors
    /// Only what cannot be mended by trying again.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.prepare();
        let timeout =
            if self.retries.is_empty() { timeout } else { Some(RETRY.min(timeout.unwrap_or(RETRY))) };
        let result = if let Some(timeout) = timeout {
            let timespec = types::Timespec::from(timeout);
            let arguments = types::SubmitArgs::new().timespec(&timespec);
            self.ring.submitter().submit_with_args(1, &arguments)
        } else {
            self.ring.submit_and_wait(1)
        };
        self.retry_sends();
        forgive(result)
    }

    /// Appends what completed since the last time, in order.
    pub fn reap(&mut self, completions: &mut Vec<Completion>) {
        let mut raw = mem::take(&mut self.raw);
        raw.extend(self.ring.completion());
        for entry in raw.drain(..) {
            self.decode(&entry, completions);
        }
        self.raw = raw;
    }

    fn decode(&mut self, entry: &cqueue::Entry, completions: &mut Vec<Completion>) {
        let tag = Tag::decode(entry.user_data());
        let flags = entry.flags();
        let more = cqueue::more(flags);
        if !more && !matches!(tag.op, Op::Doorbell | Op::Silent) {
            self.outstanding = self.outstanding.checked_sub(1).expect("what completes was asked for");
        }
        let result = u32::try_from(entry.result()).map_err(|_| Errno::from_raw(-entry.result()));
        match tag.op {
            Op::Receive => self.received(tag, result, cqueue::buffer_select(flags), more, completions),
            Op::Send => self.sent(tag, result, completions),
            Op::Accept => self.accepted(tag, result, completions),
            Op::HandOver => {
                let result = result.map(Descriptor);
                completions.push(Completion::HandedOver { connection: tag.connection(), result });
            }
            Op::Socket | Op::Bind | Op::Connect => self.connecting(tag, result, completions),
            Op::Transfer | Op::Sync => self.transferred(tag, result, completions),
            Op::Doorbell => completions.push(Completion::Woken),
            Op::Wake => self.woken(tag, completions),
            Op::EndSending => completions.push(Completion::SendingEnded { connection: tag.connection() }),
            // A cancel that found nothing, a bell of a shard that is gone: the operation's own completion says it all.
            Op::Silent => {}
        }
    }

    /// Queues an operation that completes.
    pub(super) fn push(&mut self, tag: Tag, entry: squeue::Entry) {
        self.outstanding += 1;
        self.enqueue(entry.user_data(tag.encode()));
    }

    /// Queues an operation and what follows if it succeeds. Together they complete once: the first only if it fails, and then
    /// the second does not.
    pub(super) fn push_linked(
        &mut self,
        first_tag: Tag,
        first: squeue::Entry,
        second_tag: Tag,
        second: squeue::Entry,
    ) {
        self.outstanding += 1;
        let flags = squeue::Flags::IO_LINK | squeue::Flags::SKIP_SUCCESS;
        let first = first.user_data(first_tag.encode()).flags(flags);
        self.enqueue_linked(first, second.user_data(second_tag.encode()));
    }

    /// Queues an operation whose success nobody waits for.
    pub(super) fn push_silent(&mut self, entry: squeue::Entry) {
        let tag = Tag::new(Op::Silent, 0, 0);
        self.enqueue(entry.user_data(tag.encode()).flags(squeue::Flags::SKIP_SUCCESS));
    }

    /// Queues an entry; when the queue is full, submits first, and what still does not fit waits.
    fn enqueue(&mut self, entry: squeue::Entry) {
        if self.backlog.is_empty() && self.try_push(&entry) {
            return;
        }
        // An error here shows again at the end of the turn, where it is handled.
        drop(self.submit());
        if !self.backlog.is_empty() || !self.try_push(&entry) {
            self.backlog.push_back(entry);
        }
    }

    /// Queues two entries of which the first links to the second: in one submission, or the link would not hold.
    fn enqueue_linked(&mut self, first: squeue::Entry, second: squeue::Entry) {
        if self.backlog.is_empty() && self.room() < 2 {
            // An error here shows again at the end of the turn, where it is handled.
            drop(self.submit());
        }
        if self.backlog.is_empty() && self.room() >= 2 {
            let pushed = self.try_push(&first) && self.try_push(&second);
            assert!(pushed, "there was room for both");
        } else {
            self.backlog.extend([first, second]);
        }
    }

    /// Free entries of the submission queue.
    fn room(&mut self) -> usize {
        let submission = self.ring.submission();
        submission.capacity() - submission.len()
    }

    pub(super) fn descriptor_opened(&mut self) {
        self.descriptors_used += 1;
    }

    fn prepare(&mut self) {
        self.buffer_ring.commit();
        while let Some(entry) = self.backlog.front().cloned() {
            // What may be linked to the next goes with it.
            let is_first = matches!(Tag::decode(entry.get_user_data()).op, Op::Bind | Op::Transfer);
            if self.room() < 1 + usize::from(is_first) || !self.try_push(&entry) {
                break;
            }
            self.backlog.pop_front();
        }
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: every pointer in an entry goes to memory that is owned by `accepts`, `sends`, `connects`, `wakes` or
        // `transfers` (or is static) and stays there, unmoved, until `decode` has seen the operation's last completion; `drop` waits for these.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    /// Cancels everything and waits for the last completions, for 2 s at most. Says whether all came.
    ///
    /// The kernel searches from the front for each operation it cancels, so cancelling 16,000 takes minutes: of so many only
    /// those are waited for that end by themselves. Who drops a ring has ended its receives before, or the process ends.
    fn quiesce(&mut self) -> bool {
        self.closing = true;
        self.cancel_sends();
        for _ in 0..200 {
            if self.outstanding == 0 {
                return true;
            }
            if self.outstanding <= CANCELLED_AT_ONCE {
                self.push_silent(opcode::AsyncCancel2::new(types::CancelBuilder::any().all()).build());
            }
            if self.wait(Some(Duration::from_millis(10))).is_err() {
                return false;
            }
            self.reap(&mut Vec::new());
        }
        self.outstanding == 0
    }
}

/// Operations that one request may cancel.
const CANCELLED_AT_ONCE: u32 = 1024;

/// Time-outs, signals and passing shortages are no errors: the entries stay queued and the next turn tries again.
fn forgive(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
            Errno::ETIME | Errno::EINTR | Errno::EAGAIN | Errno::EBUSY => Ok(()),
            _ => Err(error),
        },
    }
}

impl Drop for NetRing {
    fn drop(&mut self) {
        if !self.quiesce() {
            // The kernel may still write: what it was given is leaked rather than freed under it.
            mem::forget(mem::take(&mut self.accepts));
            mem::forget(mem::take(&mut self.sends));
            mem::forget(mem::take(&mut self.connects));
            mem::forget(mem::take(&mut self.wakes));
            mem::forget(mem::take(&mut self.transfers));
            mem::forget(Rc::clone(&self.buffers));
        }
    }
}

impl fmt::Debug for NetRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetRing")
            .field("fd", &self.ring.as_raw_fd())
            .field("outstanding", &self.outstanding)
            .field("descriptors_used", &self.descriptors_used)
            .field("published", &self.buffer_ring.published())
            .finish_non_exhaustive()
    }
}
