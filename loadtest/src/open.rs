//! Open loop: requests are due at moments that a schedule fixed in advance, whether or not the
//! server keeps up, and latency counts from the moment a request was due. A request that finds
//! every connection busy waits, and its wait counts.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use forebay_log::Clock;
use hdrhistogram::Histogram;

use crate::requests::Signer;
use crate::wire::Connections;

/// The longest latency that is told apart from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(300);
/// How long after the last request was due the answers may still take.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// When requests are due, counted from the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    pub(crate) per_second: u32,
    pub(crate) count: u64,
}

impl Schedule {
    /// A fixed rate for a while.
    pub(crate) fn steady(per_second: u32, span: Duration) -> Self {
        Self { per_second, count: u64::from(per_second) * span.as_secs() }
    }

    fn due(self, number: u64) -> Duration {
        let nanos = u128::from(number) * 1_000_000_000 / u128::from(self.per_second.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many requests are due at a moment.
    fn due_by(self, now: Duration) -> u64 {
        let since = now.as_nanos() * u128::from(self.per_second) / 1_000_000_000;
        u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1).min(self.count)
    }
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// From the moment a request was due to its answer, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    pub(crate) accepted: u64,
    pub(crate) other: u64,
    pub(crate) unanswered: u64,
    /// The most requests that were due and found no free connection.
    pub(crate) backlog_most: u64,
    pub(crate) elapsed: Duration,
}

struct Run<'run> {
    connections: &'run mut Connections,
    signer: &'run Signer,
    schedule: Schedule,
    next: u64,
    idle: VecDeque<usize>,
    /// The moment at which the request of each connection was due.
    due: Vec<Duration>,
    bytes: Vec<u8>,
    outcome: Outcome,
}

/// Sends by the schedule and waits for the answers.
pub(crate) fn drive(
    connections: &mut Connections,
    signer: &Signer,
    schedule: Schedule,
) -> io::Result<Outcome> {
    let latency = Histogram::new_with_max(nanos(LATENCY_MAX), 3).map_err(io::Error::other)?;
    let count = connections.all.len();
    let outcome = Outcome {
        latency,
        accepted: 0,
        other: 0,
        unanswered: 0,
        backlog_most: 0,
        elapsed: Duration::ZERO,
    };
    let mut run = Run {
        connections,
        signer,
        schedule,
        next: 0,
        idle: (0..count).collect(),
        due: vec![Duration::ZERO; count],
        bytes: Vec::with_capacity(4096),
        outcome,
    };
    run.drive()?;
    Ok(run.outcome)
}

impl Run<'_> {
    fn drive(&mut self) -> io::Result<()> {
        let started = Clock::System.monotonic();
        let end = self.schedule.due(self.schedule.count) + DRAIN_MAX;
        let mut ready = Vec::with_capacity(self.due.len());
        while self.unfinished() {
            let now = started.elapsed();
            self.send_due(now)?;
            if now > end {
                self.outcome.unanswered = (self.due.len() - self.idle.len()) as u64;
                break;
            }
            self.connections.wait(self.patience(started.elapsed()), &mut ready)?;
            for &index in &ready {
                self.attend(index, started.elapsed())?;
            }
        }
        self.outcome.elapsed = started.elapsed();
        Ok(())
    }

    fn unfinished(&self) -> bool {
        self.next < self.schedule.count || self.idle.len() < self.due.len()
    }

    fn send_due(&mut self, now: Duration) -> io::Result<()> {
        while self.next < self.schedule.count && self.schedule.due(self.next) <= now {
            let Some(index) = self.idle.pop_front() else {
                let backlog = self.schedule.due_by(now) - self.next;
                self.outcome.backlog_most = self.outcome.backlog_most.max(backlog);
                return Ok(());
            };
            self.bytes.clear();
            self.signer.write(&mut self.bytes, self.next, Clock::System.wall_ns())?;
            self.due[index] = self.schedule.due(self.next);
            self.connections.all[index].send(&self.bytes)?;
            self.next += 1;
        }
        Ok(())
    }

    /// How long nothing has to be sent.
    fn patience(&self, now: Duration) -> Duration {
        if self.next < self.schedule.count && !self.idle.is_empty() {
            self.schedule.due(self.next).saturating_sub(now)
        } else {
            Duration::from_millis(100)
        }
    }

    fn attend(&mut self, index: usize, now: Duration) -> io::Result<()> {
        let connection = &mut self.connections.all[index];
        connection.resume()?;
        let Some(status) = connection.receive()? else { return Ok(()) };
        if status == 200 {
            self.outcome.accepted += 1;
        } else {
            self.outcome.other += 1;
        }
        self.outcome.latency.saturating_record(nanos(now.saturating_sub(self.due[index])));
        self.idle.push_back(index);
        Ok(())
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_is_even_and_ends_on_time() {
        let schedule = Schedule::steady(3, Duration::from_secs(2));
        let due: Vec<u128> =
            (0..schedule.count).map(|number| schedule.due(number).as_millis()).collect();
        assert_eq!(due, [0, 333, 666, 1000, 1333, 1666]);
        let by = |millis| schedule.due_by(Duration::from_millis(millis));
        assert_eq!((by(0), by(334), by(1000), by(60_000)), (1, 2, 4, 6));
    }
}
