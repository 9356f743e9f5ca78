//! One client on a blocking socket, for the few connections that are not load: the witness, and who writes to idle clients.

use crate::clock;
use anyhow::{Context, Result, anyhow, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use quelea::base::QoS;
use quelea::client::{Client, Incoming, Options, Publication};
use quelea::codec::SubscribeFilter;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

/// How long a connection, CONNACK, SUBACK, room for a publish or for its bytes may take.
const PATIENCE: u64 = 10 * clock::SECOND;

/// A connected client.
pub struct Link {
    socket: TcpStream,
    client: Client,
    bytes: Vec<u8>,
    /// Keep alive, in nanoseconds, and when something was last sent.
    keep_alive: u64,
    sent: u64,
}

impl Link {
    /// Connects, and waits for CONNACK.
    ///
    /// # Errors
    /// If the broker cannot be reached or does not want it.
    pub fn open(target: SocketAddr, options: &Arc<Options>, client_id: &str) -> Result<Self> {
        let socket = TcpStream::connect_timeout(&target, Duration::from_nanos(PATIENCE))
            .with_context(|| format!("{client_id}: no connection"))?;
        socket.set_nodelay(true)?;
        // A broker that does not read must not hold up the rest of the run.
        socket.set_write_timeout(Some(Duration::from_nanos(PATIENCE)))?;
        let client = Client::new(Arc::clone(options), client_id);
        let keep_alive = u64::from(options.keep_alive_secs) * clock::SECOND;
        let mut link = Self { socket, client, bytes: vec![0; 64 << 10], keep_alive, sent: clock::now() };
        link.client.connect(clock::mqtt(clock::now()));
        link.flush()?;
        link.wait_for("CONNACK", |incoming| matches!(incoming, Incoming::Connected(_)))?;
        Ok(link)
    }

    /// Subscribes, and waits for SUBACK.
    ///
    /// # Errors
    /// If the broker refuses, or the connection is lost.
    pub fn subscribe(&mut self, filter: &str, qos: QoS) -> Result<()> {
        let filters = [SubscribeFilter::new(filter, qos)];
        let now = clock::mqtt(clock::now());
        self.client.subscribe(now, &filters, None).map_err(|refusal| anyhow!("SUBSCRIBE: {refusal}"))?;
        self.flush()?;
        self.wait_for("SUBACK", |incoming| match incoming {
            Incoming::Subscribed(suback) => suback.codes().all(|code| !code.is_error()),
            _ => false,
        })
    }

    /// Publishes; what was taken before and waits for its acknowledgement may have to be acknowledged first.
    ///
    /// # Errors
    /// If the connection is lost, or nothing is acknowledged for ten seconds.
    pub fn publish(&mut self, topic: &str, payload: &[u8], qos: QoS) -> Result<()> {
        if !self.client.can_publish() {
            self.wait_for("room for a publish", |incoming| {
                matches!(incoming, Incoming::Acknowledged { .. })
            })?;
        }
        let publication = Publication::new(topic, payload, qos);
        let now = clock::mqtt(clock::now());
        self.client.publish(now, &publication).map_err(|refusal| anyhow!("PUBLISH: {refusal}"))?;
        self.flush()
    }

    /// Waits for bytes until `until`, gives what they say to `take`, and keeps the connection alive. Says whether something came.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn receive(&mut self, until: u64, take: &mut dyn FnMut(&Incoming<'_>)) -> Result<bool> {
        if self.keep_alive > 0 && clock::now() - self.sent > self.keep_alive / 2 {
            self.client.ping(clock::mqtt(clock::now())).map_err(|refusal| anyhow!("PINGREQ: {refusal}"))?;
            self.flush()?;
        }
        // Rounded up: a wait of 0 would spin.
        let millis = until.saturating_sub(clock::now()).div_ceil(clock::MILLISECOND).min(1000) as u16;
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(millis)).unwrap_or(0) == 0 {
            return Ok(false);
        }
        let count = self.socket.read(&mut self.bytes).context("a connection was lost")?;
        if count == 0 {
            bail!("a connection was closed by the broker");
        }
        let now = clock::mqtt(clock::now());
        self.client
            .handle_bytes_with(now, &self.bytes[..count], &mut |incoming| take(&incoming))
            .map_err(|error| anyhow!("{error}"))?;
        self.flush()?;
        Ok(true)
    }

    fn wait_for(&mut self, what: &str, is_it: impl Fn(&Incoming<'_>) -> bool) -> Result<()> {
        let until = clock::now() + PATIENCE;
        let mut came = false;
        while !came {
            if clock::now() > until {
                bail!("waited for {what} for {} s", PATIENCE / clock::SECOND);
            }
            self.receive(until, &mut |incoming| came |= is_it(incoming))?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if !self.client.out_mut().is_empty() {
            self.sent = clock::now();
            self.socket.write_all(&self.client.take_out()).context("a connection was lost")?;
        }
        Ok(())
    }
}
