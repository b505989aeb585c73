//! Signed timestamps: the forms that senders write, and whether one is near enough to now.
//!
//! Times are nanoseconds since 1970 in a `u64`; what lies outside is clamped, which makes it
//! stale or of the future and never wraps.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use crate::reject::Reject;

/// How a timestamp is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum TimeUnit {
    /// Whole seconds since 1970.
    #[serde(rename = "s")]
    Seconds,
    /// Whole milliseconds since 1970.
    #[serde(rename = "ms")]
    Milliseconds,
    /// A date with time and offset, at most nine digits of fraction.
    #[serde(rename = "rfc3339")]
    Rfc3339,
}

impl TimeUnit {
    /// Nanoseconds since 1970, or nothing if this is not the declared form.
    pub(super) fn parse(self, text: &[u8]) -> Option<u64> {
        match self {
            Self::Seconds => digits(text, 12).map(|s| s.saturating_mul(1_000_000_000)),
            Self::Milliseconds => digits(text, 15).map(|ms| ms.saturating_mul(1_000_000)),
            Self::Rfc3339 => rfc3339(text),
        }
    }

    /// The form in which a sender of this scheme would write the time.
    pub(crate) fn write(self, ns: u64) -> String {
        match self {
            Self::Seconds => (ns / 1_000_000_000).to_string(),
            Self::Milliseconds => (ns / 1_000_000).to_string(),
            Self::Rfc3339 => Timestamp::from_nanosecond(i128::from(ns))
                .map_or_else(|_| String::new(), |at| format!("{at:.9}")),
        }
    }
}

/// Digits alone, at least one and at most `count_max`: no sign, space, fraction or exponent.
pub(super) fn digits(text: &[u8], count_max: usize) -> Option<u64> {
    if text.is_empty() || text.len() > count_max {
        return None;
    }
    text.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.is_ascii_digit().then_some(u64::from(byte & 0x0f))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// `2022-10-26T17:12:59.143628419Z`; the shape is checked here because parsers of dates are kind.
fn rfc3339(text: &[u8]) -> Option<u64> {
    const SHAPE: &[u8] = b"dddd-dd-ddTdd:dd:dd";
    let fits = |text: &[u8], shape: &[u8]| {
        let same = |(t, s): (&u8, &u8)| if *s == b'd' { t.is_ascii_digit() } else { t == s };
        text.len() == shape.len() && text.iter().zip(shape).all(same)
    };
    let (date, mut rest) = text.split_at_checked(SHAPE.len())?;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let count = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        rest = fraction.get(count..).filter(|_| (1..=9).contains(&count))?;
    }
    let offset = rest == b"Z" || fits(rest, b"+dd:dd") || fits(rest, b"-dd:dd");
    if !offset || !fits(date, SHAPE) {
        return None;
    }
    let at: Timestamp = std::str::from_utf8(text).ok()?.parse().ok()?;
    Some(u64::try_from(at.as_nanosecond().max(0)).unwrap_or(u64::MAX))
}

/// How far from now a signed time may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tolerance {
    past_ns: u64,
    future_ns: u64,
}

impl Tolerance {
    pub(super) fn new(past: Duration, future: Duration) -> Self {
        let ns = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self { past_ns: ns(past), future_ns: ns(future) }
    }

    /// Both edges are inside.
    pub(super) fn check(self, at_ns: u64, now_ns: u64) -> Result<(), Reject> {
        if now_ns.saturating_sub(at_ns) > self.past_ns {
            Err(Reject::Stale)
        } else if at_ns.saturating_sub(now_ns) > self.future_ns {
            Err(Reject::Future)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_alone() {
        assert_eq!(TimeUnit::Seconds.parse(b"1700000000"), Some(1_700_000_000_000_000_000));
        assert_eq!(TimeUnit::Milliseconds.parse(b"1714564801000"), Some(1_714_564_801_000_000_000));
        for bad in ["", "hello", "-1", "+1", " 1", "1 ", "1.5", "1e9", "0x1", "1234567890123456"] {
            assert_eq!(TimeUnit::Seconds.parse(bad.as_bytes()), None, "{bad}");
            assert_eq!(TimeUnit::Milliseconds.parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(TimeUnit::Seconds.parse(b"999999999999"), Some(u64::MAX));
    }

    #[test]
    fn dates_need_every_part() {
        let parse = |text: &str| TimeUnit::Rfc3339.parse(text.as_bytes());
        assert_eq!(parse("2022-10-26T17:12:59.143628419Z"), Some(1_666_804_379_143_628_419));
        assert_eq!(parse("2022-10-26T19:12:59.5+02:00"), Some(1_666_804_379_500_000_000));
        assert_eq!(parse("1969-12-31T23:59:59Z"), Some(0));
        for bad in [
            "2022-10-26T17:12:59",
            "2022-10-26 17:12:59Z",
            "2022-10-26t17:12:59z",
            "2022-10-26T17:12:59.Z",
            "2022-10-26T17:12:59.1234567890Z",
            "2022-13-26T17:12:59Z",
            "2022-10-26T17:12:59Z[UTC]",
            "2022-10-26T17:12:59+0200",
            "1666804379",
            "",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_written_parses() {
        let at = 1_666_804_379_143_628_419;
        assert_eq!(TimeUnit::Rfc3339.parse(TimeUnit::Rfc3339.write(at).as_bytes()), Some(at));
        for unit in [TimeUnit::Seconds, TimeUnit::Milliseconds] {
            let whole = 1_666_804_379_000_000_000;
            assert_eq!(unit.parse(unit.write(whole).as_bytes()), Some(whole));
        }
    }

    #[test]
    fn the_edges_of_the_tolerance_are_inside() {
        let tolerance = Tolerance::new(Duration::from_secs(300), Duration::from_secs(60));
        let s = 1_000_000_000;
        assert_eq!(tolerance.check(1_000 * s, 1_300 * s), Ok(()));
        assert_eq!(tolerance.check(1_000 * s, 1_300 * s + 1), Err(Reject::Stale));
        assert_eq!(tolerance.check(1_060 * s, 1_000 * s), Ok(()));
        assert_eq!(tolerance.check(1_060 * s + 1, 1_000 * s), Err(Reject::Future));
        assert_eq!(tolerance.check(u64::MAX, 0), Err(Reject::Future));
        assert_eq!(tolerance.check(0, u64::MAX), Err(Reject::Stale));
    }
}
