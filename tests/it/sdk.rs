//! Official SDKs as senders: each event accepted once, each altered request refused.
//!
//! Needs node and the packages of `tests/sdk`, so it is ignored unless asked for: `tests/run sdk`
//! installs both and runs it.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use forebay::verify::preset;
use serde::Deserialize;

use crate::support::Driver;
use crate::support::server::{Server, Setup, source};

const STRIPE_SECRET: &str = "whsec_stripe-test-secret-0123456789";
/// Of senders that take any text.
const TEXT_SECRET: &str = "a-secret-of-thirty-two-characters";
/// Where the senders of forms were told to call.
const PUBLIC_URL: &str = "https://hooks.example.com";
const ED25519_KEY: &str = include_str!("../keys/ed25519.pem");
const P256_KEY: &str = include_str!("../keys/p256.pem");

/// The 32 bytes of an ed25519 public key, which end its PEM.
fn raw_hex(pem: &str) -> String {
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = BASE64.decode(base64).unwrap();
    let mut hex = String::new();
    for byte in &der[der.len() - 32..] {
        write!(hex, "{byte:02x}").unwrap();
    }
    hex
}

/// What `tests/sdk/send.mjs` reports of one SDK.
#[derive(Debug, Deserialize)]
struct Sent {
    name: String,
    event_id: String,
    body: String,
    first: u16,
    again: u16,
    altered: Vec<Altered>,
}

#[derive(Debug, Deserialize)]
struct Altered {
    what: String,
    status: u16,
}

#[test]
#[ignore = "needs node and its packages: run by tests/run sdk"]
fn official_senders_are_accepted_once_with_epoll() {
    official_senders_are_accepted_once(Driver::Epoll);
}

#[test]
#[ignore = "needs node and its packages: run by tests/run sdk"]
fn official_senders_are_accepted_once_with_io_uring() {
    if Driver::IoUring.usable() {
        official_senders_are_accepted_once(Driver::IoUring);
    }
}

fn official_senders_are_accepted_once(driver: Driver) {
    use crate::support::sign::{GITHUB_SECRET, LIVEKIT_SECRET, STANDARD_SECRET};

    let ed25519 = raw_hex(include_str!("../keys/ed25519-public.pem"));
    let p256 = include_str!("../keys/p256-public.pem").trim_end().replace('\n', "\\n");
    // What the server knows of each sender, and what the sender signs with.
    let secrets = [
        ("stripe", STRIPE_SECRET, STRIPE_SECRET),
        ("standard-webhooks", STANDARD_SECRET, STANDARD_SECRET),
        ("svix", STANDARD_SECRET, STANDARD_SECRET),
        ("mux", TEXT_SECRET, TEXT_SECRET),
        ("slack", TEXT_SECRET, TEXT_SECRET),
        ("getstream", TEXT_SECRET, TEXT_SECRET),
        ("discord", &ed25519, ED25519_KEY),
        ("sendgrid", &p256, P256_KEY),
        ("twilio", TEXT_SECRET, TEXT_SECRET),
        ("plivo", TEXT_SECRET, TEXT_SECRET),
        ("vonage", TEXT_SECRET, TEXT_SECRET),
        ("messagebird", TEXT_SECRET, TEXT_SECRET),
    ];
    let mut more = String::new();
    let mut told = serde_json::json!({ "livekit": LIVEKIT_SECRET, "github": GITHUB_SECRET });
    for (name, known, signing) in secrets {
        more += &source(name, name, &[("only", known)]);
        if ["twilio", "plivo", "messagebird"].contains(&name) {
            writeln!(more, "public_url = \"{PUBLIC_URL}\"").unwrap();
        }
        told[name] = signing.into();
    }
    let server = Server::start(Setup::new(driver).more(&more));
    let told =
        serde_json::json!({ "base": format!("http://{}", server.address()), "secrets": told });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/send.mjs");
    let output = Command::new("node").arg(script).arg(told.to_string()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let sent: Vec<Sent> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(sent.len(), secrets.len() + 2, "one report for each SDK");

    // For each SDK its event and one later delivery.
    let rows = server.rows_of(2 * sent.len());
    for sender in &sent {
        let name = &sender.name;
        let answers = &preset(name).unwrap().answers;
        let success = answers.success_status.as_u16();
        assert_eq!((sender.first, sender.again), (success, success), "{name}");
        for Altered { what, status } in &sender.altered {
            // Of some an unsigned request may be a fault of their own, to be sent again.
            let unsigned = what == "signature missing" && *status == answers.unsigned_status();
            assert!((400..500).contains(status) || unsigned, "{name}, {what}: {status}");
        }
        let own: Vec<_> =
            rows.iter().filter(|row| row.source.as_deref() == Some(name.as_str())).collect();
        let kinds: Vec<&str> = own.iter().map(|row| row.kind.as_str()).collect();
        assert_eq!(kinds, ["event", "delivery"], "{name}");
        assert_eq!(own[0].id(), sender.event_id, "{name}");
        assert_eq!(own[0].body(), sender.body.as_bytes(), "{name}");
        assert!(own[0].event_type.is_some(), "{name}: the type of its event is known");
    }
}
