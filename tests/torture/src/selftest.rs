//! Whether the recorder itself can be believed: a plain file instead of a lane.
//!
//! A block is written, synced and then noted as acknowledged; no power cut may lose it. The same
//! without the sync, and the same on a disk that lies about flushes, must lose blocks in some
//! state, or the recorder would not notice a log that does so. A disk that fails must be heard.
//! At the end nothing may be left mounted.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use crate::dice::Dice;
use crate::image::Image;
use crate::ledger::Fact;
use crate::machine::{self, Scratch};
use crate::mount::{FileSystem, Mounted};
use crate::recorder::{Fault, Habits, Recorder};
use crate::report::{Report, Stop};
use crate::trace::{CrashState, Trace};

const BLOCKS: u64 = 48;
const BLOCK_BYTES: u64 = 4096;
const FLUSH_HOLD: Duration = Duration::from_millis(1);
const FILE_NAME: &str = "blocks";

/// How a block is treated before it is noted as acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Synced,
    NotSynced,
    SyncedOnALyingDisk,
}

/// Runs the self-test on these file systems, with so many power cuts for each manner.
pub(crate) fn run(kinds: &[FileSystem], states: usize, seed: u64) -> Result<Report, Stop> {
    machine::go_private()?;
    machine::needs_file_systems(kinds)?;
    machine::needs_recorder()?;
    let scratch = Scratch::mounted()?;
    let mut report = Report::new("selftest", seed);
    for (number, kind) in (0..).zip(kinds) {
        let dice = Dice::new(seed).part(number);
        one_file_system(*kind, states, &dice, &scratch, &mut report)?;
    }
    let left = left_mounted(scratch.path())?;
    if left > 0 {
        report.broken("selftest", &format!("{left} mounts or loop devices were left behind"));
    }
    Ok(report)
}

fn one_file_system(
    kind: FileSystem,
    states: usize,
    dice: &Dice,
    scratch: &Scratch,
    report: &mut Report,
) -> Result<(), Stop> {
    let template = template(kind, scratch)?;
    for manner in [Manner::Synced, Manner::NotSynced, Manner::SyncedOnALyingDisk] {
        let trace = record(kind, &template, manner, scratch)?;
        report.count("flushes recorded", trace.flushes() as u64);
        report.count("writes recorded", trace.writes() as u64);
        let cuts = trace.choose_cuts(states, &mut dice.part(manner as u64));
        let (mut lost, mut unsynced) = (0, 0);
        for state in trace.crash_states(&cuts) {
            let (acked, there, lost_here) = judge(kind, &state, scratch)?;
            lost += lost_here;
            unsynced += u64::from(there < BLOCKS && acked < BLOCKS);
            report.count("states", 1);
        }
        let there = format!("{}, {manner:?}", kind.name());
        report.count(&format!("{there}: blocks lost"), lost);
        if manner == Manner::Synced && lost > 0 {
            report.broken(&there, &format!("{lost} synced blocks were lost"));
        }
        if manner == Manner::Synced && unsynced == 0 {
            report.broken(&there, "no state lacked anything: the cuts cut nothing");
        }
        if manner != Manner::Synced && lost == 0 {
            report.broken(&there, "the negative control lost nothing: the harness is blind");
        }
    }
    failing_disk_is_heard(kind, &template, scratch, report)?;
    Ok(())
}

/// An empty file system of this kind, as the start of every recording.
pub(crate) fn template(kind: FileSystem, scratch: &Scratch) -> io::Result<Image> {
    let file = scratch.join(format!("template-{}", kind.name()));
    kind.make(&file, kind.disk_bytes())?;
    let image = Image::load(&file)?;
    fs::remove_file(&file)?;
    Ok(image)
}

fn habits(kind: FileSystem) -> Habits {
    Habits { flush_hold: FLUSH_HOLD, tear_bytes: kind.tear_bytes() }
}

fn record(
    kind: FileSystem,
    template: &Image,
    manner: Manner,
    scratch: &Scratch,
) -> io::Result<Trace> {
    let folder = scratch.join("recorder");
    fs::create_dir_all(&folder)?;
    let recorder = Recorder::start(template.clone(), &folder, habits(kind))?;
    if manner == Manner::SyncedOnALyingDisk {
        recorder.set_fault(Fault::Lie);
    }
    let notes = recorder.notes();
    let mounted = Mounted::image(kind, &recorder.disk(), &scratch.join("recorded"))?;
    let file = File::create(scratch.join("recorded").join(FILE_NAME))?;
    File::open(scratch.join("recorded"))?.sync_all()?;
    for number in 0..BLOCKS {
        file.write_all_at(&block(number), number * BLOCK_BYTES)?;
        if manner != Manner::NotSynced {
            file.sync_data()?;
        }
        notes.note(Fact::Acked { id: number, place: number });
        if manner == Manner::NotSynced && number % 8 == 7 {
            // Something else on the disk flushes, or there would be one window only.
            File::create(scratch.join("recorded/other"))?.sync_all()?;
        }
    }
    drop(file);
    mounted.unmount()?;
    recorder.finish()
}

/// How many blocks were acknowledged by then, how many are there, and how many are lost.
fn judge(kind: FileSystem, state: &CrashState, scratch: &Scratch) -> io::Result<(u64, u64, u64)> {
    let image = scratch.join("state");
    state.image.store(&image)?;
    // A file system on a disk that lies may be past mounting: then it has lost everything.
    let held = match Mounted::image(kind, &image, &scratch.join("crashed")) {
        Ok(mounted) => {
            let held = fs::read(scratch.join("crashed").join(FILE_NAME)).unwrap_or_default();
            mounted.unmount()?;
            held
        }
        Err(_) => Vec::new(),
    };
    let there = |number: u64| {
        let at = usize::try_from(number * BLOCK_BYTES).unwrap_or(usize::MAX);
        held.get(at..).is_some_and(|rest| rest.starts_with(&block(number)))
    };
    let acked = state.known.len() as u64;
    let lost = (0..acked).filter(|number| !there(*number)).count() as u64;
    Ok((acked, (0..BLOCKS).filter(|number| there(*number)).count() as u64, lost))
}

fn block(number: u64) -> Vec<u8> {
    let mut dice = Dice::new(number);
    (0..BLOCK_BYTES / 8).flat_map(|_| dice.number().to_le_bytes()).collect()
}

fn failing_disk_is_heard(
    kind: FileSystem,
    template: &Image,
    scratch: &Scratch,
    report: &mut Report,
) -> io::Result<()> {
    let faults = [Fault::Flush { nth: 1, stays: false }, Fault::Write { nth: 1, stays: true }];
    for fault in faults {
        let folder = scratch.join("recorder");
        let recorder = Recorder::start(template.clone(), &folder, habits(kind))?;
        let mounted = Mounted::image(kind, &recorder.disk(), &scratch.join("recorded"))?;
        let file = File::create(scratch.join("recorded").join(FILE_NAME))?;
        file.write_all_at(&block(0), 0)?;
        file.sync_all()?;
        file.write_all_at(&block(1), 0)?;
        recorder.set_fault(fault);
        let heard = file.sync_data().is_err();
        let refused = recorder.asked().refused;
        recorder.set_fault(Fault::None);
        drop(file);
        // A file system that has failed may refuse to unmount in order; it goes all the same.
        let _ = mounted.unmount();
        let _ = recorder.finish();
        report.count("faults heard", u64::from(heard));
        if !heard || refused == 0 {
            report.broken(kind.name(), &format!("{fault:?} was not heard by the one who synced"));
        }
    }
    Ok(())
}

/// Mounts below the folder other than its own, and loop devices on files below it.
fn left_mounted(folder: &Path) -> io::Result<usize> {
    let folder = format!("{}/", folder.display());
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut left = mounts.lines().filter(|line| line.contains(&folder)).count();
    for entry in fs::read_dir("/sys/block")? {
        let backing = entry?.path().join("loop/backing_file");
        left += usize::from(fs::read_to_string(backing).is_ok_and(|file| file.contains(&folder)));
    }
    Ok(left)
}
