//! Cursors outlive crashes, hold retention back within its bounds, and what is dropped in spite of
//! them is counted on both sides.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use forebay_log::{
    AckLevel, Cursor, CursorError, Lane, LaneOptions, Place, Reader, Retention, cursors,
    remove_cursor,
};
use rustix::fs::{CWD, Mode};

use crate::support::{SMALL, append, number, open, options, wait_acked, wait_for};

/// Reads up to `count` records, from where the cursor stands; commits each.
fn read(dir: &Path, cursor: &mut Cursor, count: usize) -> (Vec<u64>, Reader) {
    let mut reader = Reader::open(dir).expect("a reader");
    reader.resume(cursor.place()).expect("a place");
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let Some(record) = reader.next().expect("readable") else { break };
        numbers.push(number(record.body()));
        cursor.commit(record.place()).expect("committed");
    }
    (numbers, reader)
}

fn fill(lane: &Lane, from: u64, to: u64) {
    let mut appends = lane.appender();
    let end = (from..to).map(|number| append(&mut appends, number).end).max().expect("some");
    wait_acked(lane, end);
    let mut reader = lane.reader().expect("a reader");
    wait_for("the marks", || {
        reader.seek(forebay_log::From::Latest).expect("a place");
        reader.offset() >= end
    });
}

/// Everything is too old at once; the clock of the lane starts in 1970.
fn impatient(bytes: Option<u64>) -> LaneOptions {
    let age = Some(Duration::from_secs(1));
    LaneOptions { retention: Retention { age, bytes }, ..options(AckLevel::Written) }
}

#[test]
fn a_cursor_reads_on_where_it_stood_over_restarts_of_both_sides() {
    let dir = tempfile::tempdir().expect("a directory");
    assert!(matches!(Cursor::open(dir.path(), "a"), Err(CursorError::NoLane { .. })));
    let mut next = 0;
    for round in 0..4 {
        let lane = open(dir.path(), AckLevel::Synced);
        fill(&lane, round * 100, (round + 1) * 100);
        let mut cursor = Cursor::open(dir.path(), "a").expect("a cursor");
        assert_eq!(cursor.is_new(), round == 0);
        let (numbers, reader) = read(dir.path(), &mut cursor, 77);
        assert_eq!(numbers, (next..next + 77).collect::<Vec<_>>());
        assert_eq!(reader.skipped(), forebay_log::Skipped::default());
        next += 77;
    }
    let mut cursor = Cursor::open(dir.path(), "a").expect("a cursor");
    let (numbers, _) = read(dir.path(), &mut cursor, usize::MAX);
    assert_eq!(numbers, (next..400).collect::<Vec<_>>());
}

#[test]
fn retention_waits_for_the_slowest_cursor_and_goes_on_when_it_has_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let lane = Lane::open(dir.path(), impatient(None)).expect("a lane").0;
    let mut cursor = Cursor::open(dir.path(), "slow").expect("a cursor");
    fill(&lane, 0, 400);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(lane.stats().segments_retired, 0, "the cursor has read nothing");
    let (numbers, reader) = read(dir.path(), &mut cursor, usize::MAX);
    assert_eq!(numbers, (0..400).collect::<Vec<_>>());
    cursor.commit(reader.place()).expect("committed");
    wait_for("retention", || lane.stats().segments_retired > 4);
    assert_eq!((lane.stats().unread_segments, lane.unread_dropped()), (0, 0));
    // What is gone was read: nothing is missed by who reads on.
    fill(&lane, 400, 500);
    let (numbers, reader) = read(dir.path(), &mut cursor, usize::MAX);
    assert_eq!(numbers, (400..500).collect::<Vec<_>>());
    assert_eq!(reader.skipped().segments, 0);
    // A cursor that was removed keeps nothing.
    drop(Cursor::open(dir.path(), "other").expect("a cursor"));
    drop(cursor);
    for name in ["slow", "other"] {
        remove_cursor(dir.path(), name).expect("removed");
    }
    let retired = lane.stats().segments_retired;
    wait_for("retention", || lane.stats().segments_retired > retired);
}

#[test]
fn beyond_the_bound_on_size_unread_records_go_and_are_counted_on_both_sides() {
    let dir = tempfile::tempdir().expect("a directory");
    let lane = Lane::open(dir.path(), impatient(Some(6 * SMALL))).expect("a lane").0;
    fill(&lane, 0, 100);
    let mut cursor = Cursor::open(dir.path(), "slow").expect("a cursor");
    let (first, _) = read(dir.path(), &mut cursor, 1);
    fill(&lane, 100, 1500);
    wait_for("retention", || lane.stats().bytes <= 6 * SMALL);
    let stats = lane.stats();
    assert!(stats.unread_segments > 5 && stats.unread_records > 300, "{stats:?}");
    assert!(stats.bytes > 4 * SMALL, "no more than the bound asks for");
    let (numbers, reader) = read(dir.path(), &mut cursor, usize::MAX);
    assert_eq!(numbers.last(), Some(&1499));
    let missed = numbers[0] - first[0] - 1;
    assert!(missed > 300);
    assert!(reader.skipped().segments >= stats.unread_segments - 1, "{:?}", reader.skipped());
}

#[test]
fn beyond_the_bound_on_size_what_one_cursor_has_not_read_stays() {
    let dir = tempfile::tempdir().expect("a directory");
    let kept_for = Some("replica".to_owned());
    let options = LaneOptions { kept_for, ..impatient(Some(6 * SMALL)) };
    let lane = Lane::open(dir.path(), options).expect("a lane").0;
    fill(&lane, 0, 1000);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(lane.stats().segments_retired, 0, "it has not even begun");
    drop(Cursor::open(dir.path(), "other").expect("a cursor"));
    let mut cursor = Cursor::open(dir.path(), "replica").expect("a cursor");
    let (numbers, reader) = read(dir.path(), &mut cursor, 900);
    assert_eq!(numbers, (0..900).collect::<Vec<_>>());
    cursor.commit(reader.place()).expect("committed");
    wait_for("retention", || lane.stats().bytes <= 6 * SMALL || lane.stats().segments_retired > 30);
    fill(&lane, 1000, 2000);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(lane.stats().bytes > 12 * SMALL, "the bound is no reason to drop it");
    let (numbers, reader) = read(dir.path(), &mut cursor, usize::MAX);
    assert_eq!(numbers, (900..2000).collect::<Vec<_>>());
    assert_eq!(reader.skipped().segments, 0);
}

#[test]
fn a_torn_commit_leaves_the_one_before_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let lane = open(dir.path(), AckLevel::Written);
    fill(&lane, 0, 10);
    let mut cursor = Cursor::open(dir.path(), "a").expect("a cursor");
    read(dir.path(), &mut cursor, 3);
    let before = cursor.place();
    read(dir.path(), &mut cursor, 1);
    let after = cursor.place();
    drop(cursor);
    let path = dir.path().join("cursors/a");
    let whole = fs::read(&path).expect("a file");
    let file = OpenOptions::new().write(true).open(&path).expect("a file");
    let mut seen = Vec::new();
    for slot in [0, 4096] {
        for at in 0..128 {
            file.write_all_at(&[whole[slot + at] ^ 0x55], (slot + at) as u64).expect("written");
            seen.push(Cursor::open(dir.path(), "a").expect("one slot holds").place());
            file.write_all_at(&whole, 0).expect("written");
        }
    }
    seen.dedup();
    assert!(seen == [before, after] || seen == [after, before], "{seen:?}");
    // A first commit that was torn: there is no place to go on from, and that is told.
    file.set_len(50).expect("shorter");
    assert!(matches!(Cursor::open(dir.path(), "a"), Err(CursorError::Damaged { .. })));
}

#[test]
fn a_cursor_of_a_lane_that_never_began_begins_with_it_and_one_of_another_lane_is_refused() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let [first, other] = [&dirs[0], &dirs[1]].map(|dir| open(dir.path(), AckLevel::Written));
    fill(&first, 0, 10);
    // As of a writer that was killed before its first segment: the next one chose another id.
    let register = || Cursor::open(other.dir(), "a").expect("a cursor");
    let place = register().place();
    let moved = first.dir().join("cursors/a");
    fs::copy(other.dir().join("cursors/a"), &moved).expect("copied");
    assert_eq!(Cursor::open(first.dir(), "a").expect("begins anew").place(), place);
    assert_eq!(cursors(first.dir()).expect("listed").len(), 1);
    fill(&other, 0, 10);
    read(other.dir(), &mut register(), 5);
    fs::copy(other.dir().join("cursors/a"), &moved).expect("copied");
    assert!(matches!(Cursor::open(first.dir(), "a"), Err(CursorError::Damaged { .. })));
}

#[test]
fn names_twins_and_cursors_from_the_future_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let lane = open(dir.path(), AckLevel::Written);
    for name in ["", "A", "a/b", "..", "a b", &"x".repeat(65)] {
        assert!(matches!(Cursor::open(dir.path(), name), Err(CursorError::Name { .. })), "{name}");
    }
    let held = Cursor::open(dir.path(), "a").expect("a cursor");
    assert!(matches!(Cursor::open(dir.path(), "a"), Err(CursorError::InUse { .. })));
    assert!(matches!(remove_cursor(dir.path(), "a"), Err(CursorError::InUse { .. })));
    assert!(cursors(dir.path()).expect("listed")[0].in_use);
    drop(held);
    assert!(!cursors(dir.path()).expect("listed")[0].in_use);
    fill(&lane, 0, 600);
    read(dir.path(), &mut Cursor::open(dir.path(), "a").expect("a cursor"), usize::MAX);
    lane.close();
    // An old copy of the lane: the cursor knows of records that are not there any more.
    for facts in forebay_log::segments(dir.path()).expect("readable").into_iter().skip(1) {
        fs::remove_file(facts.path).expect("removed");
    }
    assert!(matches!(Cursor::open(dir.path(), "a"), Err(CursorError::Ahead { .. })));
}

#[test]
fn consumers_can_write_cursors_alone_and_rubbish_there_holds_nothing_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let lane = Lane::open(dir.path().join("lane"), impatient(None)).expect("a lane").0;
    let dir = dir.path().join("lane");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o7777;
    assert_eq!((mode(&dir), mode(&dir.join("cursors"))), (0o750, 0o3770));
    for facts in forebay_log::segments(&dir).expect("readable") {
        assert_eq!(mode(&facts.path), 0o640);
    }
    assert_eq!((mode(&dir.join("marks")), mode(&dir.join("lock"))), (0o640, 0o640));
    // A pipe would hold up whoever opens it to read; a link would lead elsewhere.
    let folder = dir.join("cursors");
    rustix::fs::mkfifoat(CWD, folder.join("pipe"), Mode::RWXU).expect("a pipe");
    std::os::unix::fs::symlink("/dev/zero", folder.join("link")).expect("a link");
    fs::create_dir(folder.join("folder")).expect("a folder");
    fs::write(folder.join("empty"), b"").expect("written");
    fs::write(folder.join("rubbish"), [0xff; 9000]).expect("written");
    assert_eq!(cursors(&dir).expect("listed"), []);
    fill(&lane, 0, 400);
    wait_for("retention", || lane.stats().segments_retired > 2);
    let place = Cursor::open(&dir, "a").expect("a cursor").place();
    assert_eq!(place, Place::default());
}
