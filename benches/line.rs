//! The whole line without sockets: hyper parses requests out of memory, the line verifies,
//! deduplicates and appends them, and its answers go into memory.
//!
//! Beside it the same bytes through hyper with a handler that reads the body and answers 200, so
//! that what the line adds can be read off as a difference.

#[path = "support/memory.rs"]
mod memory;

use std::rc::Rc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use forebay::receive::Connections;
use forebay_log::Clock;

use memory::{opened, requests, serve_bare, serve_line};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const REQUESTS: u64 = 64;

fn line(c: &mut Criterion) {
    // Beside the build, not in /tmp: that may be memory, and a lane wants a file system.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let opened = opened(dir.path());
    let line = Rc::new(opened.line(0));
    let connections = Connections::new(opened.deadlines(), Clock::System.monotonic());
    let mut next = 0;
    let mut group = c.benchmark_group("line, 1 KiB");
    group.throughput(Throughput::Elements(REQUESTS));
    group.bench_function("parse to ack, written", |b| {
        let setup = || requests(&mut next, REQUESTS);
        let routine = |wire| serve_line(&line, &connections, wire);
        b.iter_batched(setup, routine, BatchSize::SmallInput);
    });
    group.bench_function("bare hyper, body read, 200", |b| {
        let mut next = 0;
        b.iter_batched(|| requests(&mut next, REQUESTS), serve_bare, BatchSize::SmallInput);
    });
    group.finish();
}

criterion_group!(benches, line);
criterion_main!(benches);
