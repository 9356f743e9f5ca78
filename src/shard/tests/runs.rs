//! Runs: whatever arrives together has the same effect as packet by packet.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

const TOPICS: [&str; 4] = ["one", "two/v5", "over/lap", "nobody"];
const SUBSCRIBERS: usize = 8;

/// A publisher, and subscribers of every kind: both versions, all QoS, overlapping, shared, the publisher itself, and one that is away.
fn crowd(shards: u16) -> (World, usize, Vec<usize>) {
    let mut world = World::new(shards, &Options::default());
    let entry = |n: usize| n % usize::from(shards);
    let publisher = world.connect(0, Version::V311, "publisher");
    let mut clients = vec![publisher];
    for (n, (version, filter, qos)) in [
        (Version::V311, "one", QoS::AtMostOnce),
        (Version::V310, "one", QoS::ExactlyOnce),
        (Version::V5, "two/#", QoS::AtMostOnce),
        (Version::V311, "two/v5", QoS::AtLeastOnce),
        (Version::V311, "over/+", QoS::AtMostOnce),
        (Version::V5, "$share/g/one", QoS::AtMostOnce),
        (Version::V311, "+/lap", QoS::AtMostOnce),
    ]
    .into_iter()
    .enumerate()
    {
        let client = world.connect(entry(n), version, &format!("subscriber {n}"));
        world.subscribe(client, filter, qos);
        clients.push(client);
    }
    world.subscribe(publisher, "over/lap", QoS::AtMostOnce);
    let away = world.connect_with(entry(1), &Connect::new(Version::V311, "away", false, 0));
    world.subscribe(away, "one", QoS::AtMostOnce);
    world.drop_connection(away);
    assert_eq!(clients.len(), SUBSCRIBERS);
    (world, publisher, clients)
}

/// A packet that occurs `times` in a row, each time with another number in its payload.
#[derive(Debug, Clone)]
struct Repeated {
    topic: usize,
    qos: QoS,
    retain: bool,
    padding: usize,
    times: u16,
}

fn repeated() -> impl Strategy<Value = Repeated> {
    let plain = (0..TOPICS.len(), 0..3usize, 1..9u16);
    (plain, 0..12u8).prop_map(|((topic, padding, times), odd)| Repeated {
        topic,
        qos: if odd == 0 { QoS::AtLeastOnce } else { QoS::AtMostOnce },
        retain: odd == 1,
        padding: padding * 150,
        times,
    })
}

fn packets(workload: &[Repeated]) -> Vec<Vec<u8>> {
    let all = workload.iter().flat_map(|repeated| std::iter::repeat_n(repeated, repeated.times.into()));
    let encode = |(id, repeated): (u16, &Repeated)| {
        let payload = format!("{id:05}{}", "x".repeat(repeated.padding));
        let delivery = delivery(TOPICS[repeated.topic], payload.as_bytes(), repeated.qos, id);
        encoded(&Delivery { retain: repeated.retain, ..delivery }, Version::V311)
    };
    (1..).zip(all).map(encode).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn together_is_as_one_by_one(
        workload in vec(repeated(), 1..24),
        cuts in vec(1..900usize, 1..8),
        shards in 1..3u16,
    ) {
        let packets = packets(&workload);
        let (mut single, publisher, clients) = crowd(shards);
        packets.iter().for_each(|packet| single.send(publisher, packet));
        let (mut together, _, _) = crowd(shards);
        let bytes = packets.concat();
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            together.send(publisher, now);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        for client in clients {
            // An acknowledgement that waits for another shard may come before or after a delivery.
            let is_delivery = |line: &String| line.starts_with("PUBLISH");
            let a: (Vec<_>, Vec<_>) = single.take(client).into_iter().partition(is_delivery);
            let b: (Vec<_>, Vec<_>) = together.take(client).into_iter().partition(is_delivery);
            prop_assert_eq!(a, b, "client {}", client);
        }
        for (a, b) in single.shards.iter().zip(&together.shards) {
            prop_assert_eq!(format!("{:?}", a.counters), format!("{:?}", b.counters));
        }
    }
}

/// What lies in a subscriber's out-buffer when its socket takes nothing, and what was dropped, after packets came so many at a time.
fn behind_a_busy_socket(at_a_time: usize) -> (Vec<u8>, u64) {
    let mut options = Options::default();
    options.queue.qos0_bytes_max = 500;
    options.queue.qos0_messages_max = 60;
    let mut world = World::new(1, &options);
    let publisher = world.connect(0, Version::V311, "publisher");
    let subscriber = world.connect(0, Version::V311, "subscriber");
    world.subscribe(subscriber, "t", QoS::AtMostOnce);
    let packets: Vec<u8> = (0..200)
        .flat_map(|n| [&[0x30, 13, 0, 1, b't'][..], format!("{n:010}").as_bytes()].concat())
        .collect();
    let (_, from) = world.clients[publisher].place.unwrap();
    let shard = &mut world.shards[0];
    shard.handle_bytes(world.now, from, &packets[..15]);
    let (to, first) = shard.poll_send().unwrap();
    for bytes in packets[15..].chunks(15 * at_a_time) {
        shard.handle_bytes(world.now, from, bytes);
        assert!(shard.poll_send().is_none(), "the socket is busy");
    }
    shard.handle_sent(world.now, to, first);
    let (_, buffer) = shard.poll_send().unwrap();
    let bytes = buffer.slices(0, usize::MAX).iter().flat_map(|slice| slice.to_vec()).collect();
    (bytes, shard.counters.dropped_qos0)
}

#[test]
fn a_run_is_dropped_where_its_packets_would_be() {
    let one_by_one = behind_a_busy_socket(1);
    assert!(one_by_one.1 > 0, "something is dropped");
    for at_a_time in [2, 7, 50, 199] {
        assert_eq!(behind_a_busy_socket(at_a_time), one_by_one, "{at_a_time} at a time");
    }
}
