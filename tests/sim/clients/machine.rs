//! A strict MQTT client over the codec: it keeps a session's QoS state over reconnects, and every packet of the broker that
//! a conforming server would not have sent is an error.
//!
//! It is not `quelea::client` (see `library.rs`): it shares nothing but the codec with the broker's side, and checks what an ordinary client
//! would let pass (windows, packet identifiers in use, DUP, acknowledgement order, sizes).

use quelea::base::{PacketId, QoS, ReasonCode, Version};
use quelea::codec::{self, Ack, AckKind, ConnAck, Delivery, Frame, Packet, Publish, Sender, SubscribeFilter};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::{NonZeroU16, NonZeroU32};

/// What a conforming broker would not have done.
pub(crate) type Misbehaviour = String;

/// A message to be published.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// The oracle's name for it.
    pub(crate) tag: usize,
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) expiry: Option<u32>,
    /// Encoded; MQTT 5 only.
    pub(crate) properties: Vec<u8>,
}

#[derive(Debug)]
struct Unsettled {
    packet_id: u16,
    message: Outgoing,
    /// PUBREC has come: PUBREL is what is sent again.
    released: bool,
    sent_ever: bool,
    /// On this connection.
    sent_now: bool,
    /// Its PUBLISH was sent on this connection: it counts against the broker's Receive Maximum.
    counts: bool,
}

/// A message that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    pub(crate) ids: Vec<u32>,
    pub(crate) expiry: Option<u32>,
    /// Encoded.
    pub(crate) properties: Vec<u8>,
}

/// What the application sees.
#[derive(Debug)]
pub(crate) enum Happening {
    Connected {
        session_present: bool,
    },
    Refused(ReasonCode),
    Message(Incoming),
    /// A PUBLISH of this tag was written.
    Sent {
        tag: usize,
    },
    /// PUBACK, or PUBREC.
    Acked {
        tag: usize,
        reason: ReasonCode,
    },
    Subscribed {
        tag: usize,
        codes: Vec<ReasonCode>,
    },
    Unsubscribed {
        tag: usize,
    },
    Goodbye(ReasonCode),
}

/// What the client announced in CONNECT.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) receive_maximum: u16,
    pub(crate) topic_alias_maximum: u16,
    pub(crate) packet_size_max: usize,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Machine {
    version: Version,
    limits: Limits,
    /// Written, to be sent.
    out: Vec<u8>,
    input: Vec<u8>,
    is_connected: bool,
    is_over: bool,
    /// CONNACK has come, [`begin`](Self::begin) has not been called.
    is_beginning: bool,
    /// No delivery can have been made before: DUP has no place.
    is_fresh: bool,
    next_id: u16,
    /// The broker's disk may have lost which identifiers are in use.
    pub(crate) is_forgiving: bool,
    /// Identifiers are used again as soon as they are free: for QoS 2 the one that was freed last.
    pub(crate) reuses_ids: bool,
    freed: Vec<u16>,
    unsettled: VecDeque<Unsettled>,
    requests: BTreeMap<u16, Request>,
    /// QoS 2 deliveries that were not released: their next PUBLISH is a repetition.
    received: BTreeSet<u16>,
    /// Deliveries of this connection the broker may still count as in flight.
    unacknowledged: BTreeSet<u16>,
    held: VecDeque<(AckKind, u16)>,
    /// One delivery in so many is refused; 0 is none.
    pub(crate) refuse_every: u32,
    deliveries: u32,
    /// Acknowledgements wait for [`release`](Self::release).
    pub(crate) is_lazy: bool,
    server_receive_maximum: usize,
    server_aliases: u16,
    aliases_out: BTreeMap<String, u16>,
    aliases_in: BTreeMap<u16, String>,
    happenings: Vec<Happening>,
}

#[derive(Debug)]
enum Request {
    Subscribe { tag: usize, count: usize },
    Unsubscribe { tag: usize, count: usize },
}

impl Machine {
    pub(crate) fn new(version: Version) -> Self {
        Self {
            version,
            limits: Limits { receive_maximum: u16::MAX, topic_alias_maximum: 0, packet_size_max: usize::MAX },
            out: Vec::new(),
            input: Vec::new(),
            is_connected: false,
            is_over: false,
            is_beginning: false,
            is_fresh: true,
            next_id: 0,
            is_forgiving: false,
            reuses_ids: false,
            freed: Vec::new(),
            unsettled: VecDeque::new(),
            requests: BTreeMap::new(),
            received: BTreeSet::new(),
            unacknowledged: BTreeSet::new(),
            held: VecDeque::new(),
            refuse_every: 0,
            deliveries: 0,
            is_lazy: false,
            server_receive_maximum: usize::from(u16::MAX),
            server_aliases: 0,
            aliases_out: BTreeMap::new(),
            aliases_in: BTreeMap::new(),
            happenings: Vec::new(),
        }
    }

    /// A new connection: CONNECT is written first.
    pub(crate) fn connect(&mut self, connect: &codec::Connect<'_>, limits: Limits) {
        self.limits = limits;
        self.out.clear();
        self.input.clear();
        self.is_connected = false;
        self.is_over = false;
        self.is_beginning = false;
        self.requests.clear();
        self.unacknowledged.clear();
        self.held.clear();
        self.aliases_in.clear();
        self.aliases_out.clear();
        for unsettled in &mut self.unsettled {
            unsettled.sent_now = false;
            unsettled.counts = false;
        }
        connect.encode(&mut self.out);
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.is_connected && !self.is_over
    }

    /// Messages that are not acknowledged to the end.
    pub(crate) fn unsettled_count(&self) -> usize {
        self.unsettled.len()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.unsettled.is_empty() && self.requests.is_empty() && self.held.is_empty()
    }

    /// What is not settled.
    pub(crate) fn describe(&self) -> String {
        let unsettled = self.unsettled.iter().map(|u| (u.packet_id, u.sent_now, u.released)).take(5);
        format!("{:?} {:?} {:?}", unsettled.collect::<Vec<_>>(), self.requests, self.held)
    }

    /// What was written, to be sent.
    pub(crate) fn take_out(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// What happened since the last call.
    pub(crate) fn take_happenings(&mut self) -> Vec<Happening> {
        std::mem::take(&mut self.happenings)
    }

    pub(crate) fn publish(&mut self, message: Outgoing) {
        assert!(self.is_connected(), "publishing needs a connection");
        if message.qos == QoS::AtMostOnce {
            self.happenings.push(Happening::Sent { tag: message.tag });
            self.write_publish(&message, None, false);
            return;
        }
        let again = if message.qos == QoS::ExactlyOnce { self.freed.pop() } else { None };
        let packet_id = again.filter(|id| !self.is_in_use(*id)).unwrap_or_else(|| self.free_id());
        self.unsettled.push_back(Unsettled {
            packet_id,
            message,
            released: false,
            sent_ever: false,
            sent_now: false,
            counts: false,
        });
        self.pump();
    }

    pub(crate) fn subscribe(&mut self, tag: usize, filters: &[SubscribeFilter<'_>], id: Option<u32>) {
        let packet_id = self.free_id();
        self.requests.insert(packet_id, Request::Subscribe { tag, count: filters.len() });
        let id = id.and_then(NonZeroU32::new).filter(|_| self.version.is_v5());
        codec::encode_subscribe(wire(packet_id), id, filters, self.version, &mut self.out);
    }

    pub(crate) fn unsubscribe(&mut self, tag: usize, filters: &[&str]) {
        let packet_id = self.free_id();
        self.requests.insert(packet_id, Request::Unsubscribe { tag, count: filters.len() });
        codec::encode_unsubscribe(wire(packet_id), filters, self.version, &mut self.out);
    }

    pub(crate) fn ping(&mut self) {
        codec::encode_pingreq(&mut self.out);
    }

    /// DISCONNECT; nothing follows.
    pub(crate) fn disconnect(&mut self, reason: ReasonCode, session_expiry: Option<u32>) {
        let mut packet = codec::Disconnect::new(reason);
        packet.session_expiry = session_expiry;
        packet.encode(self.version, &mut self.out);
        self.is_over = true;
    }

    /// Writes up to `count` of the acknowledgements that were held back, in order.
    pub(crate) fn release(&mut self, count: usize) {
        for _ in 0..count {
            let Some((kind, packet_id)) = self.held.pop_front() else { return };
            self.deliveries += 1;
            let refuses = self.refuse_every > 0 && self.deliveries.is_multiple_of(self.refuse_every);
            if kind == AckKind::PubAck || refuses {
                self.unacknowledged.remove(&packet_id);
            }
            if refuses && kind == AckKind::PubRec {
                self.received.remove(&packet_id);
            }
            let reason = if refuses { ReasonCode::ImplementationSpecificError } else { ReasonCode::Success };
            codec::encode_ack(kind, wire(packet_id), reason, None, self.version, &mut self.out);
        }
    }

    /// Bytes of the broker.
    pub(crate) fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), Misbehaviour> {
        let mut input = std::mem::take(&mut self.input);
        input.extend_from_slice(bytes);
        let mut rest = &input[..];
        // What is behind CONNACK waits until it is known which session this is.
        while !self.is_beginning {
            match codec::frame(rest, u32::MAX).map_err(|e| format!("broken frame: {e}"))? {
                Frame::Complete(raw) => {
                    let size = raw.size;
                    if self.is_over {
                        return Err("a packet behind DISCONNECT or a refusing CONNACK".into());
                    }
                    if size > self.limits.packet_size_max {
                        return Err(format!("a packet of {size} bytes"));
                    }
                    let packet = codec::decode(raw, self.version, Sender::Server)
                        .map_err(|e| format!("broken packet: {e}"))?;
                    self.handle(&packet)?;
                    rest = &rest[size..];
                }
                Frame::Incomplete { .. } => break,
            }
        }
        self.input = rest.to_vec();
        Ok(())
    }

    fn handle(&mut self, packet: &Packet<'_>) -> Result<(), Misbehaviour> {
        if let Packet::ConnAck(answer) = packet {
            return self.on_connack(answer);
        }
        if !self.is_connected {
            return Err(format!("before CONNACK: {packet:?}"));
        }
        match packet {
            Packet::Publish(publish) => return self.on_publish(publish),
            Packet::PubAck(ack) => return self.on_ack(QoS::AtLeastOnce, ack),
            Packet::PubRec(ack) => return self.on_ack(QoS::ExactlyOnce, ack),
            Packet::PubRel(ack) => self.on_pubrel(ack),
            Packet::PubComp(ack) => return self.on_pubcomp(ack),
            Packet::SubAck(answer) => return self.on_suback(answer.packet_id, answer.codes().collect()),
            Packet::UnsubAck(answer) => return self.on_unsuback(answer.packet_id, answer.codes().len()),
            Packet::PingResp => {}
            Packet::Disconnect(disconnect) => {
                self.is_over = true;
                self.happenings.push(Happening::Goodbye(disconnect.reason));
            }
            other => return Err(format!("not for a client: {other:?}")),
        }
        Ok(())
    }

    fn on_connack(&mut self, answer: &ConnAck<'_>) -> Result<(), Misbehaviour> {
        if self.is_connected {
            return Err("CONNACK twice".into());
        }
        if answer.reason != ReasonCode::Success {
            if answer.session_present {
                return Err("[MQTT-3.2.2-6] a refusal with session present".into());
            }
            self.is_over = true;
            self.happenings.push(Happening::Refused(answer.reason));
            return Ok(());
        }
        self.is_connected = true;
        self.is_beginning = true;
        self.server_receive_maximum = usize::from(answer.receive_maximum.map_or(u16::MAX, NonZeroU16::get));
        self.server_aliases = answer.topic_alias_maximum.unwrap_or(0);
        self.happenings.push(Happening::Connected { session_present: answer.session_present });
        Ok(())
    }

    /// After CONNACK: `keeps` says whether both sides have the session of before. Gives what is lost if not; the packets
    /// behind CONNACK are next.
    pub(crate) fn begin(&mut self, keeps: bool) -> Vec<usize> {
        let mut lost = Vec::new();
        self.is_beginning = false;
        self.is_fresh = !keeps;
        if !keeps {
            lost.extend(self.unsettled.drain(..).map(|unsettled| unsettled.message.tag));
            self.received.clear();
        }
        self.pump();
        lost
    }

    /// The session may be another than the one of before: identifiers may be used anew.
    pub(crate) fn forget_received(&mut self) {
        self.received.clear();
    }

    fn on_publish(&mut self, publish: &Publish<'_>) -> Result<(), Misbehaviour> {
        let topic = self.resolve(publish)?;
        if let Some(packet_id) = publish.packet_id {
            let id = packet_id.value();
            if publish.dup && self.is_fresh {
                return Err(format!("DUP in a new session, packet {id}"));
            }
            if !self.unacknowledged.insert(id) {
                return Err(format!("packet id {id} is in use"));
            }
            let maximum = self.limits.receive_maximum;
            if self.unacknowledged.len() > usize::from(maximum) {
                return Err(format!("[MQTT-3.3.4-9] more than {maximum} in flight"));
            }
            let mut repeated = publish.qos == QoS::ExactlyOnce && !self.received.insert(id);
            if repeated && !publish.dup && self.is_forgiving {
                repeated = false;
            }
            if repeated && !publish.dup {
                return Err(format!("[MQTT-3.3.1-1] packet {id} again without DUP"));
            }
            let kind = if publish.qos == QoS::AtLeastOnce { AckKind::PubAck } else { AckKind::PubRec };
            self.held.push_back((kind, id));
            if !self.is_lazy {
                self.release(usize::MAX);
            }
            if repeated {
                return Ok(());
            }
        }
        self.happenings.push(Happening::Message(Incoming {
            topic,
            payload: publish.payload.to_vec(),
            qos: publish.qos,
            retain: publish.retain,
            dup: publish.dup,
            properties: publish.properties.forward(&mut Vec::new()).to_vec(),
            ids: publish.subscription_ids.iter().map(NonZeroU32::get).collect(),
            expiry: publish.expiry,
        }));
        Ok(())
    }

    fn resolve(&mut self, publish: &Publish<'_>) -> Result<String, Misbehaviour> {
        let Some(alias) = publish.topic_alias.map(NonZeroU16::get) else {
            return Ok(publish.topic.to_string());
        };
        if alias > self.limits.topic_alias_maximum {
            return Err(format!("[MQTT-3.1.2-26] topic alias {alias}"));
        }
        if publish.topic.is_empty() {
            return self
                .aliases_in
                .get(&alias)
                .cloned()
                .ok_or_else(|| format!("topic alias {alias} is not defined"));
        }
        self.aliases_in.insert(alias, publish.topic.to_string());
        Ok(publish.topic.to_string())
    }

    fn on_ack(&mut self, qos: QoS, ack: &Ack<'_>) -> Result<(), Misbehaviour> {
        let id = ack.packet_id.value();
        // In the order of the PUBLISH packets, for each QoS.
        let next = self.unsettled.iter().position(|u| u.sent_now && !u.released && u.message.qos == qos);
        let Some(index) = next.filter(|index| self.unsettled[*index].packet_id == id) else {
            return Err(format!("[MQTT-4.6.0-2] {qos:?} acknowledgement of {id} out of order"));
        };
        let tag = self.unsettled[index].message.tag;
        self.happenings.push(Happening::Acked { tag, reason: ack.reason });
        if qos == QoS::AtLeastOnce || ack.reason.is_error() {
            self.unsettled.remove(index);
        } else {
            self.unsettled[index].released = true;
            self.write_ack(AckKind::PubRel, id);
        }
        self.pump();
        Ok(())
    }

    fn on_pubcomp(&mut self, ack: &Ack<'_>) -> Result<(), Misbehaviour> {
        let id = ack.packet_id.value();
        let Some(index) = self.unsettled.iter().position(|u| u.packet_id == id && u.released) else {
            return Err(format!("PUBCOMP {id} of nothing"));
        };
        self.unsettled.remove(index);
        if self.reuses_ids {
            self.freed.push(id);
        }
        self.pump();
        Ok(())
    }

    /// The broker releases a delivery; after a resume also one that is settled here already.
    fn on_pubrel(&mut self, ack: &Ack<'_>) {
        let id = ack.packet_id.value();
        self.received.remove(&id);
        self.unacknowledged.remove(&id);
        self.write_ack(AckKind::PubComp, id);
    }

    fn on_suback(&mut self, packet_id: PacketId, codes: Vec<ReasonCode>) -> Result<(), Misbehaviour> {
        match self.requests.remove(&packet_id.value()) {
            Some(Request::Subscribe { tag, count }) if count == codes.len() => {
                self.happenings.push(Happening::Subscribed { tag, codes });
                Ok(())
            }
            other => Err(format!("[MQTT-3.8.4-2] SUBACK {packet_id} {codes:?} for {other:?}")),
        }
    }

    fn on_unsuback(&mut self, packet_id: PacketId, codes: usize) -> Result<(), Misbehaviour> {
        match self.requests.remove(&packet_id.value()) {
            Some(Request::Unsubscribe { tag, count }) if count == codes || !self.version.is_v5() => {
                self.happenings.push(Happening::Unsubscribed { tag });
                Ok(())
            }
            other => Err(format!("[MQTT-3.10.4-4] UNSUBACK {packet_id} for {other:?}")),
        }
    }

    /// Writes what the broker's Receive Maximum lets through, in order.
    fn pump(&mut self) {
        if !self.is_connected() {
            return;
        }
        let maximum = self.server_receive_maximum;
        loop {
            // PUBREL of an earlier connection does not count (section 4.9).
            let in_flight = self.unsettled.iter().filter(|u| u.counts).count();
            let Some(index) = self.unsettled.iter().position(|u| !u.sent_now) else { return };
            let next = &mut self.unsettled[index];
            if next.released {
                next.sent_now = true;
                let id = next.packet_id;
                self.write_ack(AckKind::PubRel, id);
                continue;
            }
            if in_flight >= maximum {
                return;
            }
            next.sent_now = true;
            next.counts = true;
            let dup = std::mem::replace(&mut next.sent_ever, true);
            let (id, message) = (next.packet_id, next.message.clone());
            self.happenings.push(Happening::Sent { tag: message.tag });
            self.write_publish(&message, Some(id), dup);
        }
    }

    fn write_publish(&mut self, message: &Outgoing, packet_id: Option<u16>, dup: bool) {
        let mut delivery = Delivery {
            dup,
            qos: message.qos,
            retain: message.retain,
            topic: &message.topic,
            topic_alias: None,
            packet_id: packet_id.map(wire),
            expiry: message.expiry,
            subscription_ids: &[],
            properties: &message.properties,
            payload: &message.payload,
        };
        if self.version.is_v5() {
            if let Some(alias) = self.aliases_out.get(&message.topic) {
                delivery.topic_alias = NonZeroU16::new(*alias);
                delivery.topic = "";
            } else if self.aliases_out.len() < usize::from(self.server_aliases) {
                let alias = u16::try_from(self.aliases_out.len() + 1).expect("at most the maximum");
                self.aliases_out.insert(message.topic.clone(), alias);
                delivery.topic_alias = NonZeroU16::new(alias);
            }
        }
        delivery.encode(self.version, &mut self.out);
    }

    fn write_ack(&mut self, kind: AckKind, packet_id: u16) {
        codec::encode_ack(kind, wire(packet_id), ReasonCode::Success, None, self.version, &mut self.out);
    }

    fn free_id(&mut self) -> u16 {
        if self.reuses_ids {
            self.next_id = 0;
        }
        loop {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            let id = self.next_id;
            if !self.is_in_use(id) && !self.freed.contains(&id) {
                return id;
            }
        }
    }

    fn is_in_use(&self, id: u16) -> bool {
        self.requests.contains_key(&id) || self.unsettled.iter().any(|u| u.packet_id == id)
    }
}

fn wire(packet_id: u16) -> PacketId {
    PacketId::new(packet_id).expect("identifiers count from 1")
}
