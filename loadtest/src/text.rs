//! Rates, spans and shares as people write them: `25k/s`, `90s`, `1%`.

use std::time::Duration;

use forebay::config;

/// Above this no machine sends, and below a request in an hour nobody waits.
const RATE_MAX: f64 = 10_000_000.0;

/// A rate in requests a second: `500`, `500/s`, `25k/s`, `90/m`.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let (number, seconds) = match text.trim().split_once('/') {
        None | Some((_, "s")) => (text.trim().trim_end_matches("/s"), 1.0),
        Some((number, "m")) => (number, 60.0),
        Some((number, "h")) => (number, 3600.0),
        Some(_) => return Err("is a number over /s, /m or /h, as \"25k/s\"".to_owned()),
    };
    let (digits, factor) = match number.trim() {
        number if number.ends_with('k') => (number.trim_end_matches('k'), 1e3),
        number if number.ends_with('M') => (number.trim_end_matches('M'), 1e6),
        number => (number, 1.0),
    };
    let value = digits.trim().parse::<f64>().map_err(|_| "is no rate; write it as \"25k/s\"")?;
    let rate = value * factor / seconds;
    if !(0.0..=RATE_MAX).contains(&rate) {
        return Err("is no rate that can be sent; at most 10M/s".to_owned());
    }
    Ok(rate)
}

/// A span: `250ms`, `90s`, `1h 30m`.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    config::parse_duration(text)
}

/// A share of all requests: `1%`, `0.5%`, `0.01`.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let (digits, whole) = match text.trim().strip_suffix('%') {
        Some(digits) => (digits, 100.0),
        None => (text.trim(), 1.0),
    };
    let value = digits.trim().parse::<f64>().map_err(|_| "is no share; write it as \"1%\"")?;
    let share = value / whole;
    if !(0.0..=1.0).contains(&share) {
        return Err("is no share of a whole; write it as \"1%\"".to_owned());
    }
    Ok(share)
}

/// A name and what belongs to it: `livekit=3`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("is NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(left: Result<f64, String>, right: f64) {
        let left = left.expect("it can be read");
        assert!((left - right).abs() < 1e-9, "{left} and {right}");
    }

    #[test]
    fn rates_and_shares_are_read_as_people_write_them() {
        close(rate("500"), 500.0);
        close(rate("500/s"), 500.0);
        close(rate("25k/s"), 25_000.0);
        close(rate("1.5M"), 1_500_000.0);
        close(rate("90/m"), 1.5);
        close(share("1%"), 0.01);
        close(share("0.25"), 0.25);
        for wrong in ["", "fast", "5/d", "-1", "NaN", "11M", "inf"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "101%", "-1%", "1.1", "NaN"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_pair_has_a_name_and_a_value() {
        assert_eq!(pair("livekit=3"), Ok(("livekit".to_owned(), "3".to_owned())));
        assert_eq!(pair("a = whsec_x="), Ok(("a".to_owned(), "whsec_x=".to_owned())));
        assert!(pair("livekit").is_err());
    }
}
