//! The usual request, over real sockets, and connections that leave the usual way: nothing of what
//! a sender may do is different on it, and no deadline.

use std::io::ErrorKind;
use std::time::Duration;

use crate::support::http::{Connection, Request};
use crate::support::server::{Server, Setup, source};
use crate::support::{Driver, eventually, sign};

for_each_driver![
    a_connection_goes_on_whatever_request_comes_next,
    a_request_may_come_in_any_parts,
    a_long_body_is_stored_whole,
    a_sender_that_ends_its_side_still_has_its_answer,
    a_usual_request_in_flight_is_finished_by_a_drain_and_an_idle_connection_ended,
    a_head_in_flight_is_served_by_a_drain_whoever_serves_it,
    a_used_connection_has_its_deadlines_for_head_and_body,
    the_time_that_forebay_stood_still_is_not_its_senders,
    a_sender_that_never_reads_is_cut_off,
];

/// Longer than `limits::REST_AFTER` and a sweep.
const REST: Duration = Duration::from_millis(1300);
/// How long after its deadline a connection may still be open; busy machines are slow.
const SLACK: Duration = Duration::from_secs(8);

fn request(id: &str) -> Request {
    sign::standard(id, br#"{"type":"in.use"}"#)
}

/// Sends a request and its answer is 200.
fn accepted(connection: &mut Connection, id: &str) {
    assert_eq!(connection.send(&request(id)).expect("an answer").status, 200, "{id}");
}

fn ids(server: &Server) -> Vec<String> {
    server.rows().iter().map(|row| row.id().to_owned()).collect()
}

fn a_connection_goes_on_whatever_request_comes_next(driver: Driver) {
    let server = Server::start(Setup::new(driver));
    let mut connection = server.connect();
    accepted(&mut connection, "msg_usual");
    connection.write(&request("msg_chunks").chunked_bytes(3)).unwrap();
    assert_eq!(connection.read().unwrap().status, 200, "in chunks");
    accepted(&mut connection, "msg_usual_behind");
    std::thread::sleep(REST);
    accepted(&mut connection, "msg_rested");
    std::thread::sleep(REST);
    let bytes = request("msg_in_parts").bytes();
    for part in [&bytes[..1], &bytes[1..40], &bytes[40..]] {
        connection.write(part).unwrap();
        std::thread::sleep(Duration::from_millis(30));
    }
    assert_eq!(connection.read().unwrap().status, 200, "in parts, after a rest");
    // An unusual one in one packet with usual ones before and behind it.
    let ahead = [
        request("msg_before").bytes(),
        request("msg_between").chunked_bytes(5),
        request("msg_behind").bytes(),
    ];
    let mut fresh = server.connect();
    fresh.write(&ahead.concat()).unwrap();
    for _ in &ahead {
        assert_eq!(fresh.read().unwrap().status, 200);
    }
    let last = request("msg_last").header("connection", "close");
    let answer = fresh.send(&last).unwrap();
    assert_eq!((answer.status, answer.closes()), (200, true));
    assert!(fresh.ended_within(SLACK));
    let expected = [
        "msg_usual",
        "msg_chunks",
        "msg_usual_behind",
        "msg_rested",
        "msg_in_parts",
        "msg_before",
        "msg_between",
        "msg_behind",
        "msg_last",
    ];
    assert_eq!(ids(&server), expected);
}

fn a_request_may_come_in_any_parts(driver: Driver) {
    let server = Server::start(Setup::new(driver));
    let mut connection = server.connect();
    for round in 0..3 {
        let request = request(&format!("msg_apart_{round}"));
        let bytes = request.bytes();
        let (head, body) = bytes.split_at(bytes.len() - request.body.len());
        connection.write(head).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        connection.write(body).unwrap();
        assert_eq!(connection.read().unwrap().status, 200, "head and body apart");
    }
    for byte in request("msg_bytes").bytes() {
        connection.write(&[byte]).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(connection.read().unwrap().status, 200, "byte by byte");
    accepted(&mut connection, "msg_behind");
    let expected = ["msg_apart_0", "msg_apart_1", "msg_apart_2", "msg_bytes", "msg_behind"];
    assert_eq!(ids(&server), expected);
}

fn a_long_body_is_stored_whole(driver: Driver) {
    let server = Server::start(Setup::new(driver).segments("32MiB", "1MiB"));
    let body: Vec<u8> = (0..=250).cycle().take(300 * 1024).collect();
    let mut connection = server.connect();
    accepted(&mut connection, "msg_before");
    assert_eq!(connection.send(&sign::standard("msg_long", &body)).unwrap().status, 200);
    let bytes = sign::standard("msg_in_parts", &body).bytes();
    for part in bytes.chunks(50_000) {
        connection.write(part).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(connection.read().unwrap().status, 200);
    accepted(&mut connection, "msg_behind");
    let rows = server.rows();
    assert_eq!(rows.len(), 4);
    assert!(rows[1].body() == body && rows[2].body() == body, "byte for byte");
}

fn a_sender_that_ends_its_side_still_has_its_answer(driver: Driver) {
    let server = Server::start(Setup::new(driver));
    for (before, id) in [(None, "msg_first"), (Some("msg_before"), "msg_second")] {
        let mut connection = server.connect();
        if let Some(before) = before {
            accepted(&mut connection, before);
        }
        connection.write(&request(id).bytes()).unwrap();
        connection.finish();
        assert_eq!(connection.read().unwrap().status, 200, "{id}");
        assert!(connection.ended_within(SLACK));
    }
    assert_eq!(ids(&server).len(), 3);
}

fn a_usual_request_in_flight_is_finished_by_a_drain_and_an_idle_connection_ended(driver: Driver) {
    let mut server = Server::start(Setup::new(driver));
    let (mut begun, mut idle) = (server.connect(), server.connect());
    accepted(&mut begun, "msg_before");
    accepted(&mut idle, "msg_idle");
    let bytes = request("msg_begun").bytes();
    let (now, later) = bytes.split_at(bytes.len() - 5);
    begun.write(now).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    server.ask_to_end();
    assert!(idle.ended_within(SLACK), "nothing was begun on it");
    begun.write(later).unwrap();
    // Whether the answer says that it is the last depends on which receiver was told first.
    assert_eq!(begun.read().unwrap().status, 200);
    assert!(begun.ended_within(SLACK), "a draining server keeps no connection");
    assert!(server.exit().success());
    assert_eq!(server.events().len(), 3);
}

fn a_head_in_flight_is_served_by_a_drain_whoever_serves_it(driver: Driver) {
    let mut server = Server::start(Setup::new(driver));
    let mut idle = server.connect();
    accepted(&mut idle, "msg_idle");
    let chunked = |id| request(id).chunked_bytes(5);
    let mut by_hyper = server.connect();
    by_hyper.write(&chunked("msg_before")).unwrap();
    assert_eq!(by_hyper.read().unwrap().status, 200);
    let mut begun = [
        (server.connect(), request("msg_usual").bytes()),
        (server.connect(), chunked("msg_to_be_handed_over")),
        (by_hyper, chunked("msg_behind")),
    ];
    for (connection, bytes) in &mut begun {
        connection.write(&bytes[..40]).unwrap();
    }
    std::thread::sleep(Duration::from_millis(200));
    server.ask_to_end();
    assert!(idle.ended_within(SLACK), "the drain has begun");
    std::thread::sleep(Duration::from_millis(100));
    for (connection, bytes) in &mut begun {
        connection.write(&bytes[40..]).unwrap();
        assert_eq!(connection.read().unwrap().status, 200);
        assert!(connection.ended_within(SLACK), "a draining server keeps no connection");
    }
    assert!(server.exit().success());
    assert_eq!(server.events().len(), 5);
}

fn a_used_connection_has_its_deadlines_for_head_and_body(driver: Driver) {
    let server = Server::start(
        Setup::new(driver)
            .receive("head_timeout = \"400ms\"")
            .receive("body_timeout = \"800ms\"")
            .receive("body_rate_min = \"64KiB\""),
    );
    let bytes = request("msg_slow").bytes();
    let mut head = server.connect();
    accepted(&mut head, "msg_head");
    head.write(&bytes[..60]).unwrap();
    assert!(head.ended_within(SLACK), "a head that does not end");

    let mut body = server.connect();
    accepted(&mut body, "msg_body");
    body.write(&bytes[..bytes.len() - 5]).unwrap();
    assert_eq!(body.read().unwrap().status, 408);
    assert!(body.ended_within(SLACK), "a body that does not end");

    // A byte at a time would satisfy a deadline that each byte renews.
    let mut trickle = server.connect();
    accepted(&mut trickle, "msg_trickle");
    let slow = request("msg_slow").header("content-length", "10000");
    trickle.write(&slow.head_bytes()).unwrap();
    eventually("the trickle is cut off", SLACK, || {
        trickle.write(b"x").is_err() || trickle.ended_within(Duration::from_millis(50))
    });
    assert_eq!(ids(&server), ["msg_head", "msg_body", "msg_trickle"]);
}

fn the_time_that_forebay_stood_still_is_not_its_senders(driver: Driver) {
    let deadline = Duration::from_secs(1);
    let setup = ["head_timeout", "body_timeout", "idle_timeout"]
        .iter()
        .fold(Setup::new(driver), |setup, name| setup.receive(&format!("{name} = \"1s\"")));
    let server = Server::start(setup);
    let parts: [(&str, &dyn Fn(usize) -> usize); 3] =
        [("msg_idle", &|_| 0), ("msg_head", &|_| 60), ("msg_body", &|all| all - 5)];
    let mut begun = Vec::new();
    for (id, first_part) in parts {
        let mut connection = server.connect();
        accepted(&mut connection, &format!("{id}_before"));
        let bytes = request(id).bytes();
        let (first, rest) = bytes.split_at(first_part(bytes.len()));
        connection.write(first).unwrap();
        begun.push((connection, rest.to_vec()));
    }
    // Long enough for what was sent to be read.
    std::thread::sleep(deadline / 8);
    server.stand_still(2 * deadline);
    // Long enough for a sweep, which must find none of them late.
    std::thread::sleep(deadline / 4);
    for (mut connection, rest) in begun {
        connection.write(&rest).unwrap();
        assert_eq!(connection.read().expect("an answer").status, 200);
    }
    assert_eq!(ids(&server)[parts.len()..], parts.map(|(id, _)| id));
}

/// Its answers fill what lies between both, and then the server waits for it: not for long.
fn a_sender_that_never_reads_is_cut_off(driver: Driver) {
    let long = source("long", "standard-webhooks", &[("first", sign::STANDARD_SECRET)])
        + &format!("[source.answers]\nsuccess_body = \"{}\"\n", "x".repeat(1024));
    let setup = Setup::new(driver).receive("write_timeout = \"500ms\"").more(&long);
    let server = Server::start(setup);
    let mut deaf = server.connect();
    // Once, for a log that stays small: what comes again is only noted.
    let ahead = request("msg_again").to("/long").bytes().repeat(200);
    // A write that only waits too long is an error as well, and none of these.
    let cut = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
    eventually("the server stops to listen, and ends it", 4 * SLACK, || {
        deaf.write(&ahead).is_err_and(|error| cut.contains(&error.kind()))
    });
    let mut other = server.connect();
    accepted(&mut other, "msg_other");
}
