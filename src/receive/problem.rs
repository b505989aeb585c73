//! A refusal as the sender sees it: a problem body after RFC 9457.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body_util::Full;

use super::serve::Answer;
use crate::reject::Reject;

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The answer to a refused request. After a 4xx the connection is closed, so that nothing that a
/// confused or hostile peer sent behind it is ever taken for a request.
pub fn refused(reject: Reject) -> Answer {
    let status = reject.status();
    let problem = format!(
        r#"{{"type":"about:blank","title":"{}","status":{},"detail":"{}","reason":"{}"}}"#,
        status.canonical_reason().unwrap_or_default(),
        status.as_u16(),
        reject.detail(),
        reject.label(),
    );
    let mut answer = Answer::new(Full::new(Bytes::from(problem)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
    match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        StatusCode::UNAUTHORIZED => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Signature"));
        }
        _ => {}
    }
    if let Some(seconds) = reject.retry_after_secs() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if status.is_client_error() || reject.before_body() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[test]
    fn every_refusal_is_a_problem_with_its_own_status_and_reason() {
        for reject in Reject::ALL {
            let answer = refused(reject);
            assert_eq!(answer.status(), reject.status());
            assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/problem+json");
            let retry = answer.headers().contains_key(header::RETRY_AFTER);
            assert_eq!(retry, answer.status() == StatusCode::SERVICE_UNAVAILABLE, "{reject:?}");
            let body = futures_util::FutureExt::now_or_never(answer.into_body().collect());
            let body = body.expect("a full body is ready").expect("it cannot fail").to_bytes();
            let problem: serde_json::Value = serde_json::from_slice(&body).expect("it is JSON");
            assert_eq!(problem["reason"], reject.label());
            assert_eq!(problem["status"], reject.status().as_u16());
        }
    }
}
