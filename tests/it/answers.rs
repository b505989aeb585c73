//! A sender is answered in the statuses and the words that it takes for success and for failure.

use crate::support::http::Request;
use crate::support::server::{Server, Setup};
use crate::support::{Driver, sign};

for_each_driver![
    a_sender_is_answered_as_it_wants,
    a_bad_signature_can_be_swallowed,
    an_answer_says_nothing_of_the_request,
];

const SECRET: &str = "own-scheme-test-secret-0123456789";

/// A source with a scheme of its own: the body alone is signed.
fn own(name: &str, answers: &str) -> String {
    format!(
        "[[source]]\nname = \"{name}\"\npath = \"/{name}\"\nenvironment = \"test\"\n\
         event_id = \"json:id\"\nsecrets = [{{ name = \"a\", value = \"{SECRET}\" }}]\n\
         [source.scheme]\nalgorithm = \"hmac-sha256\"\nheader = \"X-Own\"\nsigned = [\"body\"]\n\
         signature_encoding = \"hex\"\n[source.answers]\n{answers}\n"
    )
}

fn signed(name: &str, body: &str) -> Request {
    Request::post(&format!("/{name}"))
        .header("content-type", "application/json")
        .header("x-own", sign::hex_mac(SECRET, body.as_bytes()))
        .body(body.as_bytes())
}

fn a_sender_is_answered_as_it_wants(driver: Driver) {
    let answers = "success_status = 202\nsuccess_body = \"{\\\"code\\\":0}\"\n\
                   success_type = \"application/json\"\nbad_signature_status = 403\n\
                   unsigned_status = 500";
    let server = Server::start(Setup::new(driver).more(&own("own", answers)));
    let request = signed("own", "{\"id\":\"1\"}");
    let mut connection = server.connect();
    for what in ["a first delivery", "a later delivery"] {
        let response = connection.send(&request).unwrap();
        assert_eq!((response.status, response.text()), (202, "{\"code\":0}"), "{what}");
        assert_eq!(response.value("content-type"), "application/json", "{what}");
    }
    let unsigned = server.send(&request.clone().without("x-own"));
    assert_eq!(unsigned.status, 500, "asks for the request again, signed");
    let mut forged = request;
    forged.body = b"{\"id\":\"2\"}".to_vec();
    let response = server.send(&forged);
    assert_eq!((response.status, response.closes()), (403, true));
    assert_eq!(response.value("content-type"), "application/problem+json");
    assert_eq!(server.send(&sign::standard("msg_1", b"{}")).status, 200, "others as ever");
    let ids: Vec<String> = server.events().iter().map(|row| row.id().to_owned()).collect();
    assert_eq!(ids, ["1", "msg_1"]);
}

fn a_bad_signature_can_be_swallowed(driver: Driver) {
    let server = Server::start(Setup::new(driver).more(&own("own", "bad_signature_status = 200")));
    let forged = signed("own", "{\"id\":\"1\"}").body(b"{\"id\":\"2\"}");
    let response = server.send(&forged);
    assert_eq!((response.status, response.text(), response.closes()), (200, "", true));
    assert!(server.rows().is_empty(), "swallowed, and not stored");
    let metrics = server.admin("/metrics");
    let counted = "forebay_requests_total{source=\"own\",outcome=\"signature_wrong\"} 1";
    assert!(metrics.text().contains(counted), "{}", metrics.text());
}

/// The header map of a request is used again for its answer.
fn an_answer_says_nothing_of_the_request(driver: Driver) {
    let server = Server::start(Setup::new(driver));
    let mut connection = server.connect();
    for index in 0..3 {
        let request = sign::standard(&format!("msg_{index}"), b"{}").header("x-mine", "mine");
        let response = connection.send(&request).unwrap();
        let names: Vec<&str> = response.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((response.status, names), (200, vec!["content-length", "date"]));
    }
    assert!(server.rows().iter().all(|row| row.headers.to_string().contains("mine")));
}
