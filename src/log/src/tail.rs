//! Reading a lane from any process. Never writes, never locks, never talks to the writer.
//!
//! A [`Reader`] stops at `acked`, as the marks tell it for the epoch of the writer; segments of
//! earlier epochs end where their footer says. It checks both checksums of every record, steps
//! over fillers and erased records, and goes on behind what is damaged, which it counts. A segment
//! that retention unlinks stays readable to the end for a reader that is in it; what was gone
//! before the reader came there is counted as missed.
//!
//! At ack level synced the marks tell every acknowledgement before it is given. At written they
//! follow it by some milliseconds, and by longer while the keeper syncs; so there a reader goes
//! beyond them by the commit words, over the end of a segment too. Whatever was acknowledged can
//! be read at once.

mod reach;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::cursor::Place;
use crate::lane::Recovered;
use crate::mapping::MarksMap;
use crate::planted::{self, Bug};
use crate::position::{Key, Kind, Position};
use crate::record::{Record, RecordRef};
use crate::scan::{Found, Framed};
use reach::Current;

/// How often a reader looks where the kernel cannot wake it.
const POLL: Duration = Duration::from_millis(2);

/// Where to start reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The oldest record that is kept.
    Earliest,
    /// Behind the newest acknowledged record.
    Latest,
    /// The record at this position, or the next one behind it.
    Position(Position),
    /// The first record that arrived at this unix time in nanoseconds, or later. Exact as far as
    /// the wall clock of the writer did not go back.
    Time(u64),
}

/// Why a lane cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such directory.
    #[error("{} is not the directory of a lane: no writer has opened it yet, or it lies elsewhere", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// A segment has a format that this build does not know.
    #[error("{} has format version {found}, which this build does not read", path.display())]
    Version {
        /// The segment.
        path: PathBuf,
        /// Its version.
        found: u32,
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

/// What a reader has stepped over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Records whose header held and whose payload did not.
    pub damaged: u64,
    /// Holes, by damage or by a crash of the writer.
    pub gaps: u64,
    /// Segments that were gone, or could not be read, when the reader came to them.
    pub segments: u64,
    /// Records of a kind that this version does not know.
    pub unknown: u64,
    /// Records whose payload was erased on purpose.
    pub purged: u64,
}

/// Reads the records of a lane in order.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    marks: Option<MarksMap>,
    current: Option<Current>,
    /// The next record starts here or behind.
    offset: u64,
    /// Everything up to here is in place, as this reader has seen since the last seek.
    whole_to: u64,
    /// Records that arrived before this are stepped over, up to the first that did not.
    since_ns: Option<u64>,
    /// Number of the segment that is read, or that should come next: to see what is missing.
    next_sequence: Option<u64>,
    /// Epoch of the segment that is read or was read last.
    epoch: u32,
    skipped: Skipped,
    clock: Clock,
}

/// Is this a directory? Where that cannot be told, as without the right to look, says why not.
pub(crate) fn find(dir: &Path) -> Result<(), ReadError> {
    let path = || dir.to_owned();
    match fs::metadata(dir) {
        Ok(found) if found.is_dir() => Ok(()),
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(ReadError::Io { path: path(), error })
        }
        _ => Err(ReadError::Missing { path: path() }),
    }
}

impl Reader {
    /// Opens the lane in `dir` at its oldest record. The writer need not run.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, ReadError> {
        let dir = dir.as_ref().to_owned();
        find(&dir)?;
        let marks = None;
        let (skipped, clock) = (Skipped::default(), Clock::System);
        let mut reader = Self {
            dir,
            marks,
            current: None,
            offset: 0,
            whole_to: 0,
            since_ns: None,
            next_sequence: None,
            epoch: 0,
            skipped,
            clock,
        };
        reader.find_marks()?;
        Ok(reader)
    }

    /// What was stepped over since the reader was opened.
    pub fn skipped(&self) -> Skipped {
        self.skipped
    }

    /// Records that were stepped over because their payload did not hold.
    pub fn damaged(&self) -> u64 {
        self.skipped.damaged
    }

    /// Where the reader is: the next record starts here or behind.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Moves to another place; the next record read is the first one there or behind.
    pub fn seek(&mut self, from: From) -> Result<(), ReadError> {
        self.find_marks()?;
        self.current = None;
        self.next_sequence = None;
        self.since_ns = None;
        self.offset = match from {
            From::Earliest => 0,
            From::Latest => self.newest_end()?,
            From::Position(position) => position.offset(),
            From::Time(ns) => self.base_by_time(ns)?,
        };
        // This reader has not seen yet what lies between here and what is acknowledged.
        self.whole_to = u64::MAX;
        match from {
            From::Earliest | From::Position(_) => {}
            From::Latest => while self.advance(false, u64::MAX)?.is_some() {},
            // The first such record may not be there yet, or not be told of yet.
            From::Time(ns) => self.since_ns = Some(ns),
        }
        Ok(())
    }

    /// Moves to a place that a reader of this lane has told. If segments behind it are gone they
    /// count as missed.
    pub fn resume(&mut self, place: Place) -> Result<(), ReadError> {
        self.seek(From::Position(place.position))?;
        self.epoch = place.position.epoch();
        let told = place != Place::default() && place.sequence != Place::UNKNOWN;
        self.next_sequence = told.then_some(place.sequence);
        Ok(())
    }

    /// The place of the reader: everything before it was handed out or stepped over.
    pub fn place(&self) -> Place {
        let position = Position::new(self.epoch, self.offset);
        Place { position, sequence: self.next_sequence.unwrap_or(Place::UNKNOWN) }
    }

    /// The next acknowledged record; nothing if there is none yet.
    #[expect(clippy::should_implement_trait, reason = "a record borrows from the reader")]
    pub fn next(&mut self) -> Result<Option<RecordRef<'_>>, ReadError> {
        let Some((framed, kind)) = self.next_framed()? else { return Ok(None) };
        Ok(self.current.as_ref().map(|current| RecordRef::new(&current.scanned, framed, kind)))
    }

    /// As [`Reader::next`], and the record keeps its segment mapped for as long as it lives: to
    /// hand it to another thread, or to hold several of them, without a copy.
    pub fn next_held(&mut self) -> Result<Option<Record>, ReadError> {
        let Some((framed, kind)) = self.next_framed()? else { return Ok(None) };
        let hold = |current: &Current| Record::new(Arc::clone(&current.scanned), framed, kind);
        Ok(self.current.as_ref().map(hold))
    }

    /// The next record of a known kind, whose payload holds; it lies in the current segment.
    fn next_framed(&mut self) -> Result<Option<(Framed, Kind)>, ReadError> {
        while let Some(framed) = self.advance(true, u64::MAX)? {
            let Some(kind) = Kind::from_number(framed.header.kind) else {
                self.skipped.unknown += 1;
                continue;
            };
            return Ok(Some((framed, kind)));
        }
        Ok(None)
    }

    /// What the header of the next record before `end` tells, and its second key if it has one;
    /// payload unchecked unless the segment was recovered with damage in it.
    pub(crate) fn skim(&mut self, end: u64) -> Result<Option<Recovered>, ReadError> {
        while let Some(framed) = self.advance(false, end)? {
            if let Some(kind) = Kind::from_number(framed.header.kind) {
                let key = Key(framed.header.key);
                let signed_key =
                    self.current.as_ref().and_then(|current| current.scanned.signed_key(&framed));
                let signed_key = signed_key.filter(|_| !planted::has(Bug::SignedKeyUnread));
                let received_ns = framed.header.received_ns.to_native();
                let end = framed.end;
                return Ok(Some(Recovered { key, signed_key, kind, received_ns, end }));
            }
        }
        Ok(None)
    }

    /// Waits until there may be another record, at most `timeout`; true if there may be.
    pub fn wait(&mut self, timeout: Duration) -> Result<bool, ReadError> {
        let deadline = self.clock.monotonic() + timeout;
        loop {
            // The futex word first: what moves after this changes it, and the wait ends at once.
            let seen = self.marks.as_ref().map(MarksMap::futex_value);
            if self.has_more()? {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(self.clock.monotonic());
            if left.is_zero() {
                return Ok(false);
            }
            let waited = match (&self.marks, seen) {
                (Some(marks), Some(seen)) => marks.wait(seen, left),
                _ => false,
            };
            if !waited {
                std::thread::sleep(left.min(POLL));
                self.find_marks()?;
            }
        }
    }

    /// Whether a record lies behind the reader. It may be fillers alone: only a record counts. The
    /// reader stays in front of it.
    fn has_more(&mut self) -> Result<bool, ReadError> {
        let found = self.advance(false, u64::MAX)?;
        if let Some(framed) = &found {
            self.step_back(framed);
        }
        Ok(found.is_some())
    }

    /// In front of the record that was just read.
    fn step_back(&mut self, framed: &Framed) {
        self.offset = framed.start;
        self.whole_to = framed.start;
    }

    /// The next record that is no filler, and with `check` one whose payload holds. The reader
    /// is behind it then, and `current` is the segment that it lies in.
    fn advance(&mut self, check: bool, end: u64) -> Result<Option<Framed>, ReadError> {
        loop {
            if !self.enter()? {
                return Ok(None);
            }
            let Some(reach) = self.limit()? else { return Ok(None) };
            let (whole, limit) = (reach.end, reach.end.min(end));
            let Some(current) = self.current.as_ref() else { return Ok(None) };
            let scanned = &current.scanned;
            let found = scanned.find(self.offset, limit);
            let missed = !matches!(found, Found::Record(_)) && self.offset < limit;
            if missed && self.was_replaced() {
                self.current = None;
                continue;
            }
            let framed = match found {
                Found::Record(framed) => framed,
                Found::Gap(framed) => {
                    self.skipped.gaps += 1;
                    framed
                }
                Found::Nothing if limit == whole && current.ends_at(whole) => {
                    self.skipped.gaps += u64::from(self.offset < whole);
                    self.offset = scanned.extent().end();
                    self.whole_to = self.offset;
                    // One that stayed empty has left its number to the next, which is no less.
                    self.next_sequence = Some(scanned.identity.sequence.saturating_add(1));
                    self.current = None;
                    continue;
                }
                Found::Nothing if limit == whole && reach.starts && self.offset < whole => {
                    // The rest of a record in which this reader was put, or a harmed one.
                    self.skipped.gaps += 1;
                    (self.offset, self.whole_to) = (whole, whole);
                    continue;
                }
                Found::Nothing => return Ok(None),
            };
            self.offset = framed.end;
            self.whole_to = framed.end;
            if framed.is_pad() || self.since_ns.is_some_and(|ns| framed.header.received_ns < ns) {
                continue;
            }
            self.since_ns = None;
            if check && framed.is_purged() {
                self.skipped.purged += 1;
                continue;
            }
            let doubtful = check || current.damaged;
            if doubtful && !scanned.payload_holds(&framed) {
                if self.was_replaced() {
                    self.step_back(&framed);
                    self.current = None;
                } else {
                    self.skipped.damaged += 1;
                }
                continue;
            }
            return Ok(Some(framed));
        }
    }
}
