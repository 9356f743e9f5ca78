//! Text to settings: lines, keys, quotes and comments. Knows no key and no meaning; the rules are in the module's page.
//!
//! Cost: one pass, one copy of each key and value.

use super::File;
use super::error::{Error, Place, Problem, quotable};

/// One `key = value`, before anybody asked what it means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Setting {
    /// Where it was read.
    pub(super) place: Place,
    /// Words joined by dots.
    pub(super) key: String,
    /// Without quotes, comment and blanks around it.
    pub(super) value: String,
}

/// The settings of a file, in order; lines that are none go to `errors`.
pub(super) fn parse_file(file: File<'_>, errors: &mut Vec<Error>) -> Vec<Setting> {
    let mut settings = Vec::new();
    // Windows editors put a byte order mark in front.
    let text = file.text.strip_prefix('\u{feff}').unwrap_or(file.text);
    for (index, line) in text.lines().enumerate() {
        let place = Place::Line { file: file.name.to_owned(), line: index.saturating_add(1) };
        match parse_line(line) {
            Ok(Some((key, value))) => settings.push(Setting { place, key, value }),
            Ok(None) => {}
            Err(problem) => errors.push(Error { place, problem }),
        }
    }
    settings
}

/// The settings of the command line, in order; arguments that are none go to `errors`.
pub(super) fn parse_sets(sets: &[String], errors: &mut Vec<Error>) -> Vec<Setting> {
    let mut settings = Vec::new();
    for (index, set) in sets.iter().enumerate() {
        let place = Place::Set(index.saturating_add(1));
        let parsed = match set.split_once('=') {
            Some((key, value)) => parse_key(trim(key)).map(|key| (key, trim(value).to_owned())),
            None => Err(Problem::NotASetting),
        };
        match parsed {
            Ok((key, value)) => settings.push(Setting { place, key, value }),
            Err(problem) => errors.push(Error { place, problem }),
        }
    }
    settings
}

fn parse_line(line: &str) -> Result<Option<(String, String)>, Problem> {
    let line = trim(line);
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let before_comment = line.split('#').next().unwrap_or(line);
    let Some((key, _)) = before_comment.split_once('=') else {
        let is_include = before_comment.split([' ', '\t']).next() == Some("include");
        return Err(if is_include { Problem::Include } else { Problem::NotASetting });
    };
    let (_, value) = line.split_once('=').ok_or(Problem::NotASetting)?;
    let key = parse_key(trim(key))?;
    let value = parse_value(&key, trim(value))?;
    Ok(Some((key, value)))
}

fn parse_key(key: &str) -> Result<String, Problem> {
    let is_word = |word: &str| {
        !word.is_empty()
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    };
    if key.split('.').all(is_word) {
        Ok(key.to_owned())
    } else {
        Err(Problem::MalformedKey { key: quotable(key) })
    }
}

fn parse_value(key: &str, value: &str) -> Result<String, Problem> {
    let Some(quoted) = value.strip_prefix('\'') else {
        let bare = trim(value.split('#').next().unwrap_or(value));
        return if bare.is_empty() {
            Err(Problem::NoValue { key: quotable(key) })
        } else {
            Ok(bare.to_owned())
        };
    };
    let Some((inside, after)) = quoted.split_once('\'') else {
        return Err(Problem::NoClosingQuote { key: quotable(key) });
    };
    let after = trim(after);
    if after.is_empty() || after.starts_with('#') {
        Ok(inside.to_owned())
    } else {
        Err(Problem::TextAfterQuote { key: quotable(key) })
    }
}

/// Blanks are spaces and tabs; the carriage return of a Windows line end has been taken off with the line feed.
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}
