//! A broker that breaks its promises on demand, and counts how often it did.
//!
//! It serves what the scenarios need and no more: CONNECT, SUBSCRIBE (one filter, `+` at the end at most), PUBLISH with QoS 0 to 2 both
//! ways, PINGREQ, DISCONNECT. A thread serves each connection; deliveries are written by the publisher's thread.

use quelea::base::{PacketId, QoS, ReasonCode, Version, topic};
use quelea::codec::{self, Ack, AckKind, ConnAck, Delivery, Frame, Packet, Publish, Sender};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What it does wrong. Faults of messages come at every tenth publish of each connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    None,
    /// The message is delivered to nobody, and acknowledged.
    Lose,
    /// It is delivered twice.
    Duplicate,
    /// It is delivered after the next one.
    Swap,
    /// A bit of its filler is changed.
    CorruptFiller,
    /// A bit of its numbers is changed.
    CorruptHead,
    /// It lacks its last byte.
    Shorten,
    /// It comes under another topic.
    Misroute,
    /// It comes with RETAIN.
    Retain,
    /// It comes with QoS 0.
    Downgrade,
    /// It is delivered, and never acknowledged.
    Unacknowledged,
    /// It is refused (MQTT 5), and delivered to nobody.
    Refuse,
    /// It is acknowledged after the next one.
    SwapAcks,
    /// It is acknowledged twice.
    AcknowledgeTwice,
    /// It is acknowledged by the packet of another QoS.
    WrongAck,
    /// CONNACK says no.
    NotAuthorized,
    /// Nothing is ever answered.
    Silent,
    /// The connection is reset at once.
    Reset,
    /// CONNECT is answered with something that is no MQTT.
    Garbage,
    /// SUBSCRIBE is refused.
    NoSubscriptions,
    /// PINGREQ is not answered.
    NoPong,
    /// All connections and the listener are closed after 100 publishes.
    DieMidway,
}

/// One in so many publishes is wronged.
const EVERY: u64 = 10;

/// A running broker; it ends with the process.
pub(crate) struct Faulty {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    fault: Fault,
    /// How often it happened.
    injected: AtomicU64,
    publishes: AtomicU64,
    dead: AtomicBool,
    subscriptions: Mutex<Vec<Subscription>>,
    connections: Mutex<Vec<TcpStream>>,
}

#[derive(Clone)]
struct Subscription {
    filter: String,
    qos: QoS,
    version: Version,
    stream: Arc<Mutex<TcpStream>>,
    next_id: Arc<Mutex<PacketId>>,
}

/// A message to be delivered.
#[derive(Clone)]
struct Message {
    topic: String,
    payload: Vec<u8>,
    qos: QoS,
    retain: bool,
}

impl Faulty {
    /// Listens on a port of the system's choice.
    pub(crate) fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let state = Arc::new(State {
            fault,
            injected: AtomicU64::new(0),
            publishes: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            subscriptions: Mutex::default(),
            connections: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.dead.load(Ordering::SeqCst) {
                    return;
                }
                if shared.fault == Fault::DieMidway {
                    shared.connections.lock().expect("nobody panics with it").extend(stream.try_clone());
                }
                let state = Arc::clone(&shared);
                std::thread::spawn(move || Session::new(state, stream).serve());
            }
        });
        Self { address, state }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often the fault happened.
    pub(crate) fn injected(&self) -> u64 {
        self.state.injected.load(Ordering::SeqCst)
    }
}

/// One connection.
struct Session {
    state: Arc<State>,
    version: Version,
    reader: TcpStream,
    stream: Arc<Mutex<TcpStream>>,
    /// Publishes of this connection.
    count: u64,
    /// Delivered, or acknowledged, after the next one.
    held: Option<Message>,
    held_ack: Option<PacketId>,
}

impl Session {
    fn new(state: Arc<State>, stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket takes options");
        let reader = stream.try_clone().expect("a socket can be cloned");
        Self {
            state,
            version: Version::V311,
            reader,
            stream: Arc::new(Mutex::new(stream)),
            count: 0,
            held: None,
            held_ack: None,
        }
    }

    fn serve(&mut self) {
        if self.state.fault == Fault::Reset {
            let stream = self.stream.lock().expect("nobody panics with it");
            socket_reset(&stream);
            return;
        }
        let mut input = Vec::new();
        let mut chunk = [0; 65_536];
        while let Ok(len @ 1..) = self.reader.read(&mut chunk) {
            input.extend_from_slice(&chunk[..len]);
            let mut used = 0;
            while let Ok(Frame::Complete(raw)) = codec::frame(&input[used..], u32::MAX) {
                used += raw.size;
                let packet =
                    codec::decode(raw, self.version, Sender::Client).expect("the generator is correct");
                if !self.handle(&packet) {
                    let _ = self.reader.shutdown(Shutdown::Both);
                    return;
                }
            }
            input.drain(..used);
        }
    }

    /// Says whether the connection goes on.
    fn handle(&mut self, packet: &Packet<'_>) -> bool {
        let fault = self.state.fault;
        match packet {
            _ if fault == Fault::Silent => {}
            Packet::Connect(connect) => {
                self.version = connect.version;
                return self.greet();
            }
            Packet::Subscribe(subscribe) => {
                let filter = subscribe.filters().next().expect("there is a filter");
                self.subscribe(subscribe.packet_id, filter.filter, filter.qos);
            }
            Packet::Publish(publish) => return self.publish(publish),
            Packet::PubRel(ack) => self.acknowledge(AckKind::PubComp, ack.packet_id, ReasonCode::Success),
            Packet::PubRec(ack) => self.acknowledge(AckKind::PubRel, ack.packet_id, ReasonCode::Success),
            Packet::PingReq if fault == Fault::NoPong => {
                self.state.injected.fetch_add(1, Ordering::SeqCst);
            }
            Packet::PingReq => self.write(&[0xD0, 0]),
            Packet::Disconnect(_) => return false,
            Packet::PubAck(Ack { .. }) | Packet::PubComp(Ack { .. }) => {}
            other => panic!("the generator does not send {other:?}"),
        }
        true
    }

    fn greet(&self) -> bool {
        let mut out = Vec::new();
        let reason = match self.state.fault {
            Fault::Garbage => {
                self.write(b"HTTP/1.1 400 Bad Request\r\n\r\n");
                return true;
            }
            Fault::NotAuthorized => ReasonCode::NotAuthorized,
            _ => ReasonCode::Success,
        };
        ConnAck::new(false, reason).encode(self.version, &mut out);
        self.write(&out);
        reason == ReasonCode::Success
    }

    fn subscribe(&self, packet_id: PacketId, filter: &str, qos: QoS) {
        let code = match self.state.fault {
            Fault::NoSubscriptions => ReasonCode::UnspecifiedError,
            _ => ReasonCode::from_byte(qos.bits()).expect("granted QoS are reason codes"),
        };
        self.state.subscriptions.lock().expect("nobody panics with it").push(Subscription {
            filter: filter.to_owned(),
            qos,
            version: self.version,
            stream: Arc::clone(&self.stream),
            next_id: Arc::new(Mutex::new(PacketId::FIRST)),
        });
        let mut out = Vec::new();
        codec::encode_suback(packet_id, &[code], None, self.version, &mut out);
        self.write(&out);
    }

    fn publish(&mut self, publish: &Publish<'_>) -> bool {
        self.count += 1;
        let message = Message {
            topic: publish.topic.to_owned(),
            payload: publish.payload.to_vec(),
            qos: publish.qos,
            retain: false,
        };
        let wronged = self.count % EVERY == EVERY / 2;
        if self.state.fault == Fault::DieMidway && self.state.publishes.fetch_add(1, Ordering::SeqCst) >= 100
        {
            self.state.dead.store(true, Ordering::SeqCst);
            for connection in self.state.connections.lock().expect("nobody panics with it").iter() {
                let _ = connection.shutdown(Shutdown::Both);
            }
            return false;
        }
        if wronged && is_of_delivery(self.state.fault) {
            self.state.injected.fetch_add(1, Ordering::SeqCst);
            self.deliver_wrong(message);
        } else {
            self.deliver(&message);
            if let Some(held) = self.held.take() {
                self.deliver(&held);
            }
        }
        if let Some(packet_id) = publish.packet_id {
            self.answer(packet_id, publish.qos, wronged);
        }
        true
    }

    fn deliver_wrong(&mut self, mut message: Message) {
        match self.state.fault {
            Fault::Lose | Fault::Refuse => return,
            Fault::Swap => {
                self.held = Some(message);
                return;
            }
            Fault::Duplicate => self.deliver(&message),
            Fault::CorruptFiller => *message.payload.last_mut().expect("payloads are not empty") ^= 0x10,
            Fault::CorruptHead => message.payload[9] ^= 0x01,
            Fault::Shorten => drop(message.payload.pop()),
            Fault::Retain => message.retain = true,
            Fault::Downgrade => message.qos = QoS::AtMostOnce,
            Fault::Misroute => {
                let elsewhere = Message { topic: format!("{}0", message.topic), ..message.clone() };
                return self.deliver_under(&message.topic, &elsewhere);
            }
            _ => {}
        }
        self.deliver(&message);
    }

    fn deliver(&self, message: &Message) {
        self.deliver_under(&message.topic, message);
    }

    /// To those who subscribed to `topic`.
    fn deliver_under(&self, topic: &str, message: &Message) {
        let subscriptions = self.state.subscriptions.lock().expect("nobody panics with it").clone();
        for subscription in subscriptions.iter().filter(|other| topic::matches(&other.filter, topic)) {
            let qos = message.qos.min(subscription.qos);
            let mut out = Vec::new();
            let mut stream = subscription.stream.lock().expect("nobody panics with it");
            let mut next_id = subscription.next_id.lock().expect("nobody panics with it");
            let delivery = Delivery {
                dup: false,
                qos,
                retain: message.retain,
                topic: &message.topic,
                topic_alias: None,
                packet_id: (qos != QoS::AtMostOnce).then_some(*next_id),
                expiry: None,
                subscription_ids: &[],
                properties: &[],
                payload: &message.payload,
            };
            *next_id = next_id.next();
            delivery.encode(subscription.version, &mut out);
            let _ = stream.write_all(&out);
        }
    }

    fn answer(&mut self, packet_id: PacketId, qos: QoS, wronged: bool) {
        let kind = if qos == QoS::AtLeastOnce { AckKind::PubAck } else { AckKind::PubRec };
        let injected = wronged && is_of_acknowledgement(self.state.fault);
        self.state.injected.fetch_add(u64::from(injected), Ordering::SeqCst);
        match self.state.fault {
            Fault::Unacknowledged if wronged => return,
            Fault::Refuse if wronged => return self.acknowledge(kind, packet_id, ReasonCode::QuotaExceeded),
            Fault::SwapAcks if wronged => {
                self.held_ack = Some(packet_id);
                return;
            }
            Fault::AcknowledgeTwice if wronged => self.acknowledge(kind, packet_id, ReasonCode::Success),
            Fault::WrongAck if wronged => {
                return self.acknowledge(AckKind::PubComp, packet_id, ReasonCode::Success);
            }
            _ => {}
        }
        self.acknowledge(kind, packet_id, ReasonCode::Success);
        if let Some(held) = self.held_ack.take() {
            self.acknowledge(kind, held, ReasonCode::Success);
        }
    }

    fn acknowledge(&self, kind: AckKind, packet_id: PacketId, reason: ReasonCode) {
        let mut out = Vec::new();
        codec::encode_ack(kind, packet_id, reason, None, self.version, &mut out);
        self.write(&out);
    }

    fn write(&self, bytes: &[u8]) {
        let _ = self.stream.lock().expect("nobody panics with it").write_all(bytes);
    }
}

fn is_of_delivery(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::Lose
            | Fault::Duplicate
            | Fault::Swap
            | Fault::CorruptFiller
            | Fault::CorruptHead
            | Fault::Shorten
            | Fault::Misroute
            | Fault::Retain
            | Fault::Downgrade
            | Fault::Refuse
    )
}

fn is_of_acknowledgement(fault: Fault) -> bool {
    matches!(fault, Fault::Unacknowledged | Fault::SwapAcks | Fault::AcknowledgeTwice | Fault::WrongAck)
}

/// Closes so that the other side sees a reset: bytes are left unread.
fn socket_reset(stream: &TcpStream) {
    let mut first = [0];
    // CONNECT has arrived, and most of it is never read.
    let _ = stream.peek(&mut first);
    let _ = (&*stream).read_exact(&mut first);
}
