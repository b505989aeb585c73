//! One segment file: its name, its creation, its seal, and the arithmetic between a lane's
//! offsets and the file's.
//!
//! A segment is allocated whole and made durable under another name before it gets its own, so a
//! file that ends in `.seg` is complete. Nothing here makes a file shorter or uses one twice.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FallocateFlags, IFlags, fadvise};

use crate::format::{
    FORMAT_VERSION, Footer, HEADER_COPY_AT, PAGE_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
    SegmentHeader, seed_of,
};
use crate::mapping::WriteMap;
use crate::planted::{self, Bug, Point};

/// No segment starts beyond this: arithmetic on offsets stays far from the end of 64 bits.
const BASE_MAX: u64 = 1 << 62;
const FILE_MODE: u32 = 0o640;
const DIR_MODE: u32 = 0o750;

/// Where a segment lies in its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) base: u64,
    pub(crate) bytes: u64,
}

impl Extent {
    /// Offset of the first record.
    pub(crate) fn first(self) -> u64 {
        self.base + PAGE_BYTES
    }

    /// Where records end and the footer's page starts.
    pub(crate) fn record_end(self) -> u64 {
        self.end() - PAGE_BYTES
    }

    /// Where the next segment starts.
    pub(crate) fn end(self) -> u64 {
        self.base + self.bytes
    }

    /// Where in the file the copy of the header stands.
    pub(crate) fn copy_at(self) -> u64 {
        self.bytes - PAGE_BYTES + HEADER_COPY_AT
    }

    /// Bytes that records can take.
    pub(crate) fn capacity(self) -> u64 {
        self.bytes - 2 * PAGE_BYTES
    }

    /// Whether a claim may start at `offset`, or records end there.
    pub(crate) fn holds(self, offset: u64) -> bool {
        (self.first()..=self.record_end()).contains(&offset)
    }
}

/// What the header of a segment says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) lane_id: [u8; 16],
    pub(crate) sequence: u64,
    pub(crate) epoch: u32,
    pub(crate) extent: Extent,
    pub(crate) salt: u64,
    /// Where checksums start, by the salt.
    pub(crate) seed: u32,
    pub(crate) created_ns: u64,
    pub(crate) ack: u8,
}

impl Identity {
    pub(crate) fn header(&self) -> SegmentHeader {
        SegmentHeader {
            magic: [0; 8],
            version: FORMAT_VERSION.into(),
            own_bytes: 128.into(),
            crc: 0.into(),
            epoch: self.epoch.into(),
            lane_id: self.lane_id,
            sequence: self.sequence.into(),
            base: self.extent.base.into(),
            segment_bytes: self.extent.bytes.into(),
            salt: self.salt.into(),
            created_ns: self.created_ns.into(),
            ack: self.ack,
            reserved: [0; 47],
        }
    }

    fn of(header: &SegmentHeader) -> Self {
        Self {
            lane_id: header.lane_id,
            sequence: header.sequence.to_native(),
            epoch: header.epoch.to_native(),
            extent: Extent {
                base: header.base.to_native(),
                bytes: header.segment_bytes.to_native(),
            },
            salt: header.salt.to_native(),
            seed: seed_of(header.salt.to_native()),
            created_ns: header.created_ns.to_native(),
            ack: header.ack,
        }
    }
}

/// What a segment file turned out to be.
#[derive(Debug)]
pub(crate) enum Inspected {
    /// A segment of this format.
    Segment(Identity),
    /// A segment of another version of the format.
    Version(u32),
    /// Not a segment, or one whose header does not hold; the text says what is wrong.
    Damaged(&'static str),
}

/// The name of the segment that starts at `base`.
pub(crate) fn file_name(base: u64) -> String {
    format!("{base:016x}.seg")
}

/// The base in a segment's name; nothing for other files.
pub(crate) fn base_of(name: &OsStr) -> Option<u64> {
    let digits = name.to_str()?.strip_suffix(".seg")?;
    let lower = digits.len() == 16 && !digits.bytes().any(|byte| byte.is_ascii_uppercase());
    let base = lower.then(|| u64::from_str_radix(digits, 16).ok())??;
    (base <= BASE_MAX && base.is_multiple_of(PAGE_BYTES)).then_some(base)
}

/// The bases of all segments in a directory, lowest first.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut bases = Vec::new();
    for entry in fs::read_dir(dir)? {
        bases.extend(base_of(&entry?.file_name()));
    }
    bases.sort_unstable();
    Ok(bases)
}

/// Opens a file for reading and looks at its header, or where that one does not hold, at its copy.
pub(crate) fn inspect(path: &Path, base: u64) -> io::Result<(File, Inspected)> {
    // Never waits for a pipe that somebody has put there.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?);
    let found = inspect_file(&file, base)?;
    Ok((file, found))
}

fn inspect_file(file: &File, base: u64) -> io::Result<Inspected> {
    let data = file.metadata()?;
    if !data.is_file() {
        return Ok(Inspected::Damaged("it is no regular file"));
    }
    let Some(header) = any_header(file, data.len())? else {
        return Ok(Inspected::Damaged("neither its header nor the copy of it holds"));
    };
    if header.version != FORMAT_VERSION {
        return Ok(Inspected::Version(header.version.to_native()));
    }
    let identity = Identity::of(&header);
    let Extent { base: found, bytes } = identity.extent;
    // Checked before any arithmetic, like the base in the name: nothing can overflow then.
    let bounded = (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes);
    if !bounded || !bytes.is_multiple_of(PAGE_BYTES) {
        return Ok(Inspected::Damaged("its header holds impossible sizes"));
    }
    if found != base {
        return Ok(Inspected::Damaged("its header belongs to another file name"));
    }
    Ok(Inspected::Segment(identity))
}

/// The header in the first page of a file, or else the copy in its last page.
fn any_header(file: &File, file_bytes: u64) -> io::Result<Option<SegmentHeader>> {
    let first = header_at(file, 0, file_bytes);
    if matches!(first, Ok(Some(_))) {
        return first;
    }
    // Where the last page is, the length of the file tells; that is right if the copy says so too.
    let copy = file_bytes.checked_sub(PAGE_BYTES).map(|page| page + HEADER_COPY_AT);
    let copy = copy.and_then(|at| header_at(file, at, file_bytes).ok().flatten());
    let stands_right =
        |copy: &SegmentHeader| copy.version != FORMAT_VERSION || copy.segment_bytes == file_bytes;
    copy.filter(stands_right).map_or(first, |copy| Ok(Some(copy)))
}

fn header_at(file: &File, at: u64, file_bytes: u64) -> io::Result<Option<SegmentHeader>> {
    let mut bytes = [0; 128];
    if at + 128 > file_bytes {
        return Ok(None);
    }
    file.read_exact_at(&mut bytes, at)?;
    Ok(SegmentHeader::read(bytes))
}

/// What is wrong with a segment although its records can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wear {
    #[error("only {there} of its {bytes} bytes are there")]
    Cut { there: u64, bytes: u64 },
    #[error("its header does not hold; the copy of it does")]
    Header,
    #[error("the copy of its header does not hold")]
    Copy,
}

/// What of a segment is harmed beside its records and its footer.
pub(crate) fn wear(file: &File, identity: &Identity) -> io::Result<Option<Wear>> {
    let (there, bytes) = (file.metadata()?.len(), identity.extent.bytes);
    if there < bytes {
        return Ok(Some(Wear::Cut { there, bytes }));
    }
    let holds = |at| matches!(header_at(file, at, there), Ok(Some(_)));
    if !holds(0) {
        return Ok(Some(Wear::Header));
    }
    Ok((!holds(identity.extent.copy_at())).then_some(Wear::Copy))
}

/// Whether another file has the name of this one by now, as after a salvage or a purge. After
/// retention none has it.
pub(crate) fn was_replaced(file: &File, path: &Path) -> bool {
    let (Ok(here), Ok(there)) = (file.metadata(), fs::metadata(path)) else { return false };
    (here.dev(), here.ino()) != (there.dev(), there.ino())
}

/// The footer of a segment, if it was sealed and the footer holds.
pub(crate) fn footer(file: &File, identity: &Identity) -> io::Result<Option<Footer>> {
    let extent = identity.extent;
    let mut bytes = [0; 128];
    if file.metadata()?.len() < extent.bytes {
        return Ok(None);
    }
    file.read_exact_at(&mut bytes, extent.bytes - PAGE_BYTES)?;
    let plausible =
        |footer: &Footer| footer.base == extent.base && extent.holds(footer.sealed_end.to_native());
    Ok(Footer::read(bytes, identity.seed).filter(plausible))
}

/// Writes a footer and waits until it is on the medium.
pub(crate) fn write_footer(file: &File, identity: &Identity, footer: &Footer) -> io::Result<()> {
    let bytes = footer.sealed_bytes(identity.seed);
    planted::pass(Point::Sealing);
    file.write_all_at(&bytes, identity.extent.bytes - PAGE_BYTES)?;
    planted::pass(Point::FooterWritten);
    file.sync_data()
}

/// Makes the directory of a lane, and those above it, for the owner and the group only.
pub(crate) fn create_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)
}

/// Options for every file of a lane that this process writes.
pub(crate) fn writing() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(FILE_MODE);
    options
}

/// A segment that this process stores into.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) identity: Identity,
    pub(crate) map: WriteMap,
    path: PathBuf,
    /// The open file behind `map`; every sync of this segment goes through it.
    file: File,
    /// Opened on its own: it reports a write-back error that another sync has swallowed.
    tripwire: File,
}

impl Segment {
    /// Allocates a segment, makes it durable and gives it its name.
    pub(crate) fn create(dir: &Path, identity: Identity, no_cow: bool) -> io::Result<Self> {
        Self::create_with(dir, identity, no_cow, |_| Ok(()))
    }

    /// The same with records that `fill` puts there. A file that has the name already gives it up.
    pub(crate) fn create_with(
        dir: &Path,
        identity: Identity,
        no_cow: bool,
        fill: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<Self> {
        let path = dir.join(file_name(identity.extent.base));
        let fresh = path.with_extension("new");
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let made = allocate(&fresh, &identity, no_cow).and_then(|file| {
            planted::pass(Point::Allocated);
            fill(&file)?;
            if !planted::has(Bug::SegmentUnsynced) {
                file.sync_all()?;
            }
            planted::pass(Point::Filled);
            Self::name(file, &fresh, path, identity)
        });
        if made.is_err() {
            // The first error is the one to tell; a leftover is removed at the next start.
            let _ = fs::remove_file(&fresh);
        }
        made
    }

    /// Gives a file that is complete and durable its name.
    fn name(file: File, fresh: &Path, path: PathBuf, identity: Identity) -> io::Result<Self> {
        let map = WriteMap::new(&file, identity.extent.bytes)?;
        let tripwire = File::open(fresh)?;
        fs::rename(fresh, &path)?;
        planted::pass(Point::Named);
        sync_dir(path.parent().unwrap_or(Path::new(".")))?;
        planted::pass(Point::NameSynced);
        Ok(Self { identity, map, path, file, tripwire })
    }

    pub(crate) fn extent(&self) -> Extent {
        self.identity.extent
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The end of the committed record at `offset`, which this segment holds.
    pub(crate) fn committed_end(&self, offset: u64) -> Option<u64> {
        if offset >= self.extent().record_end() {
            return None;
        }
        let whole = u64::from(self.map.commit(offset - self.extent().base));
        // Pair assertion: this process checked the bound before it stored the word.
        assert!(offset + whole <= self.extent().record_end(), "a record leaves its segment");
        (whole != 0).then_some(offset + whole)
    }

    /// Writes `from..to` of the lane to the medium, as far as it lies in this segment. All of it
    /// is published.
    pub(crate) fn sync(&self, from: u64, to: u64) -> io::Result<()> {
        if planted::has(Bug::SyncSkipped) {
            return Ok(());
        }
        let Extent { base, .. } = self.extent();
        let start = (from.max(base) - base) / PAGE_BYTES * PAGE_BYTES;
        let end = to.min(self.extent().end()) - base;
        // Nobody stores into these pages any more. Taken out of the mapping at once they need
        // not be protected, page by page, against a store during the write, each of which would
        // interrupt every core that runs a receiver.
        self.map.leave(start, end / PAGE_BYTES * PAGE_BYTES - start)?;
        self.map.sync(start, end.next_multiple_of(PAGE_BYTES) - start)
    }

    /// Gives the memory of `from..to` back, as far as it lies in this segment and is whole pages.
    /// It must be on the medium, or the kernel keeps it.
    pub(crate) fn leave(&self, from: u64, to: u64) {
        let extent = self.extent();
        let start = (from.max(extent.base) - extent.base).next_multiple_of(PAGE_BYTES);
        let end = (to.min(extent.end()).saturating_sub(extent.base)) / PAGE_BYTES * PAGE_BYTES;
        let Some(bytes) = end.checked_sub(start).and_then(NonZeroU64::new) else { return };
        // Only hints: where they are not taken the memory stays in use, and nothing else.
        let left = self.map.leave(start, bytes.get());
        let _ = left.map(|()| fadvise(&self.file, start, Some(bytes), Advice::DontNeed));
    }

    /// Writes the footer, after everything before it is on the medium.
    pub(crate) fn seal(&self, footer: &Footer) -> io::Result<()> {
        write_footer(&self.file, &self.identity, footer)?;
        self.tripwire.sync_data()
    }
}

/// A new file with all its blocks and its two headers.
fn allocate(path: &Path, identity: &Identity, no_cow: bool) -> io::Result<File> {
    let file = writing().create_new(true).open(path)?;
    if no_cow {
        // Only an empty file takes the flag. Without it a store could need new blocks.
        let flags = rustix::fs::ioctl_getflags(&file)?;
        rustix::fs::ioctl_setflags(&file, flags | IFlags::NOCOW)?;
    }
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, identity.extent.bytes)?;
    let header = identity.header().sealed_bytes();
    file.write_all_at(&header, 0)?;
    file.write_all_at(&header, identity.extent.copy_at())?;
    Ok(file)
}

/// Makes names that were added to, or removed from, a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sixteen_lower_case_digits_name_a_segment() {
        assert_eq!(base_of(OsStr::new("0000000000010000.seg")), Some(65_536));
        assert_eq!(file_name(65_536), "0000000000010000.seg");
        for name in ["ffffffffffffffff.seg", "0000000000010010.seg"] {
            assert_eq!(base_of(OsStr::new(name)), None, "{name} is out of bounds");
        }
        for name in ["10000.seg", "000000000001000A.seg", "0000000000010000.new", "marks", ".seg"] {
            assert_eq!(base_of(OsStr::new(name)), None, "{name}");
        }
    }

    #[test]
    fn a_created_segment_reads_back_and_a_damaged_one_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let extent = Extent { base: 8192, bytes: SEGMENT_BYTES_MIN };
        let identity = Identity {
            lane_id: [7; 16],
            sequence: 3,
            epoch: 2,
            extent,
            salt: 99,
            seed: seed_of(99),
            created_ns: 5,
            ack: 1,
        };
        let segment = Segment::create(dir.path(), identity, false).expect("a segment");
        let (file, found) = inspect(segment.path(), 8192).expect("readable");
        assert!(matches!(found, Inspected::Segment(found) if found.extent == extent));
        assert!(footer(&file, &identity).expect("readable").is_none());

        assert_eq!(wear(&file, &identity).expect("readable"), None);

        let (_, found) = inspect(segment.path(), 4096).expect("readable");
        assert!(matches!(found, Inspected::Damaged(_)));
        let writer = writing().open(segment.path()).expect("open");
        writer.write_all_at(&[1], 90).expect("a byte");
        let (_, found) = inspect(segment.path(), 8192).expect("readable");
        assert!(matches!(found, Inspected::Segment(found) if found.extent == extent));
        assert_eq!(wear(&file, &identity).expect("readable"), Some(Wear::Header));
        writer.write_all_at(&[1], extent.copy_at() + 90).expect("a byte");
        let (_, found) = inspect(segment.path(), 8192).expect("readable");
        assert!(matches!(found, Inspected::Damaged(_)));
    }
}
