//! Google Cloud Pub/Sub: each event a message of one topic.
//!
//! **Effect: at least once.** Pub/Sub knows no message again: what was published by a request whose
//! answer was lost is published once more. `Forebay-Key` in the attributes is the same for all
//! deliveries of one event.
//!
//! A message's ordering key is the event's order key, as 16 hexadecimal digits; an event without one
//! has none. All messages of a request have the same key, so those of different keys go in requests
//! of their own, a few at once, and those of one key one after the other up to the first that fails.
//! The engine has one event of a key under way: so none of a key overtakes another. Subscribers get
//! them in that order where the subscription asks for it and all of a key goes through one region,
//! by its endpoint (`https://europe-west1-pubsub.googleapis.com`).
//!
//! Pub/Sub takes a request as a whole or not at all. One that is refused for what is in it is halved
//! until the messages at fault stand alone.

mod answer;
mod login;
mod message;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_log::Clock;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt as _};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Full;
use rustls::RootCertStore;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

pub use self::login::{Account, Login};

use self::login::Token;
use self::message::Message;
use super::answer::{in_places, patience, timed_out, within};
use super::http::client::{Client, Reach};
use super::parts::parts;
use super::{Destination, Kind, OpenError};
use crate::drain::sink::{Class, Delivered, Event, Failure, Nature, Sink};

/// No request has more messages.
const MESSAGES_MAX: usize = 1000;
/// No request is larger, and no message.
const REQUEST_BYTES_MAX: usize = 10_000_000;
/// Requests of one batch that are under way at once.
const REQUESTS_AT_ONCE: usize = 8;
/// Requests that the messages of one key may cost beside those that they have to, while those that
/// are refused are searched for.
const SEARCH_MAX: usize = 48;
/// A thousand ids are some ten KiB.
const ANSWER_BYTES_MAX: usize = 1 << 20;
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Shorter than the other side keeps a connection.
const IDLE_MAX: Duration = Duration::from_secs(4);
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Where events go, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `projects/PROJECT/topics/TOPIC`.
    pub topic: String,
    /// Where requests go: scheme and authority count.
    pub endpoint: Uri,
    /// Who forebay is.
    pub login: Login,
    /// Whom the servers' certificates are trusted from; none: the system's authorities.
    pub authorities: Option<RootCertStore>,
    /// Whether addresses that are not public may be reached.
    pub allow_private: bool,
}

impl Settings {
    /// Reaches this URL.
    fn client(
        &self,
        url: &Uri,
        allow_private: bool,
        timeout: Duration,
    ) -> Result<Client, OpenError> {
        let reach = Reach {
            url,
            authorities: self.authorities.as_ref(),
            allow_private,
            connect_timeout: timeout.min(CONNECT_MAX),
            idle_timeout: IDLE_MAX,
        };
        Client::reaching(&reach, Clock::System)
    }
}

/// The sink.
#[derive(Debug)]
pub struct PubSub {
    publish: Uri,
    probe: Uri,
    client: Client,
    token: Token,
    timeout: Duration,
}

#[derive(Debug, Serialize)]
struct Publish<'m> {
    messages: &'m [Message<'m>],
}

type Verdict = (usize, Result<(), Failure>);

impl PubSub {
    /// Connects to nothing yet; a batch may take so long.
    pub fn new(settings: &Settings, timeout: Duration) -> Result<Self, OpenError> {
        let timeout = patience(timeout);
        let client = settings.client(&settings.endpoint, settings.allow_private, timeout)?;
        let token = Token::new(&settings.login, |url, at_machine| {
            settings.client(url, at_machine || settings.allow_private, timeout)
        })?;
        let base = settings.endpoint.to_string();
        let url = |behind: &str| {
            let text = format!("{}/v1/{}{behind}", base.trim_end_matches('/'), settings.topic);
            text.parse().map_err(|_| OpenError(format!("`{text}` is no URL")))
        };
        Ok(Self { publish: url(":publish")?, probe: url("")?, client, token, timeout })
    }

    /// The body of one answer that is no refusal.
    async fn call(&self, method: Method, url: &Uri, body: Vec<u8>) -> Result<Bytes, Failure> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = url.clone();
        request.headers_mut().insert(CONTENT_TYPE, JSON);
        if let Some(token) = self.token.value().await? {
            request.headers_mut().insert(AUTHORIZATION, token);
        }
        let answered = self.client.exchange(request, ANSWER_BYTES_MAX).await?;
        if answered.status() == StatusCode::UNAUTHORIZED {
            self.token.forget().await;
        }
        let retry_after = self.client.retry_after(answered.headers());
        answer::body(answered).map_err(|failure| match failure.class {
            Class::Temporary | Class::Overloaded => Failure { retry_after, ..failure },
            Class::Permanent | Class::Misconfigured => failure,
        })
    }

    /// All of these, or none.
    async fn publish(&self, messages: &[Message<'_>]) -> Result<(), Failure> {
        let body = serde_json::to_vec(&Publish { messages })
            .map_err(|error| Failure::permanent(format!("makes no request: {error}")))?;
        let answer = self.call(Method::POST, &self.publish, body).await?;
        answer::must_name(&answer, messages.len())
    }

    /// Those of one ordering key, in their order.
    async fn publish_all(&self, messages: &[Message<'_>], deadline: Instant) -> Vec<Verdict> {
        let mut verdicts = Vec::with_capacity(messages.len());
        let mut waiting = parts(messages, MESSAGES_MAX, REQUEST_BYTES_MAX, Message::bytes);
        waiting.reverse();
        let mut requests = waiting.len().saturating_add(SEARCH_MAX);
        while let Some(part) = waiting.pop() {
            let published = match timeout_at(deadline, self.publish(part)).await {
                Ok(published) => published,
                Err(_) => Err(timed_out(self.timeout)),
            };
            requests = requests.saturating_sub(1);
            let class = published.as_ref().err().map(|failure| failure.class);
            if class == Some(Class::Permanent) && part.len() > 1 && requests > 0 {
                let (first, second) = part.split_at(part.len() / 2);
                waiting.extend([second, first]);
                continue;
            }
            verdicts.extend(part.iter().map(|of| (of.place(), published.clone())));
            if class.is_some_and(|class| class != Class::Permanent) {
                // Nothing overtakes what may still come.
                let rest = waiting.drain(..).flatten();
                verdicts.extend(rest.map(|of| (of.place(), published.clone())));
            }
        }
        verdicts
    }

    /// What is to be done for each ordering key. In a box, since the compiler cannot tell how long
    /// what they are made by holds.
    fn by_key<'m>(
        &'m self,
        messages: &'m [Message<'m>],
        deadline: Instant,
    ) -> Vec<BoxFuture<'m, Vec<Verdict>>> {
        let groups = messages.chunk_by(|one, other| one.key() == other.key());
        let publish = |group| -> BoxFuture<'m, _> { Box::pin(self.publish_all(group, deadline)) };
        groups.map(publish).collect()
    }

    async fn send_all(&self, batch: &[Event]) -> Delivered {
        let deadline = Instant::now() + self.timeout;
        let mut told = Vec::new();
        let mut messages = Vec::with_capacity(batch.len());
        for (place, event) in batch.iter().enumerate() {
            match Message::of(event, place, REQUEST_BYTES_MAX) {
                Ok(message) => messages.push(message),
                Err(failure) => told.push((place, Err(failure))),
            }
        }
        // Stable: what has the same key, or none, stays in its order.
        messages.sort_by(|one, other| one.key().cmp(&other.key()));
        let published = stream::iter(self.by_key(&messages, deadline));
        let mut published = published.buffer_unordered(REQUESTS_AT_ONCE);
        while let Some(group) = published.next().await {
            told.extend(group);
        }
        in_places(batch.len(), told)
    }
}

impl Kind for Settings {
    fn word(&self) -> &'static str {
        "pubsub"
    }

    fn destination(&self) -> Destination {
        Destination::origin(&self.endpoint).named("topic", &self.topic)
    }

    fn open(&self, _name: &str, timeout: Duration) -> Result<Arc<dyn Sink>, OpenError> {
        Ok(Arc::new(PubSub::new(self, timeout)?))
    }
}

impl Sink for PubSub {
    fn nature(&self) -> Nature {
        Nature { events_max: MESSAGES_MAX, bytes_max: REQUEST_BYTES_MAX, ..Nature::PARALLEL }
    }

    fn deliver<'a>(&'a self, batch: &'a [Event]) -> BoxFuture<'a, Delivered> {
        Box::pin(self.send_all(batch))
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let asked = within(self.timeout, self.call(Method::GET, &self.probe, Vec::new())).await;
            // To publish it is not needed to be allowed to look.
            asked.map(drop).or_else(answer::but_for_leave)
        })
    }
}
