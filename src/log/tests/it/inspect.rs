//! What is wrong with a lane is found, placed and judged; what is sound is called so.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use forebay_log::{
    AckLevel, ReadError, Reader, SegmentState, Severity, Verified, segments, verify,
};

use crate::support::{SMALL, append, copy_of, open, wait_acked};

const RECORDS: u64 = 300;

fn look(dir: &Path) -> Verified {
    verify(dir, &mut |done, all| assert!(done <= all)).expect("readable")
}

/// A closed lane, and where each record starts.
fn closed() -> (tempfile::TempDir, Vec<u64>) {
    let dir = tempfile::tempdir().expect("a directory");
    let lane = open(dir.path(), AckLevel::Synced);
    let mut appends = lane.appender();
    let starts = (0..RECORDS).map(|number| append(&mut appends, number).start.offset()).collect();
    lane.close();
    (dir, starts)
}

fn paths(dir: &Path) -> Vec<PathBuf> {
    segments(dir).expect("readable").into_iter().map(|facts| facts.path).collect()
}

fn write(path: &Path, bytes: &[u8], at: u64) {
    let file = OpenOptions::new().write(true).open(path).expect("a file");
    file.write_all_at(bytes, at).expect("written");
}

#[test]
fn a_lane_that_is_not_there_is_not_one_that_may_not_be_looked_at() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("written");
    for missing in [dir.path().join("none"), file.clone(), file.join("below")] {
        let refused = [segments(&missing).err(), Reader::open(&missing).err()];
        assert!(matches!(
            refused,
            [Some(ReadError::Missing { .. }), Some(ReadError::Missing { .. })]
        ));
    }
    // Root may look anywhere; at a name that no directory can have nobody may.
    let refused = dir.path().join("n".repeat(300));
    assert!(matches!(segments(&refused), Err(ReadError::Io { .. })));
    assert!(matches!(Reader::open(&refused), Err(ReadError::Io { .. })));
}

#[test]
fn a_sound_lane_is_sound_while_it_is_written_and_afterwards() {
    let dir = tempfile::tempdir().expect("a directory");
    let lane = open(dir.path(), AckLevel::Synced);
    assert_eq!(look(dir.path()).findings, []);
    let mut appends = lane.appender();
    for number in 0..RECORDS {
        wait_acked(&lane, append(&mut appends, number).end);
        if number.is_multiple_of(50) {
            assert_eq!(look(dir.path()).findings, [], "after {number} records");
        }
    }
    assert_eq!(look(dir.path()).records, RECORDS);
    assert!(segments(dir.path()).expect("readable").iter().any(|facts| {
        facts.state == SegmentState::Open && facts.header.expect("it holds").epoch == 1
    }));
    lane.close();
    let seen = look(dir.path());
    assert_eq!((seen.findings.len(), seen.worst, seen.records), (0, None, RECORDS));
    let told = segments(dir.path()).expect("readable");
    assert!(told.iter().all(|facts| facts.state == SegmentState::Sealed));
    let counted: u64 = told.iter().map(|facts| facts.footer.expect("sealed").records).sum();
    assert_eq!(counted, RECORDS);
}

#[test]
fn what_a_crash_leaves_is_told_and_is_no_damage() {
    let dir = tempfile::tempdir().expect("a directory");
    let lane = open(dir.path(), AckLevel::Written);
    let mut appends = lane.appender();
    let ends: Vec<_> = (0..RECORDS).map(|number| append(&mut appends, number)).collect();
    wait_acked(&lane, ends.last().expect("some").end);
    let crashed = copy_of(dir.path());
    lane.close();
    // As if the last payload had never reached the medium, nor what the marks told.
    let last = ends.last().expect("some").start.offset();
    let newest = segments(crashed.path()).expect("readable");
    let newest = newest.into_iter().rfind(|facts| facts.base <= last).expect("a segment");
    write(&newest.path, &[0xa5; 8], last - newest.base + 64);
    fs::remove_file(crashed.path().join("marks")).expect("removed");
    let harmed = copy_of(crashed.path());
    let name = newest.path.file_name().expect("a name");
    write(&harmed.path().join(name), &[0xa5; 8], last - newest.base + 8);
    let seen = look(harmed.path());
    assert_eq!((seen.worst, seen.gaps), (Some(Severity::Damage), 1), "no crash leaves that");
    let seen = look(crashed.path());
    assert_eq!((seen.worst, seen.damaged), (Some(Severity::Remains), 1), "{:?}", seen.findings);
    drop(open(crashed.path(), AckLevel::Written));
    let seen = look(crashed.path());
    assert_eq!((seen.worst, seen.damaged), (Some(Severity::Remains), 1), "{:?}", seen.findings);
    assert!(
        segments(crashed.path())
            .expect("readable")
            .iter()
            .any(|facts| facts.state == SegmentState::Recovered)
    );
}

#[test]
fn every_kind_of_damage_is_found_where_it_is() {
    let (dir, starts) = closed();
    let check = |what: &str, severity, offset: Option<u64>, harm: &dyn Fn(&Path, &[PathBuf])| {
        let copy = copy_of(dir.path());
        harm(copy.path(), &paths(copy.path()));
        let seen = look(copy.path());
        assert_eq!(seen.worst, Some(severity), "{what}: {:?}", seen.findings);
        let worst = seen.findings.iter().find(|finding| finding.severity == severity);
        assert_eq!(worst.expect("a finding").offset, offset, "{what}: {:?}", seen.findings);
    };
    let first = segments(dir.path()).expect("readable")[0].base;
    let start = starts[3];
    check("payload", Severity::Damage, Some(start), &|_, paths| {
        write(&paths[0], &[0xa5], start - first + 70);
    });
    check("record header", Severity::Damage, Some(start), &|_, paths| {
        write(&paths[0], &[0xa5], start - first + 9);
    });
    check("segment header", Severity::Damage, None, &|_, paths| write(&paths[1], &[0xa5], 33));
    check("copy of a header", Severity::Damage, None, &|_, paths| {
        write(&paths[1], &[0xa5], SMALL - 2048 + 33);
    });
    check("footer", Severity::Damage, None, &|_, paths| {
        write(&paths[1], &[0xa5], SMALL - 4096 + 41);
    });
    check("a segment gone", Severity::Damage, None, &|_, paths| {
        fs::remove_file(&paths[1]).expect("removed");
    });
    check("a segment shortened", Severity::Damage, None, &|_, paths| {
        let file = OpenOptions::new().write(true).open(&paths[1]).expect("a file");
        file.set_len(SMALL / 2).expect("shorter");
    });
    check("another lane", Severity::Blocking, None, &|_, paths| {
        let (other, _) = closed();
        fs::copy(&self::paths(other.path())[1], &paths[1]).expect("copied");
    });
    check("failed sync", Severity::Remains, None, &|dir, _| {
        fs::write(dir.join("suspect"), b"").expect("noted");
    });
    check("marks", Severity::Remains, None, &|dir, _| write(&dir.join("marks"), &[1], 2));
    // What retention has removed is not missed.
    let copy = copy_of(dir.path());
    fs::remove_file(&paths(copy.path())[0]).expect("removed");
    assert_eq!(look(copy.path()).worst, None);
}
