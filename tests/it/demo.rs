//! `forebay demo`: the first thing that a reader runs, and the lines that it invites them to type.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::server::forebay;

#[test]
fn the_demo_shows_what_is_kept_and_what_is_refused_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    for run in 0..2 {
        let mut demo = forebay(&["demo", "--once", "--dir"]);
        let output = demo.arg(folder.path().join("demo")).output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{shown}{}", String::from_utf8_lossy(&output.stderr));
        for word in ["duplicate", "forged", "stale", "room.started", "room.finished", "curl"] {
            assert!(shown.contains(word), "run {run}, {word}: {shown}");
        }
    }
}

#[test]
fn the_demo_leaves_a_configuration_alone_that_is_not_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("forebay.toml");
    let refused = |dir: &std::path::Path, named: &str| {
        let output = forebay(&["demo", "--once", "--dir"]).arg(dir).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(75), "{told}");
        assert!(told.contains(named) && told.contains("--dir"), "{told}");
    };
    std::fs::write(&file, "data_dir = \"/srv\"\n").unwrap();
    refused(folder.path(), "forebay.toml");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "data_dir = \"/srv\"\n");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is made");
    // Where a file stands nobody can make a folder, root included.
    refused(&file, "forebay.toml");
}

#[test]
fn the_line_that_the_demo_prints_sends_one_more_event() {
    for tool in ["curl", "openssl", "bash"] {
        if Command::new(tool).arg("--version").output().is_err() {
            eprintln!("SKIPPED: {tool} is not installed; tests/run installs it");
            return;
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = forebay(&["demo", "--dir"]);
    command.arg(folder.path().join("demo")).stdout(Stdio::piped());
    let mut demo = command.spawn().unwrap();
    let mut shown = BufReader::new(demo.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut script = String::new();
    for line in shown.by_ref() {
        // From the first assignment to the curl line, as a reader would copy it.
        if !script.is_empty() || line.starts_with("id=") {
            script.push_str(&line);
            script.push('\n');
        }
        if line.starts_with("curl ") {
            break;
        }
    }
    assert!(!script.is_empty(), "the demo prints no lines to copy");
    let sent = Command::new("bash").arg("-c").arg(&script).output().unwrap();
    let answer = String::from_utf8_lossy(&sent.stdout).into_owned();
    assert!(answer.contains("200 OK"), "{answer}{}", String::from_utf8_lossy(&sent.stderr));
    let seen = shown.by_ref().any(|line| line.contains("evt_mine") || line.contains("hello.world"));
    assert!(seen, "the event that was sent shows up");
    kill_process(Pid::from_child(&demo), Signal::INT).unwrap();
    assert!(demo.wait().unwrap().success());
}
