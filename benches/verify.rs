//! What it costs to judge a request and to name its event, for each preset.
//!
//! `ring` is the floor: the bare MAC over a body of the same length. `junk` has a well-formed
//! signature that is wrong, `headless` lacks the signature header. Run with
//! `cargo bench --bench verify`; a name as an argument runs only what it matches.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use forebay::identify::Rules;
use forebay::verify::{
    KeyEncoding, NamedSecret, Profile, SecretText, Settings, SignInput, Verifier, preset, sign,
};
use http::{HeaderMap, HeaderValue};
use ring::hmac;

const NOW_NS: u64 = 1_700_000_000_000_000_000;
const SIZES: [usize; 2] = [1024, 16 * 1024];

/// One preset for each kind of scheme and of identity; the others differ in names alone.
const MEASURED: [&str; 6] = ["livekit", "twitch", "zoom", "standard-webhooks", "stripe", "github"];

fn measured() -> impl Iterator<Item = &'static Profile> {
    MEASURED.iter().map(|name| preset(name).expect("a preset"))
}

/// A JSON body of about this length, with what the presets look for first and last.
fn body(bytes: usize) -> Vec<u8> {
    let open =
        r#"{"id":"evt_1MqqbKLt4dXK03v5","event":"room_started","created":1700000000,"data":["#;
    let close = r#"],"type":"video.live_stream.active","team_id":"T123","event_ts":1700000000123}"#;
    let item = r#"{"kind":"participant","name":"someone","at":1700000000,"live":true},"#;
    let count = (bytes - open.len() - close.len()) / item.len();
    let items = item.repeat(count);
    format!("{open}{}{close}", items.trim_end_matches(',')).into_bytes()
}

fn secret(profile: &Profile) -> NamedSecret {
    let value = match profile.scheme.key_encoding {
        KeyEncoding::Whsec => "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        _ => "a-secret-of-thirty-two-characters",
    };
    let key_id = profile.scheme.jwt.is_some().then(|| "APIkey".to_owned());
    NamedSecret { name: "current".into(), value: SecretText::new(value), key_id }
}

fn signed(profile: &Profile, body: &[u8]) -> HeaderMap {
    let input =
        SignInput { id: "evt_1", now_ns: NOW_NS, event_type: "room_started", target: "/", body };
    sign(profile, secret(profile), &input).expect("presets sign").into_iter().collect()
}

fn judge(verifier: &Verifier, headers: &HeaderMap, body: &[u8]) -> bool {
    match verifier.claim(&headers.into(), NOW_NS) {
        Ok(claim) => verifier.check(&claim, body).is_ok(),
        Err(_) => false,
    }
}

/// Changes a digit in the middle of the signature, so that it can be read and is wrong.
fn spoil(profile: &Profile, headers: &mut HeaderMap) {
    let value = headers.get_mut(&profile.scheme.header).expect("signed");
    let mut bytes = value.as_bytes().to_vec();
    let at = bytes.len() - 20;
    bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
    *value = HeaderValue::from_bytes(&bytes).expect("a value");
}

fn verify(c: &mut Criterion) {
    let mut group = c.benchmark_group("verify");
    for bytes in SIZES {
        let body = body(bytes);
        group.throughput(Throughput::Bytes(body.len() as u64));
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"a-secret-of-thirty-two-characters");
        let tag = hmac::sign(&key, &body);
        group.bench_function(BenchmarkId::new("ring", bytes), |b| {
            b.iter(|| hmac::verify(&key, black_box(&body), tag.as_ref()));
        });
        for profile in measured() {
            let verifier =
                Verifier::new(&profile.scheme, vec![secret(profile)], &Settings::default());
            let verifier = verifier.expect("presets compile");
            let mut headers = signed(profile, &body);
            assert!(judge(&verifier, &headers, &body));
            group.bench_function(BenchmarkId::new(&profile.name, bytes), |b| {
                b.iter(|| judge(&verifier, black_box(&headers), black_box(&body)));
            });
            if bytes != SIZES[0] {
                continue;
            }
            spoil(profile, &mut headers);
            assert!(!judge(&verifier, &headers, &body));
            group.bench_function(BenchmarkId::new(format!("{}-junk", profile.name), bytes), |b| {
                b.iter(|| judge(&verifier, black_box(&headers), black_box(&body)));
            });
            headers.remove(&profile.scheme.header);
            let name = format!("{}-headless", profile.name);
            group.bench_function(BenchmarkId::new(name, bytes), |b| {
                b.iter(|| judge(&verifier, black_box(&headers), black_box(&body)));
            });
        }
    }
    group.finish();
}

fn identify(c: &mut Criterion) {
    let mut group = c.benchmark_group("identify");
    let body = body(SIZES[0]);
    for profile in measured() {
        let rules = Rules::new(&profile.identity, &profile.scheme).expect("presets compile");
        let headers = signed(profile, &body);
        group.bench_function(BenchmarkId::new(&profile.name, SIZES[0]), |b| {
            b.iter(|| rules.extract(black_box(&headers), black_box(&body)).event_id.is_some());
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(900))
        .without_plots();
    targets = verify, identify
}
criterion_main!(benches);
