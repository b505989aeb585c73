//! What it costs to judge a request of each family, by the schemes of `tests/keys/families.toml`.
//!
//! Each at 1 KiB and 16 KiB, and at 1 KiB also `junk`, whose signature can be read and is wrong,
//! and `without`, which has none. Run with `cargo bench --bench families`; a name as an argument
//! runs only what it matches.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use forebay::reject::Reject;
use forebay::verify::{
    DigestOf, Format, Head, NamedSecret, Profile, SchemeSpec, SecretIndex, SecretText, Settings,
    SignInput, SignedRequest, Signer, Verifier,
};
use http::HeaderMap;

use self::spoil::{Carrier, Target};
use self::support::{Case, NOW};

#[path = "support/families.rs"]
mod support;
#[path = "support/spoil.rs"]
mod spoil;

const SIZES: [usize; 2] = [1024, 16 * 1024];

/// A request as its receiver has it.
struct Request {
    headers: HeaderMap,
    target: String,
    body: Vec<u8>,
}

impl Request {
    fn of(case: &Case) -> Self {
        let (target, body) = (case.request.target.clone(), case.request.body.clone());
        Self { headers: case.headers(), target, body }
    }

    fn accepted_by(&self, verifier: &Verifier) -> bool {
        let head = Head { target: &self.target, ..(&self.headers).into() };
        verifier.claim(&head, NOW).and_then(|claim| verifier.check(&claim, &self.body)).is_ok()
    }
}

fn families(c: &mut Criterion) {
    let mut group = c.benchmark_group("families");
    for bytes in SIZES {
        for family in support::families() {
            let case = Case::with_body(family, bytes);
            let name = &case.family.name;
            let verifier = &case.verifier;
            let mut request = Request::of(&case);
            group.throughput(Throughput::Bytes(request.body.len() as u64));
            assert_eq!(case.judged_by(verifier), Ok(0), "{name}");
            group.bench_function(BenchmarkId::new(name, bytes), |b| {
                b.iter(|| black_box(&request).accepted_by(verifier));
            });
            // In a message of SNS the signature stands in a place of its own.
            let target = Target::of(&case).filter(|_| case.family.scheme.format != Format::Sns);
            let Some(mut target) = target.filter(|_| bytes == SIZES[0]) else { continue };
            target.spoil(false, 7);
            target.put(&mut request.headers, &mut request.target, &mut request.body);
            assert!(!request.accepted_by(verifier), "{name}");
            group.bench_function(BenchmarkId::new(format!("{name}-junk"), bytes), |b| {
                b.iter(|| black_box(&request).accepted_by(verifier));
            });
            match &target.carrier {
                Carrier::Header(name) => {
                    request.headers.remove(name);
                }
                Carrier::Query => request.target.truncate(1),
                Carrier::Body => request.body = b"{}".to_vec(),
            }
            group.bench_function(BenchmarkId::new(format!("{name}-without"), bytes), |b| {
                b.iter(|| black_box(&request).accepted_by(verifier));
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .without_plots();
    targets = families
}
criterion_main!(benches);
