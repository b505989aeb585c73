//! One profile from its schedule to its report and its exit code.

use std::io;
use std::process::ExitCode;

use crate::args::Common;
use crate::figures::{complain, say};
use crate::live::View;
use crate::page;
use crate::report::Report;
use crate::schedule::Schedule;
use crate::session::Session;

/// The receiver has kept its word, but not everything reached it.
const EXIT_UNDELIVERED: u8 = 3;

/// Runs, audits, reports.
pub(crate) fn run(
    profile: &'static str,
    common: &Common,
    schedule: Schedule,
) -> io::Result<ExitCode> {
    let mut session = Session::open(common)?;
    let trial = session.trial(schedule, &mut View::new())?;
    let audit = session.audit(&trial)?;
    let report = Report::new(profile, common, &session, &trial, audit);
    if let Some(path) = &common.output.html {
        std::fs::write(path, page::html(&report))
            .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        complain(&format!("written: {}", path.display()));
    }
    if common.output.json {
        say(&serde_json::to_string_pretty(&report).map_err(io::Error::other)?);
    } else {
        report.table();
    }
    Ok(match (report.sound(), report.problems.is_empty()) {
        (false, _) => ExitCode::FAILURE,
        (true, false) => ExitCode::from(EXIT_UNDELIVERED),
        (true, true) => ExitCode::SUCCESS,
    })
}
