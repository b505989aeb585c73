//! SIGTERM: what was begun is finished, what was acknowledged is kept, and the process ends by
//! itself, within a bound, with success.

use std::time::Duration;

use crate::support::load::{Load, StopOnDrop};
use crate::support::server::{Server, Setup};
use crate::support::{Driver, eventually, sign};

for_each_driver![
    termination_under_load_loses_nothing_and_succeeds,
    a_request_that_has_begun_is_finished,
    idle_and_stalled_connections_do_not_hold_the_exit,
    a_second_signal_ends_at_once,
];

fn termination_under_load_loses_nothing_and_succeeds(driver: Driver) {
    for ack in ["written", "synced"] {
        let mut server = Server::start(Setup::new(driver).ack(ack));
        let load = Load::default();
        std::thread::scope(|scope| {
            let _stop = StopOnDrop(&load);
            load.start(scope, server.address(), 8);
            eventually("the load runs", Duration::from_secs(20), || load.accepted() > 200);
            let status = server.end();
            assert!(status.success(), "{ack}: {status}");
        });
        // Nothing listens any more, so what follows is what the disk holds.
        assert_eq!(server.events().len() as u64, load.accepted(), "{ack}");
        server.run();
        assert_eq!(server.events().len() as u64, load.accepted(), "{ack}: after a restart");
    }
}

fn a_request_that_has_begun_is_finished(driver: Driver) {
    let mut server = Server::start(Setup::new(driver));
    let request = sign::standard("msg_begun", b"{\"type\":\"begun\"}");
    let length = request.body.len().to_string();
    let head = request.clone().header("content-length", length).header("expect", "100-continue");
    let mut begun = server.connect();
    begun.write(&head.head_bytes()).unwrap();
    // The server asks for the body, so it has begun.
    assert_eq!(begun.read_any().unwrap().status, 100);
    server.ask_to_end();
    std::thread::sleep(Duration::from_millis(100));
    begun.write(&request.body).unwrap();
    assert_eq!(begun.read().unwrap().status, 200);
    assert!(begun.ended_within(Duration::from_secs(5)), "a draining server keeps no connection");
    assert!(server.exit().success());
    assert_eq!(server.events().len(), 1);
}

fn idle_and_stalled_connections_do_not_hold_the_exit(driver: Driver) {
    let mut server = Server::start(Setup::new(driver).receive("drain_timeout = \"1s\""));
    let mut idle = server.connect();
    assert_eq!(idle.send(&sign::standard("msg_idle", b"{}")).unwrap().status, 200);
    let fresh = server.connect();
    let mut stalled = server.connect();
    let bytes = sign::standard("msg_stalled", b"{\"type\":\"stalled\"}").bytes();
    stalled.write(&bytes[..bytes.len() - 5]).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(server.end().success());
    assert!(idle.ended_within(Duration::from_secs(1)), "the idle connection ends");
    drop((fresh, stalled));
    assert_eq!(server.events().len(), 1);
}

fn a_second_signal_ends_at_once(driver: Driver) {
    let mut server = Server::start(Setup::new(driver).receive("drain_timeout = \"1h\""));
    let mut stalled = server.connect();
    let bytes = sign::standard("msg_stalled", b"{\"type\":\"stalled\"}").bytes();
    stalled.write(&bytes[..bytes.len() - 5]).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    server.ask_to_end();
    std::thread::sleep(Duration::from_millis(300));
    server.ask_to_end();
    // Its status is free: the operator asked twice. That it ends is what counts.
    let _ = server.exit();
}
