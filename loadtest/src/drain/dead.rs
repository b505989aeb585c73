//! What a sink that takes nothing costs the senders: ack latency at a moderate rate, open loop, with
//! a sink whose port is closed and with one whose server is stopped, against no sink at all. They
//! take turns within one run, each with a server, a log and an audit of its own.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use rustix::process::Signal;

use crate::args::Common;
use crate::figures::{Summary, real, say};
use crate::foreign::{Foreign, Running};
use crate::live::View;
use crate::processor::{self, Cores};
use crate::schedule::{Phase, Schedule};
use crate::session::Session;
use crate::text;

/// Arguments of `drain dead`.
#[derive(Clone, Debug, Args)]
pub(crate) struct DeadArgs {
    /// Requests a second
    #[arg(long, default_value = "2k/s", value_parser = text::rate)]
    rate: f64,
    /// How long each server is sent to
    #[arg(long = "for", value_name = "SPAN", default_value = "10s", value_parser = text::span)]
    span: Duration,
    /// Rounds; each measures no sink and both dead ones
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Fail when the median ratio of p99 is above this
    #[arg(long)]
    ratio_max: Option<f64>,
    #[command(flatten)]
    common: Common,
}

/// What the drain meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sink {
    None,
    /// Nobody listens.
    Refuses,
    /// Connections are taken by the kernel, and nobody answers.
    Hangs,
}

impl Sink {
    const ALL: [Self; 3] = [Self::None, Self::Refuses, Self::Hangs];

    const fn name(self) -> &'static str {
        match self {
            Self::None => "no sink",
            Self::Refuses => "refused connection",
            Self::Hangs => "stopped server",
        }
    }
}

/// Ack latency of one server, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Latency {
    p50: f64,
    p99: f64,
}

/// Measures and prints.
pub(super) fn run(args: &DeadArgs) -> io::Result<ExitCode> {
    if args.common.place.target.is_some() {
        return Err(io::Error::other("--target: the servers of `drain dead` are its own"));
    }
    // A session keeps this thread on a core, where the next server must not inherit it.
    let usable = processor::usable()?;
    let mut rounds: [Vec<Latency>; 3] = Default::default();
    for round in 0..args.rounds as usize {
        for turn in 0..Sink::ALL.len() {
            let at = (round + turn) % Sink::ALL.len();
            processor::stay_on(&usable)?;
            rounds[at].push(measure(args, Sink::ALL[at])?);
        }
        let told = Sink::ALL.iter().zip(&rounds);
        let told = told.map(|(sink, of)| format!("{} {:.0} us", sink.name(), of[round].p99));
        say(&format!("round {:>2}   p99: {}", round + 1, told.collect::<Vec<_>>().join(", ")));
    }
    let (rate, span) = (args.rate, args.span);
    say(&format!(
        "\n{} rounds of {span:?} at {rate:.0} requests/s; every request was acknowledged and is in \
         the log once\n",
        args.rounds
    ));
    say(&format!(
        "{:<20}{:>10}{:>10}   {:<26}{}",
        "ack latency", "p50", "p99", "p50 / no sink's", "p99 / no sink's"
    ));
    let mut worst = 0.0_f64;
    for (sink, of) in Sink::ALL.iter().zip(&rounds) {
        let ratio = |part: fn(&Latency) -> f64| {
            Summary::of(of.iter().zip(&rounds[0]).map(|(of, none)| part(of) / part(none)))
        };
        let (p50, p99) = (ratio(|of| of.p50), ratio(|of| of.p99));
        worst = worst.max(p99.median);
        let cell = |of: Summary| format!("{:.3} ({:.3} to {:.3})", of.median, of.least, of.most);
        say(&format!(
            "{:<20}{:>7.0} us{:>7.0} us   {:<26}{}",
            sink.name(),
            Summary::of(of.iter().map(|of| of.p50)).median,
            Summary::of(of.iter().map(|of| of.p99)).median,
            cell(p50),
            cell(p99)
        ));
    }
    match args.ratio_max {
        Some(most) if worst > most => {
            Err(io::Error::other(format!("a ratio of p99 is {worst:.3}, above {most}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn measure(args: &DeadArgs, sink: Sink) -> io::Result<Latency> {
    let under = args.common.place.folder.clone().unwrap_or_else(std::env::temp_dir);
    let running = match sink {
        Sink::Hangs => Some(Running::start(Foreign::NginxReturn, Cores::choose()?, &under)?),
        Sink::None | Sink::Refuses => None,
    };
    let address = match &running {
        Some(running) => Some(running.address),
        None if sink == Sink::None => None,
        // Given back at once: nobody else takes it while this runs.
        None => Some(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?),
    };
    if let Some(running) = &running {
        processor::stay_on(&processor::usable()?)?;
        running.signal(Signal::STOP)?;
    }
    let mut common = args.common.clone();
    if let Some(address) = address {
        common.place.sinks = format!(
            "[[sink]]\nname = \"dead\"\ntimeout = \"1s\"\n[sink.http]\n\
             url = \"http://{address}/\"\nallow_private = true\n"
        );
    }
    let mut session = Session::open(&common)?;
    let schedule = Schedule::phases(vec![Phase::flat("steady", args.rate, args.span)]);
    let trial = session.trial(schedule, &mut View::new())?;
    let sent = trial.outcome.counts.sent;
    if trial.outcome.counts.accepted != sent {
        return Err(io::Error::other(format!(
            "{}: {} of {sent} requests were acknowledged",
            sink.name(),
            trial.outcome.counts.accepted
        )));
    }
    let findings = session.audit(&trial)?;
    if !findings.is_some_and(|findings| findings.sound()) {
        return Err(io::Error::other(format!("{}: the log is not what was sent", sink.name())));
    }
    let of = |quantile| real(trial.outcome.latency.value_at_quantile(quantile)) / 1e3;
    Ok(Latency { p50: of(0.5), p99: of(0.99) })
}
