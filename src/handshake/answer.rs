//! How a handshake is answered, and what of a request may stand in such an answer.
//!
//! Anybody can ask an unsigned handshake, so what is given back is short, of harmless characters
//! and never taken for a page. A MAC is made only of a token that no signed bytes of the scheme
//! can be, so an answer is never a signature of anything.

use std::borrow::Cow;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode, header};
use ring::hmac;

use super::place::Place;
use super::spec::AnswerSpec;
use crate::limits::{CHALLENGE_BYTES_MAX, MAC_TOKEN_BYTES_MAX};
use crate::receive::Answer;
use crate::reject::Reject;
use crate::verify::json::{Paths, Values};
use crate::verify::{SchemeSpec, SignatureEncoding, SpecError};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

/// A compiled answer.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    Echo { from: Place, into: Into },
    Mac { from: Place, token_field: Box<str>, mac_field: Box<str>, encoding: SignatureEncoding },
    Fixed { status: StatusCode, content_type: Option<HeaderValue>, body: Bytes },
    AllowOrigin { from: Place },
    Confirm { url: Place },
}

/// How an echo is given back.
#[derive(Clone, Debug)]
pub(super) enum Into {
    Text,
    Json(Box<str>),
    Header(HeaderName),
}

/// A request as an answer reads it.
pub(super) struct Asked<'r, 'v> {
    pub(super) head: &'r Parts,
    pub(super) body: &'v Values<'r>,
    /// Makes the MAC of a token under the secret that signed the request, if one did and can.
    pub(super) mac: &'v dyn Fn(&[u8]) -> Option<hmac::Tag>,
}

impl<'r> Asked<'r, '_> {
    pub(super) fn text(&self, place: &Place) -> Option<Cow<'r, str>> {
        place.text(self.head, self.body)
    }
}

fn wrong<T>(message: impl std::convert::Into<String>) -> Result<T, SpecError> {
    Err(SpecError::new("handshakes", message))
}

impl Reply {
    /// Compiles an answer to requests that `scheme` signs, or that are not `signed`.
    pub(super) fn new(
        spec: &AnswerSpec,
        paths: &mut Paths,
        scheme: &SchemeSpec,
        signed: bool,
    ) -> Result<Self, SpecError> {
        Ok(match spec {
            AnswerSpec::Echo { from, into } => {
                Self::Echo { from: Place::new(from, paths)?, into: Into::new(into)? }
            }
            AnswerSpec::Mac { from, token_field, mac_field, encoding } => {
                if !signed {
                    return wrong(
                        "would make MACs for strangers; let the sender sign the handshake",
                    );
                }
                if !separates(scheme) {
                    return wrong(
                        "would make MACs that could be signatures; the scheme must sign a literal \
                         that no token holds, such as \"literal:v0:\"",
                    );
                }
                let field = |text: &String| {
                    let no_field = || wrong(format!("{text:?} is no field; use plain letters"));
                    if harmless(text) { Ok(text.as_str().into()) } else { no_field() }
                };
                Self::Mac {
                    from: Place::new(from, paths)?,
                    token_field: field(token_field)?,
                    mac_field: field(mac_field)?,
                    encoding: *encoding,
                }
            }
            AnswerSpec::Fixed { status, content_type, body } => {
                let status = StatusCode::from_u16(*status).ok().filter(StatusCode::is_success);
                let Some(status) = status else {
                    return wrong("has no status of success; write one from 200 to 299");
                };
                let content_type = match content_type.as_deref().map(HeaderValue::from_str) {
                    None => None,
                    Some(Ok(value)) => Some(value),
                    Some(Err(_)) => return wrong("has a content type that is none"),
                };
                Self::Fixed { status, content_type, body: Bytes::from(body.clone()) }
            }
            AnswerSpec::AllowOrigin { from } => {
                Self::AllowOrigin { from: Place::new(from, paths)? }
            }
            AnswerSpec::Confirm { .. } if !signed => {
                return wrong("would follow a stranger; let the sender sign the handshake");
            }
            AnswerSpec::Confirm { url } => Self::Confirm { url: Place::new(url, paths)? },
        })
    }

    /// The answer. None where the request goes on to be stored as an event: an invitation to
    /// confirm, and a signed request that only looks like a handshake.
    pub(super) fn to(&self, asked: &Asked<'_, '_>) -> Result<Option<Answer>, Reject> {
        Ok(match self {
            Self::Echo { from, into } => {
                let challenge = asked.text(from).filter(|text| harmless(text));
                challenge.and_then(|text| into.answer(&text))
            }
            Self::Mac { from, token_field, mac_field, encoding } => {
                let token = asked.text(from).filter(|token| is_token(token));
                let Some(token) = token else { return Ok(None) };
                // A source of public keys makes no MACs; its preset has no such handshake.
                let Some(tag) = (asked.mac)(token.as_bytes()) else {
                    return Err(Reject::CannotVerify);
                };
                let mac = encoding.encode(tag.as_ref());
                let body = format!(r#"{{"{token_field}":"{token}","{mac_field}":"{mac}"}}"#);
                Some(answer(JSON, body))
            }
            Self::Fixed { status, content_type, body } => {
                let mut answer = Answer::new(body.clone());
                *answer.status_mut() = *status;
                if let Some(value) = content_type {
                    answer.headers_mut().insert(header::CONTENT_TYPE, value.clone());
                }
                Some(answer)
            }
            Self::AllowOrigin { from } => {
                let origin = asked.text(from).filter(|text| harmless(text));
                origin.and_then(|origin| HeaderValue::from_str(&origin).ok()).map(allow_origin)
            }
            // Not answered, but kept and perhaps followed.
            Self::Confirm { .. } => None,
        })
    }
}

impl Into {
    fn new(text: &str) -> Result<Self, SpecError> {
        match text.split_once(':') {
            None if text == "text" => Ok(Self::Text),
            Some(("json", field)) if harmless(field) => Ok(Self::Json(field.into())),
            Some(("header", name)) => match name.parse() {
                Ok(name) => Ok(Self::Header(name)),
                Err(_) => wrong(format!("{name:?} names no header")),
            },
            _ => wrong(format!(
                "{text:?} is no form; write \"text\", \"json:FIELD\" or \"header:NAME\""
            )),
        }
    }

    fn answer(&self, challenge: &str) -> Option<Answer> {
        Some(match self {
            Self::Text => answer(TEXT, challenge.to_owned()),
            Self::Json(field) => answer(JSON, format!(r#"{{"{field}":"{challenge}"}}"#)),
            Self::Header(name) => {
                let mut answer = answer(JSON, String::new());
                answer.headers_mut().insert(name, HeaderValue::from_str(challenge).ok()?);
                answer
            }
        })
    }
}

/// 200 with what was asked for. It may be of a stranger's choice, so no browser is to guess what
/// it is.
fn answer(media_type: HeaderValue, body: String) -> Answer {
    let mut answer = Answer::new(Bytes::from(body));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, media_type);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

fn allow_origin(origin: HeaderValue) -> Answer {
    let mut answer = Answer::default();
    let headers = answer.headers_mut();
    headers.insert(ALLOWED_ORIGIN, origin);
    headers.insert(ALLOWED_RATE, HeaderValue::from_static("*"));
    headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
    answer
}

/// What may be given back: short, and the same in text, JSON, HTML and a header.
fn harmless(text: &str) -> bool {
    let plain = |byte: u8| (b' '..=b'~').contains(&byte) && !b"<>\"'&\\".contains(&byte);
    (1..=CHALLENGE_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain)
}

const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// What a MAC may be made of: a token of the alphabet of base64url.
fn is_token(text: &str) -> bool {
    (1..=MAC_TOKEN_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_token_byte)
}

/// Whether every message that the scheme signs holds a literal that no token can hold, so that the
/// MAC of a token is never a signature.
fn separates(scheme: &SchemeSpec) -> bool {
    let literals = scheme.signed.iter().filter_map(|part| part.strip_prefix("literal:"));
    literals.flat_map(str::bytes).any(|byte| !is_token_byte(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_short_and_harmless() {
        for good in ["1158201444", "Validation: Testing 0-9 Request-Id: a/b+c=", "a"] {
            assert!(harmless(good), "{good}");
        }
        let long = "a".repeat(CHALLENGE_BYTES_MAX + 1);
        for bad in ["", "<script>", "a\"b", "a\r\nb", "a\\u0022", "caf\u{e9}", "&lt;", "'", &long] {
            assert!(!harmless(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_token_can_be_no_message() {
        assert!(is_token("qgg8vlvZRS6UYooatFL8Aw") && is_token("a-b_c"));
        let long = "a".repeat(MAC_TOKEN_BYTES_MAX + 1);
        for bad in ["", "v0:1700000000:{}", "a b", "{}", "a.b", "a:b", "a=", &long] {
            assert!(!is_token(bad), "{bad:?}");
        }
    }
}
