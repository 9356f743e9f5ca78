//! Tests of the configuration: the dialect, every key, every bad form, and that no text can make it panic.

use super::keys::{self, Form, Key};
use super::{Config, File, LogLevel, Machine, help};
use crate::queue::Overflow;
use crate::route::Strategy as Share;
use proptest::prelude::*;
use std::net::SocketAddr;
use std::path::Path;

const MACHINE: Machine = Machine { core_count: 4, memory_bytes: Some(10_000_000_000) };

/// Parses `text` as file `q.conf`, then `sets`.
fn parse(text: &str, sets: &[&str]) -> Result<Config, Vec<String>> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    Config::parse(MACHINE, Some(File { name: "q.conf", text }), &sets)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn good(text: &str) -> Config {
    parse(text, &[]).unwrap()
}

/// All messages, one a line.
fn bad(text: &str, sets: &[&str]) -> String {
    parse(text, sets).unwrap_err().join("\n")
}

fn addresses(config: &Config) -> Vec<String> {
    config.listeners.iter().map(SocketAddr::to_string).collect()
}

#[test]
fn defaults_are_the_modules_own() {
    let config = Config::parse(MACHINE, None, &[]).unwrap();
    let mut shard = crate::shard::Options::default();
    shard.process.memory_max_bytes = Some(6_000_000_000);
    assert_eq!(config.shard, shard);
    assert_eq!(addresses(&config), ["0.0.0.0:1883"]);
    assert_eq!(config.shards, 4);
    assert_eq!(config.data_dir, Path::new("./quelea-data"));
    assert_eq!(config.log_level, LogLevel::Info);
}

#[test]
fn defaults_follow_the_machine() {
    for (core_count, memory_bytes, shards, memory_max_bytes) in [
        (0, None, 1, None),
        (1, Some(0), 1, Some(64 << 20)),
        (64, Some(5_000_000_000), 64, Some(3_000_000_000)),
        (65, Some(u64::MAX), 64, Some(u64::MAX / 5 * 3)),
        (usize::MAX, None, 64, None),
    ] {
        let config = Config::parse(Machine { core_count, memory_bytes }, None, &[]).unwrap();
        assert_eq!((config.shards, config.shard.process.memory_max_bytes), (shards, memory_max_bytes));
    }
}

#[test]
fn every_session_and_queue_field_is_reached_by_its_key() {
    let config = good(
        "
        mqtt.login_timeout = 1001
        mqtt.max_packet_size_unauthenticated = 2002
        mqtt.max_packet_size_authenticated = 3003
        mqtt.max_session_expiry_interval_seconds = 4004
        quelea.mqtt.keep_alive_max = 55
        quelea.mqtt.client_id_size_max = 66
        quelea.mqtt.subscriptions_max = 77
        mqtt.prefetch = 88
        quelea.mqtt.receive_maximum = 99
        mqtt.topic_alias_maximum = 11
        mqtt.mailbox_soft_limit = 22
        quelea.qos0.max_bytes = 33kB
        quelea.session.queue_qos0 = true
        quelea.session.queue.max_messages = 44
        quelea.session.queue.max_bytes = 2KiB
        quelea.session.queue.overflow = reject-publish
    ",
    );
    let session = crate::session::Options {
        packet_size_max_unauthenticated: 2002,
        packet_size_max: 3003,
        login_timeout_ms: 1001,
        session_expiry_max_secs: Some(4004),
        prefetch: 88,
        receive_maximum: 99,
        topic_alias_maximum: 11,
        keep_alive_max_secs: 55,
        client_id_size_max: 66,
        subscriptions_max: 77,
    };
    assert_eq!(config.shard.session, session);
    let queue = crate::queue::Options {
        qos0_messages_max: 22,
        qos0_bytes_max: 33_000,
        queue_qos0_offline: true,
        session_messages_max: Some(44),
        session_bytes_max: Some(2048),
        overflow: Overflow::RejectPublish,
    };
    assert_eq!(config.shard.queue, queue);
}

#[test]
fn every_other_field_is_reached_by_its_key() {
    let config = good(
        "
        mqtt.listeners.tcp.a = 127.0.0.1:1
        quelea.shards = 7
        quelea.data_dir = /var/lib/quelea
        quelea.memory.max_bytes = 1GiB
        quelea.log.sync = interval
        quelea.log.sync_interval = 17
        quelea.log.segment_size = 5000000
        disk_free_limit.absolute = 2GB
        mqtt.max_connections = 12
        mqtt.vhost = /
        mqtt.allow_anonymous = false
        default_user = alice
        default_pass = secret
        mqtt.retained_message_store.max_messages = 111
        mqtt.retained_message_store.max_size_bytes = 222
        quelea.shared_subscription.strategy = hash-client-id
        quelea.mailbox.capacity = 3
        log.console.level = critical
    ",
    );
    assert_eq!(addresses(&config), ["127.0.0.1:1"]);
    assert_eq!((config.shards, config.data_dir.as_path()), (7, Path::new("/var/lib/quelea")));
    assert_eq!(config.log_level, LogLevel::Critical);
    let process = &config.shard.process;
    assert_eq!(
        (process.memory_max_bytes, process.connections_max, process.mailbox_capacity),
        (Some(1 << 30), Some(12), 3)
    );
    let options = crate::log::Options {
        sync: crate::log::SyncMode::Interval,
        segment_bytes: 5_001_216,
        ..crate::log::Options::default()
    };
    assert_eq!(config.shard.log, options);
    assert_eq!((config.shard.log_sync_interval_ms, config.free_bytes_min), (17, 2_000_000_000));
    let auth = &config.shard.auth;
    assert_eq!(
        (auth.allow_anonymous, auth.default_user.as_str(), auth.default_pass.as_str()),
        (false, "alice", "secret")
    );
    let route = crate::route::Options {
        retained_messages_max: Some(111),
        retained_bytes_max: Some(222),
        strategy: Share::HashClientId,
    };
    assert_eq!(config.shard.route, route);
}

#[test]
fn lines_comments_and_quotes() {
    let pass = |text: &str| good(&format!("default_pass = {text}")).shard.auth.default_pass;
    for (text, value) in [
        ("secret", "secret"),
        ("  two words  ", "two words"),
        ("\ttab\t", "tab"),
        ("a # comment", "a"),
        ("a#comment", "a"),
        ("'a # b'", "a # b"),
        ("'a # b' # comment", "a # b"),
        ("'a # b'#comment", "a # b"),
        ("' blank '", " blank "),
        ("a=b", "a=b"),
        ("it's", "it's"),
        ("ÄÖÜ😀", "ÄÖÜ😀"),
        ("windows\r\n", "windows"),
        ("last\n\n# end", "last"),
    ] {
        assert_eq!(pass(text), value, "{text:?}");
    }
    for text in [
        "",
        "\n",
        "# only",
        "  \t # only",
        "\u{feff}# mark",
        "\r\n\r\n",
        "default_user=x",
        " default_user  =x ",
    ] {
        assert!(parse(text, &[]).is_ok(), "{text:?}");
    }
}

#[test]
fn bad_lines() {
    for (line, message) in [
        ("mqtt.prefetch", "expected 'key = value'"),
        ("mqtt.prefetch # = 3", "expected 'key = value'"),
        ("mqtt.prefetch 3", "expected 'key = value'"),
        ("[section]", "expected 'key = value'"),
        ("include other.conf", "'include' is not supported: put all settings into one file"),
        ("= 3", "malformed key '': a key is words of letters, digits, '_' and '-', joined by dots"),
        (
            "mqtt..x = 3",
            "malformed key 'mqtt..x': a key is words of letters, digits, '_' and '-', joined by dots",
        ),
        (
            ".mqtt = 3",
            "malformed key '.mqtt': a key is words of letters, digits, '_' and '-', joined by dots",
        ),
        ("a b = 3", "malformed key 'a b': a key is words of letters, digits, '_' and '-', joined by dots"),
        (
            "a\\.b = 3",
            "malformed key 'a\\.b': a key is words of letters, digits, '_' and '-', joined by dots",
        ),
        ("ä = 3", "malformed key 'ä': a key is words of letters, digits, '_' and '-', joined by dots"),
        (
            "a\u{7}b = 3",
            "malformed key 'a\u{fffd}b': a key is words of letters, digits, '_' and '-', joined by dots",
        ),
        ("default_pass =", "'default_pass' has no value; write '' for an empty one"),
        ("default_pass = # secret", "'default_pass' has no value; write '' for an empty one"),
        ("default_pass = 'a", "the value of 'default_pass' has no closing quote on this line"),
        ("default_pass = '", "the value of 'default_pass' has no closing quote on this line"),
        ("default_pass = 'a' b", "text after the closing quote of 'default_pass'"),
        ("default_pass = 'a''b'", "text after the closing quote of 'default_pass'"),
        ("default_pass = ''", "default_pass: '' is not a text of 1 to 65535 bytes"),
    ] {
        assert_eq!(bad(&format!("\n{line}\n"), &[]), format!("q.conf:2: {message}"));
    }
}

#[test]
fn unknown_keys_name_the_nearest() {
    for (key, hint) in [
        ("mqtt.prefech", "; did you mean 'mqtt.prefetch'?"),
        ("mqtt.pre_fetch", "; did you mean 'mqtt.prefetch'?"),
        ("prefetch", "; did you mean 'mqtt.prefetch'?"),
        ("MQTT.PREFETCH", "; 'quelea --help' lists all keys"),
        ("quelea.shard", "; did you mean 'quelea.shards'?"),
        ("shards", "; did you mean 'quelea.shards'?"),
        ("mqtt.listener.tcp.default", "; did you mean 'mqtt.listeners.tcp.<name>'?"),
        ("mqtt.listeners.tcp.a.b", "; did you mean 'mqtt.listeners.tcp.<name>'?"),
        ("quelea.session.queue.max_message", "; did you mean 'quelea.session.queue.max_messages'?"),
        ("vm_memory_high_watermark.relative", "; 'quelea --help' lists all keys"),
        ("x", "; 'quelea --help' lists all keys"),
        ("mqtt.default_user", "; use 'default_user'"),
        ("mqtt.subscription_ttl", "; use 'mqtt.max_session_expiry_interval_seconds'"),
    ] {
        assert_eq!(bad(&format!("{key} = 1"), &[]), format!("q.conf:1: unknown key '{key}'{hint}"));
    }
    let long = "x".repeat(100_000);
    assert!(bad(&format!("{long} = 1"), &[]).len() < 300, "a message is one line that can be read");
}

#[test]
fn bad_values() {
    for (key, values, expected) in [
        (
            "quelea.shards",
            "0 65 -1 +1 1.5 0x10 1k many infinity 99999999999999999999",
            "an integer from 1 to 64",
        ),
        ("mqtt.prefetch", "0 65536 infinity", "an integer from 1 to 65535"),
        ("mqtt.login_timeout", "0 10s 1h infinity", "milliseconds from 1 to 86400000"),
        ("mqtt.allow_anonymous", "yes on 1 True TRUE", "true or false"),
        ("mqtt.vhost", "other //", "/: the only virtual host there is so far"),
        ("mqtt.max_packet_size_authenticated", "0 13 1G infinity", "a size in bytes from 14 to 268435460"),
        (
            "mqtt.max_session_expiry_interval_seconds",
            "-1 4294967295 Infinity",
            "seconds from 0 to 4294967294 or infinity",
        ),
        (
            "quelea.memory.max_bytes",
            "1 1MB 60% 0.6 1Mb1 MB 1bytes 1XB 16777216T",
            "a size in bytes from 67108864 to 1125899906842624 or infinity",
        ),
        (
            "quelea.session.queue.max_bytes",
            "1023 1kIB1 1.5KiB",
            "a size in bytes from 1024 to 1125899906842624 or infinity",
        ),
        ("quelea.session.queue.overflow", "drop reject_publish", "one of: drop-head, reject-publish"),
        ("log.console.level", "warn trace INFO", "one of: debug, info, warning, error, critical, none"),
        (
            "mqtt.listeners.tcp.x",
            "65536 -1 :1883 1883: localhost:1883 1.2.3:4 1.2.3.4 ::1 [::1] [::1:4 [1.2.3.4]:4 http://x None tcp:1",
            "port, ip:port, [ipv6]:port or none",
        ),
    ] {
        for value in values.split(' ') {
            assert_eq!(
                bad(&format!("{key} = {value}"), &[]),
                format!("q.conf:1: {key}: '{value}' is not {expected}")
            );
        }
    }
}

#[test]
fn sizes_have_rabbitmqs_suffixes() {
    for (value, bytes) in [
        ("70000000", 70_000_000),
        ("70000k", 70_000_000),
        ("70000kB", 70_000_000),
        ("70000KB", 70_000_000),
        ("70M", 70_000_000),
        ("70mb", 70_000_000),
        ("2g", 2_000_000_000),
        ("2GB", 2_000_000_000),
        ("1T", 1_000_000_000_000),
        ("65536ki", 64 << 20),
        ("65536KiB", 64 << 20),
        ("64Mi", 64 << 20),
        ("64MiB", 64 << 20),
        ("3GiB", 3 << 30),
        ("1TIB", 1 << 40),
    ] {
        let config = good(&format!("quelea.memory.max_bytes = {value}"));
        assert_eq!(config.shard.process.memory_max_bytes, Some(bytes), "{value}");
    }
}

#[test]
fn bounds_can_be_absent() {
    for key in keys::all().iter().filter(|key| matches!(key.form, Form::Number { infinity: true, .. })) {
        let infinite = parse(&format!("{} = infinity", key.name), &[]).unwrap();
        let finite = parse(&format!("{} = 1GB", key.name), &[]);
        assert_ne!(Ok(infinite), finite, "{}", key.name);
    }
    assert!(bad("quelea.session.queue.max_bytes = 2 KiB", &[]).contains("'2 KiB' is not a size"));
    let config = good("mqtt.max_session_expiry_interval_seconds = infinity");
    assert_eq!(config.shard.session.session_expiry_max_secs, None);
}

#[test]
fn later_settings_win() {
    assert_eq!(good("mqtt.prefetch = 1\nmqtt.prefetch = 2").shard.session.prefetch, 2);
    let config = parse("mqtt.prefetch = 1", &["mqtt.prefetch=3", " mqtt.prefetch = 4 "]).unwrap();
    assert_eq!(config.shard.session.prefetch, 4);
    // An earlier mistake is not healed by a later line.
    assert_eq!(bad("mqtt.prefetch = x\nmqtt.prefetch = 2", &[]).lines().count(), 1);
}

#[test]
fn sets_are_literal_and_numbered() {
    let config = parse("", &["default_pass='a # b'"]).unwrap();
    assert_eq!(config.shard.auth.default_pass, "'a # b'");
    assert_eq!(
        bad("", &["mqtt.prefetch=1", "mqtt.prefech=1", "mqtt.prefetch", "mqtt.prefetch=", "=1"]),
        "--set #2: unknown key 'mqtt.prefech'; did you mean 'mqtt.prefetch'?\n\
         --set #3: expected 'key = value'\n\
         --set #4: mqtt.prefetch: '' is not an integer from 1 to 65535\n\
         --set #5: malformed key '': a key is words of letters, digits, '_' and '-', joined by dots"
    );
}

#[test]
fn all_errors_are_reported() {
    let text = "nonsense\nquelea.shards = none\nmore nonsense\nmqtt.prefech = 1\n";
    assert_eq!(
        bad(text, &["log.console.level=loud"]),
        "q.conf:1: expected 'key = value'\n\
         q.conf:2: quelea.shards: 'none' is not an integer from 1 to 64\n\
         q.conf:3: expected 'key = value'\n\
         q.conf:4: unknown key 'mqtt.prefech'; did you mean 'mqtt.prefetch'?\n\
         --set #1: log.console.level: 'loud' is not one of: debug, info, warning, error, critical, none"
    );
}

#[test]
fn listeners() {
    for (text, expected) in [
        ("mqtt.listeners.tcp.default = 1884", "0.0.0.0:1884"),
        ("mqtt.listeners.tcp.1 = 127.0.0.1:1884", "127.0.0.1:1884"),
        ("mqtt.listeners.tcp.default = 0", "0.0.0.0:0"),
        ("mqtt.listeners.tcp.default = [::]:1883", "[::]:1883"),
        ("mqtt.listeners.tcp.default = ::1:1883", "[::1]:1883"),
        ("mqtt.listeners.tcp.a = 1\nmqtt.listeners.tcp.b = [::1]:2", "0.0.0.0:1 [::1]:2"),
        ("mqtt.listeners.tcp.a = 0\nmqtt.listeners.tcp.b = 0", "0.0.0.0:0 0.0.0.0:0"),
        (
            "mqtt.listeners.tcp.a = 1\nmqtt.listeners.tcp.b = 2\nmqtt.listeners.tcp.a = 3",
            "0.0.0.0:3 0.0.0.0:2",
        ),
        ("mqtt.listeners.tcp.a = 1\nmqtt.listeners.tcp.b = 2\nmqtt.listeners.tcp.a = none", "0.0.0.0:2"),
        ("mqtt.listeners.tcp.a = none\nmqtt.listeners.tcp.a = 2", "0.0.0.0:2"),
    ] {
        assert_eq!(addresses(&good(text)).join(" "), expected, "{text}");
    }
    assert_eq!(
        bad("mqtt.listeners.tcp.a = 1\nmqtt.listeners.tcp.b = 0.0.0.0:1", &[]),
        "q.conf:2: mqtt.listeners.tcp.b listens on 0.0.0.0:1, which mqtt.listeners.tcp.a has already"
    );
    assert_eq!(
        bad("mqtt.listeners.tcp.a = 1\nmqtt.listeners.tcp.a = none", &["mqtt.listeners.tcp.b=none"]),
        "--set #1: no listener is left, nobody could connect: set one, for example mqtt.listeners.tcp.default = 1883"
    );
}

#[test]
fn the_whole_listener_key_takes_back_what_was_set_before() {
    let text = "mqtt.listeners.tcp.a = 1\nmqtt.listeners.tcp = none\nmqtt.listeners.tcp.b = 2";
    assert_eq!(addresses(&good(text)), ["0.0.0.0:2"]);
    assert_eq!(
        bad("mqtt.listeners.tcp = none", &[]),
        "q.conf:1: no listener is left, nobody could connect: set one, for example mqtt.listeners.tcp.default = 1883"
    );
    assert_eq!(bad("mqtt.listeners.tcp = 1883", &[]), "q.conf:1: mqtt.listeners.tcp: '1883' is not none");
}

#[test]
fn http_listeners() {
    let http = |text: &str| {
        let all: Vec<_> = good(text).http.iter().map(|listener| listener.address.to_string()).collect();
        all.join(" ")
    };
    for (text, expected) in [
        ("", ""),
        ("quelea.http = 8080", "127.0.0.1:8080"),
        ("quelea.http = [::1]:0", "[::1]:0"),
        ("quelea.http = 8080\nquelea.http = none", ""),
        ("prometheus.tcp.port = 15692", "127.0.0.1:15692"),
        ("prometheus.tcp.ip = ::\nprometheus.tcp.port = 15692", "[::]:15692"),
        ("prometheus.tcp.ip = 0.0.0.0", ""),
        ("quelea.http = 1\nprometheus.tcp.port = 1", "127.0.0.1:1"),
        ("quelea.http = 0\nprometheus.tcp.port = 0", "127.0.0.1:0 127.0.0.1:0"),
    ] {
        assert_eq!(http(text), expected, "{text}");
    }
    for (text, message) in [
        ("quelea.http = x", "q.conf:1: quelea.http: 'x' is not port, ip:port, [ipv6]:port or none"),
        (
            "prometheus.tcp.port = 65536",
            "q.conf:1: prometheus.tcp.port: '65536' is not a port from 0 to 65535 or none",
        ),
        (
            "prometheus.tcp.ip = localhost",
            "q.conf:1: prometheus.tcp.ip: 'localhost' is not an IPv4 or IPv6 address",
        ),
    ] {
        assert_eq!(bad(text, &[]), message);
    }
}

#[test]
fn relations() {
    for (text, message) in [
        (
            "mqtt.max_packet_size_unauthenticated = 20MB",
            "q.conf:1: mqtt.max_packet_size_unauthenticated (20000000) is larger than mqtt.max_packet_size_authenticated (16777216)",
        ),
        (
            "mqtt.max_packet_size_authenticated = 1k",
            "q.conf:1: mqtt.max_packet_size_unauthenticated (65536) is larger than mqtt.max_packet_size_authenticated (1000)",
        ),
        (
            "quelea.memory.max_bytes = 100M\nmqtt.max_packet_size_authenticated = 200M",
            "q.conf:2: mqtt.max_packet_size_authenticated (200000000) is larger than quelea.memory.max_bytes (100000000)",
        ),
        (
            "quelea.memory.max_bytes = 100M\nquelea.qos0.max_bytes = 101M",
            "q.conf:2: quelea.qos0.max_bytes (101000000) is larger than quelea.memory.max_bytes (100000000)",
        ),
        // What a bad value contradicts is not known.
        (
            "mqtt.max_packet_size_authenticated = 30MBB\nmqtt.max_packet_size_unauthenticated = 20MB",
            "q.conf:1: mqtt.max_packet_size_authenticated: '30MBB' is not a size in bytes from 14 to 268435460",
        ),
    ] {
        assert_eq!(bad(text, &[]), message);
    }
    good("mqtt.max_packet_size_unauthenticated = 1k\nmqtt.max_packet_size_authenticated = 1k");
    good("quelea.memory.max_bytes = infinity\nmqtt.max_packet_size_authenticated = 268435460");
}

/// Every key can be set to what help says its default is, and then nothing has changed.
#[test]
fn printed_defaults_parse_to_the_defaults() {
    let is_fixed = |key: &&Key| !key.is_derived();
    let mut text = String::new();
    for key in keys::all().iter().filter(is_fixed) {
        text.push_str(&format!("{} = {}\n", key.name.replace("<name>", "default"), key.default_text()));
    }
    assert_eq!(parse(&text, &[]), parse("", &[]));
    assert_eq!(keys::all().iter().filter(|key| key.is_derived()).count(), 3);
}

/// A bound of the table that its field cannot hold would refuse what help allows; a field beside the bound would take what help
/// does not.
#[test]
fn every_key_takes_the_ends_of_its_range_and_nothing_beyond() {
    for key in keys::all() {
        let (taken, refused) = ends(&key.form);
        assert!(!taken.is_empty() && !refused.is_empty(), "{}", key.name);
        let name = key.name.replace("<name>", "x");
        // A value of many bytes is shown in part, and none of its control characters.
        let is_shown = |value: &str| value.len() <= 80 && !value.contains(char::is_control);
        let says = |value: &str| if is_shown(value) { format!("'{value}' ") } else { String::new() };
        for value in taken {
            let set = format!("{name}={value}");
            let errors = parse("", &[&set]).err().unwrap_or_default();
            assert!(!errors.iter().any(|error| error.contains(" is not ")), "{errors:?}");
        }
        for value in refused {
            let message = bad("", &[&format!("{name}={value}")]);
            let end = format!("{}is not {}", says(&value), key.allowed_text());
            assert!(message.contains(&format!("{name}: ")) && message.ends_with(&end), "{message}");
        }
    }
}

/// What is just allowed, and what is just not.
fn ends(form: &Form) -> (Vec<String>, Vec<String>) {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    match form {
        Form::Number { min, max, infinity, .. } => {
            let mut refused: Vec<_> =
                [min.checked_sub(1), Some(max + 1)].into_iter().flatten().map(|it| it.to_string()).collect();
            let mut taken = vec![min.to_string(), max.to_string()];
            if *infinity { &mut taken } else { &mut refused }.push("infinity".to_owned());
            refused.push("-1".to_owned());
            (taken, refused)
        }
        Form::Boolean => (words("true false"), words("TRUE 1")),
        Form::Choice(names) => {
            let refused = names().iter().map(|name| format!("{name}x")).collect();
            (names().into_iter().map(str::to_owned).collect(), refused)
        }
        Form::Text { size_max } => {
            (vec!["t".to_owned(), "t".repeat(*size_max)], vec!["t".repeat(size_max + 1)])
        }
        Form::Path => (words("/ a"), vec!["a\0".to_owned()]),
        Form::Only { .. } => (words("/"), words("/x")),
        Form::Listener | Form::Address => {
            (words("0 65535 [::1]:65535 none"), words("65536 [::1]:65536 None"))
        }
        Form::NoListeners => (words("none"), words("None 1883")),
        Form::Port => (words("0 65535 none"), words("65536 -1")),
        Form::Ip => (words("0.0.0.0 255.255.255.255 ::"), words("256.0.0.0 1.2.3 :::")),
    }
}

/// What is taken at the ends of a number's range is what was written.
#[test]
fn numbers_are_stored_as_they_are() {
    for key in keys::all() {
        let Form::Number { min, max, .. } = key.form else { continue };
        for value in [min, max] {
            let mut draft = super::draft::Draft::of_defaults();
            assert!(key.slot(&mut draft).set(&key.form, &value.to_string()), "{} = {value}", key.name);
            assert_eq!(key.slot(&mut draft).show(), value.to_string(), "{}", key.name);
        }
    }
}

#[test]
fn keys_are_unique_and_help_lists_each_with_its_default() {
    let text = help::keys_text();
    for (index, key) in keys::all().iter().enumerate() {
        assert!(keys::all()[..index].iter().all(|earlier| earlier.name != key.name), "{} twice", key.name);
        assert!(text.contains(&format!("\n  {} = {}\n", key.name, key.default_text())), "{}", key.name);
        assert!(key.meaning.ends_with('.'), "{}: a sentence", key.name);
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "(?s).{0,200}", sets in prop::collection::vec("(?s).{0,40}", 0..3)) {
        let _ = Config::parse(MACHINE, Some(File { name: "f", text: &text }), &sets);
    }

    /// Lines that look like settings get further than noise does.
    #[test]
    fn no_setting_panics(
        lines in prop::collection::vec(
            (prop::sample::select(keys::all().iter().map(|key| key.name.replace("<name>", "x")).collect::<Vec<_>>()),
             "([0-9]{1,25}[kKmMgGtTiIbB]{0,3}|infinity|none|true|'[^\n]{0,6}'?|\\PC{0,12})"),
            0..12,
        )
    ) {
        let text: String = lines.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        match Config::parse(MACHINE, Some(File { name: "f", text: &text }), &[]) {
            Ok(config) => prop_assert!(!config.listeners.is_empty() && (1..=64).contains(&config.shards)),
            Err(errors) => prop_assert!(errors.iter().all(|error| error.to_string().lines().count() == 1)),
        }
    }
}

#[cfg(feature = "runtime")]
mod args {
    use crate::config::args::{Args, LogCommand, LogRequest, parse};
    use std::ffi::OsString;

    fn parse_words(words: &str) -> Result<Args, String> {
        parse(words.split(' ').map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn good_arguments() {
        assert_eq!(parse_words("quelea"), Ok(Args::default()));
        let sets = vec!["a=1".to_owned(), "b=x=y".to_owned()];
        let expected = Args { config_file: Some("f.conf".into()), sets, log: None };
        assert_eq!(parse_words("quelea --set a=1 --config f.conf --set b=x=y"), Ok(expected.clone()));
        assert_eq!(parse_words("quelea --set=a=1 --config=f.conf --set=b=x=y"), Ok(expected));
    }

    #[test]
    fn commands_for_the_log() {
        let expected = |sets: &[&str], command, json| Args {
            config_file: None,
            sets: sets.iter().map(|set| (*set).to_owned()).collect(),
            log: Some(LogRequest { command, json }),
        };
        let dir = ["quelea.data_dir=d"];
        let dump = LogCommand::Dump { client_id: "x".to_owned() };
        for (words, args) in [
            ("quelea log inspect", expected(&[], LogCommand::Inspect, false)),
            ("quelea log verify --json --data-dir d", expected(&dir, LogCommand::Verify, true)),
            ("quelea log --data-dir d compact", expected(&dir, LogCommand::Compact, false)),
            ("quelea --set a=1 log dump --client-id x", expected(&["a=1"], dump.clone(), false)),
            ("quelea log dump --client-id x --set a=1", expected(&["a=1"], dump, false)),
        ] {
            assert_eq!(parse_words(words), Ok(args), "{words}");
        }
        for (words, message) in [
            ("quelea log dump", "--client-id <ID>"),
            ("quelea log", "Usage: quelea log"),
            ("quelea log inspect --client-id x", "unexpected argument '--client-id'"),
        ] {
            let error = parse_words(words).unwrap_err();
            assert!(error.contains(message), "{words}: {error}");
        }
    }

    #[test]
    fn bad_arguments() {
        for (words, message) in [
            ("quelea --confg f", "unexpected argument '--confg' found"),
            ("quelea f.conf", "unrecognized subcommand 'f.conf'"),
            ("quelea --config", "a value is required for '--config <FILE>'"),
            ("quelea --set", "a value is required for '--set <KEY=VALUE>'"),
            ("quelea --config a --config b", "cannot be used multiple times"),
        ] {
            let error = parse_words(words).unwrap_err();
            assert!(error.contains(message), "{words}: {error}");
        }
    }

    #[test]
    fn help_and_version() {
        let help = parse_words("quelea --help").unwrap_err();
        assert!(help.contains("--config <FILE>") && help.contains("\n  mqtt.prefetch = 8192\n"), "{help}");
        assert!(parse_words("quelea --version").unwrap_err().contains(env!("CARGO_PKG_VERSION")));
    }
}
