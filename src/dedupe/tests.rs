//! The table against an oracle, against itself from many threads, and at its edges.

use std::collections::HashMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use forebay_log::Key;
use proptest::prelude::*;

use super::*;

const WINDOW_NS: u64 = 1_000;

fn options(capacity: usize) -> Options {
    Options { capacity, window: Duration::from_nanos(WINDOW_NS) }
}

fn table(capacity: usize) -> Table {
    Table::new(options(capacity), 0)
}

/// A key that spreads as a fingerprint does.
fn key(number: u64) -> Key {
    Fingerprinter::new(b"0123456789abcdef").fingerprint("s", None, [&number.to_le_bytes()[..]])
}

fn store(table: &Table, key: Key, end: u64, now_ns: u64) {
    match table.reserve(key, now_ns) {
        Outcome::Reserved(reservation) => reservation.appended(end),
        other => panic!("expected a reservation, found {other:?}"),
    }
}

#[test]
fn a_key_is_reserved_once_then_pending_then_seen_with_its_end() {
    let table = table(100);
    let Outcome::Reserved(reservation) = table.reserve(key(1), 0) else { panic!("new") };
    assert!(matches!(table.reserve(key(1), 0), Outcome::Pending));
    reservation.appended(4096);
    assert!(matches!(table.reserve(key(1), 0), Outcome::Seen { end: 4096, .. }));
}

#[test]
fn a_dropped_reservation_leaves_the_key_new() {
    let table = table(100);
    for _ in 0..3 {
        let Outcome::Reserved(_given_up) = table.reserve(key(1), 0) else { panic!("new") };
    }
    store(&table, key(1), 8, 0);
    assert_eq!(table.stats().keys, 1, "one slot however often it was given up");
}

#[test]
fn keys_with_one_half_in_common_or_zero_do_not_meet() {
    let table = table(100);
    let halves = [0_u64, 7, u64::MAX];
    let mut end = 0;
    for low in halves {
        for high in halves {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&low.to_le_bytes());
            bytes[8..].copy_from_slice(&high.to_le_bytes());
            store(&table, Key(bytes), end, 0);
            assert!(
                matches!(table.reserve(Key(bytes), 0), Outcome::Seen { end: e, .. } if e == end)
            );
            end += 1;
        }
    }
    assert_eq!(table.stats().keys, 9);
}

#[test]
fn a_full_table_refuses_new_keys_counts_them_and_still_knows_the_old_ones() {
    let table = table(70);
    let mut fitted = 0;
    while let Outcome::Reserved(reservation) = table.reserve(key(fitted), 0) {
        reservation.appended(fitted);
        fitted += 1;
    }
    assert!(fitted >= 70, "the capacity is kept: {fitted}");
    assert!(matches!(table.reserve(key(fitted + 1), 0), Outcome::Full));
    for number in 0..fitted {
        assert!(
            matches!(table.reserve(key(number), 0), Outcome::Seen { end, .. } if end == number)
        );
    }
    let stats = table.stats();
    assert_eq!((stats.keys, stats.capacity, stats.blocks), (fitted, 70, 8));
    assert_eq!(stats.refused, 2);
}

#[test]
fn a_full_table_takes_keys_again_once_a_block_is_past_the_window() {
    let table = table(70);
    let mut fitted = 0;
    while let Outcome::Reserved(reservation) = table.reserve(key(fitted), 5) {
        reservation.appended(fitted);
        fitted += 1;
    }
    assert!(matches!(table.reserve(key(fitted), 5 + WINDOW_NS - 1), Outcome::Full));
    store(&table, key(fitted), 0, 5 + WINDOW_NS);
}

#[test]
fn a_key_is_known_for_one_window_and_forgotten_after_two() {
    let table = table(70);
    store(&table, key(1), 8, 0);
    table.prepare(WINDOW_NS);
    store(&table, key(2), 16, WINDOW_NS);
    assert!(matches!(table.reserve(key(1), WINDOW_NS), Outcome::Seen { end: 8, .. }));
    table.prepare(2 * WINDOW_NS - 1);
    assert!(matches!(table.reserve(key(1), 2 * WINDOW_NS - 1), Outcome::Seen { end: 8, .. }));
    table.prepare(2 * WINDOW_NS);
    assert!(matches!(table.reserve(key(2), 2 * WINDOW_NS), Outcome::Seen { end: 16, .. }));
    store(&table, key(1), 24, 2 * WINDOW_NS);
}

#[test]
fn an_idle_table_keeps_one_block() {
    let table = table(70);
    for step in 0..100 {
        table.prepare(step * WINDOW_NS);
    }
    assert_eq!(table.stats().blocks, 1);
}

#[test]
fn a_reservation_outlives_the_retirement_of_its_block() {
    let table = table(70);
    let Outcome::Reserved(slow) = table.reserve(key(1), 0) else { panic!("new") };
    for step in 1..20 {
        store(&table, key(1 + step), 0, step * WINDOW_NS);
        table.prepare(step * WINDOW_NS);
    }
    slow.appended(8);
    store(&table, key(1), 16, 20 * WINDOW_NS);
}

#[test]
fn a_restored_table_knows_what_the_log_holds_inside_the_window() {
    let now_ns = 10 * WINDOW_NS;
    let mut table = Table::new(options(70), now_ns);
    assert_eq!(table.restore(key(0), 1, now_ns - WINDOW_NS), Restored::Old);
    for number in 1..=70 {
        let received_ns = now_ns - WINDOW_NS + number;
        assert_eq!(table.restore(key(number), number, received_ns), Restored::Stored);
        assert_eq!(table.restore(key(number), 999, received_ns), Restored::Known);
    }
    for number in 1..=70 {
        assert!(
            matches!(table.reserve(key(number), now_ns), Outcome::Seen { end, .. } if end == number)
        );
    }
    store(&table, key(0), 0, now_ns);
}

#[test]
fn restored_keys_retire_by_their_own_time() {
    let now_ns = 10 * WINDOW_NS;
    let mut table = Table::new(options(70), now_ns);
    assert_eq!(table.restore(key(1), 1, now_ns - WINDOW_NS + 1), Restored::Stored);
    table.prepare(now_ns + 1);
    assert!(matches!(table.reserve(key(1), now_ns), Outcome::Seen { .. }));
    table.prepare(now_ns + WINDOW_NS + 1);
    store(&table, key(1), 2, now_ns + WINDOW_NS + 1);
}

#[test]
fn an_event_that_the_log_holds_twice_is_known_for_the_window_of_the_second() {
    let mut table = Table::new(options(7), 100);
    assert_eq!(table.restore(key(1), 1, 10), Restored::Stored);
    assert_eq!(table.restore(key(2), 2, 20), Restored::Stored);
    assert_eq!(table.restore(key(1), 3, 90), Restored::Stored);
    table.prepare(10 + WINDOW_NS);
    table.prepare(20 + WINDOW_NS);
    assert!(matches!(table.reserve(key(1), 20 + WINDOW_NS), Outcome::Seen { end: 3, .. }));
}

#[test]
fn what_filled_a_table_fits_into_it_again_after_a_restart() {
    let before = table(50);
    let mut fitted = 0;
    while let Outcome::Reserved(reservation) = before.reserve(key(fitted), fitted) {
        reservation.appended(fitted);
        fitted += 1;
    }
    let mut after = Table::new(options(50), fitted);
    for number in 0..fitted {
        assert_eq!(after.restore(key(number), number, number), Restored::Stored);
    }
    assert_eq!(after.restore(key(fitted), 0, fitted), Restored::Full);
    assert_eq!(after.stats().refused, 0, "no request was refused");
}

#[test]
fn sixty_four_threads_with_one_key_get_one_reservation_a_round() {
    const THREADS: usize = 64;
    const ROUNDS: u64 = 1_000;
    let table = table(500);
    let barrier = Barrier::new(THREADS);
    let winners: Vec<AtomicUsize> = (0..ROUNDS).map(|_| AtomicUsize::new(0)).collect();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for (round, won) in (0..ROUNDS).zip(&winners) {
                    barrier.wait();
                    // A window later each time, so that blocks rotate and retire on the way.
                    match table.reserve(key(round), round * WINDOW_NS / 100) {
                        Outcome::Reserved(reservation) => {
                            won.fetch_add(1, Ordering::Relaxed);
                            reservation.appended(round);
                        }
                        Outcome::Seen { end, .. } => assert_eq!(end, round),
                        Outcome::Pending => {}
                        Outcome::Full => panic!("room for 500 keys a window"),
                    }
                }
            });
        }
    });
    for (round, won) in winners.iter().enumerate() {
        assert_eq!(won.load(Ordering::Relaxed), 1, "round {round}");
    }
}

#[test]
fn threads_that_rotate_under_each_other_reserve_each_key_once() {
    const THREADS: u64 = 4;
    const KEYS: u64 = 5_000;
    // 715 keys a block: seven rotations, while each key comes from all threads at once, one of
    // which gives up its first reservation of every third key.
    let table = table(usize::try_from(KEYS).expect("small"));
    let barrier = Barrier::new(usize::try_from(THREADS).expect("small") + 1);
    let stored: Vec<AtomicUsize> = (0..KEYS).map(|_| AtomicUsize::new(0)).collect();
    let (table, barrier, stored) = (&table, &barrier, &stored);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                barrier.wait();
                for (number, stored) in (0..KEYS).zip(stored) {
                    let mut gives_up = thread == 0 && number % 3 == 0;
                    loop {
                        match table.reserve(key(number), 1) {
                            Outcome::Reserved(_given_up) if gives_up => gives_up = false,
                            Outcome::Reserved(reservation) => {
                                stored.fetch_add(1, Ordering::Relaxed);
                                break reservation.appended(number);
                            }
                            Outcome::Seen { end, .. } => break assert_eq!(end, number),
                            Outcome::Pending => thread::yield_now(),
                            Outcome::Full => panic!("room for every key"),
                        }
                    }
                }
            });
        }
        barrier.wait();
        for _ in 0..50 {
            table.prepare(1);
            thread::yield_now();
        }
    });
    assert!(stored.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    assert_eq!(table.stats().blocks, 7);
}

#[derive(Clone, Debug)]
enum Op {
    Store(u64),
    GiveUp(u64),
    Advance(u64),
    Prepare,
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..60_u64).prop_map(Op::Store),
        2 => (0..60_u64).prop_map(Op::GiveUp),
        2 => (1..WINDOW_NS / 2).prop_map(Op::Advance),
        2 => Just(Op::Prepare),
        1 => Just(Op::Restart),
    ]
}

/// What the log would hold, and when slots were taken.
#[derive(Default)]
struct Oracle {
    stored: HashMap<u64, (u64, u64)>,
    log: Vec<(u64, u64, u64)>,
    claimed_ns: Vec<u64>,
}

fn model(capacity: usize, ops: &[Op]) {
    let mut table = Table::new(options(capacity), 0);
    let mut oracle = Oracle::default();
    let mut now_ns = 0;
    for (end, op) in (10..).zip(ops) {
        match *op {
            Op::Advance(by) => now_ns += by,
            Op::Prepare => table.prepare(now_ns),
            Op::Restart => {
                table = Table::new(options(capacity), now_ns);
                for &(number, end, received_ns) in &oracle.log {
                    let restored = table.restore(key(number), end, received_ns);
                    assert_ne!(restored, Restored::Full, "what fitted fits again");
                    assert_eq!(restored == Restored::Old, received_ns + WINDOW_NS <= now_ns);
                }
            }
            Op::Store(number) | Op::GiveUp(number) => {
                let known = oracle.stored.get(&number).copied();
                match table.reserve(key(number), now_ns) {
                    Outcome::Reserved(reservation) => {
                        let fresh = known.is_none_or(|(_, at_ns)| now_ns - at_ns >= WINDOW_NS);
                        assert!(fresh, "{number} was stored inside the window");
                        oracle.claimed_ns.push(now_ns);
                        if matches!(op, Op::Store(_)) {
                            reservation.appended(end);
                            oracle.stored.insert(number, (end, now_ns));
                            oracle.log.push((number, end, now_ns));
                        }
                    }
                    Outcome::Seen { end, .. } => assert_eq!(Some(end), known.map(|(end, _)| end)),
                    Outcome::Full => {
                        let fresh = known.is_none_or(|(_, at_ns)| now_ns - at_ns >= WINDOW_NS);
                        assert!(fresh, "{number} is known and must be answered");
                        // Seven blocks sealed inside the window, the active one full.
                        assert!(oracle.claimed_ns.len() >= capacity, "full for no reason");
                    }
                    Outcome::Pending => panic!("nobody else is reserving"),
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_table_agrees_with_an_oracle(
        capacity in 1..40_usize,
        ops in prop::collection::vec(op(), 1..400),
    ) {
        model(capacity, &ops);
    }
}
