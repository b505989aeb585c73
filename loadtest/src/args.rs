//! What every profile takes: who sends, to where, how much of it is wrong, and what is shown.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::chaos::{self, Blow};
use crate::target::{Ack, DriverChoice};
use crate::text;

/// Arguments of every profile.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) load: Load,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// The server.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct Place {
    /// A running server; `{sender}` in the path stands for the sender's name. Default: a server of
    /// this tool's own, in a folder that is removed again
    #[arg(long, value_name = "URL")]
    pub(crate) target: Option<String>,
    /// A sender's secret at the target, as `stripe=whsec_..`, `stripe=env:NAME` or
    /// `stripe=file:PATH`
    #[arg(long, value_name = "SENDER=SECRET", value_parser = text::pair, requires = "target")]
    pub(crate) secret: Vec<(String, String)>,
    /// The public name of a sender's secret, where it has one, as LiveKit's API key
    #[arg(long, value_name = "SENDER=ID", value_parser = text::pair, requires = "target")]
    pub(crate) key_id: Vec<(String, String)>,
    /// The folder of the target's lane, to audit it after the run
    #[arg(long, value_name = "DIR", requires = "target")]
    pub(crate) log: Option<PathBuf>,
    /// The target's process on this machine, to show its CPU and memory
    #[arg(long, value_name = "PID", requires = "target")]
    pub(crate) pid: Option<u32>,
    /// Certificates to trust, as PEM, for an https target. Default: those of this machine
    #[arg(long, value_name = "FILE", requires = "target")]
    pub(crate) ca: Option<PathBuf>,
    /// How the own server waits for its sockets
    #[arg(long, value_enum, default_value = "auto", conflicts_with = "target")]
    pub(crate) driver: DriverChoice,
    /// What a 2xx of the own server promises
    #[arg(long, value_enum, default_value = "written", conflicts_with = "target")]
    pub(crate) ack: Ack,
    /// Where the own server keeps its log. Default: the folder for temporary files
    #[arg(long, value_name = "DIR", conflicts_with = "target")]
    pub(crate) folder: Option<PathBuf>,
    /// Let server and generator run on any core; by default each has its own
    #[arg(long)]
    pub(crate) unpinned: bool,
    /// What happens to the own server meanwhile: `kill9@10s` kills it and starts it again
    #[arg(long, value_name = "WHAT@WHEN", value_parser = chaos::blow, conflicts_with = "target")]
    pub(crate) chaos: Vec<Blow>,
    /// Sinks of the own server, as its configuration writes them.
    #[arg(skip)]
    pub(crate) sinks: String,
    /// Whether the own server lets a connection be idle for as long as a run takes.
    #[arg(skip)]
    pub(crate) patient: bool,
    /// What the own server wastes on each event, where a check has to notice it.
    #[arg(skip)]
    pub(crate) planted: Duration,
}

/// The senders.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Load")]
pub(crate) struct Load {
    /// Senders and their weights, as `livekit=3,stripe=1`; any preset that signs headers
    #[arg(long, value_name = "SENDER=WEIGHT,..", value_parser = text::pair, value_delimiter = ',',
          default_value = "standard-webhooks=1", conflicts_with = "preset")]
    pub(crate) mix: Vec<(String, String)>,
    /// The one sender
    #[arg(long, hide = true)]
    pub(crate) preset: Option<String>,
    /// Keep-alive connections that the senders share; the most requests in flight
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(crate) connections: u32,
    /// Bytes of a body
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) body: u32,
    /// Rooms that events are about; LiveKit sends those of one room one by one
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rooms: u32,
    /// How many times as fast the senders' retries come, and their queues get old; LiveKit drops
    /// after 30 s, so that at 1000 an answer may take 30 ms
    #[arg(long, default_value_t = 1.0, value_parser = factor)]
    pub(crate) compress: f64,
    /// How long a sender waits for an answer
    #[arg(long, default_value = "15s", value_parser = text::span)]
    pub(crate) timeout: Duration,
    /// How long the last answers and attempts may take after the last request was due
    #[arg(long, default_value = "30s", value_parser = text::span)]
    pub(crate) drain: Duration,
    /// Share of requests that bring a known event again
    #[arg(long, value_name = "SHARE", default_value = "0%", value_parser = text::share)]
    pub(crate) duplicates: f64,
    /// Share of requests whose body is not the one that was signed
    #[arg(long, value_name = "SHARE", default_value = "0%", value_parser = text::share)]
    pub(crate) forgeries: f64,
    /// Share of requests that were signed a week ago, of senders that sign a time
    #[arg(long, value_name = "SHARE", default_value = "0%", value_parser = text::share)]
    pub(crate) stale: f64,
    /// Share of requests that are no HTTP, or not signed
    #[arg(long, value_name = "SHARE", default_value = "0%", value_parser = text::share)]
    pub(crate) malformed: f64,
    /// Connections more that send nothing
    #[arg(long, value_name = "COUNT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=60_000))]
    pub(crate) idle: u32,
    /// Connections more whose requests trickle in and never end
    #[arg(long, value_name = "COUNT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=60_000))]
    pub(crate) slow: u32,
    /// Connections more that stop just before the end of a request
    #[arg(long, value_name = "COUNT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=60_000))]
    pub(crate) half_open: u32,
}

/// What is shown.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Output {
    /// One JSON document in place of the table
    #[arg(long)]
    pub(crate) json: bool,
    /// A page with plots, in one file that needs nothing else
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

/// How many times as much or as fast.
pub(crate) fn factor(text: &str) -> Result<f64, String> {
    let factor = text.parse::<f64>().map_err(|_| "is no number".to_owned())?;
    if !(1.0..=1e6).contains(&factor) {
        return Err("is a number from 1 to 1000000".to_owned());
    }
    Ok(factor)
}
