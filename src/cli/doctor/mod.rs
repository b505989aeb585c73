//! `forebay doctor`: whether this machine suits forebay, and what to change.
//!
//! ```text
//! facts: what the machine is  ->  judge: findings, each with its cure  ->  a table, or JSON
//! ```
//!
//! Looks and changes nothing; the folder `tuning` of the repository changes. Exit codes: 0 it suits,
//! whatever is noted; 3 something costs connections, latency or promises; 4 `serve` would not start,
//! or would take nothing; 1 the output cannot be written, 2 wrong usage, 78 wrong configuration.
//! `forebay doctor disk PATH` tries a volume.

mod disk;
mod facts;
mod judge;

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use self::facts::Facts;
use self::judge::{Finding, Grade};
use super::{EXIT_BLOCKING, EXIT_DAMAGE, terminal};
use crate::config::{self, ConfigError, Site};

/// What `doctor` takes.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct DoctorArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The configuration whose data folder, receivers and ports are looked at; else
    /// `FOREBAY_CONFIG`, else the usual place, if there is one
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Try the volume of a folder: which ack level it can carry, why, and what to change
    Disk(disk::DiskArgs),
}

/// Runs the verb.
pub(super) fn run(args: &DoctorArgs) -> ExitCode {
    if let Some(Verb::Disk(args)) = &args.verb {
        return disk::run(args);
    }
    let site = match site(args.config.as_deref()) {
        Ok(site) => site,
        Err(error) => {
            terminal::report(&error);
            return ExitCode::from(ConfigError::EXIT_CODE);
        }
    };
    let findings = judge::judge(&Facts::gather(site.as_ref()));
    let text = if args.json {
        format!("{:#}\n", json_of(&findings))
    } else {
        text_of(&findings, terminal::coloured(&io::stdout()))
    };
    terminal::print(text.as_bytes(), exit_code(worst(&findings)))
}

/// The configuration; none where nobody named one and the usual place has none.
fn site(flag: Option<&Path>) -> Result<Option<Site>, ConfigError> {
    let path = config::path(flag);
    let named = flag.is_some() || std::env::var_os("FOREBAY_CONFIG").is_some();
    if !named && !path.exists() {
        return Ok(None);
    }
    config::load_site(&path, config::environment()).map(Some)
}

fn worst(findings: &[Finding]) -> Grade {
    findings.iter().map(|finding| finding.grade).max().unwrap_or(Grade::Good)
}

fn exit_code(worst: Grade) -> u8 {
    match worst {
        Grade::Good | Grade::Note => 0,
        Grade::Warning => EXIT_DAMAGE,
        Grade::Fault => EXIT_BLOCKING,
    }
}

fn json_of(findings: &[Finding]) -> Value {
    let row = |finding: &Finding| {
        let Finding { check, grade, found, cure } = finding;
        json!({ "check": check, "grade": grade.name(), "found": found, "cure": cure })
    };
    json!({
        "worst": worst(findings).name(),
        "findings": findings.iter().map(row).collect::<Vec<_>>(),
    })
}

fn text_of(findings: &[Finding], coloured: bool) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { check, grade, found, cure } in findings {
        let (name, colour) = (grade.name(), grade.colour());
        let (on, off) = if coloured { (colour, "\x1b[0m") } else { ("", "") };
        // Writing to a String cannot fail.
        _ = writeln!(text, "  {on}{name:<7}{off}  {check:<width$}  {found}");
        if let Some(cure) = cure {
            _ = writeln!(text, "  {:<7}  {:<width$}  cure: {cure}", "", "");
        }
    }
    let count = |grade| findings.iter().filter(|finding| finding.grade == grade).count();
    let counts = [Grade::Fault, Grade::Warning, Grade::Note].map(count);
    let [faults, warnings, notes] = counts;
    _ = writeln!(text, "\nfaults: {faults}, warnings: {warnings}, notes: {notes}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(grade: Grade) -> Finding {
        let cure = (grade > Grade::Good).then(|| "do it".to_owned());
        Finding { check: "kernel".to_owned(), grade, found: "Linux".to_owned(), cure }
    }

    #[test]
    fn the_worst_finding_decides_the_exit_code() {
        let code = |grades: &[Grade]| {
            let findings: Vec<Finding> = grades.iter().map(|grade| finding(*grade)).collect();
            exit_code(worst(&findings))
        };
        assert_eq!(code(&[]), 0);
        assert_eq!(code(&[Grade::Good, Grade::Note]), 0);
        assert_eq!(code(&[Grade::Warning, Grade::Note]), 3);
        assert_eq!(code(&[Grade::Warning, Grade::Fault, Grade::Good]), 4);
    }

    #[test]
    fn a_person_and_a_script_are_told_the_same() {
        let findings = [finding(Grade::Good), finding(Grade::Fault)];
        let text = text_of(&findings, false);
        assert_eq!(text.matches("cure: do it").count(), 1, "{text}");
        assert!(text.contains("faults: 1, warnings: 0, notes: 0") && !text.contains('\x1b'));
        assert!(text_of(&findings, true).contains("\x1b[31mfault  \x1b[0m"));
        let json = json_of(&findings);
        assert_eq!((&json["worst"], &json["findings"][0]["cure"]), (&json!("fault"), &Value::Null));
        assert_eq!(json["findings"][1]["cure"], "do it");
    }
}
