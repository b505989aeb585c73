//! What one append costs: claim, copy, checksum, publish, at ack level written.
//!
//! Bursts of records into pages that the keeper has made ready, as on the path of a request; the
//! waits between the bursts, in which it catches up, are not timed.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forebay_log::{
    AckLevel, AppendError, Appender, Clock, Key, Kind, Lane, LaneOptions, NewRecord, Retention,
};

const BODY_BYTES: usize = 1024;
const META_BYTES: usize = 256;
/// Fits well into what the keeper makes ready, 4 MiB, with two producers.
const BURST: u64 = 1000;
/// Between two bursts, for the keeper.
const REST: Duration = Duration::from_millis(8);

fn lane() -> (tempfile::TempDir, Lane) {
    let dir = tempfile::tempdir().expect("a directory");
    let options = LaneOptions {
        segment_bytes: 128 * 1024 * 1024,
        ack: AckLevel::Written,
        retention: Retention { age: None, bytes: Some(512 * 1024 * 1024) },
        disk_reserve_bytes: Some(0),
        volatile_allowed: true,
        clock: Clock::System,
        ..LaneOptions::default()
    };
    let lane = Lane::open(dir.path(), options).expect("a lane").0;
    (dir, lane)
}

/// Appends a burst and tells how long it took; a segment that is late is not the append's cost.
fn burst(appender: &mut Appender, count: u64) -> Duration {
    let (meta, body) = ([7; META_BYTES], [9; BODY_BYTES]);
    let record = NewRecord {
        kind: Kind::Event,
        key: Key([1; 16]),
        received_ns: 1,
        meta: &meta,
        body: &body,
    };
    let clock = Clock::System;
    let mut waited = Duration::ZERO;
    let began = clock.monotonic();
    for _ in 0..count {
        while let Err(error) = appender.append(black_box(&record)) {
            assert_eq!(error, AppendError::Full);
            let full = clock.monotonic();
            thread::sleep(Duration::from_micros(100));
            waited += full.elapsed();
        }
    }
    began.elapsed().saturating_sub(waited)
}

/// `count` appends by each of `producers`, in bursts; the time of the slowest.
fn bursts(lane: &Lane, producers: u64, count: u64) -> Duration {
    let barrier = Barrier::new(usize::try_from(producers).expect("few"));
    thread::scope(|scope| {
        let each = (0..producers).map(|_| {
            let mut appender = lane.appender();
            let barrier = &barrier;
            scope.spawn(move || {
                let (mut left, mut took) = (count, Duration::ZERO);
                while left > 0 {
                    thread::sleep(REST);
                    barrier.wait();
                    let now = left.min(BURST);
                    took += burst(&mut appender, now);
                    left -= now;
                }
                took
            })
        });
        let each: Vec<_> = each.collect();
        each.into_iter().map(|one| one.join().expect("no panic")).max().unwrap_or_default()
    })
}

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(1));
    group.sample_size(20);
    for producers in [1, 2] {
        let (_dir, lane) = lane();
        group.bench_function(format!("1 KiB, written, producers: {producers}"), |bencher| {
            bencher.iter_custom(|count| bursts(&lane, producers, count));
        });
        lane.close();
    }
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
