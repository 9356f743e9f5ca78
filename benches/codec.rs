//! What a PUBLISH of 64 bytes costs to decode and to encode: `cargo bench --no-default-features --bench codec`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quelea::base::{PacketId, QoS, ReasonCode, Version};
use quelea::codec::{self, AckKind, Delivery, Frame, Packet, Sender};
use std::hint::black_box;
use std::time::Duration;

const TOPIC: &str = "myhome/livingroom/temperature/sensor1";
const VERSIONS: [(&str, Version); 2] = [("v3", Version::V311), ("v5", Version::V5)];

fn delivery(qos: QoS, properties: &[u8]) -> Delivery<'_> {
    Delivery {
        dup: false,
        qos,
        retain: false,
        topic: TOPIC,
        topic_alias: None,
        packet_id: (qos != QoS::AtMostOnce).then_some(PacketId::FIRST),
        expiry: None,
        subscription_ids: &[],
        properties,
        payload: &[0x55; 64],
    }
}

/// Frames and decodes one packet, and gives something that depends on all of it.
fn decode(input: &[u8], version: Version) -> usize {
    let Ok(Frame::Complete(raw)) = codec::frame(input, 1 << 20) else {
        unreachable!("the input is a packet")
    };
    match codec::decode(raw, version, Sender::Client) {
        Ok(Packet::Publish(publish)) => publish.topic.len() + publish.payload.len(),
        Ok(Packet::PubAck(ack)) => usize::from(ack.packet_id.value()),
        other => unreachable!("{other:?}"),
    }
}

fn publish(criterion: &mut Criterion) {
    let mut user_property = Vec::new();
    codec::properties::push_user_property(&mut user_property, "unit", "celsius");
    let mut group = criterion.benchmark_group("publish 64 B");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_millis(700));
    group.throughput(Throughput::Elements(1));
    let cases = VERSIONS.iter().flat_map(|&(name, version)| {
        [("qos0", QoS::AtMostOnce), ("qos1", QoS::AtLeastOnce)]
            .map(|(qos_name, qos)| (format!("{name} {qos_name}"), version, delivery(qos, &[])))
    });
    let with_property = delivery(QoS::AtMostOnce, &user_property);
    for (name, version, delivery) in
        cases.chain([("v5 qos0 with a user property".to_owned(), Version::V5, with_property)])
    {
        let mut input = Vec::new();
        delivery.encode(version, &mut input);
        group.bench_function(format!("decode {name}"), |bencher| {
            bencher.iter(|| decode(black_box(&input), black_box(version)));
        });
        let mut out = Vec::with_capacity(1 << 16);
        group.bench_function(format!("encode {name}"), |bencher| {
            bencher.iter(|| {
                out.clear();
                black_box(&delivery).encode(black_box(version), &mut out);
                black_box(out.len())
            });
        });
    }
    group.finish();
}

fn puback(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("puback");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_millis(700));
    for (name, version) in VERSIONS {
        let mut input = Vec::new();
        let encode = |out: &mut Vec<u8>| {
            let (id, reason) = black_box((PacketId::FIRST, ReasonCode::Success));
            codec::encode_ack(AckKind::PubAck, id, reason, None, black_box(version), out);
        };
        encode(&mut input);
        group.bench_function(format!("decode {name}"), |bencher| {
            bencher.iter(|| decode(black_box(&input), black_box(version)));
        });
        let mut out = Vec::with_capacity(64);
        group.bench_function(format!("encode {name}"), |bencher| {
            bencher.iter(|| {
                out.clear();
                encode(&mut out);
                black_box(out.len())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, publish, puback);
criterion_main!(benches);
