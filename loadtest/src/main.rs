//! Load for webhook receivers, open loop, with an account of every answer and an audit of the log.
//!
//! ```text
//! args, profiles -> schedule -> traffic -> outbox -> open loop -> wire
//!                   moments     drafts     senders'    |
//!                                          habits      +--> ledger, series -> audit -> report
//! ```
//!
//! Exit codes: 0 when all is well; 1 when the receiver has broken its word, a figure was not what
//! it had to be or the run failed; 2 when the arguments make no sense; 3 when the receiver has kept
//! its word, but not every event was acknowledged; 4 when a run was too short, or the machine too
//! restless, to say whether a figure is what it has to be.
#![forbid(unsafe_code)]

mod text;
mod args;
mod profiles;
mod schedule;
mod processor;
mod machine;
mod habits;
mod requests;
mod traffic;
mod outbox;
mod tls;
mod wire;
mod closed;
mod open;
mod bystanders;
mod chaos;
mod ledger;
mod audit;
mod series;
mod live;
mod target;
mod session;
mod turns;
mod awake;
mod figures;
mod resample;
mod report;
mod plot;
mod page;
mod perform;
mod search;
mod weigh;
mod cost;
mod curves;
mod crowd;
mod foreign;
mod peers;
mod drain;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Load for webhook receivers: open loop, signed as the senders do, and audited.
///
/// Without --target each profile starts a forebay of its own in a temporary folder, so that one
/// command works. Latency counts from the moment a request was due, whatever the server does.
#[derive(Debug, Parser)]
#[command(name = "forebay-loadtest", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One rate
    Steady(Box<profiles::SteadyArgs>),
    /// From one rate to another
    Ramp(Box<profiles::RampArgs>),
    /// One rate after the other
    Step(Box<profiles::StepArgs>),
    /// Many times the usual rate within a second, held, and back
    Flash(Box<profiles::FlashArgs>),
    /// Large rooms end: everybody leaves at the same moment
    MassLeave(Box<profiles::MassLeaveArgs>),
    /// Recorded arrival times
    Replay(Box<profiles::ReplayArgs>),
    /// The highest rate that holds a latency goal
    Search(Box<search::SearchArgs>),
    /// CPU of the whole line for one request, against a bare hyper server or against `written`
    Cost(cost::CostArgs),
    /// CPU of a request as bodies, connections, the dedupe window and the log grow
    CostCurves(curves::CurvesArgs),
    /// Thousands of idle connections: their memory, and what they cost those that are busy
    Crowd(Box<crowd::CrowdArgs>),
    /// CPU, throughput and latency of forebay, nginx and Redis against a bare hyper server
    Peers(peers::PeersArgs),
    /// What the drain does: throughput, a dead sink, memory, the adapting limit
    #[command(subcommand)]
    Drain(drain::Measure),
    /// A server of this tool's own, started by it in a process of its own.
    #[command(hide = true)]
    Target(target::TargetArgs),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Steady(args) => perform::run("steady", &args.common, args.schedule()),
        Command::Ramp(args) => perform::run("ramp", &args.common, args.schedule()),
        Command::Step(args) => perform::run("step", &args.common, args.schedule()),
        Command::Flash(args) => perform::run("flash", &args.common, args.schedule()),
        Command::MassLeave(args) => perform::run("mass-leave", &args.common, args.schedule()),
        Command::Replay(args) => {
            args.schedule().and_then(|schedule| perform::run("replay", &args.common, schedule))
        }
        Command::Search(args) => search::run(&args),
        Command::Cost(args) => cost::run(&args),
        Command::CostCurves(args) => curves::run(&args),
        Command::Crowd(args) => crowd::run(&args),
        Command::Peers(args) => peers::run(&args),
        Command::Drain(measure) => drain::run(&measure),
        Command::Target(args) => target::run(&args).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        figures::complain(&format!("forebay-loadtest: {error}"));
        ExitCode::FAILURE
    })
}
