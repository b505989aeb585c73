//! The head of a usual request: parsed in place, and kept for what it has in common with the next.
//!
//! httparse, which is hyper's parser too, finds the lines. A sender's requests differ in a few
//! values only, so the head that it found is kept as a form, and a head that follows the form byte
//! by byte but for its values is taken without parsing it again: what stands between the values is
//! compared, and a value that has changed ends where its line does. Whatever this file does not
//! expect is unusual, never wrong: hyper judges it.

use std::mem::MaybeUninit;
use std::ops::Range;

use forebay_log::planted::{self, Bug};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};

use crate::limits::{HEADERS_MAX, READ_BYTES};

/// What bytes begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// A usual head: how long it is, and how long it says that its body is.
    Usual { head_bytes: usize, body_bytes: u64 },
    /// A part of a head.
    Part,
    /// Something else.
    Unusual,
}

/// The head of a connection's last usual request.
#[derive(Debug)]
pub(super) struct LastHead {
    parts: Parts,
    form: Form,
}

/// A head that was parsed, and where in it the values of its lines are, in the order in which the
/// map gives them. Without a place for a value it is none.
#[derive(Debug, Default)]
struct Form {
    bytes: Vec<u8>,
    values: Vec<Range<usize>>,
}

impl LastHead {
    /// That of no request.
    pub(super) fn none() -> Self {
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = Method::POST;
        Self { parts, form: Form::default() }
    }

    /// The head that was last seen to be usual.
    pub(super) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Takes the head that `bytes` begin with in the place of the last, if it is usual.
    pub(super) fn see(&mut self, bytes: &[u8]) -> Seen {
        match self.form.fill(bytes, &mut self.parts.headers) {
            Some((head_bytes, body_bytes)) => Seen::Usual { head_bytes, body_bytes },
            None => self.parse(bytes),
        }
    }

    fn parse(&mut self, bytes: &[u8]) -> Seen {
        self.form.values.clear();
        let mut lines = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut []);
        let head_bytes = match request.parse_with_uninit_headers(bytes, &mut lines) {
            Ok(httparse::Status::Complete(head_bytes)) if head_bytes <= READ_BYTES => head_bytes,
            Ok(httparse::Status::Partial) => return Seen::Part,
            Ok(httparse::Status::Complete(_)) | Err(_) => return Seen::Unusual,
        };
        let (Some("POST"), Some(1), Some(target)) = (request.method, request.version, request.path)
        else {
            return Seen::Unusual;
        };
        if !self.take_target(target) {
            return Seen::Unusual;
        }
        let Some(body_bytes) = self.take_lines(request.headers) else { return Seen::Unusual };
        let head = bytes.get(..head_bytes).unwrap_or_default();
        self.form.make(head, request.headers, &self.parts.headers);
        Seen::Usual { head_bytes, body_bytes }
    }

    /// Takes a target in origin form that is nothing but a path and a query.
    fn take_target(&mut self, target: &str) -> bool {
        let Ok(uri) = Uri::try_from(target) else { return false };
        let whole = uri.path_and_query().is_some_and(|known| known.as_str() == target);
        self.parts.uri = uri;
        whole && target.starts_with('/')
    }

    /// Takes lines that are those of a usual request, and gives the length that one of them tells.
    fn take_lines(&mut self, lines: &[httparse::Header<'_>]) -> Option<u64> {
        let headers = &mut self.parts.headers;
        headers.clear();
        for line in lines {
            let name = HeaderName::from_bytes(line.name.as_bytes()).ok()?;
            let value = HeaderValue::from_bytes(line.value).ok()?;
            if is_unusual(&name, &value) {
                return None;
            }
            headers.append(name, value);
        }
        let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
        let length = lengths.next()?;
        if lengths.next().is_some() && !planted::has(Bug::LengthTwice) {
            return None;
        }
        digits(length.as_bytes())
    }
}

impl Form {
    /// Makes a form of `head`, whose lines `headers` holds; none where the map gives them in another
    /// order, or where the place of a value is not plain.
    fn make(&mut self, head: &[u8], lines: &[httparse::Header<'_>], headers: &HeaderMap) {
        self.bytes.clear();
        self.bytes.extend_from_slice(head);
        for (line, (name, _)) in lines.iter().zip(headers) {
            let start = line.value.as_ptr().addr().wrapping_sub(head.as_ptr().addr());
            let place = start..start.saturating_add(line.value.len());
            let plain = !line.value.is_empty()
                && head.get(place.clone()) == Some(line.value)
                && name.as_str().eq_ignore_ascii_case(line.name);
            if !plain {
                self.values.clear();
                return;
            }
            self.values.push(place);
        }
    }

    /// Takes the values of a head that follows the form, and gives its length and that of its body.
    /// On nothing, `headers` are neither those of the last head nor of this one.
    fn fill(&self, bytes: &[u8], headers: &mut HeaderMap) -> Option<(usize, u64)> {
        let (mut rest, mut behind, mut length) = (bytes, 0, None);
        for (place, (name, value)) in self.values.iter().zip(headers) {
            let between = self.bytes.get(behind..place.start)?;
            rest = if planted::has(Bug::FormUnread) {
                rest.get(between.len()..)?
            } else {
                rest.strip_prefix(between)?
            };
            behind = place.end;
            match rest.strip_prefix(value.as_bytes()) {
                Some(more) if more.first() == Some(&b'\r') => rest = more,
                _ => {
                    let (changed, more) = rest.split_at_checked(memchr::memchr(b'\r', rest)?)?;
                    if changed.is_empty() || changed.trim_ascii() != changed {
                        return None;
                    }
                    *value = HeaderValue::from_bytes(changed).ok()?;
                    rest = more;
                    if is_unusual(name, value) {
                        return None;
                    }
                }
            }
            if *name == header::CONTENT_LENGTH {
                let formed = planted::has(Bug::LengthKept);
                let text = if formed { self.bytes.get(place.clone())? } else { value.as_bytes() };
                length = Some(digits(text)?);
            }
        }
        rest = rest.strip_prefix(self.bytes.get(behind..)?)?;
        let head_bytes = bytes.len() - rest.len();
        (head_bytes <= READ_BYTES).then_some((head_bytes, length?))
    }
}

/// Whether a line asks for more than that the request be taken and the connection kept.
fn is_unusual(name: &HeaderName, value: &HeaderValue) -> bool {
    match *name {
        header::CONNECTION => !value.as_bytes().eq_ignore_ascii_case(b"keep-alive"),
        header::TRANSFER_ENCODING => !planted::has(Bug::CodingUsual),
        header::EXPECT | header::UPGRADE => true,
        _ => false,
    }
}

/// A length in the one form in which everybody reads it alike.
fn digits(value: &[u8]) -> Option<u64> {
    let usual = matches!(value.len(), 1..=18) && value.iter().all(u8::is_ascii_digit);
    usual.then(|| value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}
