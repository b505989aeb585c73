//! The whole line without sockets: requests are parsed out of memory, the line verifies,
//! deduplicates and appends them, and its answers go into memory.
//!
//! Beside it the same bytes with a handler that reads the body and answers 200, so that what the
//! line adds can be read off as a difference, and the same by hyper.

#[path = "support/memory.rs"]
mod memory;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use forebay::receive::Connections;
use forebay_log::Clock;

use memory::{Bare, opened, requests, serve, serve_hyper};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const REQUESTS: u64 = 64;

fn line(c: &mut Criterion) {
    // Beside the build, not in /tmp: that may be memory, and a lane wants a file system.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let opened = opened(dir.path());
    let line = opened.line(0);
    let connections = Connections::new(opened.deadlines(), Clock::System.monotonic());
    let mut next = 0;
    let mut group = c.benchmark_group("line, 1 KiB");
    group.throughput(Throughput::Elements(REQUESTS));
    group.bench_function("parse to ack, written", |b| {
        let setup = || requests(&mut next, REQUESTS);
        let routine = |wire| serve(&line, &connections, wire);
        b.iter_batched(setup, routine, BatchSize::SmallInput);
    });
    group.bench_function("body read, 200", |b| {
        let setup = || requests(&mut next, REQUESTS);
        let routine = |wire| serve(&Bare, &connections, wire);
        b.iter_batched(setup, routine, BatchSize::SmallInput);
    });
    group.bench_function("body read, 200, by hyper", |b| {
        let setup = || requests(&mut next, REQUESTS);
        let routine = |wire| serve_hyper(&connections, wire);
        b.iter_batched(setup, routine, BatchSize::SmallInput);
    });
    group.finish();
}

criterion_group!(benches, line);
criterion_main!(benches);
