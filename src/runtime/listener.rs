//! Listening sockets: one a shard and address, sharing the port, with the options that accepted sockets inherit.

use super::clock;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// Connections the kernel completes before they are accepted; it takes the smaller of this and `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// A connection that is silent for this long is probed by the kernel, however long its MQTT keep alive.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(300);
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(60);
const KEEP_ALIVE_PROBES: u32 = 5;

/// How long a port may be taken: the kernel closes the rings of a process that was killed, and with them its listeners, only
/// after it has said that the process is gone.
const TAKEN_MS: u64 = 1_000;
const RETRY: Duration = Duration::from_millis(10);

/// The key of the listeners for plain MQTT.
pub const MQTT_KEY: &str = "mqtt.listeners.tcp.<name>";

/// An address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}; the address is set by {key}", explain(.error))]
pub struct Unbound {
    /// Which address.
    pub address: SocketAddr,
    /// The key that sets it.
    pub key: &'static str,
    /// What the system said.
    pub error: io::Error,
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there already".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need the capability CAP_NET_BIND_SERVICE".to_owned()
        }
        _ => error.to_string(),
    }
}

/// `count` sockets bound to one address and port (0: any, the same for all), and the address with the port filled in.
///
/// They do not listen yet: see [`listen`].
///
/// # Errors
/// If the address is taken, is not this machine's, or may not be used.
pub fn bind(
    address: SocketAddr,
    count: u16,
    key: &'static str,
) -> Result<(Vec<TcpListener>, SocketAddr), Unbound> {
    let unbound = |error| Unbound { address, key, error };
    let mut sockets = Vec::new();
    let mut bound = address;
    for _ in 0..count {
        let socket = configured(address).map_err(unbound)?;
        if sockets.is_empty() {
            // Without SO_REUSEPORT, which would let two brokers of one user share the port in silence. The first socket
            // allows sharing once the port is its own.
            bind_alone(&socket, bound).map_err(unbound)?;
            socket.set_reuse_port(true).map_err(unbound)?;
            let local = socket.local_addr().map_err(unbound)?;
            bound = local.as_socket().expect("bound to an internet address");
        } else {
            socket.set_reuse_port(true).map_err(unbound)?;
            socket.bind(&bound.into()).map_err(unbound)?;
        }
        sockets.push(TcpListener::from(socket));
    }
    Ok((sockets, bound))
}

/// Binds, and if the port is taken tries again for a while.
fn bind_alone(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    let deadline = clock::now().mono.plus_ms(TAKEN_MS);
    loop {
        match socket.bind(&address.into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && clock::now().mono < deadline => {
                std::thread::park_timeout(RETRY);
            }
            result => return result,
        }
    }
}

/// Starts listening.
///
/// # Errors
/// If another process was faster on the same port.
pub fn listen(socket: &TcpListener, address: SocketAddr, key: &'static str) -> Result<(), Unbound> {
    socket2::SockRef::from(socket).listen(BACKLOG).map_err(|error| Unbound { address, key, error })
}

fn configured(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart is not held up by connections of the last run; a listening socket still is in the way.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // An IPv6 listener is for IPv6: `0.0.0.0` and `::` can both be configured.
        socket.set_only_v6(true)?;
    }
    socket.set_tcp_nodelay(true)?;
    let keep_alive = TcpKeepalive::new().with_time(KEEP_ALIVE_AFTER).with_interval(KEEP_ALIVE_EVERY);
    socket.set_tcp_keepalive(&keep_alive.with_retries(KEEP_ALIVE_PROBES))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn loopback() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn sockets_share_a_port_and_their_options_are_inherited() {
        let (sockets, address) = bind(loopback(), 3, MQTT_KEY).unwrap();
        assert_ne!(address.port(), 0);
        for socket in &sockets {
            assert_eq!(socket.local_addr().unwrap(), address);
            listen(socket, address, MQTT_KEY).unwrap();
            socket.set_nonblocking(true).unwrap();
        }
        let clients: Vec<_> = (0..60).map(|_| TcpStream::connect(address).unwrap()).collect();
        let accepted: Vec<Vec<TcpStream>> = sockets
            .iter()
            .map(|socket| std::iter::from_fn(|| socket.accept().ok()).map(|(stream, _)| stream).collect())
            .collect();
        assert_eq!(accepted.iter().map(Vec::len).sum::<usize>(), clients.len());
        assert!(
            accepted.iter().all(|share| !share.is_empty()),
            "the kernel spreads connections over the sockets"
        );
        for stream in accepted.iter().flatten() {
            assert!(stream.nodelay().unwrap());
            assert!(socket2::SockRef::from(stream).keepalive().unwrap());
        }
    }

    #[test]
    fn a_taken_port_is_refused_and_named() {
        let (sockets, address) = bind(loopback(), 2, MQTT_KEY).unwrap();
        listen(&sockets[0], address, MQTT_KEY).unwrap();
        let text = bind(address, 2, MQTT_KEY).unwrap_err().to_string();
        assert!(text.contains(&address.to_string()), "{text}");
        assert!(text.contains("mqtt.listeners.tcp.<name>"), "{text}");
        let foreign = bind("192.0.2.1:1".parse().unwrap(), 1, MQTT_KEY).unwrap_err().to_string();
        assert!(foreign.contains("no such address"), "{foreign}");
    }
}
