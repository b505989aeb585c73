//! A segment that is cut short under the server: an end that names the file, and a restart that
//! has what was acknowledged before.

use std::fs::{self, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use crate::support::server::{Server, Setup};
use crate::support::{Driver, sign};

const SIGABRT: i32 = 6;
/// A header page, and a page of records.
const LEFT_BYTES: u64 = 8192;

for_each_driver![a_segment_cut_under_the_server_is_named_and_the_restart_has_what_was_before_it];

fn a_segment_cut_under_the_server_is_named_and_the_restart_has_what_was_before_it(driver: Driver) {
    let mut server = Server::start(Setup::new(driver).ack("synced"));
    assert_eq!(server.send(&sign::standard("msg_before", b"{}")).status, 200);
    let segment = first_segment(&server);
    OpenOptions::new().write(true).open(&segment).unwrap().set_len(LEFT_BYTES).unwrap();
    let body = format!("{{\"text\":\"{}\"}}", "x".repeat(9_000));
    // There is no answer: nothing of it is where it should be.
    assert!(server.connect().send(&sign::standard("msg_during", body.as_bytes())).is_err());
    assert_eq!(server.exit().signal(), Some(SIGABRT), "{}", server.log());
    let name = segment.file_name().unwrap().to_string_lossy().into_owned();
    let said = |log: &str| log.contains("bus error: ") && log.contains(&name);
    assert!(said(&server.log()), "{}", server.log());
    assert!(said(&fs::read_to_string(server.data().join("bus-error")).unwrap()));

    server.run();
    assert!(server.log().contains("the last process ended by a bus error"), "{}", server.log());
    assert!(!server.data().join("bus-error").exists(), "it is told once");
    assert_eq!(server.send(&sign::standard("msg_before", b"{}")).status, 200);
    assert_eq!(server.send(&sign::standard("msg_during", body.as_bytes())).status, 200);
    assert_eq!(server.events().len(), 2);
}

/// The first segment of the server's one lane.
fn first_segment(server: &Server) -> PathBuf {
    let lanes = fs::read_dir(server.data().join("lanes")).unwrap();
    let lane = lanes.map(|lane| lane.unwrap().path()).next().unwrap();
    lane.join("0000000000000000.seg")
}
