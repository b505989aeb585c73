//! The reader in tests/python, which knows FORMAT.md alone, beside a running server: it sees the
//! same records as `forebay tail`, over rolls, crashes, retention, purges and damage.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use crate::support::log::Row;
use crate::support::server::{Server, Setup, forebay};
use crate::support::{Driver, sign};

for_each_driver![a_reader_in_another_language_follows_and_sees_what_tail_sees];

const ROW_WAIT: Duration = Duration::from_secs(30);

fn python(lane: &Path, words: &[&str]) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/forebay_log.py");
    let mut command = Command::new("python3");
    command.arg(script).arg(lane).args(words);
    command
}

/// What both readers tell of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    position: String,
    kind: String,
    event_id: Option<String>,
    body: Vec<u8>,
}

fn seen_by_tail(row: &Row) -> Seen {
    let (position, kind) = (row.position.clone(), row.kind.clone());
    Seen { position, kind, event_id: row.event_id.clone(), body: row.body() }
}

fn seen_by_python(line: &str) -> Seen {
    let row: Value = serde_json::from_str(line).unwrap();
    let text = |key: &str| row[key].as_str().map(str::to_owned);
    assert_eq!(row["source"], "std");
    assert!(row["headers"].as_array().unwrap().len() > 3);
    Seen {
        position: text("position").unwrap(),
        kind: text("kind").unwrap(),
        event_id: text("event_id"),
        body: BASE64.decode(text("body_base64").unwrap()).unwrap(),
    }
}

/// Everything that can be read now, and what was stepped over.
fn read_all(lane: &Path) -> (Vec<Seen>, Value) {
    let output = python(lane, &[]).output().expect("python3 is there");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    let rows = String::from_utf8(output.stdout).unwrap();
    let skipped = serde_json::from_str(told.lines().last().unwrap()).unwrap();
    (rows.lines().map(seen_by_python).collect(), skipped)
}

struct Follower {
    child: Child,
    rows: Receiver<Seen>,
}

impl Follower {
    fn start(lane: &Path) -> Self {
        let mut command = python(lane, &["--follow"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, rows) = channel();
        std::thread::spawn(move || {
            for row in output.lines() {
                let Ok(row) = row else { return };
                if sender.send(seen_by_python(&row)).is_err() {
                    return;
                }
            }
        });
        Self { child, rows }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It follows for ever, so it is ended here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn send(server: &Server, from: usize, to: usize) {
    let mut connection = server.connect();
    for index in from..to {
        let body = format!("{{\"type\":\"n\",\"pad\":\"{}\"}}", "x".repeat(index % 900));
        let request = sign::standard(&format!("msg_{index}"), body.as_bytes());
        assert_eq!(connection.send(&request).unwrap().status, 200);
    }
}

/// The segments of a lane, oldest first.
fn segments(lane: &Path) -> Vec<PathBuf> {
    let names = std::fs::read_dir(lane).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        names.filter(|path| path.extension().is_some_and(|is| is == "seg")).collect();
    paths.sort();
    paths
}

/// Reads a record, harms the rest of the file under the reader as a failed sync may, puts a sound
/// file in its place, and tells how many records it then sees and what it stepped over.
const REPLACING: &str = "
import json, os, shutil, sys
sys.path.insert(0, sys.argv[1])
import forebay_log
lane, path = sys.argv[2:]
reader = forebay_log.Reader(lane)
count = reader.next() is not None
shutil.copy(path, path + '.fresh')
with open(path, 'r+b') as file:
    file.seek(reader.offset - reader.segment.base + 64)
    file.write(bytes(20000))
os.rename(path + '.fresh', path)
while reader.next():
    count += 1
print(json.dumps([count, *reader.skipped.values()]))
";

fn read_while_replaced(lane: &Path) -> Vec<u64> {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python");
    let mut command = Command::new("python3");
    command.args(["-c", REPLACING]).arg(scripts).arg(lane).arg(&segments(lane)[0]);
    let output = command.output().expect("python3 is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn a_reader_in_another_language_follows_and_sees_what_tail_sees(driver: Driver) {
    let setup = Setup::new(driver).ack("synced").segments("128KiB", "8KiB").retention("2MiB");
    let mut server = Server::start(setup);
    let lane = server.data().join("lanes/main");
    let follower = Follower::start(&lane);
    for round in 0..4 {
        send(&server, round * 150, (round + 1) * 150);
        for index in round * 150..(round + 1) * 150 {
            let seen = follower.rows.recv_timeout(ROW_WAIT).expect("another row");
            assert_eq!(seen.event_id, Some(format!("msg_{index}")), "in order, none left out");
        }
        if round % 2 == 0 {
            server.kill();
        } else {
            assert!(server.end().success());
        }
        server.run();
    }
    // A later delivery, and enough for retention to begin.
    send(&server, 599, 600);
    send(&server, 600, 2600);
    let newest = server.newest_id();
    let same = |what: &str| {
        let first = || segments(&lane).swap_remove(0);
        loop {
            let oldest = first();
            let (by_python, skipped) = read_all(&lane);
            let by_tail: Vec<Seen> = server.rows().iter().map(seen_by_tail).collect();
            if first() != oldest {
                // Retention has taken a segment while one of the two was at work.
                continue;
            }
            assert!(by_tail.len() > 500, "{what}: {} rows", by_tail.len());
            assert_eq!(by_python, by_tail, "{what}");
            return skipped;
        }
    };
    let skipped = same("after retention");
    assert_eq!(skipped["damaged"], 0);
    assert_ne!(follower.rows.try_iter().count(), 0, "the follower goes on");
    let purged = forebay(&["purge", "--event", &newest, "--dir"]).arg(server.data()).output();
    assert!(purged.unwrap().status.success());
    assert_eq!(same("after a purge")["purged"], 1);

    assert!(server.end().success());
    let (whole, skipped) = read_all(&lane);
    let mut told = vec![whole.len() as u64];
    told.extend(skipped.as_object().unwrap().values().map(|count| count.as_u64().unwrap()));
    let mut replaced = read_while_replaced(&lane);
    // In a JSON object the names are sorted.
    replaced[1..].sort_unstable();
    told[1..].sort_unstable();
    assert_eq!(replaced, told, "nothing is missed in the file that took the place");

    let paths = segments(&lane);
    let write = |path: &Path, bytes: &[u8], at: u64| {
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(bytes, at).unwrap();
    };
    write(&paths[0], &[0xa5; 3], 4096 + 80);
    write(&paths[0], &[0xa5; 3], 20_032);
    // A header that has a copy, and a file that has its beginning alone.
    write(&paths[1], &[0; 128], 0);
    std::fs::OpenOptions::new().write(true).open(&paths[2]).unwrap().set_len(40_000).unwrap();
    let (by_python, skipped) = read_all(&lane);
    let by_tail: Vec<Seen> = server.rows().iter().map(seen_by_tail).collect();
    assert_eq!(by_python, by_tail, "after damage");
    let lost = skipped["damaged"].as_u64().unwrap() + skipped["gaps"].as_u64().unwrap();
    assert!(lost >= 3, "the damage was found: {skipped}");
    assert_eq!(skipped["segments"], 0, "no segment is lost as a whole");
}
