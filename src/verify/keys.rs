//! Secrets made into keys, once, when a source is loaded.
//!
//! The kind of the configured secret decides the algorithm: a public key is never used as the key
//! of a MAC, and a source never holds both kinds.

use std::ops::RangeInclusive;

use ring::hmac;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

use super::compile::check_others;
use super::encoding::{KeyEncoding, SIGNATURE_BYTES_MAX};
use super::public::{self, Kind};
use super::secret::NamedSecret;
use super::sns;
use super::spec::{Algorithm, Format, SchemeSpec, SpecError};
use super::token;
use crate::limits;

/// A key that can check signatures of its algorithm and of no other.
#[derive(Clone, Debug)]
pub(super) enum Key {
    Mac(hmac::Key),
    Public(UnparsedPublicKey<Box<[u8]>>),
    /// What is sent is the secret itself.
    Token(token::Digest),
}

impl Key {
    /// Whether it made this signature over the whole message; in constant time for a MAC.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Mac(key) => hmac::verify(key, message, signature).is_ok(),
            Self::Public(key) => key.verify(message, signature).is_ok(),
            Self::Token(_) => false,
        }
    }
}

/// A live secret.
#[derive(Clone, Debug)]
pub(super) struct Secret {
    pub(super) name: String,
    pub(super) key_id: Option<String>,
    pub(super) key: Key,
    /// The same for the scheme's other algorithms.
    pub(super) others: Vec<Key>,
}

impl Secret {
    /// The key for an algorithm by its place: first the scheme's own, then the others.
    pub(super) fn key(&self, algorithm: usize) -> Option<&Key> {
        match algorithm.checked_sub(1) {
            None => Some(&self.key),
            Some(other) => self.others.get(other),
        }
    }
}

impl Algorithm {
    /// The MAC, if it is one.
    pub(super) fn mac(self) -> Option<hmac::Algorithm> {
        match self {
            Self::HmacSha1 => Some(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
            Self::HmacSha256 => Some(hmac::HMAC_SHA256),
            Self::HmacSha384 => Some(hmac::HMAC_SHA384),
            Self::HmacSha512 => Some(hmac::HMAC_SHA512),
            _ => None,
        }
    }

    /// What checks its signatures, if public keys do.
    fn verification(self) -> Option<&'static dyn VerificationAlgorithm> {
        Some(match self {
            Self::Ed25519 => &signature::ED25519,
            Self::RsaPkcs1Sha1 => &signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            Self::RsaPkcs1Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::RsaPkcs1Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::RsaPkcs1Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::RsaPssSha256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::RsaPssSha384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::RsaPssSha512 => &signature::RSA_PSS_2048_8192_SHA512,
            Self::EcdsaP256Sha256 => &signature::ECDSA_P256_SHA256_ASN1,
            Self::EcdsaP256Sha256Fixed => &signature::ECDSA_P256_SHA256_FIXED,
            Self::EcdsaP384Sha384 => &signature::ECDSA_P384_SHA384_ASN1,
            Self::EcdsaP384Sha384Fixed => &signature::ECDSA_P384_SHA384_FIXED,
            _ => return None,
        })
    }

    /// The length of its tags, if it is a MAC.
    pub(super) fn tag_bytes(self) -> Option<usize> {
        self.mac().map(|mac| mac.digest_algorithm().output_len())
    }

    /// How long its signatures are, at least and at most.
    pub(super) fn signature_bytes(self) -> RangeInclusive<usize> {
        match (self.tag_bytes(), self) {
            (Some(bytes), _) => bytes..=bytes,
            (_, Self::Ed25519 | Self::EcdsaP256Sha256Fixed) => 64..=64,
            (_, Self::EcdsaP384Sha384Fixed) => 96..=96,
            (_, Self::EcdsaP256Sha256) => 8..=72,
            (_, Self::EcdsaP384Sha384) => 8..=104,
            // As long as the key's modulus.
            _ => 256..=SIGNATURE_BYTES_MAX,
        }
    }

    /// Whether keys of one are keys of the other, so that a request that may choose between them
    /// cannot turn a public key into the key of a MAC.
    pub(super) fn is_kin(self, other: Self) -> bool {
        let kind = |algorithm: Self| (algorithm.mac().is_some(), Kind::of(algorithm));
        kind(self) == kind(other) && kind(self) != (false, None)
    }

    fn key(self, bytes: Vec<u8>) -> Result<Key, String> {
        match (self.mac(), self.verification(), Kind::of(self)) {
            (Some(mac), ..) => Ok(Key::Mac(hmac::Key::new(mac, &bytes))),
            (None, Some(algorithm), Some(kind)) => {
                kind.check(&bytes)?;
                Ok(Key::Public(UnparsedPublicKey::new(algorithm, bytes.into())))
            }
            _ if self == Self::Basic && !bytes.contains(&b':') => {
                Err("has no colon; write NAME:PASSWORD".to_owned())
            }
            _ => Ok(Key::Token(token::Digest::of(&bytes))),
        }
    }
}

/// How one configured secret is used: as the scheme says, or as its key pair.
struct Use<'t> {
    algorithm: Algorithm,
    encoding: KeyEncoding,
    text: &'t str,
    key_pair: bool,
}

impl Use<'_> {
    /// The bytes of the key.
    fn decode(&self) -> Result<Vec<u8>, String> {
        match (self.encoding, Kind::of(self.algorithm)) {
            (KeyEncoding::PublicKey, Some(kind)) => public::unwrap(self.text, kind),
            (KeyEncoding::PublicKey, None) => {
                Err("would be a public key, and this scheme has none; set key_encoding".to_owned())
            }
            (encoding, _) => encoding.decode(self.text),
        }
    }
}

impl SchemeSpec {
    /// Whether requests say which key signed them, so that each secret needs a `key_id`.
    pub fn names_keys(&self) -> bool {
        self.format == Format::Sns
            || self.key_id.is_some()
            || self.jwt.as_ref().is_some_and(|jwt| jwt.key_id.is_some())
    }

    fn use_of<'t>(&self, text: &'t str) -> Use<'t> {
        if let Some(pair) = &self.key_pair
            && let Some(rest) = text.strip_prefix(&pair.prefix)
        {
            let (algorithm, encoding) = (pair.algorithm, pair.key_encoding);
            return Use { algorithm, encoding, text: rest, key_pair: true };
        }
        Use { algorithm: self.algorithm, encoding: self.key_encoding, text, key_pair: false }
    }

    /// The length of the key that a secret stands for, or why it stands for none.
    pub fn secret_bytes(&self, secret: &super::SecretText) -> Result<usize, String> {
        self.key_of(secret).map(|key| key.len())
    }

    /// The bytes of the key that a secret stands for, or why it stands for none.
    pub(super) fn key_of(&self, secret: &super::SecretText) -> Result<Vec<u8>, String> {
        self.use_of(secret.expose_secret()).decode()
    }
}

/// Decodes the secrets; says whether they are public keys of the scheme's key pair.
pub(super) fn load(
    spec: &SchemeSpec,
    secrets: Vec<NamedSecret>,
) -> Result<(Vec<Secret>, bool), SpecError> {
    check_others(spec)?;
    if spec.algorithm == Algorithm::None {
        if secrets.is_empty() {
            return Ok((Vec::new(), false));
        }
        let message = "mean nothing to a scheme that verifies nothing; remove them";
        return Err(SpecError::new("secrets", message));
    }
    if secrets.is_empty() {
        return Err(SpecError::new("secrets", "is empty; give at least one secret"));
    }
    if secrets.len() > limits::SECRETS_MAX {
        let (count, max) = (secrets.len(), limits::SECRETS_MAX);
        let message = format!("holds {count} secrets and may hold {max}; remove retired ones");
        return Err(SpecError::new("secrets", message));
    }
    let wants_key_id = spec.names_keys();
    let mut pairs = 0;
    let mut loaded = Vec::with_capacity(secrets.len());
    for (index, secret) in secrets.into_iter().enumerate() {
        let wrong = |key: &str, message: String| {
            Err(SpecError::new(format!("secrets[{index}].{key}"), message))
        };
        let used = spec.use_of(secret.value.expose_secret());
        pairs += usize::from(used.key_pair);
        match (&secret.key_id, wants_key_id) {
            (None, true) => {
                let message = "is missing; give the id under which the sender knows this secret";
                return wrong("key_id", message.to_owned());
            }
            (Some(_), false) => {
                let message = "means nothing to this scheme, which names no keys; remove it";
                return wrong("key_id", message.to_owned());
            }
            (Some(url), true) if spec.format == Format::Sns && !sns::is_cert_url(url) => {
                let message =
                    "is no URL of a certificate of SNS; copy SigningCertURL from a message";
                return wrong("key_id", message.to_owned());
            }
            _ => {}
        }
        let decoded = used.decode().and_then(|bytes| {
            if bytes.is_empty() {
                return Err("is empty; copy the secret from the sender".to_owned());
            }
            let other = |algorithm: &Algorithm| algorithm.key(bytes.clone());
            let others = spec.other_algorithms.iter().map(other).collect::<Result<_, _>>()?;
            Ok((used.algorithm.key(bytes)?, others))
        });
        match decoded {
            Ok((key, others)) => {
                loaded.push(Secret { name: secret.name, key_id: secret.key_id, key, others });
            }
            Err(message) => return wrong("value", message),
        }
    }
    if pairs != 0 && pairs != loaded.len() {
        let message = "mixes public keys and shared secrets, and a request could choose the \
                       weaker; keep one kind";
        return Err(SpecError::new("secrets", message));
    }
    Ok((loaded, pairs != 0))
}
