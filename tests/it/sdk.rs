//! Official SDKs as senders: each event accepted once, each altered request refused.
//!
//! Needs node and the packages of `tests/sdk`, so it is ignored unless asked for: `tests/run sdk`
//! installs both and runs it.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::support::Driver;
use crate::support::server::{Server, Setup, source};

const STRIPE_SECRET: &str = "whsec_stripe-test-secret-0123456789";

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

    let more = source("stripe", "stripe", &[("only", STRIPE_SECRET)])
        + &source("standard-webhooks", "standard-webhooks", &[("only", STANDARD_SECRET)]);
    let server = Server::start(Setup::new(driver).more(&more));
    let told = serde_json::json!({
        "base": format!("http://{}", server.address()),
        "secrets": {
            "livekit": LIVEKIT_SECRET,
            "stripe": STRIPE_SECRET,
            "github": GITHUB_SECRET,
            "standard-webhooks": STANDARD_SECRET,
        },
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/send.mjs");
    let output = Command::new("node").arg(script).arg(told.to_string()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let sent: Vec<Sent> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(sent.len(), 4, "one report for each SDK");

    // For each SDK its event and one later delivery.
    let rows = server.rows_of(2 * sent.len());
    for sender in &sent {
        let name = &sender.name;
        assert_eq!((sender.first, sender.again), (200, 200), "{name}");
        for Altered { what, status } in &sender.altered {
            assert!((400..500).contains(status), "{name}, {what}: {status}");
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
