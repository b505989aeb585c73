//! Every metric name but those of sinks, and the page that a scrape gets (`OpenMetrics` text).
//!
//! The encoder adds the unit to a name that has one, then `_total` to a counter: the names here
//! are what stands before those, the names in the comments what a dashboard asks for.

use std::fmt;
use std::sync::Arc;

use forebay_log::{Durations, LaneState};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::{Registry, Unit};

use super::page::{Histogram, Name, Page, doublings, seconds_of};
use super::{
    LaneReading, Latency, LoadedSecret, Metrics, Outcome, ReplayFate, SourceCounters, Watched,
    replica, sink,
};
use crate::quarantine::Fate;
use crate::reject::{Fault, Reject};

/// The content type of the page.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

// The process.
/// `forebay_build_info`
const BUILD: Name = Name("forebay_build", "The version that runs.", None);
/// `forebay_config_reloads_total`
const RELOADS: Name =
    Name("forebay_config_reloads", "Reloads of the configuration, taken or refused.", None);

// The receivers.
/// `forebay_receiver_driver`
const DRIVER: Name = Name("forebay_receiver_driver", "The driver that a receiver runs on.", None);
/// `forebay_connections_open`
const OPEN: Name = Name("forebay_connections_open", "Connections that are open now.", None);
/// `forebay_connections_total`
const CONNECTIONS: Name = Name("forebay_connections", "Connections that were accepted.", None);
/// `forebay_connections_turned_away_total`
const TURNED_AWAY: Name = Name(
    "forebay_connections_turned_away",
    "Connections that were not taken, since their address had too many.",
    None,
);
/// `forebay_body_in_flight_bytes`
const IN_FLIGHT: Name = Name(
    "forebay_body_in_flight",
    "Body bytes that are held for requests not yet answered.",
    Some(Unit::Bytes),
);
/// `forebay_ack_seconds`
const ACK: Name = Name(
    "forebay_ack",
    "From the end of a request's head to its acknowledgement.",
    Some(Unit::Seconds),
);

// The sources.
/// `forebay_requests_total`
const REQUESTS: Name = Name(
    "forebay_requests",
    "Requests by how they ended; those that belong to no source have the empty one.",
    None,
);
/// `forebay_received_bytes_total`
const RECEIVED: Name =
    Name("forebay_received", "Body bytes that arrived, refused ones included.", Some(Unit::Bytes));
/// `forebay_suspect_replays_total`
const REPLAYS: Name = Name(
    "forebay_suspect_replays",
    "Signed bytes that came again under another id, which is not signed, by what became of them.",
    None,
);
/// `forebay_subscription_confirmations_total`
const CONFIRMATIONS: Name = Name(
    "forebay_subscription_confirmations",
    "Invitations to confirm a subscription that were followed, by whether that succeeded.",
    None,
);

/// `forebay_secret_matches_total`
const MATCHES: Name =
    Name("forebay_secret_matches", "Requests that a secret verified, since the start.", None);
/// `forebay_secret_last_match_timestamp_seconds`
const LAST_MATCH: Name = Name(
    "forebay_secret_last_match_timestamp",
    "When a secret last verified a request; absent until it did.",
    Some(Unit::Seconds),
);
/// `forebay_secret_expiry_timestamp_seconds`
const EXPIRY: Name = Name(
    "forebay_secret_expiry_timestamp",
    "When a secret ceases to count; absent where it does not.",
    Some(Unit::Seconds),
);
/// `forebay_source_requests_total`
const ANSWERED: Name =
    Name("forebay_source_requests", "Requests of a source, however they ended.", None);
/// `forebay_source_refused_total`
const REFUSED: Name = Name(
    "forebay_source_refused",
    "Requests of a source that were refused, by whose fault it is.",
    None,
);

// The quarantine.
/// `forebay_quarantine_requests_total`
const QUARANTINED: Name = Name(
    "forebay_quarantine_requests",
    "Refused requests that may verify later, by whether they are kept.",
    None,
);
/// `forebay_quarantine_log_bytes`
const QUARANTINE_LOG: Name =
    Name("forebay_quarantine_log", "Disk that the quarantine takes.", Some(Unit::Bytes));

// The lanes.
/// `forebay_lane_state`
const STATE: Name = Name("forebay_lane_state", "1 for the state that a lane is in.", None);
/// `forebay_lane_watermark_bytes`
const WATERMARK: Name = Name(
    "forebay_lane_watermark",
    "How far a lane has come, as an offset in it.",
    Some(Unit::Bytes),
);
/// `forebay_lane_records_total`
const RECORDS: Name = Name("forebay_lane_records", "Records published.", None);
/// `forebay_lane_refused_total`
const LANE_REFUSED: Name =
    Name("forebay_lane_refused", "Appends that were refused for want of room.", None);
/// `forebay_lane_segments`
const SEGMENTS: Name = Name("forebay_lane_segments", "Segments that a lane has now.", None);
/// `forebay_lane_segments_created_total`
const SEGMENTS_CREATED: Name = Name("forebay_lane_segments_created", "Segments made.", None);
/// `forebay_lane_segments_retired_total`
const SEGMENTS_RETIRED: Name =
    Name("forebay_lane_segments_retired", "Segments that retention removed.", None);
/// `forebay_lane_unread_dropped_total`
const UNREAD_DROPPED: Name = Name(
    "forebay_lane_unread_dropped",
    "Records that retention removed although a cursor had not read them.",
    None,
);
/// `forebay_lane_log_bytes`
const LOG: Name = Name("forebay_lane_log", "Disk that the segments take.", Some(Unit::Bytes));
/// `forebay_lane_disk_available_bytes`
const AVAILABLE: Name = Name(
    "forebay_lane_disk_available",
    "What the lane's file system had left when last asked.",
    Some(Unit::Bytes),
);
/// `forebay_lane_synced_bytes_total`
const SYNCED: Name = Name("forebay_lane_synced", "Bytes handed to the medium.", Some(Unit::Bytes));
/// `forebay_lane_sync_failures_total`
const SYNC_FAILURES: Name = Name("forebay_lane_sync_failures", "Syncs that failed.", None);
/// `forebay_lane_salvages_total`
const SALVAGES: Name =
    Name("forebay_lane_salvages", "Segments saved into another file after a failed sync.", None);
/// `forebay_lane_sync_seconds`
const SYNC: Name = Name("forebay_lane_sync", "How long a sync took.", Some(Unit::Seconds));
/// `forebay_lane_store_seconds`
const STORE: Name = Name(
    "forebay_lane_store",
    "How long a record took from claim to publication; a sample.",
    Some(Unit::Seconds),
);
/// `forebay_lane_stall_seconds`
const STALL: Name = Name(
    "forebay_lane_stall",
    "How long a record stood between claim and publication, wherever the keeper met it twice.",
    Some(Unit::Seconds),
);

// The dedupe tables.
/// `forebay_dedupe_keys`
const KEYS: Name = Name("forebay_dedupe_keys", "Event keys that are remembered.", None);
/// `forebay_dedupe_capacity`
const CAPACITY: Name =
    Name("forebay_dedupe_capacity", "Event keys that memory holds at most.", None);
/// `forebay_dedupe_blocks`
const BLOCKS: Name = Name("forebay_dedupe_blocks", "Blocks that a look-up visits.", None);
/// `forebay_dedupe_refused_total`
const DEDUPE_REFUSED: Name = Name(
    "forebay_dedupe_refused",
    "Events that were refused because no further key could be remembered.",
    None,
);
/// `forebay_dedupe_generations`
const GENERATIONS: Name =
    Name("forebay_dedupe_generations", "Files of event keys that a look-up visits.", None);
/// `forebay_dedupe_generation_keys`
const GENERATION_KEYS: Name =
    Name("forebay_dedupe_generation_keys", "Event keys in those files.", None);
/// `forebay_dedupe_generations_unbacked`
const UNBACKED: Name = Name(
    "forebay_dedupe_generations_unbacked",
    "Files whose records retention has removed from the log: they alone know those events.",
    None,
);
/// `forebay_dedupe_generations_rebuilt_total`
const REBUILT: Name = Name(
    "forebay_dedupe_generations_rebuilt",
    "Files that were missing or damaged and were made again from the log.",
    None,
);
/// `forebay_dedupe_generations_lost_total`
const LOST: Name = Name(
    "forebay_dedupe_generations_lost",
    "Damaged files of whose records the log no longer held all.",
    None,
);
/// `forebay_dedupe_generation_failures_total`
const FILE_FAILURES: Name = Name(
    "forebay_dedupe_generation_failures",
    "Times that event keys could not be written, merged or mended; tried again.",
    None,
);

impl Metrics {
    /// The page of a scrape.
    pub fn render(self: &Arc<Self>) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Scrape(Arc::clone(self))));
        let mut page = String::new();
        encode(&mut page, &registry)?;
        Ok(page)
    }
}

#[derive(Debug)]
struct Scrape(Arc<Metrics>);

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page(encoder);
        process(&mut page, &self.0)?;
        receivers(&mut page, &self.0)?;
        sources(&mut page, &self.0)?;
        secrets(&mut page, &self.0)?;
        quarantine(&mut page, &self.0)?;
        let lanes: Vec<_> =
            self.0.lanes().iter().map(|lane: &Watched| (lane.name(), lane.read())).collect();
        lane_levels(&mut page, &lanes)?;
        lane_counts(&mut page, &lanes)?;
        dedupe(&mut page, &lanes)?;
        if !self.0.replicas().is_empty() {
            replica::replicas(&mut page, self.0.replicas())?;
        }
        sink::sinks(&mut page, &self.0.sinks.load(), &lanes)
    }
}

fn process(page: &mut Page<'_>, metrics: &Metrics) -> fmt::Result {
    page.info(&BUILD, &[("version", env!("CARGO_PKG_VERSION"))])?;
    page.counters(
        &RELOADS,
        [
            ([("outcome", "ok")], metrics.reloads_ok.read()),
            ([("outcome", "failed")], metrics.reloads_failed.read()),
        ],
    )
}

fn receivers(page: &mut Page<'_>, metrics: &Metrics) -> fmt::Result {
    let receivers = || metrics.receivers.iter().enumerate();
    page.gauges(
        &DRIVER,
        receivers().filter_map(|(index, receiver)| {
            let driver = receiver.driver()?;
            Some(([("receiver", index.to_string()), ("driver", driver.to_owned())], 1_u64))
        }),
    )?;
    let label = |index: usize| [("receiver", index.to_string())];
    page.gauges(&OPEN, receivers().map(|(index, of)| (label(index), of.open())))?;
    page.counters(&CONNECTIONS, receivers().map(|(index, of)| (label(index), of.opened())))?;
    page.counters(
        &TURNED_AWAY,
        receivers().map(|(index, of)| (label(index), of.connections_turned_away())),
    )?;
    page.gauges(&IN_FLIGHT, receivers().map(|(index, of)| (label(index), of.in_flight_bytes())))?;
    page.histogram(&ACK, &acks(metrics))
}

/// The latencies of all receivers as one.
fn acks(metrics: &Metrics) -> Histogram {
    let mut sum = Histogram::default();
    metrics.receivers.iter().for_each(|receiver| sum.add(receiver.latency()));
    sum
}

/// One latency as it is.
pub(super) fn latency_of(latency: &Latency) -> Histogram {
    let mut sum = Histogram::default();
    sum.add(latency);
    sum
}

fn sources(page: &mut Page<'_>, metrics: &Metrics) -> fmt::Result {
    let sources = metrics.sources.load();
    let all = || sources.iter().chain([&metrics.unknown]).map(AsRef::as_ref);
    page.counters(&REQUESTS, all().flat_map(requests))?;
    page.counters(&ANSWERED, all().map(|of| ([("source", of.name())], answered(of))))?;
    page.counters(&REFUSED, all().flat_map(refused))?;
    page.counters(&RECEIVED, all().map(|of| ([("source", of.name())], of.body_bytes())))?;
    page.counters(&REPLAYS, sources.iter().flat_map(|of| replays(of)))?;
    page.counters(&CONFIRMATIONS, sources.iter().flat_map(|of| confirmations(of)))
}

fn replays(of: &SourceCounters) -> impl Iterator<Item = ([(&'static str, &str); 2], u64)> {
    ReplayFate::ALL
        .into_iter()
        .map(|fate| ([("source", of.name()), ("fate", fate.label())], of.suspect_replays(fate)))
}

fn confirmations(of: &SourceCounters) -> [([(&'static str, &str); 2], u64); 2] {
    let (confirmed, failed) = of.confirmations();
    let row = |outcome| [("source", of.name()), ("outcome", outcome)];
    [(row("confirmed"), confirmed), (row("failed"), failed)]
}

fn answered(of: &SourceCounters) -> u64 {
    Outcome::all().map(|outcome| of.requests(outcome)).sum()
}

/// Always there, from zero on: the rate of a series that begins with its first refusal does not
/// know of it.
fn refused(of: &SourceCounters) -> impl Iterator<Item = ([(&'static str, &str); 2], u64)> {
    Fault::ALL.into_iter().map(|fault| {
        let rejects = Reject::ALL.into_iter().filter(|reject| reject.fault() == fault);
        let count = rejects.map(|reject| of.requests(Outcome::Rejected(reject))).sum();
        ([("source", of.name()), ("fault", fault.label())], count)
    })
}

fn quarantine(page: &mut Page<'_>, metrics: &Metrics) -> fmt::Result {
    let Some(quarantine) = metrics.quarantine.get() else { return Ok(()) };
    let shares = quarantine.shares();
    let rows = shares.iter().flat_map(|(source, share)| {
        let label = |fate: Fate| [("source", source.as_str()), ("fate", fate.label())];
        Fate::ALL.into_iter().map(move |fate| (label(fate), share.requests(fate)))
    });
    page.counters(&QUARANTINED, rows)?;
    page.gauges(&QUARANTINE_LOG, [([("lane", "quarantine")], quarantine.bytes())])
}

/// Refusals that never happened are left out, or every source would have two dozen series.
fn requests(of: &SourceCounters) -> impl Iterator<Item = ([(&'static str, &str); 2], u64)> {
    let counts = Outcome::all().map(|outcome| (outcome, of.requests(outcome)));
    counts
        .filter(|(outcome, count)| *count > 0 || !matches!(outcome, Outcome::Rejected(_)))
        .map(|(outcome, count)| ([("source", of.name()), ("outcome", outcome.label())], count))
}

fn secrets(page: &mut Page<'_>, metrics: &Metrics) -> fmt::Result {
    let loaded = metrics.secrets();
    let labels = |of: &LoadedSecret| [("source", of.source.clone()), ("secret", of.name.clone())];
    page.counters(&MATCHES, loaded.iter().map(|of| (labels(of), of.counters.uses())))?;
    let last = |of: &LoadedSecret| Some((labels(of), seconds_of(of.counters.last_used_ns()?)));
    page.gauges(&LAST_MATCH, loaded.iter().filter_map(last))?;
    let expiring = loaded.iter().filter(|of| of.validity.until_ns != u64::MAX);
    page.gauges(&EXPIRY, expiring.map(|of| (labels(of), seconds_of(of.validity.until_ns))))
}

pub(super) type Lanes<'a> = [(&'a str, LaneReading)];

fn lane_levels(page: &mut Page<'_>, lanes: &Lanes<'_>) -> fmt::Result {
    page.gauges(&STATE, lanes.iter().flat_map(|(lane, of)| states(lane, of)))?;
    page.gauges(&WATERMARK, lanes.iter().flat_map(|(lane, of)| watermarks(lane, of)))?;
    page.gauges(&SEGMENTS, lanes.iter().map(|(lane, of)| ([("lane", *lane)], of.stats.segments)))?;
    page.gauges(&LOG, lanes.iter().map(|(lane, of)| ([("lane", *lane)], of.stats.bytes)))?;
    page.gauges(
        &AVAILABLE,
        lanes.iter().map(|(lane, of)| ([("lane", *lane)], of.stats.available_bytes)),
    )
}

fn states<'a>(lane: &'a str, of: &LaneReading) -> [([(&'static str, &'a str); 2], u64); 4] {
    use LaneState::{Closed, Failed, Full, Open};
    let state = of.state;
    [("open", Open), ("full", Full), ("failed", Failed), ("closed", Closed)]
        .map(|(label, this)| ([("lane", lane), ("state", label)], u64::from(this == state)))
}

fn watermarks<'a>(lane: &'a str, of: &LaneReading) -> [([(&'static str, &'a str); 2], u64); 4] {
    [
        ("claimed", of.watermarks.claimed),
        ("published", of.watermarks.published),
        ("durable", of.watermarks.durable),
        ("acked", of.acked),
    ]
    .map(|(label, offset)| ([("lane", lane), ("watermark", label)], offset))
}

fn lane_counts(page: &mut Page<'_>, lanes: &Lanes<'_>) -> fmt::Result {
    let counts = |read: fn(&LaneReading) -> u64| {
        lanes.iter().map(move |(lane, of)| ([("lane", *lane)], read(of)))
    };
    page.counters(&RECORDS, counts(|of| of.stats.records))?;
    page.counters(&LANE_REFUSED, counts(|of| of.stats.full_refusals))?;
    page.counters(&SEGMENTS_CREATED, counts(|of| of.stats.segments_created))?;
    page.counters(&SEGMENTS_RETIRED, counts(|of| of.stats.segments_retired))?;
    page.counters(&UNREAD_DROPPED, counts(|of| of.stats.unread_records))?;
    page.counters(&SYNCED, counts(|of| of.stats.synced_bytes))?;
    page.counters(&SYNC_FAILURES, counts(|of| of.stats.sync_failures))?;
    page.counters(&SALVAGES, counts(|of| of.stats.salvages))?;
    let took = |read: fn(&LaneReading) -> &Durations| {
        lanes.iter().map(move |(lane, of)| ([("lane", *lane)], doublings(read(of))))
    };
    page.histograms(&SYNC, took(|of| &of.stats.syncs))?;
    page.histograms(&STORE, took(|of| &of.stats.stores))?;
    page.histograms(&STALL, took(|of| &of.stats.stalls))
}

fn dedupe(page: &mut Page<'_>, lanes: &Lanes<'_>) -> fmt::Result {
    let counts = |read: fn(&LaneReading) -> u64| {
        lanes.iter().map(move |(lane, of)| ([("lane", *lane)], read(of)))
    };
    page.gauges(&KEYS, counts(|of| of.dedupe.keys))?;
    page.gauges(&CAPACITY, counts(|of| of.dedupe.capacity))?;
    page.gauges(&BLOCKS, counts(|of| of.dedupe.blocks))?;
    page.counters(&DEDUPE_REFUSED, counts(|of| of.dedupe.refused))?;
    page.gauges(&GENERATIONS, counts(|of| of.dedupe.files.generations))?;
    page.gauges(&GENERATION_KEYS, counts(|of| of.dedupe.files.keys))?;
    page.gauges(&UNBACKED, counts(|of| of.dedupe.files.unbacked))?;
    page.counters(&REBUILT, counts(|of| of.dedupe.files.rebuilt))?;
    page.counters(&LOST, counts(|of| of.dedupe.files.lost))?;
    page.counters(&FILE_FAILURES, counts(|of| of.dedupe.files.failures))
}
