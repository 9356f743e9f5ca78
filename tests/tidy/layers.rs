//! Which module may use which: an arrow points only down, siblings of a layer do not know each other.

use crate::code;

/// Every module of the library, from the ground up, each with what it may use besides itself.
const ALLOWED: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("codec", GROUND),
    ("session", GROUND),
    ("route", GROUND),
    ("queue", GROUND),
    ("log", GROUND),
    ("auth", GROUND),
    ("transport", GROUND),
    ("client", GROUND),
    ("amqp", GROUND),
    ("shard", PARTS),
    ("config", WHOLE),
    ("admin", WHOLE),
    ("runtime", EDGE),
];

const GROUND: &[&str] = &["base", "codec"];
const PARTS: &[&str] =
    &["base", "codec", "session", "route", "queue", "log", "auth", "transport", "client", "amqp"];
const WHOLE: &[&str] =
    &["base", "codec", "session", "route", "queue", "log", "auth", "transport", "client", "amqp", "shard"];
const EDGE: &[&str] = &[
    "base",
    "codec",
    "session",
    "route",
    "queue",
    "log",
    "auth",
    "transport",
    "client",
    "amqp",
    "shard",
    "config",
    "admin",
];

/// Complaints about one source file of the library.
pub(crate) fn check(path: &str, code: &str) -> Vec<String> {
    let Some(module_path) = path.strip_prefix("src/") else { return Vec::new() };
    let Some((module, _)) = module_path.split_once('/') else { return Vec::new() };
    let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == module) else {
        return vec![format!(
            "{path}: give module `{module}` its place in the layers, in tests/tidy/layers.rs"
        )];
    };
    let uses = crate_paths(code, depth(module_path));
    let is_bad = |used: &&(usize, &str)| used.1 != module && !allowed.contains(&used.1);
    let complain = |(line, used): &(usize, &str)| {
        format!(
            "{path}:{line}: `{module}` must not use `{used}`: it may use {}. Move what both need down to `base`, or let \
             the layer above bring them together",
            if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") }
        )
    };
    uses.iter().filter(is_bad).map(complain).collect()
}

/// How many `super` lead from the top level of a file to the root of the crate.
fn depth(module_path: &str) -> usize {
    let names = module_path.split('/').count();
    if module_path.ends_with("/mod.rs") { names - 1 } else { names }
}

/// The modules of the crate that are named by a path from its root, each with its line.
fn crate_paths(code: &str, depth: usize) -> Vec<(usize, &str)> {
    let tokens = code::tokens(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let supers = tokens[at..].chunks(2).take_while(|pair| is_step(pair, "super")).count();
        let is_root = is_step(&tokens[at..], "crate") || supers >= depth && supers > 0;
        let after = at + if supers > 0 { 2 * supers } else { 2 };
        if is_root {
            let names = first_names(tokens.get(after..).unwrap_or_default());
            // `super` may climb out of an inline module only, so names that are no modules say nothing.
            let is_module = |name: &str| ALLOWED.iter().any(|(module, _)| *module == name);
            found.extend(names.into_iter().filter(|(_, name)| supers == 0 || is_module(name)));
        }
        at = if is_root || supers > 0 { after } else { at + 1 };
    }
    // Macros and types at the root of the crate start a path as well; modules are all lower case.
    found.retain(|(_, name)| name.starts_with(|char: char| char.is_ascii_lowercase()));
    found
}

fn is_step(tokens: &[(usize, &str)], word: &str) -> bool {
    tokens.first().is_some_and(|(_, token)| *token == word)
        && tokens.get(1).is_some_and(|(_, token)| *token == "::")
}

/// The first segment, or of a group the first segment of each member.
fn first_names<'a>(tokens: &[(usize, &'a str)]) -> Vec<(usize, &'a str)> {
    let Some(first) = tokens.first() else { return Vec::new() };
    if first.1 != "{" {
        return vec![*first];
    }
    let mut names = Vec::new();
    let mut depth = 0_usize;
    let mut is_start = false;
    for (line, token) in tokens {
        match *token {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if is_start && depth == 1 && *token != "}" {
            names.push((*line, *token));
        }
        is_start = depth == 1 && matches!(*token, "{" | ",");
    }
    names
}

#[test]
fn arrows_that_point_up_or_sideways_are_found() {
    for (path, code, used) in [
        ("src/base/x.rs", "use crate::codec::Packet;", "codec"),
        ("src/session/mod.rs", "use crate::route;", "route"),
        ("src/session/mod.rs", "use crate::{base::Mono, queue::{self, Options}};", "queue"),
        ("src/session/mod.rs", "use crate::{\n    base,\n    shard,\n};", "shard"),
        ("src/session/mod.rs", "fn f() { let x: crate::route::Trie = y; }", "route"),
        ("src/session/mod.rs", "use super::route::Trie;", "route"),
        ("src/session/deep/x.rs", "use super::super::super::route::Trie;", "route"),
        ("src/shard/mod.rs", "use crate::config::Config;", "config"),
        ("src/config/mod.rs", "#[cfg(test)]\nmod tests { use crate::runtime; }", "runtime"),
        ("src/codec/mod.rs", "macro_rules! m { () => { $crate::session::x() } }", "session"),
    ] {
        let complaints = check(path, code);
        assert_eq!(complaints.len(), 1, "{path}: {code}: {complaints:?}");
        assert!(complaints[0].contains(&format!("must not use `{used}`")), "{complaints:?}");
    }
    assert_eq!(check("src/unheard_of/x.rs", "").len(), 1);
}

#[test]
fn arrows_that_point_down_are_left_alone() {
    for (path, code) in [
        ("src/base/x.rs", "use super::ids; use crate::base::{Mono, Now};"),
        ("src/session/window.rs", "use super::queue::X; use crate::{base, codec::{self, session}};"),
        ("src/shard/mod.rs", "use crate::{auth, queue, route, session}; use super::shard::X;"),
        ("src/runtime/net/mod.rs", "use crate::{config, admin, shard}; use super::super::base;"),
        ("src/lib.rs", "pub mod runtime;"),
        ("tests/it/main.rs", "use crate::route;"),
    ] {
        assert_eq!(check(path, code), Vec::<String>::new(), "{path}: {code}");
    }
}
