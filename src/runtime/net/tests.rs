//! Each operation of the ring on loopback, against ordinary blocking sockets.
#![allow(clippy::cast_possible_truncation, reason = "patterns of bytes")]

use super::*;
use crate::base::{ConnectionId, Message, MessageHead, MessageRef, OutBuffer, QoS, VhostId, Wall};
use nix::errno::Errno;
use nix::sys::eventfd::EventFd;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

const SMALL: RingOptions = RingOptions { submissions: 16, completions: 32, descriptors: 16 };
const A: ConnectionId = ConnectionId { slot: 3, generation: 9 };
const STEP: Duration = Duration::from_secs(5);

fn monotonic() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap().into()
}

/// A ring and what it completed but nobody asked for yet.
struct Bench {
    ring: NetRing,
    completions: std::collections::VecDeque<Completion>,
}

impl Bench {
    fn new() -> Self {
        Self::with(SMALL, 8, 64)
    }

    fn with(options: RingOptions, buffers: u16, size: u32) -> Self {
        let (pool, tokens) = ReceiveBuffers::new(buffers, size);
        let mut ring = NetRing::new(options, pool).unwrap();
        tokens.into_iter().for_each(|token| ring.publish(token));
        Self { ring, completions: std::collections::VecDeque::new() }
    }

    fn next(&mut self) -> Completion {
        let ends = monotonic() + STEP;
        while self.completions.is_empty() {
            assert!(monotonic() < ends, "nothing completed in time");
            self.ring.wait(Some(STEP)).unwrap();
            let mut batch = Vec::new();
            self.ring.reap(&mut batch);
            self.completions.extend(batch);
        }
        self.completions.pop_front().unwrap()
    }

    fn accept(&mut self, listener: &TcpListener) -> (Descriptor, SocketAddr) {
        self.ring.accept(7, listener);
        match self.next() {
            Completion::Accepted { listener: 7, descriptor, peer } => (descriptor, peer),
            other => panic!("{other:?}"),
        }
    }

    fn received(&mut self) -> (Vec<u8>, bool) {
        match self.next() {
            Completion::Received { connection: A, buffer, last } => {
                let bytes = self.ring.buffers().bytes(&buffer).to_vec();
                self.ring.publish(buffer);
                (bytes, last)
            }
            other => panic!("{other:?}"),
        }
    }

    fn ended(&mut self) -> Ended {
        match self.next() {
            Completion::ReceiveEnded { connection: A, ended } => ended,
            other => panic!("{other:?}"),
        }
    }

    fn sent(&mut self) -> Result<(), Errno> {
        match self.next() {
            Completion::Sent { connection: A, result, .. } => result,
            other => panic!("{other:?}"),
        }
    }
}

fn pair(bench: &mut Bench) -> (TcpStream, Descriptor) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (descriptor, peer) = bench.accept(&listener);
    assert_eq!(peer, client.local_addr().unwrap());
    (client, descriptor)
}

fn buffer(bytes: &[u8]) -> Box<OutBuffer> {
    let mut buffer = Box::<OutBuffer>::default();
    buffer.bytes_mut().extend_from_slice(bytes);
    buffer
}

fn message(payload: &[u8]) -> Arc<Message> {
    let head = MessageHead {
        vhost: VhostId(0),
        qos: QoS::AtMostOnce,
        retain: false,
        expires_at: Wall::NEVER,
        publisher: None,
    };
    MessageRef { head, topic: "t", properties: &[], payload }.to_shared()
}

#[test]
fn accepts_tell_the_peer_and_end_when_cancelled_or_full() {
    let mut bench = Bench::with(RingOptions { descriptors: 2, ..SMALL }, 1, 64);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let clients = [(); 3].map(|()| TcpStream::connect(address).unwrap());
    for client in &clients[..2] {
        let (descriptor, peer) = bench.accept(&listener);
        assert_eq!(peer, client.local_addr().unwrap());
        assert!(descriptor.0 < 2);
    }
    assert_eq!(bench.ring.descriptors_free(), 0);
    bench.ring.accept(7, &listener);
    assert!(matches!(bench.next(), Completion::AcceptFailed { listener: 7, error: Errno::ENFILE }));
    bench.ring.accept(8, &listener);
    bench.ring.cancel_accepts();
    assert!(matches!(bench.next(), Completion::AcceptFailed { listener: 8, error: Errno::ECANCELED }));
    assert_eq!((bench.ring.accepts(), bench.ring.outstanding()), (0, 0));
}

#[test]
fn receives_single_shot_and_multishot() {
    let mut bench = Bench::new();
    let (mut client, descriptor) = pair(&mut bench);
    bench.ring.receive(A, descriptor);
    client.write_all(b"one").unwrap();
    assert_eq!(bench.received(), (b"one".to_vec(), true));
    bench.ring.receive_multishot(A, descriptor);
    for text in [b"two", b"six"] {
        client.write_all(text).unwrap();
        assert_eq!(bench.received(), (text.to_vec(), false));
    }
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(bench.ended(), Ended::Closed);
    bench.ring.close(descriptor);
    let mut end = [0];
    bench.ring.submit().unwrap();
    assert_eq!(client.read(&mut end).unwrap(), 0);
    assert_eq!((bench.ring.outstanding(), bench.ring.published(), bench.ring.descriptors_used()), (0, 8, 0));
}

#[test]
fn a_thorough_submit_waits_for_nothing_and_submits_all_the_same() {
    let mut bench = Bench::new();
    let (mut client, descriptor) = pair(&mut bench);
    bench.ring.receive_multishot(A, descriptor);
    // Nothing completes: were that waited for, this would be the end.
    bench.ring.submit_thoroughly().unwrap();
    assert!(!bench.ring.is_complete());
    client.write_all(b"one").unwrap();
    while !bench.ring.is_complete() {
        bench.ring.submit_thoroughly().unwrap();
    }
    assert_eq!(bench.received(), (b"one".to_vec(), false));
}

#[test]
fn a_cancelled_receive_keeps_what_came_before() {
    let mut bench = Bench::new();
    let (mut client, descriptor) = pair(&mut bench);
    bench.ring.receive_multishot(A, descriptor);
    bench.ring.submit().unwrap();
    client.write_all(b"before").unwrap();
    bench.ring.cancel_receive(A);
    let mut bytes = Vec::new();
    loop {
        match bench.next() {
            Completion::Received { buffer, .. } => {
                bytes.extend_from_slice(bench.ring.buffers().bytes(&buffer));
                bench.ring.publish(buffer);
            }
            Completion::ReceiveEnded { ended: Ended::Cancelled, .. } => break,
            other => panic!("{other:?}"),
        }
    }
    client.write_all(b" and after").unwrap();
    bench.ring.receive(A, descriptor);
    bytes.extend(bench.received().0);
    assert_eq!(bytes, b"before and after");
}

#[test]
fn without_buffers_a_receive_ends_and_loses_nothing() {
    let mut bench = Bench::with(SMALL, 1, 4);
    let (mut client, descriptor) = pair(&mut bench);
    client.write_all(b"abcdefgh").unwrap();
    bench.ring.receive_multishot(A, descriptor);
    let Completion::Received { buffer, .. } = bench.next() else { panic!("bytes first") };
    assert_eq!(bench.ring.buffers().bytes(&buffer), b"abcd");
    assert_eq!(bench.ended(), Ended::NoBuffers);
    bench.ring.publish(buffer);
    bench.ring.receive(A, descriptor);
    assert_eq!(bench.received(), (b"efgh".to_vec(), true));
}

#[test]
fn a_reset_connection_fails_its_receive() {
    let mut bench = Bench::new();
    let (client, descriptor) = pair(&mut bench);
    bench.ring.receive_multishot(A, descriptor);
    bench.ring.submit().unwrap();
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(bench.ended(), Ended::Failed(Errno::ECONNRESET));
    bench.ring.send(A, descriptor, buffer(b"x"));
    assert_eq!(bench.sent(), Err(Errno::EPIPE));
}

#[test]
fn sends_one_piece_and_many_whole() {
    let mut bench = Bench::new();
    let (client, descriptor) = pair(&mut bench);
    socket2::SockRef::from(&client).set_recv_buffer_size(65_536).unwrap();
    // Far more than the socket takes at once, and more pieces than one message header.
    let large: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let mut pieces = buffer(b"head");
    let mut expected = large.clone();
    expected.extend_from_slice(b"head");
    for round in 0..400u32 {
        let payload: Vec<u8> = (0..5000).map(|i| ((i + round) % 253) as u8).collect();
        pieces.push_tail(message(&payload), payload.len());
        pieces.bytes_mut().push(round as u8);
        expected.extend_from_slice(&payload);
        expected.push(round as u8);
    }
    let reader = read_all(client);
    bench.ring.send(A, descriptor, buffer(&large));
    assert_eq!(bench.sent(), Ok(()));
    bench.ring.send(A, descriptor, pieces);
    assert_eq!(bench.sent(), Ok(()));
    bench.ring.close(descriptor);
    bench.ring.submit().unwrap();
    assert!(reader.recv_timeout(Duration::from_secs(5)).unwrap() == expected);
    assert_eq!((bench.ring.outstanding(), bench.ring.descriptors_used()), (0, 0));
}

fn read_all(mut client: TcpStream) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).unwrap();
        sender.send(bytes).unwrap();
    });
    receiver
}

#[test]
fn a_stuck_send_can_be_cancelled() {
    let mut bench = Bench::new();
    let (_client, descriptor) = pair(&mut bench);
    let send = bench.ring.send(A, descriptor, buffer(&vec![1; 64 << 20]));
    bench.ring.submit().unwrap();
    let other = ConnectionId { generation: A.generation + 1, ..A };
    bench.ring.cancel_send(send, other);
    bench.ring.submit().unwrap();
    assert_eq!(bench.ring.outstanding(), 1, "somebody else's send is left alone");
    bench.ring.cancel_send(send, A);
    assert_eq!(bench.sent(), Err(Errno::ECANCELED));
}

#[test]
fn a_socket_moves_to_another_threads_ring() {
    let (names, name) = mpsc::channel();
    let (moved, arrive) = mpsc::channel();
    let other = std::thread::spawn(move || {
        let mut bench = Bench::new();
        names.send(bench.ring.ring_fd()).unwrap();
        // The doorbell says that the message is there.
        assert!(matches!(bench.next(), Completion::Woken));
        let descriptor = arrive.try_recv().unwrap();
        bench.ring.adopt(descriptor);
        bench.ring.receive_multishot(A, descriptor);
        let (bytes, _) = bench.received();
        bench.ring.send(A, descriptor, buffer(&bytes));
        bench.sent().unwrap();
        bench.ring.close(descriptor);
    });
    let mut bench = Bench::new();
    let (mut client, descriptor) = pair(&mut bench);
    let to = name.recv().unwrap();
    bench.ring.hand_over(A, descriptor, to);
    let Completion::HandedOver { connection: A, result: Ok(there) } = bench.next() else {
        panic!("handed over")
    };
    bench.ring.close(descriptor);
    moved.send(there).unwrap();
    bench.ring.ring_doorbell(to);
    bench.ring.submit().unwrap();
    client.write_all(b"hello over there").unwrap();
    let mut echo = Vec::new();
    client.read_to_end(&mut echo).unwrap();
    assert_eq!(echo, b"hello over there");
    other.join().unwrap();
    assert_eq!(bench.ring.descriptors_used(), 0);
}

#[test]
fn a_full_table_refuses_a_hand_over() {
    let mut full = Bench::with(RingOptions { descriptors: 1, ..SMALL }, 1, 64);
    let _kept = pair(&mut full);
    let mut bench = Bench::new();
    let (_client, descriptor) = pair(&mut bench);
    bench.ring.hand_over(A, descriptor, full.ring.ring_fd());
    bench.ring.submit().unwrap();
    full.ring.submit().unwrap();
    assert!(matches!(bench.next(), Completion::HandedOver { connection: A, result: Err(Errno::ENFILE) }));
}

#[test]
fn an_event_descriptor_wakes_again_and_again() {
    let mut bench = Bench::new();
    let event = Arc::new(OwnedFd::from(EventFd::new().unwrap()));
    bench.ring.watch(Arc::clone(&event));
    bench.ring.submit().unwrap();
    for _ in 0..3 {
        nix::unistd::write(&event, &1u64.to_ne_bytes()).unwrap();
        assert!(matches!(bench.next(), Completion::Woken));
    }
}

#[test]
fn a_further_ring_reports_to_the_first() {
    let mut first = Bench::new();
    let mut second = Bench::new();
    let event = Arc::new(OwnedFd::from(EventFd::new().unwrap()));
    first.ring.watch(Arc::clone(&event));
    second.ring.report_to(&event).unwrap();
    let (mut client, descriptor) = pair(&mut second);
    second.ring.receive_multishot(A, descriptor);
    second.ring.submit().unwrap();
    for _ in 0..3 {
        client.write_all(b"x").unwrap();
        assert!(matches!(first.next(), Completion::Woken));
        assert!(second.ring.is_pending(), "seen without a system call");
        assert_eq!(second.received().0, b"x");
    }
}

#[test]
fn waiting_ends_with_its_time() {
    let mut bench = Bench::new();
    bench.ring.wait(Some(Duration::from_millis(1))).unwrap();
    assert!(!bench.ring.is_complete());
}

#[test]
fn connects_from_a_source_address_and_reports_refusal() {
    let mut bench = Bench::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = listener.local_addr().unwrap();
    let from = Source { address: "127.0.0.5".parse().unwrap(), ports: (40_000, 40_009) };
    bench.ring.connect(A, to, Some(from));
    let Completion::Connected { connection: A, result: Ok(descriptor) } = bench.next() else {
        panic!("connected")
    };
    let (mut server, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip(), from.address);
    assert!((40_000..=40_009).contains(&peer.port()), "{peer}");
    bench.ring.receive(A, descriptor);
    server.write_all(b"hi").unwrap();
    assert_eq!(bench.received().0, b"hi");
    bench.ring.close(descriptor);

    // Not an address of this machine: the bind fails, the linked connect never starts.
    bench.ring.connect(A, to, Some(Source { address: "192.0.2.1".parse().unwrap(), ..from }));
    assert!(matches!(bench.next(), Completion::Connected { result: Err(Errno::EADDRNOTAVAIL), .. }));
    drop(listener);
    bench.ring.connect(A, to, None);
    assert!(matches!(bench.next(), Completion::Connected { result: Err(Errno::ECONNREFUSED), .. }));
    assert_eq!((bench.ring.outstanding(), bench.ring.descriptors_used()), (0, 0));
}

#[test]
fn more_operations_than_the_queues_hold_are_done_all_the_same() {
    let mut bench = Bench::with(RingOptions { submissions: 4, completions: 8, descriptors: 16 }, 1, 64);
    let (client, descriptor) = pair(&mut bench);
    let reader = read_all(client);
    // One in flight a connection is the rule; here the ring does not know that they are one.
    let ids: Vec<_> = (0..100).map(|slot| ConnectionId { slot, generation: 0 }).collect();
    for id in &ids {
        bench.ring.send(*id, descriptor, buffer(&[id.slot as u8; 10]));
    }
    for id in &ids {
        let Completion::Sent { connection, result: Ok(()), .. } = bench.next() else { panic!("sent") };
        assert_eq!(connection, *id);
    }
    bench.ring.close(descriptor);
    bench.ring.submit().unwrap();
    let bytes = reader.recv_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!(bytes, (0..100u8).flat_map(|i| [i; 10]).collect::<Vec<_>>());
}

#[test]
fn a_dropped_ring_waits_for_its_operations() {
    let mut bench = Bench::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (_client, descriptor) = pair(&mut bench);
    bench.ring.watch(Arc::new(OwnedFd::from(EventFd::new().unwrap())));
    bench.ring.accept(1, &listener);
    bench.ring.receive_multishot(A, descriptor);
    bench.ring.send(A, descriptor, buffer(&vec![1; 64 << 20]));
    bench.ring.submit().unwrap();
    assert_eq!(bench.ring.outstanding(), 4);
    let buffers = std::rc::Rc::clone(bench.ring.buffers());
    let started = monotonic();
    drop(bench);
    assert!(monotonic() - started < Duration::from_secs(1));
    assert_eq!(std::rc::Rc::strong_count(&buffers), 1, "nothing was left to the kernel, so nothing leaked");
}
