//! The highest rate that holds a latency goal: doubled until it does not, then narrowed down.
//!
//! An open loop above the ceiling measures its own backlog and nothing else, so each trial is
//! short, and the answer is the highest rate at which every request was accepted within the goal.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::args::Common;
use crate::figures::{real, say};
use crate::live::{View, time};
use crate::schedule::{Phase, Schedule};
use crate::series::Latency;
use crate::session::{Session, Trial};
use crate::text;

/// The search ends when the best and the first bad rate are this close.
const CLOSE: f64 = 1.05;
/// More trials than these tell nothing new.
const TRIALS_MAX: usize = 24;

/// Arguments of `search`.
#[derive(Clone, Debug, Args)]
pub(crate) struct SearchArgs {
    /// The goal: 99 of 100 requests are accepted within this, from the moment they are due
    #[arg(long, value_name = "SPAN", default_value = "2ms", value_parser = text::span)]
    p99: Duration,
    /// The first rate that is tried
    #[arg(long, value_name = "RATE", default_value = "2k/s", value_parser = text::rate)]
    from: f64,
    /// The highest rate that is tried
    #[arg(long, value_name = "RATE", default_value = "1M/s", value_parser = text::rate)]
    to: f64,
    /// How long each trial is
    #[arg(long, value_name = "SPAN", default_value = "5s", value_parser = text::span)]
    each: Duration,
    #[command(flatten)]
    common: Common,
}

/// What a rate has come to.
#[derive(Clone, Copy, Debug, Serialize)]
struct Tried {
    rate: f64,
    holds: bool,
    /// Whether it was the generator that could not keep up.
    generator_late: bool,
    accepted: u64,
    due: u64,
    latency_us: Latency,
    server_cores: f64,
    generator_cores: f64,
}

#[derive(Debug, Serialize)]
struct Found {
    p99_goal_us: f64,
    /// The highest rate that holds the goal; none if not even the first does.
    rate: Option<f64>,
    /// The limit is the generator's: the server may hold more.
    generator_is_the_limit: bool,
    trials: Vec<Tried>,
}

/// Where the search stands: what holds, what does not.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    best: Option<f64>,
    bad: Option<f64>,
    most: f64,
}

impl Bounds {
    /// The rate to try after those so far; none when the answer is known.
    fn next(self, first: f64) -> Option<f64> {
        match (self.best, self.bad) {
            (None, None) => Some(first.min(self.most)),
            (Some(best), None) => (best < self.most).then(|| (best * 2.0).min(self.most)),
            // Not even the first: it is looked for below, but not without end.
            (None, Some(bad)) => (bad > first / 16.0).then_some(bad / 2.0),
            (Some(best), Some(bad)) => (bad / best > CLOSE).then(|| (best * bad).sqrt()),
        }
    }

    fn learn(&mut self, rate: f64, holds: bool) {
        if holds {
            self.best = Some(rate);
        } else {
            self.bad = Some(rate);
        }
    }
}

/// Searches and prints.
pub(crate) fn run(args: &SearchArgs) -> io::Result<ExitCode> {
    let mut session = Session::open(&args.common)?;
    let mut trials = Vec::new();
    let mut bounds = Bounds { best: None, bad: None, most: args.to };
    while let Some(rate) = bounds.next(args.from).filter(|_| trials.len() < TRIALS_MAX) {
        let schedule = Schedule::phases(vec![Phase::flat("trial", rate, args.each)]);
        let tried = tried(rate, args.p99, &session.trial(schedule, &mut View::new())?);
        if !args.common.output.json {
            tell(&tried);
        }
        bounds.learn(rate, tried.holds);
        trials.push(tried);
    }
    let limit = trials.iter().any(|tried| !tried.holds && tried.generator_late);
    let found = Found {
        p99_goal_us: args.p99.as_secs_f64() * 1e6,
        rate: bounds.best,
        generator_is_the_limit: limit,
        trials,
    };
    if args.common.output.json {
        say(&serde_json::to_string_pretty(&found).map_err(io::Error::other)?);
    } else {
        conclude(&found, args.p99);
    }
    Ok(if found.rate.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tried(rate: f64, goal: Duration, trial: &Trial) -> Tried {
    let (counts, points) = (trial.outcome.counts, &trial.series.points);
    let latency_us = Latency::of(&trial.outcome.latency);
    let whole = counts.accepted == counts.due && counts.refused + counts.broken == 0;
    let late = Latency::of(&trial.outcome.late);
    let most = |of: fn(&crate::series::Point) -> f64| points.iter().map(of).fold(0.0, f64::max);
    let goal_us = goal.as_secs_f64() * 1e6;
    Tried {
        rate,
        holds: whole && latency_us.p99 <= goal_us,
        generator_late: late.p99 > goal_us / 2.0,
        accepted: counts.accepted,
        due: counts.due,
        latency_us,
        server_cores: most(|point| point.server_cores),
        generator_cores: most(|point| point.generator_cores),
    }
}

fn tell(tried: &Tried) {
    let Tried { rate, holds, latency_us, accepted, due, .. } = tried;
    say(&format!(
        "{rate:>9.0}/s   {}   p99 {:>9}   max {:>9}   accepted {:6.2} %   cores: server {:.2}, \
         generator {:.2}{}",
        if *holds { "holds" } else { "not  " },
        time(latency_us.p99),
        time(latency_us.max),
        100.0 * real(*accepted) / real((*due).max(1)),
        tried.server_cores,
        tried.generator_cores,
        if tried.generator_late { " (the generator was late itself)" } else { "" }
    ));
}

fn conclude(found: &Found, goal: Duration) {
    let goal = time(goal.as_secs_f64() * 1e6);
    match found.rate {
        None => say(&format!("no rate that was tried holds a p99 of {goal}")),
        Some(rate) => say(&format!("the highest rate with a p99 of at most {goal}: {rate:.0}/s")),
    }
    if found.generator_is_the_limit {
        say("the generator itself was late above that: the server may hold more");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rate that the search finds where everything up to `ceiling` holds.
    fn search(first: f64, most: f64, ceiling: f64) -> (Option<f64>, usize) {
        let mut bounds = Bounds { best: None, bad: None, most };
        let mut trials = 0;
        while let Some(rate) = bounds.next(first).filter(|_| trials < TRIALS_MAX) {
            bounds.learn(rate, rate <= ceiling);
            trials += 1;
        }
        (bounds.best, trials)
    }

    #[test]
    fn the_search_comes_close_to_the_ceiling_from_below() {
        for ceiling in [1_000.0, 2_000.0, 33_333.0, 99_999.0] {
            let (found, trials) = search(2_000.0, 1e6, ceiling);
            let found = found.expect("there is a rate that holds");
            assert!(found <= ceiling && found * CLOSE >= ceiling, "{found} of {ceiling}");
            assert!(trials <= 14, "{trials}");
        }
    }

    #[test]
    fn the_search_stops_at_what_it_was_given_and_where_nothing_holds() {
        assert_eq!(search(2_000.0, 10_000.0, 1e9).0, Some(10_000.0));
        let (found, trials) = search(2_000.0, 1e6, 0.0);
        assert!(found.is_none() && trials < 8, "{trials}");
    }
}
