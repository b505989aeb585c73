//! Private keys, for whoever plays the sender: tests, tools and the demo; and for sinks that prove by
//! one who forebay is.
//!
//! Read from PKCS#8 in PEM, as `openssl genpkey` writes it. No source ever holds one.

use ring::rand::SystemRandom;
use ring::rsa::{KeyPair as RsaKeyPair, PublicKey};
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, RsaEncoding};
use x509_cert::der::SecretDocument;

use super::spec::Algorithm;

/// A key that signs by one algorithm.
#[derive(Debug)]
pub(crate) enum Private {
    Ed25519(Ed25519KeyPair),
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
}

impl Private {
    /// Whether a text is meant as a private key.
    pub(super) fn looks_so(text: &str) -> bool {
        text.trim_start().starts_with("-----BEGIN PRIVATE KEY-----")
    }

    /// Reads a key for this algorithm, or says in words that do not repeat it why not.
    pub(crate) fn read(pem: &str, algorithm: Algorithm) -> Result<Self, String> {
        let (_, document) = SecretDocument::from_pem(pem.trim())
            .map_err(|_| "is no PEM; copy it again, all lines of it".to_owned())?;
        let der = document.as_bytes();
        let key = match algorithm {
            Algorithm::Ed25519 => {
                Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map(Self::Ed25519)
            }
            Algorithm::EcdsaP256Sha256 => ecdsa(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, der),
            Algorithm::EcdsaP256Sha256Fixed => {
                ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, der)
            }
            Algorithm::EcdsaP384Sha384 => ecdsa(&signature::ECDSA_P384_SHA384_ASN1_SIGNING, der),
            Algorithm::EcdsaP384Sha384Fixed => {
                ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, der)
            }
            Algorithm::RsaPkcs1Sha256 => rsa(&signature::RSA_PKCS1_SHA256, der),
            Algorithm::RsaPkcs1Sha384 => rsa(&signature::RSA_PKCS1_SHA384, der),
            Algorithm::RsaPkcs1Sha512 => rsa(&signature::RSA_PKCS1_SHA512, der),
            Algorithm::RsaPssSha256 => rsa(&signature::RSA_PSS_SHA256, der),
            Algorithm::RsaPssSha384 => rsa(&signature::RSA_PSS_SHA384, der),
            Algorithm::RsaPssSha512 => rsa(&signature::RSA_PSS_SHA512, der),
            Algorithm::RsaPkcs1Sha1 => {
                return Err("cannot sign with SHA-1, which is only verified here".to_owned());
            }
            _ => return Err("is a private key; this scheme needs a shared secret".to_owned()),
        };
        key.map_err(|rejected| format!("does not fit the scheme: {rejected}; give the right key"))
    }

    /// The signature over a message; nothing if the machine has no randomness for it.
    pub(crate) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            Self::Ed25519(key) => Some(key.sign(message).as_ref().to_vec()),
            Self::Ecdsa(key) => Some(key.sign(&random, message).ok()?.as_ref().to_vec()),
            Self::Rsa(key, padding) => {
                let mut signature = vec![0; PublicKey::modulus_len(key.public())];
                key.sign(*padding, &random, message, &mut signature).ok()?;
                Some(signature)
            }
        }
    }
}

fn ecdsa(
    algorithm: &'static signature::EcdsaSigningAlgorithm,
    der: &[u8],
) -> Result<Private, ring::error::KeyRejected> {
    EcdsaKeyPair::from_pkcs8(algorithm, der, &SystemRandom::new()).map(Private::Ecdsa)
}

fn rsa(padding: &'static dyn RsaEncoding, der: &[u8]) -> Result<Private, ring::error::KeyRejected> {
    RsaKeyPair::from_pkcs8(der).map(|key| Private::Rsa(key, padding))
}
