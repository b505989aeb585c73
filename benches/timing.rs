//! Whether the time of a verification says how much of a signature was guessed right.
//!
//! After dudect (Reparaz, Balasch, Verbauwhede 2017): requests of two classes are judged in random
//! order, those whose signature or token is wrong at its first character and those where it is
//! wrong near its last. Where a comparison ends at the first difference, the second class takes
//! longer; Welch's t over a million requests of each family says whether it does. The same
//! requests judged with a comparison that ends early are the negative control, and must be seen.
//!
//! On a shared machine single measurements are worth little, so the slowest tenth of both classes
//! together is cropped, the classes are interleaved and change places in memory, and a leak is only
//! what shows in each of three rounds in the same direction.
//!
//! Signatures of private keys are left out: what a receiver compares there is public.
//!
//! `cargo bench --bench timing` runs all families, a name as an argument those that it matches;
//! exit code 1 says that a family leaks or that the control went unseen. Without `--bench` it
//! only shows that it runs.

use std::hint::black_box;
use std::io::Write as _;
use std::process::ExitCode;

use forebay::reject::Reject;
use forebay::verify::{
    DigestOf, Format, Head, NamedSecret, Profile, SchemeSpec, SecretIndex, SecretText, Settings,
    SignInput, SignedRequest, Signer, Verifier,
};
use forebay_log::Clock;
use http::{HeaderMap, HeaderValue};
use ring::hmac;

use self::spoil::Target;
use self::support::{Case, NOW, SECRET};

#[path = "support/families.rs"]
mod support;
#[path = "support/spoil.rs"]
mod spoil;

/// Requests of one family in one round.
const REQUESTS: usize = 1_000_000;
/// Requests that are made before they are measured.
const BATCH: usize = 100;
/// Rounds, each of which must show a leak for it to be one.
const ROUNDS: usize = 3;
/// Below this, dudect calls an implementation constant in time.
const T_MAX: f64 = 4.5;
/// The share of measurements that is kept, the fastest.
const KEPT: (usize, usize) = (9, 10);

/// What judges: the verifier, or the negative control.
enum Judge<'c> {
    Verifier(&'c Verifier),
    /// A MAC in hexadecimal over the body, compared digit by digit until one differs.
    Early(hmac::Key),
}

impl Judge<'_> {
    fn accepts(&self, head: &Head<'_>, body: &[u8]) -> bool {
        match self {
            Self::Verifier(verifier) => {
                verifier.claim(head, NOW).and_then(|claim| verifier.check(&claim, body)).is_ok()
            }
            Self::Early(key) => {
                let tag = hmac::sign(key, body);
                let digit = |value: u8| b"0123456789abcdef"[usize::from(value & 15)];
                let right = tag.as_ref().iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]);
                let said = head.headers.get("x-signature").map(HeaderValue::as_bytes);
                said.is_some_and(|said| early_equal(said, right))
            }
        }
    }
}

#[inline(never)]
fn early_equal(said: &[u8], mut right: impl Iterator<Item = u8>) -> bool {
    said.iter().all(|said| black_box(right.next()) == Some(*said))
}

/// xorshift64*: which class comes next must not follow from the one before.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// A request and its class.
struct Slot {
    headers: HeaderMap,
    target: String,
    body: Vec<u8>,
    near: bool,
}

/// Nanoseconds of each request of the two classes: wrong at once, and wrong late.
fn measure(case: &Case, judge: &Judge<'_>, requests: usize, random: &mut Random) -> [Vec<u32>; 2] {
    let mut spoiled = Target::of(case).expect("the signature is found");
    let SignedRequest { target, body, .. } = &case.request;
    let slot = || Slot {
        headers: case.headers(),
        target: target.clone(),
        body: body.clone(),
        near: false,
    };
    let mut slots: Vec<Slot> = (0..BATCH).map(|_| slot()).collect();
    let mut times = [Vec::with_capacity(requests), Vec::with_capacity(requests)];
    for _ in 0..requests / BATCH {
        // All of a batch first: what a store leaves behind in the core must not be measured.
        for slot in &mut slots {
            let choice = random.next();
            slot.near = choice >> 63 == 1;
            let (at, right) = spoiled.spoil(slot.near, choice >> 20);
            spoiled.put(&mut slot.headers, &mut slot.target, &mut slot.body);
            spoiled.text[at] = right;
        }
        for slot in &slots {
            let head = Head { target: &slot.target, ..(&slot.headers).into() };
            let begun = Clock::System.monotonic();
            let accepted = judge.accepts(black_box(&head), black_box(&slot.body));
            let took = Clock::System.monotonic().saturating_duration_since(begun);
            assert!(!accepted, "a wrong signature was accepted");
            let nanoseconds = u32::try_from(took.as_nanos()).unwrap_or(u32::MAX);
            times[usize::from(slot.near)].push(nanoseconds);
        }
    }
    times
}

/// Welch's t of the two classes, of their fastest measurements together.
fn welch(times: &[Vec<u32>; 2]) -> f64 {
    let mut all: Vec<u32> = times.concat();
    let at = (all.len() * KEPT.0 / KEPT.1).min(all.len() - 1);
    let (_, bound, _) = all.select_nth_unstable(at);
    let bound = *bound;
    let [early, late] = [0, 1].map(|class: usize| {
        let kept =
            || times[class].iter().filter(|time| **time <= bound).map(|time| f64::from(*time));
        let count = f64::from(u32::try_from(kept().count()).unwrap_or(u32::MAX));
        let mean = kept().sum::<f64>() / count;
        let variance = kept().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    });
    (late.0 - early.0) / (early.1 + late.1).sqrt()
}

/// The t of each round, and whether all of them say the same.
fn leaks(case: &Case, judge: &Judge<'_>, requests: usize, random: &mut Random) -> (Vec<f64>, bool) {
    let mut rounds: Vec<f64> = Vec::new();
    for _ in 0..ROUNDS {
        let t = welch(&measure(case, judge, requests, random));
        rounds.push(t);
        if t.abs() < T_MAX {
            return (rounds, false);
        }
    }
    let (first, rest) = rounds.split_first().expect("there is a round");
    let leaks = rest.iter().all(|t| t.is_sign_positive() == first.is_sign_positive());
    (rounds, leaks)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let measured = arguments.iter().any(|argument| argument == "--bench");
    let requests = if measured { REQUESTS } else { 1_000 };
    let wanted: Vec<&String> = arguments.iter().filter(|text| !text.starts_with('-')).collect();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut out = std::io::stdout();
    let mut say = |name: &str, rounds: &[f64], verdict: &str| {
        let rounds: Vec<String> = rounds.iter().map(|t| format!("{t:8.2}")).collect();
        writeln!(out, "{name:20} t = {:28} {verdict}", rounds.join(" ")).expect("stdout takes it");
    };
    let mut failed = false;
    for family in support::families() {
        // In a token of which the body is a part nothing but the MAC is secret, as in the others.
        let public = family.public.is_some();
        let listed = wanted.is_empty() || wanted.iter().any(|name| family.name.contains(&***name));
        if public || !listed || family.scheme.format == Format::Sns {
            continue;
        }
        let case = Case::with_body(family, 0);
        assert_eq!(case.judged_by(&case.verifier), Ok(0), "{}", case.family.name);
        let judge = Judge::Verifier(&case.verifier);
        let (rounds, leaks) = leaks(&case, &judge, requests, &mut random);
        failed |= leaks && measured;
        say(&case.family.name, &rounds, if leaks { "LEAKS" } else { "constant" });
    }
    let control = support::families().into_iter().find(|family| family.name == "hmac-sha256");
    let case = Case::with_body(control.expect("the family of the control"), 0);
    let judge = Judge::Early(hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()));
    let (rounds, seen) = leaks(&case, &judge, requests, &mut random);
    failed |= !seen && measured;
    say("control", &rounds, if seen { "leaks, and is seen" } else { "UNSEEN" });
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
