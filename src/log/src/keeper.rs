//! The keeper: the one thread of a lane that syncs, tells, makes ready, seals and retires.
//!
//! Producers never wait for it; it finds its work by looking at the watermarks. A cycle does
//! everything that is due. After it the keeper looks again at once (there is more to sync),
//! pauses (records come in and nobody waits for a sync), or announces that it sleeps and is woken
//! by the next record.
//!
//! It is the only one to sync, so it is the one to see an error of the medium, and that error is
//! final: the kernel may forget it and call the same bytes written the next time. `durable` stays
//! where it is until the records are safe in another file (see `salvage`). If that fails too the
//! lane has failed, and what was not acknowledged never will be.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::sync::Parker;

use crate::lane::AckLevel;
use crate::mapping::{HUGE_BYTES, MarksMap};
use crate::marks::{self, Told};
use crate::planted::{self, Bug, Point};
use crate::shared::{LaneState, Shared};
use crate::store::Store;
use crate::watermark::WatermarksRead;

/// At most so many bytes are synced in one step, so that acknowledgements come in steps too and
/// the next segment is never late.
const SYNC_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// At ack level synced: where so much came while the medium worked, there is more to come, from those
/// who were just acknowledged. Half as long as the sync took is given them, and at most a
/// millisecond; else two halves of the senders take turns, and each needs a sync of its own.
const GATHER_BYTES: u64 = 32 * 1024;
const GATHER_MAX: Duration = Duration::from_millis(1);
/// At ack level written: unsynced bytes are bounded by this, lest the kernel throttle a store, and
/// by an eighth of a segment, down to the least. Records of 64 KiB cost the keeper half with larger
/// steps than 4 MiB; with 16 those of 1 KiB cost it a fifth more than with 8, on memory that no cache held.
const UNSYNCED_BYTES_MAX: u64 = 8 * 1024 * 1024;
const UNSYNCED_BYTES_LEAST: u64 = 4 * 1024 * 1024;
const _: () = assert!(UNSYNCED_BYTES_LEAST >= 2 * HUGE_BYTES, "rounded down, a sync moves on");
/// At ack level written: how long a record may stay unsynced.
const UNSYNCED_MAX: Duration = Duration::from_secs(1);
/// At ack level written: the pause between two cycles while records come in and a tail of some
/// process waits for them.
const PAUSE_AWAITED: Duration = Duration::from_millis(1);
/// The same while nobody waits: each wake of the keeper takes a core from whoever has it.
const PAUSE: Duration = Duration::from_millis(12);
/// The same while more than [`BUSY_BYTES`] came in from one cycle to the next, so that what is made
/// ready ahead is not used up in a pause.
const PAUSE_BUSY: Duration = Duration::from_millis(4);
const BUSY_BYTES: u64 = 2 * 1024 * 1024;
/// How long the keeper sleeps when nothing happens: the low-water mark must be looked at.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// How long closing waits for producers between claim and publication.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(1);

/// The state of the keeper's thread.
#[derive(Debug)]
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    parker: Parker,
    marks: MarksMap,
    told: Told,
    store: Store,
    /// At ack level written: how much may be unsynced.
    unsynced_max: u64,
    /// When the first record came that is not synced yet.
    unsynced_since: Option<Instant>,
    /// How long the last sync took.
    sync_took: Duration,
    /// A tail slept when the marks were told last.
    awaited: bool,
    stall: Option<Stall>,
}

/// Publication stands behind a claim.
#[derive(Clone, Copy, Debug)]
struct Stall {
    published: u64,
    since: Instant,
    /// It stood there at the look before, too.
    seen_twice: bool,
}

/// What to do after a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Again,
    Pause(Duration),
    Sleep,
}

/// Fails the lane if the keeper leaves without having closed it.
struct FailOnPanic(Arc<Shared>);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(|| "the keeper of the lane ended by a bug; restart".to_owned());
        }
    }
}

/// Starts the keeper's thread.
pub(crate) fn spawn(keeper: Keeper) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("keeper".to_owned()).spawn(move || keeper.run())
}

impl Keeper {
    /// Makes the first segment, if there is room, and tells the first marks.
    pub(crate) fn new(
        shared: Arc<Shared>,
        parker: Parker,
        marks: MarksMap,
        mut store: Store,
    ) -> Self {
        store.tend();
        let told = told(&shared, &store, shared.watermarks.durable());
        marks::begin(&marks, store.epoch(), &told);
        let eighth = shared.record_bytes_max / 8;
        Self {
            unsynced_max: eighth.clamp(UNSYNCED_BYTES_LEAST, UNSYNCED_BYTES_MAX),
            shared,
            parker,
            marks,
            told,
            store,
            unsynced_since: None,
            sync_took: Duration::ZERO,
            awaited: false,
            stall: None,
        }
    }

    fn run(mut self) {
        let guard = FailOnPanic(Arc::clone(&self.shared));
        while !self.shared.stopping() {
            match self.cycle() {
                Then::Again => {}
                Then::Pause(span) if self.awaited => {
                    self.parker.park_timeout(span.min(PAUSE_AWAITED));
                }
                Then::Pause(span) => self.parker.park_timeout(span),
                Then::Sleep => self.sleep(),
            }
        }
        self.close();
        drop(guard);
    }

    /// Does everything that is due.
    fn cycle(&mut self) -> Then {
        let before = self.told;
        // Producers publish for one another; this catches what a dying one left behind.
        if self.shared.publish(&mut None) {
            self.shared.published_moved();
        }
        self.watch_stalls();
        self.store.count_published();
        self.sync_if_due();
        self.tell();
        self.store.tend();
        let watermarks = &self.shared.watermarks;
        if self.shared.state() == LaneState::Failed {
            return Then::Sleep;
        }
        let published = watermarks.published();
        let unsynced = published - watermarks.durable();
        let came = published - before.published;
        match self.shared.ack {
            AckLevel::Synced if (GATHER_BYTES..SYNC_BYTES_MAX).contains(&unsynced) => {
                Then::Pause((self.sync_took / 2).min(GATHER_MAX))
            }
            AckLevel::Synced if unsynced > 0 => Then::Again,
            // A step a pause would fall behind, and what gathers takes ever more memory.
            AckLevel::Written if unsynced >= self.unsynced_max => Then::Again,
            AckLevel::Written if came > BUSY_BYTES => Then::Pause(PAUSE_BUSY),
            AckLevel::Written if came > 0 => Then::Pause(PAUSE),
            _ => Then::Sleep,
        }
    }

    /// Times how long a producer stands between claim and publication, held up by the kernel.
    fn watch_stalls(&mut self) {
        let WatermarksRead { claimed, published, .. } = self.shared.watermarks.read();
        let stands = claimed > published;
        if let Some(stall) = self.stall.as_mut().filter(|it| stands && it.published == published) {
            stall.seen_twice = true;
        } else if stands || self.stall.is_some() {
            let since = self.shared.clock.monotonic();
            if let Some(stall) = self.stall.filter(|stall| stall.seen_twice) {
                self.shared.stats.stalls.record(since.saturating_duration_since(stall.since));
            }
            self.stall = stands.then_some(Stall { published, since, seen_twice: false });
        }
    }

    /// Sleeps until something is published, or for a while.
    fn sleep(&mut self) {
        self.shared.announce_idle();
        // The last look, after the announcement: see "Waking" in `shared`.
        let nothing_new = self.shared.watermarks.published() == self.told.published;
        if nothing_new && !self.shared.stopping() {
            self.parker.park_timeout(SLEEP_MAX);
        }
        self.shared.announce_awake();
    }

    /// Syncs a step, if the ack level or the bounds on unsynced bytes ask for it.
    fn sync_if_due(&mut self) {
        let watermarks = &self.shared.watermarks;
        let (published, durable) = (watermarks.published(), watermarks.durable());
        if published == durable || self.shared.state() == LaneState::Failed {
            return;
        }
        let now = self.shared.clock.monotonic();
        let since = *self.unsynced_since.get_or_insert(now);
        if self.shared.ack == AckLevel::Written && published - durable >= self.unsynced_max {
            // To where a huge page ends, if it is one: it is then written once.
            self.sync_to((durable + self.unsynced_max) / HUGE_BYTES * HUGE_BYTES);
        } else if self.shared.ack == AckLevel::Synced {
            self.sync_to(published.min(durable + SYNC_BYTES_MAX));
        } else if now.saturating_duration_since(since) >= UNSYNCED_MAX {
            // All of it, which is less than a step: what stayed would be older than it may be.
            self.sync_to(published);
        }
    }

    /// Syncs up to `target` and moves `durable` there, or to the end of what had to be salvaged, or
    /// fails the lane.
    fn sync_to(&mut self, target: u64) {
        let from = self.shared.watermarks.durable();
        let began = self.shared.clock.monotonic();
        let touched = self.shared.with_segments(|segments| {
            let touched = segments
                .iter()
                .filter(|segment| segment.extent().base < target && segment.extent().end() > from);
            // Collected, so that no lock is held while the medium works.
            touched.cloned().collect::<Vec<_>>()
        });
        planted::pass(Point::Syncing);
        let failed = touched.iter().find_map(|segment| {
            let error = segment.sync(from, target).err()?;
            if planted::has(Bug::SyncRetried) && segment.sync(from, target).is_ok() {
                return None;
            }
            Some((Arc::clone(segment), error))
        });
        let took = self.shared.clock.monotonic().saturating_duration_since(began);
        self.shared.stats.syncs.record(took);
        self.sync_took = took;
        let target = match failed {
            None => target,
            // What was synced before the failure counts with what is salvaged.
            Some((segment, error)) => match self.store.salvage(&segment, &error) {
                Some(salvaged) => salvaged,
                None => return,
            },
        };
        self.unsynced_since = None;
        self.shared.stats.synced_bytes.add(target - from);
        planted::pass(Point::Synced);
        // Other processes first: who is acknowledged by the next line must find the record with a
        // tail, however long this thread is held up in between.
        self.tell_durable(target);
        planted::pass(Point::Told);
        self.shared.watermarks.set_durable(target);
        planted::pass(Point::Durable);
        if self.shared.ack == AckLevel::Synced {
            self.shared.acked_moved();
        }
    }

    /// Tells other processes how far the lane has come, if it has.
    fn tell(&mut self) {
        self.tell_durable(self.shared.watermarks.durable());
    }

    /// The same, with everything below `durable` on the medium.
    fn tell_durable(&mut self, durable: u64) {
        let now = told(&self.shared, &self.store, durable);
        if now == self.told {
            return;
        }
        marks::tell(&self.marks, &now);
        if now.acked != self.told.acked {
            self.awaited = self.marks.wake();
        }
        self.told = now;
    }

    /// Lets no more claims succeed, waits for those under way, syncs and seals.
    fn close(&mut self) {
        let claimed = self.shared.watermarks.close();
        let deadline = self.shared.clock.monotonic() + CLOSE_WAIT_MAX;
        while self.shared.watermarks.published() < claimed {
            if self.shared.publish(&mut None) {
                self.shared.published_moved();
            } else if self.shared.clock.monotonic() > deadline {
                // A producer died between claim and publication; recovery will find the hole.
                break;
            } else {
                std::thread::sleep(PAUSE_AWAITED);
            }
        }
        let published = self.shared.watermarks.published();
        while self.shared.state() != LaneState::Failed
            && self.shared.watermarks.durable() < published
        {
            let durable = self.shared.watermarks.durable();
            self.sync_to(published.min(durable + SYNC_BYTES_MAX));
        }
        if published == claimed && self.shared.state() != LaneState::Failed {
            self.store.seal_all();
        }
        self.tell();
        self.shared.set_state(LaneState::Closed);
        self.shared.acked_moved();
    }
}

/// What the marks should say now, with everything below `durable` on the medium.
fn told(shared: &Shared, store: &Store, durable: u64) -> Told {
    let WatermarksRead { claimed, published, .. } = shared.watermarks.read();
    let acked = match shared.ack {
        AckLevel::Written => published,
        AckLevel::Synced => durable,
    };
    let (first_base, last_base) = store.bases();
    Told { claimed, published, durable, acked, first_base, last_base }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::{Keeper, SYNC_BYTES_MAX, Then, UNSYNCED_MAX};
    use crate::append::{Appended, Appender, NewRecord, pad, roll};
    use crate::format::SEGMENT_BYTES_MIN;
    use crate::lane::{AckLevel, LaneOptions, start};
    use crate::position::{Key, Kind, Position};
    use crate::recover;
    use crate::shared::Shared;
    use crate::tail::{From, Reader};
    use crate::volume::Volume;

    /// A lane whose keeper does nothing but what the test asks for.
    fn lane(dir: &Path, ack: AckLevel) -> (Arc<Shared>, Keeper) {
        lane_of(dir, ack, SEGMENT_BYTES_MIN)
    }

    fn lane_of(dir: &Path, ack: AckLevel, segment_bytes: u64) -> (Arc<Shared>, Keeper) {
        let options = LaneOptions {
            segment_bytes,
            ack,
            disk_reserve_bytes: Some(0),
            volatile_allowed: true,
            ..LaneOptions::default()
        };
        let volume = Volume::of(dir).expect("a file system");
        let plan = recover::plan(dir).expect("a plan");
        let (shared, keeper, _) = start(dir, &options, volume, plan).expect("a keeper");
        (shared, keeper)
    }

    fn append(appender: &mut Appender, number: u64) -> Appended {
        let record = NewRecord {
            kind: Kind::Event,
            key: Key([7; 16]),
            received_ns: number,
            meta: b"",
            body: &[0; 1000],
        };
        appender.append(&record).expect("there is room")
    }

    /// The numbers of the records that a reader finds without waiting.
    fn numbers(dir: &Path, from: From) -> Vec<u64> {
        let mut reader = Reader::open(dir).expect("a reader");
        reader.seek(from).expect("a place");
        drain(&mut reader)
    }

    fn drain(reader: &mut Reader) -> Vec<u64> {
        let mut numbers = Vec::new();
        while let Some(record) = reader.next().expect("readable") {
            numbers.push(record.received_ns());
        }
        numbers
    }

    #[test]
    fn a_producer_that_stands_between_claim_and_publication_is_timed_and_one_that_does_not_is_not()
    {
        let dir = tempfile::tempdir().expect("a directory");
        let (shared, mut keeper) = lane(dir.path(), AckLevel::Synced);
        let segment = shared.segment_from(0).expect("made at the start");
        for (looks, stalls) in [(1, 0), (2, 1), (3, 2)] {
            let from = shared.watermarks.claimed();
            let claim = shared.watermarks.claim(from, from + 64).expect("free");
            for _ in 0..looks {
                keeper.cycle();
            }
            pad(&segment, claim);
            keeper.cycle();
            assert_eq!(shared.stats.stalls.read().count(), stalls, "after {looks} looks");
        }
    }

    #[test]
    fn what_is_a_second_old_is_synced_whole_and_what_is_much_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let (shared, mut keeper) = lane_of(dir.path(), AckLevel::Written, 64 << 20);
        let mut appender = Appender::new(Arc::clone(&shared));
        let (step, start) = (keeper.unsynced_max, shared.watermarks.durable());
        assert!(step > SYNC_BYTES_MAX, "else there is nothing to see");
        for number in 0..(step - (1 << 20)) / 1088 {
            append(&mut appender, number);
        }
        keeper.cycle();
        assert_eq!(shared.watermarks.durable(), start, "neither much nor old");
        keeper.unsynced_since = shared.clock.monotonic().checked_sub(UNSYNCED_MAX);
        keeper.cycle();
        assert_eq!(shared.watermarks.durable(), shared.watermarks.published());
        for number in 0..2 * step / 1088 {
            append(&mut appender, number);
        }
        assert_eq!(keeper.cycle(), Then::Again, "a step was done, and one is left");
        assert_ne!(keeper.cycle(), Then::Again);
        assert!(shared.watermarks.published() - shared.watermarks.durable() < step);
    }

    #[test]
    fn what_is_acknowledged_behind_a_roll_is_read_at_once_though_the_keeper_tells_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let (shared, mut keeper) = lane(dir.path(), AckLevel::Written);
        let mut appender = Appender::new(Arc::clone(&shared));
        let mut follower = Reader::open(dir.path()).expect("a reader");
        let (mut count, mut seen) = (0, Vec::new());
        while shared.watermarks.claimed() < SEGMENT_BYTES_MIN / 2 {
            append(&mut appender, count);
            count += 1;
        }
        // The last that this keeper does: it makes the next segment and tells how far it is.
        keeper.cycle();
        seen.extend(drain(&mut follower));
        assert_eq!(numbers(dir.path(), From::Latest), [0_u64; 0], "made ahead is not open");
        let mut behind = Vec::new();
        let mut last = append(&mut appender, count);
        count += 1;
        while behind.len() < 5 {
            let placed = append(&mut appender, count);
            count += 1;
            assert!(shared.acked() >= placed.end, "acknowledged at once");
            if placed.start.offset() > SEGMENT_BYTES_MIN {
                behind.push(placed);
            }
            let all: Vec<_> = (0..count).collect();
            assert_eq!(numbers(dir.path(), From::Earliest), all);
            assert_eq!(numbers(dir.path(), From::Position(placed.start)), [count - 1]);
            let amid = Position::new(1, last.start.offset() + 64);
            assert_eq!(numbers(dir.path(), From::Position(amid)), [count - 1]);
            seen.extend(drain(&mut follower));
            assert_eq!(seen, all);
            last = placed;
        }
        let mut newest = Reader::open(dir.path()).expect("a reader");
        newest.seek(From::Latest).expect("a place");
        assert_eq!(newest.offset(), shared.acked());
    }

    #[test]
    fn what_stands_behind_a_hole_is_not_read_although_a_later_segment_has_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let (shared, mut keeper) = lane(dir.path(), AckLevel::Written);
        let mut appender = Appender::new(Arc::clone(&shared));
        for number in 0..40 {
            append(&mut appender, number);
        }
        keeper.cycle();
        let segment = shared.segment_from(0).expect("made at the start");
        let from = shared.watermarks.claimed();
        let claim = shared.watermarks.claim(from, from + 64).expect("free");
        roll(&shared, &segment, from + 64).expect("the next one is there");
        let behind = append(&mut appender, 40);
        assert!(behind.start.offset() > SEGMENT_BYTES_MIN && shared.acked() == from);
        let first = Position::new(1, 0);
        for place in [From::Earliest, From::Position(first)] {
            assert_eq!(numbers(dir.path(), place), (0..40).collect::<Vec<_>>());
        }
        assert_eq!(numbers(dir.path(), From::Position(behind.start)), [0_u64; 0]);
        pad(&segment, claim);
        assert!(shared.publish(&mut None));
        assert_eq!(numbers(dir.path(), From::Earliest), (0..=40).collect::<Vec<_>>());
        assert_eq!(numbers(dir.path(), From::Position(behind.start)), [40]);
    }
}
