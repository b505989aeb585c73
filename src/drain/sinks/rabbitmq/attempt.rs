//! Events of a batch, published once, in their order, and what the server says of each.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::ops::Range;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{MaybeDone, maybe_done};
use lapin::message::BasicReturnMessage;
use lapin::options::BasicPublishOptions;
use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Confirmation, ErrorKind, PublisherConfirm};
use tokio::time::{Instant, timeout_at};

use super::Settings;
use super::link::Link;
use crate::drain::sink::Event;
use crate::drain::sinks::about::about;

/// The longest text that AMQP calls short.
const SHORT_BYTES_MAX: usize = 255;
/// Kept through a restart of the server, if its queue is.
const PERSISTENT: u8 = 2;
/// It comes back if no queue takes it.
const MANDATORY: BasicPublishOptions = BasicPublishOptions { mandatory: true, immediate: false };
/// What the properties of a message weigh beside its headers, at the most.
const PROPERTIES_BYTES_MAX: usize = 1024;
/// What tells a message from all others of its batch.
const NAME: [&str; 2] = ["Forebay-Lane", "Forebay-Position"];

/// A batch, and what each attempt at it has in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt<'a> {
    pub(super) link: &'a Link,
    pub(super) settings: &'a Settings,
    pub(super) batch: &'a [Event],
    pub(super) deadline: Instant,
}

/// What became of a message.
#[derive(Clone, Debug)]
pub(super) enum Said {
    /// The server is responsible for it now.
    Taken,
    /// No queue takes it.
    Unroutable,
    /// The server says that it does not have it.
    Refused,
    /// What stands in front of its payload is larger than a frame, and was not sent.
    Overweight,
    /// The channel or the connection ended before a word about it, by this.
    Error(lapin::Error),
    /// Not a word in time.
    Nothing,
}

impl Said {
    /// The error by which the server has ended a channel.
    pub(super) fn soft_error(&self) -> Option<&AMQPError> {
        match self {
            Self::Error(error) => match error.kind() {
                ErrorKind::ProtocolError(why) => {
                    Some(why).filter(|why| matches!(why.kind(), AMQPErrorKind::Soft(_)))
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the channel has ended for one of its messages, where the others may fare better.
    pub(super) fn is_about_one(&self) -> bool {
        self.soft_error().is_some_and(|why| {
            let of_all = AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND);
            *why.kind() != of_all
        })
    }

    /// Whether the server has neither confirmed nor refused it.
    pub(super) fn is_no_confirm(&self) -> bool {
        matches!(self, Self::Error(_) | Self::Nothing)
    }

    /// Whether it may still be taken, behind what comes next.
    pub(super) fn is_open(&self) -> bool {
        self.is_no_confirm() && self.soft_error().is_none()
    }
}

impl Attempt<'_> {
    /// Publishes these events of the batch on a channel of their own, and says of each what became
    /// of it.
    pub(super) async fn run(&self, part: Range<usize>) -> Vec<Said> {
        let events = self.batch.get(part).unwrap_or_default();
        let all = |said: Said| vec![said; events.len()];
        if self.deadline <= Instant::now() {
            return all(Said::Nothing);
        }
        let channel = match timeout_at(self.deadline, self.link.channel()).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return all(Said::Error(error)),
            Err(_) => return all(Said::Nothing),
        };
        let mut writes = Vec::with_capacity(events.len());
        for event in events {
            let Some((key, properties)) = self.message(event) else {
                writes.push(None);
                continue;
            };
            let exchange = short(&self.settings.exchange);
            let write =
                channel.basic_publish(exchange, key, MANDATORY, event.payload(), properties);
            let mut write = Box::pin(maybe_done(write));
            // The first step puts it into the client's queue. To wait here for each to be written
            // would be a turn of the client's thread for each.
            poll_fn(|context| Poll::Ready(write.as_mut().poll(context).is_ready())).await;
            writes.push(Some(write));
        }
        let mut returned = BTreeSet::new();
        let mut said = Vec::with_capacity(events.len());
        for write in writes {
            said.push(match write {
                Some(write) => self.confirmed(write, &mut returned).await,
                None => Said::Overweight,
            });
        }
        let ended = said.iter().any(Said::is_no_confirm);
        for (event, said) in events.iter().zip(&mut said) {
            if !matches!(said, Said::Taken) {
                continue;
            }
            if returned.contains(&name_of(event)) {
                *said = Said::Unroutable;
            } else if ended && !returned.is_empty() {
                // The client tells what came back with a confirm of any other message, and here with
                // one that never came, perhaps.
                *said = Said::Nothing;
            }
        }
        if !ended {
            self.link.done_with(channel);
        }
        said
    }

    /// What the server says of a message. What came back with its confirm may be another one.
    async fn confirmed<F>(
        &self,
        mut write: Pin<Box<MaybeDone<F>>>,
        returned: &mut BTreeSet<Name>,
    ) -> Said
    where
        F: Future<Output = lapin::Result<PublisherConfirm>>,
    {
        if timeout_at(self.deadline, write.as_mut()).await.is_err() {
            return Said::Nothing;
        }
        let confirm = match write.as_mut().take_output() {
            Some(Ok(confirm)) => timeout_at(self.deadline, confirm).await,
            Some(Err(error)) => Ok(Err(error)),
            None => return Said::Nothing,
        };
        let (said, message) = match confirm {
            Ok(Ok(Confirmation::Ack(message))) => (Said::Taken, message),
            Ok(Ok(Confirmation::Nack(message))) => (Said::Refused, message),
            Ok(Ok(Confirmation::NotRequested)) | Err(_) => (Said::Nothing, None),
            Ok(Err(error)) => (Said::Error(error), None),
        };
        returned.extend(message.as_ref().and_then(name_of_returned));
        said
    }

    /// Its routing key and what it says of its event; none if that is larger than a frame.
    fn message(&self, event: &Event) -> Option<(ShortString, BasicProperties)> {
        let mut headers = FieldTable::default();
        let mut bytes = PROPERTIES_BYTES_MAX;
        for (name, value) in about(event) {
            bytes += name.len() + value.len() + size_of::<u64>();
            headers.insert(short(name), AMQPValue::LongString(value.into_owned().into()));
        }
        if bytes > self.link.frame_bytes_max() {
            return None;
        }
        let seconds = Duration::from_nanos(event.received_ns()).as_secs();
        let properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_message_id(short(&event.idempotency_key()))
            .with_content_type(short(&event.content_type))
            .with_timestamp(seconds)
            .with_app_id(short("forebay"))
            .with_headers(headers);
        Some((routing_key(self.settings, event), properties))
    }
}

/// The routing key of an event.
pub(super) fn routing_key(settings: &Settings, event: &Event) -> ShortString {
    short(&settings.routing_key.fill(event))
}

/// As much of a text as is called short.
fn short(text: &str) -> ShortString {
    let end = text.len().min(SHORT_BYTES_MAX);
    let cut = (0..=end).rev().find_map(|end| text.get(..end));
    ShortString::try_new(cut.unwrap_or_default()).unwrap_or_default()
}

/// The values under [`NAME`].
type Name = [Vec<u8>; 2];

fn name_of(event: &Event) -> Name {
    [event.lane.as_bytes().to_vec(), event.position().to_string().into_bytes()]
}

fn name_of_returned(message: &BasicReturnMessage) -> Option<Name> {
    let headers = message.delivery.properties.headers().as_ref()?;
    let value = |name| match headers.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.as_bytes().to_vec()),
        _ => None,
    };
    let [lane, position] = NAME;
    Some([value(lane)?, value(position)?])
}
