//! What every sink is: it takes a batch, and says of each event what became of it.
//!
//! A sink knows nothing of cursors, retries, rates or order: the engine does all of that, the same
//! for every sink. What a sink must know is its counterpart: how a batch is handed over, which
//! answers are final, and how a batch that came twice is known there.

use std::borrow::Cow;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_log::{Key, Position, Record, Tag};
use futures_util::future::BoxFuture;
use tokio::sync::watch;

/// A destination of events. One value serves all batches, at once if its [`Nature`] allows that.
pub trait Sink: fmt::Debug + Send + Sync {
    /// What the engine must know of it.
    fn nature(&self) -> Nature;

    /// Hands over a batch, never an empty one.
    ///
    /// A batch may have been handed over before, in part or in whole, without an answer that
    /// arrived; it then consists of the same events or of some of them. A future that is dropped
    /// leaves the outcome open in the same way.
    fn deliver<'a>(&'a self, batch: &'a [Event]) -> BoxFuture<'a, Delivered>;

    /// As [`Sink::deliver`], for a batch whose turn comes later, because the one before it is
    /// under way. What asks nothing of the destination is done meanwhile, and all else behind
    /// `turn`: a future that is dropped before has done nothing.
    ///
    /// Who makes bytes for long does so in pieces, with `tokio::task::yield_now` in between: the
    /// batch before is written by the same thread.
    fn deliver_in_turn<'a>(&'a self, batch: &'a [Event], turn: Turn) -> BoxFuture<'a, Delivered> {
        Box::pin(async move {
            turn.come().await;
            self.deliver(batch).await
        })
    }

    /// Asks whether the destination can take anything, and changes nothing there.
    fn probe(&self) -> BoxFuture<'_, Result<(), Failure>>;
}

/// How a sink wants to be fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nature {
    /// One batch of a lane at a time, and each event only after the destination has all before it:
    /// positions grow at the destination, which knows by that what came twice.
    pub sequential: bool,
    /// More events than this the destination does not take at once.
    pub events_max: usize,
    /// More payload bytes than this it does not take at once; an event above it alone is tried.
    pub bytes_max: usize,
}

impl Nature {
    /// Any number of batches at once, of any size that the configuration allows.
    pub const PARALLEL: Self =
        Self { sequential: false, events_max: usize::MAX, bytes_max: usize::MAX };
    /// One batch after the other.
    pub const SEQUENTIAL: Self = Self { sequential: true, ..Self::PARALLEL };
}

/// When a batch may go.
#[derive(Clone, Debug)]
pub struct Turn(Option<watch::Receiver<bool>>);

impl Turn {
    /// At once.
    pub const NOW: Self = Self(None);

    /// One that has not come, and what lets it come.
    pub fn later() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(Some(receiver)))
    }

    /// Waits for it; for ever if it was taken back.
    pub async fn come(self) {
        let Self(Some(mut receiver)) = self else { return };
        if receiver.wait_for(|come| *come).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// The destination has all of it.
    All,
    /// One verdict for each event, in the order of the batch.
    Each(Vec<Result<(), Failure>>),
    /// None of it, or nobody knows: the same for every event.
    None(Failure),
}

/// Why the destination does not have an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{class}: {reason}")]
pub struct Failure {
    /// What follows from it.
    pub class: Class,
    /// What the destination said, without payloads or credentials; for logs and dead letters.
    pub reason: Cow<'static, str>,
    /// When the destination wants to be asked again.
    pub retry_after: Option<Duration>,
}

/// What follows from a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// It may work later: no connection, a timeout, an error of the destination's own.
    Temporary,
    /// As temporary, and the destination has asked for less.
    Overloaded,
    /// This event will never be taken: it becomes a dead letter.
    Permanent,
    /// The sink is set up wrongly (a credential, a name): no event is at fault, so none is given
    /// up, and a person has to act.
    Misconfigured,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 4] =
        [Self::Temporary, Self::Overloaded, Self::Permanent, Self::Misconfigured];

    /// The value of the label `class`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Temporary => "temporary",
            Self::Overloaded => "overloaded",
            Self::Permanent => "permanent",
            Self::Misconfigured => "misconfigured",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl Failure {
    /// A failure of this class.
    pub fn new(class: Class, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { class, reason: reason.into(), retry_after: None }
    }

    /// One that may pass.
    pub fn temporary(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Class::Temporary, reason)
    }

    /// One that will not.
    pub fn permanent(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Class::Permanent, reason)
    }
}

/// Why an event is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// It is the event's turn in its lane.
    Live,
    /// An operator has asked for it once more.
    Replay,
    /// It was a dead letter.
    Redrive,
}

/// One event on its way to a sink. A clone costs a count: what it carries is shared, and whoever
/// changes that gets one of its own.
#[derive(Clone, Debug)]
pub struct Event {
    carried: Arc<Carried>,
    /// How often it was handed over before.
    pub attempts: u32,
}

/// What an event carries, whoever holds it.
#[derive(Clone, Debug)]
pub struct Carried {
    /// The lane that it is in.
    pub lane: Arc<str>,
    /// The record, its segment kept mapped.
    pub record: Record,
    /// What the sink's shape has made of it; none: the body is delivered as it was received.
    pub made: Option<Bytes>,
    /// The media type of the payload.
    pub content_type: Cow<'static, str>,
    /// Events of one order key go one after the other; none: in any order.
    pub order_key: Option<u64>,
    /// Why it is on its way.
    pub pass: Pass,
}

impl Deref for Event {
    type Target = Carried;

    fn deref(&self) -> &Carried {
        &self.carried
    }
}

impl DerefMut for Event {
    fn deref_mut(&mut self) -> &mut Carried {
        Arc::make_mut(&mut self.carried)
    }
}

impl Event {
    /// One that was not handed over yet.
    pub fn new(carried: Carried) -> Self {
        Self { carried: Arc::new(carried), attempts: 0 }
    }

    /// What is delivered.
    pub fn payload(&self) -> &[u8] {
        self.made.as_deref().unwrap_or_else(|| self.record.get().body())
    }

    /// The same, for who hands it on: it keeps the segment mapped instead of being copied.
    pub fn payload_bytes(&self) -> Bytes {
        self.made.clone().unwrap_or_else(|| body_of(&self.record))
    }

    /// Where it is in its lane. Grows with every event of the lane, and never changes.
    pub fn position(&self) -> Position {
        self.record.get().position()
    }

    /// The fingerprint of its event key: the same for all deliveries of one event, and on all
    /// forebays that share a `dedupe.key`.
    pub fn key(&self) -> Key {
        self.record.get().key()
    }

    /// A name for the event that is the same whenever and from wherever it is delivered, for a
    /// destination that forgets what came twice: 32 hexadecimal digits.
    pub fn idempotency_key(&self) -> String {
        self.key().to_string()
    }

    /// When the request arrived, nanoseconds since the unix epoch.
    pub fn received_ns(&self) -> u64 {
        self.record.get().received_ns()
    }

    /// What the record says under this tag, as text.
    pub fn field(&self, tag: Tag) -> Option<Cow<'_, str>> {
        self.record.get().meta().get(tag).map(String::from_utf8_lossy)
    }
}

/// The body of a record as it lies in its segment.
pub fn body_of(record: &Record) -> Bytes {
    #[derive(Debug)]
    struct Body(Record);
    impl AsRef<[u8]> for Body {
        fn as_ref(&self) -> &[u8] {
            self.0.get().body()
        }
    }
    Bytes::from_owner(Body(record.clone()))
}
