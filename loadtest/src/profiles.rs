//! The profiles: what each takes, and the schedule that comes of it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::args::{self, Common};
use crate::schedule::{Leaving, Phase, Schedule};
use crate::text;

/// One rate.
#[derive(Clone, Debug, Args)]
pub(crate) struct SteadyArgs {
    /// Requests a second, as `10k/s`
    #[arg(long, default_value = "10k/s", value_parser = text::rate)]
    rate: f64,
    /// How long
    #[arg(long = "for", value_name = "SPAN", default_value = "10s", value_parser = text::span)]
    span: Duration,
    /// The same in seconds
    #[arg(long, hide = true, conflicts_with = "span")]
    seconds: Option<u64>,
    #[command(flatten)]
    pub(crate) common: Common,
}

impl SteadyArgs {
    pub(crate) fn schedule(&self) -> Schedule {
        let span = self.seconds.map_or(self.span, Duration::from_secs);
        Schedule::phases(vec![Phase::flat("steady", self.rate, span)])
    }
}

/// From one rate to another.
#[derive(Clone, Debug, Args)]
pub(crate) struct RampArgs {
    /// The rate at the start
    #[arg(long, default_value = "0/s", value_parser = text::rate)]
    from: f64,
    /// The rate at the end
    #[arg(long, default_value = "20k/s", value_parser = text::rate)]
    to: f64,
    /// How long
    #[arg(long = "for", value_name = "SPAN", default_value = "30s", value_parser = text::span)]
    span: Duration,
    #[command(flatten)]
    pub(crate) common: Common,
}

impl RampArgs {
    pub(crate) fn schedule(&self) -> Schedule {
        Schedule::phases(vec![Phase::slope("ramp", [self.from, self.to], self.span)])
    }
}

/// One rate after the other.
#[derive(Clone, Debug, Args)]
pub(crate) struct StepArgs {
    /// The rates, as `5k/s,10k/s,20k/s`
    #[arg(long, value_name = "RATE,..", value_delimiter = ',', value_parser = text::rate,
          default_value = "2k/s,5k/s,10k/s,20k/s")]
    rates: Vec<f64>,
    /// How long each lasts
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = text::span)]
    each: Duration,
    #[command(flatten)]
    pub(crate) common: Common,
}

impl StepArgs {
    pub(crate) fn schedule(&self) -> Schedule {
        let phase = |rate: &f64| Phase::flat(&format!("{rate:.0}/s"), *rate, self.each);
        Schedule::phases(self.rates.iter().map(phase).collect())
    }
}

/// Many times the usual rate, all of a sudden.
#[derive(Clone, Debug, Args)]
pub(crate) struct FlashArgs {
    /// The usual rate
    #[arg(long, default_value = "500/s", value_parser = text::rate)]
    rate: f64,
    /// How many times as much it becomes
    #[arg(long, default_value_t = 50.0, value_parser = args::factor)]
    times: f64,
    /// How long it takes to rise, and to fall
    #[arg(long, value_name = "SPAN", default_value = "1s", value_parser = text::span)]
    rise: Duration,
    /// How long it is held
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = text::span)]
    hold: Duration,
    /// How long the usual rate lasts before and after
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = text::span)]
    around: Duration,
    #[command(flatten)]
    pub(crate) common: Common,
}

impl FlashArgs {
    pub(crate) fn schedule(&self) -> Schedule {
        let most = self.rate * self.times;
        Schedule::phases(vec![
            Phase::flat("usual", self.rate, self.around),
            Phase::slope("rise", [self.rate, most], self.rise),
            Phase::flat("held", most, self.hold),
            Phase::slope("fall", [most, self.rate], self.rise),
            Phase::flat("usual again", self.rate, self.around),
        ])
    }
}

/// Rooms end, all at the same moment.
#[derive(Clone, Debug, Args)]
pub(crate) struct MassLeaveArgs {
    /// The rate of everything else
    #[arg(long, default_value = "500/s", value_parser = text::rate)]
    rate: f64,
    /// Participants that leave
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    participants: u32,
    /// Rooms that they are in; LiveKit's sender itself drops what waits behind 200 of one room
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    ending_rooms: u32,
    /// When they leave
    #[arg(long, value_name = "MOMENT", default_value = "5s", value_parser = text::span)]
    at: Duration,
    /// How long the run is
    #[arg(long = "for", value_name = "SPAN", default_value = "20s", value_parser = text::span)]
    span: Duration,
    #[command(flatten)]
    pub(crate) common: Common,
}

impl MassLeaveArgs {
    pub(crate) fn schedule(&self) -> Schedule {
        let (participants, rooms) = (self.participants, self.ending_rooms);
        Schedule::phases(vec![Phase::flat("usual", self.rate, self.span)]).with_leaving(Leaving {
            at: self.at,
            participants,
            rooms,
        })
    }
}

/// What has happened before.
#[derive(Clone, Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Arrival times: one a line, in seconds, or rows of `forebay tail --json`
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How many times as fast
    #[arg(long, default_value_t = 1.0, value_parser = speed)]
    speed: f64,
    #[command(flatten)]
    pub(crate) common: Common,
}

impl ReplayArgs {
    pub(crate) fn schedule(&self) -> io::Result<Schedule> {
        Schedule::read(&self.file, self.speed)
    }
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse::<f64>().map_err(|_| "is no number".to_owned())?;
    if !(0.001..=1e6).contains(&speed) {
        return Err("is a number from 0.001 to 1000000".to_owned());
    }
    Ok(speed)
}
