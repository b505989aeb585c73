//! Several producers, and readers beside them while segments roll and vanish.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::thread;
use std::time::Duration;

use forebay_log::{AckLevel, Acked, From, Lane, Position, Reader};

use crate::support::{SMALL, append, copy_of, drain, number, open, options, wait_acked, wait_for};

const EACH: u64 = 2_000;
/// The header of a segment.
const PAGE: u64 = 4096;

#[test]
fn two_producers_leave_each_record_once_and_each_in_its_own_order() {
    for ack in [AckLevel::Written, AckLevel::Synced] {
        let dir = tempfile::tempdir().expect("a directory");
        let lane = open(dir.path(), ack);
        let ends = thread::scope(|scope| {
            let produce = |first: u64| {
                let mut appends = lane.appender();
                scope.spawn(move || {
                    (0..EACH).map(|count| append(&mut appends, first + 2 * count).end).max()
                })
            };
            let producers = [produce(0), produce(1)];
            producers.map(|producer| producer.join().expect("no panic"))
        });
        wait_acked(&lane, ends.into_iter().flatten().max().expect("two ends"));
        lane.close();
        let mut reader = Reader::open(dir.path()).expect("a reader");
        let numbers = drain(&mut reader);
        for parity in 0..2 {
            let own: Vec<_> = numbers.iter().copied().filter(|one| one % 2 == parity).collect();
            assert_eq!(own, (0..EACH).map(|count| parity + 2 * count).collect::<Vec<_>>());
        }
        assert_eq!(numbers.len() as u64, 2 * EACH);
    }
}

/// Never waits: what the lane calls acknowledged must be there for a reader that comes now.
#[test]
fn a_reader_that_opens_after_an_acknowledgement_finds_everything_below_it() {
    for ack in [AckLevel::Written, AckLevel::Synced] {
        let dir = tempfile::tempdir().expect("a directory");
        let lane = open(dir.path(), ack);
        let finished = AtomicBool::new(false);
        thread::scope(|scope| {
            let producers = [0, 1].map(|first| {
                let mut appends = lane.appender();
                scope.spawn(move || {
                    for count in 0..EACH / 2 {
                        append(&mut appends, first + 2 * count);
                    }
                })
            });
            scope.spawn(|| {
                let mut opened = 0_u64;
                let (mut before, mut starts) = (0, [0; 2]);
                while !finished.load(Ordering::Acquire) {
                    let acked = lane.acked();
                    if acked == before {
                        thread::yield_now();
                        continue;
                    }
                    // Not from the beginning, so that there is time for many.
                    let place = Position::new(1, starts[0]);
                    let mut reader = Reader::open(dir.path()).expect("a reader");
                    reader.seek(From::Position(place)).expect("a place");
                    drain(&mut reader);
                    // At the end of a segment, where the next has no record yet, a reader
                    // stands before the header page and the lane behind it.
                    let at_end = reader.offset().is_multiple_of(SMALL);
                    let seen = reader.offset() + if at_end { PAGE } else { 0 };
                    assert!(seen >= acked, "{seen} of {acked}");
                    before = acked;
                    starts = [starts[1], reader.offset()];
                    opened += 1;
                }
                assert!(opened > 0);
            });
            for producer in producers {
                producer.join().expect("no panic");
            }
            finished.store(true, Ordering::Release);
        });
    }
}

#[test]
fn a_reader_keeps_its_order_while_segments_roll_and_vanish() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bounded = options(AckLevel::Written);
    bounded.retention.bytes = Some(4 * SMALL);
    let (lane, _) = Lane::open(dir.path(), bounded).expect("the lane");
    let finished = AtomicBool::new(false);
    let (numbers, skipped) = thread::scope(|scope| {
        let follower = scope.spawn(|| {
            let mut reader = Reader::open(dir.path()).expect("a reader");
            let mut numbers = Vec::new();
            loop {
                let last = finished.load(Ordering::Acquire);
                while let Some(record) = reader.next().expect("readable") {
                    numbers.push(number(record.body()));
                }
                if last && !reader.wait(Duration::from_millis(50)).expect("marks") {
                    break (numbers, reader.skipped());
                }
                reader.wait(Duration::from_millis(5)).expect("marks");
            }
        });
        let mut appends = lane.appender();
        let mut end = 0;
        for number in 0..2 * EACH {
            end = append(&mut appends, number).end;
        }
        wait_acked(&lane, end);
        wait_for("retention", || lane.stats().bytes <= 4 * SMALL);
        finished.store(true, Ordering::Release);
        follower.join().expect("no panic")
    });
    assert!(numbers.is_sorted_by(|one, next| one < next));
    assert_eq!(numbers.last(), Some(&(2 * EACH - 1)));
    assert_eq!((skipped.damaged, skipped.gaps), (0, 0));
    assert!(skipped.segments > 0 || numbers.len() as u64 == 2 * EACH, "{skipped:?}");
    assert!(lane.stats().segments_retired > 0);
    let mut newcomer = Reader::open(dir.path()).expect("a reader");
    newcomer.seek(From::Earliest).expect("a place");
    let kept = drain(&mut newcomer);
    assert_eq!(kept, (2 * EACH - kept.len() as u64..2 * EACH).collect::<Vec<_>>());
}

/// Counts its wakes and tells whether it waits.
#[derive(Default)]
struct Waiter {
    waiting: AtomicBool,
    woken: AtomicU64,
}

impl Acked for Waiter {
    fn waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    fn moved(&self) {
        self.woken.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_subscriber_that_waits_is_woken_and_one_that_does_not_is_left_alone() {
    for ack in [AckLevel::Written, AckLevel::Synced] {
        let dir = tempfile::tempdir().expect("a directory");
        let lane = open(dir.path(), ack);
        let (waits, idles) = (Arc::new(Waiter::default()), Arc::new(Waiter::default()));
        assert!(lane.subscribe(Arc::clone(&waits) as Arc<dyn Acked>));
        assert!(lane.subscribe(Arc::clone(&idles) as Arc<dyn Acked>));
        let mut appends = lane.appender();
        for number in 0..20 {
            let woken = waits.woken.load(Ordering::Relaxed);
            waits.waiting.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            let end = append(&mut appends, number).end;
            wait_for("the wake", || waits.woken.load(Ordering::Relaxed) > woken);
            wait_acked(&lane, end);
            waits.waiting.store(false, Ordering::Relaxed);
        }
        assert_eq!(idles.woken.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn a_reader_that_waits_follows_a_writer_over_its_restarts() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut reader = None;
    let mut seen = Vec::new();
    for epoch in 0..3 {
        let lane = open(dir.path(), AckLevel::Written);
        let reader = reader.get_or_insert_with(|| Reader::open(dir.path()).expect("a reader"));
        let mut appends = lane.appender();
        for number in 0..90 {
            append(&mut appends, epoch * 90 + number);
        }
        wait_for("this epoch's records", || {
            reader.wait(Duration::from_secs(1)).expect("marks");
            seen.extend(drain(reader));
            seen.len() as u64 == (epoch + 1) * 90
        });
    }
    assert_eq!(seen, (0..270).collect::<Vec<_>>());
    assert_eq!(reader.expect("a reader").skipped(), forebay_log::Skipped::default());
}

#[test]
fn a_crash_amid_two_producers_keeps_what_was_acknowledged_before_it() {
    for ack in [AckLevel::Written, AckLevel::Synced] {
        let dir = tempfile::tempdir().expect("a directory");
        let lane = open(dir.path(), ack);
        let finished = AtomicBool::new(false);
        let acked = [AtomicU64::new(0), AtomicU64::new(0)];
        thread::scope(|scope| {
            for (parity, acked) in (0..2).zip(&acked) {
                let mut appends = lane.appender();
                let (lane, finished) = (&lane, &finished);
                scope.spawn(move || {
                    for count in 0.. {
                        if finished.load(Ordering::Acquire) {
                            return;
                        }
                        let end = append(&mut appends, parity + 2 * count).end;
                        wait_acked(lane, end);
                        acked.store(count + 1, Ordering::Release);
                    }
                });
            }
            for _ in 0..5 {
                thread::sleep(Duration::from_millis(20));
                let promised = acked.each_ref().map(|count| count.load(Ordering::Acquire));
                let crashed = copy_of(dir.path());
                let (survivor, recovery) =
                    Lane::open(crashed.path(), options(ack)).expect("it recovers");
                assert_eq!(recovery.damaged, 0, "{recovery:?}");
                drop(survivor);
                let mut reader = Reader::open(crashed.path()).expect("a reader");
                let numbers = drain(&mut reader);
                for (parity, promised) in (0..2).zip(promised) {
                    let own = numbers.iter().copied().filter(|number| number % 2 == parity);
                    let own: Vec<_> = own.collect();
                    let first = (0..own.len() as u64).map(|count| parity + 2 * count);
                    assert_eq!(own, first.collect::<Vec<_>>());
                    assert!(own.len() as u64 >= promised, "{} < {promised}", own.len());
                }
            }
            finished.store(true, Ordering::Release);
        });
    }
}
