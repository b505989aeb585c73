//! SIGHUP: sources and secrets change while requests are answered, and none is dropped. A file
//! with a mistake in it changes nothing.

use std::time::Duration;

use crate::support::load::{Load, StopOnDrop};
use crate::support::server::{Server, Setup, forebay, source};
use crate::support::{Driver, eventually, sign};

for_each_driver![
    a_reload_under_load_drops_nothing,
    secrets_rotate_without_a_gap,
    secrets_rotate_under_load_and_nothing_is_refused,
    a_secret_counts_in_its_time_alone,
    the_secrets_in_use_are_told_and_their_values_are_not,
    a_file_with_a_mistake_changes_nothing,
    what_a_reload_cannot_change_is_named,
    a_sink_takes_a_new_secret_from_its_file_and_brings_what_waited,
    a_sink_that_cannot_be_made_changes_nothing,
];

const WAIT: Duration = Duration::from_secs(15);
const FIRST: (&str, &str) = ("first", sign::STANDARD_SECRET);
const NEXT: (&str, &str) = ("next", sign::STANDARD_SECRET_NEXT);

fn a_reload_under_load_drops_nothing(driver: Driver) {
    let setup = Setup::new(driver);
    let server = Server::start(setup.clone());
    let load = Load::default();
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&load);
        load.start(scope, server.address(), 4);
        for round in 0..10 {
            let name = format!("added-{round}");
            let added = source(&name, "standard-webhooks", &[FIRST]);
            server.write_config(&setup.clone().more(&added));
            server.reload();
            let path = format!("/{name}");
            eventually("the new source is served", WAIT, || {
                server.send(&sign::standard("msg_new", b"{}").to(&path)).status == 200
            });
        }
        // The file without the sources that were added: they are gone again.
        server.write_config(&setup);
        server.reload();
        eventually("the removed source is gone", WAIT, || {
            server.send(&sign::standard("msg_new", b"{}").to("/added-9")).status == 404
        });
    });
    assert_eq!((load.refused(), load.broken()), (0, 0), "of {} accepted", load.accepted());
    // Each acknowledged event is in the log, once, and a reader in another process sees it at once.
    let events = server.events();
    let loaded = events.iter().filter(|row| row.source.as_deref() == Some("std")).count();
    assert_eq!(loaded as u64, load.accepted());
}

fn secrets_rotate_without_a_gap(driver: Driver) {
    let setup = Setup::new(driver);
    let server = Server::start(setup.clone());
    let signed = |id: &str, secret| sign::standard_at(id, b"{}", sign::now_seconds(), secret);
    let status = |id: &str, secret| server.send(&signed(id, secret)).status;
    assert_eq!(status("msg_1", sign::STANDARD_SECRET_NEXT), 401, "not yet known");

    server.write_config(&setup.clone().secrets(&[NEXT, FIRST]));
    server.reload();
    eventually("the next secret is known", WAIT, || {
        status("msg_2", sign::STANDARD_SECRET_NEXT) == 200
    });
    assert_eq!(status("msg_3", sign::STANDARD_SECRET), 200, "the first still is");

    server.write_config(&setup.secrets(&[NEXT]));
    server.reload();
    eventually("the first secret is forgotten", WAIT, || {
        status("msg_4", sign::STANDARD_SECRET) == 401
    });
    assert_eq!(status("msg_5", sign::STANDARD_SECRET_NEXT), 200);

    let by = |id: &str| {
        let events = server.events();
        let row = events.iter().find(|row| row.id() == id).cloned();
        row.and_then(|row| row.secret).unwrap_or_default()
    };
    assert_eq!((by("msg_2"), by("msg_3")), ("next".to_owned(), "first".to_owned()));
}

/// As the guides say: the new secret is added, the sender changes over, the old one goes.
fn secrets_rotate_under_load_and_nothing_is_refused(driver: Driver) {
    const SENDERS: usize = 4;
    let setup = Setup::new(driver);
    let server = Server::start(setup.clone());
    let load = Load::default();
    let reloads = || {
        let metrics = server.admin("/metrics");
        let line =
            metrics.text().lines().find(|line| line.contains("reloads_total{outcome=\"ok\""));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    let reload = |secrets: &[(&'static str, &'static str)]| {
        let before = reloads();
        server.write_config(&setup.clone().secrets(secrets));
        server.reload();
        eventually("the secrets are loaded", WAIT, || reloads() > before);
    };
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&load);
        load.start(scope, server.address(), SENDERS);
        let (mut old, mut new) = (FIRST, NEXT);
        for round in 1..=6 {
            reload(&[old, new]);
            load.turn();
            eventually("every sender has changed over", WAIT, || {
                load.turned() == round * SENDERS as u64
            });
            reload(&[new]);
            (old, new) = (new, old);
        }
    });
    assert_eq!((load.refused(), load.broken()), (0, 0), "of {} accepted", load.accepted());
    let events = server.events();
    assert_eq!(events.len() as u64, load.accepted(), "each acknowledged event is in the log");
    let by = |name: &str| events.iter().filter(|row| row.secret.as_deref() == Some(name)).count();
    assert!(by("first") > 0 && by("next") > 0, "both were used");
}

fn a_secret_counts_in_its_time_alone(driver: Driver) {
    let at = |seconds: i64| {
        jiff::Timestamp::from_second(sign::now_seconds() + seconds).unwrap().to_string()
    };
    let secret = |name: &str, value: &str, time: &str| {
        format!("{{ name = \"{name}\", value = \"{value}\", {time} }}")
    };
    let source = |name: &str, secrets: &[String]| {
        format!(
            "[[source]]\nname = \"{name}\"\npath = \"/{name}\"\npreset = \"standard-webhooks\"\n\
             environment = \"test\"\nsecrets = [{}]\n",
            secrets.join(", ")
        )
    };
    let past = format!("not_after = \"{}\"", at(-1));
    let future = format!("not_before = {}", at(3600));
    let soon = format!("not_after = \"{}\"", at(2));
    let (first, next) = (sign::STANDARD_SECRET, sign::STANDARD_SECRET_NEXT);
    let setup = Setup::new(driver)
        .more(&source(
            "both",
            &[secret("old", first, &past), secret("new", next, &past.replace("after", "before"))],
        ))
        .more(&source("short", &[secret("short", first, &soon)]))
        .more(&source("none", &[secret("later", first, &future)]));
    let server = Server::start(setup);
    let send = |path: &str, id: &str, value: &str| {
        let request = sign::standard_at(id, b"{}", sign::now_seconds(), value);
        server.send(&request.to(path)).status
    };
    assert_eq!(send("/both", "msg_1", next), 200);
    assert_eq!(send("/both", "msg_2", first), 401, "expired");
    assert_eq!(send("/none", "msg_3", first), 503, "not yet: that is no fault of the sender");
    eventually("the last secret expires without a reload", WAIT, || {
        send("/short", "msg_4", first) == 503
    });
    let ids: Vec<String> = server.events().iter().map(|row| row.id().to_owned()).collect();
    assert!(ids.contains(&"msg_1".to_owned()) && !ids.contains(&"msg_2".to_owned()), "{ids:?}");
}

fn the_secrets_in_use_are_told_and_their_values_are_not(driver: Driver) {
    let mut server = Server::start(Setup::new(driver).secrets(&[FIRST, NEXT]));
    for index in 0..3 {
        assert_eq!(server.send(&sign::standard(&format!("msg_{index}"), b"{}")).status, 200);
    }
    let tell = |json: bool| {
        let mut command = forebay(&["secrets", "--config"]);
        command.arg(server.config());
        if json {
            command.arg("--json");
        }
        command.output().unwrap()
    };
    let told: serde_json::Value = serde_json::from_slice(&tell(true).stdout).unwrap();
    let of = |source: &str, name: &str| {
        let rows = told.as_array().unwrap();
        rows.iter().find(|row| row["source"] == source && row["name"] == name).unwrap()
    };
    assert_eq!((&of("std", "first")["uses"], &of("std", "next")["uses"]), (&3.into(), &0.into()));
    assert_eq!(of("std", "first")["kind"], "mac");
    assert_eq!(of("std", "first")["state"], "live");
    assert!(of("std", "first")["last_used"].as_str().unwrap().ends_with('Z'));
    assert!(of("std", "next")["last_used"].is_null());
    let text = String::from_utf8(tell(false).stdout).unwrap();
    assert!(text.lines().next().unwrap().starts_with("source "), "{text}");
    let metrics = server.admin("/metrics");
    let counted = "forebay_secret_matches_total{source=\"std\",secret=\"first\"} 3";
    assert!(metrics.text().contains(counted), "{}", metrics.text());
    assert!(metrics.text().contains("forebay_secret_last_match_timestamp_seconds{source=\"std\""));
    for shown in [told.to_string(), text, metrics.text().to_owned()] {
        for secret in [sign::STANDARD_SECRET, sign::STANDARD_SECRET_NEXT, sign::GITHUB_SECRET] {
            assert!(!shown.contains(secret.trim_start_matches("whsec_")), "{shown}");
        }
    }
    assert_eq!(server.send(&crate::support::http::Request::get("/secrets")).status, 404);
    assert!(server.end().success());
    let command = forebay(&["secrets", "--config"]).arg(server.config()).output().unwrap();
    assert_eq!(command.status.code(), Some(75), "nobody is there to tell");
}

/// The value of a series; 0 if there is none.
fn metric(server: &Server, series: &str) -> u64 {
    let page = server.admin("/metrics");
    let line = page.text().lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or(0)
}

fn a_sink_takes_a_new_secret_from_its_file_and_brings_what_waited(driver: Driver) {
    const COUNT: usize = 20;
    let target = Server::start(Setup::new(driver).secrets(&[NEXT]));
    let sink = format!(
        "[[sink]]\nname = \"out\"\n[sink.http]\nurl = \"http://{}/std\"\nallow_private = true\n\
         secrets = [{{ name = \"main\", file = \"sink-secret\" }}]\n\
         [[sink]]\nname = \"still\"\n[sink.file]\nfolder = \"still\"\n",
        target.address()
    );
    let mut server = Server::prepare(Setup::new(driver).more(&sink));
    let secret = server.config().with_file_name("sink-secret");
    std::fs::write(&secret, FIRST.1).unwrap();
    server.run();
    for index in 0..COUNT {
        assert_eq!(server.send(&sign::standard(&format!("msg_{index}"), b"{}")).status, 200);
    }
    eventually("the target refuses the first secret", WAIT, || {
        metric(&server, "forebay_sink_failures_total{sink=\"out\",class=\"misconfigured\"}") > 0
    });
    // Nothing but the file has changed.
    std::fs::write(&secret, NEXT.1).unwrap();
    server.reload();
    eventually("the target has all of it", WAIT, || target.events().len() == COUNT);
    let begun = |name: &str| {
        let log = server.log();
        let lines = log.lines().filter(|line| line.contains("begins at its cursor"));
        lines.filter(|line| line.contains(name)).count()
    };
    assert_eq!((begun("out"), begun("still")), (1, 0));
    let events = "forebay_sink_events_total{sink=\"still\",kind=\"file\"}";
    eventually("the other sink goes on", WAIT, || metric(&server, events) == COUNT as u64);
    assert_eq!(server.send(&sign::standard("msg_more", b"{}")).status, 200);
    eventually("both go on", WAIT, || {
        metric(&server, events) == COUNT as u64 + 1 && target.events().len() == COUNT + 1
    });
    // A sink that is gone is told of no more, and one that is new begins at the oldest event.
    let text = server.config_text().replace("\"still\"", "\"fresh\"");
    server.write_config_text(&text);
    server.reload();
    let fresh = events.replace("still", "fresh");
    eventually("the new sink has all", WAIT, || metric(&server, &fresh) == COUNT as u64 + 1);
    assert!(!server.admin("/metrics").text().contains("sink=\"still\""));
    for shown in [server.log(), server.admin("/metrics").text().to_owned()] {
        assert!(!shown.contains(NEXT.1.trim_start_matches("whsec_")), "{shown}");
    }
    assert!(server.end().success());
}

fn a_sink_that_cannot_be_made_changes_nothing(driver: Driver) {
    let sink = "[[sink]]\nname = \"out\"\n[sink.file]\nfolder = \"files\"\n";
    let server = Server::start(Setup::new(driver).more(sink));
    let text = server.config_text();
    let http = "[[sink]]\nname = \"more\"\n[sink.http]\nurl = \"http://127.0.0.1:9/\"\n";
    server.write_config_text(&format!("{text}\n{http}"));
    server.reload();
    eventually("the server says that it keeps its configuration", WAIT, || {
        server.log().contains("not reloaded")
    });
    assert_eq!(server.send(&sign::standard("msg_1", b"{}")).status, 200);
    let events = "forebay_sink_events_total{sink=\"out\",kind=\"file\"}";
    eventually("the sink goes on", WAIT, || metric(&server, events) == 1);
}

fn what_a_reload_cannot_change_is_named(driver: Driver) {
    let server = Server::start(Setup::new(driver));
    let good = server.config_text();
    for (key, from, to) in [
        ("lane", "ack = \"written\"", "ack = \"written\"\npriority = 3"),
        ("receive", "[receive]", "[receive]\nidle_timeout = \"9s\""),
    ] {
        assert!(good.contains(from), "nothing to replace: {from}");
        server.write_config_text(&good.replacen(from, to, 1));
        server.reload();
        let told = format!("\"key\":\"{key}\"");
        eventually("the server says what differs", WAIT, || {
            server.log().lines().any(|line| line.contains("not reloaded") && line.contains(&told))
        });
    }
    assert_eq!(server.send(&sign::standard("msg_kept", b"{}")).status, 200);
}

fn a_file_with_a_mistake_changes_nothing(driver: Driver) {
    let setup = Setup::new(driver);
    let server = Server::start(setup.clone());
    let good = server.config_text();
    let mistakes = [
        good.replace("[[lane]]", "[[lane"),
        good.replace("segment_size", "segment_sise"),
        good.replace(sign::STANDARD_SECRET, "short"),
        good.replace("preset = \"github\"", "preset = \"no-such-preset\""),
        String::new(),
    ];
    for (index, text) in mistakes.iter().enumerate() {
        assert_ne!(text, &good, "mistake {index} is one");
        let logged = server.log().len();
        server.write_config_text(text);
        server.reload();
        eventually("the server says that it keeps its configuration", WAIT, || {
            server.log().len() > logged
        });
        let request = sign::standard(&format!("msg_{index}"), b"{}");
        assert_eq!(server.send(&request).status, 200, "mistake {index}");
    }
    std::fs::remove_file(server.config()).unwrap();
    server.reload();
    assert_eq!(server.send(&sign::standard("msg_no_file", b"{}")).status, 200);
    // And a good file is taken after all of that.
    server.write_config(&setup.secrets(&[NEXT]));
    server.reload();
    eventually("the cured file is taken", WAIT, || {
        server.send(&sign::standard("msg_cured", b"{}")).status == 401
    });
    // Whoever collects the log reads the mistakes too.
    for line in server.log().lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
}
