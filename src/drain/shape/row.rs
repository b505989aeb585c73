//! The row of JSON that a record is told as: by `tail`, and to sinks as `format = "normalised"`.
//!
//! It is a contract with scripts and consumers: keys are only ever added. Every key but the body's
//! is always there, `null` where the record says nothing. Nothing is lost: what is not UTF-8 is
//! given in base64, and headers are a list of pairs, because a name may stand twice.
//!
//! The body is a text in `tail`. In the normalised row `body` is the JSON that it is; a body that
//! is none stands in `body_text` or `body_base64`.

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forebay_log::{HeaderValue, Kind, Meta, RecordRef, Tag};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

/// The row of JSON, in the order of its keys.
#[derive(Debug, Serialize)]
pub(crate) struct Row<'r> {
    pub(crate) position: String,
    /// The fingerprint of the event key, in hexadecimal.
    pub(crate) key: String,
    pub(crate) kind: &'static str,
    pub(crate) received_at: String,
    pub(crate) lane: &'r str,
    pub(crate) source: Option<Cow<'r, str>>,
    pub(crate) environment: Option<Cow<'r, str>>,
    pub(crate) tenant: Option<Cow<'r, str>>,
    pub(crate) event_id: Option<Cow<'r, str>>,
    pub(crate) event_type: Option<Cow<'r, str>>,
    pub(crate) event_time: Option<Cow<'r, str>>,
    pub(crate) secret: Option<Cow<'r, str>>,
    pub(crate) method: Option<Cow<'r, str>>,
    pub(crate) target: Option<Cow<'r, str>>,
    pub(crate) peer: Option<Cow<'r, str>>,
    pub(crate) trace_id: Option<Cow<'r, str>>,
    /// Of a delivery: where the event is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) event_position: Option<Cow<'r, str>>,
    /// Signed bytes that came before under another id, which is not signed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) suspect_replay: bool,
    /// Of an event out of quarantine: where it is there, and when it first arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quarantine_position: Option<Cow<'r, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_received_at: Option<String>,
    pub(crate) headers: Vec<(Cow<'r, str>, Value<'r>)>,
    #[serde(flatten)]
    pub(crate) body: Body<'r>,
}

/// A header's value: as text where it is text.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Value<'r> {
    Base64(String),
    /// The value was a credential; this is a keyed digest of it, in hexadecimal.
    Digest(String),
    #[serde(untagged)]
    Text(&'r str),
}

/// The body: of the row of `tail` its first two forms, of the normalised row the others.
#[derive(Debug, Serialize)]
pub(crate) enum Body<'r> {
    #[serde(rename = "body")]
    Text(&'r str),
    #[serde(rename = "body_base64")]
    Base64(String),
    #[serde(rename = "body")]
    Json(&'r RawValue),
    #[serde(rename = "body_text")]
    Plain(&'r str),
}

impl<'r> Row<'r> {
    pub(crate) fn new(lane: &'r str, record: &RecordRef<'r>) -> Self {
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

impl<'r> Body<'r> {
    /// As JSON where it is JSON, so that `body` is never a text that only looks like it.
    pub(crate) fn parsed(body: &'r [u8]) -> Self {
        match (serde_json::from_slice(body), std::str::from_utf8(body)) {
            (Ok(json), _) => Self::Json(json),
            (Err(_), Ok(text)) => Self::Plain(text),
            (Err(_), Err(_)) => Self::Base64(STANDARD.encode(body)),
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
pub(crate) fn time_text(unix_ns: u64) -> String {
    // Every u64 lies in jiff's range, which ends in the year 9999.
    let time = Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or_default();
    format!("{time:.9}")
}
