//! Retained messages to records: the state of a topic is noted beside its message.

use super::queue::{Appended, KEPT};
use super::{Shard, format};
use crate::base::Message;
use crate::log::{Health, StateId, StateKind};
use crate::session::Outcome;

impl Shard {
    /// Whether the log takes what makes it grow; without one nothing is in the way.
    pub(in crate::shard) fn can_keep(&mut self) -> bool {
        match self.log_health() {
            None | Some(Health::Good) => true,
            Some(Health::Full) => {
                self.refused(crate::log::Refused::Full);
                false
            }
            Some(Health::Poisoned) => {
                self.refused(crate::log::Refused::Poisoned);
                false
            }
        }
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
                let outcome = Outcome { not_retained: true, failed: refused.failed, ..Outcome::default() };
                Appended { outcome, commit: None }
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

/// Retaining says nothing of who subscribes.
const KEPT_BY_NOBODY: Outcome = Outcome { matched: false, taken: false, kept: false, ..KEPT };
