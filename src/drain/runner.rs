//! A thread that couriers share, with a runtime of its own; and who tells that a part of a sink has
//! ended by a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;

use crate::observe::SinkCounters;
use crate::replica::Replica;

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
                // What a panic is told by has told it.
                Some(_) = tasks.join_next() => {}
            }
        }
        while tasks.join_next().await.is_some() {}
    });
    runtime.shutdown_timeout(BLOCKED_MAX);
}

/// Tells that a part of a sink has ended by a panic: nothing brings it back but a restart, and what
/// the sink has not taken stays in the log until then.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    pub(super) counters: Arc<SinkCounters>,
    /// Of the lanes that replicate to the sink: who waits for it waits in vain.
    pub(super) replicas: Vec<Arc<Replica>>,
}

impl Watch {
    /// The sink's courier, to its end.
    pub(super) async fn over(self, courier: impl Future<Output = ()>) {
        if AssertUnwindSafe(courier).catch_unwind().await.is_err() {
            self.tell("courier");
        }
    }

    /// A thread of the sink, to its end.
    pub(super) fn spawn(
        &self,
        name: &'static str,
        run: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        let watch = self.clone();
        spawn(name, move || {
            if catch_unwind(AssertUnwindSafe(run)).is_err() {
                watch.tell(name);
            }
        })
    }

    fn tell(&self, part: &str) {
        self.counters.stopped(true);
        self.replicas.iter().for_each(|replica| replica.leave(true));
        tracing::error!(
            sink = self.counters.name(),
            part,
            "the sink has stopped by a panic, which is a bug; it goes on after a restart"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> Watch {
        let counters = Arc::new(SinkCounters::new("out", "stdout", ["main"]));
        Watch { counters, replicas: vec![Arc::new(Replica::new("out"))] }
    }

    fn told(watch: &Watch) -> (bool, bool) {
        (watch.counters.has_stopped(), watch.replicas.iter().all(|replica| replica.away()))
    }

    #[test]
    fn a_panic_of_any_part_of_a_sink_is_told_and_an_end_is_not() {
        let fine = watch();
        futures_util::FutureExt::now_or_never(fine.clone().over(async {})).expect("at once");
        fine.spawn("forebay-feed", || {}).expect("a thread").join().expect("no panic");
        assert_eq!(told(&fine), (false, false));
        let courier = watch();
        let bug = async { panic!("a bug in a courier") };
        futures_util::FutureExt::now_or_never(courier.clone().over(bug)).expect("at once");
        assert_eq!(told(&courier), (true, true));
        let feed = watch();
        let bug = || panic!("a bug in a feed");
        feed.spawn("forebay-feed", bug).expect("a thread").join().expect("it was caught");
        assert_eq!(told(&feed), (true, true));
    }
}
