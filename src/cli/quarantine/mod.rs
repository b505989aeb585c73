//! `forebay quarantine`: what was refused, whether it verifies now, and its release.
//!
//! `list`, `show` and `verify` read the files and talk to no server. `release` orders a running
//! server to do it, by way of the data folder, and opens the lanes itself where none runs. Exit
//! codes: 0 done, and all that was chosen verifies or is in its lane; 1 some of it is not, or the
//! output cannot be written; 2 wrong usage; 75 a log or server that cannot be used now; 78 a bad configuration.

mod release;
mod show;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use forebay_log::{Clock, From, Position, ReadError, Reader};

use super::when::When;
use super::{EXIT_USAGE, terminal};
use crate::config::{self, ConfigError, SourceKeys};
use crate::diagnose::{Case, Fault, Refusal, Verdict, diagnose};
use crate::quarantine::{HeldRequest, SpoolError, log_dir};
use crate::server::StartError;

const EXIT_SOME: u8 = 1;

/// What `quarantine` takes.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct QuarantineArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Action {
    /// One line for each request
    List(Choice),
    /// Requests whole, credentials as keyed digests
    Show {
        #[command(flatten)]
        choice: Choice,
        /// Raw HTTP, as `forebay verify` reads it
        #[arg(long, conflicts_with = "json")]
        http: bool,
    },
    /// Which requests verify by the configuration as it is now, judged by when they arrived
    Verify {
        #[command(flatten)]
        choice: Choice,
        /// Say of each that does not what changed it
        #[arg(long)]
        why: bool,
    },
    /// Put requests through verification and dedupe once more and into their lanes
    Release(release::ReleaseArgs),
}

/// Which requests.
#[derive(Clone, Debug, clap::Args)]
struct Choice {
    /// The configuration; else `FOREBAY_CONFIG`, else the usual place
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only requests to this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only requests that were refused for this, such as `signature_wrong`
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Only from then on: a time as 2026-11-21T18:00:00Z, or a duration before now as 2h
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    since: Option<When>,
    /// Only before then
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    until: Option<When>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Only the requests at these positions, as `list` shows them
    #[arg(value_name = "POSITION")]
    positions: Vec<Position>,
}

/// Why it did not work.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Config(Box<ConfigError>),
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{}: {error}", .dir.display())]
    Place { dir: PathBuf, error: io::Error },
    #[error("cannot start: {0}")]
    Runtime(io::Error),
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
}

impl std::convert::From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(Box::new(error))
    }
}

/// Runs the verb.
pub(super) fn run(args: &QuarantineArgs) -> ExitCode {
    let done = match &args.action {
        Action::List(choice) => print_each(choice, show::line),
        Action::Show { choice, http } => {
            print_each(choice, if *http { show::http } else { show::whole })
        }
        Action::Verify { choice, why } => verify(choice, *why),
        Action::Release(args) => release::run(args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_SOME),
        Err(Failure::Write(error)) if terminal::closed(&error) => ExitCode::SUCCESS,
        Err(Failure::Config(error)) => {
            terminal::report(&error);
            ExitCode::from(ConfigError::EXIT_CODE)
        }
        Err(error) => {
            terminal::complain(&error);
            ExitCode::from(match error {
                Failure::Usage(_) => EXIT_USAGE,
                Failure::Write(_) => EXIT_SOME,
                _ => super::EXIT_TEMPORARY,
            })
        }
    }
}

impl Choice {
    fn data_dir(&self) -> Result<PathBuf, Failure> {
        let path = config::path(self.config.as_deref());
        Ok(config::load_kept(&path, config::environment())?.data_dir)
    }

    /// Whether anything is chosen at all.
    fn narrows(&self) -> bool {
        let filters = [self.source.is_some(), self.reason.is_some(), self.since.is_some()];
        !self.positions.is_empty() || self.until.is_some() || filters.contains(&true)
    }

    /// As [`Choice::each`], and wrong usage where a position that was asked for is not among it.
    fn each_asked(
        &self,
        mut each: impl FnMut(HeldRequest) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let mut missing = self.positions.clone();
        self.each(|held| {
            missing.retain(|position| *position != held.position);
            each(held)
        })?;
        if missing.is_empty() {
            return Ok(());
        }
        let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
        Err(Failure::Usage(format!("no such request is in quarantine: {}", missing.join(", "))))
    }

    /// Calls `each` with what is chosen, oldest first. What comes while it reads is left out.
    fn each(&self, mut each: impl FnMut(HeldRequest) -> io::Result<()>) -> Result<(), Failure> {
        let dir = log_dir(&self.data_dir()?);
        // None is there before a server has made it. One that cannot be looked at is no empty one.
        if let Err(error) = std::fs::metadata(&dir) {
            return match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(Failure::Place { dir, error }),
            };
        }
        let clock = Clock::System;
        let since_ns = self.since.map_or(0, |when| when.resolve(&clock));
        let until_ns = self.until.map_or(u64::MAX, |when| when.resolve(&clock));
        let mut end = Reader::open(&dir)?;
        end.seek(From::Latest)?;
        let mut reader = Reader::open(&dir)?;
        reader.seek(From::Time(since_ns))?;
        while let Some(record) = reader.next()? {
            if record.position().offset() >= end.offset() {
                break;
            }
            let Some(held) = HeldRequest::read(&record) else { continue };
            let fits = |wanted: &Option<String>, is: &str| {
                wanted.as_ref().is_none_or(|wanted| wanted == is)
            };
            if (since_ns..until_ns).contains(&held.received_ns)
                && fits(&self.source, &held.source)
                && fits(&self.reason, &held.reason)
                && (self.positions.is_empty() || self.positions.contains(&held.position))
            {
                each(held)?;
            }
        }
        Ok(())
    }
}

/// Prints what is chosen.
fn print_each(
    choice: &Choice,
    print: fn(&mut dyn Write, &HeldRequest, bool) -> io::Result<()>,
) -> Result<bool, Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    choice.each_asked(|held| print(&mut out, &held, choice.json))?;
    out.flush()?;
    Ok(true)
}

/// Judges what is chosen by the configuration as it is now; whether all of it verifies.
fn verify(choice: &Choice, why: bool) -> Result<bool, Failure> {
    let judge = Judge::load(choice)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let (mut count, mut verified) = (0, 0);
    choice.each_asked(|held| {
        let verdict = judge.verdict(&held, why);
        count += 1;
        verified += usize::from(matches!(verdict, Verdict::Verified { .. }));
        show::verdict(&mut out, &held, &verdict, choice.json)
    })?;
    if !choice.json {
        writeln!(out, "{verified} of {count} verify now, each judged by when it arrived")?;
    }
    out.flush()?;
    Ok(verified == count)
}

/// The sources as they are configured now.
struct Judge {
    sources: Vec<SourceKeys>,
}

impl Judge {
    fn load(choice: &Choice) -> Result<Self, Failure> {
        let path = config::path(choice.config.as_deref());
        Ok(Self { sources: config::load_keys(&path, config::environment())? })
    }

    fn verdict(&self, held: &HeldRequest, why: bool) -> Verdict {
        let refused = |fault| Refusal { fault, causes: Vec::new(), tried: 0 };
        let Some(source) = self.sources.iter().find(|source| source.path == held.path()) else {
            return Verdict::Refused(refused(Fault::Rejected(crate::reject::Reject::UnknownPath)));
        };
        let case = Case {
            // One that cannot be read is none that anything was signed for.
            method: held.method.parse().unwrap_or_default(),
            target: held.target.clone(),
            headers: held.headers.clone(),
            body: held.body.clone(),
            scheme: source.scheme.clone(),
            secrets: source.secrets.clone(),
            validities: source.validities.clone(),
            settings: source.settings.clone(),
            now_ns: held.received_ns,
        };
        if why {
            return diagnose(&case, &[]);
        }
        match case.judge() {
            Ok(secret) => Verdict::Verified { secret },
            Err(fault) => Verdict::Refused(refused(fault)),
        }
    }
}
