//! Threads and channels of the drain: how it starts, and how it stops.
//!
//! A stop leaves nothing half done: feeds end, what is in flight may land within a bound, and then
//! each cursor is committed where its sink has come to. What was cut comes again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{self, Sender};
use forebay_log::{Clock, Cursor, Place};
use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Semaphore, mpsc, watch};

use super::courier::{Courier, Lane, Way};
use super::cursors::{self, Kept};
use super::dead::{self, Grave};
use super::feed::{Feed, Shaping, Told, permits_of, reader_at};
use super::given_up::GivenUp;
use super::letters::LettersError;
use super::redrive::Redriver;
use super::settle::Settlement;
use super::sink::Pass;
use super::sinks::OpenError;
use crate::config::SinkConfig;
use crate::observe::SinkCounters;
use crate::replica::Replica;

/// Threads that couriers share.
const THREADS_MAX: usize = 2;
/// How long a cursor that cannot be had waits for the next try.
const REST: Duration = Duration::from_secs(2);
/// What the names of the cursors of sinks begin with.
const CURSOR_PREFIX: &str = "sink-";
/// How long what is in flight may take after a stop.
pub(super) const LANDING_MAX: Duration = Duration::from_secs(5);
/// How long a blocking call of a sink may hold up the end.
const BLOCKED_MAX: Duration = Duration::from_secs(1);

/// Why the drain does not start.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// A sink cannot be made of what the configuration says.
    #[error("cannot open sink `{name}`: {source}")]
    Sink {
        /// The sink.
        name: String,
        /// Why.
        source: OpenError,
    },
    /// Which events a replica lacks cannot be told.
    #[error("cannot read the dead letters of sink `{name}`, which a lane replicates to: {source}")]
    Letters {
        /// The sink.
        name: String,
        /// Why.
        source: LettersError,
    },
    /// A thread or its runtime cannot be started.
    #[error("cannot start a thread of the drain: {0}")]
    Thread(#[from] std::io::Error),
}

/// A lane that sinks may read.
#[derive(Clone, Debug)]
pub struct LaneOf {
    /// Its name.
    pub name: Arc<str>,
    /// Its folder.
    pub dir: PathBuf,
    /// A higher number goes first.
    pub priority: u8,
    /// Whom to tell how far it is replicated; it names the sink.
    pub replica: Option<Arc<Replica>>,
}

impl LaneOf {
    /// Its replica, if it replicates to this sink.
    fn replica_at(&self, sink: &str) -> Option<Arc<Replica>> {
        self.replica.clone().filter(|replica| replica.sink() == sink)
    }
}

/// What the drain stands on.
#[derive(Clone, Debug)]
pub struct Ground {
    /// The folder that holds everything kept.
    pub data_dir: PathBuf,
    /// The lanes, in the order of the configuration.
    pub lanes: Vec<LaneOf>,
    /// Bytes of the largest record that a lane holds.
    pub record_bytes_max: u64,
    /// Where the time comes from.
    pub clock: Clock,
}

/// The running drain. Dropped without a stop, its threads go on.
#[derive(Debug)]
pub struct Drain {
    counters: Vec<Arc<SinkCounters>>,
    memory: Vec<Arc<Semaphore>>,
    feeding: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    keeping: Arc<AtomicBool>,
    /// Couriers, then what they hand on to.
    couriers: Vec<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
    keeper: Option<JoinHandle<()>>,
}

/// What the parts of a starting drain are wired to.
struct Wiring<'a> {
    ground: &'a Ground,
    /// Ends the feeds.
    feeding: Arc<AtomicBool>,
    stop: watch::Receiver<bool>,
    kept: Sender<Kept>,
}

impl Drain {
    /// Starts every sink. A destination that is away is no reason not to.
    pub fn start(sinks: &[SinkConfig], ground: &Ground) -> Result<Self, DrainError> {
        let (stop, stopped) = watch::channel(false);
        let (kept, incoming) = channel::unbounded();
        let mut drain = Self {
            counters: Vec::new(),
            memory: Vec::new(),
            feeding: Arc::new(AtomicBool::new(false)),
            stop,
            keeping: Arc::new(AtomicBool::new(false)),
            couriers: Vec::new(),
            others: Vec::new(),
            keeper: None,
        };
        tell_orphans(sinks, ground);
        if sinks.is_empty() {
            return Ok(drain);
        }
        let feeding = Arc::clone(&drain.feeding);
        let wiring = Wiring { ground, feeding, stop: stopped, kept };
        let mut runtimes = Vec::new();
        for _ in 0..sinks.len().min(THREADS_MAX) {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtimes.push((runtime, Vec::new()));
        }
        for (index, sink) in sinks.iter().enumerate() {
            let at = index % runtimes.len();
            let Some((runtime, tasks)) = runtimes.get_mut(at) else { continue };
            tasks.push(drain.sink(sink, &wiring, runtime)?);
        }
        let keeping = Arc::clone(&drain.keeping);
        drain.keeper = Some(spawn("forebay-cursors", move || cursors::keep(&incoming, &keeping))?);
        for (runtime, tasks) in runtimes {
            drain.couriers.push(spawn("forebay-drain", move || drive(runtime, tasks))?);
        }
        Ok(drain)
    }

    /// One sink: its courier, and the threads that feed it.
    fn sink(
        &mut self,
        config: &SinkConfig,
        wiring: &Wiring<'_>,
        runtime: &Runtime,
    ) -> Result<BoxFuture<'static, ()>, DrainError> {
        let ground = wiring.ground;
        let lanes: Vec<&LaneOf> =
            config.lanes.iter().filter_map(|lane| ground.lanes.get(*lane)).collect();
        let sink = {
            let _inside = runtime.enter();
            let opened = config.settings.open(&config.name, config.timeout);
            opened.map_err(|source| DrainError::Sink { name: config.name.clone(), source })?
        };
        let counters = Arc::new(SinkCounters::new(
            &config.name,
            config.settings.kind(),
            lanes.iter().map(|lane| &*lane.name),
        ));
        self.counters.push(Arc::clone(&counters));
        let (bury, buried) = mpsc::unbounded_channel();
        let grave = Grave {
            dir: dead::dir(&ground.data_dir, &config.name),
            sink: config.name.as_str().into(),
            record_bytes_max: ground.record_bytes_max,
            clock: ground.clock.clone(),
            counters: Arc::clone(&counters),
        };
        if let Some(redriver) = Redriver::new(config, grave.dir.clone(), ground.clock.clone()) {
            let stopped = wiring.stop.clone();
            self.others.push(spawn("forebay-redrive", move || redriver.run(&stopped))?);
        }
        let (letters, thread) = dead::start(grave, bury)?;
        self.others.push(thread);
        self.know_given_up(config, &lanes, wiring)?;
        let (sender, told) = mpsc::unbounded_channel();
        let courier_lanes = self.feeds(config, (&lanes, sender), wiring, runtime.handle())?;
        let priorities: Vec<u8> = lanes.iter().map(|lane| lane.priority).collect();
        let clock = ground.clock.clone();
        let way = Way {
            sink,
            letters,
            counters,
            clock,
            settled: None,
            finite: false,
            landing_max: LANDING_MAX,
        };
        let courier = Courier::new(config, courier_lanes, &priorities, way);
        Ok(courier.run(told, buried, wiring.stop.clone()).boxed())
    }

    /// What a lane's replica lacks is known before anybody is told how far it has come.
    fn know_given_up(
        &mut self,
        config: &SinkConfig,
        lanes: &[&LaneOf],
        wiring: &Wiring<'_>,
    ) -> Result<(), DrainError> {
        for lane in lanes {
            let Some(replica) = lane.replica_at(&config.name) else { continue };
            let dir = dead::dir(&wiring.ground.data_dir, &config.name);
            let given_up = GivenUp { dir, lane: Arc::clone(&lane.name), replica };
            let failed = |source| DrainError::Letters { name: config.name.clone(), source };
            given_up.begin().map_err(failed)?;
            let stop = Arc::clone(&wiring.feeding);
            self.others.push(spawn("forebay-letters", move || given_up.follow(&stop))?);
        }
        Ok(())
    }

    /// A feed for each lane of a sink, and what its courier must know of them.
    fn feeds(
        &mut self,
        config: &SinkConfig,
        (lanes, sender): (&[&LaneOf], UnboundedSender<Told>),
        wiring: &Wiring<'_>,
        runtime: &Handle,
    ) -> Result<Vec<Lane>, DrainError> {
        let shape: Arc<dyn Shaping> = Arc::clone(&config.shape) as _;
        let permits_max = permits_of(config.memory_bytes_max / lanes.len().max(1) as u64);
        let mut courier_lanes = Vec::new();
        for (index, lane) in lanes.iter().enumerate() {
            let memory = Arc::new(Semaphore::new(permits_max));
            self.memory.push(Arc::clone(&memory));
            let (place, receiver) = watch::channel(None);
            courier_lanes.push(Lane {
                settlement: Settlement::default(),
                place,
                ended: false,
                next_ticket: 0,
                replica: lane.replica_at(&config.name),
            });
            let feed = Feed {
                lane: index,
                name: Arc::clone(&lane.name),
                shape: Arc::clone(&shape),
                order: config.order.clone(),
                pass: Pass::Live,
                wanted: None,
                end: None,
                memory,
                permits_max,
                sender: sender.clone(),
                runtime: Handle::clone(runtime),
                stop: Arc::clone(&wiring.feeding),
                told: None,
            };
            let follower = Follower {
                dir: lane.dir.clone(),
                sink: config.name.as_str().into(),
                place: receiver,
                kept: wiring.kept.clone(),
                feed,
            };
            self.others.push(spawn("forebay-feed", move || follower.run())?);
        }
        Ok(courier_lanes)
    }

    /// What is counted, in the order of the sinks.
    pub fn counters(&self) -> &[Arc<SinkCounters>] {
        &self.counters
    }

    /// Ends it: what is in flight may land within five seconds, and the cursors are committed.
    pub fn stop(self) {
        // Relaxed: a flag that orders nothing else.
        self.feeding.store(true, Ordering::Relaxed);
        self.memory.iter().for_each(|memory| memory.close());
        self.stop.send_replace(true);
        self.couriers.into_iter().for_each(|thread| drop(thread.join()));
        self.others.into_iter().for_each(|thread| drop(thread.join()));
        // Release: pairs with the Acquire in `cursors::keep`; every place was told by now.
        self.keeping.store(true, Ordering::Release);
        if let Some(keeper) = self.keeper {
            drop(keeper.join());
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

fn drive(runtime: Runtime, tasks: Vec<BoxFuture<'static, ()>>) {
    runtime.block_on(async move {
        // A task each, so that a panic of one ends no other.
        let tasks = tasks.into_iter().map(tokio::spawn);
        for ended in join_all(tasks).await {
            if let Err(error) = ended {
                tracing::error!(%error, "a sink has ended by a panic; it goes on after a restart");
            }
        }
    });
    runtime.shutdown_timeout(BLOCKED_MAX);
}

/// A feed behind the cursor of its sink.
struct Follower {
    dir: PathBuf,
    sink: Arc<str>,
    place: watch::Receiver<Option<Place>>,
    kept: Sender<Kept>,
    feed: Feed,
}

impl Follower {
    /// Takes the cursor and hands it on, however long that takes: a sink that cannot begin must
    /// not keep a forebay from receiving.
    fn run(self) {
        let Self { dir, sink, place, kept, feed } = self;
        let mut told = false;
        let reader = loop {
            let begun = Cursor::open(&dir, &cursor_name(&sink)).map_err(|error| error.to_string());
            let begun = begun.and_then(|cursor| {
                let reader = reader_at(&dir, cursor.place()).map_err(|error| error.to_string())?;
                Ok((cursor, reader))
            });
            match begun {
                Ok((cursor, reader)) => {
                    drop(kept.send(Kept { cursor, place, sink: Arc::clone(&sink) }));
                    break reader;
                }
                Err(error) if !told => {
                    tracing::error!(
                        sink = &*sink,
                        lane = &*feed.name,
                        error,
                        "the sink cannot begin; trying again"
                    );
                    told = true;
                }
                Err(_) => {}
            }
            if feed.stopped() {
                return;
            }
            thread::sleep(REST);
        };
        feed.run(reader);
    }
}

/// Says which cursors keep segments for a sink that is no more.
fn tell_orphans(sinks: &[SinkConfig], ground: &Ground) {
    for (index, lane) in ground.lanes.iter().enumerate() {
        let reads = |name: &str| {
            let is = |sink: &&SinkConfig| cursor_name(&sink.name) == name;
            sinks.iter().filter(is).any(|sink| sink.lanes.contains(&index))
        };
        // What cannot be read is told by the feeds.
        for cursor in forebay_log::cursors(&lane.dir).unwrap_or_default() {
            if cursor.name.starts_with(CURSOR_PREFIX) && !reads(&cursor.name) {
                tracing::warn!(
                    lane = &*lane.name,
                    cursor = cursor.name,
                    "no sink reads by this cursor, and retention waits for it; \
                     see `forebay cursors remove`"
                );
            }
        }
    }
}

/// The name of a sink's cursor in every lane that it reads.
fn cursor_name(sink: &str) -> String {
    format!("{CURSOR_PREFIX}{sink}")
}
