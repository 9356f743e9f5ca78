//! Bits that change on disks, and reads that fail.
//!
//! What a changed bit may cost is found by reading the disk back twice, as it was and as it is. What is damaged must be reported,
//! and lie within what was written with the byte; where the log is taken to end, the byte is in its way. Nothing may be missing or
//! another that is not there: neither messages nor sessions nor states; and where nothing is damaged, nothing may differ. Of whose
//! sessions anything differs less is asked afterwards; of all others everything.

use crate::clients::Client;
use crate::crash::recover;
use crate::disk::Drive;
use crate::world::World;
use quelea::base::{HashKey, VhostId};
use quelea::log::{
    Cut, Damage, MessageNumber, Origin, Place, Recovered, RecoveredState, RecoveredStream, Recovery, Report,
    SegmentId, StateId, StreamId,
};
use quelea::shard::durable::format;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Where a segment's header is, twice.
const HEADERS: u32 = 8192;

/// A byte of which a bit has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rot {
    shard: usize,
    segment: SegmentId,
    offset: u32,
}

/// What a log comes to.
struct Contents {
    streams: BTreeMap<StreamId, RecoveredStream>,
    states: BTreeMap<StateId, RecoveredState>,
    messages: BTreeMap<(StreamId, MessageNumber), u64>,
    origins: BTreeSet<(u64, u16)>,
    places: BTreeMap<MessageNumber, Place>,
    report: Report,
}

impl Contents {
    fn of(recovered: Recovered) -> Self {
        let Recovered { log, streams, states, report } = recovered;
        let messages = streams.iter().flat_map(|stream| {
            log.messages(stream.id).map(|(number, tag)| ((stream.id, number), tag)).collect::<Vec<_>>()
        });
        Self {
            messages: messages.collect(),
            origins: log.origins().map(|Origin { publisher, packet_id }| (publisher, packet_id)).collect(),
            places: log.places().into_iter().map(|place| (place.number, place)).collect(),
            streams: streams.into_iter().map(|stream| (stream.id, stream)).collect(),
            states: states.into_iter().map(|state| (state.id, state)).collect(),
            report,
        }
    }

    /// Where it could not be read.
    fn unread(&self, size: u32) -> BTreeMap<SegmentId, Vec<Range<u32>>> {
        let mut unread: BTreeMap<SegmentId, Vec<Range<u32>>> = BTreeMap::new();
        for damage in &self.report.damage {
            if let Damage::Bytes { segment, offset, bytes } = *damage {
                unread.entry(segment).or_default().push(offset..offset + bytes);
            }
        }
        if let Some(Cut { segment, offset }) = self.report.cut {
            unread.entry(segment).or_default().push(offset..size);
        }
        unread
    }
}

/// Whether a value stands somewhere in these bytes.
fn holds(bytes: &[u8], value: &[u8]) -> bool {
    bytes.windows(value.len().max(1)).any(|window| window == value)
}

/// What is another than it was has its newest version in what is damaged; where nothing is, nothing differs.
fn check_changed(was: &Contents, is: &Contents, lost: &[Range<u32>], bytes: &[u8]) -> Result<(), String> {
    let streams = differing(&was.streams, &is.streams);
    let states = differing(&was.states, &is.states);
    if lost.is_empty() {
        let messages = differing(&was.messages, &is.messages);
        let is_same =
            streams.is_empty() && states.is_empty() && messages.is_empty() && was.origins == is.origins;
        return if is_same {
            Ok(())
        } else {
            Err(format!("nothing is damaged, and {streams:?} {states:?} {messages:?} or origins differ"))
        };
    }
    for id in streams {
        let (Some(old), Some(new)) = (was.streams.get(&id), is.streams.get(&id)) else { continue };
        if old.value != new.value && !holds(bytes, &old.value) {
            return Err(format!("{id:?} is another, and was not in what is damaged"));
        }
    }
    for id in states {
        let (Some(old), Some(new)) = (was.states.get(&id), is.states.get(&id)) else { continue };
        if old.value != new.value && !holds(bytes, &old.value) {
            return Err(format!("{id:?} {:?} is another, and was not in what is damaged", old.kind));
        }
    }
    Ok(())
}

/// Keys of which one side has no equal.
fn differing<K: Ord + Copy, V: PartialEq>(a: &BTreeMap<K, V>, b: &BTreeMap<K, V>) -> BTreeSet<K> {
    let all = a.keys().chain(b.keys()).copied();
    all.filter(|key| a.get(key) != b.get(key)).collect()
}

/// The messages of which something is in these bytes.
pub(crate) fn tags_in(bytes: &[u8]) -> BTreeSet<usize> {
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'|');
    let tag = |(end, _): (usize, &u8)| {
        let digits = bytes[..end].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let begin = end - digits;
        let is_tag = digits > 0 && begin > 0 && bytes[begin - 1] == b'm';
        is_tag.then(|| std::str::from_utf8(&bytes[begin..end]).ok()?.parse().ok()).flatten()
    };
    ends.filter_map(tag).collect()
}

/// The retained topics that are named in these bytes.
pub(crate) fn topics_in(bytes: &[u8]) -> BTreeSet<String> {
    let is_topic = |name: &&[u8]| matches!(name, [b'r', b'/', one, b'/', other] if one.is_ascii_digit() && other.is_ascii_digit());
    bytes.windows(5).filter(is_topic).map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

impl World {
    /// After a crash, now and then: a bit of what is on some disk.
    pub(crate) fn rot_disks(&mut self) {
        let Some(faults) = &self.swarm.disk else { return };
        let rots = faults.rots;
        if rots == 0 || self.is_healing || !self.is_busy || !self.disk_rng.chance(rots) {
            return;
        }
        let shard = self.disk_rng.size(0, self.drives.len() - 1);
        let clean = self.drives[shard].clone();
        let Some((segment, offset)) = self.drives[shard].rot(&mut self.disk_rng) else { return };
        let rot = Rot { shard, segment, offset };
        self.note(format_args!("{rot:?}"));
        self.rot.push(rot);
        if let Err(error) = self.judge_rot(rot, clean) {
            self.fail(error);
        }
    }

    pub(crate) fn recovery(&self, shard: usize) -> Recovery {
        let starts = self.crashes.len() as u64;
        let key = HashKey { k0: self.key.k0 ^ starts, k1: self.key.k1 ^ shard as u64 };
        Recovery::new(self.swarm.options.log.clone(), key, &self.drives[shard].files())
    }

    /// Only what has rotted may be damaged.
    pub(crate) fn check_damage(&self, shard: usize, report: &Report) -> Result<(), String> {
        let rot = || self.rot.iter().filter(|rot| rot.shard == shard);
        let is_known = |damage: &Damage| match *damage {
            Damage::Bytes { segment, offset, bytes } => {
                let range = offset..offset + bytes;
                rot().any(|rot| rot.segment == segment && range.contains(&rot.offset))
            }
            // Of a header only one copy was left by a crash, and that is another now.
            Damage::Missing { .. } => rot().any(|rot| rot.offset < HEADERS),
            Damage::Record { .. } => false,
        };
        match report.damage.iter().find(|damage| !is_known(damage)) {
            Some(damage) => Err(format!("shard {shard}: {damage:?}")),
            None => Ok(()),
        }
    }

    /// What the bit has cost, and whether that is too much.
    fn judge_rot(&mut self, rot: Rot, mut clean: Drive) -> Result<(), String> {
        let Rot { shard, segment, offset } = rot;
        let (recovery, again) = (self.recovery(shard), self.recovery(shard));
        let was = Contents::of(recover(recovery, &mut clean)?);
        let is = Contents::of(recover(again, &mut self.drives[shard])?);
        self.check_damage(shard, &is.report)?;
        let mut lost = Vec::new();
        for (file, ranges) in is.unread(clean.size(segment)) {
            let before = was.unread(clean.size(segment)).remove(&file).unwrap_or_default();
            for range in ranges.into_iter().filter(|range| !before.contains(range)) {
                let is_cut =
                    is.report.cut.is_some_and(|cut| (cut.segment, cut.offset) == (file, range.start));
                // Behind the first commit that is not whole, and was not known to be safe, the log ends: see `log::tail`.
                let end = if is_cut { clean.write_of(file, range.start).end } else { range.end };
                // With the byte or without it what lies at the end could not be read.
                let is_end = |other: &&Range<u32>| range.start < other.start && end <= other.end;
                let end = before.iter().filter(is_end).map(|other| other.start.min(end)).min().unwrap_or(end);
                let read = range.start..end;
                if file != segment || !self.is_rotten(shard, segment, &read) {
                    return Err(format!("{rot:?} has {range:?} of {file} not read"));
                }
                lost.push(range);
            }
        }
        // A last commit that does not even look like one is taken for what was there before it.
        if lost.is_empty() && clean.is_last_write(segment, offset) {
            lost.push(clean.write_of(segment, offset));
        }
        // Without a header that can be read nobody knows that it was a segment.
        if was.report.worn.contains(&segment) && offset < HEADERS {
            lost.push(0..clean.size(segment));
        }
        let bytes: Vec<u8> = lost
            .iter()
            .flat_map(|range| clean.bytes(segment, range.start, range.end - range.start).to_vec())
            .collect();
        self.check_missing(&was, &is, segment, &lost, &bytes)?;
        check_changed(&was, &is, &lost, &bytes).map_err(|error| format!("{rot:?}: {error}"))?;
        self.excuse(&was, &is, &bytes);
        // A session that is lost takes with it what it held of groups.
        for (_, number) in was.messages.keys().filter(|key| !is.messages.contains_key(key)) {
            let Place { segment, offset, size, .. } = was.places[number];
            self.oracle.lost_with_session.append(&mut tags_in(clean.bytes(segment, offset, size)));
        }
        Ok(())
    }

    /// Whether all of it was written together with something that has rotted.
    fn is_rotten(&self, shard: usize, segment: SegmentId, range: &Range<u32>) -> bool {
        let mut at = range.start;
        while at < range.end {
            let written = self.drives[shard].write_of(segment, at);
            if written.end <= at {
                return false;
            }
            let is_in =
                |rot: &Rot| (rot.shard, rot.segment) == (shard, segment) && written.contains(&rot.offset);
            if !self.rot.iter().any(is_in) {
                return false;
            }
            at = written.end;
        }
        true
    }

    /// Whatever is missing was there.
    fn check_missing(
        &self,
        was: &Contents,
        is: &Contents,
        segment: SegmentId,
        lost: &[Range<u32>],
        bytes: &[u8],
    ) -> Result<(), String> {
        for (id, stream) in &was.streams {
            if !is.streams.contains_key(id) && !holds(bytes, &stream.value) {
                return Err(format!("{id:?} is lost, and was not in what is damaged"));
            }
        }
        for (id, state) in was.states.iter().filter(|(id, _)| !is.states.contains_key(id)) {
            let is_orphan = state.owner.is_some_and(|owner| !is.streams.contains_key(&owner));
            if !is_orphan && !holds(bytes, &state.value) {
                return Err(format!("{id:?} {:?} is lost, and was not in what is damaged", state.kind));
            }
        }
        for (stream, number) in was.messages.keys().filter(|key| !is.messages.contains_key(key)) {
            let place = was.places[number];
            let is_in = |range: &Range<u32>| {
                place.segment == segment
                    && place.offset < range.end
                    && range.start < place.offset + place.size
            };
            if is.streams.contains_key(stream) && !lost.iter().any(is_in) {
                return Err(format!("{number:?} of {stream:?} at {place:?} is lost, damaged is {lost:?}"));
            }
        }
        Ok(())
    }

    /// Of whom less is asked from now on.
    fn excuse(&mut self, was: &Contents, is: &Contents, bytes: &[u8]) {
        self.oracle.excused.append(&mut tags_in(bytes));
        self.oracle.excused_topics.extend(topics_in(bytes));
        let mut streams = differing(&was.streams, &is.streams);
        streams.extend(differing(&was.messages, &is.messages).into_iter().map(|(stream, _)| stream));
        for id in differing(&was.states, &is.states) {
            for state in [was.states.get(&id), is.states.get(&id)].into_iter().flatten() {
                streams.extend(state.owner);
                let retained = format::retained(VhostId(0), &state.value).filter(|_| state.owner.is_none());
                self.oracle.excused_topics.extend(retained.map(|message| message.as_ref().topic.to_owned()));
            }
        }
        // By what origins call them: a publisher's session may be on another disk.
        let mut publishers: BTreeSet<u64> =
            was.origins.symmetric_difference(&is.origins).map(|(publisher, _)| *publisher).collect();
        let values = |contents: &Contents| contents.streams.values().cloned().collect::<Vec<_>>();
        let mut sessions: Vec<RecoveredStream> = [was, is].into_iter().flat_map(values).collect();
        publishers.extend(
            sessions
                .iter()
                .filter(|stream| streams.contains(&stream.id))
                .filter_map(|stream| format::session(&stream.value).map(|value| value.publisher)),
        );
        for shard in 0..self.drives.len() {
            let recovered = recover(self.recovery(shard), &mut self.drives[shard].clone());
            sessions.extend(recovered.map(|recovered| recovered.streams).unwrap_or_default());
        }
        for value in sessions.iter().filter_map(|stream| format::session(&stream.value)) {
            if publishers.contains(&value.publisher) {
                self.excuse_client(value.client_id);
            }
        }
    }

    fn excuse_client(&mut self, client_id: &str) {
        self.note(format_args!("{client_id} is hit"));
        let now = self.now_ms();
        for (index, client) in self.clients.iter_mut().enumerate() {
            if let Some(Client::Polite(polite)) = client
                && polite.profile.client_id == client_id
            {
                polite.hit_ms = Some(now);
                self.oracle.excused_clients.insert(index);
            }
        }
    }
}
