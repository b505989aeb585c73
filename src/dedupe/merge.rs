//! Which generations become one: few of them, each key written again but a few times, none kept
//! much longer than its window.

use std::ops::Range;

use super::format::Head;

/// Generations that look-ups visit at most, for longer than a merge takes.
const GENERATIONS_MAX: usize = 12;
/// A merge never makes a generation that spans more than one part in this many of the window: a
/// key lives on until the youngest of its generation is a window old.
const SPANS: u64 = 4;

/// What decides about a merge.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) keys: u64,
    pub(super) oldest_ns: u64,
    pub(super) newest_ns: u64,
}

impl Size {
    pub(super) fn of(head: &Head) -> Self {
        Self { keys: head.keys, oldest_ns: head.oldest_ns, newest_ns: head.newest_ns }
    }

    fn with(self, older: Self) -> Self {
        Self {
            keys: self.keys + older.keys,
            oldest_ns: self.oldest_ns.min(older.oldest_ns),
            newest_ns: self.newest_ns.max(older.newest_ns),
        }
    }

    fn span_ns(self) -> u64 {
        self.newest_ns.saturating_sub(self.oldest_ns)
    }
}

/// Which neighbours to merge. From the newest on back: a row of which each is at most twice as
/// large as all behind it together, as digits carry, so that a key is written again but a few
/// times. Beyond [`GENERATIONS_MAX`] the two smallest neighbours, whatever their ages.
pub(super) fn to_merge(sizes: &[Size], window_ns: u64) -> Option<Range<usize>> {
    for end in (2..=sizes.len()).rev() {
        let mut start = end - 1;
        let mut run = *sizes.get(start)?;
        while let Some(older) = start.checked_sub(1).and_then(|older| sizes.get(older)) {
            let with = run.with(*older);
            if older.keys > 2 * run.keys.max(1) || with.span_ns() > window_ns / SPANS {
                break;
            }
            (run, start) = (with, start - 1);
        }
        if end - start >= 2 {
            return Some(start..end);
        }
    }
    if sizes.len() <= GENERATIONS_MAX {
        return None;
    }
    let pairs = sizes.windows(2).enumerate();
    let least = pairs.min_by_key(|(_, pair)| pair.iter().map(|size| size.keys).sum::<u64>());
    least.map(|(at, _)| at..at + 2)
}

#[cfg(all(test, not(forebay_loom)))]
mod tests {
    use super::*;

    const WINDOW_NS: u64 = 4_000;

    /// Generations of so many keys, each from and to these times.
    fn sizes(of: &[(u64, u64, u64)]) -> Vec<Size> {
        let size = |&(keys, oldest_ns, newest_ns)| Size { keys, oldest_ns, newest_ns };
        of.iter().map(size).collect()
    }

    #[test]
    fn neighbours_of_like_size_become_one_and_a_small_one_waits() {
        assert_eq!(to_merge(&sizes(&[(100, 0, 10), (30, 10, 20)]), WINDOW_NS), None);
        let carry = sizes(&[(100, 0, 10), (30, 10, 20), (20, 20, 30)]);
        assert_eq!(to_merge(&carry, WINDOW_NS), Some(0..3));
        let behind = sizes(&[(10, 0, 10), (10, 10, 20), (1, 20, 30)]);
        assert_eq!(to_merge(&behind, WINDOW_NS), Some(0..2));
        assert_eq!(to_merge(&[], WINDOW_NS), None);
    }

    #[test]
    fn a_quarter_of_the_window_is_the_most_that_a_merge_spans() {
        assert_eq!(to_merge(&sizes(&[(10, 0, 500), (10, 500, 1_001)]), WINDOW_NS), None);
        assert_eq!(to_merge(&sizes(&[(10, 0, 500), (10, 500, 1_000)]), WINDOW_NS), Some(0..2));
    }

    #[test]
    fn too_many_are_merged_whatever_their_ages() {
        let mut apart: Vec<_> = (0..12).map(|at| (100 - at, at * 2_000, at * 2_000 + 1)).collect();
        assert_eq!(to_merge(&sizes(&apart), WINDOW_NS), None);
        apart.push((1, 90_000, 90_001));
        assert_eq!(to_merge(&sizes(&apart), WINDOW_NS), Some(11..13));
    }
}
