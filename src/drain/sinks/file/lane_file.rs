//! The file of one lane: what is in it already, what is added, when it is complete.
//!
//! After a crash the file may end in the middle of a line, and after a loss of power there may be
//! holes in what was never synced, and so never acknowledged. So it is read from its start when it
//! is opened: the first line that is not whole, with all behind it, is cut off, and the events
//! come again. What is in front of it is synced before anything is said to be there.

use std::fs::{self, OpenOptions, TryLockError};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use forebay_log::{Clock, Position};

use super::{Settings, owner};
use crate::drain::sink::Event;
use crate::drain::sinks::line::{self, LINE_BYTES_MAX};

pub(super) const END: &str = ".ndjson";

/// What a line holds beside its payload, as a rule at the most.
const BESIDES_BYTES: usize = 384;

/// The lines of a batch, made before its turn.
#[derive(Debug, Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    /// The position of each, and where in `bytes` it begins.
    begins: Vec<(Position, usize)>,
}

impl Lines {
    /// None, with room for those of a batch, in the memory that is here.
    pub(super) fn begin(&mut self, batch: &[Event]) {
        self.begins.clear();
        self.bytes.clear();
        let payloads: usize = batch.iter().map(|event| event.payload().len()).sum();
        self.bytes.reserve(payloads + batch.len() * BESIDES_BYTES);
    }

    /// Adds that of the event behind the one before.
    pub(super) fn add(&mut self, event: &Event) {
        self.begins.push((event.position(), self.bytes.len()));
        line::write(&mut self.bytes, event);
    }

    /// Their bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The memory that they take.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Those from the first one on that is behind a position; positions grow in a lane.
    fn behind(&self, last: Option<Position>) -> &[u8] {
        let mut begins = self.begins.iter();
        let first = begins.find(|(position, _)| last.is_none_or(|last| *position > last));
        first.and_then(|(_, begin)| self.bytes.get(*begin..)).unwrap_or_default()
    }
}

/// A file that is written to.
#[derive(Debug)]
pub(super) struct LaneFile {
    name: String,
    /// The lane whose lines are told apart by their positions; none: they are not.
    lane_id: Option<[u8; 16]>,
    file: fs::File,
    /// Its length, as far as all of it is known.
    bytes: u64,
    begun_ns: u64,
    /// The position of the last line here or, if there is none, in the files before.
    last: Option<Position>,
}

impl LaneFile {
    /// Opens or makes the file of this name, for lines of this lane alone.
    pub(super) fn open(
        settings: &Settings,
        name: &str,
        lane_id: Option<[u8; 16]>,
        clock: &Clock,
    ) -> io::Result<Self> {
        let folder = &settings.folder;
        fs::create_dir_all(folder)?;
        let path = path_of(folder, name);
        let file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::Error(error) => error,
            TryLockError::WouldBlock => {
                let text = format!("{} is written by another process", path.display());
                io::Error::new(io::ErrorKind::ResourceBusy, text)
            }
        })?;
        if let Some(id) = lane_id
            && owner::claim(folder, name, id)?
        {
            return Self::open(settings, name, lane_id, clock);
        }
        let (bytes, last) = whole_lines(&file, &path)?;
        if bytes < file.metadata()?.len() {
            file.set_len(bytes)?;
        }
        if settings.sync {
            file.sync_all()?;
            sync_folder(folder)?;
        }
        let last = match last {
            Some(last) => Some(last),
            None => newest_complete(folder, name)?,
        };
        let now_ns = clock.wall_ns();
        let begun_ns = if bytes == 0 { now_ns } else { begun_ns(&file).unwrap_or(now_ns) };
        Ok(Self { name: name.to_owned(), lane_id, file, bytes, begun_ns, last })
    }

    /// Whether it was opened for lines of this lane.
    pub(super) fn is_of(&self, lane_id: Option<[u8; 16]>) -> bool {
        self.lane_id == lane_id
    }

    /// Adds the lines that are not there yet, which positions tell within one lane.
    pub(super) fn append(
        &mut self,
        settings: &Settings,
        clock: &Clock,
        batch: &Lines,
    ) -> io::Result<()> {
        let lines = batch.behind(self.last.filter(|_| self.lane_id.is_some()));
        if lines.is_empty() {
            return Ok(());
        }
        let last = batch.begins.last().map(|(position, _)| *position);
        let age = Duration::from_nanos(clock.wall_ns().saturating_sub(self.begun_ns));
        let full = self.bytes + lines.len() as u64 > settings.rotate_bytes;
        if self.bytes > 0 && (full || age >= settings.rotate_age) {
            self.complete(settings, clock)?;
        }
        let written = self.file.write_all(lines);
        let written =
            if settings.sync { written.and_then(|()| self.file.sync_data()) } else { written };
        if let Err(error) = written {
            // What was not synced must not be taken for what is there: not even the kernel's own
            // copy of it can be trusted after a sync that failed.
            _ = self.file.set_len(self.bytes);
            return Err(error);
        }
        self.bytes += lines.len() as u64;
        self.last = last;
        Ok(())
    }

    /// Gives the file its last name and begins the next one.
    fn complete(&mut self, settings: &Settings, clock: &Clock) -> io::Result<()> {
        let Some(last) = self.last else { return Ok(()) };
        let folder = &settings.folder;
        let mut to = complete_path(folder, &self.name, last);
        // Of replays two files may end alike.
        let mut number = 1;
        while to.exists() {
            to = complete_path(folder, &format!("{}.{number}", self.name), last);
            number += 1;
        }
        fs::rename(path_of(folder, &self.name), to)?;
        let mut next = Self::open(settings, &self.name, self.lane_id, clock)?;
        next.last = Some(last);
        *self = next;
        Ok(())
    }
}

fn path_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}{END}"))
}

fn complete_path(folder: &Path, name: &str, last: Position) -> PathBuf {
    folder.join(format!("{name}.{last}{END}"))
}

/// How many bytes of whole lines a file begins with, and the position of the last of them.
fn whole_lines(file: &fs::File, path: &Path) -> io::Result<(u64, Option<Position>)> {
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let (mut bytes, mut last) = (0, None);
    let mut text = Vec::new();
    loop {
        text.clear();
        let read = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text)? as u64;
        let whole = text.strip_suffix(b"\n");
        let position = whole.filter(|line| line::is_json(line)).and_then(line::position_of);
        match position {
            Some(position) => last = Some(position),
            None if bytes == 0 && whole.is_some_and(|line| !line.contains(&0)) => {
                let text = format!("{} holds lines that this sink did not write", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            None => return Ok((bytes, last)),
        }
        bytes += read;
    }
}

/// The last position of the complete files, which their names say.
fn newest_complete(folder: &Path, name: &str) -> io::Result<Option<Position>> {
    let mut newest = None;
    for entry in fs::read_dir(folder)? {
        let file_name = entry?.file_name();
        let position = file_name
            .to_str()
            .and_then(|text| text.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(END))
            .and_then(|text| text.parse().ok());
        newest = newest.max(position);
    }
    Ok(newest)
}

/// When the file was made, as far as the file system knows.
fn begun_ns(file: &fs::File) -> Option<u64> {
    let since = file.metadata().ok()?.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}
