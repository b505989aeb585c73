//! What retention goes by: the time that records tell, or the time at which their segment was sealed.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use forebay_log::{AckLevel, AgeSince, Clock, Lane, LaneOptions, Retention};

use crate::support::{SMALL, append, copy_of, options, wait_acked, wait_for};

const DAY: Duration = Duration::from_secs(86_400);

/// A clock that shows the time now and so many half days.
fn in_half_days(count: u64) -> Clock {
    let half_day_ns = u64::try_from(DAY.as_nanos() / 2).expect("short");
    Clock::fixed(Clock::System.wall_ns() + count * half_day_ns)
}

/// A lane that keeps its records for a day.
fn of_a_day(dir: &Path, age_since: AgeSince, clock: &Clock) -> Lane {
    let retention = Retention { age: Some(DAY), bytes: None };
    let clock = clock.clone();
    let options = LaneOptions { retention, age_since, clock, ..options(AckLevel::Written) };
    Lane::open(dir, options).expect("the lane opens").0
}

/// Appends records of 1970 that fill this many segments and a part of one more.
const FILLED: u64 = 5;

fn fill(lane: &Lane) {
    let mut appends = lane.appender();
    let mut number = 0;
    while lane.acked() < FILLED * SMALL + SMALL / 2 {
        wait_acked(lane, append(&mut appends, number).end);
        number += 1;
    }
}

/// How many segments are sealed.
fn sealed(dir: &Path) -> usize {
    let segments = forebay_log::segments(dir).expect("readable");
    segments.iter().filter(|segment| segment.footer.is_some()).count()
}

fn wait_until_retired(lane: &Lane, count: u64) {
    wait_for("retention", || lane.stats().segments_retired >= count);
}

#[test]
fn old_records_go_by_what_they_tell_or_by_when_they_came_into_the_lane() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let clock = in_half_days(0);
    let by_record = of_a_day(dirs[0].path(), AgeSince::Received, &clock);
    let by_seal = of_a_day(dirs[1].path(), AgeSince::Sealed, &clock);
    fill(&by_seal);
    fill(&by_record);
    wait_until_retired(&by_record, FILLED);
    // Retention looks once a second.
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(by_seal.stats().segments_retired, 0, "they came just now");
    let Clock::Fixed(now_ns) = clock else { panic!("it is fixed") };
    now_ns.store(in_half_days(3).wall_ns(), Ordering::Relaxed);
    wait_until_retired(&by_seal, FILLED);
}

#[test]
fn what_a_recovery_has_sealed_is_as_old_as_its_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let lane = of_a_day(dir.path(), AgeSince::Sealed, &in_half_days(0));
    fill(&lane);
    wait_for("seals", || sealed(dir.path()) as u64 >= FILLED);
    // All but the newest were sealed by their writer, that one by the recovery.
    let killed = copy_of(dir.path());
    let recovered = of_a_day(killed.path(), AgeSince::Sealed, &in_half_days(1));
    std::thread::sleep(Duration::from_millis(1500));
    let first_offset = |lane: &Lane| lane.first_offset().expect("readable");
    assert_eq!(first_offset(&recovered), first_offset(&lane), "half a day is not a day");
    recovered.close();
    drop(recovered);
    let recovered = of_a_day(killed.path(), AgeSince::Sealed, &in_half_days(3));
    wait_for("retention", || first_offset(&recovered) > FILLED * SMALL);
}
