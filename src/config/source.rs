//! `[[source]]`: a sender, how it signs, what its events are called and which lane takes them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use serde::Deserialize;
use toml::de::ValueDeserializer;

use super::error::Problem;
use super::lane::ReadLane;
use super::near::nearest;
use super::receive::ReceiveConfig;
use super::recipe;
use super::secret::{self, SecretConfig};
use super::section::{Reading, Section, refuse_twins};
use super::units;
use crate::handshake::{Expected, Handshakes};
use crate::identify::{IdentitySpec, RuleText, Rules};
use crate::limits;
use crate::receive::{Certificate, Gate, ProxyKind};
use crate::verify::{
    Answers, NamedSecret, Profile, SchemeSpec, SecretText, Settings, SpecError, Validity, Verifier,
};

/// The longest path of a source.
const PATH_BYTES_MAX: usize = 1024;

/// One sender, checked and ready to verify.
#[derive(Debug)]
pub struct Source {
    /// The source's name.
    pub name: String,
    /// The path of its URL.
    pub path: String,
    /// What stands for `{token}` in it.
    path_token: Option<SecretText>,
    /// Who may reach it.
    pub gate: Gate,
    /// What must stand in its requests.
    pub expected: Expected,
    /// Its lane, as an index into [`super::Config::lanes`].
    pub lane: usize,
    /// Production or another.
    pub environment: String,
    /// The tenant, where it is the same for every event.
    pub tenant: Option<String>,
    /// What it asks before or between its events.
    pub handshakes: Handshakes,
    /// What it is answered.
    pub answers: Answers,
    /// Checks its signatures.
    pub verifier: Verifier,
    /// Finds the id, type, time and tenant of its events.
    pub identity: Rules,
    /// The rules as text, for people.
    pub identity_spec: IdentitySpec,
    /// Media types taken, in small letters.
    pub content_types: Vec<String>,
    /// The preset; none where the scheme is written out.
    pub preset: Option<&'static Profile>,
    /// What was signed before under another id, which is not signed, is not kept again.
    pub drops_replays: bool,
    /// The largest body.
    pub body_bytes_max: u64,
    /// What may be told about its secrets.
    pub secrets: Vec<SecretConfig>,
    /// How far a signed timestamp may be off; none where no time is signed.
    pub tolerance: Option<Duration>,
}

/// Stands in a path for its token.
const TOKEN_PLACE: &str = "{token}";

impl Source {
    /// Whether its events may come by GET, without a body.
    pub fn takes_get(&self) -> bool {
        self.preset.is_some_and(|preset| preset.events_by_get)
    }

    /// The path with its token, which is not to be shown.
    pub fn expanded_path(&self) -> Cow<'_, str> {
        match &self.path_token {
            Some(token) => self.path.replace(TOKEN_PLACE, token.expose_secret()).into(),
            None => Cow::Borrowed(&self.path),
        }
    }

    /// The target of a request to this source, without what must not be kept.
    pub fn shown_target<'u>(&'u self, uri: &'u Uri) -> Cow<'u, str> {
        let query = uri.query().filter(|_| !self.verifier.credential_in_query());
        match (&self.path_token, query) {
            (Some(_), Some(query)) => format!("{}?{query}", self.path).into(),
            (Some(_), None) => Cow::Borrowed(&self.path),
            (None, None) => Cow::Borrowed(uri.path()),
            (None, Some(_)) => {
                uri.path_and_query().map_or_else(Cow::default, |target| target.as_str().into())
            }
        }
    }

    /// The rules that find the parts of an event's identity, by key, as written.
    pub fn rules(&self) -> impl Iterator<Item = (&'static str, &RuleText)> {
        let IdentitySpec { event_id, event_type, event_time, tenant, .. } = &self.identity_spec;
        [
            ("tenant", tenant),
            ("event_id", event_id),
            ("event_type", event_type),
            ("event_time", event_time),
        ]
        .into_iter()
        .filter_map(|(key, rule)| Some((key, rule.as_ref()?)))
    }
}

/// What a source verifies by, secrets included.
#[derive(Debug)]
pub struct SourceKeys {
    /// The source's name.
    pub name: String,
    /// The path of its URL.
    pub path: String,
    /// How its requests are signed.
    pub scheme: SchemeSpec,
    /// What with.
    pub secrets: Vec<NamedSecret>,
    /// When each of them counts.
    pub validities: Vec<Validity>,
    /// What the source says of itself.
    pub settings: Settings,
}

/// What a source is checked against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around<'a, 't> {
    pub(super) lanes: &'a [ReadLane<'t>],
    pub(super) receive: Option<&'a ReceiveConfig>,
}

/// Reads every `[[source]]`; sources with a mistake are reported and left out.
pub(super) fn read_all<'t>(
    reading: &'t Reading<'t>,
    root: &Section<'t>,
    around: Around<'_, 't>,
) -> Vec<Source> {
    let values = root.tables("source", "write [[source]] with two brackets, once for each source");
    if values.is_empty() && root.value("source").is_none_or(|list| list.get_ref().is_array()) {
        root.missing(
            "source",
            "add a source:\n[[source]]\nname = \"github\"\npath = \"/github\"\npreset = \"github\"\n\
             secrets = [{ name = \"main\", env = \"GITHUB_SECRET\" }]",
        );
    }
    if values.len() > limits::SOURCES_MAX {
        let cure = format!("at most {} sources", limits::SOURCES_MAX);
        root.refuse("source", "stands too often", cure);
    }
    let sections: Vec<Section<'t>> = values
        .iter()
        .take(limits::SOURCES_MAX)
        .filter_map(|value| Section::open(reading, "source", value))
        .collect();
    refuse_twins(&sections, "name", "rename one of the two");
    refuse_twins(&sections, "path", "give each source a path of its own");
    refuse_mixed_lanes(&sections, around.lanes);
    sections.iter().filter_map(|section| read(section, around)).collect()
}

/// Reads what every source verifies by.
pub(super) fn read_keys<'t>(
    reading: &'t Reading<'t>,
    root: &Section<'t>,
) -> Option<Vec<SourceKeys>> {
    let values = root.tables("source", "write [[source]] with two brackets, once for each source");
    let sections = values.iter().filter_map(|value| Section::open(reading, "source", value));
    let keys = |section: Section<'t>| {
        let name = section.name()?.to_owned();
        let path = path(&section)?.to_owned();
        let recipe = recipe::read(&section)?;
        let scheme = recipe.scheme;
        let (told, secrets) = secret::read_all(&section, Some(&scheme), recipe.secret_bytes_min)?;
        let validities = told.iter().map(|secret| secret.validity).collect();
        let settings = settings(&section, section.duration("tolerance"))?;
        Some(SourceKeys { name, path, scheme, secrets, validities, settings })
    };
    sections.map(keys).collect()
}

/// Sandbox and production never share a lane: what drains one must not see the other.
fn refuse_mixed_lanes(sections: &[Section<'_>], lanes: &[ReadLane<'_>]) {
    let only = match lanes {
        [lane] => Some(lane.config.name.as_str()),
        _ => None,
    };
    let mut first: BTreeMap<&str, (&Section<'_>, &str)> = BTreeMap::new();
    for section in sections {
        let Some(lane) = section.peek("lane").or(only) else { continue };
        let environment = section.peek("environment").unwrap_or("production");
        let (other, expected) = *first.entry(lane).or_insert((section, environment));
        if expected == environment {
            continue;
        }
        let title = format!(
            "`source.environment` is \"{environment}\", but lane \"{lane}\" takes \"{expected}\""
        );
        let cure = format!(
            "give it a lane of its own: add [[lane]] name = \"{environment}\", and here \
             lane = \"{environment}\""
        );
        section.reading.problems.push(
            Problem::new(title, cure)
                .at(section.place("environment"), "of another environment")
                .with_other(other.place("environment"), format!("\"{expected}\" came first")),
        );
    }
}

fn read(section: &Section<'_>, around: Around<'_, '_>) -> Option<Source> {
    let name = section.name();
    let path = path(section);
    let path_token = path_token(section, path);
    let gate = gate(section, around.receive);
    let lane = lane(section, around.lanes);
    let environment = section.text_or_default("environment");
    if let Some(environment) = environment {
        section.plain_word("environment", environment);
    }
    let tolerance = section.duration("tolerance");
    let body_bytes_max =
        section.size("body_max").or(around.receive.map(|receive| receive.body_bytes_max));
    let recipe = recipe::read(section);
    let (scheme, secret_bytes_min) = match &recipe {
        Some(recipe) => (Some(&recipe.scheme), recipe.secret_bytes_min),
        None => (None, limits::SECRET_BYTES_MIN),
    };
    let secrets = secret::read_all(section, scheme, secret_bytes_min);
    let recipe = recipe?;
    let handshakes = recipe::handshakes(section, &recipe)
        .map(|(specs, terms)| Handshakes::new(&specs, &recipe.scheme, terms))
        .and_then(|handshakes| handshakes.map_err(|error| report(section, &error)).ok());
    let expected = recipe::expected(section);
    let answers = recipe::answers(section, recipe.preset);
    let content_types = recipe::content_types(section, recipe.content_types);
    let (tenant, identity_spec) = recipe::identity(section, recipe.identity);
    let identity =
        Rules::new(&identity_spec, &recipe.scheme).map_err(|error| report(section, &error)).ok();
    let scheme_says = recipe.scheme.time.as_ref().map(|time| time.past.max(time.future));
    let effective = tolerance.or(scheme_says);
    if let Some(lane) = lane.and_then(|lane| around.lanes.get(lane)) {
        check_against_lane(section, lane, (effective, body_bytes_max));
    }
    let (secrets, values) = secrets?;
    let settings = settings(section, tolerance)?;
    let verifier = Verifier::new(&recipe.scheme, values, &settings)
        .map_err(|error| report(section, &error))
        .ok()?;
    let validities: Vec<Validity> = secrets.iter().map(|secret| secret.validity).collect();
    Some(Source {
        name: name?.to_owned(),
        path: path?.to_owned(),
        path_token: path_token?,
        gate: gate?,
        expected: expected?,
        lane: lane?,
        environment: environment?.to_owned(),
        tenant,
        handshakes: handshakes?,
        answers: answers?,
        verifier: verifier.valid(&validities),
        identity: identity?,
        identity_spec,
        content_types,
        preset: recipe.preset,
        drops_replays: section.choice("on_replay")? == "drop",
        body_bytes_max: body_bytes_max?,
        secrets,
        tolerance: effective,
    })
}

/// What the source says that its scheme may need.
fn settings(section: &Section<'_>, tolerance: Option<Duration>) -> Option<Settings> {
    let public_url = section.text("public_url").map(str::to_owned);
    if section.has("public_url") && public_url.is_none() {
        return None;
    }
    let mut params = BTreeMap::new();
    if let Some(value) = section.value("params") {
        let read = Deserialize::deserialize(ValueDeserializer::from(value.clone()));
        if read.is_err() {
            let cure = "write params = { NAME = \"TEXT\" }";
            section.refuse("params", "is no table of texts", cure);
        }
        params = read.ok()?;
    }
    let unsafe_no_auth = section.truth("unsafe_no_auth")?;
    Some(Settings { tolerance, public_url, params, unsafe_no_auth })
}

/// A path as it arrives in a request line: it is compared byte by byte.
fn path<'t>(section: &Section<'t>) -> Option<&'t str> {
    let path = section.required("path", "add path = \"/...\", the path of the URL")?;
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte);
    if !path.starts_with('/') {
        section.refuse("path", "does not start with `/`", format!("write \"/{path}\""));
    } else if !path.replacen(TOKEN_PLACE, "", 1).bytes().all(plain) {
        let cure = "write the path as it stands in the URL, without query; what is not plain \
                    ASCII is percent-encoded there";
        section.refuse("path", "holds characters that no path has", cure);
    } else if path.len() > PATH_BYTES_MAX {
        section.refuse("path", "is too long", format!("at most {PATH_BYTES_MAX} bytes"));
    } else {
        return Some(path);
    }
    None
}

/// What stands for `{token}`: the path needs it if it has the place for it, and else has none.
#[expect(clippy::option_option, reason = "none, or a mistake that is reported")]
fn path_token(section: &Section<'_>, path: Option<&str>) -> Option<Option<SecretText>> {
    const KEY: &str = "path_token";
    let placed = path?.contains(TOKEN_PLACE);
    if placed != section.has(KEY) {
        if placed {
            section
                .missing(KEY, "say what stands for it: path_token = { env = \"MY_PATH_TOKEN\" }");
        } else {
            section.refuse(KEY, "has no place in `path`", "write path = \"/.../{token}\"");
        }
        return None;
    }
    if !placed {
        return Some(None);
    }
    let token = secret::read_token(section, "source.path_token", KEY)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let text = token.expose_secret();
    if text.len() < limits::PATH_TOKEN_BYTES_MIN || !text.bytes().all(plain) {
        let cure = format!(
            "write at least {} letters, digits, `-` and `_`, such as `openssl rand -hex 16` makes",
            limits::PATH_TOKEN_BYTES_MIN
        );
        section.refuse(KEY, "can be guessed, or cannot stand in a path", cure);
        return None;
    }
    Some(Some(token))
}

/// Who may reach the source.
fn gate(section: &Section<'_>, receive: Option<&ReceiveConfig>) -> Option<Gate> {
    let allow_from = section.networks("allow_from")?;
    let proxies = receive.map(|receive| Arc::clone(&receive.proxies)).unwrap_or_default();
    let Some(value) = section.value("client_certificate") else {
        return Some(Gate { allow_from, certificate: None, proxies });
    };
    if proxies.trusted.is_empty() || proxies.kind != ProxyKind::ForwardedFor {
        let cure = "forebay itself does not speak TLS: let a proxy in front verify the \
                    certificate, and name it in `receive.trusted_proxies`";
        section.refuse("client_certificate", "is told by nobody", cure);
        return None;
    }
    let table = Section::open(section.reading, "source.client_certificate", value)?;
    let name = table.required("header", "name the header that the proxy sets")?;
    let Ok(header) = name.parse() else {
        table.refuse("header", "is no name of a header", "use letters, digits and hyphens");
        return None;
    };
    let values: Vec<String> =
        table.texts("values").unwrap_or_default().into_iter().map(str::to_owned).collect();
    if values.is_empty() {
        table.missing("values", "say which certificates are taken: values = [\"CN=sender\"]");
        return None;
    }
    Some(Gate { allow_from, certificate: Some(Certificate { header, values }), proxies })
}

/// The lane that is named, or the only one.
fn lane(section: &Section<'_>, lanes: &[ReadLane<'_>]) -> Option<usize> {
    let names = || lanes.iter().map(|lane| lane.config.name.as_str());
    if !section.has("lane") {
        if lanes.len() > 1 {
            let cure = format!("say which lane takes the events: {}", words(names()));
            section.missing("lane", cure);
        }
        return (lanes.len() == 1).then_some(0);
    }
    let wanted = section.text("lane")?;
    let index = names().position(|name| name == wanted);
    if index.is_none() {
        let cure = match nearest(wanted, names()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("name one of {}, or add [[lane]] name = \"{wanted}\"", words(names())),
        };
        section.refuse("lane", "names no lane", cure);
    }
    index
}

/// Names in a sentence.
pub(super) fn words<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    format!("\"{}\"", names.join("\", \""))
}

/// What only source and lane together can get wrong.
fn check_against_lane(
    section: &Section<'_>,
    lane: &ReadLane<'_>,
    (tolerance, body_bytes_max): (Option<Duration>, Option<u64>),
) {
    let window = lane.config.dedupe_window;
    if let Some(tolerance) = tolerance
        && window < 2 * tolerance
    {
        section.refuse(
            "tolerance",
            "is more than half of the lane's `dedupe_window`",
            format!(
                "a request could be replayed after it was forgotten: raise dedupe_window of lane \
                 \"{}\" to \"{}\", or lower the tolerance to \"{}\"",
                lane.config.name,
                units::duration_text(2 * tolerance),
                units::duration_text(window / 2)
            ),
        );
    }
    let record_bytes = body_bytes_max.map(|bytes| bytes + 2 * limits::HEAD_BYTES_MAX as u64);
    if let Some(record_bytes) = record_bytes
        && lane.config.segment_bytes < 2 * record_bytes
    {
        lane.section.refuse(
            "segment_size",
            "is too small for the bodies of its sources",
            format!(
                "raise it to at least \"{}\", or lower body_max",
                units::size_text((2 * record_bytes).next_power_of_two())
            ),
        );
    }
}

/// Shows what the verifier or the rules say at the key they name.
fn report(section: &Section<'_>, error: &SpecError) {
    let (what, cure) = secret::parted(&error.message);
    let title = format!("`source.{}`: {what}", error.key);
    let place = place_of(section, &error.key).unwrap_or_else(|| section.place("preset"));
    section.reading.problems.push(Problem::new(title, cure).at(place, ""));
}

/// The place of a path such as `scheme.time.from` or `secrets[1].key_id`, or of the last of its
/// steps that the file holds.
fn place_of(section: &Section<'_>, path: &str) -> Option<Range<usize>> {
    let mut steps = path.split(['.', '[']).map(|step| step.trim_end_matches(']'));
    let mut value = section.value(steps.next()?)?;
    for step in steps {
        let next = match step.parse::<usize>() {
            Ok(index) => value.get_ref().get(index),
            Err(_) => value.get_ref().get(step),
        };
        let Some(next) = next else { break };
        value = next;
    }
    Some(value.span())
}
