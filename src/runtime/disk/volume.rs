//! The folder of one shard's log: which segments there are, and how they are opened.

use crate::log::SegmentId;
use libc::O_DIRECT;
use nix::errno::Errno;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What a file is called until all of it is there.
const DRAFT: &str = "new";

/// A folder of segments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Volume {
    folder: PathBuf,
}

impl Volume {
    /// The volume in `folder`, which exists.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a segment is.
    #[must_use]
    pub fn path(&self, segment: SegmentId) -> PathBuf {
        self.folder.join(segment.to_string())
    }

    /// Where a segment is until all of it is there.
    pub(super) fn draft_path(&self, segment: SegmentId) -> PathBuf {
        self.path(segment).with_extension(DRAFT)
    }

    /// The segment that a file of this name is, if it is one.
    #[must_use]
    pub fn segment(name: &str) -> Option<SegmentId> {
        parse(name)
    }

    /// All segments, each with its size in bytes. Deletes what was left of unfinished ones.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn list(&self) -> io::Result<Vec<(SegmentId, u32)>> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == DRAFT) {
                fs::remove_file(&path)?;
                continue;
            }
            let name = entry.file_name();
            let size = u32::try_from(entry.metadata()?.len()).ok();
            match parse(&name.to_string_lossy()).zip(size) {
                Some(segment) => segments.push(segment),
                None => tracing::warn!("{} is no segment of a log: left alone", path.display()),
            }
        }
        segments.sort_unstable();
        Ok(segments)
    }

    /// Waits until nothing is under way to these files any more. Of a process that was killed the kernel carries out what it had
    /// begun, and keeps the file open, and so locked, until it is done; whoever reads before may miss it, and whoever writes may
    /// be written over.
    ///
    /// # Errors
    /// If the folder or a file in it cannot be read.
    pub fn await_quiet(&self) -> io::Result<()> {
        self.list()?.into_iter().try_for_each(|(segment, _)| File::open(self.path(segment))?.lock())
    }

    /// Opens and locks a segment to read and write past the page cache, or through it if the file system cannot do without: then the second
    /// value is `false`.
    ///
    /// # Errors
    /// If there is no such file, or it is not to be opened.
    pub(super) fn open(&self, segment: SegmentId) -> io::Result<(File, bool)> {
        let opened = open_direct(OpenOptions::new().read(true).write(true), &self.path(segment))?;
        // The folder is this process's anyway: the lock is for the next one, see `await_quiet`.
        let _ = opened.0.try_lock();
        Ok(opened)
    }
}

/// Opens past the page cache if that can be; says whether it can.
pub(super) fn open_direct(options: &mut OpenOptions, path: &Path) -> io::Result<(File, bool)> {
    match options.custom_flags(O_DIRECT).open(path) {
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => {
            Ok((options.custom_flags(0).open(path)?, false))
        }
        result => Ok((result?, true)),
    }
}

/// The number in a segment's name.
fn parse(name: &str) -> Option<SegmentId> {
    let segment = SegmentId(name.strip_suffix(".log")?.parse().ok()?);
    (segment.to_string() == name).then_some(segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(parse("00007.log"), Some(SegmentId(7)));
        assert_eq!(parse("65535.log"), Some(SegmentId(u16::MAX)));
        for name in ["7.log", "00007.new", "65536.log", "+0007.log", "00007.log.bak", "meta"] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
