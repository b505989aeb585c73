//! The appending half of an agent: threads that append, wait and tell what was acknowledged.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::thread::{self, Thread};
use std::time::Duration;

use forebay_log::{Acked, AppendError, Appended, Clock, Kind, Lane, LaneState, NewRecord};

use crate::agent::{Orders, tell};
use crate::ledger::{Event, Fact, place_of};
use crate::report::say;

/// How long nothing may happen before the lane counts as stalled.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long an agent that nobody attends stays with a lane that is full.
const FULL_PATIENCE: Duration = Duration::from_secs(2);
/// Between two tries on a full lane.
const FULL_PAUSE: Duration = Duration::from_millis(2);

/// What the threads of an agent share.
#[derive(Debug)]
struct Work<'a> {
    lane: &'a Lane,
    orders: &'a Orders,
    next: AtomicU64,
    told_to_stop: Arc<AtomicBool>,
}

/// Appends what the orders say, from as many threads.
pub(crate) fn append_all(lane: &Lane, orders: &Orders) {
    if orders.count == 0 {
        return;
    }
    tell(&[Fact::Claimed { first: orders.first, count: orders.count }]);
    let told_to_stop = Arc::new(AtomicBool::new(false));
    if orders.attended {
        let stop = Arc::clone(&told_to_stop);
        // Not joined: it ends with its input, or with the process.
        thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            stop.store(true, Ordering::Relaxed);
        });
    }
    let work = Work { lane, orders, next: AtomicU64::new(0), told_to_stop };
    thread::scope(|scope| {
        for _ in 0..orders.threads {
            scope.spawn(|| Appending::new(&work).run());
        }
    });
    let count = lane.stats().salvages;
    if count > 0 {
        tell(&[Fact::Salvaged { count }]);
    }
    if let Some(why) = lane.failure() {
        say(why);
    }
}

/// Wakes a thread that waits for acknowledgements.
#[derive(Debug)]
struct Waiter {
    waiting: AtomicBool,
    thread: Thread,
}

impl Acked for Waiter {
    fn waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    fn moved(&self) {
        self.thread.unpark();
    }
}

/// One thread that appends, and what it has not seen acknowledged.
#[derive(Debug)]
struct Appending<'a> {
    work: &'a Work<'a>,
    waiter: Arc<Waiter>,
    pending: VecDeque<(u64, Appended)>,
    clock: Clock,
}

impl<'a> Appending<'a> {
    fn new(work: &'a Work<'a>) -> Self {
        let waiting = AtomicBool::new(false);
        let waiter = Arc::new(Waiter { waiting, thread: thread::current() });
        let subscriber: Arc<dyn Acked> = Arc::<Waiter>::clone(&waiter);
        if !work.lane.subscribe(subscriber) {
            say("there are too many subscribers");
        }
        Self { work, waiter, pending: VecDeque::new(), clock: Clock::System }
    }

    fn run(mut self) {
        let mut appender = self.work.lane.appender();
        while let Some(id) = self.next_id() {
            let Ok(event) = Event::of(id) else { return };
            let record = NewRecord {
                kind: Kind::Event,
                key: event.key,
                received_ns: event.received_ns,
                meta: &event.meta,
                body: &event.body,
            };
            if !self.place(id, || appender.append(&record)) {
                break;
            }
            self.settle();
            if self.pending.len() >= self.work.orders.depth && !self.wait() {
                break;
            }
        }
        while !self.pending.is_empty() && self.wait() {}
        if self.work.lane.state() == LaneState::Failed {
            self.watch_the_failed_lane();
        }
    }

    fn next_id(&self) -> Option<u64> {
        let number = self.work.next.fetch_add(1, Ordering::Relaxed);
        (number < self.work.orders.count && !self.stopped())
            .then(|| self.work.orders.first + number)
    }

    fn stopped(&self) -> bool {
        self.work.told_to_stop.load(Ordering::Relaxed)
    }

    /// Appends until it has worked; false if it never will.
    fn place(
        &mut self,
        id: u64,
        mut append: impl FnMut() -> Result<Appended, AppendError>,
    ) -> bool {
        let mut full_since = None;
        while !self.stopped() {
            let began = self.clock.monotonic();
            match append() {
                Ok(appended) => {
                    self.pending.push_back((id, appended));
                    return true;
                }
                Err(AppendError::Full) => {
                    let now = self.clock.monotonic();
                    if full_since.is_none() {
                        let took = now.saturating_duration_since(began).as_micros();
                        let took_us = u64::try_from(took).unwrap_or(u64::MAX);
                        tell(&[Fact::Full { id, took_us }]);
                    }
                    let waited = now.saturating_duration_since(*full_since.get_or_insert(now));
                    self.settle();
                    if !self.work.orders.attended && waited > FULL_PATIENCE {
                        tell(&[Fact::GaveUp]);
                        return false;
                    }
                    thread::sleep(FULL_PAUSE);
                }
                Err(AppendError::Failed) => {
                    tell(&[Fact::Failed]);
                    return false;
                }
                Err(error) => {
                    say(&format!("append: {error}"));
                    tell(&[Fact::Refused { id }]);
                    return false;
                }
            }
        }
        false
    }

    /// Tells what has been acknowledged; true if there was something.
    fn settle(&mut self) -> bool {
        let lane = self.work.lane;
        let early = self.work.orders.ack_before_sync;
        let acked = if early { lane.watermarks().published } else { lane.acked() };
        let mut facts = Vec::new();
        while let Some((id, appended)) = self.pending.front().copied() {
            if appended.end > acked {
                break;
            }
            facts.push(Fact::Acked { id, place: place_of(appended.start) });
            self.pending.pop_front();
        }
        tell(&facts);
        !facts.is_empty()
    }

    /// Waits until something is acknowledged; false if nothing ever will be.
    fn wait(&mut self) -> bool {
        let deadline = self.clock.monotonic() + PATIENCE;
        loop {
            // The announcement, then the last look, then the sleep: as `Acked` demands.
            self.waiter.waiting.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            let settled = self.settle();
            if settled || self.work.lane.state() == LaneState::Failed {
                self.waiter.waiting.store(false, Ordering::Relaxed);
                // What was acknowledged before the failure may have come in between.
                if settled || self.settle() {
                    return true;
                }
                tell(&[Fact::Failed]);
                return false;
            }
            let left = deadline.saturating_duration_since(self.clock.monotonic());
            if left.is_zero() {
                let id = self.pending.front().map_or(0, |(id, _)| *id);
                tell(&[Fact::Stalled { id }]);
                return false;
            }
            // The control has nobody to wake it.
            let early = self.work.orders.ack_before_sync;
            thread::park_timeout(if early { FULL_PAUSE } else { left });
        }
    }

    /// After a failure the acknowledged end must stay where it is.
    fn watch_the_failed_lane(&self) {
        let acked = self.work.lane.acked();
        thread::sleep(Duration::from_millis(100));
        if self.work.lane.acked() != acked {
            tell(&[Fact::MovedAfterFailure]);
        }
    }
}
