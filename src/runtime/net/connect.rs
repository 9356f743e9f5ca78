//! Outgoing connections, into direct descriptors: the load generator's side.
//!
//! ```text
//! SOCKET (auto descriptor) -> options -> [BIND source] -linked-> CONNECT -> Connected
//! ```
//!
//! Needs Linux 6.11 when a source address is given (`IORING_OP_BIND`); the broker itself does not connect.

use super::address::{RawAddress, domain};
use super::completion::Completion;
use super::ring::{Descriptor, NetRing};
use super::tag::{Op, Tag};
use crate::base::{ConnectionId, Slab};
use io_uring::{opcode, squeue, types};
use nix::errno::Errno;
use std::net::SocketAddr;

/// Connects in flight. Addresses are boxed: the kernel reads them where they are.
pub(super) type Connects = Slab<Box<Connecting>>;

pub(super) struct Connecting {
    connection: ConnectionId,
    to: RawAddress,
    from: Option<RawAddress>,
    descriptor: Option<Descriptor>,
}

/// The value of a switched-on socket option.
static ON: libc::c_int = 1;

#[allow(clippy::cast_sign_loss, reason = "small constants")]
const NO_DELAY: (u32, u32) = (libc::IPPROTO_TCP as u32, libc::TCP_NODELAY as u32);
#[allow(clippy::cast_sign_loss, reason = "small constants")]
const REUSE_ADDRESS: (u32, u32) = (libc::SOL_SOCKET as u32, libc::SO_REUSEADDR as u32);

impl NetRing {
    /// Connects to `to`, from `from` if given (port 0: any), with TCP_NODELAY; [`Completion::Connected`] names the socket.
    pub fn connect(&mut self, connection: ConnectionId, to: SocketAddr, from: Option<SocketAddr>) {
        let connecting = Connecting {
            connection,
            to: RawAddress::new(to),
            from: from.map(RawAddress::new),
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
        let bind = connecting
            .from
            .as_ref()
            .map(|from| opcode::Bind::new(fd, std::ptr::from_ref(from).cast(), from.len).build());
        self.push_silent(set_option(fd, NO_DELAY));
        if let Some(bind) = bind {
            self.push_silent(set_option(fd, REUSE_ADDRESS));
            self.reserve(2);
            let bind_tag = Tag { op: Op::Bind, ..tag };
            let flags = squeue::Flags::IO_LINK | squeue::Flags::SKIP_SUCCESS;
            self.enqueue(bind.user_data(bind_tag.encode()).flags(flags));
        }
        self.push(Tag { op: Op::Connect, ..tag }, connect);
    }
}

fn set_option(fd: types::Fixed, (level, name): (u32, u32)) -> squeue::Entry {
    #[allow(clippy::cast_possible_truncation, reason = "4")]
    let len = size_of_val(&ON) as u32;
    opcode::SetSockOpt::new(fd, level, name, (&raw const ON).cast(), len).build()
}
