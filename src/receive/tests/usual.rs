//! A connection of usual requests, read and answered in memory.

use std::future::Future as _;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Waker};

use bytes::Bytes;
use forebay_log::Clock;

use super::conversation::{Conversation, cut};
use super::differ::{both, heard, same};
use super::peer::{Peer, Script};
use super::{DEADLINES, Echo, Outcome, PEER, Way, served, until_still};
use crate::limits::READ_BYTES;
use crate::receive::answer::HttpDate;
use crate::receive::connection::{Connections, Entered};
use crate::receive::usual::{Wire, serve_usual};

fn request(deed: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("POST /std HTTP/1.1\r\nhost: a\r\nx-do: {deed}\r\ncontent-length: {length}");
    [head.as_bytes(), b"\r\n\r\n", body].concat()
}

fn script(bytes: &[u8], sizes: &[usize]) -> Script {
    Script { chunks: cut(bytes, sizes), ends: true, slow: true }
}

/// What becomes of it the usual way, which is what becomes of it by hyper.
fn outcome(script: Script) -> Outcome {
    let (usual, hyper) = both(&Conversation { script, introduced: false });
    same(&usual, &hyper).expect("both ways are alike");
    usual
}

fn entered() -> Entered {
    Connections::new(DEADLINES, Clock::System.monotonic()).enter(PEER)
}

#[test]
fn a_head_may_come_in_four_reads_and_is_left_to_hyper_in_more() {
    let bytes = request("", b"{}");
    for (parts, usual) in [(1, 1), (2, 1), (3, 1), (4, 1), (5, 0), (40, 0)] {
        let outcome = outcome(script(&bytes, &[bytes.len().div_ceil(parts)]));
        assert_eq!((outcome.usual, outcome.told.len()), (usual, 1), "{parts} parts");
        assert_eq!(outcome.told[0].body, b"{}");
    }
}

#[test]
fn a_long_body_is_taken_in_parts_as_it_comes() {
    let body: Vec<u8> = (0..=250).cycle().take(200 * 1024).collect();
    let bytes = request("", &body);
    for size in [usize::MAX, 100_000, 1448, 97] {
        let outcome = outcome(script(&bytes, &[size]));
        assert_eq!((outcome.usual, outcome.told.len()), (1, 1), "{size}");
        assert_eq!((outcome.told[0].whole, &outcome.told[0].body), (Some(true), &body));
        assert!(outcome.told[0].parts > 3, "{} parts of {size}", outcome.told[0].parts);
    }
}

#[test]
fn a_sender_may_send_head_and_body_apart_or_all_requests_at_once() {
    let bodies = [&b"one"[..], b"", b"three", &[b'4'; 9000]];
    let requests: Vec<Vec<u8>> = bodies.iter().map(|body| request("", body)).collect();
    let mut apart = Script { ends: true, slow: true, ..Script::default() };
    for (request, body) in requests.iter().zip(bodies) {
        let (head, body) = request.split_at(request.len() - body.len());
        apart.chunks.extend(cut(head, &[usize::MAX]));
        apart.chunks.extend(cut(body, &[usize::MAX]));
    }
    let at_once = script(&requests.concat(), &[usize::MAX]);
    // The end of one and the beginning of the next in one part.
    let across = script(&requests.concat(), &[requests[0].len() + 10]);
    for script in [apart, at_once, across] {
        let outcome = outcome(script);
        assert_eq!((outcome.usual, outcome.handed_over), (bodies.len(), false));
        let told = outcome.told.iter().map(|told| told.body.as_slice());
        assert!(told.eq(bodies), "bodies in their order");
        assert_eq!(heard(&outcome.wire).len(), bodies.len());
    }
}

#[test]
fn wherever_a_peer_ends_its_side_both_ways_end_alike() {
    let first = request("", b"first");
    let bytes = [&first[..], &request("", b"second")].concat();
    for end in 0..=bytes.len() {
        for sizes in [&[usize::MAX][..], &[first.len(), usize::MAX], &[60]] {
            let outcome = outcome(script(&bytes[..end], sizes));
            assert!(outcome.ended, "{end}");
            assert!(!outcome.handed_over, "{end}: of half a head there is nothing to judge");
            let whole = outcome.told.iter().filter(|told| told.whole == Some(true)).count();
            let expected = usize::from(end >= first.len()) + usize::from(end == bytes.len());
            assert_eq!(whole, expected, "{end}");
        }
    }
}

#[test]
fn the_room_for_a_long_body_is_given_back_behind_it() {
    let bytes = request("", &vec![b'x'; 300_000]);
    let peer = Peer::new(Script { ends: false, ..script(&bytes, &[50_000]) });
    let (echo, date, entered) = (Echo::default(), HttpDate::new(0), entered());
    let wire = Wire::new(peer.clone(), Bytes::new());
    let mut serving = pin!(serve_usual(&echo, wire, entered.connection(), &date));
    assert!(until_still(serving.as_mut()).is_pending(), "it waits for the next");
    assert_eq!(echo.told.borrow().len(), 1);
    assert_eq!(peer.room(), READ_BYTES, "as a connection that had no long body");
}

#[test]
fn a_last_answer_waits_for_the_rest_of_its_request_and_for_nothing_else() {
    let bytes = request("refuse", &[b'x'; 100]);
    let (now, later) = bytes.split_at(bytes.len() - 90);
    let peer = Peer::new(Script { ends: false, ..script(now, &[usize::MAX]) });
    let (echo, date, entered) = (Echo::default(), HttpDate::new(0), entered());
    let wire = Wire::new(peer.clone(), Bytes::new());
    let mut serving = pin!(serve_usual(&echo, wire, entered.connection(), &date));
    assert!(until_still(serving.as_mut()).is_pending(), "90 bytes are still to come");
    assert!(peer.is_shut(), "and the peer knows that nothing else will");
    assert!(heard(&peer.told())[0].lines.contains(&"connection: close".to_owned()));
    peer.send(&later[..89]);
    assert!(until_still(serving.as_mut()).is_pending(), "one is still to come");
    peer.send(&later[89..]);
    peer.send(&request("", b"behind"));
    assert!(until_still(serving.as_mut()).is_ready(), "all has come");
    assert_eq!(peer.unread(), request("", b"behind").len());
    assert_eq!(echo.told.borrow().len(), 1);

    let whole = Script { ends: false, ..script(&bytes, &[usize::MAX]) };
    let outcome = served(whole, Bytes::new(), Way::Usual);
    assert!(outcome.ended && outcome.told.len() == 1, "nothing was to come");
}

#[test]
fn others_have_their_turn_after_sixteen_requests_in_a_row() {
    let bytes = request("", b"").repeat(40);
    let peer = Peer::new(Script { slow: false, ..script(&bytes, &[usize::MAX]) });
    let (echo, date, entered) = (Rc::new(Echo::default()), HttpDate::new(0), entered());
    let wire = Wire::new(peer.clone(), Bytes::new());
    let mut serving = pin!(serve_usual(&*echo, wire, entered.connection(), &date));
    let mut cx = Context::from_waker(Waker::noop());
    for answered in [16, 32] {
        assert!(serving.as_mut().poll(&mut cx).is_pending());
        assert_eq!(heard(&peer.told()).len(), answered);
    }
    assert!(serving.as_mut().poll(&mut cx).is_ready());
    assert_eq!(heard(&peer.told()).len(), 40);
}
