//! A request as the quarantine holds it, read back.

use std::net::SocketAddr;

use bytes::Bytes;
use forebay_log::{HeaderValue as Stored, Kind, Position, RecordRef, Tag};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Version, header};
use http_body_util::Full;

/// A request in quarantine.
#[derive(Clone, Debug)]
pub struct HeldRequest {
    /// Where it is.
    pub position: Position,
    /// When it arrived, unix nanoseconds.
    pub received_ns: u64,
    /// The source that it was for.
    pub source: String,
    /// Why it was refused, as metrics and problem bodies say it.
    pub reason: String,
    /// How it was asked for.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Who sent it.
    pub peer: String,
    /// The headers whose values were kept.
    pub headers: HeaderMap,
    /// The names of those of which a digest was kept.
    pub digested: Vec<HeaderName>,
    /// The body, byte-exact.
    pub body: Bytes,
}

impl HeldRequest {
    /// Reads a record; nothing if it is no request in quarantine.
    pub fn read(record: &RecordRef<'_>) -> Option<Self> {
        if record.kind() != Kind::Quarantine {
            return None;
        }
        let meta = record.meta();
        let text = |tag| meta.get(tag).map(|text| String::from_utf8_lossy(text).into_owned());
        let mut headers = HeaderMap::new();
        let mut digested = Vec::new();
        for (name, value) in meta.headers() {
            let Ok(name) = HeaderName::from_bytes(name) else { continue };
            match value {
                Stored::Bytes(bytes) => {
                    if let Ok(value) = HeaderValue::from_bytes(bytes) {
                        headers.append(name, value);
                    }
                }
                Stored::Digest(_) => digested.push(name),
            }
        }
        Some(Self {
            position: record.position(),
            received_ns: record.received_ns(),
            source: text(Tag::Source).unwrap_or_default(),
            reason: text(Tag::Reason).unwrap_or_default(),
            method: text(Tag::Method).unwrap_or_default(),
            target: text(Tag::Target).unwrap_or_default(),
            peer: text(Tag::Peer).unwrap_or_default(),
            headers,
            digested,
            body: Bytes::copy_from_slice(record.body()),
        })
    }

    /// The path as it is shown: what stands for a token of the source in it was not kept.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The request once more, to this path; nothing if what is stored makes none.
    pub fn request(&self, path: &str) -> Option<Request<Full<Bytes>>> {
        // As it was received: without Host it can only have been this version.
        let host = self.headers.contains_key(header::HOST);
        let version = if host { Version::HTTP_11 } else { Version::HTTP_10 };
        let request = Request::builder()
            .method(self.method.as_str())
            .uri(self.target.replacen(self.path(), path, 1))
            .version(version)
            .body(Full::new(self.body.clone()));
        let mut request = request.ok()?;
        *request.headers_mut() = self.headers.clone();
        Some(request)
    }

    /// Who sent it, as an address.
    pub(super) fn peer_address(&self) -> SocketAddr {
        self.peer.parse().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
    }
}
