//! `forebay purge` beside a running server: the bytes are gone from every file, a later delivery
//! is still a duplicate, and the server goes on.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::server::{Server, Setup, forebay, source};
use crate::support::{Driver, sign};

for_each_driver![
    a_purged_event_is_nowhere_and_its_later_delivery_still_a_duplicate,
    a_replay_under_another_id_goes_with_the_event_that_was_named,
    a_purge_that_is_killed_again_and_again_comes_to_its_end_and_harms_nothing,
];

const CANARY: &str = "canary-4d1f0c";

/// Every file under a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// The files that hold the canary.
fn with_canary(server: &Server) -> Vec<PathBuf> {
    let holds = |path: PathBuf| -> std::io::Result<Option<PathBuf>> {
        let bytes = std::fs::read(&path)?;
        let found = bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes());
        Ok(found.then_some(path))
    };
    loop {
        let all = files(&server.data()).into_iter().map(holds);
        match all.collect::<Result<Vec<_>, _>>() {
            Ok(found) => return found.into_iter().flatten().collect(),
            // The server has given a file its name since the folder was listed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn command(server: &Server, words: &[&str]) -> Output {
    forebay(words).arg("--dir").arg(server.data()).output().unwrap()
}

fn send(server: &Server, id: &str, body: &str) {
    let request = sign::standard(id, body.as_bytes());
    assert_eq!(server.send(&request).status, 200);
}

fn a_purged_event_is_nowhere_and_its_later_delivery_still_a_duplicate(driver: Driver) {
    let mut server = Server::start(Setup::new(driver).segments("128KiB", "8KiB"));
    let secret = format!("{{\"type\":\"n\",\"who\":\"{CANARY}\"}}");
    for index in 0..300 {
        let body = format!("{{\"type\":\"n\",\"pad\":\"{}\"}}", "x".repeat(700));
        send(&server, &format!("msg_{index}"), &body);
        if index % 100 == 50 {
            send(&server, &format!("{CANARY}_{index}"), &secret);
        }
    }
    // A later delivery holds the id in its headers. The newest event is in the segment that is
    // still being written.
    send(&server, &format!("{CANARY}_50"), &secret);
    send(&server, &format!("{CANARY}_last"), &secret);
    assert_eq!(server.rows_of(305).len(), 305);
    // A forgery leaves the id in the quarantine.
    let forged = sign::standard_at(
        &format!("{CANARY}_last"),
        b"{}",
        sign::now_seconds(),
        sign::STANDARD_SECRET_NEXT,
    );
    assert_eq!(server.send(&forged).status, 401);
    assert!(with_canary(&server).iter().any(|path| path.to_string_lossy().contains("quarantine")));

    for id in ["50", "150", "250", "last"] {
        let id = format!("{CANARY}_{id}");
        let done = command(&server, &["purge", "--json", "--event", &id]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    assert_eq!(with_canary(&server), Vec::<PathBuf>::new());
    assert_eq!(server.events().len(), 300);

    for restarted in [false, true] {
        if restarted {
            server.kill();
            server.run();
        }
        send(&server, &format!("{CANARY}_150"), &secret);
        send(&server, &format!("msg_after_{restarted}"), "{\"type\":\"n\"}");
        let events = 301 + usize::from(restarted);
        let rows = server.rows_of(events + 1 + usize::from(restarted));
        assert_eq!(rows.iter().filter(|row| row.is_event()).count(), events, "{restarted}");
        let known = rows.iter().filter(|row| row.is_delivery()).count();
        assert_eq!(known, 1 + usize::from(restarted), "a delivery of what was purged is known");
    }
    assert!(server.end().success());
    let verified = command(&server, &["segments", "verify"]);
    assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
}

fn a_replay_under_another_id_goes_with_the_event_that_was_named(driver: Driver) {
    let strict = source("strict", "github", &[("only", sign::GITHUB_SECRET)]);
    let mut server = Server::start(Setup::new(driver).more(&(strict + "on_replay = \"drop\"\n")));
    let (first, again) = (format!("{CANARY}-1"), format!("{CANARY}-2"));
    let secret = format!("{{\"who\":\"{CANARY}\"}}");
    let send = |server: &Server, path: &str, guid: &str, body: &str| {
        let request = sign::github(guid, body.as_bytes()).to(path);
        assert_eq!(server.send(&request).status, 200);
    };
    // GitHub signs no id: under another one the same bytes are an event of their own at the first
    // source, with a later delivery, and at the second one a delivery each time.
    for path in ["/github", "/strict"] {
        for guid in [&first, &again, &again] {
            send(&server, path, guid, &secret);
        }
        send(&server, path, "other", "{}");
    }
    // A third copy is refused.
    let header = "x-hub-signature-256";
    let forged = sign::github("3", secret.as_bytes()).without(header);
    let forged = forged.header(header, format!("sha256={}", "0".repeat(64)));
    assert_eq!(server.send(&forged).status, 401);
    let rows = server.rows_of(8);
    assert_eq!(rows.iter().filter(|row| row.suspect_replay).count(), 3);
    let mut held = with_canary(&server).into_iter().map(|path| path.display().to_string());
    assert!(held.any(|path| path.contains("quarantine")));

    let done = command(&server, &["purge", "--json", "--event", &first]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let told: Value = serde_json::from_slice(&done.stdout).unwrap();
    let copies = |bytes: u64, body: u64| json!({ "same_signed_bytes": bytes, "same_body": body });
    let expected = [("quarantine", 1, copies(0, 1)), ("main", 6, copies(4, 0))];
    for ((name, records, copies), lane) in expected.iter().zip(told["lanes"].as_array().unwrap()) {
        assert_eq!((&lane["lane"], &lane["records"]), (&json!(name), &json!(records)), "{told}");
        assert_eq!(lane["copies"], *copies, "{told}");
    }
    assert_eq!(with_canary(&server), Vec::<PathBuf>::new());
    let journal = std::fs::read_to_string(server.data().join("lanes/main/purges")).unwrap();
    let lines: Vec<Value> =
        journal.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // For each source: the key of the event, that of its signed bytes, that of the other id.
    assert_eq!(lines[0]["event_keys"].as_array().map(Vec::len), Some(6));
    assert_eq!(lines[1]["copies"], copies(4, 0));
    assert_eq!(server.rows_of(2).len(), 2, "nothing else went");

    server.kill();
    std::fs::remove_dir_all(server.data().join("lanes/main/dedupe")).unwrap();
    server.run();
    for guid in [&first, &again, "new"] {
        send(&server, "/github", guid, &secret);
    }
    let rows = server.rows_of(5);
    let of_them: Vec<_> =
        rows[2..].iter().map(|row| (row.is_event(), row.suspect_replay)).collect();
    assert_eq!(of_them, [(false, false), (false, false), (true, true)], "both keys are known");
    // By any key of an event that was purged long ago, what has come since goes too.
    let key = rows[2].key.clone();
    let done = command(&server, &["purge", "--event", &key]);
    let told = String::from_utf8_lossy(&done.stdout);
    assert!(told.contains("2 of them came under another id with the same signed bytes"), "{told}");
    assert_eq!(with_canary(&server), Vec::<PathBuf>::new());
}

fn a_purge_that_is_killed_again_and_again_comes_to_its_end_and_harms_nothing(driver: Driver) {
    let mut server = Server::start(Setup::new(driver).segments("128KiB", "8KiB"));
    let secret = format!("{{\"type\":\"n\",\"who\":\"{CANARY}\"}}");
    for index in 0..400 {
        send(&server, &format!("msg_{index}"), &secret);
        let body = format!("{{\"type\":\"n\",\"pad\":\"{}\"}}", "x".repeat(700));
        send(&server, &format!("other_{index}"), &body);
    }
    assert_eq!(server.rows_of(800).len(), 800);
    // Everything of the first source before now; the others come in meanwhile.
    let before = server.rows().last().unwrap().received_at.clone();
    let words = ["purge", "--before", &before, "--source", "std"];
    for round in 0..12 {
        let mut command = forebay(&words);
        let command = command.arg("--dir").arg(server.data()).stdout(Stdio::null());
        let mut purge = command.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(round * 5));
        purge.kill().unwrap();
        purge.wait().unwrap();
        send(&server, &format!("later_{round}"), "{\"type\":\"n\"}");
        if round == 6 {
            server.kill();
            server.run();
        }
    }
    let done = command(&server, &words);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(with_canary(&server), Vec::<PathBuf>::new());
    // The newest of before, and all that came later.
    assert_eq!(server.events().len(), 13);
    send(&server, "msg_17", &secret);
    assert_eq!(server.events().len(), 13, "it is still known");
    assert!(server.end().success());
    let verified = command(&server, &["segments", "verify"]);
    let told = String::from_utf8_lossy(&verified.stdout);
    assert_eq!(verified.status.code(), Some(0), "{told}");
}
