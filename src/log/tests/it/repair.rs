//! A repair keeps what can be read, destroys nothing, and leaves a lane that opens.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use forebay_log::{AckLevel, Cure, Lane, OpenError, Reader, Severity, repair, segments, verify};
use proptest::prelude::*;

use crate::support::{SMALL, append, copy_of, drain, open, options};

const RECORDS: u64 = 300;

fn closed() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let lane = open(dir.path(), AckLevel::Written);
    let mut appends = lane.appender();
    for number in 0..RECORDS {
        append(&mut appends, number);
    }
    lane.close();
    dir
}

fn paths(dir: &Path) -> Vec<PathBuf> {
    segments(dir).expect("readable").into_iter().map(|facts| facts.path).collect()
}

fn write(path: &Path, bytes: &[u8], at: u64) {
    let file = OpenOptions::new().write(true).open(path).expect("a file");
    file.write_all_at(bytes, at).expect("written");
}

fn read_all(dir: &Path) -> Vec<u64> {
    drain(&mut Reader::open(dir).expect("a reader"))
}

/// Repairs, and makes sure that the lane opens, takes a record and reads as a sound one.
fn repaired(dir: &Path) -> Vec<Cure> {
    let would = repair(dir, true).expect("a plan");
    let done = repair(dir, false).expect("repaired");
    assert!(would.recovery.is_none() && done.recovery.is_some());
    assert!(done.steps.len() >= would.steps.len());
    let found = verify(dir, &mut |_, _| ()).expect("readable");
    assert!(found.worst < Some(Severity::Blocking), "{:?}", found.findings);
    let (lane, _) = Lane::open(dir, options(AckLevel::Written)).expect("it opens");
    append(&mut lane.appender(), RECORDS);
    lane.close();
    done.steps.iter().map(|step| step.cure).collect()
}

#[test]
fn a_sound_lane_and_a_crashed_one_need_no_cure() {
    let dir = closed();
    assert_eq!(repaired(dir.path()), []);
    let lane = open(dir.path(), AckLevel::Written);
    append(&mut lane.appender(), RECORDS + 1);
    assert!(matches!(repair(dir.path(), false), Err(OpenError::Locked { .. })));
    let crashed = copy_of(dir.path());
    assert_eq!(repaired(crashed.path()), []);
    assert!(repair(dir.path().join("nothing"), false).is_err());
}

#[test]
fn a_lost_header_page_is_made_again_and_every_record_is_read() {
    for sealed in [true, false] {
        for lost in 0..paths(closed().path()).len() {
            let dir = closed();
            let path = paths(dir.path()).remove(lost);
            write(&path, &[0xa5; 4096], 0);
            if !sealed {
                write(&path, &[0; 128], SMALL - 4096);
            }
            let before = fs::read(&path).expect("a file");
            assert_eq!(repaired(dir.path()), [Cure::Header], "segment {lost}");
            assert_eq!(read_all(dir.path()), (0..=RECORDS).collect::<Vec<_>>());
            let name = path.with_extension("header");
            let kept = dir.path().join("aside").join(name.file_name().expect("a name"));
            assert_eq!(fs::read(kept).expect("kept"), before[..4096]);
        }
    }
}

#[test]
fn one_wrong_bit_of_a_header_is_set_right_to_the_byte() {
    let dir = closed();
    for at in [0, 9, 17, 21, 30, 40, 50, 57, 66, 73, 80, 100] {
        let copy = copy_of(dir.path());
        let path = paths(copy.path()).remove(1);
        let was = fs::read(&path).expect("a file");
        write(&path, &[was[at] ^ 4], at as u64);
        assert_eq!(repaired(copy.path()), [Cure::Header], "byte {at}");
        assert_eq!(fs::read(&path).expect("a file"), was, "byte {at}");
    }
}

#[test]
fn a_lost_copy_of_a_header_is_made_again_to_the_byte() {
    let dir = closed();
    let path = paths(dir.path()).remove(1);
    let was = fs::read(&path).expect("a file");
    write(&path, &[0xa5; 2000], SMALL - 2048);
    assert_eq!(repaired(dir.path()), [Cure::HeaderCopy]);
    let is = fs::read(&path).expect("a file");
    let copy = usize::try_from(SMALL).expect("small") - 2048;
    assert_eq!(is[..copy + 128], was[..copy + 128]);
}

#[test]
fn what_keeps_a_lane_from_opening_is_moved_aside_whole() {
    let dir = closed();
    let other = closed();
    let (ours, theirs) = (paths(dir.path()).remove(1), paths(other.path()).remove(1));
    let foreign = fs::read(&theirs).expect("a file");
    fs::write(&ours, &foreign).expect("written");
    assert!(matches!(
        Lane::open(dir.path(), options(AckLevel::Written)),
        Err(OpenError::ForeignSegment { .. })
    ));
    assert_eq!(repaired(dir.path()), [Cure::Aside]);
    let kept = dir.path().join("aside").join(ours.file_name().expect("a name"));
    assert_eq!(fs::read(kept).expect("kept"), foreign);
    assert!(!ours.exists());
}

#[test]
fn a_short_or_misnamed_segment_is_read_again_as_far_as_it_goes() {
    let dir = closed();
    let short = copy_of(dir.path());
    let path = paths(short.path()).remove(1);
    let file = OpenOptions::new().write(true).open(&path).expect("a file");
    file.set_len(SMALL / 2).expect("shorter");
    let without = read_all(short.path()).len();
    assert_eq!(repaired(short.path()), [Cure::Lengthened]);
    let with = read_all(short.path());
    assert_eq!(with.len(), without + 1, "what could be read before, and a fresh record");
    let kept = short.path().join("aside").join(path.file_name().expect("a name"));
    assert_eq!(fs::metadata(kept).expect("kept").len(), SMALL / 2);

    let misnamed = copy_of(dir.path());
    let path = paths(misnamed.path()).remove(1);
    fs::rename(&path, misnamed.path().join("00000000ff000000.seg")).expect("renamed");
    assert_eq!(repaired(misnamed.path()), [Cure::Renamed]);
    assert_eq!(read_all(misnamed.path()), (0..=RECORDS).collect::<Vec<_>>());
}

#[test]
fn a_lost_footer_is_made_again_and_its_page_kept() {
    let dir = closed();
    let path = paths(dir.path()).remove(0);
    write(&path, &[0xa5; 30], SMALL - 4096 + 30);
    assert_eq!(repaired(dir.path()), [Cure::Footer]);
    assert_eq!(read_all(dir.path()), (0..=RECORDS).collect::<Vec<_>>());
    assert!(dir.path().join("aside").read_dir().expect("a folder").count() == 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_makes_a_repair_lose_what_could_be_read(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u64..65_536, 1_u8..), 1..9),
        cut in prop::option::of((any::<prop::sample::Index>(), 0_u64..65_536)),
    ) {
        let dir = closed();
        let paths = paths(dir.path());
        for (index, at, flip) in flips {
            let mut byte = [0];
            let path = index.get(&paths);
            fs::File::open(path).expect("a file").read_exact_at(&mut byte, at).expect("read");
            write(path, &[byte[0] ^ flip], at);
        }
        if let Some((index, bytes)) = cut {
            let file = OpenOptions::new().write(true).open(index.get(&paths)).expect("a file");
            file.set_len(bytes).expect("shorter");
        }
        let before = read_all(dir.path());
        repaired(dir.path());
        let after = read_all(dir.path());
        prop_assert!(after.is_sorted_by(|one, next| one < next));
        prop_assert!(before.iter().all(|number| after.contains(number)));
        prop_assert_eq!(after.last(), Some(&RECORDS));
    }
}
