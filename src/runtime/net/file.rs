//! Files: blocks read, written and made safe, past the page cache where the file was opened so.
//!
//! ```text
//! read ──────────────> done          write ─┬─────────────> done
//!   └─ short: the rest again                └─linked─> sync ──> done
//! ```
//!
//! A write that is to be safe and its sync are one submission and one completion: the write says nothing unless it fails, and
//! then the sync is not done. What is transferred to or from belongs to the ring until the completion gives it back.
//!
//! Cost: a copy into aligned memory, which direct I/O wants. A sync runs on a kernel worker thread, about 15 µs.

use super::completion::Completion;
use super::ring::NetRing;
use super::tag::{Op, Tag};
use crate::base::Slab;
use io_uring::{opcode, types};
use nix::errno::Errno;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// The unit of direct I/O: memory, offsets and sizes are multiples of it.
pub const BLOCK_SIZE: usize = 4096;

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK_SIZE]);

/// Aligned memory for transfers: whole blocks, of which a number is in use.
#[derive(Default)]
pub struct Blocks {
    blocks: Vec<Block>,
}

/// What is asked of a file, and what it is asked with.
#[derive(Debug)]
pub enum Transfer {
    /// Fill the blocks.
    Read(Blocks),
    /// Write them.
    Write(Blocks),
    /// Write them, then make all that was written to the file survive a power cut (fdatasync).
    Commit(Blocks),
    /// Make all that was written survive.
    Sync,
}

/// Transfers in flight.
pub(super) type Transfers = Slab<Transferring>;

#[derive(Debug)]
pub(super) struct Transferring {
    token: u64,
    file: Arc<File>,
    offset: u64,
    transfer: Transfer,
    /// Bytes that are through: a transfer may take several steps.
    done: usize,
}

impl Blocks {
    /// Zeros, of at least `size` bytes.
    #[must_use]
    pub fn zeroed(size: usize) -> Self {
        Self { blocks: vec![Block([0; BLOCK_SIZE]); size.div_ceil(BLOCK_SIZE)] }
    }

    /// Takes these bytes in instead of what was there, filled up with zeros to whole blocks.
    pub fn fill(&mut self, bytes: &[u8]) {
        self.blocks.resize(bytes.len().div_ceil(BLOCK_SIZE), Block([0; BLOCK_SIZE]));
        for (block, bytes) in self.blocks.iter_mut().zip(bytes.chunks(BLOCK_SIZE)) {
            let (head, tail) = block.0.split_at_mut(bytes.len());
            head.copy_from_slice(bytes);
            tail.fill(0);
        }
    }

    /// A copy of all bytes.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.size());
        self.blocks.iter().for_each(|block| bytes.extend_from_slice(&block.0));
        bytes
    }

    /// Bytes in use.
    #[must_use]
    pub fn size(&self) -> usize {
        self.blocks.len() * BLOCK_SIZE
    }

    /// Bytes held.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.blocks.capacity() * BLOCK_SIZE
    }

    fn base(&self) -> *const u8 {
        self.blocks.as_ptr().cast()
    }

    fn base_mut(&mut self) -> *mut u8 {
        self.blocks.as_mut_ptr().cast()
    }
}

impl Transfer {
    /// The blocks, if it is about any.
    #[must_use]
    pub fn into_blocks(self) -> Option<Blocks> {
        match self {
            Self::Read(blocks) | Self::Write(blocks) | Self::Commit(blocks) => Some(blocks),
            Self::Sync => None,
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Read(blocks) | Self::Write(blocks) | Self::Commit(blocks) => blocks.size(),
            Self::Sync => 0,
        }
    }
}

impl NetRing {
    /// Begins a transfer at `offset`; [`Completion::Transferred`] brings `token` back. Transfers that are in flight together have
    /// no order.
    ///
    /// # Panics
    /// If there is nothing to transfer, or 2 GiB and more.
    pub fn transfer(&mut self, token: u64, file: Arc<File>, offset: u64, transfer: Transfer) {
        assert!(matches!(transfer, Transfer::Sync) || transfer.size() > 0, "a transfer is of something");
        let (index, generation) =
            self.transfers.insert(Transferring { token, file, offset, transfer, done: 0 });
        self.next_step(Tag::new(Op::Transfer, index, generation));
    }

    pub(super) fn transferred(
        &mut self,
        tag: Tag,
        result: Result<u32, Errno>,
        completions: &mut Vec<Completion>,
    ) {
        let transferring =
            self.transfers.get_mut(tag.index, tag.generation).expect("in flight until it completes");
        let size = transferring.transfer.size();
        // Of a sync, the last step: what was linked before it is through.
        let bytes = if tag.op == Op::Transfer { result.map_or(0, |bytes| bytes as usize) } else { size };
        transferring.done += bytes;
        let is_short = result.is_ok() && transferring.done < size;
        if is_short && bytes > 0 && !self.closing {
            return self.next_step(Tag { op: Op::Transfer, ..tag });
        }
        let Transferring { token, transfer, .. } =
            self.transfers.remove(tag.index, tag.generation).expect("found above");
        let result = if is_short { Err(Errno::EIO) } else { result.map(|_| ()) };
        completions.push(Completion::Transferred { token, transfer, result });
    }

    /// Asks for what is left. One completion comes of it: the write is silent unless it fails or is short, and then the sync is.
    fn next_step(&mut self, tag: Tag) {
        let sync_tag = Tag { op: Op::Sync, ..tag };
        let transferring =
            self.transfers.get_mut(tag.index, tag.generation).expect("the caller has put it there");
        let Transferring { file, offset, transfer, done, .. } = transferring;
        let fd = types::Fd(file.as_raw_fd());
        let (done, at) = (*done, *offset + *done as u64);
        let len = u32::try_from(transfer.size() - done).expect("less than 4 GiB");
        let sync = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
        match transfer {
            Transfer::Sync => self.push(sync_tag, sync),
            Transfer::Read(blocks) => {
                let start = blocks.base_mut().wrapping_add(done);
                self.push(tag, opcode::Read::new(fd, start, len).offset(at).build());
            }
            Transfer::Write(blocks) => {
                let start = blocks.base().wrapping_add(done);
                self.push(tag, opcode::Write::new(fd, start, len).offset(at).build());
            }
            Transfer::Commit(blocks) => {
                let start = blocks.base().wrapping_add(done);
                let write = opcode::Write::new(fd, start, len).offset(at).build();
                self.push_linked(tag, write, sync_tag, sync);
            }
        }
    }
}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blocks({} bytes)", self.size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::net::{ReceiveBuffers, RingOptions};
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt;
    use std::time::Duration;

    const TOKEN: u64 = 77;

    struct Bench {
        ring: NetRing,
        file: Arc<File>,
        path: std::path::PathBuf,
    }

    impl Bench {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("quelea-file-{name}-{}", std::process::id()));
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
            let (buffers, _) = ReceiveBuffers::new(1, 64);
            let options = RingOptions { submissions: 8, completions: 16, descriptors: 1 };
            Self { ring: NetRing::new(options, buffers).unwrap(), file: Arc::new(file.unwrap()), path }
        }

        fn run(&mut self, offset: u64, transfer: Transfer) -> (Transfer, Result<(), Errno>) {
            self.ring.transfer(TOKEN, Arc::clone(&self.file), offset, transfer);
            let mut completions = Vec::new();
            for _ in 0..100 {
                self.ring.wait(Some(Duration::from_secs(1))).unwrap();
                self.ring.reap(&mut completions);
                if let Some(Completion::Transferred { token: TOKEN, transfer, result }) = completions.pop() {
                    assert!(completions.is_empty());
                    assert_eq!((self.ring.outstanding(), self.ring.transfers.len()), (0, 0));
                    return (transfer, result);
                }
            }
            panic!("nothing completed in time");
        }
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    fn filled(byte: u8, size: usize) -> Blocks {
        let mut blocks = Blocks::default();
        blocks.fill(&vec![byte; size]);
        blocks
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut bench = Bench::new("whole");
        for (offset, transfer) in
            [(0, Transfer::Commit(filled(1, 5000))), (8192, Transfer::Write(filled(2, 4096)))]
        {
            assert_eq!(bench.run(offset, transfer).1, Ok(()));
        }
        assert_eq!(bench.run(0, Transfer::Sync).1, Ok(()));
        let (read, result) = bench.run(0, Transfer::Read(Blocks::zeroed(12_288)));
        let bytes = read.into_blocks().unwrap().to_vec();
        assert_eq!(result, Ok(()));
        assert_eq!((bytes[4999], bytes[5000], bytes[8191], bytes[8192]), (1, 0, 0, 2));
    }

    #[test]
    fn a_file_that_ends_too_early_fails_the_read() {
        let mut bench = Bench::new("short");
        bench.file.write_all_at(&[7; 4096], 0).unwrap();
        let (read, result) = bench.run(0, Transfer::Read(Blocks::zeroed(8192)));
        assert_eq!(result, Err(Errno::EIO));
        assert_eq!(read.into_blocks().unwrap().to_vec()[4095], 7);
    }

    #[test]
    fn a_failed_write_is_told_and_its_sync_not_done() {
        let mut bench = Bench::new("failed");
        bench.file = Arc::new(File::open(&bench.path).unwrap());
        for transfer in [Transfer::Commit(filled(1, 4096)), Transfer::Write(filled(1, 4096))] {
            assert_eq!(bench.run(0, transfer).1, Err(Errno::EBADF));
        }
        assert_eq!(bench.run(0, Transfer::Sync).1, Ok(()));
        // A pipe takes writes and has nothing to sync.
        let (_reader, writer) = std::io::pipe().unwrap();
        bench.file = Arc::new(File::from(std::os::fd::OwnedFd::from(writer)));
        assert_eq!(bench.run(0, Transfer::Sync).1, Err(Errno::EINVAL));
    }

    #[test]
    fn a_file_without_room_takes_what_it_can_and_then_says_so() {
        let mut bench = Bench::new("full");
        bench.file = Arc::new(OpenOptions::new().read(true).write(true).open("/dev/full").unwrap());
        assert_eq!(bench.run(0, Transfer::Commit(filled(1, 4096))).1, Err(Errno::ENOSPC));
        // A pipe of 64 KiB takes part of the write, and the rest when there is room: a write in several steps.
        let (mut reader, writer) = std::io::pipe().unwrap();
        bench.file = Arc::new(File::from(std::os::fd::OwnedFd::from(writer)));
        let drain = std::thread::spawn(move || {
            let mut bytes = vec![0; 300_000];
            std::io::Read::read_exact(&mut reader, &mut bytes).unwrap();
            bytes.iter().all(|byte| *byte == 9)
        });
        assert_eq!(bench.run(0, Transfer::Write(filled(9, 300_000))).1, Ok(()));
        drop(bench);
        assert!(drain.join().unwrap());
    }
}
