//! Wide messages: who waits behind them, and who does not.

use super::*;

/// Everything wide is worked off four deliveries a step; more than three subscribers are wide.
fn options() -> Options {
    let mut options = Options::default();
    options.budgets.turn_deliveries = 0;
    options.budgets.narrow = 3;
    options.budgets.fan_out_step = 4;
    options.budgets.fan_outs_max = 3;
    options
}

fn shard_of(world: &World, client: usize) -> usize {
    world.clients[client].place.expect("is connected").0
}

/// A client whose session lives on `shard`.
fn connect_on(world: &mut World, shard: usize, name: &str) -> usize {
    for n in 0.. {
        let client = world.connect(shard, Version::V5, &format!("{name}{n}"));
        if shard_of(world, client) == shard {
            return client;
        }
        world.drop_connection(client);
    }
    unreachable!("some client lives there")
}

/// Subscribers to `wide` on `shard`.
fn audience(world: &mut World, shard: usize, count: usize) -> Vec<usize> {
    let clients: Vec<usize> =
        (0..count).map(|n| connect_on(world, shard, &format!("audience{n}-"))).collect();
    for client in &clients {
        world.subscribe(*client, "wide", QoS::AtMostOnce);
    }
    clients
}

/// Sends a publish, and lets happen whatever does not take another step of time.
fn publish_and_look(world: &mut World, client: usize, topic: &str, payload: &str) {
    let (shard, id) = world.clients[client].place.expect("is connected");
    world.shards[shard].handle_bytes(world.now, id, &publish_bytes(topic, payload));
    world.settle_but_for_time();
}

#[test]
fn what_others_publish_does_not_wait_behind_a_wide_message() {
    let mut world = World::new(1, &options());
    let audience = audience(&mut world, 0, 10);
    let listener = world.connect(0, Version::V5, "listener");
    world.subscribe(listener, "narrow", QoS::AtMostOnce);
    let flood = world.connect(0, Version::V5, "flood");
    let other = world.connect(0, Version::V5, "other");
    for payload in ["1", "2", "3"] {
        publish_and_look(&mut world, flood, "wide", payload);
    }
    publish_and_look(&mut world, flood, "narrow", "behind");
    publish_and_look(&mut world, other, "narrow", "at once");
    assert_eq!(world.take(listener), ["PUBLISH narrow at once q0"]);
    assert!(world.take(audience[9]).is_empty(), "the last of the audience has not had its turn yet");
    world.settle();
    assert_eq!(world.take(listener), ["PUBLISH narrow behind q0"]);
    for client in audience {
        assert_eq!(world.take(client), ["PUBLISH wide 1 q0", "PUBLISH wide 2 q0", "PUBLISH wide 3 q0"]);
    }
}

#[test]
fn the_order_of_a_client_is_kept_over_its_sessions() {
    let mut world = World::new(1, &options());
    let audience = audience(&mut world, 0, 10);
    world.subscribe(audience[0], "narrow", QoS::AtMostOnce);
    let flood = world.connect(0, Version::V5, "flood");
    for payload in ["1", "2"] {
        publish_and_look(&mut world, flood, "wide", payload);
    }
    publish_and_look(&mut world, flood, "narrow", "3");
    // Another session of the same client: nothing of the first is left but what waits.
    let again = world.open(0, Version::V5);
    let mut connect = Vec::new();
    Connect::new(Version::V5, "flood", true, 0).encode(&mut connect);
    let (shard, id) = world.clients[again].place.expect("is connected");
    world.shards[shard].handle_bytes(world.now, id, &connect);
    world.settle_but_for_time();
    publish_and_look(&mut world, again, "narrow", "4");
    world.settle();
    let came: Vec<String> = world.take(audience[0]);
    let narrow: Vec<_> = came.iter().filter(|line| line.contains("narrow")).collect();
    assert_eq!(narrow, ["PUBLISH narrow 3 q0", "PUBLISH narrow 4 q0"]);
}

#[test]
fn publishers_take_turns_with_wide_messages() {
    let mut world = World::new(1, &options());
    let audience = audience(&mut world, 0, 10);
    let flood = world.connect(0, Version::V5, "flood");
    let other = world.connect(0, Version::V5, "other");
    for payload in ["1", "2", "3", "4"] {
        publish_and_look(&mut world, flood, "wide", payload);
    }
    publish_and_look(&mut world, other, "wide", "x");
    world.settle();
    let expected = ["PUBLISH wide 1 q0", "PUBLISH wide x q0", "PUBLISH wide 2 q0", "PUBLISH wide 3 q0"];
    for client in audience {
        assert_eq!(world.take(client)[..4], expected);
    }
}

#[test]
fn a_flood_is_held_back_where_its_publisher_lives_and_nobody_else_is() {
    let mut world = World::new(2, &options());
    let audience = audience(&mut world, 1, 10);
    let listener = connect_on(&mut world, 1, "listener");
    world.subscribe(listener, "narrow", QoS::AtMostOnce);
    let flood = connect_on(&mut world, 0, "flood");
    let other = connect_on(&mut world, 0, "other");
    publish_and_look(&mut world, other, "narrow", "0");
    for payload in ["1", "2", "3"] {
        publish_and_look(&mut world, flood, "wide", payload);
        assert!(!world.clients[flood].paused, "three may wait");
    }
    publish_and_look(&mut world, flood, "wide", "4");
    assert!(world.clients[flood].paused, "four are too many");
    publish_and_look(&mut world, other, "narrow", "1");
    assert!(!world.clients[other].paused);
    assert_eq!(world.take(listener), ["PUBLISH narrow 0 q0", "PUBLISH narrow 1 q0"]);
    world.settle();
    assert!(!world.clients[flood].paused, "all is delivered");
    for client in audience {
        assert_eq!(world.take(client).len(), 4);
    }
}

#[test]
fn who_subscribes_meanwhile_gets_only_what_comes_later() {
    let mut world = World::new(1, &options());
    let audience = audience(&mut world, 0, 10);
    let late = world.connect(0, Version::V5, "late");
    let flood = world.connect(0, Version::V5, "flood");
    for payload in ["1", "2"] {
        publish_and_look(&mut world, flood, "wide", payload);
    }
    let (shard, id) = world.clients[late].place.expect("is connected");
    world.shards[shard].handle_bytes(world.now, id, &subscribe_bytes(["wide"], QoS::AtMostOnce, Version::V5));
    let (shard, id) = world.clients[audience[9]].place.expect("is connected");
    let mut bytes = Vec::new();
    codec::encode_unsubscribe(packet_id(8), &["wide"], Version::V5, &mut bytes);
    world.shards[shard].handle_bytes(world.now, id, &bytes);
    publish_and_look(&mut world, flood, "wide", "3");
    world.settle();
    assert_eq!(world.take(late), ["SUBACK 7 [Success]", "PUBLISH wide 3 q0"]);
    assert_eq!(world.take(audience[9]), ["UNSUBACK 8 [Success]"]);
    assert_eq!(world.take(audience[8]).len(), 3);
}
