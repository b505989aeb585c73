//! The consuming half of an agent: a thread that reads the lane, commits a cursor as it goes, and
//! tells each commit once it is done.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay_log::{Cursor, Reader};

use crate::agent::tell;
use crate::ledger::{Fact, place_of};
use crate::report::say;

/// The cursor by which agents read, where it is not to be a new one.
pub(crate) const CURSOR: &str = "steady";
/// Records between two commits, at most.
const RECORDS_A_COMMIT: usize = 32;
/// Between two looks at a lane in which nothing happens.
const WAIT: Duration = Duration::from_millis(5);

/// A consumer with its cursor.
#[derive(Debug)]
pub(crate) struct Consumer {
    reader: Reader,
    cursor: Cursor,
    /// It is the one cursor that the ledger knows.
    told: bool,
}

impl Consumer {
    /// Goes on where the cursor stands, and tells where that is.
    pub(crate) fn open(dir: &Path, name: &str) -> Result<Self, String> {
        let cursor = Cursor::open(dir, name).map_err(|error| format!("cursor: {error}"))?;
        let told = name == CURSOR;
        if told {
            tell(&[Fact::CursorAt { place: place_of(cursor.place().position()) }]);
        }
        let mut reader = Reader::open(dir).map_err(|error| format!("read: {error}"))?;
        reader.resume(cursor.place()).map_err(|error| format!("resume: {error}"))?;
        Ok(Self { reader, cursor, told })
    }

    /// Reads and commits until told that the work is done.
    pub(crate) fn run(mut self, done: &AtomicBool) {
        while !done.load(Ordering::Relaxed) {
            if let Err(text) = self.step() {
                // A disk that fails refuses commits too: the agent's end tells of that.
                return say(&text);
            }
        }
    }

    fn step(&mut self) -> Result<(), String> {
        let mut read = 0;
        while read < RECORDS_A_COMMIT
            && self.reader.next().map_err(|error| format!("read: {error}"))?.is_some()
        {
            read += 1;
        }
        if read == 0 {
            let waited = self.reader.wait(WAIT);
            return waited.map(drop).map_err(|error| format!("wait: {error}"));
        }
        let place = self.reader.place();
        self.cursor.commit(place).map_err(|error| format!("commit: {error}"))?;
        if self.told {
            tell(&[Fact::CursorPut { place: place_of(place.position()) }]);
        }
        Ok(())
    }
}
