//! One file a verb: what it takes, what it prints, what it exits with. Here the table of verbs.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 75 failed but may succeed later, 78 wrong
//! configuration; verbs that look for damage exit 3 if there is some, 4 if it keeps a lane from
//! opening.

mod bring;
mod captured;
mod check;
mod cursors;
mod dead_letters;
mod demo;
mod keys;
mod outgoing;
mod patience;
mod providers;
mod doctor;
mod place;
mod purge;
mod quarantine;
mod replay;
mod row;
mod segments;
mod secrets;
mod serve;
mod sign;
mod tail;
mod terminal;
mod verify;
mod when;
mod which;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// It failed, and trying again later may succeed (`EX_TEMPFAIL` of sysexits).
const EXIT_TEMPORARY: u8 = 75;
/// The arguments ask for something that is not there, as clap's own usage errors.
const EXIT_USAGE: u8 = 2;

/// Something that was acknowledged cannot be read, or not be trusted.
const EXIT_DAMAGE: u8 = 3;
/// A writer would refuse to open a lane.
const EXIT_BLOCKING: u8 = 4;

/// What stands below the list of verbs.
const BELOW: &str = "\
Environment:
  FOREBAY_CONFIG  The configuration, where --config does not name it
  FOREBAY_LOG     What is logged: info (the default), debug, forebay::drain=debug,info, ...
  FOREBAY_...     Any key of the configuration, as FOREBAY_RECEIVE__LISTEN

Exit codes:
  0   done, or all is well
  1   failed; of what was asked about or sent, some was refused
  2   wrong usage
  3   damage, or a machine that costs connections, latency or a promise
  4   damage or a machine with which `serve` would not start
  75  not now: in use, out of reach or without leave; trying again may succeed
  78  a mistake in the configuration";

/// Receives webhooks at the edge and never loses one that it has acknowledged.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, arg_required_else_help = true, after_help = BELOW)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Receive webhooks as the configuration says, until SIGTERM
    Serve(serve::ServeArgs),
    /// Validate the configuration and print what it comes to, without secrets
    Check(check::CheckArgs),
    /// Read events out of the log, from this or any other process
    Tail(tail::TailArgs),
    /// Tell which secrets a running server holds, and when each was last used
    Secrets(secrets::SecretsArgs),
    /// List the senders that are built in, or tell all about one
    Providers(providers::ProvidersArgs),
    /// List or remove the cursors of consumers, which retention waits for
    Cursors(cursors::CursorsArgs),
    /// Look at events that a sink refused for good, bring them once more, or give them up
    DeadLetters(dead_letters::DeadLettersArgs),
    /// Bring events of the log to a sink once more, beside live traffic
    Replay(replay::ReplayArgs),
    /// List, verify, repair or export the files of the log
    Segments(segments::SegmentsArgs),
    /// Erase the payloads of an event, a tenant or a time for good
    Purge(purge::PurgeArgs),
    /// Look at refused requests, and release them once their secret is mended
    Quarantine(quarantine::QuarantineArgs),
    /// Say whether a captured request verifies, and if not, what changed it
    Verify(verify::VerifyArgs),
    /// Print a valid request of a provider, as curl or raw HTTP
    Sign(sign::SignArgs),
    /// Try what forebay needs of this machine
    Doctor(doctor::DoctorArgs),
    /// Start a receiver on an embedded configuration and send it a short signed burst
    Demo(demo::DemoArgs),
}

/// Runs the verb that the arguments name.
pub fn run() -> ExitCode {
    match Cli::parse().verb {
        Verb::Serve(args) => serve::run(&args),
        Verb::Check(args) => check::run(&args),
        Verb::Tail(args) => tail::run(&args),
        Verb::Secrets(args) => secrets::run(&args),
        Verb::Providers(args) => providers::run(&args),
        Verb::Cursors(args) => cursors::run(&args),
        Verb::DeadLetters(args) => dead_letters::run(&args),
        Verb::Replay(args) => replay::run(&args),
        Verb::Segments(args) => segments::run(&args),
        Verb::Purge(args) => purge::run(&args),
        Verb::Quarantine(args) => quarantine::run(&args),
        Verb::Verify(args) => verify::run(&args),
        Verb::Sign(args) => sign::run(&args),
        Verb::Doctor(args) => doctor::run(&args),
        Verb::Demo(args) => demo::run(&args),
    }
}
