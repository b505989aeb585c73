//! Open loop at one rate against the whole line: what latency senders see.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::figures::say;
use crate::open::{self, Outcome, Schedule};
use crate::processor::{self, Cores};
use crate::requests::Signer;
use crate::target::{Ack, DriverChoice, Kind, Target, Wanted};
use crate::wire::Connections;

/// The timers of this thread may be late by no more than this; the kernel's default is 50 us.
const TIMER_SLACK_NANOS: u64 = 1_000;

/// Arguments of `steady`.
#[derive(Clone, Debug, Args)]
pub(crate) struct SteadyArgs {
    /// Requests a second.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Keep-alive connections; the most requests in flight.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    connections: u32,
    /// The preset by which requests are signed and verified.
    #[arg(long, default_value = "standard-webhooks")]
    preset: String,
    /// Bytes of a body.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    body: u32,
    /// How the server waits for its sockets.
    #[arg(long, value_enum, default_value = "auto")]
    driver: DriverChoice,
    /// What a 2xx promises.
    #[arg(long, value_enum, default_value = "written")]
    ack: Ack,
    /// Where the log is written, and removed again. Default: the folder for temporary files.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// One JSON document instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    driver: &'static str,
    ack: &'static str,
    rate: u32,
    connections: u32,
    body_bytes: u32,
    accepted: u64,
    other: u64,
    unanswered: u64,
    backlog_most: u64,
    per_second: f64,
    latency_us: Latency,
    server_cpu_us: f64,
    generator_cpu_us: f64,
    /// The generator used so much of its core that the figures say as much about it.
    generator_saturated: bool,
}

/// Quantiles, in microseconds from the moment a request was due.
#[derive(Clone, Copy, Debug, Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

/// Runs and prints.
pub(crate) fn run(args: &SteadyArgs) -> io::Result<ExitCode> {
    let cores = Cores::choose()?;
    let folder = args.folder.clone().unwrap_or_else(std::env::temp_dir);
    processor::stay_on(cores.generator)?;
    rustix::thread::set_current_timer_slack(std::num::NonZero::new(TIMER_SLACK_NANOS))?;
    let (driver, ack, core) = (args.driver, args.ack, cores.server);
    let wanted = Wanted { kind: Kind::Line, driver, ack, preset: &args.preset, core };
    let target = Target::start(wanted, &folder)?;
    let mut connections = Connections::open(target.address, args.connections as usize)?;
    let signer = Signer::new(&args.preset, args.body as usize)?;
    let schedule = Schedule::steady(args.rate, Duration::from_secs(args.seconds));
    let server_before = processor::cpu_time(target.process_id())?;
    let own_before = processor::cpu_time(std::process::id())?;
    let outcome = open::drive(&mut connections, &signer, schedule)?;
    let server = processor::cpu_time(target.process_id())?.saturating_sub(server_before);
    let own = processor::cpu_time(std::process::id())?.saturating_sub(own_before);

    let report = report(args, &outcome, server, own);
    if args.json {
        say(&serde_json::to_string_pretty(&report).map_err(io::Error::other)?);
    } else {
        text(&report);
    }
    let whole = report.other == 0 && report.accepted == schedule.count;
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(args: &SteadyArgs, outcome: &Outcome, server: Duration, own: Duration) -> Report {
    #[expect(clippy::cast_precision_loss, reason = "counts and nanoseconds of one run")]
    let real = |count: u64| count as f64;
    let answered = real((outcome.accepted + outcome.other).max(1));
    let at = |quantile| real(outcome.latency.value_at_quantile(quantile)) / 1e3;
    let elapsed = outcome.elapsed.as_secs_f64();
    Report {
        driver: args.driver.resolve().name(),
        ack: args.ack.name(),
        rate: args.rate,
        connections: args.connections,
        body_bytes: args.body,
        accepted: outcome.accepted,
        other: outcome.other,
        unanswered: outcome.unanswered,
        backlog_most: outcome.backlog_most,
        per_second: answered / elapsed,
        latency_us: Latency {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: real(outcome.latency.max()) / 1e3,
        },
        server_cpu_us: server.as_secs_f64() * 1e6 / answered,
        generator_cpu_us: own.as_secs_f64() * 1e6 / answered,
        generator_saturated: own.as_secs_f64() > 0.9 * elapsed,
    }
}

fn text(report: &Report) {
    let Report { driver, ack, rate, connections, body_bytes, .. } = report;
    say(&format!(
        "{rate}/s due, {:.0}/s answered, {connections} connections, {body_bytes} B bodies, \
         driver {driver}, ack {ack}",
        report.per_second
    ));
    say(&format!(
        "answers: {} by 200, {} by something else, {} missing; at most {} waited for a connection",
        report.accepted, report.other, report.unanswered, report.backlog_most
    ));
    let Latency { p50, p90, p99, p999, max } = report.latency_us;
    say(&format!(
        "latency from the moment due: p50 {p50:.0} us, p90 {p90:.0} us, p99 {p99:.0} us, \
         p99.9 {p999:.0} us, max {max:.0} us"
    ));
    say(&format!(
        "CPU for a request: server {:.2} us, generator {:.2} us{}",
        report.server_cpu_us,
        report.generator_cpu_us,
        if report.generator_saturated { " (SATURATED: use a lower rate)" } else { "" }
    ));
}
