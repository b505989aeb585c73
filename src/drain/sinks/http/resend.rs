//! Events as their senders would send them, signed anew for another receiver: `replay --to-url`.
//!
//! The body is the one that was received, the signature and its time are new, and so is nothing
//! else: the headers that the sender had set come along. Not those that a credential was in, of
//! which the log has a digest alone, nor those of the way that the request had taken, nor any
//! other signature, which would be one by the secret of production.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use forebay_log::{Clock, HeaderValue as Kept, Tag};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Uri};
use http_body_util::Full;

use super::client::Client;
use super::request::{AGENT, PASS, pass_word};
use super::{Destination, Kind, OpenError};
use crate::drain::feed::content_type_of;
use crate::drain::sink::{Class, Delivered, Event, Failure, Nature, Sink, body_of};
use crate::verify::{SignInput, SignedRequest, Signer};

/// Headers of one connection or of the way to it, beside those that begin as [`WAYS`] say.
const OF_THE_WAY: [HeaderName; 15] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::FORWARDED,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::VIA,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-request-id"),
];
/// What proxies and networks of delivery add.
const WAYS: [&str; 4] = ["x-forwarded-", "x-amzn-", "cf-", "proxy-"];

/// Where events go, and how each source's are signed.
#[derive(Clone)]
pub struct Settings {
    /// The URL, and how it is reached; it has no secrets and headers of its own.
    pub http: super::Settings,
    /// What signs, by the name of the source.
    pub signers: BTreeMap<String, Signer>,
    /// Put behind each id, where ids stand in a header and are to be others.
    pub id_suffix: Option<String>,
}

/// Without what may be secret.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources: Vec<&String> = self.signers.keys().collect();
        f.debug_struct("Settings")
            .field("http", &self.http)
            .field("sources", &sources)
            .finish_non_exhaustive()
    }
}

/// The sink.
#[derive(Debug)]
pub struct Resend {
    settings: Settings,
    client: Client,
    clock: Clock,
}

impl Resend {
    /// Prepares to send; connects to nothing yet.
    pub fn new(settings: &Settings) -> Result<Self, OpenError> {
        let clock = Clock::System;
        let client = Client::new(&settings.http, clock.clone())?;
        Ok(Self { settings: settings.clone(), client, clock })
    }

    /// Nobody is there to mend what is set up wrongly: it is told of each event at once.
    async fn send(&self, event: &Event) -> Result<(), Failure> {
        let sent = self.client.send(self.request(event)?).await;
        sent.map_err(|failure| match failure.class {
            Class::Misconfigured => Failure { class: Class::Permanent, ..failure },
            _ => failure,
        })
    }

    fn request(&self, event: &Event) -> Result<Request<Full<bytes::Bytes>>, Failure> {
        let source = event.field(Tag::Source).unwrap_or_default();
        let signer = self.settings.signers.get(&*source).ok_or_else(|| {
            Failure::permanent(format!("is of source {source}, of which no signer is known"))
        })?;
        if event.field(Tag::Method).is_some_and(|method| method != "POST") {
            return Err(Failure::permanent("did not come by POST"));
        }
        let headers = kept(event);
        let SignedRequest { target, headers: added, body } = self.sign(signer, event, &headers)?;
        let url = &self.settings.http.url;
        let mut parts = url.clone().into_parts();
        parts.path_and_query = target.parse().ok();
        let url = Uri::from_parts(parts).unwrap_or_else(|_| url.clone());
        let mut request = Request::post(url)
            .body(Full::new(body.into()))
            .map_err(|error| Failure::permanent(format!("makes no request: {error}")))?;
        *request.headers_mut() = headers;
        for (name, value) in added {
            request.headers_mut().insert(name, value);
        }
        if let Some(word) = pass_word(event.pass) {
            request.headers_mut().insert(PASS, HeaderValue::from_static(word));
        }
        Ok(request)
    }

    /// What the sender adds now.
    fn sign(
        &self,
        signer: &Signer,
        event: &Event,
        headers: &HeaderMap,
    ) -> Result<SignedRequest, Failure> {
        let content_type = HeaderValue::from_str(&content_type_of(&event.record.get()))
            .map_err(|_| Failure::permanent("has a media type that no header can hold"))?;
        let signer = signer.clone().with_content_type(content_type);
        // As the sender wrote them; what the log says of them may have been put together.
        let said = |name: Option<&HeaderName>, tag| match name.and_then(|name| headers.get(name)) {
            Some(value) => String::from_utf8_lossy(value.as_bytes()).into_owned(),
            None => event.field(tag).unwrap_or_default().into_owned(),
        };
        let mut id = said(signer.id_header(), Tag::EventId);
        id.extend(self.settings.id_suffix.as_deref());
        let event_type = said(signer.type_header(), Tag::EventType);
        let body = body_of(&event.record);
        let url = &self.settings.http.url;
        let input = SignInput {
            id: &id,
            now_ns: self.clock.wall_ns(),
            event_type: &event_type,
            target: url.path_and_query().map_or("/", |target| target.as_str()),
            body: &body,
        };
        signer.request(&input).map_err(|error| Failure::permanent(error.to_string()))
    }
}

/// The headers of the request as it was received that may come along.
fn kept(event: &Event) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let record = event.record.get();
    for (name, value) in record.meta().headers() {
        let Kept::Bytes(value) = value else { continue };
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        else {
            continue;
        };
        let text = name.as_str();
        let of_the_way = OF_THE_WAY.contains(&name)
            || WAYS.iter().any(|way| text.starts_with(way))
            || text.contains("signature");
        if !of_the_way {
            headers.append(name, value);
        }
    }
    headers.entry(header::USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
    headers
}

impl Kind for Settings {
    fn word(&self) -> &'static str {
        "resend"
    }

    fn destination(&self) -> Destination {
        Destination::origin(&self.http.url)
    }

    fn open(&self, _name: &str, _timeout: Duration) -> Result<Arc<dyn Sink>, OpenError> {
        Ok(Arc::new(Resend::new(self)?))
    }
}

impl Sink for Resend {
    fn nature(&self) -> Nature {
        Nature { events_max: 1, ..Nature::PARALLEL }
    }

    fn deliver<'a>(&'a self, batch: &'a [Event]) -> BoxFuture<'a, Delivered> {
        async move {
            let mut verdicts = Vec::with_capacity(batch.len());
            for event in batch {
                verdicts.push(self.send(event).await);
            }
            Delivered::Each(verdicts)
        }
        .boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Failure>> {
        self.client.probe(self.settings.http.url.clone()).boxed()
    }
}
