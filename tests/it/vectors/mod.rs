//! Every vector of `tests/vectors` over HTTP: the whole server, on a real socket and with a real
//! log, at the time of the vector. Its status, its answer and its event are judged.
//!
//! The server runs in this process, since only here can its clock be turned back. Each vector has
//! a source of its own, so that none is a repetition of another one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use forebay::config::Config;
use forebay::handshake::{Handshakes, Terms};
use forebay::server::Server;
use forebay::verify::{NamedSecret, Profile, SecretText, Settings, Verifier, preset};
use forebay_log::Clock;
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::Driver;
use crate::support::http::{Connection, Request, Response};
use crate::support::log::{self, Row};
use crate::support::server::{forebay, free_address};

/// The fewest vectors that there may be: less would mean that some were lost.
const VECTORS_MIN: usize = 229;
/// For vectors without a time of their own.
const ANY_TIME_S: u64 = 1_700_000_000;
/// A secret that every configuration takes, of either form.
const PLACEHOLDER: &str = "00112233445566778899aabbccddeeff";
const NAMED_PLACEHOLDER: &str = "user:00112233445566778899aabbccddeeff";
/// Who may ask whether he may send.
const ORIGIN: &str = "eventemitter.example.com";

#[derive(Debug, Deserialize)]
struct File {
    profile: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    vector: Vec<Vector>,
}

#[derive(Debug, Deserialize)]
struct Vector {
    name: String,
    why: String,
    unsupported: Option<String>,
    #[serde(default)]
    handshake: bool,
    expect: String,
    secrets: Vec<String>,
    key_id: Option<String>,
    #[serde(default)]
    params: BTreeMap<String, String>,
    now_s: Option<u64>,
    method: Option<String>,
    url: Option<String>,
    body: Option<String>,
    body_base64: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    event: Option<Event>,
    response: Option<Answer>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Event {
    id: Option<String>,
    r#type: Option<String>,
    time: Option<String>,
    tenant: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Answer {
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
}

/// A vector, its sender and the source that it is sent to.
#[derive(Debug)]
struct Case {
    profile: &'static Profile,
    vector: Vector,
    source: String,
    /// Scheme and host, path, and the query with its question mark.
    url: [String; 3],
}

impl Case {
    fn body(&self) -> Vec<u8> {
        match (&self.vector.body, &self.vector.body_base64) {
            (Some(text), None) => text.clone().into_bytes(),
            (None, Some(text)) => BASE64.decode(text).unwrap(),
            _ => panic!("{} needs one body", self.vector.name),
        }
    }

    /// The items of a batch.
    fn items(&self) -> Option<Vec<Value>> {
        let path = self.profile.identity.items.as_deref()?.strip_prefix("json:").unwrap();
        let body: Value = serde_json::from_slice(&self.body()).unwrap();
        let list = if path.is_empty() { &body } else { &body[path] };
        list.as_array().cloned()
    }

    fn accepted(&self) -> bool {
        self.vector.expect == "accept" && self.vector.unsupported.is_none()
    }

    fn request(&self) -> Request {
        let [_, path, query] = &self.url;
        let mut request = Request::post(&format!("{path}{query}")).body(&self.body());
        if let Some(method) = &self.vector.method {
            request.method.clone_from(method);
        }
        // What a vector leaves out its sender is known to send.
        let typed =
            self.vector.headers.keys().any(|name| name.eq_ignore_ascii_case("content-type"));
        if !typed
            && self.vector.method.is_none()
            && let Some(media) = self.profile.content_types.first()
        {
            request = request.header("content-type", media.as_str());
        }
        for (name, value) in &self.vector.headers {
            if !name.eq_ignore_ascii_case("content-length") {
                request = request.header(name, value.as_str());
            }
        }
        request
    }

    /// The source's table. A vector's secret may be shorter than configuration takes, and wrong on
    /// purpose, so it is put in its place afterwards.
    fn config(&self, text: &mut String) {
        let (source, preset) = (&self.source, &self.profile.name);
        let [host, path, _] = &self.url;
        let key_id = match &self.vector.key_id {
            Some(key_id) => format!(", key_id = \"{key_id}\""),
            None => String::new(),
        };
        let long = |secret: &String| match secret.len() >= PLACEHOLDER.len() {
            true => secret.replace('\n', "\\n"),
            false if secret.contains(':') => NAMED_PLACEHOLDER.to_owned(),
            false => PLACEHOLDER.to_owned(),
        };
        let secrets: Vec<String> = self.vector.secrets.iter().map(long).collect();
        let secret = secrets.first().map_or(PLACEHOLDER, |secret| secret.trim_end_matches("\\n"));
        write!(
            text,
            "[[source]]\nname = \"{source}\"\npath = \"{path}\"\npreset = \"{preset}\"\n\
             public_url = \"{host}\"\n\
             secrets = [{{ name = \"s0\", value = \"{secret}\"{key_id} }}]\n"
        )
        .unwrap();
        for (name, value) in &self.vector.params {
            writeln!(text, "params.{name} = \"{value}\"").unwrap();
        }
    }

    fn verifier(&self) -> Verifier {
        let named = |(index, text): (usize, &String)| NamedSecret {
            name: format!("s{index}"),
            value: SecretText::new(text),
            key_id: self.vector.key_id.clone(),
        };
        let secrets = self.vector.secrets.iter().enumerate().map(named).collect();
        let settings = Settings {
            public_url: Some(self.url[0].clone()),
            params: self.vector.params.clone(),
            ..Settings::default()
        };
        Verifier::new(&self.profile.scheme, secrets, &settings).unwrap()
    }

    /// A vector of a handshake has as its secret what the operator agreed to: token or topic.
    fn handshakes(&self) -> Handshakes {
        let agreed = self.vector.secrets.first().map(String::as_str);
        let terms = Terms::new(agreed, self.vector.secrets.clone(), vec![ORIGIN.to_owned()]);
        Handshakes::new(&self.profile.handshakes, &self.profile.scheme, terms).unwrap()
    }
}

/// The vectors of the presets, in the order of their times.
fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut cases = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file: File = toml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert!(file.profile.is_none(), "{} has no preset", path.display());
        let profile = preset(path.file_stem().unwrap().to_str().unwrap()).unwrap();
        cases.extend(file.vector.into_iter().map(|vector| (profile, vector)));
    }
    let case = |(index, (profile, vector)): (usize, (&'static Profile, Vector))| {
        let source = format!("v{index}");
        let url = parted(vector.url.as_deref(), &source);
        Case { profile, vector, source, url }
    };
    let mut cases: Vec<Case> = cases.into_iter().enumerate().map(case).collect();
    assert!(cases.len() >= VECTORS_MIN, "vectors were lost");
    cases.sort_by_key(|case| case.vector.now_s.unwrap_or(ANY_TIME_S));
    cases
}

/// Where a URL is signed its path is given; elsewhere it is the source's name.
fn parted(url: Option<&str>, source: &str) -> [String; 3] {
    let Some(url) = url else {
        return ["https://hooks.example".into(), format!("/{source}"), String::new()];
    };
    let host = url.find("://").unwrap() + 3;
    let query = url.find('?').unwrap_or(url.len());
    let path = url[host..query].find('/').map_or(query, |at| at + host);
    let absent = if path == query { "/" } else { "" };
    [url[..path].to_owned(), url[path..query].to_owned() + absent, url[query..].to_owned()]
}

/// Cases of one server have paths of their own.
fn halls(mut cases: Vec<Case>) -> Vec<Vec<Case>> {
    let mut halls = Vec::new();
    while !cases.is_empty() {
        let mut paths = BTreeSet::new();
        let first = |case: &Case| paths.insert(case.url[1].clone());
        let (one, rest) = cases.into_iter().partition(first);
        halls.push(one);
        cases = rest;
    }
    halls
}

/// A server and its cases.
struct Hall {
    folder: TempDir,
    server: Option<Server>,
    now_ns: Arc<AtomicU64>,
}

impl Hall {
    fn start(driver: Driver, cases: &[Case]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let path = folder.path().join("forebay.toml");
        fs::write(&path, config_text(folder.path(), address, driver, cases)).unwrap();
        let mut config: Config = forebay::config::load(&path, []).unwrap();
        for (source, case) in config.sources.iter_mut().zip(cases) {
            if case.vector.handshake {
                source.handshakes = case.handshakes();
            } else {
                source.verifier = case.verifier();
            }
        }
        let now_ns = Arc::new(AtomicU64::new(ANY_TIME_S * 1_000_000_000));
        let server = Server::start(config, &Clock::Fixed(Arc::clone(&now_ns))).unwrap();
        Self { folder, server: Some(server), now_ns }
    }

    fn send(&self, case: &Case) -> Response {
        let now_s = case.vector.now_s.unwrap_or(ANY_TIME_S);
        // Relaxed: the request goes through the kernel, which orders all.
        self.now_ns.store(now_s * 1_000_000_000, Ordering::Relaxed);
        let address: SocketAddr = self.server.as_ref().unwrap().address();
        let answer = Connection::open(address).unwrap().send(&case.request());
        answer.unwrap_or_else(|error| panic!("{}: {error}", case.vector.name))
    }

    /// Ends the server and reads its log as another process does.
    fn rows(mut self) -> BTreeMap<String, Vec<Row>> {
        self.server.take().unwrap().stop();
        let data: PathBuf = self.folder.path().join("data");
        let mut command = forebay(&["tail", "--json", "--from", "earliest", "--lane", "main"]);
        let output = command.arg("--dir").arg(data).output().unwrap();
        let mut rows: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        for row in log::rows(&output) {
            rows.entry(row.source.clone().unwrap()).or_default().push(row);
        }
        rows
    }
}

fn config_text(folder: &Path, address: IpAddr, driver: Driver, cases: &[Case]) -> String {
    let receive = SocketAddr::new(address, 7402);
    let admin = SocketAddr::new(address, 7403);
    let mut text = format!(
        "data_dir = \"{}\"\n[receive]\nlisten = \"{receive}\"\nreceivers = 1\ndriver = \"{}\"\n\
         [admin]\nlisten = \"{admin}\"\n[[lane]]\nname = \"main\"\nack = \"written\"\n\
         segment_size = \"8MiB\"\ndedupe_capacity = 20000\nretention = {{ age = \"87600h\" }}\n",
        folder.join("data").display(),
        driver.name(),
    );
    for case in cases {
        case.config(&mut text);
    }
    text
}

for_each_driver!(every_vector_gets_its_verdict_its_answer_and_its_event);

fn every_vector_gets_its_verdict_its_answer_and_its_event(driver: Driver) {
    for cases in halls(cases()) {
        let hall = Hall::start(driver, &cases);
        for case in &cases {
            judge_answer(case, &hall.send(case));
        }
        let rows = hall.rows();
        for case in &cases {
            let own = rows.get(&case.source).map_or(&[][..], Vec::as_slice);
            judge_rows(case, own);
        }
    }
}

/// The answer is the vector's own where it has one, else what its sender takes.
fn judge_answer(case: &Case, answer: &Response) {
    let Vector { name, why, response, .. } = &case.vector;
    let status = answer.status;
    if let Some(wanted) = response {
        assert_eq!(status, wanted.status, "{name} ({why}): {answer:?}");
        for (header, value) in &wanted.headers {
            let given = answer.value(&header.to_ascii_lowercase());
            assert!(given.starts_with(value.as_str()), "{name}: {header}: {answer:?}");
        }
        if status < 300 {
            assert_eq!(answer.text(), wanted.body, "{name}");
        }
    } else if case.accepted() {
        let wanted = &case.profile.answers;
        assert_eq!(status, wanted.success_status.as_u16(), "{name} ({why}): {answer:?}");
        assert_eq!(answer.body, wanted.success_body, "{name}");
    } else {
        // Some hubs want that what is not theirs is swallowed.
        let swallowed = case.profile.answers.bad_signature_status.as_u16() == status;
        assert!((400..600).contains(&status) || swallowed, "{name} ({why}): {answer:?}");
    }
}

/// What was accepted is in the log, byte for byte, as the event that it is; nothing else is.
fn judge_rows(case: &Case, rows: &[Row]) {
    let Vector { name, event, response, .. } = &case.vector;
    if !case.accepted() {
        assert!(rows.is_empty(), "{name} was refused and is in the log: {rows:?}");
        return;
    }
    let handshake = response.is_some() && rows.is_empty();
    let Some(row) = rows.first() else {
        assert!(handshake, "{name} was accepted and is not in the log");
        return;
    };
    match case.items() {
        None => assert_eq!(row.body(), case.body(), "{name}"),
        Some(items) => {
            let kept: Vec<Value> =
                rows.iter().map(|row| serde_json::from_slice(&row.body()).unwrap()).collect();
            assert_eq!(kept, items, "{name}");
        }
    }
    let Some(event) = event else { return };
    let pairs = [
        (&event.id, &row.event_id),
        (&event.r#type, &row.event_type),
        (&event.time, &row.event_time),
        (&event.tenant, &row.tenant),
    ];
    for (wanted, found) in pairs {
        assert!(wanted.is_none() || wanted == found, "{name}: {wanted:?}, not {found:?}");
    }
}
