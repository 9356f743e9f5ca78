//! Conformance: the ledger of normative statements, and byte vectors through real shards without sockets.
//!
//! `statements/` lists every statement of MQTT 3.1.1 and 5.0 with its status; `vectors/` holds the cases. `README.md` says
//! how to write either. Packets are assembled and taken apart here, by `packet` and `property`, written from the
//! specification and not from `quelea::codec`: a mistake in the codec cannot hide itself.

mod canon;
mod gaps;
mod ledger;
mod packet;
mod property;
mod property_matrix;
mod run;
mod statement;
mod token;
mod track;
mod vector;
mod world;

use quelea::base::Version;
use std::path::{Path, PathBuf};

/// The repository.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a folder below this one, sorted, with what they say.
fn files(folder: &str, extension: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    walk(&root().join(folder), extension, &mut found);
    found.sort();
    found
}

fn walk(folder: &Path, extension: &str, found: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("a folder entry").path();
        if path.is_dir() {
            walk(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            let text = std::fs::read_to_string(&path).expect("a text file");
            found.push((path, text));
        }
    }
}

#[test]
fn ledger() {
    let cases = vector::all().expect("vectors are well-formed");
    let covered = [Version::V311, Version::V5].map(|version| vector::covered(&cases, version));
    let report = ledger::check(&covered);
    eprintln!("{}\n{}", report.open.join("\n"), report.counts);
    assert!(report.mistakes.is_empty(), "\n{}\n", report.mistakes.join("\n"));
}

#[test]
fn vectors_are_well_formed() {
    run::check_lines();
}

#[test]
fn every_packet_has_vectors() {
    let missing = gaps::missing();
    assert!(missing.is_empty(), "\n{}\n", missing.join("\n"));
}

#[test]
fn every_property_is_tried() {
    let (count, mistakes) = property_matrix::run();
    assert!(mistakes.is_empty(), "\n{}\n", mistakes.join("\n"));
    assert!(count > 1_500, "only {count} combinations");
}

#[test]
fn vectors_on_one_shard() {
    run::all(run::Mode { shards: 1, bytewise: false });
}

#[test]
fn vectors_on_four_shards() {
    run::all(run::Mode { shards: 4, bytewise: false });
}

#[test]
fn vectors_one_byte_at_a_time() {
    run::all(run::Mode { shards: 1, bytewise: true });
}
