//! JSON Web Tokens that hold a digest of the body, or the body itself.
//!
//! The algorithms are the scheme's; the token's own `alg` must only agree with one of them. The
//! token is verified in full from the head alone, before the body is read; of the body only the
//! digest is left to compare. Claims are read strictly: no doubled names, whole seconds, no
//! `crit`.

use std::borrow::Cow;

use ring::digest;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use subtle::ConstantTimeEq as _;

use super::Head;
use super::compose::Base;
use super::encoding::{SignatureEncoding, decode_base64url};
use super::head::Needed;
use super::json::{Paths, Slot, Values};
use super::keys::Secret;
use super::secret::SecretIndex;
use super::sign::SignInput;
use super::spec::{JwtTime, SpecError};
use super::strict::same_json;
use super::time::{Tolerance, digits};
use crate::reject::Reject;

/// A compiled JWT scheme.
#[derive(Clone, Debug)]
pub(super) struct Jwt {
    pub(super) header: Needed,
    pub(super) prefix: Box<[u8]>,
    /// What the token's `alg` may say, the scheme's own algorithm first.
    pub(super) names: Vec<&'static str>,
    /// The claims that are looked at.
    pub(super) paths: Paths,
    pub(super) key_id: Option<Claim>,
    pub(super) body: BodyClaim,
    pub(super) url_sha256: Option<(Claim, Base)>,
    pub(super) issuer: Option<(Claim, Box<str>)>,
    pub(super) required: Vec<Claim>,
    pub(super) times: Times,
}

/// A claim by its name, and where its value is once the claims were read.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) name: Box<str>,
    pub(super) slot: Slot,
}

/// How the claims bind the body.
#[derive(Clone, Debug)]
pub(super) enum BodyClaim {
    Sha256 {
        claim: Claim,
        encoding: SignatureEncoding,
        empty_unhashed: bool,
    },
    /// They are the same JSON.
    Same,
}

/// The claims that bound a token's life.
#[derive(Clone, Debug)]
pub(super) struct Times {
    pub(super) exp: Slot,
    pub(super) nbf: Slot,
    pub(super) iat: Slot,
    pub(super) bound: JwtTime,
    pub(super) leeway: Tolerance,
    /// How far `iat` may be from now.
    pub(super) age: Tolerance,
}

/// What the token of a request says, once its signature has been verified.
#[derive(Clone, Debug)]
pub(super) struct Token<'h> {
    signed: &'h [u8],
    secret: SecretIndex,
    body: Expected,
}

/// What the body has to be.
#[derive(Clone, Debug)]
enum Expected {
    Sha256([u8; digest::SHA256_OUTPUT_LEN]),
    /// The same, and not empty.
    Some([u8; digest::SHA256_OUTPUT_LEN]),
    Empty,
    /// The same JSON as these claims.
    Same(Box<[u8]>),
}

/// The first two segments, as signed, and the third.
struct Segments<'h> {
    signed: &'h [u8],
    head: &'h [u8],
    claims: &'h [u8],
    signature: &'h [u8],
}

impl Token<'_> {
    /// SHA-256 of the token's first two segments, which bind the body.
    pub(super) fn digest(&self) -> digest::Digest {
        digest::digest(&digest::SHA256, self.signed)
    }

    /// Compares the body with what the token says of it.
    pub(super) fn check(&self, body: &[u8]) -> Result<SecretIndex, Reject> {
        let is = |sha256: &[u8]| {
            let found = digest::digest(&digest::SHA256, body);
            bool::from(found.as_ref().ct_eq(sha256))
        };
        let same = match &self.body {
            Expected::Sha256(sha256) => is(sha256),
            Expected::Some(sha256) => !body.is_empty() && is(sha256),
            Expected::Empty => body.is_empty(),
            Expected::Same(claims) => same_json(claims, body),
        };
        if same { Ok(self.secret) } else { Err(Reject::SignatureWrong) }
    }
}

impl Jwt {
    /// What the tokens of its sender say of their algorithm.
    pub(super) fn name(&self) -> &'static str {
        self.names.first().copied().unwrap_or_default()
    }

    /// Verifies the token.
    pub(super) fn claim<'h>(
        &self,
        secrets: &[Secret],
        request: &Head<'h>,
        now_ns: u64,
    ) -> Result<Token<'h>, Reject> {
        let value = self.header.value(request.headers)?;
        let malformed = Reject::SignatureMalformed;
        let segments = split(value, &self.prefix).ok_or(malformed)?;
        let head = decode_base64url(segments.head).ok_or(malformed)?;
        let head: TokenHead<'_> = serde_json::from_slice(&head).or(Err(malformed))?;
        let algorithm = self.names.iter().position(|name| head.alg == *name);
        let algorithm = algorithm.filter(|_| head.crit.is_none()).ok_or(malformed)?;
        let text = decode_base64url(segments.claims).ok_or(malformed)?;
        let claims = self.paths.read_strictly(&text).ok_or(malformed)?;
        if !text.trim_ascii_start().starts_with(b"{") {
            return Err(malformed);
        }
        let signature = decode_base64url(segments.signature).ok_or(malformed)?;
        let key_id = match &self.key_id {
            Some(claim) => Some(claims.string(claim.slot).ok_or(match claims.raw(claim.slot) {
                Some(_) => malformed,
                None => Reject::SignatureWrong,
            })?),
            None => None,
        };
        let made_it = |secret: &Secret| {
            let named = key_id.is_none() || secret.key_id.as_deref() == key_id.as_deref();
            let key = secret.key(algorithm);
            named && key.is_some_and(|key| key.verifies(segments.signed, &signature))
        };
        let secret = secrets.iter().position(made_it).ok_or(Reject::SignatureWrong)?;
        // From here on the claims are the sender's own words.
        self.times.check(&claims, now_ns)?;
        self.check_claims(&claims, request)?;
        let body = self.expected(&claims, &text)?;
        Ok(Token { signed: segments.signed, secret: SecretIndex::new(secret), body })
    }

    /// Whether this is a token that holds the digest of a body, whoever signed it. Of one that
    /// should repeat the body nobody knows without that body.
    pub(super) fn names_body(&self, value: &[u8]) -> bool {
        let BodyClaim::Sha256 { claim, .. } = &self.body else { return false };
        let text = split(value, &self.prefix).and_then(|token| decode_base64url(token.claims));
        text.is_some_and(|text| {
            let claims = self.paths.read_strictly(&text);
            claims.is_some_and(|claims| claims.string(claim.slot).is_some())
        })
    }

    /// What the token says of anything but times and the body.
    fn check_claims(&self, claims: &Values<'_>, request: &Head<'_>) -> Result<(), Reject> {
        if let Some((claim, issuer)) = &self.issuer
            && claims.string(claim.slot).as_deref() != Some(issuer)
        {
            return Err(Reject::SignatureWrong);
        }
        let missing = |claim: &Claim| claims.string(claim.slot).is_none_or(|text| text.is_empty());
        if self.required.iter().any(missing) {
            return Err(Reject::SignatureMalformed);
        }
        let Some((claim, base)) = &self.url_sha256 else { return Ok(()) };
        let text = claims.string(claim.slot).ok_or(Reject::SignatureMalformed)?;
        let said = sha256_of(&text, SignatureEncoding::Hex)?;
        let found = digest::digest(&digest::SHA256, base.url(request.target).as_bytes());
        if bool::from(found.as_ref().ct_eq(&said)) { Ok(()) } else { Err(Reject::SignatureWrong) }
    }

    fn expected(&self, claims: &Values<'_>, text: &[u8]) -> Result<Expected, Reject> {
        let BodyClaim::Sha256 { claim, encoding, empty_unhashed } = &self.body else {
            return Ok(Expected::Same(text.into()));
        };
        match (claims.string(claim.slot), empty_unhashed) {
            (Some(text), false) => Ok(Expected::Sha256(sha256_of(&text, *encoding)?)),
            (Some(text), true) => Ok(Expected::Some(sha256_of(&text, *encoding)?)),
            (None, true) if claims.raw(claim.slot).is_none() => Ok(Expected::Empty),
            (None, _) => Err(Reject::SignatureMalformed),
        }
    }

    /// The claims of a valid token over this input, as its sender would write them.
    pub(super) fn claims_for(
        &self,
        key_id: Option<&str>,
        input: &SignInput<'_>,
        times: &[(&str, u64)],
    ) -> Result<Value, SpecError> {
        let sha256 = |bytes: &[u8]| digest::digest(&digest::SHA256, bytes);
        let BodyClaim::Sha256 { claim, encoding, empty_unhashed } = &self.body else {
            return serde_json::from_slice(input.body).map_err(|_| {
                SpecError::new("body", "is no JSON, and this sender's tokens repeat it")
            });
        };
        let mut claims: Value = times.iter().map(|(name, at)| (*name, *at)).collect();
        if !(*empty_unhashed && input.body.is_empty()) {
            claims[&*claim.name] = encoding.encode(sha256(input.body).as_ref()).into();
        }
        for claim in &self.required {
            claims[&*claim.name] = input.id.into();
        }
        if let (Some(claim), Some(key_id)) = (&self.key_id, key_id) {
            claims[&*claim.name] = key_id.into();
        }
        if let Some((claim, issuer)) = &self.issuer {
            claims[&*claim.name] = (**issuer).into();
        }
        if let Some((claim, base)) = &self.url_sha256 {
            let sha256 = sha256(base.url(input.target).as_bytes());
            claims[&*claim.name] = SignatureEncoding::Hex.encode(sha256.as_ref()).into();
        }
        Ok(claims)
    }
}

impl Times {
    fn check(&self, claims: &Values<'_>, now_ns: u64) -> Result<(), Reject> {
        let seconds = |slot| match claims.raw(slot) {
            None => Ok(None),
            Some(raw) => match digits(raw.as_bytes(), 12) {
                Some(s) => Ok(Some(s.saturating_mul(1_000_000_000))),
                None => Err(Reject::TimestampMalformed),
            },
        };
        let (expires, begins, made) = (seconds(self.exp)?, seconds(self.nbf)?, seconds(self.iat));
        match self.bound {
            JwtTime::Exp if expires.is_none() => return Err(Reject::TimestampMalformed),
            JwtTime::Iat => {
                self.age.check(made?.ok_or(Reject::TimestampMalformed)?, now_ns)?;
            }
            JwtTime::Exp | JwtTime::None => {}
        }
        if let Some(expires) = expires.filter(|expires| now_ns > *expires) {
            self.leeway.check(expires, now_ns)?;
        }
        match begins {
            Some(begins) if now_ns < begins => self.leeway.check(begins, now_ns),
            _ => Ok(()),
        }
    }
}

fn sha256_of(
    text: &str,
    encoding: SignatureEncoding,
) -> Result<[u8; digest::SHA256_OUTPUT_LEN], Reject> {
    let mut sha256 = [0; digest::SHA256_OUTPUT_LEN];
    let readable = encoding.decode_exact(text.as_bytes(), &mut sha256);
    readable.then_some(sha256).ok_or(Reject::SignatureMalformed)
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
struct TokenHead<'t> {
    #[serde(borrow)]
    alg: Cow<'t, str>,
    crit: Option<IgnoredAny>,
}
