//! `forebay dead-letters` from outside, on letters that the test itself has put where the server
//! would have.

use std::io::{BufRead as _, BufReader};
use std::process::{Output, Stdio};
use std::time::Duration;

use forebay_log::{AckLevel, Key, Kind, Lane, LaneOptions, MetaWriter, NewRecord, Tag};
use serde_json::Value;

use crate::support::server::{Server, Setup, forebay};
use crate::support::{Driver, eventually, stranger};

const SINK: &str = "\n[[sink]]\nname = \"out\"\n[sink.stdout]\n";

const COUNT_WAIT: Duration = Duration::from_secs(30);

fn body(index: u8) -> String {
    format!("{{\"letter\":{index}}}")
}

/// A data folder with so many dead letters of the sink, every other one of type `odd`.
fn letters(count: u8) -> Server {
    letters_of(SINK, count)
}

fn letters_of(sink: &str, count: u8) -> Server {
    let server = Server::prepare(Setup::new(Driver::Epoll).more(sink));
    bury(&server, "out", count);
    server
}

/// Puts letters where the server would have.
fn bury(server: &Server, name: &str, count: u8) {
    let options = LaneOptions {
        segment_bytes: 1 << 20,
        ack: AckLevel::Written,
        disk_reserve_bytes: Some(0),
        ..LaneOptions::default()
    };
    let folder = server.data().join("dead-letters");
    std::fs::create_dir_all(&folder).unwrap();
    let (lane, _) = Lane::open(folder.join(name), options).unwrap();
    let mut appender = lane.appender();
    let mut meta = MetaWriter::default();
    for index in 0..count {
        meta.clear();
        let id = format!("evt_{index}");
        let kind = if index % 2 == 0 { "even" } else { "odd" };
        for (tag, text) in [
            (Tag::DeadReason, "permanent: answered 422"),
            (Tag::DeadAttempts, "3"),
            (Tag::DeadLane, "main"),
            (Tag::DeadPosition, "1-4096"),
            (Tag::Source, "std"),
            (Tag::EventId, &id),
            (Tag::EventType, kind),
        ] {
            meta.field(tag, text.as_bytes()).unwrap();
        }
        let body = body(index);
        let record = NewRecord {
            kind: Kind::Event,
            key: Key([index; 16]),
            received_ns: 1_700_000_000_000_000_000 + u64::from(index),
            meta: meta.as_bytes(),
            body: body.as_bytes(),
        };
        appender.append(&record).unwrap();
    }
}

fn run(server: &Server, words: &[&str]) -> Output {
    let (verb, rest) = words.split_first().unwrap();
    let mut command = forebay(&["dead-letters", verb, "--config"]);
    command.arg(server.config()).args(rest).output().unwrap()
}

/// The ids of the letters that are listed.
fn listed(server: &Server, words: &[&str]) -> Vec<String> {
    let output = run(server, &[&["list", "--json"], words].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let id = |letter: &Value| letter["event_id"].as_str().unwrap().to_owned();
    listed["dead_letters"].as_array().unwrap().iter().map(id).collect()
}

#[test]
fn letters_are_listed_with_what_is_known_of_them() {
    let server = letters(4);
    assert_eq!(listed(&server, &[]), ["evt_0", "evt_1", "evt_2", "evt_3"]);
    assert_eq!(listed(&server, &["--type", "odd"]), ["evt_1", "evt_3"]);
    assert_eq!(listed(&server, &["--event", "evt_2", "--sink", "out"]), ["evt_2"]);
    assert_eq!(listed(&server, &["--reason", "422"]).len(), 4);
    assert!(listed(&server, &["--reason", "500"]).is_empty());
    assert!(listed(&server, &["--from", "1h"]).is_empty(), "they are of 2023");
    let output = run(&server, &["list", "--json", "--event", "evt_1"]);
    let letter: Value = serde_json::from_slice(&output.stdout).unwrap();
    let letter = &letter["dead_letters"][0];
    assert_eq!((&letter["sink"], &letter["lane"]), (&"out".into(), &"main".into()));
    assert_eq!((&letter["attempts"], &letter["lane_position"]), (&3.into(), &"1-4096".into()));
    let shown = run(&server, &["show", "--event", "evt_1"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["body"], body(1));
    assert_eq!(run(&server, &["list", "--sink", "none"]).status.code(), Some(2));
}

#[test]
fn letters_are_redriven_once_and_a_dry_run_does_nothing() {
    let server = letters(4);
    assert_eq!(run(&server, &["redrive"]).status.code(), Some(2), "nobody means all by nothing");
    let dry = run(&server, &["redrive", "--type", "odd", "--dry-run", "--json"]);
    let dry: Value = serde_json::from_slice(&dry.stdout).unwrap();
    assert_eq!(dry["events"].as_array().map(Vec::len), Some(2));
    assert_eq!(listed(&server, &[]).len(), 4);
    let redriven = run(&server, &["redrive", "--type", "odd"]);
    let text = String::from_utf8(redriven.stdout).unwrap();
    assert_eq!(text, format!("{}\n{}\nredriven 2 events, 0 refused\n", body(1), body(3)));
    assert_eq!(listed(&server, &[]), ["evt_0", "evt_2"]);
    let again = String::from_utf8(run(&server, &["redrive", "--type", "odd"]).stdout).unwrap();
    assert_eq!(again, "redriven 0 events, 0 refused\n");
}

/// Waits until the metrics say this of the letters that wait.
fn wait_for_count(server: &Server, count: u64) {
    let line = format!("forebay_sink_dead_letters_waiting{{sink=\"out\"}} {count}");
    eventually(&line, COUNT_WAIT, || {
        server.admin("/metrics").text().lines().any(|shown| shown == line)
    });
}

#[test]
fn letters_that_wait_are_counted_from_the_start_on_and_while_they_become_fewer() {
    let mut server = letters(4);
    server.run();
    wait_for_count(&server, 4);
    let oldest = "forebay_sink_dead_letters_oldest_timestamp_seconds{sink=\"out\"} 1700000000";
    assert!(server.admin("/metrics").text().contains(oldest), "of 2023");
    assert!(run(&server, &["discard", "--event", "evt_1"]).status.success());
    wait_for_count(&server, 3);
    assert!(run(&server, &["redrive", "--event", "evt_2"]).status.success());
    wait_for_count(&server, 2);
    assert!(server.end().success());
    server.run();
    wait_for_count(&server, 2);
    assert!(run(&server, &["discard", "--all"]).status.success());
    wait_for_count(&server, 0);
    assert!(!server.admin("/metrics").text().contains("letters_oldest_timestamp_seconds{"));
}

#[test]
fn letters_that_are_discarded_are_listed_no_more() {
    let server = letters(3);
    let dry = run(&server, &["discard", "--all", "--dry-run"]);
    assert!(dry.status.success());
    assert_eq!(listed(&server, &[]).len(), 3);
    let done = run(&server, &["discard", "--event", "evt_1", "--json"]);
    let done: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(done["discarded"], 1);
    assert_eq!(listed(&server, &[]), ["evt_0", "evt_2"]);
    assert!(run(&server, &["discard", "--all"]).status.success());
    assert!(listed(&server, &[]).is_empty());
}

#[test]
fn letters_that_cannot_be_looked_at_are_not_taken_for_none() {
    let server = Server::prepare(Setup::new(Driver::Epoll).more(SINK));
    assert!(run(&server, &["list"]).status.success(), "nothing was given up yet");
    std::fs::create_dir_all(server.data()).unwrap();
    std::fs::write(server.data().join("dead-letters"), "").unwrap();
    let output = run(&server, &["list"]);
    assert_eq!(output.status.code(), Some(75));
    assert!(String::from_utf8_lossy(&output.stderr).contains("dead-letters"));
}

#[test]
fn a_redrive_says_why_it_waits() {
    // Nobody listens there.
    let sink = "\n[[sink]]\nname = \"out\"\nretry = { first = \"1ms\", max = \"1ms\", horizon = \"1m\" }\n\
                [sink.http]\nurl = \"http://127.0.0.1:9/\"\nallow_private = true\n\
                secrets = [{ name = \"a\", value = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\" }]\n";
    let server = letters_of(sink, 1);
    let mut command = forebay(&["dead-letters", "redrive", "--all", "--config"]);
    let mut child = command.arg(server.config()).stderr(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let told = said.take(20).find(|line| line.contains("left alone until a probe"));
    child.kill().unwrap();
    child.wait().unwrap();
    let told = told.expect("it is told long before the horizon");
    assert!(told.contains("\"sink\":\"out\"") && told.contains("temporary"), "{told}");
    assert_eq!(listed(&server, &[]), ["evt_0"]);
}

#[test]
fn a_redrive_to_a_sink_that_takes_nothing_says_why_and_ends_and_keeps_no_other_from_its_letters() {
    let locked = format!(
        "\n[[sink]]\nname = \"locked\"\nretry = {{ first = \"10ms\", max = \"50ms\" }}\n\
         [sink.http]\nurl = \"http://127.0.0.1:{}/\"\nallow_private = true\n",
        stranger()
    );
    let server = letters_of(&[locked.as_str(), SINK].concat(), 2);
    bury(&server, "locked", 3);
    let told = run(&server, &["redrive", "--all", "--timeout", "1s"]);
    let (out, err) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    assert_eq!(told.status.code(), Some(75), "{err}");
    assert_eq!(out, format!("{}\n{}\nredriven 2 events, 0 refused\n", body(0), body(1)));
    assert!(err.contains("the sink takes nothing; trying again"), "{err}");
    let last = err.lines().last().unwrap_or_default();
    assert!(last.contains("gave up after 1s: sink locked takes nothing (misconfigured"), "{err}");
    assert!(last.ends_with("what was not redriven stays a dead letter"), "{err}");
    assert!(listed(&server, &["--sink", "out"]).is_empty());
    assert_eq!(listed(&server, &["--sink", "locked"]).len(), 3);
}
