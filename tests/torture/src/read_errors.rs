//! A disk that cannot be read: the nth read of a lane's file system is refused, once or for good,
//! while the lane is opened, read through, written to and read again.
//!
//! Nobody may panic, hang or be shown a wrong byte. Who cannot go on says which file it was, by an
//! error or by the line of a bus error; who goes on without a record says that something is
//! missing. Once the disk is healed everything is there that was ever acknowledged, in particular
//! what could not be read while a lane was recovered.

use std::io;

use crate::agent::Orders;
use crate::bench::{Bench, Until, judge};
use crate::check::{Findings, MayMiss, check};
use crate::dice::Dice;
use crate::disk_errors::choose;
use crate::handle::{Ended, Handle};
use crate::image::Image;
use crate::ledger::{Fact, Ledger, Sizes};
use crate::recorder::Fault;
use crate::report::Report;

/// Events in the lane that is read, in sealed segments and in one that a kill has left open.
const EVENTS: u64 = 60;
const KILLED_AT: u64 = 40;
/// Reads beyond those counted in a run without a fault: no two runs read alike.
const SLACK: u64 = 2;

/// A lane to be read, and what was acknowledged in it.
struct Left {
    disk: Image,
    ledger: Ledger,
}

/// Refuses reads at up to so many points.
pub(crate) fn run(
    bench: &Bench<'_>,
    rounds: usize,
    dice: &mut Dice,
    report: &mut Report,
) -> io::Result<()> {
    let left = leave(bench)?;
    let reads = count_reads(bench, &left)?;
    control(bench, &left, reads, report)?;
    let points = (1..=reads + SLACK)
        .flat_map(|nth| [true, false].map(|stays| Fault::Read { nth, stays }))
        .collect();
    let mut met = 0;
    for fault in choose(points, rounds, dice) {
        met += one_point(bench, &left, fault, report)?;
    }
    let name = bench.kind.name();
    report.count(&format!("{name} reads that were refused"), met);
    if met == 0 {
        report.broken(name, "no read was ever refused: the harness is blind");
    }
    Ok(())
}

/// Has a lane written and its writer killed.
fn leave(bench: &Bench<'_>) -> io::Result<Left> {
    let mut recording = bench.record(&bench.empty)?;
    let orders = Orders {
        first: Sizes::Mixed.first_id(1),
        count: EVENTS,
        threads: 2,
        depth: 4,
        ..Orders::open(&recording.lane)
    };
    let ended = recording.work(&orders, Until::Acked(KILLED_AT))?;
    recording.unmount()?;
    let mut ledger = Ledger::default();
    ledger.take_all(&ended.facts);
    Ok(Left { disk: Image::load(&recording.recorder.disk())?, ledger })
}

/// How often a lane is read from the disk where nothing is refused.
fn count_reads(bench: &Bench<'_>, left: &Left) -> io::Result<u64> {
    let mut recording = bench.record(&left.disk)?;
    recording.recorder.set_fault(Fault::None);
    recording.work(&Orders::inspect(&recording.lane, fresh(2)), Until::Done)?;
    let reads = recording.recorder.asked().reads;
    recording.unmount()?;
    Ok(reads)
}

/// A run of ids for a process that finds a lane.
fn fresh(run: u64) -> u64 {
    Sizes::Mixed.first_id(run)
}

/// A disk that returns zeros in place of an error must be caught.
fn control(bench: &Bench<'_>, left: &Left, reads: u64, report: &mut Report) -> io::Result<()> {
    let mut caught = 0;
    for nth in 1..=reads {
        let mut recording = bench.record(&left.disk)?;
        recording.recorder.set_fault(Fault::ReadZeros { nth });
        let ended = recording.work(&Orders::inspect(&recording.lane, fresh(2)), Until::Done)?;
        recording.recorder.set_fault(Fault::None);
        // In order or not: the file system itself may have been told zeros.
        let _ = recording.unmount();
        let findings = judge(left.ledger.clone(), &ended, MayMiss::Nothing);
        caught += u64::from(!findings.lost.is_empty());
        if caught > 0 {
            break;
        }
    }
    let name = bench.kind.name();
    report.count(&format!("{name} control: zeros for bytes caught"), caught);
    if caught == 0 {
        report.broken(name, "a disk that returned zeros lost nothing: the harness is blind");
    }
    Ok(())
}

/// Refuses reads from one point on, then heals the disk. Returns how many were refused.
fn one_point(bench: &Bench<'_>, left: &Left, fault: Fault, report: &mut Report) -> io::Result<u64> {
    let name = bench.kind.name();
    let there = format!("{name} {fault:?}");
    report.progress(|| there.clone());
    let mut recording = bench.record(&left.disk)?;
    recording.recorder.set_fault(fault);
    let ended = recording.work(&Orders::inspect(&recording.lane, fresh(2)), Until::Done)?;
    let refused = recording.recorder.asked().refused;
    report.count(&format!("{name} points of reading"), 1);
    let lane = recording.lane.display().to_string();
    let mut findings = told(&left.ledger, &ended, &lane, report);

    recording.recorder.set_fault(Fault::None);
    // In order or not: the file system may have failed.
    let _ = recording.unmount();
    let mut ledger = left.ledger.clone();
    ledger.take_all(&ended.facts);
    recording.mount(bench.kind)?;
    let healed = Handle::start(&Orders::inspect(&recording.lane, fresh(9)), |_| {})?.wait()?;
    recording.unmount()?;
    findings.join(judge(ledger, &healed, MayMiss::Nothing));
    report.take(&there, &findings);
    Ok(refused)
}

/// Whether a process that could not read everything has said so.
fn told(ledger: &Ledger, ended: &Ended, lane: &str, report: &mut Report) -> Findings {
    if let Some(crash) = ended.crash_on_a_failing_disk() {
        return Findings::other(crash);
    }
    let has = |sought: fn(&Fact) -> bool| ended.facts.iter().any(sought);
    let (bus, unopened) = (ended.told_bus_error(), has(|fact| matches!(fact, Fact::Unopened)));
    let ends = [
        ("reading ended: a bus error was told", bus),
        ("reading ended: an error was told", unopened),
        ("reading ended: in order", !bus && !unopened),
    ];
    for (figure, so) in ends {
        report.count(figure, u64::from(so));
    }
    if (bus || unopened) && !ended.said.contains(lane) {
        return Findings::other(format!("the file is not named: {}", ended.said));
    }
    // What was shown first, before a close and a second look.
    let shown: Vec<_> = ended
        .facts
        .iter()
        .take_while(|fact| **fact != Fact::Again)
        .filter(|fact| matches!(fact, Fact::Shown { .. } | Fact::Wrong { .. }))
        .copied()
        .collect();
    let mut known = ledger.clone();
    let claims = ended.facts.iter().filter(|fact| matches!(fact, Fact::Claimed { .. }));
    claims.for_each(|claim| known.take(*claim));
    let mut findings = check(&known, &shown, MayMiss::Anything);
    let missing = check(&known, &shown, MayMiss::Nothing).lost.len();
    let counted = has(|fact| match fact {
        Fact::Opened { damaged, notes } => *damaged > 0 || *notes > 0,
        Fact::Gap { count } => *count > 0,
        _ => false,
    });
    report.count(
        "reading: records missed and counted",
        if bus || unopened { 0 } else { missing as u64 },
    );
    if !bus && !unopened && missing > 0 && !counted {
        findings.other.push(format!("{missing} records are missing, and nobody said so"));
    }
    findings
}
