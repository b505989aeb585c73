//! A configuration with a mistake is refused before anything starts, and told so that it can be
//! cured: the file, the line, the key, and what to write instead.

use std::process::Output;

use crate::support::Driver;
use crate::support::server::{Server, Setup, forebay};
use crate::support::sign;

/// What sysexits calls `EX_CONFIG`.
const EXIT_CONFIG: i32 = 78;
/// What clap ends with when the arguments are wrong.
const EXIT_USAGE: i32 = 2;

fn check(server: &Server) -> Output {
    forebay(&["check", "--config"]).arg(server.config()).output().unwrap()
}

#[test]
fn a_mistake_names_the_file_the_line_the_key_and_the_cure() {
    let server = Server::prepare(Setup::new(Driver::Epoll));
    let good = server.config_text();
    // What is replaced, by what, and what the message has to name.
    let mistakes: [(&str, &str, &[&str]); 10] = [
        ("receivers = 2", "receivers = \"two\"", &["receivers"]),
        ("receivers = 2", "recievers = 2", &["recievers", "receivers"]),
        ("ack = \"written\"", "ack = \"later\"", &["ack", "synced"]),
        ("segment_size = \"4MiB\"", "segment_size = \"4 bananas\"", &["segment_size", "MiB"]),
        ("segment_size = \"4MiB\"", "segment_size = \"1\"", &["segment_size"]),
        ("preset = \"github\"", "preset = \"githob\"", &["githob", "github"]),
        ("path = \"/github\"", "path = \"/std\"", &["/std"]),
        ("path = \"/github\"", "path = \"github\"", &["path", "/"]),
        (sign::GITHUB_SECRET, "short", &["secret"]),
        ("value = \"github-test-secret-0123456789\"", "env = \"NOT_SET_HERE\"", &["NOT_SET_HERE"]),
    ];
    for (from, to, named) in mistakes {
        assert!(good.contains(from), "nothing to replace: {from}");
        let text = good.replacen(from, to, 1);
        server.write_config_text(&text);
        let line = 1 + text[..text.find(to).unwrap()].matches('\n').count();
        for verb in ["check", "serve"] {
            let output = forebay(&[verb, "--config"]).arg(server.config()).output().unwrap();
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(EXIT_CONFIG), "{verb}, {to}: {told}");
            assert!(told.contains("forebay.toml"), "{verb}, {to}: the file: {told}");
            assert!(told.contains(&line.to_string()), "{verb}, {to}: line {line}: {told}");
            for name in named {
                assert!(told.contains(name), "{verb}, {to}: {name}: {told}");
            }
            assert!(!told.contains(sign::STANDARD_SECRET), "{verb}, {to}: a secret: {told}");
        }
    }
}

#[test]
fn a_lane_that_the_configuration_no_longer_has_is_told_at_the_start() {
    let mut server = Server::start(Setup::new(Driver::Epoll));
    assert_eq!(server.send(&sign::standard("msg_left", b"{}")).status, 200);
    assert!(server.end().success());
    let lanes = server.data().join("lanes");
    std::fs::create_dir(lanes.join("empty")).unwrap();
    std::fs::rename(lanes.join("main"), lanes.join("before")).unwrap();
    server.run();
    let told = server.log();
    let of = |name: &str| told.lines().filter(|line| line.contains(name)).count();
    let (before, empty) = (of("lanes/before"), of("lanes/empty"));
    assert_eq!((before, empty), (1, 0), "{told}");
    assert!(told.contains("goes to no sink"), "{told}");
}

#[test]
fn a_source_without_secrets_does_not_start() {
    let server = Server::prepare(Setup::new(Driver::Epoll));
    let good = server.config_text();
    let line = good.lines().find(|line| line.starts_with("secrets = ")).unwrap();
    server.write_config_text(&good.replacen(line, "", 1));
    let output = check(&server);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(EXIT_CONFIG), "{told}");
    assert!(told.contains("secrets"), "{told}");
}

#[test]
fn check_shows_the_sources_and_no_secret() {
    let server = Server::prepare(Setup::new(Driver::Epoll));
    let output = check(&server);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for word in ["/std", "/github", "/livekit", "standard-webhooks", "first", "main"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    for secret in [sign::STANDARD_SECRET, sign::GITHUB_SECRET, sign::LIVEKIT_SECRET] {
        assert!(!told.contains(secret), "{told}");
    }
    assert!(!server.data().exists(), "a check makes nothing");
}

#[test]
fn the_environment_overrides_the_file_and_is_checked_as_well() {
    let server = Server::prepare(Setup::new(Driver::Epoll));
    let with = |name: &str, value: &str| {
        let mut command = forebay(&["check", "--config"]);
        command.arg(server.config()).env(name, value).output().unwrap()
    };
    assert!(with("FOREBAY_RECEIVE__RECEIVERS", "1").status.success());
    let bad = with("FOREBAY_RECEIVE__RECEIVERS", "many");
    assert_eq!(bad.status.code(), Some(EXIT_CONFIG));
    let told = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(told.contains("FOREBAY_RECEIVE__RECEIVERS"), "{told}");
}

#[test]
fn arguments_that_make_no_sense_are_usage_errors() {
    let missing = forebay(&["check", "--config", "/no/such/forebay.toml"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(EXIT_CONFIG));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/no/such/forebay.toml"));
    for arguments in [&["brew"][..], &["serve", "--teapot"], &["tail", "--json", "--raw"]] {
        let output = forebay(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(EXIT_USAGE), "{arguments:?}");
    }
    let version = forebay(&["--version"]).output().unwrap();
    assert!(version.status.success());
    assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn two_servers_never_share_a_data_folder() {
    let first = Server::start(Setup::new(Driver::Epoll));
    let text = first.config_text();
    // The same folder, other ports.
    let second = Server::prepare(Setup::new(Driver::Epoll));
    let own = second.config_text();
    let data = text.lines().next().unwrap();
    second.write_config_text(&own.replacen(own.lines().next().unwrap(), data, 1));
    let output = forebay(&["serve", "--config"]).arg(second.config()).output().unwrap();
    assert!(!output.status.success(), "the second server must not start");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("lock") || told.contains("in use"), "{told}");
    assert_eq!(first.send(&sign::standard("msg_1", b"{}")).status, 200);
}

#[test]
fn what_cannot_be_written_is_told() {
    let server = Server::prepare(Setup::new(Driver::Epoll));
    let config = server.config();
    let file = config.to_str().unwrap();
    let verbs: [&[&str]; 4] = [
        &["check", "--config", file],
        &["doctor", "--config", file],
        &["providers"],
        &["sign", "--provider", "github", "--secret", sign::GITHUB_SECRET],
    ];
    for verb in verbs {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = forebay(verb).stdout(full).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{verb:?}: {told}");
        assert!(told.contains("cannot write: No space left"), "{verb:?}: {told}");
    }
}
