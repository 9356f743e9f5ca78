//! A disk for each shard, in memory: late, sometimes full, rarely broken, and torn at a power cut. `README.md` says why each
//! fault is survivable.
//!
//! Writes and syncs come one at a time, as the log asks for them; reads, `Create` and `Remove` overtake them and each other.

use crate::rng::Rng;
use crate::rot::{tags_in, topics_in};
use crate::world::{Event, World};
use quelea::log::{Disk, DiskError, DiskReply, Options, SegmentId, SyncMode};
use std::collections::BTreeMap;
use std::ops::Range;

/// What survives a power cut or does not, as a whole.
const SECTOR: usize = 512;

/// What a seed draws about disks and crashes.
#[derive(Clone, Debug)]
pub(crate) struct DiskFaults {
    pub(crate) delay_ms_max: u64,
    /// How long it takes until the process starts again.
    pub(crate) down_ms_max: u64,
    pub(crate) crashes: Vec<CrashPlan>,
    /// Crashes are power cuts, where the log's options promise something about them.
    pub(crate) cuts_power: bool,
    /// Per mille of the sectors that were not synced: those a power cut takes.
    pub(crate) lost_sectors: u64,
    /// There is no space for a while, now and then.
    pub(crate) fills: bool,
    /// The disk watermark is passed for a while, now and then.
    pub(crate) watermark: bool,
    /// A sync of one shard fails: how many go well before.
    pub(crate) fails: Option<(u16, u64)>,
    /// The process may start again with another number of shards.
    pub(crate) reshards: bool,
    /// Per mille of the crashes after which some bit on some disk is another.
    pub(crate) rots: u64,
    /// Per mille of the reads that fail while the process runs.
    pub(crate) bad_reads: u64,
}

/// When the process dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CrashPlan {
    /// So many milliseconds after clients began to act.
    At(u64),
    /// At the nth operation of one shard's disk.
    Operation { shard: u16, number: u64, moment: Moment },
    /// Right when the nth packet of this kind since the start leaves for a client whose session is on disk. It arrives: what it
    /// says must be so after the next start.
    Packet { kind: Kind, number: u64 },
    /// So many milliseconds after the nth connection of such a client, or its session, has ended.
    Ending { number: u64, wait_ms: u64 },
}

/// Packets a crash is aimed at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    ConnAck,
    /// PUBLISH with QoS 2.
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    SubAck,
    UnsubAck,
    /// An acknowledgement of a retained message, when the client has it.
    Retained,
}

impl Kind {
    /// What has more ways to go wrong is there more often.
    const ALL: [Self; 12] = [
        Self::ConnAck,
        Self::Publish,
        Self::PubAck,
        Self::PubRec,
        Self::PubRel,
        Self::PubRel,
        Self::PubComp,
        Self::PubComp,
        Self::SubAck,
        Self::SubAck,
        Self::UnsubAck,
        Self::Retained,
    ];

    /// By the first byte of a packet.
    fn of(first: u8) -> Option<Self> {
        Some(match first >> 4 {
            2 => Self::ConnAck,
            3 if first & 0b110 == 0b100 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            9 => Self::SubAck,
            11 => Self::UnsubAck,
            _ => return None,
        })
    }

    /// Of whole packets, one behind the other.
    pub(crate) fn all_of(mut bytes: &[u8]) -> Vec<Self> {
        let mut kinds = Vec::new();
        while let [first, rest @ ..] = bytes {
            kinds.extend(Self::of(*first));
            let size = rest.iter().position(|byte| byte & 0x80 == 0).expect("packets are whole") + 1;
            let len = rest[..size].iter().rev().fold(0, |len, byte| len << 7 | usize::from(byte & 0x7f));
            bytes = &rest[size + len..];
        }
        kinds
    }
}

/// Which moment of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Moment {
    /// The shard has asked for it: it may be done in part.
    Asked,
    /// It is done, and the shard has not heard of it.
    Done,
    /// The shard knows, and what it sent because of that may be on its way.
    Told,
}

impl DiskFaults {
    /// For half of the seeds; the log's options go with it.
    pub(crate) fn draw(seed: u64, options: &mut Options) -> Option<Self> {
        let rng = &mut Rng::stream(seed, "disks");
        if rng.chance(400) {
            return None;
        }
        options.segment_bytes = *rng.pick(&[64, 64, 96, 128]) << 10;
        options.sync = *rng.pick(&[
            SyncMode::Commit,
            SyncMode::Commit,
            SyncMode::Commit,
            SyncMode::Interval,
            SyncMode::None,
        ]);
        options.segments_min = *rng.pick(&[2, 4]);
        options.spare_segments_max = *rng.pick(&[0, 2, 8]);
        let count = *rng.pick(&[0, 1, 2, 3, 4]);
        let mut crashes: Vec<CrashPlan> = (0..count).map(|_| crash_plan(rng)).collect();
        let is_aimed = rng.chance(600);
        if is_aimed {
            crashes.extend((0..*rng.pick(&[8, 16])).map(|_| aimed_plan(rng)));
        }
        let fails = rng.chance(40);
        Some(Self {
            // What is sent too early shows while the disk is slower than everything else.
            delay_ms_max: *rng.pick(if is_aimed { &[5, 40, 150, 150] } else { &[0, 1, 5, 40] }),
            down_ms_max: if is_aimed { 30 } else { 4_000 },
            crashes,
            cuts_power: rng.chance(700) && options.sync == SyncMode::Commit,
            lost_sectors: *rng.pick(&[1000, 500, 100]),
            fills: rng.chance(100),
            watermark: rng.chance(100),
            fails: fails.then(|| (rng.short(0, 4), rng.between(0, 100))),
            reshards: rng.chance(350),
            rots: if rng.chance(150) { 400 } else { 0 },
            bad_reads: if rng.chance(100) { *rng.pick(&[20, 200]) } else { 0 },
        })
    }

    /// Disks that do what they are told.
    pub(crate) fn none() -> Self {
        Self {
            delay_ms_max: 1,
            down_ms_max: 1,
            crashes: Vec::new(),
            cuts_power: true,
            lost_sectors: 1000,
            fills: false,
            watermark: false,
            fails: None,
            reshards: false,
            rots: 0,
            bad_reads: 0,
        }
    }

    /// Whether durable publishes and subscriptions may be refused for a while.
    pub(crate) fn refuses(&self) -> bool {
        self.fills || self.watermark || self.fails.is_some()
    }
}

fn crash_plan(rng: &mut Rng) -> CrashPlan {
    if rng.chance(300) {
        return CrashPlan::At(rng.between(0, 30_000));
    }
    let most = *rng.pick(&[10, 60, 300, 1000]);
    let moment = *rng.pick(&[Moment::Asked, Moment::Done, Moment::Told]);
    CrashPlan::Operation { shard: rng.short(0, 4), number: rng.between(1, most), moment }
}

fn aimed_plan(rng: &mut Rng) -> CrashPlan {
    if rng.chance(200) {
        let wait_ms = *rng.pick(&[0, 1, 5, 20]);
        return CrashPlan::Ending { number: rng.between(1, 4), wait_ms };
    }
    CrashPlan::Packet { kind: *rng.pick(&Kind::ALL), number: *rng.pick(&[1, 1, 2, 4, 8]) }
}

#[derive(Clone, Default, Debug)]
struct File {
    bytes: Vec<u8>,
    /// What the sectors were that were written since the last sync, by place.
    before: BTreeMap<usize, Vec<u8>>,
    /// Writes since the segment was last begun: where, and how much. Without its first sector there is no telling that one was there.
    writes: BTreeMap<usize, usize>,
}

/// One shard's disk.
#[derive(Clone, Default, Debug)]
pub(crate) struct Drive {
    files: BTreeMap<SegmentId, File>,
    /// Operations on their way, by number.
    flying: BTreeMap<u64, Disk>,
    /// Operations so far.
    count: u64,
    is_full: bool,
    /// The sync after so many fails, and whatever is written behind it.
    good_syncs: Option<u64>,
}

impl Drive {
    pub(crate) fn is_idle(&self) -> bool {
        self.flying.is_empty()
    }

    pub(crate) fn files(&self) -> Vec<(SegmentId, u32)> {
        let size = |file: &File| u32::try_from(file.bytes.len()).expect("segments are small");
        self.files.iter().map(|(segment, file)| (*segment, size(file))).collect()
    }

    /// Does it.
    pub(crate) fn carry_out(&mut self, operation: &Disk) -> DiskReply {
        let space = if self.is_full { Err(DiskError::Full) } else { Ok(()) };
        match operation {
            Disk::Create { segment, bytes } => {
                if space.is_ok() {
                    let bytes = vec![0; *bytes as usize];
                    self.files.insert(*segment, File { bytes, ..File::default() });
                }
                DiskReply::Created { segment: *segment, result: space }
            }
            Disk::Write { segment, offset, bytes } => {
                assert_eq!((*offset % 4096, bytes.len() % 4096), (0, 0), "whole blocks");
                if space.is_ok() {
                    self.write(*segment, *offset as usize, bytes, |_| true);
                }
                DiskReply::Written { result: space }
            }
            Disk::Sync { segment } => {
                if let Some(left) = &mut self.good_syncs {
                    if *left == 0 {
                        return DiskReply::Synced { result: Err(DiskError::Failed) };
                    }
                    *left -= 1;
                }
                self.files.get_mut(segment).expect("only what was made is synced").before.clear();
                DiskReply::Synced { result: Ok(()) }
            }
            Disk::Read { id, segment, offset, bytes } => {
                assert_eq!((offset % 4096, bytes % 4096), (0, 0), "whole blocks");
                let range = *offset as usize..(offset + bytes) as usize;
                let bytes = self.files[segment].bytes.get(range).map(<[u8]>::to_vec);
                DiskReply::Read { id: *id, result: bytes.ok_or(DiskError::Failed) }
            }
            Disk::Remove { segment } => {
                self.files.remove(segment).expect("only what is there is removed");
                DiskReply::Removed { segment: *segment, result: Ok(()) }
            }
        }
    }

    /// Writes the sectors that `reaches` the disk.
    fn write(
        &mut self,
        segment: SegmentId,
        offset: usize,
        bytes: &[u8],
        mut reaches: impl FnMut(usize) -> bool,
    ) {
        let file = self.files.get_mut(&segment).expect("only what was made is written");
        if offset == 0 {
            file.writes.clear();
        }
        for (index, sector) in bytes.chunks(SECTOR).enumerate() {
            let range = offset + index * SECTOR..offset + index * SECTOR + sector.len();
            if reaches(index) {
                if index == 0 {
                    file.writes.insert(offset, bytes.len());
                }
                file.before.entry(range.start).or_insert_with(|| file.bytes[range.clone()].to_vec());
                file.bytes[range].copy_from_slice(sector);
            }
        }
    }

    /// What is in a file.
    pub(crate) fn bytes(&self, segment: SegmentId, offset: u32, size: u32) -> &[u8] {
        &self.files[&segment].bytes[offset as usize..(offset + size) as usize]
    }

    pub(crate) fn size(&self, segment: SegmentId) -> u32 {
        u32::try_from(self.files[&segment].bytes.len()).expect("segments are small")
    }

    /// What was written together with a byte.
    pub(crate) fn write_of(&self, segment: SegmentId, offset: u32) -> Range<u32> {
        let write = self.files[&segment].writes.range(..=offset as usize).next_back();
        let small = |size: usize| u32::try_from(size).expect("segments are small");
        write.map_or(0..0, |(start, size)| small(*start)..small(*start + *size))
    }

    /// Whether nothing was written behind it in its file.
    pub(crate) fn is_last_write(&self, segment: SegmentId, offset: u32) -> bool {
        self.files[&segment].writes.range(offset as usize + 1..).next().is_none()
    }

    /// Changes a bit of something that was written and synced; gives where.
    pub(crate) fn rot(&mut self, rng: &mut Rng) -> Option<(SegmentId, u32)> {
        let written = self.files.iter().flat_map(|(segment, file)| {
            let synced = file
                .writes
                .iter()
                .filter(|(offset, size)| file.before.range(**offset..**offset + **size).next().is_none());
            synced.map(|(offset, size)| (*segment, *offset, *size))
        });
        let written: Vec<_> = written.collect();
        if written.is_empty() {
            return None;
        }
        let (segment, offset, size) = *rng.pick(&written);
        let file = self.files.get_mut(&segment).expect("found above");
        // Not padding, mostly.
        let places: Vec<usize> = (offset..offset + size).filter(|at| file.bytes[*at] != 0).collect();
        if places.is_empty() {
            return None;
        }
        let place = *rng.pick(&places);
        file.bytes[place] ^= 1 << rng.below(8);
        Some((segment, u32::try_from(place).expect("segments are small")))
    }

    /// No failure is to come.
    pub(crate) fn heal(&mut self) {
        self.good_syncs = None;
    }

    /// The process dies. What is on its way is done in part; a power cut takes of what was not synced what it likes.
    fn crash(&mut self, rng: &mut Rng, lost_sectors: Option<u64>) {
        for operation in std::mem::take(&mut self.flying).into_values() {
            match &operation {
                Disk::Write { segment, offset, bytes } => {
                    let reached = rng.pick(&[0, 500, 1000]).to_owned();
                    self.write(*segment, *offset as usize, bytes, |_| rng.chance(reached));
                }
                Disk::Create { .. } | Disk::Remove { .. } if rng.chance(500) => {
                    self.carry_out(&operation);
                }
                Disk::Create { .. } | Disk::Remove { .. } | Disk::Sync { .. } | Disk::Read { .. } => {}
            }
        }
        self.good_syncs = None;
        let Some(lost_sectors) = lost_sectors else { return };
        for file in self.files.values_mut() {
            for (at, bytes) in std::mem::take(&mut file.before) {
                if rng.chance(lost_sectors) {
                    file.bytes[at..at + bytes.len()].copy_from_slice(&bytes);
                    file.writes.remove(&at);
                }
            }
        }
    }
}

impl World {
    /// Hands a shard's operations to its disk.
    pub(crate) fn poll_disk(&mut self, shard: usize) {
        while let Some(operation) = self.shards[shard].poll_disk() {
            let faults = self.swarm.disk.as_ref().expect("only a log asks for a disk");
            let mut delay = self.disk_rng.between(0, faults.delay_ms_max);
            if self.disk_rng.chance(20) && !self.is_healing {
                delay *= 10;
            }
            let text = match &operation {
                Disk::Create { segment, .. } => format!("create {segment}"),
                Disk::Write { segment, offset, bytes } => format!("write {segment} {offset} {}", bytes.len()),
                Disk::Sync { segment } => format!("sync {segment}"),
                Disk::Read { segment, offset, bytes, .. } => format!("read {segment} {offset} {bytes}"),
                Disk::Remove { segment } => format!("remove {segment}"),
            };
            let drive = &mut self.drives[shard];
            drive.count += 1;
            let number = drive.count;
            drive.flying.insert(number, operation);
            self.note(format_args!("disk {shard}: {number} {text}"));
            self.after(delay, Event::Disk { shard, number });
            self.aim(shard, number, Moment::Asked);
        }
    }

    /// An operation is done.
    pub(crate) fn on_disk(&mut self, shard: usize, number: u64) {
        let drive = &mut self.drives[shard];
        let operation = drive.flying.remove(&number).expect("operations die with their events");
        let reply = drive.carry_out(&operation);
        let reply = self.spoil(shard, reply, &operation);
        self.note(format_args!("disk {shard}: {number} done"));
        if self.aim(shard, number, Moment::Done) {
            return;
        }
        let now = self.now;
        self.shards[shard].handle_disk(now, reply);
        self.wake(shard);
        self.aim(shard, number, Moment::Told);
    }

    /// Some reads fail: of the messages whose bytes were asked for nobody can say whether they come.
    fn spoil(&mut self, shard: usize, reply: DiskReply, operation: &Disk) -> DiskReply {
        let bad_reads = self.swarm.disk.as_ref().map_or(0, |faults| faults.bad_reads);
        let (DiskReply::Read { id, .. }, Disk::Read { segment, offset, bytes, .. }) = (&reply, operation)
        else {
            return reply;
        };
        if bad_reads == 0 || self.is_healing || !self.disk_rng.chance(bad_reads) {
            return reply;
        }
        self.note(format_args!("disk {shard}: {segment} {offset} cannot be read"));
        let mut tags = tags_in(self.drives[shard].bytes(*segment, *offset, *bytes));
        self.oracle.excused.append(&mut tags);
        // A clear has no tag.
        self.oracle.excused_topics.extend(topics_in(self.drives[shard].bytes(*segment, *offset, *bytes)));
        DiskReply::Read { id: *id, result: Err(DiskError::Failed) }
    }

    /// There is no space any more, or there is again.
    pub(crate) fn on_space(&mut self, is_full: bool) {
        if is_full && self.is_healing {
            return;
        }
        self.note(format_args!("disks full {is_full}"));
        self.drives.iter_mut().for_each(|drive| drive.is_full = is_full);
        let wait = self.disk_rng.between(100, if is_full { 3_000 } else { 8_000 });
        self.after(wait, Event::Space(!is_full));
    }

    /// The operator's watermark is passed, or is not any more.
    pub(crate) fn on_watermark(&mut self, is_over: bool) {
        if is_over && self.is_healing {
            return;
        }
        self.note(format_args!("disk watermark {is_over}"));
        for shard in 0..self.shards.len() {
            let now = self.now;
            self.shards[shard].handle_disk_space(now, is_over);
            self.wake(shard);
        }
        let wait = self.disk_rng.between(100, if is_over { 3_000 } else { 8_000 });
        self.after(wait, Event::Watermark(!is_over));
    }

    /// The disks as they were left by a crash.
    pub(crate) fn crash_disks(&mut self, cuts_power: bool) {
        let faults = self.swarm.disk.as_ref().expect("there are disks");
        let lost = cuts_power.then_some(faults.lost_sectors);
        for drive in &mut self.drives {
            drive.crash(&mut self.disk_rng, lost);
        }
    }

    /// One shard's disk will fail.
    pub(crate) fn plan_failure(&mut self) {
        if let Some((shard, after)) = self.swarm.disk.as_ref().and_then(|faults| faults.fails) {
            let shard = usize::from(shard) % self.drives.len();
            self.drives[shard].good_syncs = Some(after);
        }
    }
}

impl World {
    /// A disk fails in this seed.
    pub(crate) fn may_fail_disk(&self) -> bool {
        self.swarm.disk.as_ref().is_some_and(|faults| faults.fails.is_some())
    }
}
