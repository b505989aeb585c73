//! `forebay replay`: events of the log once more to a sink, or to a URL, beside live traffic.
//!
//! It reads the log as any other process does and moves no cursor. Sinks that mark what they are
//! handed say that it is a replay. What the sink refuses is told, and stays in the log. Exit codes:
//! 0 all was taken, 1 some was refused, 2 wrong usage, 75 it cannot be run now or the sink takes
//! nothing, 78 a bad configuration.

#[cfg(feature = "sink-http")]
mod guard;
#[cfg(feature = "sink-http")]
mod staging;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use forebay_log::{Clock, Reader};

use super::bring::{self, BringError};
use super::keys::HiddenSecretArgs;
use super::patience::Patience;
use super::place::PlaceError;
use super::which::{Which, row};
use crate::config;
use crate::drain::errand::Errand;
use crate::drain::sink::Pass;

/// Of what was not brought when a replay gives up.
const STAYS: &str = "what was not replayed stays in the log";

/// What `replay` takes.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ReplayArgs {
    /// The configuration; else `FOREBAY_CONFIG`, else `/etc/forebay/forebay.toml`
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The sink that gets them
    #[arg(long, value_name = "NAME", required_unless_present = "to_url")]
    sink: Option<String>,
    #[command(flatten)]
    staging: StagingArgs,
    /// Only of this lane; else of every lane that the sink reads
    #[arg(long, value_name = "NAME")]
    lane: Option<String>,
    #[command(flatten)]
    which: Which,
    /// Events a second at the most; else the sink's own rate, and 50 to a URL
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// End once the sink has failed and taken nothing for so long; else its `retry.horizon`, and to
    /// a URL never
    #[arg(long, value_name = "DURATION", value_parser = config::parse_duration)]
    timeout: Option<Duration>,
    /// Tell which events it would be, and send nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `--to-url` takes beside.
#[derive(Clone, Debug, clap::Args)]
struct StagingArgs {
    /// Send them to this URL in place of a sink, signed anew as their senders sign
    #[arg(long, value_name = "URL", conflicts_with = "sink")]
    to_url: Option<String>,
    /// Sign as this preset; else as the events' source does
    #[arg(long, value_name = "NAME", requires = "to_url")]
    preset: Option<String>,
    #[command(flatten)]
    secrets: HiddenSecretArgs,
    /// Give each event another id, where its sender puts ids into a header; else the target knows
    /// again what it has
    #[arg(long, requires = "to_url")]
    new_ids: bool,
    /// Certificates (PEM) that the target's must descend from; else those of the system
    #[arg(long, value_name = "FILE", requires = "to_url")]
    ca_file: Option<PathBuf>,
    /// Let the target have an address that is not public, such as loopback
    #[arg(long, requires = "to_url")]
    allow_private: bool,
    /// Let events go whose environment is production
    #[arg(long, requires = "to_url")]
    allow_production_events: bool,
}

/// Runs the verb.
pub(super) fn run(args: &ReplayArgs) -> ExitCode {
    match replay(args, &Clock::System) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(error.report()),
    }
}

fn replay(args: &ReplayArgs, clock: &Clock) -> Result<(), BringError> {
    match (&args.staging.to_url, &args.sink) {
        #[cfg(feature = "sink-http")]
        (Some(url), _) => staging::replay(args, url, clock),
        #[cfg(not(feature = "sink-http"))]
        (Some(_), _) => {
            let what = "--to-url sends by the sink http, which this forebay was built without; build \
                        it with `cargo build --release --features sink-http`";
            Err(PlaceError::Usage(what.to_owned()).into())
        }
        (None, sink) => to_sink(args, sink.as_deref().unwrap_or_default(), clock),
    }
}

fn to_sink(args: &ReplayArgs, name: &str, clock: &Clock) -> Result<(), BringError> {
    if args.staging.secrets.given() {
        let what = "a sink signs with secrets of its own; those flags go with --to-url".to_owned();
        return Err(PlaceError::Usage(what).into());
    }
    let drained = bring::drained(args.config.as_deref())?;
    let mut sink = bring::sink(&drained, name)?.clone();
    sink.events_per_second = args.rate.or(sink.events_per_second);
    let chosen = args.which.chosen(clock);
    let all = sink.lanes.iter().filter_map(|lane| drained.kept.lanes.get(*lane));
    let wanted = |name: &str| args.lane.as_ref().is_none_or(|lane| lane == name);
    let lanes: Vec<&str> = all.map(|lane| lane.name.as_str()).filter(|name| wanted(name)).collect();
    if lanes.is_empty() {
        let lane = args.lane.as_deref().unwrap_or_default();
        let what = format!("sink {name} does not read a lane {lane}");
        return Err(PlaceError::Usage(what).into());
    }
    if !args.dry_run {
        bring::tell_of_waits()?;
    }
    let (mut rows, mut ran, mut ended) = (Vec::new(), Vec::new(), Ok(()));
    let timeout = args.timeout.unwrap_or(sink.retry.horizon);
    for name in lanes {
        let dir = drained.kept.data_dir.join("lanes").join(name);
        let end = bring::end_of(&dir)?;
        let chosen = chosen.clone();
        if args.dry_run {
            let mut reader = Reader::open(&dir)?;
            reader.seek(chosen.start())?;
            while let Some(record) = reader.next_held()? {
                if record.get().position().offset() >= end {
                    break;
                }
                rows.extend(chosen.takes(&record).then(|| row(&record)));
            }
            continue;
        }
        let patience = Patience::begin(&sink.name, STAYS, timeout, clock)?;
        let errand = Errand {
            sink: &sink,
            lane: Arc::from(name),
            dir,
            from: chosen.start(),
            end,
            wanted: Box::new(move |record| chosen.takes(record)),
            pass: Pass::Replay,
            watch: patience.watch(None),
        };
        ran.push(errand.run(clock)?);
        ended = patience.end();
        if ended.is_err() {
            break;
        }
    }
    if args.dry_run {
        return bring::tell_dry("replayed", &rows, args.json);
    }
    let told = bring::tell("replayed", &ran, args.json);
    ended?;
    told
}
