//! What is counted of each sink, and its metrics: names, levels, and how far it is behind.
//!
//! All of it is written by the one thread that the sink's courier is on, but what is known of its
//! dead letters: that is written by the thread that keeps them. Any thread of the sink tells that it
//! has stopped.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Unit;

use super::counters::{Count, Latency};
use super::page::{Name, Page, seconds_of};
use super::render::{Lanes, latency_of};
use crate::drain::sink::Class;

/// `forebay_sink_events_total`
const EVENTS: Name = Name("forebay_sink_events", "Events that a sink has taken.", None);
/// `forebay_sink_delivered_bytes_total`
const DELIVERED: Name =
    Name("forebay_sink_delivered", "Payload bytes that a sink has taken.", Some(Unit::Bytes));
/// `forebay_sink_batches_total`
const BATCHES: Name = Name("forebay_sink_batches", "Batches that a sink has answered.", None);
/// `forebay_sink_batch_events_total`
const BATCH_EVENTS: Name =
    Name("forebay_sink_batch_events", "Events in those batches, each time that they went.", None);
/// `forebay_sink_batch_seconds`
const BATCH: Name =
    Name("forebay_sink_batch", "How long a batch took to be answered.", Some(Unit::Seconds));
/// `forebay_sink_retries_total`
const RETRIES: Name = Name("forebay_sink_retries", "Events that are to be tried again.", None);
/// `forebay_sink_failures_total`
const FAILURES: Name = Name(
    "forebay_sink_failures",
    "Events that a sink did not take, by what follows from it.",
    None,
);
/// `forebay_sink_dead_letters_total`
const DEAD: Name = Name(
    "forebay_sink_dead_letters",
    "Events that became dead letters, by the class of the last failure.",
    None,
);
/// `forebay_sink_dead_letters_waiting`
const WAITING: Name = Name(
    "forebay_sink_dead_letters_waiting",
    "Dead letters that are neither redriven nor discarded; absent until they are counted.",
    None,
);
/// `forebay_sink_dead_letters_oldest_timestamp_seconds`
const WAITING_OLDEST: Name = Name(
    "forebay_sink_dead_letters_oldest_timestamp",
    "When the event of the oldest dead letter arrived that waits; absent if there is none.",
    Some(Unit::Seconds),
);
/// `forebay_sink_in_flight`
const IN_FLIGHT: Name = Name("forebay_sink_in_flight", "Batches that are in flight.", None);
/// `forebay_sink_concurrency_limit`
const LIMIT: Name =
    Name("forebay_sink_concurrency_limit", "Batches that may be in flight now.", None);
/// `forebay_sink_queued_events`
const QUEUED: Name =
    Name("forebay_sink_queued_events", "Events that are held and not in flight.", None);
/// `forebay_sink_circuit`
const CIRCUIT: Name = Name(
    "forebay_sink_circuit",
    "0 if a sink is sent to, 1 if it is tried, 2 if left alone.",
    None,
);
/// `forebay_sink_stopped`
const STOPPED: Name = Name(
    "forebay_sink_stopped",
    "1 if a sink has stopped by a bug and goes on only after a restart; the logs tell more.",
    None,
);
/// `forebay_sink_lag_bytes`
const LAG: Name = Name(
    "forebay_sink_lag",
    "Bytes of the log between what a sink has settled and what is acknowledged.",
    Some(Unit::Bytes),
);
/// `forebay_sink_lag_events`
const LAG_EVENTS: Name = Name(
    "forebay_sink_lag_events",
    "The same in records; an estimate, by the mean size of those that were read.",
    None,
);
/// `forebay_sink_oldest_timestamp_seconds`
const OLDEST: Name = Name(
    "forebay_sink_oldest_timestamp",
    "When the oldest event arrived that is held and has not settled; absent if there is none.",
    Some(Unit::Seconds),
);

/// The counters of one sink.
#[derive(Debug)]
pub struct SinkCounters {
    name: String,
    kind: &'static str,
    lanes: Vec<LaneOfSink>,
    events: Count,
    bytes: Count,
    batches: Count,
    batch_events: Count,
    latency: Latency,
    retries: Count,
    failures: [Count; Class::ALL.len()],
    dead: [Count; Class::ALL.len()],
    letters: Letters,
    in_flight: Count,
    limit: Count,
    queued: Count,
    circuit: Count,
    stopped: Count,
    records_read: Count,
    bytes_read: Count,
}

#[derive(Debug)]
struct LaneOfSink {
    name: String,
    offset: Count,
    /// 0 if there is none.
    oldest_ns: Count,
}

/// The dead letters of a sink that wait.
#[derive(Debug, Default)]
struct Letters {
    /// One more than there are; 0 if nobody has counted them yet.
    waiting: Count,
    /// 0 if there is none.
    oldest_ns: Count,
}

impl SinkCounters {
    /// Counters of a sink of this kind, which reads these lanes.
    pub fn new<'a>(
        name: &str,
        kind: &'static str,
        lanes: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let lane = |name: &str| LaneOfSink {
            name: name.to_owned(),
            offset: Count::default(),
            oldest_ns: Count::default(),
        };
        Self {
            name: name.to_owned(),
            kind,
            lanes: lanes.into_iter().map(lane).collect(),
            events: Count::default(),
            bytes: Count::default(),
            batches: Count::default(),
            batch_events: Count::default(),
            latency: Latency::default(),
            retries: Count::default(),
            failures: Default::default(),
            dead: Default::default(),
            letters: Letters::default(),
            in_flight: Count::default(),
            limit: Count::default(),
            queued: Count::default(),
            circuit: Count::default(),
            stopped: Count::default(),
            records_read: Count::default(),
            bytes_read: Count::default(),
        }
    }

    /// The sink's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether what these count is what others do, so that they can go on in their place.
    pub fn counts_as(&self, other: &Self) -> bool {
        let lanes = |of: &Self| of.lanes.iter().map(|lane| lane.name.clone()).collect::<Vec<_>>();
        self.name == other.name && self.kind == other.kind && lanes(self) == lanes(other)
    }

    /// Records were read, of whatever kind.
    pub fn read(&self, records: u64, bytes: u64) {
        self.records_read.add(records);
        self.bytes_read.add(bytes);
    }

    /// A batch was answered.
    pub fn batch(&self, events: usize, took: Duration) {
        self.batches.add(1);
        self.batch_events.add(events as u64);
        self.latency.record(took);
    }

    /// An event was taken.
    pub fn delivered(&self, bytes: usize) {
        self.events.add(1);
        self.bytes.add(bytes as u64);
    }

    /// So many events were not taken.
    pub fn failed(&self, class: Class, events: u64) {
        if let Some(count) = of_class(&self.failures, class) {
            count.add(events);
        }
    }

    /// So many events are to be tried again.
    pub fn retried(&self, events: usize) {
        self.retries.add(events as u64);
    }

    /// An event is a dead letter, for a failure of this class.
    pub fn died(&self, class: Class) {
        if let Some(count) = of_class(&self.dead, class) {
            count.add(1);
        }
    }

    /// So many dead letters wait, the oldest of an event that arrived then.
    pub fn letters_wait(&self, letters: u64, oldest_ns: Option<u64>) {
        self.letters.oldest_ns.set(oldest_ns.unwrap_or(0));
        self.letters.waiting.set(letters.saturating_add(1));
    }

    /// How far the sink has come in one of its lanes.
    pub fn stands(&self, lane: usize, offset: u64, oldest_ns: Option<u64>) {
        if let Some(lane) = self.lanes.get(lane) {
            lane.offset.set(offset);
            lane.oldest_ns.set(oldest_ns.unwrap_or(0));
        }
    }

    /// Batches in flight, how many may be, and events that wait.
    pub fn levels(&self, in_flight: usize, limit: usize, queued: usize) {
        self.in_flight.set(in_flight as u64);
        self.limit.set(limit as u64);
        self.queued.set(queued as u64);
    }

    /// 0 closed, 1 half open, 2 open.
    pub fn circuit(&self, state: u64) {
        self.circuit.set(state);
    }

    /// Whether a part of the sink has ended that nothing but a restart brings back.
    pub fn stopped(&self, stopped: bool) {
        self.stopped.set(u64::from(stopped));
    }

    /// Whether [`SinkCounters::stopped`] was told so.
    pub fn has_stopped(&self) -> bool {
        self.stopped.read() > 0
    }

    /// Events that were taken.
    pub fn events(&self) -> u64 {
        self.events.read()
    }

    /// Batches that may be in flight.
    pub fn limit(&self) -> u64 {
        self.limit.read()
    }

    /// Events that became dead letters.
    pub fn dead_letters(&self) -> u64 {
        self.dead.iter().map(Count::read).sum()
    }

    fn lag_events(&self, bytes: u64) -> u64 {
        let (records, read) = (self.records_read.read(), self.bytes_read.read());
        bytes.saturating_mul(records).checked_div(read).unwrap_or(0)
    }
}

/// Bytes of the log that a lane has acknowledged and the sink has not settled.
fn lag_bytes(lane: &LaneOfSink, lanes: &Lanes<'_>) -> u64 {
    let acked = lanes.iter().find(|(name, _)| *name == lane.name).map(|(_, of)| of.acked);
    acked.unwrap_or(0).saturating_sub(lane.offset.read())
}

type Labels<'a, const COUNT: usize> = [(&'static str, &'a str); COUNT];

pub(super) fn sinks(
    page: &mut Page<'_>,
    sinks: &[Arc<SinkCounters>],
    lanes: &Lanes<'_>,
) -> fmt::Result {
    let own = |of: &SinkCounters| -> [(&'static str, String); 2] {
        [("sink", of.name.clone()), ("kind", of.kind.to_owned())]
    };
    let counts =
        |read: fn(&SinkCounters) -> &Count| sinks.iter().map(move |of| (own(of), read(of).read()));
    page.counters(&EVENTS, counts(|of| &of.events))?;
    page.counters(&DELIVERED, counts(|of| &of.bytes))?;
    page.counters(&BATCHES, counts(|of| &of.batches))?;
    page.counters(&BATCH_EVENTS, counts(|of| &of.batch_events))?;
    page.counters(&RETRIES, counts(|of| &of.retries))?;
    page.counters(&DEAD, sinks.iter().flat_map(|of| by_class(of, &of.dead)))?;
    page.counters(&FAILURES, sinks.iter().flat_map(|of| by_class(of, &of.failures)))?;
    let waiting = |of: &Arc<SinkCounters>| {
        Some(([("sink", of.name.clone())], of.letters.waiting.read().checked_sub(1)?))
    };
    page.gauges(&WAITING, sinks.iter().filter_map(waiting))?;
    let oldest = |of: &Arc<SinkCounters>| {
        let oldest_ns = of.letters.oldest_ns.read();
        (oldest_ns > 0).then(|| ([("sink", of.name.clone())], seconds_of(oldest_ns)))
    };
    page.gauges(&WAITING_OLDEST, sinks.iter().filter_map(oldest))?;
    page.gauges(&IN_FLIGHT, counts(|of| &of.in_flight))?;
    page.gauges(&LIMIT, counts(|of| &of.limit))?;
    page.gauges(&QUEUED, counts(|of| &of.queued))?;
    page.gauges(&CIRCUIT, counts(|of| &of.circuit))?;
    page.gauges(&STOPPED, counts(|of| &of.stopped))?;
    page.histograms(&BATCH, sinks.iter().map(|of| (own(of), latency_of(&of.latency))))?;
    let all = || sinks.iter().flat_map(|of| of.lanes.iter().map(move |lane| (of, lane)));
    page.gauges(&LAG, all().map(|(of, lane)| (labels(of, lane), lag_bytes(lane, lanes))))?;
    page.gauges(
        &LAG_EVENTS,
        all().map(|(of, lane)| (labels(of, lane), of.lag_events(lag_bytes(lane, lanes)))),
    )?;
    let held = |(_, lane): &(_, &LaneOfSink)| lane.oldest_ns.read() > 0;
    page.gauges(
        &OLDEST,
        all().filter(held).map(|(of, lane)| (labels(of, lane), seconds_of(lane.oldest_ns.read()))),
    )
}

fn labels<'a>(of: &'a Arc<SinkCounters>, lane: &'a LaneOfSink) -> Labels<'a, 2> {
    [("sink", of.name.as_str()), ("lane", lane.name.as_str())]
}

fn by_class<'a>(
    of: &'a SinkCounters,
    counts: &'a [Count; Class::ALL.len()],
) -> impl Iterator<Item = (Labels<'a, 2>, u64)> {
    Class::ALL.iter().zip(counts).map(|(class, count)| {
        ([("sink", of.name.as_str()), ("class", class.label())], count.read())
    })
}

fn of_class(counts: &[Count; Class::ALL.len()], class: Class) -> Option<&Count> {
    Class::ALL.iter().zip(counts).find_map(|(known, count)| (*known == class).then_some(count))
}
