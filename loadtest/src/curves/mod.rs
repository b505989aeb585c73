//! What a request costs as the work around it grows: larger bodies, more connections, more events
//! in the dedupe window, a longer log. Flat where the design says flat, or the run fails.
//!
//! ```text
//! points of an axis -> (fill the lane) -> two servers in turns, round after round -> judge -> picture
//! ```
//!
//! Each point is a ratio within its rounds, since times drift on a shared machine: the whole line
//! against bare hyper at the same load, or against itself with nothing behind it. As a control a
//! server on which work was planted that grows along its axis goes through the same rounds, and
//! the same judgement has to fail it.

mod axis;
mod fill;
mod judge;
mod picture;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use forebay_log::Clock;
use serde::Serialize;

use self::axis::{Axis, AxisName};
use self::judge::{Curve, Verdict};
use crate::figures::{complain, say};
use crate::machine::Machine;
use crate::processor::Cores;
use crate::target::DriverChoice;
use crate::{processor, session, text};

/// How much of the time each curve may have, where the control has one.
const SHARE: u32 = 5;

/// What an event of the window takes on the disk, key and record.
const KEY_BYTES: u64 = 90;
/// What a folder must have room for beside the longest axis: what two servers store in its rounds,
/// and what they keep free.
const ROOM_BESIDE: u64 = 4 << 30;

/// Arguments of `cost-curves`.
#[derive(Clone, Debug, Args)]
pub(crate) struct CurvesArgs {
    /// Which of them
    #[arg(long, value_enum, value_delimiter = ',',
          default_values = ["body", "connections", "window", "backlog"])]
    only: Vec<AxisName>,
    /// Rounds at each point, while there is time; never fewer than three
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(3..=1000))]
    rounds: u32,
    /// Requests measured in each round, for each server; fewer where bodies are large
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1000..=1_000_000))]
    requests: u32,
    /// Events in the dedupe window at its last point; each takes about 90 bytes of disk
    #[arg(long, default_value_t = 50_000_000, value_parser = clap::value_parser!(u64).range(1000..=1_000_000_000))]
    keys: u64,
    /// GiB of log at its last point
    #[arg(long, value_name = "GIB", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1000))]
    backlog: u64,
    /// How long all of it may take: rounds beyond the third are given up for it, and points that it
    /// leaves no time for are missing, which fails the run
    #[arg(long, value_name = "SPAN", default_value = "12m", value_parser = text::span)]
    budget: Duration,
    /// By how much a flat curve may rise from its first point
    #[arg(long, value_name = "SHARE", default_value = "15%", value_parser = text::share)]
    margin: f64,
    /// How all servers wait for their sockets
    #[arg(long, value_enum, default_value = "auto")]
    driver: DriverChoice,
    /// Where logs are written, and removed again. Default: the folder for temporary files
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// A folder for a picture of each
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    /// One JSON document in place of the table
    #[arg(long)]
    json: bool,
}

/// All of it.
#[derive(Debug, Serialize)]
struct Report {
    command: String,
    machine: Machine,
    driver: &'static str,
    margin: f64,
    curves: Vec<Curve>,
    /// Whether the planted growth was seen.
    control_caught: bool,
    control: Curve,
}

/// What all measurements share.
#[derive(Debug)]
struct Bench<'a> {
    args: &'a CurvesArgs,
    cores: Cores,
    usable: Vec<usize>,
    folder: &'a Path,
}

/// Refuses at once what would fail after minutes, when the disk is full.
fn has_room(args: &CurvesArgs, folder: &Path) -> io::Result<()> {
    let taken = args.only.iter().map(|axis| match axis {
        AxisName::Window => args.keys * KEY_BYTES,
        AxisName::Backlog => args.backlog << 30,
        _ => 0,
    });
    let wanted = taken.max().unwrap_or(0) + ROOM_BESIDE;
    let told = rustix::fs::statvfs(folder)
        .map_err(|error| io::Error::other(format!("{}: {error}", folder.display())))?;
    let free = told.f_bavail.saturating_mul(told.f_frsize);
    if free >= wanted {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{} has {} GiB free, and {} are needed: give another --folder, or ask for less by --keys and \
         --backlog",
        folder.display(),
        free >> 30,
        wanted.div_ceil(1 << 30)
    )))
}

/// Measures, judges, prints, draws.
pub(crate) fn run(args: &CurvesArgs) -> io::Result<ExitCode> {
    session::raise_file_limit();
    let folder = args.folder.clone().unwrap_or_else(std::env::temp_dir);
    has_room(args, &folder)?;
    let usable = processor::usable()?;
    let bench = Bench { args, cores: Cores::choose()?, usable, folder: &folder };
    let axes = args.only.iter().map(|name| Axis::of(*name, args.keys, args.backlog));
    let began = Clock::System.monotonic();
    // The control comes last, and takes little.
    let shares = SHARE * u32::try_from(args.only.len()).unwrap_or(0) + 1;
    let mut curves = Vec::new();
    for (turn, axis) in (1..).zip(axes) {
        let until = began + args.budget * (SHARE * turn) / shares;
        let curve = curve(&bench, &axis, until)?;
        curves.push(curve);
    }
    let control = curve(&bench, &Axis::control(args.margin), began + args.budget)?;
    let report = Report {
        command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        machine: Machine::this(),
        driver: args.driver.resolve().name(),
        margin: args.margin,
        control_caught: control.verdict == Verdict::Rises,
        curves,
        control,
    };
    if let Some(dir) = &args.svg {
        picture::write(dir, &report.curves)?;
        complain(&format!("written: {}", dir.display()));
    }
    if args.json {
        say(&serde_json::to_string_pretty(&report).map_err(io::Error::other)?);
    }
    Ok(conclude(&report, args.json))
}

/// One axis, from its first point to its last.
fn curve(bench: &Bench<'_>, axis: &Axis, until: Instant) -> io::Result<Curve> {
    if !bench.args.json {
        say(&format!("\n{}: {} against {}", axis.title, axis.subject, axis.reference));
    }
    let points = axis.measure(bench, until, |point| {
        if !bench.args.json {
            say(&format!("  {point}"));
        }
    })?;
    let curve = Curve::judge(axis, points, bench.args.margin);
    if !bench.args.json {
        say(&format!("  {}", curve.told()));
    }
    Ok(curve)
}

fn conclude(report: &Report, quiet: bool) -> ExitCode {
    let tell = |line: &str| if quiet { complain(line) } else { say(line) };
    let mut code = ExitCode::SUCCESS;
    for curve in report.curves.iter().filter(|curve| curve.verdict != Verdict::Holds) {
        tell(&format!("{}: {}", curve.name, curve.told()));
        code = ExitCode::FAILURE;
    }
    if report.control_caught {
        tell("the control: growth that was planted was seen");
    } else {
        tell("THE CONTROL: growth that was planted was not seen, so nothing above says anything");
        code = ExitCode::FAILURE;
    }
    code
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command, FromArgMatches as _};

    use super::*;

    #[test]
    fn a_folder_without_room_for_the_backlog_is_refused_at_once() {
        let parsed = CurvesArgs::augment_args(Command::new("curves")).get_matches_from(["curves"]);
        let mut args = CurvesArgs::from_arg_matches(&parsed).expect("defaults");
        args.backlog = 1 << 30; // 1 EiB
        let refused = has_room(&args, &std::env::temp_dir()).expect_err("too much").to_string();
        assert!(refused.contains("--backlog"), "{refused}");
        args.only = vec![AxisName::Connections];
        assert!(has_room(&args, Path::new("/no/such/folder")).is_err());
    }
}
