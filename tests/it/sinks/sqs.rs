//! Amazon SQS by moto, which `tests/sinks/sqs.py` gives a memory that outlives it: a FIFO queue,
//! which knows events again by itself, and a standard one, at which a consumer does.
//!
//! What a queue holds is read from the journal of what moto has put there. That a consumer gets the
//! same is asked of boto3.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay::drain::sink::{Delivered, Event, Pass, Sink};
use forebay::drain::sinks::http::authorities;
use forebay::drain::sinks::sqs::{self as sink, Credentials};
use forebay::verify::SecretText;
use serde_json::Value;

use super::events::Events;
use super::https::Secured;
use super::process::Process;
use super::socat::{listening, stand_before};
use super::{Counterpart, Served, TIMEOUT, Who, now};

const KEY: &str = "AKIAFOREBAYFOREBAY00";
const SECRET: &str = "a-secret-of-the-tests";
const REGION: &str = "eu-central-1";
/// The largest message that its queues take.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

pub(super) struct Sqs<const FIFO: bool> {
    server: Process,
    /// The TLS before it.
    outer: Process,
}

pub(super) type Fifo = Sqs<true>;
pub(super) type Standard = Sqs<false>;

/// A message, as the journal has it.
struct Stored(Value);

impl Stored {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.0["attributes"][name]["StringValue"].as_str()
    }

    fn must_say(&self, name: &str) -> &str {
        self.attribute(name).unwrap_or_else(|| panic!("no {name} in {}", self.0))
    }
}

/// Runs the script that `tests/run brokers` puts its packages under.
fn script() -> Command {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(here.join("tests/sinks/.venv/bin/python"));
    command.arg(here.join("tests/sinks/sqs.py"));
    command
}

impl<const FIFO: bool> Sqs<FIFO> {
    const QUEUE: &str = if FIFO { "hooks.fifo" } else { "hooks" };

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.server.port)
    }

    fn queue_url(&self) -> String {
        format!("{}/123456789012/{}", self.endpoint(), Self::QUEUE)
    }

    fn settings(&self, secret: &str) -> sink::Settings {
        sink::Settings {
            queue_url: self.queue_url(),
            endpoint: self.endpoint().parse().unwrap(),
            region: REGION.to_owned(),
            credentials: Some(Credentials {
                access_key: KEY.to_owned(),
                secret_key: SecretText::new(secret),
                session_token: None,
            }),
            authorities: None,
            allow_private: true,
            request_bytes_max: 1 << 20,
        }
    }

    fn journal(&self) -> PathBuf {
        self.server.folder.path().join("journal")
    }

    fn messages(&self) -> Vec<Stored> {
        let text = fs::read_to_string(self.journal()).unwrap_or_default();
        // What is behind the last end was cut by a kill, or is being written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let stored = |line: &str| Stored(serde_json::from_str(line).unwrap());
        let messages: Vec<Stored> = whole.lines().map(stored).collect();
        assert!(messages.iter().all(|message| message.0["queue"] == Self::QUEUE));
        messages
    }

    /// What a consumer takes: of a standard queue one that knows events again.
    fn taken(&self) -> Vec<Stored> {
        let mut known = BTreeSet::new();
        let mut messages = self.messages();
        messages.retain(|message| {
            let again = FIFO || message.attribute("Forebay-Pass") == Some("replay");
            known.insert(message.must_say("Forebay-Key").to_owned()) || again
        });
        messages
    }

    /// Takes everything out of the queue, by another client than the sink's.
    fn consumed(&self) -> Vec<Value> {
        let words = ["take", &self.endpoint(), Self::QUEUE, KEY, SECRET];
        let Output { status, stdout, stderr } = script().args(words).output().unwrap();
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        let text = String::from_utf8(stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl<const FIFO: bool> Counterpart for Sqs<FIFO> {
    const PACE: Duration = Duration::from_millis(4);

    fn start() -> Self {
        let mut started = Self { server: Process::new(), outer: Process::new() };
        started.run();
        started
    }

    fn sink(&self, who: Who) -> Arc<dyn Sink> {
        let secret = if who == Who::Known { SECRET } else { "another" };
        Arc::new(sink::Sqs::new(self.settings(secret), TIMEOUT).unwrap())
    }

    fn stored(&self) -> Vec<String> {
        let name = |message: Stored| {
            assert_eq!(message.must_say("Forebay-Source"), "shop");
            assert_eq!(message.must_say("Forebay-Type"), "invoice.paid\r\n> *\u{fffd}");
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
        format!(
            "[sink.sqs]\nqueue_url = \"{}\"\nregion = \"{REGION}\"\nallow_http = true\n\
             allow_private = true\naccess_key = \"{KEY}\"\nsecret_key = {{ value = \"{SECRET}\" }}\n",
            self.queue_url()
        )
    }

    fn poison() -> String {
        format!("{{\"large\": \"{}\"}}", "x".repeat(MESSAGE_BYTES_MAX))
    }

    fn forget(&self) -> Pass {
        Pass::Replay
    }
}

impl<const FIFO: bool> Served for Sqs<FIFO> {
    fn process(&mut self) -> &mut Process {
        &mut self.server
    }

    fn run(&mut self) {
        let mut command = script();
        command.args(["serve", &self.server.port.to_string()]);
        command.arg(self.journal()).args([KEY, SECRET]);
        self.server.spawn(&mut command);
        listening(&self.server);
    }
}

impl<const FIFO: bool> Secured for Sqs<FIFO> {
    fn start_secured(certificate: &Path, key: &Path) -> Self {
        let mut started = Self::start();
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
            ..self.settings(SECRET)
        };
        Arc::new(sink::Sqs::new(settings, TIMEOUT).unwrap())
    }
}

#[test]
#[ignore = "needs the brokers, see tests/run brokers"]
fn a_consumer_gets_body_attributes_group_and_id_as_they_were_meant() {
    let server = Fifo::start();
    let mut lane = Events::of_lane("main");
    let mut batch: Vec<Event> = (7..).zip(lane.next(12)).map(keyed).collect();
    batch[3].made = Some(Bytes::from_static(b"\xff\0 no text"));
    batch[4].made = Some(Bytes::from_static(b"text with \x08"));
    batch[5].order_key = None;
    assert_eq!(now(server.sink(Who::Known).deliver(&batch)), Delivered::All);
    let consumed = server.consumed();
    assert_eq!(consumed.len(), batch.len());
    for (index, (message, event)) in consumed.iter().zip(&batch).enumerate() {
        let key = event.idempotency_key();
        let group = event.order_key.map_or_else(|| key.clone(), |key| format!("{key:016x}"));
        assert_eq!(message["Attributes"]["MessageGroupId"], group);
        assert_eq!(message["Attributes"]["MessageDeduplicationId"], key);
        let said = |name: &str| message["MessageAttributes"][name]["StringValue"].as_str();
        assert_eq!(said("Forebay-Key"), Some(key.as_str()));
        assert_eq!(said("Forebay-Event-Id"), Some(format!("evt_{}", index + 1).as_str()));
        let body = message["Body"].as_str().unwrap();
        let (encoding, wanted): (_, &[u8]) = match index {
            3 => (Some("base64"), b"/wAgbm8gdGV4dA=="),
            4 => (Some("base64"), b"dGV4dCB3aXRoIAg="),
            _ => (None, event.payload()),
        };
        assert_eq!((said("Forebay-Encoding"), body.as_bytes()), (encoding, wanted));
    }
}

fn keyed((key, mut event): (u64, Event)) -> Event {
    event.order_key = Some(key);
    event
}
