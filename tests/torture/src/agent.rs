//! The program under test: a process of its own that opens a lane, reads it, appends to it and
//! tells its campaign what it has seen. It may be killed, refused or cut off at any moment, so
//! what it knows goes out at once, in writes that a pipe takes whole.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use forebay_log::planted::Point;
use forebay_log::{AckLevel, Kind, Lane, LaneOptions, Reader, RecordRef, Retention};

use crate::appending::append_all;
use crate::consuming::Consumer;
use crate::ledger::{Event, Fact, id_of, place_of};
use crate::report::say;

/// A write of at most this many facts is taken whole by a pipe.
const FACTS_AT_ONCE: usize = 256;

/// What an agent is to do.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Orders {
    /// The lane's directory.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// The first id to append.
    #[arg(long, default_value_t = 0)]
    pub(crate) first: u64,
    /// How many events to append.
    #[arg(long, default_value_t = 0)]
    pub(crate) count: u64,
    /// Threads that append.
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: u64,
    /// Events that a thread has appended and not seen acknowledged, at most.
    #[arg(long, default_value_t = 8)]
    pub(crate) depth: usize,
    #[arg(long, default_value_t = 65_536)]
    pub(crate) segment_bytes: u64,
    /// Retention by bytes.
    #[arg(long)]
    pub(crate) keep_bytes: Option<u64>,
    #[arg(long)]
    pub(crate) reserve_bytes: Option<u64>,
    /// The ack level `written` in place of `synced`.
    #[arg(long)]
    pub(crate) written: bool,
    /// Tells acknowledgements when records are published: the negative control.
    #[arg(long)]
    pub(crate) ack_before_sync: bool,
    /// Tells every record that the lane holds once it is open.
    #[arg(long)]
    pub(crate) show: bool,
    /// Reads the lane once more after it was closed.
    #[arg(long)]
    pub(crate) again: bool,
    /// Does not close the lane: waits to be killed.
    #[arg(long)]
    pub(crate) linger: bool,
    /// Ends when its standard input does.
    #[arg(long)]
    pub(crate) attended: bool,
    /// Lets a limit on file sizes end the process: a negative control.
    #[arg(long)]
    pub(crate) heedless: bool,
    /// The largest file that this process may make, as by `ulimit -f`.
    #[arg(long)]
    pub(crate) file_bytes_max: Option<u64>,
    /// Reads the lane by a cursor of this name while events are appended.
    #[arg(long)]
    pub(crate) cursor: Option<String>,
    /// Where to die, in a build for it; given by the environment.
    #[arg(skip)]
    pub(crate) death: Option<(Point, u64)>,
}

/// Carries out the orders.
pub(crate) fn run(orders: &Orders) -> ExitCode {
    // A campaign that dies must not leave its agents behind.
    let kill = rustix::process::Signal::KILL;
    let _ = rustix::process::set_parent_process_death_signal(Some(kill));
    if let Some(bytes) = orders.file_bytes_max {
        let limit = rustix::process::Rlimit { current: Some(bytes), maximum: None };
        let _ = rustix::process::setrlimit(rustix::process::Resource::Fsize, limit);
    }
    // What the server does about signals at its start.
    let limit_told = Arc::new(AtomicBool::new(false));
    if !orders.heedless {
        let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, limit_told);
    }
    let _ = forebay_log::tell_bus_errors(Some(&orders.dir.with_extension("bus-error")));
    match serve(orders) {
        Ok(()) => tell(&[Fact::Done]),
        Err(text) => {
            say(&text);
            tell(&[Fact::Unopened]);
        }
    }
    ExitCode::SUCCESS
}

fn serve(orders: &Orders) -> Result<(), String> {
    let ack = if orders.written { AckLevel::Written } else { AckLevel::Synced };
    let options = LaneOptions {
        segment_bytes: orders.segment_bytes,
        ack,
        retention: Retention { age: None, bytes: orders.keep_bytes },
        disk_reserve_bytes: orders.reserve_bytes,
        // What is in memory here stands for a disk; what survives is the campaign's to say.
        volatile_allowed: true,
        ..LaneOptions::default()
    };
    let (lane, recovery) =
        Lane::open(&orders.dir, options).map_err(|error| format!("open: {error}"))?;
    let notes = (recovery.gaps << 32) | recovery.warnings.len() as u64;
    tell(&[Fact::Opened { damaged: recovery.damaged, notes }]);
    if orders.show {
        show(&orders.dir)?;
    }
    let name = orders.cursor.as_deref();
    let consumer = name.map(|name| Consumer::open(&orders.dir, name)).transpose()?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| consumer.map(|consumer| consumer.run(&done)));
        append_all(&lane, orders);
        if orders.linger {
            loop {
                thread::park();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    lane.close();
    if orders.again {
        tell(&[Fact::Again]);
        show(&orders.dir)?;
    }
    Ok(())
}

/// Sends facts to the campaign.
pub(crate) fn tell(facts: &[Fact]) {
    let bytes: Vec<u8> = facts.iter().flat_map(|fact| fact.to_bytes()).collect();
    for part in bytes.chunks(FACTS_AT_ONCE * crate::ledger::FACT_BYTES) {
        // A campaign that no longer listens is one that is gone.
        let _ = rustix::io::retry_on_intr(|| rustix::io::write(std::io::stdout(), part));
    }
}

/// Tells everything that a reader finds in the lane.
fn show(dir: &Path) -> Result<(), String> {
    let mut reader = Reader::open(dir).map_err(|error| format!("read: {error}"))?;
    let mut facts = Vec::new();
    while let Some(record) = reader.next().map_err(|error| format!("read: {error}"))? {
        facts.push(judge(&record));
        if facts.len() == FACTS_AT_ONCE {
            tell(&facts);
            facts.clear();
        }
    }
    let skipped = reader.skipped();
    let count = skipped.damaged + skipped.gaps + skipped.segments + skipped.unknown;
    if count > 0 {
        facts.push(Fact::Gap { count });
    }
    tell(&facts);
    Ok(())
}

/// Whether a record is, byte for byte, what its id makes.
fn judge(record: &RecordRef<'_>) -> Fact {
    let place = place_of(record.position());
    let event = id_of(record.key()).and_then(|id| Some((id, Event::of(id).ok()?)));
    match event {
        Some((id, event))
            if record.kind() == Kind::Event
                && record.received_ns() == event.received_ns
                && record.meta().as_bytes() == event.meta
                && record.body() == event.body =>
        {
            Fact::Shown { id, place }
        }
        Some((id, _)) => Fact::Wrong { id, place },
        None => Fact::Wrong { id: 0, place },
    }
}
