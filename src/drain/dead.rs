//! Events that were given up: kept in a lane of their own for each sink, with what is known of why.
//!
//! ```text
//! courier --(event, reason)--> thread "forebay-dead" --> lane DATA/dead-letters/SINK
//!    ^                                                      |
//!    +------------------- its ticket, once it is durable ---+
//! ```
//!
//! A dead letter is the record as it was, and four fields more: why, how often it was tried, and
//! the lane and position that it had. The event settles once the letter is on the medium, so that
//! it is always in one of the two.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender};
use forebay_log::{
    AckLevel, AgeSince, AppendError, Appender, Clock, Kind, Lane, LaneOptions, MetaWriter,
    NewRecord, Retention, Tag,
};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

use super::sink::{Class, Event, Failure};
use super::tally::{Tally, Waiting};
use crate::observe::SinkCounters;

/// How long a dead letter is kept, from when it became one: its event may be old already.
const AGE: Duration = Duration::from_secs(90 * 86_400);
/// How long a letter that could not be kept waits for the next try.
const REST: Duration = Duration::from_secs(1);
/// How often it is looked whether a letter is durable.
const LOOK: Duration = Duration::from_millis(1);
/// How often the letters that wait are counted.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// Letters that share one sync.
const TOGETHER_MAX: usize = 256;
/// The longest reason that is kept.
const REASON_BYTES_MAX: usize = 2048;
/// Segments are mapped whole.
const PAGE_BYTES: u64 = 4096;

/// What a letter says beside what the record said.
pub(super) const FIELDS: [Tag; 4] =
    [Tag::DeadReason, Tag::DeadAttempts, Tag::DeadLane, Tag::DeadPosition];

/// The folder of the dead letters of a sink.
pub fn dir(data_dir: &Path, sink: &str) -> PathBuf {
    data_dir.join("dead-letters").join(sink)
}

/// An event that is given up.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) lane: usize,
    pub(super) ticket: u64,
    pub(super) event: Event,
    pub(super) failure: Failure,
    /// What it takes of the sink's memory.
    pub(super) permit: OwnedSemaphorePermit,
}

/// What is told of a letter that is on the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Buried {
    pub(super) lane: usize,
    pub(super) ticket: u64,
    pub(super) order_key: Option<u64>,
    /// Of the failure that it died of.
    pub(super) class: Class,
}

/// What the lane of a sink's dead letters needs.
#[derive(Clone, Debug)]
pub(super) struct Grave {
    pub(super) dir: PathBuf,
    pub(super) sink: Arc<str>,
    /// Bytes of the largest record that is taken now. One that is older may be larger.
    pub(super) record_bytes_max: u64,
    pub(super) clock: Clock,
    /// Told how many letters wait.
    pub(super) counters: Arc<SinkCounters>,
}

/// What keeps letters until nobody sends any more, on a thread of its own. The lane is opened by the
/// first.
pub(super) fn keeper(
    grave: Grave,
    buried: UnboundedSender<Buried>,
) -> (Sender<Letter>, impl FnOnce() + Send + 'static) {
    let (sender, letters) = channel::unbounded();
    (sender, move || keep(&grave, &letters, &buried))
}

/// The lane of the letters, once there is one.
#[derive(Debug, Default)]
struct Ground {
    lane: Option<(Lane, Appender)>,
    meta: MetaWriter,
    /// Of the letters at hand, those that are in the lane, and where the last of them ends.
    appended: usize,
    end: u64,
    /// Bytes of the largest letter that there was no room for in a segment.
    record_bytes_max: u64,
}

fn keep(grave: &Grave, letters: &Receiver<Letter>, buried: &UnboundedSender<Buried>) {
    let mut ground = Ground::default();
    let mut counting = Counting { tally: Tally::new(&grave.dir), told: false };
    loop {
        let pause = if counting.count(grave, &ground) { COUNT_EVERY } else { Duration::ZERO };
        let first = match letters.recv_timeout(pause) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let mut together = vec![first];
        together.extend(letters.try_iter().take(TOGETHER_MAX - 1));
        (ground.appended, ground.end) = (0, 0);
        let mut told = false;
        while let Err(error) = ground.bury(grave, &together) {
            if !told {
                tracing::error!(
                    sink = &*grave.sink,
                    error,
                    "a dead letter is not kept; its event stays unsettled, trying again"
                );
            }
            told = true;
            // Nobody waits for it any more: the event is still in its lane.
            if buried.is_closed() {
                return;
            }
            std::thread::sleep(REST);
        }
        for Letter { lane, ticket, event, failure, permit } in together {
            let (order_key, class) = (event.order_key, failure.class);
            // A courier that is gone will find the event in its lane again.
            _ = buried.send(Buried { lane, ticket, order_key, class });
            drop(permit);
        }
    }
}

/// Counts the letters that wait.
struct Counting {
    tally: Tally,
    /// That they cannot be counted was said.
    told: bool,
}

impl Counting {
    /// Counts a part of them; false if there is more.
    fn count(&mut self, grave: &Grave, ground: &Ground) -> bool {
        // Only a lane that is open loses letters by their age.
        if let Some(Ok(offset)) = ground.lane.as_ref().map(|(lane, _)| lane.first_offset()) {
            self.tally.begins_at(offset);
        }
        match self.tally.look() {
            Ok(None) => return false,
            Ok(Some(Waiting { letters, oldest_ns })) => {
                grave.counters.letters_wait(letters, oldest_ns);
                self.told = false;
            }
            Err(error) => {
                if !self.told {
                    tracing::warn!(sink = &*grave.sink, %error, "dead letters cannot be counted");
                }
                self.told = true;
            }
        }
        true
    }
}

impl Ground {
    /// Appends the letters that are not there yet, and waits until all are on the medium.
    fn bury(&mut self, grave: &Grave, letters: &[Letter]) -> Result<(), String> {
        while let Some(letter) = letters.get(self.appended) {
            if let Some(end) = self.append(grave, letter)? {
                self.end = end;
                self.appended += 1;
            } else {
                // What is in the segments that there are is kept before there are larger ones.
                self.await_kept()?;
                self.lane = None;
            }
        }
        self.await_kept()
    }

    /// Appends a letter, and says where it ends. Nothing if no segment can hold it: its event is of
    /// a time when larger ones were taken, and larger segments are asked for, so that no letter
    /// waits behind it.
    fn append(&mut self, grave: &Grave, letter: &Letter) -> Result<Option<u64>, String> {
        if self.lane.is_none() {
            self.lane = Some(open(grave, self.record_bytes_max.max(grave.record_bytes_max))?);
        }
        let Some((_, appender)) = &mut self.lane else { return Ok(None) };
        write(&mut self.meta, letter).map_err(|error| error.to_string())?;
        let record = letter.event.record.get();
        let record = NewRecord {
            kind: Kind::Event,
            key: record.key(),
            received_ns: record.received_ns(),
            meta: self.meta.as_bytes(),
            body: record.body(),
        };
        match (appender.append(&record), record.bytes().map(u64::from)) {
            (Ok(place), _) => Ok(Some(place.end)),
            (Err(AppendError::TooLarge { .. }), Some(bytes)) if bytes > self.record_bytes_max => {
                self.record_bytes_max = bytes;
                Ok(None)
            }
            (Err(error), _) => Err(error.to_string()),
        }
    }

    /// Waits until the letters that were appended are on the medium.
    fn await_kept(&self) -> Result<(), String> {
        let Some((lane, _)) = &self.lane else { return Ok(()) };
        while lane.acked() < self.end {
            if let Some(why) = lane.failure() {
                return Err(why.to_owned());
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

/// The lane, with room for several records of this size in a segment.
fn open(grave: &Grave, record_bytes_max: u64) -> Result<(Lane, Appender), String> {
    let parent = grave.dir.parent().unwrap_or(&grave.dir);
    std::fs::create_dir_all(parent).map_err(|error| format!("{}: {error}", parent.display()))?;
    let wanted = (4 * record_bytes_max).next_power_of_two();
    let segment_bytes = wanted.clamp(1 << 20, forebay_log::SEGMENT_BYTES_MAX);
    let options = LaneOptions {
        segment_bytes: segment_bytes / PAGE_BYTES * PAGE_BYTES,
        ack: AckLevel::Synced,
        retention: Retention { age: Some(AGE), bytes: None },
        // A record says when its event arrived.
        age_since: AgeSince::Sealed,
        // Where lanes that synced are refused, nothing is synced anywhere.
        volatile_allowed: true,
        clock: grave.clock.clone(),
        ..LaneOptions::default()
    };
    let (lane, _) = Lane::open(&grave.dir, options).map_err(|error| error.to_string())?;
    let appender = lane.appender();
    Ok((lane, appender))
}

/// The fields of the record as they were, and those of the letter in front of them.
fn write(meta: &mut MetaWriter, letter: &Letter) -> Result<(), forebay_log::FieldTooLong> {
    meta.clear();
    let Letter { event, failure, .. } = letter;
    let record = event.record.get();
    let mut reason = failure.to_string();
    let cut = (0..=REASON_BYTES_MAX).rev().find(|at| reason.is_char_boundary(*at));
    reason.truncate(cut.unwrap_or(0));
    let (lane, position) = match (event.field(Tag::DeadLane), event.field(Tag::DeadPosition)) {
        // A letter that was redriven and died once more.
        (Some(lane), Some(position)) => (lane.into_owned(), position.into_owned()),
        _ => (event.lane.to_string(), event.position().to_string()),
    };
    meta.field(Tag::DeadReason, reason.as_bytes())?;
    meta.field(Tag::DeadAttempts, event.attempts.to_string().as_bytes())?;
    meta.field(Tag::DeadLane, lane.as_bytes())?;
    meta.field(Tag::DeadPosition, position.as_bytes())?;
    for (number, value) in record.meta().fields() {
        if !FIELDS.iter().any(|tag| *tag as u16 == number) {
            meta.copy(number, value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use tokio::sync::{Semaphore, mpsc};

    use super::super::letters::Letters;
    use super::super::testing::{RECEIVED_NS, Written};
    use super::*;

    const LETTERS: u8 = 100;
    const DAY_NS: u64 = 86_400_000_000_000;
    /// Longer than retention takes to look again.
    const RETENTION_LOOKS: Duration = Duration::from_millis(1500);

    fn waiting(dir: &Path) -> usize {
        let mut count = 0;
        Letters::open(dir).expect("letters").each(|_| count += 1).expect("they can be read");
        count
    }

    #[test]
    fn a_letter_of_an_old_event_is_kept_as_long_as_one_of_a_new_event() {
        let data = tempfile::tempdir().expect("a folder");
        // The events arrived 100 days before they were given up.
        let clock = Clock::fixed(RECEIVED_NS + 100 * DAY_NS);
        let Clock::Fixed(now_ns) = clock.clone() else { unreachable!("it is fixed") };
        let counters = Arc::new(SinkCounters::new("out", "stdout", ["main"]));
        let dir = dir(data.path(), "out");
        let grave = Grave {
            dir: dir.clone(),
            sink: "out".into(),
            record_bytes_max: 1 << 16,
            clock,
            counters,
        };
        let (bury, mut buried) = mpsc::unbounded_channel();
        let (letters, keep) = keeper(grave, bury);
        let keeping = std::thread::spawn(keep);
        let mut written = Written::new();
        let memory = Arc::new(Semaphore::new(usize::from(LETTERS)));
        let body = format!("\"{}\"", "x".repeat(30_000));
        let record = written.event(1, &body).record.clone();
        for number in 0..LETTERS {
            let permit = Arc::clone(&memory).try_acquire_owned().expect("room");
            let event = Written::event_of(record.clone());
            let failure = Failure::permanent("no");
            let letter = Letter { lane: 0, ticket: number.into(), event, failure, permit };
            letters.send(letter).expect("it is kept");
        }
        for _ in 0..LETTERS {
            buried.blocking_recv().expect("it is on the medium");
        }
        std::thread::sleep(RETENTION_LOOKS);
        assert_eq!(waiting(&dir), usize::from(LETTERS));
        let age_ns = u64::try_from(AGE.as_nanos()).expect("90 days");
        now_ns.fetch_add(age_ns + DAY_NS, Ordering::Relaxed);
        // What is left is in the segment that is written.
        let gone = || waiting(&dir) < usize::from(LETTERS) / 2;
        let mut looks = 0..40;
        while !gone() && looks.next().is_some() {
            std::thread::sleep(RETENTION_LOOKS / 3);
        }
        assert!(gone(), "{}", waiting(&dir));
        drop(letters);
        keeping.join().expect("it ends");
    }
}
