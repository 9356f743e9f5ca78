//! The store against a map, with changes between the batches of a scan; limits, expiry, and what scans cost.

use super::*;
use crate::base::{MessageHead, MessageRef, QoS};
use proptest::prelude::*;
use std::collections::BTreeMap;

const KEY: HashKey = HashKey { k0: 11, k1: 12 };
const V0: VhostId = VhostId(0);
const NOW: Wall = Wall(1000);

fn message(vhost: u16, topic: &str, payload: &str, expires_at: Wall) -> Arc<Message> {
    let head = MessageHead {
        vhost: VhostId(vhost),
        qos: QoS::AtMostOnce,
        retain: true,
        expires_at,
        publisher: None,
    };
    MessageRef { head, topic, properties: b"pp", payload: payload.as_bytes() }.to_shared()
}

fn set(store: &mut Retained, topic: &str, payload: &str) -> SetOutcome {
    store.set(message(0, topic, payload, Wall::NEVER), &Limits::default()).unwrap()
}

fn texts(messages: &[Arc<Message>]) -> Vec<String> {
    messages.iter().map(|message| Message::as_ref(message).topic.to_owned()).collect()
}

/// All matches of a filter and how many steps finding them took.
fn scan(store: &mut Retained, filter: &str) -> (Vec<String>, usize) {
    let (mut cursor, mut out, mut steps) = (Cursor::default(), Vec::new(), 1);
    while !store.scan(V0, filter, &mut cursor, 1, NOW, &mut out) {
        steps += 1;
    }
    (texts(&out), steps)
}

#[test]
fn set_replace_clear() {
    let mut store = Retained::new(KEY);
    let empty = store.memory();
    assert_eq!(set(&mut store, "a", "1"), SetOutcome::Added);
    assert_eq!(set(&mut store, "a", "22"), SetOutcome::Replaced);
    assert_eq!(store.get(V0, "a", NOW).unwrap().payload(), b"22");
    assert_eq!((store.len(V0), store.bytes(V0), store.len(VhostId(1))), (1, 5, 0));
    assert_eq!(store.get(VhostId(1), "a", NOW), None);
    assert_eq!(set(&mut store, "a", ""), SetOutcome::Cleared);
    assert_eq!(set(&mut store, "a", ""), SetOutcome::Absent);
    assert_eq!(store.clear(V0, "a"), None);
    set(&mut store, "b", "x");
    assert_eq!(store.clear(V0, "b").unwrap().payload(), b"x");
    assert_eq!((store.total_len(), store.bytes(V0), store.message_bytes), (0, 0, 0));
    assert!(store.memory() - empty <= 4 * size_of::<Vhost>());
}

#[test]
fn limits_hold_for_each_virtual_host() {
    let mut store = Retained::new(KEY);
    let limits = Limits { messages_max: Some(2), bytes_max: Some(20) };
    let mut try_set = |vhost, topic: &str, payload: &str| {
        store.set(message(vhost, topic, payload, Wall::NEVER), &limits).map(|_| store.bytes(VhostId(vhost)))
    };
    assert_eq!(try_set(0, "a", "1234567"), Ok(10));
    assert_eq!(try_set(0, "b", "12345678"), Err(RetainedFull));
    assert_eq!(try_set(0, "b", "1234567"), Ok(20));
    assert_eq!(try_set(0, "b", "12345678"), Err(RetainedFull));
    assert_eq!(try_set(0, "b", "1"), Ok(14));
    assert_eq!(try_set(0, "c", "1"), Err(RetainedFull));
    assert_eq!(try_set(1, "c", "1"), Ok(4));
    assert_eq!(try_set(0, "a", ""), Ok(4));
    assert_eq!(try_set(0, "c", "1"), Ok(8));
    let none = Limits { messages_max: Some(0), bytes_max: Some(0) };
    assert_eq!(store.set(message(0, "b", "2", Wall::NEVER), &none), Ok(SetOutcome::Replaced));
    assert_eq!(store.set(message(0, "b", "22", Wall::NEVER), &none), Err(RetainedFull));
    assert_eq!(store.get(V0, "b", NOW).unwrap().payload(), b"2");
}

#[test]
fn expired_messages_are_not_returned_and_go() {
    let mut store = Retained::new(KEY);
    for n in 0..300u64 {
        let expires_at = match n % 3 {
            0 => Wall::NEVER,
            1 => NOW,
            _ => Wall(NOW.0 + 1),
        };
        store.set(message(0, &format!("t/{n}"), "x", expires_at), &Limits::default()).unwrap();
    }
    assert!(store.get(V0, "t/1", NOW).is_none() && store.get(V0, "t/2", NOW).is_some());
    assert_eq!(store.expire(Wall(0), 1000), 0);
    assert_eq!(store.total_len(), 300);
    assert_eq!(scan(&mut store, "t/#").0.len(), 200);
    assert_eq!(store.total_len(), 200);
    let removed: usize = (0..30).map(|_| store.expire(Wall(NOW.0 + 1), 10)).sum();
    assert_eq!((removed, store.total_len(), store.expiring_count), (100, 100, 0));
    assert_eq!(store.expire(Wall(u64::MAX - 1), 1000), 0);
}

#[test]
fn scans_leap_over_what_cannot_match() {
    let mut store = Retained::new(KEY);
    for n in 0..20_000 {
        set(&mut store, &format!("{}/{n}/{}", ["a", "b", "$SYS"][n % 3], ["c", "d"][n % 2]), "x");
    }
    for n in 0..5 {
        set(&mut store, &format!("k/{n}/c/x"), "x");
        set(&mut store, &format!("k/{n}/e"), "x");
    }
    for (filter, matches, steps_max) in [
        ("k/+/c/#", 5, 25),
        ("k/#", 10, 12),
        ("k/3/#", 2, 4),
        ("k/+/e", 5, 25),
        ("x/+/c/#", 0, 1),
        ("+/3/c/x", 1, 15),
        ("k/3/e", 1, 1),
        ("$SYS/+/c", 3333, 10_100),
        ("#", 13_344, 13_400),
        ("+/+/+", 13_339, 13_400),
    ] {
        let (found, steps) = scan(&mut store, filter);
        assert!(found.iter().all(|name| topic::matches(filter, name)));
        assert_eq!(found.len(), matches, "{filter}");
        assert!(steps <= steps_max, "{filter} took {steps} steps");
    }
}

#[test]
fn a_topic_costs_little_besides_its_message() {
    let mut store = Retained::new(KEY);
    for n in 0..50_000u32 {
        let n = n.wrapping_mul(0x9e37_79b1);
        set(&mut store, &format!("devices/{n:010}"), "x");
    }
    let overhead = (store.memory() - store.message_bytes) / 50_000;
    assert!(overhead <= 36, "{overhead} B");
}

#[derive(Clone, Debug)]
enum Operation {
    Set { vhost: u16, topic: usize, expires: bool },
    Clear { vhost: u16, topic: usize },
    Scan { budget: usize },
    Expire { budget: usize },
}

const TOPICS: [&str; 16] = [
    "a", "a/b", "a/b/c", "a/c", "a/c/c", "a/", "b", "b/b", "b/c/c", "/", "/b", "$x", "$x/b", "a!", "a!/b",
    "a/b!",
];
const FILTERS: [&str; 12] =
    ["#", "+", "a/#", "+/b", "a/+/c", "a/+/#", "+/+/#", "$x/#", "a/b/+", "/+", "a/b", "+/c/#"];

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (0..2u16, 0..TOPICS.len(), prop::bool::weighted(0.2))
            .prop_map(|(vhost, topic, expires)| Operation::Set { vhost, topic, expires }),
        2 => (0..2u16, 0..TOPICS.len()).prop_map(|(vhost, topic)| Operation::Clear { vhost, topic }),
        3 => (0..4usize).prop_map(|budget| Operation::Scan { budget }),
        1 => (0..20usize).prop_map(|budget| Operation::Expire { budget }),
    ]
}

/// A running scan of virtual host 0, and the topics that have been retained and unexpired since it began.
struct Running {
    filter: &'static str,
    cursor: Cursor,
    all_the_while: Vec<&'static str>,
    found: Vec<Arc<Message>>,
}

type Model = BTreeMap<(u16, &'static str), Arc<Message>>;

impl Running {
    fn start(filter: &'static str, model: &Model) -> Self {
        let live = model.iter().filter(|((vhost, _), message)| *vhost == 0 && !is_expired(message, NOW));
        let all_the_while = live.map(|((_, topic), _)| *topic).collect();
        Self { filter, cursor: Cursor::default(), all_the_while, found: Vec::new() }
    }

    /// A batch; `true` when the scan is finished and everything about it was right.
    fn advance(&mut self, store: &mut Retained, model: &Model, budget: usize) -> bool {
        let before = self.found.len();
        let finished = store.scan(V0, self.filter, &mut self.cursor, budget, NOW, &mut self.found);
        assert!(self.found.len() - before <= budget.max(1));
        for message in &self.found[before..] {
            let current = model.get(&(0, Message::as_ref(message).topic));
            assert!(current.is_some_and(|current| Arc::ptr_eq(current, message)), "the message it has then");
            assert!(!is_expired(message, NOW));
        }
        if !finished {
            return false;
        }
        let mut found = texts(&self.found);
        found.sort_unstable();
        let count = found.len();
        found.dedup();
        assert_eq!(found.len(), count, "no topic twice");
        assert!(found.iter().all(|name| topic::matches(self.filter, name)));
        for expected in self.all_the_while.iter().filter(|name| topic::matches(self.filter, name)) {
            assert!(found.iter().any(|name| name == expected), "{expected} was there all the while");
        }
        true
    }
}

proptest! {
    #[test]
    fn behaves_as_a_map_under_a_scan(
        operations in prop::collection::vec(operation(), 0..200),
        filters in prop::collection::vec(prop::sample::select(&FILTERS[..]), 1..20),
    ) {
        let mut store = Retained::new(KEY);
        let mut model = Model::new();
        let mut filters = filters.into_iter().cycle();
        let mut running = Running::start(filters.next().unwrap(), &model);
        for operation in operations {
            match operation {
                Operation::Set { vhost, topic, expires } => {
                    let message = message(vhost, TOPICS[topic], "x", if expires { NOW } else { Wall::NEVER });
                    // The store may have dropped an expired one already.
                    let had = store.find(VhostId(vhost), TOPICS[topic].as_bytes()).is_some();
                    let outcome = if had { SetOutcome::Replaced } else { SetOutcome::Added };
                    prop_assert_eq!(store.set(message.clone(), &Limits::default()), Ok(outcome));
                    model.insert((vhost, TOPICS[topic]), message);
                    running.all_the_while.retain(|name| vhost != 0 || *name != TOPICS[topic] || !expires);
                }
                Operation::Clear { vhost, topic } => {
                    let cleared = store.clear(VhostId(vhost), TOPICS[topic]);
                    let known = model.remove(&(vhost, TOPICS[topic]));
                    prop_assert!(cleared == known || known.is_some_and(|known| is_expired(&known, NOW)));
                    running.all_the_while.retain(|name| vhost != 0 || *name != TOPICS[topic]);
                }
                Operation::Scan { budget } => {
                    if running.advance(&mut store, &model, budget) {
                        running = Running::start(filters.next().unwrap(), &model);
                    }
                }
                Operation::Expire { budget } => {
                    prop_assert!(store.expire(NOW, budget) <= budget);
                }
            }
            for ((vhost, topic), message) in &model {
                let expected = Some(message).filter(|message| !is_expired(message, NOW));
                prop_assert_eq!(store.get(VhostId(*vhost), topic, NOW), expected);
            }
        }
        while !running.advance(&mut store, &model, 3) {}
        for (vhost, topic) in model.into_keys() {
            store.clear(VhostId(vhost), topic);
        }
        prop_assert_eq!((store.total_len(), store.table.len(), store.message_bytes, store.expiring_count), (0, 0, 0, 0));
        prop_assert!((0..2).all(|vhost| store.len(VhostId(vhost)) == 0 && store.bytes(VhostId(vhost)) == 0));
    }
}
