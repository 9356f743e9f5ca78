//! Packets the broker sends, taken apart, and compared with what a vector expects.
//!
//! Two encodings of one meaning (a reason code of 0 left out or written) are the same; a packet that breaks the
//! specification's form is a mistake whatever was expected.

use crate::packet::{self, NAMES};
use crate::property::{self, Input};
use crate::token::{self, Token};
use quelea::base::Version;
use std::fmt::{self, Write as _};

/// A packet taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Canon {
    /// Packet name.
    pub name: &'static str,
    /// Everything but the properties; numbers as text.
    pub fields: Vec<(&'static str, Vec<u8>)>,
    /// Properties as sent.
    pub properties: Vec<(&'static str, Vec<u8>)>,
}

impl Canon {
    /// A field or property that is there at most once.
    pub(crate) fn get(&self, key: &str) -> Option<&[u8]> {
        self.fields.iter().chain(&self.properties).find(|(k, _)| *k == key).map(|(_, v)| v.as_slice())
    }

    /// A number that is there at most once.
    pub(crate) fn number(&self, key: &str) -> Option<u32> {
        self.get(key).and_then(|v| token::number(std::str::from_utf8(v).ok()?).ok())
    }
}

impl fmt::Display for Canon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        for (key, value) in self.fields.iter().chain(&self.properties) {
            write!(f, " {key}={}", show(value))?;
        }
        Ok(())
    }
}

fn show(value: &[u8]) -> String {
    let text = value.escape_ascii().to_string();
    if text.len() > 100 {
        return format!("\"{}\"...({} bytes)", &text[..100], value.len());
    }
    if text.is_empty() || text.contains(' ') { format!("\"{text}\"") } else { text }
}

/// The first packet of `bytes`, and how long it is; `None` if it is not complete.
pub(crate) fn frame(bytes: &[u8]) -> Result<Option<usize>, String> {
    let mut input = Input { bytes };
    if input.byte().is_err() {
        return Ok(None);
    }
    let length_bytes = input.bytes.iter().take(4).position(|b| b & 0x80 == 0);
    if length_bytes.is_none() && input.bytes.len() < 4 {
        return Ok(None);
    }
    let size = input.varint()? as usize;
    let head = bytes.len() - input.bytes.len();
    Ok((input.bytes.len() >= size).then_some(head + size))
}

/// Takes one whole packet from the broker apart.
pub(crate) fn disassemble(bytes: &[u8], version: Version) -> Result<Canon, String> {
    let name = NAMES[usize::from(bytes[0] >> 4)];
    let flags = bytes[0] & 0x0F;
    let mut input = Input { bytes: &bytes[1..] };
    input.varint()?;
    let mut canon = Canon { name, fields: Vec::new(), properties: Vec::new() };
    if name == "PUBLISH" {
        publish(flags, &mut input, version, &mut canon)?;
        return Ok(canon);
    }
    let expected = if name == "PUBREL" { 2 } else { 0 };
    if flags != expected {
        return Err(format!("{name} with fixed header flags {flags:04b}"));
    }
    match name {
        "CONNACK" => {
            let session = input.byte()?;
            if session > 1 {
                return Err(format!("connect acknowledge flags {session:#04x}"));
            }
            canon.fields.push(("session", session.to_string().into()));
            canon.fields.push(("code", code(input.byte()?)));
            if version.is_v5() {
                canon.properties = property::read_all(&mut input, name)?;
            }
        }
        "PUBACK" | "PUBREC" | "PUBREL" | "PUBCOMP" => {
            canon.fields.push(("id", input.two()?.to_string().into()));
            code_and_properties(&mut input, version, &mut canon)?;
        }
        "SUBACK" | "UNSUBACK" => acknowledged_filters(&mut input, version, &mut canon)?,
        "DISCONNECT" | "AUTH" if version.is_v5() => code_and_properties(&mut input, version, &mut canon)?,
        "PINGRESP" => {}
        _ => return Err(format!("a broker does not send {name} in this version")),
    }
    if !input.bytes.is_empty() {
        return Err(format!("{name} with bytes behind its end"));
    }
    check_codes(&canon, version)?;
    Ok(canon)
}

/// Whether reason codes and properties are ones that a broker may send in this packet.
fn check_codes(canon: &Canon, version: Version) -> Result<(), String> {
    let allowed: &[u32] = match (canon.name, version.is_v5()) {
        ("CONNACK", false) => &[0, 1, 2, 3, 4, 5],
        ("SUBACK", false) => &[0, 1, 2, 0x80],
        ("CONNACK", true) => &[
            0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97,
            0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
        ],
        ("PUBACK" | "PUBREC", true) => &[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99],
        ("PUBREL" | "PUBCOMP", true) => &[0, 0x92],
        ("SUBACK", true) => &[0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2],
        ("UNSUBACK", true) => &[0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91],
        ("DISCONNECT", true) => &[
            0, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95,
            0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
        ],
        ("AUTH", true) => &[0, 0x18],
        _ => return Ok(()),
    };
    let key = if canon.name.ends_with("SUBACK") { "codes" } else { "code" };
    let codes = String::from_utf8_lossy(canon.get(key).unwrap_or_default()).into_owned();
    let unknown = codes.split(',').find(|c| !token::number(c).is_ok_and(|c| allowed.contains(&c)));
    if let Some(code) = unknown {
        return Err(format!("{}: a broker does not send `{code}` here", canon.name));
    }
    // The ledger exempts the statements about the sizes of what is never sent.
    let explains = matches!(canon.name, "PUBACK" | "PUBREC");
    let forbidden = |key: &&str| match *key {
        "reason-string" => !explains,
        "session-expiry-interval" => canon.name == "DISCONNECT",
        key => key == "user-property",
    };
    match canon.properties.iter().map(|(key, _)| *key).find(forbidden) {
        Some(key) => Err(format!("{} with {key} from the broker", canon.name)),
        None => Ok(()),
    }
}

fn publish(flags: u8, input: &mut Input<'_>, version: Version, canon: &mut Canon) -> Result<(), String> {
    let qos = flags >> 1 & 3;
    if qos == 3 {
        return Err("PUBLISH of QoS 3".into());
    }
    canon.fields.push(("dup", (flags >> 3).to_string().into()));
    canon.fields.push(("qos", qos.to_string().into()));
    canon.fields.push(("retain", (flags & 1).to_string().into()));
    let topic = input.text()?;
    if qos > 0 {
        canon.fields.push(("id", input.two()?.to_string().into()));
    }
    canon.fields.push(("topic", topic));
    if version.is_v5() {
        canon.properties = property::read_all(input, "PUBLISH")?;
    }
    canon.fields.push(("payload", input.bytes.to_vec()));
    input.bytes = &[];
    Ok(())
}

fn code_and_properties(input: &mut Input<'_>, version: Version, canon: &mut Canon) -> Result<(), String> {
    if !version.is_v5() {
        return Ok(());
    }
    let reason = if input.bytes.is_empty() { 0 } else { input.byte()? };
    canon.fields.push(("code", code(reason)));
    if !input.bytes.is_empty() {
        canon.properties = property::read_all(input, canon.name)?;
    }
    Ok(())
}

fn acknowledged_filters(input: &mut Input<'_>, version: Version, canon: &mut Canon) -> Result<(), String> {
    canon.fields.push(("id", input.two()?.to_string().into()));
    if version.is_v5() {
        canon.properties = property::read_all(input, canon.name)?;
    }
    let mut codes = String::new();
    for &byte in input.bytes {
        let comma = if codes.is_empty() { "" } else { "," };
        write!(codes, "{comma}{byte:#04x}").expect("writing to a string");
    }
    input.bytes = &[];
    canon.fields.push(("codes", codes.into()));
    Ok(())
}

fn code(byte: u8) -> Vec<u8> {
    format!("{byte:#04x}").into()
}

/// What a vector expects next on a connection.
#[derive(Debug)]
pub(crate) enum Expected {
    /// Exactly these bytes.
    Raw(Vec<u8>),
    /// A packet that means this.
    Packet {
        /// The fields and properties that must be there.
        canon: Canon,
        /// Fields and properties that must be there with any value: `key=?`.
        any: Vec<String>,
        /// Properties that must not be there: `!key`.
        absent: Vec<String>,
        /// Whether there may be other properties: `*`.
        open: bool,
    },
}

impl Expected {
    /// Reads the line after `<`.
    pub(crate) fn parse(line: &str, version: Version) -> Result<Self, String> {
        let mut tokens = token::split(line)?;
        if packet::is_raw(&tokens) {
            return packet::from_tokens(&tokens, version).map(Self::Raw);
        }
        let bare = |t: &Token, c: char| t.key.is_none() && !t.quoted && t.value.first() == Some(&(c as u8));
        let open = tokens.iter().any(|t| bare(t, '*'));
        let text = |t: &Token| String::from_utf8_lossy(&t.value).into_owned();
        let absent: Vec<String> =
            tokens.iter().filter(|t| bare(t, '!')).map(|t| text(t)[1..].to_owned()).collect();
        tokens.retain(|t| !bare(t, '*') && !bare(t, '!'));
        let mut any = Vec::new();
        for token in &mut tokens {
            if token.value == b"?" && !token.quoted {
                let zero = token.key.as_deref().is_some_and(|key| key.starts_with("code"));
                token.value = if zero { b"0".to_vec() } else { b"1".to_vec() };
                any.extend(token.key.clone());
            }
        }
        tokens.retain(|t| t.key.as_ref().is_none_or(|k| !any.contains(k) || property::by_name(k).is_none()));
        let canon = disassemble(&packet::from_tokens(&tokens, version)?, version)?;
        Ok(Self::Packet { canon, any, absent, open })
    }

    /// Whether `bytes`, taken apart as `received`, are what is expected. `topic` is the topic name with aliases resolved.
    pub(crate) fn matches(&self, bytes: &[u8], received: &Canon, topic: Option<&[u8]>) -> bool {
        let Self::Packet { canon, any, absent, open } = self else {
            return matches!(self, Self::Raw(raw) if raw == bytes);
        };
        if canon.name != received.name || absent.iter().any(|key| received.get(key).is_some()) {
            return false;
        }
        let is_any = |key: &str| any.iter().any(|a| a == key);
        let mentions = |key: &str| is_any(key) || canon.get(key).is_some();
        let aliased = mentions("topic-alias");
        let fields_match = canon.fields.iter().all(|(key, value)| {
            let found = if *key == "topic" && !aliased { topic } else { received.get(key) };
            is_any(key) || found == Some(value)
        });
        let fields_known = received.fields.iter().all(|(key, _)| mentions(key));
        if !fields_match || !fields_known || !any.iter().all(|key| received.get(key).is_some()) {
            return false;
        }
        // A topic alias and a reason string are the broker's business unless the vector speaks of them.
        let matters =
            |key: &str| !is_any(key) && (mentions(key) || !matches!(key, "topic-alias" | "reason-string"));
        let found: Vec<_> = received.properties.iter().filter(|(key, _)| matters(key)).cloned().collect();
        let (expected, found) = (sorted(canon.properties.clone()), sorted(found));
        if *open { expected.iter().all(|p| found.contains(p)) } else { expected == found }
    }
}

/// Properties in an order of their own: only that of user properties means something.
fn sorted(mut properties: Vec<(&'static str, Vec<u8>)>) -> Vec<(&'static str, Vec<u8>)> {
    properties.sort_by(|a, b| {
        let by_value =
            if a.0 == "subscription-identifier" { a.1.cmp(&b.1) } else { std::cmp::Ordering::Equal };
        a.0.cmp(b.0).then(by_value)
    });
    properties
}

#[test]
fn expectations_match_what_they_say() {
    let check = |expected: &str, sent: &str, version| {
        let expected = Expected::parse(expected, version).unwrap();
        let bytes = packet::assemble(sent, version).unwrap();
        let canon = disassemble(&bytes, version).unwrap();
        let topic = canon.get("topic").map(<[u8]>::to_vec);
        expected.matches(&bytes, &canon, topic.as_deref())
    };
    let v5 = Version::V5;
    assert!(check("CONNACK ok session=0 *", "CONNACK receive-maximum=5", v5));
    assert!(!check("CONNACK ok session=0", "CONNACK receive-maximum=5", v5));
    assert!(check("CONNACK ok receive-maximum=?", "CONNACK receive-maximum=5", v5));
    assert!(!check("CONNACK ok receive-maximum=?", "CONNACK", v5));
    assert!(!check("CONNACK ok !receive-maximum *", "CONNACK receive-maximum=5", v5));
    assert!(!check("CONNACK ok", "CONNACK code=1", Version::V311));
    assert!(check("20 02 00 01", "CONNACK code=1", Version::V311));
    assert!(check("PUBACK id=1 code=0x97", "PUBACK id=1 code=0x97 reason-string=x", v5));
    assert!(!check("PUBACK id=1 code=0x97 !reason-string", "PUBACK id=1 code=0x97 reason-string=x", v5));
    assert!(check("PUBLISH topic=a", "PUBLISH topic=a topic-alias=1", v5));
    assert!(!check("PUBLISH topic=a !topic-alias", "PUBLISH topic=a topic-alias=1", v5));
    let two = "PUBLISH topic=a user-property=a:b user-property=a:c";
    assert!(!check("PUBLISH topic=a user-property=a:c user-property=a:b", two, v5));
    assert!(check(two, two, v5));
    let ids = "PUBLISH topic=a subscription-identifier=1 subscription-identifier=2";
    assert!(check("PUBLISH topic=a subscription-identifier=2 subscription-identifier=1", ids, v5));
    assert!(!check("PUBLISH topic=a qos=1 id=?", "PUBLISH topic=a", v5));
    assert!(!check("SUBACK id=1 codes=1,2", "SUBACK id=1 codes=2,1", v5));
}

#[test]
fn malformed_packets_are_mistakes() {
    let cases: [&[u8]; 8] = [
        b"\x20\x03\0\0\x80",
        b"\x20\x02\x02\0",
        b"\x36\x05\0\x01a\0\x01",
        b"\x60\x02\0\x01",
        b"\x20\x05\0\0\x02\x23\0",
        b"\xe0\x01\x04",
        b"\xe0\x06\x8e\x04\x1f\0\x01x",
        b"\xd0\x01\0",
    ];
    for bytes in cases {
        let whole = matches!(frame(bytes), Ok(Some(size)) if size == bytes.len());
        assert!(whole && disassemble(bytes, Version::V5).is_err(), "{bytes:?}");
    }
    assert_eq!(frame(b"\x30\x05\0"), Ok(None));
}
