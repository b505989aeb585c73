//! How long a replay or a redrive waits for a sink that fails and takes nothing, and what is told
//! meanwhile.
//!
//! A sink that is set up wrongly gives no event up, so that without a bound both would wait for
//! ever: right beside live traffic, and of no use to whoever sits in front of it.

use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender};
use forebay_log::Clock;
use tokio::sync::watch;

use super::bring::GaveUp;
use super::terminal::Progress;
use crate::drain::errand::Watch;
use crate::drain::redrive::Until;
use crate::drain::sink::Failure;

/// How often it is told that the sink still takes nothing.
const EVERY: Duration = Duration::from_secs(10);
/// How often it is looked how long that is.
const LOOK: Duration = Duration::from_millis(100);

/// What the courier tells.
enum Told {
    Taken,
    Failed(Failure),
}

/// Watches over one errand.
pub(super) struct Patience {
    told: Sender<Told>,
    ends: watch::Receiver<bool>,
    thread: JoinHandle<Result<(), GaveUp>>,
}

/// Since when the sink has failed and taken nothing.
struct Trouble {
    since: Instant,
    said: Option<Instant>,
    why: Failure,
}

impl Patience {
    /// Once it has an end, it says of what was not brought where that `stays`.
    pub(super) fn begin(
        sink: &str,
        stays: &'static str,
        timeout: Duration,
        clock: &Clock,
    ) -> io::Result<Self> {
        let (told, hears) = channel::unbounded();
        let (stop, ends) = watch::channel(false);
        let (sink, clock) = (sink.to_owned(), clock.clone());
        let watch = move || {
            let waited = watch_over((&sink, stays), &hears, (timeout, &clock));
            stop.send_replace(waited.is_err());
            waited
        };
        let thread =
            std::thread::Builder::new().name("forebay-patience".to_owned()).spawn(watch)?;
        Ok(Self { told, ends, thread })
    }

    /// What the errand is given; `progress` shows how many of so many were taken.
    pub(super) fn watch(&self, mut progress: Option<(Progress, u64)>) -> Watch {
        let (taken, failed) = (self.told.clone(), self.told.clone());
        let mut done = 0;
        Watch {
            settled: Box::new(move |_| {
                // Once it has given up nobody listens.
                drop(taken.send(Told::Taken));
                done += 1;
                if let Some((progress, all)) = &mut progress {
                    progress.count(done, *all);
                }
            }),
            failed: Some(Box::new(move |why| drop(failed.send(Told::Failed(why.clone()))))),
            until: Some(Until { stopped: self.ends.clone(), passed: Duration::MAX }),
        }
    }

    /// The errand has ended; whether that was for want of patience.
    pub(super) fn end(self) -> Result<(), GaveUp> {
        drop(self.told);
        self.thread.join().unwrap_or(Ok(()))
    }
}

/// Until nobody tells any more, or the sink has taken nothing for too long.
fn watch_over(
    (sink, stays): (&str, &'static str),
    told: &Receiver<Told>,
    (timeout, clock): (Duration, &Clock),
) -> Result<(), GaveUp> {
    let mut trouble: Option<Trouble> = None;
    loop {
        let heard = told.recv_timeout(LOOK);
        let now = clock.monotonic();
        match heard {
            Ok(Told::Taken) => trouble = None,
            Ok(Told::Failed(why)) => {
                let (since, said) =
                    trouble.map_or((now, None), |trouble| (trouble.since, trouble.said));
                trouble = Some(Trouble { since, said, why });
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        let Some(Trouble { since, said, why }) = &mut trouble else { continue };
        let waited = now.saturating_duration_since(*since);
        if waited >= timeout {
            let (sink, why) = (sink.to_owned(), why.clone());
            return Err(GaveUp { sink, waited: timeout, why, stays });
        }
        if said.is_none_or(|said| now.saturating_duration_since(said) >= EVERY) {
            *said = Some(now);
            let (class, reason) = (why.class.label(), &*why.reason);
            let waits = humantime::format_duration(Duration::from_secs(waited.as_secs()));
            tracing::warn!(sink, class, reason, %waits, "the sink takes nothing; trying again");
        }
    }
}
