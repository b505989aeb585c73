//! An event as a message of SQS: body, attributes, group, id.
//!
//! A body is text, of the characters that XML knows. A payload that is none goes as base64, and
//! `Forebay-Encoding` says so.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::Serialize;

use super::Settings;
use crate::drain::sink::{Event, Failure, Pass};
use crate::drain::sinks::about::about;

/// No message has more attributes.
const ATTRIBUTES_MAX: usize = 10;
const TEXT: &str = "String";
/// Stands for what no attribute may hold.
const FOREIGN: char = '\u{fffd}';

/// A message, as a request has it.
#[derive(Debug, Serialize)]
pub(super) struct Message<'e> {
    /// Its place in the batch, and as text the name by which the answer calls it.
    #[serde(skip)]
    place: usize,
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "MessageBody")]
    body: Cow<'e, str>,
    #[serde(rename = "MessageAttributes")]
    attributes: BTreeMap<&'static str, Attribute<'e>>,
    #[serde(rename = "MessageGroupId", skip_serializing_if = "Option::is_none")]
    group_id: Option<String>,
    #[serde(rename = "MessageDeduplicationId", skip_serializing_if = "Option::is_none")]
    deduplication_id: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Attribute<'e> {
    data_type: &'static str,
    string_value: Cow<'e, str>,
}

impl<'e> Message<'e> {
    /// The event at this place of a batch; a failure if no queue can hold it.
    pub(super) fn of(event: &'e Event, place: usize, to: &Settings) -> Result<Self, Failure> {
        if event.payload().is_empty() {
            let reason = "is empty, which no body of SQS may be; write format = \"normalised\"";
            return Err(Failure::permanent(reason));
        }
        let (body, encoding) = match std::str::from_utf8(event.payload()) {
            Ok(text) if text.chars().all(is_of_xml) => (Cow::Borrowed(text), None),
            _ => (Cow::Owned(STANDARD.encode(event.payload())), Some("base64")),
        };
        let fifo = to.is_fifo();
        let message = Self {
            place,
            id: place.to_string(),
            body,
            attributes: attributes(event, encoding),
            group_id: fifo.then(|| group(event)),
            deduplication_id: fifo.then(|| deduplication_id(event)),
        };
        let (bytes, bytes_max) = (message.bytes(), to.request_bytes_max);
        if bytes > bytes_max {
            let reason = format!(
                "the message would have {bytes} bytes{}, and {bytes_max} are the most that a \
                 request to SQS may have",
                if encoding.is_some() { " as base64" } else { "" }
            );
            return Err(Failure::permanent(reason));
        }
        Ok(message)
    }

    pub(super) const fn place(&self) -> usize {
        self.place
    }

    /// What SQS counts: the body, and of each attribute name, type and value.
    pub(super) fn bytes(&self) -> usize {
        let of_attribute = |(name, attribute): (&&str, &Attribute<'_>)| {
            name.len() + attribute.data_type.len() + attribute.string_value.len()
        };
        self.body.len() + self.attributes.iter().map(of_attribute).sum::<usize>()
    }
}

/// What a message says of its event. Of an event that would need eleven, replayed, as base64, and
/// of a tenant, the environment is left out.
fn attributes<'e>(
    event: &'e Event,
    encoding: Option<&'static str>,
) -> BTreeMap<&'static str, Attribute<'e>> {
    let mut all = vec![("Forebay-Key", Cow::Owned(event.idempotency_key()))];
    all.extend(encoding.map(|word| ("Forebay-Encoding", Cow::Borrowed(word))));
    all.extend(about(event));
    // The first, so that it is never what is left out.
    all.sort_by_key(|(name, _)| *name != "Forebay-Pass");
    all.sort_by_key(|(name, _)| *name == "Forebay-Environment");
    let attribute = |(name, value)| {
        let attribute = Attribute { data_type: TEXT, string_value: cleaned(value) };
        (name, attribute)
    };
    all.into_iter().take(ATTRIBUTES_MAX).map(attribute).collect()
}

/// Whether SQS takes a character: those of XML 1.0.
fn is_of_xml(character: char) -> bool {
    matches!(
        character,
        '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..
    )
}

fn cleaned(value: Cow<'_, str>) -> Cow<'_, str> {
    if value.chars().all(is_of_xml) {
        return value;
    }
    let clean = |c| if is_of_xml(c) { c } else { FOREIGN };
    value.chars().map(clean).collect::<String>().into()
}

fn group(event: &Event) -> String {
    event.order_key.map_or_else(|| event.idempotency_key(), |key| format!("{key:016x}"))
}

fn deduplication_id(event: &Event) -> String {
    let mut id = event.idempotency_key();
    if event.pass == Pass::Replay {
        let mut number = [0; 8];
        // Without randomness the queue may take it for one that it has had.
        _ = SystemRandom::new().fill(&mut number);
        // Writing to a String cannot fail.
        _ = write!(id, "-{:016x}", u64::from_le_bytes(number));
    }
    id
}
