//! The data types of the wire (section 1.5), taken from the front of a slice: borrowed, bounds-checked, never panicking.

use super::Malformed;
use crate::base::PacketId;

/// What a User Property begins with.
const USER_PROPERTY: u8 = 0x26;
/// A string of so many bytes is checked byte by byte.
const SHORT: usize = 32;

/// What is left to read of a packet or of a property block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything has to be read by now.
    pub(super) fn finish(&self) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { Err(Malformed::TrailingBytes) }
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline]
    pub(super) fn take(&mut self, size: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(size).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// A variable byte integer.
    #[inline]
    pub(super) fn variable_byte_integer(&mut self) -> Result<u32, Malformed> {
        match variable_byte_integer(self.rest)? {
            Some((value, size)) => {
                // [MQTT-1.5.5-1]
                if size != super::writer::variable_byte_integer_size(value) {
                    return Err(Malformed::VariableByteIntegerNotMinimal);
                }
                self.take(size)?;
                Ok(value)
            }
            None => Err(Malformed::Truncated),
        }
    }

    /// A UTF-8 encoded string.
    #[inline]
    pub(super) fn string(&mut self) -> Result<&'a str, Malformed> {
        let string = self.string_maybe_null()?;
        if string.as_bytes().contains(&0) {
            // [MQTT-1.5.4-2]
            return Err(Malformed::NullCharacter);
        }
        Ok(string)
    }

    /// Passes over a UTF-8 encoded string that nobody looks at now, and checks it.
    #[inline]
    fn skip_string(&mut self) -> Result<(), Malformed> {
        let mut ahead = *self;
        let bytes = ahead.binary()?;
        // Where there are millions they are short, and ASCII: no calls for those.
        if bytes.len() <= SHORT && bytes.iter().fold(true, |plain, byte| plain & matches!(byte, 1..=0x7F)) {
            *self = ahead;
            return Ok(());
        }
        self.string().map(|_| ())
    }

    /// Passes over the User Properties at the front, and checks them.
    #[inline]
    pub(super) fn skip_user_properties(&mut self) -> Result<(), Malformed> {
        while let [USER_PROPERTY, rest @ ..] = self.rest {
            self.rest = rest;
            // [MQTT-1.5.7-1]
            self.skip_string()?;
            self.skip_string()?;
        }
        Ok(())
    }

    /// A UTF-8 encoded string that the caller searches for U+0000, together with what else it looks for.
    #[inline]
    pub(super) fn string_maybe_null(&mut self) -> Result<&'a str, Malformed> {
        // [MQTT-1.5.4-1] [MQTT-1.5.4-3]
        std::str::from_utf8(self.binary()?).map_err(|_| Malformed::Utf8Invalid)
    }

    /// Binary data with its two-byte length in front.
    #[inline]
    pub(super) fn binary(&mut self) -> Result<&'a [u8], Malformed> {
        let size = self.u16()?;
        self.take(usize::from(size))
    }

    #[inline]
    pub(super) fn packet_id(&mut self) -> Result<PacketId, Malformed> {
        // [MQTT-2.2.1-3] [MQTT-2.2.1-4]
        PacketId::new(self.u16()?).ok_or(Malformed::PacketIdZero)
    }
}

/// The variable byte integer at the front of `bytes` and how many bytes it takes, in any form; `None` if it is not all there.
#[inline]
pub(super) fn variable_byte_integer(bytes: &[u8]) -> Result<Option<(u32, usize)>, Malformed> {
    let mut value = 0;
    for (shift, (size, byte)) in [0_u32, 7, 14, 21].into_iter().zip((1..).zip(bytes)) {
        value |= u32::from(byte & 0x7F) << (shift & 31);
        if byte & 0x80 == 0 {
            return Ok(Some((value, size)));
        }
    }
    if bytes.len() >= 4 { Err(Malformed::VariableByteIntegerTooLong) } else { Ok(None) }
}
