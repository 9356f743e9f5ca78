//! Just enough of Rust's lexical rules to look at code without being misled by comments and literals.

/// `text` with comments and the insides of string, byte and character literals turned to spaces; line breaks stay.
pub(crate) fn blank(text: &str) -> String {
    let mut rest = text;
    let mut code = String::with_capacity(text.len());
    while let Some(char) = rest.chars().next() {
        let previous_is_word = code.ends_with(|char: char| char.is_alphanumeric() || char == '_');
        let hidden_len = comment_len(rest).or_else(|| {
            if previous_is_word {
                string_len(rest)
            } else {
                raw_string_len(rest).or_else(|| string_len(rest))
            }
        });
        let hidden_len = hidden_len.or_else(|| char_literal_len(rest));
        let len = hidden_len.unwrap_or_else(|| char.len_utf8());
        let (token, after) = rest.split_at(len);
        if hidden_len.is_some() {
            code.extend(token.chars().map(|char| if char == '\n' { '\n' } else { ' ' }));
        } else {
            code.push_str(token);
        }
        rest = after;
    }
    code
}

/// Identifiers and single punctuation characters of blanked code, each with its line counted from 1; `::` is one.
pub(crate) fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut tokens = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(char) = rest.chars().next() {
            let len = if is_word(char) {
                rest.find(|char| !is_word(char)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                char.len_utf8()
            };
            let (token, after) = rest.split_at(len);
            tokens.push((index + 1, token));
            rest = after.trim_start();
        }
    }
    tokens
}

/// For each line of blanked code, whether it is inside a `#[cfg(test)]` item.
pub(crate) fn test_lines(code: &str) -> Vec<bool> {
    let mut is_test = vec![false; code.lines().count() + 1];
    let tokens = tokens(code);
    for start in 0..tokens.len() {
        let words: Vec<&str> = tokens[start..].iter().take(7).map(|(_, token)| *token).collect();
        if words != ["#", "[", "cfg", "(", "test", ")", "]"] {
            continue;
        }
        let first = tokens[start].0;
        let last = item_end(&tokens[start + 7..]).unwrap_or(is_test.len() - 1);
        is_test[first - 1..last].fill(true);
    }
    is_test
}

/// The last line of the item that starts here: at its `;` or at the brace that closes its first.
fn item_end(tokens: &[(usize, &str)]) -> Option<usize> {
    let mut depth = 0_usize;
    for (line, token) in tokens {
        match *token {
            "{" => depth += 1,
            "}" if depth == 1 => return Some(*line),
            "}" => depth = depth.checked_sub(1)?,
            ";" if depth == 0 => return Some(*line),
            _ => {}
        }
    }
    None
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

fn comment_len(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    let mut depth = 0_usize;
    let mut at = 0;
    loop {
        let rest = text.get(at..)?;
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if depth == 0 {
            return (at > 0).then_some(at);
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
}

fn raw_string_len(text: &str) -> Option<usize> {
    let after_prefix = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = after_prefix.bytes().take_while(|byte| *byte == b'#').count();
    let inside = after_prefix[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let inside_len = inside.find(&end)?;
    Some(text.len() - inside.len() + inside_len + end.len())
}

fn string_len(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('"')?;
    let mut is_escaped = false;
    for (index, byte) in inside.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return Some(index + 2),
            _ => {}
        }
    }
    None
}

/// A character literal, not a lifetime: a quote follows after one character or one escape.
fn char_literal_len(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('\'')?;
    let char = inside.chars().next()?;
    if char == '\\' {
        let end = inside.get(2..)?.find('\'')?;
        return Some(end + 4);
    }
    inside[char.len_utf8()..].starts_with('\'').then_some(char.len_utf8() + 2)
}

#[test]
fn comments_and_literals_are_blanked() {
    for (text, code) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        ("x(\"a \\\" // b\")", "x(           )"),
        ("x(r#\"a \" b\"#, b)", "x(          , b)"),
        ("x(br\"a\")", "x(     )"),
        ("let for_r = \"a\";", "let for_r =    ;"),
        ("match c { '{' => 'a, '\\'' => b'x' }", "match c {     => 'a,      => b    }"),
        ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
        ("\"two\nlines\"", "    \n      "),
    ] {
        assert_eq!(blank(text), code, "{text}");
    }
}

#[test]
fn test_items_are_found() {
    let code =
        "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() { }\n}\nfn c() {}\n#[cfg(test)]\nmod more;\nfn d() {}";
    let lines: Vec<bool> = test_lines(code);
    assert_eq!(lines[..9], [false, true, true, true, true, false, true, true, false]);
}
