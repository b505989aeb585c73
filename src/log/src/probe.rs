//! What a volume can do of what the log needs, found by doing it: in a folder of its own, with the
//! log's own calls, removed afterwards.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FallocateFlags, IFlags, OFlags};

use crate::append;
use crate::clock::Clock;
use crate::format::{PAGE_BYTES, seed_of};
use crate::lane::random;
use crate::marks;
use crate::segment::{self, Extent, Identity, Segment};
use crate::volume::{self, Volume};
use crate::watermark::Watermarks;

/// Size of the segment that is tried.
const TRIED_BYTES: u64 = 16 * 1024 * 1024;
/// So many syncs fit into it, a page each.
pub const SAMPLES_MAX: usize = 4000;
/// How long a wait on the futex may take that nobody ends.
const FUTEX_WAIT: Duration = Duration::from_millis(2);

/// How one trial went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// It works.
    Works,
    /// This volume does not need it.
    NotNeeded,
    /// It does not; what the system said.
    Fails(String),
}

impl Trial {
    fn of<T>(tried: Result<T, impl Into<io::Error>>) -> Self {
        match tried {
            Ok(_) => Self::Works,
            Err(error) => Self::Fails(error.into().to_string()),
        }
    }

    /// Whether the log can do without, or with.
    pub fn passes(&self) -> bool {
        !matches!(self, Self::Fails(_))
    }
}

/// What a volume is and can do.
#[derive(Clone, Debug)]
pub struct VolumeFacts {
    /// The name of its file system, or the number of its type.
    pub file_system: String,
    /// Whether it lives in memory.
    pub volatile: bool,
    /// Whether the log is tested on it.
    pub tested: bool,
    /// Room for this user, in bytes.
    pub available_bytes: u64,
    /// Its size in bytes.
    pub all_bytes: u64,
    /// Files exempt from copy-on-write, so that a store never needs new blocks.
    pub no_cow: Trial,
    /// Files allocated whole.
    pub allocate: Trial,
    /// A new name made durable: rename, and sync of the folder.
    pub rename: Trial,
    /// Pages made ready ahead; without it stores fault, and nothing else.
    pub make_ready: Trial,
    /// What is stored through a mapping is what a read returns.
    pub coherent: Trial,
    /// Waiting on a word of a mapped file; without it readers poll.
    pub futex: Trial,
    /// Reading and writing past the page cache; the log does not use it.
    pub direct: Trial,
    /// Syncing through the mapping, as the log does.
    pub map_sync: Trial,
    /// How long each such sync of a page took, the shortest first.
    pub map_syncs: Vec<Duration>,
    /// How long each write and sync of a page through the file took, the shortest first.
    pub file_syncs: Vec<Duration>,
}

/// The folder of a trial, removed with everything in it.
#[derive(Debug)]
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed has a name that says what it is.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Tries the volume of `dir`, with `samples` syncs of each sort.
pub fn probe(dir: impl AsRef<Path>, samples: usize) -> io::Result<VolumeFacts> {
    let dir = dir.as_ref();
    let volume = Volume::of(dir)?;
    let room = volume::room(dir)?;
    let number = u64::from_le_bytes(random()?);
    let scratch = Scratch(dir.join(format!("forebay-doctor-{number:016x}")));
    segment::create_dir(&scratch.0)?;
    let mut facts = VolumeFacts {
        file_system: volume.name(),
        volatile: volume.volatile().is_some(),
        tested: volume.warning().is_none(),
        available_bytes: room.available_bytes,
        all_bytes: room.all_bytes,
        no_cow: Trial::NotNeeded,
        allocate: Trial::Works,
        rename: Trial::of(try_rename(&scratch.0)),
        make_ready: Trial::NotNeeded,
        coherent: Trial::NotNeeded,
        futex: Trial::of(try_futex(&scratch.0)),
        direct: Trial::of(try_direct(&scratch.0)),
        map_sync: Trial::NotNeeded,
        map_syncs: Vec::new(),
        file_syncs: Vec::new(),
    };
    if volume.copies_on_write() {
        facts.no_cow = Trial::of(try_no_cow(&scratch.0));
    }
    facts.allocate = Trial::of(try_allocate(&scratch.0));
    let no_cow = volume.copies_on_write() && facts.no_cow == Trial::Works;
    if facts.allocate == Trial::Works {
        let tried = try_segment(&scratch.0, no_cow, samples.min(SAMPLES_MAX), &mut facts);
        facts.map_sync = Trial::of(tried);
    }
    facts.map_syncs.sort_unstable();
    facts.file_syncs.sort_unstable();
    Ok(facts)
}

fn try_no_cow(scratch: &Path) -> io::Result<()> {
    let file = segment::writing().create_new(true).open(scratch.join("cow"))?;
    let flags = rustix::fs::ioctl_getflags(&file)?;
    rustix::fs::ioctl_setflags(&file, flags | IFlags::NOCOW)?;
    let taken = rustix::fs::ioctl_getflags(&file)?.contains(IFlags::NOCOW);
    if taken { Ok(()) } else { Err(io::Error::other("the flag was not taken")) }
}

fn try_allocate(scratch: &Path) -> io::Result<()> {
    let file = segment::writing().create_new(true).open(scratch.join("allocated"))?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, TRIED_BYTES)?;
    file.sync_all()?;
    let known = rustix::fs::fstat(&file)?;
    // In units of 512 bytes, whatever the file system's own are.
    let taken = u64::try_from(known.st_blocks).unwrap_or(0) * 512;
    if taken < TRIED_BYTES {
        return Err(io::Error::other(format!("{taken} bytes of {TRIED_BYTES} were allocated")));
    }
    fs::remove_file(scratch.join("allocated"))
}

fn try_rename(scratch: &Path) -> io::Result<()> {
    let (from, to) = (scratch.join("name.new"), scratch.join("name"));
    File::create(&from)?.sync_all()?;
    fs::rename(from, to)?;
    segment::sync_dir(scratch)
}

fn try_direct(scratch: &Path) -> io::Result<()> {
    let direct = i32::try_from(OFlags::DIRECT.bits()).map_err(io::Error::other)?;
    let path = scratch.join("direct");
    OpenOptions::new().create(true).truncate(false).write(true).custom_flags(direct).open(path)?;
    Ok(())
}

fn try_futex(scratch: &Path) -> io::Result<()> {
    let marks = marks::open_for_writing(scratch, [0; 16])?;
    let waits = marks.wait(marks.futex_value(), FUTEX_WAIT);
    marks.wake();
    if waits { Ok(()) } else { Err(io::Error::other("the kernel does not wait on this page")) }
}

/// Stores into a segment page by page and syncs each, first through the mapping, then through the
/// file.
fn try_segment(
    scratch: &Path,
    no_cow: bool,
    samples: usize,
    facts: &mut VolumeFacts,
) -> io::Result<()> {
    let clock = Clock::System;
    let identity = Identity {
        lane_id: [0; 16],
        sequence: 0,
        epoch: 1,
        extent: Extent { base: 0, bytes: TRIED_BYTES },
        salt: 0,
        seed: seed_of(0),
        created_ns: 0,
        ack: 0,
    };
    let segment = Segment::create(scratch, identity, no_cow)?;
    facts.make_ready = Trial::of(segment.map.make_ready(0, TRIED_BYTES));
    let watermarks = Watermarks::new(PAGE_BYTES);
    for sample in 1..=samples as u64 {
        let from = sample * PAGE_BYTES;
        let Some(claim) = watermarks.claim(from, from + PAGE_BYTES) else { break };
        append::pad(&segment, claim);
        let began = clock.monotonic();
        segment.sync(from, from + PAGE_BYTES)?;
        facts.map_syncs.push(clock.monotonic().saturating_duration_since(began));
    }
    let file = segment::writing().open(segment.path())?;
    let mut header = [0; 64];
    file.read_exact_at(&mut header, PAGE_BYTES)?;
    facts.coherent = match segment.map.header(PAGE_BYTES) {
        Some(mapped) if mapped == header => Trial::Works,
        _ => Trial::Fails("a read returns other bytes than the mapping holds".to_owned()),
    };
    for sample in 1..=samples as u64 {
        let began = clock.monotonic();
        file.write_all_at(&[0xa5; 4096], sample * PAGE_BYTES)?;
        file.sync_data()?;
        facts.file_syncs.push(clock.monotonic().saturating_duration_since(began));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_tried_and_left_as_it_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let facts = probe(dir.path(), 10).expect("tried");
        assert_eq!((facts.map_syncs.len(), facts.file_syncs.len()), (10, 10));
        assert!(facts.map_syncs.is_sorted() && facts.available_bytes <= facts.all_bytes);
        for trial in [&facts.allocate, &facts.rename, &facts.coherent, &facts.map_sync] {
            assert_eq!(*trial, Trial::Works, "{facts:?}");
        }
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 0);
        assert!(probe(dir.path().join("missing"), 1).is_err());
    }
}
