//! Accepted once: an event's first delivery is stored, every later one is acknowledged and only
//! noted, whatever the order, the connection or the moment.

use std::collections::HashMap;
use std::sync::Barrier;
use std::time::Duration;

use crate::support::http::{Connection, Request};
use crate::support::log::Row;
use crate::support::server::{Server, Setup, source};
use crate::support::{Driver, setting, sign};

for_each_driver![
    an_event_is_stored_once_and_its_second_delivery_is_noted,
    a_record_holds_the_request_byte_for_byte,
    first_deliveries_at_once_leave_one_record,
    requests_sent_ahead_are_answered_in_order,
    a_connection_that_has_rested_is_served_as_before,
    a_body_in_chunks_is_stored_as_one,
    a_sender_that_waits_for_100_continue_is_told_to_go_on,
    an_event_is_still_known_after_a_restart,
    the_same_id_from_another_source_is_another_event,
    the_same_unsigned_id_with_another_body_is_another_event,
    every_preset_in_use_accepts_its_sender,
];

const CONNECTIONS: usize = 64;
const SENDER_THREADS: usize = 4;

fn an_event_is_stored_once_and_its_second_delivery_is_noted(driver: Driver) {
    for ack in ["written", "synced"] {
        let server = Server::start(Setup::new(driver).ack(ack));
        let request = sign::standard("msg_once", br#"{"type":"room.ended"}"#);
        for _ in 0..3 {
            let response = server.send(&request);
            assert_eq!((response.status, response.text()), (200, ""), "an empty ack");
        }
        let rows = server.rows_of(3);
        let kinds: Vec<&str> = rows.iter().map(|row| row.kind.as_str()).collect();
        assert_eq!(kinds, ["event", "delivery", "delivery"], "{ack}");
        assert!(rows.iter().all(|row| row.id() == "msg_once"), "{rows:?}");
        assert_eq!(server.events().len(), 1, "tail leaves deliveries out unless asked");
    }
}

fn a_record_holds_the_request_byte_for_byte(driver: Driver) {
    let server = Server::start(Setup::new(driver));
    let body: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    let request = sign::standard("msg_bytes", &body).header("x-note", b"caf\xc3\xa9 \xff".to_vec());
    assert_eq!(server.send(&request).status, 200);
    let text = sign::standard("msg_text", "{\"type\":\"ping\",\"q\":\"\u{6771}\"}\r\n".as_bytes());
    assert_eq!(server.send(&text).status, 200);

    let rows = server.rows();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].body(), body);
    assert_eq!(rows[1].body(), text.body);
    assert_eq!(rows[1].event_type.as_deref(), Some("ping"));
    for row in &rows {
        assert_eq!(row.lane, "main");
        assert_eq!(row.source.as_deref(), Some("std"));
        assert_eq!(row.environment.as_deref(), Some("test"));
        assert_eq!(row.secret.as_deref(), Some("first"));
        assert!(row.received_at.ends_with('Z'), "{}", row.received_at);
        let headers = row.headers.to_string();
        assert!(headers.contains("webhook-signature"), "{headers}");
    }
}

/// Many connections bring the same event at the same moment, as when a sender's timeout is short
/// and its retries overtake each other: all are acknowledged, one is the event.
fn first_deliveries_at_once_leave_one_record(driver: Driver) {
    let rounds = setting("IT_TWIN_ROUNDS", 50);
    for ack in ["written", "synced"] {
        let setup = Setup::new(driver).ack(ack).segments("32MiB", "1MiB");
        let server = Server::start(setup);
        let barrier = Barrier::new(SENDER_THREADS);
        std::thread::scope(|scope| {
            for _ in 0..SENDER_THREADS {
                scope.spawn(|| deliver_together(&server, &barrier, rounds));
            }
        });
        let mut counts: HashMap<String, (u64, u64)> = HashMap::new();
        for row in server.rows_of(usize::try_from(rounds).unwrap() * CONNECTIONS) {
            let (events, deliveries) = counts.entry(row.id().to_owned()).or_default();
            *events += u64::from(row.is_event());
            *deliveries += u64::from(row.is_delivery());
        }
        assert_eq!(counts.len() as u64, rounds, "{ack}: an event for each round");
        for (id, (events, deliveries)) in counts {
            assert_eq!(events, 1, "{ack}: {id} is stored once");
            assert_eq!(deliveries, CONNECTIONS as u64 - 1, "{ack}: every twin of {id} is noted");
        }
    }
}

fn deliver_together(server: &Server, barrier: &Barrier, rounds: u64) {
    let mut connections: Vec<Connection> =
        (0..CONNECTIONS / SENDER_THREADS).map(|_| server.connect()).collect();
    for round in 0..rounds {
        let request = sign::standard(&format!("msg_twin_{round}"), b"{\"type\":\"twin\"}").bytes();
        barrier.wait();
        for connection in &mut connections {
            connection.write(&request).unwrap();
        }
        for connection in &mut connections {
            assert_eq!(connection.read().unwrap().status, 200, "round {round}");
        }
    }
}

fn requests_sent_ahead_are_answered_in_order(driver: Driver) {
    const AHEAD: usize = 100;
    let server = Server::start(Setup::new(driver));
    let ahead = |from: usize, to: usize| -> Vec<u8> {
        let requests =
            (from..to).map(|index| sign::standard(&format!("msg_{index:03}"), b"{}").bytes());
        requests.flatten().collect()
    };
    let mut connection = server.connect();
    connection.write(&ahead(0, AHEAD)).unwrap();
    for index in 0..AHEAD {
        assert_eq!(connection.read().unwrap().status, 200, "answer {index}");
    }
    // A refusal ends the connection: what was sent behind it is neither answered nor stored.
    let mut forged = sign::standard("msg_forged", b"{}");
    forged.body = b"[]".to_vec();
    let behind = ahead(AHEAD + 1, AHEAD + 3);
    connection.write(&[ahead(AHEAD, AHEAD + 1), forged.bytes(), behind].concat()).unwrap();
    assert_eq!(connection.read().unwrap().status, 200);
    let refusal = connection.read().unwrap();
    assert_eq!((refusal.status, refusal.closes()), (401, true));
    assert!(connection.ended_within(Duration::from_secs(5)));
    let ids: Vec<String> = server.rows().iter().map(|row| row.id().to_owned()).collect();
    let expected: Vec<String> = (0..=AHEAD).map(|index| format!("msg_{index:03}")).collect();
    assert_eq!(ids, expected);
}

/// Longer than `limits::REST_AFTER` and a sweep.
const REST: Duration = Duration::from_millis(1300);

fn a_connection_that_has_rested_is_served_as_before(driver: Driver) {
    let server = Server::start(Setup::new(driver));
    let mut connection = server.connect();
    let request = |id: &str| sign::standard(id, "x".repeat(20_000).as_bytes());
    std::thread::sleep(REST);
    assert_eq!(connection.send(&request("msg_unused")).unwrap().status, 200);
    std::thread::sleep(REST);
    let bytes = request("msg_in_parts").bytes();
    for part in [&bytes[..1], &bytes[1..40], &bytes[40..]] {
        connection.write(part).unwrap();
        // One that has begun to send is not idle.
        std::thread::sleep(REST);
    }
    assert_eq!(connection.read().unwrap().status, 200);
    let ahead = [request("msg_ahead").bytes(), request("msg_behind").bytes()].concat();
    let (now, later) = ahead.split_at(ahead.len() - 10);
    connection.write(now).unwrap();
    assert_eq!(connection.read().unwrap().status, 200);
    std::thread::sleep(REST);
    connection.write(later).unwrap();
    assert_eq!(connection.read().unwrap().status, 200);
    std::thread::sleep(REST);
    connection.finish();
    assert!(connection.ended_within(Duration::from_secs(5)), "it sees that its peer is gone");
    assert_eq!(server.events().len(), 4);
}

fn a_body_in_chunks_is_stored_as_one(driver: Driver) {
    let server = Server::start(Setup::new(driver));
    let body = br#"{"type":"in.chunks","data":[1,2,3]}"#;
    let mut connection = server.connect();
    for (chunk_bytes, id) in [(1, "msg_ones"), (7, "msg_sevens"), (4096, "msg_whole")] {
        connection.write(&sign::standard(id, body).chunked_bytes(chunk_bytes)).unwrap();
        assert_eq!(connection.read().unwrap().status, 200, "{id}");
    }
    let rows = server.rows();
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row.body() == body), "{rows:?}");
}

fn a_sender_that_waits_for_100_continue_is_told_to_go_on(driver: Driver) {
    let server = Server::start(Setup::new(driver));
    let request = sign::standard("msg_expect", b"{\"type\":\"expected\"}");
    let length = request.body.len().to_string();
    let head = request.clone().header("content-length", length).header("expect", "100-continue");
    let mut connection = server.connect();
    connection.write(&head.head_bytes()).unwrap();
    assert_eq!(connection.read_any().unwrap().status, 100);
    connection.write(&request.body).unwrap();
    assert_eq!(connection.read().unwrap().status, 200);
    // A request that is refused by its head is refused before the body is asked for.
    let mut connection = server.connect();
    connection.write(&head.to("/nowhere").head_bytes()).unwrap();
    assert_eq!(connection.read_any().unwrap().status, 404);
}

fn an_event_is_still_known_after_a_restart(driver: Driver) {
    let mut server = Server::start(Setup::new(driver));
    let requests: Vec<Request> = (0..50)
        .map(|index| sign::standard(&format!("msg_{index}"), b"{\"type\":\"kept\"}"))
        .collect();
    let mut connection = server.connect();
    for request in &requests {
        assert_eq!(connection.send(request).unwrap().status, 200);
    }
    drop(connection);
    let before: Vec<String> = server.rows().iter().map(|row| row.position.clone()).collect();
    assert!(server.end().success());
    server.run();
    for request in &requests {
        assert_eq!(server.send(request).status, 200);
    }
    let events: Vec<Row> = server.events();
    let positions: Vec<String> = events.iter().map(|row| row.position.clone()).collect();
    assert_eq!(positions, before, "events keep their positions, and none is stored again");
    server.rows_of(2 * requests.len());
}

fn the_same_id_from_another_source_is_another_event(driver: Driver) {
    let more = source("other", "standard-webhooks", &[("first", sign::STANDARD_SECRET)]);
    let server = Server::start(Setup::new(driver).more(&more));
    let request = sign::standard("msg_shared", b"{\"type\":\"shared\"}");
    assert_eq!(server.send(&request).status, 200);
    assert_eq!(server.send(&request.to("/other")).status, 200);
    let rows = server.rows();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(Row::is_event), "{rows:?}");
}

/// GitHub does not sign its delivery id: whoever saw one request could otherwise take an id in
/// advance, and the true event would be answered as known and lost.
fn the_same_unsigned_id_with_another_body_is_another_event(driver: Driver) {
    let server = Server::start(Setup::new(driver));
    assert_eq!(server.send(&sign::github("id-1", b"{\"action\":\"a\"}")).status, 200);
    assert_eq!(server.send(&sign::github("id-1", b"{\"action\":\"b\"}")).status, 200);
    assert_eq!(server.send(&sign::github("id-1", b"{\"action\":\"b\"}")).status, 200);
    let kinds: Vec<String> = server.rows_of(3).iter().map(|row| row.kind.clone()).collect();
    assert_eq!(kinds, ["event", "event", "delivery"]);
}

fn every_preset_in_use_accepts_its_sender(driver: Driver) {
    let server = Server::start(Setup::new(driver));
    let livekit = br#"{"event":"room_started","id":"EV_1","createdAt":"1700000000"}"#;
    let requests = [
        sign::standard("msg_1", b"{\"type\":\"t\"}"),
        sign::github("delivery-1", b"{}"),
        sign::livekit(livekit, sign::Token::Signed),
    ];
    for request in &requests {
        assert_eq!(server.send(request).status, 200, "{}", request.target);
    }
    let ids: Vec<String> = server.rows().iter().map(|row| row.id().to_owned()).collect();
    assert_eq!(ids, ["msg_1", "delivery-1", "EV_1"]);
}
