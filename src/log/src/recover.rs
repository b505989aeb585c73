//! What a lane's directory holds when nobody writes to it, and what must be done before somebody
//! may: [`plan`] only reads, [`Plan::apply`] makes it so.
//!
//! A sealed segment is taken at its footer's word. An unsealed one is scanned: its end is behind
//! the last record that holds, whatever holes come before. Applying seals it there; nothing is
//! ever appended to it again. Until the footer is on the medium nothing has changed, so a crash
//! in the middle leads to the same plan again.
//!
//! What a crash leaves behind the last record is no damage: nobody was told of it. It is damage,
//! and counted as a gap, where a commit word stands without its record, or where the marks say
//! that more was acknowledged. Segments that are gone are missed by their numbers, and by the
//! marks, which for the rest are only believed where believing them does no harm.
//!
//! Damage never keeps a lane from opening: it is counted and told. What does keep it from opening
//! is a mistake of the operator's: a segment of another lane, or of a later version.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rkyv::rend::u64_le;

use crate::format::{
    FOOTER_RECOVERED, FORMAT_VERSION, Footer, MarksPage, PAGE_BYTES, RECORD_ALIGN,
    SEGMENT_BYTES_MAX,
};
use crate::lane::OpenError;
use crate::marks::{self, Told};
use crate::planted::{self, Bug, Point};
use crate::position::Position;
use crate::purge;
use crate::salvage;
use crate::scan::{Found, Scanned};
use crate::segment::{self, Extent, Identity, Inspected, Segment};
use crate::volume::{self, Volume};

/// Marks that are further ahead of the segments than this are not believed: they are garbled.
const EPOCHS_AHEAD_MAX: u64 = 1 << 10;
/// The same for offsets.
const OFFSETS_AHEAD_MAX: u64 = 1 << 44;

/// What was found when a lane was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Segments that can be read.
    pub segments: usize,
    /// Records in them: counted in unsealed segments, by the footers of sealed ones.
    pub records: u64,
    /// Records whose header held and whose payload did not.
    pub damaged: u64,
    /// Holes with records behind them, or where there should be some.
    pub gaps: u64,
    /// Segments that should be there and are not; those that retention removes do not count.
    pub missing: u64,
    /// Segments that were scanned because the writer had not sealed them.
    pub unsealed: usize,
    /// The end of the last record; nothing in a new lane.
    pub end: Option<Position>,
    /// The epoch that the writer has now.
    pub epoch: u32,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

/// A sealed segment of a lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sealed {
    pub(crate) identity: Identity,
    pub(crate) footer: Footer,
}

impl Sealed {
    pub(crate) fn extent(&self) -> Extent {
        self.identity.extent
    }

    /// Whether nothing was ever published in it, nor found damaged.
    pub(crate) fn is_empty(&self) -> bool {
        let footer = &self.footer;
        let unharmed = footer.damaged == 0 && footer.gaps == 0;
        unharmed && footer.sealed_end == self.extent().first()
    }
}

/// What is to be done before a lane can be written.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) lane_id: Option<[u8; 16]>,
    /// Every readable segment with the footer that it has or will get, oldest first.
    pub(crate) sealed: Vec<Sealed>,
    /// Those of `sealed` that have no footer yet.
    unsealed: Vec<Sealed>,
    /// Where files start that cannot be read as segments.
    unreadable: Vec<u64>,
    /// Segments that a crash left before they had their name.
    leftovers: Vec<PathBuf>,
    marks: Option<MarksPage>,
    /// The last writer has seen a sync fail.
    suspect: bool,
    pub(crate) next_base: u64,
    pub(crate) next_sequence: u64,
    pub(crate) recovery: Recovery,
}

/// Seals a lane that nobody writes, as the next start would, and tells readers how far it goes.
/// The caller holds the writer's lock.
pub(crate) fn seal(dir: &Path) -> Result<Recovery, OpenError> {
    let mut plan = plan(dir)?;
    let volume = Volume::of(dir).map_err(OpenError::io(dir))?;
    plan.apply(dir, volume.copies_on_write())?;
    if let (Some(lane_id), Some(end)) = (plan.lane_id, plan.recovery.end) {
        let marks = marks::open_for_writing(dir, lane_id).map_err(OpenError::io(dir))?;
        let base = |sealed: Option<&Sealed>| sealed.map_or(0, |sealed| sealed.extent().base);
        let offset = end.offset();
        let told = Told {
            claimed: offset,
            published: offset,
            durable: offset,
            acked: offset,
            first_base: base(plan.sealed.first()),
            last_base: base(plan.sealed.last()),
        };
        // The epoch that was: nobody has begun a new one.
        marks::begin(&marks, plan.recovery.epoch - 1, &told);
    }
    Ok(plan.recovery)
}

/// Looks at the directory of a lane. Reads only.
pub(crate) fn plan(dir: &Path) -> Result<Plan, OpenError> {
    let suspect = salvage::suspect_file(dir).exists();
    let mut plan = Plan { marks: marks::left(dir), suspect, ..Plan::default() };
    for entry in fs::read_dir(dir).map_err(OpenError::io(dir))? {
        let path = entry.map_err(OpenError::io(dir))?.path();
        let left = |extension: &OsStr| extension == "new" || extension == purge::COPY_EXTENSION;
        if path.extension().is_some_and(left) {
            plan.leftovers.push(path);
        }
    }
    for base in segment::list(dir).map_err(OpenError::io(dir))? {
        plan.take(&dir.join(segment::file_name(base)), base)?;
    }
    plan.miss_segments();
    plan.follow_marks();
    let kept = planted::has(Bug::EpochKept) && plan.recovery.epoch > 0;
    plan.recovery.epoch = plan.recovery.epoch.saturating_add(u32::from(!kept));
    planted::pass(Point::Planned);
    Ok(plan)
}

impl Plan {
    /// Adds a segment to the plan, or a warning about it.
    fn take(&mut self, path: &Path, base: u64) -> Result<(), OpenError> {
        // Whatever it holds, its range of offsets is spent.
        let file_bytes = fs::metadata(path).map_or(0, |data| data.len().min(SEGMENT_BYTES_MAX));
        self.next_base = self.next_base.max(base + file_bytes.next_multiple_of(PAGE_BYTES));
        let (file, identity) = match segment::inspect(path, base) {
            Ok((file, Inspected::Segment(identity))) => (file, identity),
            Ok((_, Inspected::Version(found))) => {
                let path = path.to_owned();
                return Err(OpenError::Version { path, found, known: FORMAT_VERSION });
            }
            Ok((_, Inspected::Damaged(what))) => {
                self.skip(path, base, what);
                return Ok(());
            }
            Err(error) => {
                self.skip(path, base, &error.to_string());
                return Ok(());
            }
        };
        if *self.lane_id.get_or_insert(identity.lane_id) != identity.lane_id {
            return Err(OpenError::ForeignSegment { path: path.to_owned() });
        }
        self.next_base = self.next_base.max(identity.extent.end());
        self.recovery.epoch = self.recovery.epoch.max(identity.epoch);
        if let Ok(Some(what)) = segment::wear(&file, &identity) {
            self.recovery.warnings.push(format!("{}: {what}", path.display()));
        }
        match self.footer_of(&file, &identity) {
            Ok((footer, sealed)) => self.count(Sealed { identity, footer }, sealed),
            Err(error) => self.skip(path, base, &error.to_string()),
        }
        Ok(())
    }

    /// The footer of a segment, and whether it has it already, or can never have one.
    fn footer_of(&self, file: &File, identity: &Identity) -> io::Result<(Footer, bool)> {
        // A footer that cannot be read is one that is not there.
        if let Ok(Some(footer)) = segment::footer(file, identity) {
            return Ok((footer, true));
        }
        // What was never synced is still in memory, and goes into a fresh file from there. Else
        // pages that a failed sync has left marked clean show bytes that the medium does not
        // have: they are dropped and read again. What is dirty is written first, since the kernel
        // keeps every page of a folio that has one dirty page; should that fail, what is read
        // decides.
        if !self.suspect {
            let _ = file.sync_all();
            rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
        let scanned = Scanned::new(file, *identity)?;
        Ok((scan(&scanned, self.acked_in(identity)), scanned.is_cut()))
    }

    /// How far readers were told that they may read in a segment that has no footer.
    fn acked_in(&self, identity: &Identity) -> Option<u64> {
        let told = self.marks.filter(|marks| marks.lane_id == identity.lane_id)?;
        (told.epoch == u64::from(identity.epoch)).then_some(told.acked.to_native())
    }

    fn count(&mut self, segment: Sealed, sealed: bool) {
        if !sealed {
            self.recovery.unsealed += 1;
            self.unsealed.push(segment);
        }
        // A segment that stayed empty will be retired: its number goes to the next one, so that a
        // reader who counts numbers misses nothing.
        let spent = u64::from(!segment.is_empty());
        let sequence = segment.identity.sequence.saturating_add(spent);
        self.next_sequence = self.next_sequence.max(sequence);
        let footer = &segment.footer;
        self.recovery.segments += 1;
        self.recovery.records += footer.records.to_native();
        self.recovery.damaged += u64::from(footer.damaged.to_native());
        self.recovery.gaps += u64::from(footer.gaps.to_native());
        if footer.records > 0 {
            let end = footer.sealed_end.to_native();
            self.recovery.end = Some(Position::new(segment.identity.epoch, end));
        }
        self.sealed.push(segment);
    }

    /// Leaves a file alone that cannot be read as a segment, and says so.
    fn skip(&mut self, path: &Path, base: u64, what: &str) {
        let warning = format!("{}: {what}; it is kept and not read", path.display());
        self.recovery.warnings.push(warning);
        self.unreadable.push(base);
        self.next_sequence += 1;
    }

    /// Counts the segments that are gone from between others: their numbers are missing.
    fn miss_segments(&mut self) {
        for (one, next) in self.sealed.iter().zip(self.sealed.iter().skip(1)) {
            let spent = u64::from(!one.is_empty());
            let (from, to) = (one.extent().base, next.extent().base);
            let between = self.unreadable.iter().filter(|base| (from..to).contains(base)).count();
            let expected = one.identity.sequence.saturating_add(spent + between as u64);
            let missing = next.identity.sequence.saturating_sub(expected);
            if missing > 0 {
                self.recovery.missing = self.recovery.missing.saturating_add(missing);
                let one = segment::file_name(from);
                let next = segment::file_name(to);
                let warning = format!("{missing} segments are missing between {one} and {next}");
                self.recovery.warnings.push(warning);
            }
        }
    }

    /// Goes on behind everything that the last writer has told of, lest a place or an epoch be
    /// used again because the file is gone that has had it.
    fn follow_marks(&mut self) {
        let Some(marks) = self.marks else { return };
        if *self.lane_id.get_or_insert(marks.lane_id) != marks.lane_id {
            return;
        }
        let epoch = u64::from(self.recovery.epoch);
        let told = marks.epoch.to_native();
        if (epoch..=epoch.saturating_add(EPOCHS_AHEAD_MAX)).contains(&told) {
            self.recovery.epoch = u32::try_from(told).unwrap_or(self.recovery.epoch);
        }
        // A segment whose first page alone is claimed holds nothing yet.
        let nothing = self.next_base.saturating_add(PAGE_BYTES);
        let used =
            |offset: u64| offset > nothing && offset <= nothing.saturating_add(OFFSETS_AHEAD_MAX);
        if used(marks.acked.to_native()) {
            self.next_sequence += 1;
            self.recovery.missing = self.recovery.missing.saturating_add(1);
            let what = "the newest segment is missing: records were acknowledged behind all others";
            self.recovery.warnings.push(what.to_owned());
        }
        for offset in
            [marks.acked, marks.claimed].map(u64_le::to_native).into_iter().filter(|it| used(*it))
        {
            // Whatever it lay in ended with a page of its own.
            let behind = offset.next_multiple_of(PAGE_BYTES) + PAGE_BYTES;
            self.next_base = self.next_base.max(behind);
        }
    }

    /// Seals what was left open and removes what never had a name.
    pub(crate) fn apply(&mut self, dir: &Path, no_cow: bool) -> Result<(), OpenError> {
        for sealed in &self.unsealed {
            let path = dir.join(segment::file_name(sealed.extent().base));
            let waits = self.seal(dir, &path, sealed, no_cow).map_err(OpenError::io(&path))?;
            planted::pass(Point::RecoverySealed);
            if let Some(error) = waits {
                let cure = volume::cure(&error);
                let warning = format!("{} is not sealed: {error}{cure}", path.display());
                self.recovery.warnings.push(warning);
            }
        }
        for path in &self.leftovers {
            if let Err(error) = fs::remove_file(path) {
                self.recovery.warnings.push(format!("{}: {error}", path.display()));
            }
            planted::pass(Point::LeftoverRemoved);
        }
        segment::sync_dir(dir).map_err(OpenError::io(dir))?;
        if self.suspect {
            let path = salvage::suspect_file(dir);
            fs::remove_file(&path).map_err(OpenError::io(&path))?;
        }
        planted::pass(Point::Recovered);
        Ok(())
    }

    /// Seals one segment: in its place, or where a sync fails, in a fresh file with its bytes. Its
    /// footer alone may wait for room, for the reason that is told: then its records are on the
    /// medium, and it is scanned again at the next start.
    fn seal(
        &self,
        dir: &Path,
        path: &Path,
        sealed: &Sealed,
        no_cow: bool,
    ) -> io::Result<Option<io::Error>> {
        let Sealed { identity, footer } = sealed;
        let file = segment::writing().open(path)?;
        // First the records, which may be in the page cache alone; then their seal.
        if !self.suspect && file.sync_all().is_ok() {
            planted::pass(Point::RecoverySynced);
            match segment::write_footer(&file, identity, footer) {
                Ok(()) => return Ok(None),
                Err(error) if volume::is_no_room(&error) => return Ok(Some(error)),
                Err(_) => {}
            }
        }
        // What memory shows may not be on the medium, and syncing it again would not tell.
        let end = footer.sealed_end.to_native() - identity.extent.base;
        let copy = |fresh: &File| salvage::copy(&file, fresh, end);
        Segment::create_with(dir, *identity, no_cow, copy)?.seal(footer).map(|()| None)
    }
}

/// Reads a segment from front to back, as far as records go.
fn scan(scanned: &Scanned, acked: Option<u64>) -> Footer {
    let extent = scanned.extent();
    let mut tally = Tally::default();
    let (mut offset, mut damaged, mut gaps) = (extent.first(), 0_u32, 0_u32);
    loop {
        let framed = match scanned.find(offset, extent.record_end()) {
            Found::Record(framed) => framed,
            Found::Gap(framed) => {
                gaps = gaps.saturating_add(1);
                framed
            }
            Found::Nothing => break,
        };
        if !scanned.payload_holds(&framed) {
            damaged = damaged.saturating_add(1);
        } else if !framed.is_pad() {
            tally.add(framed.header.received_ns.to_native());
        }
        offset = framed.end;
    }
    let end = harm_behind(scanned, offset, acked).unwrap_or(offset);
    let mut footer = tally.footer(extent.base, end);
    footer.flags = FOOTER_RECOVERED.into();
    footer.damaged = damaged.into();
    footer.gaps = gaps.saturating_add(u32::from(end > offset)).into();
    footer
}

/// Where the harm ends that the records behind `offset` have come to, if there were some.
fn harm_behind(scanned: &Scanned, offset: u64, acked: Option<u64>) -> Option<u64> {
    let record_end = scanned.extent().record_end();
    let acked = acked.map(|acked| acked.min(record_end) / RECORD_ALIGN * RECORD_ALIGN);
    let harmed = scanned.is_harmed_at(offset).then_some(offset + RECORD_ALIGN);
    let cut = scanned.is_cut().then_some(record_end);
    acked.max(harmed).max(cut).filter(|end| *end > offset)
}

/// What a footer says of the records of its segment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) records: u64,
    first_ns: Option<u64>,
    last_ns: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, received_ns: u64) {
        self.records += 1;
        self.first_ns = Some(self.first_ns.map_or(received_ns, |first| first.min(received_ns)));
        self.last_ns = self.last_ns.max(received_ns);
    }

    /// A footer for a segment whose records end at `sealed_end`.
    pub(crate) fn footer(&self, base: u64, sealed_end: u64) -> Footer {
        Footer {
            magic: [0; 8],
            version: FORMAT_VERSION.into(),
            own_bytes: 128.into(),
            crc: 0.into(),
            flags: 0.into(),
            base: base.into(),
            sealed_end: sealed_end.into(),
            records: self.records.into(),
            first_ns: self.first_ns.unwrap_or(0).into(),
            last_ns: self.last_ns.into(),
            sealed_ns: 0.into(),
            damaged: 0.into(),
            gaps: 0.into(),
            reserved: [0; 48],
        }
    }
}
