//! Runs every vector of `tests/vectors`, and every accepted one again with something changed.
//!
//! A file is named after a preset, or brings the scheme of its sender as configuration would. What
//! a scheme cannot see is listed in [`UNSEEN`]; everything else that is changed must be refused.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;

use super::*;
use crate::identify::Rules;

/// What a message of SNS has to say for itself. `UnsubscribeURL` is not among it.
const SNS_FIELDS: [&str; 11] = [
    "Message",
    "MessageId",
    "Signature",
    "SignatureVersion",
    "SigningCertURL",
    "Subject",
    "SubscribeURL",
    "Timestamp",
    "Token",
    "TopicArn",
    "Type",
];

/// Headers that no signature covers and no check needs, so that a request is accepted without
/// them. Content types are the admission's business.
const UNSEEN: &[&str] = &[
    "content-type",
    "agora-signature",
    "dyte-uuid",
    "dyte-webhook-id",
    "kick-event-subscription-id",
    "kick-event-type",
    "kick-event-version",
    "x-amz-sns-message-id",
    "x-amz-sns-message-type",
    "x-amz-sns-topic-arn",
    "i-twilio-idempotency-token",
    "paypal-auth-algo",
    "paypal-cert-url",
    "linear-delivery",
    "linear-event",
    "user-agent",
    "x-github-delivery",
    "x-github-event",
    "x-slack-retry-num",
    "x-slack-retry-reason",
    "twitch-eventsub-message-retry",
    "twitch-eventsub-message-type",
    "twitch-eventsub-subscription-type",
    "twitch-eventsub-subscription-version",
    "x-api-key",
    "x-api-video-webhookid",
    "x-shopify-api-version",
    "x-shopify-shop-domain",
    "x-shopify-topic",
    "x-shopify-webhook-id",
    "x-wave-timestamp",
    "x-webhook-attempt",
    "x-webhook-id",
    "x-wave-event-id",
];

/// Senders whose schemes are one: under one key, what one has signed the other accepts.
const KIN: [&[&str]; 4] = [
    &["svix", "standard-webhooks"],
    &["github", "meta"],
    &["twilio", "signalwire-compatibility"],
    &["intercom", "youtube-websub"],
];

/// Where the part of the signature header begins that the scheme looks at.
const FROM: [(&str, &str); 2] = [("livepeer", "v1="), ("bandwidth", " ")];

#[derive(Deserialize)]
struct File {
    profile: Option<Profile>,
    vector: Vec<Vector>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    #[serde(rename = "source")]
    _source: String,
    #[serde(rename = "kind")]
    _kind: String,
    why: String,
    #[serde(rename = "policy")]
    _policy: Option<String>,
    #[serde(rename = "unconfirmed")]
    _unconfirmed: Option<String>,
    /// Why the whole server refuses it whatever its signature.
    unsupported: Option<String>,
    /// It is answered before any event is verified: the whole server alone can be asked.
    #[serde(default)]
    handshake: bool,
    expect: String,
    secrets: Vec<String>,
    key_id: Option<String>,
    /// What the source says for the scheme's `param:`.
    #[serde(default)]
    params: BTreeMap<String, String>,
    method: Option<String>,
    /// As the sender called it, where that is signed.
    url: Option<String>,
    now_s: Option<u64>,
    body: Option<String>,
    body_base64: Option<String>,
    headers: BTreeMap<String, String>,
    event: Option<Event>,
    #[serde(rename = "response")]
    _response: Option<toml::Value>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Event {
    id: Option<String>,
    r#type: Option<String>,
    time: Option<String>,
    tenant: Option<String>,
}

/// A request that can be changed.
#[derive(Clone)]
struct Case {
    profile: &'static Profile,
    secrets: Vec<String>,
    key_id: Option<String>,
    settings: Settings,
    now_ns: u64,
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Case {
    fn new(profile: &'static Profile, vector: &Vector) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in &vector.headers {
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        let body = match (&vector.body, &vector.body_base64) {
            (Some(text), None) => text.clone().into_bytes(),
            (None, Some(text)) => STANDARD.decode(text).expect("base64"),
            _ => panic!("{} needs one body", vector.name),
        };
        let now_ns = vector.now_s.unwrap_or(1_700_000_000) * 1_000_000_000;
        let url = vector.url.as_deref().unwrap_or("https://hooks.example/in");
        let host = url.find("://").expect("a URL") + 3;
        let path = url[host..].find('/').map_or(url.len(), |at| at + host);
        let (public_url, target) = url.split_at(path);
        let settings = Settings {
            public_url: Some(public_url.to_owned()),
            params: vector.params.clone(),
            ..Settings::default()
        };
        Self {
            profile,
            secrets: vector.secrets.clone(),
            key_id: vector.key_id.clone(),
            settings,
            now_ns,
            method: vector.method.as_deref().unwrap_or("POST").parse().expect("a method"),
            target: target.to_owned(),
            headers,
            body,
        }
    }

    fn verifier(&self) -> Result<Verifier, SpecError> {
        let named = |(index, text): (usize, &String)| NamedSecret {
            name: format!("s{index}"),
            value: SecretText::new(text),
            key_id: self.key_id.clone(),
        };
        let secrets = self.secrets.iter().enumerate().map(named).collect();
        Verifier::new(&self.profile.scheme, secrets, &self.settings)
    }

    fn judge(&self) -> Result<SecretIndex, Reject> {
        self.judge_by(&self.verifier().expect("secrets of a vector load"))
    }

    fn judge_by(&self, verifier: &Verifier) -> Result<SecretIndex, Reject> {
        let Self { method, target, headers, .. } = self;
        let claim = verifier.claim(&Head { method, target, headers }, self.now_ns)?;
        verifier.check(&claim, &self.body)
    }

    /// Of a form, the pairs are signed and not the bytes.
    fn signs_form(&self) -> bool {
        let forms = ["url:twilio", "url:plivo-v3"];
        self.profile.scheme.signed.iter().any(|part| forms.contains(&&**part))
    }

    /// The token holds what the body says and not its bytes.
    fn same_json_is_enough(&self) -> bool {
        self.profile.scheme.jwt.as_ref().is_some_and(|jwt| jwt.claims_are_body)
    }

    /// What of a body the signature in it covers, with the signature, as another reader of JSON
    /// sees it.
    fn covered(&self) -> Option<Vec<Value>> {
        let SchemeSpec { signature, each, signed, format, .. } = &self.profile.scheme;
        let signature = signature.iter();
        let paths: Vec<&str> = match format {
            Format::Sns => SNS_FIELDS.to_vec(),
            _ => signature.chain(signed).filter_map(|part| part.strip_prefix("json:")).collect(),
        };
        let whole: Value = serde_json::from_slice(&self.body).ok()?;
        let items = match each {
            Some(list) => whole.get(list)?.as_array()?.clone(),
            None => vec![whole],
        };
        let pointers = paths.iter().map(|path| format!("/{}", path.replace('.', "/")));
        let pointers: Vec<String> = pointers.collect();
        let of = |item| pointers.iter().map(move |at| Value::pointer(item, at).cloned());
        let fields = items.iter().flat_map(of).map(Option::unwrap_or_default).collect();
        (!paths.is_empty()).then_some(fields)
    }

    fn pairs(&self) -> Vec<query::Pair<'_>> {
        query::pairs(&self.body).collect()
    }

    /// The header with the signature, whichever of its names is used.
    fn signature_header(&self) -> Option<HeaderName> {
        let aliases = self.profile.scheme.aliases.values().flatten();
        let header = match &*self.profile.scheme.header {
            "" if self.profile.scheme.algorithm == Algorithm::Basic => "authorization",
            // It stands in the body or among the parameters.
            "" => return None,
            header => header,
        };
        let names = std::iter::once(header).chain(aliases.map(String::as_str));
        let name = names.into_iter().find(|name| self.headers.contains_key(*name));
        Some(name.expect("signed").parse().expect("a name"))
    }
}

fn vectors() -> Vec<(&'static Profile, Vector)> {
    static READ: OnceLock<Vec<(&'static Profile, Vector)>> = OnceLock::new();
    READ.get_or_init(read_vectors).clone()
}

fn read_vectors() -> Vec<(&'static Profile, Vector)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut vectors = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("the vectors are there") {
        let path = entry.expect("the folder reads").path();
        let text = std::fs::read_to_string(&path).expect("the file reads");
        let file: File = toml::from_str(&text).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
        let profile = match file.profile {
            Some(profile) => Box::leak(Box::new(profile)),
            None => preset(name).expect("a file without a profile is a preset's"),
        };
        assert_eq!(profile.name, name);
        let verified = |vector: &Vector| vector.unsupported.is_none() && !vector.handshake;
        let judged = file.vector.into_iter().filter(verified);
        vectors.extend(judged.map(|vector| (profile, vector)));
    }
    for profile in presets() {
        assert!(folder.join(format!("{}.toml", profile.name)).exists(), "{}", profile.name);
    }
    vectors
}

fn accepted() -> impl Iterator<Item = (String, Case)> {
    let accepted = vectors().into_iter().filter(|(_, vector)| vector.expect == "accept");
    accepted.map(|(profile, vector)| (vector.name.clone(), Case::new(profile, &vector)))
}

#[test]
fn every_vector_gets_its_verdict() {
    let vectors = vectors();
    assert!(vectors.len() >= 214, "vectors were lost");
    for (profile, vector) in &vectors {
        let verdict = Case::new(profile, vector).judge();
        let expected = vector.expect == "accept";
        assert_eq!(verdict.is_ok(), expected, "{}: {verdict:?} ({})", vector.name, vector.why);
    }
}

#[test]
fn every_vector_identifies_its_event() {
    let mut checked = 0;
    for (profile, vector) in vectors() {
        let Some(event) = vector.event.clone() else { continue };
        let case = Case::new(profile, &vector);
        let rules = Rules::new(&profile.identity, &profile.scheme).expect("rules compile");
        let first = rules.items(&case.headers, &case.body).and_then(|mut items| items.next());
        let identity = match first {
            Some(item) => item.identity,
            None => rules.extract(&case.headers, &case.body),
        };
        let pairs = [
            (&event.id, &identity.event_id),
            (&event.r#type, &identity.event_type),
            (&event.time, &identity.event_time),
            (&event.tenant, &identity.tenant),
        ];
        for (want, got) in pairs {
            if want.is_some() {
                assert_eq!(got.as_deref(), want.as_deref(), "{}", vector.name);
                checked += 1;
            }
        }
    }
    assert!(checked >= 17, "expectations were lost");
}

#[test]
fn the_secret_that_matched_is_named() {
    let (_, case) = accepted().find(|(name, _)| name == "github-octokit-rotation").expect("there");
    let verifier = case.verifier().expect("loads");
    let index = case.judge_by(&verifier).expect("accepted");
    assert_eq!(verifier.secret_name(index), "s1");
}

#[test]
fn without_a_needed_header_or_with_two_of_it_a_request_is_refused() {
    for (name, case) in accepted() {
        for header in case.headers.keys() {
            // Whether a body is a form decides what of it is signed.
            if header == http::header::CONTENT_TYPE && case.signs_form() {
                continue;
            }
            let unseen = UNSEEN.contains(&header.as_str());
            let mut without = case.clone();
            without.headers.remove(header);
            let mut doubled = case.clone();
            doubled.headers.append(header, case.headers[header].clone());
            let verdicts = (without.judge().err(), doubled.judge().err());
            let expected = if unseen {
                (None, None)
            } else {
                (Some(Reject::SignatureMissing), Some(Reject::SignatureDoubled))
            };
            assert_eq!(verdicts, expected, "{name}: {header}");
        }
    }
}

#[test]
fn a_changed_body_is_refused() {
    // What is not signed cannot be seen to be changed.
    let signed = |case: &Case| !matches!(case.profile.family(), Family::Token | Family::Basic);
    for (name, case) in accepted().filter(|(_, case)| signed(case)) {
        let verifier = case.verifier().expect("loads");
        let mut longer = case.clone();
        longer.body.push(b'\n');
        if matches!(case.profile.scheme.algorithm, Algorithm::Token | Algorithm::Basic) {
            assert_eq!(longer.judge_by(&verifier), Ok(SecretIndex::new(0)), "{name}: unsigned");
            continue;
        }
        if case.same_json_is_enough() || case.covered().is_some() {
            assert_eq!(longer.judge_by(&verifier), Ok(SecretIndex::new(0)), "{name}: same JSON");
            longer.body.push(b'x');
            assert!(longer.judge_by(&verifier).is_err(), "{name}: no JSON");
            longer.body = b"{}".to_vec();
            assert!(longer.judge_by(&verifier).is_err(), "{name}: nothing");
        } else {
            assert_eq!(longer.judge_by(&verifier), Err(Reject::SignatureWrong), "{name}: longer");
        }
        for at in 0..case.body.len() {
            let mut changed = case.clone();
            changed.body[at] ^= 1 << (at % 8);
            let same_form = case.signs_form() && case.pairs() == changed.pairs();
            let same_json =
                case.same_json_is_enough() && strict::same_json(&case.body, &changed.body);
            let same_fields = case.covered().is_some() && case.covered() == changed.covered();
            if same_form || same_json || same_fields {
                // Other bytes that say the same: `%2b` for `%2B`, a tab for a space.
                continue;
            }
            let verdict = changed.judge_by(&verifier);
            if case.covered().is_some() {
                assert!(verdict.is_err(), "{name}: {at}");
            } else {
                assert_eq!(verdict, Err(Reject::SignatureWrong), "{name}: {at}");
            }
        }
    }
}

#[test]
fn another_key_is_refused() {
    for (name, case) in accepted() {
        let longest = case.secrets.iter().map(String::len).max().unwrap_or(0);
        // Around a public key stand its armour and its algorithm, which have spare bits.
        let public = case.profile.scheme.key_encoding == KeyEncoding::PublicKey;
        let among = if public { longest / 4..longest / 2 } else { 0..longest };
        for at in among {
            let mut changed = case.clone();
            let keys = |case: &Case| -> Vec<_> {
                let key_of = |text| case.profile.scheme.key_of(&SecretText::new(text));
                case.secrets.iter().map(key_of).collect()
            };
            for secret in &mut changed.secrets {
                let at = at.min(secret.len() - 1);
                // Hex keys have no case, and a zero byte at the end of a key is no change to HMAC.
                let same = secret.as_bytes()[at].eq_ignore_ascii_case(&b'b');
                let other = if same { "c" } else { "b" };
                secret.replace_range(at..=at, other);
            }
            let Ok(verifier) = changed.verifier() else { continue };
            if keys(&case) == keys(&changed) {
                // What stands around the key in a PEM or a certificate.
                continue;
            }
            assert!(changed.judge_by(&verifier).is_err(), "{name}: {at}");
        }
        if let Some(key_id) = &case.key_id {
            let other = Case { key_id: Some(format!("{key_id}2")), ..case.clone() };
            // The URL of a certificate is checked at load; what it may be has a test of its own.
            let Ok(verifier) = other.verifier() else { continue };
            assert_eq!(other.judge_by(&verifier), Err(Reject::SignatureWrong), "{name}: key id");
        }
    }
}

#[test]
fn a_changed_signature_is_refused() {
    for (name, case) in accepted() {
        let Some(header) = case.signature_header() else { continue };
        let verifier = case.verifier().expect("loads");
        let value = case.headers[&header].as_bytes().to_vec();
        let from = FROM.iter().find(|(sender, _)| *sender == case.profile.name);
        let start = from.map_or(0, |(_, label)| {
            let text = std::str::from_utf8(&value).expect("text");
            text.find(label).expect("the label stands there")
        });
        let (mut tried, mut refused) = (0, 0);
        for at in start..value.len() {
            // Another digit, a low bit, and the other case.
            for other in
                [if value[at] == b'0' { b'1' } else { b'0' }, value[at] ^ 1, value[at] ^ 32]
            {
                let mut changed = case.clone();
                let mut bytes = value.clone();
                bytes[at] = other;
                let Ok(text) = HeaderValue::from_bytes(&bytes) else { continue };
                changed.headers.insert(header.clone(), text);
                tried += 1;
                refused += usize::from(changed.judge_by(&verifier).is_err());
            }
        }
        // With several candidates a request stands as long as the right one is untouched.
        let spare = ["two-v1", "multi-sig", "rolled-key", "paddle-rotation", "plivo-v3-list"]
            .iter()
            .any(|several| name.contains(several));
        assert!(refused == tried || spare && refused >= 43 * 2, "{name}: {refused} of {tried}");
    }
}

#[test]
fn a_changed_url_is_refused_where_it_is_signed() {
    for (name, case) in accepted() {
        let SchemeSpec { signed, jwt, format, .. } = &case.profile.scheme;
        let signs = |part: &str| signed.iter().any(|signed| signed == part);
        let url = ["url", "url:twilio", "url:plivo-v3"].iter().any(|part| signs(part))
            || jwt.as_ref().is_some_and(|jwt| jwt.url_sha256.is_some());
        let query = signs("query") || *format == Format::Params;
        let start = match case.target.find('?') {
            _ if url => 1,
            Some(start) if query => start + 1,
            _ => continue,
        };
        let verifier = case.verifier().expect("loads");
        for at in start..case.target.len() {
            let mut changed = case.clone();
            let other = if &case.target[at..=at] == "x" { "y" } else { "x" };
            changed.target.replace_range(at..=at, other);
            assert!(changed.judge_by(&verifier).is_err(), "{name}: {}", changed.target);
        }
        let mut longer = case.clone();
        longer.target.push_str(if case.target.contains('?') { "&x=1" } else { "?x=1" });
        assert!(longer.judge_by(&verifier).is_err() || *format == Format::Sns, "{name}: longer");
        if url {
            let elsewhere = Some("https://elsewhere.example".to_owned());
            let settings = Settings { public_url: elsewhere, ..case.settings.clone() };
            assert!(Case { settings, ..case }.judge().is_err(), "{name}: elsewhere");
        }
    }
}

#[test]
fn a_certificate_of_sns_that_is_not_known_cannot_be_verified_now() {
    let (_, case) = accepted().find(|(name, _)| name == "sns-no-subject").expect("there");
    let known = case.key_id.clone().expect("the URL of a certificate");
    let other = Case { key_id: Some(known.replace("us-east-1", "eu-west-1")), ..case.clone() };
    assert_eq!(other.judge(), Err(Reject::CannotVerify));
    let body = String::from_utf8(case.body.clone()).expect("text");
    let body = body.replace("sns.us-east-1.amazonaws.com/", "sns.evil.example/").into_bytes();
    assert_eq!(Case { body, ..case }.judge(), Err(Reject::SignatureMalformed));
}

#[test]
fn a_clock_beyond_the_tolerance_refuses() {
    for (name, case) in accepted() {
        let token = case.profile.scheme.jwt.as_ref();
        let timed = case.profile.scheme.time.is_some()
            || token.is_some_and(|token| token.time != JwtTime::None);
        let day_ns = 86_400_000_000_000;
        for (now_ns, reject) in [
            (case.now_ns + day_ns, Reject::Stale),
            (case.now_ns.saturating_sub(day_ns), Reject::Future),
        ] {
            let moved = Case { now_ns, ..case.clone() };
            assert_eq!(moved.judge().err(), timed.then_some(reject), "{name}");
        }
    }
}

#[test]
fn a_request_of_one_sender_is_refused_by_every_other() {
    for (name, case) in accepted() {
        for other in presets() {
            let among = |kin: &[&str], profile: &Profile| kin.contains(&&*profile.name);
            let related = KIN.iter().any(|kin| among(kin, other) && among(kin, case.profile));
            if other.name == case.profile.name || related {
                continue;
            }
            let wants_key_id = other.scheme.jwt.is_some();
            let key_id = wants_key_id.then(|| case.key_id.clone().unwrap_or("id".into()));
            let crossed = Case { profile: other, key_id, ..case.clone() };
            let Ok(verifier) = crossed.verifier() else { continue };
            assert!(crossed.judge_by(&verifier).is_err(), "{name} by {}", other.name);
        }
    }
}
