//! What a request costs: CPU time of the whole line against bare hyper on the same driver, or
//! against the line where a 2xx promises less.
//!
//! Times on a shared machine drift within minutes, so the two alternate within one run and the
//! figure is their ratio. Each server is one process with one receiver on one core, the generator
//! stays on another; requests are signed in advance, so the generator only copies bytes.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use forebay_log::Clock;
use serde::Serialize;

use crate::figures::{Summary, say};
use crate::processor::{self, Cores};
use crate::requests::{Pool, Sender, Signer};
use crate::target::{Ack, DriverChoice, Kind, Target};
use crate::weigh::{Weighed, server, weigh};

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
    /// What the line is held against.
    #[arg(long, value_enum, default_value = "bare")]
    against: Against,
    /// Fail when the median ratio of the two is above this.
    #[arg(long)]
    ratio_max: Option<f64>,
    /// Where the logs are written, and removed again. Default: the folder for temporary files.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// One JSON document instead of a table.
    #[arg(long)]
    json: bool,
}

/// The other server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Against {
    /// hyper alone, on the same driver.
    Bare,
    /// The same line, its lane at `written`.
    Written,
}

impl Against {
    const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Written => "written",
        }
    }
}

#[derive(Clone, Debug, Serialize)]
struct Round {
    line: Weighed,
    other: Weighed,
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
    against: Against,
    other_cpu_us: Summary,
    line_per_second: Summary,
    other_per_second: Summary,
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
    let own = (Kind::Line, args.ack);
    let against = match args.against {
        Against::Bare => (Kind::Bare, args.ack),
        Against::Written => (Kind::Line, Ack::Written),
    };
    let mut rounds = Vec::new();
    for round in 0..args.rounds {
        let measure = |which| measure(args, which, &pool, cores, &folder);
        // Whoever goes first meets another machine than who goes second; so they take turns.
        let (line, other) = if round % 2 == 0 {
            let line = measure(own)?;
            (line, measure(against)?)
        } else {
            let other = measure(against)?;
            (measure(own)?, other)
        };
        if !args.json {
            say(&format!(
                "round {:>2}   line {:6.2} us   {} {:6.2} us   ratio {:.3}",
                round + 1,
                line.cpu_us,
                args.against.name(),
                other.cpu_us,
                line.cpu_us / other.cpu_us
            ));
        }
        rounds.push(Round { line, other });
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
    (kind, ack): (Kind, Ack),
    pool: &Pool,
    cores: Cores,
    folder: &Path,
) -> io::Result<Weighed> {
    let target = Target::start(server(kind, args.driver, ack, &args.preset, cores)?, folder)?;
    weigh(&target, args.connections, pool, pool.len() - args.requests as usize)
}

fn report(args: &CostArgs, cores: Cores, rounds: Vec<Round>) -> Report {
    let line = |of: fn(&Weighed) -> f64| Summary::of(rounds.iter().map(|round| of(&round.line)));
    let other = |of: fn(&Weighed) -> f64| Summary::of(rounds.iter().map(|round| of(&round.other)));
    let (line_cpu_us, other_cpu_us) = (line(|each| each.cpu_us), other(|each| each.cpu_us));
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
        against: args.against,
        other_cpu_us,
        line_per_second: line(|each| each.per_second),
        other_per_second: other(|each| each.per_second),
        generator_cpu_us: line(|each| each.generator_us),
        ratio: Summary::of(rounds.iter().map(|each| each.line.cpu_us / each.other.cpu_us)),
        ratio_of_leasts: line_cpu_us.least / other_cpu_us.least,
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
    let line = |of: fn(&Weighed) -> f64| Summary::of(report.rounds.iter().map(|r| of(&r.line)));
    let other = |of: fn(&Weighed) -> f64| Summary::of(report.rounds.iter().map(|r| of(&r.other)));
    let (user, system) = (|each: &Weighed| each.user_us, |each: &Weighed| each.system_us);
    let name = report.against.name();
    row("line", report.line_cpu_us, [line(user), line(system)], report.line_per_second);
    row(name, report.other_cpu_us, [other(user), other(system)], report.other_per_second);
    for (name, spent) in threads(&report.rounds) {
        say(&format!("of the line, thread {name}: {spent:.2} us/request"));
    }
    say(&format!(
        "\nratio line/{name}: median {:.3} ({:.3} to {:.3}), of the leasts {:.3}; \
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
        "{name:<7}{:8.2} {:7.2} {:6.1} %   {:8.2} {:7.2}   {:10.0} {:7.0}",
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
