//! claimed, published, durable: how far a lane has come.
//!
//! Always `claimed >= published >= durable`. Offsets only; which segment holds an offset is not
//! known here, so the protocol can be run by a model.
//!
//! | atomic | writer | readers | ordering | what becomes visible |
//! |---|---|---|---|---|
//! | `claimed` | every producer, by compare-and-swap | producers, walkers | `AcqRel` / `Acquire` | nothing but the number: whoever moved it owns the range |
//! | `published` | every producer and the keeper, by compare-and-swap | all | `AcqRel` / `Acquire` | every record below it |
//! | `durable` | the keeper | all | `Release` / `Acquire` | that everything below it is on the medium |
//!
//! # Publishing
//!
//! A producer that has stored its commit word walks from `published` over committed records and
//! moves `published` to where it came. Two producers that commit neighbouring records at the same
//! moment must not both miss the other's word, so each runs a `SeqCst` fence between its own
//! store and its walk: in the one order of fences, the later one sees both records. The last
//! committer of a contiguous run therefore always publishes the whole run. A walk ends at
//! `claimed`, read behind that fence, and so does not look at memory that nobody has touched yet.

use crossbeam::utils::CachePadded;

use crate::atomic::{AtomicU64, Ordering, fence};
use crate::planted::{self, Bug};

/// Set in `claimed` when the lane is closed: every later claim fails, whatever it has read.
const CLOSED: u64 = 1 << 63;

/// How far a lane has come.
#[derive(Debug)]
pub(crate) struct Watermarks {
    claimed: CachePadded<AtomicU64>,
    published: CachePadded<AtomicU64>,
    durable: CachePadded<AtomicU64>,
}

/// The right to store into a range of a lane. Made by one successful step of `claimed`.
#[derive(Debug)]
#[must_use = "a claim that is dropped holds back everything behind it"]
pub(crate) struct Claim {
    from: u64,
    to: u64,
}

impl Claim {
    /// Where the range starts in the lane.
    pub(crate) fn from(&self) -> u64 {
        self.from
    }

    /// Length of the range.
    pub(crate) fn bytes(&self) -> u64 {
        self.to - self.from
    }

    /// The commit word of a record that takes the whole claim: its length.
    pub(crate) fn commit_word(&self) -> u32 {
        u32::try_from(self.bytes()).expect("a segment is bounded below 4 GiB")
    }

    /// Ends the right, for the commit word to be stored.
    pub(crate) fn end(self) -> u32 {
        self.commit_word()
    }
}

/// The watermarks of a lane, offsets: always `claimed >= published >= durable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatermarksRead {
    /// The end of all claims.
    pub claimed: u64,
    /// The end of all records in place.
    pub published: u64,
    /// The end of what is on the medium.
    pub durable: u64,
}

/// The state of `claimed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// The next claim starts here.
    At(u64),
    /// No claim will ever succeed again.
    Closed,
}

impl Watermarks {
    /// A lane that starts, or goes on, at `offset`.
    pub(crate) fn new(offset: u64) -> Self {
        Self {
            claimed: CachePadded::new(AtomicU64::new(offset)),
            published: CachePadded::new(AtomicU64::new(offset)),
            durable: CachePadded::new(AtomicU64::new(offset)),
        }
    }

    /// Where the next claim starts.
    pub(crate) fn next_claim(&self) -> Claimed {
        // Acquire: pairs with the AcqRel in `claim`, so that a roll is seen with its segment.
        let claimed = self.claimed.load(Ordering::Acquire);
        if claimed & CLOSED == 0 { Claimed::At(claimed) } else { Claimed::Closed }
    }

    /// The end of all claims.
    pub(crate) fn claimed(&self) -> u64 {
        // Acquire: as in `next_claim`.
        self.claimed.load(Ordering::Acquire) & !CLOSED
    }

    /// The end of all records that are in place, without a hole.
    pub(crate) fn published(&self) -> u64 {
        // Acquire: pairs with the AcqRel in `publish`; the records below are visible.
        self.published.load(Ordering::Acquire)
    }

    /// The end of what is known to be on the medium.
    pub(crate) fn durable(&self) -> u64 {
        // Acquire: pairs with the Release in `set_durable`.
        self.durable.load(Ordering::Acquire)
    }

    /// All three, taken lowest first, so that they are in order.
    pub(crate) fn read(&self) -> WatermarksRead {
        let durable = self.durable();
        let published = self.published();
        WatermarksRead { claimed: self.claimed(), published, durable }
    }

    /// Takes `from..to`, if `from` is still where the next claim starts.
    pub(crate) fn claim(&self, from: u64, to: u64) -> Option<Claim> {
        debug_assert!(from < to && to < CLOSED);
        // AcqRel: pairs with the Acquire in `next_claim`. Failing, nothing was read that counts.
        self.claimed
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed)
            .ok()
            .map(|_| Claim { from, to })
    }

    /// Takes the rest of a segment and steps over its last page and the next one's first: the
    /// claim covers `from..record_end`, and is none if nothing is left there.
    pub(crate) fn roll(&self, from: u64, record_end: u64, next_first: u64) -> Rolled {
        debug_assert!(from <= record_end && record_end < next_first);
        // AcqRel: as in `claim`; the next segment was put in the table before anyone rolls to it.
        match self.claimed.compare_exchange(from, next_first, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) if from == record_end => Rolled::Full,
            Ok(_) => Rolled::Rest(Claim { from, to: record_end }),
            Err(_) => Rolled::Lost,
        }
    }

    /// Lets no further claim succeed and tells where they end.
    pub(crate) fn close(&self) -> u64 {
        // AcqRel: a claim either comes before this, and is waited for, or fails.
        self.claimed.fetch_or(CLOSED, Ordering::AcqRel) & !CLOSED
    }

    /// Moves `published` over committed records; true if this call moved it.
    ///
    /// `step` tells the end of the committed record at an offset, or nothing.
    pub(crate) fn publish(&self, mut step: impl FnMut(u64) -> Option<u64>) -> bool {
        // SeqCst: orders the caller's commit word before the walk; see the module's doc.
        if !planted::has(Bug::PublishUnfenced) {
            fence(Ordering::SeqCst);
        }
        loop {
            let from = self.published();
            // Behind the fence: who claims later than this has a fence of its own, behind which
            // it sees the records of this walk. So it is the one to go on from there.
            let claimed = self.claimed();
            let mut to = from;
            while to < claimed
                && let Some(next) = step(to)
            {
                to = next;
            }
            if to == from {
                // Where the walk was stuck may be behind the others by now: then walk again.
                if self.published() == from {
                    return false;
                }
                continue;
            }
            // AcqRel: passes on the records that this walk has seen; pairs with `published`. The
            // fence above passes on the caller's own alone.
            let order = weakened(Ordering::AcqRel, Bug::PublishRelaxed);
            let moved = self.published.compare_exchange(from, to, order, Ordering::Relaxed);
            if moved.is_ok() {
                // Pair assertion: `step` never goes beyond what was claimed.
                assert!(to <= claimed, "published has passed claimed");
                return true;
            }
            if planted::has(Bug::WalkNotRepeated) {
                return false;
            }
        }
    }

    /// Moves `durable`. The keeper alone calls this.
    pub(crate) fn set_durable(&self, to: u64) {
        assert!(to >= self.durable(), "durable would move back");
        assert!(to <= self.published(), "durable would pass published");
        // Release: pairs with `durable`.
        self.durable.store(to, weakened(Ordering::Release, Bug::DurableRelaxed));
    }
}

/// The ordering, unless the bug is planted that makes it too weak.
fn weakened(ordering: Ordering, bug: Bug) -> Ordering {
    if planted::has(bug) { Ordering::Relaxed } else { ordering }
}

/// What came of an attempt to leave a full segment.
#[derive(Debug)]
pub(crate) enum Rolled {
    /// This caller rolled, and must pad the rest.
    Rest(Claim),
    /// This caller rolled, and nothing was left to pad.
    Full,
    /// Someone else moved `claimed`.
    Lost,
}

#[cfg(all(test, not(any(forebay_loom, forebay_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_claim_succeeds_once_and_never_after_the_close() {
        let watermarks = Watermarks::new(64);
        let claim = watermarks.claim(64, 128).expect("free");
        assert_eq!((claim.from(), claim.bytes(), claim.commit_word()), (64, 64, 64));
        assert!(watermarks.claim(64, 192).is_none());
        assert_eq!(watermarks.close(), 128);
        assert!(watermarks.claim(128, 192).is_none());
        assert_eq!(watermarks.next_claim(), Claimed::Closed);
        assert_eq!(watermarks.claimed(), 128);
    }

    #[test]
    fn a_roll_leaves_the_rest_to_its_winner_alone() {
        let watermarks = Watermarks::new(0);
        assert!(matches!(watermarks.roll(0, 64, 256), Rolled::Rest(claim) if claim.bytes() == 64));
        assert!(matches!(watermarks.roll(0, 64, 256), Rolled::Lost));
        assert!(matches!(watermarks.roll(256, 256, 512), Rolled::Full));
        assert_eq!(watermarks.claimed(), 512);
    }

    #[test]
    fn published_stops_at_the_first_hole() {
        let watermarks = Watermarks::new(0);
        assert!(watermarks.claim(0, 4).is_some());
        let committed = [true, true, false, true];
        let step = |offset: u64| {
            let index = usize::try_from(offset).expect("small");
            committed.get(index).filter(|done| **done).map(|_| offset + 1)
        };
        assert!(watermarks.publish(step));
        assert_eq!(watermarks.published(), 2);
        assert!(!watermarks.publish(step));
        watermarks.set_durable(2);
        let all = WatermarksRead { claimed: 4, published: 2, durable: 2 };
        assert_eq!(watermarks.read(), all);
    }
}
