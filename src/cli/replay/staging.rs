//! `replay --to-url`: events to another receiver, as their senders would send them now.
//!
//! Signed and stamped anew with a secret of that receiver, which never stands in an argument. Who
//! means production has to say so twice: its events go nowhere without a flag, and the hosts of its
//! sinks are refused with any. The target has nobody to mend it, so an event that it refuses, or
//! does not take for a minute, is told and not tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forebay_log::{Clock, Reader, Record, Tag};
use http::Uri;
use serde_json::Value;

use super::super::bring::{self, BringError};
use super::super::keys;
use super::super::patience::Patience;
use super::super::place::PlaceError;
use super::super::terminal::Progress;
use super::super::which::{Chosen, row};
use super::guard::Target;
use super::{ReplayArgs, STAYS, StagingArgs};
use crate::config::{self, BatchConfig, Print, RetryConfig, SinkConfig, Staging};
use crate::drain::errand::Errand;
use crate::drain::order::Order;
use crate::drain::sink::Pass;
use crate::drain::sinks::http::{self as sink, resend};
use crate::verify::{Algorithm, NamedSecret, SecretText, Signer};

/// Events a second, where nothing else is said: what a receiver of any size takes.
const RATE: u64 = 50;
/// The environment whose events need a word of their own.
const PRODUCTION: &str = "production";

fn usage(what: String) -> BringError {
    PlaceError::Usage(what).into()
}

/// Runs the verb.
pub(super) fn replay(args: &ReplayArgs, url: &str, clock: &Clock) -> Result<(), BringError> {
    let path = config::path(args.config.as_deref());
    let staging = config::load_staging(&path, config::environment()).map_err(PlaceError::Config)?;
    let target = target(url, args, &staging)?;
    let chosen = args.which.chosen(clock);
    let survey = survey(args, &staging, &chosen)?;
    if args.dry_run {
        return bring::tell_dry("replayed", &survey.rows, args.json);
    }
    let sink = sink(args, target, signers(args, url, &staging, &survey)?, clock)?;
    // Without it: an event that is not taken for a minute is told, and the next one goes.
    let timeout = args.timeout.unwrap_or(Duration::MAX);
    let (mut ran, mut ended) = (Vec::new(), Ok(()));
    for Part { lane, dir, end, count } in survey.parts {
        let chosen = chosen.clone();
        let patience = Patience::begin(&sink.name, STAYS, timeout, clock)?;
        let progress = Progress::new(&format!("replay {lane}"));
        let errand = Errand {
            sink: &sink,
            lane: Arc::from(lane.as_str()),
            dir,
            from: chosen.start(),
            end,
            wanted: Box::new(move |record| chosen.takes(record)),
            pass: Pass::Replay,
            watch: patience.watch(Some((progress, count))),
        };
        ran.push(errand.run(clock)?);
        ended = patience.end();
        if ended.is_err() {
            break;
        }
    }
    let told = bring::tell("replayed", &ran, args.json);
    ended?;
    told
}

/// The URL, if a replay may go there.
fn target(url: &str, args: &ReplayArgs, staging: &Staging) -> Result<Uri, BringError> {
    let parsed: Option<Uri> = url.parse().ok();
    let full = parsed.filter(|url| {
        matches!(url.scheme_str(), Some("https" | "http"))
            && url.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    });
    let wrong =
        || usage("--to-url takes a URL such as \"https://staging.example/hooks\"".to_owned());
    let url = full.ok_or_else(wrong)?;
    let target = Target { url: &url, addresses: &[] };
    let (host, port) = (target.host(), target.port());
    let found = (host.as_str(), port).to_socket_addrs();
    let found = found.map_err(|error| BringError::Unresolved { host: host.clone(), error })?;
    let addresses: Vec<IpAddr> = found.map(|address| address.ip().to_canonical()).collect();
    let target = Target { url: &url, addresses: &addresses };
    let allow_private = args.staging.allow_private;
    match target.refused(&staging.hosts, &staging.listeners, allow_private) {
        Some(why) => Err(usage(why)),
        None => Ok(url),
    }
}

/// What is meant of one lane.
struct Part {
    lane: String,
    dir: PathBuf,
    end: u64,
    count: u64,
}

/// What is meant of all lanes.
#[derive(Default)]
struct Survey {
    parts: Vec<Part>,
    sources: BTreeSet<String>,
    rows: Vec<Value>,
}

/// Looks through what is meant before any of it goes.
fn survey(args: &ReplayArgs, staging: &Staging, chosen: &Chosen) -> Result<Survey, BringError> {
    let mut survey = Survey::default();
    let mut production = 0;
    for lane in &staging.kept.lanes {
        if args.lane.as_ref().is_some_and(|wanted| *wanted != lane.name) {
            continue;
        }
        let dir = staging.kept.data_dir.join("lanes").join(&lane.name);
        let (end, mut count) = (bring::end_of(&dir)?, 0);
        let mut reader = Reader::open(&dir)?;
        reader.seek(chosen.start())?;
        while let Some(record) = reader.next_held()? {
            if record.get().position().offset() >= end {
                break;
            }
            if !chosen.takes(&record) {
                continue;
            }
            count += 1;
            survey.sources.insert(said(&record, Tag::Source).unwrap_or_default());
            // What does not say where it is from is taken for the worst.
            let environment = said(&record, Tag::Environment);
            production += u64::from(environment.is_none_or(|name| name == PRODUCTION));
            survey.rows.extend(args.dry_run.then(|| row(&record)));
        }
        survey.parts.push(Part { lane: lane.name.clone(), dir, end, count });
    }
    if let (Some(lane), true) = (&args.lane, survey.parts.is_empty()) {
        return Err(usage(format!("there is no lane {lane}")));
    }
    if production > 0 && !args.staging.allow_production_events {
        return Err(usage(format!(
            "{production} of these events are of production; \
             --allow-production-events lets them go to the target"
        )));
    }
    Ok(survey)
}

fn said(record: &Record, tag: Tag) -> Option<String> {
    let record = record.get();
    record.meta().get(tag).map(|value| String::from_utf8_lossy(value).into_owned())
}

/// What signs the events of each source.
fn signers(
    args: &ReplayArgs,
    url: &str,
    staging: &Staging,
    survey: &Survey,
) -> Result<BTreeMap<String, Signer>, BringError> {
    let StagingArgs { preset, secrets, new_ids, .. } = &args.staging;
    let sources: Vec<&str> = survey.sources.iter().map(String::as_str).collect();
    if sources.len() > 1 && preset.is_none() {
        return Err(usage(format!(
            "these events are of several sources, and one secret signs as one: say --source ({}), \
             or --preset",
            sources.join(", ")
        )));
    }
    let (scheme, authority, _) = super::super::outgoing::parts(url).map_err(usage)?;
    let settings = secrets.settings(Some(format!("{scheme}://{authority}"))).map_err(usage)?;
    let mut signers = BTreeMap::new();
    for name in sources {
        let known = staging.senders.iter().find(|sender| sender.name == name);
        let (scheme, identity, content_types) = match (preset, known) {
            (Some(preset), _) => {
                let profile = keys::preset(preset).map_err(usage)?;
                (&profile.scheme, &profile.identity, &profile.content_types)
            }
            (None, Some(sender)) => (&sender.scheme, &sender.identity, &sender.content_types),
            (None, None) => {
                let what = format!("the configuration has no source {name} any more; say --preset");
                return Err(usage(what));
            }
        };
        let secret = match scheme.algorithm {
            Algorithm::None => {
                let (name, value) = (String::new(), SecretText::new(""));
                NamedSecret { name, value, key_id: None }
            }
            _ => secrets.read().map_err(usage)?.swap_remove(0),
        };
        let signer = Signer::for_sender((scheme, identity), content_types, secret, &settings)
            .map_err(|error| usage(error.to_string()))?;
        if *new_ids && signer.id_header().is_none() {
            return Err(usage(format!(
                "the ids of {name} stand in bodies, which are not changed; leave --new-ids out"
            )));
        }
        signers.insert(name.to_owned(), signer);
    }
    Ok(signers)
}

/// A sink that no configuration has.
fn sink(
    args: &ReplayArgs,
    url: Uri,
    signers: BTreeMap<String, Signer>,
    clock: &Clock,
) -> Result<SinkConfig, BringError> {
    let StagingArgs { ca_file, allow_private, new_ids, .. } = &args.staging;
    let unusable = |path: &PathBuf, what| usage(format!("{}: {what}", path.display()));
    let authorities =
        ca_file.as_ref().map(|path| sink::authorities(path).map_err(|what| unusable(path, what)));
    let http = sink::Settings {
        url,
        batch: sink::Batch::One,
        attributes: false,
        secrets: Vec::new(),
        headers: Vec::new(),
        authorities: authorities.transpose()?,
        allow_private: *allow_private,
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(4),
    };
    // The same for every attempt of this run, and for no other run.
    let id_suffix = new_ids.then(|| format!("-{:x}", clock.wall_ns()));
    let settings = resend::Settings { http, signers, id_suffix };
    Ok(SinkConfig {
        name: "to-url".to_owned(),
        lanes: Vec::new(),
        order: Order::None,
        batch: BatchConfig { events_max: 1, bytes_max: usize::MAX, linger: Duration::ZERO },
        retry: RetryConfig {
            first: Duration::from_millis(200),
            max: Duration::from_secs(5),
            horizon: Duration::from_secs(60),
        },
        events_per_second: Some(args.rate.unwrap_or(RATE)),
        // One after the other, as they came.
        concurrency_max: 1,
        memory_bytes_max: 64 << 20,
        timeout: Duration::from_secs(30),
        redrive: None,
        shape: Arc::default(),
        settings: Arc::new(settings),
        print: Print::default(),
    })
}
