//! Against a server that answers what a test wants, and sees what it was sent.

use std::sync::{Arc, PoisonError};

use axum::Router;
use axum::extract::{Request as Asked, State};
use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::drain::testing::Written;

#[expect(clippy::disallowed_types, reason = "a test's own")]
type Mutex<T> = std::sync::Mutex<T>;

/// Status, `Retry-After`, body.
type Reply = (u16, Option<&'static str>, Value);
type Script = Arc<dyn Fn(&str, &Value) -> Reply + Send + Sync>;

/// A request as it arrived: path, headers, body; a form as text.
type Seen = (String, HeaderMap, Value);

#[derive(Clone)]
struct Server {
    endpoint: Uri,
    script: Script,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    async fn start(script: impl Fn(&str, &Value) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let endpoint = format!("http://{address}/").parse().expect("a URL");
        let server = Self { endpoint, script: Arc::new(script), seen: Arc::default() };
        let router = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    fn sink(&self, login: Login) -> PubSub {
        let settings = Settings {
            topic: "projects/p/topics/t".to_owned(),
            endpoint: self.endpoint.clone(),
            login,
            authorities: None,
            allow_private: true,
        };
        PubSub::new(&settings, Duration::from_secs(10)).expect("a sink")
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many messages each request had.
    fn counts(&self) -> Vec<usize> {
        self.seen().iter().map(|(_, _, body)| count(body)).collect()
    }

    fn account(&self) -> Login {
        let token_uri = format!("{}token", self.endpoint);
        let account = json!({
            "client_email": "me@example.com", "token_uri": token_uri, "private_key_id": "1",
            "private_key": include_str!("../../../../tests/keys/rsa.pem"),
        });
        Login::Key(Box::new(Account::parse(&account.to_string()).expect("an account")))
    }
}

async fn answer(State(server): State<Server>, request: Asked) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
    let body = serde_json::from_slice(&body)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
    let (status, wait, reply) = (server.script)(head.uri.path(), &body);
    let seen = (head.uri.path().to_owned(), head.headers, body);
    server.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    let mut response = reply.to_string().into_response();
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    if let Some(wait) = wait {
        response.headers_mut().insert("retry-after", wait.parse().expect("a value"));
    }
    response
}

fn count(body: &Value) -> usize {
    body["messages"].as_array().map_or(0, Vec::len)
}

/// All of it is taken.
fn taken(body: &Value) -> Reply {
    let ids: Vec<String> = (0..count(body)).map(|id| id.to_string()).collect();
    (200, None, json!({ "messageIds": ids }))
}

fn refused(status: u16, word: &'static str) -> Reply {
    (status, None, json!({ "error": { "code": status, "status": word, "message": "no" } }))
}

fn events(count: u8) -> Vec<Event> {
    let mut log = Written::new();
    (0..count).map(|number| log.event(number, &format!("{{\"n\":{number}}}"))).collect()
}

fn verdicts(delivered: Delivered) -> Vec<Result<(), Failure>> {
    let Delivered::Each(verdicts) = delivered else { panic!("one for all: {delivered:?}") };
    verdicts
}

fn classes(delivered: Delivered) -> Vec<Option<Class>> {
    let class = |verdict: Result<(), Failure>| verdict.err().map(|failure| failure.class);
    verdicts(delivered).into_iter().map(class).collect()
}

/// Whether a request holds the event with this number.
fn holds(body: &Value, number: u8) -> bool {
    let data = data_of(number);
    body["messages"].as_array().is_some_and(|all| all.iter().any(|one| one["data"] == data))
}

fn data_of(number: u8) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(format!("{{\"n\":{number}}}"))
}

#[tokio::test]
async fn a_request_has_one_ordering_key_and_what_it_names_is_taken() {
    let server = Server::start(|_, body| taken(body)).await;
    let mut batch = events(6);
    for (place, key) in [(1, 7), (3, 7), (4, 9)] {
        batch[place].order_key = Some(key);
    }
    assert_eq!(server.sink(Login::Nobody).deliver(&batch).await, Delivered::All);
    let mut counts = server.counts();
    counts.sort_unstable();
    assert_eq!(counts, [1, 2, 3]);
    for (path, headers, body) in server.seen() {
        assert_eq!(path, "/v1/projects/p/topics/t:publish");
        assert!(!headers.contains_key("authorization"), "nobody is asked for a token");
        let messages = body["messages"].as_array().cloned().unwrap_or_default();
        assert!(messages.iter().all(|one| one["orderingKey"] == messages[0]["orderingKey"]));
    }
}

#[tokio::test]
async fn behind_a_failure_nothing_of_its_key_is_sent() {
    let server = Server::start(|_, body| {
        if body.to_string().contains("0000000000000007") {
            refused(500, "INTERNAL")
        } else {
            taken(body)
        }
    });
    let server = server.await;
    let mut batch = events(6);
    for (place, event) in batch.iter_mut().enumerate() {
        event.order_key = Some(if place == 5 { 9 } else { 7 });
        // Two of them fill a request.
        event.made = Some(vec![b' '; 3_500_000].into());
    }
    let told = classes(server.sink(Login::Nobody).deliver(&batch).await);
    let failed = Some(Class::Temporary);
    assert_eq!(told, [failed, failed, failed, failed, failed, None]);
    let mut counts = server.counts();
    counts.sort_unstable();
    assert_eq!(counts, [1, 2], "of three requests of the key the first was sent");
}

#[tokio::test]
async fn a_request_that_is_refused_for_one_message_is_halved_until_it_stands_alone() {
    let server =
        Server::start(
            |_, body| {
                if holds(body, 6) { refused(400, "INVALID_ARGUMENT") } else { taken(body) }
            },
        );
    let server = server.await;
    let told = classes(server.sink(Login::Nobody).deliver(&events(16)).await);
    let wanted: Vec<Option<Class>> =
        (0..16).map(|place| (place == 6).then_some(Class::Permanent)).collect();
    assert_eq!(told, wanted);
    assert_eq!(server.counts(), [16, 8, 4, 4, 2, 2, 1, 1, 8]);
}

#[tokio::test]
async fn each_refusal_has_its_class() {
    for (status, word, class) in [
        (400, "INVALID_ARGUMENT", Class::Permanent),
        (400, "FAILED_PRECONDITION", Class::Misconfigured),
        (401, "UNAUTHENTICATED", Class::Misconfigured),
        (403, "PERMISSION_DENIED", Class::Misconfigured),
        (404, "NOT_FOUND", Class::Misconfigured),
        (409, "ABORTED", Class::Temporary),
        (413, "", Class::Permanent),
        (429, "RESOURCE_EXHAUSTED", Class::Overloaded),
        (500, "INTERNAL", Class::Temporary),
        (503, "UNAVAILABLE", Class::Overloaded),
        (504, "DEADLINE_EXCEEDED", Class::Temporary),
        (302, "", Class::Misconfigured),
    ] {
        let server = Server::start(move |_, _| {
            let (status, _, body) = refused(status, word);
            (status, Some("7"), body)
        });
        let told = verdicts(server.await.sink(Login::Nobody).deliver(&events(1)).await);
        let failure = told[0].clone().expect_err("is a failure");
        assert_eq!(failure.class, class, "{failure}");
        let waits = matches!(class, Class::Temporary | Class::Overloaded);
        assert_eq!(failure.retry_after, waits.then_some(Duration::from_secs(7)), "{failure}");
    }
    let server = Server::start(|_, _| (200, None, json!({ "messageIds": ["1"] }))).await;
    let told = classes(server.sink(Login::Nobody).deliver(&events(2)).await);
    assert_eq!(told, [Some(Class::Temporary); 2], "it names one of two");
}

#[tokio::test]
async fn a_token_is_lent_once_and_again_when_it_is_refused() {
    let lent = Mutex::new(0);
    let server = Server::start(move |path, body| {
        let mut lent = lent.lock().unwrap_or_else(PoisonError::into_inner);
        match path {
            "/token" => {
                *lent += 1;
                (200, None, json!({ "access_token": format!("t{lent}"), "expires_in": 3600 }))
            }
            // The third request is refused.
            _ if holds(body, 2) && *lent == 1 => refused(401, "UNAUTHENTICATED"),
            _ => taken(body),
        }
    });
    let server = server.await;
    let (sink, batch) = (server.sink(server.account()), events(3));
    for event in &batch[..2] {
        assert_eq!(sink.deliver(std::slice::from_ref(event)).await, Delivered::All);
    }
    let told = classes(sink.deliver(&batch[2..]).await);
    assert_eq!(told, [Some(Class::Misconfigured)]);
    assert_eq!(sink.deliver(&batch[2..]).await, Delivered::All);
    let seen = server.seen();
    let paths: Vec<&str> =
        seen.iter().map(|(path, ..)| path.rsplit('/').next().expect("a word")).collect();
    assert_eq!(paths, ["token", "t:publish", "t:publish", "t:publish", "token", "t:publish"]);
    assert_eq!(seen[1].1["authorization"], "Bearer t1");
    assert_eq!(seen[5].1["authorization"], "Bearer t2");
    let form = seen[0].2.as_str().expect("a form");
    assert!(form.starts_with("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&"));
}

#[tokio::test]
async fn a_token_that_ends_soon_is_renewed_before_it_does() {
    let server = Server::start(|path, body| match path {
        "/token" => (200, None, json!({ "access_token": "t", "expires_in": 0 })),
        _ => taken(body),
    });
    let server = server.await;
    let sink = server.sink(server.account());
    for event in &events(2) {
        assert_eq!(sink.deliver(std::slice::from_ref(event)).await, Delivered::All);
    }
    assert_eq!(server.seen().iter().filter(|(path, ..)| path == "/token").count(), 2);
}

#[tokio::test]
async fn a_machine_is_asked_for_its_token_in_its_own_way() {
    let server = Server::start(|path, body| {
        if path.starts_with("/computeMetadata/v1/") {
            (200, None, json!({ "access_token": "lent", "expires_in": 3600 }))
        } else {
            taken(body)
        }
    });
    let server = server.await;
    let host = server.endpoint.authority().expect("a host").to_string();
    assert_eq!(server.sink(Login::Machine(host)).deliver(&events(1)).await, Delivered::All);
    let seen = server.seen();
    assert_eq!(seen[0].1["metadata-flavor"], "Google");
    assert_eq!(seen[1].1["authorization"], "Bearer lent");
}

#[tokio::test]
async fn a_lender_that_refuses_the_key_is_for_a_person_and_one_in_trouble_is_not() {
    for (status, class) in
        [(400, Class::Misconfigured), (401, Class::Misconfigured), (500, Class::Temporary)]
    {
        let server = Server::start(move |_, _| {
            (status, None, json!({ "error": "invalid_grant", "error_description": "no such" }))
        });
        let server = server.await;
        let told = verdicts(server.sink(server.account()).deliver(&events(1)).await);
        let failure = told[0].clone().expect_err("is a failure");
        assert_eq!(failure.class, class, "{failure}");
        assert!(failure.reason.contains("invalid_grant no such"), "{failure}");
        assert_eq!(server.sink(server.account()).probe().await, Err(failure));
    }
}

#[tokio::test]
async fn a_probe_needs_no_leave_to_look() {
    let server = Server::start(|_, _| refused(403, "PERMISSION_DENIED")).await;
    assert_eq!(server.sink(Login::Nobody).probe().await, Ok(()));
    assert_eq!(server.seen()[0].0, "/v1/projects/p/topics/t");
    let server = Server::start(|_, _| refused(404, "NOT_FOUND")).await;
    let probed = server.sink(Login::Nobody).probe().await.map_err(|failure| failure.class);
    assert_eq!(probed, Err(Class::Misconfigured));
}

#[test]
fn a_key_that_is_none_is_refused_without_telling_it() {
    let account = |key: &str, uri: &str| {
        let text = json!({ "client_email": "a", "private_key": key, "token_uri": uri }).to_string();
        Account::parse(&text).expect_err("is refused")
    };
    assert!(Account::parse("{}").expect_err("is refused").contains("missing field"));
    assert!(account("quite-secret", "https://a").contains("is no PEM"));
    assert!(!account("quite-secret", "https://a").contains("quite-secret"));
    assert!(account("a", "b c").contains("token_uri"));
}
