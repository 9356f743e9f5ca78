//! DISCONNECT (section 3.14). Before MQTT 5 it has no content, and only clients send it.

use super::properties::{UserProperties, Walk};
use super::property::Property;
use super::reader::Reader;
use super::{Malformed, RawPacket, Sender, writer};
use crate::base::{ReasonCode, Version};

const FIRST_BYTE: u8 = 0xE0;

/// A DISCONNECT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Disconnect<'a> {
    /// [`ReasonCode::Success`] is normal disconnection, and the only one before MQTT 5.
    pub reason: ReasonCode,
    /// From a client: the session's new expiry, in seconds.
    pub session_expiry: Option<u32>,
    /// For people to read.
    pub reason_string: Option<&'a str>,
    /// From a server: where to go instead.
    pub server_reference: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

impl Disconnect<'_> {
    /// A DISCONNECT with nothing but its reason.
    #[must_use]
    pub fn new(reason: ReasonCode) -> Self {
        Self {
            reason,
            session_expiry: None,
            reason_string: None,
            server_reference: None,
            user_properties: UserProperties::EMPTY,
        }
    }

    /// Appends the packet. Before MQTT 5 it is empty, and only a client may send it.
    ///
    /// The length of the properties could be left out where there are none; it is not, because widespread clients (rumqttc)
    /// wait for it.
    ///
    /// # Panics
    /// If a string is longer than 65,535 bytes.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let plain = *self == Self::new(self.reason);
        if !version.is_v5() || (plain && self.reason == ReasonCode::Success) {
            out.extend_from_slice(&[FIRST_BYTE, 0]);
            return;
        }
        writer::put_packet(out, FIRST_BYTE, |out| {
            out.push(self.reason.byte());
            writer::put_prefixed(out, |out| {
                let properties = [
                    self.session_expiry.map(Property::SessionExpiryInterval),
                    self.reason_string.map(Property::ReasonString),
                    self.server_reference.map(Property::ServerReference),
                ];
                properties.iter().flatten().for_each(|property| property.encode(out));
                self.user_properties.encode(out);
            });
        });
    }
}

pub(super) fn decode<'a>(
    raw: &RawPacket<'a>,
    version: Version,
    sender: Sender,
) -> Result<Disconnect<'a>, Malformed> {
    let mut reader = Reader::new(raw.body);
    let mut disconnect = Disconnect::new(ReasonCode::Success);
    if version.is_v5() && !reader.is_empty() {
        // [MQTT-3.14.2-1]
        disconnect.reason = ReasonCode::from_byte(reader.u8()?)
            .filter(|&reason| allows(reason, sender))
            .ok_or(Malformed::ReasonCodeInvalid)?;
        if !reader.is_empty() {
            decode_properties(&mut reader, sender, &mut disconnect)?;
        }
    }
    reader.finish()?;
    Ok(disconnect)
}

fn decode_properties<'a>(
    reader: &mut Reader<'a>,
    sender: Sender,
    disconnect: &mut Disconnect<'a>,
) -> Result<(), Malformed> {
    let mut walk = Walk::new(reader)?;
    while let Some(property) = walk.next()? {
        match property {
            Property::SessionExpiryInterval(secs) => {
                if sender == Sender::Server {
                    // [MQTT-3.14.2-2]
                    return Err(Malformed::SessionExpiryFromServer);
                }
                disconnect.session_expiry = Some(secs);
            }
            Property::ReasonString(value) => disconnect.reason_string = Some(value),
            Property::ServerReference(value) if sender == Sender::Server => {
                disconnect.server_reference = Some(value);
            }
            Property::UserProperty(..) => {}
            _ => return Err(Malformed::PropertyNotAllowed),
        }
    }
    disconnect.user_properties = UserProperties::from_encoded(walk.block());
    Ok(())
}

/// Table 3-10: which side may send which code.
fn allows(reason: ReasonCode, sender: Sender) -> bool {
    use ReasonCode as R;
    match reason {
        R::Success
        | R::UnspecifiedError
        | R::MalformedPacket
        | R::ProtocolError
        | R::ImplementationSpecificError
        | R::TopicNameInvalid
        | R::ReceiveMaximumExceeded
        | R::TopicAliasInvalid
        | R::PacketTooLarge
        | R::MessageRateTooHigh
        | R::QuotaExceeded
        | R::AdministrativeAction
        | R::PayloadFormatInvalid => true,
        R::DisconnectWithWill => sender == Sender::Client,
        R::NotAuthorized
        | R::ServerBusy
        | R::ServerShuttingDown
        | R::KeepAliveTimeout
        | R::SessionTakenOver
        | R::TopicFilterInvalid
        | R::RetainNotSupported
        | R::QosNotSupported
        | R::UseAnotherServer
        | R::ServerMoved
        | R::SharedSubscriptionsNotSupported
        | R::ConnectionRateExceeded
        | R::MaximumConnectTime
        | R::SubscriptionIdentifiersNotSupported
        | R::WildcardSubscriptionsNotSupported => sender == Sender::Server,
        _ => false,
    }
}
