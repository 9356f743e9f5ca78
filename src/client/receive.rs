//! Bytes from the server: packets, what they change, what the application is told, what is answered at once.

use super::error::{Error, Violation};
use super::event::{Incoming, Message};
use super::{Client, Request, Server, State};
use crate::base::{Mono, Now, PacketId, QoS, ReasonCode, Version};
use crate::codec::{self, Ack, AckKind, ConnAck, Frame, Packet, Publish, RawPacket, Sender};
use std::num::{NonZeroU16, NonZeroU32};

impl Client {
    /// Bytes arrived; what happened waits in [`poll_event`](Self::poll_event). Bytes after the end of the connection are ignored.
    ///
    /// # Errors
    /// [`Error`]: the server broke a rule, and the connection is over.
    pub fn handle_bytes(&mut self, now: Now, bytes: &[u8]) -> Result<(), Error> {
        let mut events = std::mem::take(&mut self.events);
        let result =
            self.handle_bytes_with(now, bytes, &mut |incoming| events.push_back(incoming.to_event()));
        self.events = events;
        result
    }

    /// Bytes arrived; `visit` is told what happened, in order, without a copy being made.
    ///
    /// # Errors
    /// [`Error`]: the server broke a rule, and the connection is over.
    pub fn handle_bytes_with(
        &mut self,
        now: Now,
        bytes: &[u8],
        visit: &mut impl FnMut(Incoming<'_>),
    ) -> Result<(), Error> {
        if self.state == State::Disconnected {
            return Ok(());
        }
        let sent_before = self.out.len();
        let result = self.handle_input(bytes, visit);
        if self.out.len() > sent_before {
            self.last_sent = now.mono;
        }
        result.map_err(|error| self.fail(error))
    }

    fn handle_input(&mut self, mut bytes: &[u8], visit: &mut impl FnMut(Incoming<'_>)) -> Result<(), Error> {
        let packet_size_max = self.options.packet_size_max.map_or(u32::MAX, NonZeroU32::get);
        while !self.partial.is_empty() {
            let partial = std::mem::take(&mut self.partial);
            let missing = match codec::frame(&partial, packet_size_max)? {
                Frame::Complete(raw) => {
                    self.handle_packet(raw, visit)?;
                    break;
                }
                // Without its length one byte at a time, so that nothing of the next packet comes along.
                Frame::Incomplete { size } => size.map_or(1, |size| size - partial.len()),
            };
            self.partial = partial;
            let (head, rest) = bytes.split_at(missing.min(bytes.len()));
            self.partial.extend_from_slice(head);
            bytes = rest;
            if head.is_empty() {
                return Ok(());
            }
        }
        while self.state != State::Disconnected {
            match codec::frame(bytes, packet_size_max)? {
                Frame::Incomplete { .. } => {
                    self.partial.extend_from_slice(bytes);
                    break;
                }
                Frame::Complete(raw) => {
                    self.handle_packet(raw, visit)?;
                    bytes = &bytes[raw.size..];
                }
            }
        }
        Ok(())
    }

    fn handle_packet(
        &mut self,
        raw: RawPacket<'_>,
        visit: &mut impl FnMut(Incoming<'_>),
    ) -> Result<(), Error> {
        let packet = codec::decode(raw, self.options.version, Sender::Server)?;
        if self.state == State::Connected {
            return self.handle_connected(&packet, visit);
        }
        match (self.state, &packet) {
            (State::Connecting, Packet::ConnAck(connack)) => self.handle_connack(connack, visit),
            (State::Connecting, Packet::Auth(auth)) => {
                visit(Incoming::Auth(auth));
                Ok(())
            }
            (State::Disconnected, _) => Ok(()),
            // [MQTT-3.2.0-1]
            _ => Err(Violation::WrongOrder.into()),
        }
    }

    fn handle_connected(
        &mut self,
        packet: &Packet<'_>,
        visit: &mut impl FnMut(Incoming<'_>),
    ) -> Result<(), Error> {
        match packet {
            Packet::Publish(publish) => return self.handle_publish(publish, visit),
            Packet::PubAck(ack) => self.handle_final_ack(ack, AckKind::PubAck, visit)?,
            Packet::PubRec(ack) => self.handle_pubrec(ack, visit)?,
            Packet::PubRel(ack) => self.handle_pubrel(ack.packet_id, visit),
            Packet::PubComp(ack) => self.handle_final_ack(ack, AckKind::PubComp, visit)?,
            Packet::SubAck(suback) => {
                let codes = suback.codes().len();
                self.answer(suback.packet_id, true, codes)?;
                visit(Incoming::Subscribed(suback));
            }
            Packet::UnsubAck(unsuback) => {
                let codes = unsuback.codes().len();
                self.answer(unsuback.packet_id, false, codes)?;
                visit(Incoming::Unsubscribed(unsuback));
            }
            Packet::PingResp => {
                self.pong_deadline = Mono::NEVER;
                visit(Incoming::Pong);
            }
            Packet::Disconnect(disconnect) => {
                self.state = State::Disconnected;
                visit(Incoming::Disconnected { reason: disconnect.reason });
            }
            Packet::Auth(auth) => visit(Incoming::Auth(auth)),
            // [MQTT-3.2.0-2]
            Packet::ConnAck(_) => return Err(Violation::WrongOrder.into()),
            Packet::Connect(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::PingReq => {
                unreachable!("the codec refuses what servers do not send")
            }
        }
        Ok(())
    }

    fn handle_connack(
        &mut self,
        connack: &ConnAck<'_>,
        visit: &mut impl FnMut(Incoming<'_>),
    ) -> Result<(), Error> {
        if connack.reason.is_error() {
            self.state = State::Disconnected;
            visit(Incoming::Refused(connack));
            return Ok(());
        }
        if connack.session_present && self.clean_start {
            // [MQTT-3.2.2-2] [MQTT-3.2.2-4]
            return Err(Violation::SessionPresent.into());
        }
        self.state = State::Connected;
        self.server = Server::new(connack, &self.options, self.clean_start);
        if let Some(client_id) = connack.assigned_client_id {
            self.client_id = client_id.into();
        }
        // MQTT 3.1 does not say whether there was a session: it is taken for granted.
        let resumed = connack.session_present || (self.options.version == Version::V310 && !self.clean_start);
        if !resumed {
            // [MQTT-3.2.2-5]
            self.discard_session();
        }
        visit(Incoming::Connected(connack));
        self.resend();
        Ok(())
    }

    /// Sends again what was in flight, as far as the window allows.
    fn resend(&mut self) {
        let maximum = self.window_maximum();
        self.window.resend(maximum, self.options.version, &mut self.out);
    }

    fn handle_publish(
        &mut self,
        publish: &Publish<'_>,
        visit: &mut impl FnMut(Incoming<'_>),
    ) -> Result<(), Error> {
        let topic = match publish.topic_alias {
            None => publish.topic,
            Some(alias) => {
                let maximum = self.options.topic_alias_maximum;
                self.incoming_aliases.resolve(alias, publish.topic, maximum)?
            }
        };
        let duplicate = match (publish.qos, publish.packet_id) {
            (QoS::ExactlyOnce, Some(id)) => self.received.binary_search(&id).is_ok(),
            _ => false,
        };
        if publish.qos != QoS::AtMostOnce && !duplicate {
            self.unacknowledged = self.unacknowledged.saturating_add(1);
            if self.unacknowledged > self.options.receive_maximum.map_or(u16::MAX, NonZeroU16::get) {
                // [MQTT-3.3.4-9]
                return Err(Violation::ReceiveMaximum.into());
            }
        }
        if !duplicate {
            visit(Incoming::Message(Message {
                topic,
                payload: publish.payload,
                qos: publish.qos,
                retain: publish.retain,
                dup: publish.dup,
                packet_id: publish.packet_id,
                expiry: publish.expiry,
                subscription_ids: publish.subscription_ids,
                properties: publish.properties,
            }));
        }
        if let Some(packet_id) = publish.packet_id {
            self.acknowledge_publish(packet_id, publish.qos, duplicate);
        }
        Ok(())
    }

    /// Answers a QoS 1 or 2 PUBLISH, unless that is the application's.
    fn acknowledge_publish(&mut self, packet_id: PacketId, qos: QoS, duplicate: bool) {
        if self.options.manual_ack && !duplicate {
            return;
        }
        // [MQTT-3.3.4-1]
        let kind = if qos == QoS::ExactlyOnce {
            // [MQTT-4.3.3-10]
            self.remember(packet_id);
            AckKind::PubRec
        } else {
            self.unacknowledged = self.unacknowledged.saturating_sub(1);
            AckKind::PubAck
        };
        self.send_ack(kind, packet_id, ReasonCode::Success);
    }

    fn handle_pubrel(&mut self, packet_id: PacketId, visit: &mut impl FnMut(Incoming<'_>)) {
        let reason = match self.received.binary_search(&packet_id) {
            Ok(index) => {
                self.received.remove(index);
                self.unacknowledged = self.unacknowledged.saturating_sub(1);
                visit(Incoming::Released { packet_id });
                ReasonCode::Success
            }
            Err(_) => ReasonCode::PacketIdentifierNotFound,
        };
        if self.received.is_empty() {
            self.received = Vec::new();
        }
        // [MQTT-4.3.3-11]
        self.send_ack(AckKind::PubComp, packet_id, reason);
    }

    fn handle_pubrec(&mut self, ack: &Ack<'_>, visit: &mut impl FnMut(Incoming<'_>)) -> Result<(), Error> {
        let packet_id = ack.packet_id;
        match self.window.awaited(packet_id) {
            Some(AckKind::PubRec) if ack.reason.is_error() => {
                self.window.remove(packet_id);
                visit(Incoming::Acknowledged { packet_id, reason: ack.reason });
                self.resend();
            }
            Some(AckKind::PubRec) => {
                self.window.received(packet_id);
                visit(Incoming::Received { packet_id, reason: ack.reason });
                // [MQTT-4.3.3-4]
                self.send_ack(AckKind::PubRel, packet_id, ReasonCode::Success);
            }
            Some(AckKind::PubComp) => self.send_ack(AckKind::PubRel, packet_id, ReasonCode::Success),
            Some(_) => return Err(Violation::UnexpectedAck.into()),
            None => self.send_ack(AckKind::PubRel, packet_id, ReasonCode::PacketIdentifierNotFound),
        }
        Ok(())
    }

    /// PUBACK and PUBCOMP.
    fn handle_final_ack(
        &mut self,
        ack: &Ack<'_>,
        expected: AckKind,
        visit: &mut impl FnMut(Incoming<'_>),
    ) -> Result<(), Error> {
        let packet_id = ack.packet_id;
        let not_found = ack.reason == ReasonCode::PacketIdentifierNotFound;
        if self.window.awaited(packet_id) != Some(expected) {
            // The answer to PUBREL 0x92 is no surprise.
            return if not_found { Ok(()) } else { Err(Violation::UnexpectedAck.into()) };
        }
        self.window.remove(packet_id);
        visit(Incoming::Acknowledged { packet_id, reason: ack.reason });
        self.resend();
        Ok(())
    }

    fn send_ack(&mut self, kind: AckKind, packet_id: PacketId, reason: ReasonCode) {
        codec::encode_ack(kind, packet_id, reason, None, self.options.version, &mut self.out);
    }

    /// SUBACK or UNSUBACK came: its request is done.
    fn answer(&mut self, packet_id: PacketId, is_subscribe: bool, code_count: usize) -> Result<(), Error> {
        let fits = |request: &Request| {
            let counted = is_subscribe || self.options.version.is_v5();
            request.packet_id == packet_id
                && request.is_subscribe == is_subscribe
                && (!counted || request.filter_count as usize == code_count)
        };
        // [MQTT-3.8.4-2] [MQTT-3.8.4-6]
        let index = self.requests.iter().position(fits).ok_or(Violation::UnexpectedAnswer)?;
        self.requests.swap_remove(index);
        if self.requests.is_empty() {
            self.requests = Vec::new();
        }
        Ok(())
    }
}
