//! An HTTP server in a process of its own: Node, which keeps each event once by its name.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use forebay::drain::sink::{Pass, Sink};
use forebay::drain::sinks::http as sink;
use serde_json::Value;

use super::process::{Process, START_WAIT};
use super::{Counterpart, Served, Who};
use crate::support::eventually;

const SCRIPT: &str = "tests/it/sinks/http.mjs";
const TOKEN: &str = "a-token-of-the-tests";
/// The largest body that it takes.
const BODY_BYTES_MAX: usize = 64 << 10;

pub(super) struct Http(Process);

impl Http {
    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/events", self.0.port)
    }

    fn file(&self) -> PathBuf {
        self.0.folder.path().join("events")
    }

    fn rows(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.file()).unwrap_or_default();
        // What is behind the last end was cut by a kill, or is being written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn text(row: &Value, name: &str) -> String {
    row[name].as_str().unwrap_or_else(|| panic!("no {name}: {row}")).to_owned()
}

impl Counterpart for Http {
    fn start() -> Self {
        let mut started = Self(Process::new());
        started.run();
        started
    }

    fn sink(&self, who: Who) -> Arc<dyn Sink> {
        let token = if who == Who::Known { TOKEN } else { "another" };
        let authorization = format!("Bearer {token}").parse().unwrap();
        let settings = sink::Settings {
            url: self.url().parse().unwrap(),
            batch: sink::Batch::One,
            attributes: true,
            secrets: Vec::new(),
            headers: vec![(http::header::AUTHORIZATION, authorization)],
            authorities: None,
            allow_private: true,
            connect_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(4),
        };
        Arc::new(sink::Http::new(&settings).unwrap())
    }

    fn stored(&self) -> Vec<String> {
        let name = |row: &Value| {
            assert_eq!(text(row, "source"), "/sources/shop");
            assert_eq!(text(row, "event_type"), "invoice.paid\r\n> *\0");
            assert_eq!(text(row, "content_type"), "application/json");
            text(row, "name")
        };
        self.rows().iter().map(name).collect()
    }

    fn event_ids(&self) -> Vec<String> {
        self.rows().iter().map(|row| text(row, "event_id")).collect()
    }

    fn section(&self) -> String {
        format!(
            "[sink.http]\nurl = \"{}\"\nallow_private = true\nattributes = \"cloudevents\"\n\
             headers = [{{ name = \"authorization\", value = \"Bearer {TOKEN}\" }}]\n",
            self.url()
        )
    }

    fn poison() -> String {
        format!("{{\"large\": \"{}\"}}", "x".repeat(BODY_BYTES_MAX))
    }

    /// What an operator asks for it keeps again.
    fn forget(&self) -> Pass {
        Pass::Replay
    }
}

impl Served for Http {
    /// It asks who is there, and any answer says that somebody is.
    const PROBE_TELLS_STRANGERS: bool = false;

    fn process(&mut self) -> &mut Process {
        &mut self.0
    }

    fn run(&mut self) {
        let mut command = Command::new("node");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(SCRIPT));
        command.arg(self.0.port.to_string()).arg(self.file()).arg(TOKEN);
        command.arg(BODY_BYTES_MAX.to_string());
        self.0.spawn(&mut command);
        let address = (Ipv4Addr::LOCALHOST, self.0.port);
        eventually("the HTTP server is ready", START_WAIT, || TcpStream::connect(address).is_ok());
    }
}
