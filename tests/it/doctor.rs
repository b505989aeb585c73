//! `forebay doctor`: says of this machine what a script can act upon, and sees a taken port.

use std::net::TcpListener;

use serde_json::Value;

use crate::support::Driver;
use crate::support::server::{Server, Setup, forebay};

/// What it exits with, and what it says.
fn asked(server: &Server) -> (i32, Value) {
    let output = forebay(&["doctor", "--json", "--config"]).arg(server.config()).output().unwrap();
    let said = serde_json::from_slice(&output.stdout).unwrap();
    (output.status.code().unwrap(), said)
}

fn grade<'v>(said: &'v Value, check: &str) -> &'v str {
    let findings = said["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["check"] == check);
    found.unwrap_or_else(|| panic!("nothing about {check}: {said}"))["grade"].as_str().unwrap()
}

#[test]
fn the_exit_code_follows_from_what_is_said_and_a_taken_port_is_seen() {
    let server = Server::prepare(Setup::new(Driver::Epoll));
    let (code, said) = asked(&server);
    let expected = match said["worst"].as_str().unwrap() {
        "good" | "note" => 0,
        "warning" => 3,
        _ => 4,
    };
    assert_eq!(code, expected, "{said}");
    assert_eq!(grade(&said, "receive.listen"), "good");
    assert_eq!(grade(&said, "data folder"), "note");
    for finding in said["findings"].as_array().unwrap() {
        assert_eq!(finding["cure"].is_null(), finding["grade"] == "good", "{finding}");
    }
    let _taken = TcpListener::bind(server.address()).unwrap();
    let (code, said) = asked(&server);
    assert_eq!((code, grade(&said, "receive.listen")), (4, "fault"), "{said}");
}

#[test]
fn a_configuration_that_is_wrong_or_missing_is_told_as_such() {
    let missing = forebay(&["doctor", "--config", "/nowhere/forebay.toml"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(78));
    let without = forebay(&["doctor"]).output().unwrap();
    assert!(matches!(without.status.code(), Some(0 | 3 | 4)));
    assert!(String::from_utf8_lossy(&without.stdout).contains("faults: "));
}
