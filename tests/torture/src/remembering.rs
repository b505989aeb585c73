//! The program under test of the dedupe campaigns: a process of its own that opens a lane and what
//! it remembers as the server does, checks that it knows what it must, and delivers more. It may
//! be killed at any moment, so what it knows goes out at once, a line of JSON each.

use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use forebay::dedupe::{Fingerprinter, OpenError, Options, Outcome, Reservation, Table};
use forebay_log::planted::Point;
use forebay_log::{
    AckLevel, AppendError, Appender, Clock, Key, Kind, Lane, LaneOptions, MetaWriter, NewRecord,
    Tag,
};
use serde::{Deserialize, Serialize};

use crate::dice::{Dice, mix};
use crate::report::say;

/// The name of the hidden command.
pub(crate) const COMMAND: &str = "remember";
/// How long an event is remembered: nothing expires while a campaign runs.
const WINDOW: Duration = Duration::from_secs(72 * 3600);
/// How often the background threads look, as in the server.
const INTERVAL: Duration = Duration::from_millis(100);
/// Between two looks at what another thread has to do first.
const PAUSE: Duration = Duration::from_millis(1);
/// One delivery in so many is of an event from before.
const AGAIN_EVERY: u64 = 8;
/// One event in so many has an id that is not signed, and so a second key.
const UNSIGNED_EVERY: u64 = 8;
/// Progress is told this often.
const TOLD_EVERY: u64 = 20_000;
/// How many broken promises are spelled out.
const EXAMPLES: u64 = 5;

/// What a process is to do.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Task {
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Events below this number were delivered and must be known.
    #[arg(long)]
    pub(crate) known: u64,
    /// So many from there on may be known: their delivery was cut off.
    #[arg(long, default_value_t = 0)]
    pub(crate) unsure: u64,
    /// How many of the known to ask for, spread over all.
    #[arg(long)]
    pub(crate) check: u64,
    /// Delivers events up to this number.
    #[arg(long)]
    pub(crate) until: u64,
    /// Keys that memory may hold.
    #[arg(long)]
    pub(crate) capacity: usize,
    #[arg(long)]
    pub(crate) body_bytes: usize,
    #[arg(long)]
    pub(crate) segment_bytes: u64,
    /// Does not close anything: waits to be killed.
    #[arg(long)]
    pub(crate) linger: bool,
    /// Where to die, in a build for it; given by the environment.
    #[arg(skip)]
    pub(crate) death: Option<(Point, u64)>,
}

/// What a process tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Told {
    /// Open after so many milliseconds.
    Opened { ms: u64, memory: Memory, table: Counts },
    /// Events below this are delivered.
    Done(u64),
    /// A promise was broken.
    Broken(String),
    /// All is done, and checked; so many deliveries had to wait for room.
    Finished { memory: Memory, table: Counts, waits: u64 },
}

/// Memory of a process, in KiB, as the kernel counts it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// Its own.
    pub(crate) own: u64,
    /// Mapped files: page cache.
    pub(crate) files: u64,
    /// The most of both together since it started.
    pub(crate) peak: u64,
}

/// What the table holds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) in_memory: u64,
    pub(crate) in_files: u64,
    pub(crate) generations: u64,
    pub(crate) guide_bytes: u64,
    pub(crate) rebuilt: u64,
}

impl Memory {
    fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let read = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
        };
        Self {
            own: read("RssAnon"),
            files: read("RssFile") + read("RssShmem"),
            peak: read("VmHWM"),
        }
    }
}

impl Counts {
    fn of(table: &Table) -> Self {
        let stats = table.stats();
        Self {
            in_memory: stats.keys,
            in_files: stats.files.keys,
            generations: stats.files.generations,
            guide_bytes: stats.files.guide_bytes,
            rebuilt: stats.files.rebuilt,
        }
    }
}

/// A process at work, seen from its campaign. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    lines: io::Lines<BufReader<ChildStdout>>,
}

impl Worker {
    pub(crate) fn start(task: &Task) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(COMMAND).arg("--dir").arg(&task.dir);
        let numbers = [
            ("--known", task.known),
            ("--unsure", task.unsure),
            ("--check", task.check),
            ("--until", task.until),
            ("--capacity", task.capacity as u64),
            ("--body-bytes", task.body_bytes as u64),
            ("--segment-bytes", task.segment_bytes),
        ];
        command.args(numbers.map(|(name, value)| format!("{name}={value}")));
        if task.linger {
            command.arg("--linger");
        }
        if let Some((point, nth)) = task.death {
            command.env("FOREBAY_DIE_AT", format!("{}:{nth}", point.name()));
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self { child, lines: BufReader::new(output).lines() })
    }

    /// What it tells next; nothing once it has ended.
    pub(crate) fn hear(&mut self) -> io::Result<Option<Told>> {
        let Some(line) = self.lines.next() else { return Ok(None) };
        Ok(Some(serde_json::from_str(&line?)?))
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Dead already, as a rule.
        let _ = self.kill();
    }
}

/// Carries out a task.
pub(crate) fn run(task: &Task) -> ExitCode {
    // A campaign that dies must not leave its workers behind.
    let kill = rustix::process::Signal::KILL;
    let _ = rustix::process::set_parent_process_death_signal(Some(kill));
    match work(task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{}: {error}", task.dir.display()));
            ExitCode::FAILURE
        }
    }
}

/// The event with this number: no two have one key, and keys spread as fingerprints do.
fn key(fingerprinter: &Fingerprinter, number: u64) -> Key {
    fingerprinter.fingerprint("campaign", None, [&number.to_le_bytes()[..]])
}

/// The second key of an event, of its signed bytes, if it has one.
fn signed_key(fingerprinter: &Fingerprinter, number: u64) -> Option<Key> {
    let key = || fingerprinter.fingerprint("signed", None, [&number.to_le_bytes()[..]]);
    number.is_multiple_of(UNSIGNED_EVERY).then(key)
}

/// A lane and what it remembers.
struct Memorial {
    table: Arc<Table>,
    appender: Appender,
    fingerprinter: Fingerprinter,
    clock: Clock,
    meta: MetaWriter,
    body: Vec<u8>,
    broken: u64,
    waits: u64,
}

fn work(task: &Task) -> io::Result<()> {
    let clock = Clock::System;
    let began = clock.monotonic();
    let options = LaneOptions {
        segment_bytes: task.segment_bytes,
        ack: AckLevel::Written,
        disk_reserve_bytes: Some(0),
        volatile_allowed: true,
        ..LaneOptions::default()
    };
    let (log, _) = Lane::open(&task.dir, options).map_err(io::Error::other)?;
    let log = Arc::new(log);
    let options = Options { capacity: task.capacity, window: WINDOW };
    let opened = Table::open(options, &log, clock.wall_ns());
    let table = Arc::new(opened.map_err(|error: OpenError| io::Error::other(error))?);
    let took = clock.monotonic().saturating_duration_since(began);
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    tell(&Told::Opened { ms, memory: Memory::now(), table: Counts::of(&table) })?;

    let stop = Arc::new(AtomicBool::new(false));
    let background = background(&table, &clock, &stop)?;
    let mut memorial = Memorial {
        table,
        appender: log.appender(),
        fingerprinter: Fingerprinter::new(b"sixteen bytes it"),
        clock,
        meta: MetaWriter::default(),
        body: vec![0; task.body_bytes],
        broken: 0,
        waits: 0,
    };
    memorial.check(task)?;
    memorial.deliver_all(task)?;
    let table = Counts::of(&memorial.table);
    tell(&Told::Finished { memory: Memory::now(), table, waits: memorial.waits })?;
    if task.linger {
        wait_to_be_killed();
    }
    stop.store(true, Ordering::Relaxed);
    memorial.table.close();
    for thread in background {
        let _ = thread.join();
    }
    log.close();
    Ok(())
}

/// Only the death of the process, or of its campaign, ends this.
fn wait_to_be_killed() -> ! {
    loop {
        thread::sleep(INTERVAL);
    }
}

/// The two threads that the server has for its tables.
fn background(
    table: &Arc<Table>,
    clock: &Clock,
    stop: &Arc<AtomicBool>,
) -> io::Result<Vec<thread::JoinHandle<()>>> {
    let spawn = |files: bool| {
        let (table, clock, stop) = (Arc::clone(table), clock.clone(), Arc::clone(stop));
        thread::Builder::new().spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let now_ns = clock.wall_ns();
                if files {
                    table.tend(now_ns);
                } else {
                    table.prepare(now_ns);
                }
                thread::sleep(INTERVAL);
            }
        })
    };
    [false, true].into_iter().map(spawn).collect()
}

impl Memorial {
    /// Asks for known events, spread over all of them.
    fn check(&mut self, task: &Task) -> io::Result<()> {
        let count = task.check.min(task.known);
        for step in 0..count {
            let number = u128::from(task.known) * u128::from(step) / u128::from(count);
            self.again(u64::try_from(number).unwrap_or(0))?;
        }
        Ok(())
    }

    /// A known event must be a duplicate, and its signed bytes known too.
    fn again(&mut self, number: u64) -> io::Result<()> {
        if self.is_new(number)? {
            return self.break_promise(&format!("event {number} was forgotten"));
        }
        let Some(signed) = signed_key(&self.fingerprinter, number) else { return Ok(()) };
        loop {
            match self.table.reserve(signed, self.clock.wall_ns()) {
                Outcome::Seen { .. } => return Ok(()),
                Outcome::Pending | Outcome::Full => self.wait(),
                Outcome::Reserved(_) => {
                    let what = format!("the signed bytes of event {number} were forgotten");
                    return self.break_promise(&what);
                }
            }
        }
    }

    fn wait(&mut self) {
        self.waits += 1;
        thread::sleep(PAUSE);
    }

    fn deliver_all(&mut self, task: &Task) -> io::Result<()> {
        let mut dice = Dice::new(mix(task.known));
        for number in task.known..task.until {
            if !self.is_new(number)? && number >= task.known + task.unsure {
                self.break_promise(&format!("event {number} is new and was called known"))?;
            }
            if dice.once_in(AGAIN_EVERY) {
                self.again(dice.below(number + 1))?;
            }
            if (number + 1).is_multiple_of(TOLD_EVERY) {
                tell(&Told::Done(number + 1))?;
            }
        }
        Ok(())
    }

    /// One delivery: stored if the event is new, which is then true.
    fn is_new(&mut self, number: u64) -> io::Result<bool> {
        let key = key(&self.fingerprinter, number);
        loop {
            match self.table.reserve(key, self.clock.wall_ns()) {
                Outcome::Seen { .. } => return Ok(false),
                Outcome::Pending | Outcome::Full => {}
                Outcome::Reserved(reservation) => {
                    if self.store(number, key, reservation)? {
                        return Ok(true);
                    }
                }
            }
            self.wait();
        }
    }

    /// Appends a new event under its keys; false, and all of them are free again, if there is no room.
    fn store(&mut self, number: u64, key: Key, reservation: Reservation) -> io::Result<bool> {
        let received_ns = self.clock.wall_ns();
        self.meta.clear();
        let mut both = (reservation, None);
        if let Some(signed) = signed_key(&self.fingerprinter, number) {
            match self.table.reserve(signed, received_ns) {
                Outcome::Reserved(reservation) => both.1 = Some(reservation),
                Outcome::Seen { .. } => {
                    let what = format!("the signed bytes of event {number} are known, it is not");
                    self.break_promise(&what)?;
                }
                Outcome::Pending | Outcome::Full => return Ok(false),
            }
            self.meta.field(Tag::SignedKey, &signed.0).map_err(io::Error::other)?;
        }
        let (kind, meta) = (Kind::Event, self.meta.as_bytes());
        let record = NewRecord { kind, key, received_ns, meta, body: &self.body };
        match self.appender.append(&record) {
            Ok(appended) => {
                both.0.appended(appended.end);
                both.1.into_iter().for_each(|signed| signed.appended(appended.end));
                Ok(true)
            }
            Err(AppendError::Full) => Ok(false),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn break_promise(&mut self, what: &str) -> io::Result<()> {
        self.broken += 1;
        if self.broken <= EXAMPLES {
            tell(&Told::Broken(what.to_owned()))?;
        }
        Ok(())
    }
}

/// A line on standard output, at once.
fn tell(told: &Told) -> io::Result<()> {
    let mut line = serde_json::to_string(told)?;
    line.push('\n');
    let mut output = io::stdout().lock();
    output.write_all(line.as_bytes())?;
    output.flush()
}
