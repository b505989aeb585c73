//! A server in this process with a source for each of its vectors.
//!
//! It runs here, since only here can its clock be turned back. Each vector has a source of its
//! own, so that none is a repetition of another one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay::config::{Config, Source};
use forebay::handshake::{Handshakes, Terms};
use forebay::observe::Outcome;
use forebay::server::Server;
use forebay::verify::Profile;
use forebay_log::Clock;
use tempfile::TempDir;

use super::vector::{Vector, vectors};
use crate::support::Driver;
use crate::support::http::{Connection, Request, Response};
use crate::support::log::{self, Row};
use crate::support::server::{forebay, free_address};

/// A secret that every configuration takes, of either form.
const PLACEHOLDER: &str = "00112233445566778899aabbccddeeff";
const NAMED_PLACEHOLDER: &str = "user:00112233445566778899aabbccddeeff";
/// Who may ask whether he may send.
const ORIGIN: &str = "eventemitter.example.com";
const SECOND_NS: u64 = 1_000_000_000;

/// A vector, its sender and the source that it is sent to.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) profile: &'static Profile,
    pub(crate) vector: &'static Vector,
    pub(crate) source: String,
    /// Scheme and host, path, and the query with its question mark.
    url: [String; 3],
}

impl Case {
    /// The vectors, in the order of their times.
    pub(crate) fn all() -> Vec<Self> {
        let case = |(index, (profile, vector)): (usize, &'static (&'static Profile, Vector))| {
            let source = format!("v{index}");
            let url = vector.url(&format!("/{source}"));
            Self { profile, vector, source, url }
        };
        let mut cases: Vec<Self> = vectors().iter().enumerate().map(case).collect();
        cases.sort_by_key(|case| case.vector.now_s());
        cases
    }

    pub(crate) fn request(&self) -> Request {
        let [_, path, query] = &self.url;
        let mut request = Request::post(&format!("{path}{query}")).body(&self.vector.body());
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

    /// Gives the source what the vector says.
    pub(crate) fn fit(&self, source: &mut Source) {
        if self.vector.handshake {
            source.handshakes = self.handshakes();
        } else {
            source.verifier = self.vector.verifier(self.profile, &self.vector.secrets).unwrap();
        }
    }

    /// A vector of a handshake has as its secret what the operator agreed to: token or topic.
    fn handshakes(&self) -> Handshakes {
        let agreed = self.vector.secrets.first().map(String::as_str);
        let terms = Terms::new(agreed, self.vector.secrets.clone(), vec![ORIGIN.to_owned()]);
        Handshakes::new(&self.profile.handshakes, &self.profile.scheme, terms).unwrap()
    }
}

/// Cases of one server have paths of their own.
pub(crate) fn halls(mut cases: Vec<Case>) -> Vec<Vec<Case>> {
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
pub(crate) struct Hall {
    folder: TempDir,
    server: Option<Server>,
    connection: Option<Connection>,
    now_ns: Arc<AtomicU64>,
}

impl Hall {
    pub(crate) fn start(driver: Driver, cases: &[Case]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = config_text(folder.path(), free_address(), driver, cases);
        fs::write(folder.path().join("forebay.toml"), text).unwrap();
        let now_ns = Arc::default();
        let mut hall = Self { folder, server: None, connection: None, now_ns };
        let config = hall.config(cases, Case::fit);
        hall.set_clock(0);
        hall.server = Some(Server::start(config, &Clock::Fixed(Arc::clone(&hall.now_ns))).unwrap());
        hall
    }

    fn config(&self, cases: &[Case], fit: impl Fn(&Case, &mut Source)) -> Config {
        let path = self.folder.path().join("forebay.toml");
        let mut config: Config = forebay::config::load(&path, []).unwrap();
        for (source, case) in config.sources.iter_mut().zip(cases) {
            fit(case, source);
        }
        config
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("it runs")
    }

    /// Puts other sources in the place of those that the server has.
    pub(crate) fn reload(&self, cases: &[Case], fit: impl Fn(&Case, &mut Source)) {
        self.server().reload(self.config(cases, fit));
    }

    /// Sets the receiver's clock.
    pub(crate) fn set_clock(&self, now_s: u64) {
        // Relaxed: a request goes through the kernel, which orders all.
        self.now_ns.store(now_s * SECOND_NS, Ordering::Relaxed);
    }

    /// Sends the vector as it is, at its time.
    pub(crate) fn send(&mut self, case: &Case) -> Response {
        self.send_at(&case.request(), case.vector.now_s())
    }

    /// Sends a request at a time. A connection serves until the server ends it.
    pub(crate) fn send_at(&mut self, request: &Request, now_s: u64) -> Response {
        self.set_clock(now_s);
        let address: SocketAddr = self.server().address();
        if let Some(connection) = &mut self.connection
            && let Ok(response) = connection.send(request)
        {
            return response;
        }
        let mut connection = Connection::open(address).unwrap();
        let response = connection.send(request).unwrap_or_else(|e| panic!("{request:?}: {e}"));
        self.connection = Some(connection);
        response
    }

    /// Requests of this case that the server took for what they said they were.
    pub(crate) fn taken(&self, case: &Case) -> u64 {
        let counters = self.server().metrics().source(&case.source);
        let taken = [Outcome::Accepted, Outcome::Duplicate, Outcome::Handshake];
        taken.into_iter().map(|outcome| counters.requests(outcome)).sum()
    }

    /// Ends the server and reads its log as another process does.
    pub(crate) fn rows(mut self) -> BTreeMap<String, Vec<Row>> {
        self.connection = None;
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
         [admin]\nlisten = \"{admin}\"\n[quarantine]\nsize = \"0\"\n\
         [[lane]]\nname = \"main\"\nack = \"written\"\n\
         segment_size = \"8MiB\"\ndedupe_capacity = 20000\nretention = {{ age = \"87600h\" }}\n",
        folder.join("data").display(),
        driver.name(),
    );
    for case in cases {
        case.config(&mut text);
    }
    text
}
