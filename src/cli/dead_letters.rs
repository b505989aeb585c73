//! `forebay dead-letters list|show|redrive|discard`: what a sink refused for good.
//!
//! A letter is the event as it was, with the reason, the number of attempts, and where it came
//! from. All of it works beside a running server. A letter that was redriven or discarded is no
//! longer listed; its record goes with the age of the lane. Exit codes: 0 done, 1 some letters
//! were refused once more and stay, 2 wrong usage, 75 it cannot be done now or a sink takes
//! nothing, 78 a bad configuration.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use forebay_log::{Clock, Position, Record, Tag};
use serde_json::{Value, json};

use super::bring::{self, BringError};
use super::patience::Patience;
use super::place::PlaceError;
use super::row::{Style, harmless};
use super::terminal::{self, Progress};
use super::which::{Chosen, Which, row};
use crate::config::{self, Drained};
use crate::drain::dead;
use crate::drain::letters::Letters;
use crate::drain::redrive;

/// Of what was not brought when a redrive gives up.
const STAYS: &str = "what was not redriven stays a dead letter";

/// What `dead-letters` takes.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct DeadLettersArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Every letter that waits, oldest first
    List(Of),
    /// The letters whole, with headers and bodies
    Show(Of),
    /// Bring them to their sink once more
    Redrive(Redriving),
    /// Give them up: they are listed no longer
    Discard(Doing),
}

/// Which letters.
#[derive(Clone, Debug, clap::Args)]
struct Of {
    /// The configuration; else `FOREBAY_CONFIG`, else `/etc/forebay/forebay.toml`
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The sink that refused them; else of every sink
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    #[command(flatten)]
    which: Which,
    /// Only letters whose reason holds this
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, clap::Args)]
struct Doing {
    #[command(flatten)]
    of: Of,
    /// Every letter, where no filter is given
    #[arg(long)]
    all: bool,
    /// Tell which letters it would be, and do nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Debug, clap::Args)]
struct Redriving {
    #[command(flatten)]
    doing: Doing,
    /// End with a sink once it has failed and taken nothing for so long; else its `retry.horizon`
    #[arg(long, value_name = "DURATION", value_parser = config::parse_duration)]
    timeout: Option<Duration>,
}

/// Runs the verb.
pub(super) fn run(args: &DeadLettersArgs) -> ExitCode {
    let clock = Clock::System;
    let done = match &args.verb {
        Verb::List(of) => list(of, &clock),
        Verb::Show(of) => show(of, &clock),
        Verb::Redrive(redriving) => redrive(redriving, &clock),
        Verb::Discard(doing) => discard(doing, &clock),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(error.report()),
    }
}

/// The letters that are meant, by sink.
fn chosen(of: &Of, clock: &Clock) -> Result<(Drained, BTreeMap<String, Vec<Record>>), BringError> {
    let drained = bring::drained(of.config.as_deref())?;
    let chosen = Meant { chosen: of.which.chosen(clock), reason: of.reason.clone() };
    let mut found = BTreeMap::new();
    for name in names(&drained, of)? {
        let mut records = Vec::new();
        let letters = Letters::open(&dead::dir(&drained.kept.data_dir, &name))?;
        letters.each(|record| records.extend(chosen.takes(&record).then_some(record)))?;
        if !records.is_empty() {
            found.insert(name, records);
        }
    }
    Ok((drained, found))
}

/// The sinks that are meant: also those that the configuration no longer has, for looking.
fn names(drained: &Drained, of: &Of) -> Result<Vec<String>, BringError> {
    let folder = drained.kept.data_dir.join("dead-letters");
    let mut names: Vec<String> = drained.sinks.iter().map(|sink| sink.name.clone()).collect();
    let failed = |error| BringError::Folder { folder: folder.clone(), error };
    match std::fs::read_dir(&folder) {
        Ok(entries) => {
            for entry in entries {
                names.extend(entry.map_err(failed)?.file_name().into_string());
            }
        }
        // No sink has given anything up yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    names.sort();
    names.dedup();
    let Some(wanted) = &of.sink else { return Ok(names) };
    if !names.contains(wanted) {
        let known = names.join(", ");
        let what = format!("there is no sink {wanted}; there is {known}");
        return Err(PlaceError::Usage(what).into());
    }
    Ok(vec![wanted.clone()])
}

#[derive(Clone, Debug)]
struct Meant {
    chosen: Chosen,
    reason: Option<String>,
}

impl Meant {
    fn takes(&self, record: &Record) -> bool {
        let reason = said(record, Tag::DeadReason);
        self.chosen.takes(record)
            && self.reason.as_ref().is_none_or(|wanted| reason.contains(wanted.as_str()))
    }
}

fn said(record: &Record, tag: Tag) -> String {
    let record = record.get();
    record.meta().get(tag).map_or_else(String::new, |value| String::from_utf8_lossy(value).into())
}

fn letter_json(sink: &str, record: &Record) -> Value {
    let mut row = row(record);
    row["sink"] = json!(sink);
    row["reason"] = json!(said(record, Tag::DeadReason));
    row["attempts"] = json!(said(record, Tag::DeadAttempts).parse::<u64>().ok());
    row["lane"] = json!(said(record, Tag::DeadLane));
    row["lane_position"] = json!(said(record, Tag::DeadPosition));
    row
}

fn list(of: &Of, clock: &Clock) -> Result<(), BringError> {
    let (_, found) = chosen(of, clock)?;
    let letters = || {
        let of_sink = |(sink, records): (_, &'_ Vec<Record>)| -> Vec<Value> {
            records.iter().map(|record| letter_json(sink, record)).collect()
        };
        found.iter().map(|(sink, records)| (sink.as_str(), records)).flat_map(of_sink)
    };
    let mut out = io::stdout().lock();
    if of.json {
        let letters: Vec<Value> = letters().collect();
        writeln!(out, "{:#}", json!({ "dead_letters": letters }))?;
        return Ok(out.flush()?);
    }
    for letter in letters() {
        let text = |key: &str| harmless(letter[key].as_str().unwrap_or("-"));
        let [sink, position, at, source, kind, id, reason] =
            ["sink", "position", "received_at", "source", "event_type", "event_id", "reason"]
                .map(text);
        let attempts = letter["attempts"].as_u64().unwrap_or(0);
        writeln!(out, "{sink}  {position}  {at}  {source} {kind} {id}")?;
        writeln!(out, "    {reason}, after {attempts} attempts")?;
    }
    Ok(out.flush()?)
}

fn show(of: &Of, clock: &Clock) -> Result<(), BringError> {
    let (_, found) = chosen(of, clock)?;
    let stdout = io::stdout();
    let pretty = !of.json && stdout.is_terminal();
    let style =
        if pretty { Style::Pretty { coloured: terminal::coloured(&stdout) } } else { Style::Json };
    let mut out = BufWriter::new(stdout.lock());
    for (sink, records) in &found {
        for record in records {
            if pretty {
                let reason = harmless(&said(record, Tag::DeadReason));
                let attempts = said(record, Tag::DeadAttempts);
                writeln!(out, "{sink}: {reason}, after {attempts} attempts")?;
            }
            style.print(&mut out, &said(record, Tag::DeadLane), &record.get())?;
        }
    }
    Ok(out.flush()?)
}

/// Nobody means everything by leaving the filters out.
fn check_meant(doing: &Doing) -> Result<(), BringError> {
    let Which { from, to, source, event_type, tenant, event } = &doing.of.which;
    let texts = [source, event_type, tenant, event, &doing.of.reason];
    let filtered = from.is_some() || to.is_some() || texts.iter().any(|text| text.is_some());
    if filtered || doing.all || doing.dry_run {
        return Ok(());
    }
    let what = "say which letters, by --event, --type and the like, or --all".to_owned();
    Err(PlaceError::Usage(what).into())
}

fn dry(found: &BTreeMap<String, Vec<Record>>, verb: &str, json: bool) -> Result<(), BringError> {
    let of_sink = |(sink, records): (&String, &Vec<Record>)| -> Vec<Value> {
        records.iter().map(|record| letter_json(sink, record)).collect()
    };
    let rows: Vec<Value> = found.iter().flat_map(of_sink).collect();
    bring::tell_dry(verb, &rows, json)
}

fn redrive(redriving: &Redriving, clock: &Clock) -> Result<(), BringError> {
    let Redriving { doing, timeout } = redriving;
    check_meant(doing)?;
    let (drained, found) = chosen(&doing.of, clock)?;
    if doing.dry_run {
        return dry(&found, "redriven", doing.of.json);
    }
    bring::tell_of_waits()?;
    let (mut ran, mut ended) = (Vec::new(), Ok(()));
    for (name, records) in found {
        let sink = bring::sink(&drained, &name)?;
        let dir = dead::dir(&drained.kept.data_dir, &name);
        let meant: HashSet<Position> =
            records.iter().map(|record| record.get().position()).collect();
        drop(records);
        let patience = Patience::begin(&name, STAYS, timeout.unwrap_or(sink.retry.horizon), clock)?;
        let progress = Progress::new(&format!("redrive {name}"));
        let watch = patience.watch(Some((progress, meant.len() as u64)));
        let meant = |letter: &Record| meant.contains(&letter.get().position());
        let redriven = redrive::redrive(sink, &dir, meant, clock, watch)?;
        redriven.unmarked.iter().for_each(|error| terminal::complain(error));
        ran.push(redriven.ran);
        // One sink that takes nothing keeps no letter from another.
        ended = ended.and(patience.end());
    }
    let told = bring::tell("redriven", &ran, doing.of.json);
    ended?;
    told
}

fn discard(doing: &Doing, clock: &Clock) -> Result<(), BringError> {
    check_meant(doing)?;
    let (drained, found) = chosen(&doing.of, clock)?;
    if doing.dry_run {
        return dry(&found, "discarded", doing.of.json);
    }
    let mut count = 0;
    for (name, records) in found {
        let dir = dead::dir(&drained.kept.data_dir, &name);
        let mut done = Letters::open(&dir)?.begin()?;
        for record in &records {
            done.done(record.get().position(), "discarded")?;
            count += 1;
        }
        done.sync()?;
    }
    let mut out = io::stdout().lock();
    if doing.of.json {
        writeln!(out, "{:#}", json!({ "discarded": count }))?;
    } else {
        writeln!(out, "discarded {count} letters")?;
    }
    Ok(out.flush()?)
}
