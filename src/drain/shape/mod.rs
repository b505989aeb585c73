//! What a sink gets of an event, and whether it gets it at all.
//!
//! ```text
//! record -> select -> redact -> filter -> transform -> format -> payload
//!           (meta)    (body)    (jq)      (jq)
//! ```
//!
//! A record that is not selected or does not pass the filter is settled without being delivered.
//! One for which an expression fails is a permanent failure of its own: it becomes a dead letter,
//! and the stream goes on. Everything is compiled once; the same record gives the same payload
//! every time, because expressions know neither clock nor environment.

mod select;
mod redact;
mod jq;
pub mod cloudevents;
pub(crate) mod row;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use forebay_log::{Record, RecordRef};
use jaq_json::Val;
use serde_json::value::RawValue;

use self::cloudevents::STRUCTURED;
use self::jq::Program;
use self::redact::Redact;
use self::row::{Body, Row};
pub use self::select::Select;
use super::feed::{Payload, Shaping, content_type_of};
use super::sink::Failure;

/// The media type of what forebay makes itself.
const JSON: &str = "application/json";

/// What is made of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The body as it was received.
    #[default]
    Raw,
    /// `CloudEvents` 1.0, structured, with the body as its data.
    CloudEvents,
    /// All that forebay knows of the event, as a row of JSON with the body in it.
    Normalised,
}

impl Format {
    /// The word of the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::CloudEvents => "cloudevents",
            Self::Normalised => "normalised",
        }
    }
}

/// The keys of a sink that have to do with its shape.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What is made of an event.
    pub format: Format,
    /// Which events are taken.
    pub select: Select,
    /// An expression over the normalised row: events for which it yields `false`, `null` or
    /// nothing are not taken.
    pub filter: Option<String>,
    /// An expression over the normalised row: what it yields takes the body's place.
    pub transform: Option<String>,
    /// What is taken out of the event before anything else sees it.
    pub redact: Vec<String>,
}

/// A key of [`Settings`] that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} {what}")]
pub struct ShapeError {
    /// The key.
    pub key: &'static str,
    /// What is wrong with it.
    pub what: String,
}

/// A compiled shape.
#[derive(Debug, Default)]
pub struct Shape {
    settings: Settings,
    redact: Redact,
    filter: Option<Program>,
    transform: Option<Program>,
}

impl Shape {
    /// Compiles the expressions and rules, or says of each key what is wrong with it.
    pub fn compile(settings: &Settings) -> Result<Self, Vec<ShapeError>> {
        let mut errors = Vec::new();
        let mut program = |key, text: Option<&str>| {
            let compiled = text.map(Program::compile).transpose();
            compiled.unwrap_or_else(|what| {
                errors.push(ShapeError { key, what });
                None
            })
        };
        let filter = program("filter", settings.filter.as_deref());
        let transform = program("transform", settings.transform.as_deref());
        let redact = Redact::new(&settings.redact).unwrap_or_else(|what| {
            errors.push(ShapeError { key: "redact", what });
            Redact::default()
        });
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self { settings: settings.clone(), redact, filter, transform })
    }

    /// What it was compiled of, for people.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What is delivered of a record of this lane; none: nothing is.
    pub fn apply(&self, record: &Record, lane: &str) -> Result<Option<Payload>, Failure> {
        let read = record.get();
        if !self.settings.select.takes(&read) {
            return Ok(None);
        }
        let body = self.redact.body(read.body()).map_err(|what| {
            Failure::permanent(format!("the body {what}, so what is to be redacted is not found"))
        })?;
        let made = match self.evaluate(&read, lane, &body)? {
            Evaluated::NotTaken => return Ok(None),
            Evaluated::AsItIs => None,
            Evaluated::Made(text) => Some(text),
        };
        let (payload, content_type) = match (&made, &body) {
            (Some(text), _) => (text.as_bytes(), Cow::Borrowed(JSON)),
            (None, body) => (&**body, content_type_of(&read)),
        };
        Ok(Some(match self.settings.format {
            Format::Raw => match (made, body) {
                (Some(text), _) => (Some(text.into()), content_type),
                (None, Cow::Owned(body)) => (Some(body.into()), content_type),
                (None, Cow::Borrowed(_)) => (None, content_type),
            },
            Format::CloudEvents => {
                let envelope = cloudevents::structured(&read, lane, payload, &content_type);
                (Some(envelope.into()), Cow::Borrowed(STRUCTURED))
            }
            Format::Normalised => {
                (Some(self.row(&read, lane, payload)?.into()), Cow::Borrowed(JSON))
            }
        }))
    }

    /// The normalised row with this body.
    fn row(&self, record: &RecordRef<'_>, lane: &str, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut row = Row::new(lane, record);
        row.body = Body::parsed(body);
        self.redact.headers(&mut row);
        let mut bytes = serde_json::to_vec(&row)
            .map_err(|error| Failure::permanent(format!("makes no row: {error}")))?;
        put_on_one_line(&mut bytes);
        Ok(bytes)
    }

    fn evaluate(
        &self,
        record: &RecordRef<'_>,
        lane: &str,
        body: &[u8],
    ) -> Result<Evaluated, Failure> {
        if self.filter.is_none() && self.transform.is_none() {
            return Ok(Evaluated::AsItIs);
        }
        let row = self.row(record, lane, body)?;
        let input =
            jq::value_of(&row).map_err(|what| Failure::permanent(format!("the event {what}")))?;
        if let Some(filter) = &self.filter {
            let outputs = run(filter, "filter", input.clone(), 1)?;
            if matches!(outputs.first(), None | Some(Val::Null | Val::Bool(false))) {
                return Ok(Evaluated::NotTaken);
            }
        }
        let Some(transform) = &self.transform else { return Ok(Evaluated::AsItIs) };
        // One more than may be, to see that there is one more.
        match run(transform, "transform", input, 2)?.as_slice() {
            [] => Ok(Evaluated::NotTaken),
            [made] => {
                let text = made.to_string();
                // The language has values that JSON has not, such as `nan`.
                match serde_json::from_str::<&RawValue>(&text) {
                    Ok(_) => Ok(Evaluated::Made(text)),
                    Err(_) => Err(Failure::permanent("`transform` yields what is not JSON")),
                }
            }
            _ => Err(Failure::permanent("`transform` yields more than one value; make it a list")),
        }
    }
}

impl Shaping for Shape {
    fn apply(&self, record: &Record, lane: &str) -> Result<Option<Payload>, Failure> {
        Self::apply(self, record, lane)
    }
}

/// What the expressions say of an event.
enum Evaluated {
    NotTaken,
    AsItIs,
    Made(String),
}

fn run(program: &Program, key: &str, input: Val, count: usize) -> Result<Vec<Val>, Failure> {
    program.run(input, count).map_err(|error| Failure::permanent(format!("`{key}` {error}")))
}

/// Takes the line ends out of JSON. They are white space between its tokens: inside of its
/// strings they are escaped.
pub(super) fn put_on_one_line(json: &mut [u8]) {
    // Most have no control character at all, and to know that takes a few vector instructions.
    if json.iter().fold(u8::MAX, |least, byte| least.min(*byte)) >= b' ' {
        return;
    }
    let mut rest = json;
    while let Some(at) = memchr::memchr2(b'\n', b'\r', rest) {
        let Some((end, behind)) = rest.get_mut(at..).and_then(<[u8]>::split_first_mut) else {
            return;
        };
        *end = b' ';
        rest = behind;
    }
}
