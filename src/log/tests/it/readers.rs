//! Readers in processes of their own, beside a writer in a process of its own, both killed at any
//! moment: what a reader has seen below `acked` is whole, in order, and still there at the end.
//!
//! The processes are this test binary again, with a role. `LOG_READER_ROUNDS` sets how often
//! somebody is killed, `LOG_SEED` when, as an earlier run has printed it.
#![expect(clippy::print_stderr, reason = "seeds and figures go there")]

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use forebay_log::{AckLevel, Clock, Cursor, From, Key, Kind, Lane, LaneOptions, NewRecord, Reader};

use crate::support::{SMALL, append, number, options, wait_for};

/// Somebody is killed so often in one lane; then a new lane begins.
const ROUNDS_OF_A_LANE: u64 = 20;

/// What another process is to do.
struct Role {
    name: String,
    dir: PathBuf,
    ack: AckLevel,
    out: PathBuf,
}

impl Role {
    fn start(name: &str, dir: &Path, ack: AckLevel, out: &Path) -> Process {
        let child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "readers::a_process_of_its_own", "--ignored", "--nocapture"])
            .env("LOG_ROLE", name)
            .env("LOG_DIR", dir)
            .env("LOG_ACK", if ack == AckLevel::Synced { "synced" } else { "written" })
            .env("LOG_OUT", out)
            .stdout(Stdio::null())
            .spawn();
        Process(child.expect("a process"))
    }

    fn given() -> Self {
        let variable = |name| std::env::var_os(name).expect("set by the test that started this");
        Self {
            name: variable("LOG_ROLE").into_string().expect("text"),
            dir: variable("LOG_DIR").into(),
            ack: if variable("LOG_ACK") == "synced" { AckLevel::Synced } else { AckLevel::Written },
            out: variable("LOG_OUT").into(),
        }
    }
}

/// A process that does not outlive the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "a role in the tests of this file, which start it"]
fn a_process_of_its_own() {
    let role = Role::given();
    match role.name.as_str() {
        "write" => write(&role),
        "read" => read(&role),
        "sleep" => sleep(&role, true),
        "poll" => sleep(&role, false),
        name => panic!("there is no role {name}"),
    }
}

/// Two producers, each with the numbers of one remainder of 2, going on where the lane ends.
fn write(role: &Role) {
    let options = LaneOptions { segment_bytes: 2 * SMALL, ..options(role.ack) };
    let (lane, _) = Lane::open(&role.dir, options).expect("the lane opens");
    let mut next = [0, 1];
    let mut reader = lane.reader().expect("a reader");
    while let Some(record) = reader.next().expect("readable") {
        let number = number(record.body());
        next[usize::try_from(number % 2).expect("small")] = number + 2;
    }
    std::thread::scope(|scope| {
        for first in next {
            let mut appends = lane.appender();
            scope.spawn(move || {
                for number in (first..).step_by(2) {
                    append(&mut appends, number);
                    if number % 16 < 2 {
                        std::thread::sleep(Duration::from_micros(300));
                    }
                }
            });
        }
    });
}

/// Tells what it sees, a line each, and commits what it has told.
fn read(role: &Role) {
    let file = OpenOptions::new().create(true).append(true).open(&role.out).expect("a file");
    let mut out = BufWriter::new(file);
    let mut cursor = None;
    wait_for("the lane", || {
        cursor = Cursor::open(&role.dir, "reader").ok();
        cursor.is_some()
    });
    let mut cursor = cursor.expect("opened");
    let mut reader = Reader::open(&role.dir).expect("a reader");
    reader.resume(cursor.place()).expect("a place");
    writeln!(out, "start").expect("written");
    let mut uncommitted = 0;
    loop {
        if let Some(record) = reader.next().expect("readable") {
            writeln!(out, "{} {}", record.position(), number(record.body())).expect("written");
            uncommitted += 1;
            if uncommitted < 50 {
                continue;
            }
        }
        let skipped = reader.skipped();
        assert_eq!((skipped.damaged, skipped.segments), (0, 0), "the reader has missed something");
        uncommitted = 0;
        out.flush().expect("written");
        cursor.commit(reader.place()).expect("committed");
        reader.wait(Duration::from_millis(50)).expect("readable");
    }
}

/// A record as it was seen: place and number.
type Seen = (String, u64);

fn seen(line: &str) -> Option<Seen> {
    let (position, number) = line.split_once(' ')?;
    Some((position.to_owned(), number.parse().ok()?))
}

/// What each reader has told, in order. A line that its death has cut short does not count.
fn sessions(told: &str) -> Vec<Vec<Seen>> {
    let mut sessions: Vec<Vec<Seen>> = Vec::new();
    let whole = told.rfind('\n').map_or("", |end| &told[..end]);
    for line in whole.lines() {
        // A line may have the beginning of the next reader's first behind it.
        if line.ends_with("start") {
            sessions.push(Vec::new());
        } else if let (Some(session), Some(seen)) = (sessions.last_mut(), seen(line)) {
            session.push(seen);
        }
    }
    sessions
}

/// Holds what readers have seen against what the lane holds in the end.
fn judge(lane: &[Seen], sessions: &[Vec<Seen>]) -> Result<(), String> {
    for parity in 0..2 {
        let own = lane.iter().map(|(_, number)| *number).filter(|number| number % 2 == parity);
        if !own.eq((parity..).step_by(2).take(lane.iter().filter(|(_, n)| n % 2 == parity).count()))
        {
            return Err("the lane itself lacks a record, or has one twice".to_owned());
        }
    }
    let mut reached = 0;
    for session in sessions {
        let Some(first) = session.first() else { continue };
        let Some(start) = lane.iter().position(|known| known == first) else {
            return Err(format!("{first:?} was seen and is not there"));
        };
        if start > reached {
            return Err(format!("between {reached} and {start} nobody has seen anything"));
        }
        for (offset, one) in session.iter().enumerate() {
            if lane.get(start + offset) != Some(one) {
                return Err(format!("{one:?} was seen out of its order, or is not there"));
            }
        }
        reached = reached.max(start + session.len());
    }
    if reached == lane.len() { Ok(()) } else { Err(format!("nobody has seen {reached} and on")) }
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// One lane, in which writer and reader are killed so many times. Returns what it came to.
fn play(ack: AckLevel, rounds: u64, state: &mut u64) -> (Vec<Seen>, Vec<Vec<Seen>>) {
    let place = tempfile::tempdir().expect("a directory");
    let (dir, out) = (place.path().join("lane"), place.path().join("told"));
    fs::create_dir(&dir).expect("made");
    let mut writer = Role::start("write", &dir, ack, &out);
    let mut reader = Role::start("read", &dir, ack, &out);
    for _ in 0..rounds {
        std::thread::sleep(Duration::from_millis(20 + random(state) % 130));
        let (both, only) = (random(state).is_multiple_of(4), random(state).is_multiple_of(2));
        for (process, name) in [(&mut writer, "write"), (&mut reader, "read")] {
            assert!(process.0.try_wait().expect("known").is_none(), "to {name} ended by itself");
            if both || only == (name == "write") {
                process.0.kill().expect("killed");
                process.0.wait().expect("gone");
                *process = Role::start(name, &dir, ack, &out);
            }
        }
    }
    drop(writer);
    let options = LaneOptions { segment_bytes: 2 * SMALL, ..options(ack) };
    let (lane, recovery) = Lane::open(&dir, options).expect("it opens");
    assert_eq!(recovery.damaged, 0);
    let mut whole = lane.reader().expect("a reader");
    let mut records = Vec::new();
    while let Some(record) = whole.next().expect("readable") {
        records.push((record.position().to_string(), number(record.body())));
    }
    let end = format!("the reader to come to {:?} of {}", records.last(), dir.display());
    wait_for(&end, || {
        assert!(reader.0.try_wait().expect("known").is_none(), "the reader ended by itself");
        let told = fs::read_to_string(&out).unwrap_or_default();
        told.lines().rev().find_map(seen).as_ref() == records.last()
    });
    drop(reader);
    let told = fs::read_to_string(&out).expect("told");
    (records, sessions(&told))
}

#[test]
fn no_reader_sees_a_torn_a_reordered_or_a_vanished_record_while_both_sides_are_killed() {
    let variable = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = variable("LOG_SEED").unwrap_or_else(|| Clock::System.wall_ns() | 1);
    let rounds = variable("LOG_READER_ROUNDS").unwrap_or(8);
    eprintln!("readers: LOG_SEED={seed}, {rounds} kills for each ack level");
    let mut state = seed;
    for ack in [AckLevel::Written, AckLevel::Synced] {
        let (mut left, mut records) = (rounds, 0);
        while left > 0 {
            let of_lane = left.min(ROUNDS_OF_A_LANE);
            left -= of_lane;
            let (lane, sessions) = play(ack, of_lane, &mut state);
            assert_eq!(judge(&lane, &sessions), Ok(()), "{ack:?}, LOG_SEED={seed}");
            records += lane.len();
            refuses_planted_faults(&lane, &sessions);
        }
        eprintln!("readers: {ack:?}: {rounds} kills, {records} records, none torn, moved or gone");
    }
}

type Fault = fn(&mut Vec<Seen>);

/// The judge is worth its name only if it sees each fault.
fn refuses_planted_faults(lane: &[Seen], sessions: &[Vec<Seen>]) {
    let longest = sessions.iter().position(|session| {
        Some(session.len()) == sessions.iter().map(Vec::len).max() && session.len() > 2
    });
    let at = longest.expect("a reader has seen something");
    let faults: [(&str, Fault); 4] = [
        ("left out", |session| drop(session.remove(session.len() / 2))),
        ("swapped", |session| session.swap(0, 1)),
        ("another number", |session| session[1].1 += 2),
        ("not in the lane", |session| session.push(("9-64".to_owned(), 7))),
    ];
    for (what, fault) in faults {
        let mut wrong = sessions.to_vec();
        fault(&mut wrong[at]);
        assert!(judge(lane, &wrong).is_err(), "not noticed: {what}");
    }
    assert!(judge(&lane[..lane.len() - 1], sessions).is_err(), "not noticed: a vanished record");
}

#[test]
fn a_reader_that_cannot_be_woken_polls_and_finds_what_comes() {
    let dir = tempfile::tempdir().expect("a directory");
    // No marks are there to sleep on, until a writer has come.
    let mut reader = Reader::open(dir.path()).expect("a reader");
    assert!(!reader.wait(Duration::from_millis(10)).expect("readable"));
    std::thread::scope(|scope| {
        let waits = scope.spawn(move || {
            assert!(reader.wait(Duration::from_secs(60)).expect("readable"));
            number(reader.next().expect("readable").expect("a record").body())
        });
        std::thread::sleep(Duration::from_millis(30));
        let lane = crate::support::open(dir.path(), AckLevel::Synced);
        append(&mut lane.appender(), 5);
        assert_eq!(waits.join().expect("no panic"), 5);
    });
}

/// Tells, of each record, how many nanoseconds after its append it was read.
fn sleep(role: &Role, woken: bool) {
    let clock = Clock::System;
    let mut out = BufWriter::new(File::create(&role.out).expect("a file"));
    let mut reader = Reader::open(&role.dir).expect("a reader");
    reader.seek(From::Latest).expect("a place");
    fs::write(role.out.with_extension("ready"), b"").expect("written");
    loop {
        match reader.next().expect("readable") {
            Some(record) if record.body() == b"end" => return,
            Some(record) => {
                let late = clock.wall_ns().saturating_sub(record.received_ns());
                writeln!(out, "{late}").expect("written");
            }
            None if woken => drop(reader.wait(Duration::from_secs(1)).expect("readable")),
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

#[test]
#[ignore = "a measurement: tests/run wake"]
fn how_soon_a_reader_in_another_process_wakes() {
    let rounds = std::env::var("LOG_WAKES").ok().and_then(|text| text.parse().ok());
    for ack in [AckLevel::Written, AckLevel::Synced] {
        for role in ["sleep", "poll"] {
            let place = tempfile::tempdir().expect("a directory");
            let (dir, out) = (place.path().join("lane"), place.path().join("told"));
            let options = LaneOptions { segment_bytes: 64 * SMALL, ..options(ack) };
            let (lane, _) = Lane::open(&dir, options).expect("it opens");
            let mut child = Role::start(role, &dir, ack, &out);
            wait_for("the reader", || out.with_extension("ready").exists());
            let mut appends = lane.appender();
            let mut put = |body: &[u8]| {
                let received_ns = Clock::System.wall_ns();
                let (kind, key) = (Kind::Event, Key([1; 16]));
                let record = NewRecord { kind, key, received_ns, meta: b"", body };
                appends.append(&record).expect("appended");
            };
            for _ in 0..rounds.unwrap_or(1000) {
                std::thread::sleep(Duration::from_millis(5));
                put(b"now");
            }
            put(b"end");
            assert!(child.0.wait().expect("ended").success());
            let told = fs::read_to_string(&out).expect("told");
            let mut delays: Vec<u64> = told.lines().filter_map(|ns| ns.parse().ok()).collect();
            delays.sort_unstable();
            let of = |percent: usize| delays[(delays.len() * percent).div_ceil(100) - 1] / 1000;
            eprintln!(
                "wake: {ack:?}, {role}: {} appends, p50 {} us, p90 {} us, p99 {} us, max {} us",
                delays.len(),
                of(50),
                of(90),
                of(99),
                of(100)
            );
        }
    }
}
