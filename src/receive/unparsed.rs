//! The answers that hyper gives by itself, to heads that are no request, made problems like all
//! others.
//!
//! hyper tells nobody before it answers 400, 414 or 431 with an empty body and closes. But while
//! no request has been handed over, nothing else is ever written, so its answer is known when it
//! passes by.

use bytes::Bytes;
use http::StatusCode;

use crate::reject::Reject;

/// The problem in the place of an answer without a body; none if this is no such answer.
pub(super) fn problem(answer: &[u8]) -> Option<Bytes> {
    let code = answer.strip_prefix(b"HTTP/1.1 ").or_else(|| answer.strip_prefix(b"HTTP/1.0 "))?;
    let status = StatusCode::from_bytes(code.get(..3)?).ok()?;
    if !status.is_client_error() || !answer.ends_with(b"\r\n\r\n") {
        return None;
    }
    let (reason, title) = (Reject::HeadMalformed, status.canonical_reason().unwrap_or("Refused"));
    let status = status.as_u16();
    let body = format!(
        r#"{{"type":"about:blank","title":"{title}","status":{status},"detail":"{}","reason":"{}"}}"#,
        reason.detail(),
        reason.label(),
    );
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} {title}\r\ncontent-type: application/problem+json\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n"
    );
    Some(Bytes::from(head + &body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_hyper_becomes_a_problem_and_nothing_else_does() {
        let empty = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
                      content-length: 0\r\n\r\n";
        let problem = problem(empty).expect("it is one");
        let text = std::str::from_utf8(&problem).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{head}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!((&body["status"], &body["reason"]), (&431.into(), &"head_malformed".into()));
        for other in
            ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 400", "", "x"]
        {
            assert!(super::problem(other.as_bytes()).is_none(), "{other}");
        }
    }
}
