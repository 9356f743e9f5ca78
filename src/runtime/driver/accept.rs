//! Accepting: several accepts in flight a listener, in the first ring with room, paused while no ring has any.

use super::Driver;
use super::sockets::Socket;
use crate::base::Mono;
use crate::runtime::listener::{self, Unbound};
use crate::runtime::mailbox::LANDING_NONE;
use crate::runtime::net::Descriptor;
use crate::shard::Accepted;
use nix::errno::Errno;
use std::net::{SocketAddr, TcpListener};

/// Accepts in flight a listener at most: a turn takes so many connections. 16 a turn are far more than the kernel can set up.
const ACCEPTS: u32 = 16;
/// Descriptors of a full shard that are kept for clients that have to be told so, a quarter of smaller tables; more where there
/// are many listeners.
const RESERVE: usize = 64;
/// How long accepting stops after the system ran out of something.
const RETRY_MS: u64 = 1_000;
/// A warning about full tables is repeated after this.
const QUIET_MS: u64 = 60_000;

/// A listening socket of this shard.
#[derive(Debug)]
pub(super) struct Listener {
    socket: TcpListener,
    local: SocketAddr,
    in_flight: u32,
    retry_at: Option<Mono>,
}

impl Listener {
    pub(super) fn new(socket: TcpListener, local: SocketAddr) -> Self {
        Self { socket, local, in_flight: 0, retry_at: None }
    }

    /// Starts listening.
    pub(super) fn listen(&self) -> Result<(), Unbound> {
        listener::listen(&self.socket, self.local, listener::MQTT_KEY)
    }

    /// When accepting goes on, if it was stopped.
    pub(super) fn retry_at(&self) -> Option<Mono> {
        self.retry_at
    }
}

impl Driver {
    pub(super) fn on_accepted(
        &mut self,
        ring: usize,
        listener: u32,
        descriptor: Descriptor,
        peer: SocketAddr,
    ) {
        let Some(listener) = self.listeners.get_mut(listener as usize) else {
            // Accepted while the accepts were being cancelled.
            return self.rings.at(ring).close(descriptor);
        };
        listener.in_flight -= 1;
        let accepted = Accepted { peer, local: listener.local, at: self.now.mono };
        match self.shard.handle_accepted(self.now, accepted) {
            Some(connection) => {
                self.sockets.insert(connection, Socket::new(connection, ring, descriptor));
                self.rearm.push(connection);
            }
            None => self.rings.at(ring).close(descriptor),
        }
    }

    pub(super) fn on_accept_failed(&mut self, listener: u32, error: Errno) {
        let Some(listener) = self.listeners.get_mut(listener as usize) else { return };
        listener.in_flight -= 1;
        match error {
            // Cancelled in a ring that is not used any more; or the client has given up already, or its network has: the next one may be luckier.
            Errno::ECANCELED
            | Errno::ECONNABORTED
            | Errno::EPROTO
            | Errno::EPERM
            | Errno::ETIMEDOUT
            | Errno::ENETDOWN
            | Errno::ENETUNREACH
            | Errno::EHOSTDOWN
            | Errno::EHOSTUNREACH => {}
            error => {
                listener.retry_at = Some(self.now.mono.plus_ms(RETRY_MS));
                let local = listener.local;
                self.warn(|| tracing::warn!(%local, "accepting is paused for a second: {error}"));
            }
        }
    }

    /// Keeps accepts in flight where there is room, and opens another ring when there soon is none.
    pub(super) fn keep_accepting(&mut self) {
        if self.leaving.is_some() || self.opened.is_some() {
            return;
        }
        if self.rings.should_open() {
            self.open_ring();
        }
        let mut is_full = self.accept();
        if is_full && self.rings.may_open() {
            // What many listeners have in flight fills a small table.
            self.open_ring();
            is_full = self.accept();
        }
        if is_full {
            let connections = self.sockets.len();
            self.warn(|| {
                tracing::warn!(
                    connections,
                    "accepting is paused: this shard's descriptor tables are full; raise the descriptor limit \
                     (`ulimit -n`, systemd LimitNOFILE) or lower mqtt.max_connections"
                );
            });
        }
    }

    /// Asks for connections in the ring that has room. Says whether a listener has to go without for want of room.
    fn accept(&mut self) -> bool {
        let each = self.accepts_each();
        let (ring, room) = self.rings.roomy();
        let free = self.rings.at(ring).descriptors_free();
        self.move_landing(ring, free);
        let net = self.rings.at(ring);
        let pending = u32::try_from(net.accepts()).expect("a few a listener");
        let strangers = u32::try_from(self.shard.room_for_strangers()).unwrap_or(u32::MAX);
        let mut room = room.min(strangers.saturating_sub(pending));
        let mut is_full = false;
        for (index, listener) in (0u32..).zip(&mut self.listeners) {
            if listener.retry_at.is_some_and(|at| at > self.now.mono) {
                continue;
            }
            listener.retry_at = None;
            let count = each.saturating_sub(listener.in_flight).min(room);
            for _ in 0..count {
                net.accept(index, &listener.socket);
            }
            listener.in_flight += count;
            room -= count;
            is_full |= listener.in_flight == 0 && strangers > 0;
        }
        if strangers == 0 {
            self.warn(|| {
                tracing::warn!(
                    "accepting waits: too many clients over mqtt.max_connections have not said who they are; raise it, or lower \
                     mqtt.login_timeout"
                );
            });
        }
        is_full
    }

    /// Accepts in flight a listener: fewer where a few listeners would take a small table for themselves.
    fn accepts_each(&self) -> u32 {
        let listeners = u32::try_from(self.listeners.len()).expect("a few").max(1);
        (self.rings.descriptors() / 8 / listeners).clamp(1, ACCEPTS)
    }

    /// Tells the other shards which ring has room for their connections: none, while what is left is for those accepted here.
    fn move_landing(&mut self, ring: usize, free: u32) {
        let listeners = u32::try_from(self.listeners.len()).expect("a few");
        let is_short = free <= (ACCEPTS * (listeners + 1)).min(self.rings.descriptors() / 4);
        let landing = if is_short { LANDING_NONE } else { ring };
        if landing != self.landing {
            self.landing = landing;
            self.mesh.set_landing(self.id, landing);
        }
    }

    /// Tells the shard how many clients there are sockets for, once this is known.
    pub(super) fn limit_clients(&mut self) {
        let max = self.rings.descriptors_max();
        let reserve = RESERVE.min(self.rings.descriptors() as usize / 4);
        // Accepts in flight for other listeners keep a client from being accepted, and so from being told.
        let accepts = self.accepts_each() as usize * self.listeners.len() + ACCEPTS as usize;
        self.shard.handle_sockets_max(max.map(|max| max.saturating_sub(reserve.max(accepts))));
    }

    /// Accepts nothing more.
    pub(super) fn stop_accepting(&mut self) {
        self.rings.cancel_accepts();
        // Closing the sockets lets clients know at once; those in the queue are reset.
        self.listeners.clear();
    }

    fn open_ring(&mut self) {
        match self.rings.open() {
            Ok(ring) => {
                self.mesh.publish_ring(self.id, ring, self.rings.ring_fd(ring));
                tracing::debug!(shard = self.id.0, ring, "opened another network ring");
            }
            Err(error) => {
                self.rings.stop_opening();
                let rings = self.rings.count();
                tracing::warn!(
                    rings,
                    "no further network ring can be opened: {error}; raise the descriptor limit (`ulimit -n`, systemd \
                     LimitNOFILE)"
                );
            }
        }
        self.limit_clients();
    }

    /// Warns, but not again for a while.
    fn warn(&mut self, warning: impl FnOnce()) {
        if self.quiet_until <= self.now.mono {
            self.quiet_until = self.now.mono.plus_ms(QUIET_MS);
            warning();
        }
    }
}
