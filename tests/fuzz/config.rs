//! Target `config`: the text of a configuration file, and settings of the command line.
//!
//! Besides that nothing panics: each error is one line that can be printed, in the order of reading; and what is accepted
//! keeps the relations that the shards rely on and is accepted again in the same way.

use quelea::config::{Config, File, Machine};

/// Lines that begin with `--set ` are settings of the command line, the others are the file.
pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let is_set = |line: &&str| line.starts_with("--set ");
    let sets: Vec<String> =
        text.lines().filter(is_set).map(|line| line["--set ".len()..].to_owned()).collect();
    let file: Vec<&str> = text.split('\n').filter(|line| !is_set(line)).collect();
    let file = file.join("\n");
    for memory_bytes in [None, Some(1), Some(8 << 30), Some(u64::MAX)] {
        let machine = Machine { core_count: text.len() % 100, memory_bytes };
        let parse = || Config::parse(machine, Some(File { name: "quelea.conf", text: &file }), &sets);
        let parsed = parse();
        assert_eq!(parse(), parsed, "the same text twice");
        match parsed {
            Ok(config) => check(&config),
            Err(errors) => {
                assert!(!errors.is_empty(), "refused without a reason");
                assert!(errors.is_sorted_by(|a, b| a.place <= b.place), "{errors:?}");
                for error in errors {
                    let line = error.to_string();
                    assert!(!line.chars().any(char::is_control), "{line:?} is not one line");
                    assert!(line.len() < 1_000, "{line:?} is long");
                }
            }
        }
    }
}

fn check(config: &Config) {
    assert!((1..=64).contains(&config.shards));
    assert!(!config.listeners.is_empty());
    for (index, listener) in config.listeners.iter().enumerate() {
        assert!(listener.port() == 0 || !config.listeners[..index].contains(listener), "{listener} twice");
    }
    let session = &config.shard.session;
    assert!(session.packet_size_max_unauthenticated <= session.packet_size_max);
    assert!(session.receive_maximum > 0 && session.prefetch > 0);
    let memory_max = config.shard.process.memory_max_bytes.unwrap_or(u64::MAX);
    assert!(u64::from(session.packet_size_max) <= memory_max);
    assert!(u64::from(config.shard.queue.qos0_bytes_max) <= memory_max);
}
