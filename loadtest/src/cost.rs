//! What a request costs: CPU time of the whole line against bare hyper on the same driver.
//!
//! Times on a shared machine drift within minutes, so the two alternate within one run and the
//! figure is their ratio. Each server is one process with one receiver on one core, the generator
//! stays on another; requests are signed in advance, so the generator only copies bytes. Every
//! answer has to be 200, or the figure counts for nothing.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use forebay_log::Clock;
use serde::Serialize;

use crate::closed::{self, Outcome};
use crate::figures::{Summary, say};
use crate::processor::{self, Cores};
use crate::requests::{Pool, Sender, Signer};
use crate::target::{Ack, DriverChoice, Kind, Target, Wanted};
use crate::wire::{Connections, Remote};

/// After its start a server may still be preparing pages; its measurement waits for that.
const SETTLE: Duration = Duration::from_millis(300);

/// Arguments of `cost`.
#[derive(Clone, Debug, Args)]
pub(crate) struct CostArgs {
    /// Rounds; each measures both servers.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Requests measured in each round, for each server; a tenth more goes before, unmeasured.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(100..=2_000_000))]
    requests: u32,
    /// Keep-alive connections.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    connections: u32,
    /// The preset by which requests are signed and verified.
    #[arg(long, default_value = "standard-webhooks")]
    preset: String,
    /// Bytes of a body.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    body: u32,
    /// How both servers wait for their sockets.
    #[arg(long, value_enum, default_value = "auto")]
    driver: DriverChoice,
    /// What the line's 2xx promises.
    #[arg(long, value_enum, default_value = "written")]
    ack: Ack,
    /// Fail when the median ratio of line to bare is above this.
    #[arg(long)]
    ratio_max: Option<f64>,
    /// Where the logs are written, and removed again. Default: the folder for temporary files.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// One JSON document instead of a table.
    #[arg(long)]
    json: bool,
}

/// One server in one round; times in microseconds for a request.
#[derive(Clone, Debug, Serialize)]
struct Measured {
    cpu_us: f64,
    user_us: f64,
    system_us: f64,
    per_second: f64,
    generator_us: f64,
    threads_us: BTreeMap<String, f64>,
}

#[derive(Clone, Debug, Serialize)]
struct Round {
    line: Measured,
    bare: Measured,
}

#[derive(Debug, Serialize)]
struct Report {
    driver: &'static str,
    ack: &'static str,
    preset: String,
    requests: u32,
    connections: u32,
    body_bytes: u32,
    server_core: usize,
    generator_core: usize,
    line_cpu_us: Summary,
    bare_cpu_us: Summary,
    line_per_second: Summary,
    bare_per_second: Summary,
    generator_cpu_us: Summary,
    ratio: Summary,
    ratio_of_leasts: f64,
    rounds: Vec<Round>,
}

/// Measures and prints.
pub(crate) fn run(args: &CostArgs) -> io::Result<ExitCode> {
    let cores = Cores::choose()?;
    let folder = args.folder.clone().unwrap_or_else(std::env::temp_dir);
    let measured = args.requests as usize;
    let warm = measured / 10;
    let signer =
        Signer::new(Sender::own(&args.preset)?, args.body as usize, Clock::System.wall_ns())?;
    let pool = Pool::new(&signer, warm + measured)?;
    processor::stay_on(&[cores.generator])?;
    let mut rounds = Vec::new();
    for round in 0..args.rounds {
        let measure = |kind| measure(args, kind, &pool, cores, &folder);
        // Whoever goes first meets another machine than who goes second; so they take turns.
        let (line, bare) = if round % 2 == 0 {
            let line = measure(Kind::Line)?;
            (line, measure(Kind::Bare)?)
        } else {
            let bare = measure(Kind::Bare)?;
            (measure(Kind::Line)?, bare)
        };
        if !args.json {
            say(&format!(
                "round {:>2}   line {:6.2} us   bare {:6.2} us   ratio {:.3}",
                round + 1,
                line.cpu_us,
                bare.cpu_us,
                line.cpu_us / bare.cpu_us
            ));
        }
        rounds.push(Round { line, bare });
    }
    let report = report(args, cores, rounds);
    if args.json {
        say(&serde_json::to_string_pretty(&report).map_err(io::Error::other)?);
    } else {
        table(&report, cores);
    }
    let above = args.ratio_max.is_some_and(|most| report.ratio.median > most);
    if above && !args.json {
        say(&format!("the ratio is above {}", args.ratio_max.unwrap_or_default()));
    }
    Ok(if above { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn measure(
    args: &CostArgs,
    kind: Kind,
    pool: &Pool,
    cores: Cores,
    folder: &std::path::Path,
) -> io::Result<Measured> {
    let wanted = Wanted {
        kind,
        driver: args.driver,
        ack: args.ack,
        senders: vec![Sender::own(&args.preset)?],
        cores: vec![cores.server],
        // Requests are signed before the first round, so the last may be old.
        tolerance: Some("1h"),
        idle: "15s",
        sinks: String::new(),
    };
    let target = Target::start(wanted, folder)?;
    let remote = Remote { address: target.address, tls: None };
    let mut connections = Connections::open(remote, args.connections as usize)?;
    let measured = args.requests as usize;
    let warm = pool.len() - measured;
    let warmed = closed::drive(&mut connections, pool, 0, warm)?;
    all_accepted(kind, warmed, warm)?;
    std::thread::sleep(SETTLE);

    let process = target.process_id();
    let before = processor::cpu_of_threads(process)?;
    let (user_before, system_before) = processor::cpu_parts(process)?;
    let own_before = processor::cpu_time(std::process::id())?;
    let outcome = closed::drive(&mut connections, pool, warm, pool.len())?;
    let after = processor::cpu_of_threads(process)?;
    let (user, system) = processor::cpu_parts(process)?;
    let own = processor::cpu_time(std::process::id())?.saturating_sub(own_before);
    all_accepted(kind, outcome, measured)?;

    let each = |span: Duration| span.as_secs_f64() * 1e6 / f64::from(args.requests);
    let spent = |(name, total): (String, Duration)| {
        let start = before.get(&name).copied().unwrap_or_default();
        (name, each(total.saturating_sub(start)))
    };
    let threads_us: BTreeMap<String, f64> = after.into_iter().map(spent).collect();
    Ok(Measured {
        cpu_us: threads_us.values().sum(),
        user_us: each(user.saturating_sub(user_before)),
        system_us: each(system.saturating_sub(system_before)),
        per_second: f64::from(args.requests) / outcome.elapsed.as_secs_f64(),
        generator_us: each(own),
        threads_us,
    })
}

fn all_accepted(kind: Kind, outcome: Outcome, expected: usize) -> io::Result<()> {
    if outcome.accepted == expected && outcome.other == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{kind:?}: {} of {expected} were answered by 200, {} by something else",
        outcome.accepted, outcome.other
    )))
}

fn report(args: &CostArgs, cores: Cores, rounds: Vec<Round>) -> Report {
    let line = |of: fn(&Measured) -> f64| Summary::of(rounds.iter().map(|round| of(&round.line)));
    let bare = |of: fn(&Measured) -> f64| Summary::of(rounds.iter().map(|round| of(&round.bare)));
    let (line_cpu_us, bare_cpu_us) = (line(|each| each.cpu_us), bare(|each| each.cpu_us));
    Report {
        driver: args.driver.resolve().name(),
        ack: args.ack.name(),
        preset: args.preset.clone(),
        requests: args.requests,
        connections: args.connections,
        body_bytes: args.body,
        server_core: cores.server,
        generator_core: cores.generator,
        line_cpu_us,
        bare_cpu_us,
        line_per_second: line(|each| each.per_second),
        bare_per_second: bare(|each| each.per_second),
        generator_cpu_us: line(|each| each.generator_us),
        ratio: Summary::of(rounds.iter().map(|each| each.line.cpu_us / each.bare.cpu_us)),
        ratio_of_leasts: line_cpu_us.least / bare_cpu_us.least,
        rounds,
    }
}

fn table(report: &Report, cores: Cores) {
    let Report { driver, ack, requests, connections, body_bytes, preset, .. } = report;
    say(&format!(
        "\n{} rounds of {requests} requests, {connections} connections, {preset}, {body_bytes} B bodies, \
         driver {driver}, ack {ack}\nserver on core {}, generator on core {}{}\n",
        report.rounds.len(),
        report.server_core,
        report.generator_core,
        if cores.shared() { " (the same one: throughput means little)" } else { "" },
    ));
    say("        CPU us/request               user  system   requests/s");
    say("        median   least  spread     median  median       median    most");
    let line = |of: fn(&Measured) -> f64| Summary::of(report.rounds.iter().map(|r| of(&r.line)));
    let bare = |of: fn(&Measured) -> f64| Summary::of(report.rounds.iter().map(|r| of(&r.bare)));
    let (user, system) = (|each: &Measured| each.user_us, |each: &Measured| each.system_us);
    row("line", report.line_cpu_us, [line(user), line(system)], report.line_per_second);
    row("bare", report.bare_cpu_us, [bare(user), bare(system)], report.bare_per_second);
    for (name, spent) in threads(&report.rounds) {
        say(&format!("of the line, thread {name}: {spent:.2} us/request"));
    }
    say(&format!(
        "\nratio line/bare: median {:.3} ({:.3} to {:.3}), of the leasts {:.3}; \
         generator {:.2} us/request",
        report.ratio.median,
        report.ratio.least,
        report.ratio.most,
        report.ratio_of_leasts,
        report.generator_cpu_us.median
    ));
}

fn row(name: &str, cpu: Summary, [user, system]: [Summary; 2], rate: Summary) {
    say(&format!(
        "{name}   {:8.2} {:7.2} {:6.1} %   {:8.2} {:7.2}   {:10.0} {:7.0}",
        cpu.median,
        cpu.least,
        cpu.spread * 100.0,
        user.median,
        system.median,
        rate.median,
        rate.most
    ));
}

/// The median of each thread of the line that shows at two decimals.
fn threads(rounds: &[Round]) -> Vec<(String, f64)> {
    let names = rounds.first().into_iter().flat_map(|round| round.line.threads_us.keys());
    let spent = |name: &String| {
        let of = |round: &Round| round.line.threads_us.get(name).copied().unwrap_or_default();
        (name.clone(), Summary::of(rounds.iter().map(of)).median)
    };
    names.map(spent).filter(|(_, spent)| *spent >= 0.005).collect()
}
