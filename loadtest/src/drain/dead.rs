//! What a sink that takes nothing costs the senders: ack latency at a moderate rate, open loop, with
//! a sink whose port is closed and with one whose server is stopped, against no sink at all.
//!
//! What is above a p99 comes in a few clumps, wherever the machine stood still for a while, so that
//! no short run tells two equal servers apart from two unequal ones. So four servers live at once,
//! each with a log and an audit of its own, and are sent to in short turns; the latencies of all
//! turns of a kind are one histogram. The fourth has no sink either: how far it is from the first
//! is what the method does not resolve. Each round has new servers, and the range is that of the
//! rounds.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;
use rustix::process::Signal;

use crate::args::Common;
use crate::figures::{Summary, real, say};
use crate::foreign::{Foreign, Running};
use crate::live::View;
use crate::processor::{self, Cores};
use crate::schedule::{Phase, Schedule};
use crate::series::histogram;
use crate::session::{Session, Trial};
use crate::text;

/// Significant digits of what is pooled.
const DIGITS: u8 = 3;

/// Arguments of `drain dead`.
#[derive(Clone, Debug, Args)]
pub(crate) struct DeadArgs {
    /// Requests a second
    #[arg(long, default_value = "2k/s", value_parser = text::rate)]
    rate: f64,
    /// How long a server is sent to in one turn
    #[arg(long = "for", value_name = "SPAN", default_value = "3s", value_parser = text::span)]
    span: Duration,
    /// Turns of each server in a round; one more goes before, unmeasured
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    turns: u32,
    /// Rounds; each begins with new servers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Fail when the ratio of p99 of a dead sink is above this, or when that of the server without
    /// one is, by which the run says nothing
    #[arg(long)]
    ratio_max: Option<f64>,
    #[command(flatten)]
    common: Common,
}

/// What the drain meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sink {
    None,
    /// As the first, to see what two equal ones differ by.
    NoneAgain,
    /// Nobody listens.
    Refuses,
    /// Connections are taken by the kernel, and nobody answers.
    Hangs,
}

impl Sink {
    const ALL: [Self; 4] = [Self::None, Self::NoneAgain, Self::Refuses, Self::Hangs];

    const fn name(self) -> &'static str {
        match self {
            Self::None => "no sink",
            Self::NoneAgain => "no sink, once more",
            Self::Refuses => "refused connection",
            Self::Hangs => "stopped server",
        }
    }
}

/// The latencies of a round by kind, in nanoseconds.
type Round = [Histogram<u64>; 4];

/// Measures and prints.
pub(super) fn run(args: &DeadArgs) -> io::Result<ExitCode> {
    if args.common.place.target.is_some() {
        return Err(io::Error::other("--target: the servers of `drain dead` are its own"));
    }
    // A session keeps this thread on a core, where the next server must not inherit it.
    let usable = processor::usable()?;
    let mut rounds = Vec::new();
    for number in 1..=args.rounds {
        let round = measure(args, &usable)?;
        let told = Sink::ALL.iter().zip(&round);
        let told = told.map(|(sink, of)| format!("{} {:.0} us", sink.name(), at(of, 0.99)));
        say(&format!("round {number:>2}   p99: {}", told.collect::<Vec<_>>().join(", ")));
        rounds.push(round);
    }
    let DeadArgs { rate, span, turns, .. } = args;
    say(&format!(
        "\n{} rounds of {turns} turns of {span:?} for each server at {rate:.0} requests/s; every \
         request was acknowledged and is in the log once\n",
        args.rounds
    ));
    let worst = table(&rounds)?;
    match args.ratio_max {
        Some(most) if worst > most => {
            Err(io::Error::other(format!("a ratio of p99 is {worst:.3}, above {most}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Prints; the largest ratio of p99.
fn table(rounds: &[Round]) -> io::Result<f64> {
    say(&format!(
        "{:<20}{:>10}{:>10}   {:<26}{}",
        "ack latency", "p50", "p99", "p50 / no sink's", "p99 / no sink's"
    ));
    let pooled = |kind: usize| {
        let mut all = histogram(DIGITS)?;
        for round in rounds {
            all.add(&round[kind]).map_err(io::Error::other)?;
        }
        io::Result::Ok(all)
    };
    let none = pooled(0)?;
    let mut worst = 0.0_f64;
    for (kind, sink) in Sink::ALL.iter().enumerate() {
        let all = pooled(kind)?;
        let cell = |quantile: f64| {
            let of_rounds = rounds.iter().map(|round| ratio(&round[kind], &round[0], quantile));
            let Summary { least, most, .. } = Summary::of(of_rounds);
            format!("{:.3} ({least:.3} to {most:.3})", ratio(&all, &none, quantile))
        };
        worst = worst.max(ratio(&all, &none, 0.99));
        say(&format!(
            "{:<20}{:>7.0} us{:>7.0} us   {:<26}{}",
            sink.name(),
            at(&all, 0.5),
            at(&all, 0.99),
            cell(0.5),
            cell(0.99)
        ));
    }
    Ok(worst)
}

/// A quantile in microseconds.
fn at(of: &Histogram<u64>, quantile: f64) -> f64 {
    real(of.value_at_quantile(quantile)) / 1e3
}

fn ratio(of: &Histogram<u64>, none: &Histogram<u64>, quantile: f64) -> f64 {
    at(of, quantile) / at(none, quantile)
}

/// A server, and what was sent to it.
struct Server {
    sink: Sink,
    session: Session,
    trials: Vec<Trial>,
    /// What the sink meets.
    _stopped: Option<Running>,
}

/// One round.
fn measure(args: &DeadArgs, usable: &[usize]) -> io::Result<Round> {
    let mut servers = Vec::new();
    for sink in Sink::ALL {
        servers.push(Server::start(args, sink, usable)?);
    }
    for turn in 0..=args.turns as usize {
        // Whoever goes first meets another machine than who goes last.
        for place in 0..Sink::ALL.len() {
            servers[(turn + place) % Sink::ALL.len()].send(args)?;
        }
    }
    let mut round = Vec::new();
    for server in servers {
        round.push(server.end()?);
    }
    round.try_into().map_err(|_| io::Error::other("not one histogram a server"))
}

impl Server {
    fn start(args: &DeadArgs, sink: Sink, usable: &[usize]) -> io::Result<Self> {
        processor::stay_on(usable)?;
        let under = args.common.place.folder.clone().unwrap_or_else(std::env::temp_dir);
        let stopped = match sink {
            Sink::Hangs => Some(Running::start(Foreign::NginxReturn, Cores::choose()?, &under)?),
            _ => None,
        };
        if let Some(stopped) = &stopped {
            // Who starts it stays on the generator's core, where the receiver must not be.
            processor::stay_on(usable)?;
            stopped.signal(Signal::STOP)?;
        }
        let address = match (sink, &stopped) {
            (_, Some(stopped)) => Some(stopped.address),
            // Given back at once: nobody else takes it while this runs.
            (Sink::Refuses, None) => {
                Some(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
            }
            _ => None,
        };
        let mut common = args.common.clone();
        common.place.sinks = address.map(section).unwrap_or_default();
        let session = Session::open(&common)?;
        Ok(Self { sink, session, trials: Vec::new(), _stopped: stopped })
    }

    /// One turn.
    fn send(&mut self, args: &DeadArgs) -> io::Result<()> {
        let schedule = Schedule::phases(vec![Phase::flat("steady", args.rate, args.span)]);
        let trial = self.session.trial(schedule, &mut View::new())?;
        let (sent, accepted) = (trial.outcome.counts.sent, trial.outcome.counts.accepted);
        if accepted != sent {
            let name = self.sink.name();
            let text = format!("{name}: {accepted} of {sent} requests were acknowledged");
            return Err(io::Error::other(text));
        }
        self.trials.push(trial);
        Ok(())
    }

    /// The latencies of all turns but the first, in which a sink is found to be dead.
    fn end(mut self) -> io::Result<Histogram<u64>> {
        let mut all = histogram(DIGITS)?;
        for (turn, trial) in self.trials.iter().enumerate() {
            let findings = self.session.audit(trial)?;
            if !findings.is_some_and(|findings| findings.sound()) {
                let name = self.sink.name();
                return Err(io::Error::other(format!("{name}: the log is not what was sent")));
            }
            if turn > 0 {
                all.add(&trial.outcome.latency).map_err(io::Error::other)?;
            }
        }
        Ok(all)
    }
}

fn section(address: SocketAddr) -> String {
    format!(
        "[[sink]]\nname = \"dead\"\ntimeout = \"1s\"\n[sink.http]\n\
         url = \"http://{address}/\"\nallow_private = true\n"
    )
}
