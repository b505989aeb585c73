//! Purged payloads are nowhere any more, their keys are known for ever, and nobody else is harmed:
//! not a reader that is there already, not the writer, not a record beside them.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use forebay_log::{
    AckLevel, Appender, Kind, Lane, NewRecord, Purger, Reader, Severity, Skipped, verify,
};

use crate::support::{copy_of, key, open, options, wait_acked, wait_for};

const MARKER: &[u8] = b"canary-of-somebody";
const RECORDS: u64 = 400;

/// Every third record is of the one who wants to be forgotten.
fn goes(number: u64) -> bool {
    number.is_multiple_of(3)
}

fn body(number: u64) -> Vec<u8> {
    let whose = if goes(number) { MARKER } else { b"somebody else" };
    [&number.to_le_bytes(), whose, &[b'.'; 700]].concat()
}

fn append(appends: &mut Appender, number: u64) -> u64 {
    let body = body(number);
    let meta = if goes(number) { MARKER } else { b"" };
    let record =
        NewRecord { kind: Kind::Event, key: key(number), received_ns: number, meta, body: &body };
    loop {
        match appends.append(&record) {
            Ok(appended) => return appended.end,
            Err(forebay_log::AppendError::Full) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Appends all records and waits until a purge can see them.
fn append_all(lane: &Lane) {
    let mut appends = lane.appender();
    let end = (0..RECORDS).map(|number| append(&mut appends, number)).max();
    let end = end.expect("some");
    wait_acked(lane, end);
    // The marks tell it a moment later. A reader of a written lane would go on without them.
    let acked_at = 64;
    let marks = fs::File::open(lane.dir().join("marks")).expect("marks");
    let mut acked = [0; 8];
    wait_for("the marks", || {
        marks.read_exact_at(&mut acked, acked_at).expect("a word");
        u64::from_le_bytes(acked) >= end
    });
}

/// The files of a folder that hold the marker somewhere.
fn with_marker(dir: &Path) -> Vec<String> {
    let holds = |path: PathBuf| -> std::io::Result<Option<String>> {
        let bytes = if path.is_dir() { Vec::new() } else { fs::read(&path)? };
        let found = bytes.windows(MARKER.len()).any(|window| window == MARKER);
        Ok(found.then(|| path.display().to_string()))
    };
    loop {
        let files = fs::read_dir(dir).expect("a lane").map(|entry| entry.expect("an entry").path());
        match files.map(holds).collect::<Result<Vec<_>, _>>() {
            Ok(found) => return found.into_iter().flatten().collect(),
            // A running writer has given a file its name since the folder was listed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn purge(dir: &Path) -> forebay_log::Erased {
    let mut purger = Purger::open(dir).expect("the right to purge");
    let of_marker = |found: &forebay_log::Candidate<'_>| {
        found.meta.is_some_and(|meta| meta.as_bytes() == MARKER)
    };
    let looked = purger.look(of_marker).expect("readable");
    let erased = purger.erase(of_marker).expect("erased");
    assert_eq!((looked.records, looked.bytes), (erased.records, erased.bytes));
    erased
}

fn numbers(reader: &mut Reader) -> Vec<u64> {
    let mut numbers = Vec::new();
    while let Some(record) = reader.next().expect("readable") {
        let number = u64::from_le_bytes(record.body()[..8].try_into().expect("eight bytes"));
        assert_eq!(record.body(), body(number));
        numbers.push(number);
    }
    numbers
}

fn check_purged(dir: &Path) {
    assert_eq!(with_marker(dir), Vec::<String>::new());
    let mut reader = Reader::open(dir).expect("a reader");
    assert_eq!(numbers(&mut reader), (0..RECORDS).filter(|n| !goes(*n)).collect::<Vec<_>>());
    let purged = (0..RECORDS).filter(|number| goes(*number)).count() as u64;
    assert_eq!(reader.skipped(), Skipped { purged, ..Skipped::default() });
}

fn keys_of(lane: &Lane) -> Vec<forebay_log::Key> {
    let mut keys = Vec::new();
    lane.recovered_keys(0, |found| keys.push(found.key)).expect("readable");
    keys
}

#[test]
fn beside_a_running_writer_the_payloads_are_gone_and_the_keys_stay_over_a_restart() {
    for ack in [AckLevel::Written, AckLevel::Synced] {
        let dir = tempfile::tempdir().expect("a directory");
        let lane = open(dir.path(), ack);
        append_all(&lane);
        assert!(with_marker(dir.path()).len() > 2, "the search finds what is there");
        // One that is in the first segment reads all of it as it was.
        let mut early = Reader::open(dir.path()).expect("a reader");
        let first = early.next().expect("readable").expect("a record");
        assert_eq!(first.body(), body(0));

        let erased = purge(dir.path());
        assert_eq!(erased.records, RECORDS.div_ceil(3));
        assert!(erased.segments > 2 && erased.unreadable == 0, "{erased:?}");
        check_purged(dir.path());
        for number in 1..4 {
            let held = early.next().expect("readable").expect("a record");
            assert_eq!(held.body(), body(number), "what a reader has mapped does not change");
        }

        // The writer goes on, and so does a second purge, which finds nothing to do.
        let mut appends = lane.appender();
        wait_acked(&lane, append(&mut appends, RECORDS + 1));
        let again = purge(dir.path());
        assert_eq!((again.records, again.purged_before), (0, erased.records));
        lane.close();
        let sound = verify(dir.path(), &mut |_, _| ()).expect("readable");
        assert_eq!((sound.worst, sound.purged), (None, erased.records), "{:?}", sound.findings);
        let lane = open(dir.path(), ack);
        assert_eq!(keys_of(&lane), (0..RECORDS).chain([RECORDS + 1]).map(key).collect::<Vec<_>>());
    }
}

#[test]
fn without_a_writer_the_purge_seals_and_the_next_start_finds_everything() {
    let dir = tempfile::tempdir().expect("a directory");
    let lane = open(dir.path(), AckLevel::Written);
    append_all(&lane);
    let crashed = copy_of(dir.path());
    drop(lane);
    purge(crashed.path());
    check_purged(crashed.path());
    let lane = open(crashed.path(), AckLevel::Written);
    assert_eq!(keys_of(&lane), (0..RECORDS).map(key).collect::<Vec<_>>());
    assert!(Purger::open(crashed.path()).is_ok(), "the lock was given back");
}

#[test]
fn a_purge_that_was_broken_off_leaves_a_lane_that_opens_and_can_be_run_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let lane = open(dir.path(), AckLevel::Written);
    append_all(&lane);
    lane.close();
    let before = copy_of(dir.path());
    purge(dir.path());
    let segments: Vec<_> = fs::read_dir(dir.path())
        .expect("a lane")
        .map(|entry| entry.expect("an entry").file_name())
        .filter(|name| name.to_string_lossy().ends_with(".seg"))
        .collect();
    for (done, name) in segments.iter().enumerate() {
        for state in ["a copy torn", "a copy whole", "exchanged", "removed"] {
            // Some segments are purged; this one is in the state of a crash.
            let crashed = copy_of(before.path());
            for name in &segments[..done] {
                fs::copy(dir.path().join(name), crashed.path().join(name)).expect("copied");
            }
            let (old, new) = (before.path().join(name), dir.path().join(name));
            let copy = crashed.path().join(name).with_extension("purge");
            let place = crashed.path().join(name);
            match state {
                "a copy torn" => fs::write(&copy, MARKER).expect("written"),
                "a copy whole" => drop(fs::copy(&new, &copy).expect("copied")),
                "exchanged" => {
                    fs::copy(&new, &place).expect("copied");
                    fs::copy(&old, &copy).expect("copied");
                    assert!(with_marker(crashed.path()).contains(&copy.display().to_string()));
                    let found = verify(crashed.path(), &mut |_, _| ()).expect("readable");
                    assert_eq!(found.worst, Some(Severity::Damage), "it is not over");
                }
                _ => drop(fs::copy(&new, &place).expect("copied")),
            }
            let (lane, recovery) =
                Lane::open(crashed.path(), options(AckLevel::Written)).expect("it opens");
            assert_eq!((recovery.records, recovery.damaged), (RECORDS, 0), "{state}");
            assert_eq!(keys_of(&lane).len() as u64, RECORDS);
            assert!(!copy.exists(), "a start removes what a purge left");
            drop(lane);
            purge(crashed.path());
            check_purged(crashed.path());
        }
    }
}

#[test]
fn records_that_come_in_during_a_purge_are_neither_lost_nor_harmed() {
    let dir = tempfile::tempdir().expect("a directory");
    let lane = open(dir.path(), AckLevel::Synced);
    append_all(&lane);
    let stop = AtomicBool::new(false);
    let count = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut appends = lane.appender();
            let mut number = RECORDS + 1;
            while !stop.load(Ordering::Relaxed) {
                // Those of nobody: `goes` would choose every third.
                if !goes(number) {
                    wait_acked(&lane, append(&mut appends, number));
                }
                number += 1;
            }
            number
        });
        for _ in 0..3 {
            purge(dir.path());
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("no panic")
    });
    lane.close();
    let mut reader = Reader::open(dir.path()).expect("a reader");
    let expected = (0..count).filter(|number| !goes(*number) && *number != RECORDS);
    // RECORDS itself was never appended.
    let expected: Vec<_> = expected.collect();
    assert_eq!(numbers(&mut reader), expected);
    assert_eq!(with_marker(dir.path()), Vec::<String>::new());
}

#[test]
fn a_purge_takes_the_file_that_the_writer_has_put_in_the_place_of_a_segment_meanwhile() {
    let dir = tempfile::tempdir().expect("a directory");
    let lane = open(dir.path(), AckLevel::Synced);
    append_all(&lane);
    lane.close();
    let path = dir.path().join("0000000000000000.seg");
    let mut replaced = false;
    let mut purger = Purger::open(dir.path()).expect("the right to purge");
    let erased = purger.erase(|found| {
        if !replaced {
            replaced = true;
            // As after a failed sync: a file with all records, and an old one that has lost some.
            let fresh = dir.path().join("fresh");
            fs::copy(&path, &fresh).expect("copied");
            let old = fs::OpenOptions::new().write(true).open(&path).expect("a segment");
            old.write_all_at(&[0; 8 * 1024], 8 * 1024).expect("lost");
            fs::rename(&fresh, &path).expect("replaced");
        }
        found.meta.is_some_and(|meta| meta.as_bytes() == MARKER)
    });
    assert_eq!(erased.expect("erased").records, RECORDS.div_ceil(3));
    check_purged(dir.path());
}

#[test]
fn a_second_purge_at_the_same_time_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let lane = open(dir.path(), AckLevel::Written);
    append_all(&lane);
    let mut first = Purger::open(dir.path()).expect("the right to purge");
    let second = Purger::open(dir.path()).expect_err("refused");
    assert!(second.to_string().contains("another purge"), "{second}");
    first.note("{\"records\":0}").expect("noted");
    drop(first);
    assert_eq!(fs::read_to_string(dir.path().join("purges")).expect("text"), "{\"records\":0}\n");
    assert!(Purger::open(dir.path()).is_ok());
}
