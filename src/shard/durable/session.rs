//! Sessions, subscriptions and wills to records: whatever a client was told about them waits for the commit.
//!
//! A session has a stream from the first CONNECT with an expiry greater than 0 until it ends, also if a later CONNECT sets the
//! expiry to 0: what it holds stays where it is.

use super::format::{self, SessionValue, Standing, SubscriptionValue};
use super::{Shard, Wait};
use crate::base::{ConnectionId, Mono, SessionId, VhostId, Wall};
use crate::log::{FetchId, Refused, Sequence, StateId, StateKind, StreamId, StreamKind};
use crate::route::{FilterId, SubscriptionOptions};
use crate::session::Will;
use crate::shard::sessions::{Offline, Session};

/// What is on disk of a session.
#[derive(Debug)]
pub(in crate::shard) struct DurableSession {
    pub(in crate::shard) stream: StreamId,
    /// What origins call it.
    pub(in crate::shard) publisher: u64,
    /// By filter; of shared subscriptions they are in [`SharedSubscription`](crate::shard::sessions::SharedSubscription).
    pub(super) subscriptions: Vec<(FilterId, StateId)>,
    pub(super) will: Option<StateId>,
    /// QoS 2 packet identifiers that came in, and whether other shards may know them as origins.
    pub(super) received: Vec<(u16, StateId)>,
    /// Messages from this number on are in the log only, if it is behind.
    pub(super) next: u64,
    /// Messages in the log wait to be read back.
    pub(super) is_behind: bool,
    pub(super) fetch: Option<FetchId>,
    /// It is pumped after this commit.
    pub(super) wake: Sequence,
    pub(super) has_groups: bool,
}

impl Shard {
    /// Opens or reopens a session's stream, for a client that connects with an expiry greater than 0 or resumes; keeps its will.
    /// CONNACK waits for it.
    pub(in crate::shard) fn keep_session(&mut self, session: u32) -> Result<(), Refused> {
        let Some(entry) = self.sessions.at(session) else { return Ok(()) };
        if self.durable.is_none() || (entry.durable.is_none() && !entry.is_durable()) {
            return Ok(());
        }
        if entry.durable.is_none() {
            self.open_stream(session)?;
        } else {
            self.write_session(session, Standing::Connected)?;
        }
        self.keep_will(session)
    }

    fn open_stream(&mut self, session: u32) -> Result<(), Refused> {
        let publisher = self.new_publisher(session);
        let Some(entry) = self.sessions.at(session) else { return Ok(()) };
        let Some(durable) = &mut self.durable else { return Ok(()) };
        let value = value(entry, publisher, false, Standing::Connected);
        format::put_session(&value, &mut durable.value);
        let (stream, _) = durable.log.open(StreamKind::Session, entry.vhost, &durable.value)?;
        let Some(entry) = self.sessions.at_mut(session) else { return Ok(()) };
        entry.durable = Some(Box::new(DurableSession::new(stream, publisher)));
        Ok(())
    }

    /// A number no other session has had: of this client, now, in this place of the log.
    fn new_publisher(&self, session: u32) -> u64 {
        let Some(entry) = self.sessions.at(session) else { return 0 };
        let mut seed = Vec::with_capacity(entry.client_id.len() + 20);
        seed.extend_from_slice(&self.now.wall.0.to_le_bytes());
        seed.extend_from_slice(&self.now.mono.0.to_le_bytes());
        seed.extend_from_slice(&entry.incarnation.to_le_bytes());
        seed.extend_from_slice(&session.to_le_bytes());
        seed.extend_from_slice(entry.client_id.as_bytes());
        self.key.derive("publishers").hash(entry.vhost, &seed).max(1)
    }

    /// Holds back CONNACK until the session is on disk.
    pub(in crate::shard) fn hold_connack(&mut self, connection: ConnectionId) {
        let sequence = self.last_commit();
        let is_held = |durable: &super::Durable| !durable.is_failed && sequence > durable.log.committed();
        if self.durable.as_ref().is_some_and(|durable| is_held(durable)) {
            self.links.hold_back(connection.slot);
            self.after_commit(sequence, Wait::Connack(connection));
        }
    }

    /// A session's client went away, or the session's deadlines changed.
    pub(in crate::shard) fn keep_offline(&mut self, session: u32) {
        let Some(entry) = self.sessions.at(session) else { return };
        let offline = entry.extra.as_ref().and_then(|extra| extra.offline);
        let offline = offline.unwrap_or(Offline { will_at: Mono::NEVER, expires_at: Mono::NEVER });
        let wall = |at: Mono| match at {
            Mono::NEVER => Wall::NEVER,
            at => Wall(self.now.wall.0.saturating_add(at.since(self.now.mono))),
        };
        let standing =
            Standing::Offline { expires_at: wall(offline.expires_at), will_at: wall(offline.will_at) };
        // Refused only if the log is poisoned; then the session is as it was, connected, at the next start.
        let _ = self.write_session(session, standing);
        let _ = self.keep_will(session);
        self.unload(session);
    }

    pub(super) fn write_session(&mut self, session: u32, standing: Standing) -> Result<(), Refused> {
        let Some(entry) = self.sessions.at(session) else { return Ok(()) };
        let (Some(durable), Some(kept)) = (&mut self.durable, &entry.durable) else { return Ok(()) };
        let value = value(entry, kept.publisher, kept.has_groups, standing);
        format::put_session(&value, &mut durable.value);
        durable.log.reopen(kept.stream, &durable.value)?;
        Ok(())
    }

    /// Writes a session's will as it is now.
    pub(in crate::shard) fn keep_will(&mut self, session: u32) -> Result<(), Refused> {
        let Some(entry) = self.sessions.at_mut(session) else { return Ok(()) };
        let vhost = entry.vhost;
        let (Some(durable), Some(kept)) = (&mut self.durable, &mut entry.durable) else { return Ok(()) };
        match (&entry.will, kept.will) {
            (None, None) => {}
            (None, Some(state)) => {
                durable.log.clear(state)?;
                kept.will = None;
            }
            (Some(will), old) => {
                format::put_will(will, &mut durable.value);
                if let Some(state) = old {
                    durable.log.replace(state, StateKind::Will, vhost, &durable.value)?;
                } else {
                    let owner = Some(kept.stream);
                    let (state, _) = durable.log.put(StateKind::Will, vhost, owner, &durable.value)?;
                    kept.will = Some(state);
                }
            }
        }
        Ok(())
    }

    /// Keeps a will that belongs to no session any more, until it is kept where it goes.
    pub(in crate::shard) fn keep_copy_of_will(&mut self, will: &Will, vhost: VhostId) -> Option<StateId> {
        let durable = self.durable.as_mut()?;
        format::put_will(will, &mut durable.value);
        // Refused on a full disk: then it is published as that of any session in memory.
        durable.log.put(StateKind::Will, vhost, None, &durable.value).ok().map(|(state, _)| state)
    }

    /// Keeps a subscription of a session; SUBACK waits for it.
    pub(in crate::shard) fn keep_subscription(
        &mut self,
        session: u32,
        group: &str,
        filter: &str,
        options: SubscriptionOptions,
        old: Option<StateId>,
    ) -> Result<Option<StateId>, Refused> {
        let Some(entry) = self.sessions.at(session) else { return Ok(None) };
        let (Some(durable), Some(kept)) = (&mut self.durable, &entry.durable) else { return Ok(None) };
        format::put_subscription(&SubscriptionValue { filter, group, options }, &mut durable.value);
        if let Some(state) = old {
            durable.log.replace(state, StateKind::Subscription, entry.vhost, &durable.value)?;
            return Ok(Some(state));
        }
        let owner = Some(kept.stream);
        let (state, _) = durable.log.put(StateKind::Subscription, entry.vhost, owner, &durable.value)?;
        if !group.is_empty() && !kept.has_groups {
            if let Some(kept) = self.sessions.at_mut(session).and_then(|entry| entry.durable.as_mut()) {
                kept.has_groups = true;
            }
            self.write_session(session, Standing::Connected)?;
        }
        Ok(Some(state))
    }

    /// The state a session's subscription to a filter is kept in.
    pub(in crate::shard) fn subscription_state(&self, session: u32, filter: FilterId) -> Option<StateId> {
        let kept = self.sessions.at(session)?.durable.as_ref()?;
        kept.subscriptions.iter().find(|(of, _)| *of == filter).map(|(_, state)| *state)
    }

    pub(in crate::shard) fn note_subscription(&mut self, session: u32, filter: FilterId, state: StateId) {
        let Some(kept) = self.sessions.at_mut(session).and_then(|entry| entry.durable.as_mut()) else {
            return;
        };
        match kept.subscriptions.iter_mut().find(|(of, _)| *of == filter) {
            Some(known) => known.1 = state,
            None => {
                kept.subscriptions.reserve_exact(1);
                kept.subscriptions.push((filter, state));
            }
        }
    }

    /// A session unsubscribes.
    pub(in crate::shard) fn forget_subscription(&mut self, session: u32, filter: FilterId) {
        let Some(kept) = self.sessions.at_mut(session).and_then(|entry| entry.durable.as_mut()) else {
            return;
        };
        let Some(at) = kept.subscriptions.iter().position(|(of, _)| *of == filter) else { return };
        let (_, state) = kept.subscriptions.swap_remove(at);
        self.clear_state(Some(state));
    }

    /// Takes out where a session's subscriptions are kept: what is done to them from now on leaves that alone.
    pub(in crate::shard) fn take_subscription_states(&mut self, session: u32) -> Vec<StateId> {
        let kept = self.sessions.at_mut(session).and_then(|entry| entry.durable.as_mut());
        let subscriptions = kept.map(|kept| std::mem::take(&mut kept.subscriptions)).unwrap_or_default();
        subscriptions.into_iter().map(|(_, state)| state).collect()
    }

    /// Ends a state.
    pub(in crate::shard) fn clear_state(&mut self, state: Option<StateId>) {
        if let (Some(durable), Some(state)) = (&mut self.durable, state) {
            // Refused only if the log is poisoned.
            let _ = durable.log.clear(state);
        }
    }

    /// The value of a state could not be read any more: writes it again from memory.
    pub(super) fn write_state_again(&mut self, state: StateId) {
        let is_kept = |entry: &Session| entry.durable.as_ref().is_some_and(|kept| kept.will == Some(state));
        let with_will = self.sessions.iter().find(|(_, entry)| is_kept(entry)).map(|(slot, _)| slot);
        if let Some(session) = with_will {
            let _ = self.keep_will(session);
            return;
        }
        if self.write_retained_again(state) || self.write_received_again(state) {
            return;
        }
        let plain = self.sessions.iter().find_map(|(slot, entry)| {
            let kept = entry.durable.as_ref()?;
            let found = kept.subscriptions.iter().find(|(_, of)| *of == state)?;
            Some((slot, found.0))
        });
        if let Some((session, filter)) = plain {
            let mut text = String::new();
            let options = self.trie.get(filter, crate::route::Subscriber(session));
            if let (Some(_), Some(options)) = (self.trie.filter_text(filter, &mut text), options) {
                let _ = self.keep_subscription(session, "", &text, options, Some(state));
            }
            return;
        }
        let shared = self.sessions.iter().find_map(|(slot, entry)| {
            let found = entry.shared().iter().find(|shared| shared.state == Some(state))?;
            Some((slot, found.group.clone(), found.filter.clone(), found.options))
        });
        if let Some((session, group, filter, options)) = shared {
            let _ = self.keep_subscription(session, &group, &filter, options, Some(state));
        }
    }

    /// The same for a stream's value.
    pub(super) fn write_session_again(&mut self, stream: StreamId) {
        let is_it = |entry: &Session| entry.durable.as_ref().is_some_and(|kept| kept.stream == stream);
        let found = self.sessions.iter().find(|(_, entry)| is_it(entry));
        let Some((session, entry)) = found else { return };
        if entry.connection().is_some() {
            let _ = self.write_session(session, Standing::Connected);
        } else {
            self.keep_offline(session);
        }
    }

    /// The session whose stream this is, by its id.
    pub(super) fn session_of(&self, session: SessionId, stream: StreamId) -> Option<u32> {
        let is_it = self.sessions.id_at(session.slot) == Some(session);
        let entry = self.sessions.at(session.slot).filter(|entry| is_it && !entry.ended)?;
        entry.durable.as_ref().filter(|kept| kept.stream == stream).map(|_| session.slot)
    }
}

impl DurableSession {
    pub(super) fn new(stream: StreamId, publisher: u64) -> Self {
        Self {
            stream,
            publisher,
            subscriptions: Vec::new(),
            will: None,
            received: Vec::new(),
            next: 0,
            is_behind: false,
            fetch: None,
            wake: Sequence::default(),
            has_groups: false,
        }
    }

    /// Whether messages in the log wait to be read back.
    pub(in crate::shard) fn is_behind(&self) -> bool {
        self.is_behind
    }
}

fn value(entry: &Session, publisher: u64, has_groups: bool, standing: Standing) -> SessionValue<'_> {
    SessionValue {
        client_id: &entry.client_id,
        publisher,
        expiry_secs: entry.expiry_secs,
        standing,
        has_groups,
        version: entry.version,
    }
}
