//! Threads and channels of the drain: how it starts, how a sink of it changes, and how it stops.
//!
//! A stop leaves nothing half done: feeds end, what is in flight may land within a bound, and then
//! each cursor is committed where its sink has come to. What was cut comes again. A sink that
//! changes stops in the same way and begins anew at its cursor, once that was committed and given
//! up: so it overtakes nothing of what it had in flight, and the others notice none of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{self, Receiver, Sender};
use forebay_log::{Clock, Cursor, Place};
use futures_util::future::FutureExt as _;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Semaphore, mpsc, watch};

use super::courier::{Courier, Lane, Way};
use super::cursors::{self, Kept};
use super::dead::{self, Buried, Grave, Letter};
use super::feed::{Feed, Shaping, Told, permits_max, reader_at};
use super::given_up::GivenUp;
use super::letters::LettersError;
use super::redrive::Redriver;
use super::runner::{Runner, Watch, spawn};
use super::settle::Settlement;
use super::sink::{Pass, Sink};
use super::sinks::OpenError;
use crate::config::{Print, SinkConfig};
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
    ground: Ground,
    runners: Vec<Runner>,
    sinks: Vec<Running>,
    kept: (Sender<Kept>, Receiver<Kept>),
    keeping: Arc<AtomicBool>,
    /// There is none before the first sink.
    keeper: Option<JoinHandle<()>>,
}

/// A sink that runs.
#[derive(Debug)]
struct Running {
    name: String,
    print: Print,
    counters: Arc<SinkCounters>,
    memory: Vec<Arc<Semaphore>>,
    /// Ends the feeds.
    feeding: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    /// Nobody sends; it is disconnected once the courier has ended.
    courier: Receiver<()>,
    /// The same of its cursors.
    cursors: Receiver<()>,
    /// What feeds the courier, and what it hands on to.
    threads: Vec<JoinHandle<()>>,
}

/// What the parts of a starting sink are wired to.
struct Wiring<'a> {
    ground: &'a Ground,
    runtime: &'a Handle,
    kept: &'a Sender<Kept>,
    watch: Watch,
    feeding: Arc<AtomicBool>,
    resting: watch::Receiver<bool>,
    stop: watch::Receiver<bool>,
    /// Held by whatever has a cursor.
    cursors: Sender<()>,
}

/// A sink that can be made, and is not running yet.
struct Opened {
    sink: Arc<dyn Sink>,
    /// The runner that it was made on.
    runner: usize,
}

impl Drain {
    /// Starts every sink. A destination that is away is no reason not to.
    pub fn start(sinks: &[SinkConfig], ground: &Ground) -> Result<Self, DrainError> {
        let mut drain = Self {
            ground: ground.clone(),
            runners: Vec::new(),
            sinks: Vec::new(),
            kept: channel::unbounded(),
            keeping: Arc::new(AtomicBool::new(false)),
            keeper: None,
        };
        drain.change(sinks)?;
        Ok(drain)
    }

    /// Goes on with these sinks: ends those that are gone, begins those that are new, and those
    /// that are made of something else now begin anew at their cursors. If one cannot be made,
    /// nothing has changed. Takes as long as what was in flight may land, five seconds at the most.
    pub fn change(&mut self, sinks: &[SinkConfig]) -> Result<(), DrainError> {
        let mut opened = Vec::new();
        for (index, config) in sinks.iter().enumerate() {
            let runs =
                self.sinks.iter().any(|of| of.name == config.name && of.print == config.print);
            opened.push(if runs { None } else { Some(self.open(config, index)?) });
        }
        if self.keeper.is_none() && !sinks.is_empty() {
            let (incoming, keeping) = (self.kept.1.clone(), Arc::clone(&self.keeping));
            let keep = move || cursors::keep(&incoming, &keeping);
            self.keeper = Some(spawn("forebay-cursors", keep)?);
        }
        tell_orphans(sinks, &self.ground);
        let stays = |of: &Running| {
            sinks.iter().any(|config| config.name == of.name && config.print == of.print)
        };
        let (staying, ending): (Vec<_>, Vec<_>) = self.sinks.drain(..).partition(stays);
        self.sinks = staying;
        ending.iter().for_each(Running::tell_stop);
        let mut ended = Vec::new();
        for of in ending {
            if !sinks.iter().any(|config| config.name == of.name) {
                tracing::info!(sink = of.name, "the sink is gone");
            }
            ended.push(of.end());
        }
        for (config, opened) in sinks.iter().zip(opened) {
            let Some(opened) = opened else { continue };
            let before = ended.iter().find(|counters| counters.name() == config.name);
            if before.is_some() {
                tracing::info!(sink = config.name, "the sink has changed and begins at its cursor");
            }
            let running = self.begin(config, opened, before)?;
            self.sinks.push(running);
        }
        let place = |of: &Running| sinks.iter().position(|config| config.name == of.name);
        self.sinks.sort_by_key(place);
        Ok(())
    }

    /// Makes a sink, on the runner that its number gives it.
    fn open(&mut self, config: &SinkConfig, index: usize) -> Result<Opened, DrainError> {
        let runner = index % THREADS_MAX;
        while self.runners.len() <= runner {
            self.runners.push(Runner::start()?);
        }
        let _inside = self.runners.get(runner).map(|runner| runner.handle.enter());
        let opened = config.settings.open(&config.name, config.timeout);
        let sink =
            opened.map_err(|source| DrainError::Sink { name: config.name.clone(), source })?;
        Ok(Opened { sink, runner })
    }

    /// One sink: its courier, and the threads that feed it. What was counted of it goes on.
    fn begin(
        &self,
        config: &SinkConfig,
        Opened { sink, runner }: Opened,
        before: Option<&Arc<SinkCounters>>,
    ) -> Result<Running, DrainError> {
        let gone = || std::io::Error::other("a thread of the drain has ended");
        let runner = self.runners.get(runner).ok_or_else(gone)?;
        let ground = &self.ground;
        let lanes: Vec<&LaneOf> =
            config.lanes.iter().filter_map(|lane| ground.lanes.get(*lane)).collect();
        let new = SinkCounters::new(
            &config.name,
            config.settings.word(),
            lanes.iter().map(|lane| &*lane.name),
        );
        let counters = match before.filter(|before| before.counts_as(&new)) {
            Some(before) => Arc::clone(before),
            None => Arc::new(new),
        };
        counters.stopped(false);
        let replicas: Vec<_> =
            lanes.iter().filter_map(|lane| lane.replica_at(&config.name)).collect();
        // As its courier begins: the one before it may have ended while it left the sink alone.
        for replica in &replicas {
            replica.leave(false);
        }
        let watch = Watch { counters: Arc::clone(&counters), replicas };
        let (stop, stopped) = watch::channel(false);
        let (holds_cursor, cursors) = channel::unbounded();
        let feeding = Arc::new(AtomicBool::new(false));
        let (kept, runtime) = (&self.kept.0, &runner.handle);
        let (resting, rests) = watch::channel(false);
        let wiring = Wiring {
            ground,
            runtime,
            kept,
            watch,
            feeding: Arc::clone(&feeding),
            resting: rests,
            stop: stopped.clone(),
            cursors: holds_cursor,
        };
        let (bury, buried) = mpsc::unbounded_channel();
        let (letters, mut threads) = letters(config, &wiring, bury)?;
        know_given_up(config, &lanes, &wiring, &mut threads)?;
        let (sender, told) = mpsc::unbounded_channel();
        let permits_max = permits_max(config, sink.nature(), lanes.len());
        let ready = feeds_of(config, (&lanes, sender), permits_max, &wiring, &mut threads)?;
        let (courier_lanes, memory) = ready.into_iter().unzip();
        let priorities: Vec<u8> = lanes.iter().map(|lane| lane.priority).collect();
        let way = Way {
            sink,
            letters,
            counters: Arc::clone(&counters),
            clock: ground.clock.clone(),
            settled: None,
            failed: None,
            resting,
            finite: false,
            landing_max: LANDING_MAX,
        };
        let courier = Courier::new(config, courier_lanes, &priorities, way);
        let (runs, ended) = channel::unbounded();
        let watch = wiring.watch;
        let task = async move {
            // Dropped at the end, also of a panic.
            let _runs: Sender<()> = runs;
            watch.over(courier.run(told, buried, stopped)).await;
        };
        runner.tasks.send(task.boxed()).map_err(|_| gone())?;
        let (name, print) = (config.name.clone(), config.print);
        let courier = ended;
        Ok(Running { name, print, counters, memory, feeding, stop, courier, cursors, threads })
    }

    /// What is counted, in the order of the sinks.
    pub fn counters(&self) -> Vec<Arc<SinkCounters>> {
        self.sinks.iter().map(|of| Arc::clone(&of.counters)).collect()
    }

    /// Ends it: what is in flight may land within five seconds, and the cursors are committed.
    pub fn stop(self) {
        self.sinks.iter().for_each(Running::tell_stop);
        for Runner { tasks, thread, .. } in self.runners {
            drop(tasks);
            drop(thread.join());
        }
        let threads = self.sinks.into_iter().flat_map(|of| of.threads);
        threads.for_each(|thread| drop(thread.join()));
        // Release: pairs with the Acquire in `cursors::keep`; every place was told by now.
        self.keeping.store(true, Ordering::Release);
        if let Some(keeper) = self.keeper {
            drop(keeper.join());
        }
    }
}

impl Running {
    fn tell_stop(&self) {
        // Relaxed: a flag that orders nothing else.
        self.feeding.store(true, Ordering::Relaxed);
        self.memory.iter().for_each(|memory| memory.close());
        self.stop.send_replace(true);
    }

    /// Waits until nothing of it is left, and its cursors are committed and free.
    fn end(self) -> Arc<SinkCounters> {
        // Disconnected, since nobody sends.
        _ = self.courier.recv();
        self.threads.into_iter().for_each(|thread| drop(thread.join()));
        _ = self.cursors.recv();
        self.counters
    }
}

/// What keeps the dead letters of a sink, and what brings them once more.
fn letters(
    config: &SinkConfig,
    wiring: &Wiring<'_>,
    bury: UnboundedSender<Buried>,
) -> std::io::Result<(Sender<Letter>, Vec<JoinHandle<()>>)> {
    let ground = wiring.ground;
    let grave = Grave {
        dir: dead::dir(&ground.data_dir, &config.name),
        sink: config.name.as_str().into(),
        record_bytes_max: ground.record_bytes_max,
        clock: ground.clock.clone(),
        counters: Arc::clone(&wiring.watch.counters),
    };
    let mut threads = Vec::new();
    if let Some(redriver) = Redriver::new(config, grave.dir.clone(), ground.clock.clone()) {
        let stopped = wiring.stop.clone();
        threads.push(wiring.watch.spawn("forebay-redrive", move || redriver.run(&stopped))?);
    }
    let (letters, keep) = dead::keeper(grave, bury);
    threads.push(wiring.watch.spawn("forebay-dead", keep)?);
    Ok((letters, threads))
}

/// What a lane's replica lacks is known before anybody is told how far it has come.
fn know_given_up(
    config: &SinkConfig,
    lanes: &[&LaneOf],
    wiring: &Wiring<'_>,
    threads: &mut Vec<JoinHandle<()>>,
) -> Result<(), DrainError> {
    for lane in lanes {
        let Some(replica) = lane.replica_at(&config.name) else { continue };
        let dir = dead::dir(&wiring.ground.data_dir, &config.name);
        let given_up = GivenUp { dir, lane: Arc::clone(&lane.name), replica };
        let failed = |source| DrainError::Letters { name: config.name.clone(), source };
        given_up.begin().map_err(failed)?;
        let stop = Arc::clone(&wiring.feeding);
        threads.push(wiring.watch.spawn("forebay-letters", move || given_up.follow(&stop))?);
    }
    Ok(())
}

/// A feed for each lane of a sink: what its courier must know of it, and its memory.
fn feeds_of(
    config: &SinkConfig,
    (lanes, sender): (&[&LaneOf], UnboundedSender<Told>),
    permits_max: usize,
    wiring: &Wiring<'_>,
    threads: &mut Vec<JoinHandle<()>>,
) -> std::io::Result<Vec<(Lane, Arc<Semaphore>)>> {
    let shape: Arc<dyn Shaping> = Arc::clone(&config.shape) as _;
    let mut ready = Vec::new();
    for (index, lane) in lanes.iter().enumerate() {
        let memory = Arc::new(Semaphore::new(permits_max));
        let (place, receiver) = watch::channel(None);
        let settlement = Settlement::default();
        let replica = lane.replica_at(&config.name);
        let courier_lane = Lane { settlement, place, ended: false, next_ticket: 0, replica };
        ready.push((courier_lane, Arc::clone(&memory)));
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
            runtime: wiring.runtime.clone(),
            stop: Arc::clone(&wiring.feeding),
            resting: wiring.resting.clone(),
            told: None,
        };
        let follower = Follower {
            dir: lane.dir.clone(),
            sink: config.name.as_str().into(),
            place: receiver,
            kept: wiring.kept.clone(),
            held: wiring.cursors.clone(),
            feed,
        };
        threads.push(wiring.watch.spawn("forebay-feed", move || follower.run())?);
    }
    Ok(ready)
}

/// A feed behind the cursor of its sink.
struct Follower {
    dir: PathBuf,
    sink: Arc<str>,
    place: watch::Receiver<Option<Place>>,
    kept: Sender<Kept>,
    /// Goes where the cursor goes.
    held: Sender<()>,
    feed: Feed,
}

impl Follower {
    /// Takes the cursor and hands it on, however long that takes: a sink that cannot begin must
    /// not keep a forebay from receiving.
    fn run(self) {
        let Self { dir, sink, place, kept, held, feed } = self;
        let mut told = false;
        let reader = loop {
            let begun = Cursor::open(&dir, &cursor_name(&sink)).map_err(|error| error.to_string());
            let begun = begun.and_then(|cursor| {
                let reader = reader_at(&dir, cursor.place()).map_err(|error| error.to_string())?;
                Ok((cursor, reader))
            });
            match begun {
                Ok((cursor, reader)) => {
                    drop(kept.send(Kept { cursor, place, sink: Arc::clone(&sink), held }));
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
pub(crate) fn cursor_name(sink: &str) -> String {
    format!("{CURSOR_PREFIX}{sink}")
}
