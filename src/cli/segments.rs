//! `forebay segments list|verify|repair|export`: the files of the log, looked at and mended.
//!
//! Works on any data folder or lane folder, a copy or a live one; `repair` alone needs that
//! nobody writes. Exit codes: 0 sound (what a crash left is told and is no damage), 1 the output
//! cannot be written, 2 wrong usage, 3 damage, 4 damage for which a writer would not open the
//! lane, 75 it cannot be read now, or a writer holds the lane, 78 a bad configuration.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use forebay_log::{
    Cure, Finding, OpenError, ReadError, Reader, Repaired, SegmentFacts, SegmentState, Severity,
    Step, Verified, repair, segments, verify,
};
use serde_json::{Value, json};

use super::place::{Named, Place, PlaceError};
use super::row::{Style, time_text};
use super::terminal::{self, Progress};
use super::{EXIT_BLOCKING, EXIT_DAMAGE, EXIT_TEMPORARY};
use crate::config::size_text;

/// How much is written at once.
const OUT_BYTES: usize = 64 * 1024;

/// What `segments` takes.
#[derive(Clone, Debug, Args)]
pub(super) struct SegmentsArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Every segment with what its header and footer say
    List(LookArgs),
    /// Read every record and check all that can be checked
    Verify(LookArgs),
    /// Make a lane openable again, keep what can be read, destroy nothing; nobody may write it
    Repair(RepairArgs),
    /// Print every record that can be read, deliveries and quarantined requests included
    Export(ExportArgs),
}

#[derive(Clone, Debug, Args)]
struct LookArgs {
    #[command(flatten)]
    place: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, Args)]
struct RepairArgs {
    #[command(flatten)]
    look: LookArgs,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Debug, Args)]
struct ExportArgs {
    #[command(flatten)]
    place: Place,
    /// One JSON object a line; the default
    #[arg(long, group = "style")]
    json: bool,
    /// The bodies alone, each with a line end
    #[arg(long, group = "style")]
    raw: bool,
}

/// Why a verb did not come to its end.
#[derive(Debug, thiserror::Error)]
enum SegmentsError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

/// Runs the verb.
pub(super) fn run(args: &SegmentsArgs) -> ExitCode {
    let told = match &args.verb {
        Verb::List(args) => list(args),
        Verb::Verify(args) => check(args),
        Verb::Repair(args) => mend(args),
        Verb::Export(args) => export(args, io::stdout().lock()).map(|worst| (String::new(), worst)),
    };
    let outcome = told.and_then(|(text, worst)| print(&text).map(|()| worst));
    let code = match &outcome {
        Ok(worst) => exit_code(*worst),
        Err(SegmentsError::Place(error)) => {
            error.report();
            return ExitCode::from(error.exit_code());
        }
        Err(SegmentsError::Write(error)) if terminal::closed(error) => 0,
        Err(error) => {
            terminal::complain(error);
            if matches!(error, SegmentsError::Write(_)) { 1 } else { EXIT_TEMPORARY }
        }
    };
    ExitCode::from(code)
}

fn exit_code(worst: Option<Severity>) -> u8 {
    match worst {
        None | Some(Severity::Remains) => 0,
        Some(Severity::Damage) => EXIT_DAMAGE,
        Some(Severity::Blocking) => EXIT_BLOCKING,
    }
}

/// What is to be printed, and the worst that was found.
type Told = Result<(String, Option<Severity>), SegmentsError>;

fn print(text: &str) -> Result<(), SegmentsError> {
    let mut out = io::stdout().lock();
    Ok(out.write_all(text.as_bytes()).and_then(|()| out.flush())?)
}

/// What was found of each lane: one JSON object, or text for people.
fn tell_all<T>(
    json: bool,
    found: &[(Named, T)],
    as_json: impl Fn(&T) -> Value,
    as_text: impl Fn(&T) -> String,
) -> String {
    if json {
        let lanes: Vec<Value> = found
            .iter()
            .map(|(lane, found)| {
                let mut value = json!({ "lane": lane.name, "folder": lane.folder });
                if let (Value::Object(whole), Value::Object(found)) = (&mut value, as_json(found)) {
                    whole.extend(found);
                }
                value
            })
            .collect();
        return format!("{:#}\n", json!({ "lanes": lanes }));
    }
    let text = found.iter().map(|(lane, found)| {
        format!("lane {} in {}\n{}", lane.name, lane.folder.display(), as_text(found))
    });
    text.collect::<Vec<_>>().join("\n")
}

fn list(args: &LookArgs) -> Told {
    let mut found = Vec::new();
    for lane in args.place.logs()? {
        let facts = segments(&lane.folder)?;
        found.push((lane, facts));
    }
    let text = tell_all(
        args.json,
        &found,
        |facts| json!({ "segments": facts.iter().map(facts_json).collect::<Vec<_>>() }),
        |facts| facts_text(facts),
    );
    let severity = |facts: &SegmentFacts| match facts.state {
        SegmentState::Unreadable(_) => Some(Severity::Damage),
        SegmentState::Version(_) => Some(Severity::Blocking),
        _ => facts.harm.as_ref().map(|_| Severity::Damage),
    };
    Ok((text, found.iter().flat_map(|(_, facts)| facts).filter_map(severity).max()))
}

fn state_text(state: SegmentState) -> &'static str {
    match state {
        SegmentState::Sealed => "sealed",
        SegmentState::Recovered => "recovered",
        SegmentState::Open => "open",
        SegmentState::Unreadable(_) => "unreadable",
        SegmentState::Version(_) => "version",
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn facts_json(facts: &SegmentFacts) -> Value {
    let (header, footer) = (facts.header, facts.footer);
    let problem = match facts.state {
        SegmentState::Unreadable(what) => Some(what.to_owned()),
        SegmentState::Version(found) => Some(format!("format version {found}")),
        _ => facts.harm.clone(),
    };
    json!({
        "file": file_name(&facts.path),
        "base": facts.base,
        "bytes": facts.file_bytes,
        "state": state_text(facts.state),
        "problem": problem,
        "epoch": header.map(|header| header.epoch),
        "sequence": header.map(|header| header.sequence),
        "created_at": header.map(|header| time_text(header.created_ns)),
        "sealed_end": footer.map(|footer| footer.sealed_end),
        "records": footer.map(|footer| footer.records),
        "first_at": footer.filter(|is| is.records > 0).map(|is| time_text(is.first_ns)),
        "last_at": footer.filter(|is| is.records > 0).map(|is| time_text(is.last_ns)),
        "damaged": footer.map(|footer| footer.damaged),
        "gaps": footer.map(|footer| footer.gaps),
    })
}

fn facts_text(facts: &[SegmentFacts]) -> String {
    let mut text = format!(
        "  {:<20}  {:>8}  {:<10}  {:>5}  {:>10}  {:<20}  {}\n",
        "file", "size", "state", "epoch", "records", "first", "last"
    );
    for facts in facts {
        let or_dash = |told: Option<String>| told.unwrap_or_else(|| "-".to_owned());
        let second = |ns: u64| time_text(ns).chars().take(19).collect::<String>();
        let footer = facts.footer.filter(|footer| footer.records > 0);
        // Writing to a String cannot fail.
        _ = writeln!(
            text,
            "  {:<20}  {:>8}  {:<10}  {:>5}  {:>10}  {:<20}  {}",
            file_name(&facts.path),
            size_text(facts.file_bytes),
            if facts.harm.is_some() { "harmed" } else { state_text(facts.state) },
            or_dash(facts.header.map(|header| header.epoch.to_string())),
            or_dash(facts.footer.map(|footer| footer.records.to_string())),
            or_dash(footer.map(|footer| second(footer.first_ns))),
            or_dash(footer.map(|footer| second(footer.last_ns))),
        );
    }
    text
}

fn check(args: &LookArgs) -> Told {
    let mut found = Vec::new();
    for lane in args.place.logs()? {
        let mut progress = Progress::new(&format!("verify {}", lane.name));
        let verified = verify(&lane.folder, &mut |done, all| progress.tell(done, all));
        progress.end();
        found.push((lane, verified?));
    }
    let text = tell_all(args.json, &found, verified_json, verified_text);
    Ok((text, found.iter().filter_map(|(_, verified)| verified.worst).max()))
}

fn severity_text(severity: Option<Severity>) -> &'static str {
    match severity {
        None => "sound",
        Some(Severity::Remains) => "remains",
        Some(Severity::Damage) => "damage",
        Some(Severity::Blocking) => "blocking",
    }
}

fn verified_json(verified: &Verified) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "severity": severity_text(Some(finding.severity)),
            "file": file_name(&finding.path),
            "offset": finding.offset,
            "what": finding.what,
        })
    };
    json!({
        "verdict": severity_text(verified.worst),
        "segments": verified.segments,
        "records": verified.records,
        "purged": verified.purged,
        "fillers": verified.pads,
        "damaged": verified.damaged,
        "gaps": verified.gaps,
        "findings": verified.findings.iter().map(finding).collect::<Vec<_>>(),
        "findings_left_out": verified.findings_left_out,
    })
}

fn verified_text(verified: &Verified) -> String {
    let Verified { segments, records, purged, damaged, gaps, .. } = verified;
    let mut text = format!(
        "  {segments} segments, {records} records ({purged} purged), {damaged} damaged, {gaps} \
         gaps\n"
    );
    for finding in &verified.findings {
        let offset = finding.offset.map_or_else(String::new, |offset| format!(" at {offset}"));
        let severity = severity_text(Some(finding.severity));
        let file = file_name(&finding.path);
        _ = writeln!(text, "  {severity:<8}  {file}{offset}: {}", finding.what);
    }
    if verified.findings_left_out > 0 {
        _ = writeln!(text, "  and {} more", verified.findings_left_out);
    }
    text + match verified.worst {
        None => "  sound\n",
        Some(Severity::Remains) => "  sound; the above is what a crash leaves\n",
        Some(Severity::Damage) => "  damaged; see `forebay segments repair`\n",
        Some(Severity::Blocking) => "  would not open; see `forebay segments repair`\n",
    }
}

fn mend(args: &RepairArgs) -> Told {
    let mut found = Vec::new();
    for lane in args.look.place.logs()? {
        let repaired = repair(&lane.folder, args.dry_run)?;
        found.push((lane, repaired));
    }
    let text = tell_all(args.look.json, &found, repaired_json, repaired_text);
    let left = |step: &Step| args.dry_run || step.cure == Cure::Left;
    let worst = |step: &Step| match step.cure {
        Cure::Aside => Severity::Blocking,
        _ => Severity::Damage,
    };
    let steps = found.iter().flat_map(|(_, repaired)| &repaired.steps);
    Ok((text, steps.filter(|step| left(step)).map(worst).max()))
}

fn cure_text(cure: Cure) -> &'static str {
    match cure {
        Cure::Aside => "moved aside",
        Cure::Renamed => "given its own name",
        Cure::Lengthened => "replaced by a copy of full length",
        Cure::Header => "header made again",
        Cure::HeaderCopy => "copy of the header made again",
        Cure::Footer => "footer made again",
        Cure::Left => "left: nothing in it can be read",
    }
}

fn repaired_json(repaired: &Repaired) -> Value {
    let step = |step: &Step| {
        json!({
            "file": file_name(&step.path),
            "what": step.what,
            "cure": cure_text(step.cure),
            "kept": step.kept,
        })
    };
    let recovery = repaired.recovery.as_ref();
    json!({
        "done": recovery.is_some(),
        "steps": repaired.steps.iter().map(step).collect::<Vec<_>>(),
        "segments": recovery.map(|recovery| recovery.segments),
        "records": recovery.map(|recovery| recovery.records),
        "damaged": recovery.map(|recovery| recovery.damaged),
        "gaps": recovery.map(|recovery| recovery.gaps),
    })
}

fn repaired_text(repaired: &Repaired) -> String {
    let mut text = String::new();
    for step in &repaired.steps {
        let kept = step.kept.as_ref();
        let kept = kept.map_or_else(String::new, |kept| format!(" ({})", kept.display()));
        let (file, cure) = (file_name(&step.path), cure_text(step.cure));
        _ = writeln!(text, "  {file} {}: {cure}{kept}", step.what);
    }
    match &repaired.recovery {
        None => _ = writeln!(text, "  nothing was done: this was a dry run"),
        Some(recovery) => {
            let (segments, records) = (recovery.segments, recovery.records);
            _ = writeln!(text, "  opens: {segments} segments, {records} records");
        }
    }
    text
}

fn export(args: &ExportArgs, out: impl Write) -> Result<Option<Severity>, SegmentsError> {
    let style = if args.raw { Style::Raw } else { Style::Json };
    let mut out = BufWriter::with_capacity(OUT_BYTES, out);
    let mut worst = None;
    for lane in args.place.originals()? {
        let all_bytes = segments(&lane.folder)?.iter().map(|facts| facts.file_bytes).sum();
        let mut progress = Progress::new(&format!("export {}", lane.name));
        let mut reader = Reader::open(&lane.folder)?;
        let first = reader.next()?.map_or(0, |record| record.position().offset());
        reader.seek(forebay_log::From::Earliest)?;
        while let Some(record) = reader.next()? {
            style.print(&mut out, &lane.name, &record)?;
            progress.tell(record.position().offset() - first, all_bytes);
        }
        progress.end();
        out.flush()?;
        let skipped = reader.skipped();
        if skipped.damaged + skipped.gaps + skipped.segments > 0 {
            worst = Some(Severity::Damage);
            let said = format!(
                "{}: {} damaged records, {} gaps and {} segments cannot be read",
                lane.name, skipped.damaged, skipped.gaps, skipped.segments
            );
            terminal::warn(&said);
        }
    }
    Ok(worst)
}

#[cfg(test)]
mod tests;
