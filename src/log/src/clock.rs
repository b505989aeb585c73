//! Wall time for what is written down, monotonic time for what is waited for.
//!
//! The only place that asks the operating system what time it is. Everything else takes a
//! [`Clock`], so a test can stop the wall clock or turn it back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Where the time comes from.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The clocks of this machine.
    #[default]
    System,
    /// A wall clock that stands still until a test moves it; unix nanoseconds.
    Fixed(Arc<AtomicU64>),
}

impl Clock {
    /// A wall clock that stands at `unix_ns`.
    pub fn fixed(unix_ns: u64) -> Self {
        Self::Fixed(Arc::new(AtomicU64::new(unix_ns)))
    }

    /// Nanoseconds since the unix epoch.
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else takes")]
    pub fn wall_ns(&self) -> u64 {
        match self {
            Self::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)),
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
