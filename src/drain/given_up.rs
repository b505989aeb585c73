//! Dead letters of a lane that replicates: which of its events the replica does not have.
//!
//! A courier tells of those that it gives up itself. This knows of those before it, from the
//! letters that a former run has left, and takes back what an operator has redriven or discarded,
//! a second later.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay_log::{MetaWriter, NewRecord, Position, Reader, RecordRef, Tag};

use super::dead::FIELDS;
use super::letters::{Letters, LettersError};
use crate::replica::Replica;

/// How often it is looked whether a letter was redriven or discarded.
const EVERY: Duration = Duration::from_secs(1);
/// How long one look at the stop lasts.
const LOOK: Duration = Duration::from_millis(50);

/// Where events of one lane ended that became dead letters.
#[derive(Debug, Default)]
struct Ends {
    waiting: BTreeSet<u64>,
    done: BTreeSet<u64>,
}

/// The letters of one lane at the sink that it replicates to.
#[derive(Debug)]
pub(super) struct GivenUp {
    pub(super) dir: PathBuf,
    pub(super) lane: Arc<str>,
    pub(super) replica: Arc<Replica>,
}

impl GivenUp {
    /// Tells the replica of all that wait.
    pub(super) fn begin(&self) -> Result<(), LettersError> {
        self.replica.give_up_all(&ends(&self.dir, &self.lane)?.waiting);
        Ok(())
    }

    /// Takes back what is done with, until told to stop.
    pub(super) fn follow(&self, stop: &AtomicBool) {
        // What was done while this began is seen at the first look.
        let mut seen = 0;
        loop {
            for _ in 0..EVERY.as_millis() / LOOK.as_millis() {
                // Relaxed: a flag that orders nothing else.
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::sleep(LOOK);
            }
            let bytes = Letters::done_bytes(&self.dir);
            if bytes == seen || !self.replica.gave_up() {
                continue;
            }
            match ends(&self.dir, &self.lane) {
                // An event may have died twice; both of its letters have to be done with.
                Ok(Ends { waiting, done }) => {
                    self.replica.take_back(&(&done - &waiting));
                    seen = bytes;
                }
                Err(error) => {
                    tracing::warn!(sink = self.replica.sink(), %error, "dead letters are not read");
                }
            }
        }
    }
}

fn ends(dir: &Path, lane: &str) -> Result<Ends, LettersError> {
    let mut ends = Ends::default();
    if !dir.is_dir() {
        return Ok(ends);
    }
    let letters = Letters::open(dir)?;
    let mut reader = Reader::open(dir)?;
    while let Some(letter) = reader.next_held()? {
        let Some(end) = end_in(lane, &letter.get()) else { continue };
        let set = if letters.waits(&letter) { &mut ends.waiting } else { &mut ends.done };
        set.insert(end);
    }
    Ok(ends)
}

/// Where the event of a letter ended in its lane, if it was this one. A letter that was purged
/// does not say.
fn end_in(lane: &str, letter: &RecordRef<'_>) -> Option<u64> {
    let meta = letter.meta();
    if meta.get(Tag::DeadLane)? != lane.as_bytes() {
        return None;
    }
    let position = std::str::from_utf8(meta.get(Tag::DeadPosition)?).ok()?;
    let position: Position = position.parse().ok()?;
    // The record as it was: what the letter adds to it taken away again.
    let mut theirs = MetaWriter::default();
    for (number, value) in meta.fields() {
        if !FIELDS.iter().any(|tag| *tag as u16 == number) {
            theirs.copy(number, value).ok()?;
        }
    }
    let record = NewRecord {
        kind: letter.kind(),
        key: letter.key(),
        received_ns: letter.received_ns(),
        meta: theirs.as_bytes(),
        body: letter.body(),
    };
    Some(position.offset() + u64::from(record.bytes()?))
}
