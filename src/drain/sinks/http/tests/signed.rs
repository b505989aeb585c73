//! What is signed, judged by others: OpenSSL and the official SDK.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use super::*;

/// The example of the specification's page: id, time, body and secret give this signature.
#[tokio::test]
async fn requests_are_signed_by_each_secret_as_the_specification_says() {
    let server = Server::start(|_| reply(200)).await;
    let settings =
        Settings { secrets: vec![secret(SECRET), secret(SECRET_NEW)], ..server.settings() };
    let sink = Http::with_clock(&settings, Clock::fixed(RECEIVED_NS)).expect("a sink");
    assert_eq!(one(&sink, &Written::new().event(1, "{\"test\": 2432232314}")).await, Ok(()));
    let seen = &server.seen()[0];
    assert_eq!(header(seen, "webhook-id"), header(seen, "idempotency-key"));
    assert_eq!(header(seen, "webhook-timestamp"), (RECEIVED_NS / 1_000_000_000).to_string());
    let signed = format!(
        "{}.{}.{{\"test\": 2432232314}}",
        header(seen, "webhook-id"),
        header(seen, "webhook-timestamp")
    );
    // By OpenSSL, which shares no code with the sink.
    let expected: Vec<String> = [SECRET, SECRET_NEW]
        .iter()
        .map(|secret| format!("v1,{}", openssl_mac(secret, &signed)))
        .collect();
    assert_eq!(header(seen, "webhook-signature"), expected.join(" "));
}

fn openssl_mac(secret: &str, text: &str) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let key = STANDARD.decode(secret.trim_start_matches("whsec_")).expect("is base64");
    let hex = key.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("written");
        hex
    });
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("text");
    std::fs::write(&path, text).expect("written");
    let output = Command::new("openssl")
        .args(["dgst", "-sha256", "-mac", "HMAC", "-binary", "-macopt", &format!("hexkey:{hex}")])
        .arg(path)
        .output()
        .expect("openssl is there");
    STANDARD.encode(output.stdout)
}

/// The official SDK takes what the sink sends, by either secret, and nothing that was altered.
#[tokio::test]
#[ignore = "needs node and its packages: run by tests/run sdk"]
async fn sdk_of_standard_webhooks_judges_the_sink() {
    let server = Server::start(|_| reply(200)).await;
    let settings =
        Settings { secrets: vec![secret(SECRET), secret(SECRET_NEW)], ..server.settings() };
    let mut log = Written::new();
    let bodies =
        ["{\"type\":\"a\",\"data\":{\"n\":1}}", "{\"text\":\"\u{e9}\u{1f600} \\\" \\n\"}", "[]"];
    for (number, body) in (0_u8..).zip(bodies) {
        assert_eq!(one(&sink(&settings), &log.event(number, body)).await, Ok(()));
    }
    let batch = Settings { batch: Batch::Json, ..settings };
    let events = [log.event(8, "{}"), log.event(9, "[1]")];
    assert_eq!(each(&sink(&batch), &events).await, [None, None]);
    let requests: Vec<Value> = server
        .seen()
        .iter()
        .map(|seen| {
            let headers: serde_json::Map<String, Value> =
                ["webhook-id", "webhook-timestamp", "webhook-signature"]
                    .iter()
                    .map(|name| ((*name).to_owned(), header(seen, name).into()))
                    .collect();
            json!({ "headers": headers, "body": String::from_utf8_lossy(&seen.body) })
        })
        .collect();
    let input = json!({ "secrets": [SECRET, SECRET_NEW], "requests": requests });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/judge_sink.mjs");
    let output = Command::new("node").arg(script).arg(input.to_string()).output().expect("node");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(told.trim(), "4 requests, 8 accepted, 16 altered and refused");
}
