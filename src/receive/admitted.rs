//! Received -> Admitted: nothing expensive before it is earned.
//!
//! Route, then method, framing, length and media type, then the signature's headers and its
//! timestamp, then the receiver's budget, and only then the body. A request that fails one of
//! them has cost no more than its head.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Version, header};
use hyper::body::Body;

use super::answer::Answer;
use super::body::{self, Budget, Share};
use super::connection::Connection;
use crate::config::Source;
use crate::limits::{HEADERS_MAX, READ_BYTES};
use crate::reject::Reject;
use crate::verify::Claim;

/// A request whose head has arrived.
#[derive(Debug)]
pub struct Received<'r> {
    /// Its request line and headers.
    pub head: &'r Parts,
    /// When the head was complete, by the wall clock.
    pub received_ns: u64,
    /// The same moment by the monotonic clock.
    pub started: Instant,
    /// Its connection.
    pub connection: &'r Connection,
    /// Where it was in the meantime, if it comes out of quarantine.
    pub released: Option<OutOfQuarantine>,
}

/// A request's stay in quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfQuarantine {
    /// Where it is there.
    pub position: forebay_log::Position,
    /// When it first arrived, by the wall clock.
    pub received_ns: u64,
}

impl Received<'_> {
    /// The time by which its signature is judged: that of its first arrival.
    fn judged_ns(&self) -> u64 {
        self.released.map_or(self.received_ns, |released| released.received_ns)
    }
}

/// A request that a source may look at: well-formed, fresh by its own word, and whole.
#[derive(Debug)]
pub struct Admitted<'r> {
    received: &'r Received<'r>,
    source: &'r Source,
    claim: Claim<'r>,
    body: Bytes,
    over_budget: bool,
    _share: Share,
}

/// What an admitted request turns out to be.
#[derive(Debug)]
pub enum Admission<'r> {
    /// A request to verify.
    Request(Admitted<'r>),
    /// A handshake that nobody signs, with its answer.
    Handshake(Answer),
}

impl<'r> Admitted<'r> {
    /// Admits a request to `source` and reads its body.
    pub async fn admit<B>(
        received: &'r Received<'r>,
        body: B,
        source: &'r Source,
        budget: &Rc<Budget>,
    ) -> Result<Admission<'r>, Reject>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let declared = body.size_hint().exact();
        let head = Reject::guard(|| admit_head(received, declared, source, budget))?;
        let (claim, mut share, over_budget) = match head {
            Head::Claim { claim, share, over_budget } => (Some(claim), share, over_budget),
            Head::Unsigned(share) => (None, share, false),
            Head::Handshake(answer) => return Ok(Admission::Handshake(answer)),
        };
        let body = body::read(body, source.body_bytes_max, &mut share, received).await?;
        let Some(claim) = claim else {
            let answer = Reject::guard(|| {
                let answer = source.handshakes.unsigned(received.head, &body);
                answer.unwrap_or(Err(Reject::SignatureMissing))
            });
            return answer.map(Admission::Handshake);
        };
        Ok(Admission::Request(Self { received, source, claim, body, over_budget, _share: share }))
    }

    /// Whether the receiver has room for an event; a handshake needs none.
    pub fn within_budget(&self) -> Result<(), Reject> {
        if self.over_budget { Err(Reject::BudgetSpent) } else { Ok(()) }
    }

    /// The source that it is for.
    pub fn source(&self) -> &'r Source {
        self.source
    }

    /// What its head claims to be signed with, for `verify`.
    pub fn claim(&self) -> &Claim<'r> {
        &self.claim
    }

    /// Its request line and headers, and when and from whom they came.
    pub fn received(&self) -> &'r Received<'r> {
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

/// What a head alone says.
enum Head<'r> {
    /// A request that claims to be signed.
    Claim { claim: Claim<'r>, share: Share, over_budget: bool },
    /// A request without a signature, of a source that has handshakes without one.
    Unsigned(Share),
    /// A handshake without a body.
    Handshake(Answer),
}

/// Everything that the head alone decides; `declared` is the length of the body as it says.
fn admit_head<'r>(
    received: &'r Received<'r>,
    declared: Option<u64>,
    source: &Source,
    budget: &Rc<Budget>,
) -> Result<Head<'r>, Reject> {
    let Received { head, .. } = received;
    source.gate.check(received)?;
    let framing = Framing::read(&head.headers);
    framing.check(head)?;
    if declared == Some(0)
        && let Some(answer) = source.handshakes.at_head(head)
    {
        return answer.map(Head::Handshake);
    }
    let by_get = head.method == Method::GET && source.takes_get() && declared == Some(0);
    if head.method != Method::POST && !by_get {
        return Err(Reject::MethodNotAllowed);
    }
    if declared.is_some_and(|bytes| bytes > source.body_bytes_max) {
        return Err(Reject::BodyTooLarge);
    }
    if !by_get {
        framing.check_media(source)?;
    }
    let handshakes = &source.handshakes;
    let bytes = declared.unwrap_or(0);
    let claim = match source.verifier.claim(&(*head).into(), received.judged_ns()) {
        Err(Reject::SignatureMissing)
            if declared.is_some_and(|n| handshakes.may_be_unsigned(n)) =>
        {
            return Ok(Head::Unsigned(budget.overdraw(bytes)));
        }
        claim => claim?,
    };
    // What is announced and has not come takes no more than a read does; `read` counts the rest.
    match budget.share(bytes.min(READ_BYTES as u64)) {
        Ok(share) => Ok(Head::Claim { claim, share, over_budget: false }),
        Err(_) if declared.is_some_and(|bytes| handshakes.may_be(bytes)) => {
            Ok(Head::Claim { claim, share: budget.overdraw(bytes), over_budget: true })
        }
        Err(spent) => Err(spent),
    }
}

/// The headers that say what a request is, gathered in one pass.
#[derive(Default)]
struct Framing<'h> {
    host: Once<'h>,
    length: Once<'h>,
    transfer_coding: Once<'h>,
    content_coding: Once<'h>,
    media: Once<'h>,
}

/// A header that may stand once.
#[derive(Clone, Copy, Default)]
enum Once<'h> {
    #[default]
    Absent,
    One(&'h [u8]),
    Several,
}

impl<'h> Once<'h> {
    fn add(&mut self, value: &'h [u8]) {
        *self = if matches!(self, Self::Absent) { Self::One(value) } else { Self::Several };
    }
}

impl<'h> Framing<'h> {
    fn read(headers: &'h HeaderMap) -> Self {
        let mut framing = Self::default();
        for (name, value) in headers {
            // Compared as names and not as texts: a known name is a number.
            let place = if *name == header::HOST {
                &mut framing.host
            } else if *name == header::CONTENT_LENGTH {
                &mut framing.length
            } else if *name == header::TRANSFER_ENCODING {
                &mut framing.transfer_coding
            } else if *name == header::CONTENT_ENCODING {
                &mut framing.content_coding
            } else if *name == header::CONTENT_TYPE {
                &mut framing.media
            } else {
                continue;
            };
            place.add(value.as_bytes());
        }
        framing
    }

    /// What hyper lets pass and a strict edge must not: a missing or doubled Host, a transfer
    /// coding other than `chunked`, both kinds of framing, a target that names another authority,
    /// more header lines than there is a use for.
    fn check(&self, head: &Parts) -> Result<(), Reject> {
        let host = match self.host {
            Once::One(host) => host,
            // Some proxies speak HTTP/1.0 to what stands behind them, which knows no Host.
            Once::Absent if head.version == Version::HTTP_10 => b"",
            Once::Absent | Once::Several => return Err(Reject::HeadMalformed),
        };
        if !matches!(head.version, Version::HTTP_10 | Version::HTTP_11)
            || head.headers.len() > HEADERS_MAX
        {
            return Err(Reject::HeadMalformed);
        }
        if head.uri.authority().is_some_and(|named| named.as_str().as_bytes() != host) {
            return Err(Reject::HeadMalformed);
        }
        match (self.transfer_coding, self.length) {
            (Once::Absent, Once::Absent | Once::One(_)) => {}
            (Once::One(coding), Once::Absent) if coding.eq_ignore_ascii_case(b"chunked") => {}
            _ => return Err(Reject::HeadMalformed),
        }
        match self.content_coding {
            Once::Absent => Ok(()),
            Once::One(coding) if coding.eq_ignore_ascii_case(b"identity") => Ok(()),
            Once::One(_) | Once::Several => Err(Reject::ContentEncoding),
        }
    }

    /// The part before any parameter must be one that the source expects; a source that names
    /// none takes all.
    fn check_media(&self, source: &Source) -> Result<(), Reject> {
        if source.content_types.is_empty() {
            return Ok(());
        }
        let Once::One(sent) = self.media else { return Err(Reject::MediaType) };
        let essence = sent.split(|&byte| byte == b';').next().unwrap_or(sent).trim_ascii();
        let expected =
            source.content_types.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(essence));
        if expected { Ok(()) } else { Err(Reject::MediaType) }
    }
}
