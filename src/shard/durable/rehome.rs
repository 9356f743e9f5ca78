//! Another number of shards: every session, retained message and queued message to the log of the shard that is its home then.
//!
//! Records go in, old log by old log ([`begin`](Rehoming::begin)): streams, then states, then messages. New logs come out, whose
//! operations whoever calls this carries out. Streams keep the order of their messages: all of one come from one old log. A
//! message is stored once for each new shard that has somebody who holds it. Ids are new; nothing outside a log names them.
//!
//! Origins ([`Origin`](crate::log::Origin)) say that everybody on a shard has a message. Where several old logs meet in a new one that
//! would be said for all of it by one of them, and whoever has not got the message would never get it: there they are dropped,
//! and a QoS 2 publish that had reached only some shards comes twice to the others when it is sent again.
//!
//! Cost: one append a record. Not here: what reads the old logs, and what makes the new ones take their place.

use super::recover::{home_of_state, home_of_stream};
use crate::base::{HashKey, ShardId};
use crate::log::{
    Holder, Log, NewMessage, Options, RecoveredState, RecoveredStream, Recovery, Refused, StreamId, SyncMode,
    Whole,
};
use hashbrown::HashMap;

/// A move from some logs to others.
#[derive(Debug)]
pub struct Rehoming {
    /// The process's secret: homes follow from it.
    key: HashKey,
    logs: Vec<Log>,
    keeps_origins: bool,
    /// Where what makes no sense goes: newer code may know better.
    somewhere: ShardId,
    /// What became of the streams of the old log.
    homes: HashMap<StreamId, (ShardId, StreamId)>,
    /// By new shard: those who hold the message that is moved.
    holders: Vec<Vec<Holder>>,
}

impl Rehoming {
    /// From `before` logs to `shards` empty ones, which sync when they are told to. `key` is the process's secret, `tags` is random
    /// and new at every start.
    #[must_use]
    pub fn new(key: HashKey, tags: HashKey, before: u16, shards: u16, options: &Options) -> Self {
        // Synced once at the end: nobody is promised anything before.
        let options = Options { sync: SyncMode::None, ..options.clone() };
        let log = |_| Recovery::new(options.clone(), tags, &[]).finish().log;
        Self {
            key,
            logs: (0..shards).map(log).collect(),
            keeps_origins: before == 1,
            somewhere: ShardId(0),
            homes: HashMap::new(),
            holders: vec![Vec::new(); usize::from(shards)],
        }
    }

    /// The new logs, by shard.
    pub fn logs(&mut self) -> &mut [Log] {
        &mut self.logs
    }

    /// What comes now is in the log of this old shard.
    pub fn begin(&mut self, before: u16) {
        self.homes.clear();
        self.somewhere = ShardId(before % self.shards());
    }

    /// A stream of the old log.
    ///
    /// # Errors
    /// If its new log refuses it.
    pub fn take_stream(&mut self, stream: &RecoveredStream) -> Result<(), Refused> {
        let home = home_of_stream(self.key, self.shards(), stream).unwrap_or(self.somewhere);
        let (id, _) = self.logs[home.index()].open(stream.kind, stream.vhost, &stream.value)?;
        self.homes.insert(stream.id, (home, id));
        Ok(())
    }

    /// A state of the old log. That of a stream goes with it.
    ///
    /// # Errors
    /// If its new log refuses it.
    pub fn take_state(&mut self, state: &RecoveredState) -> Result<(), Refused> {
        let (home, owner) = match state.owner {
            None => (home_of_state(self.key, self.shards(), state).unwrap_or(self.somewhere), None),
            Some(owner) => match self.homes.get(&owner) {
                Some((home, id)) => (*home, Some(*id)),
                None => return Ok(()),
            },
        };
        self.logs[home.index()].put(state.kind, state.vhost, owner, &state.value)?;
        Ok(())
    }

    /// A message of the old log.
    ///
    /// # Errors
    /// If a new log refuses it.
    pub fn take_message(&mut self, whole: &Whole) -> Result<(), Refused> {
        for holder in &whole.holders {
            if let Some((home, stream)) = self.homes.get(&holder.stream) {
                self.holders[home.index()].push(Holder { stream: *stream, ..*holder });
            }
        }
        let Whole { vhost, expires_at, head, payload, .. } = whole;
        let origin = whole.origin.filter(|_| self.keeps_origins);
        let message = NewMessage { vhost: *vhost, expires_at: *expires_at, origin, head, payload };
        for (log, holders) in self.logs.iter_mut().zip(&mut self.holders) {
            if !holders.is_empty() {
                log.append(&message, holders)?;
                holders.clear();
            }
        }
        Ok(())
    }

    fn shards(&self) -> u16 {
        u16::try_from(self.logs.len()).expect("made from a u16")
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::{self, SessionValue, Standing};
    use super::*;
    use crate::base::{Version, VhostId, Wall};
    use crate::log::{Origin, StreamKind};

    const KEY: HashKey = HashKey { k0: 1, k1: 2 };
    const VHOST: VhostId = VhostId(0);
    const ORIGIN: Origin = Origin { publisher: 7, packet_id: 1 };

    fn session(client_id: &str, slot: u32) -> RecoveredStream {
        let value = SessionValue {
            client_id,
            publisher: 3,
            expiry_secs: 60,
            standing: Standing::Connected,
            has_groups: false,
            version: Version::V5,
        };
        let mut bytes = Vec::new();
        format::put_session(&value, &mut bytes);
        let id = StreamId { slot, generation: 0 };
        RecoveredStream { id, kind: StreamKind::Session, vhost: VHOST, value: bytes.into() }
    }

    fn message(holder: StreamId) -> Whole {
        Whole {
            vhost: VHOST,
            expires_at: Wall::NEVER,
            origin: Some(ORIGIN),
            holders: vec![Holder { stream: holder, note: 0, tag: 0 }],
            head: [].into(),
            payload: [1].into(),
        }
    }

    fn moved(before: u16, shards: u16) -> Rehoming {
        let mut rehoming = Rehoming::new(KEY, KEY, before, shards, &Options::default());
        for old in 0..before {
            rehoming.begin(old);
            let stream = session(&format!("client {old}"), 0);
            rehoming.take_stream(&stream).unwrap();
            if old == 0 {
                rehoming.take_message(&message(stream.id)).unwrap();
            }
        }
        rehoming
    }

    #[test]
    fn a_message_that_only_some_old_logs_had_is_taken_again() {
        let mut two_to_one = moved(2, 1);
        assert_eq!((two_to_one.logs()[0].streams().count(), two_to_one.logs()[0].message_count()), (2, 1));
        // The client of the second old log has not got it.
        assert!(!two_to_one.logs()[0].has_origin(ORIGIN));
    }

    #[test]
    fn a_message_all_of_whose_log_had_it_is_not_taken_again() {
        for shards in [1, 2, 5] {
            let mut more = moved(1, shards);
            let with_message = more.logs().iter().filter(|log| log.message_count() == 1).collect::<Vec<_>>();
            assert_eq!(with_message.len(), 1);
            assert!(with_message[0].has_origin(ORIGIN), "{shards}");
        }
    }
}
