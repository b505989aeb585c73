//! What a sink that takes nothing costs the senders: ack latency at a moderate rate, open loop, with
//! a sink whose port is closed and with one whose server is stopped, against no sink at all.
//!
//! A few clumps of late answers make the p99 of a run, wherever the machine stood still. So four
//! servers live at once, each with a log and an audit of its own, and are sent to in turns of a part
//! of a second: a turn of each is a block, in an order drawn anew for each block, over connections
//! that stay. What is told of all turns is told with an interval, by blocks ([`crate::resample`]),
//! and a bound holds or is broken only where all of the interval is on one side of it. Two of the
//! four have no sink: both together are what the dead ones are held against, and what they differ
//! by is a check of all of it.
//!
//! Judged is the p99 of a turn, in the median over all turns, which a stall of the machine moves as
//! far as it moves one turn. The p99 of all requests is told too: on a machine that stands still for
//! one part in a hundred it is a stall, and its interval wide.
//!
//! Whoever is not in its turn stands still (SIGSTOP), so that what a server has left to do meets its
//! own requests. What it does by the clock and not for an event is done at the start of its turn,
//! before it counts: the CPU of a request, which is that of the whole process, shows that.

mod server;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;
use hdrhistogram::iterators::IterationValue;

use self::server::{Server, Sink, Used};
use crate::args::Common;
use crate::awake::Awake;
use crate::figures::{real, say};
use crate::live::Progress;
use crate::processor;
use crate::resample::{P50, P99, Ratio, Sample, Verdict};
use crate::text;

/// How long a server is sent to before its first turn: a sink is found to be dead meanwhile.
const WARM: Duration = Duration::from_secs(5);
/// How long it is sent to at the start of each turn before it counts: its caches are those of the
/// server before, and what was due by the clock while it stood still comes first.
const LEAD: Duration = Duration::from_millis(40);
const SEED: u64 = 5;
/// The exit code of a run that cannot tell whether the bound holds.
const UNRESOLVED: u8 = 4;

/// Arguments of `drain dead`.
#[derive(Clone, Debug, Args)]
pub(crate) struct DeadArgs {
    /// Requests a second
    #[arg(long, default_value = "2k/s", value_parser = text::rate)]
    rate: f64,
    /// How long a turn is that a server is sent to
    #[arg(long = "for", value_name = "SPAN", default_value = "200ms", value_parser = text::span)]
    span: Duration,
    /// Turns of each server in a round
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    turns: u32,
    /// Rounds; each begins with new servers
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Say whether the p99 with each dead sink is below so many times that without one: exit code 1
    /// where it is not, 4 where the run cannot tell
    #[arg(long)]
    ratio_max: Option<f64>,
    /// A control: beside the dead sinks a thread works for so long on each event, on the receiver's
    /// core, and with 200us the run has to say BROKEN
    #[arg(long, value_name = "SPAN", value_parser = text::span)]
    planted: Option<Duration>,
    #[command(flatten)]
    common: Common,
}

/// A turn: to whom, in which block, and how long requests took, in nanoseconds.
type Turn = (Sink, usize, Histogram<u64>);

#[derive(Default)]
struct Measured {
    turns: Vec<Turn>,
    blocks: usize,
    used: [Used; 4],
}

/// The ratios of one sink to none.
struct Ratios {
    sink: Sink,
    /// Of the p99 of all requests.
    all: Ratio,
    /// Of the p99 of a turn.
    turn: Ratio,
}

/// Measures and prints.
pub(super) fn run(args: &DeadArgs) -> io::Result<ExitCode> {
    if args.common.place.target.is_some() {
        return Err(io::Error::other("--target: the servers of `drain dead` are its own"));
    }
    let usable = processor::usable()?;
    let _awake = Awake::start(&usable)?;
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut measured = Measured::default();
    let progress = Progress::new();
    for round in 1..=args.rounds {
        measured.round(args, &usable, &mut random, |turn| {
            let DeadArgs { rounds, turns, .. } = args;
            progress.tell(&format!("round {round} of {rounds}, turn {turn} of {turns}"));
        })?;
    }
    drop(progress);
    let DeadArgs { rate, span, turns, rounds, .. } = args;
    let planted = args.planted.map_or_else(String::new, |planted| {
        format!("; {planted:?} of work planted on each event beside the dead sinks")
    });
    say(&format!(
        "{rounds} rounds of {turns} turns of {span:?} for each server at {rate:.0} requests/s; every \
         request was acknowledged and is in the log once{planted}"
    ));
    let ratios = measured.table();
    let Some(bound) = args.ratio_max else { return Ok(ExitCode::SUCCESS) };
    told(&ratios, bound)
}

impl Measured {
    /// New servers, a turn of each in every block.
    fn round(
        &mut self,
        args: &DeadArgs,
        usable: &[usize],
        random: &mut fastrand::Rng,
        told: impl Fn(u32),
    ) -> io::Result<()> {
        told(0);
        let mut servers = Vec::new();
        for sink in Sink::ALL {
            servers.push(Server::start(args, sink, usable)?);
        }
        let mut order = [0, 1, 2, 3];
        for turn in 1..=args.turns {
            told(turn);
            // Whoever goes first meets another machine than who goes last.
            random.shuffle(&mut order);
            for kind in order {
                let latencies = servers[kind].turn(args)?;
                self.turns.push((Sink::ALL[kind], self.blocks, latencies));
            }
            self.blocks += 1;
        }
        for (server, used) in servers.into_iter().zip(&mut self.used) {
            let of_round = server.end()?;
            used.requests += of_round.requests;
            used.cpu += of_round.cpu;
        }
        Ok(())
    }

    /// All requests of whom it is wanted.
    fn all(&self, wanted: impl Fn(Sink) -> bool) -> Sample {
        let turns = self.turns.iter().filter(|(sink, ..)| wanted(*sink));
        let values = turns.flat_map(|(_, block, turn)| {
            let steps = turn.iter_recorded();
            let step =
                |step: IterationValue<u64>| (step.value_iterated_to(), step.count_at_value());
            steps.map(step).map(|(latency, count)| (latency, count, *block))
        });
        Sample::of(values, self.blocks)
    }

    /// The p99 of each of their turns.
    fn by_turn(&self, wanted: impl Fn(Sink) -> bool) -> Sample {
        let turns = self.turns.iter().filter(|(sink, ..)| wanted(*sink));
        let p99 = |(_, block, turn): &Turn| (turn.value_at_quantile(0.99), 1, *block);
        Sample::of(turns.map(p99), self.blocks)
    }

    /// Prints; the ratios of all but the first.
    fn table(&self) -> Vec<Ratios> {
        say(&format!(
            "\n{:<19}{:>8}{:>14}{:>10}   {:<24}{:<26}{:<24}{}",
            "ack latency",
            "p50",
            "p99: a turn",
            "all",
            "p50 / no sink's",
            "p99 / no sink's: a turn",
            "all",
            "CPU of a request"
        ));
        let mut told = Vec::new();
        for (sink, used) in Sink::ALL.into_iter().zip(&self.used) {
            let (all, turn) = (self.all(|of| of == sink), self.by_turn(|of| of == sink));
            let mut cells = [String::new(), String::new(), String::new()];
            if sink != Sink::None {
                // What is dead is held against both that are not.
                let other = |of: Sink| of == Sink::None || (sink.is_dead() && !of.is_dead());
                let (of_all, of_turn) = (self.all(other), self.by_turn(other));
                let ratios = Ratios {
                    sink,
                    all: Ratio::of(&all, &of_all, P99),
                    turn: Ratio::of(&turn, &of_turn, P50),
                };
                let p50 = Ratio::of(&all, &of_all, P50);
                cells = [p50, ratios.turn, ratios.all].map(|ratio| ratio.to_string());
                told.push(ratios);
            }
            let us = |sample: &Sample, one_in| sample.quantile(one_in) / 1e3;
            say(&format!(
                "{:<19}{:>5.0} us{:>11.0} us{:>7.0} us   {:<24}{:<26}{:<24}{:.1} us",
                sink.name(),
                us(&all, P50),
                us(&turn, P50),
                us(&all, P99),
                cells[0],
                cells[1],
                cells[2],
                used.cpu.as_secs_f64() * 1e6 / real(used.requests.max(1))
            ));
        }
        told
    }
}

impl Ratios {
    /// The p99 of a turn decides. That of all requests, which the machine's own stalls make, has to
    /// agree only as far as it can tell: a cost that is rare and large shows there alone.
    fn verdict(&self, bound: f64) -> Verdict {
        match self.all.verdict(bound) {
            Verdict::Broken => Verdict::Broken,
            _ => self.turn.verdict(bound),
        }
    }

    /// Whether two that should be equal are not, either way.
    fn differ(&self, bound: f64) -> bool {
        self.turn.least > bound || self.turn.most < 1.0 / bound
    }
}

/// Says of each dead sink whether the bound holds.
fn told(ratios: &[Ratios], bound: f64) -> io::Result<ExitCode> {
    say("");
    for ratio in ratios {
        let name = ratio.sink.name();
        let verdict = match ratio.verdict(bound) {
            _ if !ratio.sink.is_dead() && ratio.differ(bound) => {
                "DIFFERS by more than that from the first; this run tells nothing"
            }
            _ if !ratio.sink.is_dead() => continue,
            Verdict::Holds => "HOLDS, its p99 is below",
            Verdict::Broken => "BROKEN, its p99 is above",
            Verdict::Unresolved => "NOT RESOLVED, its p99 may be either; more --turns tell more",
        };
        say(&format!("{name}, bound {bound} times: {verdict}"));
    }
    match judge(ratios, bound) {
        Verdict::Holds => Ok(ExitCode::SUCCESS),
        Verdict::Broken => {
            let text = format!("a dead sink makes the p99 more than {bound} times as long");
            Err(io::Error::other(text))
        }
        Verdict::Unresolved => Ok(ExitCode::from(UNRESOLVED)),
    }
}

/// What the dead sinks say together, if the server without one lets them.
fn judge(ratios: &[Ratios], bound: f64) -> Verdict {
    let (dead, none): (Vec<_>, Vec<_>) = ratios.iter().partition(|ratio| ratio.sink.is_dead());
    let verdicts: Vec<Verdict> = dead.iter().map(|ratio| ratio.verdict(bound)).collect();
    if none.iter().any(|ratio| ratio.differ(bound)) {
        Verdict::Unresolved
    } else if verdicts.contains(&Verdict::Broken) {
        Verdict::Broken
    } else if verdicts.iter().all(|verdict| *verdict == Verdict::Holds) {
        Verdict::Holds
    } else {
        Verdict::Unresolved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BELOW: [f64; 2] = [0.97, 1.06];
    const WITHIN: [f64; 2] = [0.99, 1.14];
    const ABOVE: [f64; 2] = [1.2, 1.4];
    const WIDE: [f64; 2] = [0.2, 9.0];

    /// Intervals of a turn and of all requests, of the server without a sink and of two dead ones.
    fn judged(intervals: [[[f64; 2]; 2]; 3]) -> Verdict {
        let sinks = [Sink::NoneAgain, Sink::Refuses, Sink::Hangs];
        let of = |[least, most]: [f64; 2]| Ratio { value: f64::midpoint(least, most), least, most };
        let ratios = sinks.into_iter().zip(intervals);
        let ratios =
            ratios.map(|(sink, [turn, all])| Ratios { sink, all: of(all), turn: of(turn) });
        judge(&ratios.collect::<Vec<_>>(), 1.1)
    }

    #[test]
    fn a_bound_holds_where_it_does_for_every_dead_sink_and_is_broken_by_one() {
        assert_eq!(judged([[BELOW, WIDE], [BELOW, WIDE], [BELOW, BELOW]]), Verdict::Holds);
        assert_eq!(judged([[WITHIN, WIDE], [BELOW, WIDE], [BELOW, WIDE]]), Verdict::Holds);
        assert_eq!(judged([[BELOW, WIDE], [BELOW, WIDE], [WITHIN, WIDE]]), Verdict::Unresolved);
        assert_eq!(judged([[BELOW, WIDE], [WITHIN, WIDE], [ABOVE, WIDE]]), Verdict::Broken);
    }

    #[test]
    fn what_is_rare_and_large_breaks_a_bound_too() {
        assert_eq!(judged([[BELOW, WIDE], [BELOW, WIDE], [BELOW, ABOVE]]), Verdict::Broken);
    }

    #[test]
    fn a_run_in_which_equal_servers_differ_tells_nothing() {
        assert_eq!(judged([[ABOVE, WIDE], [BELOW, WIDE], [ABOVE, WIDE]]), Verdict::Unresolved);
        assert_eq!(judged([[[0.7, 0.9], WIDE], [BELOW, WIDE], [BELOW, WIDE]]), Verdict::Unresolved);
    }
}
