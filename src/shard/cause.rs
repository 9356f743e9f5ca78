//! Why connections end, as operators count it: coarser than [`Violation`], and with the ends that break no rule.

use crate::codec::Malformed;
use crate::session::Violation;

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// Why a connection ended.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Cause {
            $($(#[$doc])* $name,)*
        }

        /// How many causes there are.
        pub(super) const CAUSES: usize = [$(Cause::$name),*].len();

        impl Cause {
            /// Every cause.
            pub const ALL: [Self; CAUSES] = [$(Self::$name),*];

            /// Its name in counters.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }
        }
    };
}

causes! {
    /// The client sent DISCONNECT.
    Disconnect = "disconnect",
    /// The client sent DISCONNECT 0x04: its will is published.
    DisconnectWithWill = "disconnect_with_will",
    /// The network connection ended without DISCONNECT.
    Lost = "lost",
    /// A CONNECT elsewhere took the session over.
    TakenOver = "taken_over",
    /// The process ends.
    ShuttingDown = "shutting_down",
    /// No CONNECT in time.
    LoginTimeout = "login_timeout",
    /// Silent for longer than the keep alive allows.
    KeepAliveTimeout = "keep_alive_timeout",
    /// The first bytes are of another protocol.
    NotMqtt = "not_mqtt",
    /// MQTT, in a version this broker does not speak.
    UnsupportedVersion = "unsupported_version",
    /// A packet larger than allowed.
    PacketTooLarge = "packet_too_large",
    /// Bytes that are no packet.
    Malformed = "malformed",
    /// A packet that may not be sent there and then.
    ProtocolError = "protocol_error",
    /// A client identifier that is not allowed.
    ClientIdentifier = "client_identifier",
    /// A CONNECT that asks for what this broker does not do.
    NotSupported = "not_supported",
    /// Wrong user name or password.
    BadCredentials = "bad_credentials",
    /// Not allowed to.
    NotAuthorized = "not_authorized",
    /// More publishes in flight than the announced Receive Maximum.
    ReceiveMaximum = "receive_maximum",
    /// Over a limit of the server: connections, sockets, memory.
    Quota = "quota",
    /// The disk is full, or the log has failed.
    Disk = "disk",
    /// A publish was refused and the version has no other way to say so.
    PublishRefused = "publish_refused",
}

impl Cause {
    /// What a rule counts as that was broken before CONNECT was accepted: bytes that do not even begin like MQTT are another
    /// protocol's.
    pub(super) fn of_stranger(violation: Violation) -> Self {
        use Malformed as M;
        match violation {
            Violation::Malformed(M::FlagsInvalid | M::ReservedPacketType | M::VariableByteIntegerTooLong) => {
                Self::NotMqtt
            }
            _ => Self::of(violation),
        }
    }

    /// What a broken rule counts as.
    pub(super) fn of(violation: Violation) -> Self {
        use Violation as V;
        match violation {
            V::Malformed(Malformed::ProtocolNameInvalid) | V::NotConnected => Self::NotMqtt,
            V::Malformed(Malformed::UnsupportedProtocolVersion) => Self::UnsupportedVersion,
            V::Malformed(Malformed::PacketTooLarge) => Self::PacketTooLarge,
            V::Malformed(_) | V::WillTopic => Self::Malformed,
            V::LoginTimeout => Self::LoginTimeout,
            V::KeepAliveTimeout => Self::KeepAliveTimeout,
            V::ConnectedTwice
            | V::ServerPacket
            | V::UnexpectedAuth
            | V::TopicAlias
            | V::TopicAliasUndefined
            | V::AckOfWrongQos
            | V::NoLocalOnShared
            | V::ExpiryRaised => Self::ProtocolError,
            V::ClientIdentifier => Self::ClientIdentifier,
            V::PacketSizeMaxTooSmall | V::AuthenticationMethod => Self::NotSupported,
            V::BadCredentials => Self::BadCredentials,
            V::NotAuthorized => Self::NotAuthorized,
            V::ReceiveMaximum => Self::ReceiveMaximum,
            V::TakenOver => Self::TakenOver,
            V::ShuttingDown => Self::ShuttingDown,
            V::Quota | V::ServerFull => Self::Quota,
            V::DiskFull | V::LogFailed => Self::Disk,
            V::PublishRefused => Self::PublishRefused,
        }
    }
}
