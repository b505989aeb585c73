//! Memory over a long backlog: a drain in a process of its own, whose sink is away while millions of
//! events come, and then takes all of them.
//!
//! What is the process's own (`RssAnon`) is told apart from what it has mapped of files, which is the
//! log itself and the kernel's to take back.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use forebay_log::Clock;

use super::prepared::Prepared;
use crate::figures::{Summary, real, say};
use crate::foreign::{Foreign, Running};
use crate::processor::{self, Cores};
use crate::target::{Ack, DriverChoice, Kind, Target, Wanted};

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(100);
/// How often that is shown.
const SHOW: Duration = Duration::from_secs(2);
/// Longer the whole backlog may not take.
const DRAIN_MAX: Duration = Duration::from_secs(1800);
/// Events that are appended between two looks.
const APPENDED: u64 = 10_000;

/// Arguments of `drain backlog`.
#[derive(Clone, Debug, Args)]
pub(crate) struct BacklogArgs {
    /// Events
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(10_000..=100_000_000))]
    events: u64,
    /// Bytes of a payload
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(64..=65_536))]
    body: u32,
    /// What the sink may hold, as `sink.memory` says it
    #[arg(long, default_value = "64MiB")]
    memory: String,
    /// Fail when the process has ever had more of its own than so many MiB
    #[arg(long)]
    anon_max: Option<u64>,
    /// Fail when its own memory grew by more than this share from the second quarter of the drain to
    /// the last
    #[arg(long, default_value_t = 0.1)]
    growth_max: f64,
    /// Where the log is, which is removed again. Default: the folder for temporary files
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// What the process held at one moment, in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    anon: u64,
    mapped: u64,
}

/// Measures and prints.
pub(super) fn run(args: &BacklogArgs) -> io::Result<ExitCode> {
    let cores = Cores::choose()?;
    let under = args.folder.clone().unwrap_or_else(std::env::temp_dir);
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let target = Target::start(wanted(args, cores, &format!("http://{address}/")), &under)?;
    let mut lane = Prepared::at(target.lane())?;
    let mut watch = Watch::new(target.process_id());

    say(&format!(
        "{:<10}{:>12}{:>12}{:>14}{:>14}",
        "sink", "events", "taken", "own MiB", "mapped MiB"
    ));
    let mut away = Vec::new();
    while lane.appended() < args.events {
        for _ in 0..APPENDED.min(args.events - lane.appended()) {
            lane.append(args.body as usize)?;
        }
        away.push(watch.look("away", lane.appended(), 0)?);
    }
    let _server = Running::start_at(Foreign::NginxReturn, address, cores, &under)?;
    let mut draining = Vec::new();
    let began = Clock::System.monotonic();
    loop {
        let settled = settled(&lane)?;
        // What is before the first record and between segments is no event: an estimate, and at
        // the end exact.
        let share = real(settled) / real(lane.end().max(1));
        let taken = (real(args.events) * share).floor();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share")]
        draining.push(watch.look("takes", lane.appended(), taken as u64)?);
        if settled >= lane.end() {
            break;
        }
        if began.elapsed() > DRAIN_MAX {
            return Err(io::Error::other("the backlog was not drained in time"));
        }
        thread::sleep(LOOK);
    }
    let took = began.elapsed().as_secs_f64();
    say(&format!(
        "\n{} events of {} B, a log of {} MiB, drained in {took:.0} s: {:.0} events/s",
        args.events,
        args.body,
        lane.end() >> 20,
        real(args.events) / took
    ));
    Ok(verdict(args, &away, &draining))
}

fn wanted(args: &BacklogArgs, cores: Cores, url: &str) -> Wanted {
    Wanted {
        kind: Kind::Drain,
        driver: DriverChoice::Auto,
        ack: Ack::Written,
        senders: Vec::new(),
        cores: vec![cores.server],
        tolerance: None,
        idle: "15s",
        sinks: format!(
            "[[sink]]\nname = \"backlog\"\nmemory = \"{}\"\nbatch = {{ bytes = \"256KiB\" }}\n\
             [sink.http]\nurl = \"{url}\"\nbatch = \"json\"\nallow_private = true\n",
            args.memory
        ),
        planted_ns: 0,
    }
}

/// Where the cursor of the sink stands.
fn settled(lane: &Prepared) -> io::Result<u64> {
    let cursors = forebay_log::cursors(&lane.dir).map_err(io::Error::other)?;
    Ok(cursors.first().map_or(0, |cursor| cursor.place.position().offset()))
}

/// Looks at a process, and shows what it sees now and then.
struct Watch {
    process: u32,
    shown: Option<Instant>,
}

impl Watch {
    const fn new(process: u32) -> Self {
        Self { process, shown: None }
    }

    fn look(&mut self, sink: &str, events: u64, taken: u64) -> io::Result<Sample> {
        let (whole, anon) = processor::memory(self.process)?;
        let sample = Sample { anon, mapped: whole.saturating_sub(anon) };
        if self.shown.is_none_or(|shown| shown.elapsed() >= SHOW) {
            self.shown = Some(Clock::System.monotonic());
            let (own, mapped) = (mebibytes(anon), mebibytes(sample.mapped));
            say(&format!("{sink:<10}{events:>12}{taken:>12}{own:>14.1}{mapped:>14.1}"));
        }
        Ok(sample)
    }
}

fn mebibytes(bytes: u64) -> f64 {
    real(bytes) / real(1 << 20)
}

fn verdict(args: &BacklogArgs, away: &[Sample], draining: &[Sample]) -> ExitCode {
    for (sink, samples) in [("away", away), ("takes", draining)] {
        let own = Summary::of(samples.iter().map(|sample| mebibytes(sample.anon)));
        let mapped = Summary::of(samples.iter().map(|sample| mebibytes(sample.mapped)));
        say(&format!(
            "sink {sink}: own {:.1} MiB (most {:.1}), mapped {:.1} MiB (most {:.1})",
            own.median, own.most, mapped.median, mapped.most
        ));
    }
    let most = away.iter().chain(draining).map(|sample| sample.anon).max().unwrap_or(0);
    let growth = growth(draining);
    say(&format!(
        "own memory, last quarter of the drain against its second: {:+.1} %",
        growth * 100.0
    ));
    let above = args.anon_max.is_some_and(|max| most > max << 20);
    if above || growth > args.growth_max {
        say("own memory is NOT flat");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// How much more the median of the last quarter is than that of the second, as a share. In the
/// first the sink has only just come.
fn growth(samples: &[Sample]) -> f64 {
    let quarter = (samples.len() / 4).max(1);
    let median = |part: &[Sample]| Summary::of(part.iter().map(|sample| real(sample.anon))).median;
    let second = samples.iter().skip(quarter).take(quarter).copied().collect::<Vec<_>>();
    let last = samples.get(samples.len().saturating_sub(quarter)..).unwrap_or_default();
    median(last) / median(&second) - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(anon: impl Fn(u64) -> u64) -> Vec<Sample> {
        (0..400).map(|at| Sample { anon: anon(at), mapped: 0 }).collect()
    }

    #[test]
    fn a_drain_that_keeps_something_of_each_event_is_not_flat() {
        assert!(growth(&samples(|_| 50 << 20)).abs() < 1e-9);
        assert!(growth(&samples(|at| (50 << 20) + ((at % 7) << 20))).abs() < 0.05);
        // One that leaks 20 MB on its way.
        assert!(growth(&samples(|at| (50 << 20) + at * 50_000)) > 0.15);
    }
}
