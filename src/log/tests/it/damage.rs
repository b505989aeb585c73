//! Bytes that are not what was written: found, counted, and never more than the record lost.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use forebay_log::{AckLevel, From, Lane, OpenError, Position, Reader};
use proptest::prelude::*;

use crate::support::{append, body, copy_of, drain, key, open, options, wait_acked};

const RECORDS: u64 = 160;

/// A closed lane with some sealed segments, and where each record starts.
fn closed_lane() -> (tempfile::TempDir, Vec<Position>) {
    let dir = tempfile::tempdir().expect("a directory");
    let lane = open(dir.path(), AckLevel::Written);
    let mut appends = lane.appender();
    let starts = (0..RECORDS).map(|number| append(&mut appends, number).start).collect();
    lane.close();
    (dir, starts)
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(dir)
        .expect("a lane")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    paths.sort();
    paths
}

fn write(path: &Path, bytes: &[u8], at: u64) {
    let file = OpenOptions::new().write(true).open(path).expect("a file");
    file.write_all_at(bytes, at).expect("written");
}

fn read(path: &Path, at: u64) -> u8 {
    let mut byte = [0];
    std::fs::File::open(path).expect("a file").read_exact_at(&mut byte, at).expect("read");
    byte[0]
}

/// The segment that holds an offset of the lane, and where in it that is.
fn segment_at(dir: &Path, offset: u64) -> (PathBuf, u64) {
    let base = |path: &PathBuf| u64::from_str_radix(path.file_stem()?.to_str()?, 16).ok();
    let holding = |path: &PathBuf| base(path).is_some_and(|base| base <= offset);
    let path = segments(dir).into_iter().rfind(holding).expect("a segment");
    let at = offset - base(&path).expect("a base");
    (path, at)
}

/// Writes into the segment that holds an offset of the lane.
fn write_in_lane(dir: &Path, bytes: &[u8], offset: u64) {
    let (path, at) = segment_at(dir, offset);
    write(&path, bytes, at);
}

/// Flips every bit of the byte at an offset of the lane.
pub(crate) fn flip_in_lane(dir: &Path, offset: u64) {
    let (path, at) = segment_at(dir, offset);
    write(&path, &[!read(&path, at)], at);
}

#[test]
fn a_damaged_payload_costs_its_record_and_no_other() {
    let (dir, starts) = closed_lane();
    write_in_lane(dir.path(), &[0xff; 2], starts[40].offset() + 64);
    let mut reader = Reader::open(dir.path()).expect("a reader");
    let numbers = drain(&mut reader);
    assert_eq!(numbers, (0..RECORDS).filter(|number| *number != 40).collect::<Vec<_>>());
    assert_eq!((reader.damaged(), reader.skipped().gaps), (1, 0));
}

#[test]
fn a_damaged_header_costs_its_record_and_no_other() {
    for at in [0, 4, 8, 16, 30, 40, 44, 48, 52, 60] {
        let (dir, starts) = closed_lane();
        flip_in_lane(dir.path(), starts[7].offset() + at);
        let mut reader = Reader::open(dir.path()).expect("a reader");
        let numbers = drain(&mut reader);
        assert_eq!(numbers, (0..RECORDS).filter(|number| *number != 7).collect::<Vec<_>>());
        assert_eq!((reader.damaged(), reader.skipped().gaps), (0, 1), "byte {at}");
    }
}

#[test]
fn a_torn_record_is_not_among_the_recovered_keys_and_the_others_are() {
    let dir = tempfile::tempdir().expect("a directory");
    let lane = open(dir.path(), AckLevel::Written);
    let mut appends = lane.appender();
    let appended: Vec<_> = (0..RECORDS).map(|number| append(&mut appends, number)).collect();
    wait_acked(&lane, appended.last().expect("some").end);
    let crashed = copy_of(dir.path());
    // As a loss of power leaves them: one payload torn, one header never written.
    let (torn, missing) = (RECORDS - 1, RECORDS - 3);
    let start = |number: u64| appended[usize::try_from(number).expect("small")].start.offset();
    write_in_lane(crashed.path(), &[1; 4], start(torn) + 64);
    write_in_lane(crashed.path(), &[0; 64], start(missing));
    let (lane, recovery) =
        Lane::open(crashed.path(), options(AckLevel::Written)).expect("it recovers");
    assert_eq!((recovery.damaged, recovery.gaps), (1, 1));
    assert_eq!(recovery.records, RECORDS - 2);
    let mut keys = Vec::new();
    lane.recovered_keys(0, |recovered| keys.push(recovered.key)).expect("readable");
    let expected = (0..RECORDS).filter(|number| *number != torn && *number != missing);
    assert_eq!(keys, expected.map(key).collect::<Vec<_>>());
    keys.clear();
    lane.recovered_keys(1_090, |recovered| keys.push(recovered.key)).expect("readable");
    assert_eq!(keys.first(), Some(&key(90)));
    keys.clear();
    let range = appended[4].end..appended[9].end;
    lane.keys(range, 0, |found| keys.push(found.key)).expect("readable");
    assert_eq!(keys, (5..=9).map(key).collect::<Vec<_>>());
    assert_eq!(lane.first_offset().expect("a segment"), 0);
}

/// Where the copy of a segment's header stands.
const HEADER_COPY_AT: u64 = forebay_log::SEGMENT_BYTES_MIN - 4096 + 2048;

#[test]
fn a_segment_without_its_header_or_without_the_copy_of_it_loses_nothing_and_is_told() {
    for at in [0, HEADER_COPY_AT] {
        let (dir, _) = closed_lane();
        let paths = segments(dir.path());
        write(&paths[1], &[0; 128], at);
        let mut reader = Reader::open(dir.path()).expect("a reader");
        assert_eq!(drain(&mut reader), (0..RECORDS).collect::<Vec<_>>());
        let (_lane, recovery) =
            Lane::open(dir.path(), options(AckLevel::Written)).expect("it opens");
        assert_eq!((recovery.records, recovery.missing), (RECORDS, 0));
        assert_eq!(recovery.warnings.len(), 1, "{:?}", recovery.warnings);
    }
}

#[test]
fn a_segment_without_any_header_is_kept_counted_and_stepped_over() {
    let (dir, _) = closed_lane();
    let paths = segments(dir.path());
    assert!(paths.len() >= 3);
    write(&paths[1], &[0; 128], 0);
    write(&paths[1], &[0; 128], HEADER_COPY_AT);
    let (lane, recovery) = Lane::open(dir.path(), options(AckLevel::Written)).expect("it opens");
    assert_eq!((recovery.segments, recovery.missing), (paths.len() - 1, 0));
    assert_eq!(recovery.warnings.len(), 1);
    assert!(recovery.warnings[0].contains(".seg"), "{:?}", recovery.warnings);
    append(&mut lane.appender(), RECORDS);
    lane.close();
    assert!(paths[1].exists());
    let mut reader = Reader::open(dir.path()).expect("a reader");
    let numbers = drain(&mut reader);
    assert!(numbers.is_sorted_by(|one, next| one < next));
    assert_eq!((numbers[0], numbers.last()), (0, Some(&RECORDS)));
    assert_eq!(reader.skipped().segments, 1);
}

#[test]
fn what_has_the_name_of_a_segment_and_is_no_file_is_told_and_stepped_over() {
    let (dir, _) = closed_lane();
    std::fs::create_dir(dir.path().join("0000000001000000.seg")).expect("a directory");
    let pipe = dir.path().join("0000000002000000.seg");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0)
        .expect("a pipe");
    let mut reader = Reader::open(dir.path()).expect("a reader");
    assert_eq!(drain(&mut reader).len() as u64, RECORDS);
    let (lane, recovery) = Lane::open(dir.path(), options(AckLevel::Written)).expect("it opens");
    let told = |warning: &&String| warning.contains("it is no regular file");
    assert_eq!(recovery.warnings.iter().filter(told).count(), 2, "{:?}", recovery.warnings);
    let mut appends = lane.appender();
    wait_acked(&lane, append(&mut appends, RECORDS).end);
    assert_eq!(drain(&mut reader).len(), 1);
}

#[test]
fn a_segment_that_was_cut_short_is_read_as_far_as_it_goes() {
    let (whole, starts) = closed_lane();
    let paths = segments(whole.path());
    let base = |path: &PathBuf| u64::from_str_radix(path.file_stem()?.to_str()?, 16).ok();
    let (from, to) = (base(&paths[1]).expect("a base"), base(&paths[2]).expect("a base"));
    for cut in [127, 128, 4096, 4097, 9_000, 30_000, 61_440, 65_535] {
        let dir = copy_of(whole.path());
        let file = OpenOptions::new().write(true).open(&segments(dir.path())[1]).expect("a file");
        file.set_len(cut).expect("cut");
        let kept = |number: &u64| {
            let start = starts[usize::try_from(*number).expect("small")].offset();
            let end = start + (64 + body(*number).len() as u64).next_multiple_of(64);
            !(from..to).contains(&start) || (end <= from + cut && cut >= 128)
        };
        let mut reader = Reader::open(dir.path()).expect("a reader");
        assert_eq!(
            drain(&mut reader),
            (0..RECORDS).filter(kept).collect::<Vec<_>>(),
            "cut at {cut}"
        );
        let skipped = reader.skipped();
        let told = u64::from(cut < forebay_log::SEGMENT_BYTES_MIN - 4096);
        assert_eq!(skipped.gaps + skipped.segments, told, "cut at {cut}: {skipped:?}");
        let opened = Lane::open(dir.path(), options(AckLevel::Written));
        let (lane, recovery) = opened.expect("it opens");
        assert_eq!(recovery.warnings.len(), 1, "cut at {cut}: {recovery:?}");
        append(&mut lane.appender(), RECORDS);
        lane.close();
        let cut_file = std::fs::metadata(&segments(dir.path())[1]).expect("kept");
        assert_eq!(cut_file.len(), cut, "a harmed file stays as it is");
    }
}

#[test]
fn a_segment_that_is_gone_is_missed_and_its_places_are_never_used_again() {
    let (whole, starts) = closed_lane();
    let count = segments(whole.path()).len();
    for gone in 1..count {
        let dir = copy_of(whole.path());
        std::fs::remove_file(&segments(dir.path())[gone]).expect("removed");
        let opened = Lane::open(dir.path(), options(AckLevel::Written));
        let (lane, recovery) = opened.expect("it opens");
        assert_eq!((recovery.missing, recovery.warnings.len()), (1, 1), "{recovery:?}");
        let appended = append(&mut lane.appender(), RECORDS);
        assert!(appended.start > *starts.last().expect("some"), "{appended:?}");
        lane.close();
        let mut reader = Reader::open(dir.path()).expect("a reader");
        drain(&mut reader);
        assert_eq!(reader.skipped().segments, 1);
    }
    let dir = copy_of(whole.path());
    for path in segments(dir.path()) {
        std::fs::remove_file(path).expect("removed");
    }
    let (lane, recovery) = Lane::open(dir.path(), options(AckLevel::Written)).expect("it opens");
    assert_eq!((recovery.missing, recovery.epoch), (1, 2));
    assert!(append(&mut lane.appender(), 0).start > *starts.last().expect("some"));
}

#[test]
fn the_last_record_of_an_unsealed_segment_is_missed_when_its_header_is_harmed() {
    let dir = tempfile::tempdir().expect("a directory");
    let lane = open(dir.path(), AckLevel::Synced);
    let mut appends = lane.appender();
    let appended: Vec<_> = (0..3).map(|number| append(&mut appends, number)).collect();
    wait_acked(&lane, appended[2].end);
    let crashed = copy_of(dir.path());
    drop(appends);
    let harms: [(&[u8], u64); 3] = [(&[0x55], 8), (&[0x55], 0), (&[0; 64], 0)];
    for (bytes, at) in harms {
        for marks in [true, false] {
            let dir = copy_of(crashed.path());
            write_in_lane(dir.path(), bytes, appended[2].start.offset() + at);
            if !marks {
                std::fs::remove_file(dir.path().join("marks")).expect("removed");
            }
            let opened = Lane::open(dir.path(), options(AckLevel::Written));
            let (lane, recovery) = opened.expect("it opens");
            // A line of zeros is also what a loss of power leaves of a record nobody was told of.
            let told = u64::from(marks || bytes.len() == 1);
            assert_eq!((recovery.records, recovery.gaps), (2, told), "{bytes:?} at {at}");
            append(&mut lane.appender(), 3);
            lane.close();
            let mut reader = Reader::open(dir.path()).expect("a reader");
            assert_eq!(drain(&mut reader), [0, 1, 3]);
            assert_eq!(reader.skipped().gaps, told);
        }
    }
}

#[test]
fn a_reader_goes_on_in_the_file_that_was_put_in_the_place_of_its_own() {
    let (dir, starts) = closed_lane();
    let mut reader = Reader::open(dir.path()).expect("a reader");
    let record = reader.next().expect("readable").expect("a record");
    assert_eq!(record.position(), starts[0]);
    let path = segments(dir.path()).remove(0);
    let fresh = path.with_extension("fresh");
    std::fs::copy(&path, &fresh).expect("copied");
    // What the kernel may read back from the medium after a failed sync: not what was stored.
    flip_in_lane(dir.path(), starts[1].offset() + 64);
    flip_in_lane(dir.path(), starts[3].offset() + 8);
    std::fs::rename(&fresh, &path).expect("replaced");
    assert_eq!(drain(&mut reader), (1..RECORDS).collect::<Vec<_>>());
    assert_eq!(reader.skipped(), forebay_log::Skipped::default());
}

#[test]
fn a_lane_in_which_a_sync_has_failed_is_sealed_in_fresh_files() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().expect("a directory");
    let lane = open(dir.path(), AckLevel::Synced);
    let mut appends = lane.appender();
    let end = append(&mut appends, 0).end;
    wait_acked(&lane, end);
    let crashed = copy_of(dir.path());
    let path = segments(crashed.path()).remove(0);
    let suspect = crashed.path().join("suspect");
    std::fs::write(&suspect, b"").expect("noted");
    let before = std::fs::metadata(&path).expect("there").ino();
    let opened = Lane::open(crashed.path(), options(AckLevel::Synced));
    let (_lane, recovery) = opened.expect("it opens");
    assert_eq!((recovery.records, recovery.gaps), (1, 0));
    assert_ne!(std::fs::metadata(&path).expect("there").ino(), before);
    assert!(!suspect.exists());
    let mut reader = Reader::open(crashed.path()).expect("a reader");
    assert_eq!(drain(&mut reader), [0]);
}

#[test]
fn marks_and_lock_in_any_condition_keep_no_lane_from_opening() {
    let (whole, _) = closed_lane();
    let harms: [fn(&Path); 6] = [
        |file| std::fs::remove_file(file).expect("removed"),
        |file| std::fs::write(file, b"").expect("written"),
        |file| std::fs::write(file, [0xff; 4096]).expect("written"),
        |file| std::fs::write(file, [0x5a; 100]).expect("written"),
        // Every word as large as can be behind a beginning that holds.
        |file| write(file, &[0xff; 96], 32),
        |file| write(file, &[0x07; 96], 32),
    ];
    for name in ["marks", "lock"] {
        for (number, harm) in harms.iter().enumerate() {
            let dir = copy_of(whole.path());
            harm(&dir.path().join(name));
            let mut reader = Reader::open(dir.path()).expect("a reader");
            assert!(drain(&mut reader).is_sorted_by(|one, next| one < next));
            let opened = Lane::open(dir.path(), options(AckLevel::Written));
            let (lane, recovery) =
                opened.unwrap_or_else(|error| panic!("{name} {number}: {error}"));
            assert_eq!((recovery.records, recovery.damaged), (RECORDS, 0));
            append(&mut lane.appender(), RECORDS);
            lane.close();
            let mut reader = Reader::open(dir.path()).expect("a reader");
            assert_eq!(drain(&mut reader), (0..=RECORDS).collect::<Vec<_>>(), "{name} {number}");
        }
    }
}

#[test]
fn a_segment_without_its_footer_is_scanned_and_sealed_again() {
    let (dir, _) = closed_lane();
    let paths = segments(dir.path());
    for path in &paths {
        write(path, &[0; 128], forebay_log::SEGMENT_BYTES_MIN - 4096);
    }
    let (lane, recovery) = Lane::open(dir.path(), options(AckLevel::Written)).expect("it opens");
    assert_eq!((recovery.records, recovery.unsealed), (RECORDS, paths.len()));
    drop(lane);
    let mut reader = Reader::open(dir.path()).expect("a reader");
    assert_eq!(drain(&mut reader), (0..RECORDS).collect::<Vec<_>>());
}

#[test]
fn a_segment_of_another_lane_is_refused_with_its_name() {
    let (dir, _) = closed_lane();
    let (other, _) = closed_lane();
    let path = segments(dir.path()).pop().expect("a segment");
    std::fs::copy(&segments(other.path())[1], &path).expect("copied");
    let refused = Lane::open(dir.path(), options(AckLevel::Written));
    let same_base = path.file_name() == segments(other.path())[1].file_name();
    match refused {
        Err(OpenError::ForeignSegment { path: named }) => assert!(same_base && named == path),
        Ok((_, recovery)) => assert!(!same_base && recovery.warnings.len() == 1),
        Err(error) => panic!("{error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_position_and_any_time_lead_to_a_record_behind_them_or_to_the_end(
        epoch in 0_u32..4,
        offset in prop_oneof![any::<u64>(), 0_u64..400_000],
        time in prop_oneof![any::<u64>(), 900_u64..1_200],
    ) {
        let (dir, starts) = closed_lane();
        let mut reader = Reader::open(dir.path()).expect("a reader");
        reader.seek(From::Position(Position::new(epoch, offset))).expect("a place");
        let found = reader.next().expect("readable").map(|record| record.position());
        let expected = starts.iter().copied().find(|start| start.offset() >= offset);
        prop_assert_eq!(found, expected);
        reader.seek(From::Time(time)).expect("a place");
        let found = reader.next().expect("readable").map(|record| record.received_ns());
        prop_assert_eq!(found, (1_000..1_000 + RECORDS).find(|ns| *ns >= time));
    }

    #[test]
    fn no_flipped_bits_make_a_reader_or_recovery_panic_or_tell_a_wrong_byte(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u64..65_536, 1_u8..), 1..12),
        sealed in any::<bool>(),
    ) {
        let (dir, _) = closed_lane();
        let paths = segments(dir.path());
        if !sealed {
            let last = paths.last().expect("a segment");
            write(last, &[0; 128], forebay_log::SEGMENT_BYTES_MIN - 4096);
        }
        for (index, at, flip) in flips {
            let path = index.get(&paths);
            write(path, &[read(path, at) ^ flip], at);
        }
        // `drain` compares every body with the one that was appended.
        let mut reader = Reader::open(dir.path()).expect("a reader");
        let before = drain(&mut reader);
        prop_assert!(before.is_sorted_by(|one, next| one < next));
        if let Ok((lane, _)) = Lane::open(dir.path(), options(AckLevel::Written)) {
            append(&mut lane.appender(), RECORDS);
            lane.close();
            let mut reader = Reader::open(dir.path()).expect("a reader");
            let after = drain(&mut reader);
            prop_assert!(after.is_sorted_by(|one, next| one < next));
            prop_assert_eq!(after.last(), Some(&RECORDS));
        }
    }
}
