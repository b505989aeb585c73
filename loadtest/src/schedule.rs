//! When requests are due: fixed before the first is sent, whether or not the server keeps up.
//!
//! A schedule is a row of phases whose rates change evenly from one value to another, with a burst
//! at one moment if a room ends, or the arrival times that somebody recorded.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::figures::real;

/// Sums of fractions are a little off; a request at the very end belongs to the next phase.
const NEAR: f64 = 1e-6;

/// A while in which the rate goes evenly from one value to another.
#[derive(Clone, Debug)]
pub(crate) struct Phase {
    /// What the report calls it.
    pub(crate) name: String,
    pub(crate) span: Duration,
    /// Requests a second.
    pub(crate) from: f64,
    pub(crate) to: f64,
}

impl Phase {
    /// A phase at one rate.
    pub(crate) fn flat(name: &str, rate: f64, span: Duration) -> Self {
        Self { name: name.to_owned(), span, from: rate, to: rate }
    }

    /// A phase between two rates.
    pub(crate) fn slope(name: &str, [from, to]: [f64; 2], span: Duration) -> Self {
        Self { name: name.to_owned(), span, from, to }
    }

    /// How many requests it holds; not a whole number in general.
    fn count(&self) -> f64 {
        f64::midpoint(self.from, self.to) * self.span.as_secs_f64()
    }

    /// When `count` of its requests have come due, from its start.
    fn moment(&self, count: f64) -> Duration {
        if count <= 0.0 {
            return Duration::ZERO;
        }
        let slope = (self.to - self.from) / self.span.as_secs_f64();
        let root = (self.from * self.from + 2.0 * slope * count).max(0.0).sqrt();
        // The larger root of the quadratic, in the form that also does for a slope of nothing.
        let seconds = 2.0 * count / (self.from + root);
        Duration::try_from_secs_f64(seconds).unwrap_or(self.span).min(self.span)
    }
}

/// What an event tells of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Happening {
    #[default]
    Joined,
    Left,
    Finished,
}

/// A request and the moment at which it is to be sent, from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) at: Duration,
    pub(crate) happening: Happening,
    /// The room, where it is one that ends.
    pub(crate) room: Option<u32>,
}

/// Rooms end: all at once their participants leave, and then the rooms are over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaving {
    pub(crate) at: Duration,
    pub(crate) participants: u32,
    /// The rooms among which they are divided.
    pub(crate) rooms: u32,
}

/// Every moment at which a request is due, in order.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    phases: Vec<Phase>,
    recorded: Vec<Duration>,
    leaving: Option<Leaving>,
    /// The phase that is read, when it begins, and how many were due before it.
    phase: usize,
    begun: Duration,
    before: f64,
    /// How many of the phases, of the recording and of the burst have been taken.
    taken: u64,
    left: u32,
}

impl Schedule {
    /// A row of phases.
    pub(crate) fn phases(phases: Vec<Phase>) -> Self {
        Self {
            phases,
            recorded: Vec::new(),
            leaving: None,
            phase: 0,
            begun: Duration::ZERO,
            before: 0.0,
            taken: 0,
            left: 0,
        }
    }

    /// The same with a burst in it.
    pub(crate) fn with_leaving(mut self, leaving: Leaving) -> Self {
        self.leaving = Some(leaving);
        self
    }

    /// Recorded arrival times, from the first of them, `speed` times as fast.
    pub(crate) fn recorded(mut times: Vec<Duration>, speed: f64) -> Self {
        times.sort_unstable();
        let first = times.first().copied().unwrap_or_default();
        let from_first = |time: Duration| time.saturating_sub(first).div_f64(speed);
        let recorded = times.into_iter().map(from_first).collect();
        Self { recorded, ..Self::phases(Vec::new()) }
    }

    /// Reads arrival times: a line each, in seconds (of any epoch), or a row of
    /// `forebay tail --json`, whose `received_at` counts.
    pub(crate) fn read(path: &Path, speed: f64) -> io::Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let times = lines.map(|(index, line)| {
            let place = || format!("{}:{}", path.display(), index + 1);
            arrival(line).ok_or_else(|| {
                io::Error::other(format!(
                    "{}: neither seconds nor a row of `forebay tail --json`",
                    place()
                ))
            })
        });
        Ok(Self::recorded(times.collect::<io::Result<_>>()?, speed))
    }

    /// The names of the phases and when each begins.
    pub(crate) fn marks(&self) -> Vec<(Duration, String)> {
        let mut begun = Duration::ZERO;
        let mut marks = Vec::with_capacity(self.phases.len() + 1);
        for phase in &self.phases {
            marks.push((begun, phase.name.clone()));
            begun += phase.span;
        }
        marks.extend(self.leaving.map(|leaving| (leaving.at, "rooms end".to_owned())));
        marks
    }

    /// When the last request is due, at the latest.
    pub(crate) fn span(&self) -> Duration {
        let phases: Duration = self.phases.iter().map(|phase| phase.span).sum();
        phases.max(self.recorded.last().copied().unwrap_or_default())
    }

    /// How many requests there are, about.
    pub(crate) fn expected(&self) -> f64 {
        let burst =
            self.leaving.map_or(0, |leaving| u64::from(leaving.participants + leaving.rooms));
        let phases: f64 = self.phases.iter().map(Phase::count).sum();
        phases + real(burst) + real(self.recorded.len() as u64)
    }

    /// The next request, if there is one.
    pub(crate) fn peek(&mut self) -> Option<Due> {
        let usual = self.usual().map(|at| Due { at, happening: Happening::Joined, room: None });
        let burst = self.burst();
        match (usual, burst) {
            (Some(usual), Some(burst)) if usual.at < burst.at => Some(usual),
            (usual, burst) => burst.or(usual),
        }
    }

    /// Takes the next request.
    pub(crate) fn take(&mut self) -> Option<Due> {
        let due = self.peek()?;
        match due.happening {
            Happening::Joined => self.taken += 1,
            Happening::Left | Happening::Finished => self.left += 1,
        }
        Some(due)
    }

    fn burst(&self) -> Option<Due> {
        let Leaving { at, participants, rooms } = self.leaving?;
        let finished = self.left.checked_sub(participants);
        if finished.is_some_and(|finished| finished >= rooms) {
            return None;
        }
        let happening = if finished.is_some() { Happening::Finished } else { Happening::Left };
        Some(Due { at, happening, room: Some(finished.unwrap_or(self.left) % rooms.max(1)) })
    }

    fn usual(&mut self) -> Option<Duration> {
        if !self.recorded.is_empty() {
            return self.recorded.get(usize::try_from(self.taken).ok()?).copied();
        }
        while let Some(phase) = self.phases.get(self.phase) {
            let count = real(self.taken) - self.before;
            if count < phase.count() - NEAR {
                return Some(self.begun + phase.moment(count));
            }
            self.before += phase.count();
            self.begun += phase.span;
            self.phase += 1;
        }
        None
    }
}

/// The moment that a line of a recording tells.
fn arrival(line: &str) -> Option<Duration> {
    let line = line.trim();
    if let Ok(seconds) = line.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let row: serde_json::Value = serde_json::from_str(line).ok()?;
    let text = row.get("received_at")?.as_str()?;
    let moment: jiff::Timestamp = text.parse().ok()?;
    Duration::try_from_secs_f64(moment.as_duration().as_secs_f64()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(mut schedule: Schedule) -> Vec<u128> {
        std::iter::from_fn(|| schedule.take()).map(|due| due.at.as_millis()).collect()
    }

    #[test]
    fn a_steady_schedule_is_even_and_ends_on_time() {
        let phase = Phase::flat("steady", 3.0, Duration::from_secs(2));
        assert_eq!(millis(Schedule::phases(vec![phase])), [0, 333, 666, 1000, 1333, 1666]);
    }

    #[test]
    fn a_ramp_sends_more_and_more() {
        // N(t) = t * t, so the n-th is due at the root of n.
        let ramp = Phase::slope("ramp", [0.0, 4.0], Duration::from_secs(2));
        let due = millis(Schedule::phases(vec![ramp]));
        assert_eq!(due, [0, 1000, 1414, 1732]);
        let down = Phase::slope("ramp", [4.0, 0.0], Duration::from_secs(2));
        assert_eq!(millis(Schedule::phases(vec![down])), [0, 267, 585, 1000]);
    }

    #[test]
    fn phases_follow_one_another_without_a_gap_or_a_double() {
        let second = Duration::from_secs(1);
        let phases = vec![
            Phase::flat("before", 500.0, second),
            Phase::slope("up", [500.0, 25_000.0], second),
            Phase::flat("held", 25_000.0, second),
            Phase::slope("down", [25_000.0, 500.0], second),
        ];
        let mut schedule = Schedule::phases(phases);
        let (mut last, mut counts) = (Duration::ZERO, [0_u32; 4]);
        while let Some(due) = schedule.take() {
            assert!(due.at >= last, "{:?} after {last:?}", due.at);
            last = due.at;
            counts[usize::try_from(due.at.as_secs()).expect("small")] += 1;
        }
        assert_eq!(counts, [500, 12_750, 25_000, 12_750]);
    }

    #[test]
    fn a_pause_sends_nothing() {
        let second = Duration::from_secs(1);
        let flat = |rate| Phase::flat("step", rate, second);
        let schedule = Schedule::phases(vec![flat(2.0), flat(0.0), flat(1.0)]);
        assert_eq!(millis(schedule), [0, 500, 2000]);
    }

    #[test]
    fn rooms_end_at_one_moment_and_are_over_last() {
        use Happening::{Finished, Joined, Left};
        let phase = Phase::flat("steady", 2.0, Duration::from_secs(1));
        let leaving = Leaving { at: Duration::from_millis(250), participants: 3, rooms: 2 };
        let mut schedule = Schedule::phases(vec![phase]).with_leaving(leaving);
        let all: Vec<Due> = std::iter::from_fn(|| schedule.take()).collect();
        let happenings: Vec<Happening> = all.iter().map(|due| due.happening).collect();
        assert_eq!(happenings, [Joined, Left, Left, Left, Finished, Finished, Joined]);
        assert!(all[1..6].iter().all(|due| due.at == leaving.at));
        let rooms: Vec<u32> = all.iter().filter_map(|due| due.room).collect();
        assert_eq!(rooms, [0, 1, 0, 0, 1]);
    }

    #[test]
    fn a_recording_is_played_from_its_first_arrival() {
        let seconds = |seconds| Duration::from_secs(seconds);
        let schedule = Schedule::recorded(vec![seconds(103), seconds(100), seconds(101)], 1.0);
        assert_eq!(millis(schedule), [0, 1000, 3000]);
        let fast = Schedule::recorded(vec![seconds(100), seconds(104)], 4.0);
        assert_eq!(millis(fast), [0, 1000]);
        assert_eq!(arrival("12.5"), Some(Duration::from_millis(12_500)));
        let row = "{\"received_at\":\"1970-01-01T00:00:02Z\",\"body\":\"\"}";
        assert_eq!(arrival(row), Some(seconds(2)));
        assert_eq!(arrival("-1"), None);
        assert_eq!(arrival("later"), None);
    }
}
