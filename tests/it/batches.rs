//! A request that carries several events: each is kept once, all or none acknowledged.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::support::Driver;
use crate::support::http::Request;
use crate::support::log::Row;
use crate::support::server::{Server, Setup, source};

const CREDENTIALS: &str = "forebay:a-password-of-some-length";

fn batch(body: &str) -> Request {
    let credentials = format!("Basic {}", BASE64.encode(CREDENTIALS));
    Request::post("/bandwidth")
        .header("content-type", "application/json")
        .header("authorization", credentials)
        .body(body.as_bytes())
}

fn item(id: &str) -> String {
    format!(r#"{{"type":"message-delivered","to":"+1","message":{{"id":"{id}"}}}}"#)
}

for_each_driver!(
    each_event_of_a_batch_is_kept_once,
    what_is_no_list_is_kept_as_one_event,
    a_large_batch_is_kept_whole,
);

fn start(driver: Driver) -> Server {
    Server::start(Setup::new(driver).more(&source("bandwidth", "bandwidth", &[("a", CREDENTIALS)])))
}

fn each_event_of_a_batch_is_kept_once(driver: Driver) {
    let server = start(driver);
    let (a, b, c) = (item("a"), item("b"), item("c"));
    for body in [format!("[{a}, {b}]"), format!("[{b},{a}]"), format!("[ {b},\n{c},{c} ]\r\n")] {
        assert_eq!(server.send(&batch(&body)).status, 200);
    }
    let events = server.events();
    let bodies: Vec<Vec<u8>> = events.iter().map(Row::body).collect();
    assert_eq!(bodies, [a.as_bytes(), b.as_bytes(), c.as_bytes()]);
    assert_eq!(events[2].id(), "c:message-delivered:+1");
    // Seven items came: three events and four later deliveries.
    let rows = server.rows_of(7);
    assert_eq!(rows.iter().filter(|row| row.is_delivery()).count(), 4);
}

fn what_is_no_list_is_kept_as_one_event(driver: Driver) {
    let server = start(driver);
    let bodies = ["[]", "{\"type\":\"x\"}", "[{\"type\":\"x\"},", "no JSON"];
    for body in bodies {
        assert_eq!(server.send(&batch(body)).status, 200, "{body}");
    }
    let kept: Vec<Vec<u8>> = server.events().iter().map(Row::body).collect();
    assert_eq!(kept, bodies.map(|body| body.as_bytes().to_vec()));
}

fn a_large_batch_is_kept_whole(driver: Driver) {
    let server = start(driver);
    // Some without an id: each is an event of its own.
    let items: Vec<String> = (0..5_000)
        .map(|at| if at % 10 == 0 { "{\"type\":\"x\"}".to_owned() } else { item(&at.to_string()) })
        .collect();
    let request = batch(&format!("[{}]", items.join(",")));
    for _ in 0..2 {
        assert_eq!(server.send(&request).status, 200);
    }
    let kept: Vec<Vec<u8>> = server.events().iter().map(Row::body).collect();
    assert_eq!(kept.len(), items.len());
    assert!(kept.iter().zip(&items).all(|(kept, item)| kept == item.as_bytes()));
}
