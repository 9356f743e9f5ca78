//! A client over `quelea::client`: the machine others use (load generator, tools), under the same faults and the same oracle
//! as the strict one of `machine.rs`.
//!
//! The oracle knows messages by tags, the library by packet identifiers; this keeps the two together, and what did not fit into
//! the window yet.

use super::machine::{Happening, Incoming, Limits, Misbehaviour, Outgoing};
use quelea::base::{Mono, Now, PacketId, QoS, ReasonCode, Wall};
use quelea::client::{Client, Event, Options, OwnedMessage, Publication};
use quelea::codec::{self, SubscribeFilter};
use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;

/// One client.
#[derive(Debug)]
pub(crate) struct Library {
    /// Made at the first CONNECT; the options stay.
    client: Option<Client>,
    now: Now,
    /// By packet identifier: tag, and whether PUBREC has come.
    in_flight: BTreeMap<PacketId, InFlight>,
    waiting: VecDeque<Outgoing>,
    /// Tags of SUBSCRIBE and UNSUBSCRIBE.
    requests: BTreeMap<PacketId, usize>,
    /// What a new session has lost.
    lost: Vec<usize>,
    happenings: Vec<Happening>,
}

#[derive(Debug)]
struct InFlight {
    tag: usize,
    was_received: bool,
}

impl Library {
    pub(crate) fn new() -> Self {
        Self {
            client: None,
            now: Now { mono: Mono(0), wall: Wall(0) },
            in_flight: BTreeMap::new(),
            waiting: VecDeque::new(),
            requests: BTreeMap::new(),
            lost: Vec::new(),
            happenings: Vec::new(),
        }
    }

    pub(crate) fn set_now(&mut self, now: Now) {
        self.now = now;
    }

    pub(crate) fn connect(&mut self, connect: &codec::Connect<'_>, limits: Limits) {
        let client = self.client.get_or_insert_with(|| {
            let mut options = Options::new(connect.version);
            options.keep_alive_secs = connect.keep_alive;
            options.session_expiry = connect.session_expiry;
            options.receive_maximum = connect.receive_maximum;
            options.packet_size_max = connect.packet_size_max;
            options.topic_alias_maximum = limits.topic_alias_maximum;
            options.use_topic_aliases = true;
            Client::new(options, connect.client_id)
        });
        client.handle_disconnected();
        client.connect_with(self.now, connect.clean_start);
        self.requests.clear();
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.client.as_ref().is_some_and(Client::is_connected)
    }

    pub(crate) fn unsettled_count(&self) -> usize {
        self.in_flight.len() + self.waiting.len()
    }

    pub(crate) fn is_idle(&self) -> bool {
        let in_flight = self.client.as_ref().map_or(0, |client| client.in_flight().count());
        self.unsettled_count() + in_flight == 0 && self.requests.is_empty()
    }

    pub(crate) fn describe(&self) -> String {
        format!("{:?} {} {:?}", self.in_flight, self.waiting.len(), self.requests)
    }

    pub(crate) fn take_out(&mut self) -> Vec<u8> {
        self.client.as_mut().map(Client::take_out).unwrap_or_default()
    }

    pub(crate) fn take_happenings(&mut self) -> Vec<Happening> {
        std::mem::take(&mut self.happenings)
    }

    pub(crate) fn publish(&mut self, message: Outgoing) {
        self.waiting.push_back(message);
        self.pump();
    }

    /// Publishes what the window lets through, in order.
    fn pump(&mut self) {
        let Some(client) = self.client.as_mut().filter(|client| client.is_connected()) else { return };
        while let Some(message) = self.waiting.front() {
            if message.qos > QoS::AtMostOnce && !client.can_publish() {
                return;
            }
            let mut publication = Publication::new(&message.topic, &message.payload, message.qos);
            (publication.retain, publication.expiry) = (message.retain, message.expiry);
            publication.properties = &message.properties;
            let packet_id =
                client.publish(self.now, &publication).expect("connected, and the window has room");
            let tag = message.tag;
            self.happenings.push(Happening::Sent { tag });
            if let Some(packet_id) = packet_id {
                self.in_flight.insert(packet_id, InFlight { tag, was_received: false });
            }
            self.waiting.pop_front();
        }
    }

    fn connected(&mut self) -> &mut Client {
        self.client.as_mut().expect("requests need a connection")
    }

    pub(crate) fn subscribe(&mut self, tag: usize, filters: &[SubscribeFilter<'_>], id: Option<u32>) {
        let (now, id) = (self.now, id.and_then(NonZeroU32::new));
        let packet_id = self.connected().subscribe(now, filters, id).expect("connected");
        self.requests.insert(packet_id, tag);
    }

    pub(crate) fn unsubscribe(&mut self, tag: usize, filters: &[&str]) {
        let now = self.now;
        let packet_id = self.connected().unsubscribe(now, filters).expect("connected");
        self.requests.insert(packet_id, tag);
    }

    pub(crate) fn ping(&mut self) {
        let now = self.now;
        self.connected().ping(now).expect("connected");
    }

    pub(crate) fn disconnect(&mut self, reason: ReasonCode, session_expiry: Option<u32>) {
        let mut packet = codec::Disconnect::new(reason);
        packet.session_expiry = session_expiry;
        self.connected().disconnect_with(&packet);
    }

    pub(crate) fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), Misbehaviour> {
        let now = self.now;
        let Some(client) = &mut self.client else { return Ok(()) };
        client.handle_bytes(now, bytes).map_err(|error| error.to_string())?;
        while let Some(event) = self.client.as_mut().and_then(Client::poll_event) {
            self.on_event(event)?;
        }
        self.pump();
        Ok(())
    }

    /// What is lost if the session is a new one.
    pub(crate) fn begin(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.lost)
    }

    fn on_event(&mut self, event: Event) -> Result<(), Misbehaviour> {
        match event {
            Event::Connected { session_present } => self.on_connected(session_present),
            Event::Refused { reason } => self.happenings.push(Happening::Refused(reason)),
            Event::Message(message) => self.happenings.push(Happening::Message(incoming(message))),
            Event::Received { packet_id, reason } => {
                let known = self.in_flight.get_mut(&packet_id);
                let known = known.ok_or_else(|| format!("PUBREC {packet_id} of nothing"))?;
                if !std::mem::replace(&mut known.was_received, true) {
                    let tag = known.tag;
                    self.happenings.push(Happening::Acked { tag, reason });
                }
            }
            Event::Acknowledged { packet_id, reason } => {
                let known = self.in_flight.remove(&packet_id);
                let known = known.ok_or_else(|| format!("acknowledgement {packet_id} of nothing"))?;
                if !known.was_received {
                    self.happenings.push(Happening::Acked { tag: known.tag, reason });
                }
            }
            Event::Subscribed { packet_id, codes } => {
                let tag = self.requests.remove(&packet_id).ok_or("SUBACK of nothing")?;
                self.happenings.push(Happening::Subscribed { tag, codes });
            }
            Event::Unsubscribed { packet_id, .. } => {
                let tag = self.requests.remove(&packet_id).ok_or("UNSUBACK of nothing")?;
                self.happenings.push(Happening::Unsubscribed { tag });
            }
            Event::Disconnected { reason } => self.happenings.push(Happening::Goodbye(reason)),
            Event::Released { .. } | Event::Pong => {}
            Event::Auth { .. } => return Err("AUTH out of the blue".into()),
        }
        Ok(())
    }

    /// The library has sent again what was in flight, or forgotten it with the session.
    fn on_connected(&mut self, session_present: bool) {
        self.happenings.push(Happening::Connected { session_present });
        let client = self.client.as_ref().expect("it connected");
        let kept: Vec<PacketId> = client.in_flight().collect();
        let (kept, lost): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.in_flight).into_iter().partition(|(id, _)| kept.contains(id));
        self.lost.extend(lost.into_values().map(|lost| lost.tag));
        for known in kept.values().filter(|known| !known.was_received) {
            self.happenings.push(Happening::Sent { tag: known.tag });
        }
        self.in_flight = kept;
    }
}

fn incoming(message: OwnedMessage) -> Incoming {
    Incoming {
        topic: message.topic.into(),
        payload: message.payload.into(),
        qos: message.qos,
        retain: message.retain,
        dup: message.dup,
        properties: message.properties.into(),
        ids: message.subscription_ids.into(),
        expiry: message.expiry,
    }
}
