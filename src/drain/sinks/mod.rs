//! The sinks: one file for each kind of destination.
//!
//! A kind is its `Settings`, which `src/config/sink/KIND.rs` checks, and a [`Sink`] that is made of
//! them when the drain starts, as [`Kind`] says. Each has a cargo feature, `sink-KIND`.

pub mod about;
pub mod answer;
pub mod parts;
mod template;
pub mod trust;
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
#[cfg(feature = "sink-stdout")]
pub mod stdout;
#[cfg(feature = "sink-file")]
pub mod file;
#[cfg(feature = "sink-http")]
pub mod http;
mod destination;
pub mod line;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::sink::Sink;
pub use destination::Destination;
pub use template::{Template, TemplateError};

/// One kind of sink, with all that one sink of it needs, checked.
pub trait Kind: Any + fmt::Debug + Send + Sync {
    /// The word of its table.
    fn word(&self) -> &'static str;

    /// Where it sends.
    fn destination(&self) -> Destination;

    /// Whether its answer means that an event is kept elsewhere, so that a lane may replicate to it.
    ///
    /// Of most it does not: a database may have replicas, and its answer does not say so; a queue
    /// keeps an event until a consumer has taken it; a batch of objects is too long a wait for a
    /// sender.
    fn replicates(&self) -> bool {
        false
    }

    /// Makes the sink of this name, whose batches may take so long. Called inside the drain's
    /// runtime; must not wait for the destination, which may be away when forebay starts.
    fn open(&self, name: &str, timeout: Duration) -> Result<Arc<dyn Sink>, OpenError>;
}

/// Why a sink cannot be made. A destination that cannot be reached is no such reason.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(pub String);
