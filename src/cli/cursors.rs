//! `forebay cursors list|remove`: the consumers that retention waits for.
//!
//! Exit codes: 0 done, 1 the output cannot be written, 2 wrong usage or no such cursor, 75 the cursor
//! is in use or cannot be read now, 78 a bad configuration.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use bytesize::ByteSize;
use clap::{Args, Subcommand};
use forebay_log::{Clock, CursorError, CursorFacts, From, Reader, cursors, remove_cursor};
use serde_json::{Value, json};

use super::place::{Named, Place, PlaceError};
use super::row::time_text;
use super::{EXIT_TEMPORARY, terminal};

/// What `cursors` takes.
#[derive(Clone, Debug, Args)]
pub(super) struct CursorsArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Every cursor: where it stands, how far behind, since when
    List {
        #[command(flatten)]
        place: Place,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a cursor that nobody uses; retention waits for it no longer
    Remove {
        #[command(flatten)]
        place: Place,
        /// The cursor
        name: String,
    },
}

#[derive(Debug, thiserror::Error)]
enum CursorsError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Cursor(#[from] CursorError),
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

/// Runs the verb.
pub(super) fn run(args: &CursorsArgs) -> ExitCode {
    let done = match &args.verb {
        Verb::List { place, json } => list(place, *json, &Clock::System).and_then(|text| {
            let mut out = io::stdout().lock();
            Ok(out.write_all(text.as_bytes()).and_then(|()| out.flush())?)
        }),
        Verb::Remove { place, name } => remove(place, name),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    let code = match &error {
        CursorsError::Place(error) => {
            error.report();
            return ExitCode::from(error.exit_code());
        }
        CursorsError::Cursor(CursorError::Name { .. }) => 2,
        CursorsError::Cursor(_) => EXIT_TEMPORARY,
        CursorsError::Write(error) if terminal::closed(error) => return ExitCode::SUCCESS,
        CursorsError::Write(_) => 1,
    };
    terminal::complain(&error);
    ExitCode::from(code)
}

fn remove(place: &Place, name: &str) -> Result<(), CursorsError> {
    let lane = place.one()?;
    match remove_cursor(&lane.folder, name) {
        Err(CursorError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            let known: Vec<_> = cursors(&lane.folder)?.into_iter().map(|of| of.name).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let what = format!("lane {} has no cursor {name}; there is {known}", lane.name);
            Err(PlaceError::Usage(what).into())
        }
        removed => Ok(removed?),
    }
}

fn list(place: &Place, json: bool, clock: &Clock) -> Result<String, CursorsError> {
    let mut lanes = Vec::new();
    for lane in place.all()? {
        let found = cursors(&lane.folder)?;
        let end = newest(&lane);
        lanes.push((lane, end, found));
    }
    if json {
        let lanes: Vec<Value> = lanes
            .iter()
            .map(|(lane, end, found)| {
                let found: Vec<Value> =
                    found.iter().map(|facts| json_of(facts, *end, clock)).collect();
                json!({ "lane": lane.name, "folder": lane.folder, "cursors": found })
            })
            .collect();
        return Ok(format!("{:#}\n", json!({ "lanes": lanes })));
    }
    let mut text = String::new();
    for (lane, end, found) in &lanes {
        // Writing to a String cannot fail.
        _ = writeln!(text, "lane {} in {}", lane.name, lane.folder.display());
        for facts in found {
            let behind = ByteSize(behind(facts, *end)).to_string();
            let state = if facts.in_use { "in use" } else { "idle" };
            let (position, at) =
                (facts.place.position().to_string(), time_text(facts.committed_ns));
            _ = writeln!(
                text,
                "  {:<24}  {position:>16}  {behind:>10} behind  {state:<6}  committed {at}",
                facts.name
            );
        }
    }
    Ok(text)
}

/// Where the newest acknowledged record of a lane ends; nothing if that cannot be read.
fn newest(lane: &Named) -> Option<u64> {
    let mut reader = Reader::open(&lane.folder).ok()?;
    reader.seek(From::Latest).ok()?;
    Some(reader.offset())
}

fn behind(facts: &CursorFacts, end: Option<u64>) -> u64 {
    end.unwrap_or(0).saturating_sub(facts.place.position().offset())
}

fn json_of(facts: &CursorFacts, end: Option<u64>, clock: &Clock) -> Value {
    json!({
        "name": facts.name,
        "position": facts.place.position().to_string(),
        "behind_bytes": behind(facts, end),
        "in_use": facts.in_use,
        "committed_at": time_text(facts.committed_ns),
        "idle_s": clock.wall_ns().saturating_sub(facts.committed_ns) / 1_000_000_000,
    })
}
