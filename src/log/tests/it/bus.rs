//! A mapped file that was cut short: the process says which one and ends, and the lane recovers.

use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;

use forebay_log::{AckLevel, Reader};

use crate::support::{append, drain, open, wait_acked};

const DIR: &str = "FOREBAY_LOG_TEST_BUS_DIR";
const WRITTEN: &str = "FOREBAY_LOG_TEST_BUS_WRITTEN";
const SIGABRT: i32 = 6;

#[test]
#[ignore = "runs in a process of its own, which it ends: see the test below"]
fn dies() {
    let dir = PathBuf::from(std::env::var_os(DIR).expect("the other test starts this one"));
    forebay_log::tell_bus_errors(Some(&dir.join("bus-error"))).expect("a handler");
    let written = std::env::var_os(WRITTEN).is_some();
    let ack = if written { AckLevel::Written } else { AckLevel::Synced };
    let lane = open(&dir.join("lane"), ack);
    let mut appends = lane.appender();
    let end = append(&mut appends, 0).end;
    wait_acked(&lane, end);
    let file = dir.join("lane/0000000000000000.seg");
    OpenOptions::new().write(true).open(file).expect("the segment").set_len(8192).expect("cut");
    for number in 1..1_000 {
        append(&mut appends, number);
    }
}

#[test]
fn a_segment_cut_under_its_writer_is_named_and_what_lies_before_the_cut_is_recovered() {
    for written in [true, false] {
        cut_under_a_writer(written);
    }
}

fn cut_under_a_writer(written: bool) {
    let dir = tempfile::tempdir().expect("a directory");
    let this = std::env::current_exe().expect("a program");
    let ended = Command::new(this)
        .args(["--exact", "bus::dies", "--ignored", "--nocapture"])
        .env(DIR, dir.path())
        .envs(written.then_some((WRITTEN, "1")))
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.signal(), Some(SIGABRT), "{said}");
    assert!(said.contains("forebay: bus error: "), "{said}");
    assert!(said.contains("lane/0000000000000000.seg cannot be read or written"), "{said}");
    let left = std::fs::read_to_string(dir.path().join("bus-error")).expect("a marker");
    assert!(left.contains("lane/0000000000000000.seg"), "{left}");
    let lane = open(&dir.path().join("lane"), AckLevel::Synced);
    append(&mut lane.appender(), 7);
    lane.close();
    let mut reader = Reader::open(dir.path().join("lane")).expect("a reader");
    let numbers = drain(&mut reader);
    assert_eq!((numbers.first(), numbers.last()), (Some(&0), Some(&7)));
}
