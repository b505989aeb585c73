//! A captured request under another id: the signature still holds, since the id is not signed.

use crate::support::Driver;
use crate::support::http::Request;
use crate::support::log::Row;
use crate::support::server::{Server, Setup, source};
use crate::support::sign;

for_each_driver!(
    a_replay_under_another_id_is_kept_and_marked,
    a_replay_is_dropped_where_wanted,
    a_replay_of_what_came_before_the_start_is_seen_however_the_server_ended,
);

/// A delivery of GitHub's, which signs the body and not the id.
fn delivery(path: &str, guid: &str, body: &str) -> Request {
    sign::github(guid, body.as_bytes()).to(path)
}

fn told(rows: &[Row]) -> Vec<(&str, &str, bool)> {
    rows.iter().map(|row| (row.kind.as_str(), row.id(), row.suspect_replay)).collect()
}

/// Replays that were kept, and those that were not, by the metrics.
fn counted(server: &Server, source: &str) -> [u64; 2] {
    let page = server.admin("/metrics");
    ["kept", "dropped"].map(|fate| {
        let series =
            format!("forebay_suspect_replays_total{{source=\"{source}\",fate=\"{fate}\"}} ");
        let value = page.text().lines().find_map(|line| line.strip_prefix(&series));
        value.expect("the series is there").parse().unwrap()
    })
}

fn a_replay_under_another_id_is_kept_and_marked(driver: Driver) {
    let server = Server::start(Setup::new(driver));
    for (guid, body) in [("a", "{}"), ("a", "{}"), ("b", "{}"), ("c", "{} "), ("b", "{}")] {
        assert_eq!(server.send(&delivery("/github", guid, body)).status, 200);
    }
    let rows = server.rows_of(5);
    let mut events = told(&rows);
    events.retain(|(kind, ..)| *kind == "event");
    assert_eq!(events, [("event", "a", false), ("event", "b", true), ("event", "c", false)]);
    assert!(rows.iter().filter(|row| row.is_delivery()).all(|row| !row.suspect_replay));
    assert_eq!(counted(&server, "github"), [1, 0]);
}

fn a_replay_is_dropped_where_wanted(driver: Driver) {
    let strict = source("strict", "github", &[("only", sign::GITHUB_SECRET)]);
    let server = Server::start(Setup::new(driver).more(&(strict + "on_replay = \"drop\"\n")));
    for (guid, body) in [("a", "{}"), ("b", "{}"), ("c", "{} ")] {
        assert_eq!(server.send(&delivery("/strict", guid, body)).status, 200);
    }
    let rows = server.rows_of(3);
    let mut told = told(&rows);
    told.sort_unstable();
    assert_eq!(counted(&server, "strict"), [0, 1]);
    assert_eq!(told, [("delivery", "b", true), ("event", "a", false), ("event", "c", false)]);
}

fn a_replay_of_what_came_before_the_start_is_seen_however_the_server_ended(driver: Driver) {
    let strict = source("strict", "github", &[("only", sign::GITHUB_SECRET)]);
    let mut server = Server::start(Setup::new(driver).more(&(strict + "on_replay = \"drop\"\n")));
    let send = |server: &Server, guid: &str| {
        for path in ["/github", "/strict"] {
            assert_eq!(server.send(&delivery(path, guid, "{}")).status, 200);
        }
    };
    send(&server, "first");
    for (count, end) in (1..).zip(["killed", "ended", "without-its-files"]) {
        if end == "killed" {
            server.kill();
        } else {
            assert!(server.end().success());
        }
        if end == "without-its-files" {
            std::fs::remove_dir_all(server.data().join("lanes/main/dedupe")).unwrap();
        }
        server.run();
        send(&server, end);
        let rows = server.rows_of(2 + 2 * count);
        let mut of_it = told(&rows[2 * count..]);
        of_it.sort_unstable();
        assert_eq!(of_it, [("delivery", end, true), ("event", end, true)]);
        assert_eq!((counted(&server, "github"), counted(&server, "strict")), ([1, 0], [0, 1]));
    }
}
