//! A disk that remembers: every write and every flush that a real file system sends to it.
//!
//! A small FUSE file system shows one file, `disk`, opened past the page cache. A loop device on
//! that file carries a real file system, so each block write of the kernel arrives here as a write
//! and each flush as an fsync, in the order in which the device carries them out. Nothing needs a
//! kernel module. The disk can also fail: refuse the nth write or flush, or claim to have flushed.
//!
//! The daemon runs in this process, so nothing in this process may map a file of the recorded
//! file system: a page fault that waits for the daemon may hold what the daemon needs. Programs
//! under test are child processes.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};
use parking_lot::Mutex;

use crate::image::Image;
use crate::ledger::Fact;
use crate::trace::{Entry, Trace};

const DISK: INodeNo = INodeNo(2);
const DISK_NAME: &str = "disk";
/// How long the kernel may remember names and lengths: neither ever changes.
const REMEMBER: Duration = Duration::from_secs(3600);

/// What the disk does wrong. Counting starts at 1, when the fault is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Refuses the nth write, and if it stays, every one after it and every flush too.
    Write { nth: u64, stays: bool },
    /// Refuses the nth flush, and if it stays, every one after it and every write too.
    Flush { nth: u64, stays: bool },
    /// Refuses the nth read, and if it stays, every one after it; writes what it is told.
    Read { nth: u64, stays: bool },
    /// Returns zeros for the nth read and every one after it.
    ReadZeros { nth: u64 },
    /// Says that it has flushed, and has not.
    Lie,
}

/// How the disk behaves while nothing is wrong with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// How long a flush takes: an acknowledgement sent too early arrives before it ends.
    pub(crate) flush_hold: Duration,
    /// A power cut tears a write at multiples of this.
    pub(crate) tear_bytes: usize,
}

/// What the disk has been asked since the fault was set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) writes: u64,
    pub(crate) flushes: u64,
    pub(crate) reads: u64,
    pub(crate) refused: u64,
}

#[derive(Debug)]
struct State {
    current: Image,
    entries: Vec<Entry>,
    fault: Fault,
    broken: bool,
    asked: Asked,
}

/// What the daemon and its owner share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    bytes: u64,
    habits: Habits,
}

/// A recorded disk, shown as a file.
#[derive(Debug)]
pub(crate) struct Recorder {
    shared: Arc<Shared>,
    start: Image,
    session: Option<BackgroundSession>,
    folder: PathBuf,
}

/// Notes facts into the trace, between the writes and flushes among which they became known.
#[derive(Clone, Debug)]
pub(crate) struct Notes {
    shared: Arc<Shared>,
}

impl Notes {
    /// Notes a fact as known from now on.
    pub(crate) fn note(&self, fact: Fact) {
        self.shared.state.lock().entries.push(Entry::Fact(fact));
    }
}

impl Recorder {
    /// Shows a disk with these contents below `folder`, an empty folder.
    pub(crate) fn start(image: Image, folder: &Path, habits: Habits) -> io::Result<Self> {
        let state = State {
            current: image.clone(),
            entries: Vec::new(),
            fault: Fault::None,
            broken: false,
            asked: Asked::default(),
        };
        let bytes = image.bytes();
        let shared = Arc::new(Shared { state: Mutex::new(state), bytes, habits });
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("forebay-torture".to_owned())];
        let daemon = Daemon { shared: Arc::clone(&shared) };
        let session = fuser::spawn_mount(daemon, folder, &config)?;
        let folder = folder.to_owned();
        Ok(Self { shared, start: image, session: Some(session), folder })
    }

    /// The file that is the disk.
    pub(crate) fn disk(&self) -> PathBuf {
        self.folder.join(DISK_NAME)
    }

    /// A way to note facts into the trace.
    pub(crate) fn notes(&self) -> Notes {
        Notes { shared: Arc::clone(&self.shared) }
    }

    /// Breaks the disk, or heals it; counting starts anew.
    pub(crate) fn set_fault(&self, fault: Fault) {
        let mut state = self.shared.state.lock();
        state.fault = fault;
        state.broken = false;
        state.asked = Asked::default();
    }

    /// What the disk has been asked since the fault was set.
    pub(crate) fn asked(&self) -> Asked {
        self.shared.state.lock().asked
    }

    /// Everything so far, from the start. The disk goes on.
    pub(crate) fn so_far(&self) -> Trace {
        let entries = self.shared.state.lock().entries.clone();
        Trace::new(self.start.clone(), entries, self.shared.habits.tear_bytes)
    }

    /// Takes the disk away and hands back what it has seen. Whatever was mounted from it must be
    /// unmounted before.
    pub(crate) fn finish(mut self) -> io::Result<Trace> {
        self.end()?;
        let entries = std::mem::take(&mut self.shared.state.lock().entries);
        Ok(Trace::new(self.start.clone(), entries, self.shared.habits.tear_bytes))
    }

    fn end(&mut self) -> io::Result<()> {
        let Some(session) = self.session.take() else { return Ok(()) };
        // The loop device lets go of the file a moment after the file system on it is gone.
        for _ in 0..500 {
            match rustix::mount::unmount(&self.folder, rustix::mount::UnmountFlags::empty()) {
                // Not `umount_and_join`: it would unmount once more, and fail.
                Ok(()) => return joined(session),
                Err(rustix::io::Errno::BUSY) => thread::sleep(Duration::from_millis(10)),
                Err(errno) => return Err(errno.into()),
            }
        }
        // Detached, it goes away with its last user; this process must not wait for that.
        rustix::mount::unmount(&self.folder, rustix::mount::UnmountFlags::DETACH)?;
        Err(io::Error::other("the recorded disk is still in use"))
    }
}

/// Waits for the daemon, whose connection is gone. That it was cut off is how it may hear of it.
fn joined(session: BackgroundSession) -> io::Result<()> {
    match session.join() {
        Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Ok(()),
        joined => joined,
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Nobody is left to tell: `finish` is the way to hear of a failure.
        let _ = self.end();
    }
}

/// The file system that shows the disk.
#[derive(Debug)]
struct Daemon {
    shared: Arc<Shared>,
}

impl Daemon {
    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let (kind, perm, size) = match inode {
            INodeNo::ROOT => (FileType::Directory, 0o700, 0),
            DISK => (FileType::RegularFile, 0o600, self.shared.bytes),
            _ => return None,
        };
        Some(FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        })
    }
}

impl State {
    /// Whether this write is refused.
    fn refuses_write(&mut self) -> bool {
        self.asked.writes += 1;
        let hit = match self.fault {
            Fault::Write { nth, stays } => {
                let hit = self.asked.writes == nth;
                self.broken |= hit && stays;
                hit
            }
            _ => false,
        };
        self.count_refused(hit || self.broken)
    }

    /// Whether this flush is refused.
    fn refuses_flush(&mut self) -> bool {
        self.asked.flushes += 1;
        let hit = match self.fault {
            Fault::Flush { nth, stays } => {
                let hit = self.asked.flushes == nth;
                self.broken |= hit && stays;
                hit
            }
            _ => false,
        };
        self.count_refused(hit || self.broken)
    }

    /// Whether this read is refused.
    fn refuses_read(&mut self) -> bool {
        self.asked.reads += 1;
        let nth_read = self.asked.reads;
        let hit = match self.fault {
            Fault::Read { nth, stays } => nth_read == nth || (stays && nth_read > nth),
            _ => false,
        };
        self.count_refused(hit)
    }

    /// Whether this read, just counted, returns zeros.
    fn reads_zeros(&self) -> bool {
        matches!(self.fault, Fault::ReadZeros { nth } if self.asked.reads >= nth)
    }

    fn count_refused(&mut self, refused: bool) -> bool {
        self.asked.refused += u64::from(refused);
        refused
    }
}

impl Filesystem for Daemon {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.attributes(DISK) {
            Some(found) if parent == INodeNo::ROOT && name == DISK_NAME => {
                reply.entry(&REMEMBER, &found, Generation(0));
            }
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Some(found) => reply.attr(&REMEMBER, &found),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // A close, not a flush of the disk.
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let left = self.shared.bytes.saturating_sub(offset).min(u64::from(size));
        let mut data = vec![0; usize::try_from(left).unwrap_or(0)];
        let mut state = self.shared.state.lock();
        if state.refuses_read() {
            return reply.error(Errno::EIO);
        }
        if !state.reads_zeros() {
            state.current.read(offset, &mut data);
        }
        drop(state);
        reply.data(&data);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.shared.state.lock();
        if state.refuses_write() {
            return reply.error(Errno::EIO);
        }
        state.current.write(offset, data);
        state.entries.push(Entry::Write { offset, data: data.into() });
        drop(state);
        reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX));
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        thread::sleep(self.shared.habits.flush_hold);
        let mut state = self.shared.state.lock();
        if state.refuses_flush() {
            return reply.error(Errno::EIO);
        }
        if state.fault != Fault::Lie {
            state.entries.push(Entry::Flush);
        }
        drop(state);
        reply.ok();
    }
}
