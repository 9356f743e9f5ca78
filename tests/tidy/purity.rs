//! Below `src/runtime/` nothing does I/O, reads a clock, draws randomness, waits, locks or awaits; unsafe code is listed.

use crate::code;
use crate::tree::Tree;

/// The files that may hold unsafe code. A new one needs a bench that shows the gain and a paragraph for each block.
pub(crate) const UNSAFE_FILES: &[&str] = &[
    "src/runtime/memory.rs",
    "src/runtime/net/buffer_ring.rs",
    "src/runtime/net/buffers.rs",
    "src/runtime/net/pages.rs",
    "src/runtime/net/ring.rs",
    "src/runtime/net/send.rs",
];

/// Paths that only the runtime may name, each with what to do instead.
const BANNED_PATHS: &[(&str, &str)] = &[
    ("std::time::Instant", "take `base::Mono` as an argument"),
    ("std::time::SystemTime", "take `base::Wall` as an argument"),
    ("std::net::TcpListener", "give the runtime an `Output`"),
    ("std::net::TcpStream", "give the runtime an `Output`"),
    ("std::net::UdpSocket", "give the runtime an `Output`"),
    ("std::net::ToSocketAddrs", "names are resolved in src/runtime"),
    ("std::os", "leave the operating system to src/runtime"),
    ("std::fs", "let src/runtime read it and take the bytes as an argument"),
    ("std::io::stdin", "I/O is in src/runtime"),
    ("std::io::stdout", "I/O is in src/runtime"),
    ("std::io::stderr", "report through `tracing`"),
    ("std::env", "take it as an argument; main.rs asks the environment"),
    ("std::process", "return an error; main.rs ends the process"),
    ("std::thread", "threads belong to src/runtime; a shard is one"),
    ("std::thread_local", "keep the state in a struct"),
    ("std::sync::Mutex", "shards share nothing: send a mailbox message"),
    ("std::sync::RwLock", "shards share nothing: send a mailbox message"),
    ("std::sync::Condvar", "shards share nothing: send a mailbox message"),
    ("std::sync::Barrier", "shards share nothing: send a mailbox message"),
    ("std::sync::mpsc", "shards share nothing: send a mailbox message"),
    ("std::sync::OnceLock", "keep the state in a struct"),
    ("std::sync::LazyLock", "keep the state in a struct"),
    ("std::future", "return a state; only src/runtime awaits"),
    ("std::task", "return a state; only src/runtime awaits"),
    ("anyhow", "use an error enum of the module"),
    ("clap", "only src/config/args.rs knows the command line"),
    ("crossbeam_queue", "it belongs to src/runtime"),
    ("glommio", "it belongs to src/runtime"),
    ("io_uring", "it belongs to src/runtime"),
    ("libc", "it belongs to src/runtime"),
    ("mimalloc", "it belongs to main.rs"),
    ("parking_lot", "shards share nothing: send a mailbox message"),
    ("rand", "take random bits or a seeded generator as an argument"),
    ("getrandom", "take random bits or a seeded generator as an argument"),
    ("signal_hook", "it belongs to src/runtime"),
    ("socket2", "it belongs to src/runtime"),
    ("tokio", "it belongs to src/runtime"),
    ("tracing_subscriber", "it belongs to main.rs"),
];

/// Words that only the runtime may use, each with what to do instead.
const BANNED_WORDS: &[(&str, &str)] = &[
    ("async", "return a state and take the next event by `handle_*`"),
    ("await", "return a state and take the next event by `handle_*`"),
    ("thread_local", "keep the state in a struct"),
];

/// The one file that may name a crate of the list.
const EXEMPT: &[(&str, &str)] = &[("src/config/args.rs", "clap")];

/// Complaints about one source file of the library.
pub(crate) fn check(path: &str, code: &str) -> Vec<String> {
    let is_checked = path.starts_with("src/") && !path.starts_with("src/runtime/") && path != "src/main.rs";
    if !is_checked {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    let tokens = code::tokens(code);
    for (line, word) in &tokens {
        for (banned, instead) in BANNED_WORDS {
            if word == banned {
                complaints.push(format!("{path}:{line}: no `{banned}` below the runtime: {instead}"));
            }
        }
    }
    for (line, used) in paths(&tokens) {
        let banned = BANNED_PATHS.iter().find(|(banned, _)| is_below(&used, banned));
        if let Some((banned, instead)) = banned.filter(|(banned, _)| !EXEMPT.contains(&(path, banned))) {
            complaints.push(format!("{path}:{line}: no `{banned}` below the runtime: {instead}"));
        }
    }
    complaints
}

/// Complaints about unsafe code outside of `listed`, and about files listed in vain.
pub(crate) fn check_unsafe(tree: &Tree, listed: &[&str]) -> Vec<String> {
    let has_unsafe = |code: &str| code::tokens(code).iter().any(|(_, token)| *token == "unsafe");
    let mut complaints: Vec<String> = tree
        .rust()
        .filter(|file| has_unsafe(&file.code) && !listed.contains(&file.path.as_str()))
        .map(|file| {
            let path = &file.path;
            format!("{path}: unsafe code in a file that is not listed: find a safe way, or list it in tests/tidy/purity.rs")
        })
        .collect();
    for path in listed {
        if !path.starts_with("src/runtime/") {
            complaints.push(format!("{path}: unsafe code belongs to src/runtime: move it there"));
        }
        if !tree.file(path).is_some_and(|file| has_unsafe(&file.code)) {
            complaints
                .push(format!("{path}: holds no unsafe code: take it off the list in tests/tidy/purity.rs"));
        }
    }
    complaints
}

fn is_below(path: &str, banned: &str) -> bool {
    path.strip_prefix(banned).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// All paths of two segments and more, groups unfolded; of `use` also those of one.
fn paths(tokens: &[(usize, &str)]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let is_use = tokens[at].1 == "use";
        let starts = is_word(tokens[at].1) && tokens.get(at + 1).is_some_and(|(_, token)| *token == "::");
        if is_use {
            at = unfold(tokens, at + 1, "", &mut found);
        } else if starts {
            at = unfold(tokens, at, "", &mut found);
        } else {
            at += 1;
        }
    }
    found
}

/// Reads the path or tree of paths at `at`, adds what it names to `found`, and returns where it ends.
fn unfold(tokens: &[(usize, &str)], mut at: usize, prefix: &str, found: &mut Vec<(usize, String)>) -> usize {
    let mut path = prefix.to_owned();
    let line = tokens.get(at).map_or(0, |(line, _)| *line);
    while let Some((_, token)) = tokens.get(at) {
        match *token {
            "::" => at += 1,
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|(_, token)| *token != "}") {
                    let next = unfold(tokens, at, &path, found);
                    at = next.max(at + usize::from(next == at));
                    at += usize::from(tokens.get(at).is_some_and(|(_, token)| *token == ","));
                }
                return at + 1;
            }
            word if is_word(word) => {
                if !path.is_empty() && path != prefix && tokens[at - 1].1 != "::" {
                    break;
                }
                if !path.is_empty() {
                    path.push_str("::");
                }
                path.push_str(word);
                at += 1;
            }
            _ => break,
        }
    }
    found.push((line, path));
    at
}

fn is_word(token: &str) -> bool {
    token.starts_with(|char: char| char.is_alphabetic() || char == '_')
}

#[test]
fn what_touches_the_world_is_found() {
    for (code, banned) in [
        ("use std::time::Instant;", "std::time::Instant"),
        ("use std::time::{Duration, SystemTime};", "std::time::SystemTime"),
        ("use std::{fmt, fs};", "std::fs"),
        ("use std::{fmt, net::{IpAddr, TcpStream}};", "std::net::TcpStream"),
        ("let x = std::thread::spawn(f);", "std::thread"),
        ("let x: std::sync::Mutex<u8> = y;", "std::sync::Mutex"),
        ("use std::sync::{Arc, RwLock};", "std::sync::RwLock"),
        ("async fn f() {}", "async"),
        ("x.await", "await"),
        ("use libc::c_int;", "libc"),
        ("use glommio;", "glommio"),
        ("let n = io_uring::IoUring::new(8);", "io_uring"),
        ("thread_local! { static X: u8 = 0; }", "thread_local"),
        ("use clap::Command;", "clap"),
    ] {
        let complaints = check("src/session/mod.rs", code);
        assert_eq!(complaints.len(), 1, "{code}: {complaints:?}");
        assert!(complaints[0].contains(&format!("no `{banned}`")), "{complaints:?}");
        assert_eq!(check("src/runtime/net.rs", code), Vec::<String>::new());
    }
}

#[test]
fn what_is_pure_is_left_alone() {
    for code in [
        "use std::time::Duration; use std::net::{IpAddr, SocketAddr}; use std::sync::Arc;",
        "use crate::runtime_of::x; use std::fmt::{self, Display};",
        "let fs = 1; let x = a::libc; asynchronous();",
        "use std::path::PathBuf as P; fn f(x: std::fmt::Result) -> u8 { std::mem::take(x) }",
    ] {
        assert_eq!(check("src/session/mod.rs", code), Vec::<String>::new(), "{code}");
    }
    assert_eq!(check("src/config/args.rs", "use clap::Command;"), Vec::<String>::new());
}

#[test]
fn unlisted_and_idle_unsafe_is_found() {
    let tree = Tree::of(&[
        ("src/base/x.rs", "fn f() { unsafe { g() } }"),
        ("src/runtime/a.rs", "unsafe fn f() {}"),
        ("src/runtime/b.rs", "// unsafe\n#![deny(unsafe_code)]"),
    ]);
    assert_eq!(check_unsafe(&tree, &["src/runtime/a.rs"]).len(), 1);
    assert_eq!(check_unsafe(&tree, &["src/runtime/a.rs", "src/base/x.rs"]).len(), 1);
    assert_eq!(check_unsafe(&tree, &["src/runtime/a.rs", "src/runtime/b.rs"]).len(), 2);
    assert_eq!(check_unsafe(&tree, &["src/runtime/a.rs", "src/runtime/gone.rs"]).len(), 2);
}
