//! What the vectors leave out: every packet has an accepted and a refused form in every version, or a reason why it cannot.
//!
//! A packet that a client sends is refused if it is the last of its step and the connection is closed before the client sends
//! again; a well-formed DISCONNECT that the broker answers with nothing is accepted. Properties are tried by `property_matrix`.

use crate::packet;
use crate::token;
use crate::vector::{self, Action, Case, Step};
use quelea::base::Version;
use std::collections::BTreeSet;

const VERSIONS: [Version; 3] = [Version::V310, Version::V311, Version::V5];

/// What a vector shows of a packet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Form {
    /// A client sends it, and the connection goes on.
    Accepted,
    /// A client sends it, and that is the end of the connection.
    Refused,
    /// The broker sends it.
    Sent,
}

/// Packet type, version as its level, form.
type Shown = BTreeSet<(&'static str, u8, Form)>;

/// The forms that no vector shows although they exist.
pub(crate) fn missing() -> Vec<String> {
    let mut shown = Shown::new();
    for case in vector::all().expect("vectors are well-formed") {
        for (version, _) in &case.covers {
            show(&case, *version, &mut shown);
        }
    }
    let mut missing = Vec::new();
    for name in packet::NAMES {
        for version in VERSIONS {
            for form in [Form::Accepted, Form::Refused, Form::Sent] {
                if exists(name, version, form) && !shown.contains(&(name, version.level(), form)) {
                    missing.push(format!("{name} in {version:?}: no vector shows it {form:?}"));
                }
            }
        }
    }
    missing
}

/// Whether there is such a packet; a refused one there always is.
fn exists(name: &str, version: Version, form: Form) -> bool {
    let is_clients = matches!(name, "CONNECT" | "SUBSCRIBE" | "UNSUBSCRIBE" | "PINGREQ");
    let is_servers = matches!(name, "CONNACK" | "SUBACK" | "UNSUBACK" | "PINGRESP");
    match (name, form) {
        (_, Form::Refused) => true,
        // No authentication method is offered: neither side has a reason to say more.
        ("RESERVED" | "AUTH", _) => false,
        ("DISCONNECT", Form::Sent) => version.is_v5(),
        (_, Form::Accepted) => !is_servers,
        (_, Form::Sent) => !is_clients,
    }
}

fn show(case: &Case, version: Version, shown: &mut Shown) {
    for (index, step) in case.steps.iter().enumerate() {
        match &step.action {
            Action::Receive { packet, .. } => {
                if let Some(name) = name(packet, version) {
                    shown.insert((name, version.level(), Form::Sent));
                }
            }
            Action::Send(client, packets) => {
                // A step may have a version of its own; such cases are about versions, not about packets.
                if packets.iter().any(|packet| packet.contains(" version=")) {
                    return;
                }
                let is_end = ends(client, &case.steps[index + 1..]);
                for (at, line) in packets.iter().enumerate() {
                    let Some(name) = name(line, version) else { continue };
                    let is_last = at + 1 == packets.len();
                    let is_farewell = name == "DISCONNECT" && is_well_formed_disconnect(line, version);
                    let is_refused = is_last && is_end.is_some_and(|says| says || !is_farewell);
                    let form = if is_refused { Form::Refused } else { Form::Accepted };
                    shown.insert((name, version.level(), form));
                }
            }
            _ => {}
        }
    }
}

/// Whether the client is closed before it sends again, and if so, whether it is told why.
fn ends(client: &str, steps: &[Step]) -> Option<bool> {
    let mut is_told = false;
    for step in steps {
        match &step.action {
            Action::Send(name, _) | Action::Drop(name) | Action::Quiet(name) if name == client => {
                return None;
            }
            Action::Closed(name) if name == client => return Some(is_told),
            Action::Advance(_) | Action::Shutdown => return None,
            Action::Receive { from, packet, .. } if from.iter().any(|name| name == client) => {
                is_told |= packet.starts_with("DISCONNECT") || packet.contains(" code=");
            }
            _ => {}
        }
    }
    None
}

/// Before MQTT 5 nothing is said about a DISCONNECT that is none; but then it is two bytes, and always the same.
fn is_well_formed_disconnect(line: &str, version: Version) -> bool {
    version.is_v5() || packet::assemble(line, version).is_ok_and(|bytes| bytes == [0xE0, 0])
}

/// The type of a line's packet; `None` if it cannot be read in this version (`vectors_are_well_formed` complains).
fn name(line: &str, version: Version) -> Option<&'static str> {
    let tokens = token::split(line).ok()?;
    if packet::is_raw(&tokens) {
        let bytes = packet::from_tokens(&tokens, version).ok()?;
        return packet::NAMES.get(usize::from(bytes.first()? >> 4)).copied();
    }
    let first = tokens.first()?.text().ok()?;
    packet::NAMES.into_iter().find(|name| *name == first)
}

#[test]
fn forms_are_told_apart() {
    let text = "case a\n covers 5\n c1 connect client=a\n c1 > PINGREQ ;; SUBACK id=1 codes=0\n c1 < PINGRESP\n c1 < DISCONNECT code=0x82\n c1 closed\n c2 connect client=b\n c2 > DISCONNECT\n c2 closed";
    let cases = vector::parse("f", text).unwrap();
    let mut shown = Shown::new();
    show(&cases[0], Version::V5, &mut shown);
    let expected = [
        ("CONNACK", 5, Form::Sent),
        ("CONNECT", 5, Form::Accepted),
        ("DISCONNECT", 5, Form::Accepted),
        ("DISCONNECT", 5, Form::Sent),
        ("PINGREQ", 5, Form::Accepted),
        ("PINGRESP", 5, Form::Sent),
        ("SUBACK", 5, Form::Refused),
    ];
    assert_eq!(shown.into_iter().collect::<Vec<_>>(), expected);
}
