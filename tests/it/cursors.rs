//! `forebay tail --cursor`: consumers read on where they stood, and what retention had to remove
//! all the same is told on every side.

use std::process::Output;
use std::time::Duration;

use crate::support::log;
use crate::support::server::{Server, Setup, forebay};
use crate::support::{Driver, eventually, sign};

for_each_driver![
    a_cursor_prints_every_event_once_over_restarts_of_the_server,
    what_retention_removes_in_spite_of_a_cursor_is_counted_and_logged,
];

fn send(server: &Server, from: usize, to: usize) {
    let mut connection = server.connect();
    for index in from..to {
        let body = format!("{{\"type\":\"n\",\"pad\":\"{}\"}}", "x".repeat(700));
        let request = sign::standard(&format!("msg_{index}"), body.as_bytes());
        assert_eq!(connection.send(&request).unwrap().status, 200);
    }
}

fn tail(server: &Server) -> (Vec<String>, String) {
    let output = server.tail(&["--json", "--cursor", "billing"]);
    let rows = log::rows(&output).iter().map(|row| row.id().to_owned()).collect();
    (rows, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn cursors(server: &Server, words: &[&str]) -> Output {
    forebay(&["cursors"]).args(words).arg("--dir").arg(server.data()).output().unwrap()
}

fn ids(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|index| format!("msg_{index}")).collect()
}

fn a_cursor_prints_every_event_once_over_restarts_of_the_server(driver: Driver) {
    let mut server = Server::start(Setup::new(driver).segments("128KiB", "8KiB"));
    for round in 0..4 {
        send(&server, round * 150, (round + 1) * 150);
        assert_eq!(server.rows_of((round + 1) * 150).len(), (round + 1) * 150);
        assert_eq!(tail(&server).0, ids(round * 150, (round + 1) * 150));
        if round % 2 == 0 {
            server.kill();
        } else {
            assert!(server.end().success());
        }
        assert_eq!(tail(&server).0, ids(0, 0), "nothing twice, with no server either");
        server.run();
    }
    let listed = cursors(&server, &["list", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed["lanes"][0]["cursors"][0]["name"], "billing");
    assert_eq!(listed["lanes"][0]["cursors"][0]["in_use"], false);
    assert_eq!(cursors(&server, &["remove", "billing"]).status.code(), Some(0));
    let gone = cursors(&server, &["remove", "billing"]);
    assert_eq!(gone.status.code(), Some(2));
    let told = String::from_utf8_lossy(&gone.stderr).into_owned();
    assert!(told.contains("lane main has no cursor billing; there is none"), "{told}");
    assert_eq!(cursors(&server, &["remove", "../lock"]).status.code(), Some(2));
    assert_eq!(tail(&server).0, ids(0, 600), "a new one begins at the start");
}

fn what_retention_removes_in_spite_of_a_cursor_is_counted_and_logged(driver: Driver) {
    let setup = Setup::new(driver).segments("128KiB", "8KiB").retention("512KiB");
    let server = Server::start(setup);
    send(&server, 0, 10);
    assert_eq!(server.rows_of(10).len(), 10);
    assert_eq!(tail(&server).0, ids(0, 10));
    send(&server, 10, 1500);
    let dropped = || {
        let page = String::from_utf8(server.admin("/metrics").body).unwrap();
        let name = "forebay_lane_unread_dropped_total{lane=\"main\"} ";
        let line = page.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        line.parse::<u64>().unwrap()
    };
    eventually("records are dropped", Duration::from_secs(20), || dropped() > 100);
    eventually("that is logged", Duration::from_secs(20), || {
        server.log().contains("retention removed records that a cursor had not read")
    });
    let (rows, told) = tail(&server);
    assert_eq!(rows.last(), ids(1499, 1500).first());
    assert!(rows.len() < 1400);
    assert!(told.contains("segments that were gone"), "{told}");
}
