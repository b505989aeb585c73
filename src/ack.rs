//! Appended -> Acked: an event is acknowledged once the lane's `acked` watermark has passed it.
//!
//! At `written` the watermark has usually passed before this is asked, and nothing waits. At
//! `synced` a group of requests waits for one sync. They wait here, a queue for each receiver and
//! lane, so that one wake from the log's thread releases all that a receiver has waiting.
//!
//! | atomic | who writes | who reads | what it orders |
//! |---|---|---|---|
//! | `Signal::waiting` | the receiver sets it, then looks at `acked` again; whoever moves `acked` clears it | whoever moves `acked`, after moving it | sequentially consistent on both sides, so either the mover sees the waiter or the waiter sees the move |

use std::cell::RefCell;
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

/// The event is kept as its lane promises. Only [`Waits::acked`] makes one.
#[derive(Debug)]
pub struct Acked(());

/// The requests of one receiver that wait for one lane.
#[derive(Debug)]
pub struct Waits {
    lane: Arc<Lane>,
    signal: Arc<Signal>,
    waiting: RefCell<Waiting>,
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
    since: Instant,
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
    /// An empty queue, known to the lane.
    pub fn new(lane: Arc<Lane>) -> Rc<Self> {
        let signal = Arc::new(Signal::default());
        let taken = lane.subscribe(Arc::clone(&signal) as Arc<dyn forebay_log::Acked>);
        debug_assert!(taken, "limits hold receivers below the subscribers of a lane");
        Rc::new(Self { lane, signal, waiting: RefCell::default() })
    }

    /// Waits until the event is kept at the lane's ack level.
    pub async fn acked(&self, appended: Appended, now: Instant) -> Result<Acked, Reject> {
        let wait = Wait { waits: self, end: appended.end(), since: now, slot: None };
        wait.await.map(|()| Acked(()))
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
            if now.saturating_duration_since(slot.since) > ACK_WAIT_MAX {
                slot.late = true;
                slot.waker.wake_by_ref();
            }
        }
    }

    fn wake_passed(&self) {
        let mut waiting = self.waiting.borrow_mut();
        loop {
            if self.lane.state() == LaneState::Failed {
                for (_, slot) in &waiting.slots {
                    slot.waker.wake_by_ref();
                }
                return;
            }
            let acked = self.lane.acked();
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
        self.lane.acked() != acked || self.lane.state() == LaneState::Failed
    }
}

struct Wait<'w> {
    waits: &'w Waits,
    end: u64,
    since: Instant,
    slot: Option<usize>,
}

impl Wait<'_> {
    fn look(&self) -> Poll<Result<(), Reject>> {
        if self.waits.lane.acked() >= self.end {
            return Poll::Ready(Ok(()));
        }
        if self.waits.lane.state() == LaneState::Failed {
            return Poll::Ready(Err(Reject::LogFailed));
        }
        Poll::Pending
    }

    fn enter(&mut self, waker: &Waker) {
        let mut waiting = self.waits.waiting.borrow_mut();
        let Waiting { slots, queue } = &mut *waiting;
        if let Some(slot) = self.slot {
            slots[slot].waker.clone_from(waker);
            return;
        }
        let slot = slots.insert(Slot { waker: waker.clone(), since: self.since, late: false });
        let place = queue.partition_point(|&(end, _)| end <= self.end);
        queue.insert(place, (self.end, slot));
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
            return Poll::Ready(Err(Reject::AckTimeout));
        }
        self.enter(cx.waker());
        let acked = self.waits.lane.acked();
        if self.waits.announce(acked) || acked >= self.end { self.look() } else { Poll::Pending }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let Some(slot) = self.slot else { return };
        let mut waiting = self.waits.waiting.borrow_mut();
        let Waiting { slots, queue } = &mut *waiting;
        slots.remove(slot);
        let first = queue.partition_point(|&(end, _)| end < self.end);
        let same = queue.iter().skip(first).take_while(|&&(end, _)| end == self.end);
        if let Some(place) = same.into_iter().position(|&(_, known)| known == slot) {
            queue.remove(first + place);
        }
    }
}
