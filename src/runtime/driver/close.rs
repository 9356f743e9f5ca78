//! Closing: everything in flight ends first, then the descriptor is closed.
//!
//! A socket closed with bytes unread resets the connection, and with that the peer may lose the last bytes sent to it. So
//! after last words (a send that completed in the turn of the close) the sending side is ended, and what the peer still sends
//! is read and dropped until it closes too, for two seconds at most.

use super::Driver;
use super::sockets::Flag;
use crate::base::ConnectionId;
use crate::runtime::net::{Descriptor, Ended, SendId};

/// How long the peer of a closed connection is listened to.
const LINGER_MS: u64 = 2_000;

/// A connection the shard has forgotten and the kernel has not.
#[derive(Debug)]
pub(super) struct Closing {
    ring: usize,
    descriptor: Descriptor,
    armed: bool,
    send: Option<SendId>,
    lingers: bool,
    /// The end of the sending side is on its way.
    ending: bool,
}

impl Driver {
    /// The shard has closed `connection`.
    pub(super) fn close(&mut self, connection: ConnectionId) {
        let Some(socket) = self.sockets.remove(connection) else { return };
        let lingers = self.leaving.is_none() && socket.has_sent_in(self.turn) && !socket.is(Flag::Ended);
        let closing = Closing {
            ring: usize::from(socket.ring),
            descriptor: socket.descriptor,
            armed: socket.is(Flag::Armed),
            send: socket.send(),
            lingers,
            ending: lingers,
        };
        let ring = self.rings.at(closing.ring);
        if lingers {
            ring.end_sending(connection, closing.descriptor);
            if !closing.armed {
                ring.receive(connection, closing.descriptor);
            }
            self.lingering.push_back((self.now.mono.plus_ms(LINGER_MS), connection));
            self.closing.insert(connection, Closing { armed: true, ..closing });
            return;
        }
        if closing.armed {
            ring.cancel_receive(connection);
        }
        if let Some(send) = closing.send {
            ring.cancel_send(send, connection);
        }
        self.closing.insert(connection, closing);
        self.close_if_quiet(connection);
    }

    /// The receive of a closed connection is over: with bytes (`None`) or without.
    pub(super) fn on_closing_receive(&mut self, connection: ConnectionId, ended: Option<Ended>) {
        let Some(closing) = self.closing.get_mut(&connection) else { return };
        closing.armed = false;
        if closing.lingers && matches!(ended, None | Some(Ended::Cancelled)) {
            closing.armed = true;
            let (ring, descriptor) = (closing.ring, closing.descriptor);
            self.rings.at(ring).receive(connection, descriptor);
        } else {
            self.close_if_quiet(connection);
        }
    }

    pub(super) fn on_closing_sent(&mut self, connection: ConnectionId) {
        if let Some(closing) = self.closing.get_mut(&connection) {
            closing.send = None;
            self.close_if_quiet(connection);
        }
    }

    pub(super) fn on_sending_ended(&mut self, connection: ConnectionId) {
        if let Some(closing) = self.closing.get_mut(&connection) {
            closing.ending = false;
            self.close_if_quiet(connection);
        }
    }

    /// Closes for good whom the time to listen to is over.
    pub(super) fn end_lingering(&mut self) {
        while let Some((deadline, connection)) = self.lingering.front().copied() {
            let is_due = deadline <= self.now.mono || self.leaving.is_some();
            match self.closing.get_mut(&connection) {
                Some(closing) if is_due => {
                    closing.lingers = false;
                    let ring = closing.ring;
                    self.rings.at(ring).cancel_receive(connection);
                }
                Some(_) => return,
                None => {}
            }
            self.lingering.pop_front();
        }
    }

    fn close_if_quiet(&mut self, connection: ConnectionId) {
        if self
            .closing
            .get(&connection)
            .is_some_and(|closing| !closing.armed && !closing.ending && closing.send.is_none())
        {
            let closing = self.closing.remove(&connection).expect("found above");
            self.rings.at(closing.ring).close(closing.descriptor);
        }
    }
}
