//! A run over time: what was due, what was answered and how late, and what both sides used.

use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::figures::{nanos, real};
use crate::processor;

/// The longest latency that is told apart from longer ones.
pub(crate) const LATENCY_MAX: Duration = Duration::from_secs(3600);
/// Intervals of a run in its plots, at most.
const POINTS: u32 = 300;

/// Latencies from the moment due, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Latency {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| real(histogram.value_at_quantile(quantile)) / 1e3;
        let max = real(histogram.max()) / 1e3;
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max }
    }
}

/// A histogram of nanoseconds with so many digits.
pub(crate) fn histogram(digits: u8) -> io::Result<Histogram<u64>> {
    Histogram::new_with_max(nanos(LATENCY_MAX), digits).map_err(io::Error::other)
}

/// What is counted from the start of a run on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Requests that the schedule has called for.
    pub(crate) due: u64,
    /// Requests that went out, further attempts included.
    pub(crate) sent: u64,
    /// Answers by a 2xx.
    pub(crate) accepted: u64,
    /// Answers by something else, where one deserved nothing else.
    pub(crate) refused_rightly: u64,
    /// Genuine requests that were answered by something else.
    pub(crate) refused: u64,
    /// Requests without an answer: the connection ended, or time was up.
    pub(crate) broken: u64,
}

/// What is so at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Level {
    /// Requests that are due and wait, for a connection or their room.
    pub(crate) backlog: u64,
    /// Requests without an answer yet.
    pub(crate) in_flight: u64,
    /// Requests that wait for their next attempt.
    pub(crate) retrying: u64,
}

/// One interval.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Point {
    /// Its end, in seconds from the start.
    pub(crate) seconds: f64,
    pub(crate) due_per_second: f64,
    pub(crate) accepted_per_second: f64,
    pub(crate) refused_per_second: f64,
    pub(crate) broken_per_second: f64,
    pub(crate) latency_us: Latency,
    pub(crate) backlog: u64,
    pub(crate) in_flight: u64,
    pub(crate) retrying: u64,
    /// Cores in use.
    pub(crate) server_cores: f64,
    pub(crate) generator_cores: f64,
    /// Memory of the server: all that is mapped and in RAM, and what of it is its own.
    pub(crate) server_bytes: u64,
    pub(crate) server_own_bytes: u64,
}

/// The CPU time of a process from one look to the next; another process starts anew.
#[derive(Debug, Default)]
struct Meter {
    process: Option<u32>,
    cpu: Duration,
}

impl Meter {
    /// What `process` has used since the last look.
    fn used(&mut self, process: Option<u32>) -> Duration {
        let cpu = process.and_then(|process| processor::cpu_time(process).ok()).unwrap_or_default();
        let before = if self.process == process { self.cpu } else { Duration::ZERO };
        (self.process, self.cpu) = (process, cpu);
        cpu.saturating_sub(before)
    }
}

/// All intervals of a run.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) points: Vec<Point>,
    /// CPU time of both sides from start to end.
    pub(crate) server_cpu: Duration,
    pub(crate) generator_cpu: Duration,
    interval: Duration,
    latency: Histogram<u64>,
    counts: Counts,
    since: Duration,
    server: Meter,
    generator: Meter,
}

impl Series {
    /// For a run of about this length against this process, if it is on this machine.
    pub(crate) fn new(span: Duration, server: Option<u32>) -> io::Result<Self> {
        let interval = (span / POINTS).clamp(Duration::from_millis(250), Duration::from_secs(30));
        let mut series = Self {
            points: Vec::new(),
            server_cpu: Duration::ZERO,
            generator_cpu: Duration::ZERO,
            interval,
            latency: histogram(2)?,
            counts: Counts::default(),
            since: Duration::ZERO,
            server: Meter::default(),
            generator: Meter::default(),
        };
        series.server.used(server);
        series.generator.used(Some(std::process::id()));
        Ok(series)
    }

    /// A request was accepted, so long after it was due.
    pub(crate) fn accepted(&mut self, latency: Duration) {
        self.latency.saturating_record(nanos(latency));
    }

    /// Ends an interval if it is time; true if it did.
    pub(crate) fn look(
        &mut self,
        now: Duration,
        counts: Counts,
        level: Level,
        server: Option<u32>,
    ) -> bool {
        if now < self.since + self.interval {
            return false;
        }
        let seconds = now.saturating_sub(self.since).as_secs_f64();
        let rate =
            |of: fn(&Counts) -> u64| real(of(&counts).saturating_sub(of(&self.counts))) / seconds;
        let (server_cpu, own) = (self.server.used(server), std::process::id());
        let generator_cpu = self.generator.used(Some(own));
        let memory = server.and_then(|server| processor::memory(server).ok()).unwrap_or_default();
        let point = Point {
            seconds: now.as_secs_f64(),
            due_per_second: rate(|counts| counts.due),
            accepted_per_second: rate(|counts| counts.accepted),
            refused_per_second: rate(|counts| counts.refused + counts.refused_rightly),
            broken_per_second: rate(|counts| counts.broken),
            latency_us: Latency::of(&self.latency),
            backlog: level.backlog,
            in_flight: level.in_flight,
            retrying: level.retrying,
            server_cores: server_cpu.as_secs_f64() / seconds,
            generator_cores: generator_cpu.as_secs_f64() / seconds,
            server_bytes: memory.0,
            server_own_bytes: memory.1,
        };
        self.points.push(point);
        self.server_cpu += server_cpu;
        self.generator_cpu += generator_cpu;
        self.latency.reset();
        (self.counts, self.since) = (counts, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_tells_of_itself_alone() {
        let mut series = Series::new(Duration::from_secs(10), None).expect("bounds are sound");
        let at = Duration::from_millis;
        let counts = |due, accepted| Counts { due, accepted, ..Counts::default() };
        series.accepted(at(3));
        assert!(!series.look(at(100), counts(10, 10), Level::default(), None));
        assert!(series.look(at(500), counts(100, 50), Level::default(), None));
        series.accepted(at(9));
        assert!(series.look(at(1000), counts(110, 110), Level::default(), None));
        let [first, second] = &series.points[..] else { panic!("two intervals") };
        let near = |value: f64, wanted: f64| (value / wanted - 1.0).abs() < 0.01;
        assert!(near(first.due_per_second, 200.0) && near(first.accepted_per_second, 100.0));
        assert!(near(second.due_per_second, 20.0) && near(second.accepted_per_second, 120.0));
        assert!(near(first.latency_us.max, 3000.0) && near(second.latency_us.p50, 9000.0));
    }
}
