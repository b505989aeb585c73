//! How the concurrency limit follows a destination: an HTTP server in this process that serves so
//! many requests at once, then half of them, then all again, while events come at a steady rate
//! between the two; and a picture of limit, latency and backlog over time.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use forebay_log::Clock;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::prepared::{Place, Prepared};
use crate::figures::{Summary, nanos, real, say};
use crate::plot::{self, Axis, Line, Plot};
use crate::text;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(200);
/// How often events are appended.
const BEAT: Duration = Duration::from_millis(5);
/// How long one request takes that does not wait.
const SERVICE: Duration = Duration::from_millis(10);

/// Arguments of `drain limit`.
#[derive(Clone, Debug, Args)]
pub(crate) struct LimitArgs {
    /// Requests that the destination serves at once, 10 ms each
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=256))]
    capacity: u32,
    /// Events a second. Default: three quarters of what the destination takes
    #[arg(long, value_parser = text::rate)]
    rate: Option<f64>,
    /// How long each of the three phases takes
    #[arg(long, default_value = "20s", value_parser = text::span)]
    phase: Duration,
    /// `sink.concurrency_max`
    #[arg(long, default_value_t = 128)]
    most: u32,
    /// The picture
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// The destination, shared by its connections.
struct Destination {
    slots: Semaphore,
    answered: AtomicU64,
    /// Nanoseconds from a request to its answer, of all of them.
    waited: AtomicU64,
}

/// How things stood, or went since the look before.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: f64,
    limit: f64,
    capacity: f64,
    /// Mean from a request to its answer, in milliseconds; no number where there was none.
    latency_ms: f64,
    backlog: f64,
    answered: f64,
}

/// Measures, prints, draws.
pub(super) fn run(args: &LimitArgs) -> io::Result<ExitCode> {
    let place = Place::new(None)?;
    let mut lane = Prepared::at(place.lane())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let on = runtime.handle().clone();
    // It ends with this process.
    thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    let destination = Arc::new(Destination {
        slots: Semaphore::new(args.capacity as usize),
        answered: AtomicU64::new(0),
        waited: AtomicU64::new(0),
    });
    let address = on.block_on(listen(Arc::clone(&destination)))?;
    let drain = place.drain(&format!(
        "name = \"limit\"\nconcurrency_max = {}\n[sink.http]\nurl = \"http://{address}/\"\n\
         allow_private = true\n",
        args.most
    ))?;
    let counters = drain.counters();
    let [counters] = counters.as_slice() else { return Err(io::Error::other("not one sink")) };
    let (full, half) = (args.capacity, args.capacity / 2);
    let served = real(u64::from(full)) / SERVICE.as_secs_f64();
    let rate = args.rate.unwrap_or(0.75 * served);
    say(&format!(
        "a destination of {full}, {half} and {full} requests at once, {SERVICE:?} each; {rate:.0} \
         events/s, {:?} a phase\n",
        args.phase
    ));
    let mut samples = Vec::new();
    let began = Clock::System.monotonic();
    for (phase, capacity) in [full, half, full].into_iter().enumerate() {
        match phase {
            1 => on.block_on(take(&destination, full - half))?,
            2 => destination.slots.add_permits((full - half) as usize),
            _ => {}
        }
        let end = args.phase * (u32::try_from(phase).unwrap_or(0) + 1);
        let first = samples.len();
        let (mut look, mut before) = (began.elapsed() + LOOK, destination.read());
        while began.elapsed() < end {
            thread::sleep(BEAT);
            let now = began.elapsed();
            while real(lane.appended()) < now.as_secs_f64() * rate {
                lane.append(200)?;
            }
            if now >= look {
                let read = destination.read();
                let (answered, waited) = (read.0 - before.0, read.1 - before.1);
                before = read;
                look += LOOK;
                samples.push(Sample {
                    at: now.as_secs_f64(),
                    limit: real(counters.limit()),
                    capacity: real(u64::from(capacity)),
                    latency_ms: real(waited) / real(answered) / 1e6,
                    backlog: real(lane.appended().saturating_sub(counters.events())),
                    answered: real(answered) / LOOK.as_secs_f64(),
                });
            }
        }
        told((["at first", "halved", "back"][phase], &samples[first..]), capacity);
    }
    drain.stop();
    if let Some(path) = &args.svg {
        fs::write(path, picture(&samples, args))?;
        say(&format!("\nwritten: {}", path.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes slots away, as they become free.
async fn take(destination: &Destination, count: u32) -> io::Result<()> {
    destination.slots.acquire_many(count).await.map_err(io::Error::other)?.forget();
    Ok(())
}

impl Destination {
    fn read(&self) -> (u64, u64) {
        // Relaxed: a figure for a plot.
        (self.answered.load(Ordering::Relaxed), self.waited.load(Ordering::Relaxed))
    }

    async fn serve(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let began = Clock::System.monotonic();
        // An error here is one of the connection, which ends.
        _ = request.into_body().collect().await;
        if let Ok(_slot) = self.slots.acquire().await {
            tokio::time::sleep(SERVICE).await;
        }
        self.waited.fetch_add(nanos(began.elapsed()), Ordering::Relaxed);
        self.answered.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(Full::default()))
    }
}

async fn listen(destination: Arc<Destination>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let destination = Arc::clone(&destination);
            tokio::spawn(async move {
                let service = service_fn(|request| destination.serve(request));
                // The drain ends its connections as it likes.
                _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(address)
}

/// Says what the second half of a phase was like.
fn told(phase: (&str, &[Sample]), capacity: u32) {
    let (phase, last) = phase;
    let half = &last[last.len() / 2..];
    let of = |part: fn(&Sample) -> f64| Summary::of(half.iter().map(part));
    let (limit, latency) = (of(|of| of.limit), of(|of| of.latency_ms));
    say(&format!(
        "{phase:<10} capacity {capacity:>3}: limit {:.0} ({:.0} to {:.0}), latency {:.1} ms, {:.0} \
         answered/s, backlog {:.0}",
        limit.median,
        limit.least,
        limit.most,
        latency.median,
        of(|of| of.answered).median,
        last.last().map_or(0.0, |sample| sample.backlog)
    ));
}

/// Three plots, one under the other.
fn picture(samples: &[Sample], args: &LimitArgs) -> String {
    let phase = args.phase.as_secs_f64();
    let marks = [(phase, "half of the capacity is gone"), (2.0 * phase, "it is back")];
    let plot = |unit: fn(f64) -> String, lines: Vec<Line>| {
        let values = lines.iter().flat_map(|line| &line.points).map(|(_, y)| *y);
        Plot {
            x: Axis::linear(3.0 * phase, |at| format!("{at:.0}")),
            y: Axis::linear(values.filter(|y| y.is_finite()).fold(0.0, f64::max), unit),
            lines,
            marks: marks.iter().map(|(at, text)| (*at, (*text).to_owned())).collect(),
            x_name: "seconds",
        }
    };
    let line = |name, class, filled, of: fn(&Sample) -> f64| {
        let points = samples.iter().map(|sample| (sample.at, of(sample))).collect();
        Line { name, class, points, filled }
    };
    let count = |value: f64| format!("{value:.0}");
    let panels = [
        (
            "requests at once: the limit, and what the destination serves (dashed)",
            plot(
                count,
                vec![
                    line("limit", "c0", false, |of| of.limit),
                    line("capacity", "c1", false, |of| of.capacity),
                ],
            ),
        ),
        (
            "from request to answer, mean",
            plot(
                |ms| format!("{ms:.0} ms"),
                vec![line("latency", "c0", false, |of| of.latency_ms)],
            ),
        ),
        (
            "events that wait in the log",
            plot(count, vec![line("backlog", "c0", true, |of| of.backlog)]),
        ),
    ];
    plot::stacked(&panels)
}
