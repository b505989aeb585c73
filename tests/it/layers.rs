//! Layers around the signature: addresses, told by whom; tokens in paths; client certificates; the
//! right environment. Every test asks what a stranger could gain.

use std::net::IpAddr;

use crate::support::http::{Connection, Request, Response};
use crate::support::server::{Server, Setup, source};
use crate::support::{Driver, sign};

for_each_driver![
    a_source_takes_its_addresses_alone,
    the_word_of_a_proxy_is_taken_and_that_of_a_stranger_is_not,
    a_proxy_of_tcp_introduces_its_clients,
    a_path_with_a_wrong_token_is_no_path_at_all,
    a_path_s_token_is_never_kept_or_shown,
    a_client_certificate_counts_on_the_word_of_a_proxy_alone,
    an_event_of_another_environment_is_refused,
    an_address_has_its_share_of_connections,
    who_fails_too_often_is_not_listened_to,
];

const PROXY: &str = "127.77.0.1";
const STRANGER: &str = "127.77.0.2";
const SENDER_NEAR: &str = "127.77.0.9";
const SENDER: &str = "203.0.113.9";
const TOKEN: &str = "4cAkbJ3UqTzX0m7yWl2e9R";

fn from(server: &Server, from: &str) -> Connection {
    Connection::open_from(from.parse::<IpAddr>().unwrap(), server.address()).unwrap()
}

fn send_from(server: &Server, address: &str, request: &Request) -> Response {
    from(server, address).send(request).unwrap()
}

fn limited(allowed: &str) -> String {
    let secrets = &[("a", sign::STANDARD_SECRET)];
    format!("{}allow_from = [{allowed}]\n", source("limited", "standard-webhooks", secrets))
}

fn event(id: &str) -> Request {
    sign::standard(id, b"{}").to("/limited")
}

fn a_source_takes_its_addresses_alone(driver: Driver) {
    let server =
        Server::start(Setup::new(driver).more(&limited("\"127.77.0.2\", \"2001:db8::/32\"")));
    assert_eq!(send_from(&server, STRANGER, &event("msg_1")).status, 200);
    let refused = send_from(&server, "127.77.0.3", &event("msg_2"));
    assert_eq!((refused.status, refused.closes()), (403, true));
    assert_eq!(refused.value("content-type"), "application/problem+json");
    // No header makes another address of it while no proxy is named.
    for (name, value) in [
        ("x-forwarded-for", "127.77.0.2"),
        ("x-real-ip", "127.77.0.2"),
        ("forwarded", "for=127.77.0.2"),
    ] {
        let spoofed = event("msg_3").header(name, value);
        assert_eq!(send_from(&server, "127.77.0.3", &spoofed).status, 403, "{name}");
    }
    assert_eq!(send_from(&server, "127.77.0.3", &sign::standard("msg_4", b"{}")).status, 200);
    let ids: Vec<String> = server.events().iter().map(|row| row.id().to_owned()).collect();
    assert_eq!(ids, ["msg_1", "msg_4"]);
}

fn the_word_of_a_proxy_is_taken_and_that_of_a_stranger_is_not(driver: Driver) {
    let setup = Setup::new(driver)
        .receive("trusted_proxies = [\"127.77.0.1\", \"10.0.0.0/8\"]")
        .more(&limited("\"203.0.113.0/24\""));
    let server = Server::start(setup);
    let told = |id: &str, list: &str| event(id).header("x-forwarded-for", list);
    let status = |from: &str, request: &Request| send_from(&server, from, request).status;
    assert_eq!(status(PROXY, &told("msg_1", SENDER)), 200);
    assert_eq!(status(PROXY, &told("msg_2", "198.51.100.1, 203.0.113.9, 10.1.1.1")), 200);
    for (what, from, request) in [
        ("a stranger's own word", STRANGER, told("x", SENDER)),
        ("a proxy that says nothing", PROXY, event("x")),
        ("another client", PROXY, told("x", "198.51.100.1")),
        (
            "an address that the client put before its own",
            PROXY,
            told("x", "203.0.113.9, 198.51.100.1"),
        ),
        (
            "the same in two lines",
            PROXY,
            told("x", SENDER).header("x-forwarded-for", "198.51.100.1"),
        ),
        ("no address", PROXY, told("x", "unknown")),
        ("half an address", PROXY, told("x", "203.0.113")),
        ("a trailing comma", PROXY, told("x", "203.0.113.9,")),
        ("not ASCII", PROXY, event("x").header("x-forwarded-for", b"203.0.113.9\xff".to_vec())),
    ] {
        assert_eq!(status(from, &request), 403, "{what}");
    }
    assert_eq!(server.events().len(), 2);
}

/// A header of version 2 for a connection of IPv4 over TCP.
fn v2(client: [u8; 4]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    bytes.extend(client);
    bytes.extend([127, 0, 0, 1, 0x12, 0x67, 0, 80]);
    bytes
}

fn a_proxy_of_tcp_introduces_its_clients(driver: Driver) {
    let setup = Setup::new(driver)
        .receive("trusted_proxies = [\"127.77.0.1\"]")
        .receive("proxy_header = \"proxy-protocol\"")
        .receive("head_timeout = \"500ms\"")
        .more(&limited("\"203.0.113.0/24\""));
    let server = Server::start(setup);
    let line = |client: &str| format!("PROXY TCP4 {client} 127.0.0.1 4711 80\r\n").into_bytes();
    let introduced = |from_: &str, header: &[u8], request: &Request| {
        let mut connection = from(&server, from_);
        // A peer that is cut off may not take all of it.
        let _ = connection.write(&[header, &request.bytes()].concat());
        connection.read().map(|response| response.status).ok()
    };
    assert_eq!(introduced(PROXY, &line(SENDER), &event("msg_1")), Some(200));
    assert_eq!(introduced(PROXY, &v2([203, 0, 113, 9]), &event("msg_2")), Some(200));
    assert_eq!(introduced(PROXY, &v2([198, 51, 100, 1]), &event("x")), Some(403));
    // Byte by byte, and more than one request behind it.
    let mut slow = from(&server, PROXY);
    for byte in line(SENDER) {
        slow.write(&[byte]).unwrap();
    }
    assert_eq!(slow.send(&event("msg_3")).unwrap().status, 200);
    assert_eq!(slow.send(&event("msg_4")).unwrap().status, 200);

    // What the HTTP client behind such a proxy says of itself is its own word.
    let spoofed = event("x").header("x-forwarded-for", SENDER);
    assert_eq!(introduced(PROXY, &line("198.51.100.1"), &spoofed), Some(403));
    // A stranger's header is not one of HTTP, and his address stays his own.
    assert_eq!(introduced(STRANGER, &line(SENDER), &event("x")), Some(400));
    assert_eq!(introduced(STRANGER, &v2([203, 0, 113, 9]), &event("x")), Some(400));
    assert_eq!(introduced(STRANGER, b"", &event("x")), Some(403));
    assert_eq!(introduced(STRANGER, b"", &sign::standard("msg_5", b"{}")), Some(200));
    // A proxy introduces every connection, or it is none.
    assert_eq!(introduced(PROXY, b"", &event("x")), None);
    assert_eq!(introduced(PROXY, b"PROXY TCP4 203.0.113 1 2 3\r\n", &event("x")), None);
    let twice = [line(SENDER), line(SENDER)].concat();
    assert_eq!(introduced(PROXY, &twice, &event("x")), Some(400));
    let mut silent = from(&server, PROXY);
    silent.write(b"PROXY TCP4 ").unwrap();
    assert!(silent.ended_within(std::time::Duration::from_secs(8)), "an introduction that stalls");
    assert_eq!(server.events().len(), 5);
}

fn hidden(token: &str) -> String {
    let text = source("hidden", "standard-webhooks", &[("a", sign::STANDARD_SECRET)]);
    let path = "path = \"/hooks/{token}/in\"\n";
    let text = text.replace("path = \"/hidden\"\n", path);
    format!("{text}path_token = {{ value = \"{token}\" }}\n")
}

fn to(id: &str, token: &str) -> Request {
    sign::standard(id, b"{}").to(&format!("/hooks/{token}/in"))
}

/// What the server says, without the date.
fn shown(response: &Response) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let headers = response.headers.iter().filter(|(name, _)| name != "date").cloned().collect();
    (response.status, headers, response.body.clone())
}

fn a_path_with_a_wrong_token_is_no_path_at_all(driver: Driver) {
    let setup = Setup::new(driver).more(&hidden(TOKEN));
    let server = Server::start(setup.clone());
    assert_eq!(server.send(&to("msg_1", TOKEN)).status, 200);
    let nowhere = shown(&server.send(&to("x", TOKEN).to("/no-such-path-at-all")));
    assert_eq!(nowhere.0, 404);
    let unsigned = |token: &str| to("x", token).without("webhook-signature");
    let mut guesses: Vec<Request> = (0..TOKEN.len())
        .flat_map(|at| {
            let cut = TOKEN[..at].to_owned();
            let mut changed = TOKEN.as_bytes().to_vec();
            changed[at] ^= 1;
            [cut, String::from_utf8(changed).unwrap()]
        })
        .map(|guess| to("x", &guess))
        .collect();
    let get = Request { method: "GET".to_owned(), ..to("x", "wrong") };
    let lower = TOKEN.to_ascii_lowercase();
    let encoded = format!("%{:02X}{}", TOKEN.as_bytes()[0], &TOKEN[1..]);
    guesses.extend([
        unsigned("wrong"),
        unsigned("{token}"),
        to("x", "{token}"),
        to("x", &lower),
        to("x", &encoded),
        to("x", &format!("{TOKEN}/..")),
        to("x", &format!("{TOKEN}x")),
        to("x", "").to("/hooks/in"),
        get,
    ]);
    for guess in &guesses {
        assert_eq!(shown(&server.send(guess)), nowhere, "{}", guess.target);
    }
    // Who knows the token is refused for what is wrong, as at any path.
    assert_eq!(server.send(&unsigned(TOKEN)).status, 401);

    server.write_config(&setup.clone().more("").secrets(&[("first", sign::STANDARD_SECRET)]));
    let text = server.config_text().replace(TOKEN, "another-token-of-22-bytes");
    server.write_config_text(&text);
    server.reload();
    crate::support::eventually("the old token is gone", std::time::Duration::from_secs(15), || {
        shown(&server.send(&to("x", TOKEN))) == nowhere
    });
    assert_eq!(server.send(&to("msg_2", "another-token-of-22-bytes")).status, 200);
}

fn a_path_s_token_is_never_kept_or_shown(driver: Driver) {
    let setup = Setup::new(driver).environment("FOREBAY_LOG", "trace").more(&hidden(TOKEN));
    let mut server = Server::start(setup);
    let request = to("msg_1", TOKEN);
    for target in [request.target.clone(), format!("{}?a=b", request.target)] {
        assert_eq!(server.send(&request.clone().to(&target)).status, 200);
    }
    let check = crate::support::server::forebay(&["check", "--json", "--config"])
        .arg(server.config())
        .output()
        .unwrap();
    let mut all = vec![
        server.admin("/metrics").text().to_owned(),
        String::from_utf8(check.stdout).unwrap(),
        format!("{:?}", server.rows_of(2)),
    ];
    let tailed = server.tail(&["--json", "--deliveries", "--from", "earliest"]);
    all.push(String::from_utf8(tailed.stdout).unwrap());
    assert!(server.end().success());
    all.push(server.log());
    for entry in walk(&server.data()) {
        let bytes = std::fs::read(&entry).unwrap();
        let found = bytes.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes());
        assert!(!found, "{} holds the token", entry.display());
    }
    assert!(all.iter().any(|text| text.contains("/hooks/{token}/in")), "the path is told");
    assert!(all.iter().all(|text| !text.contains(TOKEN)), "{all:?}");
}

/// Every file of a folder.
fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

fn a_client_certificate_counts_on_the_word_of_a_proxy_alone(driver: Driver) {
    let secrets = &[("a", sign::STANDARD_SECRET)];
    let certified = format!(
        "{}client_certificate = {{ header = \"X-Client-Subject\", values = [\"CN=sender\"] }}\n",
        source("certified", "standard-webhooks", secrets)
    );
    let setup = Setup::new(driver).receive("trusted_proxies = [\"127.77.0.1\"]").more(&certified);
    let server = Server::start(setup);
    let event = |id: &str| sign::standard(id, b"{}").to("/certified");
    let good = event("msg_1").header("x-client-subject", "CN=sender");
    assert_eq!(send_from(&server, PROXY, &good).status, 200);
    for (what, from, request) in [
        ("a stranger's own word", STRANGER, good.clone()),
        ("no certificate", PROXY, event("x")),
        ("another certificate", PROXY, event("x").header("x-client-subject", "CN=other")),
        ("a longer one", PROXY, event("x").header("x-client-subject", "CN=sender,OU=x")),
        ("two of them", PROXY, good.header("x-client-subject", "CN=sender")),
    ] {
        assert_eq!(send_from(&server, from, &request).status, 403, "{what}");
    }
    assert_eq!(server.events().len(), 1);
}

/// A signature proves the sender, not that its test mode was meant for production.
fn an_event_of_another_environment_is_refused(driver: Driver) {
    let secrets = &[("a", sign::STANDARD_SECRET)];
    let text = format!(
        "{}expect = {{ \"json:livemode\" = \"true\", \"json:account\" = [\"acme\", \"acme-eu\"] }}\n",
        source("limited", "standard-webhooks", secrets)
    );
    let server = Server::start(Setup::new(driver).more(&text));
    let status = |id: &str, body: &str| {
        server.send(&sign::standard(id, body.as_bytes()).to("/limited")).status
    };
    assert_eq!(status("msg_1", r#"{"livemode":true,"account":"acme-eu"}"#), 200);
    for body in [
        r#"{"livemode":false,"account":"acme"}"#,
        r#"{"livemode":true,"account":"other"}"#,
        r#"{"livemode":true}"#,
        r#"{"livemode":false,"livemode":true,"account":"acme"}"#,
        r#"{"data":{"livemode":true,"account":"acme"}}"#,
        "{}",
        "not JSON",
        "",
    ] {
        assert_eq!(status("x", body), 403, "{body}");
    }
    let mut forged = sign::standard("x", br#"{"livemode":false}"#).to("/limited");
    forged.body.push(b' ');
    assert_eq!(server.send(&forged).status, 401, "a stranger learns nothing of what is expected");
    assert_eq!(server.events().len(), 1);
}

fn an_address_has_its_share_of_connections(driver: Driver) {
    let server = Server::start(Setup::new(driver).receive("connections_per_address = 3"));
    // Two receivers take three each; the kernel spreads connections between them.
    let mut open: Vec<Connection> = (0..40).map(|_| from(&server, STRANGER)).collect();
    let mut answered = 0;
    for (index, connection) in open.iter_mut().enumerate() {
        let request = sign::standard(&format!("msg_{index}"), b"{}");
        answered += usize::from(connection.send(&request).is_ok_and(|answer| answer.status == 200));
    }
    assert!((1..=6).contains(&answered), "{answered} of 40 connections were served");
    let other = send_from(&server, SENDER_NEAR, &sign::standard("msg_other", b"{}"));
    assert_eq!(other.status, 200, "another address has a share of its own");
    let away = 40 - answered;
    let metrics = server.admin("/metrics");
    let counted: usize = metrics
        .text()
        .lines()
        .filter(|line| line.starts_with("forebay_connections_turned_away_total"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
        .sum();
    assert_eq!(counted, away);
    drop(open);
    crate::support::eventually(
        "the share is given back",
        std::time::Duration::from_secs(10),
        || {
            let mut connection = from(&server, STRANGER);
            connection.send(&sign::standard("msg_again", b"{}")).is_ok()
        },
    );
}

fn who_fails_too_often_is_not_listened_to(driver: Driver) {
    let setup = Setup::new(driver)
        .receive("failures_per_address = 5")
        .receive("trusted_proxies = [\"127.77.0.1\"]");
    let server = Server::start(setup);
    let guess = |number: usize| Request::post(&format!("/guess-{number}"));
    let statuses: Vec<u16> =
        (0..40).map(|number| send_from(&server, STRANGER, &guess(number)).status).collect();
    assert!(statuses[..5].iter().all(|status| *status == 404), "{statuses:?}");
    let last = send_from(&server, STRANGER, &guess(41));
    assert_eq!((last.status, last.closes()), (429, true));
    assert_ne!(last.value("retry-after"), "");
    let valid = sign::standard("msg_stranger", b"{}");
    crate::support::eventually(
        "the other receiver has heard it too",
        std::time::Duration::from_secs(10),
        || {
            send_from(&server, STRANGER, &guess(42));
            send_from(&server, STRANGER, &valid).status == 429
        },
    );
    assert_eq!(send_from(&server, SENDER_NEAR, &sign::standard("msg_1", b"{}")).status, 200);
    // Behind a proxy the client fails, and a made-up client before it helps nobody.
    for number in 0..40 {
        let spoofed = format!("198.51.100.{number}, 203.0.113.66");
        send_from(&server, PROXY, &guess(number).header("x-forwarded-for", spoofed));
    }
    let by = |client: &str, id: &str| {
        let request = sign::standard(id, b"{}").header("x-forwarded-for", client);
        send_from(&server, PROXY, &request).status
    };
    assert_eq!(by("203.0.113.66", "msg_x"), 429);
    assert_eq!(by("203.0.113.67", "msg_2"), 200);
}
