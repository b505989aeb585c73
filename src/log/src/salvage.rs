//! After a sync that failed: the same records in another file, on other places of the medium.
//!
//! The kernel tells of a failed write once. After that it may call the same pages written, show
//! the new bytes and have the old ones on the medium, so those pages are never synced again.
//! What they show is copied into a fresh file, checked record by record, synced once, and put in
//! the place of the harmed file under its name: positions stay what they were. Until that is
//! done `durable` stands still; if it cannot be done the lane has failed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::append::roll;
use crate::format::PAGE_BYTES;
use crate::scan::Scanned;
use crate::segment::{self, Identity, Segment};
use crate::shared::Shared;
use crate::watermark::Claimed;

/// In the directory of a lane in which a sync has failed past salvage: the next start then takes
/// no unsealed segment as it is.
const SUSPECT_FILE: &str = "suspect";
/// How long producers may take from claim to publication.
const LEAVE_MAX: Duration = Duration::from_secs(1);
const LEAVE_PAUSE: Duration = Duration::from_micros(100);
const COPY_BYTES: u64 = 1024 * 1024;

/// Lets nobody claim in a segment any more, and puts a fresh file with all its records, synced,
/// in its place. The segment behind it must be there.
pub(crate) fn salvage(
    shared: &Shared,
    dir: &Path,
    failed: &Segment,
    no_cow: bool,
) -> io::Result<Segment> {
    let identity = failed.identity;
    let end = leave(shared, failed)?;
    Segment::create_with(dir, identity, no_cow, |fresh| {
        copy(failed.file(), fresh, end - identity.extent.base)?;
        check(fresh, identity, end)?;
        if segment::was_replaced(failed.file(), failed.path()) {
            // By a purge, whose copy has its seal. What it has erased must not come back.
            return Err(io::Error::other("a purge has taken the place of the segment"));
        }
        Ok(())
    })
}

/// Ends the claims in a segment and waits until all that was claimed is in place; where it ends.
fn leave(shared: &Shared, failed: &Segment) -> io::Result<u64> {
    let extent = failed.extent();
    while let Claimed::At(from) = shared.watermarks.next_claim() {
        if !extent.holds(from) {
            break;
        }
        roll(shared, failed, from).map_err(|_| io::Error::from(io::ErrorKind::StorageFull))?;
    }
    let end = shared.watermarks.claimed().min(extent.record_end());
    let deadline = shared.clock.monotonic() + LEAVE_MAX;
    while shared.watermarks.published() < end {
        if shared.publish(&mut None) {
            shared.published_moved();
        } else if shared.clock.monotonic() > deadline {
            return Err(io::Error::other("a producer died between claim and publication"));
        } else {
            std::thread::sleep(LEAVE_PAUSE);
        }
    }
    Ok(end)
}

/// Copies what records a segment's file has before the place `end` in it.
pub(crate) fn copy(from: &File, to: &File, end: u64) -> io::Result<()> {
    let mut buffer = Vec::new();
    let mut at = PAGE_BYTES;
    while at < end {
        let bytes = COPY_BYTES.min(end - at);
        buffer.resize(usize::try_from(bytes).map_err(io::Error::other)?, 0);
        from.read_exact_at(&mut buffer, at)?;
        to.write_all_at(&buffer, at)?;
        at += bytes;
    }
    Ok(())
}

/// Whether all records up to `end` are in the file, without a gap and each with its payload.
fn check(file: &File, identity: Identity, end: u64) -> io::Result<()> {
    let scanned = Scanned::new(file, identity)?;
    let mut offset = identity.extent.first();
    while offset < end {
        let framed = scanned.framed(offset, end).filter(|framed| scanned.payload_holds(framed));
        let Some(framed) = framed else {
            let text = format!("the record at {offset} is no longer what was stored");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        };
        offset = framed.end;
    }
    Ok(())
}

/// Notes for the next start that what memory shows of this lane may not be on the medium.
pub(crate) fn note_suspect(dir: &Path) {
    // The medium may refuse this too. Then the next start drops what memory holds and reads anew.
    let _ = File::create(suspect_file(dir)).and_then(|file| file.sync_all());
}

pub(crate) fn suspect_file(dir: &Path) -> PathBuf {
    dir.join(SUSPECT_FILE)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::sync::Arc;

    use crossbeam::sync::Parker;

    use super::*;
    use crate::append::{Appended, Appender, NewRecord};
    use crate::format::{SEGMENT_BYTES_MIN, seed_of};
    use crate::segment::{Extent, writing};
    use crate::shared::Start;
    use crate::{AckLevel, Clock, Key, Kind};

    fn identity(number: u64) -> Identity {
        Identity {
            lane_id: [1; 16],
            sequence: number,
            epoch: 1,
            extent: Extent { base: number * SEGMENT_BYTES_MIN, bytes: SEGMENT_BYTES_MIN },
            salt: 7,
            seed: seed_of(7),
            created_ns: 0,
            ack: AckLevel::Synced as u8,
        }
    }

    /// A lane of two segments without a keeper.
    fn lane(dir: &Path) -> (Arc<Shared>, Arc<Segment>) {
        let shared = Arc::new(Shared::new(Start {
            offset: identity(0).extent.first(),
            ack: AckLevel::Synced,
            clock: Clock::System,
            record_bytes_max: identity(0).extent.capacity(),
            unparker: Parker::new().unparker().clone(),
        }));
        for number in 0..2 {
            let segment = Segment::create(dir, identity(number), false).expect("a segment");
            shared.add_segment(Arc::new(segment));
        }
        let first = shared.segment_from(0).expect("made above");
        (shared, first)
    }

    fn append(appender: &mut Appender, body: &[u8]) -> Appended {
        let record =
            NewRecord { kind: Kind::Event, key: Key([2; 16]), received_ns: 1, meta: b"", body };
        appender.append(&record).expect("there is room")
    }

    #[test]
    fn salvaged_records_keep_their_places_and_the_next_one_goes_into_the_next_segment() {
        let dir = tempfile::tempdir().expect("a directory");
        let (shared, first) = lane(dir.path());
        let mut appender = Appender::new(Arc::clone(&shared));
        let (one, two) = (append(&mut appender, b"one"), append(&mut appender, b"two"));
        let before = std::fs::metadata(first.path()).expect("there").ino();
        let fresh = salvage(&shared, dir.path(), &first, false).expect("salvaged");
        assert_ne!(std::fs::metadata(first.path()).expect("there").ino(), before);
        assert_eq!(shared.watermarks.published(), identity(1).extent.first());
        let scanned = Scanned::new(fresh.file(), identity(0)).expect("mapped");
        for (appended, body) in [(one, b"one"), (two, b"two")] {
            let framed = scanned.framed(appended.start.offset(), appended.end).expect("a record");
            assert!(scanned.payload_holds(&framed));
            assert_eq!(scanned.sections(&framed).1, body);
        }
        assert!(identity(1).extent.holds(append(&mut appender, b"three").start.offset()));
    }

    #[test]
    fn bytes_that_are_no_longer_what_was_stored_are_not_salvaged() {
        let dir = tempfile::tempdir().expect("a directory");
        let (shared, first) = lane(dir.path());
        let appended = append(&mut Appender::new(Arc::clone(&shared)), b"body");
        // As a page that the kernel has given up and read back from the medium.
        let file = writing().open(first.path()).expect("a file");
        file.write_all_at(&[0; 4], appended.start.offset() + 64).expect("written");
        let before = file.metadata().expect("there").ino();
        let refused = salvage(&shared, dir.path(), &first, false).expect_err("it is gone");
        assert!(refused.to_string().contains("no longer what was stored"), "{refused}");
        assert_eq!(std::fs::metadata(first.path()).expect("there").ino(), before);
        assert!(!first.path().with_extension("new").exists());
    }

    #[test]
    fn a_segment_that_a_purge_has_replaced_is_not_salvaged_over_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let (shared, first) = lane(dir.path());
        append(&mut Appender::new(Arc::clone(&shared)), b"body");
        let purged = first.path().with_extension("purge");
        std::fs::copy(first.path(), &purged).expect("copied");
        std::fs::rename(&purged, first.path()).expect("replaced");
        let inode = || std::fs::metadata(first.path()).expect("there").ino();
        let before = inode();
        let refused = salvage(&shared, dir.path(), &first, false).expect_err("it is purged");
        assert!(refused.to_string().contains("a purge"), "{refused}");
        assert_eq!(inode(), before);
    }
}
