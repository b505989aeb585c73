//! Which generations become one: few of them, each key written again but a few times, none kept
//! much longer than its window.

use std::ops::Range;

use super::format::Head;

/// Generations that look-ups visit at most, for longer than a merge takes.
const GENERATIONS_MAX: usize = 12;
/// A merge never makes a generation that spans more than one part in this many of the window: a
/// key lives on until the youngest of its generation is a window old.
const SPANS: u64 = 4;
/// A merge takes at least so many. With two, keys are written half as often again (5.0 against 3.2
/// times over 64 blocks of one size, by counting); with five a look-up asks one more small filter.
const ROW_MIN: usize = 5;

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

/// Which neighbours to merge. From the newest on back: a row of at least [`ROW_MIN`], each at most
/// as large as all behind it together, as digits carry, so that a key is written again but a few
/// times. Beyond [`GENERATIONS_MAX`] the two smallest neighbours, whatever their ages.
pub(super) fn to_merge(sizes: &[Size], window_ns: u64) -> Option<Range<usize>> {
    for end in (2..=sizes.len()).rev() {
        let mut start = end - 1;
        let mut run = *sizes.get(start)?;
        while let Some(older) = start.checked_sub(1).and_then(|older| sizes.get(older)) {
            let with = run.with(*older);
            if older.keys > run.keys.max(1) || with.span_ns() > window_ns / SPANS {
                break;
            }
            (run, start) = (with, start - 1);
        }
        if end - start >= ROW_MIN {
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
    fn neighbours_of_like_size_become_one_once_there_are_five_and_a_large_one_waits() {
        let of = |keys: &[u64]| sizes(&keys.iter().map(|&keys| (keys, 0, 10)).collect::<Vec<_>>());
        assert_eq!(to_merge(&of(&[10, 10, 10, 10]), WINDOW_NS), None);
        assert_eq!(to_merge(&of(&[10, 10, 10, 10, 10]), WINDOW_NS), Some(0..5));
        assert_eq!(to_merge(&of(&[100, 10, 10, 10, 10, 10]), WINDOW_NS), Some(1..6));
        assert_eq!(to_merge(&of(&[40, 10, 10, 10, 10]), WINDOW_NS), Some(0..5));
        assert_eq!(to_merge(&of(&[10, 10, 10, 10, 10, 1]), WINDOW_NS), Some(0..5));
        assert_eq!(to_merge(&[], WINDOW_NS), None);
    }

    #[test]
    fn a_quarter_of_the_window_is_the_most_that_a_merge_spans() {
        let spanning = |last| {
            sizes(&[(9, 0, 200), (9, 200, 400), (9, 400, 600), (9, 600, 800), (9, 800, last)])
        };
        assert_eq!(to_merge(&spanning(1_001), WINDOW_NS), None);
        assert_eq!(to_merge(&spanning(1_000), WINDOW_NS), Some(0..5));
    }

    #[test]
    fn over_many_blocks_of_one_size_a_key_is_written_a_few_times_and_few_generations_stay() {
        let (mut live, mut written, blocks) = (Vec::new(), 0, 256);
        for _ in 0..blocks {
            live.push(Size { keys: 1, oldest_ns: 0, newest_ns: 10 });
            written += 1;
            while let Some(row) = to_merge(&live, WINDOW_NS) {
                let keys = live[row.clone()].iter().map(|size| size.keys).sum();
                written += keys;
                live.splice(row, [Size { keys, oldest_ns: 0, newest_ns: 10 }]);
            }
            assert!(live.len() <= GENERATIONS_MAX, "{live:?}");
        }
        assert!(written < 5 * blocks, "{written} for {blocks}");
    }

    #[test]
    fn too_many_are_merged_whatever_their_ages() {
        let mut apart: Vec<_> = (0..12).map(|at| (100 - at, at * 2_000, at * 2_000 + 1)).collect();
        assert_eq!(to_merge(&sizes(&apart), WINDOW_NS), None);
        apart.push((1, 90_000, 90_001));
        assert_eq!(to_merge(&sizes(&apart), WINDOW_NS), Some(11..13));
    }
}
