//! `forebay quarantine release`: by the server that runs, or else by opening the lanes here.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use forebay_log::{Clock, Position};
use rustix::fs::FlockOperation;

use super::{Choice, Failure, Judge, show};
use crate::config;
use crate::diagnose::Verdict;
use crate::quarantine::{Release, Released, Spool, log_dir};
use crate::runtime::{self, Driver};
use crate::server::Opened;

/// How many requests one order names; the server answers an order when it is done with all of it.
const ORDER_REQUESTS_MAX: usize = 500;

/// What `release` takes.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ReleaseArgs {
    #[command(flatten)]
    choice: Choice,
    /// Release everything that is in quarantine and verifies
    #[arg(long)]
    all: bool,
    /// Only say what would be released, by the configuration as it is on disk
    #[arg(long)]
    dry_run: bool,
    /// How long to wait for a running server to carry out an order
    #[arg(long, value_name = "DURATION", value_parser = config::parse_duration, default_value = "60s")]
    wait: Duration,
}

/// Releases what is chosen; whether all of it is in its lane now.
pub(super) fn run(args: &ReleaseArgs) -> Result<bool, Failure> {
    let choice = &args.choice;
    if !args.all && !choice.narrows() {
        let message =
            "say which requests: positions, --source, --reason, --since, --until or --all";
        return Err(Failure::Usage(message.to_owned()));
    }
    if args.dry_run {
        return dry_run(choice);
    }
    let mut positions = Vec::new();
    choice.each(|held| {
        positions.push(held.position);
        Ok(())
    })?;
    let data_dir = choice.data_dir()?;
    let releases = if positions.is_empty() {
        Vec::new()
    } else if served(&data_dir).map_err(unusable(&data_dir))? {
        order(&data_dir, &positions, args.wait)?
    } else {
        by_hand(choice, &data_dir, &positions)?
    };
    // Positions that were asked for and are not there.
    let asked = choice.positions.iter().filter(|position| !positions.contains(position));
    let gone = asked.map(|position| Release {
        position: position.to_string(),
        outcome: Released::Gone,
        reason: None,
    });
    let releases: Vec<Release> = releases.into_iter().chain(gone).collect();
    print(&releases, choice.json)?;
    Ok(releases.iter().all(|one| matches!(one.outcome, Released::Stored | Released::Known)))
}

fn dry_run(choice: &Choice) -> Result<bool, Failure> {
    let judge = Judge::load(choice)?;
    let mut out = io::stdout().lock();
    let mut all = true;
    choice.each_asked(|held| {
        let verdict = judge.verdict(&held, false);
        all &= matches!(verdict, Verdict::Verified { .. });
        show::verdict(&mut out, &held, &verdict, choice.json)
    })?;
    if !choice.json {
        writeln!(out, "nothing was released: a dry run; freshness is judged by when each arrived")?;
    }
    Ok(all)
}

/// Whether a server holds the quarantine of this data folder.
fn served(data_dir: &Path) -> io::Result<bool> {
    let lock = match File::open(log_dir(data_dir).join("lock")) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// What went wrong with a folder.
fn unusable(dir: &Path) -> impl FnOnce(io::Error) -> Failure {
    let dir = dir.to_owned();
    |error| Failure::Place { dir, error }
}

/// Has the running server do it.
fn order(data_dir: &Path, positions: &[Position], wait: Duration) -> Result<Vec<Release>, Failure> {
    let spool = Spool::open(data_dir)?;
    let mut releases = Vec::new();
    for part in positions.chunks(ORDER_REQUESTS_MAX) {
        releases.extend(spool.order(part, wait, &Clock::System)?);
    }
    Ok(releases)
}

/// Opens the lanes, as a server would, and does it here.
fn by_hand(
    choice: &Choice,
    data_dir: &Path,
    positions: &[Position],
) -> Result<Vec<Release>, Failure> {
    let metadata = data_dir.metadata().map_err(unusable(data_dir))?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        let message = format!(
            "no server runs, so the lanes are opened here, as the user who owns {}; run as that \
             user, or start the server",
            data_dir.display()
        );
        return Err(Failure::Usage(message));
    }
    // As for a server: group and others read what the log holds only if the operator says so.
    rustix::process::umask(rustix::fs::Mode::RWXO | rustix::fs::Mode::WGRP);
    let config = config::load(&config::path(choice.config.as_deref()), config::environment())?;
    let opened = Opened::open(config, &Clock::System)?;
    let releasing = async { opened.releaser().release(positions).await };
    let releases = runtime::block_on(Driver::Epoll, releasing).map_err(Failure::Runtime)?;
    opened.close();
    Ok(releases?)
}

fn print(releases: &[Release], json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut stored = 0;
    for release in releases {
        stored += usize::from(release.outcome == Released::Stored);
        if json {
            serde_json::to_writer(&mut out, release)?;
            out.write_all(b"\n")?;
            continue;
        }
        let told = match release.outcome {
            Released::Stored => "released into its lane",
            Released::Known => "not released: its lane holds the event already",
            Released::Refused => "not released: refused again",
            Released::TooOld => "not released: older than its lane remembers events",
            Released::Handshake => "not released: a handshake, which leaves nothing",
            Released::Gone => "not released: not in quarantine any more",
        };
        let reason = release.reason.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
        writeln!(out, "{}  {told}{reason}", release.position)?;
    }
    if !json {
        writeln!(out, "{stored} of {} released", releases.len())?;
    }
    out.flush()
}
