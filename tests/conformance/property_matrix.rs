//! Every property in every packet a client can send, in every version: one vector each, assembled from the tables here.
//!
//! A property stands where section 2.2.2.2 allows it, stands twice, is cut short, has a forbidden value, or stands where it
//! does not belong; MQTT 3 has none, and a packet with any is malformed. The packets are bytes, not the broker's codec's.

use crate::canon;
use crate::property::write_varint;
use crate::world::World;
use quelea::base::Version;
use quelea::shard::Options;
use std::net::SocketAddr;

/// A packet around a property block.
struct Frame {
    name: &'static str,
    first_byte: u8,
    before: &'static [u8],
    after: &'static [u8],
    /// Identifiers of the properties that a client may put there.
    allowed: &'static [u8],
}

const CONNECT_5: &[u8] = b"\0\x04MQTT\x05\x02\0\0";
const WILL_5: &[u8] = b"\0\x04MQTT\x05\x06\0\0\0\0\x01a";
const PUBLISH: &[u8] = &[0x01, 0x02, 0x03, 0x08, 0x09, 0x23, 0x26];
const ACK: &[u8] = &[0x1F, 0x26];

const fn frame(
    name: &'static str,
    first_byte: u8,
    before: &'static [u8],
    after: &'static [u8],
    allowed: &'static [u8],
) -> Frame {
    Frame { name, first_byte, before, after, allowed }
}

const FRAMES: [Frame; 11] = [
    frame("CONNECT", 0x10, CONNECT_5, b"\0\x01a", &[0x11, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27]),
    frame("WILL", 0x10, WILL_5, b"\0\x01w\0\0", &[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26]),
    frame("PUBLISH", 0x30, b"\0\x01t", b"x", PUBLISH),
    frame("PUBACK", 0x40, b"\0\x01\0", b"", ACK),
    frame("PUBREC", 0x50, b"\0\x01\0", b"", ACK),
    frame("PUBREL", 0x62, b"\0\x01\0", b"", ACK),
    frame("PUBCOMP", 0x70, b"\0\x01\0", b"", ACK),
    frame("SUBSCRIBE", 0x82, b"\0\x01", b"\0\x01f\0", &[0x0B, 0x26]),
    frame("UNSUBSCRIBE", 0xA2, b"\0\x01", b"\0\x01f", &[0x26]),
    // A Server Reference is the server's.
    frame("DISCONNECT", 0xE0, b"\0", b"", &[0x11, 0x1F, 0x26]),
    // No method was agreed on: there is nothing to say.
    frame("AUTH", 0xF0, b"\x19", b"", &[]),
];

/// Identifier, a value that is allowed, and values that are not.
type Row = (u8, &'static [u8], &'static [&'static [u8]]);

const TEXT_BAD: &[&[u8]] = &[b"\0\x01\0", b"\0\x01\xFF", b"\0\x03\xED\xA0\x80"];
const BOOLEAN_BAD: &[&[u8]] = &[&[2], &[0xFF]];

const PROPERTIES: [Row; 27] = [
    (0x01, &[1], BOOLEAN_BAD),
    (0x02, &[0, 0, 0, 1], &[]),
    (0x03, b"\0\x01a", TEXT_BAD),
    (0x08, b"\0\x01r", &[b"\0\x01\0", b"\0\x01\xFF", b"\0\x01#", b"\0\x03a/+"]),
    (0x09, b"\0\x01\xFF", &[]),
    (0x0B, &[1], &[&[0], &[0x80, 0x00], &[0xFF, 0xFF, 0xFF, 0xFF, 0x01]]),
    (0x11, &[0, 0, 0, 5], &[]),
    (0x12, b"\0\x01a", TEXT_BAD),
    (0x13, &[0, 1], &[]),
    (0x15, b"\0\x01a", TEXT_BAD),
    (0x16, b"\0\x01\xFF", &[]),
    (0x17, &[1], BOOLEAN_BAD),
    (0x18, &[0, 0, 0, 1], &[]),
    (0x19, &[1], BOOLEAN_BAD),
    (0x1A, b"\0\x01a", TEXT_BAD),
    (0x1C, b"\0\x01a", TEXT_BAD),
    (0x1F, b"\0\x01a", TEXT_BAD),
    (0x21, &[0, 1], &[&[0, 0]]),
    (0x22, &[0, 0], &[]),
    (0x23, &[0, 1], &[&[0, 0]]),
    (0x24, &[1], BOOLEAN_BAD),
    (0x25, &[1], BOOLEAN_BAD),
    (0x26, b"\0\x01a\0\x01b", &[b"\0\x01\0\0\x01b", b"\0\x01a\0\x01\xFF"]),
    (0x27, &[0, 0, 1, 0], &[&[0, 0, 0, 0]]),
    (0x28, &[1], BOOLEAN_BAD),
    (0x29, &[1], BOOLEAN_BAD),
    (0x2A, &[1], BOOLEAN_BAD),
];

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// The broker goes on, or (DISCONNECT) ends without a complaint.
    Accepted,
    /// The connection is closed, with this reason code if the version has one.
    Refused(Option<u8>),
}

/// Runs every combination; gives how many there were, and what is wrong.
pub(crate) fn run() -> (usize, Vec<String>) {
    let mut count = 0;
    let mut mistakes = Vec::new();
    for frame in &FRAMES {
        for row in &PROPERTIES {
            let mut check =
                |version: Version, form: &str, block: &[u8], is_good: fn(Outcome, &Frame, u8) -> bool| {
                    count += 1;
                    let outcome = send(frame, version, block);
                    if !is_good(outcome, frame, row.0) {
                        mistakes.push(format!(
                            "{} with property {:#04x} {form} in {version:?} is {outcome:x?}",
                            frame.name, row.0
                        ));
                    }
                };
            let good = [&[row.0], row.1].concat();
            check(Version::V5, "once", &good, once);
            check(Version::V5, "twice", &[&good[..], &good].concat(), twice);
            check(Version::V5, "cut short", &good[..good.len() - 1], |it, _, _| refuses(it));
            for bad in row.2 {
                check(Version::V5, "with a bad value", &[&[row.0], *bad].concat(), |it, _, _| refuses(it));
            }
            // In MQTT 3 what comes behind the topic of a PUBLISH is its payload.
            if frame.name != "PUBLISH" {
                check(Version::V311, "once", &good, |it, _, _| it == Outcome::Refused(None));
                check(Version::V310, "once", &good, |it, _, _| it == Outcome::Refused(None));
            }
        }
    }
    (count, mistakes)
}

fn once(outcome: Outcome, frame: &Frame, id: u8) -> bool {
    match (frame.name, id) {
        // The broker has no authentication method; data without a method are a protocol error.
        ("CONNECT", 0x15) => outcome == Outcome::Refused(Some(0x8C)),
        _ if frame.allowed.contains(&id) => outcome == Outcome::Accepted,
        _ => refuses(outcome),
    }
}

fn twice(outcome: Outcome, frame: &Frame, id: u8) -> bool {
    // Only User Property may be there more than once.
    if id == 0x26 && frame.allowed.contains(&id) { outcome == Outcome::Accepted } else { refuses(outcome) }
}

/// Malformed Packet, Protocol Error, or what is said of an alias.
fn refuses(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Refused(Some(0x81 | 0x82 | 0x94)))
}

/// Sends the packet with the block to a broker of its own, behind a CONNECT where it is none itself, and a PINGREQ behind it.
fn send(frame: &Frame, version: Version, block: &[u8]) -> Outcome {
    let mut world = World::new(1, &Options::default());
    let socket = world.open(SocketAddr::from(([127, 0, 0, 1], 40_000)));
    let is_connect = frame.first_byte == 0x10;
    if !is_connect {
        let hello: &[u8] = match version {
            Version::V310 => b"\x10\x0F\0\x06MQIsdp\x03\x02\0\0\0\x01a",
            Version::V311 => b"\x10\x0D\0\x04MQTT\x04\x02\0\0\0\x01a",
            // A session that outlives its connection: DISCONNECT may change its expiry.
            Version::V5 => b"\x10\x13\0\x04MQTT\x05\x02\0\0\x05\x11\0\0\0\x0A\0\x01a",
        };
        world.send(socket, hello);
        let connack = take(&mut world, socket);
        assert!(connack.first().is_some_and(|packet| packet[0] == 0x20 && packet[3] == 0), "{connack:?}");
    }
    let mut body = before(frame, version);
    write_varint(u32::try_from(block.len()).expect("a short block"), &mut body);
    body.extend_from_slice(block);
    body.extend_from_slice(frame.after);
    let mut packet = vec![frame.first_byte];
    write_varint(u32::try_from(body.len()).expect("a short packet"), &mut packet);
    packet.append(&mut body);
    world.send(socket, &packet);
    world.send(socket, &[0xC0, 0]);
    let answers = take(&mut world, socket);
    let complaint = answers.iter().find_map(|packet| match packet[0] {
        0x20 => Some(packet[3]).filter(|code| *code != 0),
        0xE0 => Some(packet.get(2).copied().unwrap_or(0)),
        _ => None,
    });
    let is_alive = answers.iter().any(|packet| packet[0] == 0xD0);
    let is_farewell = frame.name == "DISCONNECT" && version.is_v5() && complaint.is_none();
    if is_alive && world.is_open(socket) || is_farewell {
        Outcome::Accepted
    } else {
        assert!(!world.is_open(socket) && !is_alive, "{} is neither accepted nor refused", frame.name);
        Outcome::Refused(complaint)
    }
}

/// What stands in front of the properties, with the version's protocol name and level.
fn before(frame: &Frame, version: Version) -> Vec<u8> {
    let mut before = frame.before.to_vec();
    if frame.first_byte == 0x10 && version != Version::V5 {
        let name: &[u8] = if version == Version::V310 { b"\0\x06MQIsdp\x03" } else { b"\0\x04MQTT\x04" };
        before.splice(..7, name.iter().copied());
    }
    before
}

fn take(world: &mut World, socket: crate::world::SocketId) -> Vec<Vec<u8>> {
    let bytes = world.received(socket);
    let mut packets = Vec::new();
    while let Some(size) = canon::frame(bytes).expect("the broker sends packets") {
        packets.push(bytes.drain(..size).collect());
    }
    packets
}
