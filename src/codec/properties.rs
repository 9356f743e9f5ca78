//! Property blocks (section 2.2.2): walking one while its packet is decoded, and the views of it that stay afterwards.
//!
//! A view borrows the block that was checked when the packet was decoded, and reads it again when it is iterated: decoding
//! allocates nothing however many properties there are, and who does not look does not pay.

use super::property::Property;
use super::reader::Reader;
use super::{Malformed, writer};
use std::fmt;
use std::num::NonZeroU32;

/// A walk through a block that checks it.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    block: &'a [u8],
    reader: Reader<'a>,
    /// Bit `n`: property `n` has occurred.
    seen: u64,
}

impl<'a> Walk<'a> {
    /// Takes the block and its length from the front.
    #[inline]
    pub(super) fn new(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        // [MQTT-2.2.2-1]
        let size = reader.variable_byte_integer()?;
        let block = reader.take(size as usize)?;
        Ok(Self { block, reader: Reader::new(block), seen: 0 })
    }

    /// The block without its length.
    #[inline]
    pub(super) fn block(&self) -> &'a [u8] {
        self.block
    }

    /// How far the walk is, in bytes.
    pub(super) fn offset(&self) -> usize {
        self.block.len().saturating_sub(self.reader.rest().len())
    }

    /// The next property. One that may occur once is refused the second time; Subscription Identifier is left to the packet. The first of
    /// User Properties behind each other stands for all of them: a packet may hold millions.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Property<'a>>, Malformed> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let property = Property::decode(&mut self.reader)?;
        if matches!(property, Property::UserProperty(..)) {
            self.reader.skip_user_properties()?;
        } else if !matches!(property, Property::SubscriptionIdentifier(_)) {
            let bit = 1_u64 << (property.id() & 63);
            if self.seen & bit != 0 {
                return Err(Malformed::PropertyDuplicate);
            }
            self.seen |= bit;
        }
        Ok(Some(property))
    }
}

/// The properties of a checked block, in order.
fn iterate(block: &[u8]) -> impl Iterator<Item = Property<'_>> {
    let mut reader = Reader::new(block);
    // The block was checked when its packet was decoded; one that was not ends where it stops making sense.
    std::iter::from_fn(move || if reader.is_empty() { None } else { Property::decode(&mut reader).ok() })
}

/// The User Properties of a packet, in order.
#[derive(Clone, Copy, Default)]
pub struct UserProperties<'a> {
    /// The packet's whole block; other properties in it are skipped.
    block: &'a [u8],
}

impl<'a> UserProperties<'a> {
    /// None.
    pub const EMPTY: Self = Self { block: &[] };

    /// The User Properties among encoded properties (without a length in front), as [`push_user_property`] makes them.
    #[must_use]
    pub fn from_encoded(block: &'a [u8]) -> Self {
        Self { block }
    }

    /// Name and value of each, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        iterate(self.block).filter_map(|property| match property {
            Property::UserProperty(name, value) => Some((name, value)),
            _ => None,
        })
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Appends them, encoded.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for (name, value) in self.iter() {
            push_user_property(out, name, value);
        }
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// The Subscription Identifiers of a PUBLISH from a server.
#[derive(Clone, Copy, Default)]
pub struct SubscriptionIds<'a> {
    block: &'a [u8],
}

impl<'a> SubscriptionIds<'a> {
    /// None.
    pub const EMPTY: Self = Self { block: &[] };

    pub(super) fn new(block: &'a [u8]) -> Self {
        Self { block }
    }

    /// Each identifier, in order.
    pub fn iter(&self) -> impl Iterator<Item = NonZeroU32> + use<'a> {
        iterate(self.block).filter_map(|property| match property {
            Property::SubscriptionIdentifier(id) => Some(id),
            _ => None,
        })
    }
}

impl PartialEq for SubscriptionIds<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscriptionIds<'_> {}

impl fmt::Debug for SubscriptionIds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The properties of a PUBLISH or of a will that travel with the message: Payload Format Indicator, Content Type, Response
/// Topic, Correlation Data and User Properties.
#[derive(Clone, Copy, Default)]
pub struct MessageProperties<'a> {
    /// From the first to the last of them.
    span: &'a [u8],
    /// Whether others stand between them.
    mixed: bool,
}

impl<'a> MessageProperties<'a> {
    /// None.
    pub const EMPTY: Self = Self { span: &[], mixed: false };

    /// The properties among encoded ones (without a length in front), as [`push_user_property`] and its like make them.
    #[must_use]
    pub fn from_encoded(block: &'a [u8]) -> Self {
        Self { span: block, mixed: true }
    }

    /// Their bytes, in order, without a length in front: a part of the packet as it is when they stand together, else copied
    /// into `scratch`.
    pub fn forward<'b>(&self, scratch: &'b mut Vec<u8>) -> &'b [u8]
    where
        'a: 'b,
    {
        if !self.mixed {
            return self.span;
        }
        scratch.clear();
        // [MQTT-3.3.2-18]
        self.encode(scratch);
        scratch
    }

    /// Each property, in order.
    pub fn iter(&self) -> impl Iterator<Item = Property<'a>> + use<'a> {
        iterate(self.span).filter(Property::is_forwarded)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Appends them as they came, User Properties behind each other in one go.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut reader = Reader::new(self.span);
        while !reader.is_empty() {
            let before = reader.rest();
            let property = Property::decode(&mut reader).and_then(|property| {
                if matches!(property, Property::UserProperty(..)) {
                    reader.skip_user_properties()?;
                }
                Ok(property)
            });
            // Checked when the packet was decoded; what was not ends where it stops making sense.
            let Ok(property) = property else { return };
            let (these, _) = before.split_at(before.len().saturating_sub(reader.rest().len()));
            if property.is_forwarded() {
                out.extend_from_slice(these);
            }
        }
    }
}

impl PartialEq for MessageProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for MessageProperties<'_> {}

impl fmt::Debug for MessageProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Finds out while a block is walked where the forwarded properties stand.
#[derive(Default, Debug)]
pub(super) struct ForwardSpan {
    start: Option<usize>,
    end: usize,
    mixed: bool,
}

impl ForwardSpan {
    /// A forwarded property stands from `start` to `end`.
    #[inline]
    pub(super) fn add(&mut self, start: usize, end: usize) {
        if self.start.is_none() {
            self.start = Some(start);
        } else if self.end != start {
            self.mixed = true;
        }
        self.end = end;
    }

    pub(super) fn finish<'a>(&self, block: &'a [u8]) -> MessageProperties<'a> {
        let Some(start) = self.start else { return MessageProperties::EMPTY };
        let span = block.get(start..self.end).expect("offsets are the walk's");
        MessageProperties { span, mixed: self.mixed }
    }
}

/// Reads a block of which only Reason String and User Properties are allowed: acknowledgements, SUBACK, UNSUBACK.
pub(super) fn reason_properties<'a>(
    reader: &mut Reader<'a>,
) -> Result<(Option<&'a str>, UserProperties<'a>), Malformed> {
    let mut walk = Walk::new(reader)?;
    let mut reason_string = None;
    while let Some(property) = walk.next()? {
        match property {
            Property::ReasonString(value) => reason_string = Some(value),
            Property::UserProperty(..) => {}
            _ => return Err(Malformed::PropertyNotAllowed),
        }
    }
    Ok((reason_string, UserProperties { block: walk.block() }))
}

/// Appends a block that has at most a Reason String.
pub(super) fn put_reason_properties(out: &mut Vec<u8>, reason_string: Option<&str>) {
    writer::put_prefixed(out, |out| {
        if let Some(reason_string) = reason_string {
            Property::ReasonString(reason_string).encode(out);
        }
    });
}

/// Appends a Payload Format Indicator.
pub fn push_payload_format(out: &mut Vec<u8>, utf8: bool) {
    Property::PayloadFormatIndicator(utf8).encode(out);
}

/// Appends a Content Type.
///
/// # Panics
/// If it is longer than 65,535 bytes.
pub fn push_content_type(out: &mut Vec<u8>, content_type: &str) {
    Property::ContentType(content_type).encode(out);
}

/// Appends a Response Topic.
///
/// # Panics
/// If it is longer than 65,535 bytes.
pub fn push_response_topic(out: &mut Vec<u8>, topic: &str) {
    Property::ResponseTopic(topic).encode(out);
}

/// Appends Correlation Data.
///
/// # Panics
/// If they are longer than 65,535 bytes.
pub fn push_correlation_data(out: &mut Vec<u8>, data: &[u8]) {
    Property::CorrelationData(data).encode(out);
}

/// Appends a User Property.
///
/// # Panics
/// If name or value is longer than 65,535 bytes.
pub fn push_user_property(out: &mut Vec<u8>, name: &str, value: &str) {
    Property::UserProperty(name, value).encode(out);
}
