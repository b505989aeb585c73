//! Dead letters once more to their sink: when a person asks, or at the times that the sink names.
//!
//! Both bring the letters that wait when they begin, each once: what is refused again stays, and
//! is looked at no more before the next run. A letter that was taken is marked on the medium at
//! once, so that a run that is cut brings few twice.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cronexpr::{Crontab, FallbackTimezoneOption, MakeTimestamp, ParseOptions, parse_crontab_with};
use crossbeam::channel;
use forebay_log::{Clock, From, Position, ReadError, Reader, Record};
use jiff::Timestamp;
use tokio::sync::watch;

use super::errand::{Errand, ErrandError, Ran, Watch};
use super::letters::{Letters, LettersError};
use super::sink::{Event, Pass};
use crate::config::SinkConfig;

/// How often it is looked whether it is time.
const LOOK: Duration = Duration::from_millis(200);
/// A run of a sink's own ends after this, whatever is left: a destination that is away must not
/// keep a person from the letters.
const RUN_MAX: Duration = Duration::from_secs(3600);

/// Why letters were not redriven.
#[derive(Debug, thiserror::Error)]
pub enum RedriveError {
    /// They cannot be looked at, or somebody else works on them.
    #[error(transparent)]
    Letters(#[from] LettersError),
    /// Their lane cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The sink or a thread cannot be started.
    #[error(transparent)]
    Errand(#[from] ErrandError),
}

/// What became of a run.
#[derive(Debug)]
pub struct Redriven {
    /// What was taken and refused.
    pub ran: Ran,
    /// Why letters that were taken are not marked so, and will come once more.
    pub unmarked: Vec<LettersError>,
}

/// Brings the letters in `dir` that wait and are meant. Whoever watches is told of one that was taken
/// once it is marked.
pub fn redrive(
    sink: &SinkConfig,
    dir: &Path,
    meant: impl Fn(&Record) -> bool,
    clock: &Clock,
    watch: Watch,
) -> Result<Redriven, RedriveError> {
    let mut done = Letters::open(dir)?.begin()?;
    // Once more, now that nobody else does anything with them.
    let letters = Letters::open(dir)?;
    let mut wanted: Vec<Position> = Vec::new();
    letters.each(|letter| wanted.extend(meant(&letter).then(|| letter.get().position())))?;
    let mut reader = Reader::open(dir)?;
    reader.seek(From::Latest)?;
    let from = wanted.first().map_or(From::Latest, |first| From::Position(*first));
    let wanted: HashSet<Position> = wanted.into_iter().collect();
    let (complain, unmarked) = channel::unbounded();
    let Watch { mut settled, failed, until } = watch;
    let mark = move |event: &Event| {
        let marked = done.done(event.position(), "redriven").and_then(|()| done.sync());
        // Whoever began it reads them at its end.
        drop(marked.map_err(|error| complain.send(error)));
        settled(event);
    };
    let errand = Errand {
        sink,
        lane: Arc::from(sink.name.as_str()),
        dir: dir.to_owned(),
        from,
        end: reader.offset(),
        wanted: Box::new(move |letter| wanted.contains(&letter.get().position())),
        pass: Pass::Redrive,
        watch: Watch { settled: Box::new(mark), failed, until },
    };
    let ran = errand.run(clock)?;
    Ok(Redriven { ran, unmarked: unmarked.try_iter().collect() })
}

/// What ends an errand before all is done.
#[derive(Clone, Debug)]
pub struct Until {
    /// Turns true.
    pub stopped: watch::Receiver<bool>,
    /// So much time has passed.
    pub passed: Duration,
}

/// Times as cron writes them, in UTC: no hour comes twice, and none is left out.
#[derive(Clone, Debug)]
pub struct Times {
    crontab: Crontab,
    text: String,
}

impl Times {
    /// Reads five fields; the error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields = text.split_ascii_whitespace().count();
        if fields != 5 {
            return Err(format!("it has {fields} fields, not five"));
        }
        let mut options = ParseOptions::default();
        options.fallback_timezone_option = FallbackTimezoneOption::UTC;
        // The last line of a message says what is wrong, behind a mark that points at the place.
        let last = |text: &str| {
            text.lines().last().unwrap_or_default().trim_start_matches([' ', '^']).to_owned()
        };
        let crontab =
            parse_crontab_with(text, options).map_err(|error| last(&error.to_string()))?;
        let times = Self { crontab, text: text.to_owned() };
        times.next_ns(0).map(|_| ()).ok_or_else(|| "it never comes".to_owned())?;
        Ok(times)
    }

    /// The first one behind a moment, in nanoseconds since 1970; none if there is no more.
    pub fn next_ns(&self, after_ns: u64) -> Option<u64> {
        let after = Timestamp::from_nanosecond(i128::from(after_ns)).ok()?;
        let next = self.crontab.find_next(MakeTimestamp(after)).ok()?;
        u64::try_from(next.timestamp().as_nanosecond()).ok()
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Redrives the letters of one sink at its times.
pub(super) struct Redriver {
    sink: SinkConfig,
    times: Times,
    dir: PathBuf,
    clock: Clock,
    next_ns: Option<u64>,
}

impl Redriver {
    /// One for a sink that names times.
    pub(super) fn new(sink: &SinkConfig, dir: PathBuf, clock: Clock) -> Option<Self> {
        let redrive = sink.redrive.clone()?;
        let mut sink = sink.clone();
        let bound = redrive.events_per_second;
        sink.events_per_second = Some(sink.events_per_second.map_or(bound, |of| of.min(bound)));
        let next_ns = redrive.times.next_ns(clock.wall_ns());
        Some(Self { sink, times: redrive.times, dir, clock, next_ns })
    }

    /// Runs until told to stop.
    pub(super) fn run(mut self, stopped: &watch::Receiver<bool>) {
        while !*stopped.borrow() {
            match self.look(stopped) {
                None => thread::sleep(LOOK),
                Some(Ok(Redriven { ran, unmarked })) => {
                    let (redriven, refused) = (ran.delivered, ran.refused.len());
                    tracing::info!(
                        sink = self.sink.name,
                        redriven,
                        refused,
                        "dead letters redriven"
                    );
                    for error in unmarked {
                        tracing::error!(
                            sink = self.sink.name,
                            %error,
                            "a letter that was redriven is not marked, and comes once more"
                        );
                    }
                }
                Some(Err(error)) => {
                    tracing::warn!(sink = self.sink.name, %error, "dead letters are not redriven");
                }
            }
        }
    }

    /// Redrives what waits if it is time; nothing if it is not, or if no letter waits.
    fn look(&mut self, stopped: &watch::Receiver<bool>) -> Option<Result<Redriven, RedriveError>> {
        if self.next_ns.is_none_or(|next_ns| self.clock.wall_ns() < next_ns) {
            return None;
        }
        let ran = self.dir.is_dir().then(|| {
            let until = Until { stopped: stopped.clone(), passed: RUN_MAX };
            redrive(&self.sink, &self.dir, |_| true, &self.clock, Watch::nobody(Some(until)))
        });
        // From now on, so that a long run is not followed by those that it has missed.
        self.next_ns = self.times.next_ns(self.clock.wall_ns());
        ran
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::shape::{self, Shape};
    use super::super::sinks::file;
    use super::super::testing::{RECEIVED_NS, Written};
    use super::*;
    use crate::config::{BatchConfig, Print, RedriveConfig, RetryConfig};

    const HOUR_NS: u64 = 3_600_000_000_000;

    /// A sink into files that refuses one of the letters.
    fn sink(folder: &Path, refused: u64) -> SinkConfig {
        let transform = format!("if .body.n == {refused} then error(\"no\") else .body end");
        let settings = shape::Settings { transform: Some(transform), ..Default::default() };
        SinkConfig {
            name: "out".to_owned(),
            lanes: vec![0],
            order: crate::drain::order::Order::None,
            batch: BatchConfig { events_max: 2, bytes_max: 1 << 20, linger: Duration::ZERO },
            retry: RetryConfig { first: LOOK, max: LOOK, horizon: LOOK },
            events_per_second: None,
            concurrency_max: 2,
            memory_bytes_max: 1 << 20,
            timeout: Duration::from_secs(10),
            redrive: Some(RedriveConfig {
                times: Times::parse("0 4 * * *").expect("times"),
                events_per_second: 100_000,
            }),
            shape: Arc::new(Shape::compile(&settings).expect("it compiles")),
            settings: Arc::new(file::Settings {
                folder: folder.to_owned(),
                sync: false,
                rotate_bytes: 1 << 20,
                rotate_age: Duration::from_secs(3600),
            }),
            print: Print::default(),
        }
    }

    fn waiting(dir: &Path) -> Vec<String> {
        let mut bodies = Vec::new();
        let letters = Letters::open(dir).expect("letters");
        let take =
            |letter: Record| bodies.push(String::from_utf8_lossy(letter.get().body()).into());
        letters.each(take).expect("it reads");
        bodies
    }

    #[test]
    fn what_waits_is_brought_at_its_time_and_what_is_refused_again_stays_until_the_next() {
        let data = tempfile::tempdir().expect("a folder");
        let (dir, folder) = (data.path().join("out"), data.path().join("files"));
        Written::fill(&dir, 5);
        // Six in the evening.
        let clock = Clock::fixed(RECEIVED_NS);
        let Clock::Fixed(now_ns) = clock.clone() else { unreachable!("it is fixed") };
        let sink = sink(&folder, 3);
        let mut redriver = Redriver::new(&sink, dir.clone(), clock).expect("it has times");
        let (_never, stopped) = watch::channel(false);
        assert!(redriver.look(&stopped).is_none(), "not before its time");
        now_ns.store(RECEIVED_NS + 10 * HOUR_NS - 1, Ordering::Relaxed);
        assert!(redriver.look(&stopped).is_none());
        assert_eq!(waiting(&dir).len(), 5);
        now_ns.store(RECEIVED_NS + 10 * HOUR_NS, Ordering::Relaxed);
        let ran = redriver.look(&stopped).expect("it is time").expect("it runs");
        assert_eq!((ran.ran.delivered, ran.ran.refused.len(), ran.unmarked.len()), (4, 1, 0));
        assert_eq!(waiting(&dir), ["{\"n\":3}"]);
        assert!(redriver.look(&stopped).is_none(), "it was refused, and waits for the next time");
        now_ns.store(RECEIVED_NS + 34 * HOUR_NS, Ordering::Relaxed);
        let ran = redriver.look(&stopped).expect("it is time").expect("it runs");
        assert_eq!((ran.ran.delivered, ran.ran.refused.len()), (0, 1));
        let files = std::fs::read_dir(&folder).expect("the sink's folder").flatten();
        let texts = files.map(|file| std::fs::read_to_string(file.path()).expect("text"));
        assert_eq!(texts.map(|text| text.lines().count()).sum::<usize>(), 4, "each once");
        let done = std::fs::read_to_string(dir.join("done")).expect("marks");
        assert_eq!(done.matches(" redriven\n").count(), 4);
    }

    #[test]
    fn a_run_gives_way_to_whoever_works_on_the_letters_and_ends_when_it_is_told() {
        let data = tempfile::tempdir().expect("a folder");
        let (dir, folder) = (data.path().join("out"), data.path().join("files"));
        Written::fill(&dir, 5);
        let sink = sink(&folder, 3);
        let all = |until| redrive(&sink, &dir, |_| true, &Clock::System, Watch::nobody(until));
        let doing = Letters::open(&dir).expect("letters").begin().expect("free");
        let busy = all(None).expect_err("somebody works on them");
        assert!(matches!(busy, RedriveError::Letters(LettersError::InUse { .. })), "{busy}");
        drop(doing);
        let (_stop, stopped) = watch::channel(true);
        let ran = all(Some(Until { stopped, passed: RUN_MAX })).expect("it ends");
        assert_eq!(waiting(&dir).len() as u64 + ran.ran.delivered, 5);
        assert_eq!(all(None).expect("it runs").ran.refused.len(), 1);
        assert_eq!(waiting(&dir).len(), 1);
    }

    #[test]
    fn times_are_those_of_cron_in_utc() {
        let next = |text: &str, after: &str| {
            let after: Timestamp = after.parse().expect("a time");
            let after = u64::try_from(after.as_nanosecond()).expect("after 1970");
            let next = Times::parse(text).expect("times").next_ns(after).expect("one more");
            Timestamp::from_nanosecond(i128::from(next)).expect("a time").to_string()
        };
        assert_eq!(next("0 4 * * *", "2026-11-22T03:59:59Z"), "2026-11-22T04:00:00Z");
        assert_eq!(next("0 4 * * *", "2026-11-22T04:00:00Z"), "2026-11-23T04:00:00Z");
        assert_eq!(next("*/15 * * * 1-5", "2026-11-21T12:00:00Z"), "2026-11-23T00:00:00Z");
        // Nobody's clock is turned back in the night of the summer time's end.
        assert_eq!(next("30 1 * * *", "2026-10-25T01:00:00Z"), "2026-10-25T01:30:00Z");
        for wrong in
            ["", "4", "0 4 * *", "0 0 4 * * *", "61 4 * * *", "0 0 31 2 *", "a 4 * * *", "@daily"]
        {
            assert!(Times::parse(wrong).is_err(), "{wrong}");
        }
    }
}
