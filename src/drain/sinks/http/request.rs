//! Events to one request: body, name, attributes, signature.

use std::borrow::Cow;

use bytes::Bytes;
use forebay_log::Clock;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::Full;
use ring::digest;

use super::{Batch, Settings};
use crate::drain::shape::cloudevents;
use crate::drain::sink::{Event, Failure, Pass};
use crate::drain::sinks::OpenError;
use crate::drain::sinks::line::is_json;
use crate::verify::{NamedSecret, SignInput, Signer, preset};

pub(super) const AGENT: &str = concat!("forebay/", env!("CARGO_PKG_VERSION"));
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
/// Says why an event comes once more.
pub(super) const PASS: HeaderName = HeaderName::from_static("forebay-pass");

/// Makes the requests of one sink.
#[derive(Debug)]
pub(super) struct Requests {
    settings: Settings,
    signers: Vec<Signer>,
    clock: Clock,
}

impl Requests {
    pub(super) fn new(settings: &Settings, clock: Clock) -> Result<Self, OpenError> {
        let signers = settings.signers().map_err(OpenError)?;
        Ok(Self { settings: settings.clone(), signers, clock })
    }

    /// The request that carries these events, never none of them.
    pub(super) fn of(&self, events: &[&Event]) -> Result<Request<Full<Bytes>>, Failure> {
        let (id, body, content_type) = match (self.settings.batch, events) {
            (Batch::One, [event, ..]) => {
                (event.idempotency_key(), event.payload_bytes(), event.content_type.clone())
            }
            (Batch::Json, _) => {
                (batch_id(events), array(events, |event| Cow::Borrowed(event.payload())), JSON)
            }
            _ => (batch_id(events), array(events, cloudevents::structured_of), CLOUDEVENTS),
        };
        let mut request = Request::post(self.settings.url.clone())
            .body(Full::new(body.clone()))
            .map_err(|error| Failure::permanent(format!("makes no request: {error}")))?;
        let headers = request.headers_mut();
        let named = |text: &str| {
            HeaderValue::from_str(text)
                .map_err(|_| Failure::permanent("has a media type that no header can hold"))
        };
        headers.insert(CONTENT_TYPE, named(&content_type)?);
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(IDEMPOTENCY_KEY, named(&id)?);
        if let [event] = events {
            self.add_attributes(headers, event);
        }
        if let Some(word) = events.first().and_then(|event| pass_word(event.pass)) {
            headers.insert(PASS, HeaderValue::from_static(word));
        }
        // Last, so that nothing of forebay's own stands in the way of what an operator wrote.
        for (name, value) in &self.settings.headers {
            headers.insert(name.clone(), value.clone());
        }
        self.sign(headers, &id, &body)?;
        Ok(request)
    }

    /// `CloudEvents` in binary mode: the payload is the body, the attributes are headers.
    fn add_attributes(&self, headers: &mut HeaderMap, event: &Event) {
        if !self.settings.attributes || self.settings.batch != Batch::One {
            return;
        }
        for (name, text) in cloudevents::headers_of(event) {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(text))
            {
                headers.insert(name, value);
            }
        }
    }

    /// One signature for each secret, so that a receiver may hold the old or the new one.
    fn sign(&self, headers: &mut HeaderMap, id: &str, body: &Bytes) -> Result<(), Failure> {
        let now_ns = self.clock.wall_ns();
        let input = SignInput { id, now_ns, event_type: "", target: "/", body };
        let mut signatures = String::new();
        for signer in &self.signers {
            let signed = signer.sign(&input);
            for (name, value) in signed.map_err(|error| Failure::permanent(error.to_string()))? {
                if name == SIGNATURE {
                    let gap = if signatures.is_empty() { "" } else { " " };
                    signatures.push_str(gap);
                    signatures.push_str(value.to_str().unwrap_or_default());
                } else if name != CONTENT_TYPE {
                    headers.insert(name, value);
                }
            }
        }
        if let Ok(value) = HeaderValue::from_str(&signatures)
            && !signatures.is_empty()
        {
            headers.insert(SIGNATURE, value);
        }
        Ok(())
    }
}

/// The value of the header that says why.
pub(super) const fn pass_word(pass: Pass) -> Option<&'static str> {
    match pass {
        Pass::Live => None,
        Pass::Replay => Some("replay"),
        Pass::Redrive => Some("redrive"),
    }
}

impl Settings {
    /// What signs, one for each secret; the error says what is wrong with one.
    pub(crate) fn signers(&self) -> Result<Vec<Signer>, String> {
        let Some(profile) = preset("standard-webhooks") else { return Ok(Vec::new()) };
        let signer = |secret: &NamedSecret| Signer::new(profile, secret.clone());
        let signers: Result<Vec<Signer>, _> = self.secrets.iter().map(signer).collect();
        signers.map_err(|error| error.to_string())
    }
}

const JSON: Cow<'static, str> = Cow::Borrowed("application/json");
const CLOUDEVENTS: Cow<'static, str> = Cow::Borrowed("application/cloudevents-batch+json");

/// Whether an event can be part of a batch of this form.
pub(super) fn fits(batch: Batch, event: &Event) -> Result<(), Failure> {
    if batch == Batch::Json && !is_json(event.payload()) {
        let reason = "is not JSON, so no array of JSON can hold it; write batch = \"one\", or \
                      format = \"normalised\"";
        return Err(Failure::permanent(reason));
    }
    Ok(())
}

fn array<'e>(events: &[&'e Event], element: impl Fn(&'e Event) -> Cow<'e, [u8]>) -> Bytes {
    let bytes: usize = events.iter().map(|event| event.payload().len() + 256).sum();
    let mut array = Vec::with_capacity(bytes);
    for (index, event) in events.iter().enumerate() {
        array.push(if index == 0 { b'[' } else { b',' });
        array.extend_from_slice(&element(event));
    }
    array.push(b']');
    array.into()
}

/// The same for the same events in the same order, whenever they are sent.
fn batch_id(events: &[&Event]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for event in events {
        context.update(event.idempotency_key().as_bytes());
    }
    let digest = context.finish();
    let half = digest.as_ref().iter().take(16);
    half.fold(String::with_capacity(32), |mut text, byte| {
        use std::fmt::Write as _;
        // Writing to a String cannot fail.
        _ = write!(text, "{byte:02x}");
        text
    })
}
