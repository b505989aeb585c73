//! Answers as they go over the wire.

use std::cell::{Cell, RefCell};
use std::io::Write as _;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{StatusCode, header};

/// What a request is answered with.
pub type Answer = http::Response<Bytes>;

/// The time of day as HTTP writes it, written once a second.
#[derive(Debug, Default)]
pub struct HttpDate {
    second: Cell<u64>,
    text: RefCell<String>,
}

impl HttpDate {
    /// The date of this moment, in nanoseconds since 1970.
    pub fn new(unix_ns: u64) -> Self {
        let date = Self::default();
        date.write(unix_ns / 1_000_000_000);
        date
    }

    /// Moves the date on.
    pub fn beat(&self, unix_ns: u64) {
        let second = unix_ns / 1_000_000_000;
        if self.second.get() != second {
            self.write(second);
        }
    }

    fn write(&self, second: u64) {
        let moment = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        self.second.set(second);
        *self.text.borrow_mut() = httpdate::fmt_http_date(moment);
    }
}

/// Writes an answer behind `wire`, as hyper does; `closing` says that it is the connection's last.
pub(super) fn write_answer(answer: Answer, closing: bool, date: &HttpDate, wire: &mut Vec<u8>) {
    let status = answer.status();
    // Writing to a vector cannot fail.
    if status == StatusCode::OK {
        wire.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        let reason = status.canonical_reason().unwrap_or("<none>");
        _ = write!(wire, "HTTP/1.1 {} {reason}\r\n", status.as_str());
    }
    let (head, body) = answer.into_parts();
    for (name, value) in &head.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            wire.extend_from_slice(part);
        }
    }
    if closing && !head.headers.contains_key(header::CONNECTION) {
        wire.extend_from_slice(b"connection: close\r\n");
    }
    let body = if status == StatusCode::NO_CONTENT { Bytes::new() } else { body };
    if !body.is_empty() {
        _ = write!(wire, "content-length: {}\r\n", body.len());
    } else if status != StatusCode::NO_CONTENT {
        wire.extend_from_slice(b"content-length: 0\r\n");
    }
    wire.extend_from_slice(b"date: ");
    wire.extend_from_slice(date.text.borrow().as_bytes());
    wire.extend_from_slice(b"\r\n\r\n");
    wire.extend_from_slice(&body);
}
