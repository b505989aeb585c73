//! `[[lane]]`: a named log, what its acknowledgement promises, how long it keeps what it holds.

use std::time::Duration;

use forebay_log::{AckLevel, Clock, LaneOptions, Retention};

use super::section::{self, Reading, Section, refuse_twins};
use super::units;
use crate::limits;

/// Segments are mapped whole.
const PAGE_BYTES: u64 = 4096;

/// One lane, checked.
#[derive(Clone, Debug)]
pub struct LaneConfig {
    /// The lane's name, also that of its folder.
    pub name: String,
    /// What the log itself promises before anything else: at `replicated` that is `synced`.
    pub ack: AckLevel,
    /// At `replicated`: the sink whose answer a 2xx waits for.
    pub replicate_to: Option<String>,
    /// Size of one file of the log.
    pub segment_bytes: u64,
    /// Segments older than this go.
    pub retention_age: Duration,
    /// The oldest segments beyond this go.
    pub retention_bytes: Option<u64>,
    /// How long an event is remembered.
    pub dedupe_window: Duration,
    /// How many events are remembered at once.
    pub dedupe_keys_max: u64,
    /// Free space below which nothing is taken; none: two segments, at least 5 % of the disk.
    pub disk_reserve_bytes: Option<u64>,
    /// Of the lanes of a sink, the one with the highest number goes first.
    pub priority: u8,
}

impl LaneConfig {
    /// How the lane's log is kept.
    pub fn log_options(&self, clock: Clock) -> LaneOptions {
        LaneOptions {
            segment_bytes: self.segment_bytes,
            ack: self.ack,
            retention: Retention { age: Some(self.retention_age), bytes: self.retention_bytes },
            // What the replica lacks was not acknowledged, and its keys are known.
            kept_for: self.replicate_to.as_deref().map(crate::drain::cursor_name),
            disk_reserve_bytes: self.disk_reserve_bytes,
            clock,
            ..LaneOptions::default()
        }
    }

    /// What the lane leaves free of a disk of so many bytes.
    pub fn reserve_bytes(&self, disk_bytes: u64) -> u64 {
        let default = || (disk_bytes / 20).max(self.segment_bytes.saturating_mul(2));
        self.disk_reserve_bytes.unwrap_or_else(default)
    }

    /// The ack level as the configuration spells it.
    pub const fn ack_text(&self) -> &'static str {
        match (&self.replicate_to, self.ack) {
            (Some(_), _) => "replicated",
            (None, AckLevel::Written) => "written",
            (None, AckLevel::Synced) => "synced",
        }
    }
}

/// A lane that could be read, and where: sources are checked against it.
#[derive(Debug)]
pub(super) struct ReadLane<'t> {
    pub(super) section: Section<'t>,
    pub(super) config: LaneConfig,
}

/// Reads every `[[lane]]`; lanes with a mistake are reported and left out.
pub(super) fn read_all<'t>(reading: &'t Reading<'t>, root: &Section<'t>) -> Vec<ReadLane<'t>> {
    let values = root.tables("lane", "write [[lane]] with two brackets, once for each lane");
    if values.is_empty() && root.value("lane").is_none_or(|lanes| lanes.get_ref().is_array()) {
        root.missing("lane", "add a lane:\n[[lane]]\nname = \"main\"");
    }
    if values.len() > limits::LANES_MAX {
        root.refuse("lane", "stands too often", format!("at most {} lanes", limits::LANES_MAX));
    }
    let sections: Vec<Section<'t>> = values
        .iter()
        .take(limits::LANES_MAX)
        .filter_map(|value| Section::open(reading, "lane", value))
        .collect();
    refuse_twins(&sections, "name", "rename one of the two");
    sections.into_iter().filter_map(read).collect()
}

fn read(section: Section<'_>) -> Option<ReadLane<'_>> {
    let name = section.name();
    let ack = section.choice("ack");
    let replicate_to = replicate_to(&section, ack);
    let segment_bytes = section.size("segment_size");
    let dedupe_window = section.duration("dedupe_window");
    let dedupe_keys_max = section.count("dedupe_capacity");
    let disk_reserve_bytes = section.size("disk_reserve");
    if segment_bytes.is_some_and(|bytes| !bytes.is_multiple_of(PAGE_BYTES)) {
        section.refuse("segment_size", "is no multiple of 4KiB", "such as \"16MiB\"");
    }
    let retention = retention(&section, dedupe_window, segment_bytes);
    let (retention_age, retention_bytes) = retention?;
    let config = LaneConfig {
        name: name?.to_owned(),
        ack: if ack? == "written" { AckLevel::Written } else { AckLevel::Synced },
        replicate_to: replicate_to?,
        segment_bytes: segment_bytes?,
        retention_age,
        retention_bytes,
        dedupe_window: dedupe_window?,
        dedupe_keys_max: dedupe_keys_max?,
        disk_reserve_bytes,
        priority: u8::try_from(section.count("priority")?).unwrap_or(u8::MAX),
    };
    Some(ReadLane { section, config })
}

/// The sink that acknowledgements wait for, at the one level that has one.
#[expect(clippy::option_option, reason = "none: a reported mistake; none within: no such level")]
fn replicate_to(section: &Section<'_>, ack: Option<&str>) -> Option<Option<String>> {
    let replicated = ack? == "replicated";
    match section.has("replicate_to") {
        true if replicated => section.text("replicate_to").map(|sink| Some(sink.to_owned())),
        false if replicated => {
            let cure = "say which sink's answer a 2xx waits for: replicate_to = \"NAME\"";
            section.missing("replicate_to", cure);
            None
        }
        true => {
            let cure = "write ack = \"replicated\", or leave it out";
            section.refuse("replicate_to", "is not asked for by `lane.ack`", cure);
            None
        }
        false => Some(None),
    }
}

/// `retention = { age = "168h", size = "200GiB" }`; both may be left out.
fn retention(
    lane: &Section<'_>,
    window: Option<Duration>,
    segment_bytes: Option<u64>,
) -> Option<(Duration, Option<u64>)> {
    let nothing = section::empty();
    let value = lane.value("retention").unwrap_or(&nothing);
    let section = Section::open(lane.reading, "lane.retention", value)?;
    let bytes = section.size("size");
    let (age, window, segment_bytes) = (section.duration("age")?, window?, segment_bytes?);
    if section.has("age") && age < window {
        section.refuse(
            "age",
            "is shorter than `lane.dedupe_window`",
            format!(
                "the log must hold the window, because the memory of events is rebuilt from it: \
                 raise retention.age to \"{0}\", or lower dedupe_window to \"{1}\"",
                units::duration_text(window),
                units::duration_text(age)
            ),
        );
    }
    if bytes.is_some_and(|bytes| bytes < 2 * segment_bytes) {
        section.refuse(
            "size",
            "holds fewer than two segments",
            format!(
                "raise retention.size to \"{}\", or lower segment_size",
                units::size_text(2 * segment_bytes)
            ),
        );
    }
    // The default follows a window that is longer than it.
    Some((age.max(window), bytes))
}
