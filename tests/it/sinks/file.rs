//! The files of a folder. There is no server to kill: who writes is forebay itself.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use forebay::drain::sink::{Pass, Sink};
use forebay::drain::sinks::file as sink;
use forebay_log::Position;
use serde_json::Value;
use tempfile::TempDir;

use super::drained::{DRAIN_WAIT, Sent, failures, serving};
use super::{Counterpart, Who};
use crate::support::eventually;

/// So small that every campaign completes some.
const ROTATE_BYTES: u64 = 64 << 10;

pub(super) struct Folder(TempDir);

impl Folder {
    fn file(&self) -> PathBuf {
        self.0.path().join("main.ndjson")
    }

    /// Every line of every lane: what was set aside, what is complete, what is written to, replays.
    fn rows(&self) -> Vec<Value> {
        let order = |name: &str| match name.split('.').collect::<Vec<_>>()[..] {
            [_, id, "ndjson"] if id.parse::<Position>().is_err() && id != "replay" => (0, None),
            [_, "replay", ..] => (3, None),
            [_, position, "ndjson"] => (1, position.parse::<Position>().ok()),
            [_, "ndjson"] => (2, None),
            _ => (0, None),
        };
        let names = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let names = names.map(|name| name.into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(".ndjson")).collect();
        names.sort_by_key(|name| order(name));
        names.iter().flat_map(|name| rows_of(&self.0.path().join(name))).collect()
    }
}

/// The whole lines of a file. What forebay was writing when it was killed may be cut.
fn rows_of(path: &std::path::Path) -> Vec<Value> {
    // It may have been completed since, under another name.
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

impl Counterpart for Folder {
    fn start() -> Self {
        Self(tempfile::Builder::new().prefix("forebay-sink-").tempdir().unwrap())
    }

    fn sink(&self, _who: Who) -> Arc<dyn Sink> {
        Arc::new(sink::File::new(&sink::Settings {
            folder: self.0.path().to_owned(),
            sync: true,
            rotate_bytes: ROTATE_BYTES,
            rotate_age: Duration::from_secs(3600),
        }))
    }

    fn stored(&self) -> Vec<String> {
        let name = |row: &Value| {
            assert_eq!(
                (&row["source"], &row["content_type"]),
                (&"shop".into(), &"application/json".into())
            );
            format!("{} {}", row["lane"].as_str().unwrap(), row["position"].as_str().unwrap())
        };
        self.rows().iter().map(name).collect()
    }

    fn event_ids(&self) -> Vec<String> {
        self.rows().iter().map(|row| row["data"]["id"].as_str().unwrap().to_owned()).collect()
    }

    /// A folder refuses nothing; what cannot be shaped for it fails as well.
    fn section(&self) -> String {
        format!(
            "transform = 'if .body.poison then error else .body end'\n[sink.file]\n\
             folder = \"{}\"\nrotate_size = \"{}KiB\"\n",
            self.0.path().display(),
            ROTATE_BYTES >> 10
        )
    }

    fn poison() -> String {
        "{\"id\": \"poison\", \"poison\": true}".to_owned()
    }

    /// Replays have a file of their own, in which each is written.
    fn forget(&self) -> Pass {
        Pass::Replay
    }
}

/// Another process that holds the file, as a second forebay with the same folder would.
#[test]
#[ignore = "beside the other sinks, see tests/run sinks"]
fn a_file_that_another_process_writes_is_waited_for() {
    let folder = Folder::start();
    drop(File::create(folder.file()).unwrap());
    let mut holder = Command::new("flock")
        .arg(folder.file())
        .args(["sh", "-c", "echo held; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut held = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut held).unwrap();
    assert_eq!(held, "held\n");
    let (server, mut sent) = (serving(&folder), Sent::default());
    sent.send(&server, 100);
    eventually("the sink has been refused", DRAIN_WAIT, || failures(&server) > 0);
    assert_eq!(folder.event_ids(), Vec::<String>::new());
    // The end of its input is the end of the holder.
    holder.stdin.take().unwrap().flush().unwrap();
    assert!(holder.wait().unwrap().success());
    sent.must_arrive(&folder);
}
