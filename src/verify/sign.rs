//! The sender's side: what makes a request valid, for the demo, tools, tests and load.
//!
//! Most senders only add headers to what they send ([`Signer::sign`]). Some put their signature
//! into the body or the query, so the request as a whole comes back ([`Signer::request`]).

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use ring::{digest, hmac};

use super::compile::Scheme;
use super::compose::{Asked, BODY_SHA256, Composed};
use super::encoding::{SignatureEncoding, encode_base64url};
use super::head::Shape;
use super::jwt::Jwt;
use super::keys::{self, Key};
use super::private::Private;
use super::profile::Profile;
use super::secret::{NamedSecret, SecretText};
use super::spec::{Algorithm, SchemeSpec, Settings, SpecError};
use super::template::{Part, Template, TimeFrom};
use super::time::TimeUnit;
use super::token::{Place, Token};
use super::{Head, query};
use crate::identify::{IdentitySpec, RuleText};
use crate::reject::Reject;

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
    /// Path and query, for senders that sign the URL.
    pub target: &'i str,
    /// The body.
    pub body: &'i [u8],
}

/// A request that its receiver will find valid.
#[derive(Clone, Debug)]
pub struct SignedRequest {
    /// Path and query.
    pub target: String,
    /// The headers, content type included.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Vec<u8>,
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
    Private(Arc<Private>),
    /// The secret itself is sent.
    Text(SecretText),
    /// There is nothing to sign with.
    Nothing,
}

impl SigningKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SpecError> {
        let signature = match self {
            Self::Mac(key) => Some(hmac::sign(key, message).as_ref().to_vec()),
            Self::Private(key) => key.sign(message),
            Self::Text(_) | Self::Nothing => None,
        };
        signature.ok_or_else(|| SpecError::new("secrets[0].value", "signs nothing; give a key"))
    }
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
    /// Prepares to sign for a source that says nothing of itself; a public key cannot.
    pub fn new(profile: &Profile, secret: NamedSecret) -> Result<Self, SpecError> {
        Self::for_source(profile, secret, &Settings::default())
    }

    /// Prepares to sign for a source with these settings. Where the receiver holds a public key,
    /// the secret is the private one: PKCS#8 in PEM.
    pub fn for_source(
        profile: &Profile,
        secret: NamedSecret,
        settings: &Settings,
    ) -> Result<Self, SpecError> {
        let Profile { scheme, identity, content_types, .. } = profile;
        Self::for_sender((scheme, identity), content_types, secret, settings)
    }

    /// As [`Signer::for_source`], for a sender that no preset describes.
    pub fn for_sender(
        (spec, identity): (&SchemeSpec, &IdentitySpec),
        content_types: &[String],
        secret: NamedSecret,
        settings: &Settings,
    ) -> Result<Self, SpecError> {
        let key_id = secret.key_id.clone();
        let (key, key_pair) = signing_key(spec, secret)?;
        let unsafe_no_auth = spec.algorithm == Algorithm::None;
        let settings = Settings { unsafe_no_auth, ..settings.clone() };
        Ok(Self {
            scheme: Scheme::new(spec, key_pair, &settings)?,
            key,
            key_id,
            id_headers: headers_of(identity.event_id.as_ref()),
            type_headers: headers_of(identity.event_type.as_ref()),
            content_type: content_types.first().and_then(|text| text.parse().ok()),
        })
    }

    /// The same for bodies of this media type.
    #[must_use]
    pub fn with_content_type(mut self, content_type: HeaderValue) -> Self {
        self.content_type = Some(content_type);
        self
    }

    /// The header that the sender puts the event's id into, if it does.
    pub fn id_header(&self) -> Option<&HeaderName> {
        self.id_headers.first()
    }

    /// The header that the sender puts the event's type into, if it does.
    pub fn type_header(&self) -> Option<&HeaderName> {
        self.type_headers.first()
    }

    /// The headers of one request, content type included. Fails for a sender that also changes
    /// the body or the query.
    pub fn sign(&self, input: &SignInput<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, SpecError> {
        let request = self.request(input)?;
        if request.target == input.target && request.body == input.body {
            return Ok(request.headers);
        }
        let message = "puts the signature into the body or the query; headers alone do not do";
        Err(SpecError::new("scheme", message))
    }

    /// The whole request.
    pub fn request(&self, input: &SignInput<'_>) -> Result<SignedRequest, SpecError> {
        let mut headers = Vec::with_capacity(6);
        let given = [(&self.id_headers, input.id), (&self.type_headers, input.event_type)];
        for (name, text) in given.iter().filter_map(|(names, text)| Some((names.first()?, text))) {
            headers.push((name.clone(), value(name, text)?));
        }
        // Of parameters the query is signed, and then no body is a form.
        let in_query = matches!(self.scheme, Scheme::Params(_));
        if let Some(content_type) = self.content_type.as_ref().filter(|_| !in_query) {
            headers.push((http::header::CONTENT_TYPE, content_type.clone()));
        }
        let (target, body) = (input.target.to_owned(), input.body.to_vec());
        let mut request = SignedRequest { target, headers, body };
        match &self.scheme {
            Scheme::Template(template) => {
                let key = (&self.key, self.key_id.as_deref());
                add_template(template, key, input, &mut request)?;
            }
            Scheme::Jwt(jwt) => {
                let token = token(jwt, &self.key, self.key_id.as_deref(), input)?;
                push(&mut request.headers, jwt.header.names.first(), &token)?;
            }
            Scheme::Fields(fields) => {
                let sign = |message: &[u8]| self.key.sign(message);
                request.body = fields.signed(input.body, input.now_ns, sign)?;
            }
            Scheme::Sns(sns) => {
                let cert_url = self.key_id.as_deref().unwrap_or_default();
                request.body =
                    sns.signed(input.body, cert_url, |message| self.key.sign(message))?;
            }
            Scheme::Params(params) => {
                request.target = params.signed(input.target, |message| self.key.sign(message))?;
            }
            Scheme::Token(token) => {
                if let SigningKey::Text(text) = &self.key {
                    add_token(token, text.expose_secret(), &mut request)?;
                }
            }
            Scheme::Open => {}
        }
        Ok(request)
    }
}

/// What signs, and whether it does so as the scheme's key pair.
fn signing_key(spec: &SchemeSpec, secret: NamedSecret) -> Result<(SigningKey, bool), SpecError> {
    let wrong = |message: String| SpecError::new("secrets[0].value", message);
    let text = secret.value.clone();
    if spec.algorithm == Algorithm::None {
        return Ok((SigningKey::Nothing, false));
    }
    if Private::looks_so(text.expose_secret()) {
        let pair = spec.key_pair.as_ref();
        let algorithm = pair.map_or(spec.algorithm, |pair| pair.algorithm);
        let key = Private::read(text.expose_secret(), algorithm).map_err(wrong)?;
        return Ok((SigningKey::Private(Arc::new(key)), pair.is_some()));
    }
    let (mut secrets, key_pair) = keys::load(spec, vec![secret])?;
    let key = match secrets.pop().map(|secret| secret.key) {
        Some(Key::Mac(key)) => SigningKey::Mac(key),
        Some(Key::Token(_)) => SigningKey::Text(text),
        _ => {
            let message = "is a public key, which signs nothing; give a shared secret, or the \
                           private key as PEM";
            return Err(wrong(message.to_owned()));
        }
    };
    Ok((key, key_pair))
}

/// Adds what the template signs and the signature over it.
fn add_template(
    template: &Template,
    (key, key_id): (&SigningKey, Option<&str>),
    input: &SignInput<'_>,
    request: &mut SignedRequest,
) -> Result<(), SpecError> {
    let time = template.time.as_ref();
    let unit = time.map_or(TimeUnit::Seconds, |time| time.unit);
    let now = unit.write(input.now_ns);
    let is_time = |index| matches!(time.map(|t| &t.from), Some(TimeFrom::Header(t)) if *t == index);
    let headers: HeaderMap = request.headers.iter().cloned().collect();
    let form = Asked::new(&(&headers).into()).form;
    if template.parts.contains(&Part::Composed(Composed::Twilio)) && !form {
        let sha256 = digest::digest(&digest::SHA256, input.body);
        let sha256 = SignatureEncoding::Hex.encode(sha256.as_ref());
        query::add(&mut request.target, BODY_SHA256, sha256.as_bytes());
    }
    let asked = Asked::new(&Head { target: &request.target, ..(&headers).into() });
    let mut message = Vec::with_capacity(input.body.len() + 256);
    for part in &template.parts {
        match part {
            Part::Literal(text) => message.extend_from_slice(text),
            Part::Header(index) if is_time(*index) => message.extend_from_slice(now.as_bytes()),
            // The one other header that senders sign is the event's id.
            Part::Header(_) => message.extend_from_slice(input.id.as_bytes()),
            Part::Label(_) => message.extend_from_slice(now.as_bytes()),
            Part::Body => message.extend_from_slice(input.body),
            Part::Composed(composed) => {
                let texts = composed.texts(template.base.as_ref(), asked, input.body);
                let bound = composed.binds(asked, input.body);
                let texts =
                    texts.and_then(|texts| bound.then_some(texts).ok_or(Reject::SignatureWrong));
                let text = texts.map_err(|reject| SpecError::new("body", reject.detail()))?;
                message.extend_from_slice(text.first().map_or(&[][..], |text| text));
            }
        }
    }
    for (index, needed) in template.others.iter().enumerate() {
        let text = match template.key_id == Some(index) {
            true => key_id.unwrap_or_default(),
            false if is_time(index) => &now,
            false => input.id,
        };
        if needed.names.iter().all(|name| !headers.contains_key(name)) {
            push(&mut request.headers, needed.names.first(), text)?;
        }
    }
    let signature = template.encoding.encode(&key.sign(&message)?);
    let text = shaped(&template.shape, &now, &signature);
    push(&mut request.headers, template.header.names.first(), &text)
}

/// Adds the secret itself.
fn add_token(token: &Token, text: &str, request: &mut SignedRequest) -> Result<(), SpecError> {
    match &token.place {
        Place::Query(name) => {
            query::add(&mut request.target, name, text.as_bytes());
            Ok(())
        }
        Place::Header { header, prefix } => {
            let encoded = token.basic.then(|| SignatureEncoding::Base64.encode(text.as_bytes()));
            let text = String::from_utf8_lossy(prefix) + encoded.as_deref().unwrap_or(text);
            push(&mut request.headers, header.names.first(), &text)
        }
    }
}

/// The signature as it stands in its header.
fn shaped(shape: &Shape, now: &str, signature: &str) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match shape {
        Shape::Plain { prefix } => text(prefix) + signature,
        Shape::CommaList => signature.to_owned(),
        Shape::Named { names } => {
            names.first().map_or_else(String::new, |name| text(name)) + signature
        }
        Shape::SpaceList { label } => format!("{},{signature}", text(label)),
        Shape::KvList { separator, label, labels } => {
            let times = labels.iter().map(|name| format!("{}={now}", text(name)));
            let signature = format!("{}={signature}", text(label));
            let entries: Vec<_> = times.chain([signature]).collect();
            entries.join(&char::from(*separator).to_string())
        }
    }
}

fn token(
    jwt: &Jwt,
    key: &SigningKey,
    key_id: Option<&str>,
    input: &SignInput<'_>,
) -> Result<String, SpecError> {
    let head = serde_json::json!({ "alg": jwt.name(), "typ": "JWT" }).to_string();
    let now = input.now_ns / 1_000_000_000;
    let times = [("exp", now + TOKEN_SECONDS), ("nbf", now), ("iat", now)];
    let claims = jwt.claims_for(key_id, input, &times)?;
    let signed = [
        &*encode_base64url(head.as_bytes()),
        ".",
        &encode_base64url(claims.to_string().as_bytes()),
    ]
    .concat();
    let signature = encode_base64url(&key.sign(signed.as_bytes())?);
    Ok(format!("{}{signed}.{signature}", String::from_utf8_lossy(&jwt.prefix)))
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
