//! A broker with persistent sessions that can be killed and started, and forgets something when it is: each fault is one broken promise.
//!
//! It serves what `durable` needs and no more: exact filters and `+` at the end, QoS 1 and 2 both ways, retained messages, clean and
//! persistent sessions, all in memory that survives its "death". A thread serves each connection; one lock guards everything.

use quelea::base::{PacketId, QoS, ReasonCode, Version, topic};
use quelea::codec::{self, AckKind, ConnAck, Connect, Delivery, Frame, Packet, Publish, Sender};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What it does wrong when it is killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Forgets {
    Nothing,
    /// Each queue's first message.
    Message,
    /// That each queue's first message was queued already: it is there twice.
    Queued,
    /// Which of each queue's first two messages came first.
    Order,
    /// All retained messages.
    Retained,
    /// The last change of each retained message.
    RetainedChange,
    /// Subscriptions made since the session began.
    Subscribe,
    /// That subscriptions were taken back.
    Unsubscribe,
    /// Sessions.
    Sessions,
    /// To answer again.
    Everything,
}

/// A running broker; it ends with the process.
pub(crate) struct Forgetful {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    folder: PathBuf,
}

#[derive(Default)]
struct State {
    /// Counted at each death: connections of an earlier life change nothing.
    life: u64,
    injected: u64,
    sessions: BTreeMap<String, Session>,
    retained: BTreeMap<String, Vec<u8>>,
    retained_before: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone)]
struct Message {
    topic: String,
    payload: Vec<u8>,
    qos: QoS,
    retain: bool,
}

#[derive(Default)]
struct Session {
    version: Option<Version>,
    is_persistent: bool,
    subscriptions: BTreeMap<String, QoS>,
    taken_back: BTreeMap<String, QoS>,
    queue: VecDeque<Message>,
    /// With whether PUBREC came.
    in_flight: VecDeque<(PacketId, Message, bool)>,
    received: BTreeSet<PacketId>,
    next_id: u16,
    stream: Option<TcpStream>,
}

impl Forgetful {
    /// Listens on a port of the system's choice.
    pub(crate) fn start(forgets: Forgets) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let name = format!("forgetful-{}-{}", std::process::id(), address.port());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&folder).expect("a folder under target/ can be made");
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, orders) = (Arc::clone(&state), folder.clone());
        std::thread::spawn(move || live_and_die(&shared, forgets, address, listener, &orders));
        Self { address, state, folder }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often it forgot something.
    pub(crate) fn injected(&self) -> u64 {
        self.state.lock().expect("nobody panics with it").injected
    }

    /// Commands for the scenario: each returns when it is done.
    pub(crate) fn commands(&self) -> [String; 2] {
        ["kill", "start"].map(|order| {
            let path = self.folder.join(order);
            format!("touch {0}; while [ -e {0} ]; do sleep 0.01; done", path.display())
        })
    }
}

impl Drop for Forgetful {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn live_and_die(
    state: &Arc<Mutex<State>>,
    forgets: Forgets,
    address: SocketAddr,
    listener: TcpListener,
    orders: &Path,
) {
    listener.set_nonblocking(true).expect("a listener takes options");
    let mut listening = Some(listener);
    let is_ordered = |order: &str| orders.join(order).exists();
    let done = |order: &str| std::fs::remove_file(orders.join(order)).expect("the order was there");
    while orders.exists() {
        while let Some(Ok((stream, _))) = listening.as_ref().map(TcpListener::accept) {
            let state = Arc::clone(state);
            std::thread::spawn(move || Served::new(state, stream).serve());
        }
        if is_ordered("kill") {
            listening = None;
            state.lock().expect("nobody panics with it").die(forgets);
            done("kill");
        }
        if is_ordered("start") {
            if forgets != Forgets::Everything {
                let again = TcpListener::bind(address).expect("the port is still ours");
                again.set_nonblocking(true).expect("a listener takes options");
                listening = Some(again);
            }
            done("start");
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

impl State {
    fn die(&mut self, forgets: Forgets) {
        self.life += 1;
        let mut injected = 0;
        for session in self.sessions.values_mut() {
            if let Some(stream) = session.stream.take() {
                let _ = stream.shutdown(Shutdown::Both);
            }
            injected += u64::from(session.forget(forgets));
        }
        self.sessions.retain(|_, session| session.is_persistent);
        match forgets {
            Forgets::Sessions => {
                injected += self.sessions.len() as u64;
                self.sessions.clear();
            }
            Forgets::Retained => {
                injected += self.retained.len() as u64;
                self.retained.clear();
            }
            Forgets::RetainedChange => {
                injected += self.retained_before.len() as u64;
                self.retained.append(&mut self.retained_before);
            }
            _ => {}
        }
        self.injected += injected;
    }

    fn publish(&mut self, message: &Message) {
        if message.retain {
            let old = if message.payload.is_empty() {
                self.retained.remove(&message.topic)
            } else {
                self.retained.insert(message.topic.clone(), message.payload.clone())
            };
            if let Some(old) = old {
                self.retained_before.insert(message.topic.clone(), old);
            }
        }
        for session in self.sessions.values_mut() {
            let granted = session
                .subscriptions
                .iter()
                .filter(|(filter, _)| topic::matches(filter, &message.topic))
                .map(|(_, qos)| *qos)
                .max();
            if let Some(granted) = granted {
                let copy = Message { qos: message.qos.min(granted), retain: false, ..message.clone() };
                session.queue.push_back(copy);
                session.deliver();
            }
        }
    }
}

impl Session {
    /// Says whether there was something to forget.
    fn forget(&mut self, forgets: Forgets) -> bool {
        match forgets {
            Forgets::Message => self.queue.pop_front().is_some(),
            Forgets::Queued => {
                let first = self.queue.front().cloned();
                first.into_iter().inspect(|first| self.queue.push_front(first.clone())).count() > 0
            }
            Forgets::Order if self.queue.len() > 1 => {
                self.queue.swap(0, 1);
                true
            }
            Forgets::Subscribe => {
                let before = self.subscriptions.len();
                self.subscriptions.retain(|filter, _| !filter.contains("/c/"));
                before > self.subscriptions.len()
            }
            Forgets::Unsubscribe => {
                let count = self.taken_back.len();
                self.subscriptions.append(&mut self.taken_back);
                count > 0
            }
            _ => false,
        }
    }

    fn version(&self) -> Version {
        self.version.expect("it was connected")
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(stream) = &mut self.stream {
            let _ = stream.write_all(bytes);
        }
    }

    /// Sends what waits, as far as the window goes.
    fn deliver(&mut self) {
        while self.stream.is_some() && self.in_flight.len() < 50 {
            let Some(message) = self.queue.pop_front() else { return };
            self.next_id = self.next_id % 60_000 + 1;
            let id = PacketId::new(self.next_id).expect("it is not 0");
            self.send(id, &message, false);
            self.in_flight.push_back((id, message, false));
        }
    }

    fn send(&mut self, id: PacketId, message: &Message, dup: bool) {
        let mut out = Vec::new();
        let delivery = Delivery {
            dup,
            qos: message.qos,
            retain: message.retain,
            topic: &message.topic,
            topic_alias: None,
            packet_id: Some(id),
            expiry: None,
            subscription_ids: &[],
            properties: &[],
            payload: &message.payload,
        };
        delivery.encode(self.version(), &mut out);
        self.write(&out);
    }

    fn acknowledge(&mut self, kind: AckKind, id: PacketId) {
        let mut out = Vec::new();
        codec::encode_ack(kind, id, ReasonCode::Success, None, self.version(), &mut out);
        self.write(&out);
    }

    /// The connection is new: what was in flight goes again.
    fn resume(&mut self) {
        for (id, message, is_received) in std::mem::take(&mut self.in_flight) {
            if is_received {
                self.acknowledge(AckKind::PubRel, id);
            } else {
                self.send(id, &message, true);
            }
            self.in_flight.push_back((id, message, is_received));
        }
        self.deliver();
    }
}

/// One connection.
struct Served {
    state: Arc<Mutex<State>>,
    stream: TcpStream,
    life: u64,
    client_id: String,
    version: Version,
}

impl Served {
    fn new(state: Arc<Mutex<State>>, stream: TcpStream) -> Self {
        stream.set_nonblocking(false).expect("a socket takes options");
        stream.set_nodelay(true).expect("a socket takes options");
        let life = state.lock().expect("nobody panics with it").life;
        Self { state, stream, life, client_id: String::new(), version: Version::V311 }
    }

    fn serve(mut self) {
        let mut input = Vec::new();
        let mut chunk = [0; 65_536];
        while let Ok(len @ 1..) = self.stream.read(&mut chunk) {
            input.extend_from_slice(&chunk[..len]);
            let mut used = 0;
            while let Ok(Frame::Complete(raw)) = codec::frame(&input[used..], u32::MAX) {
                used += raw.size;
                let packet =
                    codec::decode(raw, self.version, Sender::Client).expect("the generator is correct");
                if !self.handle(&packet) {
                    return self.leave();
                }
            }
            input.drain(..used);
        }
        self.leave();
    }

    /// Says whether the connection goes on.
    fn handle(&mut self, packet: &Packet<'_>) -> bool {
        let shared = Arc::clone(&self.state);
        let mut state = shared.lock().expect("nobody panics with it");
        if state.life != self.life {
            return false;
        }
        if let Packet::Connect(connect) = packet {
            self.connect(&mut state, connect);
            return true;
        }
        if let Packet::Publish(publish) = packet {
            return self.publish(&mut state, publish);
        }
        let retained: Vec<(String, Vec<u8>)> = state.retained.clone().into_iter().collect();
        let Some(session) = state.sessions.get_mut(&self.client_id) else { return false };
        match packet {
            Packet::Subscribe(subscribe) => {
                let filter = subscribe.filters().next().expect("there is a filter");
                session.subscriptions.insert(filter.filter.to_owned(), filter.qos);
                session.taken_back.remove(filter.filter);
                let code = ReasonCode::from_byte(filter.qos.bits()).expect("granted QoS are reason codes");
                let mut out = Vec::new();
                codec::encode_suback(subscribe.packet_id, &[code], None, self.version, &mut out);
                session.write(&out);
                let matching = retained.into_iter().filter(|(name, _)| topic::matches(filter.filter, name));
                for (topic, payload) in matching {
                    session.queue.push_back(Message { topic, payload, qos: filter.qos, retain: true });
                }
                session.deliver();
            }
            Packet::Unsubscribe(unsubscribe) => {
                let filter = unsubscribe.filters().next().expect("there is a filter");
                if let Some(qos) = session.subscriptions.remove(filter) {
                    session.taken_back.insert(filter.to_owned(), qos);
                }
                let mut out = Vec::new();
                codec::encode_unsuback(unsubscribe.packet_id, &[ReasonCode::Success], self.version, &mut out);
                session.write(&out);
            }
            Packet::PubAck(ack) | Packet::PubComp(ack) => {
                session.in_flight.retain(|(id, ..)| *id != ack.packet_id);
                session.deliver();
            }
            Packet::PubRec(ack) => {
                let found = session.in_flight.iter_mut().find(|(id, ..)| *id == ack.packet_id);
                found.into_iter().for_each(|(_, _, is_received)| *is_received = true);
                session.acknowledge(AckKind::PubRel, ack.packet_id);
            }
            Packet::PubRel(ack) => {
                session.received.remove(&ack.packet_id);
                session.acknowledge(AckKind::PubComp, ack.packet_id);
            }
            Packet::PingReq => session.write(&[0xD0, 0]),
            Packet::Disconnect(_) => return false,
            other => panic!("the generator does not send {other:?}"),
        }
        true
    }

    fn connect(&mut self, state: &mut State, connect: &Connect<'_>) {
        self.version = connect.version;
        connect.client_id.clone_into(&mut self.client_id);
        if connect.clean_start {
            state.sessions.remove(&self.client_id);
        }
        let session_present = state.sessions.contains_key(&self.client_id);
        let session = state.sessions.entry(self.client_id.clone()).or_default();
        session.version = Some(connect.version);
        session.is_persistent =
            if connect.version.is_v5() { connect.session_expiry.is_some() } else { !connect.clean_start };
        session.stream = self.stream.try_clone().ok();
        let mut out = Vec::new();
        ConnAck::new(session_present, ReasonCode::Success).encode(self.version, &mut out);
        session.write(&out);
        session.resume();
    }

    fn publish(&self, state: &mut State, publish: &Publish<'_>) -> bool {
        let message = Message {
            topic: publish.topic.to_owned(),
            payload: publish.payload.to_vec(),
            qos: publish.qos,
            retain: publish.retain,
        };
        let id = publish.packet_id.expect("the scenario publishes with QoS 1 and 2");
        let Some(session) = state.sessions.get_mut(&self.client_id) else { return false };
        let is_new = publish.qos == QoS::AtLeastOnce || session.received.insert(id);
        if is_new {
            state.publish(&message);
        }
        let kind = if publish.qos == QoS::AtLeastOnce { AckKind::PubAck } else { AckKind::PubRec };
        let session = state.sessions.get_mut(&self.client_id).expect("it was there");
        session.acknowledge(kind, id);
        true
    }

    fn leave(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        let mut state = self.state.lock().expect("nobody panics with it");
        if state.life != self.life {
            return;
        }
        let Some(session) = state.sessions.get_mut(&self.client_id) else { return };
        session.stream = None;
        if !session.is_persistent {
            state.sessions.remove(&self.client_id);
        }
    }
}
