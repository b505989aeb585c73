//! A campaign's hold on an agent: starts it, listens to it, ends it.

use std::io::{self, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use forebay_log::Clock;

use crate::agent::Orders;
use crate::ledger::{FACT_BYTES, Fact};

/// The name of the hidden command that makes this program an agent.
pub(crate) const COMMAND: &str = "agent";
/// How long an agent may take to end by itself.
const END_MAX: Duration = Duration::from_secs(60);
/// Between two looks at what is waited for.
const WATCH_PAUSE: Duration = Duration::from_micros(500);
/// How much of an agent's standard error is kept.
const SAID_BYTES_MAX: usize = 4000;

/// An agent at work. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Handle {
    child: Child,
    attending: Option<ChildStdin>,
    facts: Option<JoinHandle<Vec<Fact>>>,
    said: Option<JoinHandle<String>>,
}

/// What an agent has left when it has ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) facts: Vec<Fact>,
    /// The end of what it wrote to its standard error.
    pub(crate) said: String,
    pub(crate) status: ExitStatus,
    /// It did not end by itself in time, and was killed.
    pub(crate) hung: bool,
}

impl Ended {
    /// What went wrong with the process itself, if it was not to be killed.
    pub(crate) fn crash(&self) -> Option<String> {
        if self.hung {
            return Some(format!("the process hung {}", self.said));
        }
        let done = self.status.success();
        (!done).then(|| format!("the process died of {}: {}", self.status, self.said))
    }
}

impl Ended {
    /// The same, where the disk fails and a bus error that is told is an end in order.
    pub(crate) fn crash_on_a_failing_disk(&self) -> Option<String> {
        self.crash().filter(|_| !self.told_bus_error())
    }

    /// Whether a mapped file could not be had, and the process ended as it should then: it said
    /// which file it was, and aborted. What it had acknowledged must be there after a restart.
    pub(crate) fn told_bus_error(&self) -> bool {
        let abort = rustix::process::Signal::ABORT.as_raw();
        self.status.signal() == Some(abort) && self.said.contains("forebay: bus error: ")
    }
}

impl Orders {
    /// To open the lane in `dir` and close it again.
    pub(crate) fn open(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            first: 0,
            count: 0,
            threads: 1,
            depth: 8,
            segment_bytes: 65_536,
            keep_bytes: None,
            reserve_bytes: Some(0),
            written: false,
            ack_before_sync: false,
            show: false,
            again: false,
            linger: false,
            attended: false,
            heedless: false,
            file_bytes_max: None,
            cursor: None,
            death: None,
        }
    }

    /// To recover the lane, show all of it, append one event to see that it lives, close it and
    /// show it again.
    pub(crate) fn inspect(dir: &Path, fresh: u64) -> Self {
        Self { first: fresh, count: 1, show: true, again: true, ..Self::open(dir) }
    }

    fn arguments(&self) -> Vec<String> {
        let numbers = [
            ("--first", Some(self.first)),
            ("--count", Some(self.count)),
            ("--threads", Some(self.threads)),
            ("--depth", Some(self.depth as u64)),
            ("--segment-bytes", Some(self.segment_bytes)),
            ("--keep-bytes", self.keep_bytes),
            ("--reserve-bytes", self.reserve_bytes),
            ("--file-bytes-max", self.file_bytes_max),
        ];
        let flags = [
            ("--written", self.written),
            ("--ack-before-sync", self.ack_before_sync),
            ("--show", self.show),
            ("--again", self.again),
            ("--linger", self.linger),
            ("--attended", self.attended),
            ("--heedless", self.heedless),
        ];
        let given = |(name, value): (&str, Option<u64>)| Some(format!("{name}={}", value?));
        let numbers = numbers.into_iter().filter_map(given);
        let cursor = self.cursor.iter().map(|name| format!("--cursor={name}"));
        let set = flags.into_iter().filter(|(_, set)| *set).map(|(name, _)| name.to_owned());
        numbers.chain(cursor).chain(set).collect()
    }
}

impl Handle {
    /// Starts an agent. Every fact is given to `hear` at once, and kept.
    pub(crate) fn start(
        orders: &Orders,
        mut hear: impl FnMut(Fact) + Send + 'static,
    ) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(COMMAND).arg("--dir").arg(&orders.dir).args(orders.arguments());
        if let Some((point, nth)) = orders.death {
            command.env("FOREBAY_DIE_AT", format!("{}:{nth}", point.name()));
        }
        let input = if orders.attended { Stdio::piped() } else { Stdio::null() };
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let attending = child.stdin.take();
        let facts = child.stdout.take().map(|output| {
            let mut output = BufReader::with_capacity(64 * 1024, output);
            thread::spawn(move || {
                let mut facts = Vec::new();
                let mut bytes = [0; FACT_BYTES];
                while output.read_exact(&mut bytes).is_ok() {
                    if let Some(fact) = Fact::from_bytes(bytes) {
                        hear(fact);
                        facts.push(fact);
                    }
                }
                facts
            })
        });
        let said = child.stderr.take().map(|mut errors| {
            thread::spawn(move || {
                let mut said = Vec::new();
                let _ = errors.read_to_end(&mut said);
                let from = said.len().saturating_sub(SAID_BYTES_MAX);
                String::from_utf8_lossy(said.get(from..).unwrap_or_default()).trim().to_owned()
            })
        });
        Ok(Self { child, attending, facts, said })
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process still runs.
    pub(crate) fn runs(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits while the process runs until this holds, at most `limit`; how long it took, if it came
    /// to hold.
    pub(crate) fn watch(
        &mut self,
        limit: Duration,
        mut holds: impl FnMut() -> bool,
    ) -> io::Result<Option<Duration>> {
        let clock = Clock::System;
        let began = clock.monotonic();
        loop {
            let took = clock.monotonic().saturating_duration_since(began);
            if holds() {
                return Ok(Some(took));
            }
            if took > limit || !self.runs()? {
                return Ok(None);
            }
            thread::sleep(WATCH_PAUSE);
        }
    }

    /// Tells an attended agent to come to an end.
    pub(crate) fn dismiss(&mut self) {
        self.attending = None;
    }

    /// Whether the process was killed, though not by this one.
    pub(crate) fn was_killed(&mut self) -> io::Result<bool> {
        let kill = rustix::process::Signal::KILL.as_raw();
        Ok(self.child.try_wait()?.is_some_and(|status| status.signal() == Some(kill)))
    }

    /// Ends the process as `kill -9` does, and takes what it has told.
    pub(crate) fn kill(mut self) -> io::Result<Ended> {
        self.child.kill()?;
        self.ended(false)
    }

    /// Waits for the process to end by itself; kills it if it does not.
    pub(crate) fn wait(mut self) -> io::Result<Ended> {
        self.watch(END_MAX, || false)?;
        let hung = self.runs()?;
        if hung {
            self.child.kill()?;
        }
        self.ended(hung)
    }

    fn ended(&mut self, hung: bool) -> io::Result<Ended> {
        let status = self.child.wait()?;
        let facts = self.facts.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let said = self.said.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        Ok(Ended { facts, said, status, hung })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Dead already, as a rule.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
