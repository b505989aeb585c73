//! Power cuts: whatever a real file system has written when the power goes, what was acknowledged
//! as synced is there after recovery.
//!
//! An agent appends to a lane on a recorded disk; then the power is cut between its flushes, in
//! many ways, and each state that the disk may be left in is mounted, recovered and judged. Some
//! of the states are recovered on a recorded disk again, and the power is cut inside recovery, and
//! once more inside the recovery from that. What a recovered lane has shown once is owed from then
//! on, like an acknowledged record.
//!
//! Before each file system a negative control runs: the same, with acknowledgements told when
//! records are published. If that loses nothing, the harness is blind, and the campaign fails.

use std::io;
use std::path::Path;

use crate::agent::Orders;
use crate::bench::{Bench, Until};
use crate::check::MayMiss;
use crate::consuming::CURSOR;
use crate::dice::Dice;
use crate::ledger::{Fact, Sizes};
use crate::machine::{self, Scratch};
use crate::mount::FileSystem;
use crate::report::{Report, Stop};
use crate::trace::{CrashState, Trace};

/// States taken from one recording.
const STATES_A_ROUND: usize = 60;
/// States of one recording that the negative control may need to be caught.
const CONTROL_STATES: usize = 40;
/// Recordings that it may need.
const CONTROL_RECORDINGS: u32 = 4;
/// One state in so many is recovered on a recorded disk, and cut again there.
const NESTED_EVERY: u64 = 6;
/// How often the power is cut inside recovery, one cut after the other.
const NESTED_DEPTH: u64 = 2;
/// Cuts inside one recovery.
const NESTED_STATES: usize = 3;

/// The figure of states that are nobody's to judge: XFS and ext4 take a disk to write their own
/// blocks of metadata whole, and now and then the cuts tear one that matters.
const FATAL: &str = "states that the file system did not survive";
/// More than one of so many of them, and the campaign has shown nothing.
const FATAL_ONE_IN: u64 = 50;

/// What was recorded, and what may be missing after it.
#[derive(Debug)]
struct Round {
    trace: Trace,
    segment_bytes: u64,
    may_miss: MayMiss,
}

/// Runs so many power cuts on each of the file systems.
pub(crate) fn run(
    kinds: &[FileSystem],
    states: u64,
    seed: u64,
    keep: Option<&Path>,
) -> Result<Report, Stop> {
    machine::go_private()?;
    machine::needs_file_systems(kinds)?;
    machine::needs_recorder()?;
    let scratch = Scratch::mounted()?;
    let mut report = Report::new("power", seed);
    for (number, kind) in (0..).zip(kinds) {
        let mut bench = Bench::new(*kind, &scratch)?;
        let dice = Dice::new(seed).part(number);
        control(&bench, dice.part(u64::MAX), &mut report)?;
        bench.keep = keep;
        let figure = format!("{} states", kind.name());
        for round in 0.. {
            if report.figure(&figure) >= states {
                break;
            }
            one_round(&bench, dice.part(round), states, &mut report)?;
        }
        if report.figure(&format!("{} {FATAL}", kind.name())) > states / FATAL_ONE_IN {
            report.broken(kind.name(), "too many states did not mount to have shown anything");
        }
    }
    Ok(report)
}

/// Acknowledges before the sync, and must be caught: in one of some recordings, since a disk that
/// happens to flush all the time loses nothing.
fn control(bench: &Bench<'_>, mut dice: Dice, report: &mut Report) -> Result<(), Stop> {
    let name = bench.kind.name();
    for _ in 0..CONTROL_RECORDINGS {
        let recorded = record(bench, &mut dice, true, report)?;
        let cuts = recorded.trace.choose_cuts(CONTROL_STATES, &mut dice);
        let mut caught = false;
        for state in recorded.trace.crash_states(&cuts) {
            let found = bench.judge(&state.image, &state.known, recorded.may_miss)?;
            let found = found.unwrap_or_default();
            report.count(&format!("{name} control: states"), 1);
            report.count(&format!("{name} control: records lost"), found.lost.len() as u64);
            caught |= !found.lost.is_empty();
        }
        if caught {
            return Ok(());
        }
    }
    report.broken(name, "acknowledging before the sync lost nothing: the harness is blind");
    Ok(())
}

fn one_round(
    bench: &Bench<'_>,
    mut dice: Dice,
    states: u64,
    report: &mut Report,
) -> Result<(), Stop> {
    let round = record(bench, &mut dice, false, report)?;
    let name = bench.kind.name();
    let figure = format!("{name} states");
    report.count(&format!("{name} recordings"), 1);
    report.count("acknowledged records", acked(&round.trace.facts()));
    report.count("flushes", round.trace.flushes() as u64);
    report.count("block writes", round.trace.writes() as u64);
    let left = usize::try_from(states - report.figure(&figure)).unwrap_or(usize::MAX);
    let cuts = round.trace.choose_cuts(STATES_A_ROUND.min(left), &mut dice);
    for state in round.trace.crash_states(&cuts) {
        let mounts = judge(bench, &state, &[], &round, report)?;
        if mounts && dice.once_in(NESTED_EVERY) {
            cut_inside_recovery(bench, &state, &round, &mut dice, report)?;
        }
    }
    Ok(())
}

/// Records an agent at work on an empty disk.
fn record(
    bench: &Bench<'_>,
    dice: &mut Dice,
    ack_before_sync: bool,
    report: &mut Report,
) -> io::Result<Round> {
    let mut recording = bench.record(&bench.empty)?;
    let segment_bytes = dice.one_of(&[65_536, 65_536, 131_072, 1 << 20]).unwrap_or(65_536);
    let retires = dice.once_in(3);
    let segments = 4 + dice.below(4);
    let count = 20 + dice.below(180);
    let orders = Orders {
        first: Sizes::Mixed.first_id(1),
        count,
        threads: 1 + dice.below(3),
        depth: 1 + dice.index(48),
        segment_bytes,
        keep_bytes: retires.then_some(segments * segment_bytes),
        ack_before_sync,
        cursor: dice.once_in(2).then(|| CURSOR.to_owned()),
        ..Orders::open(&recording.lane)
    };
    let again = Orders { show: true, ..Orders::open(&recording.lane) };
    // Half of the agents close their lane, and half are killed at work.
    let killed = dice.once_in(2) || ack_before_sync;
    let until = if killed { Until::Acked(1 + dice.below(count)) } else { Until::Done };
    let orders = Orders { linger: killed, ..orders };
    let ended = if dice.once_in(2) {
        recording.work_stirred(&orders, until)?
    } else {
        recording.work(&orders, until)?
    };
    if let Some(crash) = ended.crash().filter(|_| !killed) {
        report.broken(bench.kind.name(), &format!("at work: {crash}"));
    }
    if killed && !ack_before_sync && dice.once_in(2) {
        // Started again at once: it recovers from the page cache what the disk may not have yet.
        let orders = Orders { first: Sizes::Mixed.first_id(9), count: 8, segment_bytes, ..again };
        let ended = recording.work(&orders, Until::Done)?;
        if let Some(crash) = ended.crash() {
            report.broken(bench.kind.name(), &format!("started again: {crash}"));
        }
    }
    recording.unmount()?;
    let may_miss = if retires {
        MayMiss::Oldest { kept_bytes: (segments - 3) * segment_bytes }
    } else {
        MayMiss::Nothing
    };
    Ok(Round { trace: recording.recorder.finish()?, segment_bytes, may_miss })
}

/// Judges one state; false if the file system itself did not survive it.
fn judge(
    bench: &Bench<'_>,
    state: &CrashState,
    before: &[Fact],
    round: &Round,
    report: &mut Report,
) -> io::Result<bool> {
    let name = bench.kind.name();
    let known = [before, &state.known].concat();
    let Some(found) = bench.judge(&state.image, &known, round.may_miss)? else {
        report.count(&format!("{name} {FATAL}"), 1);
        return Ok(false);
    };
    report.count(&format!("{name} states"), 1);
    report.highest("most records owed in a state", acked(&known));
    report.progress(|| format!("{name}, {:?}, {} records owed", state.cut, acked(&known)));
    report.take(&format!("{name} {:?}", state.cut), &found);
    Ok(true)
}

/// Recovers a state on a recorded disk, appends a little, and cuts the power in there: again and
/// again, each time from one of the states that the cut before has left.
fn cut_inside_recovery(
    bench: &Bench<'_>,
    state: &CrashState,
    round: &Round,
    dice: &mut Dice,
    report: &mut Report,
) -> io::Result<()> {
    let name = bench.kind.name();
    let mut image = state.image.clone();
    let mut known = state.known.clone();
    for depth in 1..=NESTED_DEPTH {
        let mut recording = bench.record(&image)?;
        let orders = Orders {
            first: Sizes::Mixed.first_id(1 + depth),
            count: 12,
            segment_bytes: round.segment_bytes,
            show: true,
            ..Orders::open(&recording.lane)
        };
        let ended = recording.work(&orders, Until::Done)?;
        recording.unmount()?;
        if let Some(crash) = ended.crash() {
            report.broken(name, &format!("recovery of {:?}: {crash}", state.cut));
            return Ok(());
        }
        let trace = recording.recorder.finish()?;
        let cuts = trace.choose_cuts(NESTED_STATES, dice);
        let states: Vec<_> = trace.crash_states(&cuts).collect();
        let mut survived = Vec::new();
        for nested in &states {
            if judge(bench, nested, &known, round, report)? {
                survived.push(nested);
            }
            report.count(&format!("{name} states inside recovery {depth} deep"), 1);
        }
        let Some(chosen) = dice.one_of(&survived) else { return Ok(()) };
        image = chosen.image.clone();
        known.extend_from_slice(&chosen.known);
    }
    Ok(())
}

fn acked(facts: &[Fact]) -> u64 {
    facts.iter().filter(|fact| matches!(fact, Fact::Acked { .. })).count() as u64
}
