//! What the sinks that hold a connection have in common: verdicts into an answer, errors into
//! text that may be logged.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::drain::sink::{Class, Delivered, Failure};

/// The longest part of a destination's own words that is told on.
const WORDS_CHARS_MAX: usize = 200;

/// One verdict for each event, or the one that holds for all.
pub fn gathered(verdicts: Vec<Result<(), Failure>>) -> Delivered {
    if verdicts.iter().all(Result::is_ok) { Delivered::All } else { Delivered::Each(verdicts) }
}

/// The same of verdicts in any order, each with its place in a batch of so many; what none speaks
/// of is done.
pub fn in_places(count: usize, told: Vec<(usize, Result<(), Failure>)>) -> Delivered {
    let mut verdicts = vec![Ok(()); count];
    for (place, verdict) in told {
        if let Some(kept) = verdicts.get_mut(place) {
            *kept = verdict;
        }
    }
    gathered(verdicts)
}

/// How long a sink itself waits within the time that a batch may take: somewhat less, so that it
/// is the sink that says what it waited for.
pub fn patience(timeout: Duration) -> Duration {
    timeout * 9 / 10
}

/// The work's own outcome, or a failure that may pass once its time is up.
pub async fn within<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(timeout, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(timed_out(timeout)),
    }
}

/// Nothing was heard for this long.
pub fn timed_out(timeout: Duration) -> Failure {
    Failure::temporary(format!("no answer within {}", humantime::format_duration(timeout)))
}

/// A destination's own words, on one line and of a bounded length.
pub fn words(text: &str) -> String {
    text.chars().take(WORDS_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Why there is no connection. A certificate that does not hold will not pass by itself.
pub fn unconnected(error: &(dyn Error + 'static)) -> Failure {
    if let Some(why) = refused_certificate(error) {
        let reason = format!("the server's certificate is refused: {}", words(&why));
        return Failure::new(Class::Misconfigured, reason);
    }
    Failure::temporary(format!("cannot connect: {}", words(&innermost(error))))
}

fn refused_certificate(error: &(dyn Error + 'static)) -> Option<String> {
    chain(error).find_map(|cause| match cause.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::InvalidCertificate(why)) => Some(format!("{why:?}")),
        _ => None,
    })
}

/// The last cause, which says what happened where the first says only during what.
fn innermost(error: &(dyn Error + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

/// The error and its causes, also those that an `io::Error` or an `Arc` wraps and does not own up to.
pub fn chain<'e>(
    error: &'e (dyn Error + 'static),
) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| cause(*error))
}

fn cause<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    if let Some(shared) = error.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
        return Some(&**shared);
    }
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_certificate_is_found_under_its_wrappings() {
        let refused = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let wrapped = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, refused));
        let failure = unconnected(&wrapped);
        assert_eq!(failure.class, Class::Misconfigured);
        assert!(failure.reason.contains("UnknownIssuer"), "{failure}");
        // As the client of Redis hands it on.
        let shared: Arc<dyn Error + Send + Sync> = Arc::new(wrapped);
        assert_eq!(unconnected(&shared), failure);
    }

    #[test]
    fn any_other_failure_to_connect_may_pass() {
        let failure = unconnected(&io::Error::from(io::ErrorKind::ConnectionRefused));
        assert_eq!(failure, Failure::temporary("cannot connect: connection refused"));
    }

    #[test]
    fn words_stay_on_one_line() {
        assert_eq!(words("a\r\nb"), "a  b");
        assert_eq!(words(&"x".repeat(1000)).len(), WORDS_CHARS_MAX);
    }
}
