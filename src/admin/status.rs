//! The JSON views: whether the process is well, and what each shard does.

use super::json::Json;
use super::overview::{LogState, Overview};
use crate::log::Health;

/// Whether all is well, and the view that says so: `{"status":"ok"}`, or `failed` with a reason, as RabbitMQ's health checks have
/// it. Being over the memory limit is no failure: clients are served. Nor is a full or damaged log: what it has is served, and
/// a `warning` says so.
#[must_use]
pub fn health(overview: &Overview) -> (bool, Json) {
    let mut reasons = Vec::new();
    for (index, shard) in overview.shards.iter().enumerate() {
        if let Some(silent_ms) = shard.silent_ms {
            reasons.push(format!("shard {index} has not answered for {silent_ms} ms"));
        }
    }
    if overview.process.is_leaving {
        reasons.push("the broker is shutting down".to_owned());
    }
    let is = |health| {
        overview.shards.iter().enumerate().filter(move |(_, shard)| shard.log_health == Some(health))
    };
    for (index, _) in is(Health::Poisoned) {
        reasons.push(format!("the log of shard {index} has failed: restart on a sound disk"));
    }
    let mut warnings: Vec<_> =
        is(Health::Full).map(|(index, _)| format!("the log of shard {index} is full")).collect();
    let damage_count = overview.log_sum(|log| log.damage_count);
    if damage_count > 0 {
        warnings.push(format!("the log was found damaged in {damage_count} places at start"));
    }
    if reasons.is_empty() {
        let mut view = vec![("status", "ok".into())];
        if !warnings.is_empty() {
            view.push(("warning", warnings.join("; ").into()));
        }
        (true, Json::Object(view))
    } else {
        (false, Json::Object(vec![("status", "failed".into()), ("reason", reasons.join("; ").into())]))
    }
}

/// The process and its shards, one by one.
#[must_use]
pub fn status(overview: &Overview) -> Json {
    let (is_well, _) = health(overview);
    let process = &overview.process;
    let counters = overview.counters();
    Json::Object(vec![
        ("product_name", "Quelea".into()),
        ("product_version", env!("CARGO_PKG_VERSION").into()),
        ("node", process.node.as_str().into()),
        ("status", (if is_well { "ok" } else { "failed" }).into()),
        ("uptime_ms", process.uptime_ms.into()),
        (
            "memory",
            Json::Object(vec![
                ("resident_bytes", process.resident_bytes.into()),
                ("max_bytes", process.memory_max_bytes.into()),
                ("is_short", process.is_short_of_memory.into()),
            ]),
        ),
        (
            "disk",
            Json::Object(vec![
                ("free_bytes", process.free_bytes.into()),
                ("free_bytes_min", process.free_bytes_min.into()),
                ("is_short", process.is_short_of_space.into()),
            ]),
        ),
        ("connections", (counters.connected.saturating_sub(counters.closed_connections.total())).into()),
        ("sessions", (overview.sum(|report| report.sessions)).into()),
        ("subscriptions", (overview.census().subscriptions.iter().sum::<u64>()).into()),
        ("retained_messages", (overview.sum(|report| report.retained)).into()),
        ("shards", Json::List(overview.shards.iter().enumerate().map(shard).collect())),
    ])
}

fn shard((id, shard): (usize, &super::overview::ShardState)) -> Json {
    let report = &shard.report;
    Json::Object(vec![
        ("id", id.into()),
        ("silent_ms", shard.silent_ms.into()),
        ("lag_us", shard.lag_us.into()),
        ("rings", shard.rings.into()),
        ("sockets", report.connections.into()),
        ("sessions", report.sessions.into()),
        ("messages_ready", (report.census.ready.iter().sum::<u64>()).into()),
        ("messages_unacknowledged", report.census.unacknowledged.into()),
        ("retained_messages", report.retained.into()),
        ("interest_filters", report.interest.into()),
        ("mailbox_batches_waiting", report.residue.outgoing_batches.into()),
        ("fan_outs", report.residue.fan_outs.into()),
        ("replays", report.residue.replays.into()),
        ("log", shard.log.as_ref().map_or(Json::Null, |state| log(shard.log_health, state))),
    ])
}

fn log(health: Option<Health>, state: &LogState) -> Json {
    let health = match health.unwrap_or_default() {
        Health::Good if state.damage_count > 0 => "damaged",
        Health::Good => "good",
        Health::Full => "full",
        Health::Poisoned => "poisoned",
    };
    Json::Object(vec![
        ("health", health.into()),
        ("damage_count", state.damage_count.into()),
        ("messages", state.messages.into()),
        ("states", state.states.into()),
        ("live_bytes", state.live_bytes.into()),
        ("used_bytes", state.used_bytes.into()),
        ("backlog_bytes", state.backlog_bytes.into()),
        ("commits", state.disk.syncs.count().into()),
    ])
}
