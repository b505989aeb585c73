//! `forebay purge`: payloads erased for good, from every segment, also beside a running server.
//!
//! Which records go is said by event, tenant, time and source; all that are given must hold. An
//! event goes with its later deliveries, and with whatever came with the same signed bytes under
//! another id. What stays of a record is its place, the time of its arrival and the fingerprints of
//! its keys, so that a delivery that comes later is still known as one. Every run leaves two lines in
//! the file `purges` of the lane, before and after.
//!
//! The log of the quarantine is purged too. What was refused has no event and no tenant that
//! anybody has verified, so there a request goes if it mentions the id or the tenant anywhere, if an
//! event that goes came out of it, or if it has the body of the event that was named: rather one too
//! many, since it was refused.
//!
//! Exit codes: 0 done, 1 the output cannot be written, 2 wrong usage, 3 done but for records that
//! cannot be read, of which nobody can say whose they are, 75 not all is erased: purge again, 78
//! a bad configuration.

mod chosen;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use bytesize::ByteSize;
use clap::{ArgGroup, Args};
use forebay_log::{Clock, Erased, PurgeError, Purger};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::place::{Named, Place, PlaceError};
use super::row::time_text;
use super::{EXIT_DAMAGE, EXIT_TEMPORARY, terminal};
use crate::config;
use chosen::{Chosen, Copies, Why};

/// What `purge` takes.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true)
    .args(["event", "tenant", "before"]))]
pub(super) struct PurgeArgs {
    #[command(flatten)]
    place: Place,
    /// The event of this id, or of this key as `tail --json` shows it, with all its deliveries
    #[arg(long, value_name = "KEY")]
    event: Option<String>,
    /// Everything of this tenant
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Everything that arrived before a time as 2026-11-21T18:00:00Z, or longer ago than 720h
    #[arg(long, value_name = "TIME")]
    before: Option<String>,
    /// Only what this source received
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Say what would go and what it would cost, and erase nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Why not everything is erased.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("lane {lane}: {error}")]
    Purge { lane: String, error: PurgeError },
    /// It names the file.
    #[error(transparent)]
    Look(PurgeError),
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

/// Runs the verb.
pub(super) fn run(args: &PurgeArgs) -> ExitCode {
    let told = purge(args, &Clock::System).and_then(|(text, complete)| {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush())?;
        Ok(complete)
    });
    let code = match told {
        Ok(complete) => u8::from(!complete) * EXIT_DAMAGE,
        Err(CommandError::Place(error)) => {
            error.report();
            error.exit_code()
        }
        Err(error) => {
            terminal::complain(&error);
            if matches!(error, CommandError::Write(_)) { 1 } else { EXIT_TEMPORARY }
        }
    };
    ExitCode::from(code)
}

/// What is to be printed, and whether every record could be judged.
fn purge(args: &PurgeArgs, clock: &Clock) -> Result<(String, bool), CommandError> {
    let before = args.before.as_deref().map(|text| parse_before(text, clock)).transpose();
    let before_ns = before.map_err(PlaceError::Usage)?;
    let mut logs = Vec::new();
    for lane in args.place.logs()? {
        let purger = Purger::open(&lane.folder).map_err(in_lane(&lane))?;
        logs.push((lane, purger));
    }
    // All of them first: where a request was in quarantine is told by the event that it became.
    let among = Chosen::among(args, before_ns, &logs);
    let chosen = among.map_err(CommandError::Look)?;
    let mut found = Vec::new();
    for (lane, purger) in logs {
        let gone = purge_lane(&chosen, purger, clock).map_err(in_lane(&lane))?;
        found.push((lane, gone));
    }
    let text = if args.json {
        let lanes: Vec<Value> = found.iter().map(|(lane, gone)| json_of(lane, gone)).collect();
        format!("{:#}\n", json!({ "dry_run": args.dry_run, "lanes": lanes }))
    } else {
        found.iter().map(|(lane, gone)| text_of(args.dry_run, lane, gone)).collect()
    };
    Ok((text, found.iter().all(|(_, (erased, _))| erased.unreadable == 0)))
}

fn parse_before(text: &str, clock: &Clock) -> Result<u64, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return u64::try_from(time.as_nanosecond())
            .map_err(|_| "--before: that is before any record".to_owned());
    }
    config::parse_duration(text)
        .map(|ago| {
            let ago_ns = u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX);
            clock.wall_ns().saturating_sub(ago_ns)
        })
        .map_err(|_| {
            "--before: write a time (2026-11-21T18:00:00Z) or a duration before now (720h)"
                .to_owned()
        })
}

fn in_lane(lane: &Named) -> impl FnOnce(PurgeError) -> CommandError {
    let lane = lane.name.clone();
    move |error| CommandError::Purge { lane, error }
}

/// What has gone of a lane, or would.
type Gone = (Erased, Copies);

fn purge_lane(chosen: &Chosen<'_>, mut purger: Purger, clock: &Clock) -> Result<Gone, PurgeError> {
    let mut copies = Copies::default();
    if chosen.args.dry_run {
        return Ok((purger.look(|found| copies.takes(chosen, found))?, copies));
    }
    purger.note(&begun(chosen, clock).to_string())?;
    let outcome = purger.erase(|found| copies.takes(chosen, found));
    let at = time_text(clock.wall_ns());
    let ended = match &outcome {
        Ok(erased) => json!({
            "at": at, "state": "done", "records": erased.records, "bytes": erased.bytes,
            "segments": erased.segments, "purged_before": erased.purged_before,
            "unreadable": erased.unreadable, "copies": copies.to_json(),
        }),
        Err(error) => json!({ "at": at, "state": "failed", "error": error.to_string() }),
    };
    purger.note(&ended.to_string())?;
    Ok((outcome?, copies))
}

/// The first line of the journal. An event is told by its key alone: its id may be what should be
/// forgotten.
fn begun(chosen: &Chosen<'_>, clock: &Clock) -> Value {
    let keys = || chosen.keys().map(|key| key.to_string()).collect::<Vec<_>>();
    json!({
        "at": time_text(clock.wall_ns()),
        "state": "begun",
        "uid": rustix::process::getuid().as_raw(),
        "event_keys": chosen.args.event.as_ref().map(|_| keys()),
        "tenant": chosen.args.tenant,
        "before": chosen.before_ns.map(time_text),
        "source": chosen.args.source,
    })
}

fn json_of(lane: &Named, (erased, copies): &Gone) -> Value {
    json!({
        "lane": lane.name,
        "folder": lane.folder,
        "records": erased.records,
        "bytes": erased.bytes,
        "segments": erased.segments,
        "segment_bytes": erased.segment_bytes,
        "purged_before": erased.purged_before,
        "unreadable": erased.unreadable,
        "copies": copies.to_json(),
    })
}

fn text_of(dry_run: bool, lane: &Named, (erased, copies): &Gone) -> String {
    let done = if dry_run { "would be purged" } else { "purged" };
    let (bytes, rewritten) = (ByteSize(erased.bytes), ByteSize(erased.segment_bytes));
    let mut text = format!(
        "lane {}: {} records ({bytes}) {done}, by a copy of {} segments ({rewritten})\n",
        lane.name, erased.records, erased.segments
    );
    // Writing to a String cannot fail.
    let reasons = [
        (Why::SameSignedBytes, "came under another id with the same signed bytes"),
        (Why::SameBody, "were refused and have the same body"),
    ];
    for (why, text_of_it) in reasons {
        let count = copies.count(why);
        if count > 0 {
            _ = writeln!(text, "  {count} of them {text_of_it}");
        }
    }
    if erased.purged_before > 0 {
        _ = writeln!(text, "  {} had been purged before", erased.purged_before);
    }
    if erased.unreadable > 0 {
        _ = writeln!(
            text,
            "  {} damaged records or gaps stay: nobody can say whose they are; retention removes \
             them",
            erased.unreadable
        );
    }
    text
}

#[cfg(test)]
mod tests;
