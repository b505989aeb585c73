//! A scheme as data: the keys of `[source.scheme]` and of a preset's `[scheme]`.
//!
//! This is what the text says, before `scheme` has checked that it makes sense and compiled it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::encoding::{KeyEncoding, SignatureEncoding};
use super::time::TimeUnit;

/// How a source's signatures are made, as written in configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemeSpec {
    /// What makes the signature.
    pub algorithm: Algorithm,
    /// Others that a request may name, where its format names one (`named`, `jwt`).
    #[serde(default)]
    pub other_algorithms: Vec<Algorithm>,
    /// The header that holds it. Only where it stands elsewhere may this be left out.
    #[serde(default)]
    pub header: String,
    /// `token`: the parameter of the query that holds it, in place of `header`. Format `params`:
    /// the parameter with the signature.
    pub query: Option<String>,
    /// Where it stands in the body, in place of `header`: `json:PATH`. Then `signed` are fields.
    pub signature: Option<String>,
    /// With `signature`: the path of a list whose items are signed one by one; the other paths
    /// begin at an item.
    pub each: Option<String>,
    /// How it stands in that header.
    #[serde(default)]
    pub format: Format,
    /// `plain` and `jwt`: the text before the signature or token, such as `sha256=`.
    pub prefix: Option<String>,
    /// `kvlist`: what stands between the entries; a comma if not said.
    pub separator: Option<char>,
    /// `kvlist` and `spacelist`: the label of the entries that count; no other version does.
    pub label: Option<String>,
    /// Other names of headers that `header` and `signed` speak of.
    #[serde(default)]
    pub aliases: BTreeMap<String, Vec<String>>,
    /// The parts of the signed bytes, in order: `literal:TEXT`, `param:NAME`, `header:NAME`,
    /// `kv:LABEL`, `body`, `body:sha256`, `body:crc32`, `query`, `url`, `url:twilio`,
    /// `url:plivo-v3`; with `signature`: `literal:TEXT`, `param:NAME`, `json:PATH`.
    #[serde(default)]
    pub signed: Vec<String>,
    /// How the signature is written; a JWT has its own way.
    pub signature_encoding: Option<SignatureEncoding>,
    /// How a secret's text stands for its key.
    #[serde(default)]
    pub key_encoding: KeyEncoding,
    /// Where a request says which secret signed it, by the secret's `key_id`: `header:NAME`.
    pub key_id: Option<String>,
    /// Where the signed time is and how far from now it may be; without it no time is checked.
    pub time: Option<TimeSpec>,
    /// A public-key form of the same scheme, chosen by the prefix of the configured secret.
    pub key_pair: Option<KeyPairSpec>,
    /// `jwt`: which claims are checked.
    pub jwt: Option<JwtSpec>,
}

/// What a source says of itself that its scheme may need.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The greatest age of a signed time, in place of the scheme's own; it also bounds the future
    /// where it is the smaller.
    pub tolerance: Option<Duration>,
    /// The URL of this receiver as the senders call it, up to where the path of a source begins:
    /// `https://hooks.example.com`. Some senders sign it.
    pub public_url: Option<String>,
    /// What else the scheme has to know of the account at the sender, by the names in `param:`.
    pub params: BTreeMap<String, String>,
    /// The source takes whatever arrives; only with a scheme that verifies nothing.
    pub unsafe_no_auth: bool,
}

/// What makes a signature. A scheme has exactly one; it is never read from a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// HMAC with SHA-1, only for senders that have nothing else.
    HmacSha1,
    /// HMAC with SHA-256.
    HmacSha256,
    /// HMAC with SHA-384.
    HmacSha384,
    /// HMAC with SHA-512.
    HmacSha512,
    /// Ed25519.
    Ed25519,
    /// RSA with the padding of PKCS#1 v1.5 and SHA-1, only for senders that have nothing else.
    RsaPkcs1Sha1,
    /// RSA with the padding of PKCS#1 v1.5 and SHA-256.
    RsaPkcs1Sha256,
    /// RSA with the padding of PKCS#1 v1.5 and SHA-384.
    RsaPkcs1Sha384,
    /// RSA with the padding of PKCS#1 v1.5 and SHA-512.
    RsaPkcs1Sha512,
    /// RSA-PSS with SHA-256.
    RsaPssSha256,
    /// RSA-PSS with SHA-384.
    RsaPssSha384,
    /// RSA-PSS with SHA-512.
    RsaPssSha512,
    /// ECDSA over P-256 with SHA-256, the signature in DER.
    EcdsaP256Sha256,
    /// ECDSA over P-256 with SHA-256, the signature as two numbers of 32 bytes.
    EcdsaP256Sha256Fixed,
    /// ECDSA over P-384 with SHA-384, the signature in DER.
    EcdsaP384Sha384,
    /// ECDSA over P-384 with SHA-384, the signature as two numbers of 48 bytes.
    EcdsaP384Sha384Fixed,
    /// No signature: the secret itself, in a header or in the query.
    Token,
    /// No signature: a name and a password as HTTP's basic authentication sends them. The secret
    /// is `NAME:PASSWORD`.
    Basic,
    /// Nothing at all. Only for a source that says `unsafe_no_auth = true`.
    None,
}

/// How signatures stand in their header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One signature, after `prefix`.
    #[default]
    Plain,
    /// Labelled entries: `t=..,v1=..`.
    KvList,
    /// Versioned entries between spaces: `v1,.. v1,..`.
    SpaceList,
    /// Signatures between commas.
    CommaList,
    /// One signature after the name of its hash function: `sha256=..`.
    Named,
    /// A JSON Web Token whose claims hold a digest of the body.
    Jwt,
    /// A message of Amazon SNS. The secrets are its certificates, each with the URL that messages
    /// name it by as `key_id`; `param:topic_arn` is the topic.
    Sns,
    /// One of the parameters of a query or form, and all the others are signed.
    Params,
}

/// Where the signed time is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeSpec {
    /// `header:NAME`, `kv:LABEL` or `json:PATH`.
    pub from: String,
    /// How it is written.
    pub unit: TimeUnit,
    /// How old it may be; 300 s if not said.
    #[serde(default = "five_minutes", deserialize_with = "duration")]
    pub past: Duration,
    /// How far ahead it may be; 300 s if not said.
    #[serde(default = "five_minutes", deserialize_with = "duration")]
    pub future: Duration,
}

/// The public-key form of a scheme that also has a symmetric one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPairSpec {
    /// A secret that begins so is a public key.
    pub prefix: String,
    /// What makes its signatures.
    pub algorithm: Algorithm,
    /// The label of its entries.
    pub label: String,
    /// How the text after the prefix stands for the key.
    pub key_encoding: KeyEncoding,
}

/// Which claims of a JWT are checked. `exp` and `nbf` are respected wherever they stand.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtSpec {
    /// The claim that names the secret's `key_id`.
    pub key_id: Option<String>,
    /// The claim that holds the SHA-256 of the body.
    pub body_sha256: Option<String>,
    /// How that digest is written.
    pub body_sha256_encoding: Option<SignatureEncoding>,
    /// An empty body has no such claim, and only an empty one has none.
    #[serde(default)]
    pub empty_body_unhashed: bool,
    /// In place of a digest: the claims are the same JSON as the body.
    #[serde(default)]
    pub claims_are_body: bool,
    /// The claim that holds the SHA-256, in hexadecimal, of the URL as the sender called it.
    pub url_sha256: Option<String>,
    /// What `iss` must say.
    pub issuer: Option<String>,
    /// Other claims that must be there, as text that is not empty.
    #[serde(default)]
    pub required: Vec<String>,
    /// The claim that says how long the token is good.
    #[serde(default)]
    pub time: JwtTime,
    /// With `time = "iat"`: how old the token may be, and how far ahead; 300 s if not said.
    #[serde(default = "five_minutes", deserialize_with = "duration")]
    pub past: Duration,
    /// How far the clocks may differ; nothing if not said.
    #[serde(default, deserialize_with = "duration")]
    pub leeway: Duration,
}

/// Which claim of a JWT bounds its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JwtTime {
    /// It must say when it expires.
    #[default]
    Exp,
    /// It must say when it was made.
    Iat,
    /// None: a token is good for ever, and only its event's id tells a repetition.
    None,
}

const fn five_minutes() -> Duration {
    Duration::from_secs(300)
}

pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|_| {
        serde::de::Error::custom(format!("{text:?} is not a duration; write it as \"300s\""))
    })
}

/// A scheme, secret or rule that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError {
    /// The key, from the source's table on: `scheme.time.from`, `secrets[1].key_id`.
    pub key: String,
    /// What is wrong with its value, and the cure.
    pub message: String,
}

impl SpecError {
    pub(crate) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

impl std::error::Error for SpecError {}
