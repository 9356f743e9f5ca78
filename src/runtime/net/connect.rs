//! Outgoing connections, into direct descriptors: the load generator's side.
//!
//! ```text
//! SOCKET (auto descriptor) -> options -> [BIND source] -linked-> CONNECT -> Connected
//! ```
//!
//! Needs Linux 6.11 when a source is given (`IORING_OP_BIND`); the broker itself does not connect.

use super::address::{RawAddress, domain};
use super::completion::Completion;
use super::ring::{Descriptor, NetRing};
use super::tag::{Op, Tag};
use crate::base::{ConnectionId, Slab};
use io_uring::{opcode, squeue, types};
use nix::errno::Errno;
use std::net::{IpAddr, SocketAddr};

/// Where a connection comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Source {
    /// An address of this machine.
    pub address: IpAddr,
    /// The first and the last port to choose from: all within the system's `net.ipv4.ip_local_port_range`.
    pub ports: (u16, u16),
}

/// Connects in flight. Addresses are boxed: the kernel reads them where they are.
pub(super) type Connects = Slab<Box<Connecting>>;

pub(super) struct Connecting {
    connection: ConnectionId,
    to: RawAddress,
    from: Option<RawAddress>,
    /// As the kernel wants it: the last port above, the first below.
    ports: u32,
    descriptor: Option<Descriptor>,
}

/// The value of a switched-on socket option.
static ON: libc::c_int = 1;

#[allow(clippy::cast_sign_loss, reason = "small constants")]
const NO_DELAY: (u32, u32) = (libc::IPPROTO_TCP as u32, libc::TCP_NODELAY as u32);
/// Bind the address alone. The port is chosen by connect, which knows both ends: the search of a bind for a free port looks at every
/// socket of the port on every address, which took 10 ms a connection at 100,000 of them.
#[allow(clippy::cast_sign_loss, reason = "small constants")]
const ADDRESS_WITHOUT_PORT: (u32, u32) = (libc::IPPROTO_IP as u32, libc::IP_BIND_ADDRESS_NO_PORT as u32);
/// A port range of the socket's own. Without one, connect tries all even ports of the system's range first, so that when half of an address's
/// ports are taken each connection looks at 14,000 of them (1.5 ms); with one it goes on where the last search ended.
#[allow(clippy::cast_sign_loss, reason = "small constants")]
const LOCAL_PORTS: (u32, u32) = (libc::IPPROTO_IP as u32, 51);

impl NetRing {
    /// Connects to `to`, from `from` if given, with TCP_NODELAY; [`Completion::Connected`] names the socket.
    pub fn connect(&mut self, connection: ConnectionId, to: SocketAddr, from: Option<Source>) {
        let (first, last) = from.map_or((0, 0), |from| from.ports);
        let connecting = Connecting {
            connection,
            to: RawAddress::new(to),
            from: from.map(|from| RawAddress::new(SocketAddr::new(from.address, 0))),
            ports: u32::from(last) << 16 | u32::from(first),
            descriptor: None,
        };
        let (index, generation) = self.connects.insert(Box::new(connecting));
        let entry = opcode::Socket::new(domain(&to), libc::SOCK_STREAM, 0)
            .file_index(Some(types::DestinationSlot::auto_target()))
            .build();
        self.push(Tag::new(Op::Socket, index, generation), entry);
    }

    pub(super) fn connecting(
        &mut self,
        tag: Tag,
        result: Result<u32, Errno>,
        completions: &mut Vec<Completion>,
    ) {
        let connecting = self.connects.get_mut(tag.index, tag.generation).expect("a connect completes once");
        if let (Op::Socket, Ok(slot)) = (tag.op, result) {
            connecting.descriptor = Some(Descriptor(slot));
            self.descriptor_opened();
            return self.bind_and_connect(tag, slot);
        }
        // The end: a connect, or whatever failed first. After a bind that fails the linked connect does not complete.
        let Connecting { connection, descriptor, .. } =
            *self.connects.remove(tag.index, tag.generation).expect("found above");
        let result = match (descriptor, result) {
            (Some(descriptor), Ok(_)) => Ok(descriptor),
            (opened, result) => {
                opened.into_iter().for_each(|descriptor| self.close(descriptor));
                Err(result.err().unwrap_or(Errno::EIO))
            }
        };
        completions.push(Completion::Connected { connection, result });
    }

    fn bind_and_connect(&mut self, tag: Tag, slot: u32) {
        let connecting = self.connects.get(tag.index, tag.generation).expect("the connect is in flight");
        let fd = types::Fixed(slot);
        let to = &raw const connecting.to;
        let connect = opcode::Connect::new(fd, to.cast(), connecting.to.len).build();
        let bind = connecting.from.as_ref().map(|from| {
            let bind = opcode::Bind::new(fd, std::ptr::from_ref(from).cast(), from.len).build();
            (bind, set_option(fd, LOCAL_PORTS, (&raw const connecting.ports).cast()))
        });
        let on = (&raw const ON).cast();
        self.push_silent(set_option(fd, NO_DELAY, on));
        if let Some((bind, ports)) = bind {
            self.push_silent(set_option(fd, ADDRESS_WITHOUT_PORT, on));
            self.push_silent(ports);
            self.push_linked(Tag { op: Op::Bind, ..tag }, bind, Tag { op: Op::Connect, ..tag }, connect);
        } else {
            self.push(Tag { op: Op::Connect, ..tag }, connect);
        }
    }
}

/// The value, four bytes, is read when the entry is executed.
fn set_option(fd: types::Fixed, (level, name): (u32, u32), value: *const libc::c_void) -> squeue::Entry {
    opcode::SetSockOpt::new(fd, level, name, value, 4).build()
}
