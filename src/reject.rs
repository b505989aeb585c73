//! Why a request is not acknowledged, and the one place that says how it is told.
//!
//! Each reason maps to a status, a label for metrics and a sentence for the problem body
//! (RFC 9457). A 4xx is final for many senders, so it is given only for what is truly the
//! sender's fault; what this machine cannot do now is a 503.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use http::StatusCode;

use crate::limits::RETRY_AFTER;

/// A request that was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reject {
    /// Too many requests of this address were refused within a minute.
    TooManyFailures,
    /// No source has this path.
    UnknownPath,
    /// The sender's address is not one that the source takes.
    AddressRefused,
    /// No client certificate that the source takes.
    CertificateRefused,
    /// The method is not POST.
    MethodNotAllowed,
    /// Missing or doubled Host, an unknown transfer coding, CONNECT: not a request to trust.
    HeadMalformed,
    /// The declared or the counted length is above `body_max`.
    BodyTooLarge,
    /// The content type is not one that the source expects.
    MediaType,
    /// The body is compressed, which signatures are not made over.
    ContentEncoding,
    /// The body's framing broke or the connection ended inside it.
    BodyBroken,
    /// The body did not arrive in time or came slower than the minimum rate.
    BodyTimeout,
    /// A header that the signature needs is absent.
    SignatureMissing,
    /// A header that the signature needs stands twice.
    SignatureDoubled,
    /// A signature header that cannot be read.
    SignatureMalformed,
    /// No secret of the source makes this signature.
    SignatureWrong,
    /// The timestamp cannot be read.
    TimestampMalformed,
    /// The timestamp is further in the past than the source tolerates.
    Stale,
    /// The timestamp is further in the future than the source tolerates.
    Future,
    /// The signature cannot be checked at this moment.
    CannotVerify,
    /// What the source expects of every request does not stand in this one: it is of another
    /// environment, or not the operator's.
    NotExpected,
    /// A handshake without the token, from another origin, or to another address than is taken.
    HandshakeRefused,
    /// A handshake about a topic that the source does not want.
    HandshakeTopic,
    /// A handshake whose challenge is absent, too long, or of characters that are not given back.
    HandshakeMalformed,
    /// The receiver holds as many body bytes as it may.
    BudgetSpent,
    /// The dedupe table is full: to accept would be to forget.
    DedupeFull,
    /// The lane's log can take no more for now.
    LogFull,
    /// The lane's log failed and waits for the operator.
    LogFailed,
    /// The record did not reach the lane's ack level in time.
    AckTimeout,
    /// The sink that the lane replicates to does not have the event: it is away or late, or has
    /// given the event up.
    NotReplicated,
    /// The process is shutting down.
    Draining,
    /// A bug: the request panicked. It alone failed.
    Panicked,
}

/// Every reason in the order of the line: its status, its label in metrics, its sentence.
const TOLD: [(Reject, StatusCode, &str, &str); 31] = {
    use Reject as R;
    use StatusCode as S;
    [
        (
            R::TooManyFailures,
            S::TOO_MANY_REQUESTS,
            "too_many_failures",
            "too many requests of this address were refused",
        ),
        (R::UnknownPath, S::NOT_FOUND, "unknown_path", "no source has this path"),
        (R::AddressRefused, S::FORBIDDEN, "address_refused", "this source takes other addresses"),
        (
            R::CertificateRefused,
            S::FORBIDDEN,
            "certificate_refused",
            "this source takes other client certificates",
        ),
        (R::MethodNotAllowed, S::METHOD_NOT_ALLOWED, "method_not_allowed", "send webhooks by POST"),
        (R::HeadMalformed, S::BAD_REQUEST, "head_malformed", "the request head breaks HTTP/1.1"),
        (
            R::BodyTooLarge,
            S::PAYLOAD_TOO_LARGE,
            "body_too_large",
            "the body is larger than this source takes",
        ),
        (
            R::MediaType,
            S::UNSUPPORTED_MEDIA_TYPE,
            "media_type",
            "this source does not take the content type",
        ),
        (
            R::ContentEncoding,
            S::UNSUPPORTED_MEDIA_TYPE,
            "content_encoding",
            "send the body uncompressed",
        ),
        (R::BodyBroken, S::BAD_REQUEST, "body_broken", "the body ended or broke early"),
        (R::BodyTimeout, S::REQUEST_TIMEOUT, "body_timeout", "the body did not arrive in time"),
        (
            R::SignatureMissing,
            S::UNAUTHORIZED,
            "signature_missing",
            "a header that the signature needs is absent",
        ),
        (
            R::SignatureDoubled,
            S::BAD_REQUEST,
            "signature_doubled",
            "a header that the signature needs stands twice",
        ),
        (
            R::SignatureMalformed,
            S::UNAUTHORIZED,
            "signature_malformed",
            "the signature cannot be read",
        ),
        (R::SignatureWrong, S::UNAUTHORIZED, "signature_wrong", "the signature does not match"),
        (
            R::TimestampMalformed,
            S::BAD_REQUEST,
            "timestamp_malformed",
            "the timestamp cannot be read",
        ),
        (R::Stale, S::BAD_REQUEST, "stale", "the timestamp is too far in the past"),
        (R::Future, S::BAD_REQUEST, "future", "the timestamp is too far in the future"),
        (
            R::CannotVerify,
            S::SERVICE_UNAVAILABLE,
            "cannot_verify",
            "the signature cannot be checked now",
        ),
        (
            R::NotExpected,
            S::FORBIDDEN,
            "not_expected",
            "what this source expects does not stand in the request",
        ),
        (
            R::HandshakeRefused,
            S::FORBIDDEN,
            "handshake_refused",
            "this source does not agree to the handshake",
        ),
        (
            R::HandshakeTopic,
            S::NOT_FOUND,
            "handshake_topic",
            "this source does not agree to the topic",
        ),
        (
            R::HandshakeMalformed,
            S::BAD_REQUEST,
            "handshake_malformed",
            "the challenge cannot be given back",
        ),
        (R::BudgetSpent, S::SERVICE_UNAVAILABLE, "budget_spent", "too many bodies are in flight"),
        (R::DedupeFull, S::SERVICE_UNAVAILABLE, "dedupe_full", "no room to remember another event"),
        (R::LogFull, S::SERVICE_UNAVAILABLE, "log_full", "the log can take no more for now"),
        (R::LogFailed, S::SERVICE_UNAVAILABLE, "log_failed", "the log cannot keep its word"),
        (
            R::AckTimeout,
            S::SERVICE_UNAVAILABLE,
            "ack_timeout",
            "the event is not yet safely stored",
        ),
        (
            R::NotReplicated,
            S::SERVICE_UNAVAILABLE,
            "not_replicated",
            "the event is stored here and not yet replicated",
        ),
        (R::Draining, S::SERVICE_UNAVAILABLE, "draining", "this receiver is shutting down"),
        (R::Panicked, S::INTERNAL_SERVER_ERROR, "panicked", "this request failed"),
    ]
};

/// Whose fault a refusal is, for alarms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request does not verify, or is not what its source expects: a wrong secret, clock or
    /// setting here, or a forgery.
    Verification,
    /// The request is malformed, too large, too slow or at the wrong place.
    Request,
    /// This machine's: the sender is asked to come again.
    Here,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 3] = [Self::Verification, Self::Request, Self::Here];

    /// The value of the label `fault`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Verification => "verification",
            Self::Request => "request",
            Self::Here => "here",
        }
    }
}

impl Reject {
    /// Whose fault it is.
    pub fn fault(self) -> Fault {
        if self.quarantined() {
            Fault::Verification
        } else if self.status().is_server_error() {
            Fault::Here
        } else {
            Fault::Request
        }
    }

    /// Every reason, in the order of the line.
    pub const ALL: [Self; TOLD.len()] = {
        let mut all = [Self::UnknownPath; TOLD.len()];
        let mut index = 0;
        while index < all.len() {
            all[index] = TOLD[index].0;
            index += 1;
        }
        all
    };

    /// Runs a part of the line that does not wait. A panic in it is a bug of ours: it costs the
    /// request that met it, and nobody else's.
    pub fn guard<T>(part: impl FnOnce() -> Result<T, Self>) -> Result<T, Self> {
        catch_unwind(AssertUnwindSafe(part)).unwrap_or(Err(Self::Panicked))
    }

    /// The status of the answer.
    pub const fn status(self) -> StatusCode {
        TOLD[self as usize].1
    }

    /// The label in metrics and logs.
    pub const fn label(self) -> &'static str {
        TOLD[self as usize].2
    }

    /// What the sender did or what it may try, for the problem body.
    pub const fn detail(self) -> &'static str {
        TOLD[self as usize].3
    }

    /// Whether such a request goes to the quarantine: it may be taken once a secret, a scheme, a
    /// clock or what the source expects is mended.
    pub const fn quarantined(self) -> bool {
        matches!(
            self,
            Self::SignatureMissing
                | Self::SignatureDoubled
                | Self::SignatureMalformed
                | Self::SignatureWrong
                | Self::TimestampMalformed
                | Self::Stale
                | Self::Future
                | Self::NotExpected
        )
    }

    /// Whether it is told while the body may still be on its way.
    pub const fn before_body(self) -> bool {
        !matches!(
            self,
            Self::SignatureWrong
                | Self::NotExpected
                | Self::DedupeFull
                | Self::LogFull
                | Self::LogFailed
                | Self::AckTimeout
                | Self::NotReplicated
        )
    }

    /// Whether it is what strangers meet who try out paths, signatures and tokens.
    pub const fn is_strangers(self) -> bool {
        matches!(
            self,
            Self::UnknownPath
                | Self::AddressRefused
                | Self::CertificateRefused
                | Self::SignatureMissing
                | Self::SignatureMalformed
                | Self::SignatureWrong
                | Self::HandshakeRefused
                | Self::HandshakeTopic
        )
    }

    /// How long the sender may wait before it tries again, where waiting helps.
    pub const fn retry_after(self) -> Option<Duration> {
        match TOLD[self as usize].1 {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Some(RETRY_AFTER),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_row() {
        for (index, reject) in Reject::ALL.into_iter().enumerate() {
            assert_eq!(reject as usize, index, "{reject:?} stands elsewhere in the enum");
        }
        // Forgotten in the table, the last reason would have no row.
        assert_eq!(Reject::ALL.last(), Some(&Reject::Panicked));
    }

    #[test]
    fn a_panic_costs_its_own_request_and_closes_its_connection() {
        let met: Result<(), Reject> = Reject::guard(|| panic!("a bug of ours"));
        assert_eq!(met, Err(Reject::Panicked));
        assert_eq!(Reject::Panicked.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(Reject::Panicked.before_body(), "who knows how much of the body was read");
        assert_eq!(Reject::guard(|| Ok(1)), Ok(1));
    }
}
