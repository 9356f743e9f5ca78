//! Fairness, the online rule, and bookkeeping against a model.

use super::*;
use crate::route::Strategy;
use proptest::prelude::*;
use std::collections::BTreeMap;

const ALL: [Strategy; 5] = [
    Strategy::RoundRobin,
    Strategy::LeastInFlight,
    Strategy::Sticky,
    Strategy::HashClientId,
    Strategy::HashTopic,
];

fn id(n: u32) -> MemberId {
    let shard = ShardId(u16::try_from(n % 3).unwrap());
    MemberId { shard, session: SessionId { slot: n / 3, generation: 7, shard } }
}

fn group(members: u32) -> Group {
    let mut group = Group::new();
    for n in 0..members {
        assert_eq!(group.join(id(n), SubscriptionOptions::default()), None);
    }
    group
}

fn input(n: u64) -> PickInput {
    PickInput { client_hash: table::mix(n), topic_hash: table::mix(n + (1 << 40)) }
}

fn tally(group: &mut Group, strategy: Strategy, picks: u64) -> Vec<u32> {
    let mut counts = BTreeMap::new();
    for n in 0..picks {
        *counts.entry(group.pick(strategy, input(n)).unwrap()).or_insert(0) += 1;
    }
    counts.into_values().collect()
}

#[test]
fn nobody_is_picked_from_an_empty_group() {
    for strategy in ALL {
        assert_eq!(Group::new().pick(strategy, input(0)), None);
    }
}

#[test]
fn every_strategy_shares_as_it_says() {
    assert_eq!(tally(&mut group(7), Strategy::RoundRobin, 70), [10; 7]);
    assert_eq!(tally(&mut group(7), Strategy::LeastInFlight, 70), [10; 7]);
    assert_eq!(tally(&mut group(7), Strategy::Sticky, 70), [70]);
    for strategy in [Strategy::HashClientId, Strategy::HashTopic] {
        let counts = tally(&mut group(7), strategy, 70_000);
        assert!(
            counts.len() == 7 && counts.iter().all(|count| (9_000..11_000).contains(count)),
            "{counts:?}"
        );
    }
}

#[test]
fn hashes_stay_where_they_are() {
    for (strategy, same) in [
        (Strategy::HashClientId, PickInput { client_hash: 5, topic_hash: 6 }),
        (Strategy::HashTopic, PickInput { client_hash: 6, topic_hash: 5 }),
    ] {
        let mut group = group(9);
        let first = group.pick(strategy, same);
        assert_eq!(group.pick(strategy, PickInput { client_hash: 5, topic_hash: 5 }), first);
        let before: Vec<_> = (0..1000).map(|n| group.pick(strategy, input(n))).collect();
        group.join(id(9), SubscriptionOptions::default());
        let moved =
            (0..1000).filter(|n| group.pick(strategy, input(*n)) != before[usize::try_from(*n).unwrap()]);
        assert!(moved.count() < 150);
        group.leave(id(9));
        let after: Vec<_> = (0..1000).map(|n| group.pick(strategy, input(n))).collect();
        assert_eq!(before, after);
    }
}

#[test]
fn least_in_flight_follows_the_acknowledgements() {
    let mut group = group(3);
    let assign = |group: &mut Group| {
        let picked = group.pick(Strategy::LeastInFlight, PickInput::default()).unwrap();
        group.assigned(picked);
        picked
    };
    for _ in 0..9 {
        assign(&mut group);
    }
    assert!(group.iter().all(|member| member.in_flight_count == 3));
    group.settled(id(1));
    group.settled(id(1));
    assert_eq!([assign(&mut group), assign(&mut group)], [id(1), id(1)]);
    group.set_online(id(1), false);
    group.settled(id(1));
    assert_ne!(assign(&mut group), id(1));
    assert_eq!(group.get(id(1)).unwrap().in_flight_count, 2);
    assert_eq!(group.leave(id(1)).unwrap().in_flight_count, 2);
    group.settled(id(1));
    assert_eq!((group.get(id(1)), group.member_count()), (None, 2));
}

#[test]
fn the_sticky_member_stays_until_it_goes() {
    let mut group = group(3);
    let pick = |group: &mut Group| group.pick(Strategy::Sticky, PickInput::default()).unwrap();
    let first = pick(&mut group);
    group.join(id(3), SubscriptionOptions::default());
    assert_eq!(pick(&mut group), first);
    group.set_online(first, false);
    let second = pick(&mut group);
    assert_ne!(second, first);
    group.set_online(first, true);
    assert_eq!(pick(&mut group), second);
    group.leave(second);
    let third = pick(&mut group);
    assert_ne!(third, second);
    assert_eq!(pick(&mut group), third);
}

#[test]
fn an_offline_member_is_picked_only_when_all_are() {
    for strategy in ALL {
        let mut group = group(4);
        for n in 0..3 {
            group.set_online(id(n), false);
        }
        assert!((0..20).all(|n| group.pick(strategy, input(n)) == Some(id(3))), "{strategy:?}");
        group.set_online(id(3), false);
        assert_eq!(group.online_count(), 0);
        assert!((0..20).all(|n| group.pick(strategy, input(n)).is_some()));
        group.set_online(id(0), true);
        assert!((0..20).all(|n| group.pick(strategy, input(n)) == Some(id(0))), "{strategy:?}");
    }
}

#[test]
fn who_leaves_takes_nobody_elses_turn() {
    for gone in 0..6 {
        let mut group = group(6);
        let mut picked: Vec<_> = (0..3)
            .map(|n| group.pick(Strategy::RoundRobin, input(n)).unwrap())
            .filter(|m| *m != id(gone))
            .collect();
        group.leave(id(gone));
        while picked.len() < 5 {
            picked.push(group.pick(Strategy::RoundRobin, input(0)).unwrap());
        }
        picked.sort_unstable();
        picked.dedup();
        assert_eq!(picked.len(), 5, "each of the others once, when {gone} left");
    }
}

#[test]
fn one_hundred_thousand_members_come_and_go() {
    let mut group = group(100_000);
    assert!(group.memory() < 100_000 * 100, "{} B", group.memory());
    for n in 0..100_000u32 {
        group.set_online(id(n), n % 2 == 0);
        for strategy in ALL {
            assert!(group.pick(strategy, input(n.into())).is_some());
        }
    }
    for n in 0..100_000 {
        assert!(group.leave(id(n)).is_some());
    }
    assert!(group.is_empty() && group.pick(Strategy::Sticky, input(0)).is_none());
    assert_eq!((group.members.len(), group.index.len(), group.by_load.as_ref().unwrap().len()), (0, 0, 0));
    assert!(group.memory() < 1000, "{} B", group.memory());
}

proptest! {
    #[test]
    fn keeps_its_books(operations in prop::collection::vec((0..6u8, 0..12u32, any::<bool>()), 0..200)) {
        let mut group = Group::new();
        let mut model: BTreeMap<MemberId, Member> = BTreeMap::new();
        for (step, (operation, n, flag)) in (0u64..).zip(operations) {
            let known = model.get_mut(&id(n));
            match (operation, known) {
                (0, known) => {
                    let options = SubscriptionOptions { durable: flag, ..SubscriptionOptions::default() };
                    prop_assert_eq!(group.join(id(n), options), known.as_ref().map(|member| member.options));
                    let in_flight_count = known.map_or(0, |member| member.in_flight_count);
                    model.insert(id(n), Member { id: id(n), options, in_flight_count, online: true });
                }
                (1, _) => prop_assert_eq!(group.leave(id(n)), model.remove(&id(n))),
                (2, known) => {
                    group.set_online(id(n), flag);
                    if let Some(member) = known { member.online = flag }
                }
                (3, known) => {
                    group.assigned(id(n));
                    if let Some(member) = known { member.in_flight_count += 1 }
                }
                (4, known) => {
                    group.settled(id(n));
                    if let Some(member) = known { member.in_flight_count = member.in_flight_count.saturating_sub(1) }
                }
                (_, known) => {
                    group.set_durable(id(n), flag);
                    if let Some(member) = known { member.options.durable = flag }
                }
            }
            let someone_online = model.values().any(|member| member.online);
            for strategy in ALL {
                let picked = group.pick(strategy, input(step));
                prop_assert_eq!(picked.is_some(), !model.is_empty());
                let Some(member) = picked.map(|picked| model[&picked]) else { continue };
                prop_assert_eq!(member.online, someone_online);
                let least = model.values().filter(|other| other.online == someone_online).map(|m| m.in_flight_count).min();
                prop_assert!(strategy != Strategy::LeastInFlight || Some(member.in_flight_count) == least);
            }
            let held: BTreeMap<_, _> = group.iter().map(|member| (member.id, *member)).collect();
            prop_assert_eq!(&held, &model);
            prop_assert_eq!(group.online_count(), model.values().filter(|member| member.online).count());
            prop_assert_eq!(group.durable_count(), model.values().filter(|member| member.options.durable).count());
        }
    }
}
