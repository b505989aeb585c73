//! Order and batches against an oracle, with failures of every kind in between.

use forebay_log::Clock;
use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds =
    Bounds { events_max: 4, bytes_max: 1000, linger: Duration::from_millis(20), sequential: false };

fn entry(ticket: u64, key: Option<u64>, since: Instant) -> Entry<u64> {
    Entry::new(ticket, ticket, key, 10, since)
}

fn tickets(batch: Option<Batch<u64>>) -> Vec<u64> {
    batch.map_or_else(Vec::new, |batch| batch.entries.iter().map(|entry| entry.item).collect())
}

#[test]
fn a_batch_goes_by_count_by_bytes_or_by_linger() {
    let now = Clock::System.monotonic();
    let mut queue = Queue::new(BOUNDS, &[0]);
    (0..3).for_each(|ticket| queue.push(0, entry(ticket, None, now)));
    assert!(queue.next(now).is_none());
    assert_eq!(queue.wake(), Some(now + BOUNDS.linger));
    queue.push(0, entry(3, None, now));
    queue.push(0, entry(4, None, now));
    assert_eq!(tickets(queue.next(now)), [0, 1, 2, 3], "by count");
    assert!(queue.next(now).is_none());
    assert_eq!(tickets(queue.next(now + BOUNDS.linger)), [4], "by linger");
    for ticket in 5..8 {
        queue.push(0, Entry::new(ticket, ticket, None, 400, now));
    }
    assert_eq!(tickets(queue.next(now)), [5, 6], "by bytes");
    queue.push(0, Entry::new(8, 8, None, 5000, now));
    assert_eq!(tickets(queue.next(now)), [7]);
    assert_eq!(tickets(queue.next(now)), [8], "above all bounds, it goes alone");
    assert_eq!((queue.len(), queue.wake()), (0, None));
}

#[test]
fn a_higher_lane_goes_first() {
    let now = Clock::System.monotonic();
    let mut queue = Queue::new(BOUNDS, &[1, 9]);
    for ticket in 0..4 {
        queue.push(0, entry(ticket, None, now));
        queue.push(1, entry(10 + ticket, None, now));
    }
    assert_eq!(queue.next(now).map(|batch| batch.lane), Some(1));
    assert_eq!(queue.next(now).map(|batch| batch.lane), Some(0));
}

#[test]
fn an_event_that_waits_for_its_retry_holds_back_its_key_and_nobody_else() {
    let now = Clock::System.monotonic();
    let later = now + Duration::from_secs(60);
    let mut queue = Queue::new(Bounds { events_max: 2, ..BOUNDS }, &[0]);
    for (ticket, key) in [(0, Some(7)), (1, Some(7)), (2, Some(8)), (3, None)] {
        queue.push(0, entry(ticket, key, now));
    }
    let mut batch = queue.next(now).expect("a batch");
    assert_eq!(batch.entries.iter().map(|entry| entry.ticket).collect::<Vec<_>>(), [0, 2]);
    queue.landed(0);
    queue.settled(0, Some(8));
    let mut failed = batch.entries.remove(0);
    failed.attempts = 1;
    queue.again(0, vec![(later, failed)]);
    assert_eq!(tickets(queue.next(now + BOUNDS.linger)), [3]);
    assert!(queue.next(now + BOUNDS.linger).is_none(), "1 waits for 0");
    assert_eq!(tickets(queue.next(later)), [0]);
    queue.settled(0, Some(7));
    assert_eq!(tickets(queue.next(later)), [1]);
}

#[test]
fn a_destination_that_is_back_is_not_waited_for() {
    let now = Clock::System.monotonic();
    for sequential in [false, true] {
        let mut queue = Queue::new(Bounds { sequential, ..BOUNDS }, &[0]);
        queue.push(0, entry(0, None, now));
        let mut batch = queue.next(now + BOUNDS.linger).expect("a batch");
        queue.landed(0);
        let mut failed = batch.entries.remove(0);
        failed.attempts = 1;
        queue.again(0, vec![(now + Duration::from_secs(300), failed)]);
        assert!(queue.next(now + BOUNDS.linger).is_none());
        queue.hasten(now + BOUNDS.linger);
        assert_eq!(tickets(queue.next(now + BOUNDS.linger)), [0]);
    }
}

#[test]
fn what_is_taken_ahead_goes_next_unless_what_is_in_flight_fails() {
    let now = Clock::System.monotonic();
    let ahead = |queue: &mut Queue<u64>| -> Vec<u64> {
        let taken = queue.ahead();
        taken.map_or_else(Vec::new, |(_, entries)| entries.iter().map(|of| of.item).collect())
    };
    let mut queue = Queue::new(Bounds { sequential: true, ..BOUNDS }, &[0]);
    (0..11).for_each(|ticket| queue.push(0, entry(ticket, None, now)));
    assert!(ahead(&mut queue).is_empty(), "nothing is in flight");
    let mut batch = queue.next(now).expect("a batch");
    assert_eq!(ahead(&mut queue), [4, 5, 6, 7]);
    assert!(ahead(&mut queue).is_empty(), "one at a time");
    assert!(queue.next(now).is_none(), "its turn has not come");
    queue.landed(0);
    batch.entries[0].attempts = 1;
    queue.again(0, vec![(now, batch.entries.remove(0))]);
    assert_eq!(tickets(queue.next(now)), [0, 4, 5, 6], "what failed goes first");
    assert_eq!(ahead(&mut queue), [7, 8, 9, 10]);
    queue.landed(0);
    queue.again(0, Vec::new());
    assert_eq!(queue.wake(), Some(now));
    assert_eq!(tickets(queue.next(now)), [7, 8, 9, 10]);
    assert_eq!((queue.len(), queue.wake()), (0, None));
}

/// What happens next in a run.
#[derive(Clone, Debug)]
enum Step {
    Push {
        lane: usize,
        key: Option<u64>,
    },
    Send,
    /// Of a sequential sink: the batch behind one in flight is taken ahead.
    Ahead,
    /// A batch in flight comes back: which, and of each of its events whether it failed.
    Land {
        which: prop::sample::Index,
        failed: Vec<bool>,
    },
    Pass {
        ms: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let key = prop::option::of(0..4_u64);
    prop_oneof![
        4 => (0..2_usize, key).prop_map(|(lane, key)| Step::Push { lane, key }),
        3 => Just(Step::Send),
        2 => Just(Step::Ahead),
        3 => (any::<prop::sample::Index>(), prop::collection::vec(prop::bool::weighted(0.3), 4))
            .prop_map(|(which, failed)| Step::Land { which, failed }),
        1 => (0..100_u64).prop_map(|ms| Step::Pass { ms }),
    ]
}

/// Sees that no two events of a key are in flight, and that each settles after those before it.
#[derive(Default)]
struct Oracle {
    pushed: Vec<(usize, Option<u64>, u64)>,
    in_flight: Vec<Batch<u64>>,
    settled: HashSet<(usize, u64)>,
}

impl Oracle {
    /// What is taken ahead is full, and goes behind what is in flight in its lane.
    fn ahead(&self, queue: &mut Queue<u64>) {
        let held = queue.len();
        let Some((lane, entries)) = queue.ahead() else { return };
        assert_eq!(entries.len(), BOUNDS.events_max);
        let first = entries[0].ticket;
        let mut in_flight = self.in_flight.iter().filter(|batch| batch.lane == lane);
        assert!(in_flight.next().is_some_and(|batch| batch.entries[0].ticket < first));
        assert!(in_flight.next().is_none());
        assert_eq!(queue.len(), held, "it is still here");
    }

    /// Events of the lane and key that were pushed before this one must have settled.
    fn check(&self, sequential: bool, lane: usize, entry: &Entry<u64>) {
        let first_of_batch = |other: u64| {
            self.in_flight.iter().any(|batch| {
                batch.lane == lane && batch.entries.iter().any(|entry| entry.ticket == other)
            })
        };
        for (other_lane, key, ticket) in &self.pushed {
            let bound = if sequential { true } else { entry.key.is_some() && *key == entry.key };
            if *other_lane == lane && bound && *ticket < entry.ticket {
                let settled = self.settled.contains(&(lane, *ticket));
                assert!(settled || sequential, "{ticket} was overtaken by {}", entry.ticket);
                assert!(!first_of_batch(*ticket), "{ticket} was in flight with {}", entry.ticket);
            }
        }
    }
}

fn run(sequential: bool, steps: Vec<Step>) {
    let mut now = Clock::System.monotonic();
    let mut queue = Queue::new(Bounds { sequential, ..BOUNDS }, &[0, 3]);
    let mut oracle = Oracle::default();
    let mut next = [0_u64; 2];
    let land = |queue: &mut Queue<u64>, oracle: &mut Oracle, at: usize, failed: &[bool], now| {
        let batch = oracle.in_flight.remove(at);
        queue.landed(batch.lane);
        let mut again = Vec::new();
        for (index, mut entry) in batch.entries.into_iter().enumerate() {
            if failed.get(index).copied().unwrap_or(false) {
                entry.attempts += 1;
                again.push((now + Duration::from_millis(30), entry));
            } else {
                assert!(oracle.settled.insert((batch.lane, entry.ticket)), "settled twice");
                queue.settled(batch.lane, entry.key);
            }
        }
        queue.again(batch.lane, again);
    };
    let send = |queue: &mut Queue<u64>, oracle: &mut Oracle, now| {
        let Some(batch) = queue.next(now) else { return false };
        assert!((1..=BOUNDS.events_max).contains(&batch.entries.len()));
        batch.entries.iter().for_each(|entry| oracle.check(sequential, batch.lane, entry));
        let ordered = batch.entries.windows(2).all(|pair| pair[0].ticket < pair[1].ticket);
        assert!(ordered || !sequential);
        if sequential {
            let first = batch.entries[0].ticket;
            let before = (0..first).all(|ticket| oracle.settled.contains(&(batch.lane, ticket)));
            assert!(before, "{first} went before all before it had settled");
        }
        oracle.in_flight.push(batch);
        true
    };
    for step in steps {
        match step {
            Step::Push { lane, key } => {
                let ticket = next[lane];
                next[lane] += 1;
                oracle.pushed.push((lane, key, ticket));
                queue.push(lane, entry(ticket, key, now));
            }
            Step::Send => _ = send(&mut queue, &mut oracle, now),
            Step::Ahead => oracle.ahead(&mut queue),
            Step::Land { which, failed } if !oracle.in_flight.is_empty() => {
                let at = which.index(oracle.in_flight.len());
                land(&mut queue, &mut oracle, at, &failed, now);
            }
            Step::Land { .. } => {}
            Step::Pass { ms } => now += Duration::from_millis(ms),
        }
    }
    // Then all goes well, and everything settles.
    for _ in 0..4 * oracle.pushed.len() + 8 {
        now += Duration::from_millis(50);
        while send(&mut queue, &mut oracle, now) {}
        while !oracle.in_flight.is_empty() {
            land(&mut queue, &mut oracle, 0, &[], now);
        }
    }
    assert_eq!((oracle.settled.len(), queue.len()), (oracle.pushed.len(), 0));
    assert!(queue.busy.is_empty() && queue.parked.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn events_of_a_key_go_one_after_the_other_whatever_fails(
        steps in prop::collection::vec(step(), 0..200)
    ) {
        run(false, steps);
    }

    #[test]
    fn a_sequential_sink_gets_each_lane_in_order_whatever_fails(
        steps in prop::collection::vec(step(), 0..200)
    ) {
        run(true, steps);
    }
}
