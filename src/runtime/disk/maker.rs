//! The thread that makes and deletes segments: writing tens of megabytes of zeros, syncing folders and unlinking block for long.
//!
//! One for all shards: what it does is bounded by the disk, not by a core. It sleeps until there is something to make.

use super::volume::{Volume, open_direct};
use crate::log::{DiskError, DiskReply, SegmentId};
use nix::errno::Errno;
use nix::fcntl::posix_fallocate;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Bytes written at once. Between two such writes a commit has its turn at the disk.
const CHUNK: usize = 256 << 10;

/// Aligned, as direct I/O wants it.
#[repr(C, align(4096))]
struct Zeros([u8; CHUNK]);

static ZEROS: Zeros = Zeros([0; CHUNK]);

/// The thread; it ends when the last [`Making`] is gone and all is done.
#[derive(Debug)]
pub struct Maker {
    jobs: Sender<Job>,
}

/// One shard's access to it.
#[derive(Debug)]
pub struct Making {
    volume: Volume,
    jobs: Sender<Job>,
    done: Sender<DiskReply>,
    replies: Receiver<DiskReply>,
    /// Wakes the shard when there is a reply.
    event: Arc<OwnedFd>,
    outstanding: usize,
}

#[derive(Debug)]
struct Job {
    volume: Volume,
    task: Task,
    done: Sender<DiskReply>,
    event: Arc<OwnedFd>,
}

#[derive(Clone, Copy, Debug)]
enum Task {
    Create(SegmentId, u32),
    Remove(SegmentId),
}

impl Maker {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system refuses one.
    pub fn start() -> io::Result<Self> {
        let (jobs, inbox) = channel::<Job>();
        let work = move || inbox.into_iter().for_each(Job::run);
        std::thread::Builder::new().name("log-files".to_owned()).spawn(work)?;
        Ok(Self { jobs })
    }

    /// Access for the shard whose log is in `volume`, and which `event` wakes.
    #[must_use]
    pub fn for_shard(&self, volume: Volume, event: Arc<OwnedFd>) -> Making {
        let (done, replies) = channel();
        Making { volume, jobs: self.jobs.clone(), done, replies, event, outstanding: 0 }
    }
}

impl Making {
    /// Has a file of so many zeros made.
    pub fn create(&mut self, segment: SegmentId, bytes: u32) {
        self.ask(Task::Create(segment, bytes));
    }

    /// Has a file deleted.
    pub fn remove(&mut self, segment: SegmentId) {
        self.ask(Task::Remove(segment));
    }

    /// The next answer. Costs nothing while nothing is asked for.
    pub fn poll(&mut self) -> Option<DiskReply> {
        if self.outstanding == 0 {
            return None;
        }
        let reply = self.replies.try_recv().ok()?;
        self.outstanding -= 1;
        Some(reply)
    }

    fn ask(&mut self, task: Task) {
        let (volume, done) = (self.volume.clone(), self.done.clone());
        self.outstanding += 1;
        let job = Job { volume, task, done, event: Arc::clone(&self.event) };
        self.jobs.send(job).expect("the thread lives as long as somebody may ask");
    }
}

impl Job {
    fn run(self) {
        let reply = match self.task {
            Task::Create(segment, bytes) => {
                let result = create_segment(&self.volume, segment, bytes);
                let result = result.map_err(|error| told("making", &self.volume.path(segment), &error));
                DiskReply::Created { segment, result }
            }
            Task::Remove(segment) => {
                let path = self.volume.path(segment);
                let result = fs::remove_file(&path).map_err(|error| told("deleting", &path, &error));
                DiskReply::Removed { segment, result }
            }
        };
        // A shard that is gone does not wait.
        let _ = self.done.send(reply);
        // Fails only when the counter is at its end, and then the shard is awake.
        let _ = nix::unistd::write(&self.event, &1u64.to_ne_bytes());
    }
}

/// Says what went wrong, and what that means for the log.
pub(super) fn told(what: &str, path: &Path, error: &io::Error) -> DiskError {
    let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    if is_full {
        // Tried again every second: the shard says when it is full, and when no longer.
        tracing::debug!("{what} {}: {error}", path.display());
        DiskError::Full
    } else {
        tracing::error!("{what} {} failed: {error}", path.display());
        DiskError::Failed
    }
}

/// Makes a segment of zeros, under another name until all of it is safe. Blocks for long.
///
/// # Errors
/// If there is no room, or the disk fails; nothing is left then.
pub fn create_segment(volume: &Volume, segment: SegmentId, bytes: u32) -> io::Result<()> {
    let draft = volume.draft_path(segment);
    let made = fill(&draft, bytes).and_then(|()| fs::rename(&draft, volume.path(segment)));
    if made.is_err() {
        // It may be what fills the disk. If it cannot be deleted either, the next attempt overwrites it.
        let _ = fs::remove_file(&draft);
    }
    made?;
    File::open(volume.folder())?.sync_all()
}

fn fill(path: &Path, bytes: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let (file, _) = open_direct(options.write(true).create(true).truncate(true).mode(0o600), path)?;
    // Says at once whether there is room, without writing the disk full.
    match posix_fallocate(&file, 0, i64::from(bytes)) {
        Ok(()) | Err(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENODEV) => {}
        Err(error) => return Err(error.into()),
    }
    let mut at = 0;
    while at < u64::from(bytes) {
        let rest = usize::try_from(u64::from(bytes) - at).expect("a segment fits into memory");
        let chunk = &ZEROS.0[..rest.min(CHUNK)];
        file.write_all_at(chunk, at)?;
        at += chunk.len() as u64;
    }
    file.sync_all()
}
