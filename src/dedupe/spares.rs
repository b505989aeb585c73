//! Where empty blocks come from: made in the size that the next one needs, or retired and cleared.
//!
//! The first block takes a seventh of the capacity. Where blocks are sealed early, because so much
//! of the log has gathered behind the files, each takes only a part of that: large events make few
//! keys. The next one is then made twice as large as what the last one took, so that it is cleared
//! and searched the faster, and its slots stay in the caches. One that fills up after all is
//! followed by a whole one.

use std::sync::Arc;

use crossbeam::queue::SegQueue;

use super::atomic::{AtomicUsize, Ordering};
use super::block::{Block, Shape};

/// The fewest keys of a block; in tests, whose blocks hold a few, fewer.
const KEYS_LEAST: usize = if cfg!(test) { 1 << 3 } else { 1 << 16 };
/// How much larger than wanted a block may be that is used again, and how much more than the last
/// one took the next one takes.
const SLACK: usize = 2;

/// Empty blocks of one table.
#[derive(Debug)]
pub(super) struct Spares {
    /// That of a block of a seventh of the capacity.
    whole: Shape,
    /// For how many keys the next block is made.
    keys: AtomicUsize,
    /// Retired blocks that a slow thread may still be reading.
    attic: SegQueue<Arc<Block>>,
}

impl Spares {
    /// Makes whole blocks until told otherwise.
    pub(super) fn new(whole: Shape) -> Self {
        Self { whole, keys: AtomicUsize::new(whole.keys_max), attic: SegQueue::new() }
    }

    /// The shape of a whole block.
    pub(super) fn whole(&self) -> Shape {
        self.whole
    }

    /// A block was sealed with so many keys: the next one is to be no larger than it need be.
    pub(super) fn sealed_with(&self, keys: usize) {
        let whole = self.whole.keys_max;
        let keys = keys.saturating_mul(SLACK).clamp(KEYS_LEAST.min(whole), whole);
        self.keys.store(keys, Ordering::Relaxed); // Relaxed: a lone number.
    }

    /// A block has no room for more keys: nobody knows how many there will be.
    pub(super) fn filled(&self) {
        self.keys.store(self.whole.keys_max, Ordering::Relaxed); // Relaxed: a lone number.
    }

    /// A retired block that nobody reads any more and that has the right size, else a new one.
    pub(super) fn empty(&self) -> Arc<Block> {
        let keys = self.keys.load(Ordering::Relaxed); // Relaxed: a lone number.
        let right = keys..=keys.saturating_mul(SLACK);
        for _ in 0..self.attic.len() {
            let Some(mut block) = self.attic.pop() else { break };
            match Arc::get_mut(&mut block) {
                None => self.attic.push(block),
                Some(unread) if right.contains(&unread.keys_max()) => {
                    unread.clear();
                    return block;
                }
                Some(_) => {}
            }
        }
        Arc::new(Block::new(self.whole.for_keys(keys)))
    }

    /// Takes a block that has left the list.
    pub(super) fn retire(&self, block: Arc<Block>) {
        self.attic.push(block);
    }

    /// Whether there are retired blocks.
    pub(super) fn has_retired(&self) -> bool {
        !self.attic.is_empty()
    }

    /// Frees the retired blocks that nobody reads any more.
    pub(super) fn sweep(&self) {
        for _ in 0..self.attic.len() {
            let Some(mut block) = self.attic.pop() else { break };
            if Arc::get_mut(&mut block).is_none() {
                self.attic.push(block);
            }
        }
    }
}

#[cfg(all(test, not(forebay_loom)))]
mod tests {
    use std::time::Duration;

    use super::super::{Fingerprinter, Options, Outcome, Table};
    use super::*;

    fn spares() -> Spares {
        Spares::new(Shape { keys_max: 100, slots: 167, probe_max: 512 })
    }

    #[test]
    fn a_block_sealed_early_is_followed_by_a_smaller_one_and_a_full_one_by_a_whole_one() {
        let spares = spares();
        assert_eq!(spares.empty().keys_max(), 100);
        for (took, next) in [(10, 20), (1, KEYS_LEAST), (90, 100), (10, 20)] {
            spares.sealed_with(took);
            assert_eq!(spares.empty().keys_max(), next);
        }
        spares.filled();
        assert_eq!(spares.empty().keys_max(), 100);
    }

    #[test]
    fn a_retired_block_is_used_again_where_its_size_is_right_and_nobody_reads_it() {
        let spares = spares();
        let whole = spares.empty();
        let same = Arc::as_ptr(&whole);
        spares.retire(Arc::clone(&whole));
        assert_ne!(Arc::as_ptr(&spares.empty()), same, "somebody reads it");
        drop(whole);
        assert_eq!(Arc::as_ptr(&spares.empty()), same);
        assert!(!spares.has_retired());
        spares.retire(spares.empty());
        spares.sealed_with(10);
        assert_eq!(spares.empty().keys_max(), 20, "the whole one is too large by far");
        assert!(!spares.has_retired(), "and goes");
    }

    #[test]
    fn a_table_with_small_blocks_in_it_holds_its_capacity_of_further_keys() {
        let options = Options { capacity: 700, window: Duration::from_secs(1) };
        let table = Table::new(options, 0);
        let fingerprinter = Fingerprinter::new(b"0123456789abcdef");
        let key = |number: u64| fingerprinter.fingerprint("s", None, [&number.to_le_bytes()[..]]);
        let fill = |from: u64, keys: u64| {
            let mut stored = 0;
            while stored < keys {
                let Outcome::Reserved(reservation) = table.reserve(key(from + stored), 0) else {
                    break;
                };
                stored += 1;
                reservation.appended(stored);
            }
            stored
        };
        let mut stored = 0;
        // Sealed early twice: the second and the third block are small.
        for _ in 0..2 {
            stored += fill(stored, 10);
            table.seal_active(0);
        }
        let further = fill(stored, u64::MAX);
        assert!(further >= 700, "{further} keys");
        for number in 0..stored + further {
            assert!(matches!(table.reserve(key(number), 0), Outcome::Seen { .. }), "{number}");
        }
    }
}
