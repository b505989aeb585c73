//! Appended -> Acked: an event is acknowledged once the lane's `acked` watermark has passed it.
//!
//! At `written` the watermark has usually passed before this is asked, and nothing waits. At
//! `synced` a group of requests waits for one sync, at `replicated` for what the sink has settled.
//! They wait here, a queue for each receiver and lane, so that one wake from the thread that moves
//! the watermark releases all that a receiver has waiting.
//!
//! | atomic | who writes | who reads | what it orders |
//! |---|---|---|---|
//! | `Signal::waiting` | the receiver sets it, then looks at `acked` again; whoever moves `acked` clears it | whoever moves `acked`, after moving it | sequentially consistent on both sides, so either the mover sees the waiter or the waiter sees the move |

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use forebay_log::{Lane, LaneState};
use slab::Slab;
use tokio::sync::Notify;

use crate::append::Appended;
use crate::limits::ACK_WAIT_MAX;
use crate::reject::Reject;
use crate::replica::Replica;

/// The event is kept as its lane promises. Only [`Waits::acked`] makes one.
#[derive(Debug)]
pub struct Acked(());

/// The requests of one receiver that wait for one lane.
#[derive(Debug)]
pub struct Waits {
    lane: Arc<Lane>,
    /// Whose watermark counts in place of the lane's own.
    replica: Option<Arc<Replica>>,
    signal: Arc<Signal>,
    waiting: RefCell<Waiting>,
    /// How many waited when they were last counted.
    counted: Cell<usize>,
}

#[derive(Debug, Default)]
struct Waiting {
    slots: Slab<Slot>,
    /// Ordered by the offset that each waits for: nearly always the order of arrival.
    queue: VecDeque<(u64, usize)>,
}

#[derive(Debug)]
struct Slot {
    waker: Waker,
    /// When a sweep first saw it; its request may have begun long before.
    since: Option<Instant>,
    late: bool,
}

/// How the log's threads reach a receiver.
#[derive(Debug, Default)]
struct Signal {
    waiting: AtomicBool,
    moved: Notify,
}

impl forebay_log::Acked for Signal {
    fn waiting(&self) -> bool {
        // Relaxed: the caller has fenced after moving the watermark.
        self.waiting.load(Ordering::Relaxed)
    }

    fn moved(&self) {
        // AcqRel: one mover takes the flag; the receiver sets it again if it still waits.
        if self.waiting.swap(false, Ordering::AcqRel) {
            self.moved.notify_one();
        }
    }
}

impl Waits {
    /// An empty queue, known to the lane and to its replica.
    pub fn new(lane: Arc<Lane>, replica: Option<Arc<Replica>>) -> Rc<Self> {
        let signal = Arc::new(Signal::default());
        let waiter = Arc::clone(&signal) as Arc<dyn forebay_log::Acked>;
        if let Some(replica) = &replica {
            replica.subscribe(&waiter);
        }
        let taken = lane.subscribe(waiter);
        debug_assert!(taken, "limits hold receivers below the subscribers of a lane");
        let (waiting, counted) = (RefCell::default(), Cell::default());
        Rc::new(Self { lane, replica, signal, waiting, counted })
    }

    /// Waits until the event is kept at the lane's ack level.
    pub async fn acked(&self, appended: Appended) -> Result<Acked, Reject> {
        let wait = Wait { waits: self, appended, slot: None };
        wait.await.map(|()| Acked(()))
    }

    /// What has to be waited for where one request carries both events.
    pub fn both(&self, one: Appended, other: Appended) -> Appended {
        let Some(replica) = &self.replica else { return one.or_later(other) };
        // What is replicated needs no more waiting; what was given up has to be seen at the end.
        match (replica.verdict(&one), replica.verdict(&other)) {
            (Some(Ok(())), _) => other,
            (_, Some(Ok(()))) => one,
            _ => one.and(&other),
        }
    }

    /// Releases what the watermark has passed, each time that it moved; never ends.
    pub async fn release(&self) {
        loop {
            self.signal.moved.notified().await;
            self.wake_passed();
        }
    }

    /// Wakes those that have waited too long.
    pub fn sweep(&self, now: Instant) {
        for (_, slot) in &mut self.waiting.borrow_mut().slots {
            let since = *slot.since.get_or_insert(now);
            if now.saturating_duration_since(since) > ACK_WAIT_MAX {
                slot.late = true;
                slot.waker.wake_by_ref();
            }
        }
        if let Some(replica) = &self.replica {
            let waiting = self.waiting.borrow().slots.len();
            replica.counted(self.counted.replace(waiting), waiting);
        }
    }

    /// The watermark that counts.
    fn reached(&self) -> u64 {
        match &self.replica {
            None => self.lane.acked(),
            Some(replica) => replica.reached(),
        }
    }

    /// Whether nobody will be acknowledged for now.
    fn in_vain(&self) -> bool {
        self.lane.state() == LaneState::Failed
            || self.replica.as_ref().is_some_and(|replica| replica.away())
    }

    fn wake_passed(&self) {
        let mut waiting = self.waiting.borrow_mut();
        loop {
            if self.in_vain() {
                for (_, slot) in &waiting.slots {
                    slot.waker.wake_by_ref();
                }
                return;
            }
            let acked = self.reached();
            while waiting.queue.front().is_some_and(|&(end, _)| end <= acked) {
                if let Some((_, slot)) = waiting.queue.pop_front()
                    && let Some(slot) = waiting.slots.get(slot)
                {
                    slot.waker.wake_by_ref();
                }
            }
            if waiting.queue.is_empty() || !self.announce(acked) {
                return;
            }
        }
    }

    /// Says that this receiver waits, then looks again: true if the watermark moved meanwhile.
    fn announce(&self, acked: u64) -> bool {
        self.signal.waiting.store(true, Ordering::Relaxed);
        // SeqCst: pairs with the fence of whoever moves the watermark; see the table above.
        fence(Ordering::SeqCst);
        self.reached() != acked || self.in_vain()
    }
}

struct Wait<'w> {
    waits: &'w Waits,
    appended: Appended,
    slot: Option<usize>,
}

impl Wait<'_> {
    fn look(&self) -> Poll<Result<(), Reject>> {
        let Waits { lane, replica, .. } = self.waits;
        match replica {
            None if lane.acked() >= self.appended.end() => return Poll::Ready(Ok(())),
            None => {}
            Some(replica) => {
                if let Some(verdict) = replica.verdict(&self.appended) {
                    return Poll::Ready(verdict);
                }
            }
        }
        if lane.state() == LaneState::Failed {
            return Poll::Ready(Err(Reject::LogFailed));
        }
        Poll::Pending
    }

    /// The refusal of one that has waited too long.
    fn late(&self) -> Reject {
        if self.waits.replica.is_some() { Reject::NotReplicated } else { Reject::AckTimeout }
    }

    fn enter(&mut self, waker: &Waker) {
        let mut waiting = self.waits.waiting.borrow_mut();
        let Waiting { slots, queue } = &mut *waiting;
        if let Some(slot) = self.slot {
            slots[slot].waker.clone_from(waker);
            return;
        }
        let slot = slots.insert(Slot { waker: waker.clone(), since: None, late: false });
        let end = self.appended.end();
        let place = queue.partition_point(|&(other, _)| other <= end);
        queue.insert(place, (end, slot));
        self.slot = Some(slot);
    }
}

impl Future for Wait<'_> {
    type Output = Result<(), Reject>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(outcome) = self.look() {
            return Poll::Ready(outcome);
        }
        if let Some(slot) = self.slot
            && self.waits.waiting.borrow().slots[slot].late
        {
            return Poll::Ready(Err(self.late()));
        }
        self.enter(cx.waker());
        let acked = self.waits.reached();
        let passed = acked >= self.appended.end();
        if self.waits.announce(acked) || passed { self.look() } else { Poll::Pending }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let Some(slot) = self.slot else { return };
        let mut waiting = self.waits.waiting.borrow_mut();
        let Waiting { slots, queue } = &mut *waiting;
        slots.remove(slot);
        let own = self.appended.end();
        let first = queue.partition_point(|&(end, _)| end < own);
        let same = queue.iter().skip(first).take_while(|&&(end, _)| end == own);
        if let Some(place) = same.into_iter().position(|&(_, known)| known == slot) {
            queue.remove(first + place);
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_log::{AckLevel, Clock, LaneOptions, SEGMENT_BYTES_MIN};
    use tokio::task::LocalSet;

    use super::*;

    /// A lane that replicates, one receiver's waits for it, and a runtime that releases them.
    fn scene<T>(run: impl AsyncFnOnce(Rc<Waits>, Arc<Replica>) -> T) -> T {
        let dir = tempfile::tempdir().expect("a directory");
        let options = LaneOptions {
            segment_bytes: SEGMENT_BYTES_MIN,
            ack: AckLevel::Written,
            disk_reserve_bytes: Some(0),
            ..LaneOptions::default()
        };
        let (lane, _) = Lane::open(dir.path(), options).expect("a lane");
        let replica = Arc::new(Replica::new("stream"));
        let waits = Waits::new(Arc::new(lane), Some(Arc::clone(&replica)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        LocalSet::new().block_on(&runtime.expect("a runtime"), async {
            let releasing = Rc::clone(&waits);
            tokio::task::spawn_local(async move { releasing.release().await });
            run(waits, replica).await
        })
    }

    /// Hangs where a wake is lost.
    #[test]
    fn everyone_is_woken_while_the_replica_moves_on_another_thread() {
        const EVENTS: u64 = 20_000;
        scene(async |waits, replica| {
            let mover = std::thread::spawn(move || {
                for offset in 1..=EVENTS {
                    replica.reach(offset);
                    if offset.is_multiple_of(7) {
                        std::thread::yield_now();
                    }
                }
            });
            for end in 1..=EVENTS {
                let acked = waits.acked(Appended::at(end)).await;
                assert!(acked.is_ok(), "{end}");
            }
            mover.join().expect("no panic");
        });
    }

    #[test]
    fn who_waits_for_a_sink_that_is_left_alone_is_refused_at_once() {
        scene(async |waits, replica| {
            let mover = std::thread::spawn(move || {
                std::thread::sleep(std::time::Duration::from_millis(20));
                replica.leave(true);
            });
            let refused = waits.acked(Appended::at(64)).await;
            assert_eq!(refused.err(), Some(Reject::NotReplicated));
            mover.join().expect("no panic");
        });
    }

    #[test]
    fn who_waits_too_long_is_refused_and_counted_as_waiting_until_then() {
        scene(async |waits, replica| {
            let since = Clock::System.monotonic();
            let sweeping = Rc::clone(&waits);
            let counted = Arc::clone(&replica);
            tokio::task::spawn_local(async move {
                sweeping.sweep(since);
                assert_eq!(counted.waiting(), 1);
                sweeping.sweep(since + 2 * ACK_WAIT_MAX);
            });
            let refused = waits.acked(Appended::at(64)).await;
            assert_eq!(refused.err(), Some(Reject::NotReplicated));
            waits.sweep(since);
            assert_eq!(replica.waiting(), 0);
        });
    }

    #[test]
    fn whose_body_was_long_on_its_way_waits_as_long_as_others() {
        scene(async |waits, replica| {
            let began = Clock::System.monotonic();
            let sweeping = Rc::clone(&waits);
            tokio::task::spawn_local(async move {
                let now = began + 2 * ACK_WAIT_MAX;
                sweeping.sweep(now);
                sweeping.sweep(now + ACK_WAIT_MAX / 2);
                replica.reach(64);
            });
            assert!(waits.acked(Appended::at(64)).await.is_ok());
        });
    }

    #[test]
    fn of_several_events_those_that_are_replicated_hold_nothing_back() {
        scene(async |waits, replica| {
            replica.give_up(128);
            replica.reach(256);
            let span = |one, other| {
                let both = waits.both(Appended::at(one), Appended::at(other));
                (both.first(), both.end())
            };
            assert_eq!(span(64, 320), (320, 320));
            assert_eq!(span(320, 64), (320, 320));
            assert_eq!(span(320, 384), (320, 384));
            // What was given up is not forgotten, and what lies around it not blamed.
            assert_eq!(span(128, 320), (128, 320));
            assert_eq!(span(64, 192), (192, 192));
            assert_eq!(span(128, 192), (128, 128));
        });
    }
}
