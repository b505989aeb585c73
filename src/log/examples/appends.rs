//! How long an append takes at full speed: `appends DIR [SECONDS [PRODUCERS [ACK]]]`, by default
//! 60 seconds for each of 1,2,4 producers and both of written,synced. One line of JSON each.
//!
//! Every call is timed, those that were refused for want of a segment apart: at full speed the
//! medium is behind sooner or later, and the lane then says so rather than gather without bound.
//! A lane of 1 GiB is made in DIR for each run and removed after it. Needs nothing but the public
//! interface, so this file can be put into an older version to compare with.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use forebay_log::{
    AckLevel, AppendError, Appender, Clock, Key, Kind, Lane, LaneOptions, NewRecord, Retention,
};

const BODY_BYTES: usize = 1000;
const KEPT_BYTES: u64 = 1 << 30;
/// How long a producer that was refused waits.
const PAUSE: Duration = Duration::from_micros(100);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long calls took, exactly: a counter for each nanosecond up to a bound, and what is longer.
struct Times {
    short: Vec<u32>,
    long: Vec<u64>,
    refused: u64,
}

impl Times {
    const SHORT_NS: usize = 1 << 18;

    fn new() -> Self {
        Self { short: vec![0; Self::SHORT_NS], long: Vec::new(), refused: 0 }
    }

    fn record(&mut self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let place = usize::try_from(ns).ok().and_then(|ns| self.short.get_mut(ns));
        match place {
            Some(count) => *count += 1,
            None => self.long.push(ns),
        }
    }

    fn join(&mut self, other: Self) {
        for (count, more) in self.short.iter_mut().zip(other.short) {
            *count += more;
        }
        self.long.extend(other.long);
        self.refused += other.refused;
    }

    fn count(&self) -> u64 {
        self.short.iter().map(|count| u64::from(*count)).sum::<u64>() + self.long.len() as u64
    }

    /// The time within which so many of a million calls were done; `long` is sorted.
    fn within(&self, millionths: u64) -> u64 {
        let mut left = (self.count() * millionths).div_ceil(1_000_000).max(1);
        for (ns, count) in self.short.iter().enumerate() {
            match left.checked_sub(u64::from(*count)).filter(|left| *left > 0) {
                Some(behind) => left = behind,
                None => return ns as u64,
            }
        }
        let place = usize::try_from(left - 1).unwrap_or(usize::MAX);
        self.long.get(place).or(self.long.last()).copied().unwrap_or(0)
    }
}

/// Appends until the time is up.
fn produce(appender: &mut Appender, producer: u8, until: Instant) -> Result<Times, Failure> {
    let clock = Clock::System;
    let body = [producer; BODY_BYTES];
    let mut times = Times::new();
    let mut number = 0_u64;
    loop {
        let mut key = [producer; 16];
        key[..8].copy_from_slice(&number.to_le_bytes());
        let record = NewRecord {
            kind: Kind::Event,
            key: Key(key),
            received_ns: clock.wall_ns(),
            meta: b"",
            body: &body,
        };
        let began = clock.monotonic();
        if began >= until {
            return Ok(times);
        }
        match appender.append(&record) {
            Ok(_) => {
                times.record(clock.monotonic().saturating_duration_since(began));
                number += 1;
            }
            Err(AppendError::Full) => {
                times.refused += 1;
                std::thread::sleep(PAUSE);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn run(dir: &Path, seconds: u64, producers: u8, ack: AckLevel) -> Result<Times, Failure> {
    let retention = Retention { bytes: Some(KEPT_BYTES), ..Retention::default() };
    let (lane, _) = Lane::open(dir, LaneOptions { ack, retention, ..LaneOptions::default() })?;
    let until = Clock::System.monotonic() + Duration::from_secs(seconds);
    let mut all = Times::new();
    std::thread::scope(|scope| -> Result<(), Failure> {
        let started: Vec<_> = (0..producers)
            .map(|producer| {
                let mut appender = lane.appender();
                scope.spawn(move || produce(&mut appender, producer, until))
            })
            .collect();
        for producer in started {
            all.join(producer.join().map_err(|_| "a producer panicked")??);
        }
        Ok(())
    })?;
    all.long.sort_unstable();
    Ok(all)
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("usage: appends DIR [SECONDS [PRODUCERS [ACK]]]")?;
    let seconds = arguments.next().map_or(Ok(60), |text| text.parse())?;
    let producers = arguments.next().unwrap_or_else(|| "1,2,4".to_owned());
    let acks = arguments.next().unwrap_or_else(|| "written,synced".to_owned());
    for name in acks.split(',') {
        let ack = match name {
            "written" => AckLevel::Written,
            "synced" => AckLevel::Synced,
            _ => return Err(format!("{name} is no ack level: written, synced").into()),
        };
        for producers in producers.split(',') {
            let producers: u8 = producers.parse()?;
            let lane = Path::new(&dir).join(format!("appends-{}", std::process::id()));
            let outcome = run(&lane, seconds, producers, ack);
            std::fs::remove_dir_all(&lane)?;
            let times = outcome?;
            let us =
                |millionths| Duration::from_nanos(times.within(millionths)).as_secs_f64() * 1e6;
            writeln!(
                std::io::stdout(),
                "{{\"ack\":\"{name}\",\"producers\":{producers},\"seconds\":{seconds},\
                 \"body_bytes\":{BODY_BYTES},\"appends\":{},\"refused\":{},\"p50_us\":{:.2},\
                 \"p99_us\":{:.2},\"p99_9_us\":{:.2},\"p99_99_us\":{:.2},\"max_us\":{:.2}}}",
                times.count(),
                times.refused,
                us(500_000),
                us(990_000),
                us(999_000),
                us(999_900),
                us(1_000_000),
            )?;
        }
    }
    Ok(())
}
