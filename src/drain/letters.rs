//! The dead letters of a sink as an operator sees them: those that are neither redriven nor
//! discarded yet.
//!
//! The lane of the letters is written by the server alone. What was done with a letter stands
//! beside it in the file `done`: one line each, its position and what it was. A line is on the
//! medium before the letter counts as done; a redrive that is killed before that brings it twice.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use forebay_log::{Position, ReadError, Reader, Record};

/// The file beside the segments.
const DONE_FILE: &str = "done";

/// Why letters cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LettersError {
    /// The lane cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file of what was done cannot be read or written.
    #[error("{}: {error}", path.display())]
    Done {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Somebody else works on these letters.
    #[error("{} is in use: another redrive or discard is under way", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
}

/// The letters of one sink.
#[derive(Debug)]
pub struct Letters {
    dir: PathBuf,
    done: HashSet<Position>,
}

impl Letters {
    /// Those in `dir`; none if it is not there.
    pub fn open(dir: &Path) -> Result<Self, LettersError> {
        Ok(Self { dir: dir.to_owned(), done: Done::new(dir).more()?.into_iter().collect() })
    }

    /// Calls `take` with every letter that waits, oldest first.
    pub fn each(&self, mut take: impl FnMut(Record)) -> Result<(), LettersError> {
        if !self.dir.is_dir() {
            return Ok(());
        }
        let mut reader = Reader::open(&self.dir)?;
        while let Some(record) = reader.next_held()? {
            if self.waits(&record) {
                take(record);
            }
        }
        Ok(())
    }

    /// Bytes of what is remembered as done: it only grows.
    pub fn done_bytes(dir: &Path) -> u64 {
        std::fs::metadata(dir.join(DONE_FILE)).map_or(0, |file| file.len())
    }

    /// Whether nothing was done with a letter.
    pub fn waits(&self, record: &Record) -> bool {
        !self.done.contains(&record.get().position())
    }

    /// Takes the right to do something with them.
    pub fn begin(&self) -> Result<Doing, LettersError> {
        let path = self.dir.join(DONE_FILE);
        let failed = |error| LettersError::Done { path: path.clone(), error };
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).mode(0o640).open(&path).map_err(failed)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(LettersError::InUse { path }),
            Err(error) => return Err(failed(error.into())),
        }
        // Takes away a line that a crash has cut: ended here, it would be another position.
        let text = std::fs::read(&path).map_err(failed)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64).map_err(failed)?;
        // The name of a new file as well: a loss of power must not take all that stands in it.
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
        Ok(Doing { path, file })
    }
}

/// The file of what was done, as it grows.
#[derive(Debug)]
pub(super) struct Done {
    path: PathBuf,
    /// Bytes of whole lines that were read.
    read: u64,
}

impl Done {
    pub(super) fn new(dir: &Path) -> Self {
        Self { path: dir.join(DONE_FILE), read: 0 }
    }

    /// The letters of the lines that were added since the last call.
    pub(super) fn more(&mut self) -> Result<Vec<Position>, LettersError> {
        let failed = |error| LettersError::Done { path: self.path.clone(), error };
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut text = String::new();
        let more = file.seek(io::SeekFrom::Start(self.read));
        more.and_then(|_| file.read_to_string(&mut text)).map_err(failed)?;
        // A line that a crash has cut is no position, and its letter not done.
        let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
        self.read += if whole.is_empty() { 0 } else { whole.len() as u64 + 1 };
        Ok(whole.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect())
    }
}

/// The right to do something with the letters of a sink.
#[derive(Debug)]
pub struct Doing {
    path: PathBuf,
    file: File,
}

impl Doing {
    /// Remembers that a letter is done with: `redriven` or `discarded`.
    pub fn done(&mut self, position: Position, what: &str) -> Result<(), LettersError> {
        let line = format!("{position} {what}\n");
        let failed = |error| LettersError::Done { path: self.path.clone(), error };
        self.file.write_all(line.as_bytes()).map_err(failed)
    }

    /// All that was remembered is on the medium when this returns.
    pub fn sync(&self) -> Result<(), LettersError> {
        let failed = |error| LettersError::Done { path: self.path.clone(), error };
        self.file.sync_data().map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_remembered_and_a_cut_line_is_not_believed() {
        let dir = tempfile::tempdir().expect("a directory");
        let letters = Letters::open(dir.path()).expect("no letters yet");
        {
            let mut doing = letters.begin().expect("free");
            doing.done(Position::new(1, 64), "redriven").expect("written");
            doing.sync().expect("synced");
            assert!(matches!(letters.begin(), Err(LettersError::InUse { .. })));
        }
        let path = dir.path().join(DONE_FILE);
        let mut text = std::fs::read_to_string(&path).expect("text");
        text.push_str("1-12");
        std::fs::write(&path, &text).expect("written");
        let known = |letters: &Letters| {
            let mut known: Vec<u64> = letters.done.iter().map(|one| one.offset()).collect();
            known.sort_unstable();
            known
        };
        let letters = Letters::open(dir.path()).expect("letters");
        assert_eq!(known(&letters), [64], "1-12 may have been 1-128");
        letters.begin().expect("free").done(Position::new(1, 128), "discarded").expect("written");
        let after = Letters::open(dir.path()).expect("letters");
        assert_eq!(known(&after), [64, 128]);
    }
}
