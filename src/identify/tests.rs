//! What rules find, and what keys are made of.

use super::*;
use crate::reject::Reject;
use crate::verify::{DigestOf, preset};

fn scheme(name: &str) -> &'static SchemeSpec {
    &preset(name).expect("a preset").scheme
}

/// Rules whose id is as given, over the headers that Slack signs.
fn id_rules(rule: &str) -> Rules {
    let spec: IdentitySpec = toml::from_str(&format!("event_id = {rule}")).expect("reads");
    Rules::new(&spec, scheme("slack")).expect("compiles")
}

fn id_of(rule: &str, body: &str) -> Option<String> {
    let headers = HeaderMap::new();
    let identity = id_rules(rule).extract(&headers, body.as_bytes());
    identity.event_id.map(Cow::into_owned)
}

fn json(path: &str, body: &str) -> Option<String> {
    id_of(&format!("\"json:{path}\""), body)
}

#[test]
fn values_are_text_as_written() {
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(json("a", r#"{"a":"x"}"#), some("x"));
    assert_eq!(json("a", r#"{"a":1739923528546}"#), some("1739923528546"));
    assert_eq!(json("a", r#"{"a":1692124183.9920}"#), some("1692124183.9920"));
    assert_eq!(json("a", r#"{"a":12345678901234567890123}"#), some("12345678901234567890123"));
    assert_eq!(json("a", r#"{"a":-1e5}"#), some("-1e5"));
    assert_eq!(json("a", r#"{"a":true}"#), some("true"));
    assert_eq!(json("a", r#"{"a":"\u00e9\"\n"}"#), some("\u{e9}\"\n"));
    assert_eq!(json("a", " { \"b\" : 0 , \"a\" : \"x\" } "), some("x"));
}

#[test]
fn what_is_no_text_is_nothing() {
    for body in [
        r#"{"a":null}"#,
        r#"{"a":{"b":1}}"#,
        r#"{"a":[1]}"#,
        r#"{"a":""}"#,
        r#"{"b":1}"#,
        r#"["a"]"#,
        r#""a""#,
        r#"{"a":"\ud800"}"#,
        "",
        "a=1&b=2",
    ] {
        assert_eq!(json("a", body), None, "{body}");
    }
}

#[test]
fn a_field_of_a_form_is_decoded_and_stands_once() {
    let form = |name: &str, body: &str| id_of(&format!("\"form:{name}\""), body);
    let body = "CallSid=CA1&To=%2B1+2&a=1&a=2&empty=&%63=x";
    assert_eq!(form("CallSid", body).as_deref(), Some("CA1"));
    assert_eq!(form("To", body).as_deref(), Some("+1 2"));
    assert_eq!(form("c", body).as_deref(), Some("x"));
    for nothing in ["a", "empty", "callsid", "d"] {
        assert_eq!(form(nothing, body), None, "{nothing}");
    }
    assert_eq!(id_of("[\"form:CallSid\", \"form:c\"]", body).as_deref(), Some("CA1:x"));
}

#[test]
fn paths_go_into_objects_and_arrays() {
    let body = r#"{"a":{"b":[{"c":"0"},{"c":"1"}],"b.":2},"d":[["x","y"]]}"#;
    assert_eq!(json("a.b[1].c", body).as_deref(), Some("1"));
    assert_eq!(json("a.b[0].c", body).as_deref(), Some("0"));
    assert_eq!(json("a.b[2].c", body), None);
    assert_eq!(json("d[0][1]", body).as_deref(), Some("y"));
    assert_eq!(json("[0].id", r#"[{"id":"x"}]"#).as_deref(), Some("x"));
}

#[test]
fn of_doubled_keys_the_first_counts() {
    assert_eq!(json("a", r#"{"a":"1","a":"2"}"#).as_deref(), Some("1"));
    assert_eq!(json("a.b", r#"{"a":{"c":1},"a":{"b":"2"}}"#), None);
    assert_eq!(json("a", r#"{"a":null,"a":"2"}"#), None);
}

#[test]
fn a_body_that_breaks_before_everything_is_found_identifies_nothing() {
    let headers = HeaderMap::new();
    let spec: IdentitySpec =
        toml::from_str("event_id = \"json:id\"\nevent_type = \"json:type\"").expect("reads");
    let rules = Rules::new(&spec, scheme("slack")).expect("compiles");
    for body in [
        r#"{"id":"x""#,
        r#"{"id":"x","#,
        r#"{"id":"x","t":"#,
        r#"{"id":"x","t":}"#,
        r#"{"id":"x","t" 1}"#,
        r#"{"id":"x","t":"}"#,
        r#"{"id":"x" "t":1}"#,
        r#"{"id":"x",}"#,
        r#"{"id":"x"} x"#,
        r#"{"id":"x"]"#,
        r#"{"id":"x","t":[{}}"#,
        r#"{"id":"x","t":nonsense}"#,
        "{\"id\":\"x\",\"t\":\"\n\"}",
        r#"{"id":"x","t":"\"#,
    ] {
        let identity = rules.extract(&headers, body.as_bytes());
        assert_eq!((identity.event_id, identity.event_type), (None, None), "{body}");
    }
    // What stands behind the last value asked for is not read.
    let identity = rules.extract(&headers, br#"{"id":"x","type":"y",]]"#);
    assert_eq!(identity.event_id.as_deref(), Some("x"));
}

#[test]
fn alternatives_are_taken_in_order_and_lists_are_joined() {
    let first = r#""json:event.type | json:type""#;
    assert_eq!(id_of(first, r#"{"type":"b","event":{"type":"a"}}"#).as_deref(), Some("a"));
    assert_eq!(id_of(first, r#"{"type":"b","event":{"type":null}}"#).as_deref(), Some("b"));
    assert_eq!(id_of(first, r#"{"type":"b"}"#).as_deref(), Some("b"));
    let late = r#"{"event":{"type":null},"type":"b"}"#;
    assert_eq!(id_of(first, late).as_deref(), Some("b"), "wherever the alternative stands");
    let long = format!(r#"{{"event":{{"type":"{}"}},"type":"b"}}"#, "x".repeat(1_000));
    assert_eq!(id_of(first, &long).as_deref(), Some("b"));
    let both_ends = r#""json:a.b | json:a""#;
    assert_eq!(id_of(both_ends, r#"{"a":"x"}"#).as_deref(), Some("x"));
    assert_eq!(id_of(both_ends, r#"{"a":{"b":"y"}}"#).as_deref(), Some("y"));
    let joined = r#"["json:a", "json:b"]"#;
    assert_eq!(id_of(joined, r#"{"a":"x","b":1}"#).as_deref(), Some("x:1"));
    assert_eq!(id_of(joined, r#"{"a":"x"}"#), None);
}

#[test]
fn the_bound_of_an_identity_holds() {
    let body = |count| format!("{{\"a\":\"{}\",\"b\":\"c\"}}", "x".repeat(count));
    let max = limits::IDENTITY_BYTES_MAX;
    assert_eq!(json("a", &body(max)).map(|id| id.len()), Some(max));
    assert_eq!(json("a", &body(max + 1)), None);
    assert_eq!(json("a", &body(1_000_000)), None);
    assert_eq!(id_of(r#"["json:a", "json:b"]"#, &body(max - 1)), None);
}

#[test]
fn a_doubled_header_is_not_believed() {
    let rules = id_rules("\"header:x-id\"");
    let mut headers = HeaderMap::new();
    headers.append("x-id", "1".parse().expect("a value"));
    assert_eq!(rules.extract(&headers, b"").event_id.as_deref(), Some("1"));
    headers.append("x-id", "2".parse().expect("a value"));
    assert_eq!(rules.extract(&headers, b"").event_id, None);
}

#[test]
fn a_rule_that_cannot_be_used_names_its_key_and_the_cure() {
    for (rule, cure) in [
        ("\"id\"", "write \"header:NAME\""),
        ("\"json:\"", "write it as"),
        ("\"json:a..b\"", "write it as"),
        ("\"json:a[x]\"", "write it as"),
        ("\"json:a[0\"", "write it as"),
        ("\"json:a]\"", "write it as"),
        ("\"header:a b\"", "use letters"),
        ("\"claim:iss\"", "use \"header:\" or \"json:\""),
        ("[]", "give 1 to"),
        ("\"json:a |\"", "write \"header:NAME\""),
    ] {
        let spec: IdentitySpec = toml::from_str(&format!("event_id = {rule}")).expect("reads");
        let error = Rules::new(&spec, scheme("slack")).expect_err(rule);
        assert_eq!(error.key, "event_id", "{rule}");
        assert!(error.message.contains(cure), "{rule}: {}", error.message);
    }
    let many: Vec<_> = (0..40).map(|i| format!("json:f{i}")).collect();
    let spec =
        IdentitySpec { event_id: Some(RuleText::One(many.join("|"))), ..IdentitySpec::default() };
    let error = Rules::new(&spec, scheme("slack")).expect_err("too many");
    assert!(error.message.contains("at most"), "{}", error.message);
}

/// The parts of the key of a request, with a digest that says over what it was taken.
fn key(preset_name: &str, headers: &[(&'static str, &str)], body: &str) -> Vec<Vec<u8>> {
    let profile = preset(preset_name).expect("a preset");
    let rules = Rules::new(&profile.identity, &profile.scheme).expect("compiles");
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, value.parse().expect("a value"));
    }
    let identity = rules.extract(&map, body.as_bytes());
    let key = identity.key(|over| Ok([over as u8 + 100; 32])).expect("a key");
    key.parts().map(<[u8]>::to_vec).collect()
}

#[test]
fn keys_hold_a_digest_unless_the_id_is_signed_and_tells_events_apart() {
    let signed = vec![DigestOf::Signed as u8 + 100; 32];
    let but_time = vec![DigestOf::SignedButTime as u8 + 100; 32];
    let id = KeyKind::Id as u8;
    let with = KeyKind::IdAndSigned as u8;
    let none = KeyKind::Signed as u8;
    let github = [("x-github-delivery", "guid")];
    assert_eq!(key("stripe", &[], r#"{"id":"evt_1"}"#), [vec![id], b"evt_1".to_vec()]);
    assert_eq!(
        key("twitch", &[("twitch-eventsub-message-id", "m")], ""),
        [vec![id], b"m".to_vec()]
    );
    assert_eq!(key("svix", &[("webhook-id", "m")], "{}"), [vec![id], b"m".to_vec()]);
    assert_eq!(key("github", &github, "x"), [vec![with], b"guid".to_vec(), but_time.clone()]);
    assert_eq!(key("wave", &[], r#"{"id":"e"}"#), [vec![id], b"e".to_vec()]);
    assert_eq!(
        key("wave", &[("x-wave-event-id", "e")], "{}"),
        [vec![with], b"e".to_vec(), but_time.clone()]
    );
    assert_eq!(key("slack", &[], "command=/x"), [vec![none], signed]);
    let zoom = r#"{"event":"a:b","event_ts":1,"payload":{"object":{"uuid":"c"}}}"#;
    assert_eq!(
        key("zoom", &[], zoom),
        [vec![with], b"a:b".to_vec(), b"1".to_vec(), b"c".to_vec(), but_time]
    );
}

#[test]
fn a_digest_is_a_part_of_the_key_and_not_of_the_id() {
    let headers = HeaderMap::new();
    let key = |rule: &str, body: &'static str| {
        let identity = id_rules(rule).extract(&headers, body.as_bytes());
        (identity.key_kind(), identity.event_id.map(Cow::into_owned))
    };
    let body = r#"{"a":"x","b":"y"}"#;
    let found = |kind, id: &str| (kind, Some(id.to_owned()));
    assert_eq!(key(r#"["json:a"]"#, body), found(KeyKind::Id, "x"));
    assert_eq!(key(r#"["json:a", "digest"]"#, body), found(KeyKind::IdAndSigned, "x"));
    assert_eq!(key(r#"["digest", "json:a", "json:b"]"#, body), found(KeyKind::IdAndSigned, "x:y"));
    assert_eq!(key(r#"["json:a", "digest"]"#, "{}"), (KeyKind::Signed, None));
    assert_eq!(key("\"digest\"", body), (KeyKind::Signed, None));
    let spec: IdentitySpec = toml::from_str("tenant = [\"digest\"]").expect("reads");
    let error = Rules::new(&spec, scheme("slack")).expect_err("no digest of a tenant");
    assert_eq!(error.key, "tenant");
}

#[test]
fn a_key_that_needs_a_digest_is_not_made_without_one() {
    let headers = HeaderMap::new();
    let identity = id_rules("\"json:id\"").extract(&headers, b"no json");
    assert_eq!(identity.key(|_| Err(Reject::CannotVerify)), Err(Reject::CannotVerify));
    let identity = id_rules("\"json:id\"").extract(&headers, br#"{"id":"x"}"#);
    assert!(identity.key(|_| Err(Reject::CannotVerify)).is_ok(), "not asked for");
}

#[test]
fn a_rule_over_headers_alone_does_not_read_the_body() {
    let rules = id_rules("\"header:x-id | json:id\"");
    let mut headers = HeaderMap::new();
    assert_ne!(rules.event_id.wanted(&headers, Source::json), 0);
    headers.append("x-id", "1".parse().expect("a value"));
    assert_eq!(rules.event_id.wanted(&headers, Source::json), 0);
}
