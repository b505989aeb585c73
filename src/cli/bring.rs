//! What `replay` and `dead-letters redrive` share: a sink by its name, an errand, its report.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use forebay_log::{From, ReadError, Reader};
use serde_json::{Value, json};

use super::place::PlaceError;
use super::which::row;
use super::{EXIT_TEMPORARY, terminal};
use crate::config::{self, Drained, SinkConfig, duration_text};
use crate::drain::errand::{ErrandError, Ran};
use crate::drain::letters::LettersError;
use crate::drain::redrive::RedriveError;
use crate::drain::sink::Failure;
use crate::observe::logs;

/// A sink that has failed and taken nothing for too long.
#[derive(Debug, thiserror::Error)]
#[error(
    "gave up after {}: sink {sink} takes nothing ({why}); {stays}",
    duration_text(*waited)
)]
pub(super) struct GaveUp {
    pub(super) sink: String,
    pub(super) waited: Duration,
    /// Its last failure.
    pub(super) why: Failure,
    /// Where that is which was not brought.
    pub(super) stays: &'static str,
}

/// Why nothing, or not all, was brought.
#[derive(Debug, thiserror::Error)]
pub(super) enum BringError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Errand(#[from] ErrandError),
    #[error(transparent)]
    Redrive(#[from] RedriveError),
    #[error(transparent)]
    Letters(#[from] LettersError),
    /// What lies in a folder cannot be told.
    #[error("{}: {error}", folder.display())]
    Folder { folder: PathBuf, error: io::Error },
    /// The target of a replay has no address now.
    #[cfg(feature = "sink-http")]
    #[error("cannot resolve {host}: {error}")]
    Unresolved { host: String, error: io::Error },
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
    /// The sink took nothing, and nobody waits any longer.
    #[error(transparent)]
    GaveUp(#[from] GaveUp),
    /// Some events are still where they were.
    #[error("{0} events were refused")]
    Refused(usize),
}

impl BringError {
    /// Tells it, and the exit code.
    pub(super) fn report(&self) -> u8 {
        match self {
            Self::Place(error) => {
                error.report();
                return error.exit_code();
            }
            Self::Write(error) if terminal::closed(error) => return 0,
            _ => terminal::complain(self),
        }
        match self {
            Self::Refused(_) | Self::Write(_) => 1,
            _ => EXIT_TEMPORARY,
        }
    }
}

/// The configuration, as far as sinks need it.
pub(super) fn drained(flag: Option<&Path>) -> Result<Drained, PlaceError> {
    let path: PathBuf = config::path(flag);
    config::load_sinks(&path, config::environment()).map_err(PlaceError::Config)
}

/// Lets it be seen on standard error why an errand waits: a destination that is away is asked
/// again until `sink.retry.horizon`, and nothing is printed before.
pub(super) fn tell_of_waits() -> Result<(), PlaceError> {
    logs::start(|name| std::env::var(name).ok())
        .map_err(|error| PlaceError::Usage(terminal::chain(&error)))
}

/// The sink of this name.
pub(super) fn sink<'d>(drained: &'d Drained, name: &str) -> Result<&'d SinkConfig, PlaceError> {
    drained.sinks.iter().find(|sink| sink.name == name).ok_or_else(|| {
        let names: Vec<&str> = drained.sinks.iter().map(|sink| sink.name.as_str()).collect();
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        PlaceError::Usage(format!("there is no sink {name}; there is {known}"))
    })
}

/// Where the newest acknowledged record of a lane ends now.
pub(super) fn end_of(folder: &Path) -> Result<u64, ReadError> {
    let mut reader = Reader::open(folder)?;
    reader.seek(From::Latest)?;
    Ok(reader.offset())
}

/// Prints what came of it, and fails if something was refused.
pub(super) fn tell(verb: &str, ran: &[Ran], json: bool) -> Result<(), BringError> {
    let delivered: u64 = ran.iter().map(|ran| ran.delivered).sum();
    let refused: Vec<Value> = ran
        .iter()
        .flat_map(|ran| &ran.refused)
        .map(|(event, why)| json!({ "event": row(&event.record), "reason": why.to_string() }))
        .collect();
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{:#}", json!({ verb: delivered, "refused": refused }))?;
    } else {
        writeln!(out, "{verb} {delivered} events, {} refused", refused.len())?;
        for one in &refused {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            writeln!(out, "  {}  {}", text(&one["event"]["position"]), text(&one["reason"]))?;
        }
    }
    out.flush()?;
    if refused.is_empty() { Ok(()) } else { Err(BringError::Refused(refused.len())) }
}

/// Prints what would be brought.
pub(super) fn tell_dry(verb: &str, rows: &[Value], json: bool) -> Result<(), BringError> {
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{:#}", json!({ "dry_run": true, "events": rows }))?;
    } else {
        writeln!(out, "{} events would be {verb}", rows.len())?;
        for row in rows {
            let text = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
            let [position, at, source, kind, id] =
                ["position", "received_at", "source", "event_type", "event_id"].map(text);
            writeln!(out, "  {position}  {at}  {source} {kind} {id}")?;
        }
    }
    Ok(out.flush()?)
}
