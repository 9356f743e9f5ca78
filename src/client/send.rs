//! Requests of the application: publish, subscribe, unsubscribe, acknowledge, authenticate, disconnect.

use super::error::Refusal;
use super::{Client, Request, State};
use crate::base::{Now, PacketId, QoS, ReasonCode, topic};
use crate::codec::{self, AckKind, Auth, Delivery, Disconnect, SubscribeFilter};
use std::num::NonZeroU32;

/// Filters in one request; so many of the longest fit into a packet.
const FILTERS_MAX: u32 = 4000;

/// A message to be published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Publication<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// Application message.
    pub payload: &'a [u8],
    /// QoS.
    pub qos: QoS,
    /// RETAIN flag.
    pub retain: bool,
    /// MQTT 5: Message Expiry Interval, in seconds.
    pub expiry: Option<u32>,
    /// MQTT 5: properties that travel with the message, encoded by the functions of [`codec::properties`].
    pub properties: &'a [u8],
}

impl<'a> Publication<'a> {
    /// A message with nothing optional.
    #[must_use]
    pub fn new(topic: &'a str, payload: &'a [u8], qos: QoS) -> Self {
        Self { topic, payload, qos, retain: false, expiry: None, properties: &[] }
    }
}

impl Client {
    /// Publishes a message. QoS 1 and 2 have a packet id, which comes back with
    /// [`Acknowledged`](super::Incoming::Acknowledged).
    ///
    /// # Errors
    /// [`Refusal`]: nothing was sent. [`Refusal::WindowFull`] passes with the next acknowledgement.
    pub fn publish(&mut self, now: Now, publication: &Publication<'_>) -> Result<Option<PacketId>, Refusal> {
        self.check_publication(publication)?;
        let version = self.options.version;
        let mut delivery = Delivery {
            dup: false,
            qos: publication.qos,
            retain: publication.retain,
            topic: publication.topic,
            topic_alias: None,
            packet_id: (publication.qos != QoS::AtMostOnce).then_some(PacketId::FIRST),
            expiry: publication.expiry,
            subscription_ids: &[],
            properties: publication.properties,
            payload: publication.payload,
        };
        let alias_room = if self.options.use_topic_aliases { 3 } else { 0 };
        let size = delivery.size(version).saturating_add(alias_room);
        if size > self.server.packet_size_max as usize {
            // [MQTT-3.2.2-15]
            return Err(Refusal::PacketTooLarge);
        }
        if delivery.qos != QoS::AtMostOnce {
            delivery.packet_id = Some(self.enter_window(&delivery)?);
        }
        if version.is_v5() && self.options.use_topic_aliases {
            let maximum = self.server.topic_alias_maximum;
            if let Some((alias, known)) = self.outgoing_aliases.assign(publication.topic, maximum) {
                delivery.topic_alias = Some(alias);
                delivery.topic = if known { "" } else { publication.topic };
            }
        }
        delivery.encode(version, &mut self.out);
        self.last_sent = now.mono;
        Ok(delivery.packet_id)
    }

    fn check_publication(&self, publication: &Publication<'_>) -> Result<(), Refusal> {
        self.check_connected()?;
        if !topic::is_topic_name(publication.topic) {
            return Err(Refusal::TopicInvalid);
        }
        if publication.qos > self.server.maximum_qos {
            // [MQTT-3.2.2-11]
            return Err(Refusal::QosNotSupported);
        }
        if publication.retain && !self.server.retain_available {
            // [MQTT-3.2.2-14]
            return Err(Refusal::RetainNotSupported);
        }
        Ok(())
    }

    /// Gives a QoS 1 or 2 publish its packet id and a place in the window.
    fn enter_window(&mut self, delivery: &Delivery<'_>) -> Result<PacketId, Refusal> {
        if !self.window.has_room(self.window_maximum()) {
            return Err(Refusal::WindowFull);
        }
        let packet_id = self.allocate_id()?;
        let awaited = if delivery.qos == QoS::AtLeastOnce { AckKind::PubAck } else { AckKind::PubRec };
        let mut packet = Vec::new();
        if self.server.keeps_session {
            Delivery { packet_id: Some(packet_id), ..*delivery }.encode(self.options.version, &mut packet);
        }
        self.window.push(packet_id, awaited, packet.into_boxed_slice());
        Ok(packet_id)
    }

    /// How many publishes may be in flight.
    pub(super) fn window_maximum(&self) -> u16 {
        self.server.receive_maximum.min(self.options.in_flight_max.get())
    }

    /// Whether the window has room for a QoS 1 or 2 publish.
    #[must_use]
    pub fn can_publish(&self) -> bool {
        self.state == State::Connected && self.window.has_room(self.window_maximum())
    }

    fn allocate_id(&mut self) -> Result<PacketId, Refusal> {
        let requests = self.requests.iter().map(|request| request.packet_id);
        self.packet_ids.allocate(self.window.ids().chain(requests)).ok_or(Refusal::WindowFull)
    }

    /// Sends SUBSCRIBE. Its packet id comes back with [`Subscribed`](super::Incoming::Subscribed).
    ///
    /// # Errors
    /// [`Refusal`]: nothing was sent. Filters are not checked, other than that there is one and none is too long.
    pub fn subscribe(
        &mut self,
        now: Now,
        filters: &[SubscribeFilter<'_>],
        subscription_id: Option<NonZeroU32>,
    ) -> Result<PacketId, Refusal> {
        let sizes = filters.iter().map(|filter| filter.filter.len());
        self.request(now, true, sizes, |packet_id, client| {
            let version = client.options.version;
            codec::encode_subscribe(packet_id, subscription_id, filters, version, &mut client.out);
        })
    }

    /// Sends UNSUBSCRIBE. Its packet id comes back with [`Unsubscribed`](super::Incoming::Unsubscribed).
    ///
    /// # Errors
    /// [`Refusal`]: nothing was sent. Filters are not checked, other than that there is one and none is too long.
    pub fn unsubscribe(&mut self, now: Now, filters: &[&str]) -> Result<PacketId, Refusal> {
        self.request(now, false, filters.iter().map(|filter| filter.len()), |packet_id, client| {
            codec::encode_unsubscribe(packet_id, filters, client.options.version, &mut client.out);
        })
    }

    fn request(
        &mut self,
        now: Now,
        is_subscribe: bool,
        filter_sizes: impl ExactSizeIterator<Item = usize>,
        encode: impl FnOnce(PacketId, &mut Self),
    ) -> Result<PacketId, Refusal> {
        self.check_connected()?;
        let filter_count = u32::try_from(filter_sizes.len()).map_err(|_| Refusal::PacketTooLarge)?;
        let mut sizes = filter_sizes;
        if filter_count == 0 || sizes.any(|size| size > topic::TOPIC_SIZE_MAX) {
            return Err(Refusal::TopicInvalid);
        }
        if filter_count > FILTERS_MAX {
            return Err(Refusal::PacketTooLarge);
        }
        let packet_id = self.allocate_id()?;
        let start = self.out.len();
        encode(packet_id, self);
        if self.out.len() - start > self.server.packet_size_max as usize {
            // [MQTT-3.2.2-15]
            self.out.truncate(start);
            return Err(Refusal::PacketTooLarge);
        }
        self.requests.push(Request { packet_id, is_subscribe, filter_count });
        self.last_sent = now.mono;
        Ok(packet_id)
    }

    /// Acknowledges a received message of QoS 1 or 2, if [`manual_ack`](super::Options::manual_ack) says that the application
    /// does: PUBACK, or PUBREC (PUBCOMP follows by itself). An error refuses the message (MQTT 5).
    ///
    /// # Errors
    /// [`Refusal::NotConnected`].
    pub fn acknowledge(
        &mut self,
        now: Now,
        packet_id: PacketId,
        qos: QoS,
        reason: ReasonCode,
    ) -> Result<(), Refusal> {
        self.check_connected()?;
        let kind = match qos {
            QoS::AtMostOnce => return Ok(()),
            QoS::AtLeastOnce => AckKind::PubAck,
            QoS::ExactlyOnce => AckKind::PubRec,
        };
        let refused = reason.is_error() && self.options.version.is_v5();
        if kind == AckKind::PubRec && !refused {
            self.remember(packet_id);
        } else {
            self.unacknowledged = self.unacknowledged.saturating_sub(1);
        }
        codec::encode_ack(kind, packet_id, reason, None, self.options.version, &mut self.out);
        self.last_sent = now.mono;
        Ok(())
    }

    /// Notes a QoS 2 message as given to the application. `false` if it was noted before.
    pub(super) fn remember(&mut self, packet_id: PacketId) -> bool {
        match self.received.binary_search(&packet_id) {
            Ok(_) => false,
            Err(index) => {
                self.received.insert(index, packet_id);
                true
            }
        }
    }

    /// Sends AUTH, also before CONNACK.
    ///
    /// # Errors
    /// [`Refusal::NotConnected`] if not even CONNECT was sent, or before MQTT 5.
    pub fn authenticate(&mut self, now: Now, auth: &Auth<'_>) -> Result<(), Refusal> {
        if self.state == State::Disconnected || !self.options.version.is_v5() {
            return Err(Refusal::NotConnected);
        }
        auth.encode(&mut self.out);
        self.last_sent = now.mono;
        Ok(())
    }

    /// Ends the connection. Before MQTT 5 only [`ReasonCode::Success`] has a packet; otherwise the connection just ends.
    pub fn disconnect(&mut self, reason: ReasonCode) {
        self.disconnect_with(&Disconnect::new(reason));
    }

    /// Ends the connection with a DISCONNECT of the application's making.
    pub fn disconnect_with(&mut self, disconnect: &Disconnect<'_>) {
        if self.state == State::Disconnected {
            return;
        }
        let version = self.options.version;
        if version.is_v5() || disconnect.reason == ReasonCode::Success {
            disconnect.encode(version, &mut self.out);
        }
        if let (true, Some(secs)) = (version.is_v5(), disconnect.session_expiry) {
            self.server.keeps_session = secs > 0;
        }
        // [MQTT-3.14.4-1]
        self.state = State::Disconnected;
    }
}
