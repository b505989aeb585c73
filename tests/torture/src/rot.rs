//! Rot: a bit flips, a file is cut short, a file is gone. The lane opens all the same, never
//! delivers a wrong byte, loses no record but those that were touched, and tells that it did.
//!
//! Each round takes a copy of a lane with known records, harms one file, and lets an agent recover,
//! read, append and close it. The lane was closed in order, or its writer was killed, or it has
//! lived through several writers.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::agent::Orders;
use crate::bench::judge;
use crate::check::{Findings, MayMiss};
use crate::dice::Dice;
use crate::handle::{Ended, Handle};
use crate::ledger::{Event, Fact, Ledger, Sizes, offset_of};
use crate::machine::Scratch;
use crate::report::{Report, Stop};

/// Rounds on one lane before another is made.
const ROUNDS_A_LANE: u64 = 250;
const RECORD_HEADER_BYTES: u64 = 64;
const RECORD_ALIGN: u64 = 64;
const PAGE_BYTES: u64 = 4096;
/// Bytes at the start of the first and the last page of a segment that mean something.
const PAGE_HEADER_BYTES: u64 = 128;

/// What is done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Flip { at: u64, bit: u8 },
    Truncate { to: u64 },
    Delete,
}

/// A record of the unharmed lane.
#[derive(Clone, Copy, Debug)]
struct Known {
    id: u64,
    start: u64,
    end: u64,
}

/// A lane before it is harmed.
#[derive(Debug)]
struct Sound {
    how: &'static str,
    dir: PathBuf,
    files: Vec<(String, u64)>,
    facts: Vec<Fact>,
    records: Vec<Known>,
}

/// Does harm so many times.
pub(crate) fn run(rounds: u64, seed: u64) -> Result<Report, Stop> {
    let scratch = Scratch::plain()?;
    let mut report = Report::new("rot", seed);
    let mut done = 0;
    for lane in 0.. {
        if done >= rounds {
            break;
        }
        let mut dice = Dice::new(seed).part(lane);
        let sound = Sound::make(&scratch, lane, &mut dice)?;
        let here = ROUNDS_A_LANE.min(rounds - done);
        for _ in 0..here {
            one_harm(&sound, &scratch.join("harmed"), &mut dice, &mut report)?;
        }
        done += here;
        fs::remove_dir_all(&sound.dir)?;
    }
    Ok(report)
}

impl Sound {
    fn make(scratch: &Scratch, lane: u64, dice: &mut Dice) -> io::Result<Self> {
        let dir = scratch.join("sound");
        let (how, writers) = match lane % 3 {
            0 => ("closed", 1),
            1 => ("killed", 1),
            _ => ("killed twice", 2),
        };
        let killed = how != "closed";
        let mut facts = Vec::new();
        for writer in 0..writers {
            let orders = Orders {
                first: Sizes::Mixed.first_id(writer + 1),
                count: 60 + dice.below(60),
                linger: killed,
                ..Orders::open(&dir)
            };
            facts.extend(write(&orders)?);
        }
        let mut sound = Self { how, dir, files: Vec::new(), facts, records: Vec::new() };
        sound.list()?;
        // What the unharmed lane shows is what it owes.
        let copy = scratch.join("harmed");
        let ended = sound.inspect_copy(&copy, |_| Ok(()))?;
        let before = ended.facts.iter().take_while(|fact| !matches!(fact, Fact::Claimed { .. }));
        let shown: Vec<_> = before.copied().collect();
        sound.records = shown.iter().filter_map(known).collect();
        sound.facts.extend(shown);
        Ok(sound)
    }

    fn list(&mut self) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            self.files.push((name, entry.metadata()?.len()));
        }
        self.files.sort();
        Ok(())
    }

    /// Copies the lane, harms the copy, and lets an agent inspect it.
    fn inspect_copy(
        &self,
        copy: &Path,
        harm: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<Ended> {
        fs::create_dir(copy)?;
        for (name, _) in &self.files {
            fs::copy(self.dir.join(name), copy.join(name))?;
        }
        harm(copy)?;
        let ended =
            Handle::start(&Orders::inspect(copy, Sizes::Mixed.first_id(99)), |_| {})?.wait()?;
        fs::remove_dir_all(copy)?;
        Ok(ended)
    }

    fn choose(&self, dice: &mut Dice) -> Option<(String, Harm)> {
        let segment = dice.below(16) != 0;
        let of_kind: Vec<_> =
            self.files.iter().filter(|(name, _)| base_of(name).is_some() == segment).collect();
        let (name, bytes) = dice.one_of(&of_kind)?;
        let harm = match dice.below(10) {
            0 => Harm::Delete,
            1 | 2 => Harm::Truncate { to: dice.below(*bytes) },
            _ => Harm::Flip { at: self.choose_byte(name, *bytes, dice), bit: bit(dice) },
        };
        Some((name.clone(), harm))
    }

    /// Any byte of the file; half of the time one of those that hold it together.
    fn choose_byte(&self, name: &str, bytes: u64, dice: &mut Dice) -> u64 {
        let within = |dice: &mut Dice, from: u64, count: u64| from + dice.below(count);
        match (base_of(name), dice.below(8)) {
            (_, 0..=3) => dice.below(bytes),
            (Some(_), 4) => within(dice, 0, PAGE_HEADER_BYTES),
            (Some(_), 5) => within(dice, bytes - PAGE_BYTES, PAGE_HEADER_BYTES),
            (Some(base), _) => {
                let end = base + bytes;
                let here = |known: &&Known| (base..end).contains(&known.start);
                let here: Vec<_> = self.records.iter().filter(here).collect();
                let start = dice.one_of(&here).map_or(0, |known| known.start - base);
                within(dice, start, RECORD_HEADER_BYTES)
            }
            (None, _) => within(dice, 0, PAGE_HEADER_BYTES.min(bytes)),
        }
    }

    /// The records that the harm may cost.
    fn touched(&self, name: &str, harm: Harm) -> HashSet<u64> {
        let Some(base) = base_of(name) else { return HashSet::new() };
        let bytes = self.files.iter().find(|(file, _)| file == name).map_or(0, |(_, bytes)| *bytes);
        let lies_in = |known: &Known| (base..base + bytes).contains(&known.start);
        let is_touched = |known: &&Known| match harm {
            Harm::Flip { at, .. } => (known.start..known.end).contains(&(base + at)),
            Harm::Truncate { to } => lies_in(known) && known.end > base + to,
            Harm::Delete => lies_in(known),
        };
        self.records.iter().filter(is_touched).map(|known| known.id).collect()
    }

    /// Whether the loss of this file looks like retention, which takes the oldest.
    fn loss_is_silent(&self, name: &str, harm: Harm) -> bool {
        let oldest = self.files.iter().find(|(name, _)| base_of(name).is_some());
        harm == Harm::Delete && oldest.is_some_and(|(file, _)| file == name)
    }
}

fn one_harm(sound: &Sound, copy: &Path, dice: &mut Dice, report: &mut Report) -> io::Result<()> {
    let Some((name, harm)) = sound.choose(dice) else { return Ok(()) };
    let ended = sound.inspect_copy(copy, |copy| inflict(&copy.join(&name), harm))?;
    let touched = sound.touched(&name, harm);
    let mut ledger = Ledger::default();
    let owed = |fact: &&Fact| match fact {
        Fact::Acked { id, .. } | Fact::Shown { id, .. } => !touched.contains(id),
        _ => true,
    };
    sound.facts.iter().filter(owed).for_each(|fact| ledger.take(*fact));
    let mut findings = judge(ledger, &ended, MayMiss::Nothing);

    let until_again = ended.facts.iter().take_while(|fact| **fact != Fact::Again);
    let first: Vec<_> = until_again.collect();
    let shown: HashSet<_> = first.iter().filter_map(|fact| known(fact)).map(|it| it.id).collect();
    let lost = touched.iter().filter(|id| !shown.contains(id)).count();
    // The control: what no harm excuses must be seen to be lost.
    let mut strict = Ledger::default();
    sound.facts.iter().for_each(|fact| strict.take(*fact));
    let seen = judge(strict, &ended, MayMiss::Nothing).lost.len();
    report.count("control: losses seen without an excuse", seen as u64);
    if seen < lost {
        findings.join(Findings::other(format!("the harness saw {seen} of {lost} losses")));
    }
    let told = first.iter().any(|fact| match fact {
        Fact::Gap { count } => *count > 0,
        Fact::Opened { damaged, notes } => damaged + notes > 0,
        _ => false,
    });
    if lost > 0 && !told && !sound.loss_is_silent(&name, harm) {
        findings.join(Findings::other(format!("{lost} touched records are gone, and nobody told")));
    }
    let (figure, there) = match harm {
        Harm::Flip { .. } => ("flips", lost),
        Harm::Truncate { .. } => ("truncations", lost),
        Harm::Delete => ("deletions", lost),
    };
    report.count(figure, 1);
    report.count(&format!("{figure}: touched records lost"), there as u64);
    let there = format!("{} lane, {name}, {harm:?}", sound.how);
    report.progress(|| there.clone());
    report.take(&there, &findings);
    Ok(())
}

/// Lets an agent write a lane, and ends it by its orders.
fn write(orders: &Orders) -> io::Result<Vec<Fact>> {
    let (acked, all_acked) = std::sync::mpsc::channel();
    let handle = Handle::start(orders, move |fact| {
        if matches!(fact, Fact::Acked { .. }) {
            // Nobody waits any more once everything was heard.
            let _ = acked.send(());
        }
    })?;
    // Ends early if the agent does.
    let _ = all_acked.iter().take(usize::try_from(orders.count).unwrap_or(usize::MAX)).count();
    let ended = if orders.linger { handle.kill()? } else { handle.wait()? };
    Ok(ended.facts)
}

fn inflict(path: &Path, harm: Harm) -> io::Result<()> {
    match harm {
        Harm::Flip { at, bit } => {
            let file = File::options().read(true).write(true).open(path)?;
            let mut byte = [0];
            if file.read_at(&mut byte, at)? == 1 {
                let flipped = byte.map(|byte| byte ^ bit);
                file.write_all_at(&flipped, at)?;
            }
            Ok(())
        }
        Harm::Truncate { to } => File::options().write(true).open(path)?.set_len(to),
        Harm::Delete => fs::remove_file(path),
    }
}

fn bit(dice: &mut Dice) -> u8 {
    1 << (dice.below(8) & 7)
}

fn base_of(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_suffix(".seg")?, 16).ok()
}

/// The record that a fact shows, and how far it reaches.
fn known(fact: &Fact) -> Option<Known> {
    let Fact::Shown { id, place } = *fact else { return None };
    let event = Event::of(id).ok()?;
    let payload = (event.meta.len() + event.body.len()) as u64;
    let whole = (RECORD_HEADER_BYTES + payload).next_multiple_of(RECORD_ALIGN);
    let start = offset_of(place);
    Some(Known { id, start, end: start + whole })
}
