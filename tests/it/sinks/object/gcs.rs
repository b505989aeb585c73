//! A fake of Google Cloud Storage (`tests/sinks/gcs.py`): none of the emulators in the registries keeps
//! the condition of a request as the sink makes it. It holds each request against what Google
//! documents; what Google's own servers do it cannot show.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forebay::drain::sink::{Pass, Sink};
use forebay::drain::sinks::object::{self as sink, Bucket, Format};
use forebay::verify::SecretText;
use serde_json::{Value, json};

use super::super::https::Secured;
use super::super::process::Process;
use super::super::socat::{listening, stand_before};
use super::super::{Counterpart, Served, TIMEOUT, Who};
use super::{BASE, BUCKET, id_of, lines_of, name_of, program, secured, settings};

const EMAIL: &str = "forebay@forebay-tests.iam.gserviceaccount.com";

pub(in super::super) struct Gcs {
    server: Process,
    /// The TLS before it.
    outer: Process,
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The key of an account, as Google writes it.
fn key_of(email: &str) -> String {
    let pem = fs::read_to_string(here("tests/keys/rsa.pem")).unwrap();
    json!({
        "type": "service_account", "project_id": "forebay-tests", "private_key": pem,
        "private_key_id": "the-key-of-the-tests", "client_email": email,
    })
    .to_string()
}

impl Gcs {
    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.server.port)
    }

    fn settings(&self, email: &str) -> sink::Settings {
        sink::Settings {
            endpoint: Some(self.endpoint()),
            secret_key: Some(SecretText::new(key_of(email))),
            ..settings(Bucket::Gcs(BUCKET.to_owned()), BASE, Format::Ndjson)
        }
    }

    fn journal(&self) -> PathBuf {
        self.server.folder.path().join("journal")
    }

    /// The lines of all objects, in the order in which these came; none was written over.
    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.journal()).unwrap_or_default();
        // What is behind the last end was cut by a kill, or is being written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let (mut names, mut lines) = (BTreeSet::new(), Vec::new());
        for object in whole.lines() {
            let object: Value = serde_json::from_str(object).unwrap();
            let name = object["name"].as_str().unwrap().to_owned();
            let data = STANDARD.decode(object["data"].as_str().unwrap()).unwrap();
            lines.extend(lines_of(&name, &data));
            assert!(names.insert(name), "{} was written over", object["name"]);
        }
        lines
    }
}

impl Counterpart for Gcs {
    fn start() -> Self {
        let mut started = Self { server: Process::new(), outer: Process::new() };
        started.run();
        started
    }

    fn sink(&self, who: Who) -> Arc<dyn Sink> {
        let email = if who == Who::Known { EMAIL } else { "another@example.com" };
        Arc::new(sink::Object::new(&self.settings(email), "out", TIMEOUT).unwrap())
    }

    fn stored(&self) -> Vec<String> {
        self.lines().iter().map(name_of).collect()
    }

    fn event_ids(&self) -> Vec<String> {
        self.lines().iter().map(id_of).collect()
    }

    fn section(&self) -> String {
        let key = self.server.folder.path().join("account.json");
        fs::write(&key, key_of(EMAIL)).unwrap();
        format!(
            "[sink.object]\nurl = \"gs://{BUCKET}/{BASE}\"\nendpoint = \"{}\"\n\
             allow_http = true\nsecret_key = {{ file = \"{}\" }}\n",
            self.endpoint(),
            key.display()
        )
    }

    fn poison() -> String {
        unreachable!("no store refuses an event for what is in it")
    }

    /// A replay is an object of its own.
    fn forget(&self) -> Pass {
        Pass::Replay
    }
}

impl Served for Gcs {
    fn process(&mut self) -> &mut Process {
        &mut self.server
    }

    fn run(&mut self) {
        let mut command = Command::new(program("python"));
        command.arg(here("tests/sinks/gcs.py")).arg(self.server.port.to_string());
        command.arg(self.journal()).arg(here("tests/keys/rsa.pem"));
        self.server.spawn(&mut command);
        listening(&self.server);
    }
}

impl Secured for Gcs {
    fn start_secured(certificate: &Path, key: &Path) -> Self {
        let mut started = Self::start();
        stand_before(&mut started.outer, started.server.port, certificate, key);
        started
    }

    fn secured_port(&self) -> u16 {
        self.outer.port
    }

    fn sink_at(&self, origin: &str, authority: Option<&Path>) -> Arc<dyn Sink> {
        let settings = secured(self.settings(EMAIL), origin.to_owned(), authority);
        Arc::new(sink::Object::new(&settings, "out", TIMEOUT).unwrap())
    }
}
