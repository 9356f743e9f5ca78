//! `inspect` and `verify`: what each shard's log holds, and whether all of it can be read.

use super::look::{self, Look};
use super::{Answer, Undone, Verdict};
use crate::admin::json::Json;
use crate::log::{
    Damage, Event, MessageNumber, Recovered, RecoveredState, SegmentId, StateKind, StreamId, StreamKind,
};
use crate::runtime::disk::Volume;
use crate::shard::durable::format;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Messages, and bytes of them, read at a time.
const BATCH_MESSAGES: usize = 1024;
const BATCH_BYTES: u64 = 4 << 20;

/// What one shard's log is.
struct Shard {
    volume: Volume,
    recovered: Recovered,
    files: Vec<(SegmentId, u32)>,
    /// Values and messages that are there and make no sense, or cannot be read.
    unread: Vec<String>,
}

/// All shards; with `is_deep` every value and message is looked at too.
pub(super) fn inspect(look: &Look, is_deep: bool) -> Result<(Answer, Verdict), Undone> {
    let mut answer = Answer { json: Json::Null, text: String::new() };
    let mut shards = Vec::new();
    let mut verdict = Verdict::Sound;
    for (number, volume) in look.volumes().enumerate() {
        let (recovered, files) = look::read(&volume)?;
        let mut shard = Shard { volume, recovered, files, unread: Vec::new() };
        if is_deep {
            shard.read_all();
        }
        if !shard.is_sound() {
            verdict = Verdict::Damaged;
        }
        shard.describe(number, &mut answer.text);
        shards.push(shard.to_json(number));
    }
    let word = if verdict == Verdict::Sound { "sound" } else { "damaged" };
    let _ = writeln!(answer.text, "{word}");
    answer.json = Json::Object(vec![("verdict", word.into()), ("shards", Json::List(shards))]);
    Ok((answer, verdict))
}

impl Shard {
    fn is_sound(&self) -> bool {
        let report = &self.recovered.report;
        report.damage.is_empty() && report.orphan_count == 0 && self.unread.is_empty()
    }

    /// Looks at every value and every message once.
    fn read_all(&mut self) {
        for stream in &self.recovered.streams {
            if stream.kind == StreamKind::Session && format::session(&stream.value).is_none() {
                self.unread.push(format!("session {} makes no sense", stream.id.slot));
            }
        }
        for state in &self.recovered.states {
            if !makes_sense(state) {
                self.unread.push(format!("state {} ({:?}) makes no sense", state.id.0, state.kind));
            }
        }
        let mut seen = BTreeSet::new();
        let streams: Vec<StreamId> = self.recovered.streams.iter().map(|stream| stream.id).collect();
        for stream in streams {
            self.read_stream(stream, &mut seen);
        }
    }

    /// Messages of a stream that no stream before it had.
    fn read_stream(&mut self, stream: StreamId, seen: &mut BTreeSet<MessageNumber>) {
        let mut from = MessageNumber(0);
        loop {
            let log = &mut self.recovered.log;
            let next = log.messages(stream).map(|(number, _)| number);
            let mut fresh = next.skip_while(|number| *number < from || seen.contains(number));
            let Some(first) = fresh.next() else { return };
            let run = 1 + fresh.take_while(|number| !seen.contains(number)).take(BATCH_MESSAGES - 1).count();
            log.fetch(stream, first, run, BATCH_BYTES);
            for event in look::serve(log, &self.volume) {
                let Event::Fetched { messages, .. } = event else { continue };
                for message in messages {
                    from = MessageNumber(message.number.0 + 1);
                    seen.insert(message.number);
                    match message.stored {
                        Ok(stored) if format::head(&stored.head, stored.note).is_some() => {}
                        Ok(_) => self.unread.push(format!("message {} makes no sense", message.number.0)),
                        Err(damage) => self.unread.push(look::damage_text(&self.volume, &damage)),
                    }
                }
            }
            if from <= first {
                return;
            }
        }
    }

    fn streams(&self, kind: StreamKind) -> usize {
        self.recovered.streams.iter().filter(|stream| stream.kind == kind).count()
    }

    fn states(&self, kind: StateKind) -> usize {
        self.recovered.states.iter().filter(|state| state.kind == kind).count()
    }

    /// Messages held, each counted for every stream that holds it.
    fn held(&self) -> usize {
        self.recovered.streams.iter().map(|stream| self.recovered.log.len(stream.id)).sum()
    }

    fn damage(&self) -> Vec<String> {
        let report = &self.recovered.report;
        let damage = report.damage.iter().map(|damage: &Damage| look::damage_text(&self.volume, damage));
        let orphans = Some(report.orphan_count).filter(|count| *count > 0);
        let orphans = orphans.map(|count| format!("what {count} sessions or queues were cannot be read"));
        damage.chain(orphans).chain(self.unread.iter().cloned()).collect()
    }

    fn describe(&self, number: usize, out: &mut String) {
        let log = &self.recovered.log;
        let report = &self.recovered.report;
        let (live, used) = log.disk_bytes();
        let size: u64 = self.files.iter().map(|(_, bytes)| u64::from(*bytes)).sum();
        let mut row = |name: &str, text: String| {
            let _ = writeln!(out, "  {name:<14} {text}");
        };
        row(&format!("shard {number}"), self.volume.folder().display().to_string());
        row(
            "segments",
            format!(
                "{} files, {} KiB; {} KiB in use, {} KiB of these live",
                self.files.len(),
                size >> 10,
                used >> 10,
                live.div_ceil(1024)
            ),
        );
        row(
            "sessions",
            format!(
                "{}, shared subscriptions {}, queues {}",
                self.streams(StreamKind::Session),
                self.streams(StreamKind::Group),
                self.streams(StreamKind::Queue)
            ),
        );
        row("messages", format!("{} stored, {} queued", log.message_count(), self.held()));
        let states = KINDS.map(|(name, kind)| format!("{} {name}", self.states(kind)));
        row("states", states.join(", "));
        row("QoS 2 origins", log.origins().count().to_string());
        if let Some(cut) = report.cut {
            let path = self.volume.path(cut.segment);
            row(
                "torn tail",
                format!(
                    "{} at {}: nothing acknowledged was there, or it is being written",
                    path.display(),
                    cut.offset
                ),
            );
        }
        for segment in &report.worn {
            row(
                "worn",
                format!("one of two headers of {}: nothing is lost", self.volume.path(*segment).display()),
            );
        }
        for damage in self.damage() {
            row("damaged", damage);
        }
    }

    fn to_json(&self, number: usize) -> Json {
        let log = &self.recovered.log;
        let report = &self.recovered.report;
        let (live, used) = log.disk_bytes();
        let cut = report.cut.map_or(Json::Null, |cut| {
            let file = self.volume.path(cut.segment).display().to_string();
            Json::Object(vec![("file", file.into()), ("offset", u64::from(cut.offset).into())])
        });
        let files = self.files.iter().map(|(segment, bytes)| {
            Json::Object(vec![("name", segment.to_string().into()), ("bytes", u64::from(*bytes).into())])
        });
        let worn = report.worn.iter().map(|segment| segment.to_string().into());
        let states = KINDS.map(|(name, kind)| (name, self.states(kind).into()));
        Json::Object(vec![
            ("shard", number.into()),
            ("folder", self.volume.folder().display().to_string().into()),
            ("files", Json::List(files.collect())),
            ("bytes_in_use", used.into()),
            ("bytes_live", live.into()),
            ("sessions", self.streams(StreamKind::Session).into()),
            ("shared_subscriptions", self.streams(StreamKind::Group).into()),
            ("queues", self.streams(StreamKind::Queue).into()),
            ("messages_stored", log.message_count().into()),
            ("messages_queued", self.held().into()),
            ("states", Json::Object(states.into())),
            ("origins", log.origins().count().into()),
            ("torn_tail", cut),
            ("worn_headers", Json::List(worn.collect())),
            ("damage", Json::List(self.damage().into_iter().map(Json::from).collect())),
        ])
    }
}

const KINDS: [(&str, StateKind); 5] = [
    ("subscriptions", StateKind::Subscription),
    ("retained", StateKind::Retained),
    ("wills", StateKind::Will),
    ("received", StateKind::Received),
    ("bindings", StateKind::Binding),
];

fn makes_sense(state: &RecoveredState) -> bool {
    match state.kind {
        StateKind::Subscription => format::subscription(&state.value).is_some(),
        StateKind::Retained => format::retained(state.vhost, &state.value).is_some(),
        StateKind::Will => format::will(state.vhost, &state.value).is_some(),
        StateKind::Received => format::packet_id(&state.value).is_some(),
        // Nobody writes them yet.
        StateKind::Binding => true,
    }
}
