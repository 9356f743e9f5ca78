//! QoS 2 publishes that are repeated after a crash in which only some of their targets had them.

use super::*;

const PLAIN: [&str; 5] = ["one", "two", "three", "four", "five"];
const MEMBERS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// How often each of them has got a message that is on `t`.
fn count(world: &mut World, client_ids: &[&str], payload: &str) -> Vec<usize> {
    let begin = format!("PUBLISH t {payload} ");
    let mut count_of = |client_id: &&str| {
        let (client, is_present) = world.connect_durable(0, client_id, false);
        assert!(is_present);
        world.settle();
        world.take(client).iter().filter(|packet| packet.starts_with(&begin)).count()
    };
    client_ids.iter().map(&mut count_of).collect()
}

/// The home of a group may have the message for somebody else, and the member it was given to may not: it must not be taken for
/// known everywhere. Who subscribes without a group gets it once.
#[test]
fn what_is_known_for_others_still_reaches_a_shared_subscription() {
    for (slow, before, after) in (0..3).flat_map(|slow| [(slow, 0, 0), (slow, 1, 0), (slow, 0, 1)]) {
        let options = options();
        let mut world = World::durable(3, &options);
        for (client_ids, filter) in [(PLAIN, "t"), (MEMBERS, "$share/g/t")] {
            for client_id in client_ids {
                let (client, _) = world.connect_durable(0, client_id, true);
                world.subscribe(client, filter, QoS::ExactlyOnce);
                world.drop_connection(client);
            }
        }
        let (publisher, _) = world.connect_durable(0, "publisher", true);
        (1..=before).for_each(|id| world.publish(publisher, "t", "before", QoS::AtLeastOnce, id, false));
        assert_eq!(world.take(publisher).len(), usize::from(before));
        world.disks[slow].is_held = true;
        world.publish(publisher, "t", "it", QoS::ExactlyOnce, 9, false);
        assert!(world.take(publisher).is_empty(), "not kept by all");
        world.crash(&options);
        let (publisher, _) = world.connect_durable(0, "publisher", false);
        (1..=after).for_each(|id| world.publish(publisher, "t", "after", QoS::AtLeastOnce, id, false));
        world.publish(publisher, "t", "it", QoS::ExactlyOnce, 9, false);
        assert_eq!(world.take(publisher).pop().as_deref(), Some("PUBREC 9 Success"));
        assert_eq!(count(&mut world, &PLAIN, "it"), [1; 5], "{slow} {before} {after}");
        let taken = count(&mut world, &MEMBERS, "it").iter().sum::<usize>();
        assert!((1..=2).contains(&taken), "{taken} of a group: {slow} {before} {after}");
    }
}
