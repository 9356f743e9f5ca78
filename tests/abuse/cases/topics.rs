//! Abuse of topics, filters and properties: as deep, as many, as large as the protocol lets them be.

use crate::arena::Arena;
use crate::wire::{Wire, packet, publish, subscribe, text};

/// The deepest topic there is: 65,535 bytes, every one a separator, 65,536 levels.
const DEEP: usize = 65_535;

/// Filters and publishes of 65,536 levels, with and without wildcards.
pub(crate) fn levels(arena: &Arena) -> String {
    let (attackers, publishes) = arena.pick((10, 200), (2, 10));
    // One has the deepest filter there is; the others begin with a name, so that each gets its own messages only.
    let names = (1..attackers).map(|n| n.to_string());
    std::thread::scope(|scope| {
        for name in std::iter::once(String::new()).chain(names) {
            scope.spawn(move || deep(arena, &name, publishes));
        }
    });
    format!("{attackers} clients with filters of 65,536 and 32,768 levels, {publishes} publishes to each")
}

/// Filters below a name of one character, or none, and publishes to them.
fn deep(arena: &Arena, name: &str, publishes: usize) {
    let deep = [name, &"/".repeat(DEEP - name.len())].concat();
    // Half as many levels, each a wildcard, and a topic for them.
    let plus = [name, &"/+".repeat(DEEP / 2 - 1)].concat();
    let topic = [name, &"/".repeat(DEEP / 2 - 1)].concat();
    let half = [name, &"/+".repeat(DEEP / 4), "/#"].concat();
    let mut wire = Wire::connected(arena.address(), 4, &format!("deep-{name}"));
    for (id, filter) in (1..).zip([&deep, &plus, &half]) {
        wire.send(&subscribe(4, id, filter, 0));
        assert_eq!(wire.receive().expect("SUBACK").body[2], 0);
    }
    let mut publisher = Wire::connected(arena.address(), 4, &format!("deep-p{name}"));
    for round in 0..publishes {
        let topic = if round % 2 == 0 { &topic } else { &deep };
        publisher.send(&publish(4, topic, b"x"));
        assert_eq!(wire.receive().expect("its message").first, 0x30);
    }
}

/// All of `{a,+}/{a,+}/…`, which all match one topic, and a ladder of `#`.
pub(crate) fn wildcards(arena: &Arena) -> String {
    let (depth, publishes) = arena.pick((14, 200), (8, 20));
    let mut wire = Wire::connected(arena.address(), 4, "bomb");
    let filters: Vec<String> = (0..1u32 << depth)
        .map(|bits| {
            let levels: Vec<&str> =
                (0..depth).map(|at| if bits >> at & 1 == 0 { "a" } else { "+" }).collect();
            levels.join("/")
        })
        // Not the witness's topic, which has one level.
        .chain((1..depth).map(|at| ["a/", &"+/".repeat(at - 1), "#"].concat()))
        .collect();
    for some in filters.chunks(1000) {
        let body: Vec<u8> = some.iter().flat_map(|filter| [text(filter), vec![0]].concat()).collect();
        wire.send(&packet(0x82, &[&[0, 1][..], &body].concat()));
        let suback = wire.receive().expect("SUBACK");
        assert!(suback.body[2..].iter().all(|code| *code == 0), "{:x} {:?}", suback.first, &suback.body);
    }
    let mut publisher = Wire::connected(arena.address(), 4, "bomb-p");
    let topic = vec!["a"; depth].join("/");
    for _ in 0..publishes {
        publisher.send(&publish(4, &topic, b"x"));
        assert_eq!(wire.receive().expect("one copy").first, 0x30);
    }
    format!("{} filters that all match, {publishes} publishes", filters.len())
}

/// As many User Properties as fit, forwarded; and packets whose properties are not what they say.
pub(crate) fn properties(arena: &Arena) -> String {
    let (rounds, size) = arena.pick((20, 15 << 20), (4, 1 << 20));
    let mut subscriber = Wire::connected(arena.address(), 5, "properties-s");
    subscriber.send(&subscribe(5, 1, "properties", 0));
    assert_eq!(subscriber.receive().expect("SUBACK").first, 0x90);
    let mut publisher = Wire::connected(arena.address(), 5, "properties-p");
    let one = [0x26, 0, 1, b'k', 0, 1, b'v'];
    let count = size / one.len() / 2 * 2;
    let half = one.repeat(count / 2);
    // Together, and with a Message Expiry Interval in their midst, which a subscriber gets in front of them.
    let bombs = [&[][..], &[2, 0, 0, 1, 0]].map(|between| {
        // The length in front of the properties is written like a packet's.
        let properties = packet(0, &[&half[..], between, &half].concat())[1..].to_vec();
        let body = [&text("properties")[..], &properties, b"x"].concat();
        (packet(0x30, &body), body.len())
    });
    for (bomb, size) in bombs.iter().cycle().take(rounds) {
        publisher.send(bomb);
        assert_eq!(subscriber.receive().expect("the message").body.len(), *size);
    }
    let lies: [&[u8]; 6] = [
        // Longer than the packet; five bytes of length; an unknown one; one twice; a text that ends early; an alias of 0.
        &[0x7F, 0x26],
        &[0xFF, 0xFF, 0xFF, 0xFF, 0x01],
        &[2, 0x7E, 0],
        &[4, 0x01, 0, 0x01, 0],
        &[4, 0x26, 0, 9, b'k'],
        &[3, 0x23, 0, 0],
    ];
    let times = arena.pick(500, 5);
    for n in 0..times * lies.len() {
        let mut wire = Wire::connected(arena.address(), 5, "liar");
        wire.send(&packet(0x30, &[&text("properties")[..], lies[n % lies.len()]].concat()));
        assert_eq!(wire.receive().expect("DISCONNECT").first, 0xE0);
        wire.assert_closed();
    }
    format!("{rounds} publishes with {count} User Properties each, {} broken ones", times * lies.len())
}
