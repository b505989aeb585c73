//! An event as a message of Pub/Sub: data, attributes, ordering key.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::drain::sink::{Event, Failure};
use crate::drain::sinks::about::about;

/// No value of an attribute has more bytes.
const VALUE_BYTES_MAX: usize = 1024;
/// What a message is more than its parts, written as JSON; and an attribute.
const MESSAGE_BYTES: usize = 64;
const ATTRIBUTE_BYTES: usize = 8;

/// A message, as a request has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Message<'e> {
    /// Its place in the batch.
    #[serde(skip)]
    place: usize,
    data: String,
    attributes: BTreeMap<&'static str, Cow<'e, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ordering_key: Option<String>,
}

impl<'e> Message<'e> {
    /// The event at this place of a batch; a failure if no topic can hold it.
    pub(super) fn of(event: &'e Event, place: usize, bytes_max: usize) -> Result<Self, Failure> {
        if event.payload().len() > bytes_max {
            let bytes = event.payload().len();
            let reason = format!("has {bytes} bytes, and Pub/Sub takes {bytes_max} at the most");
            return Err(Failure::permanent(reason));
        }
        let mut attributes: BTreeMap<&'static str, Cow<'e, str>> =
            about(event).into_iter().map(|(name, value)| (name, cut(value))).collect();
        attributes.insert("Forebay-Key", event.idempotency_key().into());
        let ordering_key = event.order_key.map(|key| format!("{key:016x}"));
        Ok(Self { place, data: STANDARD.encode(event.payload()), attributes, ordering_key })
    }

    pub(super) const fn place(&self) -> usize {
        self.place
    }

    pub(super) fn key(&self) -> Option<&str> {
        self.ordering_key.as_deref()
    }

    /// About what it takes of a request: a little more than Pub/Sub counts.
    pub(super) fn bytes(&self) -> usize {
        let of_attribute =
            |(name, value): (&&str, &Cow<'_, str>)| name.len() + value.len() + ATTRIBUTE_BYTES;
        let attributes: usize = self.attributes.iter().map(of_attribute).sum();
        self.data.len() + attributes + MESSAGE_BYTES
    }
}

/// As much of a value as an attribute holds.
fn cut(value: Cow<'_, str>) -> Cow<'_, str> {
    if value.len() <= VALUE_BYTES_MAX {
        return value;
    }
    let mut end = VALUE_BYTES_MAX;
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    value.get(..end).unwrap_or_default().to_owned().into()
}
