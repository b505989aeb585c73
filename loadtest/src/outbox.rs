//! What senders hold between the moment a request is due and its last answer: queues of rooms,
//! requests that wait for a connection, and retries that wait for their time. No socket and no
//! clock: whoever asks says what time it is.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use crate::habits::Habits;
use crate::requests::Draft;

/// One request on its way, in one of its attempts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    pub(crate) draft: Draft,
    /// The moment from which its latency counts.
    pub(crate) due: Duration,
    /// Attempts that ended without the answer that the sender wants.
    pub(crate) failed: u8,
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    Answered(u16),
    /// No answer: the connection ended, or time was up.
    Broken,
}

/// What becomes of a delivery after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The sender has the answer that it takes as the last.
    Settled,
    /// It comes again.
    Again,
    /// The sender has no attempts left.
    GivenUp,
}

/// A room of a sender that sends one by one.
#[derive(Debug, Default)]
struct Room {
    queue: VecDeque<Delivery>,
    busy: bool,
}

/// A retry and its time; of two at the same time the one that was put off first.
#[derive(Debug)]
struct Later {
    at: Duration,
    order: u64,
    delivery: Delivery,
}

impl PartialEq for Later {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Later {}
impl PartialOrd for Later {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Later {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// Everything that is due and not settled, but for what is in flight.
#[derive(Debug)]
pub(crate) struct Outbox {
    habits: Vec<Habits>,
    ready: VecDeque<Delivery>,
    later: BinaryHeap<Reverse<Later>>,
    rooms: BTreeMap<(u8, u32), Room>,
    /// Requests that wait in the queue of a room.
    queued: usize,
    order: u64,
    /// Requests that never left their sender, because the queue of the room was full.
    pub(crate) dropped_full: u64,
    /// The same, because they had waited too long.
    pub(crate) dropped_old: u64,
    /// The events of both.
    dropped: Vec<u32>,
}

impl Outbox {
    /// For senders with these habits, by number.
    pub(crate) fn new(habits: Vec<Habits>) -> Self {
        Self {
            habits,
            ready: VecDeque::new(),
            later: BinaryHeap::new(),
            rooms: BTreeMap::new(),
            queued: 0,
            order: 0,
            dropped_full: 0,
            dropped_old: 0,
            dropped: Vec::new(),
        }
    }

    /// A request has come due; its sender may drop it.
    pub(crate) fn accept(&mut self, delivery: Delivery) {
        let Some(rooms) = self.rooms_of(&delivery) else {
            self.ready.push_back(delivery);
            return;
        };
        let room = self.rooms.entry((delivery.draft.sender, delivery.draft.room)).or_default();
        if !room.busy {
            room.busy = true;
            self.ready.push_back(delivery);
            return;
        }
        if room.queue.len() >= rooms.depth {
            self.dropped_full += 1;
            self.dropped.push(delivery.draft.number);
            return;
        }
        room.queue.push_back(delivery);
        self.queued += 1;
    }

    /// The events of which senders have dropped a request since the last time.
    pub(crate) fn take_dropped(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.dropped)
    }

    /// The next request for a free connection.
    pub(crate) fn next(&mut self, now: Duration) -> Option<Delivery> {
        while self.later.peek().is_some_and(|Reverse(later)| later.at <= now) {
            let Some(Reverse(later)) = self.later.pop() else { break };
            self.ready.push_back(later.delivery);
        }
        self.ready.pop_front()
    }

    /// When the next retry has its time.
    pub(crate) fn next_retry(&self) -> Option<Duration> {
        self.later.peek().map(|Reverse(later)| later.at)
    }

    /// An attempt has ended.
    pub(crate) fn settle(&mut self, mut delivery: Delivery, ended: Attempt, now: Duration) -> Fate {
        let Some(habits) = self.habits.get(usize::from(delivery.draft.sender)) else {
            return Fate::GivenUp;
        };
        let retries = delivery.draft.fault.is_sent_again();
        let settled = match ended {
            Attempt::Answered(status) => !retries || habits.is_final(status),
            Attempt::Broken => false,
        };
        let delay = habits.delays.get(usize::from(delivery.failed)).copied();
        if let (false, true, Some(delay)) = (settled, retries, delay) {
            delivery.failed += 1;
            self.order += 1;
            self.later.push(Reverse(Later { at: now + delay, order: self.order, delivery }));
            return Fate::Again;
        }
        self.release(&delivery, now);
        if settled { Fate::Settled } else { Fate::GivenUp }
    }

    /// Whether a further attempt carries the signature of the first.
    pub(crate) fn signs_once(&self, delivery: &Delivery) -> bool {
        self.habits.get(usize::from(delivery.draft.sender)).is_some_and(|habits| habits.signs_once)
    }

    /// Requests that are due and wait: for a connection, or for others of their room.
    pub(crate) fn backlog(&self) -> usize {
        self.ready.len() + self.queued
    }

    /// Requests that wait for the time of their next attempt.
    pub(crate) fn retrying(&self) -> usize {
        self.later.len()
    }

    /// Whether nothing is left that could still be sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.backlog() == 0 && self.later.is_empty()
    }

    /// Lets the next event of a room go.
    fn release(&mut self, settled: &Delivery, now: Duration) {
        let Some(rooms) = self.rooms_of(settled) else { return };
        let key = (settled.draft.sender, settled.draft.room);
        let Some(room) = self.rooms.get_mut(&key) else { return };
        room.busy = false;
        while let Some(next) = room.queue.pop_front() {
            self.queued -= 1;
            if now.saturating_sub(next.due) > rooms.age {
                self.dropped_old += 1;
                self.dropped.push(next.draft.number);
                continue;
            }
            room.busy = true;
            self.ready.push_back(next);
            return;
        }
    }

    /// Forgeries are nobody's queue.
    fn rooms_of(&self, delivery: &Delivery) -> Option<crate::habits::Rooms> {
        let habits = self.habits.get(usize::from(delivery.draft.sender))?;
        habits.rooms.filter(|_| delivery.draft.fault.is_sent_again())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests::Fault;

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn outbox(preset: &str) -> Outbox {
        let profile = forebay::verify::preset(preset).expect("a preset");
        Outbox::new(vec![Habits::of(profile, 1.0)])
    }

    fn delivery(number: u32, due: Duration) -> Delivery {
        let draft = Draft { number, room: 7, ..Draft::default() };
        Delivery { draft, due, failed: 0 }
    }

    #[test]
    fn a_room_sends_one_by_one_in_order() {
        let mut outbox = outbox("livekit");
        for number in 0..3 {
            outbox.accept(delivery(number, at(0)));
        }
        for number in 0..3 {
            let sent = outbox.next(at(1)).expect("one is ready");
            assert_eq!(sent.draft.number, number);
            assert!(outbox.next(at(1)).is_none(), "one of a room at a time");
            assert_eq!(outbox.settle(sent, Attempt::Answered(200), at(2)), Fate::Settled);
        }
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_room_holds_two_hundred_and_drops_what_is_too_old() {
        let mut outbox = outbox("livekit");
        for number in 0..202 {
            outbox.accept(delivery(number, at(0)));
        }
        assert_eq!((outbox.dropped_full, outbox.backlog()), (1, 201));
        assert_eq!(outbox.take_dropped(), [201]);
        let first = outbox.next(at(0)).expect("one is ready");
        outbox.accept(Delivery { draft: Draft { room: 8, ..first.draft }, ..first });
        outbox.settle(first, Attempt::Answered(200), at(30_001));
        assert_eq!((outbox.dropped_old, outbox.backlog()), (200, 1), "another room is left alone");
    }

    #[test]
    fn a_room_waits_for_the_retries_of_its_first() {
        let mut outbox = outbox("livekit");
        outbox.accept(delivery(1, at(0)));
        outbox.accept(delivery(2, at(0)));
        let mut now = at(0);
        for seconds in [1, 2, 4, 8] {
            let sent = outbox.next(now).expect("an attempt has its time");
            assert_eq!(sent.draft.number, 1);
            assert_eq!(outbox.settle(sent, Attempt::Answered(503), now), Fate::Again);
            now += Duration::from_secs(seconds);
            assert_eq!(outbox.next_retry(), Some(now));
            assert!(outbox.next(now.saturating_sub(at(1))).is_none());
        }
        let last = outbox.next(now).expect("the fifth attempt");
        assert_eq!(outbox.settle(last, Attempt::Broken, now), Fate::GivenUp);
        assert_eq!(outbox.next(now).map(|next| next.draft.number), Some(2));
    }

    #[test]
    fn others_send_side_by_side_and_come_back_for_a_client_error() {
        let mut outbox = outbox("stripe");
        outbox.accept(delivery(1, at(0)));
        outbox.accept(delivery(2, at(0)));
        let (one, two) = (outbox.next(at(0)), outbox.next(at(0)));
        let (one, two) = (one.expect("ready"), two.expect("ready"));
        assert_eq!(outbox.settle(two, Attempt::Answered(200), at(1)), Fate::Settled);
        assert_eq!(outbox.settle(one, Attempt::Answered(400), at(1)), Fate::Again);
        assert_eq!((outbox.retrying(), outbox.backlog()), (1, 0));
    }

    #[test]
    fn a_forgery_is_sent_once_and_stands_in_no_queue() {
        let mut outbox = outbox("livekit");
        let mut forged = delivery(1, at(0));
        forged.draft.fault = Fault::Forged;
        outbox.accept(delivery(0, at(0)));
        outbox.accept(forged);
        assert!(outbox.next(at(0)).is_some());
        let forged = outbox.next(at(0)).expect("it does not wait for the room");
        assert_eq!(outbox.settle(forged, Attempt::Answered(401), at(0)), Fate::Settled);
        outbox.accept(forged);
        let forged = outbox.next(at(0)).expect("ready");
        assert_eq!(outbox.settle(forged, Attempt::Broken, at(0)), Fate::GivenUp);
    }
}
