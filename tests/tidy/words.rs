//! Words that may not be in the tree: unfinished work, silenced tests, and paths of somebody's machine.

use crate::code;

/// In any text, each with what to do instead. Put together here, so that this file does not hold them.
const BANNED_TEXT: &[(&str, &str)] = &[
    (concat!("FIX", "ME"), "fix it, or write TODO(name): with the reason why it can wait"),
    (
        concat!("/ro", "ot/"),
        "a path of one machine: take it from the environment or from the repository's own root",
    ),
    (
        concat!("/wo", "rk/"),
        "a path of one machine: take it from the environment or from the repository's own root",
    ),
    (
        concat!("/ho", "me/"),
        "a path of one machine: take it from the environment or from the repository's own root",
    ),
    (
        concat!("/Us", "ers/"),
        "a path of one machine: take it from the environment or from the repository's own root",
    ),
];

/// In code, as tokens, each with what to do instead.
const BANNED_CODE: &[(&[&str], &str)] = &[
    (&["todo", "!"], "finish it, or leave it out"),
    (&["unimplemented", "!"], "finish it, or leave it out"),
    (&["dbg", "!"], "take it out"),
    (&["#", "[", "ignore"], "make it run, or delete it: assert today's behaviour if it is wrong"),
    (&["#", "[", "should_panic"], "return an error and assert on that"),
    (&["thread", "::", "sleep"], "wait on a condition with a deadline"),
    (&["time", "::", "sleep"], "wait on a condition with a deadline"),
    (&["timer", "::", "sleep"], "wait on a condition with a deadline"),
];

/// Complaints about a file of any kind.
pub(crate) fn check_text(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for (banned, instead) in BANNED_TEXT.iter().filter(|(banned, _)| line.contains(banned)) {
            complaints.push(format!("{path}:{}: `{banned}`: {instead}", index + 1));
        }
    }
    complaints
}

/// Complaints about Rust code.
pub(crate) fn check_code(path: &str, code: &str) -> Vec<String> {
    let tokens = code::tokens(code);
    let starts_with = |at: usize, words: &[&str]| {
        words.len() <= tokens.len() - at
            && tokens[at..].iter().zip(words).all(|((_, token), word)| token == word)
    };
    let mut complaints = Vec::new();
    for (at, (line, _)) in tokens.iter().enumerate() {
        for (banned, instead) in BANNED_CODE.iter().filter(|(banned, _)| starts_with(at, banned)) {
            complaints.push(format!("{path}:{line}: `{}`: {instead}", banned.concat()));
        }
    }
    complaints.extend(check_unwrap(path, code, &tokens));
    complaints
}

fn check_unwrap(path: &str, code: &str, tokens: &[(usize, &str)]) -> Vec<String> {
    let is_test_file = !path.starts_with("src/") || path.ends_with("/tests.rs") || path.contains("/tests/");
    if is_test_file {
        return Vec::new();
    }
    let is_test_line = code::test_lines(code);
    let calls = tokens.windows(4).filter(|window| {
        let words: Vec<&str> = window.iter().map(|(_, token)| *token).collect();
        words == [".", "unwrap", "(", ")"] && !is_test_line[window[0].0 - 1]
    });
    let complain = |window: &[(usize, &str)]| {
        format!("{path}:{}: `.unwrap()`: handle it, or `expect(\"the invariant that holds\")`", window[0].0)
    };
    calls.map(complain).collect()
}

#[test]
fn banned_text_is_found() {
    for (banned, _) in BANNED_TEXT {
        assert_eq!(check_text("README.md", &format!("fine\nsee {banned} there")).len(), 1, "{banned}");
    }
    assert_eq!(check_text("README.md", "rootless homework, a workspace"), Vec::<String>::new());
}

#[test]
fn banned_code_is_found() {
    for code in [
        "fn f() { todo!() }",
        "fn f() { unimplemented!(x) }",
        "dbg!(x);",
        "#[ignore = x]\nfn f() {}",
        "#[ignore]\nfn f() {}",
        "#[should_panic]\nfn f() {}",
        "std::thread::sleep(x);",
        "tokio::time::sleep(x);",
        "glommio::timer::sleep(x);",
        "x.unwrap();",
        "x\n    .unwrap()\n",
    ] {
        assert_eq!(check_code("src/base/x.rs", code).len(), 1, "{code}");
    }
}

#[test]
fn fine_code_is_left_alone() {
    for code in [
        "x.unwrap_or(1)",
        "#[cfg(test)]\nmod tests { fn f() { x.unwrap(); } }",
        "let todo = ignore; sleeper(x); self.sleep()",
    ] {
        assert_eq!(check_code("src/base/x.rs", code), Vec::<String>::new(), "{code}");
    }
    assert_eq!(check_code("src/base/tests.rs", "x.unwrap()"), Vec::<String>::new());
    assert_eq!(check_code("tests/it/main.rs", "x.unwrap()"), Vec::<String>::new());
}
