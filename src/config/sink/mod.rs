//! `[[sink]]`: where events are brought, in what order, how fast, and how long it is tried.
//!
//! What every sink has stands here; what one kind needs stands in its own table
//! (`[sink.stdout]`), read by the file of that kind.

#[cfg(feature = "sink-kafka")]
mod kafka;
#[cfg(feature = "sink-nats")]
mod nats;
#[cfg(feature = "sink-object")]
mod object;
#[cfg(feature = "sink-postgres")]
mod postgres;
#[cfg(feature = "sink-pubsub")]
mod pubsub;
#[cfg(feature = "sink-rabbitmq")]
mod rabbitmq;
#[cfg(feature = "sink-redis")]
mod redis;
#[cfg(feature = "sink-sqs")]
mod sqs;
#[cfg(any(feature = "sink-pubsub", feature = "sink-sqs"))]
mod endpoint;
#[cfg(feature = "sink-stdout")]
mod stdout;
#[cfg(feature = "sink-file")]
mod file;
#[cfg(feature = "sink-http")]
mod http;
mod print;
mod shape;
#[cfg(any(feature = "sink-postgres", feature = "sink-rabbitmq"))]
mod tls;

pub use self::print::Print;

use std::sync::Arc;
use std::time::Duration;

use super::lane::ReadLane;
use super::near::nearest;
use super::recipe::rule_text;
use super::replicate;
use super::section::{Reading, Section, refuse_twins};
use super::source::words;
use super::units;
use crate::drain::order::{Order, OrderKey};
use crate::drain::redrive::Times;
use crate::drain::shape::Shape;
use crate::drain::sinks::Kind;
use crate::limits;

/// One sink, checked.
#[derive(Clone, Debug)]
pub struct SinkConfig {
    /// The sink's name, also that of its cursors.
    pub name: String,
    /// The lanes that it reads, as indices into [`super::Config::lanes`]; at least one.
    pub lanes: Vec<usize>,
    /// Which events may not overtake one another.
    pub order: Order,
    /// When a batch is handed over.
    pub batch: BatchConfig,
    /// How often and how long a failed event is tried again.
    pub retry: RetryConfig,
    /// Events a second at the most; none: as many as the sink takes.
    pub events_per_second: Option<u64>,
    /// Batches in flight at the most.
    pub concurrency_max: usize,
    /// Payload bytes held at the most, queued and in flight.
    pub memory_bytes_max: u64,
    /// How long one batch may take.
    pub timeout: Duration,
    /// When its dead letters are brought once more by themselves; none: never.
    pub redrive: Option<RedriveConfig>,
    /// Which events it takes, and what it gets of them.
    pub shape: Arc<Shape>,
    /// What its kind needs.
    pub settings: Arc<dyn Kind>,
    /// What all of it was made of.
    pub print: Print,
}

/// When a batch is handed over: as soon as one of the three says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// So many events are in it.
    pub events_max: usize,
    /// So many payload bytes are in it.
    pub bytes_max: usize,
    /// Its oldest event has waited so long.
    pub linger: Duration,
}

/// How a failed event is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryConfig {
    /// The longest first wait; it doubles with each attempt.
    pub first: Duration,
    /// No wait is longer than this.
    pub max: Duration,
    /// An event that was tried for so long becomes a dead letter.
    pub horizon: Duration,
}

/// When dead letters are brought once more, and how fast.
#[derive(Clone, Debug)]
pub struct RedriveConfig {
    /// The moments, in UTC.
    pub times: Times,
    /// Events a second at the most.
    pub events_per_second: u64,
}

/// The table of a kind, and what reads it.
struct Table {
    word: &'static str,
    path: &'static str,
    read: fn(&Section<'_>) -> Option<Arc<dyn Kind>>,
}

/// Lists every kind by its word, which is that of its table, of its module and of its feature.
macro_rules! kinds {
    ($($word:ident: $feature:literal),+ $(,)?) => {
        /// The table of every kind that this build has.
        const TABLES: &[Table] = &[$(
            #[cfg(feature = $feature)]
            Table {
                word: stringify!($word),
                path: concat!("sink.", stringify!($word)),
                read: $word::read,
            },
        )+];

        /// Kinds that this build is without, and the feature that each needs.
        const UNBUILT: &[(&str, &str)] = &[$(
            #[cfg(not(feature = $feature))]
            (stringify!($word), $feature),
        )+];
    };
}

kinds! {
    stdout: "sink-stdout",
    file: "sink-file",
    http: "sink-http",
    kafka: "sink-kafka",
    nats: "sink-nats",
    object: "sink-object",
    postgres: "sink-postgres",
    pubsub: "sink-pubsub",
    rabbitmq: "sink-rabbitmq",
    redis: "sink-redis",
    sqs: "sink-sqs",
}

/// What is gathered for an object, where nothing else is said: a store counts and keeps objects,
/// not events.
const OF_OBJECTS: BatchConfig =
    BatchConfig { events_max: 10_000, bytes_max: 16 << 20, linger: Duration::from_secs(60) };
/// What an event takes of a sink's memory beside its payload, at the most.
const EVENT_BYTES: usize = 1 << 10;

/// Reads every `[[sink]]`; there may be none. Sinks with a mistake are reported and left out.
pub(super) fn read_all<'t>(
    reading: &'t Reading<'t>,
    root: &Section<'t>,
    lanes: &[ReadLane<'t>],
) -> Vec<SinkConfig> {
    let values = root.tables("sink", "write [[sink]] with two brackets, once for each sink");
    if values.len() > limits::SINKS_MAX {
        root.refuse("sink", "stands too often", format!("at most {} sinks", limits::SINKS_MAX));
    }
    let sections: Vec<Section<'t>> = values
        .iter()
        .take(limits::SINKS_MAX)
        .filter_map(|value| Section::open(reading, "sink", value))
        .collect();
    refuse_twins(&sections, "name", "rename one of the two");
    replicate::check_names(&sections, lanes);
    sections.iter().filter_map(|section| read(section, lanes)).collect()
}

fn read(section: &Section<'_>, lanes: &[ReadLane<'_>]) -> Option<SinkConfig> {
    let name = name(section);
    let read_lanes = lanes;
    let lanes = lanes_of(section, lanes);
    let order = order(section);
    let batch = batch(section, name.is_some_and(|name| replicate::is_replica(name, read_lanes)));
    let retry = retry(section);
    let concurrency_max = section.count("concurrency_max");
    let memory_bytes_max = section.size("memory");
    let timeout = section.duration("timeout");
    let redrive = redrive(section);
    let shape = shape::read(section);
    let settings = settings(section);
    let batch = batch?;
    let least = memory_min(section, batch, lanes.as_ref().map_or(1, Vec::len));
    // A default gives way to what is needed.
    let least_of_default = if section.has("memory") { 0 } else { least };
    let memory_bytes_max = memory_bytes_max?.max(least_of_default);
    if memory_bytes_max < least {
        let least = units::size_text(least);
        let cure = format!("raise it to at least \"{least}\", or lower batch.bytes");
        section.refuse("memory", "is less than one batch", cure);
    }
    let config = SinkConfig {
        name: name?.to_owned(),
        lanes: lanes?,
        order: order?,
        batch,
        retry: retry?,
        events_per_second: section.count("rate"),
        concurrency_max: usize::try_from(concurrency_max?).unwrap_or(usize::MAX),
        memory_bytes_max,
        timeout: timeout?,
        redrive: redrive?,
        shape: shape?,
        settings: settings?,
        print: Print::of(section),
    };
    replicate::check(section, &config, read_lanes);
    Some(config)
}

/// A name that leaves room for the word in front of it in the names of its cursors.
fn name<'t>(section: &Section<'t>) -> Option<&'t str> {
    let name = section.name()?;
    if name.len() <= limits::SINK_NAME_BYTES_MAX {
        return Some(name);
    }
    let cure = format!("use at most {} characters", limits::SINK_NAME_BYTES_MAX);
    section.refuse("name", "is too long", cure);
    None
}

/// The lanes that are named, or else every lane.
fn lanes_of(section: &Section<'_>, lanes: &[ReadLane<'_>]) -> Option<Vec<usize>> {
    if !section.has("lanes") {
        return Some((0..lanes.len()).collect());
    }
    let names = || lanes.iter().map(|lane| lane.config.name.as_str());
    let mut indices = Vec::new();
    for wanted in section.texts("lanes")? {
        let Some(index) = names().position(|name| name == wanted) else {
            let cure = match nearest(wanted, names()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("name some of {}", words(names())),
            };
            section.refuse("lanes", &format!("names no lane by \"{wanted}\""), cure);
            return None;
        };
        if !indices.contains(&index) {
            indices.push(index);
        }
    }
    if indices.is_empty() {
        let cure = "name at least one lane, or leave the key out to read all of them";
        section.refuse("lanes", "is empty", cure);
        return None;
    }
    Some(indices)
}

fn order(section: &Section<'_>) -> Option<Order> {
    let word = section.choice("order")?;
    if word != "key" {
        if section.has("order_key") {
            let cure = "write order = \"key\", or leave `order_key` out";
            section.refuse("order_key", "is not asked for its order", cure);
        }
        return Some(if word == "tenant" { Order::Tenant } else { Order::None });
    }
    if !section.has("order_key") {
        let cure = "say what the key is: order_key = \"json:room.id\"";
        section.missing("order_key", cure);
        return None;
    }
    let rule = rule_text(section, "order_key")?;
    match OrderKey::new(&rule) {
        Ok(key) => Some(Order::Key(key)),
        Err(what) => {
            let cure = "write \"json:PATH\", \"header:NAME\" or \"field:NAME\", several with `|`";
            section.refuse("order_key", &what, cure);
            None
        }
    }
}

/// Where acknowledgements wait for the sink, no event waits for others unless told to.
fn batch(sink: &Section<'_>, replica: bool) -> Option<BatchConfig> {
    let nothing = super::section::empty();
    let value = sink.value("batch").unwrap_or(&nothing);
    let section = Section::open(sink.reading, "sink.batch", value)?;
    let (count, bytes) = (section.count("count"), section.size("bytes"));
    let at_once = replica && !section.has("linger");
    let linger = if at_once { Some(Duration::ZERO) } else { section.duration("linger") };
    let said = BatchConfig {
        events_max: usize::try_from(count?).unwrap_or(usize::MAX),
        bytes_max: usize::try_from(bytes?).unwrap_or(usize::MAX),
        linger: linger?,
    };
    let or = |key| section.has(key) || !sink.has("object");
    Some(BatchConfig {
        events_max: if or("count") { said.events_max } else { OF_OBJECTS.events_max },
        bytes_max: if or("bytes") { said.bytes_max } else { OF_OBJECTS.bytes_max },
        linger: if or("linger") { said.linger } else { OF_OBJECTS.linger },
    })
}

/// What the sink must be able to hold. One whose batches wait long needs room for a whole batch of
/// each of its lanes, or a full memory would have to wait with them.
fn memory_min(sink: &Section<'_>, batch: BatchConfig, lanes: usize) -> u64 {
    if !sink.has("object") {
        return batch.bytes_max as u64;
    }
    let batch = batch.bytes_max.saturating_add(batch.events_max.saturating_mul(EVENT_BYTES));
    batch.saturating_mul(lanes.max(1)) as u64
}

fn retry(sink: &Section<'_>) -> Option<RetryConfig> {
    let nothing = super::section::empty();
    let value = sink.value("retry").unwrap_or(&nothing);
    let section = Section::open(sink.reading, "sink.retry", value)?;
    let (first, max) = (section.duration("first"), section.duration("max"));
    let (first, max, horizon) = (first?, max?, section.duration("horizon")?);
    if max < first {
        let cure = format!("raise it to at least \"{}\"", units::duration_text(first));
        section.refuse("max", "is shorter than `sink.retry.first`", cure);
    }
    Some(RetryConfig { first, max, horizon })
}

/// None: a reported mistake; none within: never.
#[expect(clippy::option_option, reason = "as the line above says")]
fn redrive(sink: &Section<'_>) -> Option<Option<RedriveConfig>> {
    let nothing = super::section::empty();
    let value = sink.value("dead_letters").unwrap_or(&nothing);
    let section = Section::open(sink.reading, "sink.dead_letters", value)?;
    let events_per_second = section.count("rate")?;
    if !section.has("redrive") {
        if section.has("rate") {
            let cure = "say when: redrive = \"0 4 * * *\", or leave `rate` out";
            section.refuse("rate", "is of a redrive that has no times", cure);
        }
        return Some(None);
    }
    match Times::parse(section.text("redrive")?) {
        Ok(times) => Some(Some(RedriveConfig { times, events_per_second })),
        Err(what) => {
            let cure = "write minute, hour, day of the month, month and day of the week, in UTC: \
                        redrive = \"0 4 * * *\"";
            section.refuse("redrive", &format!("is no time of cron: {what}"), cure);
            None
        }
    }
}

/// The one table that names the sink's kind.
fn settings(section: &Section<'_>) -> Option<Arc<dyn Kind>> {
    if let Some((word, feature)) = UNBUILT.iter().find(|(word, _)| section.has(word)) {
        let cure = format!("build it with `cargo build --release --features {feature}`");
        section.refuse(word, "is a kind of sink that this forebay was built without", cure);
        return None;
    }
    let written: Vec<&Table> = TABLES.iter().filter(|kind| section.has(kind.word)).collect();
    let all =
        || TABLES.iter().map(|kind| format!("[{}]", kind.path)).collect::<Vec<_>>().join(", ");
    match written.as_slice() {
        [kind] => {
            let table = Section::open(section.reading, kind.path, section.value(kind.word)?)?;
            (kind.read)(&table)
        }
        [] => {
            let cure = match TABLES {
                [] => "this forebay was built without any; build it with \
                       `cargo build --release`, which has most"
                    .to_owned(),
                _ => format!("say where events go, by one of {}", all()),
            };
            section.lacking("a sink has no kind".to_owned(), "one is needed here", cure);
            None
        }
        [_, second, ..] => {
            let cure = "keep one of the two, and give the other a [[sink]] of its own";
            section.refuse(second.word, "is a second kind of one sink", cure);
            None
        }
    }
}

/// The text of `ca_file`: PEM that the client reads for itself.
#[cfg(any(feature = "sink-kafka", feature = "sink-redis"))]
#[expect(clippy::option_option, reason = "none: a reported mistake; none within: no such key")]
fn ca_pem(section: &Section<'_>) -> Option<Option<Vec<u8>>> {
    let Some(text) = section.text("ca_file") else { return Some(None) };
    let path = section.reading.path(text, &section.place("ca_file"));
    match std::fs::read(&path) {
        Ok(pem) => Some(Some(pem)),
        Err(error) => {
            let what = format!("names `{}`, which cannot be read: {error}", path.display());
            section.refuse("ca_file", &what, "make it a PEM file that forebay's user may read");
            None
        }
    }
}
