//! Median, least and spread of a few rounds; the only place that prints.

use std::io::Write as _;
use std::time::Duration;

use serde::Serialize;

/// One measure over all rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    /// The whole range as a share of the median.
    pub(crate) spread: f64,
}

impl Summary {
    /// Sums up; all zero when there is nothing.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (Some(&least), Some(&most)) = (values.first(), values.last()) else {
            return Self { median: 0.0, least: 0.0, most: 0.0, spread: 0.0 };
        };
        let upper = values[values.len() / 2];
        let lower = values[(values.len() - 1) / 2];
        let median = f64::midpoint(lower, upper);
        Self { median, least, most, spread: (most - least) / median }
    }
}

/// A count as a number to reckon with.
#[expect(clippy::cast_precision_loss, reason = "counts and nanoseconds of one run")]
pub(crate) const fn real(count: u64) -> f64 {
    count as f64
}

/// Nanoseconds; all that fit.
pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Prints a line.
pub(crate) fn say(line: &str) {
    // A reader that went away does not change what was measured.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Prints a line that is not a result.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_stands_in_the_middle() {
        let odd = Summary::of([3.0, 1.0, 2.0]);
        assert!((odd.median - 2.0).abs() < 1e-9 && (odd.least - 1.0).abs() < 1e-9);
        assert!((odd.spread - 1.0).abs() < 1e-9);
        let even = Summary::of([4.0, 1.0, 2.0, 3.0]);
        assert!((even.median - 2.5).abs() < 1e-9);
        assert!(Summary::of([]).most.abs() < 1e-9);
    }
}
