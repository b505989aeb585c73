//! What the dedupe stage costs a request: the fingerprint, and a table question at two fills.
//!
//! `cargo bench --bench dedupe`. A table of four million keys: its words do not fit into the
//! caches, as they will not in service. `hit` is a duplicate; `new` is reserve and appended;
//! `given up` is reserve and drop, the same question without a slot being used up. The last group
//! asks the same of a table whose window is 48 blocks long, all but the newest of them on disk.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use forebay::dedupe::{Fingerprinter, Options, Outcome, Table};
use forebay_log::{Key, Lane, LaneOptions};

const CAPACITY: u64 = 4_000_000;

/// Keys that spread as fingerprints do, without the cost of making them.
fn key(number: u64) -> Key {
    let low = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let low = (low ^ (low >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    Key((u128::from(low ^ (low >> 32)) | (u128::from(number) << 64)).to_le_bytes())
}

/// A table that holds the first `keys` keys.
fn filled(keys: u64) -> Table {
    let capacity = usize::try_from(CAPACITY).expect("fits");
    let table = Table::new(Options { capacity, window: Duration::from_secs(3600) }, 0);
    for number in 0..keys {
        store(&table, number);
    }
    table.prepare(0);
    table
}

fn store(table: &Table, number: u64) {
    if let Outcome::Reserved(reservation) = table.reserve(key(number), 0) {
        reservation.appended(number);
    }
}

fn fingerprint(c: &mut Criterion) {
    let fingerprinter = Fingerprinter::new(b"0123456789abcdef");
    c.bench_function("dedupe/fingerprint of a 28 byte id", |b| {
        b.iter(|| {
            fingerprinter.fingerprint(
                black_box("stripe-live"),
                black_box(Some("acme")),
                [&black_box(b"evt_1PabcdEFghIJklMNopQRstUV")[..]],
            )
        });
    });
}

fn table(c: &mut Criterion) {
    for percent in [10, 60] {
        let keys = CAPACITY * percent / 100;
        let table = filled(keys);
        let mut group = c.benchmark_group("dedupe");
        let mut number = 0_u64;
        group.bench_function(BenchmarkId::new("hit", format!("{percent} % full")), |b| {
            b.iter(|| {
                number = (number + 7_919) % keys;
                table.reserve(key(black_box(number)), 0)
            });
        });
        let mut number = 1 << 40;
        group.bench_function(BenchmarkId::new("given up", format!("{percent} % full")), |b| {
            // Few keys, so that they use few slots; far apart, so that each misses the caches.
            b.iter(|| {
                number += 1;
                table.reserve(key((1 << 40) + (black_box(number) & 0x3fff)), 0)
            });
        });
        group.finish();
        drop(table);
        fresh(c, percent);
    }
}

/// New keys only: each batch starts from a table filled to the mark, and adds one part in 80.
fn fresh(c: &mut Criterion, percent: u64) {
    const ADDED: u64 = CAPACITY / 80;
    let keys = CAPACITY * percent / 100;
    let mut group = c.benchmark_group("dedupe");
    group.sample_size(10).throughput(criterion::Throughput::Elements(ADDED));
    group.bench_function(BenchmarkId::new("new, by 50,000", format!("{percent} % full")), |b| {
        b.iter_batched_ref(
            || filled(keys),
            |table| (keys..keys + ADDED).for_each(|number| store(table, number)),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// Blocks in the window, their keys, and the window.
const BLOCKS: u64 = 48;
const BLOCK_KEYS: u64 = 100_000;
const WINDOW: Duration = Duration::from_secs(48_000);

/// A table with a window of generations on disk, as they are merged in service.
fn generations(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a folder");
    let options = LaneOptions { volatile_allowed: true, ..LaneOptions::default() };
    let log = Arc::new(Lane::open(dir.path(), options).expect("a lane").0);
    let capacity = usize::try_from(BLOCK_KEYS * 7).expect("fits");
    let table = Table::open(Options { capacity, window: WINDOW }, &log, 0).expect("it opens");
    let keys = BLOCKS * BLOCK_KEYS + BLOCK_KEYS / 2;
    for number in 0..keys {
        let now_ns = number * (WINDOW.as_secs() * 1_000_000_000 / (BLOCKS * BLOCK_KEYS));
        if let Outcome::Reserved(reservation) = table.reserve(key(number), now_ns) {
            // Offset 0 is on the medium from the start.
            reservation.appended(0);
        }
        if number % (BLOCK_KEYS / 2) == 0 {
            table.prepare(now_ns);
            table.tend(now_ns);
        }
    }
    let now_ns = u64::try_from(WINDOW.as_nanos()).expect("fits");
    let files = table.stats().files;
    let label = format!("{} generations of {} keys", files.generations, files.keys);
    let mut group = c.benchmark_group("dedupe");
    let mut number = 0_u64;
    group.bench_function(BenchmarkId::new("hit", &label), |b| {
        b.iter(|| {
            number = (number + 7_919) % files.keys;
            table.reserve(key(black_box(keys - 1 - BLOCK_KEYS - number)), now_ns)
        });
    });
    let mut number = 1 << 40;
    group.bench_function(BenchmarkId::new("given up", &label), |b| {
        b.iter(|| {
            number += 1;
            table.reserve(key((1 << 40) + (black_box(number) & 0x3fff)), now_ns)
        });
    });
    group.finish();
}

criterion_group!(benches, fingerprint, table, generations);
criterion_main!(benches);
