//! forebay as a whole before a real server: either of them killed by -9 again and again, the
//! server stopped, slow or not there at all, while senders send and forebay drains; and in the
//! end every acknowledged event is at the server, once, behind all others of its key.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use forebay_log::Clock;

use super::{Counterpart, Served};
use crate::support::http::Connection;
use crate::support::random::Random;
use crate::support::server::{Server, Setup, forebay};
use crate::support::{Driver, eventually, setting, sign};

const ROUNDS_DEFAULT: u64 = 2;
/// Order keys that events share.
const KEYS: u64 = 7;
/// The server dies no earlier than this many acknowledgements into a round.
const ACKNOWLEDGED_MIN: u64 = 60;
/// How long nothing may arrive while something is missing.
pub(super) const DRAIN_WAIT: Duration = Duration::from_secs(60);
/// How often the sink is asked for what it has.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How long nothing more must come after all have come.
const QUIET: Duration = Duration::from_millis(300);
/// How long a server that is stopped stays so, unless `IT_SINK_STOPPED_MS` says else: longer than its
/// sink waits for a batch.
const STOPPED_MS_DEFAULT: u64 = 1500;
/// What comes while it is stopped, at the most. Without a bound 714,000 came in a minute, and forebay, which
/// has memory for 200,000 events here, answered `dedupe_full`; that its files fell behind in a debug build is
/// likely and was not measured.
const STOPPED_EVENTS: u32 = 30_000;

/// A forebay that drains to this counterpart.
pub(super) fn serving<C: Counterpart>(sink: &C) -> Server {
    // Small batches, so that a kill finds some settled, some under way and some not begun.
    let section = format!(
        "[[sink]]\nname = \"it\"\nlanes = [\"main\"]\norder = \"key\"\norder_key = \"json:k\"\n\
         batch = {{ count = 16, linger = \"10ms\" }}\n\
         retry = {{ first = \"20ms\", max = \"200ms\" }}\ntimeout = \"1s\"\n{}",
        sink.section()
    );
    // Segments and bodies that hold the poison of every counterpart.
    Server::start(Setup::new(Driver::Epoll).segments("32MiB", "2MiB").more(&section))
}

/// What was sent so far.
#[derive(Debug, Default)]
pub(super) struct Sent {
    count: u64,
    acknowledged: Vec<String>,
    /// Not answered: they may arrive or not.
    open: BTreeSet<String>,
}

/// Ids grow in the order of sending.
fn id_of(number: u64) -> String {
    format!("k{}-{number:08}", number % KEYS)
}

impl Sent {
    /// So many events, all of which must be acknowledged.
    pub(super) fn send(&mut self, server: &Server, count: u64) {
        let mut connection = server.connect();
        for _ in 0..count {
            assert!(self.send_one(&mut connection), "forebay does not answer");
        }
    }

    /// False if it was not answered.
    fn send_one(&mut self, connection: &mut Connection) -> bool {
        let (id, number) = (id_of(self.count), self.count);
        self.count += 1;
        let body = format!("{{\"id\": \"{id}\", \"k\": {}}}", number % KEYS);
        let Ok(response) = connection.send(&sign::standard(&id, body.as_bytes())) else {
            self.open.insert(id);
            return false;
        };
        assert_eq!(response.status, 200, "{id}: {}", response.text());
        self.acknowledged.push(id);
        true
    }

    fn send_until(
        &mut self,
        address: SocketAddr,
        answered: &AtomicU64,
        stop: &AtomicBool,
        pace: Duration,
    ) {
        let mut connection = Connection::open(address).unwrap();
        // Relaxed: one says when there is enough load, the other when it is enough.
        while !stop.load(Ordering::Relaxed) && self.send_one(&mut connection) {
            answered.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(pace);
        }
    }

    /// What a sink that holds this has lost, has twice, has of nobody, and has behind a later
    /// event of the same key.
    fn faults(&self, stored: &[String]) -> Vec<String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut newest: BTreeMap<&str, &str> = BTreeMap::new();
        let mut faults = Vec::new();
        for id in stored {
            *counts.entry(id).or_default() += 1;
            let key = id.split('-').next().unwrap_or_default();
            if newest.insert(key, id).is_some_and(|newest| newest > id.as_str()) {
                faults.push(format!("{id} came late"));
            }
        }
        let known: BTreeSet<&String> = self.acknowledged.iter().chain(&self.open).collect();
        for (id, count) in &counts {
            if *count > 1 {
                faults.push(format!("{id} is there {count} times"));
            }
            if !known.contains(&(*id).to_owned()) {
                faults.push(format!("{id} was never sent"));
            }
        }
        let lost = self.acknowledged.iter().filter(|id| !counts.contains_key(id.as_str()));
        faults.extend(lost.map(|id| format!("{id} is lost")));
        faults
    }

    /// Waits for all of it, for as long as it comes, and for nothing more.
    pub(super) fn must_arrive<C: Counterpart>(&self, sink: &C) {
        let clock = Clock::System;
        let (mut arrived, mut since) = (0, clock.monotonic());
        loop {
            let stored: BTreeSet<String> = sink.event_ids().into_iter().collect();
            let missing = self.acknowledged.iter().filter(|id| !stored.contains(*id)).count();
            if missing == 0 {
                break;
            }
            if stored.len() > arrived {
                (arrived, since) = (stored.len(), clock.monotonic());
            }
            let still = clock.monotonic() - since;
            assert!(still < DRAIN_WAIT, "{missing} are missing, and nothing came for {still:?}");
            // To be asked for all of it is work for the sink as well.
            std::thread::sleep(ASK_EVERY);
        }
        std::thread::sleep(QUIET);
        assert_eq!(self.faults(&sink.event_ids()), Vec::<String>::new());
    }
}

/// Events that the sink has not taken, at each attempt.
pub(super) fn failures(server: &Server) -> u64 {
    sum(server, "forebay_sink_failures_total{")
}

/// The sum of a metric over its labels.
fn sum(server: &Server, name: &str) -> u64 {
    let page = server.admin("/metrics");
    let values = page.text().lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
    values.map(|(_, value)| value.parse::<u64>().unwrap()).sum()
}

#[test]
fn the_judge_sees_what_is_lost_twice_unknown_or_late() {
    let ids: Vec<String> = (0..20).map(id_of).collect();
    let sent = Sent { count: 20, acknowledged: ids.clone(), open: [id_of(20)].into() };
    assert_eq!(sent.faults(&ids), Vec::<String>::new());
    let with = |change: &dyn Fn(&mut Vec<String>)| {
        let mut stored = ids.clone();
        change(&mut stored);
        sent.faults(&stored)
    };
    assert_eq!(with(&|stored| stored.push(id_of(20))), Vec::<String>::new(), "unanswered");
    assert_eq!(with(&|stored| drop(stored.remove(3))), ["k3-00000003 is lost"]);
    assert_eq!(with(&|stored| stored.push(id_of(19))), ["k5-00000019 is there 2 times"]);
    assert_eq!(with(&|stored| stored.push(id_of(21))), ["k0-00000021 was never sent"]);
    assert_eq!(with(&|stored| stored.swap(4, 11)), ["k4-00000004 came late"]);
    assert_eq!(with(&|stored| stored.swap(4, 12)).len(), 2, "both leave the order of their keys");
    assert_eq!(with(&|stored| stored.swap(4, 5)), Vec::<String>::new(), "of two keys");
}

pub(super) fn what_forebay_acknowledged_arrives_once_through_its_kills<C: Counterpart>() {
    let rounds = setting("IT_SINK_ROUNDS", ROUNDS_DEFAULT);
    let seed = setting("IT_SEED", Clock::System.wall_ns());
    eprintln!("forebay killed while it drains: {rounds} rounds, IT_SEED={seed}");
    let mut random = Random::new(seed);
    let sink = C::start();
    let mut server = serving(&sink);
    let (mut sent, mut underway) = (Sent::default(), 0);
    for _ in 0..rounds {
        let life = Duration::from_micros(random.between(0, 100_000));
        while_sending(&mut sent, &server, C::PACE, || {
            std::thread::sleep(life);
            server.strike();
        });
        server.bury();
        underway += sent.acknowledged.len().saturating_sub(sink.event_ids().len());
        server.run();
    }
    sent.must_arrive(&sink);
    eprintln!(
        "{} acknowledged, {} unanswered, {underway} still to drain at the kills; 0 lost, 0 twice, \
         0 late",
        sent.acknowledged.len(),
        sent.open.len()
    );
    assert!(underway > 0, "no kill met the drain at work");
}

pub(super) fn a_poison_event_becomes_a_dead_letter_and_holds_up_nothing<C: Counterpart>() {
    let sink = C::start();
    let (server, mut sent) = (serving(&sink), Sent::default());
    sent.send(&server, 50);
    let poison = sign::standard("poison", C::poison().as_bytes());
    assert_eq!(server.send(&poison).status, 200);
    sent.send(&server, 50);
    eventually("the poison is a dead letter", DRAIN_WAIT, || {
        sum(&server, "forebay_sink_dead_letters_total{") == 1
    });
    sent.must_arrive(&sink);
    let list = ["dead-letters", "list", "--json", "--sink", "it", "--config"];
    let listed = forebay(&list).arg(server.config()).output().unwrap();
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let letters = listed["dead_letters"].as_array().unwrap();
    assert_eq!(letters.len(), 1, "{listed}");
    assert_eq!(letters[0]["event_id"], "poison");
}

pub(super) fn a_server_that_was_not_there_yet_gets_all_of_it<C: Served>() {
    let mut sink = C::start();
    sink.process().kill();
    let (server, mut sent) = (serving(&sink), Sent::default());
    sent.send(&server, 200);
    eventually("the sink is left alone", DRAIN_WAIT, || sum(&server, "forebay_sink_circuit{") == 2);
    sent.send(&server, 200);
    sink.run();
    sent.must_arrive(&sink);
}

pub(super) fn order_holds_while_the_server_dies_hangs_and_is_slow<C: Served>() {
    // Each kind of harm at least once.
    let rounds = setting("IT_SINK_ROUNDS", ROUNDS_DEFAULT).max(3);
    let stopped = Duration::from_millis(setting("IT_SINK_STOPPED_MS", STOPPED_MS_DEFAULT));
    let seed = setting("IT_SEED", Clock::System.wall_ns());
    eprintln!(
        "a server killed, stopped for {stopped:?} and slowed under the drain: {rounds} rounds, \
         IT_SEED={seed}"
    );
    let pace = C::PACE.max(stopped / STOPPED_EVENTS);
    let mut random = Random::new(seed);
    let mut sink = C::start();
    let (server, mut sent) = (serving(&sink), Sent::default());
    for round in 0..rounds {
        let life = Duration::from_micros(random.between(0, 100_000));
        while_sending(&mut sent, &server, pace, || {
            std::thread::sleep(life);
            match round % 3 {
                0 => {
                    sink.process().kill();
                    std::thread::sleep(life);
                    sink.run();
                }
                1 => {
                    sink.process().pause();
                    std::thread::sleep(stopped);
                    sink.process().resume();
                }
                // A fifth of its speed.
                _ => (0..20).for_each(|_| {
                    sink.process().pause();
                    std::thread::sleep(Duration::from_millis(40));
                    sink.process().resume();
                    std::thread::sleep(Duration::from_millis(10));
                }),
            }
        });
    }
    sent.must_arrive(&sink);
    let failures = failures(&server);
    eprintln!(
        "{} events, {failures} times one was not taken; 0 lost, 0 twice, 0 late",
        sent.acknowledged.len()
    );
    assert_eq!(sent.open, BTreeSet::new(), "a sink in trouble is no trouble of the senders");
    assert!(failures > 0, "no harm met a batch on its way");
}

/// Stops the load with it.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends, does something once the load runs, and stops if nobody else has stopped it.
fn while_sending(sent: &mut Sent, server: &Server, pace: Duration, act: impl FnOnce()) {
    let (answered, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let address = server.address();
    std::thread::scope(|scope| {
        scope.spawn(|| sent.send_until(address, &answered, &stop, pace));
        // Also when something below panics, or the sender would be waited for without end.
        let _stop = Stop(&stop);
        eventually("the load runs", Duration::from_secs(30), || {
            answered.load(Ordering::Relaxed) >= ACKNOWLEDGED_MIN
        });
        act();
    });
}
