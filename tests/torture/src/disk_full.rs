//! A full disk: something else takes all the room at any moment, or a limit on file sizes does.
//!
//! The writer is never killed by a signal. It is told that the lane is full, what was acknowledged
//! stays, appends go on unaided when there is room again, and a lane opens on a disk that has no
//! byte left. The negative control is a process that a limit on file sizes may kill.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::fs::FallocateFlags;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::agent::Orders;
use crate::bench::judge;
use crate::check::{Findings, MayMiss, check};
use crate::dice::Dice;
use crate::handle::{Ended, Handle};
use crate::ledger::{Fact, Ledger, Sizes};
use crate::machine::{self, Scratch};
use crate::mount::{FileSystem, Mounted};
use crate::report::{Report, Stop};

/// Size of the file system in memory.
const MEMORY_BYTES: u64 = 24 << 20;
/// More events than an agent can append before its round ends.
const EVENTS: u64 = 1 << 22;
/// How often the room goes and comes back in one round.
const CYCLES: u64 = 3;
/// An agent works for at most so long before the room goes.
const AT_WORK_MAX_MS: u64 = 300;
/// How long the room is gone.
const FULL_MS: u64 = 400;
/// How long a lane may take to go on after the room is back.
const RECOVER_MAX: Duration = Duration::from_secs(10);

/// How long a lane may take to refuse a record.
const REFUSE_MAX_US: u64 = 100_000;

/// Where there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Place {
    Ext4,
    Xfs,
    Btrfs,
    /// A file system in memory.
    Tmpfs,
    /// The process may not make files as large as a segment (`ulimit -f`).
    Limit,
}

impl Place {
    fn file_system(self) -> Option<FileSystem> {
        match self {
            Self::Ext4 => Some(FileSystem::Ext4),
            Self::Xfs => Some(FileSystem::Xfs),
            Self::Btrfs => Some(FileSystem::Btrfs),
            Self::Tmpfs | Self::Limit => None,
        }
    }
}

/// Fills disks so many times, each place in turn.
pub(crate) fn run(places: &[Place], rounds: u64, seed: u64) -> Result<Report, Stop> {
    machine::go_private()?;
    let kinds: Vec<_> = places.iter().filter_map(|place| place.file_system()).collect();
    machine::needs_file_systems(&kinds)?;
    let scratch = Scratch::mounted()?;
    let mut report = Report::new("disk-full", seed);
    control(&scratch, &mut report)?;
    for (round, place) in (0..rounds).zip(places.iter().cycle()) {
        let mut dice = Dice::new(seed).part(round);
        one_round(*place, &scratch, &mut dice, &mut report)?;
    }
    Ok(report)
}

/// Opens a lane that has no room and takes that for its end, and must be caught.
fn control(scratch: &Scratch, report: &mut Report) -> io::Result<()> {
    let dir = scratch.join("control");
    let file_bytes_max = Some(Orders::open(&dir).segment_bytes / 2);
    let heedless = Orders { heedless: true, file_bytes_max, count: 1, ..Orders::open(&dir) };
    let ended = Handle::start(&heedless, |_| {})?.wait()?;
    report.count("control: deaths seen", u64::from(ended.crash().is_some()));
    if ended.crash().is_none() {
        report.broken("control", "a process that dies for want of room was not seen to die");
    }
    let heeding = Orders { heedless: false, ..heedless };
    let ended = Handle::start(&heeding, |_| {})?.wait()?;
    if let Some(crash) = ended.crash() {
        report.broken("a lane that was never made, without room for it", &crash);
    }
    fs::remove_dir_all(&dir)
}

fn one_round(
    place: Place,
    scratch: &Scratch,
    dice: &mut Dice,
    report: &mut Report,
) -> io::Result<()> {
    let at = scratch.join("full");
    let mounted = match place.file_system() {
        Some(kind) => {
            let image = scratch.join("image");
            kind.make(&image, kind.disk_bytes())?;
            Mounted::image(kind, &image, &at)?
        }
        None => Mounted::memory(Some(MEMORY_BYTES), &at)?,
    };
    let segment_bytes = dice.one_of(&[65_536, 1 << 20]).unwrap_or(65_536);
    let segments = 6 + dice.below(4);
    let orders = Orders {
        first: Sizes::Mixed.first_id(1),
        count: EVENTS,
        threads: 1 + dice.below(3),
        depth: 8,
        segment_bytes,
        keep_bytes: Some(segments * segment_bytes),
        reserve_bytes: dice.one_of(&[None, Some(0), Some(2 * segment_bytes)]).flatten(),
        written: dice.once_in(2),
        attended: true,
        ..Orders::open(&at.join("lane"))
    };
    let there = format!(
        "{place:?}, segments of {segment_bytes}, reserve {:?}, {}",
        orders.reserve_bytes,
        if orders.written { "written" } else { "synced" }
    );
    report.progress(|| there.clone());
    report.count(&format!("{place:?} rounds"), 1);
    let mut round = Round { place, orders, at: &at, findings: Findings::default() };
    let ended = round.fill_and_free(dice, report)?;
    let kept_bytes = (segments - 4) * segment_bytes;
    round.open_full(&ended, MayMiss::Oldest { kept_bytes }, report)?;
    report.take(&there, &round.findings);
    mounted.unmount()
}

/// One lane where there is no room.
#[derive(Debug)]
struct Round<'a> {
    place: Place,
    orders: Orders,
    at: &'a Path,
    findings: Findings,
}

/// What an agent has told so far.
#[derive(Clone, Debug, Default)]
struct Heard {
    claimed: Arc<AtomicU64>,
    acked: Arc<AtomicU64>,
    full: Arc<AtomicU64>,
}

impl Round<'_> {
    /// Lets an agent append while the room goes and comes back.
    fn fill_and_free(&mut self, dice: &mut Dice, report: &mut Report) -> io::Result<Ended> {
        let heard = Heard::default();
        let hearing = heard.clone();
        let mut handle = Handle::start(&self.orders, move |fact| match fact {
            Fact::Claimed { .. } => _ = hearing.claimed.fetch_add(1, Ordering::Relaxed),
            Fact::Acked { .. } => _ = hearing.acked.fetch_add(1, Ordering::Relaxed),
            Fact::Full { .. } => _ = hearing.full.fetch_add(1, Ordering::Relaxed),
            _ => {}
        })?;
        let pid = Pid::from_raw(i32::try_from(handle.id()).unwrap_or(0));
        // A lane that was never made cannot be made without room.
        handle.watch(RECOVER_MAX, || heard.claimed.load(Ordering::Relaxed) > 0)?;
        for _ in 0..CYCLES {
            thread::sleep(Duration::from_millis(dice.below(AT_WORK_MAX_MS)));
            let full_before = heard.full.load(Ordering::Relaxed);
            self.take_room(pid)?;
            thread::sleep(Duration::from_millis(dice.below(FULL_MS)));
            let told = heard.full.load(Ordering::Relaxed) > full_before;
            report.count("times full", 1);
            report.count("times the lane told that it was full", u64::from(told));
            let acked_before = heard.acked.load(Ordering::Relaxed);
            self.give_room(pid)?;
            let goes_on = || heard.acked.load(Ordering::Relaxed) > acked_before;
            let took = handle.watch(RECOVER_MAX, goes_on)?;
            let Some(took) = took else {
                let text = "nothing was appended after the room was back";
                self.findings.other.push(text.to_owned());
                break;
            };
            report.highest("slowest recovery, ms", millis(took));
        }
        // Half of the agents end in order, and half are killed while there is no room.
        if dice.once_in(2) {
            self.take_room(pid)?;
            thread::sleep(Duration::from_millis(dice.below(FULL_MS)));
            let died = !handle.runs()?;
            let ended = handle.kill()?;
            self.findings.other.extend(ended.crash().filter(|_| died));
            return Ok(ended);
        }
        handle.dismiss();
        let ended = handle.wait()?;
        self.findings.other.extend(ended.crash());
        Ok(ended)
    }

    /// Opens the lane with no room at all, and then with room.
    fn open_full(
        &mut self,
        ended: &Ended,
        may_miss: MayMiss,
        report: &mut Report,
    ) -> io::Result<()> {
        let bad = |fact: &&Fact| {
            matches!(
                fact,
                Fact::Unopened | Fact::Stalled { .. } | Fact::Refused { .. } | Fact::Failed
            )
        };
        let bad = ended.facts.iter().find(bad);
        self.findings.other.extend(bad.map(|fact| format!("{fact:?}: {}", ended.said)));
        let took = |fact: &Fact| match fact {
            Fact::Full { took_us, .. } => Some(*took_us),
            _ => None,
        };
        let slowest_us = ended.facts.iter().filter_map(took).max().unwrap_or(0);
        report.highest("slowest refusal, us", slowest_us);
        if slowest_us > REFUSE_MAX_US {
            self.findings.other.push(format!("a full lane took {slowest_us} us to say so"));
        }
        let mut ledger = Ledger::default();
        ledger.take_all(&ended.facts);
        report.count("acknowledged", ledger.acked());

        self.take_room(None)?;
        let limited = self.place == Place::Limit;
        let orders = Orders {
            show: true,
            count: 1,
            first: Sizes::Mixed.first_id(2),
            segment_bytes: self.orders.segment_bytes,
            file_bytes_max: limited.then_some(self.orders.segment_bytes / 2),
            reserve_bytes: self.orders.reserve_bytes,
            ..Orders::open(&self.orders.dir)
        };
        let full = Handle::start(&orders, |_| {})?.wait()?;
        self.findings.other.extend(full.crash().map(|crash| format!("opened full: {crash}")));
        let shown = full.facts.iter().take_while(|fact| !matches!(fact, Fact::Claimed { .. }));
        let shown: Vec<_> = shown.copied().collect();
        if full.crash().is_none() {
            let mut found = check(&ledger, &shown, may_miss);
            found.other.extend((!found.is_clean()).then(|| format!("opened full: {}", full.said)));
            self.findings.join(found);
            let refused = full.facts.iter().any(|fact| matches!(fact, Fact::Full { .. }));
            report.count("opened full, and told so", u64::from(refused));
        }
        ledger.take_all(&full.facts);
        self.give_room(None)?;
        let inspect = Orders::inspect(&self.orders.dir, Sizes::Mixed.first_id(3));
        let free = Handle::start(&inspect, |_| {})?.wait()?;
        self.findings.join(judge(ledger, &free, may_miss));
        Ok(())
    }

    fn junk(&self) -> std::path::PathBuf {
        self.at.join("junk")
    }

    /// Takes all the room there is.
    fn take_room(&self, agent: Option<Pid>) -> io::Result<()> {
        if self.place == Place::Limit {
            return limit(agent, Some(self.orders.segment_bytes / 2));
        }
        let mut junk = File::create(self.junk())?;
        let mut offset = 0;
        // Large pieces first, then whatever is left; the lane takes its part in the meantime.
        for piece in [16 << 20, 1 << 20, 64 << 10, 4 << 10] {
            while rustix::fs::fallocate(&junk, FallocateFlags::empty(), offset, piece).is_ok() {
                offset += piece;
            }
        }
        let _ = junk.write_all(&[0; 4096]);
        Ok(())
    }

    fn give_room(&self, agent: Option<Pid>) -> io::Result<()> {
        if self.place == Place::Limit {
            return limit(agent, None);
        }
        fs::remove_file(self.junk())
    }
}

/// Limits the size of files of a running process, or lifts the limit.
fn limit(agent: Option<Pid>, bytes: Option<u64>) -> io::Result<()> {
    let Some(agent) = agent else { return Ok(()) };
    match prlimit(Some(agent), Resource::Fsize, Rlimit { current: bytes, maximum: None }) {
        // It has died, which is found out elsewhere.
        Ok(_) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn millis(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}
