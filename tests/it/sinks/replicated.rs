//! `ack = "replicated"` before a real server: a 2xx means that the server has the event, whatever
//! becomes of forebay, and of the machine that it ran on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay_log::Clock;

use super::{Counterpart, Served};
use crate::support::http::{Connection, Response};
use crate::support::random::Random;
use crate::support::server::{Server, Setup, forebay};
use crate::support::{Driver, eventually, setting, sign};

const ROUNDS_DEFAULT: u64 = 2;
const SENDERS: usize = 8;
/// The server dies no earlier than this many acknowledgements into a round.
const ACKNOWLEDGED_MIN: u64 = 60;
/// A request is answered within five seconds; the rest is a busy machine's part.
const ANSWERED_WITHIN: Duration = Duration::from_secs(12);
/// How long a sink may take to notice that its server is back: circuits wait up to 30 s.
const BACK_WAIT: Duration = Duration::from_secs(90);

/// A forebay whose one lane has this ack level, and a sink before `stream`.
fn setup(stream: &impl Counterpart, driver: Driver, ack: &'static str) -> Setup {
    let sink = format!(
        "[[sink]]\nname = \"it\"\nretry = {{ first = \"20ms\", max = \"200ms\" }}\n\
         timeout = \"2s\"\n{}",
        stream.section()
    );
    let setup = Setup::new(driver).ack(ack).more(&sink);
    if ack == "replicated" { setup.lane("replicate_to = \"it\"") } else { setup }
}

fn body(id: &str) -> Vec<u8> {
    format!("{{\"id\": \"{id}\"}}").into_bytes()
}

fn send(server: &Server, id: &str) -> Response {
    server.send(&sign::standard(id, &body(id)))
}

fn reason(response: &Response) -> String {
    let problem: serde_json::Value = serde_json::from_slice(&response.body).unwrap_or_default();
    problem["reason"].as_str().unwrap_or_default().to_owned()
}

/// A refusal that has the sender try again.
fn assert_not_replicated(response: &Response, id: &str) {
    assert_eq!(response.status, 503, "{id}");
    assert_eq!(reason(response), "not_replicated", "{id}: {}", response.text());
    assert!(response.value("retry-after").parse::<u64>().is_ok_and(|wait| wait <= 10), "{id}");
}

fn sends_until_taken(server: &Server, id: &str) {
    eventually("a retry is acknowledged", BACK_WAIT, || {
        let answer = send(server, id);
        assert!([200, 503].contains(&answer.status), "{id}: {}", answer.text());
        answer.status == 200
    });
}

fn assert_once_each<'i>(stream: &impl Counterpart, ids: impl IntoIterator<Item = &'i String>) {
    let stored = stream.event_ids();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for id in &stored {
        *counts.entry(id).or_default() += 1;
    }
    for id in ids {
        assert_eq!(counts.get(id.as_str()), Some(&1), "{id}");
    }
    assert!(counts.values().all(|count| *count == 1), "some are there twice");
}

pub(super) fn a_2xx_waits_for_the_stream_and_is_a_503_while_the_stream_stands_still<S: Served>() {
    let mut stream = S::start();
    let server = Server::start(setup(&stream, Driver::Epoll, "replicated"));
    let mut sent = BTreeSet::new();
    for index in 0..10 {
        let id = format!("well-{index}");
        let answer = send(&server, &id);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(stream.event_ids().contains(&id), "acknowledged, and not in the stream: {id}");
        sent.insert(id);
    }

    stream.process().pause();
    std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            let server = &server;
            scope.spawn(move || {
                for index in 0..2 {
                    let id = format!("still-{sender}-{index}");
                    let began = Clock::System.monotonic();
                    assert_not_replicated(&send(server, &id), &id);
                    let took = Clock::System.monotonic() - began;
                    assert!(took < ANSWERED_WITHIN, "{id} took {took:?}");
                }
            });
        }
    });
    sent.extend((0..SENDERS).flat_map(|of| (0..2).map(move |at| format!("still-{of}-{at}"))));
    eventually("who cannot keep the level is not ready", BACK_WAIT, || {
        let id = format!("later-{}", sent.len());
        assert_not_replicated(&send(&server, &id), &id);
        sent.insert(id);
        server.admin("/readyz").status == 503
    });
    // One that was known before is known now, and was replicated then.
    assert_eq!(send(&server, "well-3").status, 200);
    let metrics = server.admin("/metrics");
    assert!(metrics.text().contains("outcome=\"not_replicated\""), "refusals are not counted");

    stream.process().resume();
    for id in &sent {
        sends_until_taken(&server, id);
    }
    assert_once_each(&stream, &sent);
    assert_eq!(stream.event_ids().len(), sent.len());
    assert_eq!(server.events().len(), sent.len(), "a retry is a delivery of a known event");
    assert_eq!(server.admin("/readyz").status, 200);
    let metrics = server.admin("/metrics");
    let count = "forebay_lane_replication_seconds_count{lane=\"main\",sink=\"it\"}";
    let count =
        metrics.text().lines().find_map(|line| line.strip_prefix(count)?.trim().parse().ok());
    assert_eq!(count, Some(sent.len()), "each is counted once");
}

/// Memory knows the newest events alone; this many are too many for one that is small.
const FORGOTTEN_BY_MEMORY: usize = 400;

pub(super) fn a_retry_of_what_the_stream_lacks_is_refused_also_when_its_key_is_in_a_file<
    S: Served,
>() {
    let mut stream = S::start();
    let mut server = Server::prepare(setup(&stream, Driver::Epoll, "replicated"));
    let small = server.config_text().replace("dedupe_capacity = 200000", "dedupe_capacity = 1024");
    server.write_config_text(&small);
    server.run();
    stream.process().pause();
    let ids: Vec<String> = (0..FORGOTTEN_BY_MEMORY).map(|at| format!("still-{at}")).collect();
    for id in &ids {
        assert_not_replicated(&send(&server, id), id);
    }
    let files = server.data().join("lanes/main/dedupe");
    eventually("keys are in a file", BACK_WAIT, || {
        std::fs::read_dir(&files)
            .unwrap()
            .flatten()
            .any(|file| file.path().extension().is_some_and(|extension| extension == "gen"))
    });
    for id in &ids {
        assert_not_replicated(&send(&server, id), id);
    }
    stream.process().resume();
    for id in &ids {
        sends_until_taken(&server, id);
    }
    assert_once_each(&stream, &ids);
    assert_eq!(server.events().len(), ids.len(), "a retry is a delivery of a known event");
}

pub(super) fn a_lane_that_a_reload_moves_to_a_stream_that_answers_is_acknowledged_there<
    S: Served,
>() {
    let (mut away, there) = (S::start(), S::start());
    let server = Server::start(setup(&away, Driver::Epoll, "replicated"));
    sends_until_taken(&server, "well");
    away.process().pause();
    eventually("who cannot keep the level is not ready", BACK_WAIT, || {
        assert_not_replicated(&send(&server, "still"), "still");
        server.admin("/readyz").status == 503
    });
    server.write_config(&setup(&there, Driver::Epoll, "replicated"));
    server.reload();
    eventually("it is ready with the other stream", BACK_WAIT, || {
        server.admin("/readyz").status == 200
    });
    sends_until_taken(&server, "moved");
    assert_eq!(send(&server, "at once").status, 200);
    away.process().resume();
    assert!(there.event_ids().contains(&"still".to_owned()), "what waited came here");
}

/// What the senders of a round know.
#[derive(Debug, Default)]
struct Told {
    acknowledged: BTreeSet<String>,
    /// Sent, and not answered by 200.
    open: BTreeSet<String>,
}

/// Sends under load until forebay is killed, while the stream's server may stand still.
fn round_of(
    server: &mut Server,
    stream: &mut impl Served,
    random: &mut Random,
    round: u64,
) -> Told {
    let life = Duration::from_micros(random.between(0, 100_000));
    let still = Duration::from_micros(random.between(0, 40_000));
    let stands_still = random.once_in(2);
    let address = server.address();
    // Relaxed: it only says when there is enough load.
    let answered = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let answered = &answered;
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                scope.spawn(move || {
                    send_until_it_dies(address, &format!("r{round}-s{sender}"), answered)
                })
            })
            .collect();
        eventually("the load runs", Duration::from_secs(60), || {
            answered.load(Ordering::Relaxed) >= ACKNOWLEDGED_MIN
        });
        std::thread::sleep(life);
        if stands_still {
            stream.process().pause();
            std::thread::sleep(still);
        }
        server.kill();
        if stands_still {
            stream.process().resume();
        }
        let mut told = Told::default();
        for sender in senders {
            let Told { acknowledged, open } = sender.join().unwrap();
            told.acknowledged.extend(acknowledged);
            told.open.extend(open);
        }
        told
    })
}

fn send_until_it_dies(address: SocketAddr, prefix: &str, answered: &AtomicU64) -> Told {
    let mut told = Told::default();
    let Ok(mut connection) = Connection::open(address) else { return told };
    for index in 0.. {
        let id = format!("{prefix}-{index}");
        let answer = connection.send(&sign::standard(&id, &body(&id)));
        match answer.map(|answer| (answer.status, answer.closes())) {
            Ok((200, _)) => {
                answered.fetch_add(1, Ordering::Relaxed);
                told.acknowledged.insert(id);
            }
            Ok((503, closes)) => {
                told.open.insert(id);
                if closes {
                    let Ok(next) = Connection::open(address) else { return told };
                    connection = next;
                }
            }
            Ok((status, _)) => panic!("{id}: {status}"),
            Err(_) => {
                told.open.insert(id);
                return told;
            }
        }
    }
    told
}

/// Rounds of kills at this ack level; what is missing in the stream after each kill, before
/// forebay runs again: as if its machine were gone.
fn campaign<S: Served>(driver: Driver, ack: &'static str) -> BTreeSet<String> {
    let rounds = setting("IT_SINK_ROUNDS", ROUNDS_DEFAULT);
    let seed = setting("IT_SEED", Clock::System.wall_ns());
    eprintln!("machines lost, {ack}, {}: {rounds} rounds, IT_SEED={seed}", driver.name());
    let mut random = Random::new(seed);
    let mut stream = S::start();
    let mut server = Server::start(setup(&stream, driver, ack));
    let (mut acknowledged, mut open, mut lost) = (BTreeSet::new(), 0, BTreeSet::new());
    for round in 0..rounds {
        let told = round_of(&mut server, &mut stream, &mut random, round);
        let stored: BTreeSet<String> = stream.event_ids().into_iter().collect();
        lost.extend(told.acknowledged.difference(&stored).cloned());
        acknowledged.extend(told.acknowledged);
        server.run();
        open += told.open.len();
        for id in told.open {
            sends_until_taken(&server, &id);
            acknowledged.insert(id);
        }
    }
    eventually("all that was acknowledged is in the stream", BACK_WAIT, || {
        let stored: BTreeSet<String> = stream.event_ids().into_iter().collect();
        acknowledged.is_subset(&stored)
    });
    assert_once_each(&stream, &acknowledged);
    eprintln!(
        "{ack}: {} acknowledged, {open} of them only after a kill; {} were not in the stream when \
         their machine was lost",
        acknowledged.len(),
        lost.len()
    );
    lost
}

pub(super) fn what_was_acknowledged_at_replicated_is_in_the_stream_when_its_machine_is_lost<
    S: Served,
>() {
    for driver in [Driver::Epoll, Driver::IoUring].into_iter().filter(|driver| driver.usable()) {
        let lost = campaign::<S>(driver, "replicated");
        assert!(lost.is_empty(), "acknowledged, and lost with the machine: {lost:?}");
    }
}

/// The negative control: a level that does not promise it is seen not to hold it.
pub(super) fn what_was_acknowledged_at_synced_alone_is_seen_to_be_lost_with_its_machine<
    S: Served,
>() {
    let lost = campaign::<S>(Driver::Epoll, "synced");
    assert!(!lost.is_empty(), "the campaign does not see what is lost");
}

pub(super) fn a_dead_letter_is_no_replica_until_it_is_discarded_also_after_a_restart<S: Served>() {
    let stream = S::start();
    let mut server = Server::start(setup(&stream, Driver::Epoll, "replicated"));
    let poison = sign::standard("poison", S::poison().as_bytes());
    assert_not_replicated(&server.send(&poison), "poison");
    assert_eq!(send(&server, "behind").status, 200, "the others go on");
    assert_not_replicated(&server.send(&poison), "poison");
    server.kill();
    server.run();
    sends_until_taken(&server, "behind");
    assert_not_replicated(&server.send(&poison), "poison");
    let discard = ["dead-letters", "discard", "--event", "poison", "--config"];
    let done = forebay(&discard).arg(server.config()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    eventually("who has discarded a letter gets no more of it", BACK_WAIT, || {
        server.send(&poison).status == 200
    });
    assert_eq!(stream.event_ids(), ["behind"]);
}
