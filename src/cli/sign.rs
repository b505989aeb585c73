//! `forebay sign`: a valid request of a provider, as a curl command or as raw HTTP.
//!
//! For tests of a deployment and of what reads its log. Nothing is sent. What is printed holds a
//! signature and no secret, unless the scheme's signature is the secret itself. Where the receiver
//! holds a public key, the secret is the private one in PEM. Exit codes: 0 printed, 1 not, 2 wrong
//! usage, a public key included, since one signs nothing.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use forebay_log::Clock;
use serde_json::{Map, Value};

use super::keys::{self, SecretArgs};
use super::outgoing::{self, Outgoing};
use super::when::When;
use super::{EXIT_USAGE, terminal};
use crate::identify::RuleText;
use crate::verify::{Profile, SignInput, Signer};

/// What `sign` takes.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SignArgs {
    /// The preset to sign as
    #[arg(long, value_name = "NAME")]
    provider: String,
    #[command(flatten)]
    secrets: SecretArgs,
    /// Where the request is meant to go
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080/")]
    url: String,
    /// The body's file, byte for byte
    #[arg(long, value_name = "FILE", conflicts_with = "body")]
    body_file: Option<PathBuf>,
    /// The body; default: a small document with the id and the type where the provider has them
    #[arg(long, value_name = "TEXT")]
    body: Option<String>,
    /// The event's id; default: one of its own for each call
    #[arg(long, value_name = "ID")]
    event_id: Option<String>,
    /// The event's type
    #[arg(long, value_name = "TYPE", default_value = "forebay.test")]
    event_type: String,
    /// When it is signed: a time as 2026-11-21T18:00:00Z, or a duration before now as 2h
    #[arg(long, value_name = "TIME", value_parser = When::parse, default_value = "0s")]
    at: When,
    /// Print a curl command; the default
    #[arg(long, group = "style")]
    curl: bool,
    /// Print raw HTTP/1.1, as `verify` reads it
    #[arg(long, group = "style")]
    http: bool,
}

/// Runs the verb.
pub(super) fn run(args: &SignArgs) -> ExitCode {
    match request(args) {
        Ok(bytes) => terminal::print(&bytes, 0),
        Err(message) => {
            terminal::complain(&io::Error::other(message));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// What is printed.
fn request(args: &SignArgs) -> Result<Vec<u8>, String> {
    let profile = keys::preset(&args.provider)?;
    let secret = args.secrets.read()?.swap_remove(0);
    let (scheme, authority, target) = outgoing::parts(&args.url)?;
    let now_ns = args.at.resolve(&Clock::System);
    let id = match &args.event_id {
        Some(id) => id.clone(),
        None => format!("evt_{now_ns}"),
    };
    let body = match (&args.body_file, &args.body) {
        (Some(path), _) => {
            std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?
        }
        (None, Some(text)) => text.clone().into_bytes(),
        (None, None) => sample(profile, (&id, &args.event_type), now_ns),
    };
    let input =
        SignInput { id: &id, now_ns, event_type: &args.event_type, target: &target, body: &body };
    let settings = args.secrets.settings(Some(format!("{scheme}://{authority}")))?;
    let signed = Signer::for_source(profile, secret, &settings)
        .and_then(|signer| signer.request(&input))
        .map_err(|error| error.to_string())?;
    let outgoing = Outgoing {
        authority: &authority,
        target: &signed.target,
        headers: &signed.headers,
        body: &signed.body,
    };
    if args.http {
        return Ok(outgoing.http());
    }
    // Some senders sign within the body, and then the file holds another one.
    let path = args.body_file.as_ref().filter(|_| signed.body == body);
    let path = path.map(|path| path.display().to_string());
    Ok((outgoing.curl(&scheme, path.as_deref())? + "\n").into_bytes())
}

/// A document with the event's id and type, and a signed time, where the preset looks for them.
fn sample(profile: &Profile, (id, event_type): (&str, &str), now_ns: u64) -> Vec<u8> {
    let mut document = Value::Object(Map::new());
    let identity = &profile.identity;
    for (rule, text) in [(&identity.event_id, id), (&identity.event_type, event_type)] {
        let rules = match rule {
            Some(RuleText::One(rule)) => std::slice::from_ref(rule),
            Some(RuleText::Joined(rules)) => rules,
            None => &[],
        };
        for rule in rules {
            let mut paths = rule.split('|').filter_map(|path| path.trim().strip_prefix("json:"));
            if let Some(path) = paths.next() {
                put(&mut document, path, text.into());
            }
        }
    }
    if let Some(time) = &profile.scheme.time
        && let Some(path) = time.from.strip_prefix("json:")
    {
        let text = time.unit.write(now_ns);
        put(&mut document, path, text.parse::<u64>().map_or(text.into(), Value::from));
    }
    document.to_string().into_bytes()
}

/// Puts a value at `a.b.c`; a path with an index in it is left alone.
fn put(document: &mut Value, path: &str, value: Value) {
    if path.contains('[') {
        return;
    }
    let mut place = document;
    for key in path.split('.') {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = &mut place[key];
    }
    *place = value;
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::captured::Captured;
    use crate::cli::{Cli, Verb};
    use crate::diagnose::{Case, Verdict, diagnose};
    use crate::verify::{Algorithm, KeyEncoding, SecretText, Settings};

    fn args(words: &[&str]) -> SignArgs {
        let words = ["forebay", "sign"].iter().chain(words);
        match Cli::try_parse_from(words).expect("arguments").verb {
            Verb::Sign(args) => args,
            _ => panic!("another verb"),
        }
    }

    const P256: &str = include_str!("../../tests/keys/p256.pem");
    const RSA: &str = include_str!("../../tests/keys/rsa.pem");
    const ED25519: &str = include_str!("../../tests/keys/ed25519.pem");

    /// What the sender signs with, and what the receiver verifies by.
    fn keys_of(profile: &Profile) -> (&'static str, String) {
        use crate::verify::Algorithm as A;
        let example = crate::verify::tests::example_secret(profile);
        match profile.scheme.algorithm {
            A::Ed25519 => (ED25519, ed25519_public(profile)),
            A::EcdsaP256Sha256 => (P256, example.to_owned()),
            A::RsaPkcs1Sha256 => (RSA, example.to_owned()),
            _ => (example, example.to_owned()),
        }
    }

    /// The public half of the test's key, as this sender publishes its own.
    fn ed25519_public(profile: &Profile) -> String {
        use base64::Engine as _;
        let pem = include_str!("../../tests/keys/ed25519-public.pem");
        let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = base64::prelude::BASE64_STANDARD.decode(base64).expect("PEM");
        let raw = der.last_chunk::<32>().expect("a key of 32 bytes");
        match profile.scheme.key_encoding {
            KeyEncoding::Hex => {
                raw.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
            }
            _ => base64::prelude::BASE64_STANDARD.encode(raw),
        }
    }

    #[test]
    fn what_is_signed_for_any_preset_verifies() {
        let folder = tempfile::tempdir().expect("a folder");
        let key_file = folder.path().join("key");
        for profile in crate::verify::presets() {
            let name = &profile.name;
            let (private, public) = keys_of(profile);
            std::fs::write(&key_file, private).expect("written");
            let key_file = key_file.to_str().expect("a path");
            let mut words = vec!["--http", "--provider", name, "--secret-file", key_file];
            words.extend(["--event-id", "evt_7", "--event-type", "a.b"]);
            words.extend(["--url", "https://h.example/p?q=1", "--param", "webhook_id=WH-1"]);
            words.extend(["--param", "topic_arn=T"]);
            if let Some(id) = crate::verify::tests::example_key_id(profile) {
                words.extend(["--key-id", id]);
            }
            // What stands in the body is signed there, so the body must be one of the sender's.
            let body = match name.as_str() {
                "aws-sns" => {
                    r#"{"Type":"Notification","MessageId":"evt_7","TopicArn":"T","Message":"m",
                        "Timestamp":"2026-01-01T00:00:00.000Z"}"#
                }
                "adyen" => {
                    r#"{"notificationItems":[{"NotificationRequestItem":{"pspReference":"evt_7",
                        "eventCode":"AUTHORISATION","success":"true","additionalData":{}}}]}"#
                }
                "mailgun" => {
                    r#"{"signature":{"timestamp":"1","token":"t"},"event-data":{"id":"evt_7"}}"#
                }
                _ => "",
            };
            let body_file = folder.path().join("body");
            if name == "vonage-sms" {
                // Everything stands in the query.
                words.extend(["--body", ""]);
            } else if !body.is_empty() {
                std::fs::write(&body_file, body).expect("written");
                words.extend(["--body-file", body_file.to_str().expect("a path")]);
            }
            let args = args(&words);
            let request = request(&args).unwrap_or_else(|error| panic!("{name}: {error}"));
            let captured = Captured::parse(&request).expect("raw HTTP");
            let unsafe_no_auth = profile.scheme.algorithm == Algorithm::None;
            let settings = args.secrets.settings(Some("https://h.example".to_owned()));
            let mut secrets = args.secrets.read().expect("a secret");
            secrets[0].value = SecretText::new(public);
            let case = Case {
                method: captured.method.clone(),
                target: captured.target.clone(),
                headers: captured.headers.clone(),
                body: captured.body.clone(),
                scheme: profile.scheme.clone(),
                secrets: if unsafe_no_auth { Vec::new() } else { secrets },
                validities: Vec::new(),
                settings: Settings { unsafe_no_auth, ..settings.expect("settings") },
                now_ns: Clock::System.wall_ns(),
            };
            let verdict = diagnose(&case, &[]);
            assert!(matches!(verdict, Verdict::Verified { .. }), "{name}: {verdict:?}");
            let printed = String::from_utf8_lossy(&request);
            let sends_it = matches!(profile.scheme.algorithm, Algorithm::Token);
            assert!(sends_it || !printed.contains(private), "{name}: {printed}");
        }
    }

    #[test]
    fn a_public_key_an_unknown_provider_and_no_secret_are_told_apart() {
        let told = |words: &[&str]| request(&args(words)).expect_err("refused");
        let key = "whpk_MCowBQYDK2VwAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let public = told(&["--provider", "standard-webhooks", "--secret", key]);
        assert!(public.contains("public key"), "{public}");
        assert!(told(&["--provider", "nobody", "--secret", "x"]).contains("forebay providers"));
        let near = told(&["--provider", "standard-webhook", "--secret", "x"]);
        assert!(near.contains("did you mean \"standard-webhooks\""), "{near}");
        assert!(told(&["--provider", "github"]).contains("--secret-env"));
        let url = told(&["--provider", "github", "--secret", "x", "--url", "/path"]);
        assert!(url.contains("is no URL"), "{url}");
    }
}
