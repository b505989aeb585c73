//! One block of the table: slots, how many are used, from when to when it took keys.
//!
//! The low words stand apart from the rest of their slots: most questions are asked of sealed
//! blocks that do not hold the key, and those are answered by the low words alone; once the
//! block's filter is made, by one word of it.

use std::sync::OnceLock;

use crossbeam::utils::CachePadded;
use forebay_log::Key;

use super::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

/// The key is known to the slot but nobody holds or stored it.
const VACANT: u64 = 0;
/// A thread is between reserve and append.
const PENDING: u64 = 1;
/// From here on: stored, with the end offset plus this.
const STORED: u64 = 2;

/// Keys for each word of a sealed block's filter: with three bits a key, one absent key in
/// sixty is looked for in vain.
const FILTER_KEYS: usize = 5;

/// How many keys fit, over how many slots, how far a probe goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// The most keys; about 0.6 of the slots.
    pub(super) keys_max: usize,
    /// Home slots; `probe_max` more stand behind them, so that no probe wraps around.
    pub(super) slots: usize,
    /// The most slots that one look-up visits.
    pub(super) probe_max: usize,
}

impl Shape {
    /// A block as this one, for fewer keys.
    pub(super) fn for_keys(self, keys: usize) -> Self {
        let keys_max = keys.clamp(1, self.keys_max);
        let share = self.slots as u128 * keys_max as u128 / self.keys_max.max(1) as u128;
        // Never more than there were.
        let slots = usize::try_from(share).unwrap_or(self.slots).max(1);
        Self { keys_max, slots, ..self }
    }
}

/// A key as two words, neither of them zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Words {
    pub(super) low: u64,
    pub(super) high: u64,
}

impl Words {
    /// As they stand in a file.
    pub(super) fn to_bytes(self) -> [u8; 16] {
        ((u128::from(self.high) << 64) | u128::from(self.low)).to_le_bytes()
    }

    /// From a file.
    pub(super) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self::from(Key(bytes))
    }
}

impl From<Key> for Words {
    /// The one place that takes a key apart.
    #[expect(clippy::cast_possible_truncation, reason = "the two halves are what is wanted")]
    fn from(key: Key) -> Self {
        let whole = u128::from_le_bytes(key.0);
        let (low, high) = (whole as u64, (whole >> 64) as u64);
        Self { low: low.max(1), high: high.max(1) }
    }
}

/// The keys of a sealed block whose reservations all have come to an end.
#[derive(Debug)]
pub(super) struct Settled {
    /// Ascending.
    pub(super) keys: Vec<Words>,
    /// Their records end at or before this offset.
    pub(super) to: u64,
}

/// What a block knows of a key that someone holds or stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// Between reserve and append.
    Pending,
    /// In the log, acknowledged once the watermark reaches `end`.
    Stored { end: u64 },
}

/// The answer to a reservation in the active block.
#[derive(Debug)]
pub(super) enum Claim {
    /// The caller holds the slot with this index.
    Won(usize),
    /// Someone else holds or stored the key.
    Held(Held),
    /// The key is not here and the block takes no more.
    NoRoom,
}

/// The part of a slot that is read only once the low word is equal.
#[derive(Debug)]
struct Rest {
    high: AtomicU64,
    state: AtomicU64,
}

/// A fixed number of slots; see the module doc of `dedupe` for the protocol.
#[derive(Debug)]
pub(super) struct Block {
    low: Box<[AtomicU64]>,
    rest: Box<[Rest]>,
    shape: Shape,
    /// Slots whose low word is set or about to be; on its own cache line, it moves with each key.
    used: CachePadded<AtomicUsize>,
    opened_ns: AtomicU64,
    /// Every event of the lane that ends at or before this is in this block or was before it.
    covers: AtomicU64,
    /// 0 until sealed.
    sealed_ns: AtomicU64,
    /// Made once, after the block was sealed: says "certainly not" from one word.
    filter: OnceLock<Box<[u64]>>,
}

impl Block {
    /// A block whose pages have been touched.
    pub(super) fn new(shape: Shape) -> Self {
        let slots = shape.slots + shape.probe_max;
        let mut block = Self {
            low: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            rest: (0..slots)
                .map(|_| Rest { high: AtomicU64::new(0), state: AtomicU64::new(VACANT) })
                .collect(),
            shape,
            used: CachePadded::new(AtomicUsize::new(0)),
            opened_ns: AtomicU64::new(0),
            covers: AtomicU64::new(0),
            sealed_ns: AtomicU64::new(0),
            filter: OnceLock::new(),
        };
        // The allocator may hand out zero pages that nothing has touched, and the compiler may
        // ask it for them; an atomic store it does not remove.
        block.clear();
        block
    }

    /// Makes a block that no list holds as new. Its next publication makes the zeros visible.
    pub(super) fn clear(&mut self) {
        self.filter = OnceLock::new();
        for word in &self.low {
            // Relaxed: nobody else reads until the block is published (Release) in a list.
            word.store(0, Ordering::Relaxed);
        }
        for rest in &self.rest {
            rest.high.store(0, Ordering::Relaxed);
            rest.state.store(VACANT, Ordering::Relaxed);
        }
        self.used.store(0, Ordering::Relaxed);
        self.opened_ns.store(0, Ordering::Relaxed);
        self.covers.store(0, Ordering::Relaxed);
        self.sealed_ns.store(0, Ordering::Relaxed);
    }

    /// A first look, one load: 0 means that the block cannot hold the key.
    pub(super) fn first(&self, words: Words) -> u64 {
        if let Some(filter) = self.filter.get() {
            let word = filter.get(share_of(words.low, filter.len())).copied().unwrap_or(0);
            let bits = filter_bits(words);
            return u64::from(word & bits == bits);
        }
        // Acquire: as in `find`, which this foretells.
        self.low.get(self.home(words)).map_or(0, |low| low.load(Ordering::Acquire))
    }

    /// Makes the filter of a sealed block, if it has none. The caller has run the fence that
    /// `find` wants: a reservation that this does not see finds the seal and withdraws.
    pub(super) fn make_filter(&self) {
        if self.filter.get().is_some() {
            return;
        }
        let mut filter = vec![0; self.shape.keys_max.div_ceil(FILTER_KEYS)].into_boxed_slice();
        for (low, rest) in self.low.iter().zip(&self.rest) {
            // Acquire: as in `find`.
            let low = low.load(Ordering::Acquire);
            let high = rest.high.load(Ordering::Acquire);
            let words = Words { low, high };
            let index = share_of(low, filter.len());
            if let Some(word) = filter.get_mut(index).filter(|_| low != 0 && high != 0) {
                *word |= filter_bits(words);
            }
        }
        // A second maker saw no less.
        let _ = self.filter.set(filter);
    }

    /// Every key that was stored, once nobody holds a reservation any more; nothing while
    /// somebody does. Of a sealed block; the caller has run the fence that `find` wants, so a
    /// reservation that comes after this finds the seal and withdraws.
    pub(super) fn settled(&self) -> Option<Settled> {
        let mut settled = Settled { keys: Vec::with_capacity(self.used()), to: 0 };
        for (low, rest) in self.low.iter().zip(&self.rest) {
            // Acquire: as in `find`.
            let low = low.load(Ordering::Acquire);
            let high = rest.high.load(Ordering::Acquire);
            match held(rest.state.load(Ordering::Acquire)) {
                None => {}
                Some(Held::Pending) => return None,
                Some(Held::Stored { end }) => {
                    // Slots follow the low words, and probing moves a key by a few of them: so
                    // its place is near the end.
                    let words = Words { low, high };
                    let before = settled.keys.iter().rposition(|known| *known <= words);
                    settled.keys.insert(before.map_or(0, |before| before + 1), words);
                    settled.to = settled.to.max(end);
                }
            }
        }
        Some(settled)
    }

    /// Looks without writing.
    pub(super) fn find(&self, words: Words) -> Option<Held> {
        let home = self.home(words);
        let low = self.low.get(home..)?;
        let rest = self.rest.get(home..)?;
        for (low, rest) in low.iter().zip(rest).take(self.shape.probe_max) {
            // Acquire: pairs with the claim's AcqRel; the fence of the caller makes every
            // reservation visible that did not find this block sealed.
            match low.load(Ordering::Acquire) {
                0 => return None,
                found if found != words.low => {}
                _ => {
                    // Acquire: as above. No high word yet is a claim that will find the seal.
                    if rest.high.load(Ordering::Acquire) == words.high {
                        // Acquire: pairs with the Release in `store` and `vacate`.
                        return held(rest.state.load(Ordering::Acquire));
                    }
                }
            }
        }
        None
    }

    /// Claims the key's slot, or says who has it.
    pub(super) fn claim(&self, words: Words) -> Claim {
        let home = self.home(words);
        let (Some(low), Some(rest)) = (self.low.get(home..), self.rest.get(home..)) else {
            return Claim::NoRoom;
        };
        for (probe, (low, rest)) in low.iter().zip(rest).enumerate().take(self.shape.probe_max) {
            // Acquire: pairs with the AcqRel of whoever set it. Both words at once: they lie on
            // two cache lines, and neither miss should wait for the other.
            let mut found = low.load(Ordering::Acquire);
            let high = rest.high.load(Ordering::Acquire);
            if found == 0 {
                if self.sealed_ns().is_some() || !self.take_room() {
                    return Claim::NoRoom;
                }
                found = set_once(low, words.low);
                if found != 0 {
                    self.return_room();
                }
            }
            if (found == 0 || found == words.low) && own(&rest.high, high, words.high) {
                // AcqRel: the winner's pending precedes its fence; the loser reads the end.
                let won = rest.state.compare_exchange(
                    VACANT,
                    PENDING,
                    Ordering::AcqRel,
                    Ordering::Acquire,
                );
                return match won.map_err(held) {
                    Err(Some(held)) => Claim::Held(held),
                    _ => Claim::Won(home + probe),
                };
            }
        }
        Claim::NoRoom
    }

    /// Turns the caller's pending slot into a stored one.
    pub(super) fn store(&self, index: usize, end: u64) {
        // Saturating: an offset near 2^64 does not occur, and would wait two bytes too few.
        self.set_state(index, end.saturating_add(STORED));
    }

    /// Gives the caller's pending slot up; the same key may take it again.
    pub(super) fn vacate(&self, index: usize) {
        self.set_state(index, VACANT);
    }

    fn set_state(&self, index: usize, state: u64) {
        if let Some(rest) = self.rest.get(index) {
            // Release: pairs with the Acquire in `find` and `claim`. Only the winner of the
            // slot writes here.
            rest.state.store(state, Ordering::Release);
        }
    }

    /// The first seal stands.
    pub(super) fn seal(&self, now_ns: u64) {
        // Relaxed: the publication of the list (Release) and the fences order it.
        let _ =
            self.sealed_ns.compare_exchange(0, now_ns.max(1), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// When it was sealed. Decides a reservation only behind the fence that follows its claim.
    pub(super) fn sealed_ns(&self) -> Option<u64> {
        // Relaxed: see `seal`.
        Some(self.sealed_ns.load(Ordering::Relaxed)).filter(|sealed_ns| *sealed_ns != 0)
    }

    /// From when on it takes keys.
    pub(super) fn open(&self, now_ns: u64) {
        self.opened_ns.store(now_ns, Ordering::Relaxed); // Relaxed: a lone time.
    }

    pub(super) fn opened_ns(&self) -> u64 {
        self.opened_ns.load(Ordering::Relaxed) // Relaxed: a lone time.
    }

    /// Notes that all events up to `end` were reserved here or before, if the block still takes
    /// keys: `end` was published before this call, so each of them had its reservation by then.
    pub(super) fn cover(&self, end: u64) {
        // SeqCst: comes between the caller's look at the watermark and the look at the seal.
        fence(Ordering::SeqCst);
        if self.sealed_ns().is_none() {
            self.covers.store(end, Ordering::Relaxed); // Relaxed: the keeper alone writes it.
        }
    }

    pub(super) fn covers(&self) -> u64 {
        self.covers.load(Ordering::Relaxed) // Relaxed: the keeper alone writes it.
    }

    /// The most keys that it takes.
    pub(super) fn keys_max(&self) -> usize {
        self.shape.keys_max
    }

    /// Slots whose key is set, those of given-up reservations among them.
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed) // Relaxed: a lone count.
    }

    /// Strict: never more than `keys_max` slots are taken, so that what fitted before a restart
    /// fits after it.
    fn take_room(&self) -> bool {
        // Relaxed: a lone count; the slot itself is taken by the swap of its low word.
        if self.used() >= self.shape.keys_max {
            return false;
        }
        let fits = self.used.fetch_add(1, Ordering::Relaxed) < self.shape.keys_max;
        if !fits {
            self.return_room();
        }
        fits
    }

    fn return_room(&self) {
        self.used.fetch_sub(1, Ordering::Relaxed); // Relaxed: a lone count.
    }

    fn home(&self, words: Words) -> usize {
        share_of(words.low, self.shape.slots)
    }
}

/// The low word is uniform: its share of 2^64 is its share of `of`.
#[expect(clippy::cast_possible_truncation, reason = "less than `of`, which is a usize")]
pub(super) fn share_of(low: u64, of: usize) -> usize {
    ((u128::from(low) * of as u128) >> 64) as usize
}

/// Three bits of a word, named by the high word, which is independent of the low one.
fn filter_bits(words: Words) -> u64 {
    let bit = |shift: u32| 1_u64 << ((words.high >> shift) & 63);
    bit(0) | bit(6) | bit(12)
}

/// Swaps 0 for `value`; 0 if this call did it, else what stands there.
fn set_once(word: &AtomicU64, value: u64) -> u64 {
    // AcqRel: publishes the word with the claim; on failure Acquire, as a load would.
    match word.compare_exchange(0, value, Ordering::AcqRel, Ordering::Acquire) {
        Ok(before) | Err(before) => before,
    }
}

/// Whether the high word, last seen as `found`, is or just became `value`.
fn own(high: &AtomicU64, found: u64, value: u64) -> bool {
    let found = if found == 0 { set_once(high, value) } else { found };
    found == 0 || found == value
}

/// What a state word says.
fn held(state: u64) -> Option<Held> {
    match state {
        VACANT => None,
        PENDING => Some(Held::Pending),
        stored => Some(Held::Stored { end: stored - STORED }),
    }
}
