//! The drain of a prepared lane into a real server, and the same events by the server's own client,
//! by turns within one run.
//!
//! The server has one core, the drain or the client the other. Both count from nothing, their
//! connection included, until the last event is acknowledged; then the server is asked how many it
//! holds. CPU is that of all threads of this process, which sleeps but for the one or the other.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Args;
use forebay_log::Clock;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::counterpart::{Counterpart, To};
use super::prepared::{Place, Prepared};
use super::raw::{self, BATCH, Row};
use crate::figures::{Summary, real, say};
use crate::live::Progress;
use crate::processor::{self, Cores};

/// A drain that is slower than this is stuck.
const DRAIN_MAX: Duration = Duration::from_secs(300);

/// Arguments of `drain throughput`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ThroughputArgs {
    /// The sinks
    #[arg(long, value_enum, value_delimiter = ',', default_value = "nats,redis,postgres,file")]
    sinks: Vec<To>,
    /// Rounds; each measures every sink both ways.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Events of a round.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1000..=1_000_000))]
    events: u32,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(64..=65_536))]
    body: u32,
    /// Fail when the median ratio of a sink is below this.
    #[arg(long)]
    ratio_min: Option<f64>,
    /// Where lane and servers write, and all of it is removed again. Default: the folder for
    /// temporary files
    #[arg(long)]
    folder: Option<PathBuf>,
    /// One JSON document instead of a table.
    #[arg(long)]
    json: bool,
}

/// One way in one round; CPU in microseconds for an event.
#[derive(Clone, Copy, Debug, Serialize)]
struct Measured {
    per_second: f64,
    cpu_us: f64,
}

/// One sink over all rounds.
#[derive(Debug, Serialize)]
struct Of {
    sink: &'static str,
    drain_per_second: Summary,
    raw_per_second: Summary,
    /// Drain over raw, in the same round.
    ratio: Summary,
    drain_cpu_us: Summary,
    raw_cpu_us: Summary,
}

/// Measures and prints.
pub(super) fn run(args: &ThroughputArgs) -> io::Result<ExitCode> {
    let cores = Cores::choose()?;
    let place = Place::new(args.folder.as_deref())?;
    let mut lane = Prepared::at(place.lane())?;
    for _ in 0..args.events {
        lane.append(args.body as usize)?;
    }
    let rows = raw::rows(&lane.dir)?;
    processor::stay_on(&[cores.generator])?;
    // Where PostgreSQL runs as somebody else, it has to get to its folder.
    open_to_all(place.path())?;
    let mut table = Vec::new();
    for to in &args.sinks {
        if !to.is_here() {
            say(&format!("{}: not run, since this machine does not have it", to.name()));
            continue;
        }
        let named = |error: io::Error| io::Error::other(format!("{}: {error}", to.name()));
        let counterpart = Counterpart::start(*to, cores, place.path()).map_err(named)?;
        let (progress, mut rounds) = (Progress::new(), Vec::new());
        for round in 0..args.rounds {
            progress.tell(&format!("{}: round {} of {}", to.name(), round + 1, args.rounds));
            let drained = || drained(&place, &counterpart, round, &rows);
            let pushed = || pushed(&counterpart, round, &rows);
            // Whoever goes first meets another machine than who goes second; so they take turns.
            let both = if round % 2 == 0 {
                let drained = drained().map_err(named)?;
                (drained, pushed().map_err(named)?)
            } else {
                let pushed = pushed().map_err(named)?;
                (drained().map_err(named)?, pushed)
            };
            rounds.push(both);
        }
        drop(progress);
        let of = summed(to.name(), &rounds);
        if !args.json {
            if table.is_empty() {
                head(args, cores);
            }
            line(&of);
        }
        table.push(of);
    }
    if args.json {
        say(&serde_json::to_string_pretty(&table).map_err(io::Error::other)?);
    }
    let least = args.ratio_min.unwrap_or(0.0);
    let below: Vec<&str> =
        table.iter().filter(|of| of.ratio.median < least).map(|of| of.sink).collect();
    if below.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(io::Error::other(format!("below {least} times the raw client: {}", below.join(", "))))
}

fn open_to_all(folder: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
}

/// What it took since this was made.
struct Stopwatch {
    began: std::time::Instant,
    cpu: Duration,
}

impl Stopwatch {
    fn start() -> Self {
        Self { began: Clock::System.monotonic(), cpu: cpu() }
    }

    fn stop(self, events: usize) -> Measured {
        let elapsed = self.began.elapsed();
        let spent = cpu().saturating_sub(self.cpu);
        let events = real(events as u64);
        Measured {
            per_second: events / elapsed.as_secs_f64(),
            cpu_us: spent.as_secs_f64() * 1e6 / events,
        }
    }
}

/// The CPU time of this process, threads that have ended included.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn drained(
    place: &Place,
    counterpart: &Counterpart,
    round: u32,
    rows: &[Row],
) -> io::Result<Measured> {
    let target = format!("drained_{round}");
    // A name of its own for each, so that each begins at the start of the lane.
    let sink = format!(
        "name = \"{}-{round}\"\nbatch = {{ count = {BATCH} }}\n{}",
        counterpart.name(),
        counterpart.section(&target)
    );
    let watch = Stopwatch::start();
    let drain = place.drain(&sink)?;
    let counters = drain.counters();
    let [counters] = counters.as_slice() else { return Err(io::Error::other("not one sink")) };
    while counters.events() < rows.len() as u64 {
        if watch.began.elapsed() > DRAIN_MAX || counters.dead_letters() > 0 {
            return Err(io::Error::other(format!(
                "{} of {} were drained, {} became dead letters",
                counters.events(),
                rows.len(),
                counters.dead_letters()
            )));
        }
        thread::sleep(Duration::from_millis(1));
    }
    let measured = watch.stop(rows.len());
    drain.stop();
    must_hold(counterpart, &target, rows)?;
    Ok(measured)
}

fn pushed(counterpart: &Counterpart, round: u32, rows: &[Row]) -> io::Result<Measured> {
    let target = format!("pushed_{round}");
    let runtime = runtime()?;
    let watch = Stopwatch::start();
    runtime.block_on(counterpart.push(&target, rows))?;
    let measured = watch.stop(rows.len());
    must_hold(counterpart, &target, rows)?;
    Ok(measured)
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// A figure counts only if the server has everything, once.
fn must_hold(counterpart: &Counterpart, target: &str, rows: &[Row]) -> io::Result<()> {
    let held = runtime()?.block_on(counterpart.take_away(target))?;
    if held == rows.len() as u64 {
        return Ok(());
    }
    Err(io::Error::other(format!("{target}: {held} of {} events are there", rows.len())))
}

fn summed(sink: &'static str, rounds: &[(Measured, Measured)]) -> Of {
    let drain = |of: fn(&Measured) -> f64| Summary::of(rounds.iter().map(|(drain, _)| of(drain)));
    let raw = |of: fn(&Measured) -> f64| Summary::of(rounds.iter().map(|(_, raw)| of(raw)));
    let ratio = rounds.iter().map(|(drain, raw)| drain.per_second / raw.per_second);
    Of {
        sink,
        drain_per_second: drain(|of| of.per_second),
        raw_per_second: raw(|of| of.per_second),
        ratio: Summary::of(ratio),
        drain_cpu_us: drain(|of| of.cpu_us),
        raw_cpu_us: raw(|of| of.cpu_us),
    }
}

fn head(args: &ThroughputArgs, cores: Cores) {
    let ThroughputArgs { rounds, events, body, .. } = args;
    say(&format!(
        "{rounds} rounds of {events} events of {body} B, batches of {BATCH}; server on core {}, \
         drain or client on core {}{}\n",
        cores.server,
        cores.generator,
        if cores.shared() { " (the same one: these figures mean little)" } else { "" },
    ));
    say(&format!(
        "{:<10}{:>14}{:>14}   {:<24}{:>15}{:>15}",
        "", "drain", "raw client", "drain / raw client", "CPU us/event", "CPU us/event"
    ));
    say(&format!(
        "{:<10}{:>14}{:>14}   {:<24}{:>15}{:>15}",
        "sink", "events/s", "events/s", "median (least to most)", "drain", "raw"
    ));
}

fn line(of: &Of) {
    let Of { sink, drain_per_second, raw_per_second, ratio, drain_cpu_us, raw_cpu_us } = of;
    say(&format!(
        "{sink:<10}{:>14.0}{:>14.0}   {:<24}{:>15.2}{:>15.2}",
        drain_per_second.median,
        raw_per_second.median,
        format!("{:.2} ({:.2} to {:.2})", ratio.median, ratio.least, ratio.most),
        drain_cpu_us.median,
        raw_cpu_us.median
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_the_same_round() {
        let of = |per_second| Measured { per_second, cpu_us: 1.0 };
        // The machine is twice as slow in the second round: the ratio does not see it.
        let summed = summed("nats", &[(of(90.0), of(100.0)), (of(45.0), of(50.0))]);
        assert!((summed.ratio.median - 0.9).abs() < 1e-9 && summed.ratio.spread < 1e-9);
    }
}
