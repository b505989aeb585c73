//! Senders that sign nothing: a token in a header or in the query, or a name with a password.
//!
//! The whole of it is judged from the head, before a byte of the body is read. Texts are compared
//! by their digests, so the time that it takes says nothing of the secret, its length included.
//! Nothing covers the body: who reads one request can send any other.

use http::HeaderMap;
use ring::digest;
use subtle::ConstantTimeEq as _;

use super::Head;
use super::compile::{needed, only, wrong};
use super::encoding::decode_base64;
use super::head::Needed;
use super::keys::{Key, Secret};
use super::query;
use super::secret::SecretIndex;
use super::spec::{Algorithm, Format, SchemeSpec, SpecError};
use crate::reject::Reject;

/// A compiled scheme of this family.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) place: Place,
    /// A name with a password, in base64.
    pub(super) basic: bool,
}

/// Where the token is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Header { header: Needed, prefix: Box<[u8]> },
    Query(Box<[u8]>),
}

/// The digest of a token, which its `Debug` does not print.
#[derive(Clone)]
pub(super) struct Digest(digest::Digest);

impl Digest {
    pub(super) fn of(token: &[u8]) -> Self {
        Self(digest::digest(&digest::SHA256, token))
    }

    fn is(&self, other: &Self) -> bool {
        self.0.as_ref().ct_eq(other.0.as_ref()).into()
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digest(..)")
    }
}

impl Token {
    pub(super) fn new(spec: &SchemeSpec) -> Result<Self, SpecError> {
        let used = ["header", "query", "prefix", "aliases"];
        only(spec, &used, "means nothing where nothing is signed; remove it")?;
        if spec.format != Format::Plain {
            return wrong("format", "means nothing where nothing is signed; remove it");
        }
        let basic = spec.algorithm == Algorithm::Basic;
        let header = if basic && spec.header.is_empty() { "authorization" } else { &*spec.header };
        let prefix = spec.prefix.as_deref().unwrap_or(if basic { "Basic " } else { "" });
        let place = match &spec.query {
            Some(_) if basic || !header.is_empty() || spec.prefix.is_some() => {
                return wrong("query", "stands beside a header or prefix; keep one of them");
            }
            Some(name) => Place::Query(name.as_bytes().into()),
            None => {
                let header = needed(spec, "header", header)?;
                Place::Header { header, prefix: prefix.as_bytes().into() }
            }
        };
        Ok(Self { place, basic })
    }

    /// Judges the request, whose body has no part in it.
    pub(super) fn claim(&self, secrets: &[Secret], head: &Head<'_>) -> Result<SecretIndex, Reject> {
        let given = match &self.place {
            Place::Header { header, prefix } => from_header(header, prefix, head.headers)?.into(),
            Place::Query(name) => query::only(head.target, name)?,
        };
        let decoded = self.basic.then(|| decode_base64(&given).ok_or(Reject::SignatureMalformed));
        let token = decoded.transpose()?.map_or(given, Into::into);
        let given = Digest::of(&token);
        let known = |secret: &Secret| matches!(&secret.key, Key::Token(known) if known.is(&given));
        secrets.iter().position(known).map(SecretIndex::new).ok_or(Reject::SignatureWrong)
    }
}

/// What stands behind the prefix, which is the name of a method and of either case.
fn from_header<'h>(
    header: &Needed,
    prefix: &[u8],
    headers: &'h HeaderMap,
) -> Result<&'h [u8], Reject> {
    let value = header.value(headers)?;
    let (method, rest) = value.split_at_checked(prefix.len()).ok_or(Reject::SignatureMalformed)?;
    if method.eq_ignore_ascii_case(prefix) { Ok(rest) } else { Err(Reject::SignatureMalformed) }
}
