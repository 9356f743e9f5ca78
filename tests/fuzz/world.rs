//! The small world around real shards: sockets and mailboxes are queues that move when the fuzzer says so.

use crate::peer::Peer;
use quelea::base::{ConnectionId, HashKey, Mono, Now, OutBuffer, ShardId, Wall};
use quelea::shard::view::Residue;
use quelea::shard::{Accepted, Options, Output, PeerBatch, Shard};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// Batches that a mailbox takes before its sender has to wait.
const MAILBOX_CAPACITY: usize = 2;
/// Rounds in which everything must come to rest.
const ROUNDS_MAX: usize = 10_000;

/// Shards, sockets, mailboxes, and a clock.
pub(crate) struct World {
    pub(crate) shards: Vec<Shard>,
    pub(crate) sockets: Vec<Socket>,
    now: Now,
    by_connection: BTreeMap<(usize, u32, u32), usize>,
    /// By sender and receiver.
    mailboxes: BTreeMap<(usize, usize), VecDeque<Box<PeerBatch>>>,
    /// The next socket that is to move cannot.
    pub(crate) fails_hand_over: bool,
}

/// One network connection.
pub(crate) struct Socket {
    /// Where it lives; `None` once it is closed.
    at: Option<(usize, ConnectionId)>,
    pub(crate) peer: Peer,
    /// Bytes for a shard that has paused.
    waiting: Vec<u8>,
    is_paused: bool,
    is_stalled: bool,
    in_flight: Option<Box<OutBuffer>>,
}

impl World {
    pub(crate) fn new(shards: u16, options: &Options) -> Self {
        let now = Now { mono: Mono(1_000_000), wall: Wall(1_700_000_000_000) };
        let key = HashKey { k0: 7, k1: 8 };
        let shard = |id| Shard::new(options.clone(), ShardId(id), shards, key, now);
        Self {
            shards: (0..shards).map(shard).collect(),
            sockets: Vec::new(),
            now,
            by_connection: BTreeMap::new(),
            mailboxes: BTreeMap::new(),
            fails_hand_over: false,
        }
    }

    /// A client connects to `shard`.
    pub(crate) fn open(&mut self, shard: usize) {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let accepted = Accepted { peer: address(40_000), local: address(1883), at: self.now.mono };
        let connection = self.shards[shard].handle_accepted(self.now, accepted);
        self.sockets.push(Socket {
            at: None,
            peer: Peer::default(),
            waiting: Vec::new(),
            is_paused: false,
            is_stalled: false,
            in_flight: None,
        });
        if let Some(connection) = connection {
            self.place(self.sockets.len() - 1, shard, connection);
        }
        self.turn();
    }

    pub(crate) fn is_open(&self, socket: usize) -> bool {
        self.sockets[socket].at.is_some()
    }

    /// Whether what the client sends is processed at once.
    pub(crate) fn is_read(&self, socket: usize) -> bool {
        self.is_open(socket) && !self.sockets[socket].is_paused
    }

    /// A closed socket swallows what is sent.
    pub(crate) fn send(&mut self, socket: usize, bytes: &[u8]) {
        let it = &mut self.sockets[socket];
        let Some((shard, connection)) = it.at else { return };
        if it.is_paused {
            it.waiting.extend_from_slice(bytes);
        } else {
            self.shards[shard].handle_bytes(self.now, connection, bytes);
        }
        self.turn();
    }

    /// The client is gone.
    pub(crate) fn drop_socket(&mut self, socket: usize) {
        let it = &mut self.sockets[socket];
        let Some((shard, connection)) = it.at else { return };
        let buffer = it.in_flight.take();
        self.shards[shard].handle_closed(self.now, connection, buffer);
        self.turn();
    }

    /// The client stops reading, or reads again.
    pub(crate) fn stall(&mut self, socket: usize, stalls: bool) {
        self.sockets[socket].is_stalled = stalls;
        if !stalls && let Some(buffer) = self.sockets[socket].in_flight.take() {
            self.deliver(socket, buffer);
        }
        self.turn();
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.now = self.now + by;
        for shard in &mut self.shards {
            shard.handle_timeout(self.now);
        }
        self.turn();
    }

    pub(crate) fn pressure(&mut self, over: bool) {
        for shard in &mut self.shards {
            shard.handle_pressure(self.now, over);
        }
        self.turn();
    }

    pub(crate) fn shut_down(&mut self) {
        for shard in &mut self.shards {
            shard.handle_shutdown(self.now);
        }
        self.turn();
    }

    /// One batch arrives, the `nth` of the mailboxes that hold one. Says whether there was any.
    pub(crate) fn mail(&mut self, nth: usize) -> bool {
        let full: Vec<(usize, usize)> =
            self.mailboxes.iter().filter(|(_, box_)| !box_.is_empty()).map(|(key, _)| *key).collect();
        let Some(&(from, to)) = full.get(nth % full.len().max(1)) else { return false };
        let batch = self.mailboxes.get_mut(&(from, to)).and_then(VecDeque::pop_front).expect("not empty");
        let emptied = self.shards[to].handle_peer(self.now, shard_id(from), batch);
        self.shards[from].handle_batch_returned(shard_id(to), emptied);
        self.turn();
        true
    }

    /// Lets everything happen that can happen without time passing.
    pub(crate) fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.turn();
            if self.mail(0) {
                continue;
            }
            let due = self.shards.iter().filter_map(Shard::next_deadline).any(|at| at <= self.now.mono);
            if !due {
                return;
            }
            self.advance(Duration::ZERO);
        }
        panic!("the shards never come to rest");
    }

    /// Every client reads, and nothing is held back.
    pub(crate) fn heal(&mut self) {
        self.fails_hand_over = false;
        for socket in 0..self.sockets.len() {
            self.stall(socket, false);
        }
        self.pressure(false);
        self.settle();
    }

    /// What must hold when nothing is going on and nobody is connected.
    pub(crate) fn check_idle(&self) {
        assert!(self.sockets.iter().all(|socket| socket.at.is_none()), "a socket is open");
        for shard in &self.shards {
            assert_eq!(shard.connection_count(), 0);
            assert_eq!(shard.residue(), Residue::default());
        }
    }

    fn place(&mut self, socket: usize, shard: usize, connection: ConnectionId) {
        self.sockets[socket].at = Some((shard, connection));
        self.by_connection.insert((shard, connection.slot, connection.generation), socket);
    }

    fn find(&self, shard: usize, connection: ConnectionId) -> usize {
        let key = (shard, connection.slot, connection.generation);
        *self.by_connection.get(&key).expect("a shard speaks of its own connections")
    }

    fn forget(&mut self, shard: usize, connection: ConnectionId) -> usize {
        let key = (shard, connection.slot, connection.generation);
        let socket = self.by_connection.remove(&key).expect("a shard speaks of its own connections");
        self.sockets[socket].at = None;
        socket
    }

    /// Every shard's driver does what it is asked for.
    fn turn(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut is_quiet = true;
            for shard in 0..self.shards.len() {
                while let Some(output) = self.shards[shard].poll_output() {
                    is_quiet = false;
                    self.output(shard, output);
                }
                while let Some((connection, buffer)) = self.shards[shard].poll_send() {
                    is_quiet = false;
                    self.sent(shard, connection, buffer);
                }
                is_quiet &= !self.post(shard);
            }
            if is_quiet {
                return;
            }
        }
        panic!("the shards never stop asking");
    }

    fn output(&mut self, shard: usize, output: Output) {
        match output {
            Output::Close { connection } => {
                let socket = self.forget(shard, connection);
                self.sockets[socket].in_flight = None;
            }
            Output::HandOver { connection, to, hand_over } => {
                let socket = self.forget(shard, connection);
                assert_ne!(to.index(), shard, "a connection is handed to another shard");
                let (shard, connection) = if std::mem::take(&mut self.fails_hand_over) {
                    (shard, self.shards[shard].handle_hand_over_failed(self.now, &hand_over))
                } else {
                    (to.index(), self.shards[to.index()].handle_handed_over(self.now, hand_over))
                };
                if let Some(connection) = connection {
                    self.place(socket, shard, connection);
                }
            }
            Output::Established { connection } => {
                self.find(shard, connection);
            }
            Output::Pause { connection } => {
                let socket = self.find(shard, connection);
                self.sockets[socket].is_paused = true;
            }
            Output::Resume { connection } => {
                let socket = self.find(shard, connection);
                self.sockets[socket].is_paused = false;
                let bytes = std::mem::take(&mut self.sockets[socket].waiting);
                if !bytes.is_empty() {
                    self.shards[shard].handle_bytes(self.now, connection, &bytes);
                }
            }
        }
    }

    fn sent(&mut self, shard: usize, connection: ConnectionId, buffer: Box<OutBuffer>) {
        let socket = self.find(shard, connection);
        assert!(self.sockets[socket].in_flight.is_none(), "one send in flight a connection");
        assert!(!buffer.is_empty(), "a send without bytes");
        if self.sockets[socket].is_stalled {
            self.sockets[socket].in_flight = Some(buffer);
        } else {
            self.deliver(socket, buffer);
        }
    }

    fn deliver(&mut self, socket: usize, buffer: Box<OutBuffer>) {
        let (shard, connection) = self.sockets[socket].at.expect("a send is of an open connection");
        let bytes: Vec<u8> = buffer.slices(0, usize::MAX).iter().flat_map(|piece| piece.to_vec()).collect();
        assert_eq!(bytes.len(), buffer.len());
        self.sockets[socket].peer.handle_bytes(&bytes);
        self.shards[shard].handle_sent(self.now, connection, buffer);
    }

    /// Puts a shard's batches into the mailboxes that have room.
    fn post(&mut self, from: usize) -> bool {
        let mut any = false;
        for to in (0..self.shards.len()).filter(|to| *to != from) {
            let mailbox = self.mailboxes.entry((from, to)).or_default();
            while mailbox.len() < MAILBOX_CAPACITY
                && let Some(batch) = self.shards[from].poll_peer(shard_id(to))
            {
                assert!(!batch.is_empty(), "a batch without messages");
                mailbox.push_back(batch);
                any = true;
            }
        }
        any
    }
}

fn shard_id(index: usize) -> ShardId {
    ShardId(u16::try_from(index).expect("a few shards"))
}
