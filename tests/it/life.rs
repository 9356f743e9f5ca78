//! Starting and ending: what is said, which status the process ends with, and what connected clients see.

use crate::broker::{Broker, Process};
use crate::wire::Wire;

fn refused(args: &[&str]) -> Vec<String> {
    let (status, lines) = Process::start(args).wait();
    assert_eq!(status.code(), Some(1), "{args:?}: {lines:#?}");
    assert!(!lines.iter().any(|line| line.starts_with("ready ")), "{lines:#?}");
    lines
}

#[test]
fn sigterm_tells_clients_and_ends_with_status_0() {
    for shards in [1, 4] {
        let broker = Broker::with_shards(shards);
        let v5: Vec<Wire> =
            (0..8).map(|n| Wire::connected(broker.address(), 5, &format!("v5-{n}"))).collect();
        let v4 = Wire::connected(broker.address(), 4, "v4");
        let silent = Wire::open(broker.address());
        broker.terminate();
        for mut wire in v5 {
            let disconnect = wire.receive().expect("DISCONNECT");
            assert_eq!(
                (disconnect.first, disconnect.body.first()),
                (0xE0, Some(&0x8B)),
                "server shutting down"
            );
            wire.assert_closed();
        }
        v4.assert_closed();
        silent.assert_closed();
        let (status, lines) = broker.wait();
        assert_eq!(status.code(), Some(0), "{lines:#?}");
    }
}

#[test]
fn a_descriptor_limit_that_is_too_low_is_named() {
    Broker::start_with_descriptors(&["quelea.shards=1"], 128).stop();
    let args = ["--set=quelea.shards=1", "--set=mqtt.listeners.tcp.a=127.0.0.1:0"];
    let (status, lines) = Process::start_with_descriptors(&args, 127).wait();
    assert_eq!(status.code(), Some(1), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("127") && line.contains("LimitNOFILE")), "{lines:#?}");
}

#[test]
fn a_taken_port_is_named() {
    let broker = Broker::with_shards(1);
    let address = broker.address().to_string();
    let lines = refused(&[&format!("--set=mqtt.listeners.tcp.default={address}")]);
    let is_named = |line: &String| line.contains(&address) && line.contains("mqtt.listeners.tcp");
    assert!(lines.iter().any(is_named), "{lines:#?}");
    // Who came first is not disturbed.
    Wire::connected(broker.address(), 4, "still-there");
    broker.stop();
}

#[test]
fn a_data_folder_in_use_is_named() {
    let folder = concat!(env!("CARGO_TARGET_TMPDIR"), "/in-use");
    let first = Broker::start(&[&format!("quelea.data_dir={folder}")]);
    let lines = refused(&[
        "--set=mqtt.listeners.tcp.default=127.0.0.1:0",
        &format!("--set=quelea.data_dir={folder}"),
    ]);
    assert!(lines.len() == 1 && lines[0].contains(folder), "{lines:#?}");
    first.stop();
}

#[test]
fn mistakes_in_the_configuration_are_all_named() {
    assert_eq!(
        refused(&["--set=mqtt.prefech=1", "--set", "quelea.shards=0"]),
        [
            "--set #1: unknown key 'mqtt.prefech'; did you mean 'mqtt.prefetch'?",
            "--set #2: quelea.shards: '0' is not an integer from 1 to 64",
        ]
    );
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = folder.join(format!("bad-{}.conf", std::process::id()));
    std::fs::write(&file, "# fine\nmqtt.listener.tcp.default = 1883\n\nmqtt.prefetch = many\n")
        .expect("a file can be written");
    let name = file.display().to_string();
    let lines = refused(&["--config", &name]);
    std::fs::remove_file(&file).expect("the file is there");
    assert_eq!(
        lines,
        [
            format!(
                "{name}:2: unknown key 'mqtt.listener.tcp.default'; did you mean 'mqtt.listeners.tcp.<name>'?"
            ),
            format!("{name}:4: mqtt.prefetch: 'many' is not an integer from 1 to 65535"),
        ]
    );
    let lines = refused(&["--config", &name]);
    assert!(lines.len() == 1 && lines[0].starts_with(&format!("{name}: cannot be read")), "{lines:#?}");
}

#[test]
fn unknown_arguments_are_refused() {
    let lines = refused(&["--confg", "x"]);
    assert!(lines[0].contains("unexpected argument '--confg'"), "{lines:#?}");
}

#[test]
fn help_and_version_end_with_status_0() {
    for argument in ["--help", "--version"] {
        let (status, lines) = Process::start(&[argument]).wait();
        assert_eq!((status.code(), lines), (Some(0), Vec::new()), "{argument}");
    }
}

#[test]
fn a_data_folder_that_cannot_be_made_is_named() {
    // A file is in the way.
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml/data");
    let lines = refused(&[
        "--set=mqtt.listeners.tcp.default=127.0.0.1:0",
        &format!("--set=quelea.data_dir={folder}"),
    ]);
    assert!(lines.len() == 1 && lines[0].contains(folder), "{lines:#?}");
}

/// Connections that come and go at once, on slots that are given away again at once: nothing of an old one touches a new one.
#[test]
fn takeovers_in_quick_succession() {
    for shards in [1, 4] {
        let broker = Broker::with_shards(shards);
        for number in 0..1000 {
            let id = format!("taken-over-{}", number % 7);
            let mut old = Wire::connected(broker.address(), 5, &id);
            let mut new = Wire::connected(broker.address(), 5, &id);
            let disconnect =
                old.receive().unwrap_or_else(|| panic!("number {number} on {shards} shards: no DISCONNECT"));
            assert_eq!((disconnect.first, disconnect.body[0]), (0xE0, 0x8E), "session taken over");
            // Mostly the old one does not wait for the end, so that the broker still closes it when the next ones come.
            if number % 10 == 0 {
                old.assert_closed();
                new.send(&[0xC0, 0]);
                assert_eq!(new.receive().map(|pong| pong.first), Some(0xD0));
            }
        }
        broker.stop();
    }
}

#[test]
fn clients_that_come_and_go() {
    for shards in [1, 4] {
        let broker = Broker::with_shards(shards);
        for number in 0..300 {
            let mut wire = Wire::connected(broker.address(), 4, &format!("comes-and-goes-{number}"));
            wire.send(&[0xE0, 0]);
            if number % 2 == 0 {
                wire.assert_closed();
            }
        }
        broker.stop();
    }
}
