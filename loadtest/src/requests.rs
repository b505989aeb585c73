//! Signed requests as bytes ready to be written.
//!
//! The scheme is Standard Webhooks: HMAC-SHA256 over id, time and body, the id in a header. Every
//! request is an event of its own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use forebay_log::Clock;
use ring::hmac;

/// Where the source of this tool's own server is.
pub(crate) const PATH: &str = "/load";
/// The secret of that source.
pub(crate) const SECRET: &str = "whsec_Zm9yZWJheS1sb2FkdGVzdC1zZWNyZXQtMDEyMzQ1Njc4OQ==";

/// Makes requests to one path, signed by one secret.
#[derive(Debug)]
pub(crate) struct Signer {
    key: hmac::Key,
    run: u64,
    body: Vec<u8>,
    head: String,
}

impl Signer {
    /// Requests to [`PATH`] with bodies of `body_bytes`, or as many as the frame of a body takes.
    pub(crate) fn new(body_bytes: usize) -> Self {
        let secret = BASE64.decode(SECRET.trim_start_matches("whsec_")).unwrap_or_default();
        let body = body(body_bytes);
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: forebay-loadtest\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n",
            body.len()
        );
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        Self { key, run: Clock::System.wall_ns(), body, head }
    }

    /// The request of this number, signed for this second.
    pub(crate) fn write(&self, into: &mut Vec<u8>, number: u64, unix_seconds: u64) {
        let id = format!("msg_{:x}_{number}", self.run);
        let mut mac = hmac::Context::with_key(&self.key);
        mac.update(format!("{id}.{unix_seconds}.").as_bytes());
        mac.update(&self.body);
        let signature = BASE64.encode(mac.sign());
        into.extend_from_slice(self.head.as_bytes());
        let signed = format!(
            "webhook-id: {id}\r\nwebhook-timestamp: {unix_seconds}\r\n\
             webhook-signature: v1,{signature}\r\n\r\n"
        );
        into.extend_from_slice(signed.as_bytes());
        into.extend_from_slice(&self.body);
    }
}

/// An event as platforms send them, padded to a size.
fn body(bytes: usize) -> Vec<u8> {
    let open = "{\"type\":\"participant.joined\",\"timestamp\":\"2026-11-21T18:00:00Z\",\
                \"data\":{\"room\":{\"id\":\"RM_main\",\"name\":\"main stage\"},\
                \"participant\":{\"id\":\"PA_1\",\"identity\":\"guest\"},\"metadata\":\"";
    let close = "\"}}";
    let pad = bytes.saturating_sub(open.len() + close.len());
    [open, &"x".repeat(pad), close].concat().into_bytes()
}

/// Seconds since the epoch.
pub(crate) fn now_seconds() -> u64 {
    Clock::System.wall_ns() / 1_000_000_000
}

/// Requests made in advance, so that a measurement spends nothing on making them.
#[derive(Debug)]
pub(crate) struct Pool {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Pool {
    /// Signs `count` requests.
    pub(crate) fn new(signer: &Signer, count: usize) -> Self {
        let now = now_seconds();
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(count));
        for number in 0..count as u64 {
            signer.write(&mut bytes, number, now);
            ends.push(bytes.len());
        }
        Self { bytes, ends }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of one request; empty beyond the last.
    pub(crate) fn request(&self, index: usize) -> &[u8] {
        let end = self.ends.get(index).copied().unwrap_or(self.bytes.len());
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before.min(self.len() - 1)]);
        &self.bytes[start..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_holds_requests_of_their_own() {
        let pool = Pool::new(&Signer::new(1024), 3);
        assert_eq!(pool.len(), 3);
        for index in 0..3 {
            let text = std::str::from_utf8(pool.request(index)).expect("requests are text");
            assert!(text.starts_with("POST /load HTTP/1.1\r\n"), "{text}");
            assert!(text.contains(&format!("_{index}\r\n")), "{text}");
            let (_, body) = text.split_once("\r\n\r\n").expect("a head and a body");
            assert_eq!(body.len(), 1024);
            assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
        }
        assert!(pool.request(3).is_empty());
    }
}
