//! The trie against a linear scan written from the specification, and its sizes.

use super::*;
use crate::base::QoS;
use crate::route::slots::Slot;
use proptest::prelude::*;
use std::collections::BTreeMap;

const KEY: HashKey = HashKey { k0: 3, k1: 4 };
const V0: VhostId = VhostId(0);
const DEFAULT: SubscriptionOptions = SubscriptionOptions {
    qos: QoS::AtMostOnce,
    no_local: false,
    retain_as_published: false,
    subscription_id: 0,
    durable: false,
};

fn matching(trie: &Trie, vhost: VhostId, topic: &str) -> Vec<FilterId> {
    let mut out = Vec::new();
    trie.matches(vhost, topic, trie.topic_hash(vhost, topic), &mut out);
    out.sort_unstable();
    out
}

#[test]
fn growth_is_a_decision() {
    assert_eq!((size_of::<FilterSlot>(), size_of::<Slot<FilterSlot>>()), (64, 64));
    assert_eq!((size_of::<List>(), size_of::<Slot<List>>()), (40, 40));
    assert_eq!(size_of::<SlotEntry>(), 8);
}

#[test]
fn a_subscription_of_its_own_costs_less_than_100_bytes() {
    let mut trie = Trie::new(KEY);
    for n in 0..100_000u32 {
        trie.insert(V0, &format!("devices/{n:08}/commands/all"), Subscriber(n), DEFAULT);
    }
    let bytes = trie.memory() / 100_000;
    assert!(bytes <= 76, "{bytes} B");
}

#[test]
fn one_hundred_thousand_subscribers_of_one_filter_come_and_go() {
    let mut trie = Trie::new(KEY);
    let empty = trie.memory();
    for n in 0..100_000 {
        trie.insert(V0, "all", Subscriber(n), DEFAULT);
    }
    let filter = trie.find(V0, "all").unwrap();
    assert_eq!(trie.subscriptions(filter).len(), 100_000);
    assert!(trie.memory() < 100_000 * 21);
    for n in 0..100_000 {
        let removed = trie.remove(filter, Subscriber(n)).unwrap();
        assert_eq!(removed.change.any, (n == 99_999).then_some(false));
        assert_eq!(removed.filter.as_deref(), (n == 99_999).then_some("all"));
    }
    assert_eq!((trie.memory(), trie.list_bytes, trie.text_bytes), (empty, 0, 0));
}

#[test]
fn changes_tell_the_edges() {
    let durable = SubscriptionOptions { durable: true, ..DEFAULT };
    let change = |any, durable| Change { any, durable };
    for filter in ["a/b", "a/+"] {
        let mut trie = Trie::new(KEY);
        let first = trie.insert(V0, filter, Subscriber(1), DEFAULT);
        assert_eq!(first.change, change(Some(true), None));
        let id = first.filter;
        assert_eq!(trie.insert(V0, filter, Subscriber(2), durable).change, change(None, Some(true)));
        let again = trie.insert(V0, filter, Subscriber(2), DEFAULT);
        assert_eq!((again.replaced, again.change), (Some(durable), change(None, Some(false))));
        assert_eq!(trie.set_durable(id, Subscriber(1), true), change(None, Some(true)));
        assert_eq!(trie.set_durable(id, Subscriber(2), true), change(None, None));
        assert_eq!(trie.set_durable(id, Subscriber(3), true), change(None, None));
        let generation = trie.generation();
        assert_eq!(trie.remove(id, Subscriber(3)), None);
        assert_eq!(trie.generation(), generation);
        assert_eq!(trie.remove(id, Subscriber(2)).unwrap().change, change(None, None));
        let last = trie.remove(id, Subscriber(1)).unwrap();
        assert_eq!((last.change, last.filter.as_deref()), (change(Some(false), Some(false)), Some(filter)));
        assert_eq!(trie.subscriptions(id), []);
        assert_eq!(trie.filter_text(id, &mut String::new()), None);
        assert_ne!(trie.generation(), generation);
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Insert { vhost: u16, filter: String, subscriber: u32, options: SubscriptionOptions },
    Remove { pick: prop::sample::Index },
    SetDurable { pick: prop::sample::Index, durable: bool },
}

fn level() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        4 => prop::sample::select(vec!["a", "b", "", "$x", "a level longer than a label"]),
        1 => Just("+"),
    ]
}

fn filter() -> impl Strategy<Value = String> {
    (prop::collection::vec(level(), 1..6), any::<bool>())
        .prop_map(|(levels, multi)| levels.join("/") + if multi { "/#" } else { "" })
        .prop_map(|filter| if filter == "/#" { "#".into() } else { filter })
        .prop_filter("filters are not empty", |filter| topic::is_topic_filter(filter))
}

fn topic_name() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..6)
        .prop_map(|levels| levels.join("/").replace('+', "c"))
        .prop_filter("topics are not empty", |topic| topic::is_topic_name(topic))
}

fn options() -> impl Strategy<Value = SubscriptionOptions> {
    (0..3u8, any::<[bool; 3]>(), 0..268_435_456u32).prop_map(|(qos, flags, subscription_id)| {
        SubscriptionOptions {
            qos: QoS::from_bits(qos).unwrap(),
            no_local: flags[0],
            retain_as_published: flags[1],
            subscription_id,
            durable: flags[2],
        }
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (0..2u16, filter(), 0..50u32, options())
            .prop_map(|(vhost, filter, subscriber, options)| Operation::Insert { vhost, filter, subscriber, options }),
        2 => any::<prop::sample::Index>().prop_map(|pick| Operation::Remove { pick }),
        1 => (any::<prop::sample::Index>(), any::<bool>())
            .prop_map(|(pick, durable)| Operation::SetDurable { pick, durable }),
    ]
}

type Model = BTreeMap<(u16, String, u32), SubscriptionOptions>;

fn counts(model: &Model, vhost: u16, filter: &str) -> (usize, usize) {
    let of_filter = || model.iter().filter(|((v, f, _), _)| *v == vhost && f == filter);
    (of_filter().count(), of_filter().filter(|(_, options)| options.durable).count())
}

fn apply(trie: &mut Trie, model: &mut Model, operation: Operation) {
    let generation = trie.generation();
    let picked = |pick: prop::sample::Index, model: &Model| {
        (!model.is_empty()).then(|| model.keys().nth(pick.index(model.len())).unwrap().clone())
    };
    match operation {
        Operation::Insert { vhost, filter, subscriber, options } => {
            let before = counts(model, vhost, &filter);
            let inserted = trie.insert(VhostId(vhost), &filter, Subscriber(subscriber), options);
            assert_eq!(inserted.replaced, model.insert((vhost, filter.clone(), subscriber), options));
            assert_eq!(inserted.change, Change::between(before, counts(model, vhost, &filter)));
            assert_eq!(trie.find(VhostId(vhost), &filter), Some(inserted.filter));
        }
        Operation::Remove { pick } => {
            let Some(key) = picked(pick, model) else { return };
            let before = counts(model, key.0, &key.1);
            let id = trie.find(VhostId(key.0), &key.1).unwrap();
            let removed = trie.remove(id, Subscriber(key.2)).unwrap();
            assert_eq!(Some(removed.options), model.remove(&key));
            let after = counts(model, key.0, &key.1);
            assert_eq!(removed.change, Change::between(before, after));
            assert_eq!(removed.filter.as_deref(), (after.0 == 0).then_some(&*key.1));
        }
        Operation::SetDurable { pick, durable } => {
            let Some(key) = picked(pick, model) else { return };
            let before = counts(model, key.0, &key.1);
            let id = trie.find(VhostId(key.0), &key.1).unwrap();
            let change = trie.set_durable(id, Subscriber(key.2), durable);
            model.get_mut(&key).unwrap().durable = durable;
            assert_eq!(change, Change::between(before, counts(model, key.0, &key.1)));
        }
    }
    assert_ne!(trie.generation(), generation);
}

fn check(trie: &Trie, model: &Model, topics: &[String]) {
    assert_eq!(trie.subscription_count(), model.len());
    let mut held = Model::new();
    for id in trie.iter_filters() {
        let mut text = String::new();
        let vhost = trie.filter_text(id, &mut text).unwrap();
        for subscription in trie.subscriptions(id) {
            let subscriber = subscription.subscriber();
            assert_eq!(trie.get(id, subscriber), Some(subscription.options()));
            held.insert((vhost.0, text.clone(), subscriber.0), subscription.options());
        }
    }
    assert_eq!(&held, model);
    for (vhost, topic) in (0..3).flat_map(|vhost| topics.iter().map(move |topic| (vhost, topic))) {
        let mut expected: Vec<_> = model
            .keys()
            .filter(|(v, filter, _)| *v == vhost && topic::matches(filter, topic))
            .map(|(_, filter, _)| trie.find(VhostId(vhost), filter).unwrap())
            .collect();
        expected.sort_unstable();
        expected.dedup();
        assert_eq!(matching(trie, VhostId(vhost), topic), expected, "{topic}");
    }
}

proptest! {
    #[test]
    fn behaves_as_a_linear_scan(
        operations in prop::collection::vec(operation(), 0..120),
        topics in prop::collection::vec(topic_name(), 1..8),
    ) {
        let mut trie = Trie::new(KEY);
        let empty = trie.memory();
        let mut model = Model::new();
        for (step, operation) in operations.into_iter().enumerate() {
            apply(&mut trie, &mut model, operation);
            if step % 8 == 0 {
                check(&trie, &model, &topics);
            }
        }
        check(&trie, &model, &topics);
        for (vhost, filter, subscriber) in model.into_keys() {
            let id = trie.find(VhostId(vhost), &filter).unwrap();
            prop_assert!(trie.remove(id, Subscriber(subscriber)).is_some());
        }
        check(&trie, &Model::new(), &topics);
        prop_assert_eq!(trie.filter_count() + trie.wildcard_count() + trie.lists.len() + trie.exact.len(), 0);
        // One word a virtual host that once had a wildcard is kept.
        prop_assert!(trie.memory() <= empty + 4 * 4);
        prop_assert_eq!((trie.text_bytes, trie.list_bytes), (0, 0));
    }
}
