//! What a client may not do, one variant a rule, and the one table that says what happens then.

use crate::base::{ReasonCode, Version};
use crate::codec::Malformed;

/// A rule of the protocol, or of this broker, that a client broke.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// The bytes are not a packet.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// The first packet was not CONNECT. [MQTT-3.1.0-1]
    #[error("the first packet was not CONNECT")]
    NotConnected,
    /// A second CONNECT. [MQTT-3.1.0-2]
    #[error("CONNECT was sent twice")]
    ConnectedTwice,
    /// No complete CONNECT within `mqtt.login_timeout`.
    #[error("no CONNECT in time")]
    LoginTimeout,
    /// Nothing arrived for one and a half times the keep alive. [MQTT-3.1.2-22]
    #[error("nothing received for 1.5 times the keep alive")]
    KeepAliveTimeout,
    /// A packet only servers send.
    #[error("a packet that only servers send")]
    ServerPacket,
    /// The client identifier is empty where that is not allowed, or longer than the bound.
    #[error("client identifier not valid")]
    ClientIdentifier,
    /// A Maximum Packet Size that not even CONNACK fits in.
    #[error("Maximum Packet Size too small for CONNACK")]
    PacketSizeMaxTooSmall,
    /// An authentication method this broker does not have.
    #[error("authentication method not supported")]
    AuthenticationMethod,
    /// AUTH without an authentication method in CONNECT. [MQTT-4.12.0-6]
    #[error("AUTH without an authentication method")]
    UnexpectedAuth,
    /// User name or password are wrong, or missing.
    #[error("bad user name or password")]
    BadCredentials,
    /// The client may not do this.
    #[error("not authorized")]
    NotAuthorized,
    /// The will's topic is not a topic name.
    #[error("the will's topic is not a topic name")]
    WillTopic,
    /// More QoS 1 and 2 publishes in flight than the announced Receive Maximum.
    #[error("more publishes in flight than the Receive Maximum")]
    ReceiveMaximum,
    /// A topic alias above the announced maximum.
    #[error("topic alias not valid")]
    TopicAlias,
    /// A topic alias that was not defined, without a topic name (MQTT 5 section 3.3.4).
    #[error("topic alias not defined")]
    TopicAliasUndefined,
    /// An acknowledgement of another QoS than the delivery has.
    #[error("acknowledgement does not fit the delivery's QoS")]
    AckOfWrongQos,
    /// No Local on a shared subscription. [MQTT-3.8.3-4]
    #[error("No Local on a shared subscription")]
    NoLocalOnShared,
    /// DISCONNECT raised a session expiry that was 0.
    #[error("DISCONNECT raised a session expiry of 0")]
    ExpiryRaised,
    /// Another connection took the session over. [MQTT-3.1.4-3]
    #[error("taken over by another connection")]
    TakenOver,
    /// The server is leaving.
    #[error("the server shuts down")]
    ShuttingDown,
    /// A limit of the server.
    #[error("over a limit of the server")]
    Quota,
    /// The server has no memory or no sockets left for this.
    #[error("the server is full")]
    ServerFull,
    /// The log takes no session: there is no space left on the disk.
    #[error("the disk is full")]
    DiskFull,
    /// The log takes nothing any more: a write or a sync failed.
    #[error("the log has failed")]
    LogFailed,
    /// A publish was refused and the version has no way to say so.
    #[error("publish refused by a queue limit")]
    PublishRefused,
}

impl Violation {
    /// What the client is told in DISCONNECT, and in CONNACK if [`connack_reason`](Self::connack_reason) does not know better.
    #[must_use]
    pub fn reason(self) -> ReasonCode {
        match self {
            Self::Malformed(malformed) => malformed.reason(),
            Self::PacketSizeMaxTooSmall => ReasonCode::PacketTooLarge,
            Self::NotConnected
            | Self::ConnectedTwice
            | Self::ServerPacket
            | Self::UnexpectedAuth
            | Self::AckOfWrongQos
            | Self::NoLocalOnShared
            | Self::TopicAliasUndefined
            | Self::ExpiryRaised => ReasonCode::ProtocolError,
            Self::LoginTimeout => ReasonCode::MaximumConnectTime,
            Self::KeepAliveTimeout => ReasonCode::KeepAliveTimeout,
            Self::ClientIdentifier => ReasonCode::ClientIdentifierNotValid,
            Self::AuthenticationMethod => ReasonCode::BadAuthenticationMethod,
            Self::BadCredentials => ReasonCode::BadUserNameOrPassword,
            Self::NotAuthorized => ReasonCode::NotAuthorized,
            Self::WillTopic => ReasonCode::TopicNameInvalid,
            Self::ReceiveMaximum => ReasonCode::ReceiveMaximumExceeded,
            Self::TopicAlias => ReasonCode::TopicAliasInvalid,
            Self::TakenOver => ReasonCode::SessionTakenOver,
            Self::ShuttingDown => ReasonCode::ServerShuttingDown,
            Self::Quota | Self::ServerFull | Self::PublishRefused | Self::DiskFull => {
                ReasonCode::QuotaExceeded
            }
            Self::LogFailed => ReasonCode::ImplementationSpecificError,
        }
    }

    /// The reason as CONNACK can give it: that the server is leaving has a code of its own in DISCONNECT only. Before MQTT 5 there
    /// is a code for a server that is full; the one for a quota is RabbitMQ's choice.
    #[must_use]
    pub fn connack_reason(self, version: Version) -> ReasonCode {
        match self {
            // [MQTT-3.2.2-8]
            Self::ShuttingDown => ReasonCode::ServerUnavailable,
            Self::ServerFull | Self::DiskFull | Self::LogFailed if !version.is_v5() => {
                ReasonCode::ServerUnavailable
            }
            _ => self.reason(),
        }
    }

    /// Whether a client of this version that breaks this rule before CONNECT was accepted is answered at all. Who did not speak
    /// MQTT is not, and before MQTT 5 there is no return code for what is malformed.
    #[must_use]
    pub fn is_answered_before_connect(self, version: Version) -> bool {
        match self {
            Self::NotConnected
            | Self::LoginTimeout
            | Self::PacketSizeMaxTooSmall
            | Self::Malformed(Malformed::ProtocolNameInvalid) => false,
            // [MQTT-3.1.2-2]
            Self::Malformed(Malformed::UnsupportedProtocolVersion) => true,
            // [MQTT-3.1.4-1] [MQTT-3.2.2-6]
            Self::Malformed(_) | Self::WillTopic => version.is_v5(),
            _ => true,
        }
    }

    /// The key that bounds what the client wanted too much of.
    #[must_use]
    pub fn key(self) -> Option<&'static str> {
        match self {
            Self::Malformed(Malformed::PacketTooLarge) => {
                Some("mqtt.max_packet_size_authenticated (mqtt.max_packet_size_unauthenticated for CONNECT)")
            }
            Self::LoginTimeout => Some("mqtt.login_timeout"),
            Self::ClientIdentifier => Some("quelea.mqtt.client_id_size_max"),
            Self::ReceiveMaximum => Some("quelea.mqtt.receive_maximum"),
            Self::DiskFull => Some("disk_free_limit.absolute"),
            Self::TopicAlias => Some("mqtt.topic_alias_maximum"),
            _ => None,
        }
    }

    /// Whether it is worth an operator's line (at INFO, rate limited); the rest is daily life.
    #[must_use]
    pub fn is_logged(self) -> bool {
        !matches!(
            self,
            Self::TakenOver
                | Self::KeepAliveTimeout
                | Self::ShuttingDown
                | Self::ServerFull
                | Self::DiskFull
                | Self::LogFailed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{self, ConnAck, Frame, Packet, Sender};

    #[test]
    fn connack_can_say_why() {
        for violation in [
            Violation::Malformed(Malformed::UnsupportedProtocolVersion),
            Violation::Malformed(Malformed::VariableByteIntegerNotMinimal),
            Violation::Malformed(Malformed::PropertyNotAllowed),
            Violation::ClientIdentifier,
            Violation::AuthenticationMethod,
            Violation::BadCredentials,
            Violation::NotAuthorized,
            Violation::WillTopic,
            Violation::Quota,
            Violation::ShuttingDown,
        ] {
            assert!(violation.is_answered_before_connect(Version::V5), "{violation}");
            let mut bytes = Vec::new();
            ConnAck::new(false, violation.connack_reason(Version::V5)).encode(Version::V5, &mut bytes);
            let Ok(Frame::Complete(raw)) = codec::frame(&bytes, u32::MAX) else { panic!("{violation}") };
            let packet = codec::decode(raw, Version::V5, Sender::Server);
            assert!(matches!(packet, Ok(Packet::ConnAck(_))), "{violation}: {packet:?}");
        }
    }
}
