//! Refused: every kind of bad request gets the status that is true of it, leaves nothing in the
//! log, and leaves the connection either closed or fit for the next request.

use std::time::Duration;

use crate::support::http::{Connection, Request, Response};
use crate::support::server::{Server, Setup};
use crate::support::{Driver, eventually, sign};

for_each_driver![
    bad_requests_are_refused_and_leave_nothing,
    a_head_that_does_not_end_is_cut_off,
    a_body_that_does_not_end_is_cut_off,
    a_body_that_trickles_is_cut_off,
    a_connection_that_says_nothing_is_cut_off,
    a_sender_that_leaves_early_harms_nobody,
    a_length_beside_chunks_smuggles_nothing,
    a_body_that_is_announced_and_not_sent_takes_no_room_from_others,
];

const BODY_MAX: usize = 64 * 1024;
const BODY: &[u8] = br#"{"type":"never.stored"}"#;

/// A bad request: what it is, its bytes, the statuses that are true of it.
struct Case {
    what: &'static str,
    bytes: Vec<u8>,
    statuses: &'static [u16],
    /// The parser gives up before a request exists, and closes.
    by_parser: bool,
    /// The sender ends its half after the last byte.
    finished: bool,
}

fn case(what: &'static str, bytes: Vec<u8>, statuses: &'static [u16]) -> Case {
    Case { what, bytes, statuses, by_parser: false, finished: false }
}

fn parsed(what: &'static str, bytes: Vec<u8>) -> Case {
    Case { by_parser: true, ..case(what, bytes, &[400, 413, 414, 431, 501, 505]) }
}

fn good(id: &str) -> Request {
    sign::standard(id, BODY)
}

/// A good request with a length declared, for its head to be bent.
fn sized(id: &str) -> Request {
    good(id).header("content-length", BODY.len().to_string())
}

fn with_body(request: &Request, body: &[u8]) -> Vec<u8> {
    [&request.head_bytes(), body].concat()
}

fn routes() -> Vec<Case> {
    let get = Request { method: "GET".to_owned(), ..good("get") };
    let put = Request { method: "PUT".to_owned(), ..good("put") };
    let delete = Request { method: "DELETE".to_owned(), ..good("delete") };
    let odd = Request { method: "BREW".to_owned(), ..good("brew") };
    let connect = Request { method: "CONNECT".to_owned(), ..good("c") }.to("forebay.test:443");
    vec![
        case("unknown path", good("path").to("/nowhere").bytes(), &[404]),
        case("root path", good("root").to("/").bytes(), &[404]),
        case("a path one letter longer", good("longer").to("/stdx").bytes(), &[404]),
        case("a path with a slash behind", good("slash").to("/std/").bytes(), &[404]),
        case("dots in the path", good("dots").to("/x/../std").bytes(), &[400, 404]),
        case("GET", get.bytes(), &[405]),
        case("GET without a body", Request::get("/std").head_bytes(), &[405]),
        case("PUT", put.bytes(), &[405]),
        case("DELETE", delete.bytes(), &[405]),
        case("a method of its own", odd.bytes(), &[405]),
        case("CONNECT", connect.head_bytes(), &[400, 404, 405]),
    ]
}

fn old(id: &str) -> Request {
    Request { version: "HTTP/1.0", ..good(id) }
}

fn hosts_and_framing() -> Vec<Case> {
    let chunks = format!("{:x}\r\n{}\r\n0\r\n\r\n", BODY.len(), String::from_utf8_lossy(BODY));
    let gzip = good("gzip_te").header("transfer-encoding", "gzip, chunked");
    let twice =
        good("te_te").header("transfer-encoding", "chunked").header("transfer-encoding", "chunked");
    let unknown = good("te_unknown").header("transfer-encoding", "sideways");
    let lengths = sized("cl_cl").header("content-length", (BODY.len() + 1).to_string());
    let list = good("cl_list").header("content-length", format!("{0}, {0}", BODY.len()));
    let plus = good("cl_plus").header("content-length", format!("+{}", BODY.len()));
    let minus = good("cl_minus").header("content-length", "-1");
    let huge = good("cl_huge").header("content-length", "99999999999999999999999");
    vec![
        case("no Host", good("no_host").without("host").bytes(), &[400]),
        case("two Hosts", good("two_hosts").header("host", "b.test").bytes(), &[400]),
        case("gzip as transfer coding", with_body(&gzip, chunks.as_bytes()), &[400, 501]),
        case("chunked twice", with_body(&twice, chunks.as_bytes()), &[400]),
        parsed("unknown transfer coding", with_body(&unknown, chunks.as_bytes())),
        parsed("two lengths that differ", with_body(&lengths, BODY)),
        parsed("a list of lengths", with_body(&list, BODY)),
        parsed("a length with a plus", with_body(&plus, BODY)),
        parsed("a length below zero", with_body(&minus, BODY)),
        parsed("a length beyond numbers", with_body(&huge, BODY)),
    ]
}

fn heads() -> Vec<Case> {
    let mut many = good("many");
    for index in 0..100 {
        many = many.header(&format!("x-{index}"), "x");
    }
    let mut crowded = good("crowded");
    for index in 0..64 {
        crowded = crowded.header(&format!("x-{index}"), "x");
    }
    let raw = |bytes: &[u8]| bytes.to_vec();
    vec![
        parsed("a head above 16 KiB", good("big").header("x-big", vec![b'x'; 20_000]).bytes()),
        parsed("a hundred headers and those of a good request", many.bytes()),
        case("a header line too many", crowded.bytes(), &[400]),
        parsed("a target above 16 KiB", good("t").to(&format!("/{}", "x".repeat(20_000))).bytes()),
        parsed("NUL in a header", good("nul").header("x-nul", b"a\0b".to_vec()).bytes()),
        parsed("a header folded over lines", good("f").header("x-f", "a\r\n b").bytes()),
        parsed("a space before the colon", good("s").header("x-space ", "x").bytes()),
        parsed("not HTTP", raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n")),
        parsed("HTTP/3.7", raw(b"POST /std HTTP/3.7\r\nhost: a\r\n\r\n")),
    ]
}

fn chunks_and_sizes() -> Vec<Case> {
    let chunked = |id: &str| good(id).header("transfer-encoding", "chunked");
    let above = vec![b'x'; BODY_MAX + 1];
    let declared = good("declared").header("content-length", "1073741824");
    let broken = |id: &str, body: &str| with_body(&chunked(id), body.as_bytes());
    let mut cases = vec![
        case("too large by its length", sign::standard("large", &above).bytes(), &[413]),
        case("a declared GiB, not sent", declared.head_bytes(), &[413]),
        case("too large by chunks", sign::standard("lc", &above).chunked_bytes(4096), &[413]),
        case("a chunk size that is no number", broken("cx", "zz\r\n{}\r\n0\r\n\r\n"), &[400]),
        case("a chunk longer than its size", broken("cl", "2\r\n{}...\r\n0\r\n\r\n"), &[400]),
        case(
            "a chunk size beyond numbers",
            broken("ch", "fffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
            &[400, 413],
        ),
    ];
    let mut ended = case("chunks that end early", broken("ce", "17\r\n{\"type\""), &[400]);
    ended.finished = true;
    cases.push(ended);
    let short = good("short").header("content-length", (BODY.len() + 5).to_string());
    let mut short = case("a body that ends early", with_body(&short, BODY), &[400]);
    short.finished = true;
    cases.push(short);
    cases
}

fn signatures() -> Vec<Case> {
    let now = sign::now_seconds();
    let at = |id: &str, seconds| sign::standard_at(id, BODY, seconds, sign::STANDARD_SECRET);
    let next = sign::standard_at("other_secret", BODY, now, sign::STANDARD_SECRET_NEXT);
    let again = |id: &str, name: &str| {
        let request = good(id);
        let value = request.value(name).to_vec();
        request.header(name, value).bytes()
    };
    let set = |id: &str, name: &str, value: &[u8]| {
        good(id).without(name).header(name, value.to_vec()).bytes()
    };
    let mut altered = good("altered");
    altered.body[2] ^= 1;
    let moved = good("moved").without("webhook-id").header("webhook-id", "another");
    vec![
        case("no signature", good("nos").without("webhook-signature").bytes(), &[401]),
        case("no timestamp", good("not").without("webhook-timestamp").bytes(), &[400, 401]),
        case("no id, which is signed", good("noi").without("webhook-id").bytes(), &[400, 401]),
        case("two signatures lines", again("two", "webhook-signature"), &[400]),
        case("two timestamps", again("twot", "webhook-timestamp"), &[400]),
        case("two ids", again("twoi", "webhook-id"), &[400]),
        case("an empty signature", set("empty", "webhook-signature", b""), &[401]),
        case("not UTF-8", set("utf8", "webhook-signature", b"v1,\xff\xfe\xfd"), &[400, 401]),
        case("not base64", set("b64", "webhook-signature", b"v1,!!!!"), &[401]),
        case("only an unknown version", set("v9", "webhook-signature", b"v9,aGVsbG8="), &[401]),
        case("another secret", next.bytes(), &[401]),
        case("an altered body", altered.bytes(), &[401]),
        case("another id", moved.bytes(), &[401]),
        case("a timestamp of words", set("w", "webhook-timestamp", b"yesterday"), &[400, 401]),
        case("a timestamp not UTF-8", set("tu", "webhook-timestamp", b"\xff"), &[400, 401]),
        case("a timestamp beyond i64", set("t", "webhook-timestamp", &[b'9'; 30]), &[400, 401]),
        case("an hour old", at("stale", now - 3600).bytes(), &[400]),
        case("an hour ahead", at("future", now + 3600).bytes(), &[400]),
        case("before the epoch", at("epoch", -5).bytes(), &[400]),
    ]
}

fn tokens_and_types() -> Vec<Case> {
    let event = br#"{"event":"room_started","id":"EV_forged"}"#;
    let token = |kind| sign::livekit(event, kind).bytes();
    let mut altered = sign::livekit(event, sign::Token::Signed);
    altered.body.push(b' ');
    let plain = good("plain").without("content-type");
    let zipped = good("zip").header("content-encoding", "gzip");
    vec![
        case("alg=none", token(sign::Token::None), &[401]),
        case("alg=none with a signature", token(sign::Token::NoneButSigned), &[401]),
        case("a token for another body", altered.bytes(), &[401]),
        case("no token", altered.without("authorization").bytes(), &[401]),
        case("another content type", plain.header("content-type", "text/html").bytes(), &[415]),
        case("a compressed body", zipped.bytes(), &[415]),
    ]
}

fn bad_requests_are_refused_and_leave_nothing(driver: Driver) {
    let server = Server::start(Setup::new(driver).receive("body_max = \"64KiB\""));
    let cases: Vec<Case> = [
        routes(),
        hosts_and_framing(),
        heads(),
        chunks_and_sizes(),
        signatures(),
        tokens_and_types(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut wrong = Vec::new();
    let mut stored = 0;
    for (index, case) in cases.iter().enumerate() {
        match refuse(&server, case, index) {
            Ok(accepted) => stored += accepted,
            Err(reason) => wrong.push(format!("{}: {reason}", case.what)),
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));

    let rows = server.rows();
    assert!(rows.iter().all(|row| row.id().starts_with("good_")), "something bad was stored");
    assert_eq!(rows.len(), stored, "the log holds the good requests and nothing else");
    // What the protocol allows is not refused for being old.
    assert_eq!(server.send(&old("old")).status, 200, "HTTP/1.0 with Host");
}

/// Sends a bad request, then a good one on the same connection where it stays open, and another
/// on a new one. Returns how many good ones were accepted.
fn refuse(server: &Server, case: &Case, index: usize) -> Result<usize, String> {
    let mut connection = server.connect();
    // The server may answer and close before it has read everything.
    let _ = connection.write(&case.bytes);
    if case.finished {
        connection.finish();
    }
    let response = connection.read().map_err(|error| format!("no answer: {error}"))?;
    if !case.statuses.contains(&response.status) {
        return Err(format!("{} instead of {:?}", response.status, case.statuses));
    }
    is_problem(&response)?;
    let mut accepted = 0;
    if !response.closes() && !case.finished && !case.by_parser {
        let status = after(&mut connection, &format!("good_same_{index}"))?;
        accepted += usize::from(status == 200);
    }
    let status = server.send(&good(&format!("good_new_{index}"))).status;
    if status != 200 {
        return Err(format!("then a good request on a new connection got {status}"));
    }
    Ok(accepted + 1)
}

/// The good request on the same connection: accepted, or the connection is at its end. Anything
/// else means that the server took part of the bad request for the start of the next.
fn after(connection: &mut Connection, id: &str) -> Result<u16, String> {
    match connection.send(&good(id)) {
        Ok(response) if response.status == 200 => Ok(200),
        Ok(response) => Err(format!("then a good request on it got {}", response.status)),
        Err(_) => Ok(0),
    }
}

/// RFC 9457: the media type, and a status in the body that is the one of the answer.
fn is_problem(response: &Response) -> Result<(), String> {
    let media = response.value("content-type");
    if media != "application/problem+json" {
        return Err(format!("{} with content-type {media:?}", response.status));
    }
    let problem: serde_json::Value = serde_json::from_slice(&response.body)
        .map_err(|error| format!("the problem is not JSON: {error}"))?;
    if problem["status"] != response.status {
        return Err(format!("{} says in its body {}", response.status, problem["status"]));
    }
    if problem["title"].as_str().is_none_or(str::is_empty) {
        return Err(format!("a problem without a title: {problem}"));
    }
    Ok(())
}

fn impatient(driver: Driver) -> Server {
    Server::start(
        Setup::new(driver)
            .receive("head_timeout = \"400ms\"")
            .receive("body_timeout = \"800ms\"")
            .receive("idle_timeout = \"600ms\"")
            .receive("body_rate_min = \"64KiB\""),
    )
}

/// How long after its deadline a connection may still be open; busy machines are slow.
const SLACK: Duration = Duration::from_secs(8);

/// The connection ends, after an answer or without one; the answer if there was one.
fn cut_off(connection: &mut Connection) -> Option<Response> {
    let answer = connection.read();
    if answer.is_ok() {
        assert!(connection.ended_within(SLACK), "answered, and left open");
    }
    answer.ok()
}

fn a_head_that_does_not_end_is_cut_off(driver: Driver) {
    let server = impatient(driver);
    let mut slow = server.connect();
    slow.write(b"POST /std HTTP/1.1\r\nhost: a\r\nx-more: ").unwrap();
    if let Some(response) = cut_off(&mut slow) {
        assert_eq!(response.status, 408);
    }
    assert_eq!(server.send(&good("good")).status, 200);
    assert_eq!(server.rows().len(), 1);
}

fn a_body_that_does_not_end_is_cut_off(driver: Driver) {
    let server = impatient(driver);
    let mut slow = server.connect();
    slow.write(&sized("slow").head_bytes()).unwrap();
    slow.write(&BODY[..5]).unwrap();
    let response = cut_off(&mut slow).expect("a request that began is answered");
    assert_eq!(response.status, 408);
    is_problem(&response).unwrap();
    assert_eq!(server.send(&good("good")).status, 200);
    assert_eq!(server.rows().len(), 1);
}

/// A byte at a time would satisfy a deadline that each byte renews.
fn a_body_that_trickles_is_cut_off(driver: Driver) {
    let server = impatient(driver);
    let mut slow = server.connect();
    let request = good("slow").header("content-length", "10000");
    slow.write(&request.head_bytes()).unwrap();
    eventually("the trickle is cut off", SLACK, || {
        slow.write(b"x").is_err() || slow.ended_within(Duration::from_millis(50))
    });
    assert_eq!(server.send(&good("good")).status, 200);
    assert_eq!(server.rows().len(), 1);
}

fn a_connection_that_says_nothing_is_cut_off(driver: Driver) {
    let server = impatient(driver);
    let mut silent = server.connect();
    let mut used = server.connect();
    assert_eq!(used.send(&good("good")).unwrap().status, 200);
    assert!(silent.ended_within(SLACK), "a connection that never spoke");
    assert!(used.ended_within(SLACK), "a connection after its first request");
}

fn a_sender_that_leaves_early_harms_nobody(driver: Driver) {
    let server = Server::start(Setup::new(driver));
    let bytes = good("left").bytes();
    for cut in (1..bytes.len()).step_by(7) {
        let mut connection = server.connect();
        connection.write(&bytes[..cut]).unwrap();
        drop(connection);
    }
    let mut patient = server.connect();
    for index in 0..20 {
        assert_eq!(patient.send(&good(&format!("good_{index}"))).unwrap().status, 200);
    }
    let rows = server.rows();
    assert!(rows.iter().all(|row| row.id().starts_with("good_")), "half a request was stored");
    assert_eq!(rows.len(), 20);
}

/// A proxy that goes by the length and a server that goes by the chunks disagree about where the
/// request ends. RFC 9112 (6.1) leaves two safe ways: refuse it, or take the chunks and close.
fn a_length_beside_chunks_smuggles_nothing(driver: Driver) {
    let server = Server::start(Setup::new(driver));
    let smuggled = good("smuggled").bytes();
    let chunk = format!("{:x}\r\n{}\r\n0\r\n\r\n", BODY.len(), String::from_utf8_lossy(BODY));
    let hidden = [chunk.as_bytes(), &smuggled].concat();
    let length = ("content-length", hidden.len().to_string());
    let chunks = ("transfer-encoding", "chunked".to_owned());
    for (index, pair) in [[&length, &chunks], [&chunks, &length]].into_iter().enumerate() {
        let mut request = good(&format!("both_{index}"));
        for (name, value) in pair {
            request = request.header(name, value.clone());
        }
        let mut connection = server.connect();
        connection.write(&with_body(&request, &hidden)).unwrap();
        let response = connection.read().unwrap();
        assert!([200, 400].contains(&response.status), "{}", response.status);
        assert!(connection.ended_within(SLACK), "the connection is not used again");
    }
    assert!(server.rows().iter().all(|row| row.id() != "smuggled"));
}

fn a_body_that_is_announced_and_not_sent_takes_no_room_from_others(driver: Driver) {
    let setup = Setup::new(driver)
        .segments("8MiB", "1MiB")
        .receive("body_budget = \"1MiB\"")
        .receive("body_timeout = \"60s\"");
    let server = Server::start(setup);
    let large = good("large").header("content-length", "1048576").head_bytes();
    let begun = |bytes: &[u8]| {
        let mut connection = server.connect();
        connection.write(bytes).unwrap();
        connection
    };
    let held: Vec<Connection> = (0..32).map(|_| begun(&large)).collect();
    std::thread::sleep(Duration::from_millis(300));
    for index in 0..32 {
        assert_eq!(server.send(&good(&format!("good_{index}"))).status, 200);
    }
    drop(held);
    // What has come does: four take more than two receivers have.
    let sent = [&large[..], &vec![b'x'; 600 * 1024]].concat();
    let _held: Vec<Connection> = (0..4).map(|_| begun(&sent)).collect();
    eventually("one has no room", SLACK, || {
        let metrics = server.admin("/metrics");
        let of = "forebay_requests_total{source=\"std\",outcome=\"budget_spent\"} ";
        metrics.text().lines().any(|line| line.strip_prefix(of).is_some_and(|count| count != "0"))
    });
}
