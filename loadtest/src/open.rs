//! Open loop: requests are due at moments that a schedule fixed in advance, whether or not the
//! server keeps up, and latency counts from the moment a request was due. What finds every
//! connection busy waits, and its wait counts.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use forebay_log::Clock;
use hdrhistogram::Histogram;

use crate::figures::nanos;
use crate::ledger::Ledger;
use crate::outbox::{Attempt, Delivery, Fate, Outbox};
use crate::requests::Fault;
use crate::schedule::Schedule;
use crate::series::{Counts, Level, histogram};
use crate::traffic::Traffic;
use crate::wire::{Answer, Connections};

/// How often everything is looked after that has no moment of its own.
pub(crate) const BEAT: Duration = Duration::from_millis(50);
/// How long after a connection could not be made the next attempt is.
const RECONNECT: Duration = Duration::from_millis(20);

/// Bounds of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// How long a sender waits for an answer.
    pub(crate) timeout: Duration,
    /// How long after the last request was due the last answers and attempts may take.
    pub(crate) drain: Duration,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) ledger: Ledger,
    /// From the moment a genuine request was due to its 2xx, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// How much later than due a request was taken up: the generator's own lateness.
    pub(crate) late: Histogram<u64>,
    pub(crate) counts: Counts,
    /// Answers by what was wrong with the request, and by status.
    pub(crate) answers: BTreeMap<(Fault, u16), u64>,
    pub(crate) given_up: u64,
    /// Attempts that were still to come at the end.
    pub(crate) outstanding: u64,
    pub(crate) dropped_full: u64,
    pub(crate) dropped_old: u64,
    pub(crate) backlog_most: u64,
    /// Why the last connection that ended did.
    pub(crate) last_error: Option<String>,
    /// From the start to the last answer.
    pub(crate) elapsed: Duration,
}

/// What a watcher sees now and then.
#[derive(Debug)]
pub(crate) struct Beat<'b> {
    pub(crate) now: Duration,
    pub(crate) counts: Counts,
    pub(crate) level: Level,
    /// Latencies of what was accepted since the last time.
    pub(crate) accepted: &'b [Duration],
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug)]
enum Slot {
    Idle,
    Busy {
        delivery: Delivery,
        since: Duration,
    },
    /// It could not be opened; to be tried again at this time.
    Down {
        until: Duration,
    },
}

/// Senders, their schedule, and the connections that they share.
pub(crate) struct Run<'run> {
    connections: &'run mut Connections,
    traffic: &'run mut Traffic,
    schedule: Schedule,
    bounds: Bounds,
    outbox: Outbox,
    slots: Vec<Slot>,
    idle: VecDeque<usize>,
    /// How many slots are busy.
    busy: u64,
    bytes: Vec<u8>,
    accepted: Vec<Duration>,
    outcome: Outcome,
    started: Instant,
}

impl<'run> Run<'run> {
    /// A run that has not begun.
    pub(crate) fn new(
        connections: &'run mut Connections,
        traffic: &'run mut Traffic,
        outbox: Outbox,
        schedule: Schedule,
        bounds: Bounds,
    ) -> io::Result<Self> {
        let count = connections.all.len();
        let outcome = Outcome {
            ledger: Ledger::default(),
            latency: histogram(3)?,
            late: histogram(2)?,
            counts: Counts::default(),
            answers: BTreeMap::new(),
            given_up: 0,
            outstanding: 0,
            dropped_full: 0,
            dropped_old: 0,
            backlog_most: 0,
            last_error: None,
            elapsed: Duration::ZERO,
        };
        Ok(Self {
            connections,
            traffic,
            schedule,
            bounds,
            outbox,
            slots: vec![Slot::Idle; count],
            idle: (0..count).collect(),
            busy: 0,
            bytes: Vec::with_capacity(4096),
            accepted: Vec::new(),
            outcome,
            started: Clock::System.monotonic(),
        })
    }

    /// The same behind what a ledger tells of already.
    pub(crate) fn behind(mut self, ledger: Ledger) -> Self {
        self.outcome.ledger = ledger;
        self
    }

    /// Sends by the schedule and waits for the answers; calls `watch` at every beat.
    pub(crate) fn drive(
        mut self,
        mut watch: impl FnMut(&Beat<'_>) -> io::Result<()>,
    ) -> io::Result<Outcome> {
        self.outcome.ledger.make_room(self.schedule.expected());
        self.started = Clock::System.monotonic();
        let end = self.schedule.span() + self.bounds.drain;
        let mut ready = Vec::with_capacity(self.slots.len());
        let mut next_beat = Duration::ZERO;
        loop {
            let now = self.now();
            self.take_up(now)?;
            self.send_ready(now)?;
            if now >= next_beat {
                self.look_after(now)?;
                self.beat(now, &mut watch)?;
                next_beat = now + BEAT;
            }
            if self.finished() || now > end {
                break;
            }
            let patience = self.next_moment(next_beat).saturating_sub(self.now());
            self.connections.wait(patience, &mut ready)?;
            for &index in &ready {
                self.attend(index)?;
            }
        }
        let now = self.now();
        self.beat(now, &mut watch)?;
        let Level { backlog, in_flight, retrying } = self.level();
        self.outcome.outstanding = backlog + in_flight + retrying;
        self.outcome.dropped_full = self.outbox.dropped_full;
        self.outcome.dropped_old = self.outbox.dropped_old;
        Ok(self.outcome)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn finished(&mut self) -> bool {
        self.schedule.peek().is_none() && self.outbox.is_empty() && self.busy == 0
    }

    /// What is due goes to its sender.
    fn take_up(&mut self, now: Duration) -> io::Result<()> {
        while let Some(due) = self.schedule.peek().filter(|due| due.at <= now) {
            self.schedule.take();
            self.outcome.counts.due += 1;
            self.outcome.late.saturating_record(nanos(now.saturating_sub(due.at)));
            let wall_ns = Clock::System.wall_ns();
            let draft = self.traffic.draft(due, wall_ns, &mut self.outcome.ledger)?;
            self.outbox.accept(Delivery { draft, due: due.at, failed: 0 });
        }
        Ok(())
    }

    /// What senders have ready goes out, as far as there are connections.
    fn send_ready(&mut self, now: Duration) -> io::Result<()> {
        while let Some(&index) = self.idle.front() {
            let Some(delivery) = self.outbox.next(now) else { break };
            self.idle.pop_front();
            self.send(index, delivery)?;
        }
        self.outcome.backlog_most = self.outcome.backlog_most.max(self.outbox.backlog() as u64);
        Ok(())
    }

    fn send(&mut self, index: usize, mut delivery: Delivery) -> io::Result<()> {
        if delivery.failed > 0 && !self.outbox.signs_once(&delivery) {
            delivery.draft.signed_ns = Clock::System.wall_ns();
        }
        self.traffic.write(&mut self.bytes, &delivery.draft)?;
        self.outcome.counts.sent += 1;
        self.outcome.ledger.sent(delivery.draft.number);
        self.busy += 1;
        self.slots[index] = Slot::Busy { delivery, since: self.now() };
        if let Err(error) = self.connections.all[index].send(&self.bytes) {
            self.broken(index, &error);
        }
        Ok(())
    }

    fn attend(&mut self, index: usize) -> io::Result<()> {
        if matches!(self.slots[index], Slot::Down { .. }) {
            return Ok(());
        }
        let connection = &mut self.connections.all[index];
        match connection.resume().and_then(|()| connection.receive()) {
            Ok(Some(answer)) => self.answered(index, answer),
            Ok(None) => Ok(()),
            Err(error) => {
                self.broken(index, &error);
                Ok(())
            }
        }
    }

    fn answered(&mut self, index: usize, answer: Answer) -> io::Result<()> {
        let now = self.now();
        let Slot::Busy { delivery, .. } = self.slots[index] else {
            // An answer that nobody has asked for: a deadline of the server, before it ends.
            self.down(index);
            return Ok(());
        };
        self.busy -= 1;
        self.count(&delivery, answer.status, now);
        self.outcome.elapsed = now;
        let fate = self.outbox.settle(delivery, Attempt::Answered(answer.status), now);
        self.count_fate(&delivery, fate);
        if answer.closes {
            return self.reopen(index);
        }
        self.free(index);
        Ok(())
    }

    fn count(&mut self, delivery: &Delivery, status: u16, now: Duration) {
        let (fault, accepted) = (delivery.draft.fault, (200..300).contains(&status));
        *self.outcome.answers.entry((fault, status)).or_default() += 1;
        let counts = &mut self.outcome.counts;
        match (accepted, fault.is_kept()) {
            (true, _) => counts.accepted += 1,
            (false, true) => counts.refused += 1,
            (false, false) => counts.refused_rightly += 1,
        }
        if accepted {
            self.outcome.ledger.acknowledged(delivery.draft.number);
            let latency = now.saturating_sub(delivery.due);
            self.outcome.latency.saturating_record(nanos(latency));
            self.accepted.push(latency);
        }
    }

    /// The connection is of no use any more; what was on it has no answer.
    fn broken(&mut self, index: usize, error: &io::Error) {
        self.outcome.last_error = Some(error.to_string());
        if let Slot::Busy { delivery, .. } = self.slots[index] {
            let now = self.now();
            self.busy -= 1;
            self.outcome.counts.broken += 1;
            let fate = self.outbox.settle(delivery, Attempt::Broken, now);
            self.count_fate(&delivery, fate);
            self.outcome.elapsed = now;
        }
        // Not at once: a server that is gone would be asked without end.
        self.down(index);
    }

    /// Nobody is sorry for a forgery.
    fn count_fate(&mut self, delivery: &Delivery, fate: Fate) {
        let genuine = delivery.draft.fault == Fault::None;
        self.outcome.given_up += u64::from(genuine && fate == Fate::GivenUp);
    }

    fn reopen(&mut self, index: usize) -> io::Result<()> {
        match self.connections.reopen(index) {
            Ok(()) => self.free(index),
            Err(error) if lacks(&error) => return Err(error),
            Err(error) => {
                self.outcome.last_error = Some(error.to_string());
                self.down(index);
            }
        }
        Ok(())
    }

    fn down(&mut self, index: usize) {
        self.slots[index] = Slot::Down { until: self.now() + RECONNECT };
        self.idle.retain(|idle| *idle != index);
    }

    fn free(&mut self, index: usize) {
        if !matches!(self.slots[index], Slot::Idle) {
            self.slots[index] = Slot::Idle;
            self.idle.push_back(index);
        }
    }

    /// Ends what has taken too long, and opens what is down.
    fn look_after(&mut self, now: Duration) -> io::Result<()> {
        for index in 0..self.slots.len() {
            match self.slots[index] {
                Slot::Busy { since, .. } if now.saturating_sub(since) > self.bounds.timeout => {
                    self.broken(index, &io::ErrorKind::TimedOut.into());
                }
                Slot::Down { until } if until <= now => self.reopen(index)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn beat(
        &mut self,
        now: Duration,
        watch: &mut impl FnMut(&Beat<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        for number in self.outbox.take_dropped() {
            self.outcome.ledger.dropped(number);
        }
        let (counts, level) = (self.outcome.counts, self.level());
        watch(&Beat { now, counts, level, accepted: &self.accepted })?;
        self.accepted.clear();
        Ok(())
    }

    fn level(&self) -> Level {
        Level {
            backlog: self.outbox.backlog() as u64,
            in_flight: self.busy,
            retrying: self.outbox.retrying() as u64,
        }
    }

    /// When something has to be done at the latest.
    fn next_moment(&mut self, beat: Duration) -> Duration {
        let due = self.schedule.peek().map(|due| due.at);
        let retry = self.outbox.next_retry().filter(|_| !self.idle.is_empty());
        [due, retry].into_iter().flatten().fold(beat, Duration::min)
    }
}

/// Whether this machine has run out of something, so that trying again is of no use.
fn lacks(error: &io::Error) -> bool {
    let limits = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
    limits.iter().any(|limit| error.raw_os_error() == Some(limit.raw_os_error()))
}

#[cfg(test)]
mod tests;
