//! A record as it is printed: a row of JSON, its body alone, or lines for a person.
//!
//! The row of JSON is a contract with scripts: keys are only ever added. Every key but the body's
//! is always there, `null` where the record says nothing. Nothing is lost: what is not UTF-8 is
//! given in base64, and headers are a list of pairs, because a name may stand twice.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forebay_log::{HeaderValue, Kind, Meta, RecordRef, Tag};
use jiff::Timestamp;
use serde::Serialize;

/// How records are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// One JSON object a line.
    Json,
    /// The body and a line end.
    Raw,
    /// For people; with colours or without.
    Pretty { coloured: bool },
}

impl Style {
    /// Prints one record of a lane.
    pub(super) fn print(
        self,
        out: &mut impl Write,
        lane: &str,
        record: &RecordRef<'_>,
    ) -> io::Result<()> {
        match self {
            Self::Json => {
                serde_json::to_writer(&mut *out, &Row::new(lane, record))?;
                out.write_all(b"\n")
            }
            Self::Raw => {
                out.write_all(record.body())?;
                out.write_all(b"\n")
            }
            Self::Pretty { coloured } => pretty(out, coloured, &Row::new(lane, record)),
        }
    }
}

/// The row of JSON, in the order of its keys.
#[derive(Debug, Serialize)]
struct Row<'r> {
    position: String,
    /// The fingerprint of the event key, in hexadecimal.
    key: String,
    kind: &'static str,
    received_at: String,
    lane: &'r str,
    source: Option<Cow<'r, str>>,
    environment: Option<Cow<'r, str>>,
    tenant: Option<Cow<'r, str>>,
    event_id: Option<Cow<'r, str>>,
    event_type: Option<Cow<'r, str>>,
    event_time: Option<Cow<'r, str>>,
    secret: Option<Cow<'r, str>>,
    method: Option<Cow<'r, str>>,
    target: Option<Cow<'r, str>>,
    peer: Option<Cow<'r, str>>,
    trace_id: Option<Cow<'r, str>>,
    /// Of a delivery: where the event is.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_position: Option<Cow<'r, str>>,
    /// Signed bytes that came before under another id, which is not signed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    suspect_replay: bool,
    /// Of an event out of quarantine: where it is there, and when it first arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    quarantine_position: Option<Cow<'r, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_received_at: Option<String>,
    headers: Vec<(Cow<'r, str>, Value<'r>)>,
    #[serde(flatten)]
    body: Body<'r>,
}

/// A header's value: as text where it is text.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Value<'r> {
    Base64(String),
    /// The value was a credential; this is a keyed digest of it, in hexadecimal.
    Digest(String),
    #[serde(untagged)]
    Text(&'r str),
}

#[derive(Debug, Serialize)]
enum Body<'r> {
    #[serde(rename = "body")]
    Text(&'r str),
    #[serde(rename = "body_base64")]
    Base64(String),
}

impl<'r> Row<'r> {
    fn new(lane: &'r str, record: &RecordRef<'r>) -> Self {
        let meta: Meta<'r> = record.meta();
        let text = |tag| meta.get(tag).map(String::from_utf8_lossy);
        Self {
            position: record.position().to_string(),
            key: record.key().to_string(),
            kind: kind_text(record.kind()),
            received_at: time_text(record.received_ns()),
            lane,
            source: text(Tag::Source),
            environment: text(Tag::Environment),
            tenant: text(Tag::Tenant),
            event_id: text(Tag::EventId),
            event_type: text(Tag::EventType),
            event_time: text(Tag::EventTime),
            secret: text(Tag::Secret),
            method: text(Tag::Method),
            target: text(Tag::Target),
            peer: text(Tag::Peer),
            trace_id: text(Tag::TraceId),
            event_position: text(Tag::EventPosition),
            suspect_replay: meta.get(Tag::SuspectReplay).is_some(),
            quarantine_position: text(Tag::Quarantined),
            first_received_at: text(Tag::FirstReceived)
                .and_then(|digits| digits.parse().ok())
                .map(time_text),
            headers: meta
                .headers()
                .map(|(name, value)| (String::from_utf8_lossy(name), Value::new(value)))
                .collect(),
            body: match std::str::from_utf8(record.body()) {
                Ok(text) => Body::Text(text),
                Err(_) => Body::Base64(STANDARD.encode(record.body())),
            },
        }
    }
}

impl<'r> Value<'r> {
    fn new(value: HeaderValue<'r>) -> Self {
        match value {
            HeaderValue::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Self::Text(text),
                Err(_) => Self::Base64(STANDARD.encode(bytes)),
            },
            HeaderValue::Digest(digest) => Self::Digest(hexadecimal(digest)),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    // Writing to a String cannot fail.
    for byte in bytes {
        _ = write!(text, "{byte:02x}");
    }
    text
}

fn kind_text(kind: Kind) -> &'static str {
    match kind {
        Kind::Event => "event",
        Kind::Delivery => "delivery",
        Kind::Quarantine => "quarantine",
    }
}

/// RFC 3339 in UTC, always with nanoseconds, so that text sorts as time does.
pub(super) fn time_text(unix_ns: u64) -> String {
    // Every u64 lies in jiff's range, which ends in the year 9999.
    let time = Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or_default();
    format!("{time:.9}")
}

/// Two lines and the body. What came from outside is escaped: it must not steer the terminal.
fn pretty(out: &mut impl Write, coloured: bool, row: &Row<'_>) -> io::Result<()> {
    let (bold, dim, plain) =
        if coloured { ("\u{1b}[1m", "\u{1b}[2m", "\u{1b}[0m") } else { ("", "", "") };
    let said = |text: &Option<Cow<'_, str>>| text.as_deref().map(harmless);
    let source = said(&row.source).unwrap_or_default();
    let event_type = said(&row.event_type).unwrap_or_else(|| "-".to_owned());
    writeln!(
        out,
        "{dim}{}{plain} {bold}{source} {event_type}{plain} {}",
        row.received_at,
        said(&row.event_id).unwrap_or_else(|| "-".to_owned()),
    )?;
    write!(out, "{dim}  {} {} in {}", row.kind, row.position, row.lane)?;
    for (name, text) in [
        ("of", &row.event_position),
        ("environment", &row.environment),
        ("tenant", &row.tenant),
        ("at", &row.event_time),
        ("secret", &row.secret),
    ] {
        if let Some(text) = said(text) {
            write!(out, ", {name} {text}")?;
        }
    }
    writeln!(out, "{plain}")?;
    match &row.body {
        Body::Text(text) => {
            for line in text.lines() {
                writeln!(out, "  {}", harmless(line))?;
            }
        }
        Body::Base64(text) => writeln!(out, "  {dim}base64{plain} {text}")?,
    }
    Ok(())
}

/// Text without the characters that a terminal obeys.
pub(super) fn harmless(text: &str) -> String {
    let mut harmless = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\t' {
            harmless.extend(character.escape_default());
        } else {
            harmless.push(character);
        }
    }
    harmless
}
