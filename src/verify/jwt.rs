//! JSON Web Tokens that hold a digest of the body.
//!
//! The algorithm is the scheme's; the token's own `alg` must only agree with it. The token is
//! verified in full from the head alone, before the body is read; of the body only the digest is
//! left to compare. Claims are read strictly: no doubled names, whole seconds, no `crit`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use http::HeaderMap;
use ring::{digest, hmac};
use serde::Deserialize;
use serde::de::{Deserializer as _, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use subtle::ConstantTimeEq as _;

use super::compile::needed;
use super::encoding::{SignatureEncoding, decode_base64url};
use super::head::Needed;
use super::keys::{Key, Secret};
use super::secret::SecretIndex;
use super::spec::{Algorithm, SchemeSpec, SpecError};
use super::time::{Tolerance, digits};
use crate::reject::Reject;

/// A compiled JWT scheme.
#[derive(Clone, Debug)]
pub(super) struct Jwt {
    pub(super) header: Needed,
    pub(super) prefix: Box<[u8]>,
    /// What the token's `alg` must say.
    pub(super) name: &'static str,
    pub(super) key_id: Option<Box<str>>,
    pub(super) body_sha256: Box<str>,
    pub(super) body_sha256_encoding: SignatureEncoding,
    leeway: Duration,
}

/// What the token of a request says, once its signature has been verified.
#[derive(Clone, Debug)]
pub(super) struct Token<'h> {
    signed: &'h [u8],
    secret: SecretIndex,
    body_sha256: [u8; digest::SHA256_OUTPUT_LEN],
}

/// The first two segments, as signed, and the third.
struct Segments<'h> {
    signed: &'h [u8],
    head: &'h [u8],
    claims: &'h [u8],
    signature: &'h [u8],
}

impl Token<'_> {
    /// SHA-256 of the token's first two segments, which hold the digest of the body.
    pub(super) fn digest(&self) -> digest::Digest {
        digest::digest(&digest::SHA256, self.signed)
    }
}

impl Jwt {
    pub(super) fn new(spec: &SchemeSpec) -> Result<Self, SpecError> {
        let wrong = |key: &str, message: &str| {
            Err(SpecError::new(format!("scheme.{key}"), message.to_owned()))
        };
        let Some(jwt) = &spec.jwt else {
            return wrong("jwt", "is missing; say which claim holds the digest of the body");
        };
        let name = match spec.algorithm {
            Algorithm::HmacSha256 => "HS256",
            Algorithm::HmacSha384 => "HS384",
            Algorithm::HmacSha512 => "HS512",
            _ => {
                return wrong(
                    "algorithm",
                    "signs no JWT here; use hmac-sha256, -sha384 or -sha512",
                );
            }
        };
        let unused = [
            ("separator", spec.separator.is_some()),
            ("label", spec.label.is_some()),
            ("signed", !spec.signed.is_empty()),
            ("signature_encoding", spec.signature_encoding.is_some()),
            ("time", spec.time.is_some()),
            ("key_pair", spec.key_pair.is_some()),
        ];
        if let Some((key, _)) = unused.iter().find(|(_, set)| *set) {
            return wrong(key, "means nothing with format = \"jwt\"; remove it");
        }
        Ok(Self {
            header: needed(spec, "header", &spec.header)?,
            prefix: spec.prefix.as_deref().unwrap_or_default().as_bytes().into(),
            name,
            key_id: jwt.key_id.as_deref().map(Into::into),
            body_sha256: jwt.body_sha256.as_str().into(),
            body_sha256_encoding: jwt.body_sha256_encoding,
            leeway: jwt.leeway,
        })
    }

    /// Verifies the token.
    pub(super) fn claim<'h>(
        &self,
        secrets: &[Secret],
        headers: &'h HeaderMap,
        now_ns: u64,
    ) -> Result<Token<'h>, Reject> {
        let segments = self.segments(headers)?;
        let head = decode_base64url(segments.head).ok_or(Reject::SignatureMalformed)?;
        let head: Head<'_> = serde_json::from_slice(&head).or(Err(Reject::SignatureMalformed))?;
        if head.alg != self.name || head.crit.is_some() {
            return Err(Reject::SignatureMalformed);
        }
        let claims = decode_base64url(segments.claims).ok_or(Reject::SignatureMalformed)?;
        let claims = self.read(&claims).ok_or(Reject::SignatureMalformed)?;
        let signature = decode_base64url(segments.signature).ok_or(Reject::SignatureMalformed)?;
        let verified = |(index, secret): (usize, &Secret)| {
            let named =
                self.key_id.is_none() || secret.key_id.as_deref() == claims.key_id.as_deref();
            let Key::Mac(key) = &secret.key else { return None };
            let valid = named && hmac::verify(key, segments.signed, &signature).is_ok();
            valid.then(|| SecretIndex::new(index))
        };
        let secret = secrets.iter().enumerate().find_map(verified).ok_or(Reject::SignatureWrong)?;
        // From here on the claims are the sender's own words.
        self.check_times(&claims, now_ns)?;
        let mut body_sha256 = [0; digest::SHA256_OUTPUT_LEN];
        let text = claims.body_sha256.as_deref().ok_or(Reject::SignatureMalformed)?;
        if !self.body_sha256_encoding.decode_exact(text.as_bytes(), &mut body_sha256) {
            return Err(Reject::SignatureMalformed);
        }
        Ok(Token { signed: segments.signed, secret, body_sha256 })
    }

    fn check_times(&self, claims: &Claims<'_>, now_ns: u64) -> Result<(), Reject> {
        let seconds = |raw: Option<&RawValue>| match raw {
            None => Ok(None),
            Some(raw) => match digits(raw.get().as_bytes(), 12) {
                Some(s) => Ok(Some(s.saturating_mul(1_000_000_000))),
                None => Err(Reject::TimestampMalformed),
            },
        };
        let expires = seconds(claims.exp)?.ok_or(Reject::TimestampMalformed)?;
        let edges = Tolerance::new(self.leeway, self.leeway);
        if now_ns > expires {
            edges.check(expires, now_ns)?;
        }
        match seconds(claims.nbf)? {
            Some(begins) if now_ns < begins => edges.check(begins, now_ns),
            _ => Ok(()),
        }
    }

    /// Compares the body with what the token says of it.
    pub(super) fn check(token: &Token<'_>, body: &[u8]) -> Result<SecretIndex, Reject> {
        let found = digest::digest(&digest::SHA256, body);
        if bool::from(found.as_ref().ct_eq(&token.body_sha256)) {
            Ok(token.secret)
        } else {
            Err(Reject::SignatureWrong)
        }
    }

    fn segments<'h>(&self, headers: &'h HeaderMap) -> Result<Segments<'h>, Reject> {
        let value = self.header.value(headers)?;
        split(value, &self.prefix).ok_or(Reject::SignatureMalformed)
    }

    /// The claims that this scheme checks.
    fn read<'c>(&self, text: &'c [u8]) -> Option<Claims<'c>> {
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let claims = deserializer.deserialize_map(ReadClaims(self)).ok()?;
        deserializer.end().ok()?;
        Some(claims)
    }
}

fn split<'h>(value: &'h [u8], prefix: &[u8]) -> Option<Segments<'h>> {
    let token = value.strip_prefix(prefix)?;
    let mut dots = token.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(at, _)| at);
    let (first, second, None) = (dots.next()?, dots.next()?, dots.next()) else { return None };
    Some(Segments {
        signed: token.get(..second)?,
        head: token.get(..first)?,
        claims: token.get(first + 1..second)?,
        signature: token.get(second + 1..)?,
    })
}

/// The text of the claims of a token, not verified here.
pub(crate) fn claims_of(value: &[u8], prefix: &[u8]) -> Option<Vec<u8>> {
    decode_base64url(split(value, prefix)?.claims)
}

#[derive(Deserialize)]
struct Head<'t> {
    #[serde(borrow)]
    alg: Cow<'t, str>,
    crit: Option<IgnoredAny>,
}

#[derive(Default)]
struct Claims<'c> {
    key_id: Option<Cow<'c, str>>,
    body_sha256: Option<Cow<'c, str>>,
    exp: Option<&'c RawValue>,
    nbf: Option<&'c RawValue>,
}

struct ReadClaims<'j>(&'j Jwt);

impl<'c> Visitor<'c> for ReadClaims<'_> {
    type Value = Claims<'c>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("claims")
    }

    fn visit_map<A: MapAccess<'c>>(self, mut map: A) -> Result<Claims<'c>, A::Error> {
        let mut claims = Claims::default();
        while let Some(name) = map.next_key::<Cow<'c, str>>()? {
            let twice = if self.0.key_id.as_deref() == Some(&*name) {
                claims.key_id.replace(map.next_value()?).is_some()
            } else if *name == *self.0.body_sha256 {
                claims.body_sha256.replace(map.next_value()?).is_some()
            } else if name == "exp" {
                claims.exp.replace(map.next_value()?).is_some()
            } else if name == "nbf" {
                claims.nbf.replace(map.next_value()?).is_some()
            } else {
                map.next_value::<IgnoredAny>()?;
                false
            };
            if twice {
                return Err(A::Error::custom("a claim stands twice"));
            }
        }
        Ok(claims)
    }
}
