//! What an answer means for the events of the request.
//!
//! | status | class | why |
//! |---|---|---|
//! | 2xx | done | |
//! | 3xx | misconfigured | redirects are not followed: the URL has to be corrected |
//! | 401, 402, 403, 404, 405, 407, 410, 421 | misconfigured | they speak of the URL or the credential, the same for every event: none is given up, and a person has to act |
//! | 408, 425 | temporary | |
//! | 429, 503 | overloaded | with `Retry-After` where it is given |
//! | other 4xx | permanent | the event itself is refused |
//! | other 5xx | temporary | `Retry-After` counts here too |

use std::time::Duration;

use forebay_log::Clock;
use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use jiff::fmt::rfc2822::DateTimeParser;

use crate::drain::sink::{Class, Failure};

/// No destination silences a sink for longer than this; then it is asked again.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// The verdict over all events of a request.
pub(super) fn verdict(
    status: StatusCode,
    headers: &HeaderMap,
    clock: &Clock,
) -> Result<(), Failure> {
    let Some(class) = class_of(status) else { return Ok(()) };
    let text = status.canonical_reason().unwrap_or_default();
    let mut reason = format!("answered {} {text}", status.as_u16());
    if status.is_redirection() {
        reason.push_str(", which is not followed; write the final URL");
    }
    let retry_after = match class {
        Class::Temporary | Class::Overloaded => retry_after(headers, clock),
        Class::Permanent | Class::Misconfigured => None,
    };
    Err(Failure { class, reason: reason.into(), retry_after })
}

/// None: the destination has the events.
fn class_of(status: StatusCode) -> Option<Class> {
    Some(match status.as_u16() {
        200..=299 => return None,
        429 | 503 => Class::Overloaded,
        401..=405 | 407 | 410 | 421 | 100..=199 | 300..=399 => Class::Misconfigured,
        408 | 425 | 500..=599 => Class::Temporary,
        _ => Class::Permanent,
    })
}

/// Seconds, or a date of HTTP.
pub(super) fn retry_after(headers: &HeaderMap, clock: &Clock) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let at = DateTimeParser::new().parse_timestamp(text).ok()?;
        let at_ns = u64::try_from(at.as_nanosecond()).ok()?;
        Duration::from_nanos(at_ns.saturating_sub(clock.wall_ns()))
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
    const EXAMPLE_NS: u64 = 784_111_777_000_000_000;

    fn told(status: u16, wait: Option<&str>) -> Result<(), Failure> {
        let status = StatusCode::from_u16(status).expect("a status");
        let mut headers = HeaderMap::new();
        if let Some(wait) = wait {
            headers.insert(RETRY_AFTER, wait.parse().expect("a value"));
        }
        verdict(status, &headers, &Clock::fixed(EXAMPLE_NS - 90_000_000_000))
    }

    #[test]
    fn every_status_has_its_class() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(told(status, None), Ok(()));
        }
        let classes = [
            (
                Class::Misconfigured,
                &[301, 302, 307, 308, 401, 402, 403, 404, 405, 407, 410, 421][..],
            ),
            (Class::Temporary, &[408, 425, 500, 501, 502, 504, 507, 599]),
            (Class::Overloaded, &[429, 503]),
            (Class::Permanent, &[400, 406, 409, 411, 413, 415, 418, 422, 431, 451, 499]),
        ];
        for (class, statuses) in classes {
            for status in statuses {
                let failure = told(*status, None).expect_err("is a failure");
                assert_eq!(failure.class, class, "{status}");
                assert!(failure.reason.contains(&status.to_string()), "{}", failure.reason);
            }
        }
    }

    #[test]
    fn the_wait_is_read_as_seconds_and_as_a_date_and_only_where_a_retry_follows() {
        let wait = |status, text| told(status, Some(text)).expect_err("is a failure").retry_after;
        assert_eq!(wait(429, "7"), Some(Duration::from_secs(7)));
        assert_eq!(wait(503, "Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(90)));
        // A moment that has passed, more than a day, and what is neither.
        assert_eq!(wait(503, "Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait(429, "99999999"), Some(RETRY_AFTER_MAX));
        assert_eq!(wait(429, "soon"), None);
        assert_eq!(wait(400, "7"), None);
    }
}
