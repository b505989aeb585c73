//! Three forebays behind one load balancer, all before one stream: the files of
//! `tuning/three-nodes`, on addresses of this test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::Counterpart;
use super::nats::{Nats, PASSWORD, STREAM};
use super::process::{Process, START_WAIT};
use crate::support::http::{Connection, Request};
use crate::support::server::{Server, Setup};
use crate::support::{Driver, eventually, sign};

const SENDERS: usize = 6;
/// Acknowledgements before a node is killed, while it is gone, and after it is back.
const PART: u64 = 150;
const PATIENCE: Duration = Duration::from_secs(60);
/// How long nothing more must come after all have come.
const QUIET: Duration = Duration::from_millis(500);

fn sample(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning/three-nodes");
    fs::read_to_string(folder.join(name)).unwrap()
}

/// The text with other words in the place of some of its own, each of which it must have.
fn changed(mut text: String, changes: &[(&str, String)]) -> String {
    for (from, to) in changes {
        assert!(text.contains(from), "the sample has no {from}");
        text = text.replace(from, to);
    }
    text
}

/// A node that is not started: the sample, made small, on this test's addresses.
fn node(nats: &Nats) -> Server {
    let setup = Setup::new(Driver::Epoll)
        .environment("ACME_SECRET", sign::STANDARD_SECRET)
        .environment("NATS_PASSWORD", PASSWORD)
        .environment("FOREBAY_RECEIVE__RECEIVERS", "1")
        .environment("FOREBAY_LANE__EVENTS__SEGMENT_SIZE", "4MiB")
        .environment("FOREBAY_LANE__EVENTS__DEDUPE_CAPACITY", "100000");
    let server = Server::prepare(setup);
    let admin = format!("\n[admin]\nlisten = \"{}\"\n\n[[lane]]", server.admin_address());
    let text = changed(
        sample("forebay.toml"),
        &[
            ("/var/lib/forebay", server.data().display().to_string()),
            ("0.0.0.0:8080", server.address().to_string()),
            ("10.0.0.10/32", "127.0.0.0/8".to_owned()),
            ("\n[[lane]]", admin),
            ("nats://10.0.0.21:4222", nats.server()),
            (", \"nats://10.0.0.22:4222\", \"nats://10.0.0.23:4222\"", String::new()),
            ("replicas = 3", "replicas = 1".to_owned()),
        ],
    );
    assert!(text.contains(&format!("stream = \"{STREAM}\"")), "the counterpart looks there");
    server.write_config_text(&text);
    server
}

/// Three nodes that run, with one key as the sample's README says.
fn nodes(nats: &Nats) -> Vec<Server> {
    let mut nodes: Vec<Server> = (0..3).map(|_| node(nats)).collect();
    nodes[0].run();
    let key = fs::read(nodes[0].data().join("dedupe.key")).unwrap();
    for node in &mut nodes[1..] {
        fs::create_dir(node.data()).unwrap();
        fs::write(node.data().join("dedupe.key"), &key).unwrap();
        node.run();
    }
    nodes
}

/// nginx with the sample before these nodes.
fn balancer(nodes: &[Server]) -> (Process, SocketAddr) {
    let mut process = Process::new();
    let folder = process.folder.path().to_owned();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, process.port));
    let mut changes = vec![("listen 80;", format!("listen {address};"))];
    let samples = ["10.0.0.11:8080", "10.0.0.12:8080", "10.0.0.13:8080"];
    changes.extend(samples.into_iter().zip(nodes.iter().map(|node| node.address().to_string())));
    fs::write(folder.join("forebay.conf"), changed(sample("nginx.conf"), &changes)).unwrap();
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {0}/{kind};\n", folder.display()))
        .concat();
    let text = format!(
        "daemon off;\nmaster_process off;\npid {0}/pid;\nerror_log {0}/errors;\nevents {{}}\n\
         http {{\naccess_log off;\n{paths}include {0}/forebay.conf;\n}}\n",
        folder.display()
    );
    fs::write(folder.join("nginx.conf"), text).unwrap();
    let mut nginx = Command::new("nginx");
    process.spawn(nginx.arg("-p").arg(&folder).arg("-c").arg(folder.join("nginx.conf")));
    eventually("nginx is ready", START_WAIT, || Connection::open(address).is_ok());
    (process, address)
}

fn request(id: &str) -> Request {
    sign::standard(id, format!("{{\"type\":\"a.b\",\"id\":\"{id}\"}}").as_bytes()).to("/hooks/acme")
}

fn counts(nats: &Nats) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for id in nats.event_ids() {
        *counts.entry(id).or_default() += 1;
    }
    counts
}

#[test]
#[ignore = "needs the sinks' servers, see tests/run sinks"]
fn an_event_that_comes_to_three_nodes_is_in_the_stream_once() {
    let nats = Nats::start();
    let nodes = nodes(&nats);
    let ids: Vec<String> = (0..30).map(|index| format!("twin-{index}")).collect();
    std::thread::scope(|scope| {
        for node in &nodes {
            let ids = &ids;
            scope.spawn(move || {
                let mut connection = node.connect();
                for id in ids {
                    let answer = connection.send(&request(id)).unwrap();
                    assert_eq!(answer.status, 200, "{id}: {}", answer.text());
                }
            });
        }
    });
    for node in &nodes {
        assert_eq!(node.events_of("events").len(), ids.len(), "each node keeps what it took");
    }
    std::thread::sleep(QUIET);
    assert_eq!(counts(&nats), ids.into_iter().map(|id| (id, 1)).collect());
}

/// The negative control.
#[test]
#[ignore = "needs the sinks' servers, see tests/run sinks"]
fn without_a_common_key_an_event_of_two_nodes_is_seen_to_be_there_twice() {
    let nats = Nats::start();
    for _ in 0..2 {
        let mut stranger = node(&nats);
        stranger.run();
        assert_eq!(stranger.send(&request("twin")).status, 200);
    }
    assert_eq!(counts(&nats).get("twin"), Some(&2), "the test above does not see twins");
}

/// What all senders know together. Relaxed throughout: the join of the threads completes it.
#[derive(Debug, Default)]
struct Tally {
    acknowledged: AtomicU64,
    refused: AtomicU64,
    stop: AtomicBool,
}

/// Sends through the balancer, some events twice, until told to stop. Returns what was
/// acknowledged, and what was not.
fn send_all(through: SocketAddr, sender: usize, tally: &Tally) -> (BTreeSet<String>, Vec<String>) {
    let (mut acknowledged, mut open) = (BTreeSet::new(), Vec::new());
    let mut connection = None;
    for index in 0.. {
        if tally.stop.load(Ordering::Relaxed) {
            break;
        }
        // Every third one is a delivery of what was sent before, to whichever node is next.
        let id = format!("s{sender}-{}", index - index % 3 / 2);
        let made = connection.take().map_or_else(|| Connection::open(through), Ok);
        let answered = made.and_then(|mut made| made.send(&request(&id)).map(|told| (made, told)));
        match answered {
            Ok((made, answer)) if answer.status == 200 => {
                tally.acknowledged.fetch_add(1, Ordering::Relaxed);
                acknowledged.insert(id);
                connection = (!answer.closes()).then_some(made);
            }
            Ok((_, answer)) => {
                assert!([502, 503, 504].contains(&answer.status), "{id}: {}", answer.status);
                tally.refused.fetch_add(1, Ordering::Relaxed);
                open.push(id);
            }
            Err(_) => open.push(id),
        }
    }
    (acknowledged, open)
}

#[test]
#[ignore = "needs the sinks' servers, see tests/run sinks"]
fn what_three_nodes_acknowledged_is_in_the_stream_though_one_is_killed() {
    let nats = Nats::start();
    let mut nodes = nodes(&nats);
    let (_nginx, through) = balancer(&nodes);
    let tally = Tally::default();
    let more = |what: &str| {
        let begun = tally.acknowledged.load(Ordering::Relaxed);
        let come = || tally.acknowledged.load(Ordering::Relaxed) >= begun + PART;
        eventually(what, PATIENCE, come);
    };
    let (mut acknowledged, mut open) = (BTreeSet::new(), Vec::new());
    std::thread::scope(|scope| {
        let tally = &tally;
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| scope.spawn(move || send_all(through, sender, tally)))
            .collect();
        more("three nodes take the load");
        nodes[1].kill();
        more("two nodes take the load");
        nodes[1].run();
        more("three nodes take the load again");
        tally.stop.store(true, Ordering::Relaxed);
        for sender in senders {
            let (told, unanswered) = sender.join().unwrap();
            acknowledged.extend(told);
            open.extend(unanswered);
        }
    });
    let in_stream = |id: &String| counts(&nats).contains_key(id);
    let stored = counts(&nats);
    assert!(acknowledged.iter().all(|id| stored.contains_key(id)), "acknowledged and not there");
    for id in open {
        eventually("what was refused is taken in the end", PATIENCE, || {
            Connection::open(through)
                .and_then(|mut connection| connection.send(&request(&id)))
                .is_ok_and(|answer| answer.status == 200)
        });
        assert!(in_stream(&id), "{id}");
        acknowledged.insert(id);
    }
    std::thread::sleep(QUIET);
    let stored = counts(&nats);
    let held: usize = nodes.iter().map(|node| node.events_of("events").len()).sum();
    for node in &nodes {
        let events = node.events_of("events");
        assert!(events.iter().all(|row| stored.contains_key(row.id())), "kept and not there");
    }
    assert_eq!(stored, acknowledged.iter().map(|id| (id.clone(), 1)).collect());
    assert!(held > acknowledged.len(), "no event came to two nodes");
    eprintln!(
        "{} events acknowledged, {held} kept by three nodes, {} refused for a while; 0 lost, 0 twice",
        acknowledged.len(),
        tally.refused.into_inner()
    );
}
