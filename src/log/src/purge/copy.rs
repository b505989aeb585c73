//! The copy of a segment without the payloads that go: how it is made, held against the segment, and
//! put in its place.

use std::fs::{self, File, Metadata};
use std::io::{self, Seek as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::{FallocateFlags, Gid, RenameFlags, Uid};

use crate::format::{RECORD_HEADER_BYTES, RECORD_PURGED, RECORD_SIGNED_KEY};
use crate::scan::{Found, Framed, Scanned};
use crate::segment;

/// What goes in one segment.
pub(super) struct Victims {
    pub(super) records: Vec<Framed>,
    /// Fillers with something in them: what a producer left that gave up.
    pub(super) pads: Vec<Framed>,
}

/// Makes the copy, durable under its own name.
pub(super) fn copy_without(
    mut file: &File,
    copy_path: &Path,
    scanned: &Scanned,
    victims: &Victims,
) -> io::Result<Scanned> {
    let identity = scanned.identity;
    let known = file.metadata()?;
    let mut copy = segment::writing().create_new(true).open(copy_path)?;
    keep_owner(&copy, &known)?;
    rustix::fs::fallocate(&copy, FallocateFlags::empty(), 0, known.len())?;
    file.rewind()?;
    io::copy(&mut file, &mut copy)?;
    for framed in &victims.records {
        let header = purged_header(scanned, framed);
        copy.write_all_at(&header, framed.start - identity.extent.base)?;
    }
    for framed in victims.records.iter().chain(&victims.pads) {
        let kept = scanned.kept_bytes(framed) as u64;
        let from = framed.start + RECORD_HEADER_BYTES + kept;
        erase(&copy, from - identity.extent.base, framed.end - from)?;
    }
    copy.sync_all()?;
    Scanned::new(&copy, identity)
}

/// Whoever purges, the writer's user must be able to read the copy.
fn keep_owner(copy: &File, known: &Metadata) -> io::Result<()> {
    let own = copy.metadata()?;
    if (own.uid(), own.gid()) != (known.uid(), known.gid()) {
        let (uid, gid) = (Uid::from_raw(known.uid()), Gid::from_raw(known.gid()));
        rustix::fs::fchown(copy, Some(uid), Some(gid))?;
    }
    Ok(())
}

/// The bytes of a record's header after its payload was erased.
fn purged_header(scanned: &Scanned, framed: &Framed) -> [u8; 64] {
    let mut purged = framed.header;
    purged.flags |= RECORD_PURGED;
    purged.payload_crc = 0.into();
    if scanned.kept_bytes(framed) == 0 {
        // One that does not hold goes with the rest.
        purged.flags &= !RECORD_SIGNED_KEY;
        purged.signed_key_crc = 0.into();
    }
    let mut bytes = purged.sealed_bytes(scanned.identity.seed);
    bytes[..4].copy_from_slice(&purged.commit.to_native().to_le_bytes());
    bytes
}

/// Writes zeros.
fn erase(file: &File, mut at: u64, mut bytes: u64) -> io::Result<()> {
    const ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];
    while bytes > 0 {
        let step = bytes.min(ZEROS.len() as u64);
        let zeros = ZEROS.get(..usize::try_from(step).unwrap_or(0)).unwrap_or_default();
        file.write_all_at(zeros, at)?;
        at += step;
        bytes -= step;
    }
    Ok(())
}

/// Whether a copy holds every record of the segment, the victims erased and all others as they
/// were.
pub(super) fn same_but(segment: &Scanned, copy: &Scanned, victims: &Victims) -> bool {
    let extent = segment.extent();
    let limit = extent.record_end();
    let mut erased = victims.records.iter().peekable();
    let mut offset = extent.first();
    loop {
        let (was, is) = match (segment.find(offset, limit), copy.find(offset, limit)) {
            (Found::Record(was), Found::Record(is)) | (Found::Gap(was), Found::Gap(is)) => {
                (was, is)
            }
            (Found::Nothing, Found::Nothing) => return erased.peek().is_none(),
            _ => return false,
        };
        if (was.start, was.end, was.header.key) != (is.start, is.end, is.header.key) {
            return false;
        }
        let victim = erased.next_if(|victim| victim.start == was.start).is_some();
        let right = if victim {
            is.is_purged()
                && segment.signed_key(&was) == copy.signed_key(&is)
                && copy.is_erased(&is)
        } else {
            was.is_pad() || segment.sections(&was) == copy.sections(&is)
        };
        if !right {
            return false;
        }
        offset = was.end;
    }
}

/// Gives the copy the segment's name, and the segment that of the copy, in one step: a segment
/// that retention has removed meanwhile is not brought back. Whether the two have exchanged.
pub(super) fn take_place(copy: &Path, path: &Path) -> io::Result<bool> {
    let cwd = rustix::fs::CWD;
    match rustix::fs::renameat_with(cwd, copy, cwd, path, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        // Retired: the copy goes as well, which the caller does.
        Err(rustix::io::Errno::NOENT) if !path.exists() => Ok(false),
        // A file system that cannot exchange: the old file goes with its name.
        Err(rustix::io::Errno::INVAL) if path.exists() => fs::rename(copy, path).map(|()| false),
        Err(error) => Err(error.into()),
    }
}
