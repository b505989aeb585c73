//! What a sender is told: an acknowledgement in its own form, or a problem body after RFC 9457.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

use super::answer::Answer;
use crate::reject::Reject;
use crate::verify::Answers;

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The answer to an event that is kept.
pub fn accepted(answers: &Answers) -> Answer {
    let mut answer = Answer::new(answers.success_body.clone());
    *answer.status_mut() = answers.success_status;
    if let Some(media_type) = &answers.success_type {
        answer.headers_mut().insert(header::CONTENT_TYPE, media_type.clone());
    }
    answer
}

/// The answer to a refused request, in the statuses that its sender understands. After a 4xx the
/// connection is closed, so that nothing that a confused or hostile peer sent behind it is ever
/// taken for a request.
pub fn refused(reject: Reject, answers: &Answers) -> Answer {
    let status = answers.status(reject);
    let mut answer = if status.is_success() {
        // The sender wants it swallowed; nobody reads a problem then.
        Answer::default()
    } else {
        problem(reject, status)
    };
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        StatusCode::UNAUTHORIZED => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Signature"));
        }
        _ => {}
    }
    if let Some(wait) = reject.retry_after()
        && let Some(seconds) = answers.retry_after_secs(wait)
    {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if reject.status().is_client_error() || reject.before_body() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

fn problem(reject: Reject, status: StatusCode) -> Answer {
    let problem = format!(
        r#"{{"type":"about:blank","title":"{}","status":{},"detail":"{}","reason":"{}"}}"#,
        status.canonical_reason().unwrap_or("Refused"),
        status.as_u16(),
        reject.detail(),
        reject.label(),
    );
    let mut answer = Answer::new(Bytes::from(problem));
    answer.headers_mut().insert(header::CONTENT_TYPE, PROBLEM_JSON);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(text: &str) -> Answers {
        toml::from_str(text).expect("answers")
    }

    #[test]
    fn every_refusal_is_a_problem_with_its_own_status_and_reason() {
        for reject in Reject::ALL {
            let answer = refused(reject, &Answers::default());
            assert_eq!(answer.status(), reject.status());
            assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/problem+json");
            let retry = answer.headers().contains_key(header::RETRY_AFTER);
            let waiting = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS];
            assert_eq!(retry, waiting.contains(&answer.status()), "{reject:?}");
            let problem: serde_json::Value =
                serde_json::from_slice(&answer.into_body()).expect("it is JSON");
            assert_eq!(problem["reason"], reject.label());
            assert_eq!(problem["status"], reject.status().as_u16());
        }
    }

    #[test]
    fn a_sender_is_refused_in_its_own_statuses() {
        let own = answers(
            "bad_signature_status = 403\nunsigned_status = 500\ncannot_verify_status = 502\n\
             retry_after_max = \"1s\"",
        );
        for (reject, status, retry) in [
            (Reject::SignatureWrong, 403, None),
            (Reject::SignatureMissing, 500, None),
            (Reject::CannotVerify, 502, Some("1")),
            (Reject::LogFull, 503, Some("1")),
            (Reject::Stale, 400, None),
        ] {
            let answer = refused(reject, &own);
            assert_eq!(answer.status(), status, "{reject:?}");
            let told = answer.headers().get(header::RETRY_AFTER);
            assert_eq!(told.map(|value| value.to_str().expect("ASCII")), retry, "{reject:?}");
            let problem: serde_json::Value =
                serde_json::from_slice(&answer.into_body()).expect("JSON");
            assert_eq!(problem["status"], status, "{reject:?}");
        }
    }

    #[test]
    fn a_refusal_that_is_to_be_swallowed_says_nothing_and_still_closes() {
        let answer = refused(Reject::SignatureWrong, &answers("bad_signature_status = 204"));
        assert_eq!(answer.status(), 204);
        assert_eq!(answer.headers()[header::CONNECTION], "close");
        assert!(answer.into_body().is_empty());
    }

    #[test]
    fn an_acknowledgement_is_as_the_sender_wants_it() {
        let plain = accepted(&Answers::default());
        assert_eq!((plain.status(), plain.headers().len()), (StatusCode::OK, 0));
        assert!(plain.into_body().is_empty());
        let own = answers(
            "success_status = 202\nsuccess_body = \"{}\"\nsuccess_type = \"application/json\"",
        );
        let answer = accepted(&own);
        assert_eq!(answer.status(), 202);
        assert_eq!(answer.headers().len(), 1);
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/json");
        assert_eq!(answer.into_body(), "{}");
    }
}
