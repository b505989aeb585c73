//! Mistakes in schemes and secrets, each with the key that it names and its cure.

use super::*;

#[test]
fn each_mistake_in_a_scheme_names_its_key_and_the_cure() {
    const GOOD: &str = "algorithm = \"hmac-sha256\"\nheader = \"x-sig\"\nsigned = [\"body\"]\n\
                        signature_encoding = \"hex\"\n";
    let list = GOOD.replace("signed", "format = \"kvlist\"\nlabel = \"v1\"\nsigned");
    let jwt = "algorithm = \"hmac-sha256\"\nheader = \"authorization\"\nformat = \"jwt\"\n";
    let claims = "jwt = { body_sha256 = \"sha256\", body_sha256_encoding = \"hex\" }\n";
    let swap = |from: &str, to: &str| GOOD.replace(from, to);
    for (text, key, cure) in [
        (swap("[\"body\"]", "[]"), "signed", "add it"),
        (swap("[\"body\"]", "[\"body\", \"urn\"]"), "signed[1]", "write \"literal:TEXT\""),
        (swap("[\"body\"]", "[\"url\"]"), "signed", "another body"),
        (swap("[\"body\"]", "[\"header:a b\", \"body\"]"), "signed[0]", "use letters"),
        (swap("[\"body\"]", "[\"kv:t\", \"body\"]"), "signed[0]", "set format = \"kvlist\""),
        (swap("x-sig", ""), "header", "use letters"),
        (swap("signature_encoding = \"hex\"", ""), "signature_encoding", "say \"hex\""),
        (format!("{GOOD}label = \"v1\""), "label", "remove it"),
        (format!("{GOOD}separator = \";\""), "separator", "remove it"),
        (format!("{GOOD}{claims}"), "jwt", "remove the table"),
        (format!("{GOOD}aliases = {{ x-other = [\"y\"] }}"), "aliases.x-other", "mend it"),
        (format!("{GOOD}aliases = {{ x-sig = [\"\"] }}"), "header", "use letters"),
        (
            format!("{GOOD}time = {{ from = \"body\", unit = \"s\" }}"),
            "time.from",
            "write \"header:",
        ),
        (format!("{GOOD}time = {{ from = \"json:\", unit = \"s\" }}"), "time.from", "write it as"),
        (list.replace("label = \"v1\"", ""), "label", "name the entries"),
        (list.replace("[\"body\"]", "[\"kv:v1\", \"body\"]"), "signed[0]", "name another one"),
        (
            list.replace(
                "[\"body\"]",
                "[\"kv:a\", \"kv:b\", \"kv:c\", \"kv:d\", \"kv:e\", \"body\"]",
            ),
            "signed[4]",
            "at most",
        ),
        (format!("{list}prefix = \"x\""), "prefix", "remove it"),
        (format!("{list}separator = \"\u{e9}\""), "separator", "one ASCII character"),
        (jwt.to_owned(), "jwt", "say which claim"),
        (format!("{jwt}{claims}signed = [\"body\"]"), "signed", "remove it"),
        (format!("{jwt}{claims}").replace("sha256\"\nh", "sha1\"\nh"), "algorithm", "use hmac-"),
    ] {
        let spec: SchemeSpec = toml::from_str(&text).expect(&text);
        let named = NamedSecret { name: "s".into(), value: SecretText::new("key"), key_id: None };
        let error = Verifier::new(&spec, vec![named], &Settings::default()).expect_err(&text);
        assert_eq!(error.key, format!("scheme.{key}"), "{text}: {}", error.message);
        assert!(error.message.contains(cure), "{text}: {}", error.message);
    }
    for (key, text) in
        [("colour", "colour = 1"), ("past", "time = { from = \"a\", unit = \"s\", past = \"x\" }")]
    {
        let error = toml::from_str::<SchemeSpec>(&format!("{GOOD}{text}")).expect_err("unknown");
        assert!(error.to_string().contains(key), "{error}");
    }
}

#[test]
fn each_mistake_in_the_secrets_names_its_key_and_the_cure() {
    let named = |value: &str, key_id: Option<&str>| NamedSecret {
        name: "s".into(),
        value: SecretText::new(value),
        key_id: key_id.map(str::to_owned),
    };
    let whpk = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
    let many = vec![named("key", None); limits::SECRETS_MAX + 1];
    for (name, secrets, key, cure) in [
        ("github", vec![], "secrets", "give at least one"),
        ("github", many, "secrets", "remove retired ones"),
        ("github", vec![named("a", None), named("", None)], "secrets[1].value", "copy the secret"),
        ("github", vec![named("a", Some("id"))], "secrets[0].key_id", "remove it"),
        ("livekit", vec![named("a", None)], "secrets[0].key_id", "give the id"),
        ("svix", vec![named("whsec_!", None)], "secrets[0].value", "copy it again"),
        (
            "svix",
            vec![named("whpk_YQ==", None)],
            "secrets[0].value",
            "copy the sender's public key",
        ),
        ("svix", vec![named("YQ==", None), named(whpk, None)], "secrets", "keep one kind"),
    ] {
        let profile = preset(name).expect("a preset");
        let error = Verifier::new(&profile.scheme, secrets, &Settings::default()).expect_err(key);
        assert_eq!(error.key, key, "{}", error.message);
        assert!(error.message.contains(cure), "{key}: {}", error.message);
    }
    let svix = &preset("svix").expect("a preset").scheme;
    assert_eq!(svix.secret_bytes(&SecretText::new(whpk)), Ok(32));
    assert_eq!(svix.secret_bytes(&SecretText::new("whsec_YWJj")), Ok(3));
}
