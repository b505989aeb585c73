//! Load for webhook receivers, from one core, with an account of every answer.
//!
//! ```text
//! cost     CPU of the whole line for one request, against bare hyper, interleaved
//! steady   open loop at a fixed rate; latency counts from the moment a request was due
//! ```
//!
//! Exit codes: 0 when all is well, 1 when an answer or a figure was not what it had to be or the
//! run failed, 2 when the arguments make no sense.
#![forbid(unsafe_code)]

mod processor;
mod requests;
mod wire;
mod closed;
mod open;
mod target;
mod figures;
mod cost;
mod steady;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Load for webhook receivers.
#[derive(Debug, Parser)]
#[command(name = "forebay-loadtest", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// CPU of the whole line for one request, against a bare hyper server on the same driver.
    Cost(cost::CostArgs),
    /// Open loop at a fixed rate.
    Steady(steady::SteadyArgs),
    /// A server of this tool's own, started by it in a process of its own.
    #[command(hide = true)]
    Target(target::TargetArgs),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Cost(args) => cost::run(&args),
        Command::Steady(args) => steady::run(&args),
        Command::Target(args) => target::run(&args).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        figures::complain(&format!("forebay-loadtest: {error}"));
        ExitCode::FAILURE
    })
}
