//! Sending out-buffers: whole, in order, one in flight a connection. The ring keeps the buffer until the last byte was taken
//! by the socket, and asks again by itself when the kernel took less.
#![allow(unsafe_code, reason = "a zeroed message header")]

use super::completion::Completion;
use super::ring::{Descriptor, NetRing};
use super::tag::{Op, Tag};
use crate::base::{ConnectionId, OutBuffer, Slab};
use io_uring::{opcode, squeue, types};
use nix::errno::Errno;
use std::mem;

/// Sends in flight.
pub(super) type Sends = Slab<Sending>;

/// Names a send in flight, to cancel it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendId(pub u32);

/// Pieces of one SENDMSG: beyond, another one follows. The kernel's bound is 1024.
const PIECES_MAX: usize = 256;

/// Not MSG_WAITALL: with it one operation waits for room again and again, and after 128 times the kernel gives it a worker
/// thread of its own, for as long as the peer does not read. So a send ends with what the socket took, and is asked again.
const FLAGS: i32 = libc::MSG_NOSIGNAL;

pub(super) struct Sending {
    connection: ConnectionId,
    descriptor: Descriptor,
    sent: usize,
    /// Cancelled: what was sent in part is not continued.
    cancelled: bool,
    buffer: Box<OutBuffer>,
    header: Option<Box<Header>>,
}

/// What SENDMSG reads besides the bytes.
struct Header {
    message: libc::msghdr,
    pieces: Vec<libc::iovec>,
}

impl NetRing {
    /// Sends `buffer` whole; [`Completion::Sent`] gives it back. The caller starts no other send of this connection before.
    ///
    /// # Panics
    /// If the buffer is empty.
    pub fn send(
        &mut self,
        connection: ConnectionId,
        descriptor: Descriptor,
        buffer: Box<OutBuffer>,
    ) -> SendId {
        assert!(!buffer.is_empty(), "a send has bytes");
        let sending = Sending { connection, descriptor, sent: 0, cancelled: false, buffer, header: None };
        let (index, generation) = self.sends.insert(sending);
        self.submit_send(Tag::new(Op::Send, index, generation));
        SendId(index)
    }

    /// Ends the send in flight, if it is still `connection`'s: it completes with `ECANCELED`, or as it would have.
    pub fn cancel_send(&mut self, send: SendId, connection: ConnectionId) {
        let Some(generation) = self.sends.generation_at(send.0) else { return };
        let Some(sending) = self.sends.at_mut(send.0).filter(|sending| sending.connection == connection)
        else {
            return;
        };
        sending.cancelled = true;
        let tag = Tag::new(Op::Send, send.0, generation);
        self.push_silent(opcode::AsyncCancel::new(tag.encode()).build());
    }

    /// Sends whose [`Completion::Sent`] was not reaped yet.
    #[must_use]
    pub fn sends(&self) -> usize {
        self.sends.len()
    }

    /// Continues nothing that is in flight.
    pub(super) fn cancel_sends(&mut self) {
        let all: Vec<_> =
            self.sends.iter().map(|(index, _, sending)| (SendId(index), sending.connection)).collect();
        for (send, connection) in all {
            self.cancel_send(send, connection);
        }
    }

    /// Asks again for what found the kernel short of memory. What was cancelled in between is asked for and cancelled: the
    /// first cancel found nothing to end.
    pub(super) fn retry_sends(&mut self) {
        for tag in mem::take(&mut self.retries) {
            self.submit_send(tag);
            if self.sends.get(tag.index, tag.generation).is_some_and(|sending| sending.cancelled) {
                self.push_silent(opcode::AsyncCancel::new(tag.encode()).build());
            }
        }
    }

    fn submit_send(&mut self, tag: Tag) {
        let sending = self.sends.get_mut(tag.index, tag.generation).expect("the send is in flight");
        let entry = sending.entry();
        self.push(tag, entry);
    }

    pub(super) fn sent(&mut self, tag: Tag, result: Result<u32, Errno>, completions: &mut Vec<Completion>) {
        let sending = self.sends.get_mut(tag.index, tag.generation).expect("a send completes once");
        let result = match result {
            Ok(len) => {
                sending.sent += len as usize;
                if sending.sent >= sending.buffer.len() {
                    Ok(())
                } else if sending.cancelled {
                    Err(Errno::ECANCELED)
                } else {
                    return self.submit_send(tag);
                }
            }
            // A passing shortage of the kernel's: the socket is sound and nothing of this attempt was taken. A cancelled send is
            // interrupted instead if the kernel had moved it to a worker, as it does when a send has to wait very often.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS | Errno::ENOMEM) => {
                if !sending.cancelled {
                    return self.retries.push(tag);
                }
                Err(Errno::ECANCELED)
            }
            Err(error) => Err(error),
        };
        let Sending { connection, buffer, .. } =
            self.sends.remove(tag.index, tag.generation).expect("found above");
        completions.push(Completion::Sent { connection, buffer, result });
    }
}

impl Sending {
    /// The next attempt: what was not sent yet.
    fn entry(&mut self) -> squeue::Entry {
        let fd = types::Fixed(self.descriptor.0);
        if let Some(bytes) = self.buffer.contiguous() {
            let rest = &bytes[self.sent..];
            let len = u32::try_from(rest.len()).unwrap_or(u32::MAX);
            return opcode::Send::new(fd, rest.as_ptr(), len).flags(FLAGS).build();
        }
        let pieces = self
            .buffer
            .slices(self.sent, PIECES_MAX)
            .into_iter()
            .map(|piece| libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() });
        let header = self.header.get_or_insert_with(|| Box::new(Header::new()));
        header.pieces.clear();
        header.pieces.extend(pieces);
        header.message.msg_iov = header.pieces.as_mut_ptr();
        #[allow(clippy::useless_conversion, reason = "the type differs between C libraries")]
        let count = header.pieces.len().try_into().expect("at most PIECES_MAX");
        header.message.msg_iovlen = count;
        #[allow(clippy::cast_sign_loss, reason = "flags are a set of bits")]
        let flags = FLAGS as u32;
        opcode::SendMsg::new(fd, &raw const header.message).flags(flags).build()
    }
}

impl Header {
    fn new() -> Self {
        // SAFETY: a message header is plain data, for which zeroes mean "no address, no pieces, no control data".
        let message = unsafe { mem::zeroed() };
        Self { message, pieces: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::net::{ReceiveBuffers, RingOptions};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::time::Duration;

    const STEP: Duration = Duration::from_secs(5);

    fn next(ring: &mut NetRing) -> Completion {
        let mut completions = Vec::new();
        for _ in 0..100 {
            ring.wait(Some(STEP / 100)).unwrap();
            ring.reap(&mut completions);
            if let Some(completion) = completions.pop() {
                assert!(completions.is_empty(), "one at a time: {completions:?}");
                return completion;
            }
        }
        panic!("nothing completed in time");
    }

    /// Whether the kernel runs a worker for a ring of this thread.
    fn has_worker() -> bool {
        let name = format!("iou-wrk-{}", nix::unistd::gettid());
        let name = &name[..name.len().min(15)];
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let names = tasks.map_while(Result::ok).map(|task| std::fs::read_to_string(task.path().join("comm")));
        names.map_while(Result::ok).any(|comm| comm.trim_end() == name)
    }

    #[test]
    fn a_slow_reader_takes_no_worker_thread() {
        let (buffers, _) = ReceiveBuffers::new(1, 64);
        let options = RingOptions { submissions: 8, completions: 8, descriptors: 2 };
        let mut ring = NetRing::new(options, buffers).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket2::SockRef::from(&listener).set_send_buffer_size(4096).unwrap();
        // Small segments: a window far below loopback's own would be told the sender by timers only.
        let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        client.set_tcp_mss(536).unwrap();
        client.connect(&listener.local_addr().unwrap().into()).unwrap();
        let client = TcpStream::from(client);
        socket2::SockRef::from(&client).set_recv_buffer_size(4096).unwrap();
        ring.accept(0, &listener);
        let Completion::Accepted { descriptor, .. } = next(&mut ring) else { panic!("accepted") };
        let connection = ConnectionId { slot: 0, generation: 0 };
        let mut buffer = Box::<OutBuffer>::default();
        // With MSG_WAITALL there is a worker after 4 MB.
        buffer.bytes_mut().resize(6 << 20, 1);
        ring.send(connection, descriptor, buffer);
        client.set_nonblocking(true).unwrap();
        let (mut read, mut completions) = (0, Vec::new());
        while ring.sends() > 0 {
            ring.wait(Some(Duration::from_millis(1))).unwrap();
            ring.reap(&mut completions);
            let mut piece = [0; 8192];
            read += std::io::Read::read(&mut &client, &mut piece).unwrap_or(0);
            assert!(!has_worker(), "after {read} bytes");
        }
        assert!(matches!(completions[..], [Completion::Sent { result: Ok(()), .. }]), "{completions:?}");
    }

    #[test]
    fn a_send_can_be_cancelled_while_it_waits_to_be_asked_again() {
        let (buffers, _) = ReceiveBuffers::new(1, 64);
        let options = RingOptions { submissions: 8, completions: 8, descriptors: 2 };
        let mut ring = NetRing::new(options, buffers).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        ring.accept(0, &listener);
        let Completion::Accepted { descriptor, .. } = next(&mut ring) else { panic!("accepted") };
        // As `sent` leaves it when the kernel was short of memory: more than the socket takes, and nobody reads.
        let connection = ConnectionId { slot: 0, generation: 0 };
        let mut buffer = Box::<OutBuffer>::default();
        buffer.bytes_mut().resize(64 << 20, 1);
        let sending = Sending { connection, descriptor, sent: 0, cancelled: false, buffer, header: None };
        let (index, generation) = ring.sends.insert(sending);
        ring.retries.push(Tag::new(Op::Send, index, generation));
        ring.cancel_send(SendId(index), connection);
        let sent = next(&mut ring);
        assert!(matches!(sent, Completion::Sent { result: Err(Errno::ECANCELED), .. }), "{sent:?}");
        assert_eq!((ring.sends(), ring.outstanding()), (0, 0));
    }
}
