//! `forebay purge`: payloads erased for good, from every segment, also beside a running server.
//!
//! Which records go is said by event, tenant, time and source; all that are given must hold. An
//! event goes with its later deliveries. What stays of a record is its place, the time of its
//! arrival and the fingerprint of its key, so that a delivery that comes later is still known as
//! one. Every run leaves two lines in the file `purges` of the lane, before and after.
//!
//! The log of the quarantine is purged too. What was refused has no event and no tenant that
//! anybody has verified, so there a request goes if it mentions the id or the tenant anywhere, or
//! if an event that goes came out of it: rather one too many, since it was refused.
//!
//! Exit codes: 0 done, 1 the output cannot be written, 2 wrong usage, 3 done but for records that
//! cannot be read, of which nobody can say whose they are, 75 not all is erased: purge again, 78
//! a bad configuration.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use bytesize::ByteSize;
use clap::{ArgGroup, Args};
use forebay_log::{Candidate, Clock, Erased, Key, Kind, PurgeError, Purger, Tag};
use jiff::Timestamp;
use memchr::memmem;
use serde_json::{Value, json};

use super::place::{Named, Place, PlaceError};
use super::row::time_text;
use super::{EXIT_DAMAGE, EXIT_TEMPORARY, terminal};
use crate::config;

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
    let mut found = Vec::new();
    let mut chosen = Chosen { args, before_ns, keys: BTreeSet::new(), held: BTreeSet::new() };
    let logs = args.place.logs()?;
    // All of them first: where a request was in quarantine is told by the event that it became.
    for lane in &logs {
        chosen.look(&lane.folder).map_err(in_lane(lane))?;
    }
    for lane in logs {
        let erased = purge_lane(&chosen, &lane, clock).map_err(in_lane(&lane))?;
        found.push((lane, erased));
    }
    let text = if args.json {
        let lanes: Vec<Value> = found.iter().map(|(lane, erased)| json_of(lane, erased)).collect();
        format!("{:#}\n", json!({ "dry_run": args.dry_run, "lanes": lanes }))
    } else {
        found.iter().map(|(lane, erased)| text_of(args.dry_run, lane, erased)).collect()
    };
    Ok((text, found.iter().all(|(_, erased)| erased.unreadable == 0)))
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

fn purge_lane(chosen: &Chosen<'_>, lane: &Named, clock: &Clock) -> Result<Erased, PurgeError> {
    let mut purger = Purger::open(&lane.folder)?;
    if chosen.args.dry_run {
        return purger.look(|found| chosen.chooses(found));
    }
    purger.note(&begun(chosen, clock).to_string())?;
    let outcome = purger.erase(|found| chosen.chooses(found));
    let at = time_text(clock.wall_ns());
    let ended = match &outcome {
        Ok(erased) => json!({
            "at": at, "state": "done", "records": erased.records, "bytes": erased.bytes,
            "segments": erased.segments, "purged_before": erased.purged_before,
            "unreadable": erased.unreadable,
        }),
        Err(error) => json!({ "at": at, "state": "failed", "error": error.to_string() }),
    };
    purger.note(&ended.to_string())?;
    outcome
}

/// The first line of the journal. An event is told by its key alone: its id may be what should be
/// forgotten.
fn begun(chosen: &Chosen<'_>, clock: &Clock) -> Value {
    let keys = chosen.args.event.as_ref().map(|_| &chosen.keys);
    json!({
        "at": time_text(clock.wall_ns()),
        "state": "begun",
        "uid": rustix::process::getuid().as_raw(),
        "event_keys": keys.map(|keys| keys.iter().map(|key| Key(*key).to_string()).collect::<Vec<_>>()),
        "tenant": chosen.args.tenant,
        "before": chosen.before_ns.map(time_text),
        "source": chosen.args.source,
    })
}

/// Which records go.
struct Chosen<'a> {
    args: &'a PurgeArgs,
    before_ns: Option<u64>,
    /// The keys of the event, as its records in all lanes tell them.
    keys: BTreeSet<[u8; 16]>,
    /// Where the events that go were in quarantine, as their records write it.
    held: BTreeSet<Vec<u8>>,
}

impl Chosen<'_> {
    /// Takes from a log what must be known before the first record can be judged.
    fn look(&mut self, folder: &Path) -> Result<(), PurgeError> {
        let purger = Purger::open(folder)?;
        if let Some(event) = &self.args.event {
            let mut keys = BTreeSet::new();
            purger.look(|found| {
                if found.kind != Some(Kind::Quarantine) && self.names(found, event) {
                    keys.insert(found.key.0);
                }
                false
            })?;
            self.keys.extend(keys);
        }
        if self.args.event.is_some() || self.args.tenant.is_some() {
            let mut held = BTreeSet::new();
            purger.look(|found| {
                let was = found.meta.and_then(|meta| meta.get(Tag::Quarantined));
                held.extend(was.filter(|_| self.chooses(found)).map(<[u8]>::to_vec));
                false
            })?;
            self.held.extend(held);
        }
        Ok(())
    }

    /// Whether a record is of the event that was named, by key or by id.
    fn names(&self, found: &Candidate<'_>, event: &str) -> bool {
        let id = found.meta.and_then(|meta| meta.get(Tag::EventId));
        let named = id == Some(event.as_bytes()) || found.key.to_string() == event;
        named && self.is_of_source_and_tenant(found)
    }

    fn chooses(&self, found: &Candidate<'_>) -> bool {
        let by_event = self.args.event.is_some();
        let early = self.before_ns.is_none_or(|before_ns| found.received_ns < before_ns);
        if found.kind == Some(Kind::Quarantine) {
            let was_released = self.held.contains(found.position.to_string().as_bytes());
            return was_released || early && self.mentions(found);
        }
        let of_event = !by_event || self.keys.contains(&found.key.0);
        // The key is of one source and one tenant already, so that a damaged record goes too.
        early && of_event && (by_event || self.is_of_source_and_tenant(found))
    }

    /// Whether a refused request has the id and the tenant that were named in it, as they stand.
    fn mentions(&self, found: &Candidate<'_>) -> bool {
        let (Some(meta), Some(body)) = (found.meta, found.body) else {
            // Nobody can say what it mentions; by its time alone it may go.
            let PurgeArgs { event, tenant, source, .. } = self.args;
            return event.is_none() && tenant.is_none() && source.is_none();
        };
        let args = self.args;
        let holds = |wanted: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| {
                let within = |bytes: &[u8]| memmem::find(bytes, wanted.as_bytes()).is_some();
                within(meta.as_bytes()) || within(body)
            })
        };
        let source = meta.get(Tag::Source);
        let of_source = args.source.as_ref().is_none_or(|it| source == Some(it.as_bytes()));
        of_source && holds(&args.event) && holds(&args.tenant)
    }

    fn is_of_source_and_tenant(&self, found: &Candidate<'_>) -> bool {
        let fits = |tag, wanted: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| {
                found.meta.and_then(|meta| meta.get(tag)) == Some(wanted.as_bytes())
            })
        };
        fits(Tag::Source, &self.args.source) && fits(Tag::Tenant, &self.args.tenant)
    }
}

fn json_of(lane: &Named, erased: &Erased) -> Value {
    json!({
        "lane": lane.name,
        "folder": lane.folder,
        "records": erased.records,
        "bytes": erased.bytes,
        "segments": erased.segments,
        "segment_bytes": erased.segment_bytes,
        "purged_before": erased.purged_before,
        "unreadable": erased.unreadable,
    })
}

fn text_of(dry_run: bool, lane: &Named, erased: &Erased) -> String {
    let done = if dry_run { "would be purged" } else { "purged" };
    let (bytes, copied) = (ByteSize(erased.bytes), ByteSize(erased.segment_bytes));
    let mut text = format!(
        "lane {}: {} records ({bytes}) {done}, by a copy of {} segments ({copied})\n",
        lane.name, erased.records, erased.segments
    );
    // Writing to a String cannot fail.
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
