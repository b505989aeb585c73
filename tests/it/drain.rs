//! The drain from outside: what was acknowledged reaches the sink, whatever happens in between.
//!
//! The sink is standard output, which the test keeps in a file beside the server's own words. So
//! what it holds was written by the process that was killed, and by nobody else.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::sync::mpsc::channel;
use std::time::Duration;

use forebay_log::Clock;

use crate::support::http::Connection;
use crate::support::random::Random;
use crate::support::server::{Server, Setup, forebay};
use crate::support::{Driver, eventually, setting, sign, stranger};

for_each_driver![
    what_was_acknowledged_reaches_the_sink_though_forebay_is_killed_at_random,
    a_stopped_server_drains_on_where_it_was,
    a_sink_that_takes_nothing_delays_nobody_and_gets_all_of_it_once_it_does,
    a_replay_brings_again_what_it_is_asked_for_and_moves_no_cursor,
    a_replay_to_a_sink_that_takes_nothing_says_why_and_ends,
    a_sink_that_changes_under_load_loses_nothing_and_keeps_its_order,
];

const SINK: &str =
    "\n[[sink]]\nname = \"out\"\nbatch = { count = 7, linger = \"5ms\" }\n[sink.stdout]\n";
const DRAIN_WAIT: Duration = Duration::from_secs(60);
const ROUNDS_DEFAULT: u64 = 5;

fn body(id: &str) -> String {
    format!("{{\"type\":\"drained\",\"id\":\"{id}\"}}")
}

/// How often each event was written to the sink; what a kill has cut is not one.
fn drained(server: &Server) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in server.log().lines() {
        let id = line.strip_prefix("{\"type\":\"drained\",\"id\":\"");
        if let Some(id) = id.and_then(|rest| rest.strip_suffix("\"}")) {
            *counts.entry(id.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// Sends until the connection breaks or `count` were sent; the ids that were acknowledged.
fn send(server: &Server, prefix: &str, count: u64) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let Ok(mut connection) = Connection::open(server.address()) else { return acknowledged };
    for index in 0..count {
        let id = format!("{prefix}-{index}");
        match connection.send(&sign::standard(&id, body(&id).as_bytes())) {
            Ok(answer) if answer.status == 200 => acknowledged.push(id),
            // The log was full for a moment, which ends the connection.
            Ok(_) => match Connection::open(server.address()) {
                Ok(next) => connection = next,
                Err(_) => break,
            },
            Err(_) => break,
        }
    }
    acknowledged
}

fn lost(server: &Server, acknowledged: &BTreeSet<String>) -> Vec<String> {
    let drained = drained(server);
    acknowledged.iter().filter(|id| !drained.contains_key(*id)).cloned().collect()
}

fn what_was_acknowledged_reaches_the_sink_though_forebay_is_killed_at_random(driver: Driver) {
    let rounds = setting("IT_DRAIN_ROUNDS", ROUNDS_DEFAULT);
    let seed = setting("IT_SEED", Clock::System.wall_ns());
    eprintln!("drain under kill -9, {}: {rounds} rounds, IT_SEED={seed}", driver.name());
    let mut random = Random::new(seed);
    let setup = Setup::new(driver).segments("1MiB", "64KiB").more(SINK);
    let mut server = Server::start(setup);
    let mut acknowledged = BTreeSet::new();
    for round in 0..rounds {
        let life = Duration::from_micros(random.between(20_000, 400_000));
        std::thread::scope(|scope| {
            let server = &server;
            let senders: Vec<_> = (0..4)
                .map(|sender| {
                    scope.spawn(move || send(server, &format!("r{round}-s{sender}"), u64::MAX))
                })
                .collect();
            std::thread::sleep(life);
            server.strike();
            for sender in senders {
                acknowledged.extend(sender.join().unwrap());
            }
        });
        server.bury();
        server.run();
    }
    eventually("all of it has reached the sink", DRAIN_WAIT, || {
        lost(&server, &acknowledged).is_empty()
    });
    let counts = drained(&server);
    let twice = counts.values().filter(|count| **count > 1).count();
    eprintln!(
        "drain under kill -9, {}: {rounds} rounds, {} acknowledged, 0 lost, {twice} more than once",
        driver.name(),
        acknowledged.len()
    );
    assert!(acknowledged.len() > 20, "the load was none");
    // The negative control: the judge sees an event that never was.
    acknowledged.insert("never-sent".to_owned());
    assert_eq!(lost(&server, &acknowledged), ["never-sent"]);
}

fn a_stopped_server_drains_on_where_it_was(driver: Driver) {
    let mut server = Server::start(Setup::new(driver).more(SINK));
    for round in 0..3 {
        let sent = send(&server, &format!("round{round}"), 100);
        assert_eq!(sent.len(), 100);
        eventually("the sink has it", DRAIN_WAIT, || drained(&server).len() == (round + 1) * 100);
        assert!(server.end().success());
        server.run();
    }
    assert!(drained(&server).values().all(|count| *count == 1), "a stop leaves nothing half done");
    for line in [
        "forebay_sink_lag_bytes{sink=\"out\",lane=\"main\"} 0",
        "forebay_sink_circuit{sink=\"out\",kind=\"stdout\"} 0",
    ] {
        eventually(line, DRAIN_WAIT, || {
            server.admin("/metrics").text().lines().any(|shown| shown == line)
        });
    }
    let cursors = forebay(&["cursors", "list", "--dir"]).arg(server.data()).output().unwrap();
    assert!(String::from_utf8_lossy(&cursors.stdout).contains("sink-out"));
}

fn a_sink_that_takes_nothing_delays_nobody_and_gets_all_of_it_once_it_does(driver: Driver) {
    const COUNT: usize = 3000;
    // The pipe holds 64 KiB; what is behind it waits.
    let sink = "[[sink]]\nname = \"out\"\ntimeout = \"200ms\"\n[sink.stdout]\n";
    let mut server = Server::start(Setup::new(driver).more(sink).piped());
    assert_eq!(send(&server, &format!("{:0200}", 0), COUNT as u64).len(), COUNT);
    eventually("the sink is left alone", DRAIN_WAIT, || {
        let page = server.admin("/metrics");
        let value = page.text().lines().find_map(|line| {
            line.strip_prefix("forebay_sink_circuit{sink=\"out\",kind=\"stdout\"} ")
        });
        value == Some("2")
    });
    assert_eq!(send(&server, "meanwhile", 100).len(), 100);
    let output = server.output();
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut taken = BTreeSet::new();
    eventually("the sink has all of it", DRAIN_WAIT, || {
        taken.extend(lines.try_iter());
        taken.len() >= COUNT + 100
    });
    assert!(server.end().success(), "a sink that was stuck does not hold the exit");
}

/// What was written of each sender, in the order in which it first was.
fn written(server: &Server) -> BTreeMap<String, Vec<u64>> {
    let mut rooms: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in server.log().lines().filter(|line| line.starts_with("{\"room\":")) {
        // A line may be half there when it is read.
        let Ok(event) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let room = rooms.entry(event["room"].to_string()).or_default();
        let number = event["n"].as_u64().unwrap();
        if !room.contains(&number) {
            room.push(number);
        }
    }
    rooms
}

fn a_sink_that_changes_under_load_loses_nothing_and_keeps_its_order(driver: Driver) {
    const ROUNDS: usize = 5;
    const EACH: u64 = 400;
    let sinks = |count: usize| {
        format!(
            "[[sink]]\nname = \"out\"\norder = \"key\"\norder_key = \"json:room\"\n\
             batch = {{ count = {count}, linger = \"5ms\" }}\n[sink.stdout]\n\
             [[sink]]\nname = \"still\"\n[sink.file]\nfolder = \"still\"\n"
        )
    };
    let setup = Setup::new(driver);
    let server = Server::start(setup.clone().more(&sinks(7)));
    std::thread::scope(|scope| {
        for room in 0..4 {
            let server = &server;
            scope.spawn(move || {
                let mut connection = Connection::open(server.address()).unwrap();
                for n in 0..EACH {
                    let body = format!("{{\"room\":{room},\"n\":{n}}}");
                    let request = sign::standard(&format!("r{room}-{n}"), body.as_bytes());
                    assert_eq!(connection.send(&request).unwrap().status, 200);
                }
            });
        }
        for round in 1..=ROUNDS {
            server.write_config(&setup.clone().more(&sinks(7 + round)));
            server.reload();
            eventually("the sink has begun anew", DRAIN_WAIT, || {
                server.log().matches("begins at its cursor").count() == round
            });
        }
    });
    eventually("the sink has all of it", DRAIN_WAIT, || {
        let rooms = written(&server);
        rooms.len() == 4 && rooms.values().all(|room| room.len() as u64 == EACH)
    });
    for (room, numbers) in written(&server) {
        assert!(numbers.is_sorted(), "room {room}: {numbers:?}");
    }
    let file = server.config().with_file_name("still").join("main.ndjson");
    eventually("the other sink has each once", DRAIN_WAIT, || {
        std::fs::read_to_string(&file).is_ok_and(|text| text.lines().count() as u64 == 4 * EACH)
    });
}

fn a_replay_brings_again_what_it_is_asked_for_and_moves_no_cursor(driver: Driver) {
    let server = Server::start(Setup::new(driver).more(SINK));
    assert_eq!(send(&server, "live", 20).len(), 20);
    eventually("the sink has it", DRAIN_WAIT, || drained(&server).len() == 20);
    let replay = |words: &[&str]| {
        let mut command = forebay(&["replay", "--sink", "out", "--config"]);
        command.arg(server.config()).args(words).output().unwrap()
    };
    let dry = replay(&["--event", "live-7", "--dry-run", "--json"]);
    let dry: serde_json::Value = serde_json::from_slice(&dry.stdout).unwrap();
    assert_eq!(dry["events"][0]["event_id"], "live-7");
    assert_eq!(dry["events"].as_array().map(Vec::len), Some(1));
    // Its standard output is its own: the sink of this process is here.
    let text = String::from_utf8(replay(&["--event", "live-7"]).stdout).unwrap();
    assert_eq!(text, format!("{}\nreplayed 1 events, 0 refused\n", body("live-7")));
    let all = String::from_utf8(replay(&["--type", "drained", "--rate", "1000"]).stdout).unwrap();
    assert_eq!(all.lines().count(), 21, "{all}");
    let nothing = replay(&["--type", "other"]);
    assert_eq!(String::from_utf8_lossy(&nothing.stdout), "replayed 0 events, 0 refused\n");
    assert_eq!(replay(&["--lane", "none"]).status.code(), Some(2));
    assert_eq!(drained(&server).len(), 20, "the server's sink has seen none of it");
    let empty = forebay(&["dead-letters", "list", "--json", "--config"])
        .arg(server.config())
        .output()
        .unwrap();
    let empty: serde_json::Value = serde_json::from_slice(&empty.stdout).unwrap();
    assert_eq!(empty["dead_letters"].as_array().map(Vec::len), Some(0));
}

fn a_replay_to_a_sink_that_takes_nothing_says_why_and_ends(driver: Driver) {
    let sink = |name: &str, port: u16| {
        format!(
            "[[sink]]\nname = \"{name}\"\nretry = {{ first = \"10ms\", max = \"50ms\" }}\n\
             [sink.http]\nurl = \"http://127.0.0.1:{port}/\"\nallow_private = true\n"
        )
    };
    // No server has the port 1.
    let both = [sink("away", 1), sink("locked", stranger())].concat();
    let server = Server::start(Setup::new(driver).more(&both));
    send(&server, "live", 3);
    for (name, why) in [("away", "temporary"), ("locked", "misconfigured")] {
        let mut command = forebay(&["replay", "--sink", name, "--timeout", "1s", "--config"]);
        let told = command.arg(server.config()).output().unwrap();
        let (out, err) =
            (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
        assert_eq!(told.status.code(), Some(75), "{err}");
        assert_eq!(out, "replayed 0 events, 0 refused\n");
        assert!(err.contains("the sink takes nothing; trying again"), "{err}");
        let last = err.lines().last().unwrap_or_default();
        assert!(last.contains(&format!("gave up after 1s: sink {name}")), "{err}");
        assert!(last.contains(why), "{err}");
    }
}
