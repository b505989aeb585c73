//! One attempt at a batch, and attempts that are made ready before their turn.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::sync::watch;

use super::sink::{Class, Delivered, Event, Failure, Sink, Turn};

/// What becomes of a batch. It does not end before its turn.
pub(super) type Attempt = BoxFuture<'static, Delivered>;

/// An attempt that takes so long at the most, from its turn on.
pub(super) fn attempt(
    sink: Arc<dyn Sink>,
    events: Vec<Event>,
    turn: Turn,
    timeout: Duration,
) -> Attempt {
    let attempt = async move {
        let delivery = AssertUnwindSafe(sink.deliver_in_turn(&events, turn.clone()));
        let patience = async {
            turn.clone().come().await;
            tokio::time::sleep(timeout).await;
        };
        let delivered = tokio::select! {
            delivered = delivery.catch_unwind() => delivered
                .unwrap_or_else(|_| Delivered::None(Failure::temporary("the sink panicked"))),
            () = patience => {
                let late = "the batch was not answered in time";
                Delivered::None(Failure::new(Class::Overloaded, late))
            }
        };
        turn.come().await;
        delivered
    };
    attempt.boxed()
}

/// Attempts at the batches that come next, one a lane at the most.
#[derive(Default)]
pub(super) struct Readied(BTreeMap<usize, Ready>);

struct Ready {
    /// The tickets of its events.
    tickets: Vec<u64>,
    attempt: Attempt,
    turn: watch::Sender<bool>,
}

impl Readied {
    /// Begins to make ready the events that have these tickets in their lane.
    pub(super) fn begin(
        &mut self,
        lane: usize,
        tickets: Vec<u64>,
        attempt: impl FnOnce(Turn) -> Attempt,
    ) {
        let (sender, turn) = Turn::later();
        self.0.insert(lane, Ready { tickets, attempt: attempt(turn), turn: sender });
    }

    /// Goes on with them, for as long as this is waited for.
    pub(super) async fn go_on(&mut self) -> Infallible {
        let work = poll_fn(|context| {
            for ready in self.0.values_mut() {
                // It does not end before its turn, and then it is not here.
                _ = ready.attempt.poll_unpin(context);
            }
            Poll::Pending
        });
        work.await
    }

    /// The attempt at these very events, whose turn has come. What was ready for others is dropped.
    pub(super) fn take(
        &mut self,
        lane: usize,
        tickets: impl Iterator<Item = u64>,
    ) -> Option<Attempt> {
        let ready = self.0.remove(&lane)?;
        if !tickets.eq(ready.tickets.iter().copied()) {
            return None;
        }
        ready.turn.send_replace(true);
        Some(ready.attempt)
    }

    /// They are not what comes next any more.
    pub(super) fn forget(&mut self, lane: usize) {
        self.0.remove(&lane);
    }
}
