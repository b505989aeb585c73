//! What the campaigns on recorded disks share: a disk to record on, an agent at work on it, and
//! the judgement of a lane on a disk image.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::fs::Advice;

use crate::agent::Orders;
use crate::check::{Findings, MayMiss, check, check_epoch};
use crate::consuming::CURSOR;
use crate::handle::{Ended, Handle};
use crate::image::Image;
use crate::ledger::{Fact, Ledger, Sizes};
use crate::machine::Scratch;
use crate::mount::{FileSystem, Mounted};
use crate::recorder::{Habits, Recorder};
use crate::selftest::template;

/// How long the recorded disk takes for a flush, about what a good one takes.
const FLUSH_HOLD: Duration = Duration::from_millis(2);
/// Between two strokes of the stirring.
const STIR_PAUSE: Duration = Duration::from_micros(700);
/// How long an agent may take until it has seen what it is to be killed after.
const KILL_WAIT_MAX: Duration = Duration::from_secs(30);
/// The run of ids that fresh events have, by which a recovered lane shows that it lives.
const FRESH_RUN: u64 = 0xff_ffff;

/// One kind of file system, with an empty one to start from.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    pub(crate) kind: FileSystem,
    pub(crate) empty: Image,
    scratch: &'a Scratch,
    /// Where images go in which a lane was found wanting.
    pub(crate) keep: Option<&'a Path>,
}

/// A recorded disk with its file system mounted. Fields drop in this order.
#[derive(Debug)]
pub(crate) struct Recording {
    mounted: Option<Mounted>,
    pub(crate) recorder: Recorder,
    pub(crate) lane: PathBuf,
}

/// When an agent is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Never: it does all it was told.
    Done,
    /// Once so many records were acknowledged.
    Acked(u64),
}

impl<'a> Bench<'a> {
    pub(crate) fn new(kind: FileSystem, scratch: &'a Scratch) -> io::Result<Self> {
        Ok(Self { kind, empty: template(kind, scratch)?, scratch, keep: None })
    }

    /// Mounts a recorded disk that starts with this image, repaired if it must be.
    pub(crate) fn record(&self, start: &Image) -> io::Result<Recording> {
        self.record_as_it_is(start).or_else(|error| {
            let file = self.scratch.join("repaired");
            start.store(&file)?;
            let repaired = self.kind.repair(&file)?;
            if repaired { self.record_as_it_is(&Image::load(&file)?) } else { Err(error) }
        })
    }

    fn record_as_it_is(&self, start: &Image) -> io::Result<Recording> {
        let folder = self.scratch.join("recorder");
        fs::create_dir_all(&folder)?;
        let habits = Habits { flush_hold: FLUSH_HOLD, tear_bytes: self.kind.tear_bytes() };
        let recorder = Recorder::start(start.clone(), &folder, habits)?;
        let at = self.scratch.join("recorded");
        let mounted = Mounted::image(self.kind, &recorder.disk(), &at)?;
        Ok(Recording { mounted: Some(mounted), recorder, lane: at.join("lane") })
    }

    /// Judges the lane on a disk with these contents, by what was known when the power went.
    ///
    /// Nothing may be missing, now and after the lane was recovered, written and closed in order.
    /// No findings at all if the file system itself does not mount.
    pub(crate) fn judge(
        &self,
        image: &Image,
        known: &[Fact],
        may_miss: MayMiss,
    ) -> io::Result<Option<Findings>> {
        let file = self.scratch.join("state");
        image.store(&file)?;
        let at = self.scratch.join("crashed");
        let mounted = match Mounted::image(self.kind, &file, &at) {
            Ok(mounted) => mounted,
            Err(_) if self.kind.repair(&file)? => Mounted::image(self.kind, &file, &at)?,
            Err(_) => return Ok(None),
        };
        let mut ledger = Ledger::default();
        ledger.take_all(known);
        let orders = Orders {
            cursor: (ledger.cursor() > 0).then(|| CURSOR.to_owned()),
            ..Orders::inspect(&at.join("lane"), Sizes::Mixed.first_id(FRESH_RUN))
        };
        let ended = Handle::start(&orders, |_| {})?.wait()?;
        mounted.unmount()?;
        let findings = judge(ledger, &ended, may_miss);
        if !findings.is_clean() {
            self.keep(image)?;
        }
        Ok(Some(findings))
    }

    /// Keeps an image for whoever looks into it; the timing behind it never comes again.
    fn keep(&self, image: &Image) -> io::Result<()> {
        let Some(folder) = self.keep else { return Ok(()) };
        fs::create_dir_all(folder)?;
        let number = fs::read_dir(folder)?.count();
        image.store(&folder.join(format!("{}-{number}.img", self.kind.name())))
    }
}

/// Judges what an inspecting agent has told.
pub(crate) fn judge(mut ledger: Ledger, ended: &Ended, may_miss: MayMiss) -> Findings {
    let mut findings = Findings::default();
    if let Some(crash) = ended.crash() {
        findings.join(Findings::other(crash));
    }
    let again = ended.facts.iter().position(|fact| *fact == Fact::Again);
    let (first, second) = ended.facts.split_at(again.unwrap_or(ended.facts.len()));
    let claims = first.iter().filter(|fact| matches!(fact, Fact::Claimed { .. }));
    claims.for_each(|claim| ledger.take(*claim));
    findings.join(check(&ledger, first, may_miss));
    if findings.is_clean() && !first.iter().any(|fact| matches!(fact, Fact::Acked { .. })) {
        findings.join(Findings::other(format!("no fresh event got in {}", ended.said)));
    }
    findings.join(check_epoch(&ledger, first));
    if findings.is_clean() {
        ledger.take_all(first);
        let mut later = check(&ledger, second, may_miss);
        later.other.extend((!later.is_clean()).then(|| "after recovery and a close".to_owned()));
        findings.join(later);
    }
    if !findings.is_clean() && !ended.said.is_empty() {
        findings.other.push(format!("it said: {}", ended.said));
    }
    findings
}

impl Recording {
    /// As `work`, while the kernel is made to write what it has not been told to sync: what is
    /// pending when the power goes is more then, and in less order.
    pub(crate) fn work_stirred(&self, orders: &Orders, until: Until) -> io::Result<Ended> {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    stir(&self.lane);
                    thread::sleep(STIR_PAUSE);
                }
            });
            let ended = self.work(orders, until);
            done.store(true, Ordering::Relaxed);
            ended
        })
    }

    /// Lets an agent work on the recorded disk; what it tells is noted in the trace.
    pub(crate) fn work(&self, orders: &Orders, until: Until) -> io::Result<Ended> {
        let notes = self.recorder.notes();
        // Known from the start: the agent says so too, but is heard a moment after it has begun.
        notes.note(Fact::Claimed { first: orders.first, count: orders.count });
        let acked = Arc::new(AtomicU64::new(0));
        let heard = Arc::clone(&acked);
        let handle = Handle::start(orders, move |fact| {
            notes.note(fact);
            heard.fetch_add(u64::from(matches!(fact, Fact::Acked { .. })), Ordering::Relaxed);
        });
        let mut handle = handle?;
        let Until::Acked(target) = until else { return handle.wait() };
        handle.watch(KILL_WAIT_MAX, || acked.load(Ordering::Relaxed) >= target)?;
        handle.kill()
    }

    /// Mounts the file system again.
    pub(crate) fn mount(&mut self, kind: FileSystem) -> io::Result<()> {
        let at = self.lane.parent().unwrap_or(&self.lane);
        self.mounted = Some(Mounted::image(kind, &self.recorder.disk(), at)?);
        Ok(())
    }

    /// Unmounts the file system; the recorder goes on.
    pub(crate) fn unmount(&mut self) -> io::Result<()> {
        self.mounted.take().map_or(Ok(()), Mounted::unmount)
    }
}

/// Starts the write-back of whatever is dirty in the lane, and waits for none of it.
fn stir(lane: &Path) {
    // The lane may not be there yet, and its files may go at any moment.
    let Ok(entries) = fs::read_dir(lane) else { return };
    for entry in entries.flatten() {
        if let Ok(file) = File::open(entry.path()) {
            let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
        }
    }
}
