//! Requests whose signature can be read and is wrong.

use std::ops::Range;

use forebay::verify::{Algorithm, SignatureEncoding, SignedRequest};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::support::Case;

/// Where the signature stands, and the text around it.
pub(crate) struct Target {
    pub(crate) carrier: Carrier,
    pub(crate) text: Vec<u8>,
    /// The signature inside of the text.
    range: Range<usize>,
}

/// What carries it.
pub(crate) enum Carrier {
    Header(HeaderName),
    Query,
    Body,
}

impl Target {
    /// Finds the signature of a request.
    pub(crate) fn of(case: &Case) -> Option<Self> {
        let SignedRequest { target, headers, body } = &case.request;
        let scheme = &case.family.scheme;
        let header = match scheme.algorithm {
            Algorithm::Basic => "authorization",
            _ => &*scheme.header,
        };
        let (carrier, text, end) = if scheme.signature.is_some() {
            // The first signature: it has quotes around it.
            let text = String::from_utf8(body.clone()).ok()?;
            let label = if scheme.each.is_some() { "\"signature\":\"" } else { "\"value\":\"" };
            let start = text.find(label)? + label.len();
            let end = start + text.get(start..)?.find('"')?;
            (Carrier::Body, text.into_bytes(), end)
        } else if scheme.query.is_some() {
            (Carrier::Query, target.clone().into_bytes(), target.len())
        } else {
            let (name, value) = headers.iter().find(|(name, _)| *name == header)?;
            (Carrier::Header(name.clone()), value.as_bytes().to_vec(), value.len())
        };
        let hex = scheme.signature_encoding == Some(SignatureEncoding::Hex);
        let part = |byte: u8| match (scheme.algorithm, scheme.format) {
            (Algorithm::Token, _) => byte.is_ascii_alphanumeric() || b"%-:".contains(&byte),
            _ if hex => byte.is_ascii_hexdigit(),
            _ => byte.is_ascii_alphanumeric() || b"+/=-_".contains(&byte),
        };
        let behind = text.get(..end)?.iter().rposition(|byte| !part(*byte));
        Some(Self { carrier, range: behind.map_or(0, |at| at + 1)..end, text })
    }

    /// Puts the text back into a request.
    pub(crate) fn put(&self, headers: &mut HeaderMap, query: &mut String, body: &mut [u8]) {
        match &self.carrier {
            Carrier::Header(name) => {
                let value = HeaderValue::from_bytes(&self.text).expect("a value");
                headers.insert(name, value);
            }
            Carrier::Query => {
                query.clear();
                query.push_str(std::str::from_utf8(&self.text).expect("text"));
            }
            Carrier::Body => body.copy_from_slice(&self.text),
        }
    }

    /// Makes the signature wrong at its first character, or near its last. Says where, and what
    /// stood there.
    pub(crate) fn spoil(&mut self, near: bool, random: u64) -> (usize, u8) {
        // The last characters of base64 hold padding and spare bits.
        let at = if near { self.range.end - 4 } else { self.range.start };
        let digits = b"0123456789abcdef";
        let right = self.text[at];
        let mut digit = digits[usize::try_from(random % 16).unwrap_or(0)];
        if digit == right {
            digit = if right == b'0' { b'1' } else { b'0' };
        }
        self.text[at] = digit;
        (at, right)
    }
}
