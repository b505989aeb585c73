//! One row for each diagnosis: a request that was right, and what happened to it.

use http::HeaderValue;

use super::*;
use crate::verify::{Profile, SecretText, SignInput, sign};

const NOW_NS: u64 = 1_763_750_000_000_000_000;
const MINUTE_NS: u64 = 60_000_000_000;
const TEXT_SECRET: &str = "forebay-diagnosis-secret-0123456789";
const WHSEC: &str = "whsec_Zm9yZWJheS10ZXN0LXNlY3JldC0wMTIzNDU2Nzg5";

fn secret(text: &str, key_id: Option<&str>) -> NamedSecret {
    let key_id = key_id.map(str::to_owned);
    NamedSecret { name: "given".to_owned(), value: SecretText::new(text), key_id }
}

/// A request that verifies.
fn signed(preset: &str, text: &str, body: &[u8]) -> Case {
    let profile: &Profile = verify::preset(preset).expect("a preset");
    let key_id = profile.scheme.jwt.as_ref().map(|_| "APIkey");
    let input =
        SignInput { id: "evt_1", now_ns: NOW_NS, event_type: "room.started", target: "/", body };
    let headers = sign(profile, secret(text, key_id), &input).expect("signed");
    let case = Case {
        method: Method::POST,
        target: "/".to_owned(),
        headers: headers.into_iter().collect(),
        body: Bytes::copy_from_slice(body),
        scheme: profile.scheme.clone(),
        secrets: vec![secret(text, key_id)],
        validities: Vec::new(),
        settings: Settings::default(),
        now_ns: NOW_NS,
    };
    assert_eq!(diagnose(&case, &[]), Verdict::Verified { secret: "given".to_owned() });
    case
}

fn causes(case: &Case) -> Vec<(&'static str, &'static str)> {
    match diagnose(case, &[]) {
        Verdict::Verified { .. } => panic!("it verifies"),
        Verdict::Refused(refusal) => {
            refusal.causes.iter().map(|cause| (cause.code, cause.layer.label())).collect()
        }
    }
}

#[test]
fn every_change_of_the_body_is_named() {
    let python = br#"{"b": 1.50, "a": "caf\u00e9 \u003c/"}"#;
    let utf8 = "{\"name\":\"caf\u{e9}\"}".as_bytes();
    let typographic = "{\"name\":\"\u{201c}x\u{201d}\"}".as_bytes();
    let utf16: Vec<u8> =
        [0xfeff].into_iter().chain("{\"a\":1}".encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let php = br#"{"url":"https:\/\/a.example\/x","n":[1,2]}"#;
    let lines = b"{\r\n\"a\": 1\r\n}\r\n";
    let indented = "{\n  \"z\": [\n    1\n  ],\n  \"a\": {}\n}\n".as_bytes();
    // What was signed, what arrived, the diagnosis.
    let table: [(&[u8], &[u8], &str); 18] = [
        (python, "{\"b\":1.50,\"a\":\"caf\u{e9} </\"}".as_bytes(), ""),
        (br#"{"b": 1, "a": [2, 3]}"#, br#"{"b":1,"a":[2,3]}"#, "json_rewritten"),
        (br#"{"a":1,"b":"x"}"#, br#"{"b": "x", "a": 1}"#, "json_rewritten"),
        (utf8, br#"{"name": "caf\u00e9"}"#, "json_rewritten"),
        (br#"{"name":"caf\u00E9"}"#, utf8, "json_rewritten"),
        (php, br#"{"url":"https://a.example/x","n":[1,2]}"#, "json_rewritten"),
        (indented, br#"{"z":[1],"a":{}}"#, "json_rewritten"),
        (b"{\"a\": 1}\n", b"{\"a\": 1}", "newline_missing"),
        (b"{\"a\" : 1}", b"{\"a\" : 1}\r\n", "newline_added"),
        (b"{\"a\" : 1}", b"{\"a\" : 1}\n", "newline_added"),
        (lines, b"{\n\"a\": 1\n}\n", "line_ends"),
        (b"a\nb\n", b"a\r\nb\r\n", "line_ends"),
        (lines, b"{\n\"a\": 1\n}", "newline_missing"),
        (b"\xef\xbb\xbf{ }", b"{ }", "bom_removed"),
        (b"{ }", b"\xef\xbb\xbf{ }", "bom_added"),
        (b"caf\xe9 ", "caf\u{e9} ".as_bytes(), "charset"),
        (b"a=1+2&b=%2F", b"a=1%202&b=%2F", "form_rewritten"),
        (b"", b"{ }", "body_lost"),
    ];
    for (sent, arrived, code) in table {
        let mut case = signed("github", TEXT_SECRET, sent);
        case.body = Bytes::copy_from_slice(arrived);
        let expected = if code.is_empty() { vec![] } else { vec![(code, "body")] };
        assert_eq!(causes(&case), expected, "{}", String::from_utf8_lossy(arrived));
    }
    let charsets: [(&[u8], Vec<u8>); 4] = [
        (utf8, utf8.iter().map(|byte| char::from(*byte)).collect::<String>().into_bytes()),
        (utf8, b"{\"name\":\"caf\xe9\"}".to_vec()),
        (b"{\"a\":1}", utf16),
        (
            typographic,
            "{\"name\":\"\u{e2}\u{20ac}\u{153}x\u{e2}\u{20ac}\u{9d}\"}".as_bytes().to_vec(),
        ),
    ];
    for (sent, arrived) in charsets {
        let mut case = signed("github", TEXT_SECRET, sent);
        case.body = arrived.into();
        assert_eq!(causes(&case), [("charset", "body")], "{case:?}");
    }
}

#[test]
fn every_wrong_form_of_a_secret_is_named() {
    let bare = WHSEC.trim_start_matches("whsec_");
    let hex = "00112233445566778899AABBCCDDEEFF";
    // Preset, the sender's secret, what was given, the diagnosis.
    let table = [
        ("github", TEXT_SECRET, format!("{TEXT_SECRET}\n"), "secret_form"),
        ("github", TEXT_SECRET, format!("\"{TEXT_SECRET}\""), "secret_form"),
        (
            "github",
            "caf-secret-0123456789",
            "Y2FmLXNlY3JldC0wMTIzNDU2Nzg5".to_owned(),
            "secret_form",
        ),
        ("stripe", WHSEC, bare.to_owned(), "secret_form"),
        ("github", bare, WHSEC.to_owned(), "secret_form"),
        ("github", hex, hex.to_ascii_lowercase(), "secret_form"),
        ("github", "p+ss/word=0123456789", "p%2Bss%2Fword%3D0123456789".to_owned(), "secret_form"),
        ("standard-webhooks", WHSEC, format!(" {WHSEC}"), "secret_form"),
    ];
    for (preset, sender, given, code) in table {
        let mut case = signed(preset, sender, br#"{"a":1}"#);
        case.secrets = vec![secret(&given, None)];
        assert_eq!(causes(&case), [(code, "secret")], "{preset} {given}");
    }
    for (encoding, given) in [
        (verify::KeyEncoding::Utf8, bare),
        (verify::KeyEncoding::Base64, bare),
        (verify::KeyEncoding::Hex, hex),
        (verify::KeyEncoding::Whsec, WHSEC),
        (verify::KeyEncoding::WhsecRaw, WHSEC),
    ] {
        let mut profile = verify::preset("github").expect("a preset").clone();
        profile.scheme.key_encoding = encoding;
        let input = SignInput {
            id: "evt_1",
            now_ns: NOW_NS,
            event_type: "push",
            target: "/",
            body: br#"{"a":1}"#,
        };
        let mut case = signed("github", given, input.body);
        case.headers =
            sign(&profile, secret(given, None), &input).expect("signed").into_iter().collect();
        case.scheme.key_encoding = match encoding {
            verify::KeyEncoding::Utf8 => verify::KeyEncoding::Base64,
            _ => verify::KeyEncoding::Utf8,
        };
        let found = causes(&case);
        let layers: Vec<_> = found.iter().map(|(_, layer)| *layer).collect();
        assert_eq!(layers, ["secret"], "{encoding:?}: {found:?}");
    }
}

#[test]
fn a_secret_of_another_source_and_another_key_id_are_named() {
    let mut case = signed("livekit", TEXT_SECRET, br#"{"a":1}"#);
    case.secrets = vec![secret(TEXT_SECRET, Some("APIother"))];
    assert_eq!(causes(&case), [("key_id", "secret")]);
    let mut case = signed("github", TEXT_SECRET, br#"{"a":1}"#);
    case.secrets = vec![secret("something-else-0123456789", None)];
    assert_eq!(causes(&case), []);
    let others = [Others { name: "eu".to_owned(), secrets: vec![secret(TEXT_SECRET, None)] }];
    let Verdict::Refused(refusal) = diagnose(&case, &others) else { panic!("it verifies") };
    assert_eq!(refusal.causes[0].code, "secret_of_another");
    assert!(refusal.causes[0].what.contains("`given` of eu"), "{:?}", refusal.causes);
    let told = format!("{refusal:?}");
    assert!(!told.contains(TEXT_SECRET) && !told.contains("something-else"), "{told}");
}

#[test]
fn a_secret_that_does_not_count_at_the_time_is_named() {
    let mut case = signed("github", TEXT_SECRET, br#"{"a":1}"#);
    case.validities = vec![Validity { from_ns: 0, until_ns: NOW_NS - 1 }];
    assert_eq!(causes(&case), [("secret_not_valid", "secret")]);
    case.validities = vec![Validity { from_ns: NOW_NS - 1, until_ns: u64::MAX }];
    assert!(matches!(diagnose(&case, &[]), Verdict::Verified { .. }));
}

#[test]
fn the_clock_is_judged_apart_from_the_signature() {
    let body = br#"{"a":1}"#;
    for (now_ns, expected) in [
        (NOW_NS + 7 * MINUTE_NS, "clock_stale"),
        (NOW_NS + 600_000 * MINUTE_NS, "clock_stale"),
        (NOW_NS - 7 * MINUTE_NS, "clock_future"),
    ] {
        for preset in ["stripe", "livekit", "standard-webhooks"] {
            let mut case =
                signed(preset, if preset == "stripe" { TEXT_SECRET } else { WHSEC }, body);
            case.now_ns = now_ns;
            assert_eq!(causes(&case), [(expected, "clock")], "{preset}");
        }
    }
    let mut case = signed("stripe", TEXT_SECRET, body);
    case.now_ns += 60 * MINUTE_NS;
    let Verdict::Refused(refusal) = diagnose(&case, &[]) else { panic!("it verifies") };
    let what = &refusal.causes[0].what;
    // 300 s either way of the signed second.
    assert!(what.contains("from 2025-11-21T18:28:20Z to 2025-11-21T18:38:20Z"), "{what}");
    assert!(what.contains("judged 55m outside of that, at 2025-11-21T19:33:20Z"), "{what}");
}

#[test]
fn a_time_in_another_unit_is_named() {
    let body = br#"{"a":1}"#;
    for (unit, other) in [
        (verify::TimeUnit::Milliseconds, verify::TimeUnit::Seconds),
        (verify::TimeUnit::Seconds, verify::TimeUnit::Milliseconds),
        (verify::TimeUnit::Rfc3339, verify::TimeUnit::Seconds),
    ] {
        let mut profile = verify::preset("slack").expect("a preset").clone();
        profile.scheme.time.as_mut().expect("a time").unit = unit;
        let input = SignInput { id: "evt_1", now_ns: NOW_NS, event_type: "", target: "/", body };
        let mut case = signed("slack", TEXT_SECRET, body);
        case.headers = sign(&profile, secret(TEXT_SECRET, None), &input)
            .expect("signed")
            .into_iter()
            .collect();
        case.scheme.time.as_mut().expect("a time").unit = other;
        assert_eq!(causes(&case), [("time_unit", "clock")], "{unit:?}");
    }
}

#[test]
fn headers_that_are_dropped_doubled_or_renamed_are_named() {
    let base = signed("standard-webhooks", WHSEC, br#"{"a":1}"#);
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        let mut case = base.clone();
        let value = case.headers.remove(name).expect("there");
        assert_eq!(causes(&case), [("header_dropped", "header")], "{name}");
        for alias in [format!("x-forwarded-{name}"), name.replace('-', "_"), format!("http-{name}")]
        {
            let mut case = case.clone();
            let alias: http::HeaderName = alias.parse().expect("a name");
            case.headers.insert(alias, value.clone());
            assert_eq!(causes(&case), [("header_renamed", "header")], "{name}");
        }
        let mut case = base.clone();
        let value = case.headers[name].clone();
        case.headers.append(http::HeaderName::try_from(name).expect("a name"), value);
        assert_eq!(causes(&case), [("header_doubled", "header")], "{name}");
    }
}

#[test]
fn signatures_in_another_form_are_named() {
    let upper = |text: &str| {
        text.strip_prefix("sha256=")
            .map_or_else(String::new, |hex| format!("sha256={}", hex.to_ascii_uppercase()))
    };
    let changes: [&dyn Fn(&str) -> String; 4] = [
        &upper,
        &|text| text.trim_start_matches("sha256=").to_owned(),
        &|text| text.replace("sha256=", "hmac="),
        &|text| format!("\"{text}\""),
    ];
    for change in changes {
        let mut case = signed("github", TEXT_SECRET, br#"{"a":1}"#);
        let value = case.headers.get_mut("x-hub-signature-256").expect("there");
        *value = HeaderValue::from_str(&change(value.to_str().expect("text"))).expect("a value");
        assert_eq!(causes(&case), [("signature_form", "header")]);
    }
}

#[test]
fn another_scheme_or_provider_is_named() {
    let mut case = signed("github", TEXT_SECRET, br#"{"a":1}"#);
    case.scheme.algorithm = verify::Algorithm::HmacSha512;
    assert_eq!(causes(&case), [("scheme_differs", "scheme")]);
    let mut case = signed("stripe", TEXT_SECRET, br#"{"a":1}"#);
    case.scheme = verify::preset("mux").expect("a preset").scheme.clone();
    assert_eq!(causes(&case), [("header_dropped", "header")].map(|_| ("other_provider", "scheme")));
}

/// A request of Twilio to the URL that it knows.
fn called(base: &str, target: &str) -> Case {
    let profile = verify::preset("twilio").expect("a preset");
    let settings = Settings { public_url: Some(base.to_owned()), ..Settings::default() };
    let signer = verify::Signer::for_source(profile, secret(TEXT_SECRET, None), &settings);
    let body = b"CallSid=CA1&From=%2B14155550100";
    let input = SignInput { id: "", now_ns: NOW_NS, event_type: "", target, body };
    let request = signer.expect("can sign").request(&input).expect("signs");
    let case = Case {
        method: Method::POST,
        target: request.target,
        headers: request.headers.into_iter().collect(),
        body: request.body.into(),
        scheme: profile.scheme.clone(),
        secrets: vec![secret(TEXT_SECRET, None)],
        validities: Vec::new(),
        settings,
        now_ns: NOW_NS,
    };
    assert!(matches!(diagnose(&case, &[]), Verdict::Verified { .. }), "{base}{target}");
    case
}

/// What happened to a request, and how.
type Change<'c> = (&'c str, &'c dyn Fn(&mut Case));

#[test]
fn a_url_that_a_proxy_changed_is_named() {
    let known = |base: &str| Some(base.to_owned());
    let signed = || called("https://hooks.example", "/in/twilio?a=b+c");
    let changes: [Change<'_>; 7] = [
        ("http for https", &|case| case.settings.public_url = known("http://hooks.example")),
        ("another host, told in Host", &|case| {
            case.settings.public_url = known("http://10.0.0.7:8080");
            case.headers.insert("host", HeaderValue::from_static("hooks.example"));
        }),
        ("another host, told by the proxy", &|case| {
            case.settings.public_url = known("http://10.0.0.7:8080");
            case.headers.insert("host", HeaderValue::from_static("10.0.0.7"));
            case.headers.insert("x-forwarded-host", HeaderValue::from_static("hooks.example"));
        }),
        ("a trailing slash", &|case| case.target = "/in/twilio/?a=b+c".to_owned()),
        ("a prefix cut off", &|case| {
            case.target = "/twilio?a=b+c".to_owned();
            case.headers.insert("x-forwarded-prefix", HeaderValue::from_static("/in"));
        }),
        ("a path written anew", &|case| {
            case.target = "/".to_owned();
            let uri = HeaderValue::from_static("/in/twilio?a=b+c");
            case.headers.insert("x-original-uri", uri);
        }),
        ("the query encoded anew", &|case| case.target = "/in/twilio?a=b%20c".to_owned()),
    ];
    for (what, change) in changes {
        let mut case = signed();
        change(&mut case);
        assert_eq!(causes(&case), [("url_changed", "url")], "{what}");
    }
    let mut case = called("https://hooks.example:8443", "/");
    case.settings.public_url = known("https://hooks.example");
    assert_eq!(causes(&case), [("url_changed", "url")], "a port lost");
    let mut case = signed();
    case.body = Bytes::from_static(b"CallSid=CA2");
    assert_eq!(causes(&case), [], "no URL explains another body");
}

#[test]
fn tokens_and_passwords_have_their_forms_too() {
    let profile = verify::presets().find(|preset| {
        preset.scheme.algorithm == verify::Algorithm::Token && !preset.scheme.header.is_empty()
    });
    let profile = profile.expect("a preset with a token");
    let mut case = signed(&profile.name, TEXT_SECRET, b"{}");
    case.secrets = vec![secret(&format!("{TEXT_SECRET}\n"), None)];
    assert_eq!(causes(&case), [("secret_form", "secret")]);
    let mut case = signed(&profile.name, TEXT_SECRET, b"{}");
    case.headers.remove(&profile.scheme.header);
    assert_eq!(causes(&case), [("header_dropped", "header")]);
}

#[test]
fn two_things_at_once_are_both_named() {
    let mut case = signed("stripe", TEXT_SECRET, br#"{"a":1}"#);
    case.body = Bytes::from_static(br#"{"a": 1}"#);
    case.now_ns += 60 * MINUTE_NS;
    assert_eq!(causes(&case), [("json_rewritten", "body"), ("clock_stale", "clock")]);
    let mut case = signed("github", TEXT_SECRET, br#"{"a":1}"#);
    case.body = Bytes::from_static(br#"{"a": 1}"#);
    case.secrets = vec![secret(&format!("{TEXT_SECRET}\n"), None)];
    assert_eq!(causes(&case), [("secret_form", "secret"), ("json_rewritten", "body")]);
}

#[test]
fn what_nothing_explains_has_no_cause() {
    let mut case = signed("github", TEXT_SECRET, br#"{"a":1}"#);
    case.body = Bytes::from_static(br#"{"a":2}"#);
    let Verdict::Refused(refusal) = diagnose(&case, &[]) else { panic!("it verifies") };
    assert_eq!(refusal.causes, []);
    assert_eq!(refusal.fault, Fault::Rejected(Reject::SignatureWrong));
    assert!(refusal.tried > 100, "{}", refusal.tried);
}
