//! Signed requests, made from the senders' documentation and none of the server's code.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use forebay_log::Clock;
use ring::hmac;

use super::http::Request;

/// The secret of the source `/std`, in the form that Standard Webhooks gives secrets.
pub(crate) const STANDARD_SECRET: &str = "whsec_Zm9yZWJheS10ZXN0LXNlY3JldC0wMTIzNDU2Nzg5";
/// A secret that no source has until a test adds it.
pub(crate) const STANDARD_SECRET_NEXT: &str = "whsec_YW5vdGhlci1mb3JlYmF5LXNlY3JldC05ODc2NTQzMjEw";
/// The secret of the source `/github`.
pub(crate) const GITHUB_SECRET: &str = "github-test-secret-0123456789";
/// The secret of the source `/livekit`.
pub(crate) const LIVEKIT_SECRET: &str = "livekit-test-secret-of-32-bytes-and-more";
/// The key that stands as `iss` in LiveKit's tokens.
pub(crate) const LIVEKIT_KEY: &str = "APIforebay";

/// Seconds since the epoch.
pub(crate) fn now_seconds() -> i64 {
    i64::try_from(Clock::System.wall_ns() / 1_000_000_000).unwrap()
}

/// A Standard Webhooks request to `/std`, signed now.
pub(crate) fn standard(id: &str, body: &[u8]) -> Request {
    standard_at(id, body, now_seconds(), STANDARD_SECRET)
}

/// A Standard Webhooks request signed at a time, by a secret.
pub(crate) fn standard_at(id: &str, body: &[u8], seconds: i64, secret: &str) -> Request {
    let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &key));
    mac.update(format!("{id}.{seconds}.").as_bytes());
    mac.update(body);
    Request::post("/std")
        .header("content-type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", seconds.to_string())
        .header("webhook-signature", format!("v1,{}", BASE64.encode(mac.sign())))
        .body(body)
}

/// HMAC-SHA256 in lower-case hex.
pub(crate) fn hex_mac(secret: &str, bytes: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut text = String::new();
    for byte in hmac::sign(&key, bytes).as_ref() {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

/// A GitHub request to `/github`: no time in it, and an id outside of the signature.
pub(crate) fn github(delivery: &str, body: &[u8]) -> Request {
    Request::post("/github")
        .header("content-type", "application/json")
        .header("x-github-event", "push")
        .header("x-github-delivery", delivery)
        .header("x-hub-signature-256", format!("sha256={}", hex_mac(GITHUB_SECRET, body)))
        .body(body)
}

/// How a LiveKit token's head names its algorithm, and whether its signature is real.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Signed,
    /// `alg` is `none` and the signature is empty.
    None,
    /// `alg` is `none` and the signature would have been right for HS256.
    NoneButSigned,
}

/// A LiveKit request to `/livekit`: a token with the body's hash in the Authorization header.
pub(crate) fn livekit(body: &[u8], token: Token) -> Request {
    let url = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let algorithm = if token == Token::Signed { "HS256" } else { "none" };
    let hash = BASE64.encode(ring::digest::digest(&ring::digest::SHA256, body));
    let now = now_seconds();
    let head = format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#);
    let claims =
        format!(r#"{{"iss":"{LIVEKIT_KEY}","nbf":{now},"exp":{},"sha256":"{hash}"}}"#, now + 300);
    let signed = format!("{}.{}", url.encode(head), url.encode(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, LIVEKIT_SECRET.as_bytes());
    let mac = match token {
        Token::None => String::new(),
        Token::Signed | Token::NoneButSigned => url.encode(hmac::sign(&key, signed.as_bytes())),
    };
    Request::post("/livekit")
        .header("content-type", "application/webhook+json")
        .header("authorization", format!("{signed}.{mac}"))
        .body(body)
}
