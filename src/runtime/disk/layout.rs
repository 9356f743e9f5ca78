//! The folder of all logs: `log`, with `meta` and one folder a shard.
//!
//! ```text
//! log        as it is in use
//! log.new    being made: whole once it has its `meta`, which is written last
//! log.old    was in use before `log.new` took its place
//! log.damaged    the same, kept because not all of it could be read
//! ```
//!
//! Taking the place is two renames. Whatever a crash leaves of them is finished at the next start: without `log`, a whole `log.new`
//! is it, else `log.old`; with it, both others are deleted.

use super::volume::Volume;
use crate::base::ShardId;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The format of the folder this code writes, and the newest it reads. Segments have versions of their own.
const VERSION: u32 = 1;
const NAME: &str = "log";
const DRAFT: &str = "log.new";
const FORMER: &str = "log.old";
const KEPT: &str = "log.damaged";
const META: &str = "meta";
const SHARDS_MAX: u16 = 64;

/// The folder of all logs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    folder: PathBuf,
    shards: u16,
}

/// Why the logs cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Unopened {
    /// A newer broker wrote them. Nothing was changed.
    #[error(
        "{path} has format version {version}, and this broker reads up to {VERSION}: start the broker that wrote it, or set \
        quelea.data_dir"
    )]
    Newer {
        /// Which file says so.
        path: PathBuf,
        /// What it says.
        version: u32,
    },
    /// `meta` is not what was written there.
    #[error(
        "{0} is damaged or missing: it says `quelea-log 1` and `shards N`, a line each; N is how many folders are beside it"
    )]
    Damaged(PathBuf),
    /// The file system said no.
    #[error("the durable log (quelea.data_dir): {path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was said.
        error: io::Error,
    },
}

impl Layout {
    /// Opens the logs below `data_dir`, or makes them for so many shards; finishes what a crash interrupted.
    ///
    /// # Errors
    /// If they are not readable, or not to be written to.
    pub fn open(data_dir: &Path, shards: u16) -> Result<Self, Unopened> {
        let folder = data_dir.join(NAME);
        let (draft, former) = (data_dir.join(DRAFT), data_dir.join(FORMER));
        // Looked at before anything is changed.
        let found = [&folder, &draft, &former].map(|folder| read_meta(folder));
        let [in_use, drafted, before] = found;
        let (in_use, drafted, before) = (in_use?, drafted?, before?);
        let shards = match (in_use, drafted, before) {
            (Some(shards), _, _) => shards,
            (None, _, _) if folder.exists() => return Err(Unopened::Damaged(folder.join(META))),
            (None, Some(shards), _) => {
                rename(&draft, &folder)?;
                shards
            }
            (None, None, Some(shards)) => {
                rename(&former, &folder)?;
                shards
            }
            (None, None, None) => {
                remove(&draft)?;
                Self::draft(data_dir, shards)?.complete()?;
                rename(&draft, &folder)?;
                shards
            }
        };
        remove(&draft)?;
        remove(&former)?;
        Ok(Self { folder, shards })
    }

    /// The logs below `data_dir`, to be looked at while another process may have them: changes nothing. `None` if there are none, or a
    /// crash has interrupted their replacement.
    ///
    /// # Errors
    /// If they are not readable.
    pub fn look(data_dir: &Path) -> Result<Option<Self>, Unopened> {
        let folder = data_dir.join(NAME);
        Ok(read_meta(&folder)?.map(|shards| Self { folder, shards }))
    }

    /// How many shards there are logs of.
    #[must_use]
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// Where a shard's log is.
    #[must_use]
    pub fn volume(&self, shard: ShardId) -> Volume {
        Volume::new(self.folder.join(format!("{:03}", shard.0)))
    }

    /// An empty folder for so many shards, to take the place of the one in use: [`complete`](Self::complete) it, then
    /// [`replace`](Self::replace).
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn draft(data_dir: &Path, shards: u16) -> Result<Self, Unopened> {
        let layout = Self { folder: data_dir.join(DRAFT), shards };
        remove(&layout.folder)?;
        for shard in 0..shards {
            let path = layout.volume(ShardId(shard)).folder().to_owned();
            DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(at(&path))?;
        }
        Ok(layout)
    }

    /// Says that all that belongs into a draft is there, and safe.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn complete(&self) -> Result<(), Unopened> {
        let path = self.folder.join(META);
        let write = || {
            let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path)?;
            file.write_all(format!("quelea-log {VERSION}\nshards {}\n", self.shards).as_bytes())?;
            file.sync_all()?;
            (0..self.shards).try_for_each(|shard| sync(self.volume(ShardId(shard)).folder()))?;
            sync(&self.folder)
        };
        write().map_err(at(&path))
    }

    /// Puts a complete draft in the place of the folder in use, which is deleted, or kept under another name: as evidence.
    ///
    /// # Errors
    /// If the file system refuses; the next start finds one of the two.
    pub fn replace(draft: Self, data_dir: &Path, is_kept: bool) -> Result<Self, Unopened> {
        let (folder, former) = (data_dir.join(NAME), data_dir.join(FORMER));
        rename(&folder, &former)?;
        rename(&draft.folder, &folder)?;
        if is_kept {
            let kept = data_dir.join(KEPT);
            remove(&kept)?;
            rename(&former, &kept)?;
        } else {
            remove(&former)?;
        }
        Ok(Self { folder, ..draft })
    }
}

/// How many shards `meta` speaks of; `None` if there is none.
fn read_meta(folder: &Path) -> Result<Option<u16>, Unopened> {
    let path = folder.join(META);
    let text = match fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(&path)(error)),
    };
    let mut lines = text.lines();
    let mut value = |name| lines.next()?.strip_prefix(name)?.strip_prefix(' ')?.parse::<u32>().ok();
    match value("quelea-log") {
        Some(version) if version > VERSION => return Err(Unopened::Newer { path, version }),
        Some(VERSION) => {}
        _ => return Err(Unopened::Damaged(path)),
    }
    let shards = value("shards").and_then(|shards| u16::try_from(shards).ok());
    match shards.filter(|shards| (1..=SHARDS_MAX).contains(shards)) {
        Some(shards) => Ok(Some(shards)),
        None => Err(Unopened::Damaged(path)),
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), Unopened> {
    let rename = || {
        fs::rename(from, to)?;
        to.parent().map_or(Ok(()), sync)
    };
    rename().map_err(at(to))
}

/// Deletes a folder, if there is one.
fn remove(folder: &Path) -> Result<(), Unopened> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(folder)(error)),
        _ => Ok(()),
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn at(path: &Path) -> impl Fn(io::Error) -> Unopened {
    let path = path.to_owned();
    move |error| Unopened::Io { path: path.clone(), error }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Scratch;
    use super::*;

    /// The names in a folder.
    fn names(folder: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(name).collect();
        names.sort();
        names
    }

    fn drafted(scratch: &Scratch, shards: u16) -> Layout {
        let draft = Layout::draft(scratch.path(), shards).unwrap();
        draft.complete().unwrap();
        draft
    }

    #[test]
    fn the_number_of_shards_is_the_one_at_the_first_start() {
        let scratch = Scratch::new("layout-first");
        let layout = Layout::open(scratch.path(), 2).unwrap();
        assert_eq!(names(&scratch.path().join("log")), ["000", "001", "meta"]);
        assert_eq!(Layout::open(scratch.path(), 5).unwrap(), layout);
        assert_eq!(names(scratch.path()), ["log"]);
    }

    #[test]
    fn another_folder_takes_the_place_whole() {
        let scratch = Scratch::new("layout-replace");
        Layout::open(scratch.path(), 2).unwrap();
        let layout = Layout::replace(drafted(&scratch, 3), scratch.path(), false).unwrap();
        assert_eq!(layout.shards(), 3);
        assert_eq!(Layout::open(scratch.path(), 2).unwrap(), layout);
        assert_eq!(names(scratch.path()), ["log"]);
        Layout::replace(drafted(&scratch, 4), scratch.path(), true).unwrap();
        assert_eq!(names(scratch.path()), ["log", "log.damaged"]);
    }

    #[test]
    fn a_crash_anywhere_leaves_one_of_the_two() {
        let log = |scratch: &Scratch, name: &str| scratch.path().join(name);
        let after = |scratch: &Scratch| {
            let shards = Layout::open(scratch.path(), 7).unwrap().shards();
            assert_eq!(names(scratch.path()), ["log"]);
            shards
        };
        let scratch = Scratch::new("layout-crash");
        Layout::open(scratch.path(), 2).unwrap();
        // A draft that is not whole, and one that is but was not renamed yet.
        Layout::draft(scratch.path(), 3).unwrap();
        assert_eq!(after(&scratch), 2);
        drafted(&scratch, 3);
        assert_eq!(after(&scratch), 2);
        // Between the renames.
        drafted(&scratch, 3);
        fs::rename(log(&scratch, "log"), log(&scratch, "log.old")).unwrap();
        assert_eq!(after(&scratch), 3);
        // Before the old one was deleted.
        let former = drafted(&scratch, 4);
        fs::rename(former.folder, log(&scratch, "log.old")).unwrap();
        assert_eq!(after(&scratch), 3);
        // The draft was lost: the old one is as good.
        fs::rename(log(&scratch, "log"), log(&scratch, "log.old")).unwrap();
        Layout::draft(scratch.path(), 4).unwrap();
        assert_eq!(after(&scratch), 3);
    }

    #[test]
    fn a_newer_or_damaged_folder_is_left_alone() {
        let scratch = Scratch::new("layout-newer");
        Layout::open(scratch.path(), 2).unwrap();
        Layout::draft(scratch.path(), 3).unwrap();
        let meta = scratch.path().join("log/meta");
        fs::write(&meta, "quelea-log 2\nanything\n").unwrap();
        assert!(matches!(Layout::open(scratch.path(), 2), Err(Unopened::Newer { version: 2, .. })));
        for text in
            ["", "quelea-log 1\n", "quelea-log 1\nshards 0\n", "quelea-log 1\nshards 65\n", "quelea-log x\n"]
        {
            fs::write(&meta, text).unwrap();
            assert!(matches!(Layout::open(scratch.path(), 2), Err(Unopened::Damaged(_))), "{text:?}");
        }
        fs::remove_file(&meta).unwrap();
        assert!(matches!(Layout::open(scratch.path(), 2), Err(Unopened::Damaged(_))));
        assert_eq!(names(scratch.path()), ["log", "log.new"]);
    }
}
