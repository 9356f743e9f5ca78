//! The network rings under stress: two hosts on two threads echo what hundreds of clients send, each on up to three rings that it
//! opens as they fill up and closes as they empty, with everything too small — 4 receive buffers, 8 completions and 16 descriptors a ring, 1 KiB of send
//! buffer — and with resets, pauses, cancels and hand-overs between the hosts' rings at any moment.
//!
//! What a client gets back is compared byte by byte; every turn each ring's own numbers are compared with what its host knows;
//! at the end all slots and all buffers are used once more, so that what leaked is missed.
//!
//! A seed fixes what clients and hosts draw; the kernel's scheduling it does not fix. `QUELEA_NETRING_SEED=7` runs that one only.

#![allow(clippy::disallowed_types, reason = "real time, real sockets")]

mod crowd;
mod host;
mod link;
mod plan;
mod rng;
mod whole;

use crowd::{Crowd, Tally};
use host::{Host, RINGS, Seen, Shared};
use nix::sys::eventfd::EventFd;
use plan::Plan;
use quelea::runtime::mailbox::Mesh;
use rng::Rng;
use socket2::{Domain, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};
use std::time::Duration;

const SEEDS: [u64; 2] = [1, 2];
const CLIENTS: usize = 400;
const DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn the_ring_under_stress_loses_no_byte_and_no_slot() {
    let given = std::env::var("QUELEA_NETRING_SEED").ok();
    let seeds = given.map_or_else(|| SEEDS.to_vec(), |seed| vec![seed.parse().expect("a seed is a number")]);
    for seed in seeds {
        println!("QUELEA_NETRING_SEED={seed}");
        let (tally, seen) = run(seed);
        println!("{tally:?}\n{seen:#?}");
        check(tally, seen);
    }
}

fn run(seed: u64) -> (Tally, [Seen; 2]) {
    let events = [(); 2].map(|()| Arc::new(OwnedFd::from(EventFd::new().expect("an event descriptor"))));
    let shared = Arc::new(Shared {
        live: AtomicUsize::new(0),
        mesh: Mesh::new(2, 1),
        stopping: AtomicBool::new(false),
        end: Barrier::new(2),
    });
    let (listener, address) = listener();
    let (results, result) = channel();
    let (doors, arrivals): (Vec<_>, Vec<_>) = [(); 2].map(|()| channel()).into_iter().unzip();
    let mut listeners = [Some(listener), None].into_iter();
    // Each gets the other's door.
    for (me, (arrivals, door)) in arrivals.into_iter().zip(doors.into_iter().rev()).enumerate() {
        let start = Start {
            me,
            event: Arc::clone(&events[me]),
            door,
            shared: Arc::clone(&shared),
            listener: listeners.next().flatten(),
            rng: Rng::stream(seed, 10 + me as u64),
        };
        let results = results.clone();
        std::thread::spawn(move || {
            let seen = start.host(arrivals).run();
            results.send((me, seen)).expect("the test waits");
        });
    }
    let plans = (0..CLIENTS as u64).map(|number| Plan::new(seed, number)).collect();
    let tally = Crowd::new(address, seed, plans).run();
    shared.stopping.store(true, Ordering::SeqCst);
    for event in &events {
        nix::unistd::write(event, &1u64.to_ne_bytes()).expect("an event descriptor takes numbers");
    }
    let mut seen = [Seen::default(); 2];
    for _ in 0..2 {
        let (index, of) = result.recv_timeout(DEADLINE).expect("both hosts end, without a panic");
        seen[index] = of;
    }
    (tally, seen)
}

/// What a host is made of, on its own thread.
struct Start {
    me: usize,
    event: Arc<OwnedFd>,
    door: Sender<link::Link>,
    shared: Arc<Shared>,
    listener: Option<TcpListener>,
    rng: Rng,
}

impl Start {
    fn host(self, arrivals: Receiver<link::Link>) -> Host {
        let Self { me, event, door, shared, listener, rng } = self;
        Host::new(me, event, shared, door, arrivals, listener, rng)
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    // Inherited by what is accepted.
    socket.set_send_buffer_size(1 << 10).expect("a small buffer");
    socket.set_recv_buffer_size(8 << 10).expect("a small buffer");
    socket.set_tcp_nodelay(true).expect("small segments");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
    socket.listen(128).expect("a bound socket listens");
    let address = socket.local_addr().expect("bound").as_socket().expect("an internet address");
    (socket.into(), address)
}

fn check(tally: Tally, [listening, other]: [Seen; 2]) {
    let Tally { echoed, reset, left, refused, blind, stuck } = tally;
    assert_eq!(echoed + reset + left, CLIENTS, "every client came to its end");
    assert!(echoed > CLIENTS / 2 && reset > 0 && left > 0 && stuck > 0, "{tally:?}");
    // Who was turned away found a full table, and the other way round, as far as clients could tell.
    assert!(
        (refused..=refused + blind).contains(&listening.accepts_refused),
        "{refused} clients were turned away for sure, {blind} perhaps: {listening:#?}"
    );
    for seen in [listening, other] {
        let Seen { single_shots, multishots, no_buffers, receives_cancelled, late_bytes, .. } = seen;
        let Seen { handed_over, handed_over_with_bytes, sends_stuck, sends_in_parts, .. } = seen;
        let Seen { landed_further, received_further, rings_opened, rings_closed, .. } = seen;
        let Seen { buffers_returned, .. } = seen;
        assert!(rings_opened >= RINGS - 1, "a ring that fills up gets company: {seen:#?}");
        assert!(rings_closed <= rings_opened, "the first stays: {seen:#?}");
        let all = [
            single_shots,
            multishots,
            no_buffers,
            receives_cancelled,
            late_bytes,
            handed_over,
            handed_over_with_bytes,
            sends_stuck,
            sends_in_parts,
            landed_further,
            received_further,
            buffers_returned,
        ];
        assert!(!all.contains(&0), "everything happens to both: {seen:#?}");
    }
    let Seen { accepts_refused, accepts_cancelled, waits_for_room, accepted_further, .. } = listening;
    let either = |what: fn(Seen) -> usize| what(listening) + what(other);
    let rings_opened = either(|seen| seen.rings_opened);
    assert!(rings_opened > 2 * (RINGS - 1), "what is empty is closed, and opened again: {rings_opened}");
    let rare = [
        either(|seen| seen.hand_overs_again),
        either(|seen| seen.hand_overs_refused),
        either(|seen| seen.sends_cancelled),
        either(|seen| seen.failed),
        accepts_refused,
        accepts_cancelled,
        waits_for_room,
        accepted_further,
    ];
    assert!(!rare.contains(&0), "everything happens: {listening:#?} {other:#?}");
}
