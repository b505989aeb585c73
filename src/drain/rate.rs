//! Events a second at the most: the generic cell rate algorithm (ITU-T I.371), in its form as a
//! virtual schedule.
//!
//! A batch may go when the schedule is not ahead of the clock, and puts it ahead by as many
//! intervals as it has events. So a batch is never split for the rate, and the next one waits
//! until the whole of it is paid for.

use std::time::{Duration, Instant};

/// The schedule.
#[derive(Debug)]
pub(super) struct Rate {
    interval: Duration,
    /// The theoretical arrival time of the next event.
    next: Instant,
}

impl Rate {
    /// So many events a second, which is not zero.
    pub(super) fn new(per_second: u64, now: Instant) -> Self {
        let interval = Duration::from_nanos(1_000_000_000 / per_second.max(1));
        Self { interval, next: now }
    }

    /// When the next batch may go.
    pub(super) const fn next(&self) -> Instant {
        self.next
    }

    /// A batch of so many events goes now.
    pub(super) fn took(&mut self, events: usize, now: Instant) {
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        self.next = self.next.max(now) + self.interval.saturating_mul(events);
    }
}

#[cfg(test)]
mod tests {
    use forebay_log::Clock;

    use super::*;

    #[test]
    fn over_a_while_no_more_go_than_the_rate_allows() {
        let start = Clock::System.monotonic();
        let (mut rate, mut now, mut sent) = (Rate::new(100, start), start, 0);
        while now < start + Duration::from_secs(60) {
            if rate.next() <= now {
                rate.took(7, now);
                sent += 7;
            }
            now += Duration::from_millis(3);
        }
        // One batch is ahead; and a look each 3 ms loses up to that after each batch.
        assert!((5700..=6007).contains(&sent), "{sent}");
    }

    #[test]
    fn what_was_not_used_is_not_saved_up() {
        let start = Clock::System.monotonic();
        let mut rate = Rate::new(10, start);
        let later = start + Duration::from_secs(3600);
        rate.took(1, later);
        assert_eq!(rate.next(), later + Duration::from_millis(100));
    }
}
