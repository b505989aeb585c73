//! How many dead letters of a sink wait, and since when: counted while the server runs.
//!
//! The lane of the letters and the file of what was done with them are read as any other process
//! would, from where the last look ended: a restart finds what waited before, and what `forebay
//! dead-letters` does shows as well. A look reads a bounded part, so that a lane of millions keeps
//! no new letter waiting; until the first look has come to the end nothing is told.
//!
//! A letter that waits costs 40 bytes or so of memory, whatever is in it.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use forebay_log::{Kind, Position, ReadError, Reader};

use super::letters::{Done, LettersError};

/// Letters that one look reads at the most.
const LOOK_MAX: usize = 4096;

/// What is known of the letters of one sink.
#[derive(Debug)]
pub(super) struct Tally {
    dir: PathBuf,
    done: Done,
    reader: Option<Reader>,
    /// Those that wait, each with when its event arrived.
    waiting: BTreeMap<Position, u64>,
    /// Those that were done with before they were read here.
    early: HashSet<Position>,
}

/// How the letters of a sink stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) letters: u64,
    /// When the event of the oldest letter arrived; unix nanoseconds.
    pub(super) oldest_ns: Option<u64>,
}

impl Tally {
    /// Begins with the letters in `dir`, which need not be there yet.
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            done: Done::new(dir),
            reader: None,
            waiting: BTreeMap::new(),
            early: HashSet::new(),
        }
    }

    /// Reads on. Nothing while there is more to read.
    pub(super) fn look(&mut self) -> Result<Option<Waiting>, LettersError> {
        // First the letters: what is done with one stands in the file after it is in the lane.
        let all = self.read()?;
        for position in self.done.more()? {
            if self.waiting.remove(&position).is_none() {
                self.early.insert(position);
            }
        }
        let oldest_ns = self.waiting.first_key_value().map(|(_, ns)| *ns);
        Ok(all.then_some(Waiting { letters: self.waiting.len() as u64, oldest_ns }))
    }

    /// Retention has left nothing before this offset.
    pub(super) fn begins_at(&mut self, offset: u64) {
        let gone = |position: &Position| position.offset() < offset;
        while self.waiting.first_key_value().is_some_and(|(position, _)| gone(position)) {
            self.waiting.pop_first();
        }
        self.early.retain(|position| !gone(position));
    }

    /// Reads letters; true at the end.
    fn read(&mut self) -> Result<bool, ReadError> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            None if !self.dir.is_dir() => return Ok(true),
            none => none.insert(Reader::open(&self.dir)?),
        };
        for _ in 0..LOOK_MAX {
            let Some(letter) = reader.next()? else { return Ok(true) };
            let position = letter.position();
            if letter.kind() == Kind::Event && !self.early.remove(&position) {
                self.waiting.insert(position, letter.received_ns());
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::super::letters::Letters;
    use super::super::testing::{RECEIVED_NS, Written};
    use super::*;

    fn told(letters: u64) -> Waiting {
        Waiting { letters, oldest_ns: (letters > 0).then_some(RECEIVED_NS) }
    }

    #[test]
    fn letters_wait_from_when_they_are_there_until_something_is_done_with_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("out");
        let mut tally = Tally::new(&dir);
        assert_eq!(tally.look().expect("no lane yet"), Some(told(0)));
        Written::fill(&dir, 5);
        assert_eq!(tally.look().expect("it reads"), Some(told(5)));
        let letters = Letters::open(&dir).expect("letters");
        let mut positions = Vec::new();
        letters.each(|letter| positions.push(letter.get().position())).expect("it reads");
        let mut doing = letters.begin().expect("free");
        doing.done(positions[0], "redriven").expect("written");
        doing.done(positions[3], "discarded").expect("written");
        assert_eq!(tally.look().expect("it reads"), Some(told(3)));
        assert_eq!(tally.look().expect("it reads"), Some(told(3)), "a line counts once");
        // After a restart the file is there before the letters are read.
        let mut again = Tally::new(&dir);
        assert_eq!(again.look().expect("it reads"), Some(told(3)));
        again.begins_at(positions[4].offset());
        assert_eq!(again.look().expect("it reads"), Some(told(1)));
    }

    #[test]
    fn a_look_reads_a_part_and_nothing_is_told_before_the_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("out");
        let count = 2 * LOOK_MAX as u64 + 1;
        Written::fill(&dir, count);
        let mut tally = Tally::new(&dir);
        assert_eq!(tally.look().expect("it reads"), None);
        assert_eq!(tally.look().expect("it reads"), None);
        assert_eq!(tally.look().expect("it reads"), Some(told(count)));
    }
}
