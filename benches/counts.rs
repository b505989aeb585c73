//! Instructions and allocations that one request costs in user space, stage by stage, held to
//! recorded counts.
//!
//! `cargo bench --bench counts` holds them to `counts.txt`. It runs itself under callgrind, which
//! counts exactly, and alike on a loaded machine. Only what runs inside of [`measured`] on its own thread is counted: no keeper,
//! no start. A stage that takes more than [`MARGIN_PERCENT`] above its record fails, and so does
//! one that takes as much less, so that a gain is written down. As a control every stage also runs
//! with a loop of a tenth of its record planted behind it, which must be caught.
//!
//! What SHA-256 itself takes is left out: callgrind does not know the instructions that processors
//! have for it. The counts hold for `x86_64` with AVX2 and the compiler that made them, and what the
//! kernel does is not in them.

#[path = "support/memory.rs"]
mod memory;

use std::collections::{HashMap, VecDeque};
use std::hint::black_box;
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use forebay::dedupe::{Fingerprinter, Options, Outcome, Table};
use forebay::identify::Rules;
use forebay::receive::Connections;
use forebay::verify::{NamedSecret, SecretText, Settings, Verifier, preset};
use forebay_log::{Clock, Key, Kind, Lane, LaneOptions, NewRecord};
use http::HeaderMap;

use memory::{Bare, PRESET, SECRET, body, opened, requests, serve, serve_hyper, signed};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is counted, and what it came to: on each line a stage, the instructions and the allocations
/// of one request.
const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/counts.txt");
const MARGIN_PERCENT: u64 = 5;
/// The compression function, which callgrind runs without the instructions made for it.
const SHA256: &str = "sha256_block_data_order";
/// What of mimalloc the allocator calls, by the start of the name.
const ALLOCATORS: [&str; 3] = ["mi_malloc", "mi_zalloc", "mi_realloc"];
/// In the place of a planted loop: everything is set up, and half of it is done.
const HALF: &str = "half";
const WARM: u64 = 256;
const COUNTED: u64 = 1024;

fn main() -> ExitCode {
    let mut words = std::env::args().skip_while(|word| word != "--stage").skip(1);
    if let (Some(stage), Some(planted)) = (words.next(), words.next()) {
        run(&stage, planted.parse().ok());
        return ExitCode::SUCCESS;
    }
    if !std::env::args().any(|word| word == "--bench") {
        // As a test, without callgrind: every stage once through.
        for (stage, _) in recorded() {
            run(&stage, Some(0));
        }
        return ExitCode::SUCCESS;
    }
    let mut code = ExitCode::SUCCESS;
    for (stage, [instructions, allocations]) in recorded() {
        let stage = stage.as_str();
        let (found, half) = (count(stage, "0"), count(stage, HALF));
        let planted = count(stage, &(instructions / 30).to_string());
        let caught = above(planted.instructions, instructions);
        let allocated = 2 * found.allocations.saturating_sub(half.allocations);
        let allocated = (allocated + COUNTED / 2) / COUNTED;
        let holds = !above(found.instructions, instructions)
            && !above(instructions, found.instructions)
            && allocated == allocations;
        let told = format!(
            "{stage:<9} {:>6} instructions ({instructions}), {allocated:>2} allocations \
             ({allocations}){}{}",
            found.instructions,
            if holds { "" } else { "   NOT AS RECORDED" },
            if caught { "" } else { "   THE PLANTED LOOP WAS NOT CAUGHT" },
        );
        writeln!(io::stdout(), "{told}").expect("standard output takes it");
        if !holds || !caught {
            code = ExitCode::FAILURE;
        }
    }
    code
}

/// The stages and what was recorded of them.
fn recorded() -> Vec<(String, [u64; 2])> {
    let text = std::fs::read_to_string(RECORD).expect("the record lies beside this file");
    let stage = |line: &str| {
        let mut words = line.split_whitespace();
        let stage = words.next().expect("a stage").to_owned();
        (stage, [(); 2].map(|()| words.next().expect("two counts").parse().expect("a number")))
    };
    text.lines().map(stage).collect()
}

/// Whether a count lies above another by more than the margin.
fn above(found: u64, recorded: u64) -> bool {
    found * 100 > recorded * (100 + MARGIN_PERCENT)
}

/// What one run took.
struct Count {
    /// Of one request.
    instructions: u64,
    /// Of all of it, the setting up included: callgrind counts calls everywhere.
    allocations: u64,
}

/// Runs one stage under callgrind.
fn count(stage: &str, planted: &str) -> Count {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("out");
    let status = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind", "--toggle-collect=counts::measured*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().expect("its own path"))
        .args(["--stage", stage, planted])
        .status()
        .expect("valgrind runs; install it, or run tests/run counts");
    assert!(status.success(), "{stage} failed under callgrind");
    read(&out)
}

/// Adds up what callgrind wrote, function by function: see "Callgrind Format Specification" in
/// valgrind's manual.
fn read(out: &Path) -> Count {
    let text = std::fs::read_to_string(out).expect("callgrind wrote its counts");
    let (mut instructions, mut allocations) = (0, 0);
    // A name stands behind its number only where that comes first.
    let mut names = HashMap::new();
    let (mut within, mut called, mut inclusive) = ("", "", false);
    for line in text.lines() {
        if let Some(named) = line.strip_prefix("fn=").or(line.strip_prefix("cfn=")) {
            let (number, name) = named.split_once(' ').unwrap_or((named, ""));
            let name = *names.entry(number).or_insert(name);
            if line.starts_with('c') { called = name } else { within = name }
        } else if let Some(calls) = line.strip_prefix("calls=") {
            let calls = calls.split(' ').next().expect("the first field");
            if ALLOCATORS.iter().any(|allocator| called.starts_with(allocator)) {
                allocations += calls.parse::<u64>().expect("a number");
            }
            inclusive = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            // The line behind a call is what the callee took, which has lines of its own.
            if !std::mem::take(&mut inclusive) && !within.contains(SHA256) {
                let cost = line.split(' ').nth(1).expect("a place, then its cost");
                instructions += cost.parse::<u64>().expect("a number");
            }
        }
    }
    Count { instructions: instructions / COUNTED, allocations }
}

/// What callgrind counts: `work` on [`COUNTED`] requests, by their numbers, and what is planted behind
/// it; or on half of them.
#[inline(never)]
fn measured(planted: Option<u64>, mut work: impl FnMut(Range<u64>)) {
    work(0..COUNTED / 2);
    let Some(planted) = planted else { return };
    work(COUNTED / 2..COUNTED);
    for turn in 0..planted * COUNTED {
        black_box(turn);
    }
}

/// Runs a stage often enough that it is warm, then as often as is counted.
fn repeat(planted: Option<u64>, mut each: impl FnMut(u64)) {
    (0..WARM).for_each(&mut each);
    measured(planted, |numbers| numbers.for_each(|number| each(WARM + number)));
}

fn run(stage: &str, planted: Option<u64>) {
    match stage {
        "parse" => parse(planted, |connections, wire| serve(&Bare, connections, wire)),
        "hyper" => parse(planted, serve_hyper),
        "verify" => verify(planted),
        "identify" => identify(planted),
        "dedupe" => dedupe(planted),
        "append" => append(planted),
        "line" => line(planted),
        other => panic!("there is no stage {other}"),
    }
}

fn parse(planted: Option<u64>, serve: impl Fn(&Rc<Connections>, VecDeque<Bytes>)) {
    let dir = folder();
    let opened = opened(dir.path());
    let connections = Connections::new(opened.deadlines(), Clock::System.monotonic());
    let mut next = 0;
    serve(&connections, requests(&mut next, WARM));
    let mut wire = requests(&mut next, COUNTED);
    measured(planted, |numbers| serve(&connections, taken(&mut wire, &numbers)));
}

fn request() -> (HeaderMap, String) {
    let body = body(1);
    (signed(1, &body).into_iter().collect(), body)
}

fn verify(planted: Option<u64>) {
    let profile = preset(PRESET).expect("a preset");
    let secret = NamedSecret { name: "a".to_owned(), value: SecretText::new(SECRET), key_id: None };
    let verifier = Verifier::new(&profile.scheme, vec![secret], &Settings::default());
    let verifier = verifier.expect("presets compile");
    let (headers, body) = request();
    let now_ns = Clock::System.wall_ns();
    repeat(planted, |_| {
        let claim = verifier.claim(&black_box(&headers).into(), now_ns).expect("it is signed");
        black_box(verifier.check(&claim, black_box(body.as_bytes())).expect("it is right"));
    });
}

fn identify(planted: Option<u64>) {
    let profile = preset(PRESET).expect("a preset");
    let rules = Rules::new(&profile.identity, &profile.scheme).expect("presets compile");
    let (headers, body) = request();
    repeat(planted, |_| {
        black_box(rules.extract(black_box(&headers), black_box(body.as_bytes())));
    });
}

fn dedupe(planted: Option<u64>) {
    let options = Options { capacity: 1 << 20, window: Duration::from_secs(3600) };
    let table = Table::new(options, 0);
    let fingerprinter = Fingerprinter::new(b"0123456789abcdef");
    repeat(planted, |number| {
        let id = number.to_le_bytes();
        let parts = [&[1][..], b"00000000-0000-0000-0000", &id];
        let key = fingerprinter.fingerprint(black_box("bench"), None, parts);
        let Outcome::Reserved(reservation) = table.reserve(key, 0) else { panic!("it is new") };
        reservation.appended(number);
    });
}

fn append(planted: Option<u64>) {
    let dir = folder();
    let options = LaneOptions { disk_reserve_bytes: Some(0), ..LaneOptions::default() };
    let (lane, _) = Lane::open(dir.path(), options).expect("a lane");
    let mut appender = lane.appender();
    let (meta, body) = ([7; 320], [9; 1024]);
    let key = Key([1; 16]);
    let record = NewRecord { kind: Kind::Event, key, received_ns: 1, meta: &meta, body: &body };
    repeat(planted, |_| {
        appender.append(black_box(&record)).expect("the first segment holds them all");
    });
}

fn line(planted: Option<u64>) {
    let dir = folder();
    let opened = opened(dir.path());
    let line = opened.line(0);
    let connections = Connections::new(opened.deadlines(), Clock::System.monotonic());
    let mut next = 0;
    serve(&line, &connections, requests(&mut next, WARM));
    let mut wire = requests(&mut next, COUNTED);
    measured(planted, |numbers| serve(&line, &connections, taken(&mut wire, &numbers)));
}

/// The first of what is left, as many as there are numbers.
fn taken(wire: &mut VecDeque<Bytes>, numbers: &Range<u64>) -> VecDeque<Bytes> {
    let count = usize::try_from(numbers.end - numbers.start).expect("few");
    let rest = wire.split_off(count);
    std::mem::replace(wire, rest)
}

/// Beside the build, not in /tmp: that may be memory, and a lane wants a file system.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}
