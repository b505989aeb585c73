//! One forebay in this process: opens the lanes, starts the receivers, reloads, drains.
//!
//! The listener opens last: by then every lane has recovered and its dedupe table is rebuilt, so
//! no delivery is ever judged by half a memory.

mod receivers;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use forebay_log::{Clock, LaneState, OpenError, Recovery};
use tokio::sync::watch;

use self::receivers::{bind_all, start_receivers};
use crate::admin::{self, Admin, AdminError};
use crate::config::{self, Config, LaneConfig, ReceiveConfig, SinkConfig};
use crate::dedupe::{self, Fingerprinter, Origin, SecretError, Steady, Table};
use crate::drain::{Drain, DrainError, Ground, LaneOf};
use crate::handshake::Confirmer;
use crate::line::{Held, Lane, Line, Seat};
use crate::observe::{LaneReading, Metrics, ReceiverCounters, Watched};
use crate::quarantine::{self, Quarantine, Releaser};
use crate::receive::{Budget, Deadlines, Failures, Routes};
use crate::replica::Replica;
use crate::runtime::{Driver, bind_cure};
use crate::verify::Answers;

/// How often the dedupe tables get their next block ready, and what was sealed is written.
const PREPARE_INTERVAL: Duration = Duration::from_millis(100);
/// The nice value of the threads that do so: a receiver that wakes on their core goes first. A tenth
/// of a core is theirs even where receivers want all of it, and they take a fiftieth of what those do.
const PREPARE_NICE: i32 = 10;

/// Why a forebay does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The data folder cannot be made.
    #[error("cannot make the data folder {}; set `data_dir` to one that this user may write", path.display())]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// A lane cannot be opened.
    #[error("cannot open lane `{name}`")]
    Lane {
        /// The lane.
        name: String,
        /// Why.
        source: OpenError,
    },
    /// What a lane remembers cannot be opened or made again.
    #[error("cannot open what lane `{name}` remembers")]
    Dedupe {
        /// The lane.
        name: String,
        /// Why.
        source: dedupe::OpenError,
    },
    /// The secret of the dedupe keys cannot be read or made.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The admin listener does not start.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The drain does not start.
    #[error(transparent)]
    Drain(#[from] DrainError),
    /// The port cannot be had.
    #[error("cannot listen on {address}; set `listen` under [receive] to {}", bind_cure(.source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A thread or its runtime cannot be started.
    #[error("cannot start a receiver on {}: {source}", driver.name())]
    Receiver {
        /// The driver that was asked for.
        driver: Driver,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What all receivers share, open and recovered, before anything listens.
#[derive(Clone, Debug)]
pub struct Opened {
    lanes: Vec<Arc<Lane>>,
    routes: Arc<ArcSwap<Routes>>,
    fingerprinter: Fingerprinter,
    metrics: Arc<Metrics>,
    quarantine: Option<Arc<Quarantine>>,
    confirmer: Confirmer,
    data_dir: PathBuf,
    receive: ReceiveConfig,
    driver: Driver,
    clock: Clock,
    steady: Steady,
}

impl Opened {
    /// Opens the lanes of `config` and rebuilds what they remember.
    pub fn open(config: Config, clock: &Clock) -> Result<Self, StartError> {
        let Config { data_dir, receive, quarantine, outgoing, lanes: configs, sources, .. } =
            config;
        make_dir(&data_dir)?;
        let (fingerprinter, origin) = Fingerprinter::open(&data_dir)?;
        if origin == Origin::Made && has_lanes(&data_dir) {
            tracing::warn!(
                "dedupe.key was missing and is made anew: events already in the log are no longer \
                 known as duplicates"
            );
        }
        let steady = Steady::new(clock);
        let open = |lane| open_lane(&data_dir, lane, clock).map(Arc::new);
        let lanes = configs.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        tell_left_over(&data_dir, &configs);
        let driver = match receive.driver {
            config::Driver::Auto => Driver::detect(),
            config::Driver::IoUring => Driver::IoUring,
            config::Driver::Epoll => Driver::Epoll,
        };
        let watched = lanes.iter().map(|lane: &Arc<Lane>| {
            let of = Arc::clone(lane);
            Watched::new(&lane.name, move || LaneReading::of(&of.log, &of.table))
        });
        let metrics = Arc::new(Metrics::new(receive.receivers, watched.collect()));
        let quarantine =
            Quarantine::start((&data_dir, &quarantine), &configs, &fingerprinter, clock);
        if let Some(quarantine) = &quarantine {
            quarantine.divide(sources.iter().map(|source| source.name.as_str()));
            metrics.watch_quarantine(Arc::clone(quarantine));
        }
        let routes =
            Arc::new(ArcSwap::from_pointee(Routes::new(sources, &metrics, fingerprinter.clone())));
        let clock = clock.clone();
        Ok(Self {
            lanes,
            routes,
            fingerprinter,
            metrics,
            quarantine,
            confirmer: Confirmer::start(&outgoing),
            data_dir,
            receive,
            driver,
            clock,
            steady,
        })
    }

    /// The line of one receiver. It stays on the thread that asked for it.
    pub fn line(&self, receiver: usize) -> Line {
        let seat = |lane: &Arc<Lane>| Seat::new(Arc::clone(lane), self.fingerprinter.clone());
        Line {
            seats: self.lanes.iter().map(seat).collect(),
            held: RefCell::new(Rc::new(Held(self.routes.load_full()))),
            routes: Arc::clone(&self.routes),
            fingerprinter: self.fingerprinter.clone(),
            quarantine: self.quarantine.as_ref().map(Quarantine::seat),
            confirmer: self.confirmer.clone(),
            budget: Budget::new(self.receive.body_budget_bytes),
            receiver,
            counters: self.counters(receiver),
            unknown: Arc::clone(self.metrics.unknown()),
            answers: Answers::default(),
            failures: self
                .receive
                .failures_per_address
                .map(|max| Failures::new(max, self.clock.monotonic())),
            proxies: Arc::clone(&self.receive.proxies),
            steady: self.steady,
            look: self.clock.look(),
            clock: self.clock.clone(),
        }
    }

    /// From now on lines wait for the replicas of these lanes, which the drain will move.
    fn replicate(&self, ground: &Ground) {
        let mut watched = Vec::new();
        for (lane, of) in self.lanes.iter().zip(&ground.lanes) {
            if let Some(replica) = &of.replica {
                // The first one stands, and there is no other.
                drop(lane.replica.set(Arc::clone(replica)));
                watched.push((lane.name.clone(), Arc::clone(replica)));
            }
        }
        self.metrics.watch_replicas(watched);
    }

    fn counters(&self, receiver: usize) -> Arc<ReceiverCounters> {
        let counters = self.metrics.receiver(receiver).unwrap_or_default();
        counters.runs_on(self.driver.name());
        counters
    }

    /// What puts requests out of quarantine through a line of its own. It stays on the runtime
    /// that asked for it.
    pub fn releaser(&self) -> Releaser {
        // A number behind those of the receivers: what it counts is nobody's.
        let line = self.line(self.receive.receivers);
        Releaser::new(line, self.deadlines(), &self.data_dir)
    }

    /// Seals the lanes. Those of a dropped forebay are sealed as well.
    pub fn close(&self) {
        for lane in &self.lanes {
            lane.log.close();
        }
        if let Some(quarantine) = &self.quarantine {
            quarantine.close();
        }
    }

    /// How long each phase of a connection may last.
    pub fn deadlines(&self) -> Deadlines {
        Deadlines {
            head: self.receive.head_timeout,
            body: self.receive.body_timeout,
            body_rate_min: self.receive.body_rate_min,
            idle: self.receive.idle_timeout,
            write: self.receive.write_timeout,
        }
    }
}

/// A running forebay.
#[derive(Debug)]
pub struct Server {
    opened: Opened,
    address: SocketAddr,
    admin: Admin,
    drain: Drain,
    draining: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    receivers: Vec<JoinHandle<usize>>,
    background: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts everything that `config` describes.
    pub fn start(config: Config, clock: &Clock) -> Result<Self, StartError> {
        let admin_listen = config.admin.listen;
        let (ground, sinks) = (ground(&config, clock), config.sinks.clone());
        let opened = Opened::open(config, clock)?;
        opened.replicate(&ground);
        let listeners = bind_all(opened.receive.listen, opened.receive.receivers)?;
        let address = listeners
            .first()
            .and_then(|listener| listener.local_addr().ok())
            .unwrap_or(opened.receive.listen);
        let draining = Arc::new(AtomicBool::new(false));
        let state =
            admin::State { metrics: Arc::clone(&opened.metrics), draining: Arc::clone(&draining) };
        let admin = Admin::start(admin_listen, state)?;
        let drain = Drain::start(&sinks, &ground)?;
        opened.metrics.watch_sinks(drain.counters());
        let (stop, stopped) = watch::channel(false);
        let background = prepare_tables(&opened, &draining);
        if opened.quarantine.is_some() {
            let releasing = opened.clone();
            let releaser = move || releasing.releaser();
            quarantine::attend(&opened.data_dir, releaser, Arc::clone(&draining));
        }
        let receivers = start_receivers(listeners, &opened, &stopped)?;
        Ok(Self { opened, address, admin, drain, draining, stop, receivers, background })
    }

    /// Where webhooks are received; the port is the one chosen when the configuration says 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where metrics and health are told.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address()
    }

    /// The driver of the receivers.
    pub fn driver(&self) -> Driver {
        self.opened.driver
    }

    /// The counters.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.opened.metrics
    }

    /// Takes the sources and secrets of a newly loaded configuration. Requests under way end
    /// with those they began with.
    pub fn reload(&self, config: Config) {
        if let Some(quarantine) = &self.opened.quarantine {
            quarantine.divide(config.sources.iter().map(|source| source.name.as_str()));
        }
        let routes =
            Routes::new(config.sources, &self.opened.metrics, self.opened.fingerprinter.clone());
        self.opened.routes.store(Arc::new(routes));
    }

    /// Goes on with the sinks of a newly loaded configuration, see [`Drain::change`].
    pub fn change_sinks(&mut self, sinks: &[SinkConfig]) -> Result<(), DrainError> {
        let changed = self.drain.change(sinks);
        self.opened.metrics.watch_sinks(self.drain.counters());
        changed
    }

    /// Whether every receiver still runs; one that does not has left its core unserved.
    pub fn healthy(&self) -> bool {
        self.receivers.iter().all(|receiver| !receiver.is_finished())
    }

    /// The lanes that have failed, each with the reason.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &str)> {
        self.opened.lanes.iter().filter_map(|lane| Some((lane.name.as_str(), lane.log.failure()?)))
    }

    /// The lanes that take nothing for want of room, until there is some.
    pub fn full(&self) -> impl Iterator<Item = &str> {
        let lanes = self.opened.lanes.iter();
        lanes.filter(|lane| lane.log.state() == LaneState::Full).map(|lane| lane.name.as_str())
    }

    /// Stops accepting, lets requests in flight end within `receive.drain_timeout` and what sinks
    /// were handed within five seconds, commits their cursors, seals the lanes. Returns how many connections had to be cut.
    pub fn stop(self) -> usize {
        // Relaxed: a flag that orders nothing else.
        self.draining.store(true, Ordering::Relaxed);
        self.stop.send_replace(true);
        self.opened.lanes.iter().for_each(|lane| lane.table.close());
        let cut = self.receivers.into_iter().map(|receiver| receiver.join().unwrap_or(0)).sum();
        self.drain.stop();
        // They write beside the log, whose lock goes with it.
        self.background.into_iter().for_each(|thread| drop(thread.join()));
        self.opened.close();
        cut
    }
}

/// What the drain stands on.
fn ground(config: &Config, clock: &Clock) -> Ground {
    let lane = |lane: &LaneConfig| LaneOf {
        name: lane.name.as_str().into(),
        dir: config.lane_dir(lane),
        priority: lane.priority,
        replica: lane.replicate_to.as_deref().map(|sink| Arc::new(Replica::new(sink))),
    };
    let bodies = config.sources.iter().map(|source| source.body_bytes_max);
    Ground {
        data_dir: config.data_dir.clone(),
        lanes: config.lanes.iter().map(lane).collect(),
        record_bytes_max: bodies.max().unwrap_or(0) + 4 * crate::limits::HEAD_BYTES_MAX as u64,
        clock: clock.clone(),
    }
}

fn make_dir(path: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt;
    let lanes = path.join("lanes");
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(&lanes)
        .map_err(|source| StartError::DataDir { path: lanes, source })
}

/// Warns of lanes that the configuration no longer has, as after a change of name: what was
/// acknowledged in them goes nowhere.
fn tell_left_over(data_dir: &Path, configs: &[LaneConfig]) {
    let Ok(folders) = std::fs::read_dir(data_dir.join("lanes")) else { return };
    for folder in folders.flatten() {
        let (name, path) = (folder.file_name(), folder.path());
        let known = configs.iter().any(|lane| *lane.name == *name);
        if !known && forebay_log::segments(&path).is_ok_and(|segments| !segments.is_empty()) {
            tracing::warn!(
                folder = %path.display(),
                "no lane has the name of this folder: what it holds goes to no sink and is never \
                 removed; name the lane as before, or move the folder away"
            );
        }
    }
}

fn has_lanes(data_dir: &Path) -> bool {
    std::fs::read_dir(data_dir.join("lanes")).is_ok_and(|mut lanes| lanes.next().is_some())
}

fn open_lane(data_dir: &Path, config: &LaneConfig, clock: &Clock) -> Result<Lane, StartError> {
    let started = clock.monotonic();
    let dir = data_dir.join("lanes").join(&config.name);
    let (log, recovery) = forebay_log::Lane::open(&dir, config.log_options(clock.clone()))
        .map_err(|source| StartError::Lane { name: config.name.clone(), source })?;
    let log = Arc::new(log);
    let capacity = usize::try_from(config.dedupe_keys_max).unwrap_or(usize::MAX);
    let options = dedupe::Options { capacity, window: config.dedupe_window };
    let table = Table::open(options, &log, clock.wall_ns())
        .map_err(|source| StartError::Dedupe { name: config.name.clone(), source })?;
    let elapsed = clock.monotonic().saturating_duration_since(started);
    tell_opened(&config.name, &recovery, &table.stats(), elapsed);
    let (name, dedupe_window) = (config.name.clone(), config.dedupe_window);
    Ok(Lane { name, log, table, dedupe_window, replica: OnceLock::new() })
}

/// Says what the log and the memory of a lane held when it was opened, loudly what was amiss.
fn tell_opened(lane: &str, recovery: &Recovery, known: &dedupe::Stats, elapsed: Duration) {
    for warning in &recovery.warnings {
        tracing::warn!(lane, warning, "found when the lane was opened");
    }
    let Recovery { epoch, segments, records, unsealed, damaged, gaps, missing, .. } = recovery;
    if damaged + gaps + missing > 0 {
        tracing::warn!(
            lane,
            damaged,
            gaps,
            missing,
            "the log has suffered; forebay segments verify tells where"
        );
    }
    tracing::info!(
        lane,
        epoch,
        segments,
        unsealed,
        records,
        known_keys = known.keys + known.files.keys,
        elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        "lane opened"
    );
}

/// What a background thread does for the dedupe tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Memory,
    Files,
}

/// Keeps the next block of every dedupe table ready, and its files, off the path of requests: by
/// two threads, since one of them waits for disks.
fn prepare_tables(opened: &Opened, draining: &Arc<AtomicBool>) -> Vec<JoinHandle<()>> {
    let works = [("forebay-dedupe", Work::Memory), ("forebay-files", Work::Files)];
    let mut threads = Vec::with_capacity(works.len());
    for (name, work) in works {
        let (opened, draining) = (opened.clone(), Arc::clone(draining));
        let run = move || {
            // Refused, it costs a receiver on the same core some waiting, and nothing else.
            let _ = rustix::process::setpriority_process(None, PREPARE_NICE);
            let mut told = vec![0; opened.lanes.len()];
            // Relaxed: a flag that orders nothing else.
            while !draining.load(Ordering::Relaxed) {
                if work == Work::Files {
                    tell_dropped(&opened.lanes, &mut told);
                }
                let now_ns = opened.steady.at(opened.clock.monotonic());
                for lane in &opened.lanes {
                    match work {
                        Work::Memory => lane.table.prepare(now_ns),
                        Work::Files => lane.table.tend(now_ns),
                    }
                }
                thread::sleep(PREPARE_INTERVAL);
            }
        };
        match thread::Builder::new().name(name.to_owned()).spawn(run) {
            Ok(thread) => threads.push(thread),
            Err(error) => tracing::warn!(%error, name, "no such thread: memory will fill up"),
        }
    }
    threads
}

/// Says what retention has removed that the cursor of a consumer had not read.
fn tell_dropped(lanes: &[Arc<Lane>], told: &mut [u64]) {
    for (lane, told) in lanes.iter().zip(told) {
        let dropped = lane.log.unread_dropped();
        if dropped > *told {
            tracing::warn!(
                lane = lane.name,
                records = dropped - *told,
                "retention removed records that a cursor had not read; see `forebay cursors list`"
            );
            *told = dropped;
        }
    }
}
