//! How a release reaches a server that runs: a folder in which orders lie until they are done.
//!
//! Who may write into the data folder may release, and nobody else: there is no port to guard.
//! An order is a file of positions, put there in one step; the server puts the outcome beside it
//! in one step and takes the order away. Whatever is killed between, the order is done again, and
//! what it released before is then known.

use std::cell::LazyCell;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use forebay_log::{Clock, Position};

use super::release::{Release, Releaser};
use crate::runtime::{self, Driver};

const ORDER: &str = "order";
const DONE: &str = "done";
/// How often who ordered looks for the outcome.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How often the server looks for orders.
const ATTEND_INTERVAL: Duration = Duration::from_millis(200);
/// An outcome that nobody has fetched is taken away by then.
const UNFETCHED: Duration = Duration::from_secs(3600);

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The folder cannot be used.
    #[error("cannot leave an order in {}: {error}; run as the user of the server", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Nobody has answered.
    #[error(
        "the server has not answered within {waited:?}; the order stays in {} and is carried out \
         when it does", path.display()
    )]
    Unanswered {
        /// How long.
        waited: Duration,
        /// The order.
        path: PathBuf,
    },
}

/// The folder of orders.
#[derive(Clone, Debug)]
pub struct Spool {
    dir: PathBuf,
}

impl Spool {
    /// That of a data folder, made if it is not there.
    pub fn open(data_dir: &Path) -> Result<Self, SpoolError> {
        let dir = data_dir.join("quarantine").join("release");
        let made = DirBuilder::new().recursive(true).mode(0o750).create(&dir);
        made.map_err(|error| SpoolError::Io { path: dir.clone(), error })?;
        Ok(Self { dir })
    }

    /// Leaves an order for the server and waits for its outcome.
    pub fn order(
        &self,
        positions: &[Position],
        wait: Duration,
        clock: &Clock,
    ) -> Result<Vec<Release>, SpoolError> {
        let failed = |error| SpoolError::Io { path: self.dir.clone(), error };
        let name = format!("{}-{}", clock.wall_ns(), std::process::id());
        let order = self.dir.join(&name).with_extension(ORDER);
        let lines: Vec<String> = positions.iter().map(ToString::to_string).collect();
        put(&order, lines.join("\n").as_bytes()).map_err(failed)?;
        let done = order.with_extension(DONE);
        let until = clock.monotonic() + wait;
        loop {
            match fs::read(&done) {
                Ok(outcome) => {
                    fs::remove_file(&done).map_err(failed)?;
                    let outcome = serde_json::from_slice(&outcome).map_err(io::Error::other);
                    return outcome.map_err(failed);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
            if clock.monotonic() >= until {
                return Err(SpoolError::Unanswered { waited: wait, path: order });
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Whether anything waits for the server.
    fn waits(&self) -> bool {
        self.orders().is_ok_and(|orders| !orders.is_empty())
    }

    /// Carries out what was ordered; an order that cannot be carried out now stays.
    async fn carry_out(&self, releaser: &Releaser) -> io::Result<()> {
        for order in self.orders()? {
            let text = fs::read_to_string(&order)?;
            let positions: Vec<Position> =
                text.lines().filter_map(|line| line.parse().ok()).collect();
            let outcomes = releaser.release(&positions).await?;
            let outcome = serde_json::to_vec(&outcomes)?;
            put(&order.with_extension(DONE), &outcome)?;
            fs::remove_file(&order)?;
            tracing::info!(requests = outcomes.len(), "released from quarantine as ordered");
        }
        Ok(())
    }

    /// Takes outcomes away that nobody has fetched.
    fn tidy(&self) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            let age = entry.metadata().and_then(|meta| meta.modified()).ok();
            let old = age.is_some_and(|at| at.elapsed().is_ok_and(|age| age > UNFETCHED));
            if old && entry.path().extension().is_none_or(|kind| kind != ORDER) {
                // Who comes first takes it away.
                drop(fs::remove_file(entry.path()));
            }
        }
    }

    /// The orders, oldest first.
    fn orders(&self) -> io::Result<Vec<PathBuf>> {
        let mut orders = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|kind| kind == ORDER) {
                orders.push(path);
            }
        }
        orders.sort();
        Ok(orders)
    }
}

/// Carries out orders on a thread of their own until the server drains.
pub fn attend(
    data_dir: &Path,
    releaser: impl FnOnce() -> Releaser + Send + 'static,
    draining: Arc<AtomicBool>,
) {
    let spool = match Spool::open(data_dir) {
        Ok(spool) => spool,
        Err(error) => return tracing::warn!(%error, "nothing can be released from quarantine"),
    };
    // Made on its thread, which it never leaves.
    let attending = async move || {
        spool.tidy();
        // A line of its own is made when it is first needed.
        let releaser = LazyCell::new(releaser);
        // Relaxed: a flag that orders nothing else.
        while !draining.load(Ordering::Relaxed) {
            if spool.waits() {
                if let Err(error) = spool.carry_out(&releaser).await {
                    tracing::warn!(%error, "a release from quarantine is put off");
                }
                spool.tidy();
            }
            runtime::sleep(ATTEND_INTERVAL).await;
        }
    };
    let run = move || runtime::block_on(Driver::Epoll, attending());
    if let Err(error) = thread::Builder::new().name("forebay-quarantine".to_owned()).spawn(run) {
        tracing::warn!(%error, "no thread releases from quarantine");
    }
}

/// Puts a file there in one step.
fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, bytes)?;
    fs::rename(&beside, path)
}
