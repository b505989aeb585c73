//! Every family with every other: what one signs it accepts, and nobody else does.
//!
//! The schemes stand in `tests/keys/families.toml`. They share header and secret wherever they
//! can, so that the scheme alone decides.

use std::collections::BTreeMap;

use serde::Deserialize;

use self::support::{Case, Family, NOW, SECRET, TARGET, settings};
use super::*;

#[path = "../../benches/support/families.rs"]
mod support;

fn cases() -> Vec<Case> {
    support::families().into_iter().map(|family| Case::with_body(family, 0)).collect()
}

#[test]
fn what_a_family_signs_it_accepts() {
    let cases = cases();
    assert!(cases.len() >= 32, "families were lost");
    for case in &cases {
        assert_eq!(case.judged_by(&case.verifier), Ok(0), "{}", case.family.name);
    }
}

#[test]
fn what_a_family_signs_every_other_refuses() {
    let cases = cases();
    for one in &cases {
        for other in cases.iter().filter(|other| other.family.name != one.family.name) {
            // Two of one scheme, for a form and for JSON.
            let (a, b) = (&one.family.name, &other.family.name);
            if a.starts_with("url-twilio") && b.starts_with("url-twilio") {
                continue;
            }
            let verdict = one.judged_by(&other.verifier);
            assert!(verdict.is_err(), "{a} by {b}: {verdict:?}");
        }
    }
}

#[test]
fn another_secret_of_the_same_kind_is_refused() {
    for case in cases().iter().filter(|case| case.family.public.is_none()) {
        let other = case.family.secret("name:a-secret-of-thirty-two-characterz");
        let verifier = Verifier::new(&case.family.scheme, vec![other], &settings());
        let verdict = case.judged_by(&verifier.expect("loads"));
        assert_eq!(verdict, Err(Reject::SignatureWrong), "{}", case.family.name);
    }
}

#[test]
fn the_secret_that_matched_is_found_among_several() {
    for case in cases() {
        let right = case.family.secret(SECRET);
        let wrong = match &case.family.public {
            None => case.family.secret("name:another-secret-of-thirty-two-char"),
            Some(_) => right.clone(),
        };
        let expected = usize::from(case.family.public.is_none());
        let verifier = Verifier::new(&case.family.scheme, vec![wrong, right], &settings());
        let verdict = case.judged_by(&verifier.expect("loads"));
        assert_eq!(verdict, Ok(expected), "{}", case.family.name);
    }
}

#[test]
fn a_public_key_never_serves_as_the_key_of_a_mac() {
    // The classic confusion: an attacker signs by HMAC, with the public key as the secret.
    let cases = cases();
    for case in cases.iter().filter(|case| case.family.public.is_some()) {
        let public = case.family.secret(SECRET);
        let mut profile = case.family.profile();
        profile.scheme.algorithm = Algorithm::HmacSha256;
        profile.scheme.key_encoding = KeyEncoding::Utf8;
        let Ok(signer) = Signer::for_source(&profile, public, &settings()) else { continue };
        let body = &case.family.body(0)[..];
        let input = SignInput { id: "id-1", now_ns: NOW, event_type: "x.y", target: TARGET, body };
        let request = signer.request(&input).expect("signs");
        let forged = Case { request, ..Case::with_body(family(&case.family.name), 0) };
        assert!(forged.judged_by(&case.verifier).is_err(), "{}", case.family.name);
    }
}

fn family(name: &str) -> Family {
    support::families().into_iter().find(|family| family.name == name).expect("a family")
}

#[test]
fn fields_are_read_strictly() {
    let case = Case::with_body(family("fields"), 0);
    let body = String::from_utf8(case.request.body.clone()).expect("text");
    let verdict = |body: &str| {
        let headers = HeaderMap::new();
        let claim = case.verifier.claim(&(&headers).into(), NOW)?;
        case.verifier.check(&claim, body.as_bytes()).map(SecretIndex::as_usize)
    };
    assert_eq!(verdict(&body), Ok(0));
    assert_eq!(verdict(&body.replace("{\"Message", " { \"Message")), Ok(0));
    for (from, to) in [
        ("\"id\":\"id-1\"", "\"id\":\"id-1\",\"id\":\"id-2\""),
        ("\"id\":\"id-1\"", "\"id\":[\"id-1\"]"),
        ("\"id\":\"id-1\"", "\"id\":null"),
        ("\"id\":\"id-1\",", ""),
        ("\"type\":\"x.y\"", "\"type\":\"x.z\""),
        ("\"signature\":{", "\"signature\":{\"value\":\"00\","),
        ("\"signature\":{\"value\":\"", "\"signature\":{\"value\":\"A"),
        ("\"signature\":{\"value\":\"", "\"signature\":{\"value\":7,\"x\":\""),
        ("\"signature\":", "\"other\":"),
        ("}", "}}"),
    ] {
        let changed = body.replacen(from, to, if from == "}" { 9 } else { 1 });
        assert_ne!(changed, body, "{from}");
        assert!(verdict(&changed).is_err(), "{changed}");
    }
    for nothing in ["", "{}", "[]", "null", "\"x\"", "{\"signature\":{}}"] {
        assert!(verdict(nothing).is_err(), "{nothing}");
    }
}

#[test]
fn of_signed_items_each_one_counts() {
    let case = Case::with_body(family("fields-each"), 0);
    let body = String::from_utf8(case.request.body.clone()).expect("text");
    let verdict = |body: &str| {
        let headers = HeaderMap::new();
        let claim = case.verifier.claim(&(&headers).into(), NOW)?;
        case.verifier.check(&claim, body.as_bytes()).map(SecretIndex::as_usize)
    };
    assert_eq!(verdict(&body), Ok(0));
    let second = body.find("\"id\":\"2\"").expect("the second item");
    for changed in [
        format!("{}{}", &body[..second], body[second..].replacen("\"2\"", "\"3\"", 1)),
        format!("{}{}", &body[..second], body[second..].replacen("\"signature\"", "\"x\"", 1)),
        body.replacen("\"value\":10", "\"value\":11", 1),
        body.replacen("\"value\":10", "\"value\":\"10\"", 1).replace("10", "1e1"),
        body.replacen("\"items\":[", "\"items\":[{},", 1),
        body.replacen("\"items\":", "\"items\":[],\"items\":", 1),
    ] {
        assert_ne!(changed, body);
        assert!(verdict(&changed).is_err(), "{changed}");
    }
    assert_eq!(verdict("{\"items\":[]}"), Err(Reject::SignatureMissing));
    assert_eq!(verdict("{\"items\":{}}"), Err(Reject::SignatureMalformed));
}

#[test]
fn parameters_that_stand_twice_are_refused() {
    let case = Case::with_body(family("params"), 0);
    let headers = HeaderMap::new();
    let verdict = |target: &str, body: &[u8]| {
        let head = Head { target, ..(&headers).into() };
        let claim = case.verifier.claim(&head, NOW)?;
        case.verifier.check(&claim, body).map(SecretIndex::as_usize)
    };
    let target = &case.request.target;
    assert_eq!(verdict(target, b""), Ok(0));
    assert_eq!(verdict(target, b"{}"), Err(Reject::SignatureWrong), "no body is covered");
    for (changed, reject) in [
        (format!("{target}&a=1"), Reject::SignatureMalformed),
        (target.replace("a=1", "a=2"), Reject::SignatureWrong),
        (target.replace("&a=1", ""), Reject::SignatureWrong),
        (target.replace("sig=", "sig=x"), Reject::SignatureMalformed),
        (target.replace("sig=", "gis="), Reject::SignatureMissing),
    ] {
        assert_eq!(verdict(&changed, b""), Err(reject), "{changed}");
    }
    assert_eq!(
        verdict(
            &target
                .to_uppercase()
                .replace("SIG", "sig")
                .replace("A=1", "a=1")
                .replace("B=2", "b=2")
                .replace("/IN", "/in"),
            b""
        ),
        Ok(0)
    );
}

/// A mistake a line: the key that is named, and the scheme.
const MISTAKES: &str = r#"
scheme.signed | algorithm = "token", header = "x", signed = ["body"]
scheme.query | algorithm = "token", header = "x", query = "y"
scheme.format | algorithm = "token", header = "x", format = "kvlist"
scheme.header | algorithm = "token"
scheme.query | algorithm = "basic", query = "y"
scheme.query | algorithm = "hmac-sha256", header = "x", query = "y", signed = ["body"]
scheme.each | algorithm = "hmac-sha256", header = "x", each = "y", signed = ["body"]
scheme.key_id | $SIGNED, key_id = "y"
params.none | $HMAC, header = "x", signed = ["param:none", "body"]
scheme.signed[0] | $HMAC, signature = "json:a", signed = ["body"]
scheme.signature | $HMAC, signature = "a", signed = ["json:b"]
scheme.signed | $HMAC, signature = "json:a", signed = []
scheme.header | $HMAC, signature = "json:a", header = "x"
scheme.signature_encoding | algorithm = "hmac-sha256", signature = "json:a", signed = ["json:b"]
scheme.other_algorithms | $SIGNED, other_algorithms = ["hmac-sha1"]
scheme.other_algorithms | $SIGNED, format = "named", other_algorithms = ["ed25519"]
scheme.other_algorithms | $SIGNED, format = "named", other_algorithms = ["hmac-sha256"]
scheme.other_algorithms | $SIGNED, format = "named", other_algorithms = ["token"]
scheme.query | $HMAC, format = "params"
scheme.signature_encoding | algorithm = "hmac-sha256", format = "params", query = "sig"
scheme.algorithm | algorithm = "hmac-sha256", format = "sns"
scheme.header | algorithm = "rsa-pkcs1-sha256", format = "sns", header = "x"
scheme.jwt | $JWT
scheme.jwt.body_sha256 | $JWT, jwt = {}
scheme.jwt.body_sha256_encoding | $JWT, jwt = { body_sha256 = "h" }
scheme.jwt.claims_are_body | $JWT, jwt = { body_sha256 = "h", claims_are_body = true }
scheme.jwt.past | $JWT, jwt = { claims_are_body = true, past = "1s" }
scheme.algorithm | algorithm = "hmac-sha1", header = "x", format = "jwt", $SAME
"#;

#[test]
fn each_mistake_in_a_scheme_of_any_family_names_its_key_and_a_cure() {
    #[derive(Deserialize)]
    struct Line {
        scheme: SchemeSpec,
    }
    let hmac = "algorithm = \"hmac-sha256\", signature_encoding = \"hex\"";
    let signed = format!("{hmac}, header = \"x\", signed = [\"body\"]");
    let jwt = "algorithm = \"hmac-sha256\", header = \"x\", format = \"jwt\"";
    let lines = MISTAKES.replace("$SIGNED", &signed).replace("$HMAC", hmac).replace("$JWT", jwt);
    let lines = lines.replace("$SAME", "jwt = { claims_are_body = true }");
    for line in lines.lines().filter(|line| !line.is_empty()) {
        let (key, scheme) = line.split_once(" | ").expect("a key and a scheme");
        let Line { scheme } = toml::from_str(&format!("scheme = {{ {scheme} }}")).expect(line);
        let url = "https://sns.us-east-1.amazonaws.com/a.pem".to_owned();
        let certificate = include_str!("../../tests/keys/rsa-certificate.pem");
        let public = scheme.algorithm == Algorithm::RsaPkcs1Sha256;
        let mut scheme = scheme;
        if public {
            scheme.key_encoding = KeyEncoding::PublicKey;
        }
        let value = SecretText::new(if public { certificate } else { SECRET });
        let key_id = scheme.names_keys().then_some(url);
        let named = NamedSecret { name: "s".into(), value, key_id };
        let error = Verifier::new(&scheme, vec![named], &Settings::default()).expect_err(line);
        assert_eq!(error.key, key, "{line}: {}", error.message);
        assert!(error.message.contains([';', ':']), "{}", error.message);
    }
}

#[test]
fn the_url_comes_from_the_configuration_alone() {
    let needs_url: BTreeMap<&str, bool> =
        [("url-body", true), ("url-twilio", true), ("jwt-url", true), ("hmac-sha256", false)]
            .into();
    for (name, needed) in needs_url {
        let case = Case::with_body(family(name), 0);
        let secret = || vec![case.family.secret(SECRET)];
        let without = Verifier::new(&case.family.scheme, secret(), &Settings::default());
        assert_eq!(without.err().map(|error| error.key), needed.then(|| "public_url".to_owned()));
        // Whatever the request claims of its host.
        let mut lying = Case::with_body(family(name), 0);
        for header in ["host", "x-forwarded-host", "x-forwarded-proto", "forwarded"] {
            let header: HeaderName = header.parse().expect("a name");
            lying.request.headers.push((header, "elsewhere.example".parse().expect("a value")));
        }
        assert_eq!(lying.judged_by(&case.verifier), Ok(0), "{name}");
    }
}
