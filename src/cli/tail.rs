//! `forebay tail`: the events of a lane, read from its segments by a process of its own.
//!
//! Talks to no server: it works while one runs, while none does, and on a copy of the folder.
//! Without `--follow` it ends at what was the newest acknowledged record when it began. A closed
//! pipe ends it quietly. With `--cursor` what was handed to the pipe is remembered after it was: a
//! record may be printed twice after a crash, and is never left out. Exit codes: 0 the end, 2 a lane or folder that does not exist, 75 a log
//! that cannot be read now, 78 a bad configuration.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use forebay_log::{
    Clock, Cursor, CursorError, From, Kind, Place, Position, ReadError, Reader, RecordRef, Skipped,
    Tag,
};
use jiff::Timestamp;

use super::place;
use super::place::{Named, PlaceError};
use super::row::Style;
use super::{EXIT_TEMPORARY, terminal};
use crate::config;

/// How much is written at once.
const OUT_BYTES: usize = 64 * 1024;
/// A cursor is committed after so many records, and where there is no further one; but then not
/// more often than this, since each commit is a sync.
const COMMIT_EVERY: u32 = 4096;
const COMMIT_PACE: Duration = Duration::from_millis(250);
/// How long a wait for the next record lasts before the output is looked at: a reader of the
/// pipe that went away would else be noticed at the next record only.
const WAIT: Duration = Duration::from_secs(1);

/// What `tail` takes.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct TailArgs {
    /// Where the lane is
    #[command(flatten)]
    pub place: place::Place,
    /// Where to begin: earliest, latest, a position as 1-4096, a time as 2026-11-21T18:00:00Z,
    /// or a duration before now as 2h
    #[arg(long, value_name = "PLACE", default_value = "earliest", value_parser = parse_start)]
    pub from: Start,
    /// Read on where the last `tail` with this name ended, and remember how far this one prints;
    /// retention keeps what it has not printed, within `retention.size`. A new one begins at
    /// `--from`
    #[arg(long, value_name = "NAME")]
    pub cursor: Option<String>,
    /// Wait for more at the end
    #[arg(short, long)]
    pub follow: bool,
    /// Only events of this source
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Only events of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub event_type: Option<String>,
    /// Also later deliveries of events that the lane holds
    #[arg(long)]
    pub deliveries: bool,
    /// One JSON object a line; the default where the output is no terminal
    #[arg(long, group = "style")]
    pub json: bool,
    /// The bodies alone, each with a line end
    #[arg(long, group = "style")]
    pub raw: bool,
    /// Lines for people; the default on a terminal
    #[arg(long, group = "style")]
    pub pretty: bool,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// With the oldest record.
    Earliest,
    /// Behind the newest record.
    Latest,
    /// At a place in the log.
    Position(Position),
    /// At a time, unix nanoseconds.
    Time(u64),
    /// So long before now.
    Ago(Duration),
}

impl Start {
    fn resolve(self, clock: &Clock) -> From {
        match self {
            Self::Earliest => From::Earliest,
            Self::Latest => From::Latest,
            Self::Position(position) => From::Position(position),
            Self::Time(unix_ns) => From::Time(unix_ns),
            Self::Ago(duration) => {
                let ago = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
                From::Time(clock.wall_ns().saturating_sub(ago))
            }
        }
    }
}

fn parse_start(text: &str) -> Result<Start, String> {
    match text {
        "earliest" => return Ok(Start::Earliest),
        "latest" => return Ok(Start::Latest),
        _ => {}
    }
    if let Ok(position) = text.parse() {
        return Ok(Start::Position(position));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        let before_all = Err("that is before any record".to_owned());
        return u64::try_from(time.as_nanosecond()).map_or(before_all, |ns| Ok(Start::Time(ns)));
    }
    config::parse_duration(text).map(Start::Ago).map_err(|_| {
        "write earliest, latest, a position (1-4096), a time (2026-11-21T18:00:00Z) or a duration \
         before now (2h)"
            .to_owned()
    })
}

/// Why nothing more is printed.
#[derive(Debug, thiserror::Error)]
enum TailError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Cursor(#[from] CursorError),
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

impl TailError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Place(error) => error.exit_code(),
            Self::Cursor(CursorError::Name { .. }) => 2,
            Self::Read(_) | Self::Cursor(_) => EXIT_TEMPORARY,
            Self::Write(error) if terminal::closed(error) => 0,
            Self::Write(_) => 1,
        }
    }
}

/// Runs the verb.
pub(super) fn run(args: &TailArgs) -> ExitCode {
    // Without it a disk that fails under the log would end this without a word; with no handler
    // it still ends.
    _ = forebay_log::tell_bus_errors(None);
    let Err(error) = tail(args, &Clock::System) else { return ExitCode::SUCCESS };
    match &error {
        TailError::Write(error) if terminal::closed(error) => return ExitCode::SUCCESS,
        TailError::Place(error) => error.report(),
        error => terminal::complain(error),
    }
    ExitCode::from(error.exit_code())
}

fn tail(args: &TailArgs, clock: &Clock) -> Result<(), TailError> {
    let Named { name: lane, folder } = args.place.one()?;
    let out = BufWriter::with_capacity(OUT_BYTES, io::stdout().lock());
    let style = style(args, &io::stdout());
    Tail { args, lane, style, out, told: Skipped::default() }.run(&folder, clock)
}

/// Where the newest acknowledged record ends now: without `--follow` a busy lane would otherwise
/// have no end.
fn newest(folder: &Path) -> Result<u64, ReadError> {
    let mut reader = Reader::open(folder)?;
    reader.seek(From::Latest)?;
    Ok(reader.offset())
}

fn style(args: &TailArgs, out: &impl IsTerminal) -> Style {
    if args.json {
        Style::Json
    } else if args.raw {
        Style::Raw
    } else if args.pretty || out.is_terminal() {
        Style::Pretty { coloured: terminal::coloured(out) }
    } else {
        Style::Json
    }
}

/// One run: what to print, how and where to.
struct Tail<'a, W> {
    args: &'a TailArgs,
    lane: String,
    style: Style,
    out: W,
    told: Skipped,
}

impl<W: Write> Tail<'_, W> {
    fn run(&mut self, folder: &Path, clock: &Clock) -> Result<(), TailError> {
        let mut reader = Reader::open(folder)?;
        let end = if self.args.follow { u64::MAX } else { newest(folder)? };
        let cursor = self.args.cursor.as_ref().map(|name| Cursor::open(folder, name));
        let mut cursor = cursor.transpose()?;
        match &cursor {
            Some(cursor) if !cursor.is_new() => reader.resume(cursor.place())?,
            _ => reader.seek(self.args.from.resolve(clock))?,
        }
        let (mut place, mut uncommitted) = (reader.place(), 0);
        let mut committed = clock.monotonic();
        loop {
            match reader.next()? {
                Some(record) if record.position().offset() >= end => break,
                Some(record) => {
                    if self.wants(&record) {
                        self.style.print(&mut self.out, &self.lane, &record)?;
                    }
                    place = record.place();
                    uncommitted += 1;
                    if cursor.is_some() && uncommitted == COMMIT_EVERY {
                        uncommitted = 0;
                        self.flush(&mut cursor, place)?;
                    }
                }
                None if self.args.follow => {
                    place = reader.place();
                    self.out.flush()?;
                    let now = clock.monotonic();
                    if now.saturating_duration_since(committed) >= COMMIT_PACE {
                        (committed, uncommitted) = (now, 0);
                        self.flush(&mut cursor, place)?;
                    }
                    self.tell_skipped(reader.skipped());
                    if !reader.wait(WAIT)? && terminal::hung_up(&io::stdout()) {
                        // Nobody may have taken the last of it: the cursor stays before that.
                        return Ok(());
                    }
                }
                None => {
                    place = reader.place();
                    break;
                }
            }
        }
        self.flush(&mut cursor, place)?;
        self.tell_skipped(reader.skipped());
        Ok(())
    }

    /// Hands over what was printed, and only then remembers it as done.
    fn flush(&mut self, cursor: &mut Option<Cursor>, place: Place) -> Result<(), TailError> {
        self.out.flush()?;
        if let Some(cursor) = cursor {
            cursor.commit(place)?;
        }
        Ok(())
    }

    fn wants(&self, record: &RecordRef<'_>) -> bool {
        let fits = |tag, wanted: &Option<String>| {
            let is = |wanted: &String| record.meta().get(tag) == Some(wanted.as_bytes());
            wanted.as_ref().is_none_or(is)
        };
        let kind = match record.kind() {
            Kind::Event => true,
            Kind::Delivery => self.args.deliveries,
            Kind::Quarantine => false,
        };
        kind && fits(Tag::Source, &self.args.source) && fits(Tag::EventType, &self.args.event_type)
    }

    /// Says what could not be read, once, where it does not disturb the output.
    fn tell_skipped(&mut self, skipped: Skipped) {
        if skipped == self.told {
            return;
        }
        self.told = skipped;
        let parts = [
            (skipped.damaged, "damaged records"),
            (skipped.gaps, "gaps that a crash or damage left"),
            (skipped.segments, "segments that were gone"),
            (skipped.unknown, "records of a kind that a newer forebay wrote"),
            (skipped.purged, "records that were purged"),
        ];
        let parts: Vec<String> = parts
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        // With standard error closed there is nobody left to tell.
        _ = writeln!(io::stderr().lock(), "stepped over {}", parts.join(", "));
    }
}

#[cfg(test)]
mod tests;
