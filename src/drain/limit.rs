//! How many batches may be in flight at once: as many as the sink takes without getting slower.
//!
//! The algorithm is Gradient2 of Netflix's `concurrency-limits`
//! (<https://github.com/Netflix/concurrency-limits>, `Gradient2Limit.java`): the limit follows the
//! ratio of the latency as it long was to the latency as it is, and grows by a small allowance for
//! queueing while that ratio is one. What that leaves out is a destination that says no: there the
//! limit goes back by a tenth, as in the `AIMDLimit` of the same library.
//!
//! A sample is the mean of a window, as in its `WindowedLimit`. Answer by answer a fast destination
//! would have its long latency forgotten within the second in which it became slow, and the limit
//! would climb to its maximum on a queue of its own making. Until latency rises for the first time
//! the limit grows by a fifth a window, as there is nothing yet to be careful of. `limit.svg` shows
//! all of that, as `forebay-loadtest drain limit --svg FILE` draws it.

use std::time::{Duration, Instant};

/// Batches that may queue at the destination: this is what the limit grows by while all is well.
const QUEUE: f64 = 2.0;
/// Latency may rise by half before the limit is lowered for it.
const TOLERANCE: f64 = 1.5;
/// How much of a newly computed limit counts.
const SMOOTHING: f64 = 0.2;
/// What is answered within this is one sample.
const WINDOW: Duration = Duration::from_millis(100);
/// Samples over which the long latency is averaged.
const LONG_WINDOW: f64 = 600.0;
/// Samples until that average is one; before, it is the plain mean.
const WARM_UP: f64 = 10.0;
/// What is left of the limit after a refusal for load.
const BACKOFF: f64 = 0.9;
/// Where it begins.
const START: f64 = 4.0;

/// The limit as it adapts.
#[derive(Debug)]
pub(super) struct Limit {
    max: f64,
    batches: f64,
    /// Latency as it long was, in seconds.
    long: f64,
    samples: f64,
    window: Option<Window>,
    /// Latency has not risen and nothing was refused since the start.
    climbing: bool,
}

/// Answers that make one sample.
#[derive(Clone, Copy, Debug)]
struct Window {
    since: Instant,
    count: f64,
    /// Latencies in seconds, together.
    sum: f64,
    in_flight_max: usize,
}

impl Limit {
    /// Never more than `max` batches, never less than one.
    pub(super) fn new(max: usize) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "at most 4096")]
        let max = max.max(1) as f64;
        Self { max, batches: START.min(max), long: 0.0, samples: 0.0, window: None, climbing: true }
    }

    /// Batches that may be in flight now.
    pub(super) fn now(&self) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 1 and the maximum, which was a usize"
        )]
        let whole = self.batches as usize;
        whole.max(1)
    }

    /// A batch was answered after `latency`; `in_flight` were when it began, itself included.
    pub(super) fn answered(&mut self, latency: Duration, in_flight: usize, now: Instant) {
        // The first answer stands for a window of its own.
        let since = now.checked_sub(WINDOW).unwrap_or(now);
        let empty = Window { since, count: 0.0, sum: 0.0, in_flight_max: 0 };
        let window = self.window.get_or_insert(empty);
        window.count += 1.0;
        window.sum += latency.as_secs_f64();
        window.in_flight_max = window.in_flight_max.max(in_flight);
        if now.saturating_duration_since(window.since) < WINDOW {
            return;
        }
        let whole = std::mem::replace(window, Window { since: now, ..empty });
        self.sample((whole.sum / whole.count).max(1e-6), whole.in_flight_max);
    }

    fn sample(&mut self, short: f64, in_flight: usize) {
        self.samples += 1.0;
        let weight = if self.samples <= WARM_UP { self.samples } else { LONG_WINDOW / 2.0 };
        self.long += (short - self.long) / weight;
        // After a time of load the long latency comes down faster than it went up.
        if self.long / short > 2.0 {
            self.long *= 0.95;
        }
        // Where fewer are sent than may be, latency says nothing about the limit.
        if 2 * in_flight < self.now() {
            return;
        }
        let gradient = (TOLERANCE * self.long / short).clamp(0.5, 1.0);
        self.climbing &= gradient >= 1.0;
        let room = if self.climbing { QUEUE.max(self.batches) } else { QUEUE };
        let wanted = self.batches * gradient + room;
        self.set(self.batches * (1.0 - SMOOTHING) + wanted * SMOOTHING);
    }

    /// The destination asked for less, or did not answer in time.
    pub(super) fn refused(&mut self) {
        self.climbing = false;
        self.set(self.batches * BACKOFF);
    }

    /// The destination was away: begin as at the start.
    pub(super) fn begin_again(&mut self) {
        self.climbing = true;
        self.set(self.batches.min(START));
    }

    fn set(&mut self, batches: f64) {
        self.batches = batches.clamp(1.0, self.max);
    }
}

#[cfg(test)]
mod tests {
    use forebay_log::Clock;

    use super::*;

    const FLAT: Duration = Duration::from_millis(10);

    /// A round is a window, in which as many answers come as are in flight.
    fn settle(limit: &mut Limit, rounds: u32, latency: impl Fn(usize) -> Duration) {
        let mut now = limit.window.map_or_else(|| Clock::System.monotonic(), |of| of.since);
        for _ in 0..rounds {
            let in_flight = limit.now();
            let each = WINDOW / u32::try_from(in_flight).expect("small");
            for _ in 0..in_flight {
                // Divided, they would fall short of a window by a nanosecond or two.
                now += each + Duration::from_nanos(1);
                limit.answered(latency(in_flight), in_flight, now);
            }
        }
    }

    #[test]
    fn it_grows_to_its_maximum_while_latency_is_flat() {
        let mut limit = Limit::new(32);
        settle(&mut limit, 500, |_| FLAT);
        assert_eq!(limit.now(), 32);
    }

    #[test]
    fn it_climbs_fast_until_the_first_sign_of_load() {
        let mut limit = Limit::new(1000);
        settle(&mut limit, 12, |_| FLAT);
        assert!((30..=60).contains(&limit.now()), "{}", limit.now());
        limit.refused();
        let refused = limit.now();
        settle(&mut limit, 10, |_| FLAT);
        assert!(limit.now() <= refused + 5, "{} after {refused}", limit.now());
    }

    #[test]
    fn it_does_not_grow_while_little_is_sent() {
        let mut limit = Limit::new(32);
        let mut now = Clock::System.monotonic();
        for _ in 0..500 {
            now += WINDOW;
            limit.answered(FLAT, 1, now);
        }
        assert_eq!(limit.now(), 4, "where it began");
    }

    /// A destination that serves eight at once: what is more, waits.
    #[test]
    fn it_settles_where_the_destination_begins_to_queue() {
        let mut limit = Limit::new(1000);
        let queueing = |in_flight: usize| {
            FLAT.mul_f64(f64::from(u32::try_from(in_flight).expect("small")).max(8.0) / 8.0)
        };
        settle(&mut limit, 400, queueing);
        assert!((8..=64).contains(&limit.now()), "{}", limit.now());
    }

    /// Two thousand answers a second for a minute: each is too small a step to be seen alone.
    #[test]
    fn a_fast_destination_is_not_buried_under_a_queue_that_grows_slowly() {
        let mut limit = Limit::new(1000);
        let mut now = Clock::System.monotonic();
        for _ in 0..120_000 {
            now += Duration::from_micros(500);
            let in_flight = limit.now();
            let queue = f64::from(u32::try_from(in_flight).expect("small")).max(16.0) / 16.0;
            limit.answered(FLAT.mul_f64(queue), in_flight, now);
        }
        assert!((16..=128).contains(&limit.now()), "{}", limit.now());
    }

    #[test]
    fn refusals_lower_it_to_one_and_never_below_and_it_recovers() {
        let mut limit = Limit::new(64);
        settle(&mut limit, 500, |_| FLAT);
        for _ in 0..100 {
            limit.refused();
        }
        assert_eq!(limit.now(), 1);
        settle(&mut limit, 500, |_| FLAT);
        assert_eq!(limit.now(), 64);
    }

    #[test]
    fn it_shrinks_when_latency_rises_and_grows_again_when_it_falls() {
        let mut limit = Limit::new(64);
        settle(&mut limit, 500, |_| FLAT);
        settle(&mut limit, 20, |_| 8 * FLAT);
        let shrunk = limit.now();
        assert!(shrunk < 48, "{shrunk}");
        settle(&mut limit, 2000, |_| FLAT);
        assert_eq!(limit.now(), 64);
    }
}
