//! The generations of one lane over their life: written, merged, expired, mended; found at start.
//!
//! One background thread does all of this ([`Table::tend`](super::Table::tend)); receivers see
//! the outcome as one list that is replaced whole.
//!
//! # What a generation may say
//!
//! A key in a file is answered as a duplicate for a window, so a block is written only once the
//! log has all its records on the medium: a record that a loss of power takes back must not leave
//! its key behind. Blocks are written in the order in which they were sealed, each with the
//! offset up to which every event of the lane is now on the disk as a key. Only what lies behind
//! that is read from the log at start, and a block is sealed early, full or not, rather than let
//! that grow beyond [`TAIL_BYTES_MAX`]. A start that finds more than half of it writes what it read
//! at once. Where the disk cannot keep up even so, new events are refused beyond [`TAILS_MAX`] of
//! it; not while a file cannot be written or is being mended, since what a start takes matters
//! less than what senders are told then.
//!
//! # What is lost is made again
//!
//! Blocks are numbered as they are written, and a generation knows the first and the last number
//! in it. A number that is in no file, or in one that does not hold, is a hole: the log is read
//! between the offsets that the neighbours name, and the generation is made again. The log is the
//! truth; only where retention has removed its records already is a damaged file salvaged page by
//! page, and the loss is told.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use forebay_log::planted::{self, Bug, Point};
use forebay_log::{Kind, Lane};

use super::block::Words;
use super::files::{Done, add_one};
use super::format::Head;
use super::generation::{Generation, Merged};
use super::merge::{Size, to_merge};
use super::table::Table;
use super::write;

/// The folder of the generations, in that of their lane.
pub(super) const FOLDER: &str = "dedupe";
/// The folder of what is put together to one generation, in that.
pub(super) const PIECES: &str = "pieces";
/// A merge looks for what was sealed meanwhile as often as this many keys of its own; in tests,
/// which have fewer, often enough to find something.
const LOOK_KEYS: u64 = if cfg!(test) { 1 << 5 } else { 1 << 14 };
/// How long a merge or a mending that failed is not tried again: it may have read and written much.
const RETRY_NS: u64 = 5_000_000_000;
/// How often the folder of the log is looked at for what retention has removed.
const LOOK_NS: u64 = 5_000_000_000;
/// So much of the log may gather behind the newest generation until the block is sealed early.
/// In tests, which have small segments, a few of those.
pub(super) const TAIL_BYTES_MAX: u64 = if cfg!(test) { 1 << 18 } else { 128 << 20 };
/// So many times that, and new events are refused until the files have caught up. Bytes that the
/// log itself has not synced do not count: no file may have their keys yet.
pub(super) const TAILS_MAX: u64 = 2;

/// The generations of a lane.
#[derive(Debug)]
pub(super) struct Generations {
    pub(super) dir: PathBuf,
    pub(super) log: Arc<Lane>,
    /// Oldest first.
    pub(super) live: Vec<Arc<Generation>>,
    pub(super) next: u64,
    pub(super) covers: u64,
    pub(super) to: u64,
    pub(super) window_ns: u64,
    /// Keys of one block: what is held in memory at once.
    pub(super) chunk_keys: usize,
    pub(super) tail_bytes_max: u64,
    /// The last write failed, which was told.
    pub(super) failing: bool,
    /// Before this nothing is merged or mended.
    pub(super) retry_ns: u64,
    /// When the folder of the log is looked at next.
    pub(super) look_ns: u64,
    pub(super) done: Arc<Done>,
}

impl Generations {
    pub(super) fn newest_first(&self) -> Vec<Arc<Generation>> {
        self.live.iter().rev().cloned().collect()
    }

    pub(super) fn since_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.window_ns)
    }

    pub(super) fn next_head(&self, covers: u64, to: u64) -> Head {
        let covers = covers.max(self.covers);
        let too_far = planted::has(Bug::CoversTooMuch);
        let covers = if too_far { self.log.watermarks().published } else { covers };
        Head {
            lane_id: self.log.id(),
            first: self.next,
            last: self.next,
            from: self.covers,
            previous_to: self.to,
            covers,
            to: to.max(self.to).max(covers),
            oldest_ns: 0,
            newest_ns: 0,
            keys: 0,
        }
    }

    /// Writes the next generation.
    pub(super) fn write(&mut self, head: Head, keys: Vec<Words>) -> io::Result<()> {
        let keys_max = keys.len() as u64;
        let path = write::write(&self.dir, head, keys_max, once_each(keys))?;
        self.live.push(Arc::new(Generation::open(&path)?));
        planted::pass(Point::GenerationOpened);
        (self.next, self.covers, self.to) = (head.last + 1, head.covers, head.to);
        Ok(())
    }

    /// Does what is due: writes what is sealed, drops what is past its window, mends what is
    /// damaged, merges. Each step leaves a whole list behind.
    pub(super) fn tend(&mut self, table: &Table, now_ns: u64, closing: &AtomicBool) {
        let is_closing = || closing.load(Ordering::Relaxed); // Relaxed: a flag.
        while !is_closing() && self.gather_tail(table, now_ns) {}
        self.expire(table, now_ns);
        for generation in &self.live {
            generation.check_guides();
        }
        if now_ns >= self.retry_ns && !is_closing() {
            self.mend(table, now_ns);
            while !is_closing() && self.merge(table, now_ns, closing) {}
        }
        if now_ns >= self.look_ns {
            self.look_ns = now_ns.saturating_add(LOOK_NS);
            self.count_unbacked();
        }
    }

    /// Seals what has gathered behind the newest generation, if that is much, and writes the oldest
    /// block that is sealed; false if none was written.
    fn gather_tail(&mut self, table: &Table, now_ns: u64) -> bool {
        let published = self.log.watermarks().published;
        if published.saturating_sub(self.covers) > self.tail_bytes_max && !table.has_sealed() {
            table.seal_active(now_ns);
        }
        self.write_sealed(table, now_ns)
    }

    /// Writes the oldest sealed block; false if there is none, or not yet, or the disk refuses.
    fn write_sealed(&mut self, table: &Table, now_ns: u64) -> bool {
        let Some(block) = table.oldest_sealed() else { return false };
        let Some(settled) = block.settled() else { return false };
        if self.log.watermarks().durable < settled.to {
            return false;
        }
        let head = Head {
            oldest_ns: block.opened_ns(),
            newest_ns: block.sealed_ns().unwrap_or(now_ns).max(now_ns),
            ..self.next_head(block.covers(), settled.to)
        };
        match self.write(head, settled.keys) {
            Ok(()) => {
                self.failing = false;
                self.tell_reach(false);
                table.publish(self.newest_first(), Some(&block));
                planted::pass(Point::GenerationPublished);
                true
            }
            Err(error) => {
                add_one(&self.done.failures);
                self.tell_reach(true);
                // Tried again ten times a second; told once.
                if !std::mem::replace(&mut self.failing, true) {
                    let dir = self.dir.display();
                    tracing::warn!(%dir, %error, "event keys are not written; they stay in memory");
                }
                false
            }
        }
    }

    /// Tells the table how far the generations reach, and whether it must wait for them.
    pub(super) fn tell_reach(&self, unbounded: bool) {
        // Relaxed: each is a lone number; a bound that is late by a look is none the worse.
        self.done.covers.store(self.covers, Ordering::Relaxed);
        self.done.unbounded.store(unbounded, Ordering::Relaxed);
    }

    fn expire(&mut self, table: &Table, now_ns: u64) {
        let window_ns = self.window_ns;
        let expired = |of: &Generation| of.head.newest_ns.saturating_add(window_ns) <= now_ns;
        let old: Vec<_> = self.live.extract_if(.., |of| expired(of)).collect();
        if !old.is_empty() {
            table.publish(self.newest_first(), None);
            discard_all(&old);
        }
    }

    /// Makes a damaged generation again, from the log and from what holds of it.
    fn mend(&mut self, table: &Table, now_ns: u64) {
        let Some(index) = self.live.iter().position(|live| live.damaged()) else { return };
        let Some(damaged) = self.live.get(index).map(Arc::clone) else { return };
        let path = damaged.path().display().to_string();
        self.tell_reach(true);
        let rebuilt = self.rebuild(damaged.head, Some(&damaged), now_ns);
        self.tell_reach(self.failing);
        match rebuilt {
            Ok(Some(made)) => {
                tracing::warn!(path, keys = made.head.keys, "damaged event keys were made again");
                add_one(&self.done.rebuilt);
                if let Some(place) = self.live.get_mut(index) {
                    *place = made;
                }
                table.publish(self.newest_first(), None);
            }
            Ok(None) => {}
            Err(error) => {
                add_one(&self.done.failures);
                self.retry_ns = now_ns.saturating_add(RETRY_NS);
                tracing::warn!(path, %error, "damaged event keys could not be made again yet");
            }
        }
    }

    /// Makes the generation `head` from the log, and from what holds of `damaged`.
    pub(super) fn rebuild(
        &mut self,
        head: Head,
        damaged: Option<&Generation>,
        now_ns: u64,
    ) -> io::Result<Option<Arc<Generation>>> {
        let first = self.log.first_offset()?;
        if damaged.is_some() && first > head.from {
            add_one(&self.done.lost);
            let path = self.dir.display();
            tracing::warn!(%path, "retention has removed records whose event keys are damaged");
        }
        let pieces = self.dir.join(PIECES);
        make_folder(&pieces)?;
        let made = self.gather(head, damaged, &pieces, now_ns);
        remove_if_there(fs::remove_dir_all(&pieces))?;
        made.map(Some)
    }

    /// Reads the records of `head` in pieces that fit into memory, each sorted into a file of its
    /// own, then puts them together.
    fn gather(
        &self,
        mut head: Head,
        damaged: Option<&Generation>,
        pieces: &Path,
        now_ns: u64,
    ) -> io::Result<Arc<Generation>> {
        let mut gathered = Gathered { pieces, head, made: Vec::new(), keys: Vec::new() };
        let mut outcome = Ok(());
        let read = self.log.keys(head.from..head.to, self.since_ns(now_ns), |found| {
            if found.kind != Kind::Event || outcome.is_err() {
                return;
            }
            head.oldest_ns = head.oldest_ns.min(found.received_ns);
            head.newest_ns = head.newest_ns.max(found.received_ns);
            gathered.keys.extend(found.keys().map(Words::from));
            if gathered.keys.len() >= self.chunk_keys {
                outcome = gathered.piece();
            }
        });
        read.map_err(io::Error::other)?;
        outcome?;
        gathered.piece()?;
        let opened = gathered.made.iter().map(|path| Generation::open(path));
        let opened = opened.collect::<io::Result<Vec<_>>>()?;
        let keys_max = opened.iter().chain(damaged).map(|piece| piece.head.keys).sum();
        let rows = opened.iter().map(|piece| piece.keys(false));
        let rows = rows.chain(damaged.map(|damaged| damaged.keys(true)));
        let path = write::write(&self.dir, head, keys_max, Merged::new(rows))?;
        Ok(Arc::new(Generation::open(&path)?))
    }

    /// Merges what ought to be merged; false if nothing ought to.
    fn merge(&mut self, table: &Table, now_ns: u64, closing: &AtomicBool) -> bool {
        let sizes: Vec<Size> = self.live.iter().map(|live| Size::of(&live.head)).collect();
        let Some(run) = to_merge(&sizes, self.window_ns) else { return false };
        let Some(old) = self.live.get(run.clone()).map(<[_]>::to_vec) else { return false };
        let (Some(first), Some(last)) = (old.first(), old.last()) else { return false };
        let head = Head {
            last: last.head.last,
            covers: last.head.covers,
            to: last.head.to,
            oldest_ns: old.iter().map(|old| old.head.oldest_ns).min().unwrap_or(0),
            newest_ns: old.iter().map(|old| old.head.newest_ns).max().unwrap_or(0),
            ..first.head
        };
        let keys_max = old.iter().map(|old| old.head.keys).sum();
        // A large merge takes seconds. Whoever stops this program does not wait for them, and a
        // start should not have to read what gathers in them: it is written in between, behind
        // the row that is merged, whose places stay.
        let mut merged = 0_u64;
        let dir = self.dir.clone();
        let keys = Merged::new(old.iter().map(|old| old.keys(false))).map(|key| {
            merged += 1;
            if closing.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            if merged.is_multiple_of(LOOK_KEYS) {
                self.gather_tail(table, now_ns);
            }
            key
        });
        let made = write::write(&dir, head, keys_max, keys);
        match made.and_then(|path| Generation::open(&path)) {
            Ok(made) => {
                made.check_guides();
                self.live.splice(run, [Arc::new(made)]);
                table.publish(self.newest_first(), None);
                planted::pass(Point::MergePublished);
                discard_all(&old);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => false,
            // Damage is mended next.
            Err(_) if old.iter().any(|old| old.damaged()) => false,
            Err(error) => {
                add_one(&self.done.failures);
                self.retry_ns = now_ns.saturating_add(RETRY_NS);
                let dir = self.dir.display();
                tracing::warn!(%dir, %error, "generations of event keys are not merged yet");
                false
            }
        }
    }

    /// Generations whose records retention has removed: they alone know those events.
    fn count_unbacked(&mut self) {
        if let Ok(first) = self.log.first_offset() {
            let unbacked = self.live.iter().filter(|live| live.head.from < first);
            let unbacked = unbacked.filter(|live| live.head.keys > 0).count() as u64;
            self.done.unbacked.store(unbacked, Ordering::Relaxed);
        }
    }
}

/// Keys on their way into one generation.
struct Gathered<'p> {
    pieces: &'p Path,
    head: Head,
    made: Vec<PathBuf>,
    keys: Vec<Words>,
}

impl Gathered<'_> {
    fn piece(&mut self) -> io::Result<()> {
        let mut keys = std::mem::take(&mut self.keys);
        keys.sort_unstable();
        let number = self.made.len() as u64;
        let head = Head { first: number, last: number, ..self.head };
        let keys_max = keys.len() as u64;
        self.made.push(write::write(self.pieces, head, keys_max, once_each(keys))?);
        Ok(())
    }
}

/// Ascending keys, each once.
fn once_each(mut keys: Vec<Words>) -> impl Iterator<Item = io::Result<Words>> {
    keys.dedup();
    keys.into_iter().map(Ok)
}

/// A folder for the owner and the group.
pub(super) fn make_folder(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o750).create(dir)
}

/// Removes a file that is of no use. If it stays it is found again at the next start.
pub(super) fn discard(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "not removed");
    }
}

fn discard_all(old: &[Arc<Generation>]) {
    for old in old {
        discard(old.path());
    }
}

pub(super) fn remove_if_there(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
