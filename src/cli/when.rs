//! A moment as people name it: a time, or how long before now.

use std::time::Duration;

use forebay_log::Clock;
use jiff::Timestamp;

use crate::config;

/// A moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Unix nanoseconds.
    At(u64),
    /// So long before now.
    Ago(Duration),
}

impl When {
    /// Reads `2026-11-21T18:00:00Z` or `2h`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Ok(time) = text.parse::<Timestamp>() {
            let before_all = Err("that is before 1970".to_owned());
            return u64::try_from(time.as_nanosecond()).map_or(before_all, |ns| Ok(Self::At(ns)));
        }
        config::parse_duration(text).map(Self::Ago).map_err(|_| {
            "write a time (2026-11-21T18:00:00Z) or a duration before now (2h)".to_owned()
        })
    }

    /// Unix nanoseconds.
    pub(super) fn resolve(self, clock: &Clock) -> u64 {
        match self {
            Self::At(unix_ns) => unix_ns,
            Self::Ago(duration) => {
                let ago = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
                clock.wall_ns().saturating_sub(ago)
            }
        }
    }
}

/// RFC 3339 in UTC, to the second.
pub(super) fn second_text(unix_ns: u64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or_default();
    format!("{time:.0}")
}
