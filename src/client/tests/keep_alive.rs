//! Keep alive.

use super::*;

#[test]
fn pings_when_nothing_else_is_sent() {
    let mut client = connected(Options { keep_alive_secs: 10, ..Options::new(Version::V311) }, "20 02 00 00");
    assert_eq!(client.next_deadline(), Some(Mono(10_000)));
    client.publish(at(4000), &Publication::new("t", b"", QoS::AtMostOnce)).unwrap();
    client.take_out();
    assert_eq!(client.next_deadline(), Some(Mono(14_000)));
    client.handle_timeout(at(13_999)).unwrap();
    expect_out(&mut client, "");
    client.handle_timeout(at(14_000)).unwrap();
    expect_out(&mut client, "C0 00");
    assert_eq!(client.next_deadline(), Some(Mono(24_000)));
    receive(&mut client, "D0 00");
    assert_eq!(events(&mut client), [Event::Pong]);
    client.handle_timeout(at(24_000)).unwrap();
    expect_out(&mut client, "C0 00");
    // Other packets put the next ping off, but not the answer to this one.
    client.ping(at(30_000)).unwrap();
    client.handle_timeout(at(33_999)).unwrap();
    assert_eq!(client.next_deadline(), Some(Mono(34_000)));
    assert_eq!(client.handle_timeout(at(34_000)), Err(Error::KeepAliveTimeout));
    assert!(!client.is_active());
    assert_eq!(client.next_deadline(), None);
}

#[test]
fn received_messages_that_are_answered_count() {
    let mut client = connected(Options { keep_alive_secs: 10, ..Options::new(Version::V311) }, "20 02 00 00");
    client.handle_bytes(at(6000), &bytes("30 03 0001't'")).unwrap();
    assert_eq!(client.next_deadline(), Some(Mono(10_000)));
    client.handle_bytes(at(7000), &bytes("32 05 0001't' 0001")).unwrap();
    assert_eq!(client.next_deadline(), Some(Mono(17_000)));
}

#[test]
fn the_servers_keep_alive_is_used() {
    let client = connected(Options::new(Version::V5), "20 06 00 00 03 13 0003");
    assert_eq!(client.next_deadline(), Some(Mono(3000)));
    let client = connected(Options::new(Version::V5), "20 06 00 00 03 13 0000");
    assert_eq!(client.next_deadline(), None);
    let client = connected(Options { keep_alive_secs: 0, ..Options::new(Version::V5) }, "20 03 00 00 00");
    assert_eq!(client.next_deadline(), None);
}
