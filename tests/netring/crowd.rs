//! The clients: ordinary non-blocking sockets, all on one thread, each following its [`Plan`].
//!
//! A client that stopped reading goes on when nothing else happens any more: by then everything on the way to it is stuck.
//!
//! A connection that ends before its first byte came back was turned away at a full descriptor table; the plan is tried again.
//! How often that may be is the server's to say, see [`Tally`].

use crate::plan::{ABORT, Plan, Reset};
use crate::rng::Rng;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, SockRef, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::Range;
use std::os::fd::AsFd;
use std::time::Duration;

/// Nothing happens for so long only if something is broken. The kernel probes a window that was closed for long only now and then.
const STALL_MS: u16 = 60_000;
/// Nothing happens for so long when what can get stuck is stuck.
const SETTLED_MS: u16 = 3;
/// While so many are still to come they come one by one: rings empty, and fill again.
const QUIET: Range<usize> = 160..240;

/// How the clients fared.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Got everything back.
    pub(crate) echoed: usize,
    /// Reset their connection.
    pub(crate) reset: usize,
    /// Were left by the server, as they had asked.
    pub(crate) left: usize,
    /// Were turned away, and tried again.
    pub(crate) refused: usize,
    /// Of those that reset or were left: may have been turned away, and could not tell.
    pub(crate) blind: usize,
    /// Stopped reading until nothing else happened.
    pub(crate) stuck: usize,
}

/// All clients of a run.
pub(crate) struct Crowd {
    server: SocketAddr,
    rng: Rng,
    waiting: Vec<Plan>,
    clients: Vec<Client>,
    tally: Tally,
}

struct Client {
    plan: Plan,
    stream: TcpStream,
    written: usize,
    read: usize,
    is_reading: bool,
    end: Option<End>,
}

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// By the server: the end of the stream, or a reset.
    Theirs,
    /// By a reset of the client's.
    Ours,
}

impl Crowd {
    /// Clients with these plans, none connected yet.
    pub(crate) fn new(server: SocketAddr, seed: u64, mut plans: Vec<Plan>) -> Self {
        plans.reverse();
        Self {
            server,
            rng: Rng::stream(seed, 1),
            waiting: plans,
            clients: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Runs all clients to their end.
    pub(crate) fn run(mut self) -> Tally {
        let mut count_max = 36;
        while !(self.waiting.is_empty() && self.clients.is_empty()) {
            if self.rng.chance(5) {
                // At times more than fit into both tables together, at times nearly none.
                count_max = [2, 36, 36, 72, 144][self.rng.size(0, 4)];
            }
            if QUIET.contains(&self.waiting.len()) {
                count_max = 1;
            } else if count_max == 1 {
                count_max = 144;
            }
            while self.clients.len() < count_max {
                let Some(plan) = self.waiting.pop() else { break };
                self.clients.push(Client::connect(plan, self.server));
            }
            self.step();
            for index in (0..self.clients.len()).rev() {
                if let Some(end) = self.clients[index].end {
                    let client = self.clients.swap_remove(index);
                    self.settle(client, end);
                }
            }
        }
        self.tally
    }

    fn step(&mut self) {
        let can_settle = self.clients.iter().any(|client| !client.is_reading);
        let ready = self.poll(if can_settle { SETTLED_MS } else { STALL_MS });
        if ready.iter().all(|flags| flags.is_empty()) {
            let paused: Vec<usize> =
                (0..self.clients.len()).filter(|index| !self.clients[*index].is_reading).collect();
            assert!(!paused.is_empty(), "nothing happens any more: {:#?}", self.clients);
            self.tally.stuck += 1;
            self.clients[paused[self.rng.size(0, paused.len() - 1)]].is_reading = true;
            return;
        }
        for (client, flags) in self.clients.iter_mut().zip(ready) {
            if flags.contains(PollFlags::POLLOUT) {
                client.write(&mut self.rng);
            }
            let is_broken = flags.intersects(PollFlags::POLLERR | PollFlags::POLLHUP);
            if client.end.is_none() && (flags.contains(PollFlags::POLLIN) || is_broken) {
                client.read(&mut self.rng);
            }
        }
    }

    fn poll(&self, timeout_ms: u16) -> Vec<PollFlags> {
        let mut fds: Vec<PollFd<'_>> =
            self.clients.iter().map(|client| PollFd::new(client.stream.as_fd(), client.interest())).collect();
        match poll(&mut fds, PollTimeout::from(timeout_ms)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
        fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect()
    }

    fn settle(&mut self, client: Client, end: End) {
        let Client { plan, read, .. } = client;
        match end {
            End::Ours => {
                self.tally.reset += 1;
                self.tally.blind += usize::from(read == 0);
            }
            End::Theirs if plan.command == ABORT => {
                self.tally.left += 1;
                self.tally.blind += usize::from(read == 0);
            }
            End::Theirs if read == plan.len => self.tally.echoed += 1,
            End::Theirs if read == 0 => {
                self.tally.refused += 1;
                self.waiting.push(plan);
            }
            End::Theirs => panic!("{read} bytes came back and then the end: {plan:?}"),
        }
    }
}

impl Client {
    fn connect(plan: Plan, server: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, None).expect("a socket");
        // Before the connection is made, so that the window is that small from the start.
        socket.set_recv_buffer_size(plan.receive_buffer).expect("a small buffer");
        socket.set_send_buffer_size(8 << 10).expect("a small buffer");
        socket.set_tcp_nodelay(true).expect("small segments");
        socket.connect(&server.into()).expect("the server listens");
        socket.set_nonblocking(true).expect("non-blocking");
        Self { plan, stream: socket.into(), written: 0, read: 0, is_reading: true, end: None }
    }

    fn interest(&self) -> PollFlags {
        let mut interest = PollFlags::empty();
        interest.set(PollFlags::POLLIN, self.is_reading);
        interest.set(PollFlags::POLLOUT, self.written < self.plan.len);
        interest
    }

    fn write(&mut self, rng: &mut Rng) {
        let to = (self.written + rng.size(1, self.plan.write_max)).min(self.plan.len);
        match self.stream.write(&self.plan.bytes(self.written, to)) {
            Ok(len) => self.written += len,
            Err(error) => self.failed(&error),
        }
        if matches!(self.plan.reset, Some(Reset::Written(at)) if at <= self.written) {
            return self.reset();
        }
        if self.written == self.plan.len && self.end.is_none() {
            // Fails if the server has closed already, which reading shows.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }

    fn read(&mut self, rng: &mut Rng) {
        let mut bytes = vec![0; rng.size(1, self.plan.read_max)];
        let len = match self.stream.read(&mut bytes) {
            Ok(0) => {
                self.end = Some(End::Theirs);
                return;
            }
            Ok(len) => len,
            Err(error) => return self.failed(&error),
        };
        let expected = self.plan.bytes(self.read, self.read + len);
        assert!(self.read + len <= self.written, "more came back than was sent: {self:?}");
        assert!(expected == bytes[..len], "other bytes came back, in these {len}: {self:?}");
        self.read += len;
        if matches!(self.plan.reset, Some(Reset::Read(at)) if at <= self.read) {
            return self.reset();
        }
        self.is_reading = !rng.chance(self.plan.pauses);
    }

    /// Ends the connection in a way that throws away what is on its way, in both directions.
    fn reset(&mut self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("a socket can be reset");
        self.end = Some(End::Ours);
    }

    fn failed(&mut self, error: &std::io::Error) {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::Interrupted => {}
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => self.end = Some(End::Theirs),
            _ => panic!("{error}: {self:?}"),
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("plan", &self.plan)
            .field("written", &self.written)
            .field("read", &self.read)
            .field("is_reading", &self.is_reading)
            .finish_non_exhaustive()
    }
}
