//! What it costs to judge a request of each family, by the schemes of `tests/keys/families.toml`.
//!
//! Each at 1 KiB and 16 KiB, and at 1 KiB also `junk`, whose signature can be read and is wrong,
//! and `without`, which has none. Run with `cargo bench --bench families`; a name as an argument
//! runs only what it matches.
//!
//! `cargo bench --bench families -- ratios` measures the three of each family in turn, in short
//! batches, and compares the least of each, which other work on the machine hardly touches. It
//! ends with 1 where a wrong signature costs more than a right one or a missing one a tenth of it.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use forebay::reject::Reject;
use forebay::verify::{
    DigestOf, Format, Head, NamedSecret, Profile, SchemeSpec, SecretIndex, SecretText, Settings,
    SignInput, SignedRequest, Signer, Verifier,
};
use forebay_log::Clock;
use http::HeaderMap;

use self::spoil::{Carrier, Target};
use self::support::{Case, NOW};

#[path = "support/families.rs"]
mod support;
#[path = "support/spoil.rs"]
mod spoil;

const SIZES: [usize; 2] = [1024, 16 * 1024];
/// How often the requests of a family are measured in turn, and how long one batch takes at least.
const ROUNDS: usize = 400;
const BATCH: Duration = Duration::from_micros(20);
/// What a wrong and a missing signature may cost of a right one; a twentieth is the clock's.
const JUNK_MAX: f64 = 1.05;
const WITHOUT_MAX: f64 = 0.1;

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

/// The request with a wrong signature, and with none.
fn refused(case: &Case) -> Option<[Request; 2]> {
    // In a message of SNS the signature stands in a place of its own.
    let target = Target::of(case).filter(|_| case.family.scheme.format != Format::Sns);
    let mut target = target?;
    let (mut junk, mut without) = (Request::of(case), Request::of(case));
    target.spoil(false, 7);
    target.put(&mut junk.headers, &mut junk.target, &mut junk.body);
    match &target.carrier {
        Carrier::Header(name) => {
            without.headers.remove(name);
        }
        Carrier::Query => without.target.truncate(1),
        Carrier::Body => without.body = b"{}".to_vec(),
    }
    for request in [&junk, &without] {
        assert!(!request.accepted_by(&case.verifier), "{}", case.family.name);
    }
    Some([junk, without])
}

fn families(c: &mut Criterion) {
    let mut group = c.benchmark_group("families");
    for bytes in SIZES {
        for family in support::families() {
            let case = Case::with_body(family, bytes);
            let name = &case.family.name;
            let verifier = &case.verifier;
            let request = Request::of(&case);
            group.throughput(Throughput::Bytes(request.body.len() as u64));
            assert_eq!(case.judged_by(verifier), Ok(0), "{name}");
            group.bench_function(BenchmarkId::new(name, bytes), |b| {
                b.iter(|| black_box(&request).accepted_by(verifier));
            });
            let refused = if bytes == SIZES[0] { refused(&case) } else { None };
            for (kind, request) in ["junk", "without"].into_iter().zip(refused.iter().flatten()) {
                group.bench_function(BenchmarkId::new(format!("{name}-{kind}"), bytes), |b| {
                    b.iter(|| black_box(request).accepted_by(verifier));
                });
            }
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

/// The least and the median of one judgement of each request, in nanoseconds.
fn measure(verifier: &Verifier, requests: [&Request; 3]) -> [[f64; 2]; 3] {
    let batch = |request: &Request, count: u32| {
        let begun = Clock::System.monotonic();
        for _ in 0..count {
            black_box(black_box(request).accepted_by(verifier));
        }
        Clock::System.monotonic().saturating_duration_since(begun)
    };
    let counts = requests.map(|request| {
        let enough = |count: &u32| batch(request, *count) >= BATCH;
        (0..16).map(|power| 1 << power).find(enough).unwrap_or(1 << 16)
    });
    let mut each = requests.map(|_| Vec::with_capacity(ROUNDS));
    for _ in 0..ROUNDS {
        for ((request, count), each) in requests.iter().zip(counts).zip(&mut each) {
            each.push(batch(request, count).as_secs_f64() * 1e9 / f64::from(count));
        }
    }
    each.map(|mut each| {
        each.sort_by(f64::total_cmp);
        [each[0], each[ROUNDS / 2]]
    })
}

/// The table of ratios; whether all of them are as they should be.
#[expect(clippy::print_stdout, reason = "a table for whoever runs it")]
fn ratios() -> bool {
    println!("| family | body | valid, ns (median) | junk / valid | without / valid |");
    println!("|---|---|---|---|---|");
    let mut good = true;
    for bytes in SIZES {
        for family in support::families() {
            let case = Case::with_body(family, bytes);
            let Some([junk, without]) = refused(&case) else { continue };
            let valid = Request::of(&case);
            let [valid, junk, without] = measure(&case.verifier, [&valid, &junk, &without]);
            let [junk, without] = [junk, without].map(|[least, _]| least / valid[0]);
            let bad = junk > JUNK_MAX || without > WITHOUT_MAX;
            good &= !bad;
            let (name, sign) = (&case.family.name, if bad { " (!)" } else { "" });
            let [least, median] = valid;
            println!(
                "| {name} | {} | {least:.0} ({median:.0}) | {junk:.2} | {without:.3}{sign} |",
                case.request.body.len()
            );
        }
    }
    good
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "ratios") {
        return if ratios() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
    ExitCode::SUCCESS
}
