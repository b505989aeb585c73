//! Closed loop: every connection sends its next request when the last is answered. It finds what
//! a server costs at its ceiling; it says nothing about latency.

use std::io;
use std::time::Duration;

use forebay_log::Clock;

use crate::requests::Pool;
use crate::wire::Connections;

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
    let started = Clock::System.monotonic();
    let mut outcome = Outcome::default();
    let mut next = from;
    let mut waiting = 0;
    for connection in connections.all.iter_mut().take(to - from) {
        connection.send(pool.request(next))?;
        next += 1;
        waiting += 1;
    }
    let mut ready = Vec::with_capacity(connections.all.len());
    while waiting > 0 {
        connections.wait(SILENCE_MAX, &mut ready)?;
        if ready.is_empty() {
            return Err(io::Error::other(format!("{waiting} requests were never answered")));
        }
        for &index in &ready {
            let connection = &mut connections.all[index];
            connection.resume()?;
            let Some(answer) = connection.receive()? else { continue };
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
