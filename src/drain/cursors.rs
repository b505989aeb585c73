//! How far each sink has come, on the medium: off the threads that deliver, and at a bounded rate.
//!
//! A cursor is committed behind what the sink has acknowledged, never before: what was delivered
//! since the last commit is delivered again after a crash.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, TryRecvError};
use forebay_log::{Cursor, Place};
use tokio::sync::watch;

/// How often cursors are committed, at the most.
const EVERY: Duration = Duration::from_millis(100);

/// A cursor, and where it may stand.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) cursor: Cursor,
    pub(super) place: watch::Receiver<Option<Place>>,
    pub(super) sink: Arc<str>,
    /// Dropped with the cursor: whoever waits for it knows by that.
    #[expect(dead_code, reason = "that it is dropped says all")]
    pub(super) held: Sender<()>,
}

/// Commits cursors as they come until told to stop, and then once more. One whose sink has ended
/// is committed a last time and given up.
pub(super) fn keep(incoming: &Receiver<Kept>, stop: &Arc<AtomicBool>) {
    let mut all: Vec<(Kept, bool)> = Vec::new();
    loop {
        // Acquire: pairs with the Release of the stop; every place is told before it.
        let last = stop.load(Ordering::Acquire);
        let mut more = true;
        while more {
            more = match incoming.try_recv() {
                Ok(kept) => {
                    all.push((kept, false));
                    true
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => false,
            };
        }
        all.retain_mut(|(kept, failed)| {
            // Before the commit: the last place was told before the sink went.
            let ended = kept.place.has_changed().is_err();
            commit(kept, failed);
            !ended
        });
        if last {
            return;
        }
        thread::sleep(EVERY);
    }
}

fn commit(kept: &mut Kept, failed: &mut bool) {
    let told = *kept.place.borrow_and_update();
    let Some(place) = told.filter(|place| *place != kept.cursor.place()) else { return };
    let committed = kept.cursor.commit(place);
    if let Err(error) = &committed
        && !*failed
    {
        // The events behind it would come again after a restart; nothing is lost.
        tracing::error!(sink = &*kept.sink, %error, "a cursor is not committed; trying again");
    }
    *failed = committed.is_err();
}
