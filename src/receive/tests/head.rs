//! What is a usual head, and what the next one keeps of it.

use http::HeaderMap;

use crate::limits::HEADERS_MAX;
use crate::receive::head::{LastHead, Seen};

/// A head of these lines for a body of five bytes.
fn head(lines: &[&str]) -> String {
    let lines = [&["POST /std?q=1 HTTP/1.1"], lines, &["content-length: 5\r\n\r\n"]].concat();
    lines.join("\r\n")
}

fn usual(head: &str) -> Seen {
    Seen::Usual { head_bytes: head.len(), body_bytes: 5 }
}

/// Sees one head after the other; each is usual, and as if nothing had been before it.
fn see_all(heads: &[String]) {
    let mut last = LastHead::none();
    for head in heads {
        let mut fresh = LastHead::none();
        assert_eq!(fresh.see(head.as_bytes()), usual(head), "{head}");
        assert_eq!(last.see(format!("{head}hello").as_bytes()), usual(head), "{head}");
        assert_eq!(lines(&last), lines(&fresh), "{head}");
        assert_eq!(last.parts().uri, fresh.parts().uri);
    }
}

fn lines(head: &LastHead) -> Vec<(String, Vec<u8>)> {
    let headers: &HeaderMap = &head.parts().headers;
    headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
        .collect()
}

#[test]
fn a_head_is_told_as_it_was_written() {
    let head = "POST /std?q=1 HTTP/1.1\r\nHost: a\r\nX-Two: 1\r\nx-b:  \t b \t\r\nx-two: 2\r\n\
                Content-Length: 5\r\nx-empty:\r\n\r\n";
    let mut seen = LastHead::none();
    assert_eq!(seen.see(head.as_bytes()), usual(head));
    let parts = seen.parts();
    assert_eq!((parts.method.as_str(), parts.uri.to_string().as_str()), ("POST", "/std?q=1"));
    assert_eq!(parts.version, http::Version::HTTP_11);
    let pair = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    let expected = [
        pair("host", "a"),
        pair("x-two", "1"),
        pair("x-two", "2"),
        pair("x-b", "b"),
        pair("content-length", "5"),
        pair("x-empty", ""),
    ];
    assert_eq!(lines(&seen), expected);
}

#[test]
fn the_next_head_keeps_nothing_but_what_is_the_same() {
    see_all(&[
        head(&["host: a", "x-a: 1", "x-b: 2"]),
        head(&["host: a", "x-a: 1", "x-b: 2"]),
        head(&["host: a", "x-a: changed", "x-b: 2"]),
        head(&["host: a", "x-a: ", "x-b: longer than before"]),
        head(&["HOST: a", "X-A: 1", "x-B: another"]),
        head(&["x-b: 2", "host: a", "x-a: 1"]),
        head(&["x-b: 2", "host: a"]),
        head(&["x-c: 2", "host: a"]),
        head(&["x-c: 2", "host: a", "x-d: new", "x-e: new"]),
        head(&[]),
        head(&["host: \u{e9}"]),
    ]);
}

#[test]
fn doubled_names_are_told_in_their_order() {
    see_all(&[
        head(&["x-a: 1", "x-b: 2", "x-a: 3"]),
        head(&["x-a: 4", "x-a: 5", "x-b: 6"]),
        head(&["x-a: 4", "x-b: 6", "x-a: 5"]),
        head(&["x-a: 5", "x-a: 4", "x-b: 6"]),
        head(&["x-a: 5", "x-a: 4", "x-a: 6"]),
        head(&["x-b: 5", "x-a: 4", "X-B: 6"]),
    ]);
}

#[test]
fn a_target_is_taken_anew_for_each_request() {
    let to = |target: &str| head(&["host: a"]).replace("/std?q=1", target);
    see_all(&[to("/std"), to("/std?"), to("/std?q=2"), to("/"), to("//"), to("/std")]);
    for odd in ["http://a/std", "*", "a:443", "?q", "/a#b", "std", "/caf\u{e9}\u{7f}"] {
        let mut last = LastHead::none();
        assert_eq!(last.see(to("/std").as_bytes()), usual(&to("/std")));
        assert_eq!(last.see(to(odd).as_bytes()), Seen::Unusual, "{odd}");
    }
}

#[test]
fn a_length_is_read_anew_for_each_request() {
    let of = |length: &str| head(&["host: a"]).replace(": 5", &format!(": {length}"));
    let mut last = LastHead::none();
    for (length, bytes) in
        [("5", 5), ("0", 0), ("007", 7), ("999999999999999999", 999_999_999_999_999_999)]
    {
        let head = of(length);
        let expected = Seen::Usual { head_bytes: head.len(), body_bytes: bytes };
        assert_eq!(last.see(head.as_bytes()), expected, "{length}");
    }
    for odd in ["", "+5", "-5", "0x5", "5 5", "5, 5", "5;", "five", "1000000000000000000"] {
        let (mut fresh, head) = (LastHead::none(), of(odd));
        assert_eq!(fresh.see(head.as_bytes()), Seen::Unusual, "{odd}");
        assert_eq!(last.see(of("5").as_bytes()), usual(&of("5")));
        assert_eq!(last.see(head.as_bytes()), Seen::Unusual, "{odd}, behind a usual one");
    }
}

#[test]
fn what_asks_for_more_than_an_answer_is_unusual_whatever_came_before() {
    for line in [
        "transfer-encoding: chunked",
        "Transfer-Encoding: identity",
        "expect: 100-continue",
        "upgrade: h2c",
        "connection: close",
        "connection: keep-alive, close",
        "Connection: upgrade",
        "connection:",
        "content-length: 5",
        "content-length: 6",
        "x y: 1",
        "x-nul: a\0b",
        "x-folded: a\r\n b",
        ": no name",
    ] {
        for other in ["x-a: 1", "connection: keep-alive", "content-type: a"] {
            let (name, _) = line.split_once(':').expect("a line");
            let mut last = LastHead::none();
            let before = head(&[other]);
            assert_eq!(last.see(before.as_bytes()), usual(&before));
            for lines in [vec![line], vec![line, other], vec![other, line]] {
                let head = head(&lines);
                assert_eq!(LastHead::none().see(head.as_bytes()), Seen::Unusual, "{name}: {head}");
                assert_eq!(last.see(before.as_bytes()), usual(&before));
                assert_eq!(last.see(head.as_bytes()), Seen::Unusual, "{name}: {head}");
            }
        }
    }
    for (from, to) in [("POST", "GET"), ("POST", "post"), ("HTTP/1.1", "HTTP/1.0")] {
        let head = head(&[]).replace(from, to);
        assert_eq!(LastHead::none().see(head.as_bytes()), Seen::Unusual, "{head}");
    }
    let without = head(&[]).replace("content-length: 5\r\n", "");
    assert_eq!(LastHead::none().see(without.as_bytes()), Seen::Unusual);
}

#[test]
fn a_connection_is_kept_by_its_line_as_well_as_without_one() {
    see_all(&[
        head(&["connection: keep-alive"]),
        head(&["Connection: Keep-Alive"]),
        head(&["x-connection: close"]),
        head(&["connection: keep-alive", "connection: keep-alive"]),
    ]);
}

#[test]
fn a_head_is_a_part_until_its_last_byte() {
    let head = head(&["host: a", "x-a: 1"]);
    let mut last = LastHead::none();
    for end in 0..head.len() {
        assert_eq!(last.see(&head.as_bytes()[..end]), Seen::Part, "{end}");
    }
    assert_eq!(last.see(head.as_bytes()), usual(&head));
    for end in 0..head.len() {
        assert_eq!(last.see(&head.as_bytes()[..end]), Seen::Part, "{end}, of a second one");
    }
    assert_eq!(last.see(head.as_bytes()), usual(&head));
}

#[test]
fn the_longest_usual_head_is_as_long_as_a_read_and_has_as_many_lines_as_a_request_may() {
    let many = |count: usize| head(&vec!["x-a: 1"; count - 1]);
    assert_eq!(LastHead::none().see(many(HEADERS_MAX).as_bytes()), usual(&many(HEADERS_MAX)));
    assert_eq!(LastHead::none().see(many(HEADERS_MAX + 1).as_bytes()), Seen::Unusual);
    let long = |bytes: usize| {
        let rest = head(&["x: "]).len();
        head(&[&format!("x: {}", "l".repeat(bytes - rest))])
    };
    assert_eq!(LastHead::none().see(long(8192).as_bytes()), usual(&long(8192)));
    assert_eq!(LastHead::none().see(long(8193).as_bytes()), Seen::Unusual);
}
