//! A signature among the parameters that it covers, in the query or in a form: Vonage's SMS.
//!
//! Signed is `&name=value` for every other parameter, sorted by name, with `&` and `=` in values
//! made `_`. A form is read where the body is one, else the query; no name may stand twice.

use ring::digest;

use super::compile::{only, wrong};
use super::compose::Asked;
use super::encoding::{SIGNATURE_BUFFER, SignatureEncoding};
use super::keys::Secret;
use super::query::{self, Pair};
use super::secret::SecretIndex;
use super::spec::{SchemeSpec, SpecError};
use crate::reject::Reject;

/// A compiled scheme of this family.
#[derive(Clone, Debug)]
pub(super) struct Params {
    /// The parameter with the signature.
    name: Box<[u8]>,
}

impl Params {
    pub(super) fn new(spec: &SchemeSpec) -> Result<Self, SpecError> {
        let used = ["query", "signature_encoding"];
        only(spec, &used, "means nothing with format = \"params\"; remove it")?;
        if spec.algorithm.mac().is_none() {
            return wrong("algorithm", "signs no parameters; use an HMAC");
        }
        if spec.signature_encoding != Some(SignatureEncoding::Hex) {
            return wrong(
                "signature_encoding",
                "is another one than format = \"params\" has; say \"hex\"",
            );
        }
        match spec.query.as_deref() {
            None | Some("") => wrong("query", "is missing; name the parameter with the signature"),
            Some(name) => Ok(Self { name: name.as_bytes().into() }),
        }
    }

    /// Judges the parameters, which only the whole request has.
    pub(super) fn check(
        &self,
        secrets: &[Secret],
        asked: Asked<'_>,
        body: &[u8],
    ) -> Result<SecretIndex, Reject> {
        let (said, message) = self.read(asked, body)?;
        let mut buffer = SIGNATURE_BUFFER;
        let said = said.to_ascii_lowercase();
        let count = SignatureEncoding::Hex.decode(&said, &mut buffer);
        let signature = count.and_then(|count| buffer.get(..count));
        let signature = signature.ok_or(Reject::SignatureMalformed)?;
        let made_it = |secret: &Secret| secret.key.verifies(&message, signature);
        secrets.iter().position(made_it).map(SecretIndex::new).ok_or(Reject::SignatureWrong)
    }

    /// SHA-256 of what is signed.
    pub(super) fn digest(&self, asked: Asked<'_>, body: &[u8]) -> Result<digest::Digest, Reject> {
        Ok(digest::digest(&digest::SHA256, &self.read(asked, body)?.1))
    }

    /// The signature as it was sent, and what it is made over.
    fn read(&self, asked: Asked<'_>, body: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Reject> {
        let text = match (asked.form, body.is_empty()) {
            (true, _) => body,
            (false, true) => query::of(asked.target),
            // Nothing would cover the body.
            (false, false) => return Err(Reject::SignatureWrong),
        };
        let mut pairs: Vec<Pair<'_>> = query::pairs(text).collect();
        pairs.sort_unstable();
        let twice = |pair: &[Pair<'_>]| matches!(pair, [one, next] if one.0 == next.0);
        if pairs.windows(2).any(twice) {
            return Err(Reject::SignatureMalformed);
        }
        let (mut said, mut message) = (None, Vec::with_capacity(text.len()));
        for (name, value) in &pairs {
            if **name == *self.name {
                said = Some(value.to_vec());
                continue;
            }
            message.push(b'&');
            message.extend_from_slice(name);
            message.push(b'=');
            let plain = |byte: &u8| if matches!(byte, b'&' | b'=') { b'_' } else { *byte };
            message.extend(value.iter().map(plain));
        }
        Ok((said.ok_or(Reject::SignatureMissing)?, message))
    }

    /// The query with the signature behind its parameters.
    pub(super) fn signed(
        &self,
        target: &str,
        sign: impl Fn(&[u8]) -> Result<Vec<u8>, SpecError>,
    ) -> Result<String, SpecError> {
        let mut target = target.to_owned();
        query::add(&mut target, &self.name, b"");
        let asked = Asked { target: &target, form: false, get: true };
        let unfit = |_| SpecError::new("target", "has a parameter twice, which nobody signs");
        let (_, message) = self.read(asked, b"").map_err(unfit)?;
        let signature = SignatureEncoding::Hex.encode(&sign(&message)?);
        Ok(target + &signature)
    }
}
