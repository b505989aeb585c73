//! Every vector of `tests/vectors`, judged without a server, and every accepted one again with each
//! of its places changed. What a scheme cannot see is listed in `tests/unseen.toml`; everything
//! else that is changed must be refused, and for the right reason.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::*;
use crate::identify::Rules;

use self::vector::{Seen, Unseen, Vector, kin, same_body, vectors};

#[path = "../../tests/it/support/vector.rs"]
#[expect(dead_code, reason = "the tests of the whole server read the rest")]
mod vector;

/// A request that can be changed.
#[derive(Clone)]
struct Case {
    profile: &'static Profile,
    vector: Vector,
    now_ns: u64,
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
        let [_, path, query] = vector.url("/in");
        Self {
            profile,
            vector: vector.clone(),
            now_ns: vector.now_s() * 1_000_000_000,
            target: path + &query,
            headers,
            body: vector.body(),
        }
    }

    fn verifier(&self) -> Result<Verifier, SpecError> {
        self.vector.verifier(self.profile, &self.vector.secrets)
    }

    fn judge(&self) -> Result<SecretIndex, Reject> {
        self.judge_by(&self.verifier().expect("secrets of a vector load"))
    }

    fn judge_by(&self, verifier: &Verifier) -> Result<SecretIndex, Reject> {
        let Self { target, headers, .. } = self;
        let method = self.vector.method.as_deref().unwrap_or("POST").parse().expect("a method");
        let claim = verifier.claim(&Head { method: &method, target, headers }, self.now_ns)?;
        verifier.check(&claim, &self.body)
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

/// The vectors whose signature is judged.
fn judged() -> impl Iterator<Item = &'static (&'static Profile, Vector)> {
    vectors().iter().filter(|(_, vector)| vector.unsupported.is_none() && !vector.handshake)
}

fn accepted() -> impl Iterator<Item = (&'static str, Case)> {
    let accepted = judged().filter(|(_, vector)| vector.accepted());
    accepted.map(|(profile, vector)| (vector.name.as_str(), Case::new(profile, vector)))
}

#[test]
fn every_vector_gets_its_verdict() {
    for profile in presets() {
        assert!(vectors().iter().any(|(of, _)| of.name == profile.name), "{}", profile.name);
    }
    for (profile, vector) in judged() {
        let verdict = Case::new(profile, vector).judge();
        let expected = vector.accepted();
        assert_eq!(verdict.is_ok(), expected, "{}: {verdict:?} ({})", vector.name, vector.why);
    }
}

#[test]
fn every_vector_identifies_its_event() {
    let mut checked = 0;
    for (profile, vector) in judged() {
        let Some(event) = &vector.event else { continue };
        let case = Case::new(profile, vector);
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
    let (_, case) = accepted().find(|(name, _)| *name == "github-octokit-rotation").expect("there");
    let verifier = case.verifier().expect("loads");
    let index = case.judge_by(&verifier).expect("accepted");
    assert_eq!(verifier.secret_name(index), "s1");
}

#[test]
fn without_a_needed_header_or_with_two_of_it_a_request_is_refused() {
    let listed = Unseen::read();
    for (name, case) in accepted() {
        for header in case.headers.keys() {
            // Whether a body is a form decides what of it is signed.
            let form = listed.body(&case.profile.name) == Seen::Form;
            if header == http::header::CONTENT_TYPE && form {
                continue;
            }
            let unseen = listed.header(&case.profile.name, header.as_str());
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
    let listed = Unseen::read();
    let mut blind = BTreeMap::new();
    for (name, case) in accepted() {
        let verifier = case.verifier().expect("loads");
        let seen = listed.body(&case.profile.name);
        let unseen = blind
            .entry(&case.profile.name)
            .or_insert(!matches!(seen, Seen::Nothing | Seen::Fields));
        for at in 0..case.body.len() {
            let mut changed = case.clone();
            changed.body[at] ^= 1 << (at % 8);
            let verdict = changed.judge_by(&verifier);
            if same_body(case.profile, seen, &case.body, &changed.body) {
                *unseen |= verdict.is_ok();
            } else if seen == Seen::Fields {
                assert!(verdict.is_err(), "{name}: {at}");
            } else {
                assert_eq!(verdict, Err(Reject::SignatureWrong), "{name}: {at}");
            }
        }
        let mut longer = case.clone();
        longer.body.push(b'\n');
        let verdict = longer.judge_by(&verifier);
        match seen {
            Seen::All | Seen::Form => {
                assert_eq!(verdict, Err(Reject::SignatureWrong), "{name}: longer");
            }
            _ => assert_eq!(verdict, Ok(SecretIndex::new(0)), "{name}: the same"),
        }
        if matches!(seen, Seen::Fields | Seen::Json) {
            longer.body.push(b'x');
            assert!(longer.judge_by(&verifier).is_err(), "{name}: no JSON");
            longer.body = b"{}".to_vec();
            assert!(longer.judge_by(&verifier).is_err(), "{name}: nothing");
        }
    }
    for (preset, truly) in blind {
        assert!(truly, "{preset} sees all, and is listed as if it did not");
    }
}

#[test]
fn another_key_is_refused() {
    for (name, case) in accepted() {
        let longest = case.vector.secrets.iter().map(String::len).max().unwrap_or(0);
        // Around a public key stand its armour and its algorithm, which have spare bits.
        let public = case.profile.scheme.key_encoding == KeyEncoding::PublicKey;
        let among = if public { longest / 4..longest / 2 } else { 0..longest };
        for at in among {
            let mut changed = case.clone();
            let keys = |case: &Case| -> Vec<_> {
                let key_of = |text| case.profile.scheme.key_of(&SecretText::new(text));
                case.vector.secrets.iter().map(key_of).collect()
            };
            for secret in &mut changed.vector.secrets {
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
        if let Some(key_id) = &case.vector.key_id {
            let mut other = case.clone();
            other.vector.key_id = Some(format!("{key_id}2"));
            // The URL of a certificate is checked at load; what it may be has a test of its own.
            let Ok(verifier) = other.verifier() else { continue };
            assert_eq!(other.judge_by(&verifier), Err(Reject::SignatureWrong), "{name}: key id");
        }
    }
}

#[test]
fn a_changed_signature_is_refused() {
    let listed = Unseen::read();
    for (name, case) in accepted() {
        let Some(header) = case.signature_header() else { continue };
        let verifier = case.verifier().expect("loads");
        let value = case.headers[&header].as_bytes().to_vec();
        let start = listed.signature_start(&case.profile.name, &value);
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
        let spare = listed.spare_signatures(name);
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
            let mut elsewhere = case;
            elsewhere.vector.url = Some("https://elsewhere.example/in".to_owned());
            assert!(elsewhere.judge().is_err(), "{name}: elsewhere");
        }
    }
}

#[test]
fn a_certificate_of_sns_that_is_not_known_cannot_be_verified_now() {
    let (_, case) = accepted().find(|(name, _)| *name == "sns-no-subject").expect("there");
    let known = case.vector.key_id.clone().expect("the URL of a certificate");
    let mut other = case.clone();
    other.vector.key_id = Some(known.replace("us-east-1", "eu-west-1"));
    assert_eq!(other.judge(), Err(Reject::CannotVerify));
    let body = String::from_utf8(case.body.clone()).expect("text");
    let body = body.replace("sns.us-east-1.amazonaws.com/", "sns.evil.example/").into_bytes();
    assert_eq!(Case { body, ..case }.judge(), Err(Reject::SignatureMalformed));
}

#[test]
fn a_clock_beyond_the_tolerance_refuses() {
    let listed = Unseen::read();
    for (name, case) in accepted() {
        let timed = !listed.clock(&case.profile.name);
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
            if kin(&other.name, &case.profile.name) {
                continue;
            }
            let crossed = Case { profile: other, ..case.clone() };
            let Ok(verifier) = crossed.verifier() else { continue };
            assert!(crossed.judge_by(&verifier).is_err(), "{name} by {}", other.name);
        }
    }
}
