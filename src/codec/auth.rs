//! AUTH (section 3.15), MQTT 5 only.

use super::properties::{UserProperties, Walk};
use super::property::Property;
use super::reader::Reader;
use super::{Malformed, RawPacket, Sender, writer};
use crate::base::ReasonCode;

const FIRST_BYTE: u8 = 0xF0;

/// An AUTH.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success (servers), Continue authentication (both), Re-authenticate (clients).
    pub reason: ReasonCode,
    /// Authentication Method; missing only in the empty packet, which is a server's Success.
    pub method: Option<&'a str>,
    /// Authentication Data.
    pub data: Option<&'a [u8]>,
    /// For people to read.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

impl Auth<'_> {
    /// An AUTH with nothing but its reason.
    #[must_use]
    pub fn new(reason: ReasonCode) -> Self {
        Self { reason, method: None, data: None, reason_string: None, user_properties: UserProperties::EMPTY }
    }

    /// Appends the packet.
    ///
    /// # Panics
    /// If a string or the data are longer than 65,535 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if *self == Self::new(ReasonCode::Success) {
            out.extend_from_slice(&[FIRST_BYTE, 0]);
            return;
        }
        writer::put_packet(out, FIRST_BYTE, |out| {
            out.push(self.reason.byte());
            writer::put_prefixed(out, |out| {
                let properties = [
                    self.method.map(Property::AuthenticationMethod),
                    self.data.map(Property::AuthenticationData),
                    self.reason_string.map(Property::ReasonString),
                ];
                properties.iter().flatten().for_each(|property| property.encode(out));
                self.user_properties.encode(out);
            });
        });
    }
}

impl std::fmt::Debug for Auth<'_> {
    /// Leaves the authentication data out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth")
            .field("reason", &self.reason)
            .field("method", &self.method)
            .field("reason_string", &self.reason_string)
            .field("user_properties", &self.user_properties)
            .finish_non_exhaustive()
    }
}

pub(super) fn decode<'a>(raw: &RawPacket<'a>, sender: Sender) -> Result<Auth<'a>, Malformed> {
    let mut reader = Reader::new(raw.body);
    let byte = if reader.is_empty() { ReasonCode::Success.byte() } else { reader.u8()? };
    // [MQTT-3.15.2-1]
    let reason = ReasonCode::from_byte(byte)
        .filter(|&reason| allows(reason, sender))
        .ok_or(Malformed::ReasonCodeInvalid)?;
    let mut auth = Auth::new(reason);
    if raw.body.is_empty() {
        return Ok(auth);
    }
    let mut walk = Walk::new(&mut reader)?;
    while let Some(property) = walk.next()? {
        match property {
            Property::AuthenticationMethod(value) => auth.method = Some(value),
            Property::AuthenticationData(value) => auth.data = Some(value),
            Property::ReasonString(value) => auth.reason_string = Some(value),
            Property::UserProperty(..) => {}
            _ => return Err(Malformed::PropertyNotAllowed),
        }
    }
    auth.user_properties = UserProperties::from_encoded(walk.block());
    reader.finish()?;
    if auth.method.is_none() {
        return Err(Malformed::AuthenticationMethodMissing);
    }
    Ok(auth)
}

fn allows(reason: ReasonCode, sender: Sender) -> bool {
    match reason {
        ReasonCode::ContinueAuthentication => true,
        ReasonCode::Success => sender == Sender::Server,
        ReasonCode::ReAuthenticate => sender == Sender::Client,
        _ => false,
    }
}
