//! The sinks: one file for each kind of destination.
//!
//! A kind is its `Settings`, checked by `src/config/sink/KIND.rs`, a variant of [`Settings`] here,
//! and a [`Sink`] that is made of them when the drain starts.

#[cfg(any(
    feature = "sink-kafka",
    feature = "sink-nats",
    feature = "sink-pubsub",
    feature = "sink-rabbitmq",
    feature = "sink-sqs"
))]
mod about;
#[cfg(any(
    feature = "sink-kafka",
    feature = "sink-nats",
    feature = "sink-object",
    feature = "sink-postgres",
    feature = "sink-pubsub",
    feature = "sink-rabbitmq",
    feature = "sink-redis",
    feature = "sink-sqs"
))]
mod answer;
#[cfg(any(feature = "sink-pubsub", feature = "sink-sqs"))]
mod parts;
#[cfg(any(
    feature = "sink-kafka",
    feature = "sink-nats",
    feature = "sink-rabbitmq",
    feature = "sink-redis"
))]
mod template;
#[cfg(any(feature = "sink-nats", feature = "sink-rabbitmq", feature = "sink-redis"))]
mod trust;
#[cfg(feature = "sink-kafka")]
pub mod kafka;
#[cfg(feature = "sink-nats")]
pub mod nats;
#[cfg(feature = "sink-object")]
pub mod object;
#[cfg(feature = "sink-postgres")]
pub mod postgres;
#[cfg(feature = "sink-pubsub")]
pub mod pubsub;
#[cfg(feature = "sink-rabbitmq")]
pub mod rabbitmq;
#[cfg(feature = "sink-redis")]
pub mod redis;
#[cfg(feature = "sink-sqs")]
pub mod sqs;
pub mod stdout;
pub mod file;
pub mod http;
mod destination;
mod line;

use std::sync::Arc;
use std::time::Duration;

use super::sink::Sink;
pub use destination::Destination;
#[cfg(any(
    feature = "sink-kafka",
    feature = "sink-nats",
    feature = "sink-rabbitmq",
    feature = "sink-redis"
))]
pub use template::{Template, TemplateError};

/// What one kind of sink needs, checked.
#[derive(Clone, Debug)]
pub enum Settings {
    /// Records of a Kafka topic.
    #[cfg(feature = "sink-kafka")]
    Kafka(kafka::Settings),
    /// Messages of a NATS stream.
    #[cfg(feature = "sink-nats")]
    Nats(nats::Settings),
    /// Objects of a bucket or a folder.
    #[cfg(feature = "sink-object")]
    Object(Box<object::Settings>),
    /// Rows of a PostgreSQL table.
    #[cfg(feature = "sink-postgres")]
    Postgres(postgres::Settings),
    /// Messages of a topic of Google Cloud Pub/Sub.
    #[cfg(feature = "sink-pubsub")]
    PubSub(Box<pubsub::Settings>),
    /// Messages of an exchange of `RabbitMQ`.
    #[cfg(feature = "sink-rabbitmq")]
    RabbitMq(Box<rabbitmq::Settings>),
    /// Entries of a Redis stream.
    #[cfg(feature = "sink-redis")]
    Redis(redis::Settings),
    /// Messages of a queue of Amazon SQS.
    #[cfg(feature = "sink-sqs")]
    Sqs(Box<sqs::Settings>),
    /// Lines on standard output.
    Stdout(stdout::Settings),
    /// Lines in files.
    File(file::Settings),
    /// Requests to a URL.
    Http(Box<http::Settings>),
    /// The same as their senders make them; no table of the configuration says so.
    Resend(Box<http::resend::Settings>),
}

/// Why a sink cannot be made. A destination that cannot be reached is no such reason.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub String);

impl Settings {
    /// The word of its table.
    pub const fn kind(&self) -> &'static str {
        match self {
            #[cfg(feature = "sink-kafka")]
            Self::Kafka(_) => "kafka",
            #[cfg(feature = "sink-nats")]
            Self::Nats(_) => "nats",
            #[cfg(feature = "sink-object")]
            Self::Object(_) => "object",
            #[cfg(feature = "sink-postgres")]
            Self::Postgres(_) => "postgres",
            #[cfg(feature = "sink-pubsub")]
            Self::PubSub(_) => "pubsub",
            #[cfg(feature = "sink-rabbitmq")]
            Self::RabbitMq(_) => "rabbitmq",
            #[cfg(feature = "sink-redis")]
            Self::Redis(_) => "redis",
            #[cfg(feature = "sink-sqs")]
            Self::Sqs(_) => "sqs",
            Self::Stdout(_) => "stdout",
            Self::File(_) => "file",
            Self::Http(_) => "http",
            Self::Resend(_) => "resend",
        }
    }

    /// Whether its answer means that an event is kept elsewhere, so that a lane may replicate to it.
    pub const fn replicates(&self) -> bool {
        match self {
            // With as many replicas as their topic or stream is set up to have.
            #[cfg(feature = "sink-kafka")]
            Self::Kafka(_) => true,
            #[cfg(feature = "sink-nats")]
            Self::Nats(_) => true,
            // A batch of objects is too long a wait for a sender.
            #[cfg(feature = "sink-object")]
            Self::Object(_) => false,
            // They may have replicas; their answer does not say so.
            #[cfg(feature = "sink-postgres")]
            Self::Postgres(_) => false,
            #[cfg(feature = "sink-rabbitmq")]
            Self::RabbitMq(_) => false,
            #[cfg(feature = "sink-redis")]
            Self::Redis(_) => false,
            // Kept until a consumer has taken it, and no longer than the queue or the topic says.
            #[cfg(feature = "sink-pubsub")]
            Self::PubSub(_) => false,
            #[cfg(feature = "sink-sqs")]
            Self::Sqs(_) => false,
            Self::Stdout(_) | Self::File(_) | Self::Http(_) | Self::Resend(_) => false,
        }
    }

    /// Makes the sink of this name, whose batches may take so long. Called inside the drain's runtime; must not wait for the
    /// destination, which may be away when forebay starts.
    pub fn open(&self, name: &str, timeout: Duration) -> Result<Arc<dyn Sink>, OpenError> {
        _ = (name, timeout);
        match self {
            #[cfg(feature = "sink-kafka")]
            Self::Kafka(settings) => Ok(Arc::new(kafka::Kafka::new(settings.clone(), timeout))),
            #[cfg(feature = "sink-nats")]
            Self::Nats(settings) => Ok(Arc::new(nats::Nats::new(settings.clone(), timeout))),
            #[cfg(feature = "sink-object")]
            Self::Object(settings) => Ok(Arc::new(object::Object::new(settings, name, timeout)?)),
            #[cfg(feature = "sink-postgres")]
            Self::Postgres(settings) => {
                Ok(Arc::new(postgres::Postgres::new(settings.clone(), timeout)))
            }
            #[cfg(feature = "sink-pubsub")]
            Self::PubSub(settings) => Ok(Arc::new(pubsub::PubSub::new(settings, timeout)?)),
            #[cfg(feature = "sink-rabbitmq")]
            Self::RabbitMq(settings) => {
                Ok(Arc::new(rabbitmq::RabbitMq::new(settings.as_ref().clone(), timeout)))
            }
            #[cfg(feature = "sink-redis")]
            Self::Redis(settings) => Ok(Arc::new(redis::Redis::new(settings.clone(), timeout))),
            #[cfg(feature = "sink-sqs")]
            Self::Sqs(settings) => Ok(Arc::new(sqs::Sqs::new((**settings).clone(), timeout)?)),
            Self::Stdout(settings) => Ok(Arc::new(stdout::Stdout::new(settings))),
            Self::File(settings) => Ok(Arc::new(file::File::new(settings))),
            Self::Http(settings) => Ok(Arc::new(http::Http::new(settings)?)),
            Self::Resend(settings) => Ok(Arc::new(http::resend::Resend::new(settings)?)),
        }
    }
}
