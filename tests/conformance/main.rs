//! Conformance: the ledger of normative statements. `statements/` lists every statement of MQTT 3.1.1 and 5.0 with its
//! status; `README.md` says how to write one.

mod ledger;
mod statement;

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
    let report = ledger::check(&[ledger::Covered::new(), ledger::Covered::new()]);
    eprintln!("{}\n{}", report.open.join("\n"), report.counts);
    assert!(report.mistakes.is_empty(), "\n{}\n", report.mistakes.join("\n"));
}
