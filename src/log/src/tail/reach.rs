//! Which segment a reader is in, and how far it may read there. See "Reading" in FORMAT.md.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ReadError, Reader};
use crate::lane::AckLevel;
use crate::marks;
use crate::scan::Scanned;
use crate::segment::{self, Identity, Inspected};

/// How far a segment may be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    pub(super) end: u64,
    /// A record starts there, or will, or none does any more: what lies before it is no part of
    /// one that goes on behind it.
    pub(super) starts: bool,
}

/// The segment that a reader is in.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) scanned: Arc<Scanned>,
    file: File,
    /// Where its records end, once a footer has told it.
    sealed_end: Option<u64>,
    /// Whether a crash has left damage in it, as the footer tells.
    pub(super) damaged: bool,
}

impl Current {
    fn look_for_footer(&mut self) -> io::Result<()> {
        if let Some(footer) = segment::footer(&self.file, &self.scanned.identity)? {
            self.sealed_end = Some(footer.sealed_end.to_native());
            self.damaged = footer.damaged > 0;
        } else if self.scanned.is_cut() {
            // Where the footer stood there is no file any more. What is left can be read.
            self.sealed_end = Some(self.scanned.extent().record_end());
            self.damaged = true;
        }
        Ok(())
    }

    /// Whether no record will ever follow behind `end`.
    pub(super) fn ends_at(&self, end: u64) -> bool {
        self.sealed_end == Some(end) || end == self.scanned.extent().record_end()
    }
}

impl Reader {
    /// Whether the writer has put another file in the place of the current one, as it does after a
    /// failed sync: then what is missing here is there. Gone by retention, it is read to its end.
    pub(super) fn was_replaced(&self) -> bool {
        self.current.as_ref().is_some_and(|current| {
            let path = self.path(current.scanned.extent().base);
            segment::was_replaced(&current.file, &path)
        })
    }

    /// How far the current segment may be read; nothing while nobody has said so.
    pub(super) fn limit(&mut self) -> Result<Option<Reach>, ReadError> {
        let Some(current) = self.current.as_mut() else { return Ok(None) };
        if let Some(end) = current.sealed_end {
            return Ok(Some(Reach { end, starts: true }));
        }
        let marks = self.marks.as_ref().map(marks::acked);
        let extent = current.scanned.extent();
        let epoch = u64::from(current.scanned.identity.epoch);
        match marks {
            Some((now, acked)) if now == epoch => {
                // What lies before the segment is in place, or the reader would not be in it.
                let acked = acked.clamp(extent.first(), extent.record_end());
                if current.scanned.identity.ack != AckLevel::Written as u8 {
                    return Ok(Some(Reach { end: acked, starts: false }));
                }
                // At `written` a record is acknowledged once it and all before it are in place;
                // the marks tell it a moment later.
                let known = if self.offset == self.whole_to { self.offset } else { acked };
                let end = current.scanned.first_start(self.offset + 1, known.max(acked));
                return Ok(Some(Reach { end, starts: true }));
            }
            Some((now, _)) if now < epoch => return Ok(None),
            _ => {}
        }
        current.look_for_footer().map_err(io_error(&self.dir))?;
        // The writer of that epoch is gone, and recovery has sealed all that it left: a footer
        // that does not hold is damage, and what holds before it can still be read.
        let lost_footer = marks.is_some().then_some(extent.record_end());
        let end = current.sealed_end.or(lost_footer);
        Ok(end.map(|end| Reach { end, starts: true }))
    }

    /// Makes the segment with the next record the current one; false if there is none yet.
    pub(super) fn enter(&mut self) -> Result<bool, ReadError> {
        if self.current.is_some() {
            return Ok(true);
        }
        self.find_marks()?;
        let bases = self.list()?;
        let from = bases.partition_point(|base| *base <= self.offset).saturating_sub(1);
        for base in bases.iter().copied().skip(from) {
            let Some((file, identity)) = self.inspect(base)? else { continue };
            if identity.extent.end() <= self.offset {
                continue;
            }
            let scanned = match Scanned::new(&file, identity) {
                Ok(scanned) => Arc::new(scanned),
                Err(error) => return Err(io_error(&self.path(base))(error)),
            };
            let mut entered = Current { scanned, file, sealed_end: None, damaged: false };
            if !self.open_to_readers(&mut entered, &bases)? {
                return Ok(false);
            }
            let missed = self.next_sequence.map_or(0, |due| identity.sequence.saturating_sub(due));
            self.skipped.segments += missed;
            self.next_sequence = Some(identity.sequence);
            self.epoch = identity.epoch;
            let first = identity.extent.first();
            if self.whole_to == self.offset {
                self.whole_to = self.whole_to.max(first);
            }
            self.offset = self.offset.max(first);
            self.current = Some(entered);
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether readers may be in a segment. Not in one that was made ahead: the writer may still
    /// remove it and make another of the same name.
    fn open_to_readers(&self, entered: &mut Current, bases: &[u64]) -> Result<bool, ReadError> {
        let identity = entered.scanned.identity;
        let first = identity.extent.first();
        match self.marks.as_ref().map(marks::acked) {
            Some((now, acked)) if now == u64::from(identity.epoch) => {
                let told = acked >= first;
                let written = identity.ack == AckLevel::Written as u8;
                // The marks may be told late, as while the writer syncs. Its first record is never
                // taken back, and is acknowledged if all before it is in place.
                let used = || written && entered.scanned.first_start(first + 1, first) > first;
                Ok(told || used() && self.all_in_place(acked, bases, identity.extent.base)?)
            }
            Some((now, _)) if now < u64::from(identity.epoch) => Ok(false),
            marks => {
                entered.look_for_footer().map_err(io_error(&self.dir))?;
                Ok(entered.sealed_end.is_some() || marks.is_some())
            }
        }
    }

    /// Whether records stand without a gap from `acked`, or from where this reader is, up to the
    /// segment at `base`.
    fn all_in_place(&self, acked: u64, bases: &[u64], base: u64) -> Result<bool, ReadError> {
        let mut known = if self.offset == self.whole_to { acked.max(self.offset) } else { acked };
        let before = bases.partition_point(|other| *other < base);
        let from = bases.partition_point(|other| *other <= known).saturating_sub(1);
        for other in bases.iter().copied().take(before).skip(from) {
            let Some((file, identity)) = self.inspect(other)? else { continue };
            let extent = identity.extent;
            if extent.base > known || extent.end() <= known {
                continue;
            }
            let scanned = Scanned::new(&file, identity).map_err(io_error(&self.path(other)))?;
            let whole = extent.record_end();
            if scanned.first_start(whole, known.max(extent.first())) == whole {
                known = extent.end();
            }
        }
        Ok(known >= base)
    }

    /// The end of the newest acknowledged record.
    pub(super) fn newest_end(&self) -> Result<u64, ReadError> {
        if let Some(marks) = &self.marks {
            return Ok(marks::acked(marks).1);
        }
        for base in self.list()?.into_iter().rev() {
            let Some((file, identity)) = self.inspect(base)? else { continue };
            let footer = segment::footer(&file, &identity).map_err(io_error(&self.path(base)))?;
            if let Some(footer) = footer {
                return Ok(footer.sealed_end.to_native());
            }
        }
        Ok(0)
    }

    /// Where the first segment starts that may hold a record of `ns` or later.
    pub(super) fn base_by_time(&self, ns: u64) -> Result<u64, ReadError> {
        let bases = self.list()?;
        let (mut low, mut high) = (0, bases.len());
        while low < high {
            let middle = low + (high - low) / 2;
            // Those that say nothing about time are stepped over, downwards.
            let mut telling = None;
            for (index, base) in bases.iter().enumerate().take(middle + 1).skip(low).rev() {
                if let Some(newest_ns) = self.newest_ns(*base)? {
                    telling = Some((index, newest_ns));
                    break;
                }
            }
            match telling {
                Some((index, newest_ns)) if newest_ns >= ns => high = index,
                _ => low = middle + 1,
            }
        }
        bases.get(low).map_or_else(|| self.newest_end(), |base| Ok(*base))
    }

    /// When the newest record of a segment arrived; the end of time if it is still written,
    /// nothing if it has no records.
    fn newest_ns(&self, base: u64) -> Result<Option<u64>, ReadError> {
        let Some((file, identity)) = self.inspect(base)? else { return Ok(None) };
        let footer = segment::footer(&file, &identity).map_err(io_error(&self.path(base)))?;
        Ok(match footer {
            None => Some(u64::MAX),
            Some(footer) if footer.records == 0 => None,
            Some(footer) => Some(footer.last_ns.to_native()),
        })
    }

    /// Opens a segment; nothing if it is gone or does not hold.
    fn inspect(&self, base: u64) -> Result<Option<(File, Identity)>, ReadError> {
        let path = self.path(base);
        match segment::inspect(&path, base) {
            Ok((file, Inspected::Segment(identity))) => Ok(Some((file, identity))),
            Ok((_, Inspected::Damaged(_))) => Ok(None),
            Ok((_, Inspected::Version(found))) => Err(ReadError::Version { path, found }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error(&path)(error)),
        }
    }

    pub(super) fn find_marks(&mut self) -> Result<(), ReadError> {
        if self.marks.is_none() {
            self.marks = marks::open_for_reading(&self.dir).map_err(io_error(&self.dir))?;
        }
        Ok(())
    }

    fn list(&self) -> Result<Vec<u64>, ReadError> {
        segment::list(&self.dir).map_err(io_error(&self.dir))
    }

    fn path(&self, base: u64) -> PathBuf {
        self.dir.join(segment::file_name(base))
    }
}

/// Names the file to an I/O error.
fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ReadError {
    let path = path.to_owned();
    move |error| ReadError::Io { path, error }
}
