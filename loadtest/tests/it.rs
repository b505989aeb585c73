//! The tool as its users run it: a server of its own, killed in the middle, and one that lies.
#![forbid(unsafe_code)]

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const TOOL: &str = env!("CARGO_BIN_EXE_forebay-loadtest");

fn run(arguments: &[&str]) -> (Option<i32>, Value) {
    let Output { status, stdout, stderr } =
        Command::new(TOOL).args(arguments).arg("--json").output().expect("the tool runs");
    let report = serde_json::from_slice(&stdout);
    let report = report.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&stderr)));
    (status.code(), report)
}

fn count(report: &Value, pointer: &str) -> u64 {
    let value = report.pointer(pointer).and_then(Value::as_u64);
    value.unwrap_or_else(|| panic!("{pointer} in {report}"))
}

#[test]
fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("report.html");
    let (code, report) = run(&[
        "steady",
        "--rate=300/s",
        "--for=3s",
        "--mix=stripe=1,wave=1",
        "--duplicates=5%",
        "--forgeries=5%",
        "--malformed=5%",
        "--chaos=kill9@1s",
        "--compress=1000",
        "--connections=16",
        "--html",
        page.to_str().expect("a path in UTF-8"),
    ]);
    // On a machine that is busy a sender may run out of attempts: 3. The audit has to be sound.
    assert!(matches!(code, Some(0 | 3)), "{code:?}: {report}");
    for nothing in ["lost", "twice", "unknown", "altered", "wrongly_taken"] {
        assert_eq!(count(&report, &format!("/audit/{nothing}")), 0, "{report}");
    }
    assert!(count(&report, "/audit/stored_once") > 0, "{report}");
    assert_eq!(count(&report, "/audit/acknowledged"), count(&report, "/events/acknowledged"));
    assert_eq!(count(&report, "/due"), 900);
    let page = std::fs::read_to_string(page).expect("the page was written");
    assert!(page.contains("kill -9") && !page.contains("<script") && !page.contains("<link"));
}

#[test]
fn a_server_that_answers_and_stores_nothing_is_found_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let digits = |letter: char| !letter.is_ascii_digit();
    let allowed = cores.and_then(|list| list.trim().split(digits).next()).expect("a core");
    let mut liar = Command::new(TOOL)
        .args(["target", "--kind=bare", "--cores", allowed, "--config=/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the tool runs");
    let mut address = String::new();
    let stdout = liar.stdout.take().expect("it is piped");
    BufReader::new(stdout).read_line(&mut address).expect("it says where it listens");
    let (code, report) = run(&[
        "steady",
        "--rate=100/s",
        "--for=1s",
        "--mix=stripe=1",
        "--connections=4",
        "--target",
        &format!("http://{}/anything", address.trim()),
        "--secret=stripe=whsec_0123456789abcdef",
        "--log",
        folder.path().to_str().expect("a path in UTF-8"),
    ]);
    drop(liar.stdin.take());
    liar.wait().expect("it ends with its input");
    assert_eq!(code, Some(1), "{report}");
    assert_eq!(count(&report, "/audit/lost"), 100, "{report}");
}
