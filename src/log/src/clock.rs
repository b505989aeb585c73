//! Wall time for what is written down, monotonic time for what is waited for.
//!
//! Many events of one millisecond ask for the wall time once and add what has passed since by the
//! monotonic clock: see [`Clock::wall_ns_at`].
//!
//! The only place that asks the operating system what time it is. Everything else takes a
//! [`Clock`], so a test can stop the wall clock or turn it back.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a look at both clocks serves: a step of the wall clock shows after so long at the latest.
const LOOK_SERVES: Duration = Duration::from_millis(1);

/// Where the time comes from.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The clocks of this machine.
    #[default]
    System,
    /// A wall clock that stands still until a test moves it; unix nanoseconds.
    Fixed(Arc<AtomicU64>),
}

/// Nanoseconds since the unix epoch.
pub(crate) fn unix_ns(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// A look at both clocks at one moment, kept by one thread.
#[derive(Debug)]
pub struct Look(Cell<(u64, Instant)>);

impl Clock {
    /// Looks at both clocks.
    pub fn look(&self) -> Look {
        Look(Cell::new((self.wall_ns(), self.monotonic())))
    }

    /// Nanoseconds since the unix epoch at `moment`, which is now: by the last look if that is
    /// not older than a millisecond, else by a new one.
    pub fn wall_ns_at(&self, moment: Instant, last: &Look) -> u64 {
        if let Self::Fixed(_) = self {
            return self.wall_ns();
        }
        let (wall_ns, looked) = last.0.get();
        let since = moment.saturating_duration_since(looked);
        if since >= LOOK_SERVES {
            last.0.set((self.wall_ns(), moment));
            return last.0.get().0;
        }
        wall_ns.saturating_add(u64::from(since.subsec_nanos()))
    }

    /// A wall clock that stands at `unix_ns`.
    pub fn fixed(unix_ns: u64) -> Self {
        Self::Fixed(Arc::new(AtomicU64::new(unix_ns)))
    }

    /// Nanoseconds since the unix epoch.
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else takes")]
    pub fn wall_ns(&self) -> u64 {
        match self {
            Self::System => unix_ns(SystemTime::now()),
            // Relaxed: a lone number that orders nothing else.
            Self::Fixed(unix_ns) => unix_ns.load(Ordering::Relaxed),
        }
    }

    /// A moment of the monotonic clock, for deadlines and durations. Never fixed.
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else takes")]
    pub fn monotonic(&self) -> Instant {
        Instant::now()
    }
}
