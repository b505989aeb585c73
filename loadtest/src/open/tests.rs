//! The loop against a server that does what a test says. What is asserted are counts, never times.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::habits::Habits;
use crate::requests::{Sender, Signer};
use crate::schedule::Phase;
use crate::traffic::Shares;
use crate::wire::Remote;

/// What the server does with a request, by how many it had before.
type Script = fn(u64) -> Reply;

#[derive(Clone, Copy)]
enum Reply {
    Status(u16),
    /// The answer is the last on its connection.
    Last(u16),
    /// No answer, and the end.
    HangUp,
}

/// Serves until the test's process ends.
fn serve(script: Script) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let served = Arc::new(AtomicU64::new(0));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let served = Arc::clone(&served);
            std::thread::spawn(move || answer(&stream, script, &served));
        }
    });
    address
}

fn answer(stream: &TcpStream, script: Script, served: &AtomicU64) {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut line, mut length) = (String::new(), 0);
        while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
            if let Some(digits) = line.strip_prefix("content-length: ") {
                length = digits.trim().parse().expect("a length");
            }
            line.clear();
        }
        if length == 0 || reader.read_exact(&mut vec![0; length]).is_err() {
            return;
        }
        // Relaxed: a count that orders nothing else.
        let (status, close) = match script(served.fetch_add(1, Ordering::Relaxed)) {
            Reply::Status(status) => (status, ""),
            Reply::Last(status) => (status, "connection: close\r\n"),
            Reply::HangUp => return,
        };
        let head = format!("HTTP/1.1 {status} So\r\ncontent-length: 0\r\n{close}\r\n");
        if (&*stream).write_all(head.as_bytes()).is_err() || !close.is_empty() {
            return;
        }
    }
}

/// Sends `count` events of one sender, whose retries come at once.
fn drive(preset: &str, count: u32, shares: Shares, script: Script) -> Outcome {
    let sender = Sender::own(preset).expect("a preset");
    let habits = Habits::of(sender.profile().expect("a preset"), 1e6);
    let signer = Signer::new(sender, 400, 1).expect("it can sign");
    let mut traffic = Traffic::new(vec![(signer, 1.0)], shares, 10);
    let remote = Remote { address: serve(script), tls: None };
    let mut connections = Connections::open(remote, 3).expect("the server listens");
    let rate = f64::from(count) * 20.0;
    let phase = Phase::flat("test", rate, Duration::from_millis(50));
    let bounds = Bounds { timeout: Duration::from_secs(60), drain: Duration::from_secs(60) };
    let schedule = Schedule::phases(vec![phase]);
    let outbox = Outbox::new(vec![habits]);
    let run = Run::new(&mut connections, &mut traffic, outbox, schedule, bounds);
    run.and_then(|run| run.drive(|_| Ok(()))).expect("the run ends")
}

fn acknowledged(outcome: &Outcome) -> usize {
    outcome.ledger.genuine().filter(|entry| entry.acknowledged > 0).count()
}

#[test]
fn every_request_goes_out_once_and_is_counted() {
    let outcome = drive("stripe", 100, Shares::default(), |_| Reply::Status(200));
    let Counts { due, sent, accepted, refused, broken, .. } = outcome.counts;
    assert_eq!((due, sent, accepted, refused, broken), (100, 100, 100, 0, 0));
    assert_eq!((acknowledged(&outcome), outcome.latency.len()), (100, 100));
    assert_eq!(outcome.outstanding, 0);
}

#[test]
fn what_has_no_answer_is_sent_again_on_another_connection() {
    let script = |served: u64| {
        if served.is_multiple_of(3) { Reply::HangUp } else { Reply::Status(200) }
    };
    let outcome = drive("standard-webhooks", 60, Shares::default(), script);
    assert_eq!((acknowledged(&outcome), outcome.given_up), (60, 0));
    assert!(outcome.counts.broken >= 20, "{:?}", outcome.counts);
    assert_eq!(outcome.counts.sent, 60 + outcome.counts.broken);
    assert!(outcome.last_error.is_some());
}

#[test]
fn a_sender_gives_up_after_its_last_attempt() {
    let outcome = drive("wave", 10, Shares::default(), |_| Reply::Status(503));
    assert_eq!((outcome.counts.sent, outcome.given_up), (60, 10), "six attempts each");
    assert_eq!((acknowledged(&outcome), outcome.outstanding), (0, 0));
}

#[test]
fn a_connection_that_the_server_ends_is_replaced() {
    let outcome = drive("stripe", 50, Shares::default(), |_| Reply::Last(200));
    assert_eq!((acknowledged(&outcome), outcome.counts.broken), (50, 0));
}

#[test]
fn a_forgery_that_is_taken_stands_in_the_ledger() {
    let shares = Shares { forgeries: 0.5, ..Shares::default() };
    let outcome = drive("stripe", 40, shares, |_| Reply::Status(200));
    assert_eq!(outcome.answers.get(&(Fault::Forged, 200)), Some(&20));
    let taken = |entry: &&crate::ledger::Entry| {
        entry.draft.fault == Fault::Forged && entry.acknowledged > 0
    };
    assert_eq!(outcome.ledger.entries().iter().filter(taken).count(), 20);
    assert_eq!(acknowledged(&outcome), 20);
}
