//! What was refused, for looking at and for verifying again once a secret is mended.
//!
//! ```text
//! refused request --> Seat --> lane "quarantine/log" --> list, show, verify (any process)
//!                   (share)            |
//!                                      +--> release --> the line again: verify .. dedupe, append
//! ```
//!
//! It must not slow or endanger the line. So a request comes here after its refusal is decided;
//! every source has a share of the bytes, and so has every group of its peers, so that nobody who
//! sends forgeries pushes out what an operator needs; what does not fit is counted and forgotten;
//! the lane leaves more of the disk free than any other; and without it forebay starts and serves
//! all the same.
//!
//! A release changes nothing here. It is the request once more, judged by the time at which it
//! first arrived, through the one line that there is; that it is kept once is what dedupe does. So
//! a release may be killed or run again, within the window of the request's lane.
//!
//! Credentials that are not bound to one request are kept as keyed digests only.

mod held;
mod release;
mod seat;
mod share;
mod spool;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use forebay_log::{AckLevel, Clock, Lane, LaneOptions, OpenError, Retention, SEGMENT_BYTES_MIN};

pub use self::held::HeldRequest;
pub(crate) use self::release::Readmit;
pub use self::release::{Release, Released, Releaser};
pub use self::seat::{Refused, Seat};
pub use self::share::{Fate, Share};
pub use self::spool::{Spool, SpoolError, attend};

use self::share::Bounds;
use crate::config::{LaneConfig, QuarantineConfig};
use crate::dedupe::Fingerprinter;

/// Segments that the lane is made of, so that retention is not too coarse.
const SEGMENTS: u64 = 8;
const SEGMENT_BYTES_MAX: u64 = 16 * 1024 * 1024;
const PAGE_BYTES: u64 = 4096;

/// The folder of the lane.
pub fn log_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("quarantine").join("log")
}

/// The quarantine of one running forebay.
#[derive(Debug)]
pub struct Quarantine {
    log: Lane,
    config: QuarantineConfig,
    sources: ArcSwap<Sources>,
    fingerprinter: Fingerprinter,
    opened: Instant,
}

/// The sources of one load of the configuration, and what each may fill.
#[derive(Debug)]
struct Sources {
    bounds: Bounds,
    shares: HashMap<String, Arc<Share>>,
}

impl Quarantine {
    /// Opens the lane of a server; nothing if it is not wanted or cannot be opened, which is no
    /// reason not to serve.
    pub fn start(
        (data_dir, config): (&Path, &QuarantineConfig),
        lanes: &[LaneConfig],
        fingerprinter: &Fingerprinter,
        clock: &Clock,
    ) -> Option<Arc<Self>> {
        if config.bytes == 0 {
            return None;
        }
        let reserve_bytes = reserve_bytes(data_dir, config, lanes);
        match Self::open(data_dir, config, reserve_bytes, fingerprinter.clone(), clock) {
            Ok(quarantine) => Some(Arc::new(quarantine)),
            Err(error) => {
                tracing::warn!(%error, "refused requests are not kept");
                None
            }
        }
    }

    fn open(
        data_dir: &Path,
        config: &QuarantineConfig,
        disk_reserve_bytes: u64,
        fingerprinter: Fingerprinter,
        clock: &Clock,
    ) -> Result<Self, OpenError> {
        let dir = log_dir(data_dir);
        let made = fs::DirBuilder::new().recursive(true).mode(0o750).create(&dir);
        made.map_err(|error| OpenError::Io { path: dir.clone(), error })?;
        let segment_bytes = (config.bytes / SEGMENTS).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let options = LaneOptions {
            segment_bytes: segment_bytes / PAGE_BYTES * PAGE_BYTES,
            ack: AckLevel::Written,
            retention: Retention { age: Some(config.age), bytes: Some(config.bytes) },
            disk_reserve_bytes: Some(disk_reserve_bytes),
            clock: clock.clone(),
            ..LaneOptions::default()
        };
        let (log, _) = Lane::open(&dir, options)?;
        let bounds = Bounds::new(config.bytes, 0, config.rate);
        let sources = ArcSwap::from_pointee(Sources { bounds, shares: HashMap::new() });
        let opened = clock.monotonic();
        Ok(Self { log, config: config.clone(), sources, fingerprinter, opened })
    }

    /// Divides the bytes among these sources; one that was there before keeps what it has used.
    pub fn divide<'s>(&self, names: impl ExactSizeIterator<Item = &'s str>) {
        let bounds = Bounds::new(self.config.bytes, names.len(), self.config.rate);
        let known = self.sources.load();
        let share = |name: &str| known.shares.get(name).cloned().unwrap_or_default();
        let shares = names.map(|name| (name.to_owned(), share(name))).collect();
        self.sources.store(Arc::new(Sources { bounds, shares }));
    }

    /// A receiver's seat.
    pub fn seat(self: &Arc<Self>) -> Seat {
        Seat::new(Arc::clone(self), self.log.appender())
    }

    /// What each source has left here, by name.
    pub fn shares(&self) -> Vec<(String, Arc<Share>)> {
        let sources = self.sources.load();
        let mut shares: Vec<_> =
            sources.shares.iter().map(|(name, share)| (name.clone(), Arc::clone(share))).collect();
        shares.sort_by(|(one, _), (other, _)| one.cmp(other));
        shares
    }

    /// Disk that it takes.
    pub fn bytes(&self) -> u64 {
        self.log.stats().bytes
    }

    /// Seals what is there and takes no more.
    pub fn close(&self) {
        self.log.close();
    }

    fn share(&self, source: &str) -> Option<Arc<Share>> {
        self.sources.load().shares.get(source).cloned()
    }

    fn bounds(&self) -> Bounds {
        self.sources.load().bounds
    }

    fn elapsed_ns(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.opened).as_nanos()).unwrap_or(u64::MAX / 2)
    }
}

/// What it leaves free of the disk: more than any lane does by twice its own size, so that it
/// stops before them.
fn reserve_bytes(data_dir: &Path, config: &QuarantineConfig, lanes: &[LaneConfig]) -> u64 {
    let disk_bytes = rustix::fs::statvfs(data_dir).map_or(0, |disk| disk.f_frsize * disk.f_blocks);
    let of_lanes = lanes.iter().map(|lane| lane.reserve_bytes(disk_bytes));
    of_lanes.fold(0, u64::max).saturating_add(2 * config.bytes)
}
