//! The admin listener: health, readiness and metrics, and only there.

use std::collections::HashMap;
use std::time::Duration;

use crate::support::server::{Server, Setup};
use crate::support::{Driver, eventually, sign};

const WAIT: Duration = Duration::from_secs(15);

for_each_driver![
    health_and_readiness_are_answered,
    a_lane_without_room_is_told_by_readiness_answers_and_logs,
    metrics_count_what_happened,
    the_public_listener_tells_nothing,
    connections_that_say_nothing_keep_nobody_out,
];

fn health_and_readiness_are_answered(driver: Driver) {
    let server = Server::start(Setup::new(driver));
    assert_eq!(server.admin("/healthz").status, 200);
    assert_eq!(server.admin("/readyz").status, 200);
    assert_eq!(server.admin("/no-such-page").status, 404);
}

fn a_lane_without_room_is_told_by_readiness_answers_and_logs(driver: Driver) {
    let mut server = Server::prepare(Setup::new(driver));
    let text = server.config_text();
    // More than any disk has.
    let full = text.replacen("ack = ", "disk_reserve = \"1000TiB\"\nack = ", 1);
    assert_ne!(text, full);
    server.write_config_text(&full);
    server.spawn();
    let told = || server.try_admin("/readyz").is_ok_and(|response| response.status == 503);
    eventually("the lane is full", WAIT, told);
    let answer = server.send(&sign::standard("msg_full", b"{}"));
    assert_eq!((answer.status, answer.value("retry-after").is_empty()), (503, false));
    assert!(answer.text().contains("log_full"), "{}", answer.text());
    eventually("the log says so", WAIT, || server.log().contains("low-water"));
    assert_eq!(server.log().matches("low-water").count(), 1, "{}", server.log());
}

/// Samples of the Prometheus text form, by name with labels; fails on a line that is neither a
/// sample nor a comment.
fn samples(text: &str) -> HashMap<String, f64> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
            let value = value.parse().unwrap_or_else(|_| panic!("not a number: {line:?}"));
            (name.to_owned(), value)
        })
        .collect()
}

/// The sum of the samples whose name and labels hold all of these words.
fn sum(samples: &HashMap<String, f64>, words: &[&str]) -> f64 {
    let holds = |name: &String| words.iter().all(|word| name.contains(word));
    samples.iter().filter(|(name, _)| holds(name)).map(|(_, value)| value).sum()
}

fn metrics_count_what_happened(driver: Driver) {
    let server = Server::start(Setup::new(driver));
    for index in 0..7 {
        assert_eq!(server.send(&sign::standard(&format!("msg_{index}"), b"{}")).status, 200);
    }
    for _ in 0..2 {
        assert_eq!(server.send(&sign::standard("msg_0", b"{}")).status, 200);
    }
    let unsigned = sign::standard("msg_x", b"{}").without("webhook-signature");
    for _ in 0..3 {
        assert_eq!(server.send(&unsigned).status, 401);
    }
    let response = server.admin("/metrics");
    assert_eq!(response.status, 200);
    assert!(
        response.value("content-type").starts_with("text/plain")
            || response.value("content-type").starts_with("application/openmetrics-text")
    );
    let text = response.text();
    for help in ["# HELP forebay_", "# TYPE forebay_"] {
        assert!(text.contains(help), "{text}");
    }
    let samples = samples(text);
    assert!(
        samples.keys().all(|name| name.starts_with("forebay_") || name.starts_with("process_"))
    );
    let requests = |words: &[&str]| {
        sum(&samples, &[&["forebay_requests_total", "source=\"std\""], words].concat())
    };
    assert!((requests(&["accepted"]) - 7.0).abs() < 0.1, "{text}");
    assert!((requests(&["duplicate"]) - 2.0).abs() < 0.1, "{text}");
    assert!((requests(&["signature_missing"]) - 3.0).abs() < 0.1, "{text}");
    for word in ["ack", "_bucket", driver.name(), "published", "durable", "segments"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

fn the_public_listener_tells_nothing(driver: Driver) {
    let server = Server::start(Setup::new(driver));
    for path in ["/metrics", "/healthz", "/readyz", "/"] {
        let response = server.send(&crate::support::http::Request::get(path));
        assert!([404, 405].contains(&response.status), "{path}: {}", response.status);
        assert_eq!(response.value("server"), "", "{path}");
    }
}

/// More connections than the listener holds at once, of which none ends its request.
fn connections_that_say_nothing_keep_nobody_out(driver: Driver) {
    let server = Server::start(Setup::new(driver));
    let mut stalled: Vec<_> = (0..80).map(|_| server.connect_admin()).collect();
    for connection in &mut stalled {
        connection.write(b"GET /healthz HTTP/1.1\r\nhost: a\r\nx-more: ").unwrap();
    }
    // Once they are cut off, there is room again.
    assert_eq!(server.admin("/healthz").status, 200);
    assert!(stalled[0].ended_within(Duration::from_secs(20)));
}
