//! Amazon SQS: each event a message of one queue, ten of them in a request.
//!
//! **Effect: at least once; in a FIFO queue once within its window of five minutes.** A message of a
//! FIFO queue carries the event's key as its `MessageDeduplicationId`, the same in every attempt and
//! from all forebays that share a `dedupe.key`, and what the queue knows it takes without adding it.
//! A replay has an id of its own each time, or the queue would drop what was asked for. A standard
//! queue knows nothing again; `Forebay-Key` tells.
//!
//! A message's group is the event's order key, as 16 hexadecimal digits, and that of an event
//! without one is the event's own key, so that it waits for no other. The engine has one event of
//! an order key under way, and so none of a group overtakes another, whatever part of a request the
//! queue refuses. What SQS answers late to a request that was given up adds nothing either: its
//! messages were acknowledged since, and their ids are known.
//!
//! A request that is refused as a whole for what is in it is halved until the messages at fault
//! stand alone.

mod answer;
mod message;
mod signing;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_log::Clock;
use futures_util::future::BoxFuture;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Request, Uri};
use http_body_util::Full;
use reqsign_core::hash::hex_sha256;
use rustls::RootCertStore;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use self::message::Message;
use self::signing::Signing;
use super::answer::{in_places, patience, timed_out, within};
use super::http::client::{Client, Reach};
use super::parts::parts;
use super::{Destination, Kind, OpenError};
use crate::drain::sink::{Class, Delivered, Event, Failure, Nature, Sink};
use crate::verify::SecretText;

/// No request has more messages.
const MESSAGES_MAX: usize = 10;
/// Requests that one batch may cost beside those that it has to, while the messages that are
/// refused in it are searched for.
const SEARCH_MAX: usize = 48;
/// Ten verdicts are a few KiB.
const ANSWER_BYTES_MAX: usize = 1 << 20;
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Shorter than the other side keeps a connection.
const IDLE_MAX: Duration = Duration::from_secs(4);
const JSON: HeaderValue = HeaderValue::from_static("application/x-amz-json-1.0");
const TARGET: HeaderName = HeaderName::from_static("x-amz-target");
const BODY_DIGEST: HeaderName = HeaderName::from_static("x-amz-content-sha256");

/// Where events go, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The queue, as SQS names it; one that ends in `.fifo` keeps order.
    pub queue_url: String,
    /// Where requests go: scheme and authority count.
    pub endpoint: Uri,
    /// The region that signatures name.
    pub region: String,
    /// Who forebay is; none: what the environment or the machine says.
    pub credentials: Option<Credentials>,
    /// Whom the server's certificate is trusted from; none: the system's authorities.
    pub authorities: Option<RootCertStore>,
    /// Whether addresses that are not public may be reached.
    pub allow_private: bool,
    /// The messages of a request together are no larger, and none alone is, in bytes.
    pub request_bytes_max: usize,
}

impl Settings {
    fn is_fifo(&self) -> bool {
        self.queue_url.rsplit('.').next() == Some("fifo")
    }
}

/// A key of AWS.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Its id.
    pub access_key: String,
    /// What signs.
    pub secret_key: SecretText,
    /// Comes with a key that is temporary.
    pub session_token: Option<SecretText>,
}

/// The sink.
#[derive(Debug)]
pub struct Sqs {
    settings: Settings,
    client: Client,
    signing: Signing,
    timeout: Duration,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SendMessageBatch<'m> {
    queue_url: &'m str,
    entries: &'m [Message<'m>],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct GetQueueAttributes<'s> {
    queue_url: &'s str,
    attribute_names: [&'static str; 1],
}

impl Sqs {
    /// Connects to nothing yet; a batch may take so long.
    pub fn new(settings: Settings, timeout: Duration) -> Result<Self, OpenError> {
        let timeout = patience(timeout);
        let reach = Reach {
            url: &settings.endpoint,
            authorities: settings.authorities.as_ref(),
            allow_private: settings.allow_private,
            connect_timeout: timeout.min(CONNECT_MAX),
            idle_timeout: IDLE_MAX,
        };
        let client = Client::reaching(&reach, Clock::System)?;
        let signing = Signing::new(&settings, timeout)?;
        Ok(Self { settings, client, signing, timeout })
    }

    /// One answer of SQS.
    async fn call(&self, action: &str, what: &(impl Serialize + Sync)) -> Result<Bytes, Failure> {
        let impossible =
            |error: String| Failure::permanent(format!("makes no request of SQS: {error}"));
        let body = serde_json::to_vec(what).map_err(|error| impossible(error.to_string()))?;
        let mut request = Request::post(self.settings.endpoint.clone())
            .header(CONTENT_TYPE, JSON)
            .header(TARGET, format!("AmazonSQS.{action}"))
            .header(BODY_DIGEST, hex_sha256(&body))
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| impossible(error.to_string()))?;
        self.signing.sign(&mut request).await?;
        let answered = self.client.exchange(request, ANSWER_BYTES_MAX).await?;
        let retry_after = self.client.retry_after(answered.headers());
        answer::body(answered).map_err(|failure| match failure.class {
            Class::Temporary | Class::Overloaded => Failure { retry_after, ..failure },
            Class::Permanent | Class::Misconfigured => failure,
        })
    }

    /// A verdict for each message, or one for the request.
    async fn send(&self, messages: &[Message<'_>]) -> Result<answer::Verdicts, Failure> {
        let send = SendMessageBatch { queue_url: &self.settings.queue_url, entries: messages };
        answer::verdicts(&self.call("SendMessageBatch", &send).await?)
    }

    async fn send_all(&self, batch: &[Event]) -> Delivered {
        let deadline = Instant::now() + self.timeout;
        let mut told: Vec<(usize, Result<(), Failure>)> = Vec::with_capacity(batch.len());
        let mut messages = Vec::with_capacity(batch.len());
        for (place, event) in batch.iter().enumerate() {
            match Message::of(event, place, &self.settings) {
                Ok(message) => messages.push(message),
                Err(failure) => told.push((place, Err(failure))),
            }
        }
        let bytes_max = self.settings.request_bytes_max;
        let mut waiting = parts(&messages, MESSAGES_MAX, bytes_max, Message::bytes);
        waiting.reverse();
        let mut requests = waiting.len().saturating_add(SEARCH_MAX);
        while let Some(part) = waiting.pop() {
            let sent = match timeout_at(deadline, self.send(part)).await {
                Ok(sent) => sent,
                Err(_) => Err(timed_out(self.timeout)),
            };
            requests = requests.saturating_sub(1);
            let failure = match sent {
                Ok(answer) => {
                    told.extend(part.iter().map(|of| (of.place(), answer.of(of.place()))));
                    continue;
                }
                Err(failure) => failure,
            };
            let permanent = failure.class == Class::Permanent;
            if permanent && part.len() > 1 && requests > 0 {
                let (first, second) = part.split_at(part.len() / 2);
                waiting.extend([second, first]);
                continue;
            }
            // What was not sent waits as well, unless these alone are at fault.
            let rest = if permanent { Vec::new() } else { std::mem::take(&mut waiting) };
            let all = part.iter().chain(rest.into_iter().flatten());
            told.extend(all.map(|of| (of.place(), Err(failure.clone()))));
        }
        in_places(batch.len(), told)
    }
}

impl Kind for Settings {
    fn word(&self) -> &'static str {
        "sqs"
    }

    fn destination(&self) -> Destination {
        Destination::origin(&self.endpoint).named("queue_url", &self.queue_url)
    }

    fn open(&self, _name: &str, timeout: Duration) -> Result<Arc<dyn Sink>, OpenError> {
        Ok(Arc::new(Sqs::new(self.clone(), timeout)?))
    }
}

impl Sink for Sqs {
    /// A batch is a request, so that the engine finds out how many go at once.
    fn nature(&self) -> Nature {
        let bytes_max = self.settings.request_bytes_max;
        Nature { events_max: MESSAGES_MAX, bytes_max, ..Nature::PARALLEL }
    }

    fn deliver<'a>(&'a self, batch: &'a [Event]) -> BoxFuture<'a, Delivered> {
        Box::pin(self.send_all(batch))
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let queue_url = &self.settings.queue_url;
            let ask = GetQueueAttributes { queue_url, attribute_names: ["QueueArn"] };
            let answer = within(self.timeout, self.call("GetQueueAttributes", &ask)).await;
            // To send it is not needed to be allowed to look.
            answer.map(drop).or_else(answer::but_for_leave)
        })
    }
}
