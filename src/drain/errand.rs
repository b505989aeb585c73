//! Events of a time or a kind, once more to one sink: replay and redrive, beside live traffic.
//!
//! It is the drain of one sink without a cursor: it begins and ends where it is told, and what the
//! destination refuses for good is told back, not kept as a dead letter.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam::channel;
use forebay_log::{Clock, From, ReadError, Reader};
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, mpsc, watch};

use super::courier::{Courier, Lane, Way};
pub use super::courier::{OnFailed, OnSettled};
use super::dead::{Buried, Letter};
use super::feed::{Feed, Shaping, Wanted, permits_max};
use super::redrive::Until;
use super::settle::Settlement;
use super::sink::{Event, Failure, Pass};
use super::start::{DrainError, LANDING_MAX};
use crate::config::SinkConfig;
use crate::observe::SinkCounters;

/// What is to be brought, and where.
pub struct Errand<'a> {
    /// The sink.
    pub sink: &'a SinkConfig,
    /// The lane's name, as its events tell it.
    pub lane: Arc<str>,
    /// Its folder.
    pub dir: PathBuf,
    /// Where to begin.
    pub from: From,
    /// The offset to end before.
    pub end: u64,
    /// Which records.
    pub wanted: Wanted,
    /// Why.
    pub pass: Pass,
    /// Who is told how it goes.
    pub watch: Watch,
}

/// Who is told how an errand goes, and what ends it.
pub struct Watch {
    /// Told of each event that the sink has taken.
    pub settled: OnSettled,
    /// Told of each failure of the sink that is not of an event alone; none: nobody.
    pub failed: Option<OnFailed>,
    /// What ends it before all is done; none: nothing.
    pub until: Option<Until>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("until", &self.until).finish_non_exhaustive()
    }
}

impl Watch {
    /// Nobody is told.
    pub fn nobody(until: Option<Until>) -> Self {
        Self { settled: Box::new(|_| {}), failed: None, until }
    }
}

impl std::fmt::Debug for Errand<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Errand").field("lane", &self.lane).finish_non_exhaustive()
    }
}

/// Why an errand was not run.
#[derive(Debug, thiserror::Error)]
pub enum ErrandError {
    /// The lane cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The sink or a thread cannot be started.
    #[error(transparent)]
    Start(#[from] DrainError),
}

/// What became of it.
#[derive(Debug)]
pub struct Ran {
    /// Events that the sink has taken.
    pub delivered: u64,
    /// Events that it refused for good, or for longer than the horizon, and why.
    pub refused: Vec<(Event, Failure)>,
}

impl Errand<'_> {
    /// Runs until every event was taken or refused, or it is ended.
    pub fn run(self, clock: &Clock) -> Result<Ran, ErrandError> {
        let config = self.sink;
        let Watch { settled, failed, until } = self.watch;
        let mut reader = Reader::open(&self.dir)?;
        reader.seek(self.from)?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(DrainError::Thread)?;
        let sink = {
            let _inside = runtime.enter();
            let opened = config.settings.open(&config.name, config.timeout);
            opened.map_err(|source| DrainError::Sink { name: config.name.clone(), source })?
        };
        let kind = config.settings.word();
        let counters = Arc::new(SinkCounters::new(&config.name, kind, [&*self.lane]));
        let (letters, refusals) = channel::unbounded::<Letter>();
        let (bury, buried) = mpsc::unbounded_channel();
        let (sender, told) = mpsc::unbounded_channel();
        let permits_max = permits_max(config, sink.nature(), 1);
        let shape: Arc<dyn Shaping> = Arc::clone(&config.shape) as _;
        let (memory, ends) =
            (Arc::new(Semaphore::new(permits_max)), Arc::new(AtomicBool::new(false)));
        let (resting, rests) = watch::channel(false);
        let feed = Feed {
            lane: 0,
            name: self.lane,
            shape,
            order: config.order.clone(),
            pass: self.pass,
            wanted: Some(self.wanted),
            end: Some(self.end),
            memory: Arc::clone(&memory),
            permits_max,
            sender,
            runtime: runtime.handle().clone(),
            stop: Arc::clone(&ends),
            resting: rests,
            told: None,
        };
        let feeding = thread::spawn(move || feed.run(reader));
        let refusing = thread::spawn(move || gather(&refusals, &bury));
        let (settlement, ended, next_ticket) = (Settlement::default(), false, 0);
        // An event that an operator asks for once more moves no watermark.
        let (place, replica) = (watch::channel(None).0, None);
        let lane = Lane { settlement, place, ended, next_ticket, replica };
        let way = Way {
            sink,
            letters,
            counters: Arc::clone(&counters),
            clock: clock.clone(),
            settled: Some(settled),
            failed,
            resting,
            finite: true,
            landing_max: LANDING_MAX,
        };
        let courier = Courier::new(config, vec![lane], &[0], way);
        let (_never, stopped) = watch::channel(false);
        let Until { stopped, passed } = until.unwrap_or(Until { stopped, passed: Duration::MAX });
        // What is cut is neither taken nor refused.
        let courier =
            async { tokio::time::timeout(passed, courier.run(told, buried, stopped)).await };
        _ = runtime.block_on(courier);
        // Relaxed: a flag that orders nothing else.
        ends.store(true, Ordering::Relaxed);
        memory.close();
        drop(feeding.join());
        let refused = refusing.join().unwrap_or_default();
        Ok(Ran { delivered: counters.events(), refused })
    }
}

/// Keeps what is refused in memory, in the place of a letter, until nothing more can be.
fn gather(
    refusals: &channel::Receiver<Letter>,
    bury: &mpsc::UnboundedSender<Buried>,
) -> Vec<(Event, Failure)> {
    let mut refused = Vec::new();
    while let Ok(Letter { lane, ticket, event, failure, .. }) = refusals.recv() {
        let (order_key, class) = (event.order_key, failure.class);
        _ = bury.send(Buried { lane, ticket, order_key, class });
        refused.push((event, failure));
    }
    refused
}
