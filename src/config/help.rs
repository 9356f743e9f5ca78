//! The list of keys that `quelea --help` prints: each with default, meaning, unit and bounds.

use super::keys;
use std::fmt::Write;

/// The list, two lines a key, no line break at the end.
#[must_use]
pub fn keys_text() -> String {
    let mut text = String::from(
        "Keys, each with its default (FILE has one 'key = value' a line, '#' starts a comment; --set beats FILE):\n",
    );
    for key in keys::all() {
        let default = key.default_text();
        let allowed = key.allowed_text();
        write!(text, "\n  {} = {default}\n      {} [{allowed}]", key.name, key.meaning)
            .expect("a String takes everything");
    }
    text
}
