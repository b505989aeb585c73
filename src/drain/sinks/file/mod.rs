//! `file`: events as lines of JSON in files of one folder, rotated by size and age.
//!
//! ```text
//! LANE.ndjson                     is written to
//! LANE.EPOCH-OFFSET.ndjson        is complete; its name is the position of its last line
//! LANE.replay.ndjson              what an operator asked for once more
//! LANE.lane                       the id of the lane that these are of
//! ```
//!
//! Exactly once for what is drained in its turn: every line begins with its event's position, and
//! positions grow, so the last whole line says what is there already (see `lane_file`). That
//! holds while the newest file is left in the folder; an event that is replayed or redriven is
//! written again, to a file of its own. A lane that begins anew under an old name finds the old
//! lane's files set aside (see `owner`).
//!
//! With `sync = "batch"` a batch is acknowledged once it is on the medium. With `sync = "never"`
//! it outlives the process, and what the kernel had not written is lost with the power.

mod lane_file;
mod owner;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use forebay_log::Clock;
use futures_util::future::BoxFuture;

use self::lane_file::{LaneFile, Lines};
use super::{Destination, Kind, OpenError};
use crate::drain::sink::{Class, Delivered, Event, Failure, Nature, Pass, Sink, Turn};

#[expect(
    clippy::disallowed_types,
    reason = "held for a moment or by one blocking write at a time, on no path of a request"
)]
type Mutex<T> = std::sync::Mutex<T>;

/// Memory for lines that is kept for the next batch: one is written while another is made.
const SPARES_MAX: usize = 2;
/// A batch whose lines take more gives it back.
const SPARE_BYTES_MAX: usize = 4 << 20;
/// So many bytes of lines are made before others have their turn on the thread.
const PIECE_BYTES: usize = 64 << 10;

/// What `[sink.file]` says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder of the files; it is made if it is missing.
    pub folder: PathBuf,
    /// Whether a batch is acknowledged only once it is on the medium.
    pub sync: bool,
    /// A file that would grow beyond this is complete.
    pub rotate_bytes: u64,
    /// A file that was begun so long ago is complete when the next event comes.
    pub rotate_age: Duration,
}

/// The sink.
#[derive(Debug)]
pub struct File {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    clock: Clock,
    /// By the name without its end.
    open: Mutex<BTreeMap<String, LaneFile>>,
    /// Of batches that were written.
    spares: Mutex<Vec<Lines>>,
}

impl File {
    /// Makes the sink; opens nothing yet.
    pub fn new(settings: &Settings) -> Self {
        Self::with_clock(settings, Clock::System)
    }

    fn with_clock(settings: &Settings, clock: Clock) -> Self {
        let (open, spares) = (Mutex::default(), Mutex::default());
        let shared = Shared { settings: settings.clone(), clock, open, spares };
        Self { shared: Arc::new(shared) }
    }

    /// Makes the lines at once, and writes them when it is their turn.
    async fn write(&self, batch: &[Event], turn: Turn) -> Result<(), Failure> {
        let Some(first) = batch.first().cloned() else { return Ok(()) };
        let mut lines = self.shared.no_lines(batch);
        let mut told = 0;
        for event in batch {
            lines.add(event);
            // What waits meanwhile is that the batch before is on the disk.
            if lines.len() - told > PIECE_BYTES {
                told = lines.len();
                tokio::task::yield_now().await;
            }
        }
        turn.come().await;
        self.blocking(move |shared| shared.write(&first, lines)).await
    }

    /// Runs what waits for the disk on a thread that may wait.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let shared = Arc::clone(&self.shared);
        let doing = tokio::task::spawn_blocking(move || work(&shared));
        // On a core that both share the disk gets its work first: all else, which would come before
        // it by a whole slice of time, is done while the disk is waited for.
        std::thread::yield_now();
        doing.await.map_err(io::Error::other).flatten().map_err(|error| failure_of(&error))
    }
}

impl Shared {
    /// Memory for the lines of a batch.
    fn no_lines(&self, batch: &[Event]) -> Lines {
        let spare = self.spares.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut lines = spare.unwrap_or_default();
        lines.begin(batch);
        lines
    }

    /// Writes the lines of a batch that begins with this event.
    fn write(&self, first: &Event, lines: Lines) -> io::Result<()> {
        let live = first.pass == Pass::Live;
        let name = if live { first.lane.to_string() } else { format!("{}.replay", first.lane) };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out, so that after a failure the file is opened and looked through anew.
        let lane_id = live.then(|| first.record.get().lane_id());
        let mut file = match open.remove(&name).filter(|file| file.is_of(lane_id)) {
            Some(file) => file,
            None => LaneFile::open(&self.settings, &name, lane_id, &self.clock)?,
        };
        file.append(&self.settings, &self.clock, &lines)?;
        open.insert(name, file);
        let mut spares = self.spares.lock().unwrap_or_else(PoisonError::into_inner);
        if spares.len() < SPARES_MAX && lines.capacity() <= SPARE_BYTES_MAX {
            spares.push(lines);
        }
        Ok(())
    }
}

impl Kind for Settings {
    fn word(&self) -> &'static str {
        "file"
    }

    fn destination(&self) -> Destination {
        Destination::at(self.folder.display())
    }

    fn open(&self, _name: &str, _timeout: Duration) -> Result<Arc<dyn Sink>, OpenError> {
        Ok(Arc::new(File::new(self)))
    }
}

impl Sink for File {
    fn nature(&self) -> Nature {
        Nature::SEQUENTIAL
    }

    fn deliver<'a>(&'a self, batch: &'a [Event]) -> BoxFuture<'a, Delivered> {
        self.deliver_in_turn(batch, Turn::NOW)
    }

    fn deliver_in_turn<'a>(&'a self, batch: &'a [Event], turn: Turn) -> BoxFuture<'a, Delivered> {
        Box::pin(async move {
            let written = self.write(batch, turn).await;
            written.map_or_else(Delivered::None, |()| Delivered::All)
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(self.blocking(|shared| reachable(&shared.settings.folder)))
    }
}

fn reachable(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::read_dir(folder).map(drop)
}

/// What no waiting cures is for a person.
fn failure_of(error: &io::Error) -> Failure {
    use io::ErrorKind::{
        InvalidData, IsADirectory, NotADirectory, PermissionDenied, ReadOnlyFilesystem,
    };
    let class = match error.kind() {
        InvalidData | IsADirectory | NotADirectory | PermissionDenied | ReadOnlyFilesystem => {
            Class::Misconfigured
        }
        _ => Class::Temporary,
    };
    Failure::new(class, error.to_string())
}
