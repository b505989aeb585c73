//! When a failed event is tried again, and when no more.
//!
//! Exponential backoff with full jitter, after Marc Brooker, "Exponential Backoff And Jitter", AWS
//! Architecture Blog, 2015: the wait is drawn evenly between nothing and a bound that doubles, so
//! that what failed together does not come back together. A destination that says when it wants
//! to be asked again is not asked sooner.

use std::time::{Duration, Instant};

use ring::rand::{SecureRandom as _, SystemRandom};

use super::sink::{Class, Failure};
use crate::config::RetryConfig;

/// A destination that asks for more than this is asked all the same.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// What becomes of an event that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Once more, so long from now.
    Again(Duration),
    /// It becomes a dead letter.
    Dead,
}

/// What becomes of an event that was first tried at `first` and has now failed `attempts` times.
pub(super) fn fate(
    config: &RetryConfig,
    failure: &Failure,
    (attempts, first, now): (u32, Instant, Instant),
    jitter: &mut Jitter,
) -> Fate {
    let tried = now.saturating_duration_since(first);
    match failure.class {
        Class::Permanent => return Fate::Dead,
        Class::Temporary | Class::Overloaded if tried >= config.horizon => return Fate::Dead,
        // Of a sink that is set up wrongly no event is at fault, however long it takes.
        Class::Temporary | Class::Overloaded | Class::Misconfigured => {}
    }
    let wait = jitter.up_to(bound(config, attempts));
    let asked = failure.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
    Fate::Again(wait.max(asked))
}

/// The longest wait behind so many attempts.
fn bound(config: &RetryConfig, attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(31);
    config.first.saturating_mul(1 << doublings).min(config.max)
}

/// Numbers that need not be secret, only spread: `SplitMix64`.
#[derive(Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    /// Another one each time.
    pub(super) fn seeded() -> Self {
        let mut seed = [0; 8];
        // Without randomness all begin alike, which costs nothing but the spread.
        _ = SystemRandom::new().fill(&mut seed);
        Self(u64::from_le_bytes(seed))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Evenly between nothing and `bound`.
    pub(super) fn up_to(&mut self, bound: Duration) -> Duration {
        let ns = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.next() % ns.saturating_add(1).max(1))
    }
}

#[cfg(test)]
mod tests {
    use forebay_log::Clock;

    use super::*;

    const CONFIG: RetryConfig = RetryConfig {
        first: Duration::from_millis(200),
        max: Duration::from_secs(300),
        horizon: Duration::from_secs(3600),
    };

    fn fate_of(failure: &Failure, attempts: u32, tried: Duration) -> Fate {
        let first = Clock::System.monotonic();
        fate(&CONFIG, failure, (attempts, first, first + tried), &mut Jitter(7))
    }

    #[test]
    fn waits_double_up_to_their_maximum() {
        assert_eq!(bound(&CONFIG, 1), CONFIG.first);
        assert_eq!(bound(&CONFIG, 2), 2 * CONFIG.first);
        assert_eq!(bound(&CONFIG, 5), 16 * CONFIG.first);
        assert_eq!(bound(&CONFIG, 40), CONFIG.max);
        assert_eq!(bound(&CONFIG, u32::MAX), CONFIG.max);
    }

    #[test]
    fn waits_are_spread_over_the_whole_bound() {
        let mut jitter = Jitter(42);
        let bound = Duration::from_secs(8);
        let mut eighths = [0_u32; 8];
        for _ in 0..8000 {
            let wait = jitter.up_to(bound);
            assert!(wait <= bound);
            eighths[usize::try_from(wait.as_secs().min(7)).expect("small")] += 1;
        }
        assert!(eighths.iter().all(|count| (850..1150).contains(count)), "{eighths:?}");
    }

    #[test]
    fn a_destination_is_not_asked_before_it_wants_to_be() {
        let mut failure = Failure::new(Class::Overloaded, "429");
        failure.retry_after = Some(Duration::from_secs(17));
        assert_eq!(
            fate_of(&failure, 1, Duration::ZERO),
            Fate::Again(Duration::from_secs(17)),
            "far above the wait of a first retry"
        );
        failure.retry_after = Some(Duration::MAX);
        assert_eq!(fate_of(&failure, 1, Duration::ZERO), Fate::Again(RETRY_AFTER_MAX));
    }

    #[test]
    fn events_die_by_their_class_and_by_the_horizon() {
        let temporary = Failure::temporary("no connection");
        assert!(matches!(fate_of(&temporary, 9, CONFIG.horizon / 2), Fate::Again(_)));
        assert_eq!(fate_of(&temporary, 9, CONFIG.horizon), Fate::Dead);
        assert_eq!(fate_of(&Failure::permanent("no"), 1, Duration::ZERO), Fate::Dead);
        let misconfigured = Failure::new(Class::Misconfigured, "no such credential");
        assert!(matches!(fate_of(&misconfigured, 999, 9 * CONFIG.horizon), Fate::Again(_)));
    }
}
