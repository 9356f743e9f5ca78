//! Retained messages to records: the state of a topic is noted beside its message.

use super::queue::{Appended, KEPT};
use super::{Shard, format};
use crate::base::Message;
use crate::log::{Health, Refused, StateId, StateKind};
use crate::session::Outcome;

impl Shard {
    /// What the log has against a retained message; without one nothing is in the way.
    pub(in crate::shard) fn refuses_retained(&mut self) -> Option<Outcome> {
        let refused = match self.log_health() {
            None | Some(Health::Good) => return None,
            Some(Health::Full) => self.refused(Refused::Full),
            Some(Health::Poisoned) => self.refused(Refused::Poisoned),
        };
        Some(unkept(refused))
    }

    /// A retained message was set or cleared in memory: the same on disk.
    pub(in crate::shard) fn keep_retained(&mut self, message: &Message) -> Appended {
        self.clear_freed_retained();
        let message = message.as_ref();
        let (vhost, topic) = (message.head.vhost, message.topic);
        let Some(durable) = &mut self.durable else { return Appended::default() };
        if message.payload.is_empty() {
            // Cleared above, if there was one.
            return Appended { outcome: KEPT_BY_NOBODY, commit: Some(durable.log.last()) };
        }
        format::put_retained(&message, &mut durable.value);
        let written = match self.retained.note(vhost, topic) {
            Some(note) => durable.log.replace(StateId(note), StateKind::Retained, vhost, &durable.value),
            None => {
                durable.log.put(StateKind::Retained, vhost, None, &durable.value).map(|(state, commit)| {
                    self.retained.set_note(vhost, topic, state.0);
                    commit
                })
            }
        };
        match written {
            Ok(commit) => Appended { outcome: KEPT_BY_NOBODY, commit: Some(commit) },
            Err(refused) => {
                let refused = self.refused(refused);
                Appended { outcome: unkept(refused), commit: None }
            }
        }
    }

    /// Retained messages are gone from memory: from disk too.
    pub(in crate::shard) fn clear_freed_retained(&mut self) {
        while let Some(note) = self.retained.poll_freed_note() {
            self.clear_state(Some(StateId(note)));
        }
    }
}

/// What is not retained because a disk has no room, or has failed, is not acknowledged: who subscribes later would get an older
/// message. A limit of the operator's is another matter.
fn unkept(refused: Outcome) -> Outcome {
    Outcome { not_retained: true, unkept: true, failed: refused.failed, ..Outcome::default() }
}

/// Retaining says nothing of who subscribes.
const KEPT_BY_NOBODY: Outcome = Outcome { matched: false, taken: false, kept: false, ..KEPT };
