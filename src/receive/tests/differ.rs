//! The usual way is a second way into the server, so it is held against hyper's: whatever a peer
//! sends, however it is cut, both hand over the same requests, say the same, and end the connection
//! at the same place. So no byte of a body is a head to one of them only. Where they may differ
//! after all is said by `too_long` and `refused_sooner`, and nowhere else.
//!
//! `PROPTEST_CASES` says how many conversations (`tests/run heads`).

use std::cell::Cell;
use std::mem;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};

use super::conversation::{Conversation, conversations, cut};
use super::peer::Script;
use super::{Outcome, Told, Way, served};

/// The answer to a request as its peer reads it, its date left out and its lines sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    /// The peer was told to continue before.
    continued: bool,
    pub(super) status: String,
    pub(super) lines: Vec<String>,
    body: String,
}

/// The answers in what a peer was told, one for each request.
pub(super) fn heard(mut wire: &[u8]) -> Vec<Heard> {
    let (mut all, mut continued) = (Vec::new(), false);
    while !wire.is_empty() {
        let end = wire.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head");
        let (head, rest) = (&wire[..end], &wire[end + 4..]);
        let head = String::from_utf8(head.to_vec()).expect("forebay's own head is text");
        let mut lines: Vec<String> = head.split("\r\n").map(str::to_owned).collect();
        let status = lines.remove(0);
        assert!(status.starts_with("HTTP/1."), "{status}");
        let dates = lines.len();
        lines.retain(|line| !line.starts_with("date: "));
        assert!(dates - lines.len() <= 1, "one date: {status}");
        lines.sort();
        let value = |name| lines.iter().find_map(|line| line.strip_prefix(name));
        let length = value("content-length: ").filter(|_| value("x-without-body: ").is_none());
        let bytes = length.map_or(0, |digits| digits.parse().expect("a length"));
        let (body, behind) = rest.split_at(bytes);
        wire = behind;
        if status.starts_with("HTTP/1.1 100 ") && !wire.is_empty() {
            continued = true;
            continue;
        }
        let body = body.escape_ascii().to_string();
        all.push(Heard { continued: mem::take(&mut continued), status, lines, body });
    }
    all
}

/// hyper refuses a head of more than 16 KiB only if it happens to look for its end in between: the
/// reads decide, for hyper alone as well. It bounds memory; who takes such a head finds the same end
/// of it. One that is broken as well may be refused for either.
fn too_long(one: &Outcome, other: &Outcome, at: usize) -> bool {
    let (said, meant) = (heard(&one.wire), heard(&other.wire));
    // As parsed, it has lost its white space.
    let long = other.told.get(at).is_some_and(|told| told.head.len() > 15 * 1024);
    refused(&said, at)
        && said[at].status.starts_with("HTTP/1.1 431 ")
        && (long || refused(&meant, at))
}

/// hyper parses the first part of a head, and from then on waits for its end before it parses again:
/// what is broken before its end is refused at once or waited for, as it is cut, and the usual way
/// parses each part, and cuts what it hands over in its own way. Nothing behind it is taken for a
/// request by either.
fn refused_sooner(one: &Outcome, other: &Outcome, at: usize) -> bool {
    refused(&heard(&one.wire), at)
        && heard(&other.wire).len() == at
        && one.told.len().max(other.told.len()) == at
}

/// Whether the last answer is number `at`, and one to a head that is no request.
fn refused(said: &[Heard], at: usize) -> bool {
    let by_parser = |heard: &Heard| heard.body.ends_with(r#"\"reason\":\"head_malformed\"}"#);
    said.len() == at + 1 && by_parser(&said[at])
}

/// Whether two outcomes are the same to a peer and to the line.
pub(super) fn same(usual: &Outcome, hyper: &Outcome) -> Result<(), String> {
    let (said, meant) = (heard(&usual.wire), heard(&hyper.wire));
    let of = |told: &[Told], at: usize| told.get(at).map(|told| Told { parts: 0, ..told.clone() });
    let count = usual.told.len().max(hyper.told.len()).max(said.len()).max(meant.len());
    for at in 0..count {
        let (one, other) = (of(&usual.told, at), of(&hyper.told, at));
        if one == other && said.get(at) == meant.get(at) {
            continue;
        }
        let lawful = too_long(usual, hyper, at)
            || too_long(hyper, usual, at)
            || refused_sooner(usual, hyper, at)
            || refused_sooner(hyper, usual, at);
        if lawful {
            return Ok(());
        }
        return Err(format!(
            "request {at} is, and is answered by,\n{:?}\n{:?}\nthe usual way, and by hyper\n{:?}\n{:?}",
            one.as_ref().map(shown),
            said.get(at),
            other.as_ref().map(shown),
            meant.get(at)
        ));
    }
    if usual.ended != hyper.ended {
        return Err(format!("ended: {}, and by hyper: {}", usual.ended, hyper.ended));
    }
    Ok(())
}

fn shown(told: &Told) -> String {
    let body = &told.body[..told.body.len().min(100)];
    let (head, body) = (String::from_utf8_lossy(&told.head), String::from_utf8_lossy(body));
    format!("{head} body {} whole {:?}: {body}", told.body.len(), told.whole)
}

pub(super) fn both(conversation: &Conversation) -> (Outcome, Outcome) {
    let way = |way| {
        let Conversation { mut script, introduced } = conversation.clone();
        let early = if introduced { script.chunks.pop_front() } else { None };
        served(script, early.unwrap_or_default(), way)
    };
    (way(Way::Usual), way(Way::Hyper))
}

#[test]
fn whatever_a_peer_sends_both_ways_understand_it_alike() {
    // Not kept in a file: what fails is told in full, as bytes.
    let config = Config { failure_persistence: None, ..Config::default() };
    let cases = config.cases;
    let (usual, by_hyper, changed) = (Cell::new(0_u32), Cell::new(0_u32), Cell::new(0_u32));
    let add = |count: &Cell<u32>, yes: bool| count.set(count.get() + u32::from(yes));
    let outcome = TestRunner::new(config).run(&conversations(), |conversation| {
        let (one, other) = both(&conversation);
        add(&usual, one.usual > 0);
        add(&by_hyper, one.handed_over);
        add(&changed, one.usual > 0 && one.told.len() > one.usual);
        same(&one, &other).map_err(TestCaseError::fail)
    });
    match outcome {
        Ok(()) => {}
        // In one line, and the reason behind it, where the end of a log still has it.
        Err(TestError::Fail(reason, least)) => panic!("of {least:?}\n{reason}"),
        Err(aborted) => panic!("{aborted}"),
    }
    for (count, what, least) in [
        (&usual, "had a usual request", 4),
        (&by_hyper, "were handed over", 4),
        (&changed, "went on by hyper", 50),
    ] {
        assert!(count.get() >= cases / least, "only {} of {cases} {what}", count.get());
    }
}

#[test]
fn a_head_may_be_refused_sooner_behind_a_request_that_was_told_to_continue() {
    let mut refused = 0;
    for length in (1_000..24_000).step_by(1_000) {
        let bytes = [
            format!("POST /std HTTP/1.1\r\ncontent-length: {length}\r\n\r\n").as_bytes(),
            &vec![b'x'; length],
            b"POST /std HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n1",
            b"POST /std HTTP/1.1\r\nx-wide: ",
            &[b'w'; 4_000],
            b"\r\nno line\r\n",
        ]
        .concat();
        let script = Script { chunks: cut(&bytes, &[usize::MAX]), ends: false, slow: false };
        let (usual, hyper) = both(&Conversation { script, introduced: false });
        assert_eq!(same(&usual, &hyper), Ok(()), "{length}");
        refused += usize::from(usual.ended != hyper.ended);
    }
    assert!(refused > 0, "a read of hyper's ends before what is broken, and it waits for the rest");
}

#[test]
fn a_head_may_be_too_long_for_one_and_taken_by_the_other_whatever_becomes_of_its_body() {
    let bytes = [
        &b"POST /std HTTP/1.1\r\ncontent-length: 0\r\n\r\n"[..],
        b"POST /std HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 1\r\nx-wide: ",
        &b"w".repeat(16_400),
        b"\r\n\r\n",
    ]
    .concat();
    for (body, size) in [(&b""[..], 700), (b"1", 700), (b"", 3_000), (b"1", 3_000)] {
        let chunks = cut(&[&bytes, body].concat(), &[size]);
        let script = Script { chunks, ends: false, slow: false };
        let (usual, hyper) = both(&Conversation { script, introduced: false });
        assert_eq!((usual.told.len(), hyper.told.len()), (1, 2), "as its reads end");
        assert_eq!(same(&usual, &hyper), Ok(()));
    }
}
