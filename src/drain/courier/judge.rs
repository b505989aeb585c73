//! What became of a batch, and what follows: for its events, and for what is thought of the
//! destination.

use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use super::{Courier, Item};
use crate::drain::circuit::State;
use crate::drain::dead::{Buried, Letter};
use crate::drain::queue::{Batch, Entry};
use crate::drain::retry::{self, Fate};
use crate::drain::sink::{Class, Delivered, Failure};

impl Courier {
    pub(super) fn failed(&mut self, failure: &Failure, events: u64) {
        self.way.counters.failed(failure.class, events);
        if let Some(failed) = self.way.failed.as_mut().filter(|_| failure.class != Class::Permanent)
        {
            failed(failure);
        }
    }

    /// What a batch tells about the destination.
    pub(super) fn learn(&mut self, whole: Option<&Failure>, took: Duration, in_flight: usize) {
        let now = self.now();
        match whole {
            None => {
                self.limit.answered(took, in_flight, now);
                self.left_for = None;
                if self.circuit.answered() {
                    tracing::info!(sink = &*self.name, "the destination is back");
                }
            }
            Some(failure) => {
                if failure.class == Class::Overloaded {
                    self.limit.refused();
                    let asked = failure.retry_after.map(|wait| now + wait.min(self.retry.max));
                    self.hold = asked.max(self.hold);
                }
                self.circuit.failed(now, &mut self.jitter);
                self.tell_if_left(failure);
            }
        }
    }

    /// What the answer to a probe tells about the destination.
    pub(super) fn probed(&mut self, probed: &Result<(), Failure>) {
        let now = self.now();
        self.circuit.probed(probed.is_ok(), now, &mut self.jitter);
        match probed {
            Ok(()) => {
                self.limit.begin_again();
                self.queue.hasten(now);
            }
            Err(failure) => {
                self.failed(failure, 0);
                self.tell_if_left(failure);
            }
        }
    }

    /// Says why the destination is left alone, if it is: each time that it is for something else.
    fn tell_if_left(&mut self, failure: &Failure) {
        let why = (failure.class, failure.reason.clone());
        if !matches!(self.circuit.state(), State::Open(_)) || self.left_for.as_ref() == Some(&why) {
            return;
        }
        self.left_for = Some(why);
        tracing::warn!(
            sink = &*self.name,
            class = failure.class.label(),
            reason = &*failure.reason,
            "the destination is left alone until a probe is answered"
        );
    }

    /// Settles, tries again or gives up each event of a batch.
    pub(super) fn judge(&mut self, batch: Batch<Item>, delivered: &Delivered, now: Instant) {
        let (lane, count) = (batch.lane, batch.entries.len());
        let refused_whole =
            matches!(delivered, Delivered::None(why) if why.class == Class::Permanent) && count > 1;
        let mut again = Vec::new();
        let mut free: Option<OwnedSemaphorePermit> = None;
        for (index, mut entry) in batch.entries.into_iter().enumerate() {
            let failure = match verdict(delivered, index) {
                Ok(()) => {
                    self.settle(lane, &entry);
                    // All at once, behind the last: who waits for memory wakes up for many.
                    let permit = entry.item.permit;
                    match &mut free {
                        Some(free) => free.merge(permit),
                        None => free = Some(permit),
                    }
                    continue;
                }
                Err(failure) => failure,
            };
            self.failed(&failure, 1);
            if refused_whole {
                // One of them may be the poison: halves tell which, and spare the others.
                entry.company_max = count / 2;
                again.push((now, entry));
                continue;
            }
            let tried = (entry.attempts, entry.first.unwrap_or(now), now);
            match retry::fate(&self.retry, &failure, tried, &mut self.jitter) {
                Fate::Again(wait) => again.push((now + wait, entry)),
                Fate::Dead => {
                    let Entry { ticket, attempts, item, .. } = entry;
                    let Item { mut event, permit } = item;
                    event.attempts = attempts;
                    self.give_up(Letter { lane, ticket, event, failure, permit });
                }
            }
        }
        if !again.is_empty() {
            self.readied.forget(lane);
        }
        self.way.counters.retried(again.len());
        self.queue.again(lane, again);
        self.tell_place(lane);
    }

    fn settle(&mut self, index: usize, entry: &Entry<Item>) {
        self.way.counters.delivered(entry.bytes);
        if let Some(settled) = &mut self.way.settled {
            settled(&entry.item.event);
        }
        if let Some(lane) = self.lanes.get_mut(index) {
            if let Some(replica) = &lane.replica {
                let waited = self.way.clock.wall_ns();
                let waited = waited.saturating_sub(entry.item.event.received_ns());
                replica.took(Duration::from_nanos(waited));
            }
            lane.settlement.settled(entry.ticket);
        }
        self.queue.settled(index, entry.key);
    }

    pub(super) fn give_up(&mut self, letter: Letter) {
        self.dying += 1;
        // An errand tells whoever sent it, and keeps no letter.
        if !self.way.finite {
            tracing::warn!(
                sink = &*self.name,
                lane = &*letter.event.lane,
                position = %letter.event.position(),
                class = letter.failure.class.label(),
                attempts = letter.event.attempts,
                "an event becomes a dead letter"
            );
        }
        let replica = self.lanes.get(letter.lane).and_then(|lane| lane.replica.as_ref());
        if let Some(replica) = replica {
            // Before it settles, which lets the watermark pass.
            replica.give_up(letter.event.record.get().end().offset());
        }
        // Nobody to take it: it stays unsettled, and comes again after a restart.
        drop(self.way.letters.send(letter));
    }

    pub(super) fn buried(&mut self, Buried { lane, ticket, order_key, class }: Buried) {
        self.dying = self.dying.saturating_sub(1);
        self.way.counters.died(class);
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.settlement.settled(ticket);
        }
        self.queue.settled(lane, order_key);
        self.tell_place(lane);
    }
}

/// What became of one event of a batch.
fn verdict(delivered: &Delivered, index: usize) -> Result<(), Failure> {
    match delivered {
        Delivered::All => Ok(()),
        Delivered::None(failure) => Err(failure.clone()),
        Delivered::Each(verdicts) => verdicts
            .get(index)
            .cloned()
            .unwrap_or_else(|| Err(Failure::temporary("the sink gave no verdict"))),
    }
}

/// Why the destination took nothing, if that says something of it and not of the events.
pub(super) fn whole_failure(delivered: &Delivered) -> Option<&Failure> {
    let of_it = |failure: &&Failure| failure.class != Class::Permanent;
    match delivered {
        Delivered::All => None,
        Delivered::None(failure) => Some(failure).filter(of_it),
        Delivered::Each(verdicts) => {
            let mut failures = verdicts.iter().map(|verdict| verdict.as_ref().err());
            let all = failures.clone().all(|failure| failure.as_ref().is_some_and(of_it));
            failures.next().flatten().filter(|_| all)
        }
    }
}

/// Whether the destination took all of it.
pub(super) fn is_whole(delivered: &Delivered) -> bool {
    match delivered {
        Delivered::All => true,
        Delivered::Each(verdicts) => verdicts.iter().all(Result::is_ok),
        Delivered::None(_) => false,
    }
}
