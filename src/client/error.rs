//! What goes wrong: the server's faults, and requests that cannot be made now.

use crate::base::ReasonCode;
use crate::codec::Malformed;
use thiserror::Error;

/// The server's fault, or its silence. The connection is over: what is in the out-buffer (a DISCONNECT, perhaps) may still be
/// sent, then it is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Error {
    /// A packet that breaks a rule by itself.
    #[error("malformed packet: {0}")]
    Malformed(#[from] Malformed),
    /// A packet that may not come now.
    #[error("protocol violation: {0}")]
    Violation(#[from] Violation),
    /// PINGREQ was not answered within the keep alive.
    #[error("no answer to PINGREQ")]
    KeepAliveTimeout,
}

/// A rule that the server broke.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Violation {
    /// Anything but CONNACK or AUTH before CONNACK, or a second CONNACK: MQTT-3.2.0-1, MQTT-3.2.0-2.
    #[error("packet not allowed before CONNACK, or a second CONNACK")]
    WrongOrder,
    /// Session Present in answer to Clean Start: MQTT-3.2.2-2.
    #[error("Session Present after Clean Start")]
    SessionPresent,
    /// An acknowledgement of nothing that is in flight.
    #[error("acknowledgement of nothing in flight")]
    UnexpectedAck,
    /// SUBACK or UNSUBACK without its request, or with another number of codes: MQTT-3.8.4-6.
    #[error("SUBACK or UNSUBACK does not go with a request")]
    UnexpectedAnswer,
    /// More unacknowledged QoS 1 and 2 messages than announced: MQTT-3.3.4-9.
    #[error("Receive Maximum exceeded")]
    ReceiveMaximum,
    /// A Topic Alias above the announced maximum, or one that stands for nothing: MQTT-3.3.2-11.
    #[error("Topic Alias invalid")]
    TopicAlias,
}

impl Error {
    /// What the server is told in DISCONNECT.
    #[must_use]
    pub fn reason(self) -> ReasonCode {
        match self {
            // Codes that only servers may send with DISCONNECT are replaced.
            Self::Malformed(Malformed::UnsupportedProtocolVersion | Malformed::ProtocolNameInvalid)
            | Self::Violation(
                Violation::WrongOrder
                | Violation::SessionPresent
                | Violation::UnexpectedAck
                | Violation::UnexpectedAnswer,
            ) => ReasonCode::ProtocolError,
            Self::Malformed(malformed) => malformed.reason(),
            Self::Violation(Violation::ReceiveMaximum) => ReasonCode::ReceiveMaximumExceeded,
            Self::Violation(Violation::TopicAlias) => ReasonCode::TopicAliasInvalid,
            Self::KeepAliveTimeout => ReasonCode::UnspecifiedError,
        }
    }
}

/// Why a request of the application was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Refusal {
    /// There is no connection, or CONNACK has not come.
    #[error("not connected")]
    NotConnected,
    /// The window is full: try again after the next acknowledgement.
    #[error("too many publishes in flight")]
    WindowFull,
    /// Not a topic name, or no filter.
    #[error("not a topic name, or no topic filter")]
    TopicInvalid,
    /// The packet is larger than the server takes.
    #[error("packet too large for the server")]
    PacketTooLarge,
    /// The server's Maximum QoS is below.
    #[error("QoS not supported by the server")]
    QosNotSupported,
    /// The server keeps no retained messages.
    #[error("retained messages not supported by the server")]
    RetainNotSupported,
}
