//! What the operator sees from outside: metrics and logs.
//!
//! Counting costs the line one relaxed load and one relaxed store on a cache line of its own
//! receiver; everything else is done when somebody scrapes. Labels come from the configuration
//! and from this program, never from a request, so the number of series is bounded.
//!
//! | atomic | written by | read by | ordering | what becomes visible |
//! |---|---|---|---|---|
//! | every [`Count`] and bucket | the one receiver that owns it | the scrape | Relaxed | nothing else: a lone number |
//! | the list of sources | configuration loads, by compare-and-swap | the scrape | `ArcSwap` | sources whole |
//!
//! `render.rs` holds every metric name. Logs never hold a body, a header value or a secret: no
//! function here takes one.

mod counters;
mod render;
pub mod logs;

pub use counters::{Count, Latency, Outcome, ReceiverCounters, SourceCounters};
pub use render::CONTENT_TYPE;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use forebay_log::{Lane, LaneState, LaneStats, WatermarksRead};

use crate::dedupe;

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

/// Every counter of the process.
#[derive(Debug)]
pub struct Metrics {
    receivers: Vec<Arc<ReceiverCounters>>,
    sources: ArcSwap<Vec<Arc<SourceCounters>>>,
    unknown: Arc<SourceCounters>,
    lanes: Vec<Watched>,
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
            lanes,
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

    /// For requests that belong to no source; they count under the empty name.
    pub fn unknown(&self) -> &Arc<SourceCounters> {
        &self.unknown
    }

    /// The lanes.
    pub fn lanes(&self) -> &[Watched] {
        &self.lanes
    }

    /// A reload of the configuration was taken, or refused. The control thread alone calls this.
    pub fn reloaded(&self, taken: bool) {
        if taken { self.reloads_ok.add(1) } else { self.reloads_failed.add(1) }
    }
}
