//! The small world around real shards: sockets are byte queues, mailboxes are emptied at once, time moves when told.
//!
//! No fault is injected here (that is the simulator's work): a vector is about what the broker answers.

use quelea::base::{ConnectionId, HashKey, Mono, Now, OutBuffer, ShardId, Wall};
use quelea::shard::{Accepted, Options, Output, Shard};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// A network connection as seen from outside; an index into the world's.
pub(crate) type SocketId = usize;

/// Shards, and the sockets they hold.
#[derive(Debug)]
pub(crate) struct World {
    shards: Vec<Shard>,
    now: Now,
    sockets: Vec<Socket>,
    by_connection: BTreeMap<(u16, u32, u32), SocketId>,
}

#[derive(Debug)]
struct Socket {
    /// Where it lives; `None` once it is closed.
    at: Option<(u16, ConnectionId)>,
    /// Bytes from the broker that the client has not looked at.
    received: Vec<u8>,
    /// Bytes for a broker that has paused.
    waiting: Vec<u8>,
    paused: bool,
    /// The client does not read: what is sent stays in flight.
    stalled: bool,
    in_flight: Option<Box<OutBuffer>>,
}

impl World {
    /// A broker of so many shards.
    pub(crate) fn new(shards: u16, options: &Options) -> Self {
        let now = Now { mono: Mono(1_000_000), wall: Wall(1_700_000_000_000) };
        let key = HashKey { k0: 0x5175_656c, k1: 0x6561 };
        let shards =
            (0..shards).map(|id| Shard::new(options.clone(), ShardId(id), shards, key, now)).collect();
        Self { shards, now, sockets: Vec::new(), by_connection: BTreeMap::new() }
    }

    /// A client connects; the shards accept in turn.
    pub(crate) fn open(&mut self, peer: SocketAddr) -> SocketId {
        let socket = self.sockets.len();
        let shard = socket % self.shards.len();
        let local = SocketAddr::from(([127, 0, 0, 1], 1883));
        let accepted = Accepted { peer, local, at: self.now.mono };
        let connection = self.shards[shard].handle_accepted(self.now, accepted);
        self.sockets.push(Socket {
            at: None,
            received: Vec::new(),
            waiting: Vec::new(),
            paused: false,
            stalled: false,
            in_flight: None,
        });
        if let Some(connection) = connection {
            self.place(socket, shard, connection);
        }
        self.settle();
        socket
    }

    /// The client sends bytes; a closed socket swallows them.
    pub(crate) fn send(&mut self, socket: SocketId, bytes: &[u8]) {
        let Some((shard, connection)) = self.sockets[socket].at else { return };
        if self.sockets[socket].paused {
            self.sockets[socket].waiting.extend_from_slice(bytes);
            return;
        }
        self.shards[usize::from(shard)].handle_bytes(self.now, connection, bytes);
        self.settle();
    }

    /// The client goes away without a word.
    pub(crate) fn drop_socket(&mut self, socket: SocketId) {
        let Some((shard, connection)) = self.sockets[socket].at else { return };
        let buffer = self.sockets[socket].in_flight.take();
        self.shards[usize::from(shard)].handle_closed(self.now, connection, buffer);
        self.settle();
    }

    /// From here the client does not read.
    pub(crate) fn stall(&mut self, socket: SocketId) {
        self.sockets[socket].stalled = true;
    }

    /// The client reads again, what has been sent first.
    pub(crate) fn unstall(&mut self, socket: SocketId) {
        self.sockets[socket].stalled = false;
        if let Some(buffer) = self.sockets[socket].in_flight.take() {
            self.deliver(socket, buffer);
        }
        self.settle();
    }

    /// Lets time pass, deadline by deadline.
    pub(crate) fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        loop {
            let next = self.shards.iter().filter_map(Shard::next_deadline).min().unwrap_or(Mono::NEVER);
            let next = next.max(self.now.mono);
            if next > end.mono {
                break;
            }
            let step = Duration::from_millis(next.since(self.now.mono).max(1));
            self.now = if self.now.mono.0 + 1 > end.mono.0 { break } else { self.now + step };
            if self.now.mono > end.mono {
                self.now = end;
            }
            for shard in &mut self.shards {
                shard.handle_timeout(self.now);
            }
            self.settle();
        }
        self.now = end;
        for shard in &mut self.shards {
            shard.handle_timeout(self.now);
        }
        self.settle();
    }

    /// The broker stops.
    pub(crate) fn shut_down(&mut self) {
        for shard in &mut self.shards {
            shard.handle_shutdown(self.now);
        }
        self.settle();
    }

    /// What the broker has sent to this client and the client has not looked at.
    pub(crate) fn received(&mut self, socket: SocketId) -> &mut Vec<u8> {
        &mut self.sockets[socket].received
    }

    /// Whether the broker still has the connection.
    pub(crate) fn is_open(&self, socket: SocketId) -> bool {
        self.sockets[socket].at.is_some()
    }

    /// Sockets the world holds open, and connections the shards count.
    pub(crate) fn connection_counts(&self) -> (usize, usize) {
        let open = self.sockets.iter().filter(|s| s.at.is_some()).count();
        (open, self.shards.iter().map(Shard::connection_count).sum())
    }

    fn place(&mut self, socket: SocketId, shard: usize, connection: ConnectionId) {
        let shard = u16::try_from(shard).expect("a few shards");
        self.sockets[socket].at = Some((shard, connection));
        self.by_connection.insert((shard, connection.slot, connection.generation), socket);
    }

    /// The socket of a connection, forgotten by its shard.
    fn forget(&mut self, shard: usize, connection: ConnectionId) -> SocketId {
        let shard = u16::try_from(shard).expect("a few shards");
        let key = (shard, connection.slot, connection.generation);
        let socket = self.by_connection.remove(&key).expect("a shard speaks of its own connections");
        self.sockets[socket].at = None;
        socket
    }

    fn find(&self, shard: usize, connection: ConnectionId) -> SocketId {
        let shard = u16::try_from(shard).expect("a few shards");
        let key = (shard, connection.slot, connection.generation);
        *self.by_connection.get(&key).expect("a shard speaks of its own connections")
    }

    /// Does what the shards ask for until none asks.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            let mut quiet = true;
            for shard in 0..self.shards.len() {
                quiet &= !self.outputs(shard) && !self.sends(shard) && !self.mail(shard);
            }
            if quiet {
                return;
            }
        }
        panic!("the shards never come to rest");
    }

    fn outputs(&mut self, shard: usize) -> bool {
        let mut any = false;
        // Sends come first: Close says that nothing more is to be sent, not that the rest may be lost.
        while let Some(output) = self.shards[shard].poll_output() {
            any = true;
            self.output(shard, output);
        }
        any
    }

    fn output(&mut self, shard: usize, output: Output) {
        match output {
            Output::Close { connection } => {
                let socket = self.forget(shard, connection);
                self.sockets[socket].in_flight = None;
            }
            Output::HandOver { connection, to, hand_over } => {
                let socket = self.forget(shard, connection);
                let target = &mut self.shards[to.index()];
                if let Some(connection) = target.handle_handed_over(self.now, hand_over) {
                    self.place(socket, to.index(), connection);
                }
            }
            Output::Established { .. } => {}
            Output::Pause { connection } => {
                let socket = self.find(shard, connection);
                self.sockets[socket].paused = true;
            }
            Output::Resume { connection } => {
                let socket = self.find(shard, connection);
                self.sockets[socket].paused = false;
                let bytes = std::mem::take(&mut self.sockets[socket].waiting);
                if !bytes.is_empty() {
                    self.shards[shard].handle_bytes(self.now, connection, &bytes);
                }
            }
        }
    }

    fn sends(&mut self, shard: usize) -> bool {
        let mut any = false;
        while let Some((connection, buffer)) = self.shards[shard].poll_send() {
            any = true;
            let socket = self.find(shard, connection);
            assert!(self.sockets[socket].in_flight.is_none(), "one send in flight a connection");
            if self.sockets[socket].stalled {
                self.sockets[socket].in_flight = Some(buffer);
            } else {
                self.deliver(socket, buffer);
            }
        }
        any
    }

    fn deliver(&mut self, socket: SocketId, buffer: Box<OutBuffer>) {
        for piece in buffer.slices(0, usize::MAX) {
            self.sockets[socket].received.extend_from_slice(&piece);
        }
        let (shard, connection) = self.sockets[socket].at.expect("a send is of an open connection");
        self.shards[usize::from(shard)].handle_sent(self.now, connection, buffer);
    }

    fn mail(&mut self, from: usize) -> bool {
        let mut any = false;
        let id = |index: usize| ShardId(u16::try_from(index).expect("a few shards"));
        for to in (0..self.shards.len()).filter(|&to| to != from) {
            while let Some(batch) = self.shards[from].poll_peer(id(to)) {
                any = true;
                let empty = self.shards[to].handle_peer(self.now, id(from), batch);
                self.shards[from].handle_batch_returned(id(to), empty);
            }
        }
        any
    }
}
