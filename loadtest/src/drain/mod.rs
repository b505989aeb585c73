//! What the drain does, measured: how fast it is beside the servers' own clients, what a dead sink
//! costs the receivers, what memory a long backlog takes, and how the limit follows a sink.

mod prepared;
mod counterpart;
mod raw;
mod throughput;
mod dead;
mod backlog;
mod limit;

use std::io;
use std::process::ExitCode;

use clap::Subcommand;

pub(crate) use prepared::drain_of;

/// The measurements.
#[derive(Debug, Subcommand)]
pub(crate) enum Measure {
    /// Events a second into NATS, Redis, PostgreSQL and files, against the raw client of each
    Throughput(throughput::ThroughputArgs),
    /// Ack latency of the receivers with a sink that refuses or hangs, against no sink
    Dead(Box<dead::DeadArgs>),
    /// Memory of a drain whose sink is away while millions of events come, and then takes them
    Backlog(backlog::BacklogArgs),
    /// The concurrency limit while a destination loses half of its capacity and gets it back
    Limit(limit::LimitArgs),
}

/// Measures and prints.
pub(crate) fn run(measure: &Measure) -> io::Result<ExitCode> {
    match measure {
        Measure::Throughput(args) => throughput::run(args),
        Measure::Dead(args) => dead::run(args),
        Measure::Backlog(args) => backlog::run(args),
        Measure::Limit(args) => limit::run(args),
    }
}
