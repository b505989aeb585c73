//! Events as `CloudEvents` 1.0: structured JSON, and headers of binary mode.
//!
//! | attribute | what it is |
//! |---|---|
//! | `id` | the event key: the same for all deliveries of an event, different for all others |
//! | `source` | `/sources/NAME` |
//! | `type` | the event's type, or `forebay.event` where it has none |
//! | `time` | the event's own time where it is one of RFC 3339, or else when it arrived |
//! | `eventid`, `tenant`, `environment`, `traceid` | what the record says; left out where it says nothing |
//! | `lane`, `position` | where the event is |

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forebay_log::{RecordRef, Tag};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serializer as _;
use serde::ser::SerializeMap as _;
use serde_json::value::RawValue;

use super::row::time_text;
use crate::drain::sink::Event;

/// The media type of one event.
pub const STRUCTURED: &str = "application/cloudevents+json";

/// What headers of binary mode may not hold as it is (HTTP protocol binding, 3.1.3.2), beside what
/// is not ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// Its names and values, in the order in which they are written.
fn attributes<'r>(record: &RecordRef<'r>, lane: &'r str) -> Vec<(&'static str, Cow<'r, str>)> {
    let meta = record.meta();
    let text = |tag| meta.get(tag).map(String::from_utf8_lossy).filter(|text| !text.is_empty());
    let source = format!("/sources/{}", text(Tag::Source).unwrap_or_default());
    let moment = |text: &Cow<'_, str>| text.parse::<jiff::Timestamp>().is_ok();
    let time = text(Tag::EventTime).filter(moment);
    let mut attributes = vec![
        ("specversion", Cow::Borrowed("1.0")),
        ("id", Cow::Owned(record.key().to_string())),
        ("source", Cow::Owned(source)),
        ("type", text(Tag::EventType).unwrap_or(Cow::Borrowed("forebay.event"))),
        ("time", time.unwrap_or_else(|| time_text(record.received_ns()).into())),
    ];
    let extensions = [
        ("eventid", Tag::EventId),
        ("tenant", Tag::Tenant),
        ("environment", Tag::Environment),
        ("traceid", Tag::TraceId),
    ];
    attributes.extend(extensions.iter().filter_map(|(name, tag)| Some((*name, text(*tag)?))));
    attributes.push(("lane", Cow::Borrowed(lane)));
    attributes.push(("position", Cow::Owned(record.position().to_string())));
    attributes
}

/// The headers of binary mode, without `content-type`, which says what the data is.
pub fn headers_of(event: &Event) -> impl Iterator<Item = (String, String)> {
    let record = event.record.get();
    let headers: Vec<(String, String)> = attributes(&record, &event.lane)
        .into_iter()
        .map(|(name, value)| {
            (format!("ce-{name}"), utf8_percent_encode(&value, ENCODED).to_string())
        })
        .collect();
    headers.into_iter()
}

/// The event as structured JSON: what its shape has made already, or its payload in an envelope.
pub fn structured_of(event: &Event) -> Cow<'_, [u8]> {
    if event.content_type.starts_with(STRUCTURED) {
        return Cow::Borrowed(event.payload());
    }
    let record = event.record.get();
    Cow::Owned(structured(&record, &event.lane, event.payload(), &event.content_type))
}

/// A payload of this media type in an envelope, on one line.
pub(super) fn structured(
    record: &RecordRef<'_>,
    lane: &str,
    payload: &[u8],
    content_type: &str,
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.len() + 512);
    // Writing into memory what has texts alone as keys cannot fail.
    _ = write(&mut bytes, &attributes(record, lane), payload, content_type);
    super::put_on_one_line(&mut bytes);
    bytes
}

fn write(
    bytes: &mut Vec<u8>,
    attributes: &[(&'static str, Cow<'_, str>)],
    payload: &[u8],
    content_type: &str,
) -> Result<(), serde_json::Error> {
    let mut serializer = serde_json::Serializer::new(bytes);
    let mut map = serializer.serialize_map(None)?;
    for (name, value) in attributes {
        map.serialize_entry(name, value)?;
    }
    map.serialize_entry("datacontenttype", content_type)?;
    let json = is_json_type(content_type);
    match std::str::from_utf8(payload) {
        Ok(text) if json => match serde_json::from_str::<&RawValue>(text) {
            Ok(value) => map.serialize_entry("data", value)?,
            // A text here would be taken for a string of JSON.
            Err(_) => map.serialize_entry("data_base64", &STANDARD.encode(payload))?,
        },
        Ok(text) => map.serialize_entry("data", text)?,
        Err(_) => map.serialize_entry("data_base64", &STANDARD.encode(payload))?,
    }
    map.end()
}

/// Whether a media type is one of JSON (RFC 6838 structured suffix).
fn is_json_type(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || essence.eq_ignore_ascii_case("text/json")
        || essence.to_ascii_lowercase().ends_with("+json")
}
