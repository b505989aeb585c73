//! Lane -> events of one sink: a thread that reads, and waits where the sink is full.
//!
//! A feed holds no more payload bytes than its part of the sink's memory: each event carries a
//! permit for what it takes, which comes back when it has settled. Bodies are not copied: an event
//! keeps its segment mapped.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use forebay_log::{From, HeaderValue, Kind, Place, ReadError, Reader, Record, RecordRef, Tag};
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::order::Order;
use super::sink::{Carried, Event, Failure, Nature, Pass};
use crate::config::SinkConfig;

/// A permit stands for so many bytes, and an event takes at least one: small events cost memory
/// as well.
const PERMIT_BYTES: usize = 1024;
/// Events that are handed on together.
const TOGETHER_MAX: usize = 256;
/// How long a wait for the next record lasts before the feed looks whether it should end.
const WAIT: Duration = Duration::from_millis(100);
/// How long a feed rests after the log could not be read.
const REST: Duration = Duration::from_secs(1);

/// What is made of a record, or none where its body goes as it is; and the media type.
pub type Payload = (Option<Bytes>, Cow<'static, str>);

/// Makes of a record what a sink is handed.
pub trait Shaping: std::fmt::Debug + Send + Sync {
    /// What is handed over of a record of this lane; none: it is nothing for the sink. One that
    /// cannot be shaped becomes a dead letter.
    fn apply(&self, record: &Record, lane: &str) -> Result<Option<Payload>, Failure>;
}

/// The body as it was received.
#[derive(Clone, Copy, Debug)]
pub struct Raw;

impl Shaping for Raw {
    fn apply(&self, record: &Record, _lane: &str) -> Result<Option<Payload>, Failure> {
        Ok(Some((None, content_type_of(&record.get()))))
    }
}

/// The media type that the sender gave.
pub fn content_type_of(record: &RecordRef<'_>) -> Cow<'static, str> {
    let found = record.meta().headers().find_map(|(name, value)| match value {
        HeaderValue::Bytes(bytes) if name.eq_ignore_ascii_case(b"content-type") => {
            std::str::from_utf8(bytes).ok()
        }
        _ => None,
    });
    match found {
        None | Some("") => Cow::Borrowed("application/octet-stream"),
        Some("application/json") => Cow::Borrowed("application/json"),
        Some(text) => Cow::Owned(text.to_owned()),
    }
}

/// An event as a feed hands it on.
#[derive(Debug)]
pub(super) struct Fed {
    pub(super) event: Event,
    /// Where a reader must stand to see it next.
    pub(super) before: Place,
    /// Why it cannot be handed over.
    pub(super) unshaped: Option<Box<Failure>>,
    /// What it takes of the sink's memory.
    pub(super) permit: OwnedSemaphorePermit,
}

/// What a feed tells the sink of a lane.
#[derive(Debug)]
pub(super) enum Told {
    /// It begins here.
    Begins(usize, Place),
    /// Events in the order of the lane, and how far the feed has come with them.
    Events(usize, Vec<Fed>, Progress),
    /// There is no more.
    Ends(usize),
}

/// How far a feed has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    pub(super) place: Place,
    /// Records that were read, of whatever kind, and their bytes in the log.
    pub(super) records: u64,
    pub(super) bytes: u64,
}

/// Which records a feed hands on, beside what its shape says.
pub(super) type Wanted = Box<dyn Fn(&Record) -> bool + Send>;

/// The feed of one lane for one sink.
pub(super) struct Feed {
    /// The lane among those of the sink.
    pub(super) lane: usize,
    pub(super) name: Arc<str>,
    pub(super) shape: Arc<dyn Shaping>,
    pub(super) order: Order,
    pub(super) pass: Pass,
    pub(super) wanted: Option<Wanted>,
    /// It ends before this offset; none: it follows the lane.
    pub(super) end: Option<u64>,
    /// Permits of this lane.
    pub(super) memory: Arc<Semaphore>,
    pub(super) permits_max: usize,
    pub(super) sender: UnboundedSender<Told>,
    pub(super) runtime: Handle,
    pub(super) stop: Arc<AtomicBool>,
    /// Whether there is no use in reading: the sink is left alone, and what it took up waits.
    pub(super) resting: watch::Receiver<bool>,
    /// The place that was told last.
    pub(super) told: Option<Place>,
}

/// Batches that are held for a sequential sink at the most, of the largest that it takes: one in
/// flight, one that is made ready behind it, and one that comes together.
const SEQUENTIAL_BATCHES: usize = 3;

/// The permits of each of so many lanes: its part of the sink's memory. A sequential sink gets no
/// more of it than it has work for: what waits behind that is as well off in the log.
pub(super) fn permits_max(config: &SinkConfig, nature: Nature, lanes: usize) -> usize {
    let part = permits_of(config.memory_bytes_max / lanes.max(1) as u64);
    if !nature.sequential {
        return part;
    }
    let events = config.batch.events_max.min(nature.events_max);
    let bytes = config.batch.bytes_max.min(nature.bytes_max);
    // None takes more than one permit beside those of its bytes.
    let batch = permits_of(bytes as u64).saturating_add(events);
    part.min(batch.saturating_mul(SEQUENTIAL_BATCHES))
}

/// The permits that so many bytes of memory are.
fn permits_of(bytes: u64) -> usize {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    (bytes / PERMIT_BYTES).clamp(1, (u32::MAX >> 1) as usize)
}

impl Feed {
    /// Reads until it is told to stop, the sink is gone, or the end is reached.
    pub(super) fn run(mut self, mut reader: Reader) {
        drop(self.sender.send(Told::Begins(self.lane, reader.place())));
        let mut told = false;
        loop {
            self.rest();
            if self.stopped() {
                break;
            }
            match self.read(&mut reader) {
                Ok(true) => told = false,
                Ok(false) => break,
                Err(error) => {
                    if !told {
                        tracing::error!(lane = &*self.name, %error, "the drain cannot read; trying again");
                    }
                    told = true;
                    thread::sleep(REST);
                }
            }
        }
        drop(self.sender.send(Told::Ends(self.lane)));
    }

    pub(super) fn stopped(&self) -> bool {
        // Relaxed: a flag that orders nothing else.
        self.stop.load(Ordering::Relaxed)
    }

    /// Sleeps for as long as nothing that is read could be handed over: else each event that comes
    /// in meanwhile would take a core from the receivers twice, here and at the courier.
    fn rest(&mut self) {
        if *self.resting.borrow() {
            // Gone with the courier: what is told next finds that out.
            _ = self.runtime.block_on(self.resting.wait_for(|resting| !resting));
        }
    }

    /// Reads what there is, or waits for more; false at the end.
    fn read(&mut self, reader: &mut Reader) -> Result<bool, ReadError> {
        let mut batch = Vec::new();
        let mut progress = Progress { place: reader.place(), ..Progress::default() };
        while batch.len() < TOGETHER_MAX && !self.stopped() {
            let (before, from) = (reader.place(), reader.offset());
            let Some(record) = reader.next_held()? else {
                // It may have stepped into a segment that has no record yet.
                progress.place = reader.place();
                break;
            };
            if self.end.is_some_and(|end| record.get().position().offset() >= end) {
                self.tell(batch, progress);
                return Ok(false);
            }
            if let Some(event) = self.event(record) {
                let (event, unshaped) = event;
                let bytes = event.payload().len();
                let Some(permit) = self.permit(bytes, &mut batch, &mut progress) else {
                    return Ok(false);
                };
                batch.push(Fed { event, before, unshaped, permit });
            }
            progress.place = reader.place();
            progress.records += 1;
            progress.bytes += reader.offset().saturating_sub(from);
        }
        let nothing = batch.is_empty() && progress.records == 0;
        self.tell(batch, progress);
        if nothing && !reader.wait(WAIT)? && self.end.is_some() {
            // What was acknowledged when it began is there, or was stepped over.
            return Ok(false);
        }
        Ok(!self.sender.is_closed())
    }

    fn tell(&mut self, batch: Vec<Fed>, progress: Progress) {
        if !batch.is_empty() || progress.records > 0 || self.told != Some(progress.place) {
            self.told = Some(progress.place);
            drop(self.sender.send(Told::Events(self.lane, batch, progress)));
            // Where they share a core the sink works at once, and not when all memory is full.
            thread::yield_now();
        }
    }

    /// The event of a record, and why it could not be shaped.
    fn event(&self, record: Record) -> Option<(Event, Option<Box<Failure>>)> {
        let passes = self.wanted.as_ref().is_none_or(|wanted| wanted(&record));
        let read = record.get();
        if read.kind() != Kind::Event || !passes {
            return None;
        }
        let lane = self.lane_of(&read);
        let (payload, unshaped) = match self.shape.apply(&record, &lane) {
            Ok(None) => return None,
            Ok(Some(payload)) => (payload, None),
            Err(failure) => ((None, content_type_of(&read)), Some(failure)),
        };
        let (made, content_type) = payload;
        let order_key = self.order.key_of(&read);
        let pass = self.pass;
        let carried = Carried { lane, record, made, content_type, order_key, pass };
        Some((Event::new(carried), unshaped.map(Box::new)))
    }

    /// The lane that an event is in; a dead letter's is the one that it was in.
    fn lane_of(&self, record: &RecordRef<'_>) -> Arc<str> {
        let dead = self.pass == Pass::Redrive;
        let was = if dead { record.meta().get(Tag::DeadLane) } else { None };
        let was = was.and_then(|name| std::str::from_utf8(name).ok());
        was.map_or_else(|| Arc::clone(&self.name), Arc::from)
    }

    /// Waits until the sink has memory for so many bytes; nothing if it is gone.
    fn permit(
        &mut self,
        bytes: usize,
        batch: &mut Vec<Fed>,
        progress: &mut Progress,
    ) -> Option<OwnedSemaphorePermit> {
        // One that is larger than all of it takes all of it.
        let permits = (bytes / PERMIT_BYTES + 1).min(self.permits_max);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        if let Ok(permit) = Arc::clone(&self.memory).try_acquire_many_owned(permits) {
            return Some(permit);
        }
        // What is here must go on, or nothing would ever come back.
        self.tell(std::mem::take(batch), *progress);
        *progress = Progress { place: progress.place, ..Progress::default() };
        self.runtime.block_on(Arc::clone(&self.memory).acquire_many_owned(permits)).ok()
    }
}

/// A reader at the place of a cursor; the oldest record for a new one.
pub(super) fn reader_at(dir: &std::path::Path, place: Place) -> Result<Reader, ReadError> {
    let mut reader = Reader::open(dir)?;
    if place == Place::default() {
        reader.seek(From::Earliest)?;
    } else {
        reader.resume(place)?;
    }
    Ok(reader)
}
