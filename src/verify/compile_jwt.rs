//! From a [`SchemeSpec`] with `format = "jwt"` to the compiled [`Jwt`].

use std::time::Duration;

use super::compile::{base, needed, only, wrong};
use super::json::{Paths, Slot};
use super::jwt::{BodyClaim, Claim, Jwt, Times};
use super::spec::{Algorithm, JwtSpec, JwtTime, SchemeSpec, Settings, SpecError};
use super::time::Tolerance;

impl Jwt {
    /// Compiles the scheme, or says which key keeps it from making sense.
    pub(super) fn new(spec: &SchemeSpec, settings: &Settings) -> Result<Self, SpecError> {
        let Some(jwt) = &spec.jwt else {
            return wrong("jwt", "is missing; say which claim holds the digest of the body");
        };
        let used = ["other_algorithms", "header", "prefix", "aliases", "jwt"];
        only(spec, &used, "means nothing with format = \"jwt\"; remove it")?;
        let mut paths = Paths::default();
        let mut claim = |key: &str, name: &str| named(&mut paths, key, name);
        let optional = |name: &Option<String>| name.clone();
        let key_id = optional(&jwt.key_id).map(|name| claim("jwt.key_id", &name)).transpose()?;
        let body = body(jwt, &mut claim)?;
        let url_sha256 = match &jwt.url_sha256 {
            Some(name) => Some((claim("jwt.url_sha256", name)?, base(settings)?)),
            None => None,
        };
        let issuer = match &jwt.issuer {
            Some(issuer) => Some((claim("jwt.issuer", "iss")?, issuer.as_str().into())),
            None => None,
        };
        let required = jwt.required.iter().map(|name| claim("jwt.required", name));
        let required = required.collect::<Result<_, _>>()?;
        let mut slot = |name: &str| Ok::<Slot, SpecError>(claim("jwt", name)?.slot);
        let times = times(jwt, settings, &mut slot)?;
        let header = needed(spec, "header", &spec.header)?;
        let prefix = spec.prefix.as_deref().unwrap_or_default().as_bytes().into();
        let names = names(spec)?;
        Ok(Self { header, prefix, names, paths, key_id, body, url_sha256, issuer, required, times })
    }
}

fn named(paths: &mut Paths, key: &str, name: &str) -> Result<Claim, SpecError> {
    match paths.add_key(name) {
        Ok(slot) => Ok(Claim { name: name.into(), slot }),
        Err(message) => wrong(key, message),
    }
}

fn body(
    jwt: &JwtSpec,
    claim: &mut impl FnMut(&str, &str) -> Result<Claim, SpecError>,
) -> Result<BodyClaim, SpecError> {
    match (&jwt.body_sha256, jwt.body_sha256_encoding, jwt.claims_are_body) {
        (None, None, true) if !jwt.empty_body_unhashed => Ok(BodyClaim::Same),
        (_, _, true) => {
            wrong("jwt.claims_are_body", "stands beside the digest of the body; keep one of them")
        }
        (Some(name), Some(encoding), false) => {
            let claim = claim("jwt.body_sha256", name)?;
            let empty_unhashed = jwt.empty_body_unhashed;
            Ok(BodyClaim::Sha256 { claim, encoding, empty_unhashed })
        }
        (Some(_), None, false) => {
            wrong("jwt.body_sha256_encoding", "is missing; say \"hex\" or \"base64\"")
        }
        (None, _, false) => {
            let message = "is missing: without it anyone could put another body under a valid \
                           token; name the claim";
            wrong("jwt.body_sha256", message)
        }
    }
}

/// The `tolerance` of the source bounds the age of tokens that say when they were made.
fn times(
    jwt: &JwtSpec,
    settings: &Settings,
    slot: &mut impl FnMut(&str) -> Result<Slot, SpecError>,
) -> Result<Times, SpecError> {
    let age = match settings.tolerance {
        None => Tolerance::new(jwt.past, jwt.past),
        Some(age) if jwt.time == JwtTime::Iat => Tolerance::new(age, age.min(jwt.past)),
        Some(_) => {
            let message = "means nothing to a token that says itself when it ends; remove the key";
            return Err(SpecError::new("tolerance", message));
        }
    };
    if jwt.time != JwtTime::Iat && jwt.past != Duration::from_secs(300) {
        return wrong("jwt.past", "belongs to time = \"iat\"; set that or remove it");
    }
    let (exp, nbf, iat) = (slot("exp")?, slot("nbf")?, slot("iat")?);
    let leeway = Tolerance::new(jwt.leeway, jwt.leeway);
    Ok(Times { exp, nbf, iat, bound: jwt.time, leeway, age })
}

/// What a token's `alg` may say, in the order of the keys of a secret.
fn names(spec: &SchemeSpec) -> Result<Vec<&'static str>, SpecError> {
    let algorithms = std::iter::once(&spec.algorithm).chain(&spec.other_algorithms);
    let name = |algorithm: &Algorithm| match algorithm {
        Algorithm::HmacSha256 => Ok("HS256"),
        Algorithm::HmacSha384 => Ok("HS384"),
        Algorithm::HmacSha512 => Ok("HS512"),
        Algorithm::RsaPkcs1Sha256 => Ok("RS256"),
        Algorithm::RsaPkcs1Sha384 => Ok("RS384"),
        Algorithm::RsaPkcs1Sha512 => Ok("RS512"),
        Algorithm::RsaPssSha256 => Ok("PS256"),
        Algorithm::RsaPssSha384 => Ok("PS384"),
        Algorithm::RsaPssSha512 => Ok("PS512"),
        Algorithm::EcdsaP256Sha256Fixed => Ok("ES256"),
        Algorithm::EcdsaP384Sha384Fixed => Ok("ES384"),
        Algorithm::Ed25519 => Ok("EdDSA"),
        _ => {
            let message = "signs no JWT; use hmac-sha256 or larger, rsa-pkcs1-sha256 or larger, \
                           rsa-pss, ecdsa with -fixed, or ed25519";
            wrong("algorithm", message)
        }
    };
    algorithms.map(name).collect()
}
