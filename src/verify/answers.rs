//! What a sender must be answered, and how patient it is: the `[answers]` and `[delivery]` tables
//! of a preset.
//!
//! A key that a preset leaves out has the value that most senders take. Nothing here is read from
//! a request.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

use super::spec::duration;
use crate::limits;
use crate::reject::Reject;

/// The longest body that a sender may have to be answered with.
const BODY_BYTES_MAX: usize = 1024;

/// The `[answers]` table: what a sender takes for success, and what its refusals must look like.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Answers {
    /// The status of an event that is kept; 200 if not said.
    #[serde(deserialize_with = "success")]
    pub success_status: StatusCode,
    /// The body of that answer; empty if not said, since some senders never read it.
    #[serde(deserialize_with = "body")]
    pub success_body: Bytes,
    /// The media type of that body; none if not said.
    #[serde(deserialize_with = "media_type")]
    pub success_type: Option<HeaderValue>,
    /// The status of a request whose signature is wrong or cannot be read; 401 if not said.
    #[serde(deserialize_with = "refusal")]
    pub bad_signature_status: StatusCode,
    /// The status of a request without a signature; that of a bad one if not said.
    #[serde(deserialize_with = "some_refusal")]
    unsigned_status: Option<StatusCode>,
    /// The status while signatures cannot be checked; 503 if not said, and never a 4xx, which
    /// many senders take as final.
    #[serde(deserialize_with = "failure")]
    pub cannot_verify_status: StatusCode,
    /// The longest `Retry-After` that does not outlast the sender's patience; 2 s if not said,
    /// and none is sent if it is nothing.
    #[serde(deserialize_with = "duration")]
    pub retry_after_max: Duration,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            success_status: StatusCode::OK,
            success_body: Bytes::new(),
            success_type: None,
            bad_signature_status: StatusCode::UNAUTHORIZED,
            unsigned_status: None,
            cannot_verify_status: StatusCode::SERVICE_UNAVAILABLE,
            retry_after_max: limits::RETRY_AFTER,
        }
    }
}

impl Answers {
    /// The status of a request without a signature.
    pub fn unsigned_status(&self) -> StatusCode {
        self.unsigned_status.unwrap_or(self.bad_signature_status)
    }

    /// The status of a refusal: the sender's own where it asks for one.
    pub fn status(&self, reject: Reject) -> StatusCode {
        match reject {
            Reject::SignatureMissing => self.unsigned_status(),
            Reject::SignatureMalformed | Reject::SignatureWrong => self.bad_signature_status,
            Reject::CannotVerify => self.cannot_verify_status,
            _ => reject.status(),
        }
    }

    /// How long a sender is asked to wait, in whole seconds: `wanted`, or as much of it as the
    /// sender bears. None where it bears no whole second.
    pub fn retry_after_secs(&self, wanted: Duration) -> Option<u64> {
        Some(wanted.min(self.retry_after_max).as_secs()).filter(|seconds| *seconds > 0)
    }
}

/// The `[delivery]` table: how a sender tries. What is not known of it is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// How long it waits for an answer.
    #[serde(default, deserialize_with = "some_duration")]
    pub timeout: Option<Duration>,
    /// From the first attempt of an event to its last.
    #[serde(default, deserialize_with = "some_duration")]
    pub horizon: Option<Duration>,
    /// How many attempts an event has, the first one included.
    pub attempts: Option<u32>,
    /// What becomes of the endpoint itself when it keeps failing.
    #[serde(default)]
    pub punishes: bool,
    /// Later events wait behind the one in flight, so that a slow answer adds up.
    #[serde(default)]
    pub ordered: bool,
}

/// How long an outage a sender forgives: what is shed first under load, and what last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Patience {
    /// It does not try again, or for less than a minute: a refusal is most likely a lost event.
    Seconds,
    /// Not known, or for less than an hour.
    Minutes,
    /// Less than a day.
    Hours,
    /// A day or more.
    Days,
}

impl Delivery {
    /// The class of the horizon.
    pub fn patience(&self) -> Patience {
        const MINUTE: u64 = 60;
        match self.horizon.map(|horizon| horizon.as_secs()) {
            Some(seconds) if seconds < MINUTE => Patience::Seconds,
            Some(seconds) if seconds >= 24 * 60 * MINUTE => Patience::Days,
            Some(seconds) if seconds >= 60 * MINUTE => Patience::Hours,
            Some(_) | None => Patience::Minutes,
        }
    }
}

impl fmt::Display for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Seconds => "seconds",
            Self::Minutes => "minutes",
            Self::Hours => "hours",
            Self::Days => "days",
        })
    }
}

fn status<'de, D: Deserializer<'de>>(
    deserializer: D,
    wanted: &str,
    fits: impl Fn(u16) -> bool,
) -> Result<StatusCode, D::Error> {
    let number = u16::deserialize(deserializer)?;
    let status = StatusCode::from_u16(number).ok().filter(|status| fits(status.as_u16()));
    status.ok_or_else(|| D::Error::custom(format!("{number} is no such status; give {wanted}")))
}

fn success<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StatusCode, D::Error> {
    status(deserializer, "one from 200 to 299", |status| (200..300).contains(&status))
}

/// A sender may want a bad signature to be swallowed, so a 2xx may stand here.
fn refusal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StatusCode, D::Error> {
    let fits = |status| (200..300).contains(&status) || (400..600).contains(&status);
    status(deserializer, "one from 200 to 299 or from 400 to 599", fits)
}

fn some_refusal<'de, D: Deserializer<'de>>(d: D) -> Result<Option<StatusCode>, D::Error> {
    refusal(d).map(Some)
}

fn failure<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StatusCode, D::Error> {
    status(deserializer, "one from 500 to 599", |status| (500..600).contains(&status))
}

fn some_duration<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
    duration(d).map(Some)
}

fn body<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.len() > BODY_BYTES_MAX {
        let length = text.len();
        let message = format!("has {length} bytes; give at most {BODY_BYTES_MAX}");
        return Err(D::Error::custom(message));
    }
    Ok(text.into())
}

fn media_type<'de, D: Deserializer<'de>>(d: D) -> Result<Option<HeaderValue>, D::Error> {
    let text = String::deserialize(d)?;
    HeaderValue::from_str(&text).map(Some).map_err(|_| {
        D::Error::custom(format!("{text:?} is no media type; write it as \"application/json\""))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(text: &str) -> Result<Answers, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_said_is_what_most_senders_take() {
        let answers = answers("").expect("reads");
        assert_eq!(answers, Answers::default());
        for reject in Reject::ALL {
            assert_eq!(answers.status(reject), reject.status(), "{reject:?}");
        }
    }

    #[test]
    fn a_sender_is_told_in_its_own_statuses() {
        let answers = answers(
            "success_status = 202\nbad_signature_status = 403\nunsigned_status = 503\n\
             cannot_verify_status = 500\nretry_after_max = \"1500ms\"",
        )
        .expect("reads");
        assert_eq!(answers.success_status, StatusCode::ACCEPTED);
        let statuses = [
            (Reject::SignatureMissing, 503),
            (Reject::SignatureWrong, 403),
            (Reject::SignatureMalformed, 403),
            (Reject::CannotVerify, 500),
            (Reject::Stale, 400),
        ];
        for (reject, status) in statuses {
            assert_eq!(answers.status(reject).as_u16(), status, "{reject:?}");
        }
        assert_eq!(answers.retry_after_secs(Duration::from_secs(10)), Some(1));
        let none = Answers { retry_after_max: Duration::ZERO, ..answers };
        assert_eq!(none.retry_after_secs(Duration::from_secs(10)), None);
    }

    #[test]
    fn what_no_answer_can_be_is_refused_with_what_may_stand_there() {
        for (text, cure) in [
            ("success_status = 404", "200 to 299"),
            ("bad_signature_status = 302", "400 to 599"),
            ("cannot_verify_status = 401", "500 to 599"),
            ("success_type = \"a\\nb\"", "application/json"),
            ("retry_after_max = 5", "string"),
            ("success_code = 200", "success_status"),
        ] {
            let error = answers(text).expect_err(text);
            assert!(error.contains(cure), "{text}: {error}");
        }
        let long = format!("success_body = \"{}\"", "a".repeat(BODY_BYTES_MAX + 1));
        assert!(answers(&long).expect_err("long").contains("1024"));
    }

    #[test]
    fn patience_is_the_class_of_the_horizon() {
        let of = |text: &str| toml::from_str::<Delivery>(text).expect("reads").patience();
        assert_eq!(of(""), Patience::Minutes);
        assert_eq!(of("horizon = \"15s\""), Patience::Seconds);
        assert_eq!(of("horizon = \"85m\""), Patience::Hours);
        assert_eq!(of("horizon = \"3days\""), Patience::Days);
        assert!(Patience::Seconds < Patience::Days);
    }
}
