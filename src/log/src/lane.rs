//! A lane, opened for writing: options, lock, recovery, the keeper's thread, and the handle.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::sync::Parker;
use rustix::fs::FlockOperation;

use crate::append::Appender;
use crate::clock::Clock;
use crate::cursor;
use crate::format::{PAGE_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::keeper::{self, Keeper};
use crate::marks;
use crate::position::{Key, Position};
use crate::recover::{self, Plan, Recovery};
use crate::segment::{self, Extent};
use crate::shared::{Acked, LaneState, Shared, Start};
use crate::stats::LaneStats;
use crate::store::Store;
use crate::tail::{From, ReadError, Reader};
use crate::volume::Volume;
use crate::watermark::WatermarksRead;

/// The name of the file that the one writer of a lane holds locked.
const LOCK_FILE: &str = "lock";

/// What an acknowledgement means. The numbers are persisted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AckLevel {
    /// Published in the mapped log: survives the death of the process.
    Written = 1,
    /// On the medium: survives the loss of power.
    Synced = 2,
}

/// What is kept. A segment goes when either bound says so, oldest first, sealed ones only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Segments whose newest record is older than this may go; see [`AgeSince`].
    pub age: Option<Duration>,
    /// Segments go while the files of the lane take more than this: each counts whole, however
    /// little is in it, but for those that a crash has left empty, which go before all others.
    pub bytes: Option<u64>,
}

/// From when on [`Retention::age`] counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AgeSince {
    /// From when the newest record of the segment was received, by what it says itself.
    #[default]
    Received,
    /// From when the segment was sealed: no record in it came into the lane later, however old it
    /// says that it is.
    Sealed,
}

/// How a lane is kept.
#[derive(Clone, Debug)]
pub struct LaneOptions {
    /// Size of new segments: a multiple of 4096 from [`SEGMENT_BYTES_MIN`] to
    /// [`SEGMENT_BYTES_MAX`].
    pub segment_bytes: u64,
    /// When records are acknowledged.
    pub ack: AckLevel,
    /// What is kept.
    pub retention: Retention,
    /// From when on the age of a segment counts.
    pub age_since: AgeSince,
    /// A cursor: what it has not read stays, whatever the retention says, and whether or not it is
    /// there yet. Where the disk has no more room the lane is full.
    pub kept_for: Option<String>,
    /// Bytes of the disk that the lane leaves free; by default two segments or 5% of the disk,
    /// whichever is more.
    pub disk_reserve_bytes: Option<u64>,
    /// Takes [`AckLevel::Synced`] on a file system in memory, where nothing survives the loss of
    /// power: for tests.
    pub volatile_allowed: bool,
    /// Where the time comes from.
    pub clock: Clock,
}

impl Default for LaneOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 128 * 1024 * 1024,
            ack: AckLevel::Synced,
            retention: Retention::default(),
            age_since: AgeSince::default(),
            kept_for: None,
            disk_reserve_bytes: None,
            volatile_allowed: false,
            clock: Clock::System,
        }
    }
}

/// Why a lane could not be opened for writing.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The size of segments is out of bounds.
    #[error("a segment cannot have {bytes} bytes: a multiple of 4096 from 65536 to 2147483648 can")]
    SegmentBytes {
        /// What was asked for.
        bytes: u64,
    },
    /// Another process, or another part of this one, writes the lane.
    #[error(
        "{} is locked by another writer, such as a `forebay serve` that still runs: end that one, or \
         use another directory",
        path.display()
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The ack level promises what the file system cannot keep.
    #[error("{} lies on {kind}, which forgets everything with the power: use another directory or the ack level \"written\"", path.display())]
    Volatile {
        /// The lane's directory.
        path: PathBuf,
        /// The file system.
        kind: &'static str,
    },
    /// A segment was made for another lane.
    #[error("{} belongs to another lane: move it out of the directory", path.display())]
    ForeignSegment {
        /// The segment.
        path: PathBuf,
    },
    /// A segment has a format that this build does not know.
    #[error("{} has format version {found}, and this build knows only {known}", path.display())]
    Version {
        /// The segment.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version of this build.
        known: u32,
    },
    /// The operating system refused something.
    #[error("{}: {error}{}", path.display(), crate::volume::cure(error))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

impl OpenError {
    /// Names the file to an I/O error.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { path, error }
    }
}

/// A record that the lane held when it was opened, as far as dedupe must know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The fingerprint of the event key.
    pub key: Key,
    /// The fingerprint of its signed bytes, of an event whose id is not among them.
    pub signed_key: Option<Key>,
    /// What the record is.
    pub kind: crate::Kind,
    /// When the request arrived.
    pub received_ns: u64,
    /// Offset of the record's end.
    pub end: u64,
}

impl Recovered {
    /// By what dedupe must know it.
    pub fn keys(self) -> impl Iterator<Item = Key> {
        std::iter::once(self.key).chain(self.signed_key)
    }
}

/// A lane that this process writes. Closed when it is dropped.
#[derive(Debug)]
pub struct Lane {
    dir: PathBuf,
    shared: Arc<Shared>,
    /// Taken once, by whoever closes the lane.
    #[expect(clippy::disallowed_types, reason = "opening and closing a lane are not in a hurry")]
    keeper: std::sync::Mutex<Option<JoinHandle<()>>>,
    id: [u8; 16],
    /// Where the records end that were there before this lane was opened.
    recovered_end: u64,
    /// Held, and with them the lock, until the keeper is done.
    locks: [File; 2],
}

impl Lane {
    /// Opens the lane in `dir`, which is made if it is not there: takes the writer's lock,
    /// recovers, makes a segment and starts the keeper. On a full disk the lane opens, in the
    /// state [`LaneState::Full`].
    #[expect(clippy::needless_pass_by_value, reason = "options are made for the one lane")]
    pub fn open(
        dir: impl AsRef<Path>,
        options: LaneOptions,
    ) -> Result<(Self, Recovery), OpenError> {
        let dir = dir.as_ref();
        let bytes = options.segment_bytes;
        let bounded = (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes);
        if !bounded || !bytes.is_multiple_of(PAGE_BYTES) {
            return Err(OpenError::SegmentBytes { bytes });
        }
        segment::create_dir(dir).map_err(OpenError::io(dir))?;
        let locks = lock(dir)?;
        let volume = Volume::of(dir).map_err(OpenError::io(dir))?;
        if let (AckLevel::Synced, Some(kind), false) =
            (options.ack, volume.volatile(), options.volatile_allowed)
        {
            return Err(OpenError::Volatile { path: dir.to_owned(), kind });
        }
        let mut plan = recover::plan(dir)?;
        plan.apply(dir, volume.copies_on_write())?;
        cursor::make_dir(dir).map_err(OpenError::io(dir))?;
        plan.recovery.warnings.extend(volume.warning());
        let recovery = plan.recovery.clone();
        let recovered_end = plan.next_base;
        let (shared, keeper, id) = start(dir, &options, volume, plan)?;
        let keeper = keeper::spawn(keeper).map_err(OpenError::io(dir))?;
        let dir = dir.to_owned();
        #[expect(clippy::disallowed_types, reason = "as in the struct")]
        let keeper = std::sync::Mutex::new(Some(keeper));
        let lane = Self { dir, shared, keeper, id, recovered_end, locks };
        Ok((lane, recovery))
    }

    /// An appender; make one for each thread that appends.
    pub fn appender(&self) -> Appender {
        Appender::new(Arc::clone(&self.shared))
    }

    /// The offset up to which records are acknowledged at the lane's ack level.
    pub fn acked(&self) -> u64 {
        self.shared.acked()
    }

    /// Whether the lane takes records.
    pub fn state(&self) -> LaneState {
        self.shared.state()
    }

    /// Why the lane has failed, if it has: which file, what the system said, and what to do.
    pub fn failure(&self) -> Option<&str> {
        self.shared.failure()
    }

    /// The watermarks.
    pub fn watermarks(&self) -> WatermarksRead {
        self.shared.watermarks.read()
    }

    /// What was counted since the lane was opened.
    pub fn stats(&self) -> LaneStats {
        self.shared.stats.read()
    }

    /// Records that retention removed although a cursor had not read them; cheap to ask.
    pub fn unread_dropped(&self) -> u64 {
        self.shared.stats.unread_records.read()
    }

    /// Tells `subscriber`, for the life of the lane, when [`Lane::acked`] moves or the lane
    /// fails; false if there are already [`SUBSCRIBERS_MAX`](crate::SUBSCRIBERS_MAX).
    #[expect(clippy::needless_pass_by_value, reason = "the lane keeps it")]
    #[must_use = "a subscriber that was not taken is never told anything"]
    pub fn subscribe(&self, subscriber: Arc<dyn Acked>) -> bool {
        self.shared.subscribe(&subscriber)
    }

    /// The ack level.
    pub fn ack(&self) -> AckLevel {
        self.shared.ack
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A reader of this lane, as any other process could open one.
    pub fn reader(&self) -> Result<Reader, ReadError> {
        Reader::open(&self.dir)
    }

    /// Calls `take` with every record that the lane held when it was opened and that arrived at
    /// `since_ns` or later. Reads headers only, and behind them the key of signed bytes where there
    /// is one; payloads where a crash has left damage, since a torn record was never acknowledged
    /// and its event must be accepted again.
    pub fn recovered_keys(
        &self,
        since_ns: u64,
        take: impl FnMut(Recovered),
    ) -> Result<(), ReadError> {
        self.keys(0..self.recovered_end, since_ns, take)
    }

    /// Calls `take` with every acknowledged record that lies in `range`, which begins where a
    /// record does or at 0, and that arrived at `since_ns` or later. Reads as
    /// [`Lane::recovered_keys`] does. What retention has removed is not there, and is no error.
    pub fn keys(
        &self,
        range: Range<u64>,
        since_ns: u64,
        mut take: impl FnMut(Recovered),
    ) -> Result<(), ReadError> {
        let mut reader = self.reader()?;
        // By time from the start, since that finds its segment without reading those before it.
        reader.seek(match range.start {
            0 => From::Time(since_ns),
            start => From::Position(Position::new(0, start)),
        })?;
        while let Some(recovered) = reader.skim(range.end)? {
            if recovered.received_ns >= since_ns {
                take(recovered);
            }
        }
        Ok(())
    }

    /// Where the records end that were there before this lane was opened.
    pub fn recovered_end(&self) -> u64 {
        self.recovered_end
    }

    /// The random number that all segments of the lane carry, and those of no other.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// Where the oldest segment starts that retention has left.
    pub fn first_offset(&self) -> io::Result<u64> {
        Ok(segment::list(&self.dir)?.first().copied().unwrap_or(0))
    }

    /// Lets no more records in, syncs and seals what is there, ends the keeper and gives the lock
    /// up. Whoever still holds the lane can look at it, and append no more.
    pub fn close(&self) {
        let keeper = self.keeper.lock().ok().and_then(|mut keeper| keeper.take());
        if let Some(keeper) = keeper {
            self.shared.stop();
            // A keeper that panicked has already failed the lane.
            let _ = keeper.join();
            for lock in &self.locks {
                // If this fails the lock goes with the file.
                let _ = rustix::fs::flock(lock, FlockOperation::Unlock);
            }
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.close();
    }
}

/// Takes the lock that keeps every second writer away: on a file that others can look at, and on
/// the directory, which nobody can remove under its holder.
pub(crate) fn lock(dir: &Path) -> Result<[File; 2], OpenError> {
    let path = dir.join(LOCK_FILE);
    let opened = segment::writing().create(true).truncate(false).open(&path);
    let file = opened.map_err(OpenError::io(&path))?;
    let whole = File::open(dir).map_err(OpenError::io(dir))?;
    for (held, path) in [(&file, &path), (&whole, &dir.to_owned())] {
        match rustix::fs::flock(held, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(OpenError::Locked { path: path.clone() });
            }
            Err(error) => {
                return Err(OpenError::Io { path: path.clone(), error: error.into() });
            }
        }
    }
    Ok([file, whole])
}

/// Makes the shared part and the keeper, and the first segment if the disk has room for it.
pub(crate) fn start(
    dir: &Path,
    options: &LaneOptions,
    volume: Volume,
    plan: Plan,
) -> Result<(Arc<Shared>, Keeper, [u8; 16]), OpenError> {
    let extent = Extent { base: plan.next_base, bytes: options.segment_bytes };
    let parker = Parker::new();
    let shared = Arc::new(Shared::new(Start {
        offset: extent.first(),
        ack: options.ack,
        clock: options.clock.clone(),
        record_bytes_max: extent.capacity(),
        unparker: parker.unparker().clone(),
    }));
    let store = Store::new(Arc::clone(&shared), dir, options, volume, plan);
    let store = store.map_err(OpenError::io(dir))?;
    let id = store.lane_id();
    let marks =
        marks::open_for_writing(dir, id).map_err(OpenError::io(&dir.join(marks::MARKS_FILE)))?;
    let keeper = Keeper::new(Arc::clone(&shared), parker, marks, store);
    Ok((shared, keeper, id))
}

/// Random bytes for an id.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    // At most 256 bytes are always given whole.
    if got == N { Ok(bytes) } else { Err(io::Error::other("too few random bytes")) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::{AppendError, Kind, NewRecord};

    /// Never waits, and counts what it is told all the same.
    #[derive(Default)]
    struct Told(AtomicU64);

    impl Acked for Told {
        fn waiting(&self) -> bool {
            false
        }

        fn moved(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_failed_lane_tells_everyone_takes_nothing_and_acknowledges_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let options = LaneOptions {
            segment_bytes: SEGMENT_BYTES_MIN,
            disk_reserve_bytes: Some(0),
            volatile_allowed: true,
            ..LaneOptions::default()
        };
        let lane = Lane::open(dir.path(), options.clone()).expect("a lane").0;
        let told = Arc::new(Told::default());
        assert!(lane.subscribe(Arc::clone(&told) as Arc<dyn Acked>));
        let mut appender = lane.appender();
        let record = NewRecord {
            kind: Kind::Event,
            key: Key([1; 16]),
            received_ns: 1,
            meta: b"",
            body: b"x",
        };
        lane.shared.fail(|| "a test".to_owned());
        let acked = lane.acked();
        assert_eq!(told.0.load(Ordering::Relaxed), 1);
        assert_eq!((lane.state(), lane.failure()), (LaneState::Failed, Some("a test")));
        assert_eq!(appender.append(&record), Err(AppendError::Failed));
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!((lane.state(), lane.acked()), (LaneState::Failed, acked));
        lane.close();
        let (_lane, recovery) = Lane::open(dir.path(), options).expect("it opens again");
        assert_eq!((recovery.unsealed, recovery.records), (1, 0));
    }
}
