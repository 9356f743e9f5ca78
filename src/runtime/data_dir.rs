//! The data directory: one process at a time, and the secret that decides where sessions live. The logs in it are
//! [`disk`](super::disk)'s matter.

use crate::base::HashKey;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Another broker has it.
    #[error("the data directory {0} is in use by another broker: stop it, or set quelea.data_dir")]
    InUse(PathBuf),
    /// `hash-key` is not what was written there.
    #[error(
        "{0} is damaged: restore it from a backup; if it is lost for good, delete it (sessions then get other homes)"
    )]
    Damaged(PathBuf),
    /// The file system said no.
    #[error("the data directory (quelea.data_dir): {path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was said.
        error: io::Error,
    },
}

/// A data directory that is ours until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    /// Holds the lock; the system takes it away when the process ends, however that happens.
    _lock: File,
    path: PathBuf,
    key: HashKey,
}

const KEY_FILE: &str = "hash-key";
const LOCK_FILE: &str = "lock";
/// Two halves of 16 hexadecimal digits, and a line break.
const KEY_LEN: usize = 33;

impl DataDir {
    /// Makes the directory if needed, takes its lock, and reads its key, or draws one.
    ///
    /// # Errors
    /// If it is in use, damaged, or not to be written to.
    pub fn open(path: &Path) -> Result<Self, Unusable> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(at(path))?;
        let lock_path = path.join(LOCK_FILE);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
        let lock = lock.map_err(at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Unusable::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(at(&lock_path)(error)),
        }
        Ok(Self { _lock: lock, path: path.to_owned(), key: key_of(path)? })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The process's secret; the same at every start.
    #[must_use]
    pub fn key(&self) -> HashKey {
        self.key
    }
}

fn key_of(directory: &Path) -> Result<HashKey, Unusable> {
    let path = directory.join(KEY_FILE);
    match fs::read(&path) {
        Ok(bytes) => parse(&bytes).ok_or(Unusable::Damaged(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(directory, &path),
        Err(error) => Err(at(&path)(error)),
    }
}

/// Draws a key and writes it: whole under another name first, so that a crash leaves all of it or nothing.
fn create(directory: &Path, path: &Path) -> Result<HashKey, Unusable> {
    let key = draw_key()?;
    let draft = directory.join("hash-key.new");
    let write = || {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
        file.write_all(format!("{:016x}{:016x}\n", key.k0, key.k1).as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(at(path))?;
    Ok(key)
}

/// A new secret.
///
/// # Errors
/// If the system gives no random bytes.
pub fn draw_key() -> Result<HashKey, Unusable> {
    draw().map_err(at(Path::new(RANDOM)))
}

const RANDOM: &str = "/dev/urandom";

/// A random key.
///
/// # Errors
/// If the system has no randomness.
pub fn draw() -> io::Result<HashKey> {
    let mut halves = [[0; 8]; 2];
    let mut random = File::open(RANDOM)?;
    for half in &mut halves {
        random.read_exact(half)?;
    }
    let [k0, k1] = halves.map(u64::from_ne_bytes);
    Ok(HashKey { k0, k1 })
}

fn parse(bytes: &[u8]) -> Option<HashKey> {
    let digits = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    if bytes.len() != KEY_LEN || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let (k0, k1) = digits.split_at(16);
    let half = |digits| u64::from_str_radix(digits, 16).ok();
    Some(HashKey { k0: half(k0)?, k1: half(k1)? })
}

fn at(path: &Path) -> impl Fn(io::Error) -> Unusable {
    let path = path.to_owned();
    move |error| Unusable::Io { path: path.clone(), error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A directory of its own for each test, gone afterwards.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("quelea-{name}-{}", std::process::id()));
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_key_is_drawn_once_and_kept_private() {
        let scratch = Scratch::new("key");
        let first = DataDir::open(&scratch.0).unwrap().key();
        assert_eq!(DataDir::open(&scratch.0).unwrap().key(), first);
        let mode = fs::metadata(scratch.0.join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = Scratch::new("other-key");
        assert_ne!(DataDir::open(&other.0).unwrap().key(), first);
    }

    #[test]
    fn two_brokers_do_not_share_a_directory() {
        let scratch = Scratch::new("lock");
        let first = DataDir::open(&scratch.0).unwrap();
        assert!(matches!(DataDir::open(&scratch.0), Err(Unusable::InUse(_))));
        drop(first);
        DataDir::open(&scratch.0).unwrap();
    }

    #[test]
    fn a_damaged_key_is_not_replaced() {
        let scratch = Scratch::new("damage");
        drop(DataDir::open(&scratch.0).unwrap());
        for damage in [
            "",
            "0123456789abcdef\n",
            "0123456789abcdef0123456789abcdeg\n",
            "+123456789abcdef0123456789abcdef\n",
        ] {
            fs::write(scratch.0.join(KEY_FILE), damage).unwrap();
            assert!(matches!(DataDir::open(&scratch.0), Err(Unusable::Damaged(_))), "{damage:?}");
        }
    }

    #[test]
    fn an_unusable_place_names_the_key() {
        let text = DataDir::open(Path::new("/proc/no-such-thing")).unwrap_err().to_string();
        assert!(text.contains("quelea.data_dir"), "{text}");
    }
}
