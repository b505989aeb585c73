//! What follows from an error of a store.

use std::error::Error as _;
use std::io;

use object_store::Error;

use crate::drain::sink::{Class, Failure};
use crate::drain::sinks::answer::{chain, unconnected, words};

/// Behind these words the client tells the status; its own type for it is private.
const STATUS: &str = "status code: ";

/// Why an object was not written or read.
pub(super) fn of_error(error: &Error) -> Failure {
    let told = told(error);
    match error {
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            misconfigured("refuses forebay's credentials", &told)
        }
        // Of an object that may be missing the caller knows before.
        Error::NotFound { .. } => misconfigured("has no such bucket or folder", &told),
        Error::NotImplemented { .. } | Error::NotSupported { .. } | Error::InvalidPath { .. } => {
            misconfigured("cannot do what the sink needs", &told)
        }
        _ => of_other(error, &told),
    }
}

fn misconfigured(what: &str, told: &str) -> Failure {
    Failure::new(Class::Misconfigured, format!("the store {what}: {told}"))
}

fn of_other(error: &Error, told: &str) -> Failure {
    if let Some(status) = status_of(error) {
        let reason = format!("the store answers {told}");
        return match status {
            429 | 503 => Failure::new(Class::Overloaded, reason),
            // S3 says so of a body that came too slowly.
            400 if told.contains("RequestTimeout") => Failure::temporary(reason),
            408 | 409 | 500.. => Failure::temporary(reason),
            _ => Failure::new(Class::Misconfigured, reason),
        };
    }
    match chain(error).find_map(|cause| cause.downcast_ref::<io::Error>()) {
        Some(cause) if of_a_person(cause.kind()) => misconfigured("is not to be written", told),
        _ if error.source().is_some() => unconnected(error),
        _ => Failure::temporary(told.to_owned()),
    }
}

/// What no waiting cures.
fn of_a_person(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{IsADirectory, NotADirectory, PermissionDenied, ReadOnlyFilesystem};
    matches!(kind, IsADirectory | NotADirectory | PermissionDenied | ReadOnlyFilesystem)
}

/// The status of an answer, if there was one.
fn status_of(error: &Error) -> Option<u16> {
    chain(error).find_map(|cause| {
        let text = cause.to_string();
        let (_, behind) = text.split_once(STATUS)?;
        behind.get(..3)?.parse().ok()
    })
}

/// What the store said: status and code, or else the innermost cause.
fn told(error: &Error) -> String {
    let text = chain(error).last().map(ToString::to_string).unwrap_or_default();
    let code = text
        .split_once("<Code>")
        .and_then(|(_, behind)| behind.split_once("</Code>"))
        .map(|(code, _)| code);
    match (status_of(error), code) {
        (Some(status), Some(code)) => format!("{status} {}", words(code)),
        _ => words(&text),
    }
}
