//! Tests of the client machine: exchanges with hand-written server bytes, and a small server that loses connections.

mod exchange;
mod keep_alive;
mod lossy;
mod refusals;

use super::*;
use crate::base::{Version, Wall};
use crate::codec::tests::bytes;

const VERSIONS: [Version; 3] = [Version::V310, Version::V311, Version::V5];

/// So many milliseconds after the beginning.
fn at(ms: u64) -> Now {
    Now { mono: Mono(ms), wall: Wall(1_700_000_000_000 + ms) }
}

fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

/// A client that has received `connack`.
fn connected(options: Options, connack: &str) -> Client {
    let mut client = Client::new(options, "c");
    client.connect(at(0));
    assert!(!client.take_out().is_empty());
    receive(&mut client, connack);
    assert!(client.is_connected());
    client.poll_event().unwrap();
    client
}

/// A connection accepted without properties.
fn accepted(version: Version) -> &'static str {
    if version.is_v5() { "20 03 00 00 00" } else { "20 02 00 00" }
}

/// The same with the session resumed.
fn resumed(version: Version) -> &'static str {
    match version {
        // It cannot say.
        Version::V310 => "20 02 00 00",
        Version::V311 => "20 02 01 00",
        Version::V5 => "20 03 01 00 00",
    }
}

fn receive(client: &mut Client, vector: &str) {
    client.handle_bytes(at(0), &bytes(vector)).unwrap();
}

fn events(client: &mut Client) -> Vec<Event> {
    std::iter::from_fn(|| client.poll_event()).collect()
}

/// What the client sent is `vector`.
#[track_caller]
fn expect_out(client: &mut Client, vector: &str) {
    let out = client.take_out();
    let expected = bytes(vector);
    assert!(out == expected, "sent {out:02x?}, expected {expected:02x?}");
}

#[test]
fn an_idle_client_is_small() {
    assert!(size_of::<Client>() <= 300, "{}", size_of::<Client>());
    let mut client = connected(Options::new(Version::V311), "20 02 00 00");
    let filter = codec::SubscribeFilter::new("a", QoS::AtMostOnce);
    let packet_id = client.subscribe(at(0), &[filter], None).unwrap();
    receive(&mut client, "90 03 0001 00");
    receive(&mut client, "30 03 0001'a'");
    assert_eq!((events(&mut client).len(), packet_id), (2, id(1)));
    drop(client.take_out());
    let heap = [
        client.out.capacity(),
        client.partial.capacity(),
        client.events.capacity(),
        client.received.capacity(),
        client.requests.capacity(),
    ];
    assert_eq!(heap, [0; 5]);
}
