//! Replays the corpora of the fuzz targets through the very functions that are fuzzed.
//!
//! `README.md` says how to fuzz. An input that once failed stays in its corpus for good.

mod codec;
mod config;
mod input;
mod peer;
mod session;
mod trie;
mod world;

use std::path::Path;

/// Runs a target on each input of its corpus; a failing one is named on standard error.
#[allow(clippy::print_stderr, reason = "a failing input is found by its name")]
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .expect("a corpus")
        .map(|entry| entry.expect("an entry of the corpus").path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 20, "the corpus of {target} is not there");
    for path in paths {
        let input = std::fs::read(&path).expect("an input");
        eprintln!("{}", path.display());
        run(&input);
    }
}

#[test]
fn codec_corpus() {
    replay("codec", codec::run);
}

#[test]
fn config_corpus() {
    replay("config", config::run);
}

#[test]
fn session_corpus() {
    replay("session", session::run);
}

#[test]
fn trie_corpus() {
    replay("trie", trie::run);
}
