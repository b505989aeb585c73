//! The list of blocks: reserving across them, rotation, retirement, rebuild.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use forebay_log::planted::{self, Bug, Point};
use forebay_log::{Key, Lane};

use super::atomic::{AtomicBool, AtomicU64, Loaded, Ordering, Published, fence};
use super::block::{Block, Claim, Held, Shape, Words};
use super::files::Files;
use super::generation::{Found, Generation};
use super::list::{List, SEALED_MAX, SEALED_WHOLE};
use super::outcome::{Outcome, Restored, Stats};
use super::reopen::OpenError;
use super::spares::Spares;

/// The spare is made once the active block is filled to one part in this many.
const SPARE_SHARE: usize = 4;
/// At load 0.6 the chance of a probe this long is below 10^-20 in a block of ten million keys.
const PROBE_MAX: usize = 512;

/// How much a table remembers and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Keys that memory holds at most. About 40 bytes each, taken as they come, a seventh at a
    /// time or less. With generations on disk ([`Table::open`]) two sevenths are in use at most, and
    /// the rest is for a disk that does not keep up; without, this is what fits into any one window.
    pub capacity: usize,
    /// How long a key is remembered at least.
    pub window: Duration,
}

/// The memory of one lane.
pub struct Table {
    list: Published<List>,
    spares: Spares,
    /// Somebody is making a spare.
    making: AtomicBool,
    refused: AtomicU64,
    /// The files are far behind: no new keys for now.
    waits: AtomicBool,
    files: Option<Files>,
    capacity: usize,
    window_ns: u64,
    started_ns: u64,
    /// The latest arrival among the restored keys; the log's order is not quite that of arrival.
    restored_ns: u64,
}

/// What came of an attempt to make room.
enum Rotation {
    /// There is another active block.
    Done,
    /// Another thread is making the block that is missing.
    Busy,
    /// What the sealed blocks hold is all still inside the window, and as much as may be held.
    Full,
}

impl Table {
    /// An empty table whose first block is ready. All times given to it come from one clock that
    /// never steps: the wall clock at start plus monotonic time since. A step forward would
    /// retire keys too early.
    pub fn new(options: Options, now_ns: u64) -> Self {
        let keys_max = options.capacity.div_ceil(SEALED_WHOLE).max(1);
        // Five slots for three keys: load 0.6.
        let slots = keys_max.saturating_mul(5).div_ceil(3);
        Self::with_shape(options, Shape { keys_max, slots, probe_max: PROBE_MAX }, now_ns)
    }

    pub(super) fn with_shape(options: Options, shape: Shape, now_ns: u64) -> Self {
        let active = Arc::new(Block::new(shape));
        active.open(now_ns);
        Self {
            list: Published::new(List {
                active,
                sealed: Vec::new(),
                written: Arc::from([]),
                spare: None,
                retired: Vec::new(),
            }),
            spares: Spares::new(shape),
            making: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            waits: AtomicBool::new(false),
            files: None,
            capacity: options.capacity,
            window_ns: u64::try_from(options.window.as_nanos()).unwrap_or(u64::MAX),
            started_ns: now_ns,
            restored_ns: 0,
        }
    }

    /// Asks for the right to append the event with this key.
    pub fn reserve(&self, key: Key, now_ns: u64) -> Outcome {
        let words = Words::from(key);
        loop {
            let list = self.list.load();
            if let Some(held) = list.find_sealed(words) {
                return told(held);
            }
            match list.find_written(words) {
                Found::No => {}
                Found::Yes { from, to } => return self.told_by_file(from, to),
                Found::Unknown => return Outcome::Pending,
            }
            // Relaxed: a bound that is late by a request is none the worse.
            if self.waits.load(Ordering::Relaxed) {
                // Without a claim: one that is given up would keep its slot.
                return list.active.find(words).map_or_else(|| self.refuse(), told);
            }
            match list.active.claim(words) {
                Claim::Held(held) => return told(held),
                Claim::Won(index) => {
                    // SeqCst: pairs with the fence in `find_sealed`; either that one sees this
                    // claim in a sealed block, or the next line sees the seal.
                    fence(Ordering::SeqCst);
                    if list.active.sealed_ns().is_none() || planted::has(Bug::SealUnseen) {
                        planted::pass(Point::Reserved);
                        return Outcome::Reserved(Reservation { list, index, stored: false });
                    }
                    list.active.vacate(index);
                }
                Claim::NoRoom if list.active.sealed_ns().is_none() => self.spares.filled(),
                Claim::NoRoom => {}
            }
            match self.rotate(&list.active, now_ns) {
                Rotation::Done => {}
                Rotation::Busy => return Outcome::Pending,
                Rotation::Full => return self.refuse(),
            }
        }
    }

    /// A file knows between which offsets a record ends. All that it has was on the medium before
    /// it was written, so nobody waits for more than that.
    fn told_by_file(&self, from: u64, to: u64) -> Outcome {
        let end = self.files.as_ref().map_or(to, |files| to.min(files.durable()));
        Outcome::Seen { first: from.saturating_add(1).min(end), end }
    }

    #[cold]
    fn refuse(&self) -> Outcome {
        self.refused.fetch_add(1, Ordering::Relaxed); // Relaxed: a lone count.
        Outcome::Full
    }

    /// Puts back the key of an event (not of a later delivery) found in the log, in the order of
    /// the log, before anyone reserves.
    ///
    /// A key that stands in an older block already is stored again: the log holds an event twice
    /// where the second came after the window of the first, and the second's window counts.
    pub fn restore(&mut self, key: Key, end: u64, received_ns: u64) -> Restored {
        if received_ns.saturating_add(self.window_ns) <= self.started_ns {
            return Restored::Old;
        }
        self.restored_ns = self.restored_ns.max(received_ns);
        loop {
            let active = Arc::clone(&self.list.load().active);
            match active.claim(Words::from(key)) {
                Claim::Won(index) => {
                    active.open(active.opened_ns().min(received_ns));
                    active.store(index, end);
                    return Restored::Stored;
                }
                Claim::Held(_) => return Restored::Known,
                Claim::NoRoom => {}
            }
            if let Rotation::Full = self.rotate(&active, self.restored_ns) {
                return Restored::Full;
            }
        }
    }

    /// Retires, rotates by age, makes the spare before it is needed and the filters of what was
    /// sealed. From a background
    /// thread, every 100 ms or so; keys live longer if it is called less, never shorter.
    pub fn prepare(&self, now_ns: u64) {
        self.cover();
        let waits = self.files.as_ref().is_some_and(Files::are_far_behind);
        self.waits.store(waits, Ordering::Relaxed); // Relaxed: as where it is read.
        self.retire(now_ns);
        self.rotate_by_age(now_ns);
        let active = Arc::clone(&self.list.load().active);
        let is_due = active.used().saturating_mul(SPARE_SHARE) >= active.keys_max();
        // A retired block is cleared for reuse at once: freed, its pages would be new ones soon.
        if is_due || self.spares.has_retired() {
            self.make_spare();
        }
        self.make_filters();
        self.spares.sweep();
    }

    /// Opens the memory of a lane with its generations on disk, beside the log's segments: finds
    /// them, makes again what is missing, and reads from the log what lies behind them. Before
    /// anyone appends. Times as in [`Table::new`].
    pub fn open(options: Options, log: &Arc<Lane>, now_ns: u64) -> Result<Self, OpenError> {
        let mut table = Self::new(options, now_ns);
        let files = Files::open(log, &mut table, now_ns)?;
        table.files = Some(files);
        Ok(table)
    }

    /// The work on disk: writes what was sealed, merges, mends, expires. From a background thread
    /// of its own, every 100 ms or so; the less it is called, the more stays in memory.
    pub fn tend(&self, now_ns: u64) {
        if let Some(files) = &self.files {
            files.tend(self, now_ns);
        }
    }

    /// The work on disk comes to an end: [`Table::tend`] does no more.
    pub fn close(&self) {
        if let Some(files) = &self.files {
            files.close();
        }
    }

    /// Notes how far the lane's events have a key here or in what was sealed before.
    fn cover(&self) {
        let Some(files) = &self.files else { return };
        // The list first: what is published after it has its key in this block or an older one,
        // as long as the block is not sealed, which `Block::cover` looks at last.
        let list = self.list.load();
        list.active.cover(files.published());
    }

    /// Replaces the generations that look-ups visit, and lets go of a block that is among them
    /// now: in one step, so that its keys are always in the one or in the other.
    pub(super) fn publish(&self, written: Vec<Arc<Generation>>, block: Option<&Arc<Block>>) {
        let written: Arc<[Arc<Generation>]> = written.into();
        loop {
            let list = self.list.load();
            let is_block =
                |sealed: &Arc<Block>| block.is_some_and(|block| Arc::ptr_eq(block, sealed));
            let (gone, sealed) = list.sealed.iter().cloned().partition(is_block);
            let gone: Vec<Arc<Block>> = gone;
            // The fault: for a moment the keys are in neither.
            let early = planted::has(Bug::BlockGoneEarly) && !gone.is_empty();
            let next = List {
                active: Arc::clone(&list.active),
                sealed,
                written: Arc::clone(if early { &list.written } else { &written }),
                spare: list.spare.clone(),
                retired: list.retired.clone(),
            };
            if self.list.replace(&list, next) {
                for block in gone {
                    self.spares.retire(block);
                }
                if early {
                    continue;
                }
                return;
            }
        }
    }

    /// The block that is to be written next.
    pub(super) fn oldest_sealed(&self) -> Option<Arc<Block>> {
        let oldest = self.list.load().sealed.last().cloned();
        // SeqCst: as in `find_sealed`, for whoever looks into the block.
        fence(Ordering::SeqCst);
        oldest
    }

    pub(super) fn has_sealed(&self) -> bool {
        !self.list.load().sealed.is_empty()
    }

    /// Seals the active block, full or not, if there is room for another.
    pub(super) fn seal_active(&self, now_ns: u64) {
        self.cover();
        let active = Arc::clone(&self.list.load().active);
        self.spares.sealed_with(active.used());
        let _ = self.rotate(&active, now_ns);
    }

    /// How much of the log may lie behind the newest generation, for tests.
    #[cfg(all(test, not(forebay_loom)))]
    pub(super) fn set_tail_bytes_max(&self, bytes: u64) {
        self.files.iter().for_each(|files| files.set_tail_bytes_max(bytes));
    }

    pub(super) fn window_ns(&self) -> u64 {
        self.window_ns
    }

    pub(super) fn block_keys(&self) -> usize {
        self.spares.whole().keys_max
    }

    /// Counts at this moment.
    pub fn stats(&self) -> Stats {
        let list = self.list.load();
        let blocks = std::iter::once(&list.active).chain(&list.sealed);
        Stats {
            keys: blocks.clone().map(|block| block.used() as u64).sum(),
            capacity: self.capacity as u64,
            blocks: blocks.count() as u64,
            files: self.files.as_ref().map(|files| files.stats(&list.written)).unwrap_or_default(),
            refused: self.refused.load(Ordering::Relaxed), // Relaxed: a lone count.
        }
    }

    /// An active block as old as the window takes no more keys; an empty one becomes young.
    pub(super) fn rotate_by_age(&self, now_ns: u64) {
        let list = self.list.load();
        if list.active.used() == 0 {
            list.active.open(now_ns);
        } else if now_ns.saturating_sub(list.active.opened_ns()) >= self.window_ns {
            // Where there is no room it stays open, and its keys live the longer.
            let _ = self.rotate(&list.active, now_ns);
        }
    }

    /// Seals `full` and opens the spare in its place, unless someone did.
    fn rotate(&self, full: &Arc<Block>, now_ns: u64) -> Rotation {
        loop {
            let list = self.list.load();
            if !Arc::ptr_eq(&list.active, full) {
                return Rotation::Done;
            }
            let (expired, mut sealed) = self.by_age(&list, now_ns);
            // As keys, not as blocks: what smaller ones lack is made up by more of them.
            let held = sealed.iter().chain([full]).map(|block| block.keys_max()).sum::<usize>();
            let enough = self.spares.whole().keys_max.saturating_mul(SEALED_WHOLE + 1);
            if sealed.len() >= SEALED_MAX || held >= enough {
                return Rotation::Full;
            }
            let Some(spare) = &list.spare else {
                if !self.make_spare() {
                    return Rotation::Busy;
                }
                continue;
            };
            // Before the list says so: whoever sees the list also sees the seal.
            full.seal(now_ns);
            spare.open(now_ns);
            sealed.insert(0, Arc::clone(full));
            let next = List {
                active: Arc::clone(spare),
                sealed,
                written: Arc::clone(&list.written),
                spare: None,
                retired: list.retired.iter().cloned().chain(expired).collect(),
            };
            if self.list.replace(&list, next) {
                return Rotation::Done;
            }
        }
    }

    /// Takes what is past its window out of the list.
    fn retire(&self, now_ns: u64) {
        loop {
            let list = self.list.load();
            let (expired, sealed) = self.by_age(&list, now_ns);
            if expired.is_empty() && list.retired.is_empty() {
                return;
            }
            let next = List {
                active: Arc::clone(&list.active),
                sealed,
                written: Arc::clone(&list.written),
                spare: list.spare.clone(),
                retired: Vec::new(),
            };
            if self.list.replace(&list, next) {
                for block in expired.iter().chain(&list.retired) {
                    self.spares.retire(Arc::clone(block));
                }
                return;
            }
        }
    }

    /// The sealed blocks, those sealed at least a window ago apart.
    fn by_age(&self, list: &List, now_ns: u64) -> (Vec<Arc<Block>>, Vec<Arc<Block>>) {
        list.sealed.iter().cloned().partition(|block| {
            let sealed_ns = block.sealed_ns().unwrap_or(u64::MAX);
            now_ns.saturating_sub(sealed_ns) >= self.window_ns
        })
    }

    /// True if there is a spare now; false if another thread is making it.
    fn make_spare(&self) -> bool {
        if self.list.load().spare.is_some() {
            return true;
        }
        // Acquire: pairs with the Release below; the spare of the last maker is then visible.
        if self.making.swap(true, Ordering::Acquire) {
            return false;
        }
        let mut made = None;
        loop {
            let list = self.list.load();
            if list.spare.is_some() {
                break;
            }
            let spare = made.get_or_insert_with(|| self.spares.empty());
            let next = List {
                active: Arc::clone(&list.active),
                sealed: list.sealed.clone(),
                written: Arc::clone(&list.written),
                spare: Some(Arc::clone(spare)),
                retired: list.retired.clone(),
            };
            if self.list.replace(&list, next) {
                break;
            }
        }
        self.making.store(false, Ordering::Release); // Release: see the swap.
        true
    }

    /// From then on a look at a sealed block is one load of a word that the caches may hold.
    pub(super) fn make_filters(&self) {
        let list = self.list.load();
        // SeqCst: as in `find_sealed`.
        fence(Ordering::SeqCst);
        list.sealed.iter().for_each(|block| block.make_filter());
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

fn told(held: Held) -> Outcome {
    match held {
        Held::Pending => Outcome::Pending,
        Held::Stored { end } => Outcome::Seen { first: end, end },
    }
}

/// The right to append one event. Dropped without [`Reservation::appended`] it is given up, and
/// the sender's retry is new again.
#[must_use]
pub struct Reservation {
    list: Loaded<List>,
    index: usize,
    stored: bool,
}

impl Reservation {
    /// The record is in the log: twins wait until the acked watermark reaches `end`.
    pub fn appended(mut self, end: u64) {
        self.list.active.store(self.index, end);
        self.stored = true;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.stored && !planted::has(Bug::ReservationKept) {
            self.list.active.vacate(self.index);
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("index", &self.index).finish_non_exhaustive()
    }
}
