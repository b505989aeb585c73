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
//! that grow beyond [`TAIL_BYTES_MAX`].
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
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use forebay_log::{Kind, Lane, ReadError, Recovered};

use super::block::Words;
use super::files::{Done, add_one};
use super::format::Head;
use super::generation::{Generation, Merged};
use super::merge::{Size, to_merge};
use super::table::{Restored, Table};
use super::write::{self, EXTENSION, FRESH_EXTENSION};

/// The folder of the generations, in that of their lane.
const FOLDER: &str = "dedupe";
/// The folder of what is put together to one generation, in that.
const PIECES: &str = "pieces";
/// What a start has to read of the log at most, and a block more.
const TAIL_BYTES_MAX: u64 = 256 << 20;

/// Why the memory of a lane cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder of the generations cannot be used.
    #[error("cannot use {}, where event keys are kept: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// Keys could neither be written to files nor held in memory.
    #[error(
        "{unremembered} events of dedupe_window find no room in dedupe_capacity, and their keys \
         cannot be written to {}: make room on that disk, or raise dedupe_capacity",
        path.display()
    )]
    NoRoom {
        /// The folder of the generations.
        path: PathBuf,
        /// Events that would have been forgotten.
        unremembered: u64,
    },
}

/// The generations of a lane.
#[derive(Debug)]
pub(super) struct Generations {
    dir: PathBuf,
    log: Arc<Lane>,
    /// Oldest first.
    live: Vec<Arc<Generation>>,
    next: u64,
    covers: u64,
    to: u64,
    window_ns: u64,
    /// Keys of one block: what is held in memory at once.
    chunk_keys: usize,
    pub(super) tail_bytes_max: u64,
    pub(super) done: Arc<Done>,
}

impl Generations {
    /// Finds the generations of a lane, makes again what is missing, and puts into `table` what
    /// the log holds behind them.
    pub(super) fn open(log: &Arc<Lane>, table: &mut Table, now_ns: u64) -> Result<Self, OpenError> {
        let dir = log.dir().join(FOLDER);
        let mut generations = Self {
            dir: dir.clone(),
            log: Arc::clone(log),
            live: Vec::new(),
            next: 0,
            covers: 0,
            to: 0,
            window_ns: table.window_ns(),
            chunk_keys: table.block_keys(),
            tail_bytes_max: TAIL_BYTES_MAX,
            done: Arc::default(),
        };
        generations.find(now_ns).map_err(|source| OpenError::Folder { path: dir, source })?;
        let mut unremembered = generations.fill_holes(table, now_ns)?;
        unremembered += generations.read_tail(table, now_ns)?;
        if unremembered > 0 {
            return Err(OpenError::NoRoom { path: generations.dir, unremembered });
        }
        table.publish(generations.newest_first(), None);
        Ok(generations)
    }

    fn newest_first(&self) -> Vec<Arc<Generation>> {
        self.live.iter().rev().cloned().collect()
    }

    fn since_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.window_ns)
    }

    /// Opens what is there and removes what is of no use: leftovers, what does not hold, what
    /// another generation contains, what is past its window, what belongs to another log.
    fn find(&mut self, now_ns: u64) -> io::Result<()> {
        forebay_dir(&self.dir)?;
        remove_if_there(fs::remove_dir_all(self.dir.join(PIECES)))?;
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let has = |extension| path.extension().is_some_and(|found| found == extension);
            if has(FRESH_EXTENSION) {
                fs::remove_file(&path)?;
            } else if has(EXTENSION) {
                self.take(&path);
            }
        }
        // The longest first where two begin alike: the second is then contained in the first.
        self.live.sort_by_key(|found| (found.head.first, u64::MAX - found.head.last));
        let mut next = 0;
        for found in std::mem::take(&mut self.live) {
            let Head { first, last, newest_ns, .. } = found.head;
            let expired = newest_ns.saturating_add(self.window_ns) <= now_ns;
            self.next = self.next.max(last + 1);
            self.covers = self.covers.max(found.head.covers);
            self.to = self.to.max(found.head.to);
            if first < next || expired {
                remove_if_there(fs::remove_file(found.path()))?;
            } else {
                next = last + 1;
                self.live.push(found);
            }
        }
        Ok(())
    }

    fn take(&mut self, path: &Path) {
        match Generation::open(path) {
            Ok(found) if found.head.lane_id == self.log.id() && named(&found) => {
                self.live.push(Arc::new(found));
            }
            Ok(_) => {
                let shown = path.display();
                tracing::warn!(path = %shown, "event keys of another log, or a copy, are removed");
                discard(path);
            }
            Err(error) => {
                let shown = path.display();
                tracing::warn!(path = %shown, %error, "event keys do not hold; read from the log");
                add_one(&self.done.rebuilt);
                discard(path);
            }
        }
    }

    /// Makes again what is missing before and between the generations. Returns how many keys
    /// found no room.
    fn fill_holes(&mut self, table: &mut Table, now_ns: u64) -> Result<u64, OpenError> {
        let mut unremembered = 0;
        let mut index = 0;
        while let Some(after) = self.live.get(index).map(|found| found.head) {
            let before = index.checked_sub(1).and_then(|before| self.live.get(before));
            let before = before.map(|found| found.head);
            let first = before.map_or(0, |before| before.last + 1);
            if first == after.first {
                index += 1;
                continue;
            }
            let hole = Head {
                first,
                last: after.first - 1,
                from: before.map_or(0, |before| before.covers),
                previous_to: before.map_or(0, |before| before.to),
                covers: after.from,
                to: after.previous_to,
                // Those that expired leave a hole too, in which no key is found.
                oldest_ns: before.map_or(u64::MAX, |before| before.newest_ns),
                newest_ns: before.map_or(0, |before| before.newest_ns),
                ..after
            };
            match self.rebuild(hole, None, now_ns) {
                Ok(Some(made)) if before.is_some() || made.head.keys > 0 => {
                    tracing::warn!(keys = made.head.keys, "event keys were read from the log");
                    self.live.insert(index, made);
                    index += 1;
                }
                Ok(made) => {
                    if let Some(made) = made {
                        discard(made.path());
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a generation of event keys is held in memory instead");
                    add_one(&self.done.failures);
                    unremembered += self.remember(hole.from..hole.to, table, now_ns)?;
                }
            }
            index += 1;
        }
        Ok(unremembered)
    }

    /// What the log holds behind the newest generation: in whole blocks to files, the rest into
    /// the table. Returns how many keys found no room.
    fn read_tail(&mut self, table: &mut Table, now_ns: u64) -> Result<u64, ReadError> {
        let log = Arc::clone(&self.log);
        let mut chunk: Vec<Recovered> = Vec::new();
        let mut unremembered = 0;
        let range = self.covers..log.recovered_end();
        log.keys(range, self.since_ns(now_ns), |found| {
            if found.kind != Kind::Event {
                return;
            }
            if chunk.len() == self.chunk_keys {
                unremembered += self.write_chunk(&chunk, table);
                chunk.clear();
            }
            chunk.push(found);
        })?;
        Ok(unremembered + restore(&chunk, table))
    }

    /// Writes a block's worth of records in the order of the log; into the table if that fails.
    fn write_chunk(&mut self, chunk: &[Recovered], table: &mut Table) -> u64 {
        let to = chunk.iter().map(|found| found.end).max().unwrap_or(self.to);
        let times = chunk.iter().map(|found| found.received_ns);
        let head = Head {
            oldest_ns: times.clone().min().unwrap_or(0),
            newest_ns: times.max().unwrap_or(0),
            ..self.next_head(to, to)
        };
        let mut keys: Vec<Words> = chunk.iter().map(|found| Words::from(found.key)).collect();
        keys.sort_unstable();
        match self.write(head, keys) {
            Ok(()) => 0,
            Err(error) => {
                tracing::warn!(%error, "event keys are held in memory for now");
                add_one(&self.done.failures);
                restore(chunk, table)
            }
        }
    }

    fn next_head(&self, covers: u64, to: u64) -> Head {
        let covers = covers.max(self.covers);
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
    fn write(&mut self, head: Head, keys: Vec<Words>) -> io::Result<()> {
        let keys_max = keys.len() as u64;
        let path = write::write(&self.dir, head, keys_max, once_each(keys))?;
        self.live.push(Arc::new(Generation::open(&path)?));
        (self.next, self.covers, self.to) = (head.last + 1, head.covers, head.to);
        Ok(())
    }

    /// Puts a range of the log into the table. Returns how many keys found no room.
    fn remember(
        &self,
        range: Range<u64>,
        table: &mut Table,
        now_ns: u64,
    ) -> Result<u64, ReadError> {
        let mut unremembered = 0;
        self.log.keys(range, self.since_ns(now_ns), |found| {
            unremembered += restore(&[found], table);
        })?;
        Ok(unremembered)
    }

    /// Does what is due: writes what is sealed, drops what is past its window, mends what is
    /// damaged, merges. Each step leaves a whole list behind.
    pub(super) fn tend(&mut self, table: &Table, now_ns: u64, closing: &AtomicBool) {
        let published = self.log.watermarks().published;
        if published.saturating_sub(self.covers) > self.tail_bytes_max && !table.has_sealed() {
            table.seal_active(now_ns);
        }
        let is_closing = || closing.load(Ordering::Relaxed); // Relaxed: a flag.
        while !is_closing() && self.write_sealed(table, now_ns) {}
        self.expire(table, now_ns);
        for generation in &self.live {
            generation.check_guides();
        }
        if !is_closing() {
            self.mend(table, now_ns);
        }
        while !is_closing() && self.merge(table, closing) {}
        self.count_unbacked();
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
                table.publish(self.newest_first(), Some(&block));
                true
            }
            Err(error) => {
                add_one(&self.done.failures);
                let dir = self.dir.display();
                tracing::warn!(%dir, %error, "event keys are not written; they stay in memory");
                false
            }
        }
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
        match self.rebuild(damaged.head, Some(&damaged), now_ns) {
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
                tracing::warn!(path, %error, "damaged event keys could not be made again yet");
            }
        }
    }

    /// Makes the generation `head` from the log, and from what holds of `damaged`.
    fn rebuild(
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
        forebay_dir(&pieces)?;
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
            gathered.keys.push(Words::from(found.key));
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
    fn merge(&mut self, table: &Table, closing: &AtomicBool) -> bool {
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
        // A large merge takes seconds, which whoever stops this program does not wait for.
        let keys = Merged::new(old.iter().map(|old| old.keys(false))).map(|key| {
            let stop = closing.load(Ordering::Relaxed);
            if stop { Err(io::ErrorKind::Interrupted.into()) } else { key }
        });
        let made = write::write(&self.dir, head, keys_max, keys);
        match made.and_then(|path| Generation::open(&path)) {
            Ok(made) => {
                made.check_guides();
                self.live.splice(run, [Arc::new(made)]);
                table.publish(self.newest_first(), None);
                discard_all(&old);
                true
            }
            Err(error) => {
                add_one(&self.done.failures);
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

/// Puts records into the table. Returns how many found no room.
fn restore(records: &[Recovered], table: &mut Table) -> u64 {
    let mut unremembered = 0;
    for found in records.iter().filter(|found| found.kind == Kind::Event) {
        if table.restore(found.key, found.end, found.received_ns) == Restored::Full {
            unremembered += 1;
        }
    }
    unremembered
}

/// Whether a generation has the name that it was given.
fn named(found: &Generation) -> bool {
    let Head { first, last, .. } = found.head;
    found.path().file_name().is_some_and(|name| *name == *write::file_name(first, last))
}

/// A folder for the owner and the group.
fn forebay_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o750).create(dir)
}

/// Removes a file that is of no use. If it stays it is found again at the next start.
fn discard(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "not removed");
    }
}

fn discard_all(old: &[Arc<Generation>]) {
    for old in old {
        discard(old.path());
    }
}

fn remove_if_there(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
