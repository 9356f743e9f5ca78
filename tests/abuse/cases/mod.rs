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
    /// Which counters have to grow.
    pub(crate) counters: &'static [&'static str],
}

/// Settings under which every case is itself also when it is small.
pub(crate) const SETTINGS_SMALL: &[&str] = &[
    "mqtt.prefetch=256",
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
        counters: &[
            "quelea_connections_refused_total{cause=\"login_timeout\"}",
            "quelea_connections_closed_total{cause=\"keep_alive_timeout\"}",
        ],
    },
    Case {
        name: "half-open",
        settings: &[],
        run: sockets::half_open,
        causes: &[],
        counters: &["quelea_connections_refused_total{cause=\"lost\"}"],
    },
    Case {
        name: "churn",
        settings: &[],
        run: sockets::churn,
        causes: &[],
        counters: &["quelea_connections_closed_total{cause=\"disconnect\"}"],
    },
    Case {
        name: "other-protocols",
        settings: &["mqtt.login_timeout=1000"],
        run: sockets::other_protocols,
        causes: &["closing a connection", "no CONNECT in time; its bound is mqtt.login_timeout"],
        counters: &[
            "quelea_connections_refused_total{cause=\"not_mqtt\"}",
            "quelea_connections_refused_total{cause=\"login_timeout\"}",
        ],
    },
    Case {
        name: "id-fight",
        settings: &[],
        run: sessions::id_fight,
        causes: &[],
        counters: &["quelea_connections_closed_total{cause=\"taken_over\"}"],
    },
    Case {
        name: "session-flood",
        settings: &[],
        run: sessions::session_flood,
        causes: &[],
        counters: &["quelea_sessions_expired_total"],
    },
    Case {
        name: "wills",
        settings: &[],
        run: sessions::wills,
        causes: &[],
        counters: &["quelea_wills_total", "quelea_connections_closed_total{cause=\"lost\"}"],
    },
    Case { name: "levels", settings: &[], run: topics::levels, causes: &[], counters: &[] },
    Case { name: "wildcards", settings: &[], run: topics::wildcards, causes: &[], counters: &[] },
    Case {
        name: "properties",
        settings: &[],
        run: topics::properties,
        causes: &[
            "closing a connection: field reaches over the end of the packet",
            "closing a connection: unknown property",
        ],
        counters: &["quelea_connections_closed_total{cause=\"malformed\"}"],
    },
    Case {
        name: "never-read",
        settings: &["quelea.qos0.max_bytes=256KiB"],
        run: floods::never_read,
        causes: &["raise mqtt.mailbox_soft_limit or quelea.qos0.max_bytes"],
        counters: &["quelea_messages_dropped_total{cause=\"qos0_backlog\"}"],
    },
    Case {
        name: "never-acknowledge",
        settings: &["quelea.session.queue.max_messages=1000", "mqtt.prefetch=256"],
        run: floods::never_acknowledge,
        causes: &["raise quelea.session.queue.max_messages"],
        counters: &["quelea_messages_dropped_total{cause=\"queue_full_oldest\"}"],
    },
    Case {
        name: "retained-flood",
        settings: &["mqtt.retained_message_store.max_messages=20000"],
        run: floods::retained,
        causes: &["raise mqtt.retained_message_store.max_messages"],
        counters: &["quelea_messages_dropped_total{cause=\"retained_store_full\"}"],
    },
];
