//! `forebay tail`: the log read by another process, while it grows, rolls and restarts.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::support::log::{self, Row};
use crate::support::server::{Server, Setup, source};
use crate::support::{Driver, sign};

for_each_driver![
    a_tail_without_follow_ends_at_the_newest_record,
    a_follower_sees_every_event_across_segments_and_a_restart,
    a_tail_starts_where_it_is_told,
    a_tail_shows_only_what_is_asked_for,
    a_tail_of_nothing_is_empty_and_says_when_there_is_no_lane,
];

const ROW_WAIT: Duration = Duration::from_secs(20);

/// A `tail --follow` in the background.
struct Follower {
    child: Child,
    rows: Receiver<Row>,
}

impl Follower {
    fn start(server: &Server, arguments: &[&str]) -> Self {
        let mut command = server.tail_command(&["--follow", "--json"]);
        let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, rows) = channel();
        std::thread::spawn(move || {
            for line in output.lines() {
                let Ok(line) = line else { return };
                if sender.send(log::row(&line)).is_err() {
                    return;
                }
            }
        });
        Self { child, rows }
    }

    fn next(&self) -> Row {
        self.rows.recv_timeout(ROW_WAIT).expect("another row")
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It follows for ever, so it is ended here; that it has ended already is no fault.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn send(server: &Server, from: usize, to: usize) {
    let mut connection = server.connect();
    for index in from..to {
        let body = format!("{{\"type\":\"n\",\"pad\":\"{}\"}}", "x".repeat(1000));
        let request = sign::standard(&format!("msg_{index}"), body.as_bytes());
        assert_eq!(connection.send(&request).unwrap().status, 200);
    }
}

fn a_tail_without_follow_ends_at_the_newest_record(driver: Driver) {
    let mut server = Server::start(Setup::new(driver));
    send(&server, 0, 100);
    assert_eq!(server.events().len(), 100, "while the server runs");
    assert!(server.end().success());
    assert_eq!(server.events().len(), 100, "while it does not");
}

fn a_follower_sees_every_event_across_segments_and_a_restart(driver: Driver) {
    const EVENTS: usize = 600;
    let mut server = Server::start(Setup::new(driver).segments("128KiB", "8KiB"));
    let follower = Follower::start(&server, &["--from", "earliest"]);
    let mut seen = 0;
    for (from, to) in [(0, EVENTS / 3), (EVENTS / 3, 2 * EVENTS / 3), (2 * EVENTS / 3, EVENTS)] {
        send(&server, from, to);
        while seen < to {
            assert_eq!(follower.next().id(), format!("msg_{seen}"), "in order, none left out");
            seen += 1;
        }
        if to == EVENTS / 3 {
            assert!(server.end().success());
            server.run();
        } else if to < EVENTS {
            server.kill();
            server.run();
        }
    }
    assert!(server.data().is_dir(), "the data folder is where it was said to be");
}

fn a_tail_starts_where_it_is_told(driver: Driver) {
    let server = Server::start(Setup::new(driver));
    send(&server, 0, 10);
    let all = server.events();
    let ids = |arguments: &[&str]| -> Vec<String> {
        let rows = log::rows(&server.tail(&[&["--json"], arguments].concat()));
        rows.iter().map(|row| row.id().to_owned()).collect()
    };
    let expected = |from: usize| -> Vec<String> {
        all[from..].iter().map(|row| row.id().to_owned()).collect()
    };
    assert_eq!(ids(&["--from", "earliest"]), expected(0));
    assert_eq!(ids(&["--from", &all[4].position]), expected(4), "a position names its record");
    assert_eq!(ids(&["--from", &all[7].received_at]), expected(7), "a time is inclusive");
    assert_eq!(ids(&["--from", "2000-01-01T00:00:00Z"]), expected(0));
    assert_eq!(ids(&["--from", "latest"]), expected(10));

    let follower = Follower::start(&server, &["--from", "latest"]);
    std::thread::sleep(Duration::from_millis(500));
    send(&server, 10, 11);
    assert_eq!(follower.next().id(), "msg_10");
    let wrong = server.tail(&["--json", "--from", "yesterday-ish"]);
    assert!(!wrong.status.success(), "a start that cannot be read is refused");
}

fn a_tail_shows_only_what_is_asked_for(driver: Driver) {
    let more = source("other", "standard-webhooks", &[("first", sign::STANDARD_SECRET)]);
    let server = Server::start(Setup::new(driver).more(&more));
    for (id, body, path) in [
        ("msg_1", r#"{"type":"room.started"}"#, "/std"),
        ("msg_2", r#"{"type":"room.ended"}"#, "/std"),
        ("msg_3", r#"{"type":"room.ended"}"#, "/other"),
    ] {
        let request = sign::standard(id, body.as_bytes()).to(path);
        assert_eq!(server.send(&request).status, 200);
    }
    let ids = |arguments: &[&str]| -> Vec<String> {
        let start: &[&str] = &["--json", "--from", "earliest"];
        let rows = log::rows(&server.tail(&[start, arguments].concat()));
        rows.iter().map(|row| row.id().to_owned()).collect()
    };
    assert_eq!(ids(&["--source", "std"]), ["msg_1", "msg_2"]);
    assert_eq!(ids(&["--type", "room.ended"]), ["msg_2", "msg_3"]);
    assert_eq!(ids(&["--source", "other", "--type", "room.ended"]), ["msg_3"]);
    assert!(ids(&["--source", "nobody"]).is_empty());

    let raw = server.tail(&["--raw", "--from", "earliest", "--source", "other"]);
    assert_eq!(String::from_utf8_lossy(&raw.stdout).trim_end(), r#"{"type":"room.ended"}"#);
    let pretty = server.tail(&["--pretty", "--from", "earliest"]);
    assert!(String::from_utf8_lossy(&pretty.stdout).contains("room.started"));
    // The configuration tells where the log is as well as its folder does.
    let config = server.config();
    let config = config.to_str().unwrap();
    let mut command = crate::support::server::forebay(&["tail", "--config", config, "--json"]);
    let by_config = command.args(["--from", "earliest"]).output().unwrap();
    assert_eq!(log::rows(&by_config).len(), 3);
}

fn a_tail_of_nothing_is_empty_and_says_when_there_is_no_lane(driver: Driver) {
    let server = Server::start(Setup::new(driver));
    assert!(server.rows().is_empty());
    let mut command = crate::support::server::forebay(&["tail", "--json", "--dir"]);
    let mut child = command
        .arg(server.data().join("no-such-folder"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(!child.wait().unwrap().success());
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(told.contains("no-such-folder"), "{told}");
}
