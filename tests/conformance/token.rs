//! Words of a packet line: `key=value`, `"quoted \x00"`, `"x"*1000`.

/// A word, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Token {
    /// What stands before `=`; `None` for a bare word.
    pub key: Option<String>,
    /// The bytes of the value, or of the bare word.
    pub value: Vec<u8>,
    /// Whether the value stood in quotes.
    pub quoted: bool,
}

impl Token {
    /// The value as text.
    pub(crate) fn text(&self) -> Result<&str, String> {
        std::str::from_utf8(&self.value).map_err(|_| format!("{:?} is not text", self.value))
    }
}

/// Splits a line at spaces outside quotes.
pub(crate) fn split(line: &str) -> Result<Vec<Token>, String> {
    let mut rest = line.trim();
    let mut tokens = Vec::new();
    while !rest.is_empty() {
        let (token, after) = one(rest)?;
        tokens.push(token);
        rest = after.trim_start();
    }
    Ok(tokens)
}

fn one(text: &str) -> Result<(Token, &str), String> {
    let stop = text.find([' ', '=', '"']).unwrap_or(text.len());
    let (head, rest) = text.split_at(stop);
    match rest.as_bytes().first() {
        Some(b'=') => {
            let (value, quoted, after) = value(&rest[1..])?;
            Ok((Token { key: Some(head.into()), value, quoted }, after))
        }
        _ => {
            let (value, quoted, after) = value(text)?;
            Ok((Token { key: None, value, quoted }, after))
        }
    }
}

fn value(text: &str) -> Result<(Vec<u8>, bool, &str), String> {
    if !text.starts_with('"') {
        let stop = text.find(' ').unwrap_or(text.len());
        return Ok((text.as_bytes()[..stop].to_vec(), false, &text[stop..]));
    }
    let (bytes, rest) = quoted(&text[1..])?;
    let Some(times) = rest.strip_prefix('*') else { return Ok((bytes, true, rest)) };
    let stop = times.find(' ').unwrap_or(times.len());
    let count: usize = times[..stop].parse().map_err(|_| format!("`{times}` is no count"))?;
    Ok((bytes.repeat(count), true, &times[stop..]))
}

/// The bytes up to the closing quote, and what follows it.
fn quoted(text: &str) -> Result<(Vec<u8>, &str), String> {
    let mut bytes = Vec::new();
    let mut at = 0;
    loop {
        let c = text[at..].chars().next().ok_or("a quote is not closed")?;
        at += c.len_utf8();
        match c {
            '"' => return Ok((bytes, &text[at..])),
            '\\' => at += escape(&text[at..], &mut bytes)?,
            _ => bytes.extend_from_slice(c.to_string().as_bytes()),
        }
    }
}

/// Appends what an escape stands for; returns how much of `text` it took.
fn escape(text: &str, bytes: &mut Vec<u8>) -> Result<usize, String> {
    match text.as_bytes().first() {
        Some(b'x') => {
            let digits = text.get(1..3).ok_or("\\x wants two digits")?;
            bytes.push(u8::from_str_radix(digits, 16).map_err(|_| format!("`{digits}` is not hex"))?);
            Ok(3)
        }
        Some(&c @ (b'"' | b'\\')) => {
            bytes.push(c);
            Ok(1)
        }
        _ => Err("an escape is \\xNN, \\\" or \\\\".into()),
    }
}

/// Reads a number, decimal or 0x.
pub(crate) fn number(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("`{text}` is no number"))
}

#[test]
fn words_are_split() {
    let tokens = split(r#"PUBLISH topic=a/b payload="x y\x00\""*2 * id=0x10"#).unwrap();
    let texts: Vec<_> = tokens.iter().map(|t| (t.key.as_deref(), t.text().unwrap())).collect();
    let expected = [
        (None, "PUBLISH"),
        (Some("topic"), "a/b"),
        (Some("payload"), "x y\0\"x y\0\""),
        (None, "*"),
        (Some("id"), "0x10"),
    ];
    assert_eq!(texts, expected);
    assert_eq!(number("0x10"), Ok(16));
    for bad in ["\"open", "a=\"\\q\"", "\"x\"*y"] {
        assert!(split(bad).is_err(), "{bad}");
    }
}
