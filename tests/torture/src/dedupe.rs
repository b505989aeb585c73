//! Known events, by the tens of millions: none forgotten, none taken for another, through kills,
//! restarts and lost files, in memory that does not grow with them; and a start that does not
//! grow with the backlog.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use forebay_log::planted::{PLANTED, Point};
use rustix::fs::Advice;

use crate::dice::Dice;
use crate::remembering::{Counts, Memory, Task, Told, Worker};
use crate::report::{Report, Stop, say};

/// A process that is killed may have stored so many events more than it has told.
const UNSURE: u64 = 40_000;
/// Known events that are asked for after a restart, spread over all.
const SAMPLE: u64 = 200_000;
/// What a start may take, and the memory that it may need.
const START_MS_MAX: u64 = 2_000;
const START_KIB_MAX: u64 = 200 * 1024;
/// Own memory: so much a key of the capacity, and so much for the program itself.
const OWN_BYTES_A_KEY: u64 = 64;
const OWN_KIB: u64 = 24 * 1024;
/// Mapped files: the program itself, segments of the log, and the guides of all generations.
const FILES_KIB: u64 = 320 * 1024;
/// Events of the negative control, in blocks of which it makes several.
const CONTROL_KEYS: u64 = 60_000;
const CONTROL_CAPACITY: usize = 35_000;

/// How much to do.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Size {
    /// Keys that memory may hold, as `dedupe_capacity`.
    #[arg(long, default_value_t = 4_000_000)]
    capacity: usize,
    /// Where the lane is made: its file system has to hold all of it.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Bytes of a body.
    #[arg(long, default_value_t = 16)]
    body_bytes: usize,
    /// Bytes of a segment of the log.
    #[arg(long, default_value_t = 128 << 20)]
    segment_bytes: u64,
}

/// A lane over the campaign.
struct Life<'r> {
    task: Task,
    report: &'r mut Report,
    dice: Dice,
}

/// What a process has told by its end.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    done: u64,
    opened: Option<(u64, Memory, Counts)>,
    finished: Option<(Memory, Counts, u64)>,
    broken: u64,
}

impl Size {
    fn folder(&self) -> io::Result<tempfile::TempDir> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("forebay-torture-");
        self.dir.as_ref().map_or_else(|| builder.tempdir(), |dir| builder.tempdir_in(dir))
    }

    fn task(&self, dir: &Path) -> Task {
        Task {
            dir: dir.join("lane"),
            known: 0,
            unsure: 0,
            check: 0,
            until: 0,
            capacity: self.capacity,
            body_bytes: self.body_bytes,
            segment_bytes: self.segment_bytes,
            linger: false,
            death: None,
        }
    }
}

/// Delivers so many events, with a mark at a fiftieth, a fifth and the end.
pub(crate) fn run(keys: u64, size: &Size, seed: u64) -> Result<Report, Stop> {
    let mut report = Report::new("dedupe", seed);
    control(size, &mut report)?;
    let folder = size.folder()?;
    let task = size.task(folder.path());
    let mut life = Life { task, report: &mut report, dice: Dice::new(seed) };
    for mark in [keys / 50, keys / 5, keys] {
        life.grow(mark)?;
        life.lose_a_file()?;
        life.measure(mark)?;
    }
    life.task.check = keys;
    life.work("every event at the end", None)?;
    Ok(report)
}

/// Makes a backlog of so many GiB, kills the process that made it, and starts once more.
pub(crate) fn start(gib: u64, size: &Size, seed: u64) -> Result<Report, Stop> {
    let mut report = Report::new("start", seed);
    let folder = size.folder()?;
    let task = Task { linger: true, ..size.task(folder.path()) };
    let record_bytes = (64 + size.body_bytes as u64).next_multiple_of(64);
    let mut life = Life { task, report: &mut report, dice: Dice::new(seed) };
    life.task.until = (gib << 30) / record_bytes;
    life.work("making the backlog", Some(u64::MAX))?;
    life.task.linger = false;
    life.task.unsure = 0;
    life.task.until = life.task.known;
    life.task.check = SAMPLE;
    for (how, cold) in [("cold", true), ("warm", false)] {
        if cold {
            forget_pages(&life.task.dir)?;
        }
        let heard = life.work(&format!("{how} start"), None)?;
        let Some((ms, memory, counts)) = heard.opened else { continue };
        say(&format!("{how} start with {gib} GiB: {ms} ms, {memory:?}, {counts:?}"));
        life.report.count(&format!("{how} start ms"), ms);
        life.report.count(&format!("{how} start peak kib"), memory.peak);
        if ms > START_MS_MAX || memory.peak > START_KIB_MAX {
            let what = format!("{ms} ms and {} KiB for {gib} GiB", memory.peak);
            life.report.broken(&format!("{how} start"), &what);
        }
    }
    life.report.count("events", life.task.known);
    Ok(report)
}

/// The harness must see a key that is forgotten: here a generation is gone, and so is the log from
/// which it could be made again.
fn control(size: &Size, report: &mut Report) -> io::Result<()> {
    let folder = size.folder()?;
    let mut aside = Report::new("control", 0);
    let task =
        Task { capacity: CONTROL_CAPACITY, segment_bytes: 1 << 20, ..size.task(folder.path()) };
    let mut life = Life { task, report: &mut aside, dice: Dice::new(0) };
    life.task.until = CONTROL_KEYS;
    life.work("control", None)?;
    life.task.check = CONTROL_KEYS;
    if life.work("control", None)?.broken > 0 {
        report.broken("control", "found wanting before anything was taken from it");
    }
    let mut files = listed(&life.task.dir.join("dedupe"), "gen")?;
    files.truncate(1);
    let mut segments = listed(&life.task.dir, "seg")?;
    segments.truncate(segments.len().saturating_sub(2));
    for path in files.iter().chain(&segments) {
        fs::remove_file(path)?;
    }
    if files.is_empty() || segments.is_empty() || life.work("control", None)?.broken == 0 {
        report.broken("negative control", "a dropped generation was not noticed");
        return Ok(());
    }
    report.count("negative controls caught", 1);
    Ok(())
}

impl Life<'_> {
    /// Delivers up to `mark`: killed on the way, and again, then to the end.
    fn grow(&mut self, mark: u64) -> io::Result<()> {
        let from = self.task.known;
        for _ in 0..2 {
            let kill_at = from + self.dice.below(mark - from);
            self.task.until = mark;
            self.task.check = SAMPLE / 10;
            self.work("killed on the way", Some(kill_at))?;
            self.report.count("kills", 1);
        }
        if PLANTED {
            self.die_everywhere()?;
        }
        self.work("to the mark", None)?;
        Ok(())
    }

    /// Dies once at every point at which keys go into files, and where one is reserved.
    fn die_everywhere(&mut self) -> io::Result<()> {
        for point in Point::DEDUPE {
            let nth = if point == Point::Reserved { 1 + self.dice.below(1000) } else { 1 };
            self.task.death = Some((point, nth));
            let heard = self.work(point.name(), Some(u64::MAX))?;
            let died = heard.finished.is_none();
            self.report.count(&format!("killed at: {}", point.name()), u64::from(died));
        }
        self.task.death = None;
        Ok(())
    }

    /// Runs one process: to its end, or until it has told `kill_at` and is killed.
    fn work(&mut self, what: &str, kill_at: Option<u64>) -> io::Result<Heard> {
        let mut worker = Worker::start(&self.task)?;
        let mut heard = Heard { done: self.task.known, ..Heard::default() };
        while let Some(told) = worker.hear()? {
            match told {
                Told::Opened { ms, memory, table } => heard.opened = Some((ms, memory, table)),
                Told::Done(done) => {
                    heard.done = heard.done.max(done);
                    self.report.progress(|| format!("{what}: {done} events"));
                    if kill_at.is_some_and(|kill_at| done >= kill_at) {
                        break;
                    }
                }
                Told::Broken(text) => {
                    heard.broken += 1;
                    self.report.broken(what, &text);
                }
                Told::Finished { memory, table, waits } => {
                    heard.finished = Some((memory, table, waits));
                    heard.done = heard.done.max(self.task.until);
                    self.report.count("waits for room", waits);
                    if kill_at.is_some() {
                        break;
                    }
                }
            }
        }
        if kill_at.is_some() {
            worker.kill()?;
        }
        self.report.count("processes", 1);
        self.task.unsure = if heard.finished.is_none() { UNSURE } else { 0 };
        if heard.finished.is_none() && kill_at.is_none() {
            self.report.broken(what, "the process ended before its task");
        }
        self.task.known = heard.done;
        Ok(heard)
    }

    /// A generation is gone at the next start: the log has to stand in for it.
    fn lose_a_file(&mut self) -> io::Result<()> {
        let files = listed(&self.task.dir.join("dedupe"), "gen")?;
        let Some(file) = files.get(self.dice.index(files.len())) else { return Ok(()) };
        fs::remove_file(file)?;
        self.task.check = SAMPLE;
        let heard = self.work("without a file", None)?;
        let rebuilt = heard.opened.map_or(0, |(_, _, counts)| counts.in_files);
        self.report.count("files lost and made again", u64::from(rebuilt > 0));
        Ok(())
    }

    /// Starts once more, untroubled, and holds memory against its bound.
    fn measure(&mut self, mark: u64) -> io::Result<()> {
        self.task.check = SAMPLE;
        let heard = self.work("at the mark", None)?;
        let (Some((ms, opened, counts)), Some((memory, _, _))) = (heard.opened, heard.finished)
        else {
            return Ok(());
        };
        say(&format!("{mark} events: start in {ms} ms; {opened:?}; asked {memory:?}; {counts:?}"));
        let name = |what: &str| format!("at {mark:>9} events: {what}");
        self.report.count(&name("start ms"), ms);
        self.report.count(&name("own memory KiB"), memory.own);
        self.report.count(&name("mapped files KiB"), memory.files);
        self.report.count(&name("guides KiB"), counts.guide_bytes / 1024);
        self.report.count(&name("generations"), counts.generations);
        let own_kib_max = OWN_KIB + self.task.capacity as u64 * OWN_BYTES_A_KEY / 1024;
        if memory.own > own_kib_max {
            let what = format!("{} KiB of own memory, {own_kib_max} are meant", memory.own);
            self.report.broken("at a mark", &what);
        }
        let files_max = FILES_KIB + counts.guide_bytes / 1024;
        if memory.files > files_max {
            let what = format!("{} KiB of mapped files, {files_max} are meant", memory.files);
            self.report.broken("at a mark", &what);
        }
        Ok(())
    }
}

/// The files with this ending, by name.
fn listed(dir: &Path, extension: &str) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Takes the files of a lane out of memory, as after a start of the machine.
fn forget_pages(dir: &Path) -> io::Result<()> {
    let paths = listed(dir, "seg")?.into_iter().chain(listed(&dir.join("dedupe"), "gen")?);
    for path in paths {
        let file = File::open(path)?;
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}
