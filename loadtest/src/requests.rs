//! Signed requests as bytes ready to be written, made by the server's own signing code. Every
//! request is an event of its own.

use std::io;

use forebay::verify::{self, NamedSecret, Profile, SecretText, SignInput};
use forebay_log::Clock;

/// Where the source of this tool's own server is.
pub(crate) const PATH: &str = "/load";
/// The secret of that source; as text it also serves the schemes that take text.
pub(crate) const SECRET: &str = "whsec_Zm9yZWJheS1sb2FkdGVzdC1zZWNyZXQtMDEyMzQ1Njc4OQ==";

/// The id of the secret, in the schemes that name it.
pub(crate) fn key_id(profile: &Profile) -> Option<&'static str> {
    let jwt = profile.scheme.jwt.as_ref()?;
    jwt.key_id.as_ref().map(|_| "loadtest")
}

const EVENT_TYPE: &str = "participant_joined";

/// Makes requests to one path as one sender, signed by one secret.
#[derive(Debug)]
pub(crate) struct Signer {
    inner: verify::Signer,
    run: u64,
    pad: String,
}

impl Signer {
    /// Requests to [`PATH`] as the preset's sender makes them, with bodies of `body_bytes`, or as
    /// many as an event's frame takes.
    pub(crate) fn new(preset: &str, body_bytes: usize) -> io::Result<Self> {
        let profile = verify::preset(preset)
            .ok_or_else(|| io::Error::other(format!("no preset is called {preset}")))?;
        let key_id = key_id(profile).map(str::to_owned);
        let secret =
            NamedSecret { name: "only".to_owned(), value: SecretText::new(SECRET), key_id };
        let signer = verify::Signer::new(profile, secret)
            .map_err(|error| io::Error::other(format!("{preset}: {error}")))?;
        let mut made = Self { inner: signer, run: Clock::System.wall_ns(), pad: String::new() };
        made.pad = "x".repeat(body_bytes.saturating_sub(made.body("").len()));
        Ok(made)
    }

    /// An event as platforms send them.
    fn body(&self, id: &str) -> String {
        format!(
            "{{\"id\":\"{id}\",\"type\":\"{EVENT_TYPE}\",\"event\":\"{EVENT_TYPE}\",\
             \"timestamp\":\"2026-11-21T18:00:00Z\",\"room\":{{\"sid\":\"RM_main\",\
             \"name\":\"main stage\"}},\"participant\":{{\"sid\":\"PA_1\",\
             \"identity\":\"guest\",\"metadata\":\"{}\"}}}}",
            self.pad.get(id.len()..).unwrap_or_default()
        )
    }

    /// The request of this number, signed for this moment.
    pub(crate) fn write(&self, into: &mut Vec<u8>, number: u64, now_ns: u64) -> io::Result<()> {
        let id = format!("msg_{:x}_{number}", self.run);
        let body = self.body(&id);
        let input = SignInput {
            id: &id,
            now_ns,
            event_type: EVENT_TYPE,
            target: PATH,
            body: body.as_bytes(),
        };
        let headers = self.inner.sign(&input).map_err(io::Error::other)?;
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: forebay-loadtest\r\n\
             content-length: {}\r\n",
            body.len()
        );
        into.extend_from_slice(head.as_bytes());
        for (name, value) in headers {
            into.extend_from_slice(name.as_str().as_bytes());
            into.extend_from_slice(b": ");
            into.extend_from_slice(value.as_bytes());
            into.extend_from_slice(b"\r\n");
        }
        into.extend_from_slice(b"\r\n");
        into.extend_from_slice(body.as_bytes());
        Ok(())
    }
}

/// Requests made in advance, so that a measurement spends nothing on making them.
#[derive(Debug)]
pub(crate) struct Pool {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Pool {
    /// Signs `count` requests.
    pub(crate) fn new(signer: &Signer, count: usize) -> io::Result<Self> {
        let now_ns = Clock::System.wall_ns();
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(count));
        for number in 0..count as u64 {
            signer.write(&mut bytes, number, now_ns)?;
            ends.push(bytes.len());
        }
        Ok(Self { bytes, ends })
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
        let signer = Signer::new("standard-webhooks", 1024).expect("a preset");
        let pool = Pool::new(&signer, 3).expect("requests can be signed");
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
