//! Numbers with one writer each: counting is a load and a store, never a locked instruction.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::utils::CachePadded;

use crate::reject::Reject;

/// A number that one thread writes and any thread reads. Two writers would lose counts, nothing
/// worse.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds.
    pub fn add(&self, more: u64) {
        self.set(self.read().wrapping_add(more));
    }

    /// Takes away; not below zero.
    pub fn sub(&self, less: u64) {
        self.set(self.read().saturating_sub(less));
    }

    /// Sets a level.
    pub fn set(&self, level: u64) {
        self.0.store(level, Ordering::Relaxed); // Relaxed: a lone number.
    }

    /// The number now.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed) // Relaxed: a lone number.
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A new event, acknowledged.
    Accepted,
    /// A later delivery of a known event, acknowledged.
    Duplicate,
    /// A handshake, answered.
    Handshake,
    /// Turned away.
    Rejected(Reject),
}

impl Outcome {
    const COUNT: usize = 3 + Reject::ALL.len();

    /// The value of the label `outcome`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Handshake => "handshake",
            Self::Rejected(reject) => reject.label(),
        }
    }

    /// In the order of [`Outcome::all`].
    const fn index(self) -> usize {
        match self {
            Self::Accepted => 0,
            Self::Duplicate => 1,
            Self::Handshake => 2,
            Self::Rejected(reject) => 3 + reject as usize,
        }
    }

    /// Every outcome.
    pub fn all() -> impl Iterator<Item = Self> {
        let rejected = Reject::ALL.into_iter().map(Self::Rejected);
        [Self::Accepted, Self::Duplicate, Self::Handshake].into_iter().chain(rejected)
    }
}

/// What one receiver counted of one source.
#[derive(Debug)]
struct Share {
    outcomes: [Count; Outcome::COUNT],
    body_bytes: Count,
    unconfirmed: Count,
    replays: [Count; ReplayFate::ALL.len()],
}

/// What became of signed bytes that came again under another id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayFate {
    /// They are an event, marked.
    Kept,
    /// They are a delivery of the first.
    Dropped,
}

impl ReplayFate {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Kept, Self::Dropped];

    /// The value of the label `fate`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Dropped => "dropped",
        }
    }
}

/// The counters of one source: a share for each receiver, on cache lines of its own.
#[derive(Debug)]
pub struct SourceCounters {
    name: String,
    shares: Box<[CachePadded<Share>]>,
    confirmed: Count,
    unconfirmed: Count,
}

impl SourceCounters {
    pub(super) fn new(name: &str, receivers: usize) -> Self {
        let share = || Share {
            outcomes: [const { Count(AtomicU64::new(0)) }; Outcome::COUNT],
            body_bytes: Count::default(),
            unconfirmed: Count::default(),
            replays: Default::default(),
        };
        Self {
            name: name.to_owned(),
            shares: (0..receivers).map(|_| CachePadded::new(share())).collect(),
            confirmed: Count::default(),
            unconfirmed: Count::default(),
        }
    }

    /// The source's name; empty for requests that belong to none.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One request of this source ended at this receiver.
    pub fn count(&self, receiver: usize, outcome: Outcome) {
        let share = self.shares.get(receiver);
        if let Some(count) = share.and_then(|share| share.outcomes.get(outcome.index())) {
            count.add(1);
        }
    }

    /// Body bytes of this source arrived at this receiver.
    pub fn received(&self, receiver: usize, body_bytes: u64) {
        if let Some(share) = self.shares.get(receiver) {
            share.body_bytes.add(body_bytes);
        }
    }

    /// Requests that ended so, at all receivers.
    pub fn requests(&self, outcome: Outcome) -> u64 {
        let counts = self.shares.iter().filter_map(|share| share.outcomes.get(outcome.index()));
        counts.map(Count::read).sum()
    }

    /// Signed bytes came to this receiver again under another id.
    pub fn suspect_replay(&self, receiver: usize, fate: ReplayFate) {
        if let Some(share) = self.shares.get(receiver) {
            share.replays[fate as usize].add(1);
        }
    }

    /// How often they came so, at all receivers.
    pub fn suspect_replays(&self, fate: ReplayFate) -> u64 {
        self.shares.iter().map(|share| share.replays[fate as usize].read()).sum()
    }

    /// A subscription was confirmed, or could not be. The thread that asks alone calls this.
    pub fn confirmation(&self, confirmed: bool) {
        if confirmed { self.confirmed.add(1) } else { self.unconfirmed.add(1) }
    }

    /// A subscription is not confirmed, since too many wait for it.
    pub fn not_confirmed(&self, receiver: usize) {
        if let Some(share) = self.shares.get(receiver) {
            share.unconfirmed.add(1);
        }
    }

    /// Subscriptions that were confirmed, and those that were not.
    pub fn confirmations(&self) -> (u64, u64) {
        let left: u64 = self.shares.iter().map(|share| share.unconfirmed.read()).sum();
        (self.confirmed.read(), left + self.unconfirmed.read())
    }

    /// Body bytes that arrived at all receivers.
    pub fn body_bytes(&self) -> u64 {
        self.shares.iter().map(|share| share.body_bytes.read()).sum()
    }
}

/// How often and when a secret last matched: a share for each receiver.
#[derive(Debug)]
pub struct SecretCounters(Box<[CachePadded<Matched>]>);

#[derive(Debug, Default)]
struct Matched {
    uses: Count,
    last_ns: Count,
}

impl SecretCounters {
    pub(super) fn new(receivers: usize) -> Self {
        Self((0..receivers).map(|_| CachePadded::default()).collect())
    }

    /// The secret matched a request of this receiver that arrived now.
    pub fn matched(&self, receiver: usize, now_ns: u64) {
        if let Some(share) = self.0.get(receiver) {
            share.uses.add(1);
            share.last_ns.set(now_ns);
        }
    }

    /// Requests that it matched.
    pub fn uses(&self) -> u64 {
        self.0.iter().map(|share| share.uses.read()).sum()
    }

    /// When it last matched one, in nanoseconds since 1970.
    pub fn last_used_ns(&self) -> Option<u64> {
        self.0.iter().map(|share| share.last_ns.read()).max().filter(|last| *last > 0)
    }
}

/// What one receiver counts about itself.
#[derive(Debug, Default)]
pub struct ReceiverCounters(CachePadded<Receiver>);

#[derive(Debug, Default)]
struct Receiver {
    driver: OnceLock<&'static str>,
    opened: Count,
    open: Count,
    turned_away: Count,
    in_flight_bytes: Count,
    latency: Latency,
}

impl ReceiverCounters {
    /// The driver that the receiver's runtime picked; the first call stands.
    pub fn runs_on(&self, driver: &'static str) {
        let _ = self.0.driver.set(driver);
    }

    /// A connection was accepted.
    pub fn connected(&self) {
        self.0.opened.add(1);
        self.0.open.add(1);
    }

    /// A connection ended.
    pub fn disconnected(&self) {
        self.0.open.sub(1);
    }

    /// A connection was not taken, since its address has too many.
    pub fn turned_away(&self) {
        self.0.turned_away.add(1);
    }

    /// How many body bytes the receiver holds now.
    pub fn holds(&self, in_flight_bytes: u64) {
        self.0.in_flight_bytes.set(in_flight_bytes);
    }

    /// An acknowledgement was answered so long after the end of the request's head.
    pub fn acked(&self, after: Duration) {
        self.0.latency.record(after);
    }

    pub(super) fn driver(&self) -> Option<&'static str> {
        self.0.driver.get().copied()
    }

    pub(super) fn opened(&self) -> u64 {
        self.0.opened.read()
    }

    pub(super) fn open(&self) -> u64 {
        self.0.open.read()
    }

    pub(super) fn connections_turned_away(&self) -> u64 {
        self.0.turned_away.read()
    }

    pub(super) fn in_flight_bytes(&self) -> u64 {
        self.0.in_flight_bytes.read()
    }

    pub(super) fn latency(&self) -> &Latency {
        &self.0.latency
    }
}

/// The first bucket ends at 2^13 ns, about 8 microseconds.
const FIRST_BITS: u32 = 13;
/// Up to 2^34 ns, about 17 s; longer goes to the last bucket.
const OCTAVES: u32 = 21;
/// Buckets for each doubling.
const STEPS: u64 = 4;
/// The first, four for each doubling, the last.
const BUCKETS: usize = 1 + 4 * (OCTAVES as usize) + 1;

/// Durations in buckets a quarter of a doubling wide: a quantile is right within a fifth.
#[derive(Debug)]
pub struct Latency {
    buckets: [Count; BUCKETS],
    sum_ns: Count,
}

impl Default for Latency {
    fn default() -> Self {
        Self { buckets: [const { Count(AtomicU64::new(0)) }; BUCKETS], sum_ns: Count::default() }
    }
}

impl Latency {
    /// Counts one. One thread alone calls this.
    pub fn record(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if let Some(count) = self.buckets.get(bucket_of(ns)) {
            count.add(1);
        }
        self.sum_ns.add(ns);
    }

    /// The upper bound of each bucket in nanoseconds and what it holds; the last has no bound.
    pub fn read(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        self.buckets.iter().enumerate().map(|(bucket, count)| (bound_of(bucket), count.read()))
    }

    /// All durations together.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_ns.read())
    }
}

/// The bucket of a duration: its doubling, then its quarter of it. Bounds are inclusive.
fn bucket_of(ns: u64) -> usize {
    let below = ns.saturating_sub(1);
    let bits = u64::BITS - below.leading_zeros();
    if bits <= FIRST_BITS {
        return 0;
    }
    let octave = u64::from(bits - 1 - FIRST_BITS);
    let step = (below >> (bits - 3)) & (STEPS - 1);
    usize::try_from(1 + octave * STEPS + step).map_or(BUCKETS - 1, |index| index.min(BUCKETS - 1))
}

/// The longest duration that a bucket holds; none for the last.
fn bound_of(bucket: usize) -> Option<u64> {
    if bucket == BUCKETS - 1 {
        return None;
    }
    let Some(above) = (bucket as u64).checked_sub(1) else { return Some(1 << FIRST_BITS) };
    let (octave, step) = (above / STEPS, above % STEPS);
    Some((STEPS + step + 1) << (u64::from(FIRST_BITS) - 2 + octave))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_lies_in_the_first_bucket_whose_bound_it_does_not_pass() {
        let probes = (0..64).flat_map(|bits| {
            let power = 1_u64 << bits;
            [power - 1, power, power + 1, power + power / 4, power + power / 4 + 1]
        });
        for ns in probes {
            let bucket = bucket_of(ns);
            assert!(bound_of(bucket).is_none_or(|bound| ns <= bound), "{ns} in {bucket}");
            let before = bucket.checked_sub(1).and_then(bound_of);
            assert!(before.is_none_or(|bound| ns > bound), "{ns} in {bucket}");
        }
        assert_eq!(bound_of(0), Some(8_192));
        assert_eq!(bound_of(BUCKETS - 2), Some(1 << (FIRST_BITS + OCTAVES)));
    }

    #[test]
    fn every_outcome_has_a_counter_and_a_label_of_its_own() {
        let all: Vec<_> = Outcome::all().collect();
        assert_eq!(all.len(), Outcome::COUNT);
        for (index, outcome) in all.iter().enumerate() {
            assert_eq!(outcome.index(), index, "{outcome:?} stands elsewhere in Reject::ALL");
            let label = outcome.label();
            assert_eq!(all.iter().filter(|other| other.label() == label).count(), 1, "{label}");
        }
    }

    #[test]
    fn a_source_adds_up_its_receivers_and_ignores_one_that_does_not_exist() {
        let source = SourceCounters::new("stripe", 2);
        source.count(0, Outcome::Accepted);
        source.count(1, Outcome::Accepted);
        source.count(2, Outcome::Accepted);
        source.count(1, Outcome::Rejected(Reject::Panicked));
        source.received(0, 10);
        source.received(1, 5);
        assert_eq!(source.requests(Outcome::Accepted), 2);
        assert_eq!(source.requests(Outcome::Rejected(Reject::Panicked)), 1);
        assert_eq!(source.body_bytes(), 15);
    }

    #[test]
    fn receivers_share_no_cache_line() {
        assert_eq!(align_of::<ReceiverCounters>(), align_of::<CachePadded<u8>>());
        assert_eq!(align_of::<CachePadded<Share>>(), align_of::<CachePadded<u8>>());
    }
}
