//! An answer as it goes over the wire: as hyper writes it.

use std::convert::Infallible;
use std::pin::pin;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::conversation::cut;
use super::differ::heard;
use super::peer::{Peer, Script};
use super::until_still;
use crate::receive::answer::{Answer, HttpDate, write_answer};

fn written(answer: Answer, closing: bool, date: &HttpDate) -> Vec<u8> {
    let mut wire = b"before".to_vec();
    write_answer(answer, closing, date, &mut wire);
    wire.strip_prefix(b"before").expect("it is written behind what is there").to_vec()
}

/// What hyper writes; `closing` because the request asks for it.
fn by_hyper(answer: &Answer, closing: bool) -> Vec<u8> {
    let close = if closing { "connection: close\r\n" } else { "" };
    let request = format!("POST / HTTP/1.1\r\n{close}content-length: 0\r\n\r\n");
    let chunks = cut(request.as_bytes(), &[usize::MAX]);
    let peer = Peer::new(Script { chunks, ends: true, slow: false });
    let service = service_fn(|_| async { Ok::<_, Infallible>(answer.clone().map(Full::new)) });
    let serving = http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(peer.clone()), service);
    assert!(until_still(pin!(serving)).is_ready(), "the peer has ended");
    peer.told()
}

fn answer(status: u16, body: &'static str) -> Answer {
    let mut answer = Answer::new(Bytes::from_static(body.as_bytes()));
    *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
    answer
}

#[test]
fn every_answer_is_what_hyper_makes_of_it() {
    let date = HttpDate::new(0);
    let statuses = (200..300).chain(400..600);
    for (status, body) in statuses.flat_map(|status| [(status, ""), (status, "{\"a\":1}")]) {
        for closing in [false, true] {
            let mut answer = answer(status, body);
            if !body.is_empty() {
                let headers = answer.headers_mut();
                headers.insert(header::RETRY_AFTER, HeaderValue::from(7));
                headers.append("x-doubled", HeaderValue::from_static("1"));
                headers.append("x-doubled", HeaderValue::from_static("2"));
            }
            let expected = heard(&by_hyper(&answer, closing));
            assert_eq!(heard(&written(answer.clone(), closing, &date)), expected);
            assert_eq!(expected[0].lines.contains(&"connection: close".to_owned()), closing);
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            let expected = heard(&by_hyper(&answer, closing));
            assert_eq!(heard(&written(answer, closing, &date)), expected);
        }
    }
}

#[test]
fn an_answer_without_content_has_no_length() {
    let date = HttpDate::new(0);
    let text = String::from_utf8(written(answer(204, "never sent"), false, &date)).expect("text");
    let expected = "HTTP/1.1 204 No Content\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n";
    assert_eq!(text, expected);
}

#[test]
fn the_date_moves_on_with_the_clock() {
    let date = HttpDate::new(1_000_000_000_999_999_999);
    let told = |date: &HttpDate| {
        let text = String::from_utf8(written(answer(200, ""), false, date)).expect("text");
        let (_, from) = text.split_once("date: ").expect("a date");
        from.trim_end().to_owned()
    };
    assert_eq!(told(&date), "Sun, 09 Sep 2001 01:46:40 GMT");
    for (unix_ns, expected) in [
        (1_000_000_000_999_999_999, "Sun, 09 Sep 2001 01:46:40 GMT"),
        (1_000_000_001_000_000_000, "Sun, 09 Sep 2001 01:46:41 GMT"),
        (1_000_086_400_000_000_000, "Mon, 10 Sep 2001 01:46:40 GMT"),
        (1_000_000_000_000_000_000, "Sun, 09 Sep 2001 01:46:40 GMT"),
    ] {
        date.beat(unix_ns);
        assert_eq!(told(&date), expected);
    }
}
