//! What the shard wants done, at the end of a turn.

use super::Driver;
use super::sockets::Flag;
use crate::shard::Output;

impl Driver {
    /// Polls the shard until nothing comes. Sends go first: last words are queued before the close that follows them.
    pub(super) fn drain(&mut self) {
        loop {
            // First: what it finds committed adds to the others.
            let mut moved = self.work_disk();
            while let Some((connection, buffer)) = self.shard.poll_send() {
                moved = true;
                let socket = self.sockets.get_mut(connection).expect("the shard sends on what it has");
                let ring = self.rings.at(usize::from(socket.ring));
                let send = ring.send(connection, socket.descriptor, buffer);
                socket.set_send(send);
            }
            while let Some(output) = self.shard.poll_output() {
                moved = true;
                self.on_output(output);
            }
            moved |= self.post_mail();
            if !moved {
                return;
            }
        }
    }

    fn on_output(&mut self, output: Output) {
        match output {
            Output::Close { connection } => self.close(connection),
            Output::HandOver { connection, to, hand_over } => self.hand_over(connection, to, hand_over),
            Output::Established { connection } => {
                if let Some(socket) = self.sockets.get_mut(connection) {
                    socket.set(Flag::Established);
                }
            }
            Output::Pause { connection } => {
                if let Some(socket) = self.sockets.get_mut(connection) {
                    socket.set(Flag::Paused);
                    self.cancel_receive(connection);
                }
            }
            Output::Resume { connection } => {
                if let Some(socket) = self.sockets.get_mut(connection) {
                    socket.clear(Flag::Paused);
                    self.rearm.push(connection);
                }
            }
        }
    }
}
