//! A record as it is printed: a row of JSON, its body alone, or lines for a person.

use std::borrow::Cow;
use std::io::{self, Write};

use forebay_log::RecordRef;

pub(super) use crate::drain::shape::row::time_text;
use crate::drain::shape::row::{Body, Row};

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
        Body::Text(text) | Body::Plain(text) => {
            for line in text.lines() {
                writeln!(out, "  {}", harmless(line))?;
            }
        }
        Body::Base64(text) => writeln!(out, "  {dim}base64{plain} {text}")?,
        Body::Json(json) => writeln!(out, "  {}", harmless(json.get()))?,
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
