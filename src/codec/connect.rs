//! CONNECT (section 3.1) with its will.
//!
//! The protocol name and level come first and decide how the rest is read. MQTT 3.1 leaves several bits unused that later
//! versions reserve; they are ignored there.

use super::properties::{ForwardSpan, MessageProperties, UserProperties, Walk};
use super::property::Property;
use super::reader::Reader;
use super::{Malformed, RawPacket, writer};
use crate::base::{QoS, Version, topic};
use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};

const FIRST_BYTE: u8 = 0x10;
const CLEAN_START: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_QOS_SHIFT: u8 = 3;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USERNAME: u8 = 0x80;

/// A CONNECT. What a version lacks has the value that means "as before".
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// Protocol name and level.
    pub version: Version,
    /// Clean Start, called Clean Session before MQTT 5.
    pub clean_start: bool,
    /// Keep alive, in seconds; 0 is none.
    pub keep_alive: u16,
    /// May be empty: the server chooses one.
    pub client_id: &'a str,
    /// Will.
    pub will: Option<Will<'a>>,
    /// User Name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
    /// Session Expiry Interval, in seconds.
    pub session_expiry: Option<u32>,
    /// QoS 1 and 2 messages the client takes unacknowledged.
    pub receive_maximum: Option<NonZeroU16>,
    /// Maximum Packet Size, in bytes.
    pub packet_size_max: Option<NonZeroU32>,
    /// Topic aliases the client takes.
    pub topic_alias_maximum: u16,
    /// Request Response Information.
    pub request_response_information: bool,
    /// Request Problem Information; set unless the client says otherwise.
    pub request_problem_information: bool,
    /// Authentication Method.
    pub authentication_method: Option<&'a str>,
    /// Authentication Data; only with a method.
    pub authentication_data: Option<&'a [u8]>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

/// The message published when the client is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Will<'a> {
    /// Will QoS.
    pub qos: QoS,
    /// Will Retain.
    pub retain: bool,
    /// A topic name.
    pub topic: &'a str,
    /// Application message; up to 65,535 bytes.
    pub payload: &'a [u8],
    /// Will Delay Interval, in seconds.
    pub delay: u32,
    /// Message Expiry Interval, in seconds.
    pub expiry: Option<u32>,
    /// What travels with the message.
    pub properties: MessageProperties<'a>,
}

impl<'a> Connect<'a> {
    /// A CONNECT with nothing optional.
    #[must_use]
    pub fn new(version: Version, client_id: &'a str, clean_start: bool, keep_alive: u16) -> Self {
        Self {
            version,
            clean_start,
            keep_alive,
            client_id,
            will: None,
            username: None,
            password: None,
            session_expiry: None,
            receive_maximum: None,
            packet_size_max: None,
            topic_alias_maximum: 0,
            request_response_information: false,
            request_problem_information: true,
            authentication_method: None,
            authentication_data: None,
            user_properties: UserProperties::EMPTY,
        }
    }

    /// Appends the packet. What the version lacks is left out.
    ///
    /// # Panics
    /// If a string or binary value is longer than 65,535 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        writer::put_packet(out, FIRST_BYTE, |out| {
            writer::put_string(out, protocol_name(self.version));
            out.extend_from_slice(&[self.version.level(), self.flags()]);
            writer::put_u16(out, self.keep_alive);
            if self.version.is_v5() {
                writer::put_prefixed(out, |out| {
                    self.properties().iter().flatten().for_each(|property| property.encode(out));
                    self.user_properties.encode(out);
                });
            }
            writer::put_string(out, self.client_id);
            if let Some(will) = &self.will {
                will.encode(self.version, out);
            }
            if let Some(username) = self.username {
                writer::put_string(out, username);
            }
            if let Some(password) = self.password {
                writer::put_binary(out, password);
            }
        });
    }

    fn flags(&self) -> u8 {
        let when = |condition: bool, flag: u8| if condition { flag } else { 0 };
        let will = self
            .will
            .map_or(0, |will| WILL | will.qos.bits() << WILL_QOS_SHIFT | when(will.retain, WILL_RETAIN));
        will | when(self.clean_start, CLEAN_START)
            | when(self.username.is_some(), USERNAME)
            | when(self.password.is_some(), PASSWORD)
    }

    fn properties(&self) -> [Option<Property<'_>>; 8] {
        [
            self.session_expiry.map(Property::SessionExpiryInterval),
            self.receive_maximum.map(Property::ReceiveMaximum),
            self.packet_size_max.map(Property::MaximumPacketSize),
            (self.topic_alias_maximum > 0).then_some(Property::TopicAliasMaximum(self.topic_alias_maximum)),
            self.request_response_information.then_some(Property::RequestResponseInformation(true)),
            (!self.request_problem_information).then_some(Property::RequestProblemInformation(false)),
            self.authentication_method.map(Property::AuthenticationMethod),
            self.authentication_data.map(Property::AuthenticationData),
        ]
    }
}

impl fmt::Debug for Connect<'_> {
    /// Leaves password and authentication data out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("clean_start", &self.clean_start)
            .field("keep_alive", &self.keep_alive)
            .field("client_id", &self.client_id)
            .field("will", &self.will)
            .field("username", &self.username)
            .field("session_expiry", &self.session_expiry)
            .field("receive_maximum", &self.receive_maximum)
            .field("packet_size_max", &self.packet_size_max)
            .field("topic_alias_maximum", &self.topic_alias_maximum)
            .field("user_properties", &self.user_properties)
            .finish_non_exhaustive()
    }
}

impl Will<'_> {
    fn encode(&self, version: Version, out: &mut Vec<u8>) {
        if version.is_v5() {
            writer::put_prefixed(out, |out| {
                if self.delay > 0 {
                    Property::WillDelayInterval(self.delay).encode(out);
                }
                if let Some(secs) = self.expiry {
                    Property::MessageExpiryInterval(secs).encode(out);
                }
                self.properties.encode(out);
            });
        }
        writer::put_string(out, self.topic);
        writer::put_binary(out, self.payload);
    }
}

fn protocol_name(version: Version) -> &'static str {
    match version {
        Version::V310 => "MQIsdp",
        Version::V311 | Version::V5 => "MQTT",
    }
}

/// The version in which to refuse a CONNECT that cannot be decoded: the one it asks for, or the nearest there is. `None` if its
/// beginning is not MQTT's, and nothing should be answered.
#[must_use]
pub fn answer_version(raw: &RawPacket<'_>) -> Option<Version> {
    let mut reader = Reader::new(raw.body);
    match (reader.binary().ok()?, reader.u8().ok()?) {
        (b"MQTT", 5..) => Some(Version::V5),
        (b"MQTT", _) => Some(Version::V311),
        (b"MQIsdp", _) => Some(Version::V310),
        _ => None,
    }
}

/// The CONNECT flags, checked.
#[derive(Clone, Copy, Debug)]
struct Flags {
    clean_start: bool,
    /// Will QoS and Will Retain.
    will: Option<(QoS, bool)>,
    username: bool,
    password: bool,
}

pub(super) fn decode<'a>(raw: &RawPacket<'a>) -> Result<Connect<'a>, Malformed> {
    let mut reader = Reader::new(raw.body);
    let version = decode_version(&mut reader)?;
    raw.check_length_form(version)?;
    let flags = decode_flags(reader.u8()?, version)?;
    let keep_alive = reader.u16()?;
    let mut connect = Connect::new(version, "", flags.clean_start, keep_alive);
    if version.is_v5() {
        decode_properties(&mut reader, &mut connect)?;
    }
    // [MQTT-3.1.3-1] [MQTT-3.1.3-3] [MQTT-3.1.3-4]
    connect.client_id = reader.string()?;
    if let Some((qos, retain)) = flags.will {
        // [MQTT-3.1.2-9]
        connect.will = Some(decode_will(&mut reader, qos, retain, version)?);
    }
    // In MQTT 3.1 the end of the packet takes precedence over the flags of what comes last.
    let cut = |reader: &Reader<'_>| version == Version::V310 && reader.is_empty();
    if flags.username && !cut(&reader) {
        // [MQTT-3.1.2-17] [MQTT-3.1.3-12]
        connect.username = Some(reader.string()?);
    }
    if flags.password && !cut(&reader) {
        // [MQTT-3.1.2-19]
        connect.password = Some(reader.binary()?);
    }
    // [MQTT-3.1.2-16] [MQTT-3.1.2-18]
    reader.finish()?;
    Ok(connect)
}

fn decode_version(reader: &mut Reader<'_>) -> Result<Version, Malformed> {
    let name = reader.binary()?;
    if !matches!(name, b"MQTT" | b"MQIsdp") {
        // [MQTT-3.1.2-1]
        return Err(Malformed::ProtocolNameInvalid);
    }
    match (name, reader.u8()?) {
        (b"MQIsdp", 3) => Ok(Version::V310),
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        // [MQTT-3.1.2-2]
        _ => Err(Malformed::UnsupportedProtocolVersion),
    }
}

fn decode_flags(byte: u8, version: Version) -> Result<Flags, Malformed> {
    let strict = version != Version::V310;
    if byte & 0x01 != 0 && strict {
        // [MQTT-3.1.2-3]
        return Err(Malformed::ConnectFlagReserved);
    }
    let will_bits = byte >> WILL_QOS_SHIFT & 0b11;
    let will_retain = byte & WILL_RETAIN != 0;
    let will = if byte & WILL != 0 {
        // [MQTT-3.1.2-12]
        Some((QoS::from_bits(will_bits).ok_or(Malformed::WillQosInvalid)?, will_retain))
    } else if strict && (will_bits != 0 || will_retain) {
        // [MQTT-3.1.2-11] [MQTT-3.1.2-13]
        return Err(Malformed::WillFlagsWithoutWill);
    } else {
        None
    };
    let username = byte & USERNAME != 0;
    let password = byte & PASSWORD != 0;
    if password && !username && !version.is_v5() {
        // MQTT-3.1.2-22 of MQTT 3.1.1.
        return Err(Malformed::PasswordWithoutUsername);
    }
    Ok(Flags { clean_start: byte & CLEAN_START != 0, will, username, password })
}

fn decode_properties<'a>(reader: &mut Reader<'a>, connect: &mut Connect<'a>) -> Result<(), Malformed> {
    let mut walk = Walk::new(reader)?;
    while let Some(property) = walk.next()? {
        match property {
            Property::SessionExpiryInterval(value) => connect.session_expiry = Some(value),
            Property::ReceiveMaximum(value) => connect.receive_maximum = Some(value),
            Property::MaximumPacketSize(value) => connect.packet_size_max = Some(value),
            Property::TopicAliasMaximum(value) => connect.topic_alias_maximum = value,
            Property::RequestResponseInformation(value) => connect.request_response_information = value,
            Property::RequestProblemInformation(value) => connect.request_problem_information = value,
            Property::AuthenticationMethod(value) => connect.authentication_method = Some(value),
            Property::AuthenticationData(value) => connect.authentication_data = Some(value),
            Property::UserProperty(..) => {}
            _ => return Err(Malformed::PropertyNotAllowed),
        }
    }
    if connect.authentication_data.is_some() && connect.authentication_method.is_none() {
        return Err(Malformed::AuthenticationDataWithoutMethod);
    }
    connect.user_properties = UserProperties::from_encoded(walk.block());
    Ok(())
}

fn decode_will<'a>(
    reader: &mut Reader<'a>,
    qos: QoS,
    retain: bool,
    version: Version,
) -> Result<Will<'a>, Malformed> {
    let properties = MessageProperties::EMPTY;
    let mut will = Will { qos, retain, topic: "", payload: &[], delay: 0, expiry: None, properties };
    if version.is_v5() {
        decode_will_properties(reader, &mut will)?;
    }
    // [MQTT-3.1.3-11]
    will.topic = reader.string()?;
    if !topic::is_topic_name(will.topic) {
        // [MQTT-3.3.2-2] [MQTT-4.7.3-1]
        return Err(Malformed::TopicNameInvalid);
    }
    will.payload = reader.binary()?;
    Ok(will)
}

fn decode_will_properties<'a>(reader: &mut Reader<'a>, will: &mut Will<'a>) -> Result<(), Malformed> {
    let mut walk = Walk::new(reader)?;
    let mut span = ForwardSpan::default();
    let mut start = 0;
    while let Some(property) = walk.next()? {
        let end = walk.offset();
        match property {
            Property::WillDelayInterval(secs) => will.delay = secs,
            Property::MessageExpiryInterval(secs) => will.expiry = Some(secs),
            property if property.is_forwarded() => span.add(start, end),
            _ => return Err(Malformed::PropertyNotAllowed),
        }
        start = end;
    }
    will.properties = span.finish(walk.block());
    Ok(())
}
