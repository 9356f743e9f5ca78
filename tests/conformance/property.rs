//! Properties of MQTT 5 (section 2.2.2.2): names, types, and the packets each may stand in.

use crate::token;

/// How a property's value stands on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// One byte.
    Byte,
    /// Two bytes.
    Two,
    /// Four bytes.
    Four,
    /// Variable byte integer.
    Varint,
    /// UTF-8 string.
    Text,
    /// Binary data.
    Binary,
    /// UTF-8 string pair, written `name:value`.
    Pair,
}

/// A property, as the table of the specification has it.
#[derive(Debug)]
pub(crate) struct Property {
    id: u8,
    /// The specification's name in lower case with hyphens.
    pub name: &'static str,
    kind: Kind,
    /// Packets it may stand in.
    packets: &'static str,
}

const ACKS: &str = "CONNACK PUBACK PUBREC PUBREL PUBCOMP SUBACK UNSUBACK DISCONNECT AUTH";
const ALL: &str = "CONNECT CONNACK PUBLISH WILL PUBACK PUBREC PUBREL PUBCOMP SUBSCRIBE SUBACK UNSUBSCRIBE UNSUBACK DISCONNECT AUTH";

const fn p(id: u8, name: &'static str, kind: Kind, packets: &'static str) -> Property {
    Property { id, name, kind, packets }
}

static PROPERTIES: [Property; 27] = [
    p(0x01, "payload-format-indicator", Kind::Byte, "PUBLISH WILL"),
    p(0x02, "message-expiry-interval", Kind::Four, "PUBLISH WILL"),
    p(0x03, "content-type", Kind::Text, "PUBLISH WILL"),
    p(0x08, "response-topic", Kind::Text, "PUBLISH WILL"),
    p(0x09, "correlation-data", Kind::Binary, "PUBLISH WILL"),
    p(0x0B, "subscription-identifier", Kind::Varint, "PUBLISH SUBSCRIBE"),
    p(0x11, "session-expiry-interval", Kind::Four, "CONNECT CONNACK DISCONNECT"),
    p(0x12, "assigned-client-identifier", Kind::Text, "CONNACK"),
    p(0x13, "server-keep-alive", Kind::Two, "CONNACK"),
    p(0x15, "authentication-method", Kind::Text, "CONNECT CONNACK AUTH"),
    p(0x16, "authentication-data", Kind::Binary, "CONNECT CONNACK AUTH"),
    p(0x17, "request-problem-information", Kind::Byte, "CONNECT"),
    p(0x18, "will-delay-interval", Kind::Four, "WILL"),
    p(0x19, "request-response-information", Kind::Byte, "CONNECT"),
    p(0x1A, "response-information", Kind::Text, "CONNACK"),
    p(0x1C, "server-reference", Kind::Text, "CONNACK DISCONNECT"),
    p(0x1F, "reason-string", Kind::Text, ACKS),
    p(0x21, "receive-maximum", Kind::Two, "CONNECT CONNACK"),
    p(0x22, "topic-alias-maximum", Kind::Two, "CONNECT CONNACK"),
    p(0x23, "topic-alias", Kind::Two, "PUBLISH"),
    p(0x24, "maximum-qos", Kind::Byte, "CONNACK"),
    p(0x25, "retain-available", Kind::Byte, "CONNACK"),
    p(0x26, "user-property", Kind::Pair, ALL),
    p(0x27, "maximum-packet-size", Kind::Four, "CONNECT CONNACK"),
    p(0x28, "wildcard-subscription-available", Kind::Byte, "CONNACK"),
    p(0x29, "subscription-identifiers-available", Kind::Byte, "CONNACK"),
    p(0x2A, "shared-subscription-available", Kind::Byte, "CONNACK"),
];

/// The property of this name.
pub(crate) fn by_name(name: &str) -> Option<&'static Property> {
    PROPERTIES.iter().find(|p| p.name == name)
}

impl Property {
    /// Appends identifier and value. A vector may put a property where it does not belong: nothing is refused.
    pub(crate) fn write(&self, value: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        out.push(self.id);
        match self.kind {
            Kind::Byte => out.push(u8::try_from(integer(value)?).map_err(|e| e.to_string())?),
            Kind::Two => {
                let value = u16::try_from(integer(value)?).map_err(|e| e.to_string())?;
                out.extend_from_slice(&value.to_be_bytes());
            }
            Kind::Four => out.extend_from_slice(&integer(value)?.to_be_bytes()),
            Kind::Varint => write_varint(integer(value)?, out),
            Kind::Text | Kind::Binary => write_string(value, out),
            Kind::Pair => {
                let colon = value.iter().position(|&b| b == b':').ok_or("a pair is written name:value")?;
                write_string(&value[..colon], out);
                write_string(&value[colon + 1..], out);
            }
        }
        Ok(())
    }

    fn read(&self, input: &mut Input<'_>) -> Result<Vec<u8>, String> {
        let number = match self.kind {
            Kind::Byte => u32::from(input.byte()?),
            Kind::Two => u32::from(input.two()?),
            Kind::Four => input.four()?,
            Kind::Varint => input.varint()?,
            Kind::Text => return input.text(),
            Kind::Binary => return input.string(),
            Kind::Pair => {
                let mut pair = input.text()?;
                pair.push(b':');
                pair.extend_from_slice(&input.text()?);
                return Ok(pair);
            }
        };
        Ok(number.to_string().into_bytes())
    }
}

/// Reads the properties of `packet`, with the length in front, and checks that each may stand there, and how often.
pub(crate) fn read_all(input: &mut Input<'_>, packet: &str) -> Result<Vec<(&'static str, Vec<u8>)>, String> {
    let size = input.varint()? as usize;
    let mut inner = Input { bytes: input.take(size)? };
    let mut found: Vec<(&'static str, Vec<u8>)> = Vec::new();
    while !inner.bytes.is_empty() {
        // [MQTT-2.2.2-1] Identifiers are variable byte integers; all that exist are below 0x80.
        let id = inner.byte()?;
        let property =
            PROPERTIES.iter().find(|p| p.id == id).ok_or_else(|| format!("property 0x{id:02x}"))?;
        if !property.packets.split(' ').any(|p| p == packet) {
            return Err(format!("{} in {packet}", property.name));
        }
        let repeatable =
            property.kind == Kind::Pair || (property.kind == Kind::Varint && packet == "PUBLISH");
        if !repeatable && found.iter().any(|(name, _)| *name == property.name) {
            return Err(format!("{} twice in {packet}", property.name));
        }
        let value = property.read(&mut inner)?;
        found.push((property.name, value));
    }
    Ok(found)
}

fn integer(value: &[u8]) -> Result<u32, String> {
    token::number(std::str::from_utf8(value).map_err(|e| e.to_string())?)
}

/// Appends a variable byte integer in its shortest form.
pub(crate) fn write_varint(mut value: u32, out: &mut Vec<u8>) {
    loop {
        let low = u8::try_from(value & 0x7F).expect("seven bits");
        value >>= 7;
        out.push(if value > 0 { low | 0x80 } else { low });
        if value == 0 {
            return;
        }
    }
}

/// Appends a length of two bytes, and the bytes.
pub(crate) fn write_string(value: &[u8], out: &mut Vec<u8>) {
    let size = u16::try_from(value.len()).expect("a string of a vector is at most 65535 bytes");
    out.extend_from_slice(&size.to_be_bytes());
    out.extend_from_slice(value);
}

/// What is left of a packet.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    /// The bytes not read yet.
    pub bytes: &'a [u8],
}

impl<'a> Input<'a> {
    /// The next `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (head, rest) = self.bytes.split_at_checked(count).ok_or("the packet is too short")?;
        self.bytes = rest;
        Ok(head)
    }

    /// One byte.
    pub(crate) fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    /// Two bytes.
    pub(crate) fn two(&mut self) -> Result<u16, String> {
        Ok(u16::from_be_bytes(self.take(2)?.try_into().expect("two bytes")))
    }

    /// Four bytes.
    pub(crate) fn four(&mut self) -> Result<u32, String> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into().expect("four bytes")))
    }

    /// A variable byte integer, which must be in its shortest form.
    pub(crate) fn varint(&mut self) -> Result<u32, String> {
        let mut value = 0;
        for index in 0..4 {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                return if byte == 0 && index > 0 {
                    Err("a variable byte integer that is longer than need be".into())
                } else {
                    Ok(value)
                };
            }
        }
        Err("a variable byte integer of more than four bytes".into())
    }

    /// Bytes with a length of two bytes in front.
    pub(crate) fn string(&mut self) -> Result<Vec<u8>, String> {
        let size = usize::from(self.two()?);
        Ok(self.take(size)?.to_vec())
    }

    /// A string, which must be well-formed.
    pub(crate) fn text(&mut self) -> Result<Vec<u8>, String> {
        let bytes = self.string()?;
        match std::str::from_utf8(&bytes) {
            Ok(text) if !text.contains('\0') => Ok(bytes),
            _ => Err(format!("{bytes:?} is no string")),
        }
    }
}
