//! A lane over its life: append, acknowledge, roll, close, open again.

use forebay_log::{AckLevel, AppendError, From, Kind, LaneState, NewRecord, OpenError, Reader};

use crate::support::{
    SMALL, append, body, copy_of, drain, key, open, options, wait_acked, wait_for,
};

#[test]
fn what_was_appended_is_read_back_at_both_ack_levels() {
    for ack in [AckLevel::Written, AckLevel::Synced] {
        let dir = tempfile::tempdir().expect("a directory");
        let lane = open(dir.path(), ack);
        let mut appends = lane.appender();
        let mut end = 0;
        for number in 0..300 {
            end = append(&mut appends, number).end;
        }
        wait_acked(&lane, end);
        let mut reader = Reader::open(dir.path()).expect("a reader");
        wait_for("the marks", || reader.wait(std::time::Duration::ZERO).expect("marks"));
        let mut numbers = drain(&mut reader);
        wait_for("the last record", || {
            numbers.extend(drain(&mut reader));
            numbers.len() == 300
        });
        assert_eq!(numbers, (0..300).collect::<Vec<_>>());
        assert_eq!(reader.skipped(), forebay_log::Skipped::default());
    }
}

#[test]
fn at_written_a_tail_sees_at_once_what_was_acknowledged() {
    let dir = tempfile::tempdir().expect("a directory");
    let lane = open(dir.path(), AckLevel::Written);
    let mut appends = lane.appender();
    let mut reader = Reader::open(dir.path()).expect("a reader");
    let mut newcomer = Reader::open(dir.path()).expect("a reader");
    // Few enough for one segment: the next one is open to readers once the marks tell it.
    for number in 0..30 {
        let appended = append(&mut appends, number);
        assert!(lane.acked() >= appended.end);
        assert!(reader.wait(std::time::Duration::ZERO).expect("marks"), "record {number}");
        assert_eq!(drain(&mut reader), [number]);
        newcomer.seek(From::Latest).expect("a place");
        assert_eq!(newcomer.offset(), appended.end);
    }
}

#[test]
fn a_closed_lane_opens_again_in_a_new_epoch_and_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut last = None;
    for epoch in 1..=4_u32 {
        let (lane, recovery) =
            forebay_log::Lane::open(dir.path(), options(AckLevel::Synced)).expect("the lane");
        assert_eq!(recovery.epoch, epoch);
        assert_eq!(recovery.records, u64::from(epoch - 1) * 70);
        assert_eq!((recovery.unsealed, recovery.damaged, recovery.gaps), (0, 0, 0));
        let mut appends = lane.appender();
        for number in 0..70 {
            let appended = append(&mut appends, u64::from(epoch - 1) * 70 + number);
            assert_eq!(appended.start.epoch(), epoch);
            assert!(last < Some(appended.start));
            last = Some(appended.start);
        }
        lane.close();
        assert_eq!(
            appends.append(&NewRecord {
                kind: Kind::Event,
                key: key(0),
                received_ns: 0,
                meta: b"",
                body: b"",
            }),
            Err(AppendError::Closed)
        );
    }
    let mut reader = Reader::open(dir.path()).expect("a reader");
    assert_eq!(drain(&mut reader), (0..280).collect::<Vec<_>>());
}

#[test]
fn a_lane_has_one_writer() {
    let dir = tempfile::tempdir().expect("a directory");
    let lane = open(dir.path(), AckLevel::Written);
    let second = forebay_log::Lane::open(dir.path(), options(AckLevel::Written));
    assert!(matches!(second, Err(OpenError::Locked { .. })));
    std::fs::remove_file(dir.path().join("lock")).expect("removed");
    let third = forebay_log::Lane::open(dir.path(), options(AckLevel::Written));
    assert!(matches!(third, Err(OpenError::Locked { .. })), "the lock went with its file");
    drop(lane);
    open(dir.path(), AckLevel::Written);
}

#[test]
fn a_record_that_fits_no_segment_is_refused_and_the_largest_is_taken() {
    let dir = tempfile::tempdir().expect("a directory");
    let lane = open(dir.path(), AckLevel::Written);
    let mut appends = lane.appender();
    let largest = usize::try_from(SMALL).expect("small") - 2 * 4096 - 64;
    let body = vec![3; largest + 1];
    let record =
        |body| NewRecord { kind: Kind::Event, key: key(1), received_ns: 1, meta: b"", body };
    let refused = appends.append(&record(&body)).expect_err("too large");
    assert!(
        matches!(refused, AppendError::TooLarge { bytes_max, .. } if bytes_max == SMALL - 8192)
    );
    let mut taken = Vec::new();
    for _ in 0..3 {
        wait_for("a segment", || {
            appends.append(&record(&body[..largest])).is_ok_and(|appended| {
                taken.push(appended.end);
                true
            })
        });
    }
    lane.close();
    let mut reader = Reader::open(dir.path()).expect("a reader");
    for _ in 0..3 {
        let read = reader.next().expect("readable").expect("a record");
        assert_eq!(read.body(), &body[..largest]);
    }
    assert!(reader.next().expect("readable").is_none());
}

#[test]
fn a_crash_loses_nothing_that_was_acknowledged() {
    for ack in [AckLevel::Written, AckLevel::Synced] {
        let dir = tempfile::tempdir().expect("a directory");
        let lane = open(dir.path(), ack);
        let mut appends = lane.appender();
        let mut end = 0;
        for number in 0..200 {
            end = append(&mut appends, number).end;
        }
        wait_acked(&lane, end);
        let crashed = copy_of(dir.path());
        for _ in 0..2 {
            let plan =
                forebay_log::Lane::open(crashed.path(), options(ack)).expect("the lane recovers");
            assert_eq!(plan.1.records, 200, "{:?}", plan.1);
            assert_eq!((plan.1.damaged, plan.1.gaps), (0, 0));
            assert!(plan.1.warnings.is_empty(), "{:?}", plan.1.warnings);
            let mut reader = Reader::open(crashed.path()).expect("a reader");
            assert_eq!(drain(&mut reader), (0..200).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_full_disk_closes_the_lane_and_it_still_opens() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut full = options(AckLevel::Synced);
    full.disk_reserve_bytes = Some(u64::MAX);
    let (lane, _) = forebay_log::Lane::open(dir.path(), full).expect("it opens");
    assert_eq!(lane.state(), LaneState::Full);
    let body = body(1);
    let record =
        NewRecord { kind: Kind::Event, key: key(1), received_ns: 1, meta: b"", body: &body };
    assert_eq!(lane.appender().append(&record), Err(AppendError::Full));
    assert!(lane.stats().full_refusals > 0);
    drop(lane);
    let lane = open(dir.path(), AckLevel::Synced);
    let appended = append(&mut lane.appender(), 1);
    // The first start has told its epoch, so nobody else has it.
    assert_eq!(appended.start.epoch(), 2);
}

#[test]
fn latest_starts_behind_the_newest_acknowledged_record() {
    let dir = tempfile::tempdir().expect("a directory");
    let lane = open(dir.path(), AckLevel::Written);
    let mut appends = lane.appender();
    let end = append(&mut appends, 1).end;
    let mut reader = Reader::open(dir.path()).expect("a reader");
    wait_for("the marks", || {
        reader.seek(From::Latest).expect("a place");
        reader.offset() >= end
    });
    assert!(reader.next().expect("readable").is_none());
    append(&mut appends, 2);
    assert!(reader.wait(std::time::Duration::from_secs(5)).expect("marks"));
    assert_eq!(drain(&mut reader), [2]);
}

#[test]
fn a_time_that_no_record_has_reached_yet_is_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut lane = open(dir.path(), AckLevel::Synced);
    for settled in [false, true] {
        let mut reader = Reader::open(dir.path()).expect("a reader");
        let first = 3 * u64::from(settled);
        // The times of the tests are a thousand and the number.
        reader.seek(From::Time(1_000 + first + 2)).expect("a place");
        assert!(reader.next().expect("readable").is_none());
        let mut appends = lane.appender();
        for number in first..first + 3 {
            append(&mut appends, number);
        }
        assert!(reader.wait(std::time::Duration::from_secs(5)).expect("marks"));
        assert_eq!(drain(&mut reader), [first + 2]);
        // The second time every segment is sealed, and none holds a record as new as that.
        drop((appends, lane));
        lane = open(dir.path(), AckLevel::Synced);
    }
}

#[test]
fn synced_is_refused_where_nothing_survives_the_loss_of_power() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return };
    let mut asked = options(AckLevel::Synced);
    asked.volatile_allowed = false;
    match forebay_log::Lane::open(dir.path(), asked) {
        Err(error @ OpenError::Volatile { .. }) => {
            assert!(error.to_string().contains("tmpfs"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn segments_out_of_bounds_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    for bytes in [0, SMALL - 4096, SMALL + 1, 4 << 30] {
        let mut asked = options(AckLevel::Written);
        asked.segment_bytes = bytes;
        let refused = forebay_log::Lane::open(dir.path(), asked);
        assert!(matches!(refused, Err(OpenError::SegmentBytes { .. })), "{bytes}");
    }
}

#[test]
fn files_are_for_the_owner_and_the_group_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let lane_dir = dir.path().join("lanes/main");
    let lane = open(&lane_dir, AckLevel::Written);
    append(&mut lane.appender(), 1);
    let mode = |path: &std::path::Path| {
        std::fs::metadata(path).expect("there").permissions().mode() & 0o777
    };
    assert_eq!(mode(&lane_dir) & 0o027, 0);
    for entry in std::fs::read_dir(&lane_dir).expect("a lane") {
        let path = entry.expect("an entry").path();
        // Consumers of the group write their cursors, and nothing else.
        let barred = if path.is_dir() { 0o007 } else { 0o137 };
        assert_eq!(mode(&path) & barred, 0, "{}", path.display());
    }
}

#[test]
fn age_retires_what_is_older_and_keeps_the_rest() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut aged = options(AckLevel::Written);
    aged.retention.age = Some(std::time::Duration::from_nanos(500));
    // Record N arrives at 1000 + N: those before 600 are too old once it is 2100.
    aged.clock = forebay_log::Clock::fixed(1_000);
    let forebay_log::Clock::Fixed(now) = aged.clock.clone() else { panic!("fixed above") };
    let lane = forebay_log::Lane::open(dir.path(), aged).expect("the lane").0;
    let mut appends = lane.appender();
    let mut end = 0;
    for number in 0..1_000 {
        end = append(&mut appends, number).end;
    }
    wait_acked(&lane, end);
    assert_eq!(lane.stats().segments_retired, 0);
    now.store(2_100, std::sync::atomic::Ordering::Relaxed);
    wait_for("retention", || lane.stats().segments_retired > 5);
    lane.close();
    let mut reader = Reader::open(dir.path()).expect("a reader");
    let kept = drain(&mut reader);
    assert!(kept[0] > 400 && kept[0] <= 600, "{}", kept[0]);
    assert_eq!(kept, (kept[0]..1_000).collect::<Vec<_>>());
}

#[test]
fn what_a_kill_left_empty_pushes_no_records_over_the_bound_on_size() {
    let dir = tempfile::tempdir().expect("a directory");
    let lane = open(dir.path(), AckLevel::Written);
    let mut appends = lane.appender();
    let mut count = 0;
    while append(&mut appends, count).end < 2 * SMALL + SMALL / 2 {
        count += 1;
    }
    wait_for("the segment made ahead", || lane.stats().segments == 4);
    let killed = copy_of(dir.path());
    let mut bounded = options(AckLevel::Written);
    // Room for the three with records, and for the one that a start makes.
    bounded.retention.bytes = Some(4 * SMALL);
    let lane = forebay_log::Lane::open(killed.path(), bounded).expect("it recovers").0;
    assert_eq!(lane.stats().segments_retired, 1, "the one made ahead");
    let mut reader = Reader::open(killed.path()).expect("a reader");
    assert_eq!(drain(&mut reader), (0..=count).collect::<Vec<_>>());
}

#[test]
fn a_lane_opens_again_by_itself_when_space_returns() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return };
    let available = || {
        let room = rustix::fs::statvfs(dir.path()).expect("a file system");
        room.f_bavail * room.f_frsize
    };
    let hog_bytes = 256 << 20;
    if available() < 4 * hog_bytes {
        return;
    }
    let mut bounded = options(AckLevel::Written);
    bounded.disk_reserve_bytes = Some(available() - hog_bytes / 2);
    let lane = forebay_log::Lane::open(dir.path(), bounded).expect("the lane").0;
    let mut appends = lane.appender();
    append(&mut appends, 0);
    let hog_path = dir.path().join("hog");
    let hog = std::fs::File::create(&hog_path).expect("a file");
    rustix::fs::fallocate(&hog, rustix::fs::FallocateFlags::empty(), 0, hog_bytes).expect("space");
    wait_for("the low-water mark", || lane.state() == LaneState::Full);
    std::fs::remove_file(&hog_path).expect("removed");
    drop(hog);
    wait_for("the space", || lane.state() == LaneState::Open);
    append(&mut appends, 1);
}
