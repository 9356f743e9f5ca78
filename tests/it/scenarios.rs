//! What clients do with a broker, written once, for every client family and number of shards.

use crate::client::{Client, Connect, Family, Message};
use std::net::SocketAddr;

/// One family against one broker. Every scenario uses topics and client identifiers of its own.
pub(crate) struct Stage<'a> {
    pub(crate) family: &'a dyn Family,
    pub(crate) broker: SocketAddr,
}

impl Stage<'_> {
    /// All scenarios.
    pub(crate) fn play_all(&self) {
        self.every_qos();
        self.json_from_a_home();
        self.retained();
        self.will();
        self.shared_subscription();
        self.resume();
        self.takeover();
        self.order();
    }

    fn connect(&self, connect: &Connect<'_>) -> Box<dyn Client> {
        self.family.connect(self.broker, connect)
    }

    fn clean(&self, id: &str) -> Box<dyn Client> {
        self.connect(&Connect::clean(id))
    }

    fn assert_session_present(&self, client: &dyn Client, expected: bool) {
        // The bit came with 3.1.1; before it was reserved.
        if self.family.level() >= 4 {
            assert_eq!(client.session_present(), expected, "session present");
        }
    }

    /// Each QoS of publishing against each of subscribing: the lower of both arrives.
    fn every_qos(&self) {
        let mut publisher = self.clean("qos-publisher");
        for subscribed in 0..=2 {
            let mut subscriber = self.clean(&format!("qos-subscriber-{subscribed}"));
            let filter = format!("qos/{subscribed}/+");
            assert_eq!(subscriber.subscribe(&filter, subscribed), subscribed, "granted");
            for published in 0..=2 {
                let topic = format!("qos/{subscribed}/{published}");
                for payload in [Vec::new(), b"small".to_vec(), vec![0xA5; 70_000]] {
                    let message = Message::new(&topic, published, payload);
                    publisher.publish(&message);
                    let expected = Message { qos: published.min(subscribed), ..message };
                    assert_eq!(
                        subscriber.receive(),
                        expected,
                        "published {published}, subscribed {subscribed}"
                    );
                }
            }
            subscriber.unsubscribe(&filter);
            subscriber.subscribe(&format!("qos/{subscribed}/marker/only"), 1);
            publisher.publish(&Message::new(&format!("qos/{subscribed}/1"), 1, "not any more"));
            let marker = Message::new(&format!("qos/{subscribed}/marker/only"), 1, "marker");
            publisher.publish(&marker);
            assert_eq!(subscriber.receive(), marker, "nothing after UNSUBACK");
            subscriber.disconnect();
        }
        publisher.disconnect();
    }

    fn json_from_a_home(&self) {
        let mut subscriber = self.clean("home-subscriber");
        subscriber.subscribe("myhome/livingroom/#", 1);
        let mut publisher = self.clean("home-publisher");
        let json = r#"{"sensor": "sensor1", "celsius": 21.5, "at": "2026-01-01T00:00:00Z"}"#;
        let message = Message::new("myhome/livingroom/temperature/sensor1", 1, json);
        publisher.publish(&message);
        assert_eq!(subscriber.receive(), message);
        // `#` matches its parent level as well.
        let parent = Message::new("myhome/livingroom", 0, "{}");
        publisher.publish(&parent);
        assert_eq!(subscriber.receive(), parent);
    }

    fn retained(&self) {
        let mut publisher = self.clean("retained-publisher");
        let kept = Message::new("retained/a/b", 1, "kept").retained();
        publisher.publish(&Message::new("retained/a/b", 1, "old").retained());
        publisher.publish(&kept);
        publisher.publish(&Message::new("retained/a/c", 1, "gone").retained());
        publisher.publish(&Message::new("retained/a/c", 1, "").retained());
        let live = Message::new("retained/a/live", 1, "live");
        for filter in ["retained/a/b", "retained/+/b", "retained/#"] {
            let mut subscriber = self.clean("retained-subscriber");
            subscriber.subscribe(filter, 1);
            subscriber.subscribe("retained/a/live", 1);
            assert_eq!(subscriber.receive(), kept, "{filter}");
            publisher.publish(&live);
            assert_eq!(
                subscriber.receive(),
                live,
                "{filter}: only the last of each topic, and none that was cleared"
            );
            subscriber.disconnect();
        }
        publisher.publish(&Message::new("retained/a/b", 1, "").retained());
    }

    fn will(&self) {
        let mut subscriber = self.clean("will-subscriber");
        subscriber.subscribe("will/#", 2);
        for qos in 0..=2 {
            let will = Message::new("will/killed", qos, "gone without a word");
            let connect = Connect { will: Some(will.clone()), ..Connect::clean("will-owner") };
            self.connect(&connect).kill();
            assert_eq!(subscriber.receive(), will);
            let silent =
                Connect { will: Some(Message::new("will/left", qos, "no")), ..Connect::clean("will-owner") };
            self.connect(&silent).disconnect();
            let mut marker = self.clean("will-marker");
            marker.publish(&Message::new("will/marker", 1, "marker"));
            assert_eq!(subscriber.receive().topic, "will/marker", "no will after DISCONNECT");
            marker.disconnect();
        }
    }

    fn shared_subscription(&self) {
        const COUNT_EACH: usize = 5;
        let mut members = [self.clean("shared-1"), self.clean("shared-2")];
        for member in &mut members {
            member.subscribe("$share/group/shared/+", 1);
        }
        let mut publisher = self.clean("shared-publisher");
        for number in 0..2 * COUNT_EACH {
            publisher.publish(&Message::new("shared/x", 1, number.to_string()));
        }
        let mut received: Vec<Vec<u8>> = Vec::new();
        for member in &mut members {
            received.extend((0..COUNT_EACH).map(|_| member.receive().payload));
            member.subscribe("shared-marker", 1);
        }
        received.sort();
        let expected: Vec<Vec<u8>> =
            (0..2 * COUNT_EACH).map(|number| number.to_string().into_bytes()).collect();
        assert_eq!(received, expected, "every message to one member, half of them to each");
        publisher.publish(&Message::new("shared-marker", 1, ""));
        for member in &mut members {
            assert_eq!(member.receive().topic, "shared-marker");
        }
    }

    fn resume(&self) {
        let mut subscriber = self.connect(&Connect::persistent("resume-subscriber"));
        self.assert_session_present(&*subscriber, false);
        subscriber.subscribe("resume/#", 2);
        subscriber.disconnect();
        let mut publisher = self.clean("resume-publisher");
        let messages = [1, 2].map(|qos| Message::new(&format!("resume/{qos}"), qos, "while you were away"));
        messages.iter().for_each(|message| publisher.publish(message));
        let mut subscriber = self.connect(&Connect::persistent("resume-subscriber"));
        self.assert_session_present(&*subscriber, true);
        for message in &messages {
            assert_eq!(subscriber.receive(), *message);
        }
        // The subscription is still there.
        publisher.publish(&messages[0]);
        assert_eq!(subscriber.receive(), messages[0]);
        subscriber.disconnect();
        let clean = self.clean("resume-subscriber");
        self.assert_session_present(&*clean, false);
        clean.disconnect();
        let persistent = self.connect(&Connect::persistent("resume-subscriber"));
        // The clean start has ended the session, and left none.
        self.assert_session_present(&*persistent, false);
        persistent.disconnect();
    }

    fn takeover(&self) {
        let old = self.clean("takeover");
        let mut new = self.clean("takeover");
        assert_eq!(old.wait_closed(), self.family.shown_reason(0x8E), "session taken over");
        new.subscribe("takeover", 1);
        let message = Message::new("takeover", 1, "the new one works");
        new.publish(&message);
        assert_eq!(new.receive(), message);
    }

    /// One publisher's messages on one topic arrive in the order they were published.
    fn order(&self) {
        let mut subscribers: Vec<Box<dyn Client>> =
            (0..4).map(|n| self.clean(&format!("order-{n}"))).collect();
        for subscriber in &mut subscribers {
            subscriber.subscribe("order/x", 2);
        }
        let mut publisher = self.clean("order-publisher");
        let messages: Vec<Message> =
            (0_u8..60).map(|number| Message::new("order/x", number / 20, number.to_string())).collect();
        messages.iter().for_each(|message| publisher.publish(message));
        for subscriber in &mut subscribers {
            for message in &messages {
                assert_eq!(subscriber.receive(), *message);
            }
        }
    }
}
