//! A fake of Google Cloud Pub/Sub (`tests/sinks/pubsub.py`): no registry has an emulator that can be
//! published to. It holds each request against what Google documents, and lends tokens that end after
//! seconds; what Google's own servers do it cannot show.
//!
//! Events that are there again under the same `Forebay-Key` are passed over, as the README tells
//! subscribers to, unless it is a replay.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forebay::drain::sink::{Delivered, Event, Pass, Sink};
use forebay::drain::sinks::http::authorities;
use forebay::drain::sinks::pubsub::{self as sink, Account, Login};
use serde_json::{Value, json};

use super::events::{Events, names_of};
use super::https::Secured;
use super::process::{Process, START_WAIT};
use super::socat::{listening, stand_before};
use super::{Counterpart, Served, TIMEOUT, Who, now};
use crate::support::eventually;

const EMAIL: &str = "forebay@forebay-tests.iam.gserviceaccount.com";
const TOPIC: &str = "projects/forebay-tests/topics/hooks";

pub(super) struct Fake {
    server: Process,
    /// The TLS before it.
    outer: Process,
    /// Where it lends tokens.
    token_uri: String,
}

/// A message, as the journal has it.
struct Stored(Value);

impl Stored {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.0["attributes"][name].as_str()
    }

    fn must_say(&self, name: &str) -> &str {
        self.attribute(name).unwrap_or_else(|| panic!("no {name} in {}", self.0))
    }
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

impl Fake {
    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.server.port)
    }

    fn new() -> Self {
        Self { server: Process::new(), outer: Process::new(), token_uri: String::new() }
    }

    fn lending_at(mut self, token_uri: String) -> Self {
        self.token_uri = token_uri;
        self.run();
        self
    }

    fn settings(&self, email: &str) -> sink::Settings {
        sink::Settings {
            topic: TOPIC.to_owned(),
            endpoint: self.endpoint().parse().unwrap(),
            login: Login::Key(Box::new(Account::parse(&self.key_of(email)).unwrap())),
            authorities: None,
            allow_private: true,
        }
    }

    fn journal(&self) -> PathBuf {
        self.server.folder.path().join("journal")
    }

    /// The key of an account, as Google writes it.
    fn key_of(&self, email: &str) -> String {
        let pem = fs::read_to_string(here("tests/keys/rsa.pem")).unwrap();
        json!({
            "type": "service_account", "project_id": "forebay-tests", "private_key": pem,
            "private_key_id": "the-key-of-the-tests", "client_email": email,
            "token_uri": self.token_uri,
        })
        .to_string()
    }

    fn messages(&self) -> Vec<Stored> {
        let text = fs::read_to_string(self.journal()).unwrap_or_default();
        // What is behind the last end was cut by a kill, or is being written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| Stored(serde_json::from_str(line).unwrap())).collect()
    }

    /// What a subscriber takes that knows events again.
    fn taken(&self) -> Vec<Stored> {
        let mut known = BTreeSet::new();
        let mut messages = self.messages();
        messages.retain(|message| {
            let again = message.attribute("Forebay-Pass") == Some("replay");
            known.insert(message.must_say("Forebay-Key").to_owned()) || again
        });
        messages
    }
}

impl Counterpart for Fake {
    fn start() -> Self {
        let started = Self::new();
        let token_uri = format!("{}/token", started.endpoint());
        started.lending_at(token_uri)
    }

    fn sink(&self, who: Who) -> Arc<dyn Sink> {
        let email = if who == Who::Known { EMAIL } else { "another@example.com" };
        Arc::new(sink::PubSub::new(&self.settings(email), TIMEOUT).unwrap())
    }

    fn stored(&self) -> Vec<String> {
        let name = |message: Stored| {
            assert_eq!(message.must_say("Forebay-Source"), "shop");
            assert_eq!(message.must_say("Forebay-Type"), "invoice.paid\r\n> *\0");
            assert_eq!(message.must_say("Content-Type"), "application/json");
            format!("{} {}", message.must_say("Forebay-Lane"), message.must_say("Forebay-Position"))
        };
        self.taken().into_iter().map(name).collect()
    }

    fn event_ids(&self) -> Vec<String> {
        let id = |message: Stored| message.must_say("Forebay-Event-Id").to_owned();
        self.taken().into_iter().map(id).collect()
    }

    fn section(&self) -> String {
        let key = self.server.folder.path().join("account.json");
        fs::write(&key, self.key_of(EMAIL)).unwrap();
        format!(
            "[sink.pubsub]\ntopic = \"{TOPIC}\"\nendpoint = \"{}\"\nallow_http = true\n\
             allow_private = true\ncredentials = {{ file = \"{}\" }}\n",
            self.endpoint(),
            key.display()
        )
    }

    fn poison() -> String {
        "{\"poison\": \"in every byte\"}".to_owned()
    }

    fn forget(&self) -> Pass {
        Pass::Replay
    }
}

impl Served for Fake {
    fn process(&mut self) -> &mut Process {
        &mut self.server
    }

    fn run(&mut self) {
        let mut command = Command::new(here("tests/sinks/.venv/bin/python"));
        command.arg(here("tests/sinks/pubsub.py")).arg(self.server.port.to_string());
        command.arg(self.journal()).arg(here("tests/keys/rsa.pem")).arg(&self.token_uri);
        self.server.spawn(&mut command);
        listening(&self.server);
    }
}

impl Secured for Fake {
    fn start_secured(certificate: &Path, key: &Path) -> Self {
        let started = Self::new();
        let token_uri = format!("https://127.0.0.1:{}/token", started.outer.port);
        let mut started = started.lending_at(token_uri);
        stand_before(&mut started.outer, started.server.port, certificate, key);
        started
    }

    fn secured_port(&self) -> u16 {
        self.outer.port
    }

    fn sink_at(&self, origin: &str, authority: Option<&Path>) -> Arc<dyn Sink> {
        let settings = sink::Settings {
            endpoint: origin.parse().unwrap(),
            authorities: authority.map(|path| authorities(path).unwrap()),
            ..self.settings(EMAIL)
        };
        // A token is lent first, over TLS as well.
        Arc::new(sink::PubSub::new(&settings, TIMEOUT).unwrap())
    }
}

#[test]
#[ignore = "needs the brokers, see tests/run brokers"]
fn the_fake_of_pubsub_is_given_each_key_in_requests_of_its_own_and_in_order() {
    let server = Fake::start();
    let sink = server.sink(Who::Known);
    let mut lane = Events::of_lane("main");
    // Of three keys and of none, in turns; more than a request may have.
    let keyed = |(number, mut event): (u64, Event)| {
        event.order_key = Some(number % 4).filter(|key| *key > 0);
        event
    };
    let batch: Vec<Event> = (0..).zip(lane.next(4100)).map(keyed).collect();
    let mut missing = batch.clone();
    // A batch of this size may take longer than the tests give it.
    eventually("all of it is there", START_WAIT, || {
        match now(sink.deliver(&missing)) {
            Delivered::All => missing.clear(),
            Delivered::None(failure) => panic!("{failure}"),
            Delivered::Each(verdicts) => {
                let mut verdicts = verdicts.into_iter();
                missing.retain(|_| verdicts.next().is_some_and(|verdict| verdict.is_err()));
            }
        }
        missing.is_empty()
    });
    let stored = server.taken();
    for key in [None, Some(1), Some(2), Some(3)] {
        let text = key.map(|key: u64| format!("{key:016x}"));
        let of_key = |message: &&Stored| message.0["orderingKey"].as_str() == text.as_deref();
        let names: Vec<String> = (stored.iter().filter(of_key))
            .map(|message| format!("main {}", message.must_say("Forebay-Position")))
            .collect();
        let sent: Vec<Event> =
            batch.iter().filter(|event| event.order_key == key).cloned().collect();
        assert_eq!(names, names_of(&sent));
    }
}

#[test]
#[ignore = "needs the brokers, see tests/run brokers"]
fn the_fake_of_pubsub_is_given_any_bytes_and_attributes_that_fit() {
    let server = Fake::start();
    let sink = server.sink(Who::Known);
    let mut lane = Events::of_lane("main");
    let mut event = lane.append("{}");
    event.made = Some(b"\xff\0 no text".as_slice().into());
    event.content_type = format!("text/{}\u{e9}", "x".repeat(1018)).into();
    assert_eq!(now(sink.deliver(std::slice::from_ref(&event))), Delivered::All);
    let stored = server.messages();
    let [message] = stored.as_slice() else { panic!("{} messages", stored.len()) };
    let data = STANDARD.decode(message.0["data"].as_str().unwrap()).unwrap();
    assert_eq!(data, event.payload());
    let cut = event.content_type.strip_suffix('\u{e9}').unwrap();
    assert_eq!(message.must_say("Content-Type"), cut, "cut where a character ends");
}
