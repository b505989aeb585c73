//! What the operator sees from outside: metrics and logs.
//!
//! Counting costs the line one relaxed load and one relaxed store on a cache line of its own
//! receiver; everything else is done when somebody scrapes. Labels come from the configuration
//! and from this program, never from a request, so the number of series is bounded.
//!
//! | atomic | written by | read by | ordering | what becomes visible |
//! |---|---|---|---|---|
//! | every [`Count`] and bucket | the one receiver that owns it | the scrape | Relaxed | nothing else: a lone number |
//! | the lists of sources, of secrets, of sinks | configuration loads, by compare-and-swap | the scrape | `ArcSwap` | entries whole |
//!
//! `render.rs` holds every metric name, but those of sinks and replicas, which `sink.rs` and
//! `replica.rs` do. Logs never hold a body, a header value or a secret: no
//! function here takes one.

mod counters;
mod page;
mod render;
mod sink;
mod replica;
pub mod logs;

pub use counters::{
    Count, Latency, Outcome, ReceiverCounters, ReplayFate, SecretCounters, SourceCounters,
};
pub use render::CONTENT_TYPE;
pub use replica::ReplicaOf;
pub use sink::SinkCounters;

use std::fmt;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use forebay_log::{Lane, LaneState, LaneStats, WatermarksRead};

use crate::dedupe;
use crate::quarantine::Quarantine;
use crate::verify::Validity;

/// A moment of one lane, as a scrape and the readiness check need it.
#[derive(Clone, Debug)]
pub struct LaneReading {
    /// Whether it takes records.
    pub state: LaneState,
    /// How far it has come.
    pub watermarks: WatermarksRead,
    /// How far it has acknowledged.
    pub acked: u64,
    /// What the log counted.
    pub stats: LaneStats,
    /// What the dedupe table counted.
    pub dedupe: dedupe::Stats,
}

impl LaneReading {
    /// Reads the lane and its table now.
    pub fn of(lane: &Lane, table: &dedupe::Table) -> Self {
        Self {
            state: lane.state(),
            // Before the watermarks, which only grow: so acked is never above published.
            acked: lane.acked(),
            watermarks: lane.watermarks(),
            stats: lane.stats(),
            dedupe: table.stats(),
        }
    }
}

/// A lane's name and the way to read it.
pub struct Watched {
    name: String,
    read: Box<dyn Fn() -> LaneReading + Send + Sync>,
}

impl Watched {
    /// `read` is called at each scrape and each readiness check.
    pub fn new(
        name: impl Into<String>,
        read: impl Fn() -> LaneReading + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), read: Box::new(read) }
    }

    /// The lane's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The lane now.
    pub fn read(&self) -> LaneReading {
        (self.read)()
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A secret that is loaded: what may be told about it, and its counters.
#[derive(Clone, Debug)]
pub struct LoadedSecret {
    /// Its source.
    pub source: String,
    /// Its name.
    pub name: String,
    /// `mac`, `public-key` or `token`.
    pub kind: &'static str,
    /// When it counts.
    pub validity: Validity,
    /// What is counted of it.
    pub counters: Arc<SecretCounters>,
}

/// Every counter of the process.
#[derive(Debug)]
pub struct Metrics {
    receivers: Vec<Arc<ReceiverCounters>>,
    sources: ArcSwap<Vec<Arc<SourceCounters>>>,
    unknown: Arc<SourceCounters>,
    secrets: ArcSwap<Vec<LoadedSecret>>,
    lanes: Vec<Watched>,
    quarantine: OnceLock<Arc<Quarantine>>,
    sinks: ArcSwap<Vec<Arc<SinkCounters>>>,
    replicas: OnceLock<Vec<ReplicaOf>>,
    reloads_ok: Count,
    reloads_failed: Count,
}

impl Metrics {
    /// Counters for so many receivers, and the lanes to read at each scrape.
    pub fn new(receivers: usize, lanes: Vec<Watched>) -> Self {
        Self {
            receivers: (0..receivers).map(|_| Arc::default()).collect(),
            sources: ArcSwap::default(),
            unknown: Arc::new(SourceCounters::new("", receivers)),
            secrets: ArcSwap::default(),
            lanes,
            quarantine: OnceLock::new(),
            sinks: ArcSwap::default(),
            replicas: OnceLock::new(),
            reloads_ok: Count::default(),
            reloads_failed: Count::default(),
        }
    }

    /// The counters that the receiver with this number alone writes.
    pub fn receiver(&self, index: usize) -> Option<Arc<ReceiverCounters>> {
        self.receivers.get(index).cloned()
    }

    /// The counters of the source with this name: the same ones for the life of the process,
    /// however often the configuration is loaded.
    pub fn source(&self, name: &str) -> Arc<SourceCounters> {
        let new = Arc::new(SourceCounters::new(name, self.receivers.len()));
        let mut found = Arc::clone(&new);
        self.sources.rcu(|sources| {
            if let Some(known) = sources.iter().find(|known| known.name() == name) {
                found = Arc::clone(known);
                return Arc::clone(sources);
            }
            found = Arc::clone(&new);
            Arc::new(sources.iter().chain([&new]).cloned().collect())
        });
        found
    }

    /// The counters of a source's secret: the ones it has if it is loaded already.
    pub fn secret(&self, source: &str, name: &str) -> Arc<SecretCounters> {
        let loaded = self.secrets.load();
        let known = loaded.iter().find(|of| of.source == source && of.name == name);
        let new = || Arc::new(SecretCounters::new(self.receivers.len()));
        known.map_or_else(new, |known| Arc::clone(&known.counters))
    }

    /// These secrets are loaded now, and no others.
    pub fn secrets_loaded(&self, secrets: Vec<LoadedSecret>) {
        self.secrets.store(Arc::new(secrets));
    }

    /// The secrets that are loaded.
    pub fn secrets(&self) -> Arc<Vec<LoadedSecret>> {
        self.secrets.load_full()
    }

    /// For requests that belong to no source; they count under the empty name.
    pub fn unknown(&self) -> &Arc<SourceCounters> {
        &self.unknown
    }

    /// The lanes.
    pub fn lanes(&self) -> &[Watched] {
        &self.lanes
    }

    /// Tells of this quarantine too; the first one stands.
    pub fn watch_quarantine(&self, quarantine: Arc<Quarantine>) {
        drop(self.quarantine.set(quarantine));
    }

    /// Tells of these sinks too, and of no others from now on.
    pub fn watch_sinks(&self, sinks: Vec<Arc<SinkCounters>>) {
        self.sinks.store(Arc::new(sinks));
    }

    /// The sinks that have stopped by a bug and go on only after a restart.
    pub fn stopped_sinks(&self) -> Vec<String> {
        let sinks = self.sinks.load();
        let stopped = sinks.iter().filter(|sink| sink.has_stopped());
        stopped.map(|sink| sink.name().to_owned()).collect()
    }

    /// Tells of these replicas too; the first ones stand.
    pub fn watch_replicas(&self, replicas: Vec<ReplicaOf>) {
        drop(self.replicas.set(replicas));
    }

    /// The replicas, each with the name of its lane.
    pub fn replicas(&self) -> &[ReplicaOf] {
        self.replicas.get().map_or(&[], Vec::as_slice)
    }

    /// A reload of the configuration was taken, or refused. The control thread alone calls this.
    pub fn reloaded(&self, taken: bool) {
        if taken { self.reloads_ok.add(1) } else { self.reloads_failed.add(1) }
    }
}
