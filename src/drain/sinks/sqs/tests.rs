//! Against a server that answers what a test wants, and sees what it was sent.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use axum::Router;
use axum::extract::{Request as Asked, State};
use axum::response::{IntoResponse as _, Response};
use forebay_log::Tag;
use http::{HeaderMap, StatusCode};
use reqsign_core::StaticEnv;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::drain::sink::Pass;
use crate::drain::testing::{Said, Written};

#[expect(clippy::disallowed_types, reason = "a test's own")]
type Mutex<T> = std::sync::Mutex<T>;

/// Status, `Retry-After`, body.
type Reply = (u16, Option<&'static str>, Value);
type Script = Arc<dyn Fn(&Value) -> Reply + Send + Sync>;

#[derive(Clone)]
struct Server {
    endpoint: Uri,
    script: Script,
    seen: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
}

impl Server {
    async fn start(script: impl Fn(&Value) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let endpoint = format!("http://{address}/").parse().expect("a URL");
        let server = Self { endpoint, script: Arc::new(script), seen: Arc::default() };
        let router = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    fn settings(&self) -> Settings {
        Settings {
            queue_url: "https://sqs.eu-central-1.amazonaws.com/1/hooks.fifo".to_owned(),
            endpoint: self.endpoint.clone(),
            region: "eu-central-1".to_owned(),
            credentials: Some(Credentials {
                access_key: "AKIA".to_owned(),
                secret_key: SecretText::new("secret"),
                session_token: None,
            }),
            authorities: None,
            allow_private: true,
            request_bytes_max: 4096,
        }
    }

    fn sink(&self) -> Sqs {
        Sqs::new(self.settings(), Duration::from_secs(10)).expect("a sink")
    }

    fn seen(&self) -> Vec<(HeaderMap, Value)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many messages each request had.
    fn counts(&self) -> Vec<usize> {
        self.seen().iter().map(|(_, body)| ids(body).len()).collect()
    }
}

async fn answer(State(server): State<Server>, request: Asked) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let (status, wait, reply) = (server.script)(&body);
    server.seen.lock().unwrap_or_else(PoisonError::into_inner).push((head.headers, body));
    let mut response = reply.to_string().into_response();
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    if let Some(wait) = wait {
        response.headers_mut().insert("retry-after", wait.parse().expect("a value"));
    }
    response
}

fn ids(body: &Value) -> Vec<Value> {
    let entries = body["Entries"].as_array().cloned().unwrap_or_default();
    entries.iter().map(|entry| entry["Id"].clone()).collect()
}

/// All of it is taken.
fn taken(body: &Value) -> Reply {
    let successful: Vec<Value> = ids(body).into_iter().map(|id| json!({ "Id": id })).collect();
    (200, None, json!({ "Successful": successful }))
}

fn refused(status: u16, code: &'static str) -> Reply {
    (status, None, json!({ "__type": format!("com.amazonaws.sqs#{code}"), "message": "no" }))
}

fn events(count: u8) -> Vec<Event> {
    let mut log = Written::new();
    (0..count).map(|number| log.event(number, &format!("{{\"n\":{number}}}"))).collect()
}

fn classes(delivered: Delivered) -> Vec<Option<Class>> {
    match delivered {
        Delivered::Each(verdicts) => {
            verdicts.into_iter().map(|verdict| verdict.err().map(|why| why.class)).collect()
        }
        other => panic!("one for all: {other:?}"),
    }
}

#[tokio::test]
async fn ten_messages_are_a_request_and_fewer_where_they_are_large() {
    let server = Server::start(taken).await;
    assert_eq!(server.sink().deliver(&events(25)).await, Delivered::All);
    assert_eq!(server.counts(), [10, 10, 5]);
    let mut log = Written::new();
    let body = format!("\"{}\"", "x".repeat(1500));
    let large: Vec<Event> = (0..5).map(|number| log.event(number, &body)).collect();
    assert_eq!(server.sink().deliver(&large).await, Delivered::All);
    assert_eq!(server.counts()[3..], [2, 2, 1]);
    let (headers, _) = &server.seen()[0];
    assert_eq!(headers["x-amz-target"], "AmazonSQS.SendMessageBatch");
    assert_eq!(headers["content-type"], "application/x-amz-json-1.0");
    let authorization = headers["authorization"].to_str().expect("text");
    assert!(authorization.contains("/eu-central-1/sqs/aws4_request"), "{authorization}");
}

#[tokio::test]
async fn each_message_of_a_request_has_its_own_verdict() {
    let server = Server::start(|_| {
        let failed = json!([
            { "Id": "1", "SenderFault": true, "Code": "InvalidMessageContents", "Message": "no" },
            { "Id": "2", "SenderFault": false, "Code": "InternalError" },
            { "Id": "3", "SenderFault": true, "Code": "RequestThrottled" },
            { "Id": "4", "SenderFault": true, "Code": "KMS.KmsDisabledException" },
        ]);
        (200, None, json!({ "Successful": [{ "Id": "0" }], "Failed": failed }))
    });
    let told = classes(server.await.sink().deliver(&events(6)).await);
    let (permanent, temporary) = (Some(Class::Permanent), Some(Class::Temporary));
    let (overloaded, misconfigured) = (Some(Class::Overloaded), Some(Class::Misconfigured));
    // Of the last nothing was said.
    assert_eq!(told, [None, permanent, temporary, overloaded, misconfigured, temporary]);
}

#[tokio::test]
async fn a_request_that_is_refused_for_one_message_is_halved_until_it_stands_alone() {
    let server = Server::start(|body| {
        if ids(body).contains(&json!("6")) {
            refused(400, "InvalidParameterValue")
        } else {
            taken(body)
        }
    });
    let server = server.await;
    let told = classes(server.sink().deliver(&events(20)).await);
    let wanted: Vec<Option<Class>> =
        (0..20).map(|place| (place == 6).then_some(Class::Permanent)).collect();
    assert_eq!(told, wanted);
    assert_eq!(server.counts(), [10, 5, 5, 2, 1, 1, 3, 10]);
}

#[tokio::test]
async fn throttling_stops_the_batch_and_says_when_to_come_back() {
    let server = Server::start(|_| {
        let (status, _, body) = refused(400, "RequestThrottled");
        (status, Some("7"), body)
    });
    let server = server.await;
    let Delivered::Each(verdicts) = server.sink().deliver(&events(20)).await else {
        panic!("one for all")
    };
    assert_eq!(server.counts(), [10], "what is behind it was not sent");
    for verdict in verdicts {
        let failure = verdict.expect_err("is a failure");
        assert_eq!(failure.class, Class::Overloaded);
        assert_eq!(failure.retry_after, Some(Duration::from_secs(7)));
    }
}

#[tokio::test]
async fn what_a_person_has_to_mend_gives_no_event_up() {
    for (status, code) in [
        (400, "QueueDoesNotExist"),
        (400, "AWS.SimpleQueueService.NonExistentQueue"),
        (400, "UnrecognizedClientException"),
        (403, "AccessDeniedException"),
        (403, "SomethingNew"),
        (404, ""),
        (301, ""),
    ] {
        let server = Server::start(move |_| refused(status, code)).await;
        let told = classes(server.sink().deliver(&events(2)).await);
        assert_eq!(told, [Some(Class::Misconfigured); 2], "{status} {code}");
    }
    for status in [500, 502, 504] {
        let server = Server::start(move |_| (status, None, json!("no"))).await;
        let told = classes(server.sink().deliver(&events(1)).await);
        assert_eq!(told, [Some(Class::Temporary)], "{status}");
    }
}

#[tokio::test]
async fn a_probe_needs_no_leave_to_look() {
    let server = Server::start(|_| refused(403, "AccessDenied")).await;
    assert_eq!(server.sink().probe().await, Ok(()));
    let server = Server::start(|_| refused(403, "InvalidClientTokenId")).await;
    let probed = server.sink().probe().await.map_err(|failure| failure.class);
    assert_eq!(probed, Err(Class::Misconfigured));
}

#[tokio::test]
async fn what_no_queue_can_hold_fails_alone_and_says_why() {
    let server = Server::start(taken).await;
    let mut log = Written::new();
    let mut batch = events(3);
    batch[0].made = Some(Bytes::new());
    batch[1] = log.event(1, &format!("\"{}\"", "x".repeat(5000)));
    let Delivered::Each(verdicts) = server.sink().deliver(&batch).await else {
        panic!("one for all")
    };
    let reason = |index: usize| {
        let failure = verdicts[index].clone().expect_err("is a failure");
        assert_eq!(failure.class, Class::Permanent);
        failure.reason
    };
    assert!(reason(0).contains("is empty"), "{}", reason(0));
    assert!(reason(1).contains("4096"), "{}", reason(1));
    assert_eq!(verdicts[2], Ok(()));
}

#[test]
fn a_message_has_no_more_attributes_than_ten_and_keeps_those_that_tell_it() {
    let mut log = Written::new();
    let fields = [
        (Tag::Source, "hub"),
        (Tag::EventId, "1"),
        (Tag::EventType, "a\0b"),
        (Tag::Tenant, "t"),
        (Tag::Environment, "production"),
    ];
    let mut event =
        Written::event_of(log.record(1, Said { fields: &fields, headers: &[], body: b"\xff" }));
    let settings = Settings {
        queue_url: "https://sqs/1/hooks".to_owned(),
        endpoint: Uri::from_static("https://sqs/"),
        region: "r".to_owned(),
        credentials: None,
        authorities: None,
        allow_private: true,
        request_bytes_max: 1 << 20,
    };
    let message = |event: &Event| {
        serde_json::to_value(Message::of(event, 0, &settings).expect("a message")).expect("JSON")
    };
    let live = message(&event);
    assert_eq!(live["MessageAttributes"].as_object().expect("attributes").len(), 10);
    assert_eq!(live["MessageAttributes"]["Forebay-Type"]["StringValue"], "a\u{fffd}b");
    assert_eq!(live["MessageAttributes"]["Forebay-Encoding"]["StringValue"], "base64");
    assert!(live.get("MessageGroupId").is_none(), "it is no FIFO queue: {live}");
    event.pass = Pass::Replay;
    let replayed = message(&event)["MessageAttributes"].clone();
    assert_eq!(replayed.as_object().expect("attributes").len(), 10);
    assert_eq!(replayed["Forebay-Pass"]["StringValue"], "replay");
    assert!(replayed.get("Forebay-Environment").is_none(), "{replayed}");
}

#[tokio::test]
async fn a_container_that_lends_a_key_is_asked_for_it() {
    let server = Server::start(|body| {
        if body.get("Entries").is_some() {
            return taken(body);
        }
        let lent = json!({
            "AccessKeyId": "ASIALENT", "SecretAccessKey": "secret", "Token": "the-token",
            "Expiration": "2999-01-01T00:00:00Z",
        });
        (200, None, lent)
    });
    let server = server.await;
    let settings = Settings { credentials: None, ..server.settings() };
    let wait = Duration::from_secs(10);
    let mut sink = Sqs::new(settings.clone(), wait).expect("a sink");
    let lender = format!("{}credentials", server.endpoint);
    let known = ("AWS_CONTAINER_CREDENTIALS_FULL_URI".to_owned(), lender);
    let env = StaticEnv { home_dir: None, envs: HashMap::from([known]) };
    sink.signing = Signing::with_env(&settings, wait, env).expect("a signer");
    assert_eq!(sink.deliver(&events(1)).await, Delivered::All);
    assert_eq!(sink.deliver(&events(1)).await, Delivered::All);
    let seen = server.seen();
    assert_eq!(seen.len(), 3, "the key is asked for once");
    let (headers, _) = &seen[2];
    assert_eq!(headers["x-amz-security-token"], "the-token");
    let authorization = headers["authorization"].to_str().expect("text");
    assert!(authorization.contains("Credential=ASIALENT/"), "{authorization}");
}

#[tokio::test]
async fn without_a_key_anywhere_the_sink_is_misconfigured() {
    let server = Server::start(taken).await;
    let settings = Settings { credentials: None, ..server.settings() };
    let mut sink = Sqs::new(settings.clone(), Duration::from_secs(1)).expect("a sink");
    let off = ("AWS_EC2_METADATA_DISABLED".to_owned(), "true".to_owned());
    let env = StaticEnv { home_dir: None, envs: HashMap::from([off]) };
    sink.signing = Signing::with_env(&settings, Duration::from_secs(1), env).expect("a signer");
    assert_eq!(classes(sink.deliver(&events(1)).await), [Some(Class::Misconfigured)]);
    assert!(server.seen().is_empty());
}

#[test]
fn settings_do_not_show_the_secret() {
    let credentials = Credentials {
        access_key: "AKIA".to_owned(),
        secret_key: SecretText::new("quite-secret"),
        session_token: Some(SecretText::new("quite-secret")),
    };
    assert!(!format!("{credentials:?}").contains("quite-secret"));
}
