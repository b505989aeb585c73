//! Against real servers: one of hyper, and one of Python for TLS.

mod signed;
mod tls;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::drain::sink::Pass;
use crate::drain::testing::{RECEIVED_NS, Written};
use crate::verify::SecretText;

#[expect(clippy::disallowed_types, reason = "a test's own")]
type Mutex<T> = std::sync::Mutex<T>;

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const SECRET_NEW: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A request as it arrived.
#[derive(Clone, Debug)]
struct Seen {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    /// Tells connections apart.
    peer: SocketAddr,
}

/// What a server does with a request.
#[derive(Clone, Debug, Default)]
struct Reply {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    wait: Duration,
    /// How long the connection may be idle afterwards.
    keep: Option<Duration>,
    bytes: usize,
}

fn reply(status: u16) -> Reply {
    Reply { status, ..Reply::default() }
}

#[derive(Clone)]
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

type Script = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

impl Server {
    async fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = Self { address, seen: Arc::default() };
        let (script, seen): (Script, _) = (Arc::new(script), Arc::clone(&server.seen));
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                tokio::spawn(serve(stream, peer, Arc::clone(&script), Arc::clone(&seen)));
            }
        });
        server
    }

    fn url(&self, host: &str) -> Uri {
        format!("http://{host}:{}/hook?a=1", self.address.port()).parse().expect("a URL")
    }

    fn settings(&self) -> Settings {
        Settings {
            url: self.url("127.0.0.1"),
            batch: Batch::One,
            attributes: false,
            secrets: Vec::new(),
            headers: Vec::new(),
            authorities: None,
            allow_private: true,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(4),
        }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(
    stream: tokio::net::TcpStream,
    peer: SocketAddr,
    script: Script,
    seen: Arc<Mutex<Vec<Seen>>>,
) {
    // Set by the answer that lets the connection end.
    let closing = Arc::new(tokio::sync::Notify::new());
    let notify = Arc::clone(&closing);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (script, seen, notify) = (Arc::clone(&script), Arc::clone(&seen), Arc::clone(&notify));
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let path = head.uri.to_string();
            let one = Seen { method: head.method, path, headers: head.headers, body, peer };
            let reply = script(&one);
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(one);
            tokio::time::sleep(reply.wait).await;
            if let Some(keep) = reply.keep {
                tokio::spawn(async move {
                    tokio::time::sleep(keep).await;
                    notify.notify_one();
                });
            }
            let mut response = Response::new(Full::new(Bytes::from(vec![b'x'; reply.bytes])));
            *response.status_mut() = StatusCode::from_u16(reply.status).expect("a status");
            for (name, value) in reply.headers {
                response.headers_mut().insert(name, value.parse().expect("a value"));
            }
            Ok::<_, hyper::Error>(response)
        }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = connection => {}
        () = closing.notified() => {}
    }
}

fn sink(settings: &Settings) -> Http {
    Http::with_clock(settings, Clock::System).expect("a sink")
}

async fn one(sink: &Http, event: &Event) -> Result<(), Failure> {
    match sink.deliver(std::slice::from_ref(event)).await {
        Delivered::All => Ok(()),
        Delivered::Each(mut verdicts) => verdicts.pop().expect("a verdict"),
        Delivered::None(failure) => Err(failure),
    }
}

async fn each(sink: &Http, events: &[Event]) -> Vec<Option<Class>> {
    let Delivered::Each(verdicts) = sink.deliver(events).await else { panic!("one for each") };
    verdicts.into_iter().map(|verdict| verdict.err().map(|failure| failure.class)).collect()
}

fn secret(text: &str) -> NamedSecret {
    NamedSecret { name: "main".to_owned(), value: SecretText::new(text), key_id: None }
}

fn header<'s>(seen: &'s Seen, name: &str) -> &'s str {
    seen.headers.get(name).map_or("", |value| value.to_str().expect("text"))
}

#[tokio::test]
async fn an_event_arrives_with_its_name_and_what_the_operator_adds() {
    let server = Server::start(|_| reply(202)).await;
    let token = ("authorization".parse().expect("a name"), "Bearer t".parse().expect("a value"));
    let sink = sink(&Settings { headers: vec![token], ..server.settings() });
    let mut event = Written::new().event(1, "{\"a\": 1}");
    assert_eq!(one(&sink, &event).await, Ok(()));
    event.pass = Pass::Replay;
    assert_eq!(one(&sink, &event).await, Ok(()));
    let [live, replay] = &server.seen()[..] else { panic!("two requests") };
    assert_eq!(
        (&live.method, &*live.path, &*live.body),
        (&Method::POST, "/hook?a=1", &b"{\"a\": 1}"[..])
    );
    for (name, value) in [
        ("idempotency-key", "01010101010101010101010101010101"),
        ("content-type", "application/json"),
        ("authorization", "Bearer t"),
        ("forebay-pass", ""),
        ("webhook-signature", ""),
        ("ce-id", ""),
    ] {
        assert_eq!(header(live, name), value, "{name}");
    }
    assert!(header(live, "user-agent").starts_with("forebay/"));
    assert_eq!(header(replay, "forebay-pass"), "replay");
    assert_eq!(header(replay, "idempotency-key"), header(live, "idempotency-key"));
    assert_eq!(live.peer, replay.peer, "the connection is used again");
}

#[tokio::test]
async fn a_status_decides_what_becomes_of_the_event() {
    let statuses = [200_u16, 400, 401, 404, 408, 410, 422, 429, 500, 503];
    let server = Server::start(move |seen| {
        let digit = usize::from(seen.body[0] - b'0');
        Reply { headers: vec![("retry-after", "7")], ..reply(statuses[digit]) }
    })
    .await;
    let sink = sink(&server.settings());
    let mut log = Written::new();
    let mut told = Vec::new();
    for digit in 0..10_u8 {
        let verdict = one(&sink, &log.event(digit, &digit.to_string())).await;
        told.push(verdict.err().map(|failure| {
            (failure.class.label(), failure.retry_after.map_or(0, |wait| wait.as_secs()))
        }));
    }
    assert_eq!(
        told,
        [
            None,
            Some(("permanent", 0)),
            Some(("misconfigured", 0)),
            Some(("misconfigured", 0)),
            Some(("temporary", 7)),
            Some(("misconfigured", 0)),
            Some(("permanent", 0)),
            Some(("overloaded", 7)),
            Some(("temporary", 7)),
            Some(("overloaded", 7)),
        ]
    );
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let server =
        Server::start(|_| Reply { headers: vec![("location", "/elsewhere")], ..reply(307) }).await;
    let failure = one(&sink(&server.settings()), &Written::new().event(1, "{}")).await;
    assert_eq!(failure.expect_err("is a failure").class, Class::Misconfigured);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn who_does_not_listen_is_a_temporary_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut settings = Server::start(|_| reply(200)).await.settings();
    let address = listener.local_addr().expect("an address");
    settings.url = format!("http://{address}/secret-path").parse().expect("a URL");
    drop(listener);
    let failure = one(&sink(&settings), &Written::new().event(1, "{}")).await.expect_err("fails");
    assert_eq!(failure.class, Class::Temporary);
    assert!(failure.reason.contains("cannot connect"), "{failure}");
    assert!(!failure.reason.contains("secret-path"), "{failure}");
}

#[tokio::test]
async fn an_answer_that_is_not_waited_for_leaves_the_sink_whole() {
    let server = Server::start(|seen| match seen.body.len() {
        2 => Reply { wait: Duration::from_secs(60), ..reply(200) },
        _ => Reply { wait: Duration::from_millis(150), bytes: 1 << 20, ..reply(200) },
    })
    .await;
    let sink = sink(&server.settings());
    let mut log = Written::new();
    let (slow, other) = (log.event(1, "{}"), log.event(2, "{ }"));
    let given_up = tokio::time::timeout(Duration::from_millis(100), one(&sink, &slow)).await;
    assert!(given_up.is_err());
    // A slow answer, and one whose body is longer than is read.
    assert_eq!(one(&sink, &other).await, Ok(()));
    assert_eq!(one(&sink, &other).await, Ok(()));
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_costs_no_event() {
    // The server closes at about the time at which the next request is written.
    let server =
        Server::start(|_| Reply { keep: Some(Duration::from_millis(10)), ..reply(200) }).await;
    let sink = sink(&server.settings());
    let mut log = Written::new();
    for number in 0..40_u8 {
        let event = log.event(number, "{}");
        while let Err(failure) = one(&sink, &event).await {
            assert_eq!(failure.class, Class::Temporary, "{failure}");
        }
        tokio::time::sleep(Duration::from_millis(u64::from(number % 20))).await;
    }
    let names: BTreeSet<String> =
        server.seen().iter().map(|seen| header(seen, "idempotency-key").to_owned()).collect();
    assert_eq!(names.len(), 40);
    let peers: BTreeSet<SocketAddr> = server.seen().iter().map(|seen| seen.peer).collect();
    assert!(peers.len() > 1, "connections were closed");
}

#[tokio::test]
async fn a_connection_is_given_up_before_its_peer_would_close_it() {
    let server = Server::start(|_| reply(200)).await;
    let settings = Settings { idle_timeout: Duration::from_millis(100), ..server.settings() };
    let sink = sink(&settings);
    let event = Written::new().event(1, "{}");
    for wait in [0, 400] {
        assert_eq!(one(&sink, &event).await, Ok(()));
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
    assert_eq!(one(&sink, &event).await, Ok(()));
    let peers: Vec<SocketAddr> = server.seen().iter().map(|seen| seen.peer).collect();
    assert_eq!(peers[0], peers[1]);
    assert_ne!(peers[1], peers[2]);
}

#[tokio::test]
async fn a_batch_is_an_array_and_its_name_follows_from_its_events() {
    let server = Server::start(|_| reply(200)).await;
    let sink = sink(&Settings { batch: Batch::Json, ..server.settings() });
    let mut log = Written::new();
    let events = [log.event(1, "{\"a\":1}"), log.event(2, "no json"), log.event(3, "[2]")];
    for _ in 0..2 {
        let verdicts = each(&sink, &events).await;
        assert_eq!(verdicts, [None, Some(Class::Permanent), None]);
    }
    assert_eq!(each(&sink, &events[..1]).await, [None]);
    let seen = server.seen();
    let body: Value = serde_json::from_slice(&seen[0].body).expect("is JSON");
    assert_eq!(body, json!([{"a": 1}, [2]]));
    let name = |index: usize| header(&seen[index], "idempotency-key");
    assert_eq!(name(0), name(1));
    assert_ne!(name(0), name(2));
    assert_eq!(name(0).len(), 32);
}

#[tokio::test]
async fn an_event_that_is_refused_for_good_is_found_in_its_batch() {
    let server = Server::start(|seen| {
        let poison = seen.body.windows(6).any(|part| part == b"poison");
        reply(if poison { 422 } else { 200 })
    })
    .await;
    let sink = sink(&Settings { batch: Batch::Json, ..server.settings() });
    let mut log = Written::new();
    let body = |number| if number == 71 { "\"poison\"" } else { "{}" };
    let events: Vec<Event> = (0..100).map(|number| log.event(number, body(number))).collect();
    let verdicts = each(&sink, &events).await;
    for (number, verdict) in verdicts.iter().enumerate() {
        assert_eq!(*verdict, (number == 71).then_some(Class::Permanent), "{number}");
    }
    assert!(server.seen().len() <= 16, "{} requests", server.seen().len());
}

#[tokio::test]
async fn a_batch_that_is_refused_altogether_is_not_sent_for_ever() {
    let server = Server::start(|_| reply(400)).await;
    let sink = sink(&Settings { batch: Batch::Json, ..server.settings() });
    let mut log = Written::new();
    let events: Vec<Event> = (0..100).map(|number| log.event(number, "{}")).collect();
    let verdicts = each(&sink, &events).await;
    assert_eq!(server.seen().len(), REQUESTS_MAX);
    assert!(
        verdicts.contains(&Some(Class::Permanent)) && verdicts.contains(&Some(Class::Temporary))
    );
    assert!(!verdicts.contains(&None));
}

#[tokio::test]
async fn a_busy_destination_ends_the_batch_at_once() {
    let server = Server::start(|seen| reply(if seen.body.len() > 60 { 413 } else { 503 })).await;
    let sink = sink(&Settings { batch: Batch::Json, ..server.settings() });
    let mut log = Written::new();
    let events: Vec<Event> = (0..64).map(|number| log.event(number, "{}")).collect();
    assert_eq!(each(&sink, &events).await, [Some(Class::Overloaded); 64]);
    assert!(server.seen().len() < 8);
}

#[tokio::test]
async fn cloudevents_are_a_batch_or_the_headers_of_one() {
    let server = Server::start(|_| reply(200)).await;
    let mut log = Written::new();
    let events = [log.event(1, "{\"a\":1}"), log.event(2, "no json")];
    let settings = Settings { attributes: true, ..server.settings() };
    let batch = sink(&Settings { batch: Batch::CloudEvents, ..settings.clone() });
    assert_eq!(each(&batch, &events).await, [None, None]);
    assert_eq!(one(&sink(&settings), &events[0]).await, Ok(()));
    let [many, single] = &server.seen()[..] else { panic!("two requests") };
    assert_eq!(header(many, "content-type"), "application/cloudevents-batch+json");
    let body: Value = serde_json::from_slice(&many.body).expect("is JSON");
    assert_eq!(
        (&body[0]["data"], &body[1]["data_base64"]),
        (&json!({"a": 1}), &json!("bm8ganNvbg=="))
    );
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-id", "01010101010101010101010101010101"),
        ("ce-source", "/sources/hub"),
        ("ce-type", "room.started"),
        ("ce-eventid", "ev%201"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(header(single, name), value, "{name}");
    }
    assert_eq!(&*single.body, b"{\"a\":1}");
}

#[tokio::test]
async fn private_addresses_are_reached_only_where_that_is_allowed() {
    let server = Server::start(|_| reply(200)).await;
    let event = Written::new().event(1, "{}");
    // Names, and spellings of addresses that the system's resolver reads.
    for host in ["localhost", "127.1", "0x7f000001", "2130706433"] {
        let guarded = Settings { url: server.url(host), allow_private: false, ..server.settings() };
        let failure = one(&sink(&guarded), &event).await.expect_err(host);
        assert_eq!(failure.class, Class::Misconfigured, "{host}: {failure}");
        assert!(failure.reason.contains("allow_private"), "{failure}");
        assert_eq!(sink(&guarded).probe().await.expect_err(host).class, Class::Misconfigured);
        assert_eq!(server.seen().len(), 0, "{host}");
    }
    for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1"] {
        let guarded = Settings { url: server.url(host), allow_private: false, ..server.settings() };
        assert!(Http::new(&guarded).is_err(), "{host}");
    }
    for (count, host) in (1..).zip(["localhost", "127.1", "0x7f000001", "127.0.0.1"]) {
        let open = Settings { url: server.url(host), ..server.settings() };
        assert_eq!(one(&sink(&open), &event).await, Ok(()), "{host}");
        assert_eq!(server.seen().len(), count);
    }
}

#[tokio::test]
async fn a_probe_changes_nothing_and_says_whether_somebody_is_there() {
    for (status, there) in
        [(200, true), (404, true), (405, true), (501, true), (429, false), (503, false)]
    {
        let server = Server::start(move |_| reply(status)).await;
        assert_eq!(sink(&server.settings()).probe().await.is_ok(), there, "{status}");
        let seen = server.seen();
        assert_eq!((&seen[0].method, seen[0].body.len()), (&Method::HEAD, 0));
    }
}

#[test]
fn settings_show_no_secret() {
    let settings = Settings {
        url: "https://hooks.example.com/canary?t=canary".parse().expect("a URL"),
        batch: Batch::One,
        attributes: false,
        secrets: vec![secret("whsec_Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5")],
        headers: vec![("a".parse().expect("a name"), "canary".parse().expect("a value"))],
        authorities: None,
        allow_private: false,
        connect_timeout: Duration::ZERO,
        idle_timeout: Duration::ZERO,
    };
    let shown = format!("{settings:?}");
    assert!(!shown.contains("canary") && !shown.contains("Y2Fu"), "{shown}");
}
