//! Whether what a lane says of itself is true: every record read, every finding told.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{Finding, Severity, Verified, list};
use crate::format::{Footer, PAGE_BYTES};
use crate::lane::AckLevel;
use crate::mapping::{Mark, MarksMap};
use crate::marks;
use crate::position::Kind;
use crate::recover::Tally;
use crate::salvage;
use crate::scan::{Found, Framed, Scanned};
use crate::segment::{self, Identity, Inspected};
use crate::tail::ReadError;

/// So many findings are told one by one; the others are only counted.
const FINDINGS_MAX: usize = 1000;
/// How often, in bytes, progress is told within a segment.
const PROGRESS_BYTES: u64 = 8 * 1024 * 1024;

/// Reads every record of the lane in `dir` and checks all that can be checked: headers, checksums,
/// positions, footers, the order of segments, the marks. `progress` is told, now and then, how
/// many bytes of how many are done.
pub fn verify(
    dir: impl AsRef<Path>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Verified, ReadError> {
    let dir = dir.as_ref();
    let bases = list(dir)?;
    let marks = marks::open_for_reading(dir)
        .map_err(|error| ReadError::Io { path: dir.to_owned(), error })?;
    let size = |base: &u64| {
        fs::metadata(dir.join(segment::file_name(*base))).map_or(0, |found| found.len())
    };
    let all_bytes = bases.iter().map(size).sum();
    let mut verifier = Verifier { seen: Verified::default(), marks, last: None, unreadable: 0 };
    let mut done_bytes = 0;
    for base in &bases {
        let path = dir.join(segment::file_name(*base));
        let mut told = |bytes: u64| progress(done_bytes + bytes, all_bytes);
        match verifier.segment(&path, *base, &mut told) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(ReadError::Io { path, error }),
        }
        done_bytes += size(base);
        progress(done_bytes, all_bytes);
    }
    verifier.look_at_marks(dir);
    verifier.look_for_leftovers(dir)?;
    Ok(verifier.seen)
}

struct Verifier {
    seen: Verified,
    marks: Option<MarksMap>,
    /// The last segment that could be read, and whether it holds something.
    last: Option<(Identity, bool)>,
    /// Segments that could not be read since then.
    unreadable: u64,
}

/// What one segment turned out to hold.
#[derive(Default)]
struct Walk {
    tally: Tally,
    damaged: Vec<u64>,
    gaps: Vec<(u64, u64)>,
}

impl Verifier {
    fn find(&mut self, severity: Severity, path: &Path, offset: Option<u64>, what: String) {
        self.seen.worst = self.seen.worst.max(Some(severity));
        if self.seen.findings.len() < FINDINGS_MAX {
            self.seen.findings.push(Finding { severity, path: path.to_owned(), offset, what });
        } else {
            self.seen.findings_left_out += 1;
        }
    }

    fn segment(&mut self, path: &Path, base: u64, told: &mut dyn FnMut(u64)) -> io::Result<()> {
        let (file, identity) = match segment::inspect(path, base)? {
            (file, Inspected::Segment(identity)) => (file, identity),
            (_, Inspected::Version(found)) => {
                self.unreadable += 1;
                let what = format!("has format version {found}, which this build does not read");
                self.find(Severity::Blocking, path, None, what);
                return Ok(());
            }
            (_, Inspected::Damaged(what)) => {
                self.unreadable += 1;
                self.find(Severity::Damage, path, None, what.to_owned());
                return Ok(());
            }
        };
        self.seen.segments += 1;
        if let Some(wear) = segment::wear(&file, &identity)? {
            self.find(Severity::Damage, path, None, wear.to_string());
        }
        self.look_at_order(path, &identity);
        let footer = segment::footer(&file, &identity)?;
        let scanned = Scanned::new(&file, identity)?;
        let live = footer.is_none().then(|| self.live_end(&identity)).flatten();
        let limit = footer.as_ref().map(|footer| footer.sealed_end.to_native());
        let limit = limit.or(live).unwrap_or(scanned.extent().record_end());
        let mut walk = self.walk(path, &scanned, limit, told);
        if footer.is_none() && live.is_none() {
            // Behind the last record of a segment that nobody has sealed there is nothing, unless
            // something was published there.
            let behind = walk.gaps.pop_if(|(_, end)| *end == limit);
            if let Some((from, _)) = behind.filter(|(from, _)| scanned.is_harmed_at(*from)) {
                self.seen.gaps += 1;
                let what = "a record that was published here does not hold".to_owned();
                self.find(Severity::Damage, path, Some(from), what);
            }
        }
        self.judge(path, &identity, footer.as_ref(), &walk);
        if footer.is_none() {
            self.look_for_lost_footer(path, &file, &identity, live.is_some())?;
        }
        let holds = walk.tally.records > 0 || !walk.damaged.is_empty() || !walk.gaps.is_empty();
        self.last = Some((identity, holds));
        self.unreadable = 0;
        Ok(())
    }

    /// How far a segment of the epoch that the marks tell of is acknowledged.
    fn live_end(&self, identity: &Identity) -> Option<u64> {
        let (epoch, acked) = marks::acked(self.marks.as_ref()?);
        let live = epoch == u64::from(identity.epoch);
        let end = acked.clamp(identity.extent.first(), identity.extent.record_end());
        live.then_some(end)
    }

    fn look_at_order(&mut self, path: &Path, identity: &Identity) {
        let Some((last, held)) = self.last else { return };
        if last.lane_id != identity.lane_id {
            let what = "belongs to another lane than the segments before it".to_owned();
            self.find(Severity::Blocking, path, None, what);
            return;
        }
        if last.extent.end() > identity.extent.base {
            let what = "begins before the segment in front of it ends".to_owned();
            self.find(Severity::Damage, path, None, what);
        }
        if last.epoch > identity.epoch {
            let what = format!("is of epoch {} behind one of {}", identity.epoch, last.epoch);
            self.find(Severity::Damage, path, None, what);
        }
        let next = last.sequence.saturating_add(u64::from(held)).saturating_add(self.unreadable);
        if let Some(missing @ 1..) = identity.sequence.checked_sub(next) {
            let what = format!("{missing} segments are missing in front of it");
            self.find(Severity::Damage, path, None, what);
        }
    }

    fn walk(
        &mut self,
        path: &Path,
        scanned: &Scanned,
        limit: u64,
        told: &mut dyn FnMut(u64),
    ) -> Walk {
        let extent = scanned.extent();
        let (mut walk, mut offset, mut told_at) = (Walk::default(), extent.first(), extent.base);
        while offset < limit {
            let framed = match scanned.find(offset, limit) {
                Found::Record(framed) => framed,
                Found::Gap(framed) => {
                    walk.gaps.push((offset, framed.start));
                    framed
                }
                Found::Nothing => {
                    walk.gaps.push((offset, limit));
                    break;
                }
            };
            self.count(path, scanned, &framed, &mut walk);
            offset = framed.end;
            if offset - told_at >= PROGRESS_BYTES {
                told_at = offset;
                told(offset - extent.base);
            }
        }
        walk
    }

    fn count(&mut self, path: &Path, scanned: &Scanned, framed: &Framed, walk: &mut Walk) {
        if framed.is_pad() {
            self.seen.pads += 1;
            return;
        }
        if !scanned.payload_holds(framed) {
            walk.damaged.push(framed.start);
            return;
        }
        self.seen.records += 1;
        walk.tally.add(framed.header.received_ns.to_native());
        if framed.is_purged() {
            self.seen.purged += 1;
            let what = if framed.has_signed_key() && scanned.signed_key(framed).is_none() {
                Some("was purged, and the key of its signed bytes does not hold")
            } else if !scanned.is_erased(framed) {
                Some("was purged, and its payload is not erased; purge again")
            } else {
                None
            };
            if let Some(what) = what {
                self.find(Severity::Damage, path, Some(framed.start), what.to_owned());
            }
        }
        if Kind::from_number(framed.header.kind).is_none() {
            let what = format!("a record of kind {}, which is not known", framed.header.kind);
            self.find(Severity::Remains, path, Some(framed.start), what);
        }
    }

    /// What came of a walk, held against what the footer or a crash explains.
    fn judge(&mut self, path: &Path, identity: &Identity, footer: Option<&Footer>, walk: &Walk) {
        let (damaged, gaps) = (walk.damaged.len() as u64, walk.gaps.len() as u64);
        self.seen.damaged += damaged;
        self.seen.gaps += gaps;
        let known = footer.map_or((0, 0), |footer| {
            (u64::from(footer.damaged.to_native()), u64::from(footer.gaps.to_native()))
        });
        let promised = footer.is_none()
            && identity.ack == AckLevel::Synced as u8
            && self.live_end(identity).is_some();
        let explained = match footer {
            Some(_) => damaged <= known.0 && gaps <= known.1,
            None => !promised,
        };
        let severity = if explained { Severity::Remains } else { Severity::Damage };
        for start in &walk.damaged {
            let what = "a record whose payload does not hold its checksum".to_owned();
            self.find(severity, path, Some(*start), what);
        }
        for (from, to) in &walk.gaps {
            let what = format!("{} bytes that are no record", to - from);
            self.find(severity, path, Some(*from), what);
        }
        let Some(footer) = footer.filter(|_| explained) else { return };
        let own = walk.tally.footer(identity.extent.base, footer.sealed_end.to_native());
        let told = (footer.records, footer.first_ns, footer.last_ns);
        if told != (own.records, own.first_ns, own.last_ns) {
            let what = format!(
                "the footer tells of {} records, and {} are there or their times differ",
                footer.records, own.records
            );
            self.find(Severity::Damage, path, None, what);
        }
    }

    /// A segment that nobody has sealed has zeros where its footer goes.
    fn look_for_lost_footer(
        &mut self,
        path: &Path,
        file: &File,
        identity: &Identity,
        live: bool,
    ) -> io::Result<()> {
        let mut bytes = [0; 128];
        if file.metadata()?.len() < identity.extent.bytes {
            // That it was cut short has been told.
            return Ok(());
        }
        file.read_exact_at(&mut bytes, identity.extent.bytes - PAGE_BYTES)?;
        let empty = bytes.iter().all(|byte| *byte == 0);
        // A writer may have sealed it since.
        if !empty && segment::footer(file, identity)?.is_none() {
            let what = "has a footer that does not hold; the next start writes it anew".to_owned();
            self.find(Severity::Damage, path, None, what);
        } else if empty && !live {
            let what = "was not sealed; the next start of a writer does that".to_owned();
            self.find(Severity::Remains, path, None, what);
        }
        Ok(())
    }

    fn look_at_marks(&mut self, dir: &Path) {
        let path = dir.join(marks::MARKS_FILE);
        let Some(marks) = &self.marks else {
            let what = "is missing or does not hold; the next start makes it anew".to_owned();
            return self.find(Severity::Remains, &path, None, what);
        };
        // Lowest first: a writer that goes on meanwhile raises the later ones only.
        let durable = marks.load(Mark::Durable);
        let published = marks.load(Mark::Published);
        let claimed = marks.load(Mark::Claimed);
        let epoch = marks.load(Mark::Epoch);
        if durable > published || published > claimed {
            let what = format!("claimed {claimed}, published {published}, durable {durable}");
            self.find(Severity::Damage, &path, None, what);
        }
        if let Some((last, _)) = self.last
            && epoch < u64::from(last.epoch)
        {
            let what = format!("tells of epoch {epoch} where segments have {}", last.epoch);
            self.find(Severity::Remains, &path, None, what);
        }
    }

    fn look_for_leftovers(&mut self, dir: &Path) -> Result<(), ReadError> {
        let io = |error| ReadError::Io { path: dir.to_owned(), error };
        let suspect = salvage::suspect_file(dir);
        if suspect.exists() {
            let what = "a sync has failed; the next start of a writer saves what memory still has";
            self.find(Severity::Remains, &suspect, None, what.to_owned());
        }
        for entry in fs::read_dir(dir).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if path.extension().is_some_and(|extension| extension == crate::purge::COPY_EXTENSION) {
                let what = "a purge was broken off; run it again, or start a writer".to_owned();
                self.find(Severity::Damage, &path, None, what);
            }
        }
        Ok(())
    }
}
