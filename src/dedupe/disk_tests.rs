//! The table with its generations on disk, over a real lane: at its edges here, against an oracle
//! through restarts and damage in `model`.

mod bed;
mod model;

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use self::bed::{
    Bed, Open, SEGMENT_BYTES, WINDOW_NS, append, assert_known, filled, flip, key, settle,
};
use super::*;
use crate::dedupe::generations::{TAIL_BYTES_MAX, TAILS_MAX};

#[test]
fn keys_that_became_files_are_known_and_no_longer_in_memory() {
    let (mut bed, keys) = filled();
    let stats = bed.table().stats();
    assert_eq!(stats.files.keys, 2_400);
    assert_eq!(stats.keys, 100, "only the active block");
    assert_known(&mut bed, keys);
}

#[test]
fn a_file_names_an_offset_that_no_record_of_its_keys_ends_behind() {
    let mut bed = Bed::new(100);
    let mut ends = Vec::new();
    for number in 0..2_500 {
        let now_ns = bed.now_ns;
        let Open { appender, table, .. } = bed.open.as_mut().expect("open");
        let Outcome::Reserved(reservation) = table.reserve(key(number), now_ns) else {
            panic!("{number} is known");
        };
        let end = append(appender, number, None, now_ns);
        reservation.appended(end);
        ends.push(end);
        bed.tend();
    }
    // Whoever is told sooner than its record is replicated would say so in a 200.
    let assert_between = |bed: &Bed| {
        for (number, at) in (0..).zip(&ends) {
            match bed.table().reserve(key(number), bed.now_ns) {
                Outcome::Seen { first, end } => {
                    assert!((first..=end).contains(at), "{number}: {first} to {end}, not {at}");
                    let log = &bed.open.as_ref().expect("open").log;
                    assert!(
                        end <= log.watermarks().durable,
                        "{number} waits for what may never be"
                    );
                }
                other => panic!("{number}: {other:?}"),
            }
        }
    };
    assert_between(&bed);
    bed.restart();
    assert_between(&bed);
    bed.tend();
    assert_between(&bed);
}

#[test]
fn a_restart_reads_the_log_only_behind_the_newest_generation() {
    let (mut bed, keys) = filled();
    bed.restart();
    let stats = bed.table().stats();
    assert!(stats.keys <= 400, "{} keys were read from the log", stats.keys);
    assert_eq!((stats.files.keys, stats.files.rebuilt), (2_400, 0));
    assert_known(&mut bed, keys);
}

#[test]
fn a_log_without_generations_becomes_some_at_the_start_with_one_block_in_memory() {
    let (mut bed, keys) = filled();
    bed.stop();
    fs::remove_dir_all(bed.dir.path().join("dedupe")).expect("removed");
    bed.start();
    let stats = bed.table().stats();
    assert!(stats.keys <= 600 && stats.files.keys >= 1_900, "{stats:?}");
    assert_known(&mut bed, keys);
}

#[test]
fn any_generation_that_is_gone_is_made_again_from_the_log() {
    let (mut bed, keys) = filled();
    let names = bed.files();
    assert!(names.len() >= 2, "{names:?}");
    for name in names {
        bed.stop();
        fs::remove_file(&name).expect("removed");
        bed.start();
        for number in 0..keys {
            assert!(!bed.deliver(number), "{number} is forgotten without {}", name.display());
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_is_found_and_mended_and_hides_no_key() {
    let (mut bed, keys) = filled();
    let path = bed.files().remove(0);
    let bytes = fs::metadata(&path).expect("there").len();
    for at in (0..bytes).step_by(1_777) {
        bed.stop();
        flip(&path, at);
        bed.start();
        for number in 0..keys {
            let mut tries = 0;
            while matches!(bed.table().reserve(key(number), bed.now_ns), Outcome::Pending) {
                bed.tend();
                tries += 1;
                assert!(tries < 3, "not mended: byte {at}");
            }
            assert!(!bed.deliver(number), "{number} is forgotten: byte {at}");
        }
        bed.tend();
        let path = bed.files().remove(0);
        let read = generation::Generation::open(&path).expect("whole");
        read.check_guides();
        assert!(read.keys(false).all(|key| key.is_ok()) && !read.damaged(), "byte {at}");
    }
}

#[test]
fn what_a_crash_left_behind_does_no_harm() {
    let (mut bed, before) = filled();
    let keys = before + 700;
    for number in before..keys {
        assert!(bed.deliver(number));
        bed.tend();
    }
    bed.stop();
    let dir = bed.dir.path().join("dedupe");
    let files = bed.files();
    let path = files[0].clone();
    fs::write(path.with_extension("new"), b"torn").expect("written");
    fs::create_dir_all(dir.join("pieces")).expect("made");
    fs::copy(&path, dir.join("pieces").join("x.gen")).expect("copied");
    fs::copy(&path, dir.join("ffff.gen")).expect("copied");
    // Merged, and what was merged not yet removed.
    let part = generation::Generation::open(&path).expect("whole");
    assert_ne!(part.head.first, part.head.last, "it is of a merge");
    let head = format::Head { last: part.head.first, keys: 0, ..part.head };
    write::write(&dir, head, 1, std::iter::empty()).expect("written");
    assert_eq!(bed.files().len(), files.len() + 4, "{:?}", bed.files());
    bed.start();
    assert_eq!(bed.files(), files);
    assert_known(&mut bed, keys);
}

#[test]
fn generations_of_another_log_are_not_believed() {
    let (mut bed, _) = filled();
    bed.stop();
    for entry in fs::read_dir(bed.dir.path()).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            fs::remove_file(path).expect("removed");
        }
    }
    bed.start();
    assert_eq!(bed.table().stats().files.keys, 0);
    assert!(bed.deliver(1), "its record is gone, so it must be stored again");
}

/// As [`filled`], of events that have two keys; blocks end between the two.
fn filled_signed() -> (Bed, u64) {
    let mut bed = Bed::new(601);
    for number in 0..1_500 {
        assert_eq!(bed.deliver_signed(number, number), Some(false));
        if number % 150 == 149 {
            bed.tend();
        }
    }
    (bed, 1_500)
}

/// Each of the signed bytes below `until` comes under another id, from `id` on.
fn assert_replays(bed: &mut Bed, until: u64, id: u64, after: &str) {
    for signed in 0..until {
        let told = bed.deliver_signed(id + signed, signed);
        assert_eq!(told, Some(true), "a replay of {signed} passes after {after}");
    }
}

#[test]
fn signed_bytes_that_memory_alone_knew_are_known_after_a_start() {
    let mut bed = Bed::new(1_000);
    let known = |bed: &Bed| bed.table().stats().keys + bed.table().stats().files.keys;
    for number in 0..250 {
        assert_eq!(bed.deliver_signed(number, number), Some(false));
    }
    assert_eq!(bed.files(), Vec::<PathBuf>::new());
    bed.restart();
    assert_eq!(known(&bed), 500, "both keys of each");
    assert_replays(&mut bed, 250, 10_000, "a start");
    bed.restart();
    assert_eq!(known(&bed), 750, "of a replay its own alone");
    assert_replays(&mut bed, 250, 20_000, "another");
}

#[test]
fn signed_bytes_are_known_whatever_generation_is_gone() {
    let (mut bed, events) = filled_signed();
    let names = bed.files();
    assert!(names.len() >= 2, "{names:?}");
    for (turn, name) in (1..).zip(&names) {
        bed.stop();
        fs::remove_file(name).expect("removed");
        bed.start();
        assert_replays(&mut bed, events, turn * 10_000, &format!("the loss of {}", name.display()));
    }
    bed.stop();
    fs::remove_dir_all(bed.dir.path().join("dedupe")).expect("removed");
    bed.start();
    assert_replays(&mut bed, events, 100_000, "the loss of all");
    bed.restart();
    assert_replays(&mut bed, events, 200_000, "a start on what was made again");
}

#[test]
fn signed_bytes_are_known_after_a_generation_was_mended() {
    let (mut bed, events) = filled_signed();
    let path = bed.files().remove(0);
    // In the last page, which is one of keys.
    flip(&path, fs::metadata(&path).expect("there").len() - 4_000);
    bed.restart();
    assert_replays(&mut bed, events, 10_000, "rot");
    assert!(bed.table().stats().files.rebuilt > 0, "{:?}", bed.table().stats());
}

#[test]
fn a_generation_alone_knows_what_retention_has_removed_and_that_is_counted() {
    let mut bed = Bed::new(200);
    bed.keep_bytes = Some(4 * SEGMENT_BYTES);
    bed.restart();
    let first = |bed: &Bed| bed.open.as_ref().expect("open").log.first_offset().expect("readable");
    let before = first(&bed);
    let mut number = 0;
    while first(&bed) <= before + 2 * SEGMENT_BYTES {
        assert!(bed.deliver(number));
        number += 1;
        if number % 100 == 0 {
            bed.tend();
        }
        assert!(number < 100_000, "retention never came");
    }
    bed.tend();
    bed.restart();
    bed.tend();
    assert!(bed.table().stats().files.unbacked > 0);
    for number in 0..number {
        assert!(!bed.deliver(number), "{number} is forgotten");
    }
}

#[test]
fn a_block_is_not_written_while_the_medium_lacks_a_record_of_it() {
    let mut bed = Bed::new(10);
    for number in 0..10 {
        bed.deliver(number);
    }
    let Outcome::Reserved(slow) = bed.table().reserve(key(11), bed.now_ns) else { panic!("new") };
    // Its record would end far behind what the medium has.
    slow.appended(1 << 40);
    for number in 20..30 {
        bed.deliver(number);
    }
    bed.tend();
    let stats = bed.table().stats();
    assert_eq!((stats.files.keys, stats.files.failures), (10, 0), "the first block alone");
    assert!(!bed.deliver(11));
}

#[test]
fn a_block_with_a_pending_key_waits_for_it() {
    let mut bed = Bed::new(10);
    let Outcome::Reserved(slow) = bed.table().reserve(key(99), bed.now_ns) else { panic!("new") };
    for number in 0..12 {
        bed.deliver(number);
    }
    bed.tend();
    assert_eq!(bed.table().stats().files.generations, 0);
    slow.appended(64);
    bed.tend();
    assert_eq!(bed.table().stats().files.keys, 10);
    assert!(!bed.deliver(99));
}

#[test]
fn a_disk_that_refuses_leaves_the_keys_in_memory_and_then_they_are_written() {
    let mut bed = Bed::new(10);
    let dir = bed.dir.path().join("dedupe");
    fs::remove_dir_all(&dir).expect("removed");
    for number in 0..25 {
        assert!(bed.deliver(number));
    }
    bed.tend();
    let stats = bed.table().stats();
    assert!(stats.files.failures > 0 && stats.keys == 25, "{stats:?}");
    fs::create_dir(&dir).expect("made");
    bed.tend();
    assert_eq!(bed.table().stats().keys, 5);
    assert_known(&mut bed, 25);
}

#[test]
fn a_long_tail_is_sealed_before_the_block_is_full() {
    let mut bed = Bed::new(1_000);
    bed.deliver(0);
    bed.tend();
    assert_eq!(bed.table().stats().files.generations, 0);
    bed.table().set_tail_bytes_max(64);
    bed.deliver(1);
    bed.tend();
    assert_eq!(bed.table().stats().files.keys, 2);
    bed.restart();
    assert_eq!(bed.table().stats().keys, 0, "nothing is left to be read");
    assert_known(&mut bed, 2);
}

#[test]
fn new_events_wait_while_the_files_are_far_behind_and_known_ones_do_not() {
    let mut bed = Bed::new(1_000);
    bed.table().set_tail_bytes_max(1 << 10);
    for number in 0..100 {
        assert!(bed.deliver(number));
    }
    let now_ns = bed.now_ns;
    settle(&bed.open.as_ref().expect("open").log);
    bed.table().prepare(now_ns);
    for number in 0..100 {
        assert!(!bed.deliver(number), "{number} is known, wherever its key is");
        let new = bed.table().reserve(key(100 + number), now_ns);
        assert!(matches!(new, Outcome::Full), "{new:?}");
    }
    let stats = bed.table().stats();
    assert_eq!((stats.keys, stats.refused), (100, 100), "a refusal takes no room");
    bed.table().tend(now_ns);
    bed.table().prepare(now_ns);
    assert!(bed.deliver(100));
    assert_known(&mut bed, 101);
}

#[test]
fn nobody_waits_for_the_room_that_crashes_leave_in_the_log() {
    let mut bed = Bed::new(1_000);
    for number in 0..16 {
        assert!(bed.deliver(number));
        bed.restart();
        bed.table().prepare(bed.now_ns);
    }
    assert!(bed.open.as_ref().expect("open").log.recovered_end() > TAILS_MAX * TAIL_BYTES_MAX);
    assert!(bed.deliver(16), "a few keys have no file, and most of the offsets no record");
    assert_known(&mut bed, 17);
}

#[test]
fn a_start_after_any_number_of_crashes_reads_what_came_since_the_last() {
    let mut bed = Bed::new(1_000);
    for number in 0..16 {
        assert!(bed.deliver(number));
        bed.restart();
        let keys = bed.table().stats().keys;
        assert!(keys <= TAIL_BYTES_MAX / 2 / SEGMENT_BYTES, "{keys} keys in memory");
    }
    let stats = bed.table().stats();
    assert_eq!(stats.keys + stats.files.keys, 16);
    // The same where no event came between the crashes.
    for _ in 0..16 {
        bed.restart();
    }
    bed.table().prepare(bed.now_ns);
    assert!(bed.deliver(16));
    assert_known(&mut bed, 17);
}

#[test]
fn files_that_cannot_be_written_keep_nobody_waiting() {
    let mut bed = Bed::new(1_000);
    let dir = bed.dir.path().join("dedupe");
    fs::remove_dir_all(&dir).expect("removed");
    bed.table().set_tail_bytes_max(1 << 10);
    for number in 0..100 {
        assert!(bed.deliver(number));
    }
    bed.tend();
    assert!(bed.table().stats().files.failures > 0);
    bed.table().prepare(bed.now_ns);
    assert!(bed.deliver(100), "memory has room");
    fs::create_dir(&dir).expect("made");
    bed.tend();
    assert_eq!(bed.table().stats().files.keys, 100, "the rest is too short to be sealed early");
    assert_known(&mut bed, 101);
}

#[test]
fn generations_stay_few_and_go_when_their_window_is_over() {
    let mut bed = Bed::new(20);
    for number in 0..4_000 {
        bed.now_ns += WINDOW_NS / 5_000;
        assert!(bed.deliver(number));
        if number % 20 == 0 {
            bed.tend();
            assert!(bed.table().stats().files.generations <= 13, "{:?}", bed.table().stats());
        }
    }
    for number in 0..4_000 {
        assert!(!bed.deliver(number), "{number}");
    }
    // What is in memory becomes a file first.
    for _ in 0..2 {
        bed.now_ns += 2 * WINDOW_NS;
        bed.tend();
    }
    assert_eq!(bed.table().stats().files.generations, 0);
    assert_eq!(bed.files(), Vec::<PathBuf>::new());
    assert!(bed.deliver(0));
}

#[test]
fn threads_that_store_while_blocks_become_files_store_each_key_once() {
    const KEYS: u64 = 6_000;
    let bed = Bed::new(250);
    let (table, now_ns) = (bed.table(), bed.now_ns);
    let stored: Vec<AtomicUsize> = (0..KEYS).map(|_| AtomicUsize::new(0)).collect();
    let running = AtomicUsize::new(3);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for (number, stored) in (0..KEYS).zip(&stored) {
                    loop {
                        match table.reserve(key(number), now_ns) {
                            Outcome::Reserved(reservation) => {
                                stored.fetch_add(1, Ordering::Relaxed);
                                // An offset that is on the medium from the start.
                                break reservation.appended(0);
                            }
                            Outcome::Seen { .. } => break,
                            Outcome::Pending | Outcome::Full => thread::yield_now(),
                        }
                    }
                }
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
        while running.load(Ordering::Relaxed) > 0 {
            table.prepare(now_ns);
            table.tend(now_ns);
        }
    });
    assert!(stored.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    assert!(table.stats().files.keys >= KEYS - 8 * 250, "{:?}", table.stats());
    for number in 0..KEYS {
        assert!(matches!(table.reserve(key(number), now_ns), Outcome::Seen { .. }), "{number}");
    }
}
