//! How far a lane has come at the sink that it replicates to: a watermark of the drain, behind the
//! three of the log, so that `published >= durable >= replicated`.
//!
//! The courier of that sink moves it; the receivers wait for it in [`crate::ack`], woken as they
//! are by the log's own. Nothing else is shared between the two halves.
//!
//! An event that the sink gave up on is behind the watermark and not replicated. Its end stands in
//! a set of its own until its dead letter is redriven or discarded: no delivery of it gets a 2xx.
//!
//! | atomic | writer | readers | ordering | what becomes visible |
//! |---|---|---|---|---|
//! | `reached` | the courier | receivers, the scrape | Release / Acquire | that the sink has settled everything below it, and `given_up` up to there |
//! | `away` | the courier | receivers, readiness | Relaxed, then a `SeqCst` fence where somebody may wait | nothing but itself |
//! | `given_up` | the courier adds, the reader of letters takes out | receivers | `ArcSwap` | the set whole |
//! | `waiters` | each receiver once, at its start | the courier | `ArcSwap` | the waiter whole |
//! | `waiting` | receivers, ten times a second | the scrape | Relaxed | nothing but itself |
//!
//! Waking is the log's protocol: whoever moves stores, fences and looks for announcements; whoever
//! waits announces, fences and looks at the watermark once more. See [`forebay_log::Acked`].

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam::utils::CachePadded;
use forebay_log::Acked;

use crate::append::Appended;
use crate::observe::Latency;
use crate::reject::Reject;

/// What receivers and drain share of one lane.
pub struct Replica {
    sink: String,
    reached: CachePadded<AtomicU64>,
    away: AtomicBool,
    given_up: ArcSwap<BTreeSet<u64>>,
    waiters: ArcSwap<Vec<Arc<dyn Acked>>>,
    waiting: AtomicUsize,
    took: Latency,
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sink, reached) = (&self.sink, self.reached());
        f.debug_struct("Replica")
            .field("sink", sink)
            .field("reached", &reached)
            .finish_non_exhaustive()
    }
}

impl Replica {
    /// Of a lane that replicates to `sink`, which has told nothing yet.
    pub fn new(sink: &str) -> Self {
        Self {
            sink: sink.to_owned(),
            reached: CachePadded::default(),
            away: AtomicBool::new(false),
            given_up: ArcSwap::default(),
            waiters: ArcSwap::default(),
            waiting: AtomicUsize::new(0),
            took: Latency::default(),
        }
    }

    /// The name of the sink.
    pub fn sink(&self) -> &str {
        &self.sink
    }

    /// The offset up to which the sink has settled everything.
    pub fn reached(&self) -> u64 {
        // Acquire: pairs with the Release in `reach`.
        self.reached.load(Ordering::Acquire)
    }

    /// Whether the sink is left alone, so that waiting for it is in vain.
    pub fn away(&self) -> bool {
        // Relaxed: a lone flag; whoever goes to sleep on it has fenced before.
        self.away.load(Ordering::Relaxed)
    }

    /// Requests that wait for it, as last looked at.
    pub fn waiting(&self) -> usize {
        // Relaxed: a lone number.
        self.waiting.load(Ordering::Relaxed)
    }

    /// How long events took from their arrival until the sink had them.
    pub fn latency(&self) -> &Latency {
        &self.took
    }

    /// What can be said of an event by now; nothing: it has to wait. Of several events of one
    /// request it is an error if any event between the first and the last was given up.
    pub fn verdict(&self, appended: &Appended) -> Option<Result<(), Reject>> {
        let (first, end) = (appended.first(), appended.end());
        if self.reached() < end {
            return self.away().then_some(Err(Reject::NotReplicated));
        }
        // After `reached`, which tells of it.
        let given_up = self.given_up.load();
        let lost = given_up.range(first..=end).next().is_some();
        Some(if lost { Err(Reject::NotReplicated) } else { Ok(()) })
    }

    /// Adds one who waits, for good.
    pub(crate) fn subscribe(&self, waiter: &Arc<dyn Acked>) {
        self.waiters.rcu(|waiters| -> Vec<_> { waiters.iter().chain([waiter]).cloned().collect() });
    }

    /// So many requests of one receiver wait, where `before` did.
    pub(crate) fn counted(&self, before: usize, now: usize) {
        // Relaxed: a lone number. Wrapping, so that a fall is an addition as well.
        self.waiting.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }

    /// The sink has settled everything before `offset`. The courier alone calls this.
    pub(crate) fn reach(&self, offset: u64) {
        if offset <= self.reached() {
            return;
        }
        // Release: pairs with `reached`; what was given up below is in its set by now.
        self.reached.store(offset, Ordering::Release);
        self.tell();
    }

    /// The sink is left alone, or asked again. The courier alone calls this.
    pub(crate) fn leave(&self, away: bool) {
        // Relaxed: see `away`.
        self.away.store(away, Ordering::Relaxed);
        if away {
            self.tell();
        }
    }

    /// The sink has given up the event that ends here; before it is settled.
    pub(crate) fn give_up(&self, end: u64) {
        self.give_up_all(&BTreeSet::from([end]));
    }

    /// As [`Replica::give_up`], of many.
    pub(crate) fn give_up_all(&self, ends: &BTreeSet<u64>) {
        self.given_up.rcu(|known| -> BTreeSet<u64> { &**known | ends });
    }

    /// The letters of these events are done with.
    pub(crate) fn take_back(&self, ends: &BTreeSet<u64>) {
        self.given_up.rcu(|known| -> BTreeSet<u64> { &**known - ends });
    }

    /// Whether anything is given up.
    pub(crate) fn gave_up(&self) -> bool {
        !self.given_up.load().is_empty()
    }

    /// An event is at the sink, so long after its arrival. The courier alone calls this.
    pub(crate) fn took(&self, took: Duration) {
        self.took.record(took);
    }

    fn tell(&self) {
        // SeqCst: between the move and the look at the announcements.
        fence(Ordering::SeqCst);
        for waiter in self.waiters.load().iter().filter(|waiter| waiter.waiting()) {
            waiter.moved();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_waits_until_the_sink_has_come_past_it() {
        let replica = Replica::new("stream");
        let event = Appended::at(64);
        assert_eq!(replica.verdict(&event), None);
        replica.reach(63);
        assert_eq!(replica.verdict(&event), None);
        replica.reach(64);
        assert_eq!(replica.verdict(&event), Some(Ok(())));
        replica.reach(32);
        assert_eq!(replica.reached(), 64, "it never moves back");
    }

    #[test]
    fn nobody_waits_for_a_sink_that_is_left_alone_and_what_it_has_counts() {
        let replica = Replica::new("stream");
        replica.reach(64);
        replica.leave(true);
        assert_eq!(replica.verdict(&Appended::at(64)), Some(Ok(())));
        assert_eq!(replica.verdict(&Appended::at(128)), Some(Err(Reject::NotReplicated)));
        replica.leave(false);
        assert_eq!(replica.verdict(&Appended::at(128)), None);
    }

    #[test]
    fn what_was_given_up_is_never_replicated_until_its_letter_is_done_with() {
        let replica = Replica::new("stream");
        replica.give_up(128);
        replica.reach(256);
        assert_eq!(replica.verdict(&Appended::at(64)), Some(Ok(())));
        assert_eq!(replica.verdict(&Appended::at(128)), Some(Err(Reject::NotReplicated)));
        assert_eq!(replica.verdict(&Appended::at(192)), Some(Ok(())));
        let both = Appended::at(64).and(&Appended::at(192));
        assert_eq!(replica.verdict(&both), Some(Err(Reject::NotReplicated)), "one between them");
        replica.take_back(&BTreeSet::from([128]));
        assert_eq!(replica.verdict(&Appended::at(128)), Some(Ok(())));
        assert!(!replica.gave_up());
    }
}
