//! Sockets and files on io_uring: [`NetRing`] and what belongs to it.
//!
//! A ring owns a sparse table of *direct descriptors* (sockets that never enter the process's descriptor table), a ring of
//! *provided buffers* (an idle connection holds none), and everything the kernel reads or writes while an operation is in
//! flight: addresses, out-buffers, message headers. So all of its interface is safe: what an operation needs is moved in, and
//! comes back in the operation's [`Completion`].
//!
//! It is not a broker: it knows connections only as a [`ConnectionId`](crate::base::ConnectionId) to be given back with each
//! completion, so the load generator drives its clients with the same type.
//!
//! Cost: an operation is one 64-byte submission entry; all entries of a turn are submitted by one system call, which also runs
//! the kernel's deferred work and waits if asked to.

mod accept;
mod address;
mod buffer_ring;
mod buffers;
mod completion;
mod connect;
mod file;
mod hand_over;
mod pages;
pub mod probe;

mod receive;
mod ring;
mod rings;
mod send;
mod tag;
mod wake;

#[cfg(test)]
mod tests;

pub use buffers::{Buffer, ReceiveBuffers};
pub use completion::{Completion, Ended};
pub use connect::Source;
pub use file::{BLOCK_SIZE, Blocks, Transfer};
pub use ring::{Descriptor, NetRing, RingFd, RingOptions};
pub use rings::{RingShare, Rings, RingsOptions};
pub use send::SendId;
pub use tag::INDEX_END;
