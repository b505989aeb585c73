//! The generations of a lane as its table holds them: one thread at a time works on them, and
//! what it did is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use forebay_log::Lane;

use super::generation::Generation;
use super::generations::{Generations, TAIL_BYTES_MAX, TAILS_MAX};
use super::outcome::FileStats;
use super::reopen::OpenError;
use super::table::Table;

/// The generations as the table holds them: worked on by one thread at a time.
pub(super) struct Files {
    #[expect(
        clippy::disallowed_types,
        reason = "taken by the background thread, never by a request"
    )]
    generations: std::sync::Mutex<Generations>,
    log: Arc<Lane>,
    done: Arc<Done>,
    closing: AtomicBool,
    /// Bytes of the log without a key in a file, from which on no more should come.
    behind_max: AtomicU64,
}

/// What was counted. Written by whoever works on the generations, read by a scrape: all of it
/// Relaxed, since each is a lone number.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) rebuilt: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) unbacked: AtomicU64,
    /// Up to which offset of the lane everything is in files.
    pub(super) covers: AtomicU64,
    /// The files cannot catch up now, whatever lies behind them.
    pub(super) unbounded: AtomicBool,
}

impl Files {
    pub(super) fn open(log: &Arc<Lane>, table: &mut Table, now_ns: u64) -> Result<Self, OpenError> {
        let generations = Generations::open(log, table, now_ns)?;
        let done = Arc::clone(&generations.done);
        #[expect(clippy::disallowed_types, reason = "as in the struct")]
        let generations = std::sync::Mutex::new(generations);
        let (log, closing) = (Arc::clone(log), AtomicBool::new(false));
        let behind_max = AtomicU64::new(TAILS_MAX * TAIL_BYTES_MAX);
        Ok(Self { generations, log, done, closing, behind_max })
    }

    /// How far the log is published.
    pub(super) fn published(&self) -> u64 {
        self.log.watermarks().published
    }

    /// How far the log is on the medium.
    pub(super) fn durable(&self) -> u64 {
        self.log.watermarks().durable
    }

    /// Whether so much of what is on the medium has no key in a file that no more should come.
    pub(super) fn are_far_behind(&self) -> bool {
        let Done { covers, unbounded, .. } = &*self.done;
        // Relaxed: see `tell_reach`.
        let bounded = !unbounded.load(Ordering::Relaxed) && !self.closing.load(Ordering::Relaxed);
        let behind = self.durable().saturating_sub(covers.load(Ordering::Relaxed));
        bounded && behind > self.behind_max.load(Ordering::Relaxed)
    }

    /// Does what is due, unless another thread is at it or the end has come.
    pub(super) fn tend(&self, table: &Table, now_ns: u64) {
        if let Ok(mut generations) = self.generations.try_lock() {
            generations.tend(table, now_ns, &self.closing);
        }
    }

    #[cfg(all(test, not(forebay_loom)))]
    pub(super) fn set_tail_bytes_max(&self, bytes: u64) {
        self.generations.lock().expect("no panic").tail_bytes_max = bytes;
        self.behind_max.store(TAILS_MAX * bytes, Ordering::Relaxed);
    }

    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed); // Relaxed: a flag.
    }

    pub(super) fn stats(&self, written: &[Arc<Generation>]) -> FileStats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        FileStats {
            generations: written.len() as u64,
            keys: written.iter().map(|written| written.head.keys).sum(),
            guide_bytes: written.iter().map(|written| written.guide_bytes()).sum(),
            unbacked: read(&self.done.unbacked),
            rebuilt: read(&self.done.rebuilt),
            lost: read(&self.done.lost),
            failures: read(&self.done.failures),
        }
    }
}

/// Counts one more.
pub(super) fn add_one(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}
