//! The template families: a MAC or a public-key signature over named parts of the request.
//!
//! The parts are fed to the MAC one after the other, so nothing is copied and nothing is
//! allocated; a public-key signature needs them in one piece. Signatures are compared in constant
//! time, decoded, and only at their full length. `ring` compares in constant time only over one
//! contiguous message, hence `subtle`.

use http::HeaderMap;
use ring::{digest, hmac};
use subtle::ConstantTimeEq as _;

use super::DigestOf;
use super::encoding::{SIGNATURE_BYTES_MAX, SignatureEncoding};
use super::head::{Found, Needed, Shape};
use super::json::{Paths, Slot};
use super::keys::{Key, Secret};
use super::secret::SecretIndex;
use super::spec::Algorithm;
use super::time::{TimeUnit, Tolerance};
use crate::limits;
use crate::reject::Reject;

/// The most public-key verifications for one request; each costs tens of microseconds.
const PUBLIC_KEY_CHECKS_MAX: usize = 2 * limits::SIGNATURES_MAX;

/// A compiled template scheme.
#[derive(Clone, Debug)]
pub(super) struct Template {
    pub(super) algorithm: Algorithm,
    pub(super) encoding: SignatureEncoding,
    /// The header with the signature.
    pub(super) header: Needed,
    pub(super) shape: Shape,
    /// Headers that are signed or hold the time.
    pub(super) others: Vec<Needed>,
    pub(super) parts: Vec<Part>,
    pub(super) time: Option<TimeRule>,
}

/// A piece of the signed bytes. Indices are into `Template::others` and the labels of its shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Literal(Box<[u8]>),
    Header(usize),
    Label(usize),
    Body,
}

/// Where the signed time is, and how near to now it must be.
#[derive(Clone, Debug)]
pub(super) struct TimeRule {
    pub(super) from: TimeFrom,
    pub(super) unit: TimeUnit,
    pub(super) tolerance: Tolerance,
}

#[derive(Clone, Debug)]
pub(super) enum TimeFrom {
    Header(usize),
    Label(usize),
    Json(Box<Paths>, Slot),
}

impl TimeRule {
    /// Whether a part of the signed bytes is this time.
    fn is(&self, part: &Part) -> bool {
        match (&self.from, part) {
            (TimeFrom::Header(time), Part::Header(part))
            | (TimeFrom::Label(time), Part::Label(part)) => time == part,
            _ => false,
        }
    }

    fn check(&self, text: &[u8], now_ns: u64) -> Result<(), Reject> {
        let at_ns = self.unit.parse(text).ok_or(Reject::TimestampMalformed)?;
        self.tolerance.check(at_ns, now_ns)
    }
}

impl Template {
    /// Judges the head: every needed header once, a readable candidate, a time in tolerance.
    pub(super) fn claim(&self, headers: &HeaderMap, now_ns: u64) -> Result<Found, Reject> {
        let value = self.header.value(headers)?;
        for needed in &self.others {
            needed.value(headers)?;
        }
        let mut scratch = [0; SIGNATURE_BYTES_MAX];
        let scratch = scratch.get_mut(..self.algorithm.signature_bytes()).unwrap_or_default();
        let found = self.shape.find(value, |text| self.encoding.decode_exact(text, scratch))?;
        if let Some(time) = &self.time {
            match time.from {
                TimeFrom::Header(index) => time.check(self.other(index, headers)?, now_ns)?,
                TimeFrom::Label(index) => time.check(label(&found, value, index)?, now_ns)?,
                TimeFrom::Json(..) => {}
            }
        }
        Ok(found)
    }

    /// Judges the whole request, whose head made `found`.
    pub(super) fn check(
        &self,
        secrets: &[Secret],
        found: &Found,
        request: Request<'_>,
    ) -> Result<SecretIndex, Reject> {
        let value = self.header.value(request.headers)?;
        let secret = match self.algorithm.mac() {
            Some(_) => self.check_mac(secrets, found, value, request)?,
            None => self.check_public(secrets, found, value, request)?,
        };
        // A time inside the body is believed only now that the body is.
        if let Some(time) = &self.time
            && let TimeFrom::Json(paths, slot) = &time.from
        {
            let values = paths.read(request.body, slot.bit());
            let text = values.text(*slot).ok_or(Reject::TimestampMalformed)?;
            time.check(text.as_bytes(), request.now_ns)?;
        }
        Ok(secret)
    }

    fn check_mac(
        &self,
        secrets: &[Secret],
        found: &Found,
        value: &[u8],
        request: Request<'_>,
    ) -> Result<SecretIndex, Reject> {
        for (index, secret) in secrets.iter().enumerate() {
            let Key::Mac(key) = &secret.key else { continue };
            let mut mac = hmac::Context::with_key(key);
            self.feed(found, value, request, |_, bytes| mac.update(bytes))?;
            let tag = mac.sign();
            let tag = tag.as_ref();
            let mut buffer = [0; SIGNATURE_BYTES_MAX];
            let candidate = buffer.get_mut(..tag.len()).unwrap_or_default();
            for span in found.signatures() {
                let text = span.of(value).unwrap_or_default();
                if self.encoding.decode_exact(text, candidate) && bool::from(tag.ct_eq(candidate)) {
                    return Ok(SecretIndex::new(index));
                }
            }
        }
        Err(Reject::SignatureWrong)
    }

    fn check_public(
        &self,
        secrets: &[Secret],
        found: &Found,
        value: &[u8],
        request: Request<'_>,
    ) -> Result<SecretIndex, Reject> {
        let mut message = Vec::with_capacity(request.body.len() + 256);
        self.feed(found, value, request, |_, bytes| message.extend_from_slice(bytes))?;
        let pairs = found.signatures().iter().flat_map(|span| {
            secrets.iter().enumerate().map(move |(index, secret)| (span, index, secret))
        });
        let mut buffer = [0; SIGNATURE_BYTES_MAX];
        let candidate = buffer.get_mut(..self.algorithm.signature_bytes()).unwrap_or_default();
        for (span, index, secret) in pairs.take(PUBLIC_KEY_CHECKS_MAX) {
            let Key::Public(key) = &secret.key else { continue };
            let text = span.of(value).unwrap_or_default();
            if self.encoding.decode_exact(text, candidate)
                && key.verify(&message, candidate).is_ok()
            {
                return Ok(SecretIndex::new(index));
            }
        }
        Err(Reject::SignatureWrong)
    }

    /// Hands out the signed bytes, part by part. Fails only if `request` has another head than
    /// the one that made `found`.
    fn feed(
        &self,
        found: &Found,
        value: &[u8],
        request: Request<'_>,
        mut each: impl FnMut(&Part, &[u8]),
    ) -> Result<(), Reject> {
        for part in &self.parts {
            let bytes = match part {
                Part::Literal(text) => text,
                Part::Header(index) => self.other(*index, request.headers)?,
                Part::Label(index) => label(found, value, *index)?,
                Part::Body => request.body,
            };
            each(part, bytes);
        }
        Ok(())
    }

    /// SHA-256 of the signed bytes.
    pub(super) fn digest(
        &self,
        over: DigestOf,
        found: &Found,
        request: Request<'_>,
    ) -> Result<digest::Digest, Reject> {
        let value = self.header.value(request.headers)?;
        let mut sha256 = digest::Context::new(&digest::SHA256);
        self.feed(found, value, request, |part, bytes| {
            let time = self.time.as_ref().is_some_and(|time| time.is(part));
            if over == DigestOf::Signed || !time {
                sha256.update(bytes);
            }
        })?;
        Ok(sha256.finish())
    }

    fn other<'h>(&self, index: usize, headers: &'h HeaderMap) -> Result<&'h [u8], Reject> {
        self.others.get(index).ok_or(Reject::SignatureMissing)?.value(headers)
    }
}

/// A request as far as a signature may cover it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'r> {
    pub(super) headers: &'r HeaderMap,
    pub(super) body: &'r [u8],
    /// When the head came.
    pub(super) now_ns: u64,
}

fn label<'v>(found: &Found, value: &'v [u8], index: usize) -> Result<&'v [u8], Reject> {
    let span = found.labels.get(index).copied().flatten().ok_or(Reject::SignatureMalformed)?;
    span.of(value).ok_or(Reject::SignatureMalformed)
}
