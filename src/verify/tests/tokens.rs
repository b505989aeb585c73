//! Tokens: those that bind a body, those that are the secret itself, and none at all.

use ring::hmac;

use super::*;
use crate::verify::encoding::encode_base64url;

/// A token with this head and these claims, rightly signed.
fn token(head: &str, claims: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"a-secret-of-thirty-two-characters");
    let text =
        format!("{}.{}", encode_base64url(head.as_bytes()), encode_base64url(claims.as_bytes()));
    let tag = hmac::sign(&key, text.as_bytes());
    format!("{text}.{}", encode_base64url(tag.as_ref()))
}

#[test]
fn a_token_is_read_strictly_even_when_it_is_rightly_signed() {
    let livekit = preset("livekit").expect("a preset");
    let verifier = verifier(livekit);
    let verdict = |authorization: String| {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", authorization.parse().expect("a value"));
        judge(&verifier, &headers, NOW).err()
    };
    let sum = digest::digest(&digest::SHA256, input(NOW).body);
    let sum = SignatureEncoding::Base64.encode(sum.as_ref());
    let head = r#"{"alg":"HS256","typ":"JWT"}"#;
    let claims =
        format!(r#"{{"exp":1700000300,"iss":"APIkey","nbf":1700000000,"sha256":"{sum}"}}"#);
    let with = |from: &str, to: &str| token(head, &claims.replace(from, to));
    assert_eq!(verdict(token(head, &claims)), None);
    assert_eq!(verdict(with("1700000000", "1699999999")), None);

    let malformed = Some(Reject::SignatureMalformed);
    for other in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"None"}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":"HS512"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        "HS256",
        "",
    ] {
        assert_eq!(verdict(token(other, &claims)), malformed, "{other}");
    }
    let good = token(head, &claims);
    for broken in [
        format!("Bearer {good}"),
        format!("{good}."),
        format!("{good}="),
        good.replace('.', ".."),
        good.rsplit_once('.').expect("dots").0.to_owned(),
        "..".to_owned(),
        "x".to_owned(),
        token(head, "[]"),
        token(head, &claims.replace('}', ",\"exp\":1700000300}")),
        token(head, &claims.replace('}', "}x")),
        with("\"sha256\"", "\"sha\""),
        with(&sum, "AAAA"),
        with("\"iss\":\"APIkey\"", "\"iss\":7"),
    ] {
        assert_eq!(verdict(broken.clone()), malformed, "{broken}");
    }
    let unsigned = format!("{}.", good.rsplit_once('.').expect("dots").0);
    assert_eq!(verdict(unsigned), Some(Reject::SignatureWrong));
    assert_eq!(verdict(with("APIkey", "another")), Some(Reject::SignatureWrong));
    assert_eq!(verdict(with("\"iss\":\"APIkey\",", "")), Some(Reject::SignatureWrong));
    for time in ["1700000300.5", "\"1700000300\"", "-1", "1e10", "null", "17000003000000000000000"]
    {
        assert_eq!(verdict(with("1700000300", time)), Some(Reject::TimestampMalformed), "{time}");
    }
    assert_eq!(verdict(with("\"exp\":1700000300,", "")), Some(Reject::TimestampMalformed));
    assert_eq!(verdict(with("1700000300", "1699999939")), Some(Reject::Stale));
    assert_eq!(verdict(with("1700000000", "1700000061")), Some(Reject::Future));
    let other = SignatureEncoding::Base64.encode(&[7; 32]);
    assert_eq!(verdict(with(&sum, &other)), Some(Reject::SignatureWrong));
}

/// A scheme of its own, as configuration would bring it.
fn own(scheme: &str) -> Profile {
    let text = format!(
        "name = \"own\"\ntitle = \"Own\"\ncontent_types = []\nidentity = {{}}\n[scheme]\n{scheme}"
    );
    toml::from_str(&text).expect(&text)
}

#[test]
fn a_token_is_the_whole_secret_and_nothing_more() {
    for (scheme, secret, name, good, bad) in [
        (
            "algorithm = \"token\"\nheader = \"cf-webhook-auth\"",
            "a-shared-secret",
            "cf-webhook-auth",
            "a-shared-secret",
            vec!["a-shared-secreT", "a-shared-secre", "a-shared-secret ", "a-shared-secret2"],
        ),
        (
            "algorithm = \"token\"\nheader = \"Authorization\"\nprefix = \"Bearer \"",
            "a-shared-secret",
            "authorization",
            "bearer a-shared-secret",
            vec!["a-shared-secret", "Bearer", "Bearer  a-shared-secret", "Basic a-shared-secret"],
        ),
        (
            "algorithm = \"basic\"",
            "user:pa:ss",
            "authorization",
            "Basic dXNlcjpwYTpzcw==",
            vec!["Basic dXNlcjpwYTpzUw==", "Basic dXNlcjpwYTpzcw", "dXNlcjpwYTpzcw==", "Basic "],
        ),
    ] {
        let profile = own(scheme);
        let named =
            || NamedSecret { name: "s".into(), value: SecretText::new(secret), key_id: None };
        let verifier =
            Verifier::new(&profile.scheme, vec![named()], &Settings::default()).expect(scheme);
        let verdict = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("a value"));
            judge(&verifier, &headers, NOW)
        };
        assert_eq!(verdict(good), Ok(SecretIndex::new(0)), "{good}");
        for bad in bad {
            assert!(verdict(bad).is_err(), "{bad}");
        }
        assert_eq!(judge(&verifier, &HeaderMap::new(), NOW), Err(Reject::SignatureMissing));
        let headers: HeaderMap =
            sign(&profile, named(), &input(NOW)).expect("signs").into_iter().collect();
        assert_eq!(judge(&verifier, &headers, NOW), Ok(SecretIndex::new(0)));
        // It opens every door, so the log keeps no copy of it.
        let name: HeaderName = name.parse().expect("a name");
        assert!(verifier.is_credential(&name) && !verifier.reads(&name));
        assert!(!format!("{verifier:?}").contains("secret\""));
    }
}

#[test]
fn a_token_in_the_query_is_found_there_and_kept_nowhere() {
    let profile = own("algorithm = \"token\"\nquery = \"key\"");
    let named = NamedSecret { name: "s".into(), value: SecretText::new("a b&c"), key_id: None };
    let verifier = Verifier::new(&profile.scheme, vec![named], &Settings::default());
    let verifier = verifier.expect("loads");
    assert!(verifier.credential_in_query());
    let headers = HeaderMap::new();
    let verdict = |target| {
        let head = Head { target, ..(&headers).into() };
        verifier.claim(&head, NOW).and_then(|claim| verifier.check(&claim, b"")).err()
    };
    assert_eq!(verdict("/in?key=a+b%26c"), None);
    assert_eq!(verdict("/in?key=a+b%26d"), Some(Reject::SignatureWrong));
    assert_eq!(verdict("/in?key=a+b%26c&key=a+b%26c"), Some(Reject::SignatureDoubled));
    assert_eq!(verdict("/in"), Some(Reject::SignatureMissing));
}

#[test]
fn nothing_is_verified_only_where_the_source_says_so() {
    let open = own("algorithm = \"none\"").scheme;
    let github = &preset("github").expect("a preset");
    let unsafe_no_auth = Settings { unsafe_no_auth: true, ..Settings::default() };
    let key = |result: Result<Verifier, SpecError>| result.expect_err("refused").key;
    assert_eq!(key(Verifier::new(&open, vec![], &Settings::default())), "scheme.algorithm");
    assert_eq!(key(Verifier::new(&open, vec![secret(github)], &unsafe_no_auth)), "secrets");
    let refused = Verifier::new(&github.scheme, vec![secret(github)], &unsafe_no_auth);
    assert_eq!(key(refused), "unsafe_no_auth");
    let verifier = Verifier::new(&open, vec![], &unsafe_no_auth).expect("loads");
    let secret = judge(&verifier, &HeaderMap::new(), NOW).expect("taken");
    assert_eq!(verifier.secret_name(secret), "");
    let headers = HeaderMap::new();
    let claim = verifier.claim(&(&headers).into(), NOW).expect("claims");
    let digest = |body| verifier.digest(DigestOf::Signed, &claim, body).expect("a digest");
    assert_ne!(digest(b"a"), digest(b"b"), "or every event would be the same one");
}
