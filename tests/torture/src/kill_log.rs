//! Killed at work: `kill -9` of a process that appends from several threads and reads by a cursor,
//! at any moment and, in a build with `--cfg forebay_fault`, at every point of [`Point`]; at both
//! ack levels everything acknowledged is there when the lane opens again.
//!
//! A lane is opened, read, written and killed many times over. Every opening shows the whole lane
//! first, and that is judged by what all the processes before have told.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use forebay_log::planted::{PLANTED, Point};

use crate::agent::Orders;
use crate::bench::judge;
use crate::check::{Findings, MayMiss, check, check_epoch};
use crate::consuming::CURSOR;
use crate::dice::Dice;
use crate::handle::{Ended, Handle};
use crate::ledger::{Fact, Ledger, Sizes};
use crate::machine::Scratch;
use crate::report::{Report, Stop};

/// How often one lane is killed before another is begun.
const ROUNDS_A_LANE: u64 = 12;
/// An agent is killed this long after it has begun to append, at most.
const AT_WORK_MAX_US: u64 = 150_000;
/// One that is to die early is killed this long after its start, at most.
const EARLY_MAX_US: u64 = 12_000;
/// How long an agent may take until it begins to append.
const BEGIN_MAX: Duration = Duration::from_secs(30);
/// How long an agent may work without coming to the point where it is to die.
const POINT_MAX: Duration = Duration::from_secs(4);
/// Nor more than so many acknowledgements.
const ACKED_MAX: u64 = 30_000;
/// More events than an agent can append before it is killed.
const EVENTS: u64 = 1 << 23;
/// One round in so many kills at any moment, and not at a point.
const ANY_MOMENT_EVERY: u64 = 4;
/// A point that was tried so often must have killed.
const TRIES_MAX: u64 = 8;
/// Bytes of records that an agent writes on its way to a point of segments, at most.
const WAY_BYTES: u64 = 8 << 20;

/// What a campaign has heard from an agent so far.
#[derive(Debug, Default)]
struct Heard {
    begun: AtomicBool,
    acked: AtomicU64,
}

/// How often each point was tried, and how often it killed.
type Points = BTreeMap<&'static str, (u64, u64)>;

/// One lane over its rounds.
#[derive(Debug)]
struct Life {
    orders: Orders,
    may_miss: MayMiss,
    ledger: Ledger,
    dice: Dice,
    /// The file of a segment that never got its name may have been left.
    left_over: bool,
}

/// Kills so many writers.
pub(crate) fn run(rounds: u64, seed: u64) -> Result<Report, Stop> {
    let scratch = Scratch::plain()?;
    let mut report = Report::new("kill-log", seed);
    report.count("points at which this build can be made to die", deadly_points().len() as u64);
    let mut points = Points::new();
    let mut done = 0;
    for lane in 0.. {
        if done >= rounds {
            break;
        }
        let dir = scratch.join("lane");
        let rounds = ROUNDS_A_LANE.min(rounds - done);
        let dice = Dice::new(seed).part(lane);
        let mut life = Life::new(&dir, lane % 2 == 1, dice);
        for round in 0..rounds {
            life.round(round, deadly(done + round), &mut points, &mut report)?;
        }
        life.end(&mut report)?;
        done += rounds;
        std::fs::remove_dir_all(&dir)?;
    }
    for (name, (tries, kills)) in points {
        report.count(&format!("killed at: {name}"), kills);
        if kills == 0 && tries >= TRIES_MAX {
            report.broken(name, &format!("tried {tries} times, and nobody died there"));
        }
    }
    Ok(report)
}

/// The points at which an agent can be made to die.
fn deadly_points() -> Vec<Point> {
    let groups: [&[Point]; 5] =
        [&Point::APPEND, &Point::SYNC, &Point::SEGMENT, &Point::RECOVERY, &Point::CURSOR];
    if PLANTED { groups.concat() } else { Vec::new() }
}

/// Where the writer of this round is to die; nowhere in particular, if that is nothing.
fn deadly(round: u64) -> Option<Point> {
    let points = deadly_points();
    if points.is_empty() || round.is_multiple_of(ANY_MOMENT_EVERY) {
        return None;
    }
    let number = usize::try_from(round - round / ANY_MOMENT_EVERY).unwrap_or(0);
    points.get(number % points.len()).copied()
}

impl Life {
    fn new(dir: &Path, written: bool, mut dice: Dice) -> Self {
        let segment_bytes = dice.one_of(&[65_536, 1 << 20, 8 << 20]).unwrap_or(1 << 20);
        let (retires, segments) = (dice.once_in(2), 6 + dice.below(10));
        // All that retention leaves but the one made ahead holds records, up to somewhere in the last.
        let kept_bytes = (segments - 2) * segment_bytes;
        let may_miss = if retires { MayMiss::Oldest { kept_bytes } } else { MayMiss::Nothing };
        let orders = Orders {
            count: EVENTS,
            threads: 1 + dice.below(4),
            depth: 16 << dice.below(5),
            segment_bytes,
            keep_bytes: retires.then_some(segments * segment_bytes),
            written,
            show: true,
            linger: true,
            ..Orders::open(dir)
        };
        Self { orders, may_miss, ledger: Ledger::default(), dice, left_over: false }
    }

    fn level(&self) -> &'static str {
        if self.orders.written { "written" } else { "synced" }
    }

    /// Lets an agent open the lane, work on it and die, and judges what it has shown.
    fn round(
        &mut self,
        round: u64,
        point: Option<Point>,
        points: &mut Points,
        report: &mut Report,
    ) -> io::Result<()> {
        let point = point.map(|point| if self.left_over { Point::LeftoverRemoved } else { point });
        self.left_over = matches!(point, Some(Point::Allocated | Point::Filled));
        let new_cursor = point == Some(Point::CursorMade);
        let orders = Orders {
            first: Sizes::Small.first_id(round + 1),
            death: point.map(|point| (point, self.passings(point))),
            cursor: Some(if new_cursor { format!("made-{round}") } else { CURSOR.to_owned() }),
            ..self.orders.clone()
        };
        let (ended, died) = one_death(&orders, &mut self.dice)?;
        let level = self.level();
        let there = format!("{level}, {} threads, round {round}, {point:?}", orders.threads);
        report.count(&format!("{level} kills"), 1);
        if let Some(point) = point {
            let (tries, kills) = points.entry(point.name()).or_default();
            *tries += 1;
            *kills += u64::from(died);
        }
        let fresh = ended.facts.iter().filter(|fact| matches!(fact, Fact::Acked { .. })).count();
        report.count(&format!("{level} acknowledged"), fresh as u64);
        let commits = ended.facts.iter().filter(|fact| matches!(fact, Fact::CursorPut { .. }));
        report.count("commits of cursors", commits.count() as u64);
        let begun = ended.facts.iter().any(|fact| matches!(fact, Fact::Claimed { .. }));
        report.count("killed before the first append", u64::from(!begun));
        report.take(&there, &self.opened(&ended));
        report.progress(|| there);
        Ok(())
    }

    /// How often a point is passed until it kills.
    fn passings(&mut self, point: Point) -> u64 {
        let dice = &mut self.dice;
        let way = match point {
            Point::Planned | Point::Recovered | Point::CursorMade | Point::LeftoverRemoved => 1,
            _ if Point::RECOVERY.contains(&point) => 2,
            _ if Point::APPEND.contains(&point) => 24_000,
            _ if Point::SYNC.contains(&point) => 600,
            _ if Point::CURSOR.contains(&point) => 80,
            _ => WAY_BYTES / self.orders.segment_bytes,
        };
        1 + dice.below(way)
    }

    /// Opens the lane for the last time, and closes it in order.
    fn end(self, report: &mut Report) -> io::Result<()> {
        let fresh = Sizes::Small.first_id(1 << 16);
        let last =
            Orders { cursor: Some(CURSOR.to_owned()), ..Orders::inspect(&self.orders.dir, fresh) };
        let ended = Handle::start(&last, |_| {})?.wait()?;
        report.count("records read at the ends", ended.facts.len() as u64);
        let there = format!("{}, at the end", self.level());
        report.take(&there, &judge(self.ledger, &ended, self.may_miss));
        Ok(())
    }

    /// Judges what an opening has shown, and takes note of what was told after it.
    fn opened(&mut self, ended: &Ended) -> Findings {
        let claimed = ended.facts.iter().position(|fact| matches!(fact, Fact::Claimed { .. }));
        let mut findings = Findings::default();
        if let Some(claimed) = claimed {
            let shown = ended.facts.get(..claimed).unwrap_or_default();
            findings.join(check(&self.ledger, shown, self.may_miss));
        }
        let bad = |fact: &&Fact| {
            matches!(
                fact,
                Fact::Unopened | Fact::Stalled { .. } | Fact::Refused { .. } | Fact::Failed
            )
        };
        let bad = ended.facts.iter().find(bad);
        findings.other.extend(bad.map(|fact| format!("{fact:?}: {}", ended.said)));
        if ended.status.code().is_some() || ended.said.contains("panicked") {
            findings.other.push(format!("it died before it was killed: {}", ended.said));
        }
        let told = ended.facts.get(claimed.unwrap_or(ended.facts.len())..).unwrap_or_default();
        findings.join(check_epoch(&self.ledger, told));
        self.ledger.take_all(told);
        findings
    }
}

/// Lets an agent work until it dies where it was told to, or for a while, and kills it; whether it
/// died there.
fn one_death(orders: &Orders, dice: &mut Dice) -> io::Result<(Ended, bool)> {
    let heard = Arc::new(Heard::default());
    let ears = Arc::clone(&heard);
    let mut handle = Handle::start(orders, move |fact| match fact {
        Fact::Claimed { .. } => ears.begun.store(true, Ordering::Relaxed),
        Fact::Acked { .. } => _ = ears.acked.fetch_add(1, Ordering::Relaxed),
        _ => {}
    })?;
    if orders.death.is_none() && dice.once_in(5) {
        thread::sleep(Duration::from_micros(dice.below(EARLY_MAX_US)));
        return Ok((handle.kill()?, false));
    }
    handle.watch(BEGIN_MAX, || heard.begun.load(Ordering::Relaxed))?;
    let early = |point| Point::RECOVERY.contains(&point) || point == Point::CursorMade;
    if orders.death.is_some_and(|(point, _)| !early(point)) {
        handle.watch(POINT_MAX, || heard.acked.load(Ordering::Relaxed) > ACKED_MAX)?;
    } else {
        thread::sleep(Duration::from_micros(dice.below(AT_WORK_MAX_US)));
    }
    let died = orders.death.is_some() && handle.was_killed()?;
    Ok((handle.kill()?, died))
}
