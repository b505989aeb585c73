//! A lane as it is after a long time, made in a short one: events are remembered and appended by the
//! server's own code, without the network in front of it.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use forebay::dedupe::{Fingerprinter, Options, Outcome, Table};
use forebay_log::{
    AckLevel, AppendError, Appender, Clock, Key, Kind, Lane, LaneOptions, NewRecord,
};

/// What a server remembers by default: `dedupe_capacity` and `dedupe_window`.
const CAPACITY: usize = 4_000_000;
const WINDOW: Duration = Duration::from_secs(72 * 3600);
/// How often the background threads look, as in the server.
const INTERVAL: Duration = Duration::from_millis(100);
/// Between two looks at what another thread has to do first.
const PAUSE: Duration = Duration::from_millis(1);
/// Events between two looks at the time.
const STRIDE: u64 = 1 << 10;

/// What is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// The memory of events: one small record for each, since the log is its truth.
    Keys,
    /// The log: large records, and their few events.
    Log,
}

/// A lane that is being filled.
pub(super) struct Filler {
    log: Arc<Lane>,
    table: Arc<Table>,
    appender: Appender,
    fingerprinter: Fingerprinter,
    body: Vec<u8>,
    stop: Arc<AtomicBool>,
    background: Vec<JoinHandle<()>>,
}

impl Filler {
    /// Opens a lane, which may hold something already.
    pub(super) fn open(lane: &Path, body_bytes: usize) -> io::Result<Self> {
        fs::create_dir_all(lane)?;
        let options = LaneOptions {
            ack: AckLevel::Written,
            // A lane of a few minutes, wherever there is room for it.
            disk_reserve_bytes: Some(0),
            ..LaneOptions::default()
        };
        let (log, _) = Lane::open(lane, options).map_err(io::Error::other)?;
        let log = Arc::new(log);
        let options = Options { capacity: CAPACITY, window: WINDOW };
        let table = Table::open(options, &log, Clock::System.wall_ns());
        let table = Arc::new(table.map_err(io::Error::other)?);
        let stop = Arc::new(AtomicBool::new(false));
        let background = background(&table, &stop)?;
        let appender = log.appender();
        // Not that of the server: its own events are none of these.
        let fingerprinter = Fingerprinter::new(b"a secret to fill");
        let body = vec![0; body_bytes];
        Ok(Self { log, table, appender, fingerprinter, body, stop, background })
    }

    /// Goes on from the start of the range to its end, or until the time is up; how far it came.
    /// A range counts events of a window and bytes of a log.
    pub(super) fn fill(
        &mut self,
        load: Load,
        range: Range<u64>,
        until: Instant,
    ) -> io::Result<u64> {
        let step = if load == Load::Log { self.body.len() as u64 } else { 1 };
        let mut at = range.start;
        while at < range.end && Clock::System.monotonic() < until {
            let next_look = range.end.min(at + step * STRIDE);
            while at < next_look {
                self.deliver(at, until)?;
                at += step;
            }
        }
        Ok(at)
    }

    /// One new event, as soon as there is room for it.
    fn deliver(&mut self, number: u64, until: Instant) -> io::Result<()> {
        let key: Key = self.fingerprinter.fingerprint("filled", None, [&number.to_le_bytes()[..]]);
        loop {
            let now_ns = Clock::System.wall_ns();
            match self.table.reserve(key, now_ns) {
                // An earlier run over the same range.
                Outcome::Seen { .. } => return Ok(()),
                Outcome::Pending | Outcome::Full => {}
                Outcome::Reserved(reservation) => {
                    let (kind, body) = (Kind::Event, &self.body[..]);
                    let record = NewRecord { kind, key, received_ns: now_ns, meta: b"", body };
                    match self.appender.append(&record) {
                        Ok(appended) => {
                            reservation.appended(appended.end);
                            return Ok(());
                        }
                        Err(AppendError::Full) => drop(reservation),
                        Err(error) => return Err(io::Error::other(error)),
                    }
                }
            }
            if Clock::System.monotonic() >= until {
                return Err(io::Error::other(
                    "the disk has no room for the lane, or is too slow for it: give it another \
                     --folder, a longer --budget, or ask for less by --keys and --backlog",
                ));
            }
            thread::sleep(PAUSE);
        }
    }

    /// Leaves the lane as a server does that was stopped.
    pub(super) fn close(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.table.close();
        for thread in self.background {
            // A thread that has panicked said so.
            let _ = thread.join();
        }
        self.log.close();
    }
}

/// The two threads that the server has for its tables.
fn background(table: &Arc<Table>, stop: &Arc<AtomicBool>) -> io::Result<Vec<JoinHandle<()>>> {
    let spawn = |work: fn(&Table, u64)| {
        let (table, stop) = (Arc::clone(table), Arc::clone(stop));
        thread::Builder::new().spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                work(&table, Clock::System.wall_ns());
                thread::sleep(INTERVAL);
            }
        })
    };
    [Table::prepare as fn(&Table, u64), Table::tend].into_iter().map(spawn).collect()
}
