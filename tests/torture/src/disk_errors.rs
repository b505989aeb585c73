//! A disk that fails: the nth write or flush is refused, for every n there is, once or for good; and
//! the nth read, see `read_errors`.
//!
//! Whatever the file system makes of it, nothing may be acknowledged that the disk does not hold,
//! nobody may wait for ever, and a failure that lasts must be told. Then the disk is healed, and
//! the lane must open and hold what it owes: at once over a page cache that may show more than the
//! disk has, after the file system was mounted anew, and after a power cut. A lane at ack level
//! written owes all of it to the first of these, where only the process has died; after the others
//! it owes nothing in particular, but no wrong byte either, and it must open.

use std::io;
use std::path::Path;

use crate::agent::Orders;
use crate::bench::{Bench, Recording, Until, judge};
use crate::check::{Findings, MayMiss, check};
use crate::dice::Dice;
use crate::handle::Handle;
use crate::ledger::{Fact, Ledger, Sizes};
use crate::machine::{self, Scratch};
use crate::mount::FileSystem;
use crate::read_errors;
use crate::recorder::{Asked, Fault};
use crate::report::{Report, Stop};
use crate::trace::Trace;

/// Events that an agent appends while the disk fails.
const EVENTS: u64 = 60;
/// Points beyond those counted in a run without a fault: no two runs write alike.
const SLACK: u64 = 4;
/// Points at which the negative control runs.
const CONTROL_POINTS: u64 = 6;
/// Passes over them, at the most.
const CONTROL_PASSES: usize = 8;
/// One point in so many more is a read that is refused.
const READS_SHARE: usize = 3;
/// What tells the dice of reads from those of writes.
const READS_PART: u64 = 100;

/// Fails the disk at up to so many points on each of the file systems.
pub(crate) fn run(
    kinds: &[FileSystem],
    rounds: usize,
    seed: u64,
    keep: Option<&Path>,
) -> Result<Report, Stop> {
    machine::go_private()?;
    machine::needs_file_systems(kinds)?;
    machine::needs_recorder()?;
    let scratch = Scratch::mounted()?;
    let mut report = Report::new("disk-errors", seed);
    for (number, kind) in (0..).zip(kinds) {
        let mut bench = Bench::new(*kind, &scratch)?;
        let asked = count_points(&bench)?;
        control(&bench, asked, &mut report)?;
        bench.keep = keep;
        let all = all_points(asked);
        let every = all.len() <= rounds;
        let points = choose(all, rounds, &mut Dice::new(seed).part(number));
        for (index, fault) in points.iter().enumerate() {
            // By pairs: the two of a pair differ in whether the fault stays.
            let way = Way { at_once: index % 4 < 2, written: false };
            one_point(&bench, *fault, way, &mut report)?;
            if index % 4 < 2 {
                one_point(&bench, *fault, Way { written: true, ..way }, &mut report)?;
            }
        }
        let mut dice = Dice::new(seed).part(READS_PART + number);
        read_errors::run(&bench, rounds.div_ceil(READS_SHARE), &mut dice, &mut report)?;
        let figure = salvaged_figure(bench.kind.name());
        if every && report.figure(&figure) == 0 {
            report.broken(bench.kind.name(), "no record was ever salvaged");
        }
    }
    Ok(report)
}

/// How often a run without a fault writes and flushes.
fn count_points(bench: &Bench<'_>) -> io::Result<Asked> {
    let mut recording = bench.record(&bench.empty)?;
    recording.recorder.set_fault(Fault::None);
    recording.work(&orders(&recording), Until::Done)?;
    recording.unmount()?;
    Ok(recording.recorder.asked())
}

fn all_points(asked: Asked) -> Vec<Fault> {
    let writes = (1..=asked.writes + SLACK)
        .flat_map(|nth| [true, false].map(|stays| Fault::Write { nth, stays }));
    let flushes = (1..=asked.flushes + SLACK)
        .flat_map(|nth| [true, false].map(|stays| Fault::Flush { nth, stays }));
    writes.chain(flushes).collect()
}

/// So many of the points, spread over all of them.
pub(crate) fn choose(points: Vec<Fault>, rounds: usize, dice: &mut Dice) -> Vec<Fault> {
    let count = points.len();
    if count <= rounds {
        return points;
    }
    let from = dice.index(count);
    (0..rounds)
        .filter_map(|index| points.get((from + index * count / rounds) % count))
        .copied()
        .collect()
}

fn orders(recording: &Recording) -> Orders {
    Orders {
        first: Sizes::Mixed.first_id(1),
        count: EVENTS,
        threads: 2,
        depth: 4,
        ..Orders::open(&recording.lane)
    }
}

/// Acknowledges before the sync while the disk fails, and must be caught.
fn control(bench: &Bench<'_>, asked: Asked, report: &mut Report) -> io::Result<()> {
    let mut lost = 0;
    // What was acknowledged and not yet synced when the disk failed is luck: where a first pass
    // meets nothing, others follow.
    let passes = (0..CONTROL_PASSES).flat_map(|_| 1..=CONTROL_POINTS);
    for (tried, point) in (0_u64..).zip(passes) {
        if lost > 0 && tried >= CONTROL_POINTS {
            break;
        }
        let mut recording = bench.record(&bench.empty)?;
        let nth = 1 + asked.flushes * point / (CONTROL_POINTS + 1);
        recording.recorder.set_fault(Fault::Flush { nth, stays: true });
        let orders = Orders { ack_before_sync: true, ..orders(&recording) };
        recording.work(&orders, Until::Done)?;
        // In order or not: the file system has failed.
        let _ = recording.unmount();
        let trace = recording.recorder.finish()?;
        lost += cut_power(bench, &trace, MayMiss::Nothing)?.lost.len();
    }
    let name = bench.kind.name();
    report.count(&format!("{name} control: records lost"), lost as u64);
    if lost == 0 {
        report.broken(name, "acknowledging before the sync lost nothing: the harness is blind");
    }
    Ok(())
}

/// How a point is run.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// The lane is opened on the healed disk before it is mounted anew.
    at_once: bool,
    /// The ack level is `written`.
    written: bool,
}

impl Way {
    /// What may be missing once the memory of the kernel is gone.
    fn may_miss(self) -> MayMiss {
        if self.written { MayMiss::Anything } else { MayMiss::Nothing }
    }
}

/// Fails the disk at one point and heals it again.
fn one_point(bench: &Bench<'_>, fault: Fault, way: Way, report: &mut Report) -> io::Result<()> {
    let name = bench.kind.name();
    let there = format!("{name} {fault:?}, {way:?}");
    report.progress(|| there.clone());
    let mut recording = bench.record(&bench.empty)?;
    recording.recorder.set_fault(fault);
    let orders = Orders { written: way.written, ..orders(&recording) };
    let ended = recording.work(&orders, Until::Done)?;
    let refused = recording.recorder.asked().refused;
    report.count(&format!("{name} points"), 1);
    report.count(&format!("{name} points that were met"), u64::from(refused > 0));

    let mut ledger = Ledger::default();
    ledger.take_all(&ended.facts);
    let mut findings = match ended.crash_on_a_failing_disk() {
        Some(crash) => Findings::other(crash),
        None if ended.told_bus_error() => Findings::default(),
        None => told(&ended.facts, ledger.acked(), report),
    };
    let salvaged = ended.facts.iter().any(|fact| matches!(fact, Fact::Salvaged { .. }));
    report.count(&salvaged_figure(name), u64::from(salvaged));
    let died = ended.crash_on_a_failing_disk().is_some();
    report.count("ended: process died", u64::from(died));
    report.count("ended: process told a bus error", u64::from(ended.told_bus_error()));

    recording.recorder.set_fault(Fault::None);
    if way.at_once {
        findings.join(open_at_once(&recording, way, &mut ledger)?);
    }
    // In order or not: the file system may have failed.
    let _ = recording.unmount();
    let before = recording.recorder.so_far();
    findings.join(cut_power(bench, &before, way.may_miss())?);

    recording.mount(bench.kind)?;
    let inspect = Orders::inspect(&recording.lane, Sizes::Mixed.first_id(9));
    let healed = Handle::start(&inspect, |_| {})?.wait()?;
    recording.unmount()?;
    findings.join(judge(ledger, &healed, way.may_miss()));
    report.take(&there, &findings);
    Ok(())
}

fn salvaged_figure(name: &str) -> String {
    format!("{name} points at which records were salvaged")
}

/// Whether the agent's end was told as it should be.
fn told(facts: &[Fact], acked: u64, report: &mut Report) -> Findings {
    let has = |sought: fn(&Fact) -> bool| facts.iter().any(sought);
    let failed = has(|fact| matches!(fact, Fact::Failed));
    let unopened = has(|fact| matches!(fact, Fact::Unopened));
    let gave_up = has(|fact| matches!(fact, Fact::GaveUp));
    let done = acked == EVENTS;
    let ends = [
        ("ended: lane failed", failed),
        ("ended: lane did not open", unopened),
        ("ended: lane full", gave_up),
        ("ended: everything acknowledged", done),
    ];
    for (figure, so) in ends {
        report.count(figure, u64::from(so));
    }
    let mut findings = Findings::default();
    if has(|fact| matches!(fact, Fact::MovedAfterFailure)) {
        findings.other.push("acked moved after the lane had failed".to_owned());
    }
    if has(|fact| matches!(fact, Fact::Stalled { .. } | Fact::Refused { .. })) {
        findings.other.push("a writer waited in vain, or was refused without reason".to_owned());
    }
    if !(failed || unopened || gave_up || done) {
        findings.other.push(format!("{acked} of {EVENTS} acknowledged, and no failure told"));
    }
    findings
}

/// Opens the lane on the healed disk without a new mount: the page cache may show what the disk
/// has refused. What is shown here is owed.
fn open_at_once(recording: &Recording, way: Way, ledger: &mut Ledger) -> io::Result<Findings> {
    let again = Orders {
        first: Sizes::Mixed.first_id(2),
        count: 3,
        threads: 1,
        show: true,
        written: way.written,
        ..Orders::open(&recording.lane)
    };
    let ended = recording.work(&again, Until::Done)?;
    let mut findings = Findings::default();
    let crash = ended.crash_on_a_failing_disk();
    findings.other.extend(crash.map(|crash| format!("opened at once: {crash}")));
    let opened = !ended.facts.iter().any(|fact| matches!(fact, Fact::Unopened));
    if opened && !ended.told_bus_error() {
        // A file system that has shut itself down lets nobody in; else all must be there.
        let shown = ended.facts.iter().take_while(|fact| !matches!(fact, Fact::Claimed { .. }));
        let shown: Vec<_> = shown.copied().collect();
        findings.join(check(ledger, &shown, MayMiss::Nothing));
    }
    ledger.take_all(&ended.facts);
    Ok(findings)
}

/// Judges what a power cut right now leaves.
fn cut_power(bench: &Bench<'_>, trace: &Trace, may_miss: MayMiss) -> io::Result<Findings> {
    let mut findings = Findings::default();
    for state in trace.crash_states(&trace.last_cuts()) {
        let found = bench.judge(&state.image, &state.known, may_miss)?;
        let mut found = found.unwrap_or_else(|| Findings::other("the disk does not mount"));
        found.other.extend((!found.is_clean()).then(|| format!("power cut, {:?}", state.cut)));
        findings.join(found);
    }
    Ok(findings)
}
