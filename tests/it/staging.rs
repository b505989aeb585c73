//! `forebay replay --to-url`: events of one forebay go to a second one, which knows other secrets,
//! and verify there; production is refused.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::log::Row;
use crate::support::server::{Server, Setup, forebay, source};
use crate::support::{Driver, sign};

const VARIABLE: &str = "STAGING_SECRET";
const COUNT: usize = 20;

/// Events of GitHub, LiveKit and Standard Webhooks, the last signed four minutes ago.
fn production() -> Server {
    let live = source("live", "github", &[("only", sign::GITHUB_SECRET)])
        .replace("environment = \"test\"", "environment = \"production\"\nlane = \"live\"");
    let main = "[[lane]]\nname = \"live\"\ndedupe_capacity = 200000\nsegment_size = \"4MiB\"\n";
    let sink = "[[sink]]\nname = \"out\"\n[sink.http]\nurl = \"http://127.9.9.9:7001/in\"\n\
                allow_private = true\n";
    let setup = Setup::new(Driver::Epoll).more(&format!("{live}\n{main}{sink}"));
    let mut server = Server::prepare(setup);
    // With two lanes every source says which is its own.
    let text = server.config_text();
    let text = text.replace("environment = \"test\"", "environment = \"test\"\nlane = \"main\"");
    server.write_config_text(&text);
    server.run();
    for index in 0..COUNT {
        let (id, body) = (format!("evt_{index}"), format!("{{\"action\":\"a\",\"n\":{index}}}"));
        assert_eq!(server.send(&sign::github(&id, body.as_bytes())).status, 200);
        let before = sign::now_seconds() - 240;
        let standard = sign::standard_at(&id, body.as_bytes(), before, sign::STANDARD_SECRET);
        assert_eq!(server.send(&standard).status, 200);
        let body = format!("{{\"id\":\"{id}\",\"event\":\"room_started\"}}");
        assert_eq!(server.send(&sign::livekit(body.as_bytes(), sign::Token::Signed)).status, 200);
    }
    assert_eq!(server.send(&sign::github("evt_live", b"{}").to("/live")).status, 200);
    server
}

fn replay(from: &Server, url: &str, secret: &str, words: &[&str]) -> Output {
    let mut command: Command = forebay(&["replay", "--to-url", url, "--config"]);
    command.arg(from.config()).args(words).env(VARIABLE, secret).output().unwrap()
}

fn url(target: &Server, path: &str) -> String {
    format!("http://{}{path}", target.address())
}

fn ids(server: &Server, source: &str) -> BTreeSet<String> {
    let events = server.events();
    let of = events.iter().filter(|row| row.source.as_deref() == Some(source));
    of.map(|row| row.id().to_owned()).collect()
}

/// Empty if the request had no such header, or more than one.
fn header<'r>(row: &'r Row, name: &str) -> &'r str {
    let headers = row.headers.as_array().unwrap().iter();
    let mut values = headers.filter(|header| header[0] == name).map(|header| &header[1]);
    match (values.next(), values.next()) {
        (Some(value), None) => value.as_str().unwrap(),
        _ => "",
    }
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_is_replayed_verifies_at_a_receiver_with_other_secrets_and_is_marked() {
    let from = production();
    let target =
        Server::start(
            Setup::new(Driver::Epoll)
                .secrets(&[("next", sign::STANDARD_SECRET_NEXT)])
                .more(&source("hub", "github", &[("other", "another-github-secret-of-staging")])),
        );
    let args = ["--allow-private", "--secret-env", VARIABLE, "--rate", "1000", "--json"];
    for (name, path, secret, more) in [
        ("std", "/std", sign::STANDARD_SECRET_NEXT, &[][..]),
        ("github", "/hub", "another-github-secret-of-staging", &[]),
        ("livekit", "/livekit", sign::LIVEKIT_SECRET, &["--key-id", sign::LIVEKIT_KEY]),
    ] {
        let words = [&args[..], &["--source", name], more].concat();
        let output = replay(&from, &url(&target, path), secret, &words);
        assert!(output.status.success(), "{name}: {}", told(&output));
        let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(summary["replayed"], COUNT, "{summary}");
        assert_eq!(ids(&target, path.trim_start_matches('/')), ids(&from, name), "{name}");
    }
    let events = target.events();
    assert_eq!(events.len(), 3 * COUNT);
    let old = from.events();
    for row in &events {
        assert_eq!(header(row, "forebay-pass"), "replay");
        let source = row.source.as_deref().map(|name| if name == "hub" { "github" } else { name });
        let same = |old: &&Row| {
            old.source.as_deref() == source && old.id() == row.id() && old.body() == row.body()
        };
        let twin = old.iter().find(same);
        assert_eq!(twin.and_then(|old| old.event_type.clone()), row.event_type, "{row:?}");
        if row.source.as_deref() == Some("std") {
            let stamp: i64 = header(row, "webhook-timestamp").parse().unwrap();
            assert!(stamp > sign::now_seconds() - 200, "stamped anew");
        }
    }
    // The same ids once more are known there, and other ids are not.
    let words = [&args[..], &["--source", "std"]].concat();
    let std = || replay(&from, &url(&target, "/std"), sign::STANDARD_SECRET_NEXT, &words);
    assert!(std().status.success());
    assert_eq!(ids(&target, "std").len(), COUNT);
    let words = [&words[..], &["--new-ids"]].concat();
    let new = replay(&from, &url(&target, "/std"), sign::STANDARD_SECRET_NEXT, &words);
    assert!(new.status.success(), "{}", told(&new));
    assert_eq!(ids(&target, "std").len(), 2 * COUNT);
    // The wrong secret: told of each event, and none is tried for long.
    let words = [&args[..], &["--source", "std", "--event", "evt_3"]].concat();
    let wrong = replay(&from, &url(&target, "/std"), sign::STANDARD_SECRET, &words);
    assert_eq!(wrong.status.code(), Some(1));
    let summary: Value = serde_json::from_slice(&wrong.stdout).unwrap();
    assert!(summary["refused"][0]["reason"].as_str().unwrap().contains("401"), "{summary}");
}

#[test]
fn production_and_this_deployment_are_refused() {
    let from = production();
    let target = Server::start(Setup::new(Driver::Epoll));
    let there = url(&target, "/github");
    let github = ["--secret-env", VARIABLE, "--source", "github", "--allow-private"];
    let refused = |url: &str, words: &[&str], why: &str| {
        let output = replay(&from, url, sign::GITHUB_SECRET, words);
        assert_eq!(output.status.code(), Some(2), "{why}: {}", told(&output));
        assert!(told(&output).contains(why), "{why}: {}", told(&output));
    };
    refused(&there, &github[..4], "--allow-private");
    refused(&url(&from, "/github"), &github, "this forebay itself");
    refused("http://127.9.9.9:7001/other", &github, "a host of the sink out");
    refused("ftp://a.example/", &github, "takes a URL");
    let live = ["--secret-env", VARIABLE, "--source", "live", "--allow-private"];
    refused(&there, &live, "--allow-production-events");
    refused(&there, &[&live[..], &["--dry-run"]].concat(), "--allow-production-events");
    refused(&there, &["--secret-env", VARIABLE, "--lane", "main", "--allow-private"], "--source");
    refused(&there, &["--source", "github", "--allow-private"], "--secret-env");
    let livekit = ["--secret-env", VARIABLE, "--source", "livekit", "--allow-private"];
    let new_ids = ["--key-id", sign::LIVEKIT_KEY, "--new-ids"];
    refused(&there, &[&livekit[..], &new_ids].concat(), "stand in bodies");
    assert!(target.events().is_empty(), "nothing went anywhere");
    let dry = replay(&from, &there, "", &[&github[2..], &["--dry-run", "--json"]].concat());
    let dry: Value = serde_json::from_slice(&dry.stdout).unwrap();
    assert_eq!(dry["events"].as_array().map(Vec::len), Some(COUNT));
    assert!(target.events().is_empty(), "a dry run sends nothing");
    let meant = [&live[..], &["--allow-production-events"]].concat();
    let output = replay(&from, &there, sign::GITHUB_SECRET, &meant);
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(ids(&target, "github"), BTreeSet::from(["evt_live".to_owned()]));
    let argv = forebay(&["replay", "--to-url", &there, "--secret", "x"]).output().unwrap();
    assert_eq!(argv.status.code(), Some(2), "no secret in an argument");
}
