//! What others cost on the same load: forebay's whole line, nginx and Redis against bare hyper.
//!
//! As in `cost`, all servers take turns within one run, each alone on one core, the generator on
//! another, and every answer has to be a 200. The figures are ratios to bare hyper in the same
//! round. The loop is closed, so a latency here is one at full load: for comparison only.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use forebay_log::Clock;
use serde::Serialize;

use crate::closed::{self, Dialect};
use crate::figures::{Summary, say};
use crate::foreign::{self, Foreign, Running};
use crate::processor::{self, Cores};
use crate::requests::{Pool, Sender, Signer};
use crate::target::{Ack, DriverChoice, Kind, Target};
use crate::weigh::server;
use crate::wire::{Connections, Remote};

/// After its start a server may still be preparing pages; its measurement waits for that.
const SETTLE: Duration = Duration::from_millis(300);
const PRESET: &str = "standard-webhooks";

/// Arguments of `peers`.
#[derive(Clone, Debug, Args)]
pub(crate) struct PeersArgs {
    /// Rounds; each measures every server.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Requests measured in each round, for each server; a tenth more goes before, unmeasured.
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    requests: u32,
    /// Keep-alive connections.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=16_000))]
    connections: u32,
    /// Bytes of a body.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    body: u32,
    /// How forebay and bare hyper wait for their sockets.
    #[arg(long, value_enum, default_value = "auto")]
    driver: DriverChoice,
    /// Where logs are written, and removed again. Default: the folder for temporary files.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// One JSON document instead of a table.
    #[arg(long)]
    json: bool,
}

/// A server to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Own(Kind),
    Foreign(Foreign),
}

impl Peer {
    /// Bare hyper first: the others are held against it.
    const ALL: [Self; 5] = [
        Self::Own(Kind::Bare),
        Self::Own(Kind::Line),
        Self::Foreign(Foreign::NginxReturn),
        Self::Foreign(Foreign::NginxLog),
        Self::Foreign(Foreign::Redis),
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Own(Kind::Bare) => "bare hyper",
            Self::Own(Kind::Line) => "forebay, written",
            Self::Own(Kind::Drain) => "forebay's drain",
            Self::Foreign(Foreign::NginxReturn) => "nginx, return 200",
            Self::Foreign(Foreign::NginxLog) => "nginx, body in its log",
            Self::Foreign(Foreign::Redis) => "redis, XADD",
            Self::Foreign(Foreign::Nats) => "nats",
            Self::Foreign(Foreign::Postgres) => "postgres",
        }
    }

    fn is_here(self) -> bool {
        match self {
            Self::Own(_) => true,
            Self::Foreign(which) => which.program().is_some(),
        }
    }
}

/// One server in one round; times in microseconds, CPU for a request.
#[derive(Clone, Copy, Debug, Serialize)]
struct Measured {
    cpu_us: f64,
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
}

/// One server over all rounds: its own figures, and as multiples of bare hyper's of the same round.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    cpu_us: Summary,
    per_second: Summary,
    p50_us: Summary,
    p99_us: Summary,
    cpu_ratio: Summary,
    per_second_ratio: Summary,
    p50_ratio: Summary,
    p99_ratio: Summary,
    /// forebay's figures as multiples of this server's.
    line_cpu_ratio: Summary,
    line_per_second_ratio: Summary,
    rounds: Vec<Measured>,
}

#[derive(Debug, Serialize)]
struct Report {
    driver: &'static str,
    requests: u32,
    connections: u32,
    body_bytes: u32,
    rounds: u32,
    server_core: usize,
    generator_core: usize,
    /// Servers that this machine does not have.
    not_run: Vec<&'static str>,
    peers: Vec<Row>,
}

/// What all measurements share.
struct Bench<'b> {
    args: &'b PeersArgs,
    cores: Cores,
    folder: &'b Path,
    http: Pool,
    redis: Pool,
}

/// Measures and prints.
pub(crate) fn run(args: &PeersArgs) -> io::Result<ExitCode> {
    let (here, missing): (Vec<Peer>, Vec<Peer>) = Peer::ALL.into_iter().partition(|p| p.is_here());
    let folder = args.folder.clone().unwrap_or_else(std::env::temp_dir);
    let bench = Bench::prepare(args, &folder)?;
    let mut rounds: Vec<Vec<Measured>> = here.iter().map(|_| Vec::new()).collect();
    for round in 0..args.rounds as usize {
        // Whoever goes first meets another machine than who goes last; so they take turns.
        for turn in 0..here.len() {
            let index = (round + turn) % here.len();
            let peer = here[index];
            let named = |error: io::Error| io::Error::other(format!("{}: {error}", peer.name()));
            rounds[index].push(bench.measure(peer).map_err(named)?);
        }
        if !args.json {
            say(&line_of(round, &here, &rounds));
        }
    }
    let report = Report {
        driver: args.driver.resolve().name(),
        requests: args.requests,
        connections: args.connections,
        body_bytes: args.body,
        rounds: args.rounds,
        server_core: bench.cores.server,
        generator_core: bench.cores.generator,
        not_run: missing.into_iter().map(Peer::name).collect(),
        peers: rows(&here, rounds),
    };
    if args.json {
        say(&serde_json::to_string_pretty(&report).map_err(io::Error::other)?);
    } else {
        table(&report, bench.cores);
    }
    Ok(ExitCode::SUCCESS)
}

/// The ratios of CPU in one round, so that somebody who waits sees something.
fn line_of(round: usize, here: &[Peer], rounds: &[Vec<Measured>]) -> String {
    let bare = rounds[0][round].cpu_us;
    let told = here.iter().zip(rounds).skip(1);
    let told = told.map(|(peer, of)| format!("{} {:.2}", peer.name(), of[round].cpu_us / bare));
    let told: Vec<String> = told.collect();
    format!(
        "round {:>2}   CPU of bare hyper {bare:.2} us; times that: {}",
        round + 1,
        told.join(", ")
    )
}

impl<'b> Bench<'b> {
    /// Signs all requests, and keeps this process on its core.
    fn prepare(args: &'b PeersArgs, folder: &'b Path) -> io::Result<Self> {
        let cores = Cores::choose()?;
        let count = (args.requests + args.requests / 10) as usize;
        let now_ns = Clock::System.wall_ns();
        let signer = Signer::new(Sender::own(PRESET)?, args.body as usize, now_ns)?;
        let http = Pool::new(&signer, count)?;
        let redis = http.reframed(foreign::xadd);
        processor::stay_on(&[cores.generator])?;
        Ok(Self { args, cores, folder, http, redis })
    }

    fn measure(&self, peer: Peer) -> io::Result<Measured> {
        match peer {
            Peer::Own(kind) => {
                let wanted = server(kind, self.args.driver, Ack::Written, PRESET, self.cores)?;
                let target = Target::start(wanted, self.folder)?;
                let remote = Remote { address: target.address, tls: None };
                let processes = || Ok(vec![target.process_id()]);
                self.drive(peer, remote, processes)
            }
            Peer::Foreign(which) => {
                let running = Running::start(which, self.cores, self.folder)?;
                let remote = Remote { address: running.address, tls: None };
                self.drive(peer, remote, || running.processes())
            }
        }
    }

    fn drive(
        &self,
        peer: Peer,
        remote: Remote,
        processes: impl Fn() -> io::Result<Vec<u32>>,
    ) -> io::Result<Measured> {
        let (pool, answer) = match peer {
            Peer::Foreign(which @ Foreign::Redis) => (&self.redis, which.answer()),
            Peer::Foreign(which) => (&self.http, which.answer()),
            Peer::Own(_) => (&self.http, crate::wire::answer as fn(&[u8]) -> _),
        };
        let measured = self.args.requests as usize;
        let warm = pool.len() - measured;
        let mut connections = Connections::open(remote, self.args.connections as usize)?;
        let warming = Dialect { answer, waits: None };
        let outcome = closed::drive_in(warming, &mut connections, pool, 0, warm)?;
        all_accepted(outcome.accepted, warm)?;
        std::thread::sleep(SETTLE);
        let processes = processes()?;
        let cpu = || processes.iter().map(|process| processor::cpu_time(*process)).sum();
        let before: Result<Duration, io::Error> = cpu();
        let before = before?;
        let mut waits = Vec::with_capacity(measured);
        let timed = Dialect { answer, waits: Some(&mut waits) };
        let outcome = closed::drive_in(timed, &mut connections, pool, warm, pool.len())?;
        let spent: Result<Duration, io::Error> = cpu();
        let spent = spent?.saturating_sub(before);
        all_accepted(outcome.accepted, measured)?;
        waits.sort_unstable();
        let micros = |span: Duration| span.as_secs_f64() * 1e6;
        let percentile = |of: usize| {
            let wait = waits.get((waits.len() * of).div_ceil(100).saturating_sub(1));
            wait.copied().map_or(0.0, micros)
        };
        Ok(Measured {
            cpu_us: micros(spent) / f64::from(self.args.requests),
            per_second: f64::from(self.args.requests) / outcome.elapsed.as_secs_f64(),
            p50_us: percentile(50),
            p99_us: percentile(99),
        })
    }
}

fn all_accepted(accepted: usize, expected: usize) -> io::Result<()> {
    if accepted == expected {
        return Ok(());
    }
    Err(io::Error::other(format!("{accepted} of {expected} were answered by 200")))
}

/// Of each round one figure over another's.
fn ratio(one: &[Measured], other: &[Measured], part: fn(&Measured) -> f64) -> Summary {
    Summary::of(one.iter().zip(other).map(|(one, other)| part(one) / part(other)))
}

/// The first of `rounds` is bare hyper's, the second forebay's.
fn rows(here: &[Peer], rounds: Vec<Vec<Measured>>) -> Vec<Row> {
    let of_place = |place: usize| rounds.get(place).cloned().unwrap_or_default();
    let (bare, line) = (of_place(0), of_place(1));
    let row = |(peer, rounds): (&Peer, Vec<Measured>)| {
        let of = |part: fn(&Measured) -> f64| Summary::of(rounds.iter().map(part));
        let cpu = |each: &Measured| each.cpu_us;
        let per_second = |each: &Measured| each.per_second;
        Row {
            name: peer.name(),
            cpu_us: of(cpu),
            per_second: of(per_second),
            p50_us: of(|each| each.p50_us),
            p99_us: of(|each| each.p99_us),
            cpu_ratio: ratio(&rounds, &bare, cpu),
            per_second_ratio: ratio(&rounds, &bare, per_second),
            p50_ratio: ratio(&rounds, &bare, |each| each.p50_us),
            p99_ratio: ratio(&rounds, &bare, |each| each.p99_us),
            line_cpu_ratio: ratio(&line, &rounds, cpu),
            line_per_second_ratio: ratio(&line, &rounds, per_second),
            rounds,
        }
    };
    here.iter().zip(rounds).map(row).collect()
}

fn table(report: &Report, cores: Cores) {
    let Report { driver, requests, connections, body_bytes, rounds, .. } = report;
    say(&format!(
        "\n{rounds} rounds of {requests} requests, {connections} connections, {body_bytes} B bodies, \
         driver {driver}\nserver on core {}, generator on core {}{}\n",
        report.server_core,
        report.generator_core,
        if cores.shared() { " (the same one: throughput means little)" } else { "" },
    ));
    say("times bare hyper: median (least to most)");
    say(&format!(
        "{:<24}{:<22}{:<22}{:<22}{:<22}",
        "", "CPU a request", "requests a second", "latency p50", "latency p99"
    ));
    let line = |row: &Row, cells: &[Summary]| {
        let cell = |of: &Summary| {
            format!("{:<22}", format!("{:.2} ({:.2} to {:.2})", of.median, of.least, of.most))
        };
        say(&format!("{:<24}{}", row.name, cells.iter().map(cell).collect::<String>().trim_end()));
    };
    for row in &report.peers {
        line(row, &[row.cpu_ratio, row.per_second_ratio, row.p50_ratio, row.p99_ratio]);
    }
    say("\nforebay in times of each: CPU a request, requests a second");
    for row in report.peers.iter().filter(|row| row.name != Peer::Own(Kind::Line).name()) {
        line(row, &[row.line_cpu_ratio, row.line_per_second_ratio]);
    }
    say("\nmedians");
    for row in &report.peers {
        say(&format!(
            "{:<24}{:.2} us CPU, {:.0} requests/s, p50 {:.0} us, p99 {:.0} us",
            row.name,
            row.cpu_us.median,
            row.per_second.median,
            row.p50_us.median,
            row.p99_us.median
        ));
    }
    for name in &report.not_run {
        say(&format!(
            "{name}: not run, since this machine does not have it; loadtest/peers installs it"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_same_round() {
        let of = |cpu_us, per_second| Measured { cpu_us, per_second, p50_us: 1.0, p99_us: 2.0 };
        // The machine is twice as slow in the second round: the ratio does not see it.
        let bare = vec![of(5.0, 100.0), of(10.0, 50.0)];
        let line = vec![of(6.0, 90.0), of(12.0, 45.0)];
        let rows = rows(&Peer::ALL[..2], vec![bare, line]);
        assert!((rows[1].cpu_ratio.median - 1.2).abs() < 1e-9 && rows[1].cpu_ratio.spread < 1e-9);
        assert!((rows[1].per_second_ratio.median - 0.9).abs() < 1e-9);
        assert!((rows[0].cpu_ratio.most - 1.0).abs() < 1e-9);
        assert!((rows[0].line_per_second_ratio.median - 0.9).abs() < 1e-9);
        assert!((rows[1].line_cpu_ratio.most - 1.0).abs() < 1e-9);
    }
}
