//! What appenders, the keeper and the handle of a lane share.
//!
//! | atomic | writer | readers | ordering | what becomes visible |
//! |---|---|---|---|---|
//! | watermarks | see `watermark` | | | |
//! | `state` | the keeper | appenders, everyone | Release / Acquire | nothing but itself |
//! | `keeper_idle` | the keeper sets, whoever wakes it clears | appenders | Relaxed after a `SeqCst` fence | see below |
//! | `stopping` | the closing handle | the keeper | Release / Acquire | nothing but itself |
//! | `subscriber_count` | `subscribe` | whoever notifies | Release / Acquire | the subscriber in its slot |
//!
//! # Waking
//!
//! A sleeper (a subscriber, the keeper) announces that it waits, then looks at the watermark once
//! more, then sleeps. A mover moves the watermark, then looks for the announcement. Between the
//! two steps each runs a `SeqCst` fence, so at least one of them sees the other: either the
//! sleeper sees the new watermark, or the mover sees the announcement. No lock, and no syscall
//! while nobody sleeps.
//!
//! The table of segments is behind a lock that an appender takes only when it leaves a segment,
//! which is once in many thousand records.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};

use crossbeam::sync::{ShardedLock, Unparker};
use crossbeam::utils::CachePadded;

use crate::clock::Clock;
use crate::lane::AckLevel;
use crate::planted::{self, Bug};
use crate::segment::Segment;
use crate::stats::Stats;
use crate::watermark::Watermarks;

/// Upper bound on subscribers of one lane: one a receiver, and a few.
pub const SUBSCRIBERS_MAX: usize = 513;

/// Someone who waits for records to be acknowledged.
///
/// The one who waits sets its flag, runs `fence(SeqCst)`, looks at [`Lane::acked`] once more and
/// sleeps only if it still must wait; [`Acked::waiting`] reads that flag. Then no wake is lost.
///
/// [`Lane::acked`]: crate::Lane::acked
pub trait Acked: Send + Sync {
    /// Whether this one waits. Called after every move, so it should be one load.
    fn waiting(&self) -> bool;

    /// The acknowledged end has moved, or the lane has failed. Called on the thread that moved
    /// it, possibly by several at once; should only wake the one who waits.
    fn moved(&self);
}

/// Whether a lane takes records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LaneState {
    /// It does.
    Open = 0,
    /// The disk is at its low-water mark; this passes by itself when space returns.
    Full = 1,
    /// A sync failed past salvage, or the keeper is gone; this lasts until the process is restarted.
    Failed = 2,
    /// The lane was closed.
    Closed = 3,
}

impl LaneState {
    fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Open,
            1 => Self::Full,
            3 => Self::Closed,
            _ => Self::Failed,
        }
    }
}

/// The common ground of one open lane.
pub(crate) struct Shared {
    pub(crate) watermarks: Watermarks,
    pub(crate) ack: AckLevel,
    pub(crate) clock: Clock,
    pub(crate) stats: Stats,
    /// The largest record that a segment of this lane can hold, header included.
    pub(crate) record_bytes_max: u64,
    /// Segments from the one that `durable` is in to the one that is ready for the next roll.
    segments: ShardedLock<Vec<Arc<Segment>>>,
    state: CachePadded<AtomicU8>,
    keeper_idle: CachePadded<AtomicBool>,
    stopping: AtomicBool,
    /// Why the lane has failed.
    failure: OnceLock<String>,
    unparker: Unparker,
    subscribers: Box<[OnceLock<Arc<dyn Acked>>]>,
    subscriber_count: AtomicUsize,
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("watermarks", &self.watermarks)
            .field("ack", &self.ack)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// What a lane is opened with, as far as the shared part needs it.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) offset: u64,
    pub(crate) ack: AckLevel,
    pub(crate) clock: Clock,
    pub(crate) record_bytes_max: u64,
    pub(crate) unparker: Unparker,
}

impl Shared {
    pub(crate) fn new(start: Start) -> Self {
        Self {
            watermarks: Watermarks::new(start.offset),
            ack: start.ack,
            clock: start.clock,
            stats: Stats::default(),
            record_bytes_max: start.record_bytes_max,
            segments: ShardedLock::new(Vec::new()),
            state: CachePadded::new(AtomicU8::new(LaneState::Open as u8)),
            keeper_idle: CachePadded::new(AtomicBool::new(false)),
            stopping: AtomicBool::new(false),
            failure: OnceLock::new(),
            unparker: start.unparker,
            subscribers: (0..SUBSCRIBERS_MAX).map(|_| OnceLock::new()).collect(),
            subscriber_count: AtomicUsize::new(0),
        }
    }

    /// How far records are acknowledged at the lane's ack level.
    pub(crate) fn acked(&self) -> u64 {
        match self.ack {
            AckLevel::Written => self.watermarks.published(),
            AckLevel::Synced if planted::has(Bug::AckBeforeSync) => self.watermarks.published(),
            AckLevel::Synced => self.watermarks.durable(),
        }
    }

    pub(crate) fn state(&self) -> LaneState {
        // Acquire: pairs with `set_state`.
        LaneState::from_number(self.state.load(Ordering::Acquire))
    }

    /// Sets the state. A failure lasts: nothing but closing follows it.
    pub(crate) fn set_state(&self, state: LaneState) {
        if self.state() != LaneState::Failed || state == LaneState::Closed {
            // Release: pairs with `state`. The keeper is the only writer.
            self.state.store(state as u8, Ordering::Release);
        }
    }

    /// The lane has failed: nobody will be acknowledged any more, so nobody should wait.
    pub(crate) fn fail(&self, why: impl FnOnce() -> String) {
        // The first failure is the one that explains the others.
        self.failure.get_or_init(why);
        self.set_state(LaneState::Failed);
        fence(Ordering::SeqCst);
        self.each_subscriber(|subscriber| subscriber.moved());
    }

    /// Why the lane has failed, if it has.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Adds a subscriber for the life of the lane; false if there are [`SUBSCRIBERS_MAX`].
    pub(crate) fn subscribe(&self, subscriber: &Arc<dyn Acked>) -> bool {
        for (index, slot) in self.subscribers.iter().enumerate() {
            if slot.set(Arc::clone(subscriber)).is_ok() {
                // Release: pairs with `each_subscriber`; the slot is filled before it counts.
                self.subscriber_count.fetch_max(index + 1, Ordering::Release);
                return true;
            }
        }
        false
    }

    fn each_subscriber(&self, mut tell: impl FnMut(&dyn Acked)) {
        // Acquire: pairs with `subscribe`.
        let count = self.subscriber_count.load(Ordering::Acquire);
        for subscriber in self.subscribers.iter().take(count).filter_map(OnceLock::get) {
            tell(subscriber.as_ref());
        }
    }

    /// Tells subscribers that `acked` has moved. See "Waking" above.
    pub(crate) fn acked_moved(&self) {
        // SeqCst: between the move and the look at the announcements.
        fence(Ordering::SeqCst);
        self.each_subscriber(|subscriber| {
            if subscriber.waiting() {
                subscriber.moved();
            }
        });
    }

    /// After `published` has moved: tells whoever must know.
    pub(crate) fn published_moved(&self) {
        match self.ack {
            AckLevel::Written => self.acked_moved(),
            // SeqCst: between the move and the look at `keeper_idle`.
            AckLevel::Synced => fence(Ordering::SeqCst),
        }
        self.wake_keeper();
    }

    /// Wakes the keeper if it has announced that it sleeps.
    pub(crate) fn wake_keeper(&self) {
        // Relaxed: ordered by the fence that every caller has run; the swap picks one waker.
        if self.keeper_idle.load(Ordering::Relaxed)
            && self.keeper_idle.swap(false, Ordering::Relaxed)
        {
            self.unparker.unpark();
        }
    }

    /// The keeper announces that it is about to sleep, and must then look once more.
    pub(crate) fn announce_idle(&self) {
        // Relaxed: ordered by the fence.
        self.keeper_idle.store(true, Ordering::Relaxed);
        // SeqCst: between the announcement and the keeper's last look.
        fence(Ordering::SeqCst);
    }

    /// The keeper is awake again.
    pub(crate) fn announce_awake(&self) {
        // Relaxed: an appender that still sees the announcement unparks in vain, and that is all.
        self.keeper_idle.store(false, Ordering::Relaxed);
    }

    /// Asks the keeper to close the lane.
    pub(crate) fn stop(&self) {
        // Release: pairs with `stopping`.
        self.stopping.store(true, Ordering::Release);
        self.unparker.unpark();
    }

    pub(crate) fn stopping(&self) -> bool {
        // Acquire: pairs with `stop`.
        self.stopping.load(Ordering::Acquire)
    }

    /// The segment in which a record may start, or end, at `offset`.
    pub(crate) fn segment_at(&self, offset: u64) -> Option<Arc<Segment>> {
        self.with_segments(|segments| {
            segments.iter().find(|segment| segment.extent().holds(offset)).cloned()
        })
    }

    /// The segment that starts at `base`.
    pub(crate) fn segment_from(&self, base: u64) -> Option<Arc<Segment>> {
        self.with_segments(|segments| {
            segments.iter().find(|segment| segment.extent().base == base).cloned()
        })
    }

    /// Looks at the table of segments, oldest first.
    pub(crate) fn with_segments<T>(&self, look: impl FnOnce(&[Arc<Segment>]) -> T) -> T {
        // A table is whole even if a thread panicked while it held the lock: see `add_segment`.
        let segments = match self.segments.read() {
            Ok(segments) => segments,
            Err(poisoned) => poisoned.into_inner(),
        };
        look(&segments)
    }

    /// Makes a segment available to the next roll.
    pub(crate) fn add_segment(&self, segment: Arc<Segment>) {
        match self.segments.write() {
            Ok(mut segments) => segments.push(segment),
            Err(poisoned) => poisoned.into_inner().push(segment),
        }
    }

    /// Puts a segment in the place of the one that starts where it does.
    pub(crate) fn replace_segment(&self, fresh: &Arc<Segment>) {
        let mut segments = match self.segments.write() {
            Ok(segments) => segments,
            Err(poisoned) => poisoned.into_inner(),
        };
        let same = |segment: &&mut Arc<Segment>| segment.extent().base == fresh.extent().base;
        if let Some(place) = segments.iter_mut().find(same) {
            *place = Arc::clone(fresh);
        }
    }

    /// Drops the oldest segment from the table; appenders that still hold it are done with it.
    pub(crate) fn drop_oldest(&self) {
        let mut segments = match self.segments.write() {
            Ok(segments) => segments,
            Err(poisoned) => poisoned.into_inner(),
        };
        if !segments.is_empty() {
            segments.remove(0);
        }
    }

    /// Moves `published` as far as records are in place; true if this call moved it.
    ///
    /// `held` is a segment that the caller knows, to spare the look into the table.
    pub(crate) fn publish(&self, held: &mut Option<Arc<Segment>>) -> bool {
        let watermarks = &self.watermarks;
        watermarks.publish(|offset| {
            if !held.as_ref().is_some_and(|segment| segment.extent().holds(offset)) {
                *held = self.segment_at(offset);
            }
            let segment = held.as_ref()?;
            let extent = segment.extent();
            if offset < extent.record_end() {
                return segment.committed_end(offset);
            }
            // The records end here; go on in the next segment once someone has rolled.
            (watermarks.claimed() > offset).then_some(extent.end() + crate::format::PAGE_BYTES)
        })
    }
}
