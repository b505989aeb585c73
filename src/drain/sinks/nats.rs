//! NATS `JetStream`: each event a message of a stream, acknowledged by the stream.
//!
//! **Effect: once within the stream's duplicate window, at least once beyond it.** Every message
//! carries the event's idempotency key as `Nats-Msg-Id`, which is the same on all forebays that
//! share a `dedupe.key`; the server drops what it has seen within the window (two minutes unless
//! the stream says otherwise) and says so, which counts as delivered. A replay carries no such id,
//! because the server would drop what an operator asked for: replays are at least once.
//!
//! Messages of a batch are published in their order over one connection without waiting, then all
//! acknowledgements are awaited. A message is told of a batch's place by headers: `Forebay-Lane`,
//! `Forebay-Position`, `Forebay-Source`, `Forebay-Type`, `Forebay-Event-Id`, `Forebay-Tenant`,
//! `Forebay-Environment`, `Content-Type`, and `Forebay-Pass` for a `replay` or a `redrive`.
//!
//! The connection is made by the first batch. One that is lost, or on which nothing is answered in
//! time, is given up and made anew by the next batch: what stood in it is known by its ids.

use std::error::Error as _;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::context::{
    AccountErrorKind, CreateStreamError, CreateStreamErrorKind, PublishAckFuture, PublishError,
    PublishErrorKind,
};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, Context, ErrorCode, stream};
use async_nats::{
    ConnectError, ConnectErrorKind, ConnectOptions, Event as Notice, HeaderMap, ServerAddr,
    ServerError,
};
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::about::about;
use super::answer::{gathered, patience, timed_out, unconnected, within, words};
use super::destination::with_port;
use super::template::Template;
use super::trust::Trust;
use super::{Destination, Kind, OpenError};
use crate::drain::sink::{Class, Delivered, Event, Failure, Nature, Pass, Sink};
use crate::verify::SecretText;

/// How the server knows what came twice.
const MESSAGE_ID: &str = "Nats-Msg-Id";
const NO_JETSTREAM: &str = "the server has no JetStream for this account";
/// Messages that wait for their acknowledgement on one connection, over all batches.
const UNACKNOWLEDGED_MAX: usize = 16_384;

/// Where events go, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The servers of one cluster; any of them is asked.
    pub servers: Vec<ServerAddr>,
    /// Who forebay is.
    pub credentials: Option<Credentials>,
    /// The authority that the servers' certificates come from; none: those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// Whether a server without TLS is refused.
    pub tls: bool,
    /// The subject of an event.
    pub subject: Template,
    /// A stream to make where it is missing.
    pub stream: Option<NewStream>,
}

/// How forebay proves who it is.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// The text of a `.creds` file.
    Creds(SecretText),
    /// A token.
    Token(SecretText),
    /// A user and its password.
    User(String, SecretText),
}

/// A stream that is made if the server has none of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewStream {
    /// Its name.
    pub name: String,
    /// How long it remembers ids.
    pub duplicate_window: Duration,
    /// How many servers keep it: a message is acknowledged once more than half of them have it.
    pub replicas: usize,
}

/// The sink.
#[derive(Debug)]
pub struct Nats {
    settings: Settings,
    timeout: Duration,
    link: Mutex<Option<Arc<Link>>>,
}

/// A connection.
#[derive(Debug)]
struct Link {
    context: Context,
    /// What the server has refused on it: it answers a publish without permission with an error
    /// that belongs to no message.
    refused: Arc<OnceLock<String>>,
    trust: Trust,
}

impl Nats {
    /// A sink that is not connected yet; a batch may take so long.
    pub fn new(settings: Settings, timeout: Duration) -> Self {
        Self { settings, timeout: patience(timeout), link: Mutex::new(None) }
    }

    /// The connection, made if there is none that holds.
    async fn link(&self) -> Result<Arc<Link>, Failure> {
        let mut slot = self.link.lock().await;
        if let Some(link) = slot.as_ref().filter(|link| link.holds()) {
            return Ok(Arc::clone(link));
        }
        *slot = None;
        let link = within(self.timeout, self.connect()).await?;
        Ok(Arc::clone(slot.insert(Arc::new(link))))
    }

    async fn connect(&self) -> Result<Link, Failure> {
        let refused = Arc::new(OnceLock::new());
        let client = self
            .options(&refused)?
            .connect(self.settings.servers.clone())
            .await
            .map_err(|error| of_connect(&error))?;
        let context = jetstream::context::ContextBuilder::new()
            .timeout(self.timeout)
            .max_ack_inflight(UNACKNOWLEDGED_MAX)
            .build(client);
        if let Some(new) = &self.settings.stream {
            let config = stream::Config {
                name: new.name.clone(),
                subjects: vec![self.settings.subject.pattern("*")],
                duplicate_window: new.duplicate_window,
                num_replicas: new.replicas,
                ..stream::Config::default()
            };
            context.get_or_create_stream(config).await.map_err(|error| of_stream(&error))?;
        }
        Ok(Link { context, refused, trust: Trust::default() })
    }

    fn options(&self, refused: &Arc<OnceLock<String>>) -> Result<ConnectOptions, Failure> {
        let Settings { credentials, ca_file, tls, servers, .. } = &self.settings;
        let mut options = match credentials {
            None => ConnectOptions::new(),
            Some(Credentials::Token(token)) => {
                ConnectOptions::with_token(token.expose_secret().to_owned())
            }
            Some(Credentials::User(user, password)) => ConnectOptions::with_user_and_password(
                user.clone(),
                password.expose_secret().to_owned(),
            ),
            // The error could quote the file.
            Some(Credentials::Creds(text)) => {
                ConnectOptions::with_credentials(text.expose_secret()).map_err(|_| {
                    misconfigured("the credentials are not the text of a .creds file")
                })?
            }
        };
        if let Some(path) = ca_file {
            options = options.add_root_certificates(path.clone());
        }
        let refused = Arc::clone(refused);
        Ok(options
            .name("forebay")
            .require_tls(*tls)
            .connection_timeout(self.timeout)
            // Each server once: connecting again is the next batch's, so that it learns why not.
            .max_reconnects(servers.len())
            .event_callback(move |notice| {
                if let Notice::ServerError(ServerError::Other(text)) = notice
                    && text.to_ascii_lowercase().contains("permissions violation")
                {
                    // Only the first is told; a later one says no more.
                    _ = refused.set(words(&text));
                }
                std::future::ready(())
            }))
    }

    async fn publish_all(&self, batch: &[Event]) -> Result<Delivered, Failure> {
        let link = self.link().await?;
        let begun = link.trust.begin();
        let deadline = Instant::now() + self.timeout;
        let mut sent = Vec::with_capacity(batch.len());
        for event in batch {
            sent.push(match timeout_at(deadline, self.publish(&link, event)).await {
                Ok(Ok(ack)) => Ok(ack),
                Ok(Err(error)) => Err(self.of_publish(&link, &error)),
                Err(_) => Err(timed_out(self.timeout)),
            });
        }
        let mut verdicts = Vec::with_capacity(batch.len());
        for ack in sent {
            verdicts.push(match ack {
                Ok(ack) => match timeout_at(deadline, ack.into_future()).await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(error)) => Err(self.of_publish(&link, &error)),
                    Err(_) => Err(self.unanswered(&link)),
                },
                Err(failure) => Err(failure),
            });
        }
        begun.end(&verdicts);
        Ok(gathered(verdicts))
    }

    async fn publish(&self, link: &Link, event: &Event) -> Result<PublishAckFuture, PublishError> {
        let message =
            PublishMessage::build().headers(headers(event)).payload(event.payload_bytes());
        link.context.send_publish(self.settings.subject.fill(event), message).await
    }

    fn unanswered(&self, link: &Link) -> Failure {
        match link.refused.get() {
            Some(text) => misconfigured(format!("the server refuses: {text}")),
            None => timed_out(self.timeout),
        }
    }

    fn of_publish(&self, link: &Link, error: &PublishError) -> Failure {
        match error.kind() {
            PublishErrorKind::StreamNotFound => {
                misconfigured("no stream of the server takes this subject")
            }
            PublishErrorKind::MaxPayloadExceeded => Failure::permanent(format!(
                "the message is larger than the {} bytes that the server takes",
                link.context.client().max_payload()
            )),
            PublishErrorKind::TimedOut => self.unanswered(link),
            PublishErrorKind::BrokenPipe => Failure::temporary("the connection was lost"),
            PublishErrorKind::MaxAckPending => {
                Failure::new(Class::Overloaded, "too many messages wait for acknowledgement")
            }
            PublishErrorKind::WrongLastMessageId
            | PublishErrorKind::WrongLastSequence
            | PublishErrorKind::Other => {
                match error.source().and_then(|cause| cause.downcast_ref::<jetstream::Error>()) {
                    Some(answer) => of_answer(answer),
                    None => Failure::temporary("the message could not be published"),
                }
            }
        }
    }
}

impl Link {
    fn holds(&self) -> bool {
        self.trust.holds() && self.context.client().connection_state() == State::Connected
    }
}

impl Kind for Settings {
    fn word(&self) -> &'static str {
        "nats"
    }

    fn destination(&self) -> Destination {
        let place = |server: &ServerAddr| {
            format!("{}://{}", server.scheme(), with_port(server.host(), server.port()))
        };
        Destination::among(self.servers.iter().map(place))
            .named("subject", &self.subject)
            .maybe_named("stream", self.stream.as_ref().map(|stream| stream.name.as_str()))
    }

    /// With as many replicas as its stream is set up to have.
    fn replicates(&self) -> bool {
        true
    }

    fn open(&self, _name: &str, timeout: Duration) -> Result<Arc<dyn Sink>, OpenError> {
        Ok(Arc::new(Nats::new(self.clone(), timeout)))
    }
}

impl Sink for Nats {
    fn nature(&self) -> Nature {
        Nature::PARALLEL
    }

    fn deliver<'a>(&'a self, batch: &'a [Event]) -> BoxFuture<'a, Delivered> {
        Box::pin(async move { self.publish_all(batch).await.unwrap_or_else(Delivered::None) })
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let link = self.link().await?;
            // Any answer tells that the server is there, also one that refuses this question.
            let asked = async { link.context.query_account().await.map(drop) };
            let begun = link.trust.begin();
            let heard = within(self.timeout, async {
                match asked.await.map_err(|error| error.kind()) {
                    Ok(()) | Err(AccountErrorKind::JetStream(_)) => Ok(()),
                    Err(AccountErrorKind::JetStreamUnavailable) => Err(misconfigured(NO_JETSTREAM)),
                    Err(_) if link.refused.get().is_some() => Ok(()),
                    Err(_) => Err(Failure::temporary("the server does not answer")),
                }
            })
            .await;
            begun.end(std::slice::from_ref(&heard));
            heard
        })
    }
}

fn headers(event: &Event) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if event.pass != Pass::Replay {
        headers.insert(MESSAGE_ID, event.idempotency_key());
    }
    for (name, value) in about(event) {
        headers.insert(name, one_line(&value));
    }
    headers
}

/// A value that cannot end its header: the sender may have chosen it, and the client panics at a
/// line end.
fn one_line(value: &str) -> String {
    value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn misconfigured(reason: impl Into<String>) -> Failure {
    Failure::new(Class::Misconfigured, reason.into())
}

fn of_connect(error: &ConnectError) -> Failure {
    match error.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            misconfigured("the server refuses the credentials")
        }
        ConnectErrorKind::ServerParse => misconfigured("the server's address is no address"),
        _ => unconnected(error),
    }
}

fn of_stream(error: &CreateStreamError) -> Failure {
    match error.kind() {
        CreateStreamErrorKind::JetStream(answer) => of_answer(&answer),
        CreateStreamErrorKind::JetStreamUnavailable => misconfigured(NO_JETSTREAM),
        CreateStreamErrorKind::EmptyStreamName | CreateStreamErrorKind::InvalidStreamName => {
            misconfigured("the stream's name is no name of a stream")
        }
        _ => Failure::temporary(format!(
            "the stream could not be made: {}",
            words(&error.to_string())
        )),
    }
}

/// An answer of `JetStream` itself. Its text names streams and limits, never a payload.
fn of_answer(answer: &jetstream::Error) -> Failure {
    let reason = format!("the server answers: {}", words(&answer.to_string()));
    let class = match answer.error_code() {
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => {
            Class::Permanent
        }
        ErrorCode::INSUFFICIENT_RESOURCES
        | ErrorCode::STORAGE_RESOURCES_EXCEEDED
        | ErrorCode::TEMP_STORAGE_FAILED
        // Also of a stream that is full and keeps what it has.
        | ErrorCode::STREAM_STORE_FAILED => Class::Overloaded,
        _ if answer.code() >= 500 => Class::Temporary,
        _ => Class::Misconfigured,
    };
    Failure::new(class, reason)
}
