//! `RabbitMQ` by AMQP 0-9-1: each event a message of an exchange, confirmed by the server.
//!
//! **Effect: at least once.** A message counts as delivered once the server has confirmed it, which
//! for a durable queue means that it is on the queue's medium. A batch whose outcome nobody knows
//! (no confirm in time, a lost connection, forebay killed) is published again, and may be there
//! twice. `message-id` is the event's key, the same for all deliveries of one event, also by all
//! forebays that share a `dedupe.key`.
//!
//! Messages are persistent and `mandatory`: one that no queue takes comes back and counts as not
//! delivered. No event is given up for that, since binding a queue mends it, and the others of its
//! batch are not held up. Nothing is declared at the server; what is there is its operator's.
//!
//! Messages of a batch are published in their order on a channel that is theirs alone, without
//! waiting, then all confirms are awaited. Of one key only one event is ever under way, so that what
//! was refused overtakes nothing and is overtaken by nothing of its key. A server ends a whole
//! channel for one message (too large, a routing key that the user may not use); what it has not
//! confirmed then goes again, one message at a time, and the one at fault stands alone.
//!
//! A server that runs out of memory or disk stops reading from those who publish, and says so. Until
//! it takes that back the sink keeps that connection and publishes nothing: a new one would only
//! fill the next socket.

mod attempt;
mod failure;
mod link;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustls::ClientConfig;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::answer::{gathered, patience, within};
use super::destination::with_port;
use super::template::Template;
use super::{Destination, Kind, OpenError};
use crate::drain::sink::{Delivered, Event, Failure, Nature, Sink};
use crate::verify::SecretText;
use attempt::{Attempt, Said};
use link::Link;

/// Where events go, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Servers of one cluster; the first that answers is taken.
    pub servers: Vec<Server>,
    /// The virtual host, of at most 255 bytes.
    pub vhost: String,
    /// Who forebay is.
    pub user: String,
    /// The user's password.
    pub password: SecretText,
    /// Whose certificates hold.
    pub tls: Arc<ClientConfig>,
    /// The exchange, of at most 255 bytes; empty: the one that routes by the names of queues.
    pub exchange: String,
    /// The routing key of an event.
    pub routing_key: Template,
    /// How often either side says that it is there.
    pub heartbeat: Duration,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether the connection is encrypted.
    pub tls: bool,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The sink.
#[derive(Debug)]
pub struct RabbitMq {
    settings: Settings,
    timeout: Duration,
    link: Mutex<Option<Arc<Link>>>,
}

impl RabbitMq {
    /// A sink that is not connected yet; a batch may take so long.
    pub fn new(settings: Settings, timeout: Duration) -> Self {
        Self { settings, timeout: patience(timeout), link: Mutex::new(None) }
    }

    /// The connection, made if there is none that holds.
    async fn link(&self) -> Result<Arc<Link>, Failure> {
        let mut slot = self.link.lock().await;
        if let Some(link) = slot.as_ref().filter(|link| link.is_up()) {
            if link.is_blocked() {
                return Err(failure::blocked());
            }
            if link.trust.holds() {
                return Ok(Arc::clone(link));
            }
        }
        *slot = None;
        let link = within(self.timeout, self.connect()).await?;
        Ok(Arc::clone(slot.insert(Arc::new(link))))
    }

    /// To the first server that lets forebay in. One that does not answer leaves time for the next.
    async fn connect(&self) -> Result<Link, Failure> {
        let servers = &self.settings.servers;
        let each = self.timeout / u32::try_from(servers.len()).unwrap_or(u32::MAX).max(1);
        let mut why = Failure::temporary("there is no server to connect to");
        for server in servers {
            match within(each, Link::open(server, &self.settings, each)).await {
                Ok(link) => return Ok(link),
                Err(failure) => {
                    let reason = format!("{server}: {}", failure.reason);
                    why = Failure { reason: reason.into(), ..failure };
                }
            }
        }
        Err(why)
    }

    async fn publish_all(&self, batch: &[Event]) -> Result<Delivered, Failure> {
        let link = self.link().await?;
        let begun = link.trust.begin();
        let deadline = Instant::now() + self.timeout;
        let attempt = Attempt { link: &link, settings: &self.settings, batch, deadline };
        let mut said = attempt.run(0..batch.len()).await;
        if said.iter().any(Said::is_about_one) {
            // The channel ended with one of them, and whose fault it was nobody says.
            let unsaid = said.iter_mut().enumerate().filter(|(_, said)| said.is_no_confirm());
            for (index, said) in unsaid {
                if let Some(alone) = attempt.run(index..index + 1).await.pop() {
                    *said = alone;
                }
            }
        }
        // Of nothing that was published on the connection it is open what became of it.
        if !said.iter().any(Said::is_open) {
            begun.end(&[]);
        }
        let verdicts = batch.iter().zip(said).map(|(event, said)| match said {
            Said::Taken => Ok(()),
            said => Err(failure::of(&said, event, &self.settings, (&link, self.timeout))),
        });
        Ok(gathered(verdicts.collect()))
    }
}

impl Kind for Settings {
    fn word(&self) -> &'static str {
        "rabbitmq"
    }

    fn destination(&self) -> Destination {
        let place = |server: &Server| {
            let scheme = if server.tls { "amqps" } else { "amqp" };
            format!("{scheme}://{}", with_port(&server.host, server.port))
        };
        Destination::among(self.servers.iter().map(place))
            .named("vhost", &self.vhost)
            .named("exchange", &self.exchange)
            .named("routing_key", &self.routing_key)
    }

    fn open(&self, _name: &str, timeout: Duration) -> Result<Arc<dyn Sink>, OpenError> {
        Ok(Arc::new(RabbitMq::new(self.clone(), timeout)))
    }
}

impl Sink for RabbitMq {
    fn nature(&self) -> Nature {
        Nature::PARALLEL
    }

    fn deliver<'a>(&'a self, batch: &'a [Event]) -> BoxFuture<'a, Delivered> {
        Box::pin(async move { self.publish_all(batch).await.unwrap_or_else(Delivered::None) })
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let link = self.link().await?;
            let begun = link.trust.begin();
            // The server answers to a channel, and keeps nothing of it.
            let opened =
                async { link.new_channel().await.map_err(|error| failure::of_error(&error)) };
            let heard = within(self.timeout, opened).await.map(drop);
            begun.end(std::slice::from_ref(&heard));
            heard
        })
    }
}
