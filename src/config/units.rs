//! Durations and sizes as people write them, and back again.
//!
//! `"250ms"`, `"72h"` and `"128MiB"` in; the same spelling out, in the largest unit that loses
//! nothing. A bare number is refused: whether `30` means seconds or milliseconds is a guess.

use std::time::Duration;

use bytesize::ByteSize;

/// How durations are written, behind the cure of every one that cannot be read.
pub(super) const DURATION_CURE: &str = ", a number and a unit: \"250ms\", \"5s\", \"72h\"";
/// How sizes are written, behind the cure of every one that cannot be read.
pub(super) const SIZE_CURE: &str = ", a number and a unit: \"16KiB\", \"1MiB\", \"2GB\"";

/// Reads `"250ms"`, `"1h 30m"`; the error is a lower-case fragment.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if bare_number(text) {
        return Err("the unit is missing".to_owned());
    }
    humantime::parse_duration(text.trim()).map_err(|error| {
        // The list of every unit and spelling that follows helps nobody.
        let error = error.to_string();
        error.split(", supported").next().unwrap_or(&error).to_owned()
    })
}

/// Reads `"128MiB"`, `"1.5GB"`; the error is a lower-case fragment.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    // Nothing is nothing in any unit.
    if bare_number(text) && text.trim() != "0" {
        return Err("the unit is missing".to_owned());
    }
    text.trim().parse::<ByteSize>().map(|size| size.as_u64())
}

fn bare_number(text: &str) -> bool {
    let text = text.trim();
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// The shortest exact spelling of a duration.
pub fn duration_text(duration: Duration) -> String {
    const UNITS: [(u128, &str); 6] = [
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
        (1, "ns"),
    ];
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    UNITS
        .iter()
        .find(|(unit, _)| nanos.is_multiple_of(*unit))
        .map_or_else(String::new, |(unit, name)| format!("{}{name}", nanos / unit))
}

/// The shortest exact spelling of a size.
pub fn size_text(bytes: u64) -> String {
    const UNITS: [(u64, &str); 5] =
        [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")];
    if bytes == 0 {
        return "0B".to_owned();
    }
    UNITS
        .iter()
        .find(|(unit, _)| bytes.is_multiple_of(*unit))
        .map_or_else(String::new, |(unit, name)| format!("{}{name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_the_same() {
        for text in ["0s", "1ns", "250ms", "90s", "2m", "72h", "720h"] {
            assert_eq!(duration_text(parse_duration(text).expect(text)), text);
        }
        for text in ["0B", "1B", "1000B", "16KiB", "128MiB", "3GiB", "2TiB"] {
            assert_eq!(size_text(parse_size(text).expect(text)), text);
        }
    }

    #[test]
    fn a_number_without_a_unit_is_a_guess_and_refused() {
        assert_eq!(parse_duration("30"), Err("the unit is missing".to_owned()));
        assert_eq!(parse_size("1048576"), Err("the unit is missing".to_owned()));
        assert!(parse_size("").is_err() && parse_duration("").is_err());
        assert!(parse_size("-1MiB").is_err() && parse_duration("-1s").is_err());
        assert!(parse_size("1 parsec").is_err() && parse_duration("1 parsec").is_err());
    }
}
