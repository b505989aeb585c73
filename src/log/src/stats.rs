//! What a lane counts about itself. Nothing here orders anything: every access is relaxed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets for each doubling of a duration.
const STEPS: u64 = 4;
/// The first bucket ends at 1024 ns, the last begins at about 34 s.
const FIRST_BITS: u32 = 10;
const BUCKETS: usize = 25 * 4 + 1;

/// Durations in buckets that grow by a quarter of each power of two.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            sum_ns: AtomicU64::new(0),
            max_ns: AtomicU64::new(0),
        }
    }
}

/// Durations as counted so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durations {
    /// How many durations were not longer than so many nanoseconds and longer than the bound
    /// before; in rising order, empty buckets left out. The last bound is `u64::MAX`.
    pub buckets: Vec<(u64, u64)>,
    /// All durations together.
    pub sum: Duration,
    /// The longest.
    pub max: Duration,
}

impl Durations {
    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

/// The bucket of a duration.
fn bucket_of(ns: u64) -> usize {
    let bits = u64::BITS - ns.leading_zeros();
    if bits <= FIRST_BITS {
        return 0;
    }
    let octave = u64::from(bits - FIRST_BITS - 1);
    let step = (ns >> (bits - 3)) & (STEPS - 1);
    usize::try_from(1 + octave * STEPS + step).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The longest duration that belongs in a bucket.
fn bound_of(bucket: usize) -> u64 {
    if bucket >= BUCKETS - 1 {
        return u64::MAX;
    }
    let Some(above) = (bucket as u64).checked_sub(1) else { return (1 << FIRST_BITS) - 1 };
    let (octave, step) = (above / STEPS, above % STEPS);
    ((STEPS + step + 1) << (u64::from(FIRST_BITS) - 2 + octave)) - 1
}

impl Histogram {
    pub(crate) fn record(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(bucket_of(ns)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
        self.max_ns.fetch_max(ns, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Durations {
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        Durations {
            buckets: counts
                .enumerate()
                .filter(|(_, count)| *count > 0)
                .map(|(bucket, count)| (bound_of(bucket), count))
                .collect(),
            sum: Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed)),
            max: Duration::from_nanos(self.max_ns.load(Ordering::Relaxed)),
        }
    }
}

/// A number that only grows, or a level that is set.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, level: u64) {
        self.0.store(level, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of a lane, shared by appenders and keeper.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) records: Count,
    pub(crate) pads: Count,
    pub(crate) synced_bytes: Count,
    pub(crate) syncs: Histogram,
    pub(crate) stores: Histogram,
    pub(crate) stalls: Histogram,
    pub(crate) sync_failures: Count,
    pub(crate) salvages: Count,
    pub(crate) segments: Count,
    pub(crate) segments_created: Count,
    pub(crate) segments_retired: Count,
    pub(crate) unread_segments: Count,
    pub(crate) unread_records: Count,
    pub(crate) bytes: Count,
    pub(crate) available_bytes: Count,
    pub(crate) full_refusals: Count,
}

/// What a lane has counted since it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneStats {
    /// Records published, fillers not among them.
    pub records: u64,
    /// Fillers published: rolls and abandoned claims.
    pub pads: u64,
    /// Bytes handed to the medium.
    pub synced_bytes: u64,
    /// How long each sync took.
    pub syncs: Durations,
    /// How long a record took from claim to publication; one of every 16 is timed.
    pub stores: Durations,
    /// How long publication stood still behind a record that was claimed, wherever the keeper saw
    /// that twice: it looks every few milliseconds, or after each sync. Every such stall, not a
    /// sample; it costs a producer nothing.
    pub stalls: Durations,
    /// Syncs that failed.
    pub sync_failures: u64,
    /// Segments whose records were saved into another file after that; if a sync has failed and
    /// this did not help, the lane has failed.
    pub salvages: u64,
    /// Segments that the lane has now.
    pub segments: u64,
    /// Segments made.
    pub segments_created: u64,
    /// Segments that retention removed.
    pub segments_retired: u64,
    /// Segments that retention removed although a cursor had not read them.
    pub unread_segments: u64,
    /// Records in them.
    pub unread_records: u64,
    /// Bytes of the disk that the segments take now.
    pub bytes: u64,
    /// Bytes that the file system had left when last asked.
    pub available_bytes: u64,
    /// Appends that were refused because the lane was full.
    pub full_refusals: u64,
}

impl Stats {
    pub(crate) fn read(&self) -> LaneStats {
        LaneStats {
            records: self.records.read(),
            pads: self.pads.read(),
            synced_bytes: self.synced_bytes.read(),
            syncs: self.syncs.read(),
            stores: self.stores.read(),
            stalls: self.stalls.read(),
            sync_failures: self.sync_failures.read(),
            salvages: self.salvages.read(),
            segments: self.segments.read(),
            segments_created: self.segments_created.read(),
            segments_retired: self.segments_retired.read(),
            unread_segments: self.unread_segments.read(),
            unread_records: self.unread_records.read(),
            bytes: self.bytes.read(),
            available_bytes: self.available_bytes.read(),
            full_refusals: self.full_refusals.read(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_lies_under_the_bound_of_its_bucket_and_over_the_one_before() {
        for ns in (0..64_u32).map(|bits| 1_u64.checked_shl(bits).unwrap_or(0)) {
            for ns in [ns.saturating_sub(1), ns, ns + ns / 3, ns + ns / 2] {
                let bucket = bucket_of(ns);
                assert!(ns <= bound_of(bucket), "{ns} in bucket {bucket}");
                assert!(bucket == 0 || ns > bound_of(bucket - 1), "{ns} in bucket {bucket}");
            }
        }
    }

    #[test]
    fn a_histogram_counts_and_sums() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_micros(3));
        histogram.record(Duration::from_millis(3));
        let read = histogram.read();
        assert_eq!(read.count(), 2);
        assert_eq!(read.max, Duration::from_millis(3));
        assert_eq!(read.sum, Duration::from_micros(3003));
    }
}
