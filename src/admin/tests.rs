//! The pages, made from a shard that clients have used.

use super::overview::{DiskCounters, LAG_BOUNDS_US, Lag, LogState, Overview, ShardState};
use super::{metrics, status};
use crate::base::{ConnectionId, HashKey, Mono, Now, PacketId, QoS, ShardId, Version, Wall};
use crate::codec::{Connect, Delivery, SubscribeFilter, encode_subscribe};
use crate::log::Health;
use crate::shard::{Accepted, Cause, Options, Report, Shard};
use std::collections::{BTreeMap, BTreeSet};

const NOW: Now = Now { mono: Mono(1), wall: Wall(1) };

fn connect(shard: &mut Shard, version: Version, client_id: &str) -> ConnectionId {
    let peer = "127.0.0.1:1".parse().unwrap();
    let id = shard.handle_accepted(NOW, Accepted { peer, local: peer, at: NOW.mono }).unwrap();
    let mut bytes = Vec::new();
    Connect::new(version, client_id, true, 0).encode(&mut bytes);
    shard.handle_bytes(NOW, id, &bytes);
    id
}

fn report(shard: &mut Shard) -> Report {
    shard.handle_query(NOW);
    for _ in 0..100 {
        assert_eq!(shard.next_deadline(), Some(NOW.mono), "a walk goes on by itself");
        shard.handle_timeout(NOW);
        if let Some(report) = shard.poll_report() {
            return *report;
        }
    }
    panic!("a walk ends");
}

/// A subscriber with an unsettled QoS 1 message, a publisher of two messages, and a stranger that was refused.
fn used_shard() -> Report {
    let mut shard = Shard::new(Options::default(), ShardId(0), 1, HashKey { k0: 1, k1: 2 }, NOW);
    let subscriber = connect(&mut shard, Version::V5, "s");
    let publisher = connect(&mut shard, Version::V311, "p");
    let mut bytes = Vec::new();
    let filters = [SubscribeFilter::new("t", QoS::AtLeastOnce)];
    encode_subscribe(PacketId::FIRST, None, &filters, Version::V5, &mut bytes);
    shard.handle_bytes(NOW, subscriber, &bytes);
    for (qos, packet_id) in [(QoS::AtMostOnce, None), (QoS::AtLeastOnce, Some(PacketId::FIRST))] {
        let mut bytes = Vec::new();
        let delivery = Delivery {
            dup: false,
            qos,
            retain: false,
            topic: "t",
            topic_alias: None,
            packet_id,
            expiry: None,
            subscription_ids: &[],
            properties: &[],
            payload: b"12345",
        };
        delivery.encode(Version::V311, &mut bytes);
        shard.handle_bytes(NOW, publisher, &bytes);
    }
    let peer = "127.0.0.1:1".parse().unwrap();
    let stranger = shard.handle_accepted(NOW, Accepted { peer, local: peer, at: NOW.mono }).unwrap();
    shard.handle_bytes(NOW, stranger, b"GET / HTTP/1.1\r\n\r\n");
    while shard.poll_output().is_some() {}
    report(&mut shard)
}

fn overview() -> Overview {
    let shard = ShardState { report: used_shard(), rings: 1, ..ShardState::default() };
    Overview { shards: vec![shard.clone(), shard], ..Overview::default() }
}

/// The samples of a page, after every rule of the format that a parser may rely on.
fn parse(page: &str) -> BTreeMap<String, f64> {
    let (mut families, mut samples) = (BTreeSet::new(), BTreeMap::new());
    let mut family = "";
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            (family, _) = help.split_once(' ').expect("a family is explained");
            assert!(families.insert(family), "{family} twice");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, family);
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let bare = name.split('{').next().unwrap();
            assert!(bare.starts_with(family) && !family.is_empty(), "{line} is not of {family}");
            assert!(samples.insert(name.to_owned(), value.parse().unwrap()).is_none(), "{line} twice");
        }
    }
    samples
}

#[test]
fn every_number_has_its_place_and_shards_add_up() {
    let samples = parse(&metrics::page(&overview()));
    for (name, expected) in [
        ("rabbitmq_connections", 4.0),
        ("quelea_sockets", 4.0),
        ("quelea_clients{protocol=\"mqtt50\"}", 2.0),
        ("rabbitmq_global_publishers{protocol=\"mqtt311\"}", 2.0),
        ("rabbitmq_global_publishers{protocol=\"mqtt50\"}", 0.0),
        ("quelea_message_bytes_received_total{protocol=\"mqtt311\",qos=\"0\"}", 20.0),
        ("quelea_message_bytes_received_total{protocol=\"mqtt311\",qos=\"1\"}", 24.0),
        ("rabbitmq_global_messages_received_confirm_total{protocol=\"mqtt311\"}", 2.0),
        ("rabbitmq_global_messages_confirmed_total{protocol=\"mqtt311\"}", 2.0),
        ("rabbitmq_global_messages_routed_total", 4.0),
        ("quelea_messages_delivered_total{protocol=\"mqtt50\",qos=\"0\"}", 2.0),
        ("quelea_messages_delivered_total{protocol=\"mqtt50\",qos=\"1\"}", 2.0),
        ("rabbitmq_queue_messages_unacked", 2.0),
        ("rabbitmq_queues", 2.0),
        ("quelea_connections_refused_total{cause=\"not_mqtt\"}", 2.0),
    ] {
        assert_eq!(samples.get(name), Some(&expected), "{name}");
    }
    // What waits in the buffers nobody has taken yet.
    assert!(samples["quelea_memory_bytes{owner=\"out_buffers\"}"] > 0.0);
    assert!(samples["rabbitmq_connection_incoming_bytes_total"] > 100.0);
    let labels: BTreeSet<_> = Cause::ALL.iter().map(|cause| cause.label()).collect();
    assert_eq!(labels.len(), Cause::ALL.len(), "causes have names of their own");
}

#[test]
fn lag_falls_into_the_bucket_of_the_first_bound_it_does_not_exceed() {
    let mut overview = overview();
    for lag_us in [0, 100, 101, 1_000_000, 1_000_001] {
        overview.lag.record(lag_us);
    }
    assert_eq!(overview.lag.buckets[..2], [2, 1]);
    assert_eq!(overview.lag.buckets[LAG_BOUNDS_US.len() - 1..], [1, 1]);
    let samples = parse(&metrics::page(&overview));
    assert_eq!(samples["quelea_loop_lag_seconds_bucket{le=\"0.000100\"}"], 2.0);
    assert_eq!(samples["quelea_loop_lag_seconds_bucket{le=\"1.000000\"}"], 4.0);
    assert_eq!(samples["quelea_loop_lag_seconds_bucket{le=\"+Inf\"}"], 5.0);
    assert_eq!(samples["quelea_loop_lag_seconds_count"], 5.0);
    assert_eq!(samples["quelea_loop_lag_seconds_sum"], 2.000202);
    assert_eq!(Lag::default().sum_us, 0);
}

#[test]
fn health_names_who_is_silent() {
    let mut overview = overview();
    let (is_well, view) = status::health(&overview);
    assert!(is_well);
    assert_eq!(view.to_string(), r#"{"status":"ok"}"#);
    overview.shards[1].silent_ms = Some(1500);
    overview.process.is_leaving = true;
    let (is_well, view) = status::health(&overview);
    assert!(!is_well);
    assert_eq!(
        view.to_string(),
        r#"{"status":"failed","reason":"shard 1 has not answered for 1500 ms; the broker is shutting down"}"#
    );
    let text = status::status(&overview).to_string();
    assert!(text.contains(r#""log":null"#), "{text}");
    assert!(text.contains(r#""status":"failed""#) && text.contains(r#""connections":4,"#), "{text}");
}

#[test]
fn a_failed_log_is_no_health_and_a_full_or_damaged_one_a_warning() {
    let mut overview = overview();
    let mut syncs = Lag::default();
    syncs.record(80);
    syncs.record(20_000);
    let disk = DiskCounters { syncs, writes: 2, written_bytes: 8192, ..DiskCounters::default() };
    for shard in &mut overview.shards {
        shard.log_health = Some(Health::Good);
        shard.log = Some(LogState { disk: disk.clone(), messages: 7, ..LogState::default() });
    }
    assert_eq!(status::health(&overview).1.to_string(), r#"{"status":"ok"}"#);
    overview.shards[0].log_health = Some(Health::Full);
    overview.shards[1].log.as_mut().unwrap().damage_count = 3;
    let (is_well, view) = status::health(&overview);
    assert!(is_well);
    assert_eq!(
        view.to_string(),
        r#"{"status":"ok","warning":"the log of shard 0 is full; the log was found damaged in 3 places at start"}"#
    );
    let text = status::status(&overview).to_string();
    assert!(text.contains(r#""health":"full""#) && text.contains(r#""health":"damaged""#), "{text}");
    let samples = parse(&metrics::page(&overview));
    for (name, expected) in [
        ("rabbitmq_io_sync_ops_total", 4.0),
        ("rabbitmq_io_sync_time_seconds_total", 0.04016),
        ("rabbitmq_io_write_bytes_total", 16_384.0),
        ("quelea_log_sync_seconds_bucket{le=\"0.000100\"}", 2.0),
        ("quelea_log_sync_seconds_count", 4.0),
        ("quelea_log_messages", 14.0),
        ("quelea_log_full_shards", 1.0),
        ("quelea_log_damage", 3.0),
    ] {
        assert_eq!(samples.get(name), Some(&expected), "{name}");
    }
    overview.shards[0].log_health = Some(Health::Poisoned);
    let (is_well, view) = status::health(&overview);
    assert!(!is_well);
    let reason = r#""reason":"the log of shard 0 has failed: restart on a sound disk""#;
    assert!(view.to_string().contains(reason), "{view}");
}
