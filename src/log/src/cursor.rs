//! Named cursors: how far consumers outside the server have come, kept in the lane's folder.
//!
//! A [`Cursor`] is a file of two slots in `cursors`. A commit writes the older slot and syncs it,
//! so that a crash at any point leaves the newer one whole. Retention keeps what the slowest
//! cursor has not read for as long as the lane's size bound and the disk allow.
//!
//! Consumers need the right to write in `cursors` alone, which the lane's group has. The writer
//! trusts nothing there: it opens regular files only, reads 128 bytes of each slot of a bounded
//! number of them, and the most that these can do is to keep segments up to the size bound.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags};

use crate::clock::Clock;
use crate::format::{CursorSlot, PAGE_BYTES};
use crate::marks;
use crate::planted::{self, Bug, Point};
use crate::position::Position;
use crate::segment;

/// The folder of a lane that holds its cursors.
const CURSORS_DIR: &str = "cursors";
/// The group may add files, which get the lane's group, and nobody removes another one's.
const CURSORS_MODE: u32 = 0o3770;
const FILE_MODE: u32 = 0o640;
/// So many cursors a lane has at the most; the writer looks at no more.
pub const CURSORS_MAX: usize = 256;
/// The longest name of a cursor.
const NAME_BYTES_MAX: usize = 64;
/// How long somebody who only looks may hold a cursor's lock.
const LOOK: Duration = Duration::from_millis(20);
/// The two slots stand in pages of their own.
const SLOTS: [u64; 2] = [0, PAGE_BYTES];

/// A place to read on from, with what tells later whether something before it was missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub(crate) position: Position,
    /// The number of the segment that the next record may be in at the earliest.
    pub(crate) sequence: u64,
}

impl Place {
    /// No segment was read yet when the place was told.
    pub(crate) const UNKNOWN: u64 = u64::MAX;

    /// Where the next record starts at the earliest.
    pub fn position(&self) -> Position {
        self.position
    }
}

/// A cursor as its file tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorFacts {
    /// Its name.
    pub name: String,
    /// Where it stands; the start of the lane if nothing was committed yet.
    pub place: Place,
    /// When that was committed, unix time in nanoseconds.
    pub committed_ns: u64,
    /// Whether a consumer holds it now.
    pub in_use: bool,
}

/// Why there is no such cursor.
#[derive(Debug, thiserror::Error)]
pub enum CursorError {
    /// The name is not one.
    #[error("`{name}` is no name of a cursor: 1 to 64 small letters, digits, `-` and `_` are")]
    Name {
        /// What was given.
        name: String,
    },
    /// No writer has ever opened the lane, so there is nothing to read either.
    #[error("{} holds no lane yet", path.display())]
    NoLane {
        /// The directory.
        path: PathBuf,
    },
    /// Another consumer reads by this cursor.
    #[error("{} is in use by another consumer", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The lane has too many.
    #[error("{} holds {CURSORS_MAX} cursors already; remove those that nobody uses", path.display())]
    TooMany {
        /// The folder.
        path: PathBuf,
    },
    /// Neither slot holds.
    #[error("{} is damaged or of another lane; remove it to begin anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The cursor is ahead of the lane, which was restored from an old copy, say.
    #[error(
        "{} stands at {position}, beyond the end of the lane; remove it to begin anew",
        path.display()
    )]
    Ahead {
        /// The file.
        path: PathBuf,
        /// Where it stands.
        position: Position,
    },
    /// The operating system refused something.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> CursorError {
    let path = path.to_owned();
    move |error| CursorError::Io { path, error }
}

/// The cursor of one consumer, held by it alone.
#[derive(Debug)]
pub struct Cursor {
    file: File,
    path: PathBuf,
    lane_id: [u8; 16],
    /// The slot of the last commit and its count.
    slot: usize,
    count: u64,
    place: Place,
    clock: Clock,
}

impl Cursor {
    /// Opens the cursor `name` of the lane in `dir`; a new one stands at the start of the lane and
    /// keeps, from now on, what is there.
    pub fn open(dir: impl AsRef<Path>, name: &str) -> Result<Self, CursorError> {
        let dir = dir.as_ref();
        let path = path_of(dir, name)?;
        let lane_id = marks::lane_id(dir).map_err(io_error(dir))?;
        let lane_id = lane_id.ok_or_else(|| CursorError::NoLane { path: dir.to_owned() })?;
        make_dir(dir).map_err(io_error(dir))?;
        let file = match Self::file(&path, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let folder = dir.join(CURSORS_DIR);
                let count = fs::read_dir(&folder).map_err(io_error(&folder))?.count();
                if count >= CURSORS_MAX {
                    return Err(CursorError::TooMany { path: folder });
                }
                Self::file(&path, true)
            }
            opened => opened,
        };
        let file = file.map_err(io_error(&path))?;
        if !hold(&file).map_err(io_error(&path))? {
            return Err(CursorError::InUse { path });
        }
        let (slot, count, place, clock) = (1, 0, Place::default(), Clock::System);
        let mut cursor = Self { file, path, lane_id, slot, count, place, clock };
        cursor.load(dir)?;
        Ok(cursor)
    }

    fn file(path: &Path, create: bool) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create).truncate(false).mode(FILE_MODE);
        options.custom_flags(special_flags()).open(path)
    }

    /// Reads the newer slot; a file that is empty yet gets its first.
    fn load(&mut self, dir: &Path) -> Result<(), CursorError> {
        let bytes = self.file.metadata().map_err(io_error(&self.path))?.len();
        if bytes == 0 {
            planted::pass(Point::CursorMade);
            self.commit(Place::default())?;
            // The name too must outlive a crash, or nothing keeps what it should keep.
            return segment::sync_dir(&dir.join(CURSORS_DIR)).map_err(io_error(&self.path));
        }
        let of_any = newest(&self.file, |_| true).map_err(io_error(&self.path))?;
        let of_lane = newest(&self.file, |slot| slot.lane_id == self.lane_id);
        let of_lane = of_lane.map_err(io_error(&self.path))?;
        let (slot, known) = match (of_lane, of_any) {
            (Some(found), _) => found,
            // A lane whose first writer was killed before it had a segment gets another id.
            (None, Some((slot, known))) if known.offset == 0 => {
                (self.slot, self.count) = (slot, known.count.to_native());
                return self.store(Place::default());
            }
            _ => return Err(CursorError::Damaged { path: self.path.clone() }),
        };
        (self.slot, self.count, self.place) = (slot, known.count.to_native(), place_of(&known));
        let end = end_of(dir).map_err(io_error(dir))?;
        let position = self.place.position;
        if position.offset() > end {
            return Err(CursorError::Ahead { path: self.path.clone(), position });
        }
        Ok(())
    }

    /// Where to read on.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Whether nothing was ever committed but the start of the lane.
    pub fn is_new(&self) -> bool {
        self.place.position.offset() == 0
    }

    /// Remembers that everything before `place` is done with; on the medium when this returns.
    pub fn commit(&mut self, place: Place) -> Result<(), CursorError> {
        if place == self.place && self.count > 0 {
            return Ok(());
        }
        if self.is_new() {
            // Before its first record a lane may have got another id: see `load`.
            let dir = self.path.parent().and_then(Path::parent).unwrap_or(Path::new("."));
            let now = marks::lane_id(dir).map_err(io_error(dir))?;
            self.lane_id = now.unwrap_or(self.lane_id);
        }
        self.store(place)
    }

    fn store(&mut self, place: Place) -> Result<(), CursorError> {
        let (slot, count) = (1 - self.slot, self.count + 1);
        let bytes = CursorSlot {
            magic: [0; 8],
            version: 0.into(),
            own_bytes: 0.into(),
            crc: 0.into(),
            epoch: place.position.epoch().into(),
            lane_id: self.lane_id,
            count: count.into(),
            offset: place.position.offset().into(),
            sequence: place.sequence.into(),
            committed_ns: self.clock.wall_ns().into(),
            reserved: [0; 56],
        };
        let at = SLOTS.get(slot).copied().unwrap_or_default();
        let written = self.file.write_all_at(&bytes.sealed_bytes(), at);
        planted::pass(Point::CursorWritten);
        if !planted::has(Bug::CursorUnsynced) {
            written.and_then(|()| self.file.sync_data()).map_err(io_error(&self.path))?;
        }
        planted::pass(Point::CursorSynced);
        (self.slot, self.count, self.place) = (slot, count, place);
        Ok(())
    }
}

/// Takes a cursor's lock; false if somebody else has it for longer than a look takes.
fn hold(file: &File) -> io::Result<bool> {
    for wait in [Duration::ZERO, LOOK, LOOK, LOOK] {
        std::thread::sleep(wait);
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

/// Never waits for a pipe that somebody has put there, and follows no link.
fn special_flags() -> i32 {
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // The bits of these flags are far below the sign.
    i32::try_from(flags.bits()).unwrap_or(0)
}

fn path_of(dir: &Path, name: &str) -> Result<PathBuf, CursorError> {
    let fits =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    let named = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits);
    if named {
        Ok(dir.join(CURSORS_DIR).join(name))
    } else {
        Err(CursorError::Name { name: name.to_owned() })
    }
}

/// Makes the folder for cursors, if it is not there.
pub(crate) fn make_dir(dir: &Path) -> io::Result<()> {
    let folder = dir.join(CURSORS_DIR);
    match DirBuilder::new().mode(CURSORS_MODE).create(&folder) {
        // Once more: the mask of the process has taken from it what the group needs.
        Ok(()) => fs::set_permissions(&folder, fs::Permissions::from_mode(CURSORS_MODE)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// The newer of the slots that hold and fit, and which it is.
fn newest(
    file: &File,
    fits: impl Fn(&CursorSlot) -> bool,
) -> io::Result<Option<(usize, CursorSlot)>> {
    let mut newest: Option<(usize, CursorSlot)> = None;
    for (index, at) in SLOTS.into_iter().enumerate() {
        let mut bytes = [0; 128];
        match file.read_exact_at(&mut bytes, at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
            read => read?,
        }
        let slot = CursorSlot::read(bytes).filter(&fits);
        let newer = |slot: &CursorSlot| newest.is_none_or(|(_, known)| slot.count > known.count);
        if let Some(slot) = slot.filter(newer) {
            newest = Some((index, slot));
        }
    }
    Ok(newest)
}

fn place_of(slot: &CursorSlot) -> Place {
    Place {
        position: Position::new(slot.epoch.to_native(), slot.offset.to_native()),
        sequence: slot.sequence.to_native(),
    }
}

/// Where the newest segment ends, whatever it holds.
fn end_of(dir: &Path) -> io::Result<u64> {
    let Some(base) = segment::list(dir)?.pop() else { return Ok(0) };
    let bytes = fs::metadata(dir.join(segment::file_name(base)))?.len();
    Ok(base.saturating_add(bytes))
}

/// The cursors of the lane in `dir`, by name; those whose file does not hold are left out.
pub fn cursors(dir: impl AsRef<Path>) -> Result<Vec<CursorFacts>, CursorError> {
    let dir = dir.as_ref();
    let Some(lane_id) = marks::lane_id(dir).map_err(io_error(dir))? else { return Ok(Vec::new()) };
    let found = read_all(dir, &lane_id).map_err(io_error(&dir.join(CURSORS_DIR)))?;
    let mut facts: Vec<CursorFacts> = found
        .into_iter()
        .map(|(name, file, slot)| {
            let looked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared);
            let (place, committed_ns) = (place_of(&slot), slot.committed_ns.to_native());
            CursorFacts { name, place, committed_ns, in_use: looked.is_err() }
        })
        .collect();
    facts.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(facts)
}

/// Removes a cursor that nobody uses: nothing is kept for it any more.
pub fn remove_cursor(dir: impl AsRef<Path>, name: &str) -> Result<(), CursorError> {
    let dir = dir.as_ref();
    let path = path_of(dir, name)?;
    let file = Cursor::file(&path, false).map_err(io_error(&path))?;
    if !hold(&file).map_err(io_error(&path))? {
        return Err(CursorError::InUse { path });
    }
    fs::remove_file(&path).map_err(io_error(&path))?;
    segment::sync_dir(&dir.join(CURSORS_DIR)).map_err(io_error(&path))
}

fn read_all(dir: &Path, lane_id: &[u8; 16]) -> io::Result<Vec<(String, File, CursorSlot)>> {
    let entries = match fs::read_dir(dir.join(CURSORS_DIR)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries.take(CURSORS_MAX) {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let mut options = OpenOptions::new();
        let Ok(file) = options.read(true).custom_flags(special_flags()).open(entry.path()) else {
            continue;
        };
        if !file.metadata()?.is_file() {
            continue;
        }
        // One that cannot be read is one that does not hold.
        let Ok(Some((_, slot))) = newest(&file, |slot| slot.lane_id == *lane_id) else { continue };
        found.push((name, file, slot));
    }
    Ok(found)
}

/// The offset that the slowest cursor of a lane has come to; nothing if there is no cursor.
pub(crate) fn slowest(dir: &Path, lane_id: &[u8; 16]) -> Option<u64> {
    let found = read_all(dir, lane_id).ok()?;
    found.iter().map(|(_, _, slot)| slot.offset.to_native()).min()
}

/// The offset up to which the consumer of this name has read.
pub(crate) fn offset(dir: &Path, lane_id: &[u8; 16], name: &str) -> Option<u64> {
    let found = read_all(dir, lane_id).ok()?;
    found.iter().find(|(known, ..)| known == name).map(|(.., slot)| slot.offset.to_native())
}
