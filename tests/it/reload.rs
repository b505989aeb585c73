//! SIGHUP: sources and secrets change while requests are answered, and none is dropped. A file
//! with a mistake in it changes nothing.

use std::time::Duration;

use crate::support::load::{Load, StopOnDrop};
use crate::support::server::{Server, Setup, source};
use crate::support::{Driver, eventually, sign};

for_each_driver![
    a_reload_under_load_drops_nothing,
    secrets_rotate_without_a_gap,
    a_file_with_a_mistake_changes_nothing,
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
    let events = server.events();
    let loaded = events.iter().filter(|row| row.source.as_deref() == Some("std")).count();
    assert_eq!(loaded as u64, load.accepted(), "each acknowledged event is in the log");
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
}
