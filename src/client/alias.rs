//! Topic aliases of one connection, each way. Both tables begin empty with each connection and cost nothing until used.

use super::error::Violation;
use std::num::NonZeroU16;

/// Aliases the server has set.
#[derive(Default, Debug)]
pub(super) struct IncomingAliases {
    /// Alias `n` is at `n - 1`.
    topics: Vec<Option<Box<str>>>,
}

impl IncomingAliases {
    /// The topic of a PUBLISH with an alias: what the alias stands for, or, if there is a topic, what it stands for from now on.
    pub(super) fn resolve<'a>(
        &'a mut self,
        alias: NonZeroU16,
        topic: &'a str,
        maximum: u16,
    ) -> Result<&'a str, Violation> {
        if alias.get() > maximum {
            // [MQTT-3.3.2-11]
            return Err(Violation::TopicAlias);
        }
        let index = usize::from(alias.get()) - 1;
        if topic.is_empty() {
            return self.topics.get(index).and_then(Option::as_deref).ok_or(Violation::TopicAlias);
        }
        if self.topics.len() <= index {
            self.topics.resize(index + 1, None);
        }
        // [MQTT-3.3.2-10]
        self.topics[index] = Some(topic.into());
        Ok(topic)
    }

    /// [MQTT-3.3.2-7]
    pub(super) fn clear(&mut self) {
        self.topics = Vec::new();
    }
}

/// Aliases this client has set: the first topics it published, as many as the server takes.
#[derive(Default, Debug)]
pub(super) struct OutgoingAliases {
    /// Alias `n` is at `n - 1`.
    topics: Vec<Box<str>>,
}

impl OutgoingAliases {
    /// The alias of `topic` and whether the server knows it already; `None` if it has none. Linear: tables are small.
    pub(super) fn assign(&mut self, topic: &str, maximum: u16) -> Option<(NonZeroU16, bool)> {
        let known = self.topics.iter().position(|known| **known == *topic);
        let index = known.unwrap_or(self.topics.len());
        // [MQTT-3.3.2-9] [MQTT-3.2.2-17] [MQTT-3.2.2-18]
        let alias = u16::try_from(index + 1).ok().filter(|&alias| alias <= maximum)?;
        if known.is_none() {
            self.topics.push(topic.into());
        }
        NonZeroU16::new(alias).map(|alias| (alias, known.is_some()))
    }

    /// [MQTT-3.3.2-7]
    pub(super) fn clear(&mut self) {
        self.topics = Vec::new();
    }
}
