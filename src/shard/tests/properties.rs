//! Properties that are large or many, on their way to subscribers of every version.

use super::*;

/// A PUBLISH with these properties.
fn publish(properties: &[u8], qos: QoS, retain: bool) -> Vec<u8> {
    encoded(&Delivery { retain, properties, ..delivery("t", b"p", qos, 1) }, Version::V5)
}

fn many() -> Vec<u8> {
    let mut many = Vec::new();
    (0..2_000).for_each(|n| codec::properties::push_user_property(&mut many, "name", &n.to_string()));
    many
}

/// Topic, properties and payload of the one PUBLISH a client has received.
fn received(world: &mut World, client: usize) -> (String, Vec<u8>, Vec<u8>) {
    let bytes = std::mem::take(&mut world.clients[client].received);
    let Ok(Frame::Complete(raw)) = codec::frame(&bytes, u32::MAX) else { panic!("no whole packet") };
    assert_eq!(raw.size, bytes.len(), "one packet");
    let Ok(Packet::Publish(publish)) = codec::decode(raw, world.clients[client].version, Sender::Server)
    else {
        panic!("no PUBLISH")
    };
    (publish.topic.to_owned(), publish.properties.forward(&mut Vec::new()).to_vec(), publish.payload.to_vec())
}

#[test]
fn large_properties_reach_every_subscriber_whole() {
    on_worlds(|world, entry| {
        let many = many();
        for (round, qos) in [QoS::AtMostOnce, QoS::AtLeastOnce].into_iter().enumerate() {
            let name = |who: &str| format!("{who}{round}");
            let three = world.connect(entry(0), Version::V311, &name("three"));
            let five = world.connect(entry(1), Version::V5, &name("five"));
            let with_id = world.connect(entry(2), Version::V5, &name("with-id"));
            world.subscribe(three, "t", qos);
            world.subscribe(five, "t", qos);
            world.subscribe_with(with_id, SubscribeFilter::new("+", qos), Some(7));
            let publisher = world.connect(entry(3), Version::V5, &name("publisher"));
            world.send(publisher, &publish(&many, qos, true));
            let whole = |properties: &[u8]| ("t".to_owned(), properties.to_vec(), b"p".to_vec());
            assert_eq!(received(world, three), whole(&[]));
            assert_eq!(received(world, five), whole(&many));
            assert_eq!(received(world, with_id), whole(&many));
            // What is retained, too.
            let late = world.connect(entry(0), Version::V5, &name("late"));
            world.send(late, &subscribe_bytes(["t"], QoS::AtMostOnce, Version::V5));
            let suback = world.clients[late].received.iter().position(|byte| *byte == 0x31).unwrap();
            world.clients[late].received.drain(..suback);
            assert_eq!(received(world, late), whole(&many));
            for client in [three, five, with_id, publisher, late] {
                world.drop_connection(client);
            }
        }
    });
}

/// Copies of megabytes would hold up everybody else on the shard.
#[test]
fn large_properties_are_not_copied_for_each_subscriber() {
    let mut world = World::new(1, &Options::default());
    let subscribers = ["one", "two"].map(|name| {
        let subscriber = world.connect(0, Version::V5, name);
        world.subscribe(subscriber, "t", QoS::AtMostOnce);
        subscriber
    });
    let publisher = world.connect(0, Version::V5, "publisher");
    let (_, id) = world.clients[publisher].place.unwrap();
    let many = many();
    world.shards[0].handle_bytes(world.now, id, &publish(&many, QoS::AtMostOnce, false));
    let mut places = Vec::new();
    while let Some((id, buffer)) = world.shards[0].poll_send() {
        let large = buffer.slices(0, usize::MAX).iter().map(|slice| (slice.len(), slice.as_ptr())).max();
        places.push(large.filter(|(size, _)| *size == many.len() + 1));
        world.shards[0].handle_sent(world.now, id, buffer);
    }
    assert!(places.len() == subscribers.len() && places[0].is_some() && places[0] == places[1], "{places:?}");
}
