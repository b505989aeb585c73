//! The interleavings of the protocol, explored by loom up to three forced switches of thread an
//! execution (`LOOM_MAX_PREEMPTIONS` sets another bound):
//!
//! ```text
//! tests/run models
//! ```
//!
//! Blocks are of few slots, so that keys meet. The fences are on trial: without either of them,
//! or without the look at the seal behind them,
//! `a_key_is_not_reserved_on_both_sides_of_a_rotation` fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ::loom::thread;
use forebay_log::Key;

use super::block::{Shape, Words};
use super::format::Head;
use super::generation::Generation;
use super::*;

const WINDOW_NS: u64 = 1_000_000;

fn table() -> Arc<Table> {
    let options = Options { capacity: 14, window: Duration::from_nanos(WINDOW_NS) };
    let shape = Shape { keys_max: 2, slots: 1, probe_max: 2 };
    Arc::new(Table::with_shape(options, shape, 0))
}

fn key(low: u64, high: u64) -> Key {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&low.to_le_bytes());
    bytes[8..].copy_from_slice(&high.to_le_bytes());
    Key(bytes)
}

fn explore(scenario: impl Fn() + Sync + Send + 'static) {
    let mut builder = ::loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(scenario);
}

/// Runs both, each on a thread of its own: of what its first thread does loom explores nothing.
fn beside<A: 'static, B: 'static>(
    one: impl FnOnce() -> A + 'static,
    other: impl FnOnce() -> B + 'static,
) -> (A, B) {
    let (one, other) = (thread::spawn(one), thread::spawn(other));
    (one.join().expect("no panic"), other.join().expect("no panic"))
}

/// Has a key stored while something else is done to the table.
fn while_stored<A: 'static>(
    table: &Arc<Table>,
    stored: Key,
    end: u64,
    done: impl FnOnce(&Table) -> A + 'static,
) -> (A, bool) {
    let (here, there) = (Arc::clone(table), Arc::clone(table));
    beside(move || done(&here), move || store(&there, stored, end))
}

/// Reserves and stores; false if someone else holds or stored the key.
fn store(table: &Table, key: Key, end: u64) -> bool {
    match table.reserve(key, 1) {
        Outcome::Reserved(reservation) => {
            reservation.appended(end);
            true
        }
        Outcome::Seen { end, .. } => {
            assert!([0, 10, 20].contains(&end), "0 is what a file says");
            false
        }
        Outcome::Pending => false,
        Outcome::Full => panic!("there is room"),
    }
}

#[test]
fn of_two_threads_with_one_key_exactly_one_reserves() {
    explore(|| {
        let table = table();
        let (here, there) =
            while_stored(&table, key(5, 6), 10, |table| store(table, key(5, 6), 20));
        assert!(here ^ there);
        assert!(matches!(table.reserve(key(5, 6), 1), Outcome::Seen { .. }));
        assert_eq!(table.stats().keys, 1);
    });
}

#[test]
fn two_keys_with_one_low_word_both_find_a_slot() {
    explore(|| {
        let table = table();
        let stored = while_stored(&table, key(5, 6), 10, |table| store(table, key(5, 7), 20));
        assert_eq!(stored, (true, true));
        assert!(matches!(table.reserve(key(5, 6), 1), Outcome::Seen { end: 10, .. }));
        assert!(matches!(table.reserve(key(5, 7), 1), Outcome::Seen { end: 20, .. }));
    });
}

#[test]
fn a_key_is_not_reserved_on_both_sides_of_a_rotation() {
    explore(|| {
        let table = table();
        // So that the block is as old as the window, and the spare is there.
        assert!(store(&table, key(1, 1), 10));
        table.prepare(1);
        let (here, there) = while_stored(&table, key(5, 6), 10, |table| {
            table.rotate_by_age(WINDOW_NS);
            store(table, key(5, 6), 20)
        });
        assert!(!(here && there), "stored twice");
        // Both may have met the other's claim before it was withdrawn; then it is still new.
        match table.reserve(key(5, 6), 1) {
            Outcome::Seen { .. } => assert!(here || there),
            Outcome::Reserved(_) => assert!(!here && !there),
            other => panic!("nobody holds it: {other:?}"),
        }
    });
}

#[test]
fn a_filter_knows_every_reservation_that_was_not_withdrawn() {
    explore(|| {
        let table = table();
        assert!(store(&table, key(1, 1), 10));
        table.prepare(1);
        let ((), there) = while_stored(&table, key(5, 6), 10, |table| {
            table.rotate_by_age(WINDOW_NS);
            table.make_filters();
        });
        let here = store(&table, key(5, 6), 20);
        assert!(here ^ there, "stored twice or not at all");
    });
}

/// Files of each set of keys that a block can hold in the end, made once: loom looks at the
/// protocol around them, not into them.
fn files(dir: &std::path::Path) -> BTreeMap<Vec<Words>, Arc<Generation>> {
    let (first, second) = (Words::from(key(1, 1)), Words::from(key(5, 6)));
    let sets = [vec![first], vec![first, second]].into_iter();
    let made = sets.map(|set| {
        let number = set.len() as u64;
        let head = Head {
            lane_id: [0; 16],
            first: number,
            last: number,
            from: 0,
            previous_to: 0,
            covers: 0,
            to: 0,
            oldest_ns: 0,
            newest_ns: 0,
            keys: 0,
        };
        let keys = set.clone().into_iter().map(Ok);
        let path = write::write(dir, head, number, keys).expect("written");
        (set, Arc::new(Generation::open(&path).expect("whole")))
    });
    made.collect()
}

/// Puts a file in the place of the oldest sealed block, as `Generations::write_sealed` does.
fn write_sealed(table: &Table, files: &BTreeMap<Vec<Words>, Arc<Generation>>) {
    if let Some(block) = table.oldest_sealed()
        && let Some(settled) = block.settled()
    {
        table.publish(vec![Arc::clone(&files[&settled.keys])], Some(&block));
    }
}

#[test]
fn who_looks_while_a_block_becomes_a_file_finds_its_keys() {
    let dir = tempfile::tempdir().expect("a folder");
    let files = Arc::new(files(dir.path()));
    explore(move || {
        let table = table();
        assert!(store(&table, key(1, 1), 10));
        table.prepare(1);
        table.rotate_by_age(WINDOW_NS);
        let files = Arc::clone(&files);
        let ((), again) =
            while_stored(&table, key(1, 1), 20, move |table| write_sealed(table, &files));
        assert!(!again, "forgotten on the way into the file");
    });
}

#[test]
fn a_key_is_in_its_block_or_in_the_file_made_of_it_and_never_in_neither() {
    let dir = tempfile::tempdir().expect("a folder");
    let files = Arc::new(files(dir.path()));
    explore(move || {
        let table = table();
        assert!(store(&table, key(1, 1), 10));
        table.prepare(1);
        let files = Arc::clone(&files);
        let (here, there) = while_stored(&table, key(5, 6), 10, move |table| {
            table.rotate_by_age(WINDOW_NS);
            write_sealed(table, &files);
            assert!(!store(table, key(1, 1), 20), "forgotten on the way into the file");
            store(table, key(5, 6), 20)
        });
        assert!(!(here && there), "stored twice");
        match table.reserve(key(5, 6), 1) {
            Outcome::Seen { .. } => assert!(here || there),
            Outcome::Reserved(_) => assert!(!here && !there),
            other => panic!("nobody holds it: {other:?}"),
        }
    });
}

#[test]
fn a_reservation_given_up_on_one_side_of_a_rotation_is_new_on_the_other() {
    explore(|| {
        let table = table();
        assert!(store(&table, key(1, 1), 10));
        table.prepare(1);
        let (one, other) = (Arc::clone(&table), Arc::clone(&table));
        let (here, ()) = beside(
            move || {
                one.rotate_by_age(WINDOW_NS);
                store(&one, key(5, 6), 20)
            },
            move || drop(other.reserve(key(5, 6), 1)),
        );
        assert_eq!(here, !store(&table, key(5, 6), 20));
    });
}
