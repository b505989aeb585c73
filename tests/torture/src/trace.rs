//! What a recorded disk has seen, and every state in which a power cut may leave it.
//!
//! Between two flushes the disk holds writes that it may or may not have carried out. A cut just
//! before the second flush ends leaves what the first made durable, and any part of the rest,
//! torn at sectors. Everything acknowledged before that moment must survive every such state, so
//! a state carries the facts that were known by then.

use crate::dice::Dice;
use crate::image::Image;
use crate::ledger::Fact;

/// One thing that a disk has seen.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    /// A write that the disk has answered.
    Write { offset: u64, data: Box<[u8]> },
    /// A flush that the disk has answered: every write before it is durable.
    Flush,
    /// Something that became known outside of the disk.
    Fact(Fact),
}

/// What a recorded disk has seen, from a known start.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    start: Image,
    entries: Vec<Entry>,
    /// A write is torn at multiples of this.
    tear_bytes: usize,
}

/// Which of the writes since the last flush a power cut has let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kept {
    /// None of them.
    Nothing,
    /// All of them.
    Everything,
    /// All but this one.
    Without(usize),
    /// A part of the sectors, by this seed; some seeds keep few, some most.
    Sectors(u64),
}

/// Where and how the power is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Cut {
    /// After how many flushes; the writes that follow are pending.
    pub(crate) flushes: usize,
    pub(crate) kept: Kept,
}

/// A disk after a power cut, and what was known outside when the power went.
#[derive(Clone, Debug)]
pub(crate) struct CrashState {
    pub(crate) cut: Cut,
    pub(crate) image: Image,
    pub(crate) known: Vec<Fact>,
}

/// How many of the writes between two flushes there are.
#[derive(Clone, Copy, Debug)]
struct Window {
    flushes: usize,
    writes: usize,
}

impl Trace {
    pub(crate) fn new(start: Image, entries: Vec<Entry>, tear_bytes: usize) -> Self {
        Self { start, entries, tear_bytes }
    }

    /// Everything that became known, to the end.
    pub(crate) fn facts(&self) -> Vec<Fact> {
        facts(&self.entries)
    }

    /// How many flushes there were.
    pub(crate) fn flushes(&self) -> usize {
        self.entries.iter().filter(|entry| matches!(entry, Entry::Flush)).count()
    }

    /// How many writes there were.
    pub(crate) fn writes(&self) -> usize {
        self.entries.iter().filter(|entry| matches!(entry, Entry::Write { .. })).count()
    }

    /// Chooses up to `count` different cuts. Every window between flushes is as likely as any
    /// other, and the first and last of them, where files are made and sealed, are no rarer.
    pub(crate) fn choose_cuts(&self, count: usize, dice: &mut Dice) -> Vec<Cut> {
        let windows = self.windows();
        let mut cuts = std::collections::BTreeSet::new();
        for _ in 0..count.saturating_mul(4) {
            let Some(window) = dice.one_of(&windows) else { break };
            if cuts.len() >= count {
                break;
            }
            let kept = match dice.below(8) {
                _ if window.writes == 0 => Kept::Nothing,
                0 => Kept::Nothing,
                1 => Kept::Everything,
                2..=4 => Kept::Without(dice.index(window.writes)),
                _ => Kept::Sectors(dice.number()),
            };
            cuts.insert(Cut { flushes: window.flushes, kept });
        }
        cuts.into_iter().collect()
    }

    /// The two cuts at the very end: nothing of what is pending, and all of it.
    pub(crate) fn last_cuts(&self) -> [Cut; 2] {
        let flushes = self.flushes();
        [Kept::Nothing, Kept::Everything].map(|kept| Cut { flushes, kept })
    }

    /// The states that these cuts leave, in the order of the trace.
    pub(crate) fn crash_states(&self, cuts: &[Cut]) -> impl Iterator<Item = CrashState> {
        let mut cuts = cuts.to_vec();
        cuts.sort_unstable();
        let mut durable = self.start.clone();
        let (mut from, mut flushes) = (0, 0);
        cuts.into_iter().map(move |cut| {
            while flushes < cut.flushes {
                let end = self.window_end(from);
                apply(&mut durable, self.entries.get(from..end).unwrap_or_default());
                from = end + 1;
                flushes += 1;
            }
            let end = self.window_end(from);
            let pending = self.entries.get(from..end).unwrap_or_default();
            let mut image = durable.clone();
            self.keep(&mut image, pending, cut.kept);
            let known = facts(self.entries.get(..end).unwrap_or_default());
            CrashState { cut, image, known }
        })
    }

    /// Carries out the part of the pending writes that a cut has let through.
    fn keep(&self, image: &mut Image, pending: &[Entry], kept: Kept) {
        match kept {
            Kept::Nothing => {}
            Kept::Everything => apply(image, pending),
            Kept::Without(missing) => {
                for (index, (offset, data)) in writes(pending).enumerate() {
                    if index != missing {
                        image.write(offset, data);
                    }
                }
            }
            Kept::Sectors(seed) => {
                let mut dice = Dice::new(seed);
                let eighths = 1 + dice.below(7);
                for (offset, data) in writes(pending) {
                    let mut at = offset;
                    for sector in data.chunks(self.tear_bytes) {
                        if dice.below(8) < eighths {
                            image.write(at, sector);
                        }
                        at += sector.len() as u64;
                    }
                }
            }
        }
    }

    /// The index of the flush that ends the window which starts at `from`, or the end of all.
    fn window_end(&self, from: usize) -> usize {
        let rest = self.entries.get(from..).unwrap_or_default();
        let length = rest.iter().position(|entry| matches!(entry, Entry::Flush));
        length.map_or(self.entries.len(), |length| from + length)
    }

    fn windows(&self) -> Vec<Window> {
        let mut windows = Vec::new();
        let mut from = 0;
        while from <= self.entries.len() {
            let end = self.window_end(from);
            let pending = self.entries.get(from..end).unwrap_or_default();
            let writes = writes(pending).count();
            windows.push(Window { flushes: windows.len(), writes });
            from = end + 1;
        }
        windows
    }
}

fn facts(entries: &[Entry]) -> Vec<Fact> {
    let fact = |entry: &Entry| match entry {
        Entry::Fact(fact) => Some(*fact),
        Entry::Write { .. } | Entry::Flush => None,
    };
    entries.iter().filter_map(fact).collect()
}

fn writes(entries: &[Entry]) -> impl Iterator<Item = (u64, &[u8])> {
    entries.iter().filter_map(|entry| match entry {
        Entry::Write { offset, data } => Some((*offset, &data[..])),
        Entry::Fact(_) | Entry::Flush => None,
    })
}

fn apply(image: &mut Image, entries: &[Entry]) {
    for (offset, data) in writes(entries) {
        image.write(offset, data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(offset: u64, byte: u8) -> Entry {
        Entry::Write { offset, data: vec![byte; 1024].into() }
    }

    fn acked(id: u64) -> Entry {
        Entry::Fact(Fact::Acked { id, place: 0 })
    }

    fn trace() -> Trace {
        let entries = vec![
            write(0, 1),
            Entry::Flush,
            acked(1),
            write(4096, 2),
            write(8192, 3),
            acked(2),
            Entry::Flush,
            write(0, 4),
        ];
        Trace::new(Image::zeros(16 * 4096), entries, 512)
    }

    fn bytes_at(state: &CrashState) -> [u8; 5] {
        [0, 512, 4096, 8192, 8192 + 512].map(|at| {
            let mut byte = [0];
            state.image.read(at, &mut byte);
            byte[0]
        })
    }

    fn state(flushes: usize, kept: Kept) -> CrashState {
        let (trace, cuts) = (trace(), [Cut { flushes, kept }]);
        trace.crash_states(&cuts).next().expect("one state for one cut")
    }

    #[test]
    fn a_cut_keeps_what_was_flushed_and_the_named_part_of_the_rest() {
        assert_eq!(bytes_at(&state(0, Kept::Nothing)), [0, 0, 0, 0, 0]);
        assert_eq!(bytes_at(&state(0, Kept::Everything)), [1, 1, 0, 0, 0]);
        assert_eq!(bytes_at(&state(1, Kept::Nothing)), [1, 1, 0, 0, 0]);
        assert_eq!(bytes_at(&state(1, Kept::Without(0))), [1, 1, 0, 3, 3]);
        assert_eq!(bytes_at(&state(1, Kept::Without(1))), [1, 1, 2, 0, 0]);
        assert_eq!(bytes_at(&state(1, Kept::Everything)), [1, 1, 2, 3, 3]);
        assert_eq!(bytes_at(&state(2, Kept::Nothing)), [1, 1, 2, 3, 3]);
        assert_eq!(bytes_at(&state(2, Kept::Everything)), [4, 4, 2, 3, 3]);
    }

    #[test]
    fn a_state_carries_what_was_known_before_the_next_flush_ended() {
        assert!(state(0, Kept::Everything).known.is_empty());
        let known = state(1, Kept::Nothing).known;
        assert_eq!(known, [1, 2].map(|id| Fact::Acked { id, place: 0 }));
    }

    #[test]
    fn some_seed_tears_a_write_in_the_middle() {
        let torn = |seed| bytes_at(&state(1, Kept::Sectors(seed)))[3..] == [3, 0];
        assert!((0..64).any(torn));
    }

    #[test]
    fn cuts_are_different_and_stand_in_windows_that_exist() {
        let cuts = trace().choose_cuts(20, &mut Dice::new(1));
        assert!(cuts.len() > 5 && cuts.len() <= 20);
        assert!(cuts.iter().all(|cut| cut.flushes <= 2));
        assert_eq!(trace().crash_states(&cuts).count(), cuts.len());
    }
}
