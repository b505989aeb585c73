//! Is this request what its sender signed?
//!
//! Schemes are data ([`SchemeSpec`]), compiled once into a [`Verifier`]. It judges in two phases:
//! [`Verifier::claim`] from the head alone, before a byte of the body is read, and
//! [`Verifier::check`] over the body as received. A preset ([`Profile`]) is a data file with a
//! scheme, the places of the event's identity and what else is known of a sender.
//!
//! Invariants:
//! - the scheme comes from the source, never from the request;
//! - bytes are verified as received, nothing is re-serialised;
//! - a header that the signature needs stands exactly once;
//! - the work for one request is bounded by [`SIGNATURES_MAX`](crate::limits::SIGNATURES_MAX) and
//!   [`SECRETS_MAX`](crate::limits::SECRETS_MAX);
//! - signatures are compared decoded, at full length and in constant time.
//!
//! - a URL that is signed begins with what the configuration says, never with `Host`.
//!
//! This stage knows heads and bodies but no server, keeps no state and never asks the network: a
//! key that a request names is configured, or the request cannot be verified now.

mod secret;
mod spec;
mod encoding;
mod time;
mod head;
pub(crate) mod json;
mod query;
mod public;
mod token;
mod keys;
mod compose;
mod fields;
pub(crate) mod sns;
mod params;
mod live;
mod compile;
mod compile_jwt;
mod strict;
mod template;
pub(crate) mod jwt;
mod answers;
mod profile;
pub(crate) mod private;
mod sign;
mod verified;

use http::{HeaderMap, HeaderName, HeaderValue, Method, request};
use ring::{digest, hmac};

pub use self::answers::{Answers, Delivery, Patience};
pub use self::encoding::{KeyEncoding, SignatureEncoding};
pub use self::live::Validity;
pub use self::profile::{Family, Notes, Profile, preset, presets};
pub use self::secret::{NamedSecret, SecretIndex, SecretText};
pub use self::sign::{SignInput, SignedRequest, Signer, sign};
pub use self::spec::{
    Algorithm, Format, JwtSpec, JwtTime, KeyPairSpec, SchemeSpec, Settings, SpecError, TimeSpec,
};
pub use self::time::TimeUnit;
pub use self::verified::Verified;

use self::compile::Scheme;
use self::compose::Asked;
use self::jwt::Token;
use self::keys::Key;
use self::live::Live;
use self::template::Signed;
use self::token::Place;
use crate::reject::Reject;

/// A source's scheme and its live secrets.
#[derive(Clone, Debug)]
pub struct Verifier {
    scheme: Scheme,
    secrets: Live,
}

/// What of a request's head a signature may be made over.
#[derive(Clone, Copy, Debug)]
pub struct Head<'h> {
    /// How it was asked for.
    pub method: &'h Method,
    /// Path and query, as they stand in the request line.
    pub target: &'h str,
    /// The headers.
    pub headers: &'h HeaderMap,
}

impl<'h> From<&'h request::Parts> for Head<'h> {
    fn from(parts: &'h request::Parts) -> Self {
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        Self { method: &parts.method, target, headers: &parts.headers }
    }
}

/// A POST to `/`, for schemes that do not sign where it went.
impl<'h> From<&'h HeaderMap> for Head<'h> {
    fn from(headers: &'h HeaderMap) -> Self {
        Self { method: &Method::POST, target: "/", headers }
    }
}

/// What a request's head claims about its signature; kept while the body arrives.
#[derive(Clone, Debug)]
pub struct Claim<'h> {
    now_ns: u64,
    proof: Proof<'h>,
}

#[derive(Clone, Debug)]
enum Proof<'h> {
    Template(Signed<'h>),
    Jwt(Token<'h>),
    /// Everything is in the body.
    Body,
    /// Everything is in the query or in the body.
    Params(Asked<'h>),
    /// Nothing is left to judge; what is not verified has no secret.
    Done(SecretIndex),
}

const _: () = assert!(size_of::<Claim<'_>>() <= 160, "every request moves one about");

/// Over which bytes a digest for the event key is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestOf {
    /// Everything that was signed.
    Signed,
    /// What was signed, but for the time of the attempt: the same for an attempt that the sender
    /// signed anew.
    SignedButTime,
}

impl Verifier {
    /// Compiles a scheme for one source and decodes its secrets.
    pub fn new(
        spec: &SchemeSpec,
        secrets: Vec<NamedSecret>,
        settings: &Settings,
    ) -> Result<Self, SpecError> {
        let (secrets, key_pair) = keys::load(spec, secrets)?;
        let scheme = Scheme::new(spec, key_pair, settings)?;
        Ok(Self { scheme, secrets: Live::new(secrets, &[]) })
    }

    /// The same, but each secret counts only in its time; in the order of the secrets.
    #[must_use]
    pub fn valid(self, validities: &[Validity]) -> Self {
        let secrets = Live::new(self.secrets.all().to_vec(), validities);
        Self { secrets, ..self }
    }

    /// Judges the head alone: every needed header exactly once and readable, a signed time in
    /// tolerance, and for a JWT the token itself.
    pub fn claim<'h>(&self, head: &Head<'h>, now_ns: u64) -> Result<Claim<'h>, Reject> {
        let secrets = &self.secrets.at(now_ns).ok_or(Reject::CannotVerify)?.secrets;
        let proof = match &self.scheme {
            Scheme::Template(template) => Proof::Template(template.claim(head, now_ns)?),
            Scheme::Jwt(jwt) => Proof::Jwt(jwt.claim(secrets, head, now_ns)?),
            Scheme::Fields(_) | Scheme::Sns(_) => Proof::Body,
            Scheme::Params(_) => Proof::Params(Asked::new(head)),
            Scheme::Token(token) => Proof::Done(token.claim(secrets, head)?),
            Scheme::Open => Proof::Done(SecretIndex::NONE),
        };
        Ok(Claim { now_ns, proof })
    }

    /// Judges the body under the head that made the claim, and says which secret matched.
    pub fn check(&self, claim: &Claim<'_>, body: &[u8]) -> Result<SecretIndex, Reject> {
        let live = self.secrets.at(claim.now_ns).ok_or(Reject::CannotVerify)?;
        let secret = match (&self.scheme, &claim.proof) {
            (Scheme::Template(template), Proof::Template(signed)) => {
                template.check(&live.secrets, signed, body, claim.now_ns)?
            }
            (Scheme::Jwt(_), Proof::Jwt(token)) => token.check(body)?,
            (Scheme::Fields(fields), Proof::Body) => {
                fields.check(&live.secrets, body, claim.now_ns)?
            }
            (Scheme::Sns(sns), Proof::Body) => sns.check(&live.secrets, body)?,
            (Scheme::Params(params), Proof::Params(asked)) => {
                params.check(&live.secrets, *asked, body)?
            }
            (Scheme::Token(_) | Scheme::Open, Proof::Done(secret)) => *secret,
            // The claim is another verifier's.
            _ => return Err(Reject::CannotVerify),
        };
        Ok(live.index(secret))
    }

    /// SHA-256 over the signed bytes of a request that was checked, for keys of events without an
    /// id of their own; where nothing is signed, over the body. Fails only if the claim is another
    /// verifier's.
    pub fn digest(
        &self,
        over: DigestOf,
        claim: &Claim<'_>,
        body: &[u8],
    ) -> Result<[u8; 32], Reject> {
        let digest = match (&self.scheme, &claim.proof) {
            (Scheme::Template(template), Proof::Template(signed)) => {
                template.digest(over, signed, body)?
            }
            (Scheme::Jwt(_), Proof::Jwt(token)) => token.digest(),
            (Scheme::Fields(fields), Proof::Body) => fields.digest(body)?,
            (Scheme::Sns(sns), Proof::Body) => sns.digest(body)?,
            (Scheme::Params(params), Proof::Params(asked)) => params.digest(*asked, body)?,
            (Scheme::Token(_) | Scheme::Open, Proof::Done(_)) => {
                digest::digest(&digest::SHA256, body)
            }
            _ => return Err(Reject::CannotVerify),
        };
        digest.as_ref().try_into().or(Err(Reject::CannotVerify))
    }

    /// Whether the signature is made with this header. What it holds is then bound to one request
    /// and opens no other door.
    pub fn reads(&self, name: &HeaderName) -> bool {
        match &self.scheme {
            Scheme::Template(template) => {
                let mut headers = std::iter::once(&template.header).chain(&template.others);
                headers.any(|header| header.names.contains(name))
            }
            Scheme::Jwt(jwt) => jwt.header.names.contains(name),
            _ => false,
        }
    }

    /// Whether this header holds the secret itself, so that its value must never be kept.
    pub fn is_credential(&self, name: &HeaderName) -> bool {
        let Scheme::Token(token) = &self.scheme else { return false };
        matches!(&token.place, Place::Header { header, .. } if header.names.contains(name))
    }

    /// Whether the query holds the secret itself, so that it must never be kept.
    pub fn credential_in_query(&self) -> bool {
        matches!(&self.scheme, Scheme::Token(token) if matches!(token.place, Place::Query(_)))
    }

    /// The MAC of `text` under one of the secrets; none if that is no key of a MAC.
    fn mac(&self, index: SecretIndex, text: &[u8]) -> Option<hmac::Tag> {
        match &self.secrets.all().get(index.as_usize())?.key {
            Key::Mac(key) => Some(hmac::sign(key, text)),
            Key::Public(_) | Key::Token(_) => None,
        }
    }

    /// Whether what stands in this header is bound to one request, so that it may be kept even of
    /// a request that did not verify: anybody may have put a credential of another kind there.
    pub fn binds(&self, name: &HeaderName, value: &HeaderValue) -> bool {
        match &self.scheme {
            Scheme::Template(template) if template.header.names.contains(name) => {
                template.reads_signature(value.as_bytes())
            }
            Scheme::Template(_) => self.reads(name),
            Scheme::Jwt(jwt) => self.reads(name) && jwt.names_body(value.as_bytes()),
            _ => false,
        }
    }

    /// The name of a secret of this verifier.
    pub fn secret_name(&self, index: SecretIndex) -> &str {
        self.secrets.all().get(index.as_usize()).map_or("", |secret| &secret.name)
    }

    /// What kind each secret is of, in the order of [`SecretIndex`].
    pub fn secret_kinds(&self) -> impl Iterator<Item = &'static str> {
        self.secrets.all().iter().map(|secret| match secret.key {
            Key::Mac(_) => "mac",
            Key::Public(_) => "public-key",
            Key::Token(_) => "token",
        })
    }

    /// The names of all secrets, in the order of [`SecretIndex`].
    pub fn secret_names(&self) -> impl Iterator<Item = &str> {
        self.secrets.all().iter().map(|secret| &*secret.name)
    }
}

#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod vectors;
#[cfg(test)]
mod families;
