//! Closed loop: every connection sends its next request when the last is answered. It finds what
//! a server costs at its ceiling; it says nothing about latency.

use std::io;
use std::time::{Duration, Instant};

use forebay_log::Clock;

use crate::requests::Pool;
use crate::wire::{self, Answer, Connections};

/// How long the whole server may be silent before the run has failed.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What came of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) accepted: usize,
    pub(crate) other: usize,
    pub(crate) elapsed: Duration,
}

/// Sends the requests `from..to` of the pool, each once, and waits for every answer.
pub(crate) fn drive(
    connections: &mut Connections,
    pool: &Pool,
    from: usize,
    to: usize,
) -> io::Result<Outcome> {
    let http = Dialect { answer: wire::answer, waits: None };
    drive_in(http, connections, pool, from, to)
}

/// How a server speaks, and whether it is looked how long each answer takes.
pub(crate) struct Dialect<'w> {
    /// The answer at the start of some bytes and its length, if it is whole.
    pub(crate) answer: fn(&[u8]) -> Option<(Answer, usize)>,
    /// From each request to its answer, in no order.
    pub(crate) waits: Option<&'w mut Vec<Duration>>,
}

/// [`drive`] for a server that speaks something else.
pub(crate) fn drive_in(
    mut dialect: Dialect<'_>,
    connections: &mut Connections,
    pool: &Pool,
    from: usize,
    to: usize,
) -> io::Result<Outcome> {
    let started = Clock::System.monotonic();
    let mut outcome = Outcome::default();
    let mut next = from;
    let mut waiting = 0;
    let mut sent: Vec<Instant> = Vec::new();
    for connection in connections.all.iter_mut().take(to - from) {
        connection.send(pool.request(next))?;
        sent.push(Clock::System.monotonic());
        next += 1;
        waiting += 1;
    }
    let mut heard = started;
    let mut ready = Vec::with_capacity(connections.all.len());
    while waiting > 0 {
        connections.wait(SILENCE_MAX, &mut ready)?;
        // A wait may end early without anything, by a signal.
        if !ready.is_empty() {
            heard = Clock::System.monotonic();
        } else if heard.elapsed() >= SILENCE_MAX {
            return Err(io::Error::other(format!("{waiting} requests were never answered")));
        }
        for &index in &ready {
            let connection = &mut connections.all[index];
            connection.resume()?;
            let Some(answer) = connection.receive_by(dialect.answer)? else { continue };
            if let Some(waits) = dialect.waits.as_deref_mut() {
                let now = Clock::System.monotonic();
                waits.push(now.saturating_duration_since(sent[index]));
                sent[index] = now;
            }
            if answer.status == 200 {
                outcome.accepted += 1;
            } else {
                outcome.other += 1;
            }
            waiting -= 1;
            if next < to {
                connection.send(pool.request(next))?;
                next += 1;
                waiting += 1;
            }
        }
    }
    outcome.elapsed = started.elapsed();
    Ok(outcome)
}
