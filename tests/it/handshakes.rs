//! Handshakes: what senders ask before and between their events is answered, also while events
//! are refused; and nobody gets an answer that he could not have made himself.

use crate::support::http::{Request, Response};
use crate::support::server::{Server, Setup, source};
use crate::support::{Driver, sign};

for_each_driver![
    signed_handshakes_are_answered_and_leave_nothing,
    a_forger_is_refused_like_any_other,
    no_answer_is_a_signature_of_what_somebody_chose,
    a_url_is_confirmed_to_who_shows_the_token,
    a_subscription_is_agreed_to_for_wanted_topics,
    handshakes_by_header_query_and_method_are_answered,
    a_probe_that_nobody_signs_is_answered_and_is_no_event,
    an_invitation_to_confirm_is_kept_and_not_followed,
    handshakes_are_answered_while_the_dedupe_table_is_full,
    handshakes_are_answered_while_bodies_have_no_room,
];

const SECRET: &str = "handshake-test-secret-0123456789";
const SECRETS: &[(&str, &str)] = &[("a", SECRET)];
const VERIFY_TOKEN: &str = "the-token-of-the-operator";

fn presets(driver: Driver) -> Setup {
    ["slack", "zoom", "twitch"]
        .iter()
        .fold(Setup::new(driver), |setup, preset| setup.more(&source(preset, preset, SECRETS)))
}

fn slack(body: &str) -> Request {
    let now = sign::now_seconds();
    let mac = sign::hex_mac(SECRET, format!("v0:{now}:{body}").as_bytes());
    Request::post("/slack")
        .header("content-type", "application/json")
        .header("x-slack-request-timestamp", now.to_string())
        .header("x-slack-signature", format!("v0={mac}"))
        .body(body.as_bytes())
}

fn zoom(body: &str) -> Request {
    let now = sign::now_seconds();
    let mac = sign::hex_mac(SECRET, format!("v0:{now}:{body}").as_bytes());
    Request::post("/zoom")
        .header("content-type", "application/json")
        .header("x-zm-request-timestamp", now.to_string())
        .header("x-zm-signature", format!("v0={mac}"))
        .body(body.as_bytes())
}

fn twitch(kind: &str, body: &str) -> Request {
    let now = jiff_now();
    let mac = sign::hex_mac(SECRET, format!("id-1{now}{body}").as_bytes());
    Request::post("/twitch")
        .header("content-type", "application/json")
        .header("twitch-eventsub-message-id", "id-1")
        .header("twitch-eventsub-message-timestamp", now)
        .header("twitch-eventsub-message-type", kind)
        .header("twitch-eventsub-message-signature", format!("sha256={mac}"))
        .body(body.as_bytes())
}

/// Now, as Twitch writes it.
fn jiff_now() -> String {
    jiff::Timestamp::from_second(sign::now_seconds()).unwrap().to_string()
}

fn plain_token(token: &str) -> String {
    format!(r#"{{"event":"endpoint.url_validation","payload":{{"plainToken":"{token}"}}}}"#)
}

fn url_verification(challenge: &str) -> String {
    format!(r#"{{"type":"url_verification","token":"t","challenge":"{challenge}"}}"#)
}

#[track_caller]
fn is_text(response: &Response, text: &str) {
    assert_eq!((response.status, response.text()), (200, text));
    assert!(response.value("content-type").starts_with("text/plain"));
    assert_eq!(response.value("x-content-type-options"), "nosniff");
}

fn signed_handshakes_are_answered_and_leave_nothing(driver: Driver) {
    let server = Server::start(presets(driver));
    is_text(
        &server.send(&slack(&url_verification("3eZbrw1aBm2rZgRNFdxV"))),
        "3eZbrw1aBm2rZgRNFdxV",
    );
    let asked = twitch("webhook_callback_verification", r#"{"challenge":"pogchamp-kappa"}"#);
    is_text(&server.send(&asked), "pogchamp-kappa");
    let response = server.send(&zoom(&plain_token("qgg8vlvZRS6UYooatFL8Aw")));
    let mac = sign::hex_mac(SECRET, b"qgg8vlvZRS6UYooatFL8Aw");
    let expected = format!(r#"{{"plainToken":"qgg8vlvZRS6UYooatFL8Aw","encryptedToken":"{mac}"}}"#);
    assert_eq!((response.status, response.text()), (200, expected.as_str()));
    assert_eq!(response.value("content-type"), "application/json");
    assert!(server.rows().is_empty(), "{:?}", server.rows());
    let metrics = server.admin("/metrics");
    let counted = "forebay_requests_total{source=\"zoom\",outcome=\"handshake\"} 1";
    assert!(metrics.text().contains(counted), "{}", metrics.text());

    // An event beside them is one, whatever its unsigned header says.
    let event = slack(r#"{"type":"event_callback","event_id":"Ev1","challenge":"c"}"#);
    assert_eq!((server.send(&event).status, server.send(&event).text()), (200, ""));
    let event = twitch("webhook_callback_verification", r#"{"subscription":{"type":"x"}}"#);
    assert_eq!((server.send(&event).status, server.events().len()), (204, 2), "kept as an event");
}

fn a_forger_is_refused_like_any_other(driver: Driver) {
    let server = Server::start(presets(driver));
    for (name, request, signature) in [
        ("slack", slack(&url_verification("c")), "x-slack-signature"),
        ("zoom", zoom(&plain_token("token")), "x-zm-signature"),
        (
            "twitch",
            twitch("webhook_callback_verification", r#"{"challenge":"c"}"#),
            "twitch-eventsub-message-signature",
        ),
    ] {
        let unsigned = server.send(&request.clone().without(signature));
        assert_eq!(unsigned.status, 401, "{name}");
        let mut altered = request.clone();
        altered.body.push(b' ');
        let altered = server.send(&altered);
        assert_eq!(altered.status, 401, "{name}");
        for response in [&unsigned, &altered] {
            let media = response.value("content-type");
            assert_eq!(media, "application/problem+json", "{name}");
        }
        assert_eq!(server.send(&request).status, 200, "{name}");
    }
    assert!(server.rows().is_empty());
}

/// Suppose that somebody can make Zoom ask with a token of his choice: the answer must never be
/// the signature of a request.
fn no_answer_is_a_signature_of_what_somebody_chose(driver: Driver) {
    let server = Server::start(presets(driver));
    let now = sign::now_seconds();
    let wanted = format!("v0:{now}:{{}}");
    let signature = sign::hex_mac(SECRET, wanted.as_bytes());
    let long = "a".repeat(129);
    let tokens = [&wanted, "v0:", "a b", "a.b", "", "a\\u003ab", &long];
    for token in tokens {
        let response = server.send(&zoom(&plain_token(token)));
        assert_eq!((response.status, response.text()), (200, ""), "kept as an event: {token}");
        assert!(!response.text().contains(&signature));
    }
    assert_eq!(server.events().len(), tokens.len());
    // And what it does answer signs nothing.
    let mac = sign::hex_mac(SECRET, b"7");
    let forged = Request::post("/zoom")
        .header("content-type", "application/json")
        .header("x-zm-request-timestamp", now.to_string())
        .header("x-zm-signature", format!("v0={mac}"))
        .body(b"7");
    assert_eq!(server.send(&forged).status, 401);
}

/// A source with a scheme of its own and these handshakes.
fn own(name: &str, keys: &str, handshakes: &[&str]) -> String {
    format!(
        "[[source]]\nname = \"{name}\"\npath = \"/{name}\"\nenvironment = \"test\"\n{keys}\n\
         event_id = \"json:id\"\nhandshakes = [{}]\n\
         secrets = [{{ name = \"a\", value = \"{SECRET}\" }}]\n[source.scheme]\n\
         algorithm = \"hmac-sha256\"\nheader = \"X-Own\"\nsigned = [\"body\"]\n\
         signature_encoding = \"hex\"\n",
        handshakes.join(", ")
    )
}

fn signed(name: &str, body: &str) -> Request {
    Request::post(&format!("/{name}"))
        .header("content-type", "application/json")
        .header("x-own", sign::hex_mac(SECRET, body.as_bytes()))
        .body(body.as_bytes())
}

fn a_url_is_confirmed_to_who_shows_the_token(driver: Driver) {
    let handshake = r#"{ name = "verify", method = "GET", signed = false,
        when = { "query:hub.mode" = "subscribe" },
        guard = { is = "token", at = "query:hub.verify_token" },
        answer = { kind = "echo", from = "query:hub.challenge" } }"#
        .replace('\n', " ");
    let keys = format!("verify_token = {{ value = \"{VERIFY_TOKEN}\" }}");
    let server = Server::start(Setup::new(driver).more(&own("meta", &keys, &[&handshake])));
    let ask = |token: &str, challenge: &str| {
        let query =
            format!("hub.mode=subscribe&hub.challenge={challenge}&hub.verify_token={token}");
        server.send(&Request::get(&format!("/meta?{query}")))
    };
    is_text(&ask(VERIFY_TOKEN, "1158201444"), "1158201444");
    for token in ["", "x", "the-token-of-the-operato", "the-token-of-the-operator%20"] {
        let response = ask(token, "1158201444");
        assert_eq!(response.status, 403, "{token}");
        assert!(!response.text().contains("1158201444"), "{token}");
    }
    for challenge in ["", "%3Cscript%3Ealert(1)%3C/script%3E", "a%0d%0aset-cookie:%20a=b"] {
        assert_eq!(ask(VERIFY_TOKEN, challenge).status, 400, "{challenge}");
    }
    let plain = server.send(&Request::get("/meta"));
    assert_eq!((plain.status, plain.value("allow")), (405, "POST"));
    assert_eq!(server.send(&Request::get("/std?hub.mode=subscribe")).status, 405);
    let put = Request { method: "PUT".to_owned(), ..Request::get("/meta?hub.mode=subscribe") };
    assert_eq!(server.send(&put).status, 405);
    assert!(server.rows().is_empty());
    assert!(!server.admin("/metrics").text().contains(VERIFY_TOKEN));
    assert!(!server.log().contains(VERIFY_TOKEN));
}

fn a_subscription_is_agreed_to_for_wanted_topics(driver: Driver) {
    let handshake = |mode: &str, guard: &str| {
        format!(
            "{{ name = \"{mode}\", method = \"GET\", signed = false, \
             when = {{ \"query:hub.mode\" = \"{mode}\" }}, \
             guard = {{ is = \"{guard}\", at = \"query:hub.topic\" }}, \
             answer = {{ kind = \"echo\", from = \"query:hub.challenge\" }} }}"
        )
    };
    let handshakes = [handshake("subscribe", "topic"), handshake("unsubscribe", "other-topic")];
    let keys = "topics = [\"https://feeds.test/c?id=1\"]";
    let own = own("hub", keys, &[&handshakes[0], &handshakes[1]]);
    let server = Server::start(Setup::new(driver).more(&own));
    let ask = |mode: &str, topic: &str| {
        let query = format!("hub.mode={mode}&hub.topic={topic}&hub.challenge=c-1");
        server.send(&Request::get(&format!("/hub?{query}")))
    };
    let ours = "https%3A%2F%2Ffeeds.test%2Fc%3Fid%3D1";
    is_text(&ask("subscribe", ours), "c-1");
    assert_eq!(ask("subscribe", "https%3A%2F%2Fevil.test").status, 404);
    assert_eq!(ask("unsubscribe", ours).status, 404, "a stranger ends no subscription of ours");
    is_text(&ask("unsubscribe", "https%3A%2F%2Fold.test"), "c-1");
}

fn handshakes_by_header_query_and_method_are_answered(driver: Driver) {
    let header = r#"{ name = "validation-token", signed = false,
        when = { "header:validation-token" = "*" },
        answer = { kind = "echo", from = "header:validation-token", into = "header:validation-token" } }"#
        .replace('\n', " ");
    let query = r#"{ name = "validationToken", signed = false,
        answer = { kind = "echo", from = "query:validationToken" },
        when = { "query:validationToken" = "*" } }"#
        .replace('\n', " ");
    let origin = r#"{ name = "origin", method = "OPTIONS", signed = false,
        guard = { is = "origin", at = "header:webhook-request-origin" },
        answer = { kind = "allow-origin", from = "header:webhook-request-origin" } }"#
        .replace('\n', " ");
    let keys = "origins = [\"eventemitter.example.com\"]";
    let own = own("own", keys, &[&header, &query, &origin]);
    let server = Server::start(Setup::new(driver).more(&own));

    let token = "b0a3f4e6-0000-4c5e-9d8b-1f2e3d4c5b6a";
    let response = server.send(&Request::post("/own").header("validation-token", token));
    assert_eq!((response.status, response.value("validation-token")), (200, token));
    assert_eq!(response.value("content-type"), "application/json");

    let target = "/own?validationToken=Validation%3A+Testing%20Request-Id%3A%201-2";
    let microsoft = Request::post(target).header("content-type", "text/plain; charset=utf-8");
    is_text(&server.send(&microsoft), "Validation: Testing Request-Id: 1-2");
    let evil = Request::post("/own?validationToken=%3Cscript%3E");
    assert_eq!(server.send(&evil).status, 400);

    let options = |origin: &str| {
        let request = Request { method: "OPTIONS".to_owned(), ..Request::post("/own") };
        server.send(
            &request
                .header("webhook-request-origin", origin)
                .header("webhook-request-callback", "http://169.254.169.254/latest/meta-data"),
        )
    };
    let allowed = options("eventemitter.example.com");
    assert_eq!(allowed.status, 200);
    assert_eq!(allowed.value("webhook-allowed-origin"), "eventemitter.example.com");
    assert_eq!((allowed.value("webhook-allowed-rate"), allowed.value("allow")), ("*", "POST"));
    let other = options("evil.test");
    assert_eq!((other.status, other.value("webhook-allowed-origin")), (403, ""));

    // With a body it is a request like any other, and a handshake's header opens no door.
    let smuggled = signed("own", r#"{"id":"1"}"#).header("validation-token", token);
    assert_eq!(server.send(&smuggled).value("validation-token"), "");
    let forged = smuggled.without("x-own");
    assert_eq!(server.send(&forged).status, 401);
    assert_eq!(server.events().len(), 1);
}

fn a_probe_that_nobody_signs_is_answered_and_is_no_event(driver: Driver) {
    let handshake = r#"{ name = "test", signed = false, when = { "json:test" = "test" },
        unless = ["json:id"], answer = { kind = "fixed" } }"#
        .replace('\n', " ");
    let server = Server::start(Setup::new(driver).more(&own("daily", "", &[&handshake])));
    let probe = |body: &str| {
        let request = Request::post("/daily").header("content-type", "application/json");
        server.send(&request.body(body.as_bytes())).status
    };
    assert_eq!(probe(r#"{"test":"test"}"#), 200);
    assert_eq!(probe(r#"{"test":"test","id":"1"}"#), 401, "an event without a signature");
    assert_eq!(probe(r#"{"test":"other"}"#), 401);
    assert_eq!(probe(r#"{"test":"test""#), 401, "broken");
    assert_eq!(probe(""), 401);
    assert_eq!(probe(&format!("{{\"test\":\"test\",\"x\":\"{}\"}}", "x".repeat(5000))), 401);
    assert_eq!(server.send(&signed("daily", r#"{"id":"1"}"#)).status, 200);
    assert_eq!(server.rows().len(), 1, "the signed event alone");
}

/// An address in a request is never asked: an invitation of a wanted topic is stored for the
/// operator, every other one is refused.
fn an_invitation_to_confirm_is_kept_and_not_followed(driver: Driver) {
    let handshake = r#"{ name = "confirm", when = { "json:Type" = "SubscriptionConfirmation" },
        guard = { is = "topic", at = "json:TopicArn" },
        answer = { kind = "confirm", url = "json:SubscribeURL" } }"#
        .replace('\n', " ");
    let keys = "topics = [\"arn:aws:sns:eu-west-1:1:live\"]";
    let server = Server::start(Setup::new(driver).more(&own("sns", keys, &[&handshake])));
    let invitation = |id: &str, topic: &str, url: &str| {
        let body = format!(
            r#"{{"Type":"SubscriptionConfirmation","id":"{id}","TopicArn":"{topic}","SubscribeURL":"{url}"}}"#
        );
        server.send(&signed("sns", &body)).status
    };
    let ours = "arn:aws:sns:eu-west-1:1:live";
    let good = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&Token=canary-token";
    assert_eq!(invitation("1", ours, good), 200);
    assert_eq!(invitation("2", "arn:aws:sns:eu-west-1:2:evil", good), 404);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let here = format!("http://{}/", listener.local_addr().unwrap());
    for url in [&here, "https://sns.eu-west-1.amazonaws.com.evil.test/", "https://169.254.169.254/"]
    {
        assert_eq!(invitation("3", ours, url), 403, "{url}");
    }
    assert_eq!(server.events().len(), 1);
    assert!(server.log().contains("asks to be confirmed"), "{}", server.log());
    assert!(!server.log().contains("canary-token"));
    assert!(listener.accept().is_err(), "nobody was called");
}

fn handshakes_are_answered_while_the_dedupe_table_is_full(driver: Driver) {
    let mut server = Server::prepare(presets(driver));
    let text = server.config_text().replace("= 200000", "= 1024");
    server.write_config_text(&text);
    server.run();
    let mut connection = server.connect();
    let mut sent = 0;
    let full = loop {
        let request = sign::standard(&format!("msg_{sent}"), b"{}");
        let response = connection.send(&request).unwrap();
        sent += 1;
        if response.status != 200 {
            break response;
        }
        assert!(sent < 10_000, "the table is never full");
    };
    assert_eq!((full.status, full.value("retry-after")), (503, "2"));
    assert_eq!(server.send(&slack(r#"{"type":"event_callback","event_id":"E"}"#)).status, 503);
    is_text(&server.send(&slack(&url_verification("still-here"))), "still-here");
    assert_eq!(server.send(&zoom(&plain_token("token"))).status, 200);
}

fn handshakes_are_answered_while_bodies_have_no_room(driver: Driver) {
    let setup = presets(driver)
        .receive("body_budget = \"64KiB\"")
        .receive("body_max = \"64KiB\"")
        .receive("body_timeout = \"60s\"");
    let server = Server::start(setup);
    // Senders that declare a body and keep it take the room of both receivers.
    let mut stalled = Vec::new();
    for index in 0..64 {
        let request = sign::standard(&format!("msg_{index}"), b"{}");
        let mut connection = server.connect();
        connection.write(&request.header("content-length", "65536").head_bytes()).unwrap();
        stalled.push(connection);
    }
    let event = slack(r#"{"type":"event_callback","event_id":"E"}"#);
    crate::support::eventually(
        "both receivers are full",
        std::time::Duration::from_secs(10),
        || (0..32).all(|_| server.send(&event).status == 503),
    );
    for _ in 0..32 {
        is_text(&server.send(&slack(&url_verification("still-here"))), "still-here");
    }
    drop(stalled);
    crate::support::eventually(
        "events are taken again",
        std::time::Duration::from_secs(10),
        || server.send(&event).status == 200,
    );
}
