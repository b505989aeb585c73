//! The generations of a lane at start: found, completed, and what lies behind them read.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay_log::{Kind, Lane, ReadError, Recovered};

use super::block::Words;
use super::files::{Done, add_one};
use super::format::Head;
use super::generation::Generation;
use super::generations::{
    FOLDER, Generations, PIECES, TAIL_BYTES_MAX, discard, make_folder, remove_if_there,
};
use super::outcome::Restored;
use super::table::Table;
use super::write::{self, EXTENSION, FRESH_EXTENSION};

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
            failing: false,
            retry_ns: 0,
            look_ns: 0,
            done: Arc::<Done>::default(),
        };
        generations.find(now_ns).map_err(|source| OpenError::Folder { path: dir, source })?;
        let mut unremembered = generations.fill_holes(table, now_ns)?;
        unremembered += generations.read_tail(table, now_ns)?;
        if unremembered > 0 {
            return Err(OpenError::NoRoom { path: generations.dir, unremembered });
        }
        table.publish(generations.newest_first(), None);
        generations.tell_reach(generations.failing);
        Ok(generations)
    }

    /// Opens what is there and removes what is of no use: leftovers, what does not hold, what
    /// another generation contains, what is past its window, what belongs to another log.
    fn find(&mut self, now_ns: u64) -> io::Result<()> {
        make_folder(&self.dir)?;
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

    /// What the log holds behind the newest generation: in whole blocks to files, and the rest
    /// too if it reaches over much of the log, else into the table. So the files are near the end
    /// of the log after every start, however many crashes came one after another and however much
    /// room each left in the log. Returns how many keys found no room.
    fn read_tail(&mut self, table: &mut Table, now_ns: u64) -> Result<u64, ReadError> {
        let log = Arc::clone(&self.log);
        let mut chunk: Vec<Recovered> = Vec::new();
        let mut chunk_keys = 0;
        let mut unremembered = 0;
        let end = log.recovered_end();
        log.keys(self.covers..end, self.since_ns(now_ns), |found| {
            if found.kind != Kind::Event {
                return;
            }
            // Both keys of a record in one file: what that covers is not read again.
            if chunk_keys >= self.chunk_keys {
                unremembered += self.write_chunk(&chunk, 0, table);
                chunk.clear();
                chunk_keys = 0;
            }
            chunk_keys += found.keys().count();
            chunk.push(found);
        })?;
        if end.saturating_sub(self.covers) <= self.tail_bytes_max / 2 {
            return Ok(unremembered + restore(&chunk, table));
        }
        if chunk.is_empty() {
            self.covers = end;
            return Ok(unremembered);
        }
        Ok(unremembered + self.write_chunk(&chunk, end, table))
    }

    /// Writes a block's worth of records in the order of the log, behind which up to `covers`
    /// there are no others; into the table if that fails. Then what follows says no more of what
    /// is in files than is true without it: another start has to read it again.
    fn write_chunk(&mut self, chunk: &[Recovered], covers: u64, table: &mut Table) -> u64 {
        let to = chunk.iter().map(|found| found.end).max().unwrap_or(self.to);
        let covers = if self.failing { self.covers } else { covers.max(to) };
        let times = chunk.iter().map(|found| found.received_ns);
        let head = Head {
            oldest_ns: times.clone().min().unwrap_or(0),
            newest_ns: times.max().unwrap_or(0),
            ..self.next_head(covers, to)
        };
        let mut keys: Vec<Words> = chunk.iter().flat_map(|of| of.keys()).map(Words::from).collect();
        keys.sort_unstable();
        match self.write(head, keys) {
            Ok(()) => 0,
            Err(error) => {
                tracing::warn!(%error, "event keys are held in memory for now");
                add_one(&self.done.failures);
                self.failing = true;
                restore(chunk, table)
            }
        }
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
}

/// Puts records into the table. Returns how many found no room for the keys of their events: those
/// of signed bytes only watch over them, and never kept an event out.
fn restore(records: &[Recovered], table: &mut Table) -> u64 {
    let mut unremembered = 0;
    for found in records.iter().filter(|found| found.kind == Kind::Event) {
        let mut full = |key| table.restore(key, found.end, found.received_ns) == Restored::Full;
        unremembered += u64::from(full(found.key));
        let _ = found.signed_key.map(full);
    }
    unremembered
}

/// Whether a generation has the name that it was given.
fn named(found: &Generation) -> bool {
    let Head { first, last, .. } = found.head;
    found.path().file_name().is_some_and(|name| *name == *write::file_name(first, last))
}
