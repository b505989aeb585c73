//! How much of the quarantine one source may fill, and one peer of it.
//!
//! A token bucket in one word, the moment at which it is full again: a request is kept if it
//! moves that moment no further than the bucket's whole depth ahead of now. One that is spent is
//! only read, so a flood of forgeries costs each receiver one load of a line that nobody writes.
//!
//! | atomic | written by | read by | ordering | what becomes visible |
//! |---|---|---|---|---|
//! | `full_at_ns` | receivers that keep a request, by compare-and-swap | receivers that refuse one | Relaxed | nothing else: a lone number |
//! | the counts | receivers that refuse one | the scrape | Relaxed | nothing else: lone numbers |

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::utils::CachePadded;

/// Groups of peers of one source, by a keyed hash of their address.
const PEER_GROUPS: usize = 8;
/// What one group may fill of the share of its source.
const PEER_PART: u64 = 4;
/// In how long a share grows back, where the configuration names no rate.
const DAY: Duration = Duration::from_secs(86_400);
/// A change that loses so often to others is given up.
const TRIES: usize = 4;

/// The bounds of every source's share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    bytes: u64,
    /// In how long all of it grows back.
    period_ns: u64,
}

impl Bounds {
    /// Each source's share: together they fill one half of `bytes` at once and, by the default
    /// rate, the other half in a day. So nothing that is kept is pushed out within a day, whatever
    /// anybody sends.
    pub(super) fn new(bytes: u64, sources: usize, rate: Option<u64>) -> Self {
        let bytes = bytes / 2 / (sources.max(1) as u64);
        let nanos = match rate {
            None => DAY.as_nanos(),
            Some(rate) => u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1)),
        };
        // Half of the range, so that nothing added to a time overflows.
        let period_ns = u64::try_from(nanos).unwrap_or(u64::MAX).clamp(1, u64::MAX / 4);
        Self { bytes, period_ns }
    }

    /// How far a request of so many bytes moves the moment.
    fn cost_ns(self, bytes: u64) -> u64 {
        let cost = u128::from(bytes) * u128::from(self.period_ns) / u128::from(self.bytes.max(1));
        u64::try_from(cost).unwrap_or(u64::MAX)
    }
}

/// One bucket.
#[derive(Debug, Default)]
struct Bucket {
    full_at_ns: AtomicU64,
}

impl Bucket {
    /// Takes `cost_ns` out of a bucket that is `depth_ns` deep, if so much is in it.
    fn take(&self, now_ns: u64, cost_ns: u64, depth_ns: u64) -> bool {
        for _ in 0..TRIES {
            let full_at_ns = self.full_at_ns.load(Ordering::Relaxed); // Relaxed: a lone number.
            let moved = full_at_ns.max(now_ns).saturating_add(cost_ns);
            if moved - now_ns > depth_ns {
                return false;
            }
            let swapped = self.full_at_ns.compare_exchange(
                full_at_ns,
                moved,
                Ordering::Relaxed, // Relaxed: a lone number.
                Ordering::Relaxed,
            );
            if swapped.is_ok() {
                return true;
            }
        }
        false
    }
}

/// What became of a refused request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is in the quarantine.
    Kept,
    /// Its source, or peers of its kind, have filled their share.
    OverShare,
    /// Its body was not there yet when it was refused.
    Unread,
    /// The lane took it not: the disk is full, or the request too large.
    NoRoom,
}

impl Fate {
    /// Every fate, in the order of its number.
    pub const ALL: [Self; 4] = [Self::Kept, Self::OverShare, Self::Unread, Self::NoRoom];

    /// The value of the label `fate`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::OverShare => "over_share",
            Self::Unread => "unread",
            Self::NoRoom => "no_room",
        }
    }
}

/// The share of one source.
#[derive(Debug, Default)]
pub struct Share {
    whole: CachePadded<Bucket>,
    peers: [Bucket; PEER_GROUPS],
    fates: CachePadded<[AtomicU64; Fate::ALL.len()]>,
}

impl Share {
    /// Takes `bytes` for a peer with this hash, if they are there.
    pub(super) fn take(&self, bounds: Bounds, now_ns: u64, bytes: u64, peer: u8) -> bool {
        let cost_ns = bounds.cost_ns(bytes);
        let group = self.peers.get(usize::from(peer) % PEER_GROUPS);
        group.is_some_and(|group| group.take(now_ns, cost_ns, bounds.period_ns / PEER_PART))
            && self.whole.take(now_ns, cost_ns, bounds.period_ns)
    }

    /// Counts one request.
    pub(super) fn count(&self, fate: Fate) {
        if let Some(count) = self.fates.get(fate as usize) {
            count.fetch_add(1, Ordering::Relaxed); // Relaxed: a lone number.
        }
    }

    /// How many requests had this fate.
    pub fn requests(&self, fate: Fate) -> u64 {
        self.fates.get(fate as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_NS: u64 = 86_400_000_000_000;

    /// Bytes that a source gets in at this moment, from peers of every kind.
    fn fill(share: &Share, bounds: Bounds, now_ns: u64, peers: std::ops::Range<u8>) -> u64 {
        let mut bytes = 0;
        for peer in peers {
            while share.take(bounds, now_ns, 1_000, peer) {
                bytes += 1_000;
            }
        }
        bytes
    }

    #[test]
    fn a_flood_fills_its_share_and_then_what_grows_back() {
        let bounds = Bounds::new(64_000_000, 4, None);
        let share = Share::default();
        assert_eq!(fill(&share, bounds, 0, 0..1), 2_000_000, "one peer: a quarter");
        assert_eq!(fill(&share, bounds, 0, 0..8), 6_000_000, "all peers: the whole");
        assert_eq!(fill(&share, bounds, 0, 0..8), 0);
        let half_a_day = fill(&share, bounds, DAY_NS / 2, 0..8);
        assert!((3_999_000..=4_000_000).contains(&half_a_day), "{half_a_day}");
        let a_year_later = fill(&share, bounds, 365 * DAY_NS, 0..8);
        assert_eq!(a_year_later, 8_000_000, "never more than the share");
    }

    #[test]
    fn within_a_day_all_sources_together_cannot_push_out_what_is_kept() {
        const SIZE: u64 = 64 << 20;
        for sources in [1, 3, 50] {
            let bounds = Bounds::new(SIZE, sources, None);
            let shares: Vec<Share> = (0..sources).map(|_| Share::default()).collect();
            let mut bytes = 0;
            for hour in 0..=24 {
                for share in &shares {
                    bytes += fill(share, bounds, hour * DAY_NS / 24, 0..8);
                }
            }
            assert!(bytes <= SIZE, "{sources} sources: {bytes}");
            assert!(bytes > SIZE * 9 / 10, "{sources} sources: {bytes}");
        }
    }

    #[test]
    fn a_rate_of_ones_own_is_kept_to() {
        let bounds = Bounds::new(2_000_000, 1, Some(1_000));
        let share = Share::default();
        assert_eq!(fill(&share, bounds, 0, 0..8), 1_000_000);
        assert_eq!(fill(&share, bounds, 10_000_000_000, 0..8), 10_000);
        for (bytes, rate) in [(u64::MAX, Some(1)), (0, None), (1, Some(u64::MAX))] {
            let bounds = Bounds::new(bytes, 0, rate);
            assert!(!Share::default().take(bounds, u64::MAX / 2, u64::MAX, 0), "{bytes} {rate:?}");
        }
    }
}
