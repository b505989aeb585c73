//! Secrets made into keys, once, when a source is loaded.
//!
//! The kind of the configured secret decides the algorithm: a public key is never used as the key
//! of a MAC, and a source never holds both kinds.

use ring::hmac;
use ring::signature::{self, UnparsedPublicKey};

use super::encoding::KeyEncoding;
use super::secret::NamedSecret;
use super::spec::{Algorithm, SchemeSpec, SpecError};
use crate::limits;

/// The length of an ed25519 public key.
const ED25519_KEY_BYTES: usize = 32;

/// A key that can check signatures of its algorithm and of no other.
#[derive(Clone, Debug)]
pub(super) enum Key {
    Mac(hmac::Key),
    Public(UnparsedPublicKey<Box<[u8]>>),
}

/// A live secret.
#[derive(Clone, Debug)]
pub(super) struct Secret {
    pub(super) name: String,
    pub(super) key_id: Option<String>,
    pub(super) key: Key,
}

impl Algorithm {
    /// The MAC, if it is one.
    pub(super) fn mac(self) -> Option<hmac::Algorithm> {
        match self {
            Self::HmacSha1 => Some(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
            Self::HmacSha256 => Some(hmac::HMAC_SHA256),
            Self::HmacSha384 => Some(hmac::HMAC_SHA384),
            Self::HmacSha512 => Some(hmac::HMAC_SHA512),
            Self::Ed25519 => None,
        }
    }

    /// The length of its signatures.
    pub(super) fn signature_bytes(self) -> usize {
        match self {
            Self::HmacSha1 => 20,
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 | Self::Ed25519 => 64,
        }
    }

    fn key(self, bytes: Vec<u8>) -> Result<Key, String> {
        if let Some(algorithm) = self.mac() {
            return Ok(Key::Mac(hmac::Key::new(algorithm, &bytes)));
        }
        if bytes.len() != ED25519_KEY_BYTES {
            return Err(format!(
                "is {} bytes long and an ed25519 public key has {ED25519_KEY_BYTES}; \
                 copy the sender's public key again",
                bytes.len()
            ));
        }
        Ok(Key::Public(UnparsedPublicKey::new(&signature::ED25519, bytes.into())))
    }
}

/// How one configured secret is used: as the scheme says, or as its key pair.
struct Use<'t> {
    algorithm: Algorithm,
    encoding: KeyEncoding,
    text: &'t str,
    key_pair: bool,
}

impl SchemeSpec {
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
        let used = self.use_of(secret.expose_secret());
        used.encoding.decode(used.text).map(|key| key.len())
    }
}

/// Decodes the secrets; says whether they are public keys of the scheme's key pair.
pub(super) fn load(
    spec: &SchemeSpec,
    secrets: Vec<NamedSecret>,
) -> Result<(Vec<Secret>, bool), SpecError> {
    if secrets.is_empty() {
        return Err(SpecError::new("secrets", "is empty; give at least one secret"));
    }
    if secrets.len() > limits::SECRETS_MAX {
        let (count, max) = (secrets.len(), limits::SECRETS_MAX);
        let message = format!("holds {count} secrets and may hold {max}; remove retired ones");
        return Err(SpecError::new("secrets", message));
    }
    let wants_key_id = spec.jwt.as_ref().is_some_and(|jwt| jwt.key_id.is_some());
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
            _ => {}
        }
        let decoded = used.encoding.decode(used.text).and_then(|bytes| {
            if bytes.is_empty() {
                return Err("is empty; copy the secret from the sender".to_owned());
            }
            used.algorithm.key(bytes)
        });
        match decoded {
            Ok(key) => loaded.push(Secret { name: secret.name, key_id: secret.key_id, key }),
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
