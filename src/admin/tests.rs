//! The listener as a scraper and a load balancer meet it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use forebay_log::{Durations, LaneState, LaneStats, WatermarksRead};

use super::*;
use crate::config::QuarantineConfig;
use crate::dedupe::{self, Fingerprinter};
use crate::observe::{LaneReading, Outcome, ReplayFate, SinkCounters, Watched};
use crate::quarantine::Quarantine;
use crate::reject::Reject;
use crate::replica::Replica;

/// A reading with a different number in every place.
fn reading(state: LaneState) -> LaneReading {
    let syncs = Durations {
        buckets: vec![(1_023, 3), (1_048_575, 2), (u64::MAX, 1)],
        sum: Duration::from_millis(1_500),
        max: Duration::from_secs(1),
    };
    LaneReading {
        state,
        watermarks: WatermarksRead { claimed: 4, published: 3, durable: 2 },
        acked: 1,
        stats: LaneStats {
            records: 11,
            pads: 12,
            synced_bytes: 13,
            syncs: syncs.clone(),
            stores: syncs.clone(),
            stalls: syncs,
            sync_failures: 14,
            salvages: 25,
            segments: 15,
            segments_created: 16,
            segments_retired: 17,
            unread_segments: 25,
            unread_records: 26,
            bytes: 18,
            available_bytes: 19,
            full_refusals: 20,
        },
        dedupe: dedupe::Stats {
            keys: 21,
            capacity: 22,
            blocks: 23,
            refused: 24,
            files: dedupe::FileStats {
                generations: 25,
                keys: 26,
                guide_bytes: 27,
                unbacked: 28,
                rebuilt: 29,
                lost: 30,
                failures: 31,
            },
        },
    }
}

struct Scene {
    admin: Admin,
    metrics: Arc<Metrics>,
    draining: Arc<AtomicBool>,
    /// Index into `STATES`.
    state: Arc<AtomicU8>,
}

const STATES: [LaneState; 4] =
    [LaneState::Open, LaneState::Full, LaneState::Failed, LaneState::Closed];

fn scene() -> Scene {
    let state = Arc::new(AtomicU8::new(0));
    let current = Arc::clone(&state);
    let lane =
        Watched::new("live", move || reading(STATES[usize::from(current.load(Ordering::Relaxed))]));
    let metrics = Arc::new(Metrics::new(2, vec![lane]));
    let draining = Arc::new(AtomicBool::new(false));
    let shared = State { metrics: Arc::clone(&metrics), draining: Arc::clone(&draining) };
    let admin = Admin::start(([127, 0, 0, 1], 0).into(), shared).expect("a free port");
    Scene { admin, metrics, draining, state }
}

/// The whole answer, head and body.
fn asked(scene: &Scene, path: &str) -> String {
    let mut stream = TcpStream::connect(scene.admin.address()).expect("listening");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    answer
}

#[test]
fn health_is_told_while_the_process_lives_whatever_the_lanes_do() {
    let scene = scene();
    scene.state.store(2, Ordering::Relaxed);
    scene.draining.store(true, Ordering::Relaxed);
    assert!(asked(&scene, "/healthz").starts_with("HTTP/1.1 200"));
}

#[test]
fn readiness_needs_every_lane_open_and_says_which_is_not_and_why() {
    let scene = scene();
    let answer = asked(&scene, "/readyz");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with(
        "{\"ready\":true,\"draining\":false,\"lanes\":[{\"lane\":\"live\",\"state\":\"open\"}]}\n"
    ));
    for (index, name) in [(1, "full"), (2, "failed"), (3, "closed")] {
        scene.state.store(index, Ordering::Relaxed);
        let answer = asked(&scene, "/readyz");
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains(&format!("\"lane\":\"live\",\"state\":\"{name}\",\"why\":\"")));
    }
}

#[test]
fn a_sink_that_has_stopped_for_good_is_named_and_keeps_only_its_replica_from_being_ready() {
    let scene = scene();
    let sink = Arc::new(SinkCounters::new("out", "nats", ["live"]));
    scene.metrics.watch_sinks(vec![Arc::clone(&sink)]);
    assert!(!asked(&scene, "/readyz").contains("sinks"));
    assert!(
        asked(&scene, "/metrics").contains("forebay_sink_stopped{sink=\"out\",kind=\"nats\"} 0")
    );
    sink.stopped(true);
    let answer = asked(&scene, "/readyz");
    assert!(answer.starts_with("HTTP/1.1 200"), "what it has not taken is kept: {answer}");
    assert!(answer.contains("\"sinks\":[{\"sink\":\"out\",\"why\":\"it has stopped"), "{answer}");
    assert!(
        asked(&scene, "/metrics").contains("forebay_sink_stopped{sink=\"out\",kind=\"nats\"} 1")
    );
    scene.metrics.watch_replicas(vec![("live".to_owned(), Arc::new(Replica::new("out")))]);
    let answer = asked(&scene, "/readyz");
    assert!(answer.starts_with("HTTP/1.1 503"), "its lane is never acknowledged: {answer}");
}

#[test]
fn a_process_that_is_leaving_is_not_ready() {
    let scene = scene();
    scene.draining.store(true, Ordering::Relaxed);
    let answer = asked(&scene, "/readyz");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("\"draining\":true"));
}

#[test]
fn unknown_paths_and_other_methods_are_refused() {
    let scene = scene();
    assert!(asked(&scene, "/").starts_with("HTTP/1.1 404"));
    let mut stream = TcpStream::connect(scene.admin.address()).expect("listening");
    stream
        .write_all(b"POST /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
}

#[test]
fn an_address_that_is_taken_is_named_with_the_key_to_change() {
    let scene = scene();
    let state = State { metrics: Arc::clone(&scene.metrics), draining: Arc::default() };
    let error = Admin::start(scene.admin.address(), state).expect_err("taken").to_string();
    assert!(error.contains("[admin]") && error.contains("127.0.0.1"), "{error}");
}

const GUIDE: &str = include_str!("README.md");

/// The rows of a table of the guide, between its two marks.
fn rows(mark: &str) -> Vec<Vec<&'static str>> {
    let (_, rest) = GUIDE.split_once(&format!("<!-- {mark}:")).expect("the mark");
    let table = rest.split("<!-- end -->").next().expect("its end");
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// The page of a scene in which every family is told: it has a quarantine, and its lane replicates
/// to a sink.
fn whole_page() -> String {
    let scene = scene();
    let data = tempfile::tempdir().expect("a folder");
    let kept = QuarantineConfig { bytes: 1 << 20, age: Duration::from_secs(60), rate: None };
    let fingerprinter = Fingerprinter::new(&[7; 16]);
    let place = (data.path(), &kept);
    let quarantine = Quarantine::start(place, &[], &fingerprinter, &Clock::System);
    scene.metrics.watch_quarantine(quarantine.expect("room for a MiB"));
    scene.metrics.watch_sinks(vec![Arc::new(SinkCounters::new("out", "nats", ["live"]))]);
    scene.metrics.watch_replicas(vec![("live".to_owned(), Arc::new(Replica::new("out")))]);
    asked(&scene, "/metrics")
}

/// Name, type and meaning of every family, the name as a dashboard asks for it.
fn families(page: &str) -> Vec<(String, String, String)> {
    let told = |what: &str| -> Vec<(String, String)> {
        let lines = page.lines().filter_map(|line| line.strip_prefix(what)?.split_once(' '));
        lines.map(|(name, text)| (name.to_owned(), text.to_owned())).collect()
    };
    let types = told("# TYPE ");
    let family = |(name, meaning): (String, String)| {
        let kind = types.iter().find(|(of, _)| *of == name).expect("it has a type").1.clone();
        let end = match kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        (format!("{name}{end}"), kind, meaning)
    };
    told("# HELP ").into_iter().map(family).collect()
}

#[test]
fn the_guide_lists_every_metric_as_the_page_tells_it() {
    let page = whole_page();
    let told = families(&page);
    let rows = rows("metrics");
    for (name, kind, meaning) in &told {
        let row = rows.iter().find(|row| row[0].trim_matches('`') == name);
        let row = row.unwrap_or_else(|| panic!("{name} is not in the guide"));
        assert!(row[1].starts_with(kind.as_str()) || kind == "info", "{name}: {kind}");
        assert_eq!(row[3], meaning, "{name}");
        let Some(series) = page.lines().find(|line| line.starts_with(&format!("{name}{{"))) else {
            continue;
        };
        let labels = series.split(['{', '}']).nth(1).expect("braces");
        let labels: Vec<String> = labels
            .split(',')
            .map(|label| format!("`{}`", label.split('=').next().expect("a name")))
            .collect();
        assert_eq!(row[2], labels.join(", "), "{name}");
    }
    assert_eq!(rows.len(), told.len(), "no row without its metric");
}

#[test]
fn every_metric_that_a_document_names_is_there() {
    let told = families(&whole_page());
    // The crate of the log, a table of PostgreSQL, a switch of the tests.
    let others = ["forebay_log", "forebay_events", "forebay_fault"];
    for (document, text) in [
        ("README.md", include_str!("../../README.md")),
        ("ARCHITECTURE.md", include_str!("../../ARCHITECTURE.md")),
        ("src/admin/README.md", GUIDE),
        ("src/config/README.md", include_str!("../config/README.md")),
        ("src/drain/README.md", include_str!("../drain/README.md")),
        ("src/log/README.md", include_str!("../log/README.md")),
        ("src/quarantine/README.md", include_str!("../quarantine/README.md")),
        ("src/verify/README.md", include_str!("../verify/README.md")),
        ("src/verify/presets/README.md", include_str!("../verify/presets/README.md")),
        ("tuning/README.md", include_str!("../../tuning/README.md")),
    ] {
        let words = text.split(|is: char| !is.is_ascii_lowercase() && is != '_');
        for word in words.filter(|word| word.starts_with("forebay_") && !others.contains(word)) {
            assert!(told.iter().any(|(name, ..)| name == word), "{document}: {word}");
        }
    }
}

#[test]
fn the_guide_lists_every_reason_to_refuse() {
    let rows = rows("reasons");
    let told = Reject::ALL.map(|reject| {
        let (label, fault) = (format!("`{}`", reject.label()), reject.fault().label());
        [label, reject.status().as_str().to_owned(), fault.to_owned(), reject.detail().to_owned()]
    });
    assert_eq!(rows, told);
}

#[test]
fn the_page_holds_every_metric_with_its_unit_and_its_labels() {
    let scene = scene();
    let first = scene.metrics.receiver(0).expect("two");
    first.runs_on("io_uring");
    first.connected();
    first.connected();
    first.disconnected();
    first.holds(4_096);
    first.acked(Duration::from_micros(20));
    let stripe = scene.metrics.source("stripe");
    stripe.count(0, Outcome::Accepted);
    scene.metrics.source("stripe").count(1, Outcome::Accepted);
    stripe.count(1, Outcome::Rejected(Reject::Stale));
    stripe.received(1, 1_024);
    stripe.suspect_replay(0, ReplayFate::Kept);
    stripe.suspect_replay(1, ReplayFate::Kept);
    stripe.suspect_replay(1, ReplayFate::Dropped);
    stripe.confirmation(true);
    stripe.confirmation(false);
    stripe.not_confirmed(1);
    scene.metrics.unknown().count(0, Outcome::Rejected(Reject::UnknownPath));
    scene.metrics.reloaded(false);

    let answer = asked(&scene, "/metrics");
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"));
    assert!(answer.ends_with("# EOF\n"));
    let (_, page) = answer.split_once("\r\n\r\n").expect("a head");
    for line in include_str!("expected.txt").lines() {
        assert!(page.lines().any(|found| found == line), "{line}\nnot in\n{page}");
    }
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let unit = |line: &&str| line.starts_with("forebay_");
    assert_eq!(samples.clone().filter(unit).count(), samples.count(), "one prefix");
}

#[test]
fn an_address_that_cannot_be_had_is_told_with_its_own_cure() {
    let listen = SocketAddr::from(([127, 0, 0, 1], 97));
    let told = |kind: io::ErrorKind| AdminError::Listen { listen, source: kind.into() }.to_string();
    for (kind, cure) in [
        (io::ErrorKind::AddrInUse, "to one that is free"),
        (io::ErrorKind::PermissionDenied, "CAP_NET_BIND_SERVICE"),
        (io::ErrorKind::AddrNotAvailable, "one of this machine"),
    ] {
        assert!(told(kind).contains(cure), "{}", told(kind));
    }
}
