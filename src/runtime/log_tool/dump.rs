//! `dump`: all that a log holds of one client.

use super::look::{self, Look};
use super::{Answer, Undone, Verdict};
use crate::admin::json::Json;
use crate::base::Wall;
use crate::log::{
    Event, Fetched, MessageNumber, Recovered, RecoveredState, RecoveredStream, StateKind, StreamKind,
};
use crate::runtime::disk::Volume;
use crate::shard::durable::format::{self, SessionValue, Standing};
use std::fmt::Write;

/// Messages, and bytes of them, read at a time.
const BATCH_MESSAGES: usize = 256;
const BATCH_BYTES: u64 = 4 << 20;
/// Characters of a payload shown to people.
const SHOWN: usize = 60;

/// The session of `client_id`, on whichever shard it is (one a virtual host).
pub(super) fn dump(look: &Look, client_id: &str) -> Result<(Answer, Verdict), Undone> {
    let mut text = String::new();
    let mut sessions = Vec::new();
    let mut verdict = Verdict::Sound;
    for (shard, volume) in look.volumes().enumerate() {
        let (mut recovered, _) = look::read(&volume)?;
        if !recovered.report.damage.is_empty() {
            verdict = Verdict::Damaged;
        }
        for stream in std::mem::take(&mut recovered.streams) {
            let value = format::session(&stream.value).filter(|_| stream.kind == StreamKind::Session);
            let Some(value) = value.filter(|value| value.client_id == client_id) else { continue };
            let session = Session { shard, volume: &volume, stream: &stream, value: &value };
            let (json, is_whole) = session.dump(&mut recovered, &mut text);
            sessions.push(json);
            if !is_whole {
                verdict = Verdict::Damaged;
            }
        }
    }
    if sessions.is_empty() {
        return Err(Undone::NoSession(client_id.to_owned()));
    }
    Ok((Answer { json: Json::List(sessions), text }, verdict))
}

struct Session<'a> {
    shard: usize,
    volume: &'a Volume,
    stream: &'a RecoveredStream,
    value: &'a SessionValue<'a>,
}

impl Session<'_> {
    /// Says whether all of it can be read.
    fn dump(&self, recovered: &mut Recovered, text: &mut String) -> (Json, bool) {
        let value = self.value;
        let (standing, expires_at, will_at) = standing(value.standing);
        let _ = writeln!(
            text,
            "session {:?} on shard {}: {standing}, expiry {} s, protocol level {}",
            value.client_id,
            self.shard,
            value.expiry_secs,
            value.version.level()
        );
        let mut states = Vec::new();
        for state in recovered.states.iter().filter(|state| state.owner == Some(self.stream.id)) {
            let (line, json) = describe(state);
            let _ = writeln!(text, "  {line}");
            states.push(json);
        }
        let (messages, is_whole) = self.messages(recovered, text);
        let json = Json::Object(vec![
            ("client_id", value.client_id.into()),
            ("shard", self.shard.into()),
            ("vhost", u64::from(self.stream.vhost.0).into()),
            ("standing", standing.into()),
            ("expires_at_ms", moment(expires_at)),
            ("will_at_ms", moment(will_at)),
            ("session_expiry_secs", u64::from(value.expiry_secs).into()),
            ("protocol_level", u64::from(value.version.level()).into()),
            ("states", Json::List(states)),
            ("messages", Json::List(messages)),
        ]);
        (json, is_whole)
    }

    fn messages(&self, recovered: &mut Recovered, text: &mut String) -> (Vec<Json>, bool) {
        let mut all = Vec::new();
        let mut is_whole = true;
        let mut from = Some(MessageNumber(0));
        while let Some(first) = from.take() {
            recovered.log.fetch(self.stream.id, first, BATCH_MESSAGES, BATCH_BYTES);
            for event in look::serve(&mut recovered.log, self.volume) {
                let Event::Fetched { messages, .. } = event else { continue };
                from = messages.last().map(|last| MessageNumber(last.number.0 + 1));
                for message in &messages {
                    let described = self.message(message, text);
                    is_whole &= described.is_some();
                    all.extend(described);
                }
            }
        }
        (all, is_whole)
    }

    fn message(&self, message: &Fetched, text: &mut String) -> Option<Json> {
        let number = message.number.0;
        let stored = match &message.stored {
            Ok(stored) => stored,
            Err(damage) => {
                let _ = writeln!(text, "  message {number}: {}", look::damage_text(self.volume, damage));
                return None;
            }
        };
        let Some((value, note)) = format::head(&stored.head, stored.note) else {
            let _ = writeln!(text, "  message {number} makes no sense");
            return None;
        };
        let (packet_id, is_released) =
            format::untag(message.tag).map_or((None, false), |(id, released)| (Some(id), released));
        let shown = String::from_utf8_lossy(&stored.payload);
        let shown: String = shown.chars().take(SHOWN).collect();
        let _ = writeln!(
            text,
            "  message {number}: {:?}, QoS {}{}, {} bytes: {shown:?}",
            value.topic,
            note.qos as u8,
            if packet_id.is_some() { ", in flight" } else { "" },
            stored.payload.len(),
        );
        Some(Json::Object(vec![
            ("number", number.into()),
            ("topic", value.topic.into()),
            ("qos", u64::from(note.qos as u8).into()),
            ("published_qos", u64::from(value.qos as u8).into()),
            ("retain", note.retain.into()),
            ("expires_at_ms", moment(stored.expires_at)),
            ("packet_id", packet_id.map(|id| u64::from(id.value())).into()),
            ("released", is_released.into()),
            ("payload_bytes", stored.payload.len().into()),
            ("payload_hex", hex(&stored.payload).into()),
        ]))
    }
}

fn standing(standing: Standing) -> (&'static str, Wall, Wall) {
    match standing {
        Standing::Connected => ("connected", Wall::NEVER, Wall::NEVER),
        Standing::Offline { expires_at, will_at } => ("offline", expires_at, will_at),
        Standing::Ended => ("ended", Wall::NEVER, Wall::NEVER),
    }
}

fn moment(wall: Wall) -> Json {
    Some(wall.0).filter(|_| wall != Wall::NEVER).into()
}

fn describe(state: &RecoveredState) -> (String, Json) {
    let kind = format!("{:?}", state.kind).to_lowercase();
    let text = match state.kind {
        StateKind::Subscription => format::subscription(&state.value).map(|value| {
            let share =
                if value.group.is_empty() { String::new() } else { format!("$share/{}/", value.group) };
            format!("{share}{} QoS {}", value.filter, value.options.qos as u8)
        }),
        StateKind::Will => format::will(state.vhost, &state.value)
            .map(|will| format!("{} after {} s", will.message().topic, will.delay_secs)),
        StateKind::Received => format::packet_id(&state.value).map(|id| format!("packet identifier {id}")),
        StateKind::Retained | StateKind::Binding => None,
    };
    let text = text.unwrap_or_else(|| format!("{} bytes", state.value.len()));
    (format!("{kind} {text}"), Json::Object(vec![("kind", kind.into()), ("is", text.into())]))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
