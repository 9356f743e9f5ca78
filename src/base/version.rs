//! Protocol versions, as values.

/// An MQTT protocol version; the order is the order of publication.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Version {
    /// MQTT 3.1, protocol name `MQIsdp`, level 3.
    V310 = 3,
    /// MQTT 3.1.1, protocol name `MQTT`, level 4.
    V311 = 4,
    /// MQTT 5.0, protocol name `MQTT`, level 5.
    V5 = 5,
}

impl Version {
    /// Every version.
    pub const ALL: [Self; 3] = [Self::V310, Self::V311, Self::V5];

    /// Whether packets carry properties and reason codes.
    #[must_use]
    pub fn is_v5(self) -> bool {
        self == Self::V5
    }

    /// Its place among all versions: 0 to 2, for tables.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::V310 => 0,
            Self::V311 => 1,
            Self::V5 => 2,
        }
    }

    /// The protocol level byte of CONNECT.
    #[must_use]
    pub fn level(self) -> u8 {
        self as u8
    }

    /// The version of a protocol level byte.
    #[must_use]
    pub fn from_level(level: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.level() == level)
    }
}
