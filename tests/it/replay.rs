//! A captured request under another id: the signature still holds, since the id is not signed.

use crate::support::Driver;
use crate::support::http::Request;
use crate::support::log::Row;
use crate::support::server::{Server, Setup, source};
use crate::support::sign;

for_each_driver!(a_replay_under_another_id_is_kept_and_marked, a_replay_is_dropped_where_wanted);

/// A delivery of GitHub's, which signs the body and not the id.
fn delivery(path: &str, guid: &str, body: &str) -> Request {
    sign::github(guid, body.as_bytes()).to(path)
}

fn told(rows: &[Row]) -> Vec<(&str, &str, bool)> {
    rows.iter().map(|row| (row.kind.as_str(), row.id(), row.suspect_replay)).collect()
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
    assert_eq!(told, [("delivery", "b", true), ("event", "a", false), ("event", "c", false)]);
}
