//! What an answer of SQS means, for the request or for each message of it.
//!
//! | code | class |
//! |---|---|
//! | throttling, a limit | overloaded |
//! | of a credential, a permission, the queue, its key of KMS, a clock | misconfigured |
//! | 5xx, a fault of the server's | temporary |
//! | other 4xx, a fault of the sender's | permanent |

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::Deserialize;

use crate::drain::sink::{Class, Failure};
use crate::drain::sinks::answer::words;

/// Codes that speak of no message. They come bare, behind a namespace, and with or without the
/// word `Exception` at their end.
const MISCONFIGURED: [&str; 24] = [
    "AccessDenied",
    "AuthFailure",
    "ExpiredToken",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidAction",
    "InvalidAddress",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "InvalidToken",
    "KmsAccessDenied",
    "KmsDisabled",
    "KmsInvalidKeyUsage",
    "KmsInvalidState",
    "KmsNotFound",
    "KmsOptInRequired",
    "MissingAuthenticationToken",
    "NonExistentQueue",
    "NotAuthorized",
    "OptInRequired",
    "QueueDeletedRecently",
    "QueueDoesNotExist",
    "SignatureDoesNotMatch",
    "UnrecognizedClient",
];
const OVERLOADED: [&str; 8] = [
    "KmsThrottled",
    "OverLimit",
    "RequestLimitExceeded",
    "RequestThrottled",
    "SlowDown",
    "Throttled",
    "Throttling",
    "TooManyRequests",
];
/// The codes of a caller who may not do what he asks for.
const NO_LEAVE: &str = "AccessDenied";

/// An error of the request.
#[derive(Debug, Default, Deserialize)]
struct Refusal {
    #[serde(rename = "__type", default)]
    code: String,
    #[serde(alias = "Message", default)]
    message: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Sent {
    #[serde(default)]
    successful: Vec<Taken>,
    #[serde(default)]
    failed: Vec<Refused>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Taken {
    id: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Refused {
    id: String,
    #[serde(default)]
    sender_fault: bool,
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// What became of each message that the answer names.
#[derive(Debug)]
pub(super) struct Verdicts(BTreeMap<String, Result<(), Failure>>);

impl Verdicts {
    /// Of the message with this place in its batch.
    pub(super) fn of(&self, place: usize) -> Result<(), Failure> {
        let told = self.0.get(&place.to_string()).cloned();
        told.unwrap_or_else(|| Err(Failure::temporary("the answer of SQS does not name it")))
    }
}

/// The body of an answer that is no refusal.
pub(super) fn body(answer: Response<Bytes>) -> Result<Bytes, Failure> {
    if answer.status().is_success() {
        return Ok(answer.into_body());
    }
    let refusal: Refusal = serde_json::from_slice(answer.body()).unwrap_or_default();
    let (status, code) = (answer.status(), bare(&refusal.code));
    let class = match class_of(code) {
        Some(class) => class,
        None => class_of_status(status),
    };
    let code = if code.is_empty() { status.canonical_reason().unwrap_or_default() } else { code };
    Err(failure(class, &format!("{} {code}", status.as_u16()), &refusal.message))
}

/// A verdict for each message of a request.
pub(super) fn verdicts(body: &[u8]) -> Result<Verdicts, Failure> {
    let Ok(sent) = serde_json::from_slice::<Sent>(body) else {
        return Err(Failure::temporary("the answer is none of SQS"));
    };
    let taken = sent.successful.into_iter().map(|taken| (taken.id, Ok(())));
    let refused = sent.failed.into_iter().map(|refused| {
        let code = bare(&refused.code);
        let fault = if refused.sender_fault { Class::Permanent } else { Class::Temporary };
        let class = class_of(code).unwrap_or(fault);
        let failure = failure(class, code, &refused.message);
        (refused.id, Err(failure))
    });
    Ok(Verdicts(taken.chain(refused).collect()))
}

/// Who may not look may still be allowed to send.
pub(super) fn but_for_leave(failure: Failure) -> Result<(), Failure> {
    let denied = failure.class == Class::Misconfigured && failure.reason.contains(NO_LEAVE);
    if denied { Ok(()) } else { Err(failure) }
}

fn failure(class: Class, code: &str, message: &str) -> Failure {
    let gap = if message.is_empty() { "" } else { ": " };
    Failure::new(class, format!("SQS answers {}{gap}{}", words(code), words(message)))
}

/// `com.amazonaws.sqs#RequestThrottled` and `AWS.SimpleQueueService.NonExistentQueue` without what
/// is in front.
fn bare(code: &str) -> &str {
    let code = code.rsplit('#').next().unwrap_or_default();
    code.rsplit('.').next().unwrap_or_default()
}

fn class_of(code: &str) -> Option<Class> {
    let code = code.strip_suffix("Exception").unwrap_or(code);
    if OVERLOADED.contains(&code) {
        return Some(Class::Overloaded);
    }
    MISCONFIGURED.contains(&code).then_some(Class::Misconfigured)
}

fn class_of_status(status: StatusCode) -> Class {
    match status.as_u16() {
        429 | 503 => Class::Overloaded,
        408 | 425 | 500.. => Class::Temporary,
        // No redirect is followed, and no 4xx but these speaks of a message.
        400 | 413 => Class::Permanent,
        _ => Class::Misconfigured,
    }
}
