//! The sender's side: the headers that make a request valid, for the demo, tests and load.

use http::{HeaderName, HeaderValue};
use ring::{digest, hmac};

use super::compile::Scheme;
use super::encoding::{SignatureEncoding, encode_base64url};
use super::head::Shape;
use super::jwt::Jwt;
use super::keys::{self, Key};
use super::profile::Profile;
use super::secret::{NamedSecret, SecretText};
use super::spec::{Algorithm, Settings, SpecError};
use super::template::{Part, Template, TimeFrom};
use super::time::TimeUnit;
use super::token::{Place, Token};
use crate::identify::RuleText;

/// How long a token is good for, as `LiveKit` makes them.
const TOKEN_SECONDS: u64 = 300;

/// What is to be signed.
#[derive(Clone, Copy, Debug)]
pub struct SignInput<'i> {
    /// The event id, for senders that put it in a header; the others have it in the body.
    pub id: &'i str,
    /// When the request is signed.
    pub now_ns: u64,
    /// The event type, for senders that put it in a header.
    pub event_type: &'i str,
    /// The body, which is never changed.
    pub body: &'i [u8],
}

/// Signs as one sender with one secret.
#[derive(Clone, Debug)]
pub struct Signer {
    scheme: Scheme,
    key: SigningKey,
    key_id: Option<String>,
    id_headers: Vec<HeaderName>,
    type_headers: Vec<HeaderName>,
    content_type: Option<HeaderValue>,
}

/// What signs.
#[derive(Clone, Debug)]
enum SigningKey {
    Mac(hmac::Key),
    /// The secret itself is sent.
    Text(SecretText),
    /// There is nothing to sign with.
    Nothing,
}

/// The headers of one request, content type included.
pub fn sign(
    profile: &Profile,
    secret: NamedSecret,
    input: &SignInput<'_>,
) -> Result<Vec<(HeaderName, HeaderValue)>, SpecError> {
    Signer::new(profile, secret)?.sign(input)
}

impl Signer {
    /// Prepares to sign; a public key cannot.
    pub fn new(profile: &Profile, secret: NamedSecret) -> Result<Self, SpecError> {
        let spec = &profile.scheme;
        let open = spec.algorithm == Algorithm::None;
        let (text, key_id) = (secret.value.clone(), secret.key_id.clone());
        let (mut secrets, key_pair) =
            keys::load(spec, if open { Vec::new() } else { vec![secret] })?;
        let key = match secrets.pop().map(|secret| secret.key) {
            None => SigningKey::Nothing,
            Some(Key::Mac(key)) => SigningKey::Mac(key),
            Some(Key::Token(_)) => SigningKey::Text(text),
            Some(Key::Public(_)) => {
                return Err(SpecError::new(
                    "secrets[0].value",
                    "is a public key, which signs nothing; give a shared secret",
                ));
            }
        };
        let settings = Settings { unsafe_no_auth: open, ..Settings::default() };
        let identity = &profile.identity;
        Ok(Self {
            scheme: Scheme::new(spec, key_pair, &settings)?,
            key,
            key_id,
            id_headers: headers_of(identity.event_id.as_ref()),
            type_headers: headers_of(identity.event_type.as_ref()),
            content_type: profile.content_types.first().and_then(|text| text.parse().ok()),
        })
    }

    /// The headers of one request, content type included.
    pub fn sign(&self, input: &SignInput<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, SpecError> {
        let mut headers = Vec::with_capacity(6);
        let given = [(&self.id_headers, input.id), (&self.type_headers, input.event_type)];
        for (name, text) in given.iter().filter_map(|(names, text)| Some((names.first()?, text))) {
            headers.push((name.clone(), value(name, text)?));
        }
        match (&self.scheme, &self.key) {
            (Scheme::Template(template), SigningKey::Mac(key)) => {
                add_template(template, key, input, &mut headers)?;
            }
            (Scheme::Jwt(jwt), SigningKey::Mac(key)) => {
                let token = token(jwt, key, self.key_id.as_deref(), input);
                push(&mut headers, jwt.header.names.first(), &token)?;
            }
            (Scheme::Token(token), SigningKey::Text(text)) => {
                add_token(token, text.expose_secret(), &mut headers)?;
            }
            _ => {}
        }
        if let Some(content_type) = &self.content_type {
            headers.push((http::header::CONTENT_TYPE, content_type.clone()));
        }
        Ok(headers)
    }
}

/// Adds what the template signs and the signature over it.
fn add_template(
    template: &Template,
    key: &hmac::Key,
    input: &SignInput<'_>,
    headers: &mut Vec<(HeaderName, HeaderValue)>,
) -> Result<(), SpecError> {
    let time = template.time.as_ref();
    let unit = time.map_or(TimeUnit::Seconds, |time| time.unit);
    let now = unit.write(input.now_ns);
    let is_time = |index| matches!(time.map(|t| &t.from), Some(TimeFrom::Header(t)) if *t == index);
    let mut mac = hmac::Context::with_key(key);
    for part in &template.parts {
        match part {
            Part::Literal(text) => mac.update(text),
            Part::Header(index) if is_time(*index) => mac.update(now.as_bytes()),
            // The one other header that senders sign is the event's id.
            Part::Header(_) => mac.update(input.id.as_bytes()),
            Part::Label(_) => mac.update(now.as_bytes()),
            Part::Body => mac.update(input.body),
        }
    }
    for (index, needed) in template.others.iter().enumerate() {
        let text = if is_time(index) { &now } else { input.id };
        if needed.names.iter().all(|name| headers.iter().all(|(known, _)| known != name)) {
            push(headers, needed.names.first(), text)?;
        }
    }
    let signature = template.encoding.encode(mac.sign().as_ref());
    push(headers, template.header.names.first(), &shaped(&template.shape, &now, &signature))
}

/// Adds the secret itself, where a header carries it.
fn add_token(
    token: &Token,
    text: &str,
    headers: &mut Vec<(HeaderName, HeaderValue)>,
) -> Result<(), SpecError> {
    let Place::Header { header, prefix } = &token.place else { return Ok(()) };
    let text = if token.basic {
        SignatureEncoding::Base64.encode(text.as_bytes())
    } else {
        text.to_owned()
    };
    push(headers, header.names.first(), &(String::from_utf8_lossy(prefix).into_owned() + &text))
}

/// The signature as it stands in its header.
fn shaped(shape: &Shape, now: &str, signature: &str) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match shape {
        Shape::Plain { prefix } => text(prefix) + signature,
        Shape::SpaceList { label } => format!("{},{signature}", text(label)),
        Shape::KvList { separator, label, labels } => {
            let times = labels.iter().map(|name| format!("{}={now}", text(name)));
            let signature = format!("{}={signature}", text(label));
            let entries: Vec<_> = times.chain([signature]).collect();
            entries.join(&char::from(*separator).to_string())
        }
    }
}

fn token(jwt: &Jwt, key: &hmac::Key, key_id: Option<&str>, input: &SignInput<'_>) -> String {
    let head = serde_json::json!({ "alg": jwt.name, "typ": "JWT" }).to_string();
    let now = input.now_ns / 1_000_000_000;
    let sha256 = digest::digest(&digest::SHA256, input.body);
    let mut claims = serde_json::json!({ "exp": now + TOKEN_SECONDS, "nbf": now });
    claims[&*jwt.body_sha256] = jwt.body_sha256_encoding.encode(sha256.as_ref()).into();
    if let (Some(claim), Some(key_id)) = (&jwt.key_id, key_id) {
        claims[&**claim] = key_id.into();
    }
    let mut token = String::from_utf8_lossy(&jwt.prefix).into_owned();
    let start = token.len();
    token += &encode_base64url(head.as_bytes());
    token.push('.');
    token += &encode_base64url(claims.to_string().as_bytes());
    let tag = hmac::sign(key, token.as_bytes().get(start..).unwrap_or_default());
    token.push('.');
    token + &encode_base64url(tag.as_ref())
}

/// The headers that a rule speaks of.
fn headers_of(rule: Option<&RuleText>) -> Vec<HeaderName> {
    let texts = match rule {
        None => &[][..],
        Some(RuleText::One(text)) => std::slice::from_ref(text),
        Some(RuleText::Joined(texts)) => texts,
    };
    let sources = texts.iter().flat_map(|text| text.split('|'));
    sources.filter_map(|text| text.trim().strip_prefix("header:")?.parse().ok()).collect()
}

fn value(name: &HeaderName, text: &str) -> Result<HeaderValue, SpecError> {
    HeaderValue::from_str(text).map_err(|_| {
        SpecError::new(name.as_str(), "is no value for a header; leave control characters out")
    })
}

fn push(
    headers: &mut Vec<(HeaderName, HeaderValue)>,
    name: Option<&HeaderName>,
    text: &str,
) -> Result<(), SpecError> {
    if let Some(name) = name {
        headers.push((name.clone(), value(name, text)?));
    }
    Ok(())
}
