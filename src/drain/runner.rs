//! A thread that couriers share, with a runtime of its own.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::{JoinError, JoinSet};

/// How long a blocking call of a sink may hold up the end.
const BLOCKED_MAX: Duration = Duration::from_secs(1);

/// A thread that couriers share.
#[derive(Debug)]
pub(super) struct Runner {
    pub(super) handle: Handle,
    pub(super) tasks: UnboundedSender<BoxFuture<'static, ()>>,
    pub(super) thread: JoinHandle<()>,
}

impl Runner {
    pub(super) fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (tasks, incoming) = mpsc::unbounded_channel();
        let thread = spawn("forebay-drain", move || drive(runtime, incoming))?;
        Ok(Self { handle, tasks, thread })
    }
}

/// A thread of this name.
pub(super) fn spawn(
    name: &str,
    run: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

/// Runs couriers as they come, until nobody sends one any more and all have ended.
fn drive(runtime: Runtime, mut incoming: UnboundedReceiver<BoxFuture<'static, ()>>) {
    runtime.block_on(async move {
        // A task each, so that a panic of one ends no other.
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                task = incoming.recv() => match task {
                    Some(task) => drop(tasks.spawn(task)),
                    None => break,
                },
                Some(ended) = tasks.join_next() => tell_panic(ended),
            }
        }
        while let Some(ended) = tasks.join_next().await {
            tell_panic(ended);
        }
    });
    runtime.shutdown_timeout(BLOCKED_MAX);
}

fn tell_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a sink has ended by a panic; it goes on after a restart");
    }
}
