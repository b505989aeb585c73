//! What objects are called: folders by lane and time, names by what stands in them.
//!
//! ```text
//! BASE/PREFIX/SINK.LANE-ID.EPOCH-OFFSET.ndjson.zst                 begins with that position
//! BASE/PREFIX/SINK.LANE-ID.EPOCH-OFFSET.replay-RANDOM.ndjson.zst   was asked for once more
//! BASE/_forebay/SINK.LANE-ID/EPOCH-OFFSET                          all up to there is in objects
//! ```
//!
//! Numbers are padded, so that names sort as positions do.

use std::fmt;

use forebay_log::{Key, Position};
use jiff::Timestamp;
use jiff::tz::Offset;
use object_store::path::Path;

use crate::drain::sink::Event;

/// The folder of the marks, which readers of the events pass over.
const MARKS: &str = "_forebay";
const HOUR_NS: u64 = 3_600_000_000_000;

/// The folder of an object, with places for the lane and the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Place(Place),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Lane,
    Year,
    Month,
    Day,
    Hour,
}

/// Why a text is no prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Braces around something else.
    #[error("it knows no place {{{0}}}")]
    Place(String),
    /// A character that not every store takes as it is.
    #[error("it holds {0:?}")]
    Character(char),
    /// It begins with `/`, does not end with it, or holds two in a row or a folder of dots.
    #[error("it is no list of folders that each end with `/`")]
    Folders,
    /// Where the sink keeps its own.
    #[error("it begins with the folder of the sink's own marks")]
    Marks,
}

impl Place {
    const ALL: [(&'static str, Self); 5] = [
        ("lane", Self::Lane),
        ("yyyy", Self::Year),
        ("mm", Self::Month),
        ("dd", Self::Day),
        ("hh", Self::Hour),
    ];

    fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, place)| *place == self).map_or("", |(name, _)| name)
    }
}

impl Prefix {
    /// Reads a prefix; it may be empty.
    pub fn parse(text: &str) -> Result<Self, PrefixError> {
        let foul = |c: &char| !(c.is_ascii_alphanumeric() || "-_.=/".contains(*c));
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, behind) = behind.split_once('}').unwrap_or((behind, ""));
            let place = Place::ALL.into_iter().find(|(word, _)| *word == name);
            let (_, place) = place.ok_or_else(|| PrefixError::Place(name.to_owned()))?;
            parts.extend([Part::Text(before.to_owned()), Part::Place(place)]);
            rest = behind;
        }
        parts.push(Part::Text(rest.to_owned()));
        let prefix = Self(parts);
        let sample = prefix.fill("lane", 0);
        if let Some(character) = sample.chars().find(foul) {
            return Err(PrefixError::Character(character));
        }
        let mut folders = sample.strip_suffix('/').unwrap_or(&sample).split('/');
        let none = sample.is_empty();
        let dots = |folder: &str| folder.is_empty() || folder.chars().all(|c| c == '.');
        if !none && (!sample.ends_with('/') || folders.clone().any(dots)) {
            return Err(PrefixError::Folders);
        }
        if folders.next() == Some(MARKS) {
            return Err(PrefixError::Marks);
        }
        Ok(prefix)
    }

    fn of(&self, event: &Event) -> String {
        self.fill(&event.lane, hour_of(event))
    }

    /// The folder of a lane and an hour since 1970.
    fn fill(&self, lane: &str, hour: u64) -> String {
        let seconds = i64::try_from(hour.saturating_mul(3600)).unwrap_or_default();
        let at = Timestamp::from_second(seconds).unwrap_or_default();
        let at = Offset::UTC.to_datetime(at);
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Place(Place::Lane) => lane.to_owned(),
            Part::Place(Place::Year) => format!("{:04}", at.year()),
            Part::Place(Place::Month) => format!("{:02}", at.month()),
            Part::Place(Place::Day) => format!("{:02}", at.day()),
            Part::Place(Place::Hour) => format!("{:02}", at.hour()),
        };
        self.0.iter().map(part).collect()
    }

    /// How many of these go into one object: those of one lane and pass, as long as the time does
    /// not pass on to another folder. One that arrived a moment before its predecessor stays.
    pub(super) fn together(&self, events: &[Event]) -> usize {
        let Some(first) = events.first() else { return 0 };
        let alike = |event: &&Event| {
            event.record.get().lane_id() == first.record.get().lane_id()
                && event.lane == first.lane
                && event.pass == first.pass
                && (hour_of(event) <= hour_of(first) || self.of(event) == self.of(first))
        };
        events.iter().take_while(alike).count()
    }
}

/// As it was written.
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Place(place) => write!(f, "{{{}}}", place.name()),
        })
    }
}

fn hour_of(event: &Event) -> u64 {
    event.received_ns() / HOUR_NS
}

/// Names under one base, for one sink.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) base: Path,
    pub(super) sink: String,
    pub(super) prefix: Prefix,
    /// With its dot.
    pub(super) suffix: &'static str,
}

impl Names {
    /// The object that begins with this event.
    pub(super) fn object(&self, first: &Event) -> Path {
        self.under(&format!("{}{}", self.stem(first), self.suffix))
    }

    /// The object of what was asked for once more, as this number tells it from others.
    pub(super) fn again(&self, first: &Event, number: u64) -> Path {
        self.under(&format!("{}.replay-{number:016x}{}", self.stem(first), self.suffix))
    }

    /// The folder of the marks of every sink.
    pub(super) fn all_marks(&self) -> Path {
        self.under(MARKS)
    }

    /// The folder of a lane's marks.
    pub(super) fn marks(&self, lane_id: [u8; 16]) -> Path {
        self.under(&format!("{MARKS}/{}.{}", self.sink, Key(lane_id)))
    }

    /// The mark of a lane at this position.
    pub(super) fn mark(&self, lane_id: [u8; 16], at: Position) -> Path {
        self.marks(lane_id).join(padded(at))
    }

    fn stem(&self, first: &Event) -> String {
        let lane_id = Key(first.record.get().lane_id());
        let (folder, at) = (self.prefix.of(first), padded(first.position()));
        format!("{folder}{}.{lane_id}.{at}", self.sink)
    }

    fn under(&self, name: &str) -> Path {
        Path::from(format!("{}/{name}", self.base))
    }
}

fn padded(at: Position) -> String {
    format!("{:010}-{:020}", at.epoch(), at.offset())
}

/// The position of a mark.
pub(super) fn position_of_mark(mark: &Path) -> Option<Position> {
    mark.filename()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::testing::{RECEIVED_NS, Written};

    #[test]
    fn folders_follow_the_lane_and_the_time_of_arrival() {
        let prefix = Prefix::parse("{lane}/dt={yyyy}-{mm}-{dd}/hour={hh}/").expect("a prefix");
        let hour = RECEIVED_NS / HOUR_NS;
        assert_eq!(prefix.fill("main", hour), "main/dt=2026-11-21/hour=18/");
        assert_eq!(prefix.to_string(), "{lane}/dt={yyyy}-{mm}-{dd}/hour={hh}/");
        assert_eq!(prefix.fill("main", hour + 6), "main/dt=2026-11-22/hour=00/");
        assert_eq!(Prefix::parse("").expect("none").fill("main", hour), "");
        // No time is past what a name can tell.
        assert_eq!(prefix.fill("main", u64::MAX / HOUR_NS), "main/dt=2554-07-21/hour=23/");
    }

    #[test]
    fn what_is_no_list_of_folders_is_refused() {
        use PrefixError::{Character, Folders, Marks, Place};
        for (text, why) in [
            ("{type}/", Place("type".to_owned())),
            ("{", Place(String::new())),
            ("a b/", Character(' ')),
            ("a}/", Character('}')),
            ("a", Folders),
            ("/a/", Folders),
            ("a//b/", Folders),
            ("../", Folders),
            ("/", Folders),
            ("_forebay/", Marks),
        ] {
            assert_eq!(Prefix::parse(text), Err(why), "{text}");
        }
    }

    #[test]
    fn names_sort_as_positions_do() {
        let names = Names {
            base: Path::from("bucket/folder"),
            sink: "out".to_owned(),
            prefix: Prefix::parse("{lane}/").expect("a prefix"),
            suffix: ".ndjson",
        };
        let mut log = Written::new();
        let [first, second] = [1, 2].map(|number| log.event(number, "{}"));
        assert!(names.object(&first) < names.object(&second));
        assert!(names.object(&first).as_ref().starts_with("bucket/folder/main/out."));
        let at = [Position::new(1, 9), Position::new(1, 10), Position::new(2, 1)];
        let marks = at.map(|at| names.mark([7; 16], at));
        assert!(marks.is_sorted());
        assert_eq!(marks.map(|mark| position_of_mark(&mark)), at.map(Some));
        assert_eq!(names.prefix.together(&[first, second]), 2);
    }
}
