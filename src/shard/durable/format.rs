//! What a shard writes into the values, heads and notes of its log: rkyv archives, validated before they are looked at.
//!
//! ```text
//! note of a message in a stream     bits 0-1 QoS, 2 RETAIN, 3 more, 4-31 subscription identifier, or a place in `more`
//! tag of a message in a stream      bits 0-15 packet identifier of a QoS 2 delivery that has begun, 16 PUBREC has come
//! ```
//!
//! `more` of a message's head: for each delivery that needs it a group's hash (two words, low first; 0 is none), the number of
//! subscription identifiers, and these.

use crate::base::{Message, MessageHead, MessageRef, PacketId, QoS, Version, VhostId, Wall};
use crate::queue::Identifiers;
use crate::route::SubscriptionOptions;
use crate::session::Will;
use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::api::serialize_using;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{Failure, Panic};
use rkyv::ser::{Serializer, allocator::ArenaHandle, sharing::Share};
use rkyv::util::with_arena;
use rkyv::with::InlineAsBox;
use rkyv::{Archive, Portable, Serialize};

/// A session, as its stream's value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionValue<'a> {
    /// Its client identifier.
    pub client_id: &'a str,
    /// What origins of its QoS 2 messages call it: no other session ever has the same.
    pub publisher: u64,
    /// Session Expiry Interval in force, in seconds.
    pub expiry_secs: u32,
    /// How it is.
    pub standing: Standing,
    /// It was a member of a shared subscription: what it has not settled may be another member's when it ends.
    pub has_groups: bool,
    /// The version it was last connected with.
    pub version: Version,
}

/// Whether a session's client is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Its client is connected, or was when the process ended.
    Connected,
    /// Its client is away.
    Offline {
        /// When it ends; [`Wall::NEVER`] if it does not.
        expires_at: Wall,
        /// When its will is due; [`Wall::NEVER`] if it has none.
        will_at: Wall,
    },
    /// It is over. What it held of shared subscriptions is on its way to other members.
    Ended,
}

/// A subscription, as a state of its session's stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubscriptionValue<'a> {
    /// The topic filter, of a shared subscription without its prefix.
    pub filter: &'a str,
    /// The share name; empty if it is not shared.
    pub group: &'a str,
    /// Its options; whether it is durable is not kept.
    pub options: SubscriptionOptions,
}

/// How a message is delivered to one session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeliveryNote {
    /// Granted QoS.
    pub qos: QoS,
    /// RETAIN as delivered.
    pub retain: bool,
    /// Subscription identifiers.
    pub identifiers: Identifiers,
    /// Hash of the shared subscription it came through; 0 is none.
    pub group: u64,
}

/// A message read back, besides its payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MessageValue<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// Properties, as [`MessageRef`] has them.
    pub properties: &'a [u8],
    /// QoS it was published with.
    pub qos: QoS,
    /// RETAIN as published.
    pub retain: bool,
    /// Keyed hash of the publisher's client identifier; 0 if unknown.
    pub client_hash: u32,
}

#[derive(Archive, Serialize)]
struct SessionRecord<'a> {
    publisher: u64,
    expires_at: u64,
    will_at: u64,
    expiry_secs: u32,
    standing: u8,
    has_groups: bool,
    version: u8,
    #[rkyv(with = InlineAsBox)]
    client_id: &'a str,
}

#[derive(Archive, Serialize)]
struct SubscriptionRecord<'a> {
    id: u32,
    flags: u8,
    #[rkyv(with = InlineAsBox)]
    filter: &'a str,
    #[rkyv(with = InlineAsBox)]
    group: &'a str,
}

#[derive(Archive, Serialize)]
struct HeadRecord<'a> {
    client_hash: u32,
    flags: u8,
    #[rkyv(with = InlineAsBox)]
    topic: &'a str,
    #[rkyv(with = InlineAsBox)]
    properties: &'a [u8],
    #[rkyv(with = InlineAsBox)]
    more: &'a [u32],
}

/// A retained message or a will.
#[derive(Archive, Serialize)]
struct MessageRecord<'a> {
    expires_at: u64,
    /// Of a will: seconds.
    delay_secs: u32,
    /// Of a will: seconds; all ones is none.
    expiry_secs: u32,
    client_hash: u32,
    flags: u8,
    #[rkyv(with = InlineAsBox)]
    topic: &'a str,
    #[rkyv(with = InlineAsBox)]
    properties: &'a [u8],
    #[rkyv(with = InlineAsBox)]
    payload: &'a [u8],
}

const QOS_MASK: u8 = 3;
const RETAIN_FLAG: u8 = 4;
const NO_LOCAL_FLAG: u8 = 8;
const MORE_FLAG: u32 = 8;
const NO_EXPIRY: u32 = u32::MAX;
const RELEASED: u64 = 1 << 16;

/// Writes a session's value.
pub(crate) fn put_session(value: &SessionValue<'_>, out: &mut Vec<u8>) {
    let (standing, expires_at, will_at) = match value.standing {
        Standing::Connected => (0, 0, 0),
        Standing::Offline { expires_at, will_at } => (1, expires_at.0, will_at.0),
        Standing::Ended => (2, 0, 0),
    };
    let record = SessionRecord {
        publisher: value.publisher,
        expires_at,
        will_at,
        expiry_secs: value.expiry_secs,
        standing,
        has_groups: value.has_groups,
        version: value.version.level(),
        client_id: value.client_id,
    };
    archive(&record, out);
}

/// Reads a session's value.
#[must_use]
pub fn session(bytes: &[u8]) -> Option<SessionValue<'_>> {
    let record = access::<ArchivedSessionRecord<'_>>(bytes)?;
    let standing = match record.standing {
        0 => Standing::Connected,
        1 => Standing::Offline {
            expires_at: Wall(record.expires_at.to_native()),
            will_at: Wall(record.will_at.to_native()),
        },
        2 => Standing::Ended,
        _ => return None,
    };
    Some(SessionValue {
        client_id: &record.client_id,
        publisher: record.publisher.to_native(),
        expiry_secs: record.expiry_secs.to_native(),
        standing,
        has_groups: record.has_groups,
        version: Version::from_level(record.version)?,
    })
}

/// Writes a subscription's value.
pub(crate) fn put_subscription(value: &SubscriptionValue<'_>, out: &mut Vec<u8>) {
    let options = value.options;
    let mut flags = options.qos as u8;
    flags |= if options.retain_as_published { RETAIN_FLAG } else { 0 };
    flags |= if options.no_local { NO_LOCAL_FLAG } else { 0 };
    let record =
        SubscriptionRecord { id: options.subscription_id, flags, filter: value.filter, group: value.group };
    archive(&record, out);
}

/// Reads a subscription's value.
#[must_use]
pub fn subscription(bytes: &[u8]) -> Option<SubscriptionValue<'_>> {
    let record = access::<ArchivedSubscriptionRecord<'_>>(bytes)?;
    let options = SubscriptionOptions {
        qos: qos(record.flags)?,
        no_local: record.flags & NO_LOCAL_FLAG != 0,
        retain_as_published: record.flags & RETAIN_FLAG != 0,
        subscription_id: record.id.to_native(),
        durable: true,
    };
    Some(SubscriptionValue { filter: &record.filter, group: &record.group, options })
}

/// Writes a message's head; `more` is what [`put_note`] left.
pub(crate) fn put_head(message: &MessageRef<'_>, more: &[u32], out: &mut Vec<u8>) {
    let record = HeadRecord {
        client_hash: message.head.publisher.map_or(0, |publisher| publisher.client_hash),
        flags: message.head.qos as u8 | if message.head.retain { RETAIN_FLAG } else { 0 },
        topic: message.topic,
        properties: message.properties,
        more,
    };
    archive(&record, out);
}

/// Reads a message's head and, by its note, how it is delivered.
#[must_use]
pub fn head(bytes: &[u8], note: u32) -> Option<(MessageValue<'_>, DeliveryNote)> {
    let record = access::<ArchivedHeadRecord<'_>>(bytes)?;
    let low = note.to_le_bytes()[0];
    let mut delivery = DeliveryNote {
        qos: qos(low)?,
        retain: low & RETAIN_FLAG != 0,
        identifiers: Identifiers::None,
        group: 0,
    };
    let value = note >> 4;
    if note & MORE_FLAG == 0 {
        delivery.identifiers = if value == 0 { Identifiers::None } else { Identifiers::One(value) };
    } else {
        let mut words = record.more.iter().skip(value as usize).map(|word| word.to_native());
        let (group_low, group_high, count) = (words.next()?, words.next()?, words.next()?);
        delivery.group = u64::from(group_high) << 32 | u64::from(group_low);
        let ids: Vec<u32> = words.take(count as usize).collect();
        delivery.identifiers = Identifiers::from_slice(&ids);
    }
    let message = MessageValue {
        topic: &record.topic,
        properties: &record.properties,
        qos: qos(record.flags)?,
        retain: record.flags & RETAIN_FLAG != 0,
        client_hash: record.client_hash.to_native(),
    };
    Some((message, delivery))
}

/// The note of a delivery; what has no room in it goes to `more`.
pub(crate) fn put_note(
    qos: QoS,
    retain: bool,
    identifiers: &Identifiers,
    group: u64,
    more: &mut Vec<u32>,
) -> u32 {
    let low = u32::from(qos as u8) | if retain { u32::from(RETAIN_FLAG) } else { 0 };
    let ids = identifiers.as_slice();
    if group == 0 && ids.len() < 2 {
        return low | ids.first().copied().unwrap_or(0) << 4;
    }
    let at = u32::try_from(more.len()).expect("a few words a delivery");
    #[allow(clippy::cast_possible_truncation, reason = "takes the word apart")]
    more.extend([group as u32, (group >> 32) as u32]);
    more.push(u32::try_from(ids.len()).expect("as many as subscriptions"));
    more.extend_from_slice(ids);
    low | MORE_FLAG | at << 4
}

/// The tag of a QoS 2 delivery that has begun.
pub(crate) fn tag(packet_id: PacketId, is_released: bool) -> u64 {
    u64::from(packet_id.value()) | if is_released { RELEASED } else { 0 }
}

/// What a tag says: the packet identifier, and whether PUBREC has come.
#[must_use]
pub fn untag(tag: u64) -> Option<(PacketId, bool)> {
    let packet_id = PacketId::new(u16::try_from(tag & 0xFFFF).ok()?)?;
    Some((packet_id, tag & RELEASED != 0))
}

/// Writes a retained message's value.
pub(crate) fn put_retained(message: &MessageRef<'_>, out: &mut Vec<u8>) {
    put_message(message, 0, None, out);
}

/// Reads a retained message.
#[must_use]
pub fn retained(vhost: VhostId, bytes: &[u8]) -> Option<Message> {
    message(vhost, access(bytes)?)
}

/// Writes a will's value.
pub(crate) fn put_will(will: &Will, out: &mut Vec<u8>) {
    put_message(&will.message(), will.delay_secs, will.expiry_secs(), out);
}

/// Reads a will.
#[must_use]
pub fn will(vhost: VhostId, bytes: &[u8]) -> Option<Will> {
    let record = access::<ArchivedMessageRecord<'_>>(bytes)?;
    let expiry_secs = Some(record.expiry_secs.to_native()).filter(|secs| *secs != NO_EXPIRY);
    Some(Will::restored(message(vhost, record)?, record.delay_secs.to_native(), expiry_secs))
}

/// Writes a packet identifier's value.
pub(crate) fn put_packet_id(packet_id: u16, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&packet_id.to_le_bytes());
}

/// Reads a packet identifier.
#[must_use]
pub fn packet_id(bytes: &[u8]) -> Option<PacketId> {
    PacketId::new(u16::from_le_bytes(bytes.try_into().ok()?))
}

fn put_message(message: &MessageRef<'_>, delay_secs: u32, expiry_secs: Option<u32>, out: &mut Vec<u8>) {
    let record = MessageRecord {
        expires_at: message.head.expires_at.0,
        delay_secs,
        expiry_secs: expiry_secs.unwrap_or(NO_EXPIRY),
        client_hash: message.head.publisher.map_or(0, |publisher| publisher.client_hash),
        flags: message.head.qos as u8 | if message.head.retain { RETAIN_FLAG } else { 0 },
        topic: message.topic,
        properties: message.properties,
        payload: message.payload,
    };
    archive(&record, out);
}

fn message(vhost: VhostId, record: &ArchivedMessageRecord<'_>) -> Option<Message> {
    let head = MessageHead {
        vhost,
        qos: qos(record.flags)?,
        retain: record.flags & RETAIN_FLAG != 0,
        expires_at: Wall(record.expires_at.to_native()),
        publisher: None,
    };
    let (topic, properties, payload) = (&*record.topic, &*record.properties, &*record.payload);
    Some(Message::new(&MessageRef { head, topic, properties, payload }))
}

fn qos(flags: u8) -> Option<QoS> {
    QoS::from_bits(flags & QOS_MASK)
}

fn access<T>(bytes: &[u8]) -> Option<&T>
where
    T: Portable + for<'b> CheckBytes<HighValidator<'b, Failure>>,
{
    rkyv::access::<T, Failure>(bytes).ok()
}

fn archive<T>(value: &T, out: &mut Vec<u8>)
where
    T: for<'a> Serialize<HighSerializer<Vec<u8>, ArenaHandle<'a>, Panic>>,
{
    out.clear();
    let bytes = std::mem::take(out);
    *out = with_arena(|arena| {
        let mut serializer = Serializer::new(bytes, arena.acquire(), Share::new());
        let Ok(_) = serialize_using::<_, Panic>(value, &mut serializer);
        serializer.into_writer()
    });
}
