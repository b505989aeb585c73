//! An event as one line of JSON, for sinks that write lines.
//!
//! A payload that is a normalised row of the event stands as it is. Any other stands under `data`
//! (JSON), `data_text` or `data_base64`, behind what tells events apart. Either way a line begins
//! with the event's position, which is how a file is continued after a crash.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forebay_log::{Position, Tag};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::drain::shape::put_on_one_line;
use crate::drain::sink::Event;

/// The longest line: the largest body as base64, with room for its neighbours.
pub(super) const LINE_BYTES_MAX: u64 = 2 * crate::limits::BODY_BYTES_LIMIT + (1 << 20);
/// Every line begins so.
const BEGIN: &[u8] = b"{\"position\":\"";

#[derive(Debug, Serialize)]
struct Line<'e> {
    position: String,
    key: String,
    lane: &'e str,
    source: Option<Cow<'e, str>>,
    event_type: Option<Cow<'e, str>>,
    content_type: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'e RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_text: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

/// Adds the event's line with its end.
pub(super) fn write(lines: &mut Vec<u8>, event: &Event) {
    let from = lines.len();
    let position = event.position().to_string();
    if is_row(&event.payload, &position) {
        lines.extend_from_slice(&event.payload);
    } else {
        let data = serde_json::from_slice(&event.payload).ok();
        let other = data.is_none().then_some(&event.payload);
        let text = other.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes));
        let line = Line {
            position,
            key: event.idempotency_key(),
            lane: &event.lane,
            source: event.field(Tag::Source),
            event_type: event.field(Tag::EventType),
            content_type: &event.content_type,
            data,
            data_text: text.and_then(Result::ok),
            data_base64: text.and_then(Result::err).map(|bytes| STANDARD.encode(bytes)),
        };
        // Writing into memory what has texts alone as keys cannot fail.
        _ = serde_json::to_writer(&mut *lines, &line);
    }
    if let Some(line) = lines.get_mut(from..) {
        put_on_one_line(line);
    }
    lines.push(b'\n');
}

/// Adds the payload alone on a line; one that is no JSON as [`write`] does.
pub(super) fn write_payload(lines: &mut Vec<u8>, event: &Event) {
    if !is_json(&event.payload) {
        return write(lines, event);
    }
    let from = lines.len();
    lines.extend_from_slice(&event.payload);
    if let Some(line) = lines.get_mut(from..) {
        put_on_one_line(line);
    }
    lines.push(b'\n');
}

/// Whether a payload is the row of this very event.
fn is_row(payload: &[u8], position: &str) -> bool {
    payload
        .strip_prefix(BEGIN)
        .and_then(|rest| rest.strip_prefix(position.as_bytes()))
        .is_some_and(|rest| rest.starts_with(b"\","))
        && is_json(payload)
}

/// Whether a payload is JSON.
pub(super) fn is_json(payload: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(payload).is_ok()
}

/// The position that a whole line without its end begins with; none: it is no line of ours.
pub(super) fn position_of(line: &[u8]) -> Option<Position> {
    let rest = line.strip_prefix(BEGIN)?;
    let end = rest.iter().take(64).position(|byte| *byte == b'"')?;
    if line.last() != Some(&b'}') {
        return None;
    }
    std::str::from_utf8(rest.get(..end)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::drain::testing::Written;

    fn line(event: &Event) -> Value {
        let mut lines = Vec::new();
        write(&mut lines, event);
        assert_eq!(lines.split_inclusive(|byte| *byte == b'\n').count(), 1);
        let text = lines.strip_suffix(b"\n").expect("an end");
        assert_eq!(position_of(text), Some(event.position()));
        serde_json::from_slice(text).expect("is JSON")
    }

    #[test]
    fn a_payload_of_any_kind_is_one_line_that_begins_with_its_position() {
        let mut log = Written::new();
        let pretty = line(&log.event(1, "{\n  \"a\": \"x\\ny\",\r\n  \"b\": 1.10\n}"));
        assert_eq!(pretty["data"]["a"], "x\ny");
        assert_eq!(
            (&pretty["lane"], &pretty["event_type"]),
            (&"main".into(), &"room.started".into())
        );
        assert_eq!(line(&log.event(2, "a=1\nb"))["data_text"], "a=1\nb");
        let mut event = log.event(3, "{}");
        event.payload = vec![0xff].into();
        assert_eq!(line(&event)["data_base64"], "/w==");
    }

    #[test]
    fn a_row_stands_as_it_is_and_what_only_looks_like_one_does_not() {
        let mut log = Written::new();
        let mut event = log.event(1, "{}");
        let row = format!("{{\"position\":\"{}\",\"body\":1}}", event.position());
        event.payload = row.clone().into();
        assert_eq!(line(&event).to_string().len(), row.len());
        event.payload = "{\"position\":\"9-9\",\"body\":1}".into();
        assert_eq!(line(&event)["data"]["position"], "9-9");
        event.payload = row.replace('}', "").into();
        assert!(line(&event)["data_text"].is_string());
    }

    #[test]
    fn what_is_no_whole_line_has_no_position() {
        for text in [
            "",
            "{\"position\":\"1-2",
            "{\"position\":\"1-2\",\"a\":1",
            "{\"a\":1}",
            "{\"position\":\"x\"}",
            "\0\0\0\0",
        ] {
            assert_eq!(position_of(text.as_bytes()), None, "{text}");
        }
    }
}
