//! What grows, from where to where, and the two servers that take turns at each of its points.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::ValueEnum;
use forebay_log::Clock;
use serde::Serialize;

use super::Bench;
use super::fill::{Filler, Load};
use super::judge::{Expected, Point};
use crate::figures::real;
use crate::processor;
use crate::requests::{Pool, Sender, Signer};
use crate::target::{Ack, Kind, Target};
use crate::weigh::{self, server};

const PRESET: &str = "standard-webhooks";
const CONNECTIONS: u32 = 64;
const BODY_BYTES: u32 = 1024;
/// Rounds that a median needs.
const ROUNDS_MIN: u32 = 3;
/// Bytes of all bodies of one round, so that large ones do not fill memory and disk.
const BODIES_BYTES_MAX: u64 = 512 << 20;
/// The least requests of a round.
const REQUESTS_MIN: u64 = 1000;
/// A body of the log's backlog; as few records as can be, since events are the other axis.
const BACKLOG_BODY_BYTES: usize = 256 << 10;
/// What the control plants at its end, in margins: what is less may pass, this may not.
const PLANTED_MARGINS: f64 = 2.0;

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum AxisName {
    /// Bytes of a body
    Body,
    /// Keep-alive connections, all of them busy
    Connections,
    /// Events in the dedupe window
    Window,
    /// Bytes of log
    Backlog,
    /// Work that was planted
    #[value(skip)]
    Control,
}

impl AxisName {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Connections => "connections",
            Self::Window => "window",
            Self::Backlog => "backlog",
            Self::Control => "control",
        }
    }
}

/// One thing that grows.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) name: AxisName,
    pub(super) title: &'static str,
    pub(super) subject: &'static str,
    pub(super) reference: &'static str,
    pub(super) expected: Expected,
    pub(super) values: Vec<f64>,
    pub(super) text: fn(f64) -> String,
}

/// One of the two servers at a point.
#[derive(Clone, Copy, Debug)]
struct Server<'p> {
    kind: Kind,
    /// Wasted on each request.
    planted_ns: u64,
    /// A folder that holds what was there before; else a new one.
    folder: Option<&'p Path>,
    connections: u32,
    body_bytes: u32,
}

const BARE: Server<'static> = Server {
    kind: Kind::Bare,
    planted_ns: 0,
    folder: None,
    connections: CONNECTIONS,
    body_bytes: BODY_BYTES,
};
const LINE: Server<'static> = Server { kind: Kind::Line, ..BARE };

impl Axis {
    /// An axis with its points.
    pub(super) fn of(name: AxisName, keys: u64, gib: u64) -> Self {
        const LINE: &str = "the line";
        const BARE: &str = "bare hyper";
        const EMPTY: &str = "the line with nothing behind it";
        let count: fn(f64) -> String = figures;
        let (title, reference, expected, values, text): (_, _, _, Vec<f64>, fn(f64) -> String) =
            match name {
                AxisName::Body => (
                    "bytes of a body",
                    BARE,
                    Expected::ByTheByte,
                    (4..10).map(|power| 4_f64.powi(power)).collect(),
                    bytes,
                ),
                AxisName::Connections => (
                    "connections",
                    BARE,
                    Expected::Flat,
                    (0..7).map(|power| 4_f64.powi(power)).collect(),
                    count,
                ),
                AxisName::Window | AxisName::Control => (
                    "events in the dedupe window",
                    EMPTY,
                    Expected::Flat,
                    [0, keys / 50, keys / 5, keys].map(real).into(),
                    count,
                ),
                AxisName::Backlog => (
                    "bytes of log",
                    EMPTY,
                    Expected::Flat,
                    [0, gib << 26, gib << 28, gib << 30].map(real).into(),
                    bytes,
                ),
            };
        Self { name, title, subject: LINE, reference, expected, values, text }
    }

    /// A bare server on which work is planted, more and more of it.
    pub(super) fn control(margin: f64) -> Self {
        let most = PLANTED_MARGINS * margin;
        Self {
            name: AxisName::Control,
            title: "the control: work planted, as a share of a request",
            subject: "bare hyper with it",
            reference: "bare hyper",
            expected: Expected::Flat,
            values: vec![0.0, most / 2.0, most],
            text: |share| format!("{:.0} %", share * 100.0),
        }
    }

    /// The text of a value.
    pub(super) fn text(&self, value: f64) -> String {
        (self.text)(value)
    }

    /// All points, or those that were reached by `until`.
    pub(super) fn measure(
        &self,
        bench: &Bench<'_>,
        until: Instant,
        mut told: impl FnMut(&Point),
    ) -> io::Result<Vec<Point>> {
        let folder = tempfile::tempdir_in(bench.folder)?;
        let mut filled = Filled::new(bench, folder.path());
        let mut points: Vec<Point> = Vec::new();
        for &value in &self.values {
            let reached = match self.name {
                AxisName::Window => filled.up_to(Load::Keys, whole(value), until)?,
                AxisName::Backlog => filled.up_to(Load::Log, whole(value), until)?,
                _ => true,
            };
            if !reached {
                break;
            }
            let planted_ns =
                points.first().map_or(0, |first| whole(first.reference_us.median * 1e3 * value));
            let pair = self.servers(value, planted_ns, folder.path());
            let rounds = rounds(bench, pair, until)?;
            let point = Point::new(value, self.text(value), rounds);
            told(&point);
            points.push(point);
        }
        Ok(points)
    }

    /// Subject and reference at a point.
    fn servers<'p>(&self, value: f64, planted_ns: u64, folder: &'p Path) -> [Server<'p>; 2] {
        let small = u32::try_from(whole(value)).unwrap_or(u32::MAX);
        match self.name {
            AxisName::Body => [LINE, BARE].map(|of| Server { body_bytes: small, ..of }),
            AxisName::Connections => [LINE, BARE].map(|of| Server { connections: small, ..of }),
            AxisName::Window | AxisName::Backlog => [Server { folder: Some(folder), ..LINE }, LINE],
            AxisName::Control => [Server { planted_ns, ..BARE }, BARE],
        }
    }
}

/// What lies in the folder of an axis that fills it.
struct Filled<'a> {
    bench: &'a Bench<'a>,
    lane: PathBuf,
    amount: u64,
}

impl<'a> Filled<'a> {
    fn new(bench: &'a Bench<'a>, folder: &Path) -> Self {
        Self { bench, lane: crate::target::lane(folder), amount: 0 }
    }

    /// Whether so much is there now.
    fn up_to(&mut self, load: Load, amount: u64, until: Instant) -> io::Result<bool> {
        if amount > self.amount {
            // Whoever fills takes all cores; whoever measures has its own.
            processor::stay_on(&self.bench.usable)?;
            let body_bytes = if load == Load::Log { BACKLOG_BODY_BYTES } else { 0 };
            let mut filler = Filler::open(&self.lane, body_bytes)?;
            self.amount = filler.fill(load, self.amount..amount, until)?;
            filler.close();
        }
        Ok(self.amount >= amount)
    }
}

/// Both servers in turns: as many rounds as wanted, or as there is time for.
fn rounds(bench: &Bench<'_>, pair: [Server<'_>; 2], until: Instant) -> io::Result<Vec<[f64; 2]>> {
    processor::stay_on(&[bench.cores.generator])?;
    let mut rounds = Vec::new();
    for round in 0..bench.args.rounds {
        if round >= ROUNDS_MIN && Clock::System.monotonic() >= until {
            break;
        }
        let mut cpu_us = [0.0; 2];
        // Whoever goes first meets another machine than who goes second; so they take turns.
        for turn in 0..2 {
            let which = (round as usize + turn) % 2;
            cpu_us[which] = measure(bench, pair[which])?;
        }
        rounds.push(cpu_us);
    }
    Ok(rounds)
}

/// CPU of one request, in microseconds.
fn measure(bench: &Bench<'_>, of: Server<'_>) -> io::Result<f64> {
    let Server { kind, planted_ns, folder, connections, body_bytes } = of;
    let room = BODIES_BYTES_MAX / u64::from(body_bytes).max(1);
    let requests = u64::from(bench.args.requests).min(room).max(REQUESTS_MIN);
    // Every connection has been used once before it counts.
    let warm = (requests / 10).max(u64::from(connections));
    // New events each time: a folder that stays would know those of the round before.
    let run = Clock::System.wall_ns();
    let signer = Signer::new(Sender::own(PRESET)?, body_bytes as usize, run)?;
    let (warm, all) = (index(warm), index(warm + requests));
    let pool = Pool::new(&signer, all)?;
    let mut wanted = server(kind, bench.args.driver, Ack::Written, PRESET, bench.cores)?;
    wanted.planted_ns = planted_ns;
    let target = match folder {
        Some(folder) => Target::start_in(wanted, folder)?,
        None => Target::start(wanted, bench.folder)?,
    };
    Ok(weigh::weigh(&target, connections, &pool, warm)?.cpu_us)
}

fn index(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// A value of an axis as a count.
fn whole(value: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts, not below 0"
    )]
    let count = value.round() as u64;
    count
}

/// `256 B`, `4 KiB`, `20 GiB`.
fn bytes(value: f64) -> String {
    let units = [(real(1 << 30), "GiB"), (real(1 << 20), "MiB"), (real(1 << 10), "KiB")];
    let fitting = units.into_iter().find(|(unit, _)| value >= *unit);
    let (unit, name) = fitting.unwrap_or((1.0, "B"));
    format!("{} {name}", (value / unit * 100.0).round() / 100.0)
}

/// `64`, `4,096`, `50M`.
fn figures(value: f64) -> String {
    if value >= 1e6 {
        return format!("{}M", (value / 1e4).round() / 100.0);
    }
    let count = whole(value);
    if count < 1000 { format!("{count}") } else { format!("{},{:03}", count / 1000, count % 1000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_as_people_write_them() {
        let told = [256.0, 1024.0, 65_536.0, 1.25 * real(1 << 30)].map(bytes);
        assert_eq!(told, ["256 B", "1 KiB", "64 KiB", "1.25 GiB"]);
        assert_eq!([0.0, 64.0, 4096.0, 5e7].map(figures), ["0", "64", "4,096", "50M"]);
    }

    #[test]
    fn axes_go_as_far_as_the_design_promises() {
        let last = |name| Axis::of(name, 50_000_000, 20).values.last().copied().map(whole);
        assert_eq!(last(AxisName::Body), Some(256 << 10));
        assert_eq!(last(AxisName::Connections), Some(4096));
        assert_eq!(last(AxisName::Window), Some(50_000_000));
        assert_eq!(last(AxisName::Backlog), Some(20 << 30));
    }
}
