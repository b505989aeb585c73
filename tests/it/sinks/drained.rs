//! forebay as a whole before a real server: killed by -9 again and again while senders send and it
//! drains, and in the end every acknowledged event is at the server, once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay_log::Clock;

use super::Counterpart;
use crate::support::http::Connection;
use crate::support::random::Random;
use crate::support::server::{Server, Setup};
use crate::support::{Driver, eventually, setting, sign};

const ROUNDS_DEFAULT: u64 = 2;
/// The server dies no earlier than this many acknowledgements into a round.
const ACKNOWLEDGED_MIN: u64 = 60;
/// How long the last events may take to arrive.
const ARRIVAL_WAIT: Duration = Duration::from_secs(60);
/// How long nothing more must come after all have come.
const QUIET: Duration = Duration::from_millis(300);

pub(super) fn what_forebay_acknowledged_arrives_once_through_its_kills<C: Counterpart>() {
    let rounds = setting("IT_SINK_ROUNDS", ROUNDS_DEFAULT);
    let seed = setting("IT_SEED", Clock::System.wall_ns());
    eprintln!("forebay killed while it drains: {rounds} rounds, IT_SEED={seed}");
    let mut random = Random::new(seed);
    let sink = C::start();
    // Small batches, so that a kill finds some settled, some under way and some not begun.
    let section = format!(
        "[[sink]]\nname = \"it\"\nlanes = [\"main\"]\nbatch = {{ count = 16, linger = \"10ms\" }}\n\
         retry = {{ first = \"20ms\", max = \"200ms\" }}\ntimeout = \"5s\"\n{}",
        sink.section()
    );
    let mut server = Server::start(Setup::new(Driver::Epoll).more(&section));
    let (mut acknowledged, mut open, mut underway) = (Vec::new(), Vec::new(), 0);
    for round in 0..rounds {
        let (told, unanswered) = round_of(&mut server, &mut random, round);
        acknowledged.extend(told);
        open.extend(unanswered);
        underway += acknowledged.len().saturating_sub(sink.event_ids().len());
        server.run();
    }
    let mut stored = BTreeMap::new();
    eventually("all that was acknowledged is at the sink", ARRIVAL_WAIT, || {
        stored = counted(&sink.event_ids());
        acknowledged.iter().all(|id| stored.contains_key(id))
    });
    std::thread::sleep(QUIET);
    stored = counted(&sink.event_ids());
    for (id, count) in &stored {
        assert_eq!(*count, 1, "{id} is there {count} times");
        assert!(acknowledged.contains(id) || open.contains(id), "{id} was never sent");
    }
    eprintln!(
        "{} acknowledged, {} unanswered, {underway} still to drain at the kills; 0 lost, 0 twice",
        acknowledged.len(),
        open.len()
    );
    assert!(underway > 0, "no kill met the drain at work");
}

/// Sends until the server is killed. Returns what was acknowledged, and what was not answered.
fn round_of(server: &mut Server, random: &mut Random, round: u64) -> (Vec<String>, Vec<String>) {
    let life = Duration::from_micros(random.between(0, 100_000));
    let address = server.address();
    // Relaxed: it only says when there is enough load.
    let answered = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| send_until_it_dies(address, round, &answered));
        eventually("the load runs", Duration::from_secs(30), || {
            answered.load(Ordering::Relaxed) >= ACKNOWLEDGED_MIN
        });
        std::thread::sleep(life);
        server.kill();
        sender.join().unwrap()
    })
}

fn send_until_it_dies(
    address: SocketAddr,
    round: u64,
    answered: &AtomicU64,
) -> (Vec<String>, Vec<String>) {
    let mut acknowledged = Vec::new();
    let mut connection = Connection::open(address).unwrap();
    for index in 0.. {
        let id = format!("r{round}-{index}");
        let request = sign::standard(&id, format!("{{\"id\": \"{id}\"}}").as_bytes());
        let Ok(response) = connection.send(&request) else { return (acknowledged, vec![id]) };
        assert_eq!(response.status, 200, "{id}: {}", response.text());
        acknowledged.push(id);
        answered.fetch_add(1, Ordering::Relaxed);
    }
    (acknowledged, Vec::new())
}

fn counted(ids: &[String]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for id in ids {
        *counts.entry(id.clone()).or_insert(0) += 1;
    }
    counts
}
