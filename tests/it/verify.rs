//! `forebay sign` and `forebay verify`, as an operator uses them: in pipes, against a server, and
//! with the secret out of sight.

use std::io::Write as _;
use std::process::{Output, Stdio};

use crate::support::server::{Server, Setup, forebay, source};
use crate::support::{Driver, sign};

for_each_driver![what_sign_prints_is_accepted_once_by_a_server];

/// Runs the binary with this on its standard input.
fn with_input(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = forebay(arguments);
    command.env("GIVEN_SECRET", sign::STANDARD_SECRET);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that does not like its arguments ends before it reads.
    drop(child.stdin.take().unwrap().write_all(input));
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const SIGN: [&str; 5] = ["sign", "--provider", "standard-webhooks", "--secret-env", "GIVEN_SECRET"];
const VERIFY: [&str; 5] =
    ["verify", "--provider", "standard-webhooks", "--secret-env", "GIVEN_SECRET"];

fn what_sign_prints_is_accepted_once_by_a_server(driver: Driver) {
    let server = Server::start(Setup::new(driver));
    let url = format!("http://{}/std", server.address());
    let signed =
        with_input(&[&SIGN[..], &["--http", "--url", &url, "--event-id", "msg_1"]].concat(), b"");
    assert!(signed.status.success(), "{}", text(&signed.stderr));
    for _ in 0..2 {
        let mut connection = server.connect();
        connection.write(&signed.stdout).unwrap();
        assert_eq!(connection.read().unwrap().status, 200);
    }
    assert_eq!(server.events().len(), 1);
    let script = with_input(&[&SIGN[..], &["--url", &url, "--event-id", "msg_2"]].concat(), b"");
    match std::process::Command::new("sh").arg("-c").arg(text(&script.stdout)).output() {
        Ok(sent) if sent.status.success() => {
            assert!(text(&sent.stdout).contains("200 OK"), "{}", text(&sent.stdout));
            assert_eq!(server.events().len(), 2);
        }
        _ => eprintln!("SKIPPED: curl is not installed; tests/run installs it"),
    }
}

#[test]
fn a_pipe_says_what_changed_the_request_and_exits_by_it() {
    let signed = with_input(&[&SIGN[..], &["--http", "--body", r#"{"type":"a.b"}"#]].concat(), b"");
    let verified = with_input(&VERIFY, &signed.stdout);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified.stdout));
    assert!(text(&verified.stdout).starts_with("verified with `GIVEN_SECRET`"));
    let spaced = text(&signed.stdout)
        .replace(r#"{"type":"a.b"}"#, r#"{"type": "a.b"}"#)
        .replace("content-length: 14", "content-length: 15");
    let refused = with_input(&[&VERIFY[..], &["--json"]].concat(), spaced.as_bytes());
    assert_eq!(refused.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!((&json["verified"], &json["reason"]), (&false.into(), &"signature_wrong".into()));
    assert_eq!(json["causes"][0]["code"], "json_rewritten");
    assert_eq!(json["causes"][0]["layer"], "body");
    let later =
        with_input(&[&VERIFY[..], &["--at", "2100-01-01T00:00:00Z"]].concat(), &signed.stdout);
    assert_eq!(later.status.code(), Some(1));
    assert!(text(&later.stdout).contains("(clock_stale)"), "{}", text(&later.stdout));
    for output in [&verified, &refused, &later] {
        let shown = text(&output.stdout) + &text(&output.stderr);
        assert!(!shown.contains(sign::STANDARD_SECRET), "{shown}");
    }
}

#[test]
fn a_request_in_parts_and_a_configured_source_are_judged_alike() {
    let folder = tempfile::tempdir().unwrap();
    let body = folder.path().join("body");
    std::fs::write(&body, b"{}").unwrap();
    let request = sign::standard("msg_1", b"{}");
    let headers: Vec<String> = ["webhook-id", "webhook-timestamp", "webhook-signature"]
        .iter()
        .map(|name| format!("{name}: {}", String::from_utf8_lossy(request.value(name))))
        .collect();
    let mut parts = vec!["--body-file", body.to_str().unwrap()];
    parts.extend(headers.iter().flat_map(|header| ["--header", header]));
    assert_eq!(with_input(&[&VERIFY[..], &parts].concat(), b"").status.code(), Some(0));

    let other = source("eu", "standard-webhooks", &[("next", sign::STANDARD_SECRET_NEXT)]);
    let server = Server::prepare(Setup::new(Driver::Epoll).more(&other));
    let config = server.config();
    let config = ["verify", "--config", config.to_str().unwrap(), "--source"];
    let judged = |source: &str| with_input(&[&config[..], &[source], &parts].concat(), b"");
    assert_eq!(judged("std").status.code(), Some(0));
    let refused = judged("eu");
    assert_eq!(refused.status.code(), Some(1));
    let told = text(&refused.stdout);
    assert!(told.contains("the secret `first` of the source `std`"), "{told}");
    assert_eq!(judged("nobody").status.code(), Some(2));
    std::fs::write(server.config(), "data_dir =").unwrap();
    assert_eq!(judged("std").status.code(), Some(78));
}

#[test]
fn a_key_that_begins_with_hyphens_is_no_flag_and_is_not_shown() {
    let key = include_str!("../keys/rsa.pem");
    let signed = with_input(&["sign", "--provider", "kick", "--http", "--secret", key], b"");
    assert_eq!(signed.status.code(), Some(0), "{}", text(&signed.stderr));
    let shown = text(&signed.stdout) + &text(&signed.stderr);
    assert!(shown.contains("kick-event-signature") && !shown.contains("PRIVATE"), "{shown}");
}

#[test]
fn wrong_usage_is_told_from_a_refusal() {
    for (arguments, input) in [
        (&["verify"][..], ""),
        (&["verify", "--provider", "standard-webhooks"], "POST / HTTP/1.1\r\n\r\n"),
        (&["verify", "--provider", "nobody", "--secret", "x"], "POST / HTTP/1.1\r\n\r\n"),
        (&VERIFY, "this is no request"),
        // What would be left aside without a word.
        (&[&VERIFY[..], &["--config", "forebay.toml"]].concat(), "POST / HTTP/1.1\r\n\r\n"),
        (&["verify", "--source", "std", "--secret", "x"], "POST / HTTP/1.1\r\n\r\n"),
        (&["verify", "--source", "std", "--key-id", "x"], "POST / HTTP/1.1\r\n\r\n"),
        (&["sign", "--provider", "github"], ""),
        (&["sign", "--provider", "github", "--secret-file", "/nowhere"], ""),
    ] {
        let output = with_input(arguments, input.as_bytes());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}
