//! Topic names and topic filters: what is well-formed (MQTT 5 section 4.7), and how a filter matches.

/// The longest topic name or filter, in bytes: the length of a UTF-8 string is 16 bits.
pub const TOPIC_SIZE_MAX: usize = 65_535;

const SHARE_PREFIX: &str = "$share/";

/// A topic filter taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Filter<'a> {
    /// An ordinary filter.
    Plain(&'a str),
    /// `$share/{group}/{filter}`.
    Shared {
        /// The share name.
        group: &'a str,
        /// The filter that selects messages.
        filter: &'a str,
    },
}

/// Whether messages may be published to `topic`.
#[must_use]
pub fn is_topic_name(topic: &str) -> bool {
    // [MQTT-4.7.3-1] [MQTT-4.7.1-1]
    !topic.is_empty() && topic.len() <= TOPIC_SIZE_MAX && !topic.bytes().any(|b| matches!(b, 0 | b'+' | b'#'))
}

/// Whether `filter` is a well-formed filter of a non-shared subscription.
#[must_use]
pub fn is_topic_filter(filter: &str) -> bool {
    // [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-4.7.3-3]
    if filter.is_empty() || filter.len() > TOPIC_SIZE_MAX || filter.as_bytes().contains(&0) {
        return false;
    }
    if !has_wildcard(filter) {
        return true;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let last = levels.peek().is_none();
        // [MQTT-4.7.1-1] [MQTT-4.7.1-2]
        let well_formed = match level {
            "#" => last,
            "+" => true,
            _ => !has_wildcard(level),
        };
        if !well_formed {
            return false;
        }
    }
    true
}

/// Whether the filter has a wildcard character.
#[must_use]
pub fn has_wildcard(filter: &str) -> bool {
    filter.bytes().any(|b| matches!(b, b'+' | b'#'))
}

/// Takes a subscription's filter apart; `None` if it is not well-formed.
#[must_use]
pub fn parse_filter(filter: &str) -> Option<Filter<'_>> {
    let Some(rest) = filter.strip_prefix(SHARE_PREFIX) else {
        // `$share` alone names no group; it is an ordinary (useless) filter.
        return is_topic_filter(filter).then_some(Filter::Plain(filter));
    };
    // [MQTT-4.8.2-1] [MQTT-4.8.2-2]
    let (group, filter) = rest.split_once('/')?;
    let well_formed = !group.is_empty()
        && !has_wildcard(group)
        && !group.as_bytes().contains(&0)
        && is_topic_filter(filter);
    well_formed.then_some(Filter::Shared { group, filter })
}

/// Whether a well-formed `filter` matches `topic`: the rules of section 4.7 read literally, level by level.
///
/// The tries are faster; this is their oracle, and what small sets of filters use.
#[must_use]
pub fn matches(filter: &str, topic: &str) -> bool {
    // [MQTT-4.7.2-1]
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut topic_levels = topic.split('/');
    for filter_level in filter.split('/') {
        if filter_level == "#" {
            return true;
        }
        match topic_levels.next() {
            Some(topic_level) if filter_level == "+" || filter_level == topic_level => {}
            _ => return false,
        }
    }
    topic_levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_the_specification_says() {
        let cases = [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/#", "sport", true),
            ("#", "/", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/x", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("a/b", "a/B", false),
        ];
        for (filter, topic, expected) in cases {
            assert_eq!(matches(filter, topic), expected, "{filter} on {topic}");
        }
    }

    #[test]
    fn names_and_filters_are_checked() {
        for good in ["a", "/", "a b/ü", "$SYS/x", "//"] {
            assert!(is_topic_name(good), "{good}");
        }
        for bad in ["", "a/#", "+", "a\0b"] {
            assert!(!is_topic_name(bad), "{bad:?}");
        }
        for good in ["#", "+", "a/+/b", "+/+/#", "/#", "a"] {
            assert!(is_topic_filter(good), "{good}");
        }
        for bad in ["", "a#", "a/#/b", "a+", "+a/b", "a\0"] {
            assert!(!is_topic_filter(bad), "{bad:?}");
        }
    }

    #[test]
    fn shared_filters_are_taken_apart() {
        assert_eq!(parse_filter("$share/g/a/+"), Some(Filter::Shared { group: "g", filter: "a/+" }));
        assert_eq!(parse_filter("a"), Some(Filter::Plain("a")));
        for bad in ["$share/g", "$share//a", "$share/g/", "$share/+/a", "$share/g#/a"] {
            assert_eq!(parse_filter(bad), None, "{bad}");
        }
    }
}
