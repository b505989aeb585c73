//! Public keys as senders publish them, unwrapped once at load into the form that `ring` takes.
//!
//! Taken are PEM (`PUBLIC KEY`, `RSA PUBLIC KEY`, `CERTIFICATE`), the base64 of the DER inside
//! such a PEM, and a JWK. Out comes the bare PKCS#1 structure of an RSA key, the uncompressed
//! point of an elliptic curve or the 32 bytes of an Ed25519 key, checked for kind and size.
//!
//! A certificate is a wrapping here and nothing more: it was chosen by the operator, so neither
//! its issuer nor its dates are looked at.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use x509_cert::Certificate;
use x509_cert::der::asn1::UintRef;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode as _, Document, Encode as _, Reader as _, SliceReader};
use x509_cert::spki::SubjectPublicKeyInfoRef;

use super::encoding::decode_base64url;
use super::spec::Algorithm;

/// The sizes of RSA keys that `ring` takes, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// What a public key can check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Kind {
    /// The kind of key that checks signatures of this algorithm.
    pub(super) fn of(algorithm: Algorithm) -> Option<Self> {
        match algorithm {
            Algorithm::Ed25519 => Some(Self::Ed25519),
            Algorithm::EcdsaP256Sha256 | Algorithm::EcdsaP256Sha256Fixed => Some(Self::P256),
            Algorithm::EcdsaP384Sha384 | Algorithm::EcdsaP384Sha384Fixed => Some(Self::P384),
            Algorithm::RsaPkcs1Sha1
            | Algorithm::RsaPkcs1Sha256
            | Algorithm::RsaPkcs1Sha384
            | Algorithm::RsaPkcs1Sha512
            | Algorithm::RsaPssSha256
            | Algorithm::RsaPssSha384
            | Algorithm::RsaPssSha512 => Some(Self::Rsa),
            Algorithm::HmacSha1
            | Algorithm::HmacSha256
            | Algorithm::HmacSha384
            | Algorithm::HmacSha512
            | Algorithm::Token
            | Algorithm::Basic
            | Algorithm::None => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Rsa => "RSA",
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::Ed25519 => "Ed25519",
        }
    }

    /// Whether these bytes are a key of this kind, in the form that `ring` takes.
    pub(super) fn check(self, key: &[u8]) -> Result<(), String> {
        let point = |bytes| key.len() == bytes && key.first() == Some(&4);
        let fits = match self {
            Self::Ed25519 => key.len() == 32,
            Self::P256 => point(65),
            Self::P384 => point(97),
            Self::Rsa => {
                let bits = rsa_bits(key).ok_or("is no RSA key; copy the sender's public key")?;
                if !RSA_BITS.contains(&bits) {
                    let (min, max) = RSA_BITS.into_inner();
                    return Err(format!(
                        "is an RSA key of {bits} bits; only {min} to {max} are taken, so ask the \
                         sender for a longer one"
                    ));
                }
                true
            }
        };
        if fits { Ok(()) } else { Err(self.other_kind()) }
    }

    fn other_kind(self) -> String {
        format!("is no {} public key; copy the sender's public key again", self.name())
    }
}

/// The key that a text in any of the forms above holds.
pub(super) fn unwrap(text: &str, kind: Kind) -> Result<Vec<u8>, String> {
    let text = text.trim();
    if text.starts_with('{') {
        return from_jwk(text, kind);
    }
    if text.starts_with("-----BEGIN ") {
        let (label, document) = Document::from_pem(text)
            .map_err(|_| "is no PEM; copy it again, all lines of it".to_owned())?;
        let der = document.as_bytes();
        return match label {
            "PUBLIC KEY" => from_spki(der, kind),
            "CERTIFICATE" => from_certificate(der, kind),
            "RSA PUBLIC KEY" if kind == Kind::Rsa => Ok(der.to_vec()),
            _ if label.ends_with("PRIVATE KEY") => {
                Err("is a private key, which only the sender may have; give its public key"
                    .to_owned())
            }
            _ => Err(kind.other_kind()),
        };
    }
    let packed: String = text.split_ascii_whitespace().collect();
    let der = STANDARD.decode(packed).map_err(|_| {
        "is neither PEM nor base64 nor a JWK; copy the sender's public key again".to_owned()
    })?;
    from_spki(&der, kind).or_else(|error| from_certificate(&der, kind).map_err(|_| error))
}

fn from_certificate(der: &[u8], kind: Kind) -> Result<Vec<u8>, String> {
    let unread = |_| "is no X.509 certificate; copy it again".to_owned();
    let certificate = Certificate::from_der(der).map_err(unread)?;
    let info = certificate.tbs_certificate().subject_public_key_info();
    from_spki(&info.to_der().map_err(unread)?, kind)
}

fn from_spki(der: &[u8], kind: Kind) -> Result<Vec<u8>, String> {
    let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| kind.other_kind())?;
    let curve = || info.algorithm.parameters_oid().ok();
    let found = match info.algorithm.oid {
        RSA_ENCRYPTION => Some(Kind::Rsa),
        ED25519 => Some(Kind::Ed25519),
        EC_PUBLIC_KEY if curve() == Some(P256) => Some(Kind::P256),
        EC_PUBLIC_KEY if curve() == Some(P384) => Some(Kind::P384),
        _ => None,
    };
    match (found, info.subject_public_key.as_bytes()) {
        (Some(found), Some(key)) if found == kind => Ok(key.to_vec()),
        (Some(found), _) if found != kind => Err(format!(
            "is a key of kind {} where the scheme needs {}; copy the sender's public key again",
            found.name(),
            kind.name()
        )),
        _ => Err(kind.other_kind()),
    }
}

/// RFC 7517, as far as public keys go.
#[derive(Deserialize)]
struct Jwk {
    kty: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<IgnoredAny>,
    keys: Option<IgnoredAny>,
}

fn from_jwk(text: &str, kind: Kind) -> Result<Vec<u8>, String> {
    let jwk: Jwk = serde_json::from_str(text).map_err(|_| "is no JWK; copy it again".to_owned())?;
    if jwk.keys.is_some() {
        return Err("is a set of keys; give each of them as a secret of its own".to_owned());
    }
    if jwk.d.is_some() {
        let message = "is a private key, which only the sender may have; give its public key";
        return Err(message.to_owned());
    }
    let number = |text: &Option<String>| decode_base64url(text.as_deref()?.as_bytes());
    let key = match (kind, jwk.kty.as_deref(), jwk.crv.as_deref()) {
        (Kind::Rsa, Some("RSA"), _) => {
            number(&jwk.n).zip(number(&jwk.e)).and_then(|(n, e)| pkcs1(&n, &e))
        }
        (Kind::P256, Some("EC"), Some("P-256")) | (Kind::P384, Some("EC"), Some("P-384")) => {
            number(&jwk.x).zip(number(&jwk.y)).map(|(x, y)| [&[4][..], &x, &y].concat())
        }
        (Kind::Ed25519, Some("OKP"), Some("Ed25519")) => number(&jwk.x),
        _ => None,
    };
    key.ok_or_else(|| kind.other_kind())
}

/// `RSAPublicKey` of RFC 8017.
fn pkcs1(modulus: &[u8], exponent: &[u8]) -> Option<Vec<u8>> {
    let (modulus, exponent) = (UintRef::new(modulus).ok()?, UintRef::new(exponent).ok()?);
    [modulus, exponent].to_der().ok()
}

/// The length of the modulus.
fn rsa_bits(pkcs1: &[u8]) -> Option<usize> {
    let mut reader = SliceReader::new(pkcs1).ok()?;
    let modulus = reader.sequence(|numbers| {
        let modulus = UintRef::decode(numbers)?;
        UintRef::decode(numbers)?;
        x509_cert::der::Result::Ok(modulus.as_bytes())
    });
    let modulus = modulus.ok()?;
    reader.finish().ok()?;
    let unused = modulus.first()?.leading_zeros();
    (modulus.len() * 8).checked_sub(usize::try_from(unused).ok()?)
}

#[cfg(test)]
mod tests {
    use ring::rsa::{KeyPair as RsaKeyPair, PublicKeyComponents};
    use ring::signature::KeyPair as _;

    use super::super::encoding::encode_base64url;
    use super::*;

    const RSA: &str = include_str!("../../tests/keys/rsa-public.pem");
    const CASES: [(Kind, &str); 4] = [
        (Kind::Rsa, RSA),
        (Kind::P256, include_str!("../../tests/keys/p256-public.pem")),
        (Kind::P384, include_str!("../../tests/keys/p384-public.pem")),
        (Kind::Ed25519, include_str!("../../tests/keys/ed25519-public.pem")),
    ];

    /// The lines between the first and the last, as some senders print a key.
    fn base64_of(pem: &str) -> String {
        pem.lines().filter(|line| !line.starts_with('-')).collect()
    }

    #[test]
    fn each_form_of_a_key_is_the_same_key() {
        for (kind, pem) in CASES {
            let key = unwrap(pem, kind).expect("a PEM");
            assert_eq!(kind.check(&key), Ok(()));
            assert_eq!(unwrap(&base64_of(pem), kind), Ok(key.clone()), "{kind:?}");
            assert_eq!(unwrap(&format!("\r\n{}\n", pem.replace('\n', "\r\n")), kind), Ok(key));
        }
        let key = unwrap(RSA, Kind::Rsa);
        let certificate = include_str!("../../tests/keys/rsa-certificate.pem");
        assert_eq!(unwrap(certificate, Kind::Rsa), key);
        assert_eq!(unwrap(&base64_of(certificate), Kind::Rsa), key);
        assert_eq!(unwrap(include_str!("../../tests/keys/rsa-pkcs1.pem"), Kind::Rsa), key);
        let certificate = include_str!("../../tests/keys/p256-certificate.pem");
        assert_eq!(unwrap(certificate, Kind::P256), unwrap(CASES[1].1, Kind::P256));
    }

    #[test]
    fn a_jwk_is_the_key_that_it_describes() {
        let text = |kty: &str, crv: &str, x: &[u8], y: &[u8]| {
            let (x, y) = (encode_base64url(x), encode_base64url(y));
            serde_json::json!({ "kty": kty, "crv": crv, "x": x, "y": y, "use": "sig" }).to_string()
        };
        for (kind, pem, crv) in
            [(Kind::P256, CASES[1].1, "P-256"), (Kind::P384, CASES[2].1, "P-384")]
        {
            let key = unwrap(pem, kind).expect("a PEM");
            let (x, y) = key[1..].split_at((key.len() - 1) / 2);
            assert_eq!(unwrap(&text("EC", crv, x, y), kind), Ok(key.clone()));
            assert!(unwrap(&text("EC", "P-521", x, y), kind).is_err());
        }
        let key = unwrap(CASES[3].1, Kind::Ed25519).expect("a PEM");
        assert_eq!(unwrap(&text("OKP", "Ed25519", &key, b""), Kind::Ed25519), Ok(key));

        let (_, private) =
            Document::from_pem(include_str!("../../tests/keys/rsa.pem")).expect("a PEM");
        let pair = RsaKeyPair::from_pkcs8(private.as_bytes()).expect("a key");
        let parts = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
        let (n, e) = (encode_base64url(&parts.n), encode_base64url(&parts.e));
        let jwk = serde_json::json!({ "kty": "RSA", "n": n, "e": e, "alg": "RS256", "kid": "1" });
        assert_eq!(unwrap(&jwk.to_string(), Kind::Rsa), unwrap(RSA, Kind::Rsa));
    }

    #[test]
    fn what_is_no_public_key_of_the_kind_is_refused_with_a_cure() {
        let short = include_str!("../../tests/keys/rsa-1024-public.pem");
        let short = unwrap(short, Kind::Rsa).and_then(|key| Kind::Rsa.check(&key));
        assert!(short.expect_err("short").contains("1024 bits"));
        for (text, kind, cure) in [
            (include_str!("../../tests/keys/rsa.pem"), Kind::Rsa, "give its public key"),
            (r#"{"kty":"EC","crv":"P-256","d":"AA"}"#, Kind::P256, "give its public key"),
            (r#"{"keys":[]}"#, Kind::P256, "a secret of its own"),
            (RSA, Kind::P256, "copy the sender's public key"),
            (CASES[1].1, Kind::P384, "needs P-384"),
            (CASES[3].1, Kind::Rsa, "copy the sender's public key"),
            ("-----BEGIN PUBLIC KEY-----\nAAAA\n", Kind::Rsa, "all lines"),
            ("hunter2", Kind::Rsa, "copy the sender's public key"),
            ("AAAA", Kind::Ed25519, "copy the sender's public key"),
            ("{", Kind::Rsa, "copy it again"),
            ("", Kind::Rsa, "copy the sender's public key"),
        ] {
            let message = unwrap(text, kind).expect_err(text);
            assert!(message.contains(cure), "{text}: {message}");
        }
        for bytes in [&[][..], &[4; 64], &[2; 65], &[0x30, 0x80], &[0x30, 3, 2, 1, 5]] {
            for kind in [Kind::Rsa, Kind::P256, Kind::P384, Kind::Ed25519] {
                assert!(kind.check(bytes).is_err(), "{kind:?}");
            }
        }
    }
}
