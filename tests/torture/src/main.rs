//! Faults for the log: arguments, a campaign, an exit code.
//!
//! Each campaign breaks one thing that a log stands on, many times over, and checks by a ledger
//! kept elsewhere that what was acknowledged is there, once, byte for byte.
//!
//! | campaign | breaks | needs |
//! |---|---|---|
//! | `selftest` | nothing of ours: shows that the block recorder sees what it should | root, FUSE, loop devices |
//! | `power` | the power, between any two flushes, and again inside recovery | the same |
//! | `disk-errors` | the nth write, flush or read of the disk, for every n | the same |
//! | `disk-full` | the room on the disk, or the limit on file sizes | root, loop devices |
//! | `kill-log` | the writing process, at any moment, and in a build with `--cfg forebay_fault` at every point named in `forebay_log::planted` | nothing |
//! | `rot` | any bit of a file, its length, its name | nothing |
//! | `dedupe` | the process that remembers events, and its files | nothing |
//! | `start` | nothing: shows what a start with a long backlog takes | disk for it |
//! | `syncs` | nothing: times the ways to bring records to the medium | nothing |
//!
//! Choices follow from `--seed`; what a file system and a scheduler make of them does not, so a
//! state that fails is kept with `--keep` rather than made again.
//!
//! Exit codes: 0 every promise held, 1 a promise was broken (or a negative control went unseen),
//! 2 wrong usage, 3 the harness itself failed, 77 this machine cannot run the campaign.
#![forbid(unsafe_code)]

mod report;
mod machine;
mod dice;
mod ledger;
mod check;
mod mount;
mod image;
mod trace;
mod recorder;
mod agent;
mod appending;
mod consuming;
mod handle;
mod bench;
mod selftest;
mod power;
mod disk_errors;
mod read_errors;
mod disk_full;
mod kill_log;
mod rot;
#[cfg(feature = "dedupe")]
mod remembering;
#[cfg(feature = "dedupe")]
mod dedupe;
#[cfg(feature = "syncs")]
mod syncs;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::mount::FileSystem;

/// Breaks what the log stands on, and checks that it keeps its word.
#[derive(Debug, Parser)]
#[command(name = "forebay-torture", version)]
struct Arguments {
    /// Prints the summary as one line of JSON.
    #[arg(long, global = true)]
    json: bool,
    /// What follows from chance follows from this.
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
    /// Keeps the disk images in which a lane was found wanting, in this folder.
    #[arg(long, global = true)]
    keep: Option<PathBuf>,
    #[command(subcommand)]
    campaign: Campaign,
}

#[derive(Debug, Subcommand)]
enum Campaign {
    /// Whether the block recorder can be believed, with a plain file.
    Selftest {
        /// Power cuts for each file system and manner of syncing.
        #[arg(long, default_value_t = 20)]
        states: usize,
        /// File systems.
        #[arg(long, value_delimiter = ',', default_values = ["ext4", "xfs"])]
        file_systems: Vec<FileSystem>,
    },
    /// Power cuts under a lane on a real file system.
    Power {
        /// States to judge on each file system.
        #[arg(long, default_value_t = 100)]
        states: u64,
        /// File systems.
        #[arg(long, value_delimiter = ',', default_values = ["ext4", "xfs"])]
        file_systems: Vec<FileSystem>,
    },
    /// A disk that fails at the nth write, flush or read, for every n.
    DiskErrors {
        /// Points of failure on each file system; all of them, if there are no more.
        #[arg(long, default_value_t = 60)]
        rounds: usize,
        /// File systems.
        #[arg(long, value_delimiter = ',', default_values = ["ext4", "xfs"])]
        file_systems: Vec<FileSystem>,
    },
    /// A disk that is full at any moment.
    DiskFull {
        /// Lanes on full disks, each place in turn.
        #[arg(long, default_value_t = 12)]
        rounds: u64,
        /// What is full.
        #[arg(long, value_delimiter = ',', default_values = ["ext4", "xfs", "tmpfs", "limit"])]
        places: Vec<disk_full::Place>,
    },
    /// Writers killed at any moment.
    KillLog {
        /// Writers to kill.
        #[arg(long, default_value_t = 50)]
        rounds: u64,
    },
    /// Flipped bits, and files cut short or gone.
    Rot {
        /// How often to do harm.
        #[arg(long, default_value_t = 1000)]
        rounds: u64,
    },
    #[cfg(feature = "dedupe")]
    /// Millions of events, through kills, restarts and lost files: each known, and once.
    Dedupe {
        /// Events to deliver; each takes about 150 bytes of disk.
        #[arg(long, default_value_t = 1_000_000)]
        keys: u64,
        #[command(flatten)]
        size: dedupe::Size,
    },
    #[cfg(feature = "dedupe")]
    /// What a start takes with a long backlog.
    Start {
        /// Length of the log in GiB.
        #[arg(long, default_value_t = 1)]
        gib: u64,
        #[command(flatten)]
        size: dedupe::Size,
    },
    #[cfg(feature = "syncs")]
    /// What it costs to bring a group of records to the medium, in each way there is.
    Syncs {
        /// A folder on the volume to measure.
        #[arg(long, default_value = ".")]
        dir: PathBuf,
        /// Groups of each size in each way.
        #[arg(long, default_value_t = 200)]
        rounds: u64,
    },
    #[cfg(feature = "dedupe")]
    /// The program under test of `dedupe` and `start`.
    #[command(name = remembering::COMMAND, hide = true)]
    Remember(remembering::Task),
    /// The program under test; started by the campaigns.
    #[command(name = handle::COMMAND, hide = true)]
    Agent(agent::Orders),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (seed, keep) = (arguments.seed, arguments.keep.as_deref());
    let outcome = match arguments.campaign {
        Campaign::Selftest { states, file_systems } => selftest::run(&file_systems, states, seed),
        Campaign::Power { states, file_systems } => power::run(&file_systems, states, seed, keep),
        Campaign::DiskErrors { rounds, file_systems } => {
            disk_errors::run(&file_systems, rounds, seed, keep)
        }
        Campaign::DiskFull { rounds, places } => disk_full::run(&places, rounds, seed),
        Campaign::KillLog { rounds } => kill_log::run(rounds, seed),
        Campaign::Rot { rounds } => rot::run(rounds, seed),
        #[cfg(feature = "dedupe")]
        Campaign::Dedupe { keys, size } => dedupe::run(keys, &size, seed),
        #[cfg(feature = "dedupe")]
        Campaign::Start { gib, size } => dedupe::start(gib, &size, seed),
        #[cfg(feature = "syncs")]
        Campaign::Syncs { dir, rounds } => syncs::run(&dir, rounds, seed),
        #[cfg(feature = "dedupe")]
        Campaign::Remember(task) => return remembering::run(&task),
        Campaign::Agent(orders) => return agent::run(&orders),
    };
    report::conclude(outcome, arguments.json)
}
