//! Connections that wait: what memory each takes, unused and after a request, and what all of them
//! cost those that are busy. The busy ones send at one rate, open loop, to a server with idle
//! connections and to one without, in turns within one run.

use std::io;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Args;
use forebay_log::Clock;
use serde::Serialize;

use crate::args::Common;
use crate::closed;
use crate::figures::{Summary, real, say};
use crate::live::View;
use crate::machine::Machine;
use crate::processor;
use crate::requests::{Pool, Signer};
use crate::schedule::{Phase, Schedule};
use crate::session::Session;
use crate::text;
use crate::wire::Connections;

/// After its start a server still makes memory ready; and a connection that had a request gives its
/// buffers back once it was idle for `limits::REST_AFTER`.
const SETTLE: Duration = Duration::from_millis(2500);

/// Memory still falls where a look finds less than this share of the one before.
const FALLS: f64 = 0.99;

/// Arguments of `crowd`.
#[derive(Clone, Debug, Args)]
pub(crate) struct CrowdArgs {
    /// Connections in all
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(2..=60_000))]
    all: u32,
    /// Connections that are busy
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    active: u32,
    /// Requests a second on those
    #[arg(long, default_value = "10k/s", value_parser = text::rate)]
    rate: f64,
    /// How long each server is sent to
    #[arg(long = "for", value_name = "SPAN", default_value = "5s", value_parser = text::span)]
    span: Duration,
    /// Rounds; each measures both servers
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Fail when the median ratio of p99 is above this
    #[arg(long)]
    ratio_max: Option<f64>,
    /// Fail when an idle connection takes more KiB than this, used or not
    #[arg(long)]
    kib_max: Option<f64>,
    #[command(flatten)]
    common: Common,
}

/// One server.
#[derive(Clone, Copy, Debug, Serialize)]
struct Measured {
    p50_us: f64,
    p99_us: f64,
    /// Memory of its own for each idle connection: no request yet, and one.
    unused_kib: f64,
    used_kib: f64,
}

/// One server with idle connections, one without.
#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    with: Measured,
    without: Measured,
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    driver: &'static str,
    ack: &'static str,
    idle: u32,
    active: u32,
    rate: f64,
    unused_kib: Summary,
    used_kib: Summary,
    with_p99_us: Summary,
    without_p99_us: Summary,
    p50_ratio: Summary,
    p99_ratio: Summary,
    rounds: Vec<Round>,
}

/// Measures and prints.
pub(crate) fn run(args: &CrowdArgs) -> io::Result<ExitCode> {
    if args.common.place.target.is_some() {
        return Err(io::Error::other("--target: the servers of `crowd` are its own"));
    }
    let idle = args.all.saturating_sub(args.active);
    if idle == 0 {
        return Err(io::Error::other("--active: fewer than --all, or nobody is idle"));
    }
    // A session keeps this thread on a core, where the next server must not inherit it.
    let usable = processor::usable()?;
    let mut rounds = Vec::new();
    for round in 0..args.rounds {
        let mut both = [None; 2];
        for turn in 0..2 {
            let which = (round as usize + turn) % 2;
            processor::stay_on(&usable)?;
            both[which] = Some(measure(args, if which == 0 { idle } else { 0 })?);
        }
        let [Some(with), Some(without)] = both else { continue };
        if !args.common.output.json {
            say(&format!(
                "round {:>2}   an idle connection {:.1} KiB, used {:.1} KiB; p99 {:.0} us, without \
                 them {:.0} us",
                round + 1,
                with.unused_kib,
                with.used_kib,
                with.p99_us,
                without.p99_us
            ));
        }
        rounds.push(Round { with, without });
    }
    let report = report(args, idle, rounds);
    if args.common.output.json {
        say(&serde_json::to_string_pretty(&report).map_err(io::Error::other)?);
    } else {
        table(&report);
    }
    verdict(args, &report)
}

fn measure(args: &CrowdArgs, idle: u32) -> io::Result<Measured> {
    let mut common = args.common.clone();
    common.load.connections = args.active;
    common.place.patient = true;
    let mut session = Session::open(&common)?;
    let own = session.own.as_ref().ok_or_else(|| io::Error::other("it has no server"))?;
    let (process, remote) = (own.process_id(), session.remote().clone());
    let memory = || -> io::Result<f64> {
        thread::sleep(SETTLE);
        Ok(real(processor::memory(process)?.1) / 1024.0)
    };
    let before = memory()?;
    let mut crowd = Connections::open(remote, idle as usize)?;
    let unused = memory()?;
    if let (Some((sender, _)), true) = (session.senders.first(), idle > 0) {
        let run = Clock::System.wall_ns();
        let signer = Signer::new(sender.clone(), common.load.body as usize, run)?;
        let pool = Pool::new(&signer, crowd.all.len())?;
        let outcome = closed::drive(&mut crowd, &pool, 0, pool.len())?;
        if outcome.accepted != pool.len() {
            return Err(io::Error::other(format!(
                "{} of {} first requests were accepted",
                outcome.accepted,
                pool.len()
            )));
        }
    }
    // They give it back a few at a time.
    let mut used = memory()?;
    loop {
        let now = memory()?;
        let falls = now < used * FALLS;
        used = now;
        if !falls {
            break;
        }
    }
    let schedule = Schedule::phases(vec![Phase::flat("steady", args.rate, args.span)]);
    let trial = session.trial(schedule, &mut View::new())?;
    let counts = trial.outcome.counts;
    if counts.accepted != counts.sent {
        let told = format!("{} of {} requests were accepted", counts.accepted, counts.sent);
        return Err(io::Error::other(told));
    }
    let of = |quantile| real(trial.outcome.latency.value_at_quantile(quantile)) / 1e3;
    let each = |kib: f64| (kib - before) / f64::from(idle.max(1));
    Ok(Measured {
        p50_us: of(0.5),
        p99_us: of(0.99),
        unused_kib: each(unused),
        used_kib: each(used),
    })
}

fn report(args: &CrowdArgs, idle: u32, rounds: Vec<Round>) -> Report {
    let of = |part: fn(&Round) -> f64| Summary::of(rounds.iter().map(part));
    let place = &args.common.place;
    Report {
        machine: Machine::this(),
        driver: place.driver.resolve().name(),
        ack: place.ack.name(),
        idle,
        active: args.active,
        rate: args.rate,
        unused_kib: of(|round| round.with.unused_kib),
        used_kib: of(|round| round.with.used_kib),
        with_p99_us: of(|round| round.with.p99_us),
        without_p99_us: of(|round| round.without.p99_us),
        p50_ratio: of(|round| round.with.p50_us / round.without.p50_us),
        p99_ratio: of(|round| round.with.p99_us / round.without.p99_us),
        rounds,
    }
}

fn table(report: &Report) {
    let Report { driver, ack, idle, active, rate, .. } = report;
    say(&format!(
        "\n{idle} idle connections beside {active} with {rate:.0} requests/s, driver {driver}, ack \
         {ack}; median (least to most)"
    ));
    let cell = |of: Summary| format!("{:.2} ({:.2} to {:.2})", of.median, of.least, of.most);
    for (what, of) in [
        ("KiB for an idle connection", report.unused_kib),
        ("KiB for one that had a request", report.used_kib),
        ("p99 with them, us", report.with_p99_us),
        ("p99 without them, us", report.without_p99_us),
        ("ratio of p50", report.p50_ratio),
        ("ratio of p99", report.p99_ratio),
    ] {
        say(&format!("{what:<32}{}", cell(of)));
    }
}

fn verdict(args: &CrowdArgs, report: &Report) -> io::Result<ExitCode> {
    let kib = report.unused_kib.median.max(report.used_kib.median);
    for (what, found, most) in [
        ("the ratio of p99", report.p99_ratio.median, args.ratio_max),
        ("KiB for an idle connection", kib, args.kib_max),
    ] {
        if let Some(most) = most.filter(|most| found > *most) {
            return Err(io::Error::other(format!("{what}: {found:.2}, above {most}")));
        }
    }
    Ok(ExitCode::SUCCESS)
}
