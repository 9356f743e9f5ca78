//! Whether each ring of a host is whole after all it went through: not what it says of itself, but what the kernel still gives it.

use crate::host::{BUFFER_SIZE, BUFFERS, DESCRIPTORS, PERMANENT};
use nix::errno::Errno;
use quelea::base::ConnectionId;
use quelea::runtime::net::{Buffer, Completion, Descriptor, Ended, NetRing, Rings};
use std::collections::VecDeque;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

const STEP: Duration = Duration::from_secs(5);
const ID: ConnectionId = ConnectionId { slot: 1, generation: 1 };

/// Asserts that nothing is in flight, that every slot can be filled, and that every buffer is received into.
pub(crate) fn check(rings: &mut Rings) {
    for index in 0..rings.end() {
        if !rings.is_open(index) {
            continue;
        }
        let reserved = rings.reserved(index);
        assert_idle(rings, index);
        let ring = rings.at(index);
        let buffers = usize::from(ring.published());
        assert_eq!(
            buffers + reserved,
            usize::from(BUFFERS),
            "buffers with the kernel, and those it does not need"
        );
        let mut bench = Bench { ring, buffers, completions: VecDeque::new() };
        bench.check_slots_and_buffers();
        assert_idle(rings, index);
    }
}

fn assert_idle(rings: &mut Rings, index: usize) {
    let ring = rings.at(index);
    let permanent = if index == 0 { PERMANENT } else { 0 };
    assert_eq!(ring.outstanding(), permanent, "operations in flight");
    assert_eq!((ring.sends(), ring.accepts()), (0, 0), "sends and accepts in flight");
    assert_eq!(ring.descriptors_used(), 0, "descriptors in use");
}

/// A ring and what it completed but nobody asked for yet.
struct Bench<'a> {
    ring: &'a mut NetRing,
    /// Those the kernel has.
    buffers: usize,
    completions: VecDeque<Completion>,
}

impl Bench<'_> {
    fn check_slots_and_buffers(&mut self) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let to = listener.local_addr().expect("bound");
        let mut clients = Vec::new();
        let mut descriptors: Vec<Descriptor> = Vec::new();
        for slot in 0..DESCRIPTORS {
            clients.push(TcpStream::connect(to).expect("the listener listens"));
            self.ring.accept(1, &listener);
            match self.next() {
                Completion::Accepted { descriptor, .. } => descriptors.push(descriptor),
                other => panic!("slot {slot} of {}: {other:?}", DESCRIPTORS),
            }
        }
        clients.push(TcpStream::connect(to).expect("the listener listens"));
        self.ring.accept(1, &listener);
        let refused = self.next();
        assert!(matches!(refused, Completion::AcceptFailed { error: Errno::ENFILE, .. }), "{refused:?}");
        self.check_buffers(&mut clients[0], descriptors[0]);
        descriptors.into_iter().for_each(|descriptor| self.ring.close(descriptor));
        self.ring.submit().expect("the ring takes entries");
    }

    fn check_buffers(&mut self, client: &mut TcpStream, descriptor: Descriptor) {
        let size = BUFFER_SIZE as usize;
        let count = self.buffers;
        client.write_all(&vec![7; count * size + 1]).expect("the socket takes a little");
        self.ring.receive_multishot(ID, descriptor);
        let mut buffers: Vec<Buffer> = Vec::new();
        loop {
            match self.next() {
                Completion::Received { connection: ID, buffer, .. } => {
                    let is_new = !buffers.contains(&buffer);
                    assert!(buffer.len() == size && is_new, "each once, and full: {buffer:?}");
                    buffers.push(buffer);
                }
                Completion::ReceiveEnded { connection: ID, ended } => {
                    assert_eq!((ended, buffers.len()), (Ended::NoBuffers, count), "all were filled");
                    break;
                }
                other => panic!("nobody asked for it: {other:?}"),
            }
        }
        buffers.into_iter().for_each(|buffer| self.ring.publish(buffer));
        self.ring.receive(ID, descriptor);
        match self.next() {
            Completion::Received { connection: ID, buffer, last: true } if buffer.len() == 1 => {
                self.ring.publish(buffer);
            }
            other => panic!("the byte that is left: {other:?}"),
        }
    }

    /// The next completion that is not a bell.
    fn next(&mut self) -> Completion {
        for _ in 0..100 {
            if let Some(completion) = self.completions.pop_front() {
                return completion;
            }
            self.ring.wait(Some(STEP / 100)).expect("the ring takes entries");
            let mut batch = Vec::new();
            self.ring.reap(&mut batch);
            batch.retain(|completion| !matches!(completion, Completion::Woken));
            self.completions.extend(batch);
        }
        panic!("nothing completed in time");
    }
}
