//! Clients and their connections, which come and go: one thread, one or more rings.
//!
//! ```text
//! Closed --open--> Opening --socket--> Open --leave, cut, or whatever fails--> Closing --nothing in flight--> Closed
//! ```
//!
//! The MQTT machine of a client lives through all of it, so sessions and windows do too. What happens to a client is told in order: what
//! arrives to the visitor of [`Links::turn`], the end of each connection in [`Links::ended`].

use crate::clock;
use crate::engine::Rings;
use anyhow::Result;
use nix::errno::Errno;
use quelea::base::{BufferPool, ConnectionId, OutBuffer, ReasonCode};
use quelea::client::{Client, Incoming};
use quelea::runtime::net::{Buffer, Completion, Descriptor, Ended, SendId, Source};
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Spare out-buffers, in bytes.
const SPARE_MAX: usize = 4 << 20;

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Closed,
    Opening,
    Open,
    Closing,
}

/// One client.
struct Link {
    client: Client,
    descriptor: Descriptor,
    send: SendId,
    ring: u16,
    state: State,
    /// There is a socket.
    open: bool,
    receiving: bool,
    sending: bool,
    dirty: bool,
    /// DISCONNECT was said: the end is no surprise.
    leaving: bool,
    clean_start: bool,
}

/// The end of a connection.
#[derive(Debug)]
pub struct End {
    pub slot: u32,
    pub reason: String,
    /// The client had left.
    pub is_planned: bool,
}

/// Where connections go, and from where.
pub struct Route {
    pub target: SocketAddr,
    pub sources: Vec<IpAddr>,
    pub ports: (u16, u16),
}

/// All clients.
pub struct Links {
    rings: Rings,
    links: Vec<Link>,
    route: Route,
    dirty: Vec<u32>,
    spare: Vec<Vec<u8>>,
    pool: BufferPool,
    completions: Vec<Completion>,
    /// Ends that nobody has taken note of yet, in order.
    pub ended: Vec<End>,
    /// Connections that are not closed.
    pub busy: usize,
    now: u64,
}

impl Links {
    /// No clients yet; `most` connections at the same time, in tables of at most `descriptors`.
    ///
    /// # Errors
    /// If the kernel refuses a ring.
    pub fn new(route: Route, most: u32, descriptors: u32) -> Result<Self> {
        Ok(Self {
            rings: Rings::new(most, descriptors)?,
            links: Vec::new(),
            route,
            dirty: Vec::new(),
            spare: Vec::new(),
            pool: BufferPool::new(SPARE_MAX),
            completions: Vec::new(),
            ended: Vec::new(),
            busy: 0,
            now: clock::now(),
        })
    }

    /// A client more: its slot is the next number.
    pub fn add(&mut self, client: Client) {
        self.links.push(Link {
            client,
            descriptor: Descriptor(0),
            send: SendId(0),
            ring: 0,
            state: State::Closed,
            open: false,
            receiving: false,
            sending: false,
            dirty: false,
            leaving: false,
            clean_start: false,
        });
    }

    /// The MQTT machine in `slot`; after it was told something, [`touch`](Self::touch).
    pub fn client(&mut self, slot: u32) -> &mut Client {
        let client = &mut self.links[slot as usize].client;
        if client.out_mut().capacity() == 0 {
            *client.out_mut() = self.spare.pop().unwrap_or_default();
        }
        client
    }

    /// Another client takes the slot, which is closed.
    pub fn replace(&mut self, slot: u32, client: Client) {
        assert!(self.is_closed(slot), "nobody's connection is taken");
        self.links[slot as usize].client = client;
    }

    /// Whether nothing of the last connection is left.
    pub fn is_closed(&self, slot: u32) -> bool {
        self.links[slot as usize].state == State::Closed
    }

    /// Begins a connection.
    ///
    /// # Errors
    /// If the kernel refuses a ring.
    pub fn open(&mut self, slot: u32, clean_start: bool) -> Result<()> {
        assert!(self.is_closed(slot), "one connection at a time");
        let ring = self.rings.assign()?;
        let link = &mut self.links[slot as usize];
        (link.ring, link.state, link.clean_start, link.leaving) =
            (ring as u16, State::Opening, clean_start, false);
        self.busy += 1;
        let source = self.route.sources.get(slot as usize % self.route.sources.len().max(1));
        let source = source.map(|&address| Source { address, ports: self.route.ports });
        self.rings.at(ring).connect(id(slot), self.route.target, source);
        Ok(())
    }

    /// Says DISCONNECT; the broker closes.
    pub fn leave(&mut self, slot: u32) {
        let client = self.client(slot);
        client.disconnect(ReasonCode::Success);
        self.links[slot as usize].leaving = true;
        self.touch(slot);
    }

    /// Ends the connection at once.
    pub fn cut(&mut self, slot: u32, reason: &str) {
        self.end(slot, reason.to_owned());
    }

    /// The client in `slot` may have something to send.
    pub fn touch(&mut self, slot: u32) {
        let link = &mut self.links[slot as usize];
        if link.client.out_mut().is_empty() {
            if link.client.out_mut().capacity() > 0 && self.spare.len() < 256 {
                self.spare.push(link.client.take_out());
            }
        } else if !link.dirty {
            link.dirty = true;
            self.dirty.push(slot);
        }
    }

    /// Sends what clients have to say, waits at most `timeout`, and takes what happened.
    ///
    /// # Errors
    /// If the kernel does not serve the rings any more.
    pub fn turn(&mut self, timeout: Duration, visit: &mut impl FnMut(u32, u64, &Incoming<'_>)) -> Result<()> {
        self.flush();
        self.rings.wait(timeout)?;
        let mut completions = mem::take(&mut self.completions);
        for ring in 0..self.rings.len() {
            self.now = clock::now();
            self.rings.reap(ring, &mut completions);
            for completion in completions.drain(..) {
                self.on_completion(ring, completion, visit);
            }
            self.feed(ring);
        }
        self.completions = completions;
        self.flush();
        Ok(())
    }

    fn on_completion(
        &mut self,
        ring: usize,
        completion: Completion,
        visit: &mut impl FnMut(u32, u64, &Incoming<'_>),
    ) {
        match completion {
            Completion::Received { connection, buffer, last } => {
                self.on_received(ring, connection.slot, &buffer, last, visit);
                self.rings.publish(ring, buffer);
            }
            Completion::Sent { connection, buffer, result } => self.on_sent(connection.slot, buffer, result),
            Completion::ReceiveEnded { connection, ended } => {
                self.on_receive_ended(ring, connection.slot, ended);
            }
            Completion::Connected { connection, result } => self.on_connected(connection.slot, result),
            Completion::Woken => {}
            Completion::Accepted { .. }
            | Completion::AcceptFailed { .. }
            | Completion::HandedOver { .. }
            | Completion::SendingEnded { .. }
            | Completion::Transferred { .. } => {
                unreachable!("nothing listens, closes one side or opens a file here")
            }
        }
    }

    fn on_connected(&mut self, slot: u32, result: Result<Descriptor, Errno>) {
        let link = &mut self.links[slot as usize];
        match result {
            Ok(descriptor) => {
                (link.descriptor, link.open) = (descriptor, true);
                if link.state != State::Opening {
                    // It took too long.
                    return self.try_close(slot);
                }
                link.state = State::Open;
                link.receiving = true;
                let (ring, clean_start) = (usize::from(link.ring), link.clean_start);
                let now = self.now;
                self.client(slot).connect_with(clock::mqtt(now), clean_start);
                self.rings.at(ring).receive_multishot(id(slot), descriptor);
                self.touch(slot);
            }
            Err(error) => {
                self.end(slot, format!("connect: {}", error.desc()));
                let link = &mut self.links[slot as usize];
                link.state = State::Closed;
                self.rings.release(usize::from(link.ring));
                self.busy -= 1;
            }
        }
    }

    fn on_received(
        &mut self,
        ring: usize,
        slot: u32,
        buffer: &Buffer,
        last: bool,
        visit: &mut impl FnMut(u32, u64, &Incoming<'_>),
    ) {
        let link = &mut self.links[slot as usize];
        if last {
            link.receiving = false;
        }
        if link.state != State::Open {
            return self.try_close(slot);
        }
        let (buffers, now) = (self.rings.buffers(), self.now);
        let result =
            self.client(slot).handle_bytes_with(clock::mqtt(now), buffers.bytes(buffer), &mut |incoming| {
                visit(slot, now, &incoming);
            });
        if last {
            let link = &mut self.links[slot as usize];
            link.receiving = true;
            let descriptor = link.descriptor;
            self.rings.at(ring).receive_multishot(id(slot), descriptor);
        }
        self.touch(slot);
        if let Err(error) = result {
            self.end(slot, error.to_string());
        }
    }

    fn on_sent(&mut self, slot: u32, buffer: Box<OutBuffer>, result: Result<(), Errno>) {
        self.pool.put(buffer);
        let link = &mut self.links[slot as usize];
        link.sending = false;
        if link.state != State::Open {
            return self.try_close(slot);
        }
        match result {
            Ok(()) => self.touch(slot),
            Err(error) => self.end(slot, format!("send: {}", error.desc())),
        }
    }

    fn on_receive_ended(&mut self, ring: usize, slot: u32, ended: Ended) {
        let link = &mut self.links[slot as usize];
        link.receiving = false;
        if link.state != State::Open {
            return self.try_close(slot);
        }
        match ended {
            Ended::NoBuffers => self.rings.starve(ring, slot),
            Ended::Closed => self.end(slot, "closed by the broker".to_owned()),
            Ended::Cancelled => self.end(slot, "cancelled".to_owned()),
            Ended::Failed(error) => self.end(slot, format!("receive: {}", error.desc())),
        }
    }

    /// Clients whose receive found no buffer receive again, as many as there are buffers now.
    fn feed(&mut self, ring: usize) {
        let mut taken = 0;
        while let Some(slot) = self.rings.next_starved(ring, taken) {
            let link = &mut self.links[slot as usize];
            if link.state == State::Open && usize::from(link.ring) == ring && !link.receiving {
                taken += 1;
                link.receiving = true;
                self.rings.at(ring).receive_multishot(id(slot), link.descriptor);
            }
        }
    }

    /// The connection in `slot` is over.
    fn end(&mut self, slot: u32, reason: String) {
        let link = &mut self.links[slot as usize];
        if matches!(link.state, State::Closed | State::Closing) {
            return;
        }
        link.state = State::Closing;
        self.ended.push(End { slot, reason, is_planned: link.leaving });
        link.client.handle_disconnected();
        drop(link.client.take_out());
        let ring = usize::from(link.ring);
        if link.open && link.receiving {
            self.rings.at(ring).cancel_receive(id(slot));
        }
        let link = &self.links[slot as usize];
        if link.open && link.sending {
            self.rings.at(ring).cancel_send(link.send, id(slot));
        }
        self.try_close(slot);
    }

    /// Closes the socket once nothing is in flight on it.
    fn try_close(&mut self, slot: u32) {
        let link = &mut self.links[slot as usize];
        if link.open && !link.receiving && !link.sending {
            (link.open, link.state) = (false, State::Closed);
            let (ring, descriptor) = (usize::from(link.ring), link.descriptor);
            self.rings.at(ring).close(descriptor);
            self.rings.release(ring);
            self.busy -= 1;
        }
    }

    fn flush(&mut self) {
        while let Some(slot) = self.dirty.pop() {
            let link = &mut self.links[slot as usize];
            link.dirty = false;
            if link.sending || !link.open || link.client.out_mut().is_empty() {
                continue;
            }
            let mut buffer = self.pool.take();
            let mut bytes = mem::replace(buffer.bytes_mut(), link.client.take_out());
            if bytes.capacity() > 0 && self.spare.len() < 256 {
                bytes.clear();
                self.spare.push(bytes);
            }
            link.sending = true;
            link.send = self.rings.at(usize::from(link.ring)).send(id(slot), link.descriptor, buffer);
        }
    }
}

/// How a connection is named to its ring: a slot's next one begins when nothing of the last is in flight.
fn id(slot: u32) -> ConnectionId {
    ConnectionId { slot, generation: 0 }
}
