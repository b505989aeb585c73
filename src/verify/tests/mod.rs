//! Presets that sign and verify, the bounds of the work, and bytes that mean nothing.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::identify::{RuleText, Rules};
use crate::limits;

mod mistakes;
mod tokens;

const S: u64 = 1_000_000_000;
const NOW: u64 = 1_700_000_000 * S;

/// A secret of the form that a preset takes.
pub(crate) fn example_secret(profile: &Profile) -> &'static str {
    match (profile.scheme.key_encoding, profile.scheme.algorithm) {
        (KeyEncoding::PublicKey, Algorithm::EcdsaP256Sha256) => {
            include_str!("../../../tests/keys/p256-public.pem")
        }
        (_, Algorithm::Basic) => "user:a-password-of-some-length",
        (KeyEncoding::PublicKey, _) => include_str!("../../../tests/keys/rsa-public.pem"),
        (KeyEncoding::Hex, _) => "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        (KeyEncoding::Base64, Algorithm::Ed25519) => "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
        (KeyEncoding::Whsec | KeyEncoding::Base64, _) => "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        _ => "a-secret-of-thirty-two-characters",
    }
}

/// What its sender might call that secret, where it does.
pub(crate) fn example_key_id(profile: &Profile) -> Option<&'static str> {
    let certificate = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0.pem";
    let id = if profile.scheme.format == Format::Sns { certificate } else { "APIkey" };
    profile.scheme.names_keys().then_some(id)
}

fn secret(profile: &Profile) -> NamedSecret {
    let key_id = example_key_id(profile).map(str::to_owned);
    NamedSecret { name: "current".into(), value: SecretText::new(example_secret(profile)), key_id }
}

/// The presets whose senders can be played with headers alone: with a public key nobody can sign,
/// and what signs a form, a URL or a part of the body changes them.
fn signable() -> impl Iterator<Item = &'static Profile> {
    let signs = |profile: &&Profile| {
        let signer = Signer::for_source(profile, secret(profile), &settings());
        signer.and_then(|signer| signer.sign(&input(NOW))).is_ok()
    };
    assert!(presets().filter(signs).count() >= 38, "a preset cannot sign any more");
    presets().filter(signs)
}

fn settings() -> Settings {
    Settings {
        public_url: Some("https://hooks.example".to_owned()),
        params: ["webhook_id", "topic_arn"].map(|name| (name.to_owned(), "1".to_owned())).into(),
        ..Settings::default()
    }
}

fn verifier(profile: &Profile) -> Verifier {
    Verifier::new(&profile.scheme, vec![secret(profile)], &settings()).expect("loads")
}

fn within(tolerance: Duration) -> Settings {
    Settings { tolerance: Some(tolerance), ..Settings::default() }
}

fn input(now_ns: u64) -> SignInput<'static> {
    // The times are for senders that sign none but in the body.
    let body =
        br#"{"id":"id-1","type":"x.y","webhookTimestamp":1700000000000,"time_ms":1700000000000}"#;
    SignInput { id: "id-1", now_ns, event_type: "x.y", target: "/", body }
}

fn signed(profile: &Profile, input: &SignInput<'_>) -> HeaderMap {
    let signer = Signer::for_source(profile, secret(profile), &settings()).expect("can sign");
    signer.sign(input).expect("signs").into_iter().collect()
}

fn judge(verifier: &Verifier, headers: &HeaderMap, now_ns: u64) -> Result<SecretIndex, Reject> {
    let head = Head { method: &Method::POST, target: "/", headers };
    let claim = verifier.claim(&head, now_ns)?;
    verifier.check(&claim, input(now_ns).body)
}

#[test]
fn what_a_preset_signs_it_accepts_and_names() {
    for profile in signable() {
        let name = &profile.name;
        let headers = signed(profile, &input(NOW));
        assert!(judge(&verifier(profile), &headers, NOW).is_ok(), "{name}");
        let rules = Rules::new(&profile.identity, &profile.scheme).expect("compiles");
        let identity = rules.extract(&headers, input(NOW).body);
        let Some(RuleText::One(rule)) = &profile.identity.event_id else { continue };
        if rule == "json:id" || rule.starts_with("header:") {
            assert_eq!(identity.event_id.as_deref(), Some("id-1"), "{name}");
        }
    }
}

#[test]
fn the_edges_of_each_presets_tolerance_are_inside() {
    for profile in signable() {
        let (past, future) = match (&profile.scheme.time, &profile.scheme.jwt) {
            (Some(time), _) => (time.past, time.future),
            // A token is made for five minutes.
            (None, Some(jwt)) if jwt.time == JwtTime::Exp => {
                (jwt.leeway + Duration::from_secs(300), jwt.leeway)
            }
            _ => continue,
        };
        let name = &profile.name;
        let verifier = verifier(profile);
        let headers = signed(profile, &input(NOW));
        let verdict = |now_ns| judge(&verifier, &headers, now_ns).err();
        assert_eq!(verdict(NOW + past.as_secs() * S), None, "{name}");
        assert_eq!(verdict(NOW + past.as_secs() * S + S), Some(Reject::Stale), "{name}");
        assert_eq!(verdict(NOW - future.as_secs() * S), None, "{name}");
        assert_eq!(verdict(NOW - future.as_secs() * S - S), Some(Reject::Future), "{name}");
    }
}

#[test]
fn the_tolerance_of_a_source_replaces_the_schemes_own() {
    let stripe = preset("stripe").expect("a preset");
    let headers = signed(stripe, &input(NOW));
    let verdict = |tolerance, now_ns| {
        let verifier = Verifier::new(&stripe.scheme, vec![secret(stripe)], &within(tolerance));
        judge(&verifier.expect("loads"), &headers, now_ns).err()
    };
    let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
    assert_eq!(verdict(minute, NOW + 61 * S), Some(Reject::Stale));
    assert_eq!(verdict(minute, NOW - 61 * S), Some(Reject::Future));
    assert_eq!(verdict(hour, NOW + 3600 * S), None);
    assert_eq!(verdict(hour, NOW - 301 * S), Some(Reject::Future), "an old time is not a new one");
    let github = preset("github").expect("a preset");
    let error =
        Verifier::new(&github.scheme, vec![secret(github)], &within(hour)).expect_err("no time");
    assert_eq!(error.key, "tolerance");
}

#[test]
fn no_secret_is_seen_in_a_debug_print() {
    for profile in presets() {
        let text = format!("{:?} {:?}", verifier(profile), Signer::new(profile, secret(profile)));
        for leak in ["a-secret-of", "whsec_M", "97, 45, 115, 101", "MfKQ9r8GKY"] {
            assert!(!text.contains(leak), "{}: {text}", profile.name);
        }
    }
}

#[test]
fn the_head_of_another_request_makes_no_panic_and_no_acceptance() {
    // Of a token no body is a part.
    let covers = |profile: &&Profile| !matches!(profile.family(), Family::Token | Family::Basic);
    let heads: Vec<_> = signable()
        .filter(covers)
        .map(|profile| (verifier(profile), signed(profile, &input(NOW))))
        .collect();
    let claims: Vec<_> = heads
        .iter()
        .map(|(verifier, headers)| verifier.claim(&headers.into(), NOW).expect("claims"))
        .collect();
    for (at, (verifier, _)) in heads.iter().enumerate() {
        for (other, theirs) in claims.iter().enumerate() {
            let body = if other == at { &b"another body"[..] } else { b"{}" };
            assert!(verifier.check(theirs, body).is_err(), "{at} with the claim of {other}");
            // An error or not, but never a panic.
            let _ = verifier.digest(DigestOf::Signed, theirs, b"");
        }
    }
}

#[test]
fn the_digest_but_for_the_time_is_the_same_for_every_attempt() {
    let zoom = preset("zoom").expect("a preset");
    let verifier = verifier(zoom);
    let digests = |now_ns| {
        let headers = signed(zoom, &input(now_ns));
        let claim = verifier.claim(&(&headers).into(), now_ns).expect("claims");
        let of = |over| verifier.digest(over, &claim, b"body").expect("a digest");
        (of(DigestOf::Signed), of(DigestOf::SignedButTime))
    };
    let (first, again) = (digests(NOW), digests(NOW + 60 * S));
    assert_ne!(first.0, again.0);
    assert_eq!(first.1, again.1);
}

#[test]
fn ten_thousand_signatures_cost_as_much_as_eight() {
    let stripe = preset("stripe").expect("a preset");
    let verifier = verifier(stripe);
    let mut headers = signed(stripe, &input(NOW));
    let valid = headers["stripe-signature"].to_str().expect("text").to_owned();
    let (time, signature) = valid.split_once(',').expect("two entries");
    let junk = format!(",v1={}", "0".repeat(64));
    let mut with = |before: usize| {
        let value = format!("{time}{},{signature}", junk.repeat(before));
        headers.insert("stripe-signature", value.parse().expect("a value"));
        judge(&verifier, &headers, NOW)
    };
    assert!(with(limits::SIGNATURES_MAX - 1).is_ok());
    assert_eq!(with(limits::SIGNATURES_MAX), Err(Reject::SignatureWrong));
    // 10,000 of them do not fit the spans of a header, nor the limit of a head.
    assert!(with(10_000).is_err());
}

/// A value for a header, mostly of the characters that the parsers look for.
fn header_value() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        4 => prop::sample::select(b"v1a,t=; .:0aZ/+-TeyJ\"\xff".to_vec()),
        1 => (0x20_u8..=0xff).prop_filter("a delete is no value", |byte| *byte != 0x7f),
    ];
    prop::collection::vec(byte, 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_in_head_or_body_make_a_panic_or_an_acceptance(
        values in prop::collection::vec(header_value(), 4),
        body in prop::collection::vec(any::<u8>(), 0..300),
        now_ns in any::<u64>(),
    ) {
        for profile in signable() {
            let verifier = verifier(profile);
            let rules = Rules::new(&profile.identity, &profile.scheme).expect("compiles");
            let mut headers = signed(profile, &input(NOW));
            let names: Vec<HeaderName> = headers.keys().cloned().collect();
            for (name, value) in names.iter().zip(&values) {
                headers.insert(name, HeaderValue::from_bytes(value).expect("no control bytes"));
            }
            if let Ok(claim) = verifier.claim(&(&headers).into(), now_ns) {
                prop_assert!(verifier.check(&claim, &body).is_err());
            }
            let identity = rules.extract(&headers, &body);
            if let Some(id) = &identity.event_id {
                prop_assert!((1..=limits::IDENTITY_BYTES_MAX).contains(&id.len()));
            }
        }
    }

    #[test]
    fn a_value_is_found_wherever_it_stands(
        before in "[a-z]{0,5}",
        id in "\\PC{1,40}",
        number in any::<i64>(),
    ) {
        let profile = preset("stripe").expect("a preset");
        let rules = Rules::new(&profile.identity, &profile.scheme).expect("compiles");
        let text = serde_json::json!({ "a": [before, { "id": 1 }], "id": id, "type": number });
        let body = text.to_string();
        let headers = HeaderMap::new();
        let identity = rules.extract(&headers, body.as_bytes());
        prop_assert_eq!(identity.event_id.as_deref(), Some(&*id));
        prop_assert_eq!(identity.event_type, Some(number.to_string().into()));
    }
}
