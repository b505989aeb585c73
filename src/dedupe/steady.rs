//! The time by which keys expire: the wall clock at start and monotonic time since.
//!
//! A wall clock that steps forward would retire keys before their window is over.

use std::time::Instant;

use forebay_log::Clock;

/// A clock that never steps.
#[derive(Clone, Copy, Debug)]
pub struct Steady {
    start_ns: u64,
    start: Instant,
}

impl Steady {
    /// Set by `clock`, once.
    pub fn new(clock: &Clock) -> Self {
        Self { start_ns: clock.wall_ns(), start: clock.monotonic() }
    }

    /// Nanoseconds since the unix epoch at `moment`.
    pub fn at(self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.start).as_nanos();
        self.start_ns.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}
