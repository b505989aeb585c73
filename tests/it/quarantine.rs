//! What is refused is kept within bounds, and comes into its lane once when its secret is mended.

use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use crate::support::http::Request;
use crate::support::server::{Server, Setup, forebay, source};
use crate::support::{Driver, eventually, sign};

for_each_driver![
    a_mended_secret_releases_what_was_refused_once,
    a_release_without_a_server_is_as_good,
    a_release_that_is_killed_in_its_midst_is_finished_and_stores_nothing_twice,
    a_flood_of_forgeries_fills_its_share_and_nothing_else,
    what_a_head_alone_refuses_is_kept_if_its_body_has_arrived,
    no_secret_and_no_credential_is_kept_in_any_file,
    a_path_token_is_not_kept_and_does_not_hinder_a_release,
    a_quarantine_that_is_off_or_cannot_open_hinders_nobody,
];

const WAIT: Duration = Duration::from_secs(20);

/// The right configuration but for the secret of `/std`.
fn wrong(driver: Driver) -> Setup {
    Setup::new(driver).secrets(&[("first", sign::STANDARD_SECRET_NEXT)])
}

fn quarantine(server: &Server, verb: &str, arguments: &[&str]) -> Output {
    let mut command = forebay(&["quarantine", verb, "--config"]);
    command.arg(server.config()).args(arguments).output().unwrap()
}

/// The rows that a verb prints as JSON, whatever it exits with.
fn rows(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    let row = |line| {
        serde_json::from_str(line).unwrap_or_else(|error| {
            panic!("{error}: {line} {}", String::from_utf8_lossy(&output.stderr))
        })
    };
    text.lines().map(row).collect()
}

fn listed(server: &Server) -> Vec<Value> {
    rows(&quarantine(server, "list", &["--json"]))
}

/// The outcomes of a release of all, in order.
fn release(server: &Server) -> Vec<String> {
    let output = quarantine(server, "release", &["--all", "--json"]);
    let outcome = |row: &Value| row["outcome"].as_str().unwrap_or_default().to_owned();
    let outcomes: Vec<_> = rows(&output).iter().map(outcome).collect();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code().is_some_and(|code| code < 2), "{told}");
    outcomes
}

fn ids(server: &Server) -> Vec<String> {
    let mut ids: Vec<_> = server.events().iter().map(|row| row.id().to_owned()).collect();
    ids.sort();
    ids
}

fn forge(server: &Server, ids: std::ops::Range<usize>) {
    for id in ids {
        let request = sign::standard(&format!("msg_{id:04}"), br#"{"type":"a.b"}"#);
        assert_eq!(server.send(&request).status, 401);
    }
}

fn mend(server: &Server, driver: Driver) {
    server.write_config(&Setup::new(driver));
    server.reload();
    eventually("the mended secret is taken", WAIT, || {
        server.admin("/metrics").text().contains("forebay_config_reloads_total{outcome=\"ok\"} 1")
    });
}

fn a_mended_secret_releases_what_was_refused_once(driver: Driver) {
    let server = Server::start(wrong(driver));
    forge(&server, 0..3);
    let held = listed(&server);
    assert_eq!(held.len(), 3, "{held:?}");
    assert_eq!(held[0]["reason"], "signature_wrong");
    assert_eq!(held[0]["source"], "std");
    let judged = quarantine(&server, "verify", &["--json"]);
    assert_eq!(judged.status.code(), Some(1), "not yet");
    assert!(rows(&judged).iter().all(|row| row["verified"] == false));
    assert_eq!(release(&server), ["refused"; 3]);
    assert_eq!(server.events().len(), 0);

    mend(&server, driver);
    let judged = quarantine(&server, "verify", &["--json"]);
    assert_eq!(judged.status.code(), Some(0));
    assert!(rows(&judged).iter().all(|row| row["secret"] == "first"));
    let dry = quarantine(&server, "release", &["--all", "--dry-run"]);
    assert!(String::from_utf8_lossy(&dry.stdout).contains("nothing was released"));
    assert_eq!(server.events().len(), 0, "a dry run releases nothing");
    // The sender came again with one of them, by itself.
    assert_eq!(server.send(&sign::standard("msg_0001", br#"{"type":"a.b"}"#)).status, 200);
    let one = held[2]["position"].as_str().unwrap();
    let chosen = quarantine(&server, "release", &["--json", one]);
    assert_eq!(rows(&chosen)[0]["outcome"], "stored");
    assert_eq!(ids(&server), ["msg_0001", "msg_0002"]);
    assert_eq!(release(&server), ["stored", "known", "known"]);
    assert_eq!(release(&server), ["known"; 3], "again does nothing");
    assert_eq!(ids(&server), ["msg_0000", "msg_0001", "msg_0002"]);
    let all = server.rows();
    assert_eq!(all.len(), 3, "no deliveries are noted for what comes out of quarantine: {all:?}");
    let tailed = server.tail(&["--json", "--from", "earliest"]);
    let from_quarantine: Vec<_> =
        rows(&tailed).into_iter().filter(|row| row["quarantine_position"].is_string()).collect();
    assert_eq!(from_quarantine.len(), 2);
    assert_eq!(from_quarantine[0]["first_received_at"], held[2]["received_at"]);
    assert_eq!(release_of_nothing(&server), Some(2));
}

/// A release that does not say of what is a mistake.
fn release_of_nothing(server: &Server) -> Option<i32> {
    quarantine(server, "release", &[]).status.code()
}

fn a_release_without_a_server_is_as_good(driver: Driver) {
    let mut server = Server::start(wrong(driver).ack("synced"));
    forge(&server, 0..5);
    assert!(server.end().success());
    server.write_config(&Setup::new(driver).ack("synced"));
    assert_eq!(release(&server), ["stored"; 5]);
    assert_eq!(release(&server), ["known"; 5]);
    assert_eq!(ids(&server).len(), 5);
    server.run();
    assert_eq!(release(&server), ["known"; 5], "a server knows what was released without one");
    let again = sign::standard("msg_0002", br#"{"type":"a.b"}"#);
    assert_eq!(server.send(&again).status, 200, "and so does the line");
    assert_eq!(ids(&server).len(), 5);
}

fn a_release_that_is_killed_in_its_midst_is_finished_and_stores_nothing_twice(driver: Driver) {
    const COUNT: usize = 150;
    let mut server = Server::start(wrong(driver).ack("synced"));
    forge(&server, 0..COUNT);
    server.kill();
    server.write_config(&Setup::new(driver).ack("synced"));
    server.run();
    let mut command = forebay(&["quarantine", "release", "--all", "--json", "--config"]);
    let mut ordered =
        command.arg(server.config()).stdout(std::process::Stdio::null()).spawn().unwrap();
    eventually("the release has begun", WAIT, || !server.events().is_empty());
    server.kill();
    let stored = server.events().len();
    // Whoever ordered may be killed too: the order stays.
    ordered.kill().unwrap();
    ordered.wait().unwrap();
    server.run();
    eventually("the server carries the order out", WAIT, || ids(&server).len() == COUNT);
    let outcomes = release(&server);
    assert_eq!(outcomes, ["known"; COUNT]);
    let mut ids = ids(&server);
    ids.dedup();
    assert_eq!(ids.len(), COUNT, "{stored} were stored before the kill");
}

/// A number of the metrics page.
fn metric(server: &Server, series: &str) -> u64 {
    let page = server.admin("/metrics");
    let line = page.text().lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {}", page.text())).parse().unwrap()
}

fn a_flood_of_forgeries_fills_its_share_and_nothing_else(driver: Driver) {
    const SENT: u64 = 600;
    const SIZE: u64 = 1 << 20;
    let other = source("other", "standard-webhooks", &[("a", sign::STANDARD_SECRET_NEXT)]);
    let bounds = "[quarantine]\nsize = \"1MiB\"\n";
    let server = Server::start(Setup::new(driver).more(&other).more(bounds));
    let body = format!("{{\"pad\":\"{}\"}}", "x".repeat(1500));
    let mut good = sign::standard("msg_good", body.as_bytes());
    good.body[8] = b'y';
    for _ in 0..SENT {
        assert_eq!(server.send(&good).status, 401);
    }
    let fate = |source: &str, fate: &str| {
        let labels = format!("{{source=\"{source}\",fate=\"{fate}\"}}");
        metric(&server, &format!("forebay_quarantine_requests_total{labels}"))
    };
    let kept = fate("std", "kept");
    assert_eq!(kept + fate("std", "over_share"), SENT, "every one is counted");
    // Four sources share one half, and one peer has a quarter of its source's share.
    let bytes = kept * body.len() as u64;
    assert!(bytes > 0 && bytes <= SIZE / 2 / 4 / 4, "{bytes} bytes are kept");
    assert_eq!(listed(&server).len() as u64, kept);
    assert!(metric(&server, "forebay_quarantine_log_bytes{lane=\"quarantine\"}") <= SIZE);
    // Another source is as before, and so is the line.
    let request = sign::standard("msg_other", b"{}").to("/other");
    assert_eq!(server.send(&request).status, 401);
    assert_eq!(fate("other", "kept"), 1);
    assert_eq!(server.send(&sign::standard("msg_1", b"{}")).status, 200);
    let refused = "forebay_source_refused_total{source=\"std\",fault=\"verification\"}";
    assert_eq!(metric(&server, refused), SENT);
    assert_eq!(metric(&server, "forebay_source_requests_total{source=\"std\"}"), SENT + 1);
    let untouched = "forebay_source_refused_total{source=\"github\",fault=\"verification\"}";
    assert_eq!(metric(&server, untouched), 0, "an alarm needs a series that begins at zero");
}

fn what_a_head_alone_refuses_is_kept_if_its_body_has_arrived(driver: Driver) {
    let server = Server::start(Setup::new(driver));
    let good = || sign::standard("msg_1", br#"{"type":"a.b"}"#);
    let stale =
        sign::standard_at("msg_2", b"{}", sign::now_seconds() - 3600, sign::STANDARD_SECRET);
    for (request, status) in [
        (good().without("webhook-signature"), 401),
        (good().without("webhook-timestamp").header("webhook-timestamp", "soon"), 400),
        (stale, 400),
        (good().header("webhook-id", "msg_3"), 400),
    ] {
        assert_eq!(server.send(&request).status, status);
    }
    let held = listed(&server);
    let reasons: Vec<_> = held.iter().map(|row| row["reason"].as_str().unwrap()).collect();
    let expected = ["signature_missing", "timestamp_malformed", "stale", "signature_doubled"];
    assert_eq!(reasons, expected);
    let position = held[0]["position"].as_str().unwrap();
    let shown = rows(&quarantine(&server, "show", &["--json", position]));
    assert_eq!(shown[0]["body"], r#"{"type":"a.b"}"#);
    let why = quarantine(&server, "verify", &["--why", position]);
    assert!(String::from_utf8_lossy(&why.stdout).contains("`webhook-signature` is not there"));
    // What is the sender's mistake and no matter of secrets is not kept.
    assert_eq!(server.send(&good().without("content-type")).status, 415);
    assert_eq!(server.send(&Request::get("/std")).status, 405);
    assert_eq!(server.send(&good().to("/nowhere")).status, 404);
    assert_eq!(listed(&server).len(), 4);
    // A body that does not come with its head is not waited for.
    let mut late = server.connect();
    let request = good().without("webhook-signature").header("content-length", "14");
    late.write(&request.head_bytes()).unwrap();
    assert_eq!(late.read().unwrap().status, 401);
    assert_eq!(listed(&server).len(), 4);
}

fn no_secret_and_no_credential_is_kept_in_any_file(driver: Driver) {
    const CANARY: &str = "canary-credential-4714";
    let mut server = Server::start(wrong(driver));
    let mut request = sign::standard("msg_1", b"{}")
        .header("authorization", format!("Bearer {CANARY}"))
        .header("cookie", format!("session={CANARY}"))
        .header("x-api-key", CANARY)
        .header("x-gitlab-token", CANARY);
    request.target = format!("/std?a=b&token={CANARY}&auth_key={CANARY}");
    assert_eq!(server.send(&request).status, 401);
    // In the header of a token, but none that is bound to a body.
    let bearer = Request::post("/livekit")
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {CANARY}"))
        .body(b"{}");
    assert_eq!(server.send(&bearer).status, 401);
    let claims = "eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyIjoiY2FuYXJ5In0.Y2FuYXJ5LWNyZWRlbnRpYWw";
    let other_token = bearer.clone().without("authorization").header("authorization", claims);
    assert_eq!(server.send(&other_token).status, 401);
    let bound = sign::livekit(b"{}", sign::Token::None);
    assert_eq!(server.send(&bound).status, 401);
    let held = rows(&quarantine(&server, "show", &["--json"]));
    assert_eq!(held.len(), 4, "{held:?}");
    assert_eq!(held[0]["digested_headers"].as_array().unwrap().len(), 4);
    assert!(held[0]["target"].as_str().unwrap().starts_with("/std?a=b&token=digest:"));
    assert_eq!(held[3]["digested_headers"].as_array().unwrap().len(), 0, "bound to its body");
    let page = server.admin("/metrics").text().to_owned();
    assert!(server.end().success());
    let mut texts = vec![
        ("metrics".to_owned(), page.into_bytes()),
        ("log".to_owned(), server.log().into_bytes()),
    ];
    files(&server.data(), &mut texts);
    assert!(texts.iter().any(|(name, _)| name.contains("quarantine/log")), "it is looked at");
    let secrets = [sign::STANDARD_SECRET, sign::STANDARD_SECRET_NEXT, sign::GITHUB_SECRET];
    let canaries = [CANARY, claims, "Y2FuYXJ5LWNyZWRlbnRpYWw", sign::LIVEKIT_SECRET];
    let mut seen_marker = false;
    for (name, bytes) in &texts {
        for canary in secrets.iter().chain(&canaries) {
            let found = bytes.windows(canary.len()).any(|window| window == canary.as_bytes());
            assert!(!found, "{canary} stands in {name}");
        }
        seen_marker |= bytes.windows(5).any(|window| window == b"msg_1");
    }
    assert!(seen_marker, "what is not a credential would have been found");
}

fn a_path_token_is_not_kept_and_does_not_hinder_a_release(driver: Driver) {
    const TOKEN: &str = "canary-path-token-4715-0123456789";
    let hidden = |secret| {
        let text = source("hidden", "standard-webhooks", &[("a", secret)]);
        let text = text.replace("\"/hidden\"", "\"/in/{token}\"");
        format!("{text}path_token = {{ value = \"{TOKEN}\" }}\n")
    };
    let mut server = Server::start(Setup::new(driver).more(&hidden(sign::STANDARD_SECRET_NEXT)));
    let request = sign::standard("msg_1", b"{}").to(&format!("/in/{TOKEN}?a=b"));
    assert_eq!(server.send(&request).status, 401);
    assert_eq!(listed(&server)[0]["target"], "/in/{token}?a=b");
    assert!(server.end().success());
    let mut texts = Vec::new();
    files(&server.data(), &mut texts);
    for (name, bytes) in texts {
        let found = bytes.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes());
        assert!(!found, "the token stands in {name}");
    }
    server.write_config(&Setup::new(driver).more(&hidden(sign::STANDARD_SECRET)));
    assert_eq!(quarantine(&server, "verify", &[]).status.code(), Some(0));
    assert_eq!(release(&server), ["stored"]);
    server.run();
    assert_eq!(release(&server), ["known"]);
    assert_eq!(server.send(&request).status, 200);
    assert_eq!(ids(&server), ["msg_1"]);
}

/// Every file below a folder.
fn files(folder: &std::path::Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
}

fn a_quarantine_that_is_off_or_cannot_open_hinders_nobody(driver: Driver) {
    let server = Server::start(wrong(driver).more("[quarantine]\nsize = \"0\"\n"));
    forge(&server, 0..1);
    assert_eq!(listed(&server), Vec::<Value>::new());
    drop(server);
    let mut server = Server::prepare(wrong(driver));
    std::fs::create_dir_all(server.data()).unwrap();
    std::fs::write(server.data().join("quarantine"), "in the way").unwrap();
    server.run();
    forge(&server, 0..1);
    assert!(server.log().contains("refused requests are not kept"), "{}", server.log());
    assert_eq!(server.send(&sign::livekit(b"{}", sign::Token::Signed)).status, 200);
}

#[test]
fn what_is_not_there_or_cannot_be_looked_at_is_no_empty_quarantine() {
    let server = Server::prepare(Setup::new(Driver::Epoll));
    let told = |verb, arguments: &[&str]| {
        let output = quarantine(&server, verb, arguments);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(told("list", &[]), (Some(0), String::new()), "no server has run yet");
    for verb in ["list", "show", "verify"] {
        let (code, why) = told(verb, &["1-4096", "1-8192"]);
        assert!(code == Some(2) && why.contains("1-4096, 1-8192"), "{verb}: {why}");
    }
    assert_eq!(told("release", &["--dry-run", "1-4096"]).0, Some(2));
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut verify = forebay(&["quarantine", "verify", "--config"]);
    let unwritten = verify.arg(server.config()).stdout(full).status().unwrap();
    assert_eq!(unwritten.code(), Some(1), "a disk that is full is not asked again");
    // Where a file stands nobody finds a folder, root included.
    std::fs::create_dir_all(server.data()).unwrap();
    std::fs::write(server.data().join("quarantine"), "").unwrap();
    for arguments in [&["list"][..], &["show", "1-4096"], &["verify"], &["release", "--all"]] {
        let (code, why) = told(arguments[0], &arguments[1..]);
        assert!(code == Some(75) && why.contains("Not a directory"), "{arguments:?}: {why}");
    }
}
