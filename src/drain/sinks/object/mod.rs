//! Object stores and folders: each batch an object, of lines of JSON or as a Parquet file.
//!
//! **Effect: once.** An object is named by the position of its first event and is only ever
//! created (`If-None-Match: *`), never written over. A batch that comes again, after a crash or
//! because an answer was lost, begins with the event that the first object behind the cursor
//! begins with. So its object has the same name, however the batch was cut this time, and the
//! store says that it is there. It is read back, its last event tells how far it goes, and what
//! lies behind that goes into the next object. A request that arrives late, from a process that is
//! long dead, meets the same name and is refused.
//!
//! Where an object goes further than the batch that has met it, the cursor is about to stand in
//! the middle of it, and a process that starts there could not know its name. So a mark of how far
//! it goes is left first: an empty object in a folder of its own. A process looks for the marks of
//! a lane before it writes of it.
//!
//! All of this holds while a repeated batch begins with the same event, so it needs the same
//! selection, prefix and format behind a crash as before it; and a store that keeps the condition.
//! One that ignores it overwrites an object by another that begins alike. An event that became a
//! dead letter because no answer came within `retry.horizon` may be in an object all the same.
//!
//! A replay or a redrive is an object of its own each time, with a name that tells it: at least
//! once. No store refuses an event for what is in it, so none becomes a dead letter for that.

mod failure;
mod ndjson;
mod parquet;
mod place;
mod store;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_log::Position;
use futures_util::future::BoxFuture;
use futures_util::stream::TryStreamExt as _;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

pub use self::place::{Prefix, PrefixError};

use self::failure::of_error;
use self::place::{Names, position_of_mark};
use super::answer::{patience, timed_out, within};
use super::{Destination, Kind, OpenError};
use crate::drain::sink::{Class, Delivered, Event, Failure, Nature, Pass, Sink};
use crate::verify::SecretText;

/// Events of one object.
const BATCH_EVENTS_MAX: usize = 100_000;
/// Payload bytes of one object, which is made in memory.
const BATCH_BYTES_MAX: usize = 1 << 30;
/// No object of this sink is larger: one that is was written by somebody else.
const OBJECT_BYTES_MAX: u64 = 2 << 30;

/// Where events go, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What holds the objects.
    pub bucket: Bucket,
    /// The folder in it that everything is under.
    pub base: Path,
    /// Where the store is, if not where its maker has it.
    pub endpoint: Option<String>,
    /// The region of the bucket.
    pub region: Option<String>,
    /// Who forebay is; none: what the environment or the machine says.
    pub access_key: Option<String>,
    /// How it proves that.
    pub secret_key: Option<SecretText>,
    /// What belongs to a key that holds for a while.
    pub session_token: Option<SecretText>,
    /// Authorities beside those that the system trusts.
    pub ca_pem: Option<Vec<u8>>,
    /// Whether an endpoint without TLS is used.
    pub allow_http: bool,
    /// What an object is.
    pub format: Format,
    /// The level of zstd; 0 does not compress.
    pub level: i32,
    /// The folders of the objects.
    pub prefix: Prefix,
}

/// What holds the objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// A bucket of S3 or of what speaks its language.
    S3(String),
    /// A bucket of Google Cloud Storage.
    Gcs(String),
    /// A container of Azure Blob Storage.
    Azure(String),
    /// A folder of this machine; the base is its path.
    Folder,
}

/// As the URL of a sink begins.
impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3(name) => write!(f, "s3://{name}"),
            Self::Gcs(name) => write!(f, "gs://{name}"),
            Self::Azure(name) => write!(f, "az://{name}"),
            Self::Folder => f.write_str("file://"),
        }
    }
}

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines of JSON.
    Ndjson,
    /// Rows of a Parquet file.
    Parquet,
}

/// The sink.
pub struct Object {
    store: Arc<dyn ObjectStore>,
    names: Names,
    format: Format,
    level: i32,
    timeout: Duration,
    /// How far the objects of each lane go, as far as this process knows.
    lanes: Mutex<BTreeMap<[u8; 16], Option<Position>>>,
}

/// A client would show its credentials.
impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object").field("names", &self.names).finish_non_exhaustive()
    }
}

/// What became of an object that was to be created.
enum Created {
    /// It was.
    New,
    /// There is one of its name.
    Was,
}

impl Object {
    /// A sink of this name that has asked its store for nothing yet; a batch may take so long.
    pub fn new(settings: &Settings, name: &str, timeout: Duration) -> Result<Self, OpenError> {
        let timeout = patience(timeout);
        let store = store::open(settings, timeout)
            .map_err(|error| OpenError(format!("[sink.object]: {error}")))?;
        let suffix = match (settings.format, settings.level) {
            (Format::Ndjson, 0) => ".ndjson",
            (Format::Ndjson, _) => ".ndjson.zst",
            (Format::Parquet, _) => ".parquet",
        };
        let (base, prefix) = (settings.base.clone(), settings.prefix.clone());
        let names = Names { base, sink: name.to_owned(), prefix, suffix };
        let (format, level) = (settings.format, settings.level);
        Ok(Self { store, names, format, level, timeout, lanes: Mutex::default() })
    }

    /// Brings events into objects until all are there or one is not. Returns how many are.
    async fn bring(&self, batch: &[Event]) -> (usize, Option<Failure>) {
        let deadline = Instant::now() + self.timeout;
        let mut there = 0;
        while let Some(rest) = batch.get(there..).filter(|rest| !rest.is_empty()) {
            let brought = timeout_at(deadline, self.bring_some(rest)).await;
            match brought.unwrap_or_else(|_| Err(timed_out(self.timeout))) {
                Ok(count) => there += count,
                Err(failure) => return (there, Some(failure)),
            }
        }
        (there, None)
    }

    /// Brings the first of these, or finds them there. Returns how many that are.
    async fn bring_some(&self, rest: &[Event]) -> Result<usize, Failure> {
        let together = rest.get(..self.names.prefix.together(rest)).unwrap_or_default();
        let (Some(first), Some(end)) = (together.first(), rest.last()) else { return Ok(0) };
        if first.pass != Pass::Live {
            return self.bring_again(first, together).await;
        }
        let lane_id = first.record.get().lane_id();
        let there = up_to(self.covered(lane_id).await?, together);
        if there > 0 {
            return Ok(there);
        }
        let name = self.names.object(first);
        let last = match self.create(&name, together).await? {
            Created::New => together.last().map_or(first.position(), Event::position),
            Created::Was => self.last_of(&name, first.position()).await?,
        };
        if last > end.position() {
            self.leave_mark(lane_id, last).await?;
        }
        self.lanes.lock().await.insert(lane_id, Some(last));
        Ok(up_to(Some(last), together))
    }

    /// What an operator has asked for is an object of its own.
    async fn bring_again(&self, first: &Event, together: &[Event]) -> Result<usize, Failure> {
        match self.create(&self.names.again(first, number()), together).await? {
            Created::New => Ok(together.len()),
            Created::Was => Err(Failure::temporary("the name of the replay is taken")),
        }
    }

    /// How far the objects of a lane go; for the first time, what its marks say.
    async fn covered(&self, lane_id: [u8; 16]) -> Result<Option<Position>, Failure> {
        if let Some(covered) = self.lanes.lock().await.get(&lane_id) {
            return Ok(*covered);
        }
        let marks = self.store.list(Some(&self.names.marks(lane_id)));
        let marks: Vec<_> = marks.try_collect().await.map_err(|error| of_error(&error))?;
        let covered = marks.iter().filter_map(|mark| position_of_mark(&mark.location)).max();
        self.lanes.lock().await.insert(lane_id, covered);
        Ok(covered)
    }

    async fn create(&self, name: &Path, events: &[Event]) -> Result<Created, Failure> {
        let (format, level, events) = (self.format, self.level, events.to_vec());
        // On a thread of its own: other sinks share this one.
        let encoded = tokio::task::spawn_blocking(move || encode(format, level, &events)).await;
        let encoded = encoded.map_err(|error| error.to_string()).flatten();
        let object =
            encoded.map_err(|why| Failure::temporary(format!("cannot make the object: {why}")))?;
        self.put(name, object.into()).await
    }

    async fn put(&self, name: &Path, object: PutPayload) -> Result<Created, Failure> {
        let options = PutOptions::from(PutMode::Create);
        match self.store.put_opts(name, object, options).await {
            Ok(_) => Ok(Created::New),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Created::Was),
            Err(error) => Err(of_error(&error)),
        }
    }

    /// How far an object goes that a store says is there.
    async fn last_of(&self, name: &Path, first: Position) -> Result<Position, Failure> {
        let found = match self.store.get(name).await {
            // S3 says so as well of two requests at once, of which none may have been taken.
            Err(Error::NotFound { .. }) => {
                let reason = "the store reports a conflict over an object that it does not have";
                return Err(Failure::temporary(reason));
            }
            found => found.map_err(|error| of_error(&error))?,
        };
        let foreign = || {
            let reason = format!("{name} was not written by this sink");
            Failure::new(Class::Misconfigured, reason)
        };
        if found.meta.size > OBJECT_BYTES_MAX {
            return Err(foreign());
        }
        let object = found.bytes().await.map_err(|error| of_error(&error))?;
        let (format, level) = (self.format, self.level);
        let last = tokio::task::spawn_blocking(move || last(format, level, &object)).await;
        let last = last.ok().flatten();
        last.filter(|last| *last >= first).ok_or_else(foreign)
    }

    /// Leaves a mark that the lane's objects go this far; the furthest is the one that counts.
    async fn leave_mark(&self, lane_id: [u8; 16], at: Position) -> Result<(), Failure> {
        self.put(&self.names.mark(lane_id, at), PutPayload::default()).await.map(drop)
    }
}

/// How many of these events are known to be in objects.
fn up_to(covered: Option<Position>, events: &[Event]) -> usize {
    events.partition_point(|event| Some(event.position()) <= covered)
}

fn encode(format: Format, level: i32, events: &[Event]) -> Result<Vec<u8>, String> {
    match format {
        Format::Ndjson => ndjson::encode(events, level).map_err(|error| error.to_string()),
        Format::Parquet => parquet::encode(events, level).map_err(|error| error.to_string()),
    }
}

/// The position of an object's last event; none: it is not one of this sink's.
fn last(format: Format, level: i32, object: &Bytes) -> Option<Position> {
    match format {
        Format::Ndjson => ndjson::last(object, level).ok().flatten(),
        Format::Parquet => parquet::last(object).ok().flatten(),
    }
}

/// Tells one replay from the next.
fn number() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness the store finds the second name taken, and says so.
    _ = SystemRandom::new().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

impl Kind for Settings {
    fn word(&self) -> &'static str {
        "object"
    }

    fn destination(&self) -> Destination {
        let (bucket, base) = (&self.bucket, self.base.as_ref());
        let slash = if base.is_empty() { "" } else { "/" };
        Destination::at(format_args!("{bucket}{slash}{base}"))
            .maybe_named("endpoint", self.endpoint.as_deref())
            .maybe_named("region", self.region.as_deref())
            .named("prefix", &self.prefix)
    }

    fn open(&self, name: &str, timeout: Duration) -> Result<Arc<dyn Sink>, OpenError> {
        Ok(Arc::new(Object::new(self, name, timeout)?))
    }
}

impl Sink for Object {
    fn nature(&self) -> Nature {
        Nature { events_max: BATCH_EVENTS_MAX, bytes_max: BATCH_BYTES_MAX, ..Nature::SEQUENTIAL }
    }

    fn deliver<'a>(&'a self, batch: &'a [Event]) -> BoxFuture<'a, Delivered> {
        Box::pin(async move {
            match self.bring(batch).await {
                (_, None) => Delivered::All,
                (0, Some(failure)) => Delivered::None(failure),
                (there, Some(failure)) => {
                    let verdict = |index| if index < there { Ok(()) } else { Err(failure.clone()) };
                    Delivered::Each((0..batch.len()).map(verdict).collect())
                }
            }
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(within(self.timeout, async {
            let marks = self.store.list_with_delimiter(Some(&self.names.all_marks())).await;
            marks.map(drop).map_err(|error| of_error(&error))
        }))
    }
}
