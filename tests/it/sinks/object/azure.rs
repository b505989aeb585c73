//! Azurite, the emulator of Azure Blob Storage by Azure's makers.
//!
//! Its records are in PostgreSQL, which is not killed with it: by itself it holds them in memory and
//! writes them down every five seconds, so that a kill would take what it has answered for.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use forebay::drain::sink::{Pass, Sink};
use forebay::drain::sinks::object::{self as sink, Bucket, Format};
use forebay::verify::SecretText;
use object_store::ClientOptions;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::path::Path as Name;
use serde_json::Value;

use super::super::https::Secured;
use super::super::postgres::Postgres;
use super::super::process::Process;
use super::super::socat::listening;
use super::super::{Counterpart, Served, TIMEOUT, Who, now};
use super::{BASE, choose_cryptography, id_of, name_of, once, read, secured, settings};

/// Where `tests/run brokers` puts it.
const PROGRAM: &str = "tests/sinks/node_modules/azurite/dist/src/blob/main.js";
const ACCOUNT: &str = "forebay";
const CONTAINER: &str = "hooks";
/// `a-key-of-the-tests` and `another`, as Azure writes keys.
const KEY: &str = "YS1rZXktb2YtdGhlLXRlc3Rz";
const ANOTHER_KEY: &str = "YW5vdGhlcg==";

pub(in super::super) struct Azure {
    process: Process,
    records: Postgres,
    /// It speaks TLS alone, with this certificate and key.
    secured: Option<[PathBuf; 2]>,
}

impl Azure {
    fn endpoint(&self) -> String {
        let scheme = if self.secured.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}/{ACCOUNT}", self.process.port)
    }

    fn new(secured: Option<[PathBuf; 2]>) -> Self {
        let mut started = Self { process: Process::new(), records: Postgres::start(), secured };
        started.run();
        // The sink makes no container, and its client cannot.
        started.records.execute(&format!(
            "INSERT INTO \"Containers\" (\"accountName\", \"containerName\", \"lastModified\", etag) \
             VALUES ('{ACCOUNT}', '{CONTAINER}', now(), '\"1\"')"
        ));
        started
    }

    fn settings(&self, key: &str) -> sink::Settings {
        sink::Settings {
            endpoint: Some(self.endpoint()),
            access_key: Some(ACCOUNT.to_owned()),
            secret_key: Some(SecretText::new(key)),
            ..settings(Bucket::Azure(CONTAINER.to_owned()), BASE, Format::Ndjson)
        }
    }

    /// The lines of all objects, in the order in which these came: Azure tells it in whole seconds.
    fn lines(&self) -> Vec<Value> {
        choose_cryptography();
        let store = MicrosoftAzureBuilder::new()
            .with_endpoint(self.endpoint())
            .with_account(ACCOUNT)
            .with_access_key(KEY)
            .with_container_name(CONTAINER)
            // Whose certificate it shows is the sink's to look at.
            .with_client_options(ClientOptions::new().with_allow_invalid_certificates(true))
            .with_allow_http(true)
            .with_retry(once())
            .build()
            .unwrap();
        let sql = "SELECT \"blobName\" FROM \"Blobs\" WHERE deleting = 0 ORDER BY \"blobId\"";
        now(async {
            let names = self.records.client().await.unwrap().query(sql, &[]).await.unwrap();
            let name = |row: &tokio_postgres::Row| Name::from(row.get::<_, &str>("blobName"));
            read(&store, names.iter().map(name).collect()).await
        })
    }
}

impl Counterpart for Azure {
    fn start() -> Self {
        Self::new(None)
    }

    fn sink(&self, who: Who) -> Arc<dyn Sink> {
        let key = if who == Who::Known { KEY } else { ANOTHER_KEY };
        // A server in one thread of a slow language, with another server behind it.
        Arc::new(sink::Object::new(&self.settings(key), "out", 4 * TIMEOUT).unwrap())
    }

    fn stored(&self) -> Vec<String> {
        self.lines().iter().map(name_of).collect()
    }

    fn event_ids(&self) -> Vec<String> {
        self.lines().iter().map(id_of).collect()
    }

    fn section(&self) -> String {
        format!(
            "[sink.object]\nurl = \"az://{CONTAINER}/{BASE}\"\nendpoint = \"{}\"\n\
             allow_http = true\naccess_key = \"{ACCOUNT}\"\nsecret_key = {{ value = \"{KEY}\" }}\n",
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

impl Served for Azure {
    fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn run(&mut self) {
        let port = self.process.port;
        let mut command = Command::new("node");
        command
            .current_dir(self.process.folder.path())
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(PROGRAM))
            .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()])
            // It knows no newer version of the protocol than there was when it was made.
            .args(["--location", ".", "--disableTelemetry", "--skipApiVersionCheck"])
            .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{KEY}"))
            .env("AZURITE_DB", self.records.url());
        if let Some([certificate, key]) = &self.secured {
            command.arg("--cert").arg(certificate).arg("--key").arg(key);
        }
        self.process.spawn(&mut command);
        listening(&self.process);
    }
}

impl Secured for Azure {
    fn start_secured(certificate: &Path, key: &Path) -> Self {
        Self::new(Some([certificate.into(), key.into()]))
    }

    fn secured_port(&self) -> u16 {
        self.process.port
    }

    fn sink_at(&self, origin: &str, authority: Option<&Path>) -> Arc<dyn Sink> {
        let endpoint = format!("{origin}/{ACCOUNT}");
        let settings = secured(self.settings(KEY), endpoint, authority);
        Arc::new(sink::Object::new(&settings, "out", 4 * TIMEOUT).unwrap())
    }
}
