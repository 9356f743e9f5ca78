//! The list. Each case says what it did; what has to hold afterwards is the arena's to ask.

mod floods;
mod sessions;
mod sockets;
mod topics;

use crate::arena::Arena;

/// One kind of abuse.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Of the broker the full size runs on.
    pub(crate) settings: &'static [&'static str],
    /// Does it; says what it did.
    pub(crate) run: fn(&Arena) -> String,
    /// What the broker's log has to say.
    pub(crate) causes: &'static [&'static str],
}

/// Settings under which every case is itself also when it is small.
pub(crate) const SETTINGS_SMALL: &[&str] = &[
    "mqtt.login_timeout=1000",
    "mqtt.retained_message_store.max_messages=200",
    "quelea.session.queue.max_messages=100",
    "quelea.qos0.max_bytes=64KiB",
];

/// All of them.
pub(crate) const ALL: &[Case] = &[
    Case {
        name: "drip",
        settings: &[],
        run: sockets::drip,
        causes: &["no CONNECT in time; its bound is mqtt.login_timeout"],
    },
    Case { name: "half-open", settings: &[], run: sockets::half_open, causes: &[] },
    Case { name: "churn", settings: &[], run: sockets::churn, causes: &[] },
    Case {
        name: "other-protocols",
        settings: &["mqtt.login_timeout=1000"],
        run: sockets::other_protocols,
        causes: &["closing a connection", "no CONNECT in time; its bound is mqtt.login_timeout"],
    },
    Case { name: "id-fight", settings: &[], run: sessions::id_fight, causes: &[] },
    Case { name: "session-flood", settings: &[], run: sessions::session_flood, causes: &[] },
    Case { name: "wills", settings: &[], run: sessions::wills, causes: &[] },
    Case { name: "levels", settings: &[], run: topics::levels, causes: &[] },
    Case { name: "wildcards", settings: &[], run: topics::wildcards, causes: &[] },
    Case { name: "properties", settings: &[], run: topics::properties, causes: &[] },
    Case {
        name: "never-read",
        settings: &["quelea.qos0.max_bytes=256KiB"],
        run: floods::never_read,
        causes: &["raise mqtt.mailbox_soft_limit or quelea.qos0.max_bytes"],
    },
    Case {
        name: "never-acknowledge",
        settings: &["quelea.session.queue.max_messages=1000"],
        run: floods::never_acknowledge,
        causes: &["raise quelea.session.queue.max_messages"],
    },
    Case {
        name: "retained-flood",
        settings: &["mqtt.retained_message_store.max_messages=20000"],
        run: floods::retained,
        causes: &["raise mqtt.retained_message_store.max_messages"],
    },
];
