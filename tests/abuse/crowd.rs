//! Many connections in one thread: opened from many addresses, written to without ever waiting.

use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Connections that share a source address: far fewer than there are ports.
const A_SOURCE: usize = 10_000;

/// Connects from a loopback address of its own: the `number`-th.
pub(crate) fn connect_from(number: usize, broker: SocketAddr) -> TcpStream {
    let host = u32::from(Ipv4Addr::new(127, 0, 1, 1)) + u32::try_from(number / A_SOURCE).expect("small");
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
    socket.set_reuse_address(true).expect("an option");
    socket.bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::from(host), 0)))).expect("a port");
    socket.connect(&SockAddr::from(broker)).expect("the broker accepts");
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).expect("an option");
    stream.set_read_timeout(Some(crate::DEADLINE)).expect("an option");
    stream
}

/// Lets time pass where the pace is what is tested, or between two looks at what has no event.
pub(crate) fn pace(time: Duration) {
    std::thread::park_timeout(time);
}

/// Resets instead of closing.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("an option");
    drop(stream);
}

/// Makes the kernel take as little as possible from the broker.
pub(crate) fn make_deaf(stream: &TcpStream) {
    SockRef::from(stream).set_recv_buffer_size(4096).expect("an option");
}

/// Sends without waiting, as much as there is room for; whether the connection is still there.
#[allow(clippy::unused_io_amount, reason = "what finds no room is not missed")]
pub(crate) fn poke(mut stream: &TcpStream, bytes: &[u8]) -> bool {
    stream.set_nonblocking(true).expect("an option");
    match stream.write(bytes) {
        Ok(_) => !is_closed(stream),
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

/// Whether the broker has closed, as far as one can see without waiting. Drops what it has sent.
pub(crate) fn is_closed(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("an option");
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

/// Sends all of it and reads so many bytes; whether they came.
pub(crate) fn exchange(mut stream: &TcpStream, bytes: &[u8], answer: &mut [u8]) -> bool {
    stream.write_all(bytes).is_ok() && stream.read_exact(answer).is_ok()
}
