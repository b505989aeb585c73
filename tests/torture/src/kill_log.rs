//! Killed at work: `kill -9` of a process that appends from several threads, at any moment, in
//! recovery too; at both ack levels everything acknowledged is there when the lane opens again.
//!
//! A lane is opened, read, written and killed many times over. Every opening shows the whole lane
//! first, and that is judged by what all the processes before have told.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::agent::Orders;
use crate::bench::judge;
use crate::check::{Findings, MayMiss, check, check_epoch};
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
/// More events than an agent can append before it is killed.
const EVENTS: u64 = 1 << 23;

/// One lane over its rounds.
#[derive(Debug)]
struct Life {
    orders: Orders,
    may_miss: MayMiss,
    ledger: Ledger,
}

/// Kills so many writers.
pub(crate) fn run(rounds: u64, seed: u64) -> Result<Report, Stop> {
    let scratch = Scratch::plain()?;
    let mut report = Report::new("kill-log", seed);
    let mut done = 0;
    for lane in 0.. {
        if done >= rounds {
            break;
        }
        let dir = scratch.join("lane");
        let rounds = ROUNDS_A_LANE.min(rounds - done);
        let dice = Dice::new(seed).part(lane);
        one_lane(&dir, lane % 2 == 1, rounds, dice, &mut report)?;
        done += rounds;
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(report)
}

fn one_lane(
    dir: &Path,
    written: bool,
    rounds: u64,
    mut dice: Dice,
    report: &mut Report,
) -> io::Result<()> {
    let segment_bytes = dice.one_of(&[65_536, 1 << 20, 8 << 20]).unwrap_or(1 << 20);
    let (retires, segments) = (dice.once_in(3), 6 + dice.below(10));
    let kept_bytes = (segments - 4) * segment_bytes;
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
    let level = if orders.written { "written" } else { "synced" };
    let mut life = Life { orders, may_miss, ledger: Ledger::default() };
    for round in 0..rounds {
        life.orders.first = Sizes::Small.first_id(round + 1);
        let there = format!("{level}, {} threads, round {round}", life.orders.threads);
        let ended = one_kill(&life.orders, &mut dice)?;
        report.count(&format!("{level} kills"), 1);
        let fresh = ended.facts.iter().filter(|fact| matches!(fact, Fact::Acked { .. })).count();
        report.count(&format!("{level} acknowledged"), fresh as u64);
        let begun = ended.facts.iter().any(|fact| matches!(fact, Fact::Claimed { .. }));
        report.count("killed before the first append", u64::from(!begun));
        report.take(&there, &life.opened(&ended));
        report.progress(|| there);
    }
    let last =
        Orders { segment_bytes: 65_536, ..Orders::inspect(dir, Sizes::Small.first_id(1 << 16)) };
    let ended = Handle::start(&last, |_| {})?.wait()?;
    report.count("records read at the ends", ended.facts.len() as u64);
    report.take(&format!("{level}, at the end"), &judge(life.ledger, &ended, life.may_miss));
    Ok(())
}

impl Life {
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

/// Lets an agent work for a while, and kills it.
fn one_kill(orders: &Orders, dice: &mut Dice) -> io::Result<Ended> {
    let begun = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&begun);
    let mut handle = Handle::start(orders, move |fact| {
        if matches!(fact, Fact::Claimed { .. }) {
            heard.store(true, Ordering::Relaxed);
        }
    })?;
    if dice.once_in(5) {
        thread::sleep(Duration::from_micros(dice.below(EARLY_MAX_US)));
        return handle.kill();
    }
    handle.watch(BEGIN_MAX, || begun.load(Ordering::Relaxed))?;
    thread::sleep(Duration::from_micros(dice.below(AT_WORK_MAX_US)));
    handle.kill()
}
