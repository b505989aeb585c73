//! An event as one line of JSON, for sinks that write lines.
//!
//! A payload that is a normalised row of the event stands as it is. Any other stands under `data`
//! (JSON), `data_text` or `data_base64`, behind what tells events apart. Either way a line begins
//! with the event's position, which is how a file is continued after a crash.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forebay_log::{Position, Tag};

use crate::drain::shape::put_on_one_line;
use crate::drain::sink::Event;
use crate::verify::json;

/// The longest line: the largest body as base64, with room for its neighbours.
pub const LINE_BYTES_MAX: u64 = 2 * crate::limits::BODY_BYTES_LIMIT + (1 << 20);
/// Every line begins so.
const BEGIN: &[u8] = b"{\"position\":\"";

/// Adds the event's line with its end.
///
/// Piece by piece, without a value of serde's in between: of a small event these few names and
/// values cost as much as its payload.
pub fn write(lines: &mut Vec<u8>, event: &Event) {
    let (record, payload) = (event.record.get(), event.payload());
    let from = lines.len();
    lines.extend_from_slice(BEGIN);
    let mut number = itoa::Buffer::new();
    lines.extend_from_slice(number.format(record.position().epoch()).as_bytes());
    lines.push(b'-');
    lines.extend_from_slice(number.format(record.position().offset()).as_bytes());
    lines.extend_from_slice(b"\",");
    let begins_alike = lines.get(from..).is_some_and(|begin| payload.starts_with(begin));
    let value = json::value(payload);
    if begins_alike && value.is_some() {
        // It is the row of this very event.
        lines.truncate(from);
        put_json(lines, payload);
        lines.push(b'\n');
        return;
    }
    lines.extend_from_slice(b"\"key\":\"");
    lines.extend_from_slice(&record.key().digits());
    lines.extend_from_slice(b"\",\"lane\":");
    put_text(lines, &event.lane);
    let named: [(&[u8], Tag); 2] =
        [(b",\"source\":", Tag::Source), (b",\"event_type\":", Tag::EventType)];
    for (name, tag) in named {
        lines.extend_from_slice(name);
        match record.meta().get(tag).map(String::from_utf8_lossy) {
            Some(text) => put_text(lines, &text),
            None => lines.extend_from_slice(b"null"),
        }
    }
    lines.extend_from_slice(b",\"content_type\":");
    put_text(lines, &event.content_type);
    if let Some(value) = value {
        lines.extend_from_slice(b",\"data\":");
        put_json(lines, value.as_bytes());
    } else if let Ok(text) = std::str::from_utf8(payload) {
        lines.extend_from_slice(b",\"data_text\":");
        put_text(lines, text);
    } else {
        lines.extend_from_slice(b",\"data_base64\":");
        put_text(lines, &STANDARD.encode(payload));
    }
    lines.extend_from_slice(b"}\n");
}

/// Adds the payload alone on a line; one that is no JSON as [`write()`] does.
pub fn write_payload(lines: &mut Vec<u8>, event: &Event) {
    if !is_json(event.payload()) {
        return write(lines, event);
    }
    put_json(lines, event.payload());
    lines.push(b'\n');
}

/// Adds JSON, without its line ends.
fn put_json(lines: &mut Vec<u8>, json: &[u8]) {
    let from = lines.len();
    lines.extend_from_slice(json);
    if let Some(added) = lines.get_mut(from..) {
        put_on_one_line(added);
    }
}

/// Adds a string of JSON.
fn put_text(lines: &mut Vec<u8>, text: &str) {
    if json::is_plain(text) {
        lines.push(b'"');
        lines.extend_from_slice(text.as_bytes());
        lines.push(b'"');
    } else {
        // Writing a text into memory cannot fail.
        _ = serde_json::to_writer(lines, text);
    }
}

/// Whether a payload is JSON.
pub fn is_json(payload: &[u8]) -> bool {
    json::value(payload).is_some()
}

/// The position that a whole line without its end begins with; none: it is no line of ours.
pub fn position_of(line: &[u8]) -> Option<Position> {
    let rest = line.strip_prefix(BEGIN)?;
    let end = rest.iter().take(64).position(|byte| *byte == b'"')?;
    if line.last() != Some(&b'}') {
        return None;
    }
    std::str::from_utf8(rest.get(..end)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::cell::RefCell;

    use proptest::prelude::*;
    use serde::Serialize;
    use serde_json::Value;
    use serde_json::value::RawValue;

    use super::*;
    use crate::drain::testing::{Said, Written};

    /// A line as serde writes it: what [`write`] has to be the same as.
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

    fn by_serde(event: &Event) -> Vec<u8> {
        let data = serde_json::from_slice(event.payload()).ok();
        let text = data.is_none().then(|| std::str::from_utf8(event.payload()));
        let line = Line {
            position: event.position().to_string(),
            key: event.idempotency_key(),
            lane: &event.lane,
            source: event.field(Tag::Source),
            event_type: event.field(Tag::EventType),
            content_type: &event.content_type,
            data,
            data_text: text.and_then(Result::ok),
            data_base64: text.and_then(Result::err).map(|_| STANDARD.encode(event.payload())),
        };
        let mut line = serde_json::to_vec(&line).expect("is written");
        put_on_one_line(&mut line);
        line.push(b'\n');
        line
    }

    #[test]
    fn a_line_is_what_serde_would_write() {
        let body = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            "[ \\[\\]{}:,\"\\\\ua0-9e.\\-\n\r\u{1}\u{e9}]{0,24}".prop_map(String::into_bytes),
            "\\PC{0,80}".prop_map(|text| {
                let text = serde_json::json!({ "text": text, "more": [1.5, null, { "a": true }] });
                format!(" \n{text:#}\r\n").into_bytes()
            }),
        ];
        let word = || prop::option::of("(\\PC|[\"\\\\\n\u{1}]){0,20}");
        let content_type = "(\\PC|[\"\\\\\n]){0,20}";
        let log = RefCell::new(Written::new());
        proptest!(|(body in body, source in word(), kind in word(), content_type in content_type)| {
            let fields: Vec<(Tag, &str)> = [(Tag::Source, &source), (Tag::EventType, &kind)]
                .into_iter()
                .filter_map(|(tag, word)| Some((tag, word.as_deref()?)))
                .collect();
            let said = Said { fields: &fields, headers: &[], body: &body };
            let mut event = Written::event_of(log.borrow_mut().record(0x5a, said));
            event.content_type = content_type.into();
            let mut lines = b"before\n".to_vec();
            write(&mut lines, &event);
            let expected = [b"before\n".as_slice(), &by_serde(&event)].concat();
            prop_assert_eq!(
                String::from_utf8_lossy(&lines),
                String::from_utf8_lossy(&expected)
            );
        });
    }

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
        event.made = Some(vec![0xff].into());
        assert_eq!(line(&event)["data_base64"], "/w==");
    }

    #[test]
    fn a_row_stands_as_it_is_and_what_only_looks_like_one_does_not() {
        let mut log = Written::new();
        let mut event = log.event(1, "{}");
        let row = format!("{{\"position\":\"{}\",\"body\":1}}", event.position());
        event.made = Some(row.clone().into());
        assert_eq!(line(&event).to_string().len(), row.len());
        event.made = Some("{\"position\":\"9-9\",\"body\":1}".into());
        assert_eq!(line(&event)["data"]["position"], "9-9");
        event.made = Some(row.replace('}', "").into());
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
