//! Events -> the sink: one task for each sink, which sends, judges what became of it, and settles.
//!
//! All of it but the deliveries themselves is state machines without a clock: order and batches in
//! `queue`, how many at once in `limit`, when again in `retry`, whether at all in `circuit`, how
//! fast in `rate`, how far in `settle`. Nothing is shared but counters.

mod judge;

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;
use forebay_log::{Clock, Place};
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{OwnedSemaphorePermit, watch};

use self::judge::{is_whole, whole_failure};
use super::attempt::{Attempt, Readied, attempt};
use super::circuit::{Circuit, State};
use super::dead::{Buried, Letter};
use super::feed::{Fed, Progress, Told};
use super::limit::Limit;
use super::queue::{Batch, Bounds, Entry, Queue};
use super::rate::Rate;
use super::retry::Jitter;
use super::settle::Settlement;
use super::sink::{Class, Delivered, Event, Failure, Sink, Turn};
use crate::config::{RetryConfig, SinkConfig};
use crate::observe::SinkCounters;
use crate::replica::Replica;

/// How long a probe may take.
const PROBE_MAX: Duration = Duration::from_secs(10);

/// One lane as its sink sees it.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) settlement: Settlement,
    /// Where its cursor may stand; nothing before it has begun.
    pub(super) place: watch::Sender<Option<Place>>,
    pub(super) ended: bool,
    pub(super) next_ticket: u64,
    /// Who is told how far it has come, where acknowledgements wait for that.
    pub(super) replica: Option<Arc<Replica>>,
}

/// What is under way: the event, and its part of the sink's memory.
#[derive(Debug)]
struct Item {
    event: Event,
    permit: OwnedSemaphorePermit,
}

/// How something under way ended.
enum Done {
    Batch { batch: Batch<Item>, began: Instant, in_flight: usize, delivered: Delivered },
    Probe(Result<(), Failure>),
}

/// Told of each event that the sink has taken.
pub type OnSettled = Box<dyn FnMut(&Event) + Send>;

/// Told of each failure that is not of an event alone, also of a probe's.
pub type OnFailed = Box<dyn FnMut(&Failure) + Send>;

/// What the courier of a sink is given.
pub(super) struct Way {
    pub(super) sink: Arc<dyn Sink>,
    pub(super) letters: Sender<Letter>,
    pub(super) counters: Arc<SinkCounters>,
    pub(super) clock: Clock,
    pub(super) settled: Option<OnSettled>,
    pub(super) failed: Option<OnFailed>,
    /// Tells the feeds that there is no use in reading.
    pub(super) resting: watch::Sender<bool>,
    /// It ends when all feeds have ended and all has settled.
    pub(super) finite: bool,
    /// How long what is in flight may take once it is told to stop.
    pub(super) landing_max: Duration,
}

/// The task of one sink.
pub(super) struct Courier {
    name: Arc<str>,
    way: Way,
    retry: RetryConfig,
    timeout: Duration,
    queue: Queue<Item>,
    limit: Limit,
    circuit: Circuit,
    /// Why it was last said that the destination is left alone.
    left_for: Option<(Class, Cow<'static, str>)>,
    /// Whether replicas were told that the sink is left alone.
    away: bool,
    rate: Option<Rate>,
    /// The destination has asked not to be asked before.
    hold: Option<Instant>,
    jitter: Jitter,
    lanes: Vec<Lane>,
    in_flight: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Behind what is in flight, of a sequential sink.
    readied: Readied,
    batches: usize,
    /// Letters that are not yet on the medium.
    dying: usize,
}

impl Courier {
    pub(super) fn new(config: &SinkConfig, lanes: Vec<Lane>, priorities: &[u8], way: Way) -> Self {
        let nature = way.sink.nature();
        let bounds = Bounds {
            events_max: config.batch.events_max.min(nature.events_max),
            bytes_max: config.batch.bytes_max.min(nature.bytes_max),
            linger: config.batch.linger,
            sequential: nature.sequential,
        };
        let now = way.clock.monotonic();
        Self {
            name: config.name.as_str().into(),
            retry: config.retry,
            timeout: config.timeout,
            queue: Queue::new(bounds, priorities),
            limit: Limit::new(config.concurrency_max),
            circuit: Circuit::new(),
            left_for: None,
            away: false,
            rate: config.events_per_second.map(|rate| Rate::new(rate, now)),
            hold: None,
            jitter: Jitter::seeded(),
            lanes,
            in_flight: FuturesUnordered::new(),
            readied: Readied::default(),
            batches: 0,
            dying: 0,
            way,
        }
    }

    /// Runs until told to stop, or, if it is finite, until all is done.
    pub(super) async fn run(
        mut self,
        mut told: UnboundedReceiver<Told>,
        mut buried: UnboundedReceiver<Buried>,
        mut stop: watch::Receiver<bool>,
    ) {
        loop {
            let now = self.now();
            self.send(now);
            self.show();
            if self.way.finite && self.is_done() {
                return;
            }
            let wake = self.wake().map(tokio::time::Instant::from_std);
            let sleep = async {
                match wake {
                    Some(wake) => tokio::time::sleep_until(wake).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(told) = told.recv() => self.told(told),
                Some(done) = self.in_flight.next() => {
                    let mut done = Some(done);
                    while let Some(one) = done.take() {
                        done = self.done(one, true);
                    }
                }
                Some(buried) = buried.recv() => self.buried(buried),
                never = self.readied.go_on() => match never {},
                () = sleep => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        let bound = self.way.landing_max;
        // What is cut is delivered again after the next start.
        _ = tokio::time::timeout(bound, self.land(&mut buried)).await;
    }

    /// Lets what is in flight end.
    async fn land(&mut self, buried: &mut UnboundedReceiver<Buried>) {
        while self.batches > 0 || self.dying > 0 {
            tokio::select! {
                Some(done) = self.in_flight.next() => drop(self.done(done, false)),
                Some(buried) = buried.recv(), if self.dying > 0 => self.buried(buried),
                else => return,
            }
            self.show();
        }
    }

    fn now(&self) -> Instant {
        self.way.clock.monotonic()
    }

    fn is_done(&self) -> bool {
        self.lanes.iter().all(|lane| lane.ended && lane.settlement.is_done())
    }

    /// When to look again if nothing happens.
    fn wake(&self) -> Option<Instant> {
        match self.circuit.state() {
            State::Open(until) => return Some(until),
            State::Probing => return None,
            State::HalfOpen if self.batches > 0 => return None,
            State::HalfOpen | State::Closed => {}
        }
        if self.batches >= self.room() {
            return None;
        }
        let queued = self.queue.wake()?;
        let rate = self.rate.as_ref().map(Rate::next);
        Some([self.hold, rate].into_iter().flatten().fold(queued, Instant::max))
    }

    /// Batches that may be in flight now.
    fn room(&self) -> usize {
        match self.circuit.state() {
            State::Closed => self.limit.now(),
            State::HalfOpen => 1,
            State::Open(_) | State::Probing => 0,
        }
    }

    /// Hands over what may go now.
    fn send(&mut self, now: Instant) {
        if self.circuit.begins_probe(now) {
            let sink = Arc::clone(&self.way.sink);
            let probe = async move {
                let probe = AssertUnwindSafe(sink.probe()).catch_unwind();
                Done::Probe(match tokio::time::timeout(PROBE_MAX, probe).await {
                    Ok(Ok(probed)) => probed,
                    Ok(Err(_)) => Err(Failure::temporary("the sink panicked")),
                    Err(_) => Err(Failure::temporary("the probe was not answered in time")),
                })
            };
            self.in_flight.push(probe.boxed());
        }
        self.hand_over_due(now);
        while let Some((lane, entries)) = self.queue.ahead() {
            let tickets = entries.iter().map(|entry| entry.ticket).collect();
            let events = entries.iter().map(|entry| entry.item.event.clone()).collect();
            let (sink, timeout) = (Arc::clone(&self.way.sink), self.timeout);
            self.readied.begin(lane, tickets, |turn| attempt(sink, events, turn, timeout));
        }
    }

    fn hand_over_due(&mut self, now: Instant) {
        self.hold = self.hold.filter(|hold| *hold > now);
        while self.batches < self.room() && self.hold.is_none() {
            if self.rate.as_ref().is_some_and(|rate| rate.next() > now) {
                break;
            }
            let Some(batch) = self.queue.next(now) else { break };
            if let Some(rate) = &mut self.rate {
                rate.took(batch.entries.len(), now);
            }
            self.hand_over(batch, now);
        }
    }

    fn hand_over(&mut self, mut batch: Batch<Item>, began: Instant) {
        for entry in &mut batch.entries {
            entry.first.get_or_insert(began);
            entry.item.event.attempts = entry.attempts;
            entry.attempts = entry.attempts.saturating_add(1);
        }
        self.batches += 1;
        let in_flight = self.batches;
        let attempt = self.attempt(&batch);
        let deliver = async move {
            let delivered = attempt.await;
            Done::Batch { batch, began, in_flight, delivered }
        };
        self.in_flight.push(deliver.boxed());
    }

    /// The one that is ready, or a new one.
    fn attempt(&mut self, batch: &Batch<Item>) -> Attempt {
        let tickets = batch.entries.iter().map(|entry| entry.ticket);
        self.readied.take(batch.lane, tickets).unwrap_or_else(|| {
            let events = batch.entries.iter().map(|entry| entry.item.event.clone()).collect();
            attempt(Arc::clone(&self.way.sink), events, Turn::NOW, self.timeout)
        })
    }

    fn told(&mut self, told: Told) {
        match told {
            Told::Begins(index, place) => {
                if let Some(lane) = self.lanes.get_mut(index) {
                    lane.settlement = Settlement::at(place);
                }
                self.tell_place(index);
            }
            Told::Events(lane, events, progress) => self.take(lane, events, progress),
            Told::Ends(lane) => {
                if let Some(lane) = self.lanes.get_mut(lane) {
                    lane.ended = true;
                }
            }
        }
    }

    fn take(&mut self, index: usize, events: Vec<Fed>, progress: Progress) {
        let now = self.now();
        for Fed { mut event, before, unshaped, permit } in events {
            let Some(lane) = self.lanes.get_mut(index) else { return };
            let ticket = lane.next_ticket;
            lane.next_ticket += 1;
            lane.settlement.taken(ticket, before, event.received_ns());
            if let Some(failure) = unshaped {
                // It never was in flight, and so never held its key.
                event.order_key = None;
                let failure = *failure;
                self.give_up(Letter { lane: index, ticket, event, failure, permit });
                continue;
            }
            let (key, bytes) = (event.order_key, event.payload().len());
            let item = Item { event, permit };
            self.queue.push(index, Entry::new(item, ticket, key, bytes, now));
        }
        if let Some(lane) = self.lanes.get_mut(index) {
            lane.settlement.passed(progress.place);
        }
        self.way.counters.read(progress.records, progress.bytes);
        self.tell_place(index);
    }

    /// What follows from what has ended. If it `goes_on`, what comes next may end within that.
    fn done(&mut self, done: Done, goes_on: bool) -> Option<Done> {
        let now = self.now();
        let mut next = None;
        match done {
            Done::Probe(probed) => self.probed(&probed),
            Done::Batch { batch, began, in_flight, delivered } => {
                self.batches -= 1;
                let is_ready = self.queue.landed(batch.lane);
                let took = now.saturating_duration_since(began);
                self.learn(whole_failure(&delivered), took, in_flight);
                self.way.counters.batch(batch.entries.len(), took);
                if goes_on && is_ready && is_whole(&delivered) {
                    // First of all: the destination need not wait until these have settled.
                    self.hand_over_due(now);
                    next = self.in_flight.next().now_or_never().flatten();
                }
                self.judge(batch, &delivered, now);
            }
        }
        next
    }

    fn tell_place(&mut self, index: usize) {
        let Some(lane) = self.lanes.get(index) else { return };
        let place = lane.settlement.place();
        lane.place.send_if_modified(|told| told.replace(place) != Some(place));
        if let Some(replica) = &lane.replica {
            replica.reach(place.position().offset());
        }
        let oldest_ns = lane.settlement.oldest_ns();
        self.way.counters.stands(index, place.position().offset(), oldest_ns);
    }

    fn show(&mut self) {
        let counters = &self.way.counters;
        counters.levels(self.batches, self.limit.now(), self.queue.len());
        counters.circuit(self.circuit.state().label());
        // What shows that the destination is back is here already.
        let waits = self.batches > 0 || self.queue.len() > 0;
        let rests = waits && self.circuit.state() != State::Closed;
        let resting = &self.way.resting;
        resting.send_if_modified(|told| std::mem::replace(told, rests) != rests);
        let away = matches!(self.circuit.state(), State::Open(_) | State::Probing);
        if std::mem::replace(&mut self.away, away) != away {
            for replica in self.lanes.iter().filter_map(|lane| lane.replica.as_ref()) {
                replica.leave(away);
            }
        }
    }
}

#[cfg(test)]
mod tests;
