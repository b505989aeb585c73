//! Received -> Admitted: nothing expensive before it is earned.
//!
//! Route, then method, framing, length and media type, then the signature's headers and its
//! timestamp, then the receiver's budget, and only then the body. A request that fails one of
//! them has cost no more than its head.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::request::Parts;
use http::{Method, Version};
use hyper::body::Body;

use super::body::{self, Budget, Share};
use super::connection::Connection;
use crate::config::Source;
use crate::limits::HEADERS_MAX;
use crate::reject::Reject;
use crate::verify::Claim;

/// A request whose head has arrived.
#[derive(Debug)]
pub struct Received {
    /// Its request line and headers.
    pub head: Parts,
    /// Who sent it.
    pub peer: SocketAddr,
    /// When the head was complete, by the wall clock.
    pub received_ns: u64,
    /// The same moment by the monotonic clock.
    pub started: Instant,
    /// Its connection.
    pub connection: Rc<Connection>,
}

/// A request that a source may look at: well-formed, fresh by its own word, and whole.
#[derive(Debug)]
pub struct Admitted<'r> {
    received: &'r Received,
    source: &'r Source,
    claim: Claim,
    body: Bytes,
    _share: Share,
}

impl<'r> Admitted<'r> {
    /// Admits a request to `source` and reads its body.
    pub async fn admit<B>(
        received: &'r Received,
        body: B,
        source: &'r Source,
        budget: &Rc<Budget>,
    ) -> Result<Self, Reject>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (claim, mut share) = admit_head(received, source, budget)?;
        let body = body::read(body, source.body_bytes_max, &mut share, received).await?;
        Ok(Self { received, source, claim, body, _share: share })
    }

    /// The source that it is for.
    pub fn source(&self) -> &'r Source {
        self.source
    }

    /// What its head claims to be signed with, for `verify`.
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// Its request line and headers, and when and from whom they came.
    pub fn received(&self) -> &'r Received {
        self.received
    }

    /// Its headers.
    pub fn headers(&self) -> &'r HeaderMap {
        &self.received.head.headers
    }

    /// Its body, byte-exact.
    pub fn body(&self) -> &Bytes {
        &self.body
    }
}

/// Everything that the head alone decides.
fn admit_head(
    received: &Received,
    source: &Source,
    budget: &Rc<Budget>,
) -> Result<(Claim, Share), Reject> {
    let Received { head, received_ns, .. } = received;
    if head.method != Method::POST {
        return Err(Reject::MethodNotAllowed);
    }
    well_formed(head)?;
    let declared = declared_length(&head.headers)?;
    if declared.is_some_and(|bytes| bytes > source.body_bytes_max) {
        return Err(Reject::BodyTooLarge);
    }
    media_type(&head.headers, source)?;
    let claim = source.verifier.claim(&head.headers, *received_ns)?;
    Ok((claim, budget.share(declared.unwrap_or(0))?))
}

/// What hyper lets pass and a strict edge must not: doubled or missing Host, a transfer coding
/// other than `chunked`, both kinds of framing, a target that names another authority.
fn well_formed(head: &Parts) -> Result<(), Reject> {
    let headers = &head.headers;
    let hosts = headers.get_all(header::HOST).iter().count();
    let old = head.version == Version::HTTP_10;
    if hosts > 1 || (hosts == 0 && !old) || headers.len() > HEADERS_MAX {
        return Err(Reject::HeadMalformed);
    }
    if head.version > Version::HTTP_11 || (!old && head.version != Version::HTTP_11) {
        return Err(Reject::HeadMalformed);
    }
    if let Some(authority) = head.uri.authority()
        && headers
            .get(header::HOST)
            .is_none_or(|host| host.as_bytes() != authority.as_str().as_bytes())
    {
        return Err(Reject::HeadMalformed);
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if !chunked || codings.next().is_some() || headers.contains_key(header::CONTENT_LENGTH) {
            return Err(Reject::HeadMalformed);
        }
    }
    match headers.get(header::CONTENT_ENCODING) {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            Err(Reject::ContentEncoding)
        }
        _ => Ok(()),
    }
}

fn declared_length(headers: &HeaderMap) -> Result<Option<u64>, Reject> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(None) };
    if lengths.next().is_some() {
        return Err(Reject::HeadMalformed);
    }
    let length = length.to_str().ok().and_then(|text| text.parse().ok());
    length.map(Some).ok_or(Reject::HeadMalformed)
}

/// The part before any parameter must be one that the source expects; a source that names none
/// takes all.
fn media_type(headers: &HeaderMap, source: &Source) -> Result<(), Reject> {
    if source.content_types.is_empty() {
        return Ok(());
    }
    let sent = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let essence = sent.split(|&byte| byte == b';').next().unwrap_or(sent).trim_ascii();
    let expected =
        source.content_types.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(essence));
    if expected { Ok(()) } else { Err(Reject::MediaType) }
}
