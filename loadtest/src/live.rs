//! What somebody at a terminal sees while a run goes on; on a pipe there is nothing.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use crate::figures::real;
use crate::open::Beat;
use crate::schedule::Schedule;
use crate::series::{Point, Series};

/// Characters of the bar.
const BAR: u32 = 40;
/// Lines of the view.
const LINES: usize = 4;

/// A few lines on standard error that are drawn over and over.
#[derive(Debug)]
pub(crate) struct View {
    shown: bool,
    drawn: bool,
    span: Duration,
    expected: f64,
}

impl View {
    /// Shows only where standard error is a terminal.
    pub(crate) fn new() -> Self {
        let shown = io::stderr().is_terminal();
        Self { shown, drawn: false, span: Duration::ZERO, expected: 0.0 }
    }

    /// A run begins.
    pub(crate) fn begin(&mut self, schedule: &Schedule) {
        (self.span, self.expected) = (schedule.span(), schedule.expected());
    }

    /// Draws how things stand.
    pub(crate) fn show(&mut self, series: &Series, beat: &Beat<'_>) {
        let Some(point) = series.points.last().filter(|_| self.shown) else { return };
        let back = if self.drawn { format!("\x1b[{LINES}A") } else { String::new() };
        let lines = self.lines(point, beat).map(|line| format!("\x1b[2K{line}\n")).concat();
        // With standard error gone there is nobody left to look.
        drop(write!(io::stderr().lock(), "{back}{lines}"));
        self.drawn = true;
    }

    /// Takes the lines away.
    pub(crate) fn end(&mut self) {
        if self.drawn {
            // As above.
            drop(write!(io::stderr().lock(), "\x1b[{LINES}A\x1b[J"));
            self.drawn = false;
        }
    }

    fn lines(&self, point: &Point, beat: &Beat<'_>) -> [String; LINES] {
        let (done, whole) = (beat.now.as_secs_f64(), self.span.as_secs_f64().max(1e-9));
        let share = (done / whole).min(1.0);
        let bar: String = (0..BAR)
            .map(|step| if f64::from(step) < share * f64::from(BAR) { '#' } else { '.' })
            .collect();
        let latency = point.latency_us;
        [
            format!(
                "[{bar}] {done:5.1} of {whole:.0} s   {} of {:.0} due   {} accepted",
                beat.counts.due, self.expected, beat.counts.accepted
            ),
            format!(
                "rate     due {:>9.0}/s   accepted {:>9.0}/s   refused {:>6.0}/s   broken {:>6.0}/s",
                point.due_per_second,
                point.accepted_per_second,
                point.refused_per_second,
                point.broken_per_second
            ),
            format!(
                "latency  p50 {}   p99 {}   max {}   waiting {} in flight {} retrying {}",
                time(latency.p50),
                time(latency.p99),
                time(latency.max),
                point.backlog,
                point.in_flight,
                point.retrying
            ),
            format!(
                "cores    server {:5.2}   generator {:5.2}   server's memory {:.0} MiB",
                point.server_cores,
                point.generator_cores,
                real(point.server_bytes) / 1_048_576.0
            ),
        ]
    }
}

/// One line on standard error that says how far a long measurement has come, where that is a terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    shown: bool,
}

impl Progress {
    /// Nothing is said yet.
    pub(crate) fn new() -> Self {
        Self { shown: io::stderr().is_terminal() }
    }

    /// Says it in the place of what was said before.
    pub(crate) fn tell(&self, what: &str) {
        if self.shown {
            // With standard error gone there is nobody left to look.
            drop(write!(io::stderr().lock(), "\r\x1b[2K{what}"));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.tell("\r");
    }
}

/// Microseconds as people read them.
pub(crate) fn time(us: f64) -> String {
    match us {
        us if us < 1e3 => format!("{us:.0} us"),
        us if us < 1e6 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::{Counts, Level};

    #[test]
    fn the_bar_grows_with_the_time() {
        let span = Duration::from_secs(10);
        let view = View { shown: true, drawn: false, span, expected: 100.0 };
        let beat = |seconds| Beat {
            now: Duration::from_secs(seconds),
            counts: Counts::default(),
            level: Level::default(),
            accepted: &[],
        };
        let filled = |seconds| {
            let [line, ..] = view.lines(&Point::default(), &beat(seconds));
            line.matches('#').count()
        };
        assert_eq!([0, 5, 10, 20].map(filled), [0, 20, 40, 40]);
        assert_eq!([0.4, 1_500.0, 2.5e6].map(time), ["0 us", "1.50 ms", "2.50 s"]);
    }
}
