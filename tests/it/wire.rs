//! A socket and bytes: for what no well-behaved client does. Written from the specification, not with the codec under test.

use crate::DEADLINE;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// A connection that sends what it is told.
pub(crate) struct Wire {
    stream: TcpStream,
}

/// A packet from the broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Packet {
    /// Type and flags.
    pub(crate) first: u8,
    /// All behind the fixed header.
    pub(crate) body: Vec<u8>,
}

impl Wire {
    /// Connects, and sends nothing.
    pub(crate) fn open(broker: SocketAddr) -> Self {
        let stream = TcpStream::connect(broker).expect("the broker accepts");
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline can be set");
        stream.set_write_timeout(Some(DEADLINE)).expect("a deadline can be set");
        stream.set_nodelay(true).expect("small segments can be asked for");
        Self { stream }
    }

    /// Connects with a clean session, and waits for CONNACK.
    pub(crate) fn connected(broker: SocketAddr, level: u8, id: &str) -> Self {
        let mut wire = Self::open(broker);
        wire.send(&connect(level, id));
        let connack = wire.receive().expect("CONNACK");
        assert_eq!((connack.first, &connack.body[..2]), (0x20, &[0, 0][..]), "accepted");
        wire
    }

    /// Sends bytes. The broker may have closed already: then they are lost, which is the sender's risk.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next packet; `None` when the broker has closed the connection.
    pub(crate) fn receive(&mut self) -> Option<Packet> {
        let first = self.byte()?;
        let mut len = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            len |= usize::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; len];
        self.read(&mut body).then_some(Packet { first, body })
    }

    /// Closes the sending side only: the broker reads the end, and its last words can still be heard.
    pub(crate) fn end_sending(&self) {
        // The broker may have reset it already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Whether something arrives within this time, be it the end.
    pub(crate) fn hears_within(&self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).expect("a deadline can be set");
        let heard = self.stream.peek(&mut [0]).is_ok();
        self.stream.set_read_timeout(Some(DEADLINE)).expect("a deadline can be set");
        heard
    }

    /// Asserts that the broker closes without a word.
    pub(crate) fn assert_closed(mut self) {
        assert_eq!(self.receive(), None);
    }

    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        self.read(&mut byte).then_some(byte[0])
    }

    /// Whether the buffer could be filled before the end.
    fn read(&mut self, buffer: &mut [u8]) -> bool {
        match self.stream.read_exact(buffer) {
            Ok(()) => true,
            // A broker that closes with bytes unread resets.
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                false
            }
            Err(error) => panic!("neither an answer nor the end: {error}"),
        }
    }
}

/// A whole packet: fixed header and body.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut len = body.len();
    loop {
        let more = if len > 0x7F { 0x80 } else { 0 };
        packet.push(u8::try_from(len & 0x7F).expect("seven bits") | more);
        len >>= 7;
        if len == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

/// A text with its length in front.
pub(crate) fn text(text: &str) -> Vec<u8> {
    let len = u16::try_from(text.len()).expect("texts here are short");
    [&len.to_be_bytes(), text.as_bytes()].concat()
}

/// CONNECT with a clean session and a keep alive of a minute.
pub(crate) fn connect(level: u8, id: &str) -> Vec<u8> {
    connect_with(level, id, 0x02, &[])
}

/// CONNECT with these flags, and what they announce behind the client identifier.
pub(crate) fn connect_with(level: u8, id: &str, flags: u8, behind: &[u8]) -> Vec<u8> {
    let name = if level == 3 { "MQIsdp" } else { "MQTT" };
    let properties: &[u8] = if level == 5 { &[0] } else { &[] };
    packet(0x10, &[&text(name)[..], &[level, flags, 0, 60], properties, &text(id), behind].concat())
}

/// SUBSCRIBE to one filter.
pub(crate) fn subscribe(level: u8, packet_id: u16, filter: &str, qos: u8) -> Vec<u8> {
    let properties: &[u8] = if level == 5 { &[0] } else { &[] };
    packet(0x82, &[&packet_id.to_be_bytes()[..], properties, &text(filter), &[qos]].concat())
}

/// PUBLISH at QoS 0.
pub(crate) fn publish(level: u8, topic: &str, payload: &[u8]) -> Vec<u8> {
    let properties: &[u8] = if level == 5 { &[0] } else { &[] };
    packet(0x30, &[&text(topic)[..], properties, payload].concat())
}
