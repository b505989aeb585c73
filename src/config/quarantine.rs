//! `[quarantine]`: how much is kept of what was refused, and how long.

use std::time::Duration;

use super::section::Section;
use super::units;

/// The least that the lane needs for segments of its own.
const SIZE_MIN: u64 = 1024 * 1024;

/// Bounds of what is kept of refused requests.
#[derive(Clone, Debug)]
pub struct QuarantineConfig {
    /// Disk that it may take; 0 keeps nothing.
    pub bytes: u64,
    /// What is older goes.
    pub age: Duration,
    /// Bytes a second that one source may add beyond its share; none: its share in a day.
    pub rate: Option<u64>,
}

pub(super) fn read(section: &Section<'_>) -> Option<QuarantineConfig> {
    let bytes = section.size("size");
    if bytes.is_some_and(|bytes| (1..SIZE_MIN).contains(&bytes)) {
        let cure = format!("raise it to \"{}\", or keep none by \"0\"", units::size_text(SIZE_MIN));
        section.refuse("size", "is too small for a log", cure);
    }
    let (age, rate) = (section.duration("age"), section.size("rate"));
    Some(QuarantineConfig { bytes: bytes?, age: age?, rate })
}
