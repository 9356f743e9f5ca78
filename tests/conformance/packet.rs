//! Packets from readable lines: `PUBLISH qos=1 id=1 topic=a/b payload=hi`, or raw bytes: `30 05 00 01 "a" "hi"`.
//!
//! Written from the specification, without the broker's codec. A line may well be wrong on purpose: nothing is checked that
//! the broker has to check.

use crate::property::{self, write_string, write_varint};
use crate::token::{self, Token};
use quelea::base::Version;

/// Packet names, by type.
pub(crate) const NAMES: [&str; 16] = [
    "RESERVED",
    "CONNECT",
    "CONNACK",
    "PUBLISH",
    "PUBACK",
    "PUBREC",
    "PUBREL",
    "PUBCOMP",
    "SUBSCRIBE",
    "SUBACK",
    "UNSUBSCRIBE",
    "UNSUBACK",
    "PINGREQ",
    "PINGRESP",
    "DISCONNECT",
    "AUTH",
];

/// The bytes of a line.
pub(crate) fn assemble(line: &str, version: Version) -> Result<Vec<u8>, String> {
    from_tokens(&token::split(line)?, version)
}

/// The bytes of a line's words.
pub(crate) fn from_tokens(tokens: &[Token], version: Version) -> Result<Vec<u8>, String> {
    if is_raw(tokens) {
        return raw(tokens);
    }
    let (first, rest) = tokens.split_first().ok_or("an empty packet")?;
    let name = first.text()?;
    let kind = NAMES.iter().position(|n| *n == name).ok_or_else(|| format!("no packet `{name}`"))?;
    let mut words = Words { name, version, rest: rest.to_vec() };
    let mut body = Vec::new();
    let flags = write_body(&mut words, &mut body)?;
    let flags = words.number("header-flags")?.unwrap_or(flags);
    words.done()?;
    let kind = u32::try_from(kind).expect("a type of four bits");
    let mut packet = vec![u8::try_from(kind << 4 | flags).map_err(|_| "header-flags are four bits")?];
    write_varint(u32::try_from(body.len()).map_err(|e| e.to_string())?, &mut packet);
    packet.append(&mut body);
    Ok(packet)
}

/// Whether the words are raw bytes.
pub(crate) fn is_raw(tokens: &[Token]) -> bool {
    tokens.first().is_some_and(|t| {
        t.key.is_none() && (t.quoted || (t.value.len() == 2 && t.value.iter().all(u8::is_ascii_hexdigit)))
    })
}

fn raw(tokens: &[Token]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for token in tokens {
        if token.quoted {
            bytes.extend_from_slice(&token.value);
        } else {
            let digits = token.text()?;
            bytes.push(u8::from_str_radix(digits, 16).map_err(|_| format!("`{digits}` is no byte"))?);
        }
    }
    Ok(bytes)
}

/// Appends variable header and payload; returns the flags of the fixed header.
fn write_body(words: &mut Words<'_>, out: &mut Vec<u8>) -> Result<u32, String> {
    let v5 = words.version.is_v5();
    match words.name {
        "CONNECT" => connect(words, out)?,
        "CONNACK" => {
            out.push(words.byte("session")?.unwrap_or(0));
            out.push(words.code()?.unwrap_or(0));
            words.properties(out)?;
        }
        "PUBLISH" => return publish(words, out),
        "PUBACK" | "PUBREC" | "PUBREL" | "PUBCOMP" => {
            let id = words.number("id")?.ok_or("an acknowledgement wants an id")?;
            out.extend_from_slice(&two(id)?);
            words.code_and_properties(out)?;
            return Ok(if words.name == "PUBREL" { 2 } else { 0 });
        }
        "SUBSCRIBE" | "UNSUBSCRIBE" => {
            out.extend_from_slice(&two(words.number("id")?.unwrap_or(0))?);
            words.properties(out)?;
            filters(words, out)?;
            return Ok(2);
        }
        "SUBACK" | "UNSUBACK" => {
            out.extend_from_slice(&two(words.number("id")?.unwrap_or(0))?);
            words.properties(out)?;
            for code in words.text("codes")?.unwrap_or_default().split(',').filter(|c| !c.is_empty()) {
                out.push(u8::try_from(token::number(code)?).map_err(|e| e.to_string())?);
            }
        }
        "DISCONNECT" | "AUTH" if v5 => words.code_and_properties(out)?,
        "DISCONNECT" | "PINGREQ" | "PINGRESP" => {}
        name => return Err(format!("{name} is not written like this")),
    }
    Ok(0)
}

fn connect(words: &mut Words<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    words.take("version");
    let name = if words.version == Version::V310 { "MQIsdp" } else { "MQTT" };
    write_string(&words.take("protocol-name").unwrap_or_else(|| name.into()), out);
    out.push(words.byte("level")?.unwrap_or_else(|| words.version.level()));
    let clean = words.byte("clean")?.unwrap_or(1);
    let will_topic = words.take("will-topic");
    let will_flags = words.byte("will-qos")?.unwrap_or(0) << 3 | words.byte("will-retain")?.unwrap_or(0) << 5;
    let user = words.take("user");
    let password = words.take("password");
    let flags = clean << 1
        | u8::from(will_topic.is_some()) << 2
        | will_flags
        | u8::from(password.is_some()) << 6
        | u8::from(user.is_some()) << 7;
    out.push(words.byte("flags")?.unwrap_or(flags));
    out.extend_from_slice(&two(words.number("keep-alive")?.unwrap_or(0))?);
    words.properties(out)?;
    write_string(&words.take("client").unwrap_or_default(), out);
    if let Some(topic) = will_topic {
        words.properties_with_prefix("will.", out)?;
        write_string(&topic, out);
        write_string(&words.take("will-payload").unwrap_or_default(), out);
    }
    for field in [user, password].into_iter().flatten() {
        write_string(&field, out);
    }
    Ok(())
}

fn publish(words: &mut Words<'_>, out: &mut Vec<u8>) -> Result<u32, String> {
    let qos = words.number("qos")?.unwrap_or(0);
    let dup = words.number("dup")?.unwrap_or(0);
    let retain = words.number("retain")?.unwrap_or(0);
    write_string(&words.take("topic").ok_or("PUBLISH wants a topic")?, out);
    let id = words.number("id")?;
    if qos > 0 {
        out.extend_from_slice(&two(id.ok_or("a QoS above 0 wants an id")?)?);
    } else if id.is_some() {
        return Err("QoS 0 has no id".into());
    }
    words.properties(out)?;
    out.append(&mut words.take("payload").unwrap_or_default());
    Ok(dup << 3 | qos << 1 | retain)
}

/// Filters, each followed by its options: `filter=a qos=1 nl=1 filter=b`.
fn filters(words: &mut Words<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    while let Some(filter) = words.take("filter") {
        write_string(&filter, out);
        if words.name == "UNSUBSCRIBE" {
            continue;
        }
        let mut options = 0;
        while let Some(token) = words.rest.first() {
            let shift = match token.key.as_deref() {
                Some("qos" | "options") => 0,
                Some("nl") => 2,
                Some("rap") => 3,
                Some("rh") => 4,
                _ => break,
            };
            options |= u8::try_from(token::number(token.text()?)?).map_err(|e| e.to_string())? << shift;
            words.rest.remove(0);
        }
        out.push(options);
    }
    Ok(())
}

/// The words of a line that have not been used yet.
struct Words<'a> {
    name: &'a str,
    version: Version,
    rest: Vec<Token>,
}

impl Words<'_> {
    fn take(&mut self, key: &str) -> Option<Vec<u8>> {
        let index = self.rest.iter().position(|t| t.key.as_deref() == Some(key))?;
        Some(self.rest.remove(index).value)
    }

    fn text(&mut self, key: &str) -> Result<Option<String>, String> {
        self.take(key).map(|v| String::from_utf8(v).map_err(|e| e.to_string())).transpose()
    }

    fn number(&mut self, key: &str) -> Result<Option<u32>, String> {
        self.text(key)?.map(|text| token::number(&text)).transpose()
    }

    fn byte(&mut self, key: &str) -> Result<Option<u8>, String> {
        self.number(key)?.map(|n| u8::try_from(n).map_err(|e| e.to_string())).transpose()
    }

    /// `code=0x87`, or the bare word `ok`.
    fn code(&mut self) -> Result<Option<u8>, String> {
        let ok = self.rest.iter().position(|t| t.key.is_none() && t.value == b"ok");
        if let Some(index) = ok {
            self.rest.remove(index);
            return Ok(Some(0));
        }
        self.byte("code")
    }

    /// Appends reason code and properties in their shortest form; nothing in MQTT 3.
    fn code_and_properties(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        let code = self.code()?;
        if !self.version.is_v5() {
            return if code.unwrap_or(0) == 0 {
                Ok(())
            } else {
                Err("MQTT 3 has no reason codes here".into())
            };
        }
        let mut properties = Vec::new();
        self.properties(&mut properties)?;
        if properties.len() > 1 {
            out.push(code.unwrap_or(0));
            out.append(&mut properties);
        } else if let Some(code) = code.filter(|&c| c != 0) {
            out.push(code);
        }
        Ok(())
    }

    fn properties(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        self.properties_with_prefix("", out)
    }

    /// Appends the properties among the words, in their order, with the length in front; nothing in MQTT 3.
    fn properties_with_prefix(&mut self, prefix: &str, out: &mut Vec<u8>) -> Result<(), String> {
        let mut bytes = Vec::new();
        let mut others = Vec::new();
        for token in self.rest.drain(..) {
            let name = token.key.as_deref().and_then(|key| key.strip_prefix(prefix));
            match name.and_then(property::by_name) {
                Some(property) => property.write(&token.value, &mut bytes)?,
                None => others.push(token),
            }
        }
        self.rest = others;
        if self.version.is_v5() {
            write_varint(u32::try_from(bytes.len()).map_err(|e| e.to_string())?, out);
            out.append(&mut bytes);
        } else if !bytes.is_empty() {
            return Err("MQTT 3 has no properties".into());
        }
        Ok(())
    }

    fn done(&self) -> Result<(), String> {
        match self.rest.first() {
            None => Ok(()),
            Some(token) => Err(format!("{} does not understand {token:?}", self.name)),
        }
    }
}

fn two(number: u32) -> Result<[u8; 2], String> {
    u16::try_from(number).map(u16::to_be_bytes).map_err(|e| e.to_string())
}

#[test]
fn lines_become_bytes() {
    let cases: [(&str, Version, &[u8]); 9] = [
        ("30 05 00 01 \"a\" \"hi\"", Version::V311, b"0\x05\0\x01ahi"),
        ("PUBLISH topic=a payload=hi", Version::V311, b"0\x05\0\x01ahi"),
        ("PUBLISH qos=1 id=2 dup=1 retain=1 topic=a", Version::V5, b"\x3b\x06\0\x01a\0\x02\0"),
        ("CONNECT client=a", Version::V310, b"\x10\x0f\0\x06MQIsdp\x03\x02\0\0\0\x01a"),
        (
            "CONNECT client=a keep-alive=10 will-topic=w will-payload=x will-qos=1 will.will-delay-interval=5",
            Version::V5,
            b"\x10\x1a\0\x04MQTT\x05\x0e\0\x0a\0\0\x01a\x05\x18\0\0\0\x05\0\x01w\0\x01x",
        ),
        ("SUBSCRIBE id=1 filter=a qos=1 nl=1 filter=b", Version::V5, b"\x82\x0b\0\x01\0\0\x01a\x05\0\x01b\0"),
        ("PUBACK id=1 ok", Version::V5, b"\x40\x02\0\x01"),
        ("PUBACK id=1 code=0x10", Version::V5, b"\x40\x03\0\x01\x10"),
        ("DISCONNECT user-property=a:b", Version::V5, b"\xe0\x09\0\x07\x26\0\x01a\0\x01b"),
    ];
    for (line, version, bytes) in cases {
        assert_eq!(assemble(line, version).as_deref(), Ok(bytes), "{line}");
    }
    for bad in ["PUBLISH", "NOPE", "PINGREQ x=1", "PUBLISH topic=a topic-alias=1"] {
        assert!(assemble(bad, Version::V311).is_err(), "{bad}");
    }
}
