//! Every key that a configuration may hold: its form, its bounds, its default, one line about it.
//!
//! The reader takes forms and defaults from here, the overrides by environment take their names
//! from here, and a test compares the table in the README with this one. A key that is not here
//! does not exist.

mod kinds;
mod sink;
mod source;

use std::time::Duration;

use super::units;

/// What a key's value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Any text.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number between these two.
    Count(u64, u64),
    /// A duration as text between these two.
    Span(Duration, Duration),
    /// A size as text between these two.
    Size(u64, u64),
    /// A moment.
    Moment,
    /// A list of texts.
    Texts,
    /// A rule as text, or a list of rules.
    Rule,
    /// A table with keys of its own.
    Table,
    /// Yes or no.
    Truth,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// Sections and key, with dots; `lane`, `source` and `sink` stand for any one of theirs.
    pub(super) path: &'static str,
    pub(super) form: Form,
    /// As it would be written in the file; empty where there is none.
    pub(super) default: &'static str,
    /// The row of the README.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the test of the README's table"))]
    pub(super) meaning: &'static str,
}

const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// What a deadline may be: shorter than a timer tick is a mistake, longer than an hour is none.
const DEADLINE: Form = Form::Span(Duration::from_millis(10), Duration::from_secs(3600));
/// What a window or an age may be.
const AGE: Form = Form::Span(Duration::from_secs(1), Duration::from_secs(86_400 * 3650));

const fn key(path: &'static str, form: Form, default: &'static str, meaning: &'static str) -> Key {
    Key { path, form, default, meaning }
}

/// Every key, in the order of the README.
pub(super) fn keys() -> impl Iterator<Item = &'static Key> {
    [BASE, source::KEYS, sink::KEYS, kinds::KEYS].into_iter().flatten()
}

/// What stands outside of sources and sinks.
const BASE: &[Key] = &[
    key("data_dir", Form::Text, "", "The folder that holds everything kept. Required."),
    key("receive.listen", Form::Text, "127.0.0.1:8080", "Address and port that senders reach."),
    key("receive.receivers", Form::Count(1, 512), "", "Receiver threads. Default: one a core."),
    key(
        "receive.driver",
        Form::Choice(&["auto", "io_uring", "epoll"]),
        "auto",
        "How sockets are driven: `auto`, `io_uring` or `epoll`.",
    ),
    key(
        "receive.body_max",
        Form::Size(1, crate::limits::BODY_BYTES_LIMIT),
        "1MiB",
        "The largest body taken; at most 32MiB.",
    ),
    key(
        "receive.body_budget",
        Form::Size(64 * KIB, TIB),
        "64MiB",
        "Body bytes that have come and are held at once, per receiver.",
    ),
    key(
        "receive.head_timeout",
        DEADLINE,
        "5s",
        "From a request's first byte to the end of its headers.",
    ),
    key(
        "receive.body_timeout",
        DEADLINE,
        "10s",
        "From the end of the headers to the end of the body.",
    ),
    key(
        "receive.body_rate_min",
        Form::Size(1, GIB),
        "16KiB",
        "Bytes a second below which a body is too slow.",
    ),
    key(
        "receive.idle_timeout",
        DEADLINE,
        "15s",
        "How long a connection may wait between requests.",
    ),
    key("receive.write_timeout", DEADLINE, "5s", "How long an answer may take to be written."),
    key(
        "receive.drain_timeout",
        DEADLINE,
        "10s",
        "After SIGTERM: how long open requests may still take.",
    ),
    key(
        "receive.trusted_proxies",
        Form::Texts,
        "",
        "Networks of the proxies in front, whose word about a client's address is taken.",
    ),
    key(
        "receive.proxy_header",
        Form::Choice(&["x-forwarded-for", "proxy-protocol"]),
        "x-forwarded-for",
        "How they tell it: `x-forwarded-for`, or `proxy-protocol` (version 1 or 2) on every connection.",
    ),
    key(
        "receive.connections_per_address",
        Form::Count(1, 1_000_000),
        "",
        "Connections that one address may have open in each receiver. Default: no bound.",
    ),
    key(
        "receive.failures_per_address",
        Form::Count(1, 1_000_000),
        "",
        "Requests of one address that each receiver refuses in a minute before it answers 429 to all of them. Default: no bound.",
    ),
    key(
        "admin.listen",
        Form::Text,
        "127.0.0.1:9464",
        "Address and port of metrics and health. Not for the public.",
    ),
    key(
        "quarantine.size",
        Form::Size(0, TIB),
        "64MiB",
        "Disk for refused requests that may be looked at and released; `0` keeps none.",
    ),
    key("quarantine.age", AGE, "72h", "Refused requests older than this are removed."),
    key(
        "quarantine.rate",
        Form::Size(1, GIB),
        "",
        "Bytes a second that one source may add beyond its share of the size. Default: its share in a day.",
    ),
    key(
        "outgoing.proxy",
        Form::Text,
        "",
        "The proxy for what forebay asks by itself (`source.confirm`), as `http://10.0.0.1:3128`. Default: directly.",
    ),
    key(
        "outgoing.ca_file",
        Form::Text,
        "",
        "Certificates, as PEM, that are trusted there beside those of the machine: of a proxy that inspects TLS.",
    ),
    key("lane.name", Form::Text, "", "Name of the lane. Required."),
    key(
        "lane.ack",
        Form::Choice(&["written", "synced", "replicated"]),
        "synced",
        "What a 2xx promises: `written` survives the process, `synced` the loss of power, `replicated` that of the machine.",
    ),
    key(
        "lane.replicate_to",
        Form::Text,
        "",
        "With `ack = \"replicated\"`: the sink, of kind `nats` or `kafka`, that must have an event before its 2xx.",
    ),
    key(
        "lane.segment_size",
        Form::Size(forebay_log::SEGMENT_BYTES_MIN, forebay_log::SEGMENT_BYTES_MAX),
        "128MiB",
        "Size of one file of the log.",
    ),
    key(
        "lane.retention.age",
        AGE,
        "168h",
        "Segments older than this are removed, once cursors have read them. At least `lane.dedupe_window`, which the default follows.",
    ),
    key(
        "lane.retention.size",
        Form::Size(128 * KIB, 1024 * TIB),
        "",
        "The oldest segments beyond this are removed; each counts whole, however little is in it. What the sink of `lane.replicate_to` lacks stays. Default: no bound.",
    ),
    key(
        "lane.dedupe_window",
        AGE,
        "72h",
        "How long an event is remembered; a later delivery of it is acknowledged, not stored again.",
    ),
    key(
        "lane.dedupe_capacity",
        Form::Count(1024, 1 << 32),
        "4000000",
        "Events remembered in memory, about 40 bytes each; all others of the window are kept in files beside the log. While the disk cannot keep up with them, a full memory answers 503.",
    ),
    key(
        "lane.disk_reserve",
        Form::Size(0, 1024 * TIB),
        "",
        "Free space below which nothing is taken. Default: two segments, at least 5 % of the disk.",
    ),
    key(
        "lane.priority",
        Form::Count(0, 255),
        "0",
        "Of the lanes that a sink reads, one with a higher number is drained first.",
    ),
];

/// The key of this path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    keys().find(|key| key.path == path)
}

/// The words that may stand in the table of this path: keys and sections, each once.
pub(super) fn words_of(prefix: &str) -> Vec<&'static str> {
    let mut words: Vec<&'static str> = keys()
        .filter_map(|key| match prefix {
            "" => Some(key.path),
            _ => key.path.strip_prefix(prefix)?.strip_prefix('.'),
        })
        .map(|rest| rest.split('.').next().unwrap_or(rest))
        .collect();
    words.dedup();
    words
}

impl Form {
    /// What the form is called in a message.
    pub(super) fn wanted(self) -> String {
        match self {
            Self::Text => "text in quotes".to_owned(),
            Self::Choice(words) => format!("one of \"{}\"", words.join("\", \"")),
            Self::Count(min, max) => format!("a whole number from {min} to {max}"),
            Self::Span(min, max) => format!(
                "a duration from \"{}\" to \"{}\"",
                units::duration_text(min),
                units::duration_text(max)
            ),
            Self::Size(min, max) => format!(
                "a size from \"{}\" to \"{}\"",
                units::size_text(min),
                units::size_text(max)
            ),
            Self::Moment => {
                "a date with time and offset, such as \"2026-12-31T00:00:00Z\"".to_owned()
            }
            Self::Texts => "a list of texts, such as [\"application/json\"]".to_owned(),
            Self::Rule => "a rule, such as \"json:data.id\" or \"header:x-event-id\"".to_owned(),
            Self::Table => "a table".to_owned(),
            Self::Truth => "true or false, without quotes".to_owned(),
        }
    }
}
