//! rumqttc in versions 3.1.1 and 5.0. A connection of it makes progress only while it is polled, so every wait polls.

use crate::DEADLINE;
use crate::client::{Client, Connect, EXPIRY_SECS, Family, Message};
use rumqttc::Outgoing;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// Messages larger than the library's own default are part of the tests.
const PACKET_SIZE_MAX: u32 = 1 << 20;

/// What differs in version 3.1.1.
mod v4_names {
    use super::{Connect, Message, PACKET_SIZE_MAX};
    pub(super) use rumqttc::{
        Client, Connection, ConnectionError, Event, LastWill, MqttOptions, Packet, Publish, QoS,
        SubscribeReasonCode,
    };

    pub(super) const LEVEL: u8 = 4;

    pub(super) fn set(options: &mut MqttOptions, connect: &Connect<'_>) {
        options.set_clean_session(!connect.is_persistent);
        options.set_max_packet_size(PACKET_SIZE_MAX as usize, PACKET_SIZE_MAX as usize);
    }

    pub(super) fn will(will: &Message, qos: QoS) -> LastWill {
        LastWill::new(&will.topic, will.payload.clone(), qos, will.retain)
    }

    pub(super) fn reason(_: &ConnectionError) -> Option<u8> {
        None
    }

    pub(super) fn alias(_: &Publish) -> Option<u16> {
        None
    }
}

/// What differs in version 5.0.
mod v5_names {
    use super::{Connect, EXPIRY_SECS, Message, PACKET_SIZE_MAX};
    use rumqttc::v5::StateError;
    pub(super) use rumqttc::v5::mqttbytes::QoS;
    pub(super) use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, Publish, SubscribeReasonCode};
    pub(super) use rumqttc::v5::{Client, Connection, ConnectionError, Event, MqttOptions};

    pub(super) const LEVEL: u8 = 5;

    pub(super) fn set(options: &mut MqttOptions, connect: &Connect<'_>) {
        options.set_clean_start(!connect.is_persistent);
        options.set_session_expiry_interval(connect.is_persistent.then_some(EXPIRY_SECS));
        options.set_max_packet_size(Some(PACKET_SIZE_MAX));
        // The broker then uses aliases on its way out.
        options.set_topic_alias_max(Some(8));
    }

    pub(super) fn will(will: &Message, qos: QoS) -> LastWill {
        LastWill::new(&will.topic, will.payload.clone(), qos, will.retain, None)
    }

    pub(super) fn reason(error: &ConnectionError) -> Option<u8> {
        match error {
            ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => {
                Some(*reason_code as u8)
            }
            _ => None,
        }
    }

    pub(super) fn alias(publish: &Publish) -> Option<u16> {
        publish.properties.as_ref().and_then(|properties| properties.topic_alias)
    }
}

/// The library has two copies of itself of one shape, one a version: `$family` is the client of the one `$names` names.
macro_rules! family {
    ($family:ident, $connected:ident, $names:ident) => {
        pub(crate) struct $family;

        impl Family for $family {
            fn connect(&self, broker: SocketAddr, connect: &Connect<'_>) -> Box<dyn Client> {
                Box::new($connected::new(broker, connect))
            }

            fn level(&self) -> u8 {
                $names::LEVEL
            }
        }

        struct $connected {
            client: $names::Client,
            connection: $names::Connection,
            session_present: bool,
            received: VecDeque<Message>,
            /// The library shows a PUBLISH before it has put the topic in the place of its alias.
            aliases: BTreeMap<u16, Vec<u8>>,
        }

        impl $connected {
            fn new(broker: SocketAddr, connect: &Connect<'_>) -> Self {
                let mut options =
                    $names::MqttOptions::new(connect.id, broker.ip().to_string(), broker.port());
                $names::set(&mut options, connect);
                if let Some(will) = &connect.will {
                    options.set_last_will($names::will(will, Self::qos(will.qos)));
                }
                let (client, connection) = $names::Client::new(options, 16);
                let mut new = Self {
                    client,
                    connection,
                    session_present: false,
                    received: VecDeque::new(),
                    aliases: BTreeMap::new(),
                };
                new.session_present = new.wait(|event| match event {
                    $names::Event::Incoming($names::Packet::ConnAck(ack)) => Some(ack.session_present),
                    _ => None,
                });
                new
            }

            fn qos(qos: u8) -> $names::QoS {
                match qos {
                    0 => $names::QoS::AtMostOnce,
                    1 => $names::QoS::AtLeastOnce,
                    _ => $names::QoS::ExactlyOnce,
                }
            }

            /// Polls until `found` finds something.
            fn wait<T>(&mut self, found: impl FnMut(&$names::Event) -> Option<T>) -> T {
                self.poll(found).unwrap_or_else(|error| panic!("the connection ended: {error}"))
            }

            /// The same, or how the connection ended; keeps the messages that arrive meanwhile.
            fn poll<T>(
                &mut self,
                mut found: impl FnMut(&$names::Event) -> Option<T>,
            ) -> Result<T, Box<$names::ConnectionError>> {
                loop {
                    let event = self.connection.recv_timeout(DEADLINE).expect("the broker answers")?;
                    if let $names::Event::Incoming($names::Packet::Publish(publish)) = &event {
                        let message = self.message(publish);
                        self.received.push_back(message);
                    }
                    if let Some(found) = found(&event) {
                        return Ok(found);
                    }
                }
            }
        }

        impl $connected {
            fn message(&mut self, publish: &$names::Publish) -> Message {
                let mut topic = Vec::from(publish.topic.clone());
                if let Some(alias) = $names::alias(publish) {
                    if topic.is_empty() {
                        topic.clone_from(&self.aliases[&alias]);
                    } else {
                        self.aliases.insert(alias, topic.clone());
                    }
                }
                Message {
                    topic: String::from_utf8(topic).expect("topics are UTF-8"),
                    qos: publish.qos as u8,
                    retain: publish.retain,
                    payload: publish.payload.to_vec(),
                }
            }
        }

        impl Client for $connected {
            fn session_present(&self) -> bool {
                self.session_present
            }

            fn subscribe(&mut self, filter: &str, qos: u8) -> u8 {
                self.client.subscribe(filter, Self::qos(qos)).expect("the queue of requests has room");
                self.wait(|event| match event {
                    $names::Event::Incoming($names::Packet::SubAck(ack)) => match ack.return_codes[..] {
                        [$names::SubscribeReasonCode::Success(qos)] => Some(qos as u8),
                        _ => panic!("not granted: {ack:?}"),
                    },
                    _ => None,
                })
            }

            fn unsubscribe(&mut self, filter: &str) {
                self.client.unsubscribe(filter).expect("the queue of requests has room");
                self.wait(|event| {
                    matches!(event, $names::Event::Incoming($names::Packet::UnsubAck(_))).then_some(())
                });
            }

            fn publish(&mut self, message: &Message) {
                let payload = message.payload.clone();
                self.client
                    .publish(&message.topic, Self::qos(message.qos), message.retain, payload)
                    .expect("the queue of requests has room");
                self.wait(|event| match event {
                    $names::Event::Outgoing(Outgoing::Publish(_)) if message.qos == 0 => Some(()),
                    $names::Event::Incoming($names::Packet::PubAck(_)) if message.qos == 1 => Some(()),
                    $names::Event::Incoming($names::Packet::PubComp(_)) if message.qos == 2 => Some(()),
                    _ => None,
                });
            }

            fn receive(&mut self) -> Message {
                if self.received.is_empty() {
                    self.wait(|event| {
                        matches!(event, $names::Event::Incoming($names::Packet::Publish(_))).then_some(())
                    });
                }
                self.received.pop_front().expect("one has just arrived")
            }

            fn disconnect(mut self: Box<Self>) {
                self.client.disconnect().expect("the queue of requests has room");
                self.wait(|event| {
                    matches!(event, $names::Event::Outgoing(Outgoing::Disconnect)).then_some(())
                });
            }

            fn kill(self: Box<Self>) {}

            fn wait_closed(mut self: Box<Self>) -> Option<u8> {
                let Err(error) = self.poll(|_| None::<()>) else { unreachable!("nothing is looked for") };
                $names::reason(&error)
            }
        }
    };
}

family!(V4, ConnectedV4, v4_names);
family!(V5, ConnectedV5, v5_names);
