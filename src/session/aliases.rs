//! Topic aliases of one connection (MQTT 5 section 3.3.2.3.4). They end with the connection.

use super::violation::Violation;
use std::num::NonZeroU16;
use std::rc::Rc;

/// Aliases the client defined.
#[derive(Default, Debug)]
pub struct Incoming {
    topics: Vec<Option<Rc<str>>>,
}

impl Incoming {
    /// The topic of a PUBLISH that carries an alias; defines the alias when the topic comes with it.
    ///
    /// # Errors
    /// [`Violation::TopicAlias`] over `maximum`, [`Violation::TopicAliasUndefined`] if nothing was defined.
    pub fn resolve(&mut self, alias: NonZeroU16, topic: &str, maximum: u16) -> Result<Rc<str>, Violation> {
        // [MQTT-3.3.2-9]
        if alias.get() > maximum {
            return Err(Violation::TopicAlias);
        }
        let index = usize::from(alias.get()) - 1;
        if topic.is_empty() {
            return self.topics.get(index).cloned().flatten().ok_or(Violation::TopicAliasUndefined);
        }
        if self.topics.len() <= index {
            self.topics.resize(index + 1, None);
        }
        let slot = &mut self.topics[index];
        match slot {
            Some(known) if **known == *topic => Ok(Rc::clone(known)),
            _ => Ok(Rc::clone(slot.insert(Rc::from(topic)))),
        }
    }
}

/// Aliases this broker defined: the first topics of a connection get one each.
///
/// A topic is known by its keyed 64-bit hash; the table is short, so it is searched from the start.
#[derive(Debug)]
pub struct Outgoing {
    hashes: Vec<u64>,
    maximum: u16,
}

/// How a delivery names its topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Naming {
    /// By topic only.
    Topic,
    /// By topic, defining an alias.
    Define(NonZeroU16),
    /// By alias only.
    Alias(NonZeroU16),
}

impl Outgoing {
    /// At most `maximum` aliases: the smaller of what the client takes and what the operator allows. [MQTT-3.1.2-26]
    #[must_use]
    pub fn new(maximum: u16) -> Self {
        Self { hashes: Vec::new(), maximum }
    }

    /// How to name the topic with this hash in the packet that is encoded next. The packet must then be sent.
    pub fn name(&mut self, topic_hash: u64) -> Naming {
        if let Some(index) = self.hashes.iter().position(|hash| *hash == topic_hash) {
            return Naming::Alias(alias_of(index));
        }
        if self.hashes.len() < usize::from(self.maximum) {
            self.hashes.push(topic_hash);
            return Naming::Define(alias_of(self.hashes.len() - 1));
        }
        Naming::Topic
    }
}

fn alias_of(index: usize) -> NonZeroU16 {
    u16::try_from(index + 1).ok().and_then(NonZeroU16::new).expect("bounded by a u16 maximum")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alias(n: u16) -> NonZeroU16 {
        NonZeroU16::new(n).unwrap()
    }

    #[test]
    fn an_alias_is_defined_used_and_redefined() {
        let mut incoming = Incoming::default();
        assert_eq!(incoming.resolve(alias(2), "", 4), Err(Violation::TopicAliasUndefined));
        assert_eq!(incoming.resolve(alias(2), "a", 4).as_deref(), Ok("a"));
        assert_eq!(incoming.resolve(alias(2), "", 4).as_deref(), Ok("a"));
        assert_eq!(incoming.resolve(alias(2), "b", 4).as_deref(), Ok("b"));
        assert_eq!(incoming.resolve(alias(2), "", 4).as_deref(), Ok("b"));
        assert_eq!(incoming.resolve(alias(1), "", 4), Err(Violation::TopicAliasUndefined));
        assert_eq!(incoming.resolve(alias(5), "c", 4), Err(Violation::TopicAlias));
    }

    #[test]
    fn outgoing_aliases_stop_at_the_maximum() {
        let mut outgoing = Outgoing::new(2);
        assert_eq!(outgoing.name(10), Naming::Define(alias(1)));
        assert_eq!(outgoing.name(10), Naming::Alias(alias(1)));
        assert_eq!(outgoing.name(11), Naming::Define(alias(2)));
        assert_eq!(outgoing.name(12), Naming::Topic);
        assert_eq!(outgoing.name(11), Naming::Alias(alias(2)));
        assert_eq!(Outgoing::new(0).name(1), Naming::Topic);
    }
}
