//! The field a key fills, seen through its type: sets it from text, shows it as text that sets it to the same again.

use super::keys::{Form, Unit};
use super::level::LogLevel;
use super::value;
use crate::{log, queue, route};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// A field of the draft.
pub(super) enum Slot<'a> {
    Number(&'a mut dyn Number),
    Boolean(&'a mut bool),
    Choice(&'a mut dyn Choice),
    Text(&'a mut String),
    Path(&'a mut PathBuf),
    /// Nothing to store: only one value exists.
    Fixed(&'static str),
    /// `mqtt.listeners.tcp.<name>`: kept by the draft, because the key is a family.
    Listener,
    Address(&'a mut Option<SocketAddr>),
    Port(&'a mut Option<u16>),
    Ip(&'a mut IpAddr),
}

impl Slot<'_> {
    /// Sets the field if `text` is of `form`. Returns whether it was.
    pub(super) fn set(self, form: &Form, text: &str) -> bool {
        match (self, form) {
            (Self::Number(number), Form::Number { min, max, unit, infinity }) => {
                if *infinity && text == "infinity" {
                    return number.store(None);
                }
                let parsed = if *unit == Unit::Bytes { value::bytes(text) } else { value::integer(text) };
                parsed.is_some_and(|value| (min..=max).contains(&&value) && number.store(Some(value)))
            }
            (Self::Boolean(flag), Form::Boolean) => value::boolean(text).map(|value| *flag = value).is_some(),
            (Self::Choice(choice), Form::Choice(_)) => choice.choose(text),
            (Self::Text(field), Form::Text { size_max }) => {
                let fits = (1..=*size_max).contains(&text.len());
                if fits {
                    text.clone_into(field);
                }
                fits
            }
            (Self::Path(path), Form::Path) => {
                *path = PathBuf::from(text);
                !text.is_empty() && !text.contains('\0')
            }
            (Self::Fixed(only), Form::Only { .. }) => text == only,
            (Self::Address(field), Form::Address) => or_none(field, text, value::local_listener),
            (Self::Port(field), Form::Port) => or_none(field, text, value::port),
            (Self::Ip(field), Form::Ip) => text.parse().map(|ip| *field = ip).is_ok(),
            _ => unreachable!("the table gives every key a slot of its form"),
        }
    }

    /// The field as text.
    pub(super) fn show(self) -> String {
        match self {
            Self::Number(number) => {
                number.load().map_or_else(|| "infinity".to_owned(), |value| value.to_string())
            }
            Self::Boolean(flag) => flag.to_string(),
            Self::Choice(choice) => choice.name().to_owned(),
            Self::Text(text) => text.clone(),
            Self::Path(path) => path.display().to_string(),
            Self::Fixed(only) => only.to_owned(),
            Self::Listener => super::draft::DEFAULT_PORT.to_string(),
            Self::Address(address) => {
                address.map_or_else(|| "none".to_owned(), |address| address.to_string())
            }
            Self::Port(port) => port.map_or_else(|| "none".to_owned(), |port| port.to_string()),
            Self::Ip(ip) => ip.to_string(),
        }
    }
}

/// Sets the field to what `parse` makes of the text, or to nothing.
fn or_none<T>(field: &mut Option<T>, text: &str, parse: fn(&str) -> Option<T>) -> bool {
    *field = parse(text);
    field.is_some() || text == "none"
}

/// An integer field; `None` is `infinity`.
pub(super) trait Number {
    /// Stores `value`; `false` if the field cannot hold it.
    fn store(&mut self, value: Option<u64>) -> bool;
    /// What is stored.
    fn load(&self) -> Option<u64>;
}

macro_rules! number {
    ($($integer:ty),*) => {$(
        impl Number for $integer {
            fn store(&mut self, value: Option<u64>) -> bool {
                value.and_then(|value| Self::try_from(value).ok()).map(|value| *self = value).is_some()
            }

            fn load(&self) -> Option<u64> {
                u64::try_from(*self).ok()
            }
        }

        impl Number for Option<$integer> {
            fn store(&mut self, value: Option<u64>) -> bool {
                let Some(value) = value else {
                    *self = None;
                    return true;
                };
                <$integer>::try_from(value).map(|value| *self = Some(value)).is_ok()
            }

            fn load(&self) -> Option<u64> {
                self.and_then(|value| u64::try_from(value).ok())
            }
        }
    )*};
}
number!(u16, u32, u64, usize);

/// A field with named values.
pub(super) trait Choice {
    /// Stores the value of that name; `false` if there is none.
    fn choose(&mut self, name: &str) -> bool;
    /// The name of what is stored.
    fn name(&self) -> &'static str;
}

/// A type whose values have names in a configuration.
pub(super) trait Named: Copy + PartialEq + 'static {
    /// All values, each with its name.
    const NAMES: &'static [(&'static str, Self)];

    /// All names.
    fn names() -> Vec<&'static str> {
        Self::NAMES.iter().map(|(name, _)| *name).collect()
    }
}

impl<T: Named> Choice for T {
    fn choose(&mut self, name: &str) -> bool {
        let found = T::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| *self = *value).is_some()
    }

    fn name(&self) -> &'static str {
        T::NAMES
            .iter()
            .find(|(_, value)| value == self)
            .map(|(name, _)| *name)
            .expect("every value has a name")
    }
}

impl Named for LogLevel {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("debug", Self::Debug),
        ("info", Self::Info),
        ("warning", Self::Warning),
        ("error", Self::Error),
        ("critical", Self::Critical),
        ("none", Self::None),
    ];
}

impl Named for log::SyncMode {
    const NAMES: &'static [(&'static str, Self)] =
        &[("commit", Self::Commit), ("interval", Self::Interval), ("none", Self::None)];
}

impl Named for queue::Overflow {
    const NAMES: &'static [(&'static str, Self)] =
        &[("drop-head", Self::DropHead), ("reject-publish", Self::RejectPublish)];
}

impl Named for route::Strategy {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("round-robin", Self::RoundRobin),
        ("least-in-flight", Self::LeastInFlight),
        ("sticky", Self::Sticky),
        ("hash-client-id", Self::HashClientId),
        ("hash-topic", Self::HashTopic),
    ];
}
