//! The template families: a MAC or a public-key signature over named parts of the request.
//!
//! The parts are fed to the MAC one after the other, so nothing is copied and nothing is
//! allocated; a public-key signature needs them in one piece. Signatures are compared in constant
//! time, decoded, and only at their full length. `ring` compares in constant time only over one
//! contiguous message, hence `subtle`.

use std::hint::black_box;

use ring::{digest, hmac};
use subtle::ConstantTimeEq as _;

use super::compose::{Asked, Base, Composed};
use super::encoding::{MAC_BYTES_MAX, SIGNATURE_BUFFER, SignatureBuffer, SignatureEncoding};
use super::head::{Found, Needed, Shape, Values};
use super::json::{Paths, Slot};
use super::keys::{Key, Secret};
use super::secret::SecretIndex;
use super::spec::Algorithm;
use super::time::{TimeUnit, Tolerance};
use super::{DigestOf, Head};
use crate::limits;
use crate::reject::Reject;

/// The most public-key verifications for one request; each costs tens of microseconds.
const PUBLIC_KEY_CHECKS_MAX: usize = 2 * limits::SIGNATURES_MAX;

/// A compiled template scheme.
#[derive(Clone, Debug)]
pub(super) struct Template {
    pub(super) algorithm: Algorithm,
    pub(super) other_algorithms: Vec<Algorithm>,
    pub(super) encoding: SignatureEncoding,
    /// The header with the signature.
    pub(super) header: Needed,
    pub(super) shape: Shape,
    /// Headers that are signed or hold the time.
    pub(super) others: Vec<Needed>,
    pub(super) parts: Vec<Part>,
    /// The header that says by its `key_id` which secret it was.
    pub(super) key_id: Option<usize>,
    /// Whether a part has to be made first.
    pub(super) composed: bool,
    /// Whether the signed bytes are needed in one piece.
    pub(super) whole: bool,
    pub(super) base: Option<Base>,
    pub(super) time: Option<TimeRule>,
}

/// A piece of the signed bytes. Indices are into `Template::others` and the labels of its shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Literal(Box<[u8]>),
    Header(usize),
    Label(usize),
    Body,
    Composed(Composed),
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
    /// Judges the head: every needed header once, a candidate of the right length, a time in
    /// tolerance.
    pub(super) fn claim<'h>(&self, head: &Head<'h>, now_ns: u64) -> Result<Signed<'h>, Reject> {
        let values = Values::read(&self.header, &self.others, head.headers)?;
        let found = match self.algorithm.tag_bytes() {
            Some(bytes) if !self.whole => {
                let length = self.encoding.text_bytes(bytes);
                self.shape.find(values.signature, |text| text.len() == length)?
            }
            _ => self.find_long(values.signature)?,
        };
        let asked = self.composed.then(|| Box::new(Asked::new(head)));
        let signed = Signed { values, found, asked };
        if let Some(time) = &self.time {
            match time.from {
                TimeFrom::Header(index) => time.check(values.other(index)?, now_ns)?,
                TimeFrom::Label(index) => time.check(signed.label(index)?, now_ns)?,
                TimeFrom::Json(..) => {}
            }
        }
        Ok(signed)
    }

    /// Whether this is a signature of this scheme, by its form.
    pub(super) fn reads_signature(&self, value: &[u8]) -> bool {
        self.find_long(value).is_ok()
    }

    /// The candidates that may be long, which needs a stack that not every claim should pay for.
    #[inline(never)]
    fn find_long(&self, value: &[u8]) -> Result<Found, Reject> {
        let mut buffer = SIGNATURE_BUFFER;
        self.shape.find(value, |text| self.decode_long(text, &mut buffer).is_some())
    }

    /// A signature of a length that one of the algorithms makes.
    fn decode_long<'b>(&self, text: &[u8], buffer: &'b mut SignatureBuffer) -> Option<&'b [u8]> {
        let count = self.encoding.decode(text, buffer)?;
        let mut algorithms = std::iter::once(&self.algorithm).chain(&self.other_algorithms);
        let fits = algorithms.any(|algorithm| algorithm.signature_bytes().contains(&count));
        fits.then(|| buffer.get(..count))?
    }

    /// Judges the body under the head that made `signed`.
    pub(super) fn check(
        &self,
        secrets: &[Secret],
        signed: &Signed<'_>,
        body: &[u8],
        now_ns: u64,
    ) -> Result<SecretIndex, Reject> {
        let secret = if self.whole {
            self.check_whole(secrets, signed, body)?
        } else {
            self.check_mac(secrets, signed, body)?
        };
        // A time inside the body is believed only now that the body is.
        if let Some(time) = &self.time
            && let TimeFrom::Json(paths, slot) = &time.from
        {
            let values = paths.read(body, slot.bit());
            let text = values.text(*slot).ok_or(Reject::TimestampMalformed)?;
            time.check(text.as_bytes(), now_ns)?;
        }
        Ok(secret)
    }

    fn check_mac(
        &self,
        secrets: &[Secret],
        signed: &Signed<'_>,
        body: &[u8],
    ) -> Result<SecretIndex, Reject> {
        for (index, secret) in secrets.iter().enumerate() {
            let Key::Mac(key) = &secret.key else { continue };
            if !self.may_be(secret, signed)? {
                continue;
            }
            let mut mac = hmac::Context::with_key(key);
            self.feed(signed, body, |_, bytes| mac.update(bytes))?;
            let tag = mac.sign();
            let tag = tag.as_ref();
            let mut buffer = [0; MAC_BYTES_MAX];
            let candidate = buffer.get_mut(..tag.len()).unwrap_or_default();
            for text in signed.signatures() {
                if self.encoding.decode_exact(text, candidate) && same(tag, candidate) {
                    return Ok(SecretIndex::new(index));
                }
            }
        }
        Err(Reject::SignatureWrong)
    }

    /// Checks what cannot be fed to a MAC piece by piece.
    fn check_whole(
        &self,
        secrets: &[Secret],
        signed: &Signed<'_>,
        body: &[u8],
    ) -> Result<SecretIndex, Reject> {
        let messages = self.messages(signed, body, |_| true)?;
        let mut buffer = SIGNATURE_BUFFER;
        let mut checks_left = PUBLIC_KEY_CHECKS_MAX;
        for text in signed.signatures() {
            let Some(signature) = self.decode_long(text, &mut buffer) else { continue };
            for (index, secret) in secrets.iter().enumerate() {
                let Some(key) = secret.key(signed.found.algorithm.into()) else { continue };
                if !self.may_be(secret, signed)? {
                    continue;
                }
                let mut left = messages.iter();
                while let Some(message) = left.next() {
                    checks_left = checks_left.checked_sub(1).ok_or(Reject::SignatureWrong)?;
                    if key.verifies(message, signature) {
                        // Also what the sender did not write: a junk signature is to cost no
                        // more than a right one, and the time not to tell which text was right.
                        left.for_each(|other| _ = black_box(key.verifies(other, signature)));
                        self.bind(signed, body)?;
                        return Ok(SecretIndex::new(index));
                    }
                }
            }
        }
        Err(Reject::SignatureWrong)
    }

    /// Looks at the body where what was signed holds no more of it than its digest.
    fn bind(&self, signed: &Signed<'_>, body: &[u8]) -> Result<(), Reject> {
        let Some(asked) = signed.asked.as_deref() else { return Ok(()) };
        let bound = |part: &Part| match part {
            Part::Composed(composed) => composed.binds(*asked, body),
            _ => true,
        };
        if self.parts.iter().all(bound) { Ok(()) } else { Err(Reject::SignatureWrong) }
    }

    /// Whether a request may be signed by this secret, if it says by which.
    fn may_be(&self, secret: &Secret, signed: &Signed<'_>) -> Result<bool, Reject> {
        let Some(index) = self.key_id else { return Ok(true) };
        let said = signed.values.other(index)?;
        Ok(secret.key_id.as_ref().is_some_and(|known| known.as_bytes() == said))
    }

    /// Every text that may have been signed, the likeliest first, of the parts that are wanted.
    fn messages(
        &self,
        signed: &Signed<'_>,
        body: &[u8],
        wanted: impl Fn(&Part) -> bool,
    ) -> Result<Vec<Vec<u8>>, Reject> {
        let mut messages = vec![Vec::with_capacity(body.len() + 256)];
        for part in self.parts.iter().filter(|part| wanted(part)) {
            let Part::Composed(composed) = part else {
                let bytes = signed.bytes_of(part, body)?;
                for message in &mut messages {
                    message.extend_from_slice(bytes);
                }
                continue;
            };
            let asked = signed.asked.as_deref().ok_or(Reject::CannotVerify)?;
            let texts = composed.texts(self.base.as_ref(), *asked, body)?;
            if let [empty] = &messages[..]
                && empty.is_empty()
            {
                messages = texts;
                continue;
            }
            let longer = |text: &Vec<u8>| {
                messages.iter().map(|message| [&message[..], text].concat()).collect::<Vec<_>>()
            };
            messages = texts.iter().flat_map(longer).collect();
        }
        Ok(messages)
    }

    /// Hands out the signed bytes, part by part. Fails only if `signed` was made by another
    /// scheme.
    fn feed(
        &self,
        signed: &Signed<'_>,
        body: &[u8],
        mut each: impl FnMut(&Part, &[u8]),
    ) -> Result<(), Reject> {
        for part in &self.parts {
            each(part, signed.bytes_of(part, body)?);
        }
        Ok(())
    }

    /// SHA-256 of the signed bytes.
    pub(super) fn digest(
        &self,
        over: DigestOf,
        signed: &Signed<'_>,
        body: &[u8],
    ) -> Result<digest::Digest, Reject> {
        let wanted = |part: &Part| {
            over == DigestOf::Signed || !self.time.as_ref().is_some_and(|time| time.is(part))
        };
        if self.composed {
            let messages = self.messages(signed, body, wanted)?;
            let first = messages.first().ok_or(Reject::CannotVerify)?;
            return Ok(digest::digest(&digest::SHA256, first));
        }
        let mut sha256 = digest::Context::new(&digest::SHA256);
        self.feed(signed, body, |part, bytes| {
            if wanted(part) {
                sha256.update(bytes);
            }
        })?;
        Ok(sha256.finish())
    }
}

/// Whether two tags are equal, in a time that does not tell where they differ. By words: byte by
/// byte this takes as long as decoding one of them.
fn same(left: &[u8], right: &[u8]) -> bool {
    let ((left_words, left_rest), (right_words, right_rest)) =
        (left.as_chunks::<8>(), right.as_chunks::<8>());
    let words = left_words
        .iter()
        .zip(right_words)
        .map(|(left, right)| u64::from_le_bytes(*left).ct_eq(&u64::from_le_bytes(*right)));
    let equal = left_words.len().ct_eq(&right_words.len()) & left_rest.ct_eq(right_rest);
    bool::from(words.fold(equal, |equal, word| equal & word))
}

/// What a head says of its signature.
#[derive(Clone, Debug)]
pub(super) struct Signed<'h> {
    values: Values<'h>,
    found: Found,
    /// Only for schemes that need it, so that the others do not carry it.
    asked: Option<Box<Asked<'h>>>,
}

impl<'h> Signed<'h> {
    /// A part that stands in the request as it is.
    fn bytes_of<'p>(&'p self, part: &'p Part, body: &'p [u8]) -> Result<&'p [u8], Reject> {
        Ok(match part {
            Part::Literal(text) => text,
            Part::Header(index) => self.values.other(*index)?,
            Part::Label(index) => self.label(*index)?,
            Part::Body => body,
            Part::Composed(_) => return Err(Reject::CannotVerify),
        })
    }

    fn signatures(&self) -> impl Iterator<Item = &'h [u8]> {
        let value = self.values.signature;
        self.found.signatures().iter().map(move |span| span.of(value).unwrap_or_default())
    }

    fn label(&self, index: usize) -> Result<&'h [u8], Reject> {
        let span = self.found.labels.get(index).copied().flatten();
        span.and_then(|span| span.of(self.values.signature)).ok_or(Reject::SignatureMalformed)
    }
}
