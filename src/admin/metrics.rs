//! The metrics page: RabbitMQ's names, labels and meanings where it has the metric, in the form in which it sums over all objects
//! (its default); `quelea_` names for what it does not have.
//!
//! Queue types are called as RabbitMQ calls those of MQTT: `rabbit_mqtt_qos0_queue` for QoS 0, `rabbit_classic_queue` for QoS 1
//! and 2. Cost: about 200 lines of text, whatever the number of clients.

use super::exposition::{Exposition, Kind};
use super::overview::{DiskCounters, LAG_BOUNDS_US, Lag, Overview};
use crate::base::{QoS, Version};
use crate::log::Health;
use crate::shard::{Cause, Census, Counters};

const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
const QUEUE_TYPES: [&str; 2] = ["rabbit_mqtt_qos0_queue", "rabbit_classic_queue"];

/// The page.
#[must_use]
pub fn page(overview: &Overview) -> String {
    let mut page = Exposition::default();
    let (counters, census) = (overview.counters(), overview.census());
    process(&mut page, overview);
    connections(&mut page, overview, &counters, &census);
    messages(&mut page, &counters);
    losses(&mut page, &counters);
    queues(&mut page, overview, &counters, &census);
    memory(&mut page, overview, &census);
    log(&mut page, overview, &counters);
    shards(&mut page, overview);
    page.into_text()
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::V310 => "mqtt310",
        Version::V311 => "mqtt311",
        Version::V5 => "mqtt50",
    }
}

fn process(page: &mut Exposition, overview: &Overview) {
    let process = &overview.process;
    let build = [("product_name", "Quelea"), ("product_version", env!("CARGO_PKG_VERSION"))];
    page.family(Kind::Gauge, "rabbitmq_build_info", "What is running").sample(&build, 1);
    let node = process.node.as_str();
    let identity =
        [("rabbitmq_node", node), ("rabbitmq_cluster", node), ("rabbitmq_cluster_permanent_id", node)];
    page.family(Kind::Gauge, "rabbitmq_identity_info", "Which process it is").sample(&identity, 1);
    let uptime = seconds(process.uptime_ms * 1000);
    page.gauge("quelea_uptime_seconds", "Time since the broker began to serve", uptime);
    if let Some(bytes) = process.resident_bytes {
        page.gauge("rabbitmq_process_resident_memory_bytes", "Resident memory of the process", bytes);
    }
    if let Some(max) = process.memory_max_bytes {
        let help =
            "Memory over which publishers are slowed down and new clients refused (quelea.memory.max_bytes)";
        page.gauge("rabbitmq_resident_memory_limit_bytes", help, max);
    }
    let alarm = u8::from(process.is_short_of_memory);
    page.gauge(
        "rabbitmq_alarms_memory_used_watermark",
        "1 while the process is over its memory limit",
        alarm,
    );
    if let Some((open, max)) = process.descriptors {
        page.gauge(
            "rabbitmq_process_open_fds",
            "Open descriptors; clients' sockets are not among them",
            open,
        );
        page.gauge(
            "rabbitmq_process_max_fds",
            "The limit of open descriptors, of the process and of each ring",
            max,
        );
    }
}

fn connections(page: &mut Exposition, overview: &Overview, counters: &Counters, census: &Census) {
    let (opened, closed) = (counters.connected, counters.closed_connections.total());
    let open = opened.saturating_sub(closed);
    page.gauge("rabbitmq_connections", "Clients that are connected: CONNECT was accepted", open);
    page.counter("rabbitmq_connections_opened_total", "CONNECTs accepted", opened);
    page.counter(
        "rabbitmq_connections_closed_total",
        "Ends of connections whose CONNECT was accepted",
        closed,
    );
    let sockets = overview.sum(|report| report.connections);
    page.gauge("quelea_sockets", "Connections, whether or not CONNECT was accepted", sockets);
    page.counter("quelea_sockets_accepted_total", "Connections accepted by the network", counters.accepted);
    page.counter(
        "quelea_sockets_handed_over_total",
        "Connections that moved to their session's shard",
        counters.handed_over,
    );
    by_cause(
        page,
        "quelea_connections_closed_total",
        "Ends of connections whose CONNECT was accepted",
        |cause| counters.closed_connections.of(cause),
    );
    by_cause(page, "quelea_connections_refused_total", "Ends of connections before that", |cause| {
        counters.refused_connections.of(cause)
    });
    let refused = |cause| counters.refused_connections.of(cause);
    let failed = refused(Cause::BadCredentials) + refused(Cause::NotAuthorized);
    let mqtt = [("protocol", "mqtt")];
    for (name, help, value) in [
        ("rabbitmq_auth_attempts_total", "Credentials looked at", opened + failed),
        ("rabbitmq_auth_attempts_succeeded_total", "Credentials accepted", opened),
        ("rabbitmq_auth_attempts_failed_total", "Credentials refused", failed),
    ] {
        page.family(Kind::Counter, name, help).sample(&mqtt, value);
    }
    by_version(page, Kind::Gauge, "quelea_clients", "Connected clients", &census.clients);
    by_version(
        page,
        Kind::Gauge,
        "rabbitmq_global_publishers",
        "Connected clients that have published",
        &census.publishers,
    );
    by_version(
        page,
        Kind::Gauge,
        "rabbitmq_global_consumers",
        "Queues whose client is connected",
        &census.consumers,
    );
    page.gauge(
        "rabbitmq_consumers",
        "Queues whose client is connected",
        census.consumers.iter().sum::<u64>(),
    );
    page.gauge("quelea_connections_paused", "Connections that are not read from, or slowly", census.paused);
    page.gauge("quelea_connections_sending", "Connections with a send on its way", census.sending);
    page.gauge("quelea_connections_closing", "Connections whose last bytes are on their way", census.closing);
    let help = "Bytes received from clients";
    page.counter("rabbitmq_connection_incoming_bytes_total", help, counters.bytes_in);
    let help = "Bytes handed to the network for clients";
    page.counter("rabbitmq_connection_outgoing_bytes_total", help, counters.bytes_out);
    let help = "Packets received from clients";
    page.counter("rabbitmq_connection_incoming_packets_total", help, counters.packets_in);
}

fn messages(page: &mut Exposition, counters: &Counters) {
    let (received, delivered) = (&counters.received, &counters.delivered);
    let by_qos = |page: &mut Exposition, name: &str, help: &str, value: &dyn Fn(Version, QoS) -> u64| {
        let mut family = page.family(Kind::Counter, name, help);
        for version in Version::ALL {
            for (qos, label) in QOS.into_iter().zip(["0", "1", "2"]) {
                family.sample(&[("protocol", protocol(version)), ("qos", label)], value(version, qos));
            }
        }
    };
    by_qos(page, "quelea_messages_received_total", "PUBLISH from clients", &|v, q| {
        received.of(v, q).messages
    });
    by_qos(page, "quelea_message_bytes_received_total", "Bytes of these packets", &|v, q| {
        received.of(v, q).bytes
    });
    by_qos(page, "quelea_messages_delivered_total", "PUBLISH to clients, each once", &|v, q| {
        delivered.of(v, q).messages
    });
    by_qos(page, "quelea_message_bytes_delivered_total", "Bytes of these packets", &|v, q| {
        delivered.of(v, q).bytes
    });

    let over = |qos: &[QoS], of: &dyn Fn(Version, QoS) -> u64| -> [u64; 3] {
        Version::ALL.map(|version| qos.iter().map(|qos| of(version, *qos)).sum())
    };
    let received_of = |version, qos| received.of(version, qos).messages;
    let delivered_of = |version, qos| delivered.of(version, qos).messages;
    let all = over(&QOS, &received_of);
    let counter = Kind::Counter;
    by_version(page, counter, "rabbitmq_global_messages_received_total", "Messages received", &all);
    let confirm = over(&QOS[1..], &received_of);
    let help = "Messages received with QoS 1 and 2";
    by_version(page, counter, "rabbitmq_global_messages_received_confirm_total", help, &confirm);
    let help = "Messages acknowledged to their publishers";
    by_version(page, counter, "rabbitmq_global_messages_confirmed_total", help, &counters.confirmed);
    let routed = (all.iter().sum::<u64>() + counters.wills).saturating_sub(counters.unroutable);
    page.counter("rabbitmq_global_messages_routed_total", "Messages and wills with a subscriber", routed);
    let help = "Messages and wills without a subscriber";
    page.counter("rabbitmq_global_messages_unroutable_dropped_total", help, counters.unroutable);

    let (auto, manual) = (over(&QOS[..1], &delivered_of), over(&QOS[1..], &delivered_of));
    by_queue(
        page,
        "rabbitmq_global_messages_delivered_total",
        "Messages delivered",
        &[(0, auto), (1, manual)],
    );
    let help = "Messages delivered that clients do not acknowledge (QoS 0)";
    by_queue(page, "rabbitmq_global_messages_delivered_consume_auto_ack_total", help, &[(0, auto)]);
    let help = "Messages delivered that clients acknowledge (QoS 1 and 2)";
    by_queue(page, "rabbitmq_global_messages_delivered_consume_manual_ack_total", help, &[(1, manual)]);
    let help = "Messages delivered again to clients that came back";
    by_queue(page, "rabbitmq_global_messages_redelivered_total", help, &[(1, counters.redelivered)]);
    let help = "Deliveries clients have settled";
    by_queue(page, "rabbitmq_global_messages_acknowledged_total", help, &[(1, counters.settled)]);
    page.counter("quelea_wills_total", "Wills published", counters.wills);
}

fn losses(page: &mut Exposition, counters: &Counters) {
    let mut family = page.family(
        Kind::Counter,
        "quelea_messages_dropped_total",
        "Deliveries that were not made, by cause",
    );
    for (cause, value) in [
        ("qos0_backlog", counters.dropped_qos0),
        ("qos0_offline", counters.dropped_offline),
        ("queue_full_oldest", counters.dropped_head),
        ("queue_full_refused", counters.refused),
        ("expired", counters.expired),
        ("too_large_for_client", counters.dropped_too_large),
        ("refused_by_client", counters.refused_by_client),
        ("retained_store_full", counters.not_retained),
        ("memory_qos0", counters.dropped_overload),
        ("memory_refused", counters.refused_overload),
    ] {
        family.sample(&[("cause", cause)], value);
    }
    for (name, help, by_type) in [
        (
            "rabbitmq_global_messages_dead_lettered_maxlen_total",
            "Messages dropped because a queue was full",
            [Some(counters.dropped_qos0), Some(counters.dropped_head)],
        ),
        (
            "rabbitmq_global_messages_dead_lettered_expired_total",
            "Messages that expired in a queue",
            [None, Some(counters.expired)],
        ),
        (
            "rabbitmq_global_messages_dead_lettered_rejected_total",
            "Messages clients refused",
            [None, Some(counters.refused_by_client)],
        ),
    ] {
        let mut family = page.family(Kind::Counter, name, help);
        for (queue_type, value) in QUEUE_TYPES.into_iter().zip(by_type) {
            if let Some(value) = value {
                family.sample(&[("queue_type", queue_type), ("dead_letter_strategy", "disabled")], value);
            }
        }
    }
}

fn queues(page: &mut Exposition, overview: &Overview, counters: &Counters, census: &Census) {
    let sessions = overview.sum(|report| report.sessions);
    page.gauge("quelea_sessions", "Sessions, connected or not", sessions);
    page.counter("quelea_sessions_expired_total", "Sessions that expired", counters.sessions_expired);
    let by_type = |page: &mut Exposition, name: &str, help: &str, values: [u64; 2]| {
        let mut family = page.family(Kind::Gauge, name, help);
        for (queue_type, value) in QUEUE_TYPES.into_iter().zip(values) {
            family.sample(&[("queue_type", queue_type)], value);
        }
    };
    by_type(page, "quelea_subscriptions", "Subscriptions, shared ones too", census.subscriptions);
    let groups = overview.sum(|report| report.groups);
    page.gauge("quelea_shared_subscriptions", "Groups that share a subscription", groups);
    page.gauge(
        "rabbitmq_queues",
        "Queues: of a session one for QoS 0, one for QoS 1 and 2",
        census.queues.iter().sum::<u64>(),
    );
    let ready: u64 = census.ready.iter().sum();
    page.gauge("rabbitmq_queue_messages_ready", "Messages that wait", ready);
    page.gauge(
        "rabbitmq_queue_messages_unacked",
        "Deliveries clients have not settled",
        census.unacknowledged,
    );
    page.gauge("rabbitmq_queue_messages", "Both of these", ready + census.unacknowledged);
    let help = "Bytes of messages that wait in session queues; a message counts for each queue it is in";
    page.gauge("rabbitmq_queue_messages_ready_bytes", help, census.ready_bytes);
    let retained = overview.sum(|report| report.retained);
    page.gauge("quelea_retained_messages", "Retained messages", retained);
}

fn memory(page: &mut Exposition, overview: &Overview, census: &Census) {
    let sum =
        |of: fn(&crate::shard::view::MemoryView) -> usize| overview.sum(|report| of(&report.memory) as u64);
    let receive = overview.shards.iter().map(|shard| shard.receive_buffer_bytes).sum();
    let help = "Memory by owner; messages that several queues or buffers share count for each";
    let mut family = page.family(Kind::Gauge, "quelea_memory_bytes", help);
    for (owner, value) in [
        ("connections", sum(|memory| memory.connections)),
        ("sessions", sum(|memory| memory.sessions)),
        ("trie", sum(|memory| memory.trie)),
        ("interest", sum(|memory| memory.interest)),
        ("retained", sum(|memory| memory.retained)),
        ("timers", sum(|memory| memory.timers)),
        ("queues", census.ready_bytes),
        ("out_buffers", census.out_bytes),
        ("receive_buffers", receive),
        ("log", overview.log_sum(|log| log.memory_bytes)),
    ] {
        family.sample(&[("owner", owner)], value);
    }
    let partial = overview.sum(|report| report.residue.partial_bytes as u64);
    page.gauge(
        "quelea_partial_packet_bytes",
        "Packets that have arrived in part; among connections above",
        partial,
    );
}

fn shards(page: &mut Exposition, overview: &Overview) {
    let silent = overview.shards.iter().filter(|shard| shard.silent_ms.is_some()).count();
    page.gauge("quelea_shards", "Shards", overview.shards.len());
    page.gauge("quelea_shards_silent", "Shards that do not answer: their numbers are old", silent);
    page.gauge("quelea_rings", "Network rings", overview.shards.iter().map(|shard| shard.rings).sum::<u64>());
    for (name, help, of) in [
        (
            "quelea_mailbox_batches_waiting",
            "Batches that wait for another shard",
            (|residue| residue.outgoing_batches) as fn(&crate::shard::view::Residue) -> usize,
        ),
        ("quelea_fan_outs", "Messages on their way to very many subscribers", |residue| residue.fan_outs),
        ("quelea_replays", "Retained messages on their way to new subscriptions", |residue| residue.replays),
    ] {
        page.gauge(name, help, overview.sum(|report| of(&report.residue) as u64));
    }
    let help = "Filters of other shards that shards know of, each counted where it is known";
    page.gauge("quelea_interest_filters", help, overview.sum(|report| report.interest));
    let help = "How long a shard took to take up a question: one a second and shard";
    histogram(page, "quelea_loop_lag_seconds", help, &overview.lag);
}

/// The durable log and its disk.
fn log(page: &mut Exposition, overview: &Overview, counters: &Counters) {
    let process = &overview.process;
    if let Some(bytes) = process.free_bytes {
        let help = "Bytes free on the disk of the data directory";
        page.gauge("rabbitmq_disk_space_available_bytes", help, bytes);
    }
    let help = "Bytes below which durable messages are refused (disk_free_limit.absolute)";
    page.gauge("rabbitmq_disk_space_available_limit_bytes", help, process.free_bytes_min);
    let help = "1 while there is less space than that";
    page.gauge("rabbitmq_alarms_free_disk_space_watermark", help, u8::from(process.is_short_of_space));
    for (name, help, value) in [
        ("quelea_log_appended_messages_total", "Messages appended to the durable log", counters.log_messages),
        ("quelea_log_refused_total", "Records it did not take: full, or failed", counters.log_refused),
        ("quelea_log_unreadable_total", "Places in it that could not be read any more", counters.log_damaged),
        ("quelea_log_lost_messages_total", "Messages of sessions lost to damage of it", counters.log_lost),
    ] {
        page.counter(name, help, value);
    }
    disks(page, overview);
    for (name, help, value) in [
        (
            "quelea_log_messages",
            "Messages in the durable log, each once a shard",
            overview.log_sum(|log| log.messages),
        ),
        (
            "quelea_log_states",
            "Subscriptions, retained messages and the like in it",
            overview.log_sum(|log| log.states),
        ),
        ("quelea_log_live_bytes", "Bytes of its records that count", overview.log_sum(|log| log.live_bytes)),
        ("quelea_log_used_bytes", "Bytes of its files in use", overview.log_sum(|log| log.used_bytes)),
        (
            "quelea_log_backlog_bytes",
            "Bytes that wait for its disk",
            overview.log_sum(|log| log.backlog_bytes),
        ),
        (
            "quelea_log_damage",
            "Places found damaged when it was opened",
            overview.log_sum(|log| log.damage_count),
        ),
        (
            "quelea_log_full_shards",
            "Shards whose log takes only what shrinks it",
            overview.logs_that_are(Health::Full) as u64,
        ),
        (
            "quelea_log_poisoned_shards",
            "Shards whose log has failed",
            overview.logs_that_are(Health::Poisoned) as u64,
        ),
    ] {
        page.gauge(name, help, value);
    }
}

/// What the disks under it do.
fn disks(page: &mut Exposition, overview: &Overview) {
    let mut syncs = Lag::default();
    let disks = overview.shards.iter().filter_map(|shard| shard.log.as_ref());
    disks.for_each(|log| syncs.add(&log.disk.syncs));
    let sync_seconds = seconds(syncs.sum_us);
    page.counter("rabbitmq_io_sync_ops_total", "Commits made safe on disk", syncs.count());
    page.counter("rabbitmq_io_sync_time_seconds_total", "Time these took, writing included", sync_seconds);
    for (name, help, of) in [
        (
            "rabbitmq_io_write_ops_total",
            "Writes to the durable log",
            (|disk| disk.writes) as fn(&DiskCounters) -> u64,
        ),
        ("rabbitmq_io_write_bytes_total", "Bytes written to it", |disk| disk.written_bytes),
        ("rabbitmq_io_read_ops_total", "Reads from it", |disk| disk.reads),
        ("rabbitmq_io_read_bytes_total", "Bytes read from it", |disk| disk.read_bytes),
    ] {
        page.counter(name, help, overview.log_sum(|log| of(&log.disk)));
    }
    let help = "How long a commit took to be safe on disk";
    histogram(page, "quelea_log_sync_seconds", help, &syncs);
}

fn histogram(page: &mut Exposition, name: &str, help: &str, times: &Lag) {
    let mut family = page.family(Kind::Histogram, name, help);
    let mut count = 0;
    for (index, samples) in times.buckets.iter().enumerate() {
        count += samples;
        let bound = LAG_BOUNDS_US.get(index).map_or_else(|| "+Inf".to_owned(), |bound| seconds(*bound));
        family.sample_of("_bucket", &[("le", &bound)], count);
    }
    family.sample_of("_sum", &[], seconds(times.sum_us)).sample_of("_count", &[], count);
}

fn by_version(page: &mut Exposition, kind: Kind, name: &str, help: &str, values: &[u64; 3]) {
    let mut family = page.family(kind, name, help);
    for version in Version::ALL {
        family.sample(&[("protocol", protocol(version))], values[version.index()]);
    }
}

/// By version and queue type.
fn by_queue(page: &mut Exposition, name: &str, help: &str, values: &[(usize, [u64; 3])]) {
    let mut family = page.family(Kind::Counter, name, help);
    for (queue_type, values) in values {
        for version in Version::ALL {
            let labels = [("protocol", protocol(version)), ("queue_type", QUEUE_TYPES[*queue_type])];
            family.sample(&labels, values[version.index()]);
        }
    }
}

fn by_cause(page: &mut Exposition, name: &str, help: &str, of: impl Fn(Cause) -> u64) {
    let mut family = page.family(Kind::Counter, name, help);
    for cause in Cause::ALL {
        family.sample(&[("cause", cause.label())], of(cause));
    }
}

/// Microseconds as seconds.
fn seconds(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}
