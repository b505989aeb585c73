//! TLS before a broker, and a login. Tansu has no TLS: it takes a certificate and uses it for nothing.
//! So socat has it, in front of a broker that sends its clients there. Users are kept by another store
//! of Tansu's than that of the other tests (`tests/sinks/tansu`), for SCRAM alone: of a password that
//! comes as it is Tansu takes any, so that program judges it.

use std::path::Path;
use std::process::Command;

use super::super::certificates;
use super::super::socat::stand_before;
use super::super::suite::class_of;
use super::*;

/// A broker over the log of another one, and what is before it.
struct Secured {
    outer: Process,
    _inner: Process,
}

impl Secured {
    fn start(server: &Kafka, certificate: &Path, key: &Path) -> Self {
        let (mut inner, mut outer) = (Process::new(), Process::new());
        inner.spawn(&mut server.command(inner.port, outer.port));
        stand_before(&mut outer, inner.port, certificate, key);
        listening(&inner);
        Self { outer, _inner: inner }
    }

    /// What a sink needs that trusts this authority; none: those that the system trusts.
    fn settings(&self, server: &Kafka, authority: Option<&Path>) -> sink::Settings {
        sink::Settings {
            brokers: vec![format!("127.0.0.1:{}", self.outer.port)],
            tls: true,
            ca_pem: authority.map(|path| fs::read(path).unwrap()),
            ..server.settings()
        }
    }
}

#[test]
#[ignore = "needs the brokers, see tests/run brokers"]
fn over_tls_the_brokers_certificate_is_checked_against_the_authority_that_was_given() {
    let mut server = Kafka::start();
    let folder = tempfile::tempdir().unwrap();
    let [authority, certificate, key] = certificates::of_loopback(folder.path(), "server");
    let [stranger, ..] = certificates::of_loopback(folder.path(), "stranger");
    let secured = Secured::start(&server, &certificate, &key);
    let [named, certificate, key] = certificates::of_host(folder.path(), "other", "kafka.example");
    let elsewhere = Secured::start(&server, &certificate, &key);
    let deliver = |settings: sink::Settings, batch: &[Event]| {
        now(sink::Kafka::new(settings, TIMEOUT).deliver(batch))
    };
    let mut lane = Events::of_lane("main");
    let (first, second) = (lane.next(20), lane.next(20));
    assert_eq!(deliver(secured.settings(&server, Some(&authority)), &first), Delivered::All);
    // Whom nobody vouches for gets no event, and neither does one who is vouched for under another
    // name.
    for (settings, word) in [
        (secured.settings(&server, Some(&stranger)), "UnknownIssuer"),
        (secured.settings(&server, None), "UnknownIssuer"),
        (elsewhere.settings(&server, Some(&named)), "not valid for name"),
    ] {
        let sink = sink::Kafka::new(settings, TIMEOUT);
        let delivered = now(sink.deliver(&second));
        assert_eq!(class_of(&delivered), Some(Class::Misconfigured), "{delivered:?}");
        assert!(format!("{delivered:?}").contains(word), "{word}: {delivered:?}");
        assert_eq!(now(sink.probe()).map_err(|failure| failure.class), Err(Class::Misconfigured));
    }
    // A broker knows what it has written itself, and what was there when it began.
    server.broker.kill();
    server.run();
    assert_eq!(server.stored(), names_of(&first));
    assert_eq!(deliver(secured.settings(&server, Some(&authority)), &second), Delivered::All);
    server.broker.kill();
    server.run();
    assert_eq!(server.stored(), names_of(&[first, second].concat()));
}

#[test]
#[ignore = "needs the brokers, see tests/run brokers"]
fn a_broker_without_tls_gets_nothing_where_tls_is_wanted() {
    let server = Kafka::start();
    let batch = Events::of_lane("main").next(3);
    let secret = sink::Settings { tls: true, ..server.settings() };
    let delivered = now(sink::Kafka::new(secret, TIMEOUT).deliver(&batch));
    assert!(class_of(&delivered).is_some(), "{delivered:?}");
    assert_eq!(server.records().len(), 0);
    assert_eq!(now(server.sink(Who::Known).deliver(&batch)), Delivered::All);
}

const USER: &str = "forebay";
const PASSWORD: &str = "a-password-of-the-tests";

/// Lets the broker with users begin anew, with this door.
fn run(broker: &mut Process, advertised: u16, door: &[&str]) {
    broker.kill();
    let program =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tansu/debug/forebay-test-tansu");
    let mut command = Command::new(program);
    command.current_dir(broker.folder.path()).arg(broker.port.to_string());
    broker.spawn(command.arg(advertised.to_string()).arg("users.db").args(door));
    listening(broker);
}

/// Tries a door by right logins and wrong ones, over TLS. Of each mechanism: what the broker says of
/// another password, and of another user.
fn try_logins(door: &[&str], mechanisms: &[(Mechanism, [&str; 2])]) {
    let folder = tempfile::tempdir().unwrap();
    let [authority, certificate, key] = certificates::of_loopback(folder.path(), "server");
    let (mut broker, mut outer) = (Process::new(), Process::new());
    let (own, told) = (broker.port, outer.port);
    let address = format!("127.0.0.1:{own}");
    run(&mut broker, own, &["open"]);
    ask(&address, &["user", USER, PASSWORD]);
    ask(&address, &[&["create"], TOPICS.as_slice()].concat());
    run(&mut broker, told, door);
    stand_before(&mut outer, own, &certificate, &key);
    let with = |mechanism: Mechanism, user: &str, password: &str| sink::Settings {
        brokers: vec![format!("127.0.0.1:{told}")],
        sasl: Some(Sasl { mechanism, user: user.into(), password: SecretText::new(password) }),
        tls: true,
        ca_pem: Some(fs::read(&authority).unwrap()),
        topic: Template::parse(TEMPLATE).unwrap(),
        compression: Compression::None,
        create_topics: false,
    };
    let (mut lane, mut sent) = (Events::of_lane("main"), Vec::new());
    for (mechanism, [password, user]) in mechanisms {
        let batch = lane.next(20);
        let nobody = sink::Settings { sasl: None, ..with(*mechanism, USER, PASSWORD) };
        for (settings, class, word) in [
            (with(*mechanism, USER, "another"), Class::Misconfigured, *password),
            (with(*mechanism, "nobody", PASSWORD), Class::Misconfigured, *user),
            // Who does not log in at all is hung up on.
            (nobody, Class::Temporary, "connection closed"),
        ] {
            let delivered = now(sink::Kafka::new(settings, TIMEOUT).deliver(&batch));
            assert_eq!(class_of(&delivered), Some(class), "{delivered:?}");
            assert!(format!("{delivered:?}").contains(word), "{word}: {delivered:?}");
        }
        let sink = sink::Kafka::new(with(*mechanism, USER, PASSWORD), TIMEOUT);
        assert_eq!(now(sink.deliver(&batch)), Delivered::All, "{mechanism:?}");
        sent.extend(batch);
    }
    run(&mut broker, own, &["open"]);
    let name = |record: Stored| format!("main {}", record.header("Forebay-Position"));
    let stored: Vec<String> = records_at(&address).into_iter().map(name).collect();
    assert_eq!(stored, names_of(&sent));
}

#[test]
#[ignore = "needs the brokers, see tests/run brokers"]
fn a_login_by_scram_over_tls_opens_the_broker_and_a_wrong_one_does_not() {
    let words = ["invalid-proof", "unknown-user"];
    try_logins(&["closed"], &[(Mechanism::ScramSha256, words), (Mechanism::ScramSha512, words)]);
}

#[test]
#[ignore = "needs the brokers, see tests/run brokers"]
fn a_login_by_plain_over_tls_opens_the_broker_and_a_wrong_one_does_not() {
    let words = ["SASL Authentication failed"; 2];
    try_logins(&["plain", USER, PASSWORD], &[(Mechanism::Plain, words)]);
}
