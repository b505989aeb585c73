//! What an answer of Pub/Sub means.
//!
//! | status | class |
//! |---|---|
//! | 429, 503 | overloaded |
//! | 408, 409, 499, other 5xx | temporary |
//! | 400, 413, but for `FAILED_PRECONDITION` | permanent |
//! | other 3xx and 4xx: of a credential, a permission, the topic | misconfigured |

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::Deserialize;

use crate::drain::sink::{Class, Failure};
use crate::drain::sinks::answer::words;

/// A key of the topic, or a region that its messages may not go through.
const PRECONDITION: &str = "FAILED_PRECONDITION";
/// Of a caller who may not do what he asks for.
const NO_LEAVE: &str = "PERMISSION_DENIED";

#[derive(Debug, Default, Deserialize)]
struct Answer {
    #[serde(default)]
    error: Refusal,
}

#[derive(Debug, Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    status: String,
    #[serde(default)]
    message: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Published {
    #[serde(default)]
    message_ids: Vec<String>,
}

/// The body of an answer that is no refusal.
pub(super) fn body(answer: Response<Bytes>) -> Result<Bytes, Failure> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer.into_body());
    }
    let Answer { error } = serde_json::from_slice(answer.body()).unwrap_or_default();
    let word = match error.status.as_str() {
        "" => status.canonical_reason().unwrap_or_default(),
        word => word,
    };
    let gap = if error.message.is_empty() { "" } else { ": " };
    let reason = format!(
        "Pub/Sub answers {} {}{gap}{}",
        status.as_u16(),
        words(word),
        words(&error.message)
    );
    Err(Failure::new(class_of(status, &error.status), reason))
}

fn class_of(status: StatusCode, word: &str) -> Class {
    match status.as_u16() {
        429 | 503 => Class::Overloaded,
        408 | 409 | 499.. => Class::Temporary,
        400 | 413 if word != PRECONDITION => Class::Permanent,
        _ => Class::Misconfigured,
    }
}

/// An answer has an id for each message.
pub(super) fn must_name(body: &[u8], count: usize) -> Result<(), Failure> {
    let published: Option<Published> = serde_json::from_slice(body).ok();
    let named = published.is_some_and(|published| published.message_ids.len() == count);
    named.then_some(()).ok_or_else(|| Failure::temporary("the answer is none of Pub/Sub"))
}

/// Who may not look may still be allowed to publish.
pub(super) fn but_for_leave(failure: Failure) -> Result<(), Failure> {
    let denied = failure.class == Class::Misconfigured && failure.reason.contains(NO_LEAVE);
    if denied { Ok(()) } else { Err(failure) }
}
