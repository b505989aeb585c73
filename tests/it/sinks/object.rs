//! Object stores: `SeaweedFS` by the language of S3, Azurite and a fake of Google Cloud Storage, with
//! lines of JSON; and a folder with Parquet files, which pyarrow reads.

mod azure;
mod gcs;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use forebay::drain::sink::{Pass, Sink};
use forebay::drain::sinks::object::{self as sink, Bucket, Format, Prefix};
use forebay::verify::SecretText;
use futures_util::TryStreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Name;
use object_store::{ObjectStore, ObjectStoreExt as _, RetryConfig};
use serde_json::Value;

use super::https::Secured;
use super::process::{Process, START_WAIT, free_port};
use super::{Counterpart, Served, TIMEOUT, Who, now};
use crate::support::eventually;

pub(super) use azure::Azure;
pub(super) use gcs::Gcs;

/// Where `tests/run sinks` puts them.
const PROGRAMS: &str = "tests/sinks/.venv/bin";
const USER: &str = "forebay";
const PASSWORD: &str = "a-password-of-the-tests";
const BUCKET: &str = "hooks";
const BASE: &str = "of/the/tests";
const MARKS: &str = "_forebay";

fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(PROGRAMS).join(name)
}

fn settings(bucket: Bucket, base: &str, format: Format) -> sink::Settings {
    sink::Settings {
        bucket,
        base: base.into(),
        endpoint: None,
        region: None,
        access_key: None,
        secret_key: None,
        session_token: None,
        ca_pem: None,
        allow_http: true,
        format,
        level: 3,
        prefix: Prefix::parse("{lane}/dt={yyyy}-{mm}-{dd}/hour={hh}/").unwrap(),
    }
}

/// The same, over TLS.
fn secured(of: sink::Settings, endpoint: String, authority: Option<&Path>) -> sink::Settings {
    let ca_pem = authority.map(|path| fs::read(path).unwrap());
    sink::Settings { endpoint: Some(endpoint), ca_pem, allow_http: false, ..of }
}

/// Once and for all that follows: a client takes the process's provider of cryptography. The sink
/// chooses it too, but it comes later.
fn choose_cryptography() {
    _ = rustls::crypto::ring::default_provider().install_default();
}

/// The client of a test does not try again.
fn once() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

/// The lines of an object; none of one that is the sink's own.
fn lines_of(name: &str, object: &[u8]) -> Vec<Value> {
    assert!(name.starts_with(BASE), "{name}");
    if name.contains(MARKS) {
        return Vec::new();
    }
    let text = String::from_utf8(zstd::decode_all(object).unwrap()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The lines of these objects, in their order.
async fn read(store: &dyn ObjectStore, names: Vec<Name>) -> Vec<Value> {
    let mut lines = Vec::new();
    for name in names {
        let object = store.get(&name).await.unwrap().bytes().await.unwrap();
        lines.extend(lines_of(name.as_ref(), &object));
    }
    lines
}

/// Lane and position of a line.
fn name_of(line: &Value) -> String {
    let field = |name: &str| line[name].as_str().unwrap().to_owned();
    assert_eq!(
        (field("source"), field("content_type")),
        ("shop".into(), "application/json".into())
    );
    format!("{} {}", field("lane"), field("position"))
}

fn id_of(line: &Value) -> String {
    line["data"]["id"].as_str().unwrap().to_owned()
}

/// A store of its own, and the ports of its parts.
pub(super) struct Store {
    process: Process,
    ports: Vec<u16>,
    /// Where it speaks TLS as well, with this certificate and key.
    secured: Option<(u16, [PathBuf; 2])>,
}

impl Store {
    fn client(&self) -> AmazonS3 {
        choose_cryptography();
        AmazonS3Builder::new()
            .with_endpoint(self.endpoint())
            .with_region("none")
            .with_bucket_name(BUCKET)
            .with_access_key_id(USER)
            .with_secret_access_key(PASSWORD)
            .with_allow_http(true)
            .with_retry(once())
            .build()
            .unwrap()
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.process.port)
    }

    fn new(secured: Option<(u16, [PathBuf; 2])>) -> Self {
        let ports = (0..7).map(|_| free_port()).collect();
        let process = Process::new();
        let folder = process.folder.path();
        fs::create_dir(folder.join("data")).unwrap();
        let identities = format!(
            "{{\"identities\": [{{\"name\": \"{USER}\", \"actions\": [\"Admin\"], \
             \"credentials\": [{{\"accessKey\": \"{USER}\", \"secretKey\": \"{PASSWORD}\"}}]}}]}}"
        );
        fs::write(folder.join("identities.json"), identities).unwrap();
        let mut started = Self { process, ports, secured };
        started.run();
        started
    }

    fn settings(&self, password: &str) -> sink::Settings {
        sink::Settings {
            endpoint: Some(self.endpoint()),
            region: Some("none".to_owned()),
            access_key: Some(USER.to_owned()),
            secret_key: Some(SecretText::new(password)),
            ..settings(Bucket::S3(BUCKET.to_owned()), BASE, Format::Ndjson)
        }
    }

    /// The lines of all objects, in the order in which these came.
    fn lines(&self) -> Vec<Value> {
        let store = self.client();
        now(async {
            let mut found: Vec<_> = store.list(None).try_collect().await.unwrap();
            found.sort_by_key(|meta| (meta.last_modified, meta.location.clone()));
            read(&store, found.into_iter().map(|meta| meta.location).collect()).await
        })
    }
}

impl Counterpart for Store {
    fn start() -> Self {
        Self::new(None)
    }

    fn sink(&self, who: Who) -> Arc<dyn Sink> {
        let password = if who == Who::Known { PASSWORD } else { "another" };
        // A store of many parts: a first object takes it longer than others take for a batch.
        Arc::new(sink::Object::new(&self.settings(password), "out", 4 * TIMEOUT).unwrap())
    }

    fn stored(&self) -> Vec<String> {
        self.lines().iter().map(name_of).collect()
    }

    fn event_ids(&self) -> Vec<String> {
        self.lines().iter().map(id_of).collect()
    }

    fn section(&self) -> String {
        format!(
            "[sink.object]\nurl = \"s3://{BUCKET}/{BASE}\"\nendpoint = \"{}\"\nallow_http = true\n\
             region = \"none\"\naccess_key = \"{USER}\"\nsecret_key = {{ value = \"{PASSWORD}\" }}\n",
            self.endpoint()
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

impl Served for Store {
    fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn run(&mut self) {
        let folder = self.process.folder.path().to_owned();
        let flags = [
            "-master.port",
            "-master.port.grpc",
            "-volume.port",
            "-volume.port.grpc",
            "-filer.port",
            "-filer.port.grpc",
            "-s3.port.grpc",
        ];
        let ports = flags.into_iter().zip(&self.ports).map(|(flag, port)| format!("{flag}={port}"));
        let mut command = Command::new(program("weed"));
        command.current_dir(&folder).args(["server", "-dir=data", "-s3", "-s3.iam=false"]);
        command.args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"]);
        command.args(["-s3.config=identities.json", "-s3.port.iceberg=0", "-s3.port.lance=0"]);
        command.args(["-volume.max=20", "-master.volumeSizeLimitMB=64"]);
        command.args(["-volume.minFreeSpacePercent=0"]).args(ports);
        command.arg(format!("-s3.port={}", self.process.port));
        if let Some((port, [certificate, key])) = &self.secured {
            command.arg(format!("-s3.port.https={port}"));
            command.arg(format!("-s3.cert.file={}", certificate.display()));
            command.arg(format!("-s3.key.file={}", key.display()));
        }
        self.process.spawn(&mut command);
        let store = self.client();
        // Its parts find one another one by one; then it takes an object, if that has bytes: for
        // an empty one it needs no volume.
        eventually("SeaweedFS is ready", START_WAIT, || {
            now(store.put(&"ready".into(), "ready".into())).is_ok()
                && now(store.delete(&"ready".into())).is_ok()
        });
    }
}

impl Secured for Store {
    fn start_secured(certificate: &Path, key: &Path) -> Self {
        Self::new(Some((free_port(), [certificate.into(), key.into()])))
    }

    fn secured_port(&self) -> u16 {
        self.secured.as_ref().expect("it was started so").0
    }

    fn sink_at(&self, origin: &str, authority: Option<&Path>) -> Arc<dyn Sink> {
        let settings = secured(self.settings(PASSWORD), origin.to_owned(), authority);
        Arc::new(sink::Object::new(&settings, "out", 4 * TIMEOUT).unwrap())
    }
}

/// A folder of Parquet files. No server belongs to it.
pub(super) struct Folder(Process);

impl Folder {
    fn path(&self) -> PathBuf {
        self.0.folder.path().join("events")
    }

    /// The files of events in the order in which they came.
    fn files(&self) -> Vec<PathBuf> {
        let (mut files, mut open) = (BTreeMap::new(), vec![self.path()]);
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let Ok(meta) = entry.metadata() else { continue };
                if meta.is_dir() && !path.ends_with(MARKS) {
                    open.push(path);
                } else if path.extension().is_some_and(|of| of == "parquet") {
                    files.insert((meta.modified().unwrap(), path.clone()), path);
                }
            }
        }
        files.into_values().collect()
    }

    /// The rows of all of them, as another implementation reads them.
    fn rows(&self) -> Vec<Value> {
        const READ: &str = "\
import json, sys, pyarrow.parquet
for path in sys.argv[1:]:
    table = pyarrow.parquet.ParquetFile(path).read()
    at = table.schema.get_field_index('time')
    assert str(table.schema.field(at).type) == 'timestamp[ns, tz=UTC]', table.schema
    table = table.set_column(at, 'time', table['time'].cast('int64'))
    for row in table.to_pylist():
        print(json.dumps(row | {'payload': row['payload'].decode()}))
";
        let files = self.files();
        if files.is_empty() {
            return Vec::new();
        }
        let read = Command::new(program("python")).args(["-c", READ]).args(files).output().unwrap();
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        let text = String::from_utf8(read.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Counterpart for Folder {
    fn start() -> Self {
        Self(Process::new())
    }

    fn sink(&self, _who: Who) -> Arc<dyn Sink> {
        let path = self.path();
        let settings = settings(Bucket::Folder, path.to_str().unwrap(), Format::Parquet);
        Arc::new(sink::Object::new(&settings, "out", 20 * TIMEOUT).unwrap())
    }

    fn stored(&self) -> Vec<String> {
        let name = |row: Value| {
            let field = |name: &str| row[name].as_str().unwrap().to_owned();
            assert_eq!(
                (field("source"), field("environment")),
                ("shop".into(), "production".into())
            );
            assert_eq!(
                (field("content_type"), &row["tenant"]),
                ("application/json".into(), &Value::Null)
            );
            format!("{} {}", field("lane"), field("position"))
        };
        self.rows().into_iter().map(name).collect()
    }

    fn event_ids(&self) -> Vec<String> {
        self.rows().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    }

    fn section(&self) -> String {
        let path = self.path();
        format!("[sink.object]\nurl = \"file://{}\"\nformat = \"parquet\"\n", path.display())
    }

    fn poison() -> String {
        unreachable!("no folder refuses an event for what is in it")
    }

    fn forget(&self) -> Pass {
        Pass::Replay
    }
}

#[test]
#[ignore = "needs the sinks' servers, see tests/run sinks"]
fn a_parquet_file_says_all_that_an_event_is() {
    let folder = Folder::start();
    let mut lane = super::events::Events::of_lane("main");
    let event = lane.append("any bytes \u{e9}");
    now(folder.sink(Who::Known).deliver(std::slice::from_ref(&event)));
    let rows = folder.rows();
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(row["payload"], "any bytes \u{e9}");
    assert_eq!(row["type"], "invoice.paid\r\n> *\0");
    assert_eq!(row["id"], "evt_1");
    assert_eq!(row["key"], event.idempotency_key());
    assert_eq!(row["time"], event.received_ns());
}

#[test]
#[ignore = "needs the sinks' servers, see tests/run sinks"]
fn what_is_redriven_is_there_beside_what_was_behind_it() {
    let store = Store::start();
    let sink = store.sink(Who::Known);
    let mut lane = super::events::Events::of_lane("main");
    let (early, dead, behind) = (lane.next(3), lane.next(1), lane.next(3));
    let deliver = |batch: &[_]| now(sink.deliver(batch));
    for batch in [&early, &behind, &super::events::with_pass(&dead, Pass::Redrive)] {
        assert_eq!(deliver(batch), forebay::drain::sink::Delivered::All);
    }
    let mut stored = store.stored();
    stored.sort();
    let mut all = super::events::names_of(&[early, dead, behind].concat());
    all.sort();
    assert_eq!(stored, all);
}
