//! What a campaign says: progress while it runs, a summary at the end, an exit code.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use forebay_log::Clock;
use serde::Serialize;

use crate::check::Findings;
use crate::machine::Unable;

/// How many broken promises a summary spells out.
const EXAMPLES: usize = 20;
/// How many are said at once when they are found.
const SAID_MAX: u64 = 200;
/// How often progress is told at most.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Every promise held.
const EXIT_PASS: u8 = 0;
/// A promise was broken, or a negative control was not caught.
const EXIT_BROKEN: u8 = 1;
/// The harness itself failed: nothing was shown either way.
const EXIT_HARNESS: u8 = 3;
/// This machine cannot run the campaign.
const EXIT_UNABLE: u8 = 77;

/// Why a campaign ended without a verdict.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    #[error("this machine cannot run it: {0}")]
    Unable(#[from] Unable),
    #[error("the harness failed: {0}")]
    Harness(#[from] io::Error),
}

/// What a campaign has found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    campaign: &'static str,
    seed: u64,
    passed: bool,
    seconds: f64,
    figures: BTreeMap<String, u64>,
    broken_count: u64,
    broken: Vec<String>,
    #[serde(skip)]
    clock: Clock,
    #[serde(skip)]
    began: Instant,
    #[serde(skip)]
    told: Instant,
}

impl Report {
    pub(crate) fn new(campaign: &'static str, seed: u64) -> Self {
        let clock = Clock::System;
        let began = clock.monotonic();
        Self {
            campaign,
            seed,
            passed: true,
            seconds: 0.0,
            figures: BTreeMap::new(),
            broken_count: 0,
            broken: Vec::new(),
            clock,
            began,
            told: began,
        }
    }

    /// Adds to a figure.
    pub(crate) fn count(&mut self, figure: &str, more: u64) {
        *self.figures.entry(figure.to_owned()).or_default() += more;
    }

    /// Raises a figure to at least this.
    pub(crate) fn highest(&mut self, figure: &str, value: u64) {
        let entry = self.figures.entry(figure.to_owned()).or_default();
        *entry = value.max(*entry);
    }

    /// A figure, or zero.
    pub(crate) fn figure(&self, figure: &str) -> u64 {
        self.figures.get(figure).copied().unwrap_or(0)
    }

    /// A promise was broken there.
    pub(crate) fn broken(&mut self, there: &str, what: &str) {
        self.passed = false;
        self.broken_count += 1;
        let text = format!("{there}: {what}");
        if self.broken_count <= SAID_MAX {
            say(&format!("BROKEN {text}"));
        }
        if self.broken.len() < EXAMPLES {
            self.broken.push(text);
        }
    }

    /// Takes the findings of one check; true if there are none.
    pub(crate) fn take(&mut self, there: &str, findings: &Findings) -> bool {
        if !findings.is_clean() {
            self.broken(there, &findings.to_string());
        }
        findings.is_clean()
    }

    /// Tells how far the campaign has come, now and then.
    pub(crate) fn progress(&mut self, what: impl FnOnce() -> String) {
        let now = self.clock.monotonic();
        if now.saturating_duration_since(self.told) >= PROGRESS_EVERY {
            self.told = now;
            let seconds = now.saturating_duration_since(self.began).as_secs();
            say(&format!("{} {seconds} s: {}", self.campaign, what()));
        }
    }

    fn finish(&mut self) {
        let took = self.clock.monotonic().saturating_duration_since(self.began);
        self.seconds = took.as_secs_f64();
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{}: {} in {:.1} s, seed {}\n",
            self.campaign,
            if self.passed { "passed" } else { "BROKEN" },
            self.seconds,
            self.seed
        );
        let lines = self.figures.iter().map(|(name, value)| format!("  {name}: {value}\n"));
        text.extend(lines);
        text.extend(self.broken.iter().map(|broken| format!("  broken: {broken}\n")));
        text
    }
}

/// Says a line on standard error.
pub(crate) fn say(line: &str) {
    // Where standard error is gone there is nobody to tell.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints the summary and makes the exit code.
pub(crate) fn conclude(outcome: Result<Report, Stop>, json: bool) -> ExitCode {
    let mut report = match outcome {
        Ok(report) => report,
        Err(stop) => {
            say(&stop.to_string());
            return ExitCode::from(match stop {
                Stop::Unable(_) => EXIT_UNABLE,
                Stop::Harness(_) => EXIT_HARNESS,
            });
        }
    };
    report.finish();
    let text = match serde_json::to_string(&report) {
        Ok(text) if json => text + "\n",
        _ => report.text(),
    };
    let printed = io::stdout().write_all(text.as_bytes());
    match (report.passed, printed) {
        (_, Err(_)) => ExitCode::from(EXIT_HARNESS),
        (true, Ok(())) => ExitCode::from(EXIT_PASS),
        (false, Ok(())) => ExitCode::from(EXIT_BROKEN),
    }
}
