//! What is wrong with a configuration, and where: one variant a rule.

use std::fmt;
use thiserror::Error;

/// One thing that is wrong; displayed as one line.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{place}: {problem}")]
pub struct Error {
    /// Where it was read.
    pub place: Place,
    /// What it is.
    pub problem: Problem,
}

/// Where a setting was read; the order is the order of reading.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// A line of the configuration file.
    Line {
        /// The file's name as the operator wrote it.
        file: String,
        /// Counted from 1.
        line: usize,
    },
    /// The n-th `--set`, counted from 1.
    Set(usize),
    /// Nowhere: a default.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { file, line } => write!(f, "{file}:{line}"),
            Self::Set(number) => write!(f, "--set #{number}"),
            Self::Default => f.write_str("configuration"),
        }
    }
}

/// The rule that was broken.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Problem {
    /// Neither blank, comment nor setting.
    #[error("expected 'key = value'")]
    NotASetting,
    /// RabbitMQ has it, Quelea does not.
    #[error("'include' is not supported: put all settings into one file")]
    Include,
    /// The key is not words joined by dots.
    #[error("malformed key '{key}': a key is words of letters, digits, '_' and '-', joined by dots")]
    MalformedKey {
        /// As read.
        key: String,
    },
    /// Nothing behind the `=`.
    #[error("'{key}' has no value; write '' for an empty one")]
    NoValue {
        /// As read.
        key: String,
    },
    /// A quote was opened and not closed on the same line.
    #[error("the value of '{key}' has no closing quote on this line")]
    NoClosingQuote {
        /// As read.
        key: String,
    },
    /// Something other than a comment behind the closing quote.
    #[error("text after the closing quote of '{key}'")]
    TextAfterQuote {
        /// As read.
        key: String,
    },
    /// No key of this name.
    #[error("unknown key '{key}'{}", Hint(*nearest))]
    UnknownKey {
        /// As read.
        key: String,
        /// The key it was probably meant to be.
        nearest: Option<&'static str>,
    },
    /// A key RabbitMQ once had.
    #[error("unknown key '{key}'; use '{instead}'")]
    Replaced {
        /// As read.
        key: String,
        /// What to write today.
        instead: &'static str,
    },
    /// The value is not of the key's form, or out of its bounds.
    #[error("{key}: '{value}' is not {expected}")]
    BadValue {
        /// The key.
        key: String,
        /// As read.
        value: String,
        /// The form, with its bounds.
        expected: String,
    },
    /// Two keys contradict each other.
    #[error("{key} ({value}) is larger than {other} ({other_value})")]
    Larger {
        /// The key that must not be larger.
        key: &'static str,
        /// What it would be.
        value: u64,
        /// The key that bounds it.
        other: &'static str,
        /// What that would be.
        other_value: u64,
    },
    /// Two names, one address.
    #[error("mqtt.listeners.tcp.{name} listens on {address}, which mqtt.listeners.tcp.{other} has already")]
    SameAddress {
        /// The later name.
        name: String,
        /// The earlier name.
        other: String,
        /// The address of both.
        address: std::net::SocketAddr,
    },
    /// Every listener is `none`.
    #[error(
        "no listener is left, nobody could connect: set one, for example mqtt.listeners.tcp.default = 1883"
    )]
    NoListener,
}

/// Displays the nearest key as the end of a sentence.
struct Hint(Option<&'static str>);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(nearest) => write!(f, "; did you mean '{nearest}'?"),
            None => f.write_str("; 'quelea --help' lists all keys"),
        }
    }
}

/// What was read, fit for one line of a message: no control characters, not too long.
pub(super) fn quotable(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    let mut quotable: String =
        text.chars().take(CHARS_MAX).map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        quotable.push('…');
    }
    quotable
}
