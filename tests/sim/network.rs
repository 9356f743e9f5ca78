//! Sockets between clients and shards, and what can happen to them. `README.md` says why each fault is survivable.

use crate::mailbox::shard_id;
use crate::rng::Rng;
use crate::swarm::NetworkFaults;
use crate::world::{Event, World};
use quelea::base::{ConnectionId, OutBuffer};
use quelea::shard::{Accepted, HandOver};
use std::collections::{BTreeMap, VecDeque};

/// Where the server's end is.
#[derive(Debug)]
pub(crate) enum Place {
    /// Not accepted yet.
    Arriving(usize),
    At(usize, ConnectionId),
    Moving {
        from: usize,
        to: usize,
        hand_over: Option<HandOver>,
    },
    Gone,
}

/// How often a stalled socket is looked at again, in milliseconds.
const STALL_LOOK_MS: u64 = 5_000;

/// One TCP connection.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) client: usize,
    pub(crate) place: Place,
    /// Bytes on the way to the server, and whether the client closed behind them.
    pub(crate) up: VecDeque<u8>,
    pub(crate) up_closed: bool,
    up_scheduled: bool,
    paused: bool,
    /// CONNECT was accepted: receives need not wait for the shard's outputs.
    established: bool,
    /// The buffer the shard gave, until the send completes.
    flight: Option<(usize, ConnectionId, Box<OutBuffer>)>,
    /// Bytes on the way to the client, and whether the server closed behind them.
    down: VecDeque<u8>,
    down_closed: bool,
    down_scheduled: bool,
    /// The client has its end open.
    pub(crate) client_open: bool,
    /// Nothing is carried any more; the ends may not know.
    cut: bool,
    server_told: bool,
    stalled_until: u64,
    /// When the shard got its last bytes, or began to read again.
    heard_ms: u64,
    /// Faults may befall it.
    may_fail: bool,
    /// When the server's end was over, as the shard knows it.
    pub(crate) server_end: Option<u64>,
    /// It was the client's last packet that ended it.
    pub(crate) was_ended_by_client: bool,
    /// The process died while it was there, or had died before.
    pub(crate) has_crashed: bool,
}

/// All sockets ever opened, and where each is.
#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(crate) sockets: Vec<Socket>,
    at: BTreeMap<(usize, u32, u32), usize>,
    /// Faults are not injected any more.
    pub(crate) is_healed: bool,
}

impl Network {
    fn find(&self, shard: usize, id: ConnectionId) -> Option<usize> {
        self.at.get(&(shard, id.slot, id.generation)).copied()
    }

    fn put(&mut self, socket: usize, shard: usize, id: ConnectionId) {
        let before = self.at.insert((shard, id.slot, id.generation), socket);
        assert!(before.is_none(), "connection ids are unique");
        self.sockets[socket].place = Place::At(shard, id);
    }

    /// Nothing is on the way, and no end waits for the other.
    pub(crate) fn is_idle(&self) -> bool {
        self.busy().next().is_none()
    }

    /// The sockets that are not idle.
    pub(crate) fn describe(&self) -> String {
        let place = |s: &Socket| format!("client {} {:?} paused {}; ", s.client, s.place, s.paused);
        self.busy().map(place).collect()
    }

    fn busy(&self) -> impl Iterator<Item = &Socket> {
        self.sockets.iter().filter(|socket| {
            let idle_up = socket.up.is_empty() && !socket.up_closed;
            let idle_down = socket.down.is_empty() && !socket.down_closed && socket.flight.is_none();
            !match socket.place {
                Place::Gone => idle_down && !socket.client_open,
                Place::At(..) => idle_up && idle_down && socket.client_open && !socket.cut && !socket.paused,
                Place::Arriving(_) | Place::Moving { .. } => false,
            }
        })
    }

    /// Connections a shard has.
    pub(crate) fn count_on(&self, shard: usize) -> usize {
        self.at.range((shard, 0, 0)..(shard + 1, 0, 0)).count()
    }
}

fn delay(rng: &mut Rng, faults: &NetworkFaults) -> u64 {
    rng.between(0, faults.delay_ms_max)
}

impl World {
    /// A client connects to some shard's listener.
    pub(crate) fn open_socket(&mut self, client: usize, may_fail: bool) -> usize {
        let shard = self.network_rng.size(0, self.shards.len() - 1);
        let socket = self.network.sockets.len();
        self.network.sockets.push(Socket {
            client,
            place: Place::Arriving(shard),
            up: VecDeque::new(),
            up_closed: false,
            up_scheduled: false,
            paused: false,
            established: false,
            flight: None,
            down: VecDeque::new(),
            down_closed: false,
            down_scheduled: false,
            client_open: true,
            cut: false,
            server_told: false,
            stalled_until: 0,
            heard_ms: 0,
            may_fail,
            server_end: None,
            was_ended_by_client: false,
            has_crashed: false,
        });
        let arrival = delay(&mut self.network_rng, &self.swarm.network);
        self.after(arrival, Event::Accept(socket));
        if may_fail && !self.network.is_healed {
            let life = self.network_rng.between(0, 8_000);
            if self.network_rng.chance(self.swarm.network.resets) {
                self.after(life, Event::Reset(socket));
            }
            if self.network_rng.chance(self.swarm.network.stalls) {
                self.after(life / 2, Event::Stall(socket));
            }
        }
        socket
    }

    pub(crate) fn on_accept(&mut self, socket: usize) {
        let Place::Arriving(shard) = self.network.sockets[socket].place else {
            unreachable!("accepted once")
        };
        if !self.is_serving {
            // Nobody listens.
            self.network.sockets[socket].has_crashed = true;
            return self.server_gone(socket);
        }
        // There may be fewer than when the client set out.
        let shard = shard % self.shards.len();
        let now = self.now;
        let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 40_000));
        let local = std::net::SocketAddr::from(([127, 0, 0, 1], 1883));
        let accepted = Accepted { peer, local, at: now.mono };
        match self.shards[shard].handle_accepted(now, accepted) {
            Some(id) => {
                self.network.put(socket, shard, id);
                self.network.sockets[socket].heard_ms = self.now.mono.0;
                self.schedule_up(socket);
                if self.network.sockets[socket].server_told {
                    self.tell_server(socket);
                }
            }
            None => self.server_gone(socket),
        }
        self.wake(shard);
    }

    /// Bytes of a client, behind those before.
    pub(crate) fn send_up(&mut self, socket: usize, bytes: &[u8]) {
        let end = &mut self.network.sockets[socket];
        assert!(end.client_open, "a closed end does not send");
        if end.cut || matches!(end.place, Place::Gone) {
            return;
        }
        end.up.extend(bytes);
        self.schedule_up(socket);
    }

    /// The client closes its end; what it sent before still arrives.
    pub(crate) fn close_up(&mut self, socket: usize) {
        let end = &mut self.network.sockets[socket];
        end.client_open = false;
        end.down.clear();
        end.down_closed = false;
        end.stalled_until = 0;
        if !end.cut && !matches!(end.place, Place::Gone) {
            end.up_closed = true;
            self.schedule_up(socket);
        }
        if self.network.is_healed && self.network.sockets[socket].cut {
            self.tell_server(socket);
        }
    }

    fn schedule_up(&mut self, socket: usize) {
        let end = &mut self.network.sockets[socket];
        let something = !end.up.is_empty() || end.up_closed;
        if something && !end.up_scheduled && !end.paused && matches!(end.place, Place::At(..)) {
            end.up_scheduled = true;
            let delay = delay(&mut self.network_rng, &self.swarm.network);
            self.after(delay, Event::Up(socket));
        }
    }

    pub(crate) fn on_up(&mut self, socket: usize) {
        let end = &mut self.network.sockets[socket];
        end.up_scheduled = false;
        let Place::At(shard, id) = end.place else { return };
        if end.cut {
            return;
        }
        if !end.established && self.is_awake[shard] {
            // Before CONNECT receives are single-shot: the next one waits for what the shard makes of the last.
            end.up_scheduled = true;
            self.after(1, Event::Up(socket));
            return;
        }
        if !end.up.is_empty() {
            let len = chunk(&mut self.network_rng, end.up.len(), self.swarm.network.splits);
            let bytes: Vec<u8> = end.up.drain(..len).collect();
            let is_last = end.up_closed && end.up.is_empty();
            self.trace.line(self.now.mono.0, format_args!("socket {socket} up {len} to {shard}"));
            self.trace.bytes(&bytes);
            let was_connected = is_last && self.is_session_connected(shard, socket);
            let now = self.now;
            self.network.sockets[socket].heard_ms = now.mono.0;
            self.shards[shard].handle_bytes(now, id, &bytes);
            self.network.sockets[socket].was_ended_by_client =
                was_connected && !self.is_session_connected(shard, socket);
            self.wake(shard);
        } else if end.up_closed {
            end.up_closed = false;
            self.tell_server(socket);
        }
        self.schedule_up(socket);
    }

    fn is_session_connected(&self, shard: usize, socket: usize) -> bool {
        let Some(polite) = self.polite(self.network.sockets[socket].client) else { return false };
        let mut views = self.shards[shard].session_views();
        views.any(|view| view.connected && view.client_id == polite.profile.client_id)
    }

    /// The server's end learns that the connection is over.
    pub(crate) fn tell_server(&mut self, socket: usize) {
        let end = &mut self.network.sockets[socket];
        end.server_told = true;
        end.up.clear();
        end.up_closed = false;
        let Place::At(shard, id) = end.place else { return };
        let buffer = end.flight.take().map(|(_, _, buffer)| buffer);
        let now = self.now;
        self.trace.line(now.mono.0, format_args!("socket {socket} closed, {shard} is told"));
        self.shards[shard].handle_closed(now, id, buffer);
        self.wake(shard);
    }

    /// A shard gave bytes for a connection.
    pub(crate) fn send_down(&mut self, shard: usize, id: ConnectionId, buffer: Box<OutBuffer>) {
        let socket = self.network.find(shard, id).expect("shards send on connections they have");
        let end = &mut self.network.sockets[socket];
        assert!(end.flight.is_none(), "one send in flight a connection");
        assert!(!buffer.is_empty(), "nothing is not sent");
        if !end.cut && end.client_open {
            let client = end.client;
            let bytes =
                buffer.slices(0, usize::MAX).iter().map(|piece| piece.to_vec()).collect::<Vec<_>>().concat();
            end.down.extend(&bytes);
            self.aim_at_packets(client, &bytes);
        }
        let end = &mut self.network.sockets[socket];
        end.flight = Some((shard, id, buffer));
        let delay = delay(&mut self.network_rng, &self.swarm.network);
        self.after(delay, Event::Sent(socket));
        self.schedule_down(socket);
    }

    /// A send completes, unless the client does not read.
    pub(crate) fn on_sent(&mut self, socket: usize) {
        let end = &mut self.network.sockets[socket];
        if end.stalled_until > self.now.mono.0 && end.client_open {
            let wait = (end.stalled_until - self.now.mono.0).min(STALL_LOOK_MS);
            self.after(wait, Event::Sent(socket));
            return;
        }
        let Some((shard, id, buffer)) = end.flight.take() else { return };
        let now = self.now;
        self.shards[shard].handle_sent(now, id, buffer);
        self.wake(shard);
    }

    fn schedule_down(&mut self, socket: usize) {
        let end = &mut self.network.sockets[socket];
        if (!end.down.is_empty() || end.down_closed) && !end.down_scheduled {
            end.down_scheduled = true;
            let delay = delay(&mut self.network_rng, &self.swarm.network);
            let wait = end.stalled_until.saturating_sub(self.now.mono.0).min(STALL_LOOK_MS).max(delay);
            self.after(wait, Event::Down(socket));
        }
    }

    pub(crate) fn on_down(&mut self, socket: usize) {
        let end = &mut self.network.sockets[socket];
        end.down_scheduled = false;
        if end.cut || !end.client_open {
            return;
        }
        if !end.down.is_empty() && end.stalled_until <= self.now.mono.0 {
            let len = chunk(&mut self.network_rng, end.down.len(), self.swarm.network.splits);
            let bytes: Vec<u8> = end.down.drain(..len).collect();
            let client = end.client;
            self.trace.line(self.now.mono.0, format_args!("socket {socket} down {len} to client {client}"));
            self.trace.bytes(&bytes);
            self.client_bytes(socket, &bytes);
        } else if end.down.is_empty() && end.down_closed {
            end.down_closed = false;
            self.check_close(socket);
            self.tell_client(socket);
        }
        self.schedule_down(socket);
    }

    /// The broker closed a connection that nothing was wrong with: it must have said why, where the version has a way.
    fn check_close(&mut self, socket: usize) {
        let client = self.network.sockets[socket].client;
        let Some(polite) = self.polite(client).filter(|polite| polite.socket == Some(socket)) else { return };
        // A client that does not read does not get its DISCONNECT.
        let may_time_out = polite.profile.keep_alive_secs > 0;
        let may_be_refused = self.swarm.disk_refuses() || self.network.sockets[socket].has_crashed;
        if polite.machine.is_connected() && !may_time_out && !polite.is_finished && !may_be_refused {
            self.fail(format!("client {client} is closed for no reason"));
        }
    }

    /// The client's end learns that the connection is over.
    pub(crate) fn tell_client(&mut self, socket: usize) {
        let end = &mut self.network.sockets[socket];
        if end.client_open {
            end.client_open = false;
            end.down.clear();
            end.down_closed = false;
            self.client_closed(socket);
        }
    }

    /// The shard closed a connection.
    pub(crate) fn on_close(&mut self, shard: usize, id: ConnectionId) {
        let socket = self.network.find(shard, id).expect("shards close connections they have, once");
        self.network.at.remove(&(shard, id.slot, id.generation));
        self.server_gone(socket);
    }

    fn server_gone(&mut self, socket: usize) {
        let end = &mut self.network.sockets[socket];
        end.place = Place::Gone;
        end.up.clear();
        end.up_closed = false;
        end.server_end.get_or_insert(self.now.mono.0);
        let client = end.client;
        self.aim_at_ending(client);
        self.trace.line(self.now.mono.0, format_args!("socket {socket} closed by its shard"));
        // The client may not know yet.
        self.shard_may_give_up(socket);
        let end = &mut self.network.sockets[socket];
        if !end.cut && end.client_open {
            end.down_closed = true;
            self.schedule_down(socket);
        }
    }

    pub(crate) fn on_pause(&mut self, shard: usize, id: ConnectionId, pause: bool) {
        let socket = self.network.find(shard, id).expect("shards pause connections they have");
        let end = &mut self.network.sockets[socket];
        assert_ne!(end.paused, pause, "Pause and Resume take turns");
        end.paused = pause;
        end.heard_ms = self.now.mono.0;
        self.schedule_up(socket);
    }

    pub(crate) fn on_established(&mut self, shard: usize, id: ConnectionId) {
        let socket = self.network.find(shard, id).expect("shards establish connections they have");
        let end = &mut self.network.sockets[socket];
        assert!(!end.established, "a connection is established once");
        end.established = true;
    }

    /// The shard wants a socket moved.
    pub(crate) fn on_hand_over(&mut self, shard: usize, id: ConnectionId, to: usize, hand_over: HandOver) {
        let socket = self.network.find(shard, id).expect("shards hand over connections they have");
        assert_ne!(to, shard, "a connection is handed to another shard");
        self.network.at.remove(&(shard, id.slot, id.generation));
        let hand_over = Some(hand_over);
        self.network.sockets[socket].place = Place::Moving { from: shard, to, hand_over };
        let delay = self.mailbox_rng.between(0, self.swarm.mailbox.delay_ms_max);
        self.after(delay, Event::Land(socket));
    }

    pub(crate) fn on_land(&mut self, socket: usize) {
        let Place::Moving { from, to, hand_over } = &mut self.network.sockets[socket].place else {
            unreachable!("lands once")
        };
        let (from, to) = (*from, *to);
        let hand_over = hand_over.take().expect("taken once");
        let failures = self.swarm.network.hand_over_failures;
        let may_fail = self.network.sockets[socket].may_fail && !self.network.is_healed;
        let fails = may_fail && failures > 0 && self.network_rng.chance(failures);
        let now = self.now;
        let (shard, id) = if fails {
            (from, self.shards[from].handle_hand_over_failed(now, &hand_over))
        } else {
            (to, self.shards[to].handle_handed_over(now, hand_over))
        };
        self.trace.line(now.mono.0, format_args!("socket {socket} moved from {from} to {to}: {}", !fails));
        match id {
            Some(id) => {
                self.network.put(socket, shard, id);
                self.network.sockets[socket].heard_ms = now.mono.0;
                if self.network.sockets[socket].server_told {
                    self.tell_server(socket);
                }
                self.schedule_up(socket);
            }
            None => self.server_gone(socket),
        }
        self.wake(shard);
    }

    /// The connection breaks; each end hears of it in its own time.
    pub(crate) fn on_reset(&mut self, socket: usize) {
        if self.network.is_healed {
            return;
        }
        let rng = &mut self.network_rng;
        let mut hears = [rng.between(0, 300), rng.between(0, 300)];
        if rng.chance(self.swarm.network.half_open) {
            hears[rng.size(0, 1)] = rng.between(5_000, 60_000);
        }
        let end = &mut self.network.sockets[socket];
        if end.cut || matches!(end.place, Place::Gone) || !end.client_open {
            return;
        }
        end.cut = true;
        self.trace.line(self.now.mono.0, format_args!("socket {socket} reset"));
        self.after(hears[0], Event::TellServer(socket));
        self.after(hears[1], Event::TellClient(socket));
    }

    /// The process is gone, and the server's end of every socket with it. What it had sent may arrive, or be lost.
    pub(crate) fn crash_network(&mut self) {
        self.network.at.clear();
        for socket in 0..self.network.sockets.len() {
            let end = &mut self.network.sockets[socket];
            end.flight = None;
            if matches!(end.place, Place::Gone | Place::Arriving(_)) {
                continue;
            }
            end.place = Place::Gone;
            end.up.clear();
            end.up_closed = false;
            end.flight = None;
            end.has_crashed = true;
            end.server_end.get_or_insert(self.now.mono.0);
            let client = end.client;
            if self.polite(client).is_some_and(|polite| polite.may_end(self)) {
                self.oracle.member_may_end(client);
            }
            let end = &mut self.network.sockets[socket];
            if end.cut || !end.client_open {
                continue;
            }
            if self.network_rng.chance(500) || self.is_told {
                end.down_closed = true;
                self.schedule_down(socket);
            } else {
                end.cut = true;
                let hears = self.network_rng.between(0, *self.network_rng.clone().pick(&[10, 300, 3_000]));
                self.after(hears, Event::TellClient(socket));
            }
        }
    }

    /// The client stops reading for a while.
    pub(crate) fn on_stall(&mut self, socket: usize) {
        if !self.network.is_healed {
            let until = self.now.mono.0 + self.network_rng.between(100, 15_000);
            self.network.sockets[socket].stalled_until = until;
            self.shard_may_give_up(socket);
        }
    }

    /// What the shard does about a client it does not hear from, or cannot send to, it does before the socket is closed.
    fn shard_may_give_up(&mut self, socket: usize) {
        let client = self.network.sockets[socket].client;
        if self.polite(client).is_some_and(|polite| polite.may_end(self)) {
            self.oracle.member_may_end(client);
        }
    }

    /// The client never reads again, until faults stop.
    pub(crate) fn stop_reading(&mut self, socket: usize) {
        self.network.sockets[socket].stalled_until = u64::MAX;
        self.shard_may_give_up(socket);
    }

    /// How long a shard has had every byte of a connection and read on, in milliseconds; `None` if there is no more to judge.
    pub(crate) fn idle_ms(&self, socket: usize) -> Option<u64> {
        let end = &self.network.sockets[socket];
        let is_there = matches!(end.place, Place::At(..)) && !end.cut && !end.paused && end.up.is_empty();
        is_there.then(|| self.now.mono.0 - end.heard_ms)
    }

    /// No more faults: broken connections are noticed, readers read.
    pub(crate) fn heal_network(&mut self) {
        self.network.is_healed = true;
        for socket in 0..self.network.sockets.len() {
            let end = &mut self.network.sockets[socket];
            end.stalled_until = 0;
            if end.cut {
                self.tell_server(socket);
                self.tell_client(socket);
            } else {
                if end.flight.is_some() {
                    self.after(0, Event::Sent(socket));
                }
                let end = &mut self.network.sockets[socket];
                if !end.down.is_empty() || end.down_closed {
                    // The event that waits for the end of the stall finds nothing then.
                    end.down_scheduled = true;
                    self.after(0, Event::Down(socket));
                }
            }
        }
    }

    /// Moves every connection's outputs of a shard.
    pub(crate) fn poll_outputs(&mut self, shard: usize) {
        use quelea::shard::Output;
        while let Some(output) = self.shards[shard].poll_output() {
            match output {
                Output::Close { connection } => self.on_close(shard, connection),
                Output::HandOver { connection, to, hand_over } => {
                    assert!(to.index() < self.shards.len(), "{} is a shard", shard_id(to.index()).0);
                    self.on_hand_over(shard, connection, to.index(), hand_over);
                }
                Output::Established { connection } => self.on_established(shard, connection),
                Output::Pause { connection } => self.on_pause(shard, connection, true),
                Output::Resume { connection } => self.on_pause(shard, connection, false),
            }
        }
        while let Some((id, buffer)) = self.shards[shard].poll_send() {
            self.send_down(shard, id, buffer);
        }
    }
}

fn chunk(rng: &mut Rng, len: usize, splits: bool) -> usize {
    match rng.below(4) {
        0 if splits => 1,
        1 if splits => rng.size(1, len.min(40)),
        2 if splits => rng.size(1, len),
        _ => len,
    }
}
