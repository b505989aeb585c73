//! What becomes of events.

use forebay_log::Tag;
use serde_json::{Value, json};

use super::*;
use crate::drain::sink::Class;
use crate::drain::testing::{Said, Written};

const FIELDS: &[(Tag, &str)] = &[
    (Tag::Source, "hub"),
    (Tag::Environment, "production"),
    (Tag::Tenant, "acme"),
    (Tag::EventId, "ev_1"),
    (Tag::EventType, "room.started"),
    (Tag::EventTime, "2026-11-21T17:59:58Z"),
];
const HEADERS: &[(&str, &str)] =
    &[("content-type", "application/json"), ("Authorization", "canary"), ("x-a", "1")];
const BODY: &[u8] = br#"{"room":{"id":7},
"user":{"email":"canary@x"}}"#;

fn shape(settings: &Settings) -> Shape {
    Shape::compile(settings).expect("compiles")
}

fn apply(settings: &Settings, body: &[u8]) -> Result<Option<Payload>, Failure> {
    let record = Written::new().record(1, Said { fields: FIELDS, headers: HEADERS, body });
    shape(settings).apply(&record, "main")
}

fn payload(settings: &Settings, body: &[u8]) -> (String, String) {
    let (made, content_type) = apply(settings, body).expect("works").expect("is taken");
    let payload = made.as_deref().unwrap_or(body);
    (String::from_utf8_lossy(payload).into_owned(), content_type.into_owned())
}

fn json_of(settings: &Settings, body: &[u8]) -> Value {
    let (text, _) = payload(settings, body);
    assert!(!text.contains(['\n', '\r']), "{text}");
    serde_json::from_str(&text).expect("is JSON")
}

fn with(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = Settings::default();
    change(&mut settings);
    settings
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

#[test]
fn a_raw_payload_is_the_body_in_its_segment_without_a_copy() {
    let record = Written::new().record(1, Said { fields: FIELDS, headers: HEADERS, body: BODY });
    let (made, content_type) =
        Shape::default().apply(&record, "main").expect("works").expect("is taken");
    assert_eq!((&made, &*content_type), (&None, "application/json"));
    let event = Written::event_of(record);
    let body = event.record.get().body();
    assert_eq!((event.payload(), event.payload().as_ptr()), (BODY, body.as_ptr()));
    assert_eq!((&*event.payload_bytes(), event.payload_bytes().as_ptr()), (BODY, body.as_ptr()));
}

#[test]
fn a_normalised_row_is_that_of_tail_with_its_body_as_json() {
    let row = json_of(&with(|settings| settings.format = Format::Normalised), BODY);
    assert_eq!(row["body"]["room"]["id"], 7);
    assert_eq!(row["headers"][2], json!(["x-a", "1"]));
    for (key, value) in [
        ("lane", "main"),
        ("source", "hub"),
        ("tenant", "acme"),
        ("event_type", "room.started"),
        ("kind", "event"),
        ("event_id", "ev_1"),
        ("key", "01010101010101010101010101010101"),
    ] {
        assert_eq!(row[key], value, "{key}");
    }
}

#[test]
fn a_body_that_is_no_json_has_a_key_of_its_own_in_the_row() {
    let normalised = with(|settings| settings.format = Format::Normalised);
    assert_eq!(json_of(&normalised, b"a=1\nb")["body_text"], "a=1\nb");
    assert_eq!(json_of(&normalised, b"\xff")["body_base64"], "/w==");
    assert_eq!(json_of(&normalised, b"\"a=1\"")["body"], "a=1");
}

#[test]
fn a_number_keeps_its_digits_through_a_row_and_a_transform() {
    let body = br#"{"n":12345678901234567890123.10}"#;
    let (row, _) = payload(&with(|settings| settings.format = Format::Normalised), body);
    assert!(row.contains("12345678901234567890123.10"), "{row}");
    let transform = with(|settings| settings.transform = Some(".body".to_owned()));
    assert_eq!(payload(&transform, body).0, r#"{"n":12345678901234567890123.10}"#);
}

#[test]
fn cloudevents_have_the_attributes_of_the_specification() {
    let settings = with(|settings| settings.format = Format::CloudEvents);
    let (_, content_type) = payload(&settings, BODY);
    assert_eq!(content_type, "application/cloudevents+json");
    let event = json_of(&settings, BODY);
    let position = event["position"].as_str().expect("a position").to_owned();
    assert_eq!(
        event,
        json!({
            "specversion": "1.0", "id": "01010101010101010101010101010101",
            "source": "/sources/hub", "type": "room.started", "time": "2026-11-21T17:59:58Z",
            "eventid": "ev_1", "tenant": "acme", "environment": "production",
            "lane": "main", "position": position,
            "datacontenttype": "application/json",
            "data": {"room": {"id": 7}, "user": {"email": "canary@x"}},
        })
    );
}

/// JSON format 3.1: what is JSON is a value, other text a string, all else base64.
#[test]
fn the_data_of_cloudevents_follows_its_media_type() {
    let data = |content_type: &str, body: &[u8]| {
        let headers = [("content-type", content_type)];
        let record = Written::new().record(1, Said { fields: FIELDS, headers: &headers, body });
        let shape = shape(&with(|settings| settings.format = Format::CloudEvents));
        let (made, _) = shape.apply(&record, "main").expect("works").expect("is taken");
        let event: Value = serde_json::from_slice(&made.expect("is made")).expect("is JSON");
        assert_eq!(event["datacontenttype"], content_type);
        (event["data"].clone(), event["data_base64"].clone())
    };
    assert_eq!(data("application/json; charset=utf-8", b"[1]"), (json!([1]), Value::Null));
    assert_eq!(data("application/vnd.a+json", b"\"x\""), (json!("x"), Value::Null));
    assert_eq!(data("text/xml", b"<a>1</a>"), (json!("<a>1</a>"), Value::Null));
    assert_eq!(data("application/octet-stream", b"\xff"), (Value::Null, json!("/w==")));
    // What says that it is JSON and is not must not be read as a string of JSON.
    assert_eq!(data("application/json", b"{no"), (Value::Null, json!("e25v")));
}

#[test]
fn events_are_selected_by_what_is_known_of_them() {
    let takes = |change: fn(&mut Select)| {
        let settings = with(|settings| change(&mut settings.select));
        apply(&settings, BODY).expect("works").is_some()
    };
    assert!(takes(|select| select.sources = strings(&["other", "hub"])));
    assert!(!takes(|select| select.sources = strings(&["hu"])));
    assert!(takes(|select| select.types = strings(&["participant.*", "room.*"])));
    assert!(!takes(|select| select.types = strings(&["participant.*"])));
    assert!(takes(|select| select.tenants = strings(&["acme"])));
    assert!(!takes(|select| select.environments = strings(&["sandbox"])));
    assert!(!takes(|select| {
        select.sources = strings(&["hub"]);
        select.tenants = strings(&["another"]);
    }));
}

#[test]
fn a_filter_takes_what_it_holds_for() {
    let takes = |text: &str| {
        let settings = with(|settings| settings.filter = Some(text.to_owned()));
        apply(&settings, BODY).expect("works").is_some()
    };
    assert!(takes(".body.room.id == 7 and .tenant == \"acme\""));
    assert!(takes(".body.room"));
    assert!(!takes(".body.room.id > 7"));
    assert!(!takes(".body.nothing"));
    assert!(!takes("empty"));
    // What is taken is the body as it is.
    let settings = with(|settings| settings.filter = Some("true".to_owned()));
    assert_eq!(payload(&settings, BODY).0.as_bytes(), BODY);
}

#[test]
fn a_transform_makes_the_payload_in_every_format() {
    let shape_in = |format| {
        with(|settings| {
            settings.format = format;
            settings.transform = Some("{id: .body.room.id, type: .event_type}".to_owned());
        })
    };
    let wanted = json!({"id": 7, "type": "room.started"});
    assert_eq!(json_of(&shape_in(Format::Raw), BODY), wanted);
    assert_eq!(json_of(&shape_in(Format::CloudEvents), BODY)["data"], wanted);
    assert_eq!(json_of(&shape_in(Format::Normalised), BODY)["body"], wanted);
}

#[test]
fn an_expression_that_fails_is_a_permanent_failure_of_its_event_alone() {
    let failure = |text: &str| {
        let settings = with(|settings| settings.transform = Some(text.to_owned()));
        let failure = apply(&settings, BODY).expect_err(text);
        // What the expression says may hold parts of the event.
        assert!(!failure.reason.contains("canary"), "{failure}");
        assert_eq!(failure.class, Class::Permanent);
        failure.reason.into_owned()
    };
    assert_eq!(failure(".body.user.email + 1"), "`transform` fails for this event");
    assert_eq!(failure("error(.body)"), "`transform` fails for this event");
    assert!(failure("def f: f; f").contains("too many steps"));
    assert!(failure("nan").contains("not JSON"));
    assert!(failure("1, 2").contains("more than one value"));
    let none = with(|settings| settings.transform = Some("empty".to_owned()));
    assert_eq!(apply(&none, BODY), Ok(None));
    // The next event fares as it would have without them.
    let good = with(|settings| settings.transform = Some(".body.room.id".to_owned()));
    assert_eq!(payload(&good, BODY).0, "7");
}

#[test]
fn what_is_redacted_is_seen_by_nobody() {
    for format in [Format::Raw, Format::CloudEvents, Format::Normalised] {
        for transform in [None, Some(".".to_owned())] {
            let settings = Settings {
                format,
                transform,
                redact: strings(&["json:user.email", "header:authorization"]),
                ..Settings::default()
            };
            let (text, _) = payload(&settings, BODY);
            assert!(!text.contains("canary"), "{text}");
            assert!(text.contains("[redacted]"), "{text}");
        }
    }
    let rules = with(|settings| settings.redact = strings(&["json:user.email"]));
    let failure = apply(&rules, b"email=canary").expect_err("is withheld");
    assert_eq!(failure.class, Class::Permanent);
}

#[test]
fn every_key_with_a_mistake_is_named() {
    let settings = Settings {
        filter: Some(".a |".to_owned()),
        transform: Some("nosuch".to_owned()),
        redact: strings(&["user.email"]),
        ..Settings::default()
    };
    let errors = Shape::compile(&settings).expect_err("is refused");
    let keys: Vec<&str> = errors.iter().map(|error| error.key).collect();
    assert_eq!(keys, ["filter", "transform", "redact"]);
}
