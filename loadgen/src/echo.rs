//! `echo`: the floor under every message: what it costs this machine to receive 64 bytes and send them back, in CPU of the server's
//! thread, on [`NetRing`] and on plain epoll.
//!
//! 1000 connections, one message in flight each, kept saturated by a client thread; the two servers alternate, medians are
//! reported. It is no broker: nothing is parsed. What a broker may spend on a delivered message is a multiple of the cheaper of the two.
//!
//! Cost: 2.6 seconds a round.

use crate::output::ReportArgs;
use anyhow::Result;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::time::{ClockId, clock_gettime};
use quelea::base::{BufferPool, ConnectionId};
use quelea::runtime::net::{Completion, Descriptor, NetRing, ReceiveBuffers, RingOptions};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

const CONNECTIONS: usize = 1000;
const MESSAGE: usize = 64;
const WARM_UP: Duration = Duration::from_millis(300);
const MEASURED: Duration = Duration::from_millis(1000);

/// Arguments of `echo`.
#[derive(clap::Args, Clone, Debug)]
pub struct EchoArgs {
    /// How often each of the two servers runs
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Measures the floor; no promise can be broken.
///
/// # Errors
/// If the result cannot be written.
pub fn echo(args: &EchoArgs) -> Result<bool> {
    let mut results = [const { Vec::new() }; 2];
    for _ in 0..args.rounds {
        results[0].push(round(ring_server));
        results[1].push(round(epoll_server));
    }
    let [ring, epoll] = results.map(|mut runs| {
        runs.sort_by(|a, b| a.cpu_us().total_cmp(&b.cpu_us()));
        runs[runs.len() / 2]
    });
    let report = json!({
        "cpu_us": ring.cpu_us().min(epoll.cpu_us()),
        "netring": ring.to_json(),
        "epoll": epoll.to_json(),
    });
    args.report.print(&report, table)?;
    Ok(true)
}

fn table(report: &Value) -> String {
    let mut out = String::new();
    for (name, key) in [("NetRing", "netring"), ("epoll", "epoll")] {
        let number = |field: &str| report[key][field].as_f64().unwrap_or(0.0);
        let _ = writeln!(
            out,
            "{name:8} {:5.2} us CPU a message (user {:.2}), {:6.0} messages/s, {:.1} messages a turn",
            number("cpu_us"),
            number("user_us"),
            number("messages_per_sec"),
            number("messages_a_turn"),
        );
    }
    out
}

/// One reading of a server's progress, or the difference of two.
#[derive(Clone, Copy, Default)]
struct Sample {
    messages: u64,
    turns: u64,
    user: Duration,
    system: Duration,
    wall: Duration,
}

impl Sample {
    fn cpu_us(&self) -> f64 {
        self.per_message(self.user + self.system)
    }

    fn per_message(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e6 / self.messages.max(1) as f64
    }

    fn to_json(self) -> Value {
        json!({
            "cpu_us": self.cpu_us(),
            "user_us": self.per_message(self.user),
            "messages_per_sec": self.messages as f64 / self.wall.as_secs_f64(),
            "messages_a_turn": self.messages as f64 / self.turns.max(1) as f64,
        })
    }
}

/// Counts what a server does, and reports between the two phase changes.
struct Meter {
    phase: Arc<AtomicU8>,
    seen: u8,
    now: Sample,
    start: Sample,
}

impl Meter {
    /// To be called once a turn; `true` when the run is over.
    fn turn(&mut self, messages: u64) -> bool {
        self.now.messages += messages;
        self.now.turns += 1;
        let phase = self.phase.load(Ordering::Relaxed);
        if phase == self.seen {
            return false;
        }
        self.seen = phase;
        let usage =
            nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_THREAD).expect("readable");
        let time = |time: nix::sys::time::TimeVal| {
            Duration::from_micros((time.tv_sec() * 1_000_000 + time.tv_usec()).unsigned_abs())
        };
        (self.now.user, self.now.system) = (time(usage.user_time()), time(usage.system_time()));
        self.now.wall = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("readable").into();
        if phase == 1 {
            self.start = self.now;
        }
        phase == 2
    }

    fn sample(&self) -> Sample {
        Sample {
            messages: self.now.messages - self.start.messages,
            turns: self.now.turns - self.start.turns,
            user: self.now.user - self.start.user,
            system: self.now.system - self.start.system,
            wall: self.now.wall - self.start.wall,
        }
    }
}

fn round(server: fn(TcpListener, &mut Meter)) -> Sample {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("bound");
    let phase = Arc::new(AtomicU8::new(0));
    let mut meter =
        Meter { phase: Arc::clone(&phase), seen: 0, now: Sample::default(), start: Sample::default() };
    let server = std::thread::spawn(move || {
        server(listener, &mut meter);
        meter.sample()
    });
    let (connected, ready) = mpsc::channel();
    let timer = Arc::clone(&phase);
    let client = std::thread::spawn(move || client(address, &phase, &connected));
    ready.recv().expect("the client connects");
    for (time, next) in [(WARM_UP, 1), (MEASURED, 2)] {
        // Nobody sends any more: a sleep.
        let _ = ready.recv_timeout(time);
        timer.store(next, Ordering::Relaxed);
    }
    client.join().expect("the client ran");
    server.join().expect("the server ran")
}

/// Keeps one message in flight on each connection until the phase is 2, and a little longer so that the server sees it.
fn client(address: SocketAddr, phase: &AtomicU8, connected: &mpsc::Sender<()>) {
    let epoll = Epoll::new(EpollCreateFlags::empty()).expect("epoll");
    let mut sockets: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|index| {
            let mut socket = TcpStream::connect(address).expect("connected");
            socket.set_nodelay(true).expect("set");
            socket.set_nonblocking(true).expect("set");
            epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, index as u64)).expect("added");
            socket.write_all(&[7; MESSAGE]).expect("room for the first");
            socket
        })
        .collect();
    connected.send(()).expect("awaited");
    let mut events = [EpollEvent::empty(); 256];
    while phase.load(Ordering::Relaxed) < 2 {
        let count = epoll.wait(&mut events, EpollTimeout::from(100u8)).expect("waited");
        for event in &events[..count] {
            let socket = &mut sockets[index_of(event)];
            let mut bytes = [0; MESSAGE];
            if matches!(socket.read(&mut bytes), Ok(MESSAGE)) {
                // The server may be gone at the end.
                let _ = socket.write_all(&bytes);
            }
        }
    }
}

fn ring_server(listener: TcpListener, meter: &mut Meter) {
    let (buffers, tokens) = ReceiveBuffers::new(1024, 4096);
    let options = RingOptions { descriptors: 2048, ..RingOptions::default() };
    let mut ring = NetRing::new(options, buffers).expect("io_uring");
    tokens.into_iter().for_each(|token| ring.publish(token));
    let mut pool = BufferPool::new(1 << 20);
    let mut completions = Vec::new();
    let mut descriptors: Vec<Descriptor> = Vec::new();
    ring.accept(0, &listener);
    loop {
        ring.wait(Some(Duration::from_millis(100))).expect("waited");
        ring.reap(&mut completions);
        let mut messages = 0;
        for completion in completions.drain(..) {
            match completion {
                Completion::Accepted { descriptor, .. } => {
                    let slot = u32::try_from(descriptors.len()).expect("a thousand");
                    descriptors.push(descriptor);
                    ring.receive_multishot(ConnectionId { slot, generation: 0 }, descriptor);
                    if descriptors.len() < CONNECTIONS {
                        ring.accept(0, &listener);
                    }
                }
                Completion::Received { connection, buffer, .. } => {
                    let mut out = pool.take();
                    out.bytes_mut().extend_from_slice(ring.buffers().bytes(&buffer));
                    ring.publish(buffer);
                    ring.send(connection, descriptors[connection.slot as usize], out);
                    messages += 1;
                }
                Completion::Sent { buffer, .. } => pool.put(buffer),
                // The client is leaving.
                _ => {}
            }
        }
        if meter.turn(messages) {
            return;
        }
    }
}

fn epoll_server(listener: TcpListener, meter: &mut Meter) {
    let epoll = Epoll::new(EpollCreateFlags::empty()).expect("epoll");
    let mut sockets = Vec::new();
    for index in 0..CONNECTIONS {
        let (socket, _) = listener.accept().expect("accepted");
        socket.set_nodelay(true).expect("set");
        socket.set_nonblocking(true).expect("set");
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(socket.as_fd(), EpollEvent::new(flags, index as u64)).expect("added");
        sockets.push(socket);
    }
    let mut events = [EpollEvent::empty(); 1024];
    let mut bytes = [0; 4096];
    loop {
        let count = epoll.wait(&mut events, EpollTimeout::from(100u8)).expect("waited");
        let mut messages = 0;
        for event in &events[..count] {
            let socket = &mut sockets[index_of(event)];
            // One message is in flight, so one short read empties the socket.
            match socket.read(&mut bytes) {
                Ok(len) if len > 0 => {
                    let _ = socket.write_all(&bytes[..len]);
                    messages += 1;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The client is leaving.
                _ => {}
            }
        }
        if meter.turn(messages) {
            return;
        }
    }
}

fn index_of(event: &EpollEvent) -> usize {
    usize::try_from(event.data()).expect("an index")
}
