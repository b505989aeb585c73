//! `forebay verify`: does a captured request verify, and if not, which layer changed it?
//!
//! Talks to no server and reads no log. Exit codes: 0 it verifies, 1 it does not, 2 wrong usage or
//! a capture that cannot be read, 78 a bad configuration.

use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use forebay_log::Clock;
use http::Method;
use serde_json::{Value, json};

use super::captured::Captured;
use super::keys::{self, SecretArgs};
use super::when::{When, second_text};
use super::{EXIT_USAGE, outgoing, terminal};
use crate::config::{self, ConfigError};
use crate::diagnose::{Case, Cause, Fault, Others, Refusal, Verdict, diagnose};
use crate::limits::BODY_BYTES_LIMIT;
use crate::verify::{NamedSecret, SchemeSpec, Settings, Validity};

/// The largest capture: a body with its head.
const CAPTURE_BYTES_MAX: u64 = 2 * BODY_BYTES_LIMIT;
const EXIT_REFUSED: u8 = 1;

/// What `verify` takes.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// The preset that the request should verify by
    #[arg(
        long,
        value_name = "NAME",
        required_unless_present = "source",
        conflicts_with = "source"
    )]
    provider: Option<String>,
    #[command(flatten)]
    secrets: SecretArgs,
    /// The configuration that --source is in; else `FOREBAY_CONFIG`, else the usual place
    #[arg(short, long, value_name = "FILE", requires = "source", conflicts_with = "provider")]
    config: Option<PathBuf>,
    /// A configured source, in place of --provider and its secret
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with_all = ["secret", "secret_env", "secret_file", "key_id", "params"]
    )]
    source: Option<String>,
    /// When the request arrived: a time as 2026-11-21T18:00:00Z, or a duration before now as 2h
    #[arg(long, value_name = "TIME", value_parser = When::parse, default_value = "0s")]
    at: When,
    /// How far a signed timestamp may be off, in place of the preset's tolerance
    #[arg(long, value_name = "DURATION", value_parser = config::parse_duration)]
    tolerance: Option<Duration>,
    /// The URL that the sender called, for schemes that sign it; default: https and the Host header
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A header as "name: value"; with one of these, standard input is not read as raw HTTP
    #[arg(long = "header", short = 'H', value_name = "HEADER")]
    headers: Vec<String>,
    /// The body's file; `-` is standard input
    #[arg(long, value_name = "FILE")]
    body_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Why nothing was judged.
enum Failure {
    Config(ConfigError),
    Usage(String),
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Usage(message)
    }
}

/// Runs the verb.
pub(super) fn run(args: &VerifyArgs) -> ExitCode {
    let outcome = captured(args)
        .map_err(Failure::from)
        .and_then(|captured| Ok((judge(args, &captured)?, captured)));
    let (judged, captured) = match outcome {
        Ok(judged) => judged,
        Err(Failure::Config(error)) => {
            terminal::report(&error);
            return ExitCode::from(ConfigError::EXIT_CODE);
        }
        Err(Failure::Usage(message)) => {
            terminal::complain(&io::Error::other(message));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let (verdict, now_ns) = judged;
    let text = if args.json {
        format!("{:#}\n", as_json(&verdict, now_ns, &captured.notes))
    } else {
        as_text(&verdict, now_ns, &captured.notes)
    };
    let verified = matches!(verdict, Verdict::Verified { .. });
    terminal::print(text.as_bytes(), if verified { 0 } else { EXIT_REFUSED })
}

fn captured(args: &VerifyArgs) -> Result<Captured, String> {
    if args.headers.is_empty() && args.body_file.is_none() {
        return Captured::parse(&read(None)?);
    }
    let target = args.url.as_deref().map(outgoing::parts).transpose()?;
    let target = target.map_or_else(|| "/".to_owned(), |(_, _, target)| target);
    let mut captured = Captured::new(Method::POST, &target);
    for header in &args.headers {
        captured.add_header(header)?;
    }
    if let Some(path) = &args.body_file {
        captured.body = read(Some(path).filter(|path| path.as_os_str() != "-"))?.into();
    }
    Ok(captured)
}

/// A file, or standard input.
fn read(path: Option<&PathBuf>) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let (name, read) = match path {
        None => ("standard input".to_owned(), {
            io::stdin().lock().take(CAPTURE_BYTES_MAX + 1).read_to_end(&mut bytes)
        }),
        Some(path) => (path.display().to_string(), {
            std::fs::File::open(path)
                .and_then(|file| file.take(CAPTURE_BYTES_MAX + 1).read_to_end(&mut bytes))
        }),
    };
    read.map_err(|error| format!("{name}: {error}"))?;
    if bytes.len() as u64 > CAPTURE_BYTES_MAX {
        return Err(format!("{name} has more than {CAPTURE_BYTES_MAX} bytes"));
    }
    Ok(bytes)
}

/// The verdict, and by which time.
fn judge(args: &VerifyArgs, captured: &Captured) -> Result<(Verdict, u64), Failure> {
    let now_ns = args.at.resolve(&Clock::System);
    let url = args.url.as_deref().map(outgoing::parts).transpose()?;
    let (scheme, (secrets, validities), mut settings, others) = match (&args.source, &args.provider)
    {
        (Some(source), _) => configured(args.config.as_deref(), source)?,
        (None, Some(provider)) => {
            let host = captured.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
            let settings = args.secrets.settings(host.map(|host| format!("https://{host}")))?;
            let secrets = (args.secrets.read()?, Vec::new());
            (keys::preset(provider)?.scheme.clone(), secrets, settings, Vec::new())
        }
        (None, None) => return Err("give --provider or --source".to_owned().into()),
    };
    settings.tolerance = args.tolerance.or(settings.tolerance);
    let mut target = captured.target.clone();
    if let Some((scheme, authority, called)) = url {
        settings.public_url = Some(format!("{scheme}://{authority}"));
        target = called;
    }
    let case = Case {
        method: captured.method.clone(),
        target,
        headers: captured.headers.clone(),
        body: captured.body.clone(),
        scheme,
        secrets,
        validities,
        settings,
        now_ns,
    };
    Ok((diagnose(&case, &others), now_ns))
}

type Configured = (SchemeSpec, (Vec<NamedSecret>, Vec<Validity>), Settings, Vec<Others>);

/// What a configured source verifies by, and the secrets of the others.
fn configured(path: Option<&Path>, source: &str) -> Result<Configured, Failure> {
    let path = config::path(path);
    let mut all = config::load_keys(&path, config::environment()).map_err(Failure::Config)?;
    let Some(index) = all.iter().position(|keys| keys.name == source) else {
        let known: Vec<_> = all.iter().map(|keys| keys.name.as_str()).collect();
        return Err(format!("there is no source {source:?}; there is {}", known.join(", ")).into());
    };
    let keys = all.swap_remove(index);
    let others = all
        .into_iter()
        .map(|keys| Others { name: format!("the source `{}`", keys.name), secrets: keys.secrets });
    Ok((keys.scheme, (keys.secrets, keys.validities), keys.settings, others.collect()))
}

/// The label of a fault, as in the metrics and in problem bodies.
fn label(fault: &Fault) -> &'static str {
    match fault {
        Fault::Rejected(reject) => reject.label(),
        Fault::Unusable(_) => "secret_unusable",
    }
}

fn as_json(verdict: &Verdict, now_ns: u64, notes: &[String]) -> Value {
    let judged_at = second_text(now_ns);
    let cause = |cause: &Cause| {
        json!({
            "code": cause.code,
            "layer": cause.layer.label(),
            "what": cause.what,
            "cure": cause.cure,
        })
    };
    match verdict {
        Verdict::Verified { secret } => json!({
            "verified": true, "secret": secret, "judged_at": judged_at, "notes": notes,
        }),
        Verdict::Refused(Refusal { fault, causes, tried }) => json!({
            "verified": false,
            "reason": label(fault),
            "detail": fault.to_string(),
            "causes": causes.iter().map(cause).collect::<Vec<_>>(),
            "tried": tried,
            "judged_at": judged_at,
            "notes": notes,
        }),
    }
}

fn as_text(verdict: &Verdict, now_ns: u64, notes: &[String]) -> String {
    let mut text = match verdict {
        Verdict::Verified { secret } => {
            format!("verified with `{secret}`, at {}\n", second_text(now_ns))
        }
        Verdict::Refused(refusal) => refused_text(refusal),
    };
    for note in notes {
        // Writing to a String cannot fail.
        _ = writeln!(text, "note: {note}");
    }
    text
}

fn refused_text(Refusal { fault, causes, tried }: &Refusal) -> String {
    let mut text = format!("refused: {fault} ({})\n", label(fault));
    for Cause { code, layer, what, cure } in causes {
        _ = writeln!(text, "{}: {what} ({code})\n  cure: {cure}", layer.label());
    }
    if causes.is_empty() {
        _ = writeln!(
            text,
            "none of {tried} explanations fits: the secret is another one, the body was changed \
             in what it says, or this is no request of the sender\n  cure: copy the secret again \
             from the sender, and compare the body with the one in the sender's own log"
        );
    }
    text
}
