//! What every sink must do, whatever it speaks to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use forebay::drain::sink::{Class, Delivered, Event, Failure, Pass, Sink};
use forebay_log::Clock;
use tokio::runtime::Runtime;

use super::events::{Events, name_of, names_of, with_pass, with_payload};
use super::{Counterpart, Served, TIMEOUT, Who};
use crate::support::random::Random;
use crate::support::{eventually, setting};

/// How long all of a batch may take to arrive at a server that comes and goes.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the engine waits for a batch or a probe of these tests; most sinks speak before.
const ENGINE_WAIT: Duration = TIMEOUT.saturating_mul(2);
/// Beyond this a sink has not given up in time: its own timeout, and a busy machine's part.
const GIVEN_UP_WAIT: Duration = Duration::from_secs(20);
const ROUNDS_DEFAULT: u64 = 2;
/// So many more than are asked for may be needed until a kill meets a batch on its way.
const ROUNDS_MORE: u64 = 20;

/// A server, its sink and the drain's runtime.
struct Bench<C> {
    sink: Arc<dyn Sink>,
    runtime: Runtime,
    server: C,
}

impl<C: Counterpart> Bench<C> {
    fn new() -> Self {
        let server = C::start();
        let sink = server.sink(Who::Known);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { sink, runtime, server }
    }

    /// One attempt: a verdict for each event.
    fn deliver(&self, batch: &[Event]) -> Vec<Result<(), Failure>> {
        deliver(&self.runtime, &*self.sink, batch)
    }

    /// One attempt that must succeed.
    fn must_deliver(&self, batch: &[Event]) {
        for (event, verdict) in batch.iter().zip(self.deliver(batch)) {
            assert_eq!(verdict, Ok(()), "{}", name_of(event));
        }
    }

    /// The class of what a probe fails with, if it does.
    fn probed(&self) -> Result<(), Class> {
        let bounded = async { tokio::time::timeout(ENGINE_WAIT, self.sink.probe()).await };
        match self.runtime.block_on(bounded) {
            Ok(probed) => probed.map_err(|failure| failure.class),
            Err(_) => Err(Class::Temporary),
        }
    }

    fn class_of_all(&self, batch: &[Event]) -> Class {
        let verdicts = self.deliver(batch);
        let classes: Vec<Option<Class>> =
            verdicts.iter().map(|verdict| verdict.as_ref().err().map(|f| f.class)).collect();
        assert!(classes.iter().all(|class| *class == classes[0]), "{verdicts:?}");
        classes[0].unwrap_or_else(|| panic!("it was delivered"))
    }
}

fn deliver(runtime: &Runtime, sink: &dyn Sink, batch: &[Event]) -> Vec<Result<(), Failure>> {
    let bounded = async { tokio::time::timeout(ENGINE_WAIT, sink.deliver(batch)).await };
    let late = |_| Delivered::None(Failure::temporary("the engine waits no longer"));
    verdicts(runtime.block_on(bounded).unwrap_or_else(late), batch)
}

fn verdicts(delivered: Delivered, batch: &[Event]) -> Vec<Result<(), Failure>> {
    match delivered {
        Delivered::All => vec![Ok(()); batch.len()],
        Delivered::Each(verdicts) => verdicts,
        Delivered::None(failure) => vec![Err(failure); batch.len()],
    }
}

/// As many attempts as it takes, each of what is missing, as the drain would make them. Returns
/// how many failed.
fn deliver_at_last(runtime: &Runtime, sink: &dyn Sink, batch: &[Event]) -> u64 {
    let mut missing = batch.to_vec();
    let mut failed = 0;
    eventually("a batch arrives at last", PATIENCE, || {
        let verdicts = deliver(runtime, sink, &missing);
        for failure in verdicts.iter().filter_map(|verdict| verdict.as_ref().err()) {
            assert_eq!(failure.class, Class::Temporary, "{failure}");
        }
        let mut verdicts = verdicts.into_iter();
        missing.retain(|_| verdicts.next().is_some_and(|verdict| verdict.is_err()));
        failed += u64::from(!missing.is_empty());
        missing.is_empty()
    });
    failed
}

pub(super) fn a_batch_arrives_once_and_in_order<C: Counterpart>() {
    let (bench, mut lane) = (Bench::<C>::new(), Events::of_lane("main"));
    let batches: Vec<Vec<Event>> = [1, 7, 100].map(|count| lane.next(count)).into();
    for batch in &batches {
        bench.must_deliver(batch);
    }
    assert_eq!(bench.server.stored(), names_of(&batches.concat()));
    assert_eq!(bench.probed(), Ok(()));
    assert_eq!(bench.server.stored().len(), 108, "a probe changes nothing");
}

pub(super) fn what_was_handed_over_again_is_there_once<C: Counterpart>() {
    let (mut bench, mut lane) = (Bench::<C>::new(), Events::of_lane("main"));
    let events = lane.next(30);
    bench.must_deliver(&events[..20]);
    bench.must_deliver(&events[..20]);
    // Some of them, and with some that are new.
    bench.must_deliver(&events[5..15]);
    bench.must_deliver(&events[10..]);
    // By another connection.
    bench.sink = bench.server.sink(Who::Known);
    bench.must_deliver(&events);
    assert_eq!(bench.server.stored(), names_of(&events));
}

pub(super) fn the_control_shows_what_comes_twice<C: Counterpart>() {
    let (bench, mut lane) = (Bench::<C>::new(), Events::of_lane("main"));
    let events = with_pass(&lane.next(10), bench.server.forget());
    bench.must_deliver(&events);
    bench.must_deliver(&events);
    assert_eq!(bench.server.stored(), names_of(&[events.clone(), events].concat()));
}

pub(super) fn events_of_two_lanes_keep_the_order_of_their_lane<C: Counterpart>() {
    let bench = Bench::<C>::new();
    let mut lanes = [Events::of_lane("main"), Events::of_lane("bulk")];
    let batches: Vec<[Vec<Event>; 2]> =
        (0..10).map(|_| lanes.each_mut().map(|lane| lane.next(20))).collect();
    for [first, second] in &batches {
        let both = async {
            futures_util::future::join(bench.sink.deliver(first), bench.sink.deliver(second)).await
        };
        let (one, other) = bench.runtime.block_on(both);
        assert!(verdicts(one, first).iter().all(Result::is_ok));
        assert!(verdicts(other, second).iter().all(Result::is_ok));
    }
    let mut stored: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in bench.server.stored() {
        stored.entry(name[..4].to_owned()).or_default().push(name);
    }
    for (index, lane) in ["main", "bulk"].into_iter().enumerate() {
        let sent: Vec<Event> = batches.iter().flat_map(|both| both[index].clone()).collect();
        assert_eq!(stored[lane], names_of(&sent));
    }
}

pub(super) fn a_poison_event_fails_alone_and_for_good<C: Served>() {
    let (bench, mut lane) = (Bench::<C>::new(), Events::of_lane("main"));
    let mut batch = lane.next(9);
    let poison = C::poison();
    batch.insert(4, lane.append(&poison));
    batch.push(lane.append(&poison));
    // The lane holds what is sent in the order of its positions.
    batch.sort_by_key(Event::position);
    let is_poison = |event: &&Event| event.payload() == poison.as_bytes();
    for _ in 0..2 {
        for (event, verdict) in batch.iter().zip(bench.deliver(&batch)) {
            let Err(failure) = verdict else {
                assert!(!is_poison(&event), "it took poison");
                continue;
            };
            assert!(is_poison(&event), "{failure}");
            assert_eq!(failure.class, Class::Permanent, "{failure}");
            let quoted = poison.get(..12).unwrap_or(&poison);
            assert!(!failure.reason.contains(quoted), "it tells a payload: {failure}");
        }
    }
    let good: Vec<Event> = batch.iter().filter(|event| !is_poison(event)).cloned().collect();
    assert_eq!(bench.server.stored(), names_of(&good));
}

pub(super) fn a_dead_letter_that_is_redriven_arrives<C: Served>() {
    let (bench, mut lane) = (Bench::<C>::new(), Events::of_lane("main"));
    let (early, dead, behind) = (lane.next(3), lane.append(&C::poison()), lane.next(3));
    let batch = [early.clone(), vec![dead.clone()], behind.clone()].concat();
    let failed = bench.deliver(&batch).iter().filter(|verdict| verdict.is_err()).count();
    assert_eq!(failed, 1);
    // It was shaped anew since, and it comes behind all that was behind it.
    let mended = with_pass(&[with_payload(&dead, "{\"n\": -1}")], Pass::Redrive);
    bench.must_deliver(&mended);
    // What is live goes on: nothing of it passes for known.
    let more = lane.next(5);
    bench.must_deliver(&more);
    assert_eq!(bench.server.stored(), names_of(&[early, behind, mended, more].concat()));
}

pub(super) fn a_lane_that_begins_anew_is_not_taken_for_the_old_one<C: Counterpart>() {
    let bench = Bench::<C>::new();
    let old = Events::of_lane("main").next(20);
    bench.must_deliver(&old);
    let new = Events::of_lane("main").next(10);
    assert_eq!(new[0].position(), old[0].position(), "the same name and the same positions");
    bench.must_deliver(&new);
    // Two lanes owe each other no order, and an object store tells times by the second.
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    assert_eq!(sorted(bench.server.stored()), sorted(names_of(&[old, new].concat())));
}

pub(super) fn a_server_that_is_away_is_a_matter_of_time<C: Served>() {
    let (mut bench, mut lane) = (Bench::<C>::new(), Events::of_lane("main"));
    let events = lane.next(20);
    bench.server.process().kill();
    assert_eq!(bench.class_of_all(&events[..10]), Class::Temporary);
    assert_eq!(bench.probed(), Err(Class::Temporary));
    bench.server.run();
    bench.must_deliver(&events[..10]);
    // A connection that was well until the server went.
    bench.server.process().kill();
    assert_eq!(bench.class_of_all(&events[10..]), Class::Temporary);
    bench.server.run();
    deliver_at_last(&bench.runtime, &*bench.sink, &events[10..]);
    assert_eq!(bench.server.stored(), names_of(&events));
}

pub(super) fn a_server_that_hangs_is_given_up_in_time<C: Served>() {
    let (mut bench, mut lane) = (Bench::<C>::new(), Events::of_lane("main"));
    let events = lane.next(20);
    bench.must_deliver(&events[..5]);
    bench.server.process().pause();
    let began = Clock::System.monotonic();
    // On the connection that there is, and on a new one.
    assert_eq!(bench.class_of_all(&events[5..10]), Class::Temporary);
    assert_eq!(bench.class_of_all(&events[5..10]), Class::Temporary);
    assert_eq!(bench.probed(), Err(Class::Temporary));
    let took = Clock::System.monotonic() - began;
    assert!(took < GIVEN_UP_WAIT, "it took {took:?} for three attempts of {TIMEOUT:?}");
    bench.server.process().resume();
    // What stood in its sockets may arrive now as well.
    deliver_at_last(&bench.runtime, &*bench.sink, &events[5..10]);
    deliver_at_last(&bench.runtime, &*bench.sink, &events[10..]);
    assert_eq!(bench.server.stored(), names_of(&events));
}

pub(super) fn a_server_killed_under_load_has_everything_once<C: Served>() {
    let rounds = setting("IT_SINK_ROUNDS", ROUNDS_DEFAULT);
    let seed = setting("IT_SEED", Clock::System.wall_ns());
    eprintln!("a server killed under load: {rounds} rounds, IT_SEED={seed}");
    let (mut bench, mut lane) = (Bench::<C>::new(), Events::of_lane("main"));
    let mut random = Random::new(seed);
    let (mut sent, mut failed, mut round) = (Vec::new(), 0, 0);
    // A few kills may all miss: then there are more.
    while round < rounds || failed == 0 && round < rounds + ROUNDS_MORE {
        round += 1;
        let life = Duration::from_micros(random.between(0, 30_000));
        let batches: Vec<Vec<Event>> = (0..40).map(|_| lane.next(25)).collect();
        let Bench { sink, runtime, server } = bench;
        let (still, back) = std::thread::scope(|scope| {
            let killer = scope.spawn(move || {
                let mut server = server;
                std::thread::sleep(life);
                server.process().kill();
                server.run();
                server
            });
            let failures: u64 =
                batches.iter().map(|batch| deliver_at_last(&runtime, &*sink, batch)).sum();
            (failures, killer.join().unwrap())
        });
        bench = Bench { sink, runtime, server: back };
        failed += still;
        sent.extend(names_of(&batches.concat()));
        assert_eq!(bench.server.stored(), sent, "round {round}");
    }
    eprintln!("{} events, {failed} attempts failed, 0 lost, 0 twice", sent.len());
    assert!(failed > 0, "no kill met a batch on its way");
}

pub(super) fn a_stranger_is_told_to_mend_its_credentials<C: Served>() {
    let (mut bench, mut lane) = (Bench::<C>::new(), Events::of_lane("main"));
    let events = lane.next(5);
    let known = std::mem::replace(&mut bench.sink, bench.server.sink(Who::Stranger));
    assert_eq!(bench.class_of_all(&events), Class::Misconfigured);
    let told = if C::PROBE_TELLS_STRANGERS { Err(Class::Misconfigured) } else { Ok(()) };
    assert_eq!(bench.probed(), told);
    bench.sink = known;
    bench.must_deliver(&events);
    assert_eq!(bench.server.stored(), names_of(&events));
}

/// The class of what failed first.
pub(super) fn class_of(delivered: &Delivered) -> Option<Class> {
    match delivered {
        Delivered::All => None,
        Delivered::None(failure) => Some(failure.class),
        Delivered::Each(verdicts) => {
            verdicts.iter().find_map(|verdict| verdict.as_ref().err()).map(|failure| failure.class)
        }
    }
}
